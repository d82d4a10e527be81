"""report.html and report.md of one evaluated run. Every number is an argument; nothing is computed twice.

Both files show one `Facts`. Data reaches the page only as escaped text (autoescape); its script holds no data.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from tasklib import gate
from tasklib.files import write_text
from tasklib.markdown import literal, table
from tasklib.metrics import Comparison, Interval, Metrics, Prediction
from tasklib.schema import TaskDefinition
from tasklib.texts import REPORT

MAX_HTML_ROWS = 500
MAX_MARKDOWN_ROWS = 20
MAX_MARKDOWN_TEXT = 200  # characters
MAX_BARS = 6  # with more labels, a row shows the likeliest, its gold and its predicted label

_TEMPLATE = Path(__file__).with_name("report_template.html")
_UNDEFINED = Interval(value=None, ci_low=None, ci_high=None)


@dataclass(frozen=True)
class System:
    """One line of the comparison; the first one is the run itself."""

    name: str
    interval: Interval
    comparison: Comparison | None
    is_best: bool = False


@dataclass(frozen=True)
class ConfusionRow:
    """The cells of one gold label: (count, share of the gold label), one for each predicted label, unparsed last."""

    label: str
    cells: list[tuple[int, float]]


@dataclass(frozen=True)
class WrongRow:
    """`predicted` is None where the answer could not be parsed; `bars` are (label, probability)."""

    id: str
    source: str
    text: str
    gold: str
    predicted: str | None
    confidence: float | None
    bars: list[tuple[str, float]]
    n_hidden_bars: int
    raw_output: str | None


@dataclass(frozen=True)
class Facts:
    """What both files show. `status` is the gate's: passed, failed or none."""

    definition: TaskDefinition
    metrics: Metrics
    words: dict[str, Any]
    labels: dict[str, str]
    status: str
    verdict: str
    reasons: list[str]
    systems: list[System]
    confusion: list[ConfusionRow]
    has_unparsed: bool
    wrong: list[WrongRow]
    n_wrong: int
    has_probabilities: bool
    has_raw_output: bool

    @property
    def split(self) -> str:
        return self.words["split"].get(self.metrics.split, self.metrics.split)

    @property
    def other_metrics(self) -> dict[str, Interval]:
        return {name: value for name, value in self.metrics.metrics.items() if name != self.metrics.primary.name}

    @property
    def class_columns(self) -> list[str]:
        return list(next(iter(self.metrics.per_class.values()), {}))

    def name_of(self, label: str | None) -> str:
        """A label with what the model writes for it, or the word for an answer that could not be parsed."""
        return self.words["unparsed"] if label is None else self.labels.get(label, label)


def write(
    folder: Path,
    definition: TaskDefinition,
    metrics: Metrics,
    predictions: list[Prediction],
    rows: list[dict],
    baselines: dict[str, Metrics],
) -> None:
    """Writes report.html and report.md into `folder`. Rows and predictions stand in the same order."""
    facts = _facts(definition, metrics, predictions, rows, baselines)
    write_text(folder / "report.html", _to_html(facts))
    write_text(folder / "report.md", _to_markdown(facts))


def _facts(
    definition: TaskDefinition,
    metrics: Metrics,
    predictions: list[Prediction],
    rows: list[dict],
    baselines: dict[str, Metrics],
) -> Facts:
    if [row["id"] for row in rows] != [prediction.id for prediction in predictions]:
        raise ValueError("predictions and rows are not the same rows in the same order")
    words = REPORT[definition.language]
    labels = {
        label: label if answer == label else words["label_with_answer"].format(label=label, answer=answer)
        for label, answer in definition.task_type.label_set(definition.task).items()
    }
    pairs = [(p, row) for p, row in zip(predictions, rows, strict=True) if p.prediction != p.gold]
    pairs.sort(key=lambda pair: -(_confidence(pair[0]) or 0.0))
    confusion = _confusion(definition, predictions)
    return Facts(
        definition=definition,
        metrics=metrics,
        words=words,
        labels=labels,
        status="none" if metrics.gate is None else "passed" if metrics.gate.passed else "failed",
        verdict=_verdict(metrics, words),
        reasons=_reasons(definition, metrics),
        systems=_systems(metrics, baselines, words),
        confusion=confusion,
        has_unparsed=any(row.cells[-1][0] for row in confusion),
        wrong=[_wrong_row(definition, prediction, row) for prediction, row in pairs[:MAX_HTML_ROWS]],
        n_wrong=len(pairs),
        has_probabilities=any(prediction.probabilities for prediction, _ in pairs),
        has_raw_output=any(p.raw_output is not None and not p.probabilities for p, _ in pairs),
    )


