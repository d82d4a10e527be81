#!/usr/bin/env python3
"""Says what is wrong with a run, from its log, data, predictions and baselines, and proposes one change."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from tasklib import cli
from tasklib.summary import Problem, Summary


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "diagnose",
        "Read definition, data, log, predictions and baselines of one run. Each finding comes with its evidence and\n"
        "one change as a literal command; the first finding is the likeliest cause: mend it, then diagnose again.\n"
        "Looks at validation, never at test labels. The finished run answers up to 400 of its training rows again;\n"
        "--no-model leaves that out, and with it label noise and under- and overfitting.",
        [
            "uv run python scripts/diagnose.py",
            "uv run python scripts/diagnose.py --config configs/lr-5e-4.yaml --json",
            "uv run python scripts/diagnose.py --no-model",
        ],
    )
    cli.add_task_flags(parser, __file__)
    parser.add_argument("--config", default="configs/baseline.yaml", help="the run's config (default: %(default)s)")
    parser.add_argument("--no-model", action="store_true", help="load neither tokenizer nor model")
    parser.add_argument("--dry-run", action="store_true", help="as --no-model, and nothing is written")
    return parser


def diagnose(args: argparse.Namespace) -> Summary:
    from tasklib import schema
    from tasklib.iterating import diagnosis, evidence
    from tasklib.paths import config_path, task_paths

    paths = task_paths(args.task_dir)
    definition = schema.load_definition(paths.definition)
    gathered = evidence.gather(paths, definition, config_path(paths, args.config).stem)
    if not (args.no_model or args.dry_run):
        gathered = evidence.with_model(gathered)
    found = diagnosis.findings(gathered)
    left = [] if found else diagnosis.options(gathered)
    outputs: dict[str, Any] = {"findings": [diagnosis.to_json(item) for item in found]}
    outputs |= {"options": [diagnosis.to_json(item) for item in left]}
    if not args.dry_run:
        outputs["diagnosis"] = paths.shown(diagnosis.save(gathered, found, left))
    return Summary.of(
        "diagnose",
        run=gathered.name,
        outputs=outputs,
        counts={"findings": len(found), "rows": len(gathered.answered), "train_rows_answered": len(gathered.trained)},
        metrics={} if found else {"verdict": "nothing to fix"},
        warnings=[*_warnings(gathered, args), *_as_problems(found, left)],
        next=found[0].command if found else left[0].command,
    )


def _warnings(gathered: Any, args: argparse.Namespace) -> list[Problem]:
    """What was left out."""
    problems = []
    if gathered.metrics is None and gathered.record.status == "finished":
        hint = f"uv run python scripts/04_evaluate.py --config {args.config}, then diagnose again"
        message = "the run was not evaluated on validation: nothing is known of its answers"
        problems.append(Problem(code="not_evaluated", message=message, hint=hint))
    if gathered.data_changes:
        message = f"the data or the prompt changed since this run was trained: {gathered.data_changes[0]}"
        hint = "the rows of today are looked at; train again for a diagnosis of them"
        problems.append(Problem(code="data_changed", message=message, hint=hint))
    if gathered.prompt_sha256 is None and not (args.no_model or args.dry_run):
        message = (
            f"{gathered.config.base_model.id} could not be loaded: template, label noise and fit are not looked at"
        )
        problems.append(Problem(code="model_missing", message=message, hint="run it where the base model is at hand"))
    return problems


def _as_problems(found: Sequence[Any], left: Sequence[Any]) -> list[Problem]:
    """Findings for the text summary: message, then what to do and what to expect."""
    problems = []
    for item in found:
        rows = f" (e.g. {', '.join(item.rows[:3])})" if item.rows else ""
        steps = f"{item.first} {item.command}" if item.first else item.command
        hint = f"{steps}\n      expect {item.expect}"
        problems.append(Problem(code=item.code, message=f"[{item.confidence}] {item.message}{rows}", hint=hint))
    return problems + [Problem(code="option", message=item.message, hint=item.command) for item in left]


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), diagnose, argv)


if __name__ == "__main__":
    raise SystemExit(main())
