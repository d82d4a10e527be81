"""Rare labels: the sampler, the weighted loss, the prior correction, and what each does to a minority's recall."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tasklib import schema
from tasklib.answering import prior_correction
from tasklib.documents import parse_yaml
from tasklib.files import write_jsonl
from tasklib.summary import TaskError
from tasklib.training import imbalance
from trainable_task import FULL, Task, make_task

LABELS = ["common"] * 50 + ["rare"] * 5 + ["other"] * 11


def epoch_of(sampler: imbalance.BalancedSampler, epoch: int) -> list[int]:
    sampler.set_epoch(epoch)
    return list(sampler)


# --- sampling ---


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_every_label_is_drawn_equally_often_in_an_epoch_of_the_same_length(epoch):
    drawn = epoch_of(imbalance.balanced_sampler(LABELS, seed=1), epoch)
    counts = Counter(LABELS[row] for row in drawn)
    assert len(drawn) == len(LABELS) and max(counts.values()) - min(counts.values()) <= 1


def test_no_row_comes_again_before_every_row_of_its_label_came_even_over_epochs():
    sampler = imbalance.balanced_sampler(LABELS, seed=1)
    drawn: Counter[int] = Counter()
    for epoch in range(4):
        drawn.update(epoch_of(sampler, epoch))
        for label in set(LABELS):
            times = [drawn[row] for row, found in enumerate(LABELS) if found == label]
            assert max(times) - min(times) <= 1, (epoch, label)


def test_an_epoch_depends_on_seed_and_number_alone_and_not_on_what_was_drawn_before():
    sampler = imbalance.balanced_sampler(LABELS, seed=1)
    in_turn = [epoch_of(sampler, epoch) for epoch in range(3)]
    assert epoch_of(imbalance.balanced_sampler(LABELS, seed=1), 2) == in_turn[2]
    assert epoch_of(sampler, 0) == in_turn[0] != in_turn[1]
    assert epoch_of(imbalance.balanced_sampler(LABELS, seed=2), 0) != in_turn[0]


def test_rows_of_like_length_come_into_one_batch_and_the_labels_stay_balanced():
    lengths = np.random.default_rng(0).integers(10, 500, 800).tolist()
    labels = ["rare" if row % 10 == 0 else "common" for row in range(800)]

    def padding(drawn: list[int]) -> float:
        batches = [[lengths[row] for row in drawn[n : n + 8]] for n in range(0, len(drawn), 8)]
        return 1 - sum(map(sum, batches)) / sum(max(batch) * len(batch) for batch in batches)

    plain = epoch_of(imbalance.balanced_sampler(labels, seed=3), 1)
    grouped = epoch_of(imbalance.balanced_sampler(labels, seed=3, lengths=lengths, batch_size=8), 1)
    assert sorted(grouped) == sorted(plain)
    assert padding(plain) > 0.25 and padding(grouped) < 0.05
    assert grouped == epoch_of(imbalance.balanced_sampler(labels, seed=3, lengths=lengths, batch_size=8), 1)


@pytest.mark.parametrize("n_skipped", [0, 3])
def test_the_epoch_reaches_the_sampler_through_the_data_loader_of_accelerate(n_skipped):
    from accelerate import Accelerator, skip_first_batches
    from torch.utils.data import DataLoader

    sampler = imbalance.balanced_sampler(LABELS, seed=1)
    loader = Accelerator(cpu=True).prepare(DataLoader(range(len(LABELS)), batch_size=4, sampler=sampler))
    loader = skip_first_batches(loader, n_skipped) if n_skipped else loader
    loader.set_epoch(5)
    rows = [row for batch in loader for row in batch.tolist()]
    assert rows == epoch_of(imbalance.balanced_sampler(LABELS, seed=1), 5)[4 * n_skipped :]


# --- weights ---


def test_balanced_weights_are_those_of_scikit_learn_and_their_mean_over_the_rows_is_1():
    from sklearn.utils.class_weight import compute_class_weight

    weights = imbalance.label_weights(LABELS, "balanced")
    names = np.unique(LABELS)
    assert weights == pytest.approx(
        dict(zip(names, compute_class_weight("balanced", classes=names, y=LABELS), strict=True))
    )
    assert np.mean([weights[label] for label in LABELS]) == pytest.approx(1)


def test_given_weights_keep_their_ratios_and_their_mean_over_the_rows_is_1():
    weights = imbalance.label_weights(LABELS, {"common": 1.0, "rare": 8.0, "other": 2.0})
    assert weights["rare"] / weights["common"] == pytest.approx(8) and weights["other"] / weights[
        "common"
    ] == pytest.approx(2)
    assert np.mean([weights[label] for label in LABELS]) == pytest.approx(1)


def definition() -> schema.TaskDefinition:
    return schema.check_definition(
        parse_yaml(
            """
