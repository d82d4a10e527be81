"""How a system does on parts of the rows: texts of one length, one gold label, one source file, one script of Chinese.

Parts are looked at, not tested: among many of them some are low by chance, and their intervals overlap to say so. A
macro average is over the labels of the part, so that parts with other labels are compared with care.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tasklib.data import text_faults
from tasklib.schema import TaskDefinition
from tasklib.scoring import bootstrap
from tasklib.scoring.metrics import Interval, Prediction, Slice

MIN_ROWS = 10  # fewer say nothing: their value and interval are null
MAX_VALUES = 20  # the most frequent source files, or values of a task type's own
_UNDEFINED = Interval(value=None, ci_low=None, ci_high=None)


def score(definition: TaskDefinition, rows: Sequence[dict[str, Any]], predictions: Sequence[Prediction]) -> list[Slice]:
    """The slices of rows `{source, record, …}` and their predictions in the same order. A section (length, label,
    source, script) is there only where the rows have at least two values of it."""
    module = definition.task_type
    counts = module.count([p.gold for p in predictions], [p.prediction for p in predictions], definition.task)
    found = _by_label(definition, counts)
    for by, members in sections(definition, rows).items():
        found += _section(definition, counts, by, members)
    return found


def sections(definition: TaskDefinition, rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """`length`, `source`, `script` and what the task type cuts by (`slice_of`) -> the name of each part -> positions of
    its rows, (n,), names in the order of `_order`. A section of fewer than two parts is empty."""
    module = definition.task_type
    records = [module.Record(**row["record"]) for row in rows]
    texts = [module.text_of(record) for record in records]
    names: dict[str, Sequence[str | None]] = {
        "length": _length_names(texts),
        "source": _most_frequent([row["source"]["file"] for row in rows]),
        "script": [text_faults.script_of(text) or "none" for text in texts],
    }
    if hasattr(module, "slice_of"):
        own = [module.slice_of(record) for record in records]
        names |= {by: _most_frequent([one[by] for one in own]) for by in (own[0] if own else {})}
    return {by: _members(by, of_rows) for by, of_rows in names.items()}


def _members(by: str, names: Sequence[str | None]) -> dict[str, np.ndarray]:
    """Each name with the positions of its rows; rows without a name are in none."""
    values = sorted({name for name in names if name is not None}, key=_order(by, names))
    if len(values) < 2:
        return {}
    return {value: np.flatnonzero([name == value for name in names]) for value in values}


def _section(
    definition: TaskDefinition, counts: bootstrap.Counts, by: str, members: dict[str, np.ndarray]
) -> list[Slice]:
    """One slice for each part."""
    module, metric = definition.task_type, definition.primary_metric

    def primary(sums: np.ndarray) -> dict[str, np.ndarray]:
        return {metric: module.score_counts(sums, definition.task)[metric]}

    found = []
    for value, rows in members.items():
        interval = bootstrap.intervals([counts[rows]], primary)[metric] if len(rows) >= MIN_ROWS else _UNDEFINED
        found.append(Slice(by=by, value_of=value, n_rows=len(rows), metric=metric, primary=interval))
    return found


def _order(by: str, names: Sequence[str | None]) -> Callable[[str], tuple[int, str]]:
    """Lengths ascend; everything else comes with the most rows first."""
    if by == "length":
        return lambda name: (int(name.split("-")[0]), name)
    n_rows = Counter(names)
    return lambda name: (-n_rows[name], name)


def _by_label(definition: TaskDefinition, counts: bootstrap.Counts) -> list[Slice]:
    """Recall by gold label: the very numbers of `per_class`, for a task type with a closed set that has them."""
    module, options = definition.task_type, definition.task
    if module.label_set(options) is None:
        return []
    table = module.per_class(counts.sum(0), options)
    n_rows = {label: int(columns.get("support") or 0) for label, columns in table.items()}
    present = [label for label, n in n_rows.items() if n]
    if len(present) < 2 or "recall" not in table[present[0]]:
        return []
    columns = bootstrap.class_intervals([counts], module, options)
    return [
        Slice(
            by="label",
            value_of=label,
            n_rows=n_rows[label],
            metric="recall",
            primary=columns[label]["recall"] if n_rows[label] >= MIN_ROWS else _UNDEFINED,
        )
        for label in present
    ]


def _length_names(texts: Sequence[str]) -> list[str]:
    """For each text the tercile of its length among these texts, named by its shortest and longest in characters.

    Equal lengths stay together, so that there may be fewer than three.
    """
    lengths = np.array([len(text) for text in texts])
    if not len(lengths):
        return []
    tercile = np.searchsorted(np.quantile(lengths, [1 / 3, 2 / 3]), lengths, side="left")
    bounds = {t: (lengths[tercile == t].min(), lengths[tercile == t].max()) for t in np.unique(tercile)}
    return ["{}-{}".format(*bounds[t]) for t in tercile]


def _most_frequent(names: Sequence[str]) -> list[str | None]:
    """The names, None for those that are not among the 20 most frequent."""
    kept = {name for name, _ in sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))[:MAX_VALUES]}
    return [name if name in kept else None for name in names]
