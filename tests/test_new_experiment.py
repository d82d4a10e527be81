"""new_experiment.py: one whole config for one hypothesis, several changes refused, the ledger."""

from __future__ import annotations

import json
import shlex

import pytest
import yaml

from task_folder import Task, jsonl, make_task, news, write
from tasklib import schema
from tasklib.iterating import experiments, ledger
from tasklib.paths import TaskPaths
from tasklib.scoring.metrics import Comparison, Interval

HYPOTHESIS = "損失到最後還在下降 | *rate*"


@pytest.fixture
def task(tmp_path) -> Task:
    return make_task(tmp_path / "實驗 task", {"rows.jsonl": jsonl(*news(20))})


def new(task: Task, name: str, *values: str, parent: str = "baseline", hypothesis: str = HYPOTHESIS, more=()):
    sets = [word for value in values for word in ("--set", value)]
    return task.run(
        "new_experiment.py", "--from", parent, "--name", name, "--hypothesis", hypothesis, *sets, *more
    )  # fmt: skip


def config_of(task: Task, name: str) -> dict:
    return yaml.safe_load((task.folder / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))


def ledger_of(task: Task) -> str:
    return (task.folder / "docs" / "EXPERIMENTS.md").read_text(encoding="utf-8")


def codes(outcome) -> list[str]:
    return [problem["code"] for problem in outcome.summary["errors"]]


# --- the config ---


def test_the_config_is_whole_and_keeps_parent_and_hypothesis(task):
    outcome = new(task, "lr-1e-4", "training.learning_rate=1e-4")
    assert outcome.code == 0, outcome.summary
    written = config_of(task, "lr-1e-4")
    parent = config_of(task, "baseline")
    assert written == {**parent, "parent": "baseline", "hypothesis": HYPOTHESIS, "training": {"learning_rate": 1e-4}}
    loaded = schema.load_config(task.folder / "configs" / "lr-1e-4.yaml")
    assert loaded.training.learning_rate == 1e-4 and loaded.parent == "baseline"


def test_the_next_command_trains_and_evaluates_it(task):
    summary = new(task, "lr-1e-4", "training.learning_rate=1e-4").summary
    assert shlex.split(summary["next"])[:4] == ["bash", "scripts/run_pipeline.sh", "--config", "configs/lr-1e-4.yaml"]


def test_a_grandchild_has_its_own_parent_and_all_that_was_changed_before(task):
    new(task, "lr-1e-4", "training.learning_rate=1e-4")
    assert new(task, "r-32", "adapter.r=32", parent="lr-1e-4").code == 0
    written = config_of(task, "r-32")
    assert (written["parent"], written["training"], written["adapter"]) == (
        "lr-1e-4", {"learning_rate": 1e-4}, {"r": 32}
    )  # fmt: skip


def test_a_dry_run_writes_nothing(task):
    before = task.hashes(".")
    outcome = new(task, "lr", "training.learning_rate=1e-4", more=["--dry-run"])
    assert outcome.code == 0 and outcome.summary["outputs"] == {"changes": ["training.learning_rate: 0.0002 → 0.0001"]}
    assert task.hashes(".") == before


# --- one change at a time ---


@pytest.mark.parametrize(
    "values",
    [
        ("adapter.r=32", "adapter.lora_alpha=64"),
        ("training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=2"),
        ("training.num_train_epochs=5", "training.load_best_model_at_end=true", "training.eval_strategy=epoch"),
        ("training.learning_rate=1e-4", "training.lr_scheduler_type=linear", "training.warmup_steps=10"),
        ("base_model.id=Qwen/Qwen3-0.6B", "base_model.dtype=bfloat16"),
        ("training.learning_rate=1e-4", "training.logging_steps=1", "generation.batch_size=4"),
        ("method=dpo", "start_from=baseline", "preference_data=p.jsonl", "training.beta=0.2"),
        ("method=orpo", "preference_data=p.jsonl", "training.learning_rate=5e-6"),
    ],
)
def test_keys_that_belong_together_and_keys_that_change_no_result_are_one_change(task, values):
    outcome = new(task, "one", *values)
    assert outcome.code == 0, outcome.summary
    assert outcome.summary["counts"]["changes"] == 1


