"""01_validate_data.py names everything that is wrong with the raw data, and touches none of it."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from task_folder import LABELS, jsonl, make_task, news, run_script, write

SCRIPT = "01_validate_data.py"
HEADER = "title,mood\n"


def places(problems):
    return [(problem["file"], problem["line"], problem["field"]) for problem in problems]


def table(rows, delimiter=","):
    """`rows` as CSV text with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A task whose data has no fault: 30 good and 20 bad rows in three formats."""
    rows = news(50, ("good", "bad", "good", "bad", "good"))
    files = {
        "a.csv": table(rows[:20]),
        "b.jsonl": jsonl(*rows[20:40]),
        "c.json": json.dumps(rows[40:], ensure_ascii=False),
    }
    return make_task(tmp_path_factory.mktemp("clean") / "工作 folder's", files)


def test_clean_data_in_three_formats_passes_with_the_counts_of_rows_and_labels(clean):
    summary = clean.ok(SCRIPT)
    assert summary["stage"] == "validate" and summary["status"] == "ok"
    assert summary["counts"] == {"rows": 50, "readable": 50}
    assert summary["metrics"]["labels"] == {"good": 30, "bad": 20}
    assert summary["errors"] == summary["warnings"] == []
    assert "02_convert_format.py" in summary["next"]


def test_it_works_from_any_folder_with_spaces_quotes_and_chinese_in_the_paths(clean, tmp_path):
    elsewhere = tmp_path / "別的 資料夾"
    elsewhere.mkdir()
    own = clean.run(SCRIPT, cwd=elsewhere)
    assert own.code == 0 and own.summary["counts"]["rows"] == 50
    named = run_script(clean.folder / "scripts" / SCRIPT, "--task-dir", f"../{clean.folder.name}", cwd=elsewhere)
    assert named.code == 4 and named.problems("no_task")
    relative = run_script(clean.folder / "scripts" / SCRIPT, "--task-dir", clean.folder.name, cwd=clean.folder.parent)
    assert relative.code == 0 and relative.summary["counts"]["rows"] == 50


def test_raw_data_is_never_touched(clean):
    before = clean.hashes("data/raw")
    assert len(before) == 3
    clean.ok(SCRIPT)
    clean.ok(SCRIPT, "--dry-run")
    assert clean.hashes("data/raw") == before


def test_nothing_is_written_under_dry_run_and_otherwise_the_documents_alone(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(30))})
    before = task.hashes(".")
    assert task.ok(SCRIPT, "--dry-run")["outputs"] == {}
    assert task.hashes(".") == before
    written = {
        "data_report": "docs/data_report.md",
        "data_report_json": "docs/data_report.json",
        "annotation_guide": "docs/annotation_guide.md",
        "integration": "docs/integration.md",
    }
    assert task.ok(SCRIPT)["outputs"] == written
    after = task.hashes(".")
    assert set(after) - set(before) == set(written.values())
    assert {name: after[name] for name in before} == before


FIELD_FAULTS = {
    "missing": ({"mood": "good"}, "missing_field", "title", "missing"),
    "null": ({"title": None, "mood": "good"}, "missing_field", "title", "missing"),
    "empty": ({"title": "", "mood": "good"}, "empty_field", "title", "empty"),
    "white space": ({"title": " \t\u3000\n", "mood": "good"}, "empty_field", "title", "empty"),
    "a number": ({"title": 3.5, "mood": "good"}, "wrong_type", "title", "3.5"),
    "a boolean": ({"title": True, "mood": "good"}, "wrong_type", "title", "boolean"),
    "a list": ({"title": ["x"], "mood": "good"}, "wrong_type", "title", "list"),
    "an object": ({"title": {"x": 1}, "mood": "good"}, "wrong_type", "title", "object"),
    "label missing": ({"title": "x"}, "missing_field", "mood", "missing"),
    "label null": ({"title": "x", "mood": None}, "missing_field", "mood", "missing"),
    "label empty": ({"title": "x", "mood": " "}, "empty_field", "mood", "empty"),
    "label a fraction": ({"title": "x", "mood": 1.0}, "wrong_type", "mood", "1.0"),
    "label a boolean": ({"title": "x", "mood": True}, "wrong_type", "mood", "boolean"),
    "label a list": ({"title": "x", "mood": ["good"]}, "wrong_type", "mood", "list"),
    "label unknown": ({"title": "x", "mood": "dreadful"}, "unknown_label", "mood", "'dreadful'"),
    "label with a space behind": ({"title": "x", "mood": "good "}, "unknown_label", "mood", "'good '"),
    "label in capitals": ({"title": "x", "mood": "GOOD"}, "unknown_label", "mood", "'GOOD'"),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Every field fault in one file, from line 11 on; the outcome of validating it."""
    rows = [row for row, *_ in FIELD_FAULTS.values()]
    task = make_task(tmp_path_factory.mktemp("faulty") / "task", {"a.jsonl": jsonl(*news(10), *rows)})
    return task, task.run(SCRIPT)


