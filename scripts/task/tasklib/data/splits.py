"""Seeded splits, stratified or by time, that keep equal and nearly equal texts and equal groups on one side."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tasklib.data.dataset import Index
from tasklib.summary import Problem


@dataclass(frozen=True)
class Assignment:
    """`split` holds the split name of each row, shape (n_rows,), dtype object."""

    split: np.ndarray
    warnings: list[Problem]


def assign(
    index: Index,
    strata: Sequence[tuple[str, ...]],
    shares: dict[str, float],
    *,
    seed: int,
    near_pairs: np.ndarray | None = None,
    by_time: bool = False,
) -> Assignment:
    """Divides the rows of `index` among train and the splits of `shares` (validation and test -> share of the rows).

    Rows of equal text, passage or group, and those that `near_pairs` (positions, shape (m, 2)) links, form a unit that
    stays together. Units are shuffled with `seed`, after they were sorted by the hashes of their texts: the order of
    the rows changes nothing. `index.stratum` points into `strata`; a row counts for each of its labels. With `by_time`
    the oldest units go to train and the newest to test; then every row must have a time.
    """
    names = ["train", *(name for name in ("validation", "test") if shares.get(name))]
    if len(names) == 1 or not len(index):
        return Assignment(np.full(len(index), "train", dtype=object), [])
    wanted = np.array([1 - sum(shares.values()), *(shares[name] for name in names[1:])])
    unit, warnings = _units(index, near_pairs, largest=max(1, wanted[1:].min() * len(index) / 2))
    unit = _shuffled(unit, index.text_key, seed)
    labels, cells = _cells(strata, index.stratum, unit)
    if by_time:
        side, moved = _by_time(index, unit, wanted, names)
        warnings += moved
    else:
        side = _stratified(cells, np.bincount(unit), wanted)
    warnings += _small_strata(labels, cells, side, names)
    return Assignment(np.array(names, dtype=object)[side[unit]], warnings)


# Units: rows that stay together


def _units(index: Index, near_pairs: np.ndarray | None, largest: float) -> tuple[np.ndarray, list[Problem]]:
    """The unit of each row, numbered from 0, and a warning for each chain of near duplicates that is not kept.

    Near duplicates are linked in chains, whose ends need not be alike: in rows made from a template all may hang
    together. Links that add more than `largest` rows to a unit are left out there; text and group still hold.
    """
    rows = np.arange(len(index))
    same_text = np.stack([rows, _first_with(index.text_key)], axis=1)
    if index.passage.any():
        same_text = np.concatenate([same_text, np.stack([rows, _first_with(index.passage)], axis=1)])
    grouped = np.flatnonzero(index.group)
    same_group = np.stack([grouped, grouped[_first_with(index.group[grouped])]], axis=1)
    exact = np.concatenate([same_text, same_group])
    unit = _connected(len(index), exact)
    if near_pairs is None or not len(near_pairs):
        return unit, []
    joined = _connected(len(index), np.concatenate([exact, near_pairs]))
    sizes = np.bincount(joined)
    largest_part = np.zeros(len(sizes), dtype=np.int64)
    np.maximum.at(largest_part, joined, np.bincount(unit)[unit])
    too_long = sizes - largest_part > largest
    if not too_long.any():
        return joined, []
    kept = near_pairs[~too_long[joined[near_pairs[:, 0]]]]
    first = np.full(len(sizes), len(index))
    np.minimum.at(first, joined, rows)
    warnings = [_chain(index, first[chain], sizes[chain], largest) for chain in np.flatnonzero(too_long)]
    return _connected(len(index), np.concatenate([exact, kept])), warnings


def _chain(index: Index, row: int, size: int, largest: float) -> Problem:
    return Problem(
        code="near_duplicate_chain",
        message=f"{size} rows hang together as near duplicates; half of the smallest split is {largest:g} rows",
        file=index.files[index.file[row]],
        line=int(index.line[row]),
        hint="they are split as if they were not near (equal texts and groups still stay together); are they made from "
        "a template? raise data.split.near_duplicates, or name what belongs together with data.split.group_by",
    )


def _first_with(values: np.ndarray) -> np.ndarray:
    """For each position the first position that has the same value."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]


