"""The dataset card: its numbers, its metadata for the Hub, and what it refuses to be made from."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard

import every_type
from task_folder import Task, jsonl, make_task, news, write
from tasklib import files, schema, task_types
from tasklib.paths import task_paths
from tasklib.summary import TaskError
from tasklib.writing import dataset_card
from tasklib.writing.card_texts import DATASET_CARD

HUB = {"dataset_repo_id": "me/news", "dataset_license": "cc-by-4.0"}
SECRET = "機密"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A task as 01 and 02 leave it behind: 120 rows drawn into three splits, and two findings."""
    rows = [*news(119, prefix=SECRET), {"title": f"{SECRET}第0家公司的消息", "mood": "bad"}]
    task = make_task(
        tmp_path_factory.mktemp("prepared") / "任務",
        {"news.jsonl": jsonl(*rows)},
        hub=HUB,
        description="財經新聞",
        data={"files": {"all": ["data/raw/news.jsonl"]}, "fields": {"text": "title", "label": "mood"},
              "split": {"validation": 0.1, "test": 0.25, "seed": 7}},
    )  # fmt: skip
    task.ok("01_validate_data.py")
    task.ok("02_convert_format.py")
    return task


@pytest.fixture
def task(prepared, tmp_path):
    """A task of one's own, prepared."""
    return Task(Path(shutil.copytree(prepared.folder, tmp_path / "任務")))


def card_of(task: Task, **changes: Any) -> str:
    """The card of a prepared task; `changes` are made to its definition after the checks."""
    paths = task_paths(task.folder)
    definition = schema.load_definition(paths.definition)
    manifest, report = dataset_card.checked(paths, definition)
    return dataset_card.render(definition.model_copy(update=changes), manifest, report)


def problems_of(task: Task) -> tuple[list[str], TaskError]:
    """The codes of what stands against a card, and the error that carries them."""
    paths = task_paths(task.folder)
    with pytest.raises(TaskError) as raised:
        dataset_card.checked(paths, schema.load_definition(paths.definition))
    assert raised.value.exit_code == 4 and all(problem.hint for problem in raised.value.problems)
    return [problem.code for problem in raised.value.problems], raised.value


def change_definition(task: Task, section: str, **values: Any) -> None:
    path = task.folder / "task_definition.yaml"
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    definition[section] = {**definition.get(section, {}), **values}
    path.write_text(yaml.safe_dump(definition, allow_unicode=True), encoding="utf-8")


def change_json(path: Path, **values: Any) -> None:
    found = {**files.read_json(path), **values}
    files.write_json(path, {key: value for key, value in found.items() if value is not ...})


