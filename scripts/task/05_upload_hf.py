#!/usr/bin/env python3
"""Writes the model card of one evaluated run and uploads the run to the Hugging Face Hub, private by default."""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklib import cli

PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}
UPLOADED = {".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken"}
TRAINING_STATE = re.compile(r"(optimizer|scheduler|scaler|rng_state|trainer_state|training_args|run)\b.*")
# What this script itself puts into a repository; nothing else is ever removed from one.
OWN_FILES = re.compile(
    r"(adapter_)?model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|(adapter_|generation_)?config\.json"
    r"|benchmarks/[^/]+/metrics\.json"
)
ANY_WEIGHTS = re.compile(r".*\.(safetensors|gguf|bin|pt|pth|h5|onnx)")
MARKER = "training_run.json"  # a repository that has it was filled by this script


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "upload",
        "Write the model card of one evaluated run, and upload weights, card and metrics to the Hugging Face Hub.\n"
        "The token comes from HF_TOKEN or from `hf auth login`, never from a flag or a file of the task.",
        [
            "uv run python scripts/05_upload_hf.py --card-only",
            "uv run python scripts/05_upload_hf.py --dry-run",
            "uv run python scripts/05_upload_hf.py --config configs/lr-1e-4.yaml --repo-id my-org/my-model",
        ],
    )
    cli.add_task_flags(parser, __file__)
    parser.add_argument("--config", default="configs/baseline.yaml", help="run config (default: %(default)s)")
    parser.add_argument("--repo-id", metavar="ID", help="owner/name on the Hub (default: the definition's hub.repo_id)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--card-only", action="store_true", help="write hf_cards/model_card.md and stop")
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


def upload(args: argparse.Namespace):
    from tasklib import files, models
    from tasklib.paths import task_paths
    from tasklib.summary import Summary

    models.quiet_libraries()
    paths = task_paths(args.task_dir)
    run, problems, warnings = _checked_run(paths, _definition(paths, args.repo_id), args)
    token, missing = (None, []) if args.card_only else _login_and_repository(run.definition)
    _raise(problems if args.dry_run else problems + missing)
    report = {"run": run.name, "metrics": _shown_metrics(run)}
    outputs = {"card": paths.shown(paths.model_card)}
    if args.card_only:
        files.write_text(paths.model_card, run.card)
        return Summary.of("upload", warnings=warnings, outputs=outputs, **report,
                          next=_command(args, run.definition, "--dry-run"))  # fmt: skip
    repository, more = _repository(token, run.definition.hub)
    if args.dry_run:
        warnings += [problem for _, problem in missing]
        after = _command(args, run.definition) if token else "uv run hf auth login"
        counts = {"files": len(_contents(run))}
        return Summary.of("upload", warnings=warnings + more, counts=counts, next=after, **report)
    files.write_text(paths.model_card, run.card)
    sent, removed = _send(run, repository)
    return Summary.of("upload", "ok" if sent["changed"] else "skipped", warnings=warnings + more + removed,
                      outputs={**outputs, "url": sent["url"], "commit": sent["commit"]},
                      counts={"files": sent["files"]}, **report)  # fmt: skip


def _definition(paths: Any, repo_id: str | None) -> Any:
    """The task definition, with --repo-id in the place of its own."""
    from tasklib import schema

    definition = schema.load_definition(paths.definition)
    if repo_id is None:
        return definition
    return definition.model_copy(update={"hub": definition.hub.model_copy(update={"repo_id": repo_id})})


def _checked_run(paths: Any, definition: Any, args: argparse.Namespace) -> tuple[Run, list, list]:
    """The run with its card, problems as (exit code, problem), and warnings. Raises TaskError when the run did not
    finish, has no results of its own, or was made from another definition or other data."""
    from tasklib import cards, runs
    from tasklib.paths import config_path
    from tasklib.schema import RunConfig

    name = runs.run_name(config_path(paths, args.config), None)
    record = runs.finished_run(paths, name)
    config = RunConfig.model_validate(record.config)  # as it was trained, --set included
    runs.require_same_identity(record, runs.identity(config, definition, paths), name,
                               "restore the definition and data it was trained with, or train again")  # fmt: skip
    results = _results(paths, definition, config, record, name)
    card = cards.model_card(definition, record, results, _baselines(paths, definition, config, cards.headline(results)))
    weights, problems, warnings = _weights(paths, name, config)
    run = Run(name, definition, record, config, results, card, weights)
    return run, problems + _repo_id_problems(definition.hub.repo_id), warnings + _card_warnings(run)


