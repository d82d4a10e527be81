"""The catalogs of references/: what is known of models, data sets and defaults, each fact with its source.

A value that nobody checked is null. `unverified` names the keys that were read somewhere but not at the source itself.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasklib import documents, task_types
from tasklib.exit_codes import ExitCode
from tasklib.summary import Problem, TaskError

REFERENCES = Path(__file__).resolve().parent.parent.parent / "references"
Script = Literal["traditional", "simplified", "both", "none"]
Layers = Literal["dense", "moe", "mla", "hybrid"]
Method = Literal["sft", "dpo", "orpo"]


class Fact(BaseModel):
    """What every entry has. sources: URLs or `package: file`; a claim without one is not written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: list[str] = Field(min_length=1)
    last_verified: datetime.date
    unverified: list[str] = Field([], description="keys of this entry that were not checked at their source")
    notes: list[str] = Field([], description="what goes wrong with it, in Traditional Chinese, one fact each")

    @model_validator(mode="after")
    def _unverified_keys_exist(self) -> Fact:
        if wrong := sorted(set(self.unverified) - set(type(self).model_fields)):
            raise ValueError(f"unverified names no key of the entry: {', '.join(wrong)}")
        return self


class Model(Fact):
    """A base model. `config` holds what its config.json says and the memory estimate needs (model_type, hidden_size and
    so on): sizes follow from it, never from the name."""

    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="Hub id")
    family: str
    kind: Literal["base", "instruct"]
    layers: Layers
    released: str | None = Field(None, pattern=r"^\d{4}-\d{2}$")
    parameters: int | None = Field(None, gt=0, description="all parameters")
    active_parameters: int | None = Field(None, gt=0, description="of a mixture of experts: those of one token")
    licence: str | None = Field(None, description="SPDX identifier, or the licence's own name")
    commercial: Literal["yes", "conditions", "no"] | None = None
    is_gated: bool | None = Field(None, description="whether the Hub asks for consent first")
    context_length: int | None = Field(None, gt=0, description="tokens, without extension")
    traditional_chinese: Literal["trained", "understood", "weak"] | None = None
    thinking: Literal["never", "switchable", "always"] | None = Field(None, description="as its chat template has it")
    config: dict[str, Any] | None = None
    text_parameters: int | None = Field(
        None, gt=0, description="counted in the causal language model of `config`: update_references.py --count"
    )


class DataSet(Fact):
    """A public data set. rows: as published, by split where there are splits."""

    name: str
    task: str = Field(description="a task.type, or 'instruction'")
    language: str = Field(description="zh, en, or several by comma")
    script: Script | None = None
    rows: dict[str, int] | None = None
    labels: list[str] | None = None
    licence: str | None = None
    commercial: Literal["yes", "conditions", "no"] | None = None
    hub_id: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    url: str | None = Field(None, pattern=r"^https://")
    loads_with_datasets_5: bool | None = Field(
        None, description="false: it needs a loading script, which 5 does not run"
    )

    @model_validator(mode="after")
    def _task_is_known(self) -> DataSet:
        if self.task not in (*task_types.names(), "instruction"):
            raise ValueError(f"task {self.task!r} is none of {', '.join(task_types.names())}, instruction")
        return self


class Default(Fact):
    """A starting value of a config key for a method and an adapter."""

    method: Method
    adapter: Literal["lora", "qlora", "dora", "qdora", "full", "any"]
    key: str = Field(pattern=r"^(training|adapter)\.\w+$")
    value: float | int | str | bool
    reason: str = Field(description="why, in Traditional Chinese, one sentence")


CATALOGS: dict[str, type[Fact]] = {
    "models/catalog.yaml": Model,
    "datasets/catalog.yaml": DataSet,
    "methods/defaults.yaml": Default,
}
KEYS = {Model: ("id",), DataSet: ("name",), Default: ("method", "adapter", "key")}


def load(name: str, root: Path = REFERENCES) -> list[Any]:
    """The entries of a catalog. Raises TaskError (exit 2) with every fault, file and entry."""
    kind = CATALOGS[name]
    parsed = documents.parse_yaml((root / name).read_text(encoding="utf-8"), name)
    found, problems, seen = [], [], set()
    for number, values in enumerate(parsed.data or []):
        try:
            entry = kind(**values)
        except (TypeError, ValueError) as error:
            problems.append(_problem(name, number, values, " ".join(str(error).split())))
            continue
        key = tuple(getattr(entry, part) for part in KEYS[kind])
        if key in seen:
            problems.append(_problem(name, number, values, "stands there twice"))
        seen.add(key)
        found.append(entry)
    if problems:
        raise TaskError(ExitCode.USAGE, problems)
    return found


def _problem(name: str, number: int, values: Any, message: str) -> Problem:
    title = (
        next((values[key] for key in ("id", "name", "key") if key in values), "") if isinstance(values, dict) else ""
    )
    return Problem(code="catalog", message=f"entry {number + 1} {title}: {message}", file=name, hint="mend the entry")
