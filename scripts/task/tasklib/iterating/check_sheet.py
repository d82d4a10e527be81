"""data/labelling/to_check.csv: rows for a person to check or label, what came back, and what was checked already.

`checked_label` stands before what the machine thinks, and `suggested_label` near the end: a person who reads the
suggestion first tends to agree with it.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasklib import files
from tasklib.data import dataset, text_faults
from tasklib.data.decisions import Decision
from tasklib.data.label_sheets import cell_text, meant_label, spec_of
from tasklib.data.raw_versions import Checked, KnownRow, PoolRow
from tasklib.data.sheet_cells import guard, unguard
from tasklib.exit_codes import ExitCode
from tasklib.paths import TaskPaths
from tasklib.reading.records import read_rows
from tasklib.schema import TaskDefinition
from tasklib.summary import Problem, TaskError

COLUMNS = (
    "id",
    "text_key",
    "text",
    "label",
    "checked_label",
    "note",
    "reason",
    "suggested_label",
    "confidence",
)


@dataclass(frozen=True)
class SheetRow:
    """One row to check. `label` is the one in the data, empty for a text without one; `confidence` in [0, 1] is that in
    `suggested_label`, None where there is none; `line` is set when the row was read from a file."""

    id: str
    text_key: str
    text: str
    label: str
    reason: str
    suggested_label: str = ""
    confidence: float | None = None
    checked_label: str = ""
    note: str = ""
    line: int = 0


def sheet_file(paths: TaskPaths) -> Path:
    return paths.labelling / "to_check.csv"


def pool_file(sheet: Path) -> Path:
    """Beside a sheet: the rows without a label, with all of their columns."""
    return sheet.with_name(f"{sheet.stem}.pool.jsonl")


def memory_file(paths: TaskPaths) -> Path:
    """What persons have checked, so that a label that was confirmed is not suggested again."""
    return paths.labelling / "checked.jsonl"


def sheet_text(rows: Iterable[SheetRow]) -> str:
    """The sheet as CSV, with the mark by which Excel knows UTF-8."""
    out = io.StringIO()
    writer = csv.writer(out)  # the dialect of Excel
    writer.writerow(COLUMNS)
    for row in rows:
        cells = [guard(getattr(row, name)) for name in COLUMNS[:-1]]
        writer.writerow([*cells, "" if row.confidence is None else f"{row.confidence:.4f}"])
    return "\ufeff" + out.getvalue()


def read(path: Path, shown: str) -> tuple[list[SheetRow], list[Problem]]:
    """The rows of a sheet as a spreadsheet may have saved it: UTF-8, UTF-16 or Big5; commas, semicolons or tabs; Excel.

    Returns a problem for each row that cannot be read; whether labels are right is for `checked` to say."""
    rows, problems = [], []
    needed = [name for name in COLUMNS if name != "confidence"]
    for item in read_rows(path, shown, spec_of(path)):
        if isinstance(item, Problem):
            problems += [dataclasses.replace(item, hint=item.hint or "save the sheet again as CSV UTF-8")]
        elif missing := [name for name in needed if name not in item.values]:
            message = f"no column {', '.join(missing)}: this is no sheet of suggest_labels.py"
            hint = f"it has the columns {', '.join(COLUMNS)}; scripts/suggest_labels.py suggest writes one"
            return [], [*problems, Problem(code="not_a_sheet", message=message, file=shown, line=1, hint=hint)]
        else:
            cell = {name: unguard(cell_text(item.values[name])) for name in needed}
            cell |= {name: cell[name].strip() for name in ("text_key", "checked_label")}
            rows.append(SheetRow(**cell, line=item.line))
    return rows, [problem for problem in problems if problem.code != "header_only"]


# What a person said.


@dataclass(frozen=True)
class Today:
    """What the sheet is held against: the rows of today's data by text, the rows without a label, the decisions."""

    known: Mapping[str, Sequence[KnownRow]]
    pool: Mapping[str, PoolRow]
    decided: Mapping[str, Decision]


def checked(rows: Sequence[SheetRow], today: Today, definition: TaskDefinition, shown: str) -> list[Checked]:
    """The labels that a person filled in, one for each text. Raises TaskError (exit 3) with every unknown or changed
    text, illegal label, label that moved meanwhile, and text with two answers."""
    problems: list[Problem] = []
    first: dict[str, SheetRow] = {}
    for row in rows:
        if not row.checked_label:
            continue
        found = _problem(row, first.get(row.text_key), today, definition)
        if found:
            problems.append(dataclasses.replace(found, file=shown, line=row.line))
        else:
            first.setdefault(row.text_key, row)
    if problems:
        raise TaskError(ExitCode.DATA, problems)
    return [Checked(row.text_key, row.checked_label, row.reason, row.note) for row in first.values()]


