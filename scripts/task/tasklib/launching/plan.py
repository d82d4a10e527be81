"""How one run is shared out among GPUs: by memory arithmetic, the simplest way that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasklib.exit_codes import ExitCode
from tasklib.model import memory
from tasklib.schema import RunConfig
from tasklib.summary import Problem, TaskError
from tasklib.training.preparation import with_training

SINGLE, DDP, FSDP = "NO", "MULTI_GPU", "FSDP"  # accelerate's own words: distributed_type in its config
RESERVE = 0.1  # of a GPU: CUDA's context, NCCL's buffers and what torch's allocator cannot use


@dataclass(frozen=True)
class Machines:
    """What the run may use: as many GPUs on every node, of `memory_bytes` each. `name` is nvidia-smi's, where known."""

    n_nodes: int
    gpus_per_node: int
    memory_bytes: int
    name: str | None = None

    @property
    def n_gpus(self) -> int:
        return self.n_nodes * self.gpus_per_node


@dataclass(frozen=True)
class Plan:
    """`per_gpu` is the estimate for each GPU. `tried` says of every way, in order, what it would have needed."""

    machines: Machines
    distributed_type: str
    activation_checkpointing: bool
    per_gpu: memory.Estimate
    global_batch_size: int
    tried: tuple[str, ...]

    @property
    def is_sharded(self) -> bool:
        return self.distributed_type == FSDP


def made(config: RunConfig, machines: Machines, lengths: Sequence[int], n_trained: Sequence[int]) -> Plan:
    """The first way that fits: every GPU holds the whole model (DDP), that with activation checkpointing, then the
    model in shares (FSDP2), that with activation checkpointing. DDP comes first because it sends gradients alone;
    FSDP2 gathers every layer twice for each step (Zhao et al. 2023, section 3.2).

    lengths, n_trained: tokens of each training sequence, and how many of them are labelled. Raises TaskError (exit 2)
    where the config cannot be shared out as it must be, (exit 4) where nothing fits.
    """
    usable, tried = int(machines.memory_bytes * (1 - RESERVE)), []
    wanted = config.training.trl_fields.get("activation_checkpointing")
    obstacle = _obstacle_to_sharding(config)
    for kind in [SINGLE] if machines.n_gpus == 1 else [DDP] if obstacle else [DDP, FSDP]:
        spread = memory.Spread(machines.n_gpus, kind == FSDP)
        for checkpointing in [False, True] if wanted is None else [wanted]:
            candidate = with_training(config, activation_checkpointing=checkpointing)
            estimate = memory.estimate_training(candidate, lengths, n_trained, spread)
            what = f"{kind}{' with activation checkpointing' if checkpointing else ''}"
            tried.append(f"{what}: {estimate.total_bytes / 1e9:.1f} GB on each GPU, {usable / 1e9:.1f} GB usable")
            if estimate.total_bytes <= usable:
                rows = config.training.per_device_train_batch_size
                rows *= config.training.trl_fields.get("gradient_accumulation_steps", 1) * machines.n_gpus
                return Plan(machines, kind, checkpointing, estimate, rows, tuple(tried))
    if obstacle and machines.n_gpus > 1:
        message = f"the model does not fit on one GPU ({tried[-1]}), and FSDP2 cannot shard this run: {obstacle}"
        hint = "take adapter.type lora or dora in a new config, or larger GPUs"
        problem = Problem(code="cannot_be_sharded", message=message, field="adapter.type", hint=hint)
        raise TaskError(ExitCode.USAGE, [problem])
    settings = memory.settings_that_fit(config, lengths, n_trained, usable, spread)
    hint = " ".join(f"--set {s}" for s in settings) or "take more or larger GPUs, or a smaller base model"
    message = f"the run fits in no way: {'; '.join(tried)}"
    raise TaskError(ExitCode.PREREQUISITE, [Problem(code="does_not_fit", message=message, hint=hint)])


def _obstacle_to_sharding(config: RunConfig) -> str | None:
    """Why FSDP2 would not make the run smaller."""
    if not config.adapter.is_quantized:
        return None
    return "accelerate leaves bitsandbytes' 4-bit weights out (1.15, fsdp2_prepare_model): every GPU holds them whole"
