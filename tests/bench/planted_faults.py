#!/usr/bin/env python3
"""Plants one fault in each of many real small trainings and counts how often diagnose.py names it first.

    uv run python tests/bench/planted_faults.py plant FOLDER --set calibration --reviews REVIEWS --entities ENTITIES
    uv run python tests/bench/planted_faults.py judge FOLDER

REVIEWS: the folder with amazon.json, yelp.json and imdb.json of the npm package `sentiment` 5.0.2 (`npm pack
sentiment@5.0.2`; 1,000 sentences each of Kotzias et al. 2015). ENTITIES: FinEntity.json of the FinEntity data set.
Thresholds of the rules were set on `calibration`
(reviews of products and restaurants, four labels, seed 1) and judged on `judged` (sentiment of financial sentences,
three labels, seed 2; healthy runs on films and restaurants too). Each case trains SmolLM2-135M (LoRA, bf16) on the CPU
for a few minutes. `--worker 0/2` and `--worker 1/2` share the cases between two processes.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

BUNDLE = Path(__file__).resolve().parent.parent.parent
RESULT = Path(__file__).parent / "results" / "planted_faults.json"
Row = dict[str, str]
SIZES = {"train": 200, "validation": 120, "test": 80}


@dataclass
class Plan:
    """What a case writes to disk; a fault changes one thing of it. `after` runs between training and evaluation."""

    rows: dict[str, list[Row]]
    definition: dict[str, Any]
    config: dict[str, Any]
    spare: list[Row]
    dice: random.Random
    after: Callable[[Path], None] | None = None
    may_fail: bool = False


# ---- data -----------------------------------------------------------------------------------------------------------


def reviews(folder: Path, kinds: dict[str, str]) -> list[Row]:
    """Sentences with `<word> <thing>` as the label, for each file of `kinds` (file -> thing)."""
    rows = []
    for name, thing in kinds.items():
        for item in json.loads((folder / f"{name}.json").read_text(encoding="utf-8")):
            if item.get("class") is not None:
                label = f"{('bad', 'good')[item['class']]} {thing}"
                rows.append({"text": " ".join(item["text"].split()), "label": label})
    return rows


def entities(file: Path) -> list[Row]:
    """Sentences whose entities all have one sentiment."""
    rows = []
    for item in json.loads(file.read_text(encoding="utf-8")):
        labels = {a["label"].lower() for a in item["annotations"]}
        text = " ".join(item["content"].split())
        if len(labels) == 1 and len(text) <= 235:
            rows.append({"text": text, "label": labels.pop()})
    return rows


def unique(rows: list[Row]) -> list[Row]:
    """Each text once, whatever its case and punctuation."""
    seen: dict[str, Row] = {}
    for row in rows:
        seen.setdefault(re.sub(r"\W+", "", row["text"].lower()), row)
    return [row for key, row in seen.items() if len(key) > 3]


def healthy(rows: list[Row], instruction: str, seed: int, **training: Any) -> Plan:
    """A run with nothing wrong: shuffled rows, three epochs, LoRA at a rate that suits the model."""
    dice = random.Random(seed)
    rows = unique(rows)
    dice.shuffle(rows)
    parts, at = {}, 0
    for name, n in SIZES.items():
        parts[name], at = rows[at : at + n], at + n
    if len(parts["test"]) < SIZES["test"]:
        raise SystemExit(f"only {len(rows)} rows")
    labels = sorted({row["label"] for row in rows})
    definition = {
        "schema_version": 1,
        "name": "planted",
        "language": "en",
        "task": {"type": "classification", "labels": labels},
        "prompt": {"instruction": instruction},
        "data": {
            "files": {name: [f"data/raw/{name}.jsonl"] for name in SIZES},
            "fields": {"text": "text", "label": "label"},
        },
        "evaluation": {"must_beat": ["majority"], "n_few_shot": 0, "target": None},
    }
    config = {
        "schema_version": 1,
        "base_model": {"id": "builtin:smollm2-135m"},
        "adapter": {"autocast_adapter_dtype": False},
        "training": {
            "num_train_epochs": 3, "learning_rate": 1e-3, "per_device_train_batch_size": 8, "max_length": 192,
            "seed": seed, "logging_steps": 1,
        } | training,
        "generation": {"max_new_tokens": 8, "batch_size": 16},
    }  # fmt: skip
    return Plan(parts, definition, config, rows[at:], dice)


# ---- faults: each changes one thing ---------------------------------------------------------------------------------


def labels_flipped(plan: Plan) -> None:
    """20 % of the labels of every split are another one."""
    labels = plan.definition["task"]["labels"]
    for rows in plan.rows.values():
        for row in plan.dice.sample(rows, len(rows) // 5):
            row["label"] = plan.dice.choice([label for label in labels if label != row["label"]])


def class_starved(plan: Plan) -> None:
    """One label keeps 4 training rows; others fill the gap, validation and test stay."""
    label = plan.definition["task"]["labels"][0]
    rows = [row for row in plan.rows["train"] if row["label"] != label]
    few = [row for row in plan.rows["train"] if row["label"] == label][:4]
    more = [row for row in plan.spare if row["label"] != label][: SIZES["train"] - len(rows) - len(few)]
    plan.rows["train"] = rows + few + more
    plan.dice.shuffle(plan.rows["train"])


def rate_too_high(plan: Plan) -> None:
    plan.config["training"]["learning_rate"] *= 100


def rate_too_low(plan: Plan) -> None:
    plan.config["training"]["learning_rate"] /= 100


def loss_is_nan(plan: Plan) -> None:
    """A rate at which the weights overflow."""
    plan.config["training"] |= {"learning_rate": 1e30, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}
    plan.may_fail = True


def answers_cut(plan: Plan) -> None:
    """Evaluation lets the model write fewer tokens than its answers have; training would refuse that."""
    plan.definition["evaluation"]["decoding"] = "generate"
    labels = plan.definition["task"]["labels"]
    plan.definition["task"]["labels"] = {label: f"The sentiment expressed here is: {label}" for label in labels}
    plan.config["generation"]["max_new_tokens"] = 16

    def after(task: Path) -> None:
        file = task / "configs" / "baseline.yaml"
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("max_new_tokens: 16", "max_new_tokens: 4"), encoding="utf-8")

    plan.after = after


def template_changed(plan: Plan) -> None:
    """The base model's chat template is another one after training."""
    plan.config["base_model"]["id"] = "base"

    def after(task: Path) -> None:
        for file in (task.parent / "models" / "base").glob("chat_template*"):
            file.write_text(file.read_text(encoding="utf-8").replace("<|im_start|>", "### "), encoding="utf-8")
        for file in (task.parent / "models" / "base").glob("tokenizer_config.json"):
            text = json.loads(file.read_text(encoding="utf-8"))
            if "chat_template" in text:
                text["chat_template"] = text["chat_template"].replace("<|im_start|>", "### ")
                file.write_text(json.dumps(text), encoding="utf-8")

    plan.after, plan.may_fail = after, True


