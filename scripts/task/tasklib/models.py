"""Loading base models, tokenizers and trained runs the same way in training, evaluation and prediction."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from tasklib import builtin
from tasklib.exit_codes import ExitCode
from tasklib.schema import BaseModelSpec, RunConfig
from tasklib.summary import Problem, TaskError


def quiet_libraries() -> None:
    """No telemetry, no advertising lines; warnings of the libraries still reach stderr."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    logging.getLogger("torchao").setLevel(logging.ERROR)


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
    with _explained(spec):
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
    quantization = None
    if config.adapter.is_quantized:
        compute_dtype = torch.bfloat16 if dtype == "auto" else dtype
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype,
        )
    with _explained(spec):
        return AutoModelForCausalLM.from_pretrained(
            location(spec),
            revision=spec.revision,
            dtype=dtype,
            attn_implementation=attention(spec),
            trust_remote_code=spec.trust_remote_code,
            use_safetensors=True,
            quantization_config=quantization,
            device_map={"": device()},
        )


def load_trained(config: RunConfig, run_folder: Path) -> Any:
    """A finished run's model, ready to answer: the base with the adapter on it, or the fully trained model."""
    import torch
    from transformers import AutoModelForCausalLM

    quiet_libraries()
    if config.adapter.type == "full":
        dtype = "auto" if config.base_model.dtype == "auto" else getattr(torch, config.base_model.dtype)
        model = AutoModelForCausalLM.from_pretrained(
            run_folder / "model",
            dtype=dtype,
            attn_implementation=attention(config.base_model),
            use_safetensors=True,
            device_map={"": device()},
        )
    else:
        from peft import PeftModel  # seconds to import, and not needed for a fully trained model

        model = PeftModel.from_pretrained(
            load_base(config), run_folder / "adapter", autocast_adapter_dtype=config.adapter.autocast_adapter_dtype
        )
    return model.eval()


def device() -> str:
    """The device that a single process uses."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def attention(spec: BaseModelSpec) -> str:
    """`auto`: sdpa on a GPU; eager on CPU, where it is the faster of the two on short rows."""
    if spec.attn_implementation != "auto":
        return spec.attn_implementation
    return "eager" if device() == "cpu" else "sdpa"


class _explained:
    """Turns the loaders' many exceptions into one problem with a next step."""

    def __init__(self, spec: BaseModelSpec) -> None:
        self.spec = spec

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError | ValueError | ImportError) and not isinstance(error, TaskError):
            problem = Problem(
                code="model_unavailable",
                message=f"{self.spec.id} could not be loaded: {str(error).strip().splitlines()[0]}",
                field="base_model.id",
                hint="check the id, the network and `hf auth login`; offline: builtin:smollm2-135m or a local path",
            )
            raise TaskError(ExitCode.PREREQUISITE, [problem]) from error
