"""A JSON Schema out of the objects that the rows hold: types, what is always there, and short closed sets of values."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAX_ENUM = 10  # different values that may be a closed set
ROWS_OF_A_VALUE = 8  # on average, at least: a set of which values are seen so often is likely closed
ENUM_LENGTH = 20  # characters of its longest value
# JSON Schema's names, the order in which a list of several is written
KINDS = ("object", "array", "string", "integer", "number", "boolean", "null")


def infer(values: Sequence[Any]) -> dict[str, Any]:
    """The schema (JSON Schema 2020-12) that all `values` fulfil.

    A property is required where every object has it, other properties are forbidden, and an enum stands only where few
    short values come again and again: a guess that a person confirms, because the next file may hold another value."""
    kinds = Counter(_kind(value) for value in values)
    if kinds["integer"] and kinds["number"]:
        kinds["number"] += kinds.pop("integer")
    names = [kind for kind in KINDS if kinds[kind]]
    if not names:
        return {}
    schema: dict[str, Any] = {"type": names[0] if len(names) == 1 else names}
    if kinds["object"]:
        schema |= _of_objects([value for value in values if isinstance(value, dict)])
    if kinds["array"]:
        items = infer([item for value in values if isinstance(value, list) for item in value])
        schema |= {"items": items} if items else {}
    if {*names} <= {"string", "null"} and (closed := _closed_set([value for value in values if value is not None])):
        schema["enum"] = closed + ([None] if kinds["null"] else [])
    return schema


def odd(objects: Sequence[Mapping[str, Any]], share: float) -> dict[int, str]:
    """Number of each object that differs from nearly all others -> how: a value of another kind, or a property that it
    lacks, or has under a name that is nearly that of another. At most `share` of the objects each; null, a property
    that is often missing and one that is rare are usual.
    Objects within objects count, those in arrays do not. Nothing where so few objects say little."""
    if len(objects) * share < 1:
        return {}
    kinds = [dict(_kinds_of(value)) for value in objects]
    counts = Counter(pair for found in kinds for pair in found.items())
    paths = Counter(path for found in kinds for path in found)
    most, reasons = share * len(objects), {}
    for number, found in enumerate(kinds):
        said = [f"{path} is of type {kind}" for path, kind in found.items() if _is_rare(counts, path, kind, most)]
        said += [f"{path} is hardly ever there, {near[0]} is" for path in found if (near := _near(path, paths, most))]
        usual = (path for path, n in paths.items() if len(objects) > n >= len(objects) - most)
        said += [f"{path} is missing" for path in usual if path not in found and "." not in path]
        if said:
            reasons[number] = ", ".join(said)
    return reasons


def _is_rare(counts: Mapping[tuple[str, str], int], path: str, kind: str, most: float) -> bool:
    """Whether few have this kind where nearly all have one other; whole and other numbers are one kind."""
    of = {k: n for (p, k), n in counts.items() if p == path and k != "null"}
    return kind != "null" and of[kind] <= most < max(of.values())


def _near(path: str, paths: Mapping[str, int], most: float) -> list[str]:
    usual = [name for name, n in paths.items() if n > most]
    return difflib.get_close_matches(path, usual, n=1, cutoff=0.65) if paths[path] <= most else []


def _kinds_of(value: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, str]]:
    for name, inside in value.items():
        kind = _kind(inside)
        yield f"{at}{name}", "number" if kind == "integer" else kind
        if kind == "object":
            yield from _kinds_of(inside, f"{at}{name}.")


def _kind(value: Any) -> str:
    for kind, types in (("boolean", bool), ("integer", int), ("number", float), ("string", str), ("array", list)):
        if isinstance(value, types):
            return kind
    return "object" if isinstance(value, Mapping) else "null"


def _of_objects(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for value in objects for name in value))
    properties = {name: infer([value[name] for value in objects if name in value]) for name in names}
    required = [name for name in names if all(name in value for value in objects)]
    schema: dict[str, Any] = {"properties": properties}
    if required:
        schema["required"] = required
    return {**schema, "additionalProperties": False}


def _closed_set(values: Sequence[str]) -> list[str]:
    """The values in the order of their frequency, where they are few, short and come again; else nothing."""
    counts = Counter(values)
    few = 2 <= len(counts) <= MAX_ENUM and len(values) >= ROWS_OF_A_VALUE * len(counts)
    short = few and max(map(len, counts)) <= ENUM_LENGTH and "" not in counts
    return [value for value, _ in counts.most_common()] if short and min(counts.values()) > 1 else []


def example(schema: Any) -> Any:
    """A value that a simple schema allows, to show its form: the first of a closed set, every property of an object."""
    if not isinstance(schema, Mapping):
        return None
    if schema.get("enum") or "const" in schema:
        return schema["enum"][0] if schema.get("enum") else schema["const"]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: example(inside) for name, inside in schema.get("properties", {}).items()}
    if kind == "array":
        return [example(schema["items"])] if "items" in schema else []
    number = schema.get("minimum", 1)
    return {"string": "…", "integer": number, "number": number, "boolean": True}.get(kind)
