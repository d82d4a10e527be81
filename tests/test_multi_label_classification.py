"""What is particular to multi-label classification; the laws of every type stand in test_task_type_laws.py."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from pydantic import ValidationError

from tasklib.data import text_baselines
from tasklib.task_types import multi_label_classification as multi

LABELS = ["a", "b", "c", "d", "e"]


def options(**more):
    return multi.Options(**{"type": "multi_label_classification", "labels": LABELS, **more})


def read(labels, **more):
    return multi.read_record({"text": "t", "labels": labels}, options(**more))


@pytest.mark.parametrize("seed", range(20))
def test_metrics_are_those_of_scikit_learn(seed):
    from sklearn import metrics

    drawn, made = np.random.default_rng(seed), options(allow_none=True)
    shape = int(drawn.integers(1, 30)), len(LABELS)
    gold, predicted = (drawn.random(shape) < drawn.choice([0.0, 0.2, 0.6], len(LABELS)) for _ in range(2))
    golds, predictions = ([[LABELS[i] for i in np.flatnonzero(row)] for row in m] for m in (gold, predicted))
    scores = multi.score(golds, predictions, made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "micro_f1": metrics.f1_score(gold, predicted, average="micro", zero_division=np.nan),
            "macro_f1": metrics.f1_score(gold, predicted, average="macro", zero_division=np.nan),
            "exact_match": metrics.accuracy_score(gold, predicted),
            "hamming_loss": metrics.hamming_loss(gold, predicted),
        }
        each = metrics.precision_recall_fscore_support(gold, predicted, average=None, zero_division=np.nan)
    for name, value in expected.items():
        assert (scores.metrics[name] is None) == bool(np.isnan(value)), name
        assert np.isnan(value) or scores.metrics[name] == pytest.approx(value), name
    for column, values in zip(("precision", "recall", "f1", "support"), each, strict=True):
        found = [scores.per_class[label][column] for label in LABELS]
        assert [np.nan if v is None else v for v in found] == pytest.approx(list(values), nan_ok=True), column


def test_an_answer_that_cannot_be_read_is_no_right_answer_where_there_is_no_label():
    made = options(allow_none=True)
    said, silent = multi.score([[], ["a"]], [[], ["a"]], made), multi.score([[], ["a"]], [None, ["a"]], made)
    assert said.metrics["micro_f1"] == said.metrics["exact_match"] == 1.0
    assert silent.metrics["micro_f1"] == pytest.approx(2 / 3) and silent.metrics["exact_match"] == 0.5


PARSED = {
    "in another order": ("c、a", ["a", "c"]),
    "twice": ("a、a", ["a"]),
    "other separators": ("A, ｃ；b", ["a", "b", "c"]),
    "a line each": ("a\nb", ["a", "b"]),
    "no label": ("無。", []),
    "no label and one": ("無、a", None),
    "an unknown part": ("a、z", None),
    "separators alone": ("、、", None),
    "one inside a word": ("bad", None),
}


@pytest.mark.parametrize(("text", "labels"), PARSED.values(), ids=PARSED)
def test_a_generated_text_is_a_set_of_labels_or_nothing(text, labels):
    assert multi.parse(text, options(allow_none=True)) == labels


@pytest.mark.parametrize("cell", [["c", "a"], '["c", "a"]', "c,a", "a; c", "a|c|a", "a、c", "a，c", "c；a"], ids=repr)
def test_labels_are_read_however_people_write_them(cell):
    record, faults = read(cell)
    assert faults == [] and record.labels == ["a", "c"]


def test_a_declared_separator_is_the_only_one_so_that_labels_may_hold_others():
    made = options(labels={"food, drink": "餐飲", "a;b": "其他"}, separator="/")
    record, faults = multi.read_record({"text": "t", "labels": "a;b/food, drink"}, made)
    assert faults == [] and record.labels == ["food, drink", "a;b"]
    assert multi.answer(record, made) == "餐飲、其他"


def test_a_cell_that_is_a_label_is_not_divided():
    made = options(labels=["food, drink", "other"])
    assert multi.read_record({"text": "t", "labels": "food, drink"}, made)[0].labels == ["food, drink"]


@pytest.mark.parametrize("empty", ["", " ", None, [], "[]", "無", ["無"]], ids=repr)
def test_a_row_without_a_label_is_legal_only_where_it_is_declared(empty):
    record, faults = read(empty, allow_none=True)
    assert faults == [] and record.labels == []
    assert multi.answer(record, options(allow_none=True)) == "無"
    record, faults = read(empty)
    assert record is None and [fault.role for fault in faults] == ["labels"]


def test_every_unknown_label_of_a_row_is_told_at_once():
    record, faults = read("a,x,y")
    assert record is None and len(faults) == 2 and {fault.code for fault in faults} == {"unknown_label"}
    assert read('["a", ')[1][0].code == "not_json"
    assert [fault.code for fault in read(["a", 1.5, None])[1]] == ["wrong_type", "missing_field"]


@pytest.mark.parametrize(
    "more",
    [{"labels": ["a", "A"]}, {"labels": ["a", "無"]}, {"labels": ["a、b", "c"]}, {"label_definitions": {"z": "?"}}],
    ids=str,
)
def test_labels_that_could_not_be_read_back_are_refused(more):
    with pytest.raises(ValidationError):
        options(**more)


def test_one_classifier_for_each_label_learns_words_and_gives_no_empty_set_where_each_text_has_a_label():
    texts = [f"第{n}則 房間{'很髒' if n % 2 else '很香'}{'店員很兇' if n % 3 else ''}" for n in range(60)]
    golds = [["a"] * (n % 2) + ["b"] * (n % 3 > 0) + ["c"] for n in range(60)]
    asked = ["房間很髒店員很兇", "房間很香"]
    found = text_baselines.tfidf_one_vs_rest(texts, golds, asked, LABELS, at_least_one=True)
    assert found == [["a", "b", "c"], ["c"]]
    one = text_baselines.tfidf_one_vs_rest(["很髒", "很貴"], [["a"], ["b"]], ["什麼"], LABELS, at_least_one=True)
    assert len(one[0]) >= 1
    assert text_baselines.tfidf_one_vs_rest([], [], ["x"], LABELS, at_least_one=True) == [[]]
