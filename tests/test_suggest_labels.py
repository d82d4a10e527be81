"""suggest_labels.py: the rows worth a person's time, and what a person said as a new version of the raw data."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil

import numpy as np
import pytest
import yaml

import task_folder
import trainable_task
from task_folder import jsonl, news, sha256s, write
from tasklib import documents, schema
from tasklib.data import dataset, raw_versions
from tasklib.iterating import check_sheet, label_noise, suggestions
from tasklib.summary import TaskError
from workbook import xlsx

SCRIPT = "suggest_labels.py"
SHEET = "data/labelling/to_check.csv"
LABELS = ["good", "bad"]
WORDS = {
    "good": ["獲利成長", "訂單滿載", "上調財測", "營收創高", "毛利率上揚"],
    "bad": ["虧損擴大", "客戶砍單", "下修財測", "營收衰退", "毛利率下滑"],
}
FILLERS = ["晶圓", "航運", "鋼鐵", "生技", "面板", "觀光", "電信", "水泥", "紡織", "汽車", "銀行", "保險"]


def separable(n, flip=()):
    """`n` rows that words tell apart; the labels of the rows `flip` are wrong."""
    rng, rows = random.Random(0), []
    for number in range(n):
        label = LABELS[number % 2]
        words = rng.sample(WORDS[label], 2) + rng.sample(FILLERS, 2)
        given = LABELS[1 - number % 2] if number in flip else label
        rows.append(
            {"title": f"{'，'.join(words)}（第{number}則）", "mood": given, "source": f"s{number % 7}", "n": number}
        )
    return rows


FLIPPED = {3, 10, 25, 40, 61, 77}


@pytest.fixture
def task(tmp_path):
    """120 rows that words tell apart, six of them labelled wrongly, not yet converted."""
    made = make_task(tmp_path / "任務 a", {"rows.jsonl": jsonl(*separable(120, FLIPPED))}, data={"split": SPLIT})
    made.ok("02_convert_format.py")
    return made


SPLIT = {"validation": 0.2, "test": 0.2, "near_duplicates": None}


def sheet_rows(task, name=SHEET):
    with (task.folder / name).open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def save_sheet(task, rows, name=SHEET, encoding="utf-8-sig", **options):
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], **options)
    writer.writeheader()
    writer.writerows(rows)
    write(task.folder / name, out.getvalue().encode(encoding))


def fill(task, **by_key):
    """Fills checked_label of the whole sheet with the suggestions, and of some rows with something else."""
    rows = sheet_rows(task)
    for row in rows:
        row["checked_label"] = by_key.get(row["text_key"], row["suggested_label"])
    save_sheet(task, rows)
    return rows


def raw(task, name):
    return [json.loads(line) for line in (task.folder / name).read_text(encoding="utf-8").split("\n")[:-1]]


def texts_by_split(task):
    splits = [p.stem for p in (task.folder / "data/processed").glob("*.jsonl")]
    return {name: [row["record"]["text"] for row in task.rows(name)] for name in splits}


def labels_by_text(task):
    return {r["record"]["text"]: r["record"]["label"] for name in texts_by_split(task) for r in task.rows(name)}


class Task(task_folder.Task):
    """A task whose scripts run in this process, so that scikit-learn is loaded once."""

    def run(self, script, *flags):
        return task_folder.Outcome(*vars(trainable_task.Task(self.folder).run(script, *map(str, flags))).values())

    def rows(self, split):
        return raw(self, f"data/processed/{split}.jsonl")


def make_task(folder, files, **sections):
    return Task(task_folder.make_task(folder, files, **sections).folder)


# Confident learning.


def test_wrong_labels_come_first_and_almost_alone():
    rows = separable(120, FLIPPED)
    texts, golds = [row["title"] for row in rows], [row["mood"] for row in rows]
    probabilities = label_noise.out_of_fold(texts, golds, LABELS)
    assert probabilities.shape == (120, 2) and np.allclose(probabilities.sum(axis=1), 1)
    found = label_noise.issues(golds, probabilities, LABELS)
    assert {issue.position for issue in found[:6]} == FLIPPED
    assert all(
        (issue.given, issue.suggested) == (golds[issue.position], texts_label(issue.position)) for issue in found
    )
    assert [issue.quality for issue in found] == sorted(issue.quality for issue in found)


def texts_label(number):
    return LABELS[number % 2]


def test_rows_without_wrong_labels_are_not_suspected():
    rows = separable(120)
    golds = [row["mood"] for row in rows]
    probabilities = label_noise.out_of_fold([row["title"] for row in rows], golds, LABELS)
    assert label_noise.issues(golds, probabilities, LABELS) == []


def test_equal_texts_never_teach_each_other_their_label():
    rng = random.Random(0)
    texts = [f"{rng.randrange(10**9):x}" for _ in range(30)]
    golds = [rng.choice(LABELS) for _ in texts]
    doubled = label_noise.out_of_fold(texts * 2 + [t.upper() for t in texts], golds * 3, LABELS)
    right = [LABELS[i] == gold for i, gold in zip(doubled.argmax(axis=1), golds * 3, strict=True)]
    assert np.mean(right) < 0.75  # random texts: seen in training they would all be right


@pytest.mark.parametrize(
    "golds",
    [[], ["a"], ["a"] * 5, ["a", "b"], ["a"] * 9 + ["b"], ["a"] * 6 + ["b"] * 2 + ["c"]],
    ids=lambda golds: "".join(golds) or "none",
)
def test_rare_labels_and_few_rows_are_no_failure(golds):
    labels = ["a", "b", "c", "never"]
    texts = [f"{number} {gold * 3}" for number, gold in enumerate(golds)]
    found = label_noise.out_of_fold(texts, golds, labels)
    assert found.shape == (len(golds), 4) and np.allclose(found.sum(axis=1), 1)
    assert {issue.given for issue in label_noise.issues(golds, found, labels)} <= set(golds)


def test_probabilities_of_any_kind_are_no_failure():
    rng = np.random.default_rng(0)
    for number in range(60):
        n_labels, n = int(rng.integers(2, 6)), int(rng.integers(1, 30))
        labels = [f"l{i}" for i in range(n_labels)]
        golds = [labels[i] for i in rng.integers(0, rng.integers(1, n_labels + 1), n)]
        probabilities = rng.dirichlet([0.2] * n_labels, n)
        if number % 3 == 0:
            probabilities = (probabilities > 0.5).astype(float)  # zeros, and rows of nothing else
        found = label_noise.issues(golds, probabilities, labels)
        assert all(issue.given == golds[issue.position] != issue.suggested for issue in found)


# The sheet.


def test_the_wrong_labels_of_train_and_validation_are_in_the_sheet_and_test_is_left_alone(task):
    done = task.ok(SCRIPT, "suggest")
    rows = sheet_rows(task)
    assert list(rows[0]) == list(check_sheet.COLUMNS)
    assert list(rows[0])[-2] == "suggested_label" and list(rows[0]).index("checked_label") < 6
    numbers = [int(row["text"].split("第")[1].split("則")[0]) for row in rows]
    in_test = {int(t.split("第")[1].split("則")[0]) for t in texts_by_split(task)["test"]}
    assert set(numbers[: len(FLIPPED - in_test)]) == FLIPPED - in_test
    assert not set(numbers) & in_test
    for row in rows:
        assert (row["reason"], row["checked_label"], row["note"]) == ("likely_mislabelled", "", "")
        assert row["suggested_label"] != row["label"] and 0.5 <= float(row["confidence"]) <= 1
        assert check_sheet.unguard(row["text_key"]) == dataset.text_key(check_sheet.unguard(row["text"]))
    assert done["next"] == "uv run python scripts/suggest_labels.py merge"
    assert [w["code"] for w in done["warnings"]] == ["run_not_evaluated"]
    assert (task.folder / SHEET).read_bytes().startswith(b"\xef\xbb\xbf")


def test_test_is_looked_at_only_where_a_person_names_it_and_that_is_warned_of(task):
    done = task.ok(SCRIPT, "suggest", "--splits", "test")
    in_test = set(texts_by_split(task)["test"])
    assert {row["text"] for row in sheet_rows(task)} <= in_test
    assert [w["code"] for w in done["warnings"]] == ["test_labels"]


def test_the_answers_of_the_run_decide_about_validation(task):
    """The run is sure of the contrary of one row that words would call right."""
    rows = task.rows("validation")
    sure = next(row for row in rows if row["record"]["label"] == texts_label(row["source"]["line"] - 1))
    golds = [row["record"]["label"] for row in rows]
    predictions = []
    for row, gold in zip(rows, golds, strict=True):
        other = LABELS[1 - LABELS.index(gold)]
        p = 0.01 if row is sure else 0.95
        predictions.append(
            {"id": row["id"], "text_key": dataset.text_key(row["record"]["text"]), "gold": gold, "prediction": gold,
             "raw_output": None, "probabilities": {gold: p, other: 1 - p}, "parsed": True}
        )  # fmt: skip
    value = {"value": 0.9, "ci_low": 0.8, "ci_high": 1.0}
    metrics = {"run": "baseline", "split": "validation", "decoding": "score", "n_rows": len(rows), "rows_sha256": "x",
               "identity": "y", "primary": {"name": "macro_f1", **value}, "metrics": {}, "per_class": {}}  # fmt: skip
    folder = task.folder / "benchmarks/baseline/validation"
    write(folder / "metrics.json", json.dumps(metrics))
    write(folder / "predictions.jsonl", jsonl(*predictions))
    done = task.ok(SCRIPT, "suggest")
    first = sheet_rows(task)[0]
    assert (first["text"], first["confidence"]) == (sure["record"]["text"], "0.9900")
    assert done["warnings"] == []


def test_a_sheet_is_the_same_every_time_and_as_long_as_was_asked(task):
    task.ok(SCRIPT, "suggest", "--rows", "3")
    before = (task.folder / SHEET).read_bytes()
    assert task.ok(SCRIPT, "suggest", "--rows", "3")["status"] == "skipped"
    assert (task.folder / SHEET).read_bytes() == before
    assert len(sheet_rows(task)) == 3


def test_dry_runs_write_nothing(task):
    before = sha256s(task.folder)
    done = task.ok(SCRIPT, "suggest", "--dry-run")
    assert done["counts"]["rows"] >= 4 and sha256s(task.folder) == before
    task.ok(SCRIPT, "suggest")
    fill(task)
    before = sha256s(task.folder)
    done = task.ok(SCRIPT, "merge", "--dry-run")
    assert done["counts"]["corrected_rows"] >= 4 and sha256s(task.folder) == before


def test_a_sheet_that_somebody_filled_is_never_overwritten(task):
    task.ok(SCRIPT, "suggest")
    rows = sheet_rows(task)
    rows[1]["checked_label"] = "good"
    save_sheet(task, rows)
    before = (task.folder / SHEET).read_bytes()
    refused = task.run(SCRIPT, "suggest", "--rows", "2")
    (problem,) = refused.problems("sheet_not_merged")
    assert (refused.code, problem["line"], problem["file"]) == (2, 3, SHEET)
    assert (task.folder / SHEET).read_bytes() == before
    done = task.ok(SCRIPT, "suggest", "--rows", "2", "--force")
    assert done["outputs"]["moved_aside"] == "data/labelling/to_check.1.csv"
    assert (task.folder / "data/labelling/to_check.1.csv").read_bytes() == before
    assert len(sheet_rows(task)) == 2


def test_after_a_merge_the_next_sheet_holds_nothing_that_was_checked(task):
    task.ok(SCRIPT, "suggest")
    rows = sheet_rows(task)
    confirmed = rows[0]
    fill(task, **{confirmed["text_key"]: confirmed["label"]})
    task.ok(SCRIPT, "merge")
    old = task.run(SCRIPT, "suggest")
    assert (old.code, old.problems("processed_old") != []) == (4, True)
    task.ok("02_convert_format.py")
    task.ok(SCRIPT, "suggest", "--splits", "train", "validation", "test")
    asked = {row["text_key"] for row in rows}
    assert not asked & {row["text_key"] for row in sheet_rows(task)} or not sheet_rows(task)


def test_a_run_that_is_missing_and_flags_of_the_other_action_are_refused(task):
    assert task.run(SCRIPT, "suggest", "--config", "configs/none.yaml").code == 4
    assert task.run(SCRIPT).code == 2
    for flags in (("merge", "--rows", "3"), ("merge", "--splits", "test"), ("merge", "--force"), ("suggest", "x.csv")):
        outcome = task.run(SCRIPT, *flags)
        assert outcome.code == 2 and "has no meaning" in outcome.summary["errors"][0]["message"]


def test_before_the_conversion_the_sheet_cannot_be_made(tmp_path):
    made = make_task(tmp_path / "t", {"rows.jsonl": jsonl(*news(10))})
    outcome = made.run(SCRIPT, "suggest")
    assert (outcome.code, outcome.summary["next"]) == (4, "uv run python scripts/02_convert_format.py")


# Merging.


def test_a_merge_changes_the_labels_and_nothing_else(task):
    definition = task.folder / "task_definition.yaml"
    before_raw, before_texts, before = task.hashes("data/raw"), texts_by_split(task), labels_by_text(task)
    task.ok(SCRIPT, "suggest")
    rows = fill(task)
    done = task.ok(SCRIPT, "merge")
    n = len(rows)
    assert done["outputs"]["version"] == "data/raw/v2"
    assert done["counts"] == {"filled": n, "corrected_rows": n, "new_rows": 0, "confirmed": 0}
    assert sum(done["metrics"]["changed"].values()) == n and set(done["metrics"]["changed"]) <= PAIRS
    assert done["next"] == "uv run python scripts/02_convert_format.py"
    assert "new_experiment.py --from" in done["outputs"]["experiment"]
    assert before_raw.items() <= task.hashes("data/raw").items()
    files = yaml.safe_load(definition.read_text(encoding="utf-8"))["data"]["files"]
    assert files == {name: [f"data/raw/v2/{name}.jsonl"] for name in ("train", "validation", "test")}
    assert all(set(row) == {"title", "mood", "source", "n"} for name in files for row in raw(task, files[name][0]))
    task.ok("01_validate_data.py")
    task.ok("02_convert_format.py")
    assert texts_by_split(task) == before_texts
    wanted = before | {row["text"]: row["suggested_label"] for row in rows}
    assert labels_by_text(task) == wanted != before


PAIRS = {"good -> bad", "bad -> good"}


def test_the_diff_names_each_row_as_it_was_and_as_it_is(task):
    task.ok(SCRIPT, "suggest", "--rows", "4")
    rows = sheet_rows(task)
    for row in rows[:3]:
        row |= {"checked_label": row["suggested_label"], "note": "=SUM(1)" if row is rows[0] else "編者按"}
    rows[2]["checked_label"] = rows[2]["label"]
    save_sheet(task, rows)
    done = task.ok(SCRIPT, "merge")
    assert done["counts"] == {"filled": 3, "corrected_rows": 2, "new_rows": 0, "confirmed": 1}
    diff = sheet_rows(task, "data/raw/v2/CHANGES.csv")
    assert list(diff[0]) == ["text_key", "before", "old_label", "new_label", "reason", "note"]
    lines = [f"data/raw/rows.jsonl:{1 + int(row['text'].split('第')[1].split('則')[0])}" for row in rows[:2]]
    assert [d["before"] for d in diff] == lines
    assert [d["note"] for d in diff] == ["'=SUM(1)", "編者按"]
    assert [(d["old_label"], d["new_label"], d["reason"]) for d in diff] == [
        (row["label"], row["suggested_label"], "likely_mislabelled") for row in rows[:2]
    ]


def test_the_same_sheet_a_second_time_is_skipped_and_the_next_one_makes_the_next_version(task):
    task.ok(SCRIPT, "suggest", "--rows", "1")
    first = fill(task)
    task.ok(SCRIPT, "merge")
    before = sha256s(task.folder)
    assert task.ok(SCRIPT, "merge")["status"] == "skipped"
    assert sha256s(task.folder) == before
    task.ok("02_convert_format.py")
    task.ok(SCRIPT, "suggest", "--rows", "1")
    second = fill(task)
    assert not {row["text_key"] for row in second} & {row["text_key"] for row in first}
    assert task.ok(SCRIPT, "merge")["outputs"]["version"] == "data/raw/v3"
    task.ok("02_convert_format.py")
    labels = labels_by_text(task)
    assert all(labels[row["text"]] == row["suggested_label"] for row in first + second)


def test_an_interrupted_merge_is_made_whole_by_the_next_one(task):
    task.ok(SCRIPT, "suggest", "--rows", "3")
    fill(task)
    definition = (task.folder / "task_definition.yaml").read_bytes()
    task.ok(SCRIPT, "merge")
    (task.folder / "task_definition.yaml").write_bytes(definition)  # as if it had died before this was written
    (task.folder / "data/labelling/checked.jsonl").unlink()
    assert task.ok(SCRIPT, "merge")["outputs"]["version"] == "data/raw/v2"
    assert not (task.folder / "data/raw/v3").exists()


def test_every_problem_of_a_sheet_is_told_at_once_and_nothing_is_written(task):
    task.ok(SCRIPT, "suggest")
    rows = [dict(row, checked_label=row["suggested_label"]) for row in sheet_rows(task)[:4]]
    rows[0]["checked_label"] = "GOOD"
    rows[1]["text"] += "改"
    rows[2]["text_key"] = "0" * 16
    rows.append(dict(rows[3], checked_label=rows[3]["label"]))
    save_sheet(task, rows)
    before = sha256s(task.folder)
    outcome = task.run(SCRIPT, "merge")
    assert outcome.code == 3
    assert [(p["code"], p["line"]) for p in outcome.summary["errors"]] == [
        ("unknown_label", 2), ("changed_text", 3), ("unknown_text", 4), ("two_answers", 6),
    ]  # fmt: skip
    assert outcome.problems("unknown_label")[0]["hint"] == "write good, letter by letter"
    assert sha256s(task.folder) == before


def test_a_sheet_without_answers_or_without_its_columns_is_refused(task):
    task.ok(SCRIPT, "suggest")
    assert task.run(SCRIPT, "merge").problems("nothing_checked")
    write(task.folder / SHEET, "a,b\n1,2\n")
    assert task.run(SCRIPT, "merge").problems("not_a_sheet")
    refused = task.run(SCRIPT, "suggest")
    assert (refused.code, refused.problems("sheet_not_merged") != []) == (2, True)
    assert task.run(SCRIPT, "merge", "none.csv").code == 4


def test_a_label_that_somebody_else_changed_meanwhile_is_not_overwritten(task):
    task.ok(SCRIPT, "suggest", "--rows", "1")
    row = fill(task)[0]
    stale = dict(row, label=row["suggested_label"], checked_label=row["suggested_label"])
    save_sheet(task, [dict(stale, checked_label="good" if stale["label"] == "bad" else "bad")])
    assert task.ok(SCRIPT, "merge")["counts"]["confirmed"] == 1  # the data hold the checked label already


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "big5"])
def test_a_sheet_is_read_as_a_spreadsheet_saves_it(task, encoding):
    task.ok(SCRIPT, "suggest", "--rows", "2")
    rows = [dict(row, checked_label=row["suggested_label"]) for row in sheet_rows(task)]
    save_sheet(task, rows, encoding=encoding, delimiter=";")
    assert task.ok(SCRIPT, "merge")["counts"]["corrected_rows"] == 2


def test_a_sheet_may_come_back_as_excel_from_elsewhere(task, tmp_path):
    task.ok(SCRIPT, "suggest", "--rows", "2")
    rows = [dict(row, checked_label=row["suggested_label"]) for row in sheet_rows(task)]
    back = write(tmp_path / "回來 的.xlsx", xlsx({"a": [list(rows[0]), *(list(row.values()) for row in rows)]}))
    assert task.ok(SCRIPT, "merge", str(back))["counts"]["corrected_rows"] == 2


FORMULAS = ["=1+1 的報表", "+成長", "-衰退", "@公司", "'引號", "2026-01-01 公告", "TRUE", "多行\n文字\u2028完"]


def test_texts_that_a_spreadsheet_would_calculate_come_back_as_they_are(tmp_path):
    rows = [{"title": t, "mood": LABELS[n % 2]} for n, t in enumerate(FORMULAS)] + separable(60)
    made = make_task(tmp_path / "t", {"rows.jsonl": jsonl(*rows)}, data={"split": SPLIT})
    made.ok("02_convert_format.py")
    labelled = [row for row in suggestions.labelled_rows(paths_of(made), definition_of(made)) if row.text in FORMULAS]
    sheet = [
        check_sheet.SheetRow(
            row.id, row.text_key, row.text, row.label, "likely_mislabelled", "x", 0.5, other(row.label)
        )
        for row in labelled
    ]
    write(made.folder / SHEET, check_sheet.sheet_text(sheet))
    assert all(row["text"][0] not in "=+-@" for row in sheet_rows(made))
    assert made.ok(SCRIPT, "merge")["counts"]["corrected_rows"] == len(FORMULAS)
    made.ok("01_validate_data.py")
    made.ok("02_convert_format.py")
    after = labels_by_text(made)
    assert all(after[row.text] == other(row.label) for row in labelled)


def other(label):
    return LABELS[1 - LABELS.index(label)]


def paths_of(task):
    from tasklib.paths import TaskPaths

    return TaskPaths(task.folder)


def definition_of(task):
    return schema.load_definition(task.folder / "task_definition.yaml")


def as_csv(rows, delimiter=","):
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def renamed(rows):
    return [{"標題 文字": row["title"], "類別": row["n"] % 2, "來源": row["source"]} for row in rows]


RENAMED = renamed(separable(60))
RAW = {
    "csv": {"新 聞.csv": as_csv(RENAMED)},
    "big5": {"新聞.csv": as_csv(RENAMED, ";").encode("big5")},
    "json": {"news.json": json.dumps(RENAMED, ensure_ascii=False)},
    "excel": {"news.xlsx": xlsx({"a": [list(RENAMED[0]), *(list(row.values()) for row in RENAMED)]})},
}


@pytest.mark.parametrize("kind", RAW)
def test_raw_data_of_every_kind_become_a_version_with_all_their_columns(tmp_path, kind):
    name = next(iter(RAW[kind]))
    spec = {"path": f"data/raw/{name}", **({"encoding": "big5"} if kind == "big5" else {})}
    made = make_task(
        tmp_path / "中文 夾",
        RAW[kind],
        task={"type": "classification", "labels": {"0": "利多", "1": "利空"}},
        data={"files": {"all": [spec]}, "fields": {"text": "標題 文字", "label": "類別"}, "split": SPLIT},
    )
    made.ok("02_convert_format.py")
    before = texts_by_split(made)
    row = next(r for r in suggestions.labelled_rows(paths_of(made), definition_of(made)) if r.split == "validation")
    new = "1" if row.label == "0" else "0"
    sheet = check_sheet.SheetRow(row.id, row.text_key, row.text, row.label, "", "", None, new)
    write(made.folder / SHEET, check_sheet.sheet_text([sheet]))
    assert made.ok(SCRIPT, "merge")["metrics"] == {"changed": {f"{row.label} -> {new}": 1}}
    made.ok("01_validate_data.py")
    made.ok("02_convert_format.py")
    assert texts_by_split(made) == before
    assert labels_by_text(made)[row.text] == new
    values = [r for r in raw(made, "data/raw/v2/validation.jsonl") if r["標題 文字"] == row.text]
    assert [set(v) for v in values] == [{"標題 文字", "類別", "來源"}]
    assert values[0]["類別"] == (int(new) if kind == "json" else new)


def test_constants_and_decisions_of_the_old_files_go_on_working(tmp_path):
    rows = separable(60)
    rows[0]["mood"] = "bad"
    made = make_task(
        tmp_path / "t",
        {"rows.jsonl": jsonl(*rows)},
        data={
            "files": {"all": [{"path": "data/raw/rows.jsonl", "values": {"origin": "cna"}}]},
            "split": SPLIT,
            "decisions": "data/decisions.csv",
        },
    )
    write(made.folder / "data/decisions.csv", f"text,label,reason\n{rows[0]['title']},good,read it\n")
    made.ok("02_convert_format.py")
    labelled = {r.text: r for r in suggestions.labelled_rows(paths_of(made), definition_of(made))}
    decided, free = labelled[rows[0]["title"]], labelled[rows[1]["title"]]
    assert decided.label == "good"

    def answered(row, label):
        return check_sheet.SheetRow(row.id, row.text_key, row.text, row.label, "", "", None, label)

    write(made.folder / SHEET, check_sheet.sheet_text([answered(decided, "bad"), answered(free, "good")]))
    refused = made.run(SCRIPT, "merge")
    (problem,) = refused.problems("decided_otherwise")
    assert (refused.code, problem["line"]) == (3, 2) and "data/decisions.csv" in problem["hint"]
    write(made.folder / SHEET, check_sheet.sheet_text([answered(decided, "good"), answered(free, "good")]))
    assert made.ok(SCRIPT, "merge")["counts"] == {"filled": 2, "corrected_rows": 1, "new_rows": 0, "confirmed": 1}
    made.ok("02_convert_format.py")
    assert labels_by_text(made)[rows[0]["title"]] == labels_by_text(made)[rows[1]["title"]] == "good"
    assert all(row["origin"] == "cna" for row in raw(made, "data/raw/v2/train.jsonl"))


def test_every_row_of_a_text_gets_its_one_answer(tmp_path):
    rows = separable(60)
    rows += [dict(rows[5], title=rows[5]["title"] + "　", n=99)]
    made = make_task(tmp_path / "t", {"rows.jsonl": jsonl(*rows)}, data={"split": SPLIT, "normalize": ["nfkc"]})
    made.ok("02_convert_format.py")
    row = next(r for r in suggestions.labelled_rows(paths_of(made), definition_of(made)) if "第5則" in r.text)
    sheet = check_sheet.SheetRow(row.id, row.text_key, row.text, "bad", "", "", None, "good")
    write(made.folder / SHEET, check_sheet.sheet_text([sheet]))
    assert made.ok(SCRIPT, "merge")["counts"]["corrected_rows"] == 2
    changed = [r for name in ("train", "validation", "test") for r in raw(made, f"data/raw/v2/{name}.jsonl")]
    assert sorted(r["n"] for r in changed if r["mood"] == "good" and r["n"] in (5, 99)) == [5, 99]
    assert any(r["title"].endswith("　") for r in changed)  # texts stay as they were, not as they are normalized


def test_a_task_without_a_test_split_gets_none(tmp_path):
    split = {"validation": 0.3, "test": 0, "time_field": None, "near_duplicates": None}
    made = make_task(tmp_path / "t", {"rows.jsonl": jsonl(*separable(60, {3}))}, data={"split": split})
    made.ok("02_convert_format.py")
    before = texts_by_split(made)
    made.ok(SCRIPT, "suggest")
    fill(made)
    made.ok(SCRIPT, "merge")
    made.ok("02_convert_format.py")
    assert texts_by_split(made) == before and set(before) == {"train", "validation"}


def dated(rows):
    return [dict(row, day=f"2026-01-{1 + row['n'] % 28:02d}") for row in rows]


CLEAN = separable(60)
SPLITTINGS = {
    "groups": ({"all": separable(84, {3})}, {"group_by": "source", "near_duplicates": None, "seed": 7}),
    "time": ({"all": dated(separable(60, {3}))}, {"time_field": "day", "near_duplicates": None}),
    "near duplicates": ({"all": [dict(r, title=r["title"] * 3) for r in separable(60, {3})]}, {"seed": 3}),
    "files of one's own": ({"train": CLEAN[:40], "validation": CLEAN[40:50], "test": CLEAN[50:]}, None),
    "validation drawn from train": ({"train": CLEAN[:40], "test": CLEAN[40:]}, {"validation": 0.3}),
    "no validation": ({"all": separable(60, {3})}, {"validation": 0, "test": 0.3, "near_duplicates": None}),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "split"), SPLITTINGS.values(), ids=SPLITTINGS)
def test_however_the_split_was_made_every_row_keeps_its_side(tmp_path, rows, split):
    files = {f"{name}.jsonl": jsonl(*part) for name, part in rows.items()}
    data = {"files": {name: [f"data/raw/{name}.jsonl"] for name in rows}, **({"split": split} if split else {})}
    made = make_task(tmp_path / "t", files, data=data, prompt={"n_few_shot": 2})
    made.ok("02_convert_format.py")
    before, prompts = texts_by_split(made), [row["prompt"] for row in made.rows("test")]
    row = next(r for r in suggestions.labelled_rows(paths_of(made), definition_of(made)) if r.split == "test")
    sheet = check_sheet.SheetRow(row.id, row.text_key, row.text, row.label, "", "", None, other(row.label))
    write(made.folder / SHEET, check_sheet.sheet_text([sheet]))
    done = made.ok(SCRIPT, "merge")
    assert [w["code"] for w in done["warnings"]] == ["test_labels"]
    made.ok("01_validate_data.py")
    made.ok("02_convert_format.py")
    assert texts_by_split(made) == before
    assert [row["prompt"] for row in made.rows("test")] == prompts  # the same worked examples


def test_a_row_whose_label_in_the_data_is_neither_the_old_nor_the_checked_one_is_refused(task):
    task.ok(SCRIPT, "suggest", "--rows", "1")
    (row,) = sheet_rows(task)
    save_sheet(task, [dict(row, label=row["suggested_label"], checked_label=row["suggested_label"])])
    (problem,) = task.run(SCRIPT, "merge").problems("label_moved")
    assert (problem["line"], problem["field"]) == (2, "label")


# The definition.

DEFINITIONS = {
    "a list in one line": (
        "files: {all: [data/raw/a.csv]}  # from Amy",
        "files:\n    train: [t]\n    validation: [v]\n    test: [e]  # from Amy",
    ),
    "a block": (
        "files:  # raw\n    # as delivered\n    all:\n      - data/raw/a.csv  # from Amy\n      - path: data/raw/b\n"
        "        encoding: big5\n\n  # what the columns are",
        "files:  # raw\n    # as delivered\n    train: [t]\n    validation: [v]\n    test: [e]\n\n"
        "  # what the columns are",
    ),
}
REST = """\
# a task
schema_version: 1
name: tiny
task:
  type: classification
  labels: {good: 利多, bad: 利空}   # two
