"""Documents that cannot lie: links, commands, YAML, trees and flags in Markdown are checked against the code."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from knowledge import claims
from knowledge.pages import Page
from tasklib import task_types
from tasklib.cli import ExitCode

BUNDLE = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    path for path in BUNDLE.rglob("*.md")
    if not {".venv", "tasks", "node_modules", ".pytest_cache"} & set(path.relative_to(BUNDLE).parts)
)  # fmt: skip
TASK_SCRIPTS = {path.name: path for path in (BUNDLE / "scripts/task").glob("*.py")}
BUNDLE_SCRIPTS = {path.name: path for path in (BUNDLE / "scripts").glob("*.py")}
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def relative(path: Path) -> str:
    return str(path.relative_to(BUNDLE))


def parser_of(path: Path):
    name = "doc_" + path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module.build_parser()


def commands() -> list[tuple[str, str]]:
    """(document, command line) for every call of one of our Python scripts in a Markdown file."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8").replace("\\\n", " ")
        pieces = [line for _, block in FENCE.findall(text) for line in block.splitlines()]
        pieces += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
        for piece in pieces:
            match = re.search(r"uv run (?:python )?(\S*scripts/\S+\.py\b.*)", piece)
            if match:
                found.append((relative(document), match.group(1)))
    return found


def test_there_are_documents_and_commands_to_check():
    assert {"README.md", "README.zh-TW.md", "CONTRIBUTING.md", "SKILL.md", "CREATE-MODE.md"} <= set(
        map(relative, DOCUMENTS)
    )
    assert len(commands()) >= 20


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_every_relative_link_leads_to_a_file(document):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (document.parent / target).exists(), target


# The pages of references/ are held to more than this, by check_references.py.
OUTSIDE = [path for path in DOCUMENTS if not relative(path).startswith("references/")]
PLACEHOLDERS = ("OWNER/finetune-llm",)  # the README says what to put there


@pytest.mark.slow
def test_every_name_flag_anchor_and_block_in_a_document_is_one_that_exists():
    counts = dict.fromkeys(claims.KINDS, 0)
    wrong = [
        f"{relative(path)}:{problem.line}: {problem.message}"
        for path in OUTSIDE
        for problem in claims.looked_up(Page(path, relative(path), path.read_text(encoding="utf-8")), counts)
        if not problem.message.startswith(PLACEHOLDERS)
    ]
    assert wrong == []
    assert counts["word"] >= 100 and counts["flag"] >= 50 and counts["key"] >= 20, counts


@pytest.mark.slow
def test_a_false_name_flag_anchor_and_block_in_a_document_are_found():
    text = (
        "# A\n\n`--no-such-flag`, `training.learning_rat`, `no_such_code`, [b](#nothing)\n```yaml\nmethdo: sft\n```\n"
    )
    page = Page(BUNDLE / "planted.md", "planted.md", text)
    found = [problem.message for problem in claims.looked_up(page, dict.fromkeys(claims.KINDS, 0))]
    planted = ("--no-such-flag", "learning_rat", "no_such_code", "#nothing", "methdo")
    assert len(found) == len(planted) and all(any(word in message for message in found) for word in planted)


# What a sentence that names an exit code speaks of, in one language or the other.
SPOKEN_OF = {
    ExitCode.OK: "達標|01_validate|錯",
    ExitCode.USAGE: "用法|設定|candidates|合法的值",
    ExitCode.DATA: "資料|data|Errors stop",
    ExitCode.PREREQUISITE: "缺|套件庫",
    ExitCode.GATE: "門檻|gate|shipped|出貨|不能給別人用",
}


def test_every_exit_code_in_a_document_means_what_is_said_of_it():
    told = [
        (relative(path), ExitCode(int(number)), line)
        for path in DOCUMENTS
        for line in path.read_text(encoding="utf-8").splitlines()
        for number in re.findall(r"(?:exit code|exit|結束碼) ?(\d+)", line)
    ]
    untrue = [
        (path, code, line) for path, code, line in told if code in SPOKEN_OF and not re.search(SPOKEN_OF[code], line)
    ]
    assert untrue == [] and len(told) >= 15


def test_the_readme_says_what_the_random_kills_gave_and_nothing_else():
    """tests/bench/remote_kills.py writes the result."""
    results = json.loads((BUNDLE / "tests/bench/results/remote_kills.json").read_text(encoding="utf-8"))
    text = " ".join((BUNDLE / "README.md").read_text(encoding="utf-8").split())
    assert results["faults"] == [] and f"in {sum(results['kills'].values())} random kills of" in text
    assert set(results["kills"]) == {"controller", "connections", "supervisor", "trainer", "power", "sshd"}


@pytest.mark.slow
def test_the_computed_tables_of_the_references_are_up_to_date():
    script = BUNDLE / "scripts" / "update_references.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("document", "command"), commands())
def test_every_command_parses_with_the_scripts_own_parser(document, command):
    words = shlex.split(command.split("  #")[0], comments=True)
    script, *flags = [word for word in words if word not in ("|", "&&")]
    path = {**TASK_SCRIPTS, **BUNDLE_SCRIPTS}.get(Path(script).name)
    assert path is not None, f"{document}: no such script {script}"
    if path.name == "update_upstream_fields.py":
        return
    if "--help" in flags or "…" in flags:
        return
    parser_of(path).parse_args(flags)


def test_every_script_is_mentioned_in_a_document():
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    scripts = [*TASK_SCRIPTS, *BUNDLE_SCRIPTS, *(p.name for p in (BUNDLE / "scripts").glob("*.sh")), "run_pipeline.sh"]
    assert len(scripts) > 10
    assert [name for name in scripts if name not in text and name != "find_uv.sh"] == []


