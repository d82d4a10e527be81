"""The generated list of LoraConfig's and SFTConfig's fields, against the pinned classes."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Optional

import pytest

import update_upstream_fields
from conftest import BUNDLE
from tasklib import upstream_fields


def pins() -> dict[str, str]:
    project = tomllib.loads((BUNDLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict(pin.split("==") for pin in project["dependencies"])


def test_the_list_was_generated_from_the_pinned_versions():
    assert set(upstream_fields.VERSIONS) == {"peft", "trl", "transformers"}
    assert all(pins()[name] == version for name, version in upstream_fields.VERSIONS.items())


@pytest.mark.slow
def test_the_list_equals_what_the_installed_classes_say_now():
    assert update_upstream_fields.TARGET.read_text(encoding="utf-8") == update_upstream_fields.render()


@pytest.mark.parametrize(
    ("fields", "name", "kinds"),
    [
        (upstream_fields.LORA_FIELDS, "r", ("int",)),
        (upstream_fields.LORA_FIELDS, "lora_dropout", ("float",)),
        (upstream_fields.LORA_FIELDS, "target_modules", ("list", "null", "str")),
        (upstream_fields.LORA_FIELDS, "use_rslora", ("bool",)),
        (upstream_fields.SFT_FIELDS, "learning_rate", ("float",)),
        (upstream_fields.SFT_FIELDS, "max_steps", ("int",)),
        (upstream_fields.SFT_FIELDS, "save_strategy", ("str",)),
        (upstream_fields.SFT_FIELDS, "load_best_model_at_end", ("bool",)),
        (upstream_fields.SFT_FIELDS, "max_length", ("int", "null")),
    ],
)
def test_fields_that_every_practitioner_knows_have_their_types(fields, name, kinds):
    assert fields[name] == kinds


class Strategy(StrEnum):
    NO = "no"


@dataclass
class Upstream:
    number: int
    fraction: float | None
    switch: Optional[bool]  # noqa: UP045 - as upstream writes it
    words: list[str] | str
    table: dict[str, Any] | None
    choice: Literal["a", "b"]
    mixed: bool | Literal["gaussian"]
    strategy: Strategy | str
    other: Upstream | None
    derived: int = field(default=0, init=False)


def test_the_types_of_a_dataclass_are_told_in_the_words_of_yaml():
    assert update_upstream_fields.fields_of(Upstream) == {
        "number": ("int",),
        "fraction": ("float", "null"),
        "switch": ("bool", "null"),
        "words": ("list", "str"),
        "table": ("dict", "null"),
        "choice": ("str",),
        "mixed": ("bool", "str"),
        "strategy": ("str",),
        "other": ("any",),
    }
