"""The Hugging Face Hub: login, repository, one commit, and what arrived. No token but the environment's or login's."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.summary import Problem, TaskError


@dataclass(frozen=True)
class Kind:
    """What 05_upload_hf.py may do to a repository of one type.

    A repository that has `marker` was filled by that script; one that has none of it and holds `foreign` files is left
    alone. Of files that are no longer there, only `own` ones are ever removed.
    """

    repo_type: str
    marker: str
    own: re.Pattern[str]
    foreign: re.Pattern[str]
    field: str


MODEL = Kind(
    repo_type="model",
    marker="training_run.json",
    own=re.compile(
        r"(adapter_)?model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|(adapter_|generation_)?config\.json"
        r"|benchmarks/[^/]+/metrics\.json|[^/]+\.gguf|inference\.json|Modelfile|template|system|params"
    ),
    foreign=re.compile(r".*\.(safetensors|gguf|bin|pt|pth|h5|onnx)"),
    field="hub.repo_id",
)
DATASET = Kind(
    repo_type="dataset",
    marker="manifest.json",
    own=re.compile(r"(train|validation|test)\.jsonl"),
    foreign=re.compile(r"(?!README\.md$|\.gitattributes$|LICENSE).*"),  # a data set may be in any format
    field="hub.dataset_repo_id",
)


def repo_id_problems(repo_id: str | None, kind: Kind) -> list:
    """What is wrong with the name of a repository, as (exit code, problem)."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        problem = Problem(
            code="repo_id_illegal",
            message=str(error),
            field=kind.field,
            hint=f"write owner/name, e.g. my-org/my-{kind.repo_type}",
        )
        return [(ExitCode.USAGE, problem)]
    return []


def login(repo_id: str | None, kind: Kind) -> tuple[str | None, list]:
    """The token of the environment or of the login, and what is missing as (exit code, problem)."""
    from huggingface_hub import constants, get_token

    with hub_errors(None):
        token = get_token()
    missing = []
    if repo_id is None:
        problem = Problem(
            code="repo_id_missing",
            message="no repository is named",
            file="task_definition.yaml",
            field=kind.field,
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
    kind: Kind
    id: str
    private: bool
    found: Any


def repository_of(
    token: str | None, repo_id: str | None, kind: Kind, *, private: bool
) -> tuple[Repository | None, list]:
    """Asks the Hub about the token and the repository; changes nothing. Returns warnings too. Raises TaskError: exit 4
    when the Hub or the token refuses, exit 2 when the repository is public against the definition or not ours."""
    from huggingface_hub import HfApi

    if token is None:
        return None, []
    api = HfApi(token=token, library_name="finetune-llm")
    with hub_errors(token):
        account = api.whoami()
        if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
            problem = Problem(
                code="token_read_only",
                message="the token may only read",
                hint=f"make one with write access at {api.endpoint}/settings/tokens",
            )
            raise TaskError(ExitCode.PREREQUISITE, [problem])
        if repo_id is None:
            return None, []
        repo_id = repo_id if "/" in repo_id else f"{account['name']}/{repo_id}"
        repository = Repository(api, kind, repo_id, private, _found(api, repo_id, kind))
    _require_fit(repository)
    if repository.found is not None and repository.found.private and not private:
        return repository, [
            Problem(
                code="repo_is_private",
                message=f"{repo_id} is private and stays so",
                field="hub.private",
                hint="make it public on its settings page",
            )
        ]
    return repository, []


def _found(api: Any, repo_id: str, kind: Kind) -> Any:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return api.repo_info(repo_id, repo_type=kind.repo_type)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None


def _require_fit(repository: Repository) -> None:
    """Raises TaskError (exit 2) for a public repository that should be private, or one with files not from here."""
    if repository.found is None:
        return
    problems, kind, names = [], repository.kind, _names(repository.found)
    if repository.private and not repository.found.private:
        problems.append(
            Problem(
                code="repo_public",
                message=f"{repository.id} is public, and hub.private is true",
                field="hub.private",
                hint="make it private on its settings page, name another repository, or set hub.private: false",
            )
        )
    foreign = [name for name in names if kind.foreign.fullmatch(name)]
    if kind.marker not in names and foreign:
        problems.append(
            Problem(
                code="repo_in_use",
                message=f"{repository.id} holds files that are not from here, such as {foreign[0]}",
                field=kind.field,
                hint="name another repository",
            )
        )
    raise_all([(ExitCode.USAGE, problem) for problem in problems])


def send(repository: Repository, contents: dict[str, Any], commit_message: str) -> tuple[dict[str, Any], list]:
    """Uploads `contents` (name -> file here, text, or a value for JSON) in one commit and checks what arrived.

    Returns url, commit, whether anything changed, the number of files; and warnings.
    """
    api, kind = repository.api, repository.kind
    where = {"repo_id": repository.id, "repo_type": kind.repo_type}
    with tempfile.TemporaryDirectory(prefix="finetune-llm-upload-") as folder:
        _stage(Path(folder), contents)
        with hub_errors(api.token):
            if repository.found is None:
                api.create_repo(**where, private=repository.private)
                repository = dataclasses.replace(repository, found=api.repo_info(**where))
                _require_fit(repository)  # before any file is sent: an organization may have rules of its own
            old = [name for name in _names(repository.found) if kind.own.fullmatch(name) and name not in contents]
            commit = api.upload_folder(
                **where, folder_path=folder, commit_message=commit_message, delete_patterns=old or None
            )
            arrived = api.verify_repo_checksums(**where, local_dir=folder, revision=commit.oid)
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
        "url": f"{api.endpoint}/{'datasets/' if kind is DATASET else ''}{repository.id}",
        "commit": commit.oid,
        "changed": changed,
        "files": len(contents),
    }, removed


