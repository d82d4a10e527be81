"""Looks at the rows before asking: which column is the text, which the label, which labels, which language; and why."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from creation import columns, labels, shapes
from creation.columns import Column, Table
from creation.sources import SPLIT_WORDS, Source, sample
from tasklib.data import text_faults
from tasklib.reading import encodings
from tasklib.reading.records import Format, Row, file_format
from tasklib.summary import Problem

TYPE = "classification"  # the only task type so far; shapes.py refuses what belongs to others
LEAST_TEXTS = 10  # different ones, where texts repeat
CLEARLY_LONGER = 2  # times: a text beside which another column of texts does not count
SPLIT_HINT = "to use it as your own splits, save one file for each: --train, --validation and --test FILE"


@dataclass
class Proposal:
    """What a new task will be, why (role -> reason), what is equally good, and what has to be said.

    `labels` maps a value in the data to what the model writes (None: given by the user), `counts` a label to its rows,
    `scripts` the writing of the texts to how many have it. `unreadable` are problems of files, not of the choice."""

    fields: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] | None = None
    counts: dict[str, int] = field(default_factory=dict)
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

    def shown(self) -> dict[str, Any]:
        """The proposal for the JSON summary."""
        return {
            "type": TYPE if self.fields else None,
            "fields": self.fields,
            "labels": self.counts,
            "answers": self.labels,
            "language": self.language,
            "script": self.script,
            "why": self.why,
        }

    def to_text(self) -> str:
        """The proposal for a reader."""
        lines = [
            f"{role}: column {name!r} ({self.why[role]})" for role, name in self.fields.items() if role in self.why
        ]
        if self.counts:
            listed = [f"{label} {n}" for label, n in list(self.counts.items())[:20]]
            lines.append(f"labels: {', '.join(listed)}" + (", …" if len(self.counts) > 20 else ""))
        if self.language:
            lines.append(f"language: {self.language} ({self.why['language']}); script: {self.script or 'none'}")
        return "\n".join(f"  {line}" for line in [f"proposal: {TYPE}", *lines])


def propose(
    sources: Sequence[Source],
    given: Mapping[str, Any],
    names: Mapping[int, str] | None,
    class_names: Mapping[str, Sequence[str]] | None = None,
) -> Proposal:
    """A proposal over all sources. `given` are the answers so far: fields, labels and language win over what is found.
    `names` are label names by number, from a names file; `class_names` by column, from a card of the Hub."""
    proposal = Proposal()
    fields = {role: name for role, name in dict(given.get("fields") or {}).items() if isinstance(name, str)}
    if refusal := _foreign(sources, {"text", "label"} <= set(fields)):
        proposal.problems.append(refusal)
        return proposal
    table = columns.read(sources)
    proposal.warnings, proposal.totals = list(table.faults.warnings), Counter(table.faults.totals)
    proposal.unreadable = table.problems
    if table.problems:
        return proposal
    _choose(proposal, table, fields, given.get("labels"))
    if not proposal.problems:
        _require_everywhere(proposal, table, sources)
    if not proposal.problems:
        _fill(proposal, table, given, names or _class_names(sources, proposal.fields["label"], class_names))
    return proposal


def _foreign(sources: Sequence[Source], is_named: bool) -> Problem | None:
    """The first source that belongs to another task type. Rows whose columns the user named are taken at his word."""
    for source in sources:
        found = file_format(source.path, str(source.path), source.spec())
        if isinstance(found, Format) and found.kind in ("table", "lines"):
            with encodings.open_text(source.path, source.spec().encoding) as stream:
                if problem := shapes.of_text(stream.read(1 << 14), str(source.path)):
                    return problem
        rows = [item.values for item in sample(source) if isinstance(item, Row)]
        if not is_named and (problem := shapes.of_rows(rows, str(source.path))):
            return problem
    return None


# Which column.


def _choose(proposal: Proposal, table: Table, fields: Mapping[str, str], given_labels: Any) -> None:
    """Takes the columns that the user named, or the only good ones; otherwise says which there are."""
    named = [name for role in ("text", "label") if (name := _given(proposal, table, role, fields.get(role)))]
    if len(named) == 2 and named[0] == named[1]:
        message, hint = f"text and label are both column {named[0]!r}", "name two columns"
        proposal.problems.append(Problem(code="illegal_value", message=message, field="data.fields", hint=hint))
    proposal.fields.update({role: name for role, name in fields.items() if role not in ("text", "label")})
    open_roles = [role for role in ("text", "label") if role not in fields]
    found = {}
    if "text" in open_roles:
        found["text"] = _texts([c for c in table.columns.values() if c.name not in named])
    if "label" in open_roles:
        text = [proposal.fields.get("text")] + [c.name for c, _ in found.get("text", [])]
        found["label"] = _labels(table, [name for name in text if name], given_labels)
    if "text" in open_roles and not found.get("label", True) and len(found["text"]) > 1:
        proposal.candidates = {role: _shown(options) for role, options in found.items()}
        proposal.problems.append(_text_to_text([column for column, _ in found["text"]]))
        return
    for role, options in found.items():
        _take(proposal, table, role, options)


def _given(proposal: Proposal, table: Table, role: str, name: str | None) -> str | None:
    if name is None:
        return None
    if name in table.columns:
        proposal.fields[role], proposal.why[role] = name, "given"
        return name
    near = difflib.get_close_matches(name, table.columns, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    hint += f"--{role}-field: one of {', '.join(table.columns)}"
    message, at = f"{name!r} is no column", f"data.fields.{role}"
    proposal.problems.append(Problem(code="missing_column", message=message, field=at, hint=hint))
    return None


def _texts(found: Sequence[Column]) -> list[tuple[Column, str]]:
    """Columns that may be the text, with the reason; those that are equally good, if more than one."""
    varied = [column for column in found if column.is_varied]
    varied = [column for column in varied if not column.is_repeated] or varied or _less_varied(found)
    named = [column for column in varied if columns.has_name(column.name, columns.TEXT_NAMES)]
    other = [column for column in varied if columns.has_name(column.name, columns.OTHER_NAMES)]
    likely = [c for c in varied if c in named or (c.is_prose and c not in other)] or varied
    fullest = max((column.n_filled for column in likely), default=0)
    likely = [column for column in likely if column.n_filled * 2 >= fullest]
    for column in named if len(named) == 1 and named[0] in likely else []:
        beside = [other for other in likely if other is not column]
        if all(column.mean_length >= CLEARLY_LONGER * other.mean_length for other in beside):
            return [(column, f"its name, and {_different(column)}")]
    if len(likely) == 1:
        which = "the only column of different texts" if len(varied) == 1 else "the only column of phrases"
        return [(likely[0], f"{which}: {_different(likely[0])}")]
    return [(column, _different(column)) for column in likely]


def _less_varied(found: Sequence[Column]) -> list[Column]:
    """Columns of texts where none has a different one in most rows: what users say to a shop, or rows put in twice."""
    texts = [c for c in found if c.types == {"text"} and not (c.is_number or c.is_date or c.is_code)]
    texts = [c for c in texts if c.n_different > 1 and not _label_name(c)]
    named = [c for c in texts if columns.has_name(c.name, columns.TEXT_NAMES)]
    return named or [c for c in texts if c.n_different >= LEAST_TEXTS]


def _different(column: Column) -> str:
    many = f"at least {column.n_different}" if column.n_different >= columns.MAX_DIFFERENT else column.n_different
    return f"{many} different texts of {column.mean_length:.0f} characters on average"


def _labels(table: Table, texts: Sequence[str], given: Any) -> list[tuple[Column, str]]:
    """Columns that may be the label, with the reason: by the labels given, by name, or because few values repeat."""
    others = [c for c in table.columns.values() if c.name not in texts and not _tells_split(c)]
    wanted = set(map(str, given)) if isinstance(given, list | dict) else set()
    matching = [c for c in others if wanted and c.counts and set(c.counts) <= wanted]
    if len(matching) == 1:
        return [(matching[0], "its values are the labels given")]
    ranks: dict[int, list[Column]] = {}
    for column in matching or others:
        named = _label_name(column)
        if named or column.is_repeated:
            ranks.setdefault(named, []).append(column)
    if not ranks:
        return []
    best = _without_twins(table, ranks[max(ranks)])
    twins = [column.name for column in ranks[max(ranks)] if column not in best]
    also = f"; {' and '.join(twins)} says the same" if twins else ""
    return [(column, _why_label(column, max(ranks), best) + also) for column in best]


def _label_name(column: Column) -> int:
    """2 for a column that is called label, 1 for one that may be, 0 for others. Long texts are no labels, whatever the
    name: `target` is the translation beside a `source`."""
    short = column.mean_length <= columns.LABEL_LENGTH and not column.is_date
    if not short or (column.is_varied and column.is_prose):
        return 0
    if columns.has_name(column.name, columns.LABEL_NAMES):
        return 2
    return int(columns.has_name(column.name, columns.MAYBE_LABEL_NAMES))


def _why_label(column: Column, rank: int, best: Sequence[Column]) -> str:
    values = f"{column.n_different} values: {column.few()}" if column.n_different > 1 else f"one value: {column.few()}"
    if not column.n_filled:
        return "its name; it is empty"
    if rank:
        return f"its name, and {values}"
    return f"the only column that repeats {values}" if len(best) == 1 else values


def _without_twins(table: Table, found: list[Column]) -> list[Column]:
    """Of two columns that say the same (0 and negative), the one in words."""
    kept: list[Column] = []
    for column in sorted(found, key=lambda column: column.is_number):
        if not any(columns.one_to_one(table.rows, column.name, other.name) for other in kept):
            kept.append(column)
    return [column for column in found if column in kept]


def _tells_split(column: Column) -> bool:
    return column.n_different > 0 and {value.strip().lower() for value in column.counts} <= set(SPLIT_WORDS)


def _shown(options: Sequence[tuple[Column, str]]) -> list[dict[str, str]]:
    return [{"value": column.name, "why": why} for column, why in options]


def _take(proposal: Proposal, table: Table, role: str, options: list[tuple[Column, str]]) -> None:
    flag, at = f"--{role}-field", f"data.fields.{role}"
    only = options[0][0] if len(options) == 1 else None
    says_other = only and role == "label" and not _label_name(only) and columns.has_name(only.name, columns.OTHER_NAMES)
    if only and not says_other:
        proposal.fields[role], proposal.why[role] = only.name, options[0][1]
        return
    proposal.candidates[role] = _shown(options)
    if only:
        message = (
            f"only column {only.name!r} repeats a few values ({only.few()}), and its name says that it is no label"
        )
        hint = f"if it is what the model shall answer: {flag} {only.name!r}; else: {_without_labels(table)}"
        problem = Problem(code="ambiguous_column", message=message, field=at, hint=hint)
    elif options:
        message = f"{len(options)} columns could be the {role}: {', '.join(c.name for c, _ in options[:20])}"
        hint = f"say which: {flag} NAME"
        hint += "; a text made of several columns is put together in the file first" if role == "text" else ""
        problem = Problem(code="ambiguous_column", message=message, field=at, hint=hint)
    else:
        message = f"no column looks like the {role}: {_listed(table)}"
        hint = f"say which: {flag} NAME" if role == "text" else f"say which: {flag} NAME; {_without_labels(table)}"
        problem = Problem(code="missing_column", message=message, field=at, hint=hint)
    proposal.problems.append(problem)


def _listed(table: Table) -> str:
    found = list(table.columns.values())
    listed = [f"{c.name} (different values: {c.n_different} in {c.n_filled} rows)" for c in found[:20]]
    return "; ".join(listed) + ("; …" if len(found) > 20 else "")


def _without_labels(table: Table) -> str:
    if len(table.columns) == 1 and (separator := shapes.separator(table.rows)):
        hint = f"every row holds {separator!r}: if that parts text and label, save them as a table of two columns, or "
        return hint + "write `delimiter` and `columns` for this file in data.files of --answers"
    return f"texts without labels: {labels.BEGIN_WITHOUT}"


def _text_to_text(found: Sequence[Column]) -> Problem:
    names = " and ".join(column.name for column in found)
    message = f"{names} hold a different text in every row, and no column repeats a few values: a text and its answer "
    message += "in free text"
    hint = (
        f"this is a task of type generation; {shapes.existing()}; if a column holds labels all the same: --label-field"
    )
    return Problem(code="unsupported_task_type", message=message, field="task.type", hint=f"{hint} NAME")


def _require_everywhere(proposal: Proposal, table: Table, sources: Sequence[Source]) -> None:
    """Every file must have the chosen columns: data.fields holds one name for all."""
    for place, source in enumerate(sources):
        own = [name for name, column in table.columns.items() if place in column.places]
        for role in ("text", "label"):
            if (name := proposal.fields[role]) not in own:
                message = f"no column {name!r}; it has {', '.join(own)}"
                hint = "give the columns of all files the same names, in copies of the files"
                problem = Problem(
                    code="missing_column",
                    message=message,
                    file=str(source.path),
                    field=f"data.fields.{role}",
                    hint=hint,
                )
                proposal.problems.append(problem)


# What the columns hold.


def _fill(proposal: Proposal, table: Table, given: Mapping[str, Any], names: Mapping[int, str] | None) -> None:
    text, label = (table.columns[proposal.fields[role]] for role in ("text", "label"))
    found = labels.propose(label, given.get("labels"), names)
    proposal.labels, proposal.counts = found.answers, found.counts
    proposal.why |= {"labels": found.why} if found.why else {}
    proposal.problems += found.problems
    proposal.warnings += found.warnings
    for role, column in (("text", text), ("label", label)):
        if 0 < column.n_filled < table.n_rows:
            message = f"{table.n_rows - column.n_filled} of {table.n_rows} rows have no {role}"
            hint = "01_validate_data.py names their lines: fill the cells or remove the rows in a copy"
            if role == "label" and column.n_filled * 2 < table.n_rows:
                hint += "; merged cells of a sheet hold their value in the first row alone"
            warning = Problem(code=f"no_{role}", message=message, field=f"data.fields.{role}", hint=hint)
            proposal.warnings.append(warning)
    if not text.types <= {"text"} or text.is_number:
        message = f"column {text.name!r} holds {text.few(3)}: no texts"
        hint = "name another --text-field, if these are not what the model reads"
        proposal.warnings.append(Problem(code="no_texts", message=message, field="data.fields.text", hint=hint))
    for column in table.columns.values():
        if _tells_split(column) and column is not label:
            message = f"column {column.name!r} says which split a row belongs to ({column.few()}); it is not used"
            proposal.warnings.append(Problem(code="split_column", message=message, field="data.split", hint=SPLIT_HINT))
    _speak(proposal, [row.get(text.name) for row in table.rows], given.get("language"))


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
        hint = "write prompt.instruction in task_definition.yaml if the prompt should be Simplified too"
        proposal.warnings.append(Problem(code="simplified_chinese", message=message, field="language", hint=hint))


def _script(text: str) -> str:
    """A script, `chinese` where its characters are the same in both, or `other`."""
    kana = any("\u3041" <= char <= "\u30fa" for char in text)
    chinese = any("\u4e00" <= char <= "\u9fff" for char in text)
    return (text_faults.script_of(text) or ("chinese" if chinese else "other")) if not kana else "other"