data:
  %s
  fields: {text: a, label: b}  # columns
%s
evaluation:
  must_beat: []
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("files", DEFINITIONS.values(), ids=DEFINITIONS)
def test_the_definition_changes_in_its_files_and_in_nothing_else(files, newline):
    before, after = (
        (REST % (text, "  split:\n    validation: 0.3  # more\n    # a remark\n    seed: 7")).replace("\n", newline)
        for text in files
    )
    found = raw_versions.edited_definition(before, "d", {"train": "t", "validation": "v", "test": "e"})
    kept = "  split: {seed: 7}\n  # split:\n    # validation: 0.3  # more\n    # a remark\n    # seed: 7"
    wanted = after.replace(
        "  split:\n    validation: 0.3  # more\n    # a remark\n    seed: 7".replace("\n", newline),
        kept.replace("\n", newline),
    )
    assert found == wanted


def test_split_keys_that_still_mean_something_are_kept_and_the_result_is_legal():
    text = REST % ("files: {all: [a]}", "  split: {validation: 0.2, group_by: 來源, near_duplicates: null}")
    found = raw_versions.edited_definition(text, "d", {"train": "t", "validation": "v", "test": "e"})
    definition = schema.check_definition(documents.parse_yaml(found, "d"))
    assert (definition.data.split.group_by, definition.data.split.near_duplicates) == ("來源", None)
    text = REST % ("files: {all: [a]}", "  split: {validation: 0.2, test: 0}")
    found = raw_versions.edited_definition(text, "d", {"train": "t", "validation": "v"})
    assert schema.check_definition(documents.parse_yaml(found, "d")).data.split.test == 0


