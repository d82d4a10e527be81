"""How much memory a run needs, before any weight is loaded; what is free; and the settings that would fit.

Activations have no formula here: `meta_model` builds the model of the config on torch's meta device, with its adapters
and real dtypes, and runs a step over the longest batch there. A tensor counts from the operation that makes it until
autograd lets go of it. So grouped-query and latent attention, fused experts, linear attention, fp32 adapters on a
16-bit base, eager scores and activation checkpointing are as large as the model's own code makes them.
`memory_formulas` has the rest, each part with its source.

Measured on CPU against ru_maxrss by tests/bench/memory_estimates.py (real trainings, torch 2.15, glibc
2.36; results beside it): within 15 % for LoRA, DoRA, QLoRA and full training of models of 135M to 1.2B, dense and
hybrid. Answering 1.05 to 1.14, but with a base in 4 bit 0.68: there bitsandbytes leaves more behind. The tensors
themselves are met to 2 %; what malloc keeps of freed ones is a share fitted to such runs, so other models and
allocators may differ more. On a GPU nothing has been measured; what to compare with there is
`torch.cuda.max_memory_allocated`, which leaves out the context that `overhead_bytes` holds.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from tasklib.exit_codes import ExitCode
from tasklib.model import meta_model, models
from tasklib.model.decoding import LOGITS_BYTES
from tasklib.model.free_memory import free_bytes
from tasklib.model.memory_formulas import (
    KEPT_WITHOUT_GRADIENTS,
    activations_by_rule,
    cache_by_rule,
    itemsize,
    loss_bytes,
    optimizer_bytes,
    process_bytes,
    text_config,
)
from tasklib.model.meta_model import MetaModel
from tasklib.schema import AdapterSpec, BaseModelSpec, RunConfig, TrainingSpec
from tasklib.summary import Problem, TaskError

__all__ = [
    "ALONE",
    "Estimate",
    "Spread",
    "estimate_evaluation",
    "estimate_training",
    "free_bytes",
    "require_evaluation_fit",
    "require_fit",
    "settings_that_fit",
]


@dataclass(frozen=True)
class Spread:
    """How many processes train one run together, each on its own device, and whether each holds only its share of
    weights, gradients and optimizer (FSDP) or all of them (DDP)."""

    n_processes: int = 1
    is_sharded: bool = False


ALONE = Spread()


@dataclass(frozen=True)
class Estimate:
    """Bytes of each part that one process holds, and `total_bytes` at the moment that needs most.

    `overlap_bytes` is what the parts never hold at once: gradients arrive while activations go. `cache_bytes` is the
    key-value cache of answering. `communication_bytes` is there where several processes train together: DDP's buckets,
    or the weights that FSDP gathers. `batch` is (rows, tokens) of the longest batch; `notes` say what was assumed.
    """

    weights_bytes: int
    adapter_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    logits_bytes: int
    overhead_bytes: int
    cache_bytes: int = 0
    communication_bytes: int = 0
    overlap_bytes: int = 0
    batch: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Bytes by name, without parts that are not there; what is never held at once is negative."""
        values = {f.name.removesuffix("_bytes"): getattr(self, f.name) for f in fields(self) if f.type == "int"}
        values["overlap"] *= -1
        return {name: value for name, value in values.items() if value}

    def lines(self) -> list[str]:
        """The estimate as a table in GB (10^9 bytes), for the log."""
        rows, tokens = self.batch
        head = f"memory, estimated for {rows} rows of {tokens} tokens: {_gb(self.total_bytes)}"
        table = [f"  {name:<12}{_gb(value):>12}" for name, value in self.parts().items()]
        return [head, *table, *(f"  note: {note}" for note in self.notes)]


