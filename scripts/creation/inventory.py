"""What the gold answers of all rows hold: labels, entity types, sentiments, stances, each with its number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from creation.recognition import INLINE, ITEM_LABELS, ITEM_SENTIMENTS, as_json
from creation.sources import Source
from tasklib.reading.records import Row

SEPARATORS = (";", "；", "|", "、", ",", "，", "/", "／")  # of several labels in one cell, the likeliest first


def over(sources: Sequence[Source], role: str, column: str, separator: str | None) -> Counter[str]:
    """Label -> how often it stands in `column`, over every row; `role` says what a cell is."""
    counts: Counter[str] = Counter()
    for source in sources:
        for item in source.rows():
            if type(item) is Row and (value := item.values.get(column)) is not None:
                counts.update(labels_of(role, value, separator))
    return counts


def rows_of(
    sources: Sequence[Source], role: str, column: str, separator: str | None, labels: AbstractSet[str]
) -> list[tuple[Row, str]]:
    """The rows that have one of `labels`, each with it."""
    rows = (item for source in sources for item in source.rows() if type(item) is Row)
    each = ((row, label) for row in rows for label in labels_of(role, row.values.get(column), separator))
    return [(row, label) for row, label in each if label in labels]


def places(rows: Sequence[tuple[Row, str]]) -> str:
    """`a.csv:7 '?'` for each row and what was found in it."""
    shown = [f"{Path(row.file).name}:{row.line} {value!r}" for row, value in rows[:10]]
    return ", ".join(shown) + (f", … and {len(rows) - 10} more" if len(rows) > 10 else "")


def labels_of(role: str, value: Any, separator: str | None = None) -> Iterable[str]:
    """The labels in one cell."""
    if role == "labels":
        return _parts(value, separator)
    if role in OF_ROLE:
        return OF_ROLE[role](as_json(value))
    return [_plain(value)] if _plain(value) else []


def _plain(value: Any) -> str:
    """A label as text, as the task types read it: a whole number stands for its digits."""
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value and value == int(value)
    return str(int(value)) if whole else value if isinstance(value, str) else ""


def _parts(value: Any, separator: str | None) -> list[str]:
    parts = as_json(value)
    if isinstance(parts, str):
        parts = parts.split(separator) if separator else [parts]
    return [text.strip() for part in (parts if isinstance(parts, list) else []) if (text := _plain(part)).strip()]


def _types(value: Any) -> list[str]:
    """Of spans: objects with a label, or Doccano's [start, end, label]."""
    found = []
    for item in value if isinstance(value, list) else []:
        if isinstance(item, Mapping):
            label = next((item[key] for key in ITEM_LABELS if item.get(key) not in (None, "", [])), None)
            label = label[0] if isinstance(label, list) and label else label
        else:
            label = item[2] if isinstance(item, list) and len(item) == 3 else None
        found.append(_plain(label))
    return list(filter(None, found))


def _tag_types(value: Any) -> list[str]:
    """Of tags: what stands behind the prefix, counted where an entity begins."""
    tags = [tag for tag in value if isinstance(tag, str)] if isinstance(value, list) else []
    found, before = [], "O"
    for tag in tags:
        prefix, _, label = tag.partition("-")
        if label and (prefix in "BSU" or before.partition("-")[2] != label):
            found.append(label)
        before = tag
    return found


def _inline(value: Any) -> list[str]:
    found = INLINE.finditer(value if isinstance(value, str) else "")
    return [part["open"] or part["type"] for part in found]


def _sentiments(value: Any) -> list[str]:
    items = [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
    found = [next((item[key] for key in ITEM_SENTIMENTS if item.get(key) is not None), None) for item in items]
    return [_plain(label) for label in found if _plain(label)]


OF_ROLE: dict[str, Callable[[Any], list[str]]] = {
    "entities": _types,
    "tags": _tag_types,
    "tagged": _inline,
    "pairs": _sentiments,
}


def separator_of(cells: Sequence[str]) -> str | None:
    """What stands between several labels of one cell: the parts are few, and most of them come again."""
    filled = [cell for cell in cells if cell.strip()]
    for mark in SEPARATORS:
        joined = sum(mark in cell for cell in filled)
        parts = Counter(part.strip() for cell in filled for part in cell.split(mark) if part.strip())
        if joined < 0.02 * max(1, len(filled)) or joined == 0:
            continue
        if 2 <= len(parts) <= max(2, min(100, len(filled) // 3)) and max(map(len, parts)) <= 40:
            return mark
    return None