def test_a_definition_that_cannot_be_edited_is_refused_with_what_to_do():
    text = (REST % ("X", "")).replace("  X\n  fields: {text: a, label: b}  # columns\n", "")
    text = text.replace("data:", "data: {files: {all: [a]}, fields: {text: a, label: b}, split: {test: 0.2}}")
    with pytest.raises(TaskError) as caught:
        raw_versions.edited_definition(text, "d", {"train": "t", "validation": "v", "test": "e"})
    (problem,) = caught.value.problems
    assert (problem.code, caught.value.exit_code) == ("not_edited", 2) and "lines of their own" in problem.hint


# Texts without a label.


def test_the_smallest_margin_is_the_most_uncertain_and_entropy_breaks_ties():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.4, 0.3, 0.3], [0.5, 0.4, 0.1], [0.45, 0.35, 0.2], [0.34, 0.33, 0.33]])
    assert suggestions.by_margin(probabilities) == [4, 1, 3, 2, 0]
    assert suggestions.by_margin(np.zeros((0, 2))) == []


def test_diverse_texts_are_far_from_what_is_known_and_from_each_other():
    known = ["獲利成長創新高", "獲利成長優於預期"]
    texts = ["獲利成長再創新高", "颱風停班停課", "颱風停班停課了", "football results", "獲利成長"]
    order = list(suggestions.farthest_first(texts, known))
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert set(order[:2]) & {3} and len(set(order[:2]) & {1, 2}) == 1
    assert order == list(suggestions.farthest_first(texts, known))
    assert list(suggestions.farthest_first([], known)) == []
    assert sorted(suggestions.farthest_first(texts, [])) == [0, 1, 2, 3, 4]


