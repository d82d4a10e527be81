"""What the server is asked to do for one run: its stages, in the order of run_pipeline.sh, and their environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.files import sha256_of_json
from tasklib.remote import manifest
from tasklib.remote.transfer import Files
from tasklib.schema import RemoteSpec, RunConfig
from tasklib.summary import Problem, TaskError

SHUTDOWN_S = 600  # how long a launcher of several processes waits for their checkpoint; by itself 30 s
STAGES = ("rehearse", "baselines", "train", "evaluate", "test")
_SCRIPTS = {
    "rehearse": ("03_train.py", "--rehearse"),
    "baselines": ("04_evaluate.py", "--baselines-only"),
    "train": ("03_train.py", "--resume"),
    "evaluate": ("04_evaluate.py",),
    "test": ("04_evaluate.py", "--split", "test"),
}


def extras(config: RunConfig) -> list[str]:
    """The optional packages of pyproject.toml that a run needs."""
    found = ["builtin"] if config.base_model.id.startswith("builtin:") else []
    found += ["constrained"] if config.generation.constrained else []
    return found + (["track"] if "tensorboard" in str(config.training.trl_fields.get("report_to")) else [])


def stages(
    spec: RemoteSpec, config: RunConfig, config_name: str, until: str, uv: str | None, launched: str | None = None
) -> list[dict[str, Any]]:
    """The commands of a job. `ends_with` are exit codes that end it without being a failure: the gate. launched: the
    accelerate config by which training is shared out, below the task's folder."""
    python, found = spec.python, []
    if python is None:
        python = "{root}/.venv/bin/python"
        words = [word for extra in extras(config) for word in ("--extra", extra)]
        found.append({"name": "environment", "argv": [uv, "sync", "--no-progress", *words], "ends_with": []})
    for name in STAGES[: STAGES.index(until) + 1]:
        script, *flags = _SCRIPTS[name]
        ends_with = [int(ExitCode.GATE)] if name in ("evaluate", "test") else []
        launcher = ["-m", "accelerate.commands.launch", "--config_file", launched]
        argv = [python, *(launcher if launched and script == "03_train.py" else [])]
        argv += [f"scripts/{script}", "--config", config_name, *flags]
        found.append({"name": name, "argv": argv, "ends_with": ends_with})
    return found


def environment(spec: RemoteSpec, names: Sequence[str], here: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the job's processes get beside the server's own environment: the devices, and the variables that the user
    named, with their values of this machine. They travel through ssh's input and are written nowhere."""
    if missing := [name for name in names if name not in here]:
        message = f"{', '.join(missing)} is not set here"
        problem = Problem(code="not_set", message=message, field="--env", hint="export it first, or leave --env out")
        raise TaskError(ExitCode.USAGE, [problem])
    found = {"PYTHONUNBUFFERED": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_S)}
    found |= {name: here[name] for name in names}
    return found | ({"CUDA_VISIBLE_DEVICES": spec.cuda_devices} if spec.cuda_devices else {})


def identity(spec: RemoteSpec, files: Files) -> str:
    """The same for two jobs exactly where the second would do what the first did."""
    return sha256_of_json([{n: f[:2] for n, f in manifest.identity_files(files).items()}, spec.python])
