"""The labelling sheet: a CSV that a model fills with proposals and a person with corrections, and what comes back.

A row is known by its `id`, a hash of its text: a text that changed on the way is noticed without any other file. A cell
that a spreadsheet would read as formula, number or date begins with one `'`: it is put there when the sheet is written
and taken away when it is read. Texts that begin with `'` themselves get a second one, so every text comes back as it
was. A spreadsheet that swallows the mark leaves a text that is still right.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasklib import documents, schema
from tasklib.data import text_faults
from tasklib.data.label_sheets import cell_text, label_role, meant_label, spec_of
from tasklib.data.sheet_cells import guard, unguard
from tasklib.documents import Document
from tasklib.exit_codes import ExitCode
from tasklib.files import to_json, write_text
from tasklib.model import prompts
from tasklib.paths import TaskPaths
from tasklib.reading.records import Row, read_rows
from tasklib.reading.table_rows import MAX_ROW_LINES
from tasklib.schema import TaskDefinition
from tasklib.summary import Problem, TaskError
from tasklib.writing.guide_texts import LABELLING

PERSONS = ("corrected_label", "checked", "note")
OF_RAW = "raw:"  # before the name of a column that the split needs: groups, times
YES = {"x", "v", "✓", "✔", "1", "y", "yes", "true", "ok", "是", "對"}
NO = {"", "0", "n", "no", "false", "否"}
MAX_CELL_CHARACTERS = 32_767  # of a cell in Excel


@dataclass(frozen=True)
class SheetRow:
    """One text with what model and person say of it. `values` holds role -> text, `extra` columns for the split."""

    id: str
    values: dict[str, str]
    line: int
    proposed: str = ""
    corrected: str = ""
    checked: str = ""
    note: str = ""
    extra: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether neither model nor person has said anything."""
        return not (self.proposed or self.corrected or self.checked)


# The shape of a sheet.


def extra_columns(definition: TaskDefinition) -> list[str]:
    """Columns of the raw data that the split needs beside text and label."""
    split, fields = definition.data.split, definition.data.fields.values()
    return [name for name in dict.fromkeys((split.group_by, split.time_field)) if name and name not in fields]


def id_of(values: Iterable[str]) -> str:
    """`t` and 15 hexadecimal digits; line ends do not matter, because spreadsheets change them. Never a number."""
    text = to_json([_line_ends(value) for value in values])
    return "t" + hashlib.sha256(text.encode()).hexdigest()[:15]


def _line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


# Reading and writing.


def read_sheet(path: Path, definition: TaskDefinition) -> tuple[list[SheetRow], list[Problem]]:
    """The rows of a sheet as a spreadsheet may have saved it: UTF-8, UTF-16 or Big5; commas, semicolons or tabs; Excel.

    Returns a problem for each row that cannot be read; whether texts and labels are right is for `reviewed` to say.
    """
    roles, extra = definition.task_type.INPUT_FIELDS, extra_columns(definition)
    wanted = ["id", *roles, "proposed_label", *PERSONS]
    rows, problems = [], []
    for item in read_rows(path, str(path), spec_of(path)):
        if isinstance(item, Problem):
            if item.code != "header_only":
                problems.append(dataclasses.replace(item, hint=item.hint or "save the sheet again as CSV UTF-8"))
        elif missing := [name for name in wanted if name not in item.values]:
            message = f"no column {', '.join(missing)}: this is not a labelling sheet of this task"
            hint = f"a sheet has the columns {', '.join(wanted)}; scripts/label_with.py propose writes one"
            return [], [*problems, Problem(code="not_a_sheet", message=message, file=str(path), line=1, hint=hint)]
        else:
            rows.append(_sheet_row(item, roles, extra))
    return rows, problems


def _sheet_row(row: Row, roles: Sequence[str], extra: Sequence[str]) -> SheetRow:
    cell = {name: unguard(cell_text(value)) for name, value in row.values.items()}
    return SheetRow(
        id=cell["id"].strip(),
        values={role: cell[role] for role in roles},
        line=row.line,
        proposed=cell["proposed_label"],
        corrected=cell["corrected_label"],
        checked=cell["checked"].strip(),
        note=cell["note"],
        extra={name: cell.get(OF_RAW + name, "") for name in extra},
    )


def sheet_text(rows: Iterable[SheetRow], definition: TaskDefinition) -> str:
    """The sheet as CSV, with the mark by which Excel knows UTF-8."""
    roles, extra = definition.task_type.INPUT_FIELDS, extra_columns(definition)
    out = io.StringIO()
    writer = csv.writer(out)  # the dialect of Excel
    writer.writerow(["id", *roles, "proposed_label", *PERSONS, *(OF_RAW + name for name in extra)])
    for row in rows:
        cells = [*(row.values[role] for role in roles), row.proposed, row.corrected, row.checked, row.note]
        writer.writerow([row.id, *map(guard, [*cells, *(row.extra.get(name, "") for name in extra)])])
    return "\ufeff" + out.getvalue()


