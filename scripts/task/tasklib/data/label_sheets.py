"""What every sheet for labellers shares: the role that is labelled, how a file that a person hands in is read, and what
was probably meant by a label that is none."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from tasklib.data.answers import fold
from tasklib.exit_codes import ExitCode
from tasklib.reading import encodings
from tasklib.schema import FileSpec, TaskDefinition
from tasklib.summary import Problem, TaskError


def label_role(definition: TaskDefinition) -> str:
    """The role that is labelled. Raises TaskError (exit 2) for a task type whose answer is not one of a closed set."""
    module = definition.task_type
    roles = [role for role in module.FIELDS if role not in module.INPUT_FIELDS]
    if module.label_set(definition.task) is None or len(roles) != 1:
        message = f"task type {definition.task.type} has no closed set of labels to propose from"
        problem = Problem(code="no_labels", message=message, field="task.type", hint="write the answers by hand")
        raise TaskError(ExitCode.USAGE, [problem])
    return roles[0]


def spec_of(path: Path) -> FileSpec:
    """How a file that a person hands in is to be read: its encoding by its bytes, a .txt one text a line."""
    encoding = "utf-8"
    if path.is_file():
        detected = encodings.detect(path)
        encoding = detected.encoding or next(iter(detected.candidates), "utf-8")
    return FileSpec(path=str(path), encoding=encoding, format="lines" if path.suffix.lower() == ".txt" else None)


def cell_text(value: Any) -> str:
    """A cell as text; Excel files hold numbers and truth values too."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


def meant_label(label: str, answers: dict[str, str]) -> str:
    """What was probably meant by a label that is none."""
    by_answer = {fold(answer): name for name, answer in answers.items()}
    by_name = {fold(name): name for name in answers}
    if meant := by_name.get(fold(label)) or by_answer.get(fold(label)):
        return f"write {meant}, letter by letter"
    near = difflib.get_close_matches(fold(label), by_name, n=1)
    hint = f"did you mean {by_name[near[0]]!r}? " if near else ""
    return f"{hint}legal: {', '.join(answers)}"
