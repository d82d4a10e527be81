"""Conversations as people have them -> turns with a role and a text: OpenAI's `role`/`content`, ShareGPT's
`from`/`value`, and the pairs of Alpaca's `history`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tasklib.data.answers import Fault

Turn = dict[str, str]

ROLES = {
    "system": "system",
    "developer": "system",  # OpenAI's name since o1
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
}
TOOL_ROLES = ("tool", "function", "function_call", "function_response", "observation", "ipython")
STYLES = (("role", "content"), ("from", "value"))
_UNKNOWN = "?"  # who speaks in a turn that could not be read
_NAMES = {"system": "the system", "user": "the user", "assistant": "the assistant"}


def read_turns(value: Any, role: str, *, answered: bool) -> tuple[list[Turn], list[Fault]]:
    """The turns of one row, or every fault of their shape, roles and order. Where not `answered`, an answer at the end
    is left out: what is asked stands before it; a text alone is what the user says."""
    value = _from_cell(value)
    if not answered and isinstance(value, str) and value.strip():
        return [{"role": "user", "content": value}], []  # a question alone
    if faults := _wrong_shape(value, role):
        return [], faults
    found, faults = [], []
    for number, turn in enumerate(value, start=1):
        read, fault = _read_turn(turn, number, role)
        faults += [fault] if fault else []
        found.append(read)
    speakers = [turn["role"] for turn in found]
    faults += _order_faults(speakers, role, answered=answered)
    if not answered and speakers and speakers[-1] == "assistant":
        found = found[:-1]
    return ([], faults) if faults else (found, [])


def read_pairs(value: Any, role: str) -> tuple[list[Turn], list[Fault]]:
    """The turns of `[[question, answer], …]`; an empty cell has none."""
    value = _from_cell(value)
    if value in (None, "", []):
        return [], []
    hint = 'write [["question", "answer"], …]'
    if not isinstance(value, list):
        return [], [Fault("wrong_type", f"{role} is {type(value).__name__}, not a list", role, hint)]
    found, faults = [], []
    for number, pair in enumerate(value, start=1):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            message = f"round {number} of {role} is no pair of question and answer"
            faults.append(Fault("wrong_nesting", message, role, hint))
        elif not all(text.strip() for text in pair):
            message = f"round {number} of {role} has an empty {'answer' if pair[0].strip() else 'question'}"
            faults.append(Fault("empty_turn", message, role, "fill it, or remove the round"))
        else:
            found += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return ([], faults) if faults else (found, [])


def _from_cell(value: Any) -> Any:
    """A cell of a table holds a list as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _wrong_shape(value: Any, role: str) -> list[Fault]:
    """Why a value is no list of turns at all."""
    hint = 'write [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'
    if value is None:
        return [Fault("missing_field", f"{role} is missing", role, "fill the cell or remove the row")]
    if value == [] or (isinstance(value, str) and not value.strip()):
        return [Fault("empty_field", f"{role} is empty", role, "fill the cell or remove the row")]
    if isinstance(value, dict):
        inner = next((key for key in ("messages", "conversations", "conversation") if key in value), None)
        if inner:
            hint = f"the turns stand one level deeper, under {inner!r}: map that column, or take them out"
        return [Fault("wrong_nesting", f"{role} is one object, not a list of turns", role, hint)]
    if not isinstance(value, list):
        return [Fault("wrong_type", f"{role} is {type(value).__name__}, not a list of turns", role, hint)]
    if all(isinstance(turn, list) for turn in value):
        if len(value) == 1:
            return [Fault("wrong_nesting", f"{role} is a list in a list", role, "take away the outer brackets")]
        message = f"{role} is a list of lists, not of turns"
        hint = "pairs of question and answer: map them as `history` of instruction + output, or write role and content"
        return [Fault("wrong_nesting", message, role, hint)]
    return []


def _read_turn(turn: Any, number: int, role: str) -> tuple[Turn, Fault | None]:
    """One turn with the role that this project calls it by, and what is wrong with it."""

    def fault(code: str, message: str, hint: str, speaker: str = _UNKNOWN) -> tuple[Turn, Fault]:
        return {"role": speaker, "content": ""}, Fault(code, f"turn {number} {message}", role, hint)

    if not isinstance(turn, dict):
        return fault("wrong_nesting", f"is {type(turn).__name__}, not an object", "write role and content")
    style = next((style for style in STYLES if style[0] in turn), None)
    if style is None:
        keys = ", ".join(map(repr, list(turn)[:5])) or "nothing"
        return fault("wrong_nesting", f"has no role: it has {keys}", "a turn is {role, content} or {from, value}")
    said_by, text = turn[style[0]], turn.get(style[1])
    if said_by in TOOL_ROLES or turn.get("tool_calls") or turn.get("function_call"):
        hint = "a task of this type trains answers in words, no calls of tools: remove such rows"
        return fault("tool_message", "is a call of a tool or its result", hint)
    speaker = ROLES.get(said_by.strip().lower() if isinstance(said_by, str) else "")
    if speaker is None:
        return fault("unknown_role", f"has the role {said_by!r}", f"legal: {', '.join(ROLES)}")
    if turn.get("weight", 1) != 1:
        hint = "every answer is trained alike: remove `weight`, or the row"
        return fault("turn_weight", f"has the weight {turn['weight']!r}", hint, speaker)
    if text is None and style[1] not in turn:
        other = next((key for _, key in STYLES if key in turn), None)
        hint = f"rename {other!r}: {style[0]} goes with {style[1]}" if other else "fill it, or remove the turn"
        return fault("missing_content", f"has {style[0]!r}, but no {style[1]!r}", hint, speaker)
    if text is not None and not isinstance(text, str):
        hint = "write the text alone: parts of a message, pictures and sounds are not read"
        return fault("wrong_type", f"has {style[1]} of type {type(text).__name__}, not text", hint, speaker)
    if not (text or "").strip():
        return fault("empty_turn", f"of {_NAMES[speaker]} is empty", "fill it, or remove the row", speaker)
    return {"role": speaker, "content": text}, None


def _order_faults(speakers: Sequence[str], role: str, *, answered: bool) -> list[Fault]:
    """What is wrong with who speaks when: one system turn first if any, then user and assistant in turn."""
    faults = []

    def fault(code: str, message: str, hint: str) -> None:
        faults.append(Fault(code, message, role, hint))

    for number, speaker in enumerate(speakers, start=1):
        before = speakers[: number - 1]
        if speaker == "system" and before:
            fault("system_not_first", f"turn {number} is a system message", "only the first turn may be one")
        elif speaker == "assistant" and set(before) <= {"system"}:
            hint = "begin with what the user says: remove the turn, or make it part of the system message"
            fault("no_user_turn", f"the assistant speaks first, in turn {number}", hint)
        elif speaker in ("user", "assistant") and before and speaker == before[-1]:
            hint = "join them into one, or give the turn between them back"
            fault(f"two_{speaker}_turns", f"turns {number - 1} and {number} are both of {_NAMES[speaker]}", hint)
    if _UNKNOWN in speakers:
        return faults
    if answered and "assistant" not in speakers:
        fault("no_assistant_turn", "the assistant says nothing: there is no answer to learn", "remove the row")
    elif answered and speakers[-1] != "assistant":
        message = f"the last turn is of {_NAMES[speakers[-1]]}: there is no answer to it"
        fault("last_turn_not_assistant", message, "remove it, or add the answer")
    elif not answered and "user" not in speakers and not faults:
        fault("no_user_turn", "the user says nothing: there is nothing to answer", "remove the row")
    return faults