# Proposing.


def read_texts(path: Path, definition: TaskDefinition) -> tuple[list[SheetRow], int, list[Problem]]:
    """The different texts of a file as rows of a sheet, the number of repeated ones, and a problem for each bad row."""
    from tasklib.data.dataset import ERRORS_OF_TEXT

    module, fields = definition.task_type, definition.data.fields
    spec, rows, problems, n_repeated = spec_of(path), {}, [], 0
    for item in read_rows(path, str(path), spec):
        if isinstance(item, Problem):
            problems.append(item)
            continue
        given = {fields[module.INPUT_FIELDS[0]]: item.values["text"]} if spec.format == "lines" else item.values
        values = {role: given.get(fields[role]) for role in module.INPUT_FIELDS}
        _, faults = module.read_input(values, definition.task)
        found = [(fault.code, fault.message, fields[fault.role], fault.hint) for fault in faults]
        for role, text in values.items() if not faults else ():
            bad = [fault for fault in text_faults.faults_in(text) if fault.code in ERRORS_OF_TEXT]
            found += [(fault.code, fault.message, fields[role], fault.hint) for fault in bad]
            if _line_ends(text).count("\n") >= MAX_ROW_LINES:
                message = f"the text has more than {MAX_ROW_LINES} lines, too many for one cell"
                found.append(("too_many_lines", message, fields[role], "split or shorten the text"))
        problems += [
            Problem(code=code, message=message, file=item.file, line=item.line, field=field, hint=hint)
            for code, message, field, hint in found
        ]
        if not found:
            row = SheetRow(id_of(values.values()), values, item.line, extra=_extra_of(item, definition))
            n_repeated += row.id in rows
            rows.setdefault(row.id, row)
    return list(rows.values()), n_repeated, problems


def _extra_of(row: Row, definition: TaskDefinition) -> dict[str, str]:
    return {name: cell_text(row.values.get(name)) for name in extra_columns(definition)}


def merged(texts: Sequence[SheetRow], sheet: Sequence[SheetRow]) -> list[SheetRow]:
    """The texts with everything an older sheet says of them; then the rows of the sheet that are not among the texts.

    Raises TaskError (exit 3) for a row that stands twice in the sheet: whichever were kept, words would be lost.
    """
    found: dict[str, SheetRow] = {}
    problems = []
    for row in sheet:
        if row.id in found:
            problems.append(_twice(row, found[row.id]))
        found.setdefault(row.id, row)
    if problems:
        raise TaskError(ExitCode.DATA, problems)
    kept = [
        dataclasses.replace(found.pop(row.id), values=row.values, extra=row.extra, line=row.line)
        if row.id in found
        else row
        for row in texts
    ]
    return [*kept, *found.values()]


def _twice(row: SheetRow, first: SheetRow) -> Problem:
    message = f"id {row.id!r} stands twice (first on line {first.line})"
    return Problem(code="row_twice", message=message, line=row.line, field="id", hint="keep one of the two rows")


def conversation(definition: TaskDefinition, row: SheetRow) -> list[prompts.Message]:
    """The task's own messages without worked examples; label definitions stand behind the instruction."""
    module, words = definition.task_type, LABELLING[definition.language]
    answers = module.label_set(definition.task)
    defined = getattr(definition.task, "label_definitions", {})
    lines = [words["line"].format(answer=answers[label], definition=text) for label, text in defined.items() if text]
    instruction = prompts.instruction(definition)
    if lines:
        instruction = "\n".join([instruction, "", words["definitions"], *lines])
    prompt = definition.prompt.model_copy(update={"instruction": instruction})
    asked = definition.model_copy(update={"prompt": prompt})
    record, _ = module.read_input(row.values, definition.task)
    record = module.normalized(record, definition.data.normalize, definition.task)
    return [*prompts.prefix_messages(asked, []), prompts.user_message(asked, record)]


# What a person said.


@dataclass(frozen=True)
class Reviewed:
    """The rows that a person decided, with their label; how many were corrected, confirmed, and not looked at."""

    rows: list[tuple[SheetRow, str]]
    n_corrected: int
    n_confirmed: int
    n_unreviewed: int


