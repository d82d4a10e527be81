"""Text in every encoding a file may have is read as what it is; a wrong byte is named with its line and place."""

from __future__ import annotations

import codecs
import os

import pytest

from reading import read
from tasklib.reading import encodings

TRADITIONAL = "營收創下歷史新高，法人看好後市表現；公司宣布將擴大投資，但員工表示對薪資調整仍不滿意。"
SIMPLIFIED = "营收创下历史新高，分析师看好后市表现；公司宣布将扩大投资，但员工表示对薪资调整仍不满意。"
TABLE = "text,label\n" + "".join(f"{number}{TRADITIONAL},好\n" for number in range(5))
SIMPLE_TABLE = "text,label\n" + "".join(f"{number}{SIMPLIFIED},好\n" for number in range(5))
ROWS = [(f"{number}{TRADITIONAL}", "好") for number in range(5)]

ENCODED = {
    "UTF-8": (TABLE.encode(), "utf-8"),
    "UTF-8 with a mark": (codecs.BOM_UTF8 + TABLE.encode(), "utf-8"),
    "UTF-16 LE with a mark": (codecs.BOM_UTF16_LE + TABLE.encode("utf-16-le"), "utf-16"),
    "UTF-16 BE with a mark": (codecs.BOM_UTF16_BE + TABLE.encode("utf-16-be"), "utf-16"),
    "UTF-16 LE": (TABLE.encode("utf-16-le"), "utf-16"),
    "UTF-16 BE": (TABLE.encode("utf-16-be"), "utf-16"),
    "Big5": (TABLE.encode("big5"), "big5"),
    "Windows' cp950": (TABLE.replace("，", "€").encode("cp950"), "big5"),
}  # fmt: skip


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(("content", "encoding"), ENCODED.values(), ids=ENCODED)
def test_a_table_is_read_in_its_declared_encoding_with_the_lines_an_editor_shows(tmp_path, content, encoding, line_end):
    if line_end != "\n":
        codec = "cp950" if encoding == "big5" else "utf-8"
        if encoding == "utf-16":
            codec = "utf-16-be" if content[:2] == codecs.BOM_UTF16_BE or content[:1] == b"\x00" else "utf-16-le"
        content = content.replace("\n".encode(codec), line_end.encode(codec))
    found = read(tmp_path / "a.csv", content, encoding=encoding)
    assert found.problems == [] and found.remarks == []
    assert [line for line, _ in found.rows] == [2, 3, 4, 5, 6]
    assert [(text.replace("€", "，"), label) for text, label in found.values] == ROWS


@pytest.mark.parametrize(
    ("content", "encoding"), [ENCODED["UTF-16 LE with a mark"], ENCODED["UTF-16 BE with a mark"]], ids=["LE", "BE"]
)
def test_a_byte_order_mark_decides_where_no_encoding_is_declared(tmp_path, content, encoding):
    assert read(tmp_path / "a.csv", content).values == ROWS


DETECTED = {
    **ENCODED,
    "GB18030": (SIMPLE_TABLE.encode("gb18030"), "gb18030"),
    "ASCII": (b"text,label\nfine,good\n", "utf-8"),
    "Latin letters in UTF-8": ("text,label\ncafé,naïve\n".encode(), "utf-8"),
    "English in UTF-16 LE": ("text,label\nfine,good\n".encode("utf-16-le"), "utf-16"),
    "English in UTF-16 BE": ("text,label\nfine,good\n".encode("utf-16-be"), "utf-16"),
    "Big5 behind 200 KB of English": (b"some text,good\n" * 14_000 + TABLE.encode("big5"), "big5"),
    "Big5 that ends within a character": (TABLE.encode("big5")[:-3], "big5"),
    "Big5 with one damaged byte": ((TABLE * 5).encode("big5") + b"\xff\n", "big5"),
    "UTF-8 with a row in Big5": ((TABLE * 20).encode() + "新高\n".encode("big5"), "utf-8"),
    "UTF-8 with a NUL": (b"text,label\na\x00b,good\n", "utf-8"),
    "UTF-8 padded with NUL": (b"text,label\nfine,good\n" + b"\x00" * 4096, "utf-8"),
    "UTF-8 with NULs, all at even places": (b"a\x00b,c\n" * 20, "utf-8"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "encoding"), DETECTED.values(), ids=DETECTED)
