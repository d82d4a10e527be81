"""Pairs of answers, one chosen and one rejected, as dpo and orpo learn them: their tokens, and what of them is trained.

A pair is two rows that share a prompt. Each is rendered, refused where it is too long, and proven like any row; only
then they come together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tasklib.data import dataset, preference_pairs
from tasklib.model import tokenized
from tasklib.paths import TaskPaths
from tasklib.schema import RunConfig, TaskDefinition

SIDES = ("chosen", "rejected")
Rows = Sequence[dict[str, Any]]
VALIDATION_SHARE = 10  # one pair in so many of a file that has no splits is kept for eval_loss
LEAST_PAIRS = 20  # fewer are all trained on


def of_splits(
    paths: TaskPaths, definition: TaskDefinition, config: RunConfig, rows: dict[str, Rows]
) -> dict[str, Rows]:
    """The pairs of each split: the task's own rows where they are pairs, otherwise those of `preference_data`, of
    which every tenth prompt, by the hash of its text, is kept apart for eval_loss. Raises TaskError as
    `preference_pairs.load` does."""
    if config.preference_data is None:
        return {split: preference_pairs.of_rows(definition, part) for split, part in rows.items() if part}
    found = preference_pairs.load(paths, definition, config)
    if len(found) < LEAST_PAIRS:
        return {"train": found}
    kept = [_is_kept(pair) for pair in found]
    parts = {
        "train": [pair for pair, is_kept in zip(found, kept, strict=True) if not is_kept],
        "validation": [pair for pair, is_kept in zip(found, kept, strict=True) if is_kept],
    }
    return {split: part for split, part in parts.items() if part}


def _is_kept(pair: dict[str, Any]) -> bool:
    return dataset.hash64(dataset.duplicate_key(pair["prompt"][-1]["content"])) % VALIDATION_SHARE == 0


def side(pairs: Rows, name: str) -> list[dict[str, Any]]:
    """One side of the pairs as rows in the form of the processed files."""
    return [{**pair, "completion": [{"role": "assistant", "content": pair[name]}]} for pair in pairs]


def encode(
    tokenizer: Any, definition: TaskDefinition, config: RunConfig, pairs: Rows
) -> tuple[list[dict[str, list[int]]], list[int]]:
    """`{prompt_ids, chosen_ids, rejected_ids}` of each pair, and the positions of those whose text was cut. Raises what
    `tokenized.encode` raises, for either side."""
    if any("record" not in pair for pair in pairs):  # a file of pairs: their prompts are as they are to be read
        whole = definition.prompt.model_copy(update={"shorten": None})
        definition = definition.model_copy(update={"prompt": whole})
    encoded = {name: tokenized.encode(tokenizer, definition, config, side(pairs, name)) for name in SIDES}
    found = []
    for chosen, rejected in zip(*(encoded[name].examples for name in SIDES), strict=True):
        n_prompt = sum(label == tokenized.IGNORED for label in chosen["labels"])
        ids = {"prompt_ids": chosen["input_ids"][:n_prompt], "chosen_ids": chosen["input_ids"][n_prompt:]}
        found.append(ids | {"rejected_ids": rejected["input_ids"][n_prompt:]})
    return found, encoded["chosen"].shortened


def as_rows(examples: Rows) -> list[dict[str, list[int]]]:
    """Both sides of every pair as `{input_ids, labels}`: what is counted, and what memory is estimated for."""
    return [
        {
            "input_ids": example["prompt_ids"] + example[f"{name}_ids"],
            "labels": [tokenized.IGNORED] * len(example["prompt_ids"]) + example[f"{name}_ids"],
        }
        for example in examples
        for name in SIDES
    ]


def for_orpo(example: dict[str, list[int]]) -> dict[str, Any]:
    """A pair under the names that TRL's ORPOTrainer gives to its tokens."""
    found: dict[str, Any] = {}
    prompt = example["prompt_ids"]
    for name in SIDES:
        answer = example[f"{name}_ids"]
        found[f"{name}_input_ids"] = prompt + answer
        found[f"{name}_attention_mask"] = [1] * len(prompt + answer)
        found[f"{name}_labels"] = [tokenized.IGNORED] * len(prompt) + answer
    return found | {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}


def collator(method: str, pad_token_id: int) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """The collator of TRL's trainer for the method."""
    if method == "dpo":
        from trl.trainer.dpo_trainer import DataCollatorForPreference

        return DataCollatorForPreference(pad_token_id=pad_token_id)
    from trl.experimental.utils import DPODataCollatorWithPadding

    collate = DPODataCollatorWithPadding(pad_token_id=pad_token_id)
    return lambda examples: collate([for_orpo(example) for example in examples])


def side_collator(method: str, pad_token_id: int, name: str) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """One side of what the trainer's collator yields, as the proof of the mask reads a batch: input_ids, labels and
    attention_mask."""
    collate = collator(method, pad_token_id)

    def one_side(examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collate(examples)
        if method == "orpo":
            return {key: batch[f"{name}_{key}"] for key in ("input_ids", "attention_mask", "labels")}
        half = slice(0, len(examples)) if name == "chosen" else slice(len(examples), None)
        ids, mask, trained = (batch[key][half] for key in ("input_ids", "attention_mask", "completion_mask"))
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": ids.masked_fill(trained == 0, tokenized.IGNORED),
        }

    return one_side
