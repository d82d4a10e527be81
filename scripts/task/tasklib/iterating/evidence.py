"""Everything that is known of one run, gathered once: what a rule looks at when it says what is wrong."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasklib.data import conversion, dataset, near_duplicates
from tasklib.exit_codes import ExitCode
from tasklib.files import read_json
from tasklib.paths import TaskPaths
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.scoring import evaluation, row_scores, systems
from tasklib.scoring.metrics import Metrics, Prediction
from tasklib.scoring.systems import FinishedRun
from tasklib.summary import Problem, TaskError
from tasklib.training import alerts, runs
from tasklib.training.runs import RunRecord

MAX_TRAIN_ROWS = 400  # training rows that the run answers again: half a minute on two CPU cores
MAX_TFIDF_ROWS = 5_000  # training rows that a classifier is cross-validated on: more say the same
MAX_READ_TEXTS = 2_000  # texts whose tokens are counted
NEAR = 0.8  # Jaccard similarity from which two texts are near copies, as data.split.near_duplicates has it

Row = dict[str, Any]


@dataclass(frozen=True)
class Answered:
    """A row of today's data with what the run answered to it. `score` is what the answer is worth by itself, 0 to 1 as
    `row_scores` has it: with labels right or wrong."""

    row: Row
    text: str
    gold: Any
    prediction: Any
    raw_output: str | None
    probabilities: Mapping[str, float] | None
    score: float

    @property
    def place(self) -> str:
        return f"{self.row['source']['file']}:{self.row['source']['line']}"

    @property
    def is_right(self) -> bool:
        return self.score >= row_scores.RIGHT

    @property
    def confidence(self) -> float:
        """Probability of the prediction; 0 where none was given."""
        return self.probabilities.get(self.prediction, 0.0) if self.probabilities else 0.0


@dataclass(frozen=True)
class Evidence:
    """`metrics` and `answered` are of validation and None/empty where it was not evaluated; `trained` are training rows
    answered again by the finished run; `log` are the lines of train_log.jsonl; `prompt_sha256` is what the prompt
    renders to today, None where the tokenizer is not at hand; `token_lengths` are those of the
    training prompts before they were cut, empty where none was."""

    paths: TaskPaths
    definition: TaskDefinition
    name: str
    config: RunConfig
    record: RunRecord
    log: Sequence[Mapping[str, Any]]
    statistics: Mapping[str, Any]
    rows: Mapping[str, Sequence[Row]]
    metrics: Metrics | None
    answered: Sequence[Answered]
    trained: Sequence[Answered]
    baselines: Mapping[str, Metrics]
    others: Mapping[str, Metrics]
    prompt_sha256: str | None
    token_lengths: Sequence[int]
    tokens_per_character: float | None
    vocabulary_size: int | None
    data_changes: Sequence[str]

    @property
    def module(self) -> Any:
        return self.definition.task_type

    @property
    def labels(self) -> list[str]:
        """The closed label set; empty for open answers."""
        return list(self.module.label_set(self.definition.task) or {})

    @property
    def knows_chance(self) -> bool:
        """Whether `chance_loss` is a measure: of labels, under the loss of answer tokens. Open answers have no guess,
        and the losses of dpo and orpo are of pairs."""
        return bool(self.labels) and self.config.method == "sft"

    @property
    def losses(self) -> list[float]:
        """Training losses in nats per answer token, as logged."""
        return [line["loss"] for line in self.log if alerts.is_finite(line.get("loss"))]

    @property
    def last_loss(self) -> float:
        """Mean training loss of the last fifth of the log; infinite without one."""
        return float(np.mean(self.losses[-max(1, len(self.losses) // 5) :])) if self.losses else math.inf

    @property
    def first_loss(self) -> float:
        """Mean of the first three training losses; infinite without one."""
        return float(np.mean(self.losses[:3])) if self.losses else math.inf

    @property
    def evals(self) -> list[tuple[float, float]]:
        """(epoch, validation loss), without the second line of the last epoch that TRL logs at times."""
        found: dict[float, float] = {}
        for line in self.log:
            if alerts.is_finite(line.get("eval_loss")):
                found[round(line.get("epoch") or 0.0, 6)] = line["eval_loss"]
        return sorted(found.items())

    @property
    def alerts(self) -> list[str]:
        return [line["alert"] for line in self.log if "alert" in line]

    @property
    def steps(self) -> int:
        return self.record.counts.get("steps", max((line["step"] for line in self.log), default=0))

    @property
    def answer_tokens(self) -> float:
        """Trained tokens of a row, the mean."""
        found = self.statistics.get("train", {})
        return found.get("n_trained_tokens", 0) / max(1, found.get("n_rows", 0))

    @functools.cached_property
    def train_labels(self) -> Counter[str]:
        return Counter(label for row in self.rows["train"] for label in self.module.strata(self.record_of(row)))

    @functools.cached_property
    def chance_loss(self) -> float:
        """Nats per answer token of one who knows the shares of the labels in train and nothing else."""
        shares = np.array(list(self.train_labels.values()), dtype=float)
        shares /= max(1.0, shares.sum())
        entropy = float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
        return entropy / max(1.0, self.answer_tokens)

    def record_of(self, row: Row) -> Any:
        return self.module.Record(**row["record"])

    def text_of(self, row: Row) -> str:
        return self.module.text_of(self.record_of(row))

    @functools.cached_property
    def _texts(self) -> dict[str, list[str]]:
        return {split: [self.text_of(row) for row in rows] for split, rows in self.rows.items()}

    def texts(self, split: str) -> list[str]:
        """The text of each row of a split."""
        return self._texts[split]

    @functools.cached_property
    def near_copies(self) -> dict[int, int]:
        """Position in validation -> position in train of a text that is nearly the same."""
        validation, train = self.texts("validation"), self.texts("train")
        n = len(validation)
        pairs = near_duplicates.pairs([*validation, *train], NEAR)
        found: dict[int, int] = {}
        for i, j in pairs.tolist():
            if i < n <= j:
                found.setdefault(i, j - n)
        return found

    @functools.cached_property
    def tfidf_macro_recall(self) -> float | None:
        """Of the TF-IDF baseline, cross-validated on the training rows: what their words alone say about the labels."""
        from tasklib.iterating import label_noise

        if not self.labels or len(self.rows["train"]) < 2 * len(self.labels):
            return None
        part = slice(None, None, max(1, len(self.rows["train"]) // MAX_TFIDF_ROWS))
        golds = [self.module.gold(self.record_of(row)) for row in self.rows["train"][part]]
        found = label_noise.out_of_fold(self.texts("train")[part], golds, self.labels)
        predicted = [self.labels[i] for i in found.argmax(axis=1)]
        hits = [[p == g for p, g in zip(predicted, golds, strict=True) if g == label] for label in self.labels]
        return float(np.mean([np.mean(h) for h in hits if h]))


def gather(paths: TaskPaths, definition: TaskDefinition, name: str) -> Evidence:
    """Reads what lies on disk; `with_model` adds what needs tokenizer and model. Raises TaskError (exit 4) without
    data/processed/ or without a run of that name."""
    record = runs.read_record(paths.run(name))
    if record is None:
        raise _no_run(paths, name)
    config = RunConfig.model_validate(record.config)
    splits = [s for s in ("train", "validation", "test") if s == "train" or paths.split(s).is_file()]
    rows = {split: conversion.load_split(paths, split) for split in splits}
    rows.setdefault("validation", [])
    found = evaluation.read(paths.benchmark(name, "validation"))
    now = runs.identity(config, definition, paths)["parts"]
    then = record.identity["parts"]
    changed = runs.differences(*({k: parts.get(k) for k in ("definition", "processed")} for parts in (then, now)))
    return Evidence(
        paths=paths,
        definition=definition,
        name=name,
        config=config,
        record=record,
        log=_log(paths, name),
        statistics=_statistics(paths, name),
        rows=rows,
        metrics=found.metrics if found else None,
        answered=_joined(definition, rows["validation"], found.predictions if found else []),
        trained=[],
        baselines=_baselines(paths, definition, config, found.metrics if found else None),
        others=_others(paths, name, found.metrics if found else None),
        prompt_sha256=None,
        token_lengths=[],
        tokens_per_character=None,
        vocabulary_size=None,
        data_changes=changed,
    )


def _no_run(paths: TaskPaths, name: str) -> TaskError:
    problem = Problem(
        code="no_run",
        message=f"run {name!r} was never started",
        file=paths.shown(paths.run(name) / "run.json"),
        hint="train it first: a diagnosis needs its log",
    )
    command = f"bash scripts/run_pipeline.sh --config configs/{name}.yaml --until evaluate"
    return TaskError(ExitCode.PREREQUISITE, [problem], next=command)


def _log(paths: TaskPaths, name: str) -> list[dict[str, Any]]:
    """The lines of train_log.jsonl; a line torn by a crash is left out."""
    path, found = paths.run(name) / "train_log.jsonl", []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _statistics(paths: TaskPaths, name: str) -> dict[str, Any]:
    path = paths.run(name) / "data_stats.json"
    return read_json(path) if path.is_file() else {}


def _joined(definition: TaskDefinition, rows: Sequence[Row], predictions: Sequence[Prediction]) -> list[Answered]:
    """Rows with their predictions, by text where the file names it and by id where it is older; today's gold."""
    module = definition.task_type
    by_text = {p.text_key: p for p in predictions if p.text_key}
    by_id = {p.id: p for p in predictions}
    found = []
    for row in rows:
        record = module.Record(**row["record"])
        text = module.text_of(record)
        p = by_text.get(dataset.text_key(text)) if by_text else by_id.get(row["id"])
        if p is not None:
            found.append((row, text, p.model_copy(update={"gold": module.gold(record)})))
    scores = row_scores.of(definition, [p for _, _, p in found]).tolist()
    return [
        Answered(row, text, p.gold, p.prediction, p.raw_output, p.probabilities, score)
        for (row, text, p), score in zip(found, scores, strict=True)
    ]


