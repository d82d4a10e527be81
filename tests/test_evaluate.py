"""04_evaluate.py and predict.py on a tiny trained model: scores beside baselines, the gate, the looks at test."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import BUNDLE
from tasklib import cli, schema
from tasklib.data import conversion, dataset
from tasklib.files import read_jsonl, sha256_of, to_json, write_json, write_jsonl
from tasklib.model import decoding, models, prompts, tokenized
from tasklib.paths import TaskPaths
from tasklib.scoring import evaluation, systems
from tasklib.training import runs
from test_docs import parser_of
from trainable_task import FULL, LEARNS, LORA, Outcome, Task, environment, make_task

pytestmark = pytest.mark.slow

PARSERS = {name: parser_of(BUNDLE / "scripts" / "task" / f"{name}.py") for name in ("04_evaluate", "predict")}
BODIES = {"04_evaluate": sys.modules["doc_04_evaluate"].evaluate, "predict": sys.modules["doc_predict"].predict}
EARLIER, LATER = "2026-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"
METRICS, PREDICTIONS = "benchmarks/baseline/validation/metrics.json", "benchmarks/baseline/validation/predictions.jsonl"


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


@pytest.fixture(autouse=True)
def one_thread():
    """As in the processes that the tests start: sums of floats depend on the number of threads."""
    import torch

    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def evaluate(task: Task, *flags: str, script: str = "04_evaluate") -> Outcome:
    """04_evaluate.py in this process, as its command line runs it: so many processes of their own would be slow."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        summary, code = cli._run_body(PARSERS[script], BODIES[script], ["--task-dir", str(task.folder), *flags])
    finally:
        signal.signal(signal.SIGTERM, before)
    return Outcome(int(code), json.loads(to_json(dataclasses.asdict(summary))), "")


def predict(task: Task, *flags: str) -> Outcome:
    """predict.py in this process."""
    return evaluate(task, *flags, script="predict")


def answers(outcome: Outcome) -> list[dict]:
    assert outcome.code == 0, outcome.summary
    return outcome.summary["outputs"]["predictions"]


def add_run(
    task: Task, name: str, *, seed: int | None = None, noise: float = 0.0, finished_at: str = LATER, **sections
) -> None:
    """A finished run as 03_train.py leaves it: the baseline's weights, with noise. `seed`: a further seed of the
    baseline, otherwise a run with a config of its own, with other `sections`."""
    from safetensors.torch import load_file, save_file

    paths = TaskPaths(task.folder)
    if seed is None:
        task.write_config(name, **sections)
    definition = schema.load_definition(paths.definition)
    config = schema.load_config(task.folder / "configs" / ("baseline.yaml" if seed else f"{name}.yaml"))
    config = runs.with_seed(config, seed) if seed else config
    shutil.copytree(paths.run("baseline") / "model", paths.run(name) / "model")
    file = paths.run(name) / "model" / "model.safetensors"
    save_file(noisy(load_file(file), noise), file, metadata={"format": "pt"})
    record = json.loads((paths.run("baseline") / "run.json").read_text())
    record |= {"identity": runs.identity(config, definition, paths), "finished_at": finished_at}
    write_json(paths.run(name) / "run.json", record | {"config": config.model_dump(mode="json")})


def noisy(weights: dict, scale: float) -> dict:
    import torch

    generator = torch.Generator().manual_seed(0)
    return {key: value + scale * torch.randn(value.shape, generator=generator) for key, value in weights.items()}


def predictions(task: Task, run: str, split: str = "validation") -> list[dict]:
    return read_jsonl(task.folder / "benchmarks" / run / split / "predictions.jsonl")


