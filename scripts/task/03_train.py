#!/usr/bin/env python3
"""Trains one run: configs/<run>.yaml + data/processed/ -> models/<run>/."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasklib import cli
from tasklib.summary import Problem, Summary, TaskError


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "train",
        "Fine-tune the base model of one config on data/processed/ and write models/<run>/.",
        [
            "uv run python scripts/03_train.py",
            "uv run python scripts/03_train.py --config configs/lr-1e-4.yaml --resume",
            "uv run python scripts/03_train.py --limit 32 --set training.num_train_epochs=1",
        ],
    )
    cli.add_task_flags(parser, __file__)
    cli.add_run_flags(parser)
    parser.add_argument("--resume", action="store_true", help="continue from the last whole checkpoint, if any")
    parser.add_argument("--force", action="store_true", help="move an existing run aside and train anew")
    parser.add_argument("--dry-run", action="store_true", help="check config, data and tokens; load no model")
    return parser


def train(args: argparse.Namespace) -> Summary:
    from tasklib import conversion, models, prompts, runs, schema, tokenized
    from tasklib.paths import config_path, task_paths

    paths = task_paths(args.task_dir)
    definition = schema.load_definition(paths.definition)
    config_file = config_path(paths, args.config)
    config = schema.load_config(config_file, args.overrides, args.config)
    name = runs.run_name(config_file, args.limit)
    folder = paths.run(name)
    rows = conversion.load_split(paths, "train")[: args.limit]
    has_validation = paths.split("validation").is_file()
    validation = conversion.load_split(paths, "validation")[: args.limit] if has_validation else []
    identity = runs.identity(config, definition, paths)

    report = {
        "run": name,
        "outputs": {"run": paths.shown(folder)},
        "next": f"uv run python scripts/04_evaluate.py --config {args.config}",
    }
    if args.limit:
        report["next"] += f" --limit {args.limit}"
    if _already_finished(folder, identity, name, args):
        return Summary.of("train", "skipped", **report)
    tokenizer = models.load_tokenizer(config.base_model)
    encoded = {
        "train": tokenized.encode(tokenizer, rows, config.training.max_length),
        "validation": tokenized.encode(tokenizer, validation, config.training.max_length),
    }
    statistics = {split: tokenized.statistics(examples) for split, examples in encoded.items() if examples}
    counts = {
        "rows": len(rows),
        "tokens": statistics["train"]["n_tokens"],
        "trained_tokens": statistics["train"]["n_trained_tokens"],
    }
    if args.dry_run:
        return Summary.of(
            "train", counts=counts, run=name, next=f"uv run python scripts/03_train.py --config {args.config}"
        )

    record = runs.RunRecord(
        status="running",
        argv=runs.command_line(),
        config=config.model_dump(mode="json"),
        identity=identity,
        inputs=_inputs(paths, config_file),
        code=runs.code_hashes(paths),
        environment=runs.environment(),
        hardware=runs.hardware(),
        seed=config.training.seed,
        started_at=runs.now(),
        prompt_sha256=prompts.prompt_hash(tokenizer, definition),
        counts=counts,
        parent_run=config.parent,
    )
    if args.force and folder.exists():
        with runs.lock(folder):
            runs.move_aside(folder)
    with runs.lock(folder):
        record = _run_and_record(folder, record, lambda: _fit(config, tokenizer, encoded, statistics, folder))
    return Summary.of("train", counts=record.counts, metrics=record.final, **report)


def _already_finished(folder: Path, identity: dict, name: str, args: argparse.Namespace) -> bool:
    """Whether there is nothing to do. Raises TaskError (exit 2) when the folder holds another or an unfinished run."""
    from tasklib import runs

    record = runs.read_record(folder)
    if record is None or args.force:
        return False
    runs.require_same_identity(record, identity, name, "write a new config, or --force to move the old run aside")
    if record.status != "finished" and not args.resume and _last_checkpoint(folder):
        problem = Problem(
            code="unfinished_run",
            message=f"run {name!r} stopped before its end ({record.status})",
            hint="--resume continues it, --force moves it aside and starts anew",
        )
        raise TaskError(cli.ExitCode.USAGE, [problem])
    return record.status == "finished"


def _run_and_record(folder: Path, record: Any, fit: Any) -> Any:
    """Keeps run.json true whatever happens: running, then finished, stopped or failed."""
    from tasklib import runs

    runs.write_record(folder, record)
    status = "failed"
    try:
        outcome = fit()
        status = "finished"
    except KeyboardInterrupt:
        status = "stopped"
        raise
    finally:
        if status != "finished":
            runs.write_record(folder, record.model_copy(update={"status": status, "finished_at": runs.now()}))
    outcome["counts"] = {**record.counts, **outcome["counts"]}
    record = record.model_copy(update={"status": status, "finished_at": runs.now(), **outcome})
    runs.write_record(folder, record)
    return record


def _fit(config: Any, tokenizer: Any, encoded: dict[str, list], statistics: dict, folder: Path) -> dict[str, Any]:
    """Trains and saves; returns counts, final losses and peak memory for run.json."""
    import yaml
    from datasets import Dataset
    from transformers import PrinterCallback, set_seed
    from trl import SFTTrainer

    from tasklib import files, models, progress, training_log

    files.write_text(
        folder / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    )
    files.write_json(folder / "data_stats.json", statistics)
    set_seed(config.training.seed)
    model = _with_adapter(models.load_base(config), config)
    checkpoint = _last_checkpoint(folder)
    log = training_log.TrainingLog(folder / "train_log.jsonl", checkpoint)
    if models.device() == "cpu":
        _score_only_labelled_positions()
    with progress.bar("train", 1, "step") as bar:
        trainer = SFTTrainer(
            model=model,
            args=_arguments(config, folder, has_validation=bool(encoded["validation"])),
            train_dataset=Dataset.from_list(encoded["train"]),
            eval_dataset=Dataset.from_list(encoded["validation"]) if encoded["validation"] else None,
            processing_class=tokenizer,
            callbacks=[log.callback(bar)],
        )
        trainer.remove_callback(PrinterCallback)
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    _save(trainer.model, tokenizer, config, folder)
    log.plot(folder / "loss.png")
    final = {"train_loss": float(result.training_loss), **log.last("eval_loss")}
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "counts": {"steps": trainer.state.global_step, "trainable_parameters": trainable},
        "final": final,
        "peak_memory_bytes": training_log.peak_memory_bytes(),
    }


def _with_adapter(model: Any, config: Any) -> Any:
    """The model with what is to be trained on it: LoRA or DoRA weights, or all of it."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if config.adapter.type == "full":
        return model
    fields = config.adapter.peft_fields
    if fields["target_modules"] == "auto":
        fields["target_modules"] = "all-linear"  # every linear layer but the head: Dettmers et al. 2023, section 4
    if config.adapter.is_quantized:
        checkpointing = bool(config.training.model_extra.get("activation_checkpointing"))
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    lora = LoraConfig(task_type="CAUSAL_LM", use_dora=config.adapter.uses_dora, **fields)
    return get_peft_model(model, lora, autocast_adapter_dtype=config.adapter.autocast_adapter_dtype)


