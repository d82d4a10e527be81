#!/usr/bin/env python3
"""Makes preference pairs for dpo and orpo: the gold answers of training rows against the run's own wrong ones."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from typing import Any

from tasklib import cli
from tasklib.summary import Problem, Summary

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "make_preferences",
        "Let a finished run answer rows of train (never of validation or test) and write the pairs that dpo and orpo\n"
        "learn from to data/preferences/. Under decoding score the rejected answer is the likeliest wrong label of a\n"
        "row that is answered wrong or unsurely; under generate it is what the run wrote, where that is wrong.\n"
        "A training row that the run gets wrong may be labelled wrong: look at suggest_labels.py first.",
        [
            "uv run python scripts/make_preferences.py",
            "uv run python scripts/make_preferences.py --config configs/lr-1e-4.yaml --max-probability 0.7 --json",
            "uv run python scripts/make_preferences.py --samples 4 --temperature 0.8 --output sampled",
        ],
    )
    cli.add_task_flags(parser, __file__)
    add = parser.add_argument
    add("--config", default="configs/baseline.yaml", help="config of the run that answers (default: %(default)s)")
    cli.add_set_flag(parser, "what the run was trained with beside its config")
    add("--limit", type=cli.positive_int, metavar="N", help="ask at most N training rows, evenly spaced (default: 400)")
    add(
        "--max-probability",
        type=_share,
        default=0.9,
        metavar="P",
        help="score: rows whose gold label gets less are pairs, right or wrong (default: %(default)s)",
    )
    add("--samples", type=cli.positive_int, metavar="N", help="generate: draw N more answers for each row")
    add("--temperature", type=_temperature, metavar="T", help="--samples: 1.0 draws as likely as they are (default)")
    add("--output", metavar="NAME", help="name of the file in data/preferences/ (default: that of the run)")
    add("--force", action="store_true", help="make them again, and replace a file that was changed by hand")
    add("--dry-run", action="store_true", help="check task, run and flags; load no model, write nothing")
    return parser


def _share(text: str) -> float:
    return _number(text, 1.0)


def _temperature(text: str) -> float:
    return _number(text, 5.0)


def _number(text: str, highest: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= highest:
        raise argparse.ArgumentTypeError(f"must be a number above 0 and at most {highest:g}, got {text!r}")
    return value


def make_preferences(args: argparse.Namespace) -> Summary:
    from tasklib import schema
    from tasklib.iterating import preferences
    from tasklib.paths import config_path, task_paths
    from tasklib.scoring import systems
    from tasklib.training import runs

    paths = task_paths(args.task_dir)
    definition = schema.load_definition(paths.definition)
    wanted = _wanted(args)
    preferences.require_makeable(definition, wanted)
    config_file = config_path(paths, args.config)
    config = schema.load_config(config_file, args.overrides, args.config)
    name = runs.run_name(config_file, None)
    flags = shlex.join(["--config", args.config, *(word for o in args.overrides for word in ("--set", o))])
    (run,) = systems.finished_runs(paths, definition, config, name, 1, flags)
    path = preferences.path_of(paths, args.output or name)
    inputs = preferences.inputs_of(paths, definition, run, wanted)
    if not args.force:
        if preferences.is_current(path, inputs):
            return _summary(args, paths, name, path, preferences.read_counts(path), skipped=True)
        preferences.require_replaceable(paths, path)
    if args.dry_run:
        return Summary.of("make_preferences", run=name, outputs={"would_write": paths.shown(path)})
    made = preferences.make(paths, definition, run, wanted)
    preferences.save(path, made)
    return _summary(args, paths, name, path, made.counts, skipped=False)


def _wanted(args: argparse.Namespace) -> Any:
    """Raises UsageError for flags that mean nothing together."""
    from tasklib.iterating.preferences import Wanted

    if args.temperature is not None and args.samples is None:
        raise cli.UsageError("--temperature has no meaning without --samples")
    if args.output is not None and not NAME.fullmatch(args.output):
        raise cli.UsageError(f"--output {args.output!r} is no name: lower case, digits, dots and hyphens")
    return Wanted(
        n_rows=args.limit or Wanted.n_rows,
        max_probability=args.max_probability,
        n_samples=args.samples or 0,
        temperature=args.temperature or Wanted.temperature,
    )


def _summary(
    args: argparse.Namespace, paths: Any, name: str, path: Any, counts: dict[str, int], *, skipped: bool
) -> Summary:
    from tasklib.iterating import preferences

    warnings = []
    if counts["pairs"] < preferences.FEW_PAIRS:
        message = f"only {counts['pairs']} pairs: they will be learned by heart, and no eval_loss will show it"
        hint = "ask more rows with --limit, raise --max-probability, or sample answers with --samples"
        warnings.append(Problem(code="few_pairs", message=message, file=paths.shown(path), hint=hint))
    return Summary.of(
        "make_preferences",
        "skipped" if skipped else "ok",
        run=name,
        outputs={"pairs": paths.shown(path), "manifest": paths.shown(path.with_suffix(".json"))},
        counts=counts,
        warnings=warnings,
        next=preferences.next_command(paths, name, path),
    )


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), make_preferences, argv)


if __name__ == "__main__":
    raise SystemExit(main())