def test_metrics_json_holds_what_the_contract_names(trained):
    metrics = trained.json("benchmarks/baseline/validation/metrics.json")
    assert set(metrics) == {
        "schema_version", "run", "split", "decoding", "n_rows", "rows_sha256", "identity", "primary", "metrics",
        "per_class", "slices", "calibration", "seeds", "n_failed", "n_retries", "n_shortened", "comparisons", "gate",
        "warnings",
    }  # fmt: skip
    assert metrics["primary"]["name"] == "macro_f1"
    assert metrics["primary"]["ci_low"] <= metrics["primary"]["value"] <= metrics["primary"]["ci_high"]
    assert [c["against"] for c in metrics["comparisons"]] == ["majority", "tfidf_logreg", "zero_shot"]
    assert set(metrics["per_class"]) == {"good", "bad"}
    assert metrics["metrics"]["parse_rate"]["value"] is None  # nothing is parsed under score
    assert {"ece", "brier"} <= set(metrics["metrics"]) and sum(b["n_rows"] for b in metrics["calibration"]) == 24
    assert all(c["p_value"] <= c["p_value_holm"] for c in metrics["comparisons"])
    assert all(0 <= c["mcnemar_p_value"] <= 1 for c in metrics["comparisons"])
    assert {item["by"] for item in metrics["slices"]} >= {"label"}


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
    assert evaluate(trained).summary["status"] == "skipped"


def test_a_dry_run_does_not_show_the_numbers_of_another_evaluation(copy):
    assert evaluate(copy, "--dry-run").summary["metrics"]
    copy.edit_definition(evaluation={"decoding": "generate"})
    before = copy.json("benchmarks/baseline/validation/metrics.json")
    assert evaluate(copy, "--dry-run").summary["metrics"] == {}
    assert copy.json("benchmarks/baseline/validation/metrics.json") == before


def test_baselines_are_computed_once(copy):
    folder = next(copy.folder.glob("benchmarks/baselines/zero_shot-*/validation"))
    before = (folder / "metrics.json").stat().st_mtime_ns
    assert evaluate(copy, "--force").code == 0
    assert (folder / "metrics.json").stat().st_mtime_ns == before


def test_a_missed_target_is_exit_5_with_the_gap_in_words_and_stays_so(copy):
    copy.edit_definition(evaluation={"target": 1.0, "must_beat": ["tfidf_logreg"]})
    outcome = evaluate(copy)
    metrics = copy.json("benchmarks/baseline/validation/metrics.json")
    if metrics["primary"]["value"] < 1.0:
        assert any("short of the target 1.000" in e["message"] for e in outcome.summary["errors"])
    assert outcome.code == 5 and outcome.summary["status"] == "gate_failed"
    assert any("tfidf_logreg" in e["message"] for e in outcome.summary["errors"])
    assert evaluate(copy).code == 5


def test_every_look_at_test_is_recorded_and_a_skipped_one_is_no_look(copy):
    looks = copy.folder / "benchmarks/test_looks.jsonl"
    assert not looks.exists()
    assert evaluate(copy, "--split", "test").code == 0
    assert evaluate(copy, "--split", "test").code == 0
    assert evaluate(copy, "--split", "test", "--force").code == 0
    lines = [json.loads(line) for line in looks.read_text().splitlines()]
    assert [line["run"] for line in lines] == ["baseline", "baseline"]
    assert lines[0]["value"] == lines[1]["value"]


def test_the_third_look_at_test_and_every_one_after_it_warns(copy):
    def warned(*flags: str) -> list[str]:
        found = evaluate(copy, "--split", "test", *flags).summary["warnings"]
        return [w["message"] for w in found if w["code"] == "many_test_looks"]

    assert warned() == [] and warned("--force") == []
    (message,) = warned("--force")
    assert "3 times" in message
    (again,) = warned()  # read again from disk: what was looked at stays so
    assert again == message
    assert not [w for w in evaluate(copy).summary["warnings"] if w["code"] == "many_test_looks"]


def test_every_prediction_names_its_text_whatever_file_it_came_from(copy):
    assert evaluate(copy).code == 0
    rows = read_jsonl(copy.folder / "data/processed/validation.jsonl")
    found = read_jsonl(copy.folder / "benchmarks/baseline/validation/predictions.jsonl")
    assert [line["text_key"] for line in found] == [dataset.text_key(row["record"]["text"]) for row in rows]
    assert dataset.text_key("ＡＢ c") == dataset.text_key("ab  C") != dataset.text_key("abd")


