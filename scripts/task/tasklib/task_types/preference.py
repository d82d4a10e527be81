"""Preference pairs: of two answers to one prompt, one is chosen and one rejected. A type of data, not of answers.

Raw row:  {"prompt": "可以退貨嗎？", "chosen": "收到後十四天內可以…", "rejected": "不知道"}
Trained:  sft learns the chosen answer, dpo and orpo to prefer it to the rejected one
Asked:    the mean log-probability of a token of each answer (decoding `compare`); the chosen one should be likelier

`reward_margin` is the difference of the two, in nats per token. It is not the reward of DPO that a training log shows
as rewards/margins: that is beta times the log-ratio of policy and reference, summed over the tokens of an answer
(Rafailov et al. 2023, arXiv:2305.18290, section 4), and needs the reference model to be known.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from tasklib.data import answers, turns
from tasklib.data.answers import Fault, Form, Scores
from tasklib.data.turns import Turn

METHODS = ("sft", "dpo", "orpo")
DECODINGS = ("compare",)
PRIMARY_METRIC = "preference_accuracy"
PRIMARY_METRICS = ("preference_accuracy",)
UNBOUNDED_METRICS = ("reward_margin",)  # in nats, not in [0, 1]
FIELDS = ("prompt", "chosen", "rejected")
FORMS = (
    Form(FIELDS, ("system", "history")),
    Form(("conversations", "chosen", "rejected"), ("system",)),  # LLaMA-Factory's ranking data
    Form(("chosen", "rejected"), ("system",)),  # both whole conversations: Anthropic's HH-RLHF, TRL's implicit prompt
)
INPUT_FIELDS = ("prompt", "conversations", "system", "history")
TEXT_FIELDS = ("prompt", "conversations", "chosen", "rejected")
TASK_CATEGORIES = ("text-generation",)
MAY_SHORTEN = False  # the longest text may be an answer
# What is said of two rows of one text with other golds: message and hint
CONTRADICTION = (
    "same prompt and answers as {other}, but chosen and rejected are swapped",
    "decide which answer is better and remove the other row: together they teach nothing",
)

_SIDES = ("chosen", "rejected")
_HH_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


class Options(BaseModel):
    """`task:` of the definition."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    type: Literal["preference"]


class Record(BaseModel):
    """One checked row: the last user turn, what was said before it (a system message first if there is one), and the
    two answers, which are empty only for a prompt that is still to be answered."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    prompt: str
    history: list[dict[str, str]] = []
    chosen: str
    rejected: str


EXAMPLE_OPTIONS = Options(type="preference")
EXAMPLES = [
    Record(
        prompt="買錯尺寸可以退嗎？",
        chosen="可以，收到後十四天內未拆吊牌都能退，運費由我們負擔。",
        rejected="應該可以吧，你自己看一下網站。",
    ),
    Record(
        prompt="還是不亮",
        history=[
            {"role": "system", "content": "你是家電客服。"},
            {"role": "user", "content": "除濕機不能開機"},
            {"role": "assistant", "content": "請問電源燈有亮嗎？"},
        ],
        chosen="請先拔掉電源，等三十秒再插回去。",
        rejected="那就是壞了。",
    ),
    Record(
        prompt="訂單什麼時候到？",
        history=[{"role": "system", "content": "只用一句話回答。"}],
        chosen="明天下午三點前送達。",
        rejected="關於這個問題，首先要從物流說起。\n\n物流有三種：一、宅配；二、超商；三、自取。",
    ),
    Record(
        prompt="那可以改成週六嗎？",
        history=[
            {"role": "user", "content": "我預約了週五的維修"},
            {"role": "assistant", "content": "是的，週五上午十點。"},
        ],
        chosen="可以，週六上午還有十點與十一點，您要哪一個？",
        rejected="不行。",
    ),
    Record(prompt="Write {JSON} for $3 %s.", chosen='{"total": 3}\nline two, with "quotes"', rejected="3 dollars"),
    Record(prompt="a", chosen="b", rejected="c"),
]


def default_instruction(options: Options, language: str) -> str:
    """None: prompts of such data ask for themselves."""
    return ""


def prompt(record: Record, options: Options, instruction: str) -> str:
    """The user turn."""
    return f"{instruction}\n\n{record.prompt}" if instruction else record.prompt


def answer(record: Record, options: Options) -> str:
    """The assistant turn that sft is trained on: the chosen one."""
    return record.chosen


def history(record: Record) -> list[Turn]:
    """The turns before the question, the row's own system message first."""
    return list(record.history)


