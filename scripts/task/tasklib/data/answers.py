"""Defaults that task types share: checking a field, cleaning an answer, metric arithmetic. Plain functions."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


@dataclass(frozen=True)
class Fault:
    """What is wrong with one row, before it has a place; `dataset.py` adds file and line. `item` is the number of the
    item of a list at fault, from 0, which may have a line of its own."""

    code: str
    message: str
    role: str
    hint: str
    item: int | None = None


class Form(NamedTuple):
    """One way in which raw rows may hold what a task type needs: the roles that `data.fields` must map, and those that
    it may. Rows that do not say themselves what is `asks`ed need an instruction."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    asks: bool = True


# (training records, records to answer, options) -> a prediction for each of them, None where there is none
Baseline = Callable[[Sequence[Any], Sequence[Any], Any], list[Any]]


@dataclass(frozen=True)
class Scores:
    """Metrics of a corpus. `undefined` names the metrics that are None."""

    metrics: dict[str, float | None]
    per_class: dict[str, dict[str, float | None]]
    undefined: list[str]


def no_history(record: Any) -> list[dict[str, str]]:
    """`history` of a task type whose rows are one question and one answer."""
    return []


def one_piece(record: Any, options: Any, *, training: bool) -> list[Any]:
    """`pieces` of a task type whose rows are asked and trained whole."""
    return [record]


def resolved_alone(record: Any, pieces: Sequence[Any], values: Sequence[Any], options: Any) -> Any:
    """`resolved` of a task type whose parsed answers need nothing of their row."""
    return values[0]


def require_text(values: Mapping[str, Any], role: str) -> tuple[str, list[Fault]]:
    """A non-empty string field."""
    value = values.get(role)
    if value is None:
        return "", [Fault("missing_field", f"{role} is missing", role, "fill the cell or remove the row")]
    if not isinstance(value, str):
        return "", [
            Fault(
                "wrong_type", f"{role} is {_type_name(value)} ({_short(value)}), not text", role, "write a JSON string"
            )
        ]
    if not value.strip():
        return "", [Fault("empty_field", f"{role} is empty", role, "fill the cell or remove the row")]
    return value, []


def require_label(
    values: Mapping[str, Any], role: str, labels: Sequence[str], option: str = "labels"
) -> tuple[str, list[Fault]]:
    """A field that must be one of `labels`, which stand under `option` of `task:`; an integer stands for its digits."""
    value = values.get(role)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text, faults = require_text({role: value}, role)
    if faults or text in labels:
        return text, faults
    return "", [_unknown_label(text, role, labels, option)]


def _unknown_label(text: str, role: str, labels: Sequence[str], option: str) -> Fault:
    """Why a value is no label: what hides in it, numbers where names are asked for, or the nearest label."""
    from tasklib.data import text_faults

    shown, legal = text_faults.describe(text[:40]), ", ".join(labels)
    message = f"{'label' if option == 'labels' else role} {shown} is not in task.{option}"
    for label in labels:
        if difference := text_faults.label_difference(text, label):
            hint = f"it is {label!r} but for {difference}: 01_validate_data.py --fix mends it; legal: {legal}"
            return Fault("unknown_label", message, role, hint)
    if re.fullmatch(r"[-+]?\d+(\.0*)?", text.strip()) and not any(label.strip("-+").isdigit() for label in labels):
        number = text.strip()
        hint = f"the data hold numbers: which name is {number}? write e.g. {option}: {{{number}: {labels[0]}, …}}"
        return Fault("unknown_label", message, role, hint)
    near = difflib.get_close_matches(fold(text), [fold(label) for label in labels], n=1)
    nearest = next(label for label in labels if fold(label) == near[0]) if near else None
    hint = f"did you mean {nearest!r}? " if nearest else ""
    hint += f"legal: {legal}; add it to task.{option} if it is a label of its own"
    return Fault("unknown_label", message, role, hint)


def fold(text: str) -> str:
    """Width, case and outer white space or punctuation removed: `「ＰＯＳＩＴＩＶＥ」。` becomes `positive`."""
    text = unicodedata.normalize("NFKC", text).casefold()
    edges = "".join({char for char in text if char.isspace() or unicodedata.category(char)[0] in "PC"})
    stripped = text.strip(edges)
    return stripped or text.strip()


def longest_occurrences(text: str, candidates: Iterable[str]) -> set[str]:
    """The candidates found in `text`, read left to right, the longest first at each place.

    A candidate inside a longer word (`no` in `cannot`, `1` in `10`) does not count; scripts without spaces between
    words have no such edges.
    """
    ordered = sorted(candidates, key=len, reverse=True)
    found, position = set(), 0
    while position < len(text):
        hit = next((c for c in ordered if c and _stands_at(text, c, position)), None)
        if hit:
            found.add(hit)
        position += len(hit) if hit else 1
    return found


def _stands_at(text: str, candidate: str, start: int) -> bool:
    if not text.startswith(candidate, start):
        return False
    end = start + len(candidate)
    edges = text[max(0, start - 1) : start + 1], text[end - 1 : end + 1]
    return not any(len(edge) == 2 and edge.isascii() and edge.isalnum() for edge in edges)


def ratio(numerator: np.ndarray | float, denominator: np.ndarray | float) -> np.ndarray:
    """Element-wise division; NaN where the denominator is zero."""
    numerator, denominator = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    return np.divide(numerator, denominator, out=np.full(shape, np.nan), where=denominator != 0)


def dense(counts: Any) -> np.ndarray:
    """Per-row counts as an array; a task type with many columns gives them sparse."""
    return counts.toarray() if hasattr(counts, "toarray") else np.asarray(counts)


def or_none(value: float | np.ndarray) -> float | None:
    """A float, or None in place of NaN."""
    return None if np.isnan(value) else float(value)


def _type_name(value: object) -> str:
    return {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}.get(
        type(value), type(value).__name__
    )


def _short(value: object, limit: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
