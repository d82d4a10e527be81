"""estimate_memory.py and recommend.py: from the catalogs and config.json alone, never from a name."""

from __future__ import annotations

import json
import sys

import pytest

from conftest import BUNDLE
from test_references import run

sys.path.insert(0, str(BUNDLE / "scripts"))
from knowledge import bases, catalogs, ranking
from tasklib import schema
from tasklib.documents import Document

pytestmark = pytest.mark.slow


def estimated(*flags: str) -> dict:
    code, summary = run("estimate_memory", *flags)
    assert code == 0, summary
    return summary


def test_the_config_decides_and_not_the_name(tmp_path):
    small = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "dtype": "bfloat16"}  # fmt: skip
    path = tmp_path / "llama-70b.json"
    path.write_text(json.dumps(small))
    found = estimated(str(path), "--tokens", "64")["outputs"]
    assert found["training"]["weights"] < 1e6
    path.write_text(json.dumps(small | {"num_hidden_layers": 4}))
    assert estimated(str(path), "--tokens", "64")["outputs"]["training"]["weights"] > found["training"]["weights"]


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "qwen3-0.6b"])
def test_a_catalog_name_is_enough(name):
    summary = estimated(name, "--tokens", "64", "--rows", "1")
    assert summary["outputs"]["model"] == "Qwen/Qwen3-0.6B" and "catalog" in summary["outputs"]["notes"]
    # 28 layers of q 1024x2048, k and v 1024x1024, o 2048x1024, three of 1024x3072, norms; one embedding; 2 bytes each
    layer = 2 * 1024 * 2048 + 2 * 1024 * 1024 + 3 * 1024 * 3072 + 2 * 1024 + 2 * 128
    weights = 2 * (28 * layer + 151936 * 1024 + 1024)
    assert summary["outputs"]["training"]["weights"] == pytest.approx(weights, rel=1e-3)


def test_every_part_that_the_issue_of_memory_is_about_is_named():
    parts = estimated("qwen3-0.6b", "--rows", "2", "--tokens", "128")["outputs"]
    assert {"weights", "adapter", "gradients", "optimizer", "activations", "logits", "overhead"} <= set(
        parts["training"]
    )
    assert {"weights", "adapter", "activations", "cache", "overhead"} <= set(parts["answering"])


def test_quantised_weights_experts_and_shares_count_as_what_they_are():
    def weights(*flags: str) -> int:
        return estimated(*flags, "--rows", "1", "--tokens", "32")["outputs"]["training"]["weights"]

    whole = weights("Qwen/Qwen3-8B")
    assert weights("Qwen/Qwen3-8B", "--set", "adapter.type=qlora") < 0.6 * whole
    assert weights("Qwen/Qwen3-8B", "--gpus", "4", "--sharded") == pytest.approx(whole / 4, rel=0.01)
    experts = weights("Qwen/Qwen3-30B-A3B")
    assert experts > 3 * whole  # all experts are held, however few answer
    assert weights("Qwen/Qwen3-30B-A3B", "--set", "adapter.type=qlora") > 0.95 * experts  # bitsandbytes leaves them


