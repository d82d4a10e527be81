"""SQuAD files: recognised by their content, one row for each question, with the lines that an editor shows."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reading import read

CONTEXT = "舊鐵橋修復工程今年動工，經費三億元。"


def question(number: int, text: str = "多少錢？", **more) -> dict:
    return {"id": f"q{number}", "question": text, "answers": [{"text": "三億元", "answer_start": 14}], **more}


def squad(*paragraphs: dict, **more) -> dict:
    return {"version": "1.1", **more, "data": [{"title": "舊鐵橋", "paragraphs": list(paragraphs)}]}


TWO = squad(
    {"context": CONTEXT, "qas": [question(1), question(2, "何時動工？")]},
    {"context": "第二段", "qas": [question(3, is_impossible=True, answers=[])]},
)


def written(value, **how) -> str:
    return json.dumps(value, ensure_ascii=False, **how)


@pytest.mark.parametrize("name", ["a.json", "a.txt"])
@pytest.mark.parametrize("declared", [{}, {"format": "squad"}])
def test_a_file_is_one_row_for_each_question(tmp_path, name, declared):
    found = read(tmp_path / name, written(TWO), **declared)
    assert found.problems == found.remarks == []
    values = [row for _, row in found.rows]
    assert [row["id"] for row in values] == ["q1", "q2", "q3"]
    assert values[0] == {
        "title": "舊鐵橋",
        "context": CONTEXT,
        "question": "多少錢？",
        "answers": [{"text": "三億元", "answer_start": 14}],
        "id": "q1",
    }
    assert values[2]["answers"] == [] and values[2]["is_impossible"] is True
    assert {line for line, _ in found.rows} == {1}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_each_question_has_its_own_line_where_the_file_has_lines(tmp_path, end):
    text = written(TWO, indent=1)
    found = read(tmp_path / "a.json", text.replace("\n", end))
    lines = [number for number, line in enumerate(text.split("\n"), start=1) if '"question"' in line]
    assert [line for line, _ in found.rows] == lines and len(set(lines)) == 3


def test_a_text_that_holds_the_word_question_in_quotes_does_not_move_the_lines(tmp_path):
    tricky = squad({"context": 'He said "question": why?', "qas": [question(1), question(2)]})
    found = read(tmp_path / "a.json", written(tricky, indent=1))
    assert len({line for line, _ in found.rows}) == 2


@pytest.mark.parametrize(
    "value",
    [
        {"data": [1, 2]},
        {"data": "paragraphs"},
        {"data": [{"text": "a", "label": "b"}]},
        {"paragraphs": [{"context": "a"}]},
        {"nested": {"data": [{"paragraphs": []}]}},
    ],
    ids=str,
)
def test_another_object_is_not_taken_for_squad(tmp_path, value):
    found = read(tmp_path / "a.json", written(value))
    assert [row for _, row in found.rows] == [value]


def test_lines_that_look_alike_are_rows_of_json_lines_until_one_holds_paragraphs(tmp_path):
    lines = "".join(written({"data": [{"a": n}]}) + "\n" for n in range(3))
    assert len(read(tmp_path / "a.jsonl", lines).rows) == 3


MALFORMED = {
    "no data": ({"version": "1"}, "data is missing"),
    "data is an object": ({"data": {}}, "data is no list"),
    "an article is text": (squad() | {"data": ["x"]}, "data[0] is no object"),
    "no paragraphs": ({"data": [{"title": "t"}]}, "data[0].paragraphs is missing"),
    "no questions": (squad({"context": "c"}), "data[0].paragraphs[0].qas is missing"),
    "a question without text": (
        squad({"context": "c", "qas": [{"id": "1"}]}),
        "data[0].paragraphs[0].qas[0] has no 'question'",
    ),
}


@pytest.mark.parametrize(("value", "message"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_squad_is_named_by_its_place(tmp_path, value, message):
    found = read(tmp_path / "a.json", written(value), format="squad")
    assert [(problem.code, problem.message) for problem in found.problems if problem.code != "empty_file"] == [
        ("not_squad", message)
    ]


def test_questions_beside_a_malformed_one_are_read(tmp_path):
    found = read(tmp_path / "a.json", written(squad({"context": "c", "qas": [3, question(1), {}, question(2)]})))
    assert [row["id"] for _, row in found.rows] == ["q1", "q2"]
    assert [problem.code for problem in found.problems] == ["not_squad", "not_squad"]


@pytest.mark.parametrize(
    ("spoiled", "code"),
    [
        (written(TWO)[:-9], "truncated"),
        (written(TWO, indent=1).replace('"id": "q2",', '"id": "q2"'), "unparsable"),
        (written(TWO).replace('"id": "q2"', '"id": NaN'), "nan_literal"),
        (written(TWO).replace('"id": "q2"', '"id": "a", "id": "b"'), "duplicate_key"),
        (written(TWO).replace("何時動工", "\\ud83d"), "lone_surrogate"),
    ],
    ids=["cut off", "a comma missing", "NaN", "a key twice", "half an emoji"],
)
def test_a_broken_file_is_a_named_problem(tmp_path, spoiled, code):
    found = read(tmp_path / "a.json", spoiled)
    assert [problem.code for problem in found.problems if problem.code != "empty_file"] == [code]
    assert len(found.rows) == (2 if code == "lone_surrogate" else 0)


def test_a_byte_that_is_no_text_costs_its_own_question_alone(tmp_path):
    content = written(TWO, indent=1).encode().replace("何時".encode(), "何".encode() + b"\xff")
    found = read(tmp_path / "a.json", content)
    assert [row["id"] for _, row in found.rows] == ["q1", "q3"]
    ((code, line),) = found.faults
    assert code == "not_utf8" and line == 1 + content[: content.index(b"\xff")].count(b"\n")


def test_big5_is_read_when_it_is_declared_and_named_when_it_is_not(tmp_path):
    content = written(TWO).encode("big5")
    assert len(read(tmp_path / "a.json", content, encoding="big5").rows) == 3
    found = read(tmp_path / "a.json", content)
    assert "big5" in found.problems[0].hint and found.rows == []


TEXTS = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('"\\\n\r[]{},:')), max_size=12)
QUESTIONS = st.fixed_dictionaries(
    {"id": TEXTS, "question": TEXTS, "answers": st.lists(st.fixed_dictionaries({"text": TEXTS}), max_size=2)}
)
PARAGRAPHS = st.fixed_dictionaries({"context": TEXTS, "qas": st.lists(QUESTIONS, max_size=3)})
SOME = settings(max_examples=300, deadline=2000, derandomize=True, suppress_health_check=list(HealthCheck))


@SOME
@given(
    paragraphs=st.lists(PARAGRAPHS, min_size=1, max_size=3), indent=st.sampled_from([None, 0, 2]), plain=st.booleans()
)
def test_every_question_that_json_writes_is_read_back_with_its_line(tmp_path, paragraphs, indent, plain):
    text = json.dumps(squad(*paragraphs), indent=indent, ensure_ascii=plain)
    found = read(tmp_path / "a.json", text, format="squad")
    expected = [(p["context"], q["question"], q["answers"], q["id"]) for p in paragraphs for q in p["qas"]]
    assert [(v["context"], v["question"], v["answers"], v["id"]) for _, v in found.rows] == expected
    lines = [number for number, line in enumerate(text.split("\n"), 1) if re.match(r'\s*"question":', line)]
    assert indent is None or [line for line, _ in found.rows] == lines


@SOME
@given(at=st.integers(0, 600), junk=st.binary(max_size=4), indent=st.sampled_from([None, 1]))
def test_a_damaged_file_is_read_to_the_end(tmp_path, at, junk, indent):
    content = bytearray(written(TWO, indent=indent).encode())
    content[at : at + len(junk)] = junk
    found = read(tmp_path / "a.json", bytes(content), format="squad")
    assert found.rows or found.problems
