"""Rows of Excel workbooks and Parquet files. The line of a row is its number: Excel's own, or counted from 1."""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasklib.reading import excel_cells
from tasklib.reading.records import Remark, Row
from tasklib.reading.table_rows import column_names, header_problem
from tasklib.schema import FileSpec
from tasklib.summary import Problem

BATCH_ROWS = 10_000
MAX_CELLS = 30_000_000  # a sheet is held as one rectangle, 32 bytes a cell: 1 GB
ENCRYPTED = "EncryptedPackage".encode("utf-16-le")  # the stream that holds a workbook with a password
UNREADABLE = "open it and save it again without a password, or as CSV UTF-8"


def read_excel(path: Path, shown: str, spec: FileSpec) -> Iterator[Row | Problem | Remark]:
    """Rows of one sheet (.xlsx, .xlsm, .xlsb, .xls, .ods), every cell as the text it would have in a CSV."""
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        # Opened as a stream, because a path's extension would decide which kind of workbook it is.
        with path.open("rb") as stream, CalamineWorkbook.from_filelike(stream) as workbook:
            sheet, cells, items = _sheet(workbook, path, shown, spec)
            yield from items
            if sheet is not None:
                yield from _sheet_rows(sheet, cells, shown, spec)
    except CalamineError as error:
        locked = ENCRYPTED in path.read_bytes()
        message = f"the workbook cannot be read: {'it has a password' if locked else error}"
        yield Problem(code="unparsable", message=message, file=shown, hint=UNREADABLE)
    except BaseException as error:  # Rust's panic is no Exception; calamine gives up so on some damaged .xls files
        if type(error).__name__ != "PanicException":
            raise
        yield Problem(code="unparsable", message="the workbook is damaged", file=shown, hint=UNREADABLE)


def _sheet(
    workbook: Any, path: Path, shown: str, spec: FileSpec
) -> tuple[Any, excel_cells.Cells, list[Problem | Remark]]:
    """The sheet that is meant with what is known of its cells, or None; and what is to be said about it."""
    from python_calamine import SheetTypeEnum, SheetVisibleEnum

    def about(code: str, message: str, hint: str) -> Problem:
        return Problem(code=code, message=message, file=shown, field="sheet", hint=hint)

    names = [sheet.name for sheet in workbook.sheets_metadata if sheet.typ == SheetTypeEnum.WorkSheet]
    hidden = {sheet.name for sheet in workbook.sheets_metadata if sheet.visible != SheetVisibleEnum.Visible}
    unknown = excel_cells.Cells()
    if spec.sheet is not None and spec.sheet not in names:
        problem = about("missing_sheet", f"there is no sheet {spec.sheet!r}", f"sheets: {', '.join(names)}")
        return None, unknown, [problem]
    filled = {}
    for name in [spec.sheet] if spec.sheet is not None else names:
        cells = excel_cells.of_sheet(path, name)
        if cells.last_row * cells.last_column > MAX_CELLS:
            return None, cells, [_too_far(cells, name, shown)]
        if (sheet := workbook.get_sheet_by_name(name)).height:
            filled[name] = sheet, cells
    chosen = [name for name, (sheet, _) in filled.items() if sheet.height > 1 and name not in hidden] or [*filled]
    if not chosen:
        return None, unknown, []
    if len(chosen) > 1:
        message, hint = f"{len(chosen)} sheets hold rows: {', '.join(chosen)}", "write `sheet: NAME` for this file"
        return None, unknown, [about("which_sheet", message, hint)]
    if not (others := [name for name in filled if name != chosen[0]]):
        return *filled[chosen[0]], []
    message = f"read is {chosen[0]!r}; hidden or of one row, and passed over: {', '.join(others)}"
    return *filled[chosen[0]], [Remark(about("other_sheets", message, "write `sheet: NAME` if another one is meant"))]


def _too_far(cells: excel_cells.Cells, name: str, shown: str) -> Problem:
    corner = f"{excel_cells.name_of(cells.last_column)}{cells.last_row}"
    message = f"sheet {name!r} reaches to {corner}: a rectangle of {cells.last_row * cells.last_column:,} cells"
    hint = "delete what stands far outside the table (Ctrl+End goes to the last cell), or save the sheet as CSV UTF-8"
    return Problem(code="sheet_too_large", message=message, file=shown, line=cells.last_row, field="sheet", hint=hint)