def _reasons(definition: TaskDefinition, metrics: Metrics) -> list[str]:
    """Why the gate was not passed, in the task's language; metrics.json has the same in English."""
    if metrics.gate is None or metrics.gate.passed:
        return []
    return gate.shortfalls(metrics.gate.target, definition.evaluation.must_beat, metrics, definition.language)


def _verdict(metrics: Metrics, words: dict[str, Any]) -> str:
    """The one sentence that says how the run did."""
    primary = metrics.primary
    outcome = "neutral" if metrics.gate is None else "passed" if metrics.gate.passed else "failed"
    if primary.value is None:
        outcome = "undefined"
    return words[f"verdict_{outcome}"].format(
        split=words["split"].get(metrics.split, metrics.split),
        n=metrics.n_rows,
        metric=primary.name,
        value=_number(primary.value, words),
        low=_number(primary.ci_low, words),
        high=_number(primary.ci_high, words),
        gate=words["gate_none" if metrics.gate is None else "gate_passed" if metrics.gate.passed else "gate_failed"],
    )


def _systems(metrics: Metrics, baselines: dict[str, Metrics], words: dict[str, Any]) -> list[System]:
    """The run, its baselines, and whatever else it was compared with, all by the primary metric."""
    primary = metrics.primary.name
    comparisons = {item.against: item for item in metrics.comparisons if item.metric == primary}
    intervals: dict[str, Interval] = {"finetuned": metrics.primary}
    intervals |= {name: baseline.metrics.get(primary, _UNDEFINED) for name, baseline in baselines.items()}
    intervals |= {name: _UNDEFINED for name in comparisons if name not in intervals}
    values = [item.value for item in intervals.values() if item.value is not None]
    best = max(values) if len(values) > 1 else None
    return [
        System(words.get(name, name), item, comparisons.get(name), best is not None and item.value == best)
        for name, item in intervals.items()
    ]


def _confusion(definition: TaskDefinition, predictions: list[Prediction]) -> list[ConfusionRow]:
    module, options = definition.task_type, definition.task
    counts = module.count([p.gold for p in predictions], [p.prediction for p in predictions], options)
    matrix = module.confusion(counts.sum(0), options)
    rows = []
    for label, line in zip(module.label_set(options), matrix, strict=True):
        total = line.sum()
        rows.append(ConfusionRow(label, [(int(n), float(n / total) if total else 0.0) for n in line]))
    return rows


def _wrong_row(definition: TaskDefinition, prediction: Prediction, row: dict) -> WrongRow:
    module = definition.task_type
    probabilities = prediction.probabilities or {}
    bars = _bars(prediction, probabilities)
    return WrongRow(
        id=prediction.id,
        source=f"{row['source']['file']}:{row['source']['line']}",
        text=module.text_of(module.Record(**row["record"])),
        gold=prediction.gold,
        predicted=prediction.prediction,
        confidence=_confidence(prediction),
        bars=bars,
        n_hidden_bars=len(probabilities) - len(bars),
        raw_output=prediction.raw_output,
    )


def _bars(prediction: Prediction, probabilities: dict[str, float]) -> list[tuple[str, float]]:
    """All labels in the task's order, or of many the likeliest with gold and predicted, the likeliest first."""
    if len(probabilities) <= MAX_BARS:
        return list(probabilities.items())
    ranked = sorted(probabilities, key=lambda label: -probabilities[label])
    kept = {*ranked[: MAX_BARS - 2], prediction.gold, prediction.prediction}
    return [(label, probabilities[label]) for label in ranked if label in kept]


def _confidence(prediction: Prediction) -> float | None:
    return (prediction.probabilities or {}).get(prediction.prediction)


def _number(value: float | None, words: dict[str, Any]) -> str:
    return words["undefined"] if value is None else f"{value:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _with_interval(item: Interval, words: dict[str, Any]) -> str:
    if item.value is None or item.ci_low is None or item.ci_high is None:
        return _number(item.value, words)
    return f"{item.value:.3f} [{item.ci_low:.3f}, {item.ci_high:.3f}]"


def _difference(item: Comparison) -> str:
    return f"{_signed(item.delta)} [{_signed(item.ci_low)}, {_signed(item.ci_high)}]"


def _to_html(facts: Facts) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: _number(value, facts.words)
    environment.filters["with_interval"] = lambda item: _with_interval(item, facts.words)
    environment.filters["difference"] = _difference
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(facts=facts, metrics=facts.metrics, words=facts.words) + "\n"


