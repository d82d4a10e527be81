"""Single-label text classification: the model writes one answer out of a closed set.

Raw row:  {"標題": "第三季毛利率滑落至38%", "情感": "negative"}
Trained:  user "<instruction>\\n\\n第三季毛利率滑落至38%" -> assistant "負面"
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from tasklib.data import answers, text_baselines
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


def _as_mapping(value: Any) -> Any:
    """`[a, b]` means that the model writes the labels as they stand in the data; a number stands for its digits."""
    if isinstance(value, list):
        if len(set(map(str, value))) != len(value):
            raise ValueError("a label stands twice")
        value = {str(label): label for label in value}
    if isinstance(value, dict):
        return {name: str(text) if type(text) is int else text for name, text in value.items()}
    return value


class Options(BaseModel):
    """`task:` of the definition. `labels` maps the name in the data to what the model writes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    type: Literal["classification"]
    labels: Annotated[dict[str, str], BeforeValidator(_as_mapping)] = Field(min_length=2)
    label_definitions: dict[str, str] = Field({}, description="label -> when a text gets it, for the annotation guide")

    @field_validator("labels")
    @classmethod
    def _answers_are_distinct(cls, labels: dict[str, str]) -> dict[str, str]:
        cleaned = [answers.fold(answer) for answer in labels.values()]
        if "" in cleaned or "" in (label.strip() for label in labels):
            raise ValueError("a label or its answer is empty")
        if len(set(cleaned)) < len(cleaned):
            same = [answer for answer in labels.values() if cleaned.count(answers.fold(answer)) > 1]
            raise ValueError(
                f"the answers {', '.join(map(repr, same))} cannot be told apart: width, case and outer punctuation do "
                "not count; write other answers, e.g. {'-1': negative, '1': positive}"
            )
        return labels

    @model_validator(mode="after")
    def _definitions_are_of_labels(self) -> Options:
        if unknown := [label for label in self.label_definitions if label not in self.labels]:
            raise ValueError(f"label_definitions: {unknown[0]!r} is not in labels; legal: {', '.join(self.labels)}")
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


def _by_texts(baseline: Callable[..., list[str]]) -> answers.Baseline:
    """A baseline of texts and labels as one of records."""

    def answered(train: Sequence[Record], rows: Sequence[Record], options: Options) -> list[str]:
        return baseline([r.text for r in train], [r.label for r in train], [r.text for r in rows])

    return answered


