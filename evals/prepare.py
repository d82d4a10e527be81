"""Makes the folder in which a coding agent answers one request of evals.json.

    uv run python evals/prepare.py --eval 3 --into ~/try/3-with --skill
    uv run python evals/prepare.py --eval 3 --into ~/try/3-without

Copies the request's files, a finished task where `setup` names one (trained here, for a few minutes, once for each
`--cache`), the skill into `.claude/skills/` with --skill, and `step`: a shell that the agent runs its commands in, so
that steps and the text it read can be counted. `snapshot.json` beside the folder keeps the sha256 of every file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from make_files import BUNDLE, headlines, of_each_label, sheet

EVALS = Path(__file__).resolve().parent
# what each finished task was trained with; the example's own settings otherwise
SETUPS = {
    "rate-too-low": {"learning_rate": 2e-6, "num_train_epochs": 2},
    "too-many-epochs": {"learning_rate": 1e-3, "num_train_epochs": 14},
    "finished": {"learning_rate": 1e-3, "num_train_epochs": 6},
}
STEP = """#!/usr/bin/env python3
# Runs the shell script given on standard input, and notes that it did.
import json, pathlib, subprocess, sys, time
script, start = sys.stdin.read(), time.time()
pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
done = subprocess.run(["bash", "-c", script], **pipes)
text = done.stdout.decode("utf-8", "replace")[:30000]
print(text, end="")
note = {"command": script, "exit_code": done.returncode, "seconds": round(time.time() - start, 1), "output": text}
with open(pathlib.Path(__file__).resolve().with_name("steps.jsonl"), "a", encoding="utf-8") as log:
    log.write(json.dumps(note, ensure_ascii=False) + "\\n")
sys.exit(done.returncode)
"""


def load() -> dict[int, dict]:
    """The requests by id."""
    return {row["id"]: row for row in json.loads((EVALS / "evals.json").read_text(encoding="utf-8"))["evals"]}


def snapshot(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file of the user's; caches, environments and the skill are not."""
    left_out = {".venv", ".claude", "__pycache__", "uv.lock", "step", "steps.jsonl"}
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if not left_out & set(path.relative_to(folder).parts)
    }


def finished_task(name: str, cache: Path) -> Path:
    """tasks/headlines with one finished, evaluated run; "finished" has looked at test, the others have not."""
    home = cache / name
    task = home / "tasks" / "headlines"
    if (task / "benchmarks" / "baseline" / "validation" / "metrics.json").is_file():
        return home
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / "headlines.csv").write_bytes(sheet(of_each_label(headlines(), 80), ("標題", "情感")))
    answers = yaml.safe_load((BUNDLE / "templates/examples/financial-sentiment/answers.yaml").read_text("utf-8"))
    answers["name"] = "headlines"
    answers["data"]["files"] = {"all": ["headlines.csv"]}
    answers["evaluation"] = {"must_beat": ["majority"], "target": None if name == "finished" else 0.6}
    answers["baseline"]["hypothesis"] = "a first run"
    answers["baseline"]["training"] |= SETUPS[name]
    (home / "answers.yaml").write_text(yaml.safe_dump(answers, allow_unicode=True), encoding="utf-8")
    create = [sys.executable, BUNDLE / "scripts" / "create_task.py", "--answers", "answers.yaml"]
    subprocess.run(create, cwd=home, check=True)
    (home / "answers.yaml").unlink()
    (home / "headlines.csv").unlink()
    pipeline = ["bash", task / "scripts" / "run_pipeline.sh", *([] if name == "finished" else ["--until", "evaluate"])]
    code = subprocess.run(pipeline, cwd=task).returncode
    if code not in (0, 5):
        raise SystemExit(f"the pipeline of {name} ended with exit code {code}")
    return home


def prepare(number: int, into: Path, cache: Path, skill: bool) -> None:
    """Fills `into`, which must not exist, with what the user of request `number` has."""
    row = load()[number]
    into.mkdir(parents=True)
    if row.get("setup"):
        shutil.copytree(finished_task(row["setup"], cache), into, symlinks=True, dirs_exist_ok=True)
    for name in row["files"]:
        shutil.copyfile(BUNDLE / name, into / Path(name).name)
    if skill:
        target = into / ".claude" / "skills" / "finetune-llm"
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=BUNDLE, capture_output=True, check=True).stdout
        for name in filter(None, tracked.decode().split("\0")):
            if not name.startswith(("tests/", "evals/")):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(BUNDLE / name, target / name)
    step = into / "step"
    step.write_text(STEP, encoding="utf-8")
    step.chmod(0o755)
    kept = json.dumps(snapshot(into), ensure_ascii=False, indent=1)
    into.with_name(into.name + ".snapshot.json").write_text(kept, encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eval", type=int, required=True, choices=sorted(load()))
    parser.add_argument("--into", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--skill", action="store_true", help="with the skill installed; without it otherwise")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "finetune-llm" / "evals")
    options = parser.parse_args(argv)
    if options.into.exists():
        parser.error(f"{options.into} exists")
    prepare(options.eval, options.into, options.cache, options.skill)
    print(load()[options.eval]["prompt"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
