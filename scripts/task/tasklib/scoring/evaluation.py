"""What answers are worth: metrics with intervals, several seeds, the comparison with other systems, and the gate."""

from __future__ import annotations

import functools
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasklib import files
from tasklib.answering.inference import Answer
from tasklib.data import conversion, dataset
from tasklib.exit_codes import ExitCode
from tasklib.files import read_jsonl, sha256_of_json, write_jsonl
from tasklib.paths import TaskPaths
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.scoring import bootstrap, calibration, gate, metrics, slices
from tasklib.scoring.metrics import Interval, Metrics, Prediction, Primary, Seeds
from tasklib.summary import Problem, TaskError
from tasklib.training import runs
from tasklib.training.runs import RunRecord

PARTIAL = "predictions.partial.jsonl"  # answers of an evaluation that has not ended yet
PREVIOUS_BEST = "previous_best"
_OF_THE_BASE_MODEL = ("zero_shot", "few_shot")
NO_RUN_OF_ITS_OWN = re.compile(r"\.(limit|s|t)\d+$")  # a limited run, a further seed, a trial of a search
_UNDEFINED = Interval(value=None, ci_low=None, ci_high=None)


@dataclass(frozen=True)
class Rows:
    """The rows of one split, and the training rows that baselines learn from."""

    split: str
    rows: list[dict[str, Any]]
    train: list[dict[str, Any]]

    @functools.cached_property
    def sha256(self) -> str:
        return conversion.rows_sha256(self.rows)


@dataclass(frozen=True)
class Result:
    """One system on one split. `further` are the predictions of its further seeds; `n_answered` rows were answered in
    `elapsed_s` seconds by this very call."""

    metrics: Metrics
    predictions: list[Prediction]
    further: tuple[list[Prediction], ...] = ()
    n_answered: int = 0
    elapsed_s: float = 0.0

    @property
    def of_seeds(self) -> tuple[list[Prediction], ...]:
        return (self.predictions, *self.further)


def baseline_names(definition: TaskDefinition) -> tuple[str, ...]:
    """The baselines that are computed; the best earlier run is looked up (`previous_best`)."""
    shown = definition.evaluation.n_few_shot and definition.evaluation.decoding != "compare"
    of_model = _OF_THE_BASE_MODEL if shown else _OF_THE_BASE_MODEL[:1]
    return (*definition.task_type.BASELINES, *of_model)


def baseline_folder(paths: TaskPaths, name: str, config: RunConfig, split: str) -> Path:
    """What the base model answers belongs to that model, so its folder carries the model's name."""
    if name in _OF_THE_BASE_MODEL:
        name = f"{name}-{slug(config.base_model.id)}"
    return paths.baseline(name, split)


def slug(text: str) -> str:
    """A name for a folder: lower case, digits, dots and single hyphens."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.").lower() or "model"


def require_unseen(definition: TaskDefinition, data: Rows) -> None:
    """Raises TaskError (exit 3) naming each row to be scored whose text is one of train: a score on what was trained on
    says nothing. Texts are equal as `dataset.duplicate_key` has it."""
    module = definition.task_type

    def key(row: dict[str, Any]) -> str:
        return dataset.duplicate_key(module.passage_of(module.Record(**row["record"])))

    trained = {key(row): row["id"] for row in data.train}
    problems = [
        Problem(
            code="rows_in_train",
            message=f"row {row['id']} of {data.split} has the text of training row {trained[found]}",
            file=row["source"]["file"],
            line=row["source"]["line"],
            hint="convert again with scripts/02_convert_format.py --force, which keeps equal texts on one side; then "
            "train again",
        )
        for row in data.rows
        if (found := key(row)) in trained
    ]
    if problems:
        raise TaskError(ExitCode.DATA, problems)


def score(
    definition: TaskDefinition,
    data: Rows,
    answers: Sequence[Answer],
    *,
    run: str,
    decoding: str,
    identity: str,
    n_shortened: int = 0,
    notes: Sequence[str] = (),
) -> Result:
    """Metrics with intervals for one system's answers; `notes` come first among the warnings."""
    module = definition.task_type
    predictions = [
        Prediction(
            id=row["id"],
            text_key=dataset.text_key(module.text_of(module.Record(**row["record"]))),
            gold=module.gold(module.Record(**row["record"])),
            prediction=a.prediction,
            raw_output=a.raw_output,
            probabilities=a.probabilities,
            parsed=a.prediction is not None,
        )
        for row, a in zip(data.rows, answers, strict=True)
    ]
    values = _values(definition, decoding, [predictions])
    found = Metrics(
        run=run,
        split=data.split,
        decoding=decoding,
        n_rows=len(data.rows),
        rows_sha256=data.sha256,
        identity=identity,
        primary=_primary(definition, values),
        metrics=values,
        per_class=bootstrap.per_class([_counts(definition, predictions)], module, definition.task),
        slices=slices.score(definition, data.rows, predictions),
        calibration=calibration.bins(*_columns(predictions)),
        n_failed=sum(a.failed for a in answers),
        n_retries=sum(a.n_retries for a in answers),
        n_shortened=n_shortened,
        warnings=[*notes, *_warnings(definition, predictions, values)],
    )
    return Result(found, predictions)