def near_copies(plan: Plan) -> None:
    """Two in five validation and test texts are training texts with another ending."""
    for name, ending in (("validation", " ..."), ("test", " !!")):
        rows = plan.rows[name]
        n = len(rows) * 2 // 5
        places = zip(plan.dice.sample(range(len(rows)), n), plan.dice.sample(plan.rows["train"], n), strict=True)
        for position, row in places:
            rows[position] = {"text": row["text"].rstrip(".! ") + ending, "label": row["label"]}


def too_many_epochs(plan: Plan) -> None:
    plan.config["training"]["num_train_epochs"] = 15


def one_batch(plan: Plan) -> None:
    """One epoch of a single batch."""
    plan.config["training"] |= {"num_train_epochs": 1, "gradient_accumulation_steps": 25}


def classes_merged(plan: Plan) -> None:
    """A mapping wrote one label for two in the training file."""
    labels = plan.definition["task"]["labels"]
    for row in plan.rows["train"]:
        if row["label"] == labels[0]:
            row["label"] = labels[1]


def test_shifted(plan: Plan) -> None:
    """Validation and test come from elsewhere: long, shouted, with a signature."""
    for name in ("validation", "test"):
        for n, row in enumerate(plan.rows[name]):
            row["text"] = f"RE: FWD: {row['text'].upper()} -- SENT FROM MY PHONE, PLEASE EXCUSE BREVITY ({n})"


