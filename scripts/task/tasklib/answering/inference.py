"""Rows -> answers, for evaluation and prediction alike: render, decode, parse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tasklib import schema
from tasklib.answering import prior_correction
from tasklib.exit_codes import ExitCode
from tasklib.model import constrained, decoding, prompts, tokenized
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.summary import Problem, TaskError

Conversation = list[dict[str, str]]
Prior = Callable[[dict[str, float]], dict[str, float]]  # log-likelihoods of the labels -> corrected probabilities


@dataclass(frozen=True)
class Answer:
    """What the model said about one row. `probabilities` is None under generate, `raw_output` under score.

    `failed`: an endpoint gave no answer, `raw_output` says why; `n_retries` requests were sent again since the answer
    before.
    """

    prediction: Any
    raw_output: str | None
    probabilities: dict[str, float] | None
    failed: bool = False
    n_retries: int = 0


Answers = Iterator[tuple[list[int], list[Answer]]]  # positions of the conversations just done, and their answers


def answers(
    definition: TaskDefinition,
    config: RunConfig,
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    prior: Prior | None = None,
    *,
    candidates: Sequence[Sequence[str]] | None = None,
) -> Answers:
    """Answers each conversation by the definition's decoding, in the order of length: yields each batch as it is done.

    Under compare, `candidates` holds the answers of each conversation whose likelihoods are the prediction. Under
    score, `prior` makes corrected probabilities of the likelihoods before the likeliest label is taken. Raises
    TaskError (exit 3) when a prompt is longer than the model's context.
    """
    if not conversations:
        return
    thinking = definition.prompt.enable_thinking
    rendered = [prompts.render_prompt(tokenizer, messages, enable_thinking=thinking) for messages in conversations]
    decoding = definition.evaluation.decoding
    if decoding == "compare" and candidates is not None:
        yield from _by_comparison(definition, config, model, tokenizer, conversations, candidates)
        return
    is_scored = decoding == "score"
    _require_context(model, tokenizer, rendered, 0 if is_scored else config.generation.max_new_tokens)
    by_decoding = _by_score if is_scored else _by_generation
    yield from by_decoding(definition, config, model, tokenizer, rendered, conversations[0], prior)


def candidates_of(definition: TaskDefinition, rows: Sequence[dict[str, Any]]) -> list[list[str]] | None:
    """The answers of each row that `compare` decoding asks the likelihood of; None under another decoding."""
    if definition.evaluation.decoding != "compare":
        return None
    module = definition.task_type
    return [module.candidates(module.Record(**row["record"])) for row in rows]


def answered(
    definition: TaskDefinition, config: RunConfig, model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]]
) -> list[Answer]:
    """Rows of a split -> the model's answers, in order, with the prompt fitted as in training."""
    from tasklib.answering import pieces

    asked = pieces.of(definition, rows)
    conversations, _ = tokenized.fitted(tokenizer, definition, config, asked.rows)
    candidates = candidates_of(definition, asked.rows)
    found = answers(definition, config, model, tokenizer, conversations, candidates=candidates)
    return asked.joined(in_order(found, len(asked.rows)))


def in_order(batches: Iterable[tuple[Sequence[int], Sequence[Any]]], n: int) -> list[Any]:
    """Batches of (positions, values), as they come, -> the `n` values by position."""
    found: list[Any] = [None] * n
    for positions, batch in batches:
        for position, value in zip(positions, batch, strict=True):
            found[position] = value
    return found


def _by_score(
    definition: TaskDefinition,
    config: RunConfig,
    model: Any,
    tokenizer: Any,
    rendered: list[str],
    example: Conversation,
    prior: Prior | None,
) -> Answers:
    texts = definition.task_type.label_set(definition.task)
    thinking = definition.prompt.enable_thinking
    completions = [
        prompts.render_completion(tokenizer, example, text, enable_thinking=thinking) for text in texts.values()
    ]
    batches = decoding.score_labels(model, tokenizer, rendered, completions, config.generation.batch_size)
    for positions, scores in batches:
        yield positions, [_most_likely(dict(zip(texts, row, strict=True)), prior) for row in scores]


