"""Named alerts on the lines of train_log.jsonl: what is going wrong, the numbers that say so, what to change.

The rules look at the log alone, so that a finished run can be judged again. An alert should be believed when it comes:
every threshold is chosen so that a healthy run with noisy losses stays silent (tests/test_alerts.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

SEVERAL = 8  # logs in a row: batches without a rare label make even 4 or 5 high losses in a row by chance
RISE = 0.5  # nats above the best level; a perplexity 1.65 times as high
NOISES = 3.0  # standard deviations of one log; a single log is that far out in 1 of 700
GUESSING = 13.0  # nats: above ln(442,000), so worse than guessing among all tokens of any vocabulary in use
START = 15  # logs whose mean is the loss at the beginning
ENOUGH_STEPS = 100  # a LoRA starts as no change at all and moves little in its first dozens of steps
ENOUGH_EPOCHS = 0.25  # a long run may be slow
FIRST_LOG = 25  # steps: an average over more may hide the whole decrease
PRECISION = 0.05  # of the first losses: the noise must be small enough to see a decrease of this size
LEARNED = 0.1  # nats: 90 % on each token; no decrease is needed from there
GENERALIZATION_LOSS = 0.2  # (eval loss / its lowest - 1); Prechelt 1998 ("Early Stopping, but When?") stops at 0.05
MEMORISED = 0.02  # nats: 98 % on each trained token ...
NOT_LEARNED = 0.2  # ... while validation stands ten times higher


@dataclass(frozen=True)
class Alert:
    """`value` is the number that raised it: a loss in nats per answer token, or a gradient norm."""

    code: str
    step: int
    value: float
    message: str
    hint: str


def find(lines: Iterable[Mapping[str, Any]]) -> list[Alert]:
    """The alerts of a whole log, in order; each code at most once."""
    watch = Watch()
    return [alert for line in lines for alert in watch.feed(line)]


def is_finite(value: object) -> bool:
    """Whether a value of a log line is a number; NaN and infinity stand there as text."""
    return isinstance(value, float | int) and math.isfinite(value)


@dataclass
class Watch:
    """Reads a log line by line; the work for a line does not grow with the log."""

    raised: set[str] = field(default_factory=set)
    losses: list[tuple[int, float]] = field(default_factory=list)  # (step, training loss)
    sums: list[float] = field(default_factory=lambda: [0.0])  # of the losses so far
    jumps: float = 0.0  # sum of the differences between neighbouring losses, and of their squares
    squares: float = 0.0
    best: float = math.inf  # lowest mean of SEVERAL losses, or the first loss alone
    peak_rate: float = 0.0  # the highest learning rate
    rate: float = 0.0  # the latest, and whether it is above the one before: warmup
    warms_up: bool = False
    epoch: float = math.inf  # of the latest line that names it
    evals: list[tuple[float, float, float]] = field(default_factory=list)  # (epoch, eval loss, training loss then)

    def feed(self, line: Mapping[str, Any]) -> list[Alert]:
        """The alerts that this line raises for the first time."""
        if "alert" in line:
            return []
        self._remember(line)
        step = line["step"]
        found = [_not_finite(line, self.peak_rate)]
        if is_finite(line.get("loss")):
            found += [self._diverging(step), self._no_decrease(step)]
        if is_finite(line.get("eval_loss")):
            found.append(self._memorising(step))
        new = [alert for alert in found if alert and alert.code not in self.raised]
        self.raised.update(alert.code for alert in new)
        return new

    def _remember(self, line: Mapping[str, Any]) -> None:
        if is_finite(epoch := line.get("epoch")):
            self.epoch = epoch
        if is_finite(rate := line.get("learning_rate")):
            self.peak_rate, self.warms_up, self.rate = max(self.peak_rate, rate), rate > self.rate, rate
        if is_finite(loss := line.get("loss")):
            jump = abs(loss - self.losses[-1][1]) if self.losses else 0.0
            self.jumps, self.squares = self.jumps + jump, self.squares + jump**2
            self.losses.append((line["step"], loss))
            self.sums.append(self.sums[-1] + loss)
            level = self._mean(-SEVERAL, 0) if len(self.losses) >= SEVERAL else math.inf
            self.best = min(self.best, level, self.losses[0][1])
        if is_finite(loss := line.get("eval_loss")) and self.losses:
            self.evals.append((line.get("epoch") or 1.0, loss, self._mean(-5, 0)))

    def _mean(self, start: int, end: int) -> float:
        """Mean training loss of the logs [start, end), counted from the last one."""
        end = len(self.losses) + end
        start = max(0, len(self.losses) + start)
        return (self.sums[end] - self.sums[start]) / (end - start)

    def _noise(self) -> float:
        """Standard deviation of one log around the trend, from the mean difference between neighbours: for normal noise
        that is 2 / sqrt(pi) times as large. A slow decrease hardly counts in it, one spike only once."""
        return math.sqrt(math.pi) / 2 * self.jumps / max(1, len(self.losses) - 1)

    def _diverging(self, step: int) -> Alert | None:
        recent = [loss for _, loss in self.losses[-SEVERAL:]]
        level = sum(recent) / len(recent)
        if len(recent) >= 3 and min(recent[-3:]) > GUESSING:
            message = f"the loss is {recent[-1]:.3g}: worse than guessing among all tokens"
        elif len(recent) == SEVERAL and min(recent) > self.best + max(RISE, NOISES * self._noise()):
            message = f"the loss stands at {level:.3g} over the last {SEVERAL} logs; it was {self.best:.3g} at its best"
        else:
            return None
        return Alert("diverging", step, level, message, _rate_hint(self.peak_rate / 5))

    def _no_decrease(self, step: int) -> Alert | None:
        """Compares the beginning with the last third of the log; silent as long as the noise could hide a decrease."""
        n = len(self.losses)
        is_early = n < 2 * START or step < ENOUGH_STEPS or self.epoch < ENOUGH_EPOCHS
        if is_early or self.warms_up or self.losses[0][0] > FIRST_LOG or "diverging" in self.raised:
            return None
        third = n // 3
        first, last = self._mean(-n, START - n), self._mean(-third, 0)
        noise = math.sqrt(self.squares / (n - 1) / 2)  # of one log; here rare high losses count in full
        error = noise * math.sqrt(1 / START + 1 / third)
        if first < LEARNED or first - last > 2 * error or 2 * error > PRECISION * first:
            return None
        message = f"the loss does not fall: {first:.3g} in the first {START} logs, {last:.3g} in the last {third}"
        hint = _rate_hint(self.peak_rate * 5) + ", and check that the answers belong to the texts"
        return Alert("no_decrease", step, last, message, hint)

    def _memorising(self, step: int) -> Alert | None:
        """Validation gets worse while training gets better, or training is perfect and validation is not."""
        if not self.evals:
            return None
        best = min(self.evals, key=lambda found: found[1])
        _, now, train = self.evals[-1]
        later = self.evals[self.evals.index(best) + 1 :]
        limit = (1 + GENERALIZATION_LOSS) * best[1]
        if len(later) >= 2 and min(loss for _, loss, _ in later[-2:]) > limit and train < best[2]:
            message = f"the validation loss rose from {best[1]:.3g} to {now:.3g}, the training loss fell to {train:.3g}"
        elif len(self.losses) >= 5 and train < MEMORISED and now > NOT_LEARNED:
            message = f"the training loss is {train:.2g}, the validation loss {now:.3g}"
        else:
            return None
        epochs = max(1, math.ceil(best[0]))
        hint = f"set training.num_train_epochs to {epochs} (the lowest validation loss so far), or "
        return Alert("memorising", step, now, message, hint + "training.load_best_model_at_end to true")


def _not_finite(line: Mapping[str, Any], rate: float) -> Alert | None:
    for key, name in (("loss", "loss"), ("eval_loss", "validation loss"), ("grad_norm", "gradient norm")):
        if key in line and not is_finite(line[key]):
            value = float(line[key])
            hint = _rate_hint(rate / 10) + ", and base_model.dtype to bfloat16 or float32 if it is float16"
            return Alert("loss_is_nan", line["step"], value, f"the {name} is {value}", hint)
    return None


def _rate_hint(rate: float) -> str:
    """`rate` is 0 where the log had none yet."""
    return f"set training.learning_rate to {rate:.2g}" if rate else "set training.learning_rate to another value"
