"""What `03_train.py --rehearse` asks of a model: the same answers after reloading, and text that ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasklib.answering import inference
from tasklib.exit_codes import ExitCode
from tasklib.files import read_jsonl
from tasklib.model import decoding, prompts, tokenized
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.summary import Problem, TaskError
from tasklib.training.preparation import Material

# Two steps, each logged, a checkpoint at the end; nothing of it leaves the temporary folder.
TRAINING = {
    "max_steps": 2, "logging_steps": 1, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "no",
    "load_best_model_at_end": False, "early_stopping_patience": None, "report_to": "none",
    "train_sampling_strategy": "random",
}  # fmt: skip
# Largest change of a label's probability between the model in memory and the reloaded one: merging or loading in bf16
# rounds (8 bits of mantissa), a lost or wrong adapter changes far more.
TOLERANCE = 0.05


def longest(material: Material, n: int, n_evaluated: int) -> Material:
    """The `n` longest training examples (rows, or packs of them), and the first rows of validation."""
    train = material.examples["train"]
    chosen = sorted(range(len(train)), key=lambda row: -sum(map(len, train[row].values())))[:n]

    def first(found: Mapping[str, Any]) -> dict[str, Any]:
        return {split: values[:n_evaluated] for split, values in found.items()}

    def longest(found: Mapping[str, Any]) -> dict[str, Any]:
        return first(found) | {"train": [found["train"][row] for row in chosen if row < len(found["train"])]}

    return replace(
        material, rows=first(material.rows), trained=longest(material.trained), examples=longest(material.examples)
    )


def require_same_answers(before: Sequence[inference.Answer], after: Sequence[inference.Answer]) -> None:
    """Raises TaskError (exit 4) when the reloaded model answers otherwise than the one that was saved."""
    for number, (one, other) in enumerate(zip(before, after, strict=True), start=1):
        if one.probabilities is None:
            differs, shown = one.raw_output != other.raw_output, f"{one.raw_output!r} became {other.raw_output!r}"
        else:
            gaps = {label: abs(p - other.probabilities[label]) for label, p in one.probabilities.items()}
            label = max(gaps, key=gaps.__getitem__)
            differs = gaps[label] > TOLERANCE
            shown = (
                f"the probability of {label!r} moved from {one.probabilities[label]} to {other.probabilities[label]}"
            )
        if differs:
            problem = Problem(
                code="reload_differs",
                message=f"after saving and reloading, row {number} is answered otherwise: {shown}",
                hint="the saved files do not hold the whole model: check adapter.target_modules, modules_to_save and "
                "the versions in pyproject.toml",
            )
            raise TaskError(ExitCode.PREREQUISITE, [problem])


def generated(
    definition: TaskDefinition, config: RunConfig, model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]]
) -> list[str]:
    """Two freely written answers, whatever the decoding is: that generation works at all."""
    conversations, _ = tokenized.fitted(tokenizer, definition, config, rows[:2])
    thinking = definition.prompt.enable_thinking
    rendered = [prompts.render_prompt(tokenizer, c, enable_thinking=thinking) for c in conversations]
    end = prompts.end_of_turn(tokenizer, conversations[0], enable_thinking=thinking)
    batches = decoding.generate(model, tokenizer, rendered, end, config.generation.max_new_tokens, batch_size=2)
    return inference.in_order(batches, len(rendered))


def step_seconds(log: Path) -> float:
    """Duration of the last step; the first one warms up."""
    elapsed = [line["elapsed_s"] for line in read_jsonl(log) if "loss" in line]
    return round(elapsed[-1] - elapsed[-2], 3)
