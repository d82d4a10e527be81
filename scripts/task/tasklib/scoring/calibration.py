"""Whether probabilities mean what they say: expected calibration error, Brier score, reliability diagram.

The confidence of a row is the probability of the label that was answered. Expected calibration error (ECE): Guo et al.
2017, "On Calibration of Modern Neural Networks": 15 bins of equal width, (low, high], and the mean over the rows of the
gap between a bin's mean confidence and its accuracy. Brier score: Brier 1950, the mean over the rows of the squared
distance between all probabilities and the gold label, 0 to 2 whatever the number of labels (for two labels twice the
square of one probability's error). Both are 0 at best. ECE is biased upwards on few rows, for noise in a bin never
cancels, and resampling adds the same bias again: its percentile interval would leave out the truth of a well calibrated
model nearly always. So its interval is the basic one, the percentile interval mirrored at the value (Davison & Hinkley
1997, section 5.2.1), which takes the bias off; in simulations it still covered the truth of a perfectly calibrated
model in only 70 to 83 %, of an overconfident one in 88 to 97 %.

Both are functions of sums over rows, so that they get intervals from `bootstrap` as every metric does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasklib.data import answers
from tasklib.scoring import bootstrap
from tasklib.scoring.metrics import CalibrationBin, Interval

N_BINS = 15
_EDGES = np.linspace(0, 1, N_BINS + 1)

Probabilities = Sequence[Mapping[str, float] | None]


def intervals(golds: Sequence[Any], predictions: Sequence[Any], probabilities: Probabilities) -> dict[str, Interval]:
    """`ece` and `brier` with 95 % intervals; nothing unless every row has a probability for its answer."""
    counts = count(golds, predictions, probabilities)
    return {} if counts is None else intervals_of_seeds([counts])


def intervals_of_seeds(counts: Sequence[np.ndarray]) -> dict[str, Interval]:
    """`intervals` of the mean over several seeds, from what `count` gives for each."""
    found = bootstrap.intervals(counts, score_counts)
    return found | {"ece": _mirrored(found["ece"])}


def _mirrored(ece: Interval) -> Interval:
    """The basic interval, kept at or above 0 and wide enough to hold the value."""
    if not ece.value:  # nothing to mirror: undefined, or no gap in any bin
        return ece
    low, high = 2 * ece.value - ece.ci_high, 2 * ece.value - ece.ci_low
    return Interval(value=ece.value, ci_low=max(0.0, low), ci_high=max(ece.value, high))


def bins(golds: Sequence[Any], predictions: Sequence[Any], probabilities: Probabilities) -> list[CalibrationBin]:
    """The 15 bins of the reliability diagram, empty ones too; nothing where `intervals` gives nothing."""
    counts = count(golds, predictions, probabilities)
    if counts is None:
        return []
    n_rows, confidence, right = _by_bin(counts.sum(0))
    means = zip(answers.ratio(confidence, n_rows), answers.ratio(right, n_rows), strict=True)
    return [
        CalibrationBin(
            low=float(_EDGES[number]),
            high=float(_EDGES[number + 1]),
            n_rows=int(n_rows[number]),
            confidence=answers.or_none(mean),
            accuracy=answers.or_none(accuracy),
        )
        for number, (mean, accuracy) in enumerate(means)
    ]


def count(golds: Sequence[Any], predictions: Sequence[Any], probabilities: Probabilities) -> np.ndarray | None:
    """Per row, in its bin: 1, its confidence, whether it is right; and last its Brier score. Shape (n_rows, 46).

    None unless every row has a probability for its answer.
    """
    if not len(golds) or any(
        p is None or answer not in p for p, answer in zip(probabilities, predictions, strict=True)
    ):
        return None
    confidence = np.array([p[answer] for p, answer in zip(probabilities, predictions, strict=True)], dtype=np.float64)
    right = np.array([gold == answer for gold, answer in zip(golds, predictions, strict=True)], dtype=np.float64)
    number = np.clip(np.searchsorted(_EDGES, confidence, side="left") - 1, 0, N_BINS - 1)
    counts, rows = np.zeros((len(right), 3 * N_BINS + 1)), np.arange(len(right))
    counts[rows, number] = 1
    counts[rows, N_BINS + number] = confidence
    counts[rows, 2 * N_BINS + number] = right
    counts[:, -1] = [_brier(p, gold) for p, gold in zip(probabilities, golds, strict=True)]
    return counts


def score_counts(counts: np.ndarray) -> dict[str, np.ndarray]:
    """`ece` and `brier` of shape (...,) for summed counts of shape (..., 46); NaN without rows."""
    n_rows, confidence, right = _by_bin(counts)
    total = n_rows.sum(-1)
    return {
        "ece": answers.ratio(np.abs(confidence - right).sum(-1), total),
        "brier": answers.ratio(counts[..., -1], total),
    }


def _by_bin(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return counts[..., :N_BINS], counts[..., N_BINS : 2 * N_BINS], counts[..., 2 * N_BINS : 3 * N_BINS]


def _brier(probabilities: Mapping[str, float], gold: Any) -> float:
    """The gold label's own term and those of the others; a gold label without a probability has 0."""
    others = sum(value**2 for label, value in probabilities.items() if label != gold)
    return others + (1 - probabilities.get(gold, 0.0)) ** 2
