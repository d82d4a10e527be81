"""The one place where a row becomes the exact text and tokens that the model sees.

Training, evaluation and prediction all render here, so that no two of them can use another template.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.files import sha256_of_json
from tasklib.schema import TaskDefinition
from tasklib.summary import Problem, TaskError

Message = dict[str, str]

# What a template that asks for today's date is told, so that a prompt renders the same every day. It is the date that
# Llama 3's own template falls back to; the answer to a row does not depend on it.
TEMPLATE_DATE = {
    "%Y-%m-%d": "2024-07-26",
    "%-d": "26",
    "%-m": "7",
    "%Y": "2024",
    "%y": "24",
    "%m": "07",
    "%d": "26",
    "%B": "July",
    "%b": "Jul",
    "%A": "Friday",
    "%a": "Fri",
    "%j": "208",
    "%H": "00",
    "%M": "00",
    "%S": "00",
}
# For tokenizers without a chat template: no new token, a turn ends with eos. Headings as in Alpaca (Taori et al. 2023).
PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %}{{ '\n\n' }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '### Response:\n' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'user' %}{{ '### Instruction:\n' + message['content'] }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\n### Response:\n' }}{% endif %}"
)
# Stand-ins that no template takes for text of its own
_SYSTEM, _QUESTION, _ANSWER = "\u241dsystem\u241d", "\u241fquestion\u241f", "\u241eanswer\u241e"
_BATCH = 1000  # texts tokenized at once: fast, and the tokenizer's own objects stay small


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
        turns = [turn for turn in definition.task_type.history(record) if turn["role"] != "system"]
        messages += [*turns, user_message(definition, record), assistant_message(definition, record)]
    return messages


def asked(definition: TaskDefinition, shots: Sequence[Any], record: Any) -> list[Message]:
    """The whole conversation up to the answer: system message, worked examples, the row's own earlier turns, the
    question."""
    return follow_up(prefix_messages(definition, shots), definition, record)


def follow_up(prefix: Sequence[Message], definition: TaskDefinition, record: Any) -> list[Message]:
    """The row's own turns behind `prefix`; its own system message takes the place of the task's."""
    history = definition.task_type.history(record)
    if history and history[0]["role"] == "system" and prefix and prefix[0]["role"] == "system":
        prefix = prefix[1:]
    if history and history[0]["role"] == "system":
        prefix, history = [history[0], *prefix], history[1:]
    return [*prefix, *history, user_message(definition, record)]


def prefix_of(definition: TaskDefinition, messages: Sequence[Message], record: Any) -> list[Message]:
    """What stands in `messages`, the conversation of `record`, before the row's own turns."""
    history = definition.task_type.history(record)
    if history and history[0]["role"] == "system":
        system = definition.prompt.system
        own = [{"role": "system", "content": system}] if system is not None else []
        return [*own, *messages[1 : len(messages) - len(history)]]
    return list(messages[: len(messages) - len(history) - 1])


def choose_shots(definition: TaskDefinition, records: Sequence[Any]) -> list[Any]:
    """`prompt.n_few_shot` training records, labels in turn, drawn with the split's seed."""
    n = definition.prompt.n_few_shot
    if n > 0:
        shuffled = list(records)
        random.Random(definition.data.split.seed).shuffle(shuffled)
        by_label: dict[str, list[Any]] = {}
        for record in shuffled:
            by_label.setdefault(" ".join(definition.task_type.strata(record)), []).append(record)
        queues = [by_label[label] for label in sorted(by_label)]
        turns = max(map(len, queues), default=0)
        return [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)][:n]
    return []


@dataclass(frozen=True)
class _Habits:
    """What a template does by itself.

    `writes_system`: a system prompt of its own where there is none; `insists`: where there is an empty one, too.
    `closing` is an empty thought that it writes behind the generation prompt, but not in a whole conversation.
    """

    writes_system: bool
    insists: bool
    closing: str


def render_prompt(tokenizer: Any, messages: Sequence[Message], *, enable_thinking: bool = False) -> str:
    """The text up to the first character of the answer.

    That is what the template writes before the answer in a whole conversation, so more than its generation prompt
    where it puts something between the two (an empty thought, gpt-oss's `<|channel|>final<|message|>`): training masks
    it and inference forces it. A thought that the generation prompt leaves open is not in it: the rows carry none, so
    `enable_thinking` decides only what the template writes around the answer.
    Raises TaskError (exit 4) as `render_completion` does.
    """
    return _around_answer(tokenizer, messages, enable_thinking)[0]


