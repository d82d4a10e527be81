"""Helper: a task folder around the tiny model, and its scripts as subprocesses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

import in_process

BUNDLE = Path(__file__).resolve().parent.parent
TOPICS = {"good": ("獲利成長", "訂單滿載", "上調財測"), "bad": ("虧損擴大", "客戶砍單", "下修財測")}


IN_PROCESS = {
    "02_convert_format.py", "03_train.py", "04_evaluate.py", "predict.py", "export_model.py", "diagnose.py",
    "make_preferences.py", "suggest_labels.py", "new_experiment.py", "compare_runs.py", "sweep.py", "remote.py",
    "launch.py",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    code: int
    summary: dict[str, Any]
    stderr: str


@dataclass(frozen=True)
class Task:
    """A task folder; `run` calls one of its scripts with --json."""

    folder: Path

    def run(self, script: str, *flags: str, **env: str) -> Outcome:
        """One of the scripts in this process, so that its imports are paid once; in one of its own where it wants
        another environment."""
        if env or script not in IN_PROCESS:
            return self.spawn(script, *flags, **env)
        from huggingface_hub import constants

        argv = ["--task-dir", str(self.folder), "--json", *flags]
        with mock.patch.object(constants, "HF_HUB_OFFLINE", True):
            ours = BUNDLE / "scripts" / "task" / script
            shown = [str(self.folder / "scripts" / script), "--json", *flags]
            return Outcome(*in_process.call(ours, argv, shown_as=shown))

    def spawn(self, script: str, *flags: str, **env: str) -> Outcome:
        """One of the task's own scripts in a process of its own."""
        process = subprocess.run(
            [sys.executable, str(self.folder / "scripts" / script), "--json", *flags],
            capture_output=True,
            text=True,
            cwd="/",
            env=environment(**env),
            timeout=600,
        )
        try:
            summary = json.loads(process.stdout)
        except json.JSONDecodeError:
            raise AssertionError(f"stdout is not one JSON object: {process.stdout!r}\n{process.stderr}") from None
        return Outcome(process.returncode, summary, process.stderr)

    def ok(self, script: str, *flags: str, **env: str) -> dict[str, Any]:
        outcome = self.run(script, *flags, **env)
        assert outcome.code == 0, (outcome.summary, outcome.stderr[-3000:])
        return outcome.summary

    def write_config(self, name: str, **sections: Any) -> str:
        """Writes configs/<name>.yaml: the baseline with whole sections replaced; returns the value for --config."""
        config = yaml.safe_load((self.folder / "configs" / "baseline.yaml").read_text(encoding="utf-8")) | sections
        (self.folder / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
        return f"configs/{name}.yaml"

    def edit_definition(self, **sections: Any) -> None:
        path = self.folder / "task_definition.yaml"
        definition = yaml.safe_load(path.read_text(encoding="utf-8"))
        for section, values in sections.items():
            definition[section] = {**definition.get(section, {}), **values} if isinstance(values, dict) else values
        path.write_text(yaml.safe_dump(definition, allow_unicode=True), encoding="utf-8")

    def json(self, relative: str) -> Any:
        return json.loads((self.folder / relative).read_text(encoding="utf-8"))


def environment(**extra: str) -> dict[str, str]:
    """One thread, no Hub, nothing of the caller's virtual environment."""
    kept = {key: value for key, value in os.environ.items() if key not in ("HF_TOKEN", "VIRTUAL_ENV")}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", **extra}


LORA = {"type": "lora", "r": 4, "lora_alpha": 8}
FULL = {"type": "full"}  # random weights learn only when all of them may move
LEARNS = {"num_train_epochs": 12, "learning_rate": 3e-3}


def make_task(folder: Path, model: Path | str, n_rows: int = 60, **sections: Any) -> Task:
    """A converted task of two easy, balanced classes on `model`; `sections` replace those of its config."""
    folder.mkdir(parents=True)
    shutil.copytree(BUNDLE / "scripts" / "task", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    rows = []
    for number in range(n_rows):
        label = ("good", "bad")[number % 2]
        text = f"第{number}家公司{TOPICS[label][number % 3]}"
        rows.append(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n")
    (folder / "data" / "raw").mkdir(parents=True)
    (folder / "data" / "raw" / "rows.jsonl").write_text("".join(rows), encoding="utf-8")
    definition = {
        "schema_version": 1,
        "name": "tiny",
        "task": {"type": "classification", "labels": {"good": "利多", "bad": "利空"}},
        "prompt": {"instruction": "判斷。"},
        "data": {
            "files": {"all": ["data/raw/rows.jsonl"]},
            "fields": {"text": "text", "label": "label"},
            "split": {"validation": 0.2, "test": 0.2, "near_duplicates": None},  # one template: all are near
        },
        "evaluation": {"must_beat": [], "n_few_shot": 0},
    }
    config = {
        "schema_version": 1,
        "base_model": {"id": str(model), "dtype": "float32"},
        "adapter": LORA,
        "training": {"num_train_epochs": 1, "learning_rate": 5e-3},
        "generation": {"max_new_tokens": 6, "batch_size": 8},
        **sections,
    }
    config["training"]["logging_steps"] = 1
    (folder / "configs").mkdir()
    (folder / "configs" / "baseline.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "task_definition.yaml").write_text(yaml.safe_dump(definition, allow_unicode=True), encoding="utf-8")
    task = Task(folder)
    task.ok("02_convert_format.py")
    return task
