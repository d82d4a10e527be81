"""How wide the 95 % interval of the primary metric will be on a test set of some size, before anything is trained.

Test sets are simulated: gold labels by their shares, each answer right with one probability, wrong answers by the
shares of the other labels. The interval that evaluation reports comes from resampling the rows of the one real test
set; each resample is a draw of n rows from the set's own confusion cells, which is what a simulated test set is of the
assumed ones. Both spread by the same standard deviation (the bootstrap principle: Efron & Tibshirani 1993, chapter 6),
and 95 % of a normal distribution lie within 1.96 of it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasklib.data import answers

MIN_SIMULATIONS, MAX_SIMULATIONS = 400, 4000  # the standard deviation is right to about 4 % and 1 %
MAX_LABELS = 100  # the confusion matrix has a cell for each two: beyond, a simulation takes more than seconds
SEED = 20261122
_VALUES_AT_ONCE = 2_000_000  # of simulated counts: bounds their array to 16 MB


@dataclass(frozen=True)
class _Task:
    """What a simulation needs. `shares` of the labels: (L,); `columns` of the task type's counts that a row of a gold
    and a predicted label is counted in: (L, L), among `n_columns`."""

    module: Any
    options: Any
    metric: str
    shares: np.ndarray
    columns: np.ndarray
    n_columns: int

    def score(self, counts: np.ndarray) -> np.ndarray:
        return np.asarray(self.module.score_counts(counts, self.options)[self.metric], dtype=np.float64)


def expected_width(
    module: Any, options: Any, metric: str, label_counts: Counter[str], n_rows: int, level: float, seed: int = SEED
) -> float | None:
    """Half the width of the 95 % interval of `metric` on `n_rows` test rows, when its value is about `level` (0 to 1).

    `label_counts` gives the shares of the labels. None where it cannot be said: no closed label set, more than 100
    labels, a task type that does not count each row in one cell (gold, predicted), fewer than two labels with rows, no
    rows. A level out of reach (1.0 too: at least one wrong row is expected) stands for the nearest within reach.
    """
    task = _task(module, options, metric, label_counts)
    return None if task is None or n_rows < 1 else _half_width(task, n_rows, level, seed)


def rows_needed(
    module: Any,
    options: Any,
    metric: str,
    label_counts: Counter[str],
    level: float,
    half_width: float,
    seed: int = SEED,
) -> int | None:
    """The test rows for which `expected_width` is at most `half_width` (> 0), rounded up to two digits; None as there.

    Widths shrink with the square root of the rows, so that a few steps find the number, which is then confirmed.
    """
    task = _task(module, options, metric, label_counts)
    if task is None:
        return None
    n_rows = 500
    for _ in range(6):
        tried, found = n_rows, _half_width(task, n_rows, level, seed)
        if found is None:
            return None
        n_rows = max(2, math.ceil(tried * (found / half_width) ** 2))
        if abs(n_rows - tried) <= 0.02 * tried:
            break
    n_rows = _two_digits(n_rows)
    while (_half_width(task, n_rows, level, seed) or 0) > half_width:
        n_rows = _two_digits(n_rows + 1)
    return n_rows


def _two_digits(n: int) -> int:
    """`n` rounded up to two significant digits: the simulation is no more exact."""
    step = 10 ** max(0, len(str(n)) - 2)
    return -(-n // step) * step


def _task(module: Any, options: Any, metric: str, label_counts: Counter[str]) -> _Task | None:
    """The task ready to be simulated, or None. Which column a row is counted in is asked from `count` itself."""
    labels = list(module.label_set(options) or ())
    rows = np.array([label_counts[label] for label in labels], dtype=np.float64)
    if len(labels) > MAX_LABELS or (rows > 0).sum() < 2:
        return None
    columns = np.empty((len(labels), len(labels)), dtype=np.int64)
    for position, gold in enumerate(labels):
        counts = answers.dense(module.count([gold] * len(labels), labels, options))
        if (counts.max(axis=1) != 1).any() or (np.abs(counts).sum(axis=1) != 1).any():
            return None
        columns[position] = counts.argmax(axis=1)
    return _Task(module, options, metric, rows / rows.sum(), columns, counts.shape[1])


def _half_width(task: _Task, n_rows: int, level: float, seed: int) -> float | None:
    """1.96 standard deviations of the metric over 400 to 4,000 simulated test sets of `n_rows` rows."""
    right = min(_right_for(task, level), 1 - 1 / n_rows)
    probabilities = _probabilities(task, right)
    generator = np.random.default_rng(seed)
    at_once = max(1, _VALUES_AT_ONCE // task.n_columns)
    n_simulations = min(max(at_once, MIN_SIMULATIONS), MAX_SIMULATIONS)
    values = []
    for done in range(0, n_simulations, at_once):
        size = min(at_once, n_simulations - done)
        values.append(task.score(generator.multinomial(n_rows, probabilities, size=size)))
    scores = np.concatenate(values)
    scores = scores[~np.isnan(scores)]
    return float(1.96 * scores.std()) if len(scores) else None


def _right_for(task: _Task, level: float) -> float:
    """The probability of a right answer with which the metric of the expected counts is `level`, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if task.score(_probabilities(task, middle)) < level:
            low = middle
        else:
            high = middle
    return high


def _probabilities(task: _Task, right: float) -> np.ndarray:
    """The probability of each column when an answer is right with probability `right`: shape (n_columns,)."""
    shares = task.shares
    wrong = np.tile(shares, (len(shares), 1))  # (gold, predicted), before it is scaled
    np.fill_diagonal(wrong, 0)
    joint = shares[:, None] * (1 - right) * wrong / (1 - shares)[:, None]
    np.fill_diagonal(joint, shares * right)
    summed = np.bincount(task.columns.ravel(), joint.ravel(), minlength=task.n_columns)
    return summed / summed.sum()
