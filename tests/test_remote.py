"""remote.py against a real OpenSSH server on loopback: what travels, what is checked, what goes wrong."""

from __future__ import annotations

import ast
import contextlib
import hashlib
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

import ssh_server
from tasklib import documents, schema
from tasklib.files import read_jsonl, write_jsonl
from tasklib.remote import checks, definition_edit, job, placing, ssh, transfer
from tasklib.schema import RemoteSpec
from tasklib.summary import TaskError
from trainable_task import Task, environment, make_task

pytestmark = [
    pytest.mark.skipif(ssh_server.SSHD is None, reason="sshd is not installed (Debian: openssh-server)"),
    pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed"),
]
STRANGE = "夾 with 'one' \"two\"\nand a new line"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ssh_server.running(tmp_path_factory.mktemp("ssh") / "server") as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{found.bin}{os.pathsep}{os.environ['PATH']}")
        yield found


@pytest.fixture
def workdir(tmp_path):
    return tmp_path / STRANGE


@pytest.fixture
def spec(server, workdir):
    return spec_of(server, workdir)


def spec_of(server, workdir, **more) -> RemoteSpec:
    host = {"host": f"{os.environ.get('USER', 'root')}@127.0.0.1", "port": server.port, "ssh_key": str(server.key)}
    return RemoteSpec(**host, workdir=str(workdir), python=sys.executable, **more)


@pytest.fixture(scope="module")
def converted(tiny_model, tmp_path_factory):
    """A converted task; tests work on copies of it."""
    return make_task(tmp_path_factory.mktemp("remote") / "task", tiny_model).folder


@pytest.fixture
def task(converted, spec, tmp_path) -> Task:
    return on_server(converted, tmp_path / "task's 資料夾", spec)


def on_server(source: Path, folder: Path, spec: RemoteSpec) -> Task:
    shutil.copytree(source, folder)
    (folder / "pyproject.toml").write_text('[project]\nname = "tiny"\nversion = "0"\n')
    task = Task(folder)
    task.edit_definition(compute={"target": "remote", "remote": spec.model_dump(exclude_none=True)})
    return task


def refused(outcome, code: str):
    assert outcome.code == 4, outcome.summary
    found = [error for error in outcome.summary["errors"] if error["code"] == code]
    assert found and all(error["hint"] for error in found), outcome.summary["errors"]
    return found[0]


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".remote" not in path.parts)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# The connection.


def test_the_agent_is_plain_python_3_8_and_imports_only_the_standard_library():
    tree = ast.parse(ssh.AGENT.read_text(encoding="utf-8"), feature_version=(3, 8))
    imported = {a.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    imported |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= set(sys.stdlib_module_names)


def test_nothing_that_a_user_named_stands_in_the_command_that_the_server_runs(spec):
    assert ssh.REMOTE_COMMAND.count("'") == 2 and not {"$", "`", "!", "\\"} & set(ssh.REMOTE_COMMAND)
    assert spec.workdir not in ssh.REMOTE_COMMAND


def test_an_unknown_host_key_is_refused_without_a_question(server, task):
    known = server.folder / "known_hosts"
    before = known.read_text()
    known.write_text("")
    try:
        ssh.close(spec_of(server, "/"))
        error = refused(task.run("remote.py", "status"), "host_key_unknown")
        assert "fingerprint" in error["hint"]
    finally:
        known.write_text(before)


def test_another_host_key_than_the_known_one_is_refused(server, task):
    known = server.folder / "known_hosts"
    before = known.read_text()
    other = (server.folder / "other_key.pub").read_text().split()[:2]
    known.write_text(f"[127.0.0.1]:{server.port} {' '.join(other)}\n")
    try:
        ssh.close(spec_of(server, "/"))
        refused(task.run("remote.py", "push"), "host_key_changed")
    finally:
        known.write_text(before)


def test_a_key_that_the_server_does_not_know_is_refused_at_once(server, task, spec):
    task.edit_definition(compute={"remote": {**spec.model_dump(exclude_none=True),
                                             "ssh_key": str(server.folder / "other_key")}})  # fmt: skip
    ssh.close(spec)
    began = time.monotonic()
    refused(task.run("remote.py", "push"), "login_refused")
    assert time.monotonic() - began < 20


def test_a_server_that_does_not_answer_is_told_after_some_tries(task, spec, monkeypatch):
    monkeypatch.setattr(ssh, "RETRIES_S", (0, 0))
    task.edit_definition(compute={"remote": {**spec.model_dump(exclude_none=True), "port": 9}})
    refused(task.run("remote.py", "status"), "connection_lost")


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "a b", "user@host;ls", "$(x)", "", "x\ny"])
def test_a_host_that_could_be_an_option_or_a_command_is_refused(task, host):
    outcome = task.run("remote.py", "setup", f"--host={host}")
    assert outcome.code == 2 and "--host" in outcome.summary["errors"][0]["message"]


