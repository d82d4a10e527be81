"""scripts/creation/proposal.py, columns.py, labels.py, shapes.py: what is proposed from a table of texts and labels,
and what refused. tests/test_recognition.py has the other task types."""

from __future__ import annotations

import csv
import io
import json

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from creation import columns, labels, proposal, reading, sources
from creation.sources import Source
from task_folder import jsonl, write
from tasklib import task_types

CLASSES = ("財經", "政治", "體育", "娛樂", "科技")
N = 120


def sheet(n=N, **more):
    """Rows as they stand in a spreadsheet of an office; `more` maps a column to a function of the row's number."""
    made = {
        "編號": lambda k: f"N{k:05d}",
        "日期": lambda k: f"2026/{k % 3 + 1}/{k % 4 + 1}",
        "來源": lambda k: ("聯合報", "中國時報", "自由時報")[k % 3],
        "標題": lambda k: f"第{k}家公司公布第三季的營收數字",
        "內文": lambda k: f"第{k}家公司昨天公布營收。" + "法人認為後續仍須觀察，市場反應不一。" * 3,
        "類別": lambda k: CLASSES[k * 7 % 5],
    } | more
    return [{name: make(k) for name, make in made.items()} for k in range(n)]


def only(rows, *names):
    return [{name: row[name] for name in names} for row in rows]