def _problem(row: SheetRow, first: SheetRow | None, today: Today, definition: TaskDefinition) -> Problem | None:
    """What is wrong with one filled row, before it has a place."""
    answers = definition.task_type.label_set(definition.task)
    rows = today.known.get(row.text_key, ())
    if not rows and row.text_key not in today.pool:
        message = f"text_key {row.text_key!r} is that of no row of the data, and of none that was suggested"
        hint = "was its row removed from the raw data? then clear checked_label; otherwise run suggest again"
        return Problem(code="unknown_text", message=message, field="text_key", hint=hint)
    if dataset.text_key(row.text) != row.text_key:
        message = f"the text is not the one that was suggested: {row.text[:40]!r}"
        hint = "restore it: a sheet corrects labels; a text is corrected in the raw data"
        return Problem(code="changed_text", message=message, field="text", hint=hint)
    if row.checked_label not in answers:
        message = f"label {text_faults.describe(row.checked_label[:40])} is not in task.labels"
        hint = meant_label(row.checked_label, answers)
        return Problem(code="unknown_label", message=message, field="checked_label", hint=hint)
    if first and first.checked_label != row.checked_label:
        message = f"the text has two answers: {first.checked_label!r} on line {first.line}, {row.checked_label!r} here"
        return Problem(code="two_answers", message=message, field="checked_label", hint="keep one of the two")
    labels = {known.label for known in rows}
    if rows and not labels & {row.label, row.checked_label}:
        message = f"the label was {row.label!r} when it was checked; in the data it is {', '.join(sorted(labels))}"
        hint = "somebody changed it meanwhile: clear checked_label, or run suggest again"
        return Problem(code="label_moved", message=message, field="label", hint=hint)
    decision = today.decided.get(dataset.duplicate_key(row.text))
    if decision and decision.label != row.checked_label:
        message = (
            f"{definition.data.decisions} decides {decision.label!r} for this text, the sheet {row.checked_label!r}"
        )
        hint = f"settle it in {definition.data.decisions}, which stands above the raw data"
        return Problem(code="decided_otherwise", message=message, field="checked_label", hint=hint)
    return None


# What was checked before.


def memory(paths: TaskPaths) -> dict[str, str]:
    """text_key -> the label that a person gave it last."""
    path = memory_file(paths)
    return {row["text_key"]: row["label"] for row in files.read_jsonl(path)} if path.is_file() else {}


def remember(paths: TaskPaths, checked: Sequence[Checked]) -> bool:
    """Adds to the memory. Returns whether anything was new."""
    path, known = memory_file(paths), memory(paths)
    new = [item for item in checked if known.get(item.text_key) != item.label]
    if new:
        before = files.read_jsonl(path) if path.is_file() else []
        added = [{"text_key": item.text_key, "label": item.label, "note": item.note} for item in new]
        files.write_jsonl(path, [*before, *added])
    return bool(new)


def unmerged(rows: Sequence[SheetRow], known: Mapping[str, str]) -> list[SheetRow]:
    """Rows in which a person wrote something that `merge` has not taken back yet."""
    return [row for row in rows if (row.checked_label or row.note) and known.get(row.text_key) != row.checked_label]


def move_aside(sheet: Path) -> Path:
    """Renames a sheet and the rows beside it out of the way; nothing is ever deleted."""
    number = 1
    while (aside := sheet.with_name(f"{sheet.stem}.{number}{sheet.suffix}")).exists():
        number += 1
    if pool_file(sheet).exists():
        pool_file(sheet).rename(pool_file(aside))
    return sheet.rename(aside)


def write_pool(sheet: Path, rows: Sequence[PoolRow]) -> None:
    """The rows without a label that the sheet shows; no file where it shows none."""
    if rows:
        files.write_jsonl(pool_file(sheet), [dataclasses.asdict(row) for row in rows])
    else:
        pool_file(sheet).unlink(missing_ok=True)


def read_pool(sheet: Path) -> dict[str, PoolRow]:
    """text_key -> row."""
    path = pool_file(sheet)
    return {row["text_key"]: PoolRow(**row) for row in files.read_jsonl(path)} if path.is_file() else {}
