"""A new version of the raw data, data/raw/v2/: corrected labels and newly labelled rows; older files stay as they are.

The version freezes the split in files, train.jsonl, validation.jsonl and test.jsonl: were it drawn anew, a corrected
label would move other rows between train and test, and no score could be compared with an earlier one.
"""

from __future__ import annotations

import csv
import dataclasses
import filecmp
import io
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklib import documents, schema
from tasklib.data import dataset
from tasklib.data.label_sheets import label_role
from tasklib.data.sheet_cells import guard
from tasklib.exit_codes import ExitCode
from tasklib.files import to_json, write_text
from tasklib.paths import TaskPaths
from tasklib.schema import NOT_FOR_DRAWING, SPLITS, FileSpec, SplitSpec, TaskDefinition
from tasklib.summary import Problem, TaskError

CHANGES = "CHANGES.csv"
COLUMNS = ("text_key", "before", "old_label", "new_label", "reason", "note")


@dataclass(frozen=True)
class Checked:
    """The label that a person gave one text, and what stood beside it in the sheet."""

    text_key: str
    label: str
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class KnownRow:
    """A row of today's raw data: its place, its split and its label, decisions applied."""

    place: str
    split: str
    label: str


@dataclass(frozen=True)
class PoolRow:
    """A row without a label: where it came from and all of its columns."""

    text_key: str
    file: str
    line: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One row that differs between two versions; `old` is empty for a row that was not labelled before."""

    text_key: str
    place: str
    split: str
    old: str
    new: str
    reason: str
    note: str


def rows_of(
    paths: TaskPaths, definition: TaskDefinition, splits: Sequence[str], keys: set[str]
) -> dict[str, list[KnownRow]]:
    """text_key -> the rows that bear this text, for the keys asked for. `splits` names the split of each row, in the
    order of reading (`conversion.Plan`)."""
    module = definition.task_type
    found: dict[str, list[KnownRow]] = {}
    for split, example in zip(splits, dataset.examples(paths, definition), strict=True):
        key = dataset.text_key(module.text_of(example.record))
        if key in keys:
            row = KnownRow(f"{example.file}:{example.line}", split, module.gold(example.record))
            found.setdefault(key, []).append(row)
    return found


def changes(
    checked: Sequence[Checked], known: Mapping[str, Sequence[KnownRow]], pool: Mapping[str, PoolRow]
) -> list[Change]:
    """What the checked labels change, in the order of the sheet; nothing for a label that was confirmed."""
    found = []
    for item in checked:
        said = item.label, item.reason, item.note
        rows = known.get(item.text_key, ())
        found += [Change(item.text_key, r.place, r.split, r.label, *said) for r in rows if r.label != item.label]
        if not rows:
            new = pool[item.text_key]
            found.append(Change(item.text_key, f"{new.file}:{new.line}", "train", "", *said))
    return found


def write(
    paths: TaskPaths,
    definition: TaskDefinition,
    splits: Sequence[str],
    found: Sequence[Change],
    pool: Mapping[str, PoolRow],
) -> dict[str, str]:
    """Writes the next version and returns split -> its file, relative to the task folder.

    It is read back before it gets its name. A version of the same content that no definition names, left by a merge
    that was interrupted, is taken instead. Raises TaskError (exit 3) where the rows do not read back.
    """
    paths.raw.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.raw, prefix=".version.") as made:
        folder = Path(made) / "new"
        folder.mkdir()
        _write_rows(paths, definition, splits, found, pool, folder)
        write_text(folder / CHANGES, _changes_text(found))
        names = [name for name in SPLITS if (folder / f"{name}.jsonl").is_file()]
        n_new = sum(not change.old for change in found)
        _require_readable(paths, definition, {name: folder / f"{name}.jsonl" for name in names}, len(splits) + n_new)
        last = max(versions(paths), default=1)
        target = paths.raw / f"v{last}"
        if not _is_leftover(paths, definition, target, folder):
            target = paths.raw / f"v{last + 1}"
            folder.chmod(0o755)
            folder.rename(target)
    return {name: paths.shown(target / f"{name}.jsonl") for name in names}


def versions(paths: TaskPaths) -> list[int]:
    """The numbers of the versions in data/raw/; the first one is what the task began with and has no folder."""
    return sorted(int(p.name[1:]) for p in paths.raw.glob("v*") if re.fullmatch(r"v[1-9]\d*", p.name))


def _is_leftover(paths: TaskPaths, definition: TaskDefinition, old: Path, new: Path) -> bool:
    names = [path.name for path in new.iterdir()]
    if any((paths.root / path).is_relative_to(old) for path in definition.data.raw_paths):
        return False
    return old.is_dir() and filecmp.cmpfiles(old, new, names, shallow=False)[0] == names


def _write_rows(
    paths: TaskPaths,
    definition: TaskDefinition,
    splits: Sequence[str],
    found: Sequence[Change],
    pool: Mapping[str, PoolRow],
    folder: Path,
) -> None:
    """Every row with all its columns into the file of its split, the rows in their order; new rows behind train."""
    module, column = definition.task_type, definition.data.fields[label_role(definition)]
    corrected = {change.text_key: change.new for change in found if change.old}
    like: Any = ""
    streams = {name: (folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") for name in set(splits)}
    try:
        rows = dataset.raw_examples(paths, definition)
        for split, (row, example) in zip(splits, rows, strict=True):
            values, like = dict(row.values), row.values.get(column)
            label = corrected.get(dataset.text_key(module.text_of(example.record)))
            if label is not None and module.gold(example.record) != label:
                values[column] = _raw_label(label, like)
            streams[split].write(to_json(values) + "\n")
        for change in found:
            if not change.old:
                values = {**pool[change.text_key].values, column: _raw_label(change.new, like)}
                streams["train"].write(to_json(values) + "\n")
    finally:
        for stream in streams.values():
            stream.close()


def _raw_label(label: str, like: Any) -> Any:
    """A number where the data hold numbers."""
    is_number = isinstance(like, int) and not isinstance(like, bool) and re.fullmatch(r"0|-?[1-9]\d*", label)
    return int(label) if is_number else label


def _changes_text(found: Sequence[Change]) -> str:
    """The diff as CSV, with the mark by which Excel knows UTF-8."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for c in found:
        writer.writerow(map(guard, (c.text_key, c.place, c.old, c.new, c.reason, c.note)))
    return "\ufeff" + out.getvalue()


