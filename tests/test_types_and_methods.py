"""Every task type through create, convert, train, evaluate and predict, each with another method and adapter: the
diagonal of the table that tests/bench/types_methods_adapters.py fills. The model is tiny and random: what is tested is
that the way goes through, not a score."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
import yaml

from tasklib import schema, task_types
from tasklib.data import forms
from tasklib.paths import task_paths
from trainable_task import FULL, LORA, Task

sys.path.insert(0, str(Path(__file__).parent / "bench"))
import types_methods_adapters as bench

pytestmark = pytest.mark.slow

DIAGONAL = {
    "classification": ("orpo", "qdora"),
    "entity_sentiment": ("sft", "dora"),
    "entity_sentiment_pairs": ("orpo", "qlora"),
    "extraction": ("dpo", "dora"),
    "generation": ("dpo", "full"),
    "multi_label_classification": ("sft", "qlora"),
    "ner": ("dpo", "lora"),
    "preference": ("orpo", "full"),
    "stance": ("sft", "full"),
}
N_ROWS = 30


def test_the_diagonal_has_every_task_type_method_and_adapter():
    assert set(DIAGONAL) == set(task_types.names())
    assert {method for method, _ in DIAGONAL.values()} == set(schema.METHODS)
    assert {adapter for _, adapter in DIAGONAL.values()} == set(bench.ADAPTERS)


def pairs_of_gold_answers(task: Task) -> str:
    """Pairs of each training row's answer and that of another row."""
    lines = (task.folder / "data/processed/train.jsonl").read_text(encoding="utf-8").splitlines()
    rows, dice = [json.loads(line) for line in lines], random.Random(0)
    answers = [row["completion"][0]["content"] for row in rows]
    found = []
    for row, chosen in zip(rows, answers, strict=True):
        rejected = dice.choice([answer for answer in answers if answer != chosen])
        pair = {"id": row["id"], "source": row["source"], "prompt": row["prompt"]}
        found.append(pair | {"chosen": chosen, "rejected": rejected})
    path = task.folder / "data" / "preferences" / "pairs.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in found), encoding="utf-8")
    return "data/preferences/pairs.jsonl"


def row_to_answer(task: Task) -> str:
    """An argument of predict.py: a text, or a JSON object where a row has several inputs."""
    definition = schema.load_definition(task_paths(task.folder).definition)
    _, values = forms.example_input(definition)
    if role := forms.single_text(definition):
        return values[role]
    columns = forms.inputs(definition)
    return json.dumps({columns[role]: value for role, value in values.items()}, ensure_ascii=False)


@pytest.mark.parametrize("task_type", DIAGONAL)
def test_a_type_goes_the_whole_way_with_its_method_and_adapter(task_type, tiny_model, tmp_path):
    method, adapter = DIAGONAL[task_type]
    module = task_types.load(task_type)
    task = bench.make_task(tmp_path, task_type, str(tiny_model), N_ROWS)
    baseline = yaml.safe_load((task.folder / "configs" / "baseline.yaml").read_text(encoding="utf-8"))
    training = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
    training["max_length"] = baseline["training"]["max_length"]
    sections = {
        "method": method,
        "training": training,
        "adapter": FULL if adapter == "full" else {**LORA, "type": adapter},
    }
    if method != "sft" and "chosen" not in module.FIELDS:
        sections["preference_data"] = pairs_of_gold_answers(task)
    config = task.write_config("run", **sections)
    assert task.ok("03_train.py", "--config", config)["counts"]["steps"] == 2
    outcome = task.run("04_evaluate.py", "--config", config)
    assert outcome.code in (0, 5), outcome.summary
    metrics = task.json("benchmarks/run/validation/metrics.json")
    assert metrics["primary"]["name"] == module.PRIMARY_METRIC and metrics["n_rows"] >= 2
    report = (task.folder / "benchmarks/run/validation/report.html").read_text(encoding="utf-8")
    assert module.PRIMARY_METRIC in report
    (answer,) = task.ok("predict.py", "--config", config, row_to_answer(task))["outputs"]["predictions"]
    assert {"prediction", "raw_output", "parsed"} <= set(answer)
