"""What the answer to each row is worth by itself: which rows are right, and which of the others are worst."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasklib.data import answers
from tasklib.schema import TaskDefinition
from tasklib.scoring.metrics import Prediction

RIGHT = 1 - 1e-9  # from here on a row is wholly right: scores are sums of floats


def of(definition: TaskDefinition, predictions: Sequence[Prediction]) -> np.ndarray:
    """The primary metric of each row alone, shape (n_rows,). With a closed label set a row is right (1) or wrong (0),
    and so it is where the metric of one row is undefined, as F1 is where there is nothing to find."""
    module, options = definition.task_type, definition.task
    same = np.array([p.prediction == p.gold for p in predictions], dtype=np.float64)
    if module.label_set(options) is not None or not len(same):
        return same
    counts = module.count([p.gold for p in predictions], [p.prediction for p in predictions], options)
    own = module.score_counts(answers.dense(counts), options)[definition.primary_metric]
    return np.where(np.isnan(own) | (same == 1), same, own)


def right(definition: TaskDefinition, predictions: Sequence[Prediction]) -> np.ndarray:
    """Which rows are wholly right, shape (n_rows,), bool."""
    return of(definition, predictions) >= RIGHT
