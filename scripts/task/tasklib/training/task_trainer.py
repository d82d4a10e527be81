"""TRL's SFTTrainer with what a task adds: its own metric at each evaluation, and what is done about rare labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tasklib.answering import inference
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.training import imbalance, length_grouping


def task_trainer(config: RunConfig, labels: Sequence[str] | None, metrics_of: Callable[[Any], dict] | None) -> type:
    """A subclass of SFTTrainer.

    labels: the label of each training row, in order, where `imbalance` needs them; otherwise None.
    metrics_of: model -> {metric name: value} on the validation rows, called at each evaluation, so that
    `metric_for_best_model` and early stopping can follow the task's own metric; None leaves eval_loss alone.
    """
    import torch
    from trl import SFTTrainer

    class TaskTrainer(SFTTrainer):
        def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
            with torch.random.fork_rng():  # a run resumed from before an evaluation draws the same numbers after it
                output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
            if metrics_of is not None:
                values = metrics_of(self.accelerator.unwrap_model(self.model))
                output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in values.items()})
            return output

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            args, by_length = self.args, self.args.train_sampling_strategy == "group_by_length"
            lengths = [len(ids) for ids in self.train_dataset["input_ids"]] if by_length else None
            rows_at_once = args.train_batch_size * args.gradient_accumulation_steps
            if config.imbalance.sampling == "class_balanced":
                return imbalance.balanced_sampler(labels, args.seed, lengths=lengths, batch_size=rows_at_once)
            if by_length:
                return length_grouping.GroupedByLength(lengths, rows_at_once, args.seed)
            return super()._get_train_sampler(train_dataset)

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            weights = inputs.pop("weights", None)
            model = model if weights is None else imbalance.weighted(model, weights)
            return super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)

    return TaskTrainer


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
