"""A real training on a real OpenSSH server, through everything that may happen to it, to the same end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ssh_server
from tasklib import schema
from tasklib.files import read_json, read_jsonl
from test_remote import on_server, refused, spec_of, tree
from trainable_task import FULL, Task, environment, make_task

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ssh_server.SSHD is None, reason="sshd is not installed (Debian: openssh-server)"),
]
TRAINING = {"num_train_epochs": 27, "learning_rate": 1e-3, "seed": 5}
PASSED_ON = [word for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES") for word in ("--env", name)]


class Remote:
    """The task, its server, and what is seen of the job."""

    def __init__(self, task: Task, server: ssh_server.Server, workdir: Path):
        self.task, self.server, self.root = task, server, workdir / "tiny"

    def __call__(self, action: str, *flags: str):
        return self.task.run("remote.py", action, *flags)

    def begin(self, *flags: str) -> subprocess.Popen:
        command = [sys.executable, self.task.folder / "scripts" / "remote.py", *flags]
        return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def wait(self, test, timeout_s: float = 240) -> dict:
        """Until `test` holds of the outputs and metrics of `status`."""
        deadline = time.monotonic() + timeout_s
        while True:
            summary = self("status").summary
            found = summary["outputs"] | summary["metrics"]
            if test(found):
                return found
            assert time.monotonic() < deadline and found["state"] in ("running", "starting"), (summary, self.log())
            time.sleep(0.2)

    def step(self, n: int) -> dict:
        return self.wait(lambda found: found["stage"] == "train" and found.get("step", 0) >= n)

    def state(self) -> dict:
        return read_json(self.root / ".remote" / "jobs" / "baseline" / "state.json")

    def log(self) -> str:
        return (self.root / ".remote" / "jobs" / "baseline" / "log.txt").read_text(errors="replace")[-3000:]


@pytest.fixture(scope="module")
def lived(tiny_model, tmp_path_factory):
    """The story, told once: what was seen at each point, and the same run without any of it."""
    folder = tmp_path_factory.mktemp("life")
    source = make_task(folder / "source", tiny_model, n_rows=240, adapter=FULL, training=TRAINING)
    with ssh_server.running(folder / "server") as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{server.bin}{os.pathsep}{os.environ['PATH']}")
        for name, value in environment().items():
            patch.setenv(name, value)
        spec = spec_of(server, folder / "work", price_per_hour=36.0)
        task = on_server(source.folder, folder / "task", spec)
        yield _story(Remote(task, server, folder / "work")), source, task, folder / "work" / "tiny"


def _story(remote: Remote) -> dict:
    seen = {}
    first = remote.begin("run", "--follow", "--max-hours", "24", *PASSED_ON)
    while not (remote.root / ".remote" / "jobs" / "baseline" / "state.json").exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    first.kill()  # the controller
    first.wait()
    seen["second"] = remote("run", *PASSED_ON)
    seen["early"] = remote.step(20)
    config = remote.task.folder / "configs" / "baseline.yaml"
    before = config.read_text()
    config.write_text(before + "# another\n")
    seen["changed"] = remote("push")
    config.write_text(before)
    following = remote.begin("logs", "--follow")
    time.sleep(1)
    remote.server.cut()
    os.kill(remote.state()["process"][0], signal.SIGKILL)  # the trainer
    following.communicate(timeout=60)
    seen["killed"] = remote("status")
    remote("run", *PASSED_ON)
    seen["resumed"] = remote.step(100)
    os.kill(remote.state()["supervisor"][0], signal.SIGKILL)
    time.sleep(0.5)
    seen["unsupervised"] = remote("status").summary["outputs"]
    seen["stopped"] = remote("stop")
    remote("run", *PASSED_ON)
    remote.step(210)
    os.killpg(os.getpgid(remote.state()["supervisor"][0]), signal.SIGKILL)  # the power
    seen["power"] = remote("status")
    remote("run", *PASSED_ON)
    remote.step(320)
    seen["asked"] = remote("stop")
    seen["run_json"] = read_json(remote.root / "models" / "baseline" / "run.json")["status"]
    remote("run", *PASSED_ON)
    seen["end"] = remote.wait(lambda found: found["state"] == "finished")
    seen["again"] = remote("run", *PASSED_ON)
    seen["pulled"] = remote("pull", "--delete-remote")
    seen["afterwards"] = remote("status")
    return seen


def test_the_same_command_starts_nothing_twice(lived):
    seen = lived[0]
    assert seen["second"].code == 0 and seen["second"].summary["status"] == "skipped"
    assert [warning["code"] for warning in seen["second"].summary["warnings"]] == ["already_running"]
    assert seen["again"].summary["status"] == "skipped" and seen["again"].summary["outputs"]["state"] == "finished"


def test_other_files_are_not_put_under_a_run_that_works(lived):
    refused(lived[0]["changed"], "job_alive")


def test_status_tells_phase_step_loss_time_and_cost(lived):
    found = lived[0]["early"]
    assert found["state"] == "running" and found["stage"] == "train" and found["done"] == ["rehearse", "baselines"]
    assert 20 <= found["step"] < found["max_steps"] and found["loss"] > 0
    assert found["train_remaining_s"] > 0 and found["cost_to_end_of_training"] >= found["cost_so_far"] > 0
    assert found["disk_free_bytes"] > 0 and found["last_line"]


def test_a_killed_trainer_is_told_with_what_to_do(lived):
    killed = refused(lived[0]["killed"], "stage_failed")
    assert "-9" in killed["message"] and "train" in killed["message"]


def test_a_trainer_without_its_supervisor_is_still_running_and_stops_with_a_checkpoint(lived):
    assert (lived[0]["unsupervised"]["state"], lived[0]["unsupervised"]["supervised"]) == ("running", False)
    assert lived[0]["stopped"].code == 0


def test_a_power_cut_is_told_as_interrupted(lived):
    refused(lived[0]["power"], "interrupted")


def test_stop_leaves_a_run_that_says_stopped(lived):
    assert lived[0]["asked"].summary["outputs"]["state"] == "stopped" and lived[0]["run_json"] == "stopped"


def test_after_all_that_the_run_is_the_same_as_one_that_nothing_happened_to(lived):
    _, source, task, _ = lived
    source.ok("03_train.py", **environment())
    assert tree(task.folder / "models" / "baseline" / "model") == tree(source.folder / "models" / "baseline" / "model")
    ours, theirs = (read_jsonl(t.folder / "models" / "baseline" / "train_log.jsonl") for t in (task, source))
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    assert [line.get("loss") for line in ours] == [line.get("loss") for line in theirs]
    assert (task.folder / "benchmarks" / "baseline" / "validation" / "metrics.json").is_file()


def test_what_was_pulled_may_be_deleted_there(lived):
    seen, _, _, root = lived
    assert seen["pulled"].code == 0 and seen["pulled"].summary["outputs"]["server_copy"] == "deleted"
    assert not (root / "models" / "baseline" / "run.json").exists()
    assert seen["afterwards"].code == 0 and seen["afterwards"].summary["outputs"]["state"] == "not_started"


# --- a server with two GPUs, and one without uv ---

NVIDIA_SMI = """#!/bin/sh
for n in 0 1; do echo "$n, GPU-$n, NVIDIA L4, 580.65.06, 23034, 300, 0, 8.9"; done
"""


@pytest.fixture(scope="module")
def two_gpus(tiny_model, tmp_path_factory):
    """A task whose server has an nvidia-smi that tells of two GPUs; the processes themselves train on CPU by gloo."""
    folder = tmp_path_factory.mktemp("gpus")
    (folder / "bin").mkdir()
    (folder / "bin" / "nvidia-smi").write_text(NVIDIA_SMI)
    (folder / "bin" / "nvidia-smi").chmod(0o755)
    training = {"num_train_epochs": 2, "learning_rate": 1e-3, "per_device_train_batch_size": 4, "seed": 5}
    source = make_task(folder / "source", tiny_model, n_rows=80, adapter=FULL, training=training)
    there = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin"}
    with ssh_server.running(folder / "server", **there) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{server.bin}{os.pathsep}{os.environ['PATH']}")
        for name, value in environment().items():
            patch.setenv(name, value)
        yield on_server(source.folder, folder / "task", spec_of(server, folder / "work"))


# What a machine may need to reach its package index; a login by ssh has none of it.
NETWORK = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_SYSTEM_CERTS",
)


def codes(outcome) -> list[str]:
    return [warning["code"] for warning in outcome.summary["warnings"]]


def test_gpus_that_would_lie_idle_are_told_and_a_run_that_is_shared_out_trains_in_as_many_processes(two_gpus):
    assert "one_gpu_used" in codes(two_gpus.run("remote.py", "doctor"))
    launched = two_gpus.ok("launch.py")
    assert launched["counts"]["n_processes"] == 2 and launched["counts"]["gpu_memory_bytes"] == 23034 << 20
    assert launched["next"].endswith("scripts/remote.py run --config configs/baseline.yaml")
    doctor = two_gpus.run("remote.py", "doctor")
    assert doctor.code == 0 and "one_gpu_used" not in codes(doctor)
    done = two_gpus.spawn("remote.py", "run", "--until", "train", "--follow", *PASSED_ON)
    assert done.code == 0, (done.summary, done.stderr[-3000:])
    two_gpus.ok("remote.py", "pull")
    record = two_gpus.json("models/baseline/run.json")
    assert record["decided"]["n_processes"] == 2 and record["hardware"]["distributed_type"] == "MULTI_CPU"
    assert record["status"] == "finished" and record["decided"]["global_batch_size"] == 8


def test_a_run_that_wants_more_gpus_than_there_are_is_refused_before_anything_is_sent(two_gpus, tmp_path):
    task = Task(shutil.copytree(two_gpus.folder, tmp_path / "task"))
    task.edit_definition(name="other")
    task.ok("launch.py", "--gpus", "4", "--gpu-memory", "24")
    refused(task.run("remote.py", "run"), "too_few_gpus")
    task.ok("launch.py", "--gpus", "2", "--gpu-memory", "24", "--nodes", "2")
    refused(task.run("remote.py", "run"), "several_nodes")


def test_a_server_without_uv_gets_it_and_makes_its_environment_by_itself(two_gpus, tmp_path):
    """The real uv with a project of one small package: then the first stage of ours fails, for it has no torch."""
    with ssh_server.running(tmp_path / "server", HOME=str(tmp_path), PATH="/usr/bin:/bin") as server:
        spec = spec_of(server, tmp_path / "work").model_copy(update={"python": None})
        task = on_server(two_gpus.folder, tmp_path / "task", spec)
        shutil.rmtree(task.folder / "launch", ignore_errors=True)
        project = '[project]\nname = "tiny"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["pyyaml"]\n'
        (task.folder / "pyproject.toml").write_text(project)
        checks = task.folder / "scripts" / "tasklib" / "remote" / "checks.py"  # its own copy: no torch comes here
        before = checks.read_text(encoding="utf-8")
        checks.write_text(before.replace("ENVIRONMENT_BYTES = 9_000_000_000", "ENVIRONMENT_BYTES = 50_000_000"))
        assert checks.read_text(encoding="utf-8") != before
        path = f"{server.bin}{os.pathsep}{os.environ['PATH'].partition(os.pathsep)[2]}"
        flags = [word for name in NETWORK if name in os.environ for word in ("--env", name)]
        outcome = task.spawn("remote.py", "run", "--until", "train", "--follow", *flags, PATH=path)
    there = tmp_path / "work" / "tiny"
    assert (tmp_path / "work" / ".uv" / "uv").is_file() and (there / ".venv" / "bin" / "python").exists()
    assert "rehearse" in refused(outcome, "stage_failed")["message"]
    assert list((there / ".venv").rglob("yaml/__init__.py"))


def test_the_pipeline_prepares_the_data_here_trains_there_and_has_the_results_here(two_gpus, tmp_path):
    task = Task(shutil.copytree(two_gpus.folder, tmp_path / "task", ignore=shutil.ignore_patterns("models", "launch")))
    task.edit_definition(name="whole", evaluation={"must_beat": []})
    shutil.rmtree(task.folder / "data" / "processed")
    command = ["bash", str(task.folder / "scripts" / "run_pipeline.sh"), "--remote", "--until", "evaluate"]
    for _ in range(2):  # the second time everything is there already
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment(PYTHON=sys.executable), timeout=400
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert task.json("models/baseline/run.json")["status"] == "finished"
    assert (task.folder / "benchmarks/baseline/validation/metrics.json").is_file()
    definition = schema.load_definition(task.folder / "task_definition.yaml")
    there = Path(definition.compute.remote.workdir) / "whole"
    assert read_json(there / "models" / "baseline" / "run.json")["status"] == "finished"
    assert not (there / "data" / "raw").exists()  # only what the run needs was sent
