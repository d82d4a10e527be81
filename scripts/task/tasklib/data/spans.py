"""Entities of a text as spans: reading them out of what people have, and what is wrong with them. Plain functions.

A span is {start, end, type}: code points, end exclusive. It comes from lists of spans (with offsets that may be
inclusive or counted in UTF-16), from tokens with tags (BIO, BIOES, BMES, BILOU) and from tags within the text.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasklib.data.answers import Fault

Span = dict[str, Any]  # {start, end, type}

START_KEYS, END_KEYS = ("start", "start_offset", "begin", "start_pos"), ("end", "end_offset", "end_pos")
TYPE_KEYS = ("type", "label", "labels", "entity_type", "entity_group", "tag")
TEXT_KEYS = ("text", "word", "mention", "surface")
_PREFIXES, _ENDS, _GOES_ON = set("BIESMLU"), set("ESLU"), set("IMEL")  # of BIO, BIOES, BMES, BILOU
_TAGGED = re.compile(
    r"<(?P<open>[^<>/\s][^<>]*)>(?P<inside>.*?)</(?P=open)>|\[(?P<named>[^\[\]]+)\]\((?P<type>[^()\n]+)\)", re.DOTALL
)
_LONE_TAG = re.compile(r"</?(?P<name>[^<>/\s][^<>]*)>")


def unknown_type(name: str, types: Sequence[str], role: str) -> Fault:
    near = difflib.get_close_matches(name, types, n=1)
    hint = (
        f"did you mean {near[0]!r}? " if near else ""
    ) + f"legal: {', '.join(types)}; or add it to task.entity_types"
    return Fault("unknown_type", f"entity type {name[:40]!r} is not in task.entity_types", role, hint)


# Lists of spans


def from_list(
    text: str, value: Sequence[Any], types: Sequence[str], *, inclusive: bool, utf16: bool
) -> tuple[list[Span], list[Fault]]:
    """The spans of a list of {start, end, type} (or doccano's [start, end, type]), in code points, sorted."""
    spans, faults = [], []
    places = _utf16_places(text) if utf16 else None
    for number, item in enumerate(value, start=1):
        parts = _parts(item)
        if parts is None:
            hint = "write {start: 0, end: 3, type: PER}, or [0, 3, PER]"
            faults.append(Fault("bad_span", f"entity {number} is no span ({str(item)[:60]})", "entities", hint))
            continue
        start, end, name, surface = parts
        end += inclusive
        found = None
        if name not in types:
            found = unknown_type(name, types, "entities")
        elif places is not None and (start not in places or end not in places):
            message = f"entity {number}: {start} to {end} are no places between characters in UTF-16"
            found = Fault(
                "span_out_of_range", message, "entities", f"the text has {len(places)} of them; correct the span"
            )
        else:
            given = start, end - inclusive
            start, end = (places[start], places[end]) if places is not None else (start, end)
            found = _range_fault(text, start, end, number, inclusive)
            if found is None and surface not in (None, text[start:end]):
                stands = f"{given[0]} to {given[1]} is {text[start:end][:40]!r}"
                message = f"entity {number}: {stands}, and its text is {surface[:40]!r}"
                found = Fault("span_mismatch", message, "entities", _why(text, *given, surface, inclusive, utf16))
            found = found or _edge_fault(text, start, end, number, inclusive, utf16)
        if found:
            faults.append(found)
        else:
            spans.append({"start": start, "end": end, "type": name})
    return in_order(spans), faults + ([] if faults else clashes(text, in_order(spans)))


def _parts(item: Any) -> tuple[int, int, str, str | None] | None:
    if isinstance(item, Mapping):
        start, end, name = (_first(item, keys) for keys in (START_KEYS, END_KEYS, TYPE_KEYS))
        name = name[0] if isinstance(name, list) and len(name) == 1 else name  # Label Studio
        surface = _first(item, TEXT_KEYS)
    elif isinstance(item, list) and len(item) == 3:
        (start, end, name), surface = item, None
    else:
        return None
    if type(start) is not int or type(end) is not int or not isinstance(name, str):
        return None
    return start, end, name, surface if isinstance(surface, str) else None


def _first(item: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((item[key] for key in keys if item.get(key) is not None), None)


def _range_fault(text: str, start: int, end: int, number: int, inclusive: bool) -> Fault | None:
    if 0 <= start < end <= len(text):
        return None
    shown = f"{start} to {end - inclusive}" + (" (inclusive)" if inclusive else "")
    message = f"entity {number}: {shown}, and the text has {len(text)} characters"
    hint = "a span begins at 0 and is not empty"
    if 0 <= start == end <= len(text) and not inclusive:
        hint = "it is empty: if ends are inclusive, write task.offsets: {end: inclusive}"
    elif end == len(text) + 1 and inclusive:
        hint = "if ends are exclusive, write task.offsets: {end: exclusive}"
    elif end > len(text) and any(ord(character) > 0xFFFF for character in text):
        hint = "if offsets count UTF-16 units, as JavaScript and Java do, write task.offsets: {unit: utf16}"
    return Fault("span_out_of_range", message, "entities", hint)


def _edge_fault(text: str, start: int, end: int, number: int, inclusive: bool, utf16: bool) -> Fault | None:
    words = text[start:end]
    if words == words.strip():
        return None
    message = f"entity {number}: {words[:40]!r} has white space at its edge"
    if not words.strip():
        return Fault("span_white_space", message, "entities", "it is nothing else: remove it")
    first, last = start + len(words) - len(words.lstrip()), end - len(words) + len(words.rstrip())
    hint = f"leave it out: {_offsets(text, first, last, inclusive, utf16)}"
    return Fault("span_white_space", message, "entities", hint)


def _offsets(text: str, start: int, end: int, inclusive: bool, utf16: bool) -> str:
    """A span, given in code points and exclusive, as offsets of a convention say it."""
    if utf16:
        start, end = (len(text[:place].encode("utf-16-le", "surrogatepass")) // 2 for place in (start, end))
    return f"{start} to {end - inclusive}"


def _why(text: str, start: int, end: int, surface: str, inclusive: bool, utf16: bool) -> str:
    """How offsets must be read, or changed, so that the words of the entity stand there; as they are given."""
    for other in ((not inclusive, utf16), (inclusive, not utf16), (not inclusive, not utf16)):
        if _words(text, start, end, *other) == surface:
            return _convention(*other, was=(inclusive, utf16))
    for shift, what in ((-1, "offsets count from 1: subtract 1"), (1, "offsets are one too small: add 1")):
        if _words(text, start + shift, end + shift, inclusive, utf16) == surface:
            return what
    place = text.find(surface)
    if place >= 0:
        at = _offsets(text, place, place + len(surface), inclusive, utf16)
        return f"the text has it at {at}: correct the span"
    return "the text does not hold it: correct the row"


def _words(text: str, start: int, end: int, inclusive: bool, utf16: bool) -> str | None:
    """What stands at offsets of a convention; None where there is no such place."""
    places = _utf16_places(text) if utf16 else range(len(text) + 1)
    if start not in places or end + inclusive not in places:
        return None
    return text[places[start] : places[end + inclusive]]


def _convention(inclusive: bool, utf16: bool, was: tuple[bool, bool]) -> str:
    """What to write for offsets of this convention where another one was declared."""
    ends, units = ("exclusive", "inclusive")[inclusive], ("code_points", "utf16")[utf16]
    why = [f"ends are {ends}"] if inclusive != was[0] else []
    if utf16 != was[1]:
        why.append("offsets count UTF-16 units, as JavaScript and Java do" if utf16 else "offsets count characters")
    keys = [f"end: {ends}"] if inclusive or inclusive != was[0] else []
    keys += [f"unit: {units}"] if utf16 or utf16 != was[1] else []
    return f"{' and '.join(why)}: write task.offsets: {{{', '.join(keys)}}}"


def _utf16_places(text: str) -> dict[int, int]:
    """Place between characters in UTF-16 units -> the same in code points."""
    places, units = {0: 0}, 0
    for number, character in enumerate(text, start=1):
        units += 2 if ord(character) > 0xFFFF else 1
        places[units] = number
    return places


def in_order(spans: Sequence[Span]) -> list[Span]:
    return sorted(spans, key=lambda span: (span["start"], span["end"], span["type"]))


def clashes(text: str, spans: Sequence[Span]) -> list[Fault]:
    """Spans that stand twice or overlap; `spans` are sorted."""
    faults = []
    for before, span in itertools.pairwise(spans):
        shown = f"{text[span['start'] : span['end']][:40]!r} ({span['start']} to {span['end']})"
        if before == span:
            faults.append(Fault("duplicate_span", f"{shown} stands twice", "entities", "remove one"))
        elif span["start"] < before["end"]:
            other = f"{text[before['start'] : before['end']][:40]!r} ({before['start']} to {before['end']})"
            hint = "entities of a text do not overlap here: keep the one that is meant, most often the longer"
            faults.append(Fault("overlapping_spans", f"{shown} overlaps {other}", "entities", hint))
    return faults


# Tokens with tags


def joined(tokens: Sequence[str]) -> tuple[str, list[int]]:
    """The text of a sentence's tokens, and where each begins. A space parts two tokens unless one of both edges is
    Chinese, Japanese or Korean; where every token is one character and one of them is such, there are no spaces."""
    by_character = all(len(token) == 1 for token in tokens) and any(_is_cjk(token) for token in tokens)
    text, starts = "", []
    for token in tokens:
        apart = text and token and not by_character and not _is_cjk(text[-1]) and not _is_cjk(token[0])
        text += " " if apart else ""
        starts.append(len(text))
        text += token
    return text, starts


def _is_cjk(character: str) -> bool:
    return character >= "\u2e80" and (
        "\u2e80" <= character <= "\u9fff"
        or "\uac00" <= character <= "\ud7af"
        or "\uf900" <= character <= "\ufaff"
        or "\uff00" <= character <= "\uffef"
        or "\U00020000" <= character <= "\U0003ffff"
    )


def from_tags(
    tokens: Sequence[str], tags: Sequence[str], types: Sequence[str], *, begin_orphans: bool
) -> tuple[str, list[Span], list[Fault]]:
    """Text and spans of tokens with BIO, BIOES, BMES or BILOU tags. An I- (M-, E-, L-) without a beginning of its type
    is a fault, or begins an entity (`begin_orphans`), as conlleval has it."""
    text, starts = joined(tokens)
    spans, faults, is_open = [], [], False
    for number, tag in enumerate(tags):
        prefix, _, name = tag.partition("-")
        if prefix == "O" and not name:
            is_open = False
            continue
        if prefix not in _PREFIXES or not name:
            faults.append(_bad_tag(number, tag, types))
            is_open = False
            continue
        if name not in types:
            faults.append(replace(unknown_type(name, types, "tags"), item=number))
        goes_on = is_open and prefix in _GOES_ON and spans and spans[-1]["type"] == name
        if prefix in _GOES_ON and not goes_on and not begin_orphans:
            faults.append(_orphan(number, tag, spans[-1]["type"] if is_open and spans else None))
        end = starts[number] + len(tokens[number])
        if goes_on:
            spans[-1]["end"] = end
        else:
            spans.append({"start": starts[number], "end": end, "type": name})
        is_open = prefix not in _ENDS
    faults += [fault for span in spans if (fault := _tagged_edge_fault(text[span["start"] : span["end"]]))]
    return text, spans, list({(fault.code, fault.message): fault for fault in reversed(faults)}.values())[::-1]


def _bad_tag(number: int, tag: str, types: Sequence[str]) -> Fault:
    legal = ["O", *(f"{prefix}-{name}" for name in types for prefix in sorted(_PREFIXES))]
    near = difflib.get_close_matches(tag, legal, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    hint += "legal: O, and B-, I-, E-, S-, M-, L- or U- with an entity type"
    return Fault("bad_tag", f"token {number + 1}: {tag[:40]!r} is no tag", "tags", hint, number)


def _tagged_edge_fault(words: str) -> Fault | None:
    if words and words == words.strip():
        return None
    message = f"entity {words[:40]!r} is empty or has white space at its edge"
    return Fault(
        "span_white_space", message, "tags", "tag a token that is empty or white space O at the edge of an entity"
    )


def _orphan(number: int, tag: str, before: str | None) -> Fault:
    what = f"goes on behind an entity of type {before}" if before else "goes on where no entity has begun"
    hint = "correct the tag; task.orphan_tags: begin lets it begin an entity, as conlleval does (and IOB1 files need)"
    return Fault("orphan_tag", f"token {number + 1}: {tag} {what}", "tags", hint, number)


# What mentions look like

LEAST_MENTIONS = 20  # fewer do not tell how their offsets count
# Of the variety of one reading, against that of another. Tried on samples of 60 to 1000 rows of Weibo NER, the People's
# Daily and FinEntity in each convention: no plain one was misread from 1.1 on.
MORE_VARIED = 1.2


def mentions(records: Sequence[Any]) -> list[str]:
    """The words of each entity of records with `text` and `entities`."""
    return [record.text[found["start"] : found["end"]] for record in records for found in record.entities]


def variety(records: Sequence[Any]) -> float:
    """How many more different strings mentions are with the next character than without; 0 for few mentions.

    It is largest where mentions end as words do: behind a whole name stands now this character, now that; behind one
    that is cut, always the same; a name with one character too many hardly comes again."""
    longer = {record.text[found["start"] : found["end"] + 1] for record in records for found in record.entities}
    found = mentions(records)
    return len(longer) / len({*found}) - 1 if len(found) >= LEAST_MENTIONS else 0


def convention(offsets: Mapping[str, str]) -> str:
    """Offsets as they are written in task_definition.yaml."""
    return "{" + ", ".join(f"{key}: {value}" for key, value in offsets.items()) + "}"


# Tags within the text


def from_inline(tagged: str, types: Sequence[str]) -> tuple[str, list[Span], list[Fault]]:
    """Text and spans of `<PER>王小明</PER>` and `[王小明](PER)`; other angle brackets and links are text."""
    text, spans, faults, place = "", [], [], 0
    for match in _TAGGED.finditer(tagged):
        name, inside = (match["open"] or match["type"]).strip(), match["inside"] if match["open"] else match["named"]
        if match["type"] and name not in types and not re.fullmatch(r"[\w.-]+", name):
            continue  # a link, or a remark in brackets
        text += tagged[place : match.start()]
        place = match.end()
        if name not in types:
            faults.append(unknown_type(name, types, "tagged"))
        if not inside.strip() or inside != inside.strip():
            hint = "let the tags stand directly around the words of the entity"
            faults.append(
                Fault(
                    "span_white_space", f"{match[0][:60]!r} is empty or begins or ends with white space", "tagged", hint
                )
            )
        if any(lone["name"] in types for lone in _LONE_TAG.finditer(inside)):
            hint = "entities of a text do not overlap here: keep the one that is meant"
            faults.append(Fault("overlapping_spans", f"{match[0][:60]!r} holds another tag", "tagged", hint))
        spans.append({"start": len(text), "end": len(text) + len(inside), "type": name})
        text += inside
    text += tagged[place:]
    for lone in _LONE_TAG.finditer(_TAGGED.sub("", tagged)):
        if lone["name"] in types:
            message = f"{lone[0]!r} has no partner"
            faults.append(
                Fault("lone_tag", message, "tagged", f"write <{lone['name']}>…</{lone['name']}> around the entity")
            )
    return text, spans, faults
