"""Reads raw files row by row: JSONL, JSON array, CSV and TSV in UTF-8, each row with the line it starts on."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklib.summary import Problem

READERS = (".jsonl", ".json", ".csv", ".tsv")

csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Row:
    """One raw row as it stands in its file."""

    values: dict[str, Any]
    file: str
    line: int


def read_rows(path: Path, shown: str) -> Iterator[Row | Problem]:
    """Yields a Row, or a Problem in its place, for each row of `path`; problems never stop the reading of later rows
    unless nothing after them could be trusted. `shown` is the name used in messages."""
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        yield Problem(code="file_missing", message=f"{shown} {kind}", file=shown, hint="correct data.files")
        return
    suffix = path.suffix.lower()
    if suffix not in READERS:
        yield Problem(
            code="unknown_format",
            message=f"cannot read {suffix or 'a file without extension'}",
            file=shown,
            hint=f"save it as one of {', '.join(READERS)} in UTF-8",
        )
        return
    if problem := _encoding_problem(path, shown):
        yield problem
        return
    reader = {".jsonl": _read_jsonl, ".json": _read_json_array}.get(suffix)
    found = False
    for item in reader(path, shown) if reader else _read_table(path, shown, "\t" if suffix == ".tsv" else ","):
        found = True
        yield item
    if not found:
        yield Problem(code="empty_file", message=f"{shown} holds no rows", file=shown, hint="check the export")


def _encoding_problem(path: Path, shown: str) -> Problem | None:
    """The first byte that is not UTF-8, with its line."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return Problem(
                    code="not_utf8",
                    message=f"byte {error.start + 1} of the line is 0x{line[error.start]:02x}: not UTF-8",
                    file=shown,
                    line=number,
                    hint="save the file as UTF-8 (in Excel: CSV UTF-8)",
                )
    return None


def _read_jsonl(path: Path, shown: str) -> Iterator[Row | Problem]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield _row_or_problem(line, shown, number)


def _row_or_problem(text: str, shown: str, line: int) -> Row | Problem:
    try:
        value = _decoder().decode(text.strip())
    except (ValueError, RecursionError) as error:  # json.JSONDecodeError is a ValueError
        return _unparsable(shown, line, error)
    return _row(value, shown, line)


def _read_json_array(path: Path, shown: str) -> Iterator[Row | Problem]:
    """Element by element, so that each has its line and a broken one is named."""
    text = path.read_text(encoding="utf-8-sig")
    decoder, position, line, counted = _decoder(), _skip_space(text, 0), 1, 0
    if position == len(text):
        return
    if text[position] != "[":
        yield Problem(
            code="unparsable",
            message="a .json file must hold one array of objects",
            file=shown,
            line=1,
            hint="rename it to .jsonl if it holds one object a line",
        )
        return
    position = _skip_space(text, position + 1)
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            yield _unparsable(shown, line, error)
            return  # where the next element starts can only be guessed
        yield _row(value, shown, line)
        position = _skip_space(text, end)
        if text[position : position + 1] == ",":
            position = _skip_space(text, position + 1)
        elif text[position : position + 1] != "]":
            line += text.count("\n", counted, position)
            yield Problem(
                code="unparsable",
                message="expected ',' or ']' after an element",
                file=shown,
                line=line,
                hint="the file may be truncated",
            )
            return
    end = _skip_space(text, position + 1)
    if end < len(text):
        yield Problem(
            code="unparsable",
            message="something follows the end of the array",
            file=shown,
            line=1 + text.count("\n", 0, end),
            hint="put all rows into one array",
        )


def _read_table(path: Path, shown: str, delimiter: str) -> Iterator[Row | Problem]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Problem(
                    code="unparsable",
                    message=str(error),
                    file=shown,
                    line=line,
                    hint="look for an unbalanced quote in the row that starts here",
                )
                return
            if not cells:
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if problem := _header_problem(header, shown, line):
                    yield problem
                    return
            elif len(cells) != len(header):
                yield Problem(
                    code="column_count",
                    message=f"{len(cells)} cells, the header has {len(header)}",
                    file=shown,
                    line=line,
                    hint="quote cells that contain the delimiter",
                )
            else:
                yield Row(dict(zip(header, cells, strict=True)), shown, line)


def _header_problem(header: list[str], shown: str, line: int) -> Problem | None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        return Problem(
            code="duplicate_column",
            message=f"column {twice[0]!r} stands twice in the header",
            file=shown,
            line=line,
            hint="give every column its own name",
        )
    return None


def _row(value: Any, shown: str, line: int) -> Row | Problem:
    if isinstance(value, dict):
        return Row(value, shown, line)
    return Problem(
        code="not_an_object",
        message=f"the row is {type(value).__name__}, not an object",
        file=shown,
        line=line,
        hint='write {"column": "value", …}',
    )


def _unparsable(shown: str, line: int, error: ValueError | RecursionError) -> Problem:
    extra = error.lineno - 1 if isinstance(error, json.JSONDecodeError) else 0
    message = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
    # raw_decode counts lines from the start of its text, which for an array is the start of the file
    return Problem(
        code="unparsable",
        message=message,
        file=shown,
        line=max(line, extra + 1),
        hint="the row is broken, truncated, or two rows run together",
    )


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=_checked_object, parse_constant=_refuse_constant)


def _checked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object. Raises ValueError for a key that stands twice and for half a surrogate pair, which is no text."""
    for pair in pairs:
        for text in pair:
            if isinstance(text, str):
                text.encode()
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position