def _connected(n_rows: int, links: np.ndarray) -> np.ndarray:
    """The component of each row in the graph of `links`, shape (m, 2)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(links), dtype=bool), (links[:, 0], links[:, 1])), shape=(n_rows, n_rows))
    return connected_components(graph, directed=False)[1]


def _shuffled(unit: np.ndarray, text_key: np.ndarray, seed: int) -> np.ndarray:
    """The same units, numbered in a random order that depends on the seed and the texts alone."""
    smallest = np.full(unit.max() + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(smallest, unit, text_key)
    new_number = np.empty(len(smallest), dtype=np.int64)
    new_number[np.argsort(smallest)] = np.random.default_rng(seed % 2**64).permutation(len(smallest))
    return new_number[unit]


# Labels


@dataclass(frozen=True)
class _Cells:
    """How many rows of a unit have a label: an entry for each pair that occurs, sorted by unit; arrays of one shape."""

    unit: np.ndarray
    label: np.ndarray
    n_rows: np.ndarray
    n_labels: int

    def per_label(self, weights: np.ndarray | None = None) -> np.ndarray:
        """The entries, or their weights, summed for each label: shape (n_labels,)."""
        return np.bincount(self.label, weights, minlength=self.n_labels)


def _cells(strata: Sequence[tuple[str, ...]], stratum: np.ndarray, unit: np.ndarray) -> tuple[list[str | None], _Cells]:
    """The labels, and how many rows of each unit have them. Rows without a label share the label None."""
    sets = [tuple(dict.fromkeys(labels)) or (None,) for labels in strata]
    names = sorted({label for labels in sets for label in labels}, key=lambda label: label or "")
    number = {name: position for position, name in enumerate(names)}
    flat = np.array([number[label] for labels in sets for label in labels], dtype=np.int64)
    lengths = np.array([len(labels) for labels in sets], dtype=np.int64)
    n_of_row = lengths[stratum]
    ends = np.cumsum(n_of_row)
    within = np.arange(ends[-1]) - np.repeat(ends - n_of_row, n_of_row)
    label = flat[np.repeat((np.cumsum(lengths) - lengths)[stratum], n_of_row) + within]
    pairs, n_rows = np.unique(np.repeat(unit, n_of_row) * len(names) + label, return_counts=True)
    return names, _Cells(pairs // len(names), pairs % len(names), n_rows, len(names))


def _small_strata(labels: list[str | None], cells: _Cells, side: np.ndarray, names: list[str]) -> Iterator[Problem]:
    """A warning for each label that some split lacks."""
    occurs = np.zeros((len(labels), len(names)), dtype=bool)
    occurs[cells.label, side[cells.unit]] = True
    n_units, n_rows = cells.per_label(), cells.per_label(cells.n_rows)
    for position in np.flatnonzero(~occurs.all(axis=1) & (n_rows > 0)):
        if labels[position] is None:
            continue
        missing = ", ".join(name for name, found in zip(names, occurs[position], strict=True) if not found)
        yield Problem(
            code="small_stratum",
            message=f"label {labels[position]!r} does not occur in {missing}: it has {n_rows[position]:g} rows, "
            f"{n_units[position]} of which can be separated",
            hint="label more rows of it: what a split lacks is neither trained nor scored there",
        )


# Stratified


def _stratified(cells: _Cells, unit_rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The split of each unit, as a position in `wanted` (the share of each split): shape (n_units,).

    Units of several rows or labels are placed one by one (`_place`), then the units of one row and one label fill what
    each split still lacks of that label.
    """
    side = np.zeros(len(unit_rows), dtype=np.int64)
    missing = np.outer(cells.per_label(cells.n_rows), wanted)  # rows of each label that a split is still short of
    start = np.searchsorted(cells.unit, np.arange(len(unit_rows) + 1))
    plain = (unit_rows == 1) & (np.diff(start) == 1)
    placed = np.flatnonzero(~plain)
    side[placed] = _place(cells, placed, unit_rows, start, wanted)
    here = ~plain[cells.unit]
    occurs = np.zeros(missing.shape, dtype=bool)
    occurs[cells.label[here], side[cells.unit[here]]] = True
    np.subtract.at(missing, (cells.label[here], side[cells.unit[here]]), cells.n_rows[here])
    units, labels = cells.unit[~here], cells.label[~here]
    order, owed = np.argsort(labels, kind="stable"), np.zeros(len(wanted))
    for part in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else ():
        label = labels[part[0]]
        filled, owed = _filled(len(part), missing[label], occurs[label], owed)
        side[units[part]] = np.repeat(np.arange(len(wanted)), filled)
    return side