def test_generate_decoding_parses_what_the_model_writes(copy):
    copy.edit_definition(evaluation={"decoding": "generate"})
    assert evaluate(copy).code == 0
    metrics = copy.json("benchmarks/baseline/validation/metrics.json")
    assert metrics["decoding"] == "generate"
    assert metrics["metrics"]["parse_rate"]["value"] > 0.9
    line = json.loads((copy.folder / "benchmarks/baseline/validation/predictions.jsonl").read_text().splitlines()[0])
    assert line["raw_output"] in ("利多", "利空") and line["probabilities"] is None


def test_every_prompt_is_rendered_with_the_declared_flag_for_thinking(copy, monkeypatch):
    asked = []
    monkeypatch.setattr(prompts, "render_prompt", remembering(prompts.render_prompt, asked))
    monkeypatch.setattr(prompts, "render_completion", remembering(prompts.render_completion, asked))
    evaluate(copy, "--force")
    assert asked and not any(asked)
    asked.clear()
    copy.edit_definition(prompt={"enable_thinking": True})
    evaluate(copy, "--baselines-only")
    assert asked and all(asked)


def remembering(function, asked):
    def wrapped(*args, enable_thinking=False):
        asked.append(enable_thinking)
        return function(*args, enable_thinking=enable_thinking)

    return wrapped


def test_an_evaluation_with_another_config_than_the_run_was_trained_with_is_refused(trained):
    outcome = evaluate(trained, "--set", "training.num_train_epochs=1")
    assert outcome.code == 2
    assert f"num_train_epochs: {LEARNS['num_train_epochs']:.1f} -> 1.0" in outcome.summary["errors"][0]["message"]


def test_a_template_changed_after_training_is_caught_by_evaluation_and_prediction(copy, tiny_model, tmp_path):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = copy.write_config("changed", base_model={"id": str(model)}, adapter=LORA)
    copy.ok("03_train.py", "--config", config, "--set", "training.max_steps=1")
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>", "<|im_start|> "))
    for ask, more in ((evaluate, ()), (predict, ("一段文字",))):
        outcome = ask(copy, "--config", config, "--set", "training.max_steps=1", *more)
        assert (outcome.code, outcome.summary["errors"][0]["code"]) == (4, "prompt_changed")


def test_evaluating_before_training_is_exit_4_with_the_command_to_train(tiny_model, tmp_path):
    task = make_task(tmp_path / "task", tiny_model)
    outcome = evaluate(task)
    assert (outcome.code, outcome.summary["errors"][0]["code"]) == (4, "run_not_finished")


def test_predict_reads_arguments_files_and_standard_input_alike(trained, tmp_path):
    texts = ["第1家公司獲利成長", "第2家公司虧損擴大"]
    from_arguments = answers(predict(trained, *texts))
    assert [p["prediction"] for p in from_arguments] == ["good", "bad"]
    plain, table = tmp_path / "texts.txt", tmp_path / "texts.csv"
    plain.write_text("\n".join(texts) + "\n", encoding="utf-8")
    table.write_text("text\n" + "\n".join(texts) + "\n", encoding="utf-8")
    for file in (plain, table):
        assert answers(predict(trained, "--file", str(file))) == from_arguments
    process = subprocess.run(
        [sys.executable, str(trained.folder / "scripts/predict.py")],
        input="\n".join(texts), capture_output=True, text=True, env=environment(), cwd="/",
    )  # fmt: skip
    assert json.loads(process.stdout)["outputs"]["predictions"] == from_arguments
    output = tmp_path / "answers.jsonl"
    assert predict(trained, *texts, "--output", str(output)).code == 0
    assert [json.loads(line) for line in output.read_text().splitlines()] == from_arguments