def render_completion(
    tokenizer: Any, messages: Sequence[Message], answer: str, *, enable_thinking: bool = False
) -> str:
    """What the model must write after `render_prompt`: the answer and the template's end of turn.

    The end of turn is what the template puts behind the answer, so that it is trained whatever it is called. Raises
    TaskError (exit 4, code chat_template) when the template does not write the system message or the answer as they
    stand (but for outer whitespace), or ends the turn with nothing.
    """
    return render(tokenizer, messages, answer, enable_thinking=enable_thinking)[1]


def render(
    tokenizer: Any, messages: Sequence[Message], answer: str, *, enable_thinking: bool = False
) -> tuple[str, str]:
    """`render_prompt` and `render_completion` of one row: together what the template makes of the conversation."""
    prompt, end_of_turn = _around_answer(tokenizer, messages, enable_thinking)
    habits = _habits(tokenizer, tokenizer.get_chat_template(), enable_thinking)
    whole = _answered(tokenizer, _spoken(habits, messages), answer, enable_thinking)
    start, end = len(prompt) - len(habits.closing), len(whole) - len(end_of_turn)
    written = whole[start:end]
    if not (whole.startswith(prompt[:start]) and whole.endswith(end_of_turn) and written.strip() == answer.strip()):
        raise _template_error(f"the chat template does not write the answer {answer[:40]!r} as it stands")
    return prompt, written + end_of_turn


def end_of_turn(tokenizer: Any, messages: Sequence[Message], *, enable_thinking: bool = False) -> str:
    """What the template writes behind the answer to `messages`."""
    return _around_answer(tokenizer, messages, enable_thinking)[1]


def _around_answer(tokenizer: Any, messages: Sequence[Message], enable_thinking: bool) -> tuple[str, str]:
    """What stands before and behind the answer in a whole conversation."""
    ensure_template(tokenizer)
    habits = _habits(tokenizer, tokenizer.get_chat_template(), enable_thinking)
    before, mark, behind = _answered(tokenizer, _spoken(habits, messages), _ANSWER, enable_thinking).rpartition(_ANSWER)
    system = messages[0]["content"].strip() if messages[0]["role"] == "system" else ""
    if system not in before:
        raise _template_error(
            "the chat template drops the system message",
            "put its text into prompt.instruction instead",
            "prompt.system",
        )
    if not mark or not behind.strip():
        raise _template_error("the chat template does not end the assistant's turn after the answer")
    return before + habits.closing, behind


def _answered(tokenizer: Any, messages: Sequence[Message], answer: str, enable_thinking: bool) -> str:
    """The whole conversation. A template that writes nothing behind an answer (GLM-4) gets the eos token there: where
    an answer ends must be trained, or the model never stops."""
    whole = _apply(tokenizer, [*messages, {"role": "assistant", "content": answer}], enable_thinking)
    return whole + (tokenizer.eos_token or "") if whole.rstrip().endswith(answer.strip()) else whole


def _spoken(habits: _Habits, messages: Sequence[Message]) -> list[Message]:
    """The messages, with an empty system message where the template would write one of its own."""
    if messages[0]["role"] == "system" or not habits.writes_system:
        return list(messages)
    if habits.insists:
        raise _template_error(
            "the chat template writes a system prompt of its own", "write one that fits the task", "prompt.system"
        )
    return [{"role": "system", "content": ""}, *messages]


@functools.lru_cache(maxsize=16)
def _habits(tokenizer: Any, template: str, enable_thinking: bool) -> _Habits:
    """Looks at what the template makes of a stand-in question. Raises TaskError (exit 4) when it loses the question
    or writes something else before it once an answer follows."""
    writes_system, insists = _own_system(tokenizer, enable_thinking)
    system = [{"role": "system", "content": _SYSTEM if insists else ""}] if writes_system else []
    question = [*system, {"role": "user", "content": _QUESTION}]
    asked = _apply(tokenizer, question, enable_thinking, add_generation_prompt=True)
    whole = _apply(tokenizer, [*question, {"role": "assistant", "content": _ANSWER}], enable_thinking)
    before = whole.rpartition(_ANSWER)[0]
    if _QUESTION not in before or before.partition(_QUESTION)[0] != asked.partition(_QUESTION)[0]:
        raise _template_error("the chat template does not write question and answer as they stand")
    extra = asked[len(before) :] if asked.startswith(before) else ""
    return _Habits(writes_system, insists, extra if "</" in extra else "")


def _own_system(tokenizer: Any, enable_thinking: bool) -> tuple[bool, bool]:
    """(`writes_system`, `insists`): text before the question is the template's own system prompt when it goes away
    once a system message is there. Headers that stay whatever it says (gpt-oss, Llama 3) are none."""

    def before_question(system: list[Message]) -> str:
        messages = [*system, {"role": "user", "content": _QUESTION}]
        return _apply(tokenizer, messages, enable_thinking, add_generation_prompt=True).partition(_QUESTION)[0]

    alone = before_question([])
    try:
        empty, real = (before_question([{"role": "system", "content": text}]) for text in ("", _SYSTEM))
    except TaskError:  # it has no system role
        return False, False
    writes_system = bool(_gone(alone, real))
    return writes_system, writes_system and not _gone(alone, empty)