def noise_texts(plan: Plan) -> None:
    """The texts say nothing about their labels: words drawn from all rows."""
    words = [word for row in plan.rows["train"] for word in row["text"].split()]
    for rows in plan.rows.values():
        for row in rows:
            row["text"] = " ".join(plan.dice.choice(words) for _ in range(12))


def tiny_validation(plan: Plan) -> None:
    plan.rows["validation"] = plan.rows["validation"][:14]
    plan.definition["evaluation"]["target"] = 0.8


def texts_truncated(plan: Plan) -> None:
    """Most of each text does not fit."""
    plan.definition["prompt"]["shorten"] = "keep_start"
    plan.config["training"]["max_length"] = 32


def repeated_rows(plan: Plan) -> None:
    """Twelve rows of one label make up more than half of the training file."""
    label = plan.definition["task"]["labels"][-1]
    few = [row for row in plan.rows["train"] if row["label"] == label][:12]
    plan.rows["train"] = plan.rows["train"] + [dict(row) for row in few for _ in range(18)]
    plan.dice.shuffle(plan.rows["train"])


def base_knows_nothing(plan: Plan) -> None:
    """A small base model with random weights."""
    plan.config["base_model"]["id"] = "random"


FAULTS: dict[str, tuple[Callable[[Plan], None], tuple[str, ...]]] = {
    "labels_flipped": (labels_flipped, ("label_noise",)),
    "class_starved": (class_starved, ("class_imbalance",)),
    "rate_too_high": (rate_too_high, ("learning_rate_too_high",)),
    "rate_too_low": (rate_too_low, ("learning_rate_too_low",)),
    "loss_is_nan": (loss_is_nan, ("loss_is_nan",)),
    "answers_cut": (answers_cut, ("answers_cut",)),
    "template_changed": (template_changed, ("template_changed",)),
    "near_copies": (near_copies, ("leakage",)),
    "too_many_epochs": (too_many_epochs, ("too_many_epochs",)),
    "one_batch": (one_batch, ("too_few_steps",)),
    "classes_merged": (classes_merged, ("label_never_trained",)),
    "test_shifted": (test_shifted, ("split_shift",)),
    "noise_texts": (noise_texts, ("no_signal",)),
    "tiny_validation": (tiny_validation, ("too_few_rows_to_tell",)),
    "texts_truncated": (texts_truncated, ("texts_truncated",)),
    "repeated_rows": (repeated_rows, ("repeated_rows",)),
    "base_knows_nothing": (base_knows_nothing, ("base_model_unfit",)),
}


# ---- sets -----------------------------------------------------------------------------------------------------------

PRODUCTS = "What is this review about, and is it good or bad?"
SENTIMENT = "Which sentiment does this financial news sentence express?"
FILMS = "Does this sentence about a film express a good or a bad opinion?"


