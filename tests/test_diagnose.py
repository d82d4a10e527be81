"""diagnose.py on real small trainings with one planted fault each, and on healthy ones.

The base is the tiny model after a training on such texts with labels drawn by lot: it knows the words and the form of
an answer, and no label. What the thresholds do on a real model is measured by tests/bench/planted_faults.py.
"""

from __future__ import annotations

import dataclasses
import json
import random
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import trainable_task
from tasklib import schema
from tasklib.iterating import diagnosis, evidence, rules_answers
from tasklib.paths import TaskPaths
from trainable_task import FULL, Task

pytestmark = pytest.mark.slow

LABELS = {"good": ("獲利", "成長", "滿載"), "bad": ("虧損", "砍單", "下修"), "flat": ("持平", "不變", "維持")}
ANSWERS = {"good": "利多", "bad": "利空", "flat": "中性"}
WORDS = "公司 本季 產品 市場 客戶 工廠 董事 股東 亞洲 歐洲 原料 價格 訂單 人力 設備 新廠 機器 報告 預估 法人 分析 通路 電池 晶片 鋼鐵 紡織 海運 航空 食品 飯店".split()  # noqa: E501, SIM905
LEARNS = {"num_train_epochs": 8, "learning_rate": 2e-3}
Rows = dict[str, list[dict[str, str]]]


def make_rows(seed: int, **sizes: int) -> Rows:
    """Texts of random words, one of which decides the label; no two are near copies."""
    dice, rows = random.Random(seed), {}
    for split, n in {"train": 150, "validation": 60, "test": 30, **sizes}.items():
        rows[split] = []
        for number in range(n):
            label = list(LABELS)[number % 3]
            words = [*dice.sample(WORDS, 6), dice.choice(LABELS[label])]
            dice.shuffle(words)
            rows[split].append({"text": "".join(words), "label": label})
    return rows


