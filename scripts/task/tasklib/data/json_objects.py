"""JSON objects as answers: reading them strictly out of what a model wrote, and comparing what they hold."""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 32  # no answer is nested deeper; functions here and of jsonschema call themselves for each level


def loads(text: str) -> Any:
    """Strict JSON (RFC 8259). Raises ValueError for what Python's json would let through or change without a word: a
    key that stands twice, NaN and Infinity, a number too large for a float, half a surrogate pair, endless nesting."""
    value, end = _decode(text.strip())
    if end != len(text.strip()):
        raise ValueError(f"something follows the JSON value at character {end + 1}")
    return value


def dumps(value: Any) -> str:
    """Compact JSON: UTF-8 kept, keys in the order given, no spaces. Raises ValueError for NaN."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def only_object(text: str) -> dict[str, Any] | None:
    """The one JSON object in a text, which may stand in a code fence or between words; None where there is none, more
    than one, or one that is torn: what is inside a torn object is not taken for the whole."""
    return _only(text, "{")


def only_array(text: str) -> list[Any] | None:
    """The one JSON array in a text, under the same rules as `only_object`."""
    return _only(text, "[")


def _only(text: str, bracket: str) -> Any:
    said = text.rpartition("</think>")[2]
    start = said.find(bracket)
    if start < 0 or said.lstrip().startswith("<think>"):
        return None
    try:
        value, end = _decode(said[start:])
    except ValueError:
        return None
    return value if bracket not in said[start + end :] else None


def _decode(text: str) -> tuple[Any, int]:
    """The value that a text begins with, and where it ends."""
    try:
        value, end = _DECODER.raw_decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _require_plain(value)
    return value, end


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no JSON number")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite)


def _require_plain(value: Any, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError("half a surrogate pair is no character")
    if isinstance(value, dict):
        for key, inner in value.items():
            _require_plain(key, depth)
            _require_plain(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _require_plain(inner, depth + 1)


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, comparable value) of everything that an object holds; null, [] and {} hold nothing.

    An element of an array is compared as a whole, under the path of its array: an element that is an object is right or
    wrong with all its keys, otherwise values swapped between two elements would go unseen.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        yield from ((path, comparable(item)) for item in value if not is_nothing(item))
    elif value is not None:
        yield path, comparable(value)


def is_nothing(value: Any) -> bool:
    """Whether a value says that there is nothing: null, an empty array or an empty object."""
    return value is None or value == [] or value == {}


def comparable(value: Any) -> Any:
    """A hashable value, equal for what counts as the same: text after NFKC and without outer white space, 1 and 1.0
    (not true), arrays in any order, objects without regard to order or keys that hold nothing."""
    if isinstance(value, str):
        return unicodedata.normalize("NFKC", value).strip()
    if isinstance(value, list):
        return "array", frozenset(Counter(comparable(item) for item in value).items())
    if isinstance(value, dict):
        return "object", frozenset((key, comparable(inner)) for key, inner in value.items() if not is_nothing(inner))
    return type(value) is bool, value


def squeezed(text: str) -> str:
    """A text without white space, width and case: a value that is written otherwise is told from an absent one."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def texts_in(value: Any) -> Iterator[str]:
    """Every string in a value, keys aside."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_in(inner)
