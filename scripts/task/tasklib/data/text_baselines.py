"""Baselines of closed labels that need no language model; a task type offers the ones that make sense for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any


def majority(train_texts: Sequence[str], train_golds: Sequence[str], texts: Sequence[str]) -> list[str]:
    """The most frequent training label for every row; ties go to the first in alphabetical order."""
    counts = Counter(train_golds)
    return [min(counts, key=lambda label: (-counts[label], label))] * len(texts)


def tfidf_logreg(train_texts: Sequence[str], train_golds: Sequence[str], texts: Sequence[str]) -> list[str]:
    """TF-IDF of character 1- to 3-grams and logistic regression with balanced classes.

    Characters need no word segmentation, so that the same baseline serves Chinese and English.
    """
    if len(set(train_golds)) < 2:  # scikit-learn refuses to fit one class
        return majority(train_texts, train_golds, texts)
    return [str(label) for label in tfidf_pipeline().fit(train_texts, train_golds).predict(texts)]


def tfidf_pipeline() -> Any:
    """The classifier of `tfidf_logreg`, not yet fitted."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, min_df=1),
        LogisticRegression(max_iter=2000, C=10.0, class_weight="balanced", random_state=0),
    )
