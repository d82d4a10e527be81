"""Pairs of answers to learn from, one chosen and one rejected: the task's own rows, or a file of them.

A file has one pair a line: `{id, source, prompt, chosen, rejected}`, where `prompt` holds the messages up to the answer
as in data/processed/. make_preferences.py writes such files, with a manifest of the same stem beside them; one that was
written by hand has no manifest, and its rows need neither id nor source.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasklib.data import conversion, dataset
from tasklib.exit_codes import ExitCode
from tasklib.files import read_json, sha256_of
from tasklib.paths import TaskPaths
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.summary import Problem, TaskError

KEYS = ("prompt", "chosen", "rejected")
_HINT = 'write {"prompt": [{"role": "user", "content": "…"}], "chosen": "…", "rejected": "…"}'

Key = tuple[str, ...]  # `duplicate_key` of each turn of a conversation up to its answer, the system message left out


def of_rows(definition: TaskDefinition, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`{id, source, prompt, chosen, rejected}` of processed rows that are pairs themselves."""
    module = definition.task_type
    found = []
    for row in rows:
        chosen, rejected = module.candidates(module.Record(**row["record"]))
        found.append({**row, "chosen": chosen, "rejected": rejected})
    return found


def load(paths: TaskPaths, definition: TaskDefinition, config: RunConfig) -> list[dict[str, Any]]:
    """`{id, source, prompt, chosen, rejected}` of each pair: of the training rows where they are pairs themselves
    (`preference_data` is null), otherwise of the file `preference_data`.

    Raises TaskError (exit 4) without the file, or where it is not what its manifest says; (exit 3) naming every row
    that is no pair, and every row whose question is one of validation or test.
    """
    if config.preference_data is None:
        return of_rows(definition, conversion.load_split(paths, "train"))
    path = paths.root / config.preference_data
    _require_file(paths, path)
    shown, rows, problems = paths.shown(path), [], []
    evaluated = evaluated_keys(paths, definition)
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if line.strip():
            row, found = _read(line, shown, number)
            problems += found or _leaks(row, evaluated, shown, number)
            rows.append(row)
    if not rows:
        problems.append(Problem(code="no_pairs", message="the file holds no pair", file=shown, hint=_HINT))
    if problems:
        raise TaskError(ExitCode.DATA, problems)
    return rows


def evaluated_keys(paths: TaskPaths, definition: TaskDefinition) -> dict[Key, str]:
    """The questions of validation and test -> the split that has them."""
    module, found = definition.task_type, {}
    for split in ("test", "validation"):
        if paths.split(split).is_file():
            for row in conversion.load_split(paths, split):
                n_turns = 1 + len(_said(module.history(module.Record(**row["record"]))))
                found[key_of(row["prompt"][-n_turns:])] = split
    return found


def key_of(messages: Sequence[dict[str, str]]) -> Key:
    """What two conversations share that ask the same, whatever their system message says."""
    return tuple(dataset.duplicate_key(message["content"]) for message in _said(messages))


def leaked_into(prompt: Sequence[dict[str, str]], evaluated: dict[Key, str]) -> str | None:
    """The split that asks the same as `prompt`, worked examples before the question left out; None where none does."""
    whole = key_of(prompt)
    ends = (whole[start:] for start in range(len(whole)))
    return next((evaluated[end] for end in ends if end in evaluated), None)


def _said(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    return [message for message in messages if message["role"] != "system"]


def _require_file(paths: TaskPaths, path: Path) -> None:
    shown, command = paths.shown(path), "uv run python scripts/make_preferences.py"
    if not path.is_file():
        problem = Problem(
            code="no_preference_data",
            message=f"there is no {shown}",
            file=shown,
            field="preference_data",
            hint="make it out of a finished run's answers, or name a file of your own",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem], next=command)
    manifest = path.with_suffix(".json")
    if manifest.is_file() and read_json(manifest).get("sha256") != sha256_of(path):
        problem = Problem(
            code="preferences_changed",
            message=f"{path.name} is not what make_preferences.py wrote",
            file=shown,
            hint=f"make it again with --force; or, if a person changed it, remove {manifest.name}",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem], next=f"{command} --force")


def _read(line: str, file: str, number: int) -> tuple[dict[str, Any], list[Problem]]:
    """One line as a row, and everything that is wrong with it."""

    def problem(code: str, message: str, field: str | None = None, hint: str = _HINT) -> Problem:
        return Problem(code=code, message=message, file=file, line=number, field=field, hint=hint)

    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {}, [problem("broken_json", f"no JSON: {error}")]
    if not isinstance(row, dict):
        return {}, [problem("wrong_type", f"the line is {type(row).__name__}, not an object")]
    problems = [problem("missing_field", f"{key} is missing", key) for key in KEYS if key not in row]
    if "prompt" in row:
        problems += [problem("wrong_prompt", message, "prompt") for message in _prompt_faults(row["prompt"])]
    sides = {key: row[key] for key in KEYS[1:] if key in row}
    for key, text in sides.items():
        if not isinstance(text, str):
            problems.append(problem("wrong_type", f"{key} is {type(text).__name__}, not text", key))
        elif not text.strip():
            problems.append(problem("empty_field", f"{key} is empty", key, "fill it or remove the line"))
    texts = [" ".join(text.split()) for text in sides.values() if isinstance(text, str)]
    if len(texts) == 2 and texts[0] and texts[0] == texts[1]:
        hint = "remove the line: there is nothing to prefer"
        problems.append(problem("same_answers", "chosen and rejected are the same text", "chosen", hint))
    about = {"id": str(row.get("id", f"{Path(file).name}:{number}")), "source": {"file": file, "line": number}}
    return about | {key: row.get(key) for key in KEYS}, problems


def _prompt_faults(prompt: Any) -> Iterator[str]:
    """Why a value is no conversation that ends with a question."""
    if not isinstance(prompt, list) or not prompt:
        yield f"the prompt is {type(prompt).__name__ if prompt else 'empty'}, not a list of messages"
        return
    broken = [n for n, message in enumerate(prompt, start=1) if not _is_message(message)]
    if broken:
        yield f"message {broken[0]} of the prompt is no {{role, content}} with a text"
        return
    roles = [message["role"] for message in prompt]
    said = roles[1:] if roles[0] == "system" else roles
    if said != [("user", "assistant")[n % 2] for n in range(len(said))] or not len(said) % 2:
        yield f"the prompt's roles are {', '.join(roles)}: user and assistant take turns, and the last is the user's"


def _is_message(message: Any) -> bool:
    if not (isinstance(message, dict) and set(message) == {"role", "content"}):
        return False
    return isinstance(message["role"], str) and isinstance(message["content"], str) and bool(message["content"].strip())


def _leaks(row: dict[str, Any], evaluated: dict[Key, str], file: str, number: int) -> list[Problem]:
    split = leaked_into(row["prompt"], evaluated)
    if split is None:
        return []
    message = f"the same question is in {split}: a score on trained rows means nothing"
    hint = "remove the line: pairs are made of training rows"
    return [Problem(code="leakage", message=message, file=file, line=number, field="prompt", hint=hint)]