def test_what_a_login_shell_prints_is_no_answer(server, spec, tmp_path, monkeypatch):
    noisy = tmp_path / "noisy"
    noisy.mkdir()
    real = shutil.which("ssh")
    (noisy / "ssh").write_text(f'#!/bin/sh\nprintf "Welcome!\\n{{\\"x\\": 1}}\\n"\nexec {real} "$@"\n')
    (noisy / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{noisy}{os.pathsep}{os.environ['PATH']}")
    assert ssh.call(spec, "status", task="t", run="r")["status"] == "not_started"


# setup.


def test_setup_writes_the_server_and_nothing_else(task, server):
    path = task.folder / "task_definition.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    del data["compute"]
    text = "# 第一行\n" + yaml.safe_dump(data, allow_unicode=True)
    text += "# 前面\ncompute:   # 哪裡訓練\n  # 本機或伺服器\n  target: local  # 舊的\n"
    path.write_text(text, encoding="utf-8")
    flags = ["--host", "me@gpu.example.org", "--ssh-key", str(server.key), "--cuda-devices", "0,1"]
    assert task.ok("remote.py", "setup", *flags)["next"].endswith("remote.py doctor")
    after = path.read_text(encoding="utf-8")
    for comment in ("# 第一行", "# 前面", "# 哪裡訓練", "# 本機或伺服器"):
        assert comment in after
    assert after.startswith(text[: text.index("compute:")])
    found = schema.load_definition(path).compute
    assert (found.target, found.remote.host, found.remote.cuda_devices) == ("remote", "me@gpu.example.org", "0,1")
    assert task.run("remote.py", "setup", *flags).summary["status"] == "skipped"
    task.ok("remote.py", "setup", "--price-per-hour", "2.5")
    found = schema.load_definition(path).compute.remote
    assert (found.price_per_hour, found.cuda_devices) == (2.5, "0,1")


@pytest.mark.parametrize(
    "compute",
    ["", "compute: {}\n", "compute: {target: local}  # 本機\n", "compute:\n    target: local\n", "compute: null\n",
     "compute:\n  remote:\n    # 我的\n    host: a\n    price_per_hour: 3  # 貴\n  target: remote\n"],
)  # fmt: skip
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_setup_fits_every_way_in_which_compute_may_stand(task, compute, newline):
    data = yaml.safe_load((task.folder / "task_definition.yaml").read_text(encoding="utf-8"))
    del data["compute"]
    head = yaml.safe_dump(data, allow_unicode=True)
    text = (head + compute + "hub: {private: true}  # 最後\n").replace("\n", newline)
    after = definition_edit.with_remote(text, "d.yaml", RemoteSpec(host="me@b", workdir='~/夾 "x"'))
    assert after.startswith(head.replace("\n", newline)) and "# 最後" in after
    assert ("# 我的" in after) == ("# 我的" in compute)
    found = documents.parse_yaml(after, "d.yaml").data["compute"]
    assert found == {"target": "remote", "remote": {"host": "me@b", "workdir": '~/夾 "x"'}}


def test_setup_takes_devices_back_and_refuses_what_cuda_would_not_know(task):
    task.ok("remote.py", "setup", "--cuda-devices", "1,GPU-8932f937-d72c-4106-c12f-20bd9faed9f6")
    assert schema.load_definition(task.folder / "task_definition.yaml").compute.remote.cuda_devices.startswith("1,GPU-")
    refused = task.run("remote.py", "setup", "--cuda-devices", "both")
    assert refused.code == 2 and "--cuda-devices" in refused.summary["errors"][0]["message"]
    task.ok("remote.py", "setup", "--cuda-devices", "all")
    assert schema.load_definition(task.folder / "task_definition.yaml").compute.remote.cuda_devices is None


def test_a_task_whose_data_were_never_converted_is_told_so(task):
    shutil.rmtree(task.folder / "data" / "processed")
    refused(task.run("remote.py", "push"), "not_converted")


def test_setup_without_a_host_says_what_is_missing(converted, tmp_path):
    shutil.copytree(converted, tmp_path / "t")
    outcome = Task(tmp_path / "t").run("remote.py", "setup", "--cuda-devices", "0")
    assert outcome.code == 2 and "--host is missing" in outcome.summary["errors"][0]["message"]
    refused(Task(tmp_path / "t").run("remote.py", "push"), "no_server")


# push.


@pytest.mark.parametrize("tool", ["rsync", "tar"])
def test_push_sends_what_the_run_needs_and_only_once(task, workdir, tool, monkeypatch):
    if tool == "tar":
        monkeypatch.setattr(transfer, "_has_rsync", lambda: False)
    first = task.ok("remote.py", "push")
    there = tree(workdir / "tiny")
    here = tree(task.folder)
    assert there and there.items() <= here.items()
    assert first["counts"]["sent"] == first["counts"]["files"] == len(there)
    assert {
        "task_definition.yaml",
        "configs/baseline.yaml",
        "data/processed/train.jsonl",
        "scripts/03_train.py",
    } <= set(there)
    assert not any(name.startswith("data/raw") for name in there)
    assert task.run("remote.py", "push").summary["status"] == "skipped"
    script = task.folder / "scripts" / "predict.py"
    script.write_text(script.read_text() + "# changed\n")
    assert task.ok("remote.py", "push")["counts"]["sent"] == 1
    assert tree(workdir / "tiny").items() <= tree(task.folder).items()


def test_secrets_travel_in_no_file_and_no_argument(task, workdir, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_the_test")
    task.ok("remote.py", "push")
    (task.folder / ".env").write_text("HF_TOKEN=hf_secret_of_the_test")
    task.ok("remote.py", "push")
    assert not any(b"hf_secret" in path.read_bytes() for path in workdir.rglob("*") if path.is_file())


def test_a_variable_that_is_not_set_here_cannot_be_passed_on(task):
    outcome = task.run("remote.py", "run", "--env", "SURELY_NOT_SET")
    assert outcome.code == 2 and outcome.summary["errors"][0]["code"] == "not_set"


def test_a_push_that_is_cut_goes_on_where_it_was(server, task, workdir, spec):
    big = task.folder / "scripts" / "big.bin"
    big.write_bytes(os.urandom(40_000_000))
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, task.folder / "scripts" / "remote.py", "push", "--json"], env=environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        incoming = workdir / "tiny" / ".remote" / "incoming"
        deadline = time.monotonic() + 60
        while not any(incoming.rglob("*.bin*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        server.cut()
        process.kill()
        process.wait()
        ssh.close(spec)
        assert not (workdir / "tiny" / "scripts" / "big.bin").exists() or process.returncode == 0
    task.ok("remote.py", "push")
    assert tree(workdir / "tiny")["scripts/big.bin"] == hashlib.sha256(big.read_bytes()).hexdigest()
    assert not (workdir / "tiny" / ".remote" / "incoming").exists()


def test_a_file_that_arrives_with_other_bytes_is_not_accepted(task, workdir, spec):
    task.ok("remote.py", "push")
    name = "scripts/predict.py"
    (task.folder / name).write_text("# other\n")
    incoming = workdir / "tiny" / ".remote" / "incoming" / name
    incoming.parent.mkdir(parents=True)
    incoming.write_text("# broken")
    with pytest.raises(TaskError) as raised:
        ssh.call(spec, "accept", task="tiny", files={name: transfer.described(task.folder / name)})
    assert raised.value.problems[0].code == "not_whole"
    assert (workdir / "tiny" / name).read_bytes() != b"# broken"
    task.ok("remote.py", "push")
    assert (workdir / "tiny" / name).read_text() == "# other\n"


def test_names_that_lead_out_of_the_task_are_refused(spec, tmp_path):
    for name in ("../x", "/etc/x", "a/../../x"):
        with pytest.raises(TaskError) as raised:
            ssh.call(spec, "accept", task="tiny", files={name: ["0" * 64, 1]})
        assert raised.value.problems[0].code == "path_outside"


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("tool", ["rsync", "tar"])
def test_a_full_disk_on_the_server_is_told_and_leaves_what_was_there(
    converted, server, small_disk, tmp_path, tool, monkeypatch
):
    if tool == "tar":
        monkeypatch.setattr(transfer, "_has_rsync", lambda: False)
    task = on_server(converted, tmp_path / "t", spec_of(server, small_disk))
    task.ok("remote.py", "push")
    before = tree(small_disk / "tiny")
    (task.folder / "scripts" / "big.bin").write_bytes(os.urandom(4_000_000))
    refused(task.run("remote.py", "push"), "disk_full")
    (task.folder / "scripts" / "big.bin").unlink()
    # what `compare` counted as free is gone when the files come
    (small_disk / "other").write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 60_000))
    (task.folder / "scripts" / "some.bin").write_bytes(os.urandom(50_000))
    (small_disk / "more").write_bytes(b"x" * max(0, shutil.disk_usage(small_disk).free - 20_000))
    monkeypatch.setattr(Path, "stat", Path.stat)
    refused(task.run("remote.py", "push"), "disk_full")
    assert tree(small_disk / "tiny") == before


# doctor.


def gpu(**more):
    found = {"index": 0, "uuid": "GPU-1", "name": "NVIDIA L4", "driver": "580.65.06", "memory_bytes": 24 << 30}
    return {**found, "used_bytes": 0, "utilization_percent": 0, "compute_capability": "8.9", **more}


def probed(**more):
    found = {"platform": "linux", "agent_python": "3.10.2", "libc": ["glibc", "2.35"], "writable": True, "root": "/w/t",
             "python": None, "disk_free_bytes": 100e9, "has_environment": False, "unreachable": {},
             "asked_at_s": 1000.0, "time_s": 1000.5, "answered_at_s": 1001.0,
             "gpus": [gpu(), gpu(index=1, uuid="GPU-2")], "missing": []}  # fmt: skip
    return {**found, **more}


@pytest.mark.parametrize(
    ("more", "of_spec", "code"),
    [
        ({"platform": "darwin"}, {}, "not_linux"),
        ({"agent_python": "3.6.9"}, {}, "old_python"),
        ({"libc": ["glibc", "2.17"]}, {}, "old_glibc"),
        ({"writable": False}, {}, "not_writable"),
        ({"disk_free_bytes": 2e9}, {}, "disk_full"),
        ({"gpus": [gpu(driver="535.104.05")]}, {}, "old_driver"),
        ({"gpus": None}, {"cuda_devices": "0"}, "no_gpu"),
        ({}, {"cuda_devices": "0,7"}, "no_such_gpu"),
        ({"gpus": [gpu(used_bytes=23 << 30)]}, {}, "does_not_fit"),
        ({"missing": ["/models/x"]}, {}, "no_base_model"),
        ({}, {"python": "/opt/python"}, "no_interpreter"),
    ],
)
def test_doctor_names_what_cannot_work(more, of_spec, code):
    errors, _ = checks.findings(RemoteSpec(host="h", **of_spec), probed(**more), 5 << 30, 1000)
    assert [error.code for error in errors] == [code] and errors[0].hint


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"gpus": [gpu(used_bytes=4 << 30)]}, "gpu_busy"),
        ({"gpus": [gpu(utilization_percent=90)]}, "gpu_busy"),
        ({"gpus": None}, "no_gpu"),
        ({"unreachable": {checks.HUB: "timed out"}}, "unreachable"),
    ],
)
def test_doctor_warns_of_what_may_not_work(more, code):
    errors, warnings = checks.findings(RemoteSpec(host="h"), probed(**more), 5 << 30, 1000)
    assert not errors and code in [warning.code for warning in warnings]


