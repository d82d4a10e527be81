"""The words of this project that a page may name: keys of its YAML, fields of its JSON, codes, flags, files."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from knowledge import catalogs
from tasklib import documents, schema, task_types
from tasklib.summary import TaskError

SCRIPTS = Path(__file__).resolve().parent.parent
BUNDLE = SCRIPTS.parent
MISSING_IN_A_FRAGMENT = {"missing_key", "missing_field"}
DEFINITION, CONFIG = "task_definition.yaml", "configs/<run>.yaml"


@functools.cache
def words() -> frozenset[str]:
    """Names and string constants of the scripts that have an underscore or are a single word: fields, codes, keys."""
    found: set[str] = set()
    for node in _nodes():
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"[A-Za-z]\w*", node.value))
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            found.add(node.arg)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
    return frozenset(found)


@functools.cache
def codes() -> frozenset[str]:
    """String constants that may be the code of a problem or finding: those that are one word of their own."""
    constants = (node.value for node in _nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return frozenset(text for text in constants if re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", text))


@functools.cache
def _beginnings() -> tuple[str, ...]:
    """What f-strings begin with, where that is a part of a word: `adapts_{role}` makes a family of codes."""
    firsts = (node.values[0] for node in _nodes() if isinstance(node, ast.JoinedStr) and node.values)
    texts = (first.value for first in firsts if isinstance(first, ast.Constant))
    return tuple({text for text in texts if re.fullmatch(r"[a-z]+(_[a-z]+)*_", text)})


def is_built(word: str) -> bool:
    """Whether the scripts put `word` together from a beginning and another of their words."""
    return any(word.startswith(begin) and word.removeprefix(begin) in words() for begin in _beginnings())


@functools.cache
def flags() -> frozenset[str]:
    """Every flag of every script, and of the pipeline's shell."""
    parsers = [parser_of(path) for path in scripts().values() if hasattr(_loaded(path), "build_parser")]
    pipeline = (SCRIPTS / "task" / "run_pipeline.sh").read_text(encoding="utf-8")
    ours = {word for parser in parsers for action in parser._actions for word in action.option_strings}
    return frozenset(ours | set(re.findall(r"^ *(--[a-z-]+)\)", pipeline, re.MULTILINE)))


@functools.cache
def scripts() -> dict[str, Path]:
    """Script name -> file: those of the skill and those that a task gets."""
    return {path.name: path for folder in (SCRIPTS, SCRIPTS / "task") for path in sorted(folder.glob("*.py"))}


def parser_of(path: Path) -> Any:
    """The command line parser of a script."""
    return _loaded(path).build_parser()


@functools.cache
def catalog_ids() -> frozenset[str]:
    """Hub ids that the catalogs have or name."""
    models, sets = catalogs.load("models/catalog.yaml"), catalogs.load("datasets/catalog.yaml")
    named = [text for entry in (*models, *sets) for text in (*entry.sources, *entry.notes)]
    found = {entry.id for entry in models} | {entry.hub_id for entry in sets if entry.hub_id}
    return frozenset(found | {match for text in named for match in re.findall(r"[\w.-]+/[\w.-]+", text)})


@functools.cache
def model_types() -> tuple[str, ...]:
    return tuple(sorted({entry.config["model_type"] for entry in catalogs.load("models/catalog.yaml") if entry.config}))


def faults_of_key(path: str) -> list[str]:
    """What is wrong with `section.key` as a key of a definition or of a config."""
    sections = {DEFINITION: schema.TaskDefinition, CONFIG: schema.RunConfig}
    section, _, rest = path.partition(".")
    if not any(section in model.model_fields for model in sections.values()):
        return [f"{path}: {section} is no section of {DEFINITION} or {CONFIG}"]
    nested: Any = None  # a value that no key takes, so that only the names can be wrong
    for part in reversed(rest.split(".")):
        nested = {part: nested}
    found = _problems({section: nested})
    return [f"{path}: {message}" for code, message in found if code in ("unknown_key", "owned_key", "renamed_key")]


def faults_of_yaml(text: str) -> list[str]:
    """What keeps a fragment of a definition or a config from being legal, whatever else would have to stand there."""
    try:
        data = documents.parse_yaml(text, "block").data
    except TaskError as error:
        return [problem.message for problem in error.problems]
    if not isinstance(data, dict):
        return ["is no mapping of a definition or a config"]
    known = set(schema.TaskDefinition.model_fields) | set(schema.RunConfig.model_fields)
    if unknown := sorted(set(data) - known):
        return [f"{key} is no section of {DEFINITION} or {CONFIG}" for key in unknown]
    return [f"{code}: {message}" for code, message in _problems(data)]


def _problems(data: dict[str, Any]) -> list[tuple[str, str]]:
    """(code, message) of a fragment, keys that are only missing left out. Without task.type the type that it breaks
    least is taken."""
    if set(data) <= set(schema.RunConfig.model_fields):
        return _checked(schema.check_config, data)
    task = data.get("task") if isinstance(data.get("task"), dict) else {}
    types = [task["type"]] if "type" in task else task_types.names()
    tried = [_checked(schema.check_definition, {**data, "task": {**task, "type": name}}) for name in types]
    return min(tried, key=len)


def _checked(check: Any, data: dict[str, Any]) -> list[tuple[str, str]]:
    try:
        check(documents.Document("block", data, {}))
    except TaskError as error:
        problems = [problem for problem in error.problems if problem.code not in MISSING_IN_A_FRAGMENT]
        return [(problem.code, f"{problem.field}: {problem.message}") for problem in problems]
    return []


@functools.cache
def _loaded(path: Path) -> Any:
    name = f"page_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


@functools.cache
def _trees() -> tuple[ast.Module, ...]:
    files = (path for path in sorted(SCRIPTS.rglob("*.py")) if "knowledge" not in path.parts)
    models = SCRIPTS / "knowledge" / "catalogs.py"
    return tuple(ast.parse(path.read_text(encoding="utf-8")) for path in (*files, models))


def _nodes() -> Iterator[ast.AST]:
    for tree in _trees():
        yield from ast.walk(tree)
