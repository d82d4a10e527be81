"""CoNLL files: what is one, sentences with their lines, faults, and what people's files have beside tokens and tags."""

from __future__ import annotations

import pytest

from tasklib.reading import conll_rows, encodings
from tasklib.reading.formats import Format, file_format
from tasklib.reading.records import Remark, Row, read_file
from tasklib.schema import FileSpec
from tasklib.summary import Problem

SENTENCE = "王 B-PER\n小 I-PER\n明 I-PER\n到 O\n台 B-LOC\n北 I-LOC\n"


def read(tmp_path, content, **options):
    path = tmp_path / "a.conll"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_file(path, "a.conll", FileSpec(path="a.conll", format="conll", **options)))


def kind(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = file_format(path, "a.txt", FileSpec(path="a.txt"))
    assert isinstance(found, Format), found
    return found.kind


def test_sentences_are_rows_with_the_line_they_begin_on(tmp_path):
    rows = read(tmp_path, SENTENCE + "\n\n" + SENTENCE)
    assert [row.line for row in rows] == [1, 9]
    tags = ["B-PER", "I-PER", "I-PER", "O", "B-LOC", "I-LOC"]
    assert rows[0].values == {"tokens": list("王小明到台北"), "tags": tags}


FILES = {
    "spaces": SENTENCE * 2,
    "tabs": SENTENCE.replace(" ", "\t") * 2,
    "windows line ends": SENTENCE.replace("\n", "\r\n") * 2,
    "a BOM": "\ufeff" + SENTENCE * 2,
    "more columns": "".join(f"word NN O {'B-ORG' if i % 3 else 'O'}\n" for i in range(12)),
    "comments and documents": "-DOCSTART- -X- O\n\n# a comment\n" + SENTENCE * 2,
    "BMES": SENTENCE.replace("I-PER\n到", "E-PER\n到").replace("小 I-", "小 M-") * 2,
}


@pytest.mark.parametrize("name", FILES)
def test_a_conll_file_is_known_by_its_lines(tmp_path, name):
    assert kind(tmp_path, FILES[name]) == "conll"
    rows = [item for item in read(tmp_path, FILES[name])]
    assert rows and all(isinstance(row, Row) and len(row.values["tokens"]) == len(row.values["tags"]) for row in rows)


OTHERS = {
    "a table": "text\tlabel\n王小明到台北\tO\n天氣很好\tO\n下雨了\tO\n出太陽\tO\n",
    "sentences with a last word like a tag": "\n".join(
        f"這是第{i}句話 很長 B-{i}級的內容放在這裡而且很長很長" for i in range(9)
    ),
    "no entity": "王 O\n小 O\n明 O\n到 O\n台 O\n北 O\n",
    "prose": "今天天氣很好\n我們去台北\n" * 5,
    "empty": "",
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_certainly_conll_is_not_taken_for_it(tmp_path, name):
    assert kind(tmp_path, OTHERS[name]) != "conll"


def test_a_space_can_be_a_token(tmp_path):
    (row,) = read(tmp_path, "用 O\n  O\ni B-ORG\nO I-ORG\nS I-ORG\n".replace("  O", " \tO").replace(" ", "\t", 0))
    assert row.values["tokens"] == ["用", " ", "i", "O", "S"]


@pytest.mark.parametrize("space", [" ", "\u3000", "\u00a0"])
def test_any_white_space_can_be_a_token_before_its_tag(tmp_path, space):
    (row,) = read(tmp_path, f"用 O\n{space} O\n王 B-PER\n")
    assert row.values == {"tokens": ["用", space, "王"], "tags": ["O", "O", "B-PER"]}


@pytest.mark.parametrize("blank", ["", " ", "\t", "\t\t", "\u3000"])
def test_a_line_of_white_space_parts_two_sentences(tmp_path, blank):
    assert kind(tmp_path, (SENTENCE + blank + "\n") * 3) == "conll"
    rows = read(tmp_path, (SENTENCE + blank + "\n") * 3)
    assert [(row.line, len(row.values["tokens"])) for row in rows] == [(1, 6), (8, 6), (15, 6)]


def test_a_line_without_a_tag_or_with_other_columns_costs_its_own_sentence_alone(tmp_path):
    found = read(tmp_path, SENTENCE + "\n王\n小 O\n\n" + SENTENCE + "\n王 x B-PER\n小 I-PER\n\n" + SENTENCE)
    problems = [item for item in found if isinstance(item, Problem)]
    assert [(p.code, p.line) for p in problems] == [("missing_tag", 8), ("column_count", 19)]
    assert [item.line for item in found if isinstance(item, Row)] == [1, 11, 21]


def test_a_line_that_is_no_utf8_costs_its_own_sentence_alone(tmp_path):
    found = read(tmp_path, (SENTENCE + "\n").encode() + b"\xed\xa0\xbd O\n\n" + SENTENCE.encode())
    assert [item.line for item in found if isinstance(item, Row)] == [1, 10]
    assert [item.line for item in found if isinstance(item, Problem)] == [8]


HALVES = [emoji.encode("utf-16-be") for emoji in "\U0001f48b\U0001f602"]
HIGH, LOW = ([chr(int.from_bytes(pair[at : at + 2], "big")) for pair in HALVES] for at in (0, 2))


def halves(*lines):
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")


def test_an_emoji_whose_halves_are_two_tokens_becomes_one_where_the_file_is_mended(tmp_path):
    path = tmp_path / "a.conll"
    lines = ["王 B-PER", f"{HIGH[0]} O", f"{LOW[0]} O", f"{HIGH[1]} B-ORG", f"{LOW[1]} I-ORG", "到 O"]
    path.write_bytes(halves(*lines))
    spec = FileSpec(path="a.conll", format="conll")
    assert [item.line for item in read_file(path, "a.conll", spec) if isinstance(item, Problem)] == [2, 3, 4, 5]
    *remarks, row = read_file(path, "a.conll", spec, encodings.MEND)
    assert [remark.problem.code for remark in remarks] == ["joined_halves"] * 2
    assert row.values == {"tokens": ["王", "\U0001f48b", "\U0001f602", "到"], "tags": ["B-PER", "O", "B-ORG", "O"]}


@pytest.mark.parametrize(
    "lines",
    [[f"{HIGH[0]} O", "王 O", f"{LOW[0]} O"], [f"{LOW[0]} O", f"{HIGH[0]} O"], [f"{HIGH[0]} O", f"{LOW[0]} B-PER"]],
)
def test_halves_that_do_not_go_on_stay_faults_of_their_own_sentence(tmp_path, lines):
    path = tmp_path / "a.conll"
    path.write_bytes(halves(*lines, "", "到 O"))
    found = list(read_file(path, "a.conll", FileSpec(path="a.conll", format="conll"), encodings.MEND))
    assert [item.values["tokens"] for item in found if isinstance(item, Row)] == [["到"]]
    assert {item.code for item in found if isinstance(item, Problem)} == {"not_utf8"}


def test_digits_that_say_the_place_in_a_word_are_taken_off_with_a_remark(tmp_path):
    text = "科0 O\n技1 O\n王0 B-PER\n小1 I-PER\n明2 I-PER\n"
    remark, row = read(tmp_path, text)
    assert isinstance(remark, Remark) and remark.problem.code == "token_places"
    assert row.values["tokens"] == list("科技王小明")


def test_digits_stay_where_not_every_token_has_one(tmp_path):
    (row,) = read(tmp_path, "科0 O\n技1 O\n王 B-PER\n小1 I-PER\n明2 I-PER\n")
    assert row.values["tokens"] == ["科0", "技1", "王", "小1", "明2"]


def test_the_last_line_needs_no_end(tmp_path):
    assert len(read(tmp_path, SENTENCE.rstrip("\n"))) == 1


def test_nothing_but_blank_lines_is_an_empty_file(tmp_path):
    assert [item.code for item in read(tmp_path, "\n\n\n")] == ["empty_file"]


def test_a_reader_of_the_beginning_is_not_misled_by_a_cut_last_line():
    assert conll_rows.is_conll(SENTENCE * 2 + "王 B-P")
