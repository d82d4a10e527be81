#!/usr/bin/env python3
"""Writes the card of one evaluated run, or of the data set, and uploads it to the Hub, private by default."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasklib import cli
from tasklib.summary import Problem, Summary, TaskError

BASELINE = "configs/baseline.yaml"
ROWS_COMPARED = 50  # of a download; export_model.py --verify has compared more


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "upload",
        "Write the model card of one evaluated run, and upload weights, card and metrics to the Hugging Face Hub.\n"
        "With --export NAME: what export_model.py wrote, with its contract inference.json and how it compared.\n"
        "With --dataset: the card of the data set, and the processed rows.\n"
        "The token comes from HF_TOKEN or from `hf auth login`, never from a flag or a file of the task.",
        [
            "uv run python scripts/05_upload_hf.py --card-only",
            "uv run python scripts/05_upload_hf.py --dry-run",
            "uv run python scripts/05_upload_hf.py --config configs/lr-1e-4.yaml --repo-id my-org/my-model",
            "uv run python scripts/05_upload_hf.py --export merged --verify-download",
            "uv run python scripts/05_upload_hf.py --dataset --dry-run",
        ],
    )
    cli.add_task_flags(parser, __file__)
    parser.add_argument("--config", help=f"run config (default: {BASELINE})")
    parser.add_argument("--dataset", action="store_true", help="the data set instead of a run")
    parser.add_argument(
        "--repo-id",
        metavar="ID",
        help="owner/name on the Hub (default: the definition's hub.repo_id, with --dataset hub.dataset_repo_id)",
    )
    parser.add_argument("--limit", type=cli.positive_int, metavar="N", help="the run that was trained with --limit N")
    parser.add_argument(
        "--export", metavar="NAME", help="an export of the run: adapter, merged, gguf-q8_0, ollama-q8_0, …"
    )
    parser.add_argument(
        "--verify-download",
        action="store_true",
        help="after it: pull the new revision into an empty folder, and compare it with the run once more",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--card-only", action="store_true", help="write the card into hf_cards/ and stop")
    mode.add_argument("--dry-run", action="store_true", help="every check; nothing is written or sent")
    return parser


@dataclass(frozen=True)
class Run:
    """What is to be uploaded. `weights` maps a name in the repository to the file here."""

    name: str
    definition: Any
    record: Any
    config: Any
    results: dict[str, Any]
    card: str
    weights: dict[str, Path]
    export: str | None = None


@dataclass(frozen=True)
class Upload:
    """A run or a data set, checked and ready. `problems` stand against everything, `before_sending` against all but the
    card; both are (exit code, problem). `report` is what the summary shows of it."""

    kind: Any
    definition: Any
    repo_id: str | None
    card: str
    card_path: Path
    contents: dict[str, Any]
    commit_message: str
    warnings: list = field(default_factory=list)
    problems: list = field(default_factory=list)
    before_sending: list = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    run: Run | None = None

    @property
    def tag(self) -> str | None:
        """The name of the revision: run, export and the moment that the training ended."""
        if self.run is None:
            return None
        stamp = re.sub(r"\W", "", self.run.record.finished_at.split("+")[0])
        return "-".join(word for word in (self.run.name, self.run.export, stamp) if word)


def upload(args: argparse.Namespace) -> Summary:
    from tasklib import files
    from tasklib.model import models
    from tasklib.paths import task_paths
    from tasklib.writing import hub

    models.quiet_libraries()
    paths = task_paths(args.task_dir)
    if args.dataset and (args.config or args.limit):
        raise cli.UsageError("--config and --limit choose a run, and --dataset uploads none")
    if (args.dataset and (args.export or args.verify_download)) or (args.verify_download and not args.export):
        raise cli.UsageError("--export goes with a run, and --verify-download with --export")
    found = _dataset_upload(paths, args.repo_id) if args.dataset else _model_upload(paths, args)
    token, missing = (None, []) if args.card_only else hub.login(found.repo_id, found.kind)
    before_sending = [] if args.card_only else found.before_sending
    hub.raise_all(found.problems + before_sending + ([] if args.dry_run else missing))
    if args.card_only:
        files.write_text(found.card_path, found.card)
        return Summary.of(
            "upload",
            warnings=found.warnings + [problem for _, problem in found.before_sending],
            outputs={"card": paths.shown(found.card_path)},
            next=_command(args, found, "--dry-run"),
            **found.report,
        )
    repository, more = hub.repository_of(token, found.repo_id, found.kind, private=found.definition.hub.private)
    warnings = found.warnings + more
    if args.dry_run:
        warnings += [problem for _, problem in missing]
        after = _command(args, found) if token else "uv run hf auth login"
        counts = {"files": len(found.contents)}
        return Summary.of("upload", warnings=warnings, counts=counts, next=after, **found.report)
    files.write_text(found.card_path, found.card)
    sent, removed = hub.send(repository, found.contents, found.commit_message)
    outputs = {"card": paths.shown(found.card_path), "url": sent["url"], "commit": sent["commit"]}
    if found.tag:
        moved = hub.tag(repository, found.tag, sent["commit"])
        warnings += [_tag_moved(found.tag)] if moved else []
        outputs["tag"] = found.tag
    report = found.report | (_verified_download(paths, found, repository, args) if args.verify_download else {})
    failed = bool(report.get("errors"))
    return Summary.of(
        "upload",
        "gate_failed" if failed else "ok" if sent["changed"] else "skipped",
        warnings=warnings + removed,
        outputs=outputs,
        counts={"files": sent["files"]},
        **report,
    )


def _tag_moved(tag: str) -> Problem:
    message = f"the tag {tag} named an earlier commit and names this one now"
    return Problem(code="tag_moved", message=message, hint="the earlier commit keeps its own hash")


def _verified_download(paths: Any, found: Upload, repository: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Pulls the tagged revision into an empty folder, checks every file by the contract, and compares its answers with
    the run's. Returns metrics and errors for the summary. Raises TaskError (exit 4) for a damaged file."""
    import tempfile

    from tasklib.data import conversion
    from tasklib.export import exported, parity
    from tasklib.scoring import evaluation
    from tasklib.writing import hub

    run, rows = found.run, conversion.load_split(paths, "validation")[:ROWS_COMPARED]
    with tempfile.TemporaryDirectory(prefix="finetune-llm-download-") as temporary:
        folder = Path(temporary)
        hub.download(repository, found.tag, folder)
        sealed, _ = exported.opened(folder, run.config, run.definition)
        asked = parity.asked(run.definition, run.config, evaluation.Rows("validation", rows, []))
        replies = {parity.REFERENCE: parity.by_run(asked, paths.run(run.name), sealed)}
        replies["download"] = parity.by_export(asked, folder, sealed)
    systems = parity.compare(asked, replies)[1:]
    faults = [fault for system in systems for fault in [*system.faults, *([system.loss] if system.loss else [])]]
    return {
        "metrics": found.report["metrics"]
        | {s.name: parity.columns(s, run.definition.primary_metric) for s in systems},
        "errors": [
            Problem(code="parity", message=fault, hint="the files on the Hub answer otherwise") for fault in faults
        ],
    }


