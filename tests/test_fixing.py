"""--fix mends what needs no judgement in a copy beside the raw file, logs every change, and touches nothing else."""

from __future__ import annotations

import csv
import json

import pytest
import yaml

from task_folder import jsonl, make_task, news, write

SCRIPT = "01_validate_data.py"
TAGS = ("B-PER", "I-PER", "I-PER", "O", "B-LOC")


def table(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def log_of(task, name):
    lines = (task.folder / "data" / "raw" / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


GOOD = "".join(f"第{n}家公司的消息,{'good' if n % 2 else 'bad'}\n" for n in range(30))  # lines 2 to 31
DIRTY = (
    "title,mood\n" + GOOD + "一則\u200b消息,good\n又一則\x07消息, Good \n三則消息,ｂａｄ\n三則消息,ｂａｄ\n"
    "四則消息,exzellent\n五則\n"
)


def test_labels_and_texts_are_mended_in_a_copy_and_the_raw_file_stays(tmp_path):
    task = make_task(tmp_path / "task", {"a.csv": DIRTY})
    before = task.hashes("data/raw")
    outcome = task.run(SCRIPT, "--fix")
    (fixed,) = outcome.summary["outputs"]["fixed"]
    assert (fixed["source"], fixed["copy"]) == ("data/raw/a.csv", "data/raw/a.fixed.csv")
    after = task.hashes("data/raw")
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"a.fixed.csv", "a.fixed.log.jsonl"}
    rows = table(task.folder / fixed["copy"])
    assert [(row["title"], row["mood"]) for row in rows[30:]] == [
        ("一則消息", "good"), ("又一則消息", "good"), ("三則消息", "bad"), ("四則消息", "exzellent"),
    ]  # fmt: skip
    assert outcome.code == 3 and "a.fixed.csv" in outcome.summary["next"]


def test_every_change_stands_in_the_log_with_line_field_before_and_after(tmp_path):
    task = make_task(tmp_path / "task", {"a.csv": DIRTY})
    (fixed,) = task.run(SCRIPT, "--fix").summary["outputs"]["fixed"]
    log = log_of(task, "a.fixed.log.jsonl")
    changes = {(entry["line"], entry.get("field"), entry["code"]) for entry in log}
    assert changes == {
        (32, "title", "invisible_character"),
        (33, "title", "control_character"),
        (33, "mood", "label_spelling"),
        (34, "mood", "label_spelling"),
        (35, "mood", "label_spelling"),
        (35, None, "repeated_row"),
        (37, None, "column_count"),
    }
    assert fixed["changes"]["label_spelling"] == 3 and fixed["left_out"] == 1
    (entry,) = [entry for entry in log if entry["code"] == "invisible_character"]
    assert "200b" in entry["before"].lower() and "200b" not in entry["after"].lower()


def test_the_copy_passes_once_the_definition_names_it(tmp_path):
    dirty = "title,mood\n" + GOOD + "一則\u200b消息,good\n又一則消息,Good \n"
    task = make_task(tmp_path / "task", {"a.csv": dirty})
    assert task.run(SCRIPT, "--fix").code == 3
    definition = task.folder / "task_definition.yaml"
    write(definition, definition.read_text(encoding="utf-8").replace("data/raw/a.csv", "data/raw/a.fixed.csv"))
    assert task.ok(SCRIPT)["counts"] == {"rows": 32, "readable": 32}
    assert task.ok(SCRIPT, "--fix")["outputs"]["fixed"] == []  # nothing is left to mend


@pytest.mark.parametrize("encoding", ["big5", "gb18030", "utf-16"])
def test_the_copy_is_utf8_whatever_the_raw_file_was(tmp_path, encoding):
    text = "title,mood\n" + GOOD
    spec = {"path": "data/raw/a.csv", "encoding": encoding}
    task = make_task(tmp_path / "task", {"a.csv": text.encode(encoding)}, data={"files": {"all": [spec]}})
    (fixed,) = task.ok(SCRIPT, "--fix")["outputs"]["fixed"]
    assert (task.folder / fixed["copy"]).read_text(encoding="utf-8") == text


def test_halves_of_an_emoji_are_joined_and_a_lone_wrong_byte_is_left_out_and_logged(tmp_path):
    rows = jsonl(*news(30)).encode()
    joined = b'{"title": "\xed\xa0\xbd\xed\xb8\x80 up", "mood": "good"}\n'
    lone = b'{"title": "\xff", "mood": "good"}\n'
    task = make_task(tmp_path / "task", {"a.jsonl": rows + joined + lone})
    outcome = task.run(SCRIPT, "--fix")
    assert [p["line"] for p in outcome.problems("not_utf8")] == [31, 32]
    copied = (task.folder / "data/raw/a.fixed.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(copied) == 31 and json.loads(copied[-1])["title"] == "\U0001f600 up"
    (entry,) = [entry for entry in log_of(task, "a.fixed.log.jsonl") if entry.get("left_out")]
    assert entry["line"] == 32 and entry["code"] == "not_utf8"


def test_a_dry_run_and_clean_data_write_no_copy(tmp_path):
    task = make_task(tmp_path / "task", {"a.csv": DIRTY})
    before = task.hashes("data")
    assert len(task.run(SCRIPT, "--fix", "--dry-run").summary["outputs"]["fixed"]) == 1
    assert task.hashes("data") == before
    clean = make_task(tmp_path / "clean", {"a.jsonl": jsonl(*news(30))})
    assert clean.ok(SCRIPT, "--fix")["outputs"]["fixed"] == []


def test_rows_that_cannot_be_read_are_told_and_alone_make_no_copy(tmp_path):
    task = make_task(tmp_path / "task", {"a.csv": "title,mood\n" + GOOD + "五則\n"})
    outcome = task.run(SCRIPT, "--fix")
    assert outcome.code == 3 and outcome.summary["outputs"]["fixed"] == []
    mixed = make_task(tmp_path / "mixed", {"a.csv": DIRTY})
    following = mixed.run(SCRIPT, "--fix").summary["next"]
    assert "1 rows that cannot be read left out" in following and "quoting" in following


def test_errors_that_can_be_mended_lead_to_fix(tmp_path):
    task = make_task(tmp_path / "task", {"a.csv": "title,mood\n" + GOOD + "又一則消息,Good \n"})
    assert task.run(SCRIPT).summary["next"] == "uv run python scripts/01_validate_data.py --fix"


def test_quotes_that_stay_in_the_text_because_the_definition_says_so_are_told_by_line(tmp_path):
    spec = {"path": "data/raw/a.csv", "quoting": False}
    rows = "title,mood\n" + GOOD + '"等檯燈的消息,good\n"整格有引號的消息",bad\n'
    task = make_task(tmp_path / "task", {"a.csv": rows}, data={"files": {"all": [spec]}})
    kept = task.run(SCRIPT).problems("kept_quote", "warnings")
    assert [(problem["line"], problem["field"]) for problem in kept] == [(32, "title"), (33, "title")]


def test_two_files_of_one_name_and_different_extensions_get_a_copy_each(tmp_path):
    tabs = ("title,mood\n" + GOOD.replace("公司", "工廠") + "別則消息,Good \n").replace(",", "\t")
    task = make_task(tmp_path / "task", {"a.csv": "title,mood\n" + GOOD + "又一則消息,Good \n", "a.tsv": tabs})
    fixed = task.run(SCRIPT, "--fix").summary["outputs"]["fixed"]
    assert [entry["copy"] for entry in fixed] == ["data/raw/a.csv.fixed.csv", "data/raw/a.tsv.fixed.csv"]
    assert [len(table(task.folder / entry["copy"])) for entry in fixed] == [31, 31]


def test_the_copy_of_a_conll_file_reads_back_with_its_lists_and_its_emoji(tmp_path):
    halves = "".join(f"{half} O\n" for half in ("\ud83d", "\ude0d")).encode("utf-8", "surrogatepass")
    blocks = ["".join(f"{token} {tag}\n" for token, tag in zip(f"王小{n}到台", TAGS, strict=True)) for n in "甲乙丙丁"]
    raw = (blocks[0] + "\n").encode() + halves + "\n".join(blocks).encode()
    task = make_task(tmp_path / "task", {"a.conll": raw})
    definition = {
        "schema_version": 1,
        "name": "tiny",
        "task": {"type": "ner", "entity_types": ["PER", "LOC"]},
        "data": {"files": {"all": ["data/raw/a.conll"]}, "fields": {"tokens": "tokens", "tags": "tags"}},
    }
    (task.folder / "task_definition.yaml").write_text(yaml.safe_dump(definition), encoding="utf-8")
    assert {problem["hint"] for problem in task.run(SCRIPT).problems("not_utf8")} == {
        "--fix writes a copy in which the halves are joined"
    }
    (fixed,) = task.run(SCRIPT, "--fix").summary["outputs"]["fixed"]
    assert fixed["copy"] == "data/raw/a.fixed.jsonl" and fixed["left_out"] == 0
    rows = [json.loads(line) for line in (task.folder / fixed["copy"]).read_text(encoding="utf-8").splitlines()]
    assert rows[1]["tokens"] == ["\U0001f60d", *"王小甲到台"] and rows[1]["tags"] == ["O", *TAGS]
