"""The command line that every script shares, tried from outside: real processes, exit codes, stdout and stderr."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from conftest import BUNDLE
from tasklib import cli
from tasklib.cli import ExitCode
from tasklib.summary import MAX_PROBLEMS_PER_CODE, Problem, Summary

TASK_SCRIPTS = sorted((BUNDLE / "scripts" / "task").glob("*.py"))
SCRIPTS = [*TASK_SCRIPTS, BUNDLE / "scripts" / "create_task.py", BUNDLE / "scripts" / "list_tasks.py"]
SUMMARY_KEYS = {
    "schema_version", "stage", "status", "run", "outputs", "counts", "metrics", "warnings", "errors", "candidates",
    "next",
}  # fmt: skip
PROBLEM_KEYS = {"code", "message", "file", "line", "field", "hint"}
# as a user has them: Python buffers what goes to a pipe
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
each_task_script = pytest.mark.parametrize("script", TASK_SCRIPTS, ids=lambda path: path.name)


def call(script: Path, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, encoding="utf-8", timeout=60,
        **{"env": ENVIRONMENT, "stdin": subprocess.DEVNULL, **options},
    )  # fmt: skip


def summary_of(stdout: str) -> dict:
    """The one JSON object that stdout must be, with exactly the documented keys."""
    summary = json.loads(stdout)
    assert set(summary) == SUMMARY_KEYS
    assert summary["schema_version"] == 1
    assert summary["status"] in {"ok", "skipped", "gate_failed", "error"}
    for problem in summary["warnings"] + summary["errors"]:
        assert set(problem) == PROBLEM_KEYS
    return summary


def module_of(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"script_{script.stem}", script)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_scripts_to_try():
    assert {path.name for path in SCRIPTS} >= {
        "01_validate_data.py", "02_convert_format.py", "03_train.py", "04_evaluate.py", "05_upload_hf.py",
        "predict.py", "create_task.py", "list_tasks.py",
    }  # fmt: skip


# --help.


@each_script
def test_help_shows_what_the_script_does_with_examples_and_every_exit_code(script):
    done = call(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    examples = done.stdout.split("\nexamples:\n")[1].split("\n\n")[0].splitlines()
    assert examples and all(script.name in line for line in examples)
    listed = re.findall(r"(?<!\S)(\d+) [a-z]", done.stdout.split("\nexit codes:\n")[1])
    assert [int(number) for number in listed] == [int(code) for code in ExitCode]
    assert "--json" in done.stdout


@each_script
def test_help_answers_in_under_half_a_second(script):
    took = []
    for _ in range(3):
        started = time.perf_counter()
        assert call(script, "--help").returncode == 0
        took.append(time.perf_counter() - started)
    assert min(took) < 0.5


@each_script
def test_every_example_of_the_help_is_a_command_line_that_the_script_takes(script):
    parser = module_of(script).build_parser()
    examples = [line for line in parser.epilog.split("\n\n")[0].splitlines() if script.name in line]
    assert examples
    for line in examples:
        words = shlex.split(line)
        place = next(index for index, word in enumerate(words) if word.endswith(script.name))
        assert parser.parse_args(words[place + 1 :])


def test_the_exit_codes_of_the_help_are_those_that_the_scripts_return():
    listed = re.findall(r"(\d+) ([a-z][a-z ]*?)(?:  |\n|$)", cli.EXIT_CODE_HELP)
    assert {int(number): words for number, words in listed} == {
        ExitCode.OK: "ok",
        ExitCode.BUG: "a bug in the script",
        ExitCode.USAGE: "usage or configuration",
        ExitCode.DATA: "data invalid",
        ExitCode.PREREQUISITE: "prerequisite missing",
        ExitCode.GATE: "quality gate not met",
        ExitCode.INTERRUPTED: "interrupted",
    }
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 5, 130]


# Wrong usage.


@each_script
def test_an_unknown_flag_is_refused_and_the_nearest_one_named(script):
    done = call(script, "--jsno", "--json")
    assert done.returncode == ExitCode.USAGE
    summary = summary_of(done.stdout)
    assert (summary["status"], [p["code"] for p in summary["errors"]]) == ("error", ["usage"])
    assert "--jsno (did you mean --json?)" in summary["errors"][0]["message"]
    assert "--help" in summary["errors"][0]["hint"]
    assert "Traceback" not in done.stderr


@each_script
def test_wrong_usage_is_told_as_text_where_no_json_is_asked_for(script):
    if script.name == "predict.py":
        done = call(script, "--jsno")
        assert summary_of(done.stdout)["errors"][0]["code"] == "usage"  # it always answers in JSON
    else:
        done = call(script, "--jsno")
        assert done.stdout.startswith("[error] ") and "(exit 2)" in done.stdout.splitlines()[0]
        assert "did you mean --json?" in done.stdout
    assert done.returncode == ExitCode.USAGE


@each_script
@pytest.mark.parametrize("flag", ["--js", "--jso", "--task", "--tasks", "--dry", "--conf"])
def test_flags_cannot_be_shortened(script, flag):
    parser = module_of(script).build_parser()
    assert "--json" in parser.format_help()
    with pytest.raises(cli.UsageError, match=re.escape(flag)):
        parser.parse_args([flag])


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", ""])
def test_a_limit_that_is_no_positive_number_is_refused_with_its_value(value):
    parser = cli.Parser("t", "d", [])
    cli.add_run_flags(parser)
    with pytest.raises(cli.UsageError, match=f"--limit.*whole number.*{re.escape(repr(value))}"):
        parser.parse_args([f"--limit={value}"])


# A folder that is no task.


@each_task_script
@pytest.mark.parametrize("folder", ["", "不是 任務"])
def test_a_folder_that_is_no_task_is_a_missing_prerequisite(script, folder, tmp_path):
    done = call(script, "--json", "--task-dir", str(tmp_path / folder))
    assert done.returncode == ExitCode.PREREQUISITE
    (problem,) = summary_of(done.stdout)["errors"]
    assert (problem["code"], problem["file"]) == ("no_task", str(tmp_path / folder))
    assert "create_task.py" in problem["hint"]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@each_task_script
def test_the_task_is_the_folder_above_the_script_wherever_it_is_called_from(script, tmp_path):
    scripts = shutil.copytree(
        BUNDLE / "scripts" / "task", tmp_path / "任務 folder" / "scripts", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "elsewhere").mkdir()
    done = call(scripts / script.name, "--json", cwd=tmp_path / "elsewhere")
    assert done.returncode == ExitCode.PREREQUISITE
    assert summary_of(done.stdout)["errors"][0]["file"] == str(tmp_path / "任務 folder")


def test_listing_a_folder_without_tasks_is_no_error_but_says_so(tmp_path):
    done = call(BUNDLE / "scripts" / "list_tasks.py", "--json", "--tasks-dir", str(tmp_path))
    summary = summary_of(done.stdout)
    assert (done.returncode, summary["status"], summary["counts"]["tasks"]) == (0, "ok", 0)
    assert summary["warnings"]


def test_creating_a_task_without_data_is_wrong_usage_and_leaves_nothing_behind(tmp_path):
    done = call(BUNDLE / "scripts" / "create_task.py", "--json", "--name", "a", cwd=tmp_path)
    assert done.returncode == ExitCode.USAGE
    assert summary_of(done.stdout)["errors"]
    assert list(tmp_path.iterdir()) == []


# What a body does, and what comes out.

PROGRAM = """
import argparse, os, subprocess, sys, time, warnings
sys.path.insert(0, {path!r})
from tasklib import cli


