"""Intervals cover what they claim, a difference counts only when it is one, and several comparisons are corrected."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from scipy.stats import binomtest

from tasklib.data import answers
from tasklib.scoring import bootstrap, metrics
from tasklib.task_types import classification
from test_metrics import LABELS, OPTIONS, drawn, reference


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


@pytest.mark.parametrize("seed", range(30))
def test_an_interval_contains_its_value_and_stays_within_what_is_possible(seed):
    found = bootstrap.intervals([counted(*drawn(seed))], score_counts)
    assert set(found) == {"macro_f1", "accuracy", "macro_recall", "mcc", "parse_rate"}
    for name, interval in found.items():
        if name == "mcc" and interval.value is None:
            continue
        assert (-1 if name == "mcc" else 0) <= interval.ci_low <= interval.value <= interval.ci_high <= 1, (
            name,
            interval,
        )


def test_an_interval_is_the_same_every_time():
    counts = counted(*drawn(7))
    assert bootstrap.intervals([counts], score_counts) == bootstrap.intervals([counts.copy()], score_counts)


def test_an_interval_narrows_with_the_square_root_of_the_rows():
    widths = []
    for n in (25, 100, 400, 1600):
        found = bootstrap.intervals([counted(*with_accuracy(n, n * 4 // 5))], score_counts)["accuracy"]
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
        interval = bootstrap.intervals([counted(golds, predictions)], score_counts)["accuracy"]
        covered += interval.ci_low <= p <= interval.ci_high
    assert covered / n_sets >= 0.88
    assert covered < n_sets  # an interval that always covers is too wide


@pytest.mark.parametrize("n", [3, 50, 400])
def test_rows_without_exception_have_the_exact_interval_of_a_share(n):
    """50 of 50 right does not prove that no row would ever be wrong."""
    exact = binomtest(n, n).proportion_ci(method="exact")
    for right in (True, False):
        found = bootstrap.intervals([counted(*with_accuracy(n, n if right else 0))], score_counts)["accuracy"]
        expected = (1.0, exact.low, 1.0) if right else (0.0, 0.0, 1 - exact.low)
        assert (found.value, found.ci_low, found.ci_high) == pytest.approx(expected)


def test_an_undefined_metric_has_no_interval():
    def undefined(sums):
        return {"nothing": np.full(np.shape(sums)[:-1], np.nan)}

    found = bootstrap.intervals([counted(["a"], ["a"])], undefined)["nothing"]
    assert found == metrics.Interval(value=None, ci_low=None, ci_high=None)
    assert json.loads(found.model_dump_json()) == {"value": None, "ci_low": None, "ci_high": None}


def macro_f1(pairs):
    """Paper and pencil on a list of (gold, predicted)."""
    golds, given = Counter(g for g, _ in pairs), Counter(p for _, p in pairs if p)
    hits = Counter(g for g, p in pairs if g == p)
    labels = golds.keys() | given.keys()
    return sum(2 * hits[label] / (golds[label] + given[label]) for label in labels) / len(labels)


@pytest.mark.parametrize("n_rows", [30, 120])
def test_an_interval_is_that_of_a_plain_loop_over_resampled_rows(n_rows):
    golds, (predictions,) = seeds_of(n_rows, [0.6])
    pairs, rng, values = list(zip(golds, predictions, strict=True)), np.random.default_rng(99), []
    for _ in range(2000):
        values.append(macro_f1([pairs[i] for i in rng.integers(0, len(pairs), len(pairs))]))
    found = bootstrap.intervals([counted(golds, predictions)], score_counts)["macro_f1"]
    assert found.value == pytest.approx(macro_f1(pairs))
    spread = np.std(values)
    assert (found.ci_low, found.ci_high) == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.2 * spread)


def test_each_resample_holds_as_many_rows_as_there_are_and_none_is_favoured():
    draws = np.concatenate(list(bootstrap._draws(40))).astype(int)
    assert draws.shape == (bootstrap.N_RESAMPLES, 40) and (draws.sum(1) == 40).all()
    assert draws.mean(0) == pytest.approx(np.ones(40), abs=5 / bootstrap.N_RESAMPLES**0.5)
    assert len(np.unique(draws, axis=0)) == bootstrap.N_RESAMPLES


def test_draws_that_are_kept_and_draws_that_are_made_again_are_the_same(monkeypatch):
    counts = [counted(*drawn(7))]
    kept = bootstrap.intervals(counts, score_counts)
    monkeypatch.setattr(bootstrap, "_CACHED_ROWS", 0)
    assert bootstrap.intervals(counts, score_counts) == kept


def test_dense_and_sparse_counts_give_the_same():
    golds, ours = drawn(21)
    sparse, theirs = counted(golds, ours), counted(golds, ours[::-1])
    dense, others = answers.dense(sparse), answers.dense(theirs)
    assert bootstrap.intervals([sparse], score_counts) == bootstrap.intervals([dense], score_counts)
    compared = [
        bootstrap.compare([a], [b], score_counts, "macro_f1", "o") for a, b in ((sparse, theirs), (dense, others))
    ]
    assert compared[0] == compared[1]


def test_many_labels_on_many_rows_need_little_memory():
    labels = [f"topic-{number}" for number in range(50)]
    options = classification.Options(type="classification", labels=labels)
    golds = labels * 100
    counts = classification.count(golds, golds[7:] + golds[:7], options)
    tracemalloc.start()
    try:
        bootstrap.intervals([counts], lambda sums: classification.score_counts(sums, options))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40_000_000  # the counts alone are 51 MB when they are dense, their resampled sums 41 MB


# Numbers of each class


def test_numbers_of_each_class_get_the_interval_of_their_own_resamples():
    golds, predictions = with_accuracy(300, 240, ("a", "b", "c"))
    table = bootstrap.per_class([counted(golds, predictions)], classification, OPTIONS)
    expected = classification.score(golds, predictions, OPTIONS).per_class
    for label, columns in expected.items():
        assert {name: table[label][name] for name in columns} == columns
    names = {f"{name}{end}" for name in ("precision", "recall", "f1") for end in ("", "_ci_low", "_ci_high")}
    assert set(table["a"]) == names | {"support"}
    recall, rng = table["a"]["recall"], np.random.default_rng(3)
    n = np.maximum(rng.binomial(300, 1 / 3, 20_000), 1)  # the rows of this label vary from resample to resample
    low, high = np.percentile(rng.binomial(n, recall) / n, [2.5, 97.5])
    assert (table["a"]["recall_ci_low"], table["a"]["recall_ci_high"]) == pytest.approx((low, high), abs=0.02)


def test_a_label_that_never_occurs_has_no_number_and_no_interval():
    table = bootstrap.per_class([counted(["a", "b"] * 10, ["a"] * 20)], classification, OPTIONS)
    assert set(table["e"].values()) == {None, 0.0} and table["e"]["support"] == 0
    assert table["b"]["precision"] is table["b"]["precision_ci_low"] is None
    # ten rows of b, all missed: as many as 3.08 in ten might be found
    assert (table["b"]["recall"], table["b"]["recall_ci_low"]) == (0.0, 0.0)
    assert table["b"]["recall_ci_high"] == pytest.approx(binomtest(0, 10).proportion_ci(method="exact").high)


def test_a_class_of_three_rows_that_are_all_right_is_not_certain():
    golds = ["a"] * 97 + ["b"] * 3
    table = bootstrap.per_class([counted(golds, golds)], classification, OPTIONS)
    assert table["b"]["recall"] == 1.0
    assert table["b"]["recall_ci_low"] == pytest.approx(binomtest(3, 3).proportion_ci(method="exact").low)
    assert table["a"]["recall_ci_low"] > 0.95


@pytest.mark.parametrize("case", ["no rows", "one class", "nothing parsed", "one row"])
def test_nan_never_escapes(case):
    golds = {"no rows": [], "one row": ["a"]}.get(case, ["a"] * 12)
    given = [None] * len(golds) if case == "nothing parsed" else golds
    counts = [counted(golds, given)]
    found = bootstrap.intervals(counts, score_counts)
    compared = [bootstrap.compare(counts, counts, score_counts, name, "self") for name in found]
    corrected = bootstrap.holm(compared)
    table = bootstrap.per_class(counts, classification, OPTIONS)
    dumped = [item.model_dump() for item in (*found.values(), *corrected)]
    json.dumps([dumped, table], allow_nan=False)
    assert found["mcc"].value is None and found["mcc"].ci_low is None
    assert (found["accuracy"].value is None) == (case == "no rows")
    undefined = {c.metric for c in corrected if c.p_value_holm is None}
    assert undefined == (set(found) if case == "no rows" else {"mcc"})
    assert {c.verdict for c in corrected} == {"not_distinguishable"}


# Seeds


def seeds_of(n, accuracies, seed=0):
    """(golds, one list of answers for each accuracy)."""
    rng = np.random.default_rng(seed)
    golds = [LABELS[i] for i in rng.integers(0, 3, n)]
    return golds, [[g if rng.random() < p else LABELS[rng.integers(0, 3)] for g in golds] for p in accuracies]


def test_several_seeds_score_as_their_mean_in_every_resample():
    golds, systems = seeds_of(60, [0.5, 0.7, 0.9])
    counts = [counted(golds, system) for system in systems]
    found = bootstrap.intervals(counts, score_counts)["macro_f1"]
    assert found.value == pytest.approx(np.mean([macro_f1(list(zip(golds, s, strict=True))) for s in systems]))
    values = []
    for draw in np.concatenate(list(bootstrap._draws(60))):
        rows = np.repeat(np.arange(60), draw)
        values.append(np.mean([macro_f1([(golds[i], system[i]) for i in rows]) for system in systems]))
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))


def test_a_system_counted_three_times_is_the_system():
    golds, (ours, theirs) = seeds_of(80, [0.8, 0.6])
    once, other = [counted(golds, ours)], [counted(golds, theirs)]
    assert bootstrap.intervals(once * 3, score_counts)["accuracy"].ci_low == pytest.approx(
        bootstrap.intervals(once, score_counts)["accuracy"].ci_low
    )
    single = bootstrap.compare(once, other, score_counts, "accuracy", "o").model_dump()
    tripled = bootstrap.compare(once * 3, other, score_counts, "accuracy", "o").model_dump()
    assert tripled == pytest.approx(single)
    table = bootstrap.per_class(once * 3, classification, OPTIONS)["a"]
    assert table == pytest.approx(bootstrap.per_class(once, classification, OPTIONS)["a"])


def test_the_mean_of_seeds_against_one_baseline_is_a_paired_comparison():
    golds, (first, second, base) = seeds_of(300, [0.9, 0.8, 0.5])
    found = bootstrap.compare(
        [counted(golds, first), counted(golds, second)], [counted(golds, base)], score_counts, "accuracy", "base",
        right=(np.ones(300, bool), np.zeros(300, bool)),
    )  # fmt: skip
    accuracy = [np.mean([g == p for g, p in zip(golds, answers_, strict=True)]) for answers_ in (first, second, base)]
    assert found.delta == pytest.approx((accuracy[0] + accuracy[1]) / 2 - accuracy[2])
    assert found.verdict == "better" and found.mcnemar_p_value is None


# Comparisons


def compare(ours, theirs, metric="accuracy"):
    return bootstrap.compare([counted(*ours)], [counted(*theirs)], score_counts, metric, "other")


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
    intervals = [bootstrap.intervals([counted(golds, p)], score_counts)["accuracy"] for p in (ours, theirs)]
    assert intervals[0].ci_low < intervals[1].ci_high
    assert compare((golds, ours), (golds, theirs)).verdict == "better"


@pytest.mark.parametrize("seed", range(30))
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
    """100 pairs of systems of the same true accuracy: at most some 5 % may be called better or worse."""
    rng, different = np.random.default_rng(1), 0
    for _ in range(100):
        golds = [LABELS[i] for i in rng.integers(0, 2, 60)]
        systems = [[g if rng.random() < 0.75 else "c" for g in golds] for _ in range(2)]
        different += compare((golds, systems[0]), (golds, systems[1])).verdict != "not_distinguishable"
    assert different / 100 <= 0.1


@pytest.mark.parametrize(
    ("n_better", "verdict"), [(1, "not_distinguishable"), (5, "not_distinguishable"), (8, "better")]
)
def test_a_handful_of_differing_rows_proves_nothing(n_better, verdict):
    """An exact sign test needs six rows that differ, all to one side, to reach p = 0.05."""
    golds = ["good", "bad"] * 50
    theirs = [("bad" if g == "good" else "good") if n < n_better else g for n, g in enumerate(golds)]
    options = classification.Options(type="classification", labels=["good", "bad"])
    ours, others = (classification.count(golds, answers, options) for answers in (golds, theirs))
    found = bootstrap.compare([ours], [others], lambda c: classification.score_counts(c, options), "accuracy", "other")
    assert found.verdict == verdict
    assert found.p_value >= min(1.0, 2 * 0.5**n_better)


# Several comparisons


def compared(p_value, low=0.01, high=0.2, against="x"):
    return metrics.Comparison(
        against=against, metric="accuracy", delta=(low + high) / 2, ci_low=low, ci_high=high, p_value=p_value,
        p_value_holm=p_value, verdict="better",
    )  # fmt: skip


def holm_by_definition(p_values):
    """The smallest level at which Holm's step-down procedure rejects each hypothesis, found by trying the levels."""
    m, found = len(p_values), [1.0] * len(p_values)
    levels = sorted({min(1.0, p * k) for p in p_values for k in range(1, m + 1)}, reverse=True)
    for level in levels:
        for k, position in enumerate(sorted(range(m), key=lambda i: p_values[i])):
            if p_values[position] > level / (m - k) * (1 + 1e-12):
                break
            found[position] = level
    return found


