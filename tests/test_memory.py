"""The memory estimate: exact where it can be counted, close to a measured peak, and never a model in memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasklib import schema
from tasklib.documents import Document
from tasklib.model import free_memory, live_bytes, memory, memory_formulas, meta_model, models
from tasklib.summary import TaskError
from test_adapters import ARCHITECTURES, MIXTURES, config_of
from trainable_task import environment

pytestmark = pytest.mark.slow

LENGTHS, N_TRAINED = [40] * 30 + [64], [5] * 31
PLENTY = 10**15
SCORE = "score"
GENERATE = "generate"


def config(model: Path | str, *settings: str, **adapter: Any) -> schema.RunConfig:
    """A config with `--set` values, through the schema."""
    data = {"schema_version": 1, "base_model": {"id": str(model)}, "adapter": adapter or {"type": "lora"}}
    return schema.check_config(Document("configs/x.yaml", data, {}), settings)


def training(found: schema.RunConfig, lengths=LENGTHS, n_trained=N_TRAINED) -> memory.Estimate:
    return memory.estimate_training(found, lengths, n_trained)


@pytest.fixture(scope="module")
def tiny_moe(tmp_path_factory) -> Path:
    """A Qwen3-MoE of random weights: fused experts, grouped-query attention, a head of its own."""
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny-moe")
    moe = Qwen3MoeConfig(
        vocab_size=512, hidden_size=64, intermediate_size=96, moe_intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, num_experts=4, num_experts_per_tok=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    Qwen3MoeForCausalLM(moe).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture
def on_gpu(monkeypatch) -> None:
    """The estimate for a machine with a GPU; none is used."""
    monkeypatch.setattr(models, "device", lambda: "cuda:0")


def real_bytes(found: schema.RunConfig) -> tuple[int, int]:
    """Bytes of the really loaded base model, and of the adapters on it."""
    from tasklib.model import adapters

    base = models.load_base(found)
    own = sum(t.numel() * t.element_size() for t in [*base.parameters(), *base.buffers()])
    if found.adapter.type == "full":
        return own, 0
    model = adapters.attach(base, found)
    everything = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    return own, everything - own


@pytest.mark.parametrize("adapter", ["lora", "dora", "full"])
def test_weights_and_adapters_of_a_dense_model_are_counted_to_the_byte(adapter, tiny_model):
    found = config(tiny_model, type=adapter)
    estimate = training(found)
    assert (estimate.weights_bytes, estimate.adapter_bytes) == real_bytes(found)


@pytest.mark.parametrize("setting", ["adapter.train_experts=false", "adapter.train_experts=true"])
def test_weights_and_adapters_of_a_moe_model_are_counted_to_the_byte(setting, tiny_moe):
    found = config(tiny_moe, setting)
    estimate = training(found)
    assert (estimate.weights_bytes, estimate.adapter_bytes) == real_bytes(found)


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2), ("auto", 4)])
def test_weights_are_as_wide_as_the_dtype_that_is_loaded(dtype, width, tiny_model):
    n_parameters = real_bytes(config(tiny_model, "base_model.dtype=float32"))[0] / 4
    estimate = training(config(tiny_model, f"base_model.dtype={dtype}"))
    assert estimate.weights_bytes / n_parameters == pytest.approx(width, rel=1e-3)


def test_a_folder_whose_config_names_no_dtype_has_that_of_its_weights(tiny_moe, tmp_path):
    stored = json.loads((tiny_moe / "config.json").read_text())
    named = training(config(tiny_moe)).weights_bytes
    for name in ("weights", "nothing"):
        (tmp_path / name).mkdir()
        unnamed = {key: value for key, value in stored.items() if "dtype" not in key}
        (tmp_path / name / "config.json").write_text(json.dumps(unnamed))
    (tmp_path / "weights" / "model.safetensors").symlink_to(tiny_moe / "model.safetensors")
    assert training(config(tmp_path / "weights")).weights_bytes == named
    unknown = training(config(tmp_path / "nothing"))
    assert unknown.weights_bytes > 1.9 * named
    assert any("float32 is assumed" in note for note in unknown.notes)


def test_a_base_that_is_stored_quantized_is_said_to_be_counted_otherwise(tiny_moe, tmp_path):
    stored = json.loads((tiny_moe / "config.json").read_text())
    packed = stored | {"quantization_config": {"quant_method": "mxfp4"}}
    (tmp_path / "config.json").write_text(json.dumps(packed))
    estimate = training(config(tmp_path))
    assert estimate.weights_bytes == training(config(tiny_moe)).weights_bytes
    assert any("mxfp4" in note and "bfloat16" in note for note in estimate.notes)


@pytest.mark.parametrize("init", ["pissa", "olora", "gaussian"])
def test_adapters_that_start_from_the_weights_need_none_to_be_counted(init, tiny_model):
    plain, started = training(config(tiny_model)), training(config(tiny_model, f"adapter.init_lora_weights={init}"))
    assert started.adapter_bytes == plain.adapter_bytes and started.notes == ()


def test_full_training_is_counted_in_float32_whatever_the_config_names(tiny_moe):
    lora, full = training(config(tiny_moe)), training(config(tiny_moe, type="full"))
    assert full.weights_bytes == pytest.approx(2 * lora.weights_bytes, rel=0.01)
    assert full.gradients_bytes == pytest.approx(full.weights_bytes, rel=0.01)
    assert full.optimizer_bytes == 2 * full.gradients_bytes


def test_nf4_takes_what_bitsandbytes_takes(tiny_model):
    """Every linear layer packed as bitsandbytes packs it, embedding and norms as PEFT leaves them for training."""
    from tasklib.model import adapters

    found = config(tiny_model, type="qlora")
    model = adapters.attach(models.load_base(found), found)
    packed = rest = 0
    for parameter in model.get_base_model().parameters():
        if parameter.requires_grad:
            continue
        state = getattr(parameter, "quant_state", None)
        if state is None:
            rest += parameter.numel() * parameter.element_size()
            continue
        tensors = [parameter, state.absmax, state.code, state.state2.absmax, state.state2.code, state.offset]
        packed += sum(t.numel() * t.element_size() for t in tensors)
    rest += sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    assert packed > 0
    assert training(found).weights_bytes == packed + rest


def test_fused_experts_stay_16_bit_under_qlora(tiny_moe):
    lora, qlora = training(config(tiny_moe)), training(config(tiny_moe, type="qlora"))
    meta = meta_model.build(config(tiny_moe), for_training=True)
    experts = sum(2 * p.numel() for p in meta.causal_lm.parameters() if p.ndim == 3)
    assert experts < qlora.weights_bytes < lora.weights_bytes


def test_adapters_take_half_as_much_without_autocast(tiny_moe):
    fp32, bf16 = (training(config(tiny_moe, f"adapter.autocast_adapter_dtype={v}")) for v in ("true", "false"))
    assert (fp32.adapter_bytes, fp32.optimizer_bytes) == (2 * bf16.adapter_bytes, 2 * bf16.optimizer_bytes)


@pytest.mark.parametrize(
    ("optim", "bytes_per_element"),
    [("adamw_torch", 8), ("adamw_8bit", 2 + 2 * 4 / 256), ("paged_adamw_32bit", 8), ("sgd", 0), ("lion_32bit", 4)],
)
def test_optimizer_states_follow_training_optim(optim, bytes_per_element):
    import torch

    weight = torch.empty(512, 64, device="meta")
    assert memory_formulas.optimizer_bytes(optim, [weight]) == (weight.numel() * bytes_per_element, [])


def test_states_of_real_optimizers_are_as_large_as_counted():
    import torch
    from transformers import Adafactor

    def held(optimizer: Any, weight: Any) -> int:
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        return sum(t.numel() * t.element_size() for t in optimizer.state[weight].values() if torch.is_tensor(t))

    for name, optimizer in (
        ("adamw_torch", torch.optim.AdamW),
        ("rmsprop", torch.optim.RMSprop),
        ("adafactor", Adafactor),
    ):
        weight = torch.nn.Parameter(torch.ones(64, 32))
        counted, _ = memory_formulas.optimizer_bytes(name, [weight])
        assert held(optimizer([weight]), weight) == pytest.approx(counted, abs=8)  # and a counter of steps


def test_an_unknown_optimizer_is_said_to_be_assumed(tiny_model):
    estimate = training(config(tiny_model, "training.optim=galore_adamw"))
    assert any("galore_adamw" in note for note in estimate.notes)


def test_more_rows_longer_rows_and_more_labels_need_more(tiny_model):
    small = training(config(tiny_model, "training.per_device_train_batch_size=2"))
    large = training(config(tiny_model, "training.per_device_train_batch_size=8"))
    longer = training(config(tiny_model, "training.per_device_train_batch_size=2"), [128] * 31)
    labelled = training(config(tiny_model, "training.per_device_train_batch_size=2"), n_trained=[40] * 31)
    assert large.activations_bytes == pytest.approx(4 * small.activations_bytes, rel=0.1)
    assert longer.activations_bytes > 2 * small.activations_bytes  # eager scores grow with the square
    assert labelled.logits_bytes > small.logits_bytes
    assert labelled.activations_bytes == small.activations_bytes


def test_the_longest_row_counts_and_no_batch_is_larger_than_the_data(tiny_model):
    many = config(tiny_model, "training.per_device_train_batch_size=64")
    assert training(many).batch == (31, 64)
    assert training(many).activations_bytes == training(many, [64] * 31).activations_bytes
    padded = config(tiny_model, "training.pad_to_multiple_of=48", "training.per_device_train_batch_size=2")
    assert training(padded).batch == (2, 96)


def test_checkpointing_keeps_less_and_eager_attention_keeps_scores(tiny_model):
    lengths = [512] * 8
    kept, checkpointed, fused = (
        training(config(tiny_model, setting), lengths, [5] * 8).activations_bytes
        for setting in (
            "base_model.attn_implementation=eager",
            "training.activation_checkpointing=true",
            "base_model.attn_implementation=sdpa",
        )
    )
    assert checkpointed < 0.7 * kept
    n_layers, n_heads, width, score = 2, 4, 512, 4
    assert kept - fused > 0.8 * 8 * n_layers * n_heads * width**2 * score


def test_gradients_are_held_beside_activations_only_with_accumulation(tiny_model):
    at_once, accumulated = (
        training(config(tiny_model, f"training.gradient_accumulation_steps={n}", type="full")) for n in (1, 2)
    )
    assert at_once.overlap_bytes > 0
    assert at_once.total_bytes < accumulated.total_bytes


def test_a_larger_evaluation_batch_counts_and_the_tasks_own_metric_too(tiny_model):
    plain = training(config(tiny_model, "training.activation_checkpointing=true"))
    for settings in (
        ["training.per_device_eval_batch_size=31"],
        ["training.metric_for_best_model=macro_f1", "generation.batch_size=31"],
    ):
        evaluated = training(config(tiny_model, "training.activation_checkpointing=true", *settings), [256] * 31)
        assert (
            evaluated.total_bytes
            > training(config(tiny_model, "training.activation_checkpointing=true"), [256] * 31).total_bytes
        )
    assert plain.total_bytes > 0


def allocated_by_the_loss(n_tokens: int, vocabulary: int, hidden: int, dtype: Any) -> int:
    """What TRL's own function allocates on CPU, on tensors without values."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    counter, _ = live_bytes.modes()
    with FakeTensorMode():
        states = torch.empty(n_tokens, hidden, dtype=dtype, requires_grad=True)
        weight = torch.empty(vocabulary, hidden, dtype=dtype)
        targets = torch.zeros(n_tokens, dtype=torch.long)
        with counter([states, weight, targets]) as live:
            found = ChunkedLogProbFunction.apply(
                states, weight, None, targets, 1.0, 32768, None, 1.0, ("log_probs", "entropy", "is_top1")
            )
            found[0].sum().backward()
    return live.peak


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("n_tokens", [8, 300])
def test_the_formula_of_the_loss_is_what_trl_allocates(dtype, n_tokens, tiny_model):
    import torch

    meta = meta_model.build(config(tiny_model, f"base_model.dtype={dtype}"), for_training=True)
    vocabulary, hidden = meta.causal_lm.get_output_embeddings().weight.shape
    measured = allocated_by_the_loss(n_tokens, vocabulary, hidden, getattr(torch, dtype))
    assert memory_formulas.loss_bytes(meta, n_tokens) == pytest.approx(measured, rel=0.15)


