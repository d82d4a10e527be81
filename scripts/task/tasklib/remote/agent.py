"""What runs on the server. It is sent there through ssh with every command and is never installed: standard library
only, for Python 3.8 or later, and it imports nothing of this package.

The client writes a length and this file, then one JSON object (the request) on a line; the answer is a marker line and
one JSON object on a line, after which files may follow as a tar stream. Everything that a user named (paths, the run,
devices) comes in the request and never stands in a shell command.

A job is one run on its way through its stages. Its folder is `<task>/.remote/jobs/<run>/`:
    job.json    what was asked for, without the environment that was passed on
    state.json  which stage, since when, how it ended; replaced whole, never edited
    log.txt     everything that the stages print
    lock        held by a kernel lock as long as any process of the job lives, whatever happens to the others
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import BinaryIO

MARKER = b"\x1efinetune-llm 1\n"
CONTROL = ".remote"
INCOMING = "incoming"
POLL_S = 0.2
TAIL_BYTES = 65536


class Refused(Exception):
    """What a request cannot have: (code, message, hint)."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.problem = {"code": code, "message": message, "hint": hint}


# Places and small files.


def root_of(request: dict) -> str:
    """The task's folder on the server, absolute."""
    return os.path.join(os.path.abspath(os.path.expanduser(request["workdir"])), request["task"])


def job_folder(root: str, run: str) -> str:
    return os.path.join(root, CONTROL, "jobs", run)


def inside(root: str, name: str) -> str:
    """The place of a file that the other side named; a name that leads out of the task is refused."""
    path = os.path.normpath(os.path.join(root, name))
    if os.path.isabs(name) or not path.startswith(root + os.sep):
        raise Refused("path_outside", f"{name!r} does not lie in the task's folder", "this is a bug: please report it")
    return path


def read_json(path: str) -> dict | None:
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