def _place(
    cells: _Cells, placed: np.ndarray, unit_rows: np.ndarray, start: np.ndarray, wanted: np.ndarray
) -> list[int]:
    """The split of each unit of `placed`, by a greedy rule after Sechidis et al. 2011, "On the Stratification of
    Multi-Label Data": rarest label first, each to the split that is furthest short of its labels.

    Their examples are rows; units have sizes, so the large ones go first and small ones even out what those leave. A
    split is short of its share of what was placed so far, this unit included, for each label of the unit and for rows
    as such, each relative to its total (the running balance of Pocock & Simon 1975): all labels of a unit count, and
    one that comes late does not yet pull. When no more units of a label are left than splits without it, the unit
    goes to one of those.
    """
    totals, n_left = cells.per_label(cells.n_rows), cells.per_label().tolist()
    rarest = np.minimum.reduceat(totals[cells.label], start[:-1])[placed]
    weights = [*(1 / np.maximum(totals, 1)).tolist(), 1 / unit_rows.sum()]
    labels, counts, starts = cells.label.tolist(), cells.n_rows.tolist(), start.tolist()
    shares, sides = wanted.tolist(), range(len(wanted))
    short = [[0.0] * len(shares) for _ in weights]  # of each label, and of rows in the last place
    absent = [set(sides) for _ in n_left]
    found = {}
    for unit in placed[np.lexsort((placed, rarest, -unit_rows[placed]))].tolist():
        own = labels[starts[unit] : starts[unit + 1]]
        mine = [*zip(own, counts[starts[unit] : starts[unit + 1]], strict=True), (cells.n_labels, int(unit_rows[unit]))]
        for label, n in mine:
            short[label] = [before + n * share for before, share in zip(short[label], shares, strict=True)]
        gain = [sum(n * weights[label] * short[label][side] for label, n in mine) for side in sides]
        found[unit] = best = max(_allowed(own, n_left, absent) or sides, key=gain.__getitem__)
        for label, n in mine:
            short[label][best] -= n
        for label in own:
            n_left[label] -= 1
            absent[label].discard(best)
    return [found[unit] for unit in placed.tolist()]


def _allowed(labels: list[int], n_left: list[int], absent: list[set[int]]) -> list[int]:
    """The splits that must get a unit because its labels would miss them otherwise; none where there is no need."""
    allowed: set[int] = set()
    for label in sorted((label for label in labels if n_left[label] <= len(absent[label])), key=n_left.__getitem__):
        allowed = allowed & absent[label] or allowed or absent[label]
    return sorted(allowed)


def _filled(n_units: int, missing: np.ndarray, occurs: np.ndarray, owed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of the `n_units` single rows of a label go to each split, by the largest remainder: shape (n_splits,).

    `missing` are the rows of the label that a split is short of, `occurs` whether it has some, `owed` what rounding
    took from it at earlier labels (the new value is returned, too), so that many small labels do not add up to a wrong
    size. No split is left without the label while another has two.
    """
    short = np.maximum(missing, 0)
    short = short * (n_units / short.sum())
    found = np.floor(short + 1e-9).astype(np.int64)
    first = np.argsort(found - short - owed, kind="stable")
    found[first[: n_units - found.sum()]] += 1
    has = found + occurs
    while (has == 0).any() and (movable := np.where(has > 1, found, 0)).max() > 0:
        taker = np.flatnonzero(has == 0)[np.argmax(missing[has == 0])]
        for position, change in ((movable.argmax(), -1), (taker, 1)):
            found[position] += change
            has[position] += change
    return found, owed + short - found


# By time


def _by_time(index: Index, unit: np.ndarray, wanted: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[Problem]]:
    """The split of each unit by its earliest row, and a warning when rows follow a unit across a boundary. Rows of one
    moment stay on one side; each split gets at least one moment while there are enough of them."""
    assert not np.isnan(index.time).any(), "rows without a time must be refused before"
    unit_time = np.full(unit.max() + 1, np.inf)
    np.minimum.at(unit_time, unit, index.time)
    moments, moment = np.unique(unit_time, return_inverse=True)
    rows_until = np.concatenate([[0], np.cumsum(np.bincount(moment[unit]))])
    cuts = []
    for position, share in enumerate(np.cumsum(wanted)[:-1]):
        nearest = int(np.argmin(np.abs(rows_until - share * len(index))))
        first, last = (cuts[-1] if cuts else 0) + 1, len(moments) - (len(wanted) - 1 - position)
        cuts.append(max(min(nearest, last), first))
    side = np.searchsorted(cuts, moment, side="right")
    own = np.searchsorted(moments[[cut for cut in cuts if cut < len(moments)]], index.time, side="right")
    moved = np.flatnonzero(own != side[unit])
    if not len(moved):
        return side, []
    row = moved[0]
    day = datetime.datetime.fromtimestamp(index.time[row], datetime.UTC).date()
    return side, [
        Problem(
            code="moved_in_time",
            message=f"{len(moved)} rows are later than their split: each goes with an earlier row of the same text or "
            f"group; this one is of {day}, by its date in {names[own[row]]}, and goes to {names[side[unit[row]]]}",
            file=index.files[index.file[row]],
            line=int(index.line[row]),
            hint="groups and repeated texts that span a boundary make it less sharp; remove the repetitions if later "
            "rows must not be trained on",
        )
    ]
