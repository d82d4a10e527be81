"""Renders docs/data_report.md from a checked data set, in the task's language, and the same numbers as JSON."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from tasklib.data import conversion, dataset, expected_interval
from tasklib.data.dataset import Dataset
from tasklib.markdown import table
from tasklib.paths import TaskPaths
from tasklib.schema import TaskDefinition
from tasklib.summary import Problem
from tasklib.texts import CLASSES, DATA_REPORT

ASSUMED_LEVEL = 0.8  # of the primary metric, where the definition names no target
WANTED_HALF_WIDTH = 0.05  # "F1 0.80 ± 0.05": what most people mean by knowing a score


Lengths = dict[str, dict[str, int]]  # what was measured -> minimum, median, p95, maximum


def answer_lengths(definition: TaskDefinition, records: Iterable[Any]) -> Lengths:
    """How long open answers are, in characters, and how many items lists of them have; empty for labels."""
    module, found = definition.task_type, defaultdict(list)
    if module.label_set(definition.task) is not None:
        return {}
    for record in records:
        if hasattr(module, "candidates"):
            roles = {value: role for role, value in record.model_dump().items() if isinstance(value, str)}
            for text in module.candidates(record):
                found[roles.get(text, "answer")].append(len(text))
            continue
        found["answer"].append(len(module.answer(record, definition.task)))
        if isinstance(gold := module.gold(record), list):
            found["items"].append(len(gold))
    if set(found["items"]) <= {1}:
        del found["items"]
    return {name: _spread(values) for name, values in found.items()}


def _spread(values: Any) -> dict[str, int]:
    numbers = np.percentile(values, [0, 50, 95, 100]).astype(int).tolist()
    return dict(zip(("minimum", "median", "p95", "maximum"), numbers, strict=True))


def render(definition: TaskDefinition, data: Dataset, lengths: Lengths | None = None) -> str:
    """Markdown with files, counts, label shares, lengths of texts and of open answers, the interval to expect and every
    kind of problem."""
    words = DATA_REPORT[definition.language]
    found = data.findings
    n_errors, n_warnings = (sum(found.totals[code] for code in _codes(kept)) for kept in (found.errors, found.warnings))
    lines = [f"# {words['title']}: {definition.name}", "", words["intro"], ""]
    totals = (data.n_rows, len(data.index), n_errors, n_warnings)
    lines += [table((words["rows"], words["readable"], words["errors"], words["warnings"]), [totals]), ""]
    lines += _files(data, words)
    if len(data.index):
        lines += _labels(definition, data, words) + _lengths(data, lengths or {}, words)
        lines += _interval(definition, data, words)
    lines += [f"## {words['problems']}", ""]
    problems = found.errors + found.warnings
    return "\n".join(lines + (_problem_tables(problems, found.totals, words) if problems else [words["none"], ""]))


def as_json(
    paths: TaskPaths, definition: TaskDefinition, data: Dataset, lengths: Lengths | None = None
) -> dict[str, Any]:
    """What docs/data_report.json holds: the numbers that other documents quote."""
    places = [place for place in dataset.PLACES if (data.index.split == dataset.PLACES.index(place)).any()]
    scripts = {name or "none": n for name, n in data.script_counts().items() if n}
    raw = [name for name in definition.data.raw_paths if (paths.root / name).is_file()]
    return {
        "schema_version": 1,
        "counts": {"rows": data.n_rows, "readable": len(data.index), "decided": data.n_decided},
        "totals": dict(sorted(data.findings.totals.items())),
        "errors": sorted(_codes(data.findings.errors)),
        "files": [vars(report) for report in data.files],
        "splits": {place: dict(data.label_counts((place,))) for place in places},
        "script": scripts,
        "answer_lengths": lengths or {},
        "personal_data": dict(data.personal_data),
        "expected_interval": interval(definition, data),
        "definition_sha256": conversion.definition_sha256(definition),
        "raw_sha256": {name: conversion.sha256_of(paths.root / name) for name in raw},
    }


def interval(definition: TaskDefinition, data: Dataset) -> dict[str, float | int]:
    """How wide the 95 % interval of the primary metric will be on the test split, and how many rows ±0.05 takes.
    Empty where it cannot be said: no test split, too few classes, or a task type without a closed label set."""
    n_rows = n_test_rows(definition, data)
    counts = data.label_counts()
    if n_rows < 2 or len(counts) < 2:
        return {}
    level = definition.evaluation.target or ASSUMED_LEVEL
    arguments = (definition.task_type, definition.task, definition.primary_metric, counts)
    half_width = expected_interval.expected_width(*arguments, n_rows=n_rows, level=level)
    if half_width is None:
        return {}
    needed = expected_interval.rows_needed(*arguments, level=level, half_width=WANTED_HALF_WIDTH)
    return {
        "test_rows": n_rows,
        "assumed_level": level,
        "expected_half_width": round(half_width, 4),
        "test_rows_for_half_width_0.05": needed,
    }


def n_test_rows(definition: TaskDefinition, data: Dataset) -> int:
    """The rows that the test split has or will have."""
    split = data.index.split
    if "test" in definition.data.files:
        return int((split == dataset.PLACES.index("test")).sum())
    share = dataset.drawn_shares(definition).get("test", 0)
    pool = sum(np.count_nonzero(split == dataset.PLACES.index(place)) for place in ("all", "train"))
    return round(float(share * pool))


def _codes(problems: list[Problem]) -> set[str]:
    return {problem.code for problem in problems}


def _files(data: Dataset, words: dict[str, str]) -> list[str]:
    header = (words["file"], words["split"], words["read_as"], words["encoding"], words["rows"], words["readable"])
    names = {"\t": "TAB", ",": ",", ";": ";", "|": "|"}
    rows = [
        (
            report.file,
            report.split,
            f"{report.kind} ({names.get(report.delimiter, report.delimiter)})" if report.delimiter else report.kind,
            report.encoding,
            report.n_rows,
            report.n_readable,
        )
        for report in data.files
    ]
    return [f"## {words['files']}", "", table(header, rows), ""]


def _labels(definition: TaskDefinition, data: Dataset, words: dict[str, str]) -> list[str]:
    counts, n_rows = data.label_counts(), len(data.index)
    if not counts:
        return []
    answer_of = definition.task_type.label_set(definition.task)
    named = CLASSES[definition.language].get(definition.task.type, {})
    rows = [(label, n, f"{n / n_rows:.1%}") for label, n in counts.most_common()]
    header = (named.get("label", words["label"]), words["count"], words["share"])
    if answer_of:
        rows = [(label, answer_of.get(label, ""), *rest) for label, *rest in rows]
        header = (header[0], words["answer"], *header[1:])
    return [f"## {named.get('label', words['labels'])}", "", table(header, rows), ""]


def _lengths(data: Dataset, lengths: Lengths, words: dict[str, Any]) -> list[str]:
    header = (words["minimum"], words["median"], words["p95"], words["maximum"])
    lines = [f"## {words['length']}", "", table(header, [tuple(_spread(data.index.length).values())]), ""]
    if lengths:
        rows = [(words["measured"].get(name, name), *spread.values()) for name, spread in lengths.items()]
        lines += [f"## {words['answer_lengths']}", "", table((words["measure"], *header), rows), ""]
    return lines


def _interval(definition: TaskDefinition, data: Dataset, words: dict[str, str]) -> list[str]:
    found = interval(definition, data)
    if not found:
        return []
    text = words["interval_text"].format(
        metric=definition.primary_metric,
        n=found["test_rows"],
        level=found["assumed_level"],
        half=found["expected_half_width"],
        wanted=WANTED_HALF_WIDTH,
        needed=found["test_rows_for_half_width_0.05"],
    )
    return [f"## {words['interval']}", "", text, ""]


def _problem_tables(problems: list[Problem], totals: Counter[str], words: dict[str, str]) -> list[str]:
    counts = [(code, n) for code, n in totals.most_common() if n]
    lines = [table((words["code"], words["count"]), counts), ""]
    rows = []
    for problem in problems:
        place = (problem.file or "") + (f":{problem.line}" if problem.line else "")
        rows.append((problem.code, place, problem.field or "", problem.message, problem.hint or ""))
    lines += [table((words["code"], words["place"], "", words["message"], words["hint"]), rows), ""]
    if len(problems) < sum(totals.values()):
        lines += [words["more"].format(n=sum(totals.values()) - len(problems)), ""]
    return lines
