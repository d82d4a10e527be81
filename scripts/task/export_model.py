#!/usr/bin/env python3
"""Exports one trained run for serving, and checks that every export answers as the run does."""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklib import cli
from tasklib.summary import Problem, Summary, TaskError

QUANTIZED = ("gguf", "ollama")


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "export",
        "Write models/<run>/exports/<format>/ with the contract inference.json beside the weights. With --verify,\n"
        "ask every export the validation rows and compare prompt tokens, greedy text and score with those of the\n"
        "trained run (exit 5 where one must not be shipped). GGUF needs llama.cpp's converter, q4_k_m its\n"
        "llama-quantize: where one is missing, the error says how to install it; LLAMA_CPP may name a checkout.",
        [
            "uv run python scripts/export_model.py --format merged",
            "uv run python scripts/export_model.py --format gguf --quantize q8_0 --verify",
            "uv run python scripts/export_model.py --format ollama --quantize q8_0 --verify",
            "uv run python scripts/export_model.py --verify --rows 50",
            "uv run python scripts/export_model.py --verify --base-url http://localhost:8000/v1 --model my-model",
        ],
    )
    cli.add_task_flags(parser, __file__)
    cli.add_run_flags(parser)
    add = parser.add_argument
    add(
        "--format",
        choices=["merged", "adapter", "gguf", "ollama"],
        help="what to write (default: merged, without --verify)",
    )
    add("--quantize", choices=["f16", "q8_0", "q4_k_m"], help="gguf, ollama: number format (default: q8_0)")
    add("--verify", action="store_true", help="compare with the trained run: this format, or all that there are")
    add(
        "--rows",
        type=cli.positive_int,
        metavar="N",
        default=200,
        help="--verify: the first N validation rows (default: %(default)s)",
    )
    add("--base-url", metavar="URL", help="--verify: a served model too; its address up to /v1")
    add("--model", help="--verify: its name there")
    add("--allow-remote", action="store_true", help="--base-url may be elsewhere: validation texts leave this machine")
    add("--force", action="store_true", help="export again even if nothing changed")
    add("--dry-run", action="store_true", help="check run, template and tools; write nothing")
    return parser


@dataclass(frozen=True)
class Job:
    """A finished run and everything that its exports are made of."""

    args: argparse.Namespace
    paths: Any
    definition: Any
    config: Any
    name: str
    record: Any
    tokenizer: Any

    @property
    def exports(self) -> Path:
        return self.paths.exports(self.name)


def export(args: argparse.Namespace) -> Summary:
    _check_flags(args)
    job = _job(args)
    made, status = {}, "ok"
    if args.format:
        folder = _folder_name(args.format, args.quantize)
        was_there = not args.force and _is_current(job, job.exports / folder)
        if args.dry_run:
            _require_tools(job)
            return Summary.of("export", run=job.name, next=_command(job))
        if was_there:
            status = "skipped"
        else:
            _write(job, args.format, args.quantize)
        made = {folder: job.paths.shown(job.exports / folder)}
    warnings = _ollama(job) if args.format == "ollama" else []
    if not args.verify:
        after = f"{_command(job, export_again=False)} --verify"
        return Summary.of("export", status, run=job.name, outputs=made, warnings=warnings, next=after)
    return _verified(job, made, warnings)


def _check_flags(args: argparse.Namespace) -> None:
    """Raises UsageError for flags that mean nothing together."""
    if not args.format and not args.verify:
        args.format = "merged"
    if args.quantize and args.format not in QUANTIZED:
        raise cli.UsageError("--quantize goes with --format gguf or ollama")
    if args.format in QUANTIZED and args.quantize is None:
        args.quantize = "q8_0"
    if bool(args.base_url) != bool(args.model):
        raise cli.UsageError("--base-url and --model go together")
    if args.base_url and not args.verify:
        raise cli.UsageError("--base-url goes with --verify")
    if args.dry_run and args.verify:
        raise cli.UsageError("give --dry-run or --verify, not both")


def _job(args: argparse.Namespace) -> Job:
    """Raises TaskError when the run did not finish, was made from something else, or its prompt renders otherwise."""
    from tasklib import schema
    from tasklib.answering import inference
    from tasklib.export import weights
    from tasklib.model import models
    from tasklib.paths import config_path, task_paths
    from tasklib.training import runs

    paths = task_paths(args.task_dir)
    definition = schema.load_definition(paths.definition)
    config_file = config_path(paths, args.config)
    config = schema.load_config(config_file, args.overrides, args.config)
    name = runs.run_name(config_file, args.limit)
    record = runs.finished_run(paths, name)
    hint = "export with the config and data it was trained with, or train again"
    runs.require_same_identity(record, runs.identity(config, definition, paths), name, hint)
    inference.require_same_prompt(models.load_tokenizer(config.base_model), definition, record.prompt_sha256, name)
    tokenizer = weights.export_tokenizer(config, definition)
    return Job(args, paths, definition, config, name, record, tokenizer)


