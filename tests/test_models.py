"""Loading trained runs: nothing of an adapter is lost, and merging gives the same model or is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasklib.model import models
from tasklib.schema import AdapterSpec, BaseModelSpec, RunConfig
from tasklib.summary import TaskError

pytestmark = pytest.mark.slow

TOKENS = torch.arange(5, 45).view(2, 20)


def config_of(model: Path, **adapter: Any) -> RunConfig:
    return RunConfig(
        schema_version=1,
        base_model=BaseModelSpec(id=str(model), dtype="float32"),
        adapter=AdapterSpec(**{"type": "lora", **adapter}),
    )


def saved_run(config: RunConfig, folder: Path, **lora: Any) -> Path:
    """A run folder with an adapter that changes the model visibly."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    fields = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False, "use_dora": config.adapter.uses_dora}
    model = get_peft_model(models.load_base(config), LoraConfig(task_type="CAUSAL_LM", **{**fields, **lora}))
    model.save_pretrained(folder / "adapter")
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(TOKENS).logits.float()


def same(model: Any, other: Any, within: float) -> bool:
    return (logits(model) - logits(other)).abs().max() < within


def raised(code: str, action: Any) -> str:
    """The text of the one problem, which has this code."""
    with pytest.raises(TaskError) as caught:
        action()
    (problem,) = caught.value.problems
    assert problem.code == code and problem.hint
    return problem.message


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_is_loaded_with_its_adapter_merged_and_is_the_same_model(tiny_model, tmp_path, kind, dtype):
    config = config_of(tiny_model, type=kind)
    config = config.model_copy(update={"base_model": BaseModelSpec(id=str(tiny_model), dtype=dtype)})
    folder = saved_run(config, tmp_path)
    loaded, apart = models.load_trained(config, folder), models.load_trained(config, folder, merged=False)
    assert not hasattr(loaded, "peft_config") and hasattr(apart, "peft_config")
    assert not loaded.training and loaded.dtype == getattr(torch, dtype)
    assert not same(apart, models.load_base(config), 0.2)  # the adapter does something
    assert same(loaded, apart, 1e-4 if dtype == "float32" else 0.1)


@pytest.mark.parametrize("kind", ["qlora", "qdora"])
def test_merging_into_a_4_bit_base_is_refused_and_a_run_on_one_is_loaded_unmerged(tiny_model, tmp_path, kind):
    from bitsandbytes.nn import Linear4bit

    config = config_of(tiny_model, type=kind)
    folder = saved_run(config, tmp_path)
    loaded = models.load_trained(config, folder)
    assert any(isinstance(module, Linear4bit) for module in loaded.modules()) and hasattr(loaded, "peft_config")
    before = logits(loaded)
    assert "quantized" in raised("merge_into_quantized_base", lambda: models.merge(loaded))
    assert torch.equal(logits(loaded), before)  # and the model is as it was


@pytest.mark.parametrize("kind", ["qlora", "qdora"])
def test_an_evaluation_leaves_a_4_bit_model_with_the_same_answers_and_gradients(tiny_model, tmp_path, kind):
    config = config_of(tiny_model, type=kind)
    config = config.model_copy(update={"base_model": BaseModelSpec(id=str(tiny_model), dtype="bfloat16")})
    model = models.load_trained(config, saved_run(config, tmp_path), merged=False)

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        embedded = model.get_input_embeddings()(TOKENS).detach().requires_grad_()
        output = model.train()(inputs_embeds=embedded).logits.float()
        (gradient,) = torch.autograd.grad(output.logsumexp(-1).sum(), embedded)
        return output.detach(), gradient

    answers, gradient = step()
    model.eval()
    assert (logits(model) - answers).abs().max() < 0.1 and torch.equal(logits(model), logits(model))
    again, gradient_after = step()
    assert torch.equal(again, answers) and torch.equal(gradient_after, gradient) and gradient.abs().max() > 0


def test_an_adapter_of_a_4_bit_run_is_merged_into_the_base_in_16_bit(tiny_model, tmp_path):
    folder = saved_run(config_of(tiny_model, type="qlora"), tmp_path)
    in_16_bit = config_of(tiny_model, type="lora")
    merged, apart = models.load_trained(in_16_bit, folder), models.load_trained(in_16_bit, folder, merged=False)
    assert same(merged, apart, 1e-4)


def test_merging_into_weights_that_two_layers_share_is_refused_and_the_run_is_loaded_unmerged(tiny_model, tmp_path):
    config = config_of(tiny_model)
    folder = saved_run(config, tmp_path, target_modules=["q_proj", "lm_head"])
    loaded = models.load_trained(config, folder)
    assert "lm_head" in raised("merge_into_tied_weights", lambda: models.merge(loaded))
    assert same(loaded, models.load_trained(config, folder, merged=False), 1e-6)


def test_an_adapter_that_peft_cannot_merge_is_left_apart(tiny_model, tmp_path):
    config = config_of(tiny_model)
    loaded = models.load_trained(config, saved_run(config, tmp_path, lora_bias=True))
    assert "lora_bias" in raised("adapter_not_mergeable", lambda: models.merge(loaded))


