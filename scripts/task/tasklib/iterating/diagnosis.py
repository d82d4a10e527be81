"""From evidence to findings, the likeliest cause first; and the honest options for a run in which nothing is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasklib import files
from tasklib.iterating import rules_answers, rules_data, rules_training
from tasklib.iterating.evidence import Evidence
from tasklib.iterating.findings import Finding, Option, experiment, script, suggest_labels

# In the order in which a practitioner asks: what makes all other evidence meaningless comes first, and a cause before
# what it causes. A fault high in the list is named first even where it has raised others below it.
RULES: tuple[Callable[[Evidence], Finding | None], ...] = (
    rules_training.loss_is_nan,
    rules_training.run_not_finished,
    rules_training.template_changed,
    rules_answers.answers_cut,
    rules_data.label_never_trained,
    rules_data.leakage,
    rules_data.split_shift,
    rules_data.texts_truncated,
    rules_data.repeated_rows,
    rules_training.base_model_unfit,
    rules_training.learning_rate_too_high,
    rules_training.too_few_steps,
    rules_training.learning_rate_too_low,
    rules_data.no_signal,
    rules_training.too_many_epochs,
    rules_data.label_noise_found,
    rules_data.class_imbalance,
    rules_data.label_shift,
    rules_answers.parse_failures,
    rules_answers.too_few_rows_to_tell,
    rules_answers.seeds_differ,
)
# What may have any cause: asked only where no rule above has named one.
SYMPTOMS: tuple[Callable[[Evidence], Finding | None], ...] = (
    rules_training.underfitting,
    rules_training.overfitting,
    rules_answers.confused_labels,
    rules_answers.below_tfidf,
)
# A finding that says nothing new where one of these is the cause.
EXPLAINED_BY = {
    "label_noise": {"no_signal", "texts_truncated", "label_never_trained", "split_shift", "base_model_unfit"},
    "learning_rate_too_low": {"base_model_unfit"},
    "label_shift": {"class_imbalance", "label_never_trained"},
}
NO_LATER_EVIDENCE = {"loss_is_nan", "run_not_finished", "template_changed"}  # nothing after them means anything


def findings(e: Evidence) -> list[Finding]:
    """What is wrong, the likeliest cause first; findings of low confidence come last."""
    found: list[Finding] = []
    for rule in RULES:
        finding = rule(e)
        if finding is None or EXPLAINED_BY.get(finding.code, set()) & {other.code for other in found}:
            continue
        found.append(finding)
        if finding.code in NO_LATER_EVIDENCE:
            break
    for rule in SYMPTOMS if not found else ():
        found += [finding] if (finding := rule(e)) is not None else []
    return sorted(found, key=lambda finding: finding.confidence == "low")


def options(e: Evidence) -> list[Option]:
    """What may still be tried when nothing is wrong, each with what it costs."""
    if e.metrics is None:
        return [Option(message="the run was not evaluated yet", command=script("04_evaluate.py", e.name))]
    rate = e.config.training.learning_rate
    better_rows = Option(
        message="more and better rows help most: check doubtful labels, label texts that the run is unsure of",
        command=suggest_labels(e.name),
    )
    found = [
        *([better_rows] if e.labels else []),
        Option(
            message="a small search around the learning rate; expect little from it",
            command=f"uv run --extra sweep python scripts/sweep.py --from {e.name} --name {e.name}-search --trials 6",
            search={"training.learning_rate": {"low": rate / 3, "high": rate * 3, "log": True}},
        ),
        Option(
            message="a larger base model: more memory and time, often a few points",
            command=experiment(e, "larger", "a larger base model knows more", base_model__id="Qwen/Qwen3-1.7B"),
        ),
    ]
    if e.metrics.seeds is None:
        found.append(
            Option(message="how much is luck: the same run with two further seeds", command=_seeds_command(e.name))
        )
    if _tfidf_is_as_good(e):
        found.insert(
            0,
            Option(
                message="TF-IDF cannot be told apart from this run: perhaps no fine-tuning is needed",
                command=script("04_evaluate.py", e.name, "--baselines-only"),
            ),
        )
    target = e.definition.evaluation.target
    if target is not None and (e.metrics.primary.value or 0) >= target:
        message = "the target is reached on validation: one look at test, the only one"
        found.insert(0, Option(message=message, command=script("04_evaluate.py", e.name, "--split", "test")))
    return found


def save(e: Evidence, found: list[Finding], left: list[Option]) -> Path:
    """Writes benchmarks/<run>/diagnosis.json, which sweep.py reads."""
    path = e.paths.benchmarks / e.name / "diagnosis.json"
    content = {
        "schema_version": 1,
        "run": e.name,
        "split": "validation",
        "identity": e.record.identity["sha256"],
        "findings": [to_json(finding) for finding in found],
        "options": [to_json(option) for option in left],
    }
    files.write_json(path, content)
    return path


def to_json(item: Finding | Option) -> dict[str, Any]:
    found = dataclasses.asdict(item)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _seeds_command(run: str) -> str:
    return script("03_train.py", run, "--seeds", "3") + " && " + script("04_evaluate.py", run, "--seeds", "3")


def _tfidf_is_as_good(e: Evidence) -> bool:
    return any(c.against == "tfidf_logreg" and c.verdict != "better" for c in e.metrics.comparisons)
