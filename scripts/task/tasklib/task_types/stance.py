"""Stance of a text towards a target: the model writes one answer out of a closed set, of which two take sides.

Raw row:  {"text": "公車改道讓我每天多走二十分鐘", "target": "公車路線調整", "stance": "AGAINST"}
Trained:  user "<instruction>\\n\\n公車改道讓我每天多走二十分鐘\\n\\n公車路線調整" -> assistant "反對"

A text may take a side without naming the target, so that the target need not occur in it.
"""

from __future__ import annotations

from collections import defaultdict
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
PRIMARY_METRIC = "f1_favor_against"
PRIMARY_METRICS = ("f1_favor_against", "macro_f1", "accuracy")
FIELDS = ("text", "target", "stance")
FORMS = (Form(FIELDS),)
INPUT_FIELDS = ("text", "target")
TEXT_FIELDS = ("text", "target")
TASK_CATEGORIES = ("text-classification",)
MAY_SHORTEN = True
CONTRADICTION = (
    "same text and target as {other}, but another stance",
    "decide on one stance and correct the other row",
)


class Options(BaseModel):
    """`task:` of the definition. `stances` maps the name in the data to what the model writes; `favor` and `against`
    name the two of them that take sides, in the data's words."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    type: Literal["stance"]
    stances: label_sets.Labels
    favor: str = Field(description="the stance for the target; f1_favor_against is the mean F1 of this and the next")
    against: str = Field(description="the stance against the target")
    label_definitions: dict[str, str] = Field({}, description="stance -> when a text gets it, for the annotation guide")

    @model_validator(mode="after")
    def _sides_are_two_of_the_stances(self) -> Options:
        for key in ("favor", "against"):
            label_sets.require_known([getattr(self, key)], self.stances, key, "stances")
        if self.favor == self.against:
            raise ValueError(f"favor and against are both {self.favor!r}: they are two stances")
        label_sets.require_known(self.label_definitions, self.stances, "label_definitions", "stances")
        return self


class Record(BaseModel):
    """One checked row. `stance` is empty only for a text that is still to be predicted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    text: str
    target: str
    stance: str


EXAMPLE_OPTIONS = Options(
    type="stance",
    stances={"FAVOR": "支持", "AGAINST": "反對", "NONE": "無立場", "BOTH": "不支持也不反對"},
    favor="FAVOR",
    against="AGAINST",
)
EXAMPLES = [
    Record(text="早該這麼做，孩子上學安全多了", target="校門口禁停", stance="FAVOR"),
    Record(text="早該這麼做，孩子上學安全多了", target="校門口加設停車格", stance="AGAINST"),  # one text, two targets
    Record(text="說是支持在地，租金卻漲了一倍", target="夜市統一招商", stance="AGAINST"),
    Record(text="公聽會改到下週三晚上七點", target="圖書館延長開放", stance="NONE"),
    Record(text="有好有壞，我兩邊都不選", target="圖書館延長開放", stance="BOTH"),
    Record(text="a", target="b", stance="NONE"),
    Record(text='第一行\n"早睡早起" {真好}', target="日光節約時間", stance="FAVOR"),
]


def default_instruction(options: Options, language: str) -> str:
    """The instruction of a task whose definition gives none."""
    names = list(options.stances.values())
    if language == "zh-TW":
        return f"判斷下列文字對最後一行那個議題的立場，只回答其中一個：{'、'.join(names)}。"
    return (
        "Judge the stance of the following text towards the issue on its last line. "
        f"Answer with exactly one of: {', '.join(names)}."
    )


def prompt(record: Record, options: Options, instruction: str) -> str:
    """The user turn: instruction, text, and on the last line the target."""
    return f"{instruction}\n\n{text_of(record)}"


def answer(record: Record, options: Options) -> str:
    """The assistant turn that is trained on."""
    return options.stances[record.stance]


def gold(record: Record) -> str:
    return record.stance


def text_of(record: Record) -> str:
    """Text and target: one text about two targets is two different rows."""
    return f"{record.text}\n\n{record.target}"


def passage_of(record: Record) -> str:
    """The text, which stays on one side of the split whatever targets it is asked about."""
    return record.text


