"""Scores of a free text against the texts that would be right: ROUGE, chrF, BLEU, exact match and token F1.

Every function gives the numbers of one row, and those of a corpus are sums of them: ROUGE, exact match and token F1 are
means over rows; chrF and BLEU are computed from summed n-gram counts (`chrf`, `bleu`), as sacrebleu does.
"""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from tasklib.data import answers

# Scripts that put no spaces between words: kana, bopomofo, Han. Each of their characters is a token.
_CJK = "\u3005\u3007\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_CJK += "\U00020000-\U0003ffff"
_CHARACTER = re.compile(f"[{_CJK}]")
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_PART = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
_ARTICLES = re.compile(r"\b(a|an|the)\b")

CHRF_ORDER, CHRF_BETA = 6, 2  # Popović 2016, "chrF deconstructed: beta parameters and n-gram weights"; sacrebleu's own
BLEU_ORDER = 4  # Papineni et al. 2002
N_CHRF, N_BLEU = 3 * CHRF_ORDER, 2 + 2 * BLEU_ORDER  # columns of the counts of a row


def tokens(text: str) -> list[str]:
    """What ROUGE counts: characters of Chinese and Japanese, words of other scripts, in one width and case, without
    punctuation. A text of nothing but signs is its characters, so that it can be right or wrong too."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _TOKEN.findall(folded) or [char for char in folded if not char.isspace()]


def answer_tokens(text: str) -> list[str]:
    """What exact match and token F1 compare: width, case, punctuation and English articles do not count, words are
    split at white space and Chinese into characters.

    SQuAD's `normalize_answer` (Rajpurkar et al. 2016, evaluate-v1.1.py), with the characters of CMRC 2018 and DRCD
    for Chinese. It differs in two things: the decimal point stays, because 3.5 is not 35, and an answer of nothing but
    signs and articles is compared as it stands instead of being equal to every other one.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = (char for place, char in enumerate(folded) if not _is_sign(char) or _is_decimal_point(folded, place))
    return _PART.findall(_ARTICLES.sub(" ", "".join(kept))) or [char for char in folded if not char.isspace()]


def _is_sign(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char)[0] == "P"


