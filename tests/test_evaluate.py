"""04_evaluate.py and predict.py on a tiny trained model: scores beside baselines, the gate, the looks at test."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainable_task import FULL, LEARNS, LORA, Task, environment, make_task

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory) -> Task:
    """A task whose easy classes have been learnt, evaluated on validation."""
    task = make_task(
        tmp_path_factory.mktemp("evaluate") / "task", tiny_model, n_rows=120, adapter=FULL, training=LEARNS
    )
    task.ok("03_train.py")
    task.ok("04_evaluate.py")
    return task


@pytest.fixture
def copy(trained, tmp_path) -> Task:
    """A copy that a test may change."""
    return Task(Path(shutil.copytree(trained.folder, tmp_path / "copy")))


def test_metrics_json_holds_what_the_contract_names(trained):
    metrics = trained.json("benchmarks/baseline/validation/metrics.json")
    assert set(metrics) == {
        "schema_version", "run", "split", "decoding", "n_rows", "rows_sha256", "identity", "primary", "metrics",
        "per_class", "comparisons", "gate", "warnings",
    }  # fmt: skip
    assert metrics["primary"]["name"] == "macro_f1"
    assert metrics["primary"]["ci_low"] <= metrics["primary"]["value"] <= metrics["primary"]["ci_high"]
    assert [c["against"] for c in metrics["comparisons"]] == ["majority", "tfidf_logreg", "zero_shot"]
    assert set(metrics["per_class"]) == {"good", "bad"}
    assert metrics["metrics"]["parse_rate"]["value"] is None  # nothing is parsed under score


def test_a_model_that_learnt_its_task_beats_majority_and_zero_shot_by_the_paired_test(trained):
    metrics = trained.json("benchmarks/baseline/validation/metrics.json")
    verdicts = {c["against"]: c["verdict"] for c in metrics["comparisons"]}
    assert verdicts["majority"] == verdicts["zero_shot"] == "better"


def test_predictions_stand_in_the_order_of_the_rows_with_probabilities_that_sum_to_one(trained):
    lines = (trained.folder / "benchmarks/baseline/validation/predictions.jsonl").read_text().splitlines()
    rows = (trained.folder / "data/processed/validation.jsonl").read_text().splitlines()
    predictions = [json.loads(line) for line in lines]
    assert [p["id"] for p in predictions] == [json.loads(row)["id"] for row in rows]
    assert all(abs(sum(p["probabilities"].values()) - 1) < 1e-4 for p in predictions)


def test_every_system_was_scored_on_the_same_rows(trained):
    files = list(trained.folder.glob("benchmarks/**/validation/metrics.json"))
    assert len(files) == 4
    assert len({json.loads(f.read_text())["rows_sha256"] for f in files}) == 1


def test_a_second_evaluation_is_skipped(trained):
    assert trained.ok("04_evaluate.py")["status"] == "skipped"


def test_a_dry_run_does_not_show_the_numbers_of_another_evaluation(copy):
    assert copy.ok("04_evaluate.py", "--dry-run")["metrics"]
    copy.edit_definition(evaluation={"decoding": "generate"})
    before = copy.json("benchmarks/baseline/validation/metrics.json")
    assert copy.ok("04_evaluate.py", "--dry-run")["metrics"] == {}
    assert copy.json("benchmarks/baseline/validation/metrics.json") == before


def test_baselines_are_computed_once(copy):
    folder = next(copy.folder.glob("benchmarks/baselines/zero_shot-*/validation"))
    before = (folder / "metrics.json").stat().st_mtime_ns
    copy.ok("04_evaluate.py", "--force")
    assert (folder / "metrics.json").stat().st_mtime_ns == before


def test_a_missed_target_is_exit_5_with_the_gap_in_words_and_stays_so(copy):
    copy.edit_definition(evaluation={"target": 1.0, "must_beat": ["tfidf_logreg"]})
    outcome = copy.run("04_evaluate.py")
    metrics = copy.json("benchmarks/baseline/validation/metrics.json")
    if metrics["primary"]["value"] < 1.0:
        assert any("short of the target 1.000" in e["message"] for e in outcome.summary["errors"])
    assert outcome.code == 5 and outcome.summary["status"] == "gate_failed"
    assert any("tfidf_logreg" in e["message"] for e in outcome.summary["errors"])
    assert copy.run("04_evaluate.py").code == 5


def test_every_look_at_test_is_recorded_and_a_skipped_one_is_no_look(copy):
    looks = copy.folder / "benchmarks/test_looks.jsonl"
    assert not looks.exists()
    copy.ok("04_evaluate.py", "--split", "test")
    copy.ok("04_evaluate.py", "--split", "test")
    copy.ok("04_evaluate.py", "--split", "test", "--force")
    lines = [json.loads(line) for line in looks.read_text().splitlines()]
    assert [line["run"] for line in lines] == ["baseline", "baseline"]
    assert lines[0]["value"] == lines[1]["value"]


def test_generate_decoding_parses_what_the_model_writes(copy):
    copy.edit_definition(evaluation={"decoding": "generate"})
    copy.ok("04_evaluate.py")
    metrics = copy.json("benchmarks/baseline/validation/metrics.json")
    assert metrics["decoding"] == "generate"
    assert metrics["metrics"]["parse_rate"]["value"] > 0.9
    line = json.loads((copy.folder / "benchmarks/baseline/validation/predictions.jsonl").read_text().splitlines()[0])
    assert line["raw_output"] in ("利多", "利空") and line["probabilities"] is None


def test_an_evaluation_with_another_config_than_the_run_was_trained_with_is_refused(trained):
    outcome = trained.run("04_evaluate.py", "--set", "training.num_train_epochs=1")
    assert outcome.code == 2
    assert f"num_train_epochs: {LEARNS['num_train_epochs']:.1f} -> 1.0" in outcome.summary["errors"][0]["message"]


def test_a_template_changed_after_training_is_caught_by_evaluation_and_prediction(copy, tiny_model, tmp_path):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = copy.write_config("changed", base_model={"id": str(model)}, adapter=LORA)
    copy.ok("03_train.py", "--config", config, "--set", "training.max_steps=1")
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "helper"))
    for script, more in (("04_evaluate.py", ()), ("predict.py", ("一段文字",))):
        outcome = copy.run(script, "--config", config, "--set", "training.max_steps=1", *more)
        assert (outcome.code, outcome.summary["errors"][0]["code"]) == (4, "prompt_changed")


def test_evaluating_before_training_is_exit_4_with_the_command_to_train(tiny_model, tmp_path):
    task = make_task(tmp_path / "task", tiny_model)
    outcome = task.run("04_evaluate.py")
    assert (outcome.code, outcome.summary["errors"][0]["code"]) == (4, "run_not_finished")


def test_predict_reads_arguments_files_and_standard_input_alike(trained, tmp_path):
    texts = ["第1家公司獲利成長", "第2家公司虧損擴大"]
    from_arguments = trained.ok("predict.py", *texts)["outputs"]["predictions"]
    assert [p["prediction"] for p in from_arguments] == ["good", "bad"]
    plain, table = tmp_path / "texts.txt", tmp_path / "texts.csv"
    plain.write_text("\n".join(texts) + "\n", encoding="utf-8")
    table.write_text("text\n" + "\n".join(texts) + "\n", encoding="utf-8")
    for file in (plain, table):
        assert trained.ok("predict.py", "--file", str(file))["outputs"]["predictions"] == from_arguments
    process = subprocess.run(
        [sys.executable, str(trained.folder / "scripts/predict.py")],
        input="\n".join(texts), capture_output=True, text=True, env=environment(), cwd="/",
    )  # fmt: skip
    assert json.loads(process.stdout)["outputs"]["predictions"] == from_arguments
    output = tmp_path / "answers.jsonl"
    trained.ok("predict.py", *texts, "--output", str(output))
    assert [json.loads(line) for line in output.read_text().splitlines()] == from_arguments


def test_predict_names_every_bad_row_of_a_file(trained, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "好"}\n{"text": ""}\n{"text": 3}\n', encoding="utf-8")
    outcome = trained.run("predict.py", "--file", str(file))
    assert outcome.code == 3
    assert [(e["code"], e["line"]) for e in outcome.summary["errors"]] == [("empty_field", 2), ("wrong_type", 3)]
