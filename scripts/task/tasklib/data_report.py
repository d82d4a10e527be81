"""Renders docs/data_report.md from a checked data set, in the task's language."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tasklib.dataset import Dataset
from tasklib.markdown import table
from tasklib.schema import TaskDefinition
from tasklib.summary import Problem, first_of_each_code
from tasklib.texts import DATA_REPORT


def render(definition: TaskDefinition, data: Dataset) -> str:
    """Markdown with counts, label shares, text lengths and every kind of problem (20 of each)."""
    words, module = DATA_REPORT[definition.language], definition.task_type
    lines = [f"# {words['title']}: {definition.name}", "", words["intro"], ""]
    totals = (data.n_rows, len(data.examples), len(data.errors), len(data.warnings))
    lines += [table((words["rows"], words["readable"], words["errors"], words["warnings"]), [totals]), ""]
    counts = data.label_counts(module)
    answer_of = module.label_set(definition.task) or {}
    if data.examples:
        rows = [
            (label, answer_of.get(label, ""), n, f"{n / len(data.examples):.1%}") for label, n in counts.most_common()
        ]
        lines += [f"## {words['labels']}", ""]
        lines += [table((words["label"], words["answer"], words["count"], words["share"]), rows), ""]
        lengths = np.array([len(module.text_of(example.record)) for example in data.examples])
        low, middle, high, top = np.percentile(lengths, [0, 50, 95, 100]).astype(int)
        lines += [f"## {words['length']}", ""]
        lines += [
            table((words["minimum"], words["median"], words["p95"], words["maximum"]), [(low, middle, high, top)]),
            "",
        ]
    lines += [f"## {words['problems']}", ""]
    problems = data.errors + data.warnings
    return "\n".join(lines + (_problem_tables(problems, words) if problems else [words["none"], ""]))


def _problem_tables(problems: list[Problem], words: dict[str, str]) -> list[str]:
    totals = Counter(problem.code for problem in problems)
    lines = [table((words["code"], words["count"]), totals.most_common()), ""]
    kept = first_of_each_code(problems)
    rows = []
    for problem in kept:
        place = (problem.file or "") + (f":{problem.line}" if problem.line else "")
        rows.append((problem.code, place, problem.field or "", problem.message, problem.hint or ""))
    lines += [table((words["code"], words["place"], "", words["message"], words["hint"]), rows), ""]
    if len(kept) < len(problems):
        lines += [words["more"].format(n=len(problems) - len(kept)), ""]
    return lines
