"""The catalogs of references/: typed, sourced, and no contradiction to the installed libraries."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from conftest import BUNDLE
from tasklib.summary import TaskError
from tasklib.upstream_fields import DPO_FIELDS, LORA_FIELDS, ORPO_FIELDS, SFT_FIELDS

sys.path.insert(0, str(BUNDLE / "scripts"))
from knowledge import catalogs

MODELS = catalogs.load("models/catalog.yaml")
TRAINING = {"sft": SFT_FIELDS, "dpo": DPO_FIELDS, "orpo": ORPO_FIELDS}


def every_fact() -> list[tuple[str, catalogs.Fact]]:
    return [(name, entry) for name in catalogs.CATALOGS for entry in catalogs.load(name)]


def test_the_catalogs_hold_what_a_practitioner_looks_for():
    families = {model.family.split()[0].lower() for model in MODELS}
    assert {"qwen3", "llama", "gemma", "deepseek", "glm", "kimi", "minimax", "mistral", "phi", "smollm"} <= {
        next((known for known in KNOWN if family.startswith(known)), family) for family in families
    }
    assert len(every_fact()) > 150


KNOWN = ("qwen3", "llama", "gemma", "deepseek", "glm", "kimi", "minimax", "mistral", "phi", "smollm")


def test_every_source_is_an_address_or_a_file_of_an_installed_package():
    wrong = []
    for name, entry in every_fact():
        for source in entry.sources:
            package = re.fullmatch(r"(\w+) [\d.]+: (\S+)", source)
            if not (source.startswith("https://") or (package and _exists(*package.groups()))):
                wrong.append((name, source))
    assert wrong == []


def _exists(package: str, path: str) -> bool:
    spec = importlib.util.find_spec(package)
    folder = Path(spec.origin).parent if spec else None
    return folder is not None and any((base / path).exists() for base in (folder, folder.parent))


def test_an_entry_without_a_source_or_with_an_unknown_key_is_refused_with_its_place(tmp_path):
    (tmp_path / "models").mkdir()
    text = "- {id: a/b, family: x, kind: base, layers: dense, sources: [], last_verified: 2026-11-23}\n"
    (tmp_path / "models/catalog.yaml").write_text(text + text.replace("sources: []", "size: 8B, sources: [s]"))
    with pytest.raises(TaskError) as raised:
        catalogs.load("models/catalog.yaml", tmp_path)
    first, second = (problem.message for problem in raised.value.problems)
    assert "entry 1 a/b" in first and "sources" in first and "entry 2 a/b" in second and "size" in second


def test_defaults_are_keys_that_the_pinned_libraries_take():
    wrong = []
    for default in catalogs.load("methods/defaults.yaml"):
        section, key = default.key.split(".")
        legal = TRAINING[default.method] if section == "training" else LORA_FIELDS
        if key not in legal:
            wrong.append((default.method, default.key))
    assert wrong == []


def test_the_learning_rates_that_the_scripts_take_are_those_of_the_catalog():
    from tasklib import schema

    known = {(entry.method, entry.adapter): entry.value for entry in catalogs.load("methods/defaults.yaml")
             if entry.key == "training.learning_rate"}  # fmt: skip
    for method in schema.METHODS:
        for adapter in ("lora", "full"):
            assert schema.learning_rate(method, adapter) == known[method, adapter], (method, adapter)


def test_parameters_are_counted_in_the_model_that_the_config_makes():
    from knowledge import tables

    counted = {model.id: model for model in MODELS if model.text_parameters}
    assert len(counted) > 50
    for name in ("Qwen/Qwen3-0.6B", "Qwen/Qwen3.5-0.8B", "openai/gpt-oss-20b"):
        assert tables.counted(counted[name]) == counted[name].text_parameters


def test_a_model_whose_architecture_the_pinned_transformers_does_not_know_says_so():
    from transformers import CONFIG_MAPPING

    unknown = [model for model in MODELS if model.config and model.config["model_type"] not in CONFIG_MAPPING]
    assert [model.id for model in unknown if not any("transformers" in note for note in model.notes)] == []


@pytest.mark.slow
def test_a_model_built_from_its_config_has_as_many_parameters_as_the_catalog_says():
    import torch
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

    compared, wrong = 0, []
    for model in MODELS:
        if not model.config or not model.parameters or model.config["model_type"] not in CONFIG_MAPPING:
            continue
        config = AutoConfig.for_model(**model.config)
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            continue
        with torch.device("meta"):
            built = AutoModelForCausalLM.from_config(config)
        n = sum(p.numel() for p in {id(p): p for p in built.parameters()}.values())
        compared += 1
        if not 0.97 < n / model.parameters < 1.03:
            wrong.append((model.id, n, model.parameters))
    assert compared > 10 and wrong == []
