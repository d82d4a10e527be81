"""The JSON Schema (draft 2020-12) of an extraction task: the part of it that is understood, and what breaks it.

The part is what both jsonschema can check and llguidance can force an answer to follow; everything else is refused when
the definition is loaded, never ignored. One keyword is our own: `x-in-text: true`, what stands here stands in the text.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterator
from typing import Any

from tasklib.data import json_objects

IN_TEXT = "x-in-text"
TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
_ANYWHERE = ("type", "enum", "const", "anyOf", "title", "description", IN_TEXT)
_OF_TYPE = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "pattern"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
KEYWORDS = (*_ANYWHERE, *(keyword for keywords in _OF_TYPE.values() for keyword in keywords))
_INSTEAD = {
    "format": "write it as a pattern: what a format means differs between programs",
    "$ref": "write the schema out where it is used",
    "$defs": "write the schemas out where they are used",
    "oneOf": "write anyOf",
    "default": "the model writes every value itself",
}


def require_supported(schema: Any, at: str = "json_schema", *, is_root: bool = True, may_mark: bool = True) -> None:
    """Raises ValueError with the key path for a schema that is not understood, or whose root is no object with named
    properties."""
    if not isinstance(schema, dict):
        raise ValueError(f"{at}: got {schema!r}, legal: an object of JSON Schema keywords")
    if is_root:
        _require_valid(schema, at)
    for keyword in schema:
        if keyword not in KEYWORDS and not (is_root and keyword in ("$schema", "$id")):
            near = difflib.get_close_matches(str(keyword), KEYWORDS, n=1)
            hint = _INSTEAD.get(keyword) or (f"did you mean {near[0]!r}?" if near else f"legal: {', '.join(KEYWORDS)}")
            raise ValueError(f"{at}.{keyword}: this keyword is not supported; {hint}")
    if is_root and (schema.get("type") != "object" or not schema.get("properties")):
        raise ValueError(f"{at}: the answer is one object with named fields: write type: object and properties")
    if not {"type", "enum", "const", "anyOf"} & set(schema):
        raise ValueError(f"{at}: says nothing of the value; write type, enum, const or anyOf")
    if "anyOf" in schema and set(schema) & set(KEYWORDS) - {"anyOf", "title", "description"}:
        raise ValueError(f"{at}.anyOf: it stands alone; write the other keywords into its schemas")
    if schema.get("additionalProperties", False) is not False:
        raise ValueError(f"{at}.additionalProperties: only false is legal (and meant where it is missing)")
    if not isinstance(schema.get(IN_TEXT, False), bool) or (IN_TEXT in schema and not may_mark):
        raise ValueError(f"{at}.{IN_TEXT}: write true or false, outside anyOf")
    properties = schema.get("properties", {})
    for name, inner in properties.items():
        require_supported(inner, f"{at}.properties.{name}", is_root=False, may_mark=may_mark)
    if unknown := [name for name in schema.get("required", []) if name not in properties]:
        raise ValueError(f"{at}.required: {unknown[0]!r} is not in properties; legal: {', '.join(properties)}")
    if "items" in schema:
        require_supported(schema["items"], f"{at}.items", is_root=False, may_mark=may_mark)
    for number, inner in enumerate(schema.get("anyOf", ())):
        require_supported(inner, f"{at}.anyOf.{number}", is_root=False, may_mark=False)


def _require_valid(schema: dict[str, Any], at: str) -> None:
    """Raises ValueError where a keyword has a value that JSON Schema does not allow."""
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        path = ".".join([at, *map(str, error.absolute_path)])
        raise ValueError(f"{path}: {error.message}") from None


def closed(schema: Any) -> Any:
    """The schema with additionalProperties: false at every object, and without what is no keyword of JSON Schema: a
    field that nobody named is a mistake, in the data and in an answer."""
    if isinstance(schema, list):
        return [closed(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: value for key, value in schema.items() if key not in (IN_TEXT, "title", "description", "$id")}
    if "properties" in found:
        found["properties"] = {name: closed(inner) for name, inner in found["properties"].items()}
    if "object" in kinds(schema):
        found = {"properties": {}, **found, "additionalProperties": False}
    return found | {key: closed(found[key]) for key in ("items", "anyOf") if key in found}


def kinds(schema: dict[str, Any]) -> list[str]:
    """The types that a schema names, without those of its `anyOf`."""
    named = schema.get("type", [])
    return [named] if isinstance(named, str) else list(named)


def is_valid(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value follows the schema, closed."""
    return _validator(json.dumps(schema)).is_valid(value)


@functools.lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    import jsonschema

    return jsonschema.Draft202012Validator(closed(json.loads(schema)))


def violations(value: Any, schema: dict[str, Any]) -> list[str]:
    """Everything in which a value breaks the schema, each with its path, what stands there and what is legal."""
    errors = sorted(_validator(json.dumps(schema)).iter_errors(value), key=lambda error: list(map(str, error.path)))
    return list(dict.fromkeys(_told(error) for error in errors))


def _told(error: Any) -> str:
    keyword, rule, got = error.validator, error.validator_value, error.instance
    at = error.json_path.removeprefix("$").removeprefix(".") or "the object"
    if keyword == "required":
        return f"{at} has no {', '.join(repr(name) for name in rule if name not in got)}"
    if keyword == "additionalProperties":
        legal = list(error.schema["properties"])
        return f"{at} has {', '.join(repr(key) for key in got if key not in legal)}; legal: {', '.join(legal)}"
    shown = f"an array of {len(got)}" if keyword in ("minItems", "maxItems") else json_objects.dumps(got)
    shown = shown if len(shown) <= 60 else shown[:59] + "…"
    legal = {
        "type": lambda: " or ".join([rule] if isinstance(rule, str) else rule),
        "enum": lambda: ", ".join(map(json_objects.dumps, rule)),
        "const": lambda: json_objects.dumps(rule),
        "anyOf": lambda: f"what one of the {len(rule)} schemas of anyOf says",
    }.get(keyword, lambda: f"{keyword} {rule}")()
    return f"{at} is {shown}; legal: {legal}"


def in_order(value: Any, schema: dict[str, Any]) -> Any:
    """The value with its keys in the schema's order; keys that it does not name come last."""
    if isinstance(value, list):
        return [in_order(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    names = [*(name for name in properties if name in value), *(name for name in value if name not in properties)]
    return {name: in_order(value[name], properties.get(name, {})) for name in names}


def marked(value: Any, schema: dict[str, Any], at: str = "") -> Iterator[tuple[str, str]]:
    """(path, string) of every string that the schema marks with `x-in-text`."""
    if schema.get(IN_TEXT):
        yield from ((at, text) for text in json_objects.texts_in(value))
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from marked(inner, schema.get("properties", {}).get(name, {}), f"{at}.{name}".strip("."))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from marked(item, schema.get("items", {}), f"{at}[{number}]")


def told(schema: dict[str, Any]) -> list[str]:
    """A line for each field: its name, what may stand there, its description."""
    return [f"{name}: {_kind(inner)}" for name, inner in schema["properties"].items()]


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        kind = " | ".join(map(json_objects.dumps, schema.get("enum", [schema.get("const")])))
    elif "anyOf" in schema:
        kind = " | ".join(map(_kind, schema["anyOf"]))
    else:
        kind = " | ".join(kinds(schema))
    if schema.get("properties"):
        kind += " {" + ", ".join(told(schema)) + "}"
    if "items" in schema:
        kind += f" of {_kind(schema['items'])}"
    return f"{kind} ({schema['description']})" if schema.get("description") else kind
