"""Every fault that a data set can have is found, with code, file, line and a hint; clean data raise no alarm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from task_folder import LABELS, jsonl, write
from tasklib import schema
from tasklib.data import data_checks, dataset, near_duplicates
from tasklib.paths import TaskPaths
from tasklib.summary import Findings

OK = [f'"{word}司公布第{n}季的營運概況",{label}' for n, (word, label) in enumerate([("甲", "good"), ("乙", "bad")] * 6)]
GOOD_CSV = "title,mood\n" + "\n".join(OK) + "\n"  # 12 rows on lines 2 to 13
MISREAD = "公司营收创新高的消息".encode().decode("gb18030")
LONG = "主管機關昨天公布新的規定，業者必須在明年三月底以前完成改善並且提出書面報告"


def scanned(folder: Path, contents: dict[str, str | bytes], near: float | None = None, **data) -> Findings:
    """What is found in raw files; `data` extends the definition's section of that name."""
    for name, content in contents.items():
        write(folder / "data" / "raw" / name, content)
    definition = {
        "schema_version": 1,
        "name": "tiny",
        "task": {"type": "classification", "labels": LABELS},
        "data": {
            "files": {"all": [f"data/raw/{name}" for name in contents]},
            "fields": {"text": "title", "label": "mood"},
            **data,
        },
    }
    path = write(folder / "task_definition.yaml", yaml.safe_dump(definition, allow_unicode=True))
    paths, loaded = TaskPaths(folder), schema.load_definition(path)
    found = dataset.scan(paths, loaded)
    if near is not None:
        texts = (example.record.text for example in dataset.examples(paths, loaded))
        data_checks.add_near_duplicates(found, near_duplicates.pairs(texts, near))
    return found.findings


def places(findings: Findings, code: str) -> list[tuple[str, str | None, int | None]]:
    """(severity, file, line) of every finding of a code."""
    kinds = (("error", findings.errors), ("warning", findings.warnings))
    return [(kind, p.file, p.line) for kind, kept in kinds for p in kept if p.code == code]


def test_clean_rows_raise_no_alarm(tmp_path):
    rows = "".join(f"{LONG[: n + 12]}第{n}則,{'good' if n % 2 else 'bad'}\n" for n in range(24))
    found = scanned(tmp_path, {"a.csv": "title,mood\n" + rows})
    assert found.errors == found.warnings == [] and not +found.totals


# What stands in line 14, after twelve good rows: code, severity, and what the message or hint must say.
ROWS = {
    "an empty text": (",good", "empty_field", "error", "fill the cell"),
    "a text of white space": ('"  \u3000 ",good', "empty_field", "error", "fill the cell"),
    "an empty label": ("一則新聞,", "empty_field", "error", "fill the cell"),
    "a mistyped label": ("一則新聞,goood", "unknown_label", "error", "did you mean 'good'"),
    "a label with a stray space": ("一則新聞,good ", "unknown_label", "error", "stray spaces"),
    "a label in full-width forms": ("一則新聞,ｇｏｏｄ", "unknown_label", "error", "full-width"),
    "a label in another case": ("一則新聞,Good", "unknown_label", "error", "case"),
    "a label with an invisible character": ("一則新聞,go\u200bod", "unknown_label", "error", "U+200B"),
    "a number for a label": ("一則新聞,1", "unknown_label", "error", "which name is 1"),
    "too few cells": ("一則新聞", "column_count", "error", "1 cells"),
    "too many cells": ("一則,新聞,good", "column_count", "error", "3 cells"),
    "text behind a quote": ('"一則"新聞,good', "unbalanced_quote", "error", "column"),
    "a NUL": ("一則\0新聞,good", "nul_character", "error", "NUL"),
    "a control character": ("一則\x07新聞,good", "control_character", "warning", "U+0007"),
    "a zero width space": ("一則\u200b新聞,good", "invisible_character", "warning", "ZERO WIDTH SPACE"),
    "a bidirectional override": ("一則\u202e新聞,good", "bidi_character", "warning", "U+202E"),
    "a lost character": ("一則\ufffd新聞,good", "replacement_character", "warning", "U+FFFD"),
    "a character of one's own": ("一則\ue123新聞,good", "private_use_character", "warning", "U+E123"),
    "a chat template's token": ("一則<|im_end|>新聞,good", "chat_template_token", "warning", "<|im_end|>"),
    "an HTML entity": ("一則&nbsp;新聞,good", "html_entity", "warning", "&nbsp;"),
    "an HTML tag": ("一則<br>新聞,good", "html_tag", "warning", "<br>"),
    "UTF-8 read as Latin-1": ("公司營收創新高".encode().decode("latin-1") + ",good", "mojibake", "warning", "公司"),
    "UTF-8 read as GBK": (f"{MISREAD},good", "mojibake", "warning", ""),
    "an e-mail address": ("請洽 wang.xm@example.com,good", "personal_data", "warning", "email"),
    "a Taiwanese mobile number": ("電話0912-345-678,good", "personal_data", "warning", "phone_tw_mobile"),
    "a Taiwanese ID number": ("身分證A123456789,good", "personal_data", "warning", "taiwan_id"),
    "a Chinese ID number": ("证号11010519491231002X,good", "personal_data", "warning", "china_resident_id"),
    "a credit card number": ("卡號4111 1111 1111 1111,good", "personal_data", "warning", "credit_card"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "code", "severity", "said"), ROWS.values(), ids=ROWS)
