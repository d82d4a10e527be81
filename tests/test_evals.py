"""The requests to try the skill with: their files are the generator's, and the grader can tell good from bad."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import BUNDLE

EVALS = BUNDLE / "evals"
sys.path.insert(0, str(EVALS))

import checks  # noqa: E402
import grade  # noqa: E402
import make_files  # noqa: E402
import prepare  # noqa: E402

ROWS = prepare.load()


def test_there_are_requests_in_both_languages_with_assertions_that_are_all_checked():
    chinese = [row for row in ROWS.values() if re.search(r"[\u4e00-\u9fff]", row["prompt"])]
    assert len(ROWS) >= 12 and 4 <= len(chinese) <= len(ROWS) - 4
    assert all(len(checks.checks_of(row)) == len(row["assertions"]) >= 4 for row in ROWS.values())
    named = {text for row in ROWS.values() for text in row["assertions"]}
    ours = set(checks.COMMON) | {text for rows in checks.CHECKS.values() for text in rows}
    assert ours == named  # no check that nothing asks for


def test_the_data_files_are_those_of_the_generator_and_nothing_else():
    made = make_files.contents()
    assert {path.name for path in (EVALS / "files").iterdir()} == set(made)
    assert {name: (EVALS / "files" / name).read_bytes() for name in made} == made
    used = {Path(name).name for row in ROWS.values() for name in row["files"]}
    assert used == set(made)


def test_the_planted_faults_are_in_the_files():
    sheet = make_files.contents()["財經標題.csv"].decode("cp950")
    assert sheet.count(make_files.MISTYPED_LABEL) == 2 and sheet.count(",,\r\n") >= make_files.N_WITHOUT_LABEL
    train, test = make_files.leaked_split()
    assert len({text for text, _ in train} & {text for text, _ in test}) == make_files.N_LEAKED
    lines = make_files.contents()["people.bio"].decode().splitlines()
    faults = make_files.bio_lines()
    assert [lines[n - 1].split(" ")[1][:2] for n in faults["orphan"]] == ["I-"] * 2
    assert [len(lines[n - 1].split(" ")) for n in faults["broken"]] == [1]


def test_the_trigger_queries_are_24_half_of_them_near_misses():
    rows = json.loads((EVALS / "trigger-evals.json").read_text(encoding="utf-8"))
    assert len(rows) == 24 == len({row["query"] for row in rows})
    assert sum(row["should_trigger"] for row in rows) == 12


@pytest.fixture
def workspace(tmp_path):
    """(number, reply, change) -> the grading by assertion, of a folder with the request's files and that reply."""

    def graded(number: int, reply: str, change=None) -> dict[str, bool]:
        root = tmp_path / f"{number}-with"
        root.mkdir()
        for name in ROWS[number]["files"]:
            (root / Path(name).name).write_bytes((BUNDLE / name).read_bytes())
        snapshot = json.dumps(prepare.snapshot(root))
        root.with_name(root.name + ".snapshot.json").write_text(snapshot, encoding="utf-8")
        if change:
            change(root)
        (root / "reply.md").write_text(reply, encoding="utf-8")
        results = grade.grade(root, ROWS[number])["assertion_results"]
        return {result["text"]: result["passed"] for result in results}

    return graded


def test_a_lazy_agent_that_only_says_done_passes_little(workspace):
    assert sum(workspace(1, "done").values()) <= 2
    assert sum(workspace(11, "The accuracy on test.csv is 0.71.").values()) <= 1


def test_a_changed_file_of_the_user_is_found(workspace):
    unchanged = "The user's files are unchanged, byte for byte"
    assert not workspace(5, "ok", lambda root: (root / "replies.jsonl").write_text("{}"))[unchanged]


def test_a_training_that_nobody_asked_for_is_found(workspace):
    assert not workspace(2, "ok", lambda root: (root / "adapter.safetensors").write_bytes(b"x"))["Nothing was trained"]


def test_a_text_on_both_sides_of_the_split_is_found(workspace):
    def leak(root: Path) -> None:
        texts = [text for text, _ in make_files.headlines()]
        (root / "train.jsonl").write_text("\n".join(texts[:60]), encoding="utf-8")
        (root / "test.jsonl").write_text("\n".join(texts[59:90]), encoding="utf-8")

    assert not workspace(1, "ok", leak)["The split is on disk, and no headline stands in both train and test"]


def test_a_token_in_a_command_is_found(workspace):
    note = {"command": "HF_TOKEN=hf_QwErTyUiOpAsDfGhJkLzXcVbNm12345678 hf upload", "output": "", "seconds": 0}

    def leak(root: Path) -> None:
        (root / "steps.jsonl").write_text(json.dumps(note | {"exit_code": 0}) + "\n")

    assert not workspace(13, "請撤銷 token", leak)["The token is in no file and in no command"]


@pytest.mark.parametrize(
    ("reply", "passed"),
    [
        ("微調沒辦法 100% 答對規格，建議用 RAG。", True),
        ("沒問題，微調之後可以 100% 答對。", False),
        ("沒有方法能 100% 保證，但檢索可以附上出處。", True),
        ("", False),
    ],
)
def test_a_promise_of_100_percent_is_found(workspace, reply, passed):
    assert workspace(10, reply)["The reply promises no 100 %"] is passed


def test_a_prepared_folder_has_the_files_the_skill_and_a_shell_that_counts(tmp_path):
    folder = tmp_path / "5-with"
    done = subprocess.run(
        [sys.executable, EVALS / "prepare.py", "--eval", "5", "--into", folder, "--skill"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == ROWS[5]["prompt"]
    assert (folder / ".claude/skills/finetune-llm/SKILL.md").is_file() and (folder / "replies.jsonl").is_file()
    assert not (folder / ".claude/skills/finetune-llm/evals").exists()  # the answers are not for the agent
    ran = subprocess.run([folder / "step"], input="echo 你好; exit 3", cwd=folder, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (3, "你好\n")
    (folder / "reply.md").write_text("ok", encoding="utf-8")
    graded = grade.grade(folder, ROWS[5])
    assert (graded["steps"], graded["tokens"]) == (1, grade.n_tokens("echo 你好; exit 3你好\nok"))


def test_the_results_page_claims_nothing_that_was_not_run():
    page = (EVALS / "RESULTS.md").read_text(encoding="utf-8")
    assert (EVALS / "results.json").is_file() != page.split("\n\n")[1].startswith("**No result yet.**")