def cases(args: argparse.Namespace) -> dict[str, Callable[[], Plan]]:
    """Name -> a plan with its fault planted."""
    sets = {
        "calibration": lambda seed=1, **more: healthy(
            reviews(args.reviews, {"amazon": "product", "yelp": "restaurant"}), PRODUCTS, seed, **more
        ),
        "judged": lambda seed=2, **more: healthy(entities(args.entities), SENTIMENT, seed, **more),
    }
    films = lambda seed, **more: healthy(reviews(args.reviews, {"imdb": "film"}), FILMS, seed, **more)  # noqa: E731
    places = lambda seed, **more: healthy(reviews(args.reviews, {"yelp": "restaurant"}), PRODUCTS, seed, **more)  # noqa: E731
    make = sets["judged" if args.set == "fresh" else args.set]
    found: dict[str, Callable[[], Plan]] = {}
    for name, (fault, _) in FAULTS.items():

        def planted(fault: Callable = fault) -> Plan:
            plan = make()
            plan.rows = copy.deepcopy(plan.rows)
            fault(plan)
            return plan

        found[name] = planted
    if args.set == "calibration":
        found |= {"healthy-1": make, "healthy-2": lambda: make(11), "healthy-3": lambda: make(12, learning_rate=5e-4)}
    elif args.set == "fresh":  # healthy runs alone, for a rule that was changed after `judged` had been seen
        found = {
            "healthy-1": lambda: sets["judged"](31),
            "healthy-2": lambda: sets["judged"](32, num_train_epochs=4),
            "healthy-3": lambda: films(33),
            "healthy-4": lambda: films(34, learning_rate=5e-4),
            "healthy-5": lambda: places(35),
        }
    else:
        found |= {
            "healthy-1": make,
            "healthy-2": lambda: make(21, num_train_epochs=4),
            "healthy-3": lambda: films(22),
            "healthy-4": lambda: films(23, learning_rate=5e-4),
            "healthy-5": lambda: places(24),
        }
    return found


# ---- writing and running --------------------------------------------------------------------------------------------