schema_version: 1
name: tiny
task: {type: classification, labels: {good: 利多, bad: 利空}}
data: {files: {all: [data/raw/rows.jsonl]}, fields: {text: text, label: label}}
""",
            "task_definition.yaml",
        )
    )


def config(text: str) -> schema.RunConfig:
    return schema.check_config(parse_yaml(f"schema_version: 1\nbase_model: {{id: a/b}}\n{text}", "configs/x.yaml"))


ROWS = [{"id": str(n), "record": {"text": f"text {n}", "label": "bad" if n == 0 else "good"}} for n in range(4)]


def test_each_example_gets_the_weight_of_the_label_of_its_row():
    labels = imbalance.row_labels(definition(), ROWS)
    weighed = imbalance.weigh([{"input_ids": [n]} for n in range(4)], labels, "balanced")
    assert [example["input_ids"] for example in weighed] == [[n] for n in range(4)]
    assert [example["weight"] for example in weighed] == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3])


def test_labels_that_the_task_has_not_and_labels_without_a_weight_are_named_together():
    with pytest.raises(TaskError) as error:
        imbalance.check(definition(), config("imbalance: {label_weights: {good: 1.0, worse: 2.0}}"))
    assert [(problem.code, problem.field) for problem in error.value.problems] == [
        ("unknown_label", "imbalance.label_weights.worse"),
        ("missing_label_weight", "imbalance.label_weights"),
    ]
    with pytest.raises(TaskError, match="'bad' has no weight"):
        imbalance.label_weights(["good", "bad"], {"good": 1.0})


@pytest.mark.parametrize("setting", ["loss_type: dft", "label_smoothing_factor: 0.1"])
def test_settings_under_which_weights_would_do_nothing_are_refused(setting):
    weighted = config(f"training: {{{setting}}}\nimbalance: {{label_weights: balanced}}")
    with pytest.raises(TaskError) as error:
        imbalance.check(definition(), weighted)
    assert [problem.field for problem in error.value.problems] == [f"training.{setting.split(':')[0]}"]
    assert imbalance.check(definition(), config(f"training: {{{setting}}}")) == []


def test_a_prior_correction_without_label_probabilities_is_refused():
    task = definition()
    generate = task.model_copy(update={"evaluation": task.evaluation.model_copy(update={"decoding": "generate"})})
    corrected = config("imbalance: {prior_correction: 1.0}")
    assert imbalance.check(task, corrected) == []
    with pytest.raises(TaskError, match="'generate' has none"):
        imbalance.check(generate, corrected)


def test_rows_without_exactly_one_label_are_refused(monkeypatch):
    task = definition()
    monkeypatch.setattr(task.task_type, "strata", lambda record: ("a", "b") if record.label == "bad" else ("a",))
    with pytest.raises(TaskError) as error:
        imbalance.row_labels(task, ROWS)
    assert error.value.problems[0].code == "not_one_label" and "row 0 has 2 labels" in error.value.problems[0].message


def test_two_settings_that_balance_labels_are_a_warning_and_one_is_not():
    assert imbalance.check(definition(), config("imbalance: {label_weights: balanced}")) == []
    both = config("imbalance: {label_weights: balanced, prior_correction: 1.0}")
    [warning] = imbalance.check(definition(), both)
    assert "imbalance.label_weights and imbalance.prior_correction" in warning.message


# --- prior correction ---


def test_the_correction_divides_probabilities_by_the_share_to_a_power():
    shares = prior_correction.label_shares(["good"] * 9 + ["bad"])
    assert shares == {"bad": 0.1, "good": 0.9}
    found = prior_correction.corrected({"good": math.log(0.7), "bad": math.log(0.3)}, shares, 1.0)
    good, bad = 0.7 / 0.9, 0.3 / 0.1
    assert found == pytest.approx({"good": good / (good + bad), "bad": bad / (good + bad)})
    half = prior_correction.corrected({"good": math.log(0.7), "bad": math.log(0.3)}, shares, 0.5)
    assert found["bad"] > half["bad"] > 0.3


def test_strength_0_and_equal_shares_change_nothing():
    scores = {"good": -700.0, "bad": -701.0}
    plain = {"good": 1 / (1 + math.exp(-1)), "bad": 1 / (1 + math.exp(1))}
    assert prior_correction.corrected(scores, {"good": 0.99, "bad": 0.01}, 0.0) == pytest.approx(plain)
    assert prior_correction.corrected(scores, {"good": 0.5, "bad": 0.5}, 2.0) == pytest.approx(plain)


def test_a_label_without_training_rows_counts_as_the_rarest_with_some():
    scores = {"good": 0.0, "bad": 0.0, "never": 0.0}
    found = prior_correction.corrected(scores, {"good": 0.8, "bad": 0.2}, 1.0)
    assert found["never"] == found["bad"] > found["good"]


# --- the weighted loss in SFTTrainer (slow: trains) ---


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


EXAMPLES = [
    {"input_ids": [5, 6, 7 + n, 8, *range(20, 21 + n)], "labels": [-100] * 4 + list(range(20, 21 + n))}
    for n in range(4)
]


def trainer_of(
    model_folder: Path, tokenizer, folder: Path, examples: list[dict], imbalanced: str = "", labels=None, **arguments
):
    """The script's own trainer on a fresh model with LoRA."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, set_seed
    from trl import SFTConfig
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from tasklib.training import task_trainer

    set_seed(0)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(target_modules="all-linear", r=4))
    settings = {
        "per_device_train_batch_size": 2, "num_train_epochs": 1, "save_strategy": "no", "logging_steps": 1, **arguments
    }  # fmt: skip
    arguments = SFTConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        **settings,
    )
    collate = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)
    return task_trainer.task_trainer(config(imbalanced), labels, None)(
        model=model,
        args=arguments,
        data_collator=imbalance.with_weights(collate),
        train_dataset=Dataset.from_list(examples),
        processing_class=tokenizer,
    )