def _results(paths: Any, definition: Any, config: Any, record: Any, name: str) -> dict[str, Any]:
    """Split -> metrics of this very run. Raises TaskError (exit 4) when there are none, or one is out of date."""
    from tasklib import conversion, evaluation, metrics
    from tasklib.summary import Problem, TaskError

    found = {split: metrics.read(paths.benchmark(name, split)) for split in ("test", "validation")}
    found = {split: result for split, result in found.items() if result is not None}
    problems = []
    if not found:
        problems.append(Problem(code="not_evaluated", message=f"run {name!r} has no results, and a card needs them",
                                file=paths.shown(paths.benchmarks / name), hint="evaluate it first"))  # fmt: skip
    for split, result in found.items():
        rows = evaluation.Rows(split, conversion.load_split(paths, split), [])
        if result.identity != evaluation.run_identity(definition, config, rows, record.identity["sha256"]):
            problems.append(Problem(code="results_out_of_date", hint="evaluate again",
                                    message=f"the {split} results are of another run, other rows or another evaluation",
                                    file=paths.shown(paths.benchmark(name, split) / "metrics.json")))  # fmt: skip
    if problems:
        split = next(iter(found), "test")
        command = f"uv run python scripts/04_evaluate.py --config configs/{name}.yaml --split {split}"
        raise TaskError(cli.ExitCode.PREREQUISITE, problems, next=command)
    return found


def _baselines(paths: Any, definition: Any, config: Any, result: Any) -> dict[str, Any]:
    """Baseline -> metrics, of those that answered the same rows by the same decoding."""
    from tasklib import evaluation, metrics

    names = evaluation.baseline_names(definition)
    found = {n: metrics.read(evaluation.baseline_folder(paths, n, config, result.split)) for n in names}
    return {n: m for n, m in found.items()
            if m and m.rows_sha256 == result.rows_sha256 and m.decoding in ("none", result.decoding)}  # fmt: skip


def _weights(paths: Any, name: str, config: Any) -> tuple[dict[str, Path], list, list]:
    """Files of adapter/ or model/ by their name in the repository, problems as (exit code, problem), and warnings."""
    from tasklib.summary import Problem

    full = config.adapter.type == "full"
    folder = paths.run(name) / ("model" if full else "adapter")
    needed = "config.json" if full else "adapter_config.json"
    found, problems, warnings = {}, [], []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        relative, shown = path.relative_to(folder).as_posix(), paths.shown(path)
        if path.suffix.lower() in PICKLES:
            problems.append(Problem(code="pickle", message="a pickle can run code when it is loaded", file=shown,
                                    hint="only safetensors are uploaded: remove it, or train again"))  # fmt: skip
        elif path.suffix not in UPLOADED or TRAINING_STATE.fullmatch(path.name):
            if relative != "README.md":  # the card takes its place
                warnings.append(Problem(code="file_left_out", message="no file of the model: not uploaded", file=shown))
        elif path.suffix == ".safetensors" and (fault := _safetensors_fault(path)):
            problems.append(Problem(code="weights_unreadable", message=fault, file=shown, hint="train again"))
        else:
            found[relative] = path
    if needed not in found or not any(path.suffix == ".safetensors" for path in folder.rglob("*")):
        problems.append(Problem(code="weights_missing", message=f"there is no {needed} with safetensors weights",
                                file=paths.shown(folder), hint="train again"))  # fmt: skip
    return found, [(cli.ExitCode.PREREQUISITE, problem) for problem in problems], warnings


