#!/usr/bin/env python3
"""Trains on the user's own server by ssh: setup, doctor, push, run, status, logs, pull, stop."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklib import cli
from tasklib.summary import Problem, Summary, TaskError

CONFIG = {"config": "configs/baseline.yaml"}
# The flags of each action, with their defaults; other actions refuse them.
SETUP = ("host", "port", "ssh_key", "cuda_devices", "workdir", "python", "price_per_hour")
ACTIONS: dict[str, dict[str, Any]] = {
    "setup": dict.fromkeys(SETUP),
    "doctor": CONFIG,
    "push": CONFIG,
    "run": {**CONFIG, "until": "evaluate", "env": [], "max_hours": None, "follow": False},
    "status": CONFIG,
    "logs": {**CONFIG, "follow": False},
    "pull": {**CONFIG, "checkpoints": False, "delete_remote": False},
    "stop": {**CONFIG, "now": False},
}
LOG_TAIL_BYTES = 8000


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "remote",
        "Train one run on your own GPU server, reached by ssh. Nothing is installed there by hand.\n"
        "setup   write the server into task_definition.yaml (compute.remote)\n"
        "doctor  say what will fail there before anything is sent\n"
        "push    send what the run needs, each file checked by its hash\n"
        "run     push, then start rehearsal, baselines, training and evaluation; it goes on when you disconnect\n"
        "status  phase, step, loss, time left, GPUs, disk, cost\n"
        "logs    what the run prints\n"
        "pull    bring the results back, each file checked by its hash\n"
        "stop    stop with a checkpoint; run goes on from there\n"
        "Whatever was interrupted: give the same command again.",
        [
            "uv run python scripts/remote.py setup --host me@gpu.example.org --ssh-key ~/.ssh/id_ed25519 "
            "--cuda-devices 0,1",
            "uv run python scripts/remote.py doctor",
            "uv run python scripts/remote.py run --follow --max-hours 8",
            "uv run python scripts/remote.py status --json",
            "uv run python scripts/remote.py pull",
        ],
    )
    cli.add_task_flags(parser, __file__)
    add = parser.add_argument
    add("action", nargs="?", choices=list(ACTIONS), help="what to do")
    add("--config", help="all but setup: the run's config (default: configs/baseline.yaml)")
    add("--host", help="setup: user@server, or a Host of ~/.ssh/config")
    add("--port", type=int, help="setup: where it is not 22")
    add("--ssh-key", help="setup: path of the private key (default: what ssh chooses)")
    add("--cuda-devices", help="setup: e.g. 0 or 0,1, or the word all (default: all)")
    add("--workdir", help="setup: folder on the server (default: ~/finetune-llm)")
    add("--python", help="setup: interpreter there to use instead of uv")
    add("--price-per-hour", type=float, help="setup: what the server costs; status then tells the cost")
    add("--until", choices=["baselines", "train", "evaluate", "test"], help="run: the last stage (default: evaluate)")
    add("--env", action="append", metavar="NAME", help="run: pass on a variable of this machine, e.g. HF_TOKEN")
    add("--max-hours", type=float, help="run: stop after this time, with a checkpoint")
    add("--follow", action="store_true", default=None, help="run, logs: show the log until the run ends")
    add("--checkpoints", action="store_true", default=None, help="pull: bring checkpoints too, to go on here")
    add("--delete-remote", action="store_true", default=None, help="pull: then delete there what was pulled")
    add("--now", action="store_true", default=None, help="stop: kill at once, without a checkpoint")
    return parser


@dataclass(frozen=True)
class Job:
    """One run and its server."""

    paths: Any
    definition: Any
    config: Any
    config_file: Path
    run: str
    spec: Any

    def call(self, action: str, **request: Any) -> dict[str, Any]:
        from tasklib.remote import ssh

        return ssh.call(self.spec, action, task=self.definition.name, run=self.run, **request)


def remote(args: argparse.Namespace) -> Summary:
    from tasklib import schema
    from tasklib.paths import config_path, task_paths

    paths = task_paths(args.task_dir)
    if args.action is None:
        raise cli.UsageError(f"say what to do: {', '.join(ACTIONS)}")
    others = {name for flags in ACTIONS.values() for name in flags} - set(ACTIONS[args.action])
    cli.take_flags(args, ACTIONS[args.action], dict.fromkeys(others))
    if args.action == "setup":
        return setup(args, paths)
    definition = schema.load_definition(paths.definition)
    config_file = config_path(paths, args.config)
    config = schema.load_config(config_file, (), args.config)
    job = Job(paths, definition, config, config_file, config_file.stem, _server(paths, definition))
    return {"doctor": doctor, "push": push, "run": run, "status": status, "logs": logs, "pull": pull, "stop": stop}[
        args.action
    ](args, job)


def _server(paths: Any, definition: Any) -> Any:
    if definition.compute.remote is None:
        problem = Problem(
            code="no_server",
            message="compute.remote is not set",
            file=paths.shown(paths.definition),
            field="compute.remote",
            hint="say which server: remote.py setup --host user@server --ssh-key PATH --cuda-devices 0",
        )
        raise TaskError(cli.ExitCode.PREREQUISITE, [problem])
    return definition.compute.remote


def setup(args: argparse.Namespace, paths: Any) -> Summary:
    """Writes compute.remote; what is not named keeps its value."""
    from pydantic import ValidationError

    from tasklib import files, schema
    from tasklib.remote import definition_edit

    definition = schema.load_definition(paths.definition)
    before = definition.compute.remote.model_dump() if definition.compute.remote else {}
    named = {name: value for name in SETUP if (value := getattr(args, name)) is not None}
    if named.get("cuda_devices") == "all":
        named["cuda_devices"] = None
    if "host" not in before | named:
        raise cli.UsageError("--host is missing: user@server, or a Host of ~/.ssh/config")
    try:
        spec = schema.RemoteSpec(**(before | named))
    except ValidationError as error:
        words = [f"--{str(e['loc'][0]).replace('_', '-')}: {e['msg']}, got {e['input']!r}" for e in error.errors()]
        raise cli.UsageError("; ".join(words)) from None
    if spec.ssh_key and not (key := Path(spec.ssh_key).expanduser()).is_file():
        raise cli.UsageError(f"--ssh-key: there is no file {key}")
    with paths.definition.open(encoding="utf-8", newline="") as stream:
        text = stream.read()
    edited = definition_edit.with_remote(text, paths.shown(paths.definition), spec)
    if edited != text:
        files.write_text(paths.definition, edited)
    outputs = {"definition": paths.shown(paths.definition)}
    return Summary.of("remote", "skipped" if edited == text else "ok", outputs=outputs, next=_command("doctor"))


def _command(action: str, args: argparse.Namespace | None = None) -> str:
    flags = ["--config", args.config] if args and args.config != CONFIG["config"] else []
    return shlex.join(["uv", "run", "python", "scripts/remote.py", action, *flags])


def doctor(args: argparse.Namespace, job: Job) -> Summary:
    """What will fail, and what may; nothing is sent but the questions."""
    from tasklib.remote import manifest

    files = manifest.needed_by(job.paths, job.definition, job.config, job.config_file)
    found = _probe(job)
    estimate, warnings = _estimate(job, found)
    more = _findings(job, found, files, estimate)
    counts = {"files": len(files), "bytes": sum(file[1] for file in files.values())}
    counts |= {"estimated_memory_bytes": estimate} if estimate else {}
    outputs = {name: found[name] for name in ("root", "hostname", "uv_version", "rsync")}
    outputs |= {"gpus": found["gpus"] or [], "disk_free_bytes": found["disk_free_bytes"], "alive": found["alive"]}
    after = _command("run", args)
    return Summary.of("remote", run=job.run, counts=counts, outputs=outputs, warnings=warnings + more, next=after)


def _probe(job: Job) -> dict[str, Any]:
    """What the server is, and this machine's clock before it was asked and after it answered."""
    from tasklib.model import builtin
    from tasklib.remote import checks

    base = job.config.base_model.id
    folders = [base] if base.startswith(("/", "~", "./", "../")) else []
    urls = checks.urls(uses_uv=job.spec.python is None, uses_hub=not folders and not builtin.is_builtin(base))
    asked_at_s = time.time()
    found = job.call("probe", python=job.spec.python, urls=urls, folders=folders)
    return {**found, "asked_at_s": asked_at_s, "answered_at_s": time.time()}


