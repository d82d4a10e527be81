"""What a file is, its content says; each format is read with the lines that an editor or Excel shows."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import openpyxl
import pyarrow
import pytest
import xlwt
from openpyxl.styles import Font
from pyarrow import parquet

from conftest import BUNDLE
from reading import read
from tasklib.reading import binary_rows, json_rows
from tasklib.reading.formats import file_format
from tasklib.reading.records import read_file
from tasklib.schema import FileSpec

TWO_ROWS = [("營收創高", "好"), ("虧損", "壞")]


def xlsx(path: Path, **sheets) -> Path:
    """A workbook of some sheets, each a list of rows."""
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for name, rows in sheets.items():
        sheet = workbook.create_sheet(name)
        for row in rows:
            sheet.append(row)
    workbook.save(path)
    return path


def xls(path: Path, rows) -> Path:
    """An Excel 97 workbook of one sheet."""
    workbook = xlwt.Workbook()
    sheet = workbook.add_sheet("表")
    dated = xlwt.easyxf(num_format_str="YYYY-MM-DD")
    for number, row in enumerate(rows):
        for column, value in enumerate(row):
            sheet.write(number, column, value, *([dated] if isinstance(value, datetime.date) else []))
    workbook.save(str(path))
    return path


def edited(path: Path, edit) -> Path:
    """A workbook after `edit(sheet)` of its first sheet."""
    workbook = openpyxl.load_workbook(path)
    edit(workbook.worksheets[0])
    workbook.save(path)
    return path


# Excel


def test_excel_cells_are_read_as_the_text_they_have_in_a_csv(tmp_path):
    day, moment = datetime.date(2026, 11, 22), datetime.datetime(2026, 11, 22, 15, 30)
    cells = {
        "text": ("營收\n創高", "營收\n創高"), "zero": ("007", "007"), "whole": (3, "3"), "real": (3.0, "3"),
        "broken": (2.5, "2.5"), "sum": (0.1 + 0.2, "0.3"), "minus": (-0.0, "0"), "large": (12345678901, "12345678901"),
        "yes": (True, "TRUE"), "no": (False, "FALSE"), "day": (day, "2026-11-22"),
        "moment": (moment, "2026-11-22T15:30:00"), "clock": (datetime.time(8, 5), "08:05:00"), "empty": (None, ""),
        "spaces": ("  x ", "  x "), "escape": ("a_x000D_b", "a\rb"), "sign": ("<&>\"'", "<&>\"'"),
    }  # fmt: skip
    path = xlsx(tmp_path / "a.xlsx", 表=[list(cells), [given for given, _ in cells.values()], ["x"] * len(cells)])
    found = read(path)
    assert found.problems == found.remarks == []
    assert [line for line, _ in found.rows] == [2, 3]
    assert found.rows[0][1] == {name: shown for name, (_, shown) in cells.items()}


def test_the_line_of_an_excel_row_is_the_number_that_excel_shows(tmp_path):
    def edit(sheet):
        for row, cells in {4: ("text", "label"), 5: TWO_ROWS[0], 9: TWO_ROWS[1]}.items():
            for column, value in enumerate(cells, start=3):
                sheet.cell(row, column).value = value
        for row in range(1, 30):
            sheet.cell(row, 9).font = Font(bold=True)  # formatted, but empty

    found = read(edited(xlsx(tmp_path / "a.xlsx", 表=[]), edit))
    assert found.problems == found.remarks == []
    assert [line for line, _ in found.rows] == [5, 9] and found.values == TWO_ROWS


def test_columns_and_rows_that_are_formatted_but_empty_are_no_data(tmp_path):
    def edit(sheet):
        sheet["XFD1048576"].font = Font(bold=True)
        sheet["F1"].value = ""

    path = edited(xlsx(tmp_path / "a.xlsx", 表=[("text", "label"), *TWO_ROWS]), edit)
    assert read(path).values == TWO_ROWS


def test_the_one_sheet_with_rows_is_read_wherever_it_stands(tmp_path):
    path = xlsx(tmp_path / "a.xlsx", 空白=[], 資料=[("text", "label"), *TWO_ROWS])
    workbook = openpyxl.load_workbook(path)
    workbook.create_chartsheet("圖")
    workbook.save(path)
    found = read(path)
    assert found.values == TWO_ROWS and found.remarks == []
    assert read(path, sheet="資料").values == TWO_ROWS
    assert read(path, sheet="空白").faults == [("empty_file", None)]


def test_of_two_sheets_with_rows_none_is_taken_unless_it_is_named(tmp_path):
    path = xlsx(tmp_path / "a.xlsx", 一月=[("text", "label"), *TWO_ROWS], 二月=[("text", "label"), ("x", "y")])
    (problem,) = read(path).problems
    assert (problem.code, problem.field) == ("which_sheet", "sheet") and "一月, 二月" in problem.message
    assert read(path, sheet="二月").values == [("x", "y")]
    (problem,) = read(path, sheet="三月").problems
    assert problem.code == "missing_sheet" and "一月, 二月" in problem.hint


def test_hidden_sheets_and_notes_of_one_row_are_passed_over_with_a_remark(tmp_path):
    path = xlsx(tmp_path / "a.xlsx", 說明=[["由小美整理"]], 資料=[("text", "label"), *TWO_ROWS], 選單=[["好"], ["壞"]])
    workbook = openpyxl.load_workbook(path)
    workbook["選單"].sheet_state = "hidden"
    workbook.save(path)
    found = read(path)
    assert found.values == TWO_ROWS
    assert [problem.code for problem in found.remarks] == ["other_sheets"]
    assert "'資料'" in found.remarks[0].message and "說明, 選單" in found.remarks[0].message
    assert read(path, sheet="選單", columns=["label"]).values == [("好",), ("壞",)]


def test_merged_cells_are_a_remark_with_their_row_because_all_but_the_first_are_empty(tmp_path):
    rows = [("text", "label"), ("a", "好"), ("b", None), ("c", None), ("d", "壞")]
    path = edited(xlsx(tmp_path / "a.xlsx", 表=rows), lambda sheet: sheet.merge_cells("B2:B4"))
    found = read(path)
    assert [label for _, label in found.values] == ["好", "", "", "壞"]
    assert found.warnings == [("merged_cells", 2)] and "B2:B4 are merged" in found.remarks[0].message


def test_a_merged_title_above_the_header_is_named(tmp_path):
    rows = [("問卷調查結果",), ("text", "label"), *TWO_ROWS]
    path = edited(xlsx(tmp_path / "a.xlsx", 表=rows), lambda sheet: sheet.merge_cells("A1:B1"))
    found = read(path)
    assert found.faults == [("column_count", 2), ("column_count", 3), ("column_count", 4)]
    assert "row 1 is a title" in found.problems[0].hint and found.remarks == []


def test_a_formula_without_a_value_is_a_remark_with_its_cell_and_an_empty_cell(tmp_path):
    rows = [("text", "label", "n"), ("a", "好", 1), ("b", "#N/A", 2), ("c", "壞", "=1/0"), ("d", "壞", "#DIV/0!")]
    found = read(xlsx(tmp_path / "a.xlsx", 表=rows))
    assert found.problems == [] and len(found.rows) == 4
    assert found.warnings == [("formula_error", 3), ("formula_error", 4), ("formula_error", 5)]
    assert [problem.field for problem in found.remarks] == ["label", "n", "n"]
    assert [problem.message for problem in found.remarks] == [
        "the formula gave #N/A", "the formula was never calculated", "the formula gave #DIV/0!",
    ]  # fmt: skip
    assert "cell B3" in found.remarks[0].hint
    assert [values["label"] for _, values in found.rows] == ["好", "", "壞", "壞"]


def test_a_formula_that_gave_an_empty_text_is_no_fault(tmp_path):
    path = xlsx(tmp_path / "a.xlsx", 表=[("text", "label"), ("a", "x"), ("b", "y")])
    _replace_in_sheet(path, b'<c r="B2" t="inlineStr"><is><t>x</t></is></c>', b'<c r="B2" t="str"><f>""</f><v></v></c>')
    found = read(path)
    assert found.remarks == [] and found.values == [("a", ""), ("b", "y")]


def _replace_in_sheet(path: Path, old: bytes, new: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert old in parts["xl/worksheets/sheet1.xml"]
    parts["xl/worksheets/sheet1.xml"] = parts["xl/worksheets/sheet1.xml"].replace(old, new)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_a_cell_outside_the_columns_of_the_header_is_named_with_its_row(tmp_path):
    found = read(xlsx(tmp_path / "a.xlsx", 表=[("text", "label"), TWO_ROWS[0], (*TWO_ROWS[1], "note")]))
    assert found.faults == [("column_count", 3)] and found.values == TWO_ROWS[:1]


def test_a_cell_far_outside_the_table_is_refused_before_it_takes_all_memory(tmp_path):
    def edit(sheet):
        sheet["XFD20000"].value = " "

    path = edited(xlsx(tmp_path / "a.xlsx", 表=[("text", "label"), *TWO_ROWS]), edit)
    started = time.perf_counter()
    found = read(path)
    assert found.faults == [("sheet_too_large", 20000)] and "XFD20000" in found.problems[0].message
    assert time.perf_counter() - started < 5


def test_a_header_without_rows_and_an_empty_workbook_are_named(tmp_path):
    assert read(xlsx(tmp_path / "a.xlsx", 表=[(), (), ("text", "label")])).faults == [("header_only", 3)]
    assert read(xlsx(tmp_path / "a.xlsx", 一=[], 二=[])).faults == [("empty_file", None)]


def test_a_column_name_that_stands_twice_in_excel_is_named_with_its_row(tmp_path):
    rows = [(), ("text", "label", " text"), ("a", "b", "c")]
    assert read(xlsx(tmp_path / "a.xlsx", 表=rows)).faults == [("duplicate_column", 2)]


def test_an_excel_table_without_a_header_is_read_with_given_columns(tmp_path):
    found = read(xlsx(tmp_path / "a.xlsx", 表=TWO_ROWS), columns=["text", "label"])
    assert found.rows == [(1, {"text": "營收創高", "label": "好"}), (2, {"text": "虧損", "label": "壞"})]


def test_excel_97_is_read_too(tmp_path):
    rows = [("text", "label", "n", "on"), ("營收", "好", 1, datetime.date(2026, 1, 2)), ("虧損", True, 2.5, "")]
    found = read(xls(tmp_path / "a.xls", rows))
    assert found.problems == [] and [line for line, _ in found.rows] == [2, 3]
    assert found.values == [("營收", "好", "1", "2026-01-02"), ("虧損", "TRUE", "2.5", "")]


def test_a_password_is_named(tmp_path):
    path = xls(tmp_path / "a.xlsx", [("text",), ("x",)])
    # An encrypted .xlsx is a compound file with a stream of this name; the directory keeps 64 bytes for a name.
    old, new = "Workbook".encode("utf-16-le"), "EncryptedPackage".encode("utf-16-le")
    content = path.read_bytes()
    entry = content.index(old)
    named = content[:entry] + new.ljust(64, b"\0") + bytes([len(new) + 2]) + content[entry + 65 :]
    path.write_bytes(named)
    (problem,) = read(path).problems
    assert problem.code == "unparsable" and "password" in problem.message and "without a password" in problem.hint


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
@pytest.mark.parametrize("kind", ["xlsx", "xls", "parquet"])
def test_a_file_cut_off_is_one_problem_and_no_rows(tmp_path, kind, share):
    rows = [("text", "label"), *[(f"第{number}家", "好") for number in range(300)]]
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        parquet.write_table(pyarrow.table({"text": [text for text, _ in rows]}), path)
    else:
        xlsx(path, 表=rows) if kind == "xlsx" else xls(path, rows)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    found = read(path)
    assert len(found.problems) == 1 and found.rows == []
    assert found.problems[0].code in ("unparsable", "unknown_format") and found.problems[0].hint


def test_a_panic_in_the_reader_of_workbooks_is_a_problem(tmp_path, monkeypatch):
    class PanicException(BaseException):  # as Rust's panics arrive in Python
        pass

    def panic(*_):
        raise PanicException("range end index 64 out of range")

    monkeypatch.setattr(binary_rows, "_sheet", panic)
    path = xls(tmp_path / "a.xls", [("text",), ("x",)])
    (problem,) = read(path).problems
    assert problem.code == "unparsable" and "damaged" in problem.message
    monkeypatch.setattr(binary_rows, "_sheet", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        read(path)


# What a file is


def _content_of(kind: str, folder: Path) -> bytes:
    if kind in ("xlsx", "xls"):
        path = folder / "made"
        xlsx(path, 表=[("text", "label"), *TWO_ROWS]) if kind == "xlsx" else xls(path, [("text", "label"), *TWO_ROWS])
        return path.read_bytes()
    if kind == "parquet":
        stream = io.BytesIO()
        parquet.write_table(
            pyarrow.table(dict(zip(("text", "label"), zip(*TWO_ROWS, strict=True), strict=True))), stream
        )
        return stream.getvalue()
    objects = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in TWO_ROWS]
    return {
        "jsonl": "\n".join(objects),
        "array": "[" + ",\n".join(objects) + "]",
        "stream": "\n".join(json.dumps(json.loads(item), indent=2, ensure_ascii=False) for item in objects),
        "csv": "text,label\n營收創高,好\n虧損,壞\n",
        "tsv": "text\tlabel\n營收創高\t好\n虧損\t壞\n",
        "semicolons": "text;label\n營收創高;好\n虧損;壞\n",
        "bars": "text|label\n營收創高|好\n虧損|壞\n",
    }[kind].encode()


@pytest.mark.parametrize("name", ["a.xlsx", "a.xls", "a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.txt", "a"])
@pytest.mark.parametrize(
    "kind", ["xlsx", "xls", "parquet", "jsonl", "array", "stream", "csv", "tsv", "semicolons", "bars"]
)
def test_the_name_of_a_file_does_not_matter(tmp_path, kind, name):
    found = read(tmp_path / name, _content_of(kind, tmp_path))
    assert found.problems == found.remarks == [] and found.values == TWO_ROWS


ZIP = io.BytesIO()
with zipfile.ZipFile(ZIP, "w") as archive:
    archive.writestr("a.csv", "text,label\n")
DOCX = io.BytesIO()
with zipfile.ZipFile(DOCX, "w") as archive:
    archive.writestr("word/document.xml", "<w:document/>")

FOREIGN = {
    "gzip": (b"\x1f\x8b\x08\x00rest", "gzip", "gunzip"),
    "bzip2": (b"BZh91AY&SYrest", "bzip2", "unpack"),
    "xz": (b"\xfd7zXZ\x00rest", "xz", "unpack"),
    "Zstandard": (b"\x28\xb5\x2f\xfdrest", "Zstandard", "unpack"),
    "7-Zip": (b"7z\xbc\xaf\x27\x1crest", "a 7-Zip archive", "unpack"),
    "RAR": (b"Rar!\x1a\x07\x01\x00", "a RAR archive", "unpack"),
    "zip": (ZIP.getvalue(), "a zip archive", "unpack"),
    "Word": (DOCX.getvalue(), "a Word document", "CSV"),
    "a cut zip": (ZIP.getvalue()[:40], "a damaged zip or Excel file", "again"),
    "PDF": (b"%PDF-1.7\n\xe2\xe3", "a PDF", "CSV"),
    "RTF": (b"{\\rtf1\\ansi", "a rich-text document", "CSV"),
    "SQLite": (b"SQLite format 3\x00rest", "an SQLite database", "CSV"),
    "Arrow": (b"ARROW1\x00\x00rest", "an Arrow file", "Parquet"),
    "NumPy": (b"\x93NUMPY\x01\x00", "a NumPy array", "CSV"),
    **{
        f"pickle {n}": (pickle.dumps([{"t": "x"}], protocol=n), "a pickle, which can run code", "CSV")
        for n in (2, 3, 4, 5)
    },
    "PNG": (b"\x89PNG\r\n\x1a\n", "an image", "texts"),
    "JPEG": (b"\xff\xd8\xff\xe0", "an image", "texts"),
    "UTF-32": (b"\xff\xfe\x00\x00" + "文字".encode("utf-32-le"), "text in UTF-32", "UTF-8"),
    "random bytes": (bytes(range(256)) * 40, "a binary file", "texts"),
    "an HTML page": (b"\xef\xbb\xbf\n<html><table><tr><td>x</td></tr></table></html>", "an HTML page", "Excel"),
    "an HTML table": (b"<TABLE border=1><tr><td>x", "an HTML page", "Excel"),
    "XML": (b'<?xml version="1.0"?><Workbook>', "an XML file", "Excel"),
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "a Git LFS pointer",
        "git lfs",
    ),
}


@pytest.mark.parametrize("name", ["a.csv", "a.xlsx", "a.jsonl"])
@pytest.mark.parametrize(("content", "what", "hint"), FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_is_not_read_here_is_called_by_its_name_with_what_to_do(tmp_path, content, what, hint, name):
    (problem,) = read(tmp_path / name, content).problems
    assert problem.code == "unknown_format" and f"{name} is {what}" in problem.message
    assert hint in problem.hint


NOT_FOREIGN = {
    "PAR1": b"PAR1,label\nx,y\n",
    "BZh": b"BZhang,label\nx,y\n",
    "Rar!": b"Rar! text,label\nx,y\n",
    "angle brackets": b"<text>,label\nx,y\n",
    "ANSI colours": b"text,label\n" + b"\x1b[31mx\x1b[0m,y\n" * 3,
    "version": b"version https,label\nx,y\n",
}


@pytest.mark.parametrize("content", NOT_FOREIGN.values(), ids=NOT_FOREIGN)
def test_text_that_begins_like_another_format_is_read(tmp_path, content):
    found = read(tmp_path / "a.csv", content)
    assert found.problems == [] and found.values[-1][-1] == "y"


def test_pages_and_xml_are_read_line_by_line_where_the_definition_says_so(tmp_path):
    found = read(tmp_path / "a.txt", "<html>one</html>\n<p>two</p>\n", format="lines")
    assert found.values == [("<html>one</html>",), ("<p>two</p>",)]


@pytest.mark.parametrize(
    ("kind", "declared", "message"),
    [
        ("csv", "excel", "is no excel file"),
        ("csv", "parquet", "is no parquet file"),
        ("xlsx", "table", "is excel, not table"),
        ("parquet", "json", "is parquet, not json"),
        ("xlsx", "parquet", "is excel, not parquet"),
    ],
)
def test_a_declared_format_that_the_content_denies_is_one_problem(tmp_path, kind, declared, message):
    (problem,) = read(tmp_path / "a", _content_of(kind, tmp_path), format=declared).problems
    assert (problem.code, problem.field) == ("unknown_format", "format") and message in problem.message


def test_options_that_mean_nothing_to_a_file_are_remarked(tmp_path):
    jsonl = read(tmp_path / "a.jsonl", _content_of("jsonl", tmp_path), sheet="表", quoting=False, delimiter=";")
    assert jsonl.values == TWO_ROWS
    assert [(problem.code, problem.field) for problem in jsonl.remarks] == [
        ("unused_option", "delimiter"), ("unused_option", "quoting"), ("unused_option", "sheet"),
    ]  # fmt: skip
    excel = read(tmp_path / "a.xlsx", _content_of("xlsx", tmp_path), encoding="big5")
    assert excel.values == TWO_ROWS and [problem.field for problem in excel.remarks] == ["encoding"]


@pytest.mark.parametrize("delimiter", ['"', "\n", "\r"])
def test_a_character_that_cannot_separate_cells_is_refused(tmp_path, delimiter):
    (problem,) = read(tmp_path / "a.csv", "a,b\n1,2\n", delimiter=delimiter).problems
    assert (problem.code, problem.field) == ("illegal_value", "delimiter")


def test_a_file_that_cannot_be_opened_is_a_problem(tmp_path):
    path = tmp_path / ("長" * 200)
    (problem,) = read_file(path, "a.csv", FileSpec(path="a.csv"))
    assert problem.code == "file_missing" and "cannot be read: File name too long" in problem.message
    assert file_format(path, "a.csv", FileSpec(path="a.csv")) == problem


# Tables

DELIMITED = {
    "sep line": ("sep=;\ntext;label\na,b;x\n", {}, [("a,b", "x")], 3),
    "sep line, CRLF and capitals": ("SEP=|\r\ntext|label\r\na,b|x\r\n", {}, [("a,b", "x")], 3),
    "sep line without a header": ("sep=\t\na,b\tx\n", {"columns": ["text", "label"]}, [("a,b", "x")], 2),
    "decimal commas": ("n;text;label\n1,5;a,b;x\n", {}, [("1,5", "a,b", "x")], 2),
    "declared": ("text^label\na,b^x\n", {"delimiter": "^"}, [("a,b", "x")], 2),
    "declared against the look": ("a;b,c;d\ne;f,g;h\n", {"delimiter": ","}, [("e;f", "g;h")], 2),
    "one column": ("text\nno other here\n", {}, [("no other here",)], 2),
    "commas in one row of many": ("text\tlabel\na,b,c\tx\nd\ty\n", {}, [("a,b,c", "x"), ("d", "y")], 2),
    "line separators of Unicode in cells": ("text,label\na\u2028b\x0bc\x85,x\n", {}, [("a\u2028b\x0bc\x85", "x")], 2),
    "without a header": ("a,x\nb,y\n", {"columns": ["text", "label"]}, [("a", "x"), ("b", "y")], 1),
    "quotes as characters": (
        'text,label\n"a" said,x\n5" disk,y\n',
        {"quoting": False},
        [('"a" said', "x"), ('5" disk', "y")],
        2,
    ),
    "an unclosed quote as a character": ('text,label\n"a,x\nb,y\n', {"quoting": False}, [('"a', "x"), ("b", "y")], 2),
}


@pytest.mark.parametrize(("content", "spec", "values", "line"), DELIMITED.values(), ids=DELIMITED)
def test_tables_of_every_delimiter(tmp_path, content, spec, values, line):
    found = read(tmp_path / "a.csv", content, **spec)
    assert found.problems == [] and {code for code, _ in found.warnings} <= {"kept_quote"}
    assert found.values == values and found.rows[0][0] == line


def test_rows_without_a_value_are_passed_over_with_a_remark_that_names_the_first(tmp_path):
    found = read(tmp_path / "a.csv", "t,u\n1,2\n,\n\n,\n  \n3,4\n,,,\n")
    assert found.problems == [] and [line for line, _ in found.rows] == [2, 7]
    assert found.warnings == [("blank_row", 3)] and found.remarks[0].message.startswith("4 rows")


def test_lines_that_look_like_rows_inside_one_cell_are_remarked(tmp_path):
    found = read(tmp_path / "a.csv", 't,u\n1,2\n"3,4\n5,6\n7,8\n9",10\n11,12\n')
    assert found.problems == [] and [line for line, _ in found.rows] == [2, 3, 7]
    assert found.warnings == [("swallowed_rows", 3)] and "2 lines" in found.remarks[0].message


QUOTES = {
    "opened in the second line of a row": (
        't,u\n"a\nb","c\nd,1\n"e","f"\n',
        [("unbalanced_quote", 3)],
        "column 4",
        [4, 5],
    ),
    "opened in the second cell": ('t,u\n1,"2\n3,4\n5,6\n', [("unbalanced_quote", 2)], "column 3", [3, 4]),
    "behind an escaped quote": ('t,u\n"a""b","c\n3,4\n', [("unbalanced_quote", 2)], "column 8", [3]),
    "closed by the next opening one": ('t,u\n"a,1\n"b",2\nc,3\n', [("unbalanced_quote", 2)], "column 1", [3, 4]),
    "a quote inside a quoted cell": ('t,u\n"he said "no" twice",1\nc,3\n', [("unbalanced_quote", 2)], "column 1", [3]),
    "two of them": (
        't,u\n"a,1\nb,2\n"c"x,3\nd,4\n',
        [("unbalanced_quote", 2), ("unbalanced_quote", 4)],
        "column 1",
        [3, 5],
    ),
    "in a table of semicolons": ('t;u\n"a;1\n"b";2\nc;3\n', [("unbalanced_quote", 2)], "column 1", [3, 4]),
    "in the header": ('t,"u\n1,2\n3,4\n', [("unbalanced_quote", 1)], "column 3", []),
}


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(("content", "faults", "message", "kept"), QUOTES.values(), ids=QUOTES)
def test_an_unbalanced_quote_is_placed_where_it_was_opened(tmp_path, content, faults, message, kept, line_end):
    found = read(tmp_path / "a.csv", content.replace("\n", line_end))
    assert found.faults == faults and message in found.problems[0].message
    assert [line for line, _ in found.rows] == kept


@pytest.mark.parametrize(
    "row", ['"x{},y\n', 'x{},"y\n', '"x{}\ny\n', '"x{}" z,y\n'], ids=["first", "last", "lone", "behind"]
)
def test_thousands_of_unbalanced_quotes_are_read_in_time_and_the_end_of_reading_is_told(tmp_path, row):
    content = "t,u\n" + "".join(row.format(number) for number in range(30_000))
    started = time.perf_counter()
    found = read(tmp_path / "a.csv", content)
    assert time.perf_counter() - started < 20
    assert len(found.problems) >= 200 and "nothing behind this place was read" in found.problems[-1].hint
    assert len({problem.line for problem in found.problems}) == len(found.problems)


def test_a_cell_of_four_thousand_lines_is_no_fault_and_one_without_end_is(tmp_path):
    text = "line\n" * 4000
    assert read(tmp_path / "a.csv", f't,u\n"{text}",1\nx,2\n').rows[1][0] == 4003
    found = read(tmp_path / "a.csv", 't,u\n"' + "x,1\n" * 12_000)
    assert found.faults == [("unbalanced_quote", 2)] and len(found.rows) == 11_999


def test_a_header_that_cannot_be_read_ends_the_reading(tmp_path):
    found = read(tmp_path / "a.csv", b"t,\xff\n" + "好,一\n".encode() * 3)
    assert found.faults == [("not_utf8", 1)] and found.rows == []


def test_a_header_below_blank_lines_and_without_rows_is_named_with_its_line(tmp_path):
    assert read(tmp_path / "a.csv", "\n,\nt,u\n\n").faults == [("header_only", 3)]
    assert read(tmp_path / "a.csv", "sep=;\nt;u\n").faults == [("header_only", 2)]


def test_a_title_above_the_header_is_hinted_at(tmp_path):
    found = read(tmp_path / "a.csv", "問卷結果\ntext,label\na,好\n")
    assert found.faults == [("column_count", 2), ("column_count", 3)]
    assert all("title" in problem.hint for problem in found.problems)


def test_a_byte_order_mark_written_twice_is_no_part_of_a_column_name(tmp_path):
    assert read(tmp_path / "a.csv", b"\xef\xbb\xbf" * 2 + b"t,u\n1,2\n").rows == [(2, {"t": "1", "u": "2"})]


def test_names_given_twice_in_the_definition_are_one_problem(tmp_path):
    (problem,) = read(tmp_path / "a.csv", "1,2\n", columns=["t", "t"]).problems
    assert problem.code == "duplicate_column" and "`columns`" in problem.message


NUL = b"\x00" * 3000
PADDED = {
    "a line of its own in CSV": (b"t,u\na,b\n" + NUL, 3, "nothing but NUL", [2]),
    "a cut row in CSV": (b"t,u\na,b\nc" + NUL, 3, "ends in NUL", [2]),
    "a whole row in CSV": (b"t,u\na,b\nc,d" + NUL, 3, "ends in NUL", [2]),
    "JSON lines": (b'{"t": "x"}\n' + NUL, 2, "nothing but NUL", [1]),
    "a cut row in JSON lines": (b'{"t": "x"}\n{"t": "y' + NUL, 2, "ends in NUL", [1]),
    "an array": (b'[\n{"t": "x"},\n' + NUL, 3, "nothing but NUL", [2]),
    "a stream of objects": (b'{\n"t": "x"\n}\n' + NUL, 4, "nothing but NUL", [1]),
}


@pytest.mark.parametrize(("content", "line", "message", "kept"), PADDED.values(), ids=PADDED)
def test_nul_padding_at_the_end_is_one_problem(tmp_path, content, line, message, kept):
    found = read(tmp_path / "a", content)
    assert found.faults == [("nul_padding", line)] and message in found.problems[0].message
    assert [row_line for row_line, _ in found.rows] == kept


# JSON

GOOD = '{"t": "x"}'
JSON_FAULTS = {
    # content, (code, line), part of message or hint, lines of the rows
    "a list above objects": (f'["a"]\n{GOOD}\n{GOOD}\n', ("not_an_object", 1), "list", [2, 3]),
    "a cut first row": (f'{{"t": "x",\n{GOOD}\n{GOOD}\n', ("truncated", 1), "cut off", [2, 3]),
    "a comma behind each object": (f"{GOOD}\n{GOOD},\n", ("unparsable", 2), "a comma stands behind", [1]),
    "a Python dict": (f"{GOOD}\n{{'t': 'x'}}\n", ("unparsable", 2), "json.dumps", [1]),
    "nothing but Python dicts": ("{'t': 'x'}\n", ("unparsable", 1), "json.dumps", []),
    "a number too large": (f'{GOOD}\n{{"t": 1e999}}\n', ("nan_literal", 2), "1e999 is too large", [1]),
    "text in a .jsonl": ("not json\n", ("unparsable", 1), "column 1", []),
    "an object cut before the next": (
        '{\n"t": "x"\n}\n{\n"t": "y",\n{\n"t": "z"\n}\n', ("truncated", 4), "begins on line 6", [1, 6],
    ),
    "an element cut before the next": (f'[\n {{"t": "x",\n {GOOD}\n]', ("truncated", 2), "begins on line 3", [3]),
    "a broken one in a row of braces": (
        '[{\n"t": "x"\n}, {\n"t" "y"\n}, {\n"t": "z"\n}]', ("unparsable", 4), "delimiter", [1, 5],
    ),
    "a broken one in one line": (
        f'[{GOOD}, {{"t" 1}}, {GOOD}]', ("unparsable", 1), "rows behind this place were not read", [1],
    ),
    "a key twice in one line": (
        f'[{GOOD}, {{"t": 1, "t": 2}}, {GOOD}]', ("duplicate_key", 1), "'t' stands twice", [1, 1],
    ),
    "a key twice over several lines": ('[\n{\n"t": 1,\n"t": 2\n},\n{\n"t": 3\n}\n]', ("duplicate_key", 2), "'t'", [6]),
    "half an emoji in an array": (f'[\n{GOOD},\n{{"t": "\\ud83d"}},\n{GOOD}]', ("lone_surrogate", 3), "half", [2, 4]),
    "a word between elements": (f"[\n{GOOD} und\n{GOOD},\n{GOOD}]", ("unparsable", 2), "expected ','", [2, 3, 4]),
}  # fmt: skip


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(("content", "fault", "words", "kept"), JSON_FAULTS.values(), ids=JSON_FAULTS)
def test_faults_of_json_are_named_with_their_lines(tmp_path, content, fault, words, kept, line_end):
    found = read(tmp_path / "a.jsonl", content.replace("\n", line_end))
    assert found.faults == [fault]
    assert words in f"{found.problems[0].message} {found.problems[0].hint}"
    assert [line for line, _ in found.rows] == kept


def test_one_object_is_one_row_however_it_is_printed(tmp_path):
    row = {"text": "好", "tags": [{"a": 1}, {"b": [2, {}]}], "nested": {"x": "{\n"}}
    for indent in (None, 0, 1, 4, "\t"):
        found = read(tmp_path / "a.json", json.dumps(row, indent=indent, ensure_ascii=False))
        assert found.problems == [] and found.rows == [(1, row)]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("indent", [0, 2])
def test_printed_objects_have_the_line_they_begin_on(tmp_path, indent, line_end):
    rows = [{"t": f"第{number}", "more": list(range(number % 4))} for number in range(50)]
    for opening, between, end in (("[", ",", "]"), ("", "", "")):
        printed, lines, line = opening + "\n", [], 2
        for number, row in enumerate(rows):
            text = json.dumps(row, indent=indent, ensure_ascii=False)
            lines.append(line)
            printed += text + (between if number < len(rows) - 1 else "") + "\n\n"
            line += text.count("\n") + 2
        found = read(tmp_path / "a.json", (printed + end).replace("\n", line_end))
        assert found.problems == [] and found.rows == list(zip(lines, rows, strict=True))


def test_a_row_longer_than_a_chunk_is_read_whole(tmp_path):
    rows = [{"t": "長" * n} for n in (3_000_000, 1, 2_000_000)]
    for content in (json.dumps(rows), json.dumps(rows, ensure_ascii=False), "\n".join(map(json.dumps, rows))):
        assert [values for _, values in read(tmp_path / "a.json", content).rows] == rows


def test_a_row_without_an_end_is_given_up_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "MAX_ELEMENT_CHARACTERS", 3_000_000)
    content = '{"data": [' + ", ".join([GOOD] * 800_000)
    (problem,) = read(tmp_path / "a.json", content).problems
    assert (problem.code, problem.line) == ("unparsable", 1) and "goes on for more than" in problem.message
    assert "give that list alone" in problem.hint


def test_a_deep_row_with_halves_of_an_emoji_is_a_problem(tmp_path):
    deep = '{"t": "\\ud83d", "u": ' + "[" * 900 + "]" * 900 + "}"
    (problem,) = read(tmp_path / "a.jsonl", deep).problems
    assert problem.code in ("lone_surrogate", "unparsable") and problem.line == 1


# Parquet


def test_parquet_values_are_those_of_json(tmp_path):
    day = datetime.date(2026, 11, 22)
    table = pyarrow.table(
        {
            "text": ["營收", None],
            "label": pyarrow.array([0, None], pyarrow.int8()),
            "share": [0.5, float("nan")],
            "on": [day, None],
            "at": pyarrow.array([1, None], pyarrow.timestamp("ns", tz="Asia/Taipei")),
            "took": pyarrow.array([90, None], pyarrow.duration("s")),
            "price": [decimal.Decimal("1.50"), decimal.Decimal("2.00")],
            "raw": ["好".encode(), b"\xff\xd8"],
            "nested": [{"on": [day], "by": {"name": "小美"}}, None],
            "kind": pyarrow.array(["a", "b"]).dictionary_encode(),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert found.problems == [] and [line for line, _ in found.rows] == [1, 2]
    assert found.rows[0][1] == {
        "text": "營收", "label": 0, "share": 0.5, "on": "2026-11-22", "at": "1970-01-01T08:00:00.000000001+08:00",
        "took": "0:01:30", "price": 1.5, "raw": "好", "kind": "a",
        "nested": {"on": ["2026-11-22"], "by": {"name": "小美"}},
    }  # fmt: skip
    assert json.loads(json.dumps(found.rows[1][1], allow_nan=False)) == {
        "text": None, "label": None, "share": None, "on": None, "at": None, "took": None, "price": 2,
        "raw": {"n_bytes": 2}, "nested": None, "kind": "b",
    }  # fmt: skip


def test_text_in_parquet_that_is_no_utf8_is_named_with_its_row(tmp_path):
    offsets = pyarrow.array([0, 1, 3, 4], pyarrow.int32()).buffers()[1]
    texts = pyarrow.Array.from_buffers(pyarrow.string(), 3, [None, offsets, pyarrow.py_buffer(b"a\xff\xfeb")])
    parquet.write_table(pyarrow.table({"t": texts}), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert found.faults == [("unparsable", 2)] and found.rows == [(1, {"t": "a"}), (3, {"t": "b"})]


def test_columns_that_stand_twice_and_no_rows_are_named_in_parquet(tmp_path):
    twice = pyarrow.table([pyarrow.array([1]), pyarrow.array([2])], names=["t", "t"])
    parquet.write_table(twice, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").faults == [("duplicate_column", None)]
    parquet.write_table(pyarrow.table({"t": pyarrow.array([], pyarrow.string())}), tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet").faults == [("empty_file", None)]


def test_the_rows_of_later_batches_are_counted_on(tmp_path):
    parquet.write_table(pyarrow.table({"n": range(25_000)}), tmp_path / "a.parquet", row_group_size=7_000)
    assert [(line, values["n"] + 1) for line, values in read(tmp_path / "a.parquet").rows] == [
        (number, number) for number in range(1, 25_001)
    ]


# Columns from outside the file


def test_a_file_of_lines_for_each_class(tmp_path):
    found = read(tmp_path / "good.txt", "營收創高\n\n  \n轉虧為盈, 好\r\n最後", format="lines", values={"label": "好"})
    assert found.problems == []
    assert found.rows == [
        (line, {"text": text, "label": "好"}) for line, text in ((1, "營收創高"), (4, "轉虧為盈, 好"), (5, "最後"))
    ]


def test_constants_stand_beside_every_format(tmp_path):
    for kind in ("csv", "jsonl", "array", "xlsx", "parquet"):
        found = read(tmp_path / "a", _content_of(kind, tmp_path), values={"source": "報紙"})
        assert found.values == [(*row, "報紙") for row in TWO_ROWS]


def test_parallel_files_are_paired_line_by_line(tmp_path):
    (tmp_path / "labels.txt").write_bytes("好\r\n壞\r\n好".encode())
    found = read(tmp_path / "texts.txt", "a\n\nc\n", format="lines", parallel={"label": "labels.txt"})
    assert found.problems == []  # the blank text keeps its place; the checks of texts name it
    assert found.rows == [
        (1, {"text": "a", "label": "好"}), (2, {"text": "", "label": "壞"}), (3, {"text": "c", "label": "好"}),
    ]  # fmt: skip


def test_parallel_files_lie_where_their_paths_say_beside_the_main_one(tmp_path):
    for name, content in {"data/raw/texts.txt": "a\nb\n", "data/raw/more/labels.txt": "x\ny\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    spec = FileSpec(path="data/raw/texts.txt", format="lines", parallel={"label": "data/raw/more/labels.txt"})
    found = list(read_file(tmp_path / "data/raw/texts.txt", "data/raw/texts.txt", spec))
    assert [row.values["label"] for row in found] == ["x", "y"]


UNEQUAL = {
    # texts, labels, file and line of the problem, part of the message
    "labels end first": ("a\nb\nc\nd\n", "x\ny\n", ("texts.txt", 3), "no line of labels.txt is left"),
    "texts end first": ("a\nb\n", "x\ny\nx\ny\n", ("labels.txt", 3), "2 lines more than the 2 rows"),
    "a blank line at the end of the labels": ("a\nb\n", "x\ny\n\n", ("labels.txt", 3), "1 lines more"),
    "a blank line at the end of the texts": ("a\nb\n\n", "x\ny\n", ("texts.txt", 3), "no line of labels.txt is left"),
    "no labels": ("a\nb\n", "", ("texts.txt", 1), "no line of labels.txt is left"),
}


@pytest.mark.parametrize(("texts", "labels", "place", "message"), UNEQUAL.values(), ids=UNEQUAL)
def test_parallel_files_of_unequal_length_are_one_problem_at_the_first_line_without_a_partner(
    tmp_path, texts, labels, place, message
):
    (tmp_path / "labels.txt").write_text(labels)
    found = read(tmp_path / "texts.txt", texts, format="lines", parallel={"label": "labels.txt"})
    (problem,) = found.problems
    assert (problem.code, problem.field) == ("parallel_length", "label")
    assert (problem.file, problem.line) == place and message in problem.message
    assert all(values["label"] in "xy" for _, values in found.rows)


def test_a_fault_in_a_parallel_file_is_named_there_and_its_row_left_out(tmp_path):
    (tmp_path / "labels.txt").write_bytes("好\n好".encode() + b"\xff\n" + "壞\n".encode())
    found = read(tmp_path / "texts.txt", "a\nb\nc\n", format="lines", parallel={"label": "labels.txt"})
    assert found.rows == [(1, {"text": "a", "label": "好"}), (3, {"text": "c", "label": "壞"})]
    assert [(problem.code, problem.file, problem.line) for problem in found.problems] == [("not_utf8", "labels.txt", 2)]


def test_a_fault_in_the_main_file_does_not_shift_the_labels(tmp_path):
    (tmp_path / "labels.txt").write_text("1\n2\n3\n4\n")
    found = read(tmp_path / "texts.txt", b"a\n\xff\nc\nd\n", format="lines", parallel={"label": "labels.txt"})
    assert found.faults == [("not_utf8", 2)]
    assert [values for _, values in found.rows] == [
        {"text": "a", "label": "1"}, {"text": "c", "label": "3"}, {"text": "d", "label": "4"},
    ]  # fmt: skip


def test_a_parallel_file_that_is_missing_is_one_problem(tmp_path):
    found = read(tmp_path / "texts.txt", "a\nb\n", format="lines", parallel={"label": "labels.txt"})
    assert [(problem.code, problem.file) for problem in found.problems] == [("file_missing", "labels.txt")]
    assert found.rows == []


@pytest.mark.parametrize("outside", [{"values": {"label": "x"}}, {"parallel": {"label": "labels.txt"}}])
def test_a_column_that_stands_in_the_file_and_outside_is_a_problem(tmp_path, outside):
    (tmp_path / "labels.txt").write_text("x\n")
    found = read(tmp_path / "a.csv", "text,label\na,y\n", **outside)
    assert found.faults == [("duplicate_column", 2)] and found.rows == []


# Lines and memory


@pytest.mark.parametrize("content", ["a,b{0}c,d{1}e,f{2}g,h", '{{"a": 1}}{0}{{"a": 2}}{1}{{"a": 3}}{2}{{"a": 4}}'])
def test_lines_are_counted_as_an_editor_does_where_line_ends_are_mixed(tmp_path, content):
    text = content.format("\r\n", "\r", "\n\r\n")
    found = read(tmp_path / "a", text, **({"columns": ["t", "u"]} if text[0] == "a" else {}))
    assert found.problems == [] and [line for line, _ in found.rows] == [1, 2, 3, 5]


MEASURE = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tasklib.reading.records import Row, read_file
from tasklib.schema import FileSpec
def peak(name, **spec):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    n_rows = sum(isinstance(item, Row) for item in read_file(Path(name), name, FileSpec(path=name, **spec)))
    return n_rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
import json
spec = json.loads(sys.argv[2])
print(json.dumps([peak("small", **spec), peak("large", **spec)]))
"""