def table_rows(card: str, heading: str) -> list[list[str]]:
    """The cells of the tables below one heading, without their headers."""
    section = re.split(r"(?m)^#{2,3} ", card.split(f" {heading}\n", 1)[1])[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [line for line in lines if set(line[0]) != {"-"}][1:]


def test_the_counts_are_those_of_the_processed_files(task):
    card = card_of(task)
    shown = {row[0]: int(row[1]) for row in table_rows(card, "Splits")}
    assert shown == {split: len(task.rows(split)) for split in ("train", "validation", "test")}
    labels = {row[0]: list(map(int, row[2:])) for row in table_rows(card, "Labels")}
    for label, counts in labels.items():
        wanted = [sum(r["record"]["label"] == label for r in task.rows(s)) for s in ("train", "validation", "test")]
        assert counts == wanted
    assert set(labels) == {"good", "bad"} and sum(shown.values()) == 120
    assert "120 rows were read, 120 of them usable." in card


def test_every_kind_of_finding_stands_with_its_number(task):
    report = json.loads((task.folder / "docs" / "data_report.json").read_text(encoding="utf-8"))
    found = {row[0].replace("\\", ""): int(row[1]) for row in table_rows(card_of(task), "Checks")}
    assert found == {code: n for code, n in report["totals"].items() if n}
    assert found["contradicting_duplicate"] == 1
    assert "1 rows have the text of another row and a different label" in card_of(task)


def test_how_the_rows_were_divided_is_told(task):
    card = card_of(task)
    assert "random seed 7" in card and "drawn, 25.0% wanted" in card and "drawn, 10.0% wanted" in card
    assert "at least 0.8" in card
    report = files.read_json(task.folder / "docs" / "data_report.json")
    n_test = len(task.rows("test"))
    assert report["expected_interval"]["test_rows"] == n_test
    assert f"has {n_test} rows: near 0.8" in card
    assert f"± {report['expected_interval']['expected_half_width']}" in card


def test_groups_times_and_splits_of_one_s_own_are_told(tmp_path):
    rows = [{**row, "day": f"2026-01-{n % 28 + 1:02}", "who": f"w{n % 30}"} for n, row in enumerate(news(120))]
    task = make_task(
        tmp_path / "t", {"train.jsonl": jsonl(*rows[:100]), "test.jsonl": jsonl(*rows[100:])}, hub=HUB,
        data={"files": {"train": ["data/raw/train.jsonl"], "test": ["data/raw/test.jsonl"]},
              "fields": {"text": "title", "label": "mood"},
              "split": {"time_field": "day", "near_duplicates": None}},
    )  # fmt: skip
    task.ok("01_validate_data.py")
    task.ok("02_convert_format.py")
    card = card_of(task)
    assert 'By the time in column "day"' in card and "random seed" not in card
    assert "Nearly equal texts were not looked for" in card
    assert "Whether nearly equal texts stand in two splits is unknown." in card
    origin = {row[0]: row[3] for row in table_rows(card, "Splits")}
    assert origin["test"] == "a file of the owner's own" and origin["validation"] == "drawn, 10.0% wanted"


def test_no_row_of_the_data_stands_in_the_card(task):
    card = card_of(task)
    assert SECRET not in card
    shown = json.loads(card.split("```json\n")[1].split("\n```")[0])
    assert SECRET in json.dumps(task.rows("train"), ensure_ascii=False)
    assert shown.keys() == task.rows("train")[0].keys()
    assert shown["prompt"][0].keys() == task.rows("train")[0]["prompt"][0].keys()
    module = schema.load_definition(task.folder / "task_definition.yaml").task_type
    assert shown["record"] in [example.model_dump() for example in module.EXAMPLES]


def test_nothing_of_the_machine_stands_in_the_card(task):
    change_definition(task, "compute", target="local")
    card = card_of(task)
    assert str(task.folder.parent) not in card and not re.search(r"(?m)(?<![\w.:/*])/\w+/", card)
    assert "compute" not in card


def test_the_metadata_is_what_the_hub_reads(task):
    data = DatasetCard(card_of(task)).data
    assert (data.language, data.license, data.size_categories) == ("en", "cc-by-4.0", "n<1K")
    assert "text-generation" in data.task_categories and {"classification", "finetune-llm"} <= set(data["tags"])
    assert data["configs"][0]["data_files"][2] == {"split": "test", "path": "test.jsonl"}


def test_datasets_loads_the_repository_by_its_card(task, tmp_path):
    from datasets import load_dataset

    paths = task_paths(task.folder)
    definition = schema.load_definition(paths.definition)
    manifest, report = dataset_card.checked(paths, definition)
    contents = dataset_card.contents(paths, manifest, dataset_card.render(definition, manifest, report))
    folder = tmp_path / "repository"
    folder.mkdir()
    for name, content in contents.items():
        if isinstance(content, Path):
            shutil.copy(content, folder / name)
        elif isinstance(content, str):
            write(folder / name, content)
        else:
            files.write_json(folder / name, content)
    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: loaded[split].num_rows for split in loaded} == {s: len(task.rows(s)) for s in loaded}
    assert list(loaded["train"]["id"]) == [row["id"] for row in task.rows("train")]


@pytest.mark.parametrize(
    ("n_rows", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (1_000_000, "1M<n<10M"),
     (10**12 - 1, "100B<n<1T"), (10**12, "n>1T")],
)  # fmt: skip
def test_size_categories_are_the_hub_s(n_rows, category):
    assert dataset_card.size_category(n_rows) == category
    from huggingface_hub import DatasetCardData

    assert f"'{category}'" in DatasetCardData.__doc__


def test_what_is_not_known_is_called_unknown(task):
    definition = schema.load_definition(task.folder / "task_definition.yaml")
    card = card_of(task, hub=definition.hub.model_copy(update={"dataset_license": None}))
    assert "License unknown" in card and DatasetCard(card).data.license is None
    assert "is not on record, and so unknown" in card and "None" not in card


