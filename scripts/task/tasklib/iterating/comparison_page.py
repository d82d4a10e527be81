"""benchmarks/comparisons/: one comparison of runs as JSON and as one page; both show the same `Compared`.

Data reaches the page only as escaped text (autoescape); its script holds no data, and nothing is loaded from anywhere.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklib.files import write_text
from tasklib.iterating.comparison import Change, ClassChange, Compared, RowChange, SliceChange, Versus
from tasklib.iterating.runs_to_compare import BASELINES
from tasklib.paths import TaskPaths
from tasklib.schema import TaskDefinition
from tasklib.scoring import report, shown
from tasklib.scoring.metrics import Interval
from tasklib.texts import CLASSES, COMPARISON, REPORT

MAX_ROWS = 1000  # on the page, over all runs and both kinds; JSON has all of them
MAX_STEM_BYTES = 120
_TEMPLATE = Path(__file__).with_name("comparison_template.html")
_STEPS = (0.005, 0.01, 0.02, 0.025, 0.05, 0.1, 0.2, 0.25, 0.5)  # between the five ticks of an axis


@dataclass(frozen=True)
class Files:
    page: Path
    json: Path


@dataclass(frozen=True)
class RunPart:
    """What the page shows of one run: `classes` with the largest change first, slices by what they are parts of."""

    versus: Versus
    classes: list[ClassChange]
    columns: list[str]
    slices: dict[str, list[SliceChange]]
    rows: list[RowChange]


def files(paths: TaskPaths, found: Compared, *, all_runs: bool) -> Files:
    """`<split>` for all runs of the task; else `<split>.<run>-vs-<reference>`, runs in the order of their names. A name
    that is too long for a file ends in its hash."""
    stem = found.split
    if not all_runs:
        stem += "." + "-vs-".join([*sorted(item.run for item in found.versus), found.reference])
    if len(stem.encode()) > MAX_STEM_BYTES:
        digest = hashlib.sha256(stem.encode()).hexdigest()[:8]
        stem = stem.encode()[:MAX_STEM_BYTES].decode(errors="ignore") + "." + digest
    place = paths.comparison(stem)
    return Files(place.with_name(stem + ".html"), place.with_name(stem + ".json"))


def write(target: Files, definition: TaskDefinition, found: Compared) -> bool:
    """Writes both files; False, and nothing is touched, where they hold exactly this already."""
    texts = {
        target.json: json.dumps(to_dict(found), ensure_ascii=False, allow_nan=False, indent=2) + "\n",
        target.page: to_html(definition, found, target.json.name),
    }
    if all(path.is_file() and path.read_text(encoding="utf-8") == text for path, text in texts.items()):
        return False
    for path, text in texts.items():
        write_text(path, text)
    return True


def to_dict(found: Compared) -> dict[str, Any]:
    """The comparison as plain data; `notes` become the warnings that the summary shows."""
    from pydantic import TypeAdapter

    plain = TypeAdapter(Compared).dump_python(found, mode="json")
    notes = [note.to_problem() for note in found.notes]
    plain.pop("notes")
    return {"schema_version": 1, **plain, "warnings": [{"code": n.code, "message": n.message} for n in notes]}


def to_html(definition: TaskDefinition, found: Compared, json_name: str) -> str:
    """The page, in the language of the task."""
    is_closed = definition.task_type.label_set(definition.task) is not None
    words = COMPARISON[definition.language]
    words = words if is_closed else words | words["open"]
    n_shown = max(1, MAX_ROWS // (2 * len(found.versus)))
    parts = [_run_part(item, n_shown) for item in found.versus]
    environment = report.environment(words)
    environment.filters["name"] = lambda value, text=None: _answer_name(definition, value, text)
    environment.filters["system"] = lambda name: _system_name(definition, name)
    environment.filters["class_spans"] = lambda part: _class_axis(part.classes)
    environment.filters["slice_spans"] = lambda part: change_axis([item.change for item in part.versus.slices])
    environment.filters["share"] = lambda value, axis: 100 * min(max((value - axis[0]) / (axis[1] - axis[0]), 0), 1)
    values = {standing.name: standing.metrics[found.metric] for standing in found.ranking}
    return (
        environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
            words=words,
            class_words={"class_changes": words["per_class"], "label": words["label"]}
            | CLASSES[definition.language].get(definition.task.type, {}),
            is_closed=is_closed,
            definition=definition,
            found=found,
            parts=parts,
            against={item.run: item for item in found.versus},
            sentence=_sentence(found, words),
            split=words["split"][found.split],
            axis=value_axis(list(values.values())),
            reference_value=values[found.reference].value,
            n_shown=n_shown if any(len(part.rows) < len(part.versus.rows) for part in parts) else None,
            has_seeds=any(standing.n_seeds > 1 for standing in found.ranking),
            notes=[words["notes"][note.code].format(**note.values) for note in found.notes],
            json_name=json_name,
        )
        + "\n"
    )


def value_axis(items: Sequence[Interval]) -> tuple[float, float]:
    """Where the axis starts and ends, around all values and intervals: four steps of a round number. It ends at 1
    where it can."""
    numbers = [n for item in items for n in (item.value, item.ci_low, item.ci_high) if n is not None] or [0.0, 1.0]
    for step in _STEPS:
        low = math.floor(min(numbers) / step) * step
        if low + 4 * step >= max(numbers):
            low = 1 - 4 * step if low + 4 * step > 1 >= max(numbers) else low
            return low, low + 4 * step
    return -1.0, 1.0


def change_axis(changes: Sequence[Change]) -> tuple[float, float]:
    """An axis with 0 in its middle that holds every difference and its interval."""
    ends = [abs(n) for c in changes for n in (c.delta, c.ci_low, c.ci_high) if n is not None]
    return -max(ends, default=1.0) or -1.0, max(ends, default=1.0) or 1.0


def _class_axis(classes: Sequence[ClassChange]) -> tuple[float, float]:
    return change_axis([change for line in classes for change in line.changes.values()])


def _run_part(versus: Versus, n_shown: int) -> RunPart:
    columns = list(dict.fromkeys(name for line in versus.per_class for name in line.changes))
    by = "f1" if "f1" in columns else columns[0] if columns else ""
    grouped: dict[str, list[SliceChange]] = {}
    for item in versus.slices:
        grouped.setdefault(item.by, []).append(item)
    kinds = [[row for row in versus.rows if row.kind == kind][:n_shown] for kind in ("broken", "fixed")]
    return RunPart(
        versus=versus,
        classes=sorted(versus.per_class, key=lambda line: -abs((line.changes[by].delta if by else 0) or 0)),
        columns=columns,
        slices=grouped,
        rows=[row for rows in kinds for row in rows],
    )


def _sentence(found: Compared, words: dict[str, Any]) -> str:
    """What came out, in one sentence: of one run its verdict, of several how many there are of each."""
    verdicts = [item.comparison.verdict for item in found.versus]
    counted = [
        words["outcomes"][kind].format(n=verdicts.count(kind))
        for kind in ("better", "not_distinguishable", "worse")
        if kind in verdicts
    ]
    outcome = words["comma"].join(counted)
    if len(found.versus) == 1:
        outcome = f"{found.versus[0].run} {words[verdicts[0]]}"
    return words["sentence"].format(
        split=words["split"][found.split],
        n=found.n_rows,
        metric=found.metric,
        reference=found.reference,
        outcome=outcome,
    )


def _answer_name(definition: TaskDefinition, value: Any, text: str | None) -> str:
    """A label with what the model writes for it; an open answer in words, its spans cut from `text`; the word for
    none."""
    words, labels = COMPARISON[definition.language], definition.task_type.label_set(definition.task)
    if value is None:
        return words["unparsed"]
    if labels is None or not isinstance(value, str):
        return shown.answer(value, text or "", words["nothing"])
    answer = labels.get(value, value)
    return value if answer == value else words["label_with_answer"].format(label=value, answer=answer)


def _system_name(definition: TaskDefinition, name: str) -> str:
    """A run under its own name, a baseline under that of the reports."""
    if not name.startswith(BASELINES + "/"):
        return name
    kind = name.removeprefix(BASELINES + "/").split("-")[0]
    known = REPORT[definition.language]["systems"].get(kind)
    return name if known is None else known.format(n=definition.evaluation.n_few_shot, run="")
