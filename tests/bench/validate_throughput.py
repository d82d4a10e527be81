#!/usr/bin/env python3
"""Measures how fast 01_validate_data.py reads and checks rows, and how much memory it takes, on one core.

    uv run python tests/bench/validate_throughput.py --rows 1000000 10000000

Titles of 12 to 34 Chinese characters with a number here and there, five labels, one duplicate in a hundred rows. The
goal: 30,000 rows a second for JSONL and CSV with all default checks; under 1 GB at 10 million rows. With --keep the
result goes to tests/bench/results/readme.json, and from there into the READMEs.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import readme
import yaml

BUNDLE = Path(__file__).resolve().parent.parent.parent
LABELS = ("財經", "科技", "體育", "娛樂", "政治")
CHARACTERS = (
    "的一是在不了有和人這中大為上個國我以要他時來用們生到作地於出就分對成會可主發年動同工也能下過子說產種"
    "面而方後多定行學法所民得經十三之進著等部度家電力裡如水化高自二理起小物現實加量都兩體制機當使點從業本"
    "去把性好應開它合還因由其些然前外天政四日那社義事平形相全表間樣與關各重新線內數正心反你明看原又麼利比"
    "或但質氣第向道命此變條只沒結解問意建月公無系軍很情者最立代想已通並提直題黨程展五果料象員革位入常文總"
    "次品式活設及管特件長求老頭基資邊流路級少圖山統接知較將組見計別她手角期根論運農指幾九區強放決西被幹做"
    "必戰先回則任取據處理世車"
)


def rows(n: int) -> Iterator[tuple[str, str]]:
    """`n` rows, the same for every call."""
    chooser = random.Random(7)
    row = ("", "")
    for number in range(n):
        if number % 100 != 99:
            figure = f"{chooser.randint(1, 9999)}點" if number % 3 == 0 else ""
            text = "".join(chooser.choices(CHARACTERS, k=chooser.randint(12, 30))) + figure
            row = text, LABELS[number % len(LABELS)]
        yield row


def make_task(folder: Path, kind: str, n: int) -> None:
    """A task over one generated file."""
    shutil.copytree(BUNDLE / "scripts" / "task", folder / "scripts")
    raw = folder / "data" / "raw" / f"rows.{kind}"
    raw.parent.mkdir(parents=True)
    with raw.open("w", encoding="utf-8", newline="") as stream:
        if kind == "csv":
            writer = csv.writer(stream)
            writer.writerow(("text", "label"))
            writer.writerows(rows(n))
        else:
            for text, label in rows(n):
                stream.write(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n")
    definition = {
        "schema_version": 1,
        "name": "throughput",
        "task": {"type": "classification", "labels": list(LABELS)},
        "data": {"files": {"all": [f"data/raw/rows.{kind}"]}, "fields": {"text": "text", "label": "label"}},
    }
    (folder / "task_definition.yaml").write_text(yaml.safe_dump(definition, allow_unicode=True), encoding="utf-8")


def measure(folder: Path) -> dict[str, float]:
    """Seconds and peak bytes of one run of 01_validate_data.py on the first core."""
    command = [sys.executable, str(folder / "scripts" / "01_validate_data.py"), "--json"]
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    )
    summary = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    assert os.waitstatus_to_exitcode(status) == 0, summary["errors"][:3]
    unit = 1 if sys.platform == "darwin" else 1024
    cpu = usage.ru_utime + usage.ru_stime
    return {
        "rows": summary["counts"]["rows"],
        "wall_s": round(seconds, 1),
        "cpu_s": round(cpu, 1),
        "rows_per_cpu_s": round(summary["counts"]["rows"] / cpu),
        "peak_memory_bytes": usage.ru_maxrss * unit,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--keep", action="store_true", help="keep the result and fill the READMEs")
    args = parser.parse_args()
    results = {}
    for n in args.rows:
        for kind in ("jsonl", "csv"):
            with tempfile.TemporaryDirectory() as folder:
                make_task(Path(folder) / "task", kind, n)
                results[f"{kind} {n}"] = found = measure(Path(folder) / "task")
                print(kind, json.dumps(found))
    if args.keep:
        today = datetime.date.today().isoformat()
        command = shlex.join(["validate_throughput.py", *sys.argv[1:]])
        readme.keep("validate", {"date": today, "command": command, "machine": readme.machine(), "runs": results})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
