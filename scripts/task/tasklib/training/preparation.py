"""Everything about a training run that can be known and refused before its model is loaded: tokens, mask, memory."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasklib.answering import pieces
from tasklib.exit_codes import ExitCode
from tasklib.model import free_memory, memory, models, tokenized
from tasklib.paths import TaskPaths
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.summary import Problem, TaskError
from tasklib.training import imbalance, mask_proof, packing, pairs, processes, runs
from tasklib.training.runs import RunRecord

Rows = Sequence[dict[str, Any]]
_PACKAGES = {"azure_ml": "azureml", "comet_ml": "comet_ml", "flyte": "flytekit"}  # where it is not the tracker's name


@dataclass(frozen=True)
class Material:
    """What all seeds of a run share. `rows` (whole, as they are answered), `trained` (pieces of them, or pairs) and
    `examples` (the tokens of `trained`, or of packs of them) are keyed by split; `lengths` are the tokens of each
    sequence that is trained on or evaluated, and how many of them are labelled; `decided` is what the config left open:
    whether activations are checkpointed, which attention is used, how the batch is shared out."""

    paths: TaskPaths
    definition: TaskDefinition
    rows: Mapping[str, Rows]
    trained: Mapping[str, Rows]
    examples: Mapping[str, Rows]
    tokenizer: Any
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    statistics: dict[str, Any]
    lengths: tuple[list[int], list[int]]
    estimate: memory.Estimate
    decided: dict[str, Any]

    @property
    def counts(self) -> dict[str, int]:
        found = self.statistics["train"]
        return {"rows": found["n_rows"], "tokens": found["n_tokens"], "trained_tokens": found["n_trained_tokens"]}


def prepare(
    paths: TaskPaths,
    definition: TaskDefinition,
    config: RunConfig,
    rows: Mapping[str, Rows],
    resumed: RunRecord | None,
    *,
    check_memory: bool,
) -> Material:
    """Tokenizes, proves the mask, estimates memory. Raises TaskError: exit 3 for rows, 4 for memory and packages."""
    _require_reporters(config)
    tokenizer = models.load_tokenizer(config.base_model)
    if config.method == "sft":
        trained = {split: pieces.of(definition, part, training=True).rows for split, part in rows.items() if part}
        examples, collate, statistics = _of_rows(tokenizer, definition, config, trained)
        rows_alone = [row for part in examples.values() for row in part]  # what is evaluated is never packed
    else:
        trained = pairs.of_splits(paths, definition, config, rows)
        examples, collate, statistics = _of_pairs(tokenizer, definition, config, trained)
        rows_alone = [row for part in examples.values() for row in pairs.as_rows(part)]
    sequences = rows_alone
    if config.training.trl_fields.get("packing"):
        examples["train"] = packing.pack(examples["train"], config.training.max_length)
        collate = packing.collator(tokenizer.pad_token_id)
        sequences = [row for part in examples.values() for row in part]
    decided, estimate = _memory(definition, config, sequences, rows_alone, resumed, check_memory=check_memory)
    lengths = _lengths(sequences)
    return Material(
        paths, definition, rows, trained, examples, tokenizer, collate, statistics, lengths, estimate, decided
    )


Tokens = dict[str, list[dict[str, Any]]]


def _of_rows(
    tokenizer: Any, definition: TaskDefinition, config: RunConfig, rows: Mapping[str, Rows]
) -> tuple[Tokens, Any, dict[str, Any]]:
    """Examples by split, the collator, and statistics by split, of rows with one answer each."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate: Any = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)
    encoded = {split: tokenized.encode(tokenizer, definition, config, part) for split, part in rows.items()}
    examples = {split: part.examples for split, part in encoded.items()}
    if config.imbalance.label_weights is not None:
        labels = imbalance.row_labels(definition, rows["train"])
        examples["train"] = imbalance.weigh(examples["train"], labels, config.imbalance.label_weights)
        collate = imbalance.with_weights(collate)
    statistics = {}
    for split, part in examples.items():
        proof = mask_proof.prove(tokenizer, definition, rows[split], part, collate)
        say(proof.lines() if split == "train" else [])
        found = tokenized.statistics(part, len(encoded[split].shortened))
        statistics[split] = {**found, "mask_proof": proof.to_json()}
    return examples, collate, statistics


def _of_pairs(
    tokenizer: Any, definition: TaskDefinition, config: RunConfig, rows: Mapping[str, Rows]
) -> tuple[Tokens, Any, dict[str, Any]]:
    """The same of pairs; either side is proven by itself."""
    examples, statistics = {}, {}
    for split, part in rows.items():
        examples[split], shortened = pairs.encode(tokenizer, definition, config, part)
        found = tokenized.statistics(pairs.as_rows(examples[split]), len(shortened))
        statistics[split] = {**found, "n_pairs": len(part)}
        for name in pairs.SIDES:
            collate = pairs.side_collator(config.method, tokenizer.pad_token_id, name)
            proof = mask_proof.prove(tokenizer, definition, pairs.side(part, name), examples[split], collate)
            say([f"{name}:", *proof.lines()] if split == "train" else [])
            statistics[split][f"mask_proof_{name}"] = proof.to_json()
    return examples, pairs.collator(config.method, tokenizer.pad_token_id), statistics


