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

    def label_counts(self, module: Any) -> Counter:
        return Counter(module.gold(example.record) for example in self.examples)


def load(paths: TaskPaths, definition: TaskDefinition) -> Dataset:
    """Reads and checks every raw file that the definition names. Bad rows become errors, never silence."""
    dataset = Dataset()
    for split, files in definition.data.files.items():
        for name in files:
            for item in read_rows(paths.root / name, name):
                if isinstance(item, Problem):
                    dataset.errors.append(item)
                    dataset.n_rows += item.line is not None
                    continue
                dataset.n_rows += 1
                if problem := _missing_columns(item, definition):
                    dataset.errors.append(problem)
                    break  # every later row of this file would say the same
                _add_row(dataset, item, split, definition)
    if not dataset.errors:
        dataset.errors += _corpus_errors(dataset, definition)
    dataset.warnings += _duplicate_warnings(dataset, definition)
    return dataset


def duplicate_key(text: str) -> str:
    """Texts with the same key count as the same text: width, case and white space do not matter."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def _missing_columns(row: Row, definition: TaskDefinition) -> Problem | None:
    """A mapped column that the file does not have at all (in JSON: that its first row does not have)."""
    wanted = list(definition.data.fields.values())
    if definition.data.split.group_by:
        wanted.append(definition.data.split.group_by)
    missing = [column for column in wanted if column not in row.values]
    if not missing or (row.file.endswith((".jsonl", ".json")) and any(column in row.values for column in wanted)):
        return None  # a JSON object may lack one key: that is the row's own fault and is reported there
    near = difflib.get_close_matches(missing[0], list(row.values), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return Problem(
        code="missing_column",
        message=f"no column {missing[0]!r}",
        file=row.file,
        line=1,
        field=missing[0],
        hint=f"{hint}columns: {', '.join(row.values)}; correct data.fields",
    )


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
            id=f"{row.file.rsplit('/', 1)[-1]}:{row.line}",
            record=record,
            split=split,
            file=row.file,
            line=row.line,
            duplicate_key=duplicate_key(module.text_of(record)),
            group=None if group in (None, "") else str(group),
        )
    )


def _corpus_errors(dataset: Dataset, definition: TaskDefinition) -> Iterator[Problem]:
    """What no single row shows: too few rows or labels, the same text in two of the user's own splits."""
    counts = dataset.label_counts(definition.task_type)
    if len(counts) < 2:
        yield Problem(
            code="one_class",
            message=f"only {len(counts)} label occurs in {len(dataset.examples)} rows",
            hint="a classifier needs at least two labels with rows",
        )
    first_seen: dict[str, Example] = {}
    for example in dataset.examples:
        first = first_seen.setdefault(example.duplicate_key, example)
        if first.split != example.split:
            yield Problem(
                code="leakage",
                message=f"the same text is in {first.split} ({first.file}:{first.line}) and in {example.split}",
                file=example.file,
                line=example.line,
                hint="remove one of the two: a score on trained rows means nothing",
            )


def _duplicate_warnings(dataset: Dataset, definition: TaskDefinition) -> Iterator[Problem]:
    module = definition.task_type
    same_text: dict[str, list[Example]] = defaultdict(list)
    for example in dataset.examples:
        same_text[example.duplicate_key].append(example)
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


def split_names(definition: TaskDefinition) -> tuple[str, ...]:
    """The splits that this task will have."""
    if "all" not in definition.data.files:
        return tuple(name for name in SPLITS if name in definition.data.files)
    spec = definition.data.split
    return tuple(name for name in SPLITS if name == "train" or getattr(spec, name) > 0)
