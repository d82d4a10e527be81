"""One run on several GPUs: the way is chosen by memory, and what is written is read by the tools themselves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import slurm_cluster
from tasklib import schema
from tasklib.launching import accelerate_config, plan, sky
from tasklib.model import memory, models
from tasklib.summary import TaskError
from trainable_task import FULL, LORA, Task, environment, make_task

LENGTHS = ([40, 60, 80, 120] * 8, [3] * 32)
SKYPILOT = "skypilot==0.14.0"


def config_of(model: Path, *, adapter: dict | None = None, **training) -> schema.RunConfig:
    sections = {"base_model": {"id": str(model)}, "adapter": adapter or FULL}
    return schema.RunConfig(schema_version=1, **sections, training={"per_device_train_batch_size": 4, **training})


def needed(config: schema.RunConfig, n: int, *, sharded: bool, checkpointing: bool = False) -> int:
    """GPU memory at which that way just fits."""
    from tasklib.training.preparation import with_training

    changed = with_training(config, activation_checkpointing=checkpointing)
    with models.planned_for("cuda"):
        estimate = memory.estimate_training(changed, *LENGTHS, memory.Spread(n, sharded))
    return int(estimate.total_bytes / (1 - plan.RESERVE)) + 16


def made(config: schema.RunConfig, n: int, memory_bytes: int) -> plan.Plan:
    with models.planned_for("cuda"):
        return plan.made(config, plan.Machines(1, n, memory_bytes), *LENGTHS)


# --- the way ---


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory) -> Path:
    """Many layers and few words, as large models are: weights in layers, not in the embedding."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=512, max_position_embeddings=256, tie_word_embeddings=False, **shape)
    folder = tmp_path_factory.mktemp("wide-model")
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_every_gpu_holds_the_model_where_it_fits(wide_model):
    config = config_of(wide_model)
    found = made(config, 2, needed(config, 2, sharded=False))
    assert (found.distributed_type, found.activation_checkpointing, found.global_batch_size) == ("MULTI_GPU", False, 8)


def test_one_gpu_is_no_distribution(wide_model):
    config = config_of(wide_model, gradient_accumulation_steps=3)
    found = made(config, 1, needed(config, 1, sharded=False))
    assert (found.distributed_type, found.global_batch_size) == ("NO", 12)


def test_what_does_not_fit_whole_is_tried_with_activation_checkpointing_and_then_in_shares(wide_model):
    config = config_of(wide_model)
    checkpointed = made(config, 2, needed(config, 2, sharded=False, checkpointing=True))
    assert (checkpointed.distributed_type, checkpointed.activation_checkpointing) == ("MULTI_GPU", True)
    sharded = made(config, 4, needed(config, 4, sharded=True))
    assert (sharded.distributed_type, sharded.activation_checkpointing) == ("FSDP", False)
    assert [line.split(":")[0] for line in sharded.tried] == [
        "MULTI_GPU", "MULTI_GPU with activation checkpointing", "FSDP"
    ]  # fmt: skip


def test_a_choice_of_the_config_is_kept(wide_model):
    config = config_of(wide_model, activation_checkpointing=True)
    found = made(config, 2, needed(config, 2, sharded=False))
    assert found.activation_checkpointing and len(found.tried) == 1


