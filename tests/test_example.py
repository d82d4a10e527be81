"""The bundled example is what its page says: original, imbalanced, with hard cases in every class."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "templates/examples/financial-sentiment"
HARD = {"否定", "混合", "反諷", "數字"}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with (FOLDER / "news.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_there_are_at_least_600_different_sentences(rows):
    assert len({row["標題"] for row in rows}) == len(rows) >= 600


def test_three_classes_are_imbalanced_and_each_is_large_enough_to_measure(rows):
    counts = Counter(row["情感"] for row in rows)
    assert set(counts) == {"positive", "negative", "neutral"}
    assert counts["neutral"] > 2.5 * counts["negative"] and min(counts.values()) >= 100


def test_every_kind_of_hard_case_occurs_in_every_class(rows):
    pairs = Counter((row["難例"], row["情感"]) for row in rows)
    for kind in HARD:
        for label in ("positive", "negative", "neutral"):
            assert pairs[kind, label] >= 8, (kind, label)
    assert sum(row["難例"] in HARD for row in rows) / len(rows) > 0.3


def test_the_sentences_are_written_in_traditional_chinese(rows):
    for row in rows:
        row["標題"].encode("big5")  # Simplified characters are not in Big5
        assert 10 <= len(row["標題"]) <= 50


def test_no_surface_word_gives_the_class_away(rows):
    for word in ("成長", "衰退", "下滑", "創高"):
        assert {row["情感"] for row in rows if word in row["標題"]} == {"positive", "negative", "neutral"}


def test_the_page_of_the_example_gives_the_true_counts(rows):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    counts = Counter(row["情感"] for row in rows)
    for number in (len(rows), *counts.values(), sum(row["難例"] in HARD for row in rows)):
        assert f"{number}" in page
