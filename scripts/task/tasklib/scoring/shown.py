"""Answers as a person reads them, whatever a task type's answers are: labels, texts, lists, objects, marked texts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Span = tuple[int, int, str]  # first character, the one behind the last, type


@dataclass(frozen=True)
class Piece:
    """A part of a text between two ends of entities. `kinds` are those of the entities that it lies in (right, missing,
    spurious); `closing` are (kind, type) of the entities that end with it."""

    text: str
    kinds: tuple[str, ...]
    closing: tuple[tuple[str, str], ...]


def answer(value: Any, text: str, nothing: str) -> str:
    """An answer as lines of text. `text` is what spans are cut from; `nothing` is the word for an empty answer."""
    if value is None or isinstance(value, str):
        return value or nothing
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_inner(item)}" for key, item in value.items()) or nothing
    if not isinstance(value, list | tuple):
        return json.dumps(value, ensure_ascii=False)
    if value and spans(value) is not None:
        return "\n".join(_entity(item, text) for item in value)
    return "\n".join(_item(item) for item in value) or nothing


def spans(value: Any) -> list[Span] | None:
    """The entities of an answer that is a list of objects with `start`, `end` and `type`, or None for another one. What
    is not in the text (`start` is null) has no span."""
    if not isinstance(value, list | tuple):
        return None
    if not all(isinstance(item, dict) and {"start", "end", "type"} <= set(item) for item in value):
        return None
    return [(item["start"], item["end"], str(item["type"])) for item in value if item["start"] is not None]


def marked(text: str, gold: Sequence[Span], predicted: Sequence[Span]) -> list[Piece]:
    """The text cut at every end of an entity: `right` ones are in both, `missing` in gold alone, `spurious` in the
    prediction alone. Entities may overlap; what lies outside the text is left out."""
    both = set(gold) & set(predicted)
    kinds = [(span, "right" if span in both else "missing") for span in dict.fromkeys(gold)]
    kinds += [(span, "spurious") for span in dict.fromkeys(predicted) if span not in both]
    kinds = [(span, kind) for span, kind in kinds if 0 <= span[0] < span[1] <= len(text)]
    cuts = sorted({0, len(text), *(place for (start, end, _), _ in kinds for place in (start, end))})
    return [
        Piece(
            text[low:high],
            tuple(dict.fromkeys(kind for (start, end, _), kind in kinds if start <= low and high <= end)),
            tuple((kind, name) for (_, end, name), kind in kinds if end == high),
        )
        for low, high in itertools.pairwise(cuts)
    ]


def _entity(item: dict[str, Any], text: str) -> str:
    """One line for one entity: its type, its words, and where they stand."""
    start, end = item["start"], item["end"]
    if start is None:
        return f"{item['type']}: {item.get('text', '')} (–)"
    return f"{item['type']}: {text[start:end]} ({start}–{end})"


def _item(item: Any) -> str:
    """One line for one item of a list."""
    if isinstance(item, dict):
        return ", ".join(f"{key}: {_inner(value)}" for key, value in item.items())
    if isinstance(item, list | tuple):
        return " · ".join(map(_inner, item))
    return _inner(item)


def _inner(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
