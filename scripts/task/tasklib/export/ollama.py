"""An Ollama Modelfile whose template renders what training rendered, derived from the chat template itself.

The chat template is asked with stand-ins, and what it writes around them becomes a Go template over `.System` and
`.Messages` (https://github.com/ollama/ollama/blob/main/docs/template.mdx). What it rendered is then compared, character
by character, with what that Go template renders.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.export.contract import Contract
from tasklib.model import prompts
from tasklib.model.prompts import Message
from tasklib.schema import TaskDefinition
from tasklib.summary import Problem, TaskError

SYSTEM, QUESTION, ANSWER, FOLLOW_UP = (f"\u241f{word}\u241f" for word in ("system", "question", "answer", "follow-up"))
_ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


@dataclass(frozen=True)
class Turns:
    """What stands around the texts of a conversation.

    `opening` comes first where there is no system message; `before_system` and `after_system` where there is one (None:
    the template has no system role). `before_answer` and `after_answer` stand around an earlier answer, `generation`
    behind the last question.
    """

    opening: str
    before_system: str | None
    after_system: str | None
    before_answer: str
    after_answer: str
    generation: str


def modelfile(tokenizer: Any, definition: TaskDefinition, contract: Contract, gguf_name: str) -> tuple[str, str]:
    """The Modelfile of an export, and its template alone. Raises TaskError (exit 4) for what Ollama cannot express."""
    template = go_template(tokenizer, definition)
    system = definition.prompt.system
    values = [template, *contract.stop, *([system] if system else [])]
    problems = [problem for value in values for problem in _unwritable(value)]
    if problems:
        raise TaskError(ExitCode.PREREQUISITE, problems)
    lines = [f"FROM ./{gguf_name}", f'TEMPLATE """{template}"""']
    lines += [f'SYSTEM """{system}"""'] if system else []
    lines += [f'PARAMETER stop "{stop}"' for stop in contract.stop]
    lines += [f"PARAMETER {name} {value}" for name, value in parameters(contract).items()]
    return "\n".join(lines) + "\n", template


def parameters(contract: Contract) -> dict[str, int]:
    """Ollama's own parameters: greedy as in evaluation, without the repetition penalty that it would add, and with room
    for the longest prompt and its answer."""
    n_new = contract.decoding.max_new_tokens
    room = max(2048, contract.max_length + n_new)
    return {"temperature": 0, "repeat_penalty": 1, "num_predict": n_new, "num_ctx": room, "seed": 0}


def find() -> str | None:
    """The program ollama, where it is installed."""
    return shutil.which("ollama")


def address() -> str:
    """Ollama's OpenAI-compatible address, from OLLAMA_HOST as its own client reads it."""
    host = os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434"
    host = host if "://" in host else f"http://{host}"
    host = host.rstrip("/").replace("://0.0.0.0", "://127.0.0.1")
    return (host if re.search(r":\d+$", host) else f"{host}:11434") + "/v1"


def create(folder: Path, name: str) -> None:
    """Gives the model of an exported folder to the running Ollama. Raises TaskError (exit 4) with what it says."""
    command = [find() or "ollama", "create", name, "-f", "Modelfile"]
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        problem = Problem(
            code="ollama_failed",
            message=f"ollama create ended with {done.returncode}: {lines[-1] if lines else 'it said nothing'}",
            hint="start it with `ollama serve`, then run the same command again",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem])


def go_template(tokenizer: Any, definition: TaskDefinition) -> str:
    """A Go template that renders system message, questions and answers as the chat template does.

    Raises TaskError (exit 4) where it does not: thinking is on, or the template looks at more than role and place.
    """
    if definition.prompt.enable_thinking:
        raise _refused("prompt.enable_thinking is true: Ollama's templates cannot say where a thought begins and ends")
    turns = _without_bos(tokenizer, turns_of(tokenizer))
    begin = _go(turns.opening)
    if turns.before_system is not None and turns.after_system is not None:
        begin = (
            "{{ if .System }}" + _go(turns.before_system) + "{{ .System }}" + _go(turns.after_system)
            + "{{ else }}" + _go(turns.opening) + "{{ end }}"
        )  # fmt: skip
    template = (
        begin + '{{ range .Messages }}{{ if eq .Role "user" }}{{ .Content }}{{ else if eq .Role "assistant" }}'
        + _go(turns.before_answer) + "{{ .Content }}" + _go(turns.after_answer) + "{{ end }}{{ end }}"
        + _go(turns.generation)
    )  # fmt: skip
    _require_same(tokenizer, definition, template)
    return template


def turns_of(tokenizer: Any) -> Turns:
    """Asks the chat template with stand-ins. Raises TaskError (exit 4) when its pieces do not fit together."""
    user, answer = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}
    opening, generation = _around(_render(tokenizer, [user]), QUESTION)
    conversation = _render(tokenizer, [user, answer, {"role": "user", "content": FOLLOW_UP}])
    before_answer, rest = _around(_around(conversation, QUESTION)[1], ANSWER)
    after_answer = _around(rest, FOLLOW_UP)[0]
    before_system = after_system = None
    try:
        with_system = _render(tokenizer, [{"role": "system", "content": SYSTEM}, user])
        before_system, rest = _around(with_system, SYSTEM)
        after_system = _around(rest, QUESTION)[0]
    except TaskError:  # it has no system role, or puts the message somewhere else
        before_system = None
    return Turns(opening, before_system, after_system, before_answer, after_answer, generation)


