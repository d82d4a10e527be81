#!/usr/bin/env python3
"""Answers texts with a trained run: arguments, a file, or standard input in; one JSON object out."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklib import cli
from tasklib.summary import Problem, Summary, TaskError

PARALLEL, TIMEOUT_S = 4, 120  # requests at a time to a server, and how long one may take


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "predict",
        "Answer texts with a trained run. stdout is one JSON object; `predictions` holds one entry for each text.",
        [
            "uv run python scripts/predict.py '第三季毛利率低於市場預期'",
            "uv run python scripts/predict.py --file new.csv --output answers.jsonl",
            """uv run python scripts/predict.py '{"text": "甲公司砍單，乙公司受惠", "entity": "乙公司"}'""",
            "cat texts.txt | uv run python scripts/predict.py",
            "uv run python scripts/predict.py --export gguf-q8_0 '第三季毛利率低於市場預期'",
            "uv run python scripts/predict.py --base-url http://localhost:8080/v1 --model m --file new.csv",
        ],
    )
    cli.add_task_flags(parser, __file__)
    cli.add_run_flags(parser)
    parser.add_argument(
        "texts",
        nargs="*",
        metavar="TEXT",
        help="texts to answer; where a row takes more than a text, JSON objects with the data's columns",
    )
    parser.add_argument(
        "--file", type=Path, help=".txt (one TEXT a line), or .jsonl .json .csv .tsv with the data's columns"
    )
    parser.add_argument(
        "--output", type=Path, help="write one JSON line for each text here instead of into the summary"
    )
    parser.add_argument("--export", metavar="NAME", help="an export of the run, or a folder that holds one")
    parser.add_argument("--base-url", metavar="URL", help="a server that was given this run: its address up to /v1")
    parser.add_argument("--model", help="--base-url: its name there")
    parser.add_argument("--allow-remote", action="store_true", help="--base-url: the texts may leave this machine")
    return parser


@dataclass(frozen=True)
class Asked:
    """The rows to answer (a long text as its pieces), what they are answered with, and what the summary calls it."""

    args: argparse.Namespace
    paths: Any
    definition: Any
    config: Any
    rows: list[dict[str, Any]]
    name: str


def predict(args: argparse.Namespace) -> Summary:
    from tasklib import files, progress, schema
    from tasklib.answering import inference, pieces
    from tasklib.paths import config_path, task_paths
    from tasklib.training import runs

    _check_flags(args)
    paths = task_paths(args.task_dir)
    definition = schema.load_definition(paths.definition)
    config_file = config_path(paths, args.config)
    config = schema.load_config(config_file, args.overrides, args.config)
    schema.answer_schema(definition, config)  # raises where answers cannot be constrained
    rows = _rows(args, paths, definition)[: args.limit]
    parts = pieces.of(definition, rows)
    asked = Asked(args, paths, definition, config, parts.rows, runs.run_name(config_file, args.limit))
    with contextlib.ExitStack() as open_until_answered, progress.bar("predict", len(parts.rows), "text") as bar:
        by = _by_export if args.export else _by_endpoint if args.base_url else _by_run
        batches, shortened = by(asked, open_until_answered)
        answers = parts.joined(inference.in_order(progress.counted(batches, bar), len(parts.rows)))
    outputs: dict[str, Any] = {"predictions": _shown(definition, rows, answers)}
    if args.output:
        files.write_jsonl(args.output, outputs["predictions"])
        outputs = {"predictions_file": str(args.output)}
    warnings = _shortened(parts.rows, shortened) + _failed(rows, answers)
    return Summary.of("predict", run=asked.name, counts={"rows": len(rows)}, warnings=warnings, outputs=outputs)


def _check_flags(args: argparse.Namespace) -> None:
    """Raises UsageError for flags that mean nothing together."""
    if bool(args.base_url) != bool(args.model):
        raise cli.UsageError("--base-url and --model go together")
    if args.base_url and args.export:
        raise cli.UsageError("give --base-url or --export, not both")


def _by_run(asked: Asked, stack: contextlib.ExitStack) -> tuple[Any, list[int]]:
    """The trained run in this process; where evaluation compares the likelihoods of given answers, it writes one."""
    from tasklib.answering import inference
    from tasklib.model import models

    tokenizer, conversations, shortened = _fitted(asked)
    model = models.load_trained(asked.config, asked.paths.run(asked.name))
    prior = _prior(asked.paths, asked.definition, asked.config, asked.args.limit)
    batches = inference.answers(asked.definition, asked.config, model, tokenizer, conversations, prior)
    return batches, shortened


def _by_endpoint(asked: Asked, stack: contextlib.ExitStack) -> tuple[Any, list[int]]:
    """A server that was given this run, asked in the words of training; it writes free text, which is parsed. Raises
    TaskError (exit 2) for an address elsewhere without --allow-remote."""
    from tasklib.answering import backends

    args, (_, conversations, shortened) = asked.args, _fitted(asked)
    with backends.in_own_words():
        backends.require_allowed(args.base_url, allow_remote=args.allow_remote)
        client = _client(args.base_url, args.model, asked.config.generation.max_new_tokens)
    return backends.by_endpoint(asked.definition, client, conversations, PARALLEL), shortened


def _by_export(asked: Asked, stack: contextlib.ExitStack) -> tuple[Any, list[int]]:
    """An export of the run, or one that lies elsewhere (a download), whole and under the contract of this task. Raises
    TaskError (exit 4) with every difference."""
    from tasklib.answering import backends, inference
    from tasklib.export import contract, exported, llama_cpp
    from tasklib.model import tokenized

    given = Path(asked.args.export).expanduser()
    folder = given if given.is_absolute() or given.is_dir() else asked.paths.exports(asked.name) / given
    sealed, tokenizer = exported.opened(folder, asked.config, asked.definition)
    conversations, shortened = tokenized.fitted(tokenizer, asked.definition, asked.config, asked.rows)
    if sealed.format in contract.WITH_TRANSFORMERS:
        model = exported.model(folder, sealed, asked.config)
        return inference.answers(asked.definition, asked.config, model, tokenizer, conversations), shortened
    path, n_new = exported.gguf_file(folder, sealed), sealed.decoding.max_new_tokens
    room = sealed.max_length + n_new + 8
    url = stack.enter_context(llama_cpp.served(path, n_ctx=room, n_parallel=PARALLEL))
    client = _client(url, path.stem, n_new)
    return backends.by_endpoint(asked.definition, client, conversations, PARALLEL), shortened


def _fitted(asked: Asked) -> tuple[Any, list[Any], list[int]]:
    """Tokenizer, conversations as training had them, and which of them were shortened. Raises TaskError when the run is
    not finished, was made from something else, or its prompt renders otherwise today."""
    from tasklib.answering import inference
    from tasklib.model import models, tokenized
    from tasklib.training import runs

    record = runs.finished_run(asked.paths, asked.name)
    identity = runs.identity(asked.config, asked.definition, asked.paths)
    hint = "predict with the config it was trained with, or train again"
    runs.require_same_identity(record, identity, asked.name, hint)
    tokenizer = models.load_tokenizer(asked.config.base_model)
    inference.require_same_prompt(tokenizer, asked.definition, record.prompt_sha256, asked.name)
    conversations, shortened = tokenized.fitted(tokenizer, asked.definition, asked.config, asked.rows)
    return tokenizer, conversations, shortened


def _client(url: str, model: str, max_tokens: int) -> Any:
    from tasklib.answering import backends

    key = os.environ.get("OPENAI_API_KEY") or None
    return backends.Client(url, model, key, timeout_s=TIMEOUT_S, max_tokens=max_tokens)


def _shown(definition: Any, rows: list[dict[str, Any]], answers: list[Any]) -> list[dict[str, Any]]:
    """One entry of `predictions` for each row."""
    module = definition.task_type
    return [
        {
            "text": module.text_of(module.Record(**row["record"])),
            "prediction": a.prediction,
            "probabilities": a.probabilities,
            "raw_output": a.raw_output,
            "parsed": a.prediction is not None,
        }
        for row, a in zip(rows, answers, strict=True)
    ]


def _failed(rows: list[dict[str, Any]], answers: list[Any]) -> list[Problem]:
    """A warning for each text that a server gave no answer to."""
    return [
        Problem(code="no_answer", message=a.raw_output, file=row["source"]["file"], line=row["source"]["line"])
        for row, a in zip(rows, answers, strict=True)
        if a.failed
    ]


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
    from tasklib.answering import inference
    from tasklib.data import conversion

    if not config.imbalance.prior_correction:
        return None
    return inference.prior(definition, config, conversion.load_split(paths, "train")[:limit])


def _rows(args: argparse.Namespace, paths: Any, definition: Any) -> list[dict[str, Any]]:
    """The rows to answer as the rows of a split are: `{source, record, prompt}`."""
    from tasklib.model import prompts

    records = _records(args, definition)
    prefix = _prefix(paths, definition)
    return [
        {
            "source": {"file": file, "line": line},
            "record": record.model_dump(),
            "prompt": prompts.follow_up(prefix, definition, record),
        }
        for file, line, record in records
    ]


def _prefix(paths: Any, definition: Any) -> list[dict[str, str]]:
    """The system message and worked examples exactly as the rows of validation and test have them."""
    from tasklib.data import conversion
    from tasklib.model import prompts

    if not definition.prompt.n_few_shot:
        return prompts.prefix_messages(definition, [])
    rows = conversion.load_split(paths, "train")
    records = [definition.task_type.Record(**row["record"]) for row in rows]
    return prompts.prefix_messages(definition, prompts.choose_shots(definition, records))


def _records(args: argparse.Namespace, definition: Any) -> list[tuple[str, int, Any]]:
    """(file, line, record) of each row to answer, checked. Raises TaskError (exit 2 for no input, exit 3 with every bad
    row)."""
    from tasklib.data import forms
    from tasklib.reading.records import read_rows

    module = definition.task_type
    if args.file and args.texts:
        raise TaskError(
            cli.ExitCode.USAGE,
            [Problem(code="usage", message="give texts or --file, not both", hint="run with --help")],
        )
    if args.file and args.file.suffix.lower() != ".txt":
        rows = list(read_rows(args.file, str(args.file)))
    else:
        rows = _plain_rows(definition, _plain_texts(args))
    columns = forms.inputs(definition)
    records, problems = [], [row for row in rows if isinstance(row, Problem)]
    for row in rows:
        if isinstance(row, Problem):
            continue
        values = {role: row.values.get(column) for role, column in columns.items()}
        record, faults = module.read_input(values, definition.task)
        for f in faults:
            place = {"file": row.file, "line": row.line, "field": columns.get(f.role, f.role)}
            problems.append(Problem(code=f.code, message=f.message, hint=f.hint, **place))
        if record is not None:
            records.append((row.file, row.line, module.normalized(record, definition.data.normalize, definition.task)))
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


def _plain_rows(definition: Any, texts: list[tuple[str, int, str]]) -> list[Any]:
    """Each text as a row; where a row takes more than one text, each must be a JSON object of its columns. Raises
    TaskError (exit 2) for one that is none."""
    import json

    from tasklib.data import forms
    from tasklib.reading.records import Row

    role = forms.single_text(definition)
    if role is not None:
        return [Row({forms.inputs(definition)[role]: text}, source, line) for source, line, text in texts]
    columns = list(forms.inputs(definition).values())
    rows, problems = [], []
    for source, line, text in texts:
        try:
            values = json.loads(text)
        except ValueError:
            values = None
        if isinstance(values, dict):
            rows.append(Row(values, source, line))
            continue
        example = json.dumps(dict.fromkeys(columns, "…"), ensure_ascii=False)
        message = f"a row of this task has the columns {', '.join(columns)}: {text[:40]!r} is no JSON object"
        problems.append(Problem(code="not_a_row", message=message, file=source, line=line,
                                hint=f"write {example}, or give --file with these columns"))  # fmt: skip
    if problems:
        raise TaskError(cli.ExitCode.USAGE, problems)
    return rows


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