def _sheet_rows(sheet: Any, cells: excel_cells.Cells, shown: str, spec: FileSpec) -> Iterator[Row | Problem | Remark]:
    header, header_line, found = spec.columns, 0, False
    first_column = sheet.start[1] + 1 if sheet.start else 1
    for line, values in enumerate(sheet.iter_rows(), start=1):
        texts = [_text(value) for value in values]
        if not any(texts):
            continue
        if header is None:
            while not texts[-1]:
                texts.pop()  # columns that are formatted but hold nothing
            header, header_line = column_names(texts), line
            if problem := header_problem(header, shown, line):
                yield problem
                return
            continue
        found = True
        for column, message in cells.faults.get(line, ()):
            yield _formula_remark(message, shown, line, column, header, first_column)
        yield _excel_row(texts, header, header_line, shown, line)
    for start, end in sheet.merged_cell_ranges or ():
        if end[0] + 1 > max(header_line, start[0] + 1) and start[1] + 1 < first_column + len(header or ()):
            yield _merged_remark(start, end, shown)
    if header_line and not found:
        message = f"sheet {sheet.name!r} holds a header and no rows"
        yield Problem(code="header_only", message=message, file=shown, line=header_line, hint="check the export")


def _excel_row(cells: list[str], header: list[str], header_line: int, shown: str, line: int) -> Row | Problem:
    if any(cells[len(header) :]):
        message, hint = "a cell stands outside the columns of the header", "give its column a name, or clear it"
        if len(header) == 1 and header_line:
            hint += f"; if row {header_line} is a title above the header, delete it"
        return Problem(code="column_count", message=message, file=shown, line=line, hint=hint)
    padded = cells[: len(header)] + [""] * (len(header) - len(cells))
    return Row(dict(zip(header, padded, strict=True)), shown, line)


def _formula_remark(message: str, shown: str, line: int, column: int, header: list[str], first_column: int) -> Remark:
    position = column - first_column
    name = header[position] if 0 <= position < len(header) else None
    cell = f"{excel_cells.name_of(column)}{line}"
    hint = f"cell {cell} is read as empty: open the file in Excel and save it, or paste its value"
    return Remark(Problem(code="formula_error", message=message, file=shown, line=line, field=name, hint=hint))


def _merged_remark(start: tuple[int, int], end: tuple[int, int], shown: str) -> Remark:
    first, last = (f"{excel_cells.name_of(column + 1)}{row + 1}" for row, column in (start, end))
    message = f"{first}:{last} are merged: the value stands in {first} alone, the other cells are empty"
    hint = "unmerge them and fill every cell"
    return Remark(Problem(code="merged_cells", message=message, file=shown, line=start[0] + 1, hint=hint))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:.15g}"  # Excel keeps 15 digits
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


def read_parquet(path: Path, shown: str) -> Iterator[Row | Problem]:
    """Rows of a Parquet file, values as JSON has them; dates and times as ISO text, bytes as text where they are."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if twice := [name for name in names if names.count(name) > 1]:
                message, hint = f"column {twice[0]!r} stands twice", "give every column its own name"
                yield Problem(code="duplicate_column", message=message, file=shown, hint=hint)
                return
            line = 1
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield from _batch_rows(batch, shown, line)
                line += batch.num_rows
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        first = (str(error).splitlines() or ["damaged"])[0]
        hint = "the file may be truncated: copy or export it again"
        yield Problem(code="unparsable", message=f"not readable as Parquet: {first}", file=shown, hint=hint)


def _batch_rows(batch: Any, shown: str, first_line: int) -> Iterator[Row | Problem]:
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError):  # text that is no UTF-8, a time that Python cannot hold: find the rows
        rows = [_one_row(batch.slice(position, 1)) for position in range(batch.num_rows)]
    for line, values in enumerate(rows, start=first_line):
        if isinstance(values, Exception):
            hint = "correct the value, or export the file again"
            yield Problem(code="unparsable", message=f"no value: {values}", file=shown, line=line, hint=hint)
        else:
            yield Row({name: _plain(value) for name, value in values.items()}, shown, line)


def _one_row(batch: Any) -> dict[str, Any] | Exception:
    try:
        return batch.to_pylist()[0]
    except (ValueError, OverflowError) as error:
        return error


def _plain(value: Any) -> Any:
    """A value as JSON has it; NaN, which is how pandas writes a missing number, is null."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"n_bytes": len(value)}  # an image, a sound: no text, and the checks will say so
    return str(value)
