"""Free text: the model answers in its own words, in one turn or in a conversation.

Raw row:  {"document": "第三季營收…", "summary": "第三季營收成長"}
Trained:  user "<instruction>\\n\\n第三季營收…" -> assistant "第三季營收成長"
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tasklib.data import accepted_answers, answers, normalization, text_baselines, text_scores, turns
from tasklib.data.answers import Fault, Form, Scores

METHODS = ("sft", "dpo", "orpo")
DECODINGS = ("generate",)
PRIMARY_METRIC = "rouge_l"
PRIMARY_METRICS = ("rouge_l", "chrf", "bleu", "exact_match", "token_f1", "rouge_1", "rouge_2")
FIELDS = ("prompt", "response")
FORMS = (
    Form(FIELDS, ("system",)),
    Form(("instruction", "output"), ("input", "system", "history")),  # Alpaca
    Form(("messages",)),  # OpenAI's, or ShareGPT's `conversations`
    Form(("document", "summary"), asks=False),
    Form(("context", "question", "answers")),  # SQuAD
)
INPUT_FIELDS = ("prompt", "instruction", "input", "system", "history", "messages", "document", "context", "question")
TEXT_FIELDS = ("prompt", "instruction", "input", "document", "context", "question", "response", "output", "summary")
TASK_CATEGORIES = ("text-generation",)
MAY_SHORTEN = True
# What is said of two rows of one text with other golds: message and hint
CONTRADICTION = (
    "the same is asked as in {other}, and answered otherwise",
    "where both answers are right, make one row with both of them (context, question, answers); otherwise remove one",
)

_SENTENCE_END = re.compile(r"(?<=[。！？!?])[」』”’）)]*|(?<=\.)\s+|\n+")


class Options(BaseModel):
    """`task:` of the definition."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    type: Literal["generation"]
    turns: Literal["last", "all"] = Field(
        "all", description="all: training learns every answer of a conversation; evaluation asks for the last alone"
    )
    allow_copies: bool = Field(
        False, description="true: an answer may be its whole prompt, as where there is nothing to correct"
    )


class Record(BaseModel):
    """One checked row: the last question with its text, what was said before it, and the answers that are right.

    `history` holds turns `{role, content}`, a system message first if there is one. `context` is the text that a
    question is about, "" where there is none. `response` is trained, `references` are what answers are scored by:
    both are empty only for a row that is still to be answered.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    prompt: str
    response: str
    history: list[dict[str, str]] = []
    context: str = ""
    references: list[str]


def _answered(response: str, **more: Any) -> Record:
    return Record(**{"response": response, "references": [response], **more})


EXAMPLE_OPTIONS = Options(type="generation")
EXAMPLES = [
    _answered("十四天內可以無條件退貨", prompt="買錯尺寸可以退嗎？"),
    _answered(
        "請先拔掉電源，等三十秒再插回去。",
        prompt="還是不亮",
        history=[
            {"role": "system", "content": "你是家電客服。"},
            {"role": "user", "content": "除濕機不能開機"},
            {"role": "assistant", "content": "請問電源燈有亮嗎？"},
        ],
    ),
    _answered("市圖週一休館", prompt="市立圖書館公告：自下月起每週一全館休館，還書箱照常開放。"),
    Record(
        prompt="工程預計花多少錢？",
        response="新台幣三億元",
        context="舊鐵橋修復工程今年動工，經費新台幣三億元，預計後年完工。",
        references=["新台幣三億元", "三億元"],
    ),
    _answered('{"total": 3}\nline two, with "quotes"', prompt="Write {JSON} for $3 %s."),
    _answered("好", prompt="a"),
]


def default_instruction(options: Options, language: str) -> str:
    """None: rows of this type ask for themselves, and an instruction before each turn of a conversation would have to
    be repeated by whoever uses the model. Rows that do not ask (`Form.asks`) need `prompt.instruction`."""
    return ""


def prompt(record: Record, options: Options, instruction: str) -> str:
    """The user turn: instruction, text and question, whichever there are."""
    return "\n\n".join(part for part in (instruction, record.context, record.prompt) if part)


def answer(record: Record, options: Options) -> str:
    """The assistant turn that is trained on."""
    return record.response


def history(record: Record) -> list[dict[str, str]]:
    """The turns before the question, the row's own system message first."""
    return list(record.history)


