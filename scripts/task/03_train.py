#!/usr/bin/env python3
"""Trains one run: configs/<run>.yaml + data/processed/ -> models/<run>/."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasklib import cli
from tasklib.summary import Problem, Summary, TaskError


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "train",
        "Fine-tune the base model of one config on data/processed/ and write models/<run>/.",
        [
            "uv run python scripts/03_train.py --rehearse",
            "uv run python scripts/03_train.py",
            "uv run python scripts/03_train.py --config configs/lr-1e-4.yaml --resume",
            "uv run python scripts/03_train.py --seeds 3",
            "uv run python scripts/03_train.py --limit 32 --set training.num_train_epochs=1",
        ],
    )
    cli.add_task_flags(parser, __file__)
    cli.add_run_flags(parser)
    parser.add_argument("--resume", action="store_true", help="continue from the last whole checkpoint, if any")
    parser.add_argument("--force", action="store_true", help="move an existing run aside and train anew")
    parser.add_argument(
        "--seeds",
        type=cli.positive_int,
        default=1,
        metavar="N",
        help="train N runs that differ in their seed: <run>, <run>.s<seed + 1>, …",
    )
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="2 steps on the longest rows, save, reload, generate and evaluate 8 rows in a temporary folder",
    )
    parser.add_argument(
        "--no-memory-check", action="store_true", help="start even if the estimate says that it does not fit"
    )
    parser.add_argument("--dry-run", action="store_true", help="check config, data, tokens and memory; load no model")
    return parser


@dataclass(frozen=True)
class Job:
    """One run to train: `config` carries its seed, `identity` what it is made from."""

    name: str
    folder: Path
    config: Any
    identity: dict[str, Any]


def train(args: argparse.Namespace) -> Summary:
    from tasklib import schema
    from tasklib.data import conversion
    from tasklib.model import models
    from tasklib.paths import config_path, task_paths
    from tasklib.training import imbalance, preparation, processes, runs

    processes.join(on_cpu=models.device() == "cpu")
    paths = task_paths(args.task_dir)
    definition = schema.load_definition(paths.definition)
    config_file = config_path(paths, args.config)
    config = schema.load_config(config_file, args.overrides, args.config)
    splits = [split for split in ("train", "validation") if split == "train" or paths.split(split).is_file()]
    rows = {split: conversion.load_split(paths, split)[: args.limit] for split in splits}
    schema.require_trainable(definition, config, has_validation=bool(rows.get("validation")))
    schema.answer_schema(definition, config)  # raises where answers cannot be constrained
    runs.start(paths, config)
    warnings = imbalance.check(definition, config)
    jobs = _jobs(paths, definition, config, config_file, args)
    pending = [job for job in jobs if args.rehearse or not _already_finished(job, args)]
    flags = cli.run_flags(args)
    report = {"run": jobs[0].name, "outputs": _outputs(paths, jobs), "next": _command("04_evaluate.py", flags)}
    if not pending:
        return Summary.of("train", "skipped", warnings=warnings, **report)
    resumed = runs.read_record(pending[0].folder) if args.resume else None
    material = preparation.prepare(paths, definition, config, rows, resumed, check_memory=not args.no_memory_check)
    if args.rehearse:
        return _rehearse(pending[0], material, _command("03_train.py", flags))
    if args.dry_run:
        counts = {**material.counts, "estimated_memory_bytes": material.estimate.total_bytes}
        report |= {"outputs": {}, "next": _command("03_train.py", flags)}
        return Summary.of("train", counts=counts, warnings=warnings, **report)
    processes.wait()  # all have seen what is there; from here on the main process writes
    records = {job.name: _train_run(job, material, config_file, args) for job in pending}
    if not processes.is_main():
        return Summary.of("train", **report)
    for record in records.values():
        warnings += [Problem(code=a["alert"], message=a["message"], hint=a["hint"]) for a in record.alerts]
    first = next(iter(records.values()))
    memory = {"estimated_memory_bytes": first.estimated_memory_bytes, "peak_memory_bytes": first.peak_memory_bytes}
    metrics = first.final if args.seeds == 1 else {name: record.final for name, record in records.items()}
    return Summary.of("train", counts={**first.counts, **memory}, metrics=metrics, warnings=warnings, **report)


def _jobs(paths: Any, definition: Any, config: Any, config_file: Path, args: argparse.Namespace) -> list[Job]:
    from tasklib.training import runs

    named = runs.seed_runs(runs.run_name(config_file, args.limit), config.training.seed, args.seeds)
    configs = [(name, runs.with_seed(config, seed)) for name, seed in named]
    return [Job(name, paths.run(name), c, runs.identity(c, definition, paths)) for name, c in configs]


def _outputs(paths: Any, jobs: list[Job]) -> dict[str, str]:
    return {"run" if n == 0 else job.name: paths.shown(job.folder) for n, job in enumerate(jobs)}


def _command(script: str, flags: str) -> str:
    return f"uv run python scripts/{script} {flags}"


def _already_finished(job: Job, args: argparse.Namespace) -> bool:
    """Whether there is nothing to do. Raises TaskError (exit 2) when the folder holds another or an unfinished run."""
    from tasklib.training import checkpoints, runs

    record = runs.read_record(job.folder)
    if record is None or args.force:
        return False
    hint = "write a new config, or --force to move the old run aside"
    runs.require_same_identity(record, job.identity, job.name, hint)
    if record.status != "finished" and not args.resume and checkpoints.last_whole(job.folder / "checkpoints"):
        problem = Problem(
            code="unfinished_run",
            message=f"run {job.name!r} stopped before its end ({record.status})",
            hint="--resume continues it, --force moves it aside and starts anew",
        )
        raise TaskError(cli.ExitCode.USAGE, [problem])
    return record.status == "finished"


def _train_run(job: Job, material: Any, config_file: Path, args: argparse.Namespace) -> Any:
    """Trains one run under its lock and keeps run.json true whatever happens; returns the finished record."""
    from tasklib.model import prompts
    from tasklib.training import checkpoints, processes, runs

    if not processes.is_main():
        _fit(job, material)
        return None
    started = runs.start(material.paths, job.config)
    record = runs.RunRecord(
        status="running",
        argv=runs.command_line(),
        config=job.config.model_dump(mode="json"),
        identity=job.identity,
        inputs=_inputs(material.paths, config_file, job.config.preference_data),
        code=runs.code_hashes(material.paths),
        environment=runs.environment(),
        hardware=runs.hardware(),
        seed=job.config.training.seed,
        started_at=runs.now(),
        prompt_sha256=prompts.prompt_hash(material.tokenizer, material.definition),
        enable_thinking=material.definition.prompt.enable_thinking,
        decided=material.decided,
        counts=material.counts,
        estimated_memory_bytes=material.estimate.total_bytes,
        parent_run=job.config.parent,
        chain=runs.chain_of(job.config.start_from, started) if started else [],
    )
    if args.force and job.folder.exists():
        with runs.lock(job.folder):
            runs.move_aside(job.folder)
    with runs.lock(job.folder), checkpoints.full_disk_explained():
        return _run_and_record(job.folder, record, lambda: _fit(job, material)[1])


def _run_and_record(folder: Path, record: Any, fit: Any) -> Any:
    """running, then finished, stopped or failed."""
    from tasklib.training import runs

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
            with contextlib.suppress(OSError):  # the disk may be full: then `running` stays, and nobody holds the lock
                runs.write_record(folder, record.model_copy(update={"status": status, "finished_at": runs.now()}))
    outcome["counts"] = {**record.counts, **outcome["counts"]}
    record = record.model_copy(update={"status": status, "finished_at": runs.now(), **outcome})
    runs.write_record(folder, record)
    return record


def _fit(job: Job, material: Any) -> tuple[Any, dict[str, Any]]:
    """Trains and saves. Returns the model, and what run.json gets: counts, final numbers, alerts, peak memory."""
    from transformers import set_seed

    from tasklib import progress
    from tasklib.model import models
    from tasklib.training import checkpoints, packing, preparation, processes, runs, task_trainer, training_log

    folder, config = job.folder, preparation.with_decided(job.config, material.decided)
    if processes.is_main():
        _begin(job, material)
    processes.wait()
    set_seed(config.training.seed)
    model = _model(config, material.paths)
    if config.training.trl_fields.get("packing"):
        packing.require_apart(model, material.collate, material.examples["train"])
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    reference = _reference(config, material.paths)
    arguments = _arguments(config, folder, material)
    checkpoints.require_disk(folder, trainable, arguments.save_total_limit or 1)  # null keeps all: at least one
    checkpoint = checkpoints.last_whole(folder / "checkpoints")
    log = training_log.TrainingLog(folder / "train_log.jsonl", checkpoint, writes=processes.is_main())
    if models.device() == "cpu":
        task_trainer.score_only_labelled_positions()
    with progress.bar("train", 1, "step") as bar, checkpoints.stop_softly() as stop:
        trainer = _trainer(job, material, (model, reference), arguments, [stop.callback(), log.callback(bar)])
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if stop.is_set:
            raise KeyboardInterrupt
    if lost := next((alert for alert in log.alerts if alert.code == "loss_is_nan"), None):
        raise TaskError(cli.ExitCode.USAGE, [Problem(code=lost.code, message=lost.message, hint=lost.hint)])
    state = trainer.accelerator.get_state_dict(trainer.model) if processes.is_sharded() else None
    if processes.is_main():
        _save(trainer.model, material.tokenizer, config, folder, state)
    processes.wait()
    final = {"train_loss": log.last("loss").get("loss"), **log.last("eval_loss")}
    final |= {name: log.last(name).get(name) for name in training_log.REWARDS}
    if trainer.state.best_metric is not None:
        final |= {"best_metric": trainer.state.best_metric, "best_step": trainer.state.best_global_step}
    return trainer.model, {
        "counts": {"steps": trainer.state.global_step, "trainable_parameters": trainable},
        "final": {name: float(value) for name, value in final.items() if value is not None},
        "alerts": [{"alert": a.code, "step": a.step, "message": a.message, "hint": a.hint} for a in log.alerts],
        "peak_memory_bytes": training_log.peak_memory_bytes(),
        "hardware": runs.hardware(),  # again: whether accelerate shards is known now
    }


def _begin(job: Job, material: Any) -> None:
    """What the run's folder holds before the first step; checkpoints that were cut off are removed."""
    import yaml

    from tasklib import files
    from tasklib.training import checkpoints, preparation

    resolved = yaml.safe_dump(job.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    files.write_text(job.folder / "config.yaml", resolved)
    files.write_json(job.folder / "data_stats.json", material.statistics)
    broken = checkpoints.remove_broken(job.folder / "checkpoints")
    preparation.say([f"removed {name}: it was cut off while being written" for name in broken])


def _model(config: Any, paths: Any) -> Any:
    """What is trained: the base model with new adapters, or what `start_from` left."""
    from tasklib.model import adapters, models
    from tasklib.training import preparation

    started, is_full = config.start_from and paths.run(config.start_from), config.adapter.type == "full"
    if started and is_full:
        return models.fully_trained(config, started / "model")
    model = models.load_base(config)
    if started:
        return adapters.continued(model, config, started / "adapter")
    if not is_full:
        placement = adapters.place(model, config.adapter)
        model = adapters.attach(model, config)
        preparation.say(adapters.describe(placement, model))
    return model


def _reference(config: Any, paths: Any) -> Any:
    """The frozen model that full training by DPO compares with. With adapters TRL keeps a copy of the adapter."""
    from tasklib.model import models

    precomputed = config.training.trl_fields.get("precompute_ref_log_probs")
    if config.method != "dpo" or config.adapter.type != "full" or precomputed:
        return None
    if config.start_from:
        return models.fully_trained(config, paths.run(config.start_from) / "model").eval()
    return models.load_base(config).eval()


def _trainer(job: Job, material: Any, models: tuple[Any, Any], arguments: Any, callbacks: list[Any]) -> Any:
    """TRL's trainer over the tokenized rows. `models`: what is trained, and DPO's reference."""
    from datasets import Dataset
    from transformers import EarlyStoppingCallback, PrinterCallback

    from tasklib.training import imbalance, task_trainer

    examples, training = material.examples, job.config.training
    balanced = job.config.imbalance.sampling == "class_balanced"
    labels = imbalance.row_labels(material.definition, material.trained["train"]) if balanced else None
    if training.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(training.early_stopping_patience, training.early_stopping_threshold))
    more = {"ref_model": models[1]} if job.config.method == "dpo" else {}
    if job.config.method != "orpo":  # which wraps its own
        more["data_collator"] = material.collate
    trainer = task_trainer.task_trainer(job.config, labels, _task_metrics(job, material))(
        model=models[0],
        args=arguments,
        train_dataset=Dataset.from_list(examples["train"]),
        eval_dataset=Dataset.from_list(examples["validation"]) if "validation" in examples else None,
        processing_class=material.tokenizer,
        callbacks=callbacks,
        **more,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _task_metrics(job: Job, material: Any) -> Any:
    """model -> {metric: value} on the validation rows where `metric_for_best_model` is the task's own; else None."""
    from tasklib.training import task_trainer

    wanted = job.config.training.trl_fields.get("metric_for_best_model")
    if wanted is None or wanted.removeprefix("eval_") == "loss":
        return None
    name = wanted.removeprefix("eval_")

    def metrics(model: Any) -> dict[str, float]:
        was_training = model.training
        values = task_trainer.validation_metrics(
            material.definition, job.config, model.eval(), material.tokenizer, material.rows["validation"]
        )
        model.train(was_training)
        return {name: values[name]}

    return metrics


def _arguments(config: Any, folder: Path, material: Any) -> Any:
    """TRL's config of the method, from the config's own fields and what the script owns."""
    from tasklib.model import models
    from tasklib.training import task_trainer

    fields = config.training.trl_fields
    fields.setdefault("eval_strategy", "epoch" if "validation" in material.examples else "no")
    fields.setdefault("per_device_eval_batch_size", fields["per_device_train_batch_size"])
    fields.setdefault("logging_nan_inf_filter", False)  # a loss that is no number must be seen
    if config.method != "orpo":  # which reads none as 512
        fields["max_length"] = None  # tokenized.encode has refused what does not fit
    fields.pop("packing", None)  # the rows are packed already
    if config.method == "sft":
        fields["dataset_kwargs"] = {"skip_prepare_dataset": True}
    config_class = task_trainer.config_class(config.method)
    arguments = config_class(
        output_dir=str(folder / "checkpoints"),
        use_cpu=models.device() == "cpu",
        bf16=False,  # base_model.dtype decides; TRL would switch autocast on by itself
        remove_unused_columns=False,
        disable_tqdm=True,  # the bar of progress.py shows the same in one line
        push_to_hub=False,
        **fields,
    )
    return task_trainer.on_one_device(arguments)


def _save(model: Any, tokenizer: Any, config: Any, folder: Path, state: dict[str, Any] | None) -> None:
    """Writes adapter/ (or model/ after full training) with the tokenizer, safetensors only, whole or not at all.
    `state`: the gathered weights, where the model is sharded."""
    from tasklib import files
    from tasklib.model import models

    is_full = config.adapter.type == "full"
    with files.new_folder(folder / ("model" if is_full else "adapter")) as target:
        if is_full:
            tied = getattr(model, "all_tied_weights_keys", {})  # gathered, they stand there twice
            model.save_pretrained(target, state_dict=state and {k: v for k, v in state.items() if k not in tied})
        else:
            # the adapter must name its base model, not the folder that it was loaded from here
            model.peft_config["default"].base_model_name_or_path = models.hub_name(config.base_model)
            # no token was added: nothing to look up; DPO's copy of the adapter it began with stays behind
            more = {"state_dict": state} if state else {}
            model.save_pretrained(target, save_embedding_layers=False, selected_adapters=["default"], **more)
        tokenizer.save_pretrained(target)
        (target / "README.md").unlink(missing_ok=True)  # PEFT's placeholder card; 05_upload_hf.py writes the real one


def _rehearse(job: Job, material: Any, after: str) -> Summary:
    """The whole way on few rows in a temporary folder: what would fail after hours fails within a minute.

    Trains on the longest rows, so that the peak of memory and the time of a step are upper bounds. Of several processes
    the main one reloads and answers; a sharded model need not fit into one, so there it is only trained and saved.
    """
    from tasklib.training import preparation, processes, rehearsal, runs

    n = 2 * runs.global_batch_size(job.config)
    small = rehearsal.longest(material, n, n_evaluated=8)
    rows = small.rows.get("validation") or small.rows["train"][:8]
    config = preparation.with_training(job.config, **rehearsal.TRAINING)
    with tempfile.TemporaryDirectory(prefix="rehearse-") as own:
        folder = Path(processes.from_main(own)) / job.name
        folder.mkdir(parents=True, exist_ok=True)
        processes.wait()
        model, outcome = _fit(replace(job, folder=folder, config=config), small)
        reloads = processes.is_main() and not processes.is_sharded()
        written = _reloaded(material, config, model, rows, folder) if reloads else []
        step_s = rehearsal.step_seconds(folder / "train_log.jsonl") if processes.is_main() else 0.0
        processes.wait()
    steps = runs.total_steps(job.config, len(material.examples["train"]))  # sequences, where rows are packed
    counts = {
        "rows_trained": len(small.trained["train"]),
        "rows_evaluated": len(rows),
        "steps_of_the_run": steps,
        "trainable_parameters": outcome["counts"]["trainable_parameters"],
        "estimated_memory_bytes": material.estimate.total_bytes,
        "peak_memory_bytes": outcome["peak_memory_bytes"],
    }
    metrics = {**outcome["final"], "longest_step_s": step_s, "run_at_most_s": round(step_s * steps, 1)}
    return Summary.of("train", run=job.name, counts=counts, metrics=metrics, outputs={"generated": written}, next=after)


def _reloaded(material: Any, config: Any, model: Any, rows: Any, folder: Path) -> list[str]:
    """Two answers of the model that was saved; it must answer as the one in memory does."""
    from tasklib.answering import inference
    from tasklib.model import models
    from tasklib.training import rehearsal

    asked = (material.definition, config), (material.tokenizer, rows)
    before = inference.answered(*asked[0], model, *asked[1])
    del model
    reloaded = models.load_trained(config, folder, merged=False)  # merging rounds; a loss in saving must show
    rehearsal.require_same_answers(before, inference.answered(*asked[0], reloaded, *asked[1]))
    return rehearsal.generated(*asked[0], reloaded, *asked[1])


def _inputs(paths: Any, config_file: Path, preference_data: str | None) -> dict[str, str]:
    from tasklib.files import sha256_of

    used = [paths.definition, config_file, *sorted(paths.processed.glob("*.jsonl"))]
    used += [paths.root / preference_data] if preference_data else []
    return {paths.shown(path): sha256_of(path) for path in used}


def main(argv: Sequence[str] | None = None) -> int:
    from tasklib.training import processes

    if not processes.is_main():  # stdout is for one summary
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return cli.run(build_parser(), train, argv)


if __name__ == "__main__":
    raise SystemExit(main())