def test_predict_names_every_bad_row_of_a_file(trained, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "好"}\n{"text": ""}\n{"text": 3}\n', encoding="utf-8")
    outcome = predict(trained, "--file", str(file))
    assert outcome.code == 3
    assert [(e["code"], e["line"]) for e in outcome.summary["errors"]] == [("empty_field", 2), ("wrong_type", 3)]


# An interrupted evaluation.

SLOWLY = ("--set", "generation.batch_size=1")  # 24 rows are six segments of four batches
DIES = """
import os, runpy, signal, sys

_, script, n_batches, *flags = sys.argv
sys.path.insert(0, os.path.dirname(script))
from tasklib.model import decoding

real, n_done = decoding.score_labels, 0


def dying(*args, **rest):
    global n_done
    for batch in real(*args, **rest):
        n_done += 1
        if n_done > int(n_batches):
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch


decoding.score_labels = dying
sys.argv = [script, *flags]
runpy.run_path(script, run_name="__main__")
"""


@pytest.fixture
def interrupted(monkeypatch):
    """`interrupted(n)`: the n-th batch that a model answers from now on ends in Ctrl-C."""

    def arrange(n):
        real, left = decoding.score_labels, [n]

        def stopping(*args, **rest):
            for batch in real(*args, **rest):
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt
                yield batch

        monkeypatch.setattr(decoding, "score_labels", stopping)

    return arrange