def _gone(text: str, other: str) -> str:
    """The middle of `text` that `other` does not share."""
    start = _n_shared(text, other)
    end = _n_shared(text[start:][::-1], other[start:][::-1])
    return text[start : len(text) - end].strip()


def _n_shared(one: str, other: str) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _apply(tokenizer: Any, messages: list[Message], enable_thinking: bool, add_generation_prompt: bool = False) -> str:
    """The template's text, with the date fixed."""
    template = with_fixed_date(tokenizer.get_chat_template())
    return rendered_by(tokenizer, template, messages, add_generation_prompt, enable_thinking=enable_thinking)


def rendered_by(
    tokenizer: Any, template: str, messages: Sequence[Message], add_generation_prompt: bool = True, **arguments: Any
) -> str:
    """What a template makes of messages; a server gives it no further `arguments`. Raises TaskError (exit 4) when the
    template refuses them."""
    import jinja2

    try:
        return tokenizer.apply_chat_template(
            list(messages),
            chat_template=template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **arguments,
        )
    except (jinja2.TemplateError, TypeError, ValueError, LookupError) as error:
        hint = "choose an instruct model for text"
        if messages[0]["role"] == "system":
            hint = f"if it has no system role, put the text of prompt.system into prompt.instruction; or {hint}"
        raise _template_error(f"the chat template refuses the conversation: {error}", hint) from error


def writes_system(tokenizer: Any, *, enable_thinking: bool = False) -> bool:
    """Whether the template writes a system prompt of its own where none is given."""
    return _habits(tokenizer, tokenizer.get_chat_template(), enable_thinking).writes_system


@functools.lru_cache(maxsize=16)
def with_fixed_date(template: str) -> str:
    """The template with `strftime_now`, which transformers offers it, replaced by one that knows TEMPLATE_DATE only."""
    if "strftime_now" not in template:
        return template
    steps = "".join(f"|replace({code!r}, {text!r})" for code, text in TEMPLATE_DATE.items())
    # the newline is eaten by trim_blocks, so that the template still begins at the start of a line
    return f"{{% macro strftime_now(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}\n{template}"


def ensure_template(tokenizer: Any) -> bool:
    """Gives a tokenizer without a chat template PLAIN_TEMPLATE, which `save_pretrained` then saves with it.

    Returns whether it did. The text begins with bos where the tokenizer begins every text with it. Raises TaskError
    (exit 4) when there is no eos token to end the turn with.
    """
    if tokenizer.chat_template:
        return False
    if not tokenizer.eos_token:
        raise _template_error("the tokenizer has no chat template, and no eos token to end a turn with")
    begins_with_bos = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    tokenizer.chat_template = ("{{ bos_token }}" if begins_with_bos else "") + PLAIN_TEMPLATE
    return True


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of rendered text: the template has already written every special token, bos too.

    A prompt and its completion are tokenized each by itself, in training as in scoring, because generation sees the
    tokens of the prompt first and then adds new ones. With most tokenizers that is also how the whole text is
    tokenized, since the prompt ends with a special token or a newline; one of the sentencepiece kind may put a space
    before the completion, which is then trained and scored alike.
    """
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def token_ids_of(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """`token_ids` of many texts, in batches."""
    found: list[list[int]] = []
    for start in range(0, len(texts), _BATCH):
        batch = list(texts[start : start + _BATCH])
        found += tokenizer(batch, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return found


def prompt_hash(tokenizer: Any, definition: TaskDefinition) -> str:
    """Hash of what the template makes of a fixed question and answer: equal hashes mean equal prompts."""
    messages = [*prefix_messages(definition, []), {"role": "user", "content": instruction(definition) + "\n\n\u241f"}]
    ensure_template(tokenizer)
    thinking = definition.prompt.enable_thinking
    asked = _apply(tokenizer, messages, thinking, add_generation_prompt=True)  # what a server makes of the question
    rendered = [*render(tokenizer, messages, "\u241e", enable_thinking=thinking), asked]
    return sha256_of_json([rendered, [token_ids(tokenizer, text) for text in rendered]])


def _template_error(
    message: str,
    hint: str = "choose an instruct model whose template writes the answer followed by an end-of-turn token",
    field: str = "base_model.id",
) -> TaskError:
    return TaskError(ExitCode.PREREQUISITE, [Problem(code="chat_template", message=message, field=field, hint=hint)])