def reviewed(rows: Sequence[SheetRow], definition: TaskDefinition, shown: str) -> Reviewed:
    """A correction counts; a proposal counts only where the row is marked as checked; everything else stays out.

    Raises TaskError (exit 3) with every unknown or changed text, illegal label, illegal mark and repeated row.
    """
    decided: list[tuple[SheetRow, str]] = []
    problems, n_corrected, n_unreviewed = [], 0, 0
    seen: dict[str, SheetRow] = {}
    for row in rows:
        found = _row_problems(row, seen, definition)
        seen.setdefault(row.id, row)
        problems += [dataclasses.replace(problem, file=shown) for problem in found]
        if found:
            continue
        if label := row.corrected or (row.proposed if is_checked(row) else ""):
            decided.append((row, label))
            n_corrected += label != row.proposed
        else:
            n_unreviewed += 1
    if problems:
        raise TaskError(ExitCode.DATA, problems)
    return Reviewed(decided, n_corrected, len(decided) - n_corrected, n_unreviewed)


def is_checked(row: SheetRow) -> bool:
    return row.checked.casefold() in YES


def _row_problems(row: SheetRow, seen: dict[str, SheetRow], definition: TaskDefinition) -> list[Problem]:
    if row.id != id_of(row.values.values()):
        return [_changed_text(row)]
    if row.id in seen:
        return [_twice(row, seen[row.id])]
    if row.checked.casefold() not in YES | NO:
        hint = "write x where you checked the proposal, or leave it empty; remarks belong in `note`"
        return [_of_row(row, "illegal_mark", f"{row.checked!r} is no mark", "checked", hint)]
    if is_checked(row) and not (row.corrected or row.proposed):
        hint = "write the label into corrected_label, or take the mark away"
        return [_of_row(row, "no_label", "marked as checked, but there is no label", "checked", hint)]
    column = "corrected_label" if row.corrected else "proposed_label"
    label = row.corrected or (row.proposed if is_checked(row) else "")
    if not label:
        return []
    answers = definition.task_type.label_set(definition.task)
    if label not in answers:
        message = f"label {text_faults.describe(label)} is not in task.labels"
        return [_of_row(row, "unknown_label", message, column, meant_label(label, answers))]
    return []


def _changed_text(row: SheetRow) -> Problem:
    if not re.fullmatch(r"t[0-9a-f]{15}", row.id):
        message = f"id {row.id!r} is not one that propose wrote"
        hint = "new texts go through scripts/label_with.py propose, or into a file of data/raw/ of their own"
        return _of_row(row, "unknown_text", message, "id", hint)
    message = "the text is not the one that was proposed for: it was edited, or changed when the sheet was saved"
    hint = "run propose again with the same --input and --output: it restores the texts and keeps every correction"
    return _of_row(row, "changed_text", message, next(iter(row.values)), hint)


def _of_row(row: SheetRow, code: str, message: str, field: str, hint: str) -> Problem:
    return Problem(code=code, message=message, line=row.line, field=field, hint=hint)


def agreement(pairs: Sequence[tuple[str, str]]) -> dict[str, float | int | None]:
    """Rows, accuracy and Cohen's kappa of (proposal, decision) pairs; what is undefined is None.

    Kappa = (p_o - p_e) / (1 - p_e), p_e the agreement of independent raters with the same shares (Cohen 1960).
    """
    n = len(pairs)
    if not n:
        return {"rows": 0, "accuracy": None, "cohen_kappa": None}
    observed = sum(first == second for first, second in pairs) / n
    one, other = Counter(first for first, _ in pairs), Counter(second for _, second in pairs)
    expected = sum(one[label] * other[label] for label in one) / n**2
    kappa = None if expected == 1 else (observed - expected) / (1 - expected)
    return {"rows": n, "accuracy": observed, "cohen_kappa": kappa}


# The new raw version.


def raw_text(decided: Sequence[tuple[SheetRow, str]], definition: TaskDefinition) -> str:
    """The decided rows as CSV with the task's own columns, texts exactly as they were; and the notes, if any."""
    fields, role, extra = definition.data.fields, label_role(definition), extra_columns(definition)
    inputs = definition.task_type.INPUT_FIELDS
    header = [*(fields[name] for name in inputs), fields[role], *extra]
    has_notes = "note" not in header and any(row.note for row, _ in decided)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header + ["note"] * has_notes)
    for row, label in decided:
        cells = [*(row.values[name] for name in inputs), label, *(row.extra[name] for name in extra)]
        writer.writerow(cells + [row.note] * has_notes)
    return out.getvalue()


