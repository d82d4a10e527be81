"""The model of a run on torch's meta device: every parameter with its shape and dtype, none with storage; and what a
step or a prompt would allocate, found by running it there."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.model import adapters, live_bytes, models
from tasklib.schema import BaseModelSpec, RunConfig
from tasklib.summary import Problem, TaskError

NF4_BLOCK = 64  # weights that share a scale: bitsandbytes' default, Dettmers et al. 2023, section 3
NF4_SCALE_BLOCK = 256  # scales that share a scale of their own, in double quantisation
CASTS_ADAPTERS = ("sft", "dpo")  # methods whose trainer turns the adapters of a quantized model to bf16


@dataclass(frozen=True, eq=False)  # one model is no other, whatever they look like
class MetaModel:
    """`model` is a PeftModel or, after full training, the model itself. Bytes are those of the real dtypes; `notes` say
    what had to be assumed."""

    model: Any
    weights_bytes: int
    adapter_bytes: int
    trained: tuple[Any, ...]
    notes: tuple[str, ...]

    @property
    def causal_lm(self) -> Any:
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    @property
    def gradients_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.trained)


@dataclass(frozen=True)
class StepPeak:
    """Bytes that a training step holds beside weights, adapter and optimizer: what the forward pass keeps for the
    backward pass (gradients of an earlier batch not counted), and the most that lives at once, gradients included.
    `heap_bytes` is the sum of all that the forward pass asks of malloc's heap, freed or not."""

    kept_bytes: int
    peak_bytes: int
    heap_bytes: int


@dataclass(frozen=True)
class PassPeak:
    """Bytes that a pass without gradients leaves in its cache, the most that lives at once, the cache included, and
    the sum of all that it asks of malloc's heap."""

    cache_bytes: int
    peak_bytes: int
    heap_bytes: int


def build(config: RunConfig, *, for_training: bool) -> MetaModel:
    """The base model with the adapters of the config on it, from its config.json alone: no weight is read.

    `for_training` false: as it is loaded to answer (a quantized base is then not prepared for training). Raises
    TaskError (exit 4) when the config cannot be had, and what `adapters.attach` raises.
    """
    base, notes = _base(config)
    packed = {id(layer.weight) for layer in _quantize(base, config)} if config.adapter.is_quantized else set()
    dtypes = {id(p): p.dtype for p in base.parameters()}
    model = base if config.adapter.type == "full" else _attached(base, config)
    everything = list(model.parameters())
    if not for_training:  # only training widens what is not quantized to fp32
        for parameter in everything:
            parameter.data = parameter.data.to(dtypes.get(id(parameter), parameter.dtype))
    elif config.adapter.is_quantized and config.method in CASTS_ADAPTERS:
        _cast_adapters(model)
    weights = sum(nf4_bytes(p.numel()) if id(p) in packed else _bytes(p) for p in everything if id(p) in dtypes)
    return MetaModel(
        model=model,
        weights_bytes=weights + sum(_bytes(buffer) for buffer in model.buffers()),
        adapter_bytes=sum(_bytes(p) for p in everything if id(p) not in dtypes),
        trained=tuple(p for p in everything if p.requires_grad),
        notes=tuple(notes),
    )


def _cast_adapters(model: Any) -> None:
    """What TRL's trainers do to the adapters of a quantized model: bf16, but not DoRA's magnitudes (trl 1.16,
    trainer/sft_trainer.py; ORPOTrainer does not)."""
    import torch

    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "lora_magnitude_vector" not in name:
            parameter.data = parameter.data.to(torch.bfloat16)


def _attached(base: Any, config: RunConfig) -> Any:
    """The adapters of the config, without what starts them from the values of a weight (PiSSA, OLoRA, …)."""
    spec = config.adapter
    with live_bytes.quietly():
        if isinstance(spec.peft_fields.get("init_lora_weights"), str):
            adapters.place(base, spec)  # for its refusals
            spec = type(spec)(**{**spec.model_dump(), "init_lora_weights": True})
        return adapters.attach(base, config.model_copy(update={"adapter": spec}))


