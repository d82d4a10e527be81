"""What training does about rare labels (`imbalance:` of a config): balanced sampling, weights in the loss.

`answering/prior_correction.py` is the third remedy, at the time of the answer.

Each of them alone makes all labels count equally; two of them together favour the rare ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasklib.exit_codes import ExitCode
from tasklib.schema import ImbalanceSpec, RunConfig, TaskDefinition
from tasklib.summary import Problem, TaskError
from tasklib.training import length_grouping


def row_labels(definition: TaskDefinition, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The label of each processed row. Raises TaskError (exit 2) where a row has none or several: then no single label
    can be balanced or weighted."""
    module = definition.task_type
    strata = [module.strata(module.Record(**row["record"])) for row in rows]
    odd = [position for position, labels in enumerate(strata) if len(labels) != 1]
    if odd:
        problem = Problem(
            code="not_one_label",
            message=f"row {rows[odd[0]]['id']} has {len(strata[odd[0]])} labels; sampling and label_weights need "
            f"exactly one a row ({len(odd)} of {len(rows)} rows have not)",
            field="imbalance",
            hint="remove imbalance.sampling and imbalance.label_weights from the config",
        )
        raise TaskError(ExitCode.USAGE, [problem])
    return [labels[0] for labels in strata]


def check(definition: TaskDefinition, config: RunConfig) -> list[Problem]:
    """Warnings about settings that do the same thing twice. Raises TaskError (exit 2) with every setting that cannot
    be honoured: they would be ignored without a word otherwise."""
    spec = config.imbalance
    problems = _unusable_weights(definition, config) if spec.label_weights is not None else []
    if spec.prior_correction and definition.evaluation.decoding != "score":
        problems.append(
            Problem(
                code="no_label_probabilities",
                message=f"{spec.prior_correction} divides label probabilities, and decoding 'generate' has none",
                field="imbalance.prior_correction",
                hint="set imbalance.prior_correction to 0, or evaluation.decoding to score",
            )
        )
    if problems:
        raise TaskError(ExitCode.USAGE, problems)
    return _warnings(spec)


def _unusable_weights(definition: TaskDefinition, config: RunConfig) -> list[Problem]:
    """Labels that the task has not, labels without a weight, and settings that leave no row's own loss to weight."""
    given = config.imbalance.label_weights
    declared = list(definition.task_type.label_set(definition.task) or {})
    problems = []
    if isinstance(given, dict) and declared:
        problems += [_unknown_label(label, declared) for label in given if label not in declared]
        problems += [_missing_weight(label) for label in declared if label not in given]
    return problems + [
        Problem(
            code="not_with_label_weights",
            message=f"{value!r} leaves no row's own loss to put a weight on: imbalance.label_weights would do nothing",
            field=f"training.{key}",
            hint=f"remove training.{key}, or imbalance.label_weights",
        )
        for key, value in (config.training.model_extra or {}).items()
        if (key, value) == ("loss_type", "dft") or (key == "label_smoothing_factor" and value)
    ]


def _unknown_label(label: str, legal: Sequence[str]) -> Problem:
    return Problem(
        code="unknown_label",
        message=f"{label!r} is no label of the task; legal: {', '.join(legal)}",
        field=f"imbalance.label_weights.{label}",
        hint="correct the label, or remove it",
    )


def _missing_weight(label: str) -> Problem:
    return Problem(
        code="missing_label_weight",
        message=f"label {label!r} has no weight",
        field="imbalance.label_weights",
        hint=f"add '{label}: 1.0' (1 is neutral), or write balanced",
    )


def _warnings(spec: ImbalanceSpec) -> list[Problem]:
    used = {
        "sampling": spec.sampling != "natural",
        "label_weights": spec.label_weights == "balanced",
        "prior_correction": spec.prior_correction > 0,
    }
    names = [f"imbalance.{name}" for name, is_used in used.items() if is_used]
    if len(names) < 2:
        return []
    problem = Problem(
        code="corrected_twice",
        message=f"{' and '.join(names)} each make all labels count equally; together they favour rare labels",
        field="imbalance",
        hint="keep one of them, or compare a run with each by its validation score",
    )
    return [problem]


# --- class_balanced sampling ---


