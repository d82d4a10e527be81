"""Installs this checkout the ways people install skills, with the real installers in a throwaway home.

    uv run python tests/bench/installers.py     (needs npm; writes tests/bench/results/installers.json)

Claude Code's plugin manager, `npx skills` and Gemini CLI are fetched from npm. An installation counts when the
installer lists the skill afterwards and the installed copy answers `list_tasks.py --json` from another folder.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BUNDLE = Path(__file__).resolve().parents[2]
RESULT = Path(__file__).parent / "results" / "installers.json"
PACKAGES = {"claude": "@anthropic-ai/claude-code", "skills": "skills", "gemini": "@google/gemini-cli"}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        source = room / "finetune-llm"
        subprocess.run(["git", "clone", "--quiet", BUNDLE, source], check=True)
        subprocess.run(["npm", "install", "--silent", "--prefix", room / "npm", *PACKAGES.values()], check=True)
        home, project = room / "home", room / "project"
        home.mkdir()
        project.mkdir()

        def call(tool: str, *arguments: object) -> str:
            command = [room / "npm/node_modules/.bin" / tool, *map(str, arguments)]
            environment = {**os.environ, "HOME": str(home), "DISABLE_TELEMETRY": "1"}
            done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300)
            if done.returncode:
                raise SystemExit(f"{tool} {arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}")
            return done.stdout + done.stderr

        ways = {}
        call("claude", "plugin", "validate", source, "--strict")
        call("claude", "plugin", "validate", source / ".claude-plugin/plugin.json", "--strict")
        call("claude", "plugin", "marketplace", "add", source)
        call("claude", "plugin", "install", "finetune-llm@finetune-llm")
        listed = "finetune-llm" in call("claude", "plugin", "details", "finetune-llm").split("Agents (")[0]
        plugin = next((home / ".claude/plugins/cache").rglob("SKILL.md")).parent
        ways["claude plugin install"] = listed and works(plugin, project)

        call("skills", "add", source, "-y", "--agent", "claude-code", "codex", "gemini-cli", "cursor")
        ways["skills add"] = all(
            works(project / skills / "finetune-llm", project) for skills in (".agents/skills", ".claude/skills")
        )

        call("gemini", "skills", "install", source, "--consent")
        listed = "finetune-llm" in call("gemini", "skills", "list")
        ways["gemini skills install"] = listed and works(home / ".gemini/skills/finetune-llm", project)
        versions = {
            name: json.loads((room / "npm/node_modules" / package / "package.json").read_text())["version"]
            for name, package in PACKAGES.items()
        }
    result = {"date": datetime.date.today().isoformat(), "versions": versions, "works": ways}
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(RESULT.read_text())
    return 0 if all(ways.values()) else 1


def works(skill: Path, cwd: Path) -> bool:
    """Whether the installed copy lists tasks from another folder."""
    uv = shutil.which("uv") or sys.exit("uv is not on PATH")
    command = [uv, "run", "--quiet", skill / "scripts" / "list_tasks.py", "--json"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    return done.returncode == 0 and json.loads(done.stdout)["status"] == "ok"


if __name__ == "__main__":
    raise SystemExit(main())