def _dataset_upload(paths: Any, repo_id: str | None) -> Upload:
    """The processed rows with their card. Raises TaskError (exit 4) when they or the data report are missing, or of
    other raw files or another definition than lie here."""
    from tasklib.writing import dataset_card, hub

    definition = _definition(paths, "dataset_repo_id", repo_id)
    manifest, report = dataset_card.checked(paths, definition)
    card = dataset_card.render(definition, manifest, report)
    return Upload(
        kind=hub.DATASET,
        definition=definition,
        repo_id=definition.hub.dataset_repo_id,
        card=card,
        card_path=paths.dataset_card,
        contents=dataset_card.contents(paths, manifest, card),
        commit_message=f"Upload the data of {definition.name}",
        warnings=[] if definition.hub.dataset_license else [_license_missing("hub.dataset_license", "cc-by-4.0")],
        problems=hub.repo_id_problems(definition.hub.dataset_repo_id, hub.DATASET),
        before_sending=dataset_card.unresolved_personal_data(definition, report),
    )


def _model_upload(paths: Any, args: argparse.Namespace) -> Upload:
    """One evaluated run with its card; see `_checked_run` for what it raises."""
    from tasklib.writing import hub

    definition = _definition(paths, "repo_id", args.repo_id)
    run, problems, warnings = _checked_run(paths, definition, args)
    return Upload(
        kind=hub.MODEL,
        definition=definition,
        repo_id=definition.hub.repo_id,
        card=run.card,
        card_path=paths.model_card,
        contents=_contents(run),
        commit_message=f"Upload run {run.name}",
        warnings=warnings,
        problems=problems + hub.repo_id_problems(definition.hub.repo_id, hub.MODEL),
        report={"run": run.name, "metrics": _shown_metrics(run)},
        run=run,
    )


