#!/usr/bin/env python3
"""Memory of training and answering with a base model, from its config alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "task"))

from tasklib import cli
from tasklib.summary import Problem, Summary, TaskError

GB = 10**9
ANSWER_TOKENS = 16


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "estimate_memory",
        "Estimate the memory of training and of answering, part by part, for a base model that need not be here: from\n"
        "its config.json, never from the digits of its name. On a GPU nothing of it has been measured yet.",
        [
            "uv run python scripts/estimate_memory.py Qwen/Qwen3-8B --tokens 512 --gpu-memory 24",
            "uv run python scripts/estimate_memory.py qwen3-8b --set adapter.type=qlora --checkpointing --json",
            "uv run python scripts/estimate_memory.py ./config.json --set method=dpo --rows 2",
            "uv run python scripts/estimate_memory.py qwen3-32b --gpus 4 --sharded",
        ],
    )
    add = parser.add_argument
    add("model", help="folder, config.json, Hub id, or name in references/models/catalog.yaml")
    add("--rows", type=cli.positive_int, default=4, help="rows that are trained, or answered, at once (default: 4)")
    add("--tokens", type=cli.positive_int, default=1024, help="tokens of the longest row (default: 1024)")
    add("--answer-tokens", type=cli.positive_int, default=ANSWER_TOKENS, help="tokens of an answer (default: 16)")
    add("--checkpointing", action="store_true", help="short for --set training.activation_checkpointing=true")
    cli.add_set_flag(parser, "set a key of the run config")
    add("--gpu-memory", type=float, metavar="GB", help="say whether it fits, and what would")
    add("--gpus", type=cli.positive_int, default=1, help="processes that train together (default: 1)")
    add("--sharded", action="store_true", help="each GPU holds only its share (FSDP2)")
    add("--cpu", action="store_true", help="for training on CPU instead of a GPU")
    add("--json", action="store_true", help="print one JSON object on stdout")
    return parser


def estimate(args: argparse.Namespace) -> Summary:
    from knowledge import bases
    from tasklib.model import memory, models

    with bases.located(args.model) as base, models.planned_for("cpu" if args.cpu else "cuda"):
        config = _config(args, base.location)
        lengths, labelled = [args.tokens] * args.rows, [args.answer_tokens] * args.rows
        spread = memory.Spread(args.gpus, args.sharded)
        try:
            training = memory.estimate_training(config, lengths, labelled, spread)
        except TaskError as error:
            raise _explained(error, base.name, bases.nearest(args.model)) from None
        answering = memory.estimate_evaluation(config, "generate", lengths)
        free = int(args.gpu_memory * GB) if args.gpu_memory else None
        fits = None if free is None else training.total_bytes <= free
        settings = [] if fits in (True, None) else memory.settings_that_fit(config, lengths, labelled, free, spread)
    notes = list(dict.fromkeys((*base.notes, *training.notes, *answering.notes)))
    outputs: dict[str, Any] = {"model": base.name, "notes": "; ".join(notes)}
    outputs |= {"training": training.parts(), "answering": answering.parts()}
    outputs |= {} if fits is None else {"fits": fits, "settings_that_fit": settings}
    counts = {"training_bytes": training.total_bytes, "answering_bytes": answering.total_bytes}
    table = {
        name: {"GB": round(part.total_bytes / GB, 2), **{k: round(v / GB, 2) for k, v in part.parts().items()}}
        for name, part in (("training", training), ("answering", answering))
    }
    return Summary.of(
        "estimate_memory", counts=counts, outputs=outputs, metrics=table, warnings=_warnings(fits, settings, free),
        next=" ".join(f"--set {setting}" for setting in settings) or None,
    )  # fmt: skip


def _config(args: argparse.Namespace, location: str) -> Any:
    from tasklib import schema
    from tasklib.documents import Document

    if args.sharded and args.gpus == 1:
        raise cli.UsageError("--sharded shares a model out among several GPUs: give --gpus")
    training = {"per_device_train_batch_size": args.rows}
    training |= {"activation_checkpointing": True} if args.checkpointing else {}
    generation = {"batch_size": args.rows, "max_new_tokens": args.answer_tokens}
    data = {"schema_version": 1, "base_model": {"id": location}, "training": training, "generation": generation}
    return schema.check_config(Document("--set", data, {}), args.overrides)


def _explained(error: TaskError, name: str, nearest: Sequence[str]) -> TaskError:
    """The same, for a model that could not be had: the ids of the catalog that look like it."""
    first, *rest = error.problems
    if error.exit_code != cli.ExitCode.PREREQUISITE:
        return error
    near = f"; of the catalog: {', '.join(nearest)}" if nearest else ""
    hint = f"give a folder, the model's config.json, or log in where the model is gated (hf auth login){near}"
    problem = Problem(code=first.code, message=f"{name}: {first.message}", hint=hint)
    return TaskError(error.exit_code, [problem, *rest])


def _warnings(fits: bool | None, settings: Sequence[str], free: int | None) -> list[Problem]:
    if fits is not False:
        return []
    hint = (
        "these settings would fit: see next" if settings else "take a smaller base model, or more GPUs with --sharded"
    )
    message = f"training does not fit into {free / GB:.1f} GB"
    return [Problem(code="does_not_fit", message=message, hint=hint)]


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), estimate, argv)


if __name__ == "__main__":
    sys.exit(main())