def body(args):
    from tasklib.summary import Problem, Summary, TaskError
{body}


parser = cli.Parser("stage", "what it does", ["program.py"])
parser.add_argument("--json", action="store_true")
parser.add_argument("--path")
raise SystemExit(cli.run(parser, body, None))
"""


@pytest.fixture
def program(tmp_path):
    """Makes a script whose body is the given lines."""

    def make(body: str) -> Path:
        script = tmp_path / "program.py"
        lines = "\n".join("    " + line for line in body.splitlines())
        script.write_text(PROGRAM.format(path=str(BUNDLE / "scripts" / "task"), body=lines), encoding="utf-8")
        return script

    return make


NOISE = {
    "print": "print('noise')",
    "print that is not flushed": "sys.__stdout__.write('noise\\n')",
    "stderr": "print('noise', file=sys.stderr)",
    "child process": "subprocess.run([sys.executable, '-c', 'print(\"noise\")'], check=True)",
    "shell": "os.system('echo noise')",
    "file descriptor": "os.write(1, b'noise\\n')",
    "C library": "import ctypes; ctypes.CDLL(None).printf(b'noise\\n')",
    "warning": "warnings.warn('noise')",
    "logging": "import logging; logging.basicConfig(stream=sys.stdout); logging.warning('noise')",
}


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_with_json_stdout_is_the_summary_alone_and_everything_else_goes_to_stderr(program, noise):
    script = program(f"{noise}\nreturn Summary.of('stage', outputs={{'zh': '正面'}})")
    done = call(script, "--json")
    assert done.returncode == 0
    assert summary_of(done.stdout)["outputs"] == {"zh": "正面"}
    assert "正面" in done.stdout
    assert "noise" in done.stderr


def test_with_json_a_body_that_fails_after_printing_leaves_stdout_clean_too(program):
    done = call(program("sys.__stdout__.write('noise')\nprint('noise')\nraise ValueError('x')"), "--json")
    assert summary_of(done.stdout)["status"] == "error"
    assert done.stderr.count("noise") >= 2


def test_without_json_what_a_body_prints_stays_on_stdout_before_the_summary(program):
    done = call(program("print('noise')\nreturn Summary.of('stage', counts={'rows': 3}, next='do this')"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["noise", "[ok] stage", "  rows 3", "  next: do this"]


ERROR = "raise TaskError(cli.ExitCode.{}, [Problem(code='c', message='m')], next='then this')"
OUTCOMES = [
    ("return Summary.of('stage')", ExitCode.OK, "ok", None),
    ("return Summary.of('stage', 'skipped')", ExitCode.OK, "skipped", None),
    ("return Summary.of('stage', 'gate_failed')", ExitCode.GATE, "gate_failed", None),
    *[(ERROR.format(code.name), code, "error", "c") for code in (ExitCode.USAGE, ExitCode.DATA, ExitCode.PREREQUISITE)],
    ("raise KeyboardInterrupt", ExitCode.INTERRUPTED, "error", "interrupted"),
    ("raise ValueError('what went wrong')", ExitCode.BUG, "error", "internal_error"),
    ("return None.missing", ExitCode.BUG, "error", "internal_error"),
    ("return Summary.of('stage', outputs={'x': object()})", ExitCode.BUG, "error", "internal_error"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "code", "status", "problem"), OUTCOMES)
def test_the_exit_code_says_how_it_ended_and_there_is_always_a_summary(program, body, code, status, problem):
    done = call(program(body), "--json")
    summary = summary_of(done.stdout)
    assert (done.returncode, summary["status"], summary["stage"]) == (code, status, "stage")
    assert [p["code"] for p in summary["errors"]] == ([problem] if problem else [])
    assert ("Traceback" in done.stderr) == (code == ExitCode.BUG)
    assert summary["next"] == ("then this" if problem == "c" else None)


def test_a_bug_is_told_with_its_message_in_the_summary_and_its_traceback_on_stderr(program):
    done = call(program("raise ValueError('what went wrong')"), "--json")
    (error,) = summary_of(done.stdout)["errors"]
    assert error["message"] == "ValueError: what went wrong"
    assert "bug" in error["hint"]
    assert "program.py" in done.stderr and "what went wrong" in done.stderr


def test_without_json_a_failure_is_told_as_text_with_place_and_hint(program):
    problem = "Problem(code='c', message='m', file='f.yaml', line=3, field='a.b', hint='do that')"
    done = call(program(f"raise TaskError(cli.ExitCode.DATA, [{problem}])"))
    assert done.returncode == ExitCode.DATA
    assert done.stdout.splitlines() == ["[error] stage (exit 3)", "  error c: f.yaml:3 [a.b]: m", "      -> do that"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_stops_the_body_with_its_cleanup_done_and_exit_130(program, number):
    script = program(
        "try:\n    print('ready', file=sys.stderr, flush=True)\n    time.sleep(60)\n"
        "finally:\n    print('cleaned up', file=sys.stderr)"
    )
    process = subprocess.Popen(
        [sys.executable, str(script), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )  # fmt: skip
    try:
        assert process.stderr.readline() == "ready\n"
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == ExitCode.INTERRUPTED
    (error,) = summary_of(stdout)["errors"]
    assert (error["code"], "again" in error["hint"]) == ("interrupted", True)
    assert stderr == "cleaned up\n"


def test_a_number_that_is_no_json_is_a_bug_and_never_written(program):
    done = call(program("return Summary.of('stage', metrics={'a': float('nan')})"), "--json")
    assert done.returncode == ExitCode.BUG
    assert summary_of(done.stdout)["errors"][0]["code"] == "internal_error"
    assert "NaN" not in done.stdout


BIG5_NAME = os.fsdecode("中文.csv".encode("big5"))
NAMES_FILE = "raise TaskError(cli.ExitCode.DATA, [Problem(code='c', message='m', file=args.path)])"


def test_a_file_name_that_is_no_utf8_is_told_in_json(program):
    done = call(program(NAMES_FILE), "--path", BIG5_NAME, "--json")
    assert done.returncode == ExitCode.DATA
    assert summary_of(done.stdout)["errors"][0]["file"] == BIG5_NAME


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict", "big5:strict"])
def test_what_a_terminal_cannot_show_does_not_hide_the_rest(program, encoding):
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": encoding}
    done = call(program(NAMES_FILE), "--path", f"負面 {BIG5_NAME} é", env=environment, errors="replace")
    assert (done.returncode, done.stderr) == (ExitCode.DATA, "")
    assert "[error] stage (exit 3)" in done.stdout and done.stdout.endswith(": m\n")


@each_script
def test_help_is_shown_on_a_terminal_without_chinese(script):
    done = call(script, "--help", env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii:strict"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "exit codes:" in done.stdout


# Many problems.


def numbered(code: str, n: int) -> list[Problem]:
    return [Problem(code=code, message=f"{code} {number}") for number in range(n)]


def test_at_most_20_problems_of_a_code_are_listed_and_the_total_is_counted():
    assert MAX_PROBLEMS_PER_CODE == 20
    problems = [p for pair in zip(numbered("many", 25), numbered("other", 25), strict=True) for p in pair][:45]
    summary = Summary.failed("stage", [*problems, *numbered("few", 3)])
    listed = [p.message for p in summary.errors]
    assert [m for m in listed if m.startswith("many")] == [f"many {n}" for n in range(20)]
    assert [m for m in listed if m.startswith("other")] == [f"other {n}" for n in range(20)]
    assert [m for m in listed if m.startswith("few")] == ["few 0", "few 1", "few 2"]
    assert listed[:4] == ["many 0", "other 0", "many 1", "other 1"]
    assert summary.counts == {"many": 23, "other": 22}


@pytest.mark.parametrize(("n", "counts"), [(19, {}), (20, {}), (21, {"many": 21}), (1000, {"many": 1000})])
def test_a_total_stands_only_where_something_was_cut(n, counts):
    summary = Summary.of("stage", warnings=numbered("many", n), counts={"rows": 7})
    assert len(summary.warnings) == min(n, 20)
    assert summary.counts == {"rows": 7, **counts}


def test_what_was_cut_is_counted_in_the_output_of_a_script(program):
    done = call(program("raise TaskError(3, [Problem(code='many', message=str(n)) for n in range(33)])"), "--json")
    summary = summary_of(done.stdout)
    assert (done.returncode, len(summary["errors"]), summary["counts"]) == (3, 20, {"many": 33})


# The summary as text.


def test_metrics_stand_in_columns_and_an_undefined_one_is_named_so():
    text = Summary.of(
        "evaluate", run="baseline",
        metrics={
            "plain": 0.123456, "none": None,
            "majority": {"macro_f1": 0.25, "ci_low": 0.2}, "baseline": {"macro_f1": None, "ci_low": 0.5, "note": "x"},
        },
    ).to_text()  # fmt: skip
    assert text.splitlines() == [
        "[ok] evaluate · baseline",
        "  plain: 0.1235",
        "  none: undefined",
        "            macro_f1   ci_low  note",
        "  majority  0.2500     0.2000",
        "  baseline  undefined  0.5000  x",
    ]


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "c: m"),
        ({"file": "f"}, "c: f: m"),
        ({"file": "f", "line": 3}, "c: f:3: m"),
        ({"file": "f", "line": 3, "field": "a.b"}, "c: f:3 [a.b]: m"),
        ({"field": "a.b"}, "c: [a.b]: m"),
    ],
)
def test_a_problem_is_shown_with_as_much_of_its_place_as_is_known(place, text):
    assert Problem(code="c", message="m", **place).to_text() == text
    assert Problem(code="c", message="m", hint="h", **place).to_text() == f"{text}\n      -> h"


def test_what_the_machine_refuses_is_a_missing_prerequisite_and_no_bug(program, tmp_path):
    done = call(program("open('/no/such/folder/file', 'w')"), "--json")
    error = summary_of(done.stdout)["errors"][0]
    assert done.returncode == ExitCode.PREREQUISITE and "Traceback" not in done.stderr
    assert (error["code"], error["file"]) == ("os_error", "/no/such/folder/file")
