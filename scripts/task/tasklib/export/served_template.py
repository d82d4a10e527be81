"""The chat template that an export carries: a server that renders it without further arguments gets the prompt of
training, to the character."""

from __future__ import annotations

from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.model import prompts
from tasklib.schema import TaskDefinition
from tasklib.summary import Problem, TaskError

# Stand-ins that no template takes for text of its own
QUESTION, ANSWER, FOLLOW_UP = "\u241fquestion\u241f", "\u241eanswer\u241e", "\u241dfollow-up\u241d"


def served_template(tokenizer: Any, definition: TaskDefinition) -> str:
    """The tokenizer's own template where a server renders it as training did; otherwise the same template with what
    training decided written in front of it and behind it.

    In front: thinking on or off, the date that training was told, and the system message that stands there when the
    caller sends none (the definition's own, or an empty one where the template would write one by itself). Behind: what
    training put between the generation prompt and the answer. Raises TaskError (exit 4) when even that renders
    otherwise.
    """
    prompts.ensure_template(tokenizer)
    own = tokenizer.get_chat_template()
    if differs(tokenizer, definition, own) is None:
        return own
    fixed = _in_front(tokenizer, definition, own) + prompts.with_fixed_date(own)
    messages = probes(definition)[0]
    asked = prompts.rendered_by(tokenizer, fixed, messages)
    wanted = prompts.render_prompt(tokenizer, messages, enable_thinking=definition.prompt.enable_thinking)
    if wanted.startswith(asked) and wanted != asked:
        fixed = fixed.removesuffix("\n") + "{% if add_generation_prompt %}{{ " + _literal(wanted[len(asked) :])
        fixed += " }}{% endif %}"
    if (found := differs(tokenizer, definition, fixed)) is not None:
        raise TaskError(ExitCode.PREREQUISITE, [_not_servable(*found)])
    return fixed


def probes(definition: TaskDefinition) -> list[list[prompts.Message]]:
    """Conversations of stand-ins as a caller sends them: one question; where the definition has a system message, the
    same without it; where it has worked examples, a question after an answered one."""
    prefix, question = prompts.prefix_messages(definition, []), {"role": "user", "content": QUESTION}
    found = [[*prefix, question]]
    if prefix:
        found.append([question])
    if definition.prompt.n_few_shot:
        answered = [{"role": "assistant", "content": ANSWER}, {"role": "user", "content": FOLLOW_UP}]
        found.append([*prefix, question, *answered])
    return found


def differs(tokenizer: Any, definition: TaskDefinition, template: str) -> tuple[str, str] | None:
    """(what training rendered, what a server renders by `template`) for the first probe in which they differ."""
    prefix = prompts.prefix_messages(definition, [])
    for messages in probes(definition):
        trained = messages if messages[0]["role"] == "system" or not prefix else [*prefix, *messages]
        wanted = prompts.render_prompt(tokenizer, trained, enable_thinking=definition.prompt.enable_thinking)
        try:
            found = prompts.rendered_by(tokenizer, template, messages)
        except TaskError as error:
            found = f"({error})"
        if found != wanted:
            return wanted, found
    return None


def _in_front(tokenizer: Any, definition: TaskDefinition, template: str) -> str:
    """The newline is eaten by trim_blocks, so that the template still begins at the start of a line."""
    thinking = "true" if definition.prompt.enable_thinking else "false"
    lines = [f"{{% set enable_thinking = {thinking} %}}"] if "enable_thinking" in template else []
    system = definition.prompt.system
    if system is None and prompts.writes_system(tokenizer, enable_thinking=definition.prompt.enable_thinking):
        system = ""
    if system is not None:
        message = f"{{'role': 'system', 'content': {_literal(system)}}}"
        lines.append(
            f"{{% if messages[0]['role'] != 'system' %}}{{% set messages = [{message}] + messages %}}{{% endif %}}"
        )
    return "".join(line + "\n" for line in lines)


def _literal(text: str) -> str:
    """A Jinja string: the escapes that Jinja and llama.cpp's engine both know."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\t", "\\t")
    return f"'{escaped}'"


def _not_servable(wanted: str, found: str) -> Problem:
    return Problem(
        code="template_not_servable",
        message=f"a server renders the prompt otherwise than training did: {found!r} instead of {wanted!r}",
        field="base_model.id",
        hint="serve the run with transformers (predict.py), or train on a base model with a plainer chat template",
    )
