"""create_task.py --upgrade: brings what was copied into a task up to date, and leaves alone what a person changed.

A file is unmodified while its sha256 is the one that `.finetune-llm.json` recorded. Everything is prepared in a folder
of its own; then `scripts/` changes places with the new one in a single step of the file system: a kill leaves either
the old scripts or the new ones. The record is written last: an upgrade that was cut short is finished by the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import difflib
import fcntl
import hashlib
import json
import os
import re
import shutil
import string
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from creation.rendering import SKILL_VERSION
from tasklib import documents, files, schema
from tasklib.documents import Document
from tasklib.exit_codes import ExitCode
from tasklib.paths import task_paths
from tasklib.summary import Problem, Summary, TaskError

RECORD = ".finetune-llm.json"
DIFFS = ".upgrade"
STAGING = ".upgrading."
CACHES = ("__pycache__", "*.pyc")

# schema_version -> what turns the text of task_definition.yaml or of a config into the next version. Comments stay, so
# these work on text. None yet: version 1 is the only one.
MIGRATIONS: dict[int, Callable[[str], str]] = {}


@dataclass
class Plan:
    """What an upgrade does. Paths are relative to the task, with `/`."""

    replaced: dict[str, bytes] = field(default_factory=dict)
    added: dict[str, bytes] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    migrated: dict[str, bytes] = field(default_factory=dict)
    diffs: dict[str, str] = field(default_factory=dict)  # of files that stay as they are: theirs -> new
    warnings: list[Problem] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    record_changed: bool = False

    @property
    def written(self) -> dict[str, bytes]:
        return {**self.replaced, **self.added, **self.migrated}


def newest_version() -> int:
    """The schema_version that the migrations lead to: the one of `tasklib.schema`."""
    return max(MIGRATIONS, default=0) + 1


def _task_root(task: Path) -> Path:
    try:
        return task_paths(task).root
    except TaskError as error:
        problems = [dataclasses.replace(problem, hint="give --upgrade tasks/NAME") for problem in error.problems]
        raise TaskError(error.exit_code, problems) from None


def upgrade(task: Path, bundle: Path, *, dry_run: bool) -> Summary:
    """Replaces the copied files of `task` that nobody modified with those of `bundle`, adds new ones, removes those
    that are gone, migrates the documents. Data, models and benchmarks are not touched. Plan and diffs go to stderr.

    Raises TaskError: exit 4 where there is no task or a run is being written; exit 2 where it cannot be upgraded.
    """
    root = _task_root(task)
    with _alone(root):
        if not dry_run:
            _recover(root)
        plan = _plan(root, bundle, _read_record(root))
        _tell(plan)
        changes = bool(plan.written or plan.removed or plan.record_changed or _old_diffs(root) != plan.diffs)
        if changes and not dry_run:
            _carry_out(root, bundle, plan)
    outputs: dict[str, Any] = {"task": str(root)}
    for name in ("replaced", "added", "removed", "migrated"):
        outputs[name] = sorted(getattr(plan, name))
    outputs["diffs"] = {} if dry_run else {name: f"{DIFFS}/{name}.diff" for name in plan.diffs}
    counts = {name: len(outputs[name]) for name in ("replaced", "added", "removed", "migrated")}
    return Summary.of(
        "create_task",
        "ok" if changes else "skipped",
        warnings=plan.warnings,
        counts={**counts, "kept": len(plan.warnings)},
        outputs=outputs,
        next="the same command without --dry-run" if changes and dry_run else None,
    )


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """No second upgrade and no run of this task meanwhile. Nothing is written for it."""
    with contextlib.ExitStack() as stack:
        handle = os.open(root, os.O_RDONLY)
        stack.callback(os.close, handle)
        busy = [] if _locked(handle) else [("upgrade_running", "another upgrade of this task is running")]
        for path in sorted(root.glob("models/*/.lock")):
            if not _locked(stack.enter_context(path.open("rb")).fileno()):
                busy.append(("run_locked", f"another process is writing {path.parent.name}"))
        if busy:
            hint = "wait until it ends, or stop it"
            raise TaskError(ExitCode.PREREQUISITE, [Problem(code=code, message=text, hint=hint) for code, text in busy])
        yield


def _locked(handle: int) -> bool:
    """Takes the lock of an open file. A lock of a process that died is free."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _recover(root: Path) -> None:
    """Clears up after an upgrade that was killed, where the system cannot swap folders in one step."""
    for leftover in root.glob(STAGING + "*"):
        if not (root / "scripts").exists() and (leftover / "old-scripts").is_dir():
            (leftover / "old-scripts").rename(root / "scripts")
        shutil.rmtree(leftover, ignore_errors=True)


