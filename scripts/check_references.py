#!/usr/bin/env python3
"""Looks up in the installed libraries and in this project what the pages of references/ claim."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "task"))

from tasklib import cli
from tasklib.summary import Summary, TaskError

REFERENCES = Path(__file__).resolve().parent.parent / "references"


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "check_references",
        "Check the knowledge base: every API name, parameter, default, key, flag, Hub id, source, link and block.",
        [
            "uv run python scripts/check_references.py",
            "uv run python scripts/check_references.py --only methods --json",
        ],
    )
    parser.add_argument("--only", metavar="FOLDER", help="tell only what is wrong below this folder of references/")
    parser.add_argument("--references", type=Path, default=REFERENCES, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return parser


def check(args: argparse.Namespace) -> Summary:
    from knowledge import claims
    from tasklib.model.models import quiet_libraries

    quiet_libraries()
    problems, counts = claims.faults(args.references)
    if args.only:
        problems = [problem for problem in problems if problem.file.startswith(f"references/{args.only}")]
    if problems:
        raise TaskError(cli.ExitCode.DATA, problems, counts=counts)
    return Summary.of("check_references", counts=counts)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), check, argv)


if __name__ == "__main__":
    sys.exit(main())
