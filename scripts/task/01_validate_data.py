#!/usr/bin/env python3
"""Checks the raw data against task_definition.yaml and writes docs/: the data report and the two guides."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections.abc import Sequence

from tasklib import cli
from tasklib.summary import Summary, TaskError

ROWS_OF_OFFSETS = 1000  # that are read in each way
EXAMPLES_OF_A_LABEL, EXAMPLES_AMONG_ROWS = 3, 10_000  # what the annotation guide shows, and how far it looks


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "validate",
        "Check every raw row against task_definition.yaml: all that is wrong at once; raw files are never changed.",
        [
            "uv run python scripts/01_validate_data.py",
            "uv run python scripts/01_validate_data.py --near-duplicates 0.8 --json",
            "uv run python scripts/01_validate_data.py --fix",
        ],
    )
    cli.add_task_flags(parser, __file__)
    parser.add_argument(
        "--near-duplicates",
        nargs="?",
        type=float,
        const=0.8,
        metavar="SIMILARITY",
        help="also list texts that are nearly equal (Jaccard similarity of character n-grams, default 0.8)",
    )
    parser.add_argument(
        "--fix",
        action="store_true",
        help="write a cleaned copy beside each raw file, with a log, for what can be mended without judgement",
    )
    parser.add_argument(
        "--decide",
        action="store_true",
        help="write data/decisions.csv: texts with two labels, for a person to decide",
    )
    parser.add_argument("--dry-run", action="store_true", help="check, but write nothing")
    return parser


def validate(args: argparse.Namespace) -> Summary:
    from tasklib import schema
    from tasklib.data import data_checks, data_report, dataset, decisions
    from tasklib.paths import task_paths

    if args.near_duplicates is not None and not 0.3 <= args.near_duplicates < 1:
        raise cli.UsageError(f"--near-duplicates must lie between 0.3 and 1, got {args.near_duplicates:g}")
    paths = task_paths(args.task_dir)
    definition = schema.load_definition(paths.definition)
    if args.decide:
        decisions.require_labels(definition)
    data = dataset.scan(paths, definition)
    if args.near_duplicates is not None:
        _add_near_duplicates(paths, definition, data, args.near_duplicates)
    if "chosen" in definition.task_type.FIELDS:
        records = (example.record for example in dataset.examples(paths, definition))
        data_checks.add_length_bias(data, itertools.islice(records, EXAMPLES_AMONG_ROWS))
    if "entities" in definition.data.fields and hasattr(definition.task, "offsets"):
        beginning = itertools.islice(dataset.raw_examples(paths, definition), ROWS_OF_OFFSETS)
        fields = definition.data.fields.items()
        rows = [{role: row.values.get(column) for role, column in fields} for row, _ in beginning]
        data_checks.add_doubtful_offsets(data, definition, rows)
    outputs = {} if args.dry_run else _write_documents(paths, definition, data)
    counts = {"rows": data.n_rows, "readable": len(data.index)}
    if data.n_decided:
        counts["decided"] = data.n_decided
    report = {
        "warnings": data.findings.warnings,
        "counts": counts,
        "totals": data.findings.totals,
        "metrics": _labels(data) | data_report.interval(definition, data),
    }
    hint = _fix(args, paths, definition, outputs) or _decide(args, paths, definition, data, outputs)
    if data.findings.errors:
        after = _after_errors(data.findings.errors)
        raise TaskError(cli.ExitCode.DATA, data.findings.errors, **report, outputs=outputs, next=hint or after)
    return Summary.of("validate", **report, outputs=outputs, next=hint or "uv run python scripts/02_convert_format.py")


def _labels(data) -> dict[str, dict[str, int]]:
    """How many rows each label has, where the rows have labels."""
    counts = dict(data.label_counts())
    return {"labels": counts} if counts else {}


def _add_near_duplicates(paths, definition, data, threshold: float) -> None:
    from tasklib.data import data_checks, dataset, near_duplicates

    if data.findings.errors:
        return  # rows that cannot be read have no place among the pairs
    texts = (definition.task_type.text_of(example.record) for example in dataset.examples(paths, definition))
    data_checks.add_near_duplicates(data, near_duplicates.pairs(texts, threshold))


def _write_documents(paths, definition, data) -> dict[str, str]:
    from tasklib import files, schema
    from tasklib.data import data_report, dataset, decisions
    from tasklib.export import parity
    from tasklib.paths import config_path
    from tasklib.writing import guides

    records = (example.record for example in dataset.examples(paths, definition))
    lengths = data_report.answer_lengths(definition, itertools.islice(records, EXAMPLES_AMONG_ROWS))
    texts = {paths.data_report: data_report.render(definition, data, lengths)}
    decided = list(decisions.load(paths, definition).values())
    found = decisions.contradictions(paths, definition, data.index)
    shown = _examples(paths, definition, data)
    rows = dataset.short_examples(paths, definition)
    texts[paths.annotation_guide] = guides.annotation_guide(
        definition, shown, decided, found, [row.values for row, _ in rows]
    )
    with contextlib.suppress(TaskError):  # a config that is wrong stops 03_train.py, not the check of the data
        config = schema.load_config(config_path(paths, "configs/baseline.yaml"))
        texts[paths.integration_guide] = guides.integration_guide(
            definition, config, parity.newest(paths), rows[0][1].record if rows else None
        )
    for path, text in texts.items():
        files.write_text(path, text)
    files.write_json(paths.data_report_json, data_report.as_json(paths, definition, data, lengths))
    outputs = {path.stem: paths.shown(path) for path in texts}
    return {**outputs, "data_report_json": paths.shown(paths.data_report_json)}


def _examples(paths, definition, data) -> dict[str, list[str]]:
    """Label -> its first few texts, out of the first rows that can be read."""
    from tasklib.data import dataset

    found: dict[str, list[str]] = {}
    wanted = set(data.label_counts())
    for n_rows, example in enumerate(dataset.examples(paths, definition)):
        text = definition.task_type.text_of(example.record)
        for label in definition.task_type.strata(example.record):
            kept = found.setdefault(label, [])
            if len(kept) < EXAMPLES_OF_A_LABEL and text not in kept:
                kept.append(text)
            if len(kept) == EXAMPLES_OF_A_LABEL:
                wanted.discard(label)
        if not wanted or n_rows == EXAMPLES_AMONG_ROWS:
            break
    return found


def _fix(args, paths, definition, outputs: dict[str, str]) -> str | None:
    from tasklib.data import fixing

    if not args.fix:
        return None
    fixed = fixing.fix(paths, definition, dry_run=args.dry_run)
    outputs["fixed"] = [
        {"source": f.source, "copy": f.copy, "log": f.log, "changes": dict(f.changes), "left_out": f.left_out}
        for f in fixed
    ]
    if not fixed:
        return None
    return (
        "read the log; then, in data.files, put the plain path of each copy in the place of the whole old entry, its "
        "encoding, quoting, columns, sheet and steps included: " + "; ".join(f.to_text() for f in fixed)
    )


def _after_errors(errors) -> str:
    """What to do next: label first where there is no file, mend what can be mended, correct the rest by hand."""
    if all(problem.code == "file_missing" for problem in errors):
        return "put the file there; to label texts with the help of a model: uv run python scripts/label_with.py --help"
    if any("--fix" in (problem.hint or "") for problem in errors):
        return "uv run python scripts/01_validate_data.py --fix"
    return "put a corrected copy into data/raw/, name it in data.files of task_definition.yaml, run again"


def _decide(args, paths, definition, data, outputs: dict[str, str]) -> str | None:
    from tasklib.data import decisions

    if not args.decide:
        return None
    found = decisions.contradictions(paths, definition, data.index)
    if not found or args.dry_run:
        return None
    decisions.add_to_sheet(paths.decisions, found)
    outputs["decisions"] = paths.shown(paths.decisions)
    return f"fill in the column `label`, then write `decisions: {paths.shown(paths.decisions)}` below `data:`"


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), validate, argv)


if __name__ == "__main__":
    raise SystemExit(main())
