"""Multi-label classification: a text has zero or more labels of a closed set, and the model writes all of them.

Raw row:  {"意見": "房間有霉味，櫃台也沒人理", "類別": "cleanliness;service"}
Trained:  user "<instruction>\\n\\n房間有霉味，櫃台也沒人理" -> assistant "清潔、服務"
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasklib.data import answers, label_scores, label_sets, normalization, text_baselines
from tasklib.data.answers import Fault, Form, Scores

if TYPE_CHECKING:
    from scipy.sparse import csr_array

METHODS = ("sft", "dpo", "orpo")
DECODINGS = ("generate",)
PRIMARY_METRIC = "micro_f1"
PRIMARY_METRICS = ("micro_f1", "macro_f1", "exact_match")
FIELDS = ("text", "labels")
FORMS = (Form(FIELDS),)
INPUT_FIELDS = ("text",)
TEXT_FIELDS = ("text",)
TASK_CATEGORIES = ("text-classification",)
MAY_SHORTEN = True
CONTRADICTION = (
    "same text as {other}, but other labels",
    "correct the row that is wrong, or remove it: at most one of the two can be scored as right",
)

JOINER = "、"  # stands between the answers that the model writes, in every language
_SEPARATORS = re.compile(r"[,;|、，；]")  # between labels in raw data, where task.separator says nothing
_WRITTEN_BETWEEN = re.compile(r"[,;|、，；\n]")  # what a model that was not trained may write instead of the joiner


class Options(BaseModel):
    """`task:` of the definition. `labels` maps the name in the data to what the model writes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    type: Literal["multi_label_classification"]
    labels: label_sets.Labels
    label_definitions: dict[str, str] = Field({}, description="label -> when a text gets it, for the annotation guide")
    separator: str | None = Field(
        None, min_length=1, description="what stands between labels in one cell; null: any of , ; | 、 ， ；"
    )
    allow_none: bool = Field(False, description="true: a row may have no label; its cell is empty, [] or none_answer")
    none_answer: str = Field("無", min_length=1, description="what the model writes for a text without a label")

    @model_validator(mode="after")
    def _answers_can_be_told_apart(self) -> Options:
        written = [*self.labels.values(), self.none_answer]
        cleaned = [answers.fold(answer) for answer in written]
        if same := [answer for answer in written if cleaned.count(answers.fold(answer)) > 1]:
            raise ValueError(
                f"the answers {', '.join(map(repr, same))} cannot be told apart (none_answer is one of them): width, "
                "case and outer punctuation do not count; write other answers"
            )
        if joined := [answer for answer in written if JOINER in answer]:
            raise ValueError(f"{joined[0]!r} holds {JOINER!r}, which stands between answers; write another answer")
        label_sets.require_known(self.label_definitions, self.labels, "label_definitions", "labels")
        return self


class Record(BaseModel):
    """One checked row. `labels` stand in the definition's order, each once."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    text: str
    labels: list[str]


EXAMPLE_OPTIONS = Options(
    type="multi_label_classification", labels={"service": "服務", "food": "餐點", "price": "價格", "place": "環境"}
)
EXAMPLES = [
    Record(text="等了四十分鐘才上菜，湯還是冷的", labels=["service", "food"]),
    Record(text="一碗麵三百八，太誇張", labels=["price"]),
    Record(text="冷氣不冷，桌子黏黏的，店員也不理人，還要收一成服務費", labels=["service", "price", "place"]),
    Record(text="牛肉很嫩，湯頭也濃", labels=["food"]),
    Record(text="Cheap, good, quiet.", labels=["food", "price", "place"]),
    Record(text="座位好擠…\n音樂又大聲 {label} %s", labels=["place"]),
]


def default_instruction(options: Options, language: str) -> str:
    """The instruction of a task whose definition gives none."""
    names = list(options.labels.values())
    if language == "zh-TW":
        none = f"；都不符合時回答「{options.none_answer}」" if options.allow_none else ""
        return f"判斷下列文字屬於哪些類別，可以不只一個，用「{JOINER}」隔開{none}。類別：{'、'.join(names)}。"
    none = f"; answer {options.none_answer} if none of them does" if options.allow_none else ""
    return (
        f"Which of these labels apply to the following text? One or more, separated by {JOINER}{none}. "
        f"Labels: {', '.join(names)}."
    )


def prompt(record: Record, options: Options, instruction: str) -> str:
    """The user turn; it depends on the text alone, never on the gold labels."""
    return f"{instruction}\n\n{record.text}"


def answer(record: Record, options: Options) -> str:
    """The assistant turn that is trained on: the answers in the definition's order."""
    return JOINER.join(options.labels[label] for label in record.labels) or options.none_answer


