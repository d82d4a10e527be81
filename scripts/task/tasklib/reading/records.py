"""Reads raw files row by row, each row with the line it starts on. What a file is, its content says, not its name.

Which format a file has, `formats` finds; they have a module each: json_rows, squad_rows, conll_rows, triplet_rows,
table_rows, binary_rows (Excel, Parquet). Declared steps after reading stand in `row_steps`.
Reading is streamed, and a fault never stops the reading of later rows unless nothing after it could be trusted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tasklib.reading import encodings
from tasklib.reading.formats import HEAD_BYTES, Format, file_format, unreadable
from tasklib.schema import FileSpec
from tasklib.summary import Problem

# Options of FileSpec -> the kinds of file that they say something about.
OPTIONS = {
    "encoding": ("json", "table", "lines", "squad", "conll", "triplet"),
    "delimiter": ("table",),
    "quoting": ("table",),
    "columns": ("table", "excel"),
    "sheet": ("excel",),
}


class Row(NamedTuple):
    """One raw row as it stands in its file. `item_lines` are those of its items where each has a line of its own."""

    values: dict[str, Any]
    file: str
    line: int
    item_lines: tuple[int, ...] = ()


class Remark(NamedTuple):
    """Something worth a warning that is no fault of a row."""

    problem: Problem


def read_rows(path: Path, shown: str, spec: FileSpec | None = None) -> Iterator[Row | Problem]:
    """Yields a Row, or a Problem in its place, for each row of `path`. `shown` is the name used in messages; `spec`
    says what the content alone cannot. Remarks are left out: see `read_file`."""
    for item in read_file(path, shown, spec or FileSpec(path=shown)):
        if not isinstance(item, Remark):
            yield item


def read_file(
    path: Path, shown: str, spec: FileSpec, errors: str = encodings.REPORT
) -> Iterator[Row | Problem | Remark]:
    """Yields each row, each fault in its place, and remarks on the file as a whole. With `errors=encodings.MEND` emoji
    that were stored as two halves are read as emoji, and a remark counts them."""
    from tasklib.reading import parallel_rows, row_steps

    try:
        found = file_format(path, shown, spec)
        problem = found if isinstance(found, Problem) else _wrong_encoding(path, shown, spec, found)
        if problem:
            yield problem
            return
        yield from _remarks(path, shown, spec, found, errors)
        any_row = False
        items = parallel_rows.with_columns(_reader(path, shown, spec, found, errors), path, shown, spec)
        for item in row_steps.with_steps(items, shown, spec):
            any_row = any_row or type(item) is not Remark
            yield item
        if not any_row:
            yield Problem(code="empty_file", message=f"{shown} holds no rows", file=shown, hint="check the export")
    except OSError as error:
        yield unreadable(shown, error)


def _wrong_encoding(path: Path, shown: str, spec: FileSpec, found: Format) -> Problem | None:
    """A declared encoding that the bytes deny although every one of them can be decoded."""
    if found.kind in ("excel", "parquet"):
        return None
    if spec.encoding == "utf-8":
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        if encodings.marked(head) or b"\x00" not in head or not encodings.utf16_order(head):
            return None
        other = "utf-16"
    else:
        detected = encodings.detect(path)
        other = detected.encoding
        if other in (None, spec.encoding) or (other == "utf-8" and spec.encoding in detected.candidates):
            return None
    message = f"declared as {spec.encoding}, but its bytes are {other}"
    hint = f"write `encoding: {other}` for this file" if other != "utf-8" else "remove `encoding`"
    return Problem(code="wrong_encoding", message=message, file=shown, field="encoding", hint=hint)


def _remarks(path: Path, shown: str, spec: FileSpec, found: Format, errors: str) -> Iterator[Remark]:
    """Options that say nothing about this kind of file, most likely meant for another one; emoji that were joined."""
    for option, kinds in OPTIONS.items():
        if found.kind not in kinds and getattr(spec, option) != FileSpec.model_fields[option].default:
            message, hint = f"`{option}` means nothing to a file of kind {found.kind}", f"remove `{option}`"
            yield Remark(Problem(code="unused_option", message=message, file=shown, field=option, hint=hint))
    if errors == encodings.MEND and found.kind in OPTIONS["encoding"]:
        n_halves, line = encodings.count_halves(path)
        if n_halves:
            message = f"{n_halves} emoji stored as two halves were joined"
            yield Remark(Problem(code="joined_halves", message=message, file=shown, line=line, hint="keep the copy"))


def _reader(path: Path, shown: str, spec: FileSpec, found: Format, errors: str) -> Iterator[Row | Problem | Remark]:
    from tasklib.reading import binary_rows, conll_rows, json_rows, squad_rows, table_rows, triplet_rows

    if spec.columns and (problem := table_rows.header_problem(spec.columns, shown, None)):
        yield problem
    elif found.kind == "parquet":
        yield from binary_rows.read_parquet(path, shown)
    elif found.kind == "excel":
        yield from binary_rows.read_excel(path, shown, spec)
    elif found.kind == "json":
        yield from json_rows.read_json(path, shown, encodings.actual(path, spec.encoding), errors)
    elif found.kind == "squad":
        yield from squad_rows.read_squad(path, shown, encodings.actual(path, spec.encoding), errors)
    elif found.kind == "conll":
        yield from conll_rows.read_conll(path, shown, spec.encoding, errors)
    elif found.kind == "triplet":
        yield from triplet_rows.read_triplets(path, shown, spec.encoding, errors)
    elif found.kind == "lines":
        yield from table_rows.read_lines(path, shown, spec.encoding, errors, keep_blank=bool(spec.parallel))
    else:
        yield from table_rows.read_table(path, shown, spec, found.delimiter or ",", errors)
