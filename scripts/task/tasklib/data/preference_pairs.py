"""Pairs of answers to learn from, one chosen and one rejected: the task's own rows, or a file of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasklib.files import read_jsonl
from tasklib.paths import TaskPaths
from tasklib.schema import RunConfig, TaskDefinition


def of_rows(definition: TaskDefinition, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`{id, source, prompt, chosen, rejected}` of processed rows that are pairs themselves."""
    module = definition.task_type
    found = []
    for row in rows:
        chosen, rejected = module.candidates(module.Record(**row["record"]))
        found.append({**row, "chosen": chosen, "rejected": rejected})
    return found


def load(paths: TaskPaths, definition: TaskDefinition, config: RunConfig) -> list[dict[str, Any]]:
    """The pairs of `config.preference_data`."""
    return read_jsonl(paths.root / config.preference_data)