@pytest.mark.parametrize(
    "name, fields, lora",
    [
        ("Qwen3MoeConfig", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}, {}),
        ("GptOssConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}, {"use_rslora": True}),
    ],
)
def test_adapters_on_fused_experts_are_merged_into_the_same_model(tmp_path, name, fields, lora):
    import transformers

    config = getattr(transformers, name)(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, initializer_range=0.2, **fields,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path / "base")
    run = config_of(tmp_path / "base")
    experts = ["experts.gate_up_proj", "experts.down_proj"]
    folder = saved_run(run, tmp_path, target_modules=["q_proj"], target_parameters=experts, **lora)
    merged, apart = models.load_trained(run, folder), models.load_trained(run, folder, merged=False)
    assert not same(apart, models.load_base(run), 0.1)
    assert same(merged, apart, 1e-4)


# What was saved is what is loaded: PEFT only warns, or leaves a tensor at its random start.


def edit_adapter(folder: Path, change: Any) -> None:
    file = folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.fixture
def run(tiny_model, tmp_path) -> tuple[RunConfig, Path]:
    config = config_of(tiny_model)
    return config, saved_run(config, tmp_path)


def test_an_adapter_with_a_tensor_missing_is_refused(run):
    config, folder = run
    edit_adapter(folder, lambda tensors: tensors.pop(next(key for key in tensors if "layers.1" in key)))
    message = raised("weights_do_not_match", lambda: models.load_trained(config, folder))
    assert "layers.1" in message and "missing" in message


def test_an_adapter_with_a_tensor_that_the_model_has_no_place_for_is_refused(run):
    config, folder = run
    edit_adapter(
        folder,
        lambda tensors: tensors.update(
            {"base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": torch.ones(4, 64)}
        ),
    )
    assert "layers.9" in raised("weights_do_not_match", lambda: models.load_trained(config, folder))


def test_an_adapter_of_another_models_size_is_refused(run):
    config, folder = run

    def narrow(tensors: dict[str, torch.Tensor]) -> None:
        key = next(key for key in tensors if "q_proj.lora_A" in key)
        tensors[key] = tensors[key][:, :32].contiguous()

    edit_adapter(folder, narrow)
    message = raised("weights_do_not_match", lambda: models.load_trained(config, folder))
    assert "q_proj" in message and "size mismatch" in message


def test_a_whole_layer_that_was_to_be_saved_with_the_adapter_and_is_not_there_is_refused(tiny_model, tmp_path):
    config = config_of(tiny_model)
    folder = saved_run(config, tmp_path, target_modules=["q_proj"], modules_to_save=["norm"])
    models.load_trained(config, folder)
    edit_adapter(folder, lambda tensors: tensors.pop(next(key for key in tensors if "lora" not in key)))
    raised("weights_do_not_match", lambda: models.load_trained(config, folder))


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_an_adapter_file_that_is_gone_or_cut_off_is_refused(run, file, damage):
    config, folder = run
    path = folder / "adapter" / file
    content = path.read_bytes()
    path.unlink() if damage == "gone" else path.write_bytes(content[: len(content) // 2])
    raised("weights_do_not_match", lambda: models.load_trained(config, folder))


def test_an_adapter_with_a_value_that_is_no_number_is_refused(run):
    config, folder = run
    edit_adapter(folder, lambda tensors: next(iter(tensors.values())).fill_(torch.nan))
    assert "not finite" in raised("weights_do_not_match", lambda: models.load_trained(config, folder))


def test_a_fully_trained_model_is_loaded_whole_or_not_at_all(tiny_model, tmp_path):
    config = config_of(tiny_model, type="full")
    shutil.copytree(tiny_model, tmp_path / "model")
    assert torch.equal(logits(models.load_trained(config, tmp_path)), logits(models.load_base(config)))
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    lost = tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, file, metadata={"format": "pt"})
    assert "up_proj" in raised("weights_do_not_match", lambda: models.load_trained(config, tmp_path))
    save_file(
        {**tensors, "model.layers.1.mlp.up_proj.weight": lost[:, :32].contiguous()}, file, metadata={"format": "pt"}
    )
    raised("weights_do_not_match", lambda: models.load_trained(config, tmp_path))
    file.unlink()
    raised("weights_do_not_match", lambda: models.load_trained(config, tmp_path))


# Attention


def test_auto_attention_on_a_gpu_is_sdpa_unless_the_architecture_has_none(tmp_path, monkeypatch):
    import transformers

    monkeypatch.setattr(models, "device", lambda: "cuda:0")
    for name, expected in (("LlamaConfig", "sdpa"), ("GptOssConfig", "eager"), ("Gemma3TextConfig", "sdpa")):
        getattr(transformers, name)().save_pretrained(tmp_path / name)
        assert models.attention(BaseModelSpec(id=str(tmp_path / name))) == expected
        assert models.attention(BaseModelSpec(id=str(tmp_path / name), attn_implementation="eager")) == "eager"
    monkeypatch.setattr(models, "device", lambda: "cpu")
    assert models.attention(BaseModelSpec(id=str(tmp_path / "LlamaConfig"))) == "eager"
