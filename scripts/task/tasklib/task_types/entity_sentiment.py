"""Sentiment towards one entity or aspect of a text: the model writes one answer out of a closed set.

Raw row:  {"text": "螢幕很亮，但電池撐不過半天", "entity": "電池", "sentiment": "negative"}
Trained:  user "<instruction>\\n\\n螢幕很亮，但電池撐不過半天\\n\\n電池" -> assistant "負面"

Where a text holds its entity twice, all mentions of it are meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasklib.data import answers, label_scores, label_sets, mentions, normalization, text_baselines
from tasklib.data.answers import Fault, Form, Scores

if TYPE_CHECKING:
    from scipy.sparse import csr_array

METHODS = ("sft", "dpo", "orpo")
DECODINGS = ("score", "generate")
PRIMARY_METRIC = "macro_f1"
PRIMARY_METRICS = ("macro_f1", "accuracy", "macro_recall")  # not mcc: undefined for a baseline of one answer
FIELDS = ("text", "entity", "sentiment")
FORMS = (Form(FIELDS),)
INPUT_FIELDS = ("text", "entity")
TEXT_FIELDS = ("text", "entity")
TASK_CATEGORIES = ("text-classification",)
MAY_SHORTEN = False  # a cut could take the sentence that the entity stands in
CONTRADICTION = (
    "same text and entity as {other}, but another sentiment",
    "correct one of the two rows; where a text judges an entity twice and differently, leave both out",
)


class Options(BaseModel):
    """`task:` of the definition. `sentiments` maps the name in the data to what the model writes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    type: Literal["entity_sentiment"]
    sentiments: label_sets.Labels
    label_definitions: dict[str, str] = Field(
        {}, description="sentiment -> when an entity gets it, for the annotation guide"
    )
    mention: Literal["in_text", "free"] = Field(
        "in_text", description="free: entities are aspects or categories that need not occur in the text"
    )

    @model_validator(mode="after")
    def _definitions_are_of_sentiments(self) -> Options:
        label_sets.require_known(self.label_definitions, self.sentiments, "label_definitions", "sentiments")
        return self


class Record(BaseModel):
    """One checked row. `sentiment` is empty only for a row that is still to be predicted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    text: str
    entity: str
    sentiment: str


EXAMPLE_OPTIONS = Options(
    type="entity_sentiment",
    sentiments={"positive": "正面", "negative": "負面", "neutral": "中性", "not positive": "不是正面"},
)
EXAMPLES = [
    Record(text="螢幕很亮，但電池撐不過半天", entity="螢幕", sentiment="positive"),
    Record(text="螢幕很亮，但電池撐不過半天", entity="電池", sentiment="negative"),  # one text, two answers
    Record(text="森原電子與宏川通訊同日召開法說會", entity="宏川通訊", sentiment="neutral"),
    Record(text="說服務「正面」，其實服務人員連頭都沒抬", entity="服務人員", sentiment="negative"),
    Record(text="ＬＥＤ燈不算刺眼", entity="led燈", sentiment="not positive"),  # width and case do not count
    Record(text="a", entity="a", sentiment="neutral"),
    Record(text='第一行\n鍵盤 "手感" {很好}', entity="鍵盤", sentiment="positive"),
    Record(text="湯頭普通，湯頭以外都好", entity="湯頭", sentiment="not positive"),
]


def default_instruction(options: Options, language: str) -> str:
    """The instruction of a task whose definition gives none."""
    names = list(options.sentiments.values())
    if language == "zh-TW":
        return f"判斷下列文字對最後一行那個對象的情感，只回答其中一個：{'、'.join(names)}。"
    return (
        "Judge the sentiment of the following text towards what its last line names. "
        f"Answer with exactly one of: {', '.join(names)}."
    )


def prompt(record: Record, options: Options, instruction: str) -> str:
    """The user turn: instruction, text, and on the last line the entity."""
    return f"{instruction}\n\n{text_of(record)}"


def answer(record: Record, options: Options) -> str:
    """The assistant turn that is trained on."""
    return options.sentiments[record.sentiment]


def gold(record: Record) -> str:
    return record.sentiment


def text_of(record: Record) -> str:
    """Text and entity: two rows about other entities of one text are no duplicates."""
    return f"{record.text}\n\n{record.entity}"


def passage_of(record: Record) -> str:
    """The text, which stays on one side of the split whatever entities it is asked about."""
    return record.text


history = answers.no_history
pieces = answers.one_piece
resolved = answers.resolved_alone


def strata(record: Record) -> tuple[str, ...]:
    """The labels by which splits are stratified."""
    return (record.sentiment,)


def _entity_first(record: Record) -> str:
    return f"{record.entity}\n{record.text}"


BASELINES = {
    "majority": text_baselines.of_records(text_baselines.majority, text_of, gold),
    "tfidf_logreg": text_baselines.of_records(text_baselines.tfidf_logreg, _entity_first, gold),
}


def label_set(options: Options) -> dict[str, str]:
    """Sentiment -> answer: the closed set that `score` decoding compares."""
    return dict(options.sentiments)


def read_record(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one mapped row. Returns the record, or None with every fault of the row."""
    text, entity, faults = _read_question(values, options)
    sentiment, more = answers.require_label(values, "sentiment", list(options.sentiments), "sentiments")
    faults += more
    return (None, faults) if faults else (Record(text=text, entity=entity, sentiment=sentiment), [])


