"""The task type `preference`: the forms of its rows, what is refused, its metrics, and the pipeline around it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from task_folder import Task, jsonl, make_task
from tasklib import schema
from tasklib.data import dataset, preference_pairs
from tasklib.documents import parse_yaml
from tasklib.paths import task_paths
from tasklib.scoring import bootstrap
from tasklib.task_types import preference

OPTIONS = preference.EXAMPLE_OPTIONS
USER, ASSISTANT, SYSTEM = ({"role": role, "content": role} for role in ("user", "assistant", "system"))
GOOD, BAD = {"role": "assistant", "content": "好"}, {"role": "assistant", "content": "不好"}


def read(**values):
    return preference.read_record(values, OPTIONS)


def codes(**values) -> list[tuple[str, str]]:
    record, faults = read(**values)
    assert (record is None) == bool(faults) and all(fault.message and fault.hint for fault in faults)
    return [(fault.code, fault.role) for fault in faults]


# --- forms ---

SAME = {
    "texts": {"prompt": "user", "chosen": "好", "rejected": "不好"},
    "LLaMA-Factory": {
        "conversations": [{"from": "human", "value": "user"}],
        "chosen": {"from": "gpt", "value": "好"},
        "rejected": {"from": "gpt", "value": "不好"},
    },
    "messages beside a prompt of messages": {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    "answers behind the prompt said again": {"prompt": "user", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "objects": {"prompt": "user", "chosen": GOOD, "rejected": BAD},
    "one side a text, the other an object": {"prompt": "user", "chosen": "好", "rejected": BAD},
    "whole conversations": {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "HH-RLHF": {"chosen": "\n\nHuman: user\n\nAssistant: 好", "rejected": "\n\nHuman: user\n\nAssistant: 不好"},
    "empty cells of a table": {"prompt": "user", "chosen": "好\n", "rejected": " 不好", "system": "", "history": ""},
}


@pytest.mark.parametrize("form", SAME)
def test_every_way_to_write_a_pair_gives_the_same_record(form):
    assert read(**SAME[form]) == (preference.Record(prompt="user", chosen="好", rejected="不好"), [])


EARLIER = [SYSTEM, USER, ASSISTANT, {"role": "user", "content": "再問"}]
WITH_HISTORY = {
    "prompt, system and rounds": {"prompt": "再問", "system": "system", "history": [["user", "assistant"]]},
    "prompt and earlier messages": {"prompt": "再問", "history": EARLIER[:3]},
    "conversations": {"conversations": EARLIER},
    "conversations beside a system column": {"conversations": EARLIER[1:], "system": "system"},
    "a prompt of messages": {"prompt": EARLIER},
}


@pytest.mark.parametrize("form", WITH_HISTORY)
def test_earlier_turns_and_a_system_message_become_the_history_whatever_holds_them(form):
    expected = preference.Record(prompt="再問", history=EARLIER[:3], chosen="好", rejected="不好")
    assert read(**WITH_HISTORY[form], chosen="好", rejected="不好") == (expected, [])
    assert read(chosen=[*EARLIER, GOOD], rejected=[*EARLIER, BAD]) == (expected, [])


def test_a_prompt_alone_is_read_for_prediction():
    record, faults = preference.read_input({"conversations": EARLIER}, OPTIONS)
    assert faults == [] and (record.prompt, record.history) == ("再問", EARLIER[:3])
    assert record.chosen == record.rejected == ""


# --- what is refused ---

TEXTS = {"prompt": "問", "chosen": "好", "rejected": "不好"}
FAULTS = {
    "the same answer": ({"rejected": "好"}, [("same_answers", "chosen")]),
    "the same but for white space": ({"chosen": "a b", "rejected": "a  b\n"}, [("same_answers", "chosen")]),
    "an empty side": ({"rejected": " "}, [("empty_field", "rejected")]),
    "an empty message": ({"rejected": {"from": "gpt", "value": ""}}, [("empty_turn", "rejected")]),
    "both sides": ({"chosen": None, "rejected": 3}, [("missing_field", "chosen"), ("wrong_type", "rejected")]),
    "a side said by the user": ({"chosen": USER}, [("two_user_turns", "chosen")]),
    "a side of no role": ({"chosen": {"text": "好"}}, [("wrong_nesting", "chosen")]),
    "a verdict instead of an answer": ({"chosen": True}, [("unpaired", "chosen")]),
    "verdicts on both sides": ({"chosen": False, "rejected": False}, [("unpaired", "chosen")]),
    "a prompt that ends with an answer": ({"prompt": [USER, ASSISTANT]}, [("last_turn_not_user", "prompt")]),
    "no user": ({"prompt": [SYSTEM]}, [("no_user_turn", "prompt")]),
    "an assistant first": ({"prompt": [ASSISTANT, USER]}, [("no_user_turn", "prompt")]),
    "two user turns": ({"prompt": [USER, USER]}, [("two_user_turns", "prompt")]),
    "two system messages": ({"prompt": [SYSTEM, USER], "system": "x"}, [("two_system_messages", "system")]),
    "a system message behind the history": (
        {"prompt": [SYSTEM, USER], "history": [["a", "b"]]},
        [("system_not_first", "history")],
    ),
    "an empty round": ({"history": [["a", ""]]}, [("empty_turn", "history")]),
    "another prompt said again": ({"rejected": [USER, BAD]}, [("prompts_differ", "rejected")]),
}


@pytest.mark.parametrize("case", FAULTS)
def test_every_fault_of_a_row_has_its_code_and_its_field(case):
    values, expected = FAULTS[case]
    assert codes(**{**TEXTS, **values}) == expected


IMPLICIT = {
    "other prompts": ({"rejected": [{**USER, "content": "另一個"}, BAD]}, [("prompts_differ", "rejected")]),
    "one turn more": ({"rejected": [*EARLIER[1:], BAD]}, [("prompts_differ", "rejected")]),
    "an answer alone": ({"chosen": "好", "rejected": "不好"}, [("no_prompt", "chosen"), ("no_prompt", "rejected")]),
    "a question last": ({"chosen": [USER]}, [("no_assistant_turn", "chosen")]),
    "a verdict": ({"rejected": True}, [("unpaired", "rejected")]),
    "the same answer": ({"rejected": [USER, GOOD]}, [("same_answers", "chosen")]),
}


@pytest.mark.parametrize("case", IMPLICIT)
def test_every_fault_of_two_whole_conversations_has_its_code_and_its_field(case):
    values, expected = IMPLICIT[case]
    assert codes(**{"chosen": [USER, GOOD], "rejected": [USER, BAD], **values}) == expected


def test_a_verdict_on_one_answer_is_refused_with_what_to_do_about_it():
    _, (fault,) = read(conversations=[USER, ASSISTANT], chosen=True, rejected=True)
    assert "KTO" in fault.message and "share a prompt" in fault.hint and "generation" in fault.hint


# --- what all rows say together ---


def task_of(folder: Path, rows: list[dict], **files: list[dict]) -> Task:
    """A task over one file, or over one file for each of the splits."""
    parts = {"train" if files else "all": rows, **files}
    task = make_task(folder, {f"{name}.jsonl": jsonl(*part) for name, part in parts.items()})
    definition = {
        "schema_version": 1,
        "name": "tiny",
        "task": {"type": "preference"},
        "data": {
            "files": {name: [f"data/raw/{name}.jsonl"] for name in parts},
            "fields": {role: role for role in preference.FIELDS},
            "split": {"near_duplicates": None},
        },
    }
    (folder / "task_definition.yaml").write_text(yaml.safe_dump(definition), encoding="utf-8")
    return task


def pair(n: int, chosen: str = "好", rejected: str = "不好") -> dict[str, str]:
    return {"prompt": f"第{n}個問題", "chosen": chosen, "rejected": rejected}


def test_swapped_sides_are_a_contradiction_other_pairs_of_a_prompt_are_none(tmp_path):
    rows = [pair(1), pair(1, "不好", "好"), pair(2), pair(2, "好", "不知道"), pair(2), pair(3)]
    warnings = task_of(tmp_path / "task", rows).run("01_validate_data.py").summary["warnings"]
    found = [(problem["code"], problem["line"]) for problem in warnings]
    assert found == [("duplicate", 5), ("contradicting_duplicate", 2)]
    assert "swapped" in warnings[1]["message"] and "data/raw/all.jsonl:1" in warnings[1]["message"]


@pytest.mark.parametrize(
    ("n_longer", "said"),
    [(38, "longer answer in 95%"), (2, "shorter answer in 95%"), (31, None), (20, None)],
)
def test_pairs_whose_longer_answer_is_nearly_always_on_one_side_are_told(tmp_path, n_longer, said):
    rows = [pair(n, "很好的回答" if n < n_longer else "好") for n in range(40)] + [pair(99, "一樣", "相同")]
    warnings = task_of(tmp_path / "task", rows).run("01_validate_data.py").problems("length_bias", "warnings")
    assert [said in warning["message"] for warning in warnings] == ([True] if said else [])


def test_all_pairs_of_a_prompt_stay_on_one_side_of_the_split(tmp_path):
    rows = [pair(n, f"好{k}", f"不好{k}") for n in range(30) for k in range(3)]
    task = task_of(tmp_path / "task", rows)
    task.ok("02_convert_format.py")
    prompts = [{row["record"]["prompt"] for row in task.rows(split)} for split in schema.SPLITS]
    assert sum(map(len, prompts)) == 30 and all(prompts)


def test_the_same_prompt_in_two_of_the_user_s_own_splits_is_leakage(tmp_path):
    task = task_of(tmp_path / "task", [pair(n) for n in range(10)], test=[pair(3, "另一個", "再一個")])
    outcome = task.run("01_validate_data.py")
    assert outcome.code == 3 and [p["code"] for p in outcome.summary["errors"]] == ["leakage"]


def test_what_no_model_can_read_is_found_in_answers_and_turns_too(tmp_path):
    rows = [
        {"prompt": "a", "chosen": "好\x00", "rejected": "不好"},
        {"prompt": [USER], "chosen": GOOD, "rejected": {**BAD, "content": "不\x00好"}},
        {"prompt": "b", "chosen": GOOD, "rejected": {**BAD, "content": "不\x00好"}},
    ]
    outcome = task_of(tmp_path / "task", rows).run("01_validate_data.py")
    assert [(p["code"], p["line"]) for p in outcome.summary["errors"]] == [("nul_character", n) for n in (1, 2, 3)]


def test_processed_rows_are_pairs_for_the_trainer(tmp_path):
    task = task_of(tmp_path / "task", [pair(n) for n in range(30)])
    task.ok("02_convert_format.py")
    paths = task_paths(task.folder)
    definition = schema.load_definition(paths.definition)
    config = schema.check_config(parse_yaml("schema_version: 1\nbase_model: {id: x}\nmethod: dpo\n", "c.yaml"))
    schema.require_trainable(definition, config, has_validation=True)
    pairs = preference_pairs.load(paths, definition, config)
    assert len(pairs) == len(task.rows("train"))
    for found, row in zip(pairs, task.rows("train"), strict=True):
        assert (found["chosen"], found["rejected"]) == ("好", "不好")
        assert found["prompt"] == row["prompt"] == [{"role": "user", "content": row["record"]["prompt"]}]
        assert row["completion"][0]["content"] == "好"


# --- metrics ---


def scored(predictions):
    return preference.score(["好"] * len(predictions), predictions, OPTIONS)


def test_the_larger_value_wins_equal_values_and_missing_ones_do_not():
    scores = scored([[-1.0, -2.0], [-2.0, -1.0], [-1.0, -1.0], None])
    assert scores.metrics == {"preference_accuracy": 0.25, "reward_margin": pytest.approx(0.0)}
    assert scored([[-1.0, -2.5], [-1.0, -1.5]]).metrics["reward_margin"] == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_numpy_on_random_values(seed):
    values = np.random.default_rng(seed).normal(size=(50, 2))
    metrics = scored(values.tolist()).metrics
    assert metrics["preference_accuracy"] == pytest.approx(np.mean(values[:, 0] > values[:, 1]))
    assert metrics["reward_margin"] == pytest.approx(np.mean(values[:, 0] - values[:, 1]))


def test_metrics_other_than_the_unbounded_ones_lie_between_0_and_1_and_margins_have_intervals():
    values = (np.random.default_rng(0).normal(size=(40, 2)) * 100).tolist()
    metrics = scored(values).metrics
    assert all(0 <= metrics[name] <= 1 for name in set(metrics) - set(preference.UNBOUNDED_METRICS))
    counts = preference.count(["好"] * 40, values, OPTIONS)
    interval = bootstrap.intervals([counts], lambda sums: preference.score_counts(sums, OPTIONS))["reward_margin"]
    assert interval.ci_low < interval.value < interval.ci_high


def test_baselines_by_length_have_no_margin_and_no_preference_between_equal_lengths():
    records = [
        preference.Record(prompt="a", chosen="長一點", rejected="短"),
        preference.Record(prompt="b", chosen="短", rejected="長一點"),
        preference.Record(prompt="c", chosen="甲", rejected="乙"),
    ]
    golds = [preference.gold(record) for record in records]
    for name, right in (("longer", 1), ("shorter", 1)):
        predictions = preference.BASELINES[name]([], records, OPTIONS)
        metrics = preference.score(golds, predictions, OPTIONS).metrics
        assert metrics == {"preference_accuracy": pytest.approx(right / 3), "reward_margin": None}
        assert predictions[2] is None


def test_a_text_is_the_same_whichever_side_is_chosen_but_its_gold_is_not():
    one = preference.EXAMPLES[1]
    swapped = one.model_copy(update={"chosen": one.rejected, "rejected": one.chosen})
    assert preference.text_of(one) == preference.text_of(swapped) and preference.gold(one) != preference.gold(swapped)
    other = one.model_copy(update={"rejected": "別的"})
    assert dataset.text_key(preference.text_of(other)) != dataset.text_key(preference.text_of(one))
    assert preference.passage_of(other) == preference.passage_of(one)


def test_the_example_set_is_read_whole_and_no_prompt_stands_twice(bundle):
    folder = bundle / "templates" / "examples" / "preference"
    rows = [json.loads(line) for line in (folder / "replies.jsonl").read_text(encoding="utf-8").splitlines()]
    fields = ("prompt", "chosen", "rejected", "system", "history")
    read_rows = [read(**{role: row.get(role) for role in fields}) for row in rows]
    assert len(rows) >= 60 and all(faults == [] for _, faults in read_rows)
    assert len({preference.passage_of(record) for record, _ in read_rows}) == len(rows)
    longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in rows)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{len(rows)} 列裡有 {longer} 列" in text and f"{longer / len(rows):.2f}" in text


# --- the pipeline ---


@pytest.mark.slow
def test_dpo_on_the_task_s_own_pairs_is_trained_compared_by_likelihood_and_reported(tiny_model, tmp_path):
    """Random weights; what is chosen is always the same sentence, so that a few steps make it likelier."""
    import trainable_task

    training = {"num_train_epochs": 6, "learning_rate": 1e-3, "per_device_train_batch_size": 4}
    task = trainable_task.make_task(
        tmp_path / "task", tiny_model, adapter=trainable_task.FULL, method="dpo", training=training
    )
    rows = [pair(n, "請稍候，我馬上為您查詢。", f"不知道，第{n}次了。") for n in range(60)]
    (task.folder / "data" / "raw" / "rows.jsonl").write_text(jsonl(*rows), encoding="utf-8")
    definition = yaml.safe_load((task.folder / "task_definition.yaml").read_text(encoding="utf-8"))
    definition |= {"task": {"type": "preference"}, "evaluation": {"must_beat": ["longer", "zero_shot"]}}
    del definition["prompt"]
    definition["data"]["fields"] = {role: role for role in preference.FIELDS}
    (task.folder / "task_definition.yaml").write_text(yaml.safe_dump(definition), encoding="utf-8")
    task.ok("02_convert_format.py")
    assert task.ok("03_train.py")["counts"]["steps"] > 0
    outcome = task.run("04_evaluate.py")
    assert outcome.code in (0, 5), (outcome.summary, outcome.stderr[-2000:])
    assert outcome.summary["metrics"]["baseline"]["preference_accuracy"] == 1.0
    own, longer = (
        task.json(f"benchmarks/{name}/validation/metrics.json")["metrics"] for name in ("baseline", "baselines/longer")
    )
    assert own["reward_margin"]["ci_low"] > 0.1 and longer["reward_margin"]["value"] is None
    folder = task.folder / "benchmarks" / "baseline" / "validation"
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    for line in map(json.loads, lines):
        chosen, rejected = line["prediction"]
        assert rejected < chosen < 0 and line["gold"] == "請稍候，我馬上為您查詢。" and line["raw_output"] is None
    assert "reward_margin" in (folder / "report.md").read_text(encoding="utf-8")
    assert task.run("make_preferences.py").summary["errors"][0]["code"] == "pairs_already"
    (answer,) = task.ok("predict.py", "第5個問題")["outputs"]["predictions"]
    assert isinstance(answer["prediction"], str | None)
    assert task.run("diagnose.py").code == 0