def test_the_step_on_the_meta_device_keeps_what_a_real_step_keeps(tiny_model):
    """The same model with values: the bytes that autograd saves are those that were foreseen."""
    import torch

    from tasklib.model import adapters

    for settings in (["base_model.dtype=float32"], ["base_model.dtype=bfloat16"]):
        found = config(tiny_model, *settings)
        foreseen = meta_model.train_step(
            meta_model.build(found, for_training=True), (4, 48), checkpointing=None, accumulated=False
        )
        model = adapters.attach(models.load_base(found), found).train()
        own = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
        saved = {}

        def keep(tensor: Any, own: set = own, saved: dict = saved) -> Any:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                saved[storage._cdata] = storage
            return tensor

        mask = torch.ones(4, 48, dtype=torch.long)
        mask[1, 40:] = 0
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            body = model.get_base_model().model
            output = body(input_ids=torch.zeros_like(mask), attention_mask=mask, use_cache=False)
        assert output.last_hidden_state.requires_grad
        assert foreseen.kept_bytes == pytest.approx(sum(s.nbytes() for s in saved.values()), rel=0.03)


def test_packed_rows_of_a_batch_stand_in_one(tiny_model):
    found = config(tiny_model, "training.per_device_train_batch_size=3", "training.packing=true")
    assert training(found, [60, 50, 64, 10], [5] * 4).batch == (1, 174)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_every_architecture_is_traced_and_nothing_is_assumed(name, device, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "device", lambda: device)
    config_of(name, dtype="bfloat16").save_pretrained(tmp_path)
    estimates = {}
    for settings in ([], ["training.activation_checkpointing=true"]):
        estimates[len(settings)] = training(config(tmp_path, *settings))
    answered = memory.estimate_evaluation(config(tmp_path), SCORE, LENGTHS, [3, 4])
    assert estimates[0].notes == estimates[1].notes == answered.notes == ()
    assert estimates[1].activations_bytes < estimates[0].activations_bytes
    assert answered.cache_bytes > 0
    if name in MIXTURES:
        experts = training(config(tmp_path, "adapter.train_experts=true"))
        assert experts.notes == () and experts.adapter_bytes > estimates[0].adapter_bytes


