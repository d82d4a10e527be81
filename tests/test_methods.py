"""SFT, DPO and ORPO on a tiny real model: every adapter, what exactly is trained, chains of runs, refusals."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml

from tasklib import schema
from tasklib.documents import parse_yaml
from tasklib.exit_codes import ExitCode
from tasklib.model import models
from tasklib.paths import task_paths
from tasklib.summary import TaskError
from trainable_task import FULL, LORA, Task, make_task

pytestmark = pytest.mark.slow

ADAPTERS = ("lora", "dora", "qlora", "qdora", "full")
PAIRED = {"num_train_epochs": 1, "learning_rate": 1e-3, "per_device_train_batch_size": 4}


def write_pairs(task: Task, n: int | None = None) -> str:
    """Pairs of the training rows, the right answer chosen; returns their path below the task."""
    rows = [json.loads(line) for line in (task.folder / "data/processed/train.jsonl").read_text().splitlines()][:n]
    answers = {"利多": "利空", "利空": "利多"}
    lines = []
    for row in rows:
        chosen = row["completion"][0]["content"]
        pair = {"id": row["id"], "source": row["source"], "prompt": row["prompt"]}
        lines.append(pair | {"chosen": chosen, "rejected": answers[chosen]})
    path = task.folder / "data" / "preferences" / "pairs.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return "data/preferences/pairs.jsonl"


def paired(task: Task, name: str, method: str, adapter: dict, **more) -> str:
    training = {**PAIRED, **more.pop("training", {})}
    sections = {"method": method, "adapter": adapter, "training": training, "preference_data": write_pairs(task)}
    return task.write_config(name, **sections, **more)


def record_of(task: Task, run: str) -> dict:
    return task.json(f"models/{run}/run.json")


@pytest.fixture(scope="module")
def task(tiny_model, tmp_path_factory) -> Task:
    return make_task(tmp_path_factory.mktemp("methods") / "task", tiny_model)


@pytest.mark.parametrize("method", ["dpo", "orpo"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_adapter_learns_from_pairs_is_saved_and_answers_after_reloading(task, method, adapter):
    name = f"{method}-{adapter}"
    config = paired(task, name, method, FULL if adapter == "full" else {**LORA, "type": adapter})
    summary = task.ok("03_train.py", "--config", config, "--set", "training.max_steps=2")
    record = record_of(task, name)
    assert summary["counts"]["steps"] == 2 and record["config"]["method"] == method
    assert set(record["final"]) >= {"train_loss", "rewards/accuracies", "rewards/margins"}
    saved = task.folder / "models" / name / ("model" if adapter == "full" else "adapter")
    assert list(saved.glob("*.safetensors")) and not [path for path in saved.iterdir() if path.is_dir()]
    flags = ("--config", config, "--set", "training.max_steps=2")
    (answer,) = task.ok("predict.py", *flags, "獲利成長")["outputs"]["predictions"]
    assert answer["prediction"] in ("good", "bad")


@pytest.mark.parametrize("method", ["dpo", "orpo"])
def test_pairs_move_the_model_towards_the_chosen_answers(task, method):
    """Random weights know nothing: what full training on pairs gives is what the pairs say."""
    name = f"learns-{method}"
    more = {"num_train_epochs": 12, "learning_rate": 3e-3, "logging_steps": 1}
    config = paired(task, name, method, FULL, training=more)
    task.ok("03_train.py", "--config", config)
    log = [json.loads(line) for line in (task.folder / f"models/{name}/train_log.jsonl").read_text().splitlines()]
    accuracies = [line["rewards/accuracies"] for line in log if "rewards/accuracies" in line]
    assert sum(accuracies[-5:]) / 5 > 0.95
    metrics = task.ok("04_evaluate.py", "--config", config)["metrics"][name]
    assert metrics["macro_f1"] > 0.9


def test_only_answers_carry_a_label_on_either_side_and_the_proof_says_so(task):
    config = paired(task, "proof", "dpo", LORA)
    task.ok("03_train.py", "--config", config, "--set", "training.max_steps=1")
    stats = task.json("models/proof/data_stats.json")["train"]
    for side, answers in (("chosen", {"利多", "利空"}), ("rejected", {"利多", "利空"})):
        samples = stats[f"mask_proof_{side}"]["samples"]
        assert samples and all(sample["trained"].split("<")[0] in answers for sample in samples)
    assert stats["n_rows"] == 2 * stats["n_pairs"]


def test_orpos_likelihood_is_that_of_the_chosen_answer_alone(tiny_model):
    """TRL's own takes the prompt in; ours is the mean over the chosen answers' tokens of a plain forward pass."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.orpo import ORPOConfig

    from tasklib.training import pairs, task_trainer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    rows = [
        {"prompt_ids": [5, 6, 7, 8], "chosen_ids": [9, 10, 11], "rejected_ids": [12]},
        {"prompt_ids": [5, 6], "chosen_ids": [13], "rejected_ids": [14, 15, 16, 17]},
    ]
    config = schema.check_config(parse_yaml("schema_version: 1\nbase_model: {id: x}\nmethod: orpo\n", "c.yaml"))
    trainer = task_trainer.task_trainer(config, None, None)(
        model=model,
        args=ORPOConfig(use_cpu=True, bf16=False, remove_unused_columns=False, report_to="none", output_dir="unused"),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(2)])
    chosen, rejected, *_, nll = trainer.concatenated_forward(model, batch)

    def log_probabilities(prompt, answer):
        logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        return torch.stack([logits[len(prompt) - 1 + i, token] for i, token in enumerate(answer)])

    for name, found in (("chosen", chosen), ("rejected", rejected)):
        expected = [log_probabilities(row["prompt_ids"], row[f"{name}_ids"]).mean() for row in rows]
        assert torch.allclose(found, torch.stack(expected), atol=1e-5)
    tokens = torch.cat([log_probabilities(row["prompt_ids"], row["chosen_ids"]) for row in rows])
    assert torch.allclose(nll, -tokens.mean(), atol=1e-5)
    assert pairs.for_orpo(rows[1])["chosen_labels"] == [-100, -100, 13]