def test_what_does_not_fit_comes_with_settings_that_do():
    flags = ("Qwen/Qwen3-4B", "--rows", "8", "--tokens", "512", "--gpu-memory")
    tight = estimated(*flags, "16")
    assert tight["outputs"]["fits"] is False and tight["warnings"][0]["code"] == "does_not_fit"
    settings = [word for setting in tight["outputs"]["settings_that_fit"] for word in ("--set", setting)]
    assert settings and estimated(*flags, "16", *settings)["outputs"]["fits"] is True
    assert estimated(*flags, "500")["outputs"]["fits"] is True


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("pyproject.toml",), 2, "no_config"),
        (("qwen3-0.6b", "--sharded"), 2, "usage"),
        (("qwen3-0.6b", "--set", "training.lerning_rate=1"), 2, "unknown_key"),
        (("Qwen/Qwen3-9B",), 4, "model_unavailable"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_is_legal(flags, code, said, monkeypatch):
    monkeypatch.chdir(BUNDLE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found, summary = run("estimate_memory", *flags)
    assert (found, summary["errors"][0]["code"]) == (code, said)
    if code == 4:
        assert "Qwen/Qwen3-8B" in summary["errors"][0]["hint"]


def test_a_name_is_found_whole_or_by_what_follows_the_slash_and_nothing_else():
    assert bases.find("qwen3-8b").id == bases.find("Qwen/Qwen3-8B").id == "Qwen/Qwen3-8B"
    assert bases.find("8b") is None and bases.find("qwen") is None


# --- recommend.py ---


@pytest.fixture(scope="module")
def commercial() -> dict:
    code, summary = run("recommend", "--task", "classification", "--language", "zh-TW", "--gpu-memory", "24",
                        "--rows", "5000", "--license", "commercial", "--top", "3")  # fmt: skip
    assert code == 0
    return summary


def test_what_is_recommended_fits_and_may_be_used_so(commercial):
    known = {model.id: model for model in catalogs.load("models/catalog.yaml")}
    choices = commercial["outputs"]["choices"]
    assert len(choices) == 3
    for choice in choices:
        assert choice["training_bytes"] <= 24e9 * 0.9 and choice["reasons"]
        assert known[choice["id"]].commercial in ("yes", "conditions")
        assert known[choice["id"]].thinking != "always"


def test_every_model_of_the_catalog_is_either_recommended_or_left_out_with_a_reason(commercial):
    named = {choice["id"] for choice in commercial["outputs"]["choices"]} | set(commercial["outputs"]["left_out"])
    assert named == {model.id for model in catalogs.load("models/catalog.yaml")}
    left_out = commercial["outputs"]["left_out"]
    assert (
        "unknown" in left_out["taide/Llama3-TAIDE-LX-8B-Chat-Alpha1"]
        or "licence" in left_out["taide/Llama3-TAIDE-LX-8B-Chat-Alpha1"]
    )
    assert "forbids" in left_out["mistralai/Ministral-8B-Instruct-2410"]
    assert "weights alone" in left_out["deepseek-ai/DeepSeek-V3"]


def test_the_starting_config_is_legal_holds_the_longest_row_and_has_the_defaults_of_the_catalog(commercial):
    defaults = {
        (entry.method, entry.adapter, entry.key): entry.value for entry in catalogs.load("methods/defaults.yaml")
    }
    for choice in commercial["outputs"]["choices"]:
        config = schema.check_config(Document("config", choice["config"], {}))
        assert config.base_model.id == choice["id"] and config.training.trl_fields["max_length"] >= 512
        rate = defaults["sft", choice["adapter"], "training.learning_rate"]
        assert config.training.trl_fields["learning_rate"] == rate


def test_time_follows_rows_and_the_speed_of_the_gpu(commercial):
    first = commercial["outputs"]["choices"][0]
    epochs = first["config"]["training"]["num_train_epochs"]
    checkpointing = first["config"]["training"].get("activation_checkpointing", False)
    per_token = first["flops"] / (5000 * 512 * epochs)
    assert per_token == pytest.approx((6 if checkpointing else 4) * first["parameters"], rel=1e-6)
    assert first["hours"] == pytest.approx(first["flops"] / (100e12 * 0.3) / 3600)


def test_pairs_get_a_preference_method_with_its_own_rates():
    wish = ranking.Wish(task="preference", language="zh-TW", gpu_bytes=int(24e9), rows=1000)
    config = ranking.starting_config("a/b", wish.method, "qlora", 300)
    assert wish.method == "dpo" and config["training"]["learning_rate"] < 1e-4
    assert config["training"]["max_length"] == 320 and config["adapter"]["type"] == "qlora"
    assert schema.check_config(Document("config", config, {})).method == "dpo"


def test_a_gpu_that_is_too_small_for_anything_is_told(monkeypatch):
    code, summary = run("recommend", "--task", "ner", "--gpu-memory", "0.05", "--rows", "100")
    assert (code, summary["errors"][0]["code"]) == (4, "nothing_fits")


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("deepseek-ai/DeepSeek-V4-Flash", "o_a_proj"),
        ("deepseek-ai/DeepSeek-V3.2", "indexer"),
        ("zai-org/GLM-5", "indexer"),
    ],
)
def test_auto_leaves_out_what_cannot_learn_or_would_break_the_forward_pass(name, left_out):
    """A grouped projection multiplies otherwise than x W; an indexer chooses under torch.no_grad."""
    from tasklib.model import meta_model

    with bases.located(name) as base:
        data = {"schema_version": 1, "base_model": {"id": base.location}, "adapter": {"type": "lora"}}
        built = meta_model.build(schema.check_config(Document("config", data, {})), for_training=True)
    adapted = {path.split(".lora_")[0] for path, _ in built.model.named_parameters() if ".lora_" in path}
    assert any(path.endswith("o_b_proj") or path.endswith("o_proj") for path in adapted)
    assert any(left_out in path for path, _ in built.causal_lm.named_modules())
    assert [path for path in adapted if left_out in path] == []
