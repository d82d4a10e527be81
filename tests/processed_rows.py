"""Helper: definition, config and processed rows of a small classification task, in memory."""

from __future__ import annotations

import pytest

from tasklib.documents import parse_yaml
from tasklib.model import prompts
from tasklib.schema import RunConfig, check_definition
from tasklib.summary import TaskError
from tasklib.task_types import classification

LONG = "".join(f"第{number}家公司獲利成長, 訂單滿載🙂。" for number in range(60))
ENGLISH = " ".join(f"Company {number} raised its full-year forecast." for number in range(60))


def make_definition(**prompt):
    text = """
schema_version: 1
name: demo
task: {type: classification, labels: {p: 正面, n: 不是正面}}
prompt: {instruction: 判斷。}
data: {files: {all: [a.csv]}, fields: {text: t, label: l}}
"""
    definition = check_definition(parse_yaml(text, "task_definition.yaml"))
    return definition.model_copy(update={"prompt": definition.prompt.model_copy(update=prompt)})


def make_config(max_length: int, max_new_tokens: int = 16) -> RunConfig:
    return RunConfig(
        schema_version=1,
        base_model={"id": "any"},
        training={"max_length": max_length},
        generation={"max_new_tokens": max_new_tokens},
    )


def make_row(definition, text="獲利成長", label="p", line=7, shots=()):
    record = classification.Record(text=text, label=label)
    return {
        "record": record.model_dump(),
        "prompt": [*prompts.prefix_messages(definition, shots), prompts.user_message(definition, record)],
        "completion": [prompts.assistant_message(definition, record)],
        "source": {"file": "a.csv", "line": line},
    }


def problems_of(call, exit_code=3):
    with pytest.raises(TaskError) as caught:
        call()
    assert caught.value.exit_code == exit_code
    return caught.value.problems
