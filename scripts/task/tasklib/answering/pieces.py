"""Rows that are asked in several pieces (windows of a long text, turns of a conversation) and answered as one.

Most rows are one piece. What the pieces of a row are, and how their answers become one, its task type says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasklib.answering.inference import Answer
from tasklib.data import answers
from tasklib.model import prompts
from tasklib.schema import TaskDefinition


@dataclass(frozen=True)
class Pieces:
    """`rows` in the form of the processed files, one for each piece of the `whole` rows; `first` is the position of
    each whole row's first piece, and last the number of pieces."""

    definition: TaskDefinition
    whole: Sequence[dict[str, Any]]
    rows: list[dict[str, Any]]
    first: list[int]

    def joined(self, found: Sequence[Answer]) -> list[Answer]:
        """One answer for each whole row out of those of its pieces, in order."""
        spans = zip(self.first[:-1], self.first[1:], strict=True)
        return [self._joined(row, start, found[start:end]) for row, (start, end) in zip(self.whole, spans, strict=True)]

    def _joined(self, row: dict[str, Any], start: int, found: Sequence[Answer]) -> Answer:
        module = self.definition.task_type
        if module.resolved is answers.resolved_alone:
            return found[0]
        record = module.Record(**row["record"])
        pieces = [module.Record(**piece["record"]) for piece in self.rows[start : start + len(found)]]
        value = module.resolved(record, pieces, [a.prediction for a in found], self.definition.task)
        outputs = [a.raw_output for a in found if a.raw_output is not None]
        return replace(
            found[0],
            prediction=value,
            raw_output="\n".join(outputs) if outputs else None,
            failed=any(a.failed for a in found),
            n_retries=sum(a.n_retries for a in found),
        )

    def owners(self) -> Iterator[int]:
        """The position of the whole row that each piece belongs to."""
        for position, (start, end) in enumerate(zip(self.first[:-1], self.first[1:], strict=True)):
            yield from [position] * (end - start)


def of(definition: TaskDefinition, rows: Sequence[dict[str, Any]], *, training: bool = False) -> Pieces:
    """The pieces of `rows` as they are asked, or as they are trained."""
    module = definition.task_type
    if module.pieces is answers.one_piece:
        return Pieces(definition, rows, list(rows), list(range(len(rows) + 1)))
    found: list[dict[str, Any]] = []
    first = [0]
    for row in rows:
        record = module.Record(**row["record"])
        pieces = module.pieces(record, definition.task, training=training)
        found += [row if piece == record else _row(definition, row, record, piece) for piece in pieces]
        first.append(len(found))
    return Pieces(definition, rows, found, first)


def _row(definition: TaskDefinition, row: dict[str, Any], record: Any, piece: Any) -> dict[str, Any]:
    """The processed row of one piece, behind the same system message and worked examples."""
    prefix = prompts.prefix_of(definition, row["prompt"], record)
    found = {**row, "record": piece.model_dump(), "prompt": prompts.follow_up(prefix, definition, piece)}
    if "completion" in row:
        found["completion"] = [prompts.assistant_message(definition, piece)]
    return found