def _require_reporters(config: RunConfig) -> None:
    """Raises TaskError (exit 4) where `training.report_to` names a tracker whose package is not installed, and exit 2
    where it names none that transformers knows: both would otherwise be found after the model is loaded."""
    from transformers.integrations import integration_utils

    wanted = config.training.trl_fields.get("report_to") or []
    known, problems, code = integration_utils.INTEGRATION_TO_CALLBACK, [], ExitCode.PREREQUISITE
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name in ("none", "all"):
            continue
        if name not in known:
            code, legal = ExitCode.USAGE, ", ".join(["none", *known])
            problem = Problem(code="illegal_value", message=f"got {name!r}", hint=f"legal: {legal}")
        elif importlib.util.find_spec(_PACKAGES.get(name, name)) is None:
            hint = "uv sync --extra track" if name == "tensorboard" else f"uv add {_PACKAGES.get(name, name)}"
            problem = Problem(code="package_missing", message=f"{name!r} needs a package that is not here", hint=hint)
        else:
            continue
        problems.append(dataclasses.replace(problem, field="training.report_to"))
    if problems:
        raise TaskError(code, problems)


def _memory(
    definition: TaskDefinition,
    config: RunConfig,
    sequences: Rows,
    rows_alone: Rows,
    resumed: RunRecord | None,
    *,
    check_memory: bool,
) -> tuple[dict[str, Any], memory.Estimate]:
    """Estimates the peak, prints it beside what is free, and decides about activation checkpointing where the config
    does not: it costs about a third more time, so only where memory wants it. A resumed run keeps what was decided."""
    lengths, n_trained = _lengths(sequences)
    sharing = processes.of_this_machine() if models.device() == "cpu" else 1
    free = free_memory.free_bytes(models.device()) // sharing
    spread = memory.Spread(processes.world_size(), processes.is_sharded())
    before = resumed.decided.get("activation_checkpointing") if resumed else None
    wanted = config.training.trl_fields.get("activation_checkpointing", before)
    for checkpointing in [False, True] if wanted is None else [wanted]:
        tried = with_training(config, activation_checkpointing=checkpointing)
        estimate = memory.estimate_training(tried, lengths, n_trained, spread)
        if not processes.any_of(estimate.total_bytes > free):  # their devices may differ, what they do may not
            break
    say([*estimate.lines(), f"free: {free / 1e9:.1f} GB"])
    if check_memory:
        memory.require_fit(tried, lengths, n_trained, free, spread)
        if not spread.is_sharded:  # what answers afterwards is one process, maybe on another device
            lengths, n_trained = _lengths(rows_alone)
            decoding = definition.evaluation.decoding
            memory.require_evaluation_fit(config, decoding, lengths, sorted(set(n_trained)), free)
    attention = models.attention(config.base_model)
    decided = {"activation_checkpointing": checkpointing, "attn_implementation": attention}
    return decided | _shared_out(config, resumed), estimate


def _shared_out(config: RunConfig, resumed: RunRecord | None) -> dict[str, int]:
    """How the batch is shared out. A run that is resumed must go on with as many processes as it began with: rows and
    random numbers are theirs. Raises TaskError (exit 2)."""
    n, before = processes.world_size(), resumed.decided.get("n_processes", 1) if resumed else None
    if before not in (None, n):
        message = f"the run began with {before} processes, this is {n}"
        hint = f"resume with {before} processes, or train anew with --force"
        raise TaskError(ExitCode.USAGE, [Problem(code="other_processes", message=message, hint=hint)])
    return {"n_processes": n, "global_batch_size": runs.global_batch_size(config)}


def _lengths(examples: Rows) -> tuple[list[int], list[int]]:
    """Tokens of each sequence, and how many of them are trained on."""
    return [len(row["input_ids"]) for row in examples], [sum(n >= 0 for n in row["labels"]) for row in examples]


def with_decided(config: RunConfig, decided: Mapping[str, Any]) -> RunConfig:
    """The config as it is carried out."""
    return with_training(config, activation_checkpointing=decided["activation_checkpointing"])


def with_training(config: RunConfig, **fields: Any) -> RunConfig:
    """The config with other training fields."""
    training = type(config.training)(**{**config.training.model_dump(), **fields})
    return config.model_copy(update={"training": training})


def say(lines: Sequence[str]) -> None:
    """What a person may want to read while it runs; stdout is for the summary."""
    for line in lines if processes.is_main() else ():
        print(line, file=sys.stderr, flush=True)