def _baselines(
    paths: TaskPaths, definition: TaskDefinition, config: RunConfig, found: Metrics | None
) -> dict[str, Metrics]:
    """The baselines that answered the same rows."""
    if found is None:
        return {}
    names = evaluation.baseline_names(definition)
    folders = {n: evaluation.baseline_folder(paths, n, config, found.split) for n in names}
    read = {name: evaluation.read_metrics(folder) for name, folder in folders.items()}
    return {name: m for name, m in read.items() if m is not None and m.rows_sha256 == found.rows_sha256}


def _others(paths: TaskPaths, name: str, found: Metrics | None) -> dict[str, Metrics]:
    """Other runs on the same rows under the same decoding; further seeds and limited runs are none."""
    others = {}
    for file in sorted(paths.benchmarks.glob("*/validation/metrics.json")) if found else []:
        run, other = file.parent.parent.name, evaluation.read_metrics(file.parent)
        if run == name or other is None or evaluation.NO_RUN_OF_ITS_OWN.search(run):
            continue
        if (other.rows_sha256, other.decoding) == (found.rows_sha256, found.decoding):
            others[run] = other
    return others


def with_model(evidence: Evidence) -> Evidence:
    """What needs the tokenizer and, for a finished run, the model: the prompt as it renders today, token lengths, and
    training rows answered again. A model that cannot be loaded leaves these empty."""
    from tasklib.model import models, prompts

    e = evidence
    try:
        tokenizer = models.load_tokenizer(e.config.base_model)
        prompt = prompts.prompt_hash(tokenizer, e.definition)
    except TaskError:
        return e
    is_cut = e.statistics.get("train", {}).get("n_shortened", 0) > 0
    lengths = _token_lengths(tokenizer, e, e.rows["train"]) if is_cut else []
    texts = e.texts("train")[:: max(1, len(e.rows["train"]) // MAX_READ_TEXTS)]
    n_tokens = sum(len(ids) for ids in prompts.token_ids_of(tokenizer, texts))
    per_character = n_tokens / max(1, sum(map(len, texts)))
    found = {"prompt_sha256": prompt, "token_lengths": lengths, "tokens_per_character": per_character}
    e = dataclasses.replace(e, **found, vocabulary_size=len(tokenizer))
    is_same = e.record.prompt_sha256 in (None, prompt) and not e.data_changes
    if e.record.status != "finished" or not is_same:
        return e
    run = FinishedRun(e.name, e.record.seed, e.config, e.record)
    return dataclasses.replace(e, trained=answered_again(e.paths, e.definition, run, e.rows["train"]))


def answered_again(
    paths: TaskPaths, definition: TaskDefinition, run: FinishedRun, train: Sequence[Row], n_rows: int = MAX_TRAIN_ROWS
) -> list[Answered]:
    """Up to `n_rows` training rows, evenly spaced, answered by the finished run. The answers are kept in
    benchmarks/<run>/train/, so that the same rows are not asked twice."""
    train = list(train)
    data = evaluation.Rows("train", train[:: max(1, -(-len(train) // n_rows))], train)
    folder = paths.benchmark(run.name, "train")
    found = evaluation.read(folder)
    if found is None or found.metrics.identity != evaluation.run_identity(definition, run.config, data, run.record):
        found = systems.trained(paths, definition, data, run)
        evaluation.save(folder, found)
    return _joined(definition, data.rows, found.predictions)


def _token_lengths(tokenizer: Any, e: Evidence, rows: Sequence[Row]) -> list[int]:
    """Tokens of each row's whole prompt, before anything is cut."""
    from tasklib.model import prompts

    thinking = e.definition.prompt.enable_thinking
    rendered = [prompts.render_prompt(tokenizer, row["prompt"], enable_thinking=thinking) for row in rows]
    return [len(ids) for ids in prompts.token_ids_of(tokenizer, rendered)]
