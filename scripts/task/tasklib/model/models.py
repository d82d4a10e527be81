"""Loading base models, tokenizers and trained runs the same way in training, evaluation and prediction."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.model import builtin
from tasklib.schema import BaseModelSpec, RunConfig
from tasklib.summary import Problem, TaskError


def quiet_libraries() -> None:
    """No telemetry, no advertising lines; warnings of the libraries that a user can act on still reach stderr."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # ORPO is experimental in TRL; README says so
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    logging.getLogger("torchao").setLevel(logging.ERROR)
    # PEFT 0.21 asks transformers 5.23 by the older name (peft_model.py); nothing a user could change.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


def location(spec: BaseModelSpec) -> str:
    """What `from_pretrained` gets: a folder for builtin models and local paths, otherwise the Hub id."""
    if builtin.is_builtin(spec.id):
        return str(builtin.folder(spec.id))
    path = Path(spec.id).expanduser()
    return str(path) if path.is_dir() else spec.id


def hub_name(spec: BaseModelSpec) -> str:
    """The name by which cards call the base model."""
    return builtin.describe(spec.id).origin if builtin.is_builtin(spec.id) else spec.id


def load_tokenizer(spec: BaseModelSpec) -> Any:
    """The base model's tokenizer. Raises TaskError (exit 4) when it cannot be had."""
    from transformers import AutoTokenizer

    quiet_libraries()
    with explained(spec):
        tokenizer = AutoTokenizer.from_pretrained(
            location(spec), revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(config: RunConfig) -> Any:
    """The base model on the device that is there, quantized to nf4 for qlora and qdora; safetensors only.

    nf4 with double quantisation is QLoRA's own recipe (Dettmers et al. 2023). Raises TaskError (exit 4).
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quiet_libraries()
    spec = config.base_model
    dtype = "auto" if spec.dtype == "auto" else getattr(torch, spec.dtype)
    if dtype == "auto" and config.adapter.type == "full":
        dtype = torch.float32  # AdamW's small steps vanish in bf16 weights that are trained themselves
    quantization = {}  # a base that is stored in 4 bit says so itself
    if config.adapter.is_quantized:
        compute_dtype = torch.bfloat16 if dtype == "auto" else dtype
        nf4 = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype,
        )
        quantization = {"quantization_config": nf4}
    with explained(spec):
        model = AutoModelForCausalLM.from_pretrained(
            location(spec),
            revision=spec.revision,
            dtype=dtype,
            attn_implementation=attention(spec),
            trust_remote_code=spec.trust_remote_code,
            use_safetensors=True,
            **quantization,
            device_map=_device_map(),
        )
    _keep_4bit_layout(model)
    return model


def _keep_4bit_layout(model: Any) -> None:
    """Keeps 4-bit weights as they were quantized.

    bitsandbytes 0.50 packs them anew in the first forward pass without gradients, on CPUs with AVX512-BF16. The packed
    ones let no gradient through (a training goes astray after an evaluation), and PEFT reads them as if they were
    not packed (the norms of QDoRA are wrong). Seen here; the same cause as
    https://github.com/bitsandbytes-foundation/bitsandbytes/issues/2078.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def load_trained(config: RunConfig, run_folder: Path, *, merged: bool = True) -> Any:
    """A finished run's model, ready to answer: the base with the adapter in it, or the fully trained model.

    The adapter is merged where that is the same model: 1.3 to 1.9 times as fast on CPU, and in bf16 its probabilities
    are as near to those of float32 as without. `merged=False` gives the very numbers of training. Raises TaskError
    (exit 4) when the files do not hold all that the model needs, and nothing else.
    """
    quiet_libraries()
    if config.adapter.type == "full":
        return fully_trained(config, run_folder / "model").eval()
    model = with_adapter(load_base(config), config, run_folder / "adapter")
    if merged and _obstacle_to_merging(model) is None:
        model = merge(model)
    return model.eval()


def fully_trained(config: RunConfig, folder: Path) -> Any:
    """The model in `folder`; transformers only warns of weights that are not there, and draws them at random."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype="auto" if config.base_model.dtype == "auto" else getattr(torch, config.base_model.dtype),
            attn_implementation=attention(config.base_model),
            use_safetensors=True,
            device_map=_device_map(),
            output_loading_info=True,
        )
    except (RuntimeError, ValueError, OSError, SafetensorError) as error:
        raise _incomplete(folder, [str(error)]) from error
    reasons = [f"{key} is missing" for key in sorted(found["missing_keys"])]
    reasons += [f"{key} is not in the model" for key in sorted(found["unexpected_keys"])]
    if reasons:
        raise _incomplete(folder, reasons)
    return model


def with_adapter(base: Any, config: RunConfig, folder: Path, *, is_trainable: bool = False) -> Any:
    """`base` with the adapter of `folder`, every tensor of which has found its place; PEFT only warns."""
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # an error, below
            options = {"autocast_adapter_dtype": config.adapter.autocast_adapter_dtype, "is_trainable": is_trainable}
            model = PeftModel.from_pretrained(base, folder, **options)
            loaded = model.load_adapter(folder, "default", **options)
    except (RuntimeError, KeyError, ValueError, OSError, SafetensorError) as error:  # other shapes; files gone or cut
        raise _incomplete(folder, [str(error)]) from error
    reasons = [f"{key} is missing" for key in loaded.missing_keys]
    reasons += [f"{key} is not in the model" for key in loaded.unexpected_keys]
    reasons += [
        f"{name} holds values that are not finite"
        for name, tensor in model.named_parameters()
        if "lora_" in name and not tensor.isfinite().all()
    ]
    if reasons:
        raise _incomplete(folder, reasons)
    return model


def _incomplete(folder: Path, reasons: list[str]) -> TaskError:
    shown = [reason.strip().splitlines()[-1].strip() for reason in reasons]
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    problem = Problem(
        code="weights_do_not_match",
        message=f"what was trained does not fit its model: {'; '.join(shown[:3])}{more}",
        file=str(folder),
        field="base_model",
        hint="restore the folder, or the base model it was trained on (base_model.id and revision), or train again",
    )
    return TaskError(ExitCode.PREREQUISITE, [problem])


def merge(model: Any) -> Any:
    """The base model with the adapter of `model` added into its weights, in memory; `model` is used up.

    Raises TaskError (exit 2) where the result would be another model; PEFT merges then as well, or fails half-way.
    """
    problem = _obstacle_to_merging(model)
    if problem is not None:
        raise TaskError(ExitCode.USAGE, [problem])
    return model.merge_and_unload(safe_merge=True)


def _obstacle_to_merging(model: Any) -> Problem | None:
    """Why the adapter of a PeftModel cannot be merged."""
    base, lora = model.get_base_model(), model.peft_config["default"]
    if getattr(base, "hf_quantizer", None) is not None or any(not p.is_floating_point() for p in base.parameters()):
        return Problem(
            code="merge_into_quantized_base",
            message="the adapter cannot be merged into a quantized base model: its weights would be rounded away",
            field="adapter.type",
            hint="load the base in 16 bit (adapter.type lora or dora), put the adapter on it, then merge",
        )
    if tied := _adapted_tied_weights(base):
        return Problem(
            code="merge_into_tied_weights",
            message=f"the adapter cannot be merged into {', '.join(tied)}: another layer reads the same weights",
            field="adapter.target_modules",
            hint="leave the adapter unmerged, or train without an adapter on the embedding or the head",
        )
    unmergeable = [key for key in ("lora_bias", "alora_invocation_tokens") if getattr(lora, key, None)]
    if unmergeable:
        return Problem(
            code="adapter_not_mergeable",
            message=f"PEFT cannot merge an adapter with {' and '.join(unmergeable)}",
            field=f"adapter.{unmergeable[0]}",
            hint="leave the adapter unmerged",
        )
    return None


def _adapted_tied_weights(base: Any) -> list[str]:
    """Names of adapted layers whose weight is another layer's too: an embedding and its head."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    owners = Counter(id(p) for module in base.modules() for p in module.parameters(recurse=False))
    return [
        name
        for name, module in base.named_modules()
        if isinstance(module, BaseTunerLayer)
        and any(owners[id(p)] > 1 for p in module.get_base_layer().parameters(recurse=False))
    ]


_planned: ContextVar[str | None] = ContextVar("planned", default=None)


@contextlib.contextmanager
def planned_for(kind: str) -> Iterator[None]:
    """While it lasts, estimates are those for another machine's device: "cuda" or "cpu"."""
    token = _planned.set(kind)
    try:
        yield
    finally:
        _planned.reset(token)


def device() -> str:
    """The device that this process uses; of several on one machine each has its own (torchrun's LOCAL_RANK)."""
    if planned := _planned.get():
        return planned
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def _device_map() -> dict[str, str] | None:
    """Where weights are loaded. A model that accelerate will shard (FSDP) need not fit on one device: it stays in main
    memory until then, and transformers reads it in one process alone (`fsdp_cpu_ram_efficient_loading`)."""
    return None if os.environ.get("ACCELERATE_USE_FSDP") == "true" else {"": device()}


def attention(spec: BaseModelSpec) -> str:
    """`auto`: eager on CPU, where it is the faster on short rows; on a GPU sdpa, if the architecture has it."""
    if spec.attn_implementation != "auto":
        return spec.attn_implementation
    return "sdpa" if device() != "cpu" and _has_sdpa(spec) else "eager"


def _has_sdpa(spec: BaseModelSpec) -> bool:
    """What transformers says of the model's class; gpt-oss, for one, has attention sinks and no sdpa."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    with explained(spec):
        config = AutoConfig.from_pretrained(
            location(spec), revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    known = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return known is None or known._supports_sdpa


@contextlib.contextmanager
def explained(spec: BaseModelSpec) -> Iterator[None]:
    """Turns the loaders' many exceptions into one problem with a next step: TaskError (exit 4)."""
    try:
        yield
    except TaskError:
        raise
    except (OSError, ValueError, ImportError) as error:
        problem = Problem(
            code="model_unavailable",
            message=f"{spec.id} could not be loaded: {str(error).strip().splitlines()[0]}",
            field="base_model.id",
            hint="check the id, the network and `hf auth login`; offline: builtin:smollm2-135m or a local path",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem]) from error