def _is_decimal_point(text: str, place: int) -> bool:
    around = text[place - 1 : place] + text[place + 1 : place + 2]
    return text[place] == "." and len(around) == 2 and around.isdecimal()


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 where the answer is one of the references but for what `answer_tokens` leaves out."""
    given = answer_tokens(prediction)
    return float(any(given == answer_tokens(reference) for reference in references))


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """F1 of the tokens that answer and reference share, each as often as both have it; the best of the references."""
    given = Counter(answer_tokens(prediction))
    return max((_overlap(given, Counter(answer_tokens(reference))) for reference in references), default=0.0)


def rouge_n(prediction: str, references: Sequence[str], n: int) -> float:
    """F1 of the n-grams of `tokens` (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"); the best of
    the references, as rouge-score has it. Where neither text is n tokens long, they are equal (1.0) or not."""

    def of(given: list[str], right: list[str]) -> float:
        if max(len(given), len(right)) < n:
            return float(given == right)
        return _overlap(_ngrams(given, n), _ngrams(right, n))

    return _best(of, prediction, references)


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """F1 of the longest common subsequence of `tokens`, over the whole text (Lin 2004); the best of the references."""
    return _best(lambda a, b: 2 * _n_common(a, b) / (len(a) + len(b)) if a and b else 0.0, prediction, references)


def _best(score: Callable[[list[str], list[str]], float], prediction: str, references: Sequence[str]) -> float:
    given = tokens(prediction)
    return max((score(given, tokens(reference)) for reference in references), default=0.0)


def _ngrams(parts: Sequence[str], n: int) -> Counter:
    return Counter(tuple(parts[i : i + n]) for i in range(len(parts) - n + 1))


def _overlap(given: Counter, right: Counter) -> float:
    n_all = given.total() + right.total()
    return 2 * (given & right).total() / n_all if n_all else 0.0


def _n_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, in bits of one integer (Hyyrö 2004, "Bit-parallel LCS-length
    computation revisited")."""
    places: dict[str, int] = {}
    for position, part in enumerate(a):
        places[part] = places.get(part, 0) | 1 << position
    every = row = (1 << len(a)) - 1
    for part in b:
        matches = row & places.get(part, 0)
        row = ((row + matches) | (row - matches)) & every
    return len(a) - row.bit_count()


def is_cjk(texts: Sequence[str]) -> bool:
    """Whether most tokens of the texts are characters of Chinese or Japanese."""
    found = [part for text in texts for part in tokens(text)]
    return 2 * sum(_CHARACTER.match(part) is not None for part in found) > len(found)


def chrf_counts(prediction: str, references: Sequence[str]) -> np.ndarray:
    """Character n-grams of answer, reference and both, for n = 1 to 6 in turn: shape (N_CHRF,). Of several references
    it is the one with the best score, as in sacrebleu."""
    given = _character_ngrams(prediction)
    found = [_chrf_counts(given, _character_ngrams(reference)) for reference in references]
    return max(found, key=lambda row: float(chrf(row))) if len(found) > 1 else found[0]


def _character_ngrams(text: str) -> list[Counter]:
    text = "".join(text.split())
    return [Counter(text[i : i + n] for i in range(len(text) - n + 1)) for n in range(1, CHRF_ORDER + 1)]


def _chrf_counts(given: Sequence[Counter], right: Sequence[Counter]) -> np.ndarray:
    counts = [
        (ours.total() if theirs else 0, theirs.total(), (ours & theirs).total())
        for ours, theirs in zip(given, right, strict=True)
    ]
    return np.array(counts, dtype=np.float64).ravel()


def chrf(sums: np.ndarray) -> np.ndarray:
    """chrF2 in [0, 1] of summed `chrf_counts` (..., N_CHRF): the F-score, recall counting twice, of mean precision and
    mean recall over the orders that both sides have (sacrebleu's CHRF() over 100)."""
    parts = np.asarray(sums, dtype=np.float64).reshape(*np.shape(sums)[:-1], CHRF_ORDER, 3)
    n_given, n_right, n_both = parts[..., 0], parts[..., 1], parts[..., 2]
    has_both = (n_given > 0) & (n_right > 0)
    n_orders = np.maximum(has_both.sum(-1), 1)
    precision = np.where(has_both, n_both / np.maximum(n_given, 1), 0).sum(-1) / n_orders
    recall = np.where(has_both, n_both / np.maximum(n_right, 1), 0).sum(-1) / n_orders
    weight = CHRF_BETA**2
    return np.nan_to_num(answers.ratio((1 + weight) * precision * recall, weight * precision + recall), nan=0.0)


def bleu_tokens(text: str, *, cjk: bool) -> list[str]:
    """sacrebleu's tokenizer `zh` (characters of Chinese) or its default `13a`."""
    return _bleu_tokenizer(cjk)(text.rstrip()).split()


@functools.cache
def _bleu_tokenizer(cjk: bool) -> Callable[[str], str]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

    return TokenizerZh() if cjk else Tokenizer13a()


def bleu_counts(prediction: str, references: Sequence[str], *, cjk: bool) -> np.ndarray:
    """Tokens of the answer and of the reference nearest to it in length, then for n = 1 to 4 the n-grams that occur in
    a reference and all n-grams of the answer: shape (N_BLEU,)."""
    given, right = bleu_tokens(prediction, cjk=cjk), [bleu_tokens(text, cjk=cjk) for text in references]
    nearest = min((abs(len(given) - len(parts)), len(parts)) for parts in right)[1]
    matches, totals = [], []
    for n in range(1, BLEU_ORDER + 1):
        ours, theirs = _ngrams(given, n), Counter()
        for parts in right:
            theirs |= _ngrams(parts, n)  # the most that one reference has
        matches.append((ours & theirs).total())
        totals.append(ours.total())
    return np.array([len(given), nearest, *matches, *totals], dtype=np.float64)


def bleu(sums: np.ndarray) -> np.ndarray:
    """Corpus BLEU in [0, 1] of summed `bleu_counts` (..., N_BLEU), smoothed as sacrebleu's default `exp` does: the k-th
    precision that is zero counts as 1 / (2^k x n-grams) (method 3 of Chen & Cherry 2014)."""
    sums = np.asarray(sums, dtype=np.float64)
    n_given, n_right = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2 : 2 + BLEU_ORDER], sums[..., 2 + BLEU_ORDER :]
    is_zero = (matches == 0) & (totals > 0)
    smoothed = np.where(is_zero, 0.5 ** np.cumsum(is_zero, axis=-1), matches)
    precisions = smoothed / np.maximum(totals, 1)
    is_defined = (totals > 0).all(-1) & (matches > 0).any(-1)
    logs = np.log(np.where(is_defined[..., None], precisions, 1.0)).mean(-1)
    brevity = np.minimum(0.0, 1 - n_right / np.maximum(n_given, 1))
    return np.where(is_defined, np.exp(logs + brevity), 0.0)
