"""The quality gate: the target reached, and everything in `must_beat` beaten by the paired test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasklib.schema import EvaluationSpec
from tasklib.scoring.metrics import Comparison, Gate, Metrics
from tasklib.texts import GATE

MAY_BE_ABSENT = {"previous_best"}  # a first run has no earlier one to beat
HAS_ITS_OWN_HINT = {"few_shot"}


def judge(spec: EvaluationSpec, found: Metrics) -> Gate | None:
    """Whether the gate is passed; `reasons` (English) name each gap. None where nothing is asked for."""
    if spec.target is None and not spec.must_beat:
        return None
    reasons = shortfalls(spec.target, spec.must_beat, found, "en")
    return Gate(passed=not reasons, target=spec.target, reasons=reasons)


def shortfalls(target: float | None, must_beat: Sequence[str], found: Metrics, language: str) -> list[str]:
    """Each gap between what is asked for and what was found, in words of `language`."""
    words, verdicts = GATE[language], {c.against: c for c in found.comparisons}
    gaps = [] if target is None else [_below_target(target, found, words)]
    gaps += [_not_beaten(name, verdicts.get(name), words) for name in must_beat]
    return [gap for gap in gaps if gap]


def _below_target(target: float, found: Metrics, words: dict[str, Any]) -> str | None:
    """Where several seeds were evaluated, their mean is what has to reach the target."""
    name, value, sd, n_seeds = found.primary.name, found.primary.value, None, 1
    if found.seeds is not None:
        value, sd, n_seeds = found.seeds.mean.get(name), found.seeds.sd.get(name), len(found.seeds.seeds)
    if value is None:
        return words["undefined"].format(metric=name, target=target)
    if value >= target:
        return None
    kind = "short_of_target" if sd is None else "short_of_target_seeds"
    return words[kind].format(metric=name, value=value, target=target, gap=target - value, sd=sd, n=n_seeds)


def _not_beaten(name: str, c: Comparison | None, words: dict[str, Any]) -> str | None:
    if c is None:
        if name in MAY_BE_ABSENT:
            return None
        return words[f"{name}_not_computed" if name in HAS_ITS_OWN_HINT else "not_computed"].format(name=name)
    if c.verdict == "better":
        return None
    if c.delta is None:
        return words["no_difference"].format(name=name)
    p_value = c.p_value if c.p_value_holm is None else c.p_value_holm  # the first, in files older than the second
    return words[c.verdict].format(name=name, delta=c.delta, low=c.ci_low, high=c.ci_high, p=p_value)