def test_every_stage_of_the_pipeline_is_in_its_help_and_every_exit_code_in_the_documents():
    contributing = (BUNDLE / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for code in ExitCode:
        assert re.search(rf"\b{int(code)} \w", contributing), code


def test_the_skills_front_matter_is_complete_and_short_enough():
    text = (BUNDLE / "SKILL.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["name"] == "finetune-llm" and set(front) == {"name", "description", "allowed-tools"}
    assert len(front["description"]) <= 1024
    assert len(text.splitlines()) <= 200


def test_every_backticked_path_of_the_contract_page_exists():
    text = FENCE.sub("", (BUNDLE / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    paths = {p for p in re.findall(r"`([\w./-]+/[\w./-]*|[\w-]+\.(?:py|md|sh|toml))`", text)}
    ours = [path for part in ("scripts", "templates", "tests", ".ci") for path in (BUNDLE / part).rglob("*")]
    known = {path.name for path in ours}  # not the installed packages, which have a file of nearly every name
    in_a_task = re.compile(r"^(tasks|models|benchmarks|data|configs|adapter|model|checkpoints)/")
    missing = [p for p in paths if not in_a_task.match(p) and not (BUNDLE / p).exists() and Path(p).name not in known]
    missing = [p for p in missing if not any((BUNDLE / "scripts/task" / f / p).exists() for f in ("", "tasklib"))]
    assert len(paths) > 10 and missing == []


def test_no_document_promises_a_part_that_does_not_exist():
    """Files of later parts must not be linked or called as if they were here."""
    planned = ["export_model.py", "remote.py", "diagnose.py", "new_experiment.py", "compare_runs.py"]
    absent = [name for name in planned if not (BUNDLE / "scripts/task" / name).exists()]
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert [name for name in absent if name in text] == [], relative(document)


@pytest.mark.parametrize("name", ["README.md", "README.zh-TW.md"])
def test_the_readmes_list_every_task_type_with_its_primary_metric(name):
    text = (BUNDLE / name).read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| `(\w+)` \|$", text, re.MULTILINE)
    assert dict(rows) == {task_type: task_types.load(task_type).PRIMARY_METRIC for task_type in task_types.names()}


def test_the_readmes_show_what_was_measured_and_nothing_else():
    """tests/bench/readme.py measures, writes the result and fills both pages."""
    spec = importlib.util.spec_from_file_location("bench_readme", BUNDLE / "tests/bench/readme.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    results = json.loads(bench.RESULT.read_text(encoding="utf-8"))
    installers = json.loads(bench.RESULT.with_name("installers.json").read_text(encoding="utf-8"))["versions"]
    for name in bench.READMES:
        text = (BUNDLE / name).read_text(encoding="utf-8")
        assert bench.table(results["quickstart"]) in text and bench.fill(text, results) == text
        ours = set(re.findall(r"<!-- (\w+) -->", text)) - set(installers)
        assert ours == {"disk", "machine", "download", "quickstart", "tests", "elsewhere"}
        assert "-->?<!--" not in text
    verdicts = results["quickstart"]["verdicts"]
    assert verdicts["majority"] == verdicts["zero_shot"] == "better"  # as both pages say
    assert verdicts["tfidf_logreg"] == "worse"
    assert results["quickstart_elsewhere"]["machine"] != results["quickstart"]["machine"]


def test_the_readme_says_what_the_planted_faults_gave_and_nothing_else():
    """tests/bench/planted_faults.py judge --keep writes the result."""
    results = json.loads((BUNDLE / "tests/bench/results/planted_faults.json").read_text(encoding="utf-8"))
    found, fresh = results["judged"], results["fresh"]
    cases = found["cases"].values()
    n_right = sum(case["right"] for case in cases if case["expected"])
    n_silent = sum(not case["named_first"] for case in cases if not case["expected"])
    assert (n_right, n_silent) == (found["n_named_first"], found["n_without_alarm"])
    text = " ".join((BUNDLE / "README.md").read_text(encoding="utf-8").split())
    assert f"was named first in {n_right} of {found['n_faults']}, and {n_silent} of {found['n_healthy']}" in text
    silent = sum(not case["named_first"] for case in fresh["cases"].values())
    assert f"{silent} of {len(fresh['cases'])} further healthy runs were silent" in text


def test_the_readme_says_how_near_the_memory_estimates_were_and_they_were_within_15_percent():
    """tests/bench/memory_estimates.py --keep writes the result."""
    results = json.loads((BUNDLE / "tests/bench/results/memory_estimates.json").read_text(encoding="utf-8"))
    ratios = [case["estimated_bytes"] / case["peak_memory_bytes"] for case in results["cases"].values()]
    text = " ".join((BUNDLE / "README.md").read_text(encoding="utf-8").split())
    said = f"Of {len(ratios)} configurations trained on CPU the estimate was {min(ratios):.2f} to {max(ratios):.2f} of"
    assert said in text and results["device"].startswith("CPU")
    assert len(ratios) >= 10 and min(ratios) >= 0.85 and max(ratios) <= 1.15


def test_the_contract_page_names_every_room_of_tasklib_and_what_stands_outside():
    text = (BUNDLE / "CONTRIBUTING.md").read_text(encoding="utf-8")
    library = BUNDLE / "scripts/task/tasklib"
    outside = [path.stem for path in library.glob("*.py") if path.stem != "__init__"]
    rooms = [path.parent.name for path in library.glob("*/__init__.py")]
    assert len(outside) > 8 and len(rooms) > 6
    assert [name for name in outside if f"`{name}`" not in text] == []
    assert [name for name in rooms if f"| `{name}/` |" not in text] == []
