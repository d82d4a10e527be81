"""What travels: the files that a run needs on the server, and those that it leaves there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tasklib.data import conversion
from tasklib.exit_codes import ExitCode
from tasklib.paths import TaskPaths
from tasklib.remote.transfer import Files, described
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.summary import Problem, TaskError
from tasklib.training import runs

SPLITS_SHOWN = ("validation", "test")
RESULT_FILES = ("metrics.json", "predictions.jsonl")
CHECKPOINTS = "checkpoints"


def needed_by(paths: TaskPaths, definition: TaskDefinition, config: RunConfig, config_file: Path) -> Files:
    """Every file that training and evaluating one run reads: the scripts, the two documents, the processed rows, what
    it goes on from, and the small result files that it is compared with. Raw data, checkpoints and other models stay.

    Raises TaskError (exit 4) where the data are not converted, (exit 2) where the config lies outside the task.
    """
    conversion.require_current(paths, definition)
    _require_inside(paths, config_file)
    found = [paths.definition, paths.root / "pyproject.toml", config_file, paths.manifest]
    found += [path for path in (paths.root / "uv.lock", paths.root / ".finetune-llm.json") if path.is_file()]
    found += [path for path in (paths.root / "scripts").rglob("*") if path.is_file() and not _is_cache(path)]
    found += paths.processed.glob("*.jsonl")
    found += [path for path in [launch_file(paths, config_file.stem)] if path.is_file()]
    found += [paths.root / config.preference_data] if config.preference_data else []
    if config.start_from:
        found += [path for path in paths.run(config.start_from).rglob("*") if path.is_file() and not _is_bulk(path)]
    found += _compared(paths, config_file.stem)
    return {path.relative_to(paths.root).as_posix(): described(path) for path in sorted(set(found))}


def launch_file(paths: TaskPaths, run: str) -> Path:
    """Where launch.py says how a run is shared out among GPUs; absent where one trains it."""
    return paths.root / "launch" / run / "accelerate.yaml"


def identity_files(files: Files) -> Files:
    """Those that decide what a job gives; results of other runs are only compared with."""
    return {name: file for name, file in files.items() if not name.startswith("benchmarks/")}


def results_of(run: str, *, checkpoints: bool) -> dict[str, list[str]]:
    """What to ask an inventory for: the run, its seeds' folders apart, its results and the baselines."""
    paths = [f"models/{run}", f"benchmarks/{run}", "benchmarks/baselines", "benchmarks/test_looks.jsonl"]
    return {"paths": paths, "without": [".lock", *([] if checkpoints else [CHECKPOINTS])]}


def _compared(paths: TaskPaths, run: str) -> Iterator[Path]:
    """Baselines that are computed already, and the results of other finished runs (`previous_best`)."""
    for folder in sorted(paths.benchmarks.glob("*")) if paths.benchmarks.is_dir() else ():
        if folder.name == "baselines":
            yield from (path for path in folder.rglob("*") if path.is_file())
        elif folder.name != run and _is_finished(paths.run(folder.name)):
            yield paths.run(folder.name) / "run.json"
            named = (folder / split / name for split in SPLITS_SHOWN for name in RESULT_FILES)
            yield from (path for path in named if path.is_file())


def _is_finished(folder: Path) -> bool:
    record = runs.read_record(folder)
    return record is not None and record.status == "finished"


def _is_cache(path: Path) -> bool:
    return "__pycache__" in path.parts


def _is_bulk(path: Path) -> bool:
    return bool({CHECKPOINTS, "exports"} & set(path.parts)) or path.name == ".lock"


def _require_inside(paths: TaskPaths, config_file: Path) -> None:
    if not config_file.resolve().is_relative_to(paths.root):
        hint = "copy the config into configs/: the server gets the task's folder alone"
        message = f"{config_file} lies outside the task"
        raise TaskError(ExitCode.USAGE, [Problem(code="outside_task", message=message, field="--config", hint=hint)])
