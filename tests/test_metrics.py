"""Metrics are scikit-learn's, what is undefined is null, and metrics.json is read back as it was written."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    matthews_corrcoef,
    precision_recall_fscore_support,
)

from tasklib.data import answers
from tasklib.scoring import bootstrap, metrics
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
            "mcc": matthews_corrcoef(golds, given) if min(len(set(golds)), len(set(given))) > 1 else None,
            "parse_rate": np.mean([p is not None for p in predictions]),
        }


@pytest.mark.parametrize("seed", range(150))
def test_metrics_are_those_of_scikit_learn(seed):
    golds, predictions = drawn(seed)
    found, expected = classification.score(golds, predictions, OPTIONS), reference(golds, predictions)
    assert found.undefined == [name for name, value in expected.items() if value is None]
    assert {name: v for name, v in found.metrics.items() if v is None} == {n: None for n in found.undefined}
    defined = {name: value for name, value in expected.items() if value is not None}
    assert {name: found.metrics[name] for name in defined} == pytest.approx(defined)


def test_the_random_inputs_hold_every_case_that_matters():
    cases = [drawn(seed) for seed in range(150)]
    assert any(None in predictions for _, predictions in cases)
    assert any(set(golds) - set(predictions) for golds, predictions in cases)
    assert any(set(predictions) - {*golds, None} for golds, predictions in cases)
    assert any(len({*golds, *predictions} - {None}) < len(LABELS) for golds, predictions in cases)
    assert {len(set(golds)) > 1 and len(set(predictions)) > 1 for golds, predictions in cases} == {True, False}
    assert any(len(golds) == 1 for golds, _ in cases) and any(len(golds) > 40 for golds, _ in cases)


@pytest.mark.parametrize("seed", range(50))
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
            # golds 3, 2, 1 and answers 3, 2, 0 and one unparsed: (3·6 - 13) / sqrt((36 - 14) · (36 - 14))
            "mcc": 5 / 22,
            "parse_rate": 5 / 6,
        }
    )
    assert found.per_class["c"] == {"precision": None, "recall": 0.0, "f1": 0.0, "support": 1.0}
    assert found.per_class["d"] == {"precision": None, "recall": None, "f1": None, "support": 0.0}


def test_per_class_numbers_are_the_ratios_that_get_intervals():
    golds, predictions = drawn(3)
    sums = classification.count(golds, predictions, OPTIONS).sum(0)
    table = classification.per_class(sums, OPTIONS)
    for name, (numerators, denominators) in classification.class_ratios(sums, OPTIONS).items():
        for label, numerator, denominator in zip(LABELS, numerators, denominators, strict=True):
            assert table[label][name] == (None if denominator == 0 else pytest.approx(numerator / denominator))


def test_counts_of_many_labels_take_a_few_bytes_a_row():
    labels = [f"topic-{number}" for number in range(150)]
    options = classification.Options(type="classification", labels=labels)
    counts = classification.count(labels * 100, [*labels[1:], None] * 100, options)
    assert counts.shape == (15_000, 150 * 151)
    assert counts.data.nbytes + counts.indices.nbytes + counts.indptr.nbytes <= 12 * 15_000 + 4
    matrix = classification.confusion(counts.sum(0), options)
    assert matrix.sum() == 15_000 and matrix[-1, -1] == 100 and np.trace(matrix) == 0
    assert answers.dense(counts[:2]).sum() == 2


# The file


def test_metrics_are_read_back_as_they_were_written_and_hold_no_nan(tmp_path):
    golds, predictions = drawn(7)
    counts = [classification.count(golds, predictions, OPTIONS)]
    others = [classification.count(golds, [golds[0]] * len(golds), OPTIONS)]

    def score(sums):
        return classification.score_counts(sums, OPTIONS)

    found = bootstrap.intervals(counts, score)
    written = metrics.Metrics(
        run="baseline", split="validation", decoding="score", n_rows=len(golds), rows_sha256="0" * 64,
        identity="1" * 64, primary=metrics.Primary(name="accuracy", **found["accuracy"].model_dump()), metrics=found,
        per_class=bootstrap.per_class(counts, classification, OPTIONS),
        comparisons=[bootstrap.compare(counts, others, score, name, name) for name in found],
        slices=[metrics.Slice(by="script", value_of="none", n_rows=3, metric="accuracy", primary=found["mcc"])],
        calibration=[metrics.CalibrationBin(low=0.0, high=1.0, n_rows=0, confidence=None, accuracy=None)],
        seeds=metrics.Seeds(seeds=[1, 2], runs=["a", "a.s2"], mean={"accuracy": 0.5}, sd={"accuracy": None}),
    )  # fmt: skip
    undefined = [c for c in written.comparisons if c.delta is None]
    assert [c.metric for c in undefined] == ["mcc"]  # a system that always answers the same
    metrics.write(tmp_path, written)
    assert metrics.read(tmp_path) == written
    assert "NaN" not in (tmp_path / "metrics.json").read_text()
    assert metrics.read(tmp_path / "nowhere") is None


def test_metrics_without_the_newer_sections_can_still_be_read(tmp_path):
    """A baseline's cached file may be older; comparisons are made anew each time."""
    old = {
        "run": "majority", "split": "test", "decoding": "none", "n_rows": 1, "rows_sha256": "0", "identity": "1",
        "primary": {"name": "accuracy", "value": 1.0, "ci_low": None, "ci_high": None}, "metrics": {}, "per_class": {},
    }  # fmt: skip
    (tmp_path / "metrics.json").write_text(json.dumps(old))
    found = metrics.read(tmp_path)
    assert (found.slices, found.calibration, found.seeds, found.n_failed) == ([], [], None, 0)
