#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["jsonschema==4.26.0", "numpy==2.4.6", "pydantic==2.14.3", "PyYAML==6.0.3"]
# ///
"""Lists the tasks of a folder: type, data, runs, best score, next step."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "task"))

from tasklib import cli
from tasklib.summary import Problem, Summary, TaskError


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "list_tasks",
        "List the tasks below ./tasks with their runs, best validation score and next step.",
        ["uv run scripts/list_tasks.py", "uv run scripts/list_tasks.py --tasks-dir work/tasks --json"],
    )
    parser.add_argument("--tasks-dir", type=Path, default=Path("tasks"), help="where tasks lie (default: ./tasks)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return parser


def list_tasks(args: argparse.Namespace) -> Any:
    tasks, warnings = {}, []
    for folder in sorted(p.parent for p in args.tasks_dir.glob("[!.]*/task_definition.yaml")):
        try:
            tasks[folder.name] = describe(folder)
        except TaskError as error:
            first = error.problems[0]
            message = f"{folder.name}: {first.message}"
            warnings.append(dataclasses.replace(first, code="task_unreadable", message=message))
        except ValueError as error:
            warnings.append(
                Problem(
                    code="task_unreadable",
                    message=f"{folder.name}: {str(error).splitlines()[0]}",
                    file=str(folder),
                    hint="a run.json or metrics.json is damaged: train or evaluate that run again",
                )
            )
    if not tasks and not warnings:
        warnings.append(
            Problem(
                code="no_tasks",
                message=f"no task below {args.tasks_dir}",
                hint="create one with create_task.py, or give --tasks-dir",
            )
        )
    table = {
        name: {"type": task["type"], "runs": len(task["runs"]), **(task["best"] or {}), "next": task["next"]}
        for name, task in tasks.items()
    }
    return Summary.of("list_tasks", counts={"tasks": len(tasks)}, outputs=tasks, metrics=table, warnings=warnings)


def describe(folder: Path) -> dict[str, Any]:
    """One task: type, data files, runs with their status and validation score, the best of them, the next step."""
    from tasklib import schema
    from tasklib.paths import TaskPaths
    from tasklib.scoring import evaluation, metrics
    from tasklib.training import runs

    paths = TaskPaths(folder)
    definition = schema.load_definition(paths.definition, str(paths.definition))
    found: dict[str, Any] = {}
    for record_file in sorted((folder / "models").glob("*/run.json")):
        name = record_file.parent.name
        record, score = runs.read_record(record_file.parent), metrics.read(paths.benchmark(name, "validation"))
        found[name] = {
            "status": record.status,
            "validation": score.primary.value if score else None,
            "gate_passed": score.gate.passed if score and score.gate else None,
        }
    own = {name: run for name, run in found.items() if not evaluation.NO_RUN_OF_ITS_OWN.search(name)}
    scored = {name: run["validation"] for name, run in own.items() if run["validation"] is not None}
    best = max(scored, key=scored.__getitem__, default=None)
    return {
        "type": definition.task.type,
        "data": definition.data.raw_paths,
        "primary_metric": definition.primary_metric,
        "runs": found,
        "best": {"run": best, "validation": scored[best]} if best else None,
        "next": _next_step(paths, own, best),
    }


def _next_step(paths: Any, found: dict[str, Any], best: str | None) -> str:
    """The first stage that has not been done; of the best run where all were, which goes back where it failed its
    gate."""

    def command(words: str) -> str:
        return f"cd {shlex.quote(str(paths.root))} && {words}"

    unfinished = [name for name, run in found.items() if run["status"] != "finished"]
    unscored = [name for name, run in found.items() if run["status"] == "finished" and run["validation"] is None]
    if not paths.manifest.is_file() or not found:
        return command("bash scripts/run_pipeline.sh")
    if unfinished:
        return command(f"uv run python scripts/03_train.py --config configs/{unfinished[0]}.yaml --resume")
    if unscored:
        return command(f"uv run python scripts/04_evaluate.py --config configs/{unscored[0]}.yaml")
    if found[best]["gate_passed"] is False:
        return command(f"uv run python scripts/diagnose.py --config configs/{best}.yaml")
    return command(f"uv run python scripts/05_upload_hf.py --config configs/{best}.yaml --dry-run")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), list_tasks, argv)


if __name__ == "__main__":
    raise SystemExit(main())
