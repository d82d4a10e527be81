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
        "adapter", "checkpoints", "config.yaml", "data_stats.json", "curves.png", "run.json", "train_log.jsonl", ".lock"
    }  # fmt: skip
    assert (task.folder / "models/baseline/curves.png").read_bytes().startswith(b"\x89PNG")


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


EVERY_3_STEPS = ("--set", "training.num_train_epochs=6", "--set", "training.save_strategy=steps",
                 "--set", "training.save_steps=3", "--set", "training.save_total_limit=2",
                 "--set", "adapter.lora_dropout=0.1")  # fmt: skip


@pytest.fixture(scope="module")
def straight(tiny_model, tmp_path_factory) -> Task:
    """A run of 30 steps that nobody interrupted; dropout makes it depend on the state of the random numbers."""
    task = make_task(tmp_path_factory.mktemp("straight") / "task", tiny_model)
    task.ok("03_train.py", *EVERY_3_STEPS)
    return task


def adapter_bytes(task: Task) -> bytes:
    return (task.folder / "models/baseline/adapter/adapter_model.safetensors").read_bytes()


def start(task: Task, *flags: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(task.folder / "scripts/03_train.py"), *flags],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for_step(task: Task, step: int, process: subprocess.Popen) -> None:
    log, deadline = task.folder / "models/baseline/train_log.jsonl", time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if log.is_file() and f'"step": {step}' in log.read_text():
            return
        time.sleep(0.005)


def copied_without_run(task: Task, folder: Path) -> Task:
    return Task(Path(shutil.copytree(task.folder, folder, ignore=shutil.ignore_patterns("models"))))


def test_a_run_asked_to_stop_saves_its_step_and_resumes_to_the_same_adapter(straight, tmp_path):
    broken = copied_without_run(straight, tmp_path / "broken")
    process = start(broken, *EVERY_3_STEPS)
    wait_for_step(broken, 4, process)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=120) == 130
    assert broken.json("models/baseline/run.json")["status"] == "stopped"
    steps = [int(p.name.split("-")[1]) for p in (broken.folder / "models/baseline/checkpoints").glob("checkpoint-*")]
    log = (broken.folder / "models/baseline/train_log.jsonl").read_text()
    assert max(steps) == max(json.loads(line)["step"] for line in log.splitlines())
    refused = broken.run("03_train.py", *EVERY_3_STEPS)
    assert (refused.code, refused.summary["errors"][0]["code"]) == (2, "unfinished_run")
    broken.ok("03_train.py", "--resume", *EVERY_3_STEPS)
    assert adapter_bytes(broken) == adapter_bytes(straight)
    log = (broken.folder / "models/baseline/train_log.jsonl").read_text()
    steps = [json.loads(line)["step"] for line in log.splitlines() if '"loss"' in line]
    assert steps == sorted(set(steps))


def test_a_run_killed_again_and_again_ends_in_the_same_adapter(straight, tmp_path):
    """SIGKILL at three moments, among them the writing of a checkpoint; what was whole is never lost."""
    broken = copied_without_run(straight, tmp_path / "broken")
    for step in (2, 6, 13):
        process = start(broken, "--resume", *EVERY_3_STEPS)
        wait_for_step(broken, step, process)
        process.kill()
        process.wait(timeout=120)
        assert broken.json("models/baseline/run.json")["status"] == "running"
    broken.ok("03_train.py", "--resume", *EVERY_3_STEPS)
    assert adapter_bytes(broken) == adapter_bytes(straight)
    assert broken.json("models/baseline/run.json")["status"] == "finished"


