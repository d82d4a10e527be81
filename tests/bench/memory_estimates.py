#!/usr/bin/env python3
"""Trains real configurations for a few steps and compares the peak of each process with what was estimated before.

    uv run python tests/bench/memory_estimates.py            # about 10 minutes on 2 cores
    uv run python tests/bench/memory_estimates.py --keep     # writes tests/bench/results/memory_estimates.json

On CPU the peak is ru_maxrss, on a GPU torch.cuda.max_memory_allocated (without context: `overhead` is then left out of
the estimate). Models that cannot be had here have the config of references/models/catalog.yaml and random weights in
bfloat16, which take the same room. tests/test_memory.py holds the kept figures against the goal.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).resolve().parent.parent.parent
RESULT = Path(__file__).parent / "results" / "memory_estimates.json"
for folder in ("scripts", "scripts/task", "tests"):
    sys.path.insert(0, str(BUNDLE / folder))

BUILTIN = "builtin:smollm2-135m"
CHECKPOINTED = {"activation_checkpointing": True}
LORA, FULL = {"type": "lora"}, {"type": "full"}
# name -> (base model, adapter, training)
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "SmolLM2-135M lora": (BUILTIN, LORA, {}),
    "SmolLM2-135M lora, checkpointing": (BUILTIN, LORA, CHECKPOINTED),
    "SmolLM2-135M dora": (BUILTIN, {"type": "dora"}, {}),
    "SmolLM2-135M qlora": (BUILTIN, {"type": "qlora"}, {}),
    "SmolLM2-135M full": (BUILTIN, FULL, {}),
    "SmolLM2-360M lora": ("HuggingFaceTB/SmolLM2-360M-Instruct", LORA, {}),
    "Gemma-3-270m lora": ("google/gemma-3-270m-it", LORA, {}),
    "Qwen3-0.6B lora": ("Qwen/Qwen3-0.6B", LORA, {}),
    "Qwen3-0.6B qlora": ("Qwen/Qwen3-0.6B", {"type": "qlora"}, {}),
    "Qwen3.5-0.8B lora (hybrid)": ("Qwen/Qwen3.5-0.8B", LORA, {}),
    "Llama-3.2-1B lora": ("meta-llama/Llama-3.2-1B-Instruct", LORA, {}),
    "Llama-3.2-1B lora, checkpointing": ("meta-llama/Llama-3.2-1B-Instruct", LORA, CHECKPOINTED),
}
STEPS = {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-4, "eval_strategy": "no",
         "save_strategy": "no", "max_length": 320}  # fmt: skip


def measured(name: str, workspace: Path) -> dict[str, Any]:
    """One configuration, trained in a process of its own."""
    from tasklib.training import runs
    from trainable_task import make_task

    base, adapter, training = CASES[name]
    model = base if base == BUILTIN else random_model(base, workspace / base.replace("/", "--"))
    folder = workspace / "task"
    sections = {"base_model": {"id": str(model)}, "adapter": adapter, "training": {**STEPS, **training}}
    task = make_task(folder, model, n_rows=40, **sections)
    task.edit_definition(prompt={"instruction": "判斷這則公司新聞對持有者是利多還是利空。" * 6})
    task.ok("02_convert_format.py", "--force")
    outcome = task.spawn("03_train.py")
    if outcome.code:
        raise SystemExit(f"{name}: {outcome.summary['errors']}\n{outcome.stderr[-2000:]}")
    record = runs.read_record(folder / "models" / "baseline")
    shutil.rmtree(folder)
    estimated, peak = record.estimated_memory_bytes, record.peak_memory_bytes
    return {"estimated_bytes": estimated, "peak_memory_bytes": peak, "ratio": round(estimated / peak, 3)}


def random_model(name: str, folder: Path) -> Path:
    """The architecture of a catalog model with random weights in bfloat16, and the builtin model's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from knowledge import bases
    from tasklib.model import builtin

    if (folder / "config.json").is_file():
        return folder
    with bases.located(name) as base:
        config = AutoConfig.from_pretrained(base.location)
    torch.set_default_dtype(torch.bfloat16)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(builtin.folder(BUILTIN)).save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="cases whose name holds this")
    parser.add_argument("--keep", action="store_true", help=f"write {RESULT.relative_to(BUNDLE)}")
    args = parser.parse_args()
    import torch

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as workspace:
        for name in CASES:
            if args.only and args.only not in name:
                continue
            found[name] = measured(name, Path(workspace))
            print(f"{name:<36}{found[name]}", flush=True)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {platform.libc_ver()[1]}"
    if args.keep:
        text = json.dumps({"device": device, "cases": found}, indent=2, ensure_ascii=False)
        RESULT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
