"""Uncertainty by resampling rows: intervals, the paired test, and its correction for several comparisons.

A metric here is a function of counts summed over rows, so that all resamples are one matrix product of multinomial
weights with the per-row counts. Percentile intervals: Efron & Tibshirani 1993, chapter 13; the paired bootstrap for
comparing two systems on the same rows: Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation".

A system is a sequence of count matrices, one for each seed it was trained with and usually one, all over the same rows.
Its metric is the mean over the seeds, in every resample too: an interval says what other rows would have given, never
what other seeds would have; their spread stands in `Seeds`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tasklib.data import answers
from tasklib.scoring.metrics import Comparison, Interval, Verdict

if TYPE_CHECKING:
    from scipy.sparse import csr_array

N_RESAMPLES = 2000
SEED = 20261122
ALPHA = 0.05
_ROUNDING = 1e-12  # a difference of means below this is a tie: what counts as 0 decides the p-value
_CHUNK = 100  # resamples summed and scored at once: bounds memory at 100 x n_rows and 100 x k floats
_CACHED_ROWS = 50_000  # the draws of more rows are made again each time: 2000 bytes a row would be kept, 100 MB here

Counts: TypeAlias = "np.ndarray | csr_array"  # of one system and seed: (n_rows, k), dense or sparse
ScoreCounts: TypeAlias = Callable[[np.ndarray], dict[str, np.ndarray]]  # summed counts (..., k) -> name -> values (...)


def intervals(counts: Sequence[Counts], score_counts: ScoreCounts) -> dict[str, Interval]:
    """Each metric, the mean over the seeds, with its 95 % percentile interval; undefined values are None."""
    points, samples = _points(counts, score_counts), _mean(_samples(counts, score_counts))
    n_rows = counts[0].shape[0]
    return {name: _interval(float(point), samples[name], n_rows) for name, point in points.items()}


def class_intervals(counts: Sequence[Counts], module: Any, options: Any) -> dict[str, dict[str, Interval]]:
    """Label -> name -> the per-class number with its interval, for every ratio of a task type's `class_ratios`."""
    labels = list(module.per_class(counts[0][:1].sum(0), options))
    ratios = functools.partial(_ratios, module, options)
    points, samples = _points(counts, ratios), _mean(_samples(counts, ratios))
    parts = [module.class_ratios(matrix.sum(0), options) for matrix in counts]
    found: dict[str, dict[str, Interval]] = {label: {} for label in labels}
    for name, values in points.items():
        n_rows = np.mean([seed[name][1] for seed in parts], axis=0)
        for position, label in enumerate(labels):
            found[label][name] = _interval(float(values[position]), samples[name][:, position], n_rows[position])
    return found


def class_differences(
    ours: Sequence[Counts], theirs: Sequence[Counts], module: Any, options: Any
) -> dict[str, dict[str, Interval]]:
    """Label -> name -> ours minus theirs of each per-class number, with the 95 % percentile interval of the paired
    resamples. Nothing is tested: among many labels some intervals leave out 0 by chance."""
    labels = list(module.per_class(ours[0][:1].sum(0), options))
    ratios = functools.partial(_ratios, module, options)
    mine, others = _points(ours, ratios), _points(theirs, ratios)
    seeds = _samples([*ours, *theirs], ratios)
    samples, other_samples = _mean(seeds[: len(ours)]), _mean(seeds[len(ours) :])
    found: dict[str, dict[str, Interval]] = {label: {} for label in labels}
    for name in mine:
        delta, differences = mine[name] - others[name], samples[name] - other_samples[name]
        for position, label in enumerate(labels):
            found[label][name] = _difference(float(delta[position]), differences[:, position])
    return found


def _difference(delta: float, samples: np.ndarray) -> Interval:
    defined = samples[~np.isnan(samples)]
    if np.isnan(delta) or not len(defined):
        return Interval(value=None, ci_low=None, ci_high=None)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(value=delta, ci_low=float(low), ci_high=float(high))


