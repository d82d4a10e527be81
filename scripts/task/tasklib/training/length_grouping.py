"""Rows of like length in one batch, so that little is padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class GroupedByLength:
    """Row numbers of an epoch in which rows of like length stand together, as transformers' LengthGroupedSampler has
    them, but by (seed, epoch) alone: that one draws from the global random numbers, which stand elsewhere when a run is
    resumed in the middle of an epoch."""

    lengths: Sequence[int]
    batch_size: int
    seed: int
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's data loader before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        seed = int(np.random.default_rng([self.seed, self.epoch]).integers(2**63))
        return iter(order(self.lengths, self.batch_size, seed))


def order(lengths: Sequence[int], batch_size: int, seed: int) -> list[int]:
    """Positions: shuffled, sorted by length within up to 50 batches (transformers' own grouping), and then the batches
    shuffled again. Without that, long rows come before short ones again and again, and where length says something
    about the label, training runs after it. The batch with the longest row stays first: what does not fit into memory
    shows at once."""
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    generator = torch.Generator().manual_seed(seed)
    grouped = get_length_grouped_indices(lengths, batch_size, generator=generator)
    batches = [grouped[start : start + batch_size] for start in range(0, len(grouped), batch_size)]
    whole, rest = batches[1 : len(grouped) // batch_size], batches[max(1, len(grouped) // batch_size) :]
    shuffled = [whole[n] for n in torch.randperm(len(whole), generator=generator).tolist()]
    return [row for batch in [*batches[:1], *shuffled, *rest] for row in batch]
