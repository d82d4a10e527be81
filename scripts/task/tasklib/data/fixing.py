"""`--fix`: a cleaned copy beside each raw file, with a log of every change. Only what needs no judgement is mended.

Mended: encoding to UTF-8, control and invisible characters in texts and labels, emoji stored as two halves, labels that
differ from a legal one in nothing but spaces, width, case or invisible characters, rows that repeat an earlier row in
every cell (of 10 million rows it remembers 600 MB of hashes). Rows that cannot be read are left out of the copy and
logged with what is wrong; everything else is copied as it stands.
"""

from __future__ import annotations

import csv
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tasklib.data import text_faults
from tasklib.data.dataset import hash64
from tasklib.files import to_json
from tasklib.paths import TaskPaths
from tasklib.reading import encodings
from tasklib.reading.records import Format, Remark, Row, file_format, read_file
from tasklib.schema import FileSpec, TaskDefinition
from tasklib.summary import Problem


@dataclass(frozen=True)
class Fixed:
    """One cleaned copy. `changes` counts by code; `left_out` are the rows that could not be read."""

    source: str
    copy: str
    log: str
    changes: Counter
    left_out: int

    def to_text(self) -> str:
        """What was done, for people."""
        n_mended = sum(self.changes.values())
        left_out = f", {self.left_out} rows that cannot be read left out" if self.left_out else ""
        return f"{self.source} -> {self.copy} ({n_mended} mended{left_out}; log: {self.log})"


def fix(paths: TaskPaths, definition: TaskDefinition, *, dry_run: bool = False) -> list[Fixed]:
    """Writes `<name>.fixed.csv` (or .jsonl) and `<name>.fixed.log.jsonl` for each raw file in which something can be
    mended; the raw files stay as they are. An older copy is replaced."""
    found = []
    for specs in definition.data.files.values():
        for spec in specs:
            kind = file_format(paths.root / spec.path, spec.path, spec)
            done = _fix_file(paths, definition, spec, kind, dry_run) if isinstance(kind, Format) else None
            if done:
                found.append(done)
    return found


def _fix_file(
    paths: TaskPaths, definition: TaskDefinition, spec: FileSpec, kind: Format, dry_run: bool
) -> Fixed | None:
    """The cleaned copy of one file, or None where nothing needs mending."""
    source = paths.root / spec.path
    suffix = "jsonl" if kind.kind in ("json", "squad", "conll", "parquet") or spec.collect else "csv"
    copy, log = (source.with_name(f"{_stem(spec, definition)}.fixed.{end}") for end in (suffix, "log.jsonl"))
    mending = _Mending(definition, spec)
    with tempfile.TemporaryDirectory(dir=paths.root, prefix=".fix.") as folder:
        rows, journal = Path(folder) / "rows", Path(folder) / "log"
        with rows.open("w", encoding="utf-8", newline="") as out, journal.open("w", encoding="utf-8") as log_stream:
            write_row = _row_writer(out, suffix)
            for item in read_file(source, spec.path, spec, encodings.MEND):
                row, changes = mending.of(item)
                if row is not None:
                    write_row(row)
                log_stream.writelines(to_json(change) + "\n" for change in changes)
        if not mending.changes:
            return None
        if not dry_run:
            rows.replace(copy)
            journal.replace(log)
    return Fixed(spec.path, paths.shown(copy), paths.shown(log), mending.changes, mending.left_out)


def _stem(spec: FileSpec, definition: TaskDefinition) -> str:
    """The copy's name before `.fixed`: the file's own, with its extension where another file shares the rest."""
    path = Path(spec.path)
    alike = [name for name in definition.data.raw_paths if Path(name).with_suffix("") == path.with_suffix("")]
    return path.stem if len(alike) == 1 else path.name


class _Mending:
    """Goes through the rows of one file and remembers which rows it has seen, as hashes."""

    def __init__(self, definition: TaskDefinition, spec: FileSpec) -> None:
        module, fields = definition.task_type, definition.data.fields
        self.text_columns = [fields[role] for role in module.TEXT_FIELDS if role in fields]
        self.labels = list(module.label_set(definition.task) or {})
        role = next(role for role in module.FIELDS if role not in module.INPUT_FIELDS)
        self.label_column = fields.get(role) if self.labels else None
        self.changes: Counter[str] = Counter()
        self.left_out = 0
        self.seen: dict[int, int] = {}
        if spec.encoding != "utf-8":
            self.changes["encoding"] = 1

    def of(self, item: Row | Problem | Remark) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """The row for the copy, or None, and the entries of the log."""
        if isinstance(item, Remark):
            if item.problem.code != "joined_halves":
                return None, []
            self.changes["joined_halves"] += 1
            return None, [{"line": item.problem.line, "code": "joined_halves", "message": item.problem.message}]
        if isinstance(item, Problem):
            self.left_out += item.line is not None
            return None, [{"line": item.line, "code": item.code, "message": item.message, "left_out": True}]
        values, entries = self._mended(item)
        key = hash64(to_json(values))
        if key in self.seen:
            entries.append({"line": item.line, "code": "repeated_row", "same_as": self.seen[key], "left_out": True})
            values = None
        self.seen.setdefault(key, item.line)
        self.changes.update(entry["code"] for entry in entries)
        return values, entries

    def _mended(self, row: Row) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        values, entries = dict(row.values), []
        has_places = any(map(_is_nested, values.values()))
        for column in [*self.text_columns, self.label_column]:
            before = values.get(column)
            if not isinstance(before, str):
                continue
            after, codes = text_faults.mended(before)
            if column == self.label_column and before not in self.labels:
                alike = [label for label in self.labels if text_faults.label_difference(before, label)]
                after, codes = (alike[0], ["label_spelling"]) if len(alike) == 1 else (before, [])
            if has_places and len(after) != len(before):
                continue
            if after != before:
                values[column] = after
                shown = text_faults.describe(before), text_faults.describe(after)
                for code in codes:
                    change = {"line": row.line, "field": column, "code": code, "before": shown[0], "after": shown[1]}
                    entries.append(change)
        return values, entries


def _is_nested(value: Any) -> bool:
    """Whether a cell holds a list or an object, as JSON text too: it may count characters of a text beside it, which
    must not get longer or shorter then."""
    return isinstance(value, list | dict) or (isinstance(value, str) and value.lstrip()[:2] in ("[{", "[[", '{"'))


def _row_writer(stream: IO[str], suffix: str) -> Callable[[dict[str, Any]], None]:
    if suffix == "jsonl":
        return lambda values: stream.write(to_json(values) + "\n")
    writer = csv.writer(stream, lineterminator="\n")
    header: list[str] = []

    def write(values: dict[str, Any]) -> None:
        if not header:
            header.extend(values)
            writer.writerow(header)
        writer.writerow(values.values())

    return write
