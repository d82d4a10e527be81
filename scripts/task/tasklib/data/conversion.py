"""Checked examples -> data/processed/: one conversation a row, the same bytes for the same input, and a manifest."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasklib.data import dataset, splits
from tasklib.data.dataset import Dataset, Example
from tasklib.exit_codes import ExitCode
from tasklib.files import new_folder, read_json, read_jsonl, sha256_of, sha256_of_json, to_json, write_json
from tasklib.model import prompts
from tasklib.paths import TaskPaths
from tasklib.schema import TaskDefinition
from tasklib.summary import Problem, TaskError

FILE_STEPS = ("explode", "melt", "collect")
MANIFEST_VERSION = 2  # 2: no rows_sha256, `files` says the same


@dataclass(frozen=True)
class Plan:
    """Which split each row of the index goes to (`splits`: one name a row), and what every prompt begins with."""

    splits: list[str]
    shots: list[tuple[str, Any]]
    warnings: list[Problem]


def plan(paths: TaskPaths, definition: TaskDefinition, data: Dataset) -> Plan:
    """Draws the splits that have no files of their own. Raises TaskError (exit 3) for an empty split. `data` must be
    without errors."""
    index, shares = data.index, dataset.drawn_shares(definition)
    place_of = np.array(dataset.PLACES, dtype=object)[index.split]
    pool = np.flatnonzero((place_of == "all") | (place_of == "train"))
    spec = definition.data.split
    pairs = _near_pairs(paths, definition, pool) if shares else None
    drawn = splits.assign(
        dataset.rows_of(index, pool),
        index.strata,
        shares,
        seed=spec.seed,
        near_pairs=pairs,
        by_time=spec.time_field is not None,
    )
    place_of[pool] = drawn.split
    _require_rows(place_of, dataset.split_names(definition))
    shots: list[Any] = []
    if definition.prompt.n_few_shot:
        rows = zip(dataset.examples(paths, definition), place_of, strict=True)
        shots = prompts.choose_shots(definition, [example.record for example, name in rows if name == "train"])
    module = definition.task_type
    keyed = [(dataset.duplicate_key(module.text_of(record)), record) for record in shots]
    return Plan(place_of.tolist(), keyed, drawn.warnings)


def _near_pairs(paths: TaskPaths, definition: TaskDefinition, pool: np.ndarray) -> np.ndarray | None:
    """Pairs of nearly equal texts, as positions in `pool`."""
    threshold = definition.data.split.near_duplicates
    if threshold is None or not len(pool):
        return None
    from tasklib.data import near_duplicates

    wanted = set(pool.tolist())
    rows = enumerate(dataset.examples(paths, definition))
    texts = (definition.task_type.passage_of(example.record) for position, example in rows if position in wanted)
    return near_duplicates.pairs(texts, threshold)


def conversations(
    paths: TaskPaths, definition: TaskDefinition, chosen: Plan
) -> Iterator[tuple[str, Example, dict[str, Any]]]:
    """(split, example, its conversation `{id, source, record, prompt, completion}`) in the order of the raw files."""
    for name, example in zip(chosen.splits, dataset.examples(paths, definition), strict=True):
        yield name, example, _row(definition, chosen.shots, example)


def _row(definition: TaskDefinition, shots: Sequence[tuple[str, Any]], example: Example) -> dict[str, Any]:
    """One conversation. A training row that serves as an example is left out before its own question: its answer would
    stand in its prompt."""
    chosen = [shot for key, shot in shots if key != example.duplicate_key]
    return {
        "id": example.id,
        "source": {"file": example.file, "line": example.line},
        "record": example.record.model_dump(),
        "prompt": prompts.asked(definition, chosen, example.record),
        "completion": [prompts.assistant_message(definition, example.record)],
    }


def _require_rows(place_of: np.ndarray, names: Sequence[str]) -> None:
    empty = [name for name in names if not (place_of == name).any()]
    if empty:
        problem = Problem(
            code="empty_split",
            message=f"no row falls into {', '.join(empty)}",
            hint="add rows, or change data.split so that every split gets some",
        )
        raise TaskError(ExitCode.DATA, [problem])


def convert(
    paths: TaskPaths, definition: TaskDefinition, chosen: Plan, *, force: bool = False, dry_run: bool = False
) -> tuple[dict[str, Any], bool]:
    """Writes data/processed/ as a whole, so that no split of an older run stays behind, unless it holds exactly these
    rows already. Returns the manifest and whether nothing had to be done. Rows are streamed."""
    names = dataset.split_names(definition)
    with tempfile.TemporaryDirectory(dir=paths.root, prefix=".processed.") if not dry_run else nullcontext() as made:
        folder = Path(made) if made else None
        streams = {name: (folder / f"{name}.jsonl").open("wb") for name in names} if folder else {}
        digests = {name: hashlib.sha256() for name in names}
        labels: dict[str, Counter[str]] = {name: Counter() for name in names}
        for name, example, row in conversations(paths, definition, chosen):
            line = (to_json(row) + "\n").encode()
            digests[name].update(line)
            labels[name].update(definition.task_type.strata(example.record))
            if folder:
                streams[name].write(line)
        for stream in streams.values():
            stream.close()
        files = {name: digest.hexdigest() for name, digest in digests.items()}
        made_of = _manifest(paths, definition, Counter(chosen.splits), labels, files)
        done = not force and _is_current(paths, made_of)
        if folder and not done:
            with new_folder(paths.processed) as target:
                for name in names:
                    (folder / f"{name}.jsonl").replace(target / f"{name}.jsonl")
                write_json(target / "manifest.json", made_of)
    return made_of, done


def _manifest(
    paths: TaskPaths,
    definition: TaskDefinition,
    n_rows: Counter[str],
    labels: dict[str, Counter[str]],
    files: dict[str, str],
) -> dict[str, Any]:
    """What the processed files are made from and hold; equal manifests mean equal bytes."""
    return {
        "schema_version": MANIFEST_VERSION,
        "inputs": raw_sha256(paths, definition),
        "definition_sha256": definition_sha256(definition),
        "splits": {name: {"n_rows": n_rows[name], "labels": dict(sorted(labels[name].items()))} for name in files},
        "files": files,
    }


def definition_sha256(definition: TaskDefinition) -> str:
    """Hash of the part of the definition that the processed rows are made from."""
    return sha256_of_json(definition_parts(definition))


def definition_parts(definition: TaskDefinition) -> dict[str, Any]:
    """The part of the definition that processed rows and runs are made from. Steps of files that are not declared are
    left out, so that definitions written before there were such steps keep their hash."""
    found = definition.model_dump(mode="json", include={"task", "prompt", "data", "language"})
    for spec in (spec for specs in found["data"]["files"].values() for spec in specs):
        for step in FILE_STEPS:
            if spec[step] is None:
                del spec[step]
    return found


def raw_sha256(paths: TaskPaths, definition: TaskDefinition) -> dict[str, str]:
    """Path -> sha256 of every raw file that the rows come from."""
    return {name: sha256_of(paths.root / name) for name in definition.data.raw_paths}


def _is_current(paths: TaskPaths, wanted: dict[str, Any]) -> bool:
    """Whether data/processed/ already holds exactly these rows, untouched."""
    return _read_manifest(paths) == wanted and all(
        paths.split(name).is_file() and sha256_of(paths.split(name)) == digest
        for name, digest in wanted["files"].items()
    )


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


def require_current(paths: TaskPaths, definition: TaskDefinition) -> None:
    """Raises TaskError (exit 4) where data/processed/ is not there, or was made from other raw files or another
    definition."""
    found = _read_manifest(paths)
    made_of = {"inputs": raw_sha256(paths, definition), "definition_sha256": definition_sha256(definition)}
    if any(found.get(key) != value for key, value in made_of.items()):
        code, message = "processed_old", "the raw data or the definition changed since data/processed/ was written"
        if not paths.manifest.is_file():
            code, message = "not_converted", "the data have not been converted yet"
        problem = Problem(code=code, message=message, file=paths.shown(paths.manifest), hint="convert them first")
        raise TaskError(ExitCode.PREREQUISITE, [problem], next="uv run python scripts/02_convert_format.py")


def rows_sha256(rows: Sequence[dict[str, Any]]) -> str:
    """Identity of the rows that a metric was computed on."""
    return sha256_of_json([to_json(row) for row in rows])
