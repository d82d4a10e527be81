"""SQuAD files: articles of paragraphs with questions -> one row for each question.

{"data": [{"title": …, "paragraphs": [{"context": …, "qas": [{"id": …, "question": …, "answers": […]}]}]}]}
https://rajpurkar.github.io/SQuAD-explorer/; DRCD and CMRC 2018 are published so too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasklib.reading import encodings, json_rows
from tasklib.reading.records import Row
from tasklib.summary import Problem

COLUMNS = ("title", "context", "question", "answers", "id")
_SCALAR = r'(?:"(?:[^"\\]|\\.)*"|[-+.\w]+)'
_HEAD = re.compile(
    rf'\s*\{{\s*(?:"(?:[^"\\]|\\.)*"\s*:\s*{_SCALAR}\s*,\s*)*"data"\s*:\s*\[\s*\{{.*?"paragraphs"\s*:\s*\[', re.DOTALL
)
_QUESTION = re.compile(r'(?<!\\)"question"\s*:|(\r\n|\r|\n)')  # a quote inside a string has a backslash before it


def is_squad(head: str) -> bool:
    """Whether a file that begins so is certainly one: an object whose `data` is a list of objects with `paragraphs`."""
    return _HEAD.match(head.lstrip("\ufeff")) is not None


def read_squad(path: Path, shown: str, encoding: str, errors: str) -> Iterator[Row | Problem]:
    """One row for each question: COLUMNS, with `is_impossible` where the file has it. `line` is where the question
    stands. The file is held in memory as a whole."""
    with encodings.open_text(path, encoding, errors) as stream:
        text = stream.read()
    found = json_rows.whole_value(text, shown)
    if isinstance(found, Problem):
        yield found
        return
    has_bad_bytes = not text.isascii() and encodings.bad_byte(text, encoding) is not None
    items = list(_questions(found, shown))
    lines = _lines_of_questions(text, sum(isinstance(item, dict) for item in items))
    line = 1
    for item in items:
        if isinstance(item, Problem):
            yield item
            continue
        line = next(lines)
        if problem := json_rows.half_pair(item, shown, line):
            if has_bad_bytes:
                told, whole_file = _bad_byte(item, path, shown, encoding, line)
                yield told or problem
                if whole_file:
                    return
                continue
            yield problem
            continue
        yield Row(item, shown, line)


def _questions(found: Any, shown: str) -> Iterator[dict[str, Any] | Problem]:
    """The rows, and a problem for whatever is no article, paragraph or question."""
    for article, at in _members(found, "data", "the file", shown):
        if isinstance(article, Problem):
            yield article
            continue
        for paragraph, place in _members(article, "paragraphs", at, shown):
            if isinstance(paragraph, Problem):
                yield paragraph
                continue
            for question, inner in _members(paragraph, "qas", place, shown):
                if isinstance(question, Problem):
                    yield question
                elif "question" not in question:
                    yield _malformed(f"{inner} has no 'question'", shown)
                else:
                    yield _values(article, paragraph, question)


def _members(holder: Any, key: str, where: str, shown: str) -> Iterator[tuple[Any, str]]:
    """(object, its place) of a list of objects; a Problem in its place where it is none."""
    values = holder.get(key) if isinstance(holder, dict) else None
    prefix = "" if where == "the file" else f"{where}."
    if not isinstance(values, list):
        kind = "no list" if isinstance(holder, dict) and key in holder else "missing"
        yield _malformed(f"{prefix}{key} is {kind}", shown), where
        return
    for number, value in enumerate(values):
        at = f"{prefix}{key}[{number}]"
        yield (value if isinstance(value, dict) else _malformed(f"{at} is no object", shown)), at


def _values(article: dict[str, Any], paragraph: dict[str, Any], question: dict[str, Any]) -> dict[str, Any]:
    values = {
        "title": article.get("title"),
        "context": paragraph.get("context"),
        "question": question["question"],
        "answers": question.get("answers"),
        "id": question.get("id"),
    }
    if "is_impossible" in question:  # SQuAD 2.0
        values["is_impossible"] = question["is_impossible"]
    return values


def _lines_of_questions(text: str, n_questions: int) -> Iterator[int]:
    """The line of each `"question":` in order; line 1 for all where the file has other keys of that name."""
    lines, line = [], 1
    for match in _QUESTION.finditer(text):
        if match.group(1):
            line += 1
        else:
            lines.append(line)
    return iter(lines) if len(lines) == n_questions else itertools.repeat(1)


def _bad_byte(values: dict[str, Any], path: Path, shown: str, encoding: str, line: int) -> tuple[Problem | None, bool]:
    """The problem of a byte that cannot be decoded, in the first text that holds one."""
    for value in values.values():
        if isinstance(value, str) and (bad := encodings.bad_byte(value, encoding)):
            return json_rows.encoding_problem(path, shown, encoding, line, bad, of="text")
    return None, False


def _malformed(message: str, shown: str) -> Problem:
    hint = "SQuAD is data[].paragraphs[].{context, qas[].{id, question, answers}}; or remove `format: squad`"
    return Problem(code="not_squad", message=message, file=shown, hint=hint)
