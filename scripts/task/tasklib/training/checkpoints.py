"""Checkpoints of a run: which are whole, stopping at the next step with one saved, and the disk that they need."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import signal
import struct
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.summary import Problem, TaskError
from tasklib.training import processes

_STATE = "trainer_state.json"  # the Trainer writes it last
_OF_SHARDED = ("pytorch_model_fsdp.bin", "optimizer.bin")


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` that was written to its end, or None."""
    return max((path for path in _all(folder) if is_whole(path)), key=_step, default=None)


def is_whole(checkpoint: Path) -> bool:
    """Whether every part that resuming needs is there and complete: a process may be killed, or a disk fill up, at any
    byte. Weights are checked by the length that their own header promises, torch files by their closing directory."""
    weights, random_states = list(checkpoint.glob("*.safetensors")), list(checkpoint.glob("rng_state*.pth"))
    # accelerate's own names where it shards the model (FSDP with FULL_STATE_DICT)
    is_sharded = any((checkpoint / name).is_file() for name in _OF_SHARDED)
    parts = _OF_SHARDED if is_sharded else ("optimizer.pt",)
    states = [*(checkpoint / name for name in parts), checkpoint / "scheduler.pt", *random_states]
    if not weights or not all(path.is_file() for path in states):
        return False
    if len(random_states) < processes.world_size():  # one of each process; the others write theirs when they come to it
        return False
    try:
        json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(map(_weights_are_whole, weights)) and all(map(zipfile.is_zipfile, states))


def remove_broken(folder: Path) -> list[str]:
    """Deletes checkpoints that were cut off while being written, so that `save_total_limit` counts only whole ones;
    returns their names."""
    broken = [path for path in _all(folder) if not is_whole(path)]
    for path in broken:
        shutil.rmtree(path)
    return [path.name for path in broken]


class StopRequest:
    """Whether somebody asked the training to stop; its callback then saves a checkpoint at the end of the step."""

    def __init__(self) -> None:
        self.is_set = False

    def callback(self) -> Any:
        """A transformers TrainerCallback."""
        from transformers import TrainerCallback

        request = self

        class Callback(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                request.is_set = processes.any_of(request.is_set)
                if request.is_set:
                    control.should_save = control.should_training_stop = True

            def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if request.is_set and state.epoch % 1:  # cut short: it is evaluated when it really ends
                    control.should_evaluate = False

        return Callback()


@contextlib.contextmanager
def stop_softly() -> Iterator[StopRequest]:
    """While it lasts, the first SIGTERM or Ctrl-C asks the training to stop after the step with a checkpoint saved; a
    second one stops at once. Not under a launcher, which repeats what the terminal, Slurm or the supervisor has sent to
    all: it kills by itself when TORCH_ELASTIC_SHUTDOWN_TIMEOUT is over."""
    request = StopRequest()

    def ask(signum: int, frame: object) -> None:
        if request.is_set and not processes.is_launched():
            raise KeyboardInterrupt
        request.is_set = True

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield request
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def require_disk(folder: Path, trainable: int, n_kept: int) -> None:
    """Raises TaskError (exit 4) when the disk cannot hold the checkpoints and the result.

    A checkpoint holds the trained weights and AdamW's two moments, in float32 as everything that is trained; one
    more than `n_kept` exists for a moment, because the Trainer deletes the oldest only after the newest is written.
    """
    needed = trainable * 4 * (3 * (n_kept + 1) + 1) + 50_000_000  # tokenizer files, logs, curves
    free = shutil.disk_usage(folder).free
    if free < needed:
        problem = Problem(
            code="disk_full",
            message=f"{n_kept} checkpoints and the result need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            file=folder.name,
            hint="free some space, or set training.save_total_limit=1",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem])


@contextlib.contextmanager
def full_disk_explained() -> Iterator[None]:
    """Turns a write that failed for want of space into TaskError (exit 4); whatever was whole before stays whole."""
    try:
        yield
    except Exception as error:
        if not _is_full_disk(error):
            raise
        problem = Problem(
            code="disk_full",
            message=f"the disk is full: {str(error).strip().splitlines()[0]}",
            hint="free some space, then continue with --resume from the last whole checkpoint",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem]) from error


def _is_full_disk(error: BaseException | None) -> bool:
    """Python names the error by number; torch and safetensors put the system's words into their own exceptions."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        words = str(error)
        if any(text in words for text in ("No space left on device", "os error 28", "File too large", "os error 27")):
            return True
        if "unexpected pos" in words or "PytorchStreamWriter failed" in words:  # torch.save: the file ended early
            return True
        error = error.__cause__ or error.__context__
    return False


def _all(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if path.is_dir() and path.name.split("-")[-1].isdecimal()]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])


def _weights_are_whole(path: Path) -> bool:
    """A safetensors file is 8 bytes of header length, the header, and the tensors whose ends the header names
    (https://github.com/huggingface/safetensors#format)."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length)) if length < 100_000_000 else {}
    except (OSError, ValueError, struct.error):
        return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return bool(ends) and path.stat().st_size == 8 + length + max(ends)