def nf4_bytes(n_weights: int) -> int:
    """Bytes of one linear layer's weight in nf4 with double quantisation, as bitsandbytes stores it.

    Two weights a byte; one 8-bit scale for 64 weights; one 32-bit scale for 256 of those; an offset and the two code
    tables of 16 and 256 floats: 4.127 bits a weight, as in Dettmers et al. 2023, section 3.
    """
    n_scales = -(-n_weights // NF4_BLOCK)
    return -(-n_weights // 2) + n_scales + 4 * -(-n_scales // NF4_SCALE_BLOCK) + 4 * (1 + 16 + 256)


def train_step(
    meta: MetaModel, shape: tuple[int, int], *, checkpointing: dict[str, Any] | None, accumulated: bool
) -> StepPeak:
    """Forward and backward pass of the model's body over one padded batch of `shape` (rows, tokens).

    The head is left out: TRL's loss runs it by itself, over labelled positions (`memory.loss_bytes`); only the gradient
    of a head that is trained is held here. checkpointing: `activation_checkpointing_kwargs`, None keeps all
    activations. accumulated: the gradients of an earlier batch are held too.
    """
    import torch

    with live_bytes.quietly(), _checkpointed(meta.causal_lm, checkpointing), live_bytes.counted(meta.model) as live:
        for parameter in meta.trained:
            parameter.grad = torch.empty_like(parameter) if accumulated else None
        before, earlier = live.bytes, live.heap
        hidden = _body(meta.causal_lm.train(), shape, use_cache=False).last_hidden_state
        kept, heap = live.bytes - before, live.heap - earlier
        head = meta.causal_lm.get_output_embeddings()
        held = torch.empty_like(head.weight) if head is not None and head.weight.requires_grad else None
        hidden.backward(torch.empty_like(hidden))
        del held, hidden
        for parameter in meta.trained:
            parameter.grad = None
    return StepPeak(kept, live.peak, heap)


def group_bytes(meta: MetaModel) -> tuple[int, int]:
    """Bytes of the largest layer that FSDP gathers as one group, and of embedding and head together. Layers are those
    that transformers keeps whole (`_no_split_modules`); a model that names none is one group."""
    names = set(getattr(meta.causal_lm, "_no_split_modules", None) or ())
    layers = [module for module in meta.model.modules() if type(module).__name__ in names]
    head = (meta.causal_lm.get_input_embeddings(), meta.causal_lm.get_output_embeddings())
    ends = {id(p): _bytes(p) for module in head if module is not None for p in module.parameters()}
    sizes = [sum(_bytes(p) for p in layer.parameters()) for layer in layers]
    return max(sizes, default=sum(_bytes(p) for p in meta.model.parameters())), sum(ends.values())


def prompt_pass(meta: MetaModel, shape: tuple[int, int]) -> PassPeak:
    """One pass over prompts of `shape` (rows, tokens) without gradients."""
    import torch

    with live_bytes.counted(meta.model) as live, torch.no_grad():
        output = _body(meta.causal_lm.eval(), shape, use_cache=True)
        tensors = [t for layer in output.past_key_values.layers for t in vars(layer).values()]
        cache = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors if torch.is_tensor(t)}
    return PassPeak(sum(cache.values()), live.peak, live.heap)


def _body(model: Any, shape: tuple[int, int], *, use_cache: bool) -> Any:
    import torch

    ids = torch.zeros(shape, dtype=torch.long, device="meta")
    mask = None if model._unpads else torch.ones_like(ids)
    body = (
        model.base_model if model.base_model is not model else model.get_decoder()
    )  # Llama 4 has no prefix of its own
    return body(input_ids=ids, attention_mask=mask, use_cache=use_cache)


def _base(config: RunConfig) -> tuple[Any, list[str]]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    models.quiet_libraries()
    spec, full_training = config.base_model, config.adapter.type == "full"
    attention = models.attention(spec)
    with models.explained(spec):
        hub = {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
        found = AutoConfig.from_pretrained(models.location(spec), **hub)
        dtype, notes = _dtype(spec, found, full_training=full_training)
        if method := (getattr(found, "quantization_config", None) or {}).get("quant_method"):
            if config.adapter.is_quantized:
                raise TaskError(ExitCode.USAGE, [_quantized_already(config, method)])
            notes.append(f"the base model is stored in {method}: counted as {str(dtype).removeprefix('torch.')}")
            del found.quantization_config
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                found,
                dtype=dtype,
                attn_implementation="sdpa" if attention.startswith("flash") else attention,
                trust_remote_code=spec.trust_remote_code,
            )
    model._unpads = attention.startswith("flash")
    return model, notes


def _quantized_already(config: RunConfig, method: str) -> Problem:
    kind = config.adapter.type
    message = (
        f"adapter.type {kind} packs a 16-bit base model in 4 bit, and {config.base_model.id} is stored in {method}"
    )
    hint = f"take adapter.type {kind.removeprefix('q')}, or the base model's 16-bit repository"
    return Problem(code="already_quantized", message=message, field="adapter.type", hint=hint)


def _dtype(spec: BaseModelSpec, found: Any, *, full_training: bool) -> tuple[Any, list[str]]:
    """The dtype that `models.load_base` loads: the spec's; float32 for full training; else the config's or, without
    one, that of the first weights in a local folder's safetensors file (transformers' `_get_dtype`)."""
    import torch

    if spec.dtype != "auto":
        return getattr(torch, spec.dtype), []
    if full_training:
        return torch.float32, []
    named = getattr(found, "dtype", None) or getattr(found.get_text_config(), "dtype", None)
    if named is not None:
        return getattr(torch, named) if isinstance(named, str) else named, []
    stored = _stored_dtype(Path(models.location(spec)))
    if stored is not None:
        return stored, []
    return torch.float32, ["the model's config names no dtype: float32 is assumed; set base_model.dtype to be sure"]


def _stored_dtype(folder: Path) -> Any:
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                dtype = file.get_slice(name).get_dtype()
                if dtype in ("F64", "F32", "F16", "BF16"):
                    return _torch_dtype(dtype)
    return None


def _torch_dtype(name: str) -> Any:
    import torch

    return {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[name]


def _quantize(model: Any, config: RunConfig) -> list[Any]:
    """Linear layers that `load_base` would load in nf4, made to behave as bitsandbytes' Linear4bit does: they compute
    in the compute dtype, and dequantize their weight for each pass. Returns them.

    Which ones: transformers' own rule, all `nn.Linear` but tied weights and the head. Fused experts are parameters.
    """
    import torch
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    spec = config.base_model
    compute_dtype = torch.bfloat16 if spec.dtype == "auto" else getattr(torch, spec.dtype)
    left = get_keys_to_not_convert(model) + list(model._keep_in_fp32_modules or [])
    layers = [
        module
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear and should_convert_module(name, left)
    ]
    multiply = _multiply_4bit()
    for layer in layers:
        layer.requires_grad_(False)
        layer.forward = types.MethodType(
            lambda self, x: multiply.apply(x.to(compute_dtype), self.weight, self.bias).to(x.dtype), layer
        )
    model.is_loaded_in_4bit = True
    return layers


def _bytes(tensor: Any) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def _checkpointed(model: Any, kwargs: dict[str, Any] | None) -> Iterator[None]:
    """What the Trainer does with `activation_checkpointing_kwargs`; offloading keeps memory elsewhere: not modelled."""
    if kwargs is None:
        yield
        return
    rest = {key: value for key, value in kwargs.items() if key not in ("every_n_layers", "offload", "selective")}
    model.activation_checkpointing_enable(rest or None, every_n_layers=kwargs.get("every_n_layers", 1))
    try:
        yield
    finally:
        model.activation_checkpointing_disable()
        model.disable_input_require_grads()


@functools.cache
def _multiply_4bit() -> Any:
    """What bitsandbytes' MatMul4Bit allocates: it saves nothing of its input, and dequantizes the weight both ways."""
    import torch

    class Multiply(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, bias: Any) -> Any:
            ctx.weight = weight
            return torch.nn.functional.linear(x, torch.empty_like(weight, dtype=x.dtype), bias)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return gradient @ torch.empty_like(ctx.weight, dtype=gradient.dtype), None, None

    return Multiply
