"""Files with three lines an example: a sentence with `$T$` where a term stands, the term, and its polarity.

$T$ 很靚
圖標
Positive

The format of aspect-term sentiment since Dong et al. 2014 (Twitter); ABSADatasets and PyABSA publish theirs so. Rows
have the columns `text` (the sentence with its term), `entity` and `sentiment`. Where a sentence holds the term twice,
which of the two is meant is lost with the placeholder; so a sentence with two placeholders says no less than another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tasklib.reading import encodings, table_rows
from tasklib.reading.records import Remark, Row
from tasklib.summary import Problem

PLACEHOLDER = "$T$"
COLUMNS = ("text", "entity", "sentiment")
_POLARITY = re.compile(r"-?1|0|positive|negative|neutral|conflict", re.IGNORECASE)


def is_triplets(head: str) -> bool:
    """Whether a file that begins so is certainly one: whole groups of three lines, two of them at least or the whole
    file, whose first alone has the placeholder and whose third is a polarity."""
    lines = head.lstrip("\ufeff").rstrip("\r\n").splitlines()
    groups = [lines[start : start + 3] for start in range(0, len(lines) - 2, 3)][:20]
    return (len(groups) >= 2 or len(lines) == 3) and all(map(_is_group, groups))


def _is_group(lines: list[str]) -> bool:
    sentence, term, polarity = lines
    has_place = PLACEHOLDER in sentence and PLACEHOLDER not in term
    return has_place and bool(term.strip()) and _POLARITY.fullmatch(polarity.strip()) is not None


def read_triplets(
    path: Path, shown: str, encoding: str, errors: str = encodings.REPORT
) -> Iterator[Row | Problem | Remark]:
    """One row for each example, at the line of its sentence. A line with the placeholder begins an example, so that a
    missing or odd line costs its own example alone."""
    group: list[Row | Problem | Remark] = []
    for item in table_rows.read_lines(path, shown, encoding, errors, keep_blank=True):
        if isinstance(item, Row) and PLACEHOLDER in item.values["text"]:
            yield from _examples(group, shown)
            group = []
        if isinstance(item, Problem) and item.line is None:
            yield item
        else:
            group.append(item)
    yield from _examples(group, shown)


def _examples(group: list[Row | Problem], shown: str) -> Iterator[Row | Problem | Remark]:
    """The rows or faults of the lines between one placeholder and the next, three by three; blank ones at the end do
    not count."""
    while group and isinstance(group[-1], Row) and not group[-1].values["text"].strip():
        group.pop()
    for start in range(0, len(group), 3):
        lines = group[start : start + 3]
        if problems := [item for item in lines if isinstance(item, Problem)]:
            yield from problems
        else:
            yield from _example([item.values["text"].strip() for item in lines], shown, lines[0].line)


def _example(lines: list[str], shown: str, line: int) -> Iterator[Row | Problem | Remark]:
    def fault(code: str, message: str, hint: str) -> Problem:
        return Problem(code=code, message=message, file=shown, line=line, hint=hint)

    n_places = lines[0].count(PLACEHOLDER)
    if n_places == 0:
        hint = f"write {PLACEHOLDER} in the sentence where the term stood; an example is sentence, term, polarity"
        yield fault("no_placeholder", f"a line without {PLACEHOLDER} stands where a sentence is expected", hint)
        return
    if len(lines) < 3:
        hint = "an example is sentence, term, polarity, each on a line of its own"
        yield fault("missing_line", f"{len(lines)} of the 3 lines of this example are there", hint)
        return
    if n_places > 1:
        message = f"the sentence has {n_places} {PLACEHOLDER}; the term is read in the place of each"
        yield Remark(fault("several_placeholders", message, "look whether two examples ran together"))
    sentence, term, polarity = lines
    yield Row({"text": sentence.replace(PLACEHOLDER, term), "entity": term, "sentiment": polarity}, shown, line)
