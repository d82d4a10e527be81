"""From raw rows to checked examples: field mapping, the task type's checks, the checks of every text.

`scan` streams all files once and keeps a few numbers for each row, never the rows; `examples` reads the rows again.
What needs all rows at once (duplicates, leakage, outliers) works on those numbers, in `data_checks`.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasklib.data import personal_data, text_faults
from tasklib.data.decisions import Decision
from tasklib.paths import TaskPaths
from tasklib.reading import encodings
from tasklib.reading.formats import file_format
from tasklib.reading.records import Remark, Row, read_file
from tasklib.reading.times import posix_seconds
from tasklib.schema import SPLITS, FileSpec, TaskDefinition
from tasklib.summary import Findings, Problem

PLACES = ("all", *SPLITS)  # what the column `split` of the index counts in
ERRORS_OF_TEXT = {"nul_character", "lone_surrogate"}  # no model can read these; the rest is for a person to judge
CHUNK_ROWS = 1 << 20  # how many rows numpy looks at at once where it would copy a column
SHOWN_AMONG_ROWS, SHORT = 1000, 200  # rows looked at for some to show, and characters of their texts
SCRIPTS = (None, "traditional", "simplified", "mixed")


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


@dataclass(frozen=True)
class Index:
    """A few numbers for each readable row, in the order of reading; all arrays have shape (n_rows,).

    `text_key` and `group` are 64-bit hashes (group 0: none): among 10 million texts the chance that any two different
    ones share a key is 3 in a million. `passage` is the same kind of hash, of the text that rows with different
    questions share; it is 0 throughout where each row has a text of its own. `gold` is a 32-bit number, equal for equal
    gold answers of one text. `stratum` is a position in `strata` (labels that splits are stratified by), `file` one in
    `files`, `split` one in PLACES, `script` one in SCRIPTS. `time` is in POSIX seconds, NaN without a time field.
    `length` counts characters.
    """

    file: np.ndarray
    line: np.ndarray
    split: np.ndarray
    text_key: np.ndarray
    passage: np.ndarray
    gold: np.ndarray
    stratum: np.ndarray
    group: np.ndarray
    time: np.ndarray
    length: np.ndarray
    script: np.ndarray
    files: list[str]
    strata: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.line)

    def place(self, position: int) -> str:
        return f"{self.files[self.file[position]]}:{self.line[position]}"


@dataclass
class FileReport:
    """What was found in one raw file."""

    file: str
    split: str
    kind: str
    encoding: str
    delimiter: str | None
    n_rows: int = 0
    n_readable: int = 0


@dataclass
class Dataset:
    """The index of everything that could be read, and what is wrong with the rest."""

    index: Index
    findings: Findings
    files: list[FileReport]
    personal_data: Counter = field(default_factory=Counter)
    n_decided: int = 0

    @property
    def n_rows(self) -> int:
        return sum(report.n_rows for report in self.files)

    def label_counts(self, places: tuple[str, ...] = PLACES) -> Counter[str]:
        """Label -> rows, over the rows of some places; a row of several labels counts for each."""
        index, wanted = self.index, [PLACES.index(place) for place in places]
        per_stratum = np.zeros(len(index.strata), dtype=np.int64)
        for start in range(0, len(index), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            chosen = index.stratum[part][np.isin(index.split[part], wanted)]
            per_stratum += np.bincount(chosen, minlength=len(index.strata))
        counts: Counter[str] = Counter()
        for labels, n in zip(index.strata, per_stratum.tolist(), strict=True):
            for label in labels if n else ():
                counts[label] += n
        return counts

    def script_counts(self) -> dict[str | None, int]:
        """Script -> rows; None where the characters are the same in both."""
        return {name: int(np.count_nonzero(self.index.script == number)) for number, name in enumerate(SCRIPTS)}


def scan(paths: TaskPaths, definition: TaskDefinition) -> Dataset:
    """Reads and checks every raw file that the definition names. Bad rows become errors, never silence."""
    from tasklib.data import data_checks, decisions

    reading = _Reading(definition, decisions.load(paths, definition))
    for split, spec in _specs(definition):
        report = _report(paths, split, spec)
        reading.read(paths, spec, report)
    for decision in reading.decided.values():
        if decision not in reading.used:
            reading.findings.warning(decisions.unused(decision, definition))
    dataset = Dataset(reading.index(), reading.findings, reading.reports, reading.personal_data, reading.n_decided)
    data_checks.check(dataset, definition)
    return dataset


def _report(paths: TaskPaths, split: str, spec: FileSpec) -> FileReport:
    """How a file will be read, before any row is."""
    path = paths.root / spec.path
    found = file_format(path, spec.path, spec)
    if isinstance(found, Problem):
        return FileReport(spec.path, split, "unreadable", "", None)
    encoding = "" if found.kind in ("excel", "parquet") else encodings.actual(path, spec.encoding)
    return FileReport(spec.path, split, found.kind, encoding, found.delimiter)


def examples(paths: TaskPaths, definition: TaskDefinition) -> Iterator[Example]:
    """The readable rows once more, in the order of the index."""
    return (example for _, example in raw_examples(paths, definition))


def raw_examples(paths: TaskPaths, definition: TaskDefinition) -> Iterator[tuple[Row, Example]]:
    """The same, each with its raw row, all of its columns."""
    from tasklib.data import decisions

    module, decided = definition.task_type, decisions.load(paths, definition)
    group_by = definition.data.split.group_by
    for split, spec in _specs(definition):
        ids = _Ids(spec.path)
        for item in read_file(paths.root / spec.path, spec.path, spec):
            if not isinstance(item, Row):
                continue
            values, _ = _mapped(item, definition, decided)
            record, _ = module.read_record(values, definition.task)
            if record is None:
                continue
            record = module.normalized(record, definition.data.normalize, definition.task)
            group = item.values.get(group_by) if group_by else None
            yield (
                item,
                Example(
                    id=ids.of(item.line),
                    record=record,
                    split=split,
                    file=item.file,
                    line=item.line,
                    duplicate_key=duplicate_key(module.text_of(record)),
                    group=None if group in (None, "") else str(group),
                ),
            )


def short_examples(paths: TaskPaths, definition: TaskDefinition) -> list[tuple[Row, Example]]:
    """Two short rows of the beginning with an answer, to show what rows look like; none of a test file."""
    beginning = itertools.islice(raw_examples(paths, definition), SHOWN_AMONG_ROWS)
    module, options = definition.task_type, definition.task
    found = (pair for pair in beginning if pair[1].split != "test" and len(module.text_of(pair[1].record)) <= SHORT)
    return list(itertools.islice((pair for pair in found if module.answer(pair[1].record, options)), 2))


def duplicate_key(text: str) -> str:
    """Texts with the same key count as the same text: width, case and white space do not matter."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def text_key(text: str) -> str:
    """16 hexadecimal digits, the same for equal texts: to find a row again after files were renamed or split anew."""
    return f"{hash64(duplicate_key(text)):016x}"


