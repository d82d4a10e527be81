"""What a search may turn: keys of the config that the diagnosis names, each with a range or a list of values."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasklib import documents
from tasklib.exit_codes import ExitCode
from tasklib.schema import RunConfig
from tasklib.summary import Problem, TaskError

DIGITS = 3  # significant digits of a searched number: more are noise, and nobody wants to read them in a config
MAX_LISTED = 1000  # combinations of a finite space that are listed one by one


@dataclass(frozen=True)
class Dimension:
    """One key: `choices`, or the range from `low` to `high`, both included. Integers where both ends are."""

    key: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def is_int(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def values(self) -> Sequence[Any] | None:
        """Every legal value; None where they cannot be listed."""
        return self.choices or (range(self.low, self.high + 1) if self.is_int else None)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values at which a schema that takes them takes all: both ends of a range, every choice."""
        return self.choices or (self.low, self.high)

    def distribution(self) -> Any:
        """The same for Optuna. A choice is its JSON, because Optuna takes no lists and mixes up 1 and True."""
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution([json.dumps(choice) for choice in self.choices])
        if self.is_int:
            return distributions.IntDistribution(self.low, self.high, log=self.log)
        return distributions.FloatDistribution(self.low, self.high, log=self.log)

    def value(self, sampled: Any) -> Any:
        """The config's value of what Optuna has drawn; a fraction keeps 3 significant digits."""
        if self.choices:
            return json.loads(sampled)
        if self.is_int:
            return sampled
        return min(max(float(f"{sampled:.{DIGITS}g}"), float(self.low)), float(self.high))

    def sampled(self, value: Any) -> Any:
        """What Optuna would have drawn for a value of the config."""
        return json.dumps(value) if self.choices else value if self.is_int else float(value)

    def holds(self, value: Any) -> bool:
        if self.values is not None:
            return json.dumps(value) in map(json.dumps, self.values)
        return isinstance(value, int | float) and self.low <= value <= self.high

    def to_json(self) -> dict[str, Any]:
        if self.choices:
            return {"choices": list(self.choices)}
        return {"low": self.low, "high": self.high, "log": self.log}

    def to_text(self) -> str:
        if self.choices:
            return ", ".join(_shown(choice) for choice in self.choices)
        return f"{_shown(self.low)} to {_shown(self.high)}" + (" (log)" if self.log else "")


def named(diagnosis: Mapping[str, Any]) -> dict[str, Dimension]:
    """The keys that a diagnosis names: those of its findings, or of its options where nothing was found. Of a key that
    is named twice the first range counts: findings come in the order of their weight. Raises ValueError for a range
    that cannot be read."""
    found: dict[str, Dimension] = {}
    for item in diagnosis["findings"] or diagnosis["options"]:
        for key, spec in (item.get("search") or {}).items():
            found.setdefault(key, _dimension(key, dict(spec)))
    return found


def _dimension(key: str, spec: dict[str, Any]) -> Dimension:
    made = Dimension(key, spec.get("low"), spec.get("high"), spec.get("log", False), tuple(spec.get("choices", ())))
    if fault := _fault(made):
        raise ValueError(f"{key}: {fault}")
    return made


def narrowed(dimensions: Mapping[str, Dimension], texts: Sequence[str]) -> dict[str, Dimension]:
    """The dimensions with those that `--search` gives in their place. Raises TaskError (exit 2) with every fault; a key
    that the diagnosis does not name is one."""
    found, problems = dict(dimensions), []
    for text in texts:
        key = text.partition("=")[0].strip()
        if key not in dimensions:
            legal = ", ".join(dimensions)
            hint = f"legal keys: {legal}; for another one write an experiment with scripts/new_experiment.py"
            problems.append(_refused(text, f"the diagnosis does not name {key!r}", hint))
            continue
        try:
            made = _parsed(key, text.partition("=")[2].strip(), dimensions[key])
        except (ValueError, TaskError) as error:
            hint = (
                f"{key}=LOW..HIGH, {key}=LOW..HIGH:log or {key}=A,B,C; the diagnosis says {dimensions[key].to_text()}"
            )
            problems.append(_refused(text, str(error), hint))
            continue
        found[key] = made
    if problems:
        raise TaskError(ExitCode.USAGE, problems)
    return found


