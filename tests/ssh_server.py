"""Helper: an OpenSSH server on loopback with throwaway keys, and an `ssh` on PATH that knows it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin:/usr/local/sbin")


@dataclass
class Server:
    """The running server. `bin` goes to the front of PATH: its `ssh` is the system's own with another config file."""

    folder: Path
    port: int
    process: subprocess.Popen | None = None

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def key(self) -> Path:
        return self.folder / "user_key"

    def start(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)
        log = (self.folder / "sshd.log").open("ab")
        command = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise AssertionError((self.folder / "sshd.log").read_text())

    def cut(self) -> None:
        """Ends every connection at once, as a cable that is pulled; the server goes on listening."""
        for pid in _children(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        self.cut()
        self.process.kill()
        self.process.wait()


def _children(pid: int) -> list[int]:
    """The sshd processes of connections; what they started (detached jobs) lives on."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, fields = stat.read_text().rpartition(")")[::2]
            if int(fields.split()[1]) == pid and "sshd" in name:
                found += [*_children(int(stat.parent.name)), int(stat.parent.name)]
    return found


@contextlib.contextmanager
def running(folder: Path, **session: str) -> Iterator[Server]:
    """A server whose host key and user key were made for it. session: environment variables of what it runs."""
    folder.mkdir(mode=0o700)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = Server(folder, free.getsockname()[1])
    for name in ("host_key", "user_key", "other_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    lines = {
        "Port": server.port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": folder / "sshd.pid",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "StrictModes": "no",  # pytest's folders lie in /tmp
        "MaxStartups": "100",
    }
    if session:
        lines["SetEnv"] = " ".join(f'{name}="{value}"' for name, value in session.items())
    (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
    host_key = (folder / "host_key.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {' '.join(host_key)}\n")
    config = f"Host *\n  UserKnownHostsFile {folder / 'known_hosts'}\n  GlobalKnownHostsFile /dev/null\n"
    (folder / "ssh_config").write_text(config)
    server.bin.mkdir()
    wrapper = server.bin / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder / "ssh_config"} "$@"\n')
    wrapper.chmod(0o755)
    server.start()
    try:
        yield server
    finally:
        server.stop()