def test_holm_on_a_published_example():
    """The four p-values of R's and Wikipedia's example: 0.01 and 0.005 stay significant at 0.05."""
    found = bootstrap.holm([compared(p) for p in (0.01, 0.04, 0.03, 0.005)])
    assert [c.p_value_holm for c in found] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [c.verdict for c in found] == ["better", "not_distinguishable", "not_distinguishable", "better"]
    assert [c.p_value for c in found] == [0.01, 0.04, 0.03, 0.005]


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_the_step_down_procedure(seed):
    rng = np.random.default_rng(seed)
    p_values = [float(p) for p in np.round(rng.random(rng.integers(1, 7)) ** 3, 3)]
    found = bootstrap.holm([compared(p) for p in p_values])
    assert [c.p_value_holm for c in found] == pytest.approx(holm_by_definition(p_values))


def test_a_corrected_verdict_needs_an_interval_that_leaves_out_0_and_may_be_worse():
    intervals = {"better": (0.01, 0.2), "worse": (-0.2, -0.01), "not_distinguishable": (-0.01, 0.2)}
    found = bootstrap.holm([compared(0.001, *bounds, against=name) for name, bounds in intervals.items()])
    assert all(c.verdict == c.against for c in found)


def test_what_is_undefined_is_no_test_and_does_not_make_the_others_stricter():
    undefined = compared(0.03).model_copy(
        update={"p_value": None, "p_value_holm": None, "delta": None, "verdict": "not_distinguishable"}
    )
    found = bootstrap.holm([undefined, compared(0.03)])
    assert found[0] == undefined and found[1].p_value_holm == 0.03 and found[1].verdict == "better"
    assert bootstrap.holm([]) == []


