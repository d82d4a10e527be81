"""Recognises data whose task type does not exist here, so that the refusal says what it is and what can be done."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tasklib import task_types
from tasklib.summary import Problem

TAG = re.compile(r"(O|[BIESMLU]-\S+)$")
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
TO_CLASSIFY = "to classify these texts, give a file with a text and one label in each row"


def existing() -> str:
    return f"types that exist: {', '.join(task_types.names())}"


def of_text(head: str, shown: str) -> Problem | None:
    """Layouts that are neither table nor JSON, by the first lines of a text file."""
    lines = head.splitlines()
    filled = [line for line in lines if line.strip() and not line.startswith("-DOCSTART-")]
    tokens = [parts for line in filled if 2 <= len(parts := line.split()) <= 5 and TAG.match(parts[-1])]
    words = sum(len(parts[0]) for parts in tokens) <= 15 * len(tokens)
    if len(filled) >= 5 and len(tokens) >= 0.9 * len(filled) and words and any(parts[-1] != "O" for parts in tokens):
        what = "named entities in CoNLL form: a character or word and its tag on each line"
        return _refusal(what, "ner", shown, TO_CLASSIFY)
    triples = [lines[start : start + 3] for start in range(0, min(len(lines) - 2, 60), 3)]
    if triples and all("$T$" in triple[0] and "$T$" not in triple[1] for triple in triples):
        what = "aspect sentiment, three lines an example: sentence with $T$, aspect term, polarity"
        hint = "put sentence, aspect and polarity into a table of three columns; judged without its aspect, a sentence "
        return _refusal(what, "aspect-sentiment", shown, hint + "with two aspects would have two labels")
    if len(filled) >= 3 and sum("__label__" in line for line in filled) >= 0.9 * len(filled):
        message = "the data are in fastText form: __label__NAME and a text on each line"
        hint = "save them as a table of two columns, label and text, without __label__"
        return Problem(code="foreign_layout", message=message, file=shown, hint=hint)
    return None


def of_rows(rows: Sequence[dict[str, Any]], shown: str) -> Problem | None:
    """Layouts of nested JSON and columns of other tasks, by the first rows."""
    rows = rows[:LOOKED_AT]
    for found in (_squad, _preference, _chat, _spans):
        for row in rows:
            if recognised := found(row):
                return _refusal(*recognised, shown, TO_CLASSIFY)
    return _instruction(rows, shown) or _pair(rows, shown) or _turned(rows, shown)


def _squad(row: dict[str, Any]) -> tuple[str, str] | None:
    data = row.get("data")
    inside = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else row
    if isinstance(inside.get("paragraphs"), list) or {"context", "question", "answers"} <= set(row):
        return "reading comprehension in SQuAD form: contexts, questions and answer spans", "extraction"
    return None


def _preference(row: dict[str, Any]) -> tuple[str, str] | None:
    if {"chosen", "rejected"} <= set(row):
        return "preference pairs: a chosen and a rejected answer", "preference (method dpo or orpo)"
    turns = row.get("messages", row.get("conversations"))
    flagged = isinstance(row.get("label", row.get("kto_tag")), bool)
    if flagged and (isinstance(turns, list) or {"prompt", "completion"} <= set(row)):
        return "unpaired preferences: a conversation and whether its answer is good", "preference (method kto)"
    return None


def _chat(row: dict[str, Any]) -> tuple[str, str] | None:
    turns = row.get("messages", row.get("conversations"))
    is_turns = isinstance(turns, list) and bool(turns) and isinstance(turns[0], dict)
    return ("conversations", "generation") if is_turns and {"role", "from"} & set(turns[0]) else None


def _spans(row: dict[str, Any]) -> tuple[str, str] | None:
    """Lists of {start, end, …} (or start_offset, begin), and Doccano's [start, end, label]."""
    for value in row.values():
        first = value[0] if isinstance(value, list) and value else None
        keys = set(first) if isinstance(first, dict) else set()
        as_list = isinstance(first, list) and len(first) == 3 and [type(part) for part in first] == [int, int, str]
        if as_list or {"start", "end"} <= keys or {"start_offset", "end_offset"} <= keys or {"begin", "end"} <= keys:
            return "entities with offsets and a label each", "entity-sentiment or ner"
    return None


def _instruction(rows: Sequence[dict[str, Any]], shown: str) -> Problem | None:
    """Alpaca form, unless its outputs are the labels of a classification."""
    outputs = [row["output"] for row in rows if {"instruction", "output"} <= set(row)]
    texts = [output for output in outputs if isinstance(output, str)]
    if not outputs or len(outputs) < len(rows):
        return None
    few = len(set(texts)) <= max(1, len(texts) // 2) and sum(map(len, texts)) <= 40 * len(texts)
    if texts and few and len(texts) > 1:
        return None
    return _refusal("instructions with an answer in free text (Alpaca form)", "generation", shown, TO_CLASSIFY)


def _pair(rows: Sequence[dict[str, Any]], shown: str) -> Problem | None:
    names = {name.lower() for row in rows for name in row}
    for pair in PAIRS:
        if names.issuperset(pair):
            hint = (
                f"put {pair[0]} and {pair[1]} into one column, as the model shall read them; or say --text-field and "
            )
            hint += "--label-field if one of them is enough"
            return _refusal(f"pairs of texts ({pair[0]} and {pair[1]})", "text-pair classification", shown, hint)
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


def _refusal(what: str, wanted: str, shown: str, more: str) -> Problem:
    hint = f"this is a task of type {wanted}; {existing()}; {more}"
    return Problem(
        code="unsupported_task_type", message=f"the data hold {what}", file=shown, field="task.type", hint=hint
    )