def test_a_learning_rate_is_a_change_of_its_own_where_the_method_stays(task):
    assert new(task, "dpo", "method=dpo", "preference_data=p.jsonl", "training.learning_rate=5e-6").code == 0
    outcome = new(task, "beta", "training.beta=0.3", "training.learning_rate=1e-6", parent="dpo")
    assert codes(outcome) == ["several_changes"]


def test_unrelated_changes_are_refused_with_each_of_them_unless_allowed(task):
    values = ("training.learning_rate=1e-4", "adapter.r=32", "training.num_train_epochs=5")
    outcome = new(task, "several", *values)
    (problem,) = outcome.problems("several_changes")
    assert outcome.code == 2 and problem["message"].startswith("3 things change at once")
    assert all(text in problem["message"] for text in ("0.0002 → 0.0001", "adapter.r: 16 → 32", "epochs: 3 → 5"))
    assert not (task.folder / "configs" / "several.yaml").exists()
    assert not (task.folder / "docs" / "EXPERIMENTS.md").exists()
    assert new(task, "several", *values, more=["--allow-several"]).summary["counts"]["changes"] == 3


def test_every_group_names_keys_that_exist():
    keys = {f"training.{name}" for method in schema.METHODS for name in schema.TRL_FIELDS[method]}
    keys |= {f"training.{name}" for name in schema.EARLY_STOPPING_FIELDS} | {"method", "start_from", "preference_data"}
    keys |= {f"adapter.{name}" for name in (*schema.LORA_FIELDS, *schema.AdapterSpec.model_fields)}
    for section in ("base_model", "imbalance", "generation"):
        keys |= {f"{section}.{name}" for name in schema.RunConfig.model_fields[section].annotation.model_fields}
    grouped = {key: experiments.group_of(key) for key in keys}
    assert set(experiments.GROUPS) <= set(grouped.values())
    assert grouped["training.weight_decay"] == "regularisation" and grouped["training.seed"] == "training.seed"
    assert grouped["training.report_to"] is None


def test_nothing_that_changes_is_refused(task):
    assert codes(new(task, "same")) == ["nothing_changes"]
    assert codes(new(task, "same", "training.learning_rate=2e-4")) == ["nothing_changes"]
    assert codes(new(task, "same", "training.logging_steps=1")) == ["nothing_changes"]


def test_what_another_config_asks_for_already_is_refused_with_its_name(task):
    new(task, "lr-1e-4", "training.learning_rate=1e-4")
    (problem,) = new(task, "again", "training.learning_rate=0.0001").problems("same_experiment")
    assert problem["file"] == "configs/lr-1e-4.yaml"


# --- refusals ---


@pytest.mark.parametrize(
    "name", ["Big", "a b", "../x", "x.limit5", "x.s7", "x.t1", "baselines", "served", "comparisons", ""]
)
def test_a_name_that_cannot_be_a_run_is_refused(task, name):
    outcome = new(task, name, "training.learning_rate=1e-4")
    assert (outcome.code, codes(outcome)) == (2, ["usage"])
    assert len(list((task.folder / "configs").iterdir())) == 1


def test_an_experiment_is_never_overwritten(task):
    new(task, "lr", "training.learning_rate=1e-4")
    before = (task.folder / "configs" / "lr.yaml").read_bytes()
    assert new(task, "lr", "training.learning_rate=3e-4").code == 2
    assert (task.folder / "configs" / "lr.yaml").read_bytes() == before


def test_all_mistakes_come_at_once(task):
    outcome = new(task, "Bad Name", "training.learning_rat=1", "adapter.r=x", hypothesis=" ")
    assert outcome.code == 2
    assert sorted(codes(outcome)) == ["illegal_type", "unknown_key", "usage", "usage"]


def test_an_unknown_parent_names_the_nearest(task):
    outcome = new(task, "x", "adapter.r=8", parent="baselin")
    assert outcome.code == 4 and "baseline" in outcome.summary["errors"][0]["hint"]


