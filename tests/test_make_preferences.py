"""make_preferences.py on a small trained model: which rows become pairs, refusals, and the way to DPO."""

from __future__ import annotations

import json
import shlex

import pytest

from tasklib import schema
from tasklib.data import preference_pairs
from tasklib.exit_codes import ExitCode
from tasklib.paths import task_paths
from tasklib.summary import TaskError
from trainable_task import FULL, TOPICS, Task, make_task

pytestmark = pytest.mark.slow

ANSWERS = {"good": "利多", "bad": "利空"}
SCRIPT = "make_preferences.py"


def pairs_of(task: Task, name: str = "baseline") -> list[dict]:
    lines = (task.folder / "data" / "preferences" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def rows_of(task: Task, split: str) -> list[dict]:
    lines = (task.folder / "data" / "processed" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def codes(outcome) -> list[str]:
    return [problem["code"] for problem in outcome.summary["errors"]]


@pytest.fixture(scope="module")
def task(tiny_model, tmp_path_factory) -> Task:
    """A run of one epoch: half of its answers are wrong."""
    made = make_task(tmp_path_factory.mktemp("preferences") / "task", tiny_model)
    made.ok("03_train.py")
    return made


@pytest.fixture(scope="module")
def writing(tiny_model, tmp_path_factory) -> Task:
    """A run that writes its answers, and has hardly learned to."""
    made = make_task(tmp_path_factory.mktemp("writing") / "task", tiny_model, adapter=FULL)
    made.edit_definition(evaluation={"decoding": "generate"})
    made.ok("03_train.py")
    return made


def test_pairs_are_the_gold_answer_against_the_likeliest_wrong_label_of_training_rows(task):
    summary = task.ok(SCRIPT, "--max-probability", "1.0", "--force")
    pairs, train = pairs_of(task), {row["id"]: row for row in rows_of(task, "train")}
    assert summary["counts"]["pairs"] == len(pairs) == len(train)  # no label ever has the whole probability
    assert {pair["kind"] for pair in pairs} == {"wrong", "unsure"}
    for pair in pairs:
        row = train[pair["id"]]
        assert (pair["prompt"], pair["source"], pair["run"]) == (row["prompt"], row["source"], "baseline")
        assert {pair["chosen"], pair["rejected"]} == set(ANSWERS.values())
        assert pair["chosen"] == ANSWERS[row["record"]["label"]]


def test_a_lower_threshold_leaves_out_what_the_run_is_sure_of_and_right_about(task):
    everything = {pair["id"]: pair["kind"] for pair in _made(task, "1.0")}
    few = {pair["id"]: pair["kind"] for pair in _made(task, "0.0001")}
    assert few == {row: kind for row, kind in everything.items() if kind == "wrong"}


def _made(task: Task, threshold: str) -> list[dict]:
    task.ok(SCRIPT, "--max-probability", threshold, "--force", "--output", "threshold")
    return pairs_of(task, "threshold")


def test_the_answers_of_a_diagnosis_are_not_asked_for_again(task):
    task.ok("diagnose.py")
    kept = task.folder / "benchmarks" / "baseline" / "train" / "metrics.json"
    before = kept.stat().st_mtime_ns
    task.ok(SCRIPT, "--force")
    assert kept.stat().st_mtime_ns == before


def test_a_second_call_is_skipped_and_other_flags_are_not(task):
    task.ok(SCRIPT, "--output", "twice")
    path = task.folder / "data" / "preferences" / "twice.jsonl"
    before = path.stat().st_mtime_ns
    again = task.run(SCRIPT, "--output", "twice").summary
    assert again["status"] == "skipped" and path.stat().st_mtime_ns == before
    assert task.ok(SCRIPT, "--output", "twice", "--limit", "12")["counts"]["rows"] <= 12


def test_a_file_that_a_person_changed_is_kept_unless_forced(task):
    task.ok(SCRIPT, "--output", "edited", "--max-probability", "1.0")
    path = task.folder / "data" / "preferences" / "edited.jsonl"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:5]), encoding="utf-8")
    outcome = task.run(SCRIPT, "--output", "edited", "--max-probability", "1.0")
    assert (outcome.code, codes(outcome)) == (2, ["written_by_hand"])
    assert len(pairs_of(task, "edited")) == 5
    task.ok(SCRIPT, "--output", "edited", "--max-probability", "1.0", "--force")
    assert len(pairs_of(task, "edited")) > 5