@pytest.mark.parametrize("language", ["zh-TW", "en"])
def test_a_card_is_one_whole_document_in_the_language_of_the_task(task, language):
    change_definition(task, "data", split={"validation": 0.1, "test": 0.25, "seed": 7})
    card = card_of(task, language=language)
    assert DatasetCard(card).data.language == ("zh" if language == "zh-TW" else "en")
    assert not re.search(r"\{\w+\}", card) and "None" not in card
    own = card.split("```json")[0] + card.split("```json")[1].split("```", 1)[1]
    for words in ("財經新聞", "利多", "利空"):
        own = own.replace(words, "")
    assert bool(re.search("[一-鿿]", own)) == (language == "zh-TW")


def test_the_words_have_the_same_keys_and_blanks_in_both_languages():
    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shape(item) for key, item in value.items()}
        return sorted(re.findall(r"\{\w+\}", value))

    assert shape(DATASET_CARD["zh-TW"]) == shape(DATASET_CARD["en"])


def test_a_name_of_a_column_or_label_stays_what_it_is(tmp_path):
    rows = [{"a|b": f"第{n}則", "`m`": "*x*" if n % 2 else "<b>y</b>"} for n in range(60)]
    task = make_task(
        tmp_path / "t", {"news.jsonl": jsonl(*rows)}, hub=HUB,
        task={"type": "classification", "labels": {"*x*": "x", "<b>y</b>": "y"}},
        data={"files": {"all": ["data/raw/news.jsonl"]}, "fields": {"text": "a|b", "label": "`m`"}},
    )  # fmt: skip
    task.ok("01_validate_data.py")
    task.ok("02_convert_format.py")
    card = card_of(task)
    assert "| `record.text` | a\\|b |" in card and "| `record.label` | \\`m\\` |" in card
    assert "| \\*x\\* | x |" in card and "<b>" not in card.replace("\\<b", "")


# Personal data.


def test_findings_are_listed_and_called_unconfirmed_until_a_person_saw_them(task):
    change_json(task.folder / "docs" / "data_report.json", personal_data={"phone": 3, "email": 0})
    definition = schema.load_definition(task.folder / "task_definition.yaml")
    card = card_of(task)
    assert table_rows(card, "Personal data") == [["phone", "3"]] and "Nobody has confirmed" in card
    card = card_of(task, hub=definition.hub.model_copy(update={"personal_data_reviewed": True}))
    assert "Nobody has confirmed" not in card and "The owner has looked at each" in card


def test_without_findings_the_card_says_what_was_not_looked_for(task):
    card = card_of(task)
    assert "found no personal data" in card and "Names, addresses" in card


# What a card is not made from.


def test_without_report_or_processed_rows_both_are_named_at_once(tmp_path):
    codes, error = problems_of(make_task(tmp_path / "t", {"news.jsonl": jsonl(*news(60))}, hub=HUB))
    assert codes == ["no_data_report", "no_processed"]
    assert error.report["next"] == "uv run python scripts/01_validate_data.py"


def test_without_processed_rows_the_next_command_converts(task):
    shutil.rmtree(task.folder / "data" / "processed")
    codes, error = problems_of(task)
    assert codes == ["no_processed"] and error.report["next"] == "uv run python scripts/02_convert_format.py"


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [("docs/data_report.json", "totals", ...), ("docs/data_report.json", "personal_data", ...),
     ("docs/data_report.json", "counts", {"rows": 3}), ("docs/data_report.json", "personal_data", {"phone": "3"}),
     ("docs/data_report.json", "raw_sha256", ...), ("docs/data_report.json", "errors", ...),
     ("data/processed/manifest.json", "splits", {}), ("data/processed/manifest.json", "inputs", ["a"])],
)  # fmt: skip
def test_a_file_of_another_form_is_refused_with_the_key(task, file, key, value):
    change_json(task.folder / file, **{key: value})
    codes, error = problems_of(task)
    assert set(codes) <= {"no_data_report_key", "no_processed_key"}
    assert error.problems[0].file == file and error.problems[0].field.startswith(key)


@pytest.mark.parametrize("text", ["", "[", "[]", "null"])
@pytest.mark.parametrize("file", ["docs/data_report.json", "data/processed/manifest.json"])
def test_a_damaged_file_is_refused(task, file, text):
    write(task.folder / file, text)
    assert problems_of(task)[1].problems[0].file == file


