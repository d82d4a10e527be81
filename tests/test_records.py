"""Raw files are read row by row: every good row with its first line, every fault with its file and line."""

from __future__ import annotations

import json
import re

import pytest

from task_folder import write
from tasklib.reading.records import Row, read_rows
from tasklib.summary import Problem

BOM = b"\xef\xbb\xbf"


def read(tmp_path, name, content):
    """(line, values) of the rows and the problems of one file, shown as data/raw/<name>."""
    items = list(read_rows(write(tmp_path / name, content), f"data/raw/{name}"))
    rows = [(item.line, item.values) for item in items if isinstance(item, Row)]
    problems = [item for item in items if isinstance(item, Problem)]
    assert len(rows) + len(problems) == len(items) > 0
    assert all(item.file == f"data/raw/{name}" for item in items)
    return rows, problems


TWO_ROWS = [{"文字": "營收創高", "標籤": "good"}, {"文字": "虧損", "標籤": "bad"}]
JSONL = '{"文字": "營收創高", "標籤": "good"}\n{"文字": "虧損", "標籤": "bad"}\n'
SAME_ROWS = {
    "jsonl": ("a.jsonl", JSONL, [1, 2]),
    "jsonl without a last newline": ("a.jsonl", JSONL.rstrip(), [1, 2]),
    "jsonl with blank lines": ("a.jsonl", "\n" + JSONL.replace("\n", "\n \n\n"), [2, 5]),
    "json of one line": ("a.json", json.dumps(TWO_ROWS, ensure_ascii=False), [1, 1]),
    "json indented": ("a.json", json.dumps(TWO_ROWS, ensure_ascii=False, indent=1), [2, 6]),
    "json with escapes": ("a.json", json.dumps(TWO_ROWS, indent=1), [2, 6]),
    "csv": ("a.csv", "文字,標籤\n營收創高,good\n虧損,bad\n", [2, 3]),
    "csv without a last newline": ("a.csv", "文字,標籤\n營收創高,good\n虧損,bad", [2, 3]),
    "csv with blank lines": ("a.csv", "\n文字,標籤\n\n營收創高,good\n\n虧損,bad\n", [4, 6]),
    "csv all quoted": ("a.csv", '"文字","標籤"\n"營收創高","good"\n"虧損","bad"\n', [2, 3]),
    "csv with spaces around the column names": ("a.csv", "文字 , 標籤\n營收創高,good\n虧損,bad\n", [2, 3]),
    "tsv": ("a.tsv", "文字\t標籤\n營收創高\tgood\n虧損\tbad\n", [2, 3]),
    "an extension in capitals": ("a.CSV", "文字,標籤\n營收創高,good\n虧損,bad\n", [2, 3]),
}  # fmt: skip


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("bom", [b"", BOM], ids=["no BOM", "BOM"])
@pytest.mark.parametrize(("name", "text", "lines"), SAME_ROWS.values(), ids=SAME_ROWS)
def test_every_format_gives_the_same_rows_with_the_lines_they_start_on(tmp_path, name, text, lines, bom, line_end):
    rows, problems = read(tmp_path, name, bom + text.replace("\n", line_end).encode())
    assert problems == []
    assert rows == list(zip(lines, TWO_ROWS, strict=True))


CELLS = {
    "newlines in quotes": ("a.csv", 'text,label\n"one\n\nthree",good\nnext,bad\n', [(2, "one\n\nthree"), (5, "next")]),
    "doubled quotes": ("a.csv", 'text,label\n"he said ""up""",good\n', [(2, 'he said "up"')]),
    "a delimiter in quotes": ("a.csv", 'text,label\n"3,000 units",good\n', [(2, "3,000 units")]),
    "a comma in a tsv": ("a.tsv", "text\tlabel\n3,000 units\tgood\n", [(2, "3,000 units")]),
    "spaces kept": ("a.csv", "text,label\n  edge  ,good\n", [(2, "  edge  ")]),
    "an empty cell": ("a.csv", "text,label\n,good\n", [(2, "")]),
    "line separators inside JSON": ("a.jsonl", '{"text": "a\u2028b\x85c"}\n{"text": "d"}\n',
                                    [(1, "a\u2028b\x85c"), (2, "d")]),
    "emoji as a pair of escapes": ("a.jsonl", '{"text": "\\ud83d\\ude00", "label": "good"}\n', [(1, "\U0001f600")]),
    "a very long cell": ("a.csv", "text,label\n" + "長" * 200_000 + ",good\n", [(2, "長" * 200_000)]),
    "numbers stay numbers in JSON": ("a.jsonl", '{"text": 1, "label": 0}\n', [(1, 1)]),
    "digits stay text in CSV": ("a.csv", "text,label\n007,0\n", [(2, "007")]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "text", "expected"), CELLS.values(), ids=CELLS)