def test_name_and_hypothesis_must_be_given(task):
    outcome = task.run("new_experiment.py")
    assert outcome.code == 2 and "--name and --hypothesis" in outcome.summary["errors"][0]["message"]


# --- the ledger ---


def test_the_ledger_gets_hypothesis_and_change_and_keeps_what_a_person_wrote(task):
    new(task, "lr-1e-4", "training.learning_rate=1e-4")
    path = task.folder / "docs" / "EXPERIMENTS.md"
    path.write_text(path.read_text(encoding="utf-8") + "\nmy own remark\n", encoding="utf-8")
    new(task, "r-32", "adapter.r=32")
    text = ledger_of(task)
    assert text.count("# Experiments: tiny") == 1 and "my own remark" in text
    assert "- Change: training.learning\\_rate: 0.0002 → 0.0001" in text or "learning_rate: 0.0002 → 0.0001" in text
    assert "\\| \\*rate\\*" in text  # shown as it was typed, no markup comes alive
    assert text.index("## lr-1e-4") < text.index("my own remark") < text.index("## r-32")


def result(verdict: str = "better", delta: float = 0.1) -> dict:
    return {
        "run": "lr-1e-4", "split": "validation", "n_rows": 120, "n_fixed": 20, "n_broken": 5,
        "value": Interval(value=0.8, ci_low=0.7, ci_high=0.9),
        "comparison": Comparison(
            against="baseline", metric="macro_f1", delta=delta, ci_low=delta - 0.05, ci_high=delta + 0.05,
            p_value=0.0004, p_value_holm=0.0008, verdict=verdict,
        ),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "decision"),
    [("better", "keep lr-1e-4"), ("not_distinguishable", "drop lr-1e-4: not"), ("worse", "drop lr-1e-4: worse")],
)
def test_a_result_comes_with_the_decision_that_follows_from_its_verdict(task, verdict, decision):
    paths = TaskPaths(task.folder)
    definition = schema.load_definition(paths.definition)
    assert ledger.record_result(paths, definition, **result(verdict))
    text = ledger_of(task)
    assert f"- Decision: {decision}" in text
    assert "120 rows of validation, macro_f1 0.800 [0.700, 0.900]; minus baseline +0.100 [+0.050, +0.150]" in text
    assert "p (Holm) < 0.001; 20 rows fixed, 5 broken" in text


def test_the_same_result_is_written_once_and_another_one_after_it(task):
    paths = TaskPaths(task.folder)
    definition = schema.load_definition(paths.definition)
    assert ledger.record_result(paths, definition, **result())
    assert not ledger.record_result(paths, definition, **result())
    assert ledger.record_result(paths, definition, **result(delta=0.2))
    assert ledger.record_result(paths, definition, **result())  # the latest is another one by now
    assert ledger_of(task).count("### lr-1e-4 − baseline") == 3


# --- changed data ---


def trained(task: Task) -> None:
    """A run.json as training would leave it, without training."""
    from tasklib.training import runs

    paths = TaskPaths(task.folder)
    config = schema.load_config(task.folder / "configs" / "baseline.yaml")
    definition = schema.load_definition(paths.definition)
    record = {
        "status": "finished", "argv": [], "config": config.model_dump(mode="json"), "inputs": {}, "code": {},
        "identity": runs.identity(config, definition, paths), "environment": {}, "hardware": {}, "seed": 42,
        "started_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    write(task.folder / "models" / "baseline" / "run.json", json.dumps(record))


def test_changed_data_are_a_change_of_their_own(task):
    task.ok("02_convert_format.py")
    trained(task)
    assert codes(new(task, "checked")) == ["nothing_changes"]
    rows = news(20)
    rows[0]["mood"] = "bad"
    write(task.folder / "data" / "raw" / "rows.jsonl", jsonl(*rows))
    task.ok("02_convert_format.py")
    outcome = new(task, "checked", hypothesis="one label was wrong")
    assert outcome.code == 0, outcome.summary
    assert any(line.startswith("processed.") for line in outcome.summary["outputs"]["changes"])
    assert "data: processed." in ledger_of(task)
    (problem,) = new(task, "both", "adapter.r=8").problems("several_changes")
    assert "data since baseline was trained" in problem["message"]