def _findings(job: Job, found: dict[str, Any], files: Any, estimate: int | None) -> list[Problem]:
    """Warnings. Raises TaskError (exit 4) with everything that cannot work."""
    from tasklib.remote import checks

    sent = sum(file[1] for file in files.values())
    errors, warnings = checks.findings(job.spec, found, estimate, sent)
    more = checks.shared_out(job.spec, found, _launched(job))
    if errors + more[0]:
        raise TaskError(cli.ExitCode.PREREQUISITE, errors + more[0], warnings=warnings + more[1])
    return warnings + more[1]


def _launched(job: Job) -> dict[str, Any] | None:
    """launch/<run>/accelerate.yaml, where launch.py wrote one."""
    import yaml

    from tasklib.remote import manifest

    file = manifest.launch_file(job.paths, job.run)
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None


def _estimate(job: Job, found: dict[str, Any]) -> tuple[int | None, list[Problem]]:
    """The memory that training will need on each GPU of the server, with activation checkpointing where it is needed
    and the config leaves it open; without a GPU, what it needs on this machine."""
    from tasklib.data import conversion
    from tasklib.model import memory, models
    from tasklib.remote import checks
    from tasklib.training import preparation

    splits = [split for split in ("train", "validation") if job.paths.split(split).is_file()]
    rows = {split: conversion.load_split(job.paths, split) for split in splits}
    try:
        material = preparation.prepare(job.paths, job.definition, job.config, rows, None, check_memory=False)
    except TaskError as error:
        if error.exit_code == cli.ExitCode.DATA:
            raise
        message = f"the memory that the run needs could not be estimated here: {error}"
        return None, [Problem(code="no_estimate", message=message, hint="the rehearsal on the server measures it")]
    room = checks.room_bytes(job.spec, found)
    if room is None:
        return material.estimate.total_bytes, []
    launched = _launched(job) or {}
    spread = memory.Spread(launched.get("num_processes", 1), launched.get("distributed_type") == "FSDP")
    with models.planned_for("cuda"):
        estimate = memory.estimate_training(job.config, *material.lengths, spread)
        if estimate.total_bytes > room and job.config.training.trl_fields.get("activation_checkpointing") is None:
            checkpointed = preparation.with_training(job.config, activation_checkpointing=True)
            estimate = memory.estimate_training(checkpointed, *material.lengths, spread)
    return estimate.total_bytes, []


