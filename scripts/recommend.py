#!/usr/bin/env python3
"""Base models to start a task from, ranked out of the catalogs of references/."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "task"))

from tasklib import cli, task_types
from tasklib.summary import Problem, Summary, TaskError

GB = 10**9


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "recommend",
        "Rank base models for a task: those whose licence allows it and that one GPU can train, the largest that\n"
        "fits with room to spare first. With each: reasons, cautions, estimated memory and time, and a whole config\n"
        "to begin with. What a catalog does not know is said, not guessed. Scores on your data decide: evaluate\n"
        "zero_shot with two of them before you train.",
        [
            "uv run python scripts/recommend.py --task classification --gpu-memory 24 --rows 5000",
            "uv run python scripts/recommend.py --task ner --language zh-TW --gpu-memory 12 --rows 800 --tokens 256 "
            "--license commercial --json",
        ],
    )
    add = parser.add_argument
    add("--task", required=True, choices=task_types.names(), help="task.type")
    add("--language", default="zh-TW", help="of the texts: zh-TW, zh, en (default: zh-TW)")
    add("--gpu-memory", type=float, required=True, metavar="GB", help="memory of the one GPU that trains")
    add("--rows", type=cli.positive_int, required=True, help="training rows")
    add("--license", choices=["any", "commercial"], default="any", help="what the model is for (default: any)")
    add("--tokens", type=cli.positive_int, default=512, help="tokens of the longest row (default: 512)")
    add("--answer-tokens", type=cli.positive_int, default=16, help="tokens of an answer (default: 16)")
    add("--tflops", type=float, default=100.0, help="the GPU's dense bf16 TFLOP/s by its data sheet (default: 100)")
    add("--top", type=cli.positive_int, default=5, help="how many (default: 5)")
    add("--json", action="store_true", help="print one JSON object on stdout")
    return parser


def recommend(args: argparse.Namespace) -> Summary:
    if args.gpu_memory <= 0 or args.tflops <= 0:
        raise cli.UsageError("--gpu-memory and --tflops must be larger than 0")
    from knowledge import ranking

    wish = ranking.Wish(
        task=args.task, language=args.language, gpu_bytes=int(args.gpu_memory * GB), rows=args.rows,
        license=args.license, tokens=args.tokens, answer_tokens=args.answer_tokens, tflops=args.tflops,
    )  # fmt: skip
    choices, left_out = ranking.ranked(wish, args.top)
    if not choices:
        message = f"no base model of the catalog fits into {args.gpu_memory:g} GB"
        hint = "fewer --tokens only if the rows are that short; otherwise more memory, or several GPUs: launch.py"
        raise TaskError(cli.ExitCode.PREREQUISITE, [Problem(code="nothing_fits", message=message, hint=hint)])
    table = {
        choice.id: {"adapter": choice.adapter, "train GB": round(choice.training_bytes / GB, 1),
                    "answer GB": round(choice.answering_bytes / GB, 1), "hours": round(choice.hours, 2)}
        for choice in choices
    }  # fmt: skip
    outputs = {"choices": [dataclasses.asdict(choice) for choice in choices], "left_out": left_out}
    first = f"uv run scripts/create_task.py --base-model {choices[0].id} …"
    counts = {"candidates": len(choices), "left_out": len(left_out)}
    return Summary.of(
        "recommend", counts=counts, outputs=outputs, metrics=table, warnings=_warnings(args, choices), next=first
    )


def _warnings(args: argparse.Namespace, choices: Sequence) -> list[Problem]:
    from knowledge.ranking import MIN_ROWS

    found = [
        Problem(code="caution", message=f"{choice.id}: {text}") for choice in choices[:1] for text in choice.cautions
    ]
    if args.rows < MIN_ROWS:
        message = f"{args.rows} rows: a prompt with examples, or TF-IDF, often does as well"
        found.append(
            Problem(code="few_rows", message=message, hint="run 04_evaluate.py --baselines-only before training")
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), recommend, argv)


if __name__ == "__main__":
    sys.exit(main())