@pytest.mark.parametrize("name", FIELD_FAULTS)
def test_a_wrong_field_is_named_with_its_line_column_and_value(faulty, name):
    _, outcome = faulty
    _, code, column, shown = FIELD_FAULTS[name]
    line = 11 + list(FIELD_FAULTS).index(name)
    (problem,) = [p for p in outcome.summary["errors"] if p["line"] == line and p["code"] != "rare_label"]
    assert (problem["code"], problem["file"], problem["field"]) == (code, "data/raw/a.jsonl", column)
    assert shown in problem["message"] and problem["hint"]


def test_all_faults_come_at_once_and_mean_exit_3(faulty):
    _, outcome = faulty
    assert outcome.code == 3 and outcome.summary["status"] == "error"
    assert len([p for p in outcome.summary["errors"] if p["line"] is not None]) == len(FIELD_FAULTS)
    assert "Traceback" not in outcome.stderr


def test_both_fields_of_one_row_can_be_wrong(tmp_path):
    outcome = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(20), {"title": "", "mood": "x"})}).run(SCRIPT)
    found = {(p["code"], p["line"], p["field"]) for p in outcome.summary["errors"]}
    assert {("empty_field", 21, "title"), ("unknown_label", 21, "mood")} <= found


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("goood", "did you mean 'good'?"),
        ("bda", "did you mean 'bad'?"),
        ("zzz", "legal: good, bad"),
        ("Good", "it is 'good' but for different case"),
        ("ｂａｄ", "it is 'bad' but for full-width forms"),
        (" good", "it is 'good' but for stray spaces"),
        ("go\u200bod", "it is 'good' but for invisible characters"),
        ("1", "the data hold numbers: which name is 1?"),
    ],
)
def test_an_unknown_label_comes_with_the_nearest_legal_one_and_all_legal_ones(tmp_path, label, said):
    outcome = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(30), {"title": "x", "mood": label})}).run(SCRIPT)
    (problem,) = outcome.problems("unknown_label")
    assert problem["line"] == 31
    assert all(legal in problem["hint"] for legal in LABELS) or said.startswith("the data")
    assert said in problem["hint"]


def test_integer_labels_of_json_and_of_csv_mean_the_same_labels(tmp_path):
    rows = [{"title": row["title"], "mood": number % 3} for number, row in enumerate(news(60))]
    files = {"a.jsonl": jsonl(*rows[:30]), "b.csv": table(rows[30:])}
    task = make_task(tmp_path / "task", files, task={"labels": {"0": "壞", "1": "平", "2": "好"}})
    assert task.ok(SCRIPT)["metrics"]["labels"] == {"0": 20, "1": 20, "2": 20}


MISSING_COLUMNS = {
    "csv": ("a.csv", "titel,mood\nx,good\ny,bad\nz,bad\n", ["title"], "did you mean 'titel'?"),
    "tsv saved as csv": ("a.csv", "titel\tmood\nx\tgood\n", ["title"], "did you mean 'titel'?"),
    "both columns": ("a.csv", "a,b\nx,good\n", ["title", "mood"], "columns: a, b"),
    "jsonl": ("a.jsonl", jsonl(*({"titel": str(n), "mood": "good"} for n in range(5))), ["title"], "'titel'"),
    "json": ("a.json", json.dumps([{"title": "x", "moods": "good"}]), ["mood"], "did you mean 'moods'?"),
}


@pytest.mark.parametrize(("name", "text", "missing", "hint"), MISSING_COLUMNS.values(), ids=MISSING_COLUMNS)
def test_a_column_that_a_file_does_not_have_is_named_once_with_the_columns_it_has(tmp_path, name, text, missing, hint):
    outcome = make_task(tmp_path / "task", {name: text, "ok.jsonl": jsonl(*news(30))}).run(SCRIPT)
    assert outcome.code == 3
    assert [(p["field"], p["file"]) for p in outcome.problems("missing_column")] == [
        (column, f"data/raw/{name}") for column in missing
    ]
    assert hint in outcome.problems("missing_column")[0]["hint"]
    assert outcome.problems("missing_field") == []


def test_one_json_row_without_any_of_the_columns_does_not_hide_the_faults_behind_it(tmp_path):
    rows = [*news(20), {}, {"other": 1}, {"title": "x", "mood": "wrong"}]
    outcome = make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)}).run(SCRIPT)
    assert places(outcome.problems("missing_field")) == [
        ("data/raw/a.jsonl", line, column) for line in (21, 22) for column in ("title", "mood")
    ]
    assert places(outcome.problems("unknown_label")) == [("data/raw/a.jsonl", 23, "mood")]


