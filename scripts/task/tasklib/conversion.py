"""Checked examples -> data/processed/: one conversation a row, the same bytes for the same input, and a manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tasklib import dataset, prompts, splits
from tasklib.dataset import Example
from tasklib.exit_codes import ExitCode
from tasklib.files import new_folder, read_json, read_jsonl, sha256_of, sha256_of_json, to_json, write_json, write_jsonl
from tasklib.paths import TaskPaths
from tasklib.schema import TaskDefinition
from tasklib.summary import Problem, TaskError

MANIFEST_VERSION = 1


def to_conversations(definition: TaskDefinition, examples: Sequence[Example]) -> dict[str, list[dict]]:
    """Split name -> rows `{id, source, record, prompt, completion}`. Raises TaskError (exit 3) for an empty split."""
    module = definition.task_type
    names = dataset.split_names(definition)
    pool = [example for example in examples if example.split in ("all", "train")]
    golds = [str(module.gold(example.record)) for example in pool]
    drawn = iter(splits.assign(pool, golds, dataset.drawn_shares(definition), definition.data.split.seed))
    assigned = [next(drawn) if example.split in ("all", "train") else example.split for example in examples]
    by_split = {name: [e for e, split in zip(examples, assigned, strict=True) if split == name] for name in names}
    _require_rows(by_split)
    chosen = prompts.choose_shots(definition, [e.record for e in by_split["train"]])
    shots = [(dataset.duplicate_key(module.text_of(record)), record) for record in chosen]
    return {name: [_row(definition, shots, example) for example in rows] for name, rows in by_split.items()}


def _row(definition: TaskDefinition, shots: Sequence[tuple[str, Any]], example: Example) -> dict[str, Any]:
    """One conversation. A training row that serves as an example is left out before its own question: its answer would
    stand in its prompt."""
    prefix = prompts.prefix_messages(definition, [shot for key, shot in shots if key != example.duplicate_key])
    return {
        "id": example.id,
        "source": {"file": example.file, "line": example.line},
        "record": example.record.model_dump(),
        "prompt": [*prefix, prompts.user_message(definition, example.record)],
        "completion": [prompts.assistant_message(definition, example.record)],
    }


def _require_rows(by_split: dict[str, list[Example]]) -> None:
    empty = [name for name, rows in by_split.items() if not rows]
    if empty:
        problem = Problem(
            code="empty_split",
            message=f"no row falls into {', '.join(empty)}",
            hint="add rows, or change data.split so that every split gets some",
        )
        raise TaskError(ExitCode.DATA, [problem])


def manifest(paths: TaskPaths, definition: TaskDefinition, rows: dict[str, list[dict]]) -> dict[str, Any]:
    """What the processed files are made from and hold; equal manifests mean equal bytes."""
    raw = {name: sha256_of(paths.root / name) for files in definition.data.files.values() for name in files}
    module = definition.task_type
    return {
        "schema_version": MANIFEST_VERSION,
        "inputs": raw,
        "definition_sha256": sha256_of_json(
            definition.model_dump(mode="json", include={"task", "prompt", "data", "language"})
        ),
        "splits": {
            name: {
                "n_rows": len(split),
                "rows_sha256": sha256_of_json(split),
                "labels": dict(sorted(Counter(module.gold(module.Record(**row["record"])) for row in split).items())),
            }
            for name, split in rows.items()
        },
    }


def is_current(paths: TaskPaths, wanted: dict[str, Any]) -> bool:
    """Whether data/processed/ already holds exactly these rows, untouched."""
    found = _read_manifest(paths)
    files = found.pop("files", {})
    return found == wanted and all(
        paths.split(name).is_file() and sha256_of(paths.split(name)) == files.get(name) for name in wanted["splits"]
    )


def write(paths: TaskPaths, rows: dict[str, list[dict]], wanted: dict[str, Any]) -> None:
    """Replaces data/processed/ as a whole, so that no split of an older run stays behind."""
    with new_folder(paths.processed) as folder:
        for name, split in rows.items():
            write_jsonl(folder / f"{name}.jsonl", split)
        files = {name: sha256_of(folder / f"{name}.jsonl") for name in rows}
        write_json(folder / "manifest.json", {**wanted, "files": files})


def _read_manifest(paths: TaskPaths) -> dict[str, Any]:
    """manifest.json, or nothing where it is missing or was damaged."""
    try:
        found = read_json(paths.manifest)
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def load_split(paths: TaskPaths, name: str) -> list[dict[str, Any]]:
    """Rows of one processed split. Raises TaskError (exit 4) when it is missing or was changed by hand."""
    known = _read_manifest(paths).get("files", {})
    if name not in known or not paths.split(name).is_file():
        problem = Problem(
            code="no_split",
            message=f"there is no processed split {name!r}",
            file=paths.shown(paths.split(name)),
            hint=f"run scripts/02_convert_format.py; splits: {', '.join(known) or 'none yet'}",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem], next="uv run python scripts/02_convert_format.py")
    if sha256_of(paths.split(name)) != known[name]:
        problem = Problem(
            code="processed_changed",
            message=f"{name}.jsonl is not what 02_convert_format.py wrote",
            file=paths.shown(paths.split(name)),
            hint="correct the raw data instead, then convert again with --force",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem], next="uv run python scripts/02_convert_format.py --force")
    return read_jsonl(paths.split(name))


def rows_sha256(rows: Sequence[dict[str, Any]]) -> str:
    """Identity of the rows that a metric was computed on."""
    return sha256_of_json([to_json(row) for row in rows])