def _folder_name(format: str, quantization: str | None) -> str:
    return f"{format}-{quantization}" if format in QUANTIZED else format


def _contract(job: Job, format: str, quantization: str | None) -> Any:
    from tasklib.export import contract

    return contract.of_run(
        job.definition, job.config, job.record, job.tokenizer, job.name, format=format, quantization=quantization
    )


def _is_current(job: Job, folder: Path) -> bool:
    """Whether the export is there, whole, and of this very training."""
    from tasklib.export import contract

    if not (folder / contract.NAME).is_file():
        return False
    try:
        found = contract.read(folder)
        contract.require_whole(folder, found)
    except TaskError:
        return False
    return found.model_copy(update={"files": {}}) == _contract(job, found.format, found.quantization)


def _require_tools(job: Job) -> None:
    """Raises TaskError (exit 2, 4) for whatever would stop this export half-way."""
    from tasklib.export import llama_cpp, ollama

    args = job.args
    has_gguf = args.format == "ollama" and _is_current(job, job.exports / _folder_name("gguf", args.quantize))
    if args.format in QUANTIZED and not has_gguf:
        llama_cpp.require_tools(job.paths.root, args.quantize)
    if args.format == "ollama":
        ollama.modelfile(job.tokenizer, job.definition, _contract(job, "ollama", args.quantize), "model.gguf")
    if args.format == "adapter" and job.config.adapter.type == "full":
        raise cli.UsageError("--format adapter: the run was trained in full and has none; use --format merged")


def _write(job: Job, format: str, quantization: str | None) -> None:
    """One export in its folder, whole or not at all; what it is made of first."""
    from tasklib.export import contract, weights
    from tasklib.files import new_folder

    _require_tools(job)
    needed = {"gguf": ("merged", None), "ollama": ("gguf", quantization)}.get(format)
    if needed and not _is_current(job, job.exports / _folder_name(*needed)):
        _write(job, *needed)
    wanted = _contract(job, format, quantization)
    run_folder = job.paths.run(job.name)
    with new_folder(job.exports / _folder_name(format, quantization)) as target:
        if format == "adapter":
            weights.write_adapter(job.config, run_folder, job.tokenizer, target)
        elif format == "merged":
            weights.write_merged(job.config, run_folder, job.tokenizer, wanted.stop_token_ids, target)
        elif format == "gguf":
            _write_gguf(job, quantization, target)
        else:
            _write_ollama(job, wanted, target)
        contract.seal(target, wanted)


def _gguf_name(job: Job, quantization: str) -> str:
    return f"{job.definition.name}-{job.name}-{quantization}.gguf"


def _write_gguf(job: Job, quantization: str, target: Path) -> None:
    from tasklib.export import llama_cpp

    path = target / _gguf_name(job, quantization)
    llama_cpp.write_gguf(job.exports / "merged", quantization, path, job.paths.root)


def _write_ollama(job: Job, contract: Any, target: Path) -> None:
    """The Modelfile beside its GGUF, which is linked where the disk can; and the same for the Hub, where Ollama reads
    `template`, `system` and `params` beside a GGUF (https://huggingface.co/docs/hub/ollama)."""
    from tasklib.export import ollama
    from tasklib.files import write_json, write_text

    name = _gguf_name(job, contract.quantization)
    source = job.exports / _folder_name("gguf", contract.quantization) / name
    try:
        os.link(source, target / name)
    except OSError:
        import shutil

        shutil.copyfile(source, target / name)
    text, template = ollama.modelfile(job.tokenizer, job.definition, contract, name)
    write_text(target / "Modelfile", text)
    write_text(target / "template", template)
    if job.definition.prompt.system:
        write_text(target / "system", job.definition.prompt.system)
    write_json(target / "params", {"stop": contract.stop, **ollama.parameters(contract)})


def _ollama(job: Job) -> list[Problem]:
    """Gives the model to Ollama where it is installed; a warning where it is not."""
    from tasklib.export import ollama

    folder = job.exports / _folder_name("ollama", job.args.quantize)
    if ollama.find() is None:
        hint = f"install it (https://ollama.com/download), then: ollama create {job.definition.name} -f Modelfile"
        message = "ollama is not installed: the Modelfile is written, and was not tried in it"
        return [Problem(code="ollama_missing", message=message, file=job.paths.shown(folder / "Modelfile"), hint=hint)]
    ollama.create(folder, job.definition.name)
    return []