def push(args: argparse.Namespace, job: Job) -> Summary:
    from tasklib.remote import manifest

    files = manifest.needed_by(job.paths, job.definition, job.config, job.config_file)
    done = _push(job, files)
    counts = {"files": len(files), "sent": done["sent"], "sent_bytes": done["sent_bytes"]}
    status = "ok" if done["changed"] else "skipped"
    outputs = {"root": done["root"]}
    return Summary.of("remote", status, run=job.run, counts=counts, outputs=outputs, next=_command("run", args))


def _push(job: Job, files: Any) -> dict[str, Any]:
    from tasklib.remote import transfer

    return transfer.push(job.spec, job.definition.name, job.paths.root, files)


def run(args: argparse.Namespace, job: Job) -> Summary:
    """Checks, pushes and starts; a run that works already is left alone."""
    from tasklib.remote import job as jobs
    from tasklib.remote import manifest

    environment = jobs.environment(job.spec, args.env)
    if args.max_hours is not None and args.max_hours <= 0:
        raise cli.UsageError(f"--max-hours must be above 0, got {args.max_hours:g}")
    files = manifest.needed_by(job.paths, job.definition, job.config, job.config_file)
    found = _probe(job)
    warnings = _findings(job, found, files, None)
    _push(job, files)
    uv = None if job.spec.python else found["uv"] or _send_uv(job, found)
    config = job.config_file.relative_to(job.paths.root).as_posix()
    answer = job.call(
        "start",
        files=files,
        identity=jobs.identity(job.spec, files),
        stages=jobs.stages(job.spec, job.config, config, args.until, uv, _launch_name(job)),
        environment=environment,
        max_hours=args.max_hours,
    )
    if answer["already"] == "running":
        message = f"run {job.run!r} works on the server since before: nothing was started"
        warnings = [Problem(code="already_running", message=message, hint="remote.py status, logs or stop")]
    if args.follow:
        _follow(job, 0 if answer["already"] is None else -LOG_TAIL_BYTES, sys.stderr.buffer)
        return _summary(args, job, warnings)
    after = _command("pull" if answer["already"] == "finished" else "status", args)
    state = "skipped" if answer["already"] else "ok"
    return Summary.of("remote", state, run=job.run, outputs=_outputs(answer), warnings=warnings, next=after)