def test_a_healthy_server_has_no_findings():
    assert checks.findings(RemoteSpec(host="h", cuda_devices="1"), probed(), 5 << 30, 1000) == ([], [])


@pytest.mark.parametrize(
    ("launched", "gpus", "code"),
    [
        (None, 1, None),
        (None, 2, "one_gpu_used"),
        ({"distributed_type": "MULTI_GPU", "num_processes": 2, "num_machines": 1}, 2, None),
        ({"distributed_type": "MULTI_GPU", "num_processes": 4, "num_machines": 1}, 2, "too_few_gpus"),
        ({"distributed_type": "FSDP", "num_processes": 4, "num_machines": 2}, 2, "several_nodes"),
        ({"distributed_type": "NO", "num_processes": 1, "num_machines": 1}, 0, None),
    ],
)
def test_how_a_run_is_shared_out_must_go_with_the_gpus_that_are_there(launched, gpus, code):
    found = probed(gpus=[gpu(index=n, uuid=f"GPU-{n}") for n in range(gpus)] or None)
    errors, warnings = checks.shared_out(RemoteSpec(host="h"), found, launched)
    assert [problem.code for problem in errors + warnings] == ([code] if code else [])
    assert all(problem.hint for problem in errors + warnings)


def test_the_driver_that_is_asked_for_is_that_of_the_pinned_torch():
    import torch

    assert torch.version.cuda is None or torch.version.cuda.split(".")[0] == checks.TORCH_CUDA


