"""metrics.json: the truth about one run on one split. Reports, cards and comparisons are rendered from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tasklib.files import read_json, write_json

Verdict = Literal["better", "not_distinguishable", "worse"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(_Frozen):
    """A value with its 95 % bootstrap interval; null where undefined."""

    value: float | None
    ci_low: float | None
    ci_high: float | None


class Primary(Interval):
    name: str


class Comparison(_Frozen):
    """The run minus `against`, on the same rows, by the paired bootstrap.

    `p_value` is that of this comparison alone; `p_value_holm` is corrected for all comparisons of the table, and the
    verdict follows it. All of them are null, and nothing can be told apart, where the metric of one of the two is
    undefined. `mcnemar_p_value` is reported beside them (exact McNemar test on right and wrong rows; null where a row
    is not simply right or wrong, and for several seeds).
    """

    against: str
    metric: str
    delta: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_value_holm: float | None = None
    mcnemar_p_value: float | None = None
    verdict: Verdict


class Slice(_Frozen):
    """`metric` on a part of the rows: `by` is length, label, source, script or what the task type
    cuts by, `value_of` which of them.

    It is the primary metric, but recall for a label: on rows of one gold label a macro-F1 says nothing. `primary` is
    null for fewer than 10 rows.
    """

    by: Literal["length", "label", "source", "script", "target"]
    value_of: str
    n_rows: int
    metric: str
    primary: Interval


class CalibrationBin(_Frozen):
    """Rows whose confidence lies in (low, high]: mean confidence against the share that is right; null without rows."""

    low: float
    high: float
    n_rows: int
    confidence: float | None
    accuracy: float | None


class Seeds(_Frozen):
    """Several runs of one config that differ in their seed: mean and standard deviation (n - 1) of each metric."""

    seeds: list[int]
    runs: list[str]
    mean: dict[str, float | None]
    sd: dict[str, float | None]


class Gate(_Frozen):
    passed: bool
    target: float | None
    reasons: list[str]


class Metrics(_Frozen):
    """`identity` is the hash of everything that the numbers depend on, so that they are not computed twice.

    `n_failed` rows got no answer from an endpoint and count as unparsed; `n_retries` requests were sent again;
    `n_shortened` texts were cut by `prompt.shorten`. `seeds` is present where several seeds were evaluated: then the
    comparisons and the gate are about their mean.
    """

    schema_version: Literal[1] = 1
    run: str
    split: str
    decoding: Literal["score", "generate", "compare", "none"]
    n_rows: int
    rows_sha256: str
    identity: str
    primary: Primary
    metrics: dict[str, Interval]
    per_class: dict[str, dict[str, float | None]]
    slices: list[Slice] = []
    calibration: list[CalibrationBin] = []
    seeds: Seeds | None = None
    n_failed: int = 0
    n_retries: int = 0
    n_shortened: int = 0
    comparisons: list[Comparison] = []
    gate: Gate | None = None
    warnings: list[str] = []


class Prediction(_Frozen):
    """One line of predictions.jsonl. `text_key` names the text whatever file it comes from (`dataset.text_key`); null
    in older files."""

    id: str
    text_key: str | None = None
    gold: Any
    prediction: Any
    raw_output: str | None
    probabilities: dict[str, float] | None
    parsed: bool


def read(folder: Path) -> Metrics | None:
    """metrics.json of a benchmark folder, or None where there is none."""
    path = folder / "metrics.json"
    return Metrics.model_validate(read_json(path)) if path.is_file() else None


def write(folder: Path, metrics: Metrics) -> None:
    write_json(folder / "metrics.json", metrics.model_dump(mode="json"))