def test_the_encoding_of_a_whole_file_is_told_by_its_bytes(tmp_path, content, encoding):
    (tmp_path / "a.csv").write_bytes(content)
    assert encodings.detect(tmp_path / "a.csv").encoding == encoding


UNDETECTED = {
    "English in Windows-1252": "text,label\nI’d say “naïve” café,good\n".encode("cp1252") * 20,
    "half UTF-8, half Big5": TABLE.encode() + TABLE.encode("big5"),
    "random bytes": bytes(range(256)) * 8,
}


@pytest.mark.parametrize("content", UNDETECTED.values(), ids=UNDETECTED)
def test_no_encoding_is_guessed_where_none_fits(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    assert encodings.detect(tmp_path / "a.csv").encoding is None


def test_two_characters_are_not_enough_to_tell_big5_from_gb18030(tmp_path):
    (tmp_path / "a.csv").write_bytes("新高".encode("big5"))
    found = encodings.detect(tmp_path / "a.csv")
    assert found.encoding is None or found.encoding == "big5"
    assert "big5" in found.candidates


def test_a_file_is_looked_at_again_when_it_has_changed(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(TABLE.encode())
    assert encodings.detect(path).encoding == "utf-8"
    path.write_bytes(TABLE.encode("big5"))
    os.utime(path, ns=(1, 1))
    assert encodings.detect(path).encoding == "big5"


WRONG = {
    "Big5 declared GB18030": (TABLE.encode("big5"), "gb18030", "big5", "`encoding: big5`"),
    "GB18030 declared Big5": (SIMPLE_TABLE.encode("gb18030"), "big5", "gb18030", "`encoding: gb18030`"),
    "UTF-8 declared Big5": (TABLE.encode(), "big5", "utf-8", "remove `encoding`"),
    "UTF-8 with a mark declared GB18030": (codecs.BOM_UTF8 + TABLE.encode(), "gb18030", "utf-8", "remove `encoding`"),
    "UTF-8 declared UTF-16": (TABLE.encode(), "utf-16", "utf-8", "remove `encoding`"),
    "UTF-16 declared Big5": (TABLE.encode("utf-16"), "big5", "utf-16", "`encoding: utf-16`"),
    "UTF-16 without a mark, nothing declared": (TABLE.encode("utf-16-be"), "utf-8", "utf-16", "`encoding: utf-16`"),
    "English in UTF-16, nothing declared": (b"t\x00,\x00u\x00\n\x00a\x00,\x00b\x00", "utf-8", "utf-16", "`encoding"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
@pytest.mark.parametrize(("content", "declared", "actual", "hint"), WRONG.values(), ids=WRONG)
def test_a_declared_encoding_that_the_bytes_deny_is_one_problem(tmp_path, name, content, declared, actual, hint):
    (problem,) = read(tmp_path / name, content, encoding=declared).problems
    assert (problem.code, problem.field) == ("wrong_encoding", "encoding")
    assert problem.message == f"declared as {declared}, but its bytes are {actual}"
    assert hint in problem.hint


@pytest.mark.parametrize("declared", ["big5", "gb18030"])
def test_ascii_may_be_declared_as_any_encoding_that_holds_it(tmp_path, declared):
    assert read(tmp_path / "a.csv", b"text,label\nfine,good\n", encoding=declared).values == [("fine", "good")]


HALF_PAIR = b"\x3d\xd8"  # U+D83D in UTF-16 LE
BAD_BYTES = {
    # content, declared, code, what the message says of line 3, lines of the rows that are read
    "Big5 in UTF-8": (
        b"t,u\nok,1\n" + "營收".encode("big5") + b",2\nok,3\n",
        "utf-8", "not_utf8", "byte 1 of the line is 0xc0: not UTF-8", [2, 4],
    ),
    "behind UTF-8 characters": (
        "t,u\n營收,1\n好".encode() + b"\xff,2\n",
        "utf-8", "not_utf8", "byte 4 of the line is 0xff", [2],
    ),
    "in a cell of two lines": (
        't,u\n"a\n好'.encode() + b'\xff",1\nb,2\n',
        "utf-8", "not_utf8", "byte 4 of the line is 0xff", [4],
    ),
    "not in Big5": (
        "t,u\n營收,1\n營".encode("big5") + b"\xff,2\nok,3\n",
        "big5", "not_decodable", "byte 3 of the line is 0xff: not BIG5", [2, 4],
    ),
    "cut within Big5": (
        "t,u\n營收,1\n".encode("big5") + b"2,\xc0",
        "big5", "not_decodable", "byte 3 of the line is 0xc0", [2],
    ),
    "half a pair in UTF-16": (
        "t,u\n好,1\n好".encode("utf-16") + HALF_PAIR + ",2\nok,3\n".encode("utf-16-le"),
        "utf-16", "not_decodable", "byte 3 of the line is 0x3d: not UTF-16", [2, 4],
    ),
    "UTF-16 cut within a character": (
        "t,u\n好,1\nok,".encode("utf-16") + b"\x3d",
        "utf-16", "not_decodable", "byte 7 of the line is 0x3d", [2],
    ),
    "half an emoji": (
        b"t,u\nok,1\nhi \xed\xa0\xbd\xed\xb8\x80,2\nok,3\n",
        "utf-8", "not_utf8", "byte 4 of the line is 0xed: not UTF-8, but half of an emoji", [2, 4],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "declared", "code", "message", "kept"), BAD_BYTES.values(), ids=BAD_BYTES)
def test_a_byte_that_is_no_text_is_named_with_its_line_and_place_and_the_rows_around_it_are_read(
    tmp_path, content, declared, code, message, kept
):
    found = read(tmp_path / "a.csv", content, encoding=declared)
    assert found.faults == [(code, 3)]
    assert message in found.problems[0].message
    assert [row_line for row_line, _ in found.rows] == kept


def test_in_json_too_a_wrong_byte_is_placed_in_its_line(tmp_path):
    bad = b"\xff"
    lines = [b'{"t": "x"}', b'{"t": "' + bad + b'"}', b'{"t": "y"}']
    for name, content in {
        "lines.jsonl": b"\n".join(lines),
        "array.json": b"[" + b",\n".join(lines) + b"]",
    }.items():
        found = read(tmp_path / name, content)
        assert found.faults == [("not_utf8", 2)]
        assert f"byte 8 of the line is 0x{bad[0]:02x}" in found.problems[0].message
        assert [line for line, _ in found.rows] == [1, 3]
    pretty = b'[\r\n {\r\n  "u": "\xe5\xa5\xbd",\r\n  "t": "' + bad + b'"\r\n }\r\n]'
    assert read(tmp_path / "pretty.json", pretty).faults == [("not_utf8", 4)]
    one_line = b"[" + b", ".join([*lines, lines[0]]) + b"]"
    found = read(tmp_path / "one.json", one_line)
    assert found.faults == [("not_utf8", 1)] and len(found.rows) == 3
    assert f"byte {one_line.index(bad) + 1} of the line" in found.problems[0].message


def test_far_along_one_line_the_place_of_a_wrong_byte_is_counted_from_its_row(tmp_path):
    rows = [b'{"t": "x"}'] * 200_000 + [b'{"t": "\xff"}']
    found = read(tmp_path / "one.json", b"[" + b",".join(rows) + b"]")
    assert "byte 8 of the row is 0xff" in found.problems[0].message and len(found.rows) == 200_000


@pytest.mark.parametrize("encoding", ["big5", "gb18030"])
def test_of_a_file_that_is_wholly_in_another_encoding_one_line_is_reported(tmp_path, encoding):
    rows = (TABLE if encoding == "big5" else SIMPLE_TABLE).splitlines()
    objects = [f'{{"t": "{row}"}}' for row in rows]
    for text in ("\n".join(rows), "\n".join(objects), "[" + ",\n".join(objects) + "]"):
        found = read(tmp_path / "a.csv", text.encode(encoding))
        assert found.faults == [("not_utf8", 2)] and len(found.rows) <= 1
        assert f"the whole file reads as {encoding}" in found.problems[0].hint


@pytest.mark.parametrize("shown", ["table", "lines"])
def test_in_mixed_encodings_every_line_that_is_not_utf8_is_reported(tmp_path, shown):
    lines = [f"{number}{TRADITIONAL},好".encode("big5" if number % 3 == 0 else "utf-8") for number in range(1, 31)]
    found = read(tmp_path / "a.csv", b"text,label\n" + b"\n".join(lines), format=shown)
    wrong = [number + 1 for number in range(1, 31) if number % 3 == 0]
    assert found.faults == [("not_utf8", line) for line in wrong]
    assert all("mixes encodings" in problem.hint for problem in found.problems)
    read_lines = [line for line, _ in found.rows]
    assert read_lines == [line for line in range(2 if shown == "table" else 1, 32) if line not in wrong]


EMOJI = "\U0001f600"
HALVES = b"\xed\xa0\xbd\xed\xb8\x80"


def test_halves_of_an_emoji_are_reported_and_mended_on_request(tmp_path):
    assert EMOJI.encode("utf-16-be").hex() == "d83dde00" and HALVES.decode("utf-8", "surrogatepass") == "\ud83d\ude00"
    content = b"text,label\nhi " + HALVES + b",good\nfine,good\n" + HALVES + HALVES + b",bad\n"
    reported = read(tmp_path / "a.csv", content)
    assert reported.faults == [("not_utf8", 2), ("not_utf8", 4)] and reported.values == [("fine", "good")]
    assert all("--fix" in problem.hint for problem in reported.problems)
    mended = read(tmp_path / "a.csv", content, errors=encodings.MEND)
    assert mended.problems == []
    assert mended.values == [(f"hi {EMOJI}", "good"), ("fine", "good"), (EMOJI + EMOJI, "bad")]
    assert mended.warnings == [("joined_halves", 2)] and "3 emoji" in mended.remarks[0].message


@pytest.mark.parametrize("before", range(7))
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["no mark", "mark"])
def test_halves_are_joined_wherever_the_reader_cuts_the_file_into_chunks(tmp_path, before, mark):
    text = b"x" * (8192 - before) + HALVES + b"y" * (65536 - before) + HALVES + "好".encode()
    found = read(tmp_path / "a.txt", mark + text, errors=encodings.MEND, format="lines")
    assert found.problems == []
    assert found.rows[0][1]["text"] == text.replace(HALVES, EMOJI.encode()).decode()


@pytest.mark.parametrize("broken", [HALVES[:3], HALVES[3:], HALVES[:5], HALVES[3:] + HALVES[:3], b"\xed\xa0"])
def test_a_half_without_its_other_half_is_no_emoji(tmp_path, broken):
    found = read(tmp_path / "a.txt", b"good\nx" + broken + b"y\ngood\n", errors=encodings.MEND, format="lines")
    assert found.faults == [("not_utf8", 2)] and found.rows == [(1, {"text": "good"}), (3, {"text": "good"})]


def test_files_joined_with_their_marks_are_read_on_in_json_lines(tmp_path):
    row = codecs.BOM_UTF8 + b'{"t": "x"}\n'
    assert read(tmp_path / "a.jsonl", row * 3).rows == [(1, {"t": "x"}), (2, {"t": "x"}), (3, {"t": "x"})]


@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "cp950", "gb18030"])
def test_no_character_is_lost_at_the_edges_of_chunks(tmp_path, codec):
    declared = {"cp950": "big5"}.get(codec, codec)
    lines = [f"{'a' * (number % 7)}{TRADITIONAL if codec != 'gb18030' else SIMPLIFIED}" for number in range(2000)]
    found = read(tmp_path / "a.txt", "\n".join(lines).encode(codec), encoding=declared, format="lines")
    assert found.problems == [] and [values["text"] for _, values in found.rows] == lines
