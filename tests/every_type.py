"""Helper: a definition, processed rows and answers of any task type, made of its own examples."""

from __future__ import annotations

import json
from typing import Any

from tasklib import task_types
from tasklib.answering.inference import Answer
from tasklib.data import forms
from tasklib.data.answers import Form
from tasklib.documents import parse_yaml
from tasklib.model import prompts
from tasklib.schema import TaskDefinition, check_definition

NAMES = task_types.names()


def definition_of(name: str, form: Form | None = None, language: str = "en", **sections: Any) -> TaskDefinition:
    """One task type with the options of its examples, whose raw rows are of this form (by default the first)."""
    module = task_types.load(name)
    form = form or module.FORMS[0]
    base = {
        "schema_version": 1,
        "name": "tiny",
        "language": language,
        "task": module.EXAMPLE_OPTIONS.model_dump(mode="json"),
        "prompt": {"instruction": "Do it."},
        "data": {"files": {"all": ["data/raw/a.jsonl"]}, "fields": {role: f"the {role}" for role in form.required}},
    } | sections
    return check_definition(parse_yaml(json.dumps(base), "task_definition.yaml"))


def raw_lines(definition: TaskDefinition) -> str:
    """The examples that rows of this task can hold, as JSON lines."""
    fields = definition.data.fields
    rows = [{fields[role]: value for role, value in row.items()} for _, row in forms.examples(definition)]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def processed(definition: TaskDefinition) -> list[dict[str, Any]]:
    """The examples as rows of a split."""
    return [
        {
            "id": f"a.jsonl:{n}",
            "source": {"file": "data/raw/a.jsonl", "line": n},
            "record": record.model_dump(),
            "prompt": prompts.asked(definition, [], record),
            "completion": [prompts.assistant_message(definition, record)],
        }
        for n, record in enumerate(definition.task_type.EXAMPLES, start=1)
    ]


def right(definition: TaskDefinition) -> list[Answer]:
    """What a model answers that has learnt every example."""
    module, options = definition.task_type, definition.task
    if definition.evaluation.decoding == "compare":
        return [Answer([-0.25, -1.5], None, None) for _ in module.EXAMPLES]
    written = [module.answer(record, options) for record in module.EXAMPLES]
    values = [
        module.resolved(record, [record], [module.parse(text, options)], options)
        for record, text in zip(module.EXAMPLES, written, strict=True)
    ]
    return [Answer(value, text, None) for value, text in zip(values, written, strict=True)]


def wrong(definition: TaskDefinition) -> list[Answer]:
    """The answer of another example to each, and to the last one something that cannot be read."""
    answers = right(definition)
    if definition.evaluation.decoding == "compare":
        return [Answer(answer.prediction[::-1], None, None) for answer in answers]
    return [*answers[1:], Answer(None, "", None)]