def estimate_training(
    config: RunConfig, token_lengths: Sequence[int], n_trained: Sequence[int], spread: Spread = ALONE
) -> Estimate:
    """Peak memory of training on rows of these token lengths, of which `n_trained` are labelled. Of a pair both sides
    are rows. With several processes it is that of each.

    Loads config.json alone. `training.activation_checkpointing` absent means off. Raises TaskError (exit 4) when the
    config of the base model cannot be had, and (exit 2) for adapters that cannot be placed.
    """
    meta = _built(config, for_training=True)
    training, notes = config.training.trl_fields, list(meta.notes)
    shape, n_labelled = _longest_batch(config, token_lengths, n_trained)
    checkpointing = (training.get("activation_checkpointing_kwargs") or {}) if _checkpoints(config) else None
    accumulated = training.get("gradient_accumulation_steps", 1) > 1
    gradients, logits, heap = meta.gradients_bytes, loss_bytes(meta, n_labelled), 0
    try:
        step = _step(meta, shape, None if checkpointing is None else json.dumps(checkpointing), accumulated)
        heap, kept = step.heap_bytes, step.kept_bytes
        at_once = max(step.peak_bytes, gradients, kept + logits + (gradients if accumulated else 0))
    except Exception as error:  # the model's own code, which may be anybody's
        kept = activations_by_rule(meta, shape, every_layer=checkpointing is None)
        at_once = kept + logits + gradients
        notes.append(_untraced(error))
    at_once = max(at_once, _evaluation_between_steps(meta, config, shape[1]))
    activations = max(kept, at_once - gradients - logits)
    optimizer, assumed = optimizer_bytes(training.get("optim", "adamw_torch_fused"), meta.trained)
    # the reference of DPO: a second model for full training, otherwise a second adapter
    n_copies = 2 if config.method == "dpo" else 1
    is_full = config.adapter.type == "full"
    if training.get("label_smoothing_factor"):
        notes.append("label_smoothing_factor needs the logits of every position, which are not counted")
    alone = Estimate(
        weights_bytes=meta.weights_bytes * (n_copies if is_full else 1),
        adapter_bytes=meta.adapter_bytes * n_copies,
        gradients_bytes=gradients,
        optimizer_bytes=optimizer,
        activations_bytes=activations,
        logits_bytes=logits,
        overhead_bytes=process_bytes(meta, heap),
        overlap_bytes=activations + gradients + logits - at_once,
        batch=shape,
        notes=(*notes, *assumed),
    )
    return _spread_out(alone, meta, spread)