def _ratios(module: Any, options: Any, sums: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> the per-class numbers (..., L) for summed counts (..., k); NaN where undefined."""
    return {name: answers.ratio(*parts) for name, parts in module.class_ratios(sums, options).items()}


def per_class(counts: Sequence[Counts], module: Any, options: Any) -> dict[str, dict[str, float | None]]:
    """`per_class` of metrics.json: a task type's own numbers and, for each ratio, the mean over the seeds and its
    interval as `<name>_ci_low` and `<name>_ci_high`."""
    table = module.per_class(counts[0].sum(0), options)
    for label, columns in class_intervals(counts, module, options).items():
        for name, interval in columns.items():
            bounds = {f"{name}_ci_low": interval.ci_low, f"{name}_ci_high": interval.ci_high}
            table[label] |= {name: interval.value, **bounds}
    return table


def _interval(point: float, samples: np.ndarray, n_rows: float) -> Interval:
    """The 2.5th and 97.5th percentile of the resamples in which the metric is defined.

    Rows that are all right (or all wrong) give the same value in every resample; an interval of one point would claim
    what no sample can show. Then the bound is that of a share of n rows without exception: 0.025^(1/n), the exact
    interval of Clopper & Pearson 1934, and for a metric that is no share of rows an approximation.
    """
    defined = samples[~np.isnan(samples)]
    if np.isnan(point) or not len(defined):
        return Interval(value=None, ci_low=None, ci_high=None)
    low, high = np.percentile(defined, [2.5, 97.5])
    if defined.min() == defined.max() == point:
        bound = (ALPHA / 2) ** (1 / max(n_rows, 1))
        low, high = (bound, 1.0) if point == 1 else (0.0, 1 - bound) if point == 0 else (low, high)
    return Interval(value=point, ci_low=float(low), ci_high=float(high))


def compare(
    ours: Sequence[Counts],
    theirs: Sequence[Counts],
    score_counts: ScoreCounts,
    metric: str,
    against: str,
    right: tuple[np.ndarray, np.ndarray] | None = None,
) -> Comparison:
    """The paired bootstrap of ours minus theirs on the same rows.

    The p-value is two-sided, twice the smaller share of resamples on one side of 0, with one added to numerator and
    denominator (Davison & Hinkley 1997, section 4.2.3). It is never below what an exact sign test could reach on the
    rows in which the two differ, 2 / 2^n: a bootstrap of very few differing rows is too sure of itself. The verdict is
    that of this comparison alone until `holm` corrects it.

    `right` says which rows each system answered right, two boolean arrays of shape (n_rows,), for McNemar's test. It
    is left out for several seeds: the test is about one answer to each row, and a majority vote of the seeds would be
    another system than the one whose mean is compared.
    """
    delta = float(_points(ours, score_counts)[metric] - _points(theirs, score_counts)[metric])
    seeds = [{metric: seed[metric]} for seed in _samples([*ours, *theirs], score_counts)]
    samples = _mean(seeds[: len(ours)])[metric] - _mean(seeds[len(ours) :])[metric]
    samples = np.where(np.abs(samples) < _ROUNDING, 0, samples)[~np.isnan(samples)]
    mcnemar_p_value = None if right is None or len(ours) > 1 or len(theirs) > 1 else mcnemar(*right)
    found = Comparison(
        against=against,
        metric=metric,
        delta=None,
        ci_low=None,
        ci_high=None,
        p_value=None,
        p_value_holm=None,
        mcnemar_p_value=mcnemar_p_value,
        verdict="not_distinguishable",
    )
    if np.isnan(delta) or not len(samples):
        return found
    low, high = np.percentile(samples, [2.5, 97.5])
    one_sided = (min((samples <= 0).sum(), (samples >= 0).sum()) + 1) / (len(samples) + 1)
    p_value = float(min(1.0, max(2 * one_sided, 2 * 0.5 ** _n_differing(ours, theirs))))
    delta = 0.0 if abs(delta) < _ROUNDING else delta
    values = {"delta": delta, "ci_low": float(low), "ci_high": float(high), "p_value": p_value}
    return holm([found.model_copy(update=values)])[0]


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons in their order with `p_value_holm` and the verdict that follows from it.

    Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure": of m p-values in ascending order the i-th is
    multiplied by m - i + 1, and none may be smaller than the one before. `better` or `worse` only where the corrected
    p-value is at most 0.05 and the 95 % interval of the difference, which is not corrected, leaves out 0.
    """
    tested = [position for position, c in enumerate(comparisons) if c.p_value is not None]
    corrected, largest = list(comparisons), 0.0
    for rank, position in enumerate(sorted(tested, key=lambda position: comparisons[position].p_value)):
        c = comparisons[position]
        largest = max(largest, min(1.0, c.p_value * (len(tested) - rank)))
        corrected[position] = c.model_copy(update={"p_value_holm": largest, "verdict": _verdict(c, largest)})
    return corrected


def _verdict(comparison: Comparison, p_value: float) -> Verdict:
    if p_value > ALPHA:
        return "not_distinguishable"
    return "better" if comparison.ci_low > 0 else "worse" if comparison.ci_high < 0 else "not_distinguishable"


def mcnemar(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The exact two-sided McNemar test of two boolean arrays (n_rows,): a binomial test with 1/2 on the rows that one
    system answers right and the other wrong (McNemar 1947; exact as in Dietterich 1998, section 3.1). 1.0 without
    such rows."""
    from scipy.stats import binomtest

    ours, theirs = np.asarray(ours, dtype=bool), np.asarray(theirs, dtype=bool)
    n_ours, n_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return float(binomtest(n_ours, n_ours + n_theirs).pvalue) if n_ours + n_theirs else 1.0


def _n_differing(ours: Sequence[Counts], theirs: Sequence[Counts]) -> int:
    """Rows whose counts, the mean over the seeds, are not the same. Whole numbers are compared, not means."""
    difference = sum(ours[1:], ours[0]) * len(theirs) - sum(theirs[1:], theirs[0]) * len(ours)
    return int(np.count_nonzero(abs(difference).sum(axis=1)))


def _points(counts: Iterable[Counts], score_counts: ScoreCounts) -> dict[str, np.ndarray]:
    """Metric name -> the mean over the seeds; NaN where it is undefined for one of them."""
    return _mean([score_counts(matrix.sum(0)) for matrix in counts])


def _samples(matrices: Sequence[Counts], score_counts: ScoreCounts) -> list[dict[str, np.ndarray]]:
    """For each matrix, metric name -> its value in each resample: first axis N_RESAMPLES.

    Sums are scored chunk by chunk, so that the (N_RESAMPLES, k) counts of many labels never stand in memory at once.
    """
    chunks: list[list[dict[str, np.ndarray]]] = [[] for _ in matrices]
    for draws in _draws(matrices[0].shape[0]):
        weights = draws.astype(matrices[0].dtype)
        for found, matrix in zip(chunks, matrices, strict=True):
            found.append(score_counts(weights @ matrix))
    return [{name: np.concatenate([chunk[name] for chunk in found]) for name in found[0]} for found in chunks]


def _mean(values: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: sum(np.asarray(seed[name]) for seed in values) / len(values) for name in values[0]}


def _draws(n_rows: int) -> Iterator[np.ndarray]:
    """How often each row stands in each bootstrap sample: chunks of (_CHUNK, n_rows).

    The draws depend on the number of rows alone, so that two systems on the same rows get the same samples.
    """
    make = _kept_draw if n_rows <= _CACHED_ROWS else _draw
    for number in range(N_RESAMPLES // _CHUNK):
        yield make(n_rows, number)


def _draw(n_rows: int, number: int) -> np.ndarray:
    """One chunk as bytes: a row is drawn 256 times in one sample with a probability below 1e-500."""
    generator = np.random.default_rng([SEED, n_rows, number])
    samples = np.empty((_CHUNK, n_rows), dtype=np.uint8)
    for sample in samples:
        sample[:] = np.bincount(generator.integers(0, max(n_rows, 1), n_rows), minlength=n_rows)
    samples.flags.writeable = False  # it is kept for the next comparison on as many rows
    return samples


_kept_draw = functools.lru_cache(maxsize=N_RESAMPLES // _CHUNK)(_draw)
