"""One run on several processes (`accelerate launch`, torchrun): which of them writes, and what all must agree on.

The launcher tells each process its place by the variables of torchrun
(https://docs.pytorch.org/docs/stable/elastic/run.html, "Environment Variables").
"""

from __future__ import annotations

import os
from typing import Any


def world_size() -> int:
    """How many processes train this run together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_launched() -> bool:
    """Whether torchrun or accelerate started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def of_this_machine() -> int:
    """How many of them share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def is_sharded() -> bool:
    """Whether accelerate was told to shard the model (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")


def join(*, on_cpu: bool) -> None:
    """Connects the processes; without a launcher nothing happens."""
    if world_size() > 1:
        from accelerate import PartialState

        PartialState(cpu=on_cpu)


def wait() -> None:
    """Until every process is here."""
    if world_size() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process: a signal may reach them at different steps."""
    if world_size() == 1:
        return flag
    import torch
    from accelerate import PartialState

    found = torch.tensor(int(flag), device=PartialState().device)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return bool(found.item())


def from_main(value: Any) -> Any:
    """The main process's value, in all of them."""
    if world_size() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]
