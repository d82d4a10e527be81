"""Files that came back, put to their places: nothing of this machine is lost, and a cut leaves the old or the new."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tasklib.files import read_json, read_jsonl, write_jsonl
from tasklib.paths import TaskPaths
from tasklib.remote.transfer import Files, is_there
from tasklib.training import runs

LEDGER = "benchmarks/test_looks.jsonl"  # both sides append to it


def wanted(paths: TaskPaths, run: str, files: Files) -> list[str]:
    """Names of the files that are not here yet, or others; all of the run's where its run.json is another one, because
    what is here may be another run and be moved aside."""
    record, of_run = f"models/{run}/run.json", f"models/{run}/"
    all_of_run = not is_there(paths.root / record, files[record])
    return [
        name
        for name, file in files.items()
        if (all_of_run and name.startswith(of_run)) or not is_there(paths.root / name, file)
    ]


def place(paths: TaskPaths, run: str, incoming: Path, names: Sequence[str]) -> Path | None:
    """Moves fetched files to their places; run.json comes last, because it says that the run is whole. A run of this
    machine that is another one is moved aside first; its new place is returned."""
    aside = None
    with runs.lock(paths.run(run)):
        if _is_another(paths.run(run), incoming / "models" / run / "run.json"):
            aside = runs.move_aside(paths.run(run))
    for name in sorted(names, key=lambda name: (name.endswith("/run.json"), name)):
        target = paths.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == LEDGER:
            merge_ledger(target, incoming / name)
        else:
            (incoming / name).replace(target)
    return aside


def merge_ledger(mine: Path, theirs: Path) -> None:
    """Adds the lines of the other side that are not here yet; lines are kept in the order of their time."""
    rows = read_jsonl(mine) if mine.is_file() else []
    known = {json.dumps(row, sort_keys=True) for row in rows}
    rows += [row for row in read_jsonl(theirs) if json.dumps(row, sort_keys=True) not in known]
    write_jsonl(mine, sorted(rows, key=lambda row: str(row.get("at", ""))))


def _is_another(folder: Path, record: Path) -> bool:
    """Whether the run here is no earlier state of the one that came: finished by itself, or made of other things."""
    here = runs.read_record(folder)
    if here is None or not record.is_file():
        return False
    there = read_json(record)
    if here.identity["sha256"] != there["identity"]["sha256"]:
        return True
    return here.status == "finished" and (here.started_at, here.finished_at) != (
        there["started_at"],
        there["finished_at"],
    )