def write_json(path: str, value: dict) -> None:
    """Replaces a file whole, or leaves it as it was."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = path + ".new"
    with open(temporary, "w", encoding="utf-8") as stream:
        json.dump(value, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def sha256_of(path: str) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()


def has(path: str, sha256: str, size: int) -> bool:
    """Whether a file is there with these bytes."""
    return os.path.isfile(path) and os.path.getsize(path) == size and sha256_of(path) == sha256


# Processes. A pid alone may be another process by now, or of another boot.


def boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def start_of(pid: int) -> int | None:
    """The start time of a process in clock ticks since boot (proc(5), field 22), or None where it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except (OSError, TypeError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def same_process(noted: list | None) -> bool:
    """Whether a process noted as [pid, start, boot id] still lives."""
    return bool(noted) and noted[2] == boot_id() and start_of(noted[0]) == noted[1]


def note_of(pid: int) -> list:
    return [pid, start_of(pid), boot_id()]


def open_lock(folder: str) -> int:
    os.makedirs(folder, exist_ok=True)
    return os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def taken(handle: int) -> bool:
    """Takes a job's lock; False where a process of the job holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


def is_alive(folder: str) -> bool:
    """Whether any process of a job lives."""
    if not os.path.isdir(folder):
        return False
    handle = open_lock(folder)
    try:
        return not taken(handle)
    finally:
        os.close(handle)


def alive_jobs(root: str) -> list[str]:
    folder = os.path.join(root, CONTROL, "jobs")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [name for name in names if is_alive(os.path.join(folder, name))]


# What the server is.


def gpus() -> list[dict] | None:
    """One object for each GPU that nvidia-smi sees; None where there is no nvidia-smi or it fails."""
    fields = "index,uuid,name,driver_version,memory.total,memory.used,utilization.gpu,compute_cap"
    command = ["nvidia-smi", "--query-gpu=" + fields, "--format=csv,noheader,nounits"]
    try:
        out = subprocess.run(command, capture_output=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = []
    for line in out.decode("utf-8", "replace").splitlines():
        index, uuid, name, driver, total, used, busy, capability = [part.strip() for part in line.split(",")]
        found.append(
            {
                "index": int(index),
                "uuid": uuid,
                "name": name,
                "driver": driver,
                "memory_bytes": number(total) << 20,
                "used_bytes": number(used) << 20,
                "utilization_percent": number(busy),
                "compute_capability": capability,
            }
        )
    return found


def number(text: str) -> int:
    """nvidia-smi writes [N/A] for what a GPU does not tell."""
    return int(float(text)) if text.replace(".", "", 1).isdigit() else 0


def memory_bytes() -> tuple[int | None, int | None]:
    """(all, available) memory of the machine."""
    found = {}
    try:
        with open("/proc/meminfo") as stream:
            for line in stream:
                name, _, rest = line.partition(":")
                found[name] = int(rest.split()[0]) * 1024
    except OSError:
        return None, None
    return found.get("MemTotal"), found.get("MemAvailable")


def existing(path: str) -> str:
    """The nearest folder above a path that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def uv_path(request: dict) -> str | None:
    """uv where the server has it; a login by ssh without a terminal often has a short PATH."""
    home = os.path.expanduser("~")
    own = os.path.join(os.path.abspath(os.path.expanduser(request["workdir"])), ".uv", "uv")
    places = [shutil.which("uv"), home + "/.local/bin/uv", home + "/.cargo/bin/uv", "/opt/homebrew/bin/uv", own]
    return next((place for place in places if place and os.access(place, os.X_OK)), None)


def version_of(*command: str) -> str | None:
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else None


def reached(url: str) -> str | None:
    """None where an address answers, whatever it says; otherwise why it does not."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10).close()
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return None


def probe(request: dict) -> dict:
    """Everything that decides whether a run will work here."""
    root = root_of(request)
    place = existing(root)
    total, available = memory_bytes()
    limits = os.statvfs(place)
    python = request.get("python")
    return {
        "time_s": time.time(),
        "hostname": platform.node(),
        "platform": sys.platform,
        "machine": platform.machine(),
        "kernel": platform.release(),
        "libc": list(platform.libc_ver()),
        "cpu_count": os.cpu_count(),
        "memory_bytes": total,
        "available_bytes": available,
        "root": root,
        "writable": os.access(place, os.W_OK | os.X_OK),
        "disk_free_bytes": limits.f_bavail * limits.f_frsize,
        "files_free": limits.f_favail,
        "agent_python": platform.python_version(),
        "python": version_of(python, "--version") if python else None,
        "uv": uv_path(request),
        "uv_version": version_of(uv_path(request) or "uv", "--version"),
        "rsync": version_of("rsync", "--version"),
        "gpus": gpus(),
        "unreachable": {url: why for url in request["urls"] for why in [reached(url)] if why},
        "has_environment": os.path.isfile(os.path.join(root, ".venv", "bin", "python")),
        "missing": [path for path in request["folders"] if not os.path.isdir(os.path.expanduser(path))],
        "alive": alive_jobs(root),
    }


# Files in.


def compare(request: dict) -> dict:
    """Which files of a manifest {name: [sha256, bytes]} must be sent. What came whole the last time is not asked for
    again. Refused where a job works with other files, or where they do not fit on the disk."""
    root = root_of(request)
    incoming = os.path.join(root, CONTROL, INCOMING)
    os.makedirs(incoming, exist_ok=True)
    changed = {n: f for n, f in request["files"].items() if not has(inside(root, n), f[0], f[1])}
    if changed:
        refuse_while_alive(root, changed)
    needed = {n: f for n, f in changed.items() if not has(inside(incoming, n), f[0], f[1])}
    free, size = shutil.disk_usage(incoming).free, sum(f[1] for f in needed.values())
    if size > free:
        message = f"{size / 1e9:.2f} GB must be sent, {free / 1e9:.2f} GB are free on the server"
        raise Refused("disk_full", message, "free some space there, or set compute.remote.workdir to another disk")
    return {"needed": sorted(needed), "incoming": incoming, "root": root, "rsync": bool(shutil.which("rsync"))}


def refuse_while_alive(root: str, changed: dict) -> None:
    alive = alive_jobs(root)
    if alive:
        message = f"run {alive[0]!r} works on the server with other files: {', '.join(sorted(changed)[:5])}"
        raise Refused("job_alive", message, "wait for its end (status), stop it, or set another compute.remote.workdir")


def receive(request: dict, stream: BinaryIO) -> dict:
    """Takes a tar stream of named files into the incoming folder."""
    incoming = os.path.join(root_of(request), CONTROL, INCOMING)
    n = 0
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if not member.isreg() or member.name not in request["files"]:
                raise Refused("not_asked_for", f"{member.name!r} was not asked for", "this is a bug: please report it")
            target = inside(incoming, member.name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target + ".part", "wb") as out:
                shutil.copyfileobj(archive.extractfile(member), out, 1 << 20)
            os.replace(target + ".part", target)
            n += 1
    return {"received": n}


def accept(request: dict) -> dict:
    """Moves what came to its place, after the hash of each file was checked; then every file of the manifest is
    there. A file that came wrong is thrown away and named."""
    root = root_of(request)
    incoming = os.path.join(root, CONTROL, INCOMING)
    changed = {n: f for n, f in request["files"].items() if not has(inside(root, n), f[0], f[1])}
    wrong = sorted(n for n, f in changed.items() if not has(inside(incoming, n), f[0], f[1]))
    for name in wrong:
        if os.path.isfile(inside(incoming, name)):
            os.unlink(inside(incoming, name))
    if wrong:
        message = f"{len(wrong)} files did not arrive whole, the first: {wrong[0]}"
        raise Refused("not_whole", message, "run the same command again: only what is missing is sent")
    if changed:
        refuse_while_alive(root, changed)
    for name in changed:
        target = inside(root, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.replace(inside(incoming, name), target)
        if request["files"][name][2:]:
            os.chmod(target, 0o755)
    shutil.rmtree(incoming, ignore_errors=True)
    return {"changed": sorted(changed), "root": root}


# A job.


def start(request: dict) -> dict:
    """Starts a job, detached; the answer comes when its process runs. Says `already` where one of this run lives."""
    root, run = root_of(request), request["run"]
    wrong = sorted(n for n, f in request["files"].items() if not has(inside(root, n), f[0], f[1]))
    if wrong:
        message = f"{len(wrong)} files are missing or others than here, the first: {wrong[0]}"
        raise Refused("not_pushed", message, "push first")
    folder = job_folder(root, run)
    handle = open_lock(folder)
    if not taken(handle):
        os.close(handle)
        return {"already": "running", **seen(root, run)}
    before = read_json(os.path.join(folder, "state.json"))
    if before and before["status"] == "finished" and covers(before, request):
        os.close(handle)
        return {"already": "finished", **seen(root, run)}
    job = {key: value for key, value in request.items() if key not in ("environment", "files", "action")}
    write_json(os.path.join(folder, "job.json"), job)
    came, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(came)
        os.setsid()
        if os.fork():
            os._exit(0)
        supervise_detached(root, folder, request, before, handle, told)
    os.close(told)
    os.close(handle)
    os.waitpid(child, 0)
    with os.fdopen(came, "rb") as stream:
        said = stream.read()
    if said != b"started":
        raise Refused("not_started", "the job did not start: " + said.decode("utf-8", "replace"), "look at the logs")
    return {"already": None, **seen(root, run)}


def covers(before: dict, request: dict) -> bool:
    """Whether a finished job did all that is asked for now; one that ended at its gate goes no further."""
    if before["identity"] != request["identity"]:
        return False
    return bool(before["exit_code"]) or all(stage["name"] in before["done"] for stage in request["stages"])


def supervise_detached(root: str, folder: str, request: dict, before: dict | None, lock: int, told: int) -> None:
    """The job's own process from here on; it never returns."""
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_RDWR)
        log = os.open(os.path.join(folder, "log.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number, handle in ((0, nothing), (1, log), (2, log)):
            os.dup2(handle, number)
        Supervisor(root, folder, request, before, lock).run(lambda: (os.write(told, b"started"), os.close(told)))
    except BaseException as error:
        try:
            os.write(told, repr(error).encode("utf-8", "replace"))
        except OSError:
            print(f"supervisor: {error!r}", flush=True)
    finally:
        os._exit(0)


class Supervisor:
    """Takes one job through its stages and writes down how far it is."""

    def __init__(self, root: str, folder: str, request: dict, before: dict | None, lock: int) -> None:
        self.root, self.folder, self.request, self.lock = root, folder, request, lock
        self.stopping = None  # why the stage was asked to stop
        same = before if before and before["identity"] == request["identity"] else {}
        self.deadline = time.monotonic() + request["max_hours"] * 3600 if request.get("max_hours") else None
        self.state = {
            "status": "running",
            "identity": request["identity"],
            "stage": None,
            "done": [name for name in same.get("done", []) if name != "environment"],
            "attempt": same.get("attempt", 0) + 1,
            "used_s": used_s(same),
            "first_started_at_s": same.get("first_started_at_s", time.time()),
            "started_at_s": time.time(),
            "seen_at_s": time.time(),
            "exit_code": None,
            "why": None,
            "supervisor": note_of(os.getpid()),
            "process": None,
        }

    def save(self, **changes: object) -> None:
        """Writes the state; a full disk must not end a job that still works."""
        self.state.update(changes, seen_at_s=time.time())
        try:
            write_json(os.path.join(self.folder, "state.json"), self.state)
        except OSError as error:
            print(f"supervisor: state not written: {error}", flush=True)

    def run(self, started: Callable[[], object]) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self.ask("stop"))
        self.save()
        started()
        for stage in self.request["stages"]:
            if stage["name"] in self.state["done"]:
                continue
            print("== " + stage["name"], flush=True)
            code = self.stage(stage)
            if self.stopping:
                return self.save(status="stopped", why=self.stopping, exit_code=code, process=None)
            if code and code not in stage["ends_with"]:
                return self.save(status="failed", why="stage", exit_code=code, process=None)
            self.state["done"].append(stage["name"])
            if code:  # the gate was not met: what comes after it is not wanted
                return self.save(status="finished", exit_code=code, process=None)
        self.save(status="finished", stage=None, exit_code=0, process=None)

    def stage(self, stage: dict) -> int:
        """Runs one stage to its end; its exit code, negative where a signal ended it."""
        environment = dict(os.environ, **self.request["environment"])
        try:
            process = subprocess.Popen(
                [word.replace("{root}", self.root) if n == 0 else word for n, word in enumerate(stage["argv"])],
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=(self.lock,),
            )
        except OSError as error:
            print(f"supervisor: {error}", flush=True)
            return 127
        self.save(stage=stage["name"], process=note_of(process.pid), why=None)
        noted = time.monotonic()
        while process.poll() is None:
            time.sleep(POLL_S)
            if self.deadline and time.monotonic() > self.deadline:
                self.ask("max_hours")
            if self.stopping and self.stopping != self.state["why"]:
                self.save(why=self.stopping)
                process.send_signal(signal.SIGTERM)  # once: a second one would end a training without a checkpoint
            if time.monotonic() - noted > 30:  # how long it ran is known to half a minute, even after a power cut
                self.save()
                noted = time.monotonic()
        return process.returncode

    def ask(self, why: str) -> None:
        self.stopping = self.stopping or why


def used_s(state: dict) -> float:
    """Seconds that a job ran so far, over all its attempts."""
    return state.get("used_s", 0.0) + state.get("seen_at_s", 0.0) - state.get("started_at_s", 0.0) if state else 0.0


def seen(root: str, run: str) -> dict:
    """How far a job is. `finished` only where no process of it lives, every stage is done and run.json says so."""
    folder = job_folder(root, run)
    state = read_json(os.path.join(folder, "state.json"))
    alive = is_alive(folder)
    record = read_json(os.path.join(root, "models", run, "run.json")) or {}
    if state is None:
        status = "starting" if alive else "not_started"
    elif alive:
        status = "running"
    elif state["status"] == "running":
        status = "interrupted"
    elif state["status"] == "finished" and record.get("status") != "finished":
        status = "failed"
    else:
        status = state["status"]
    state = state or {}
    supervised = same_process(state.get("supervisor"))
    now = time.time() if alive else state.get("seen_at_s", 0.0)
    return {
        "status": status,
        "stage": state.get("stage"),
        "done": state.get("done", []),
        "attempt": state.get("attempt", 0),
        "exit_code": state.get("exit_code"),
        "why": state.get("why"),
        "supervised": supervised if alive else None,
        "run_status": record.get("status"),
        "used_s": used_s(dict(state, seen_at_s=now)) if state else 0.0,
        "identity": state.get("identity"),
    }


def status(request: dict) -> dict:
    """How far a job is, with the last numbers of the training, the GPUs and the disk."""
    root, run = root_of(request), request["run"]
    folder = job_folder(root, run)
    lines = tail(os.path.join(root, "models", run, "train_log.jsonl")).splitlines()
    steps = [line for line in map(parsed, lines) if line and "step" in line]
    training = {}
    for line in steps:
        training.update(
            {key: value for key, value in line.items() if key in ("step", "max_steps", "loss", "elapsed_s")}
        )
        training.update({key: value for key, value in line.items() if key in ("eval_loss", "epoch", "tokens_per_s")})
    words = [line.strip() for line in tail(os.path.join(folder, "log.txt")).replace("\r", "\n").splitlines()]
    return {
        **seen(root, run),
        "training": training,
        "last_line": next((line for line in reversed(words) if line), None),
        "gpus": gpus(),
        "disk_free_bytes": shutil.disk_usage(existing(root)).free,
        "time_s": time.time(),
        "root": root,
    }


def tail(path: str) -> str:
    """The whole lines at the end of a file."""
    try:
        with open(path, "rb") as stream:
            stream.seek(0, os.SEEK_END)
            start = max(0, stream.tell() - TAIL_BYTES)
            stream.seek(start)
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return text.partition("\n")[2] if start else text


def parsed(line: str) -> dict | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def logs(request: dict, out: BinaryIO) -> None:
    """Sends log.txt from a byte on; with `follow` until no process of the job lives."""
    root, run = root_of(request), request["run"]
    folder = job_folder(root, run)
    path = os.path.join(folder, "log.txt")
    if not os.path.isfile(path):
        raise Refused("no_job", f"run {run!r} was never started on the server", "start it: remote.py run")
    start = request["offset"] if request["offset"] >= 0 else max(0, os.path.getsize(path) + request["offset"])
    answer(out, {"from": start})
    with open(path, "rb") as stream:
        stream.seek(start)
        while True:
            alive = request["follow"] and is_alive(folder)
            for block in iter(lambda: stream.read(1 << 16), b""):
                out.write(block)
            out.flush()
            if not alive:
                return
            time.sleep(POLL_S)


def stop(request: dict) -> dict:
    """Asks a job to stop with a checkpoint, or kills it at once (`now`)."""
    root, run = root_of(request), request["run"]
    folder = job_folder(root, run)
    if not is_alive(folder):
        return {"asked": False, **seen(root, run)}
    state = read_json(os.path.join(folder, "state.json")) or {}
    supervisor, process = state.get("supervisor"), state.get("process")
    if request["now"]:
        if same_process(supervisor):
            os.killpg(os.getpgid(supervisor[0]), signal.SIGKILL)
        elif same_process(process):
            os.killpg(os.getpgid(process[0]), signal.SIGKILL)
    elif same_process(supervisor):
        os.kill(supervisor[0], signal.SIGTERM)
    elif same_process(process):
        os.kill(process[0], signal.SIGTERM)
    return {"asked": True, **seen(root, run)}


# Files out.


def inventory(request: dict) -> dict:
    """{name: [sha256, bytes]} of everything under the folders and files asked for."""
    root = root_of(request)
    if request.get("run") and is_alive(job_folder(root, request["run"])):
        raise Refused("job_alive", f"run {request['run']!r} still works on the server", "wait for its end: status")
    found = {}
    for wanted in request["paths"]:
        top = inside(root, wanted)
        names = [top] if os.path.isfile(top) else [os.path.join(d, n) for d, _, ns in os.walk(top) for n in ns]
        for path in names:
            name = os.path.relpath(path, root)
            skipped = any(part in request["without"] for part in name.split(os.sep))
            if os.path.isfile(path) and not os.path.islink(path) and not skipped:
                found[name] = [sha256_of(path), os.path.getsize(path)]
    return {"files": found, "root": root, "rsync": bool(shutil.which("rsync"))}


def send(request: dict, out: BinaryIO) -> None:
    """Sends named files as a tar stream."""
    root = root_of(request)
    answer(out, {"files": len(request["names"])})
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name in request["names"]:
            archive.add(inside(root, name), arcname=name, recursive=False)
    out.flush()


def remove(request: dict) -> dict:
    """Deletes exactly the files named, each only if it still has the bytes that were pulled. A run whose run.json is
    gone is one that was never started here: what the job had done is forgotten with it."""
    root = root_of(request)
    if is_alive(job_folder(root, request["run"])):
        raise Refused("job_alive", f"run {request['run']!r} still works on the server", "wait for its end: status")
    kept = []
    for name, (sha256, size) in sorted(request["files"].items()):
        path = inside(root, name)
        if has(path, sha256, size):
            os.unlink(path)
            folder = os.path.dirname(path)
            while folder != root and not os.listdir(folder):
                os.rmdir(folder)
                folder = os.path.dirname(folder)
        elif os.path.exists(path):
            kept.append(name)
    state = os.path.join(job_folder(root, request["run"]), "state.json")
    if not os.path.exists(os.path.join(root, "models", request["run"], "run.json")) and os.path.exists(state):
        os.unlink(state)
    return {"kept": kept}


# The conversation.


def answer(out: BinaryIO, value: dict) -> None:
    out.write(json.dumps(value).encode() + b"\n")
    out.flush()


ANSWERS = {f.__name__: f for f in (probe, compare, accept, start, status, stop, inventory, remove)}


def main(source: BinaryIO, out: BinaryIO) -> None:
    """Answers the one request that comes, in the form that the module's text says."""
    request = json.loads(source.readline().decode())
    out.write(MARKER)
    out.flush()
    try:
        if request["action"] == "receive":
            answer(out, receive(request, source))
        elif request["action"] in ("logs", "send"):
            {"logs": logs, "send": send}[request["action"]](request, out)
        else:
            answer(out, ANSWERS[request["action"]](request))
    except Refused as error:
        answer(out, {"problem": error.problem})
    except BrokenPipeError:
        pass  # the client is gone
    except OSError as error:
        code = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "os_error"
        hint = "free some space on the server" if code == "disk_full" else "check the path and its permissions there"
        message = f"{error.filename or 'the server'}: {error.strerror or error}"
        answer(out, {"problem": {"code": code, "message": message, "hint": hint}})


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
