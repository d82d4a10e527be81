"""Faults of the training itself: the rate, its length, the base model, the template.

The unit of all loss rules is chance: nats per answer token of one who knows the shares of the labels and nothing else.
A run above it has not even learnt which answers there are; one far below it knows its training rows. Thresholds were
set on real runs with planted faults and judged on others (tests/bench/planted_faults.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tasklib import schema
from tasklib.iterating.evidence import Answered, Evidence
from tasklib.iterating.findings import Finding, experiment, percent, script

HIGH_RATE = 20.0  # times the usual rate: a collapse is blamed on the rate from there
SMALL_BATCH = 4  # rows a step; fewer make the gradient noisy
SHORT = 200  # optimizer steps: a loss that is flat before may only be warming up
FEW_STEPS = 20  # optimizer steps: fewer cannot have used the rate they were given, warmup included
UNLEARNT = 1.5  # times chance
HARDLY_FELL = 0.5  # of the first loss
AT_ITS_START = 0.8  # of the first loss: under a rate far below the usual one, that is its doing
SPIKE = 1.25  # times the first loss
OVERTRAINED = 1.15  # validation loss against its lowest
OVERTRAINED_EPOCHS = 3  # epochs trained after the lowest validation loss
BY_HEART = 0.02  # times chance: nothing is left to learn from the training rows
GUESSING = 0.9  # of the loss of guessing among all tokens
TOKENS_PER_CHARACTER = 1.0  # a tokenizer that knows the script needs fewer; byte fallback needs 2 or 3 for Chinese
FITS_TRAIN = 0.9  # share of its own training rows that a run that can learn the task answers right
BY_HEART_OF_FIRST = 0.05  # of the first loss, where there is no chance to measure by


def usual_rate(e: Evidence) -> float:
    """That of the method and adapter: pairs take smaller steps, all weights smaller ones than adapters."""
    return schema.learning_rate(e.config.method, e.config.adapter.type)


def run_not_finished(e: Evidence) -> Finding | None:
    """The training stopped before its end, and not because of its loss."""
    if e.record.status == "finished" or "loss_is_nan" in e.alerts:
        return None
    return Finding(
        code="run_not_finished",
        confidence="high",
        message=f"the run is {e.record.status}: its model is not the one that the config asks for",
        evidence={"status": e.record.status, "steps": e.steps},
        command=script("03_train.py", e.name, "--resume"),
        expect="the run ends as finished",
    )


def loss_is_nan(e: Evidence) -> Finding | None:
    """A loss or gradient that is no number: every weight is lost."""
    if "loss_is_nan" not in e.alerts:
        return None
    line = next(line for line in e.log if line.get("alert") == "loss_is_nan")
    rate = e.config.training.learning_rate
    better = min(rate / 10, usual_rate(e))
    hypothesis = f"at {rate:.3g} the weights overflow; {better:.3g} is a rate that such adapters bear"
    return Finding(
        code="loss_is_nan",
        confidence="high",
        message=f"at step {line['step']} {line['message']}: nothing was learnt",
        evidence={"step": line["step"], "learning_rate": rate, "dtype": e.config.base_model.dtype},
        command=experiment(e, "lr", hypothesis, training__learning_rate=better),
        expect="a loss that stays a number and falls; if it does not, base_model.dtype bfloat16 instead of float16",
        search={"training.learning_rate": _around(better)},
    )


def template_changed(e: Evidence) -> Finding | None:
    """The prompt renders otherwise than in training."""
    if e.record.prompt_sha256 is None or e.prompt_sha256 in (None, e.record.prompt_sha256):
        return None
    return Finding(
        code="template_changed",
        confidence="high",
        message="the prompt renders otherwise today than when this run was trained: chat template, tokenizer, "
        "instruction or thinking flag have changed, so the model is asked what it never learnt",
        evidence={"trained_with": e.record.prompt_sha256[:12], "today": e.prompt_sha256[:12]},
        first="restore the tokenizer files or the prompt of that time (data_stats.json shows three rows as they were "
        "trained); only if the new prompt is wanted:",
        command=script("03_train.py", e.name, "--force"),
        expect="training, evaluation and serving render the same prompt, and the score of before comes back",
    )


def learning_rate_too_high(e: Evidence) -> Finding | None:
    """The loss jumped or stands above chance, and the answers have collapsed."""
    losses, rate = e.losses, e.config.training.learning_rate
    if len(losses) < 5 or e.steps < FEW_STEPS:
        return None
    first, last = losses[0], e.last_loss
    has_jumped = max(_smooth(losses)) > SPIKE * first or "diverging" in e.alerts
    is_extreme = rate > HIGH_RATE * usual_rate(e)
    has_collapsed = _is_unlearnt(e) and (has_jumped or is_extreme)
    if not (has_collapsed or "diverging" in e.alerts):
        return None
    better = rate / 100 if rate / 100 >= usual_rate(e) else max(rate / 10, usual_rate(e))
    share = _largest_share(e)
    hypothesis = f"at {rate:.3g} the weights were thrown off; {better:.3g} lets them learn"
    return Finding(
        code="learning_rate_too_high",
        confidence="high" if has_jumped and is_extreme else "medium",
        message=f"the training loss ends at {last:.2f}, {_compared(e)}"
        + (f"; it rose to {max(_smooth(losses)):.2f} on the way" if has_jumped else "")
        + (f"; {percent(share)} of the validation rows get one and the same answer" if share else ""),
        evidence={"learning_rate": rate, "first_loss": first, "last_loss": last, **_measure(e)},
        command=experiment(e, "lr", hypothesis, training__learning_rate=better),
        expect=f"a training loss well below {_wanted_loss(e):.2f}, and answers that differ with the text",
        search={"training.learning_rate": _around(better)},
    )


def too_few_steps(e: Evidence) -> Finding | None:
    """The model was changed only a few times."""
    losses = e.losses
    if not losses or e.steps >= FEW_STEPS or _is_learnt(e):
        return None
    rows, batch = len(e.rows["train"]), e.config.training.per_device_train_batch_size
    accumulation = e.config.training.trl_fields.get("gradient_accumulation_steps", 1)
    values = _more_steps(rows, batch, accumulation, e.config.training.num_train_epochs)
    hypothesis = f"{e.steps} optimizer steps are too few to learn anything"
    return Finding(
        code="too_few_steps",
        confidence="high" if _is_unlearnt(e) else "medium",
        message=f"{e.steps} optimizer step{'s' if e.steps != 1 else ''} on {rows} rows ({batch} x {accumulation} rows "
        f"a step): the training loss still stands at {e.last_loss:.2f}",
        evidence={"steps": e.steps, "rows": rows, "last_loss": e.last_loss, **_measure(e)},
        command=experiment(e, "more-steps", hypothesis, **values),
        expect=f"a training loss below {_wanted_loss(e):.2f}",
        search={"training.num_train_epochs": {"choices": [3, 5, 8]}},
    )


def learning_rate_too_low(e: Evidence) -> Finding | None:
    """Enough steps, and the loss has hardly fallen."""
    losses, rate = e.losses, e.config.training.learning_rate
    if len(losses) < 5 or e.steps < FEW_STEPS:
        return None
    first, last = e.first_loss, e.last_loss
    is_unlearnt = e.knows_chance and _is_unlearnt(e) and last > HARDLY_FELL * first
    is_unlearnt = is_unlearnt and rate < HIGH_RATE * usual_rate(e)
    is_timid = rate < usual_rate(e) / 5 and last > AT_ITS_START * first and not _is_learnt(e)
    if not (is_unlearnt or is_timid):
        return None
    better = rate * 100 if rate * 100 <= 5 * usual_rate(e) else max(rate * 10, usual_rate(e))
    hypothesis = f"at {rate:.3g} the loss hardly moved in {e.steps} steps"
    return Finding(
        code="learning_rate_too_low",
        confidence="high" if rate < usual_rate(e) else "medium",
        message=f"in {e.steps} steps the training loss went from {first:.2f} to {last:.2f} only"
        + (f"; guessing among the labels gives {e.chance_loss:.2f}" if e.knows_chance else ""),
        evidence={"learning_rate": rate, "steps": e.steps, "first_loss": first, "last_loss": last},
        command=experiment(e, "lr", hypothesis, training__learning_rate=better),
        expect=f"a training loss below {_wanted_loss(e):.2f}",
        search={"training.learning_rate": _around(better)},
    )


def too_many_epochs(e: Evidence) -> Finding | None:
    """The validation loss had its lowest value long before the end, while the training rows were learnt by heart."""
    evals = e.evals
    if len(evals) < 4 or not e.losses or e.config.training.trl_fields.get("load_best_model_at_end"):
        return None
    (best_epoch, lowest), (last_epoch, last) = min(evals, key=lambda found: found[1]), evals[-1]
    after = last_epoch - best_epoch
    by_heart = BY_HEART * e.chance_loss if e.knows_chance else BY_HEART_OF_FIRST * e.first_loss
    if last < OVERTRAINED * lowest or after < OVERTRAINED_EPOCHS or e.last_loss > by_heart:
        return None
    epochs = max(2, math.ceil(best_epoch))  # one epoch alone rarely settles under a falling rate
    hypothesis = f"after epoch {best_epoch:g} the validation loss only rose"
    return Finding(
        code="too_many_epochs",
        confidence="high",
        message=f"the validation loss was lowest at epoch {best_epoch:g} ({lowest:.3f}) and stands at {last:.3f} after "
        f"epoch {last_epoch:g}; the training loss is {e.last_loss:.2g}: the rows are learnt by heart",
        evidence={
            "best_epoch": best_epoch,
            "lowest_eval_loss": lowest,
            "last_epoch": last_epoch,
            "last_eval_loss": last,
        },
        command=experiment(e, "epochs", hypothesis, training__num_train_epochs=epochs),
        expect="a validation loss near the lowest one in a fraction of the time, better calibrated probabilities, and "
        "a score that is not worse",
        search={"training.num_train_epochs": {"choices": sorted({epochs, epochs + 1, epochs + 2})}},
    )


def base_model_unfit(e: Evidence) -> Finding | None:
    """A base model that is no start: it knows nothing, or reads these texts in pieces smaller than a character."""
    reason = _knows_nothing(e) or _cannot_read(e)
    if reason is None:
        return None
    message, hypothesis, evidence = reason
    return Finding(
        code="base_model_unfit",
        confidence="high" if _knows_nothing(e) else "medium",
        message=message,
        evidence={"base_model": e.config.base_model.id, **evidence},
        command=experiment(e, "base", hypothesis, base_model__id="Qwen/Qwen3-0.6B"),
        expect="a first training loss far below that of guessing, about 0.6 to 0.8 tokens for each Chinese character, "
        "a score above TF-IDF",
    )


def _knows_nothing(e: Evidence) -> tuple[str, str, dict] | None:
    """The first loss is that of guessing among all tokens: weights that were never trained, or are damaged."""
    if not e.losses or e.vocabulary_size is None or e.config.method != "sft":
        return None  # the losses of pairs are no nats of a token
    guessing, first = math.log(e.vocabulary_size), e.losses[0]
    if first < GUESSING * guessing:
        return None
    message = (
        f"the first training loss is {first:.2f}, that of guessing among all {e.vocabulary_size} tokens "
        f"({guessing:.2f}): the weights of {e.config.base_model.id} were never trained, or are damaged"
    )
    return message, "another base model brings what this one does not know", {"first_loss": round(first, 3)}


def _cannot_read(e: Evidence) -> tuple[str, str, dict] | None:
    """The tokenizer cuts characters into bytes, and TF-IDF is not beaten by a run that was trained as it should be: one
    that learnt nothing says nothing of its base, and such a tokenizer alone is no obstacle (a 135M English-first model
    beats TF-IDF on Chinese reviews of phones)."""
    per_character = e.tokens_per_character
    if is_short(e) or learning_rate_too_low(e) or learning_rate_too_high(e) or too_few_steps(e):
        return None
    if per_character is None or per_character < TOKENS_PER_CHARACTER or not _is_disappointing(e):
        return None
    message = (
        f"the base model's tokenizer needs {per_character:.1f} tokens for each character of these texts: it was hardly "
        "trained on their language"
    )
    hypothesis = f"{e.config.base_model.id} cannot read these texts: {per_character:.1f} tokens for each character"
    return message, hypothesis, {"tokens_per_character": round(per_character, 2)}


def underfitting(e: Evidence) -> Finding | None:
    """Steps and rate are in order, and still the run does not know its own training rows."""
    if not e.trained or e.metrics is None or e.steps < FEW_STEPS:
        return None
    right = _mean_score(e.trained)
    last = e.last_loss
    is_short = e.steps < SHORT or e.config.training.num_train_epochs < 3
    is_flat = last > 0.9 * _before_last(e.losses) and not is_short
    if right > FITS_TRAIN or _is_learnt(e) or not _is_disappointing(e):
        return None
    values, what = _more_capacity(e) if is_flat else _more_epochs(e)
    return Finding(
        code="underfitting",
        confidence="medium",
        message=f"the run {_does_on_train(e, right)}, and the training loss "
        + ("has stopped falling" if is_flat else f"stands at {last:.2f} after {e.steps} steps"),
        evidence={"right_on_train": round(right, 3), "last_loss": last, **_measure(e)},
        command=experiment(e, "capacity" if is_flat else "epochs", what, **values),
        expect=f"more than {percent(FITS_TRAIN)} of the training rows right, and a validation score that follows"
        if e.labels
        else "a higher score on the training rows, and a validation score that follows",
        search={"training.learning_rate": _around(e.config.training.learning_rate)},
    )


def overfitting(e: Evidence) -> Finding | None:
    """Known by heart in training, far worse in validation, without a better moment to stop at, and not good enough: a
    gap alone is no fault, every model that fits its rows has one."""
    if not e.trained or not e.answered or not _falls_short(e):
        return None
    right, validated = _mean_score(e.trained), _mean_score(e.answered)
    if right < 0.97 or right - validated < 0.2:
        return None
    dropout = e.config.adapter.peft_fields.get("lora_dropout", 0.0)
    hypothesis = f"{percent(right)} right on train, {percent(validated)} on validation: less fitting to single rows"
    message = f"{percent(right)} of the training rows and {percent(validated)} of the validation rows are right"
    if not e.labels:
        metric = e.definition.primary_metric
        hypothesis = f"{right:.2f} on train, {validated:.2f} on validation: less fitting to single rows"
        message = f"the mean {metric} of a row is {right:.2f} in train and {validated:.2f} in validation"
    values = {"training__num_train_epochs": max(1, math.floor(e.config.training.num_train_epochs / 2))}
    if e.config.training.num_train_epochs <= 3 and e.config.adapter.type != "full" and dropout < 0.1:
        values = {"adapter__lora_dropout": 0.1}
    return Finding(
        code="overfitting",
        confidence="medium",
        message=message,
        evidence={"right_on_train": round(right, 3), "right_on_validation": round(validated, 3)},
        command=experiment(e, "regularised", hypothesis, **values),
        expect="a smaller gap; more rows with good answers help more than any setting"
        + (" (scripts/suggest_labels.py)" if e.labels else ""),
    )


# ---- helpers --------------------------------------------------------------------------------------------------------


def _is_unlearnt(e: Evidence) -> bool:
    """The training loss ends above that of guessing; where guessing has none, near its own start."""
    return e.last_loss > (UNLEARNT * e.chance_loss if e.knows_chance else AT_ITS_START * e.first_loss)


def is_short(e: Evidence) -> bool:
    """So few steps that more of them are the first thing to try, and the loss is not yet far below that of guessing."""
    return e.steps < SHORT and not _is_learnt(e)


def _is_learnt(e: Evidence) -> bool:
    """The training loss ends far below that of guessing; where guessing has none, below half of its start."""
    return e.last_loss < (0.5 * e.chance_loss if e.knows_chance else HARDLY_FELL * e.first_loss)


def _wanted_loss(e: Evidence) -> float:
    return e.chance_loss if e.knows_chance else HARDLY_FELL * e.first_loss


def _compared(e: Evidence) -> str:
    if e.knows_chance:
        return f"{e.last_loss / e.chance_loss:.1f} times that of guessing"
    return f"it began at {e.losses[0]:.2f}"


def _measure(e: Evidence) -> dict[str, float]:
    """What the loss was measured by, for the record."""
    return {"chance_loss": e.chance_loss} if e.knows_chance else {"first_loss": e.first_loss}


def _mean_score(rows: Sequence[Answered]) -> float:
    return float(np.mean([row.score for row in rows]))


def _does_on_train(e: Evidence, right: float) -> str:
    if e.labels:
        return f"answers {percent(right)} of its own training rows right"
    return f"has a mean {e.definition.primary_metric} of {right:.2f} on its own training rows"


def _before_last(losses: list[float]) -> float:
    """Mean of the fifth before the last one."""
    n = max(1, len(losses) // 5)
    return float(np.mean(losses[-2 * n : -n] or losses))


def _smooth(losses: list[float]) -> list[float]:
    """Means of three neighbours: one high batch is no jump."""
    return np.convolve(losses, np.ones(3) / 3, mode="valid").tolist() if len(losses) >= 3 else list(losses)


def _largest_share(e: Evidence) -> float | None:
    if not e.answered:
        return None
    predicted = [str(row.prediction) for row in e.answered]
    return max(predicted.count(value) for value in set(predicted)) / len(predicted)


def _falls_short(e: Evidence) -> bool:
    """Below the target, or proven worse than TF-IDF."""
    target, value = e.definition.evaluation.target, e.metrics.primary.value
    misses = target is not None and (value is None or value < target)
    return misses or any(c.against == "tfidf_logreg" and c.verdict == "worse" for c in e.metrics.comparisons)


def _is_disappointing(e: Evidence) -> bool:
    """Below the target, or not proven better than TF-IDF, or where the task type has none than all of its baselines."""
    if e.metrics is None:
        return True
    if _falls_short(e):
        return True
    names = {"tfidf_logreg"} & set(e.module.BASELINES) or set(e.module.BASELINES)
    return not names <= {c.against for c in e.metrics.comparisons if c.verdict == "better"}


def _more_steps(rows: int, batch: int, accumulation: int, epochs: float) -> dict[str, int]:
    """Smaller batches where they give enough steps or are very large, otherwise more epochs: one of the two."""
    wanted = 3 * FEW_STEPS
    if batch * accumulation > SMALL_BATCH and rows * epochs / SMALL_BATCH >= FEW_STEPS:
        size = max(SMALL_BATCH, min(batch, int(rows * epochs / wanted)))
        return {"training__per_device_train_batch_size": size, "training__gradient_accumulation_steps": 1}
    per_epoch = math.ceil(rows / (batch * accumulation))
    return {"training__num_train_epochs": max(3, math.ceil(wanted / per_epoch))}


def _more_epochs(e: Evidence) -> tuple[dict[str, float], str]:
    epochs = e.config.training.num_train_epochs
    more = max(3, int(epochs * 2))
    return {"training__num_train_epochs": more}, f"{epochs:g} epochs ({e.steps} steps) were too few to fit the rows"


def _more_capacity(e: Evidence) -> tuple[dict[str, float | str], str]:
    r = e.config.adapter.peft_fields.get("r", 16)
    if e.config.adapter.type != "full" and r < 32:
        ratio = e.config.adapter.peft_fields.get("lora_alpha", 2 * r) / r
        return {"adapter__r": 2 * r, "adapter__lora_alpha": int(2 * r * ratio)}, f"r={r} is too small for this task"
    return {"base_model__id": "Qwen/Qwen3-1.7B"}, f"{e.config.base_model.id} is too small for this task"


def _around(rate: float) -> dict[str, float | bool]:
    return {"low": float(f"{rate / 5:.1e}"), "high": float(f"{rate * 5:.1e}"), "log": True}
