"""A table of texts and labels: which column is the text, which the label, and why; or what else could be."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from creation import columns, labels, recognition, shapes
from creation.columns import Column, Table
from creation.sources import SPLIT_WORDS
from tasklib.summary import Problem

if TYPE_CHECKING:
    from creation.proposal import Proposal

LEAST_TEXTS = 10  # different ones, where texts repeat
CLEARLY_LONGER = 2  # times: a text beside which another column of texts does not count


def choose(proposal: Proposal, table: Table, fields: Mapping[str, str], given_labels: Any) -> list[str]:
    """Takes the columns that the user named, or the only good ones; otherwise says which there are. Columns that hold a
    different text in every row are returned where nothing beside them could be a label: texts and their answers."""
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
        return [column.name for column, _ in found["text"]]
    for role, options in found.items():
        _take(proposal, table, role, options)
    return []


def _given(proposal: Proposal, table: Table, role: str, name: str | None) -> str | None:
    if name is None:
        return None
    if name in table.columns:
        proposal.fields[role], proposal.why[role] = name, "given"
        return name
    proposal.problems.append(no_column(role, name, list(table.columns), f"--{role}-field"))
    return None


def no_column(role: str, name: str, names: Sequence[str], flag: str) -> Problem:
    """A column that the user named and no file has."""
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    hint += f"{flag}: one of {', '.join(names)}"
    message = f"{name!r} is no column"
    return Problem(code="missing_column", message=message, field=f"data.fields.{role}", hint=hint)


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
    others = [c for c in table.columns.values() if c.name not in texts and not tells_split(c)]
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


def tells_split(column: Column) -> bool:
    """Whether a column says which split a row belongs to."""
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
        view = recognition.View(table.rows, {"text": text} if (text := proposal.fields.get("text")) else {})
        if role == "label" and (wide := recognition.wide(view, sure=False)):
            hint += "; if each is an aspect with the opinion on it: --type entity_sentiment; by hand "
            hint += recognition.melt_hint(wide)
        problem = Problem(code="ambiguous_column", message=message, field=at, hint=hint)
    else:
        message = f"no column looks like the {role}: {_listed(table)}"
        hint = f"say which: {flag} NAME"
        hint += f"; {_as_answers(table)}{_without_labels(table)}" if role == "label" else ""
        problem = Problem(code="missing_column", message=message, field=at, hint=hint)
    proposal.problems.append(problem)


def _listed(table: Table) -> str:
    found = list(table.columns.values())
    listed = [f"{c.name} (different values: {c.n_different} in {c.n_filled} rows)" for c in found[:20]]
    return "; ".join(listed) + ("; …" if len(found) > 20 else "")


def _as_answers(table: Table) -> str:
    """How to say that one of two texts answers the other."""
    varied = [column.name for column in table.columns.values() if column.is_varied]
    if len(varied) != 2:
        return ""
    return f"if {varied[1]!r} answers {varied[0]!r}: --fields prompt={varied[0]},response={varied[1]}; "


def _without_labels(table: Table) -> str:
    if len(table.columns) == 1 and (separator := shapes.separator(table.rows)):
        hint = f"every row holds {separator!r}: if that parts text and label, save them as a table of two columns, or "
        return hint + "write `delimiter` and `columns` for this file in data.files of --answers"
    return f"texts without labels: {labels.BEGIN_WITHOUT}"
