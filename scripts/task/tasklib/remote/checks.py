"""What will fail on a server, told before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasklib.schema import RemoteSpec
from tasklib.summary import Problem

# What the pinned packages need: https://docs.nvidia.com/cuda/cuda-toolkit-release-notes ("CUDA minor version
# compatibility": CUDA 13.x runs on drivers from 580) and PyPI's torch wheels, which are manylinux_2_28.
TORCH_CUDA = "13"
MIN_DRIVER = 580
MIN_GLIBC = (2, 28)
MIN_AGENT_PYTHON = (3, 8)
ENVIRONMENT_BYTES = 9_000_000_000  # torch with its CUDA libraries, unpacked
SKEW_S = 120
BUSY_SHARE, BUSY_PERCENT = 0.05, 10  # of a GPU's memory; of its time
HUB, INDEX = "https://huggingface.co", "https://pypi.python.org"  # the package index by its older name


def urls(*, uses_uv: bool, uses_hub: bool) -> list[str]:
    """Addresses that the server must reach."""
    return [url for url, is_needed in ((HUB, uses_hub), (INDEX, uses_uv)) if is_needed]


def findings(
    spec: RemoteSpec, found: dict[str, Any], estimated_bytes: int | None, sent_bytes: int
) -> tuple[list[Problem], list[Problem]]:
    """(errors, warnings): what cannot work, and what may not."""
    errors = [*_system(spec, found), *_disk(spec, found, sent_bytes)]
    warnings = [*_network(found), *_clock(found)]
    gpu_errors, gpu_warnings = _gpus(spec, found, estimated_bytes)
    return errors + gpu_errors, warnings + gpu_warnings


def visible(spec: RemoteSpec, gpus: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """The GPUs that compute.remote.cuda_devices names."""
    if not gpus or spec.cuda_devices is None:
        return list(gpus or [])
    named = spec.cuda_devices.split(",")
    return [gpu for gpu in gpus if str(gpu["index"]) in named or any(gpu["uuid"].startswith(n) for n in named)]


def room_bytes(spec: RemoteSpec, found: dict[str, Any]) -> int | None:
    """Free memory of the fullest GPU that the run may use; None without a GPU."""
    return min((gpu["memory_bytes"] - gpu["used_bytes"] for gpu in visible(spec, found["gpus"])), default=None)


def shared_out(
    spec: RemoteSpec, found: dict[str, Any], launched: dict[str, Any] | None
) -> tuple[list[Problem], list[Problem]]:
    """(errors, warnings): whether the run's accelerate config goes with the GPUs of the server."""
    n_there = len(visible(spec, found["gpus"]))
    if launched is None:
        if n_there < 2:
            return [], []
        message = f"{n_there} GPUs are there for the run, and one will be used"
        hint = "share it out: scripts/launch.py; or name one: remote.py setup --cuda-devices 0"
        return [], [Problem(code="one_gpu_used", message=message, hint=hint)]
    if launched.get("num_machines", 1) > 1:
        message = f"accelerate.yaml is for {launched['num_machines']} nodes, compute.remote is one"
        return [Problem(code="several_nodes", message=message, hint="sbatch train.sbatch, or launch.py anew")], []
    wanted = launched.get("num_processes", 1)
    if launched.get("distributed_type") != "NO" and found["gpus"] and wanted > n_there:
        message = f"accelerate.yaml wants {wanted} GPUs, the run may use {n_there}"
        return [Problem(code="too_few_gpus", message=message, hint="launch.py anew, or setup --cuda-devices")], []
    return [], []


def busy(gpus: Sequence[dict[str, Any]]) -> list[Problem]:
    """A warning for each GPU on which somebody works."""
    found = []
    for gpu in gpus:
        share = gpu["used_bytes"] / max(gpu["memory_bytes"], 1)
        if share > BUSY_SHARE or gpu["utilization_percent"] > BUSY_PERCENT:
            message = (
                f"GPU {gpu['index']} ({gpu['name']}) is in use: {gpu['used_bytes'] / 1e9:.1f} of "
                f"{gpu['memory_bytes'] / 1e9:.1f} GB, {gpu['utilization_percent']} % of its time"
            )
            hint = "ask whose it is, or name another: remote.py setup --cuda-devices"
            found.append(Problem(code="gpu_busy", message=message, hint=hint))
    return found