def test_a_disk_that_fills_up_is_exit_4_and_the_run_resumes_to_the_same_adapter(straight, tmp_path):
    """The limit on file sizes stands for the full disk: the third checkpoint's optimizer cannot be written."""
    import resource

    broken = copied_without_run(straight, tmp_path / "broken")
    whole = straight.folder / "models/baseline/checkpoints"
    limit = max(path.stat().st_size for path in whole.rglob("optimizer.pt")) // 2
    command = [sys.executable, str(broken.folder / "scripts/03_train.py"), "--json", *EVERY_3_STEPS]
    process = subprocess.run(
        command, env=environment(), capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert process.returncode == 4, process.stderr[-2000:]
    assert json.loads(process.stdout)["errors"][0]["code"] == "disk_full"
    assert broken.json("models/baseline/run.json")["status"] == "failed"
    broken.ok("03_train.py", "--resume", *EVERY_3_STEPS)
    assert adapter_bytes(broken) == adapter_bytes(straight)


def test_only_as_many_checkpoints_as_wanted_are_kept(straight):
    names = {path.name for path in (straight.folder / "models/baseline/checkpoints").glob("checkpoint-*")}
    assert names == {"checkpoint-27", "checkpoint-30"}


def test_the_best_checkpoint_by_the_tasks_metric_becomes_the_adapter(tiny_model, tmp_path):
    task = make_task(tmp_path / "task", tiny_model)
    training = {"num_train_epochs": 3, "learning_rate": 5e-3, "eval_strategy": "steps", "eval_steps": 2,
                "save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True,
                "metric_for_best_model": "macro_f1", "logging_steps": 1}  # fmt: skip
    config = task.write_config("best", training=training)
    metrics = task.ok("03_train.py", "--config", config)["metrics"]
    lines = [json.loads(line) for line in (task.folder / "models/best/train_log.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["eval_macro_f1"] for line in lines if "eval_macro_f1" in line}
    first_best = min(step for step, value in scores.items() if value == max(scores.values()))
    assert (metrics["best_metric"], metrics["best_step"]) == (scores[first_best], first_best)
    checkpoint = task.folder / f"models/best/checkpoints/checkpoint-{first_best}/adapter_model.safetensors"
    assert checkpoint.read_bytes() == (task.folder / "models/best/adapter/adapter_model.safetensors").read_bytes()


def test_training_stops_early_when_the_validation_loss_no_longer_falls(tiny_model, tmp_path):
    task = make_task(tmp_path / "task", tiny_model)
    training = {"num_train_epochs": 20, "learning_rate": 5e-3, "save_strategy": "epoch",
                "load_best_model_at_end": True, "early_stopping_patience": 1,
                "early_stopping_threshold": 5.0}  # fmt: skip
    config = task.write_config("early", training=training)
    steps = task.ok("03_train.py", "--config", config)["counts"]["steps"]
    assert 5 < steps < 20 * 5


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("metric_for_best_model", "f1", "training.metric_for_best_model"),
        ("early_stopping_patience", "2", "training.load_best_model_at_end"),
    ],
)
def test_early_stopping_that_cannot_work_is_refused_before_anything_is_loaded(task, key, value, field):
    outcome = task.run("03_train.py", "--set", f"training.{key}={value}")
    assert (outcome.code, outcome.summary["errors"][0]["field"]) == (2, field)


def test_seeds_train_runs_of_their_own_that_differ(tiny_model, tmp_path):
    task = make_task(tmp_path / "task", tiny_model)
    flags = ("--set", "training.max_steps=2", "--set", "adapter.lora_dropout=0.1")
    summary = task.ok("03_train.py", "--seeds", "3", *flags)
    names = ["baseline", "baseline.s43", "baseline.s44"]
    assert [task.json(f"models/{name}/run.json")["seed"] for name in names] == [42, 43, 44]
    assert len({(task.folder / f"models/{n}/adapter/adapter_model.safetensors").read_bytes() for n in names}) == 3
    assert set(summary["metrics"]) == set(names) and "--seeds 3" in summary["next"]
    assert task.ok("03_train.py", "--seeds", "3", *flags)["status"] == "skipped"


def test_a_rehearsal_goes_the_whole_way_and_leaves_nothing_behind(tiny_model, tmp_path):
    task = make_task(tmp_path / "task", tiny_model)
    summary = task.ok("03_train.py", "--rehearse")
    assert summary["counts"]["rows_evaluated"] == 8
    assert summary["counts"]["steps_of_the_run"] == 5
    assert len(summary["outputs"]["generated"]) == 2
    assert summary["metrics"]["run_at_most_s"] > summary["metrics"]["longest_step_s"] > 0
    assert not (task.folder / "models").exists()


def test_a_rehearsal_finds_a_model_that_is_not_saved_as_it_was_trained(tiny_model, tmp_path):
    task = make_task(tmp_path / "task", tiny_model, adapter=FULL, training={"num_train_epochs": 1, "learning_rate": 1})
    script = task.folder / "scripts/03_train.py"
    saved = "        tokenizer.save_pretrained(target)\n"
    lost = (
        "        import safetensors.torch as files_of\n"
        "        for file in target.glob('*.safetensors'):\n"
        "            zeros = {name: 0 * values for name, values in files_of.load_file(file).items()}\n"
        "            files_of.save_file(zeros, file, {'format': 'pt'})\n"
    )
    assert script.read_text().count(saved) == 1
    script.write_text(script.read_text().replace(saved, lost + saved))
    outcome = task.spawn("03_train.py", "--rehearse")
    assert (outcome.code, outcome.summary["errors"][0]["code"]) == (4, "reload_differs")


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(tiny_model, tmp_path):
    """Only the config of a model of 400 billion weights is there: loading it would fail otherwise."""
    from transformers import LlamaConfig

    folder = Path(shutil.copytree(tiny_model, tmp_path / "huge"))
    (folder / "model.safetensors").unlink()
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    LlamaConfig(vocab_size=vocabulary, hidden_size=16384, intermediate_size=53248, num_hidden_layers=126,
                num_attention_heads=128, num_key_value_heads=8, dtype="bfloat16").save_pretrained(folder)  # fmt: skip
    task = make_task(tmp_path / "task", folder)
    outcome = task.run("03_train.py", "--dry-run")
    assert (outcome.code, outcome.summary["errors"][0]["code"]) == (4, "does_not_fit")
    unchecked = task.ok("03_train.py", "--dry-run", "--no-memory-check")
    assert unchecked["counts"]["estimated_memory_bytes"] > 4e11


def test_run_json_has_the_estimate_beside_the_measured_peak(task):
    record = task.json("models/baseline/run.json")
    assert 0.3 < record["estimated_memory_bytes"] / record["peak_memory_bytes"] < 3


def test_data_stats_show_what_is_masked_and_what_is_trained(task):
    proof = task.json("models/baseline/data_stats.json")["train"]["mask_proof"]
    assert any("利多<|im_end|>" in sample["trained"] for sample in proof["samples"])
    assert all("利多<|im_end|>" not in sample["masked_end"] for sample in proof["samples"])


def test_a_loss_that_is_no_number_stops_the_run_with_advice(tiny_model, tmp_path):
    task = make_task(tmp_path / "task", tiny_model)
    outcome = task.run("03_train.py", "--set", "training.learning_rate=1e30", "--set", "training.max_grad_norm=0",
                       "--set", "training.num_train_epochs=20")  # fmt: skip
    assert (outcome.code, outcome.summary["errors"][0]["code"]) == (2, "loss_is_nan")
    record = task.json("models/baseline/run.json")
    assert record["status"] == "failed"
    assert not (task.folder / "models/baseline/adapter").exists()


def test_activation_checkpointing_changes_no_number(task, tmp_path):
    copy = copied_without_run(task, tmp_path / "copy")
    copy.ok("03_train.py", "--set", "training.activation_checkpointing=true")
    losses = []
    for folder in (task.folder, copy.folder):
        lines = (folder / "models/baseline/train_log.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines if '"loss"' in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_packed_rows_train_to_the_loss_of_padded_ones(tiny_model, tmp_path):
    """One step over all rows at once: packed or padded, the same tokens are trained on."""
    task = make_task(tmp_path / "task", tiny_model)
    training = {"max_steps": 1, "learning_rate": 5e-3, "logging_steps": 1, "eval_strategy": "no"}
    losses = {}
    ways = {
        "padded": {"per_device_train_batch_size": 36},
        "packed": {"per_device_train_batch_size": 18, "packing": True, "max_length": 128},
    }
    for name, more in ways.items():
        config = task.write_config(name, training={**training, **more})
        task.ok("03_train.py", "--config", config)
        line = json.loads((task.folder / f"models/{name}/train_log.jsonl").read_text().splitlines()[0])
        losses[name] = (line["loss"], line["num_tokens"])
    assert losses["packed"] == (pytest.approx(losses["padded"][0], rel=1e-4), losses["padded"][1])


def test_rows_that_see_each_other_when_packed_are_refused():
    """A linear-attention model without its kernels carries its state over the border of two rows."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3NextConfig, Qwen3NextForCausalLM

    from tasklib.summary import TaskError
    from tasklib.training import packing

    sizes = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "head_dim": 16,
             "num_key_value_heads": 2}  # fmt: skip
    torch.manual_seed(0)
    rows = [{"input_ids": torch.randint(5, 90, (n,)).tolist()} for n in (9, 12)]
    packed = packing.pack([{**row, "labels": row["input_ids"]} for row in rows], 32)
    collate = packing.collator(0)
    for attention in ("eager", "sdpa"):
        plain = LlamaConfig(**sizes, num_hidden_layers=2, attn_implementation=attention)
        packing.require_apart(LlamaForCausalLM(plain), collate, packed)
    hybrid = Qwen3NextConfig(
        **sizes, num_hidden_layers=2, layer_types=["linear_attention", "full_attention"], num_experts=4,
        num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16,
        linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=16, linear_value_head_dim=16,
    )  # fmt: skip
    with pytest.raises(TaskError) as caught:
        packing.require_apart(Qwen3NextForCausalLM(hybrid), collate, packed)
    assert caught.value.problems[0].code == "packed_rows_mix"


def test_a_tracker_is_written_to_and_a_missing_one_is_named_before_the_model_is_loaded(tiny_model, tmp_path):
    task = make_task(tmp_path / "task", tiny_model)
    task.ok("03_train.py", "--set", "training.report_to=tensorboard", "--set", "training.max_steps=2")
    assert list((task.folder / "models/baseline").rglob("events.out.tfevents.*"))
    outcome = task.run("03_train.py", "--force", "--set", "training.report_to=wandb")
    assert (outcome.code, outcome.summary["errors"][0]["field"]) == (4, "training.report_to")
    outcome = task.run("03_train.py", "--force", "--set", "training.report_to=tensorbord")
    assert (outcome.code, outcome.summary["errors"][0]["field"]) == (2, "training.report_to")


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
