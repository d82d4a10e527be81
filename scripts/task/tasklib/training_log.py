"""What happens during training, line by line: train_log.jsonl, the loss curve, peak memory."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

from tasklib.files import append_jsonl, read_json, read_jsonl, write_jsonl

KEPT = ("loss", "learning_rate", "grad_norm", "eval_loss", "mean_token_accuracy", "entropy", "num_tokens")


class TrainingLog:
    """Appends one JSON object for each log event of the Trainer. Lines after the checkpoint resumed from are dropped,
    because those steps run again."""

    def __init__(self, path: Path, checkpoint: Path | None) -> None:
        self.path = path
        last_step = read_json(checkpoint / "trainer_state.json")["global_step"] if checkpoint else 0
        old = read_jsonl(path) if path.is_file() else []
        write_jsonl(path, [line for line in old if line["step"] <= last_step])
        self.started = time.monotonic()

    def callback(self, bar: Any) -> Any:
        """A transformers TrainerCallback that writes to this log and moves a progress bar."""
        from transformers import TrainerCallback

        log = self

        class Callback(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                bar.reset(total=state.max_steps)
                bar.update(state.global_step)

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                bar.update(state.global_step - bar.n)

            def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
                values = {key: float(value) for key, value in (logs or {}).items() if key in KEPT}
                if values:
                    log.write(state.global_step, state.epoch, values)
                    shown = {key: f"{value:.4g}" for key, value in values.items() if key in ("loss", "eval_loss")}
                    bar.set_postfix(shown, refresh=False)

        return Callback()

    def write(self, step: int, epoch: float | None, values: dict[str, float]) -> None:
        """NaN and infinity are no JSON: they are written as text, so that the line can be read and the fault seen."""
        safe = {key: value if value - value == 0 else str(value) for key, value in values.items()}
        elapsed_s = round(time.monotonic() - self.started, 3)
        append_jsonl(self.path, {"step": step, "epoch": epoch, "elapsed_s": elapsed_s, **safe})

    def last(self, key: str) -> dict[str, float]:
        """`{key: value}` of the last line that has the key as a number, or `{}`."""
        values = [line[key] for line in read_jsonl(self.path) if isinstance(line.get(key), float | int)]
        return {key: values[-1]} if values else {}

    def plot(self, target: Path) -> None:
        """Training and validation loss over steps as PNG."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(7, 4), dpi=120)
        for key, label, marker in (("loss", "train", ""), ("eval_loss", "validation", "o")):
            points = [
                (line["step"], line[key]) for line in read_jsonl(self.path) if isinstance(line.get(key), float | int)
            ]
            if points:
                axes.plot(*zip(*points, strict=True), label=label, marker=marker)
        axes.set(xlabel="step", ylabel="loss (answer tokens)", yscale="log")
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend()
        figure.tight_layout()
        figure.savefig(target)
        pyplot.close(figure)


def peak_memory_bytes() -> int:
    """Most memory held at once: on the GPU where there is one, otherwise by this process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