def test_what_fits_in_no_way_names_all_that_was_tried_and_what_would_fit(wide_model):
    config = config_of(wide_model)
    with pytest.raises(TaskError) as raised:
        made(config, 2, needed(config, 2, sharded=True, checkpointing=True) // 2)
    [problem] = raised.value.problems
    assert problem.code == "does_not_fit" and problem.message.count("GB on each GPU") == 4 and problem.hint


def test_4_bit_weights_are_never_sharded(wide_model):
    config = config_of(wide_model, adapter={**LORA, "type": "qlora"})
    with pytest.raises(TaskError) as raised:
        made(config, 4, needed(config, 4, sharded=False, checkpointing=True) // 2)
    [problem] = raised.value.problems
    assert (problem.code, problem.field) == ("cannot_be_sharded", "adapter.type") and "4-bit" in problem.message


def test_shares_are_shares_and_what_is_gathered_is_named(wide_model):
    config = config_of(wide_model)
    with models.planned_for("cuda"):
        alone, four = (memory.estimate_training(config, *LENGTHS, memory.Spread(n, True)) for n in (1, 4))
        ddp = memory.estimate_training(config, *LENGTHS, memory.Spread(4))
    for name in ("weights_bytes", "gradients_bytes", "optimizer_bytes"):
        assert getattr(four, name) == pytest.approx(getattr(alone, name) / 4, abs=4)
    assert four.activations_bytes == alone.activations_bytes
    layer = 4 * (4 * 256 * 256 + 3 * 256 * 1024 + 2 * 256)
    assert four.communication_bytes == 2 * layer + 4 * 2 * 512 * 256
    assert ddp.communication_bytes == alone.gradients_bytes and ddp.weights_bytes == alone.weights_bytes


def test_estimates_for_another_machine_leave_this_one_as_it_was(wide_model):
    before = models.device()
    with models.planned_for("cuda"):
        assert models.device() == "cuda"
    assert models.device() == before


# --- the script ---


@pytest.fixture(scope="module")
def converted(tiny_model, tmp_path_factory) -> Task:
    return make_task(tmp_path_factory.mktemp("launch") / "task", tiny_model, n_rows=60)


@pytest.fixture
def task(converted, tmp_path) -> Task:
    return Task(shutil.copytree(converted.folder, tmp_path / "task"))


GPUS = ("--gpus", "2", "--gpu-memory", "24")


def test_launch_writes_what_starts_the_run_and_says_how_it_was_chosen(task):
    done = task.run("launch.py", *GPUS, "--accelerator", "L4", "--bucket", "s3://mine/runs").summary
    assert done["outputs"]["distributed_type"] == "MULTI_GPU" and len(done["outputs"]["tried"]) == 1
    assert done["counts"]["global_batch_size"] == 16 and done["counts"]["n_processes"] == 2
    assert {path.name for path in (task.folder / "launch/baseline").iterdir()} == {
        "accelerate.yaml", "train.sbatch", "sky.yaml"
    }  # fmt: skip
    assert "accelerate launch --config_file launch/baseline/accelerate.yaml" in done["next"]
    assert [warning["code"] for warning in done["warnings"]] == ["global_batch_size"]
    assert task.run("launch.py", *GPUS, "--accelerator", "L4", "--bucket", "s3://mine/runs").summary["status"] == (
        "skipped"
    )


def test_a_dry_run_writes_nothing(task):
    assert task.run("launch.py", *GPUS, "--dry-run").code == 0
    assert not (task.folder / "launch").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--gpus", "2"],
        ["--gpus", "0", "--gpu-memory", "24"],
        [*GPUS, "--sbatch", "partition"],
        [*GPUS, "--sbatch", "wrap=x; rm -rf /"],
        [*GPUS, "--bucket", "s3://x\nrun: bad"],
        [*GPUS, "--bucket", "mine"],
        [*GPUS, "--accelerator", "H100'"],
        [*GPUS, "--hours", "-1"],
    ],
)
def test_flags_that_cannot_be_meant_are_refused(task, flags):
    assert task.run("launch.py", *flags).code == 2
    assert not (task.folder / "launch").exists()


def test_a_config_whose_name_means_something_to_a_shell_is_refused(task):
    shutil.copy(task.folder / "configs/baseline.yaml", task.folder / "configs/a;b.yaml")
    refused = task.run("launch.py", *GPUS, "--config", "configs/a;b.yaml")
    assert refused.code == 2 and refused.summary["errors"][0]["code"] == "config_name"


def test_without_a_gpu_the_flags_that_name_some_are_told(task):
    refused = task.run("launch.py", CUDA_VISIBLE_DEVICES="")
    assert refused.code == 4 and refused.summary["errors"][0]["code"] == "no_gpu"
    assert "--gpus" in refused.summary["errors"][0]["hint"]


# --- what the tools say ---


def plan_of(kind: str, n_nodes: int = 1, n_gpus: int = 2) -> plan.Plan:
    parts = memory.Estimate(1, 1, 1, 1, 1, 1, 1)
    return plan.Plan(plan.Machines(n_nodes, n_gpus, 80 * 10**9, "NVIDIA H100 80GB HBM3"), kind, False, parts, 8, ())


@pytest.mark.parametrize(("kind", "n_nodes", "n_gpus"), [("NO", 1, 1), ("MULTI_GPU", 1, 2), ("FSDP", 2, 4)])
def test_accelerate_reads_its_config_as_it_is_meant(tmp_path, kind, n_nodes, n_gpus):
    from accelerate.commands.config.config_args import load_config_from_file

    (tmp_path / "accelerate.yaml").write_text(accelerate_config.text(plan_of(kind, n_nodes, n_gpus)))
    read = load_config_from_file(str(tmp_path / "accelerate.yaml"))  # raises on a key that it does not know
    assert read.distributed_type.value == kind and read.num_processes == n_nodes * n_gpus
    assert read.num_machines == n_nodes and read.mixed_precision == "no"