def test_a_dry_run_writes_nothing(task):
    outputs = task.ok(SCRIPT, "--output", "dry", "--dry-run")["outputs"]
    assert outputs == {"would_write": "data/preferences/dry.jsonl"}
    assert not (task.folder / "data" / "preferences" / "dry.jsonl").exists()


def test_the_next_command_makes_a_config_that_trains_on_the_pairs_from_the_same_run(task):
    summary = task.ok(SCRIPT, "--max-probability", "1.0", "--output", "next", "--force")
    words = shlex.split(summary["next"])
    assert words[:4] == ["uv", "run", "python", "scripts/new_experiment.py"]
    made = task.ok("new_experiment.py", *words[4:])
    assert made["counts"]["changes"] == 1
    config = schema.load_config(task.folder / made["outputs"]["config"])
    assert (config.method, config.start_from, config.preference_data) == (
        "dpo", "baseline", "data/preferences/next.jsonl"
    )  # fmt: skip
    trained = task.ok("03_train.py", "--config", made["outputs"]["config"], "--set", "training.max_steps=1")
    assert trained["counts"]["steps"] == 1


def test_under_generate_the_run_s_own_wrong_texts_are_rejected_and_samples_add_more(writing):
    summary = writing.ok(SCRIPT)
    pairs = pairs_of(writing)
    assert pairs and {pair["kind"] for pair in pairs} == {"wrong"}
    assert all(pair["rejected"].strip() and pair["rejected"] != pair["chosen"] for pair in pairs)
    more = writing.ok(SCRIPT, "--samples", "2", "--temperature", "1.5", "--limit", "10", "--output", "sampled")
    sampled = pairs_of(writing, "sampled")
    assert more["counts"]["sampled"] > 0 and summary["counts"].get("sampled", 0) == 0
    of_row = [(pair["source"]["line"], pair["rejected"]) for pair in sampled]
    assert len(of_row) == len(set(of_row)) and len({pair["id"] for pair in sampled}) == len(sampled)
    assert writing.ok(SCRIPT, "--samples", "2", "--temperature", "1.5", "--limit", "10", "--output", "sampled",
                      "--force") and pairs_of(writing, "sampled") == sampled  # fmt: skip


def test_a_run_that_knows_everything_gives_no_pairs_and_says_what_to_do(tiny_model, tmp_path):
    task = make_task(
        tmp_path / "task", tiny_model, adapter=FULL, training={"num_train_epochs": 20, "learning_rate": 3e-3}
    )
    task.ok("03_train.py")
    outcome = task.run(SCRIPT, "--max-probability", "0.5")
    assert (outcome.code, codes(outcome)) == (3, ["no_wrong_answers"])
    assert "--max-probability" in outcome.summary["errors"][0]["hint"]
    assert not (task.folder / "data" / "preferences").exists()


def test_an_answer_that_is_right_in_another_row_of_the_same_text_is_never_rejected(tiny_model, tmp_path):
    task = make_task(tmp_path / "task", tiny_model, n_rows=30)
    rows = [{"text": f"第{n}家公司{TOPICS['good'][n % 3]}", "label": label} for n in range(20) for label in ANSWERS]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (task.folder / "data" / "raw" / "rows.jsonl").write_text(lines, encoding="utf-8")
    task.ok("02_convert_format.py")
    task.ok("03_train.py", "--set", "training.max_steps=1")
    outcome = task.run(SCRIPT, "--max-probability", "1.0", "--set", "training.max_steps=1")
    assert outcome.code == 3 and codes(outcome) == ["no_wrong_answers"]


def test_refusals(task, tiny_model, tmp_path):
    config = task.write_config("untrained")
    outcome = task.run(SCRIPT, "--config", config)
    assert (outcome.code, codes(outcome)) == (4, ["run_not_finished"]) and "03_train.py" in outcome.summary["next"]
    assert task.run(SCRIPT, "--samples", "2").code == 2
    assert task.run(SCRIPT, "--temperature", "0.7").code == 2
    assert task.run(SCRIPT, "--max-probability", "1.2").code == 2
    assert task.run(SCRIPT, "--output", "../x").code == 2


def test_few_pairs_are_a_warning(task):
    summary = task.ok(SCRIPT, "--limit", "6", "--max-probability", "1.0", "--output", "few")
    assert [problem["code"] for problem in summary["warnings"]] == ["few_pairs"]


# --- reading such files ---


