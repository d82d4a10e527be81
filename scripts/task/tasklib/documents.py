"""Strict YAML: line numbers kept, duplicate keys refused, `yes`/`no` stay strings, `2e-4` is a number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasklib.exit_codes import ExitCode
from tasklib.summary import Problem, TaskError

KeyPath = tuple[str | int, ...]

_SCALARS = [  # the YAML 1.2 core schema, so that a Norwegian country code is not a boolean
    ("tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$")),
    ("tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$")),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]{1,4000}$")),
    ("tag:yaml.org,2002:float", re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")),
]


class _Loader(yaml.SafeLoader):
    """Leaves the tag of a node empty where the file gives none, so that a written tag can be told apart."""

    def resolve(self, kind: type, value: str | None, implicit: object) -> str:
        return ""


@dataclass(frozen=True)
class Document:
    """A parsed YAML file: plain data, and the line on which each key path stands.

    `overridden` names the key paths whose values came from the command line instead.
    """

    path: str
    data: Any
    lines: dict[KeyPath, int]
    overridden: frozenset[KeyPath] = frozenset()

    def line_of(self, key_path: KeyPath) -> int | None:
        """The line of `key_path`, or of its nearest parent that stands in the file."""
        while key_path and key_path not in self.lines:
            key_path = key_path[:-1]
        return self.lines.get(key_path)


def load_yaml(path: Path, shown_as: str | None = None) -> Document:
    """Reads one YAML file. Raises TaskError (exit 4 when absent, exit 2 when it cannot be read) with every problem."""
    shown = shown_as or str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        problem = Problem(
            code="file_missing",
            message=f"{shown} does not exist",
            file=shown,
            hint="check the path, or create the task first",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem]) from None
    except (UnicodeDecodeError, OSError) as error:
        problem = Problem(code="file_unreadable", message=str(error), file=shown, hint="save the file as UTF-8 text")
        raise TaskError(ExitCode.USAGE, [problem]) from None
    return parse_yaml(text, shown)


def parse_yaml(text: str, shown: str) -> Document:
    """Parses YAML text that was read from `shown`. Raises TaskError (exit 2)."""
    builder = _Builder(shown)
    try:
        node = yaml.compose(text, Loader=_Loader)
        data = None if node is None else builder.value(node, ())
    except RecursionError:
        raise _syntax_error(shown, "brackets are nested too deeply", None) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _syntax_error(shown, f"character U+{error.character:04X}: {error.reason}", line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        if mark and error.context_mark and mark.index >= len(text):  # never closed: say where it was opened
            mark = error.context_mark
        raise _syntax_error(shown, error.problem or str(error), mark.line + 1 if mark else None) from None
    if builder.problems:
        raise TaskError(ExitCode.USAGE, builder.problems)
    return Document(shown, data, builder.lines)


def _syntax_error(shown: str, message: str, line: int | None) -> TaskError:
    hint = "fix the YAML syntax on this line"
    return TaskError(ExitCode.USAGE, [Problem(code="yaml_syntax", message=message, file=shown, line=line, hint=hint)])


def span(text: str, at: KeyPath) -> tuple[int, int]:
    """Where a key begins and its value ends in YAML text that parses; a comment behind the value is no part of it.
    Raises KeyError where the key does not stand there."""
    node, start = yaml.compose(text, Loader=_Loader), 0
    for part in at:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        start, node = next(((key.start_mark.index, value) for key, value in pairs if key.value == part), (0, None))
        if node is None:
            raise KeyError(dotted(at))
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]  # a block ends where its last value ends, not where the next key begins
        node = last[1] if isinstance(node, yaml.MappingNode) else last
    return start, node.end_mark.index


def parse_scalar(text: str) -> Any:
    """Reads the right-hand side of `--set key=value` by the same rules as a file. Raises TaskError (exit 2)."""
    return parse_yaml(text, "--set").data


class _Builder:
    """Turns a node tree into plain data, remembering lines and problems."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[Problem] = []
        self.open_nodes: set[int] = set()

    def value(self, node: yaml.Node, at: KeyPath) -> Any:
        self.lines.setdefault(at, node.start_mark.line + 1)
        if self.has_tag(node, at):
            return None
        if isinstance(node, yaml.ScalarNode):
            self.join_surrogates(node, at)
            return _scalar(node)
        if id(node) in self.open_nodes:  # an alias inside its own anchor would recurse for ever
            self.problem(
                "yaml_recursive_alias", "an alias refers to the node that contains it", node, at, "write it out"
            )
            return None
        self.open_nodes.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(child, (*at, index)) for index, child in enumerate(node.value)]
            return self.mapping(node, at)
        finally:
            self.open_nodes.discard(id(node))

    def mapping(self, node: yaml.MappingNode, at: KeyPath) -> dict:
        result: dict = {}
        for key_node, value_node in node.value:
            if self.has_tag(key_node, at):
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.problem("yaml_key", "a key must be text, got a list or a mapping", key_node, at, "write a word")
                continue
            self.join_surrogates(key_node, at)
            if _scalar(key_node) is None or isinstance(_scalar(key_node), bool):
                self.problem("yaml_key", f"a key must be text, got {key_node.value!r}", key_node, at, "quote the key")
                continue
            key = key_node.value  # `0` and `1.0` as keys stay exactly as written
            path = (*at, key)
            if key in result:
                self.problem(
                    "yaml_duplicate_key",
                    f"key {key!r} stands twice (first on line {self.lines[path]})",
                    key_node,
                    path,
                    "keep one of the two",
                )
                continue
            self.lines[path] = key_node.start_mark.line + 1
            result[key] = self.value(value_node, path)
        return result

    def join_surrogates(self, node: yaml.ScalarNode, at: KeyPath) -> None:
        """Joins the two halves that JSON writes for a character such as an emoji; a lone half is no text."""
        try:
            node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self.problem("yaml_surrogate", "half of a character (a lone surrogate)", node, at, "write the character")
            node.value = ""

    def has_tag(self, node: yaml.Node, at: KeyPath) -> bool:
        if node.tag:
            self.problem("yaml_tag", f"tag {node.tag!r} is not allowed", node, at, "write a plain value")
        return bool(node.tag)

    def problem(self, code: str, message: str, node: yaml.Node, at: KeyPath, hint: str) -> None:
        self.problems.append(
            Problem(
                code=code,
                message=message,
                file=self.shown,
                line=node.start_mark.line + 1,
                field=dotted(at) or None,
                hint=hint,
            )
        )


def _scalar(node: yaml.ScalarNode) -> Any:
    """The value of a scalar; what stands in quotes or in a block is text."""
    if node.style is not None:
        return node.value
    for tag, pattern in _SCALARS:
        if pattern.match(node.value):
            return _convert(tag, node.value)
    return node.value


def _convert(tag: str, text: str) -> Any:
    kind = tag.rsplit(":", 1)[1]
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    return int(text) if kind == "int" else float(text)


def dotted(key_path: KeyPath) -> str:
    """`("data", "files", 0)` as `data.files[0]`."""
    text = ""
    for part in key_path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