def table(rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def propose(folder, content, name="a.csv", names=None, **answers):
    """The proposal for one file (rows, or its content) or for several (name -> content)."""
    files = content if isinstance(content, dict) else {name: content}
    for each, rows in files.items():
        write(folder / each, rows if isinstance(rows, str | bytes) else table(rows))
    result = reading.understand([Source("all", folder / each) for each in files], reading.Flags())
    assert result.problems == []
    return proposal.propose(sources.by_class(result.sources)[0], answers, names)


def codes(problems):
    return [problem.code for problem in problems]


def refused(found, code):
    """The one problem of a proposal that must not become a task."""
    (problem,) = found.problems
    assert problem.code == code and problem.hint, problem
    return problem


def values(found, role):
    return [option["value"] for option in found.candidates[role]]


# Which column is the text, which the label.


def test_a_title_and_a_body_are_two_texts_and_a_person_has_to_say_which(tmp_path):
    found = propose(tmp_path, sheet())
    problem = refused(found, "ambiguous_column")
    assert values(found, "text") == ["標題", "內文"] and "--text-field" in problem.hint
    assert all(option["why"] for option in found.candidates["text"])
    assert found.fields == {"label": "類別"}, "what is clear is proposed all the same"


@pytest.mark.parametrize("text", ["標題", "內文"])
def test_with_one_text_the_other_columns_of_an_office_table_do_not_mislead(tmp_path, text):
    found = propose(tmp_path, only(sheet(), "編號", "日期", "來源", text, "類別"))
    assert found.problems == [] and found.fields == {"text": text, "label": "類別"}
    assert found.counts == dict.fromkeys(sorted(CLASSES), 24)
    assert "its name" in found.why["text"] and "5 values" in found.why["label"]


@pytest.mark.parametrize(
    ("header", "fields"),
    [
        (("text", "label"), ("text", "label")),
        (("Review_Text", "SENTIMENT"), ("Review_Text", "SENTIMENT")),
        (("新聞標題", "問題類別"), ("新聞標題", "問題類別")),
        (("ｔｅｘｔ", "標籤名稱"), ("ｔｅｘｔ", "標籤名稱")),
        (("甲", "乙"), ("甲", "乙")),
        (("column_1", "column_2"), ("column_1", "column_2")),
        (("utteranceText", "goldLabel"), ("utteranceText", "goldLabel")),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_names_help_and_are_not_needed(tmp_path, header, fields, turned):
    rows = [{header[0]: row["標題"], header[1]: row["類別"]} for row in sheet()]
    rows = [dict(reversed(row.items())) for row in rows] if turned else rows
    found = propose(tmp_path, rows)
    assert (found.fields["text"], found.fields["label"]) == fields


@pytest.mark.parametrize("name", ["已處理", "是否結案", "verified"])
def test_a_yes_no_column_beside_a_named_label_is_passed_over_and_beside_an_unnamed_one_is_a_candidate(tmp_path, name):
    rows = only(sheet(**{name: lambda k: "是否"[k % 2]}), "標題", "類別", name)
    assert propose(tmp_path, rows).fields["label"] == "類別"
    rows = [{"標題": row["標題"], "部門": row["類別"], name: row[name]} for row in rows]
    found = propose(tmp_path, rows)
    assert refused(found, "ambiguous_column") and values(found, "label") == ["部門", name]


def test_where_the_texts_come_from_is_not_proposed_as_what_they_are(tmp_path):
    found = propose(tmp_path, only(sheet(), "編號", "日期", "來源", "標題"))
    problem = refused(found, "ambiguous_column")
    assert values(found, "label") == ["來源"] and "來源" in problem.message and "label_with.py" in problem.hint
    assert propose(tmp_path, only(sheet(), "來源", "標題"), fields={"label": "來源"}).problems == []


@pytest.mark.parametrize("name", ["按讚數", "瀏覽次數", "like_count"])
def test_a_count_of_something_is_not_proposed_as_a_label(tmp_path, name):
    rows = [{"標題": row["標題"], name: k % 13} for k, row in enumerate(sheet())]
    assert refused(propose(tmp_path, rows), "ambiguous_column") and propose(tmp_path, rows).fields == {"text": "標題"}


@pytest.mark.parametrize(
    "date",
    [lambda k: f"2026-0{k % 3 + 1}-01", lambda k: f"2026/{k % 3 + 1}/1 上午 09:2{k % 3}:11",
     lambda k: f"2026-0{k % 3 + 1}", lambda k: f"11{k % 3}年{k % 3 + 1}月5日", lambda k: f"2026010{k % 3 + 1}"],
)  # fmt: skip
def test_a_date_column_of_few_values_is_no_label(tmp_path, date):
    rows = [{"文": row["標題"], "時": date(k), "判斷": row["類別"]} for k, row in enumerate(sheet())]
    assert propose(tmp_path, rows).fields == {"text": "文", "label": "判斷"}


@pytest.mark.parametrize("code", ["N{:05d}", "https://example.com/{}", "user{}@example.com", "{}", "a-{}-b"])
def test_an_identifier_that_is_different_in_each_row_is_no_text(tmp_path, code):
    rows = [{"甲": code.format(k), "乙": f"第{k}則", "丙": "ab"[k % 2]} for k in range(N)]
    assert propose(tmp_path, rows).fields == {"text": "乙", "label": "丙"}


def test_rows_that_are_sorted_by_label_are_seen_to_their_end(tmp_path):
    n = 3 * columns.SPREAD_ROWS + 7
    rows = [{"甲": f"第{k}則新聞", "乙": CLASSES[k * 5 // n]} for k in range(n)]
    found = propose(tmp_path, rows)
    assert found.fields == {"text": "甲", "label": "乙"} and set(found.counts) == set(CLASSES)
    assert sum(found.counts.values()) == n


def test_a_table_of_five_rows_is_enough_for_a_proposal(tmp_path):
    rows = [{"甲": f"第{k}家公司的新聞", "乙": label} for k, label in enumerate(["好", "壞", "好", "壞", "平"])]
    assert propose(tmp_path, rows).counts == {"壞": 2, "好": 2, "平": 1}


def test_short_texts_that_people_repeat_are_texts_by_their_name(tmp_path):
    rows = [{"utterance": ("退貨", "查帳", "改密碼")[k % 3] + str(k % 9), "intent": "ab"[k % 2]} for k in range(N)]
    assert propose(tmp_path, rows).fields == {"text": "utterance", "label": "intent"}


def test_rows_that_stand_twice_do_not_hide_the_text(tmp_path):
    rows = [{"甲": row["標題"], "乙": row["類別"]} for row in sheet()]
    assert propose(tmp_path, rows * 3).fields == {"text": "甲", "label": "乙"}


def test_of_a_label_in_numbers_and_the_same_in_words_the_words_are_taken(tmp_path):
    rows = [{"text": f"第{k}則的內容", "label": k % 3, "label_text": ("neg", "neu", "pos")[k % 3]} for k in range(N)]
    assert propose(tmp_path, jsonl(*rows), "a.jsonl").fields["label"] == "label_text"
    rows[5]["label_text"] = "neg"
    assert refused(propose(tmp_path, jsonl(*rows), "a.jsonl"), "ambiguous_column")


def test_two_annotators_are_two_readings(tmp_path):
    rows = sheet(標註者A=lambda k: CLASSES[k % 5], 標註者B=lambda k: CLASSES[k % 4])
    found = propose(tmp_path, only(rows, "標題", "標註者A", "標註者B"))
    assert refused(found, "ambiguous_column") and values(found, "label") == ["標註者A", "標註者B"]


def test_a_column_of_splits_is_no_label_and_is_said_to_be_unused(tmp_path):
    rows = [{"甲": row["標題"], "乙": row["類別"], "丙": ("train", "test")[k % 2]} for k, row in enumerate(sheet())]
    found = propose(tmp_path, rows)
    assert found.fields["label"] == "乙" and "split_column" in codes(found.warnings)


def test_given_labels_find_their_column(tmp_path):
    rows = only(sheet(判斷=lambda k: "好壞"[k % 2]), "來源", "標題", "判斷")
    found = propose(tmp_path, rows, labels=["好", "壞"])
    assert found.fields["label"] == "判斷" and "labels given" in found.why["label"] and found.labels is None


def test_given_columns_win_and_the_rest_is_found_beside_them(tmp_path):
    found = propose(tmp_path, sheet(), fields={"text": "內文"})
    assert found.problems == [] and found.fields == {"text": "內文", "label": "類別"}
    found = propose(tmp_path, sheet(), fields={"label": "來源", "text": "標題"})
    assert found.fields == {"text": "標題", "label": "來源"} and set(found.counts) == {"聯合報", "中國時報", "自由時報"}


def test_columns_that_do_not_exist_are_named_together_with_those_that_do(tmp_path):
    found = propose(tmp_path, sheet(), fields={"text": "內文 ", "label": "類型別"})
    assert codes(found.problems) == ["missing_column"] * 2
    assert "did you mean '內文'?" in found.problems[0].hint and "標題" in found.problems[1].hint


def test_everything_in_one_column_is_refused_with_what_seems_to_part_it(tmp_path):
    for line, mark in (("【{label}】{text}", "】"), ("{text}#{label}", "#"), ("{label}：{text}", "：")):
        rows = [{"全部": line.format(label=row["類別"], text=row["標題"])} for row in sheet()]
        found = propose(tmp_path, rows)
        assert repr(mark) in refused(found, "missing_column").hint
    found = propose(tmp_path, only(sheet(), "標題"))
    assert "label_with.py" in refused(found, "missing_column").hint


def test_files_whose_columns_have_other_names_are_refused_each_with_its_own(tmp_path):
    rows = only(sheet(), "標題", "類別")
    other = [{"text": row["標題"], "label": row["類別"]} for row in rows]
    found = propose(tmp_path, {"a.csv": rows, "b.jsonl": jsonl(*other)}, fields={"text": "標題", "label": "類別"})
    assert codes(found.problems) == ["missing_column"] * 2
    assert all(problem.file.endswith("b.jsonl") and "text, label" in problem.message for problem in found.problems)


def test_a_file_of_another_form_with_the_same_columns_adds_its_rows(tmp_path):
    rows = only(sheet(), "標題", "類別")
    found = propose(tmp_path, {"a.csv": rows, "b.jsonl": jsonl(*rows)})
    assert found.problems == [] and found.counts["財經"] == 48


# Labels.


def with_labels(make, n=N):
    return [{"text": f"第{k}則新聞的內容", "label": make(k)} for k in range(n)]


def test_labels_are_counted_over_all_rows_the_most_frequent_first(tmp_path):
    found = propose(tmp_path, with_labels(lambda k: "a" if k % 4 else "b"))
    assert list(found.counts.items()) == [("a", 90), ("b", 30)] and found.labels == {"a": "a", "b": "b"}
    assert "a (90), b (30)" in found.warnings[0].message


@pytest.mark.parametrize(
    ("variant", "why"),
    [("財經 ", "stray spaces"), ("財經\u3000", "stray spaces"), ("財\u200b經", "invisible"), ("ＦＩＮ", "full-width")],
)
def test_a_label_with_spaces_or_in_another_width_is_no_class_of_its_own(tmp_path, variant, why):
    plain = "FIN" if variant == "ＦＩＮ" else "財經"
    found = propose(tmp_path, with_labels(lambda k: variant if k % 30 == 0 else (plain, "政治")[k % 2]))
    assert set(found.labels) == {plain, "政治"} and found.counts[plain] == 60
    (warning,) = [warning for warning in found.warnings if warning.code == "label_variant"]
    assert why in warning.message and "(4 rows)" in warning.message and "--fix" in warning.hint


def test_the_clean_form_is_the_label_even_where_the_other_is_more_frequent(tmp_path):
    found = propose(tmp_path, with_labels(lambda k: ("財經" if k < 8 else "財經 ", "政治")[k % 2]))
    assert set(found.labels) == {"財經", "政治"}


@pytest.mark.parametrize(("typo", "label"), [("Positve", "Positive"), ("財精", "財經"), ("正面的", "正面")])
def test_a_rare_label_that_looks_like_a_frequent_one_is_named(tmp_path, typo, label):
    found = propose(tmp_path, with_labels(lambda k: typo if k == 5 else (label, "other")[k % 2]))
    (warning,) = [warning for warning in found.warnings if warning.code == "label_near_miss"]
    assert repr(typo) in warning.message and repr(label) in warning.message


def test_numbers_are_not_taken_for_mistyped_ones(tmp_path):
    found = propose(tmp_path, with_labels(lambda k: "100" if k == 5 else ("10", "1000")[k % 2]))
    assert codes(found.warnings) == ["labels_from_data"]


@pytest.mark.parametrize(
    ("make", "labels_", "hint"),
    [(lambda k: k % 3, ["0", "1", "2"], "--label-names"), (lambda k: k % 3 + 9, ["9", "10", "11"], "--labels=9=…")],
)
def test_numbers_are_sorted_as_numbers_and_asked_for_their_names(tmp_path, make, labels_, hint):
    found = propose(tmp_path, jsonl(*with_labels(make)), "a.jsonl")
    assert list(found.labels) == labels_ and hint in found.warnings[0].hint


@pytest.mark.parametrize(
    ("make", "names", "expected"),
    [
        (lambda k: k % 3, {0: "a", 1: "b", 2: "c"}, {"0": "a", "1": "b", "2": "c"}),
        (lambda k: k % 2 + 1, {1: "a", 2: "b"}, {"1": "a", "2": "b"}),
        (lambda k: k % 2 * 2 - 1, {-1: "壞", 1: "好"}, {"-1": "壞", "1": "好"}),
        (lambda k: ("a", "b")[k % 2], {0: "b", 1: "a"}, {"b": "b", "a": "a"}),
    ],
)
def test_numbers_get_the_names_of_the_names_file(tmp_path, make, names, expected):
    found = propose(tmp_path, jsonl(*with_labels(make)), "a.jsonl", names=names)
    assert found.problems == [] and found.labels == expected


def test_fractions_of_a_spreadsheet_keep_their_form_and_get_names(tmp_path):
    found = propose(tmp_path, with_labels(lambda k: f"{k % 2}.0"), names={0: "a", 1: "b", 2: "c"})
    assert found.labels == {"0.0": "a", "1.0": "b", "2.0": "c"} and "label_without_rows" in codes(found.warnings)


@pytest.mark.parametrize("make", [lambda k: k % 4, lambda k: ("財經", "政治")[k % 2], lambda k: k % 2 - 1])
def test_names_that_do_not_fit_the_values_are_refused(tmp_path, make):
    rows = jsonl(*with_labels(make))
    assert refused(propose(tmp_path, rows, "a.jsonl", names={0: "a", 1: "b", 2: "c"}), "label_names")
    assert refused(propose(tmp_path, rows, "a.jsonl", names={0: "a"}, labels=[str(make(k)) for k in range(4)]), "usage")


def test_class_names_of_a_parquet_file_name_its_numbers(tmp_path):
    rows = with_labels(lambda k: k % 2)
    features = {"label": {"names": ["壞", "好"], "_type": "ClassLabel"}, "text": {"dtype": "string", "_type": "Value"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    parquet.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(metadata), tmp_path / "a.parquet")
    found = propose(tmp_path, (tmp_path / "a.parquet").read_bytes(), "a.parquet")
    assert found.labels == {"0": "壞", "1": "好"} and found.warnings == []


@pytest.mark.parametrize("metadata", [{}, {b"huggingface": b"{"}, {b"huggingface": b'{"info": {"features": []}}'}])
def test_a_parquet_file_without_class_names_is_read_as_it_is(tmp_path, metadata):
    table_ = pa.Table.from_pylist(with_labels(lambda k: k % 2)).replace_schema_metadata(metadata)
    parquet.write_table(table_, tmp_path / "a.parquet")
    found = propose(tmp_path, (tmp_path / "a.parquet").read_bytes(), "a.parquet")
    assert found.labels == {"0": "0", "1": "1"}


def test_class_names_of_a_card_count_for_their_own_column_alone(tmp_path):
    write(tmp_path / "a.jsonl", jsonl(*with_labels(lambda k: k % 2)))
    made = [Source("all", tmp_path / "a.jsonl")]
    assert proposal.propose(made, {}, None, {"label": ["壞", "好"]}).labels == {"0": "壞", "1": "好"}
    assert proposal.propose(made, {}, None, {"other": ["壞", "好"]}).labels == {"0": "0", "1": "1"}


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (lambda k: f"類{k % 60}", "too_many_labels", "60 different values in 120 rows, 2.0 rows each"),
        (lambda k: f"{k / 7:.2f}", "too_many_labels", "120 different values"),
        (lambda k: "財經", "one_label", "財經 (120)"),
        (lambda k: "", "no_labels", "empty"),
        (lambda k: ("-1", "0", "1")[k % 3], "labels_alike", "'-1' and '1'"),
        (lambda k: ("C", "C#")[k % 2], "labels_alike", "'C' and 'C#'"),
    ],
)
def test_a_label_column_that_no_task_can_be_made_of_is_refused_with_its_values(tmp_path, make, code, said):
    assert said in refused(propose(tmp_path, with_labels(make)), code).message


@pytest.mark.parametrize("value", [["財經"], {"name": "財經"}, True, 1.0], ids=str)
def test_a_label_of_a_type_that_validation_refuses_is_refused_at_once(tmp_path, value):
    other = {list: ["政治"], dict: {"name": "政治"}, bool: False, float: 2.0}[type(value)]
    rows = jsonl(*with_labels(lambda k: (value, other)[k % 2]))
    assert (
        "holds"
        in refused(propose(tmp_path, rows, "a.jsonl", fields={"text": "text", "label": "label"}), "label_type").message
    )


def test_sixty_labels_with_enough_rows_are_labels(tmp_path):
    found = propose(tmp_path, with_labels(lambda k: f"類{k % 60}", n=900))
    assert found.problems == [] and len(found.labels) == 60


def test_sixty_values_beside_three_are_not_passed_over_silently(tmp_path):
    rows = [{"甲": f"第{k}則新聞", "乙": f"類{k % 60}", "丙": "abc"[k % 3]} for k in range(900)]
    assert values(propose(tmp_path, rows), "label") == ["乙", "丙"]


def test_two_words_are_one_label_unless_both_are_labels(tmp_path):
    found = propose(tmp_path, with_labels(lambda k: ("very good", "good", "New York/NY")[k % 3]))
    assert found.problems == [] and len(found.labels) == 3


def test_labels_given_beside_the_data_are_compared_with_them(tmp_path):
    rows = with_labels(lambda k: ("a", "b", "c")[k % 3])
    fields = {"text": "text", "label": "label"}
    found = propose(tmp_path, rows, labels={"a": "甲", "b": "乙", "d": "丁"}, fields=fields)
    assert found.problems == [] and found.labels is None and found.counts == {"a": 40, "b": 40}
    assert codes(found.warnings) == ["label_without_rows", "labels_not_given"] and "c (40)" in found.warnings[1].message
    found = propose(tmp_path, rows, labels={"甲": "a", "乙": "b"}, fields=fields)
    assert "the other way round" in refused(found, "labels_unknown").hint


# Rows.


def test_rows_without_a_text_or_a_label_are_counted(tmp_path):
    rows = with_labels(lambda k: ("a", "b", "")[k % 3])
    for row in rows[:12]:
        row["text"] = " "
    found = propose(tmp_path, rows)
    messages = {warning.code: warning.message for warning in found.warnings}
    assert messages["no_text"].startswith("12 of 120") and messages["no_label"].startswith("40 of 120")


def test_column_names_that_come_again_are_no_row(tmp_path):
    content = table(with_labels(lambda k: "ab"[k % 2]))
    found = propose(tmp_path, content * 2)
    assert found.counts == {"a": 120, "b": 120}
    (warning,) = [warning for warning in found.warnings if warning.code == "repeated_header"]
    assert warning.line == N + 2


def test_a_class_with_the_name_of_the_column_is_a_class(tmp_path):
    rows = [{"message": f"第{k}則訊息的內容", "spam": ("spam", "ham")[k % 2]} for k in range(N)]
    assert propose(tmp_path, rows).counts == {"ham": 60, "spam": 60}


def test_broken_rows_are_warnings_with_their_lines_and_their_number(tmp_path):
    content = table(with_labels(lambda k: "ab"[k % 2])) + "x\n" * 30
    found = propose(tmp_path, content)
    broken = [warning for warning in found.warnings if warning.code == "column_count"]
    assert found.problems == [] and found.totals["column_count"] == 30 and broken[0].line == N + 2


def test_a_file_without_a_readable_row_is_told_beside_a_good_one(tmp_path):
    found = propose(tmp_path, {"a.csv": with_labels(lambda k: "ab"[k % 2]), "b.csv": "text,label\n"})
    assert codes(found.unreadable) == ["header_only"] and found.unreadable[0].file.endswith("b.csv")


def test_a_column_of_numbers_as_text_is_warned_about(tmp_path):
    rows = [{"甲": k, "label": "ab"[k % 2]} for k in range(N)]
    assert "no_texts" in codes(propose(tmp_path, rows, fields={"text": "甲"}).warnings)


# Language and script.


@pytest.mark.parametrize(
    ("text", "language", "script"),
    [
        ("第{}家公司宣布擴廠計畫", "zh-TW", "traditional"),
        ("第{}家公司宣布扩厂计划", "zh-TW", "simplified"),
        ("第{}家公司股價上漲，第一季財報優於預期，扩厂计划顺利", "zh-TW", "mixed"),
        ("company number {} announced a plan", "en", None),
        ("これは{}番目の会社のニュースです", "en", None),
        ("{}家公司宣布", "zh-TW", None),
    ],
)
def test_language_and_script_follow_the_texts(tmp_path, text, language, script):
    found = propose(tmp_path, [{"text": text.format(k), "label": "ab"[k % 2]} for k in range(N)])
    assert (found.language, found.script) == (language, script) and "120 texts" in found.why["language"]
    assert ("simplified_chinese" in codes(found.warnings)) == (script in ("simplified", "mixed"))


def test_texts_in_two_scripts_are_mixed_and_a_few_of_the_other_are_not(tmp_path):
    def rows(every):
        plans = ["扩厂计划" if k % every == 0 else "擴廠計畫" for k in range(N)]
        return [{"text": f"第{k}家公司宣布{plan}", "label": "ab"[k % 3 == 0]} for k, plan in enumerate(plans)]

    assert propose(tmp_path, rows(2)).script == "mixed" and propose(tmp_path, rows(20)).script == "traditional"


def test_a_language_that_is_given_wins(tmp_path):
    found = propose(tmp_path, with_labels(lambda k: "ab"[k % 2]), language="en")
    assert found.language == "en" and found.script == "traditional"


# What no task can be made of as it stands; forms of every task type: tests/test_recognition.py.

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
FOREIGN_ROWS = {
    "kto": ({"messages": TURNS, "label": True}, "type preference"),
    "kto in columns": ({"prompt": "p", "completion": "c", "label": False}, "type preference"),
    "pair": ({"premise": "p", "hypothesis": "h", "label": 0}, "into one column"),
}


@pytest.mark.parametrize("name", FOREIGN_ROWS)
def test_rows_that_no_task_type_reads_are_refused_with_what_to_do(tmp_path, name):
    row, hint = FOREIGN_ROWS[name]
    rows = [{**row, "n": str(k)} for k in range(20)]
    found = propose(tmp_path, json.dumps(rows), "a.json")
    problem = refused(found, "unsupported_task_type")
    assert hint in problem.hint and problem.file.endswith("a.json") and found.shown()["type"] is None
    assert all(each in problem.hint for each in task_types.names())


def test_a_foreign_file_is_named_and_not_the_one_beside_it(tmp_path):
    rows = jsonl(*[FOREIGN_ROWS["kto"][0]] * 9)
    found = propose(tmp_path, {"a.csv": with_labels(lambda k: "ab"[k % 2]), "b.jsonl": rows})
    assert refused(found, "unsupported_task_type").file.endswith("b.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "__label__好 這家店不錯\n__label__壞 再也不來\n" * 5, "fastText"),
        ("a.json", json.dumps([{"tokens": ["a", "b"], "ner_tags": [0, k % 3]} for k in range(9)]), "numbers"),
        ("a.json", json.dumps({"version": 1, "data": with_labels(lambda k: "ab"[k % 2])}), "'data'"),
        ("a.json", json.dumps({"text": {"0": "t", "1": "u"}, "label": {"0": "a", "1": "b"}}), "a list for each column"),
        ("a.json", json.dumps({"x": {"text": "a", "label": "b"}, "y": {"text": "c", "label": "d"}}), "for each key"),
    ],
)  # fmt: skip
def test_a_file_that_must_only_be_turned_says_how(tmp_path, name, content, said):
    assert said in refused(propose(tmp_path, content, name), "foreign_layout").message


def test_alpaca_rows_whose_outputs_are_labels_are_a_classification(tmp_path):
    rows = [
        {"instruction": "判斷情感", "input": f"第{k}則評論的內容", "output": ("正面", "負面")[k % 2]} for k in range(N)
    ]
    found = propose(tmp_path, jsonl(*rows), "a.jsonl")
    assert found.fields == {"text": "input", "label": "output"} and found.counts == {"正面": 60, "負面": 60}


def test_columns_that_are_named_are_taken_whatever_the_form_looks_like(tmp_path):
    rows = [{"premise": f"第{k}個前提", "hypothesis": f"第{k}個假設", "label": "ab"[k % 2]} for k in range(N)]
    assert refused(propose(tmp_path, rows), "unsupported_task_type")
    assert propose(tmp_path, rows, fields={"text": "premise", "label": "label"}).problems == []


def test_two_texts_and_no_label_are_a_text_and_its_summary(tmp_path):
    found = propose(tmp_path, only(sheet(), "標題", "內文"))
    assert found.problems == [] and found.type == "generation"
    assert found.fields == {"document": "內文", "summary": "標題"} and "標題" in found.instruction


def test_three_texts_and_no_label_are_asked_about(tmp_path):
    rows = [{name: f"第{k}段很長的文字，寫在{name}這一欄" for name in "甲乙丙"} for k in range(N)]
    found = propose(tmp_path, rows)
    assert "--type generation --fields" in refused(found, "ambiguous_column").hint and len(values(found, "text")) == 3


# Names files.


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("財經\n政治\n", {0: "財經", 1: "政治"}),
        ("\ufeff財經\r\n政治\r\n\r\n", {0: "財經", 1: "政治"}),
        ("0,財經\n1,政治\n", {0: "財經", 1: "政治"}),
        ("1\t財經\n2\t政治\n", {1: "財經", 2: "政治"}),
        ("-1 negative\n0 neutral\n1 positive\n", {-1: "negative", 0: "neutral", 1: "positive"}),
        ("id,name\n0,財經\n1,政治\n", {0: "財經", 1: "政治"}),
        ("2021 年\n2022 年\n", {2021: "年", 2022: "年"}),
    ],
)
def test_names_are_read_with_and_without_numbers(tmp_path, content, names):
    path = write(tmp_path / "class.txt", content)
    if len(set(names.values())) < len(names):
        with pytest.raises(ValueError, match="twice"):
            labels.names_file(path)
    else:
        assert labels.names_file(path) == names


def test_names_in_big5_are_read(tmp_path):
    path = write(tmp_path / "class.txt", "財經\n政治\n體育\n".encode("cp950"))
    assert labels.names_file(path) == {0: "財經", 1: "政治", 2: "體育"}


@pytest.mark.parametrize(
    "content", ["", "\n\n", "a\na\n", '{"0": "a"}', '["a", "b"]', "0,a\n0,b\n", b"\xff\x00\xff"], ids=repr
)
def test_a_names_file_that_cannot_be_meant_is_a_problem_and_no_exception(tmp_path, content):
    path = write(tmp_path / "class.txt", content)
    problem = labels.names_of(path)
    assert problem.code == "label_names" and problem.field == "--label-names" and problem.hint


def test_no_names_file_is_no_problem_and_a_missing_one_is(tmp_path):
    assert labels.names_of(None) is None
    assert "nowhere.txt" in labels.names_of(tmp_path / "nowhere.txt").message


# Whatever comes.

texts = st.text(max_size=8) | st.sampled_from(["a", "b", "2026-01-01", "很長的一段文字，真的很長"])
nested = st.lists(st.integers(0, 2), max_size=2) | st.dictionaries(st.sampled_from(["start", "end", "role"]), st.none())
cells = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | texts | nested


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["text", "label", "標題", "messages", "output", "x"]), cells, max_size=4),
        max_size=8,
    ),
    st.sampled_from([{}, {"text": "text"}, {"text": "text", "label": "label"}]),
)
def test_no_rows_make_an_exception_and_a_proposal_is_complete_or_refused(tmp_path, rows, fields):
    write(tmp_path / "a.jsonl", jsonl(*rows) if rows else "")
    found = proposal.propose([Source("all", tmp_path / "a.jsonl")], {"fields": fields}, None)
    json.dumps(found.shown())
    if not found.problems and not found.unreadable:
        forms = task_types.load(found.type).FORMS
        assert any({*form.required} <= {*found.fields} <= {*form.required, *form.optional} for form in forms)
        assert found.type != "classification" or len(found.labels) >= 2
        assert found.language in ("zh-TW", "en")
    assert all(problem.hint for problem in found.problems)
