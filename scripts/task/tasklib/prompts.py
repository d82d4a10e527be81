"""The one place where a row becomes the exact text and tokens that the model sees.

Training, evaluation and prediction all render here, so that no two of them can use another template.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.files import sha256_of_json
from tasklib.schema import TaskDefinition
from tasklib.summary import Problem, TaskError

Message = dict[str, str]


def instruction(definition: TaskDefinition) -> str:
    """The definition's instruction, or the task type's default in the task's language."""
    own = definition.prompt.instruction
    return own or definition.task_type.default_instruction(definition.task, definition.language)


def user_message(definition: TaskDefinition, record: Any) -> Message:
    content = definition.task_type.prompt(record, definition.task, instruction(definition))
    return {"role": "user", "content": content}


def assistant_message(definition: TaskDefinition, record: Any) -> Message:
    return {"role": "assistant", "content": definition.task_type.answer(record, definition.task)}


def prefix_messages(definition: TaskDefinition, shots: Sequence[Any]) -> list[Message]:
    """What stands before every question: the system message and the worked examples."""
    system = definition.prompt.system
    messages = [{"role": "system", "content": system}] if system is not None else []
    for record in shots:
        messages += [user_message(definition, record), assistant_message(definition, record)]
    return messages


def choose_shots(definition: TaskDefinition, records: Sequence[Any]) -> list[Any]:
    """`prompt.n_few_shot` training records, labels in turn, drawn with the split's seed."""
    n = definition.prompt.n_few_shot
    if n > 0:
        shuffled = list(records)
        random.Random(definition.data.split.seed).shuffle(shuffled)
        by_label: dict[str, list[Any]] = {}
        for record in shuffled:
            by_label.setdefault(str(definition.task_type.gold(record)), []).append(record)
        queues = [by_label[label] for label in sorted(by_label)]
        turns = max(map(len, queues), default=0)
        return [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)][:n]
    return []


def render_prompt(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The text up to where the model starts to write. Thinking is switched off where the template knows the flag."""
    _require_template(tokenizer)
    return tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=True, enable_thinking=False
    )


def render_completion(tokenizer: Any, messages: Sequence[Message], answer: str) -> str:
    """What the model must write after `render_prompt`: the answer and the template's end of turn.

    The end of turn is what the template puts behind the answer, so that it is trained whatever it is called. Raises
    TaskError (exit 4) when the template does not write the answer as it stands, or ends the turn with nothing.
    """
    _require_template(tokenizer)
    turn = [*messages, {"role": "assistant", "content": answer}]
    full = tokenizer.apply_chat_template(turn, tokenize=False, enable_thinking=False)
    start = full.rfind(answer)
    end_of_turn = full[start + len(answer) :] if start >= 0 else ""
    if not end_of_turn.strip():
        problem = Problem(
            code="chat_template",
            message="the chat template does not end the assistant's turn after the answer",
            hint="choose an instruct model whose template writes the answer followed by an end-of-turn token",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem])
    return answer + end_of_turn


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of rendered text: the template has already written every special token."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def prompt_hash(tokenizer: Any, definition: TaskDefinition) -> str:
    """Hash of what the template makes of a fixed question and answer: equal hashes mean equal prompts."""
    messages = [*prefix_messages(definition, []), {"role": "user", "content": instruction(definition) + "\n\n\u241f"}]
    rendered = [render_prompt(tokenizer, messages), render_completion(tokenizer, messages, "\u241e")]
    return sha256_of_json([rendered, [token_ids(tokenizer, text) for text in rendered]])


def _require_template(tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        problem = Problem(
            code="no_chat_template",
            message="the tokenizer of this model has no chat template",
            field="base_model.id",
            hint="choose the instruct version of the model",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem])
