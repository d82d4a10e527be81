"""A person decides texts that the data label in two ways; the decision holds for every row and stands in the guide."""

from __future__ import annotations

import csv

from task_folder import jsonl, make_task, news, write

VALIDATE, CONVERT = "01_validate_data.py", "02_convert_format.py"
TWICE = [{"title": "持平的消息", "mood": "good"}, {"title": "持平 的消息", "mood": "bad"}]


def sheet_of(task):
    with (task.folder / "data" / "decisions.csv").open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def decide(task, label, reason="與上期相同不算利多"):
    rows = [{**row, "label": label, "reason": reason} for row in sheet_of(task)]
    with (task.folder / "data" / "decisions.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    path = task.folder / "task_definition.yaml"
    write(path, path.read_text(encoding="utf-8").replace("data:\n", "data:\n  decisions: data/decisions.csv\n"))


def test_contradictions_are_written_to_a_sheet_with_both_labels_and_their_places(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(40), *TWICE)})
    summary = task.ok(VALIDATE, "--decide")
    assert summary["outputs"]["decisions"] == "data/decisions.csv" and "decisions:" in summary["next"]
    (row,) = sheet_of(task)
    assert row["text"] == "持平的消息" and row["label"] == ""
    assert "good (data/raw/a.jsonl:41)" in row["seen"] and "bad (data/raw/a.jsonl:42)" in row["seen"]


def test_a_decision_gives_every_row_of_the_text_its_label_and_ends_the_contradiction(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(40), *TWICE)})
    task.ok(VALIDATE, "--decide")
    decide(task, "bad")
    outcome = task.run(VALIDATE)
    assert outcome.code == 0 and outcome.summary["counts"]["decided"] == 1
    assert outcome.problems("contradicting_duplicate", "warnings") == []
    assert outcome.summary["metrics"]["labels"] == {"good": 20, "bad": 22}
    task.ok(CONVERT)
    rows = [row for split in ("train", "validation", "test") for row in task.rows(split)]
    assert {row["record"]["label"] for row in rows if "持平" in row["record"]["text"]} == {"bad"}
    guide = (task.folder / "docs" / "annotation_guide.md").read_text(encoding="utf-8")
    assert "持平的消息" in guide and "與上期相同不算利多" in guide


def test_a_changed_decision_is_another_data_set(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(40), *TWICE)})
    task.ok(VALIDATE, "--decide")
    decide(task, "bad")
    task.ok(CONVERT)
    assert task.run(CONVERT).summary["status"] == "skipped"
    path = task.folder / "data" / "decisions.csv"
    write(path, path.read_text(encoding="utf-8").replace(",bad,", ",good,"))
    assert task.run(CONVERT).summary["status"] == "ok"


def test_the_sheet_keeps_what_a_person_wrote_and_gains_only_new_texts(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(40), *TWICE)})
    task.ok(VALIDATE, "--decide")
    decide(task, "bad")
    other = [{"title": "另一則消息", "mood": "good"}, {"title": "另一則消息", "mood": "bad"}]
    write(task.folder / "data" / "raw" / "a.jsonl", jsonl(*news(40), *TWICE, *other))
    task.ok(VALIDATE, "--decide")
    assert [(row["text"], row["label"]) for row in sheet_of(task)] == [("持平的消息", "bad"), ("另一則消息", "")]


def test_a_label_that_is_none_is_refused_with_its_line(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(40), *TWICE)})
    task.ok(VALIDATE, "--decide")
    decide(task, "flat")
    outcome = task.run(VALIDATE)
    (problem,) = outcome.problems("bad_decision")
    assert outcome.code == 3 and (problem["file"], problem["line"]) == ("data/decisions.csv", 2)
    assert "'flat'" in problem["message"] and "good, bad" in problem["hint"]


def test_a_dry_run_writes_no_sheet(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(40), *TWICE)})
    task.ok(VALIDATE, "--decide", "--dry-run")
    assert not (task.folder / "data" / "decisions.csv").exists()


def test_a_decision_about_a_text_that_no_row_holds_is_a_warning(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(40), *TWICE)})
    task.ok(VALIDATE, "--decide")
    decide(task, "bad")
    write(task.folder / "data" / "raw" / "a.jsonl", jsonl(*news(40)))
    (problem,) = task.run(VALIDATE).problems("unused_decision", "warnings")
    assert "持平的消息" in problem["message"] and problem["file"] == "data/decisions.csv"


def test_a_decided_label_that_is_misspelt_is_refused_with_the_reason(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(40), *TWICE)})
    task.ok(VALIDATE, "--decide")
    decide(task, "bad ")
    (problem,) = task.run(VALIDATE).problems("bad_decision")
    assert "it is 'bad' but for stray spaces" in problem["hint"]


def test_a_text_that_a_spreadsheet_would_take_for_a_formula_is_decided_all_the_same(tmp_path):
    twice = [{"title": "-5%的消息", "mood": "good"}, {"title": "-5%的消息", "mood": "bad"}]
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(40), *twice)})
    task.ok(VALIDATE, "--decide")
    assert sheet_of(task)[0]["text"] == "'-5%的消息"
    decide(task, "bad")
    assert task.ok(VALIDATE)["counts"]["decided"] == 1
