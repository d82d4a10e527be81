"""Uncertainty by resampling rows: intervals and the paired test.

A metric here is a function of counts summed over rows, so that all resamples are one matrix product of multinomial
weights with the per-row counts. Percentile intervals: Efron & Tibshirani 1993, chapter 13; the paired bootstrap for
comparing two systems on the same rows: Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tasklib.metrics import Comparison, Interval

N_RESAMPLES = 2000
SEED = 20261122
_CHUNK = 200  # resamples drawn at once: bounds memory at 200 x n_rows

ScoreCounts = Callable[[np.ndarray], dict[str, np.ndarray]]


def resampled_counts(counts: np.ndarray) -> np.ndarray:
    """Summed counts of N_RESAMPLES bootstrap samples: (n_rows, k) -> (N_RESAMPLES, k).

    The draws depend on the number of rows alone, so that two systems on the same rows get the same samples.
    """
    n_rows = len(counts)
    generator = np.random.default_rng([SEED, n_rows])
    sums = []
    for _ in range(N_RESAMPLES // _CHUNK):
        weights = generator.multinomial(n_rows, np.full(n_rows, 1 / n_rows), size=_CHUNK).astype(np.float32)
        sums.append(weights @ counts)
    return np.concatenate(sums)


def intervals(counts: np.ndarray, score_counts: ScoreCounts) -> dict[str, Interval]:
    """Each metric with its 95 % percentile interval; undefined values are None."""
    points = score_counts(counts.sum(0))
    samples = score_counts(resampled_counts(counts))
    return {name: _interval(float(point), samples[name]) for name, point in points.items()}


def _interval(point: float, samples: np.ndarray) -> Interval:
    defined = samples[~np.isnan(samples)]
    if np.isnan(point) or not len(defined):
        return Interval(value=None, ci_low=None, ci_high=None)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(value=point, ci_low=float(low), ci_high=float(high))


def compare(ours: np.ndarray, theirs: np.ndarray, score_counts: ScoreCounts, metric: str, against: str) -> Comparison:
    """The paired bootstrap of ours minus theirs on the same rows: shape (n_rows, k) each.

    `better` or `worse` only when the 95 % interval of the difference leaves out 0 and p is at most 0.05. The p-value is
    two-sided, twice the smaller share of resamples on one side of 0, with one added to numerator and denominator
    (Davison & Hinkley 1997, section 4.2.3). It is never below what an exact sign test could reach on the rows in which
    the two differ, 2 / 2^n: a bootstrap of very few differing rows is too sure of itself.
    """
    delta = float(score_counts(ours.sum(0))[metric] - score_counts(theirs.sum(0))[metric])
    samples = score_counts(resampled_counts(ours))[metric] - score_counts(resampled_counts(theirs))[metric]
    samples = samples[~np.isnan(samples)]
    low, high = np.percentile(samples, [2.5, 97.5])
    one_sided = (min((samples <= 0).sum(), (samples >= 0).sum()) + 1) / (len(samples) + 1)
    n_differing = int((ours != theirs).any(1).sum())
    p_value = float(min(1.0, max(2 * one_sided, 2 * 0.5**n_differing)))
    verdict = "not_distinguishable" if p_value > 0.05 else "better" if low > 0 else "worse" if high < 0 else None
    return Comparison(
        against=against,
        metric=metric,
        delta=delta,
        ci_low=float(low),
        ci_high=float(high),
        p_value=p_value,
        verdict=verdict or "not_distinguishable",
    )
