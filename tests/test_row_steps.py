"""Declared steps after reading (explode, melt, collect) and files of three lines an example."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from reading import read
from task_folder import jsonl
from tasklib.schema import FileSpec

SOME = settings(max_examples=200, deadline=2000, derandomize=True, suppress_health_check=list(HealthCheck))

# explode

ITEMS = {"text": "甲勝乙", "id": 7, "found": [{"name": "甲", "label": "+", "id": 1}, {"name": "乙", "label": "-"}]}


def test_each_element_of_a_list_is_a_row_with_the_columns_of_its_row_and_its_line(tmp_path):
    found = read(
        tmp_path / "a.jsonl", jsonl({"text": "x", "found": [{"name": "x"}]}, ITEMS), explode={"column": "found"}
    )
    assert found.rows == [
        (1, {"text": "x", "name": "x"}),
        (2, {"text": "甲勝乙", "id": 7, "name": "甲", "label": "+", "found.id": 1}),  # id stands in the row too
        (2, {"text": "甲勝乙", "id": 7, "name": "乙", "label": "-"}),
    ]
    assert found.problems == []


def test_a_list_in_a_cell_of_a_table_is_json_text_and_plain_elements_keep_the_column(tmp_path):
    content = 'text,found\nx,"[""a"", ""b""]"\ny,\n'
    found = read(tmp_path / "a.csv", content, explode={"column": "found"})
    assert found.rows == [(2, {"text": "x", "found": "a"}), (2, {"text": "x", "found": "b"})]
    assert found.warnings == [("empty_list", 3)]


def test_rows_with_empty_lists_are_counted_at_the_first_of_them(tmp_path):
    content = jsonl(ITEMS, {"text": "x", "found": []}, {"text": "y", "found": None})
    found = read(tmp_path / "a.jsonl", content, explode={"column": "found"})
    assert found.warnings == [("empty_list", 2)] and found.remarks[0].message.startswith("2 rows")
    assert len(found.rows) == 2


@pytest.mark.parametrize("cell", ["not a list", {"name": "a"}, 3, "{}", "[1"], ids=str)
def test_a_cell_that_is_no_list_is_a_fault_of_its_row(tmp_path, cell):
    found = read(tmp_path / "a.jsonl", jsonl({"text": "x", "found": cell}, ITEMS), explode={"column": "found"})
    assert found.faults == [("no_list", 1)] and len(found.rows) == 2


# melt

WIDE = "id,review,Food#Taste,Food#Look,price\n1,好吃,1,-2,-1\n2,普通,-2,-2,-2\n3,漂亮,-2,1,\n"
MELT = {"columns": ["Food#*", "price"], "entity": "aspect", "value": "polarity", "drop": ["-2", ""]}


def test_each_filled_column_of_a_wide_table_is_a_row_of_the_same_line(tmp_path):
    found = read(tmp_path / "a.csv", WIDE, melt=MELT)
    assert found.rows == [
        (2, {"id": "1", "review": "好吃", "aspect": "Food#Taste", "polarity": "1"}),
        (2, {"id": "1", "review": "好吃", "aspect": "price", "polarity": "-1"}),
        (4, {"id": "3", "review": "漂亮", "aspect": "Food#Look", "polarity": "1"}),
    ]
    assert found.warnings == [("all_dropped", 3)] and found.problems == []


def test_numbers_of_json_are_dropped_as_their_digits(tmp_path):
    content = jsonl({"review": "x", "a": -2, "b": -2.0, "c": 1, "d": None})
    found = read(tmp_path / "a.jsonl", content, melt={**MELT, "columns": "[a-d]"})
    assert [values["aspect"] for _, values in found.rows] == ["c"]


def test_a_name_that_could_be_a_pattern_is_first_of_all_a_name(tmp_path):
    found = read(tmp_path / "a.csv", "t,size[cm]\nx,1\n", melt={**MELT, "columns": ["size[cm]"]})
    assert found.rows == [(2, {"t": "x", "aspect": "size[cm]", "polarity": "1"})]


def test_a_column_that_no_row_has_is_named(tmp_path):
    found = read(tmp_path / "a.csv", WIDE, melt={**MELT, "columns": ["Food#*", "Prise"]})
    assert [(p.code, p.field) for p in found.problems] == [("missing_column", "melt.columns")]
    assert "'Prise'" in found.problems[0].message
    found = read(tmp_path / "b.csv", WIDE, explode={"column": "nothing"})
    assert ("missing_column", 1) in found.faults


def test_a_new_column_that_stands_in_the_file_already_is_refused(tmp_path):
    found = read(tmp_path / "a.csv", WIDE, melt={**MELT, "entity": "review"})
    assert {code for code, _ in found.faults} == {"duplicate_column"} and found.rows == []


# collect

LONG = "text,entity,sentiment\nx,甲,+\nx,乙,-\ny,,\nx,丙,+\n"
COLLECT = {"by": "text", "into": "pairs", "columns": ["entity", "sentiment"]}


def test_rows_that_follow_each_other_with_one_text_are_joined_and_empty_ones_add_nothing(tmp_path):
    found = read(tmp_path / "a.csv", LONG, collect=COLLECT)
    assert found.rows == [
        (2, {"text": "x", "pairs": [{"entity": "甲", "sentiment": "+"}, {"entity": "乙", "sentiment": "-"}]}),
        (4, {"text": "y", "pairs": []}),
        (5, {"text": "x", "pairs": [{"entity": "丙", "sentiment": "+"}]}),  # no neighbour of the first
    ]


def test_steps_follow_each_other(tmp_path):
    found = read(
        tmp_path / "a.csv", WIDE, melt=MELT, collect={**COLLECT, "by": "review", "columns": ["aspect", "polarity"]}
    )
    assert [len(values["pairs"]) for _, values in found.rows] == [2, 1]


@SOME
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 3), min_size=1, max_size=3)), max_size=6)
)
def test_collect_undoes_explode_where_neighbours_differ(tmp_path, rows):
    rows = [(f"{text}{number}", items) for number, (text, items) in enumerate(rows)]
    content = jsonl(*({"text": text, "found": [{"n": n} for n in items]} for text, items in rows))
    spec = {"explode": {"column": "found"}, "collect": {"by": "text", "into": "found", "columns": ["n"]}}
    found = read(tmp_path / "a.jsonl", content or "\n", format="json", **spec)
    assert [(v["text"], [one["n"] for one in v["found"]]) for _, v in found.rows] == rows
    assert [line for line, _ in found.rows] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize(
    "spec",
    [
        {"melt": {**MELT, "value": "aspect"}},
        {"melt": {**MELT, "columns": []}},
        {"collect": {**COLLECT, "by": "entity"}},
        {"collect": {**COLLECT, "into": "text"}},
        {"explode": {"column": ""}},
    ],
    ids=str,
)
def test_steps_that_contradict_themselves_are_refused(spec):
    with pytest.raises(ValidationError):
        FileSpec(path="a.csv", **spec)


# Three lines an example

TRIPLETS = "$T$ 很靚\n圖標\nPositive\n我嫌 $T$ 太小\n螢幕\n-1\n"


def test_three_lines_are_a_row_and_the_content_says_so(tmp_path):
    for spec in ({}, {"format": "triplet"}):
        found = read(tmp_path / "a.txt", TRIPLETS, **spec)
        assert found.rows == [
            (1, {"text": "圖標 很靚", "entity": "圖標", "sentiment": "Positive"}),
            (4, {"text": "我嫌 螢幕 太小", "entity": "螢幕", "sentiment": "-1"}),
        ]
        assert found.problems == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_blank_ends_and_a_mark_at_the_start_do_not_matter(tmp_path, end):
    content = ("\ufeff" + TRIPLETS).replace("Positive\n", "Positive\n\n") + "\n\n"
    found = read(tmp_path / "a.txt", content.replace("\n", end), format="triplet")
    assert [line for line, _ in found.rows] == [1, 5] and found.values[0][0] == "圖標 很靚"


NO_TRIPLETS = [
    "a,b\n1,2\n3,4\n",
    "$T$ a\nb\nc\n$T$ d\ne\nf\n",
    "a\nb\n1\nc\nd\n1\n",
    "$T$ a\nb\n1\nc\n$T$ d\n-1\n",
    "$T$ a\n$T$\n1\n",
]


@pytest.mark.parametrize("content", NO_TRIPLETS, ids=ascii)
def test_what_is_not_certainly_such_a_file_is_read_as_a_table(tmp_path, content):
    assert not any("entity" in values for _, values in read(tmp_path / "a.txt", content).rows)


FAULTS = {
    "a line is missing": ("$T$ a\nb\n" + TRIPLETS, [("missing_line", 1)], 2),
    "the last line is missing": (TRIPLETS + "$T$ a\nb", [("missing_line", 7)], 2),
    "no placeholder": (TRIPLETS + "a\nb\n1\n" + TRIPLETS, [("no_placeholder", 7)], 4),
    "a line too many": ("$T$ a\nb\n1\nx\n" + TRIPLETS, [("no_placeholder", 4)], 3),
    "a line before the first": ("x\n" + TRIPLETS, [("no_placeholder", 1)], 2),
}


@pytest.mark.parametrize(("content", "faults", "n_rows"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_example_costs_itself_alone_and_is_named_by_its_line(tmp_path, content, faults, n_rows):
    found = read(tmp_path / "a.txt", content, format="triplet")
    assert found.faults == faults and len(found.rows) == n_rows


def test_a_sentence_with_two_placeholders_is_read_with_its_term_in_both_and_told(tmp_path):
    found = read(tmp_path / "a.txt", TRIPLETS + "$T$ 和 $T$\nb\n1\n", format="triplet")
    assert found.faults == [] and found.values[-1] == ("b 和 b", "b", "1")
    assert found.warnings == [("several_placeholders", 7)]


def test_a_byte_that_is_no_text_costs_its_own_example_alone(tmp_path):
    content = TRIPLETS.encode() + b"$T$ a\xff\nb\n1\n" + TRIPLETS.encode()
    found = read(tmp_path / "a.txt", content, format="triplet")
    assert len(found.rows) >= 3 and found.faults[0] == ("not_utf8", 7)


LINE = st.text(st.sampled_from(["a", "好", " ", ",", '"', "1"]), min_size=1, max_size=6).filter(str.strip)


@SOME
@given(examples=st.lists(st.tuples(LINE, LINE, LINE), min_size=1, max_size=5))
def test_every_example_is_read_back(tmp_path, examples):
    content = "".join(f"{sentence}$T$\n{term}\n{polarity}\n" for sentence, term, polarity in examples)
    found = read(tmp_path / "a.txt", content, format="triplet")
    assert found.values == [(f"{s}{t.strip()}".strip(), t.strip(), p.strip()) for s, t, p in _stripped(examples)]
    assert [line for line, _ in found.rows] == list(range(1, 3 * len(examples), 3))


def _stripped(examples):
    return [(sentence.lstrip(), term, polarity) for sentence, term, polarity in examples]


def test_json_lists_are_never_taken_for_triplets(tmp_path):
    content = json.dumps([{"text": "$T$", "a": "b"}], indent=0)
    assert read(tmp_path / "a.json", content).values == [("$T$", "b")]
