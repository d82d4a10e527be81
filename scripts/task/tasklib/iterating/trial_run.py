"""One trial of a search: trained and evaluated by the scripts that train and evaluate every run, as processes of their
own, so that a run that dies takes nothing with it and the memory of one is free for the next.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.paths import TaskPaths
from tasklib.scoring import evaluation
from tasklib.summary import Problem, TaskError

HEARTBEAT_S = 5.0  # the time used is written down this often: a killed search loses no more of it
_LOCKED = ("run_locked", "evaluation_locked")
_OF_THE_VALUES = ("does_not_fit",)  # prerequisites that another point of the space may have; any other stops the search


@dataclass(frozen=True)
class Scripts:
    """Where the task's scripts lie, and what is called while one runs: `tick(seconds since the trial's start)`."""

    folder: Path
    paths: TaskPaths
    tick: Callable[[float], None]
    started: float

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started


def train_and_score(scripts: Scripts, run: str, config: Path) -> str | None:
    """Trains and evaluates one run on validation, going on where an earlier call was stopped. Returns why it failed, or
    None. Raises TaskError (exit 4) where no other point of the space would do better, KeyboardInterrupt when asked to
    stop; the run can be resumed after both."""
    shown = scripts.paths.shown(config)
    reason = _call(scripts, run, "03_train.py", "--config", shown, "--resume")
    return reason or score(scripts, run, config)


def score(scripts: Scripts, run: str, config: Path) -> str | None:
    """Evaluates one finished run on validation; returns and raises as `train_and_score`."""
    return _call(scripts, run, "04_evaluate.py", "--config", scripts.paths.shown(config), "--split", "validation")


def _call(scripts: Scripts, run: str, script: str, *flags: str) -> str | None:
    """Why one script failed, or None. A gate that is not met is no failure: the score is there."""
    while True:
        wait_until_free(scripts.paths, run)
        code, summary = _finished(scripts, [script, "--task-dir", str(scripts.paths.root), "--json", *flags])
        problems = [Problem(**item) for item in (summary or {}).get("errors", [])]
        if not any(problem.code in _LOCKED for problem in problems):
            break  # else a process of an earlier call took the run in between
    if code in (ExitCode.OK, ExitCode.GATE):
        return None
    if code == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if code == ExitCode.PREREQUISITE and not any(problem.code in _OF_THE_VALUES for problem in problems):
        raise TaskError(ExitCode.PREREQUISITE, problems, next=(summary or {}).get("next"))
    if problems:
        return "; ".join(f"{problem.code}: {problem.message}" for problem in problems[:3])
    if code < 0:
        return f"{script} was killed by signal {-code}" + (
            ", as by a machine without free memory" if code == -9 else ""
        )
    return f"{script} ended with exit {code} and no summary"


def _finished(scripts: Scripts, arguments: list[str]) -> tuple[int, dict[str, Any] | None]:
    """Exit code and summary of one script; its progress goes to this process's stderr.

    In a process group of its own a Ctrl-C does not reach it: it is told to stop once, by this process, and a training
    then saves its step before it ends.
    """
    command = [sys.executable, str(scripts.folder / arguments[0]), *arguments[1:]]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, process_group=0)
    try:
        while True:
            try:
                text, _ = process.communicate(timeout=HEARTBEAT_S)
                break
            except subprocess.TimeoutExpired:
                scripts.tick(scripts.elapsed_s)
    except BaseException:
        process.terminate()
        process.communicate()
        raise
    finally:
        scripts.tick(scripts.elapsed_s)
    try:
        return process.returncode, json.loads(text)
    except ValueError:
        return process.returncode, None


def wait_until_free(paths: TaskPaths, run: str) -> None:
    """Waits for what a killed search has left running: a process that outlives it finishes its run, and its work is not
    done twice."""
    for path in (paths.run(run) / ".lock", paths.benchmark(run, "validation") / evaluation.PARTIAL):
        if not path.is_file():
            continue
        with path.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                print(f"waiting for a process that still works on {run}", file=sys.stderr, flush=True)
                fcntl.flock(stream, fcntl.LOCK_EX)