# A run that goes on from another one


@pytest.mark.parametrize("adapter", ["lora", "dora", "qlora", "full"])
def test_dpo_goes_on_from_an_sft_run_and_compares_with_it(adapter, task):
    """With no step size the answers are those of the SFT run: it was loaded, and it is the reference (margin 0)."""
    spec = FULL if adapter == "full" else {**LORA, "type": adapter}
    sft = task.write_config(f"sft-{adapter}", adapter=spec)
    task.ok("03_train.py", "--config", sft, "--set", "training.max_steps=3")
    training = {"learning_rate": 1e-12, "max_steps": 1}
    config = paired(task, f"then-{adapter}", "dpo", spec, training=training, start_from=f"sft-{adapter}")
    outcome = task.run("03_train.py", "--config", config)
    record = record_of(task, f"then-{adapter}")
    assert outcome.code == 0, outcome.summary
    assert abs(record["final"]["rewards/margins"]) < 1e-3
    assert [(link["run"], link["method"]) for link in record["chain"]] == [(f"sft-{adapter}", "sft")]
    assert record["chain"][0]["identity"] == record_of(task, f"sft-{adapter}")["identity"]["sha256"]
    texts = ("獲利成長", "虧損擴大")
    flags = {
        f"sft-{adapter}": ("--config", sft, "--set", "training.max_steps=3"),
        f"then-{adapter}": ("--config", config),
    }
    before, after = (
        [a["probabilities"]["good"] for a in task.ok("predict.py", *flags[run], *texts)["outputs"]["predictions"]]
        for run in flags
    )
    assert before == pytest.approx(after, abs=2e-2 if adapter == "qlora" else 1e-3)


def test_the_run_that_one_goes_on_from_is_part_of_its_identity(task):
    sft = task.write_config("first", adapter=LORA)
    task.ok("03_train.py", "--config", sft, "--set", "training.max_steps=1")
    config = paired(task, "second", "dpo", LORA, training={"max_steps": 1}, start_from="first")
    task.ok("03_train.py", "--config", config)
    assert task.ok("03_train.py", "--config", config)["status"] == "skipped"
    task.ok("03_train.py", "--config", sft, "--force", "--set", "training.max_steps=2")
    outcome = task.run("03_train.py", "--config", config)
    assert outcome.code == 2 and "start_from" in outcome.summary["errors"][0]["message"]


def test_other_pairs_under_the_same_name_are_another_run(task):
    config = paired(task, "pairs-change", "orpo", LORA, training={"max_steps": 1})
    task.ok("03_train.py", "--config", config)
    write_pairs(task, n=10)
    outcome = task.run("03_train.py", "--config", config)
    write_pairs(task)
    assert outcome.code == 2 and "preference_data" in outcome.summary["errors"][0]["message"]


def test_a_run_to_go_on_from_must_exist_and_have_the_same_adapter(task):
    config = paired(task, "from-nothing", "dpo", LORA, start_from="nowhere")
    outcome = task.run("03_train.py", "--config", config)
    assert outcome.code == 4 and outcome.summary["errors"][0]["code"] == "run_not_finished"
    task.ok("03_train.py", "--config", task.write_config("other", adapter=LORA), "--set", "training.max_steps=1")
    config = paired(task, "from-other", "dpo", {**LORA, "r": 8}, start_from="other")
    outcome = task.run("03_train.py", "--config", config)
    assert outcome.code == 2 and [e["code"] for e in outcome.summary["errors"]] == ["start_differs"]
    assert "adapter.r: 4 -> 8" in outcome.summary["errors"][0]["message"]