def _arguments(config: Any, folder: Path, *, has_validation: bool) -> Any:
    """SFTConfig from the config's own fields and what the script owns."""
    from trl import SFTConfig

    from tasklib import models

    fields = config.training.model_dump()
    on_cpu = models.device() == "cpu"
    fields.setdefault("eval_strategy", "epoch" if has_validation else "no")
    fields.setdefault("activation_checkpointing", not on_cpu)  # trades time for memory; CPU memory is not the limit
    fields.setdefault("per_device_eval_batch_size", fields["per_device_train_batch_size"])
    fields["max_length"] = None  # tokenized.encode has refused what does not fit
    return SFTConfig(
        output_dir=str(folder / "checkpoints"),
        use_cpu=on_cpu,
        bf16=False,  # base_model.dtype decides; TRL would switch autocast on by itself
        dataset_kwargs={"skip_prepare_dataset": True},
        disable_tqdm=True,  # the bar of progress.py shows the same in one line
        push_to_hub=False,
        **fields,
    )


def _score_only_labelled_positions() -> None:
    """On CPU, TRL's loss runs the language-model head over every position of the batch, labelled or not, because it
    ties that choice to Triton. Letting it take the compact path saves that time and leaves the loss unchanged
    (tests/test_train.py). The name is private: trl is pinned, and a missing name fails here."""
    from trl.trainer import utils

    if not callable(utils._use_triton):
        raise RuntimeError("trl.trainer.utils._use_triton is gone: trl is not the pinned version")
    utils._use_triton = lambda device: True


def _save(model: Any, tokenizer: Any, config: Any, folder: Path) -> None:
    """Writes adapter/ (or model/ after full training) with the tokenizer, safetensors only, whole or not at all."""
    from tasklib import files, models

    is_full = config.adapter.type == "full"
    with files.new_folder(folder / ("model" if is_full else "adapter")) as target:
        if is_full:
            model.save_pretrained(target)
        else:
            # the adapter must name its base model, not the folder that it was loaded from here
            model.peft_config["default"].base_model_name_or_path = models.hub_name(config.base_model)
            model.save_pretrained(target, save_embedding_layers=False)  # no token was added: nothing to look up
        tokenizer.save_pretrained(target)
        (target / "README.md").unlink(missing_ok=True)  # PEFT's placeholder card; 05_upload_hf.py writes the real one


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end: the Trainer writes trainer_state.json last."""
    found = [p for p in (folder / "checkpoints").glob("checkpoint-*") if (p / "trainer_state.json").is_file()]
    return max(found, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def _inputs(paths: Any, config_file: Path) -> dict[str, str]:
    from tasklib.files import sha256_of

    used = [paths.definition, config_file, *sorted(paths.processed.glob("*.jsonl"))]
    return {paths.shown(path): sha256_of(path) for path in used}


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), train, argv)


if __name__ == "__main__":
    raise SystemExit(main())
