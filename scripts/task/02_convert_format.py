#!/usr/bin/env python3
"""Splits the checked rows and writes prompt + completion conversations to data/processed/."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tasklib import cli
from tasklib.summary import Summary, TaskError


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "convert",
        "Split the rows (stratified, seeded, equal texts on one side) and write them as conversations.",
        ["uv run python scripts/02_convert_format.py", "uv run python scripts/02_convert_format.py --dry-run --json"],
    )
    cli.add_task_flags(parser, __file__)
    parser.add_argument("--force", action="store_true", help="write again even if nothing changed")
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    return parser


def convert(args: argparse.Namespace) -> Summary:
    from tasklib import schema
    from tasklib.data import conversion, dataset
    from tasklib.paths import task_paths

    paths = task_paths(args.task_dir)
    definition = schema.load_definition(paths.definition)
    data = dataset.scan(paths, definition)
    found = data.findings
    if found.errors:
        after = "uv run python scripts/01_validate_data.py"
        raise TaskError(cli.ExitCode.DATA, found.errors, warnings=found.warnings, totals=found.totals, next=after)
    plan = conversion.plan(paths, definition, data)
    manifest, done = conversion.convert(paths, definition, plan, force=args.force, dry_run=args.dry_run)
    return Summary.of(
        "convert",
        "skipped" if done else "ok",
        warnings=plan.warnings if done else found.warnings + plan.warnings,
        totals={} if done else found.totals,
        counts={name: split["n_rows"] for name, split in manifest["splits"].items()},
        outputs={} if args.dry_run else {"processed": paths.shown(paths.processed)},
        next="uv run python scripts/04_evaluate.py --baselines-only",
    )


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), convert, argv)


if __name__ == "__main__":
    raise SystemExit(main())
