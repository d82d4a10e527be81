"""TRL's trainers with what a task adds: its own metric at each evaluation, what is done about rare labels, and pairs
that are tokenized already."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from tasklib.answering import inference
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.training import imbalance, length_grouping, pairs


def task_trainer(config: RunConfig, labels: Sequence[str] | None, metrics_of: Callable[[Any], dict] | None) -> type:
    """A subclass of the TRL trainer of the config's method.

    labels: the label of each training row, in order, where `imbalance` needs them; otherwise None.
    metrics_of: model -> {metric name: value} on the validation rows, called at each evaluation, so that
    `metric_for_best_model` and early stopping can follow the task's own metric; None leaves eval_loss alone.
    """
    import torch

    class TaskTrainer(_BASES[config.method]()):
        def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
            with torch.random.fork_rng():  # a run resumed from before an evaluation draws the same numbers after it
                output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
            if metrics_of is not None:
                values = metrics_of(self.accelerator.unwrap_model(self.model))
                output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in values.items()})
            return output

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            args, by_length = self.args, self.args.train_sampling_strategy == "group_by_length"
            lengths = _lengths(self.train_dataset) if by_length else None
            rows_at_once = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
            if config.imbalance.sampling == "class_balanced":
                return imbalance.balanced_sampler(labels, args.seed, lengths=lengths, batch_size=rows_at_once)
            if by_length:
                return length_grouping.GroupedByLength(lengths, rows_at_once, args.seed)
            return super()._get_train_sampler(train_dataset)

    return TaskTrainer


def _lengths(dataset: Any) -> list[int]:
    """Tokens of each row, or of the longer side of each pair."""
    if "input_ids" in dataset.column_names:
        return [len(ids) for ids in dataset["input_ids"]]
    columns = (dataset[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
    return [len(prompt) + max(len(one), len(other)) for prompt, one, other in zip(*columns, strict=True)]


@functools.cache
def _sft() -> type:
    from trl import SFTTrainer

    class Weighted(SFTTrainer):
        """Rows may carry `weights`."""

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            weights = inputs.pop("weights", None)
            model = model if weights is None else imbalance.weighted(model, weights)
            return super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)

    return Weighted


@functools.cache
def _dpo() -> type:
    from trl import DPOTrainer

    class Tokenized(DPOTrainer):
        """The pairs are tokenized already: TRL would render the prompt by itself, without the fixed date, the silenced
        system prompt and what stands between prompt and answer."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    return Tokenized


@functools.cache
def _orpo() -> type:
    import torch
    from trl.experimental.orpo import ORPOTrainer
    from trl.trainer.utils import selective_log_softmax

    class AnswerOnly(ORPOTrainer):
        """The pairs are tokenized already, and the likelihood part of the loss is over the chosen answer alone, as
        everywhere here: TRL's takes the prompt in, which with a long prompt and a short answer is nearly all of it.
        Logits are computed from the first answer on, not for the beginnings that all prompts have."""

        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            return pairs.for_orpo(feature)

        def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> tuple[Any, ...]:
            inputs = self.concatenated_inputs(batch, padding_value=self.padding_value, device=self.accelerator.device)
            labels, n_chosen = inputs["concatenated_labels"], len(batch["chosen_labels"])
            first = int((labels != -100).any(0).nonzero()[0])
            positions = torch.arange(first - 1, labels.shape[1] - 1, device=labels.device)
            more = {"output_router_logits": True} if self.aux_loss_enabled else {}
            outputs = model(
                inputs["concatenated_input_ids"],
                attention_mask=inputs["concatenated_attention_mask"],
                use_cache=False,
                logits_to_keep=positions,
                **more,
            )
            labels = labels[:, first:]
            is_answer = labels != -100
            per_token = selective_log_softmax(outputs.logits, labels.clamp(min=0)).float() * is_answer
            n_tokens, sums = is_answer.sum(-1), per_token.sum(-1)
            log_probabilities = sums / n_tokens
            chosen_nll = -sums[:n_chosen].sum() / n_tokens[:n_chosen].sum()
            shown = outputs.logits.detach()
            found = (log_probabilities[:n_chosen], log_probabilities[n_chosen:], shown[:n_chosen], shown[n_chosen:])
            return (*found, chosen_nll, *([outputs.aux_loss] if self.aux_loss_enabled else []))

    return AnswerOnly


def config_class(method: str) -> type:
    """TRL's config class of a method."""
    if method == "orpo":
        from trl.experimental.orpo import ORPOConfig

        return ORPOConfig
    from trl import DPOConfig, SFTConfig

    return {"sft": SFTConfig, "dpo": DPOConfig}[method]


def on_one_device(arguments: Any) -> Any:
    """The Trainer would copy the model to every GPU that it sees (torch's DataParallel), at each step; several GPUs are
    for several processes (launch.py)."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # as Trainer itself does where the model is spread over devices
    return arguments


_BASES: dict[str, Callable[[], type]] = {"sft": _sft, "dpo": _dpo, "orpo": _orpo}


def validation_metrics(
    definition: TaskDefinition, config: RunConfig, model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """Every metric of the task on these rows by the definition's decoding; NaN where undefined."""
    module = definition.task_type
    records = [module.Record(**row["record"]) for row in rows]
    found = inference.answered(definition, config, model, tokenizer, rows)
    scores = module.score([module.gold(r) for r in records], [a.prediction for a in found], definition.task)
    return {name: float("nan") if value is None else value for name, value in scores.metrics.items()}


def score_only_labelled_positions() -> None:
    """On CPU, TRL's loss runs the language-model head over every position of the batch, labelled or not, because it
    ties that choice to Triton. Letting it take the compact path saves that time and leaves the loss unchanged
    (tests/test_train.py). The name is private: trl is pinned, and a missing name fails here."""
    from trl.trainer import utils

    if not callable(utils._use_triton):
        raise RuntimeError("trl.trainer.utils._use_triton is gone: trl is not the pinned version")
    utils._use_triton = lambda device: True