def test_a_cell_is_read_exactly_as_it_stands(tmp_path, name, text, expected):
    rows, problems = read(tmp_path, name, text)
    assert problems == []
    assert [(line, values["text"]) for line, values in rows] == expected


GOOD = '{"t": "x"}'
FAULTS = {
    # JSON lines: later rows are still read
    "a row that is no JSON": ("a.jsonl", f"{GOOD}\nnot json\n{GOOD}\n", "unparsable", 2, "column 1", [1, 3]),
    "a truncated last row": ("a.jsonl", f'{GOOD}\n{GOOD}\n{{"t": "x', "truncated", 3, "Unterminated", [1, 2]),
    "two objects on one line": (
        "a.jsonl", f"{GOOD}\n{GOOD} {GOOD}\n{GOOD}\n",
        "concatenated", 2, "second begins at column 12", [1, 3],
    ),
    "single quotes": ("a.jsonl", f"{GOOD}\n{{'t': 'x'}}\n", "unparsable", 2, "double quotes", [1]),
    "a key twice": ("a.jsonl", f'{GOOD}\n{{"t": 1, "t": 2}}\n{GOOD}\n', "duplicate_key", 2, "'t' stands twice", [1, 3]),
    "a key twice further in": (
        "a.jsonl", '{"t": {"u": 1, "u": 2}}\n' + GOOD,
        "duplicate_key", 1, "'u' stands twice", [2],
    ),
    "NaN": ("a.jsonl", f'{GOOD}\n{{"t": NaN}}\n{GOOD}\n', "nan_literal", 2, "NaN", [1, 3]),
    "Infinity": ("a.jsonl", f'{GOOD}\n{{"t": Infinity}}\n', "nan_literal", 2, "Infinity", [1]),
    "-Infinity": ("a.jsonl", f'{GOOD}\n{{"t": [-Infinity]}}\n', "nan_literal", 2, "-Infinity", [1]),
    "half an emoji": (
        "a.jsonl", f'{GOOD}\n{{"t": "\\ud83d"}}\n{GOOD}\n',
        "lone_surrogate", 2, "half of a surrogate pair", [1, 3],
    ),
    "half an emoji in a key": ("a.jsonl", f'{GOOD}\n{{"\\ud83d": 1}}\n', "lone_surrogate", 2, "half", [1]),
    "a bottomless row": ("a.jsonl", f"{GOOD}\n{'[' * 100_000}\n{GOOD}\n", "unparsable", 2, "recursion", [1, 3]),
    "a number without end": ("a.jsonl", f'{GOOD}\n{{"t": {"9" * 5000}}}\n{GOOD}\n', "unparsable", 2, "", [1, 3]),
    "a list": ("a.jsonl", f'{GOOD}\n["x", "y"]\n{GOOD}\n', "not_an_object", 2, "list", [1, 3]),
    "a bare text": ("a.jsonl", f'"x"\n{GOOD}\n', "not_an_object", 1, "str", [2]),
    "a bare null": ("a.jsonl", f"null\n{GOOD}\n", "not_an_object", 1, "NoneType", [2]),
    # JSON arrays
    "a broken element": ("a.json", f'[\n{GOOD},\n{{"t" "x"}},\n{GOOD}\n]', "unparsable", 3, "':' delimiter", [2, 4]),
    "an element broken further in": ("a.json", f'[\n{GOOD},\n{{"t": 1,\n"u" 2}}\n]', "unparsable", 4, "delimiter", [2]),
    "an element with a key twice": ("a.json", f'[\n{GOOD},\n\n{{"t": 1, "t": 2}}\n]', "duplicate_key", 4, "twice", [2]),
    "an element that is no object": ("a.json", f'[\n{GOOD},\n7,\n{GOOD}\n]', "not_an_object", 3, "int", [2, 4]),
    "an array cut after an element": ("a.json", f"[\n{GOOD},\n{GOOD}\n", "truncated", 4, "not closed", [2, 3]),
    "an array cut inside an element": ("a.json", f'[\n{GOOD},\n{{"t": "x', "truncated", 3, "Unterminated", [2]),
    "an array without a comma": ("a.json", f"[\n{GOOD}\n{GOOD}\n]", "unparsable", 3, "expected ','", [2, 3]),
    "a second array behind the first": ("a.json", f"[\n{GOOD}\n]\n[{GOOD}]", "unparsable", 4, "follows the end", [2]),
    # tables: later rows are still read where the cells can be trusted
    "too few cells": ("a.csv", "t,u\n1,2\n3\n4,5\n", "column_count", 3, "1 cells, the header has 2", [2, 4]),
    "too many cells": ("a.csv", "t,u\n1,2\n3,4,5\n6,7\n", "column_count", 3, "3 cells", [2, 4]),
    "a truncated last line": ("a.csv", "t,u\n1,2\n3", "column_count", 3, "1 cells", [2]),
    "a fault after a cell of three lines": ("a.csv", 't,u\n"a\nb\nc",2\n3\n4,5\n', "column_count", 5, "", [2, 6]),
    "a tsv with commas": ("a.tsv", "t\tu\n1\t2\n3,4\n", "column_count", 3, "", [2]),
    "a column twice": ("a.csv", "t,u, t\n1,2,3\n", "duplicate_column", 1, "'t' stands twice", []),
    "a column twice after a blank line": ("a.csv", "\nt,t\n1,2\n", "duplicate_column", 2, "'t'", []),
    "a quote that is never closed": ("a.csv", 't,u\n1,2\n"3,4\n5,6\n', "unbalanced_quote", 3, "unexpected end", [2, 4]),
    "a quote closed in a later row": (
        "a.csv", 't,u\n1,2\n"3,4\n5"x,6\n7,8\n',
        "unbalanced_quote", 3, "expected after", [2, 4, 5],
    ),
    "text behind a closing quote": (
        "a.csv", 't,u\n1,2\n"3"x,4\n5,6\n',
        "unbalanced_quote", 3, "expected after", [2, 4],
    ),
    # whole files
    "an empty jsonl": ("a.jsonl", "", "empty_file", None, "no rows", []),
    "a jsonl of blank lines": ("a.jsonl", "\n \n", "empty_file", None, "no rows", []),
    "an empty json": ("a.json", "", "empty_file", None, "no rows", []),
    "an empty array": ("a.json", "[ ]\n", "empty_file", None, "no rows", []),
    "an empty csv": ("a.csv", "", "empty_file", None, "no rows", []),
    "a csv of a BOM alone": ("a.csv", BOM, "empty_file", None, "no rows", []),
    "a header and no rows": ("a.csv", "t,u\n", "header_only", 1, "no rows", []),
    "an unknown extension": ("a.gz", b"\x1f\x8b\x08x", "unknown_format", None, "gzip", []),
    # encodings: the line, and the byte of it
    "Big5": ("a.csv", b"t,u\nok,1\n" + "營收創新高".encode("big5"), "not_utf8", 3, "byte 1 .* 0xc0", [2]),
    "a wrong byte inside a line": ("a.jsonl", b'{"t": "x"}\n{"t": "\xff"}\n', "not_utf8", 2, "byte 8 .* 0xff", [1]),
    "a character cut in half": ("a.csv", b"t,u\n1," + "營".encode()[:2], "not_utf8", 2, "byte 3 ", []),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "code", "line", "message", "kept"), FAULTS.values(), ids=FAULTS)
