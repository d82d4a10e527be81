"""How a table is laid out: whether quotes are quotes, and whether its first line names the columns."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from creation import columns
from creation.sources import SAMPLE_ROWS, Source, sample
from tasklib.reading import encodings
from tasklib.reading.records import Format, Row
from tasklib.summary import Problem

WIDEST_SHEET = 1000  # columns; what stands further right is named by the reader
SHORT_NAME = 8  # weight of a cell up to which its ending tells a name (新聞標題, date of publication)
LONG_NAME = 10  # weight from which a first cell is as likely a text as a name


class FirstLine(NamedTuple):
    """`is_` what: names, row, title (a line above the table) or unsure; and why."""

    is_: str
    why: str = ""
    certain: bool = False


def cells(source: Source, found: Format) -> list[list[str]]:
    """The first lines of a table or a sheet as they stand, the line of column names among them."""
    if found.kind == "excel":
        wide = source.having(columns=[str(number) for number in range(WIDEST_SHEET)])
        rows = [list(item.values.values()) for item in sample(wide) if isinstance(item, Row)]
        width = max((n for row in rows for n, cell in enumerate(row, start=1) if cell), default=0)
        return [row[:width] for row in rows]
    quoting = csv.QUOTE_MINIMAL if source.spec().quoting else csv.QUOTE_NONE
    with encodings.open_text(source.path, source.spec().encoding) as stream:
        lines = [line for _, line in zip(range(SAMPLE_ROWS), stream, strict=False)]
    if lines and lines[0].startswith("sep="):
        lines.pop(0)
    reader = csv.reader(lines, delimiter=found.delimiter or ",", quoting=quoting)
    return [row for row in reader if any(cell.strip() for cell in row)]


def width_of(rows: Sequence[Sequence[str]]) -> int:
    """The number of cells that most lines have."""
    return Counter(map(len, rows)).most_common(1)[0][0] if rows else 1


def first_line(rows: Sequence[Sequence[str]], named: AbstractSet[str]) -> FirstLine:
    """What the first line is, judged by the lines below it. `named` are columns that the user speaks of."""
    first, below = [cell.strip() for cell in rows[0]], rows[1:]
    known = [place for place, cell in enumerate(first) if columns.plain_name(cell) in columns.KNOWN_NAMES]
    if not any([cell.strip() for cell in row] == first for row in below):  # or else they are put together of exports
        known = [place for place in known if first[place] not in _column(below, place)]
    if called := [cell for place, cell in enumerate(first) if place in known or cell in named]:
        return FirstLine("names", f"{called[0]!r} is the name of a column", certain=True)
    if _is_title(first, below):
        return FirstLine("title")
    if _counts(first, below):
        return FirstLine("names", "they count the columns")
    found = [line for place, cell in enumerate(first) if (line := _by_column(cell, _column(below, place), place))]
    short = [cell for cell in first if columns.weight(cell) <= SHORT_NAME]
    alike = [cell for cell in short if columns.has_name(cell, columns.KNOWN_NAMES)]
    if alike and not any(line.certain for line in found):
        found.append(FirstLine("names", f"{alike[0]!r} is the name of a column", certain=True))
    return max(found, key=lambda line: line.certain, default=_by_length(first, below))


def _counts(first: list[str], below: Sequence[Sequence[str]]) -> bool:
    """What pandas writes above columns without names (0, 1, 2), and beside rows (an unnamed column 0, 1, 2)."""
    index = first[0] == "" and [row[0] for row in below] == [str(number) for number in range(len(below))]
    return index or first == [str(number) for number in range(len(first))]


def _is_title(first: list[str], below: Sequence[Sequence[str]]) -> bool:
    """A heading over the whole table: alone in its line, and the lines below hold more cells."""
    filled = sorted(sum(bool(cell.strip()) for cell in row) for row in below[:50])
    return bool(filled) and bool(first[0]) and not any(first[1:]) and filled[len(filled) // 2] >= 2


def _column(below: Sequence[Sequence[str]], place: int) -> list[str]:
    return [row[place].strip() for row in below if len(row) > place and row[place].strip()]


def _by_column(cell: str, below: list[str], place: int) -> FirstLine | None:
    """What one column says of the cell above it. A value that comes again below is no name; a word above nothing but
    numbers or dates is one; a number above numbers may be a name (2024), but hardly is."""
    if len(below) < 2 or not cell:
        return None
    most = min(len(below) // 2, columns.FEW_VALUES) if len(below) > columns.FEW_ROWS else len(below) - 1
    if cell in below and len(set(below)) <= most:
        why = f"{cell!r} in the first line is a value that column {place + 1} has again below"
        return FirstLine("row", why, certain=True)
    for what, is_kind in (("a number", columns.is_number), ("a date", columns.is_date)):
        if all(map(is_kind, below[: columns.LOOKED_AT])):
            if is_kind(cell):
                return FirstLine("row", f"{cell!r} in the first line is {what} like all below it")
            return FirstLine("names", f"{cell!r} stands above {what} in every line", certain=True)
    return None


def _by_length(first: list[str], below: Sequence[Sequence[str]]) -> FirstLine:
    """Where nothing else decides: a first cell that is as long as the texts below may be one of them."""
    for place, cell in enumerate(first):
        texts = _column(below, place)[: columns.LOOKED_AT]
        prose = bool(texts) and sum(map(columns.weight, texts)) >= LONG_NAME * len(texts)
        if prose and columns.weight(cell) >= LONG_NAME:
            return FirstLine("unsure", cell)
    return FirstLine("names")


def n_faults(source: Source) -> int:
    return sum(isinstance(item, Problem) and item.code != "duplicate_column" for item in sample(source))


def without_quoting(source: Source, found: Format) -> Source | None:
    """The source with quotes as ordinary characters, where that reads every row and quoting does not. A table whose
    cells are mostly quoted means its quotes, however broken one of them is."""
    plain = source.having(quoting=False)
    if n_faults(plain):
        return None
    rows = cells(plain, found)
    quoted = sum(any(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in row) for row in rows)
    return plain if quoted * 2 < len(rows) else None


def is_plain_lines(source: Source, rows: Sequence[Sequence[str]], delimiter: str) -> bool:
    """A .txt of one column without a name, or one whose lines have now one comma and now five."""
    if source.path.suffix.lower() != ".txt":
        return False
    width = width_of(rows)
    if width == 1:
        return columns.plain_name(rows[0][0]) not in columns.KNOWN_NAMES
    return sum(len(row) != width for row in rows) > (0.3 if delimiter == "\t" else 0.1) * len(rows)