def gold(record: Record) -> list[str]:
    """The labels in the definition's order."""
    return record.labels


def text_of(record: Record) -> str:
    """The text that duplicates, leakage and TF-IDF look at."""
    return record.text


history = answers.no_history
passage_of = text_of
pieces = answers.one_piece
resolved = answers.resolved_alone


def strata(record: Record) -> tuple[str, ...]:
    """The labels by which splits are stratified."""
    return tuple(record.labels)


def label_set(options: Options) -> None:
    """An answer is a set of labels: there is no closed set of answers to compare."""


# Baselines


def _majority(train: Sequence[Record], rows: Sequence[Record], options: Options) -> list[list[str]]:
    """The most frequent set of labels for every row; ties go to the first in alphabetical order."""
    counts = Counter(tuple(record.labels) for record in train)
    most_frequent = min(counts, key=lambda labels: (-counts[labels], labels))
    return [list(most_frequent)] * len(rows)


def _tfidf_logreg(train: Sequence[Record], rows: Sequence[Record], options: Options) -> list[list[str]]:
    """One logistic regression for each label; where none says yes and each text has a label, the nearest to it."""
    texts, golds = [record.text for record in train], [record.labels for record in train]
    asked, names = [record.text for record in rows], list(options.labels)
    return text_baselines.tfidf_one_vs_rest(texts, golds, asked, names, at_least_one=not options.allow_none)


BASELINES = {"majority": _majority, "tfidf_logreg": _tfidf_logreg}


# Reading