def test_every_fault_is_named_with_its_file_and_line_and_the_rows_around_it_are_read(
    tmp_path, name, content, code, line, message, kept
):
    rows, problems = read(tmp_path, name, content)
    assert [(problem.code, problem.line) for problem in problems] == [(code, line)]
    assert re.search(message, problems[0].message), problems[0].message
    assert problems[0].hint
    assert [row_line for row_line, _ in rows] == kept


def test_all_faults_of_a_file_are_listed_in_order(tmp_path):
    rows, problems = read(tmp_path, "a.jsonl", f'x\n{GOOD}\n[]\n{{"t": NaN}}\n{GOOD}\n{{"t":\n"x"}}\n')
    assert [(p.line, p.code) for p in problems] == [
        (1, "unparsable"), (3, "not_an_object"), (4, "nan_literal"), (6, "truncated"), (7, "unparsable"),
    ]  # fmt: skip
    assert [line for line, _ in rows] == [2, 5]


@pytest.mark.parametrize("name", ["nowhere.csv", "nowhere.jsonl"])
def test_a_missing_file_is_one_problem(tmp_path, name):
    (problem,) = read_rows(tmp_path / name, name)
    assert (problem.code, problem.file, problem.line) == ("file_missing", name, None)
    assert "does not exist" in problem.message


def test_a_folder_in_the_place_of_a_file_is_one_problem(tmp_path):
    (tmp_path / "rows.csv").mkdir()
    (problem,) = read_rows(tmp_path / "rows.csv", "rows.csv")
    assert problem.code == "file_missing" and "is a folder" in problem.message
