"""Processed rows -> token ids and labels: only the answer and its end of turn carry a label, and nothing is cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tasklib import prompts
from tasklib.exit_codes import ExitCode
from tasklib.summary import Problem, TaskError

IGNORED = -100  # the label that PyTorch's cross entropy leaves out


def encode(tokenizer: Any, rows: Sequence[dict[str, Any]], max_length: int) -> list[dict[str, list[int]]]:
    """`{input_ids, labels}` for each row. Raises TaskError (exit 3) naming every row that is longer."""
    encoded, problems = [], []
    for row in rows:
        prompt = prompts.token_ids(tokenizer, prompts.render_prompt(tokenizer, row["prompt"]))
        answer = row["completion"][0]["content"]
        completion = prompts.token_ids(tokenizer, prompts.render_completion(tokenizer, row["prompt"], answer))
        encoded.append({"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion})
    longest = max((len(row["input_ids"]) for row in encoded), default=0)
    for row, tokens in zip(rows, encoded, strict=True):
        if (n_tokens := len(tokens["input_ids"])) > max_length:
            problems.append(
                Problem(
                    code="too_long",
                    message=f"{n_tokens} tokens with its answer, training.max_length is {max_length}",
                    file=row["source"]["file"],
                    line=row["source"]["line"],
                    hint=f"set training.max_length to {longest} (more memory), or shorten the text in the raw data",
                )
            )
    if problems:
        raise TaskError(ExitCode.DATA, problems)
    return encoded


def statistics(encoded: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
    """Token lengths of the rows: what data_stats.json holds."""
    lengths = np.array([len(row["input_ids"]) for row in encoded])
    trained = np.array([sum(label != IGNORED for label in row["labels"]) for row in encoded])
    return {
        "n_rows": len(encoded),
        "n_tokens": int(lengths.sum()),
        "n_trained_tokens": int(trained.sum()),
        "tokens_per_row": _percentiles(lengths),
        "trained_tokens_per_row": _percentiles(trained),
        "n_truncated": 0,  # encode() refuses rows that do not fit
    }


def _percentiles(values: np.ndarray) -> dict[str, int]:
    points = {"min": 0, "p50": 50, "p95": 95, "p99": 99, "max": 100}
    return {name: int(np.percentile(values, point)) for name, point in points.items()}
