"""The answers that a question about a text accepts, as people have them: one, several, or SQuAD's with offsets."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from tasklib.data.answers import Fault

_SHOWN = 30  # characters of an answer in a message


def read_answers(value: Any, context: str, role: str) -> tuple[list[str], list[Fault]]:
    """The accepted answers in order, each once, and every fault of the row's.

    `value` is a text, a list of texts, SQuAD's `{text: […], answer_start: […]}` of the Hub, or a list of
    `{text, answer_start}` as in its files. An offset is checked against `context`; -1 and null say that there is none.
    """
    spans, faults = _spans(value, role)
    for text, start in spans:
        if start is not None and context and (fault := _misplaced(context, text, start, role)):
            faults.append(fault)
    references = list(dict.fromkeys(text.strip() for text, _ in spans))
    return ([], faults) if faults else (references, [])


def _spans(value: Any, role: str) -> tuple[list[tuple[str, int | None]], list[Fault]]:
    """(text, offset) of each answer."""
    if value is None:
        return [], [Fault("missing_field", f"{role} is missing", role, "fill the cell or remove the row")]
    if isinstance(value, str) and "answer_start" in value:  # SQuAD's object in a cell of a table
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            hint = "write it as JSON (json.dumps), or the text of the answer alone"
            return [], [Fault("wrong_type", f"{role} is an object printed as text, not JSON", role, hint)]
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        texts = texts if isinstance(texts, list) else [texts]
        starts = starts if isinstance(starts, list) else [starts] * len(texts)
        if len(texts) != len(starts):
            message = f"{role} has {len(texts)} texts and {len(starts)} offsets"
            return [], [Fault("wrong_nesting", message, role, "give each text its answer_start, or leave them all out")]
        value = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    elif not isinstance(value, list):
        value = [value]
    if not value:
        hint = "write what the model is to answer when the text does not say it, or remove the row"
        return [], [Fault("no_answer", f"{role} holds no answer", role, hint)]
    spans, faults = [], []
    for number, item in enumerate(value, start=1):
        text = item.get("text") if isinstance(item, dict) else item
        start = item.get("answer_start") if isinstance(item, dict) else None
        which = f"answer {number}" if len(value) > 1 else role
        if not isinstance(text, str):
            found = "missing" if text is None else f"{type(text).__name__} ({str(text)[:_SHOWN]}), not text"
            faults.append(Fault("wrong_type", f"{which} is {found}", role, "write a JSON string"))
        elif not text.strip():
            faults.append(Fault("empty_field", f"{which} is empty", role, "fill it, or remove the row"))
        elif start is not None and type(start) is not int:
            hint = "write the number of characters before the answer, or leave answer_start out"
            faults.append(Fault("wrong_type", f"{which} has the answer_start {start!r}", role, hint))
        else:
            spans.append((text, None if start == -1 else start))
    return spans, faults


def _misplaced(context: str, text: str, start: int, role: str) -> Fault | None:
    """Why a text does not stand where its offset says, or None where it does."""
    if start >= 0 and context.startswith(text, start):
        return None
    shown = repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
    if text not in context:
        message = f"the answer {shown} is not in the text, though answer_start is {start}"
        return Fault("answer_not_in_context", message, role, _why_absent(context, text))
    if not 0 <= start < len(context):
        message = f"answer_start {start} lies outside the text of {len(context)} characters"
    else:
        message = f"at {start} stands {context[start : start + min(len(text), _SHOWN)]!r}, not {shown}"
    return Fault("answer_offset", message, role, _why_elsewhere(context, text, start))


def _why_elsewhere(context: str, text: str, start: int) -> str:
    places = [place for place in range(len(context)) if context.startswith(text, place)]
    nearest = min(places, key=lambda place: abs(place - start))
    correct = f"correct the offset ({nearest}), or leave answer_start out: only the text is trained"
    if any(len(context[:place].encode("utf-16-le", "surrogatepass")) // 2 == start for place in places):
        return f"it counts UTF-16 units, in which an emoji is two; count characters: {correct}"
    if any(len(context[:place].encode("utf-8", "surrogatepass")) == start for place in places):
        return f"it counts bytes of UTF-8; count characters: {correct}"
    if nearest == start - 1:
        return f"off by one: it counts from 1, or a character before it was removed; {correct}"
    if nearest == start + 1:
        return f"off by one: a character before it was added; {correct}"
    return f"the text was changed after the offsets were made? {correct}"


def _why_absent(context: str, text: str) -> str:
    from tasklib.data import text_faults

    def folded(value: str) -> str:
        return "".join(unicodedata.normalize("NFKC", value).casefold().split())

    if folded(text) in folded(context):
        return "it differs in width, case or white space alone: write it as the text does"
    scripts = text_faults.script_of(text), text_faults.script_of(context)
    if set(scripts) == {"traditional", "simplified"}:
        return f"the answer is {scripts[0]} Chinese and the text {scripts[1]}: convert both alike"
    return "correct it, or leave answer_start out where answers need not be parts of the text"