def test_a_group_column_that_does_not_exist_is_an_error(tmp_path):
    data = {
        "split": {"group_by": "compnay"},
        "files": {"all": ["data/raw/a.jsonl"]},
        "fields": {"text": "title", "label": "mood"},
    }
    outcome = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(30, company="A"))}, data=data).run(SCRIPT)
    (problem,) = outcome.problems("missing_column")
    assert outcome.code == 3 and problem["field"] == "compnay" and "'company'" in problem["hint"]


def test_a_missing_file_is_an_error_and_the_other_files_are_checked_all_the_same(tmp_path):
    data = {"files": {"all": ["data/raw/gone.csv", "data/raw/a.jsonl"]}}
    outcome = make_task(tmp_path / "task", {"a.jsonl": jsonl({"title": "", "mood": "bad"})}, data=data).run(SCRIPT)
    assert outcome.code == 3
    assert outcome.problems("file_missing")[0]["file"] == "data/raw/gone.csv"
    assert places(outcome.problems("empty_field")) == [("data/raw/a.jsonl", 1, "title")]


def test_duplicates_are_warnings_with_the_place_of_the_first(tmp_path):
    extra = [
        {"title": "獲利 創高 ABC", "mood": "good"},
        {"title": "獲利創高ａｂｃ", "mood": "good"},  # the same but for width, case and space
        {"title": "獲利創高abc\u3000", "mood": "bad"},  # the same text, another label
    ]
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(30)), "b.csv": table(extra)})
    outcome = task.run(SCRIPT)
    assert outcome.code == 0
    (same,), (other,) = (
        outcome.problems("duplicate", "warnings"),
        outcome.problems("contradicting_duplicate", "warnings"),
    )
    assert (same["file"], same["line"]) == ("data/raw/b.csv", 3) and "data/raw/b.csv:2" in same["message"]
    assert (other["file"], other["line"]) == ("data/raw/b.csv", 4) and "data/raw/b.csv:2" in other["message"]
    assert "'bad'" in other["message"] and "'good'" in other["message"]


def own_splits(tmp_path, train, test, **data):
    fields = {"fields": {"text": "title", "label": "mood"}}
    files = {"files": {"train": ["data/raw/train.jsonl"], "test": ["data/raw/test.jsonl"]}}
    raw = {"train.jsonl": jsonl(*train), "test.jsonl": jsonl(*test)}
    return make_task(tmp_path / "task", raw, data={**files, **fields, **data})


def test_a_text_in_two_of_the_users_own_splits_is_leakage_and_an_error(tmp_path):
    train = [*news(30), {"title": "Q3 成長 38％", "mood": "good"}]
    test = [{"title": "q3成長38%", "mood": "good"}, *news(12)[11:], {"title": "只在測試集", "mood": "bad"}]
    outcome = own_splits(tmp_path, train, test).run(SCRIPT)
    assert outcome.code == 3
    found = outcome.problems("leakage")
    assert places(found) == [("data/raw/test.jsonl", 1, None), ("data/raw/test.jsonl", 2, None)]
    assert "data/raw/train.jsonl:31" in found[0]["message"] and "data/raw/train.jsonl:12" in found[1]["message"]
    assert all(p["code"] != "duplicate" for p in outcome.summary["errors"] + outcome.summary["warnings"])


def test_leakage_is_reported_beside_the_faults_of_single_rows(tmp_path):
    outcome = own_splits(tmp_path, news(30), [*news(1), {"title": "", "mood": "good"}]).run(SCRIPT)
    assert places(outcome.problems("leakage")) == [("data/raw/test.jsonl", 1, None)]
    assert places(outcome.problems("empty_field")) == [("data/raw/test.jsonl", 2, "title")]


def test_a_group_in_two_of_the_users_own_splits_is_leakage_too(tmp_path):
    train, test = news(30, company="A"), [{"title": "別的消息", "mood": "bad", "company": "A"}]
    outcome = own_splits(tmp_path, train, test, split={"group_by": "company"}).run(SCRIPT)
    (problem,) = outcome.problems("leakage")
    assert outcome.code == 3 and "group is in train" in problem["message"] and problem["line"] == 1


def test_rows_of_one_label_alone_are_an_error(tmp_path):
    outcome = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(20, ("good",)))}).run(SCRIPT)
    (problem,) = outcome.problems("one_class")
    assert outcome.code == 3 and "20 rows" in problem["message"]