def _require_readable(paths: TaskPaths, definition: TaskDefinition, files: Mapping[str, Path], n_rows: int) -> None:
    """Raises TaskError (exit 3) unless the new files hold `n_rows` rows without an error."""
    specs = {name: [FileSpec(path=paths.shown(path))] for name, path in files.items()}
    data = definition.data.model_copy(update={"files": specs, "split": _split_left(definition, files)})
    read = dataset.scan(paths, definition.model_copy(update={"data": data}))
    problems = [dataclasses.replace(p, file=Path(p.file).name if p.file else None) for p in read.findings.errors]
    if not problems and len(read.index) != n_rows:
        message = f"{len(read.index)} of {n_rows} rows can be read back from the new version; nothing was changed"
        problems = [Problem(code="version_unreadable", message=message, hint="this is a bug: please report it")]
    if problems:
        raise TaskError(ExitCode.DATA, problems)


def _split_left(definition: TaskDefinition, files: Mapping[str, Any]) -> SplitSpec:
    """What of data.split still means something: nothing is drawn where every split has a file of its own."""
    spec = definition.data.split
    return SplitSpec(**spec.model_dump(include=set(NOT_FOR_DRAWING))) if set(SPLITS) <= set(files) else spec


# task_definition.yaml.


def edited_definition(text: str, shown: str, files: Mapping[str, str]) -> str:
    """The text of task_definition.yaml with `files` (split -> path) in the place of data.files. Keys of data.split that
    do nothing any more become comments; every other byte stays.

    Raises TaskError (exit 2) where the result would differ in anything else: then a person must write it.
    """
    is_frozen = set(SPLITS) <= set(files)

    def kept(data: dict[str, Any]) -> dict[str, Any]:
        split = data["data"].get("split") or {}
        return {key: split[key] for key in NOT_FOR_DRAWING if key in split}

    def changed(data: dict[str, Any]) -> None:
        left = kept(data)
        data["data"]["files"] = {name: [path] for name, path in files.items()}
        if is_frozen and "split" in data["data"]:
            del data["data"]["split"]
            data["data"] |= {"split": left} if left else {}

    def edit(plain: str, data: dict[str, Any]) -> str:
        frozen = is_frozen and "split" in data["data"]
        return _with_files(_with_split(plain, kept(data)) if frozen else plain, files)

    hint = "give `files:` and `split:` lines of their own below `data:`, then run the same command again"
    return schema.edited_definition(text, shown, ("data", "files"), edit, changed, hint)


def _with_files(text: str, files: Mapping[str, str]) -> str:
    """Comments that stand on lines of their own, or behind `files:`, are kept."""
    start, end = documents.span(text, ("data", "files"))
    newline = "\r\n" if "\r\n" in text else "\n"
    indent = " " * (start - text.rfind("\n", 0, start) - 1)
    head, *inside = text[start:end].splitlines()
    lines = [head.rstrip() if re.fullmatch(r"files:\s*(#.*)?", head) else "files:"]
    lines += [line.rstrip() for line in inside if line.lstrip().startswith("#")]
    lines += [f"{indent}  {name}: [{_scalar(path)}]" for name, path in files.items()]
    return text[:start] + newline.join(lines) + text[end:]


def _with_split(text: str, kept: Mapping[str, Any]) -> str:
    """What is kept of data.split, on one line; below it the lines that stood there, as comments."""
    start, end = documents.span(text, ("data", "split"))
    start = text.rfind("\n", 0, start) + 1
    newline = text.find("\n", end)
    end = len(text) if newline < 0 else newline
    commented = re.sub(r"(?m)^( *)(?=[^\s#])", r"\1# ", text[start:end])
    if not kept:
        return text[:start] + commented + text[end:]
    indent = re.match(" *", text[start:]).group()
    pairs = ", ".join(f"{key}: {_scalar(value)}" for key, value in kept.items())
    line = f"{indent}split: {{{pairs}}}" + ("\r\n" if "\r\n" in text else "\n")
    return text[:start] + line + commented + text[end:]


def _scalar(value: Any) -> str:
    """A scalar as YAML: text bare where nothing in it could mean something else."""
    bare = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./-]*", value, re.ASCII)
    return value if bare and value.lower() not in ("true", "false", "null") else to_json(value)