def candidates(record: Record) -> list[str]:
    """[chosen, rejected]: what a prediction has the values of, in this order."""
    return [record.chosen, record.rejected]


def gold(record: Record) -> str:
    """The answer that should win."""
    return record.chosen


def text_of(record: Record) -> str:
    """The conversation and both answers, in an order that does not say which is chosen: one prompt may have many pairs,
    and a pair whose sides are swapped is the same text with another gold."""
    return "\n\n".join([_conversation(record, "system"), *sorted(candidates(record))])


def passage_of(record: Record) -> str:
    """The conversation without its system message: all pairs of a prompt stay on one side of the split."""
    return _conversation(record)


def _conversation(record: Record, *more: str) -> str:
    said = [turn["content"] for turn in record.history if turn["role"] in ("user", "assistant", *more)]
    return "\n\n".join([*said, record.prompt])


pieces = answers.one_piece
resolved = answers.resolved_alone


def label_set(options: Options) -> None:
    """Answers are open."""


def strata(record: Record) -> tuple[str, ...]:
    """Nothing to stratify by."""
    return ()


# Baselines


def _by_length(prefers_longer: bool) -> answers.Baseline:
    """Prefers an answer by its number of characters alone; none where they are as long."""

    def answered(train: Sequence[Record], rows: Sequence[Record], options: Options) -> list[str | None]:
        return [_preferred(row) for row in rows]

    def _preferred(row: Record) -> str | None:
        shorter, longer = sorted(candidates(row), key=len)
        return None if len(shorter) == len(longer) else longer if prefers_longer else shorter

    return answered


BASELINES = {"longer": _by_length(True), "shorter": _by_length(False)}


# Reading


