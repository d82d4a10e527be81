"""Stance towards a target: which stances count, the metric of SemEval and NLPCC, numbers for each target."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import f1_score

from tasklib import texts
from tasklib.schema import DataSpec, TaskDefinition
from tasklib.scoring import slices
from tasklib.scoring.metrics import Prediction
from tasklib.task_types import stance

STANCES = {"FAVOR": "支持", "AGAINST": "反對", "NONE": "無立場"}
OPTIONS = stance.Options(type="stance", stances=STANCES, favor="FAVOR", against="AGAINST")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"favor": "PRO"}, "'PRO' is not in stances"),
        ({"against": "反對"}, "'反對' is not in stances"),
        ({"against": "FAVOR"}, "they are two stances"),
        ({"label_definitions": {"BOTH": "…"}}, "'BOTH' is not in stances"),
        ({"stances": {"FAVOR": "支持", "AGAINST": "支持。"}}, "cannot be told apart"),
    ],
)
def test_sides_must_be_two_of_the_stances(wrong, said):
    with pytest.raises(ValidationError, match=said):
        stance.Options(**{"type": "stance", "stances": STANCES, "favor": "FAVOR", "against": "AGAINST", **wrong})


def test_the_sides_must_be_named():
    with pytest.raises(ValidationError, match="favor"):
        stance.Options(type="stance", stances=STANCES)


def test_stances_may_have_any_names_and_need_no_third_one():
    made = stance.Options(type="stance", stances=["贊成", "不贊成"], favor="贊成", against="不贊成")
    assert stance.label_set(made) == {"贊成": "贊成", "不贊成": "不贊成"}
    assert stance.parse("我認為是不贊成", made) == "不贊成"


def test_all_faults_of_a_row_come_at_once_and_name_the_option():
    record, faults = stance.read_record({"text": " ", "target": 3, "stance": "favour"}, OPTIONS)
    assert record is None and [fault.role for fault in faults] == ["text", "target", "stance"]
    assert "task.stances" in faults[2].message and "'FAVOR'" in faults[2].hint


@pytest.mark.parametrize("seed", range(10))
def test_the_mean_f1_of_both_sides_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    golds = [list(STANCES)[i] for i in rng.integers(0, 3, 60)]
    answered = [[*STANCES, None][i] for i in rng.integers(0, 4, 60)]
    shown = [answer or "-" for answer in answered]
    found = stance.score(golds, answered, OPTIONS)
    sides = f1_score(golds, shown, labels=["FAVOR", "AGAINST"], average="macro", zero_division=0)
    assert found.metrics["f1_favor_against"] == pytest.approx(sides)
    assert found.metrics["macro_f1"] == pytest.approx(
        f1_score(golds, shown, labels=list(STANCES), average="macro", zero_division=0)
    )
    assert found.metrics["f1_favor_against"] == pytest.approx(
        (found.per_class["FAVOR"]["f1"] + found.per_class["AGAINST"]["f1"]) / 2
    )


def test_rows_without_a_side_count_only_where_a_side_is_answered():
    golds = ["FAVOR", "AGAINST", "NONE", "NONE"]
    assert stance.score(golds, golds, OPTIONS).metrics["f1_favor_against"] == 1.0
    assert stance.score(golds, [*golds[:3], None], OPTIONS).metrics["f1_favor_against"] == 1.0
    assert stance.score(golds, [*golds[:3], "FAVOR"], OPTIONS).metrics["f1_favor_against"] < 1.0
    assert stance.score(["NONE"], ["NONE"], OPTIONS).metrics["f1_favor_against"] is None


def records(target, *stances):
    return [stance.Record(text=f"{target}{n}", target=target, stance=s) for n, s in enumerate(stances)]


def test_the_majority_of_a_target_is_its_own_and_that_of_all_where_it_is_new():
    train = records("甲", "FAVOR", "FAVOR", "NONE") + records("乙", "AGAINST", "AGAINST", "AGAINST", "AGAINST")
    rows = [*records("甲", "NONE"), *records("乙", "NONE"), *records("丙", "NONE")]
    assert stance.BASELINES["majority_of_target"](train, rows, OPTIONS) == ["FAVOR", "AGAINST", "AGAINST"]


def test_reports_have_the_metric_of_each_target():
    definition = TaskDefinition(
        schema_version=1,
        name="demo",
        task=OPTIONS,
        data=DataSpec(files={"all": ["a.csv"]}, fields={name: name for name in stance.FIELDS}),
    )
    found = (
        records("甲", *["FAVOR", "AGAINST"] * 10) + records("乙", *["FAVOR", "AGAINST"] * 6) + records("丙", "FAVOR")
    )
    rows = [{"source": {"file": "a.csv"}, "record": record.model_dump()} for record in found]
    answered = ["FAVOR" if record.target == "乙" else record.stance for record in found]
    predictions = [
        Prediction(id=str(n), gold=r.stance, prediction=a, raw_output=None, probabilities=None, parsed=True)
        for n, (r, a) in enumerate(zip(found, answered, strict=True))
    ]
    parts = [part for part in slices.score(definition, rows, predictions) if part.by == "target"]
    assert [(part.value_of, part.n_rows, part.metric) for part in parts] == [
        ("甲", 20, "f1_favor_against"), ("乙", 12, "f1_favor_against"), ("丙", 1, "f1_favor_against")
    ]  # fmt: skip
    assert parts[0].primary.value == 1.0 and parts[1].primary.value == pytest.approx(1 / 3)
    assert parts[2].primary.value is None  # too few rows to say anything


@pytest.mark.parametrize("language", ["zh-TW", "en"])
def test_every_page_with_slices_has_a_word_for_targets(language):
    for words in (texts.REPORT, texts.COMPARISON):
        assert words[language]["slice_by"]["target"]
