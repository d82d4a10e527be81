#!/usr/bin/env python3
"""Runs 03_train.py and plain `trl sft` on the same rows, model and LoRA, in turn: tokens/s, peak memory, loss, score.

    uv run python tests/bench/train_throughput.py --epochs 1 --keep

The rows are those of the bundled example. `trl sft` gets the same prompt and answer as messages, the same tokenizer,
chat template, dtype, LoRA, batch size, learning rate and schedule, and otherwise its own defaults. Tokens/s counts the
tokens of rows, not padding, between the first and the last logged step, so that loading is left out for both. Both
adapters are then scored on the same held-out rows by the same code. With --keep the result goes to
tests/bench/results/readme.json, and from there into the READMEs.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import readme
import yaml

BUNDLE = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(BUNDLE / "scripts" / "task"))
LOGGING_STEPS = 5
LORA = {"r": 16, "lora_alpha": 32}
# `trl sft` starts through accelerate, which gives a single process on CPU one thread
PLAIN = {"trl sft": {}, f"trl sft, {os.cpu_count()} threads": {"OMP_NUM_THREADS": str(os.cpu_count())}}
# name -> what differs from the example's own config
OURS = {
    "03_train.py": {"adapter": {"autocast_adapter_dtype": False}},
    "03_train.py, fp32 adapters": {"adapter": {"autocast_adapter_dtype": True}},
}


def make_task(folder: Path, epochs: float, batch_size: int) -> Path:
    """The bundled example with a config for each way of ours."""
    task = readme.example_task(folder)
    config = yaml.safe_load((task / "configs/baseline.yaml").read_text(encoding="utf-8"))
    training = {"num_train_epochs": epochs, "per_device_train_batch_size": batch_size, "logging_steps": LOGGING_STEPS}
    training |= {"learning_rate": 1e-3, "max_length": 192, "eval_strategy": "no", "save_strategy": "no"}
    for name, changes in OURS.items():
        changed = config | {"training": training, "adapter": {**LORA, **changes["adapter"]}}
        (task / "configs" / f"{slug(name)}.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    return task


def slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def run_ours(task: Path, name: str) -> dict[str, Any]:
    command = [sys.executable, str(task / "scripts/03_train.py"), "--config", f"configs/{slug(name)}.yaml"]
    peak, _ = measured(command)
    folder = task / "models" / slug(name)
    lines = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
    points = [(line["elapsed_s"], line["num_tokens"], line["loss"]) for line in lines if "loss" in line]
    return {**speed(points), "peak_memory_bytes": peak, "macro_f1": score(task, name, folder / "adapter")}


def run_trl(task: Path, name: str, epochs: float, batch_size: int, folder: Path) -> dict[str, Any]:
    """Plain `trl sft`; its log lines are stamped as they appear."""
    from tasklib.model import builtin

    data, output = folder / "data", folder / "output"
    data.mkdir(parents=True)
    rows = [json.loads(line) for line in (task / "data/processed/train.jsonl").read_text().splitlines()]
    texts = [json.dumps({k: row[k] for k in ("prompt", "completion")}, ensure_ascii=False) + "\n" for row in rows]
    (data / "train.jsonl").write_text("".join(texts), encoding="utf-8")
    flags = {
        "model_name_or_path": builtin.folder("builtin:smollm2-135m"), "dataset_name": data, "output_dir": output,
        "dtype": "bfloat16", "use_cpu": True, "use_peft": True, "lora_r": LORA["r"], "lora_alpha": LORA["lora_alpha"],
        "lora_dropout": 0.0, "lora_target_modules": "all-linear", "learning_rate": 1e-3, "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size, "lr_scheduler_type": "cosine", "warmup_steps": 0.1,
        "max_length": 192, "logging_steps": LOGGING_STEPS, "save_strategy": "no", "seed": 42, "report_to": "none",
    }  # fmt: skip
    command = [str(Path(sys.executable).parent / "trl"), "sft"]
    command += [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    peak, lines = measured(command, **PLAIN[name])
    points = []
    for at, line in lines:
        if line.strip().startswith("{") and "'loss'" in line:
            found = ast.literal_eval(line.strip())
            points.append((at, float(found["num_tokens"]), float(found["loss"])))
    return {**speed(points), "peak_memory_bytes": peak, "macro_f1": score(task, next(iter(OURS)), output)}


def measured(command: list[str], **more: str) -> tuple[int, list[tuple[float, str]]]:
    """Peak resident memory of the child in bytes, and its output lines with the second at which each came."""
    environment = readme.clean_environment() | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", **more}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tempfile.gettempdir()
    )
    lines = [(time.monotonic(), line) for line in process.stdout]
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{shlex.join(command)} failed:\n" + "".join(line for _, line in lines[-40:]))
    return usage.ru_maxrss * 1024, lines


def speed(points: list[tuple[float, float, float]]) -> dict[str, Any]:
    """points: (second, tokens so far, loss of the last steps)."""
    (first, tokens_first, _), (last, tokens_last, _) = points[0], points[-1]
    return {
        "tokens_per_s": round((tokens_last - tokens_first) / (last - first), 1),
        "seconds": round(last - first, 1),
        "tokens": int(tokens_last - tokens_first),
        "losses": [round(loss, 3) for _, _, loss in points],
    }


def score(task: Path, name: str, adapter: Path) -> dict[str, float]:
    """Macro-F1 of an adapter on validation and test rows together, with its interval: one code for all."""
    from tasklib import schema
    from tasklib.answering import inference
    from tasklib.data import conversion
    from tasklib.model import models
    from tasklib.paths import task_paths
    from tasklib.scoring import bootstrap

    paths = task_paths(task)
    definition = schema.load_definition(paths.definition)
    config = schema.load_config(task / "configs" / f"{slug(name)}.yaml")
    rows = conversion.load_split(paths, "validation") + conversion.load_split(paths, "test")
    run = adapter.parent / "scored"
    run.mkdir(exist_ok=True)
    shutil.copytree(adapter, run / "adapter", dirs_exist_ok=True)
    model, tokenizer = models.load_trained(config, run), models.load_tokenizer(config.base_model)
    found = inference.answered(definition, config, model, tokenizer, rows)
    module = definition.task_type
    golds = [module.gold(module.Record(**row["record"])) for row in rows]
    counts = module.count(golds, [a.prediction for a in found], definition.task)
    value = bootstrap.intervals([counts], lambda sums: module.score_counts(sums, definition.task))["macro_f1"]
    return {"n_rows": len(rows), **{key: round(v, 4) for key, v in value.model_dump().items()}}


def table(results: dict[str, dict[str, Any]]) -> str:
    plain = results[list(PLAIN)[-1]]["tokens_per_s"]
    lines = [f"{'':28}{'tokens/s':>10}{'ratio':>8}{'peak GB':>9}{'last loss':>11}  macro-F1 (95 % interval)"]
    for name, r in results.items():
        f1 = r["macro_f1"]
        lines.append(
            f"{name:28}{r['tokens_per_s']:10.1f}{r['tokens_per_s'] / plain:8.2f}{r['peak_memory_bytes'] / 1e9:9.2f}"
            f"{r['losses'][-1]:11.3f}  {f1['value']:.3f} ({f1['ci_low']:.3f} to {f1['ci_high']:.3f})"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--batch-size", type=int, default=8)
    names = [*OURS, *PLAIN]
    parser.add_argument("--systems", nargs="+", choices=names, default=names, help="measure these; keep the others")
    parser.add_argument("--keep", action="store_true", help="write results/readme.json and the READMEs")
    args = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        task = make_task(Path(temporary) / "tasks", args.epochs, args.batch_size)
        for name in args.systems:
            if name in OURS:
                results[name] = run_ours(task, name)
            else:
                results[name] = run_trl(task, name, args.epochs, args.batch_size, Path(temporary) / slug(name))
    kept = readme.read(readme.RESULT).get("training", {})
    results = {name: results.get(name) or kept["results"][name] for name in names if name in results or kept}
    print(table(results))
    if args.keep:
        from tasklib.training import runs

        command = f"tests/bench/train_throughput.py --epochs {args.epochs:g} --batch-size {args.batch_size}"
        about = {"date": datetime.date.today().isoformat(), "command": command, "machine": readme.machine()}
        readme.keep("training", {**about, "versions": runs.environment(), "results": results})


if __name__ == "__main__":
    main()
