"""`compute:` written into the text of task_definition.yaml; comments and every other byte stay."""

from __future__ import annotations

from typing import Any

from tasklib import documents, schema
from tasklib.files import to_json
from tasklib.schema import RemoteSpec


def with_remote(text: str, shown: str, remote: RemoteSpec) -> str:
    """The text with `compute.target: remote` and this server, null keys left out. Comments inside `compute:` stay.

    Raises TaskError (exit 2) where the result would differ in anything else: then a person must write it.
    """
    keys = {key: value for key, value in remote.model_dump(mode="json").items() if value is not None}

    def changed(data: dict[str, Any]) -> None:
        data["compute"] = {**(data.get("compute") or {}), "target": "remote", "remote": keys}

    def edit(plain: str, data: Any) -> str:
        return _edited(plain, data, keys)

    hint = "write `compute:` with `target:` and `remote:` on lines of their own, then run the same command again"
    return schema.edited_definition(text, shown, ("compute",), edit, changed, hint)


def _edited(text: str, data: Any, keys: dict[str, Any]) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    if not isinstance(data.get("compute"), dict) or "{" in _of(text, ("compute",)).splitlines()[0]:
        block = ["compute:", "  target: remote", *_block(keys, "  ")]
        if "compute" not in data:
            return text.rstrip() + newline + newline.join(block) + newline
        return _replaced(text, ("compute",), newline.join(block))
    for at, lines in ((("compute", "target"), ["target: remote"]), (("compute", "remote"), None)):
        indent = _indent(text)
        lines = lines or [line[len(indent) :] if n == 0 else line for n, line in enumerate(_block(keys, indent))]
        if at[1] in data["compute"]:
            kept = [line for line in _of(text, at).splitlines()[1:] if line.lstrip().startswith("#")]
            text = _replaced(text, at, newline.join([lines[0], *kept, *lines[1:]]))
        else:
            _, end = documents.span(text, ("compute",))
            text = text[:end].rstrip() + newline + indent + newline.join(lines) + text[end:]
    return text


def _of(text: str, at: tuple[str, ...]) -> str:
    start, end = documents.span(text, at)
    return text[start:end]


def _replaced(text: str, at: tuple[str, ...], new: str) -> str:
    start, end = documents.span(text, at)
    return text[:start] + new + text[end:]


def _indent(text: str) -> str:
    """Of the keys below `compute:`."""
    line = next(line for line in _of(text, ("compute",)).splitlines()[1:] if line.strip() and line.lstrip()[0] != "#")
    return line[: len(line) - len(line.lstrip())]


def _block(keys: dict[str, Any], indent: str) -> list[str]:
    return [f"{indent}remote:", *(f"{indent}  {key}: {to_json(value)}" for key, value in keys.items())]
