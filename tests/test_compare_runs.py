"""compare_runs.py: which runs, which rows, what is better, what changed, and the page in a real browser."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import every_type
from tasklib import schema
from tasklib.answering.inference import Answer
from tasklib.data import conversion
from tasklib.files import read_json, read_jsonl, write_jsonl, write_text
from tasklib.iterating import comparison, comparison_page
from tasklib.paths import TaskPaths
from tasklib.scoring import bootstrap, evaluation
from tasklib.scoring.metrics import Seeds
from tasklib.texts import COMPARISON
from tasklib.training import runs
from test_report import CHROMIUM, HOSTILE, Page, driven
from trainable_task import BUNDLE, Outcome, Task

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs a real browser: neither chromium nor google-chrome is on PATH"
)
N = 40  # rows of validation; the even ones are good, the odd ones bad
TEXTS = [f"第{i}家公司{'獲利成長' if i % 2 == 0 else '虧損擴大'}{'了' * (i // 3)}" for i in range(N)]
GOLDS = ["good", "bad"] * (N // 2)
OTHER = {"good": "bad", "bad": "good"}


def make(folder: Path, texts: Sequence[str] = TEXTS, golds: Sequence[str] = GOLDS, language: str = "en",
         labels: dict[str, str] | None = None) -> Task:  # fmt: skip
    """A converted task whose validation and test split hold these rows; no model."""
    (folder / "data" / "raw").mkdir(parents=True)
    shutil.copytree(BUNDLE / "scripts" / "task", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    write_raw(folder, "validation", texts, golds)
    write_raw(folder, "test", [f"考 {text}" for text in texts], golds)
    write_raw(folder, "train", [f"訓練 {i}" for i in range(4)], list(itertools.islice(itertools.cycle(golds), 4)))
    definition = {
        "schema_version": 1,
        "name": "demo",
        "language": language,
        "task": {"type": "classification", "labels": labels or {"good": "利多", "bad": "利空"}},
        "prompt": {"instruction": "判斷。"},
        "data": {
            "files": {split: [f"data/raw/{split}.jsonl"] for split in ("train", "validation", "test")},
            "fields": {"text": "text", "label": "label"},
        },
        "evaluation": {"n_few_shot": 0},
    }
    write_text(folder / "task_definition.yaml", yaml.safe_dump(definition, allow_unicode=True))
    (folder / "configs").mkdir()
    task = Task(folder)
    task.ok("02_convert_format.py")
    return task


def write_raw(folder: Path, split: str, texts: Sequence[str], golds: Sequence[str]) -> None:
    rows = [{"text": text, "label": gold} for text, gold in zip(texts, golds, strict=True)]
    write_jsonl(folder / "data" / "raw" / f"{split}.jsonl", rows)


def add_run(task: Task, name: str, answers: Sequence[str | None] | None = None, *, wrong: Sequence[int] = (),
            split: str = "validation", finished_at: str | None = "2026-01-01T00:00:00+00:00", decoding: str = "score",
            folder: str | None = None, **sections: Any) -> evaluation.Result:  # fmt: skip
    """What 03_train.py and 04_evaluate.py leave behind of a run that answers these labels, by default the gold ones but
    on the rows in `wrong`; with its config."""
    paths = TaskPaths(task.folder)
    definition = schema.load_definition(paths.definition)
    data = evaluation.Rows(split, conversion.load_split(paths, split), [])
    golds = [row["record"]["label"] for row in data.rows]
    answers = answers or [OTHER[gold] if i in wrong else gold for i, gold in enumerate(golds)]
    given = [Answer(prediction=a, raw_output=None, probabilities=None) for a in answers]
    result = evaluation.score(definition, data, given, run=name, decoding=decoding, identity=name)
    evaluation.save(task.folder / "benchmarks" / (folder or name) / split, result)
    config = {"schema_version": 1, "base_model": {"id": "org/model"}, **sections}
    write_text(task.folder / "configs" / f"{name}.yaml", yaml.safe_dump(config))
    loaded = schema.load_config(task.folder / "configs" / f"{name}.yaml")
    if finished_at:
        record = runs.RunRecord(
            status="finished", argv=[], config={}, identity=runs.identity(loaded, definition, paths), inputs={},
            code={}, environment={}, hardware={}, seed=42, started_at=finished_at, finished_at=finished_at,
        )  # fmt: skip
        runs.write_record(paths.run(name), record)
    return result


def compare(task: Task, *flags: str) -> Outcome:
    return task.run("compare_runs.py", *flags)


def found(task: Task, *flags: str, name: str = "validation") -> dict[str, Any]:
    """comparisons/<name>.json after a call that went well."""
    task.ok("compare_runs.py", *flags)
    return task.json(f"benchmarks/comparisons/{name}.json")


def warned(outcome: Outcome) -> list[str]:
    return [warning["code"] for warning in outcome.summary["warnings"]]


def refused(outcome: Outcome) -> tuple[int, str]:
    return outcome.code, outcome.summary["errors"][0]["code"]


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Task:
    return make(tmp_path_factory.mktemp("compare") / "task")


@pytest.fixture
def task(empty, tmp_path) -> Task:
    """A converted task without a run, that a test may change."""
    return Task(Path(shutil.copytree(empty.folder, tmp_path / "task")))


# What comes out.


def test_rows_fixed_and_broken_are_those_that_only_one_of_the_two_answers_right(task):
    add_run(task, "baseline", wrong=[0, 1, 2, 3, 4])
    add_run(task, "exp", wrong=[3, 4, 5])
    outcome = compare(task)
    assert outcome.code == 0, outcome.summary
    row = outcome.summary["metrics"]["exp"]
    assert (row["n_fixed"], row["n_broken"]) == (3, 1)
    (versus,) = task.json("benchmarks/comparisons/validation.json")["versus"]
    assert (versus["n_fixed"], versus["n_broken"], versus["n_rows"]) == (3, 1, N)
    ids = [row["id"] for row in conversion.load_split(TaskPaths(task.folder), "validation")]
    assert [(row["kind"], row["id"]) for row in versus["rows"]] == [
        ("broken", ids[5]), ("fixed", ids[0]), ("fixed", ids[1]), ("fixed", ids[2])]  # fmt: skip
    assert versus["rows"][0] == {
        "kind": "broken", "id": ids[5], "text": TEXTS[5], "gold": "bad", "before": "bad", "after": "good",
            "score_before": None, "score_after": None}  # fmt: skip


def test_the_numbers_are_those_of_the_evaluation_and_of_the_paired_test(task):
    old, new = add_run(task, "baseline", wrong=range(12)), add_run(task, "exp", wrong=[1])
    result = found(task)
    standings = {standing["name"]: standing for standing in result["ranking"]}
    assert standings["baseline"]["metrics"]["macro_f1"] == old.metrics.metrics["macro_f1"].model_dump()
    assert standings["exp"]["metrics"]["accuracy"] == new.metrics.metrics["accuracy"].model_dump()
    definition = schema.load_definition(task.folder / "task_definition.yaml")
    expected = evaluation.compared(definition, new, {"baseline": old}, judged=False).metrics.comparisons[0]
    (versus,) = result["versus"]
    assert versus["comparison"] == expected.model_dump()
    assert versus["comparison"]["verdict"] == "better"
    assert versus["value"] == standings["exp"]["metrics"]["macro_f1"]
    assert versus["against_value"] == standings["baseline"]["metrics"]["macro_f1"]


def test_holm_corrects_for_all_runs_of_the_table(task):
    add_run(task, "baseline", wrong=range(8))
    for name, n in (("a", 1), ("b", 2), ("c", 3)):
        add_run(task, name, wrong=range(n))
    comparisons = [item["comparison"] for item in found(task)["versus"]]
    alone = found(task, "c", name="validation.c-vs-baseline")["versus"][0]["comparison"]
    p_values = [c["p_value"] for c in comparisons]
    assert p_values == sorted(p_values) and comparisons[2]["p_value"] == alone["p_value"] == alone["p_value_holm"]
    expected = list(itertools.accumulate((min(1, p * n) for p, n in zip(p_values, (3, 2, 1), strict=True)), max))
    assert [c["p_value_holm"] for c in comparisons] == pytest.approx(expected)


def test_runs_are_ranked_by_the_primary_metric_and_the_verdict_stands_beside_each(task):
    add_run(task, "baseline", wrong=range(10))
    add_run(task, "worst", wrong=range(30))
    add_run(task, "best", wrong=[])
    add_run(task, "same", wrong=[*range(1, 10), 11])
    outcome = compare(task)
    verdicts = {name: row["verdict"] for name, row in outcome.summary["metrics"].items()}
    assert next(iter(verdicts)) == "best" and list(verdicts)[-1] == "worst"
    assert verdicts == {
        "best": "better", "baseline": "reference", "same": "not_distinguishable", "worst": "worse"}  # fmt: skip
    assert outcome.summary["counts"] == {"rows": N, "runs": 4}


def test_the_change_of_each_class_is_that_of_its_numbers_with_a_paired_interval(task):
    old, new = add_run(task, "baseline", wrong=range(12)), add_run(task, "exp", wrong=[1, 3])
    (versus,) = found(task)["versus"]
    for line in versus["per_class"]:
        assert line["n_rows"] == N // 2 and set(line["changes"]) == {"precision", "recall", "f1"}
        for name, change in line["changes"].items():
            before, after = old.metrics.per_class[line["label"]][name], new.metrics.per_class[line["label"]][name]
            assert (change["before"], change["after"]) == pytest.approx((before, after))
            assert change["delta"] == pytest.approx(after - before)
            assert change["ci_low"] <= change["delta"] <= change["ci_high"]


def test_the_change_of_a_slice_is_that_of_the_primary_metric_on_its_rows(task):
    old, new = add_run(task, "baseline", wrong=range(12)), add_run(task, "exp", wrong=[1, 3])
    (versus,) = found(task)["versus"]
    scored = [{s.value_of: s for s in r.metrics.slices if s.by == "length"} for r in (old, new)]
    changes = {item["value_of"]: item for item in versus["slices"] if item["by"] == "length"}
    assert list(changes) == list(scored[0]) and len(changes) >= 2
    for name, item in changes.items():
        values = [of_run[name].primary.value for of_run in scored]
        assert [item["change"]["before"], item["change"]["after"]] == pytest.approx(values, nan_ok=True)
        assert item["n_rows"] == scored[0][name].n_rows
        if values[0] is not None:
            assert item["change"]["delta"] == pytest.approx(values[1] - values[0])


def test_the_same_comparison_a_second_time_is_skipped_and_another_reference_is_not(task):
    add_run(task, "baseline", wrong=[0])
    add_run(task, "exp", wrong=[1])
    assert compare(task).summary["status"] == "ok"
    page = task.folder / "benchmarks/comparisons/validation.html"
    before = page.stat().st_mtime_ns
    assert compare(task).summary["status"] == "skipped" and page.stat().st_mtime_ns == before
    assert compare(task, "--against", "exp").summary["status"] == "ok"
    assert task.json("benchmarks/comparisons/validation.json")["reference"] == "exp"


def test_a_dry_run_shows_the_table_and_writes_nothing(task):
    add_run(task, "baseline", wrong=[0])
    add_run(task, "exp", wrong=[1])
    outcome = compare(task, "--dry-run")
    assert (outcome.code, outcome.summary["status"], outcome.summary["outputs"]) == (0, "skipped", {})
    assert set(outcome.summary["metrics"]) == {"baseline", "exp"}
    assert not (task.folder / "benchmarks/comparisons").exists()


# Which runs, and against which.


def test_all_runs_are_those_of_their_own_and_no_other_folder_of_benchmarks(task):
    for name in ("baseline", "exp", "exp.s43", "exp.limit9"):
        add_run(task, name)
    add_run(task, "model", folder="served/model", finished_at=None)
    for folder in ("served", "comparisons"):  # what lies directly in them is no run either
        add_run(task, "x", folder=folder, finished_at=None)
    assert set(compare(task).summary["metrics"]) == {"baseline", "exp"}
    assert set(compare(task).summary["metrics"]) == {"baseline", "exp"}  # what was written is no run
    assert set(compare(task, "exp.s43").summary["metrics"]) == {"baseline", "exp.s43"}  # asked for


def test_a_single_run_is_compared_with_its_parent(task):
    for name in ("baseline", "first"):
        add_run(task, name)
    add_run(task, "second", wrong=[0], parent="first")
    result = found(task, "second", name="validation.second-vs-first")
    assert (result["reference"], [item["run"] for item in result["versus"]]) == ("first", ["second"])
    result = found(task, "second", "--against", "baseline", name="validation.second-vs-baseline")
    assert result["reference"] == "baseline"
    assert found(task, "first", name="validation.first-vs-baseline")["reference"] == "baseline"  # it has no parent


def test_a_parent_that_was_never_evaluated_is_a_missing_prerequisite(task):
    add_run(task, "baseline")
    add_run(task, "exp", parent="gone")
    outcome = compare(task, "exp")
    assert refused(outcome) == (4, "not_evaluated") and "'gone'" in outcome.summary["errors"][0]["message"]


def test_without_a_baseline_the_run_that_finished_first_is_the_reference(task):
    add_run(task, "late", finished_at="2026-03-01T00:00:00+00:00")
    add_run(task, "early", finished_at="2026-02-01T00:00:00+00:00")
    add_run(task, "unknown", finished_at=None)
    assert found(task)["reference"] == "early"
    assert found(task, "late", "unknown", name="validation.unknown-vs-late")["reference"] == "late"
    add_run(task, "baseline", finished_at="2026-04-01T00:00:00+00:00")
    assert found(task)["reference"] == "baseline"


def test_a_baseline_on_the_same_rows_is_listed_but_not_tested(task):
    add_run(task, "baseline", wrong=range(9))
    add_run(task, "exp", wrong=[0])
    add_run(task, "tfidf_logreg", wrong=range(5), folder="baselines/tfidf_logreg", decoding="none", finished_at=None)
    add_run(task, "zero_shot", folder="baselines/zero_shot-m", decoding="generate", finished_at=None)
    rows = compare(task).summary["metrics"]
    assert list(rows) == ["exp", "baselines/tfidf_logreg", "baseline"]
    assert rows["baselines/tfidf_logreg"]["verdict"] == "baseline, not tested"
    assert "p_value_holm" not in rows["baselines/tfidf_logreg"]
    result = task.json("benchmarks/comparisons/validation.json")
    assert [item["run"] for item in result["versus"]] == ["exp"]
    assert result["versus"][0]["comparison"]["p_value"] == result["versus"][0]["comparison"]["p_value_holm"]


def test_a_run_that_decodes_otherwise_is_left_out_and_named(task):
    add_run(task, "baseline")
    add_run(task, "exp")
    add_run(task, "free", decoding="generate")
    outcome = compare(task)
    assert set(outcome.summary["metrics"]) == {"baseline", "exp"} and warned(outcome) == ["decoding_differs"]
    assert "free" in outcome.summary["warnings"][0]["message"]
    outcome = compare(task, "free")
    assert refused(outcome) == (4, "nothing_to_compare") and "decoding" in outcome.summary["errors"][0]["message"]


# What is refused.


def test_a_task_without_a_benchmark_is_told_what_to_evaluate(task):
    assert refused(compare(task)) == (4, "nothing_to_compare")
    add_run(task, "baseline")
    (task.folder / "configs" / "a.yaml").write_text("")
    (task.folder / "configs" / "trained.yaml").write_text("")
    shutil.copytree(task.folder / "models" / "baseline", task.folder / "models" / "trained")
    outcome = compare(task)
    assert refused(outcome) == (4, "nothing_to_compare")
    assert outcome.summary["next"] == "uv run python scripts/04_evaluate.py --config configs/trained.yaml"
    outcome = compare(task, "--split", "test")
    assert outcome.summary["next"].endswith(" --split test")


def test_the_script_of_a_task_with_nothing_in_it_refuses_in_a_process_of_its_own(tmp_path, task):
    outcome = task.spawn("compare_runs.py", "--task-dir", str(task.folder))
    assert refused(outcome) == (4, "nothing_to_compare") and "Traceback" not in outcome.stderr


def test_runs_that_were_not_evaluated_are_all_named_with_what_to_do(task):
    add_run(task, "baseline")
    add_run(task, "exp-01")
    outcome = compare(task, "exp-1", "../../etc", "--against", "baselines")
    assert outcome.code == 4 and [e["code"] for e in outcome.summary["errors"]] == ["not_evaluated"] * 3
    assert "did you mean 'exp-01'?" in outcome.summary["errors"][0]["message"]
    assert outcome.summary["next"] == "uv run python scripts/04_evaluate.py --config configs/exp-1.yaml"
    outcome = compare(task, "baseline", "exp-01", "--split", "test")
    assert outcome.code == 4 and outcome.summary["next"].endswith("configs/baseline.yaml --split test")


def test_a_benchmark_without_its_predictions_is_left_out_with_a_word(task):
    for name in ("baseline", "exp", "torn"):
        add_run(task, name)
    (task.folder / "benchmarks/torn/validation/predictions.jsonl").unlink()
    outcome = compare(task)
    assert outcome.code == 0 and warned(outcome) == ["benchmark_incomplete"]
    assert refused(compare(task, "torn")) == (4, "not_evaluated")


def test_a_run_against_itself_is_wrong_usage(task):
    add_run(task, "baseline")
    outcome = compare(task, "baseline", "--against", "baseline")
    assert refused(outcome) == (2, "usage") and "itself" in outcome.summary["errors"][0]["message"]


def test_a_comparison_on_test_says_what_that_does(task):
    add_run(task, "baseline", split="test")
    add_run(task, "exp", split="test")
    outcome = compare(task, "--split", "test")
    assert outcome.code == 0 and warned(outcome) == ["compared_on_test"]
    assert outcome.summary["outputs"]["page"] == "benchmarks/comparisons/test.html"


# Other data.


def convert_again(task: Task, texts: Sequence[str], golds: Sequence[str]) -> None:
    write_raw(task.folder, "validation", texts, golds)
    task.ok("02_convert_format.py", "--force")


def test_runs_on_different_rows_are_compared_on_those_that_both_answered(task):
    add_run(task, "baseline", wrong=[0, 1, 39])
    convert_again(task, [*TEXTS[:30], "全新的一列"], [*GOLDS[:30], "good"])
    add_run(task, "exp", wrong=[1, 30])
    outcome = compare(task)
    assert outcome.summary["counts"]["rows"] == 30 and warned(outcome) == ["rows_differ"]
    assert "30" in outcome.summary["warnings"][0]["message"] and "41" in outcome.summary["warnings"][0]["message"]
    assert [outcome.summary["metrics"]["exp"][k] for k in ("n_fixed", "n_broken")] == [1, 0]


def test_rows_are_found_again_by_their_text_wherever_they_stand(task):
    add_run(task, "baseline", wrong=[0, 1])
    convert_again(task, TEXTS[::-1], GOLDS[::-1])
    add_run(task, "exp", wrong=[N - 1])  # the first row of before
    outcome = compare(task)
    assert warned(outcome) == [] and outcome.summary["counts"]["rows"] == N
    assert [outcome.summary["metrics"]["exp"][k] for k in ("n_fixed", "n_broken")] == [1, 0]


def test_equal_texts_are_rows_of_their_own(task):
    texts, golds = [*TEXTS[:20], *TEXTS[:20]], [*GOLDS[:20], *GOLDS[:20]]
    convert_again(task, texts, golds)
    add_run(task, "baseline", wrong=[0, 20, 1])
    add_run(task, "exp", wrong=[20])
    outcome = compare(task)
    assert outcome.summary["counts"]["rows"] == N
    assert [outcome.summary["metrics"]["exp"][k] for k in ("n_fixed", "n_broken")] == [2, 0]


def test_a_copy_of_a_text_that_left_the_data_has_the_gold_of_the_one_that_stayed(task):
    convert_again(task, [*TEXTS, TEXTS[0]], [*GOLDS, GOLDS[0]])
    add_run(task, "baseline", wrong=[0, N])
    add_run(task, "exp")
    convert_again(task, TEXTS, [OTHER[GOLDS[0]], *GOLDS[1:]])
    outcome = compare(task)
    assert outcome.summary["counts"]["rows"] == N + 1 and warned(outcome) == ["gold_differs"]
    rows = task.json("benchmarks/comparisons/validation.json")["versus"][0]["rows"]
    assert [(row["kind"], row["text"], row["gold"]) for row in rows] == [("broken", TEXTS[0], "bad")] * 2


def test_a_corrected_label_counts_as_it_is_today(task):
    add_run(task, "baseline", wrong=[0])
    convert_again(task, TEXTS, [OTHER[GOLDS[0]], *GOLDS[1:]])
    add_run(task, "exp", wrong=[0, 1])
    outcome = compare(task)
    assert warned(outcome) == ["gold_differs"] and "1 of 40" in outcome.summary["warnings"][0]["message"]
    (versus,) = task.json("benchmarks/comparisons/validation.json")["versus"]
    assert (versus["n_fixed"], versus["n_broken"]) == (0, 2)  # what was wrong in row 0 is right by now
    assert versus["against_value"]["value"] == 1.0


def test_a_row_that_left_the_data_keeps_the_gold_of_the_newest_run_and_has_no_text(task):
    add_run(task, "baseline", wrong=[39])
    add_run(task, "exp", wrong=[38], finished_at="2026-05-01T00:00:00+00:00")
    convert_again(task, TEXTS[:38], GOLDS[:38])
    outcome = compare(task)
    assert outcome.summary["counts"]["rows"] == N and warned(outcome) == []
    rows = task.json("benchmarks/comparisons/validation.json")["versus"][0]["rows"]
    assert [(row["kind"], row["text"], row["gold"]) for row in rows] == [
        ("broken", None, "good"), ("fixed", None, "bad")]  # fmt: skip
    assert COMPARISON["en"]["no_text"] in page_of(task).text


def without_text_keys(task: Task, run: str) -> None:
    file = task.folder / "benchmarks" / run / "validation" / "predictions.jsonl"
    write_jsonl(file, [{k: v for k, v in row.items() if k != "text_key"} for row in read_jsonl(file)])


def test_files_without_text_keys_are_matched_by_id_on_the_very_same_rows(task):
    add_run(task, "baseline", wrong=[0, 1])
    add_run(task, "exp", wrong=[1])
    without_text_keys(task, "baseline")
    assert compare(task).summary["metrics"]["exp"]["n_fixed"] == 1  # the split is still the same
    convert_again(task, TEXTS[:30], GOLDS[:30])
    assert compare(task).summary["counts"]["rows"] == N  # exp knows the texts
    without_text_keys(task, "exp")
    outcome = compare(task)
    assert outcome.summary["counts"]["rows"] == N and outcome.summary["metrics"]["exp"]["n_fixed"] == 1
    add_run(task, "new")
    assert refused(compare(task)) == (3, "no_common_rows")  # ids alone say nothing about other rows


def test_runs_without_a_row_in_common_are_refused(task):
    add_run(task, "baseline")
    convert_again(task, [f"別的 {text}" for text in TEXTS], GOLDS)
    add_run(task, "exp")
    outcome = compare(task)
    assert refused(outcome) == (3, "no_common_rows")
    assert "0 of its 40" in outcome.summary["errors"][0]["message"]


def test_a_gold_label_that_the_definition_no_longer_has_is_refused(task):
    add_run(task, "baseline")
    add_run(task, "exp")
    convert_again(task, TEXTS[:39], GOLDS[:39])
    write_raw(task.folder, "validation", TEXTS[::2], GOLDS[::2])
    write_raw(task.folder, "train", ["訓練 1", "訓練 2"], ["good", "ugly"])
    write_raw(task.folder, "test", ["考 1", "考 2"], ["good", "ugly"])
    task.edit_definition(task={"labels": {"good": "利多", "ugly": "醜"}})
    task.ok("02_convert_format.py", "--force")
    outcome = compare(task)
    assert refused(outcome) == (3, "unknown_gold") and "'bad'" in outcome.summary["errors"][0]["message"]


# Seeds.


def add_seeds(task: Task, name: str, wrong: Sequence[Sequence[int]]) -> None:
    """A run evaluated with --seeds: its further seeds have folders of their own."""
    results = []
    for number, of_seed in enumerate(wrong):
        results.append(add_run(task, name if not number else f"{name}.s{42 + number}", wrong=of_seed))
    definition = schema.load_definition(task.folder / "task_definition.yaml")
    seeds = list(range(42, 42 + len(wrong)))
    combined = evaluation.combined(definition, results, seeds, "several")
    evaluation.save(task.folder / "benchmarks" / name / "validation", combined)
    assert isinstance(combined.metrics.seeds, Seeds)


def test_of_several_seeds_the_mean_is_compared_and_their_spread_is_shown(task):
    add_run(task, "baseline", wrong=range(6))
    add_seeds(task, "exp", [[0], [0, 1, 2], [0, 1, 2, 3, 4]])
    outcome = compare(task)
    metrics = read_json(task.folder / "benchmarks/exp/validation/metrics.json")
    row = outcome.summary["metrics"]["exp"]
    assert row["macro_f1"] == pytest.approx(metrics["primary"]["value"])
    assert (row["n_seeds"], row["sd"]) == (3, pytest.approx(metrics["seeds"]["sd"]["macro_f1"]))
    assert warned(outcome) == []  # 0.07 apart, sd 0.05
    assert "sd" not in outcome.summary["metrics"]["baseline"]
    assert row["n_fixed"] == 5  # of the first seed
    assert COMPARISON["en"]["first_seed"] in page_of(task).text and "3 seeds" in page_of(task).text


def test_a_difference_within_the_spread_of_seeds_is_told(task):
    add_run(task, "baseline", wrong=[0, 1, 2])
    add_seeds(task, "exp", [[], range(6)])
    outcome = compare(task)
    assert warned(outcome) == ["within_seed_spread"]
    assert "exp minus baseline" in outcome.summary["warnings"][0]["message"]


# Configs.


def test_differences_of_config_and_data_and_the_hypothesis_are_shown(task):
    add_run(task, "baseline")
    convert_again(task, TEXTS[:39], GOLDS[:39])
    add_run(task, "exp", hypothesis="a larger step helps", parent="baseline", training={"learning_rate": 3e-4})
    (versus,) = found(task)["versus"]
    assert versus["hypothesis"] == "a larger step helps"
    assert [line.split(":")[0] for line in versus["config_differences"]] == ["training.learning_rate"]
    assert [line.split(":")[0] for line in versus["data_differences"]] == ["processed.validation"]
    text = page_of(task).text
    assert "a larger step helps" in text and versus["config_differences"][0] in text


def test_configs_that_are_gone_are_not_called_the_same(task):
    add_run(task, "baseline")
    add_run(task, "exp")
    assert found(task)["versus"][0]["config_differences"] == []
    (task.folder / "configs/exp.yaml").unlink()
    assert found(task)["versus"][0]["config_differences"] is None
    assert COMPARISON["en"]["no_difference"] not in page_of(task).text


# Names of files.


def test_a_name_that_is_too_long_for_a_file_ends_in_a_hash(tmp_path):
    def named(*names: str) -> str:
        items = [type("V", (), {"run": name})() for name in names[:-1]]
        result = type("C", (), {"split": "validation", "versus": items, "reference": names[-1]})()
        return comparison_page.files(TaskPaths(tmp_path), result, all_runs=False).page.name

    assert named("b", "a", "baseline") == "validation.a-vs-b-vs-baseline.html"
    long = [named(*(f"實驗{i}" * 9 for i in range(n))) for n in (3, 4)]
    assert len(set(long)) == 2 and all(len(name.encode()) < 140 for name in long)


# The page.


def page_of(task: Task, name: str = "validation") -> Page:
    return Page((task.folder / f"benchmarks/comparisons/{name}.html").read_text(encoding="utf-8"))


def everything(task: Task) -> None:
    """Runs of every verdict, a baseline, several seeds and warnings."""
    add_run(task, "baseline", wrong=range(10), decoding="score")
    add_run(task, "best", wrong=[12], hypothesis="more rows of the rare class", training={"learning_rate": 1e-4})
    add_run(task, "worst", [None] * 5 + ["bad"] * (N - 5))
    add_seeds(task, "same", [range(1, 11), range(5, 14)])
    add_run(task, "majority", ["good"] * N, folder="baselines/majority", decoding="none", finished_at=None)
    add_run(task, "free", decoding="generate")


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


@pytest.mark.parametrize("language", ["en", "zh-TW"])
def test_every_number_of_the_table_on_the_page_is_that_of_the_json(task, language):
    task.edit_definition(language=language)
    task.ok("02_convert_format.py")
    everything(task)
    result, page = found(task), (task.folder / "benchmarks/comparisons/validation.html").read_text(encoding="utf-8")
    table = page[page.index('id="ranked"') : page.index("</tbody>", page.index('id="ranked"'))]
    shown = [Page(row).text for row in table[table.index("<tbody>") :].split("<tr")[1:]]
    assert len(shown) == len(result["ranking"]) == 5
    words, against = COMPARISON[language], {item["run"]: item for item in result["versus"]}
    for text, standing in zip(shown, result["ranking"], strict=True):
        value, item = standing["metrics"]["macro_f1"], against.get(standing["name"])
        numbers = [f"{value['value']:.3f}", f"{value['ci_low']:.3f}", f"{value['ci_high']:.3f}"]
        if standing["sd"] is not None:
            numbers += [f"{standing['sd']:.3f}", str(standing["n_seeds"])]
        if item:
            c = item["comparison"]
            numbers += [signed(c[name]) for name in ("delta", "ci_low", "ci_high")]
            numbers += ["0.001" if c["p_value_holm"] < 0.001 else f"{c['p_value_holm']:.3f}"]
            numbers += [f"+{item['n_fixed']}", f"−{item['n_broken']}"]
            assert words[c["verdict"]] in text
        assert re.findall(r"[+−]?\d+(?:\.\d+)?", text.split(">", 1)[-1].replace(standing["name"], "")) == numbers, text
    assert page.count("None") == 0 and "nan" not in Page(page).text.casefold()
    assert f'<html lang="{language}">' in page


def test_an_english_page_of_english_data_holds_no_chinese(tmp_path):
    texts = [f"company {i} {'grew' if i % 2 == 0 else 'lost money'}" for i in range(N)]
    task = make(tmp_path / "task", texts, GOLDS, "en", {"good": "good", "bad": "bad"})
    everything(task)
    found(task)
    page = (task.folder / "benchmarks/comparisons/validation.html").read_text(encoding="utf-8")
    assert not re.search(r"[\u3000-\u9fff\uff00-\uffef]", Page(page).text)


def test_classes_slices_and_rows_stand_on_the_page_as_in_the_json(task):
    everything(task)
    result, text = found(task), page_of(task).text
    for versus in result["versus"]:
        for line in versus["per_class"]:
            for change in line["changes"].values():
                if change["delta"] is not None:
                    assert f"{change['before']:.3f} → {change['after']:.3f}" in text
                    bounds = f"[{signed(change['ci_low'])}, {signed(change['ci_high'])}]"
                    assert f"{signed(change['delta'])} {bounds}" in text
        for item in versus["slices"]:
            assert item["value_of"] in text or item["by"] == "script"
        assert all(row["text"] in text and row["id"] in text for row in versus["rows"])
    assert all(warning in text for warning in [w["message"] for w in result["warnings"]])


def test_classes_come_with_the_largest_change_first(tmp_path):
    task = many_labels(tmp_path / "task")
    result, page = found(task), (task.folder / "benchmarks/comparisons/validation.html").read_text(encoding="utf-8")
    part = page[page.index('id="run-1"') : page.index('id="rows-changed"')]
    shown = re.findall(r'<th scope="row">(topic-\d\d)', part)
    changes = {line["label"]: abs(line["changes"]["f1"]["delta"] or 0) for line in result["versus"][0]["per_class"]}
    assert len(shown) == 50 and shown == sorted(shown, key=lambda label: -changes[label])
    assert changes[shown[0]] > changes[shown[-1]]


def many_labels(folder: Path, n_runs: int = 1, language: str = "en") -> Task:
    """50 labels, four rows each."""
    labels = {f"topic-{i:02d}": f"很長的主題名稱{i}" for i in range(50)}
    golds = [label for label in labels for _ in range(4)]
    task = make(folder, [f"第{i}則新聞講了一件事" for i in range(200)], golds, language, labels)
    names = list(labels)
    for run in range(n_runs + 1):
        answers = [
            names[(names.index(gold) + (i * (run + 3)) % 7 // 5) % 50] if i % 4 <= run % 4 else gold
            for i, gold in enumerate(golds)
        ]
        add_run(task, f"exp-{run:02d}-with-a-rather-long-name" if run else "baseline", answers)
    return task


def test_the_axes_hold_every_value_and_have_round_ticks(task):
    from tasklib.iterating.comparison import Change
    from tasklib.scoring.metrics import Interval

    def interval(low: float, value: float, high: float) -> Interval:
        return Interval(value=value, ci_low=low, ci_high=high)

    cases = [((0.71, 0.72, 0.74),), ((0.0, 0.5, 1.0),), ((0.998, 1.0, 1.0),), ((-0.2, 0.1, 0.9),), ((-1, 0, 1),)]
    for case in cases:
        low, high = comparison_page.value_axis([interval(*numbers) for numbers in case])
        assert low <= case[0][0] and case[0][2] <= high + 1e-9
        step = (high - low) / 4
        assert round(low / step, 6) == round(low / step) and f"{step:g}" in {f"{s:g}" for s in comparison_page._STEPS}
    assert comparison_page.value_axis([interval(0.58, 0.9, 1.0)]) == pytest.approx((0.2, 1.0))  # not to 1.2
    assert comparison_page.value_axis([]) == (0.0, 1.0)
    undefined = Change(None, None, None, None, None)
    assert comparison_page.change_axis([undefined]) == (-1.0, 1.0)
    assert comparison_page.change_axis([Change(0.5, 0.4, -0.1, -0.3, 0.05)]) == (-0.3, 0.3)
    assert comparison_page.change_axis([Change(0.5, 0.5, 0.0, 0.0, 0.0)]) == (-1.0, 1.0)


def test_runs_without_a_row_that_changed_say_so(task):
    add_run(task, "baseline", wrong=[3])
    add_run(task, "exp", wrong=[3])
    (versus,) = found(task)["versus"]
    assert versus["comparison"]["verdict"] == "not_distinguishable" and versus["comparison"]["delta"] == 0
    page = (task.folder / "benchmarks/comparisons/validation.html").read_text(encoding="utf-8")
    assert COMPARISON["en"]["no_rows"] in page and 'id="filters"' not in page


def test_an_undefined_metric_is_named_and_never_nan(task):
    definition = schema.load_definition(task.folder / "task_definition.yaml")
    assert definition.primary_metric == "macro_f1"
    task.edit_definition(evaluation={"primary_metric": "macro_recall"})
    add_run(task, "baseline", [None] * N)
    add_run(task, "exp", [None] * N)
    result, text = found(task), page_of(task).text
    assert result["ranking"][0]["metrics"]["mcc"]["value"] is None
    assert "nan" not in text.casefold() and "None" not in text and "unparsed" not in text  # no row changed


def test_of_many_changed_rows_the_page_shows_some_and_names_the_file_with_all(task, monkeypatch):
    monkeypatch.setattr(comparison_page, "MAX_ROWS", 8)
    add_run(task, "baseline", wrong=range(10))
    add_run(task, "exp", wrong=range(10, 16))
    assert [found(task)["versus"][0][name] for name in ("n_fixed", "n_broken")] == [10, 6]
    page = (task.folder / "benchmarks/comparisons/validation.html").read_text(encoding="utf-8")
    assert page.count("<tr data-run") == 8
    assert COMPARISON["en"]["more_rows"].format(shown=4, file="validation.json") in page


def hostile_task(folder: Path, texts: Sequence[str], labels: dict[str, str], run: str, hypothesis: str) -> str:
    """A page on which every text that comes from data or configs is one of `texts`."""
    first, second = labels
    golds = [first] * len(texts) + [second] * 12
    task = make(folder, [*texts, *(f"普通 {i}" for i in range(12))], golds, "en", labels)
    add_run(task, "baseline", [second] * len(texts) + [first] * 12)
    add_run(task, run, golds, hypothesis=hypothesis)
    task.ok("compare_runs.py")
    return (task.folder / "benchmarks/comparisons/validation.html").read_text(encoding="utf-8")


def test_hostile_texts_labels_and_names_change_nothing_but_text(tmp_path):
    page = hostile_task(
        tmp_path / "a", HOSTILE, {HOSTILE[3]: "</option>&lt;", "<i>": "</td>"}, "<b onclick='x'>", HOSTILE[0]
    )
    same_length = [str(i).ljust(len(text), "x") for i, text in enumerate(HOSTILE)]
    harmless = hostile_task(tmp_path / "b", same_length, {"a": "1", "b": "2"}, "exp", "h")
    parsed, reference = Page(page), Page(harmless)
    assert parsed.elements == reference.elements
    assert parsed.scripts == reference.scripts and len(parsed.scripts) == 1
    assert [text for text in HOSTILE if " ".join(text.split()) not in parsed.text] == []


def test_the_page_loads_nothing_from_anywhere(task):
    everything(task)
    task.ok("compare_runs.py")
    page = (task.folder / "benchmarks/comparisons/validation.html").read_text(encoding="utf-8")
    parsed = Page(page)
    loading = {"src", "srcset", "href", "xlink:href", "action", "formaction", "poster", "data", "background"}
    assert {name for name, value in parsed.attributes if not str(value).startswith("#")} & loading == set()
    assert {"link", "iframe", "object", "embed", "base", "img"} & {tag for tag, _ in parsed.elements} == set()
    assert not re.search(r"https?:|//[a-z]|url\(|@import", page)
    policies = [value for name, value in parsed.attributes if name == "content" and "default-src" in value]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"]


DRIVE = """<script>
addEventListener("load", async () => {
  const result = { all: seen(), texts: rows().map((row) => row.querySelector(".text").textContent) };
  enter("kind", "broken");
  result.broken = seen();
  enter("run", "2");
  result.both = seen();
  await reset();
  result.reset = seen();
  enter("run", "1");
  result.run = seen();
  await reset();
  enter("search", "</Ｓcript");
  result.searched = seen();
  enter("search", "no such text");
  result.none = [...seen(), get("empty").hidden];
  result.open = document.querySelectorAll("details[open]").length;
  const inside = (part) => Array.from(document.querySelectorAll(part)).every((item) => {
    const box = item.getBoundingClientRect(), card = item.closest("section").getBoundingClientRect();
    return box.width === 0 || (box.left >= card.left - 1 && box.right <= card.right + 1);
  });
  result.inside = inside("#ranked td, #ranked th, .moves.slices td, .moves.slices th, .pill");
  finish(result);
});
</script>"""


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_the_filters_work_in_a_real_browser_opened_from_a_file(tmp_path, width):
    texts = [*HOSTILE, "無斷點" + "x" * 3000, *(f"第 {i} 列" for i in range(23))]
    task = make(tmp_path / "任務 1", texts, GOLDS[: len(texts)], "zh-TW")
    add_run(task, "baseline", wrong=range(8))
    add_run(task, "exp", wrong=[8, 9, 10], hypothesis=HOSTILE[0])
    add_run(task, "r" * 60, wrong=[7, 11])
    result = found(task)
    counts = {item["run"]: (item["n_fixed"], item["n_broken"]) for item in result["versus"]}
    assert counts == {"exp": (8, 3), "r" * 60: (7, 1)}
    page = (task.folder / "benchmarks/comparisons/validation.html").read_text(encoding="utf-8")
    seen = driven(tmp_path, page, DRIVE, width)
    assert seen["problems"] == [] and seen["hacked"] is None and seen["requests"] == []
    assert seen["all"] == seen["reset"] == [19, 19]
    assert set(HOSTILE) <= set(seen["texts"])
    second = result["versus"][1]["run"]
    assert seen["broken"] == [4, 4] and seen["both"] == [counts[second][1]] * 2
    assert seen["run"] == [sum(counts[result["versus"][0]["run"]])] * 2
    assert seen["searched"] == [2, 2] and seen["none"] == [0, 0, False]
    assert seen["open"] == 4 and seen["inside"]
    assert seen["width"] == width and not seen["too_wide"]


@pytest.fixture(scope="module")
def many_runs(tmp_path_factory) -> str:
    """The page of twelve runs and fifty labels."""
    task = many_labels(tmp_path_factory.mktemp("many") / "task", n_runs=11, language="zh-TW")
    result = found(task)
    assert len(result["ranking"]) == 12 and len(result["versus"]) == 11
    return (task.folder / "benchmarks/comparisons/validation.html").read_text(encoding="utf-8")


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_twelve_runs_and_fifty_labels_fit_the_page(tmp_path, many_runs, width):
    assert len(many_runs) < 3_000_000
    opened = "for (const part of document.querySelectorAll('details')) part.open = true; result.open"
    seen = driven(tmp_path, many_runs, DRIVE.replace("result.open", opened), width)
    assert seen["problems"] == [] and seen["all"][0] == many_runs.count("<tr data-run")
    assert seen["open"] == 22 and seen["inside"] and seen["width"] == width and not seen["too_wide"]


# The library, as the ledger uses it.


def test_the_library_gives_each_run_against_the_reference(task):
    add_run(task, "baseline", wrong=range(9))
    add_run(task, "exp", wrong=[0])
    paths = TaskPaths(task.folder)
    definition = schema.load_definition(paths.definition)
    result = comparison.compare(paths, definition, ["exp"], against=None, split="validation")
    (versus,) = result.versus
    assert (versus.run, versus.against, versus.split, versus.metric) == ("exp", "baseline", "validation", "macro_f1")
    assert versus.comparison.delta == pytest.approx(versus.value.value - versus.against_value.value)
    assert (versus.n_rows, versus.n_fixed, versus.n_broken) == (N, 8, 0)
    with pytest.raises(AttributeError):
        versus.run = "other"
    json.dumps(comparison_page.to_dict(result), allow_nan=False)


def test_differences_of_classes_are_paired(task):
    definition = schema.load_definition(task.folder / "task_definition.yaml")
    module, options = definition.task_type, definition.task
    same = [module.count(GOLDS, [OTHER[g] if i % 5 == 0 else g for i, g in enumerate(GOLDS)], options)]
    table = bootstrap.class_differences(same, same, module, options)
    assert all(
        i.model_dump() == {"value": 0, "ci_low": 0, "ci_high": 0} for row in table.values() for i in row.values()
    )


# Every task type, closed or open.


@pytest.mark.parametrize("language", ["zh-TW", "en"])
@pytest.mark.parametrize("name", every_type.NAMES)
def test_runs_of_any_type_are_compared_row_by_row(tmp_path, monkeypatch, name, language):
    """One run answers every example with the answer of another, the other one answers all of them right."""
    made, paths = every_type.definition_of(name, language=language), TaskPaths(tmp_path)
    rows = every_type.processed(made)
    monkeypatch.setattr(conversion, "load_split", lambda paths, split: rows)
    data = evaluation.Rows("validation", rows, [])
    write_text(paths.definition, yaml.safe_dump(made.model_dump(mode="json"), allow_unicode=True))
    for run, answers in (("before", every_type.wrong(made)), ("after", every_type.right(made))):
        decoding = made.evaluation.decoding
        result = evaluation.score(made, data, answers, run=run, decoding=decoding, identity=run)
        evaluation.save(paths.benchmark(run, "validation"), result)
        record = runs.RunRecord(
            status="finished", argv=[], config={}, identity={"sha256": run, "parts": {}}, inputs={}, code={},
            environment={}, hardware={}, seed=42, started_at="2026-01-01", finished_at="2026-01-01",
        )  # fmt: skip
        runs.write_record(paths.run(run), record)
    n_wrong = sum(p.prediction != p.gold for p in evaluation.read(paths.benchmark("before", "validation")).predictions)
    compared = comparison.compare(paths, made, [], against="before", split="validation")
    (versus,) = compared.versus
    assert 0 < versus.n_fixed <= n_wrong and versus.n_broken == 0 and versus.comparison.delta > 0
    target = comparison_page.files(paths, compared, all_runs=True)
    assert comparison_page.write(target, made, compared)
    page = Page(target.page.read_text(encoding="utf-8")).text
    assert "None" not in page and "nan" not in page.casefold()
    if made.task_type.label_set(made.task) is None:
        changes = [row.score_after - row.score_before for row in versus.rows]
        assert changes == sorted(changes, reverse=True) and min(changes) > 0
        assert COMPARISON[language]["open"]["rows"] in page
