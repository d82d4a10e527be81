#!/usr/bin/env python3
"""Trains every task type by every method with every adapter at small scale, evaluates it, and keeps time and score.

    uv run python tests/bench/types_methods_adapters.py FOLDER [--types ner,stance] [--base-model builtin:smollm2-135m]
    uv run python tests/bench/types_methods_adapters.py FOLDER --table

The rows are those of templates/examples/ (one example for each type), `--rows` of them. DPO goes on from the SFT run of
the same adapter; pairs are those that make_preferences.py makes of that run's answers to its training rows, and ORPO
learns the same pairs from the base model. A score of so few rows and steps says that the way goes through to its end,
not how good a method is. Cells that are done are kept: the same command goes on where it stopped, and
tries again what failed. `--worker 0/2` and
`--worker 1/2` share the types between two processes; `--table` collects results/types_methods_adapters.json.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import readme
import yaml

BUNDLE = Path(__file__).resolve().parent.parent.parent
for part in (BUNDLE / "scripts" / "task", BUNDLE / "tests"):
    sys.path.insert(0, str(part))

from tasklib import schema, task_types  # noqa: E402
from tasklib.files import read_json, write_json  # noqa: E402
from trainable_task import Task  # noqa: E402 - the test's helper calls scripts in this process

RESULT = Path(__file__).parent / "results" / "types_methods_adapters.json"
EXAMPLES = BUNDLE / "templates" / "examples"
ADAPTERS = ("lora", "qlora", "dora", "qdora", "full")
RATES = {"sft": 1e-3, "dpo": 5e-5, "orpo": 5e-4}  # of adapters; full training takes a tenth
SPLIT = {"validation": 0.15, "test": 0.15}


def example_of(task_type: str) -> Path:
    """The example folder whose answers name the type."""
    for file in sorted(EXAMPLES.glob("*/answers.yaml")):
        if yaml.safe_load(file.read_text(encoding="utf-8"))["task"]["type"] == task_type:
            return file.parent
    raise SystemExit(f"no example for task type {task_type}")


def make_task(folder: Path, task_type: str, base_model: str, n_rows: int) -> Task:
    """The example as a task with few rows, converted."""
    task = Task(folder / task_type)
    if not (task.folder / "data" / "processed" / "manifest.json").is_file():
        answers = example_of(task_type) / "answers.yaml"
        name = task_type.replace("_", "-")  # of its own: another worker creates tasks at the same time
        command = [sys.executable, str(BUNDLE / "scripts/create_task.py"), "--answers", str(answers), "--name", name]
        command += ["--tasks-dir", str(folder), "--base-model", base_model, "--json"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (folder / name).rename(task.folder)
        definition = yaml.safe_load((task.folder / "task_definition.yaml").read_text(encoding="utf-8"))
        definition["data"]["split"] = {**(definition["data"].get("split") or {}), **SPLIT}
        definition["evaluation"] |= {"must_beat": [], "n_few_shot": 0, "target": None}
        shorten(task, definition, n_rows)
        text = yaml.safe_dump(definition, allow_unicode=True, sort_keys=False)
        (task.folder / "task_definition.yaml").write_text(text, encoding="utf-8")
        task.ok("02_convert_format.py")
    return task


def shorten(task: Task, definition: dict[str, Any], n_rows: int) -> None:
    """Leaves `n_rows` random lines in the one raw file of the example, and the header of a table."""
    (entry,) = definition["data"]["files"]["all"]
    path = task.folder / (entry if isinstance(entry, str) else entry["path"])
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    head = [] if path.suffix == ".jsonl" else lines[:1]
    chosen = random.Random(0).sample(range(len(head), len(lines)), min(n_rows, len(lines) - len(head)))
    path.write_text("".join(head + [lines[number] for number in sorted(chosen)]), encoding="utf-8")


def run_cell(task: Task, module: Any, method: str, adapter: str) -> dict[str, Any]:
    """Trains and evaluates one cell; what is refused or fails is told with its code."""
    name = f"{method}-{adapter}"
    baseline = yaml.safe_load((task.folder / "configs/baseline.yaml").read_text(encoding="utf-8"))
    spec = {"type": adapter} if adapter == "full" else {"type": adapter, "r": 8, "autocast_adapter_dtype": False}
    rate = RATES[method] / (10 if adapter == "full" else 1)
    training = {"num_train_epochs": 1, "learning_rate": rate, "logging_steps": 1}
    training |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}  # pairs are two texts a row
    training |= {"max_length": baseline["training"]["max_length"], "seed": 42, "save_strategy": "no"}
    sections: dict[str, Any] = {"method": method, "adapter": spec, "training": training}
    if method != "sft" and "chosen" not in module.FIELDS:
        sections["preference_data"] = f"data/preferences/sft-{adapter}.jsonl"
        if not (task.folder / sections["preference_data"]).is_file():
            made = task.run("make_preferences.py", "--config", f"configs/sft-{adapter}.yaml")
            if made.code:
                return {"failed": [error["code"] for error in made.summary["errors"]], "stage": "make_preferences"}
    if method == "dpo":
        sections["start_from"] = f"sft-{adapter}"
    config = task.write_config(name, **sections)
    started = time.monotonic()
    trained = task.run("03_train.py", "--config", config)
    if trained.code:
        return {"failed": [error["code"] for error in trained.summary["errors"]], "stage": "train"}
    train_s = round(time.monotonic() - started, 1)
    started = time.monotonic()
    scored = task.run("04_evaluate.py", "--config", config)
    if scored.code not in (0, 5):
        return {"failed": [error["code"] for error in scored.summary["errors"]], "stage": "evaluate"}
    metric = next(iter(scored.summary["metrics"][name]))
    counts = trained.summary["counts"]
    return {
        "train_s": train_s,
        "evaluate_s": round(time.monotonic() - started, 1),
        "steps": counts["steps"],
        "rows": counts["rows"],
        "train_loss": round(trained.summary["metrics"]["train_loss"], 3),
        "metric": metric,
        "score": scored.summary["metrics"][name][metric],
        "n_scored": scored.summary["counts"]["rows"],
    }


def bench(folder: Path, types: list[str], base_model: str, n_rows: int) -> None:
    for task_type in types:
        module = task_types.load(task_type)
        task = make_task(folder, task_type, base_model, n_rows)
        done = task.folder / "cells.json"
        cells = read_json(done) if done.is_file() else {}
        for adapter in ADAPTERS:
            for method in schema.METHODS:
                if method not in module.METHODS or "score" in cells.get(f"{method}-{adapter}", {}):
                    continue
                cells[f"{method}-{adapter}"] = run_cell(task, module, method, adapter)
                write_json(done, cells)
                if sys.platform == "linux":  # glibc keeps what a cell freed, and the memory check counts it
                    ctypes.CDLL("libc.so.6").malloc_trim(0)
                print(task_type, method, adapter, cells[f"{method}-{adapter}"], file=sys.stderr, flush=True)


def collect(folder: Path, base_model: str, n_rows: int) -> None:
    """Writes the result file and prints the table as Markdown."""
    found = {name: read_json(folder / name / "cells.json") for name in task_types.names()}
    about = {
        "date": datetime.date.today().isoformat(),
        "machine": readme.machine(),
        "command": f"types_methods_adapters.py FOLDER --base-model {base_model} --rows {n_rows}",
    }
    write_json(RESULT, about | {"cells": found})
    print("| type | method | " + " | ".join(ADAPTERS) + " |\n|---|---|" + "---|" * len(ADAPTERS))
    for task_type, cells in found.items():
        for method in schema.METHODS:
            line = [shown(cells[f"{method}-{adapter}"]) for adapter in ADAPTERS if f"{method}-{adapter}" in cells]
            if line:
                print(f"| {task_type} | {method} | " + " | ".join(line) + " |")


def shown(cell: dict[str, Any]) -> str:
    if "failed" in cell:
        return f"{cell['stage']}: {', '.join(cell['failed'])}"
    score = "–" if cell["score"] is None else f"{cell['score']:.2f}"
    return f"{cell['train_s']:.0f} s, {score}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--types", default=",".join(task_types.names()))
    parser.add_argument("--base-model", default="builtin:smollm2-135m")
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--worker", default="0/1", help="N/M: every M-th type from the N-th on")
    parser.add_argument("--table", action="store_true", help="collect what is done")
    args = parser.parse_args()
    if args.table:
        collect(args.folder, args.base_model, args.rows)
        return 0
    worker, n_workers = map(int, args.worker.split("/"))
    args.folder.mkdir(parents=True, exist_ok=True)
    bench(args.folder, args.types.split(",")[worker::n_workers], args.base_model, args.rows)
    print(json.dumps({"folder": str(args.folder)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
