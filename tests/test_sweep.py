"""sweep.py: the declared space, what it refuses, a study that survives anything, and real trials on the tiny model."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from tasklib import schema
from tasklib.files import read_json, write_json
from tasklib.iterating import search, search_space, trial_run
from tasklib.iterating.search_space import Dimension
from tasklib.paths import TaskPaths
from tasklib.scoring.metrics import Primary
from tasklib.summary import TaskError
from tasklib.training import runs
from trainable_task import FULL, Task, environment, make_task

RATE = "training.learning_rate"
RATES = {RATE: {"low": 1e-5, "high": 1e-2, "log": True}}
RANKS = {"adapter.r": {"choices": [2, 4, 8]}}


# ---- the space -------------------------------------------------------------------------------------------------------


def diagnosis(*searches: dict, options: tuple[dict, ...] = ()) -> dict:
    return {
        "findings": [{"code": f"c{n}", "search": spec} for n, spec in enumerate(searches)],
        "options": [{"message": "m", "command": "c", "search": spec} for spec in options],
    }


def test_the_space_is_what_the_findings_name_and_the_first_of_them_wins():
    found = search_space.named(diagnosis(RATES, {RATE: {"choices": [1]}, **RANKS}, options=({"x": {"choices": [1]}},)))
    assert list(found) == [RATE, "adapter.r"]
    assert (found[RATE].low, found[RATE].high, found[RATE].log) == (1e-5, 1e-2, True)
    assert found["adapter.r"].choices == (2, 4, 8)


def test_options_are_searched_only_where_nothing_was_found():
    assert list(search_space.named(diagnosis(options=(RANKS,)))) == ["adapter.r"]
    assert search_space.named(diagnosis({}, options=(RANKS,))) == {}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"{RATE}=1e-4..1e-3", Dimension(RATE, 1e-4, 1e-3, log=True)),  # logarithmic as the diagnosis has it
        (f"{RATE}=1..2", Dimension(RATE, 1.0, 2.0, log=True)),  # a fraction stays one
        (f"{RATE}=1e-4, 2e-4", Dimension(RATE, choices=(1e-4, 2e-4))),
        ("adapter.r=4..16", Dimension("adapter.r", 4, 16)),
        ("adapter.r=4..16:log", Dimension("adapter.r", 4, 16, log=True)),
        ("adapter.r=16", Dimension("adapter.r", choices=(16,))),
    ],
)
def test_a_flag_takes_the_place_of_a_range(text, wanted):
    made = search_space.narrowed(search_space.named(diagnosis({**RATES, **RANKS})), [text])[wanted.key]
    assert made == wanted and type(made.low) is type(wanted.low)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("adapter.q=1,2", "does not name 'adapter.q'"),
        (f"{RATE}=1e-3..1e-4", "0.001 is not below the upper end 0.0001"),
        (f"{RATE}=0..1", "starts above 0, got 0"),
        (f"{RATE}=low..high", "two numbers, got 'low' and 'high'"),
        (f"{RATE}=..", "two numbers"),
        ("adapter.r=8,8", "named twice in 8, 8"),
    ],
)
def test_a_flag_that_means_nothing_is_refused_with_what_it_got(text, words):
    with pytest.raises(TaskError, match=words) as caught:
        search_space.narrowed(search_space.named(diagnosis({**RATES, **RANKS})), [text])
    assert (caught.value.exit_code == 2 and RATE in caught.value.problems[0].hint) or "adapter.r" in text


def test_integers_stay_integers_and_fractions_keep_three_digits_inside_their_range():
    assert Dimension("adapter.r", 2, 64).value(7) == 7
    assert Dimension(RATE, 1e-5, 1e-2).value(0.000123456) == 0.000123
    assert Dimension(RATE, 0.0012345, 0.01).value(0.00123451) == 0.0012345
    choice = Dimension("imbalance.label_weights", choices=("balanced", None))
    assert [choice.value(choice.sampled(value)) for value in choice.choices] == ["balanced", None]


def test_every_end_of_every_key_stands_in_a_corner():
    corners = list(search_space.corners(search_space.named(diagnosis({**RATES, **RANKS}))))
    assert {corner[RATE] for corner in corners} == {1e-5, 1e-2}
    assert {corner["adapter.r"] for corner in corners} == {2, 4, 8}


@pytest.mark.parametrize(
    ("adapter", "values", "wanted"),
    [
        ({"r": 4, "lora_alpha": 8}, {"adapter.r": 16}, "adapter.lora_alpha=32"),
        ({"r": 4, "lora_alpha": 8}, {"adapter.r": 16, "adapter.lora_alpha": 5}, "adapter.lora_alpha=5"),
        ({"r": 4, "lora_alpha": 8, "use_rslora": True}, {"adapter.r": 16}, None),
        ({"r": 4, "lora_alpha": 8}, {RATE: 1e-4}, None),
    ],
)
def test_lora_alpha_keeps_its_ratio_to_a_searched_rank(adapter, values, wanted):
    config = schema.RunConfig(schema_version=1, base_model={"id": "m"}, adapter={"type": "lora", **adapter})
    found = [text for text in search_space.overrides(values, config) if "lora_alpha" in text]
    assert found == ([wanted] if wanted else [])


# ---- what is refused before anything starts --------------------------------------------------------------------------


@pytest.fixture
def failed(tmp_path) -> Task:
    """A task whose baseline diverged, so that no score is needed, with a diagnosis."""
    task = make_task(tmp_path / "task", "some/model", n_rows=30)
    write_run(task, "failed")
    write_diagnosis(task, RATES)
    return task


def paths_of(task: Task) -> TaskPaths:
    return TaskPaths(task.folder.resolve())


def write_run(task: Task, status: str) -> None:
    paths = paths_of(task)
    config, definition = (
        schema.load_config(task.folder / "configs/baseline.yaml"),
        schema.load_definition(paths.definition),
    )
    record = runs.RunRecord(
        status=status, argv=[], config=config.model_dump(mode="json"), inputs={}, code={}, environment={}, hardware={},
        identity=runs.identity(config, definition, paths), seed=42, started_at="2026-01-01T00:00:00+00:00",
        finished_at="2026-01-01T00:10:00+00:00",
    )  # fmt: skip
    runs.write_record(paths.run("baseline"), record)


def write_diagnosis(task: Task, *searches: dict) -> None:
    identity = task.json("models/baseline/run.json")["identity"]["sha256"]
    found = {"schema_version": 1, "run": "baseline", "split": "validation", "identity": identity}
    write_json(task.folder / "benchmarks/baseline/diagnosis.json", found | diagnosis(*searches))


def refused(task: Task, *flags: str) -> tuple[int, str, dict]:
    outcome = task.run("sweep.py", "--name", "lr", *flags)
    assert "Traceback" not in outcome.stderr and not (task.folder / "models/lr.sweep").exists()
    return outcome.code, outcome.summary["errors"][0]["code"], outcome.summary


def test_a_dry_run_shows_space_and_time_and_writes_nothing(failed):
    before = sorted(failed.folder.rglob("*"))
    summary = failed.ok("sweep.py", "--name", "lr", "--trials", "3", "--minutes", "15", "--dry-run")
    assert summary["outputs"] == {f"search {RATE}": "1e-05 to 0.01 (log)"}
    assert summary["counts"] == {"trials_done": 0, "trials_to_come": 2}  # 10 minutes each, and one that has begun
    assert (summary["metrics"]["one_trial_s"], summary["metrics"]["all_trials_s"]) == (600, 1200)
    assert "--extra sweep" in summary["next"] and "--dry-run" not in summary["next"]
    assert sorted(failed.folder.rglob("*")) == before


def test_without_a_budget_there_are_eight_trials(failed):
    assert failed.ok("sweep.py", "--name", "lr", "--dry-run")["counts"]["trials_to_come"] == 8


def test_a_search_needs_a_name(failed):
    outcome = failed.run("sweep.py")
    assert (outcome.code, outcome.summary["errors"][0]["message"]) == (2, "--name must be given")


def test_without_a_diagnosis_the_next_command_makes_one(failed):
    (failed.folder / "benchmarks/baseline/diagnosis.json").unlink()
    code, problem, summary = refused(failed)
    assert (code, problem) == (4, "no_diagnosis")
    assert summary["next"] == "uv run python scripts/diagnose.py --config configs/baseline.yaml"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"identity": "another"}, "diagnosis_outdated"),
        ({"schema_version": 2}, "diagnosis_outdated"),
        ({"findings": [{"code": "label_noise", "search": {}, "command": "do this"}]}, "nothing_to_search"),
        ({"findings": [{"code": "x", "search": {RATE: {"low": 1, "high": 0}}}]}, "diagnosis_damaged"),
        ({"findings": 3}, "diagnosis_damaged"),
    ],
)
def test_a_diagnosis_that_says_nothing_about_this_run_is_refused(failed, change, problem):
    path = failed.folder / "benchmarks/baseline/diagnosis.json"
    write_json(path, read_json(path) | change)
    assert refused(failed)[:2] == (4, problem)


def test_a_parent_that_was_never_trained_or_has_no_score_is_a_missing_prerequisite(failed):
    write_run(failed, "finished")
    assert refused(failed)[:2] == (4, "not_evaluated")
    write_run(failed, "stopped")
    assert refused(failed)[:2] == (4, "run_not_finished")
    shutil.rmtree(failed.folder / "models")
    assert refused(failed)[:2] == (4, "run_not_finished")
    assert refused(failed, "--from", "baselin")[:2] == (4, "no_config")


def test_a_parent_whose_config_was_edited_since_is_refused(failed):
    failed.write_config("baseline", training={"num_train_epochs": 2, "learning_rate": 1e-3})
    assert refused(failed)[:2] == (2, "identity_differs")


def test_every_illegal_value_of_the_space_is_named_before_anything_starts(failed):
    write_diagnosis(failed, {"adapter.r": {"choices": [8, "many"]}, RATE: {"low": -1, "high": 1}})
    code, _, summary = refused(failed)
    assert code == 2 and {problem["field"] for problem in summary["errors"]} == {"adapter.r", RATE}


@pytest.mark.parametrize("name", ["baseline", "Lr", "lr.s3", "baselines"])
def test_a_name_that_is_taken_or_illegal_is_refused(failed, name):
    outcome = failed.run("sweep.py", "--name", name)
    assert (outcome.code, outcome.summary["errors"][0]["field"]) == (2, "--name")


def test_runs_of_an_older_search_of_this_name_are_never_taken_for_trials(failed):
    (failed.folder / "models/lr.t2").mkdir()
    code, _, summary = refused(failed)
    assert code == 2 and "lr.t2" in summary["errors"][0]["message"]


def test_without_optuna_the_extra_is_named(failed, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, problem, summary = refused(failed)
    assert (code, problem) == (4, "package_missing")
    assert "uv run --extra sweep python scripts/sweep.py" in summary["errors"][0]["hint"]


# ---- the study -------------------------------------------------------------------------------------------------------

Script = dict[str, float | str]  # run -> its score, or why it failed


@pytest.fixture
def scripted(failed, monkeypatch):
    """Trials that score as they are told: the score of a rate is its place in a table, others fail."""

    def scores(answer) -> list[str]:
        trained: list[str] = []

        def train_and_score(scripts, run, config):
            trained.append(run)
            scripts.tick(2.0)
            value = answer(run, yaml.safe_load(config.read_text()))
            if isinstance(value, BaseException):
                raise value
            known[run] = value
            return value if isinstance(value, str) else None

        def score_of(declared, run):
            return Primary(name="macro_f1", value=known[run], ci_low=0.0, ci_high=1.0)

        known: dict[str, float | str] = {}
        monkeypatch.setattr(trial_run, "train_and_score", train_and_score)
        monkeypatch.setattr(search, "score_of", score_of)
        monkeypatch.setattr("tasklib.iterating.promotion.promote", lambda *parts: False)
        return trained

    return failed, scores


def values_of(summary: dict) -> dict[str, float]:
    return {run: row[RATE] for run, row in summary["metrics"].items() if run != "baseline"}


def test_the_budget_counts_the_trials_of_all_calls_and_the_same_command_is_then_skipped(scripted):
    task, scores = scripted
    trained = scores(lambda run, config: 0.5)
    task.ok("sweep.py", "--name", "lr", "--trials", "2")
    assert trained == ["lr.t1", "lr.t2"]
    summary = task.ok("sweep.py", "--name", "lr", "--trials", "3")
    assert trained == ["lr.t1", "lr.t2", "lr.t3"] and summary["status"] == "ok"
    again = task.ok("sweep.py", "--name", "lr", "--trials", "3")
    assert again["status"] == "skipped" and len(trained) == 3
    assert again["counts"] == {"trials": 3, "failed": 0, "elapsed_s": 6}


def test_a_budget_of_minutes_counts_the_time_of_all_calls(scripted, monkeypatch):
    task, scores = scripted
    trained = scores(lambda run, config: 0.5)
    monkeypatch.setattr(search.Study, "keep_time", lambda self, trial, s: self._note_of(trial, "elapsed_s", 25.0))
    task.ok("sweep.py", "--name", "lr", "--minutes", "1")
    assert trained == ["lr.t1", "lr.t2", "lr.t3"]  # 50 of 60 seconds are used: the third is begun, and finished
    assert task.ok("sweep.py", "--name", "lr", "--minutes", "1")["status"] == "skipped"


def test_a_search_that_was_interrupted_tries_what_it_would_have_tried(scripted, tmp_path):
    task, scores = scripted
    other = Task(Path(shutil.copytree(task.folder, tmp_path / "other")))
    scores(lambda run, config: config["training"]["learning_rate"])
    straight = values_of(task.ok("sweep.py", "--name", "lr", "--trials", "6"))
    scores(lambda run, config: KeyboardInterrupt() if run == "lr.t3" else config["training"]["learning_rate"])
    assert other.run("sweep.py", "--name", "lr", "--trials", "6").code == 130
    trained = scores(lambda run, config: config["training"]["learning_rate"])
    # the two scores of the first call are read from the study, not asked for again
    assert values_of(other.ok("sweep.py", "--name", "lr", "--trials", "6")) == straight
    assert trained == ["lr.t3", "lr.t4", "lr.t5", "lr.t6"] and len(set(straight.values())) == 6


def test_a_failed_trial_is_shown_as_failed_and_the_search_goes_on(scripted):
    task, scores = scripted
    scores(lambda run, config: "loss_is_nan: the loss is NaN" if run == "lr.t2" else 0.5)
    summary = task.ok("sweep.py", "--name", "lr", "--trials", "4")
    assert [row["status"] for row in summary["metrics"].values()] == [
        "parent, failed", "best, now lr", "failed", "finished", "finished",
    ]  # fmt: skip
    assert summary["metrics"]["lr.t2"]["macro_f1"] is None and summary["counts"]["failed"] == 1
    assert [p["message"] for p in summary["warnings"] if p["code"] == "trial_failed"] == [
        "lr.t2: loss_is_nan: the loss is NaN"
    ]


def test_three_failures_in_a_row_stop_the_search_and_say_why(scripted):
    task, scores = scripted
    trained = scores(lambda run, config: 0.5 if run == "lr.t2" else "boom")
    outcome = task.run("sweep.py", "--name", "lr", "--trials", "9")
    assert (outcome.code, trained) == (4, ["lr.t1", "lr.t2", "lr.t3", "lr.t4", "lr.t5"])
    assert [problem["message"] for problem in outcome.summary["errors"]] == [f"lr.t{n}: boom" for n in (3, 4, 5)]
    trained = scores(lambda run, config: 0.4)
    assert task.ok("sweep.py", "--name", "lr", "--trials", "6")["counts"]["trials"] == 6
    assert trained == ["lr.t6"]


def test_another_space_under_the_same_name_is_refused_with_the_difference(scripted):
    task, scores = scripted
    scores(lambda run, config: 0.5)
    task.ok("sweep.py", "--name", "lr", "--trials", "1")
    outcome = task.run("sweep.py", "--name", "lr", "--trials", "2", "--search", f"{RATE}=1e-4..1e-3")
    assert (outcome.code, outcome.summary["errors"][0]["code"]) == (2, "search_differs")
    messages = [problem["message"] for problem in outcome.summary["errors"]]
    assert any(f"space.{RATE}.low: 1e-05 -> 0.0001" in message for message in messages)


def test_a_small_space_is_tried_once_point_by_point_and_then_ends(scripted):
    task, scores = scripted
    trained = scores(lambda run, config: 0.5)
    flags = ("--name", "lr", "--trials", "20", "--search", f"{RATE}=1e-4,2e-4,3e-4,4e-4,5e-4")
    summary = task.ok("sweep.py", *flags)
    assert len(trained) == 5 and sorted(values_of(summary).values()) == [1e-4, 2e-4, 3e-4, 4e-4, 5e-4]
    assert task.ok("sweep.py", *flags)["status"] == "skipped" and len(trained) == 5


def test_a_search_whose_best_is_a_config_is_closed(scripted, monkeypatch):
    task, scores = scripted
    trained = scores(lambda run, config: 0.5)
    monkeypatch.setattr(
        "tasklib.iterating.promotion.promote", lambda declared, study, best, _: study.note(winner=best.run)
    )
    task.ok("sweep.py", "--name", "lr", "--trials", "1")
    assert task.ok("sweep.py", "--name", "lr", "--trials", "1")["status"] == "skipped"
    outcome = task.run("sweep.py", "--name", "lr", "--trials", "2")
    assert (outcome.code, outcome.summary["errors"][0]["code"], len(trained)) == (2, "search_closed", 1)


def test_a_journal_that_a_crash_tore_goes_on(scripted):
    task, scores = scripted
    scores(lambda run, config: 0.5)
    task.ok("sweep.py", "--name", "lr", "--trials", "1")
    journal = task.folder / "models/lr.sweep/journal.jsonl"
    with journal.open("ab") as stream:
        stream.write(b'{"op_code":4,"worker_id"')
    journal.with_name("journal.jsonl.lock").touch()
    started = time.monotonic()
    assert task.ok("sweep.py", "--name", "lr", "--trials", "2")["counts"]["trials"] == 2
    assert time.monotonic() - started < 20  # Optuna by itself waits 30 s for a lock that nobody holds


def test_two_searches_at_once_are_refused(scripted):
    task, scores = scripted
    scores(lambda run, config: 0.5)
    task.ok("sweep.py", "--name", "lr", "--trials", "1")
    with (task.folder / "models/lr.sweep/.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        outcome = task.run("sweep.py", "--name", "lr", "--trials", "2")
    assert (outcome.code, outcome.summary["errors"][0]["code"]) == (4, "run_locked")


@pytest.mark.parametrize(
    ("code", "text", "wanted"),
    [
        (2, '{"errors": [{"code": "loss_is_nan", "message": "m"}]}', "loss_is_nan: m"),
        (1, '{"errors": [{"code": "internal_error", "message": "OutOfMemoryError: x"}]}', "OutOfMemoryError"),
        (4, '{"errors": [{"code": "does_not_fit", "message": "m"}]}', "does_not_fit: m"),
        (-9, "", "killed by signal 9"),
        (5, '{"errors": [{"code": "gate_not_met", "message": "m"}]}', None),
        (4, '{"errors": [{"code": "disk_full", "message": "m"}]}', TaskError),
        (130, "{}", KeyboardInterrupt),
    ],
)
def test_what_ends_a_trial_and_what_ends_the_search(tmp_path, code, text, wanted):
    (tmp_path / "03_train.py").write_text(f"import os, sys\nprint({text!r}, flush=True)\n" + (
        f"os.kill(os.getpid(), {-code})" if code < 0 else f"sys.exit({code})"
    ))  # fmt: skip
    ticks: list[float] = []
    scripts = trial_run.Scripts(tmp_path, TaskPaths(tmp_path), ticks.append, time.monotonic())
    if wanted in (TaskError, KeyboardInterrupt):
        with pytest.raises(wanted):
            trial_run._call(scripts, "lr.t1", "03_train.py")
    else:
        reason = trial_run._call(scripts, "lr.t1", "03_train.py")
        assert reason is None if wanted is None else wanted in reason
    assert len(ticks) == 1


def test_a_run_that_outlives_a_killed_search_is_waited_for(tmp_path):
    paths = TaskPaths(tmp_path)
    with runs.lock(paths.run("lr.t1")):
        waiting = threading.Thread(target=trial_run.wait_until_free, args=(paths, "lr.t1"), daemon=True)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()


# ---- real trials -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory) -> Task:
    """A baseline whose rate is 100 times too low, trained and scored."""
    training = {"num_train_epochs": 8, "learning_rate": 8e-5}
    task = make_task(tmp_path_factory.mktemp("sweep") / "task", tiny_model, adapter=FULL, training=training)
    task.ok("03_train.py")
    task.ok("04_evaluate.py")
    write_diagnosis(task, {RATE: {"low": 1e-5, "high": 1e-2, "log": True}})
    return task


def copied(task: Task, folder: Path) -> Task:
    return Task(Path(shutil.copytree(task.folder, folder)))


@pytest.fixture
def in_process(monkeypatch):
    """The real scripts, in this process, so that their imports are paid once."""

    def finished(scripts, arguments):
        outcome = Task(scripts.paths.root).run(arguments[0], *arguments[4:])  # without --task-dir and --json
        scripts.tick(scripts.elapsed_s)
        return outcome.code, outcome.summary

    monkeypatch.setattr(trial_run, "_finished", finished)


@pytest.mark.slow
def test_a_good_rate_is_found_on_validation_alone_and_becomes_a_run(trained, in_process, tmp_path):
    task = copied(trained, tmp_path / "task")
    (task.folder / "data/processed/test.jsonl").unlink()  # nobody can look at what is not there
    flags = ("--name", "lr", "--trials", "4", "--search", f"{RATE}=1e30,8e-3,1e-5")
    baselines = {p: p.stat().st_mtime_ns for p in (task.folder / "benchmarks/baselines").rglob("metrics.json")}
    summary = task.ok("sweep.py", *flags)
    rows = {row[RATE]: row for row in summary["metrics"].values()}
    assert set(rows) == {8e-5, 1e30, 8e-3, 1e-5} and summary["counts"]["trials"] == 3
    assert rows[1e30]["status"] == "failed" and rows[8e-3]["status"] == "best, now lr"
    assert rows[8e-5]["status"] == "parent" and rows[8e-3]["macro_f1"] > rows[8e-5]["macro_f1"] + 0.3
    assert {"best_of_many", "trial_failed"} == {problem["code"] for problem in summary["warnings"]}
    assert "loss_is_nan" in next(p["message"] for p in summary["warnings"] if p["code"] == "trial_failed")
    assert summary["next"] == "uv run python scripts/compare_runs.py lr --against baseline"
    assert len(baselines) == 3 and all(path.stat().st_mtime_ns == at for path, at in baselines.items())
    config = yaml.safe_load((task.folder / "configs/lr.yaml").read_text())
    assert (config["parent"], config["training"]["learning_rate"]) == ("baseline", 8e-3)
    assert task.json("benchmarks/lr/validation/metrics.json")["run"] == "lr"
    assert (task.folder / "docs/EXPERIMENTS.md").read_text().count("## lr · ") == 1
    assert task.ok("03_train.py", "--config", "configs/lr.yaml")["status"] == "skipped"
    assert not (task.folder / "benchmarks/test_looks.jsonl").exists()
    assert task.ok("sweep.py", *flags)["status"] == "skipped"
    ranked = task.ok("compare_runs.py")["metrics"]
    assert {"lr", "baseline"} <= set(ranked) and not [name for name in ranked if ".t" in name]


@pytest.mark.slow
def test_without_a_better_trial_no_config_is_written_and_it_is_said(trained, in_process, tmp_path):
    task = copied(trained, tmp_path / "task")
    summary = task.ok("sweep.py", "--name", "lr", "--trials", "1", "--search", f"{RATE}=1e-6,1e-7")
    assert [problem["code"] for problem in summary["warnings"]] == ["nothing_better"]
    assert not (task.folder / "configs/lr.yaml").exists() and not (task.folder / "docs/EXPERIMENTS.md").exists()
    assert "diagnose.py" in summary["next"]


@pytest.mark.slow
def test_a_search_killed_at_every_step_of_its_end_is_finished_by_the_next_call(
    trained, in_process, tmp_path, monkeypatch
):
    from tasklib.iterating import experiments, ledger, promotion

    task = copied(trained, tmp_path / "task")
    flags = ("--name", "lr", "--trials", "1", "--search", f"{RATE}=8e-3")

    def dies(*args, **kwargs):
        raise KeyboardInterrupt

    for module, step in ((ledger, "record_experiment"), (experiments, "write"), (promotion, "_move_run")):
        with monkeypatch.context() as patch:
            patch.setattr(module, step, dies)
            assert task.run("sweep.py", *flags).code == 130
    with monkeypatch.context() as patch:
        patch.setattr(trial_run, "score", dies)
        assert task.run("sweep.py", *flags).code == 130
    assert task.ok("sweep.py", *flags)["status"] == "ok"
    assert task.json("benchmarks/lr/validation/metrics.json")["run"] == "lr"
    assert (task.folder / "docs/EXPERIMENTS.md").read_text().count("## lr · ") == 1
    assert task.ok("sweep.py", *flags)["status"] == "skipped"


@pytest.mark.slow
def test_a_search_whose_machine_dies_in_a_trial_resumes_that_trial(trained, tmp_path):
    """SIGKILL to the search and to its training; real processes throughout."""
    task = copied(trained, tmp_path / "task")
    flags = ("--name", "lr", "--trials", "1", "--search", f"{RATE}=1e-6")
    process = subprocess.Popen(
        [sys.executable, str(task.folder / "scripts/sweep.py"), *flags],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    log, deadline = task.folder / "models/lr.t1/train_log.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and not (log.is_file() and '"step": 12' in log.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    process.wait(timeout=60)
    before = task.json("models/lr.t1/run.json")
    assert before["status"] == "running" and children
    used = [json.loads(line) for line in (task.folder / "models/lr.sweep/journal.jsonl").read_text().splitlines()]
    used_s = max(line.get("user_attr", {}).get("elapsed_s", 0) for line in used)
    outcome = task.spawn("sweep.py", *flags)
    assert outcome.code == 0, outcome.summary
    assert outcome.summary["counts"]["trials"] == 1 and outcome.summary["metrics"]["lr.t1"]["elapsed_s"] > used_s >= 5
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines() if '"loss"' in line]
    assert steps == sorted(set(steps)) and len(steps) == 40
    assert "resume" in " ".join(task.json("models/lr.t1/run.json")["argv"])
