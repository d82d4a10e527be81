"""03_train.py on a tiny real model: every adapter, the run's record, resume, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from trainable_task import FULL, LORA, Task, environment, make_task

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def task(tiny_model, tmp_path_factory) -> Task:
    """One task with its baseline trained; tests that change it make their own."""
    task = make_task(tmp_path_factory.mktemp("train") / "有 空白的任務", tiny_model)
    task.ok("03_train.py")
    return task


@pytest.mark.parametrize("adapter", ["lora", "dora", "qlora", "qdora", "full"])
def test_every_adapter_trains_is_saved_as_safetensors_and_predicts_after_reloading(adapter, tiny_model, tmp_path):
    task = make_task(tmp_path / "task", tiny_model)
    config = task.write_config(adapter, adapter=FULL if adapter == "full" else {**LORA, "type": adapter})
    summary = task.ok("03_train.py", "--config", config, "--set", "training.max_steps=2")
    saved = task.folder / "models" / adapter / ("model" if adapter == "full" else "adapter")
    assert list(saved.glob("*.safetensors")) and not list(saved.glob("*.bin"))
    assert summary["counts"]["steps"] == 2 and summary["counts"]["trainable_parameters"] > 0
    flags = ("--config", config, "--set", "training.max_steps=2")
    answers = task.ok("predict.py", *flags, "獲利成長", "虧損擴大")["outputs"]["predictions"]
    assert {a["prediction"] for a in answers} <= {"good", "bad"}
    assert all(sum(a["probabilities"].values()) == pytest.approx(1, abs=1e-4) for a in answers)


def test_training_lowers_the_loss_and_logs_it_step_by_step(task):
    lines = [
        yaml.safe_load(line) for line in (task.folder / "models/baseline/train_log.jsonl").read_text().splitlines()
    ]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) >= 4 and losses[-1] < losses[0] - 0.1
    assert all("learning_rate" in line and "grad_norm" in line for line in lines if "loss" in line)
    assert any("eval_loss" in line for line in lines)


def test_the_run_folder_holds_what_the_contract_names(task):
    names = {path.name for path in (task.folder / "models" / "baseline").iterdir()}
    assert names == {
        "adapter", "checkpoints", "config.yaml", "data_stats.json", "loss.png", "run.json", "train_log.jsonl", ".lock"
    }  # fmt: skip
    assert (task.folder / "models/baseline/loss.png").read_bytes().startswith(b"\x89PNG")


def test_run_json_records_inputs_versions_counts_and_memory(task):
    record = task.json("models/baseline/run.json")
    assert record["status"] == "finished" and record["finished_at"] >= record["started_at"]
    assert {"task_definition.yaml", "configs/baseline.yaml", "data/processed/train.jsonl"} <= set(record["inputs"])
    assert {"python", "torch", "trl", "peft", "transformers"} <= set(record["environment"])
    assert record["counts"]["trained_tokens"] < record["counts"]["tokens"]
    assert record["peak_memory_bytes"] > 50_000_000
    assert str(task.folder) not in (task.folder / "models/baseline/run.json").read_text()


def test_a_second_call_is_skipped_and_changes_nothing(task):
    before = (task.folder / "models/baseline/run.json").read_bytes()
    assert task.ok("03_train.py")["status"] == "skipped"
    assert (task.folder / "models/baseline/run.json").read_bytes() == before


def test_another_config_under_the_same_name_is_refused_with_the_difference(task):
    outcome = task.run("03_train.py", "--set", "training.learning_rate=1e-5")
    assert outcome.code == 2
    assert "config.training.learning_rate: 0.005 -> 1e-05" in outcome.summary["errors"][0]["message"]


def test_where_logs_go_is_not_part_of_a_runs_identity(task):
    assert task.ok("03_train.py", "--set", "training.run_name=other")["status"] == "skipped"


def test_force_moves_the_old_run_aside_and_never_deletes_it(task, tmp_path):
    copy = Task(Path(shutil.copytree(task.folder, tmp_path / "copy")))
    old = copy.json("models/baseline/run.json")
    copy.ok("03_train.py", "--force", "--set", "training.max_steps=1")
    assert copy.json("models/baseline/run.json")["counts"]["steps"] == 1
    (aside,) = copy.folder.glob("models/baseline.old-*")
    assert copy.json(f"models/{aside.name}/run.json") == old
    assert list((aside / "adapter").glob("*.safetensors"))


def test_a_limited_run_is_kept_apart(task):
    task.ok("03_train.py", "--limit", "8", "--set", "training.max_steps=1")
    assert task.json("models/baseline.limit8/run.json")["counts"]["rows"] == 8
    assert task.json("models/baseline/run.json")["counts"]["rows"] > 8


def test_a_dry_run_writes_nothing(tiny_model, tmp_path):
    task = make_task(tmp_path / "task", tiny_model)
    assert task.ok("03_train.py", "--dry-run")["counts"]["rows"] > 0
    assert not (task.folder / "models").exists()


def test_a_run_that_another_process_trains_is_refused(task):
    import fcntl

    with (task.folder / "models/baseline/.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        outcome = task.run("03_train.py", "--force")
    assert (outcome.code, outcome.summary["errors"][0]["code"]) == (4, "run_locked")
    assert (task.folder / "models/baseline/adapter").is_dir()


def test_edited_processed_rows_are_refused(tiny_model, tmp_path):
    task = make_task(tmp_path / "task", tiny_model)
    with (task.folder / "data/processed/train.jsonl").open("a") as stream:
        stream.write("{}\n")
    outcome = task.run("03_train.py")
    assert (outcome.code, outcome.summary["errors"][0]["code"]) == (4, "processed_changed")


def test_a_model_that_cannot_be_had_is_exit_4_with_advice_and_no_traceback(tiny_model, tmp_path):
    task = make_task(tmp_path / "task", tiny_model)
    outcome = task.run("03_train.py", "--set", "base_model.id=nobody/no-such-model")
    assert (outcome.code, outcome.summary["errors"][0]["code"]) == (4, "model_unavailable")
    assert "Traceback" not in outcome.stderr


def test_a_stopped_run_says_so_and_resumes_to_the_same_adapter_as_an_uninterrupted_one(tiny_model, tmp_path):
    flags = ("--set", "training.num_train_epochs=6", "--set", "training.save_strategy=steps",
             "--set", "training.save_steps=3")  # fmt: skip
    straight = make_task(tmp_path / "straight", tiny_model)
    straight.ok("03_train.py", *flags)
    broken = make_task(tmp_path / "broken", tiny_model)
    process = subprocess.Popen(
        [sys.executable, str(broken.folder / "scripts/03_train.py"), *flags],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    checkpoints = broken.folder / "models/baseline/checkpoints"
    deadline = time.monotonic() + 300
    while not list(checkpoints.glob("*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=120) == 130
    assert broken.json("models/baseline/run.json")["status"] == "stopped"
    refused = broken.run("03_train.py", *flags)
    assert (refused.code, refused.summary["errors"][0]["code"]) == (2, "unfinished_run")
    broken.ok("03_train.py", "--resume", *flags)
    one, other = (t.folder / "models/baseline/adapter/adapter_model.safetensors" for t in (straight, broken))
    assert one.read_bytes() == other.read_bytes()
    log = (broken.folder / "models/baseline/train_log.jsonl").read_text()
    steps = [json.loads(line)["step"] for line in log.splitlines() if '"loss"' in line]
    assert steps == sorted(set(steps))


def test_the_compact_loss_on_cpu_equals_the_loss_over_every_position(tiny_model):
    import torch
    from transformers import AutoModelForCausalLM
    from trl.trainer import utils

    ids = torch.randint(5, 4000, (3, 20), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :15] = -100
    losses = {}
    original = utils._use_triton
    try:
        for compact in (False, True):
            utils._use_triton = (lambda device: True) if compact else original
            model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
            utils.add_fused_lm_head(model)
            loss = model(input_ids=ids, labels=labels, fused_lm_head=True).loss
            loss.backward()
            gradient = model.model.layers[0].self_attn.q_proj.weight.grad
            losses[compact] = (loss.item(), gradient.norm().item())
    finally:
        utils._use_triton = original
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)
