"""The prior-corrected decision on label probabilities (`imbalance.prior_correction` of a config)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence


def label_shares(golds: Sequence[str]) -> dict[str, float]:
    """Share of each label among the training rows."""
    return {label: n / len(golds) for label, n in sorted(Counter(golds).items())}


def corrected(log_likelihoods: Mapping[str, float], shares: Mapping[str, float], strength: float) -> dict[str, float]:
    """Probabilities of the labels after dividing by share ** strength: post-hoc logit adjustment (Menon et al. 2021,
    arXiv:2007.07314), which at 1 aims at the mean recall of the labels.

    A label that no training row has counts as the rarest that one has: its real share is unknown, and dividing by 0
    would always choose it.
    """
    rarest = min(shares.values(), default=1.0)
    adjusted = {
        label: value - strength * math.log(shares.get(label, rarest)) for label, value in log_likelihoods.items()
    }
    top = max(adjusted.values())
    exponentials = {label: math.exp(value - top) for label, value in adjusted.items()}
    total = sum(exponentials.values())
    return {label: value / total for label, value in exponentials.items()}
