"""Processed rows -> token ids and labels: only the answer and its end of turn carry a label, and no answer is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tasklib.exit_codes import ExitCode
from tasklib.model import prompts, shortening
from tasklib.model.prompts import Message
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.summary import Problem, TaskError

IGNORED = -100  # the label that PyTorch's cross entropy leaves out
_AT_ONCE = 500  # texts shortened together: fast, and few of their token positions in memory


@dataclass(frozen=True)
class Encoded:
    """`examples` hold input_ids and labels, one for each row; `shortened` are the positions of rows whose text was cut
    by `prompt.shorten`."""

    examples: list[dict[str, list[int]]]
    shortened: list[int]


def fitted(
    tokenizer: Any, definition: TaskDefinition, config: RunConfig, rows: Sequence[dict[str, Any]]
) -> tuple[list[list[Message]], list[int]]:
    """The conversation of each row `{record, prompt, …}` after `prompt.shorten`, and the positions of those it cut.

    A row is cut when its prompt and the longest answer that may follow exceed training.max_length. That room does not
    depend on the row's own answer, so that training, evaluation and prediction cut the same text at the same place.
    Only the longest text field of the record gets shorter. Without a rule nothing is cut. Raises TaskError (exit 3)
    naming every row that does not fit even without its text.
    """
    if definition.prompt.shorten is None:
        return [row["prompt"] for row in rows], []
    conversations, _, shortened = _fit(tokenizer, definition, config, rows)
    return conversations, shortened


def encode(tokenizer: Any, definition: TaskDefinition, config: RunConfig, rows: Sequence[dict[str, Any]]) -> Encoded:
    """`{input_ids, labels}` for each row.

    Raises TaskError (exit 3) naming every row that is longer than training.max_length (too_long), and every row whose
    answer could not be generated within generation.max_new_tokens (answer_too_long).
    """
    _, starts, shortened = _fit(tokenizer, definition, config, rows)
    completions = _completions(tokenizer, definition, rows)
    distinct = list(dict.fromkeys(completions))
    ids_of = dict(zip(distinct, prompts.token_ids_of(tokenizer, distinct), strict=True))
    ends = [ids_of[completion] for completion in completions]
    problems = _too_long(definition, config, rows, [len(a) + len(b) for a, b in zip(starts, ends, strict=True)])
    if rows and _is_generated(definition):
        problems += _answers_too_long(tokenizer, definition, config, rows, ends)
    if problems:
        raise TaskError(ExitCode.DATA, problems)
    examples = [{"input_ids": a + b, "labels": [IGNORED] * len(a) + b} for a, b in zip(starts, ends, strict=True)]
    return Encoded(examples, shortened)


def _completions(tokenizer: Any, definition: TaskDefinition, rows: Sequence[dict[str, Any]]) -> list[str]:
    """The text to train of each row. Raises TaskError (exit 4) naming every row whose answer the template changes."""
    completions, problems = [], []
    for row in rows:
        answer, thinking = row["completion"][0]["content"], definition.prompt.enable_thinking
        try:
            completions.append(prompts.render_completion(tokenizer, row["prompt"], answer, enable_thinking=thinking))
        except TaskError as error:
            problems += [replace(problem, **_place(row)) for problem in error.problems]
    if problems:
        raise TaskError(ExitCode.PREREQUISITE, problems)
    return completions


def _too_long(
    definition: TaskDefinition, config: RunConfig, rows: Sequence[dict[str, Any]], lengths: Sequence[int]
) -> list[Problem]:
    limit, shorter = config.training.max_length, "prompt.shorten to cut texts by a rule, "
    if not definition.task_type.MAY_SHORTEN:
        has_windows = "windows" in type(definition.task).model_fields
        shorter = "task.windows to ask it in parts (a smaller max_chars), " if has_windows else ""
    return [
        Problem(
            code="too_long",
            message=f"{n_tokens} tokens with its answer, training.max_length is {limit}",
            hint=f"set training.max_length to {max(lengths)} (more memory), {shorter}or shorten the text in the data",
            **_place(row),
        )
        for row, n_tokens in zip(rows, lengths, strict=True)
        if n_tokens > limit
    ]


def _answers_too_long(
    tokenizer: Any,
    definition: TaskDefinition,
    config: RunConfig,
    rows: Sequence[dict[str, Any]],
    completions: Sequence[list[int]],
) -> list[Problem]:
    """Rows whose answer has more tokens than may be generated: evaluation would cut what training taught."""
    ending = prompts.end_of_turn(tokenizer, rows[0]["prompt"], enable_thinking=definition.prompt.enable_thinking)
    n_ending, limit = len(prompts.token_ids(tokenizer, ending)), config.generation.max_new_tokens
    lengths = [len(ids) - n_ending for ids in completions]
    needed = max(lengths) + len(prompts.token_ids(tokenizer, ending.strip()))
    return [
        Problem(
            code="answer_too_long",
            message=f"the answer has {n_tokens} tokens, generation.max_new_tokens is {limit}",
            hint=f"set generation.max_new_tokens to {needed}: the longest answer with its end of turn",
            **_place(row),
        )
        for row, n_tokens in zip(rows, lengths, strict=True)
        if n_tokens > limit
    ]


def _is_generated(definition: TaskDefinition) -> bool:
    closed = definition.task_type.label_set(definition.task) is not None
    return definition.evaluation.decoding == "generate" or (not closed and definition.evaluation.decoding != "compare")


def _place(row: dict[str, Any]) -> dict[str, Any]:
    source = row.get("source", {})
    return {"file": source.get("file"), "line": source.get("line")}


def _fit(
    tokenizer: Any, definition: TaskDefinition, config: RunConfig, rows: Sequence[dict[str, Any]]
) -> tuple[list[list[Message]], list[list[int]], list[int]]:
    """Conversations, the token ids of their prompts, and the positions of those that were cut."""
    conversations = [row["prompt"] for row in rows]
    ids = _prompt_ids(tokenizer, definition, conversations)
    if definition.prompt.shorten is None or not rows:
        return conversations, ids, []
    room = config.training.max_length - _answer_room(tokenizer, definition, config, conversations[0])
    too_long = [position for position, tokens in enumerate(ids) if len(tokens) > room]
    problems = []
    for start in range(0, len(too_long), _AT_ONCE):
        chosen = too_long[start : start + _AT_ONCE]
        excess = [len(ids[position]) - room for position in chosen]
        found = _shortened(tokenizer, definition, [rows[position] for position in chosen], excess, room)
        for position, messages in zip(chosen, found, strict=True):
            if messages is None:
                problems.append(_no_room(config, rows[position]))
            else:
                conversations[position] = messages
    if problems:
        raise TaskError(ExitCode.DATA, problems)
    cut = _prompt_ids(tokenizer, definition, [conversations[position] for position in too_long])
    for position, tokens in zip(too_long, cut, strict=True):
        ids[position] = tokens
    return conversations, ids, too_long


def _shortened(
    tokenizer: Any, definition: TaskDefinition, rows: Sequence[dict[str, Any]], excess: Sequence[int], room: int
) -> list[list[Message] | None]:
    """The conversation of each row with the longest text that leaves at most `room` prompt tokens; None where nothing
    does. `excess`: tokens that the row has too many."""
    module = definition.task_type
    asked = [role for role in module.TEXT_FIELDS if role in module.INPUT_FIELDS]  # never what is to be answered
    roles = [max(asked, key=lambda role: len(row["record"].get(role) or "")) for row in rows]

    def with_text(i: int, text: str) -> list[Message]:
        record = module.Record(**{**rows[i]["record"], roles[i]: text})
        return [*rows[i]["prompt"][:-1], prompts.user_message(definition, record)]

    def tokens_over(candidates: list[tuple[int, str]]) -> list[int]:
        ids = _prompt_ids(tokenizer, definition, [with_text(i, text) for i, text in candidates])
        return [len(tokens) - room for tokens in ids]

    texts = [row["record"][role] for row, role in zip(rows, roles, strict=True)]
    found = shortening.longest_fitting(tokenizer, texts, excess, definition.prompt.shorten, tokens_over)
    return [None if text is None else with_text(i, text) for i, text in enumerate(found)]


def _answer_room(tokenizer: Any, definition: TaskDefinition, config: RunConfig, messages: list[Message]) -> int:
    """Tokens kept for the answer and its end of turn: the longest of a closed set, or what may be generated."""
    answers = definition.task_type.label_set(definition.task)
    if answers is None:
        return config.generation.max_new_tokens
    thinking = definition.prompt.enable_thinking
    completions = [
        prompts.render_completion(tokenizer, messages, answer, enable_thinking=thinking) for answer in answers.values()
    ]
    return max(map(len, prompts.token_ids_of(tokenizer, completions)))


def _prompt_ids(
    tokenizer: Any, definition: TaskDefinition, conversations: Sequence[Sequence[Message]]
) -> list[list[int]]:
    thinking = definition.prompt.enable_thinking
    return prompts.token_ids_of(
        tokenizer, [prompts.render_prompt(tokenizer, messages, enable_thinking=thinking) for messages in conversations]
    )


def _no_room(config: RunConfig, row: dict[str, Any]) -> Problem:
    return Problem(
        code="too_long",
        message=f"does not fit training.max_length {config.training.max_length} even without its text",
        hint="raise training.max_length, or shorten the instruction or prompt.n_few_shot",
        **_place(row),
    )


def statistics(examples: Sequence[dict[str, list[int]]], n_shortened: int = 0) -> dict[str, Any]:
    """Token lengths of the rows: what data_stats.json holds."""
    lengths = np.array([len(row["input_ids"]) for row in examples])
    trained = np.array([sum(label != IGNORED for label in row["labels"]) for row in examples])
    return {
        "n_rows": len(examples),
        "n_tokens": int(lengths.sum()),
        "n_trained_tokens": int(trained.sum()),
        "tokens_per_row": _percentiles(lengths),
        "trained_tokens_per_row": _percentiles(trained),
        "n_shortened": n_shortened,
        "n_truncated": 0,  # no answer is ever cut
    }


def _percentiles(values: np.ndarray) -> dict[str, int]:
    points = {"min": 0, "p50": 50, "p95": 95, "p99": 99, "max": 100}
    return {name: int(np.percentile(values, point)) for name, point in points.items()}
