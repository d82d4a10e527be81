"""From raw rows to checked examples: field mapping, the task type's checks, duplicates, leakage between splits."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tasklib.paths import TaskPaths
from tasklib.records import Row, read_rows
from tasklib.schema import SPLITS, TaskDefinition
from tasklib.summary import Problem


@dataclass(frozen=True)
class Example:
    """One checked row with where it came from. `split` is "all" until 02_convert_format.py decides."""

    id: str
    record: Any
    split: str
    file: str
    line: int
    duplicate_key: str
    group: str | None


@dataclass
class Dataset:
    """Everything that could be read, and everything that is wrong with the rest."""

    examples: list[Example] = field(default_factory=list)
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    n_rows: int = 0
    rows_at: Counter = field(default_factory=Counter)

    def label_counts(self, module: Any) -> Counter:
        return Counter(module.gold(example.record) for example in self.examples)


def load(paths: TaskPaths, definition: TaskDefinition) -> Dataset:
    """Reads and checks every raw file that the definition names. Bad rows become errors, never silence."""
    dataset = Dataset()
    for split in ("all", *SPLITS):  # train first, so that leakage is told of the other splits
        for name in definition.data.files.get(split, []):
            items = list(read_rows(paths.root / name, name))
            rows = [item for item in items if isinstance(item, Row)]
            problems = [item for item in items if isinstance(item, Problem)]
            dataset.n_rows += len(rows) + sum(problem.line is not None for problem in problems)
            missing = _missing_columns(rows, definition)
            dataset.errors += problems + missing
            if not missing:  # else every row of this file would say the same
                for row in rows:
                    _add_row(dataset, row, split, definition)
    if not dataset.errors:
        dataset.errors += _class_errors(dataset, definition)
    dataset.errors += _leakage_errors(dataset)
    dataset.warnings += _duplicate_warnings(dataset, definition)
    dataset.warnings += _ungrouped_warnings(dataset, definition)
    return dataset


def duplicate_key(text: str) -> str:
    """Texts with the same key count as the same text: width, case and white space do not matter."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def _missing_columns(rows: list[Row], definition: TaskDefinition) -> list[Problem]:
    """The mapped columns that no row of a file has. A JSON object that lacks one key is that row's own fault."""
    columns = list(dict.fromkeys(column for row in rows for column in row.values))
    wanted = [*definition.data.fields.values(), definition.data.split.group_by]
    problems = []
    for column in dict.fromkeys(wanted):
        if rows and column is not None and column not in columns:
            near = difflib.get_close_matches(column, columns, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            problems.append(
                Problem(
                    code="missing_column",
                    message=f"no column {column!r}",
                    file=rows[0].file,
                    line=1,
                    field=column,
                    hint=f"{hint}columns: {', '.join(columns)}; correct task_definition.yaml",
                )
            )
    return problems


def _add_row(dataset: Dataset, row: Row, split: str, definition: TaskDefinition) -> None:
    module, spec = definition.task_type, definition.data
    values = {role: row.values.get(column) for role, column in spec.fields.items()}
    record, faults = module.read_record(values, definition.task)
    for fault in faults:
        dataset.errors.append(
            Problem(
                code=fault.code,
                message=fault.message,
                file=row.file,
                line=row.line,
                field=spec.fields[fault.role],
                hint=fault.hint,
            )
        )
    if record is None:
        return
    record = module.normalized(record, spec.normalize)
    group = row.values.get(spec.split.group_by) if spec.split.group_by else None
    dataset.examples.append(
        Example(
            id=_new_id(dataset, f"{row.file.rsplit('/', 1)[-1]}:{row.line}"),
            record=record,
            split=split,
            file=row.file,
            line=row.line,
            duplicate_key=duplicate_key(module.text_of(record)),
            group=None if group in (None, "") else str(group),
        )
    )


def _new_id(dataset: Dataset, place: str) -> str:
    """`news.csv:7`; `news.json:1#2` for the second row of one line, or of two files with one name."""
    dataset.rows_at[place] += 1
    return place if dataset.rows_at[place] == 1 else f"{place}#{dataset.rows_at[place]}"


def _class_errors(dataset: Dataset, definition: TaskDefinition) -> Iterator[Problem]:
    counts = dataset.label_counts(definition.task_type)
    if len(counts) < 2:
        yield Problem(
            code="one_class",
            message=f"only {len(counts)} label occurs in {len(dataset.examples)} rows",
            hint="a classifier needs at least two labels with rows",
        )


def _leakage_errors(dataset: Dataset) -> Iterator[Problem]:
    """The same text, or the same group, in two of the user's own splits."""
    first_seen: dict[tuple[str, str], Example] = {}
    for example in dataset.examples:
        for what, key in (("text", example.duplicate_key), (f"group {example.group!r}", example.group)):
            if key is None:
                continue
            first = first_seen.setdefault((what, key), example)
            if first.split != example.split:
                yield Problem(
                    code="leakage",
                    message=f"the same {what} is in {first.split} ({first.file}:{first.line}) and in {example.split}",
                    file=example.file,
                    line=example.line,
                    hint="remove one of the two: a score on trained rows means nothing",
                )


def _duplicate_warnings(dataset: Dataset, definition: TaskDefinition) -> Iterator[Problem]:
    module = definition.task_type
    same_text: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in dataset.examples:
        same_text[example.split, example.duplicate_key].append(example)
    for first, *others in same_text.values():
        for other in others:
            golds = module.gold(first.record), module.gold(other.record)
            place = f"{first.file}:{first.line}"
            if golds[0] == golds[1]:
                yield Problem(
                    code="duplicate",
                    message=f"same text as {place}",
                    file=other.file,
                    line=other.line,
                    hint="duplicates are kept on one side of the split",
                )
            else:
                yield Problem(
                    code="contradicting_duplicate",
                    message=f"same text as {place}, but {golds[1]!r} here and {golds[0]!r} there",
                    file=other.file,
                    line=other.line,
                    hint="decide on one label; at most one of the two can be scored as right",
                )
    counts = dataset.label_counts(module)
    for label in module.label_set(definition.task) or {}:
        if counts[label] < 10 and dataset.examples:
            yield Problem(
                code="rare_label",
                message=f"label {label!r} has {counts[label]} rows",
                hint="below 10 rows its F1 says little; label more, or merge it",
            )


def _ungrouped_warnings(dataset: Dataset, definition: TaskDefinition) -> Iterator[Problem]:
    """Rows without a value in the column of `group_by`: nothing keeps them beside their relatives."""
    column = definition.data.split.group_by
    for example in dataset.examples if column else ():
        if example.group is None:
            yield Problem(
                code="no_group",
                message=f"column {column!r} is empty: the row is split on its own",
                file=example.file,
                line=example.line,
                field=column,
                hint="fill the cell if the row belongs to a group",
            )


def split_names(definition: TaskDefinition) -> tuple[str, ...]:
    """The splits that this task will have: those with files of their own, and those that a share is drawn for."""
    drawn = drawn_shares(definition)
    return tuple(name for name in SPLITS if name == "train" or name in definition.data.files or name in drawn)


def drawn_shares(definition: TaskDefinition) -> dict[str, float]:
    """The splits without files of their own -> the share of the remaining rows that is drawn for them."""
    files, spec = definition.data.files, definition.data.split
    shares = {name: getattr(spec, name) for name in ("validation", "test") if name not in files}
    return {name: share for name, share in shares.items() if share > 0}