@pytest.mark.parametrize(
    ("n_ours", "n_theirs", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (5, 1, 2 * (1 + 6) / 2**6), (0, 6, 2 / 2**6), (121, 59, binomtest(59, 180).pvalue)],
)
def test_mcnemar_is_the_sign_test_of_the_rows_in_which_the_two_differ(n_ours, n_theirs, p):
    ours = np.array([True] * n_ours + [False] * n_theirs + [True] * 7 + [False] * 4)
    theirs = np.array([False] * n_ours + [True] * n_theirs + [True] * 7 + [False] * 4)
    assert bootstrap.mcnemar(ours, theirs) == pytest.approx(p) == bootstrap.mcnemar(theirs, ours)


def test_mcnemar_is_reported_beside_the_bootstrap_where_rows_are_right_or_wrong():
    golds, (ours, theirs) = seeds_of(100, [0.8, 0.5])
    right = tuple(np.array([g == p for g, p in zip(golds, system, strict=True)]) for system in (ours, theirs))
    counts = [counted(golds, ours)], [counted(golds, theirs)]
    found = bootstrap.compare(*counts, score_counts, "accuracy", "other", right)
    assert found.mcnemar_p_value == bootstrap.mcnemar(*right) < 0.05
    assert found.p_value < 0.05
    assert bootstrap.compare(*counts, score_counts, "accuracy", "other").mcnemar_p_value is None


def test_five_comparisons_of_equal_systems_rarely_name_a_winner():
    """Without correction some 20 % of such tables would hold one."""
    rng, named, n_tables = np.random.default_rng(4), 0, 40
    for _ in range(n_tables):
        golds = [LABELS[i] for i in rng.integers(0, 2, 80)]
        ours, *others = [counted(golds, [g if rng.random() < 0.7 else "c" for g in golds]) for _ in range(6)]
        table = [bootstrap.compare([ours], [other], score_counts, "accuracy", "o") for other in others]
        named += any(c.verdict != "not_distinguishable" for c in bootstrap.holm(table))
    assert named / n_tables <= 0.1
