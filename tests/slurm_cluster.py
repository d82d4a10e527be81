"""Helper: a Slurm cluster of this machine alone, with two GPUs that are none."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
MISSING = [name for name in DAEMONS if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
WHY_NOT = f"not installed (Debian: slurm-wlm, munge): {', '.join(MISSING)}" if MISSING else "needs root"
CAN_RUN = not MISSING and os.getuid() == 0

_CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
KillWait=60
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextlib.contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """The environment variables with which sbatch and its kind find the cluster."""
    for name in ("", "run", "state", "spool"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(0o755)
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(_CONFIG.format(host=host, folder=folder, ports=_free_ports(2)))
    devices = ("/dev/null", "/dev/zero")
    (folder / "gres.conf").write_text("".join(f"NodeName={host} Name=gpu File={device}\n" for device in devices))
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    started = [_munged(folder)]
    try:
        for name in ("slurmctld", "slurmd"):
            command = [shutil.which(name, path="/usr/sbin:/usr/bin"), "-D", "-f", str(folder / "slurm.conf")]
            started.append(_begin(command, folder / f"{name}.out"))
        _wait_for_idle(environment, folder)
        yield environment
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(20)


def _munged(folder: Path) -> subprocess.Popen:
    user, run = pwd.getpwnam("munge"), folder / "run"
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    for path in (folder / "munge.key", run):
        os.chown(path, user.pw_uid, user.pw_gid)
    for parent in folder.parents:  # pytest's folders are closed to others
        if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
            parent.chmod(0o711)
    files = {"key-file": folder / "munge.key", "socket": run / "munge.socket", "pid-file": run / "munged.pid",
             "log-file": run / "munged.log", "seed-file": run / "munged.seed"}  # fmt: skip
    flags = [f"--{name}={path}" for name, path in files.items()]
    command = ["runuser", "-u", "munge", "--", "/usr/sbin/munged", "--foreground", "--force", *flags]
    process = _begin(command, folder / "munged.out")
    while not (run / "munge.socket").exists():
        assert process.poll() is None, (folder / "munged.out").read_text()
        time.sleep(0.05)
    return process


def _begin(command: list[str], log: Path) -> subprocess.Popen:
    with log.open("wb") as out:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_for_idle(environment: dict[str, str], folder: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        done = subprocess.run(["sinfo", "-h", "-o", "%t"], env={**os.environ, **environment}, capture_output=True)
        if done.stdout.decode().strip() == "idle":
            return
        assert time.monotonic() < deadline, [(log.name, log.read_text()[-2000:]) for log in folder.glob("*.log")]
        time.sleep(0.2)
