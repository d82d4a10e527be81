"""What the user said: the answers file, a partial task_definition.yaml, with the flags of the command line over it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from creation.recognition import LABEL_OPTIONS
from tasklib import documents, task_types
from tasklib.exit_codes import ExitCode
from tasklib.schema import NAME_PATTERN, SPLITS
from tasklib.summary import Problem, TaskError

MAX_NAME = 64


@dataclass(frozen=True)
class Given:
    """`answers` is a partial definition with `baseline:` beside it; `base` the folder that its data paths are relative
    to; `lines` a dotted key -> its line in the answers file; `by_flag` whether --data named the files. `labels` are
    those of --labels: which key of `task:` they fill is known once the task type is."""

    answers: dict[str, Any]
    base: Path
    lines: dict[str, int]
    by_flag: bool
    labels: dict[str, str] | None = None

    @property
    def type(self) -> str | None:
        """The task type that the user named, if any."""
        return self.answers["task"].get("type")

    @property
    def label_option(self) -> str | None:
        """The key of `task:` that the answers fill with labels, entity types, sentiments or stances."""
        return next((name for name in LABEL_OPTIONS if self.answers["task"].get(name)), None)

    @property
    def is_complete(self) -> bool:
        """Whether `task:` says all that its type has to know, so that a task can wait for data."""
        if self.type not in task_types.names():
            return False
        try:
            task_types.load(self.type).Options.model_validate(self.answers["task"])
        except ValidationError:
            return False
        return True

    def settle(self, task_type: str) -> None:
        """Takes a task type where none was named, and the labels of --labels into the key that it has for them."""
        task = self.answers["task"]
        if task.get("type") is None:
            task["type"] = task_type
        if self.labels and task["type"] in task_types.names():
            known = task_types.load(task["type"]).Options.model_fields
            task[next((name for name in LABEL_OPTIONS if name in known), "labels")] = self.labels
        elif self.labels:
            task["labels"] = self.labels

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

    labels = _pairs("--labels", args.labels, problems)
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
    return Given(answers, base, lines, by_flag=bool(args.data), labels=labels)


def _set_values(answers: dict[str, Any], args: argparse.Namespace, section: Callable, problems: list[Problem]) -> None:
    """Every flag over its key of the answers."""
    task, evaluation, baseline = (section(answers, key, key) for key in ("task", "evaluation", "baseline"))
    fields = section(section(answers, "data", "data"), "fields", "data.fields")
    for parent, key, value in (
        (answers, "name", args.name),
        (answers, "description", args.description),
        (answers, "language", args.language),
        (task, "type", args.type),
        (evaluation, "target", args.target),
    ):
        if value is not None:
            parent[key] = value
    text, label = _roles(task.get("type"))
    named = {text: args.text_field, label: args.label_field, **(_pairs("--fields", args.fields, problems) or {})}
    fields.update({role: column for role, column in named.items() if column is not None})
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


def complete_fields(given: Given) -> dict[str, str]:
    """Role -> column for every role of the form that the given roles belong to; a column is called like its role where
    no data say otherwise."""
    fields = given.answers["data"]["fields"]
    if given.type not in task_types.names():
        return {"text": "text", "label": "label", **fields}
    forms = task_types.load(given.type).FORMS
    form = next((form for form in forms if {*fields} <= {*form.required, *form.optional}), forms[0])
    return {**{role: role for role in form.required}, **fields}


def _roles(task_type: Any) -> tuple[str, str]:
    """What --text-field and --label-field name: the first role that a task type reads, and the first it answers."""
    if task_type not in task_types.names():
        return "text", "label"
    module = task_types.load(task_type)
    answered = [role for role in module.FIELDS if role not in module.INPUT_FIELDS]
    return module.FIELDS[0], answered[0] if answered else "label"


def _pairs(flag: str, text: str | None, problems: list[Problem]) -> dict[str, str] | None:
    """`a,b` or `a=正面,b=負面`."""
    if text is None:
        return None
    pairs: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = map(str.strip, part.partition("="))
        if name in pairs:
            message, hint = f"{flag}: {name!r} stands twice", "give every name once"
            problems.append(Problem(code="usage", message=message, field=flag, hint=hint))
        pairs[name] = value if equals else name
    return pairs


def name_problem(name: Any) -> Problem | None:
    """What is wrong with the name of the task, and the nearest legal one."""
    if isinstance(name, str) and len(name) <= MAX_NAME and re.fullmatch(NAME_PATTERN[1:-1], name):
        return None
    legal = re.sub("[^a-z0-9]+", "-", str(name).lower() if name is not None else "")[:MAX_NAME].strip("-")
    example = f", e.g. {legal or 'news-topics'}"
    message = "the task has no name" if name is None else f"{name!r} is no name for a task"
    hint = f"--name: a-z, 0-9 and single hyphens, at most {MAX_NAME} characters{example}"
    return Problem(code="illegal_name", message=message, field="name", hint=hint)