def _safetensors_fault(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            return None if tensors.keys() else "the file holds no tensor"
    except (SafetensorError, OSError) as error:
        return f"no whole safetensors file: {error}"


def _card_warnings(run: Run) -> list:
    """What the reader of the card will miss, or its owner should know before it is published."""
    from tasklib import cards
    from tasklib.summary import Problem

    result, where, warnings = cards.headline(run.results), "task_definition.yaml", []
    if run.definition.hub.license is None:
        warnings.append(Problem(code="license_missing", message="the card names no license", file=where,
                                field="hub.license", hint="write one that the base model's license allows, by its "
                                "Hub id, e.g. apache-2.0"))  # fmt: skip
    if result.split != "test":
        command = f"uv run python scripts/04_evaluate.py --config configs/{run.name}.yaml --split test"
        warnings.append(Problem(code="no_test_result", message="the card shows validation results and says so",
                                hint=f"run: {command}"))  # fmt: skip
    if result.gate is not None and not result.gate.passed:
        warnings.append(Problem(code="gate_not_met", message="; ".join(result.gate.reasons), hint="the card says so"))
    if cards.is_local(run.config.base_model):
        warnings.append(Problem(code="base_model_local", message="the base model is a local folder: nobody else has it",
                                field="base_model.id", hint="the card gives only the folder's name"))  # fmt: skip
    if run.definition.prompt.n_few_shot:
        warnings.append(Problem(code="few_shot_left_out", message="the prompt's worked examples are training data and "
                                "are not published", file=where, field="prompt.n_few_shot",
                                hint="give them to the model's users if the data may be shared"))  # fmt: skip
    return warnings


def _repo_id_problems(repo_id: str | None) -> list:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    from tasklib.summary import Problem

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        problem = Problem(code="repo_id_illegal", message=str(error), field="hub.repo_id",
                          hint="write owner/name, e.g. my-org/my-model")  # fmt: skip
        return [(cli.ExitCode.USAGE, problem)]
    return []


def _login_and_repository(definition: Any) -> tuple[str | None, list]:
    """The token of the environment or of the login, and what is missing as (exit code, problem)."""
    from huggingface_hub import constants, get_token

    from tasklib.summary import Problem

    with _hub_errors(None):
        token = get_token()
    missing = []
    if definition.hub.repo_id is None:
        problem = Problem(code="repo_id_missing", message="no repository is named", file="task_definition.yaml",
                          field="hub.repo_id", hint="write owner/name there, or give --repo-id owner/name")  # fmt: skip
        missing.append((cli.ExitCode.USAGE, problem))
    if token is None:
        problem = Problem(code="token_missing", message="HF_TOKEN is not set and there is no stored login",
                          hint=f"make a token with write access at {constants.ENDPOINT}/settings/tokens, then run "
                               "`uv run hf auth login` or set HF_TOKEN")  # fmt: skip
        missing.append((cli.ExitCode.PREREQUISITE, problem))
    return token, missing


@dataclass(frozen=True)
class Repository:
    """A repository on the Hub; `found` is None where it is still to be made."""

    api: Any
    id: str
    private: bool
    found: Any


def _repository(token: str | None, hub: Any) -> tuple[Repository | None, list]:
    """Asks the Hub about the token and the repository; changes nothing. Returns warnings too. Raises TaskError: exit 4
    when the Hub or the token refuses, exit 2 when the repository is public against the definition or not ours."""
    from huggingface_hub import HfApi

    from tasklib.summary import Problem, TaskError

    if token is None:
        return None, []
    api = HfApi(token=token, library_name="finetune-llm")
    with _hub_errors(token):
        account = api.whoami()
        if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
            problem = Problem(code="token_read_only", message="the token may only read",
                              hint=f"make one with write access at {api.endpoint}/settings/tokens")  # fmt: skip
            raise TaskError(cli.ExitCode.PREREQUISITE, [problem])
        if hub.repo_id is None:
            return None, []
        repo_id = hub.repo_id if "/" in hub.repo_id else f"{account['name']}/{hub.repo_id}"
        repository = Repository(api, repo_id, hub.private, _found(api, repo_id))
    _require_fit(repository)
    if repository.found is not None and repository.found.private and not hub.private:
        return repository, [Problem(code="repo_is_private", message=f"{repo_id} is private and stays so",
                                    field="hub.private", hint="make it public on its settings page")]  # fmt: skip
    return repository, []


def _found(api: Any, repo_id: str) -> Any:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return api.model_info(repo_id)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None


def _require_fit(repository: Repository) -> None:
    """Raises TaskError (exit 2) for a public repository that should be private, or one with weights not from here."""
    from tasklib.summary import Problem

    if repository.found is None:
        return
    problems, names = [], _names(repository.found)
    if repository.private and not repository.found.private:
        problems.append(Problem(code="repo_public", message=f"{repository.id} is public, and hub.private is true",
                                field="hub.private", hint="make it private on its settings page, name another "
                                "repository, or set hub.private: false"))  # fmt: skip
    if MARKER not in names and any(ANY_WEIGHTS.fullmatch(name) for name in names):
        problems.append(Problem(code="repo_in_use", message=f"{repository.id} holds weights that are not from here",
                                field="hub.repo_id", hint="name another repository"))  # fmt: skip
    _raise([(cli.ExitCode.USAGE, problem) for problem in problems])


def _send(run: Run, repository: Repository) -> tuple[dict[str, Any], list]:
    """Uploads everything in one commit and checks what arrived; returns url, commit and so on, and warnings."""
    from tasklib.summary import Problem

    api, repo_id = repository.api, repository.id
    contents = _contents(run)
    with tempfile.TemporaryDirectory(prefix="finetune-llm-upload-") as folder:
        _stage(Path(folder), contents)
        with _hub_errors(api.token):
            if repository.found is None:
                api.create_repo(repo_id, private=repository.private)
                repository = Repository(api, repo_id, repository.private, api.model_info(repo_id))
                _require_fit(repository)  # before any file is sent: an organization may have rules of its own
            old = [name for name in _names(repository.found) if OWN_FILES.fullmatch(name) and name not in contents]
            commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=f"Upload run {run.name}",
                                       delete_patterns=old or None)  # fmt: skip
            arrived = api.verify_repo_checksums(repo_id, local_dir=folder, revision=commit.oid)
    wrong = sorted([*arrived.extra_paths, *(mismatch["path"] for mismatch in arrived.mismatches)])
    _raise([(cli.ExitCode.PREREQUISITE, Problem(code="upload_incomplete", message=f"{name} did not arrive as it is",
                                                hint="run the same command again")) for name in wrong])  # fmt: skip
    removed = [Problem(code="old_file_removed", message=f"{name} of an earlier upload is gone from the main branch",
                       hint="earlier commits keep it") for name in old]  # fmt: skip
    changed = commit.oid != repository.found.sha
    return {"url": f"{api.endpoint}/{repo_id}", "commit": commit.oid, "changed": changed,
            "files": len(contents)}, removed  # fmt: skip