def test_a_clock_that_goes_wrong_is_told_and_changes_nothing(task, monkeypatch):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 7200)
    summary = task.ok("remote.py", "doctor")
    assert "clock_skew" in [warning["code"] for warning in summary["warnings"]]
    assert summary["counts"]["estimated_memory_bytes"] > 0 and summary["outputs"]["disk_free_bytes"] > 0
    task.ok("remote.py", "push")


# pull, without a job.


def trained_there(workdir: Path, run: str = "baseline", identity: str = "a") -> Path:
    folder = workdir / "tiny" / "models" / run
    folder.mkdir(parents=True)
    record = {"status": "finished", "argv": [], "config": {}, "identity": {"sha256": identity}, "inputs": {},
              "code": {}, "environment": {}, "hardware": {}, "seed": 1, "started_at": "1",
              "finished_at": "2"}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "adapter").mkdir()
    (folder / "adapter" / "名 'a'.safetensors").write_bytes(os.urandom(300_000))
    (folder / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (folder / "checkpoints" / "checkpoint-1" / "x").write_text("x")
    return folder


@pytest.mark.parametrize("tool", ["rsync", "tar"])
def test_pull_brings_everything_but_checkpoints_and_deletes_only_when_told(task, workdir, tool, monkeypatch):
    if tool == "tar":
        monkeypatch.setattr(transfer, "_has_rsync", lambda: False)
    there = trained_there(workdir)
    kept = tree(there)
    summary = task.ok("remote.py", "pull")
    assert "may go" in summary["outputs"]["server_copy"]
    here = tree(task.folder / "models" / "baseline")
    assert here == {name: sha for name, sha in kept.items() if not name.startswith("checkpoints")} | {
        ".lock": here[".lock"]
    }
    assert tree(there) == kept
    assert task.run("remote.py", "pull").summary["status"] == "skipped"
    task.ok("remote.py", "pull", "--checkpoints", "--delete-remote")
    assert (task.folder / "models" / "baseline" / "checkpoints" / "checkpoint-1" / "x").is_file()
    assert not there.exists()


def test_a_pull_that_is_cut_goes_on_and_says_nothing_before_all_is_whole(server, task, workdir, spec):
    there = trained_there(workdir)
    (there / "adapter" / "big.safetensors").write_bytes(os.urandom(40_000_000))
    incoming = task.folder / ".remote" / "baseline"
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, task.folder / "scripts" / "remote.py", "pull", "--delete-remote", "--json"],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        deadline = time.monotonic() + 60
        while not any(incoming.rglob("*big*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        server.cut()
        process.kill()
        process.wait()
        ssh.close(spec)
        assert (there / "adapter" / "big.safetensors").is_file() or process.returncode == 0
        assert not (task.folder / "models" / "baseline" / "run.json").exists() or process.returncode == 0
    sha = tree(there).get("adapter/big.safetensors")
    task.ok("remote.py", "pull")
    assert tree(task.folder / "models" / "baseline")["adapter/big.safetensors"] == sha


def test_another_run_of_this_machine_is_moved_aside_never_lost(task, workdir):
    trained_there(workdir)
    task.ok("remote.py", "pull")
    own = tree(task.folder / "models" / "baseline")
    shutil.rmtree(workdir / "tiny" / "models")
    trained_there(workdir, identity="b")
    summary = task.ok("remote.py", "pull")
    assert [warning["code"] for warning in summary["warnings"]] == ["moved_aside"]
    (aside,) = (task.folder / "models").glob("baseline.old-*")
    assert own.items() <= tree(aside).items()
    assert task.json("models/baseline/run.json")["identity"]["sha256"] == "b"


def test_looks_at_test_of_both_sides_are_kept(tmp_path):
    mine, theirs = tmp_path / "mine.jsonl", tmp_path / "theirs.jsonl"
    write_jsonl(mine, [{"run": "a", "at": "2"}, {"run": "b", "at": "1"}])
    write_jsonl(theirs, [{"run": "a", "at": "2"}, {"run": "c", "at": "3"}])
    placing.merge_ledger(mine, theirs)
    assert [row["run"] for row in read_jsonl(mine)] == ["b", "a", "c"]


def test_pull_of_a_run_that_never_was_says_so(task):
    refused(task.run("remote.py", "pull"), "no_run")


# What a job is.


def test_the_stages_of_a_job_are_those_of_the_pipeline():
    pipeline = (Path(__file__).parent.parent / "scripts" / "task" / "run_pipeline.sh").read_text(encoding="utf-8")
    config = schema.RunConfig(schema_version=1, base_model={"id": "builtin:smollm2-135m"})
    stages = job.stages(RemoteSpec(host="h"), config, "configs/x.yaml", "test", "/uv")
    assert stages[0]["argv"] == ["/uv", "sync", "--no-progress", "--extra", "builtin"]
    for stage in stages[2:]:
        script, flags = stage["argv"][1].split("/")[1], " ".join(stage["argv"][4:])
        (line,) = [line for line in pipeline.splitlines() if line.strip().startswith(f"{stage['name']})")]
        assert f'/{script}" --config "$config"' in line and line.rstrip(" ;").endswith(flags or '"${limits[@]}"')


# The life of a job, with stages that take no time.


class Life:
    """A job of plain commands on the server."""

    def __init__(self, spec: RemoteSpec, workdir: Path):
        self.spec, self.root, self.run = spec, workdir / "tiny", "r"
        self.root.mkdir(parents=True)

    def start(self, *stages: tuple[str, str], ends_with=(), record="finished", **more) -> dict:
        if record:
            (self.root / "models" / "r").mkdir(parents=True, exist_ok=True)
            (self.root / "models" / "r" / "run.json").write_text(json.dumps({"status": record}))
        asked = [{"name": n, "argv": [sys.executable, "-c", c], "ends_with": list(ends_with)} for n, c in stages]
        request = {"files": {}, "identity": "i", "stages": asked, "environment": {}, "max_hours": None, **more}
        return ssh.call(self.spec, "start", task="tiny", run="r", **request)

    def seen(self) -> dict:
        return ssh.call(self.spec, "status", task="tiny", run="r")

    def wait(self, *states: str) -> dict:
        deadline = time.monotonic() + 30
        while (found := self.seen())["status"] not in states:
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        return found

    def state(self) -> dict:
        return json.loads((self.root / ".remote" / "jobs" / "r" / "state.json").read_text())

    def kill(self, who: str) -> None:
        os.kill(self.state()[who][0], signal.SIGKILL)

    def lines(self) -> list[str]:
        path = self.root / "lines"
        return path.read_text().split() if path.is_file() else []


@pytest.fixture
def life(spec, workdir):
    found = Life(spec, workdir)
    yield found
    with contextlib.suppress(TaskError):
        ssh.call(spec, "stop", task="tiny", run="r", now=True)


def note(word: str) -> str:
    return f"open('lines', 'a').write('{word} ')"


SLEEP = "import time; time.sleep(60)"
QUIET = "import signal, sys, time; signal.signal(15, lambda *_: (open('lines', 'a').write('term '), sys.exit(130)))"


def test_a_job_goes_through_its_stages_once_and_is_then_finished(life):
    assert life.start(("a", note("a")), ("b", note("b")))["already"] is None
    assert life.wait("finished")["done"] == ["a", "b"]
    assert life.start(("a", note("a")), ("b", note("b")))["already"] == "finished"
    assert life.lines() == ["a", "b"]
    life.start(("a", note("a")), ("b", note("b")), ("c", note("c")))  # one stage more is asked for
    life.wait("finished")
    assert life.lines() == ["a", "b", "c"]
    life.start(("a", note("a")), identity="other")
    life.wait("finished")
    assert life.lines() == ["a", "b", "c", "a"]


def test_a_second_run_of_the_same_name_is_refused(life):
    life.start(("a", SLEEP))
    assert life.start(("a", note("twice")))["already"] == "running"
    assert life.seen()["attempt"] == 1 and life.lines() == []


def test_a_run_counts_as_finished_only_when_its_run_json_says_so(life):
    life.start(("a", note("a")), record="running")
    assert life.wait("failed", "finished")["status"] == "failed"


def test_a_gate_that_is_not_met_ends_the_job_without_being_a_failure(life):
    life.start(("a", "raise SystemExit(5)"), ("b", note("b")), ends_with=[5])
    found = life.wait("finished")
    assert (found["exit_code"], found["done"], life.lines()) == (5, ["a"], [])


def test_a_stage_that_fails_is_named_and_the_next_start_goes_on_there(life):
    life.start(("a", note("a")), ("b", "raise SystemExit(3)"))
    found = life.wait("failed")
    assert (found["stage"], found["exit_code"], found["done"]) == ("b", 3, ["a"])
    life.start(("a", note("a")), ("b", note("b")))
    assert life.wait("finished")["attempt"] == 2 and life.lines() == ["a", "b"]


def test_a_killed_trainer_fails_the_stage(life):
    life.start(("a", SLEEP))
    life.kill("process")
    assert life.wait("failed")["exit_code"] == -9


def test_a_trainer_whose_supervisor_was_killed_still_counts_as_running_and_can_be_stopped(life):
    life.start(("a", f"{QUIET}; time.sleep(60)"))
    time.sleep(0.5)
    life.kill("supervisor")
    time.sleep(0.3)
    found = life.seen()
    assert (found["status"], found["supervised"]) == ("running", False)
    assert life.start(("a", note("twice")))["already"] == "running"
    assert ssh.call(life.spec, "stop", task="tiny", run="r", now=False)["asked"]
    life.wait("interrupted")
    assert life.lines() == ["term"]
    life.start(("a", note("again")))
    life.wait("finished")


def test_after_a_power_cut_the_job_is_interrupted_and_goes_on(life):
    life.start(("a", note("a")), ("b", SLEEP))
    while life.state()["stage"] != "b":
        time.sleep(0.05)
    os.killpg(os.getpgid(life.state()["supervisor"][0]), signal.SIGKILL)
    assert life.wait("interrupted")["done"] == ["a"]
    life.start(("a", note("a")), ("b", note("b")))
    assert life.wait("finished")["done"] == ["a", "b"] and life.lines() == ["a", "b"]


def test_a_pid_of_another_boot_is_no_process_of_the_job(life):
    life.start(("a", note("a")))
    life.wait("finished")
    state = life.state() | {"status": "running", "process": [os.getpid(), 1, "another boot"]}
    (life.root / ".remote" / "jobs" / "r" / "state.json").write_text(json.dumps(state))
    assert life.seen()["status"] == "interrupted"
    assert not ssh.call(life.spec, "stop", task="tiny", run="r", now=True)["asked"]


def test_stop_and_max_hours_ask_once_so_that_a_checkpoint_can_be_written(life):
    patient = QUIET.replace("sys.exit(130)", "None")
    patient += "\nt = time.monotonic() + 4\nwhile time.monotonic() < t: time.sleep(.1)"
    life.start(("a", f"{patient}\nsys.exit(130)"), ("b", note("b")))
    time.sleep(0.7)
    for _ in range(3):
        ssh.call(life.spec, "stop", task="tiny", run="r", now=False)
    found = life.wait("stopped")
    assert (found["why"], found["exit_code"], life.lines()) == ("stop", 130, ["term"])
    life.start(("a", f"{QUIET}; time.sleep(60)"), max_hours=1 / 3600)
    found = life.wait("stopped")
    assert (found["why"], life.lines()) == ("max_hours", ["term", "term"])
    assert found["used_s"] > 4


def test_the_environment_that_is_passed_on_reaches_the_stages_and_no_file(life):
    check = "import os, hashlib; print(hashlib.sha256(os.environ['HF_TOKEN'].encode()).hexdigest())"
    life.start(("a", check), environment={"HF_TOKEN": "hf_secret_of_the_test"})
    life.wait("finished")
    log = (life.root / ".remote" / "jobs" / "r" / "log.txt").read_text()
    assert hashlib.sha256(b"hf_secret_of_the_test").hexdigest() in log
    assert not any(b"hf_secret" in path.read_bytes() for path in life.root.rglob("*") if path.is_file())


def test_a_job_lives_on_when_every_connection_ends(life, server):
    life.start(("a", "import time; time.sleep(1.5)"), ("b", note("b")))
    server.cut()
    ssh.close(life.spec)
    life.wait("finished")
    assert life.lines() == ["b"]


def test_logs_follow_to_the_end_and_a_cut_loses_and_doubles_nothing(task, spec, server, workdir):
    (workdir / "tiny").mkdir(parents=True)
    counting = "import time\nfor n in range(60): print('line', n, flush=True); time.sleep(0.05)"
    request = {"files": {}, "identity": "i", "environment": {}, "max_hours": None,
               "stages": [{"name": "a", "argv": [sys.executable, "-c", counting], "ends_with": []}]}  # fmt: skip
    ssh.call(spec, "start", task="tiny", run="baseline", **request)
    command = [sys.executable, task.folder / "scripts" / "remote.py", "logs", "--follow"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment(), **pipes)
    time.sleep(1.5)
    server.cut()
    out, err = process.communicate(timeout=60)
    numbers = [int(line.split()[1]) for line in out.splitlines() if line.startswith("line ")]
    assert numbers == list(range(60)), (out, err)
    assert "again in" in err
