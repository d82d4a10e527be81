"""What happens during training, line by line: train_log.jsonl, the curves, alerts, peak memory."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasklib.files import append_jsonl, read_json, write_jsonl
from tasklib.training import alerts
from tasklib.training.alerts import Alert

REWARDS = ("rewards/accuracies", "rewards/margins")  # of dpo and orpo
KEPT = ("loss", "learning_rate", "grad_norm", "mean_token_accuracy", "entropy", "num_tokens", *REWARDS)
SPEEDS = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "eval_num_tokens")  # not kept
REDRAW_S = 30.0  # seconds between two drawings of the curves, at least
REDRAW_SHARE = 0.01  # of the time may go into drawing


class TrainingLog:
    """Appends one JSON object for each log event of the Trainer and for each alert. Lines after the checkpoint resumed
    from are dropped, because those steps run again."""

    def __init__(self, path: Path, checkpoint: Path | None, *, writes: bool = True) -> None:
        """writes: whether this process keeps the file; of several that train one run only the main one does, and the
        others only watch, so that all stop at the same step."""
        self.path, self.writes = path, writes
        last_step = read_json(checkpoint / "trainer_state.json")["global_step"] if checkpoint else 0
        self.lines = [line for line in _whole_lines(path) if line["step"] <= last_step]
        if writes:
            write_jsonl(path, self.lines)
        self.alerts = [_alert_of(line) for line in self.lines if "alert" in line]
        self.watch = alerts.Watch()
        for line in self.lines:
            self.watch.feed(line)
        self.watch.raised.update(alert.code for alert in self.alerts)
        self.tokens_before = max((line.get("num_tokens", 0) for line in self.lines), default=0)
        self.elapsed_before_s = max((line.get("elapsed_s", 0.0) for line in self.lines), default=0.0)
        self.started = time.monotonic()
        self.next_drawing = self.started + REDRAW_S
        self.max_steps: int | None = None  # known when the training begins

    def callback(self, bar: Any) -> Any:
        """A transformers TrainerCallback that writes to this log, moves a progress bar, and stops the training when the
        loss is no number any more."""
        from transformers import TrainerCallback

        log = self

        class Callback(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                log.started = time.monotonic()
                bar.reset(total=state.max_steps)
                log.max_steps = state.max_steps
                bar.update(state.global_step)

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                bar.update(state.global_step - bar.n)
                log.before_saving(control)

            def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                log.before_saving(control)

            def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                log.plot(log.path.with_name("curves.png"))

            def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
                values = _kept(logs or {})
                if args.fp16 and not alerts.is_finite(values.get("grad_norm", 0.0)):
                    del values["grad_norm"]  # the loss scaler skipped this step and lowers its scale
                if not values:
                    return
                for alert in log.write(state.global_step, state.epoch, values):
                    bar.write(
                        f"alert {alert.code} at step {alert.step}: {alert.message}\n  -> {alert.hint}", sys.stderr
                    )
                if log.is_lost:
                    control.should_training_stop, control.should_save = True, False
                shown = {key: f"{value:.4g}" for key, value in values.items() if key in ("loss", "eval_loss")}
                bar.set_postfix(shown, refresh=False)
                log.redraw()

        return Callback()

    @property
    def is_lost(self) -> bool:
        """Whether the loss or the gradients are no numbers any more: every weight is lost then."""
        return any(alert.code == "loss_is_nan" for alert in self.alerts)

    def before_saving(self, control: Any) -> None:
        """The loss is logged, and so judged, before a checkpoint is written; lost weights are never saved: they would
        push out good checkpoints."""
        if self.is_lost:
            control.should_save = control.should_evaluate = False
        elif control.should_save or control.should_evaluate:
            control.should_log = True

    def write(self, step: int, epoch: float | None, values: dict[str, float]) -> list[Alert]:
        """Appends the line and the alerts that it raises, and returns those. NaN and infinity are no JSON: they are
        written as text, so that the line can be read and the fault seen."""
        elapsed_s = time.monotonic() - self.started
        if "num_tokens" in values and elapsed_s > 0:  # padding is not counted; evaluations so far are in the time
            per_s = round(values["num_tokens"] / elapsed_s, 1)
            n_tokens = values["num_tokens"] + self.tokens_before  # TRL's own count begins anew when a run is resumed
            values = {**values, "num_tokens": n_tokens, "tokens_per_s": per_s}
        safe = {key: _safe(value) for key, value in values.items()}
        at = {"step": step, "max_steps": self.max_steps, "epoch": epoch}
        line = {**at, "elapsed_s": round(self.elapsed_before_s + elapsed_s, 3), **safe}
        self._append(line)
        new = self.watch.feed(line)
        for alert in new:
            self.alerts.append(alert)
            named = {"value": _safe(alert.value), "message": alert.message, "hint": alert.hint}
            self._append({"step": step, "alert": alert.code, **named})
        return new

    def _append(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if self.writes:
            append_jsonl(self.path, line)

    def redraw(self) -> None:
        """Draws curves.png beside the log, unless it was drawn a short while ago."""
        if time.monotonic() < self.next_drawing:
            return
        began = time.monotonic()
        self.plot(self.path.with_name("curves.png"))
        cost_s = time.monotonic() - began
        self.next_drawing = began + max(REDRAW_S, cost_s / REDRAW_SHARE)

    def last(self, key: str) -> dict[str, float]:
        """`{key: value}` of the last line that has the key as a number, or `{}`."""
        values = [line[key] for line in self.lines if alerts.is_finite(line.get(key))]
        return {key: values[-1]} if values else {}

    def plot(self, target: Path) -> None:
        """Draws loss, learning rate and gradient norm over the steps as PNG, whole or not at all."""
        if not self.writes:
            return
        temporary = target.with_name(f".{target.name}.new")
        try:
            curves(self.lines).savefig(temporary, format="png")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def curves(lines: Sequence[dict[str, Any]]) -> Any:
    """A matplotlib Figure: three panels over the same steps, with the alerts."""
    from matplotlib.figure import Figure  # not pyplot: it keeps every figure and picks a screen

    figure = Figure(figsize=(8, 7.5), dpi=110, layout="constrained")
    loss, rate, norm = figure.subplots(3, 1, sharex=True, height_ratios=(2.2, 1, 1))
    steps, losses = _series(lines, "loss")
    loss.plot(steps, losses, color="tab:blue", alpha=0.35, linewidth=1)
    loss.plot(steps, _smooth(losses), color="tab:blue", label="training")
    loss.plot(*_series(lines, "eval_loss"), color="tab:orange", marker="o", label="validation")
    rate.plot(*_series(lines, "learning_rate"), color="tab:green")
    norm.plot(*_series(lines, "grad_norm"), color="tab:purple", linewidth=1)
    loss.set_ylabel("loss\n(nats per answer token)")
    rate.set_ylabel("learning rate")
    norm.set(ylabel="gradient norm", xlabel="step")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    for panel, key in ((loss, "loss"), (norm, "grad_norm")):
        if _spans_decades(_series(lines, key)[1]):
            panel.set_yscale("log")
            panel.yaxis.set_minor_formatter("")
    for panel in (loss, rate, norm):
        panel.grid(alpha=0.3)
    for line in lines:
        if "alert" in line:
            _mark(loss, (rate, norm), line["step"], line["alert"])
    loss.legend(loc="upper center", ncols=2, frameon=False, bbox_to_anchor=(0.5, 1.13))
    return figure


def _mark(named: Any, others: Sequence[Any], step: int, code: str) -> None:
    """A line at the step of an alert in every panel, with its name in the first."""
    for panel in (named, *others):
        panel.axvline(step, color="tab:red", linestyle=":", linewidth=1.2)
    named.annotate(
        code,
        (step, 0.97),
        (-4, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        color="tab:red",
        rotation=90,
        ha="right",
        va="top",
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )


def _series(lines: Sequence[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    points = [(line["step"], line[key]) for line in lines if alerts.is_finite(line.get(key))]
    return [step for step, _ in points], [value for _, value in points]


def _smooth(values: Sequence[float]) -> list[float]:
    """Mean of each value and its neighbours, a twentieth of the log to each side."""
    width, sums = len(values) // 20, np.concatenate([[0.0], np.cumsum(values)])
    start, end = (np.clip(np.arange(len(values)) + n, 0, len(values)) for n in (-width, width + 1))
    return ((sums[end] - sums[start]) / (end - start)).tolist()


def _spans_decades(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) > 50 * min(values)


def _kept(logs: dict[str, Any]) -> dict[str, float]:
    """The values of a log event that go into the line: those of training, or of one evaluation."""
    kept = {k: v for k, v in logs.items() if k in KEPT or (k.startswith("eval_") and k not in SPEEDS)}
    if "loss" not in kept and "eval_loss" not in kept:
        return {}  # the totals after the last step
    return {key: float(value) for key, value in kept.items()}


def _safe(value: float) -> float | str:
    return value if alerts.is_finite(value) else str(value)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; the last one may have been cut off when the disk was full or the process killed."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _alert_of(line: dict[str, Any]) -> Alert:
    return Alert(line["alert"], line["step"], float(line["value"]), line["message"], line["hint"])


def peak_memory_bytes() -> int:
    """Most memory held at once: on the GPU where there is one, otherwise by this process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