def _by_comparison(
    definition: TaskDefinition,
    config: RunConfig,
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    candidates: Sequence[Sequence[str]],
) -> Answers:
    """The mean log-probability of a token of each candidate, its end of turn included, in nats.

    The mean and not the sum, as in ORPO (Hong et al. 2024, arXiv:2403.07691) and SimPO (Meng et al. 2024,
    arXiv:2405.14734): a sum prefers the shorter answer whatever it says.
    """
    thinking = definition.prompt.enable_thinking
    rendered = [
        [prompts.render(tokenizer, messages, text, enable_thinking=thinking) for text in texts]
        for messages, texts in zip(conversations, candidates, strict=True)
    ]
    _require_context(model, tokenizer, [prompt + answer for row in rendered for prompt, answer in row], 0)
    batches = decoding.mean_log_probabilities(model, tokenizer, rendered, config.generation.batch_size)
    for positions, values in batches:
        yield positions, [Answer([round(value, 6) for value in row], None, None) for row in values]


def _by_generation(
    definition: TaskDefinition,
    config: RunConfig,
    model: Any,
    tokenizer: Any,
    rendered: list[str],
    example: Conversation,
    prior: Prior | None,
) -> Answers:
    spec = config.generation
    end = prompts.end_of_turn(tokenizer, example, enable_thinking=definition.prompt.enable_thinking)
    if (wanted := schema.answer_schema(definition, config)) is not None:
        constrained.require_package()
    settings = end, spec.max_new_tokens, spec.batch_size
    for positions, texts in decoding.generate(model, tokenizer, rendered, *settings, schema=wanted):
        yield positions, [parsed(definition, text) for text in texts]


def parsed(definition: TaskDefinition, text: str, n_retries: int = 0) -> Answer:
    """A generated text as an answer; `prediction` is None where it names nothing, or more than one thing."""
    return Answer(definition.task_type.parse(text, definition.task), text, None, n_retries=n_retries)


def _most_likely(scores: dict[str, float], prior: Prior | None) -> Answer:
    """Log-likelihoods of the labels as probabilities over the closed set."""
    probabilities = prior(scores) if prior else prior_correction.corrected(scores, {}, 0.0)
    likeliest = max(probabilities, key=probabilities.__getitem__)
    return Answer(likeliest, None, {label: round(value, 6) for label, value in probabilities.items()})


def prior(definition: TaskDefinition, config: RunConfig, train: Sequence[dict[str, Any]]) -> Prior | None:
    """The correction that `imbalance.prior_correction` asks for, by the label shares of the training rows; None where
    there is none, and under generate, which has no probabilities."""
    strength = config.imbalance.prior_correction
    if not strength or definition.evaluation.decoding != "score":
        return None
    module = definition.task_type
    shares = prior_correction.label_shares([module.gold(module.Record(**row["record"])) for row in train])
    return lambda scores: prior_correction.corrected(scores, shares, strength)


def _require_context(model: Any, tokenizer: Any, rendered: list[str], n_new: int) -> None:
    """Raises TaskError (exit 3) when a prompt and its answer pass the positions that the model was made for: what it
    writes there is noise. Only prompts of more bytes than that are tokenized: no token is shorter than a byte."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not limit:
        return
    room = limit - n_new
    long = [text for text in rendered if len(text.encode()) > room]
    n_tokens = [n for n in (len(prompts.token_ids(tokenizer, text)) for text in long) if n > room]
    if n_tokens:
        more = f" and its answer up to {n_new}" if n_new else ""
        problem = Problem(
            code="too_long_for_model",
            message=f"{len(n_tokens)} prompts do not fit the model: the longest has {max(n_tokens)} tokens{more}, the "
            f"model reads {limit}",
            hint="use fewer worked examples (prompt.n_few_shot, evaluation.n_few_shot); long texts: prompt.shorten, or "
            "task.windows where the task type has it",
        )
        raise TaskError(ExitCode.DATA, [problem])


def require_same_prompt(tokenizer: Any, definition: TaskDefinition, trained_with: str | None, run: str) -> None:
    """Raises TaskError (exit 4) when the prompt renders otherwise than it did in training."""
    if trained_with is not None and prompts.prompt_hash(tokenizer, definition) != trained_with:
        problem = Problem(
            code="prompt_changed",
            message=f"the prompt renders otherwise than when run {run!r} was trained",
            hint="the chat template, the tokenizer or the prompt has changed: restore it, or train again",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem])