def read_record(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one mapped row, in whichever of the forms. Returns the record, or None with every fault of the row."""
    verdict = next((role for role in _SIDES if isinstance(values.get(role), bool)), None)
    if verdict:
        return None, [_unpaired(values[verdict], verdict)]
    if "prompt" not in values and "conversations" not in values and values:
        asked, sides, faults = _whole_conversations(values)
    else:
        asked, faults = _asked(values)
        sides = {}
        for role in _SIDES:
            sides[role], more = _side(values.get(role), role, None if faults else asked)
            faults = faults + more
    system, more = _system(values, asked)
    faults = faults + more
    if not faults and _folded(sides["chosen"]) == _folded(sides["rejected"]):
        hint = "remove the row: there is nothing to prefer"
        faults = [Fault("same_answers", "chosen and rejected are the same text", "chosen", hint)]
    if faults:
        return None, faults
    return Record(prompt=asked[-1]["content"], history=[*system, *asked[:-1]], **sides), []


def _unpaired(value: bool, role: str) -> Fault:
    hint = (
        "dpo and orpo learn from two answers to the same prompt: pair rows that share a prompt, one true and one "
        "false; or keep the good ones alone and train them as task type generation"
    )
    return Fault("unpaired", f"{role} is {value}: a verdict on one answer (KTO), not an answer", role, hint)


def read_input(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one row that has no answers."""
    asked, faults = _asked(values)
    system, more = _system(values, asked)
    if faults := faults + more:
        return None, faults
    return Record(prompt=asked[-1]["content"], history=[*system, *asked[:-1]], chosen="", rejected=""), []


def _asked(values: Mapping[str, Any]) -> tuple[list[Turn], list[Fault]]:
    """The conversation up to the question, out of `conversations`, or of `prompt` (a text, or turns) and `history`."""
    role = "conversations" if "conversations" in values else "prompt"
    value = values.get(role)
    if role == "conversations" or isinstance(value, list):
        found, faults = _question_last(value, role)
    else:
        text, faults = answers.require_text(values, role)
        found = [{"role": "user", "content": text}]
    earlier, more = _history(values.get("history"))
    if earlier and found[0]["role"] == "system":
        hint = "let the prompt be the last question alone, or leave the history out"
        more = [Fault("system_not_first", "a system message stands behind the history", "history", hint)]
    return [*earlier, *found], faults + more


def _question_last(value: Any, role: str) -> tuple[list[Turn], list[Fault]]:
    """Turns that end with a question."""
    found, faults = turns.read_turns(value, role, answered=False)
    if not faults and not turns.read_turns(value, role, answered=True)[1]:
        hint = "the answers stand in chosen and rejected: end the prompt with the user's turn"
        faults = [Fault("last_turn_not_user", f"the last turn of {role} is an answer", role, hint)]
    return found, faults


def _history(value: Any) -> tuple[list[Turn], list[Fault]]:
    """Earlier turns as pairs of question and answer, or as messages."""
    if isinstance(value, list) and any(isinstance(turn, dict) for turn in value):
        return turns.read_turns(value, "history", answered=True)
    return turns.read_pairs(value, "history")


def _system(values: Mapping[str, Any], asked: Sequence[Turn]) -> tuple[list[Turn], list[Fault]]:
    """The system message of a column of its own; it may be empty."""
    value = values.get("system")
    if value is None or (isinstance(value, str) and not value.strip()):
        return [], []
    text, faults = answers.require_text(values, "system")
    if not faults and asked and asked[0]["role"] == "system":
        hint = "keep one of them: leave the column out of data.fields, or the turn out of the conversation"
        faults = [Fault("two_system_messages", "the conversation has a system message of its own", "system", hint)]
    return [{"role": "system", "content": text}], faults


def _side(value: Any, role: str, asked: list[Turn] | None) -> tuple[str, list[Fault]]:
    """One answer: a text, a message, or messages, before which the conversation may be said again. `asked` is None
    where that is not known."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        text, faults = answers.require_text({role: value}, role)
        return text.strip(), faults
    if len(value) != 1:
        return _last_of_conversation(value, role, asked)
    found, faults = turns.read_turns([{"role": "user", "content": "…"}, *value], role, answered=True)
    if faults:
        message = re.sub(r"\bturn 2\b", "it", faults[0].message)
        return "", [Fault(faults[0].code, f"{role}: {message}", role, faults[0].hint)]
    return found[-1]["content"].strip(), []


def _last_of_conversation(value: list[Any], role: str, asked: list[Turn] | None) -> tuple[str, list[Fault]]:
    found, faults = turns.read_turns(value, role, answered=True)
    if faults or asked is None:
        return "", faults
    before = [turn for turn in found[:-1] if turn["role"] != "system"]
    if before != [turn for turn in asked if turn["role"] != "system"]:
        hint = f"write the answer alone into {role}, or the same turns before it as in the prompt"
        return "", [Fault("prompts_differ", f"{role} repeats another conversation than the prompt", role, hint)]
    return found[-1]["content"].strip(), []


def _whole_conversations(values: Mapping[str, Any]) -> tuple[list[Turn], dict[str, str], list[Fault]]:
    """Both sides as whole conversations that differ in their last answer alone: the question, the sides, the faults."""
    whole: dict[str, list[Turn]] = {}
    faults: list[Fault] = []
    for role in _SIDES:
        whole[role], more = _conversation_of(values.get(role), role)
        faults += more
    if faults:
        return [], {}, faults
    asked, other = (found[:-1] for found in whole.values())
    if asked != other:
        pairs = enumerate(zip(asked, other, strict=False), start=1)
        at = next((number for number, (a, b) in pairs if a != b), min(len(asked), len(other)) + 1)
        message = f"the two conversations differ from turn {at} on, before their last answer"
        hint = "a pair has one prompt and two last answers: correct or remove the row"
        return [], {}, [Fault("prompts_differ", message, "rejected", hint)]
    return asked, {role: found[-1]["content"].strip() for role, found in whole.items()}, []


def _conversation_of(value: Any, role: str) -> tuple[list[Turn], list[Fault]]:
    """A whole conversation: messages, or one text in the form of HH-RLHF (`\\n\\nHuman: … \\n\\nAssistant: …`)."""
    if not isinstance(value, str):
        return turns.read_turns(value, role, answered=True)
    text, faults = answers.require_text({role: value}, role)
    if faults:
        return [], faults
    parts = _HH_TURN.split(text)
    if len(parts) < 3:
        hint = "map the column of the prompt too; without one, both sides hold their whole conversation"
        return [], [Fault("no_prompt", f"{role} is an answer alone, and no prompt is mapped", role, hint)]
    speakers = {"Human": "user", "Assistant": "assistant"}
    said = [
        {"role": speakers[name], "content": text.strip()} for name, text in zip(parts[1::2], parts[2::2], strict=True)
    ]
    return turns.read_turns(said, role, answered=True)


def _folded(text: str) -> str:
    return " ".join(text.split())


def raw_row(record: Record, form: Form) -> dict[str, Any] | None:
    """The raw row of a form that reads back as this record; None where the form cannot hold it."""
    question = {"role": "user", "content": record.prompt}
    sides = {role: getattr(record, role) for role in _SIDES}
    if "conversations" in form.required:
        return {"conversations": [*record.history, question], **sides}
    if "prompt" not in form.required:
        said = [*record.history, question]
        return {role: [*said, {"role": "assistant", "content": text}] for role, text in sides.items()}
    first = record.history[:1]
    system = {"system": first[0]["content"]} if first and first[0]["role"] == "system" else {}
    said = [turn["content"] for turn in record.history[len(system) :]]
    rounds = {"history": [list(pair) for pair in zip(said[::2], said[1::2], strict=True)]} if said else {}
    return {"prompt": record.prompt, **sides, **system, **rounds}


def normalized(record: Record, forms: Sequence[str], options: Options) -> Record:
    """The record after the declared `data.normalize` steps, its answers too: they are texts that the model reads."""
    if "nfkc" not in forms:
        return record
    applied: Callable[[str], str] = functools.partial(unicodedata.normalize, "NFKC")
    changed: dict[str, Any] = {role: applied(getattr(record, role)) for role in FIELDS}
    changed["history"] = [{**turn, "content": applied(turn["content"])} for turn in record.history]
    return record.model_copy(update=changed)


# Metrics


def parse(text: str, options: Options) -> str | None:
    """A generated text as it stands, for predict.py; None where it is empty."""
    return text.strip() or None


def count(golds: Sequence[str], predictions: Sequence[Any], options: Options) -> np.ndarray:
    """Per row what the metrics sum up, shape (n_rows, 4): 1, whether the chosen answer won, whether there is a margin,
    and the margin.

    A prediction is the pair of values of [chosen, rejected], or, of a baseline, the answer it prefers. Equal values are
    no preference and count as wrong, as in the rewards/accuracies of TRL's trainers.
    """
    rows = [_counted(gold, prediction) for gold, prediction in zip(golds, predictions, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 4)


def _counted(gold: str, prediction: Any) -> tuple[float, float, float, float]:
    if isinstance(prediction, Sequence) and not isinstance(prediction, str):
        chosen, rejected = prediction
        return 1.0, float(chosen > rejected), 1.0, chosen - rejected
    return 1.0, float(prediction == gold), 0.0, 0.0


def score_counts(counts: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    """Metric name -> values of shape (...,) for summed counts of shape (..., 4).

    `preference_accuracy` is the share of rows whose chosen answer has the larger value; `reward_margin` the mean by
    which it is larger, in nats per token, NaN where no row has values (baselines).
    """
    counts = np.asarray(counts, dtype=np.float64)
    return {
        "preference_accuracy": answers.ratio(counts[..., 1], counts[..., 0]),
        "reward_margin": answers.ratio(counts[..., 3], counts[..., 2]),
    }


def class_ratios(counts: np.ndarray, options: Options) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """There are no classes."""
    return {}


def per_class(counts: np.ndarray, options: Options) -> dict[str, dict[str, float | None]]:
    """There are no classes."""
    return {}


def score(golds: Sequence[str], predictions: Sequence[Any], options: Options) -> Scores:
    """All metrics over a corpus; what is undefined is None, with its name in `undefined`."""
    counts = count(golds, predictions, options).sum(0)
    values = {name: answers.or_none(value) for name, value in score_counts(counts, options).items()}
    return Scores(values, {}, [name for name, value in values.items() if value is None])


def reward(record: Record, text: str, options: Options) -> float:
    """1.0 when a generated text is the chosen answer, white space aside, else 0.0."""
    return float(_folded(text) == _folded(record.chosen))
