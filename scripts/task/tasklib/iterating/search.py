"""A small declared search: trials that are runs, kept in an Optuna study that any interruption leaves whole.

The study is models/<name>.sweep/journal.jsonl. Every trial is a run <name>.tN of its own, made from its own whole
config in models/<name>.sweep/configs/ by the scripts that train every run.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasklib import documents, files, schema
from tasklib.data import conversion
from tasklib.documents import Document
from tasklib.exit_codes import ExitCode
from tasklib.iterating import experiments, search_space
from tasklib.iterating.search_space import Dimension
from tasklib.paths import TaskPaths
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.scoring import evaluation
from tasklib.scoring.metrics import Primary
from tasklib.summary import Problem, TaskError
from tasklib.training import imbalance, runs
from tasklib.training.runs import RunRecord

STUDY = "sweep"  # the only one in its journal
# Random trials before the sampler looks at results. Optuna's own 10 would leave a search of 8 trials all random; on a
# rate and a rank with a noisy peak, the mean loss of 8 trials was 0.109 with 10, 0.093 with 5 and 0.069 with 3.
N_RANDOM = 3
MAX_REPEATS = 20  # draws of a point that is known already, before the search ends
INSTALL = "uv run --extra sweep python scripts/sweep.py"


@dataclass(frozen=True)
class Budget:
    """Whichever ends first. A trial that has begun is finished, never cut."""

    n_trials: int | None
    seconds: float | None

    def is_spent(self, trials: Sequence[Trial]) -> bool:
        """Every trial of the study counts, failed ones too, and all the time that they took."""
        by_number = self.n_trials is not None and len(trials) >= self.n_trials
        return by_number or (self.seconds is not None and sum(t.elapsed_s for t in trials) >= self.seconds)


@dataclass(frozen=True)
class Trial:
    """One run of the search. `status` is `open` until it has ended; `reason` says why it failed."""

    number: int
    run: str
    values: dict[str, Any]
    status: str = "open"
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    elapsed_s: float = 0.0
    reason: str | None = None


@dataclass(frozen=True)
class Parent:
    """The run that the search starts from; `primary` is its score on today's validation rows, None where it failed."""

    name: str
    document: Document
    config: RunConfig
    record: RunRecord
    primary: Primary | None

    @property
    def elapsed_s(self) -> float:
        """How long its training took, without its evaluation."""
        start, end = (datetime.datetime.fromisoformat(t) for t in (self.record.started_at, self.record.finished_at))
        return (end - start).total_seconds()


@dataclass(frozen=True)
class Search:
    """Everything that a search is declared by."""

    paths: TaskPaths
    definition: TaskDefinition
    name: str
    parent: Parent
    dimensions: dict[str, Dimension]
    rows_sha256: str
    n_rows: int

    @property
    def folder(self) -> Path:
        return self.paths.root / "models" / f"{self.name}.sweep"

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    @property
    def declared(self) -> dict[str, Any]:
        """What must be the same when a search goes on."""
        return {
            "parent": {"run": self.parent.name, "identity": self.parent.record.identity["sha256"]},
            "metric": self.definition.primary_metric,
            "decoding": self.definition.evaluation.decoding,
            "validation_rows": self.rows_sha256,
            "space": {key: dimension.to_json() for key, dimension in self.dimensions.items()},
        }


def declare(
    paths: TaskPaths, definition: TaskDefinition, *, parent: str, name: str, narrowed: Sequence[str] = ()
) -> Search:
    """The search that diagnosis and flags ask for, with every value it may try checked by the schema. Raises TaskError:
    exit 4 without a diagnosis, a trained parent or its score, exit 2 for an illegal key, value or name."""
    experiments.require_config(paths, parent, "--from")
    rows = conversion.load_split(paths, "validation")
    found = _parent(paths, definition, parent, evaluation.Rows("validation", rows, []))
    dimensions = search_space.narrowed(_named(paths, found), narrowed)
    search = Search(paths, definition, name, found, dimensions, conversion.rows_sha256(rows), len(rows))
    _require_legal(search)
    return search


