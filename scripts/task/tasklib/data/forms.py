"""Which of a task type's forms of raw rows a task has, and what a row of that form looks like."""

from __future__ import annotations

from typing import Any

from tasklib.data.answers import Form
from tasklib.schema import TaskDefinition


def form_of(definition: TaskDefinition) -> Form:
    """The form that `data.fields` maps. A definition that was checked has one."""
    mapped, forms = set(definition.data.fields), definition.task_type.FORMS
    return next(f for f in forms if {*f.required} <= mapped <= {*f.required, *f.optional})


def roles(form: Form) -> tuple[str, ...]:
    return (*form.required, *form.optional)


def inputs(definition: TaskDefinition) -> dict[str, str]:
    """Role -> column of what a row to be answered has, in the order of the form. Where raw rows hold the question only
    inside their answers, a row to be answered gives it under the name of its role."""
    module, form = definition.task_type, form_of(definition)
    mapped = {role: definition.data.fields[role] for role in roles(form) if role in definition.data.fields}
    found = {role: column for role, column in mapped.items() if role in module.INPUT_FIELDS}
    if not any(role in module.INPUT_FIELDS for role in form.required):
        found = {role: role for role in module.FORMS[0].required if role in module.INPUT_FIELDS} | found
    return found


def single_text(definition: TaskDefinition) -> str | None:
    """The role of the text that is a whole question by itself; None where a row takes more than one text."""
    form = form_of(definition)
    required = [role for role in inputs(definition) if role not in form.optional]
    _, values = example_input(definition)
    return required[0] if len(required) == 1 and isinstance(values[required[0]], str) else None


def raw_row(module: Any, record: Any, form: Form) -> dict[str, Any] | None:
    """Role -> value of a raw row that reads back as this record; None where rows of that form cannot hold it. A task
    type with one form has roles named as the fields of its record."""
    if hasattr(module, "raw_row"):
        return module.raw_row(record, form)
    return {role: getattr(record, role) for role in form.required}


def examples(definition: TaskDefinition) -> list[tuple[Any, dict[str, Any]]]:
    """The task type's examples that rows of this task can hold, each with its row: role -> value."""
    module, form = definition.task_type, form_of(definition)
    rows = [(record, raw_row(module, record, form)) for record in module.EXAMPLES]
    return [(record, row) for record, row in rows if row is not None and set(row) <= set(definition.data.fields)]


def example_input(definition: TaskDefinition, own: Any = None) -> tuple[Any, dict[str, Any]]:
    """A row to be answered: its record, without an answer, and role -> value; made of `own`, a record of the task's
    data, or of the first of the examples."""
    module = definition.task_type
    row = raw_row(module, own, form_of(definition)) if own is not None else None
    found, row = (own, row) if row is not None else examples(definition)[0]
    values = {role: row.get(role, getattr(found, role, None)) for role in inputs(definition)}
    values = {role: value for role, value in values.items() if value is not None}
    record, faults = module.read_input(values, definition.task)
    if record is None:
        raise ValueError(f"an example of {definition.task.type} is no input: {faults}")
    asked = raw_row(module, record, form_of(definition)) or {}  # a conversation without the answer at its end
    return record, {role: asked.get(role, value) for role, value in values.items()}
