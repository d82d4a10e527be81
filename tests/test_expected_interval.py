"""The interval that is promised before training is the one that evaluation will report."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from tasklib.data import expected_interval
from tasklib.scoring import bootstrap
from tasklib.task_types import classification


def task_of(n_labels):
    labels = [f"l{number}" for number in range(n_labels)]
    return classification.Options(type="classification", labels=labels), labels


def counts_of(labels, shares):
    return Counter({label: round(10_000 * share) for label, share in zip(labels, shares, strict=True)})


def width(options, metric, counts, n_rows, level, **more):
    return expected_interval.expected_width(classification, options, metric, counts, n_rows, level, **more)


def needed(options, metric, counts, level, half_width):
    return expected_interval.rows_needed(classification, options, metric, counts, level, half_width)


def evaluated(options, labels, shares, right, n_rows, rng):
    """What evaluation would report on drawn rows, of which about a share `right` is answered right."""
    golds = rng.choice(len(labels), n_rows, p=shares)
    predictions = golds.copy()
    for row in np.flatnonzero(rng.random(n_rows) >= right):
        others = np.where(np.arange(len(labels)) == golds[row], 0, shares)
        predictions[row] = rng.choice(len(labels), p=others / others.sum())
    counts = classification.count([labels[g] for g in golds], [labels[p] for p in predictions], options)
    return bootstrap.intervals([counts], lambda sums: classification.score_counts(sums, options))


@pytest.mark.parametrize("metric", ["macro_f1", "accuracy"])
@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.6, 0.25, 0.15], [0.1] * 10], ids=["two", "three", "ten"])
@pytest.mark.parametrize("right", [0.6, 0.9])
def test_the_expected_width_is_that_of_the_row_bootstrap(metric, shares, right):
    options, labels = task_of(len(shares))
    rng = np.random.default_rng(1)
    found = [evaluated(options, labels, shares, right, 400, rng)[metric] for _ in range(12)]
    level = float(np.mean([interval.value for interval in found]))
    bootstrapped = float(np.mean([(interval.ci_high - interval.ci_low) / 2 for interval in found]))
    assert width(options, metric, counts_of(labels, shares), 400, level) == pytest.approx(bootstrapped, rel=0.15)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("n_rows", [50, 1000, 100_000])
def test_for_accuracy_it_is_the_formula_of_a_proportion(level, n_rows):
    options, labels = task_of(4)
    found = width(options, "accuracy", counts_of(labels, [0.4, 0.3, 0.2, 0.1]), n_rows, level)
    assert found == pytest.approx(1.96 * (level * (1 - level) / n_rows) ** 0.5, rel=0.06)


def test_rare_labels_make_macro_f1_wider_and_leave_accuracy_as_it_is():
    options, labels = task_of(5)
    even, skewed = counts_of(labels, [0.2] * 5), counts_of(labels, [0.9, 0.04, 0.03, 0.02, 0.01])
    assert width(options, "macro_f1", skewed, 500, 0.8) > 1.5 * width(options, "macro_f1", even, 500, 0.8)
    assert width(options, "accuracy", skewed, 500, 0.8) == pytest.approx(
        width(options, "accuracy", even, 500, 0.8), rel=0.1
    )


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_level_out_of_reach_gives_the_width_at_the_nearest_and_never_none_at_all(level):
    options, labels = task_of(3)
    found = width(options, "macro_f1", counts_of(labels, [0.5, 0.3, 0.2]), 200, level)
    assert 0 <= found < width(options, "macro_f1", counts_of(labels, [0.5, 0.3, 0.2]), 200, 0.6)
    assert (found > 0) == (level == 1.0)  # one wrong row is expected; where all are wrong nothing varies


@pytest.mark.parametrize("metric", ["macro_f1", "accuracy"])
@pytest.mark.parametrize("half_width", [0.1, 0.05, 0.02])
def test_the_rows_needed_are_enough_and_a_fifth_fewer_are_not(metric, half_width):
    options, labels = task_of(4)
    counts = counts_of(labels, [0.4, 0.3, 0.2, 0.1])
    n_rows = needed(options, metric, counts, 0.8, half_width)
    assert width(options, metric, counts, n_rows, 0.8) <= half_width
    assert width(options, metric, counts, int(n_rows * 0.8), 0.8) > half_width
    assert int(str(n_rows)[2:] or 0) == 0  # two digits: no false precision


def test_the_same_question_has_one_answer_and_another_seed_nearly_the_same():
    options, labels = task_of(6)
    counts = counts_of(labels, [0.3, 0.3, 0.1, 0.1, 0.1, 0.1])
    first, again = (width(options, "macro_f1", counts, 300, 0.7) for _ in range(2))
    other = width(options, "macro_f1", counts, 300, 0.7, seed=5)
    assert first == again != other and other == pytest.approx(first, rel=0.1)


class Open:
    """A task type with open answers."""

    label_set = staticmethod(lambda options: None)


class ManyCells:
    """A task type with a closed set whose rows count in several cells."""

    label_set = staticmethod(classification.label_set)
    count = staticmethod(lambda golds, predictions, options: np.ones((len(golds), 3), dtype=np.float32))


@pytest.mark.parametrize("module", [Open, ManyCells])
def test_there_is_no_answer_for_task_types_that_count_otherwise(module):
    options, labels = task_of(3)
    arguments = (module, options, "macro_f1", counts_of(labels, [0.4, 0.3, 0.3]))
    assert expected_interval.expected_width(*arguments, n_rows=100, level=0.8) is None
    assert expected_interval.rows_needed(*arguments, level=0.8, half_width=0.05) is None


def test_there_is_no_answer_without_two_labels_or_without_rows():
    options, labels = task_of(3)
    for counts in (Counter(), Counter({"l0": 9}), Counter({"l0": 9, "unknown": 9})):
        assert width(options, "macro_f1", counts, 100, 0.8) is None
        assert needed(options, "macro_f1", counts, 0.8, 0.05) is None
    assert width(options, "macro_f1", Counter(labels), 0, 0.8) is None
    many, names = task_of(expected_interval.MAX_LABELS + 1)
    assert width(many, "macro_f1", Counter(names), 100, 0.8) is None


def test_labels_that_have_no_rows_change_nothing():
    few, labels = task_of(3)
    more, _ = task_of(6)
    counts = Counter({labels[0]: 50, labels[1]: 30, labels[2]: 20})
    assert width(more, "macro_f1", counts, 300, 0.8) == pytest.approx(width(few, "macro_f1", counts, 300, 0.8), rel=0.1)


@pytest.mark.parametrize(("n_labels", "limit_s"), [(10, 1), (50, 2)])
def test_it_takes_a_moment_and_little_memory_for_a_hundred_thousand_rows(n_labels, limit_s):
    options, labels = task_of(n_labels)
    tracemalloc.start()
    try:
        expected_interval.expected_width(classification, options, "macro_f1", Counter(labels), 100_000, 0.8)
        assert tracemalloc.get_traced_memory()[1] < 200_000_000
    finally:
        tracemalloc.stop()
    started = time.perf_counter()
    width(options, "macro_f1", Counter(labels), 100_000, 0.8)
    assert time.perf_counter() - started < limit_s
