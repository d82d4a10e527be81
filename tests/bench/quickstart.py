#!/usr/bin/env python3
"""Measures the first command of the README: runs scripts/quickstart.sh in an empty folder and records what came out.

    uv run python tests/bench/quickstart.py             # writes tests/bench/results/quickstart.json, fills both READMEs

Run it on an otherwise idle machine. tests/test_docs.py compares the READMEs with the recorded result.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).resolve().parent.parent.parent
RESULT = Path(__file__).parent / "results" / "quickstart.json"
SYSTEMS = ("majority", "tfidf_logreg", "zero_shot-builtin-smollm2-135m", "baseline")


def measure(folder: Path) -> dict[str, Any]:
    """Runs the quickstart in `folder` and reads its task."""
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHON")}
    process = subprocess.run(
        ["bash", str(BUNDLE / "scripts/quickstart.sh")], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    timing = re.search(r"Environment (\d+) s, pipeline (\d+) s", process.stdout)
    if process.returncode or timing is None:
        raise SystemExit(f"quickstart.sh ended with {process.returncode}\n{process.stdout[-2000:]}")
    task = folder / "tasks" / "demo-financial-sentiment"
    ours = json.loads((task / "benchmarks/baseline/test/metrics.json").read_text(encoding="utf-8"))
    systems = {}
    for name in SYSTEMS:
        where = task / "benchmarks" / (name if name == "baseline" else f"baselines/{name}") / "test" / "metrics.json"
        systems[name.split("-builtin")[0]] = json.loads(where.read_text(encoding="utf-8"))["primary"]
    record = json.loads((task / "models/baseline/run.json").read_text(encoding="utf-8"))
    return {
        "date": datetime.date.today().isoformat(),
        "command": "bash scripts/quickstart.sh",
        "machine": machine(),
        "pipeline_s": int(timing.group(2)),
        "environment_bytes": size_of(task / ".venv"),
        "train_rows": record["counts"]["rows"],
        "test_rows": ours["n_rows"],
        "macro_f1": systems,
        "verdicts": {c["against"]: c["verdict"] for c in ours["comparisons"]},
    }


def machine() -> str:
    """Processor count, architecture and the bf16 instructions that decide the speed."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    bf16 = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    return f"{os.cpu_count()} cores, {platform.machine()}, {' and '.join(bf16) or 'no bf16 instructions'}"


def size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def table(result: dict[str, Any]) -> str:
    """The transcript that the READMEs show."""
    lines = [f"macro-F1 on {result['test_rows']} test rows, 95 % interval"]
    for name, primary in result["macro_f1"].items():
        shown = {"baseline": "fine-tuned"}.get(name, name)
        verdict = result["verdicts"].get(name)
        beside = f"   fine-tuned is {verdict.replace('_', ' ')}" if verdict else ""
        lines.append(
            f"  {shown:<13} {primary['value']:.3f}  ({primary['ci_low']:.3f} to {primary['ci_high']:.3f}){beside}"
        )
    return "\n".join(lines)


def fill(text: str, result: dict[str, Any]) -> str:
    """A README with the transcript and the time of `result`."""
    text = re.sub(
        r"(\$ bash scripts/quickstart\.sh\n).*?(```)", lambda m: f"{m[1]}{table(result)}\n{m[2]}", text, flags=re.S
    )
    minutes = f"{result['pipeline_s'] / 60:.1f}"
    text = re.sub(r"(`quickstart\.sh`[^|]*\| )[\d.@A-Z]+( )", lambda m: f"{m[1]}{minutes}{m[2]}", text)
    return re.sub(
        r"(2 (?:CPU cores|個 CPU 核心上實測)[(（])[^)）]*([)）] \|)", lambda m: f"{m[1]}{result['machine']}{m[2]}", text
    )


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="quickstart-") as folder:
        result = measure(Path(folder))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name in ("README.md", "README.zh-TW.md"):
        readme = BUNDLE / name
        readme.write_text(fill(readme.read_text(encoding="utf-8"), result), encoding="utf-8")
    print(json.dumps(result, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