def _launch_name(job: Job) -> str | None:
    from tasklib.remote import manifest

    file = manifest.launch_file(job.paths, job.run)
    return file.relative_to(job.paths.root).as_posix() if _launched(job) else None


def _send_uv(job: Job, found: dict[str, Any]) -> str:
    """uv of this machine, sent to the server where it has none and is of the same kind."""
    import platform

    from tasklib.remote import transfer

    here = shutil.which("uv")
    if here is None or (platform.system().lower(), platform.machine()) != (found["platform"], found["machine"]):
        hint = "run there once: curl -LsSf https://astral.sh/uv/install.sh | sh; or set compute.remote.python"
        problem = Problem(code="no_uv", message="the server has no uv, and uv of this machine does not fit", hint=hint)
        raise TaskError(cli.ExitCode.PREREQUISITE, [problem])
    binary = Path(here).resolve()
    done = transfer.push(job.spec, ".uv", binary.parent, {binary.name: transfer.described(binary)})
    return f"{done['root']}/{binary.name}"


def status(args: argparse.Namespace, job: Job) -> Summary:
    return _summary(args, job, [])


def _summary(args: argparse.Namespace, job: Job, warnings: list[Problem]) -> Summary:
    """How far the run is, as a summary. Raises TaskError (exit 4) where it failed or was interrupted."""
    from tasklib.remote import checks

    found = job.call("status")
    metrics, counts = _numbers(job, found), {}
    gpus = checks.visible(job.spec, found["gpus"])
    if found["status"] != "running":
        warnings = warnings + checks.busy(gpus)
    elif gpus and found["stage"] == "train" and all(gpu["utilization_percent"] == 0 for gpu in gpus):
        hint = "if it stays so, look at the logs: the run may be waiting, or train on the CPU"
        warnings = [*warnings, Problem(code="gpu_idle", message="no GPU of the run is working now", hint=hint)]
    outputs = _outputs(found) | {"gpus": found["gpus"] or [], "last_line": found["last_line"]}
    outputs |= {"disk_free_bytes": found["disk_free_bytes"], "training": found["training"], "root": found["root"]}
    report = {"run": job.run, "counts": counts, "metrics": metrics, "outputs": outputs, "warnings": warnings}
    again = {"finished": "pull", "running": "status"}.get(found["status"], "run")
    if found["status"] in ("failed", "interrupted"):
        problem = _ended(job, found)
        raise TaskError(cli.ExitCode.PREREQUISITE, [problem], **report, next=_command("logs", args))
    gate_failed = found["status"] == "finished" and found["exit_code"] == cli.ExitCode.GATE
    return Summary.of("remote", "gate_failed" if gate_failed else "ok", **report, next=_command(again, args))


def _outputs(found: dict[str, Any]) -> dict[str, Any]:
    """`status` of the run on the server is no word of ours, so it stands as `state`."""
    kept = ("stage", "done", "attempt", "why", "exit_code", "run_status", "supervised")
    return {"state": found["status"], **{name: found[name] for name in kept}}


def _numbers(job: Job, found: dict[str, Any]) -> dict[str, float | None]:
    """Step, loss, time and money: what is known of them."""
    training = found["training"]
    values = {name: training[name] for name in ("step", "max_steps", "loss", "eval_loss") if name in training}
    hours, left_s = found["used_s"] / 3600, None
    if found["status"] == "running" and found["stage"] == "train" and training.get("step"):
        left_s = (training["max_steps"] - training["step"]) * training["elapsed_s"] / training["step"]
        values["train_remaining_s"] = round(left_s, 1)
    values["used_hours"] = round(hours, 4)
    if job.spec.price_per_hour is not None:
        values["cost_so_far"] = round(hours * job.spec.price_per_hour, 2)
        if left_s is not None:
            values["cost_to_end_of_training"] = round((hours + left_s / 3600) * job.spec.price_per_hour, 2)
    return values