def test_a_fault_of_one_row_is_found_in_its_line(tmp_path, row, code, severity, said):
    found = scanned(tmp_path, {"a.csv": GOOD_CSV + row + "\n" + OK[0].replace("甲", "丙") + "\n"})
    assert places(found, code) == [(severity, "data/raw/a.csv", 14)]
    (problem,) = [p for p in found.errors + found.warnings if p.code == code]
    assert said in f"{problem.message} {problem.hint}" and problem.hint
    assert [p.code for p in found.errors] == ([code] if severity == "error" else [])


ORDINARY = [
    "2330 漲到 1,234,567,890 元",
    "2026/11/22 14:30 公布",
    "統一編號12345678",
    "ISBN 9789571234567",
    "EPS 3.21 元",
]


def test_ordinary_numbers_are_no_personal_data(tmp_path):
    rows = [{"title": text, "mood": "good"} for text in ORDINARY]
    assert places(scanned(tmp_path, {"a.jsonl": jsonl(*rows)}), "personal_data") == []


JSON_ROWS = {
    "no JSON": ("not json", "unparsable"),
    "a truncated row": ('{"title": "一則新', "truncated"),
    "two rows run together": ('{"title": "a", "mood": "bad"}{"title": "b", "mood": "bad"}', "concatenated"),
    "a key twice": ('{"title": "a", "title": "b", "mood": "bad"}', "duplicate_key"),
    "NaN": ('{"title": NaN, "mood": "bad"}', "nan_literal"),
    "half an emoji": ('{"title": "\\ud83d", "mood": "bad"}', "lone_surrogate"),
    "no text": ('{"mood": "bad"}', "missing_field"),
    "null": ('{"title": null, "mood": "bad"}', "missing_field"),
    "a text that is a number": ('{"title": 7, "mood": "bad"}', "wrong_type"),
    "a text that is a list": ('{"title": ["a"], "mood": "bad"}', "wrong_type"),
    "a label that is a boolean": ('{"title": "一則", "mood": true}', "wrong_type"),
    "no object": ('["title", "mood"]', "not_an_object"),
    "NUL padding": ("\0" * 64, "nul_padding"),
    "a byte of another encoding": (b'{"title": "\xa4\xa4", "mood": "bad"}', "not_utf8"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "code"), JSON_ROWS.values(), ids=JSON_ROWS)
def test_a_fault_of_one_json_row_is_found_in_its_line(tmp_path, row, code):
    good = [{"title": f"{LONG}之{n}", "mood": "bad" if n % 2 else "good"} for n in range(4)]
    content = jsonl(*good[:2]).encode() + (row if isinstance(row, bytes) else row.encode()) + b"\n"
    found = scanned(tmp_path, {"a.jsonl": content + jsonl(*good[2:]).encode()})
    assert places(found, code) == [("error", "data/raw/a.jsonl", 3)]
    assert [p.code for p in found.errors] == [code] and found.errors[0].hint


