"""The connection: the system's ssh, so that ~/.ssh/config, jump hosts and agents work, with one command that never
changes. Everything else goes through its standard input as data."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tasklib.exit_codes import ExitCode
from tasklib.schema import RemoteSpec
from tasklib.summary import Problem, TaskError

AGENT = Path(__file__).with_name("agent.py")
MARKER = b"\x1efinetune-llm 1\n"  # what a login shell prints before it is no answer
_BOOT = (
    "import sys; i = sys.stdin.buffer; "
    'exec(compile(i.read(int(i.readline())), "agent", "exec"), {"__name__": "__main__"})'
)
REMOTE_COMMAND = f"exec python3 -c '{_BOOT}'"  # single quotes mean the same to sh, bash, zsh, fish and csh
RETRIES_S = (1, 2, 4, 8, 15)  # waits before a dropped connection is made again
CONNECT_TIMEOUT_S = 20


@dataclass(frozen=True)
class _Failure:
    """What ssh says on stderr, and what it means."""

    pattern: str
    code: str
    hint: str
    may_pass: bool = False


# Messages of OpenSSH's ssh (sshconnect.c, ssh.c, clientloop.c, packet.c); the first that fits is told.
_FAILURES = (
    _Failure("REMOTE HOST IDENTIFICATION HAS CHANGED", "host_key_changed",
             "somebody may be in between, or the server was set up anew: ask its owner for the fingerprint, and only "
             "then remove the old key (ssh-keygen -R) and connect once by hand"),
    _Failure("Host key verification failed|host key is known for", "host_key_unknown",
             "connect once by hand, compare the fingerprint with the one its owner gave, and answer yes"),
    _Failure("Permission denied", "login_refused",
             "check compute.remote.host and ssh_key; a key with a passphrase must be in ssh-agent (ssh-add)"),
    _Failure("Could not resolve hostname", "host_not_found", "check compute.remote.host, or the Host in ~/.ssh/config"),
    _Failure("Too many authentication failures", "login_refused", "name the key: remote.py setup --ssh-key"),
    _Failure("Bad configuration option|Bad owner or permissions|terminating, .* bad configuration", "ssh_config",
             "mend ~/.ssh/config"),
    _Failure("Connection refused|No route to host|Network is unreachable|timed out|Connection closed by|"
             "Connection reset|Broken pipe|not responding|closed by remote host|kex_exchange_identification|"
             "mux_client|Control socket|Session open refused", "connection_lost",
             "check the network, a VPN and the server, then run the same command again: it continues", True),
)  # fmt: skip


class ConnectionLost(TaskError):
    """The connection broke or could not be made just now: the same request may be sent again."""


def ssh_arguments(spec: RemoteSpec) -> list[str]:
    """ssh with the options that keep it from hanging or asking, without the host."""
    options = {
        "BatchMode": "yes",  # never a prompt
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": CONNECT_TIMEOUT_S,
        "ServerAliveInterval": 10,
        "ServerAliveCountMax": 3,
        "ControlMaster": "auto",
        "ControlPath": f"{_control_folder()}/%C",
        "ControlPersist": 60,
    }
    words = ["ssh", "-T", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    if spec.port:
        words += ["-p", str(spec.port)]
    if spec.ssh_key:
        words += ["-o", "IdentitiesOnly=yes", "-i", str(Path(spec.ssh_key).expanduser())]
    return words


def _control_folder() -> Path:
    """A private folder for the sockets of shared connections; its name is short, because a socket's path may have no
    more than some hundred bytes (unix(7))."""
    folder = Path(f"/tmp/ft-ssh-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        message = f"{folder} belongs to somebody else or is open to others"
        problem = Problem(code="control_folder", message=message, hint="remove it, or ask its owner to")
        raise TaskError(ExitCode.PREREQUISITE, [problem])
    return folder


def close(spec: RemoteSpec) -> None:
    """Ends the shared connection, if there is one."""
    command = [*ssh_arguments(spec), "-O", "exit", "--", spec.host]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def call(spec: RemoteSpec, action: str, *, retries: bool = True, **request: Any) -> dict[str, Any]:
    """The answer of `agent.py` to one request. A connection that drops is made again: every request may be sent twice.
    Raises TaskError (exit 4) with what ssh or the agent says."""
    return retried(lambda: _call(spec, action, request), RETRIES_S if retries else ())


def retried(work: Callable[[], Any], waits_s: tuple[float, ...] = RETRIES_S) -> Any:
    """What `work` returns; after ConnectionLost it is tried again."""
    for number in range(len(waits_s) + 1):
        try:
            return work()
        except ConnectionLost as error:
            if number == len(waits_s):
                raise
            print(f"{error}; again in {waits_s[number]} s", file=sys.stderr)
            time.sleep(waits_s[number])
    raise AssertionError


def _call(spec: RemoteSpec, action: str, request: dict[str, Any]) -> dict[str, Any]:
    with conversation(spec, action, request) as talk:
        talk.stdin.close()
        return talk.answer()


class Talk:
    """One running request: its streams, and what ssh said on stderr."""

    def __init__(self, process: subprocess.Popen, errors: IO[bytes], host: str) -> None:
        self.process, self.errors, self.host = process, errors, host
        self.stdin, self.stdout = process.stdin, process.stdout

    def send(self, work: Callable[[Any], None]) -> None:
        """Writes to the server; a pipe that breaks is told by the answer, or by how ssh ended."""
        try:
            work(self.stdin)
            self.stdin.close()
        except BrokenPipeError:
            self.process.stdin = None  # or closing it would raise again

    def answer(self) -> dict[str, Any]:
        """The next JSON line after the marker. Raises TaskError."""
        if not self._is_marked:
            self._skip_to_marker()
        line = self.stdout.readline()
        if not line.endswith(b"\n"):
            raise self.failure()
        value = json.loads(line)
        if "problem" in value:
            raise TaskError(ExitCode.PREREQUISITE, [Problem(**value["problem"])])
        return value

    _is_marked = False

    def _skip_to_marker(self) -> None:
        while True:
            line = self.stdout.readline()
            if not line:
                raise self.failure()
            if line.endswith(MARKER):
                self._is_marked = True
                return

    def failure(self) -> TaskError:
        """Why nothing more comes."""
        code = self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode("utf-8", "replace").strip()
        return failure(said, code, self.host)


def failure(said: str, code: int, host: str) -> TaskError:
    """What the stderr and the exit code of ssh, or of a program that used it, mean."""
    lines = [line for line in said.splitlines() if line.strip()]
    for known in _FAILURES:
        if re.search(known.pattern, said):
            line = next(line for line in lines if re.search(known.pattern, line)).strip().strip("@ ")
            problem = Problem(code=known.code, message=f"{host}: {line}", hint=known.hint)
            return (ConnectionLost if known.may_pass else TaskError)(ExitCode.PREREQUISITE, [problem])
    if code == 127 or ("python3" in said and "not found" in said):
        hint = "ask its administrator for Python 3.8 or later; nothing else is needed"
        return _told("no_python", f"{host} has no python3", hint)
    if code == 255 or code < 0 or not lines:
        problem = Problem(code="connection_lost", message=f"{host}: {lines[-1] if lines else 'the connection ended'}",
                          hint=_FAILURES[-1].hint)  # fmt: skip
        return ConnectionLost(ExitCode.PREREQUISITE, [problem])
    return _told("remote_failed", f"{host}: {lines[-1]} (exit {code})", "run remote.py doctor")


def _told(code: str, message: str, hint: str) -> TaskError:
    return TaskError(ExitCode.PREREQUISITE, [Problem(code=code, message=message, hint=hint)])


@contextmanager
def conversation(spec: RemoteSpec, action: str, request: dict[str, Any]) -> Iterator[Talk]:
    """Starts a request on the server. Raises TaskError where there is no ssh here."""
    command = [*ssh_arguments(spec), "--", spec.host, REMOTE_COMMAND]
    agent = AGENT.read_bytes()
    asked = {"action": action, "workdir": spec.workdir, **request}
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        except FileNotFoundError:
            raise _told("no_ssh", "ssh is not on PATH", "install the OpenSSH client") from None
        talk = Talk(process, errors, spec.host)
        try:
            try:
                process.stdin.write(f"{len(agent)}\n".encode() + agent + json.dumps(asked).encode() + b"\n")
                process.stdin.flush()
            except BrokenPipeError:
                process.stdin = None
                raise talk.failure() from None
            yield talk
        finally:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            try:  # not at once: the first ssh becomes the connection that the next ones share
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()
