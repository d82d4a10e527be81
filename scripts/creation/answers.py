"""What the user said: the answers file, a partial task_definition.yaml, with the flags of the command line over it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklib import documents
from tasklib.exit_codes import ExitCode
from tasklib.schema import NAME_PATTERN, SPLITS
from tasklib.summary import Problem, TaskError

MAX_NAME = 64


@dataclass(frozen=True)
class Given:
    """`answers` is a partial definition with `baseline:` beside it; `base` the folder that its data paths are relative
    to; `lines` a dotted key -> its line in the answers file; `by_flag` whether --data named the files."""

    answers: dict[str, Any]
    base: Path
    lines: dict[str, int]
    by_flag: bool

    @property
    def files(self) -> dict[str, Any]:
        return self.answers["data"]["files"]


def read(args: argparse.Namespace) -> Given:
    """Raises TaskError: exit 2 with everything that has the wrong shape, exit 4 for an answers file that is absent."""
    answers, base, lines = _file(args.answers)
    problems: list[Problem] = []

    def section(parent: dict[str, Any], key: str, at: str) -> dict[str, Any]:
        """The mapping below a key, made if absent."""
        if parent.get(key) is None:
            parent[key] = {}
        if isinstance(parent[key], dict):
            return parent[key]
        hint = f"{at} must hold keys and values"
        place = {"file": str(args.answers), "line": lines.get(at)} if at in lines else {}
        problems.append(Problem(code="illegal_value", message=f"got {parent[key]!r}", field=at, hint=hint, **place))
        return {}

    _set_values(answers, args, section, problems)
    data = section(answers, "data", "data")
    files = {split: [_absolute(name) for name in names] for split, names in _named(args).items()}
    if files:
        data["files"] = files
    files = section(data, "files", "data.files")
    if args.label_lines and (problem := _pair_with_labels(files, args.label_lines)):
        problems.append(problem)
    if problems:
        raise TaskError(ExitCode.USAGE, problems)
    answers["task"].setdefault("type", "classification")
    return Given(answers, base, lines, by_flag=bool(args.data))


def _set_values(answers: dict[str, Any], args: argparse.Namespace, section: Callable, problems: list[Problem]) -> None:
    """Every flag over its key of the answers."""
    task, evaluation, baseline = (section(answers, key, key) for key in ("task", "evaluation", "baseline"))
    fields = section(section(answers, "data", "data"), "fields", "data.fields")
    for parent, key, value in (
        (answers, "name", args.name),
        (answers, "description", args.description),
        (answers, "language", args.language),
        (task, "type", args.type),
        (task, "labels", _labels(args.labels, problems)),
        (fields, "text", args.text_field),
        (fields, "label", args.label_field),
        (evaluation, "target", args.target),
    ):
        if value is not None:
            parent[key] = value
    base_model = section(baseline, "base_model", "baseline.base_model")
    if args.base_model is not None:
        base_model["id"] = args.base_model


def _file(path: Path | None) -> tuple[dict[str, Any], Path, dict[str, int]]:
    if path is None:
        return {}, Path.cwd(), {}
    document = documents.load_yaml(path)
    answers, lines = document.data or {}, {documents.dotted(at): line for at, line in document.lines.items()}
    problem = None
    if not isinstance(answers, dict):
        message, hint = "the answers must be keys and values", "see templates/examples"
        problem = Problem(code="yaml_not_a_mapping", file=str(path), message=message, hint=hint)
    elif answers.get("schema_version", 1) != 1:
        problem = Problem(
            code="illegal_value",
            message=f"got {answers['schema_version']!r}",
            file=str(path),
            line=lines.get("schema_version"),
            field="schema_version",
            hint="legal: 1",
        )
    if problem:
        raise TaskError(ExitCode.USAGE, [problem])
    return answers, path.resolve().parent, lines


def _named(args: argparse.Namespace) -> dict[str, list[str]]:
    """The files of the command line by their split."""
    return {split: names for split in ("all", *SPLITS) if (names := args.data if split == "all" else vars(args)[split])}


def _absolute(name: str) -> str:
    return name if name.startswith("hub:") else str(Path(name).expanduser().absolute())


def _pair_with_labels(files: dict[str, Any], label_lines: str) -> Problem | None:
    """`--label-lines`: one file of texts, one of labels."""
    texts = files.get("all")
    texts = texts if isinstance(texts, list) else [texts]
    if len(files) != 1 or len(texts) != 1 or not isinstance(texts[0], str) or texts[0].startswith("hub:"):
        message, hint = "--label-lines goes with exactly one file as --data", "put the texts into one file"
        return Problem(code="usage", message=message, field="--label-lines", hint=hint)
    files["all"] = [{"path": texts[0], "format": "lines", "parallel": {"label": _absolute(label_lines)}}]
    return None


def _labels(text: str | None, problems: list[Problem]) -> dict[str, str] | None:
    """`a,b` or `a=正面,b=負面`."""
    if text is None:
        return None
    labels: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, answer = map(str.strip, part.partition("="))
        if name in labels:
            message, hint = f"--labels: {name!r} stands twice", "give every label once"
            problems.append(Problem(code="usage", message=message, field="--labels", hint=hint))
        labels[name] = answer if equals else name
    return labels


def name_problem(name: Any) -> Problem | None:
    """What is wrong with the name of the task, and the nearest legal one."""
    if isinstance(name, str) and len(name) <= MAX_NAME and re.fullmatch(NAME_PATTERN[1:-1], name):
        return None
    legal = re.sub("[^a-z0-9]+", "-", str(name).lower() if name is not None else "")[:MAX_NAME].strip("-")
    example = f", e.g. {legal or 'news-topics'}"
    message = "the task has no name" if name is None else f"{name!r} is no name for a task"
    hint = f"--name: a-z, 0-9 and single hyphens, at most {MAX_NAME} characters{example}"
    return Problem(code="illegal_name", message=message, field="name", hint=hint)
