#!/usr/bin/env python3
"""Shares one run out among several GPUs: what starts it by accelerate, on a Slurm cluster, or rented by SkyPilot."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasklib import cli
from tasklib.summary import Problem, Summary, TaskError

GB = 10**9


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "launch",
        "Write launch/<run>/: accelerate.yaml, train.sbatch and sky.yaml for one run on the GPUs there are. Memory\n"
        "decides how: the whole model on every GPU (DDP) where it fits, in shares (FSDP2) where it does not. GPUs are\n"
        "those of compute.remote (asked by ssh), or of this machine; --gpus and --gpu-memory name others.\n"
        "Once accelerate.yaml is there, remote.py and run_pipeline.sh start the run by it.",
        [
            "uv run python scripts/launch.py --dry-run",
            "uv run python scripts/launch.py --gpus 2 --gpu-memory 24",
            "uv run python scripts/launch.py --nodes 2 --gpus 8 --gpu-memory 80 --sbatch partition=gpu --hours 12",
            "uv run python scripts/launch.py --gpus 4 --gpu-memory 80 --accelerator H100 --bucket s3://mine/runs",
        ],
    )
    cli.add_task_flags(parser, __file__)
    add = parser.add_argument
    add("--config", default="configs/baseline.yaml", help="the run's config (default: configs/baseline.yaml)")
    add("--gpus", type=int, metavar="N", help="GPUs of each node (default: those found)")
    add("--gpu-memory", type=float, metavar="GB", help="memory of each GPU (default: that found)")
    add("--nodes", type=int, default=1, metavar="N", help="machines (default: 1)")
    add("--hours", type=float, default=24.0, help="train.sbatch: time limit; a run that needs more is requeued (24)")
    add("--sbatch", action="append", default=[], metavar="OPTION=VALUE", help="train.sbatch: e.g. partition=gpu")
    add("--accelerator", metavar="NAME", help="sky.yaml: SkyPilot's name of the GPU, e.g. H100")
    add("--bucket", metavar="URL", help="sky.yaml: where results are kept; with it spot machines are used")
    add("--dry-run", action="store_true", help="show the plan, write nothing")
    return parser


def launch(args: argparse.Namespace) -> Summary:
    from tasklib import schema
    from tasklib.launching import plan
    from tasklib.model import models
    from tasklib.paths import config_path, task_paths

    options = _checked(args)
    paths = task_paths(args.task_dir)
    definition = schema.load_definition(paths.definition)
    config_file = config_path(paths, args.config)
    config = schema.load_config(config_file, (), args.config)
    run, config_name = config_file.stem, _plain_name(paths, config_file)
    machines = _machines(args, definition)
    lengths, n_trained = _lengths(paths, definition, config)
    with models.planned_for("cuda"):
        made = plan.made(config, machines, lengths, n_trained)
    folder = f"launch/{run}"
    names = {"task": definition.name, "run": run, "folder": folder, "config": config_name}
    texts = _texts(args, config, made, names, options)
    changed = [] if args.dry_run else _write(paths.root, folder, texts)
    status = "ok" if args.dry_run or changed else "skipped"
    counts = {"nodes": machines.n_nodes, "gpus_per_node": machines.gpus_per_node, "n_processes": machines.n_gpus}
    counts |= {"gpu_memory_bytes": machines.memory_bytes, "estimated_memory_bytes": made.per_gpu.total_bytes}
    counts |= {"global_batch_size": made.global_batch_size}
    outputs: dict[str, Any] = {"distributed_type": made.distributed_type, "tried": list(made.tried)}
    outputs |= {"activation_checkpointing": made.activation_checkpointing, "memory_bytes": made.per_gpu.parts()}
    outputs |= {} if args.dry_run else {name: f"{folder}/{name}" for name in texts}
    warnings = _warnings(config, made, texts)
    after = _start(definition, made, folder, args.config)
    return Summary.of("launch", status, run=run, counts=counts, outputs=outputs, warnings=warnings, next=after)


def _checked(args: argparse.Namespace) -> dict[str, str]:
    """sbatch's options. Raises UsageError for numbers and words that cannot be meant."""
    for name in ("gpus", "gpu_memory", "nodes", "hours"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise cli.UsageError(f"--{name.replace('_', '-')} must be above 0, got {value:g}")
    if (args.gpus is None) != (args.gpu_memory is None):
        raise cli.UsageError("--gpus and --gpu-memory belong together: neither says enough alone")
    found = {}
    for word in args.sbatch:
        match = re.fullmatch(r"([a-z][a-z-]*)=([\w.:,@+/*%-]+)", word)
        if match is None:
            raise cli.UsageError(f"--sbatch takes OPTION=VALUE of plain characters, e.g. partition=gpu; got {word!r}")
        found[match[1]] = match[2]
    for flag, value in (("--accelerator", args.accelerator), ("--bucket", args.bucket)):
        if value is not None and not re.fullmatch(r"[\w.:/+-]+", value):
            raise cli.UsageError(f"{flag} holds characters that no such name has: {value!r}")
    if args.bucket and "://" not in args.bucket:
        raise cli.UsageError(f"--bucket is an address such as s3://mine/runs, got {args.bucket!r}")
    return found


def _plain_name(paths: Any, config_file: Path) -> str:
    """The config's name below the task's folder. The generated shell scripts hold it, so it must mean nothing to a
    shell. Raises TaskError (exit 2)."""
    inside = config_file.resolve().is_relative_to(paths.root)
    name = config_file.resolve().relative_to(paths.root).as_posix() if inside else str(config_file)
    if inside and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./-]*", name):
        return name
    hint = "copy it to configs/ under a name of ASCII letters, digits, '-', '_' and '.'"
    message = f"{name!r} cannot stand in a shell script, or lies outside the task"
    raise TaskError(cli.ExitCode.USAGE, [Problem(code="config_name", message=message, field="--config", hint=hint)])