LARGE = {
    "JSON lines": (lambda row, n: f"{row}\n" * n, {}),
    "an array on one line": (lambda row, n: "[" + ", ".join([row] * n) + "]", {}),
    "an array of lines": (lambda row, n: "[\n" + ",\n".join([row] * n) + "\n]", {}),
    "a stream of printed objects": (lambda row, n: (row.replace("{", "{\n").replace("}", "\n}") + "\n") * n, {}),
    "objects on one line": (lambda row, n: row * n, {}),
    "CSV": (lambda row, n: "text,label\n" + "一二三四五六七八九十" * 50 + ",x\n" * n, {}),
    "parallel lines": (lambda row, n: (row[10:-2] + "\n") * n, {"format": "lines", "parallel": {"label": "large"}}),
}


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is measured with the resource module")
@pytest.mark.parametrize("kind", LARGE)
def test_memory_does_not_grow_with_the_file(tmp_path, kind):
    make, spec = LARGE[kind]
    row = json.dumps({"t": "一二三四五六七八九十" * 50}, ensure_ascii=False)  # 1.5 KB
    (tmp_path / "small").write_text(make(row, 3_000), encoding="utf-8")
    (tmp_path / "large").write_text(make(row, 33_000), encoding="utf-8")
    argv = [sys.executable, "-c", MEASURE, str(BUNDLE / "scripts" / "task"), json.dumps(spec)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    (n_small, _), (n_large, growth_mb) = json.loads(done.stdout)
    assert n_small >= 3_000 and n_large == n_small * 11
    assert growth_mb < 12, f"50 MB took {growth_mb} MB more than 5 MB"
