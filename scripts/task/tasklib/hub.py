"""The Hugging Face Hub: login, repository, one commit, and what arrived. No token but the environment's or login's."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.summary import Problem, TaskError

# What 05_upload_hf.py puts into a repository; nothing else is ever removed from one.
OWN_FILES = re.compile(
    r"(adapter_)?model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|(adapter_|generation_)?config\.json"
    r"|benchmarks/[^/]+/metrics\.json"
)
ANY_WEIGHTS = re.compile(r".*\.(safetensors|gguf|bin|pt|pth|h5|onnx)")
MARKER = "training_run.json"  # a repository that has it was filled by this script


def repo_id_problems(repo_id: str | None) -> list:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        problem = Problem(
            code="repo_id_illegal",
            message=str(error),
            field="hub.repo_id",
            hint="write owner/name, e.g. my-org/my-model",
        )
        return [(ExitCode.USAGE, problem)]
    return []


def login(definition: Any) -> tuple[str | None, list]:
    """The token of the environment or of the login, and what is missing as (exit code, problem)."""
    from huggingface_hub import constants, get_token

    with _hub_errors(None):
        token = get_token()
    missing = []
    if definition.hub.repo_id is None:
        problem = Problem(
            code="repo_id_missing",
            message="no repository is named",
            file="task_definition.yaml",
            field="hub.repo_id",
            hint="write owner/name there, or give --repo-id owner/name",
        )
        missing.append((ExitCode.USAGE, problem))
    if token is None:
        problem = Problem(
            code="token_missing",
            message="HF_TOKEN is not set and there is no stored login",
            hint=f"make a token with write access at {constants.ENDPOINT}/settings/tokens, then run "
            "`uv run hf auth login` or set HF_TOKEN",
        )
        missing.append((ExitCode.PREREQUISITE, problem))
    return token, missing


@dataclass(frozen=True)
class Repository:
    """A repository on the Hub; `found` is None where it is still to be made."""

    api: Any
    id: str
    private: bool
    found: Any


def repository_of(token: str | None, hub: Any) -> tuple[Repository | None, list]:
    """Asks the Hub about the token and the repository; changes nothing. Returns warnings too. Raises TaskError: exit 4
    when the Hub or the token refuses, exit 2 when the repository is public against the definition or not ours."""
    from huggingface_hub import HfApi

    if token is None:
        return None, []
    api = HfApi(token=token, library_name="finetune-llm")
    with _hub_errors(token):
        account = api.whoami()
        if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
            problem = Problem(
                code="token_read_only",
                message="the token may only read",
                hint=f"make one with write access at {api.endpoint}/settings/tokens",
            )
            raise TaskError(ExitCode.PREREQUISITE, [problem])
        if hub.repo_id is None:
            return None, []
        repo_id = hub.repo_id if "/" in hub.repo_id else f"{account['name']}/{hub.repo_id}"
        repository = Repository(api, repo_id, hub.private, _found(api, repo_id))
    _require_fit(repository)
    if repository.found is not None and repository.found.private and not hub.private:
        return repository, [
            Problem(
                code="repo_is_private",
                message=f"{repo_id} is private and stays so",
                field="hub.private",
                hint="make it public on its settings page",
            )
        ]
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
    if repository.found is None:
        return
    problems, names = [], _names(repository.found)
    if repository.private and not repository.found.private:
        problems.append(
            Problem(
                code="repo_public",
                message=f"{repository.id} is public, and hub.private is true",
                field="hub.private",
                hint="make it private on its settings page, name another repository, or set hub.private: false",
            )
        )
    if MARKER not in names and any(ANY_WEIGHTS.fullmatch(name) for name in names):
        problems.append(
            Problem(
                code="repo_in_use",
                message=f"{repository.id} holds weights that are not from here",
                field="hub.repo_id",
                hint="name another repository",
            )
        )
    raise_all([(ExitCode.USAGE, problem) for problem in problems])


def send(repository: Repository, contents: dict[str, Any], commit_message: str) -> tuple[dict[str, Any], list]:
    """Uploads `contents` (name -> file here, text, or a value for JSON) in one commit and checks what arrived.

    Returns url, commit, whether anything changed, the number of files; and warnings.
    """
    api, repo_id = repository.api, repository.id
    with tempfile.TemporaryDirectory(prefix="finetune-llm-upload-") as folder:
        _stage(Path(folder), contents)
        with _hub_errors(api.token):
            if repository.found is None:
                api.create_repo(repo_id, private=repository.private)
                repository = Repository(api, repo_id, repository.private, api.model_info(repo_id))
                _require_fit(repository)  # before any file is sent: an organization may have rules of its own
            old = [name for name in _names(repository.found) if OWN_FILES.fullmatch(name) and name not in contents]
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=commit_message, delete_patterns=old or None
            )
            arrived = api.verify_repo_checksums(repo_id, local_dir=folder, revision=commit.oid)
    wrong = sorted([*arrived.extra_paths, *(mismatch["path"] for mismatch in arrived.mismatches)])
    raise_all(
        [
            (
                ExitCode.PREREQUISITE,
                Problem(
                    code="upload_incomplete",
                    message=f"{name} did not arrive as it is",
                    hint="run the same command again",
                ),
            )
            for name in wrong
        ]
    )
    removed = [
        Problem(
            code="old_file_removed",
            message=f"{name} of an earlier upload is gone from the main branch",
            hint="earlier commits keep it",
        )
        for name in old
    ]
    changed = commit.oid != repository.found.sha
    return {
        "url": f"{api.endpoint}/{repo_id}",
        "commit": commit.oid,
        "changed": changed,
        "files": len(contents),
    }, removed


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


@contextlib.contextmanager
def _hub_errors(token: str | None) -> Iterator[None]:
    """Turns what the Hub's client raises into one TaskError (exit 4) that names no token and no signed address."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled, OIDCError

    try:
        yield
    except (HTTPError, OIDCError, OSError, ValueError, RuntimeError) as error:
        text = re.sub(r"\?\S+", "", " ".join(str(error).split())) or type(error).__name__
        status = getattr(getattr(error, "response", None), "status_code", None)
        code, hint = "hub_failed", "files appear only with the final commit: run the same command again later"
        if status == 401:
            code, hint = (
                "token_rejected",
                f"make a token at {constants.ENDPOINT}/settings/tokens, then run "
                "`uv run hf auth login`; HF_TOKEN goes before a stored login",
            )
        elif status == 403:
            code, hint = "hub_forbidden", "the token needs write access to this owner's repositories"
        elif isinstance(error, OfflineModeIsEnabled):
            code, hint = "hub_offline", "unset HF_HUB_OFFLINE"
        message = text.replace(token, "***") if token else text
        problem = Problem(code=code, message=f"{constants.ENDPOINT}: {message[:300]}", hint=hint)
        raise TaskError(ExitCode.PREREQUISITE, [problem]) from None


def raise_all(problems: list) -> None:
    """Raises TaskError with all the problems and the lowest of their exit codes, if there are any."""
    if problems:
        only_login = {problem.code for _, problem in problems} == {"token_missing"}
        raise TaskError(
            min(code for code, _ in problems),
            [problem for _, problem in problems],
            next="uv run hf auth login" if only_login else None,
        )
