"""Metrics are scikit-learn's, intervals cover what they claim, and a difference counts only when it is one."""

from __future__ import annotations

import itertools
import json
import warnings

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, precision_recall_fscore_support

from tasklib import bootstrap, metrics
from tasklib.task_types import classification

LABELS = ("a", "b", "c", "d", "e")
OPTIONS = classification.Options(type="classification", labels=list(LABELS))
UNPARSED = "(unparsed)"  # what an unparsed answer is to scikit-learn: a label that is never gold


def drawn(seed):
    """(golds, predictions) of a random shape: few or many rows, labels that may not occur, unparsed answers."""
    rng = np.random.default_rng(seed)
    n, legal = int(rng.integers(1, 60)), [*LABELS[: rng.integers(1, 6)]]
    answers = [*LABELS[rng.integers(0, 3) : rng.integers(3, 6)], *([None] if rng.random() < 0.6 else [])]
    golds = [str(label) for label in rng.choice(legal, n, p=rng.dirichlet(np.ones(len(legal))))]
    predictions = [g if rng.random() < 0.5 else answers[rng.integers(len(answers))] for g in golds]
    return golds, predictions


def reference(golds, predictions):
    """scikit-learn's numbers, with unparsed answers as one more label that is averaged over nowhere."""
    given = [UNPARSED if p is None else p for p in predictions]
    occurring = sorted({*golds, *given} - {UNPARSED})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of labels that are predicted and never gold
        return {
            "macro_f1": f1_score(golds, given, labels=occurring, average="macro", zero_division=0),
            "accuracy": accuracy_score(golds, given),
            "macro_recall": balanced_accuracy_score(golds, given),
            "parse_rate": np.mean([p is not None for p in predictions]),
        }


@pytest.mark.parametrize("seed", range(300))
def test_metrics_are_those_of_scikit_learn(seed):
    golds, predictions = drawn(seed)
    found = classification.score(golds, predictions, OPTIONS)
    assert found.metrics == pytest.approx(reference(golds, predictions))
    assert found.undefined == []


def test_the_random_inputs_hold_every_case_that_matters():
    cases = [drawn(seed) for seed in range(300)]
    assert any(None in predictions for _, predictions in cases)
    assert any(set(golds) - set(predictions) for golds, predictions in cases)
    assert any(set(predictions) - {*golds, None} for golds, predictions in cases)
    assert any(len({*golds, *predictions} - {None}) < len(LABELS) for golds, predictions in cases)
    assert any(len(golds) == 1 for golds, _ in cases) and any(len(golds) > 40 for golds, _ in cases)


@pytest.mark.parametrize("seed", range(100))
def test_numbers_of_each_class_are_those_of_scikit_learn_and_null_where_it_would_divide_by_zero(seed):
    golds, predictions = drawn(seed)
    given = [UNPARSED if p is None else p for p in predictions]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arrays = precision_recall_fscore_support(golds, given, labels=list(LABELS), zero_division=np.nan)
    found = classification.score(golds, predictions, OPTIONS).per_class
    assert list(found) == list(LABELS)
    for position, label in enumerate(LABELS):
        precision, recall, f1, support = (array[position] for array in arrays)
        occurs = label in golds or label in predictions
        assert found[label]["support"] == support
        assert found[label]["precision"] == (None if label not in predictions else pytest.approx(precision))
        assert found[label]["recall"] == (None if label not in golds else pytest.approx(recall))
        assert found[label]["f1"] == (pytest.approx(0.0 if np.isnan(f1) else f1) if occurs else None)


def test_a_worked_example_gives_the_numbers_of_paper_and_pencil():
    golds, predictions = ["a", "a", "a", "b", "b", "c"], ["a", "a", "b", "b", None, "a"]
    found = classification.score(golds, predictions, OPTIONS)
    # a: 2 of 3 found, 2 of 3 right, F1 2/3 · b: 1 of 2, 1 of 2, F1 1/2 · c: never found, F1 0
    assert found.metrics == pytest.approx(
        {
            "macro_f1": (2 / 3 + 1 / 2 + 0) / 3,
            "accuracy": 3 / 6,
            "macro_recall": (2 / 3 + 1 / 2 + 0) / 3,
            "parse_rate": 5 / 6,
        }
    )
    assert found.per_class["c"] == {"precision": None, "recall": 0.0, "f1": 0.0, "support": 1.0}
    assert found.per_class["d"] == {"precision": None, "recall": None, "f1": None, "support": 0.0}


# Intervals


def score_counts(sums):
    return classification.score_counts(sums, OPTIONS)


def counted(golds, predictions):
    return classification.count(golds, predictions, OPTIONS)


