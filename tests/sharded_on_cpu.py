"""Helper: runs a script under accelerate's FSDP2 on CPU, by torch's own `fully_shard` over gloo.

accelerate shards only where it calls its processes MULTI_GPU and the like; on MULTI_CPU it drops the plugin and trains
by DDP without a word (accelerate 1.15, AcceleratorState.__init__). Here that one decision is turned; all else, from the
Trainer to the checkpoints, is what runs on GPUs. Each process writes what it holds of the sharded weights to stderr.

    torchrun --nproc_per_node 2 sharded_on_cpu.py SCRIPT ARGUMENTS…
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from typing import Any

import accelerate.accelerator
import accelerate.utils.fsdp_utils
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

_state, _prepare = AcceleratorState.__init__, accelerate.utils.fsdp_utils.fsdp2_prepare_model


def _with_plugin(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    _state(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU and fsdp_plugin is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def _told(accelerator: Any, model: Any) -> Any:
    model = _prepare(accelerator, model)
    held = [(p.to_local() if isinstance(p, DTensor) else p, p) for p in model.parameters()]
    said = {
        "rank": int(os.environ["RANK"]),
        "held_bytes": sum(local.numel() * local.element_size() for local, _ in held),
        "all_bytes": sum(p.numel() * p.element_size() for _, p in held),
        "fsdp_version": accelerator.state.fsdp_plugin.fsdp_version,
    }
    # one write: with print, the line of the other process can come between the text and its end
    os.write(sys.stderr.fileno(), f"\nsharded: {json.dumps(said)}\n".encode())
    return model


AcceleratorState.__init__ = _with_plugin
for module in (accelerate.utils.fsdp_utils, accelerate.accelerator, accelerate.utils):
    if hasattr(module, "fsdp2_prepare_model"):
        module.fsdp2_prepare_model = _told
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
