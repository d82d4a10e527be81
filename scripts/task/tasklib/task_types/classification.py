"""Single-label text classification: the model writes one answer out of a closed set.

Raw row:  {"標題": "第三季毛利率滑落至38%", "情感": "negative"}
Trained:  user "<instruction>\\n\\n第三季毛利率滑落至38%" -> assistant "負面"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasklib.data import answers, label_scores, label_sets, normalization, text_baselines
from tasklib.data.answers import Fault, Form, Scores

if TYPE_CHECKING:
    from scipy.sparse import csr_array

METHODS = ("sft", "dpo", "orpo")
DECODINGS = ("score", "generate")
PRIMARY_METRIC = "macro_f1"
PRIMARY_METRICS = ("macro_f1", "accuracy", "macro_recall")  # not mcc: undefined for a baseline of one answer
FIELDS = ("text", "label")
FORMS = (Form(FIELDS),)
INPUT_FIELDS = ("text",)  # what predict.py needs
TEXT_FIELDS = ("text",)  # roles whose values are free text
TASK_CATEGORIES = ("text-classification",)  # the Hub's names for data sets of this task
MAY_SHORTEN = True


class Options(BaseModel):
    """`task:` of the definition. `labels` maps the name in the data to what the model writes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    type: Literal["classification"]
    labels: label_sets.Labels
    label_definitions: dict[str, str] = Field({}, description="label -> when a text gets it, for the annotation guide")

    @model_validator(mode="after")
    def _definitions_are_of_labels(self) -> Options:
        label_sets.require_known(self.label_definitions, self.labels, "label_definitions", "labels")
        return self


class Record(BaseModel):
    """One checked row. `label` is empty only for a text that is still to be predicted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    text: str
    label: str


EXAMPLE_OPTIONS = Options(
    type="classification",
    labels={"positive": "正面", "negative": "負面", "neutral": "中性", "not positive": "不是正面"},
)
EXAMPLES = [
    Record(text="外銷訂單連三個月成長，第四季產能全滿", label="positive"),
    Record(text="毛利率38%，低於市場預期的42%", label="negative"),
    Record(text="董事會訂於六月二十日召開股東常會", label="neutral"),
    Record(text="標題裡就寫著「正面」兩個字，答案仍不是它", label="negative"),
    Record(text="a", label="neutral"),
    Record(text='多行\n文字，還有 "引號" 與 {大括號}', label="positive"),
    Record(text="答案是另一個答案的一部分", label="not positive"),
]


def default_instruction(options: Options, language: str) -> str:
    """The instruction of a task whose definition gives none."""
    names = list(options.labels.values())
    if language == "zh-TW":
        return f"判斷下列文字的類別，只回答其中一個：{'、'.join(names)}。"
    return f"Classify the following text. Answer with exactly one of: {', '.join(names)}."


def prompt(record: Record, options: Options, instruction: str) -> str:
    """The user turn; it depends on the text alone, never on the gold label."""
    return f"{instruction}\n\n{record.text}"


def answer(record: Record, options: Options) -> str:
    """The assistant turn that is trained on."""
    return options.labels[record.label]


def gold(record: Record) -> str:
    return record.label


def text_of(record: Record) -> str:
    """The text that duplicates, leakage and TF-IDF look at."""
    return record.text


history = answers.no_history
passage_of = text_of
pieces = answers.one_piece
resolved = answers.resolved_alone


def strata(record: Record) -> tuple[str, ...]:
    """The labels by which splits are stratified."""
    return (record.label,)


BASELINES = {
    "majority": text_baselines.of_records(text_baselines.majority, text_of, gold),
    "tfidf_logreg": text_baselines.of_records(text_baselines.tfidf_logreg, text_of, gold),
}


def label_set(options: Options) -> dict[str, str]:
    """Label -> answer: the closed set that `score` decoding compares."""
    return dict(options.labels)


def read_record(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one mapped row. Returns the record, or None with every fault of the row."""
    text, faults = answers.require_text(values, "text")
    label, more = answers.require_label(values, "label", list(options.labels))
    faults += more
    return (None, faults) if faults else (Record(text=text, label=label), [])


def read_input(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one row that has no gold answer."""
    text, faults = answers.require_text(values, "text")
    return (None, faults) if faults else (Record(text=text, label=""), [])


def parse(text: str, options: Options) -> str | None:
    """The label that a generated answer names, or None: see `label_sets.named_in`."""
    return label_sets.named_in(text, options.labels)


def count(golds: Sequence[str], predictions: Sequence[str | None], options: Options) -> csr_array:
    """Per row its cell in the confusion matrix, (n_rows, L * (L + 1)), sparse."""
    return label_scores.count(golds, predictions, options.labels)


def confusion(counts: np.ndarray, options: Options) -> np.ndarray:
    """Summed cells (..., L * (L + 1)) as matrices (..., L, L + 1): rows gold, columns predicted, last one unparsed."""
    return label_scores.confusion(counts, options.labels)


def score_counts(counts: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    """Metric name -> values of shape (...,) for summed counts of shape (..., L * (L + 1)); NaN where undefined."""
    return label_scores.score_counts(counts, options.labels)


def class_ratios(counts: np.ndarray, options: Options) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (numerators, denominators), each of shape (..., L)."""
    return label_scores.class_ratios(counts, options.labels)


def per_class(counts: np.ndarray, options: Options) -> dict[str, dict[str, float | None]]:
    """Label -> precision, recall, f1 (None where undefined) and support, for counts summed over all rows."""
    return label_scores.per_class(counts, options.labels)


def score(golds: Sequence[str], predictions: Sequence[str | None], options: Options) -> Scores:
    """All metrics over a corpus; what is undefined is None, with its name in `undefined`."""
    counts = count(golds, predictions, options).sum(0)
    return label_scores.scores(score_counts(counts, options), per_class(counts, options))


def reward(record: Record, text: str, options: Options) -> float:
    """1.0 when a generated text names the gold label, else 0.0."""
    return float(parse(text, options) == record.label)


def normalized(record: Record, forms: Sequence[str], options: Options) -> Record:
    """The record after the declared `data.normalize` steps."""
    return record.model_copy(update={"text": normalization.applied(record.text, forms)})
