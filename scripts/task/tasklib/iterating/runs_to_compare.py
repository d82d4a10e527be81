"""Which runs are compared, against which of them, and what keeps some from it."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasklib import schema
from tasklib.exit_codes import ExitCode
from tasklib.paths import TaskPaths
from tasklib.scoring import evaluation
from tasklib.scoring.evaluation import Result
from tasklib.summary import Problem, TaskError
from tasklib.texts import COMPARISON
from tasklib.training import runs
from tasklib.training.runs import RunRecord

FIRST_REFERENCE = "baseline"
BASELINES = "baselines"  # folders of benchmarks/ that are no runs
_NO_RUNS = (BASELINES, "served", "comparisons")


@dataclass(frozen=True)
class Note:
    """A warning about a comparison: a code, and what its sentence in `texts.COMPARISON` is filled with."""

    code: str
    values: dict[str, Any]
    field: str | None = None

    def to_problem(self) -> Problem:
        """The warning in English, as the summary shows it."""
        words = COMPARISON["en"]
        message = words["notes"][self.code].format(**self.values)
        return Problem(code=self.code, message=message, field=self.field, hint=words["hints"].get(self.code))


@dataclass(frozen=True)
class Evaluated:
    """A system with its answers on one split. `record` is None for a baseline, and where run.json is missing."""

    name: str
    result: Result
    record: RunRecord | None = None
    is_baseline: bool = False

    @property
    def finished_at(self) -> str:
        """When its training ended, as text that sorts; empty where nobody knows."""
        return (self.record.finished_at if self.record else None) or ""

    @property
    def decoding(self) -> str:
        return self.result.metrics.decoding


@dataclass(frozen=True)
class Chosen:
    """The reference, the runs that are compared with it, and the baselines that may be listed beside them."""

    split: str
    reference: Evaluated
    runs: tuple[Evaluated, ...]
    baselines: tuple[Evaluated, ...]
    notes: tuple[Note, ...]


def choose(paths: TaskPaths, names: Sequence[str], against: str | None, split: str) -> Chosen:
    """The runs named, or all that have been evaluated on the split, and their reference. Raises TaskError (exit 4) for
    a run that has not been evaluated, and where fewer than two are left."""
    folders = {p.parent.parent.name: p.parent for p in sorted(paths.benchmarks.glob(f"*/{split}/metrics.json"))}
    folders = {name: folder for name, folder in folders.items() if name not in _NO_RUNS}
    results = {name: evaluation.read(folder) for name, folder in folders.items()}
    found = {name: Evaluated(name, r, _record(paths, name)) for name, r in results.items() if r is not None}
    own = {name: system for name, system in found.items() if not evaluation.NO_RUN_OF_ITS_OWN.search(name)}
    names = list(dict.fromkeys(names))
    _require_evaluated(paths, [*names, *([against] if against else [])], found, own, split)
    reference = against or _reference(paths, names, own)
    if len(names) == 1 and reference is not None:
        _require_evaluated(paths, [reference], found, own, split)  # a parent that has not been evaluated
    wanted = list(dict.fromkeys([*(names or own), *([reference] if reference else [])]))
    if len(wanted) < 2 or reference is None:
        raise _nothing_to_compare(paths, own, split, f"{_listed(wanted)} alone cannot be compared with anything")
    alike = [name for name in wanted if found[name].decoding == found[reference].decoding]
    notes = _notes(found, wanted, reference, split)
    notes += [Note("benchmark_incomplete", {"run": name}) for name, r in results.items() if r is None and not names]
    if len(alike) < 2:
        why = "; ".join(note.to_problem().message for note in notes if note.code == "decoding_differs")
        raise _nothing_to_compare(paths, own, split, why)
    return Chosen(
        split,
        found[reference],
        tuple(found[name] for name in alike if name != reference),
        _baselines(paths, split, found[reference].decoding),
        tuple(notes),
    )


def _notes(found: dict[str, Evaluated], wanted: Sequence[str], reference: str, split: str) -> list[Note]:
    decoding = found[reference].decoding
    others = [name for name in wanted if found[name].decoding != decoding]
    values = {"runs": _listed(others), "reference": reference, "decoding": decoding}
    notes = [Note("decoding_differs", values, field="evaluation.decoding")] if others else []
    return notes + ([Note("compared_on_test", {}, field="--split")] if split == "test" else [])


def _reference(paths: TaskPaths, names: Sequence[str], own: dict[str, Evaluated]) -> str | None:
    """The parent of a run that is named alone; else `baseline`, else the run that finished first, among those compared
    or, beside a run that is named alone, among all."""
    alone = names[0] if len(names) == 1 else None
    if alone and (parent := _parent(paths, alone)) and parent != alone:
        return parent
    pool = [name for name in own if name != alone] if alone or not names else names
    if FIRST_REFERENCE in pool:
        return FIRST_REFERENCE
    finished = {name: own[name].finished_at if name in own else "" for name in pool}
    return min(pool, key=lambda name: (not finished[name], finished[name], name), default=None)


def _parent(paths: TaskPaths, name: str) -> str | None:
    config = resolved_config(paths, name)
    return (config or {}).get("parent")


def resolved_config(paths: TaskPaths, name: str) -> dict[str, Any] | None:
    """The whole config of a run, as it was trained or, before that, as it stands in configs/; None where there is none
    that can be read."""
    for path in (paths.run(name) / "config.yaml", paths.root / "configs" / f"{name}.yaml"):
        try:
            return schema.load_config(path).model_dump(mode="json")
        except TaskError:
            continue
    return None


def _record(paths: TaskPaths, name: str) -> RunRecord | None:
    try:
        return runs.read_record(paths.run(name))
    except ValueError:  # of an older version of the scripts
        return None


def _baselines(paths: TaskPaths, split: str, decoding: str) -> tuple[Evaluated, ...]:
    """The baselines that were evaluated on the split, without those of the base model by another decoding."""
    files = sorted((paths.benchmarks / BASELINES).glob(f"*/{split}/metrics.json"))
    results = {f"{BASELINES}/{file.parent.parent.name}": evaluation.read(file.parent) for file in files}
    return tuple(
        Evaluated(name, result, is_baseline=True)
        for name, result in results.items()
        if result is not None and result.metrics.decoding in (decoding, "none")
    )


def _require_evaluated(
    paths: TaskPaths, names: Sequence[str], found: dict[str, Evaluated], own: dict[str, Evaluated], split: str
) -> None:
    """Raises TaskError (exit 4) naming every run that has no complete benchmark on the split."""
    absent = [name for name in dict.fromkeys(names) if name not in found]
    if not absent:
        return
    problems = []
    for name in absent:
        near = difflib.get_close_matches(name, own, n=1)
        legal = f"; did you mean {near[0]!r}?" if near else f"; evaluated runs: {_listed(own)}"
        problems.append(
            Problem(
                code="not_evaluated",
                message=f"run {name!r} has no benchmark on {split}{legal}",
                file=paths.shown(paths.benchmarks / name / split / "metrics.json"),
                hint="evaluate it first, or name runs that have been evaluated",
            )
        )
    raise TaskError(ExitCode.PREREQUISITE, problems, next=_evaluate(absent[0], split))


def _nothing_to_compare(paths: TaskPaths, own: dict[str, Evaluated], split: str, why: str) -> TaskError:
    """`next` evaluates a run that has been trained, or one that has a config, and if there is none makes another."""
    configs = [path.stem for path in sorted((paths.root / "configs").glob("*.yaml")) if path.stem not in own]
    configs.sort(key=lambda name: not (paths.run(name) / "run.json").is_file())
    problem = Problem(
        code="nothing_to_compare",
        message=f"{why}; runs evaluated on {split}: {_listed(own)}",
        file=paths.shown(paths.benchmarks),
        hint=f"evaluate another run on {split} first",
    )
    after = _evaluate(configs[0], split) if configs else "uv run python scripts/new_experiment.py --help"
    return TaskError(ExitCode.PREREQUISITE, [problem], next=after)


def _evaluate(name: str, split: str) -> str:
    command = f"uv run python scripts/04_evaluate.py --config {shlex.quote(f'configs/{name}.yaml')}"
    return command + ("" if split == "validation" else f" --split {split}")


def _listed(names: Sequence[str] | dict[str, Any]) -> str:
    return ", ".join(names) or "none"
