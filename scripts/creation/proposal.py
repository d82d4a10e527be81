"""Looks at the rows before asking: which task type, which columns, labels and options, which language; and why."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from creation import columns, fitting, inventory, labels, recognition, shapes, text_and_label
from creation.columns import Column, Table
from creation.recognition import LABEL_OPTIONS, Reading, View
from creation.sources import Source, sample
from tasklib import task_types
from tasklib.data import text_faults
from tasklib.reading import encodings
from tasklib.reading.records import Format, Row, file_format
from tasklib.summary import Problem

TABLE = "classification"  # what a table of texts and labels is, where no other type is recognised
SEVERAL = "multi_label_classification"
SPLIT_HINT = "to use it as your own splits, save one file for each: --train, --validation and --test FILE"
LEAST_ROWS = 5  # from which different texts in every row say that one answers the other
TITLES = {"title", "headline", "標題", "标题"}
TITLE_LENGTH = 30  # characters on average, up to which what sums a text up is its title
INSTRUCTIONS = {
    "zh-TW": {"summary": "請寫出下面這段文字的摘要。", "title": "請為下面這段文字寫一個標題。"},
    "en": {"summary": "Write a summary of the following text.", "title": "Write a title for the following text."},
}
# Key of `task:` -> the roles whose cells hold its labels.
ROLES_OF = {
    "labels": ("label", "labels"),
    "entity_types": ("entities", "tags", "tagged"),
    "sentiments": ("sentiment", "pairs"),
    "stances": ("stance",),
}


@dataclass
class Proposal:
    """What a new task will be, why (role -> reason), what is equally good, and what has to be said.

    `labels` maps a value in the data to what the model writes (None: given by the user, or the type has none), and goes
    into the key `label_option` of `task:`; `options` are its other keys. `counts` is a label to its rows, `file` keys
    of FileSpec that the rows need, `sources` the sources that have them. `instruction` is what the prompt asks where
    rows do not say it, `sizes` are tokens of the longest prompt and answer, `scripts` the writing of the texts to how
    many have it. `unreadable` are problems of files, not of the choice."""

    type: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    label_option: str | None = None
    labels: dict[str, str] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    mentions: list[str] = field(default_factory=list)  # the first entities as the offsets are read
    options: dict[str, Any] = field(default_factory=dict)
    file: dict[str, Any] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    sizes: fitting.Sizes | None = None
    instruction: str | None = None
    language: str | None = None
    scripts: dict[str, int] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    candidates: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    warnings: list[Problem] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    unreadable: list[Problem] = field(default_factory=list)

    @property
    def script(self) -> str | None:
        """traditional, simplified, or mixed where neither has nine tenths of the texts that show one."""
        shown = {name: n for name, n in self.scripts.items() if name in ("traditional", "simplified", "mixed")}
        name, n = max(shown.items(), key=lambda pair: pair[1], default=(None, 0))
        return name if n >= 0.9 * sum(shown.values()) else "mixed"

    @property
    def task(self) -> dict[str, Any]:
        """`task:` as far as the data tell."""
        known = {self.label_option: self.labels} if self.label_option and self.labels else {}
        return {"type": self.type, **known, **self.options}

    def shown(self) -> dict[str, Any]:
        """The proposal for the JSON summary."""
        return {
            "type": self.type if self.fields else None,
            "fields": self.fields,
            "labels": self.counts,
            "answers": self.labels,
            "options": self.options,
            "file": self.file,
            "instruction": self.instruction,
            "language": self.language,
            "script": self.script,
            "mentions": self.mentions,
            "why": self.why,
        }

    def to_text(self) -> str:
        """The proposal for a reader."""
        why = f" ({self.why['type']})" if "type" in self.why else ""
        lines = [
            f"{role}: column {name!r}" + (f" ({self.why[role]})" if role in self.why else "")
            for role, name in self.fields.items()
        ]
        if self.counts:
            listed = [f"{label} {n}" for label, n in list(self.counts.items())[:20]]
            name = (self.label_option or "labels").replace("_", " ")
            lines.append(f"{name}: {', '.join(listed)}" + (", …" if len(self.counts) > 20 else ""))
        if self.mentions:
            lines.append(f"first mentions: {', '.join(map(repr, self.mentions))}")
        for name, value in {**self.options, **self.file}.items():
            text = json.dumps(value, ensure_ascii=False)
            lines.append(f"{name}: {text if len(text) <= 300 else text[:299] + '…'}")
        if self.instruction:
            lines.append(f"instruction: {self.instruction}")
        if self.language:
            lines.append(f"language: {self.language} ({self.why['language']}); script: {self.script or 'none'}")
        return "\n".join(f"  {line}" for line in [f"proposal: {self.type}{why}", *lines])


def propose(
    sources: Sequence[Source],
    given: Mapping[str, Any],
    names: Mapping[int, str] | None,
    class_names: Mapping[str, Sequence[str]] | None = None,
) -> Proposal:
    """A proposal over all sources. `given` are the answers so far, which win over what is found: `type`, `fields`,
    `labels` of whichever kind the type has, `task` with other keys of it, `language`. `names` are label names by
    number, from a names file; `class_names` by column, from a card of the Hub."""
    proposal = Proposal(sources=list(sources))
    fields = {role: name for role, name in dict(given.get("fields") or {}).items() if isinstance(name, str)}
    wanted = _wanted(given, fields)
    reading = _recognised(proposal, sources, fields, wanted)
    if proposal.problems:
        return proposal
    if reading and reading.type != TABLE:
        _read_as(proposal, reading, given, names, class_names)
    else:
        _table(proposal, reading, given, fields, names, class_names, wanted)
    if proposal.fields and not proposal.problems:
        task = {key: value for key, value in (given.get("task") or {}).items() if key not in LABEL_OPTIONS}
        if given.get("labels") and proposal.label_option:
            task[proposal.label_option] = given["labels"]
        fitting.fit(proposal, task, tell=proposal.type != TABLE)  # of a table its columns have told
    return proposal


def _wanted(given: Mapping[str, Any], fields: Mapping[str, str]) -> list[str]:
    """The task types that may be meant: the one given, or those that have the roles and the keys given."""
    if given.get("type"):
        return [given["type"]] if given["type"] in task_types.names() else task_types.names()
    options = [key for key in (given.get("task") or {}) if key != "type"]
    return recognition.types_with([*fields], options) or task_types.names()


def _recognised(
    proposal: Proposal, sources: Sequence[Source], fields: Mapping[str, str], wanted: Sequence[str]
) -> Reading | None:
    """The reading that all sources share; None for a table of texts and labels. What no task can be made of, and files
    of two kinds, are problems."""
    readings: list[tuple[Source, Reading | None]] = []
    for source in sources:
        if refusal := _foreign_text(source):
            proposal.problems.append(refusal)
            return None
        rows = [item.values for item in sample(source) if isinstance(item, Row)]
        if not rows:
            continue
        reading = recognition.recognise(View(rows, fields), wanted)
        is_named = reading is not None or {"text", "label"} <= {*fields}
        if refusal := shapes.of_rows(rows, str(source.path), is_named=is_named):
            proposal.problems.append(refusal)
            return None
        readings.append((source, reading))
    if not readings:
        return None
    first = next((reading for _, reading in readings if reading), None)
    for source, reading in readings:
        if (reading.type if reading else TABLE) != (readings[0][1].type if readings[0][1] else TABLE):
            proposal.problems.append(_files_differ(readings[0], (source, reading)))
            return None
    return first


def _foreign_text(source: Source) -> Problem | None:
    found = file_format(source.path, str(source.path), source.spec())
    if not (isinstance(found, Format) and found.kind in ("table", "lines")):
        return None
    with encodings.open_text(source.path, source.spec().encoding) as stream:
        return shapes.of_text(stream.read(1 << 14), str(source.path))


def _files_differ(one: tuple[Source, Reading | None], other: tuple[Source, Reading | None]) -> Problem:
    said = [
        f"{source.path.name} as {reading.type} ({reading.why})" if reading else f"{source.path.name} as {TABLE}"
        for source, reading in (one, other)
    ]
    hint = "give the files of one task alone; or say --type and --fields, if they are of one task all the same"
    message = f"the files read as different tasks: {' and '.join(said)}"
    return Problem(code="files_differ", message=message, file=str(other[0].path), field="task.type", hint=hint)


def _read(proposal: Proposal) -> Table | None:
    """All rows once, or None where a file has none."""
    table = columns.read(proposal.sources)
    proposal.warnings += table.faults.warnings
    proposal.totals = Counter(table.faults.totals)
    proposal.unreadable = table.problems
    return None if table.problems else table


# A table of texts and labels.


def _table(
    proposal: Proposal,
    reading: Reading | None,
    given: Mapping[str, Any],
    fields: Mapping[str, str],
    names: Mapping[int, str] | None,
    class_names: Mapping[str, Sequence[str]] | None,
    wanted: Sequence[str],
) -> None:
    """A classification; or what turns out to be another task: answers in free text, several labels in a cell."""
    table = _read(proposal)
    if table is None:
        return
    if TABLE not in wanted:
        _as_wanted(proposal, table, given, fields, names, class_names, wanted)
        return
    known = reading.fields if reading else {}
    texts = text_and_label.choose(proposal, table, {**known, **fields}, given.get("labels"))
    if reading:
        proposal.why |= {"type": reading.why} | {role: reading.why for role in known if role not in fields}
        _other_readings(proposal, reading)
    if texts:
        _free_text(proposal, table, texts, given, names, wanted)
        return
    if proposal.problems or not _require_everywhere(proposal, table):
        return
    proposal.type, proposal.label_option = TABLE, "labels"
    text, label = (table.columns[proposal.fields[role]] for role in ("text", "label"))
    found = labels.propose(label, given.get("labels"), names or _class_names(proposal.sources, label.name, class_names))
    if SEVERAL in wanted or not given.get("type"):
        wrong = {p.code for p in found.problems} or {p.code for p in found.warnings} & {"labels_not_given"}
        of_joined = wrong and wrong <= {"several_labels", "too_many_labels", "labels_unknown", "labels_not_given"}
        mark = _separator(label) if of_joined else None
        if mark and (not given.get("labels") or _are_joined(label, mark, given["labels"])):
            _start_again(proposal)
            chosen = {"text": text.name, "labels": label.name}
            why = f"cells of column {label.name!r} hold several labels, separated by {mark!r}"
            _read_as(proposal, Reading(SEVERAL, chosen, why, {"separator": mark}), given, names, class_names)
            return
    _take_labels(proposal, found)
    _empty_cells(proposal, table, ("text", "label"))
    _no_texts(proposal, text)
    _split_columns(proposal, table, label.name)
    _speak(proposal, [row.get(text.name) for row in table.rows], given.get("language"))


def _separator(column: Column) -> str | None:
    """What stands between labels: seen in the different cells, or where these are few in how often they come."""
    often = [value for value, n in column.counts.items() for _ in range(min(n, 20))]
    return inventory.separator_of(list(column.counts)) or inventory.separator_of(often)


def _are_joined(column: Column, mark: str, wanted: Any) -> bool:
    """Whether a cell holds several of the labels given, which are no cell of their own."""
    legal = {*map(str, wanted)}
    joined = (cell for cell in column.counts if mark in cell and cell not in legal)
    return any({part.strip() for part in cell.split(mark)} <= legal for cell in joined)


def _as_wanted(
    proposal: Proposal,
    table: Table,
    given: Mapping[str, Any],
    fields: Mapping[str, str],
    names: Mapping[int, str] | None,
    class_names: Mapping[str, Sequence[str]] | None,
    wanted: Sequence[str],
) -> None:
    """A task type was asked for, and no form of it was recognised: two columns of texts, several labels in a cell."""
    view = View(table.rows, fields)
    for reading in _plain_readings(view, table):
        if reading.type in wanted and {*fields} <= {*reading.fields}:
            _start_again(proposal)
            _read_as(proposal, reading, given, names, class_names)
            return
    forms = "; or ".join(" + ".join(form.required) for name in wanted for form in task_types.load(name).FORMS)
    missing = [(role, name) for role, name in fields.items() if name not in table.columns]
    for role, name in missing:
        proposal.problems.append(text_and_label.no_column(role, name, list(table.columns), "--fields"))
    if not missing:
        listed = ", ".join(list(table.columns)[:20])
        message = f"no columns that a task of type {' or '.join(wanted)} needs ({forms}) are recognised among {listed}"
        hint = f"say which: --fields {_example(wanted[0])}"
        if "entity_sentiment" in wanted:
            hint += f"; a column for each aspect: {recognition.melt_hint(None)}"
        proposal.problems.append(Problem(code="missing_column", message=message, field="data.fields", hint=hint))


def _plain_readings(view: View, table: Table) -> list[Reading]:
    """What a table may be beside a classification."""
    prose = [c.name for c in table.columns.values() if c.types == {"text"} and c.is_varied]
    found = [recognition.answered(view, prose, by_name=False), recognition.wide(view, sure=False)]
    text = view.text()
    for column in table.columns.values():
        if column.name != text and text and (mark := _separator(column)):
            why = f"cells of column {column.name!r} hold several labels, separated by {mark!r}"
            found.append(Reading(SEVERAL, {"text": text, "labels": column.name}, why, {"separator": mark}))
    return [reading for reading in found if reading]


def _example(task_type: str) -> str:
    return ",".join(f"{role}=COLUMN" for role in task_types.load(task_type).FORMS[0].required)


def _free_text(
    proposal: Proposal,
    table: Table,
    texts: Sequence[str],
    given: Mapping[str, Any],
    names: Mapping[int, str] | None,
    wanted: Sequence[str],
) -> None:
    """Columns of texts and nothing that repeats: texts and their answers."""
    reading = recognition.answered(View(table.rows), texts, by_name=False)
    enough = table.n_rows >= LEAST_ROWS or given.get("type")
    if reading and reading.type in wanted and enough and not given.get("labels"):
        _start_again(proposal)
        _read_as(proposal, reading, given, names, None)
        return
    listed = ", ".join(texts)
    message = f"{listed} hold a different text in every row, and no column repeats a few values"
    hint = "texts and their answers: --type generation --fields prompt=COLUMN,response=COLUMN (or document, summary); "
    hint += f"if a column holds labels all the same: --label-field NAME; texts without labels: {labels.BEGIN_WITHOUT}"
    proposal.problems.append(Problem(code="ambiguous_column", message=message, field="data.fields", hint=hint))
    proposal.candidates["text"] = [{"value": name, "why": "a different text in every row"} for name in texts]


def _start_again(proposal: Proposal) -> None:
    """Forgets what a table of texts and labels would be."""
    proposal.fields, proposal.why, proposal.candidates, proposal.problems = {}, {}, {}, []
    proposal.warnings = []


# Every other form.


def _read_as(
    proposal: Proposal,
    reading: Reading,
    given: Mapping[str, Any],
    names: Mapping[int, str] | None,
    class_names: Mapping[str, Sequence[str]] | None,
) -> None:
    """Columns, labels and options of a reading, over all rows."""
    module = task_types.load(reading.type)
    proposal.type, proposal.file = reading.type, dict(reading.file)
    proposal.sources = [source.having(**reading.file) for source in proposal.sources]
    table = _read(proposal)
    if table is None:
        return
    form = next(form for form in module.FORMS if {*form.required} <= {*reading.fields})
    order = [*form.required, *form.optional, *reading.fields]
    proposal.fields = {role: reading.fields[role] for role in order if role in reading.fields}
    proposal.why["type"] = reading.why
    _other_readings(proposal, reading)
    _which_answers(proposal, {*(given.get("fields") or {})})
    if not _require_everywhere(proposal, table):
        return
    _speak(proposal, _texts_of(proposal, table), given.get("language"))
    proposal.options = {key: value for key, value in reading.options.items() if key in module.Options.model_fields}
    proposal.label_option = next((name for name in LABEL_OPTIONS if name in module.Options.model_fields), None)
    if proposal.label_option:
        _inventory(proposal, table, given, names, class_names)
    _instruct(proposal, table, module, (given.get("prompt") or {}))
    _empty_cells(proposal, table, module.INPUT_FIELDS)
    _split_columns(proposal, table, *proposal.fields.values())


def _instruct(proposal: Proposal, table: Table, module: Any, prompt: Mapping[str, Any]) -> None:
    """Words for what the rows of some forms do not say themselves: a text and its summary."""
    form = next((form for form in module.FORMS if {*form.required} <= {*proposal.fields}), None)
    if form is None or form.asks or prompt.get("instruction"):
        return
    name = proposal.fields.get("summary", "")
    is_title = columns.has_name(name, TITLES) or (
        name in table.columns and table.columns[name].mean_length <= TITLE_LENGTH
    )
    what = "title" if is_title else "summary"
    proposal.instruction = INSTRUCTIONS[proposal.language][what]
    message = f"the rows do not say what is asked; the prompt begins with: {proposal.instruction}"
    hint = "write prompt.instruction in your own words: it is what every later text will be asked with"
    proposal.warnings.append(
        Problem(code="instruction_proposed", message=message, field="prompt.instruction", hint=hint)
    )


def _other_readings(proposal: Proposal, reading: Reading) -> None:
    if not reading.others:
        return
    options = [
        {"value": other.type, "why": f"{other.why}; --type {other.type} takes it"}
        for other in reading.others
        if other.type in task_types.names() and other.type != reading.type
    ]
    if options:
        proposal.candidates["type"] = options
        listed = ", ".join(f"--type {option['value']}" for option in options)
        message = (
            f"taken as {reading.type}: {reading.why}; it can also be read as {', '.join(o['value'] for o in options)}"
        )
        proposal.warnings.append(
            Problem(code="other_reading", message=message, field="task.type", hint=f"say otherwise with {listed}")
        )


def _which_answers(proposal: Proposal, given: AbstractSet[str]) -> None:
    """Two columns of texts, one of which answers the other: how to say it otherwise."""
    fields = proposal.fields
    roles = next((pair for pair in (("prompt", "response"), ("document", "summary")) if {*pair} <= {*fields}), None)
    if roles is None or {*roles} <= given or all(columns.plain_name(fields[role]) == role for role in roles):
        return
    first, second = (fields[role] for role in roles)
    message = f"{roles[0]} is column {first!r}, {roles[1]} column {second!r}: {proposal.why['type']}"
    a, b = (name if re.fullmatch(r"[\w.-]+", name) else shlex.quote(name) for name in (first, second))
    hint = f"if {first!r} answers {second!r}: --fields prompt={b},response={a}"
    if roles[0] == "document":
        hint += f"; if {second!r} answers {first!r}: --fields prompt={a},response={b}"
    proposal.warnings.append(Problem(code="which_answers", message=message, field="data.fields", hint=hint))


def _texts_of(proposal: Proposal, table: Table) -> list[str]:
    """What the first column holds, all strings of a cell in one."""
    column = next(iter(proposal.fields.values()))
    return [" ".join(_strings(recognition.as_json(row.get(column)))) for row in table.rows]


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in _strings(part)]


def _inventory(
    proposal: Proposal,
    table: Table,
    given: Mapping[str, Any],
    names: Mapping[int, str] | None,
    class_names: Mapping[str, Sequence[str]] | None,
) -> None:
    """The labels, entity types, sentiments or stances of all rows."""
    option = proposal.label_option
    role = next((role for role in ROLES_OF[option] if role in proposal.fields), None)
    if role is None:
        return
    name = proposal.fields[role]
    separator = (given.get("task") or {}).get("separator", proposal.options.get("separator"))
    counts = inventory.over(proposal.sources, role, name, separator if isinstance(separator, str) else None)
    column = Column(name, n_filled=counts.total(), n_counted=counts.total(), counts=dict(counts), types={"text"})
    least = 1 if option == "entity_types" else 2
    about = {"at": f"task.{option}", "least": least, "column_flag": f"--fields {role}=COLUMN"}
    named = names or _class_names(proposal.sources, name, class_names)
    wanted = given.get("labels")
    if not wanted and not named and (words := fitting.words_of_scale(counts, proposal.language)):
        wanted = words
        proposal.labels = words
        message = f"the numbers are taken as a scale: {', '.join(f'{n} is {word}' for n, word in words.items())}"
        hint = f"if they mean something else: --labels={','.join(f'{n}=…' for n in words)}"
        proposal.warnings.append(Problem(code="labels_from_scale", message=message, field=f"task.{option}", hint=hint))
    if "melt" in proposal.file and not wanted:
        _leave_out_stray(proposal, column, role)
    if role == "labels" and isinstance(separator, str):
        _other_separators(proposal, column, separator, wanted)
    found = labels.propose(column, wanted, named, **about)
    found.answers = found.answers or proposal.labels
    _take_labels(proposal, found)


def _leave_out_stray(proposal: Proposal, column: Column, role: str) -> None:
    """Cells of a wide table that are no polarity, beside many that are: `?` is no sentiment of its own."""
    known = {value for value in column.counts if recognition.is_polarity(value) or value in recognition.SCALE}
    stray = {value for value in {*column.counts} - known if column.counts[value] <= 0.02 * column.n_filled}
    if len(known) < 2 or not stray:
        return
    for value in stray:
        column.counts.pop(value)
    rows = inventory.rows_of(proposal.sources, role, column.name, None, stray)
    message = f"no polarity, and no sentiment of the task: {inventory.places(rows)}"
    hint = "correct or empty these cells in a copy of the file, and create the task from it: 01_validate_data.py "
    hint += "refuses them; if they are sentiments: list all with --labels"
    place = {"file": rows[0][0].file, "line": rows[0][0].line}
    proposal.warnings.append(Problem(code="stray_cells", message=message, field="task.sentiments", hint=hint, **place))


def _other_separators(proposal: Proposal, column: Column, separator: str, wanted: Any) -> None:
    """Cells that hold several labels as well, with another separator between them than the rest has."""
    listed = {*map(str, wanted)} if isinstance(wanted, list | dict) else set()
    mended = {}  # what stands there -> the mark in it, and what should stand there
    for value in {*column.counts} - listed:
        for mark in (mark for mark in inventory.SEPARATORS if mark in value):
            parts = [part.strip() for part in value.split(mark)]
            if {*parts} <= (listed or {*column.counts}):
                mended[value] = mark, separator.join(parts)
    if not mended:
        return
    rows = inventory.rows_of(proposal.sources, "labels", column.name, separator, {*mended})
    value = rows[0][1]
    marks = " and ".join(sorted({repr(mark) for mark, _ in mended.values()}))
    message = f"labels are separated by {separator!r}, and in {len(rows)} rows by {marks}: {inventory.places(rows)}"
    hint = f"write {mended[value][1]!r} instead of {value!r} in a copy of the file, and create the task from it; if "
    hint += "it is one label of its own, list all labels with --labels"
    place = {"file": rows[0][0].file, "line": rows[0][0].line}
    problem = Problem(code="mixed_separators", message=message, field="task.separator", hint=hint, **place)
    proposal.problems.append(problem)
    for value in mended:
        column.counts.pop(value)


def _take_labels(proposal: Proposal, found: labels.Labels) -> None:
    proposal.labels, proposal.counts = found.answers, found.counts
    proposal.why |= {"labels": found.why} if found.why else {}
    proposal.problems += found.problems
    proposal.warnings += found.warnings


# What the columns hold.


def _require_everywhere(proposal: Proposal, table: Table) -> bool:
    """Every file must have the chosen columns: data.fields holds one name for all."""
    n_before = len(proposal.problems)
    for role, name in proposal.fields.items():
        if name not in table.columns:
            flag = f"--{role}-field" if role in ("text", "label") else "--fields"
            proposal.problems.append(text_and_label.no_column(role, name, list(table.columns), flag))
    for place, source in enumerate(proposal.sources):
        own = [name for name, column in table.columns.items() if place in column.places]
        for role, name in proposal.fields.items():
            required = any(role in form.required for form in task_types.load(proposal.type or TABLE).FORMS)
            if name in table.columns and name not in own and (required or role not in ROLES_FREE_TO_MISS):
                message = f"no column {name!r}; it has {', '.join(own)}"
                hint = "give the columns of all files the same names, in copies of the files"
                at = f"data.fields.{role}"
                problem = Problem(code="missing_column", message=message, file=str(source.path), field=at, hint=hint)
                proposal.problems.append(problem)
    return len(proposal.problems) == n_before


ROLES_FREE_TO_MISS = ("system", "history", "input")  # a file may do without


def _empty_cells(proposal: Proposal, table: Table, roles: Sequence[str]) -> None:
    for role in roles:
        column = table.columns.get(proposal.fields.get(role, ""))
        if column is not None and 0 < column.n_filled < table.n_rows and role not in ROLES_FREE_TO_MISS:
            message = f"{table.n_rows - column.n_filled} of {table.n_rows} rows have no {role}"
            hint = "01_validate_data.py names their lines: fill the cells or remove the rows in a copy"
            if role == "label" and column.n_filled * 2 < table.n_rows:
                hint += "; merged cells of a sheet hold their value in the first row alone"
            warning = Problem(code=f"no_{role}", message=message, field=f"data.fields.{role}", hint=hint)
            proposal.warnings.append(warning)


def _no_texts(proposal: Proposal, text: Column) -> None:
    if not text.types <= {"text"} or text.is_number:
        message = f"column {text.name!r} holds {text.few(3)}: no texts"
        hint = "name another --text-field, if these are not what the model reads"
        proposal.warnings.append(Problem(code="no_texts", message=message, field="data.fields.text", hint=hint))


def _split_columns(proposal: Proposal, table: Table, *used: str) -> None:
    for column in table.columns.values():
        if text_and_label.tells_split(column) and column.name not in used:
            message = f"column {column.name!r} says which split a row belongs to ({column.few()}); it is not used"
            proposal.warnings.append(Problem(code="split_column", message=message, field="data.split", hint=SPLIT_HINT))


def _class_names(
    sources: Sequence[Source], label: str, from_card: Mapping[str, Sequence[str]] | None
) -> dict[int, str] | None:
    """The names of a ClassLabel column: from the card, or from the schema of a Parquet file that datasets wrote."""
    if from_card and label in from_card:
        return dict(enumerate(from_card[label]))
    for source in sources:
        found = file_format(source.path, str(source.path), source.spec())
        if not (isinstance(found, Format) and found.kind == "parquet"):
            continue
        from pyarrow import parquet

        metadata = parquet.read_schema(source.path).metadata or {}
        try:
            features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
            return dict(enumerate(features[label]["names"]))
        except (KeyError, TypeError, ValueError):
            continue
    return None


def _speak(proposal: Proposal, texts: Sequence[Any], given: Any) -> None:
    """The language of the default prompt and of the documents, by the writing of the texts."""
    scripts = Counter(_script(text) for text in texts if isinstance(text, str) and text.strip())
    total = scripts.total()
    chinese = total - scripts["other"]
    proposal.scripts = dict(scripts)
    proposal.language = given or ("zh-TW" if chinese * 5 >= max(1, total) else "en")
    proposal.why["language"] = "given" if given else f"{chinese} of {total} texts looked at are Chinese"
    counted = [f"{scripts[name]} {name}" for name in ("traditional", "simplified", "mixed") if scripts[name]]
    proposal.why["script"] = f"of {total} texts looked at: {', '.join(counted) or 'none shows one'}"
    if proposal.language == "zh-TW" and scripts["simplified"] + scripts["mixed"] > scripts["traditional"]:
        message = (
            f"of {total} texts {scripts['simplified']} are Simplified Chinese, {scripts['traditional']} Traditional, "
            f"{scripts['mixed']} mixed; the default prompt is Traditional"
        )
        hint = "write prompt.instruction in task_definition.yaml if the prompt should be Simplified too; if the texts "
        hint += "should be Traditional: data.normalize: [opencc_s2twp]"
        proposal.warnings.append(Problem(code="simplified_chinese", message=message, field="language", hint=hint))


def _script(text: str) -> str:
    """A script, `chinese` where its characters are the same in both, or `other`."""
    kana = any("\u3041" <= char <= "\u30fa" for char in text)
    chinese = any("\u4e00" <= char <= "\u9fff" for char in text)
    return (text_faults.script_of(text) or ("chinese" if chinese else "other")) if not kana else "other"