def _system(spec: RemoteSpec, found: dict[str, Any]) -> list[Problem]:
    problems = []
    if found["platform"] != "linux":
        message = f"the server runs {found['platform']}"
        problems.append(Problem(code="not_linux", message=message, hint="only Linux servers are supported"))
    if _version(found["agent_python"]) < MIN_AGENT_PYTHON:
        message = f"the server's python3 is {found['agent_python']}"
        problems.append(Problem(code="old_python", message=message, hint="Python 3.8 or later is needed there"))
    for folder in found["missing"]:
        hint = "copy the folder there under the same path, or name a Hub id"
        message = f"the base model {folder} is no folder of the server"
        problems.append(Problem(code="no_base_model", message=message, field="base_model.id", hint=hint))
    name, version = (*found["libc"], "", "")[:2]
    if name == "glibc" and _version(version) < MIN_GLIBC:
        message = f"glibc is {version}: torch needs {'.'.join(map(str, MIN_GLIBC))} or later"
        hint = "a newer system is needed (Ubuntu 20.04, Debian 11, RHEL 8 or later)"
        problems.append(Problem(code="old_glibc", message=message, hint=hint))
    if not found["writable"]:
        message = f"nothing may be written to {found['root']}"
        problems.append(
            Problem(code="not_writable", message=message, hint="set another one: remote.py setup --workdir")
        )
    if spec.python and found["python"] is None:
        message = f"{spec.python} does not run on the server"
        hint = "name an interpreter there, or leave compute.remote.python out: uv brings its own"
        problems.append(Problem(code="no_interpreter", message=message, field="compute.remote.python", hint=hint))
    return problems


def _disk(spec: RemoteSpec, found: dict[str, Any], sent_bytes: int) -> list[Problem]:
    needed = sent_bytes + (0 if found["has_environment"] or spec.python else ENVIRONMENT_BYTES)
    if found["disk_free_bytes"] >= needed:
        return []
    message = (
        f"{found['disk_free_bytes'] / 1e9:.1f} GB are free, {needed / 1e9:.1f} GB are needed before the model comes: "
        "the Python packages and what is sent"
    )
    return [Problem(code="disk_full", message=message, hint="free some space, or set another --workdir")]


def _network(found: dict[str, Any]) -> list[Problem]:
    hints = {
        HUB: "a model that is not there already cannot be loaded; pass a mirror on: remote.py run --env HF_ENDPOINT",
        INDEX: "packages cannot be installed; pass a mirror on (--env UV_DEFAULT_INDEX), or set compute.remote.python",
    }
    return [
        Problem(code="unreachable", message=f"the server does not reach {url}: {why}", hint=hints[url])
        for url, why in found["unreachable"].items()
    ]


def _clock(found: dict[str, Any]) -> list[Problem]:
    skew_s = found["time_s"] - found["asked_at_s"]
    if abs(skew_s) - (found["answered_at_s"] - found["asked_at_s"]) < SKEW_S:
        return []
    message = f"the server's clock is {abs(skew_s):.0f} s {'ahead' if skew_s > 0 else 'behind'}"
    hint = "times in run.json are the server's own; nothing here compares clocks, but TLS may fail: ask for NTP"
    return [Problem(code="clock_skew", message=message, hint=hint)]


def _gpus(spec: RemoteSpec, found: dict[str, Any], estimated_bytes: int | None) -> tuple[list[Problem], list[Problem]]:
    if not found["gpus"]:
        message = "nvidia-smi found no GPU on the server"
        problem = Problem(code="no_gpu", message=message, hint="training runs on the CPU there, which is slow")
        if spec.cuda_devices is None:
            return [], [problem]
        return [
            Problem(
                code="no_gpu", message=message, hint="ask its administrator; to train on its CPU: --cuda-devices all"
            )
        ], []
    chosen = visible(spec, found["gpus"])
    if not chosen or (len(chosen) < len((spec.cuda_devices or "").split(",")) and spec.cuda_devices):
        legal = ", ".join(str(gpu["index"]) for gpu in found["gpus"])
        message = f"cuda_devices is {spec.cuda_devices}; the server has {legal}"
        return [
            Problem(code="no_such_gpu", message=message, field="compute.remote.cuda_devices", hint="setup again")
        ], []
    errors = []
    driver = chosen[0]["driver"]
    if spec.python is None and _version(driver)[:1] < (MIN_DRIVER,):
        message = f"the NVIDIA driver is {driver}: torch for CUDA {TORCH_CUDA} needs {MIN_DRIVER} or later"
        hint = "ask for a newer driver, or name an interpreter with an older torch: compute.remote.python"
        errors.append(Problem(code="old_driver", message=message, hint=hint))
    room = min(gpu["memory_bytes"] - gpu["used_bytes"] for gpu in chosen)
    if estimated_bytes is not None and estimated_bytes > room:
        message = f"the run needs about {estimated_bytes / 1e9:.1f} GB, {room / 1e9:.1f} GB are free on the GPU"
        hint = "03_train.py --dry-run names settings that fit; or choose another GPU: remote.py setup --cuda-devices"
        errors.append(Problem(code="does_not_fit", message=message, hint=hint))
    return errors, busy(chosen)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