def _parsed(key: str, text: str, before: Dimension) -> Dimension:
    """A range is logarithmic where it says so, and where the diagnosis has it so."""
    low, dots, high = text.partition("..")
    if dots:
        plain, is_log = high.removesuffix(":log"), high.endswith(":log")
        ends = [documents.parse_scalar(end) for end in (low, plain)]
        made = Dimension(key, *ends, log=is_log or before.log)
        if before.low is not None and not before.is_int and made.is_int:
            made = replace(made, low=float(made.low), high=float(made.high))
    else:
        made = Dimension(key, choices=tuple(documents.parse_scalar(part.strip()) for part in text.split(",")))
    if fault := _fault(made):
        raise ValueError(fault)
    return made


def _fault(made: Dimension) -> str | None:
    """What is wrong with a dimension, with the values got."""
    if made.choices:
        twice = len({json.dumps(choice) for choice in made.choices}) < len(made.choices)
        return f"a value is named twice in {made.to_text()}" if twice else None
    ends = (made.low, made.high)
    if not all(isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in ends):
        return f"a range needs two numbers, got {made.low!r} and {made.high!r}"
    if made.low >= made.high:
        return f"the lower end {_shown(made.low)} is not below the upper end {_shown(made.high)}"
    if made.log and made.low <= 0:
        return f"a logarithmic range starts above 0, got {_shown(made.low)}"
    return None


def corners(dimensions: Mapping[str, Dimension]) -> Iterator[dict[str, Any]]:
    """Values of all keys, such that every end of every key comes up at least once."""
    for step in range(max(len(d.ends) for d in dimensions.values())):
        yield {key: d.ends[min(step, len(d.ends) - 1)] for key, d in dimensions.items()}


def combinations(dimensions: Mapping[str, Dimension]) -> list[dict[str, Any]] | None:
    """Every point of a small finite space; None for any other."""
    lists = [d.values for d in dimensions.values()]
    if any(values is None for values in lists) or math.prod(map(len, lists)) > MAX_LISTED:
        return None
    return [dict(zip(dimensions, point, strict=True)) for point in itertools.product(*lists)]


def current(dimensions: Mapping[str, Dimension], config: RunConfig) -> dict[str, Any]:
    """What a config has for the searched keys; None where it leaves a key to the library."""
    found = {}
    for key in dimensions:
        value: Any = config.model_dump(mode="json")
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        found[key] = value
    return found


def overrides(values: Mapping[str, Any], parent: RunConfig) -> list[str]:
    """`key=value` for each searched key. Where r is searched and lora_alpha is not, lora_alpha keeps the parent's ratio
    to r: LoRA scales its update by lora_alpha / r (Hu et al. 2021, arXiv:2106.09685, 4.1), so that r alone would turn
    the learning rate too. rsLoRA scales otherwise, and keeps its lora_alpha."""
    found, fields = dict(values), parent.adapter.peft_fields
    rank, follows = values.get("adapter.r"), "adapter.lora_alpha" not in values and not fields.get("use_rslora")
    if isinstance(rank, int) and follows and fields.get("r") and fields.get("lora_alpha"):
        found["adapter.lora_alpha"] = max(1, round(fields["lora_alpha"] * rank / fields["r"]))
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in found.items()]


def to_text(values: Mapping[str, Any]) -> str:
    """The point as a person reads it."""
    return ", ".join(f"{key} = {_shown(value)}" for key, value in values.items())


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _refused(text: str, message: str, hint: str) -> Problem:
    return Problem(code="usage", message=f"--search {text!r}: {message}", field="--search", hint=hint)