def gold(record: Record) -> list[str]:
    """Every answer that is right, the trained one first."""
    return record.references


def text_of(record: Record) -> str:
    """All that the model reads of a row: two rows with the same question in other conversations are not the same."""
    return "\n\n".join([*(turn["content"] for turn in record.history), *_asked(record)])


def passage_of(record: Record) -> str:
    """The text that questions are about; of a conversation all but the system message, which many rows share."""
    said = [turn["content"] for turn in record.history if turn["role"] != "system"]
    return record.context or "\n\n".join([*said, *_asked(record)])


def _asked(record: Record) -> list[str]:
    return [part for part in (record.context, record.prompt) if part]


def pieces(record: Record, options: Options, *, training: bool) -> list[Record]:
    """With `turns: all` one piece for each answer of a conversation while training; otherwise the row as it is."""
    if not training or options.turns == "last":
        return [record]
    earlier = [
        _answered(turn["content"], prompt=record.history[place - 1]["content"], history=record.history[: place - 1])
        for place, turn in enumerate(record.history)
        if turn["role"] == "assistant"
    ]
    return [*earlier, record]


resolved = answers.resolved_alone


def label_set(options: Options) -> None:
    """Answers are open."""


def strata(record: Record) -> tuple[str, ...]:
    """Nothing to stratify by."""
    return ()


# Baselines


def _best_sentence(train: Sequence[Record], rows: Sequence[Record], options: Options) -> list[str | None]:
    """The first sentence of the text (lead-1 of a summary); of a text with a question the sentence that shares most
    tokens with the question."""
    return [_sentence(record) for record in rows]


def _sentence(record: Record) -> str | None:
    parts = (part.strip() for part in _SENTENCE_END.split(record.context or record.prompt))
    found = [part for part in parts if part]
    if not record.context:
        return next(iter(found), None)
    wanted = set(text_scores.tokens(record.prompt))
    return max(found, key=lambda part: len(wanted & set(text_scores.tokens(part))), default=None)


def _nearest_answer(train: Sequence[Record], rows: Sequence[Record], options: Options) -> list[str | None]:
    """The answer of the training row whose question is most similar."""
    nearest = text_baselines.nearest([r.prompt for r in train], [r.prompt for r in rows])
    return [None if place is None else train[place].response for place in nearest]


BASELINES = {"best_sentence": _best_sentence, "nearest_answer": _nearest_answer}


# Reading


