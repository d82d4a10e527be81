"""Recognises what no task can be made of as it stands, so that the refusal says what it is and what can be done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tasklib import task_types
from tasklib.summary import Problem

LOOKED_AT = 50  # rows that say what they are: the first alone may have an empty list
# Two texts that are judged together: columns of well-known data sets.
PAIRS = [("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("text1", "text2"),
         ("text_a", "text_b"), ("sentence_a", "sentence_b"), ("query", "passage"), ("query", "document")]  # fmt: skip
SEPARATORS = (
    "__label__",
    "|||",
    "::",
    "\x01",
    "\t",
    "|",
    ";",
    "#",
    "^",
    "~",
    "】",
    "]",
    "／",
    "/",
    "：",
    ":",
    "，",
    ",",
)


def existing() -> str:
    return f"types that exist: {', '.join(task_types.names())}"


def of_text(head: str, shown: str) -> Problem | None:
    """Layouts that are neither table nor JSON, by the first lines of a text file."""
    filled = [line for line in head.splitlines() if line.strip()]
    if len(filled) >= 3 and sum("__label__" in line for line in filled) >= 0.9 * len(filled):
        message = "the data are in fastText form: __label__NAME and a text on each line"
        hint = "save them as a table of two columns, label and text, without __label__"
        return Problem(code="foreign_layout", message=message, file=shown, hint=hint)
    return None


def of_rows(rows: Sequence[dict[str, Any]], shown: str, *, is_named: bool) -> Problem | None:
    """Layouts of nested JSON and columns of tasks that do not exist, by the first rows. `is_named`: the columns are
    known, from the user or by a form that was recognised; then pairs of texts are taken as they are."""
    rows = rows[:LOOKED_AT]
    return (
        _unpaired(rows, shown)
        or _numbered_tags(rows, shown)
        or (None if is_named else _pair(rows, shown) or _turned(rows, shown))
    )


def _unpaired(rows: Sequence[dict[str, Any]], shown: str) -> Problem | None:
    for row in rows:
        turns = row.get("messages", row.get("conversations"))
        flagged = isinstance(row.get("label", row.get("kto_tag")), bool)
        if flagged and (isinstance(turns, list) or {"prompt", "completion"} <= set(row)):
            hint = (
                "put the good and the bad answer to one prompt into one row (prompt, chosen, rejected): that is a task "
            )
            hint += "of type preference; or keep the good answers alone, without the flag: a task of type generation"
            what = "unpaired preferences (KTO form): a conversation and whether its answer is good"
            return _refusal(what, shown, hint)
    return None


def _numbered_tags(rows: Sequence[dict[str, Any]], shown: str) -> Problem | None:
    """Tokens beside tags that are numbers, as token classification on the Hub has them."""
    filled = [row for row in rows if isinstance(row.get("tokens"), list) and row["tokens"]]
    for name in filled[0] if filled else ():
        lists = [row.get(name) for row in filled]
        numbers = all(isinstance(tags, list) and all(type(tag) is int for tag in tags) for tags in lists)
        if "tag" in name and numbers and all(len(row[name]) == len(row["tokens"]) for row in filled):
            message = f"the tags in column {name!r} are numbers, and their names are not in the rows"
            hint = "write the names (B-PER, I-PER, …) in their place; with datasets: features[...].feature.int2str"
            return Problem(code="foreign_layout", message=message, file=shown, field="data.fields.tags", hint=hint)
    return None


def _pair(rows: Sequence[dict[str, Any]], shown: str) -> Problem | None:
    names = {name.lower() for row in rows for name in row}
    for pair in PAIRS:
        if names.issuperset(pair):
            hint = (
                f"put {pair[0]} and {pair[1]} into one column, as the model shall read them; or say --text-field and "
            )
            hint += "--label-field if one of them is enough"
            return _refusal(f"pairs of texts ({pair[0]} and {pair[1]}) to be judged together", shown, hint)
    return None


def _turned(rows: Sequence[dict[str, Any]], shown: str) -> Problem | None:
    """One JSON object that holds all rows: below a key, as columns, or by id."""
    if len(rows) != 1 or not rows[0]:
        return None
    row = rows[0]
    nested = {name: value for name, value in row.items() if isinstance(value, list | dict)}
    below = [name for name, value in nested.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    sizes = {len(value) for value in nested.values()}
    if len(below) == 1:
        message = f"the file is one object, and its rows lie below the key {below[0]!r}"
        hint = f"save the list below {below[0]!r} as a file of its own"
    elif len(nested) == len(row) > 1 and len(sizes) == 1 and max(sizes) > 1:
        by_id = all(isinstance(value, dict) and not all(key.isdigit() for key in value) for value in nested.values())
        message = f"the file is one object, {'a row for each key' if by_id else 'a list for each column'}"
        hint = "save one object for each row; with pandas: to_json(FILE, orient='records', lines=True)"
    else:
        return None
    return Problem(code="foreign_layout", message=message, file=shown, hint=hint)


def separator(rows: Sequence[dict[str, Any]]) -> str | None:
    """What parts text and label where both stand in one column: at one end of each row few values repeat."""
    texts = [value for row in rows for value in row.values() if isinstance(value, str)]
    for mark in SEPARATORS:
        parted = [text.split(mark) for text in texts if mark in text]
        if len(texts) < 4 or len(parted) < 0.9 * len(texts):
            continue
        for ends in (Counter(parts[-1].strip() for parts in parted), Counter(parts[0].strip() for parts in parted)):
            if 2 <= len(ends) <= min(50, len(parted) // 2):
                return mark
    return None


def _refusal(what: str, shown: str, hint: str) -> Problem:
    return Problem(
        code="unsupported_task_type",
        message=f"the data hold {what}",
        file=shown,
        field="task.type",
        hint=f"no task type reads these; {existing()}; {hint}",
    )
