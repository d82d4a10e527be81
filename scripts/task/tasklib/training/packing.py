"""Packing: several rows in one sequence without padding, where the model keeps them apart, which is checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.summary import Problem, TaskError

Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]
# Largest difference of a log-probability, in nats, between a row alone and the same row behind another one: what the
# order of additions makes of it. A row that sees its neighbour differs by far more.
TOLERANCE = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.3}


def pack(examples: Sequence[dict[str, Any]], max_length: int) -> list[dict[str, Any]]:
    """Rows in sequences of at most `max_length` tokens, whole, by best fit decreasing (Ding et al. 2024,
    arXiv:2404.10830; TRL's `bfd`); `seq_lengths` says where each row ends."""
    from datasets import Dataset
    from trl import pack_dataset

    return pack_dataset(Dataset.from_list(list(examples)), max_length, "bfd").to_list()


def collator(pad_token_id: int) -> Collate:
    """TRL's collator that lays the rows of a batch one behind the other, with positions that start anew."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    return DataCollatorForLanguageModeling(pad_token_id=pad_token_id, padding_free=True)


def require_apart(model: Any, collate: Collate, packed: Sequence[dict[str, Any]]) -> None:
    """Raises TaskError (exit 4) when the rows of a sequence see each other: what a model makes of positions that start
    anew depends on its layers and on the kernels that are installed."""
    import torch

    example = next((row for row in packed if len(row["seq_lengths"]) > 1), None)
    if example is None:
        return
    start, rows = 0, []
    for length in example["seq_lengths"][:2]:
        part = slice(start, start + length)
        rows.append({key: example[key][part] for key in ("input_ids", "labels")} | {"seq_lengths": [length]})
        start += length
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            together = _log_probabilities(model, collate(rows))
            alone = torch.cat([_log_probabilities(model, collate([row])) for row in rows])
        gap = float((together - alone).abs().max())
        found = f"a log-probability moves by {gap:.3f}"
    except ValueError as error:  # transformers refuses by itself where it knows that a kernel is missing
        gap, found = float("inf"), str(error)
    model.train(was_training)
    if not gap <= TOLERANCE[str(model.dtype).removeprefix("torch.")]:
        problem = Problem(
            code="packed_rows_mix",
            message=f"packed rows see each other: {found}",
            field="training.packing",
            hint="remove training.packing, or set base_model.attn_implementation: flash_attention_2 with its package "
            "installed (for linear attention: flash-linear-attention and causal-conv1d)",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem])


def _log_probabilities(model: Any, batch: dict[str, Any]) -> Any:
    """Log-probability of every labelled token, shape (n_labelled,)."""
    import torch

    batch = {key: value.to(model.device) if torch.is_tensor(value) else value for key, value in batch.items()}
    labels = batch.pop("labels")[:, 1:]
    logits = model(**batch, use_cache=False).logits[:, :-1].float().log_softmax(-1)
    chosen = labels != -100
    return logits[chosen].gather(-1, labels[chosen][:, None])[:, 0]
