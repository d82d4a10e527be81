"""Near duplicates: what is found is similar enough, little is missed, and no data set is too alike to finish."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from conftest import BUNDLE
from tasklib.data import near_duplicates
from tasklib.data.dataset import duplicate_key

HANZI = [chr(code) for code in range(0x4E00, 0x4E00 + 1500)]
TITLES = BUNDLE.parent / "shared" / "data" / "zh_thucnews_title_topic" / "dev.txt"


def grams(key, n):
    return {key[start : start + n] for start in range(len(key) - n + 1)}


def expected_pairs(texts, threshold):
    """All pairs by brute force, from the definition: what every two texts share is counted gram by gram."""
    first = {}
    for position, text in enumerate(texts):
        first.setdefault(duplicate_key(text), position)
    found = set()
    for n in (2, 3):
        with_gram, n_grams = defaultdict(list), {}
        for key, position in first.items():
            n_grams[position] = grams(key, n)
            shared = Counter(other for gram in n_grams[position] for other in with_gram[gram])
            for other, n_shared in shared.items():
                shorter, longer = sorted((len(key), len(duplicate_key(texts[other]))))
                either = len(n_grams[position]) + len(n_grams[other]) - n_shared
                similar = min(n_shared / either, shorter / longer) >= threshold - 1e-9
                if similar and n == (2 if shorter < near_duplicates.SHORT_LENGTH else 3):
                    found.add((other, position))
            for gram in n_grams[position]:
                with_gram[gram].append(position)
    return found


def found_pairs(texts, threshold):
    pairs = near_duplicates.pairs(iter(texts), threshold)
    assert pairs.dtype == np.int64 and pairs.shape == (len(pairs), 2)
    return [tuple(pair) for pair in pairs.tolist()]


def edited(text, rng, n_edits):
    """The text after some substitutions, insertions and deletions of characters."""
    characters = list(text)
    for _ in range(n_edits):
        at, what = rng.randrange(len(characters)), rng.choice("sid")
        if what == "s":
            characters[at] = rng.choice(HANZI)
        elif what == "i":
            characters.insert(at, rng.choice(HANZI))
        elif len(characters) > 2:
            del characters[at]
    return "".join(characters)


def with_edits(n, lengths, seed=0):
    """`n` random texts, and for each one that differs by as many edits as it takes to be more or less near."""
    rng = random.Random(seed)
    weights = [1 / (rank + 5) for rank in range(len(HANZI))]  # some characters are frequent, as in a language
    texts = []
    for _ in range(n):
        text = "".join(rng.choices(HANZI, weights, k=rng.choice(lengths)))
        texts += [text, edited(text, rng, rng.randint(1, 1 + len(text) // 15))]
    rng.shuffle(texts)
    return texts


# What is found


@pytest.mark.parametrize("lengths", [range(8, 40), range(27, 40), range(60, 400)], ids=["short", "both", "long"])
@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9])
def test_what_is_found_is_similar_and_at_most_one_in_twenty_is_missed(lengths, threshold):
    texts = with_edits(800, lengths)
    found, expected = set(found_pairs(texts, threshold)), expected_pairs(texts, threshold)
    assert found <= expected
    assert len(expected) > 20 and len(found) >= 0.95 * len(expected)


def test_recall_over_many_short_texts_at_the_default_threshold():
    texts = with_edits(3000, range(12, 29), seed=1)
    found, expected = set(found_pairs(texts, 0.8)), expected_pairs(texts, 0.8)
    assert found <= expected
    assert len(expected) > 500 and len(found) >= 0.97 * len(expected)


@pytest.mark.skipif(not TITLES.is_file(), reason="shared data sets are not beside the checkout")
def test_recall_on_real_titles_and_edited_copies_of_them():
    rng = random.Random(0)
    lines = TITLES.read_text(encoding="utf-8").splitlines()[:3000]
    titles = [line.split("\t")[0] for line in lines]
    texts = titles + [edited(title, rng, rng.choice([1, 1, 2])) for title in titles]
    found, expected = set(found_pairs(texts, 0.8)), expected_pairs(texts, 0.8)
    assert found <= expected and len(expected) > 1000
    assert len(found) >= 0.95 * len(expected)


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(st.text("甲乙ab１ 　\n", max_size=50) | st.text(max_size=8), max_size=30),
    threshold=st.sampled_from([0.31, 0.5, 0.8, 0.99]),
)
def test_any_texts_give_pairs_that_are_similar_enough_and_in_order(texts, threshold):
    found = found_pairs(texts, threshold)
    assert found == sorted(set(found)) and set(found) <= expected_pairs(texts, threshold)


SHORT_TEXT = "外銷訂單連三個月成長第四季產能全滿"  # 17 characters
LONG_TEXT = (
    "公司公布第三季財報毛利率較去年同期增加兩個百分點主要來自新產品出貨順利以及匯率有利預期第四季仍可維持目前水準"
)


@pytest.mark.parametrize(
    ("a", "b", "near"),
    [
        (SHORT_TEXT, SHORT_TEXT + "（圖）", True),  # 16 of 19 grams
        (SHORT_TEXT, SHORT_TEXT + "！", True),  # 16 of 17
        (SHORT_TEXT, "外銷訂單連三個月衰退第四季產能全滿", False),  # another word: 13 of 19
        (LONG_TEXT, LONG_TEXT.replace("三", "四", 1), True),  # one character of 52
        (LONG_TEXT, LONG_TEXT[:40], False),
        (LONG_TEXT[:29], LONG_TEXT[:31], True),  # on both sides of where 3-grams begin
        (LONG_TEXT[:30], LONG_TEXT[:29], True),
        ("ＥＰＳ 三十八元 創 新高紀錄", "eps三十八元創新高紀錄!", True),  # width, case and space do not matter
        ("哈" * 10, "哈" * 50, False),  # the same grams, but not the same length
        ("好", "不好", False),
        ("the quarterly revenue rose 12 percent", "the quarterly revenue rose 13 percent", True),
        ("the quarterly revenue rose 12 percent", "the annual revenue fell by 12 percent", False),
    ],
)
def test_pairs_on_both_sides_of_the_threshold(a, b, near):
    assert (found_pairs([a, "別的句子", b], 0.8) == [(0, 2)]) == near


def test_unrelated_long_texts_of_a_latin_script_are_no_pairs():
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlucm", k=rng.randint(2, 9))) for _ in range(400)]
    texts = [" ".join(rng.choices(words, k=600)) for _ in range(20)]
    assert expected_pairs(texts, 0.3) and not expected_pairs(texts, 0.8)  # they do share a lot of 3-grams
    assert found_pairs(texts, 0.8) == []


def test_texts_without_a_gram_have_no_pairs():
    assert found_pairs([], 0.8) == found_pairs(["", " ", "a", "b"], 0.8) == []
    assert found_pairs(["\ud800" * 12 + "x", "\ud800" * 12 + "xy"], 0.5) == [(0, 1)]  # half a surrogate pair


# Rows that are alike in large numbers


def test_ten_thousand_equal_texts_have_no_pair_and_their_first_has_those_of_all():
    started = time.perf_counter()
    texts = [SHORT_TEXT] * 5000 + [SHORT_TEXT + "！"] + [SHORT_TEXT + " "] * 5000
    assert found_pairs(texts, 0.8) == [(0, 5000)]
    assert time.perf_counter() - started < 5


def test_rows_of_a_template_stay_connected_without_all_their_pairs():
    rng = random.Random(2)
    texts = [f"您好，您的訂單編號{number:06d}已於今日出貨，感謝您的購買" for number in range(0, 11_000, 10)]
    rng.shuffle(texts)
    found, expected = near_duplicates.pairs(texts, 0.8), np.array(sorted(expected_pairs(texts, 0.8)))
    assert len(found) < 0.7 * len(expected)
    assert components(found, len(texts)) == components(expected, len(texts))


def components(pairs, n_rows):
    """The sets of rows that hang together."""
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n_rows, n_rows))
    of_row = connected_components(graph, directed=False)[1].tolist()
    together = defaultdict(set)
    for row, component in enumerate(of_row):
        together[component].add(row)
    return {frozenset(rows) for rows in together.values()}


# Repetition, progress, speed


def test_the_same_texts_give_the_same_pairs():
    texts = with_edits(300, range(10, 60))
    assert found_pairs(texts, 0.7) == found_pairs(list(texts), 0.7) != []


@pytest.mark.parametrize(("n", "shown"), [(200, False), (near_duplicates.PROGRESS_ROWS + 1, True)])
def test_progress_is_shown_on_stderr_for_many_rows_only(n, shown, capfd):
    near_duplicates.pairs((f"{number}：{chr(0x4E00 + number % 5000)}公司的消息" for number in range(n)), 0.8)
    out, err = capfd.readouterr()
    assert out == "" and ("near duplicates" in err) == shown


def test_ten_thousand_titles_take_a_moment():
    texts = with_edits(5000, range(12, 25))
    near_duplicates.pairs(texts[:10], 0.8)  # loads the packages
    started = time.perf_counter()
    assert len(near_duplicates.pairs(texts, 0.8)) > 500
    assert time.perf_counter() - started < 5
