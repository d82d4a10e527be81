"""Scores of free text against the reference implementations: rouge-score, sacrebleu, and SQuAD's own script."""

from __future__ import annotations

import collections
import random
import re
import string

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from tasklib.data import text_scores

CHINESE = "營收毛利率下滑成長第三季的了在是有公司台灣，。、「」！？38％３8"
ENGLISH = ["the", "a", "Revenue", "fell", "by", "38%", "3.5", "U.S.", "well-known", "isn't", "(net)", "IPO.", "&amp;"]


def text(chance: random.Random, kind: str, most: int = 14) -> str:
    """A random text: Chinese, English, or both; sometimes empty of words."""
    n = chance.randint(1, most)
    if kind == "Chinese":
        return "".join(chance.choices(CHINESE, k=n))
    if kind == "English":
        return " ".join(chance.choices(ENGLISH, k=n))
    return text(chance, "Chinese", most) + chance.choice(["", " ", "\n"]) + text(chance, "English", most)


def corpus(seed: int, kind: str, n_references: int, n: int = 40) -> tuple[list[str], list[list[str]]]:
    """Predictions, some of them nearly right, some empty, and the references of each."""
    chance = random.Random(seed)
    references = [[text(chance, kind) for _ in range(n_references)] for _ in range(n)]
    predictions = []
    for right in references:
        chosen = chance.choice(right)
        cut = chance.randint(0, len(chosen))
        predictions.append(chance.choice([chosen, chosen[:cut], chosen[cut:] + text(chance, kind, 4), ""]))
    return predictions, references


every_corpus = pytest.mark.parametrize("seed", range(6))
every_kind = pytest.mark.parametrize("kind", ["Chinese", "English", "both"])
some_references = pytest.mark.parametrize("n_references", [1, 3])


