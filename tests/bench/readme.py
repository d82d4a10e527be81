#!/usr/bin/env python3
"""Measures the two commands of the README and fills both READMEs with what came out.

    uv run python tests/bench/readme.py quickstart    # scripts/quickstart.sh in an empty folder
    uv run python tests/bench/readme.py tests         # scripts/run_tests.sh in this checkout

Run it on an otherwise idle machine. The results stand in tests/bench/results/readme.json, with which tests/test_docs.py
compares the READMEs.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).resolve().parent.parent.parent
RESULT = Path(__file__).parent / "results" / "readme.json"
READMES = ("README.md", "README.zh-TW.md")
BASE = "builtin-smollm2-135m"
SYSTEMS = ("majority", "tfidf_logreg", f"zero_shot-{BASE}", f"few_shot-{BASE}", "baseline")


def example_task(folder: Path) -> Path:
    """The bundled example, created in `folder` and converted."""
    answers = BUNDLE / "templates/examples/financial-sentiment/answers.yaml"
    create = [sys.executable, str(BUNDLE / "scripts/create_task.py"), "--tasks-dir", str(folder), "--answers"]
    subprocess.run([*create, str(answers)], check=True, stdout=subprocess.DEVNULL)
    task = folder / "demo-financial-sentiment"
    convert = [sys.executable, str(task / "scripts/02_convert_format.py")]
    subprocess.run(convert, check=True, stdout=subprocess.DEVNULL)
    return task


def measure_quickstart(folder: Path) -> dict[str, Any]:
    """Runs the quickstart in `folder` and reads its task."""
    process = subprocess.run(
        ["bash", str(BUNDLE / "scripts/quickstart.sh")], cwd=folder, env=clean_environment(), stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    timing = re.search(r"Environment (\d+) s, pipeline (\d+) s", process.stdout)
    if process.returncode or timing is None:
        raise SystemExit(f"quickstart.sh ended with {process.returncode}\n{process.stdout[-2000:]}")
    task = folder / "tasks" / "demo-financial-sentiment"
    ours = read(task / "benchmarks/baseline/test/metrics.json")
    systems = {}
    for name in SYSTEMS:
        where = name if name == "baseline" else f"baselines/{name}"
        systems[name.split("-builtin")[0]] = read(task / "benchmarks" / where / "test" / "metrics.json")["primary"]
    return {
        "pipeline_s": int(timing.group(2)),
        "environment_bytes": size_of(task / ".venv"),
        "download_bytes": download_bytes(task),
        "train_rows": read(task / "models/baseline/run.json")["counts"]["rows"],
        "test_rows": ours["n_rows"],
        "macro_f1": systems,
        "verdicts": {c["against"]: c["verdict"] for c in ours["comparisons"]},
    }


def measure_tests() -> dict[str, Any]:
    """Runs all tests and reads pytest's closing line."""
    started, command, closing = time.monotonic(), ["bash", str(BUNDLE / "scripts/run_tests.sh")], ""
    with subprocess.Popen(command, env=clean_environment(), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            closing = line.strip() or closing
    if process.returncode:
        raise SystemExit(f"run_tests.sh ended with {process.returncode}: {closing}")
    return {"wall_s": round(time.monotonic() - started), "closing_line": closing.strip("= ")}


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHON", "OMP_NUM_THREADS")}


def machine() -> str:
    """Processor count, architecture and the bf16 instructions that decide the speed."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    bf16 = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    return f"{os.cpu_count()} CPU cores, {platform.machine()}, {' + '.join(bf16) or 'no bf16 instructions'}"


def download_bytes(task: Path) -> int:
    """Sizes of the wheels that uv chose for this machine, from the task's own lock file."""
    from packaging.tags import sys_tags
    from packaging.utils import canonicalize_name, parse_wheel_filename

    site = next((task / ".venv/lib").glob("python*/site-packages"))
    installed = {canonicalize_name(d.metadata["Name"]) for d in importlib.metadata.distributions(path=[str(site)])}
    rank = {tag: position for position, tag in reversed(list(enumerate(sys_tags())))}
    total = 0
    for package in tomllib.loads((task / "uv.lock").read_text(encoding="utf-8"))["package"]:
        if canonicalize_name(package["name"]) not in installed:
            continue
        fitting = []
        for wheel in package.get("wheels", []):
            tags = parse_wheel_filename(wheel["url"].rsplit("/", 1)[1])[3]
            if best := [rank[tag] for tag in tags if tag in rank]:
                fitting.append((min(best), wheel["size"]))
        total += min(fitting)[1] if fitting else 0
    return total


def size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def table(quickstart: dict[str, Any]) -> str:
    """The transcript that the READMEs show."""
    lines = [f"macro-F1 on {quickstart['test_rows']} test rows, 95 % interval"]
    for name, primary in quickstart["macro_f1"].items():
        shown = {"baseline": "fine-tuned"}.get(name, name)
        verdict = quickstart["verdicts"].get(name)
        beside = f"   fine-tuned is {verdict.replace('_', ' ')}" if verdict else ""
        lines.append(f"  {shown:<13} {interval(primary, '  ')}{beside}")
    return "\n".join(lines)


def interval(primary: dict[str, Any], between: str = " ") -> str:
    return f"{primary['value']:.3f}{between}({primary['ci_low']:.3f} to {primary['ci_high']:.3f})"


def fill(text: str, results: dict[str, Any]) -> str:
    """A README with the transcript, and each `<!-- name -->value<!-- -->`, as measured."""
    quickstart, tests = results.get("quickstart"), results.get("tests")
    values = {}
    if quickstart:
        values |= {
            "machine": quickstart["machine"],
            "quickstart": f"{quickstart['pipeline_s'] / 60:.0f} min",
            "download": f"{quickstart['download_bytes'] / 1e9:.1f} GB",
            "disk": f"{(quickstart['environment_bytes'] + 0.5e9) / 1e9:.0f} GB",
        }
        text = re.sub(
            r"(\$ bash scripts/quickstart\.sh\n).*?(```)",
            lambda m: f"{m[1]}{table(quickstart)}\n{m[2]}",
            text,
            flags=re.S,
        )
    if elsewhere := results.get("quickstart_elsewhere"):
        values["elsewhere"] = (
            f"{interval(elsewhere['macro_f1']['baseline'])} with {elsewhere['machine'].split(', ')[-1]}"
        )
    if tests:
        values["tests"] = f"{tests['wall_s'] / 60:.0f} min"
    for name, run in results.get("validate", {}).get("runs", {}).items():
        rows = f"{round(run['rows_per_cpu_s'], -3):,} rows/s"
        values[f"validate-{name.replace(' ', '-')}"] = f"{rows}, {run['peak_memory_bytes'] / 1e6:.0f} MB"
    for name, run in results.get("training", {}).get("results", {}).items():
        short = {"trl sft": "plain", "03_train.py": "bf16"}.get(name, "threads" if "threads" in name else "fp32")
        f1 = run["macro_f1"]
        values[f"train-{short}-speed"] = f"{run['tokens_per_s']:.0f}"
        values[f"train-{short}-memory"] = f"{run['peak_memory_bytes'] / 1e9:.1f} GB"
        values[f"train-{short}-score"] = f"{f1['value']:.3f} ({f1['ci_low']:.3f} to {f1['ci_high']:.3f})"
    for name, run in results.get("evaluation", {}).get("results", {}).items():
        short = name.removesuffix(" loop")
        values[f"evaluate-{short}-speed"] = f"{run['rows_per_s']:.1f}"
        values[f"evaluate-{short}-ratio"] = f"{run['ratio']:.1f}"
    for name, value in values.items():
        text = re.sub(rf"(<!-- {name} -->).*?(<!-- -->)", lambda m, value=value: f"{m[1]}{value}{m[2]}", text)
    return text


def main(what: str) -> int:
    if what == "quickstart":
        with tempfile.TemporaryDirectory(prefix="quickstart-") as folder:
            found = measure_quickstart(Path(folder))
    else:
        found = measure_tests()
    command = {"quickstart": "bash scripts/quickstart.sh", "tests": "bash scripts/run_tests.sh"}[what]
    keep(what, {"date": datetime.date.today().isoformat(), "command": command, "machine": machine(), **found})
    return 0


def keep(what: str, found: dict[str, Any]) -> None:
    """Writes one result beside the others and fills the READMEs."""
    before = read(RESULT) if RESULT.exists() else {}
    results = {**before, what: found}
    if what == "quickstart" and before.get(what, found)["machine"] != found["machine"]:
        results["quickstart_elsewhere"] = before[what]  # the same commands on another processor
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name in READMES:
        readme = BUNDLE / name
        readme.write_text(fill(readme.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ("quickstart", "tests"):
        raise SystemExit("usage: readme.py quickstart|tests")
    sys.exit(main(sys.argv[1]))
