"""One run on two processes: real `accelerate launch` with gloo on CPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tasklib import schema
from tasklib.files import read_json, read_jsonl
from tasklib.launching import accelerate_config
from tasklib.model import memory
from tasklib.training import checkpoints, task_trainer
from test_launch import plan_of
from trainable_task import FULL, Task, environment, make_task

pytestmark = pytest.mark.slow
TRAINING = {
    "num_train_epochs": 5, "learning_rate": 2e-3, "seed": 3, "per_device_train_batch_size": 4, "eval_strategy": "epoch",
    "metric_for_best_model": "macro_f1", "load_best_model_at_end": True, "logging_steps": 1,
}  # fmt: skip
INTERRUPTED_AT = 8  # of 30 steps


def launch(task: Task, *flags: str, n: int = 2) -> subprocess.Popen:
    """`accelerate launch`. With --cpu it silently starts one process; --multi_gpu without a GPU starts gloo on CPU."""
    launcher = [
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        str(n),
        "--main_process_port",
        "0",
    ]
    command = [sys.executable, *launcher, str(task.folder / "scripts" / "03_train.py"), "--json", *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(), cwd=task.folder, **pipes)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def finished(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-4000:]
    return out


def losses(task: Task, run: str = "baseline") -> list[float]:
    return [line["loss"] for line in read_jsonl(task.folder / f"models/{run}/train_log.jsonl") if "loss" in line]


@dataclass(frozen=True)
class Runs:
    """The same run by one process and, with half the rows at once, by two; with each process holding all weights (DDP)
    or its share of them (FSDP); what those two said; and the task before any run."""

    one: Task
    two: Task
    sharded: Task
    said_by_two: str
    said_by_sharded: str
    fresh: Path


@pytest.fixture(scope="module", params=["lora", "full"])
def runs(request, tiny_model, tmp_path_factory):
    adapter = {"type": "lora", "r": 4, "lora_alpha": 8} if request.param == "lora" else FULL
    folder = tmp_path_factory.mktemp("runs")
    fresh = make_task(folder / "fresh", tiny_model, n_rows=80, adapter=adapter, training=TRAINING).folder
    one, two, sharded = (Task(shutil.copytree(fresh, folder / name)) for name in ("one", "two", "sharded"))
    one.write_config("baseline", training={**TRAINING, "per_device_train_batch_size": 8})
    one.ok("03_train.py")
    said_by_two = finished(launch(two))
    process = launch_sharded(sharded)
    _, said_by_sharded = process.communicate(timeout=400)
    assert process.returncode == 0, said_by_sharded[-4000:]
    return Runs(one, two, sharded, said_by_two, said_by_sharded, fresh)


def test_two_processes_were_two(runs):
    one, two = (task.json("models/baseline/run.json") for task in (runs.one, runs.two))
    assert two["hardware"]["distributed_type"] == "MULTI_CPU" and two["decided"]["n_processes"] == 2
    assert one["hardware"]["distributed_type"] == "NO"
    assert two["decided"]["global_batch_size"] == 8 == one["decided"]["global_batch_size"]


def test_the_same_global_batch_gives_the_same_losses(runs):
    assert losses(runs.two) == pytest.approx(losses(runs.one), rel=2e-4)
    one, two = (task.json("models/baseline/run.json") for task in (runs.one, runs.two))
    assert one["counts"]["steps"] == two["counts"]["steps"] == len(losses(runs.two))


def test_one_process_speaks_and_writes(runs):
    assert runs.said_by_two.count('"stage"') == 1 and runs.said_by_two.strip().startswith("{")
    steps = [line["step"] for line in read_jsonl(runs.two.folder / "models/baseline/train_log.jsonl") if "loss" in line]
    assert steps == sorted(set(steps))


def test_what_two_processes_trained_is_evaluated_like_any_run(runs):
    runs.two.ok("04_evaluate.py")


def test_one_process_uses_one_device_however_many_it_sees(tmp_path):
    """transformers would copy the model to all of them at each step (DataParallel), with a larger batch."""
    from trl import SFTConfig

    arguments = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, per_device_train_batch_size=4)
    arguments._n_gpu = 3
    assert arguments.train_batch_size == 12
    assert task_trainer.on_one_device(arguments).train_batch_size == 4


# --- sharded ---


def launch_sharded(task: Task, *flags: str) -> subprocess.Popen:
    settings = accelerate_config.content(plan_of("FSDP"))["fsdp_config"]
    variables = {name.upper(): str(value).lower() for name, value in settings.items()}  # as accelerate launch does
    variables |= {name: settings[name.lower()] for name in ("FSDP_AUTO_WRAP_POLICY", "FSDP_STATE_DICT_TYPE")}
    helper = str(Path(__file__).with_name("sharded_on_cpu.py"))
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port()), helper]
    command = [sys.executable, *torchrun, str(task.folder / "scripts/03_train.py"), "--json", *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(ACCELERATE_USE_FSDP="true", **variables), **pipes)


def test_every_process_holds_its_share_of_the_weights_and_no_more(runs):
    told = _shares(runs.said_by_sharded)
    assert sorted(one["rank"] for one in told) == [0, 1] and {one["fsdp_version"] for one in told} == {2}
    assert sum(one["held_bytes"] for one in told) == told[0]["all_bytes"]
    assert max(one["held_bytes"] for one in told) == pytest.approx(told[0]["all_bytes"] / 2, rel=0.01)
    record = runs.sharded.json("models/baseline/run.json")
    assert record["hardware"]["distributed_type"] == "FSDP" and record["decided"]["n_processes"] == 2


def _shares(said: str) -> list[dict[str, Any]]:
    return [json.loads(line.partition("sharded: ")[2]) for line in said.splitlines() if "sharded: {" in line]


def test_the_estimate_has_the_share_that_was_held(runs):
    first, _ = _shares(runs.said_by_sharded)
    config = schema.load_config(runs.sharded.folder / "configs/baseline.yaml", (), "baseline")
    estimate = memory.estimate_training(config, [40] * 8, [3] * 8, memory.Spread(2, is_sharded=True))
    assert estimate.weights_bytes + estimate.adapter_bytes == pytest.approx(first["held_bytes"], rel=0.01)


def test_a_sharded_run_has_the_losses_of_one_that_is_not(runs):
    assert losses(runs.sharded) == pytest.approx(losses(runs.two), rel=2e-4)


def test_a_sharded_run_is_saved_whole_and_answers_like_any_run(runs):
    name = "adapter" if (runs.sharded.folder / "models/baseline/adapter").is_dir() else "model"
    [weights] = (runs.sharded.folder / f"models/baseline/{name}").glob("*.safetensors")
    ours, theirs = load_file(weights), load_file(runs.two.folder / weights.relative_to(runs.sharded.folder))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-4) for key in ours)
    runs.sharded.ok("04_evaluate.py")


@pytest.mark.parametrize("runs", ["full"], indirect=True)
def test_a_sharded_run_goes_on_from_a_checkpoint_and_only_from_a_whole_one(runs):
    again = Task(shutil.copytree(runs.sharded.folder, runs.sharded.folder.parent / "again"))
    run = again.folder / "models/baseline"
    shutil.rmtree(run / "model")
    record = again.json("models/baseline/run.json")
    (run / "run.json").write_text(json.dumps({**record, "status": "running", "finished_at": None}))
    *_, before, last = sorted((run / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    with (last / "optimizer.bin").open("r+b") as stream:
        stream.truncate(1000)
    process = launch_sharded(again, "--resume")
    _, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-4000:]
    assert f"removed {last.name}" in err and before.is_dir()
    assert losses(again) == pytest.approx(losses(runs.sharded), rel=1e-5)


# --- interrupted ---


def _wait_for_step(task: Task, step: int) -> None:
    log = task.folder / "models/baseline/train_log.jsonl"
    deadline = time.monotonic() + 120
    while not log.is_file() or max((line["step"] for line in read_jsonl(log)), default=0) < step:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("runs", ["full"], indirect=True)
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_run_of_two_processes_that_was_stopped_or_killed_goes_on_to_the_same_end(runs, how, tmp_path):
    task = Task(shutil.copytree(runs.fresh, tmp_path / how))
    process = launch(task)
    _wait_for_step(task, INTERRUPTED_AT)
    if how == "stop":  # the launcher repeats it to its processes
        process.send_signal(signal.SIGTERM)
    else:
        os.kill(max(_workers(process.pid)), signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode != 0
    record = read_json(task.folder / "models/baseline/run.json")
    assert record["status"] == "stopped" if how == "stop" else record["status"] != "finished"
    if how == "stop":
        _has_a_checkpoint_of_its_last_step(task)
    refused = task.run("03_train.py", "--resume")
    assert refused.code == 2 and [e["code"] for e in refused.summary["errors"]] == ["other_processes"]
    finished(launch(task, "--resume"))
    assert losses(task) == losses(runs.two)
    model = Path("models/baseline/model/model.safetensors")
    assert (task.folder / model).read_bytes() == (runs.two.folder / model).read_bytes()


@pytest.mark.parametrize("runs", ["full"], indirect=True)
def test_a_signal_that_reaches_all_processes_and_is_repeated_by_the_launcher_still_leaves_a_checkpoint(runs, tmp_path):
    task = Task(shutil.copytree(runs.fresh, tmp_path / "all"))
    process = launch(task)
    _wait_for_step(task, INTERRUPTED_AT)
    for pid in [process.pid, *_workers(process.pid)]:
        os.kill(pid, signal.SIGTERM)
    process.communicate(timeout=120)
    _has_a_checkpoint_of_its_last_step(task)


def _has_a_checkpoint_of_its_last_step(task: Task) -> None:
    log = read_jsonl(task.folder / "models/baseline/train_log.jsonl")
    last = checkpoints.last_whole(task.folder / "models/baseline/checkpoints")
    assert last.name == f"checkpoint-{log[-1]['step']}"
    assert log[-1]["step"] < 30, "it had ended before the signal came"


def _workers(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        fields = stat.read_text().rpartition(")")[2].split()
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found
