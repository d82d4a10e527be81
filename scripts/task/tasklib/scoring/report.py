"""report.html and report.md of one evaluated run; both show the same `Facts`.

Data reaches the page only as escaped text (autoescape); its script holds no data, and nothing is loaded from anywhere.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasklib.files import write_text
from tasklib.markdown import literal, table
from tasklib.schema import TaskDefinition
from tasklib.scoring import report_facts
from tasklib.scoring.metrics import Comparison, Interval, Metrics, Prediction
from tasklib.scoring.report_facts import Facts, WrongRow, number

MAX_MARKDOWN_ROWS = 20
MAX_MARKDOWN_LABELS = 20
MAX_MARKDOWN_TEXT = 200  # characters

_FOLDER = Path(__file__).parent  # of the templates, and of the style and the macros that pages share
_P_VALUES = ("p_value", "p_value_holm", "mcnemar_p_value")


def write(
    folder: Path,
    definition: TaskDefinition,
    metrics: Metrics,
    predictions: list[Prediction],
    rows: list[dict],
    baselines: dict[str, Metrics],
) -> None:
    """Writes report.html and report.md into `folder`. Rows and predictions stand in the same order.

    With several seeds, `predictions` are those of the run that `metrics` names.
    """
    facts = report_facts.gather(definition, metrics, predictions, rows, baselines)
    write_text(folder / "report.html", _to_html(facts))
    write_text(folder / "report.md", _to_markdown(facts))


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _bounds(item: Interval) -> str:
    return "" if item.ci_low is None or item.ci_high is None else f"[{item.ci_low:.3f}, {item.ci_high:.3f}]"


def _with_interval(item: Interval, words: dict[str, Any]) -> str:
    return f"{number(item.value, words)} {_bounds(item)}".strip()


def _difference_bounds(item: Comparison) -> str:
    return "" if item.ci_low is None or item.ci_high is None else f"[{_signed(item.ci_low)}, {_signed(item.ci_high)}]"


def _difference(item: Comparison, words: dict[str, Any]) -> str:
    delta = words["undefined"] if item.delta is None else _signed(item.delta)
    return f"{delta} {_difference_bounds(item)}".strip()


def _p_value(value: float | None) -> str:
    return "" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _axis(items: list[Interval]) -> tuple[float, float]:
    """Where the axis of a plot starts and ends: 0 to 1, wider only for what leaves it (MCC -1 to 1, Brier 0 to 2, a
    margin in nats whatever it takes)."""
    numbers = [n for item in items for n in (item.value, item.ci_low, item.ci_high) if n is not None]
    low, high = math.floor(min(numbers, default=0)), math.ceil(max(numbers, default=1))
    return float(min(low, 0)), float(max(high, 1))


def _percent(value: float, axis: tuple[float, float]) -> str:
    """A place on the axis as a CSS length, kept inside."""
    share = (value - axis[0]) / (axis[1] - axis[0])
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def environment(words: dict[str, Any]) -> Environment:
    """What pages are rendered with: everything escaped, numbers as reports show them, `page_style.css` and
    `page_macros.html` at hand. `words` has at least `undefined`."""
    found = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["number"] = lambda value: number(value, words)
    found.filters["signed"] = lambda value: words["undefined"] if value is None else _signed(value)
    found.filters |= {
        "bounds": _bounds,
        "difference_bounds": _difference_bounds,
        "p": _p_value,
        "percent": _percent,
        "axis": _axis,
    }
    return found


def _to_html(facts: Facts) -> str:
    template = environment(facts.words).get_template("report_template.html")
    lower_is_better, p_values = report_facts.LOWER_IS_BETTER, _P_VALUES
    shown = {"facts": facts, "metrics": facts.metrics, "words": facts.words}
    return template.render(**shown, lower_is_better=lower_is_better, p_values=p_values) + "\n"


def _to_markdown(facts: Facts) -> str:
    words, metrics = facts.words, facts.metrics
    lines = [f"# {words['title']}: {facts.definition.name} · {literal(metrics.run)} · {facts.split}", ""]
    lines += [f"**{literal(facts.verdict)}**", "", _counts_line(facts), ""]
    if facts.reasons:
        lines += [f"{words['reasons']}:", "", *(f"- {literal(reason)}" for reason in facts.reasons), ""]
    if facts.warnings:
        lines += [f"## {words['warnings']}", "", *(f"- {literal(warning)}" for warning in facts.warnings), ""]
    lines += [f"## {words['comparison']}", "", _comparison_table(facts), "", words["note"], ""]
    if facts.other_metrics:
        rows = [
            (_metric_name(name, words), _with_interval(value, words)) for name, value in facts.other_metrics.items()
        ]
        lines += [f"## {words['other_metrics']}", "", table((words["metric"], words["value"]), rows), ""]
    lines += [*_seeds(facts), *_calibration(facts)]
    if facts.classes:
        lines += [f"## {facts.class_words['per_class']}", "", _class_table(facts), ""]
    lines += _slices(facts)
    if facts.confusion:
        lines += [f"## {words['confusion']}", "", _confusion_table(facts), ""]
    lines += [*_wrong_table(facts), words["origin"], ""]
    lines += [f"rows_sha256 `{metrics.rows_sha256}`, identity `{metrics.identity}`"]
    return "\n".join(lines) + "\n"


def _counts_line(facts: Facts) -> str:
    words, metrics = facts.words, facts.metrics
    target = metrics.gate.target if metrics.gate else None
    counts = [] if target is None else [f"{words['target']} {number(target, words)}"]
    wrong = words["wrong" if facts.is_closed else "wrong_open"]
    counts += [f"{words['support']} {metrics.n_rows}", f"{wrong} {facts.n_wrong}"]
    return " · ".join([*counts, f"{words['decoding']} {metrics.decoding}"])


def _comparison_table(facts: Facts) -> str:
    words, metrics, rows = facts.words, facts.metrics, []
    for system in facts.systems:
        name = f"{system.name} ★ {words['best']}" if system.is_best else system.name
        item = system.comparison
        compared = ("",) * 5
        if item:
            compared = (_difference(item, words), *(_p_value(getattr(item, p)) for p in _P_VALUES), words[item.verdict])
        rows.append((name, _with_interval(system.interval, words), *compared))
    value = words["metric_ci"].format(metric=metrics.primary.name)
    return table((words["system"], value, words["delta"], *(words[p] for p in _P_VALUES), words["verdict"]), rows)


def _metric_name(name: str, words: dict[str, Any]) -> str:
    return f"{name} ({words['lower_is_better']})" if name in report_facts.LOWER_IS_BETTER else name


def _seeds(facts: Facts) -> list[str]:
    words, seeds = facts.words, facts.metrics.seeds
    if seeds is None:
        return []
    note = words["seeds_note"].format(n=len(seeds.seeds), runs=facts.seed_runs)
    rows = [
        (_metric_name(name, words), number(mean, words), number(seeds.sd.get(name), words))
        for name, mean in seeds.mean.items()
    ]
    spread = table((words["metric"], words["mean"], words["sd"]), rows)
    return [f"## {words['seeds']}", "", literal(f"{note} {facts.one_seed or ''}"), "", spread, ""]


def _calibration(facts: Facts) -> list[str]:
    words = facts.words
    if not facts.bins:
        return []
    header = (words["confidence_range"], words["support"], words["mean_confidence"], words["accuracy"])
    rows = [
        (f"{b.low:.2f}–{b.high:.2f}", b.n_rows, number(b.confidence, words), number(b.accuracy, words))
        for b in facts.bins
    ]
    ece = [words["ece_sentence"].format(ece=_with_interval(facts.ece, words)), ""]
    return [f"## {words['calibration']}", "", *(ece if facts.ece.value is not None else []), table(header, rows), ""]


def _class_table(facts: Facts) -> str:
    words, columns = facts.class_words, facts.class_columns
    rows = [
        (
            facts.name_of(line.label),
            *(_with_interval(line.values[column], words) for column in columns),
            "" if line.support is None else f"{line.support:.0f}",
        )
        for line in facts.classes
    ]
    return table((words["label"], *(words.get(column, column) for column in columns), words["support"]), rows)


def _slices(facts: Facts) -> list[str]:
    words = facts.words
    if not facts.slices:
        return []
    lines = [f"## {words['slices']}", "", words["slices_note"], ""]
    for group in facts.slices:
        rows = [
            (value, n, "—" if item.value is None else _with_interval(item, words)) for value, n, item in group.lines
        ]
        lines += [table((group.name, words["support"], words["metric_ci"].format(metric=group.metric)), rows), ""]
    return lines


def _confusion_table(facts: Facts) -> str:
    """The matrix; of many labels only the most frequent confusions, because nobody reads 50 columns of Markdown."""
    words = facts.words
    if len(facts.labels) > MAX_MARKDOWN_LABELS:
        pairs = [(facts.name_of(gold), facts.name_of(predicted), count) for gold, predicted, count in facts.pairs]
        return f"{words['pairs']}:\n\n{table((words['gold'], words['predicted'], words['support']), pairs)}"
    unparsed = [words["unparsed"]] if facts.has_unparsed else []
    width = len(facts.labels) + len(unparsed)
    rows = [(facts.name_of(row.label), *(count for count, _ in row.cells[:width])) for row in facts.confusion]
    return table((f"{words['gold']} ↓ {words['predicted']} →", *facts.labels.values(), *unparsed), rows)


def _wrong_table(facts: Facts) -> list[str]:
    words = facts.words
    shown = facts.wrong[:MAX_MARKDOWN_ROWS]
    lines = [f"## {facts.errors_title}", ""]
    if not shown:
        return [*lines, words["no_errors"], ""]
    if len(shown) < facts.n_wrong:
        lines += [words["more_errors"].format(shown=len(shown), total=facts.n_wrong), ""]
    header = [words["id"], words["text"]]
    header += [words["sides"]] if facts.has_sides else [words["gold"], words["predicted"]]
    header += [words["row_score"].format(metric=facts.metrics.primary.name)] if not facts.is_closed else []
    header += [words["probability"]] if facts.has_probabilities else []
    header += [words["raw_output"]] if facts.has_raw_output else []
    rows = []
    for row in shown:
        asked = [row.text, *(f"{role}: {value}" for role, value in row.context)]
        cells = [f"{row.id} ({row.source})", " · ".join(map(_shortened, asked)), *_answers(facts, row)]
        cells += [number(row.score, words)] if not facts.is_closed else []
        cells += ["" if row.confidence is None else f"{row.confidence:.3f}"] if facts.has_probabilities else []
        cells += [_shortened(row.raw_output or "")] if facts.has_raw_output else []
        rows.append(cells)
    return [*lines, table(header, rows), ""]


def _answers(facts: Facts, row: WrongRow) -> list[str]:
    """Gold and predicted, or the answers that were compared in one cell."""
    if not facts.has_sides:
        return [_shortened(row.gold), _shortened(row.predicted)]
    return [" · ".join(f"{role} {number(value, facts.words)}: {_shortened(text)}" for role, text, value in row.sides)]


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_MARKDOWN_TEXT else text[: MAX_MARKDOWN_TEXT - 1] + "…"
