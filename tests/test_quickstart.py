"""What a new machine meets: shell scripts that parse, uv fetched in private, the example on the real builtin model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainable_task import environment

BUNDLE = Path(__file__).resolve().parent.parent
SHELL_SCRIPTS = sorted([*BUNDLE.glob("scripts/**/*.sh"), BUNDLE / ".ci/run"])


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_parse(script):
    assert len(SHELL_SCRIPTS) >= 5
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.uv
def test_uv_is_fetched_into_a_private_environment_where_there_is_none(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python3").symlink_to(Path(sys.executable).resolve())
    path = os.pathsep.join([str(tools), "/usr/bin", "/bin"])
    assert shutil.which("uv", path=path) is None
    env = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    process = subprocess.run(
        ["bash", "-c", f'source "{BUNDLE}/scripts/find_uv.sh" && command -v uv && uv --version'],
        capture_output=True,
        text=True,
        env={**env, "PATH": path, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(str(tmp_path / "cache/finetune-llm/uv/bin/uv"))


@pytest.mark.slow
def test_the_bundled_example_goes_through_every_stage_on_the_real_builtin_model(tmp_path):
    answers = BUNDLE / "templates/examples/financial-sentiment/answers.yaml"
    create = [sys.executable, str(BUNDLE / "scripts/create_task.py"), "--answers", str(answers)]
    subprocess.run([*create, "--tasks-dir", str(tmp_path / "tasks")], check=True, env=environment())
    process = subprocess.run(
        ["bash", str(tmp_path / "tasks/demo-financial-sentiment/scripts/run_pipeline.sh"), "--dry-run"],
        capture_output=True,
        text=True,
        env=environment(PYTHON=sys.executable),
        timeout=900,
    )
    assert process.returncode == 0, process.stdout + process.stderr[-3000:]
    assert "zero_shot" in process.stdout and "dry run done" in process.stdout