def weighted_examples(weights: list[float]) -> list[dict]:
    return [{**example, "weight": weight} for example, weight in zip(EXAMPLES, weights, strict=True)]


def loss_of(trainer, examples: list[dict], n_tokens=None) -> float:
    batch = trainer.data_collator(examples)
    return trainer.compute_loss(trainer.model, batch, num_items_in_batch=n_tokens).item()


@pytest.mark.slow
def test_the_weighted_loss_is_the_sum_over_rows_of_weight_times_cross_entropy_over_the_answer_tokens(
    tiny_model, tokenizer, tmp_path
):
    import torch

    weights = [0.5, 2.0, 1.0, 0.25]
    trainer = trainer_of(tiny_model, tokenizer, tmp_path, weighted_examples(weights))
    expected = n_tokens = 0.0
    for example, weight in zip(EXAMPLES, weights, strict=True):
        ids, labels = torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])
        with torch.no_grad():
            logits = trainer.model.get_base_model()(ids).logits
        sums = torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum")
        expected, n_tokens = expected + weight * sums.item(), n_tokens + (labels != -100).sum().item()
    assert loss_of(trainer, weighted_examples(weights)) == pytest.approx(expected / n_tokens, rel=1e-5)
    assert loss_of(trainer, weighted_examples(weights), 7) == pytest.approx(expected / 7, rel=1e-5)
    plain = loss_of(trainer, EXAMPLES)
    assert loss_of(trainer, weighted_examples([1.0] * 4)) == plain
    assert loss_of(trainer, weighted_examples(weights)) != pytest.approx(plain, rel=1e-3)


def lora_weights(trainer) -> dict:
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters() if weight.requires_grad}