def test_an_evaluation_killed_in_the_middle_goes_on_and_ends_with_the_same_bytes(copy, tmp_path):
    assert evaluate(copy, *SLOWLY).code == 0
    whole = (copy.folder / PREDICTIONS).read_bytes()
    shutil.rmtree(copy.folder / "benchmarks/baseline")
    script = str(copy.folder / "scripts/04_evaluate.py")
    killed = subprocess.run([sys.executable, "-c", DIES, script, "10", *SLOWLY], env=environment(), capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    partial = copy.folder / "benchmarks/baseline/validation" / evaluation.PARTIAL
    lines = partial.read_text().splitlines()
    assert len(lines) == 3 and not (copy.folder / METRICS).exists()  # a header, and two whole segments of four rows
    with partial.open("a") as stream:
        stream.write(lines[1][:50])  # as if the disk had been full
    outcome = evaluate(copy, *SLOWLY)
    assert (outcome.code, outcome.summary["counts"]["answered"]) == (0, 16)
    assert (copy.folder / PREDICTIONS).read_bytes() == whole
    assert not partial.exists()


def test_an_interrupted_baseline_goes_on_too(copy, interrupted):
    shutil.rmtree(next(copy.folder.glob("benchmarks/baselines/zero_shot-*")))
    interrupted(10)
    assert evaluate(copy, "--baselines-only", *SLOWLY).code == 130
    (partial,) = copy.folder.glob("benchmarks/baselines/zero_shot-*/validation/" + evaluation.PARTIAL)
    assert len(partial.read_text().splitlines()) == 3
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        real = decoding.score_labels
        patch.setattr(decoding, "score_labels", lambda *a, **k: asked.extend(a[2]) or real(*a, **k))
        assert evaluate(copy, "--baselines-only", *SLOWLY).code == 0
    assert len(asked) == 16 and not partial.exists()


def test_answers_of_another_evaluation_are_not_taken_over(copy, interrupted):
    interrupted(6)
    assert evaluate(copy, *SLOWLY).code == 130
    partial = copy.folder / "benchmarks/baseline/validation" / evaluation.PARTIAL
    assert len(partial.read_text().splitlines()) == 2
    outcome = evaluate(copy, "--set", "generation.batch_size=2")
    assert (outcome.code, outcome.summary["counts"]["answered"]) == (0, 24)


def test_two_processes_do_not_write_the_same_answers(copy, monkeypatch):
    real, outcomes = decoding.score_labels, []

    def with_company(*args, **rest):
        monkeypatch.setattr(decoding, "score_labels", real)
        outcomes.append(evaluate(copy, "--force"))
        yield from real(*args, **rest)

    monkeypatch.setattr(decoding, "score_labels", with_company)
    (copy.folder / METRICS).unlink()
    assert evaluate(copy).code == 0
    assert [o.summary["errors"][0]["code"] for o in outcomes] == ["evaluation_locked"]


def test_force_does_not_take_over_what_an_earlier_forced_evaluation_left(copy, interrupted):
    assert evaluate(copy, *SLOWLY).code == 0
    interrupted(10)
    assert evaluate(copy, "--force", *SLOWLY).code == 130
    interrupted(10_000)
    assert evaluate(copy, "--force", *SLOWLY).summary["counts"]["answered"] == 24


def test_a_look_that_was_interrupted_before_its_numbers_were_written_is_recorded_once(copy, monkeypatch):
    looks = copy.folder / "benchmarks/test_looks.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation.metrics, "write", stopped_on(evaluation.metrics.write, "baseline"))
        assert evaluate(copy, "--split", "test").code == 130
    assert not (copy.folder / "benchmarks/baseline/test/metrics.json").exists()
    assert len(read_jsonl(looks)) == 1
    assert evaluate(copy, "--split", "test").code == 0
    assert len(read_jsonl(looks)) == 1
    assert evaluate(copy, "--split", "test", "--force").code == 0
    assert len(read_jsonl(looks)) == 2


def stopped_on(write, run):
    """metrics.write that is interrupted for one run."""

    def stopping(folder, metrics):
        if metrics.run == run:
            raise KeyboardInterrupt
        write(folder, metrics)

    return stopping


# Several seeds.


def test_missing_seeds_are_named_all_at_once_with_the_command_that_trains_them(trained):
    outcome = evaluate(trained, "--seeds", "3")
    assert outcome.code == 4
    assert ["baseline.s43" in outcome.summary["errors"][0]["message"], len(outcome.summary["errors"])] == [True, 2]
    assert outcome.summary["next"].endswith("03_train.py --config configs/baseline.yaml --seeds 3")


@pytest.fixture(scope="module")
def seeded(trained, tmp_path_factory) -> Task:
    """Three seeds that differ, evaluated on test."""
    task = Task(Path(shutil.copytree(trained.folder, tmp_path_factory.mktemp("seeds") / "task")))
    for number, seed in enumerate((43, 44), start=1):
        add_run(task, f"baseline.s{seed}", seed=seed, noise=0.05 * number)
    outcome = evaluate(task, "--seeds", "3", "--split", "test")
    assert outcome.code == 0, outcome.summary
    return task


def test_several_seeds_are_reported_as_mean_and_standard_deviation(seeded):
    metrics = seeded.json("benchmarks/baseline/test/metrics.json")
    names = ["baseline", "baseline.s43", "baseline.s44"]
    golds = [p["gold"] for p in predictions(seeded, "baseline", "test")]
    accuracy = [
        statistics.fmean(p["prediction"] == gold for p, gold in zip(predictions(seeded, n, "test"), golds, strict=True))
        for n in names
    ]
    assert len(set(accuracy)) > 1  # or the test says nothing
    assert metrics["seeds"]["runs"] == names and metrics["seeds"]["seeds"] == [42, 43, 44]
    assert metrics["seeds"]["mean"]["accuracy"] == pytest.approx(statistics.fmean(accuracy))
    assert metrics["seeds"]["sd"]["accuracy"] == pytest.approx(statistics.stdev(accuracy))
    for name in ("accuracy", "macro_f1", "ece"):
        assert metrics["metrics"][name]["value"] == pytest.approx(metrics["seeds"]["mean"][name])
        assert metrics["metrics"][name]["ci_low"] <= metrics["metrics"][name]["value"]
    assert metrics["primary"]["value"] == metrics["metrics"]["macro_f1"]["value"]


def test_each_seed_keeps_its_own_metrics_and_the_file_says_whose_predictions_it_shows(seeded):
    own = seeded.json("benchmarks/baseline.s43/test/metrics.json")
    assert own["run"] == "baseline.s43" and own["seeds"] is None
    metrics = seeded.json("benchmarks/baseline/test/metrics.json")
    assert "predictions" in metrics["warnings"][0] and metrics["warnings"][0].endswith("of baseline")


def test_the_comparison_is_about_the_mean_of_the_seeds(seeded):
    metrics = seeded.json("benchmarks/baseline/test/metrics.json")
    majority = seeded.json("benchmarks/baselines/majority/test/metrics.json")
    (found,) = [c for c in metrics["comparisons"] if c["against"] == "majority"]
    assert found["delta"] == pytest.approx(metrics["primary"]["value"] - majority["primary"]["value"])
    assert found["mcnemar_p_value"] is None


def test_several_seeds_are_one_look_at_test_with_the_mean_as_its_value(seeded):
    (look,) = read_jsonl(seeded.folder / "benchmarks/test_looks.jsonl")
    metrics = seeded.json("benchmarks/baseline/test/metrics.json")
    assert (look["run"], look["value"], look["identity"]) == (
        "baseline", metrics["primary"]["value"], metrics["identity"],
    )  # fmt: skip


def test_evaluated_seeds_are_skipped_and_known_to_be_current(seeded):
    assert evaluate(seeded, "--seeds", "3", "--split", "test").summary["status"] == "skipped"
    paths = TaskPaths(seeded.folder)
    definition, record = schema.load_definition(paths.definition), runs.read_record(paths.run("baseline"))
    config = schema.load_config(seeded.folder / "configs/baseline.yaml")
    data = evaluation.Rows("test", conversion.load_split(paths, "test"), [])
    found = evaluation.read_metrics(paths.benchmark("baseline", "test"))
    assert evaluation.is_current(paths, definition, config, data, record, found)
    later = record.model_copy(update={"finished_at": LATER})
    assert not evaluation.is_current(paths, definition, config, data, later, found)


def test_seeds_are_evaluated_from_where_an_interruption_left_them(copy, interrupted):
    add_run(copy, "baseline.s43", seed=43, noise=0.05)
    flags = ("--seeds", "2", "--split", "test", *SLOWLY)
    interrupted(24 + 10)  # the first seed, and half of the second
    assert evaluate(copy, *flags).code == 130
    assert not (copy.folder / "benchmarks/test_looks.jsonl").exists()
    outcome = evaluate(copy, *flags)
    assert (outcome.code, outcome.summary["counts"]["answered"]) == (0, 16)
    assert len(read_jsonl(copy.folder / "benchmarks/test_looks.jsonl")) == 1


def test_one_seed_in_place_of_several_is_warned_of(copy):
    add_run(copy, "baseline.s43", seed=43, noise=0.05)
    assert evaluate(copy, "--seeds", "2").code == 0
    outcome = evaluate(copy)
    assert [w["code"] for w in outcome.summary["warnings"]] == ["fewer_seeds"]
    assert copy.json(METRICS)["seeds"] is None


# What a run is compared with.


def test_few_shot_is_a_baseline_of_its_own_with_worked_examples_from_train(copy, monkeypatch):
    assert not list(copy.folder.glob("benchmarks/baselines/few_shot-*"))
    copy.edit_definition(evaluation={"n_few_shot": 2})
    asked = []
    real = systems.by_model
    monkeypatch.setattr(systems, "by_model", lambda *a, **k: asked.append(a[3]) or real(*a, **k))
    assert evaluate(copy, "--baselines-only").code == 0
    (folder,) = copy.folder.glob("benchmarks/baselines/few_shot-*/validation")
    (conversations,) = asked
    rows = read_jsonl(copy.folder / "data/processed/validation.jsonl")
    trained_on = [row["prompt"][-1]["content"] for row in read_jsonl(copy.folder / "data/processed/train.jsonl")]
    for messages, row in zip(conversations, rows, strict=True):
        assert messages[-1] == row["prompt"][-1]
        assert [m["role"] for m in messages] == ["user", "assistant"] * 2 + ["user"]
        assert {messages[1]["content"], messages[3]["content"]} == {"利多", "利空"}
        assert all(m["content"] in trained_on for m in messages[:-1:2])
    before = json.loads((folder / "metrics.json").read_text())["identity"]
    copy.edit_definition(evaluation={"n_few_shot": 4})
    assert evaluate(copy).code == 0
    assert json.loads((folder / "metrics.json").read_text())["identity"] != before
    names = [c["against"] for c in copy.json(METRICS)["comparisons"]]
    assert names == ["majority", "tfidf_logreg", "zero_shot", "few_shot"]


def test_the_best_earlier_run_is_compared_with_like_a_baseline(copy):
    add_run(copy, "worse", noise=0.3, finished_at=EARLIER)
    add_run(copy, "good", noise=0.01, finished_at=EARLIER)
    add_run(copy, "best", finished_at=LATER)
    add_run(copy, "good.limit8", finished_at=EARLIER)
    for name in ("worse", "good", "best"):
        assert evaluate(copy, "--config", f"configs/{name}.yaml").code == 0
    shutil.copytree(copy.folder / "benchmarks/best", copy.folder / "benchmarks/good.limit8")
    outcome = evaluate(copy)  # nothing of the run itself has changed
    assert (outcome.code, outcome.summary["status"]) == (0, "ok")
    (found,) = [c for c in copy.json(METRICS)["comparisons"] if c["against"] == "previous_best"]
    earlier = {name: copy.json(f"benchmarks/{name}/validation/metrics.json")["primary"]["value"] for name in
               ("worse", "good", "best")}  # fmt: skip
    assert earlier["worse"] < earlier["good"]  # or the test says nothing
    assert outcome.summary["metrics"]["previous_best"]["it_is"] == "good"
    assert found["delta"] == pytest.approx(copy.json(METRICS)["primary"]["value"] - earlier["good"])
    assert evaluate(copy).summary["status"] == "skipped"


def test_an_earlier_run_on_other_rows_or_by_another_decoding_is_no_previous_best(copy):
    add_run(copy, "other", finished_at=EARLIER)
    assert evaluate(copy, "--config", "configs/other.yaml").code == 0
    file = copy.folder / "benchmarks/other/validation/metrics.json"
    found = json.loads(file.read_text())
    for change in ({"rows_sha256": "0"}, {"decoding": "generate"}):
        write_json(file, found | change)
        assert evaluate(copy).summary["status"] == "skipped"
    write_json(file, found)
    assert "previous_best" in evaluate(copy).summary["metrics"]


def test_results_that_cannot_be_read_are_computed_anew(copy):
    found = copy.json(METRICS)
    del found["per_class"]
    write_json(copy.folder / METRICS, found)
    assert evaluate(copy).summary["status"] == "ok"
    assert "per_class" in copy.json(METRICS)


# What is scored, and how.


def test_rows_that_were_trained_on_are_not_scored(copy):
    """Somebody has put test rows into train by hand, and made the manifest fit."""
    processed = copy.folder / "data/processed"
    train, test = (read_jsonl(processed / f"{name}.jsonl") for name in ("train", "test"))
    planted = [row | {"record": row["record"] | {"text": f" {row['record']['text']}　"}} for row in test[:2]]
    write_jsonl(processed / "train.jsonl", [*train, *planted])
    manifest = json.loads((processed / "manifest.json").read_text())
    manifest["files"]["train"] = sha256_of(processed / "train.jsonl")
    write_json(processed / "manifest.json", manifest)
    outcome = evaluate(copy, "--split", "test")
    assert outcome.code == 3
    assert [(e["code"], e["line"]) for e in outcome.summary["errors"]] == [
        ("rows_in_train", row["source"]["line"]) for row in test[:2]
    ]
    assert test[0]["id"] in outcome.summary["errors"][0]["message"]
    assert not (copy.folder / "benchmarks/test_looks.jsonl").exists()


def test_prior_correction_raises_the_labels_that_are_rare_in_train_in_evaluation_and_prediction(copy):
    golds = [row["record"]["label"] for row in read_jsonl(copy.folder / "data/processed/train.jsonl")]
    odds = {n: golds[:n].count("good") / golds[:n].count("bad") for n in range(24, len(golds))}
    limit = max(odds, key=lambda n: abs(math.log(odds[n])))
    assert abs(math.log(odds[limit])) > 0.03  # or the test says nothing
    run, flags = f"baseline.limit{limit}", ("--limit", str(limit))
    add_run(copy, run)
    assert evaluate(copy, *flags).code == 0
    before, identity = predictions(copy, run), copy.json(f"benchmarks/{run}/validation/metrics.json")["identity"]
    flags += ("--set", "imbalance.prior_correction=1.0")
    assert evaluate(copy, *flags).code == 0
    metrics, after = copy.json(f"benchmarks/{run}/validation/metrics.json"), predictions(copy, run)
    assert metrics["identity"] != identity and "share in train" in metrics["warnings"][0]
    for old, new in zip(before, after, strict=True):
        expected = old["probabilities"]["bad"] / old["probabilities"]["good"] * odds[limit]
        assert new["probabilities"]["bad"] / new["probabilities"]["good"] == pytest.approx(expected, rel=0.005)
    text = read_jsonl(copy.folder / "data/processed/validation.jsonl")[0]["record"]["text"]
    (answer,) = answers(predict(copy, text, *flags))
    assert answer["probabilities"] == pytest.approx(after[0]["probabilities"], abs=1e-4)


def test_texts_are_cut_in_evaluation_and_prediction_as_in_training_and_are_counted(copy):
    copy.edit_definition(prompt={"shorten": "keep_start"})
    paths = TaskPaths(copy.folder)
    definition = schema.load_definition(paths.definition)
    rows = read_jsonl(paths.split("validation"))
    baseline = schema.load_config(copy.folder / "configs/baseline.yaml")
    tokenizer = models.load_tokenizer(baseline.base_model)
    lengths = sorted(len(row["input_ids"]) for row in tokenized.encode(tokenizer, definition, baseline, rows).examples)
    add_run(copy, "short", training={**LEARNS, "max_length": lengths[len(lengths) // 2]})
    config = schema.load_config(copy.folder / "configs/short.yaml")
    conversations, shortened = tokenized.fitted(tokenizer, definition, config, rows)
    assert 0 < len(shortened) < len(rows)
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        real = systems.by_model
        patch.setattr(systems, "by_model", lambda *a, **k: asked.append(a[3]) or real(*a, **k))
        outcome = evaluate(copy, "--config", "configs/short.yaml")
    assert outcome.code == 0 and asked == [conversations, conversations]  # of zero_shot and of the run
    found = copy.json("benchmarks/short/validation/metrics.json")
    assert found["n_shortened"] == outcome.summary["counts"]["shortened"] == len(shortened)
    text = rows[shortened[0]]["record"]["text"]
    outcome = predict(copy, text, "--config", "configs/short.yaml")
    assert [w["code"] for w in outcome.summary["warnings"]] == ["text_shortened"]
    (answer,) = answers(outcome)
    expected = predictions(copy, "short")[shortened[0]]["probabilities"]
    assert answer["probabilities"] == pytest.approx(expected, abs=1e-4)


def test_a_prompt_longer_than_the_models_context_is_refused_before_it_is_answered_with_noise(copy, monkeypatch):
    real = models.load_base

    def with_short_context(config):
        model = real(config)
        model.config.max_position_embeddings = 20
        return model

    monkeypatch.setattr(models, "load_base", with_short_context)
    outcome = evaluate(copy, "--baselines-only", *SLOWLY)
    assert (outcome.code, outcome.summary["errors"][0]["code"]) == (3, "too_long_for_model")