def _to_markdown(facts: Facts) -> str:
    words, metrics = facts.words, facts.metrics
    lines = [f"# {words['title']}: {facts.definition.name} · {literal(metrics.run)} · {facts.split}", ""]
    lines += [f"**{literal(facts.verdict)}**", "", _counts_line(facts), ""]
    if facts.reasons:
        lines += [f"{words['reasons']}:", "", *(f"- {literal(reason)}" for reason in facts.reasons), ""]
    if metrics.warnings:
        lines += [f"## {words['warnings']}", "", *(f"- {literal(warning)}" for warning in metrics.warnings), ""]
    lines += [f"## {words['comparison']}", "", _comparison_table(facts), "", words["note"], ""]
    if facts.other_metrics:
        rows = [(name, _with_interval(value, words)) for name, value in facts.other_metrics.items()]
        lines += [f"## {words['other_metrics']}", "", table((words["metric"], words["value"]), rows), ""]
    lines += [f"## {words['per_class']}", "", _class_table(facts), ""]
    lines += [f"## {words['confusion']}", "", _confusion_table(facts), ""]
    lines += [*_wrong_table(facts), words["origin"], ""]
    lines += [f"rows_sha256 `{metrics.rows_sha256}`, identity `{metrics.identity}`"]
    return "\n".join(lines) + "\n"


def _counts_line(facts: Facts) -> str:
    words, metrics = facts.words, facts.metrics
    target = metrics.gate.target if metrics.gate else None
    counts = [] if target is None else [f"{words['target']} {_number(target, words)}"]
    counts += [f"{words['support']} {metrics.n_rows}", f"{words['wrong']} {facts.n_wrong}"]
    return " · ".join([*counts, f"{words['decoding']} {metrics.decoding}"])


def _comparison_table(facts: Facts) -> str:
    words, metrics, rows = facts.words, facts.metrics, []
    for system in facts.systems:
        name = f"{system.name} ★ {words['best']}" if system.is_best else system.name
        item = system.comparison
        compared = (_difference(item), _number(item.p_value, words), words[item.verdict]) if item else ("", "", "")
        rows.append((name, _with_interval(system.interval, words), *compared))
    value = words["metric_ci"].format(metric=metrics.primary.name)
    return table((words["system"], value, words["delta"], words["p_value"], words["verdict"]), rows)


def _class_table(facts: Facts) -> str:
    words, columns = facts.words, facts.class_columns
    rows = [
        (facts.name_of(label), *(_class_value(column, values[column], words) for column in columns))
        for label, values in facts.metrics.per_class.items()
    ]
    return table((words["label"], *(words.get(column, column) for column in columns)), rows)


def _class_value(column: str, value: float | None, words: dict[str, Any]) -> str:
    return f"{value:.0f}" if column == "support" and value is not None else _number(value, words)


def _confusion_table(facts: Facts) -> str:
    words = facts.words
    unparsed = [words["unparsed"]] if facts.has_unparsed else []
    width = len(facts.labels) + len(unparsed)
    rows = [(facts.name_of(row.label), *(count for count, _ in row.cells[:width])) for row in facts.confusion]
    return table((f"{words['gold']} ↓ {words['predicted']} →", *facts.labels.values(), *unparsed), rows)


def _wrong_table(facts: Facts) -> list[str]:
    words = facts.words
    shown = facts.wrong[:MAX_MARKDOWN_ROWS]
    lines = [f"## {words['errors'] if facts.has_probabilities else words['errors_unranked']}", ""]
    if not shown:
        return [*lines, words["no_errors"], ""]
    if len(shown) < facts.n_wrong:
        lines += [words["more_errors"].format(shown=len(shown), total=facts.n_wrong), ""]
    header = [words["id"], words["text"], words["gold"], words["predicted"]]
    header += [words["probability"]] if facts.has_probabilities else []
    header += [words["raw_output"]] if facts.has_raw_output else []
    rows = []
    for row in shown:
        labels = [facts.name_of(row.gold), facts.name_of(row.predicted)]
        cells = [f"{row.id} ({row.source})", _shortened(row.text), *labels]
        cells += ["" if row.confidence is None else f"{row.confidence:.3f}"] if facts.has_probabilities else []
        cells += [_shortened(row.raw_output or "")] if facts.has_raw_output else []
        rows.append(cells)
    return [*lines, table(header, rows), ""]


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_MARKDOWN_TEXT else text[: MAX_MARKDOWN_TEXT - 1] + "…"
