"""The quality gate: the target reached, and every baseline of `must_beat` beaten by the paired test."""

from __future__ import annotations

from tasklib.metrics import Gate, Metrics
from tasklib.schema import EvaluationSpec
from tasklib.texts import GATE


def judge(spec: EvaluationSpec, found: Metrics) -> Gate:
    """Whether the gate is passed; `reasons` (English) name each gap."""
    reasons = shortfalls(spec.target, spec.must_beat, found, "en")
    return Gate(passed=not reasons, target=spec.target, reasons=reasons)


def shortfalls(target: float | None, must_beat: list[str], found: Metrics, language: str) -> list[str]:
    """Each gap between what is asked for and what was found, in words of `language`."""
    words, value, gaps = GATE[language], found.primary.value, []
    if target is not None and (value is None or value < target):
        kind = "undefined" if value is None else "short_of_target"
        gap = 0.0 if value is None else target - value
        gaps.append(words[kind].format(metric=found.primary.name, value=value or 0.0, target=target, gap=gap))
    verdicts = {c.against: c for c in found.comparisons}
    for name in must_beat:
        c = verdicts.get(name)
        if c is None:
            gaps.append(words["not_computed"].format(name=name))
        elif c.verdict != "better":
            gaps.append(words[c.verdict].format(name=name, delta=c.delta, low=c.ci_low, high=c.ci_high))
    return gaps
