"""Metrics of one label per row out of a closed set, as functions of counts that sum over rows. Plain functions.

L is the number of labels; `labels` gives their order.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasklib.data import answers
from tasklib.data.answers import Scores

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def count(golds: Sequence[str], predictions: Sequence[str | None], labels: Collection[str]) -> csr_array:
    """Per row a one-hot of its cell (gold, prediction) in the confusion matrix.

    Shape (n_rows, L * (L + 1)), sparse: 12 bytes a row however many labels there are. The last column of the matrix
    counts answers that could not be parsed. Sums over rows are all that the metrics need, so a bootstrap is one matrix
    product.
    """
    from scipy.sparse import csr_array

    index = {label: position for position, label in enumerate(labels)}
    n_labels = len(index)
    cells = [index[g] * (n_labels + 1) + index.get(p, n_labels) for g, p in zip(golds, predictions, strict=True)]
    ones, shape = np.ones(len(cells), dtype=np.float32), (len(cells), n_labels * (n_labels + 1))
    return csr_array((ones, np.array(cells, dtype=np.int32), np.arange(len(cells) + 1, dtype=np.int32)), shape=shape)


def confusion(counts: np.ndarray, labels: Collection[str]) -> np.ndarray:
    """Summed cells (..., L * (L + 1)) as matrices (..., L, L + 1): rows gold, columns predicted, last one unparsed."""
    n_labels = len(labels)
    return np.asarray(counts, dtype=np.float64).reshape(*np.shape(counts)[:-1], n_labels, n_labels + 1)


def score_counts(counts: np.ndarray, labels: Collection[str]) -> dict[str, np.ndarray]:
    """Metric name -> values of shape (...,) for summed counts of shape (..., L * (L + 1)); NaN where undefined.

    Macro-F1 averages over the labels that occur among golds or predictions, macro recall (balanced accuracy) over those
    that occur among golds, as scikit-learn does. Weighted F1 is left out: it hides the rare labels.
    """
    matrix = confusion(counts, labels)
    ratios = class_ratios(counts, labels)
    f1, recall = answers.ratio(*ratios["f1"]), answers.ratio(*ratios["recall"])
    total = matrix.sum((-2, -1))
    return {
        "macro_f1": mean_of_defined(f1),
        "accuracy": answers.ratio(np.trace(matrix, axis1=-2, axis2=-1), total),
        "macro_recall": mean_of_defined(recall),
        "mcc": _matthews(matrix),
        "parse_rate": answers.ratio(total - matrix[..., -1].sum(-1), total),
    }


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Means over the last axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    return answers.ratio(np.where(defined, values, 0).sum(-1), defined.sum(-1))


def _matthews(matrix: np.ndarray) -> np.ndarray:
    """Matthews correlation coefficient of many classes, -1 to 1, of matrices (..., L, L + 1).

    R_K of Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient". Unparsed
    answers are one more class that is never gold. Undefined, as any correlation, where golds or answers do not vary.
    """
    total, n_gold, n_predicted = matrix.sum((-2, -1)), matrix.sum(-1), matrix.sum(-2)
    hits = np.trace(matrix, axis1=-2, axis2=-1)
    covariance = hits * total - (n_gold * n_predicted[..., :-1]).sum(-1)
    variances = (total**2 - (n_gold**2).sum(-1)) * (total**2 - (n_predicted**2).sum(-1))
    return np.clip(answers.ratio(covariance, np.sqrt(variances)), -1, 1)  # rounding; NaN stays NaN


def class_ratios(counts: np.ndarray, labels: Collection[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (numerators, denominators), each of shape (..., L), for summed counts of shape (..., L * (L + 1)): the
    per-class numbers that get intervals."""
    matrix = confusion(counts, labels)
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    n_gold, n_predicted = matrix.sum(-1), matrix[..., :-1].sum(-2)
    return {"precision": (hits, n_predicted), "recall": (hits, n_gold), "f1": (2 * hits, n_gold + n_predicted)}


def per_class(counts: np.ndarray, labels: Collection[str]) -> dict[str, dict[str, float | None]]:
    """Label -> precision, recall, f1 (None where undefined) and support, for counts summed over all rows."""
    return table(class_ratios(counts, labels), confusion(counts, labels).sum(-1), labels)


def found(counts: np.ndarray, n_first: int, n_labels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right, gold and answered items of each label, each of shape (..., n_labels), of counts whose columns are
    `n_first` others, then those three one after another."""
    parts = np.asarray(counts, dtype=np.float64)[..., n_first:]
    parts = parts.reshape(*parts.shape[:-1], 3, n_labels)
    return parts[..., 0, :], parts[..., 1, :], parts[..., 2, :]


def ratios_of_found(
    right: np.ndarray, wanted: np.ndarray, said: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Precision, recall and F1 of each label as (numerators, denominators)."""
    return {"precision": (right, said), "recall": (right, wanted), "f1": (2 * right, wanted + said)}


def table(
    ratios: dict[str, tuple[np.ndarray, np.ndarray]], support: np.ndarray, labels: Collection[str]
) -> dict[str, dict[str, float | None]]:
    """Label -> its ratios (None where undefined) and support; `ratios` and `support` hold arrays of shape (L,)."""
    columns = {name: answers.ratio(*parts) for name, parts in ratios.items()} | {"support": support}
    return {
        label: {name: answers.or_none(values[position]) for name, values in columns.items()}
        for position, label in enumerate(labels)
    }


def scores(metrics: dict[str, np.ndarray], classes: dict[str, dict[str, float | None]]) -> Scores:
    """Metrics of a corpus, each of shape (), with its table of classes; what is undefined is None, and named."""
    values = {name: answers.or_none(value) for name, value in metrics.items()}
    return Scores(values, classes, [name for name, value in values.items() if value is None])
