"""Grades what a coding agent left behind for a request of evals.json, by scripts alone.

    uv run python evals/grade.py ~/try/3-with --eval 3      writes ~/try/3-with/grading.json
    uv run python evals/grade.py --table ~/try              all folders `<id>-with` and `<id>-without`: results.json

The folder is one of prepare.py, with the agent's last message to its user in `reply.md`. Assertions look at files, at
the commands in `steps.jsonl` and at words of the reply. Words can be fooled in both directions: read the replies too.
Tokens are counted as at most one for each CJK character and one for every three others, over commands, what they
printed, and the reply; what an agent thinks to itself is not seen.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import statistics
from pathlib import Path

from checks import Workspace, checks_of
from prepare import EVALS, load


def n_tokens(text: str) -> int:
    """At most: one for each CJK character, one for every three others."""
    n_cjk = len(re.findall(r"[\u3000-\u9fff\uff00-\uffef]", text))
    return n_cjk + (len(text) - n_cjk) // 3


def grade(root: Path, row: dict) -> dict:
    """The grading of one folder; the layout is that of agentskills.io's grading.json."""
    w = Workspace(root, row)
    results = []
    for text, check in checks_of(row).items():
        passed, evidence = check(w)
        results.append({"text": text, "passed": passed, "evidence": evidence})
    n = sum(result["passed"] for result in results)
    seen = "".join(step["command"] + step["output"] for step in w.steps) + w.reply
    return {
        "eval_id": row["id"],
        "assertion_results": results,
        "summary": {"passed": n, "failed": len(results) - n, "total": len(results), "pass_rate": n / len(results)},
        "steps": len(w.steps),
        "tokens": n_tokens(seen),
        "seconds": round(sum(step["seconds"] for step in w.steps)),
    }


def table(folder: Path) -> dict:
    """Gradings of every `<id>-with` and `<id>-without` below `folder`, and their means."""
    rows = {}
    for number, row in load().items():
        pair = {kind: folder / f"{number}-{kind}" for kind in ("with", "without")}
        if all((path / "reply.md").is_file() for path in pair.values()):
            rows[row["name"]] = {kind: grade(path, row) for kind, path in pair.items()}
    means = {
        kind: {
            key: round(statistics.mean(value[kind]["summary"][key] if key == "pass_rate" else value[kind][key]
                                       for value in rows.values()), 3)
            for key in ("pass_rate", "steps", "tokens", "seconds")
        }
        for kind in ("with", "without")
    } if rows else {}  # fmt: skip
    return {"date": datetime.date.today().isoformat(), "n_requests": len(rows), "mean": means, "requests": rows}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--eval", type=int, choices=sorted(load()))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args(argv)
    if options.table == (options.eval is not None):
        parser.error("give either --eval N for one folder, or --table for a folder of folders")
    if options.table:
        result = table(options.folder)
        target = EVALS / "results.json"
    else:
        result = grade(options.folder, load()[options.eval])
        target = options.folder / "grading.json"
    target.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["mean"] if options.table else result["assertion_results"], ensure_ascii=False, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
