"""Before the first step: what the trainer's collator yields trains each row's answer with its end of turn, and
nothing else.

It looks at the finished tensors and decodes them, whatever made them: encode(), a data collator, a packed batch.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tasklib.data import answers
from tasklib.exit_codes import ExitCode
from tasklib.model import prompts
from tasklib.schema import TaskDefinition
from tasklib.summary import Problem, TaskError

IGNORED = -100  # the label that PyTorch's cross entropy leaves out
Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]
_BATCH = 32  # examples collated at once
_N_SHOWN = 60  # characters of the masked text shown before the trained one
_VISIBLE = str.maketrans({" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"})
_HINTS = {
    "no_trained_token": "check that the collator keeps the labels of encode()",
    "end_of_turn_not_trained": "the model would not learn to stop: check the labels, and a collator that masks the pad "
    "token where pad and end of turn are one token",
    "prompt_trained": "only the answer may carry labels: check where the labels of the prompt end",
    "answer_cut": "check training.max_length and that nothing truncates the tokens",
    "answer_lost": "choose a model whose tokenizer knows these characters, or write other answers",
    "labels_shifted": "labels stand at the place of their own token: the model shifts them by itself",
    "padding_trained": "padding must carry the label -100",
}


@dataclass(frozen=True)
class Sample:
    """One row as it is trained, whitespace made visible: the end of what is masked, and what is trained."""

    which: str
    file: str | None
    line: int | None
    n_tokens: int
    masked_end: str
    trained: str


@dataclass(frozen=True)
class Proof:
    """What is trained: `trained_share` of all tokens, padding not counted."""

    samples: list[Sample]
    n_rows: int
    trained_share: float

    def lines(self) -> list[str]:
        """For the log: what is masked, then in double brackets what is trained."""
        head = f"mask proof: {self.n_rows} rows, {self.trained_share:.1%} of the tokens are trained"
        return [head] + [
            f"  {s.which} ({s.file}:{s.line}, {s.n_tokens} tokens): {s.masked_end}⟦{s.trained}⟧" for s in self.samples
        ]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Sequence:
    """One row out of a collated batch, without its padding. `n_trained_padding`: labels on its padding."""

    input_ids: np.ndarray
    labels: np.ndarray
    n_trained_padding: int

    @property
    def trained(self) -> np.ndarray:
        return self.labels != IGNORED


def prove(
    tokenizer: Any,
    definition: TaskDefinition,
    rows: Sequence[dict[str, Any]],
    examples: Sequence[dict[str, Any]],
    collate: Collate,
) -> Proof:
    """Proves the mask of every row. `collate` is the trainer's own; `examples` are what it gets, in the order of
    `rows`. Padded, padding-free and packed batches are read; a packed example holds consecutive rows.

    Raises TaskError (exit 3) naming every bad row: no_trained_token, end_of_turn_not_trained, prompt_trained,
    answer_cut, answer_lost, labels_shifted, padding_trained.
    """
    thinking = definition.prompt.enable_thinking
    judge = _judge(tokenizer, prompts.end_of_turn(tokenizer, rows[0]["prompt"], enable_thinking=thinking))
    problems: list[Problem] = []
    shown: dict[str, tuple[dict[str, Any], _Sequence]] = {}
    n_tokens = n_trained = n_rows = 0
    for row, sequence in itertools.zip_longest(rows, _sequences(examples, collate)):
        if row is None or sequence is None:
            raise ValueError(f"the collator does not yield the {len(rows)} rows one by one, in order")
        problems += _problems(judge, row, sequence)
        _remember(shown, row, sequence)
        n_rows, n_tokens = n_rows + 1, n_tokens + len(sequence.labels)
        n_trained += int(sequence.trained.sum())
    if problems:
        raise TaskError(ExitCode.DATA, problems)
    samples = [_sample(tokenizer, which, row, sequence) for which, (row, sequence) in shown.items()]
    return Proof(samples, n_rows, n_trained / n_tokens)


def _sequences(examples: Sequence[dict[str, Any]], collate: Collate) -> Iterator[_Sequence]:
    """The rows of all batches, in order."""
    for start in range(0, len(examples), _BATCH):
        batch = collate(list(examples[start : start + _BATCH]))
        ids, labels = np.asarray(batch["input_ids"]), np.asarray(batch["labels"])
        if "attention_mask" not in batch and "position_ids" in batch:
            yield from _unpacked(ids.ravel(), labels.ravel(), np.asarray(batch["position_ids"]).ravel())
            continue
        real = np.asarray(batch.get("attention_mask", np.ones_like(ids))).astype(bool)
        for row_ids, row_labels, row_real in zip(ids, labels, real, strict=True):
            on_padding = int((row_labels[~row_real] != IGNORED).sum())
            yield _Sequence(row_ids[row_real], row_labels[row_real], on_padding)


def _unpacked(ids: np.ndarray, labels: np.ndarray, positions: np.ndarray) -> Iterator[_Sequence]:
    """Rows of a flat batch: each begins where the positions start again at 0; several zeros at the end are padding."""
    end = int(np.flatnonzero(positions)[-1]) + 1
    starts = np.flatnonzero(positions[:end] == 0)
    n_trained_padding = int((labels[end:] != IGNORED).sum())
    for start, stop in zip(starts, [*starts[1:], end], strict=True):
        yield _Sequence(ids[start:stop], labels[start:stop], n_trained_padding if stop == end else 0)


def _judge(tokenizer: Any, end_of_turn: str) -> Callable[[str, _Sequence], list[tuple[str, str]]]:
    """A function (answer, row) -> [(code, message)]. It asks the tokenizer once for each distinct answer and row end,
    which are few with a closed label set."""
    endings = functools.lru_cache(maxsize=4096)(lambda answer: _endings(tokenizer, answer, end_of_turn))
    is_lost = functools.lru_cache(maxsize=4096)(lambda answer: _is_lost(tokenizer, answer))
    decode = functools.lru_cache(maxsize=4096)(lambda ids: _decode(tokenizer, ids))

    def judge(answer: str, sequence: _Sequence) -> list[tuple[str, str]]:
        trained, ids = sequence.trained, sequence.input_ids
        faults = []
        if sequence.n_trained_padding:
            faults.append(("padding_trained", f"{sequence.n_trained_padding} padding positions carry a label"))
        if not trained.any():
            return [*faults, ("no_trained_token", "no token of this row is trained")]
        if (sequence.labels[trained] != ids[trained]).any():
            return [*faults, ("labels_shifted", "labels are not the tokens that stand at their place")]
        if is_lost(answer):
            return [*faults, ("answer_lost", f"the tokenizer has no tokens for the answer {_short(answer)}")]
        said = f"trained is {_short(decode(tuple(ids[trained].tolist())))}"
        ending = next((e for e in endings(answer) if decode(tuple(ids[-e.n_tokens :].tolist())) in e.readings), None)
        if ending is None:
            wanted = _short(answer + end_of_turn)
            return [*faults, ("answer_cut", f"the row does not end with {wanted}; {said}")]
        before, behind = len(ids) - ending.n_tokens, len(ids) - ending.n_tokens + ending.n_answer
        if trained[:before].any():
            faults.append(("prompt_trained", f"{trained[:before].sum()} tokens of the prompt are trained; {said}"))
        if not trained[before:behind].all():
            faults.append(("answer_cut", f"{(~trained[before:behind]).sum()} tokens of the answer are masked; {said}"))
        if not trained[behind:].all():
            faults.append(("end_of_turn_not_trained", f"the end of turn {_short(end_of_turn)} is masked; {said}"))
        return faults

    return judge


@dataclass(frozen=True)
class _Ending:
    """How a row may end: tokens of the answer, tokens with the end of turn, and how those read."""

    n_answer: int
    n_tokens: int
    readings: frozenset[str]


def _endings(tokenizer: Any, answer: str, end_of_turn: str) -> list[_Ending]:
    """The answer as it stands, and without outer whitespace, which some templates trim; each also as it reads after a
    round through the tokenizer, which may normalize it or put a space first."""
    endings = []
    for text in dict.fromkeys([answer, answer.strip()]):
        ids = prompts.token_ids(tokenizer, text + end_of_turn)
        n_answer = len(prompts.token_ids(tokenizer, text))
        endings.append(_Ending(n_answer, len(ids), frozenset([text + end_of_turn, _decode(tokenizer, ids)])))
    return endings


def _is_lost(tokenizer: Any, answer: str) -> bool:
    """Whether characters of the answer do not come back from the tokenizer; width and case do not count."""
    back = _decode(tokenizer, prompts.token_ids(tokenizer, answer))
    return answers.fold(answer) != answers.fold(back)


def _problems(judge: Any, row: dict[str, Any], sequence: _Sequence) -> list[Problem]:
    source = row.get("source", {})
    return [
        Problem(code=code, message=message, file=source.get("file"), line=source.get("line"), hint=_HINTS[code])
        for code, message in judge(row["completion"][0]["content"], sequence)
    ]


def _remember(shown: dict[str, tuple[dict[str, Any], _Sequence]], row: dict[str, Any], sequence: _Sequence) -> None:
    """Keeps the first row, and those that are longer or shorter than it and all others."""
    length = len(sequence.labels)
    lengths = {which: len(kept.labels) for which, (_, kept) in shown.items()}
    if not shown:
        shown["first"] = row, sequence
    elif length > lengths.get("longest", lengths["first"]):
        shown["longest"] = row, sequence
    elif length < lengths.get("shortest", lengths["first"]):
        shown["shortest"] = row, sequence


def _sample(tokenizer: Any, which: str, row: dict[str, Any], sequence: _Sequence) -> Sample:
    masked, trained = sequence.input_ids[~sequence.trained], sequence.labels[sequence.trained]
    source = row.get("source", {})
    return Sample(
        which=which,
        file=source.get("file"),
        line=source.get("line"),
        n_tokens=len(sequence.labels),
        masked_end=_decode(tokenizer, masked.tolist())[-_N_SHOWN:].translate(_VISIBLE),
        trained=_decode(tokenizer, trained.tolist()).translate(_VISIBLE),
    )


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _short(text: str, limit: int = 60) -> str:
    shown = text.translate(_VISIBLE)
    return repr(shown if len(shown) <= limit else "…" + shown[-limit:])