def read_input(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one row that has no gold answer."""
    text, entity, faults = _read_question(values, options)
    return (None, faults) if faults else (Record(text=text, entity=entity, sentiment=""), [])


def _read_question(values: Mapping[str, Any], options: Options) -> tuple[str, str, list[Fault]]:
    text, faults = answers.require_text(values, "text")
    entity, more = answers.require_text(values, "entity")
    faults += more
    if not faults and options.mention == "in_text":
        faults = mentions.require_in(text, entity, "entity")
    return text, entity.strip(), faults


def parse(text: str, options: Options) -> str | None:
    """The sentiment that a generated answer names, or None: see `label_sets.named_in`."""
    return label_sets.named_in(text, options.sentiments)


def count(golds: Sequence[str], predictions: Sequence[str | None], options: Options) -> csr_array:
    """Per row its cell in the confusion matrix, (n_rows, L * (L + 1)), sparse."""
    return label_scores.count(golds, predictions, options.sentiments)


def score_counts(counts: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    """Metric name -> values of shape (...,) for summed counts of shape (..., L * (L + 1)); NaN where undefined."""
    return label_scores.score_counts(counts, options.sentiments)


def class_ratios(counts: np.ndarray, options: Options) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (numerators, denominators), each of shape (..., L)."""
    return label_scores.class_ratios(counts, options.sentiments)


def per_class(counts: np.ndarray, options: Options) -> dict[str, dict[str, float | None]]:
    """Sentiment -> precision, recall, f1 (None where undefined) and support, for counts summed over all rows."""
    return label_scores.per_class(counts, options.sentiments)


def score(golds: Sequence[str], predictions: Sequence[str | None], options: Options) -> Scores:
    """All metrics over a corpus; what is undefined is None, with its name in `undefined`."""
    counts = count(golds, predictions, options).sum(0)
    return label_scores.scores(score_counts(counts, options), per_class(counts, options))


def reward(record: Record, text: str, options: Options) -> float:
    """1.0 when a generated text names the gold sentiment, else 0.0."""
    return float(parse(text, options) == record.sentiment)


def normalized(record: Record, forms: Sequence[str], options: Options) -> Record:
    """The record after the declared `data.normalize` steps; the entity too, so that it is still found in the text."""
    changed = {role: normalization.applied(getattr(record, role), forms) for role in INPUT_FIELDS}
    return record.model_copy(update=changed)