def _parent(paths: TaskPaths, definition: TaskDefinition, name: str, data: evaluation.Rows) -> Parent:
    """The parent with its score. One that failed has none: a rate that diverged is what a search may mend."""
    document = documents.load_yaml(paths.root / "configs" / f"{name}.yaml", f"configs/{name}.yaml")
    config, record = schema.check_config(document), runs.read_record(paths.run(name))
    if record is None or record.status != "failed":
        record = runs.finished_run(paths, name)
    runs.require_same_identity(record, runs.identity(config, definition, paths), name, "train it again")
    if record.status == "failed":
        return Parent(name, document, config, record, None)
    metrics = evaluation.read_metrics(paths.benchmark(name, data.split))
    if metrics is None or not evaluation.is_current(paths, definition, config, data, record, metrics):
        message = f"run {name!r} has no score on today's {data.split} rows"
        problem = Problem(code="not_evaluated", message=message, hint="a search is judged by what its parent scores")
        command = f"uv run python scripts/04_evaluate.py --config configs/{name}.yaml"
        raise TaskError(ExitCode.PREREQUISITE, [problem], next=command)
    return Parent(name, document, config, record, metrics.primary)


def _named(paths: TaskPaths, parent: Parent) -> dict[str, Dimension]:
    """The keys that the parent's diagnosis names. Raises TaskError (exit 4) without one that is about this run."""
    path = paths.benchmarks / parent.name / "diagnosis.json"
    command = f"uv run python scripts/diagnose.py --config configs/{parent.name}.yaml"

    def missing(code: str, message: str, hint: str, after: str = command) -> TaskError:
        problem = Problem(code=code, message=message, file=paths.shown(path), hint=hint)
        return TaskError(ExitCode.PREREQUISITE, [problem], next=after)

    if not path.is_file():
        raise missing("no_diagnosis", f"run {parent.name!r} has no diagnosis", "a search turns only what it names")
    try:
        diagnosis = files.read_json(path)
        identity, version, named = diagnosis["identity"], diagnosis["schema_version"], search_space.named(diagnosis)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise missing("diagnosis_damaged", f"it cannot be read: {error}", "diagnose again") from None
    if (identity, version) != (parent.record.identity["sha256"], 1):
        message = f"it is of another run than models/{parent.name}/ holds now"
        raise missing("diagnosis_outdated", message, "diagnose again")
    if not named:
        codes = ", ".join(item["code"] for item in diagnosis["findings"]) or "no finding"
        hint = "do what the diagnosis says; a search would not mend that"
        first = next(iter(diagnosis["findings"] or diagnosis["options"]), {})
        raise missing(
            "nothing_to_search", f"it names no value to search ({codes})", hint, first.get("command", command)
        )
    return named


def _require_legal(search: Search) -> None:
    """Raises TaskError (exit 2) with every problem of the name and of the ends of every range."""
    problems: dict[tuple[str | None, str], Problem] = {}
    for values in search_space.corners(search.dimensions):
        try:
            config = schema.check_config(search.parent.document, _overrides(search, values))
            schema.require_trainable(search.definition, config, has_validation=True)
            imbalance.check(search.definition, config)
        except TaskError as error:
            problems |= {(p.field, p.message): p for p in error.problems}
    is_new = not search.journal.is_file()
    if is_new and (old := sorted(p.name for p in search.paths.root.glob(f"models/{search.name}.t[0-9]*"))):
        message = f"there are runs of an older search {search.name!r}: {', '.join(old[:5])}"
        problems["--name", message] = Problem(code="usage", message=message, field="--name", hint="choose another name")
    if problems:
        raise TaskError(ExitCode.USAGE, problems.values())


def require_free_name(search: Search) -> None:
    """Raises TaskError (exit 2) where the name of the config to be written is illegal or taken."""
    values = next(search_space.corners(search.dimensions))
    try:
        planned(search, values, "a search")
    except TaskError as error:
        problems = [p for p in error.problems if p.code not in ("same_experiment", "nothing_changes")]
        if problems:
            raise TaskError(error.exit_code, problems) from None


def planned(search: Search, values: Mapping[str, Any], hypothesis: str) -> experiments.Experiment:
    """The experiment that one point of the space is. Raises TaskError as `experiments.plan` does."""
    return experiments.plan(
        search.paths,
        search.definition,
        parent=search.parent.name,
        name=search.name,
        hypothesis=hypothesis,
        overrides=_overrides(search, values),
        allow_several=True,  # the keys were declared together, and are turned together
    )


