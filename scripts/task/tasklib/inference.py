"""Rows -> answers, for evaluation and prediction alike: render, decode, parse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasklib import decoding, prompts
from tasklib.exit_codes import ExitCode
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.summary import Problem, TaskError


@dataclass(frozen=True)
class Answer:
    """What the model said about one row. `probabilities` is None under generate, `raw_output` under score."""

    prediction: Any
    raw_output: str | None
    probabilities: dict[str, float] | None


def answer(
    definition: TaskDefinition,
    config: RunConfig,
    model: Any,
    tokenizer: Any,
    conversations: Sequence[list[dict[str, str]]],
    progress: decoding.Progress = lambda n: None,
) -> list[Answer]:
    """Answers each conversation by the definition's decoding, in order."""
    rendered = [prompts.render_prompt(tokenizer, messages) for messages in conversations]
    if not rendered:
        return []
    if definition.evaluation.decoding == "score":
        return _by_score(definition, config, model, tokenizer, rendered, conversations[0], progress)
    return _by_generation(definition, config, model, tokenizer, rendered, conversations[0], progress)


def _by_score(
    definition: TaskDefinition,
    config: RunConfig,
    model: Any,
    tokenizer: Any,
    rendered: list[str],
    example: list[dict[str, str]],
    progress: decoding.Progress,
) -> list[Answer]:
    answers = definition.task_type.label_set(definition.task)
    completions = [prompts.render_completion(tokenizer, example, text) for text in answers.values()]
    scores = decoding.score_labels(model, tokenizer, rendered, completions, config.generation.batch_size, progress)
    return [_most_likely(dict(zip(answers, row, strict=True))) for row in scores]


def _by_generation(
    definition: TaskDefinition,
    config: RunConfig,
    model: Any,
    tokenizer: Any,
    rendered: list[str],
    example: list[dict[str, str]],
    progress: decoding.Progress,
) -> list[Answer]:
    marker = "\u241e"
    end_of_turn = prompts.render_completion(tokenizer, example, marker).removeprefix(marker)
    texts = decoding.generate(
        model,
        tokenizer,
        rendered,
        end_of_turn,
        config.generation.max_new_tokens,
        config.generation.batch_size,
        progress,
    )
    return [Answer(definition.task_type.parse(text, definition.task), text, None) for text in texts]


def _most_likely(scores: dict[str, float]) -> Answer:
    """Log-likelihoods of the labels as probabilities over the closed set."""
    top = max(scores.values())
    weights = {label: math.exp(value - top) for label, value in scores.items()}
    total = sum(weights.values())
    return Answer(max(scores, key=scores.__getitem__), None, {k: round(v / total, 6) for k, v in weights.items()})


def require_same_prompt(tokenizer: Any, definition: TaskDefinition, trained_with: str | None, run: str) -> None:
    """Raises TaskError (exit 4) when the prompt renders otherwise than it did in training."""
    if trained_with is not None and prompts.prompt_hash(tokenizer, definition) != trained_with:
        problem = Problem(
            code="prompt_changed",
            message=f"the prompt renders otherwise than when run {run!r} was trained",
            hint="the chat template, the tokenizer or the prompt has changed: restore it, or train again",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem])