@pytest.mark.parametrize(("n_rare", "warned"), [(0, True), (1, True), (9, True), (10, False)])
def test_a_label_of_fewer_than_ten_rows_is_a_warning(tmp_path, n_rare, warned):
    rows = [*news(30), *({"title": f"rare {n}", "mood": "rare"} for n in range(n_rare))]
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)}, task={"labels": {**LABELS, "rare": "少見"}})
    outcome = task.run(SCRIPT)
    assert outcome.code == 0
    code = "one_example_label" if n_rare == 1 else "rare_label"
    message = "label 'rare' has a single row" if n_rare == 1 else f"label 'rare' has {n_rare} rows"
    found = [p["message"] for p in outcome.problems(code, "warnings")]
    assert found == ([message] if warned else [])


def test_more_than_twenty_problems_of_a_code_are_cut_and_their_total_stands_in_counts(tmp_path):
    rows = [
        *news(30),
        *({"title": "", "mood": "good"} for _ in range(25)),
        *({"title": "x", "mood": "?"} for _ in range(20)),
    ]
    outcome = make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)}).run(SCRIPT)
    assert outcome.code == 3
    assert [p["line"] for p in outcome.problems("empty_field")] == list(range(31, 51))
    assert len(outcome.problems("unknown_label")) == 20
    assert outcome.summary["counts"]["empty_field"] == 25
    assert "unknown_label" not in outcome.summary["counts"]


def report_of(task):
    return (task.folder / "docs" / "data_report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("language", "title", "heading"), [("zh-TW", "資料報告", "類別分布"), ("en", "Data report", "Labels")]
)
def test_the_data_report_is_in_the_tasks_language_with_real_counts(tmp_path, language, title, heading):
    lengths = [*range(1, 11), *range(1, 11), *range(1, 11), *range(1, 11)]  # 40 texts, lengths 2 to 11
    rows = [
        {"title": chr(ord("a") + n % 20) * length + "甲乙"[n // 20], "mood": "good" if n < 30 else "bad"}
        for n, length in enumerate(lengths)
    ]
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)}, language=language)
    task.ok(SCRIPT)
    report = report_of(task)
    assert report.startswith(f"# {title}: tiny\n") and f"## {heading}" in report
    assert "| 40 | 40 | 0 | 0 |" in report
    assert "| good | 利多 | 30 | 75.0% |" in report and "| bad | 利空 | 10 | 25.0% |" in report
    assert "| 2 | 6 | 11 | 11 |" in report


def test_the_data_report_lists_the_problems_of_data_that_is_refused(tmp_path):
    rows = [*news(30), {"title": "", "mood": "good"}, {"title": "a | b\n<script>", "mood": "a | b\n<script>"}]
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)})
    assert task.run(SCRIPT).code == 3
    report = report_of(task)
    assert "| 32 | 30 | 2 | 1 |" in report  # the warning: an HTML tag
    assert "| empty_field | data/raw/a.jsonl:31 | title |" in report
    assert re.search(r"(?<!\\)<script>", report) is None and "a \\| b" in report


def test_the_data_report_says_how_many_problems_it_does_not_list(tmp_path):
    rows = [*news(30), *({"title": "", "mood": "good"} for _ in range(47))]
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)})
    task.run(SCRIPT)
    report = report_of(task)
    assert "| empty_field | 47 |" in report and "27 more not listed" in report
    assert report.count("data/raw/a.jsonl:") == 20


def test_a_folder_without_a_definition_is_exit_4_and_a_broken_definition_exit_2(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(30))})
    write(task.folder / "task_definition.yaml", "schema_version: 1\nname: [\n")
    outcome = task.run(SCRIPT)
    assert outcome.code == 2 and outcome.summary["errors"][0]["file"] == "task_definition.yaml"
    (task.folder / "task_definition.yaml").unlink()
    assert task.run(SCRIPT).code == 4


def test_a_failure_keeps_errors_and_warnings_apart_and_still_counts(tmp_path):
    rows = [*news(30), {"title": "", "mood": "good"}, news(1)[0]]
    summary = make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)}).run(SCRIPT).summary
    assert [e["code"] for e in summary["errors"]] == ["empty_field"]
    assert [w["code"] for w in summary["warnings"]] == ["duplicate"]
    assert summary["counts"] == {"rows": 32, "readable": 31} and "data_report" in summary["outputs"]


def test_a_row_without_a_group_is_a_warning(tmp_path):
    rows = [{**row, "company": None if n == 4 else f"c{n}"} for n, row in enumerate(news(30))]
    data = {"files": {"all": ["data/raw/a.jsonl"]}, "split": {"group_by": "company"}}
    data["fields"] = {"text": "title", "label": "mood"}
    summary = make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)}, data=data).ok(SCRIPT)
    assert [(w["code"], w["line"]) for w in summary["warnings"]] == [("no_group", 5)]