def _read_record(root: Path) -> dict[str, Any]:
    problem = None
    try:
        record = files.read_json(root / RECORD)
        if not isinstance(record, dict) or not isinstance(record.get("sha256"), dict):
            problem = "holds no sha256 of the files"
        elif _as_numbers(record.get("skill_version")) > _as_numbers(SKILL_VERSION):
            message = f"made by version {record['skill_version']} of the skill, this is {SKILL_VERSION}"
            hint = "install the newer skill and upgrade with it"
            raise TaskError(ExitCode.USAGE, [Problem(code="newer_skill", message=message, file=RECORD, hint=hint)])
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    if problem:
        hint = "without the record nobody knows what was modified: create a new task and copy your own files into it"
        raise TaskError(ExitCode.USAGE, [Problem(code="no_record", message=problem, file=RECORD, hint=hint)])
    return record


def _as_numbers(version: Any) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", str(version))))


# The plan.


def _plan(root: Path, bundle: Path, record: dict[str, Any]) -> Plan:
    definition = documents.load_yaml(root / "task_definition.yaml", "task_definition.yaml")
    wanted, recorded, plan = _wanted(root, bundle, definition), record["sha256"], Plan()
    hashes = dict(recorded)
    for name, content in wanted.items():
        found = _content(root / name)
        if found is None:
            plan.added[name] = content
        elif found != content and _sha256(found) == recorded.get(name):
            plan.replaced[name] = content
        elif found != content:
            _keep(plan, name, found, content)
            continue
        hashes[name] = _sha256(content)
    for name in _below(root, "scripts"):
        if name in recorded and name not in wanted:
            if _sha256(_content(root / name) or b"") == recorded[name]:
                plan.removed.append(name)
                del hashes[name]
            else:
                hint = "the new scripts do not use it: move what you need out of it, then remove it"
                plan.warnings.append(
                    Problem(code="obsolete_file", message="you modified it; it is gone now", file=name, hint=hint)
                )
    _migrate(root, definition, plan, hashes)
    plan.record = {**record, "skill_version": SKILL_VERSION, "sha256": hashes}
    plan.record_changed = plan.record != record
    return plan


def _keep(plan: Plan, name: str, found: bytes, content: bytes) -> None:
    plan.diffs[name] = _diff(name, found, content)
    hint = f"merge by hand what the new version changes: see {DIFFS}/{name}.diff, or stderr of this command"
    message = "you modified it: it stays as it is, and may not fit the new scripts"
    plan.warnings.append(Problem(code="modified_file", message=message, file=name, hint=hint))


def _wanted(root: Path, bundle: Path, definition: Document) -> dict[str, bytes]:
    """Path -> content of every copied file, as a task made today would have it."""
    source = bundle / "scripts" / "task"
    wanted = {f"scripts/{name}": (source / name).read_bytes() for name in _below(source, ".")}
    wanted["pyproject.toml"] = _pyproject(root, bundle, definition)
    wanted[".gitignore"] = (bundle / "templates" / "gitignore").read_bytes()
    return wanted


def _pyproject(root: Path, bundle: Path, definition: Document) -> bytes:
    """The template filled in for this task: its name and the packages of a builtin model stay as the task has them."""
    template = string.Template((bundle / "templates" / "pyproject.template.toml").read_text(encoding="utf-8"))
    name, present = _name_and_packages(_content(root / "pyproject.toml") or b"")
    if name is None:
        name = str(definition.data.get("name")) if isinstance(definition.data, dict) else ""
    offered = tomllib.loads(template.substitute(name="x", builtin_dependencies=""))
    builtin = offered["project"]["optional-dependencies"]["builtin"]
    lines = "".join(f'    "{pin}",\n' for pin in builtin if pin.split("==")[0] in present)
    return template.substitute(name=name, builtin_dependencies=lines).encode()


def _name_and_packages(content: bytes) -> tuple[str | None, set[str]]:
    """What a pyproject.toml says; nothing where somebody broke it: then it is a modified file, and stays."""
    try:
        project = tomllib.loads(content.decode())["project"]
        return str(project["name"]), {re.split(r"[^\w.-]", str(pin))[0] for pin in project["dependencies"]}
    except (ValueError, LookupError, TypeError):
        return None, set()


def _migrate(root: Path, definition: Document, plan: Plan, hashes: dict[str, str]) -> None:
    """Brings task_definition.yaml and every config to the newest schema_version. Raises TaskError (exit 2) with every
    document that is newer than known, or that the new schema refuses."""
    problems: list[Problem] = []
    configs = sorted(path.relative_to(root).as_posix() for path in root.glob("configs/*.yaml"))
    for name in ("task_definition.yaml", *configs):
        try:
            document = definition if name == definition.path else documents.load_yaml(root / name, name)
            text = _migrated(name, document, (root / name).read_bytes().decode("utf-8-sig"))
            if text is None:
                continue
            check = schema.check_definition if name == definition.path else schema.check_config
            check(documents.parse_yaml(text, name))
        except TaskError as error:
            problems += error.problems
            continue
        before = (root / name).read_bytes()
        if _sha256(before) == hashes.get(name):
            hashes[name] = _sha256(text.encode())
        plan.migrated[name] = text.encode()
    if problems:
        raise TaskError(ExitCode.USAGE, problems)


