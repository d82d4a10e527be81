"""What a report shows: the numbers of metrics.json beside the rows and their predictions, in the task's language.

Every number is an argument; only what is counted from the predictions (confusion matrix, wrong rows) is counted here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasklib.schema import TaskDefinition
from tasklib.scoring import gate, row_scores, shown
from tasklib.scoring.metrics import CalibrationBin, Comparison, Interval, Metrics, Prediction
from tasklib.texts import CLASSES, REPORT

MAX_WRONG_ROWS = 500
MAX_BARS = 6  # with more labels, a row shows the likeliest, its gold and its predicted label
MAX_PAIRS = 10
LOWER_IS_BETTER = ("ece", "brier")
SERVED = "served/"  # what the run of a model is called that answers behind an endpoint
UNDEFINED = Interval(value=None, ci_low=None, ci_high=None)


@dataclass(frozen=True)
class System:
    """One line of the comparison; the first one is the run itself."""

    name: str
    interval: Interval
    comparison: Comparison | None
    is_best: bool = False


@dataclass(frozen=True)
class ClassLine:
    """One label: each metric with its interval, and how many rows have it."""

    label: str
    values: dict[str, Interval]
    support: float | None


@dataclass(frozen=True)
class SliceGroup:
    """The slices by one property of the rows; `lines` are (name, number of rows, value of `metric`)."""

    name: str
    metric: str
    lines: list[tuple[str, int, Interval]]


@dataclass(frozen=True)
class ConfusionRow:
    """The cells of one gold label: (count, share of the gold label), one for each predicted label, unparsed last."""

    label: str
    cells: list[tuple[int, float]]


@dataclass(frozen=True)
class WrongRow:
    """`gold` and `predicted` are as they are shown; `labels` are the two of a closed set, where the second is None for
    an answer that could not be parsed. `bars` are (label, probability).

    Open answers: `score` is the primary metric of this row alone; `context` are (role, what it holds) of what was asked
    beside the text; `pieces` are the text with its entities, if the answers are such; `sides` are (role, text, mean
    log-probability of a token) of the answers that were compared.
    """

    id: str
    source: str
    text: str
    context: list[tuple[str, str]]
    pieces: list[shown.Piece]
    gold: str
    predicted: str
    labels: tuple[str, str | None] | None
    score: float | None
    sides: list[tuple[str, str, float | None]]
    confidence: float | None
    bars: list[tuple[str, float]]
    n_hidden_bars: int
    raw_output: str | None


@dataclass(frozen=True)
class Facts:
    """What both files show. `status` is the gate's: passed, failed or none; `pairs` are (gold, predicted, count). With
    open answers (`is_closed` false) a row is wrong unless it is wholly right, and the worst come first. `class_words`
    are those for the classes of per_class, which may be entity types or fields."""

    definition: TaskDefinition
    metrics: Metrics
    words: dict[str, Any]
    class_words: dict[str, str]
    labels: dict[str, str]
    is_closed: bool
    status: str
    verdict: str
    reasons: list[str]
    warnings: list[str]
    systems: list[System]
    classes: list[ClassLine]
    slices: list[SliceGroup]
    confusion: list[ConfusionRow]
    pairs: list[tuple[str, str | None, int]]
    has_unparsed: bool
    wrong: list[WrongRow]
    n_wrong: int
    has_probabilities: bool
    has_raw_output: bool

    @property
    def split(self) -> str:
        return self.words["split"].get(self.metrics.split, self.metrics.split)

    @property
    def headline(self) -> float | None:
        """The primary metric: of several seeds their mean."""
        seeds, primary = self.metrics.seeds, self.metrics.primary
        return seeds.mean.get(primary.name, primary.value) if seeds else primary.value

    @property
    def headline_sd(self) -> float | None:
        return self.metrics.seeds.sd.get(self.metrics.primary.name) if self.metrics.seeds else None

    @property
    def other_metrics(self) -> dict[str, Interval]:
        return {name: value for name, value in self.metrics.metrics.items() if name != self.metrics.primary.name}

    @property
    def class_columns(self) -> list[str]:
        return list(dict.fromkeys(name for line in self.classes for name in line.values))

    @property
    def ece(self) -> Interval:
        return self.metrics.metrics.get("ece", UNDEFINED)

    @property
    def bins(self) -> list[CalibrationBin]:
        """The calibration bins that hold rows."""
        return [item for item in self.metrics.calibration if item.n_rows]

    @property
    def seed_lines(self) -> list[tuple[str, Interval]]:
        """(metric, mean from mean - sd to mean + sd) over the seeds."""
        seeds = self.metrics.seeds
        return [] if seeds is None else [(name, _around(mean, seeds.sd.get(name))) for name, mean in seeds.mean.items()]

    @property
    def seed_runs(self) -> str:
        """Each run with its seed."""
        seeds, words = self.metrics.seeds, self.words
        pairs = zip(seeds.runs, seeds.seeds, strict=True) if seeds else ()
        named = [words["label_with_answer"].format(label=run, answer=f"{words['seed']} {seed}") for run, seed in pairs]
        return words["comma"].join(named)

    @property
    def one_seed(self) -> str | None:
        """Of several seeds, the one whose answers are shown."""
        seeds, run = self.metrics.seeds, self.metrics.run
        if seeds is None or run not in seeds.runs:
            return None
        return self.words["one_seed"].format(run=run, seed=seeds.seeds[seeds.runs.index(run)])

    @property
    def has_entities(self) -> bool:
        return any(row.pieces for row in self.wrong)

    @property
    def has_sides(self) -> bool:
        return any(row.sides for row in self.wrong)

    @property
    def errors_title(self) -> str:
        """What the wrong rows are called, and in what order they stand."""
        if not self.is_closed:
            return self.words["errors_open"].format(metric=self.metrics.primary.name)
        return self.words["errors" if self.has_probabilities else "errors_unranked"]

    def name_of(self, label: str | None) -> str:
        """A label with what the model writes for it, or the word for an answer that could not be parsed."""
        return self.words["unparsed"] if label is None else self.labels.get(label, label)


def gather(
    definition: TaskDefinition,
    metrics: Metrics,
    predictions: Sequence[Prediction],
    rows: Sequence[dict],
    baselines: dict[str, Metrics],
) -> Facts:
    """All that is shown. Raises ValueError where predictions and rows are not the same rows in the same order."""
    if [row["id"] for row in rows] != [prediction.id for prediction in predictions]:
        raise ValueError("predictions and rows are not the same rows in the same order")
    words = REPORT[definition.language]
    closed = definition.task_type.label_set(definition.task)
    labels = {
        label: label if answer == label else words["label_with_answer"].format(label=label, answer=answer)
        for label, answer in (closed or {}).items()
    }
    wrong = _wrong(definition, predictions, rows)
    kept = [_wrong_row(definition, p, row, score, labels, words) for p, row, score in wrong[:MAX_WRONG_ROWS]]
    confusion = _confusion(definition, predictions)
    status = "none" if metrics.gate is None else "passed" if metrics.gate.passed else "failed"
    return Facts(
        definition=definition,
        metrics=metrics,
        words=words,
        class_words=words | CLASSES[definition.language].get(definition.task.type, {}),
        labels=labels,
        is_closed=closed is not None,
        status=status,
        verdict=_verdict(metrics, words, status),
        reasons=_reasons(definition, metrics),
        warnings=_warnings(metrics, words),
        systems=_systems(definition, metrics, baselines, words),
        classes=[_class_line(label, values) for label, values in metrics.per_class.items()],
        slices=_slices(metrics, words, labels),
        confusion=confusion,
        pairs=_pairs(confusion, list(labels)),
        has_unparsed=any(row.cells[-1][0] for row in confusion),
        wrong=kept,
        n_wrong=len(wrong),
        has_probabilities=any(prediction.probabilities for prediction, *_ in wrong),
        has_raw_output=any(_says_more(p) and not p.probabilities for p, *_ in wrong),
    )


def number(value: float | None, words: dict[str, Any]) -> str:
    return words["undefined"] if value is None else f"{value:.3f}"


def _verdict(metrics: Metrics, words: dict[str, Any], status: str) -> str:
    """The one sentence that says how the run did."""
    primary, seeds = metrics.primary, metrics.seeds
    mean, sd = (seeds.mean.get(primary.name), seeds.sd.get(primary.name)) if seeds else (None, None)
    kind = "score_undefined" if primary.value is None else "score_one" if mean is None else "score_seeds"
    score = words[kind].format(
        metric=primary.name,
        value=number(primary.value if mean is None else mean, words),
        sd=number(sd, words),
        n_seeds=len(seeds.seeds) if seeds else 1,
        low=number(primary.ci_low, words),
        high=number(primary.ci_high, words),
    )
    split = words["split"].get(metrics.split, metrics.split)
    return words["verdict_sentence"].format(
        split=split, n=metrics.n_rows, score=score, outcome=words[f"outcome_{status}"]
    )


def _reasons(definition: TaskDefinition, metrics: Metrics) -> list[str]:
    """Why the gate was not passed, in the task's language; metrics.json has the same in English."""
    if metrics.gate is None or metrics.gate.passed:
        return []
    return gate.shortfalls(metrics.gate.target, definition.evaluation.must_beat, metrics, definition.language)