def _ended(job: Job, found: dict[str, Any]) -> Problem:
    if found["status"] == "interrupted":
        message = f"nothing of run {job.run!r} works any more, and it did not end by itself: a reboot, or it was killed"
        return Problem(code="interrupted", message=message, hint="go on from the last checkpoint: remote.py run")
    message = f"stage {found['stage']} ended with exit code {found['exit_code']}: {found['last_line']}"
    return Problem(code="stage_failed", message=message, hint="remote.py logs says why; then remote.py run goes on")


def logs(args: argparse.Namespace, job: Job) -> Summary:
    stream = sys.stderr.buffer if args.json else sys.stdout.buffer
    _follow(job, -LOG_TAIL_BYTES, stream, follow=args.follow)
    return _summary(args, job, [])


def _follow(job: Job, offset: int, stream: Any, *, follow: bool = True) -> None:
    """Copies the run's log to a stream; a dropped connection goes on at the byte where it broke."""
    from tasklib.remote import ssh

    at = {"offset": offset}

    def once() -> None:
        request = {"task": job.definition.name, "run": job.run, "follow": follow, **at}
        with ssh.conversation(job.spec, "logs", request) as talk:
            talk.stdin.close()
            at["offset"] = talk.answer()["from"]
            while block := talk.stdout.read1(1 << 16):
                stream.write(block)
                stream.flush()
                at["offset"] += len(block)
            if talk.process.wait():
                raise talk.failure()

    ssh.retried(once)


def pull(args: argparse.Namespace, job: Job) -> Summary:
    """Brings the results; only when every file is here and whole may the server's copy go."""
    from tasklib.remote import manifest, placing, transfer

    found = job.call("inventory", **manifest.results_of(job.run, checkpoints=args.checkpoints))
    files = found["files"]
    if f"models/{job.run}/run.json" not in files:
        problem = Problem(code="no_run", message=f"the server has no run {job.run!r}", hint="start it: remote.py run")
        raise TaskError(cli.ExitCode.PREREQUISITE, [problem], next=_command("run", args))
    incoming = job.paths.root / ".remote" / job.run
    names = placing.wanted(job.paths, job.run, files)
    transfer.fetch(job.spec, job.definition.name, found, names, incoming)
    aside = placing.place(job.paths, job.run, incoming, names) if names else None
    shutil.rmtree(incoming, ignore_errors=True)
    counts = {"files": len(files), "fetched": len(names), "fetched_bytes": sum(files[name][1] for name in names)}
    warnings = []
    if aside:
        message = f"another run {job.run!r} was here: it lies in {job.paths.shown(aside)} now"
        warnings.append(Problem(code="moved_aside", message=message, hint="nothing of it was lost"))
    outputs = {"run": job.paths.shown(job.paths.run(job.run)), "server_copy": "may go: every file is here and whole"}
    if args.delete_remote:
        kept = job.call("remove", files=files)["kept"]
        outputs["server_copy"] = f"deleted, but {len(kept)} files that changed meanwhile" if kept else "deleted"
        outputs |= {} if args.checkpoints else {"left_there": "checkpoints, which were not pulled"}
    report = {"run": job.run, "counts": counts, "outputs": outputs, "warnings": warnings}
    after = f"uv run python scripts/04_evaluate.py --config {shlex.quote(args.config)}"
    return Summary.of("remote", "ok" if names else "skipped", **report, next=after)


def stop(args: argparse.Namespace, job: Job) -> Summary:
    """Asks the run to stop after its step, and waits until nothing of it works any more."""
    asked = job.call("stop", now=args.now)
    found = asked
    while found["status"] == "running":
        time.sleep(1)
        found = job.call("status")
    report = {"run": job.run, "outputs": _outputs(found), "next": _command("run", args)}
    return Summary.of("remote", "ok" if asked["asked"] else "skipped", **report)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), remote, argv)


if __name__ == "__main__":
    sys.exit(main())