def _machines(args: argparse.Namespace, definition: Any) -> Any:
    """What the run may use. Raises TaskError (exit 4) where no GPU is named and none is found."""
    from tasklib.launching.plan import Machines

    if args.gpus is not None:
        return Machines(args.nodes, args.gpus, int(args.gpu_memory * GB), args.accelerator)
    gpus = _on_server(definition) if definition.compute.remote else _here()
    if not gpus:
        where = definition.compute.remote.host if definition.compute.remote else "this machine"
        hint = "name them: --gpus 2 --gpu-memory 24"
        raise TaskError(
            cli.ExitCode.PREREQUISITE, [Problem(code="no_gpu", message=f"no GPU was found on {where}", hint=hint)]
        )
    return Machines(args.nodes, len(gpus), min(size for _, size in gpus), gpus[0][0])


def _here() -> list[tuple[str, int]]:
    import torch

    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    return [(gpu.name, gpu.total_memory) for gpu in found]


def _on_server(definition: Any) -> list[tuple[str, int]]:
    from tasklib.remote import checks, ssh

    spec = definition.compute.remote
    found = ssh.call(spec, "probe", task=definition.name, python=spec.python, urls=[], folders=[])
    return [(gpu["name"], gpu["memory_bytes"]) for gpu in checks.visible(spec, found["gpus"])]


def _lengths(paths: Any, definition: Any, config: Any) -> tuple[list[int], list[int]]:
    from tasklib.data import conversion
    from tasklib.training import preparation

    splits = [split for split in ("train", "validation") if split == "train" or paths.split(split).is_file()]
    rows = {split: conversion.load_split(paths, split) for split in splits}
    return preparation.prepare(paths, definition, config, rows, None, check_memory=False).lengths


def _texts(
    args: argparse.Namespace, config: Any, made: Any, names: dict[str, str], options: dict[str, str]
) -> dict[str, str]:
    """Every file by its name."""
    from tasklib.launching import accelerate_config, sky, slurm
    from tasklib.remote import job

    extras = job.extras(config)
    sync = shlex.join(["uv", "sync", *(word for extra in extras for word in ("--extra", extra))])
    found = {"accelerate.yaml": accelerate_config.text(made)}
    found["train.sbatch"] = slurm.text(made, **names, sync=sync, hours=args.hours, options=options)
    if gpu := args.accelerator or sky.accelerator(made.machines.name):
        found["sky.yaml"] = sky.text(made, **names, extras=extras, gpu=gpu, bucket=args.bucket)
    return found


def _write(root: Path, folder: str, texts: dict[str, str]) -> list[str]:
    """Names of the files that changed."""
    from tasklib import files

    changed = []
    for name, text in texts.items():
        path = root / folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(path, text)
            changed.append(name)
    return changed


def _warnings(config: Any, made: Any, texts: dict[str, str]) -> list[Problem]:
    found = []
    alone = made.global_batch_size // made.machines.n_gpus
    if made.machines.n_gpus > 1:
        message = f"a step has {made.global_batch_size} rows now, {alone} on one GPU: fewer steps, another run"
        hint = "to keep it, divide training.per_device_train_batch_size or gradient_accumulation_steps in a new config"
        found.append(Problem(code="global_batch_size", message=message, hint=hint))
    if made.is_sharded:
        message = "a sharded model is trained and saved, but answering needs it whole on one GPU"
        hint = "where it does not fit there: serve it (vLLM, llama.cpp) and use 04_evaluate.py --backend openai"
        found.append(Problem(code="answers_alone", message=message, hint=hint))
    if "sky.yaml" not in texts:
        message = "sky.yaml was not written: SkyPilot's name of the GPU is not known"
        found.append(Problem(code="no_accelerator", message=message, hint="--accelerator H100, from `sky gpus list`"))
    return found


def _start(definition: Any, made: Any, folder: str, config: str) -> str:
    """The command that starts the run."""
    if made.machines.n_nodes > 1:
        return f"sbatch {folder}/train.sbatch"
    if definition.compute.remote:
        return shlex.join(["uv", "run", "python", "scripts/remote.py", "run", "--config", config])
    words = ["uv", "run", "accelerate", "launch", "--config_file", f"{folder}/accelerate.yaml"]
    return shlex.join([*words, "scripts/03_train.py", "--config", config])


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), launch, argv)


if __name__ == "__main__":
    sys.exit(main())
