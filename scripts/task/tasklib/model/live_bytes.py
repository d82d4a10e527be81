"""Counting the bytes of tensors that live at once while a model on the meta device runs."""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

LARGEST_ON_HEAP = 2**25  # glibc maps larger blocks by themselves and gives them back at once: mallopt(3)


@contextmanager
def counted(model: Any) -> Iterator[Any]:
    """Counts the bytes of all tensors that live at once, but those of `model` itself."""
    import torch

    live_bytes, padded = modes()
    known = [*model.parameters(), *model.buffers()]
    autocast = torch.autocast

    def no_autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        """torch's refuses the meta device even where it is to be switched off, as PEFT does around parameters."""
        return nullcontext() if device_type == "meta" else autocast(device_type, *args, **kwargs)

    attention = (torch.nn.functional, "scaled_dot_product_attention", _fused_attention())
    with (
        quietly(),
        _replaced(torch, "autocast", no_autocast),
        _replaced(*attention),
        padded(),
        live_bytes(known) as live,
    ):
        yield live


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Functions that layers call by name, also when a checkpoint runs them again, which torch's modes do not see."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def quietly() -> Iterator[None]:
    """The libraries warn of each other's names; training itself says so once more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@functools.cache
def modes() -> tuple[type, type]:
    """Two of torch's own modes: one sees every operation's result, the other every function before it runs."""
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class LiveBytes(TorchDispatchMode):
        """Every storage counts from the operation that made it until Python and autograd let go of it."""

        def __init__(self, known: Sequence[Any]) -> None:
            super().__init__()
            self.bytes = self.peak = self.heap = 0
            self.known = {t.untyped_storage()._cdata for t in known}
            self.living: dict[int, Any] = {}

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor):
                    self.add(tensor.untyped_storage())
            return result

        def add(self, storage: Any) -> None:
            key, size = storage._cdata, storage.nbytes()
            if key in self.known or key in self.living:
                return

            def drop(_: Any) -> None:
                if self.living.pop(key, None) is not None:
                    self.bytes -= size

            self.living[key] = weakref.ref(storage, drop)
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            self.heap += size if size < LARGEST_ON_HEAP else 0

    class Padded(TorchFunctionMode):
        """Answers what a tensor without values cannot: is every position a real token? No: the batch is padded."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return False if func is torch.Tensor.__bool__ else func(*args, **(kwargs or {}))

    return LiveBytes, Padded


@functools.cache
def _fused_attention() -> Any:
    """What sdpa's fused kernels allocate: their output and one float a row and head (Dao et al. 2022, FlashAttention,
    section 3.1), where torch's meta kernel would spell out the scores."""
    import torch

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any, bias: Any) -> Any:
            output = query.new_empty(*query.shape[:-1], value.shape[-1])
            logsumexp = query.new_empty(query.shape[:-1], dtype=torch.float32)
            ctx.save_for_backward(query, key, value, bias, output, logsumexp)
            return output

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return *(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3]), None

    def attend(query: Any, key: Any, value: Any, attn_mask: Any = None, *args: Any, **kwargs: Any) -> Any:
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = attn_mask.to(query.dtype)  # each call makes its own: torch's convert_boolean_attn_mask
        return Fused.apply(query, key, value, attn_mask)

    return attend