def _definition(paths: Any, key: str, repo_id: str | None) -> Any:
    """The task definition, with --repo-id in the place of its own `hub.<key>`."""
    from tasklib import schema

    definition = schema.load_definition(paths.definition)
    if repo_id is None:
        return definition
    return definition.model_copy(update={"hub": definition.hub.model_copy(update={key: repo_id})})


def _checked_run(paths: Any, definition: Any, args: argparse.Namespace) -> tuple[Run, list, list]:
    """The run with its card, problems as (exit code, problem), and warnings. Raises TaskError when the run did not
    finish, has no results of its own, or was made from another definition or other data."""
    from tasklib.paths import config_path
    from tasklib.schema import RunConfig
    from tasklib.training import runs
    from tasklib.writing import cards, model_files

    name = runs.run_name(config_path(paths, args.config or BASELINE), args.limit)
    record = runs.finished_run(paths, name)
    config = RunConfig.model_validate(record.config)  # as it was trained, --set included
    runs.require_same_identity(
        record,
        runs.identity(config, definition, paths),
        name,
        "restore the definition and data it was trained with, or train again",
    )
    results = _results(paths, definition, config, record, name, args.limit)
    served, weights, problems, warnings = None, {}, [], []
    if args.export:
        served, weights, problems, warnings = model_files.of_export(paths, definition, name, args.export)
    baselines = _baselines(paths, definition, config, cards.headline(results))
    card = cards.model_card(definition, record, results, baselines, served)
    if not args.export:
        weights, problems, warnings = model_files.of_run(paths, name, config)
    run = Run(name, definition, record, config, results, card, weights, args.export)
    return run, problems, warnings + _card_warnings(run)


def _results(paths: Any, definition: Any, config: Any, record: Any, name: str, limit: int | None) -> dict[str, Any]:
    """Split -> metrics of this very run. Raises TaskError (exit 4) when there are none, or one is out of date."""
    from tasklib.data import conversion
    from tasklib.scoring import evaluation

    found = {split: evaluation.read_metrics(paths.benchmark(name, split)) for split in ("test", "validation")}
    found = {split: result for split, result in found.items() if result is not None}
    problems = []
    if not found:
        problems.append(
            Problem(
                code="not_evaluated",
                message=f"run {name!r} has no results, and a card needs them",
                file=paths.shown(paths.benchmarks / name),
                hint="evaluate it first",
            )
        )
    for split, result in found.items():
        rows = evaluation.Rows(split, conversion.load_split(paths, split)[:limit], [])
        if not evaluation.is_current(paths, definition, config, rows, record, result):
            problems.append(
                Problem(
                    code="results_out_of_date",
                    hint="evaluate again",
                    message=f"the {split} results are of another run, other rows or another evaluation",
                    file=paths.shown(paths.benchmark(name, split) / "metrics.json"),
                )
            )
    if problems:
        split = next(iter(found), "test")
        command = f"uv run python scripts/04_evaluate.py --config configs/{name}.yaml --split {split}"
        raise TaskError(cli.ExitCode.PREREQUISITE, problems, next=command)
    return found


def _baselines(paths: Any, definition: Any, config: Any, result: Any) -> dict[str, Any]:
    """Baseline -> metrics, of those that answered the same rows by the same decoding."""
    from tasklib.scoring import evaluation, metrics

    names = evaluation.baseline_names(definition)
    found = {n: metrics.read(evaluation.baseline_folder(paths, n, config, result.split)) for n in names}
    return {
        n: m
        for n, m in found.items()
        if m and m.rows_sha256 == result.rows_sha256 and m.decoding in ("none", result.decoding)
    }