def _contents(run: Run) -> dict[str, Any]:
    """Name in the repository -> a file here, text, or a value to write as JSON. No data, no predictions, no argv."""
    from tasklib import cards, files

    contents: dict[str, Any] = dict(run.weights)
    contents["README.md"] = run.card
    contents[MARKER] = _training_run(run)
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
    from tasklib import cards

    record = run.record
    return {
        "schema_version": 1, "task": run.definition.name, "run": run.name, "identity_sha256": record.identity["sha256"],
        "finished_at": record.finished_at, "seed": record.seed, "config": cards.public_config(record.config),
        "counts": record.counts, "final": record.final,
        "environment": {name: version for name, version in record.environment.items() if name != "platform"},
    }  # fmt: skip


def _stage(folder: Path, contents: dict[str, Any]) -> None:
    """Fills `folder`; weights are linked, because they may be large."""
    from tasklib import files

    for name, content in contents.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            target.symlink_to(content.resolve())
        elif isinstance(content, str):
            files.write_text(target, content)
        else:
            files.write_json(target, content)


def _names(found: Any) -> list[str]:
    return [sibling.rfilename for sibling in found.siblings or []]


def _shown_metrics(run: Run) -> dict[str, Any]:
    from tasklib import cards

    result = cards.headline(run.results)
    return {f"{result.split} {result.primary.name}": result.primary.value}


@contextlib.contextmanager
def _hub_errors(token: str | None) -> Iterator[None]:
    """Turns what the Hub's client raises into one TaskError (exit 4) that names no token and no signed address."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled, OIDCError

    from tasklib.summary import Problem, TaskError

    try:
        yield
    except (HTTPError, OIDCError, OSError, ValueError, RuntimeError) as error:
        text = re.sub(r"\?\S+", "", " ".join(str(error).split())) or type(error).__name__
        status = getattr(getattr(error, "response", None), "status_code", None)
        code, hint = "hub_failed", "files appear only with the final commit: run the same command again later"
        if status == 401:
            code, hint = "token_rejected", f"make a token at {constants.ENDPOINT}/settings/tokens, then run " \
                                           "`uv run hf auth login`; HF_TOKEN goes before a stored login"  # fmt: skip
        elif status == 403:
            code, hint = "hub_forbidden", "the token needs write access to this owner's repositories"
        elif isinstance(error, OfflineModeIsEnabled):
            code, hint = "hub_offline", "unset HF_HUB_OFFLINE"
        message = text.replace(token, "***") if token else text
        problem = Problem(code=code, message=f"{constants.ENDPOINT}: {message[:300]}", hint=hint)
        raise TaskError(cli.ExitCode.PREREQUISITE, [problem]) from None


def _raise(problems: list) -> None:
    """Raises TaskError with all the problems and the lowest of their exit codes, if there are any."""
    from tasklib.summary import TaskError

    if problems:
        only_login = {problem.code for _, problem in problems} == {"token_missing"}
        raise TaskError(min(code for code, _ in problems), [problem for _, problem in problems],
                        next="uv run hf auth login" if only_login else None)  # fmt: skip


def _command(args: argparse.Namespace, definition: Any, *flags: str) -> str:
    """This script's command line for the same run; without a repository, one of the task's name in the own account."""
    repo_id = args.repo_id or (definition.name if definition.hub.repo_id is None else None)
    repository = ["--repo-id", repo_id] if repo_id else []
    return shlex.join(["uv", "run", "python", "scripts/05_upload_hf.py", "--config", args.config, *repository, *flags])


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), upload, argv)


if __name__ == "__main__":
    raise SystemExit(main())
