"""From the values of the label column to task.labels, or to entity types, sentiments or stances: variants of one label,
numbers and their names, no labels."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from creation.columns import FEW_VALUES, MAX_DIFFERENT, Column, is_number
from tasklib.data import answers, text_faults
from tasklib.reading import encodings
from tasklib.summary import Problem

SHOWN = 60  # labels in one message
ROWS_OF_A_LABEL = 10  # on average, where a column has more than FEW_VALUES labels
AT = "task.labels"
SEVERAL = "multi_label_classification"
BEGIN_WITHOUT = "create the task with --labels a,b and no --data, then label the texts with its scripts/label_with.py"
_JOINED = re.compile(r"\s*[;；|、,，/／]\s*|\s+")  # what stands between several labels of one cell


@dataclass
class Labels:
    """What was made of one label column. `answers` maps a value in the data to what the model writes; None where the
    user gave them. `counts` are rows of each label, with its variants. `at` is the key of the definition that they go
    into, `least` how many a task needs, `column_flag` what names the column."""

    at: str = AT
    least: int = 2
    column_flag: str = "--label-field NAME"
    counts: dict[str, int] = field(default_factory=dict)
    answers: dict[str, str] | None = None
    why: str = ""
    warnings: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def warn(self, code: str, message: str, hint: str) -> None:
        self.warnings.append(Problem(code=code, message=message, field=self.at, hint=hint))

    def refuse(self, code: str, message: str, hint: str) -> None:
        self.problems.append(Problem(code=code, message=message, field=self.at, hint=hint))


def propose(column: Column, given: Any, names: Mapping[int, str] | None, **about: Any) -> Labels:
    """Labels out of the column. `given` are labels of the answers, which win; `names` belong to numbers in the data;
    `about` says what a task type other than classification needs (`at`, `least`, `column_flag`)."""
    labels = Labels(**about)
    counts = dict(column.counts)
    _refuse_types(labels, column)
    if given:
        if names:
            labels.refuse("usage", "labels and their names are given both", "give --labels or --label-names, not both")
        _compare(labels, column, counts, given)
    elif not labels.problems:
        _from_data(labels, column, counts, names)
    return labels


def _refuse_types(labels: Labels, column: Column) -> None:
    """Types of JSON and Parquet that 01_validate_data.py would refuse in every row."""
    for kind, what, hint in (
        (
            "list",
            "lists",
            f"a row gets one label here: write it as text; several labels for a row: --type {SEVERAL}",
        ),
        ("object", "objects", "write the label alone, as text"),
        ("boolean", "true and false", 'write them as text ("true"), or as names of the two classes'),
        (
            "fraction",
            "fractions",
            "write whole numbers or text; pandas makes fractions of numbers where one is missing",
        ),
    ):
        if kind in column.types:
            labels.refuse("label_type", f"column {column.name!r} holds {what}: {column.few(3)}", hint)


def _compare(labels: Labels, column: Column, counts: dict[str, int], given: Any) -> None:
    """Labels that the user gave beside those that stand in the data. What has a wrong shape the schema refuses."""
    wanted = list(map(str, given)) if isinstance(given, list | dict) else []
    labels.counts = {label: counts[label] for label in wanted if label in counts}
    labels.why = "given"
    others = {value: n for value, n in counts.items() if value not in wanted}
    if labels.counts:
        _warn_without_rows(labels, [label for label in wanted if label not in counts])
    if not wanted or not others:
        return
    listed = _listed(others)
    if labels.counts:
        hint = "01_validate_data.py names their lines, and with --fix mends those that differ in spaces, width or case"
        message = f"{len(others)} values of column {column.name!r} are no label: {listed}"
        labels.warn("labels_not_given", message, hint)
        return
    hint = f"{labels.column_flag} names another column"
    if isinstance(given, dict) and {str(answer) for answer in given.values()} & set(counts):
        hint = "they stand the other way round: --labels NAME-IN-DATA=WHAT-THE-MODEL-WRITES"
    labels.refuse("labels_unknown", f"none of the labels given stands in column {column.name!r}: {listed}", hint)


def _from_data(labels: Labels, column: Column, counts: dict[str, int], names: Mapping[int, str] | None) -> None:
    counts = _merged(labels, counts)
    labels.counts = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
    if not counts:
        labels.refuse("no_labels", f"column {column.name!r} is empty", BEGIN_WITHOUT)
    elif len(counts) < labels.least and not names:
        hint = "a model that always gives one answer needs no training: add rows of another class"
        labels.refuse("one_label", f"column {column.name!r} holds one value only: {_listed(counts)}", hint)
    elif len(counts) > max(FEW_VALUES, column.n_filled // ROWS_OF_A_LABEL) or len(counts) >= MAX_DIFFERENT:
        labels.refuse("too_many_labels", _too_many(column, counts), _too_many_hint(labels, counts))
    elif joined := _joined(counts):
        message = f"cells of column {column.name!r} hold several labels: {', '.join(map(repr, joined[:5]))}"
        hint = (
            f"a row gets one label here; several: --type {SEVERAL}; if they are labels of their own, list all labels "
        )
        hint += "with --labels"
        labels.refuse("several_labels", message, hint)
    elif names:
        _name(labels, column, counts, names)
    else:
        _as_they_stand(labels, counts)


def _merged(labels: Labels, counts: dict[str, int]) -> dict[str, int]:
    """Counts without variants: `財經 ` (3 rows) is `財經` but for stray spaces, and validation can mend it."""
    merged: dict[str, int] = {}
    by_form: dict[str, str] = {}
    for value, n in sorted(counts.items(), key=lambda pair: (_is_odd(pair[0]), -pair[1], pair[0])):
        form = "".join(char for char in answers.fold(value) if char.isprintable() and not char.isspace())
        label = by_form.get(form)
        difference = text_faults.label_difference(value, label) if label is not None else None
        if difference is None:
            by_form.setdefault(form, value)
            merged[value] = n
            continue
        merged[label] += n
        hint = "01_validate_data.py --fix mends it in a copy of the file"
        labels.warn(
            "label_variant", f"{text_faults.describe(value)} ({n} rows) is {label!r} but for {difference}", hint
        )
    return merged


def _is_odd(value: str) -> bool:
    """Spaces around a label, or characters that cannot be seen: the other form of it is the right one."""
    return value != value.strip() or not value.isprintable()


def _joined(counts: Mapping[str, int]) -> list[str]:
    """Values made of others: `財經;政治` where 財經 and 政治 are labels as well."""
    found = []
    for value in counts:
        parts = [part for part in _JOINED.split(value) if part]
        if len(parts) > 1 and all(part in counts for part in parts):
            found.append(value)
    return found


def _too_many(column: Column, counts: Mapping[str, int]) -> str:
    many = f"{MAX_DIFFERENT} or more" if len(counts) >= MAX_DIFFERENT else str(len(counts))
    each = f", {column.n_filled / len(counts):.1f} rows each" if len(counts) < MAX_DIFFERENT else ""
    return f"column {column.name!r} has {many} different values in {column.n_filled} rows{each}: {column.few()}"


def _too_many_hint(labels: Labels, counts: Mapping[str, int]) -> str:
    if all(map(is_number, counts)):
        return (
            "numbers on a scale are no labels, and no task type answers with them; if they are, list all with --labels"
        )
    parts = {part for value in counts for part in _JOINED.split(value) if part}
    if len(parts) * 3 < len(counts):
        return f"its cells seem to hold several labels each: --type {SEVERAL}"
    hint = "is it the label column? if so, put rare labels together in a copy, or list all with --labels"
    return f"{hint}; if not: {labels.column_flag}"


def _as_they_stand(labels: Labels, counts: dict[str, int]) -> None:
    numeric = all(map(is_number, counts))
    found = sorted(counts, key=lambda value: (float(value) if numeric else 0.0, value))
    labels.answers = {value: value for value in found}
    labels.why = "the values of the column"
    listed = _listed({value: counts[value] for value in found})
    hint = "check them before training; a mistyped one would become a class of its own"
    if numeric:
        shown = ",".join(f"{value}=…" for value in found[:3])
        hint = f"which names do these numbers stand for? give --label-names FILE, or --labels={shown}"
    labels.warn("labels_from_data", f"taken from the data: {listed}", hint)
    labels.warnings += near_misses(Counter(counts), labels.at)
    alike = [value for value in found if [answers.fold(other) for other in found].count(answers.fold(value)) > 1]
    if alike:
        message = f"as answers of a model {' and '.join(map(repr, alike))} cannot be told apart: width, case and outer "
        message += "punctuation do not count"
        shown = ",".join(f"{value}=…" for value in found[:4])
        labels.refuse("labels_alike", message, f"say what the model writes for each: --labels={shown}")


def _name(labels: Labels, column: Column, counts: dict[str, int], names: Mapping[int, str]) -> None:
    """Names for numbers. The keys stay as they stand in the data: `1.0` where the data have it so."""
    if not all(map(is_number, counts)):
        if set(counts) <= set(names.values()):
            labels.answers = {name: name for name in names.values()}
            labels.why = "the values of the column, in the order of the names file"
            return
        others = _listed({value: n for value, n in counts.items() if value not in names.values()})
        hint = f"names belong to numbers in the data: leave --label-names out, or {labels.column_flag}"
        labels.refuse("label_names", f"column {column.name!r} holds no numbers: {others}", hint)
        return
    if beyond := [value for value in counts if float(value) not in names]:
        legal = f"{min(names)} to {max(names)}"
        message = f"the data hold {', '.join(beyond[:5])}, and there are {len(names)} names, {legal}"
        hint = (
            "one name a line, the first is 0; for other numbers write `1,name` in each line; -1 often means that a row "
        )
        hint += "has no label: remove such rows in a copy"
        labels.refuse("label_names", message, hint)
        return
    fraction = all("." in value for value in counts)
    texts = {float(value): value for value in counts}
    labels.answers = {texts.get(float(n), f"{n}.0" if fraction else str(n)): name for n, name in names.items()}
    labels.why = "numbers in the data, with their names"
    _warn_without_rows(labels, [f"{label} ({name})" for label, name in labels.answers.items() if label not in counts])


def _warn_without_rows(labels: Labels, missing: list[str]) -> None:
    if missing:
        hint = f"a class without an example cannot be learned: remove it from {labels.at}, or add rows"
        labels.warn("label_without_rows", f"no row has the label {', '.join(missing[:20])}", hint)


def near_misses(counts: Counter[str], at: str = AT) -> list[Problem]:
    """Rare labels that look like a frequent one: Positve beside Positive, 財精 beside 財經."""
    warnings = []
    words = {label: n for label, n in counts.items() if not is_number(label)}
    for label, n in sorted(words.items()):
        frequent = [other for other, m in words.items() if m >= 10 * n]
        near = difflib.get_close_matches(label, frequent, n=1, cutoff=0.75)
        near = near or [other for other in frequent if n <= 2 and _one_character_apart(label, other)]
        for other in near[:1]:
            message = f"{label!r} ({n} rows) looks like {other!r} ({counts[other]} rows)"
            hint = "if it is a mistake, correct the file and create the task from the corrected copy"
            warnings.append(Problem(code="label_near_miss", message=message, field=at, hint=hint))
    return warnings


def _one_character_apart(label: str, other: str) -> bool:
    same_length = len(label) == len(other) > 1 and not label.isascii()
    return same_length and sum(a != b for a, b in zip(label, other, strict=True)) == 1


def _listed(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{value} ({n})" for value, n in list(counts.items())[:SHOWN])
    return shown + (f", … and {len(counts) - SHOWN} more" if len(counts) > SHOWN else "")


def names_file(path: Path) -> dict[int, str]:
    """Number -> name out of a file with one name a line, the first for 0, or with `0,finance` in each line. Raises
    OSError, and ValueError for a file without names, with one twice, or of another form."""
    text = path.read_text(encoding=encodings.CODECS[encodings.detect(path).encoding or "utf-8"])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[0][0] in "{[":
        raise ValueError(f"{path.name} is JSON; write one name a line, the first belongs to 0")
    pairs = [re.fullmatch(r"(-?\d+)\s*[,;:=\s]\s*(.+)", line) for line in lines]
    numbered = pairs[1:] if len(pairs) > 1 and pairs[0] is None else pairs  # below a line of column names
    if numbered and all(numbered):
        names = {int(pair[1]): pair[2] for pair in numbered}
        lines = [pair[2] for pair in numbered]
    else:
        names = dict(enumerate(lines))
    if twice := [name for name, n in Counter(lines).items() if n > 1]:
        raise ValueError(f"{path.name} holds {twice[0]!r} twice; every name stands once")
    if not names or len(names) < len(lines):
        raise ValueError(f"{path.name} must hold one label name a line, each for its own number")
    return names


def names_of(path: Path | None) -> dict[int, str] | Problem | None:
    """The names file, or the problem with it."""
    if path is None:
        return None
    try:
        return names_file(path)
    except (OSError, ValueError) as error:
        message = f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)
        hint = "one name a line; the first belongs to the label 0"
        return Problem(code="label_names", message=message, field="--label-names", hint=hint)