def _warnings(metrics: Metrics, words: dict[str, Any]) -> list[str]:
    """What did not go smoothly, counted, then the warnings of metrics.json."""
    counts = {name: getattr(metrics, name) for name in ("n_failed", "n_retries", "n_shortened")}
    return [words[name].format(n=n) for name, n in counts.items() if n] + metrics.warnings


def _systems(
    definition: TaskDefinition, metrics: Metrics, baselines: dict[str, Metrics], words: dict[str, Any]
) -> list[System]:
    """The run, its baselines, and whatever else it was compared with, all by the primary metric."""
    primary = metrics.primary.name
    comparisons = {item.against: item for item in metrics.comparisons if item.metric == primary}
    ours = "served" if metrics.run.startswith(SERVED) else "finetuned"
    intervals: dict[str, Interval] = {ours: metrics.primary}
    intervals |= {name: baseline.metrics.get(primary, UNDEFINED) for name, baseline in baselines.items()}
    intervals |= {name: UNDEFINED for name in comparisons if name not in intervals}
    values = [item.value for item in intervals.values() if item.value is not None]
    best = max(values) if len(values) > 1 else None

    def shown(name: str) -> str:
        run = metrics.run if name == ours else baselines[name].run if name in baselines else name
        known = words["systems"].get(name)
        return name if known is None else known.format(n=definition.evaluation.n_few_shot, run=run)

    return [
        System(shown(name), item, comparisons.get(name), best is not None and item.value == best)
        for name, item in intervals.items()
    ]