def _migrated(name: str, document: Document, text: str) -> str | None:
    """The text in the newest version, or None where it is that already."""
    version = document.data.get("schema_version") if isinstance(document.data, dict) else None
    newest, line = newest_version(), document.line_of(("schema_version",))
    if type(version) is not int or version > newest or (version < newest and version not in MIGRATIONS):
        known = ", ".join(map(str, sorted({*MIGRATIONS, newest})))
        newer = type(version) is int and version > newest
        hint = "install a newer skill and upgrade with it" if newer else f"write one of the known versions: {known}"
        message = f"schema_version is {version!r}, known are {known}"
        problem = Problem(
            code="unknown_schema_version", message=message, file=name, line=line, field="schema_version", hint=hint
        )
        raise TaskError(ExitCode.USAGE, [problem])
    if version == newest:
        return None
    for step in range(version, newest):
        text = MIGRATIONS[step](text)
    return text


def _below(root: Path, folder: str) -> list[str]:
    """Every file below a folder, relative to `root`; Python's caches aside."""
    paths = sorted((root / folder).rglob("*")) if (root / folder).is_dir() else []
    return [
        path.relative_to(root).as_posix()
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    ]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _diff(name: str, old: bytes, new: bytes) -> str:
    """Unified diff from the task's file to the new one."""
    lines = [content.decode("utf-8", "replace").splitlines(keepends=True) for content in (old, new)]
    found = difflib.unified_diff(*lines, fromfile=f"{name} (yours)", tofile=f"{name} ({SKILL_VERSION})")
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in found)


def _tell(plan: Plan) -> None:
    """The whole plan on stderr: a line for each file, then the diffs of those that stay."""
    for what, names in (
        ("replace", plan.replaced),
        ("add", plan.added),
        ("remove", plan.removed),
        ("migrate", plan.migrated),
        ("keep", plan.diffs),
    ):
        for name in sorted(names):
            print(f"{what:8} {name}", file=sys.stderr)
    for diff in plan.diffs.values():
        print(diff, end="", file=sys.stderr)


def _old_diffs(root: Path) -> dict[str, str]:
    """What an earlier upgrade left in .upgrade/."""
    names = _below(root / DIFFS, ".")
    return {name.removesuffix(".diff"): (root / DIFFS / name).read_text(encoding="utf-8") for name in names}


# Carrying it out.


def _carry_out(root: Path, bundle: Path, plan: Plan) -> None:
    """Prepares everything in one folder, then renames: scripts/ as a whole, the few other files, the record."""
    staging = Path(tempfile.mkdtemp(dir=root, prefix=STAGING))
    try:
        new = staging / "files"
        if (root / "scripts").is_dir():
            shutil.copytree(root / "scripts", new / "scripts", symlinks=True, ignore=shutil.ignore_patterns(*CACHES))
        for name, content in plan.written.items():
            source = bundle / "scripts" / "task" / name.removeprefix("scripts/")
            _put(new / name, content, source if name.startswith("scripts/") else root / name)
        for name in plan.removed:
            (new / name).unlink()
            with contextlib.suppress(OSError):  # not empty
                (new / name).parent.rmdir()
        record = json.dumps(plan.record, ensure_ascii=False, indent=2) + "\n"
        _put(new / RECORD, record.encode(), root / RECORD)
        for name, diff in plan.diffs.items():
            _put(staging / "diffs" / f"{name}.diff", diff.encode(), root / RECORD)
        if (root / DIFFS).exists():
            (root / DIFFS).rename(staging / "old-diffs")
        if plan.diffs:
            (staging / "diffs").rename(root / DIFFS)
        _exchange(new / "scripts", root / "scripts", staging / "old-scripts")
        for name in plan.written:
            if not name.startswith("scripts/"):
                (new / name).replace(root / name)
        (new / RECORD).replace(root / RECORD)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put(path: Path, content: bytes, like: Path) -> None:
    """Writes a file to disk with the permissions of another one. A link is replaced, not followed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    if like.exists():
        shutil.copymode(like, path)


def _exchange(new: Path, present: Path, aside: Path) -> None:
    """Puts `new` in the place of `present`: both names change hands in one step where the system can do that."""
    if not present.exists():
        new.rename(present)
    elif not _swapped(new, present):
        present.rename(aside)  # a kill right here leaves no scripts: _recover puts them back
        new.rename(present)


def _swapped(one: Path, other: Path) -> bool:
    """Exchanges two paths: renameat2(RENAME_EXCHANGE) of Linux, renamex_np(RENAME_SWAP) of macOS. False where the
    system or the file system has neither."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    if hasattr(libc, "renameat2"):
        at_current_folder, exchange = -100, 2
        return libc.renameat2(at_current_folder, paths[0], at_current_folder, paths[1], exchange) == 0
    if hasattr(libc, "renamex_np"):
        swap = 2
        return libc.renamex_np(*paths, swap) == 0
    return False
