"""Stratified, seeded splits that keep equal texts (and equal groups) on one side."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from tasklib.dataset import Example


def assign(examples: Sequence[Example], labels: Sequence[str], shares: dict[str, float], seed: int) -> list[str]:
    """The split name of each example, in order.

    `shares` maps validation and test to their share of the rows; the rest is train. Rows are first joined into units
    that must stay together (equal text, equal group). Units are shuffled with `seed`, the largest first, and each goes
    to the split that is furthest below its share for the unit's labels (the greedy rule of Sechidis et al. 2011,
    "On the Stratification of Multi-Label Data"). The order of the rows does not change the outcome of a unit's peers
    beyond that shuffle, and the same input gives the same split.
    """
    wanted = {**shares, "train": 1 - sum(shares.values())}
    totals = Counter(labels)
    missing = {name: {label: share * n for label, n in totals.items()} for name, share in wanted.items()}
    assigned = [""] * len(examples)
    for unit in _units(examples, seed):
        counts = Counter(labels[position] for position in unit)
        name = max(wanted, key=lambda name: (_need(missing[name], counts, totals), wanted[name]))
        for label, n in counts.items():
            missing[name][label] -= n
        for position in unit:
            assigned[position] = name
    return assigned


def _need(missing: dict[str, float], counts: Counter, totals: Counter) -> float:
    """How far a split is below its share, for the labels of one unit, as a share of each label's rows."""
    return sum(n * missing[label] / totals[label] for label, n in counts.items())


def _units(examples: Sequence[Example], seed: int) -> list[list[int]]:
    """Positions that must stay together, shuffled, large units first."""
    parent = list(range(len(examples)))

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    first: dict[tuple[str, str], int] = {}
    for position, example in enumerate(examples):
        keys = [("text", example.duplicate_key)]
        if example.group is not None:
            keys.append(("group", example.group))
        for key in keys:
            parent[root(position)] = root(first.setdefault(key, position))
    units: dict[int, list[int]] = defaultdict(list)
    for position in range(len(examples)):
        units[root(position)].append(position)
    shuffled = list(units.values())
    random.Random(seed).shuffle(shuffled)
    return sorted(shuffled, key=len, reverse=True)
