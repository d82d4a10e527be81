"""Which base models a task may start from, best first, out of the catalogs: each with reasons, memory, time, config."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from knowledge import bases, catalogs, tables
from knowledge.catalogs import Model
from tasklib import schema
from tasklib.documents import Document
from tasklib.launching.plan import RESERVE
from tasklib.model import memory, models
from tasklib.schema import RunConfig
from tasklib.summary import TaskError

ADAPTERS = ("lora", "qlora")  # the first that fits is taken: 4 bit costs time and a little quality
PER_FAMILY = 2  # so that the list is no list of one family's sizes
SHARE_OF_PEAK = 0.3  # of a GPU's dense bf16 FLOP/s that training reaches; references/methods/several-gpus.md
NF4_BYTES = 0.53  # of a weight: less than any model needs in 4 bit, to leave out what cannot fit without building it
MIN_ROWS, MIN_STEPS = 200, 60
LANGUAGE = {"trained": 3, "understood": 2, None: 1, "weak": 0}


@dataclass(frozen=True)
class Wish:
    """What is asked for. rows: of the training data; tokens: of its longest row. gpu_bytes: memory of the one GPU."""

    task: str
    language: str
    gpu_bytes: int
    rows: int
    license: str = "any"
    tokens: int = 512
    answer_tokens: int = 16
    tflops: float = 100.0

    @property
    def method(self) -> str:
        return "dpo" if self.task == "preference" else "sft"


@dataclass(frozen=True)
class Choice:
    """One base model, with the config to begin with. Bytes are estimates; `hours` is FLOPs at 30 % of `tflops`."""

    id: str
    reasons: tuple[str, ...]
    cautions: tuple[str, ...]
    parameters: int
    method: str
    adapter: str
    training_bytes: int
    answering_bytes: int
    flops: float
    hours: float
    config: dict[str, Any] = field(repr=False)


def ranked(wish: Wish, top: int) -> tuple[list[Choice], dict[str, str]]:
    """The first `top` that fit, and why each other model of the catalog was left out."""
    left_out: dict[str, str] = {}
    possible = []
    for model in catalogs.load("models/catalog.yaml"):
        if reason := _obstacle(model, wish):
            left_out[model.id] = reason
        else:
            possible.append(model)
    choices: list[Choice] = []
    with models.planned_for("cuda"):
        for model in sorted(possible, key=lambda model: _order(model, wish), reverse=True):
            if len(choices) == top:
                left_out[model.id] = "ranked lower"
            elif sum(_family(choice.id) == model.family for choice in choices) == PER_FAMILY:
                left_out[model.id] = f"two of {model.family} stand there already"
            elif choice := next(_fitting(model, wish), None):
                choices.append(choice)
            else:
                left_out[model.id] = f"does not fit into {wish.gpu_bytes / 1e9:g} GB, not even in 4 bit"
    return choices, left_out


def starting_config(model_id: str, method: str, adapter: str, tokens: int) -> dict[str, Any]:
    """A whole run config out of methods/defaults.yaml: values of the adapter before those of any adapter."""
    found: dict[str, dict[str, Any]] = {"adapter": {"type": adapter}, "training": {}}
    entries = [entry for entry in catalogs.load("methods/defaults.yaml") if entry.method == method]
    for wanted in ("any", adapter):
        for entry in entries:
            if entry.adapter == wanted:
                section, key = entry.key.split(".")
                found[section][key] = entry.value
    found["adapter"]["target_modules"] = (
        "auto"  # this project's own: what `all-linear` has, without experts and routers
    )
    found["training"]["max_length"] = max(128, -(-tokens // 64) * 64)  # at least the longest row
    return {"schema_version": 1, "base_model": {"id": model_id}, "method": method, **found}


def _obstacle(model: Model, wish: Wish) -> str | None:
    """Why a model is no candidate at all."""
    if wish.license == "commercial" and model.commercial not in ("yes", "conditions"):
        return "its licence forbids commercial use" if model.commercial == "no" else "its licence was not verified"
    if model.config is None:
        return "the catalog has no config of it, so its memory is unknown: try estimate_memory.py with its Hub id"
    if wish.language.startswith("zh") and model.traditional_chinese == "weak":
        return "weak in Chinese"
    size = tables.parameters(model)
    if size is None:
        return "the installed transformers has no causal language model for it"
    least = 2 if _has_experts(model) else NF4_BYTES  # experts are not packed
    if size * least > wish.gpu_bytes * (1 - RESERVE):
        return f"its weights alone do not fit into {wish.gpu_bytes / 1e9:g} GB, not even in 4 bit"
    return None


def _order(model: Model, wish: Wish) -> tuple[float, ...]:
    """Larger is better; an earlier number weighs more than all that follow."""
    is_free = model.commercial == "yes" and "commercial" not in model.unverified
    licence = (2 if is_free else 1) if wish.license == "commercial" else 0
    language = LANGUAGE[model.traditional_chinese] if wish.language.startswith("zh") else 0
    answers_at_once = model.thinking != "always"
    trains_whole = model.layers in ("dense", "hybrid") and not _has_experts(model)
    size = tables.parameters(model) or 0
    comfortable = size * 2 <= wish.gpu_bytes * 0.6  # 16-bit weights leave room for what training adds
    newest = int((model.released or "0000-00").replace("-", ""))
    return (answers_at_once, trains_whole, language, comfortable, licence, round(math.log2(size)), newest)


def _fitting(model: Model, wish: Wish) -> Iterator[Choice]:
    """The ways in which a model fits, the least costly first."""
    free = int(wish.gpu_bytes * (1 - RESERVE))
    lengths, labelled = [wish.tokens] * 16, [wish.answer_tokens] * 16
    with bases.located(model.id) as base:
        for adapter in ADAPTERS[:1] if _has_experts(model) else ADAPTERS:  # 4 bit leaves experts as they are
            data = starting_config(base.location, wish.method, adapter, wish.tokens)
            try:
                config = schema.check_config(Document("defaults.yaml", data, {}))
                settings = memory.settings_that_fit(config, lengths, labelled, free)
                fitting = schema.check_config(Document("defaults.yaml", data, {}), settings)
                training = memory.estimate_training(fitting, lengths, labelled)
            except TaskError:
                continue
            if training.total_bytes > free or fitting.adapter.type != adapter:
                continue
            answering = memory.estimate_evaluation(fitting, "generate", lengths)
            yield _choice(model, wish, fitting, settings, training.total_bytes, answering.total_bytes)


def _choice(
    model: Model, wish: Wish, config: RunConfig, settings: Sequence[str], training_bytes: int, answering_bytes: int
) -> Choice:
    size = tables.parameters(model) or 0
    adapter, training = config.adapter.type, config.training
    data = starting_config(model.id, wish.method, adapter, wish.tokens)
    for setting in settings:
        key, value = setting.split("=")
        section, name = key.split(".")
        data[section][name] = {"true": True, "false": False}.get(value) if value in ("true", "false") else int(value)
    active = model.active_parameters or size
    checkpointing = bool(training.trl_fields.get("activation_checkpointing"))
    per_token = (4 + 2 * checkpointing) * active * (3 if wish.method == "dpo" else 1)  # chosen, rejected, reference
    flops = float(per_token * wish.tokens * wish.rows * training.trl_fields["num_train_epochs"])
    return Choice(
        id=model.id,
        reasons=tuple(_reasons(model, wish, adapter, size, training_bytes)),
        cautions=tuple(_cautions(model, wish, config)),
        parameters=size,
        method=wish.method,
        adapter=adapter,
        training_bytes=training_bytes,
        answering_bytes=answering_bytes,
        flops=flops,
        hours=flops / (wish.tflops * 1e12 * SHARE_OF_PEAK) / 3600,
        config=data,
    )


def _reasons(model: Model, wish: Wish, adapter: str, size: int, needed: int) -> Iterator[str]:
    yield f"{size / 1e9:.3g}B parameters train with {adapter} in {needed / 1e9:.1f} of {wish.gpu_bytes / 1e9:g} GB"
    if model.commercial == "yes" and "commercial" not in model.unverified:
        yield f"{model.licence}: commercial use is free"
    if wish.language.startswith("zh") and model.traditional_chinese in ("trained", "understood"):
        yield f"Traditional Chinese: {model.traditional_chinese}"
    if model.thinking in ("never", "switchable"):
        yield "answers at once" if model.thinking == "never" else "thinking can be switched off"
    if model.released:
        yield f"released {model.released}"


def _cautions(model: Model, wish: Wish, config: RunConfig) -> Iterator[str]:
    if model.commercial == "conditions":
        yield f"commercial use has conditions: read {model.licence or 'its licence'}"
    if model.unverified:
        yield f"not read at the source: {', '.join(model.unverified)}"
    if wish.language.startswith("zh") and model.traditional_chinese is None:
        yield "nothing verified about its Traditional Chinese: measure zero_shot first"
    if _has_experts(model):
        yield "a mixture of experts: references/architectures/moe.md"
    if model.is_gated:
        yield "gated: accept its terms on the Hub and log in first"
    fields = config.training.trl_fields
    batch = config.training.per_device_train_batch_size * fields.get("gradient_accumulation_steps", 1)
    steps = math.ceil(wish.rows / batch) * fields["num_train_epochs"]
    if steps < MIN_STEPS:
        yield f"only {steps:g} optimizer steps: a smaller gradient_accumulation_steps or more epochs"
    yield from model.notes


def _family(model_id: str) -> str:
    return next(model.family for model in catalogs.load("models/catalog.yaml") if model.id == model_id)


def _has_experts(model: Model) -> bool:
    config = {**(model.config or {}), **(model.config or {}).get("text_config", {})}
    named = any(config.get(key) for key in ("num_experts", "n_routed_experts", "num_local_experts"))
    return model.layers in ("moe",) or model.active_parameters is not None or named
