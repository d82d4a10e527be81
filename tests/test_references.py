"""The knowledge base is true: what its pages claim is looked up, and a planted falsehood is found."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

from conftest import BUNDLE

sys.path.insert(0, str(BUNDLE / "scripts"))
from knowledge import claims, pages, tables, vocabulary

REFERENCES = BUNDLE / "references"
FRONT = """---
last_verified: 2026-11-23
applies_to: trl 1.16
sources: [https://arxiv.org/abs/2106.09685]
---

# 標題

"""


@pytest.fixture(scope="module")
def checked():
    return claims.faults(REFERENCES)


def test_every_claim_of_every_page_holds(checked):
    problems, _ = checked
    assert [problem.to_text() for problem in problems] == []


def test_there_is_something_of_every_kind_to_look_up(checked):
    _, counts = checked
    assert set(counts) == set(claims.KINDS) and min(counts.values()) > 0, counts


def faults(tmp_path, text: str, name: str = "methods/page.md") -> list[str]:
    """What is found wrong in one page, which its INDEX links."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text.startswith("---") else FRONT + text, encoding="utf-8")
    index = f"| 頁 | 什麼時候讀 |\n|---|---|\n| [{path.name}]({path.name}) | 總是 |\n"
    (path.parent / "INDEX.md").write_text(index, encoding="utf-8")
    return [f"{problem.code}: {problem.message}" for problem in claims.faults(tmp_path)[0]]


TRUE = [
    "`trl.SFTTrainer`、`peft.LoraConfig(r, lora_alpha)`、`SFTConfig`",
    "`trl.SFTConfig(learning_rate=2e-05)`、`trl.SFTConfig(packing=False)`",
    "`trl.experimental.orpo.ORPOTrainer`",
    "~~`transformers.TrainingArguments(warmup_ratio)`~~、~~`trl.ORPOTrainer`~~",
    "~~`trl.SFTConfig(learning_rate=5e-05)`~~",
    "`warmup_steps`、`training.learning_rate`、`adapter.target_modules`、`evaluation.must_beat`",
    "`q_proj`、`--resume`、`Qwen/Qwen3-8B`、`scripts/03_train.py`、`data/raw/train.jsonl`",
    "目前最好（2026-11）",
    "```yaml\nadapter: {type: qlora, r: 16}\n```",
    "```yaml\nevaluation:\n  must_beat: [majority, tfidf_logreg]\n```",
    "```python\nfrom trl import SFTConfig\nSFTConfig(packing=True)\n```",
    "[自己](page.md#標題)",
]


@pytest.mark.parametrize("text", TRUE)
def test_what_is_true_is_left_alone(text, tmp_path):
    assert faults(tmp_path, text) == []


FALSE = {
    "`trl.ORPOTrainer`": "trl.ORPOTrainer does not exist",
    "`trl.SFTConfig(dataset_text_column)`": "no parameter 'dataset_text_column'",
    "`trl.SFTConfig(learning_rate=5e-05)`": "has 2e-05 as its default, not 5e-05",
    "`transformers.TrainingArguments(warmup_ratio)`": "no parameter 'warmup_ratio'",
    "`AutoModelForSequenceTagging`": "exported by none",
    "~~`trl.SFTConfig(packing)`~~": "struck out, and it is so",
    "`lora_rank_size`": "no parameter, key, field",
    "`training.lerning_rate`": "unknown key",
    "`training.warmup_ratio`": "is gone",
    "`--resum`": "no script has the flag",
    "`Qwen/Qwen3-9B`": "stands in no catalog",
    "`scripts/03_training.py`": "does not exist",
    "```yaml\ntraining: {lerning_rate: 1e-4}\n```": "unknown key",
    "```yaml\nadapters: {r: 8}\n```": "no section",
    "```yaml\nadapter: {type: vera}\n```": "got 'vera'",
    "```python\nfrom trl import ORPOConfig\n```": "trl has no ORPOConfig",
    "```python\nfrom trl import SFTConfig\nSFTConfig(max_seq_length=8)\n```": "no parameter 'max_seq_length'",
    "[別頁](other.md)": "leads nowhere",
    "[自己](page.md#沒有)": "no heading #沒有",
    "這是最新的模型": "without a date",
    "字" * 2600: "at most 1500",
}


@pytest.mark.parametrize("text", FALSE)
def test_a_planted_falsehood_is_found(text, tmp_path):
    found = faults(tmp_path, text)
    assert len(found) == 1 and FALSE[text] in found[0], found


FRONTS = {
    "# 沒有": "there is none",
    FRONT.replace("trl 1.16", "trl 1.15"): "applies to trl 1.15, installed is 1.16",
    FRONT.replace("trl 1.16", "trll 1.16"): "which is not installed",
    FRONT.replace("2026-11-23", "2126-11-23"): "no day that has been",
    FRONT.replace("[https://arxiv.org/abs/2106.09685]", "[]"): "sources is empty",
    FRONT.replace("https://arxiv.org/abs/2106.09685", "'trl 1.16: trainer/sft_trainers.py'"): "no file of an installed",
    FRONT.replace("https://arxiv.org/abs/2106.09685", "somebody said so"): "is no address",
    FRONT.replace("applies_to: trl 1.16\n", ""): "legal: last_verified",
}


@pytest.mark.parametrize("front", FRONTS)
def test_a_page_without_its_sources_or_for_another_version_is_found(front, tmp_path):
    found = faults(tmp_path, "---\n---\n# 沒有\n" if front == "# 沒有" else front)
    assert len(found) == 1 and FRONTS[front] in found[0], found


def test_an_upgrade_that_changes_a_default_makes_the_page_false(tmp_path, monkeypatch):
    import dataclasses

    import trl

    @dataclasses.dataclass
    class Upgraded(trl.SFTConfig):
        learning_rate: float = 3e-5

    assert faults(tmp_path, "`trl.SFTConfig(learning_rate=2e-05)`") == []
    monkeypatch.setattr(trl, "SFTConfig", Upgraded)
    assert "has 3e-05 as its default" in faults(tmp_path, "`trl.SFTConfig(learning_rate=2e-05)`")[0]


def test_a_code_that_no_script_has_is_found_in_troubleshooting(tmp_path):
    text = "### `label_never_trained`、`no_such_code`\n\n原因。\n"
    assert faults(tmp_path, text, "troubleshooting/page.md") == ["false_claim: no_such_code is no code of the scripts"]


def test_a_page_that_no_index_links_is_found_and_a_link_must_say_when(tmp_path):
    assert faults(tmp_path, "文字") == []
    (tmp_path / "methods" / "lost.md").write_text(FRONT, encoding="utf-8")
    (tmp_path / "methods" / "INDEX.md").write_text("| 頁 | 何時 |\n|---|---|\n| [page.md](page.md) | |\n")
    found = [problem.message for problem in claims.faults(tmp_path)[0]]
    assert any("does not link lost.md" in message for message in found)
    assert any("does not say when to read it" in message for message in found)


def test_a_page_is_taken_apart_with_its_lines():
    text = FRONT + "看 `a_b` 與 ~~`c_d`~~。\n\n```yaml\nx: 1\n```\n"
    page = pages.Page(REFERENCES / "x.md", "x.md", text)
    assert [(span.text, span.line, span.is_denied) for span in page.spans()] == [("a_b", 9, False), ("c_d", 9, True)]
    assert [(block.language, block.line) for block in page.blocks()] == [("yaml", 11)]
    assert page.anchors() == {"標題"} and pages.slug("什麼是 `trl.SFTConfig`？（2026）") == "什麼是-trlsftconfig2026"


def test_every_family_of_the_catalog_has_exactly_one_page():
    from knowledge import catalogs

    for model in catalogs.load("models/catalog.yaml"):
        assert len([page for page, begins in tables.FAMILIES.items() if model.family.startswith(begins)]) == 1, model.id
    linked = (REFERENCES / "models" / "INDEX.md").read_text(encoding="utf-8")
    assert all(f"({page}.md)" in linked for page in tables.FAMILIES)


def test_every_task_type_and_every_method_has_a_page():
    from tasklib import task_types

    names = {path.stem for path in (REFERENCES / "tasks").glob("*.md")}
    assert {name.replace("_", "-") for name in task_types.names()} <= names
    assert {"sft", "lora", "qlora", "dora", "full", "dpo", "orpo", "kto-grpo"} <= {
        path.stem for path in (REFERENCES / "methods").glob("*.md")
    }


def test_the_codes_that_scripts_give_most_are_in_troubleshooting():
    text = "\n".join(path.read_text(encoding="utf-8") for path in (REFERENCES / "troubleshooting").glob("*.md"))
    named = {code for code in vocabulary.codes() if f"### `{code}`" in text or f"、`{code}`" in text}
    assert len(named) >= 150, len(named)


def run(script: str, *flags: str) -> tuple[int, dict]:
    """One of the skill's own scripts, in this process."""
    spec = importlib.util.spec_from_file_location(f"own_{script}", BUNDLE / "scripts" / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    from contextlib import redirect_stdout
    from io import StringIO

    from tasklib import cli

    with redirect_stdout(StringIO()):
        body = {"check_references": "check", "estimate_memory": "estimate", "recommend": "recommend"}[script]
        summary, code = cli._run_body(module.build_parser(), getattr(module, body), list(flags))
    return int(code), json.loads(json.dumps(summary.__dict__, default=lambda found: found.__dict__))


def test_check_references_names_file_and_line_and_exits_with_3(tmp_path):
    faults(tmp_path, "文字\n\n`training.lerning_rate`\n")
    code, summary = run("check_references", "--references", str(tmp_path), "--only", "methods")
    assert code == 3
    (error,) = summary["errors"]
    assert (error["file"], error["line"], error["code"]) == ("references/methods/page.md", 11, "false_claim")
    code, summary = run("check_references", "--references", str(tmp_path), "--only", "tasks")
    assert code == 0