def _card_warnings(run: Run) -> list:
    """What the reader of the card will miss, or its owner should know before it is published."""
    from tasklib.writing import cards

    result, where, warnings = cards.headline(run.results), "task_definition.yaml", []
    if run.definition.hub.license is None:
        warnings.append(_license_missing("hub.license", "apache-2.0, one that the base model's license allows"))
    if result.split != "test":
        command = f"uv run python scripts/04_evaluate.py --config configs/{run.name}.yaml --split test"
        warnings.append(
            Problem(
                code="no_test_result", message="the card shows validation results and says so", hint=f"run: {command}"
            )
        )
    if result.gate is not None and not result.gate.passed:
        warnings.append(Problem(code="gate_not_met", message="; ".join(result.gate.reasons), hint="the card says so"))
    if cards.is_local(run.config.base_model):
        warnings.append(
            Problem(
                code="base_model_local",
                message="the base model is a local folder: nobody else has it",
                field="base_model.id",
                hint="the card gives only the folder's name",
            )
        )
    if run.definition.prompt.n_few_shot:
        warnings.append(
            Problem(
                code="few_shot_left_out",
                message="the prompt's worked examples are training data and are not published",
                file=where,
                field="prompt.n_few_shot",
                hint="give them to the model's users if the data may be shared",
            )
        )
    return warnings


def _license_missing(field: str, example: str) -> Problem:
    return Problem(
        code="license_missing",
        message="the card names no license",
        file="task_definition.yaml",
        field=field,
        hint=f"write one by its Hub id, e.g. {example}",
    )


def _contents(run: Run) -> dict[str, Any]:
    """Name in the repository -> a file here, text, or a value to write as JSON. No data, no predictions, no argv."""
    from tasklib import files
    from tasklib.writing import cards, hub

    contents: dict[str, Any] = dict(run.weights)
    contents["README.md"] = run.card
    contents[hub.MODEL.marker] = _training_run(run)
    for split, result in run.results.items():
        contents[f"benchmarks/{split}/metrics.json"] = result.model_dump(mode="json")
    if "adapter_config.json" in run.weights:
        adapter = files.read_json(run.weights["adapter_config.json"])
        base = cards.without_paths(adapter.get("base_model_name_or_path"))
        if base != adapter.get("base_model_name_or_path"):  # a local base model: its folder is nobody's business
            contents["adapter_config.json"] = {**adapter, "base_model_name_or_path": base}
    return contents


def _training_run(run: Run) -> dict[str, Any]:
    """The part of run.json that says how the model came about, without command line, hardware and file names."""
    from tasklib.writing import cards

    record = run.record
    return {
        "schema_version": 1,
        "task": run.definition.name,
        "run": run.name,
        "identity_sha256": record.identity["sha256"],
        "finished_at": record.finished_at,
        "seed": record.seed,
        "config": cards.public_config(record.config),
        "counts": record.counts,
        "final": record.final,
        "environment": {name: version for name, version in record.environment.items() if name != "platform"},
    }


def _shown_metrics(run: Run) -> dict[str, Any]:
    from tasklib.writing import cards

    result = cards.headline(run.results)
    return {f"{result.split} {result.primary.name}": result.primary.value}


def _command(args: argparse.Namespace, found: Upload, *flags: str) -> str:
    """The command line for the same thing; without a repository, one of the task's name in the own account."""
    repo_id = args.repo_id or (found.definition.name if found.repo_id is None else None)
    repository = ["--repo-id", repo_id] if repo_id else []
    what = ["--dataset"] if args.dataset else ["--config", args.config or BASELINE]
    what += ["--export", args.export] if args.export else []
    what += ["--verify-download"] if args.verify_download else []
    return shlex.join(["uv", "run", "python", "scripts/05_upload_hf.py", *what, *repository, *flags])


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), upload, argv)


if __name__ == "__main__":
    raise SystemExit(main())
