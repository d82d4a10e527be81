"""Files over the connection: by rsync where both sides have it, by tar through ssh otherwise. What counts as arrived is
decided by hashes afterwards, never by how a program ended."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.files import sha256_of
from tasklib.remote import ssh
from tasklib.schema import RemoteSpec
from tasklib.summary import Problem, TaskError

Files = dict[str, list[Any]]  # name below the task's folder -> [sha256, bytes], or [sha256, bytes, "x"] of a program


def described(path: Path) -> list[Any]:
    """A file as both sides name it."""
    mode = path.stat().st_mode
    return [sha256_of(path), path.stat().st_size, *(["x"] if mode & 0o100 else [])]


def is_there(path: Path, file: Sequence[Any]) -> bool:
    return path.is_file() and path.stat().st_size == file[1] and sha256_of(path) == file[0]


def push(spec: RemoteSpec, task: str, root: Path, files: Files) -> dict[str, Any]:
    """Sends what the server has not, and has every file checked there by its hash. Returns the names that changed and
    how many were sent."""

    def once() -> dict[str, Any]:
        found = ssh.call(spec, "compare", retries=False, task=task, files=files)
        needed = found["needed"]
        if needed and not (found["rsync"] and _rsync_to(spec, root, found["incoming"], needed)):
            _tar_to(spec, task, root, needed)
        done = ssh.call(spec, "accept", retries=False, task=task, files=files)
        return {**done, "sent": len(needed), "sent_bytes": sum(files[name][1] for name in needed)}

    return ssh.retried(once)


def fetch(spec: RemoteSpec, task: str, found: dict[str, Any], names: Sequence[str], incoming: Path) -> None:
    """Brings named files of an inventory into a folder, checked by their hash. Raises TaskError (exit 4)."""
    incoming.mkdir(parents=True, exist_ok=True)

    def once() -> None:
        needed = [name for name in names if not is_there(incoming / name, found["files"][name])]
        if needed and not (found["rsync"] and _rsync_from(spec, found["root"], incoming, needed)):
            _tar_from(spec, task, incoming, needed)

    ssh.retried(once)
    if wrong := [name for name in names if not is_there(incoming / name, found["files"][name])]:
        for name in wrong:
            (incoming / name).unlink(missing_ok=True)
        message = f"{len(wrong)} files did not arrive whole, the first: {wrong[0]}"
        hint = "run the same command again: only what is missing is fetched"
        raise TaskError(ExitCode.PREREQUISITE, [Problem(code="not_whole", message=message, hint=hint)])


# rsync. Its own partial files make a cut transfer of one large file go on where it was.


@functools.cache
def _has_rsync() -> bool:
    """Whether rsync here is the real one, of version 3 or later: others cannot protect strange names."""
    if not shutil.which("rsync"):
        return False
    said = subprocess.run(["rsync", "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    found = re.match(r"rsync +version +v?(\d+)\.", said)
    return bool(found) and int(found[1]) >= 3


def _rsync_to(spec: RemoteSpec, root: Path, incoming: str, names: Sequence[str]) -> bool:
    return _rsync(spec, f"{root}/", f"{spec.host}:{incoming}/", names)


def _rsync_from(spec: RemoteSpec, root: str, incoming: Path, names: Sequence[str]) -> bool:
    return _rsync(spec, f"{spec.host}:{root}/", f"{incoming}/", names)


def _rsync(spec: RemoteSpec, source: str, target: str, names: Sequence[str]) -> bool:
    """False where rsync cannot be used after all: a login shell that prints something breaks its protocol."""
    if not _has_rsync():
        return False
    shell = " ".join(_quoted(word) for word in ssh.ssh_arguments(spec))
    # -s: names go through no shell; --checksum: neither clocks nor times of files decide what is sent
    flags = ["-s", "--checksum", "--partial", "--from0", "--files-from=-", "--timeout=60", "--no-motd"]
    done = subprocess.run(
        ["rsync", *flags, "-e", shell, "--", source, target],
        input=b"".join(name.encode() + b"\0" for name in names),
        capture_output=True,
    )
    if done.returncode == 0:
        return True
    said = done.stderr.decode("utf-8", "replace")
    if "is your shell clean" in said or "protocol version mismatch" in said:
        return False
    if "No space left on device" in said or "Disk quota exceeded" in said:
        problem = Problem(code="disk_full", message="the disk is full where the files go", hint="free some space there")
        raise TaskError(ExitCode.PREREQUISITE, [problem])
    # 10, 12, 30, 35, 255: the connection (rsync(1), EXIT VALUES)
    raise ssh.failure(said, 255 if done.returncode in (10, 12, 20, 30, 35, 255) else done.returncode, spec.host)


def _quoted(word: str) -> str:
    """A word of rsync's -e, by its own rule: a quote inside quotes is doubled, nothing else means anything."""
    return "'" + word.replace("'", "''") + "'"


# tar through ssh.


def _tar_to(spec: RemoteSpec, task: str, root: Path, names: Sequence[str]) -> None:
    with ssh.conversation(spec, "receive", {"task": task, "files": list(names)}) as talk:
        talk.send(lambda stream: _write_tar(stream, root, names))
        talk.answer()


def _write_tar(stream: Any, root: Path, names: Sequence[str]) -> None:
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            archive.add(root / name, arcname=name, recursive=False)


def _tar_from(spec: RemoteSpec, task: str, incoming: Path, names: Sequence[str]) -> None:
    with ssh.conversation(spec, "send", {"task": task, "names": list(names)}) as talk:
        talk.stdin.close()
        talk.answer()
        try:
            with tarfile.open(fileobj=talk.stdout, mode="r|") as archive:
                for member in archive:
                    if not member.isreg() or member.name not in names:
                        raise tarfile.ReadError(f"{member.name!r} was not asked for")
                    _take(archive.extractfile(member), incoming / member.name)
        except tarfile.ReadError:  # the stream ended early: how ssh ended says why, the hashes say what is missing
            raise talk.failure() from None


def _take(source: Any, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as stream:
        shutil.copyfileobj(source, stream, 1 << 20)
    Path(stream.name).chmod(0o644)
    Path(stream.name).replace(target)