def test_a_model_that_cannot_be_traced_is_estimated_by_rule_and_says_so(tiny_model, monkeypatch):
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("data dependent\nsecond line")

    traced = training(config(tiny_model))
    answered = memory.estimate_evaluation(config(tiny_model), SCORE, [64], [3])
    monkeypatch.setattr(meta_model, "_body", fail)
    memory._step.cache_clear()
    ruled = training(config(tiny_model))
    assert ruled.weights_bytes == traced.weights_bytes
    assert 0.2 < ruled.activations_bytes / traced.activations_bytes < 5
    assert any("factor of two" in note and "data dependent" in note for note in ruled.notes)
    by_rule = memory.estimate_evaluation(config(tiny_model), SCORE, [64], [3])
    assert by_rule.cache_bytes >= answered.cache_bytes and by_rule.notes


def test_a_model_that_cannot_be_had_is_exit_4(tmp_path):
    with pytest.raises(TaskError) as caught:
        training(config(tmp_path))
    assert (caught.value.exit_code, caught.value.problems[0].code) == (4, "model_unavailable")


def test_no_weight_is_read_and_nothing_is_loaded(tiny_model, tmp_path, monkeypatch):
    from transformers import PreTrainedModel

    folder = tmp_path / "config-only"
    folder.mkdir()
    (folder / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", None)
    assert training(config(folder)).weights_bytes == training(config(tiny_model)).weights_bytes
    meta = meta_model.build(config(folder), for_training=True)
    assert {p.device.type for p in meta.model.parameters()} == {"meta"}


def test_an_8b_model_takes_seconds_of_cpu_time(tmp_path, on_gpu):
    large = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", "vocab_size": 128256,
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "tie_word_embeddings": False,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(large))
    training(config(tmp_path, "training.per_device_train_batch_size=1"), [8], [1])  # imports
    memory._build.cache_clear()
    started = time.process_time()
    estimate = training(config(tmp_path), [512] * 8, [8] * 8)
    assert time.process_time() - started < 10
    assert estimate.weights_bytes == pytest.approx(2 * 8_030_261_248, rel=1e-6)
    assert 24e9 < estimate.total_bytes < 80e9
    packed = training(config(tmp_path, "training.activation_checkpointing=true", type="qlora"), [512] * 8, [8] * 8)
    assert packed.weights_bytes < 12e9  # linear layers in 4 bit, embedding and head in fp32
    assert packed.total_bytes < 24e9


