#!/usr/bin/env python3
"""Compares evaluated runs on the rows that all of them answered and writes benchmarks/comparisons/."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import Any

from tasklib import cli
from tasklib.summary import Summary


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "compare_runs",
        "Rank evaluated runs with 95 % intervals, test each against one of them (paired bootstrap, Holm), and show\n"
        "what changed: classes, slices, rows fixed and rows broken. Without RUN, all runs evaluated on the split.",
        [
            "uv run python scripts/compare_runs.py",
            "uv run python scripts/compare_runs.py exp-01",
            "uv run python scripts/compare_runs.py exp-01 exp-02 --against baseline",
        ],
    )
    cli.add_task_flags(parser, __file__)
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="names of evaluated runs, as in configs/<run>.yaml (default: all)")
    add(
        "--split",
        choices=["validation", "test"],
        default="validation",
        help="rows to compare on (default: %(default)s; runs are chosen on validation)",
    )
    add(
        "--against",
        metavar="RUN",
        help="the reference (default: the parent of a single RUN; else baseline, else the run that finished first)",
    )
    add("--dry-run", action="store_true", help="compare, but write nothing")
    return parser


def compare(args: argparse.Namespace) -> Summary:
    from tasklib import schema
    from tasklib.iterating import comparison, comparison_page, ledger
    from tasklib.paths import task_paths

    if args.against and set(args.runs) == {args.against}:
        raise cli.UsageError(f"--against {args.against}: a run cannot be compared with itself; name another RUN")
    paths = task_paths(args.task_dir)
    definition = schema.load_definition(paths.definition)
    found = comparison.compare(paths, definition, args.runs, against=args.against, split=args.split)
    files = comparison_page.files(paths, found, all_runs=not args.runs)
    changed = not args.dry_run and comparison_page.write(files, definition, found)
    page = paths.shown(files.page)
    outputs = {} if args.dry_run else {"page": page, "json": paths.shown(files.json)}
    # What test said is no ground for a decision: only validation goes into the ledger.
    if args.split == "validation" and not args.dry_run:
        new = [ledger.record_result(paths, definition, **_for_ledger(item)) for item in found.versus]
        outputs |= {"ledger": paths.shown(paths.ledger)} if any(new) else {}
    return Summary.of(
        "compare_runs",
        "ok" if changed else "skipped",
        run=args.runs[0] if len(args.runs) == 1 else None,
        warnings=[note.to_problem() for note in found.notes],
        counts={"rows": found.n_rows, "runs": 1 + len(found.versus)},
        metrics=_table(found),
        outputs=outputs,
        next="the same command without --dry-run" if args.dry_run else f"open {shlex.quote(page)}",
    )


def _for_ledger(item: Any) -> dict[str, Any]:
    names = ("run", "split", "value", "comparison", "n_rows", "n_fixed", "n_broken")
    return {name: getattr(item, name) for name in names}


def _table(found: Any) -> dict[str, dict[str, Any]]:
    """One row for each system, best first: the primary metric with its interval, and how it compares."""
    against = {item.run: item for item in found.versus}
    rows = {}
    for standing in found.ranking:
        value, item = standing.metrics[found.metric], against.get(standing.name)
        row: dict[str, Any] = {found.metric: value.value, "ci_low": value.ci_low, "ci_high": value.ci_high}
        if standing.n_seeds > 1:
            row |= {"sd": standing.sd, "n_seeds": standing.n_seeds}
        if item is None:
            row |= {"verdict": "baseline, not tested" if standing.is_baseline else "reference"}
        else:
            row |= {"minus_reference": item.comparison.delta, "p_value_holm": item.comparison.p_value_holm}
            row |= {"verdict": item.comparison.verdict, "n_fixed": item.n_fixed, "n_broken": item.n_broken}
        rows[standing.name] = row
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), compare, argv)


if __name__ == "__main__":
    raise SystemExit(main())