def test_a_run_without_probabilities_leaves_only_diverse_rows(task):
    definition = definition_of(task)
    record = definition.task_type.Record
    pool = suggestions.Pool(
        [record(text=t, label="") for t in ("颱風停課", "football")],
        [raw_versions.PoolRow("a", "p", 1, {}), raw_versions.PoolRow("b", "p", 2, {})],
    )
    labelled = suggestions.labelled_rows(paths_of(task), definition)
    rows = suggestions.from_pool(pool, None, labelled, definition, 0, 2)
    assert {(row.reason, row.suggested_label, row.confidence) for row in rows} == {("diverse", "", None)}
    both = suggestions.from_pool(pool, np.array([[0.9, 0.1], [0.5, 0.5]]), labelled, definition, 1, 1)
    assert [(row.id, row.reason, row.confidence) for row in both] == [
        ("p:2", "uncertain", 0.5),
        ("p:1", "diverse", 0.9),
    ]


def test_reasons_share_the_rows_fairly_and_what_one_leaves_the_others_take():
    available = {"a": 2, "b": 100, "c": 100}
    assert suggestions.shares(50, available) == {"a": 2, "b": 24, "c": 24}
    assert suggestions.shares(4, available) == {"a": 2, "b": 1, "c": 1}
    assert suggestions.shares(50, {"a": 1, "b": 0}) == {"a": 1, "b": 0}


