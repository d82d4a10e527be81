#!/usr/bin/env python3
"""Answers texts with a trained run: arguments, a file, or standard input in; one JSON object out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasklib import cli
from tasklib.summary import Problem, Summary, TaskError


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "predict",
        "Answer texts with a trained run. stdout is one JSON object; `predictions` holds one entry for each text.",
        [
            "uv run python scripts/predict.py '第三季毛利率低於市場預期'",
            "uv run python scripts/predict.py --file new.csv --output answers.jsonl",
            "cat texts.txt | uv run python scripts/predict.py",
        ],
    )
    cli.add_task_flags(parser, __file__)
    cli.add_run_flags(parser)
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to answer")
    parser.add_argument(
        "--file", type=Path, help=".txt (one text a line), or .jsonl .json .csv .tsv with the data's columns"
    )
    parser.add_argument(
        "--output", type=Path, help="write one JSON line for each text here instead of into the summary"
    )
    return parser


def predict(args: argparse.Namespace) -> Summary:
    from tasklib import files, inference, models, progress, runs, schema, tokenized
    from tasklib.paths import config_path, task_paths

    paths = task_paths(args.task_dir)
    definition = schema.load_definition(paths.definition)
    config_file = config_path(paths, args.config)
    config = schema.load_config(config_file, args.overrides, args.config)
    name = runs.run_name(config_file, args.limit)
    record = runs.finished_run(paths, name)
    runs.require_same_identity(
        record,
        runs.identity(config, definition, paths),
        name,
        "predict with the config it was trained with, or train again",
    )
    asked = _rows(args, paths, definition)[: args.limit]
    tokenizer = models.load_tokenizer(config.base_model)
    inference.require_same_prompt(tokenizer, definition, record.prompt_sha256, name)
    conversations, shortened = tokenized.fitted(tokenizer, definition, config, asked)
    model = models.load_trained(config, paths.run(name))
    prior = _prior(paths, definition, config, args.limit)
    batches = inference.answers(definition, config, model, tokenizer, conversations, prior)
    with progress.bar("predict", len(asked), "text") as bar:
        answers = inference.in_order(progress.counted(batches, bar), len(asked))
    rows = [
        {
            "text": definition.task_type.text_of(definition.task_type.Record(**row["record"])),
            "prediction": a.prediction,
            "probabilities": a.probabilities,
            "raw_output": a.raw_output,
            "parsed": a.prediction is not None,
        }
        for row, a in zip(asked, answers, strict=True)
    ]
    outputs: dict[str, Any] = {"predictions": rows}
    if args.output:
        files.write_jsonl(args.output, rows)
        outputs = {"predictions_file": str(args.output)}
    return Summary.of(
        "predict", run=name, counts={"rows": len(rows)}, warnings=_shortened(asked, shortened), outputs=outputs
    )


def _shortened(asked: list[dict[str, Any]], shortened: list[int]) -> list[Problem]:
    """A warning for each text of which the model read only a part."""
    return [
        Problem(
            code="text_shortened",
            message="the text was cut by prompt.shorten, as in training",
            file=asked[position]["source"]["file"],
            line=asked[position]["source"]["line"],
        )
        for position in shortened
    ]


def _prior(paths: Any, definition: Any, config: Any, limit: int | None) -> Any:
    """The correction of label probabilities by the shares in train, where the config asks for it."""
    from tasklib import conversion, inference

    if not config.imbalance.prior_correction:
        return None
    return inference.prior(definition, config, conversion.load_split(paths, "train")[:limit])


def _rows(args: argparse.Namespace, paths: Any, definition: Any) -> list[dict[str, Any]]:
    """The rows to answer as the rows of a split are: `{source, record, prompt}`."""
    from tasklib import prompts

    records = _records(args, definition)
    prefix = _prefix(paths, definition)
    return [
        {
            "source": {"file": file, "line": line},
            "record": record.model_dump(),
            "prompt": [*prefix, prompts.user_message(definition, record)],
        }
        for file, line, record in records
    ]


def _prefix(paths: Any, definition: Any) -> list[dict[str, str]]:
    """The system message and worked examples exactly as the rows of validation and test have them."""
    from tasklib import conversion, prompts

    if not definition.prompt.n_few_shot:
        return prompts.prefix_messages(definition, [])
    rows = conversion.load_split(paths, "train")
    records = [definition.task_type.Record(**row["record"]) for row in rows]
    return prompts.prefix_messages(definition, prompts.choose_shots(definition, records))


def _records(args: argparse.Namespace, definition: Any) -> list[tuple[str, int, Any]]:
    """(file, line, record) of each row to answer, checked. Raises TaskError (exit 2 for no input, exit 3 with every bad
    row)."""
    from tasklib.records import Row, read_rows

    module, fields = definition.task_type, definition.data.fields
    if args.file and args.texts:
        raise TaskError(
            cli.ExitCode.USAGE,
            [Problem(code="usage", message="give texts or --file, not both", hint="run with --help")],
        )
    if args.file and args.file.suffix.lower() != ".txt":
        rows = list(read_rows(args.file, str(args.file)))
    else:
        role = module.INPUT_FIELDS[0]
        rows = [Row({fields[role]: text}, source, line) for source, line, text in _plain_texts(args)]
    records, problems = [], [row for row in rows if isinstance(row, Problem)]
    for row in rows:
        if isinstance(row, Problem):
            continue
        values = {role: row.values.get(fields[role]) for role in module.INPUT_FIELDS}
        record, faults = module.read_input(values, definition.task)
        problems += [
            Problem(code=f.code, message=f.message, file=row.file, line=row.line, field=fields[f.role], hint=f.hint)
            for f in faults
        ]
        if record is not None:
            records.append((row.file, row.line, module.normalized(record, definition.data.normalize)))
    if problems:
        raise TaskError(cli.ExitCode.DATA, problems)
    if not records:
        raise TaskError(
            cli.ExitCode.USAGE,
            [
                Problem(
                    code="no_input", message="there is no text to answer", hint="give texts, --file, or standard input"
                )
            ],
        )
    return records


def _plain_texts(args: argparse.Namespace) -> list[tuple[str, int, str]]:
    """(source, line, text): arguments as they are; otherwise the non-blank lines of the file or of standard input."""

    if args.texts:
        return [("argument", n, text) for n, text in enumerate(args.texts, start=1)]
    try:
        if args.file:
            source, text = str(args.file), args.file.read_text(encoding="utf-8-sig")
        else:
            source, text = "stdin", "" if sys.stdin.isatty() else sys.stdin.buffer.read().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(
            code="file_unreadable",
            message=str(error),
            file=str(args.file or "stdin"),
            hint="give an existing file in UTF-8",
        )
        raise TaskError(cli.ExitCode.USAGE, [problem]) from None
    return [(source, n, line) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    if "--json" not in argv and not {"-h", "--help"} & set(argv):
        argv.append("--json")  # predict always answers in JSON
    return cli.run(build_parser(), predict, argv)


if __name__ == "__main__":
    raise SystemExit(main())