def slice_of(record: Record) -> dict[str, str]:
    """Reports give the primary metric for each target too."""
    return {"target": record.target}


history = answers.no_history
pieces = answers.one_piece
resolved = answers.resolved_alone


def strata(record: Record) -> tuple[str, ...]:
    """The labels by which splits are stratified."""
    return (record.stance,)


def _target_first(record: Record) -> str:
    return f"{record.target}\n{record.text}"


def _majority_of_target(train: Sequence[Record], rows: Sequence[Record], options: Options) -> list[str]:
    """The most frequent stance towards each row's target in train, of all rows where the target is new there."""
    by_target = defaultdict(list)
    for record in train:
        by_target[record.target].append(record.stance)
    everything = [record.stance for record in train]
    return [text_baselines.majority([], by_target.get(r.target, everything), [r.text])[0] for r in rows]


BASELINES = {
    "majority": text_baselines.of_records(text_baselines.majority, text_of, gold),
    "majority_of_target": _majority_of_target,
    "tfidf_logreg": text_baselines.of_records(text_baselines.tfidf_logreg, _target_first, gold),
}


def label_set(options: Options) -> dict[str, str]:
    """Stance -> answer: the closed set that `score` decoding compares."""
    return dict(options.stances)


def read_record(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one mapped row. Returns the record, or None with every fault of the row."""
    text, target, faults = _read_question(values)
    stance, more = answers.require_label(values, "stance", list(options.stances), "stances")
    faults += more
    return (None, faults) if faults else (Record(text=text, target=target, stance=stance), [])


def read_input(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one row that has no gold answer."""
    text, target, faults = _read_question(values)
    return (None, faults) if faults else (Record(text=text, target=target, stance=""), [])


def _read_question(values: Mapping[str, Any]) -> tuple[str, str, list[Fault]]:
    text, faults = answers.require_text(values, "text")
    target, more = answers.require_text(values, "target")
    return text, target.strip(), faults + more


def parse(text: str, options: Options) -> str | None:
    """The stance that a generated answer names, or None: see `label_sets.named_in`."""
    return label_sets.named_in(text, options.stances)


def count(golds: Sequence[str], predictions: Sequence[str | None], options: Options) -> csr_array:
    """Per row its cell in the confusion matrix, (n_rows, L * (L + 1)), sparse."""
    return label_scores.count(golds, predictions, options.stances)


def score_counts(counts: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    """Metric name -> values of shape (...,) for summed counts of shape (..., L * (L + 1)); NaN where undefined.

    `f1_favor_against` is the mean F1 of the two stances that take sides, over all rows: SemEval-2016 task 6 (Mohammad
    et al. 2016), NLPCC-2016 task 4. Of the two, one that neither golds nor predictions have is left out.
    """
    order = list(options.stances)
    sides = [order.index(options.favor), order.index(options.against)]
    f1 = answers.ratio(*class_ratios(counts, options)["f1"])
    others = label_scores.score_counts(counts, options.stances)
    return {"f1_favor_against": label_scores.mean_of_defined(f1[..., sides]), **others}


def class_ratios(counts: np.ndarray, options: Options) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (numerators, denominators), each of shape (..., L)."""
    return label_scores.class_ratios(counts, options.stances)


def per_class(counts: np.ndarray, options: Options) -> dict[str, dict[str, float | None]]:
    """Stance -> precision, recall, f1 (None where undefined) and support, for counts summed over all rows."""
    return label_scores.per_class(counts, options.stances)


def score(golds: Sequence[str], predictions: Sequence[str | None], options: Options) -> Scores:
    """All metrics over a corpus; what is undefined is None, with its name in `undefined`."""
    counts = count(golds, predictions, options).sum(0)
    return label_scores.scores(score_counts(counts, options), per_class(counts, options))


def reward(record: Record, text: str, options: Options) -> float:
    """1.0 when a generated text names the gold stance, else 0.0."""
    return float(parse(text, options) == record.stance)


def normalized(record: Record, forms: Sequence[str], options: Options) -> Record:
    """The record after the declared `data.normalize` steps."""
    changed = {role: normalization.applied(getattr(record, role), forms) for role in INPUT_FIELDS}
    return record.model_copy(update=changed)