def read_record(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one mapped row. Returns the record, or None with every fault of the row."""
    text, faults = answers.require_text(values, "text")
    labels, more = _read_labels(values.get("labels"), options)
    faults += more
    return (None, faults) if faults else (Record(text=text, labels=labels), [])


def read_input(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one row that has no gold answer."""
    text, faults = answers.require_text(values, "text")
    return (None, faults) if faults else (Record(text=text, labels=[]), [])


def _read_labels(value: Any, options: Options) -> tuple[list[str], list[Fault]]:
    """The labels of a row in the definition's order: a list, a JSON list as text, or names with a separator between."""
    if isinstance(value, str) and value.strip().startswith("[") and value.strip() not in options.labels:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            hint = 'write it as ["a", "b"], or as names with a separator between'
            return [], [Fault("not_json", f"labels looks like a JSON list and is none: {error}", "labels", hint)]
    is_empty = value is None or value == [] or (isinstance(value, str) and not value.strip())
    if is_empty or (options.allow_none and value in (options.none_answer, [options.none_answer])):
        return ([], []) if options.allow_none else ([], _no_label(value))
    parts = value if isinstance(value, list) else _parts(value, options) if isinstance(value, str) else [value]
    found, faults = set(), []
    for part in parts:
        label, more = answers.require_label({"labels": part}, "labels", list(options.labels))
        found.add(label)
        faults += more
    return ([], faults) if faults else ([label for label in options.labels if label in found], [])


def _no_label(value: Any) -> list[Fault]:
    """The fault of a row without a label where each row must have one."""
    if value is None or isinstance(value, str):
        _, faults = answers.require_text({"labels": value}, "labels")
        return [Fault(f.code, f.message, f.role, f"{f.hint}; no label is legal with task.allow_none") for f in faults]
    hint = "add a label, remove the row, or set task.allow_none: true"
    return [Fault("no_label", "the row has no label", "labels", hint)]


def _parts(text: str, options: Options) -> list[str]:
    """The labels in one cell. A cell that is a label is one, whatever it holds."""
    if text.strip() in options.labels:
        return [text.strip()]
    parts = text.split(options.separator) if options.separator else _SEPARATORS.split(text)
    return [part.strip() for part in parts if part.strip()] or [text]


def normalized(record: Record, forms: Sequence[str], options: Options) -> Record:
    """The record after the declared `data.normalize` steps; labels are names and stay as they are."""
    return record.model_copy(update={"text": normalization.applied(record.text, forms)})


# Answers and their scores


def parse(text: str, options: Options) -> list[str] | None:
    """The labels that a generated answer names, in the definition's order, or None where a part of it is no answer.

    Order, repetition, width, case and outer punctuation do not matter. `none_answer` stands alone.
    """
    by_answer = {answers.fold(answer): label for label, answer in options.labels.items()}
    if answers.fold(text) == answers.fold(options.none_answer):
        return []
    for parts in ([text], text.split(JOINER), _WRITTEN_BETWEEN.split(text)):
        cleaned = [answers.fold(part) for part in parts if part.strip()]
        if cleaned and all(part in by_answer for part in cleaned):
            named = {by_answer[part] for part in cleaned}
            return [label for label in options.labels if label in named]
    return None


_N_FIRST = 4  # columns: rows, parsed, exactly right, wrong cells; then right, gold and predicted of each label


def count(golds: Sequence[list[str]], predictions: Sequence[list[str] | None], options: Options) -> csr_array:
    """Per row what the metrics sum up, shape (n_rows, 4 + 3 * L), sparse.

    An answer that could not be parsed counts as one wrong label that is none of the set (rows - parsed, in
    `score_counts`) and as wrong in each cell: silence would be right otherwise where a text has no label.
    """
    from scipy.sparse import csr_array

    index = {label: position for position, label in enumerate(options.labels)}
    n_labels, columns, values, ends = len(index), [], [], [0]
    for wanted, given in zip(golds, predictions, strict=True):
        right = set(wanted) & set(given or [])
        n_wrong = n_labels if given is None else len(set(wanted) ^ set(given))
        row = {0: 1, 1: given is not None, 2: given is not None and not n_wrong, 3: n_wrong}
        for number, labels in enumerate((right, set(wanted), set(given or []))):
            row |= {_N_FIRST + number * n_labels + index[label]: 1 for label in labels}
        filled = {column: float(value) for column, value in sorted(row.items()) if value}
        columns += filled
        values += filled.values()
        ends.append(len(columns))
    shape = (len(golds), _N_FIRST + 3 * n_labels)
    parts = np.array(values, dtype=np.float32), np.array(columns, dtype=np.int32), np.array(ends, dtype=np.int32)
    return csr_array(parts, shape=shape)


def _of_labels(counts: np.ndarray, options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right, gold and predicted of each label, each of shape (..., L)."""
    return label_scores.found(counts, _N_FIRST, len(options.labels))


def score_counts(counts: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    """Metric name -> values of shape (...,) for summed counts of shape (..., 4 + 3 * L); NaN where undefined.

    As scikit-learn's for multilabel indicators with zero_division=nan: exact_match is its accuracy_score (subset
    accuracy), hamming_loss the share of wrong cells, the only number here of which less is better. macro_f1 is the mean
    over the labels that occur among golds or predictions.
    """
    counts = np.asarray(counts, dtype=np.float64)
    right, n_gold, n_predicted = _of_labels(counts, options)
    n_rows, n_parsed = counts[..., 0], counts[..., 1]
    f1 = answers.ratio(2 * right, n_gold + n_predicted)
    n_all = n_gold.sum(-1) + n_predicted.sum(-1) + (n_rows - n_parsed)
    return {
        "micro_f1": answers.ratio(2 * right.sum(-1), n_all),
        "macro_f1": label_scores.mean_of_defined(f1),
        "exact_match": answers.ratio(counts[..., 2], n_rows),
        "hamming_loss": answers.ratio(counts[..., 3], n_rows * len(options.labels)),
        "parse_rate": answers.ratio(n_parsed, n_rows),
    }


def class_ratios(counts: np.ndarray, options: Options) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (numerators, denominators), each of shape (..., L): the per-label numbers that get intervals."""
    return label_scores.ratios_of_found(*_of_labels(counts, options))


def per_class(counts: np.ndarray, options: Options) -> dict[str, dict[str, float | None]]:
    """Label -> precision, recall, f1 (None where undefined) and support, for counts summed over all rows."""
    return label_scores.table(class_ratios(counts, options), _of_labels(counts, options)[1], options.labels)


def score(golds: Sequence[list[str]], predictions: Sequence[list[str] | None], options: Options) -> Scores:
    """All metrics over a corpus; what is undefined is None, with its name in `undefined`."""
    counts = count(golds, predictions, options).sum(0)
    return label_scores.scores(score_counts(counts, options), per_class(counts, options))


def reward(record: Record, text: str, options: Options) -> float:
    """F1 of the labels that a generated text names; of a text without a label 1.0 for just that, else 0.0."""
    said = parse(text, options)
    if said is None:
        return 0.0
    if not said and not record.labels:
        return 1.0
    return 2 * len(set(said) & set(record.labels)) / (len(said) + len(record.labels))