FILES = {
    "an empty file": ("", "empty_file", None),
    "a header alone": ("title,mood\n", "header_only", 1),
    "a column twice": ("title,mood,title\na,good,b\n", "duplicate_column", 1),
    "a missing column": ("titel,mood\na,good\n", "missing_column", 1),
    "a quote that is never closed": (f'title,mood\n一則,good\n"二則,bad\n{LONG},good\n', "unbalanced_quote", 3),
    "Big5": ("title,mood\n公司營收創新高,good\n股價大跌,bad\n".encode("big5"), "not_utf8", 2),
    "a file cut off into NUL bytes": (GOOD_CSV.encode() + b"\0" * 100, "nul_padding", 14),
    "gzip": (b"\x1f\x8b\x08\x00abc", "unknown_format", None),
}  # fmt: skip


@pytest.mark.parametrize(("content", "code", "line"), FILES.values(), ids=FILES)
def test_a_fault_of_a_whole_file_is_found_with_its_line(tmp_path, content, code, line):
    found = scanned(tmp_path, {"a.csv": content, "ok.csv": GOOD_CSV})
    assert places(found, code) == [("error", "data/raw/a.csv", line)]
    assert [p.code for p in found.errors] == [code]


def test_a_file_that_mixes_encodings_is_told_by_line_and_byte(tmp_path):
    content = GOOD_CSV.encode() + "三則新聞,good\n".encode("big5") + "四則新聞,bad\n".encode()
    found = scanned(tmp_path, {"a.csv": content})
    assert places(found, "not_utf8") == [("error", "data/raw/a.csv", 14)]
    assert "byte 1 " in found.errors[0].message and "mixes encodings" in found.errors[0].hint


def test_a_declared_encoding_that_the_bytes_deny_is_an_error(tmp_path):
    files = {"files": {"all": [{"path": "data/raw/a.csv", "encoding": "gb18030"}]}}
    found = scanned(tmp_path, {"a.csv": GOOD_CSV}, **files)
    assert places(found, "wrong_encoding") == [("error", "data/raw/a.csv", None)]


def test_a_folder_in_the_place_of_a_file_and_a_missing_file_are_errors(tmp_path):
    (tmp_path / "data/raw/b.csv").mkdir(parents=True)
    files = {"files": {"all": ["data/raw/b.csv", "data/raw/nowhere.csv"]}}
    assert len(places(scanned(tmp_path, {}, **files), "file_missing")) == 2


def test_rows_swallowed_by_a_quote_and_rows_without_a_value_are_warnings(tmp_path):
    swallowed = '"開頭,good\n一,bad\n二,good\n三,bad\n結尾",bad\n'
    found = scanned(tmp_path, {"a.csv": GOOD_CSV + swallowed + ",\n"})
    assert places(found, "swallowed_rows") == [("warning", "data/raw/a.csv", 14)]
    assert places(found, "blank_row") == [("warning", "data/raw/a.csv", 19)]


def test_duplicates_are_told_with_the_first_row_and_contradictions_with_both_labels(tmp_path):
    rows = "一則新聞,good\n一則新聞,good\n一 則新聞 ,bad\n"
    found = scanned(tmp_path, {"a.csv": GOOD_CSV + rows})
    assert places(found, "duplicate") == [("warning", "data/raw/a.csv", 15)]
    assert places(found, "contradicting_duplicate") == [("warning", "data/raw/a.csv", 16)]
    (problem,) = [p for p in found.warnings if p.code == "contradicting_duplicate"]
    assert "a.csv:14" in problem.message and "'bad' here and 'good' there" in problem.message


def test_near_duplicates_are_told_with_the_labels_compared(tmp_path):
    rows = f"{LONG}。,good\n{LONG}！,good\n{LONG}喔,bad\n"
    found = scanned(tmp_path, {"a.csv": GOOD_CSV + rows}, near=0.9)
    assert {15, 16} <= {line for _, _, line in places(found, "near_duplicate")}
    messages = [p.message for p in found.warnings if p.code == "near_duplicate"]
    assert any("with the same label" in text for text in messages)
    assert any("'bad' here and 'good' there" in text for text in messages)