def load(task: Task, lines: list, name: str = "mine"):
    path = task.folder / "data" / "preferences" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    paths = task_paths(task.folder)
    definition = schema.load_definition(paths.definition)
    config = schema.load_config(task.folder / "configs" / "baseline.yaml")
    config = config.model_copy(update={"preference_data": f"data/preferences/{name}.jsonl"})
    return preference_pairs.load(paths, definition, config)


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_file_of_one_s_own_needs_neither_manifest_nor_ids(task):
    rows = load(task, [{"prompt": asked("你好"), "chosen": "好", "rejected": "不好"}, ""])
    assert rows == [
        {
            "id": "mine.jsonl:1",
            "source": {"file": "data/preferences/mine.jsonl", "line": 1},
            "prompt": asked("你好"),
            "chosen": "好",
            "rejected": "不好",
        }
    ]


FAULTS = {
    "no JSON": ("{", "broken_json"),
    "no object": ("[]", "wrong_type"),
    "no rejected": ({"prompt": asked("a"), "chosen": "b"}, "missing_field"),
    "an empty side": ({"prompt": asked("a"), "chosen": "b", "rejected": " "}, "empty_field"),
    "a number": ({"prompt": asked("a"), "chosen": "b", "rejected": 1}, "wrong_type"),
    "the same but for white space": ({"prompt": asked("a"), "chosen": "b c", "rejected": "b  c\n"}, "same_answers"),
    "a prompt as text": ({"prompt": "a", "chosen": "b", "rejected": "c"}, "wrong_prompt"),
    "no prompt": ({"prompt": [], "chosen": "b", "rejected": "c"}, "wrong_prompt"),
    "an answer last": (
        {"prompt": [*asked("a"), {"role": "assistant", "content": "x"}], "chosen": "b", "rejected": "c"},
        "wrong_prompt",
    ),
    "an empty message": ({"prompt": asked(" "), "chosen": "b", "rejected": "c"}, "wrong_prompt"),
    "other keys": (
        {"prompt": [{"from": "human", "value": "a"}], "chosen": "b", "rejected": "c"},
        "wrong_prompt",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_every_fault_of_a_line_has_its_code_and_its_place(task, case):
    line, code = FAULTS[case]
    with pytest.raises(TaskError) as error:
        load(task, [{"prompt": asked("你好"), "chosen": "好", "rejected": "不好"}, line])
    assert error.value.exit_code == ExitCode.DATA
    assert {(p.code, p.file, p.line) for p in error.value.problems} == {(code, "data/preferences/mine.jsonl", 2)}
    assert all(problem.hint for problem in error.value.problems)


def test_all_faults_of_a_file_come_at_once(task):
    with pytest.raises(TaskError) as error:
        load(task, [line for line, _ in FAULTS.values()])
    assert {problem.line for problem in error.value.problems} == set(range(1, len(FAULTS) + 1))
    with pytest.raises(TaskError) as error:
        load(task, [])
    assert [problem.code for problem in error.value.problems] == ["no_pairs"]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_question_of_validation_or_test_is_refused_whatever_stands_before_it(task, split):
    row = rows_of(task, split)[0]
    shot = [*asked("判斷。\n\n別的"), {"role": "assistant", "content": "利多"}]
    system = [{"role": "system", "content": "另一種"}]
    pair = {"chosen": "利多", "rejected": "利空"}
    with pytest.raises(TaskError) as error:
        load(task, [{"prompt": part + row["prompt"], **pair} for part in ([], shot, system, system + shot)])
    assert [(p.code, p.line) for p in error.value.problems] == [("leakage", n) for n in range(1, 5)]
    assert all(split in problem.message for problem in error.value.problems)


def test_a_file_that_is_missing_or_not_what_its_manifest_says_is_refused(task):
    task.ok(SCRIPT, "--output", "whole", "--max-probability", "1.0")
    lines = pairs_of(task, "whole")
    with pytest.raises(TaskError) as error:
        load(task, lines[:-1], "whole")
    assert error.value.exit_code == ExitCode.PREREQUISITE
    assert [problem.code for problem in error.value.problems] == ["preferences_changed"]
    (task.folder / "data" / "preferences" / "whole.json").unlink()
    assert len(load(task, lines[:-1], "whole")) == len(lines) - 1
    paths = task_paths(task.folder)
    config = schema.load_config(task.folder / "configs" / "baseline.yaml")
    with pytest.raises(TaskError) as error:
        preference_pairs.load(
            paths, schema.load_definition(paths.definition), config.model_copy(update={"preference_data": "no.jsonl"})
        )
    assert [problem.code for problem in error.value.problems] == ["no_preference_data"]