def hash64(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1  # 0 stands for none


def _specs(definition: TaskDefinition) -> Iterator[tuple[str, FileSpec]]:
    """(split, file), train first, so that leakage is told of the other splits."""
    for split in PLACES:
        for spec in definition.data.files.get(split, []):
            yield split, spec


class _Ids:
    """`news.csv:7`; `news.json:1#2` for the second row of one line. Rows come in the order of their lines."""

    def __init__(self, path: str) -> None:
        self.name, self.line, self.n = path.removeprefix("data/raw/"), -1, 0

    def of(self, line: int) -> str:
        self.n = self.n + 1 if line == self.line else 1
        self.line = line
        return f"{self.name}:{line}" if self.n == 1 else f"{self.name}:{line}#{self.n}"


def _mapped(
    row: Row, definition: TaskDefinition, decided: Mapping[str, Decision]
) -> tuple[dict[str, Any], Decision | None]:
    """Role -> value of one row, with the label that a person decided for its text; and that decision."""
    values = {role: row.values.get(column) for role, column in definition.data.fields.items()}
    if decided and isinstance(text := values.get("text"), str) and (decision := decided.get(duplicate_key(text))):
        return {**values, "label": decision.label}, decision
    return values, None


class _Reading:
    """The columns of the index while they grow, and everything found on the way."""

    def __init__(self, definition: TaskDefinition, decided: Mapping[str, Decision]) -> None:
        self.definition, self.decided, self.module = definition, decided, definition.task_type
        self.findings, self.reports, self.personal_data, self.n_decided = Findings(), [], Counter(), 0
        self.file, self.line, self.split = array("H"), array("I"), array("B")
        self.text_key, self.gold, self.group, self.passage = array("Q"), array("I"), array("Q"), array("Q")
        self.stratum, self.length, self.time, self.script = array("i"), array("i"), array("d"), array("b")
        self.used: set[Decision] = set()
        self.strata: dict[tuple[str, ...], int] = {}
        self.golds: dict[Any, int] = {}

    def index(self) -> Index:
        """The columns as numpy sees them, without a copy; one that no row fills takes no memory either."""
        columns = (
            "file",
            "line",
            "split",
            "text_key",
            "passage",
            "gold",
            "stratum",
            "group",
            "time",
            "length",
            "script",
        )
        n_rows, arrays = len(self.line), {}
        for name in columns:
            column = getattr(self, name)
            empty = np.array(float("nan") if name == "time" else 0, dtype=column.typecode)
            filled = n_rows and len(column) == n_rows
            arrays[name] = np.frombuffer(column, dtype=column.typecode) if filled else np.broadcast_to(empty, n_rows)
        return Index(**arrays, files=[report.file for report in self.reports], strata=list(self.strata))

    def read(self, paths: TaskPaths, spec: FileSpec, report: FileReport) -> None:
        """Reads one file to its end. A mapped column that no row has is told once, instead of on every row."""
        self.reports.append(report)
        columns = [*self.definition.data.fields.values()]
        columns += [name for name in (self.definition.data.split.group_by, self._time_field()) if name is not None]
        of_file, outer = Findings(), self.findings
        self.findings = of_file
        absent, all_columns = set(columns), {}
        for item in read_file(paths.root / spec.path, spec.path, spec):
            if type(item) is Row:
                report.n_rows += 1
                if absent:
                    absent.difference_update(item.values)
                    all_columns.update(dict.fromkeys(item.values))
                    if absent and report.kind != "json":
                        break  # a table has the same columns in each row
                report.n_readable += self._row(item, PLACES.index(report.split))
            elif type(item) is Remark:
                of_file.warning(item.problem)
            else:
                report.n_rows += item.line is not None
                of_file.error(item)
        self.findings = outer
        for column in [name for name in dict.fromkeys(columns) if name in absent and report.n_rows and all_columns]:
            of_file.forget("missing_field", column)
            of_file.forget("no_time", column)
            of_file.error(_missing_column(column, list(all_columns), spec.path))
        outer.extend(of_file)

    def _time_field(self) -> str | None:
        return self.definition.data.split.time_field

    def _row(self, row: Row, place: int) -> bool:
        """Checks one row and, where it is readable, adds it to the index."""
        module, spec = self.module, self.definition.data
        values, decision = _mapped(row, self.definition, self.decided)
        readable = True
        texts = {role: text for role in module.TEXT_FIELDS if isinstance(text := values.get(role), str)}
        if any(isinstance(values.get(role), list | dict) for role in module.TEXT_FIELDS):
            texts = {}  # turns beside texts: all that they make is looked at below
        for role, text in texts.items():
            readable &= self._check_text(text, row, spec.fields[role])
        record, faults = module.read_record(values, self.definition.task)
        for fault in faults:
            at = row if fault.item is None or not row.item_lines else row._replace(line=row.item_lines[fault.item])
            self._error(at, fault.code, fault.message, spec.fields[fault.role], fault.hint)
        if record is not None and not texts:  # tokens, or a list of turns: the text that they make
            readable = self._check_text(self._all_text(record), row, next(iter(spec.fields.values())))
        if record is None or not readable:
            return False
        seconds = self._time(row) if spec.split.time_field else float("nan")
        if seconds is None:
            return False
        if decision:
            self.used.add(decision)
            self.n_decided += row.values.get(spec.fields["label"]) != decision.label
        record = module.normalized(record, spec.normalize, self.definition.task)
        text = module.text_of(record)
        self.file.append(len(self.reports) - 1)
        self.line.append(row.line)
        self.split.append(place)
        self.text_key.append(hash64(duplicate_key(text)))
        if module.passage_of is not module.text_of:
            self.passage.append(hash64(duplicate_key(module.passage_of(record))))
        self.gold.append(self._gold_number(module.gold(record)))
        self.stratum.append(self.strata.setdefault(module.strata(record), len(self.strata)))
        if spec.split.group_by:
            self.group.append(self._group(row))
        if spec.split.time_field:
            self.time.append(seconds)
        self.length.append(len(text))
        self.script.append(SCRIPTS.index(text_faults.script_of(text)))
        return True

    def _all_text(self, record: Any) -> str:
        """The text of a row and, where answers are open and no part of it, the answer."""
        text, options = self.module.text_of(record), self.definition.task
        if self.module.label_set(options) is not None or (answer := self.module.answer(record, options)) in text:
            return text
        return f"{text}\n{answer}"

    def _check_text(self, text: str, row: Row, column: str) -> bool:
        """Notes what is wrong with one text. Returns whether a model could read it."""
        readable = True
        for fault in text_faults.faults_in(text):
            hint = personal_data.masked(fault.hint, personal_data.findings(fault.hint))  # it may quote the text
            if fault.code in ERRORS_OF_TEXT:
                readable = False
                self._error(row, fault.code, fault.message, column, hint)
            else:
                self._warning(row, fault.code, fault.message, column, hint)
        for kind in dict.fromkeys(finding.kind for finding in personal_data.findings(text)):
            self.personal_data[kind] += 1
            hint = "remove or replace it if the model or the data will leave this machine"
            self._warning(row, "personal_data", f"the text holds personal data: {kind}", column, hint)
        return readable

    def _gold_number(self, gold: Any) -> int:
        """Equal golds, equal numbers: of a closed set its position, of open answers a hash."""
        if isinstance(gold, str) and self.module.label_set(self.definition.task) is not None:
            return self.golds.setdefault(gold, len(self.golds))
        return hash64(repr(gold)) & 0xFFFFFFFF

    def _group(self, row: Row) -> int:
        column = self.definition.data.split.group_by
        value = row.values.get(column)
        if value in (None, ""):
            hint = "fill the cell if the row belongs to a group"
            self._warning(row, "no_group", f"column {column!r} is empty: the row is split on its own", column, hint)
            return 0
        return hash64(str(value))

    def _time(self, row: Row) -> float | None:
        column = self._time_field()
        value = row.values.get(column)
        if (seconds := posix_seconds(value)) is None:
            hint = "write dates as 2026-11-22, with or without a time: a split by time needs one in every row"
            self._error(row, "no_time", f"{value!r} is no date", column, hint)
        return seconds

    def _error(self, row: Row, code: str, message: str, column: str | None, hint: str) -> None:
        self.findings.error(Problem(code=code, message=message, file=row.file, line=row.line, field=column, hint=hint))

    def _warning(self, row: Row, code: str, message: str, column: str | None, hint: str) -> None:
        self.findings.warning(
            Problem(code=code, message=message, file=row.file, line=row.line, field=column, hint=hint)
        )


def _missing_column(column: str, columns: list[str], file: str) -> Problem:
    near = difflib.get_close_matches(column, columns, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return Problem(
        code="missing_column",
        message=f"no column {column!r}",
        file=file,
        line=1,
        field=column,
        hint=f"{hint}columns: {', '.join(columns)}; correct task_definition.yaml"
        + ("; if the first line is a row and not a header, name the columns with `columns`" if not near else ""),
    )


def rows_of(index: Index, positions: np.ndarray) -> Index:
    """The index of some rows only."""
    columns = {name: value[positions] for name, value in vars(index).items() if isinstance(value, np.ndarray)}
    return dataclasses.replace(index, **columns)


def split_names(definition: TaskDefinition) -> tuple[str, ...]:
    """The splits that this task will have: those with files of their own, and those that a share is drawn for."""
    drawn = drawn_shares(definition)
    return tuple(name for name in SPLITS if name == "train" or name in definition.data.files or name in drawn)


def drawn_shares(definition: TaskDefinition) -> dict[str, float]:
    """The splits without files of their own -> the share of the remaining rows that is drawn for them."""
    files, spec = definition.data.files, definition.data.split
    shares = {name: getattr(spec, name) for name in ("validation", "test") if name not in files}
    return {name: share for name, share in shares.items() if share > 0}