@pytest.mark.slow
def test_gradient_accumulation_gives_the_step_of_the_whole_batch(tiny_model, tokenizer, tmp_path):
    import torch

    trained = []
    for batch_size, steps in ((4, 1), (1, 4)):
        trainer = trainer_of(
            tiny_model,
            tokenizer,
            tmp_path,
            weighted_examples([0.5, 2.0, 1.0, 0.25]),
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            learning_rate=0.1,
            optim="sgd",
            max_grad_norm=0,
        )
        before = lora_weights(trainer)
        trainer.train()
        assert trainer.state.global_step == 1
        trained.append({name: weight - before[name] for name, weight in lora_weights(trainer).items()})
    moved = max(change.abs().max().item() for change in trained[0].values())
    assert moved > 1e-4
    for name, change in trained[0].items():
        torch.testing.assert_close(trained[1][name], change, atol=moved * 1e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_balanced_training_resumed_in_mid_epoch_ends_with_the_same_weights(tiny_model, tokenizer, tmp_path, strategy):
    import torch

    labels = ["rare" if n % 6 == 0 else "common" for n in range(18)]
    examples = [EXAMPLES[n % 4] | {"input_ids": [5, 6, 30 + n, *EXAMPLES[n % 4]["input_ids"][3:]]} for n in range(18)]
    settings = {
        "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 4, "train_sampling_strategy": strategy,
        "learning_rate": 0.01,
    }  # fmt: skip

    def trainer(name: str):
        return trainer_of(
            tiny_model,
            tokenizer,
            tmp_path / name,
            examples,
            "imbalance: {sampling: class_balanced}",
            labels,
            **settings,
        )

    whole = trainer("a")
    whole.train()
    assert whole.state.global_step == 18
    for step in (4, 12):  # in the first and in the second epoch
        resumed = trainer("b")
        resumed.train(resume_from_checkpoint=str(tmp_path / "a" / f"checkpoint-{step}"))
        for name, weight in lora_weights(whole).items():
            assert torch.equal(weight, lora_weights(resumed)[name]), (step, name)


# --- what each key does to a rare label, through the scripts (slow: train) ---


def imbalanced_rows(split: str, n_good: int, n_bad: int) -> list[dict[str, str]]:
    """A text of the rare label looks like a quarter of the common one's: where one row in eleven is rare, two of seven
    such texts are, so that the likelier answer is always the common one; where labels count equally, four of five."""
    numbers = random.Random(split).sample(range(1000), n_good + n_bad)
    rows = [(numbers[n], "獲利成長" if n % 4 else "客戶砍單", "good") for n in range(n_good)]
    rows += [(number, "客戶砍單", "bad") for number in numbers[n_good:]]
    return [{"text": f"{split}第{number}家公司{news}", "label": label} for number, news, label in rows]


@pytest.fixture(scope="module")
def task(tiny_model, tmp_path_factory) -> Task:
    """200 rows of one label, 20 of the other, and the run that does nothing about it."""
    training = {"num_train_epochs": 8, "learning_rate": 6e-3, "save_strategy": "no"}
    task = make_task(tmp_path_factory.mktemp("imbalance") / "task", tiny_model, adapter=FULL, training=training)
    sizes = {"train": (200, 20), "validation": (20, 20), "test": (2, 2)}
    for split, (n_good, n_bad) in sizes.items():
        write_jsonl(task.folder / f"data/raw/{split}.jsonl", imbalanced_rows(split, n_good, n_bad))
    task.edit_definition(data={"files": {split: [f"data/raw/{split}.jsonl"] for split in sizes}, "split": {}})
    task.ok("02_convert_format.py", "--force")
    task.ok("03_train.py")
    return task


def recalls(task: Task, run: str, *flags: str) -> tuple[float, float]:
    """Recall of the rare and of the common label on the validation rows."""
    task.ok("04_evaluate.py", "--config", f"configs/{run}.yaml", *flags)
    per_class = task.json(f"benchmarks/{run}/validation/metrics.json")["per_class"]
    return per_class["bad"]["recall"], per_class["good"]["recall"]


@pytest.mark.slow
@pytest.mark.parametrize("setting", [{"sampling": "class_balanced"}, {"label_weights": "balanced"}], ids=str)
def test_balanced_sampling_and_balanced_weights_raise_the_recall_of_the_rare_label(task, setting):
    name = next(iter(setting))
    task.ok("03_train.py", "--config", task.write_config(name, imbalance=setting))
    (before, _), (after, common) = recalls(task, "baseline"), recalls(task, name)
    assert after >= before + 0.5 and common >= 0.6  # the clear texts of the common label keep their answer


@pytest.mark.slow
def test_the_prior_correction_raises_the_recall_of_the_rare_label_of_the_same_trained_run(task):
    before, _ = recalls(task, "baseline")
    after, common = recalls(task, "baseline", "--set", "imbalance.prior_correction=1")
    assert after >= before + 0.5 and common >= 0.6