def tag(repository: Repository, name: str, commit: str) -> bool:
    """Names a commit. Returns whether the name was taken from an earlier one; that commit stays."""
    from huggingface_hub.errors import RevisionNotFoundError

    api, where = repository.api, {"repo_id": repository.id, "repo_type": repository.kind.repo_type}
    with hub_errors(api.token):
        try:
            before = api.repo_info(**where, revision=name).sha
        except RevisionNotFoundError:
            before = None
        if before == commit:
            return False
        if before is not None:
            api.delete_tag(**where, tag=name)
        api.create_tag(**where, tag=name, revision=commit)
    return before is not None


def download(repository: Repository, revision: str, folder: Path) -> None:
    """A revision into an empty folder, past the cache, as a user of the repository gets it."""
    from huggingface_hub import snapshot_download

    with hub_errors(repository.api.token, reading=True):
        snapshot_download(
            repository.id,
            repo_type=repository.kind.repo_type,
            revision=revision,
            local_dir=folder,
            token=repository.api.token,
        )


def _stage(folder: Path, contents: dict[str, Any]) -> None:
    """Fills `folder`; files are linked, because they may be large."""
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
def hub_errors(token: str | None, *, reading: bool = False) -> Iterator[None]:
    """Turns what the Hub's client raises into one TaskError (exit 4) that names no token and no signed address.

    `reading`: nothing is to be written on the Hub, which is what the hints are about.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OIDCError

    try:
        yield
    except (HTTPError, OIDCError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # the client hides what went wrong behind a hint about its cache
        if isinstance(error, OSError) and error.filename is not None:
            raise  # a file of this machine, not the Hub
        text = re.sub(r"\?\S+", "", " ".join(str(error).split())) or type(error).__name__
        status = getattr(getattr(error, "response", None), "status_code", None)
        code = "hub_failed"
        hint = "nothing was kept" if reading else "files appear only with the final commit"
        hint += ": run the same command again later"
        if status == 401:
            code, hint = (
                "token_rejected",
                f"make a token at {constants.ENDPOINT}/settings/tokens, then run "
                "`uv run hf auth login`; HF_TOKEN goes before a stored login",
            )
        elif status == 403:
            access = "read" if reading else "write"
            code, hint = "hub_forbidden", f"the token needs {access} access to this owner's repositories"
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