def with_accuracy(n, n_right, labels=("a", "b")):
    """`n` rows of balanced labels of which `n_right`, spread evenly, are answered right."""
    golds = [labels[position % len(labels)] for position in range(n)]
    wrong = dict(zip(labels, labels[1:] + labels[:1], strict=True))
    right = set(np.linspace(0, n - 1, n_right).astype(int)) if n_right else set()
    return golds, [gold if position in right else wrong[gold] for position, gold in enumerate(golds)]


@pytest.mark.parametrize("seed", range(60))
def test_an_interval_contains_its_value_and_stays_between_0_and_1(seed):
    found = bootstrap.intervals(counted(*drawn(seed)), score_counts)
    assert set(found) == {"macro_f1", "accuracy", "macro_recall", "parse_rate"}
    for name, interval in found.items():
        assert 0 <= interval.ci_low <= interval.value <= interval.ci_high <= 1, (name, interval)


def test_an_interval_is_the_same_every_time():
    counts = counted(*drawn(7))
    assert bootstrap.intervals(counts, score_counts) == bootstrap.intervals(counts.copy(), score_counts)


def test_an_interval_narrows_with_the_square_root_of_the_rows():
    widths = []
    for n in (25, 100, 400, 1600):
        found = bootstrap.intervals(counted(*with_accuracy(n, n * 4 // 5)), score_counts)["accuracy"]
        assert found.value == pytest.approx(0.8, abs=0.01)
        widths.append(found.ci_high - found.ci_low)
    for wide, narrow in itertools.pairwise(widths):
        assert 1.6 < wide / narrow < 2.5
    assert widths[1] == pytest.approx(2 * 1.96 * (0.8 * 0.2 / 100) ** 0.5, rel=0.15)


@pytest.mark.parametrize("p", [0.6, 0.8])
def test_an_interval_covers_the_true_accuracy_about_as_often_as_it_says(p):
    rng, covered, n_sets = np.random.default_rng(0), 0, 200
    for _ in range(n_sets):
        golds = [LABELS[i] for i in rng.integers(0, 2, 60)]
        predictions = [g if rng.random() < p else ("b" if g == "a" else "a") for g in golds]
        interval = bootstrap.intervals(counted(golds, predictions), score_counts)["accuracy"]
        covered += interval.ci_low <= p <= interval.ci_high
    assert covered / n_sets >= 0.88
    assert covered < n_sets  # an interval that always covers is too wide


def test_rows_that_are_all_right_have_an_interval_of_one_point():
    found = bootstrap.intervals(counted(*with_accuracy(50, 50)), score_counts)["accuracy"]
    assert (found.value, found.ci_low, found.ci_high) == (1.0, 1.0, 1.0)


def test_an_undefined_metric_has_no_interval():
    def undefined(sums):
        return {"nothing": np.full(np.shape(sums)[:-1], np.nan)}

    found = bootstrap.intervals(counted(["a"], ["a"]), undefined)["nothing"]
    assert found == metrics.Interval(value=None, ci_low=None, ci_high=None)
    assert json.loads(found.model_dump_json()) == {"value": None, "ci_low": None, "ci_high": None}


# Comparisons


def compare(ours, theirs, metric="accuracy"):
    return bootstrap.compare(counted(*ours), counted(*theirs), score_counts, metric, "other")


@pytest.mark.parametrize("metric", ["macro_f1", "accuracy"])
@pytest.mark.parametrize("seed", range(5))
def test_a_system_cannot_be_told_from_itself(seed, metric):
    found = compare(drawn(seed), drawn(seed), metric)
    assert (found.verdict, found.delta, found.ci_low, found.ci_high) == ("not_distinguishable", 0.0, 0.0, 0.0)
    assert found.p_value == 1.0 and (found.against, found.metric) == ("other", metric)


@pytest.mark.parametrize("metric", ["macro_f1", "accuracy"])
def test_a_clearly_better_system_is_better_and_from_the_other_side_worse(metric):
    good, poor = with_accuracy(200, 180), with_accuracy(200, 110)
    better, worse = compare(good, poor, metric), compare(poor, good, metric)
    assert (better.verdict, worse.verdict) == ("better", "worse")
    assert better.delta == pytest.approx(0.35, abs=0.02) and better.p_value < 0.01
    assert (worse.delta, worse.ci_low, worse.ci_high) == pytest.approx((-better.delta, -better.ci_high, -better.ci_low))
    assert worse.p_value == pytest.approx(better.p_value)


@pytest.mark.parametrize(("n", "ours", "theirs"), [(20, 15, 14), (20, 16, 14), (40, 33, 31), (100, 80, 79)])
def test_a_small_difference_on_few_rows_is_not_one(n, ours, theirs):
    found = compare(with_accuracy(n, ours), with_accuracy(n, theirs))
    assert found.verdict == "not_distinguishable" and found.p_value > 0.05
    assert found.delta == pytest.approx((ours - theirs) / n)
    assert found.ci_low <= 0 <= found.ci_high


def test_the_same_difference_on_many_rows_is_one():
    few = compare(with_accuracy(40, 34), with_accuracy(40, 32))
    many = compare(with_accuracy(4000, 3400), with_accuracy(4000, 3200))
    assert few.delta == pytest.approx(many.delta) == pytest.approx(0.05)
    assert (few.verdict, many.verdict) == ("not_distinguishable", "better")


def test_a_pairing_decides_more_than_two_intervals_that_overlap():
    golds = ["a", "b"] * 100
    theirs = [g if n % 10 < 8 else None for n, g in enumerate(golds)]  # 80 %
    ours = [g if n % 10 < 8 or n % 20 == 8 else None for n, g in enumerate(golds)]  # the same rows and 10 more: 85 %
    intervals = [bootstrap.intervals(counted(golds, p), score_counts)["accuracy"] for p in (ours, theirs)]
    assert intervals[0].ci_low < intervals[1].ci_high
    assert compare((golds, ours), (golds, theirs)).verdict == "better"


@pytest.mark.parametrize("seed", range(60))
def test_a_comparison_is_consistent_with_itself_and_its_mirror(seed):
    golds, ours = drawn(seed)
    theirs = [ours[-1 - position] if position % 3 == 0 else answer for position, answer in enumerate(ours)]
    there, back = (
        compare((golds, ours), (golds, theirs), "macro_f1"),
        compare((golds, theirs), (golds, ours), "macro_f1"),
    )
    expected = reference(golds, ours)["macro_f1"] - reference(golds, theirs)["macro_f1"]
    assert there.delta == pytest.approx(expected) and back.delta == pytest.approx(-expected)
    assert 0 < there.p_value <= 1 and there.p_value == pytest.approx(back.p_value)
    assert {there.verdict, back.verdict} in ({"not_distinguishable"}, {"better", "worse"})
    assert (there.verdict == "better") == (there.ci_low > 0) and (there.verdict == "worse") == (there.ci_high < 0)
    assert there.ci_low - 1e-9 <= there.delta <= there.ci_high + 1e-9


def test_two_equal_systems_are_rarely_called_different():
    """200 pairs of systems of the same true accuracy: at most some 5 % may be called better or worse."""
    rng, different = np.random.default_rng(1), 0
    for _ in range(200):
        golds = [LABELS[i] for i in rng.integers(0, 2, 60)]
        systems = [[g if rng.random() < 0.75 else "c" for g in golds] for _ in range(2)]
        different += compare((golds, systems[0]), (golds, systems[1])).verdict != "not_distinguishable"
    assert different / 200 <= 0.1


# The file


def test_metrics_are_read_back_as_they_were_written_and_hold_no_nan(tmp_path):
    golds, predictions = with_accuracy(40, 30)
    found = bootstrap.intervals(counted(golds, predictions), score_counts)
    written = metrics.Metrics(
        run="baseline", split="validation", decoding="score", n_rows=40, rows_sha256="0" * 64, identity="1" * 64,
        primary=metrics.Primary(name="accuracy", **found["accuracy"].model_dump()), metrics=found,
        per_class=classification.score(golds, predictions, OPTIONS).per_class,
        comparisons=[compare(with_accuracy(40, 30), with_accuracy(40, 20))],
    )  # fmt: skip
    metrics.write(tmp_path, written)
    assert metrics.read(tmp_path) == written
    assert "NaN" not in (tmp_path / "metrics.json").read_text()
    assert metrics.read(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("n_better", "verdict"), [(1, "not_distinguishable"), (5, "not_distinguishable"), (8, "better")]
)
def test_a_handful_of_differing_rows_proves_nothing(n_better, verdict):
    """An exact sign test needs six rows that differ, all to one side, to reach p = 0.05."""
    golds = ["good", "bad"] * 50
    theirs = [("bad" if g == "good" else "good") if n < n_better else g for n, g in enumerate(golds)]
    options = classification.Options(type="classification", labels=["good", "bad"])
    ours, others = (classification.count(golds, answers, options) for answers in (golds, theirs))
    found = bootstrap.compare(ours, others, lambda c: classification.score_counts(c, options), "accuracy", "other")
    assert found.verdict == verdict
    assert found.p_value >= min(1.0, 2 * 0.5**n_better)