def _class_line(label: str, values: dict[str, float | None]) -> ClassLine:
    """`values` has a metric's interval beside it under `<metric>_ci_low` and `_ci_high`; old files have none."""
    names = [name for name in values if name != "support" and not name.endswith(("_ci_low", "_ci_high"))]
    intervals = {
        name: Interval(value=values[name], ci_low=values.get(f"{name}_ci_low"), ci_high=values.get(f"{name}_ci_high"))
        for name in names
    }
    return ClassLine(label, intervals, values.get("support"))


def _slices(metrics: Metrics, words: dict[str, Any], labels: dict[str, str]) -> list[SliceGroup]:
    """Slices by the same property together, in the order of metrics.json."""
    groups: dict[str, SliceGroup] = {}
    for item in metrics.slices:
        group = groups.setdefault(item.by, SliceGroup(words["slice_by"][item.by], item.metric, []))
        names = labels if item.by == "label" else words["scripts"] if item.by == "script" else {}
        group.lines.append((names.get(item.value_of, item.value_of), item.n_rows, item.primary))
    return list(groups.values())


def _around(mean: float | None, sd: float | None) -> Interval:
    if mean is None or sd is None:
        return Interval(value=mean, ci_low=None, ci_high=None)
    return Interval(value=mean, ci_low=mean - sd, ci_high=mean + sd)


def _confusion(definition: TaskDefinition, predictions: Sequence[Prediction]) -> list[ConfusionRow]:
    module, options = definition.task_type, definition.task
    if (labels := module.label_set(options)) is None:
        return []
    cells = Counter((p.gold, p.prediction if p.prediction in labels else None) for p in predictions)
    rows = []
    for label in labels:
        line = [cells[label, predicted] for predicted in (*labels, None)]
        rows.append(ConfusionRow(label, [(n, n / sum(line) if n else 0.0) for n in line]))
    return rows