def test_sdpa_keeps_no_scores_but_a_mask_for_each_layer(on_gpu, tiny_model):
    short, long = (training(config(tiny_model), [n] * 8, [5] * 8).activations_bytes for n in (256, 1024))
    assert long < 8 * short  # linear but for the mask of (tokens, tokens)
    flash = config(tiny_model, "base_model.attn_implementation=flash_attention_2")
    assert training(flash, [1024] * 8, [5] * 8).activations_bytes < long


# What fits.


@pytest.mark.parametrize("share", [0.95, 0.7, 0.5, 0.3])
def test_settings_that_are_named_fit_when_they_are_applied(share, tiny_model, on_gpu):
    lengths, n_trained = [400] * 16, [5] * 16
    own = "training.per_device_train_batch_size=16"
    found = config(tiny_model, own)
    needed = training(found, lengths, n_trained)
    fixed = needed.total_bytes - needed.activations_bytes
    free = fixed + int(share * needed.activations_bytes)
    settings = memory.settings_that_fit(found, lengths, n_trained, free)
    assert settings
    applied = config(tiny_model, own, *settings)
    assert training(applied, lengths, n_trained).total_bytes <= free
    steps = applied.training.trl_fields.get("gradient_accumulation_steps", 1)
    assert applied.training.per_device_train_batch_size * steps == 16
    assert applied.training.max_length == found.training.max_length