BASELINES = {
    "majority": _by_texts(text_baselines.majority),
    "tfidf_logreg": _by_texts(text_baselines.tfidf_logreg),
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
    """The label that a generated answer names, or None. Width, case and outer punctuation do not matter.

    An answer that is exactly one of the set wins; otherwise the text must contain exactly one of them, where an
    answer inside a longer one that also occurs (正面 in 不是正面) does not count.
    """
    cleaned = answers.fold(text)
    by_answer = {answers.fold(answer): label for label, answer in options.labels.items()}
    if cleaned in by_answer:
        return by_answer[cleaned]
    found = answers.longest_occurrences(cleaned, list(by_answer))
    return by_answer[found.pop()] if len(found) == 1 else None


def count(golds: Sequence[str], predictions: Sequence[str | None], options: Options) -> csr_array:
    """Per row a one-hot of its cell (gold, prediction) in the confusion matrix.

    Shape (n_rows, L * (L + 1)), sparse: 12 bytes a row however many labels there are. The last column of the matrix
    counts answers that could not be parsed. Sums over rows are all that the metrics need, so a bootstrap is one matrix
    product.
    """
    from scipy.sparse import csr_array

    index = {label: position for position, label in enumerate(options.labels)}
    n_labels = len(index)
    cells = [index[g] * (n_labels + 1) + index.get(p, n_labels) for g, p in zip(golds, predictions, strict=True)]
    ones, shape = np.ones(len(cells), dtype=np.float32), (len(cells), n_labels * (n_labels + 1))
    return csr_array((ones, np.array(cells, dtype=np.int32), np.arange(len(cells) + 1, dtype=np.int32)), shape=shape)


def confusion(counts: np.ndarray, options: Options) -> np.ndarray:
    """Summed cells (..., L * (L + 1)) as matrices (..., L, L + 1): rows gold, columns predicted, last one unparsed."""
    n_labels = len(options.labels)
    return np.asarray(counts, dtype=np.float64).reshape(*np.shape(counts)[:-1], n_labels, n_labels + 1)


def score_counts(counts: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    """Metric name -> values of shape (...,) for summed counts of shape (..., L * (L + 1)); NaN where undefined.

    Macro-F1 averages over the labels that occur among golds or predictions, macro recall (balanced accuracy) over those
    that occur among golds, as scikit-learn does. Weighted F1 is left out: it hides the rare labels.
    """
    matrix = confusion(counts, options)
    ratios = class_ratios(counts, options)
    f1, recall = answers.ratio(*ratios["f1"]), answers.ratio(*ratios["recall"])
    total = matrix.sum((-2, -1))
    return {
        "macro_f1": _mean_of_defined(f1),
        "accuracy": answers.ratio(np.trace(matrix, axis1=-2, axis2=-1), total),
        "macro_recall": _mean_of_defined(recall),
        "mcc": _matthews(matrix),
        "parse_rate": answers.ratio(total - matrix[..., -1].sum(-1), total),
    }


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Means over the last axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    return answers.ratio(np.where(defined, values, 0).sum(-1), defined.sum(-1))


def _matthews(matrix: np.ndarray) -> np.ndarray:
    """Matthews correlation coefficient of many classes, -1 to 1, of matrices (..., L, L + 1).

    R_K of Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient". Unparsed
    answers are one more class that is never gold. Undefined, as any correlation, where golds or answers do not vary.
    """
    total, n_gold, n_predicted = matrix.sum((-2, -1)), matrix.sum(-1), matrix.sum(-2)
    hits = np.trace(matrix, axis1=-2, axis2=-1)
    covariance = hits * total - (n_gold * n_predicted[..., :-1]).sum(-1)
    variances = (total**2 - (n_gold**2).sum(-1)) * (total**2 - (n_predicted**2).sum(-1))
    return np.clip(answers.ratio(covariance, np.sqrt(variances)), -1, 1)  # rounding; NaN stays NaN


def class_ratios(counts: np.ndarray, options: Options) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (numerators, denominators), each of shape (..., L), for summed counts of shape (..., L * (L + 1)): the
    per-class numbers that get intervals."""
    matrix = confusion(counts, options)
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    n_gold, n_predicted = matrix.sum(-1), matrix[..., :-1].sum(-2)
    return {"precision": (hits, n_predicted), "recall": (hits, n_gold), "f1": (2 * hits, n_gold + n_predicted)}


def per_class(counts: np.ndarray, options: Options) -> dict[str, dict[str, float | None]]:
    """Label -> precision, recall, f1 (None where undefined) and support, for counts summed over all rows."""
    columns = {name: answers.ratio(*parts) for name, parts in class_ratios(counts, options).items()}
    columns["support"] = confusion(counts, options).sum(-1)
    return {
        label: {name: answers.or_none(values[position]) for name, values in columns.items()}
        for position, label in enumerate(options.labels)
    }


def score(golds: Sequence[str], predictions: Sequence[str | None], options: Options) -> Scores:
    """All metrics over a corpus; what is undefined is None, with its name in `undefined`."""
    counts = count(golds, predictions, options).sum(0)
    values = {name: answers.or_none(value) for name, value in score_counts(counts, options).items()}
    return Scores(values, per_class(counts, options), [name for name, value in values.items() if value is None])


def reward(record: Record, text: str, options: Options) -> float:
    """1.0 when a generated text names the gold label, else 0.0."""
    return float(parse(text, options) == record.label)


def normalized(record: Record, forms: Sequence[str]) -> Record:
    """The record after the declared `data.normalize` steps."""
    if "nfkc" not in forms:
        return record
    return record.model_copy(update={"text": unicodedata.normalize("NFKC", record.text)})
