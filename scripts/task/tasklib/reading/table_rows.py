"""Rows of CSV, TSV and other delimited text, and of plain text with one value a line."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tasklib.reading import encodings
from tasklib.reading.encodings import BadByte
from tasklib.reading.json_rows import encoding_problem, nul_padding
from tasklib.reading.records import Remark, Row
from tasklib.schema import FileSpec
from tasklib.summary import Problem

DELIMITERS = ("\t", ",", ";", "|")
MAX_ROW_LINES = 5000  # a quoted cell of more lines is a quote that was never closed
MAX_QUOTE_FAULTS = 200  # then quotes mean nothing in this file; each fault has its lines read again
_SEP = re.compile(r"sep=([^\r\n\"])(?:\r\n|\r|\n)", re.IGNORECASE)  # Excel's own first line
_LINE_END = re.compile(r"\r\n|\r|\n")

csv.field_size_limit(2**31 - 1)


def delimiter_of(text: str, suffix: str = "", quoting: bool = True) -> str:
    """The delimiter under which the first lines have the same number of cells, more than one; by name where several do
    or none does. Excel's own first line `sep=;` decides."""
    if declared := _SEP.match(text):
        return declared.group(1)
    lines = list(io.StringIO(text, newline=""))[:200]
    if len(lines) > 1 and len(text) >= 1 << 16:
        lines.pop()  # cut off by the end of what was read
    by_name = {".tsv": "\t", ".tab": "\t", ".csv": ","}.get(suffix)
    best, best_score = by_name or ",", (0.0, 0, False)
    for delimiter in DELIMITERS:
        widths = Counter(
            len(cells) for cells in csv.reader(lines, delimiter=delimiter, quoting=_mode(quoting)) if cells
        )
        width, n = max(widths.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
        score = (round(n / max(1, widths.total()), 1), min(width, 2), delimiter == by_name)
        if width > 1 and score > best_score:
            best, best_score = delimiter, score
    return best


def _mode(quoting: bool) -> int:
    return csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE


class _Lines:
    """Lines of a file that can be read again from any line of the present row, when the row proves broken."""

    def __init__(self, stream: IO[str], encoding: str) -> None:
        self.stream, self.encoding, self.number = iter(stream), encoding, 0
        self.row: list[str] = []
        self.again: deque[str] = deque()
        self.bad: tuple[int, BadByte] | None = None

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else next(self.stream)
        self.number += 1
        row = self.row
        row.append(line)
        if len(row) > MAX_ROW_LINES:
            raise csv.Error(f"the cell goes on for more than {MAX_ROW_LINES} lines")
        if not line.isascii() and not self.bad and (bad := encodings.bad_byte(line, self.encoding)):
            self.bad = self.number, bad
        return line

    def start_row(self) -> None:
        self.row.clear()
        self.bad = None

    def give_back(self, behind: int) -> None:
        """After a fault: the lines of the row behind its line `behind` are read again, as rows of their own."""
        self.again.extendleft(reversed(self.row[behind + 1 :]))
        self.number -= len(self.row) - 1 - behind
        self.start_row()


def read_table(path: Path, shown: str, spec: FileSpec, delimiter: str, errors: str) -> Iterator[Row | Problem | Remark]:
    """Rows under the header, or under `spec.columns` where the file has none."""
    encoding = encodings.actual(path, spec.encoding)
    with encodings.open_text(path, spec.encoding, errors) as stream:
        lines = _Lines(stream, encoding)
        if _SEP.match(stream.readline(8)):
            lines.number = 1
        else:
            stream.seek(0)
        header, header_line, found, n_blank, blank_line = spec.columns, None, False, 0, None
        for line, cells in _rows(lines, path, shown, delimiter, spec.quoting):
            if type(cells) is Problem:
                found = True
                yield cells
                if header is None:
                    return  # without a header no row can be read
            elif header is None:
                if any(cell.strip() for cell in cells):
                    header, header_line = column_names(cells), line
                    if problem := header_problem(header, shown, line):
                        yield problem
                        return
            elif len(cells) == len(header) and any(cells):
                found = True
                yield Row(dict(zip(header, cells, strict=True)), shown, line)
                if len(lines.row) > 1:
                    yield from _swallowed(cells, delimiter, len(header), shown, line)
                if not spec.quoting:
                    yield from _kept_quotes(cells, header, shown, line)
            elif not any(cells) or (len(cells) == 1 and not cells[0].strip()):
                n_blank, blank_line = n_blank + 1, blank_line or line
            else:
                found = True
                yield _column_count(cells, header, shown, line, spec)
    if n_blank:
        message, hint = f"{n_blank} rows without any value were passed over", "remove them in the export"
        yield Remark(Problem(code="blank_row", message=message, file=shown, line=blank_line, hint=hint))
    if header_line and not found:
        message, hint = f"{shown} holds a header and no rows", "check the export"
        yield Problem(code="header_only", message=message, file=shown, line=header_line, hint=hint)


def _kept_quotes(cells: list[str], header: list[str], shown: str, line: int) -> Iterator[Remark]:
    """Where quotes are ordinary characters: cells in which they look like quoting all the same, or like a lost one."""
    for name, cell in zip(header, cells, strict=True):
        around = len(cell) > 1 and cell[0] == cell[-1] == '"'
        if around or cell.count('"') % 2:
            message = "the quotes around the cell stay in the text" if around else "a lone quote stays in the text"
            hint = "`quoting: false` says so in data.files; remove it there if cells are quoted, or correct the cell"
            yield Remark(Problem(code="kept_quote", message=message, file=shown, line=line, field=name, hint=hint))


def _rows(
    lines: _Lines, path: Path, shown: str, delimiter: str, quoting: bool
) -> Iterator[tuple[int, list[str] | Problem]]:
    """(line the row starts on, its cells or its fault). After a fault reading goes on with the line behind it."""
    n_faults = 0
    reader = csv.reader(lines, delimiter=delimiter, quoting=_mode(quoting), strict=True)
    while True:
        start = lines.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            n_faults += 1
            opened, column = _opened_at(lines.row, delimiter)
            yield start, _quote_problem(shown, start + opened, column, error, last=n_faults == MAX_QUOTE_FAULTS)
            if n_faults == MAX_QUOTE_FAULTS:
                return
            lines.give_back(opened)
            reader = csv.reader(lines, delimiter=delimiter, quoting=_mode(quoting), strict=True)
            continue
        if lines.bad:
            problem, whole_file = encoding_problem(path, shown, lines.encoding, *lines.bad)
            yield start, problem
            if whole_file:
                return
        elif cells:
            if cells[-1][-1:] == "\x00":
                yield start, nul_padding("".join(cells), shown, lines.number)
            else:
                yield start, cells
        lines.start_row()


def _opened_at(row: list[str], delimiter: str) -> tuple[int, int]:
    """(line of a broken row, column from 1) of the quote that opened the cell in which the reader gave up: it is never
    closed, or text stands behind the quote that closes it."""
    opened, quoted = (len(row) - 1, 1), False
    for number, line in enumerate(row):
        at = 0
        while at < len(line):
            if not quoted and line[at] != '"':  # a cell without quotes
                at = line.find(delimiter, at) + 1 or len(line)
                continue
            if not quoted:
                opened, quoted, at = (number, at + 1), True, at + 1
            closing = line.find('"', at)
            if closing < 0:
                break
            behind = line[closing + 1 : closing + 2]
            if behind not in ('"', "", "\r", "\n", delimiter):
                return opened
            quoted, at = behind == '"', closing + 2
    return opened


def _quote_problem(shown: str, line: int, column: int, error: csv.Error, last: bool) -> Problem:
    """An unbalanced quote, placed where it was opened and not where the reader gave up."""
    message = f"unbalanced quote at column {column}: {error}"
    hint = 'close the cell, or double quotes inside it (""); if quotes are ordinary characters, write `quoting: false`'
    if last:
        hint += f"; after {MAX_QUOTE_FAULTS} such rows nothing behind this place was read"
    return Problem(code="unbalanced_quote", message=message, file=shown, line=line, hint=hint)


def column_names(cells: list[str]) -> list[str]:
    """Column names; a cell without a name (a comma at the end of each line) is called by its place."""
    names = [cell.replace("\ufeff", "").strip() for cell in cells]  # a mark written twice is no part of a name
    return [name or f"column_{number}" for number, name in enumerate(names, start=1)]


def header_problem(header: list[str], shown: str, line: int | None) -> Problem | None:
    """A name that stands twice; `line` is None for names that the definition gives."""
    twice = [name for name, n in Counter(header).items() if n > 1]
    if not twice:
        return None
    message = f"column {twice[0]!r} stands twice in {'the header' if line else '`columns`'}"
    hint = "give every column its own name"
    if line:
        hint += "; if this line is a row and not a header, write `columns: [name, …]`"
    return Problem(code="duplicate_column", message=message, file=shown, line=line, hint=hint)


def _column_count(cells: list[str], header: list[str], shown: str, line: int, spec: FileSpec) -> Problem:
    names = "`columns`" if spec.columns else "the header"
    message, hint = (
        f"{len(cells)} cells, {names} has {len(header)}",
        "quote cells that contain the delimiter"
        if spec.quoting
        else "`quoting: false` makes quotes ordinary characters",
    )
    if len(header) == 1 and not spec.columns:
        hint += "; if a title stands above the header, delete it"
    return Problem(code="column_count", message=message, file=shown, line=line, hint=hint)


def _swallowed(cells: list[str], delimiter: str, width: int, shown: str, line: int) -> Iterator[Remark]:
    """A cell of several lines that look like rows themselves: a quote opened here and closed rows later."""
    for cell in cells:
        inner = _LINE_END.split(cell)[1:-1]
        like_rows = sum(text.count(delimiter) == width - 1 for text in inner) if width > 1 else 0
        if like_rows >= 2 and like_rows == len(inner):
            message = f"one cell holds {like_rows} lines that look like rows"
            hint = "a quote that opens in this row may be closed too late"
            yield Remark(Problem(code="swallowed_rows", message=message, file=shown, line=line, hint=hint))


def read_lines(
    path: Path, shown: str, encoding: str, errors: str = encodings.REPORT, keep_blank: bool = False
) -> Iterator[Row | Problem]:
    """One value a line, column `text`. Blank lines are passed over unless they keep two files parallel."""
    if not path.is_file():
        yield Problem(code="file_missing", message=f"{shown} is not a file", file=shown, hint="correct data.files")
        return
    encoding = encodings.actual(path, encoding)
    with encodings.open_text(path, encoding, errors) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.isascii() and (bad := encodings.bad_byte(line, encoding)):
                problem, whole_file = encoding_problem(path, shown, encoding, number, bad)
                yield problem
                if whole_file:
                    return
                continue
            text = line.rstrip("\r\n")
            if text.endswith("\x00"):
                yield nul_padding(text, shown, number)
            elif keep_blank or text.strip():
                yield Row({"text": text}, shown, number)