def combined(definition: TaskDefinition, results: Sequence[Result], seeds: Sequence[int], identity: str) -> Result:
    """Runs of one config that differ in their seed alone, as one result: metrics are means over the seeds, and their
    intervals are those of the mean, resampled over rows. What is no mean is of the first run, and a warning says so."""
    first = results[0].metrics
    if len(results) == 1:
        return results[0]
    of_seeds = [result.predictions for result in results]
    values = _values(definition, first.decoding, of_seeds)
    each = {name: [result.metrics.metrics[name].value for result in results] for name in values}
    defined = {name: None not in column for name, column in each.items()}
    counts = [_counts(definition, predictions) for predictions in of_seeds]
    note = f"mean of {len(results)} seeds; predictions, confusion matrix, slices and calibration are of {first.run}"
    found = first.model_copy(
        update={
            "identity": identity,
            "primary": _primary(definition, values),
            "metrics": values,
            "per_class": bootstrap.per_class(counts, definition.task_type, definition.task),
            "seeds": Seeds(
                seeds=list(seeds),
                runs=[result.metrics.run for result in results],
                mean={name: statistics.fmean(each[name]) if defined[name] else None for name in each},
                sd={name: statistics.stdev(each[name]) if defined[name] else None for name in each},
            ),
            "warnings": [note, *_warnings(definition, of_seeds[0], values)],
        }
    )
    return Result(
        found,
        of_seeds[0],
        tuple(of_seeds[1:]),
        sum(result.n_answered for result in results),
        sum(result.elapsed_s for result in results),
    )


def _values(definition: TaskDefinition, decoding: str, of_seeds: Sequence[list[Prediction]]) -> dict[str, Interval]:
    """Every metric of the task type, and where there are probabilities those of calibration."""
    module, options = definition.task_type, definition.task
    counts = [_counts(definition, predictions) for predictions in of_seeds]
    values = bootstrap.intervals(counts, lambda sums: module.score_counts(sums, options))
    if decoding != "generate" and "parse_rate" in values:
        values["parse_rate"] = _UNDEFINED  # nothing was parsed
    by_bin = [calibration.count(*_columns(predictions)) for predictions in of_seeds]
    if all(matrix is not None for matrix in by_bin):
        values |= calibration.intervals_of_seeds(by_bin)
    return values


def _primary(definition: TaskDefinition, values: dict[str, Interval]) -> Primary:
    name = definition.primary_metric
    return Primary(name=name, **values[name].model_dump())


def _warnings(definition: TaskDefinition, predictions: Sequence[Prediction], values: dict[str, Interval]) -> list[str]:
    undefined = [name for name, v in values.items() if v.value is None and name != "parse_rate"]
    golds = {str(p.gold) for p in predictions}
    absent = [label for label in definition.task_type.label_set(definition.task) or {} if label not in golds]
    warnings = [f"{name} is undefined on these rows" for name in undefined]
    return warnings + [f"no row has the label {label!r}: nothing is known about it" for label in absent]


def compared(definition: TaskDefinition, result: Result, others: dict[str, Result], *, judged: bool = True) -> Result:
    """The result with its comparison against each other system (paired, same rows, Holm over all of them) and, where
    `judged`, the gate."""
    module, options = definition.task_type, definition.task
    ours, right = [_counts(definition, predictions) for predictions in result.of_seeds], _right(definition, result)
    comparisons = []
    for name, other in others.items():
        theirs = [_counts(definition, predictions) for predictions in other.of_seeds]
        pair = None if right is None else (right, _right(definition, other))
        comparisons.append(
            bootstrap.compare(
                ours, theirs, lambda s: module.score_counts(s, options), definition.primary_metric, name, pair
            )
        )
    found = result.metrics.model_copy(update={"comparisons": bootstrap.holm(comparisons)})
    judgement = gate.judge(definition.evaluation, found) if judged else None
    return replace(result, metrics=found.model_copy(update={"gate": judgement}))


def _right(definition: TaskDefinition, result: Result) -> Any:
    """Which rows were answered right, shape (n_rows,), where an answer is simply right or wrong."""
    import numpy as np

    if definition.task_type.label_set(definition.task) is None:
        return None
    return np.array([p.prediction == p.gold for p in result.predictions])


def _counts(definition: TaskDefinition, predictions: Sequence[Prediction]) -> Any:
    return definition.task_type.count(
        [p.gold for p in predictions], [p.prediction for p in predictions], definition.task
    )