def test_the_pool_is_left_without_what_is_known_twice_nearly_known_or_of_a_held_out_group(tmp_path):
    rows = [dict(row, title=row["title"] * 2) for row in separable(60)]
    split = {"validation": 0.2, "test": 0.2, "group_by": "source"}
    made = make_task(tmp_path / "t", {"rows.jsonl": jsonl(*rows)}, data={"split": split})
    made.ok("02_convert_format.py")
    paths, definition = paths_of(made), definition_of(made)
    labelled = suggestions.labelled_rows(paths, definition)
    held_out = suggestions.held_out_groups(paths, definition, labelled)
    assert held_out and held_out < {f"s{n}" for n in range(7)}
    group = min({f"s{n}" for n in range(7)} - held_out)
    long = "颱風來襲，各地停班停課，超商泡麵一掃而空，菜價隨即上漲，農民損失慘重"
    pool = [
        {"title": rows[0]["title"].replace("，", " ，"), "source": group},
        {"title": rows[0]["title"] + "！", "source": group},
        {"title": long, "source": group},
        {"title": long + "。", "source": group},
        {"title": "football results of the weekend", "source": min(held_out)},
        {"title": "football results of the weekend", "source": group},
    ]
    file = write(tmp_path / "pool.jsonl", jsonl(*pool))
    read, problems = suggestions.read_pool(file, definition)
    assert (len(read.rows), problems) == (6, [])
    left = suggestions.unknown(read, labelled, held_out, definition)
    assert [row.line for row in left.rows] == [3, 6]
    assert (left.n_known, left.n_near) == (2, 2)


