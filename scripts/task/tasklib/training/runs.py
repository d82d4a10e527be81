"""One run: its identity, its folder, its lock and its record run.json."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import importlib.metadata
import math
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tasklib.data.conversion import MANIFEST_VERSION, definition_parts
from tasklib.exit_codes import ExitCode
from tasklib.files import read_json, sha256_of, sha256_of_json, write_json
from tasklib.paths import TaskPaths
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.summary import Problem, TaskError
from tasklib.training import processes

PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "tokenizers", "numpy")
LOGGING_KEYS = {"report_to", "run_name", "logging_dir", "project", "trackio_space_id"}


class RunRecord(BaseModel):
    """models/<run>/run.json. `decided` is what the config left to the machine, `alerts` what went wrong on the way.
    `chain` are the runs that this one goes on from (`start_from`), the first one first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    status: Literal["running", "finished", "failed", "stopped"]
    argv: list[str]
    config: dict[str, Any]
    identity: dict[str, Any]
    inputs: dict[str, str]
    code: dict[str, str]
    environment: dict[str, str]
    hardware: dict[str, Any]
    seed: int
    started_at: str
    finished_at: str | None = None
    prompt_sha256: str | None = None
    enable_thinking: bool = False
    decided: dict[str, Any] = {}
    counts: dict[str, int] = {}
    peak_memory_bytes: int | None = None
    estimated_memory_bytes: int | None = None
    final: dict[str, float] = {}
    alerts: list[dict[str, Any]] = []
    parent_run: str | None = None
    chain: list[dict[str, Any]] = []


def run_name(config_file: Path, limit: int | None) -> str:
    """The stem of the config file; a limited run is kept apart."""
    return config_file.stem if limit is None else f"{config_file.stem}.limit{limit}"


def seed_runs(name: str, seed: int, n: int) -> list[tuple[str, int]]:
    """(run name, seed) of `n` runs of one config that differ in their seed alone; the first is the run itself."""
    return [(name, seed)] + [(f"{name}.s{seed + i}", seed + i) for i in range(1, n)]


def with_seed(config: RunConfig, seed: int) -> RunConfig:
    """The same config with another training.seed."""
    training = config.training.model_copy(update={"seed": seed})
    return config.model_copy(update={"training": training})


def global_batch_size(config: RunConfig) -> int:
    """Rows of one optimizer step, over all processes."""
    fields = config.training.trl_fields
    rows = fields["per_device_train_batch_size"] * fields.get("gradient_accumulation_steps", 1)
    return rows * processes.world_size()


def total_steps(config: RunConfig, n_rows: int) -> int:
    """Optimizer steps of a run."""
    fields = config.training.trl_fields
    if fields.get("max_steps", -1) > 0:
        return fields["max_steps"]
    n_batches = math.ceil(n_rows / config.training.per_device_train_batch_size / processes.world_size())
    per_epoch = math.ceil(n_batches / fields.get("gradient_accumulation_steps", 1))
    return math.ceil(per_epoch * config.training.num_train_epochs)


def identity(config: RunConfig, definition: TaskDefinition, paths: TaskPaths) -> dict[str, Any]:
    """What a run is: `parts` that change the trained model, and their hash. Where logs go and how answers are decoded
    is not among them; evaluation has an identity of its own."""
    apart = {"parent": True, "hypothesis": True, "generation": True, "imbalance": {"prior_correction"}}
    resolved = config.model_dump(mode="json", exclude=apart)
    resolved["training"] = {key: value for key, value in resolved["training"].items() if key not in LOGGING_KEYS}
    if config.start_from is not None:
        started = read_record(paths.run(config.start_from))
        resolved["start_from"] = [config.start_from, started and [started.identity["sha256"], started.finished_at]]
    else:
        del resolved["start_from"]
    if config.preference_data is not None:
        path = paths.root / config.preference_data
        resolved["preference_data"] = [config.preference_data, sha256_of(path) if path.is_file() else None]
    else:
        del resolved["preference_data"]
    manifest = read_json(paths.manifest) if paths.manifest.is_file() else {"files": {}}
    parts = {
        "config": resolved,
        "definition": definition_parts(definition),
        "processed": manifest["files"],
        "processed_version": manifest.get("schema_version", MANIFEST_VERSION),
    }
    return {"sha256": sha256_of_json(parts), "parts": parts}