@dataclass
class BalancedSampler:
    """Row numbers of an epoch in which every label is drawn equally often (to within one row).

    Draw number g belongs to label g mod L and is that label's draw g // L; epoch e of n rows holds the draws
    [e * n, (e + 1) * n). A label's rows are gone through in shuffled order, each once before any comes again, and over
    the end of an epoch. All of it follows from (seed, epoch), so that a resumed run sees the same rows.
    """

    rows: list[np.ndarray]  # row numbers of each label
    seed: int
    lengths: Sequence[int] | None = None  # tokens of each row: batches of rows of like length
    batch_size: int = 1
    epoch: int = 0
    _orders: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's data loader before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        n, n_labels = len(self), len(self.rows)
        draws = range(self.epoch * n, (self.epoch + 1) * n)
        drawn = [self._row(g % n_labels, g // n_labels) for g in draws]
        random = np.random.default_rng([self.seed, self.epoch])
        if self.lengths is None:
            return iter(np.array(drawn)[random.permutation(n)].tolist())
        lengths = [self.lengths[row] for row in drawn]
        order = length_grouping.order(lengths, self.batch_size, int(random.integers(2**31)))
        return iter([drawn[position] for position in order])

    def _row(self, label: int, draw: int) -> int:
        """The row of a label's draw; the order of its current pass is kept until the next."""
        rows = self.rows[label]
        current, position = divmod(draw, len(rows))
        if self._orders.get(label, (-1, None))[0] != current:
            self._orders[label] = current, np.random.default_rng([self.seed, label, current]).permutation(rows)
        return int(self._orders[label][1][position])


def balanced_sampler(
    labels: Sequence[str], seed: int, *, lengths: Sequence[int] | None = None, batch_size: int = 1
) -> BalancedSampler:
    """The sampler for training rows with these labels, in the order of the data set. With `lengths` (tokens of each
    row), rows of like length come into one batch."""
    names, codes = np.unique(np.array(labels), return_inverse=True)
    return BalancedSampler([np.flatnonzero(codes == code) for code in range(len(names))], seed, lengths, batch_size)


# --- weights in the loss ---


def label_weights(labels: Sequence[str], spec: str | Mapping[str, float]) -> dict[str, float]:
    """Weight of each label that occurs, scaled so that the mean over the rows is 1 and the learning rate keeps its
    meaning.

    `balanced` is inverse frequency, n_rows / (n_labels * n_rows_of_label): King and Zeng 2001 ("Logistic Regression in
    Rare Events Data", weighting), scikit-learn's class_weight="balanced". Raises TaskError (exit 2) where a label has
    no weight; `check` has refused labels that the task has not.
    """
    counts = Counter(labels)
    if spec == "balanced":
        return {label: len(labels) / (len(counts) * n) for label, n in sorted(counts.items())}
    if missing := [label for label in sorted(counts) if label not in spec]:
        raise TaskError(ExitCode.USAGE, [_missing_weight(label) for label in missing])
    mean = sum(spec[label] * n for label, n in counts.items()) / len(labels)
    return {label: spec[label] / mean for label in sorted(counts)}


def weigh(
    examples: Sequence[dict[str, Any]], labels: Sequence[str], spec: str | Mapping[str, float]
) -> list[dict[str, Any]]:
    """The encoded training examples, each with the `weight` of its label."""
    weights = label_weights(labels, spec)
    return [{**example, "weight": weights[label]} for example, label in zip(examples, labels, strict=True)]


@dataclass(frozen=True)
class WithWeights:
    """A collator that adds `weights`, shape (batch,), where the examples have a `weight` (training rows do,
    validation rows do not, so that validation losses of all runs can be compared)."""

    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        batch = self.collate(examples)
        if "weight" in examples[0]:
            batch["weights"] = torch.tensor([example["weight"] for example in examples], dtype=torch.float32)
        return batch


def with_weights(collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> WithWeights:
    """The collator with the rows' weights; it can be pickled for data loader workers."""
    return WithWeights(collate)


def weighted(model: Any, weights: Any) -> Callable[..., Any]:
    """The model with the log-probabilities of each row's answer tokens times the row's weight, so that
    SFTTrainer.compute_loss (which scores labelled positions only, counts tokens and averages over gradient
    accumulation and processes) gives the weighted loss:

        weights = inputs.pop("weights", None)
        model = model if weights is None else imbalance.weighted(model, weights)
        return super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)

    The sum is divided by the number of answer tokens, not by the sum of weights in the batch: the mean weight is 1 over
    all rows, so the gradient is that of the weighted training set whatever the batch size. Dividing by the weights of
    each batch, as torch.nn.CrossEntropyLoss does, takes the effect away from small batches (with one row, all of it).
    """

    def forward(**inputs: Any) -> Any:
        outputs = model(**inputs)
        if "log_probs" in outputs:  # the forward of TRL's fused head; a second one only asks for logits
            log_probs = outputs["log_probs"]
            outputs["log_probs"] = log_probs * weights[:, None].to(log_probs)
        return outputs

    return forward