def make(folder: Path, model: Any, rows: Rows, *, definition: dict | None = None, **config: Any) -> Task:
    """A converted task with a file for each split."""
    task = trainable_task.make_task(folder, model, adapter=FULL, training={**LEARNS, **config})
    (folder / "data" / "raw" / "rows.jsonl").unlink()
    for split, part in rows.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        (folder / "data" / "raw" / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    written = yaml.safe_load((folder / "task_definition.yaml").read_text(encoding="utf-8"))
    written["task"]["labels"] = ANSWERS
    written["data"] = {
        "files": {split: [f"data/raw/{split}.jsonl"] for split in rows},
        "fields": {"text": "text", "label": "label"},
    }
    for section, values in (definition or {}).items():
        written[section] = {**written.get(section, {}), **values}
    (folder / "task_definition.yaml").write_text(yaml.safe_dump(written, allow_unicode=True), encoding="utf-8")
    task.ok("02_convert_format.py")
    return task


def small_model(folder: Path) -> Path:
    """A Llama of random weights whose tokens are bytes and the words of these texts: a step takes milliseconds."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|end|>", "<|pad|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    words = [*WORDS, *ANSWERS.values(), *(word for group in LABELS.values() for word in group)]
    made.train_from_iterator([word for word in words for _ in range(3)], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>", pad_token="<|pad|>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=96, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    rows = make_rows(99, train=600)
    noise(rows)
    task = make(folder / "task", small_model(folder / "random"), rows, num_train_epochs=3)
    task.ok("03_train.py")
    return task.folder / "models" / "baseline" / "model"


def run(task: Task) -> None:
    task.ok("03_train.py")
    assert task.run("04_evaluate.py").code in (0, 5)


def diagnosed(task: Task, *flags: str) -> list[dict[str, Any]]:
    summary = task.ok("diagnose.py", *flags)
    return summary["outputs"]["findings"]


# --- planted faults ---


def rate_low(task_rows: Rows) -> dict[str, Any]:
    return {"learning_rate": LEARNS["learning_rate"] / 1000}


def one_batch(rows: Rows) -> dict[str, Any]:
    return {"num_train_epochs": 1, "gradient_accumulation_steps": 30}


def flipped_of_many(rows: Rows) -> dict[str, Any]:
    """With fewer rows the small model learns nothing at all from labels that contradict each other."""
    rows["train"] = make_rows(7, train=500)["train"]
    return flipped(rows)


def flipped(rows: Rows) -> dict[str, Any]:
    dice = random.Random(3)
    for part in rows.values():
        for row in dice.sample(part, len(part) // 5):
            row["label"] = dice.choice([label for label in LABELS if label != row["label"]])
    return {}


def starved(rows: Rows) -> dict[str, Any]:
    kept = [row for row in rows["train"] if row["label"] == "flat"][:3]
    rows["train"] = [row for row in rows["train"] if row["label"] != "flat"] + kept
    return {}


def merged(rows: Rows) -> dict[str, Any]:
    for row in rows["train"]:
        row["label"] = "bad" if row["label"] == "flat" else row["label"]
    return {}


def copied(rows: Rows) -> dict[str, Any]:
    for split, ending in (("validation", "。"), ("test", "！")):
        for number, row in enumerate(rows["train"][: len(rows[split]) // 3]):
            rows[split][number] = {"text": row["text"] + ending, "label": row["label"]}
    return {}


def shifted(rows: Rows) -> dict[str, Any]:
    for split in ("validation", "test"):
        for number, row in enumerate(rows[split]):
            row["text"] = f"RE: {row['text']} sent from my phone {number}"
    return {}


def other_shares(rows: Rows) -> dict[str, Any]:
    more = make_rows(8, validation=180)["validation"]
    rows["validation"] = [row for row in more if row["label"] == "good"] + more[:12]
    return {}


def repeated(rows: Rows) -> dict[str, Any]:
    rows["train"] += [dict(row) for row in rows["train"][:10] for _ in range(10)]
    return {}


def noise(rows: Rows) -> dict[str, Any]:
    dice = random.Random(5)
    for part in rows.values():
        for row in part:
            row["text"] = "".join(dice.sample(WORDS, 7))
    return {}


def few_rows(rows: Rows) -> dict[str, Any]:
    rows["validation"] = rows["validation"][:9]
    flipped({"validation": rows["validation"]})
    return {"num_train_epochs": 4}  # or the one flipped row makes the validation loss climb


FAULTS: dict[str, tuple[Callable[[Rows], dict[str, Any]], str]] = {
    "a rate 1000 times too low": (rate_low, "learning_rate_too_low"),
    "one epoch of one batch": (one_batch, "too_few_steps"),
    "one label in five flipped": (flipped_of_many, "label_noise"),
    "a starved class": (starved, "class_imbalance"),
    "two classes merged in train": (merged, "label_never_trained"),
    "near copies across the splits": (copied, "leakage"),
    "a shifted validation split": (shifted, "split_shift"),
    "a validation split of other label shares": (other_shares, "label_shift"),
    "repeated training rows": (repeated, "repeated_rows"),
    "texts that say nothing": (noise, "no_signal"),
    "a tiny validation split": (few_rows, "too_few_rows_to_tell"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_planted_fault_is_named_first_with_evidence_and_a_command_that_can_be_run(fault, base, tmp_path):
    plant, code = FAULTS[fault]
    rows = make_rows(1)
    config = plant(rows)
    task = make(tmp_path / "task", base, rows, **config)
    run(task)
    found = diagnosed(task)
    assert found and found[0]["code"] == code, [(item["code"], item["message"]) for item in found]
    first = found[0]
    assert first["evidence"] and first["expect"] and first["confidence"] in ("high", "medium")
    assert all(place.startswith("data/raw/") for place in first["rows"])
    words = shlex.split(first["command"])
    assert words[:3] == ["uv", "run", "python"] and (task.folder / words[3]).is_file()
    if words[3] == "scripts/new_experiment.py" and not first["first"]:
        assert task.run("new_experiment.py", *words[4:], "--dry-run").code == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_healthy_run_gets_nothing_to_fix_and_honest_options(seed, base, tmp_path):
    task = make(tmp_path / "task", base, make_rows(seed), seed=seed)
    run(task)
    summary = task.ok("diagnose.py")
    assert summary["outputs"]["findings"] == []
    assert summary["metrics"] == {"verdict": "nothing to fix"}
    options = summary["outputs"]["options"]
    assert len(options) >= 3 and all(option["message"] and option["command"] for option in options)


# --- faults that are no fault of the rows ---


@pytest.fixture(scope="module")
def healthy(base, tmp_path_factory) -> Task:
    """A healthy run; tests that change it copy its folder."""
    task = make(tmp_path_factory.mktemp("healthy") / "task", base, make_rows(1))
    run(task)
    return task


def copy_of(task: Task, tmp_path: Path) -> Task:
    return Task(Path(shutil.copytree(task.folder, tmp_path / "copy")))


def test_lost_weights_are_named_alone_with_a_rate_to_try(base, tmp_path):
    task = make(tmp_path / "task", base, make_rows(1), learning_rate=1e30, max_grad_norm=0.0, num_train_epochs=1)
    assert task.run("03_train.py").code == 2
    (found,) = diagnosed(task)
    assert found["code"] == "loss_is_nan" and found["confidence"] == "high"
    assert "training.learning_rate=2e-05" in found["command"]


def test_a_run_that_stopped_is_named_with_the_command_that_continues_it(healthy, tmp_path):
    task = copy_of(healthy, tmp_path)
    record = task.json("models/baseline/run.json") | {"status": "stopped"}
    (task.folder / "models/baseline/run.json").write_text(json.dumps(record), encoding="utf-8")
    (found,) = diagnosed(task)
    assert found["code"] == "run_not_finished" and "--resume" in found["command"]


def test_a_template_that_changed_after_training_is_named_alone(base, tmp_path):
    own = Path(shutil.copytree(base, tmp_path / "base"))
    task = make(tmp_path / "task", own, make_rows(1), num_train_epochs=1)
    task.ok("03_train.py")
    file = own / "chat_template.jinja"
    file.write_text(file.read_text(encoding="utf-8").replace("<|end|>", "<|end|>\n"), encoding="utf-8")
    (found,) = diagnosed(task)
    assert found["code"] == "template_changed"
    assert found["evidence"]["trained_with"] != found["evidence"]["today"]


def test_answers_that_stop_in_the_middle_are_told_from_other_texts(base, tmp_path):
    labels = {label: f"公司本季產品{answer}" for label, answer in ANSWERS.items()}
    definition = {"evaluation": {"decoding": "generate"}, "task": {"labels": labels}}
    task = make(tmp_path / "task", base, make_rows(1), definition=definition)
    config = yaml.safe_load((task.folder / "configs/baseline.yaml").read_text(encoding="utf-8"))
    config["generation"]["max_new_tokens"] = 40
    (task.folder / "configs/baseline.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    task.ok("03_train.py")
    assert task.run("04_evaluate.py", "--set", "generation.max_new_tokens=2").code in (0, 5)
    found = diagnosed(task)[0]
    longest = found["evidence"]["longest_answer_tokens"]
    assert found["code"] == "answers_cut" and found["evidence"]["n_cut"] == 60
    words = shlex.split(found["command"])
    assert words[-1] == f"generation.max_new_tokens={longest + 1}"
    assert task.run("04_evaluate.py", *words[4:]).code in (0, 5)
    assert task.json("benchmarks/baseline/validation/metrics.json")["metrics"]["parse_rate"]["value"] == 1.0


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "empty"),
        ("利", "cut"),
        ("利\ufffd", "cut"),  # the first byte of a character
        ("\ufffd", "cut"),
        ("利多，利空", "several_labels"),
        ("我不知道", "other_text"),
    ],
)
def test_unparsed_answers_are_told_apart_by_kind(text, kind):
    assert rules_answers._kind(text, ["利多", "利空"]) == kind


def test_texts_that_are_mostly_cut_are_named_with_the_length_they_need(base, tmp_path):
    task = make(tmp_path / "task", base, make_rows(1), definition={"prompt": {"shorten": "keep_start"}}, max_length=18)
    run(task)
    found = diagnosed(task)[0]
    assert found["code"] == "texts_truncated"
    assert 24 <= int(found["command"].rpartition("max_length=")[2]) <= 64


def test_a_base_model_of_random_weights_is_named(tmp_path):
    task = make(tmp_path / "task", small_model(tmp_path / "random"), make_rows(1), num_train_epochs=2)
    run(task)
    assert diagnosed(task)[0]["code"] == "base_model_unfit"


def long_noise(rows: Rows) -> dict[str, Any]:
    return {**noise(rows), "num_train_epochs": 14}


@pytest.mark.parametrize(
    ("plant", "codes"), [(rate_low, ["learning_rate_too_low"]), (long_noise, ["base_model_unfit"])]
)
def test_a_tokenizer_that_reads_in_pieces_is_blamed_only_where_the_training_was_sound(plant, codes, base, tmp_path):
    rows = make_rows(1)
    task = make(tmp_path / "task", base, rows, **plant(rows))
    run(task)
    definition = schema.load_definition(task.folder / "task_definition.yaml")
    gathered = evidence.with_model(evidence.gather(TaskPaths(task.folder), definition, "baseline"))
    found = diagnosis.findings(dataclasses.replace(gathered, tokens_per_character=2.1))
    named = [(finding.code, finding.confidence) for finding in found]
    assert [code for code, _ in named][: len(codes)] == codes
    assert ("base_model_unfit" in codes) == (("base_model_unfit", "medium") in named)


@pytest.mark.parametrize(("verdict", "is_blamed"), [("worse", False), ("better", True)])
def test_a_short_run_that_words_alone_outdo_is_no_judge_of_labels(verdict, is_blamed, flipped_run):
    ours = next(c for c in flipped_run.metrics.comparisons if c.against == "tfidf_logreg")
    others = [c for c in flipped_run.metrics.comparisons if c is not ours]
    comparisons = [*others, ours.model_copy(update={"verdict": verdict})]
    metrics = flipped_run.metrics.model_copy(update={"comparisons": comparisons})
    record = flipped_run.record.model_copy(update={"counts": {**flipped_run.record.counts, "steps": 100}})
    found = diagnosis.findings(dataclasses.replace(flipped_run, metrics=metrics, record=record))
    assert ("label_noise" in [finding.code for finding in found]) == is_blamed


@pytest.fixture(scope="module")
def flipped_run(base, tmp_path_factory) -> evidence.Evidence:
    rows = make_rows(1)
    task = make(tmp_path_factory.mktemp("flipped") / "task", base, rows, **flipped_of_many(rows))
    run(task)
    definition = schema.load_definition(task.folder / "task_definition.yaml")
    return evidence.with_model(evidence.gather(TaskPaths(task.folder), definition, "baseline"))


def test_far_too_many_epochs_are_named_with_the_epoch_that_was_best(base, tmp_path):
    rows = make_rows(1, train=60)
    task = make(tmp_path / "task", base, rows, num_train_epochs=40)
    run(task)
    found = diagnosed(task)[0]
    assert found["code"] == "too_many_epochs"
    epochs = float(found["command"].rpartition("num_train_epochs=")[2])
    assert max(2, found["evidence"]["best_epoch"]) == epochs < 40


def test_seeds_that_differ_more_than_two_runs_are_named(healthy, tmp_path):
    task = copy_of(healthy, tmp_path)
    mine = task.json("benchmarks/baseline/validation/metrics.json")
    (task.folder / "benchmarks/other/validation").mkdir(parents=True)
    name, value = mine["primary"]["name"], mine["primary"]["value"]
    other = mine | {"run": "other", "primary": mine["primary"] | {"value": value - 0.01}}
    (task.folder / "benchmarks/other/validation/metrics.json").write_text(json.dumps(other), encoding="utf-8")
    seeds = {"seeds": [42, 43], "runs": ["baseline", "baseline"], "mean": {name: value}, "sd": {name: 0.03}}
    changed = json.dumps(mine | {"seeds": seeds})
    (task.folder / "benchmarks/baseline/validation/metrics.json").write_text(changed, encoding="utf-8")
    found = diagnosed(task)[0]
    assert found["code"] == "seeds_differ" and found["evidence"] == {
        "sd": 0.03, "n_seeds": 2, "difference": 0.01, "against": "other",
    }  # fmt: skip


# --- what it leaves behind ---


def test_the_answers_to_training_rows_are_kept_and_not_asked_again(healthy):
    task = healthy
    task.ok("diagnose.py")
    kept = task.folder / "benchmarks/baseline/train/predictions.jsonl"
    before = kept.stat().st_mtime_ns
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 150
    summary = task.ok("diagnose.py")
    assert kept.stat().st_mtime_ns == before
    assert summary["counts"] == {"findings": 0, "rows": 60, "train_rows_answered": 150}


def test_the_diagnosis_is_written_for_the_search_and_names_its_run(healthy):
    summary = healthy.ok("diagnose.py")
    kept = healthy.json("benchmarks/baseline/diagnosis.json")
    assert kept["identity"] == healthy.json("models/baseline/run.json")["identity"]["sha256"]
    assert kept["findings"] == [] and kept["options"] == summary["outputs"]["options"]
    assert "training.learning_rate" in {key for option in kept["options"] for key in option["search"]}


def test_a_dry_run_writes_nothing_and_no_model_says_less(healthy, tmp_path):
    task = copy_of(healthy, tmp_path)
    shutil.rmtree(task.folder / "benchmarks" / "baseline" / "train", ignore_errors=True)
    (task.folder / "benchmarks/baseline/diagnosis.json").unlink(missing_ok=True)
    before = sorted(p for p in task.folder.rglob("*") if "__pycache__" not in p.parts)
    task.ok("diagnose.py", "--dry-run")
    assert sorted(p for p in task.folder.rglob("*") if "__pycache__" not in p.parts) == before
    assert task.ok("diagnose.py", "--no-model")["counts"]["train_rows_answered"] == 0


def test_test_labels_are_never_read_for_a_diagnosis(healthy, tmp_path):
    """The same findings whatever the labels of test are."""
    task = copy_of(healthy, tmp_path)
    from tasklib.iterating import diagnosis, evidence
    from tasklib.paths import TaskPaths
    from tasklib.schema import load_definition

    paths = TaskPaths(task.folder)
    gathered = evidence.gather(paths, load_definition(paths.definition), "baseline")
    changed = [{**row, "record": {**row["record"], "label": "bad"}} for row in gathered.rows["test"]]
    other = dataclasses.replace(gathered, rows={**gathered.rows, "test": changed})
    assert diagnosis.findings(gathered) == diagnosis.findings(other)


def test_a_proposed_name_is_one_that_no_run_has(base, tmp_path):
    rows = make_rows(1)
    task = make(tmp_path / "task", base, rows, **one_batch(rows))
    run(task)
    for _ in range(2):  # the same proposal again, after the first was made by hand with another value
        words = shlex.split(diagnosed(task)[0]["command"])
        name = words[words.index("--name") + 1]
        assert not (task.folder / "configs" / f"{name}.yaml").exists()
        task.write_config(name)
    assert name.endswith("-2")


def test_a_run_that_was_never_started_is_a_missing_prerequisite_with_its_command(healthy):
    outcome = healthy.run("diagnose.py", "--config", "configs/nothing.yaml")
    assert outcome.code == 4 and outcome.summary["errors"][0]["code"] == "no_run"
    assert "run_pipeline.sh" in outcome.summary["next"]


def test_a_planted_fault_goes_round_the_loop_by_commands_alone_to_a_run_that_is_proven_better(base, tmp_path):
    rows = make_rows(1)
    task = make(tmp_path / "task", base, rows, **one_batch(rows))
    run(task)
    name, found = "baseline", diagnosed(task)
    while found and name.count("-") < 12:
        words = shlex.split(found[0]["command"])
        assert words[3] == "scripts/new_experiment.py", found
        made = task.ok("new_experiment.py", *words[4:])
        name = made["run"]
        task.ok("03_train.py", "--config", f"configs/{name}.yaml")
        assert task.run("04_evaluate.py", "--config", f"configs/{name}.yaml").code in (0, 5)
        found = diagnosed(task, "--config", f"configs/{name}.yaml")
    assert name != "baseline" and found == []
    table = task.ok("compare_runs.py", name, "--against", "baseline")["metrics"]
    assert table[name]["verdict"] == "better" and table[name]["n_fixed"] > table[name]["n_broken"]
    ledger = (task.folder / "docs" / "EXPERIMENTS.md").read_text(encoding="utf-8")
    assert f"## {name} · " in ledger and f"採用 {name}：證實較好" in ledger


# --- open answers ---


def make_open(folder: Path, model: Any, rows: Rows, **config: Any) -> Task:
    """The same rows as free text: the answer is what a label writes, and no label is known."""
    task = make(folder, model, rows, **config)
    written = yaml.safe_load((folder / "task_definition.yaml").read_text(encoding="utf-8"))
    written["task"] = {"type": "generation"}
    written["evaluation"] = {"n_few_shot": 0, "primary_metric": "exact_match"}
    written["data"]["fields"] = {"prompt": "text", "response": "label"}
    (folder / "task_definition.yaml").write_text(yaml.safe_dump(written, allow_unicode=True), encoding="utf-8")
    for split, part in rows.items():
        lines = [json.dumps({**row, "label": ANSWERS[row["label"]]}, ensure_ascii=False) for row in part]
        (folder / "data" / "raw" / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    task.ok("02_convert_format.py", "--force")
    return task


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"learning_rate": 3e-6}, "learning_rate_too_low"),
        ({"num_train_epochs": 1, "gradient_accumulation_steps": 30, "learning_rate": 3e-5}, "too_few_steps"),
    ],
)
def test_a_fault_of_training_is_named_where_answers_are_open(base, tmp_path, config, code):
    task = make_open(tmp_path / "task", base, make_rows(1), **config)
    run(task)
    found = diagnosed(task)
    assert found and found[0]["code"] == code, [(item["code"], item["message"]) for item in found]
    assert "chance_loss" not in found[0]["evidence"]


def test_a_healthy_run_of_open_answers_gets_nothing_to_fix_and_no_word_of_labels(base, tmp_path):
    task = make_open(tmp_path / "task", base, make_rows(1))
    run(task)
    summary = task.ok("diagnose.py")
    assert summary["outputs"]["findings"] == []
    assert not any("label" in option["message"] for option in summary["outputs"]["options"])


def test_open_answers_longer_than_what_may_be_written_are_named(base, tmp_path):
    task = make_open(tmp_path / "task", base, make_rows(1), num_train_epochs=1)
    run(task)
    record = task.json("models/baseline/run.json")
    record["config"]["generation"]["max_new_tokens"] = 1
    (task.folder / "models/baseline/run.json").write_text(json.dumps(record), encoding="utf-8")
    found = diagnosed(task, "--no-model")[0]
    assert found["code"] == "answers_cut"
    assert found["evidence"]["p95_answer_tokens"] > found["evidence"]["max_new_tokens"] == 1
