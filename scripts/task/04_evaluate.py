#!/usr/bin/env python3
"""Evaluates one run beside its baselines on the same rows and writes benchmarks/<run>/<split>/."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from tasklib import cli
from tasklib.summary import Problem, Summary


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "evaluate",
        "Score one trained run and its baselines on the same rows, with 95 % intervals and the paired test.",
        [
            "uv run python scripts/04_evaluate.py --baselines-only",
            "uv run python scripts/04_evaluate.py",
            "uv run python scripts/04_evaluate.py --split test",
        ],
    )
    cli.add_task_flags(parser, __file__)
    cli.add_run_flags(parser)
    parser.add_argument(
        "--split",
        choices=["validation", "test"],
        default="validation",
        help="rows to score (default: %(default)s; every look at test is recorded)",
    )
    parser.add_argument("--baselines-only", action="store_true", help="before training: what must be beaten")
    parser.add_argument("--force", action="store_true", help="evaluate again even if nothing changed")
    parser.add_argument("--dry-run", action="store_true", help="check run and rows; load no model, write nothing")
    return parser


def evaluate(args: argparse.Namespace) -> Summary:
    from tasklib import conversion, evaluation, metrics, runs, schema
    from tasklib.paths import config_path, task_paths

    paths = task_paths(args.task_dir)
    definition = schema.load_definition(paths.definition)
    config_file = config_path(paths, args.config)
    config = schema.load_config(config_file, args.overrides, args.config)
    data = evaluation.Rows(
        args.split,
        conversion.load_split(paths, args.split)[: args.limit],
        conversion.load_split(paths, "train")[: args.limit],
    )
    name = runs.run_name(config_file, args.limit)
    if args.baselines_only:
        return _baselines_summary(paths, definition, config, data, args)
    record = runs.finished_run(paths, name)
    runs.require_same_identity(
        record,
        runs.identity(config, definition, paths),
        name,
        "evaluate it with the config and data it was trained with, or train again",
    )
    identity = evaluation.run_identity(definition, config, data, record)
    folder = paths.benchmark(name, args.split)
    found = metrics.read(folder)
    done = found is not None and found.identity == identity and not args.force
    if not done:  # numbers of another evaluation are never shown as this one's
        found = None
        if not args.dry_run:
            found = _evaluate_run(paths, definition, config, data, record, name, identity)
    return _summary(paths, config, found, folder, args, name, skipped=done)


def _evaluate_run(paths: Any, definition: Any, config: Any, data: Any, record: Any, name: str, identity: str) -> Any:
    """Baselines, then the run; writes metrics, predictions and both reports, and returns the metrics."""
    from tasklib import evaluation, files, inference, models, progress, report, runs

    others = {b: evaluation.baseline(paths, definition, config, data, b) for b in evaluation.baseline_names(definition)}
    tokenizer = models.load_tokenizer(config.base_model)
    inference.require_same_prompt(tokenizer, definition, record.prompt_sha256, name)
    model = models.load_trained(config, paths.run(name))
    with progress.bar(f"{name} on {data.split}", len(data.rows), "row") as bar:
        answers = inference.answer(definition, config, model, tokenizer, [r["prompt"] for r in data.rows], bar.update)
    result = evaluation.score(
        definition, data, answers, run=name, decoding=definition.evaluation.decoding, identity=identity
    )
    result = evaluation.compared(definition, result, others)
    folder = paths.benchmark(name, data.split)
    report.write(
        folder,
        definition,
        result.metrics,
        result.predictions,
        data.rows,
        {b: other.metrics for b, other in others.items()},
    )
    evaluation.save(folder, result)
    if data.split == "test":
        files.append_jsonl(
            paths.test_looks,
            {
                "run": name,
                "identity": identity,
                "at": runs.now(),
                "metric": result.metrics.primary.name,
                "value": result.metrics.primary.value,
            },
        )
    return result.metrics


def _baselines_summary(paths: Any, definition: Any, config: Any, data: Any, args: argparse.Namespace) -> Any:
    from tasklib import evaluation

    names = evaluation.baseline_names(definition)
    found = {} if args.dry_run else {b: evaluation.baseline(paths, definition, config, data, b).metrics for b in names}
    return Summary.of(
        "evaluate",
        counts={"rows": len(data.rows)},
        metrics={b: _columns(m.primary) for b, m in found.items()},
        outputs={b: paths.shown(evaluation.baseline_folder(paths, b, config, args.split)) for b in found},
        next=f"uv run python scripts/03_train.py --config {args.config}",
    )


def _summary(
    paths: Any, config: Any, found: Any, folder: Any, args: argparse.Namespace, name: str, *, skipped: bool
) -> Any:
    """Status gate_failed (exit 5) when the gate was not met, also when that was found by an earlier call."""

    base = f"--config {args.config}" + (f" --limit {args.limit}" if args.limit else "")
    if found is None:
        return Summary.of("evaluate", run=name, next=f"uv run python scripts/04_evaluate.py {base}")
    failed = found.gate is not None and not found.gate.passed and not args.limit
    problems = [
        Problem(code="gate_not_met", message=reason, hint="see report.html for what goes wrong")
        for reason in (found.gate.reasons if failed else [])
    ]
    warnings = [Problem(code="metric", message=text) for text in found.warnings]
    metrics = _systems(paths, config, found, name)
    after = f"uv run python scripts/04_evaluate.py {base} --split test"
    if failed:
        after = f"open {paths.shown(folder / 'report.html')}"
    elif args.split == "test":
        after = f"uv run python scripts/05_upload_hf.py --config {args.config} --dry-run"
    return Summary.of(
        "evaluate",
        "gate_failed" if failed else "skipped" if skipped else "ok",
        run=name,
        errors=problems,
        warnings=warnings,
        counts={"rows": found.n_rows},
        metrics=metrics,
        next=after,
        outputs={"report": paths.shown(folder / "report.html"), "metrics": paths.shown(folder / "metrics.json")},
    )


def _systems(paths: Any, config: Any, found: Any, name: str) -> dict[str, dict[str, Any]]:
    """One row for each system: the primary metric with its interval, and how the run compares with it."""
    from tasklib import evaluation, metrics

    rows = {}
    for c in found.comparisons:
        other = metrics.read(evaluation.baseline_folder(paths, c.against, config, found.split))
        if other is not None and other.rows_sha256 == found.rows_sha256:
            rows[c.against] = {**_columns(other.primary), "run_minus_it": c.delta, "run_is": c.verdict}
    return {**rows, name: _columns(found.primary)}


def _columns(primary: Any) -> dict[str, Any]:
    return {primary.name: primary.value, "ci_low": primary.ci_low, "ci_high": primary.ci_high}


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), evaluate, argv)


if __name__ == "__main__":
    raise SystemExit(main())
