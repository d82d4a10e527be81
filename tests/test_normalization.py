"""Declared steps of data.normalize: what they change, and where offsets go."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklib import schema
from tasklib.data import normalization


@pytest.mark.parametrize("step", schema.NORMALIZE_STEPS)
def test_every_legal_step_converts(step):
    assert normalization.applied("", [step]) == ""
    assert normalization.applied("鼠标里面的硅二极管，ＡＢＣ１２３", [step])


CHANGED = {
    "nfkc": ("ＡＢＣ１２３，㈱①", "ABC123,(株)1"),
    "halfwidth": ("ＡＢＣ１２３，㈱①　x", "ABC123,㈱① x"),
    "opencc_s2t": ("软件里面", "軟件裏面"),
    "opencc_s2twp": ("鼠标里面的硅二极管坏了", "滑鼠裡面的矽二極體壞了"),
    "opencc_tw2sp": ("滑鼠裡面的矽二極體壞了", "鼠标里面的硅二极管坏了"),
    "opencc_t2s": ("臺灣的記憶體", "台湾的记忆体"),
}


@pytest.mark.parametrize("step", CHANGED)
def test_a_step_changes_what_its_name_says(step):
    before, after = CHANGED[step]
    assert normalization.applied(before, [step]) == after


def test_steps_are_applied_in_their_order():
    assert normalization.applied("ＵＳＢ软件", ["opencc_s2twp", "halfwidth"]) == "USB軟體"


SPANS = [
    ("nfkc", "㈱鴻海與ＴＳＭＣ", "鴻海", "鴻海"),
    ("nfkc", "㈱鴻海與ＴＳＭＣ", "ＴＳＭＣ", "TSMC"),
    ("halfwidth", "說：ＴＳＭＣ漲了", "ＴＳＭＣ", "TSMC"),
    ("opencc_s2twp", "这个软件由联发科开发", "联发科", "聯發科"),
    ("opencc_s2twp", "信息产业的服务器由鸿海制造", "鸿海", "鴻海"),
]


@pytest.mark.parametrize(("step", "text", "entity", "expected"), SPANS)
def test_offsets_go_on_pointing_to_the_same_words(step, text, entity, expected):
    start = text.index(entity)
    new, (first, last) = normalization.with_offsets(text, [step], [start, start + len(entity)])
    assert new == normalization.applied(text, [step]) and new[first:last] == expected


@given(text=st.text(), data=st.data())
def test_boundaries_stay_in_order_and_inside_whatever_the_text(text, data):
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    for steps in (["nfkc"], ["halfwidth", "nfkc"], []):
        new, moved = normalization.with_offsets(text, steps, places)
        assert all(0 <= place <= len(new) for place in moved)
        if "nfkc" in steps:
            assert new == unicodedata.normalize("NFKC", new)
        if not steps:
            assert moved == places and new == text
