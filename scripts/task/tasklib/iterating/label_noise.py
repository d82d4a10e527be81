"""Labels that look wrong: confident learning on out-of-sample probabilities.

Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 70), as cleanlab
implements it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasklib import progress
from tasklib.data import dataset, text_baselines

N_FOLDS = 5
_PROGRESS_ROWS = 2000
_LEAST = 1e-9  # probabilities of 0 would make rows that cleanlab cannot divide


@dataclass(frozen=True)
class Issue:
    """The row at `position` is labelled `given` and reads as `suggested`; `quality` in [0, 1] is the probability of the
    given label, low where it is probably wrong."""

    position: int
    given: str
    suggested: str
    quality: float


def out_of_fold(
    texts: Sequence[str], golds: Sequence[str], labels: Sequence[str], seed: int = 0, n_folds: int = N_FOLDS
) -> np.ndarray:
    """Out-of-sample probabilities of the TF-IDF baseline, shape (n_rows, n_labels), rows summing to 1.

    Stratified folds with equal texts on one side. A label that the other folds lack has probability 0: one that a
    single text bears can never be recognised. Where nothing can be held out, because all texts are equal or no label
    has two rows, every label is equally probable.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    groups = [dataset.duplicate_key(text) for text in texts]
    found = np.full((len(texts), len(labels)), 1 / max(1, len(labels)))
    n_folds = min(n_folds, len(set(groups)), max(Counter(golds).values(), default=0))
    if n_folds < 2:
        return found
    column = {label: position for position, label in enumerate(labels)}
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        parts = list(folds.split(texts, golds, groups))
    for train, held_out in _shown(parts, len(texts)):
        if not len(held_out) or not len(train):  # few groups: one fold took them all
            continue
        known = {golds[i] for i in train}
        found[held_out] = 0.0
        if len(known) == 1:
            found[held_out, column[known.pop()]] = 1.0
            continue
        model = text_baselines.tfidf_pipeline().fit([texts[i] for i in train], [golds[i] for i in train])
        scores = model.predict_proba([texts[i] for i in held_out])
        found[np.ix_(held_out, [column[str(label)] for label in model.classes_])] = scores
    return found


def _shown(parts: Sequence[Any], n_rows: int) -> Iterator[Any]:
    """The same folds, with their progress where they take more than a moment."""
    shown = progress.bar("labels out of fold", len(parts), "fold") if n_rows > _PROGRESS_ROWS else None
    with shown or contextlib.nullcontext() as bar:
        for part in parts:
            yield part
            if bar is not None:
                bar.update(1)


def issues(
    golds: Sequence[str], probabilities: np.ndarray, labels: Sequence[str], sure: float | None = None
) -> list[Issue]:
    """Rows whose label looks wrong, the likeliest first. `probabilities` (n_rows, n_labels) must be out of sample.

    How confident "confidently" is depends on the label: a row counts against its label where the probability of another
    is above that label's own mean. Where all golds are equal nothing can be said. A model that is sure of nearly every
    row has means so close to 1 that a row of 0.98 is below them: with `sure`, a row counts too where another label has
    at least that probability.
    """
    from cleanlab.filter import find_label_issues

    if len(set(golds)) < 2:
        return []
    given, scores = _as_cleanlab_wants(golds, probabilities, labels)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="May not flag all label issues in class", category=UserWarning)
        flagged = find_label_issues(given, scores, n_jobs=1)
    if sure is not None:
        flagged = flagged | (scores.max(axis=1) >= sure)
    likeliest, own = scores.argmax(axis=1), scores[np.arange(len(given)), given]
    found = np.flatnonzero(flagged & (likeliest != given))
    ranked = found[np.lexsort((found, own[found].round(6)))]
    return [Issue(int(i), golds[i], labels[int(likeliest[i])], round(float(own[i]), 6)) for i in ranked]


def _as_cleanlab_wants(
    golds: Sequence[str], probabilities: np.ndarray, labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Golds as positions in `labels`, shape (n_rows,), and probabilities without zeros, rows summing to 1."""
    number = {label: position for position, label in enumerate(labels)}
    scores = np.clip(np.nan_to_num(np.asarray(probabilities, dtype=np.float64)), _LEAST, None)
    return np.array([number[gold] for gold in golds]), scores / scores.sum(axis=1, keepdims=True)