def _pairs(confusion: Sequence[ConfusionRow], labels: Sequence[str]) -> list[tuple[str, str | None, int]]:
    """The most frequent confusions, the largest first."""
    columns = [*labels, None]
    found = [
        (row.label, predicted, n)
        for row in confusion
        for predicted, (n, _) in zip(columns, row.cells, strict=True)
        if n and predicted != row.label
    ]
    return sorted(found, key=lambda pair: -pair[2])[:MAX_PAIRS]


def _wrong(
    definition: TaskDefinition, predictions: Sequence[Prediction], rows: Sequence[dict]
) -> list[tuple[Prediction, dict, float]]:
    """(prediction, row, its own score) of what is not wholly right: the worst first, and of equally bad ones those that
    the model was most confident of."""
    scores, right = row_scores.of(definition, predictions), row_scores.right(definition, predictions)
    found = [
        (p, row, float(score))
        for p, row, score, is_right in zip(predictions, rows, scores, right, strict=True)
        if not is_right
    ]
    return sorted(found, key=lambda item: (item[2], -(_confidence(item[0]) or 0.0)))


def _wrong_row(
    definition: TaskDefinition,
    prediction: Prediction,
    row: dict,
    score: float,
    labels: dict[str, str],
    words: dict[str, Any],
) -> WrongRow:
    module = definition.task_type
    record = module.Record(**row["record"])
    text, is_closed = module.text_of(record), module.label_set(definition.task) is not None
    golds, found = shown.spans(prediction.gold), shown.spans(prediction.prediction or [])
    has_entities = bool(not is_closed and golds is not None and found is not None and [*golds, *found])
    sides = _sides(definition, record, prediction)
    asked = module.prompt(record, definition.task, "") if sides else text  # the text of duplicates holds both answers
    probabilities = prediction.probabilities or {}
    bars = _bars(prediction, probabilities)

    def name(value: Any) -> str:
        if is_closed and value is not None:
            return labels.get(value, value)
        return words["unparsed"] if value is None else shown.answer(value, text, words["nothing"])

    return WrongRow(
        id=prediction.id,
        source=f"{row['source']['file']}:{row['source']['line']}",
        text=asked,
        context=_context(module, record, asked),
        pieces=shown.marked(text, golds or [], found or []) if has_entities else [],
        gold=name(prediction.gold),
        predicted=name(prediction.prediction),
        labels=(prediction.gold, prediction.prediction) if is_closed else None,
        score=None if is_closed else score,
        sides=sides,
        confidence=_confidence(prediction),
        bars=bars,
        n_hidden_bars=len(probabilities) - len(bars),
        raw_output=prediction.raw_output,
    )


def _says_more(prediction: Prediction) -> bool:
    """Whether the model wrote something that the prediction does not show."""
    written = (prediction.raw_output or "").strip()
    return bool(written) and written != prediction.prediction


def _context(module: Any, record: Any, text: str) -> list[tuple[str, str]]:
    """What the model was asked beside the text: earlier turns, and other input fields that hold text."""
    turns = [(turn["role"], turn["content"]) for turn in module.history(record)]
    fields = [(role, getattr(record, role, "")) for role in module.INPUT_FIELDS]
    return [(role, value) for role, value in turns + fields if isinstance(value, str) and value and value not in text]


def _sides(definition: TaskDefinition, record: Any, prediction: Prediction) -> list[tuple[str, str, float | None]]:
    """The answers of the row that were compared, each under the name of the field that holds it."""
    if definition.evaluation.decoding != "compare":
        return []
    texts, values = definition.task_type.candidates(record), prediction.prediction or []
    roles = {value: role for role, value in record.model_dump().items() if isinstance(value, str)}
    known = [*values, *([None] * len(texts))]
    return [(roles.get(text, str(n)), text, known[n - 1]) for n, text in enumerate(texts, start=1)]


def _bars(prediction: Prediction, probabilities: dict[str, float]) -> list[tuple[str, float]]:
    """All labels in the task's order, or of many the likeliest with gold and predicted, the likeliest first."""
    if len(probabilities) <= MAX_BARS:
        return list(probabilities.items())
    ranked = sorted(probabilities, key=lambda label: -probabilities[label])
    kept = {*ranked[: MAX_BARS - 2], prediction.gold, prediction.prediction}
    return [(label, probabilities[label]) for label in ranked if label in kept]


def _confidence(prediction: Prediction) -> float | None:
    probabilities = prediction.probabilities
    return probabilities.get(prediction.prediction) if probabilities else None