def write(folder: Path, plan: Plan) -> None:
    """A task folder with the bundle's own scripts."""
    shutil.copytree(BUNDLE / "scripts" / "task", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data" / "raw").mkdir(parents=True)
    for name, rows in plan.rows.items():
        lines = [json.dumps({"text": row["text"], "label": row["label"]}, ensure_ascii=False) + "\n" for row in rows]
        (folder / "data" / "raw" / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    if plan.config["base_model"]["id"] in ("base", "random"):
        base = folder.parent / "models" / plan.config["base_model"]["id"]
        if not base.exists():
            make_base(base)
        plan.config["base_model"]["id"] = str(base)
    (folder / "configs").mkdir()
    (folder / "configs" / "baseline.yaml").write_text(yaml.safe_dump(plan.config), encoding="utf-8")
    (folder / "task_definition.yaml").write_text(yaml.safe_dump(plan.definition), encoding="utf-8")


def make_base(base: Path) -> None:
    """SmolLM2 as a local folder; where it is named random, with random weights, narrow and of two layers."""
    sys.path.insert(0, str(BUNDLE / "scripts" / "task"))
    from tasklib.model import builtin

    shutil.copytree(builtin.folder("builtin:smollm2-135m"), base)
    if base.name == "random":
        from transformers import AutoConfig, AutoModelForCausalLM

        sizes = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 3}
        config = AutoConfig.from_pretrained(base, **sizes, num_key_value_heads=3, head_dim=32)
        AutoModelForCausalLM.from_config(config).save_pretrained(base)


def run(folder: Path, script: str, *flags: str, may_fail: bool = False) -> dict[str, Any]:
    process = subprocess.run(
        [sys.executable, str(folder / "scripts" / script), "--json", *flags], stdout=subprocess.PIPE, text=True,
        stderr=(folder / "log.txt").open("a"),
    )  # fmt: skip
    if process.returncode not in (0, 5) and not may_fail:
        raise RuntimeError(f"{folder.name}: {script} ended with {process.returncode}\n{process.stdout[-2000:]}")
    return json.loads(process.stdout) if process.stdout else {}


def plant(args: argparse.Namespace) -> None:
    """Trains and evaluates every case that FOLDER does not hold yet."""
    number, of = map(int, args.worker.split("/"))
    for position, (name, make) in enumerate(cases(args).items()):
        folder = args.folder / name
        if position % of != number or (folder / "planted.json").exists() or (args.only and name not in args.only):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        plan, started = make(), time.monotonic()
        try:
            write(folder, plan)
            run(folder, "02_convert_format.py")
            run(folder, "03_train.py", may_fail=plan.may_fail)
            if plan.after:
                plan.after(folder)
            run(folder, "04_evaluate.py", may_fail=plan.may_fail)
        except RuntimeError as error:
            print(error, file=sys.stderr, flush=True)
            continue
        seconds = round(time.monotonic() - started, 1)
        file = folder / "benchmarks/baseline/validation/metrics.json"
        score = json.loads(file.read_text())["primary"]["value"] if file.exists() else None
        (folder / "planted.json").write_text(json.dumps({"fault": name, "elapsed_s": seconds, "score": score}))
        print(f"{name}: {score} in {seconds} s", flush=True)


# ---- judging --------------------------------------------------------------------------------------------------------


def named(folder: Path) -> dict[str, Any]:
    """What diagnose.py says of one planted task, by the bundle's own copy of it."""
    import diagnose  # scripts/task is on sys.path
    from tasklib import cli

    parser, started = diagnose.build_parser(), time.monotonic()
    summary, code = cli._run_body(parser, diagnose.diagnose, ["--task-dir", str(folder), "--json"])
    if code:
        raise RuntimeError(f"{folder.name}: {summary.errors}")
    found = [(item["code"], item["confidence"], item["message"]) for item in summary.outputs["findings"]]
    return {"findings": found, "elapsed_s": round(time.monotonic() - started, 1)}


def judge(args: argparse.Namespace) -> None:
    """Diagnoses every planted case of FOLDER, prints the table and keeps it in tests/bench/results/."""
    sys.path.insert(0, str(BUNDLE / "scripts" / "task"))
    rows, shown = {}, []
    for file in sorted(args.folder.glob("*/planted.json")):
        planted = json.loads(file.read_text(encoding="utf-8"))
        if args.only and planted["fault"] not in args.only:
            continue
        wanted = FAULTS[planted["fault"]][1] if planted["fault"] in FAULTS else ()
        found = named(file.parent)
        codes = [code for code, _, _ in found["findings"]]
        right = (codes[0] in wanted if codes else False) if wanted else not codes
        rows[planted["fault"]] = {
            "expected": list(wanted), "named_first": codes[0] if codes else None, "also": codes[1:], "right": right,
            "score": planted["score"], "train_s": planted["elapsed_s"], "diagnose_s": found["elapsed_s"],
        }  # fmt: skip
        shown.append(f"{'ok ' if right else 'NO '} {planted['fault']:17s} {', '.join(codes) or 'nothing to fix'}")
        if args.verbose:
            shown += [f"       [{confidence}] {code}: {message}" for code, confidence, message in found["findings"]]
        print("\n".join(shown[-1 - (len(found["findings"]) if args.verbose else 0) :]), flush=True)
    faults = [row for row in rows.values() if row["expected"]]
    sound = [row for row in rows.values() if not row["expected"]]
    n_right, n_silent = sum(row["right"] for row in faults), sum(row["right"] for row in sound)
    print(f"named first: {n_right} of {len(faults)}; no alarm: {n_silent} of {len(sound)} healthy runs")
    if args.only or not args.keep:
        return
    kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    kept[args.set] = {
        "date": datetime.date.today().isoformat(), "command": f"tests/bench/planted_faults.py judge --set {args.set}",
        "n_faults": len(faults), "n_named_first": n_right, "n_healthy": len(sound), "n_without_alarm": n_silent,
        "cases": rows,
    }  # fmt: skip
    RESULT.write_text(json.dumps(kept, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("plant", "judge"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", choices=("calibration", "judged", "fresh"), default="calibration")
    parser.add_argument("--reviews", type=Path)
    parser.add_argument("--entities", type=Path)
    parser.add_argument("--worker", default="0/1")
    parser.add_argument("--only", nargs="*", help="these cases alone")
    parser.add_argument("--verbose", action="store_true", help="judge: every finding with its message")
    parser.add_argument("--keep", action="store_true", help="judge: write tests/bench/results/planted_faults.json")
    return parser


if __name__ == "__main__":
    arguments = build_parser().parse_args()
    arguments.folder = arguments.folder.resolve()
    (plant if arguments.action == "plant" else judge)(arguments)