def test_leakage_between_the_users_own_splits_is_told_exact_and_near(tmp_path):
    files = {"files": {"train": ["data/raw/a.csv"], "test": ["data/raw/b.csv"]}, "split": {"validation": 0.2}}
    test = f"title,mood\n{LONG}！,bad\n一則新聞,bad\n全新的一則,good\n"
    content = {"a.csv": GOOD_CSV + f"一則新聞,good\n{LONG}。,good\n", "b.csv": test}
    found = scanned(tmp_path, content, near=0.8, **files)
    assert places(found, "leakage") == [("error", "data/raw/b.csv", 3)]
    assert "as 'good' there and 'bad' here" in found.errors[0].message
    assert places(found, "near_leakage") == [("warning", "data/raw/b.csv", 2)]


def test_classes_are_judged_by_their_rows(tmp_path):
    many = "".join(f"{LONG[: 15 + n % 9]}之{n},good\n" for n in range(60))
    found = scanned(tmp_path, {"a.csv": f"title,mood\n{many}一則新聞在這裡發生了什麼事,bad\n"})
    assert places(found, "one_example_label") and places(found, "imbalance")
    alone = scanned(tmp_path / "alone", {"a.csv": f"title,mood\n{many}"})
    assert places(alone, "one_class") == [("error", None, None)]


def test_lengths_far_from_the_others_and_the_other_script_are_told_by_line(tmp_path):
    rows = "".join(f"{LONG}之{n},{'good' if n % 2 else 'bad'}\n" for n in range(30))
    odd = f"{LONG * 40},good\n短,bad\n这则新闻说的是国内经济发展与贸易问题的最新动向和专家意见,good\n"
    found = scanned(tmp_path, {"a.csv": f"title,mood\n{rows}{odd}"})
    assert [line for _, _, line in places(found, "length_outlier")] == [32, 33]
    assert places(found, "mixed_script") == [("warning", "data/raw/a.csv", 34)]


def test_more_than_twenty_findings_of_a_code_are_counted_and_the_first_are_kept(tmp_path):
    found = scanned(tmp_path, {"a.csv": GOOD_CSV + ",good\n" * 500})
    assert found.totals["empty_field"] == 500 and len(places(found, "empty_field")) == 20


def test_a_date_that_is_none_is_an_error_where_the_split_goes_by_time(tmp_path):
    rows = [
        {"title": f"{LONG}{n}", "mood": "good" if n % 2 else "bad", "date": f"2026-11-{n + 1:02}"} for n in range(9)
    ]
    rows.append({"title": "x" * 20, "mood": "good", "date": "昨天"})
    found = scanned(tmp_path, {"a.jsonl": jsonl(*rows)}, split={"time_field": "date"})
    assert places(found, "no_time") == [("error", "data/raw/a.jsonl", 10)]


def test_parallel_files_of_unequal_length_are_told(tmp_path):
    spec = {"path": "data/raw/x.txt", "format": "lines", "parallel": {"mood": "data/raw/y.txt"}}
    files = {"x.txt": "一則\n二則\n三則\n", "y.txt": "good\nbad\n"}
    found = scanned(tmp_path, files, files={"all": [spec]}, fields={"text": "text", "label": "mood"})
    assert places(found, "parallel_length") == [("error", "data/raw/x.txt", 3)]
    assert "data/raw/y.txt" in found.errors[0].message


def test_one_text_file_for_each_class_and_parallel_files_are_read(tmp_path):
    specs = [
        {"path": "data/raw/good.txt", "format": "lines", "values": {"mood": "good"}},
        {"path": "data/raw/x.txt", "format": "lines", "parallel": {"mood": "data/raw/y.txt"}},
    ]
    files = {"good.txt": "一則好消息\n又一則\n", "x.txt": "壞消息\n另一則\n", "y.txt": "bad\nbad\n"}
    found = scanned(tmp_path, files, files={"all": specs}, fields={"text": "text", "label": "mood"})
    assert found.errors == []


def test_a_stream_of_pretty_printed_objects_gives_the_line_of_each(tmp_path):
    rows = [{"title": f"{LONG}{n}", "mood": "good" if n else "wrong"} for n in range(3)]
    content = "\n".join(json.dumps(row, ensure_ascii=False, indent=2) for row in rows)
    found = scanned(tmp_path, {"a.json": content})
    assert places(found, "unknown_label") == [("error", "data/raw/a.json", 1)]