def test_the_least_harmful_setting_is_named_first(tiny_model, on_gpu):
    lengths, n_trained = [400] * 16, [5] * 16
    found = config(tiny_model, "training.per_device_train_batch_size=16")
    needed = training(found, lengths, n_trained).total_bytes
    assert memory.settings_that_fit(found, lengths, n_trained, needed) == []
    assert memory.settings_that_fit(found, lengths, n_trained, needed - 1) == [
        "training.per_device_train_batch_size=8", "training.gradient_accumulation_steps=2"
    ]  # fmt: skip
    one = config(tiny_model, "training.per_device_train_batch_size=1")
    needed = training(one, lengths, n_trained).total_bytes
    assert memory.settings_that_fit(one, lengths, n_trained, needed - 1) == ["training.activation_checkpointing=true"]


def test_qlora_is_named_last_and_only_where_something_can_be_packed(tiny_moe, tmp_path, on_gpu):
    wide = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", "vocab_size": 512,
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 4, "num_attention_heads": 16,
        "num_key_value_heads": 4, "tie_word_embeddings": True,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(wide))
    least = ("training.per_device_train_batch_size=1", "training.activation_checkpointing=true")
    found = config(tmp_path, *least)
    free = training(found, [16], [2]).total_bytes - 100_000_000
    assert memory.settings_that_fit(found, [16], [2], free) == ["adapter.type=qlora"]
    for never in (config(tmp_path, *least, type="full"), config(tmp_path, *least, type="qlora"), config(tiny_moe)):
        assert memory.settings_that_fit(never, [16], [2], 0) == []
        assert len(memory._adapters(never)) == 1


def test_what_does_not_fit_is_refused_with_numbers_and_literal_flags(tiny_model, on_gpu):
    found = config(tiny_model, "training.per_device_train_batch_size=16")
    lengths, n_trained = [400] * 16, [5] * 16
    needed = memory.require_fit(found, lengths, n_trained, PLENTY)
    with pytest.raises(TaskError) as caught:
        memory.require_fit(found, lengths, n_trained, needed.total_bytes - 1)
    (problem,) = caught.value.problems
    assert (caught.value.exit_code, problem.code) == (4, "does_not_fit")
    assert f"{needed.total_bytes / 1e9:.2f} GB" in problem.message and "16 rows of 400 tokens" in problem.message
    assert problem.hint.startswith(
        "--set training.per_device_train_batch_size=8 --set training.gradient_accumulation_steps=2"
    )


def test_when_nothing_fits_the_smallest_need_is_said(tiny_model):
    with pytest.raises(TaskError) as caught:
        memory.require_fit(config(tiny_model), LENGTHS, N_TRAINED, 1000)
    hint = caught.value.problems[0].hint
    assert "no setting fits" in hint and "64 tokens" in hint and "--set" not in hint
    assert 0.5 < float(hint.partition("needs ")[2].partition(" GB")[0]) < 10