def test_bad_rows_of_a_pool_are_told_all_at_once(task, tmp_path):
    file = write(tmp_path / "pool.jsonl", jsonl({"title": ""}, {"title": "好"}, {"title": 3}))
    outcome = task.run(SCRIPT, "suggest", "--pool", file)
    assert (outcome.code, [p["line"] for p in outcome.summary["errors"]]) == (3, [1, 3])


def test_a_pool_needs_a_finished_run(task, tmp_path):
    file = write(tmp_path / "pool.txt", "颱風停班停課\n")
    outcome = task.run(SCRIPT, "suggest", "--pool", file)
    assert (outcome.code, outcome.summary["errors"][0]["code"]) == (4, "run_not_finished")


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    """A task whose run has learnt; copied by whoever changes it."""
    folder = tmp_path_factory.mktemp("trained") / "任務"
    task = trainable_task.make_task(
        folder, tiny_model, n_rows=120, adapter=trainable_task.FULL, training=dict(trainable_task.LEARNS)
    )
    task.ok("03_train.py")
    task.ok("04_evaluate.py", "--split", "validation")
    return task


POOL = [
    f"第{n}家公司{topic}"
    for n, topic in enumerate(["獲利成長", "客戶砍單", "颱風停課", "上調財測卻客戶砍單"] * 10, 500)
]