def _spread_out(alone: Estimate, meta: MetaModel, spread: Spread) -> Estimate:
    """What one of several processes holds.

    DDP keeps everything and copies the gradients into buckets that it sends (torch 2.15, DistributedDataParallel,
    `gradient_as_bucket_view`). FSDP keeps a share of weights, gradients and optimizer, gathers two layers at once (the
    one that works and the next), and embedding with head, a group that is not freed after its forward pass (torch's
    `fully_shard`; accelerate 1.15, `fsdp2_prepare_model`). Activations and logits are each process's own in both.
    """
    n = spread.n_processes
    if n == 1:
        return alone
    if not spread.is_sharded:
        return replace(alone, communication_bytes=meta.gradients_bytes)
    layer, ends = meta_model.group_bytes(meta)
    shares = {
        name: -(-getattr(alone, name) // n)
        for name in ("weights_bytes", "adapter_bytes", "gradients_bytes", "optimizer_bytes")
    }
    overlap = min(alone.overlap_bytes, shares["gradients_bytes"])
    return replace(alone, **shares, communication_bytes=2 * layer + ends, overlap_bytes=overlap)


def estimate_evaluation(
    config: RunConfig,
    decoding: str,
    token_lengths: Sequence[int],
    answer_lengths: Sequence[int] = (),
) -> Estimate:
    """Peak memory of answering prompts of these token lengths with the trained model, `generation.batch_size` at once.

    decoding: `evaluation.decoding`. answer_lengths: tokens of each label's answer with its end of turn, for `score`.
    Raises what `estimate_training` raises.
    """
    meta = _built(config, for_training=False)
    shape = rows, width = min(config.generation.batch_size, len(token_lengths)), max(token_lengths)
    notes, heap, vocabulary = list(meta.notes), 0, text_config(meta).vocab_size
    try:
        found = meta_model.prompt_pass(meta, shape)
        activations, cache, heap = found.peak_bytes - found.cache_bytes, found.cache_bytes, found.heap_bytes
    except Exception as error:  # the model's own code, which may be anybody's
        activations, cache = activations_by_rule(meta, shape, every_layer=False), cache_by_rule(meta, shape)
        notes.append(_untraced(error))
    if decoding == "generate":
        n_scored, n_added = 1, config.generation.max_new_tokens
    else:  # tokens of all answers stand beside each other, as many as decoding.py scores at once
        at_once = max([LOGITS_BYTES // (8 * rows * vocabulary), *answer_lengths])
        n_scored = n_added = max(1, min(at_once, sum(length - 1 for length in answer_lengths)))
    return Estimate(
        weights_bytes=meta.weights_bytes,
        adapter_bytes=meta.adapter_bytes,
        gradients_bytes=0,
        optimizer_bytes=0,
        activations_bytes=activations,
        logits_bytes=rows * n_scored * vocabulary * (itemsize(meta) + 8),  # with fp32 copy and log_softmax
        overhead_bytes=process_bytes(meta, KEPT_WITHOUT_GRADIENTS * heap),
        cache_bytes=int(cache * (width + n_added) / width),
        batch=shape,
        notes=tuple(notes),
    )


def settings_that_fit(
    config: RunConfig, token_lengths: Sequence[int], n_trained: Sequence[int], free: int, spread: Spread = ALONE
) -> list[str]:
    """`key=value` for `--set` under which training fits into `free` bytes; [] when it fits as it is or nothing does.

    Least harm first: smaller batches with accumulation, which cost speed alone; activation checkpointing, which costs a
    third more time (Chen et al. 2016); qlora, which is another method and is named as such. Never a shorter max_length.
    """
    return _first_fit(config, token_lengths, n_trained, free, spread)[0]


def require_fit(
    config: RunConfig, token_lengths: Sequence[int], n_trained: Sequence[int], free: int, spread: Spread = ALONE
) -> Estimate:
    """The estimate. Raises TaskError (exit 4, `does_not_fit`), with the settings that would fit, when it needs more."""
    estimate = estimate_training(config, token_lengths, n_trained, spread)
    if estimate.total_bytes <= free:
        return estimate
    settings, found = _first_fit(config, token_lengths, n_trained, free, spread)
    if settings:
        hint = f"{_flags(settings)} (then about {_gb(found.total_bytes)})"
    else:
        hint = f"no setting fits, the smallest needs {_gb(found.total_bytes)}: take a smaller base model or more memory"
        hint += f", or look at the longest row ({max(token_lengths)} tokens)"
    raise _does_not_fit("training", estimate, free, hint)


def require_evaluation_fit(
    config: RunConfig,
    decoding: str,
    token_lengths: Sequence[int],
    answer_lengths: Sequence[int],
    free: int,
) -> Estimate:
    """The same for answering, where `generation.batch_size` is what can be smaller."""
    estimate = found = estimate_evaluation(config, decoding, token_lengths, answer_lengths)
    rows = estimate.batch[0]
    while found.total_bytes > free and rows > 1:
        rows //= 2
        generation = config.generation.model_copy(update={"batch_size": rows})
        smaller = config.model_copy(update={"generation": generation})
        found = estimate_evaluation(smaller, decoding, token_lengths, answer_lengths)
    if found is estimate and found.total_bytes <= free:
        return estimate
    if found.total_bytes <= free:
        hint = f"{_flags([f'generation.batch_size={rows}'])} (then about {_gb(found.total_bytes)})"
    else:
        hint = f"one row at a time needs {_gb(found.total_bytes)}: take more memory or a smaller base model"
    raise _does_not_fit("answering", estimate, free, hint)


def _longest_batch(
    config: RunConfig, token_lengths: Sequence[int], n_trained: Sequence[int]
) -> tuple[tuple[int, int], int]:
    """(rows, tokens) of the largest batch that can come, padded to its longest row, and its labelled tokens. A batch of
    pairs has two rows for each; ORPO's loss has logits of more positions than it labels: at most of all."""
    options, n_sides = config.training.trl_fields, 1 if config.method == "sft" else 2
    rows = min(n_sides * config.training.per_device_train_batch_size, len(token_lengths))
    n_labelled = rows * max(token_lengths) if config.method == "orpo" else sum(sorted(n_trained, reverse=True)[:rows])
    if options.get("packing") or options.get("padding_free"):  # a batch is one row, without padding
        return (1, sum(sorted(token_lengths, reverse=True)[:rows])), n_labelled
    multiple = int(options.get("pad_to_multiple_of") or 1)
    return (rows, -(-max(token_lengths) // multiple) * multiple), n_labelled


def _evaluation_between_steps(meta: MetaModel, config: RunConfig, width: int) -> int:
    """Peak of an evaluation during training that has larger batches: its own size, or the task's metric."""
    options = config.training.trl_fields
    rows = options.get("per_device_eval_batch_size") or 0
    if (options.get("metric_for_best_model") or "loss").removeprefix("eval_") != "loss":
        rows = max(rows, config.generation.batch_size)
    if rows <= config.training.per_device_train_batch_size or options.get("eval_strategy") == "no":
        return 0
    try:
        return meta_model.prompt_pass(meta, (rows, width)).peak_bytes
    except Exception:  # the training step has said that the model cannot be traced
        return 0


def _first_fit(
    config: RunConfig, token_lengths: Sequence[int], n_trained: Sequence[int], free: int, spread: Spread
) -> tuple[list[str], Estimate]:
    """The first settings that fit and their estimate; [] and the smallest estimate where none does."""
    smallest: list[Estimate] = []
    for adapter in [config.adapter] if spread.is_sharded else _adapters(config):  # 4-bit weights are not sharded
        for checkpointing in dict.fromkeys((_checkpoints(config), True)):

            def tried(rows: int) -> RunConfig:
                return _with(config, adapter, rows, checkpointing)  # noqa: B023 (called before the next turn)

            smallest.append(estimate_training(tried(1), token_lengths, n_trained, spread))
            if smallest[-1].total_bytes > free:
                continue  # no larger batch will
            for rows in _divisors(config.training.per_device_train_batch_size):
                estimate = estimate_training(tried(rows), token_lengths, n_trained, spread)
                if estimate.total_bytes <= free:
                    return _differences(config, tried(rows)), estimate
    return [], min(smallest, key=lambda estimate: estimate.total_bytes)


def _adapters(config: RunConfig) -> list[AdapterSpec]:
    """The config's own, and its 4-bit form where there is one: bitsandbytes packs linear layers, not fused experts."""
    spec, packed = config.adapter, {"lora": "qlora", "dora": "qdora"}
    if spec.type not in packed or importlib.util.find_spec("bitsandbytes") is None:
        return [spec]
    if any(p.ndim == 3 for p in _built(config, for_training=True).causal_lm.parameters()):
        return [spec]
    quantized = AdapterSpec(**{**spec.model_dump(), "type": packed[spec.type]})
    try:
        _built(config.model_copy(update={"adapter": quantized}), for_training=True)
    except TaskError:  # something else in the adapter does not go with a quantized base
        return [spec]
    return [spec, quantized]


def _divisors(n: int) -> list[int]:
    """Largest first: a batch that divides the old one keeps the global batch by accumulation."""
    return [d for d in range(n, 0, -1) if n % d == 0]


def _with(config: RunConfig, adapter: AdapterSpec, rows: int, checkpointing: bool) -> RunConfig:
    old = config.training
    changed: dict[str, object] = {"per_device_train_batch_size": rows}
    if rows != old.per_device_train_batch_size:
        steps = old.trl_fields.get("gradient_accumulation_steps", 1)
        changed["gradient_accumulation_steps"] = steps * old.per_device_train_batch_size // rows
    if checkpointing != _checkpoints(config):
        changed["activation_checkpointing"] = checkpointing
    training = TrainingSpec(**{**old.model_dump(), **changed})
    return config.model_copy(update={"adapter": adapter, "training": training})


def _differences(old: RunConfig, new: RunConfig) -> list[str]:
    """`key=value` for every key in which two configs differ, as `--set` takes it."""
    found = []
    for section in ("training", "adapter"):
        before, after = (getattr(config, section).model_dump() for config in (old, new))
        changed = {key: value for key, value in after.items() if before.get(key) != value}
        found += [f"{section}.{key}={str(value).lower()}" for key, value in changed.items()]
    return found


def _checkpoints(config: RunConfig) -> bool:
    return bool(config.training.trl_fields.get("activation_checkpointing"))


def _built(config: RunConfig, *, for_training: bool) -> MetaModel:
    return _build(config.base_model, config.adapter, config.method, _checkpoints(config), models.device(), for_training)


@functools.lru_cache(maxsize=4)
def _build(
    base_model: BaseModelSpec, adapter: AdapterSpec, method: str, checkpoints: bool, device: str, training: bool
) -> MetaModel:
    """The meta model of a config, from all that it depends on; kept, because several batches are tried on each."""
    spec = TrainingSpec(activation_checkpointing=checkpoints)
    config = RunConfig(schema_version=1, base_model=base_model, method=method, adapter=adapter, training=spec)
    return meta_model.build(config, for_training=training)


@functools.lru_cache(maxsize=16)
def _step(meta: MetaModel, shape: tuple[int, int], checkpointing: str | None, accumulated: bool) -> meta_model.StepPeak:
    """`meta_model.train_step`, kept: however a run is shared out, its step is the same. checkpointing: as JSON."""
    kwargs = None if checkpointing is None else json.loads(checkpointing)
    return meta_model.train_step(meta, shape, checkpointing=kwargs, accumulated=accumulated)


def _untraced(error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"activations follow a general rule and may be off by a factor of two: the model cannot be traced ({reason})"


def _does_not_fit(what: str, estimate: Estimate, free: int, hint: str) -> TaskError:
    rows, tokens = estimate.batch
    message = f"{what} needs about {_gb(estimate.total_bytes)} with {rows} rows of {tokens} tokens at once, "
    message += f"{_gb(free)} are free; " + ", ".join(f"{name} {_gb(size)}" for name, size in estimate.parts().items())
    return TaskError(ExitCode.PREREQUISITE, [Problem(code="does_not_fit", message=message, hint=hint)])


def _flags(settings: Sequence[str]) -> str:
    return " ".join(f"--set {setting}" for setting in settings)


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB"