def rendered(template: str, messages: Sequence[Message], system: str | None = None) -> str:
    """What Ollama makes of messages by a template of this module. `system` is the Modelfile's SYSTEM.

    It knows exactly the actions that `go_template` writes, and a test compares it with Go's own text/template.
    """
    spoken = list(messages)
    if system and spoken[0]["role"] != "system":
        spoken.insert(0, {"role": "system", "content": system})
    values = {".System": "\n\n".join(m["content"] for m in spoken if m["role"] == "system"), ".Messages": spoken}
    tokens = _ACTION.split(template)
    output, position = _block(tokens, 0, values, written=True)
    if position != len(tokens):
        raise ValueError(f"unexpected {{{{ {tokens[position].strip()} }}}}")
    return output


def _block(tokens: list[str], start: int, values: dict[str, Any], *, written: bool) -> tuple[str, int]:
    """Text from `start` up to the else or end that closes the block, and where that stands."""
    parts, position = [], start
    while position < len(tokens):
        if position % 2 == 0:
            parts.append(tokens[position] if written else "")
            position += 1
            continue
        action = tokens[position].strip()
        if action == "end" or action.startswith("else"):
            break
        if action.startswith(("if ", "range ")):
            text, position = _branch(tokens, position, values, written=written)
            parts.append(text)
        else:
            parts.append(_value(action, values) if written else "")
            position += 1
    return "".join(parts), position


def _branch(tokens: list[str], at: int, values: dict[str, Any], *, written: bool) -> tuple[str, int]:
    """An if with its else branches, or a range; `at` is its first action. Returns the text and where it goes on."""
    action = tokens[at].strip()
    if action == "range .Messages":
        parts, end = [], _block(tokens, at + 1, values, written=False)[1]
        for message in values[".Messages"] if written else []:
            own = {**values, ".Role": message["role"], ".Content": message["content"]}
            parts.append(_block(tokens, at + 1, own, written=True)[0])
        return "".join(parts), end + 1
    taken, output, position = not written, "", at
    while True:
        condition = tokens[position].strip().removeprefix("else").strip()
        holds = not taken and (not condition or _holds(condition.removeprefix("if ").strip(), values))
        text, position = _block(tokens, position + 1, values, written=holds)
        output, taken = output + text, taken or holds
        if tokens[position].strip() == "end":
            return output, position + 1


def _holds(condition: str, values: dict[str, Any]) -> bool:
    if found := re.fullmatch(r'eq (\.\w+) "(\w+)"', condition):
        return values[found[1]] == found[2]
    return bool(values[condition])


def _value(action: str, values: dict[str, Any]) -> str:
    return action[1:-1] if action.startswith("`") else values[action]


def _go(text: str) -> str:
    """Literal text of a Go template; what would begin an action stands in a raw string."""
    return text.replace("{{", "{{ `{` }}{{ `{` }}")


def _render(tokenizer: Any, messages: list[Message]) -> str:
    return prompts.render_prompt(tokenizer, messages)


def _around(text: str, mark: str) -> tuple[str, str]:
    before, found, behind = text.partition(mark)
    if not found:
        raise _refused("the chat template does not write system message, question and answer in their order")
    return before, behind


def _without_bos(tokenizer: Any, turns: Turns) -> Turns:
    """Ollama puts the bos token in front by itself where the tokenizer does; twice would be another prompt."""
    bos = tokenizer.bos_token
    if not bos or tokenizer.bos_token_id is None or tokenizer("a")["input_ids"][0] != tokenizer.bos_token_id:
        return turns
    before_system = turns.before_system and turns.before_system.removeprefix(bos)
    if turns.before_system == bos:
        before_system = ""
    return Turns(
        turns.opening.removeprefix(bos),
        before_system,
        turns.after_system,
        turns.before_answer,
        turns.after_answer,
        turns.generation,
    )


def _conversation(definition: TaskDefinition) -> list[Message]:
    """What Ollama is sent: the system message, as many answered questions as there are worked examples, a question."""
    prefix, user = prompts.prefix_messages(definition, []), {"role": "user", "content": QUESTION}
    answered = [user, {"role": "assistant", "content": ANSWER}]
    return [*prefix, *answered * definition.prompt.n_few_shot, {"role": "user", "content": FOLLOW_UP}]


def _require_same(tokenizer: Any, definition: TaskDefinition, template: str) -> None:
    """Raises TaskError (exit 4) when the Go template renders a conversation of this task otherwise."""
    bos, messages = tokenizer.bos_token or "", _conversation(definition)
    wanted, found = _render(tokenizer, messages), rendered(template, messages)
    if found not in (wanted, wanted.removeprefix(bos)):
        raise _refused(f"Ollama would write {found!r} instead of {wanted!r}")


def _unwritable(value: str) -> list[Problem]:
    """Why a value cannot stand in a Modelfile: its parser drops what Go does not call printable
    (https://github.com/ollama/ollama/blob/main/parser/parser.go), and a value ends at three quotes."""
    lost = sorted({c for c in value if c not in " \n\t" and unicodedata.category(c)[0] not in "LMNPS"})
    problems = []
    if lost:
        shown = ", ".join(f"U+{ord(c):04X}" for c in lost)
        problems.append(_problem(f"a Modelfile loses {shown}, which stands in {value[:40]!r}"))
    if '"""' in value or value.endswith('"'):
        problems.append(_problem(f"a Modelfile cannot hold the quotes in {value[:40]!r}"))
    return problems


def _refused(message: str) -> TaskError:
    return TaskError(ExitCode.PREREQUISITE, [_problem(message)])


def _problem(message: str) -> Problem:
    return Problem(
        code="not_for_ollama",
        message=message,
        field="prompt",
        hint="--format gguf serves the same file with llama.cpp's own server, which renders the chat template itself",
    )