# Answering.


def test_answering_needs_no_gradients_and_more_for_more_rows_longer_prompts_and_more_labels(tiny_model):
    def answering(*settings: str, decoding=SCORE, lengths=(40, 64), answers=(4, 4)) -> memory.Estimate:
        return memory.estimate_evaluation(config(tiny_model, *settings), decoding, lengths * 20, answers)

    two, eight = answering("generation.batch_size=2"), answering("generation.batch_size=8")
    assert two.gradients_bytes == two.optimizer_bytes == 0
    assert eight.batch == (8, 64)
    assert eight.cache_bytes == 4 * two.cache_bytes
    assert answering(lengths=(40, 128)).cache_bytes > answering().cache_bytes
    assert answering(answers=(4,) * 50).logits_bytes > answering().logits_bytes
    written, more = (answering(f"generation.max_new_tokens={n}", decoding=GENERATE).cache_bytes for n in (16, 1024))
    assert more > 5 * written


def test_the_cache_that_is_counted_is_the_real_one(tiny_model):
    import torch

    found = config(tiny_model, "generation.batch_size=4")
    meta = meta_model.build(found, for_training=False)
    model = models.load_base(found).eval()
    with torch.inference_mode():
        cache = model(input_ids=torch.zeros(4, 48, dtype=torch.long), use_cache=True).past_key_values
    real = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    assert meta_model.prompt_pass(meta, (4, 48)).cache_bytes == real


def test_a_quantized_model_that_only_answers_is_not_widened(tiny_moe):
    found = config(tiny_moe, type="qlora")
    loaded, trained = (meta_model.build(found, for_training=t).weights_bytes for t in (False, True))
    assert loaded <= trained


def test_answering_that_does_not_fit_names_a_batch_size_that_does(tiny_model, on_gpu):
    found, lengths, answers = config(tiny_model, "generation.batch_size=32"), [500] * 40, [3, 4]
    needed = memory.require_evaluation_fit(found, SCORE, lengths, answers, PLENTY)
    free = needed.total_bytes - (needed.cache_bytes + needed.activations_bytes) // 2
    with pytest.raises(TaskError) as caught:
        memory.require_evaluation_fit(found, SCORE, lengths, answers, free)
    (problem,) = caught.value.problems
    assert (caught.value.exit_code, problem.code) == (4, "does_not_fit")
    setting = problem.hint.removeprefix("--set ").split()[0]
    applied = memory.estimate_evaluation(config(tiny_model, setting), SCORE, lengths, answers)
    assert applied.total_bytes <= free
    with pytest.raises(TaskError) as caught:
        memory.require_evaluation_fit(found, SCORE, lengths, answers, 1000)
    assert "one row at a time" in caught.value.problems[0].hint


# What is free.


