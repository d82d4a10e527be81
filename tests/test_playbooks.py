"""The playbooks an agent reads: one shape, short before the first command, every condition of completion once."""

from __future__ import annotations

import re

import pytest
import yaml

from conftest import BUNDLE
from tasklib.exit_codes import ExitCode

PHASES = sorted((BUNDLE / "phases").glob("[0-9]-*.md"))
SHAPE = ["目標", "開始前", "執行", "產出", "完成條件", "失敗時"]
INDEXES = ["architectures", "models", "methods", "tasks", "datasets", "troubleshooting"]


def conditions(text: str) -> list[str]:
    section = re.search(r"## 完成條件\n\n(.*?)\n\n## ", text, re.DOTALL)
    return re.findall(r"^- (.+)$", section[1], re.MULTILINE)


@pytest.mark.parametrize("page", PHASES, ids=lambda path: path.name)
def test_every_phase_has_the_same_shape(page):
    assert re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE) == SHAPE


def test_there_are_six_phases_and_the_index_links_each_with_when_to_read_it():
    index = (BUNDLE / "phases" / "INDEX.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| \[[^]]+\]\(([^)]+)\) \| (.+) \|$", index, re.MULTILINE))
    assert len(PHASES) == 6 and list(rows) == [path.name for path in PHASES] and all(rows.values())


def test_the_checklist_has_each_condition_of_completion_exactly_once():
    wanted = [line for page in PHASES for line in conditions(page.read_text(encoding="utf-8"))]
    ticked = re.findall(r"^- \[ \] (.+)$", (BUNDLE / "CHECKLIST.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(wanted) >= 12 and ticked == wanted


def test_the_description_triggers_in_both_languages_and_is_short_enough():
    front = yaml.safe_load((BUNDLE / "SKILL.md").read_text(encoding="utf-8").split("---")[1])
    description = front["description"]
    assert len(description) <= 1024 and all(
        word in description for word in ("訓練模型", "微調", "fine-tune", "F1", "GGUF")
    )


def n_tokens(text: str) -> int:
    """At most: a Chinese character is about one token, four other characters are about one."""
    n_cjk = len(re.findall(r"[\u3000-\u9fff\uff00-\uffef]", text))
    return n_cjk + (len(text) - n_cjk) // 3


@pytest.mark.parametrize("mode", ["CREATE-MODE.md", "ITERATE-MODE.md"])
def test_what_is_read_before_the_first_command_is_short(mode):
    """SKILL.md names the first command itself; a mode page and the first phase come after it."""
    assert n_tokens((BUNDLE / "SKILL.md").read_text(encoding="utf-8")) < 3000
    assert n_tokens((BUNDLE / mode).read_text(encoding="utf-8")) < 2000


def test_the_skill_keeps_its_sections_and_links_the_six_indexes_with_when_to_read_them():
    text = (BUNDLE / "SKILL.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    promised = ["快速開始", "模式選擇流程", "專案產出結構", "知識庫", "工作流程總覽", "環境需求", "相關文件"]
    assert set(promised) <= set(sections) and len(text.splitlines()) < 200
    for name in INDEXES:
        assert re.search(rf"\| \[references/{name}/INDEX\.md\]\(references/{name}/INDEX\.md\) \| .+ \|", text), name


def test_the_interview_has_at_most_five_questions_each_with_a_default():
    text = (BUNDLE / "phases" / "1-define.md").read_text(encoding="utf-8")
    questions = re.findall(r"^\d\. (.+)$", text, re.MULTILINE)
    assert 1 < len(questions) <= 5
    assert all("預設" in question for question in questions[1:])  # the first one asks to confirm what was found


def test_the_tree_drawn_in_the_skill_names_the_scripts_that_a_task_gets_and_no_other():
    text = (BUNDLE / "SKILL.md").read_text(encoding="utf-8")
    tree = re.search(r"^tasks/<name>/\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1]
    drawn = set(re.findall(r"[\w]+\.(?:py|sh)", tree))
    there = {path.name for path in (BUNDLE / "scripts" / "task").iterdir() if path.suffix in (".py", ".sh")}
    numbered = {name for name in there if re.match(r"\d\d_", name)}  # drawn as "first … last"
    assert {min(numbered), max(numbered)} <= drawn and len(numbered) == 5
    assert drawn | numbered == there


def test_the_skill_tells_every_exit_code():
    told = re.search(r"結束碼：(.+?)。", (BUNDLE / "SKILL.md").read_text(encoding="utf-8"))[1]
    assert [int(number) for number in re.findall(r"(?<!\d)\d+(?= )", told)] == [int(code) for code in ExitCode]
