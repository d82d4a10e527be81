#!/usr/bin/env python3
"""Writes the tables of references/ that are computed: between `<!-- table: NAME -->` and `<!-- end -->`.

uv run python scripts/update_references.py           # after changing the arithmetic or a pin
uv run python scripts/update_references.py --check   # exit 3 where a page is out of date
uv run python scripts/update_references.py --count   # first counts the parameters of the catalog's models anew
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

BUNDLE = Path(__file__).resolve().parent.parent
REFERENCES = BUNDLE / "references"
sys.path.insert(0, str(BUNDLE / "scripts" / "task"))
MARKED = re.compile(r"(<!-- table: ([\w-]+)(?: ([\w-]+))? -->\n).*?(<!-- end -->)", re.DOTALL)

# Shapes, not names: parameters follow from them. hidden, intermediate, layers, heads, key-value heads, vocabulary
SHAPES = {"8B": (4096, 14336, 32, 32, 8, 128256), "32B": (5120, 25600, 64, 64, 8, 151936),
          "70B": (8192, 28672, 80, 64, 8, 128256)}  # fmt: skip
ROWS, TOKENS, LABELLED, SIZES_GB = 4, 1024, 16, (24, 48, 80, 141)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 3 where a table differs")
    parser.add_argument("--count", action="store_true", help="count the parameters of models/catalog.yaml anew first")
    args = parser.parse_args()
    check, outdated = args.check, []
    if args.count:
        count_parameters()
    for page in sorted(REFERENCES.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        new = MARKED.sub(_written, text)
        if new != text:
            outdated.append(page.relative_to(BUNDLE))
            if not check:
                page.write_text(new, encoding="utf-8")
    for page in outdated:
        print(f"{page}: {'out of date' if check else 'written'}")
    return 3 if check and outdated else 0


def count_parameters() -> None:
    """Writes `text_parameters` of every model of the catalog that has a config, and leaves all else as it stands."""
    from knowledge import catalogs, tables

    path = REFERENCES / "models" / "catalog.yaml"
    entries = re.split(r"^(?=- id: )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    models = catalogs.load("models/catalog.yaml")
    for number, model in enumerate(models, len(entries) - len(models)):  # what stands before the first entry is kept
        entry = re.sub(r"^  text_parameters: .*\n", "", entries[number], flags=re.MULTILINE)
        if n := tables.counted(model):
            entry = entry.replace("\n  sources:", f"\n  text_parameters: {n}\n  sources:", 1)
        entries[number] = entry
    path.write_text("".join(entries), encoding="utf-8")


def _written(match: re.Match[str]) -> str:
    before, name, argument, after = match.groups()
    return before + (TABLES[name](argument) if argument else TABLES[name]()) + after


def gpus_table() -> str:
    """GB on each GPU, by shape, adapter and how it is shared out; the smallest common GPU on which that fits."""
    from tasklib import schema
    from tasklib.launching import plan
    from tasklib.model import memory, models

    def needed(base: Path, adapter: str, spread: memory.Spread) -> str:
        config = schema.RunConfig(
            schema_version=1,
            base_model={"id": str(base)},
            adapter={"type": adapter},
            training={"per_device_train_batch_size": ROWS, "activation_checkpointing": True},
        )
        total = memory.estimate_training(config, [TOKENS] * ROWS, [LABELLED] * ROWS, spread).total_bytes / 1e9
        fitting = next((f"{size} GB" for size in SIZES_GB if total <= size * (1 - plan.RESERVE)), "放不下")
        return f"{total:.0f}（{fitting}）"

    ways = [("QLoRA，單張或 DDP", "qlora", memory.ALONE), ("LoRA，單張", "lora", memory.ALONE)]
    ways += [(f"LoRA，FSDP2 {n} 張", "lora", memory.Spread(n, is_sharded=True)) for n in (2, 4, 8)]
    ways += [("全參數，FSDP2 8 張", "full", memory.Spread(8, is_sharded=True))]
    lines = [f"| 做法 | {' | '.join(SHAPES)} |", f"|---|{'---|' * len(SHAPES)}"]
    with tempfile.TemporaryDirectory() as folder, models.planned_for("cuda"):
        bases = [_saved(Path(folder) / name, *shape) for name, shape in SHAPES.items()]
        columns = [[needed(base, adapter, spread) for _, adapter, spread in ways] for base in bases]
    for (title, _, _), cells in zip(ways, zip(*columns, strict=True), strict=True):
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _saved(folder: Path, hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, words: int) -> Path:
    from transformers import LlamaConfig

    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=words,
        tie_word_embeddings=False,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder)
    return folder


def _of_catalog(function: str) -> Callable[[str], str]:
    def table(argument: str) -> str:
        from knowledge import tables

        return getattr(tables, function)(argument)

    return table


TABLES: dict[str, Callable[..., str]] = {
    "gpus": gpus_table,
    "models": _of_catalog("models_table"),
    "datasets": _of_catalog("datasets_table"),
    "defaults": _of_catalog("defaults_table"),
}

if __name__ == "__main__":
    sys.exit(main())