def machine(root: Path, cgroup: str, files: dict[str, str], rss_kb: int = 0) -> Path:
    """A /proc and /sys with 64 GB available."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text("MemTotal: 99000000 kB\nMemFree: 1 kB\nMemAvailable:   62500000 kB\n")
    (root / "proc" / "self" / "status").write_text(f"Name: x\nVmRSS: 999 kB\nRssAnon:\t{rss_kb} kB\n")
    (root / "proc" / "self" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V1 = "7:cpu,cpuacct:/docker/abc\n6:memory:/docker/abc\n0::/\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "free"),
    [
        ("0::/\n", {}, 64_000_000_000),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "5\n"}, 64_000_000_000),
        ("0::/\n", {"memory.max": "8000\n", "memory.current": "3000\n"}, 5000),
        ("0::/\n", {"memory.max": "8000", "memory.current": "7000", "memory.stat": "anon 1\ninactive_file 2500"}, 3500),
        ("0::/\n", {"memory.max": "8000", "memory.current": "9000"}, 0),
        ("0::/a/b\n", {"a/memory.max": "8000", "a/memory.current": "1000", "a/b/memory.max": "max"}, 7000),
        ("0::/a/b\n", {"a/b/memory.max": "900", "a/b/memory.current": "100", "a/memory.max": "5000",
                       "a/memory.current": "4500"}, 500),
        (V1, {"memory/docker/abc/memory.limit_in_bytes": "8000", "memory/docker/abc/memory.usage_in_bytes": "3000",
              "memory/docker/abc/memory.stat": "total_inactive_file 1000\n"}, 6000),
        (V1, {"memory/memory.limit_in_bytes": "8000", "memory/memory.usage_in_bytes": "3000"}, 5000),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "1"},
         64_000_000_000),
    ],
)  # fmt: skip
def test_free_memory_is_what_is_available_but_no_more_than_the_cgroup_leaves(cgroup, files, free, tmp_path):
    assert memory.free_bytes("cpu", machine(tmp_path, cgroup, files)) == free


def test_what_the_process_holds_already_counts_as_free_to_it(tmp_path):
    files = {"memory.max": "8000000", "memory.current": "3000000"}
    root = machine(tmp_path, "0::/\n", files, rss_kb=1000)
    assert memory.free_bytes("cpu", root) == 5_000_000 + 1_024_000


def test_this_machine_has_a_free_memory():
    assert 10**8 < memory.free_bytes() < 10**14
    assert 10**7 < free_memory.resident_bytes() < 10**12


def test_lines_name_every_part_and_add_up(tiny_model):
    estimate = replace(training(config(tiny_model)), notes=("something was assumed",))
    text = "\n".join(estimate.lines())
    for part in ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "overhead"):
        assert part in text
    assert f"{estimate.total_bytes / 1e9:.2f} GB" in text and "note: something was assumed" in text
    assert sum(estimate.parts().values()) == estimate.total_bytes


# Against a measured peak.

MEASURE = """
import json, resource, sys
from tasklib import schema
from tasklib.model import decoding
from tasklib.model import adapters, memory, models
from tasklib.training import task_trainer
from tasklib.documents import Document
import torch, trl
from trl.trainer.utils import add_fused_lm_head
what, rows, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data = {"schema_version": 1, "base_model": {"id": "builtin:smollm2-135m"}, "adapter": {"type": "lora"}}
config = schema.check_config(Document("x", data, {}), [f"training.per_device_train_batch_size={rows}",
                                                       f"generation.batch_size={rows}"])
if what == "train":
    estimate = memory.estimate_training(config, [width] * rows, [7] * rows)
    model = adapters.attach(models.load_base(config), config).train()
    add_fused_lm_head(model.get_base_model(), outputs=("log_probs", "entropy", "is_top1"))
    task_trainer.score_only_labelled_positions()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    ids = torch.randint(5, 4000, (rows, width))
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, :-7], mask[-1, -3:] = -100, 0
    for step in range(2):
        model(input_ids=ids, labels=labels, attention_mask=mask, fused_lm_head=True).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
else:
    tokenizer = models.load_tokenizer(config.base_model)
    answers = ["利多<|im_end|>\\n", "利空<|im_end|>\\n"]
    prompts = [("公司的股價 " * width)[: width // 2] + str(n) for n in range(rows)]
    lengths = [len(tokenizer(text)["input_ids"]) for text in prompts]
    of_answers = [len(tokenizer(answer)["input_ids"]) for answer in answers]
    estimate = memory.estimate_evaluation(config, "score", lengths, of_answers)
    model = adapters.attach(models.load_base(config), config).eval()
    list(decoding.score_labels(model, tokenizer, prompts, answers, rows))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"estimated": estimate.total_bytes, "measured": peak}))
"""


@pytest.mark.parametrize(("what", "rows", "width"), [("train", 8, 96), ("score", 16, 128)])
def test_the_estimate_is_within_a_quarter_of_the_peak_of_a_real_process(what, rows, width, bundle):
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, what, str(rows), str(width)],
        capture_output=True, text=True, timeout=300, check=False,
        env=environment(PYTHONPATH=str(bundle / "scripts" / "task")),
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-2000:]
    found = json.loads(process.stdout.splitlines()[-1])
    assert 0.75 < found["estimated"] / found["measured"] < 1.35, found


def test_a_base_that_is_stored_quantized_is_not_packed_again(tiny_model, tmp_path):
    stored = json.loads((tiny_model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(stored | {"quantization_config": {"quant_method": "mxfp4"}}))
    with pytest.raises(TaskError) as caught:
        training(config(tmp_path, type="qlora"))
    (problem,) = caught.value.problems
    assert (caught.value.exit_code, problem.code, problem.field) == (2, "already_quantized", "adapter.type")
    assert "mxfp4" in problem.message and "adapter.type lora" in problem.hint