def _verified(job: Job, made: dict[str, str], warnings: list[Problem]) -> Summary:
    """The parity table of the exports; exit 5 where one must not be shipped."""
    from tasklib.data import dataset
    from tasklib.export import parity
    from tasklib.files import sha256_of_json, write_text
    from tasklib.training import runs
    from tasklib.writing import guides

    systems, more = _systems(job)
    asked = parity.asked(job.definition, job.config, _rows(job))
    contract = _contract(job, "adapter", None)
    replies = {parity.REFERENCE: parity.by_run(asked, job.paths.run(job.name), contract)}
    replies |= {name: ask(asked) for name, ask in systems.items()}
    identity = sha256_of_json([job.record.identity["sha256"], job.record.finished_at, asked.data.sha256])
    before = parity.read(job.exports)
    kept = before.systems if before and before.identity == identity else []
    found = parity.Parity(
        run=job.name,
        identity=identity,
        metric=job.definition.primary_metric,
        split="validation",
        rows_sha256=asked.data.sha256,
        date=datetime.date.today().isoformat(),
        hardware=runs.hardware(),
        systems=parity.compare(asked, replies, [s for s in kept if (job.exports / s.name).is_dir()]),
    )
    parity.write(job.exports, found)
    rows = dataset.short_examples(job.paths, job.definition)
    guide = guides.integration_guide(job.definition, job.config, found, rows[0][1].record if rows else None)
    write_text(job.paths.integration_guide, guide)
    faults = {s.name: s.faults + ([s.loss] if s.loss else []) for s in found.systems if s.name in replies}
    problems = [
        Problem(code="parity", message=f"{name}: {fault}", hint="do not ship it; see parity.json for the first rows")
        for name, lines in faults.items()
        for fault in lines
    ]
    return Summary.of(
        "export",
        "gate_failed" if problems else "ok",
        run=job.name,
        errors=problems,
        warnings=warnings + more,
        counts={"rows": len(asked.data.rows)},
        metrics={system.name: parity.columns(system, found.metric) for system in found.systems},
        outputs={**made, "parity": job.paths.shown(job.exports / parity.NAME)},
        next=None if problems else f"uv run python scripts/05_upload_hf.py --config {job.args.config} --dry-run",
    )


def _rows(job: Job) -> Any:
    from tasklib.data import conversion
    from tasklib.scoring import evaluation

    rows = conversion.load_split(job.paths, "validation")
    return evaluation.Rows("validation", rows[: job.args.limit][: job.args.rows], [])


def _systems(job: Job) -> tuple[dict[str, Any], list[Problem]]:
    """Name -> what answers, of this call's format or of every export, and of a served model; and warnings. Raises
    TaskError (exit 4) where there is nothing to compare: a parity that nobody saw is none."""
    from tasklib.export import contract, llama_cpp, ollama, parity

    args, systems, warnings = job.args, {}, []
    names = [_folder_name(args.format, args.quantize)] if args.format else _existing(job)
    for name in names:
        folder = job.exports / name
        sealed = contract.read(folder)
        contract.require_whole(folder, sealed)
        contract.require_same(sealed, job.definition, job.tokenizer, job.paths.shown(folder / contract.NAME))
        in_ollama = sealed.format == "ollama" and ollama.find() is not None
        if in_ollama:
            client = _client(job, ollama.address(), job.definition.name)
            systems[name] = lambda asked, c=client: parity.by_endpoint(asked, c)
        elif sealed.format in contract.WITH_TRANSFORMERS or llama_cpp.has_engine():
            # Without Ollama, what it would load is compared: its GGUF, under that name.
            shown = _folder_name("gguf", sealed.quantization) if sealed.format == "ollama" else name
            systems[shown] = lambda asked, f=folder, c=sealed: parity.by_export(asked, f, c)
        else:
            message = f"{name} was not compared: neither llama-server nor xllamacpp is there"
            warnings.append(Problem(code="engine_missing", message=message, hint=llama_cpp.INSTALL_ENGINE))
    if args.base_url:
        client = _client(job, args.base_url, args.model)
        systems[f"served/{args.model}"] = lambda asked: parity.by_endpoint(asked, client)
    if not systems:
        again = "uv run python scripts/export_model.py --format merged"
        nothing = Problem(code="nothing_exported", message=f"run {job.name!r} has no export", hint=again)
        raise TaskError(cli.ExitCode.PREREQUISITE, warnings or [nothing], next=None if warnings else again)
    return systems, warnings


def _existing(job: Job) -> list[str]:
    from tasklib.export import contract

    return sorted(path.parent.name for path in job.exports.glob(f"*/{contract.NAME}"))


def _client(job: Job, url: str, model: str) -> Any:
    """Raises TaskError (exit 2) for an address elsewhere: validation texts do not leave this machine unasked."""
    from tasklib.answering import backends, endpoint

    with backends.in_own_words():
        backends.require_allowed(url, allow_remote=job.args.allow_remote)
        key = os.environ.get("OPENAI_API_KEY") or None
        client = endpoint.Client(url, model, key, timeout_s=600, max_tokens=job.config.generation.max_new_tokens)
        client.check()
    return client


def _command(job: Job, *, export_again: bool = True) -> str:
    args = job.args
    words = ["uv run python scripts/export_model.py", cli.run_flags(args)]
    if export_again or args.format:
        words += [f"--format {args.format}"] + ([f"--quantize {args.quantize}"] if args.quantize else [])
    return " ".join(words)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), export, argv)


if __name__ == "__main__":
    raise SystemExit(main())