@pytest.mark.slow
def test_pool_rows_are_suggested_by_the_run_and_merged_into_train(trained, tmp_path):
    shutil.copytree(trained.folder, folder := tmp_path / "任務 b")
    task = trainable_task.Task(folder)
    pool = write(tmp_path / "池 1.csv", as_csv([{"text": t, "extra": n} for n, t in enumerate(POOL)]).encode("big5"))
    done = task.ok(SCRIPT, "suggest", "--pool", str(pool), "--rows", "10")
    with (folder / SHEET).open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["reason"] for row in rows} >= {"uncertain", "diverse"} and len(rows) == 10
    from_pool = [row for row in rows if row["reason"] != "likely_mislabelled"]
    assert all(row["label"] == "" and row["suggested_label"] in LABELS and row["confidence"] for row in from_pool)
    margins = [float(row["confidence"]) for row in from_pool if row["reason"] == "uncertain"]
    assert margins == sorted(margins)
    assert done["counts"]["pool"] == 40
    for row in from_pool:
        row["checked_label"] = "bad"
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write(folder / SHEET, "\ufeff" + out.getvalue())
    before = {name: trained_texts(task, name) for name in ("train", "validation", "test")}
    merged = task.ok(SCRIPT, "merge")
    assert merged["counts"]["new_rows"] == len(from_pool)
    assert merged["metrics"]["changed"] == {"(none) -> bad": len(from_pool)}
    task.ok("02_convert_format.py")
    after = {name: trained_texts(task, name) for name in before}
    assert after["train"] == before["train"] + [row["text"] for row in from_pool]
    assert (after["validation"], after["test"]) == (before["validation"], before["test"])
    added = [json.loads(line) for line in (folder / "data/raw/v2/train.jsonl").read_text().splitlines()][-1]
    assert set(added) == {"text", "extra", "label"} and added["label"] == "bad"
    assert task.ok(SCRIPT, "merge")["status"] == "skipped"
    old = task.run(SCRIPT, "suggest", "--pool", str(pool))
    assert old.code == 2 and old.summary["errors"][0]["code"] == "identity_differs"  # the run knows the older data
    made = task.ok(
        "new_experiment.py", "--name", "labels-checked", "--hypothesis", "new rows of the pool", "--from", "baseline"
    )
    assert made["run"] == "labels-checked"


def trained_texts(task, name):
    lines = (task.folder / "data/processed" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["record"]["text"] for line in lines]


@pytest.mark.slow
def test_a_wrong_label_of_validation_that_the_run_knows_better_comes_first(trained, tmp_path):
    shutil.copytree(trained.folder, folder := tmp_path / "t")
    task = trainable_task.Task(folder)
    predictions = folder / "benchmarks/baseline/validation/predictions.jsonl"
    assert all(json.loads(line)["probabilities"] for line in predictions.read_text(encoding="utf-8").splitlines())
    wrong = trained_texts(task, "validation")[0]
    path = folder / "data/raw/rows.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if row["text"] == wrong:
            row["label"] = other(row["label"])
    write(path, jsonl(*rows))
    task.edit_definition(data={"split": SPLIT})
    task.ok("02_convert_format.py")
    task.ok(SCRIPT, "suggest", "--splits", "train", "validation", "test")
    with (folder / SHEET).open(encoding="utf-8-sig", newline="") as stream:
        assert next(csv.DictReader(stream))["text"] == wrong
