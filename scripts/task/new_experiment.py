#!/usr/bin/env python3
"""Writes configs/<name>.yaml, a whole config that differs from its parent's in one thing; the ledger gets a line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tasklib import cli
from tasklib.summary import Summary


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "new_experiment",
        "Write one whole config for one hypothesis. Parent and hypothesis are kept in it and in docs/EXPERIMENTS.md;\n"
        "several unrelated changes at once are refused. Without --set the data must have changed since the parent\n"
        "was trained: then they are the change. Comments of the parent's file are not carried over.",
        [
            "uv run python scripts/new_experiment.py --from baseline --name lr-5e-4 "
            "--hypothesis 'the loss still falls at the end' --set training.learning_rate=5e-4",
            "uv run python scripts/new_experiment.py --from baseline --name labels-checked "
            "--hypothesis '40 wrong labels were corrected'",
        ],
    )
    cli.add_task_flags(parser, __file__)
    parser.add_argument("--from", dest="parent", metavar="RUN", default="baseline", help="parent (default: baseline)")
    parser.add_argument("--name", help="name of the new run, and of its config")
    parser.add_argument("--hypothesis", help="what should change, and why")
    cli.add_set_flag(parser, "what differs from the parent")
    parser.add_argument("--allow-several", action="store_true", help="several unrelated changes at once")
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    return parser


def new_experiment(args: argparse.Namespace) -> Summary:
    from tasklib import schema
    from tasklib.iterating import experiments, ledger
    from tasklib.paths import task_paths

    paths = task_paths(args.task_dir)
    missing = [flag for flag, value in (("--name", args.name), ("--hypothesis", args.hypothesis)) if value is None]
    if missing:
        raise cli.UsageError(f"{' and '.join(missing)} must be given")
    definition = schema.load_definition(paths.definition)
    experiments.require_config(paths, args.parent, "--from")
    made = experiments.plan(
        paths,
        definition,
        parent=args.parent,
        name=args.name,
        hypothesis=args.hypothesis,
        overrides=args.overrides,
        allow_several=args.allow_several,
    )
    outputs = {}
    if not args.dry_run:
        path = experiments.write(paths, made)
        ledger.record_experiment(paths, definition, made)
        outputs = {"config": paths.shown(path), "ledger": paths.shown(paths.ledger)}
    return Summary.of(
        "new_experiment",
        run=made.name,
        outputs={**outputs, "changes": [c.to_text() for c in made.changes] + made.data_changes},
        counts={"changes": len(made.groups)},
        next=f"bash scripts/run_pipeline.sh --config configs/{made.name}.yaml --until evaluate",
    )


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), new_experiment, argv)


if __name__ == "__main__":
    raise SystemExit(main())
