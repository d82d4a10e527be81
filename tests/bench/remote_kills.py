#!/usr/bin/env python3
"""Kills at random moments whatever takes part in a remote run, until it has ended all the same; then compares it with a
run to which nothing happened.

    uv run python tests/bench/remote_kills.py FOLDER [--kills 200] [--seed 1]

Real parts: an OpenSSH server on loopback, a tiny Llama trained by the task's own scripts, rsync. Killed are the
controller (remote.py), every connection, the supervisor, the trainer, both with all their children (a power cut), and
the SSH server itself. After each kill the same command is given again. At the end of each life: the trained weights and
the losses must be those of the undisturbed run, every step logged once, test looked at once, every file pulled.
Writes results/remote_kills.json.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

BUNDLE = Path(__file__).resolve().parent.parent.parent
for part in (BUNDLE / "scripts" / "task", BUNDLE / "tests"):
    sys.path.insert(0, str(part))

import readme  # noqa: E402

import ssh_server  # noqa: E402
import tiny_llama  # noqa: E402
from tasklib.files import read_json, read_jsonl, sha256_of, write_json  # noqa: E402
from trainable_task import FULL, Task, environment, make_task  # noqa: E402

RESULT = Path(__file__).parent / "results" / "remote_kills.json"
KINDS = ("controller", "connections", "supervisor", "trainer", "power", "sshd")
PASSED_ON = [word for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES") for word in ("--env", name)]
LONGEST_WAIT_S = 12.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    draw, began = random.Random(args.seed), time.monotonic()
    os.environ.update(environment())
    args.folder.mkdir(parents=True)
    training = {"num_train_epochs": 30, "learning_rate": 1e-3, "seed": 5}
    model = tiny_llama.save(args.folder / "model")
    whole = make_task(args.folder / "whole", model, n_rows=240, adapter=FULL, training=training)
    source = shutil.copytree(whole.folder, args.folder / "source")
    whole.ok("03_train.py")
    kills, faults, n_lives = Counter(), [], 0
    with ssh_server.running(args.folder / "server") as server:
        os.environ["PATH"] = f"{server.bin}{os.pathsep}{os.environ['PATH']}"
        while kills.total() < args.kills:
            n_lives += 1
            life = Life(args.folder / f"life-{n_lives}", source, server)
            kills += life.live(draw, args.kills - kills.total())
            faults += [f"life {n_lives}: {fault}" for fault in life.faults(whole)]
            print(n_lives, dict(kills), faults, flush=True)
            if not faults:
                shutil.rmtree(life.folder)
    command = f"remote_kills.py FOLDER --kills {args.kills} --seed {args.seed}"
    found = {"date": str(datetime.date.today()), "machine": readme.machine(), "command": command, "lives": n_lives}
    found |= {"kills": dict(kills), "faults": faults, "elapsed_s": round(time.monotonic() - began)}
    write_json(RESULT, found)


class Life:
    """One run on the server, from its first command to its pulled results."""

    def __init__(self, folder: Path, source: Path, server: ssh_server.Server) -> None:
        self.folder, self.server = folder, server
        self.task = Task(folder / "task")
        shutil.copytree(source, self.task.folder)
        (self.task.folder / "pyproject.toml").write_text('[project]\nname = "tiny"\nversion = "0"\n')
        remote = {"host": "root@127.0.0.1", "port": server.port, "ssh_key": str(server.key), "python": sys.executable}
        self.task.edit_definition(compute={"target": "remote", "remote": remote | {"workdir": str(folder / "work")}})
        self.state = folder / "work" / "tiny" / ".remote" / "jobs" / "baseline" / "state.json"

    def live(self, draw: random.Random, n_left: int) -> Counter:
        """Gives the commands until everything is here, and kills in between; returns what was killed how often."""
        kills: Counter = Counter()
        for command in (["run", "--until", "test", "--follow", *PASSED_ON], ["pull"]):
            while True:
                longest = LONGEST_WAIT_S if command[0] == "run" else 1.5
                ended = self.give(command, draw.uniform(0, longest) if kills.total() < n_left else None)
                if ended is not None:
                    code, said = ended
                    if code == 0:
                        break
                    if not any(word in said for word in ("connection_lost", "stage_failed", "interrupted")):
                        raise SystemExit(f"{command[0]} ended with {code}: {said}")
                    continue
                kills[self.kill(draw.choice(KINDS))] += 1
        return kills

    def give(self, command: list[str], wait_s: float | None) -> tuple[int, str] | None:
        """(exit code, output) of a command that ended in time; None where it still works, and is left to be killed."""
        script = [sys.executable, str(self.task.folder / "scripts" / "remote.py"), *command]
        with (self.folder / "out").open("wb") as out:
            self.controller = subprocess.Popen(script, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        try:
            self.controller.wait(wait_s)
        except subprocess.TimeoutExpired:
            return None
        return self.controller.returncode, (self.folder / "out").read_text(errors="replace")

    def kill(self, kind: str) -> str:
        """Kills one part; the controller goes with it, as somebody would give the command again."""
        state = read_json(self.state) if self.state.is_file() else {}
        if kind == "connections":
            self.server.cut()
        elif kind == "sshd":
            self.server.stop()
            self.server.start()
        elif kind in ("supervisor", "trainer", "power") and state.get("status") == "running":
            noted = state["supervisor"] if kind != "trainer" else state["process"]
            with contextlib.suppress(ProcessLookupError, TypeError):
                if kind == "power":
                    os.killpg(os.getpgid((state["process"] or noted)[0]), signal.SIGKILL)
                else:
                    os.kill(noted[0], signal.SIGKILL)
        self.controller.kill()
        self.controller.wait()
        return kind

    def faults(self, whole: Task) -> list[str]:
        """What differs from the undisturbed run."""
        ours, theirs = (t.folder / "models" / "baseline" for t in (self.task, whole))
        found = []
        if sha256_of(ours / "model" / "model.safetensors") != sha256_of(theirs / "model" / "model.safetensors"):
            found.append("other weights")
        lines = [[line.get("loss") for line in read_jsonl(run / "train_log.jsonl")] for run in (ours, theirs)]
        if lines[0] != lines[1]:
            found.append("other losses, or steps lost or doubled")
        looks = read_jsonl(self.task.folder / "benchmarks" / "test_looks.jsonl")
        if len(looks) != 1:
            found.append(f"{len(looks)} looks at test")
        there = self.folder / "work" / "tiny"
        for path in (there / "models" / "baseline").rglob("*"):
            name = path.relative_to(there)
            if path.is_file() and "checkpoints" not in name.parts and path.name != ".lock":
                here = self.task.folder / name
                if not here.is_file() or sha256_of(here) != sha256_of(path):
                    found.append(f"not pulled: {name}")
        if json.loads((ours / "run.json").read_text())["status"] != "finished":
            found.append("run.json is not finished")
        return found


if __name__ == "__main__":
    main()