def differences(old: Any, new: Any, at: str = "") -> list[str]:
    """`key: old -> new` for every leaf in which two identities differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted({*old, *new}):
            found += differences(old.get(key), new.get(key), f"{at}.{key}" if at else key)
        return found
    return [] if old == new else [f"{at}: {_short(old)} -> {_short(new)}"]


def read_record(run_folder: Path) -> RunRecord | None:
    """run.json of a run, or None where there is none."""
    path = run_folder / "run.json"
    return RunRecord.model_validate(read_json(path)) if path.is_file() else None


def write_record(run_folder: Path, record: RunRecord) -> None:
    write_json(run_folder / "run.json", record.model_dump(mode="json"))


def finished_run(paths: TaskPaths, name: str) -> RunRecord:
    """The record of a finished run. Raises TaskError (exit 4) when it is missing or did not finish."""
    record = read_record(paths.run(name))
    if record is None or record.status != "finished":
        state = "does not exist" if record is None else f"is {record.status}"
        command = f"uv run python scripts/03_train.py --config configs/{name}.yaml" + (" --resume" if record else "")
        problem = Problem(
            code="run_not_finished",
            message=f"run {name!r} {state}",
            file=paths.shown(paths.run(name) / "run.json"),
            hint="train it first",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem], next=command)
    return record


def start(paths: TaskPaths, config: RunConfig) -> RunRecord | None:
    """The finished run that a config goes on from; None where it begins with the base model. Raises TaskError (exit 4)
    where it is not finished, (exit 2) where its base model or adapter is another one."""
    if config.start_from is None:
        return None
    record = finished_run(paths, config.start_from)
    own = config.model_dump(mode="json")
    changed = [line for key in ("base_model", "adapter") for line in differences(record.config[key], own[key], key)]
    if changed:
        hint = f"write what run {config.start_from!r} has: its weights are loaded as they are"
        problems = [Problem(code="start_differs", message=line, field="start_from", hint=hint) for line in changed]
        raise TaskError(ExitCode.USAGE, problems)
    return record


def chain_of(name: str, record: RunRecord) -> list[dict[str, Any]]:
    """`chain` of a run that goes on from the run `name`."""
    link = {"run": name, "method": record.config.get("method", "sft"), "identity": record.identity["sha256"]}
    return [*record.chain, link | {"finished_at": record.finished_at}]


def require_same_identity(record: RunRecord, wanted: dict[str, Any], name: str, hint: str) -> None:
    """Raises TaskError (exit 2) with every difference when a run was made from something else."""
    if record.identity["sha256"] == wanted["sha256"]:
        return
    changed = differences(record.identity["parts"], wanted["parts"])
    problems = [
        Problem(code="identity_differs", message=f"run {name!r} was made with another {line}", hint=hint)
        for line in changed
    ]
    raise TaskError(ExitCode.USAGE, problems)


def code_hashes(paths: TaskPaths) -> dict[str, str]:
    """sha256 of every script of the task, so that an edited one shows."""
    scripts = paths.root / "scripts"
    return {str(p.relative_to(scripts)): sha256_of(p) for p in sorted(scripts.rglob("*.py"))}


def environment() -> dict[str, str]:
    """Versions that can change a result."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def hardware() -> dict[str, Any]:
    """What the run had: processor count, if any the GPU, and how accelerate shares the work out (its own word)."""
    import torch
    from accelerate import PartialState

    found: dict[str, Any] = {"machine": platform.machine(), "cpu_count": os.cpu_count(), "gpu": None}
    found["distributed_type"] = PartialState().distributed_type.value if processes.world_size() > 1 else "NO"
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = {"name": properties.name, "memory_bytes": properties.total_memory}
    return found


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def lock(run_folder: Path) -> Iterator[None]:
    """One writer at a time. Raises TaskError (exit 4) when another process trains this run."""
    run_folder.mkdir(parents=True, exist_ok=True)
    with (run_folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            problem = Problem(
                code="run_locked",
                message=f"another process is writing {run_folder.name}",
                hint="wait until it ends, or stop it",
            )
            raise TaskError(ExitCode.PREREQUISITE, [problem]) from None
        yield


def move_aside(run_folder: Path) -> Path:
    """Renames an older run out of the way; nothing is ever deleted."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    aside, number = run_folder.with_name(f"{run_folder.name}.old-{stamp}"), 1
    while aside.exists():
        aside, number = run_folder.with_name(f"{run_folder.name}.old-{stamp}-{number}"), number + 1
    run_folder.rename(aside)
    return aside


def command_line() -> list[str]:
    """argv without the folder that the script lies in."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "…"
