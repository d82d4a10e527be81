"""What memory is free for this process, on the GPU or on CPU, inside a container or not."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

# file names in a cgroup: limit, usage
CGROUP_V1, CGROUP_V2 = ("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")


def free_bytes(device: str = "cpu", root: Path = Path("/")) -> int:
    """Bytes that this process may hold in all.

    GPU: what the driver calls free, and what torch has reserved. CPU: what the kernel calls available, but no more than
    the tightest cgroup (v1 or v2) leaves, and what this process holds already. `root` is where /proc and /sys lie.
    """
    if device != "cpu":
        import torch

        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    meminfo = root / "proc" / "meminfo"
    if not meminfo.is_file():  # no Linux
        import psutil

        return psutil.virtual_memory().available + _peak_bytes()
    available = _kilobytes(meminfo, "MemAvailable")
    return min([available, *_left_in_cgroups(root)]) + _anonymous_bytes(root)


def _left_in_cgroups(root: Path) -> Iterator[int]:
    """Bytes left in each cgroup that this process is in and that has a limit, up to the root of the hierarchy.

    Pages of files that could be dropped are no use of memory (`inactive_file`; the kernel's cgroup documentation). In a
    container the path may be that of the host: then the mount point itself is the process's own cgroup.
    """
    try:
        entries = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for entry in entries:
        _, controllers, path = entry.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount = root / "sys" / "fs" / "cgroup" / ("memory" if controllers else "")
        limit, usage = CGROUP_V1 if controllers else CGROUP_V2
        parts = [part for part in path.split("/") if part and part != ".."]
        for n in range(len(parts), -1, -1):
            folder = mount.joinpath(*parts[:n])
            allowed, used = _number_in(folder / limit), _number_in(folder / usage)
            if allowed is not None and used is not None:
                yield max(0, allowed - used + _droppable(folder))


def _number_in(path: Path) -> int | None:
    """The number in a cgroup file; None where there is none (`max`, or no such file)."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _droppable(folder: Path) -> int:
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    found = dict(line.split(" ", 1) for line in lines if " " in line)
    return int(found.get("total_inactive_file", found.get("inactive_file", 0)))


def _kilobytes(path: Path, key: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def resident_bytes() -> int:
    """Memory that this process holds, mapped files included; where the kernel does not say, the most it ever held."""
    status = Path("/proc/self/status")
    return _kilobytes(status, "VmRSS") if status.is_file() else _peak_bytes()


def _anonymous_bytes(root: Path) -> int:
    """The same without mapped files, whose pages count as available."""
    status = root / "proc" / "self" / "status"
    return _kilobytes(status, "RssAnon") if status.is_file() else 0


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