def versions(paths: TaskPaths, stem: str) -> dict[int, Path]:
    """Number -> data/raw/<stem>-v<number>.csv, those that exist."""
    pattern = re.compile(re.escape(stem) + r"-v([1-9]\d*)\.csv")
    files = paths.raw.iterdir() if paths.raw.is_dir() else ()
    return {int(match.group(1)): path for path in sorted(files) if (match := pattern.fullmatch(path.name))}


def write_version(paths: TaskPaths, stem: str, number: int, text: str) -> Path:
    """Writes data/raw/<stem>-v<number>.csv. Raises FileExistsError rather than overwrite one."""
    path = paths.raw / f"{stem}-v{number}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.open("x").close()  # takes the name; the next line puts the whole file in its place
    write_text(path, text)
    return path


# data.files.


@dataclass(frozen=True)
class FilesChange:
    """What must change in data.files: `path` is added to a split, or stands in the place of `instead_of`."""

    split: str
    path: str
    instead_of: str | None

    def __str__(self) -> str:
        what = f"put {self.path} in the place of {self.instead_of}" if self.instead_of else f"add {self.path}"
        return f"data.files.{self.split}: {what}"


def files_change(paths: TaskPaths, definition: TaskDefinition, path: str, stem: str) -> FilesChange | None:
    """A newer version replaces an older one of the same sheet, and the file that a task without data still waits for;
    any other file stays. None where `path` is listed already."""
    files = definition.data.files
    listed = [(split, spec.path) for split, specs in files.items() for spec in specs]
    if path in [name for _, name in listed]:
        return None
    older = {paths.shown(found) for found in versions(paths, stem).values()}
    for split, name in listed:
        if name in older or (len(listed) == 1 and not (paths.root / name).exists()):
            return FilesChange(split, path, name)
    return FilesChange("all" if "all" in files else "train", path, None)


def edited_definition(text: str, shown: str, change: FilesChange) -> str:
    """The text of task_definition.yaml with the change made and everything else, comments too, left as it is.

    Raises TaskError (exit 2) where the result would differ in anything but data.files: then a person must write it.
    """
    document = documents.parse_yaml(text.removeprefix("\ufeff"), shown)
    wanted = copy.deepcopy(document.data)
    items = wanted["data"]["files"][change.split]
    if change.instead_of is None:
        items.append(change.path)
        edited = _with_item(text, document, change, len(items) - 2)
    else:
        position = next(
            i for i, item in enumerate(items) if (item["path"] if isinstance(item, dict) else item) == change.instead_of
        )
        at = ("data", "files", change.split, position)
        if isinstance(items[position], dict):
            items[position]["path"], at = change.path, (*at, "path")
        else:
            items[position] = change.path
        edited = _with_other_path(text, document.lines[at], change)
    try:
        new = documents.parse_yaml(edited.removeprefix("\ufeff"), shown)
        schema.check_definition(new)
        if new.data == wanted:
            return edited
    except TaskError:
        pass  # the edit did not fit the way this file is written
    message = "data.files is written in a way that is not edited here; nothing was changed"
    hint = f"write it yourself: {change}"
    problem = Problem(
        code="not_edited", message=message, file=shown, line=document.line_of(("data", "files")), hint=hint
    )
    raise TaskError(ExitCode.USAGE, [problem])


def _with_item(text: str, document: Document, change: FilesChange, last: int) -> str:
    """The text with one more item behind item `last`, in a block list (`- path`) or in one line (`[a, b]`)."""
    at = ("data", "files", change.split, last)
    lines = text.splitlines(keepends=True)
    start = document.lines[at] - 1
    if dash := re.match(r"\s*- *", lines[start].removeprefix("\ufeff")):
        end = max(line for key, line in document.lines.items() if key[:4] == at)
        newline = "\r\n" if lines[start].endswith("\r\n") else "\n"
        if not lines[end - 1].endswith("\n"):
            lines[end - 1] += newline
        indent = dash.group().index("-")
        lines.insert(end, " " * indent + "- " + _scalar(change.path) + newline)
    elif (bracket := lines[start].rfind("]")) >= 0:
        lines[start] = lines[start][:bracket].rstrip() + f", {_scalar(change.path)}" + lines[start][bracket:]
    return "".join(lines)


def _with_other_path(text: str, line: int, change: FilesChange) -> str:
    lines = text.splitlines(keepends=True)
    old = re.compile("(['\"]?)" + re.escape(change.instead_of or "") + r"\1")
    lines[line - 1] = old.sub(lambda _: _scalar(change.path), lines[line - 1], count=1)
    return "".join(lines)


def _scalar(path: str) -> str:
    """A path as YAML: bare where nothing in it could mean something else."""
    return path if re.fullmatch(r"[A-Za-z][\w./-]*", path, re.ASCII) else to_json(path)
