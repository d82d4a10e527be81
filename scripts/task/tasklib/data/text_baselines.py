"""Baselines of closed labels that need no language model; a task type offers the ones that make sense for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tasklib.data.answers import Baseline


def of_records(
    baseline: Callable[..., list[str]], text_of: Callable[[Any], str], gold: Callable[[Any], str]
) -> Baseline:
    """A baseline of texts and labels (the functions below) as one of records."""

    def answered(train: Sequence[Any], rows: Sequence[Any], options: Any) -> list[str]:
        return baseline([text_of(r) for r in train], [gold(r) for r in train], [text_of(r) for r in rows])

    return answered


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


def nearest(train_texts: Sequence[str], texts: Sequence[str]) -> list[int | None]:
    """For each text the position of the most similar training text, by the cosine of TF-IDF vectors of character 1- to
    3-grams; None without training texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import NearestNeighbors

    if not train_texts or not texts:
        return [None] * len(texts)
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    neighbors = NearestNeighbors(n_neighbors=1, metric="cosine").fit(vectorizer.fit_transform(train_texts))
    return neighbors.kneighbors(vectorizer.transform(texts), return_distance=False)[:, 0].tolist()


def tfidf_one_vs_rest(
    train_texts: Sequence[str],
    train_golds: Sequence[Sequence[str]],
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    at_least_one: bool,
) -> list[list[str]]:
    """The classifier of `tfidf_logreg` for each label by itself. A text that no classifier takes gets no label, or with
    `at_least_one` the label of the largest decision value."""
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    if not train_texts or not texts:
        return [[] for _ in texts]
    wanted = np.array([[label in golds for label in labels] for golds in train_golds])
    varying = np.flatnonzero(wanted.any(0) & ~wanted.all(0))  # nothing is to be learned of the others
    chosen = np.tile(wanted.all(0), (len(texts), 1))
    if len(varying):
        vectorizer, classifier = tfidf_pipeline()
        fitted = make_pipeline(vectorizer, OneVsRestClassifier(classifier)).fit(train_texts, wanted[:, varying])
        values = fitted.decision_function(texts).reshape(len(texts), len(varying))
        chosen[:, varying] = values > 0
        if at_least_one:
            none = np.flatnonzero(~chosen.any(1))
            chosen[none, varying[values[none].argmax(1)]] = True
    return [[labels[place] for place in np.flatnonzero(row)] for row in chosen]


def tfidf_pipeline() -> Any:
    """The classifier of `tfidf_logreg`, not yet fitted."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, min_df=1),
        LogisticRegression(max_iter=2000, C=10.0, class_weight="balanced", random_state=0),
    )
