#!/usr/bin/env python3
"""The rows most worth a person's time: `suggest` writes them into a sheet, `merge` takes the filled sheet back."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasklib import cli
from tasklib.summary import Problem, Summary, TaskError

# The flags of one action, with their defaults; the other action refuses them.
SUGGEST = {
    "config": "configs/baseline.yaml",
    "rows": 50,
    "splits": ["train", "validation"],
    "pool": None,
    "force": False,
}
MERGE = {"file": None}
CONVERT = "uv run python scripts/02_convert_format.py"


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "suggest_labels",
        "suggest: write the rows that a person should look at into data/labelling/to_check.csv: labels that look\n"
        "wrong (confident learning: by the run's own answers on validation, elsewhere by TF-IDF out of fold) and, of\n"
        "the texts without a label in --pool, those that the run is least sure of and those unlike the known ones.\n"
        "Looking wrong is no proof: in clean data most of these labels are right. Nothing but a person decides.\n"
        "merge: take the filled sheet back as a new version of the raw data with a diff. The split is frozen in its\n"
        "files, so that no row changes sides.",
        [
            "uv run python scripts/suggest_labels.py suggest --config configs/baseline.yaml",
            "uv run python scripts/suggest_labels.py suggest --pool unlabelled.csv --rows 90",
            "uv run python scripts/suggest_labels.py merge --dry-run",
            "uv run python scripts/suggest_labels.py merge data/labelling/to_check.csv",
        ],
    )
    cli.add_task_flags(parser, __file__)
    add = parser.add_argument
    add("action", nargs="?", choices=["suggest", "merge"], help="what to do")
    add("file", nargs="?", type=Path, metavar="FILE", help="merge: the sheet (default: data/labelling/to_check.csv)")
    add("--config", help=f"suggest: the run whose answers are used (default: {SUGGEST['config']})")
    add("--rows", type=cli.positive_int, metavar="N", help="suggest: how many rows at most (default: 50)")
    add(
        "--splits",
        nargs="+",
        choices=["train", "validation", "test"],
        help="suggest: where to look for wrong labels (default: train validation)",
    )
    add("--pool", type=Path, metavar="FILE", help="suggest: texts without a label; .txt (one a line), table or JSON")
    add("--force", action="store_true", default=None, help="suggest: move a sheet aside that is not merged yet")
    add("--dry-run", action="store_true", help="check everything, write nothing")
    return parser


def suggest_labels(args: argparse.Namespace) -> Summary:
    from tasklib import schema
    from tasklib.paths import task_paths

    paths = task_paths(args.task_dir)
    if args.action is None:
        raise cli.UsageError("say what to do: suggest or merge")
    own, others = (SUGGEST, MERGE) if args.action == "suggest" else (MERGE, SUGGEST)
    cli.take_flags(args, own, others)
    definition = schema.load_definition(paths.definition)
    return (suggest if args.action == "suggest" else merge)(args, paths, definition)


def suggest(args: argparse.Namespace, paths: Any, definition: Any) -> Summary:
    from tasklib import files, schema
    from tasklib.iterating import check_sheet, suggestions
    from tasklib.paths import config_path
    from tasklib.training import runs

    config_file = config_path(paths, args.config)
    config, name = schema.load_config(config_file, (), args.config), runs.run_name(config_file, None)
    labelled = suggestions.labelled_rows(paths, definition)
    sheet, confirmed = check_sheet.sheet_file(paths), check_sheet.memory(paths)
    to_move = _require_merged(paths, sheet, confirmed, force=args.force)
    labels = list(definition.task_type.label_set(definition.task))
    by_run = suggestions.probabilities_of_run(paths, name, args.splits, labels)
    wrong = suggestions.mislabelled(labelled, by_run, args.splits, labels, confirmed)
    pool, from_pool, warnings = _from_pool(args, paths, definition, config, name, labelled, len(wrong))
    rows = wrong[: args.rows - len(from_pool)] + from_pool
    by_reason = Counter(row.reason for row in rows)
    counts = {"labelled": len(labelled), "look_wrong": len(wrong), "rows": len(rows), **by_reason}
    if pool:
        counts |= {"pool": len(pool.rows), "pool_known": pool.n_known, "pool_near_duplicates": pool.n_near}
    warnings += _warnings(args, by_run, name, labelled, rows)
    report = {"run": name, "counts": counts, "warnings": warnings}
    if args.dry_run or not rows:
        after = "the same command without --dry-run" if args.dry_run else None
        return Summary.of("suggest_labels", **report, next=after)
    text, outputs = check_sheet.sheet_text(rows), {"sheet": paths.shown(sheet)}
    done = sheet.is_file() and sheet.read_bytes() == text.encode()
    if to_move:
        outputs["moved_aside"] = paths.shown(check_sheet.move_aside(sheet))
    shown = {row.text_key for row in rows}
    check_sheet.write_pool(sheet, [row for row in pool.rows if row.text_key in shown] if pool else [])
    files.write_text(sheet, text)
    after = "uv run python scripts/suggest_labels.py merge"
    return Summary.of("suggest_labels", "skipped" if done else "ok", **report, outputs=outputs, next=after)


def _require_merged(paths: Any, sheet: Path, confirmed: dict[str, str], *, force: bool) -> bool:
    """Whether the sheet has to be moved aside. Raises TaskError (exit 2) where somebody wrote in it, it was not merged,
    and nobody said --force."""
    from tasklib.iterating import check_sheet

    if not sheet.is_file():
        return False
    rows, problems = check_sheet.read(sheet, paths.shown(sheet))
    open_rows = check_sheet.unmerged(rows, confirmed)
    if not (open_rows or problems) or force:
        return bool(open_rows or problems)
    what = f"{len(open_rows)} rows are filled in and not merged" if open_rows else "it cannot be read as a sheet"
    problem = Problem(
        code="sheet_not_merged",
        message=f"the sheet would be overwritten, but {what}",
        file=paths.shown(sheet),
        line=open_rows[0].line if open_rows else None,
        hint="run scripts/suggest_labels.py merge first, or give --force: it moves the sheet aside",
    )
    raise TaskError(cli.ExitCode.USAGE, [problem], next="uv run python scripts/suggest_labels.py merge")


def _from_pool(
    args: argparse.Namespace, paths: Any, definition: Any, config: Any, name: str, labelled: list[Any], n_wrong: int
) -> tuple[Any, list[Any], list[Problem]]:
    """The pool without what is known, its rows for the sheet, and warnings; (None, [], []) without --pool."""
    from tasklib.iterating import suggestions

    if not args.pool:
        return None, [], []
    pool, problems = suggestions.read_pool(args.pool, definition)
    if problems:
        raise TaskError(cli.ExitCode.DATA, problems)
    held_out = suggestions.held_out_groups(paths, definition, labelled)
    pool = suggestions.unknown(pool, labelled, held_out, definition)
    probabilities = _answered(paths, definition, config, name, pool.records)
    n, has_any = len(pool.rows), probabilities is not None
    available = {"likely_mislabelled": n_wrong, "uncertain": n if has_any else 0, "diverse": n}
    share = suggestions.shares(args.rows, available)
    share["diverse"] = min(share["diverse"], n - min(n, share["uncertain"]))
    chosen = suggestions.from_pool(pool, probabilities, labelled, definition, share["uncertain"], share["diverse"])
    warnings = []
    if not pool.rows:
        message = f"every text of {args.pool} is known, or nearly the same as one that is"
        hint = "give other texts; data.split.near_duplicates says what is nearly the same"
        warnings.append(Problem(code="pool_known", message=message, file=str(args.pool), hint=hint))
    elif not has_any:
        message = (
            "evaluation.decoding is generate: answers without probabilities, so that no text is known as uncertain"
        )
        hint = "all rows from the pool were chosen for being different"
        warnings.append(Problem(code="no_probabilities", message=message, field="evaluation.decoding", hint=hint))
    return pool, chosen, warnings


def _answered(paths: Any, definition: Any, config: Any, name: str, records: list[Any]) -> Any:
    """Probabilities of the run for texts without a label, shape (n_rows, n_labels); None under generate. Raises
    TaskError (exit 4) where the run is not finished or its prompt renders otherwise today, exit 2 where it was made
    from another config, definition or data."""
    import numpy as np

    from tasklib import progress
    from tasklib.answering import inference
    from tasklib.data import conversion
    from tasklib.model import models, prompts, tokenized
    from tasklib.training import runs

    record = runs.finished_run(paths, name)
    hint = "suggest with the config it was trained with, or train again"
    runs.require_same_identity(record, runs.identity(config, definition, paths), name, hint)
    if definition.evaluation.decoding != "score":
        return None
    tokenizer = models.load_tokenizer(config.base_model)
    inference.require_same_prompt(tokenizer, definition, record.prompt_sha256, name)
    train = conversion.load_split(paths, "train")
    shots = prompts.choose_shots(definition, [definition.task_type.Record(**row["record"]) for row in train])
    prefix = prompts.prefix_messages(definition, shots if definition.prompt.n_few_shot else [])
    rows = [{"record": r.model_dump(), "prompt": prompts.follow_up(prefix, definition, r)} for r in records]
    conversations, _ = tokenized.fitted(tokenizer, definition, config, rows)
    model = models.load_trained(config, paths.run(name))
    prior = inference.prior(definition, config, train)
    with progress.bar("answer the pool", len(rows), "text") as bar:
        batches = inference.answers(definition, config, model, tokenizer, conversations, prior)
        answers = inference.in_order(progress.counted(batches, bar), len(rows))
    labels = list(definition.task_type.label_set(definition.task))
    return np.array([[a.probabilities[label] for label in labels] for a in answers]).reshape(len(rows), len(labels))


def _warnings(
    args: argparse.Namespace, by_run: dict[str, Any], name: str, labelled: list[Any], rows: list[Any]
) -> list[Problem]:
    from tasklib.writing import labelling

    warnings = []
    if "test" in args.splits:
        message = "labels of test that are corrected after a look at its answers bend the score"
        hint = "correct test only by a rule that does not look at the answers, or check all of its rows"
        warnings.append(Problem(code="test_labels", message=message, field="--splits", hint=hint))
    if not by_run and any(row.split == "validation" for row in labelled) and "validation" in args.splits:
        message = f"run {name!r} has no probabilities for validation: a TF-IDF classifier judges it instead"
        hint = f"uv run python scripts/04_evaluate.py --config {args.config} --split validation, then suggest again"
        warnings.append(Problem(code="run_not_evaluated", message=message, hint=hint))
    if long := [row for row in rows if len(row.text) > labelling.MAX_CELL_CHARACTERS]:
        message = f"{len(long)} texts have more characters than a cell of Excel holds (first: {long[0].id})"
        hint = "fill the sheet with another program: a text that was cut is refused by merge"
        warnings.append(Problem(code="long_text", message=message, hint=hint))
    if not rows:
        hint = "give texts without a label with --pool FILE, or look at other --splits"
        warnings.append(
            Problem(code="nothing_to_check", message="no label looks wrong; no sheet was written", hint=hint)
        )
    return warnings


def merge(args: argparse.Namespace, paths: Any, definition: Any) -> Summary:
    from tasklib.data import conversion, dataset, decisions, label_sheets, raw_versions
    from tasklib.iterating import check_sheet

    label_sheets.label_role(definition)
    usual = check_sheet.sheet_file(paths)
    sheet = args.file or usual
    shown = paths.shown(sheet)
    if not sheet.is_file():
        hint = "scripts/suggest_labels.py suggest writes one; a FILE is looked for from the current folder"
        problem = Problem(code="no_sheet", message=f"there is no sheet {shown}", file=shown, hint=hint)
        after = "uv run python scripts/suggest_labels.py suggest"
        raise TaskError(cli.ExitCode.PREREQUISITE, [problem], next=after)
    rows, problems = check_sheet.read(sheet, shown)
    if problems:
        raise TaskError(cli.ExitCode.DATA, problems)
    data = dataset.scan(paths, definition)
    if data.findings.errors:
        after = "uv run python scripts/01_validate_data.py"
        raise TaskError(cli.ExitCode.DATA, data.findings.errors, totals=data.findings.totals, next=after)
    splits = conversion.plan(paths, definition, data).splits
    known = raw_versions.rows_of(paths, definition, splits, {row.text_key for row in rows})
    pool = check_sheet.read_pool(usual) | check_sheet.read_pool(sheet)
    today = check_sheet.Today(known, pool, decisions.load(paths, definition))
    checked = check_sheet.checked(rows, today, definition, shown)
    if not checked:
        hint = "write a label into checked_label; a row that is left empty stays as it is"
        problem = Problem(code="nothing_checked", message="no row has a checked_label", file=shown, hint=hint)
        raise TaskError(cli.ExitCode.DATA, [problem])
    found = raw_versions.changes(checked, known, pool)
    return _merged(args, paths, definition, splits, rows, checked, found, pool)


def _merged(
    args: argparse.Namespace,
    paths: Any,
    definition: Any,
    splits: list[str],
    rows: list[Any],
    checked: list[Any],
    found: list[Any],
    pool: dict[str, Any],
) -> Summary:
    """Writes version, definition and memory, in this order: what was interrupted is made whole by the next call."""
    from tasklib import files
    from tasklib.data import raw_versions
    from tasklib.iterating import check_sheet

    corrected = [change for change in found if change.old]
    keys = {change.text_key for change in found}
    counts = {"filled": sum(bool(row.checked_label) for row in rows), "corrected_rows": len(corrected)}
    counts |= {"new_rows": len(found) - len(corrected), "confirmed": sum(c.text_key not in keys for c in checked)}
    pairs = Counter(f"{change.old or '(none)'} -> {change.new}" for change in found)
    report: dict[str, Any] = {"counts": counts, "metrics": {"changed": dict(pairs)} if pairs else {}}
    report["warnings"] = _test_changed(found) + _validation_changed(found)
    edited = _edited(paths, splits) if found else None
    if args.dry_run:
        return Summary.of("suggest_labels", **report, next="the same command without --dry-run")
    outputs: dict[str, Any] = {}
    if found:
        named = raw_versions.write(paths, definition, splits, found, pool)
        files.write_text(paths.definition, edited(named))
        folder = Path(named["train"]).parent
        outputs = {
            "version": str(folder),
            "changes": str(folder / raw_versions.CHANGES),
            "experiment": _experiment(counts),
        }
    is_new = check_sheet.remember(paths, checked)
    status = "ok" if found or is_new else "skipped"
    return Summary.of("suggest_labels", status, **report, outputs=outputs, next=CONVERT)


def _edited(paths: Any, splits: list[str]) -> Any:
    """The files of the new version -> the text of the definition that names them. It is tried before anything is
    written, and raises TaskError (exit 2) where a person must edit it."""
    from tasklib.data import raw_versions

    with paths.definition.open(encoding="utf-8", newline="") as stream:
        text = stream.read()
    shown = paths.shown(paths.definition)
    raw_versions.edited_definition(text, shown, {name: f"data/raw/v/{name}.jsonl" for name in _in_order(splits)})
    return lambda files: raw_versions.edited_definition(text, shown, files)


def _in_order(splits: list[str]) -> list[str]:
    found = set(splits)
    return [name for name in ("train", "validation", "test") if name in found]


def _test_changed(found: list[Any]) -> list[Problem]:
    n_test = sum(change.split == "test" for change in found)
    if not n_test:
        return []
    message = f"{n_test} labels of test change: earlier scores were measured against the old ones"
    hint = "evaluate every run again that you compare"
    return [Problem(code="test_labels", message=message, hint=hint)]


def _validation_changed(found: list[Any]) -> list[Problem]:
    n = sum(change.split == "validation" and bool(change.old) for change in found)
    if not n:
        return []
    message = f"{n} labels of validation change; rows were chosen where a run disagreed, which favours that run"
    hint = "compare_runs.py compares old and new runs on today's labels; the difference to that run alone is optimistic"
    return [Problem(code="validation_labels", message=message, hint=hint)]


def _experiment(counts: dict[str, int]) -> str:
    """The change of the data is one experiment: no other setting changes with it."""
    hypothesis = f"{counts['corrected_rows']} labels were corrected, {counts['new_rows']} rows are new"
    return (
        "uv run python scripts/new_experiment.py --from <run> --name labels-checked "
        f"--hypothesis '{hypothesis}'  # after {CONVERT}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), suggest_labels, argv)


if __name__ == "__main__":
    raise SystemExit(main())