def _columns(predictions: Sequence[Prediction]) -> tuple[list[Any], list[Any], list[Any]]:
    return (
        [p.gold for p in predictions],
        [p.prediction for p in predictions],
        [p.probabilities for p in predictions],
    )


def save(folder: Path, result: Result) -> None:
    """predictions.jsonl first: a folder with metrics.json is complete. Then the answers written on the way go."""
    write_jsonl(folder / "predictions.jsonl", [p.model_dump(mode="json") for p in result.predictions])
    metrics.write(folder, result.metrics)
    (folder / PARTIAL).unlink(missing_ok=True)


def read_metrics(folder: Path) -> Metrics | None:
    """metrics.json of a benchmark folder; None where there is none, or one of an older version of the scripts."""
    try:
        return metrics.read(folder)
    except (ValidationError, ValueError):
        return None


def read(folder: Path) -> Result | None:
    """What `save` wrote, with the predictions of further seeds from their own folders; None where a part is missing."""
    found = read_metrics(folder)
    if found is None:
        return None
    names = found.seeds.runs[1:] if found.seeds else []
    where = [folder, *(folder.parent.parent / name / folder.name for name in names)]
    try:
        first, *further = [
            [Prediction.model_validate(row) for row in read_jsonl(place / "predictions.jsonl")] for place in where
        ]
    except (OSError, ValueError):
        return None
    ids = [p.id for p in first]
    if len(ids) != found.n_rows or any([p.id for p in predictions] != ids for predictions in further):
        return None
    return Result(found, first, tuple(further))


def previous_best(
    paths: TaskPaths, definition: TaskDefinition, data: Rows, name: str, record: RunRecord
) -> Result | None:
    """The best run by the primary metric that was finished before this one and has answered the same rows by the same
    decoding. Limited runs, further seeds and served models are none."""
    best: tuple[float, Path] | None = None
    for file in sorted(paths.benchmarks.glob(f"*/{data.split}/metrics.json")):
        run, found = file.parent.parent.name, read_metrics(file.parent)
        if run == name or NO_RUN_OF_ITS_OWN.search(run) or found is None:
            continue
        other = runs.read_record(paths.run(run))
        is_earlier = other is not None and other.status == "finished" and other.finished_at < record.finished_at
        value = found.metrics.get(definition.primary_metric, _UNDEFINED).value
        is_alike = (found.rows_sha256, found.decoding) == (data.sha256, definition.evaluation.decoding)
        if is_earlier and is_alike and value is not None and (best is None or value > best[0]):
            best = value, file.parent
    return read(best[1]) if best else None


def run_identity(definition: TaskDefinition, config: RunConfig, data: Rows, record: RunRecord) -> str:
    """Everything that a run's metrics.json depends on; training again makes another run of the same config."""
    parts = [record.identity["sha256"], record.finished_at, data.split, data.sha256, config.generation.model_dump()]
    more = [config.imbalance.prior_correction, definition.evaluation.model_dump(), definition_parts(definition)]
    return sha256_of_json([*parts, *more, bootstrap.N_RESAMPLES])


def identity_of_seeds(identities: Sequence[str]) -> str:
    """The identity of one result over several runs; of one run it is that run's own."""
    return identities[0] if len(identities) == 1 else sha256_of_json(list(identities))


def is_current(
    paths: TaskPaths, definition: TaskDefinition, config: RunConfig, data: Rows, record: RunRecord, found: Metrics
) -> bool:
    """Whether `found` is what evaluating this run today would give, of one seed or of several."""
    identities = [run_identity(definition, config, data, record)]
    for name, seed in zip(found.seeds.runs[1:], found.seeds.seeds[1:], strict=True) if found.seeds else ():
        other = runs.read_record(paths.run(name))
        if other is None:
            return False
        identities.append(run_identity(definition, runs.with_seed(config, seed), data, other))
    return found.identity == identity_of_seeds(identities)


def definition_parts(definition: TaskDefinition) -> dict[str, Any]:
    """The part of the definition that every system's answers and their score depend on."""
    return definition.model_dump(mode="json", include={"task", "prompt", "language"})


def n_looks(paths: TaskPaths) -> int:
    """How often test was looked at, by whichever run."""
    return len(read_jsonl(paths.test_looks)) if paths.test_looks.is_file() else 0


def record_look(paths: TaskPaths, found: Metrics, *, resumed: bool) -> None:
    """Notes a look at test, before its numbers are written anywhere: an evaluation that dies in between has looked. One
    that goes on after that (`resumed`) is still the same look."""
    looks = read_jsonl(paths.test_looks) if resumed and paths.test_looks.is_file() else []
    last = next((look["identity"] for look in reversed(looks) if look["run"] == found.run), None)
    if last != found.identity:
        look = {"run": found.run, "identity": found.identity, "at": runs.now()}
        files.append_jsonl(paths.test_looks, look | {"metric": found.primary.name, "value": found.primary.value})
