#!/usr/bin/env python3
"""Rows/s and peak memory of one model on the same rows: the loop people write, our generate, our score.

    uv run python tests/bench/evaluate_throughput.py --keep
    uv run python tests/bench/evaluate_throughput.py --task-dir tasks/demo-financial-sentiment --run baseline --keep

Without --task-dir the rows are the validation rows of the bundled example, and the model is its base model. The plain
loop is from_pretrained with its defaults, PeftModel for a trained run, and model.generate() for one row at a time,
greedy, with the config's max_new_tokens. Each system runs in a process of its own, in turn, --repeats times; the time
starts after loading and two rows to warm up. The goal: score at 5 times the plain loop. With --keep the result goes to
tests/bench/results/readme.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import readme

BUNDLE = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(BUNDLE / "scripts" / "task"))
SYSTEMS = ("plain loop", "generate", "score")


def measure(system: str, args: argparse.Namespace) -> dict[str, Any]:
    """One system in this process: rows/s, peak bytes and its predictions."""
    from tasklib import schema
    from tasklib.data import conversion
    from tasklib.model import models
    from tasklib.paths import task_paths

    paths = task_paths(args.task_dir)
    definition = schema.load_definition(paths.definition)
    overrides = [f"base_model.id={args.model}"] if args.model else []
    config = schema.load_config(args.task_dir / "configs" / f"{args.run or 'baseline'}.yaml", overrides)
    conversations = [row["prompt"] for row in conversion.load_split(paths, "validation")][: args.rows]
    models.quiet_libraries()
    prepare = plain_loop if system == "plain loop" else ours
    answer = prepare(definition, config, paths.run(args.run) if args.run else None, system)
    answer(conversations[:2])
    started = time.perf_counter(), time.process_time()
    predictions = answer(conversations)
    wall_s, cpu_s = time.perf_counter() - started[0], time.process_time() - started[1]
    n_rows = len(conversations)
    return {
        "n_rows": n_rows,
        "rows_per_s": round(n_rows / wall_s, 2),
        "rows_per_cpu_s": round(n_rows / cpu_s, 2),
        "peak_memory_bytes": peak_bytes(),
        "predictions": predictions,
    }


def plain_loop(definition: Any, config: Any, run: Path | None, system: str) -> Callable[[list[Any]], list[Any]]:
    """What a model card shows."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tasklib.model import models

    folder = models.location(config.base_model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    full = run is not None and config.adapter.type == "full"
    model = AutoModelForCausalLM.from_pretrained(run / "model" if full else folder, device_map={"": models.device()})
    if run is not None and not full:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, run / "adapter")

    def answer(conversations: list[Any]) -> list[Any]:
        found = []
        for messages in conversations:
            inputs = tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
                enable_thinking=definition.prompt.enable_thinking,
            ).to(model.device)
            output = model.generate(**inputs, max_new_tokens=config.generation.max_new_tokens, do_sample=False)
            text = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            found.append(definition.task_type.parse(text.strip(), definition.task))
        return found

    return answer


def ours(definition: Any, config: Any, run: Path | None, system: str) -> Callable[[list[Any]], list[Any]]:
    """What 04_evaluate.py does."""
    from tasklib.answering import inference
    from tasklib.model import models

    evaluation = definition.evaluation.model_copy(update={"decoding": system})
    definition = definition.model_copy(update={"evaluation": evaluation})
    tokenizer = models.load_tokenizer(config.base_model)
    model = models.load_trained(config, run) if run else models.load_base(config).eval()

    def answer(conversations: list[Any]) -> list[Any]:
        batches = inference.answers(definition, config, model, tokenizer, conversations)
        return [given.prediction for given in inference.in_order(batches, len(conversations))]

    return answer


def peak_bytes() -> int:
    """Of the GPU where there is one, otherwise of the process, the libraries included."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measured(system: str, task: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--system", system, "--task-dir", str(task)]
    for flag in ("model", "run", "rows"):
        command += [f"--{flag}", str(getattr(args, flag))] if getattr(args, flag) else []
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """For each system the median speeds, the largest peak, and how many answers are those of the plain loop."""
    plain = runs["plain loop"][0]
    found = {}
    for system, measurements in runs.items():
        same = [a == b for a, b in zip(measurements[0]["predictions"], plain["predictions"], strict=True)]
        median = {key: statistics.median(m[key] for m in measurements) for key in ("rows_per_s", "rows_per_cpu_s")}
        found[system] = {
            "n_rows": plain["n_rows"],
            **median,
            "all_rows_per_s": [m["rows_per_s"] for m in measurements],
            "peak_memory_bytes": max(m["peak_memory_bytes"] for m in measurements),
            "same_answer_as_plain_loop": round(sum(same) / len(same), 4),
        }
    for row in found.values():
        row["ratio"] = round(row["rows_per_s"] / found["plain loop"]["rows_per_s"], 2)
    return found


def table(results: dict[str, dict[str, Any]]) -> str:
    lines = [f"{'':12}{'rows/s':>9}{'ratio':>8}{'peak GB':>9}{'same answer':>13}"]
    for system, row in results.items():
        lines.append(
            f"{system:12}{row['rows_per_s']:9.2f}{row['ratio']:8.2f}{row['peak_memory_bytes'] / 1e9:9.2f}"
            f"{row['same_answer_as_plain_loop']:13.1%}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task-dir", type=Path, help="a converted task; default: the bundled example")
    parser.add_argument("--run", help="a finished run of the task; default: the base model")
    parser.add_argument("--model", help="another base model than that of the config")
    parser.add_argument("--rows", type=int, help="only so many validation rows")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="write results/readme.json")
    parser.add_argument("--system", choices=SYSTEMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.system:
        print(json.dumps(measure(args.system, args), ensure_ascii=False))
        return
    runs: dict[str, list[dict[str, Any]]] = {system: [] for system in SYSTEMS}
    with tempfile.TemporaryDirectory() as temporary:
        task = args.task_dir or readme.example_task(Path(temporary))
        for _ in range(args.repeats):
            for system in SYSTEMS:
                runs[system].append(measured(system, task, args))
                print(system, runs[system][-1]["rows_per_s"], "rows/s", file=sys.stderr)
    results = summary(runs)
    print(table(results))
    if args.keep:
        from tasklib.training import runs as records

        command = shlex.join(["tests/bench/evaluate_throughput.py", *sys.argv[1:]])
        about = {"date": datetime.date.today().isoformat(), "command": command, "machine": readme.machine()}
        readme.keep("evaluation", {**about, "versions": records.environment(), "results": results})


if __name__ == "__main__":
    main()
