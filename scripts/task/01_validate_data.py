#!/usr/bin/env python3
"""Checks the raw data against task_definition.yaml and writes docs/data_report.md."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tasklib import cli
from tasklib.summary import Summary, TaskError


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "validate",
        "Check every raw row against task_definition.yaml: nothing is changed, everything wrong is listed at once.",
        ["uv run python scripts/01_validate_data.py", "uv run python scripts/01_validate_data.py --json"],
    )
    cli.add_task_flags(parser, __file__)
    parser.add_argument("--dry-run", action="store_true", help="check, but do not write docs/data_report.md")
    return parser


def validate(args: argparse.Namespace) -> Summary:
    from tasklib import data_report, dataset, files, schema
    from tasklib.paths import task_paths

    paths = task_paths(args.task_dir)
    definition = schema.load_definition(paths.definition)
    data = dataset.load(paths, definition)
    outputs = {}
    if not args.dry_run:
        files.write_text(paths.data_report, data_report.render(definition, data))
        outputs["data_report"] = paths.shown(paths.data_report)
    report = {
        "warnings": data.warnings,
        "outputs": outputs,
        "counts": {"rows": data.n_rows, "readable": len(data.examples)},
        "metrics": {"labels": dict(data.label_counts(definition.task_type))},
    }
    if data.errors:
        after = "put a corrected copy into data/raw/, name it in data.files of task_definition.yaml, run again"
        raise TaskError(cli.ExitCode.DATA, data.errors, **report, next=after)
    return Summary.of("validate", **report, next="uv run python scripts/02_convert_format.py")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), validate, argv)


if __name__ == "__main__":
    raise SystemExit(main())