def write_config(search: Search, trial: Trial) -> Path:
    """The trial's whole config; its stem is the run's name, so that the scripts need no flag to know it."""
    import yaml

    data = schema.with_overrides(search.parent.document, _overrides(search, trial.values)).data
    data = {**data, "parent": search.parent.name, "hypothesis": f"trial of {search.name}"}
    path = search.folder / "configs" / f"{trial.run}.yaml"
    files.write_text(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110))
    return path


def _overrides(search: Search, values: Mapping[str, Any]) -> list[str]:
    return search_space.overrides(values, search.parent.config)


# ---- the study -------------------------------------------------------------------------------------------------------


def require_optuna() -> None:
    """Raises TaskError (exit 4) where the task's extra `sweep` is not installed."""
    import importlib.util

    if importlib.util.find_spec("optuna") is None:
        hint = f"it is the task's extra `sweep`: {INSTALL} …"
        problem = Problem(code="package_missing", message="the Python package optuna is not installed", hint=hint)
        raise TaskError(ExitCode.PREREQUISITE, [problem], next=f"{INSTALL} --help")


class Study:
    """The trials of one search, on disk at every moment."""

    def __init__(self, search: Search) -> None:
        import optuna
        from optuna.storages import JournalStorage, journal

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search = search
        path = str(search.journal)
        search.folder.mkdir(parents=True, exist_ok=True)
        backend = journal.JournalFileBackend(path, lock_obj=journal.JournalFileOpenLock(path))
        self._storage = JournalStorage(backend)
        self._study = optuna.create_study(
            storage=self._storage, study_name=STUDY, direction="maximize", load_if_exists=True
        )

    @property
    def facts(self) -> dict[str, Any]:
        """`declared`; `ended` where the space has no point left; `winner`, the run that became the config."""
        return self._study.user_attrs

    def note(self, **facts: Any) -> None:
        for name, value in facts.items():
            self._study.set_user_attr(name, value)

    def begin(self) -> None:
        """Declares the search, or raises TaskError (exit 2) with the difference where it was declared otherwise. The
        parent's score is the first thing that the sampler knows, where it lies in the space."""
        declared = self.facts.get("declared")
        if declared is not None:
            self._require_same(declared)
        elif (primary := self.search.parent.primary) and primary.value is not None and self._holds_parent():
            self._add_parent(primary.value)
        if declared is None:
            self.note(declared=self.search.declared)

    def _require_same(self, declared: dict[str, Any]) -> None:
        changed = runs.differences(declared, self.search.declared)
        hint = f"give another --name, or the flags of models/{self.search.name}.sweep/ again"
        problems = [
            Problem(
                code="search_differs", message=f"search {self.search.name!r} was begun with another {line}", hint=hint
            )
            for line in changed
        ]
        if problems:
            raise TaskError(ExitCode.USAGE, problems)

    def _holds_parent(self) -> bool:
        values = search_space.current(self.search.dimensions, self.search.parent.config)
        return all(d.holds(values[key]) for key, d in self.search.dimensions.items())

    def _add_parent(self, value: float) -> None:
        import optuna

        dimensions = self.search.dimensions
        values = search_space.current(dimensions, self.search.parent.config)
        params = {key: d.sampled(values[key]) for key, d in dimensions.items()}
        distributions = {key: d.distribution() for key, d in dimensions.items()}
        facts = {"known": _point(dimensions, values)}
        if not self._study.get_trials(deepcopy=False):  # else an earlier call died between this and `declared`
            made = optuna.trial.create_trial(params=params, distributions=distributions, value=value, user_attrs=facts)
            self._study.add_trial(made)

    def trials(self) -> list[Trial]:
        """All runs of the search, in the order in which they were begun."""
        found = []
        for frozen in self._study.get_trials(deepcopy=False):
            facts = frozen.user_attrs
            if "run" in facts:
                status = {"COMPLETE": "finished", "FAIL": "failed"}.get(frozen.state.name, "open")
                result = facts.get("result", {}) if status != "open" else {}
                found.append(
                    Trial(
                        frozen.number,
                        facts["run"]["name"],
                        facts["run"]["values"],
                        status,
                        elapsed_s=facts.get("elapsed_s", 0.0),
                        **result,
                    )
                )
        return found

    def suggested(self) -> Trial | None:
        """The next trial, begun; None where every point of the space is known. Points that are known already are told
        to the sampler as they are and cost nothing."""
        dimensions = self.search.dimensions
        distributions = {key: d.distribution() for key, d in dimensions.items()}
        for _ in range(MAX_REPEATS):
            known = self._known()
            points = search_space.combinations(dimensions)
            left = [p for p in points if _point(dimensions, p) not in known] if points is not None else None
            if left == []:
                break
            asked = self._ask(distributions)
            values = {key: d.value(asked.params[key]) for key, d in dimensions.items()}
            if (point := _point(dimensions, values)) not in known:
                return self._begun(asked, values)
            self._tell(asked.number, known[point])
            if left:  # drawn twice in a small space: one of those that are left is worth more than another draw
                untried = left[asked.number % len(left)]
                self._study.enqueue_trial({key: d.sampled(untried[key]) for key, d in dimensions.items()})
        self.note(ended="every point of the space has been tried")
        return None

    def _ask(self, distributions: dict[str, Any]) -> Any:
        """Seeded by the number of the trial, so that a search that was interrupted draws what it would have drawn."""
        from optuna.samplers import TPESampler

        seed = self.search.parent.config.training.seed + len(self._study.get_trials(deepcopy=False))
        self._study.sampler = TPESampler(n_startup_trials=N_RANDOM, seed=seed)
        return self._study.ask(distributions)

    def _begun(self, asked: Any, values: dict[str, Any]) -> Trial:
        run = f"{self.search.name}.t{len(self.trials()) + 1}"
        asked.set_user_attr("known", _point(self.search.dimensions, values))
        asked.set_user_attr("run", {"name": run, "values": values})
        return Trial(asked.number, run, values)

    def _known(self) -> dict[str, float | None]:
        """Point -> its value, None where it failed."""
        frozen = self._study.get_trials(deepcopy=False)
        return {t.user_attrs["known"]: t.value for t in frozen if t.state.is_finished() and "known" in t.user_attrs}

    def forget_half_begun(self) -> None:
        """A trial that was drawn and not yet named when the process died is no trial."""
        for frozen in self._study.get_trials(deepcopy=False):
            if not frozen.state.is_finished() and frozen.state.name != "WAITING" and "run" not in frozen.user_attrs:
                self._tell(frozen.number, None)

    def keep_time(self, trial: Trial, elapsed_s: float) -> None:
        """How long a trial has taken so far, over all calls."""
        self._note_of(trial, "elapsed_s", round(elapsed_s, 1))

    def finish(self, trial: Trial, found: Primary | None, reason: str | None = None) -> None:
        """Notes how a trial ended: with a score, or why it has none."""
        result = {"reason": reason} if found is None else found.model_dump(include={"value", "ci_low", "ci_high"})
        self._note_of(trial, "result", result)
        self._tell(trial.number, None if found is None else found.value)

    def _note_of(self, trial: Trial, name: str, value: Any) -> None:
        """Optuna lets only the process that began a trial write to it by its own object; its storage knows no owner."""
        study_id = self._storage.get_study_id_from_name(STUDY)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
        self._storage.set_trial_user_attr(trial_id, name, value)

    def _tell(self, number: int, value: float | None) -> None:
        from optuna.trial import TrialState

        self._study.tell(number, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)