def test_an_interrupted_run_on_pairs_is_resumed_to_the_same_weights(task):
    from safetensors.torch import load_file

    training = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = paired(task, "whole", "dpo", LORA, training=training)
    task.ok("03_train.py", "--config", whole)
    cut = paired(task, "cut", "dpo", LORA, training=training)
    task.ok("03_train.py", "--config", cut)
    folder = task.folder / "models" / "cut"
    record = record_of(task, "cut")
    (folder / "run.json").write_text(json.dumps(record | {"status": "stopped"}))
    shutil.rmtree(folder / "adapter")
    shutil.rmtree(folder / "checkpoints" / "checkpoint-4")
    task.ok("03_train.py", "--config", cut, "--resume")
    one, other = (
        load_file(task.folder / f"models/{run}/adapter/adapter_model.safetensors") for run in ("whole", "cut")
    )
    assert set(one) == set(other) and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("method", ["dpo", "orpo"])
def test_a_rehearsal_goes_the_whole_way_with_pairs(task, method):
    config = paired(task, f"rehearsed-{method}", method, LORA)
    summary = task.ok("03_train.py", "--config", config, "--rehearse")
    assert summary["counts"]["rows_trained"] == 8 and summary["outputs"]["generated"]
    assert not (task.folder / "models" / f"rehearsed-{method}").exists()


def test_the_tasks_own_metric_can_choose_the_best_checkpoint_of_a_run_on_pairs(task):
    training = {"num_train_epochs": 2, "metric_for_best_model": "macro_f1", "load_best_model_at_end": True}
    config = paired(task, "best", "dpo", LORA, training=training)
    task.ok("03_train.py", "--config", config)
    assert "best_metric" in record_of(task, "best")["final"]


# Refusals


def refused(text: str) -> list[str]:
    with pytest.raises(TaskError) as error:
        schema.check_config(parse_yaml(text, "c.yaml"))
    assert error.value.exit_code == ExitCode.USAGE
    return [problem.message for problem in error.value.problems]


def test_a_field_of_another_method_is_refused_with_its_owner():
    head = "schema_version: 1\nbase_model: {id: x}\n"
    assert refused(head + "method: sft\ntraining: {beta: 0.1}\n") == [
        "'beta' belongs to method dpo and orpo, and this config has sft"
    ]
    assert refused(head + "method: dpo\ntraining: {packing: true}\n") == [
        "'packing' belongs to method sft, and this config has dpo"
    ]


def test_the_default_learning_rate_is_that_of_the_method():
    def rate(method: str, more: str = "") -> float:
        text = f"schema_version: 1\nbase_model: {{id: x}}\nmethod: {method}\n{more}"
        return schema.check_config(parse_yaml(text, "c.yaml")).training.learning_rate

    assert rate("sft") == 2e-4 and rate("dpo") == 5e-6 and rate("orpo") == 8e-5
    assert rate("sft", "adapter: {type: full}\n") == 2e-5
    assert rate("dpo", "training: {learning_rate: 1e-4}\n") == 1e-4


NOT_TOGETHER = {
    "dpo without pairs": ({"method": "dpo"}, "preference_data"),
    "sft with pairs": ({"method": "sft", "preference_data": "data/preferences/pairs.jsonl"}, "preference_data"),
    "labels balanced": ({"method": "orpo", "imbalance": {"sampling": "class_balanced"}}, "imbalance.sampling"),
}


@pytest.mark.parametrize("stage", [["03_train.py"], ["04_evaluate.py", "--baselines-only"]])
@pytest.mark.parametrize("case", NOT_TOGETHER)
def test_what_does_not_go_together_is_refused_by_its_key_before_time_is_spent(task, case, stage):
    sections, field = NOT_TOGETHER[case]
    if sections["method"] == "orpo":
        sections = sections | {"preference_data": write_pairs(task)}
    outcome = task.run(*stage, "--config", task.write_config("refused", **sections))
    assert outcome.code == 2 and field in [error["field"] for error in outcome.summary["errors"]]


def test_the_resolved_config_names_the_reference_of_the_run(task):
    paths = task_paths(task.folder)
    config = yaml.safe_load((paths.run("dpo-lora") / "config.yaml").read_text(encoding="utf-8"))
    assert config["method"] == "dpo" and config["start_from"] is None
    trained = schema.load_config(task.folder / "configs" / "dpo-lora.yaml", ["training.max_steps=2"])
    assert models.load_trained(trained, paths.run("dpo-lora"))
