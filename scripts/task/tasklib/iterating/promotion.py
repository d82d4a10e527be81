"""The best trial of a search becomes a run like any other: config, ledger, folder, benchmark."""

from __future__ import annotations

from pathlib import Path

from tasklib import schema
from tasklib.exit_codes import ExitCode
from tasklib.iterating import experiments, ledger, search, trial_run
from tasklib.iterating.search import Search, Study, Trial
from tasklib.iterating.trial_run import Scripts
from tasklib.markdown import literal
from tasklib.summary import Problem, TaskError
from tasklib.texts import SEARCH
from tasklib.training import runs


def promote(declared: Search, study: Study, winner: Trial, scripts: Scripts) -> bool:
    """Makes the best trial the run that the search is named after; returns whether anything was left to do.

    Every step looks whether it has been done, so that the next call finishes what was killed in between. Raises
    TaskError (exit 2, `same_experiment`) where another config asks for the same, (exit 4) where it cannot be scored.
    """
    if study.facts.get("promoted") == winner.run:
        return False
    config = declared.paths.root / "configs" / f"{declared.name}.yaml"
    if not config.is_file():
        made = search.planned(declared, winner.values, _hypothesis(declared, study.trials(), winner))
        study.note(winner=winner.run)
        if not _is_in_ledger(declared):
            ledger.record_experiment(declared.paths, declared.definition, made)
        experiments.write(declared.paths, made)
    _move_run(declared, winner, config)
    # answered again under its own name, by the script that answers for every run: metrics.json names its run and what
    # it was compared with
    if reason := trial_run.score(scripts, declared.name, config):
        command = f"uv run python scripts/04_evaluate.py --config configs/{declared.name}.yaml"
        raise TaskError(ExitCode.PREREQUISITE, [Problem(code="not_evaluated", message=reason)], next=command)
    study.note(promoted=winner.run)
    return True


def _is_in_ledger(declared: Search) -> bool:
    path = declared.paths.ledger
    return path.is_file() and f"## {literal(declared.name)} · " in path.read_text(encoding="utf-8")


def _move_run(declared: Search, winner: Trial, config: Path) -> None:
    """The trial's folder under its new name. A run is what its identity says, whatever it is called; run.json keeps the
    command that trained it."""
    folder, target = declared.paths.run(winner.run), declared.paths.run(declared.name)
    if target.exists():
        return
    wanted = runs.identity(schema.load_config(config), declared.definition, declared.paths)
    record = runs.finished_run(declared.paths, winner.run)
    runs.require_same_identity(record, wanted, winner.run, f"train configs/{declared.name}.yaml with 03_train.py")
    folder.rename(target)


def _hypothesis(declared: Search, trials: list[Trial], winner: Trial) -> str:
    words = SEARCH[declared.definition.language]
    parent = declared.parent.primary
    return words["hypothesis"].format(
        n=len(trials),
        keys=", ".join(declared.dimensions),
        metric=declared.definition.primary_metric,
        value=winner.value,
        parent=declared.parent.name,
        before=words["failed"] if parent is None else f"{parent.value:.4f}",
    )