@pytest.mark.parametrize(("kind", "n_nodes"), [("NO", 1), ("MULTI_GPU", 1), ("FSDP", 2)])
def test_skypilot_reads_its_task_as_it_is_meant(tmp_path, kind, n_nodes):
    names = {"task": "demo", "run": "baseline", "folder": "launch/baseline", "config": "configs/baseline.yaml"}
    bucket = "s3://mine/runs" if kind != "NO" else None
    (tmp_path / "sky.yaml").write_text(
        sky.text(plan_of(kind, n_nodes), **names, extras=["builtin"], gpu="H100", bucket=bucket)
    )
    script = """import json, sys, sky
task = sky.Task.from_yaml(sys.argv[1])
[resources] = task.resources
mounts = {path: [s.source, s.mode.value] for path, s in task.storage_mounts.items()}
print("read: " + json.dumps([task.num_nodes, resources.accelerators, resources.use_spot, mounts, task.run]))"""
    uv = ["uv", "run", "--quiet", "--no-project", "--python", "3.11", "--with", SKYPILOT, "python", "-c", script]
    done = subprocess.run([*uv, str(tmp_path / "sky.yaml")], capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    read = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("read: "))[6:])
    assert read[:3] == [n_nodes, {"H100": 2}, bucket is not None]
    assert read[3] == ({sky.KEPT: [bucket, "MOUNT_CACHED"]} if bucket else {})
    assert "--resume" in read[4]


def test_the_shell_parts_are_shell(tmp_path, task):
    task.ok("launch.py", *GPUS, "--accelerator", "L4", "--bucket", "s3://mine/runs", "--sbatch", "partition=gpu")
    folder = task.folder / "launch/baseline"
    parts = yaml.safe_load((folder / "sky.yaml").read_text())
    for text in ((folder / "train.sbatch").read_text(), parts["setup"], parts["run"]):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert "#SBATCH --partition=gpu\n" in (folder / "train.sbatch").read_text()


def test_results_that_were_there_before_go_into_the_bucket_and_are_seen_again(tmp_path):
    """The part of sky.yaml's setup that links models/ and benchmarks/ to the bucket, run twice as on two machines."""
    (tmp_path / "task/models/baseline").mkdir(parents=True)
    (tmp_path / "task/models/baseline/run.json").write_text("{}")
    script = sky._KEEP.format(mount=tmp_path / "bucket")
    for _ in range(2):
        subprocess.run(["bash", "-euc", script], cwd=tmp_path / "task", check=True)
    assert (tmp_path / "bucket/models/baseline/run.json").read_text() == "{}"
    assert (tmp_path / "task/models").is_symlink() and (tmp_path / "task/models/baseline/run.json").exists()


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA Something", None),
        (None, None),
    ],
)
def test_names_of_gpus_are_those_of_skypilot_or_none(name, known):
    assert sky.accelerator(name) == known


# --- a real Slurm ---


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if not slurm_cluster.CAN_RUN:
        pytest.skip(f"Slurm: {slurm_cluster.WHY_NOT}")
    with slurm_cluster.running(tmp_path_factory.mktemp("slurm")) as variables:
        yield variables


def slurm(cluster: dict[str, str], task: Task, *command: str) -> str:
    variables = environment(**cluster, PYTHON=sys.executable)
    done = subprocess.run(command, cwd=task.folder, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_slurm_accepts_the_script(cluster, task):
    task.ok("launch.py", *GPUS, "--hours", "1.5", "--sbatch", "partition=gpu")
    assert "to start at" in slurm(cluster, task, "sbatch", "--test-only", "launch/baseline/train.sbatch")


@pytest.mark.slow
def test_a_job_that_is_told_to_end_stops_with_a_checkpoint_and_goes_on_by_itself(cluster, tiny_model, tmp_path):
    training = {"num_train_epochs": 14, "learning_rate": 2e-3, "seed": 3, "per_device_train_batch_size": 4}
    task = make_task(tmp_path / "task", tiny_model, n_rows=80, adapter=FULL, training=training)
    task.ok("launch.py", *GPUS)
    number = re.search(r"\d+", slurm(cluster, task, "sbatch", "launch/baseline/train.sbatch"))[0]
    log = task.folder / "models/baseline/train_log.jsonl"
    wait_until(lambda: log.is_file() and len(log.read_text().splitlines()) > 20, task)
    slurm(cluster, task, "scancel", "--signal=TERM", number)  # what --signal does before the time is up
    wait_until(lambda: task.json("models/baseline/run.json")["status"] == "finished", task)
    record = task.json("models/baseline/run.json")
    assert record["decided"]["n_processes"] == 2 and record["hardware"]["distributed_type"] == "MULTI_CPU"
    said = (task.folder / f"launch/baseline/slurm-{number}.log").read_text()
    assert said.count("== stopped with a checkpoint: back into the queue") == 1
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == list(range(1, record["counts"]["steps"] + 1))
    metrics = task.folder / "benchmarks/baseline/validation/metrics.json"
    wait_until(metrics.is_file, task)


def wait_until(test, task: Task) -> None:
    deadline = time.monotonic() + 240
    while not test():
        said = [path.read_text(errors="replace")[-3000:] for path in (task.folder / "launch/baseline").glob("*.log")]
        assert time.monotonic() < deadline, said
        time.sleep(0.5)