def read_record(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one mapped row, in whichever of the forms. Returns the record, or None with every fault of the row."""
    return _reader(values)(values, options, answered=True)


def read_input(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one row that has no answer; a conversation may end in one, which is left out."""
    return _reader(values)(values, options, answered=False)


def _reader(values: Mapping[str, Any]) -> Any:
    """The reader of the form whose roles are mapped."""
    readers = {
        "messages": _read_messages,
        "instruction": _read_instruction,
        "document": _read_document,
        "question": _read_question,
    }
    return next((reader for role, reader in readers.items() if role in values), _read_pair)


def _read_pair(values: Mapping[str, Any], options: Options, *, answered: bool) -> tuple[Record | None, list[Fault]]:
    text, faults = answers.require_text(values, "prompt")
    system, more = _system(values)
    return _with_answer(values, "response", options, faults + more, answered, prompt=text, history=system)


def _read_instruction(
    values: Mapping[str, Any], options: Options, *, answered: bool
) -> tuple[Record | None, list[Fault]]:
    """Alpaca: the input stands behind the instruction."""
    instruction, faults = answers.require_text(values, "instruction")
    extra, more = _optional_text(values, "input")
    system, of_system = _system(values)
    earlier, of_history = turns.read_pairs(values.get("history"), "history")
    text = f"{instruction}\n\n{extra}" if extra else instruction
    faults += more + of_system + of_history
    return _with_answer(values, "output", options, faults, answered, prompt=text, history=[*system, *earlier])


def _read_document(values: Mapping[str, Any], options: Options, *, answered: bool) -> tuple[Record | None, list[Fault]]:
    text, faults = answers.require_text(values, "document")
    return _with_answer(values, "summary", options, faults, answered, prompt=text)


def _read_messages(values: Mapping[str, Any], options: Options, *, answered: bool) -> tuple[Record | None, list[Fault]]:
    found, faults = turns.read_turns(values.get("messages"), "messages", answered=answered)
    if faults:
        return None, faults
    if not answered:
        return _unanswered(prompt=found[-1]["content"], history=found[:-1]), []
    *earlier, question, reply = found
    return _answered(reply["content"].strip(), prompt=question["content"], history=earlier), []


def _read_question(values: Mapping[str, Any], options: Options, *, answered: bool) -> tuple[Record | None, list[Fault]]:
    text, faults = answers.require_text(values, "context")
    question, more = answers.require_text(values, "question")
    faults += more
    if not answered:
        return (None, faults) if faults else (_unanswered(prompt=question, context=text), [])
    references, of_answers = accepted_answers.read_answers(values.get("answers"), text, "answers")
    faults += of_answers
    if faults:
        return None, faults
    return Record(prompt=question, response=references[0], context=text, references=references), []


def _with_answer(
    values: Mapping[str, Any], role: str, options: Options, faults: list[Fault], answered: bool, **asked: Any
) -> tuple[Record | None, list[Fault]]:
    """The record of a row whose answer is one text in a column of its own."""
    if not answered:
        return (None, faults) if faults else (_unanswered(**asked), [])
    response, more = answers.require_text(values, role)
    faults = faults + more
    if not faults and response.strip() == asked["prompt"].strip() and not options.allow_copies:
        hint = "correct the row or data.fields; if a text may come back unchanged, set task.allow_copies: true"
        faults = [Fault("answer_is_prompt", f"{role} is the same text as what is asked", role, hint)]
    return (None, faults) if faults else (_answered(response.strip(), **asked), [])


def _unanswered(**asked: Any) -> Record:
    return Record(**{"response": "", "references": [], **asked})


def _optional_text(values: Mapping[str, Any], role: str) -> tuple[str, list[Fault]]:
    """A text that may be missing or empty."""
    value = values.get(role)
    if value is None or (isinstance(value, str) and not value.strip()):
        return "", []
    return answers.require_text(values, role)


def _system(values: Mapping[str, Any]) -> tuple[list[turns.Turn], list[Fault]]:
    text, faults = _optional_text(values, "system")
    return ([{"role": "system", "content": text}] if text else []), faults


def raw_row(record: Record, form: Form) -> dict[str, Any] | None:
    """The raw row of a form that reads back as this record; None where the form cannot hold it. A conversation that is
    still to be answered ends with its question."""
    first = record.history[:1]
    system = {"system": first[0]["content"]} if first and first[0]["role"] == "system" else {}
    said = [turn["content"] for turn in record.history[len(system) :]]
    if "answers" in form.required:
        values = {"context": record.context, "question": record.prompt, "answers": record.references}
        return values if record.context and not record.history else None
    reply = [record.response] if record.response else []
    if record.context or record.references != reply:
        return None
    if "messages" in form.required:
        turn = {"role": "user", "content": record.prompt}
        return {"messages": [*record.history, turn, *({"role": "assistant", "content": text} for text in reply)]}
    asked, answer = form.required
    values = {asked: record.prompt, answer: record.response}
    if (said and "history" not in form.optional) or (system and "system" not in form.optional):
        return None
    rounds = {"history": [list(pair) for pair in zip(said[::2], said[1::2], strict=True)]} if said else {}
    return values | system | rounds


def normalized(record: Record, forms: Sequence[str], options: Options) -> Record:
    """The record after the declared `data.normalize` steps: questions, texts and earlier turns, and the answers too, or
    the model would learn to answer in another script than it reads."""
    applied = functools.partial(normalization.applied, steps=forms)
    changed = {
        "prompt": applied(record.prompt),
        "response": applied(record.response),
        "history": [{**turn, "content": applied(turn["content"])} for turn in record.history],
        "context": applied(record.context),
        "references": list(dict.fromkeys(applied(text) for text in record.references)),
    }
    return record.model_copy(update=changed)


# Answers and their scores

_MEANS = ("rouge_l", "rouge_1", "rouge_2", "exact_match", "token_f1")  # metrics that are means over rows
_N_FIRST = 2 + len(_MEANS)  # columns: rows, answers, the means' sums; then those of chrF and BLEU
_N_COLUMNS = _N_FIRST + text_scores.N_CHRF + text_scores.N_BLEU


def parse(text: str, options: Options) -> str | None:
    """What a model wrote, without its thoughts and outer white space; None where nothing is left."""
    said = text.rpartition("</think>")[2].strip()  # the template may have opened the thought
    return None if said.startswith("<think>") else said or None


def count(golds: Sequence[list[str]], predictions: Sequence[str | None], options: Options) -> np.ndarray:
    """Per row what the metrics sum up, shape (n_rows, 37), dense: most of it is never 0.

    BLEU's tokens are Chinese characters where most of the golds are Chinese or Japanese, words otherwise.
    """
    cjk = text_scores.is_cjk([text for references in golds for text in references])
    rows = [_row(p or "", tuple(references), cjk) for references, p in zip(golds, predictions, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(len(rows), _N_COLUMNS)


@functools.lru_cache(maxsize=1 << 15)
def _row(prediction: str, references: tuple[str, ...], cjk: bool) -> np.ndarray:
    """The counts of one row; kept, because every comparison and slice asks for the same rows again."""
    means = (
        text_scores.rouge_l(prediction, references),
        text_scores.rouge_n(prediction, references, 1),
        text_scores.rouge_n(prediction, references, 2),
        text_scores.exact_match(prediction, references),
        text_scores.token_f1(prediction, references),
    )
    chrf = text_scores.chrf_counts(prediction, references)
    bleu = text_scores.bleu_counts(prediction, references, cjk=cjk)
    return np.concatenate([[1.0, float(prediction != "")], means, chrf, bleu])


def score_counts(counts: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    """Metric name -> values of shape (...,) for summed counts of shape (..., 37), all in [0, 1]; NaN without rows."""
    counts = np.asarray(counts, dtype=np.float64)
    n_rows = counts[..., 0]
    values = {name: answers.ratio(counts[..., 2 + place], n_rows) for place, name in enumerate(_MEANS)}
    values["chrf"] = text_scores.chrf(counts[..., _N_FIRST : _N_FIRST + text_scores.N_CHRF])
    values["bleu"] = text_scores.bleu(counts[..., _N_FIRST + text_scores.N_CHRF :])
    values["parse_rate"] = answers.ratio(counts[..., 1], n_rows)
    return {
        name: np.where(n_rows > 0, np.clip(values[name], 0, 1), np.nan) for name in (*PRIMARY_METRICS, "parse_rate")
    }


def class_ratios(counts: np.ndarray, options: Options) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """There are no classes."""
    return {}


def per_class(counts: np.ndarray, options: Options) -> dict[str, dict[str, float | None]]:
    """There are no classes."""
    return {}


def score(golds: Sequence[list[str]], predictions: Sequence[str | None], options: Options) -> Scores:
    """All metrics over a corpus; what is undefined is None, with its name in `undefined`."""
    counts = count(golds, predictions, options).sum(0)
    values = {name: answers.or_none(value) for name, value in score_counts(counts, options).items()}
    return Scores(values, {}, [name for name, value in values.items() if value is None])


def reward(record: Record, text: str, options: Options) -> float:
    """Token F1 of a generated text with the best reference; 0.0 where nothing was said."""
    said = parse(text, options)
    return 0.0 if said is None else text_scores.token_f1(said, record.references)
