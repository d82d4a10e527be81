"""The quality gate: the target, what must be beaten, seeds, and words for every gap in both languages."""

from __future__ import annotations

import pytest

from tasklib.schema import EvaluationSpec
from tasklib.scoring import gate
from tasklib.scoring.metrics import Comparison, Metrics, Primary, Seeds

EVERYTHING = ["majority", "tfidf_logreg", "zero_shot", "few_shot", "previous_best"]


def against(name, verdict="better", delta=0.1, p=0.01):
    values = {"delta": delta, "ci_low": delta - 0.05, "ci_high": delta + 0.05} if delta is not None else {}
    empty = dict.fromkeys(("delta", "ci_low", "ci_high"))
    return Comparison(
        against=name, metric="macro_f1", p_value=p, p_value_holm=p, verdict=verdict, **{**empty, **values}
    )  # fmt: skip


def found(value=0.8, comparisons=(), seeds=None):
    return Metrics(
        run="baseline", split="test", decoding="score", n_rows=100, rows_sha256="0", identity="1",
        primary=Primary(name="macro_f1", value=value, ci_low=None, ci_high=None), metrics={}, per_class={},
        comparisons=list(comparisons), seeds=seeds,
    )  # fmt: skip


def judged(spec, metrics):
    """The gate, after a look that the other language finds the same gaps and fills every placeholder."""
    result = gate.judge(EvaluationSpec(**spec), metrics)
    chinese = gate.shortfalls(result.target, spec.get("must_beat", EVERYTHING[:3]), metrics, "zh-TW")
    assert len(chinese) == len(result.reasons) and not any("{" in text for text in chinese + result.reasons)
    assert result.passed == (not result.reasons)
    return result


def test_a_run_that_reaches_the_target_and_beats_everything_passes():
    comparisons = [against(name) for name in EVERYTHING]
    assert judged({"target": 0.8, "must_beat": EVERYTHING}, found(0.8, comparisons)).passed


def test_where_nothing_is_asked_for_there_is_no_gate_to_pass():
    assert gate.judge(EvaluationSpec(must_beat=[]), found(None)) is None
    assert gate.judge(EvaluationSpec(must_beat=[], target=0.5), found(0.6)).passed


@pytest.mark.parametrize("verdict", ["worse", "not_distinguishable"])
@pytest.mark.parametrize("name", EVERYTHING)
def test_whatever_is_named_must_be_beaten(name, verdict):
    comparisons = [against(other) for other in EVERYTHING if other != name]
    result = judged({"must_beat": EVERYTHING}, found(0.8, [*comparisons, against(name, verdict, -0.02, 0.0421)]))
    assert len(result.reasons) == 1 and name in result.reasons[0]
    assert "-0.020" in result.reasons[0] and "0.042" in result.reasons[0]


def test_what_is_not_named_need_not_be_beaten():
    assert judged({"must_beat": ["majority"]}, found(0.8, [against("majority"), against("zero_shot", "worse")])).passed


def test_a_first_run_has_no_earlier_one_to_beat():
    assert judged({"must_beat": ["previous_best"]}, found(0.8)).passed


def test_a_baseline_that_was_not_computed_is_a_gap():
    result = judged({"must_beat": ["majority", "few_shot"]}, found(0.8))
    assert [name for name in ("majority", "few_shot") if any(name in text for text in result.reasons)] == [
        "majority", "few_shot"
    ]  # fmt: skip
    assert "evaluation.n_few_shot" in result.reasons[1] and "n_few_shot" not in result.reasons[0]


def test_a_difference_that_is_undefined_is_a_gap():
    result = judged({"must_beat": ["majority"]}, found(0.8, [against("majority", "not_distinguishable", None, None)]))
    assert not result.passed and "majority" in result.reasons[0]


def test_a_value_short_of_the_target_or_undefined_does_not_pass():
    short, undefined = (
        judged({"target": 0.85, "must_beat": []}, found(0.8)),
        judged({"target": 0.0, "must_beat": []}, found(None)),
    )
    assert not short.passed and "0.800" in short.reasons[0] and "0.050" in short.reasons[0]
    assert not undefined.passed and "undefined" in undefined.reasons[0]


def test_of_several_seeds_the_mean_counts_and_its_spread_is_told():
    seeds = Seeds(seeds=[1, 2, 3], runs=["a", "b", "c"], mean={"macro_f1": 0.78}, sd={"macro_f1": 0.013})
    short = judged({"target": 0.8, "must_beat": []}, found(0.9, seeds=seeds))
    assert not short.passed
    assert all(part in short.reasons[0] for part in ("0.780", "± 0.013", "3 seeds", "0.020"))
    assert judged({"target": 0.78, "must_beat": []}, found(0.1, seeds=seeds)).passed


def test_one_seed_has_no_spread():
    seeds = Seeds(seeds=[1], runs=["a"], mean={"macro_f1": 0.5}, sd={"macro_f1": None})
    assert "±" not in judged({"target": 0.8, "must_beat": []}, found(0.5, seeds=seeds)).reasons[0]