class Tokens:
    """Our tokens, as rouge-score takes a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return text_scores.tokens(text)


@every_corpus
@every_kind
@some_references
def test_rouge_is_that_of_rouge_score_over_the_same_tokens(seed, kind, n_references):
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Tokens())
    for prediction, references in zip(*corpus(seed, kind, n_references), strict=True):
        found = scorer.score_multi(references, prediction)
        assert text_scores.rouge_n(prediction, references, 1) == pytest.approx(found["rouge1"].fmeasure)
        assert text_scores.rouge_l(prediction, references) == pytest.approx(found["rougeL"].fmeasure)
        if all(len(text_scores.tokens(reference)) > 1 for reference in references):
            assert text_scores.rouge_n(prediction, references, 2) == pytest.approx(found["rouge2"].fmeasure)


def test_our_tokens_of_plain_english_are_those_of_rouge_score():
    scorer = RougeScorer(["rougeL"])
    for prediction, (reference,) in zip(*corpus(0, "English", 1), strict=True):
        expected = scorer.score(reference, prediction)["rougeL"].fmeasure
        assert text_scores.rouge_l(prediction, [reference]) == pytest.approx(expected)


@every_corpus
@every_kind
@some_references
def test_chrf_of_summed_counts_is_that_of_sacrebleu(seed, kind, n_references):
    predictions, references = corpus(seed, kind, n_references)
    sums = sum(text_scores.chrf_counts(p, r) for p, r in zip(predictions, references, strict=True))
    expected = CHRF().corpus_score(predictions, [list(column) for column in zip(*references, strict=True)]).score
    assert float(text_scores.chrf(sums)) == pytest.approx(expected / 100, abs=1e-12)


@every_corpus
@every_kind
@some_references
@pytest.mark.parametrize("n", [1, 3, 40])
def test_bleu_of_summed_counts_is_that_of_sacrebleu(seed, kind, n_references, n):
    predictions, references = corpus(seed, kind, n_references, n)
    is_cjk = text_scores.is_cjk([text for row in references for text in row])
    sums = sum(text_scores.bleu_counts(p, r, cjk=is_cjk) for p, r in zip(predictions, references, strict=True))
    metric = BLEU(tokenize="zh" if is_cjk else "13a")
    expected = metric.corpus_score(predictions, [list(column) for column in zip(*references, strict=True)]).score
    assert float(text_scores.bleu(sums)) == pytest.approx(expected / 100, abs=1e-12)


def test_many_corpora_are_scored_at_once_as_each_by_itself():
    predictions, references = corpus(1, "Chinese", 1)
    rows = [text_scores.bleu_counts(p, r, cjk=True) for p, r in zip(predictions, references, strict=True)]
    more = [text_scores.chrf_counts(p, r) for p, r in zip(predictions, references, strict=True)]
    for score, counts in ((text_scores.bleu, np.array(rows)), (text_scores.chrf, np.array(more))):
        assert score(counts).tolist() == [float(score(row)) for row in counts]
        assert score(counts.reshape(4, 10, -1)).shape == (4, 10)
        assert score(np.zeros((2, counts.shape[1]))).tolist() == [0.0, 0.0]


# SQuAD's own script, evaluate-v1.1.py (Rajpurkar et al. 2016)


def normalize_answer(s):
    def remove_articles(text):
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def remove_punc(text):
        return "".join(ch for ch in text if ch not in set(string.punctuation))

    return " ".join(remove_articles(remove_punc(s.lower())).split())


def f1_score(prediction, ground_truth):
    ours, theirs = normalize_answer(prediction).split(), normalize_answer(ground_truth).split()
    num_same = sum((collections.Counter(ours) & collections.Counter(theirs)).values())
    if num_same == 0:
        return 0
    precision, recall = num_same / len(ours), num_same / len(theirs)
    return (2 * precision * recall) / (precision + recall)


@every_corpus
@some_references
def test_exact_match_and_token_f1_of_english_are_those_of_squad(seed, n_references):
    for prediction, references in zip(*corpus(seed, "English", n_references), strict=True):
        if "3.5" in " ".join([prediction, *references]) or not all(map(normalize_answer, [prediction, *references])):
            continue
        exact = any(normalize_answer(prediction) == normalize_answer(reference) for reference in references)
        assert text_scores.exact_match(prediction, references) == exact
        best = max(f1_score(prediction, reference) for reference in references)
        assert text_scores.token_f1(prediction, references) == pytest.approx(best)


EQUAL = {
    "width": ("３８％", "38%"),
    "Chinese punctuation": ("「謝貝利河」。", "謝貝利河"),
    "spaces between Chinese and Latin": ("使用 Python 語言", "使用Python語言"),
    "case and articles": ("The Shebelle River", "shebelle river"),
    "thousands": ("1,000人", "1000人"),
}
DIFFERENT = {
    "a decimal point": ("3.5", "35"),
    "signs alone": ("？", "！"),
    "articles alone": ("a", "the"),
    "one character": ("謝貝利河", "朱巴河"),
}


@pytest.mark.parametrize(("one", "other"), EQUAL.values(), ids=EQUAL)
def test_what_does_not_change_an_answer_is_an_exact_match(one, other):
    assert text_scores.exact_match(one, [other]) == text_scores.token_f1(one, [other]) == 1.0


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_changes_an_answer_is_no_exact_match(one, other):
    assert text_scores.exact_match(one, [other]) == 0.0 and text_scores.token_f1(one, [other]) < 1.0


def test_chinese_is_counted_by_characters_and_latin_by_words():
    assert text_scores.tokens("第3季ＥＰＳ達2.5元，re-rated") == [
        "第",
        "3",
        "季",
        "eps",
        "達",
        "2",
        "5",
        "元",
        "re",
        "rated",
    ]
    assert text_scores.answer_tokens("The EPS 達2.5元。") == ["eps", "達", "2.5", "元"]
    assert text_scores.token_f1("謝貝利", ["謝貝利河"]) == pytest.approx(6 / 7)


def test_the_best_reference_counts():
    assert text_scores.rouge_l("甲乙", ["丙丁", "甲乙"]) == text_scores.token_f1("甲乙", ["丙丁", "甲乙"]) == 1.0


def test_a_text_of_signs_is_right_only_as_it_stands():
    assert text_scores.rouge_l("🙂", ["🙂"]) == text_scores.rouge_n("🙂", ["🙂"], 2) == 1.0
    assert text_scores.rouge_l("🙂", ["🙃"]) == text_scores.rouge_n("🙂", ["🙃"], 2) == 0.0
