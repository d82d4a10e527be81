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
    """The run minus `against`, on the same rows, by the paired bootstrap."""

    against: str
    metric: str
    delta: float
    ci_low: float
    ci_high: float
    p_value: float
    verdict: Verdict


class Gate(_Frozen):
    passed: bool
    target: float | None
    reasons: list[str]


class Metrics(_Frozen):
    """`identity` is the hash of everything that the numbers depend on, so that they are not computed twice."""

    schema_version: Literal[1] = 1
    run: str
    split: str
    decoding: Literal["score", "generate", "none"]
    n_rows: int
    rows_sha256: str
    identity: str
    primary: Primary
    metrics: dict[str, Interval]
    per_class: dict[str, dict[str, float | None]]
    comparisons: list[Comparison] = []
    gate: Gate | None = None
    warnings: list[str] = []


class Prediction(_Frozen):
    """One line of predictions.jsonl."""

    id: str
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
