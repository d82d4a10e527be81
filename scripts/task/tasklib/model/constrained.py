"""Answers that must follow a JSON Schema while they are generated: at each step only tokens that can still lead there.

By llguidance (github.com/guidance-ai/llguidance): a grammar made of the schema gives a mask over the vocabulary. Keys
come in the schema's order. An answer that `generation.max_new_tokens` cuts off is torn nevertheless, and no JSON.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from typing import Any

import numpy as np

from tasklib.exit_codes import ExitCode
from tasklib.summary import Problem, TaskError

# Compact JSON as answers are trained, or with Python's spaces; where white space is free a model may never end it.
_SEPARATORS = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}


def require_package() -> None:
    """Raises TaskError (exit 4) where llguidance is not installed."""
    if importlib.util.find_spec("llguidance") is None:
        message, hint = "generation.constrained needs the Python package llguidance", "uv sync --extra constrained"
        problem = Problem(code="package_missing", message=message, field="generation.constrained", hint=hint)
        raise TaskError(ExitCode.PREREQUISITE, [problem])


def processor(tokenizer: Any, schema: dict[str, Any], n_rows: int, n_vocabulary: int, stop: list[int]) -> Any:
    """What generate() takes as `logits_processor` for one batch. `stop` are the tokens that end an answer.

    Raises TaskError (exit 2) for a schema or a tokenizer that llguidance cannot take.
    """
    from transformers import LogitsProcessorList

    return LogitsProcessorList([_FollowsSchema(tokenizer, schema, n_rows, n_vocabulary, tuple(stop))])


class _FollowsSchema:
    """Sees each batch's tokens as they grow; one matcher for each row."""

    def __init__(
        self, tokenizer: Any, schema: dict[str, Any], n_rows: int, n_vocabulary: int, stop: tuple[int, ...]
    ) -> None:
        start = _matcher(tokenizer, json.dumps(schema), n_vocabulary, stop)
        self.matchers = [start.deep_copy() for _ in range(n_rows)]
        self.stop, self.has_begun = list(stop), False

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores (n_rows, vocabulary) with -inf where a token would break the schema, or follow its end."""
        import torch

        allowed = np.zeros(scores.shape, dtype=bool)
        for row, matcher in enumerate(self.matchers):
            if self.has_begun and not matcher.is_stopped():
                matcher.consume_token(int(input_ids[row, -1]))
            if matcher.is_stopped():  # complete; or past the parser's limits: then torn, and counted as what it is
                allowed[row, self.stop] = True
            else:
                bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
                allowed[row, : len(bits)] = bits[: scores.shape[1]]
        self.has_begun = True
        return scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), float("-inf"))


@functools.lru_cache(maxsize=4)
def _matcher(tokenizer: Any, schema: str, n_vocabulary: int, stop: tuple[int, ...]) -> Any:
    """A matcher at its start, to be copied: making one takes a second, most of it for the vocabulary."""
    from llguidance import LLMatcher, hf

    try:
        known = hf.from_tokenizer(tokenizer, n_vocab=max(n_vocabulary, len(tokenizer)), eos_token=list(stop))
    except ValueError as error:
        raise _refused(f"llguidance cannot read the model's tokenizer: {error}", "set it to false") from None
    grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_SEPARATORS)
    matcher = LLMatcher(known, grammar, log_level=0)
    if matcher.is_error():
        hint = "simplify the schema (often a pattern), or set generation.constrained: false"
        raise _refused(f"llguidance cannot follow the schema: {matcher.get_error()}", hint)
    return matcher


def _refused(message: str, hint: str) -> TaskError:
    problem = Problem(code="not_constrainable", message=message, field="generation.constrained", hint=hint)
    return TaskError(ExitCode.USAGE, [problem])
