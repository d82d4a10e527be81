"""The config file of `accelerate launch`."""

from __future__ import annotations

from typing import Any

import yaml

from tasklib.launching.plan import SINGLE, Plan

# Everything else is accelerate's default. Weights keep the dtype that base_model.dtype says, so no mixed precision.
# FULL_STATE_DICT: a checkpoint is whole in three files that can be checked, and TRL's own fsdp2.yaml has it.
_FSDP2 = {
    "fsdp_version": 2,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_reshard_after_forward": True,
    "fsdp_cpu_ram_efficient_loading": True,
    "fsdp_offload_params": False,
    "fsdp_activation_checkpointing": False,  # training.activation_checkpointing does it
    "fsdp_state_dict_type": "FULL_STATE_DICT",
}


def content(plan: Plan) -> dict[str, Any]:
    """What `accelerate launch --config_file` reads. On several nodes each gives --machine_rank, --main_process_ip and
    --main_process_port besides."""
    found = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": plan.distributed_type,
        "num_machines": plan.machines.n_nodes,
        "num_processes": plan.machines.n_gpus,
        "machine_rank": 0,
        "main_training_function": "main",
        "mixed_precision": "no",
        "use_cpu": False,
    }
    if plan.distributed_type != SINGLE:
        found |= {"rdzv_backend": "static", "same_network": True}
    if plan.machines.n_nodes == 1 and plan.distributed_type != SINGLE:
        found["main_process_port"] = 0  # a free one, so that two runs on one machine do not meet
    return found | ({"fsdp_config": _FSDP2} if plan.is_sharded else {})


def text(plan: Plan) -> str:
    return yaml.safe_dump(content(plan), sort_keys=False)
