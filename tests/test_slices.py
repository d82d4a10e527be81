"""Slices: the same rows looked at by length, label, source and script, with numbers that agree with the whole."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from tasklib.schema import DataSpec, EvaluationSpec, TaskDefinition
from tasklib.scoring import bootstrap, slices
from tasklib.scoring.metrics import Prediction
from tasklib.task_types import classification

LABELS = ["good", "bad", "none"]


def definition(metric=None, labels=None):
    return TaskDefinition(
        schema_version=1,
        name="demo",
        task=classification.Options(type="classification", labels=labels or LABELS),
        data=DataSpec(files={"all": ["a.csv"]}, fields={"text": "text", "label": "label"}),
        evaluation=EvaluationSpec(primary_metric=metric),
    )


def rows_of(n, seed=0, texts=None, files=("a.csv", "b.csv"), golds=("good", "bad")):
    """(rows, predictions): about 70 % right."""
    rng = np.random.default_rng(seed)
    rows, predictions = [], []
    for number in range(n):
        gold = golds[number % len(golds)]
        text = texts[number % len(texts)] if texts else "x" * int(rng.integers(1, 100))
        given = gold if rng.random() < 0.7 else [*LABELS, None][rng.integers(4)]
        source = {"file": files[number * len(files) // n], "line": number + 1}
        rows.append({"id": str(number), "source": source, "record": {"text": text, "label": gold}})
        predictions.append(
            Prediction(
                id=str(number), gold=gold, prediction=given, raw_output=None, probabilities=None,
                parsed=given is not None,
            )
        )  # fmt: skip
    return rows, predictions


def scored(rows, predictions, metric=None):
    """{by: [slices]}"""
    found = {}
    for part in slices.score(definition(metric), rows, predictions):
        found.setdefault(part.by, []).append(part)
    return found


def values(parts):
    return [part.value_of for part in parts]


def test_every_section_counts_every_row_once():
    texts = ["外銷訂單成長", "外销订单连三个月成长", "plain text, no Chinese", "臺灣與台湾的软體软件"]
    rows, predictions = rows_of(90, texts=texts)
    found = scored(rows, predictions)
    assert list(found) == ["label", "length", "source", "script"]
    for parts in found.values():
        assert sum(part.n_rows for part in parts) == 90 and len(parts) >= 2
        assert len(set(values(parts))) == len(parts)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_a_slice_has_the_metric_of_its_rows_alone(metric):
    rows, predictions = rows_of(80)
    for part in scored(rows, predictions, metric)["source"]:
        placed = zip(rows, predictions, strict=True)
        pairs = [(p.gold, p.prediction) for row, p in placed if row["source"]["file"] == part.value_of]
        golds, given = [g for g, _ in pairs], [p or "(unparsed)" for _, p in pairs]
        occurring = sorted({*golds, *given} - {"(unparsed)"})
        f1 = f1_score(golds, given, labels=occurring, average="macro", zero_division=0)
        assert part.metric == metric and part.n_rows == len(pairs) == 40
        assert part.primary.value == pytest.approx(accuracy_score(golds, given) if metric == "accuracy" else f1)
        assert part.primary.ci_low < part.primary.value < part.primary.ci_high


def test_labels_have_the_recall_and_the_interval_of_the_table_of_classes():
    rows, predictions = rows_of(100)
    task = definition()
    counts = classification.count([p.gold for p in predictions], [p.prediction for p in predictions], task.task)
    table = bootstrap.per_class([counts], classification, task.task)
    parts = scored(rows, predictions)["label"]
    assert values(parts) == ["good", "bad"] and {part.metric for part in parts} == {"recall"}
    for part in parts:
        columns = table[part.value_of]
        assert part.n_rows == columns["support"]
        assert part.primary.model_dump() == {
            "value": columns["recall"], "ci_low": columns["recall_ci_low"], "ci_high": columns["recall_ci_high"]
        }  # fmt: skip


def test_lengths_are_terciles_of_characters_named_by_their_bounds_and_ascending():
    texts = ["字" * n for n in range(1, 61)]
    parts = scored(*rows_of(60, texts=texts))["length"]
    assert values(parts) == ["1-20", "21-40", "41-60"] and {part.n_rows for part in parts} == {20}


def test_texts_of_equal_length_stay_together():
    texts = ["ab"] * 7 + ["abcdefghijkl"] * 2 + ["abcdefghijklm"]
    parts = scored(*rows_of(100, texts=texts))["length"]
    assert [(part.value_of, part.n_rows) for part in parts] == [("2-2", 70), ("12-13", 30)]


def test_a_section_of_one_value_says_nothing_and_is_left_out():
    rows, predictions = rows_of(40, texts=["same text"], files=["a.csv"], golds=["good"])
    assert slices.score(definition(), rows, predictions) == []


def test_scripts_are_told_apart():
    texts = ["外銷訂單連三個月成長", "外销订单连三个月成长", "plain text"]
    parts = scored(*rows_of(60, texts=texts))["script"]
    assert {part.value_of: part.n_rows for part in parts} == {"traditional": 20, "simplified": 20, "none": 20}


def test_few_rows_are_listed_without_a_number():
    rows, predictions = rows_of(49)
    rows[0]["source"]["file"] = "rare.csv"
    parts = {part.value_of: part for part in scored(rows, predictions)["source"]}
    assert list(parts)[-1] == "rare.csv" and parts["rare.csv"].n_rows == 1
    assert set(parts["rare.csv"].primary.model_dump().values()) == {None}
    assert parts["a.csv"].primary.value is not None


def test_of_many_source_files_the_most_frequent_are_shown():
    files = ["big.csv"] * 30 + [f"{number}.csv" for number in range(40)]
    parts = scored(*rows_of(140, files=files))["source"]
    assert len(parts) == slices.MAX_VALUES and values(parts)[0] == "big.csv" and parts[0].n_rows == 60


def test_no_rows_give_no_slices():
    assert slices.score(definition(), [], []) == []
