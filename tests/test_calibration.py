"""Probabilities against what happens: expected calibration error, Brier score, the bins of the reliability diagram."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from tasklib.scoring import calibration

LABELS = ["a", "b", "c"]


def drawn(n, seed=0, overconfidence=0.0):
    """(golds, predictions, probabilities) of a system that is right as often as it says, less `overconfidence`."""
    rng = np.random.default_rng(seed)
    probabilities = [dict(zip(LABELS, map(float, row), strict=True)) for row in rng.dirichlet([1.0, 0.6, 0.4], n)]
    predictions = [max(p, key=p.__getitem__) for p in probabilities]
    golds = []
    for p, answer in zip(probabilities, predictions, strict=True):
        right = rng.random() < p[answer] - overconfidence
        others = [label for label in LABELS if label != answer]
        golds.append(answer if right else others[rng.integers(2)])
    return golds, predictions, probabilities


def ece_by_loop(golds, predictions, probabilities):
    """Guo et al. 2017, equation 3, word by word."""
    n, total = len(golds), 0.0
    for m in range(1, 16):
        rows = [
            (p[answer], gold == answer)
            for gold, answer, p in zip(golds, predictions, probabilities, strict=True)
            if (m - 1) / 15 < p[answer] <= m / 15
        ]
        if rows:
            confidence, accuracy = np.mean(rows, axis=0)
            total += len(rows) / n * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("seed", range(10))
def test_the_calibration_error_is_that_of_guo_et_al(seed):
    rows = drawn(int(np.random.default_rng(seed).integers(1, 300)), seed, overconfidence=0.05 * (seed % 3))
    assert calibration.intervals(*rows)["ece"].value == pytest.approx(ece_by_loop(*rows))


@pytest.mark.parametrize("seed", range(5))
def test_the_brier_score_is_that_of_scikit_learn_unscaled(seed):
    golds, predictions, probabilities = drawn(80, seed)
    matrix = [[p[label] for label in LABELS] for p in probabilities]
    expected = brier_score_loss(golds, matrix, labels=LABELS, scale_by_half=False)
    found = calibration.intervals(golds, predictions, probabilities)["brier"]
    assert found.value == pytest.approx(expected) and found.ci_low < found.value < found.ci_high


def test_a_worked_example():
    golds, predictions = ["a", "b", "a", "a"], ["a", "a", "a", "b"]
    probabilities = [{"a": 0.9, "b": 0.1}, {"a": 0.9, "b": 0.1}, {"a": 1.0, "b": 0.0}, {"a": 0.4, "b": 0.6}]
    bins = {bin_.high: bin_ for bin_ in calibration.bins(golds, predictions, probabilities) if bin_.n_rows}
    # 0.9 in (13/15, 14/15], half of them right; 1.0 in the last one; 0.6 on the border 9/15 and so in (8/15, 9/15]
    assert [(b.n_rows, b.confidence, b.accuracy) for b in bins.values()] == [
        (1, pytest.approx(0.6), 0.0), (2, pytest.approx(0.9), 0.5), (1, 1.0, 1.0)
    ]  # fmt: skip
    assert list(bins) == pytest.approx([9 / 15, 14 / 15, 1.0])
    found = calibration.intervals(golds, predictions, probabilities)
    assert found["ece"].value == pytest.approx((1 * 0.6 + 2 * 0.4 + 1 * 0.0) / 4)
    assert found["brier"].value == pytest.approx((0.02 + 1.62 + 0.0 + 0.72) / 4)


def test_the_bins_cover_0_to_1_and_every_row_is_in_one():
    rows = drawn(200)
    bins = calibration.bins(*rows)
    assert len(bins) == 15 and (bins[0].low, bins[-1].high) == (0.0, 1.0)
    assert [b.low for b in bins[1:]] == [b.high for b in bins[:-1]]
    assert sum(b.n_rows for b in bins) == 200
    for b in bins:
        assert (b.confidence is None) == (b.accuracy is None) == (b.n_rows == 0)
        assert b.n_rows == 0 or b.low < b.confidence <= b.high
    assert bins[0].n_rows == 0  # of three labels the likeliest has at least a third
    json.dumps([b.model_dump() for b in bins], allow_nan=False)


@pytest.mark.parametrize(
    ("golds", "predictions", "probabilities"),
    [
        ([], [], []),
        (["a", "b"], ["a", "b"], [None, None]),
        (["a", "b"], ["a", "b"], [{"a": 0.9, "b": 0.1}, None]),
        (["a", "b"], ["a", None], [{"a": 0.9, "b": 0.1}, {"a": 0.4, "b": 0.6}]),
    ],
    ids=["no rows", "no probabilities", "some probabilities", "an unparsed answer"],
)
def test_without_a_probability_for_every_answer_there_is_nothing(golds, predictions, probabilities):
    assert calibration.intervals(golds, predictions, probabilities) == {}
    assert calibration.bins(golds, predictions, probabilities) == []


def test_a_system_that_is_sure_and_right_is_calibrated_but_not_beyond_doubt():
    found = calibration.intervals(["a"] * 20, ["a"] * 20, [{"a": 1.0, "b": 0.0}] * 20)
    for interval in found.values():
        assert (interval.value, interval.ci_low) == (0.0, 0.0) and 0.1 < interval.ci_high < 0.2


def test_a_gold_label_without_a_probability_has_none():
    found = calibration.intervals(["z"], ["a"], [{"a": 0.8, "b": 0.2}])
    assert found["brier"].value == pytest.approx(0.8**2 + 0.2**2 + 1)


def test_an_overconfident_system_is_told_from_a_calibrated_one_and_the_interval_covers_the_truth():
    truth = ece_by_loop(*drawn(40_000, 99, overconfidence=0.2))
    assert truth == pytest.approx(0.2, abs=0.01)
    covered, told = 0, 0
    for seed in range(30):
        over = calibration.intervals(*drawn(300, seed, overconfidence=0.2))["ece"]
        calibrated = calibration.intervals(*drawn(300, seed))["ece"]
        covered += over.ci_low <= truth <= over.ci_high
        told += over.value > calibrated.value
        assert 0 <= calibrated.ci_low <= calibrated.value <= calibrated.ci_high
    assert covered >= 26 and told >= 29


def test_the_interval_of_a_calibrated_system_reaches_down_to_0_most_of_the_time():
    """The percentile interval of a bin-wise gap never would: resampling adds to the noise that each bin already has."""
    lows = [calibration.intervals(*drawn(200, seed))["ece"].ci_low for seed in range(30)]
    assert np.mean([low < 0.02 for low in lows]) > 0.6


def test_several_seeds_have_the_mean_of_their_values():
    systems = [drawn(60, seed) for seed in (1, 2)]
    found = calibration.intervals_of_seeds([calibration.count(*rows) for rows in systems])
    for name in ("ece", "brier"):
        assert found[name].value == pytest.approx(
            np.mean([calibration.intervals(*rows)[name].value for rows in systems])
        )
