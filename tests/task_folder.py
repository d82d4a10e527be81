"""Helper: a minimal task folder around raw files of one's own, and any script as a subprocess that answers in JSON."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import in_process

BUNDLE = Path(__file__).resolve().parent.parent
LABELS = {"good": "利多", "bad": "利空"}
LIGHT = {"create_task.py", "list_tasks.py", "01_validate_data.py", "02_convert_format.py", "suggest_labels.py",
         "new_experiment.py", "label_with.py"}  # fmt: skip


class Outcome(NamedTuple):
    """What one call of a script gave."""

    code: int
    summary: dict[str, Any]
    stderr: str

    def problems(self, code: str, among: str = "errors") -> list[dict[str, Any]]:
        """The errors (or warnings) of one code."""
        return [problem for problem in self.summary[among] if problem["code"] == code]


@dataclass(frozen=True)
class Task:
    """A task folder made by make_task."""

    folder: Path

    def run(self, script: str, *flags: str, cwd: Path | str = "/") -> Outcome:
        if script not in LIGHT:
            return spawn_script(self.folder / "scripts" / script, *flags, cwd=cwd)
        argv = ["--json", *map(str, flags)]
        shown = [str(self.folder / "scripts" / script), *argv]
        ours = BUNDLE / "scripts" / "task" / script
        return Outcome(*in_process.call(ours, ["--task-dir", str(self.folder), *argv], cwd, shown_as=shown))

    def spawn(self, script: str, *flags: str, cwd: Path | str = "/") -> Outcome:
        """The task's own copy in a process of its own: where the copy, the process or its time is what is tested."""
        return spawn_script(self.folder / "scripts" / script, *flags, cwd=cwd)

    def ok(self, script: str, *flags: str) -> dict[str, Any]:
        outcome = self.run(script, *flags)
        assert outcome.code == 0, (outcome.summary, outcome.stderr[-3000:])
        return outcome.summary

    def rows(self, split: str) -> list[dict[str, Any]]:
        """The rows of data/processed/<split>.jsonl."""
        lines = (self.folder / "data" / "processed" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def hashes(self, below: str) -> dict[str, str]:
        """Relative path -> sha256 of every file below a folder of the task."""
        return sha256s(self.folder / below)


def run_script(script: Path, *flags: str, cwd: Path | str = "/") -> Outcome:
    """Runs a script of the bundle with --json; the light ones in this process."""
    if script.name not in LIGHT or BUNDLE not in script.parents:
        return spawn_script(script, *flags, cwd=cwd)
    return Outcome(*in_process.call(script, ["--json", *map(str, flags)], cwd))


def spawn_script(script: Path | str, *flags: str, cwd: Path | str = "/") -> Outcome:
    """Runs any script with --json in a process of its own; stdout must be one JSON object and nothing else."""
    kept = {key: value for key, value in os.environ.items() if key not in ("HF_TOKEN", "PYTHONPATH")}
    process = subprocess.run(
        [sys.executable, str(script), "--json", *map(str, flags)],
        capture_output=True,
        encoding="utf-8",
        cwd=cwd,
        env={**kept, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    try:
        summary = json.loads(process.stdout)
    except json.JSONDecodeError:
        raise AssertionError(f"stdout is not one JSON object: {process.stdout!r}\n{process.stderr}") from None
    return Outcome(process.returncode, summary, process.stderr)


def make_task(folder: Path, files: dict[str, str | bytes], **sections: Any) -> Task:
    """A task of two labels over `files` (name under data/raw/ -> content); `sections` extend the definition's."""
    shutil.copytree(BUNDLE / "scripts" / "task", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    definition: dict[str, Any] = {
        "schema_version": 1,
        "name": "tiny",
        "language": "en",
        "task": {"type": "classification", "labels": LABELS},
        "prompt": {"instruction": "Judge."},
        "data": {
            "files": {"all": [f"data/raw/{name}" for name in files]},
            "fields": {"text": "title", "label": "mood"},
        },
    }
    for key, value in sections.items():
        definition[key] = {**definition.get(key, {}), **value} if isinstance(value, dict) else value
    config = {"schema_version": 1, "base_model": {"id": "builtin:smollm2-135m"}}
    write(folder / "task_definition.yaml", yaml.safe_dump(definition, allow_unicode=True, sort_keys=False))
    write(folder / "configs" / "baseline.yaml", yaml.safe_dump(config))
    for name, content in files.items():
        write(folder / "data" / "raw" / name, content)
    return Task(folder)


def write(path: Path, content: str | bytes) -> Path:
    """Writes a file as it stands, its folder made first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def news(n: int, labels: tuple[str, ...] = ("good", "bad"), prefix: str = "", **more: Any) -> list[dict[str, Any]]:
    """`n` rows of different texts, labels in turn."""
    return [
        {"title": f"{prefix}第{number}家公司的消息", "mood": labels[number % len(labels)], **more}
        for number in range(n)
    ]


def sha256s(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file below a folder; Python's caches aside."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
