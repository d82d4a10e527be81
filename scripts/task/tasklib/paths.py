"""Where everything of a task lies. Every path comes from the task folder, never from the current one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasklib.exit_codes import ExitCode
from tasklib.summary import Problem, TaskError


@dataclass(frozen=True)
class TaskPaths:
    root: Path

    @property
    def definition(self) -> Path:
        return self.root / "task_definition.yaml"

    @property
    def raw(self) -> Path:
        return self.root / "data" / "raw"

    @property
    def labelling(self) -> Path:
        return self.root / "data" / "labelling"

    @property
    def processed(self) -> Path:
        return self.root / "data" / "processed"

    @property
    def preferences(self) -> Path:
        return self.root / "data" / "preferences"

    @property
    def manifest(self) -> Path:
        return self.processed / "manifest.json"

    @property
    def data_report(self) -> Path:
        return self.root / "docs" / "data_report.md"

    @property
    def data_report_json(self) -> Path:
        return self.root / "docs" / "data_report.json"

    @property
    def ledger(self) -> Path:
        return self.root / "docs" / "EXPERIMENTS.md"

    @property
    def annotation_guide(self) -> Path:
        return self.root / "docs" / "annotation_guide.md"

    @property
    def integration_guide(self) -> Path:
        return self.root / "docs" / "integration.md"

    @property
    def dataset_card(self) -> Path:
        return self.root / "hf_cards" / "dataset_card.md"

    @property
    def decisions(self) -> Path:
        return self.root / "data" / "decisions.csv"

    @property
    def benchmarks(self) -> Path:
        return self.root / "benchmarks"

    @property
    def test_looks(self) -> Path:
        return self.benchmarks / "test_looks.jsonl"

    @property
    def model_card(self) -> Path:
        return self.root / "hf_cards" / "model_card.md"

    def split(self, name: str) -> Path:
        return self.processed / f"{name}.jsonl"

    def run(self, name: str) -> Path:
        return self.root / "models" / name

    def exports(self, run: str) -> Path:
        return self.run(run) / "exports"

    def benchmark(self, run: str, split: str) -> Path:
        return self.benchmarks / run / split

    def baseline(self, name: str, split: str) -> Path:
        return self.benchmarks / "baselines" / name / split

    def comparison(self, stem: str) -> Path:
        """The files of a comparison of runs, without their suffix."""
        return self.benchmarks / "comparisons" / stem

    def shown(self, path: Path) -> str:
        """`path` relative to the task folder where it lies in it."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


def task_paths(task_dir: Path) -> TaskPaths:
    """The paths of an existing task. Raises TaskError (exit 4) when there is no task at `task_dir`."""
    root = task_dir.expanduser().resolve()
    if not (root / "task_definition.yaml").is_file():
        problem = Problem(
            code="no_task",
            message=f"{root} has no task_definition.yaml",
            file=str(root),
            hint="give --task-dir, or create the task with create_task.py",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem])
    return TaskPaths(root)


def config_path(paths: TaskPaths, config: str) -> Path:
    """A config named by a path, absolute or relative to the task folder. Its stem is the run's name."""
    path = Path(config).expanduser()
    return path if path.is_absolute() else paths.root / path