def _point(dimensions: Mapping[str, Dimension], values: Mapping[str, Any]) -> str:
    """The same text for the same point, 8 and 8.0 alike."""
    return json.dumps([dimensions[key].sampled(values[key]) for key in sorted(dimensions)])


def mend_journal(search: Search) -> None:
    """Takes away what a crash in the middle of a write left: a torn last line, after which nothing could be appended,
    and the journal's own lock. To be called under the lock of the search's folder."""
    for leftover in search.folder.glob(f"{search.journal.name}.lock*"):
        leftover.unlink()
    if not search.journal.is_file():
        return
    with search.journal.open("r+b") as stream:
        content = stream.read()
        stream.truncate(content.rfind(b"\n") + 1)


def best(trials: Sequence[Trial], parent: Parent) -> Trial | None:
    """The trial with the highest value, the earliest of equals; None where none is above the parent."""
    scored = [trial for trial in trials if trial.value is not None]
    first = max(scored, key=lambda trial: trial.value, default=None)
    floor = parent.primary.value if parent.primary else None
    return first if first and (floor is None or first.value > floor) else None


def score_of(search: Search, run: str) -> Primary | None:
    """What the run's evaluation on validation says; None where there is no defined value."""
    try:
        found = evaluation.read_metrics(search.paths.benchmark(run, "validation"))
    except ValidationError:
        return None
    return found.primary if found is not None and found.primary.value is not None else None
