"""Systems on rows -> metrics.json: the trained run, its baselines (cached), the comparison and the gate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasklib import baselines, bootstrap, conversion, gate, inference, metrics, models, progress
from tasklib.files import read_jsonl, sha256_of_json, write_jsonl
from tasklib.inference import Answer
from tasklib.metrics import Interval, Metrics, Prediction, Primary
from tasklib.paths import TaskPaths
from tasklib.runs import RunRecord
from tasklib.schema import RunConfig, TaskDefinition


@dataclass(frozen=True)
class Rows:
    """The rows of one split, and the training rows that classical baselines learn from."""

    split: str
    rows: list[dict[str, Any]]
    train: list[dict[str, Any]]

    @property
    def sha256(self) -> str:
        return conversion.rows_sha256(self.rows)


@dataclass(frozen=True)
class Result:
    """One system on one split."""

    metrics: Metrics
    predictions: list[Prediction]


def baseline_names(definition: TaskDefinition) -> tuple[str, ...]:
    return (*definition.task_type.BASELINES, "zero_shot")


def baseline_folder(paths: TaskPaths, name: str, config: RunConfig, split: str) -> Path:
    """The zero-shot baseline belongs to a base model, so its folder carries the model's name."""
    if name == "zero_shot":
        name = f"zero_shot-{re.sub(r'[^A-Za-z0-9.]+', '-', config.base_model.id).strip('-').lower()}"
    return paths.baseline(name, split)


def baseline(paths: TaskPaths, definition: TaskDefinition, config: RunConfig, data: Rows, name: str) -> Result:
    """One baseline on these rows; computed once and read from its folder afterwards."""
    decoding = definition.evaluation.decoding if name == "zero_shot" else "none"
    depends_on: dict[str, Any] = {"baseline": name, "rows": data.sha256, "decoding": decoding}
    if name == "zero_shot":
        depends_on |= {
            "base_model": config.base_model.model_dump(),
            "generation": config.generation.model_dump(),
            "weights": "nf4" if config.adapter.is_quantized else config.adapter.type == "full",
        }
    else:
        depends_on["train"] = conversion.rows_sha256(data.train)
    folder = baseline_folder(paths, name, config, data.split)
    identity = sha256_of_json([depends_on, _definition_parts(definition)])
    if cached := _cached(folder, identity):
        return cached
    run = folder.parent.name
    answers = _zero_shot(definition, config, data) if name == "zero_shot" else _classical(definition, data, name)
    result = score(definition, data, answers, run=run, decoding=decoding, identity=identity)
    save(folder, result)
    return result


def _zero_shot(definition: TaskDefinition, config: RunConfig, data: Rows) -> list[Answer]:
    tokenizer = models.load_tokenizer(config.base_model)
    model = models.load_base(config).eval()
    with progress.bar("zero_shot", len(data.rows), "row") as bar:
        return inference.answer(definition, config, model, tokenizer, [r["prompt"] for r in data.rows], bar.update)


def _classical(definition: TaskDefinition, data: Rows, name: str) -> list[Answer]:
    module = definition.task_type

    def columns(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[Any]]:
        records = [module.Record(**row["record"]) for row in rows]
        return [module.text_of(r) for r in records], [module.gold(r) for r in records]

    train_texts, train_golds = columns(data.train)
    texts, _ = columns(data.rows)
    return [Answer(p, None, None) for p in baselines.BY_NAME[name](train_texts, train_golds, texts)]


def score(
    definition: TaskDefinition, data: Rows, answers: Sequence[Answer], *, run: str, decoding: str, identity: str
) -> Result:
    """Metrics with intervals for one system's answers."""
    module, options = definition.task_type, definition.task
    golds = [module.gold(module.Record(**row["record"])) for row in data.rows]
    predictions = [
        Prediction(
            id=row["id"],
            gold=gold,
            prediction=a.prediction,
            raw_output=a.raw_output,
            probabilities=a.probabilities,
            parsed=a.prediction is not None,
        )
        for row, gold, a in zip(data.rows, golds, answers, strict=True)
    ]
    counts = _counts(definition, predictions)
    values = bootstrap.intervals(counts, lambda sums: module.score_counts(sums, options))
    if decoding != "generate":
        values["parse_rate"] = Interval(value=None, ci_low=None, ci_high=None)  # nothing was parsed
    undefined = [name for name, v in values.items() if v.value is None and name != "parse_rate"]
    absent = [label for label in module.label_set(options) or {} if label not in set(golds)]
    warnings = [f"{name} is undefined on these rows" for name in undefined]
    warnings += [f"no row has the label {label!r}: nothing is known about it" for label in absent]
    name = definition.primary_metric
    found = Metrics(
        run=run,
        split=data.split,
        decoding=decoding,
        n_rows=len(data.rows),
        rows_sha256=data.sha256,
        identity=identity,
        primary=Primary(name=name, **values[name].model_dump()),
        metrics=values,
        per_class=module.per_class(counts.sum(0), options),
        warnings=warnings,
    )
    return Result(found, predictions)


def compared(definition: TaskDefinition, result: Result, others: dict[str, Result]) -> Result:
    """The result with its comparison against each baseline (paired, same rows) and the gate."""
    module, options = definition.task_type, definition.task
    ours = _counts(definition, result.predictions)
    comparisons = [
        bootstrap.compare(
            ours,
            _counts(definition, other.predictions),
            lambda s: module.score_counts(s, options),
            definition.primary_metric,
            name,
        )
        for name, other in others.items()
    ]
    found = result.metrics.model_copy(update={"comparisons": comparisons})
    return replace(result, metrics=found.model_copy(update={"gate": gate.judge(definition.evaluation, found)}))


def save(folder: Path, result: Result) -> None:
    """predictions.jsonl first: a folder with metrics.json is complete."""
    write_jsonl(folder / "predictions.jsonl", [p.model_dump(mode="json") for p in result.predictions])
    metrics.write(folder, result.metrics)


def _cached(folder: Path, identity: str) -> Result | None:
    found = metrics.read(folder)
    if found is None or found.identity != identity or not (folder / "predictions.jsonl").is_file():
        return None
    return Result(found, [Prediction.model_validate(row) for row in read_jsonl(folder / "predictions.jsonl")])


def run_identity(definition: TaskDefinition, config: RunConfig, data: Rows, record: RunRecord) -> str:
    """Everything that a run's metrics.json depends on; training again makes another run of the same config."""
    parts = [record.identity["sha256"], record.finished_at, data.split, data.sha256, config.generation.model_dump()]
    return sha256_of_json(
        [*parts, definition.evaluation.model_dump(), _definition_parts(definition), bootstrap.N_RESAMPLES]
    )


def _definition_parts(definition: TaskDefinition) -> dict[str, Any]:
    return definition.model_dump(mode="json", include={"task", "prompt", "language"})


def _counts(definition: TaskDefinition, predictions: Sequence[Prediction]) -> Any:
    return definition.task_type.count(
        [p.gold for p in predictions], [p.prediction for p in predictions], definition.task
    )
