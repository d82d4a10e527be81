"""The parts of a memory estimate that the meta device cannot show: optimizer states, TRL's loss, the process itself;
and a general rule for models that cannot be traced."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tasklib.model import models
from tasklib.model.free_memory import resident_bytes
from tasklib.model.meta_model import MetaModel

# CUDA context and loaded kernels (0.3 to 0.6 GB by card and driver), cuBLAS workspaces (8 MiB, 32 MiB on Hopper:
# PyTorch notes on CUDA semantics), and what the caching allocator loses to fragments. A guess: no GPU was measured.
GPU_PROCESS_BYTES = 1_000_000_000
# Python with torch, transformers, peft, trl and datasets imported, with the pages of their libraries: measured RSS.
CPU_PROCESS_BYTES = 1_000_000_000
# What malloc keeps of the freed tensors of a forward pass, as a share of all that it asked for, by bytes of an entry.
# A hole of exactly its size cannot take a tensor again (glibc before 2.38: memalign, bug 14581). Fitted to ten peaks of
# SmolLM2-135M on glibc 2.36: 0.09 to 0.18 in 16 bit, 0.13 to 0.18 in 4 bit (though head and norms are fp32), 0.29 to
# 0.30 in fp32. Blocks of 32 MiB and more leave nothing; a
# pass without gradients leaves an eighth (0.008 to 0.032), because nothing is kept between the holes.
KEPT_BY_MALLOC, KEPT_WITHOUT_GRADIENTS = {2: 0.13, 4: 0.3}, 1 / 8

# TRL's loss works on tiles of this many positions and vocabulary entries (trl/kernels/chunked_logprob.py).
LOSS_POSITIONS, LOSS_VOCABULARY = 4096, 32768

# States that an optimizer keeps for each trained element: how many, and bits of each (None: as wide as the parameter).
# Sources: torch.optim; bitsandbytes.optim (AdEMAMix: two momenta and a variance); torchao.optim. Paged states can leave
# the GPU, but only while nobody needs them: counted in full.
ADAMW = (2, None)
OPTIMIZER_STATES: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused"), ADAMW),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit", "adamw_torch_8bit"), (2, 8)),
    "paged_adamw_32bit": (2, 32),
    "adamw_torch_4bit": (2, 4),
    **dict.fromkeys(("ademamix", "paged_ademamix_32bit"), (3, 32)),
    **dict.fromkeys(("ademamix_8bit", "paged_ademamix_8bit"), (3, 8)),
    **dict.fromkeys(("lion_32bit", "paged_lion_32bit"), (1, 32)),
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit"), (1, 8)),
    **dict.fromkeys(("adagrad", "rmsprop"), (1, None)),
    **dict.fromkeys(("rmsprop_bnb", "rmsprop_bnb_32bit"), (1, 32)),
    "rmsprop_bnb_8bit": (1, 8),
    "sgd": (0, None),
}
SCALE_BITS = {8: 32 / 256, 4: 32 / 128}  # one float for a block of 256 (8 bit) or 128 (4 bit) states
SMALLEST_PACKED = 4096  # elements; smaller parameters keep fp32 states (bitsandbytes: min_8bit_size; torchao the same)


def optimizer_bytes(name: str, trained: Sequence[Any]) -> tuple[int, list[str]]:
    """States of TRL's `optim` for these parameters, and what had to be assumed.

    AdamW keeps two states of the parameter's own dtype: 8 bytes for an element in fp32. Adafactor keeps a row and a
    column in place of a matrix (Shazeer & Stern 2018).
    """
    if name == "adafactor":
        matrices = sum(4 * (math.prod(p.shape[:-1]) + p.numel() // p.shape[-2]) for p in trained if p.ndim > 1)
        return matrices + sum(4 * p.numel() for p in trained if p.ndim < 2), []
    notes = [] if name in OPTIMIZER_STATES else [f"training.optim {name!r} is not known here: counted as AdamW"]
    n_states, bits = OPTIMIZER_STATES.get(name, ADAMW)
    total = 0.0
    for parameter in trained:
        wide = parameter.element_size() * 8 if bits is None else bits + SCALE_BITS.get(bits, 0)
        if bits in SCALE_BITS and parameter.numel() < SMALLEST_PACKED:
            wide = 32
        total += n_states * parameter.numel() * wide / 8
    return int(total), notes


def loss_bytes(meta: MetaModel, n_tokens: int) -> int:
    """What TRL's loss needs for `n_tokens` labelled positions, on top of the activations that are kept.

    trl/kernels/chunked_logprob.py: the chosen hidden states, a tile of logits in their dtype, and in backward their
    gradient and, where it is trained, that of the head, in fp32. On CPU torch works on each tile in fp32: y, z, log p,
    p, the gradient, the mask of the target and two temporaries (29 bytes an entry) live at once; and of a 16-bit model
    the tile and its part of the head are copied to fp32 afterwards.
    """
    head = meta.causal_lm.get_output_embeddings()
    if head is None:
        return 0
    (vocabulary, hidden), wide = head.weight.shape, itemsize(meta)
    rows = min(n_tokens, LOSS_POSITIONS)
    needed = rows * LOSS_VOCABULARY * wide + n_tokens * hidden * (2 * wide + 4)
    needed += vocabulary * hidden * 4 if head.weight.requires_grad else 0
    if models.device() != "cpu":
        return needed
    chunk = min(LOSS_VOCABULARY, vocabulary)
    return needed + max(29 * rows * chunk, (rows + hidden) * chunk * 4 if wide < 4 else 0)


def process_bytes(meta: MetaModel, heap_bytes: float) -> int:
    """What a process needs beside tensors that live: on a GPU context and workspaces; on CPU the interpreter with its
    libraries, or what this process holds already where that is more (rows in memory), and what malloc keeps."""
    if models.device() != "cpu":
        return GPU_PROCESS_BYTES
    steps = -(-resident_bytes() // 2**26)  # in steps, so that two estimates of one process are alike
    width = 2 if getattr(meta.causal_lm, "is_loaded_in_4bit", False) else min(itemsize(meta), 4)
    return max(CPU_PROCESS_BYTES, steps * 2**26) + int(KEPT_BY_MALLOC[width] * heap_bytes)


def activations_by_rule(meta: MetaModel, shape: tuple[int, int], *, every_layer: bool) -> int:
    """s b h (34 + 5 a s / h) bytes a layer in 16 bit, the second term for scores that are kept (Korthikanti et al.
    2022, equation 2); otherwise 2 s b h a layer and all of one."""
    text, (rows, width) = text_config(meta), shape
    scores = 5 * text.num_attention_heads * width / text.hidden_size
    kept = 34 + (scores if text._attn_implementation == "eager" else 0)
    entries = kept * text.num_hidden_layers if every_layer else kept + 2 * text.num_hidden_layers
    return int(rows * width * text.hidden_size * entries * itemsize(meta) / 2)


def cache_by_rule(meta: MetaModel, shape: tuple[int, int]) -> int:
    """Keys and values as wide as the hidden states, in every layer: no less than grouped-query attention needs."""
    text = text_config(meta)
    return 2 * shape[0] * shape[1] * text.hidden_size * text.num_hidden_layers * itemsize(meta)


def itemsize(meta: MetaModel) -> int:
    """Bytes of an entry of the last hidden states: those of the head that reads them."""
    head = meta.causal_lm.get_output_embeddings()
    return head.weight.element_size() if head is not None else 4


def text_config(meta: MetaModel) -> Any:
    return meta.causal_lm.config.get_text_config()
