"""What a person decided for texts that the data label in two ways: data.decisions, a CSV of text, label and reason."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tasklib.data import answers
from tasklib.data.sheet_cells import guard, unguard
from tasklib.exit_codes import ExitCode
from tasklib.files import write_text
from tasklib.paths import TaskPaths
from tasklib.schema import FileSpec, TaskDefinition
from tasklib.summary import Problem, TaskError

if TYPE_CHECKING:
    from tasklib.data.dataset import Index

COLUMNS = ("text", "label", "reason")
MAX_GOLD = 200  # characters of an open answer in the list of contradictions


class Decision(NamedTuple):
    """The label that every row of this text gets, and why."""

    text: str
    label: str
    reason: str


def load(paths: TaskPaths, definition: TaskDefinition) -> dict[str, Decision]:
    """Duplicate key -> decision. A row without a label is not decided yet and is left out. Raises TaskError (exit 3)
    with every row that cannot be used."""
    from tasklib.data.dataset import duplicate_key
    from tasklib.reading.records import Row, read_file

    name = definition.data.decisions
    if name is None:
        return {}
    labels = definition.task_type.label_set(definition.task) or {}
    decided: dict[str, Decision] = {}
    problems = []
    for item in read_file(paths.root / name, name, FileSpec(path=name)):
        if isinstance(item, Problem):
            problems.append(item)
        elif isinstance(item, Row):
            text, label, reason = (unguard(str(item.values.get(column) or "")) for column in COLUMNS)
            _, faults = answers.require_label({"label": label}, "label", list(labels)) if label else (label, [])
            if faults:
                problems.append(_problem(item, faults[0].message, faults[0].hint))
            elif label and duplicate_key(text) in decided and decided[duplicate_key(text)].label != label:
                problems.append(_problem(item, "this text is decided twice", "keep one of the two"))
            elif label:
                decided[duplicate_key(text)] = Decision(text, label, reason)
    problems = [problem for problem in problems if problem.code != "header_only"]
    if problems:
        raise TaskError(ExitCode.DATA, problems)
    return decided


@dataclass(frozen=True)
class Contradiction:
    """One text with more than one label: (label, `file:line`) of each row that has it."""

    text: str
    seen: tuple[tuple[str, str], ...]


def require_labels(definition: TaskDefinition) -> None:
    """Raises TaskError (exit 2) for a task type whose answers are not one label that a sheet could hold."""
    if "label" in definition.task_type.FIELDS:
        return
    message = f"task type {definition.task.type} has no single label that a person could decide on"
    hint = "docs/annotation_guide.md lists the rows that contradict each other: correct them in the raw files"
    raise TaskError(ExitCode.USAGE, [Problem(code="no_labels", message=message, field="task.type", hint=hint)])


def contradictions(paths: TaskPaths, definition: TaskDefinition, index: Index) -> list[Contradiction]:
    """Texts that the rows label in more than one way; rows are read again only if there are any."""
    from tasklib.data.data_checks import earlier_equal
    from tasklib.data.dataset import examples, hash64

    positions, first = earlier_equal(index.text_key)
    differ = index.gold[positions] != index.gold[first]
    wanted = set(index.text_key[positions[differ]].tolist())
    seen: dict[int, list[tuple[str, str]]] = {}
    texts: dict[int, str] = {}
    for example in examples(paths, definition) if wanted else ():
        if (key := hash64(example.duplicate_key)) in wanted:
            labels = ", ".join(definition.task_type.strata(example.record))
            if definition.task_type.label_set(definition.task) is None:
                labels = json.dumps(definition.task_type.gold(example.record), ensure_ascii=False)[:MAX_GOLD]
            seen.setdefault(key, []).append((labels, f"{example.file}:{example.line}"))
            texts.setdefault(key, definition.task_type.text_of(example.record))
    return [Contradiction(texts[key], tuple(places)) for key, places in seen.items()]


def add_to_sheet(path: Path, found: list[Contradiction]) -> int:
    """Appends the contradictions that the sheet does not hold yet, labels left empty for a person. Returns how many.
    What a person wrote stays as it is. Excel opens the file: it begins with a byte order mark."""
    from tasklib.data.dataset import duplicate_key

    known = set()
    if path.is_file():
        with path.open(encoding="utf-8-sig", newline="") as stream:
            known = {duplicate_key(unguard(row.get("text") or "")) for row in csv.DictReader(stream)}
    new = [item for item in found if duplicate_key(item.text) not in known]
    seen = ("; ".join(f"{label} ({place})" for label, place in item.seen) for item in new)
    rows = [(guard(item.text), "", "", guard(places)) for item, places in zip(new, seen, strict=True)]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    before = path.read_text(encoding="utf-8") if path.is_file() else "\ufeff" + ",".join((*COLUMNS, "seen")) + "\n"
    if new or not path.is_file():
        write_text(path, before + ("" if before.endswith("\n") else "\n") + out.getvalue())
    return len(new)


def unused(decision: Decision, definition: TaskDefinition) -> Problem:
    """The warning for a decision about a text that no row holds."""
    message = f"no row holds the decided text {decision.text[:40]!r}"
    hint = "was the text changed? copy it as it stands in the data"
    return Problem(code="unused_decision", message=message, file=definition.data.decisions, field="text", hint=hint)


def _problem(row: object, message: str, hint: str) -> Problem:
    return Problem(code="bad_decision", message=message, file=row.file, line=row.line, field="label", hint=hint)