def test_processed_rows_changed_by_hand_are_refused(task):
    path = task.folder / "data" / "processed" / "test.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace(SECRET, ""), encoding="utf-8")
    assert problems_of(task)[0] == ["processed_changed"]
    path.unlink()
    assert problems_of(task)[0] == ["processed_changed"]


def test_raw_files_changed_since_are_refused(task):
    raw = task.folder / "data" / "raw" / "news.jsonl"
    write(raw, raw.read_text(encoding="utf-8") + jsonl({"title": "多一列", "mood": "good"}))
    assert problems_of(task)[0] == ["raw_changed"]
    task.ok("01_validate_data.py")
    assert problems_of(task)[0] == ["raw_changed", "data_report_stale"]
    task.ok("02_convert_format.py")
    assert "121 rows" in card_of(task)
    raw.unlink()
    assert problems_of(task)[0] == ["raw_changed"]


def test_a_report_of_other_raw_files_is_refused(task):
    raw = task.folder / "data" / "raw" / "news.jsonl"
    write(raw, raw.read_text(encoding="utf-8").replace("第7家", "第七家"))  # as many rows as before
    task.ok("02_convert_format.py")
    codes, error = problems_of(task)
    assert codes == ["data_report_stale"] and error.report["next"] == "uv run python scripts/01_validate_data.py"


def test_a_definition_changed_since_is_refused(task):
    change_definition(task, "prompt", instruction="另一個指示")
    assert problems_of(task)[0] == ["processed_out_of_date"]
    task.ok("02_convert_format.py")
    task.ok("01_validate_data.py")
    card_of(task)


def test_a_report_by_another_definition_is_refused(task):
    change_json(task.folder / "docs" / "data_report.json", definition_sha256="0" * 64)
    assert problems_of(task)[0] == ["data_report_stale"]


@pytest.mark.parametrize("change", [{"errors": ["leakage"]}, {"counts": {"rows": 120, "readable": 119}}])
def test_a_report_of_rows_that_were_not_converted_is_refused(task, change):
    change_json(task.folder / "docs" / "data_report.json", **change)
    assert problems_of(task)[0] == ["data_report_stale"]


def test_rows_of_an_older_form_are_refused(task):
    change_json(task.folder / "data" / "processed" / "manifest.json", schema_version=1)
    assert problems_of(task)[0] == ["processed_out_of_date"]


def test_a_raw_file_outside_the_task_is_refused_because_every_row_names_it(tmp_path):
    outside = write(tmp_path / "elsewhere" / "news.jsonl", jsonl(*news(60)))
    task = make_task(tmp_path / "t", {}, hub=HUB, data={"files": {"all": [str(outside)]}})
    task.ok("01_validate_data.py")
    task.ok("02_convert_format.py")
    assert problems_of(task)[0] == ["path_outside_task"]


# Every task type, in every form of its raw rows.


@pytest.mark.parametrize("language", ["zh-TW", "en"])
@pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name in every_type.NAMES for form in task_types.load(name).FORMS]
)
def test_the_card_of_any_type_names_its_columns_and_shows_a_row_in_their_form(name, form, language):
    made = every_type.definition_of(name, form, language)
    labels = {label: 2 for record in made.task_type.EXAMPLES for label in made.task_type.strata(record)}
    manifest = dataset_card.Manifest(
        schema_version=1, inputs={"a.jsonl": "0" * 64}, definition_sha256="d",
        splits={"train": {"n_rows": 8, "labels": labels}}, files={"train.jsonl": "0" * 64},
    )  # fmt: skip
    report = dataset_card.DataReport(
        raw_sha256={}, definition_sha256="d", counts={"rows": 8, "readable": 8}, totals={}, errors=[],
        personal_data={}, script={}, expected_interval={},
    )  # fmt: skip
    card = dataset_card.render(made, manifest, report)
    assert set(made.task_type.TASK_CATEGORIES) <= set(DatasetCard(card).data.task_categories)
    assert "None" not in card
    for column in made.data.fields.values():
        assert column in card
    for label in labels:
        assert label in card
    (shown,) = re.findall(r"```json\n(.*?)\n```", card, re.DOTALL)
    record = made.task_type.Record(**json.loads(shown)["record"])
    assert record in made.task_type.EXAMPLES
