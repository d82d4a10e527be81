"""Installing the skill: a copy keeps to the Agent Skills specification and works from where nobody may write."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from conftest import BUNDLE


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """What git tracks, as a skills folder holds it; nobody may write there."""
    skill = tmp_path_factory.mktemp("home") / "有 空格 skills" / "finetune-llm"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=BUNDLE, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (BUNDLE / name).exists():
            (skill / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(BUNDLE / name, skill / name)
    folders = [skill, *(path for path in skill.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield skill
    for folder in folders:
        folder.chmod(0o755)


def test_a_copy_conforms_to_the_agent_skills_specification(installed):
    from skills_ref import validate

    assert validate(installed) == []


def test_the_validator_would_have_found_a_skill_in_a_folder_of_another_name(installed, tmp_path):
    from skills_ref import validate

    (tmp_path / "other").mkdir()
    shutil.copy(installed / "SKILL.md", tmp_path / "other")
    assert validate(tmp_path / "other") != []


def test_an_installed_copy_creates_a_task_where_the_user_stands_and_writes_nothing_into_itself(installed, tmp_path):
    rows = "".join(f"第 {n} 季營收{'成長' if n % 2 else '衰退'} {n} 成,{'好' if n % 2 else '壞'}\n" for n in range(40))
    (tmp_path / "news.csv").write_text("標題,情感\n" + rows, encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in installed.rglob("*")}
    create = installed / "scripts" / "create_task.py"
    command = [sys.executable, create, "--name", "news", "--data", "news.csv", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and json.loads(done.stdout)["status"] == "ok", done.stdout + done.stderr
    task = tmp_path / "tasks" / "news"
    assert os.access(task / "scripts" / "03_train.py", os.R_OK)
    assert {path: path.stat().st_mtime_ns for path in installed.rglob("*")} == before
    told = [path for path in task.rglob("*") if path.is_file() and str(installed) in path.read_text("utf-8", "ignore")]
    assert told == []  # a task points at nothing of the skill


def test_a_task_can_be_changed_although_the_skill_it_came_from_cannot(installed, tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"row {n},{n % 2}\n" for n in range(30)), encoding="utf-8")
    command = [sys.executable, installed / "scripts" / "create_task.py", "--name", "a", "--data", "a.csv"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=120)
    modes = [path.stat().st_mode for path in (tmp_path / "tasks" / "a").rglob("*")]
    assert len(modes) > 20 and all(mode & 0o200 for mode in modes)


def test_plugin_and_marketplace_name_the_skill_at_the_root():
    plugin = json.loads((BUNDLE / ".claude-plugin" / "plugin.json").read_text(encoding="utf-8"))
    market = json.loads((BUNDLE / ".claude-plugin" / "marketplace.json").read_text(encoding="utf-8"))
    project = tomllib.loads((BUNDLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (plugin["name"], plugin["version"]) == ("finetune-llm", project["version"])
    assert [(BUNDLE / skill / "SKILL.md").is_file() for skill in plugin["skills"]] == [True]
    assert [(p["name"], (BUNDLE / p["source"]).resolve()) for p in market["plugins"]] == [("finetune-llm", BUNDLE)]


@pytest.mark.parametrize("name", ["README.md", "README.zh-TW.md"])
def test_the_readmes_name_the_installers_that_were_really_run(name):
    """tests/bench/installers.py runs them and writes the result."""
    result = json.loads((BUNDLE / "tests/bench/results/installers.json").read_text(encoding="utf-8"))
    text = (BUNDLE / name).read_text(encoding="utf-8")
    told = dict(re.findall(r"<!-- (skills|claude|gemini) -->([\d.]+)<!-- -->", text))
    assert told == result["versions"] and len(result["works"]) == 3 and all(result["works"].values())
    for agent in ("Claude Code", "Codex", "Gemini CLI", "Cursor"):
        assert re.search(rf"^\| {agent} \| `~/\.\w+/skills/`", text, re.MULTILINE), agent
