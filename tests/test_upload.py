"""scripts/task/05_upload_hf.py against a Hub on loopback, with the real huggingface_hub client."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from safetensors.numpy import save_file

from hub_server import Hub, Repo

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "task"))

from tasklib import schema  # noqa: E402
from tasklib.data import conversion, dataset  # noqa: E402
from tasklib.documents import Document  # noqa: E402
from tasklib.export import contract, parity  # noqa: E402
from tasklib.model import prompts  # noqa: E402
from tasklib.paths import task_paths  # noqa: E402
from tasklib.scoring import evaluation, metrics  # noqa: E402
from tasklib.scoring.metrics import Comparison, Gate, Interval, Metrics, Primary  # noqa: E402
from tasklib.training import runs  # noqa: E402
from tasklib.writing import cards  # noqa: E402

TOKEN = "hf_SECRETsecretSECRET42"
REPO = "me/financial-sentiment"
DEFINITION = {
    "schema_version": 1,
    "name": "financial-sentiment",
    "description": "判斷財經新聞標題的情感",
    "language": "zh-TW",
    "task": {"type": "classification", "labels": {"positive": "正面", "negative": "負面", "neutral": "中性"}},
    "prompt": {"system": "你是謹慎的分析師。", "instruction": '判斷標題的情感，用 {括號} 與 "引號" 以及 ``` 也無妨。'},
    "data": {"files": {"all": ["data/raw/news.csv"]}, "fields": {"text": "標題", "label": "情感"}},
    "evaluation": {"target": 0.8},
    "hub": {"repo_id": REPO, "license": "apache-2.0"},
}
VALUES = {"test": 0.8126, "validation": 0.7777}
CONFIG = {"schema_version": 1, "base_model": {"id": "builtin:smollm2-135m"}, "adapter": {"type": "lora", "r": 4}}


@pytest.fixture(scope="module")
def finished_task(tmp_path_factory):
    return make_task(tmp_path_factory.mktemp("finished") / "task", DEFINITION, CONFIG)


@pytest.fixture
def task(finished_task, tmp_path):
    """A task of one's own: trained, evaluated on validation and test."""
    return Path(shutil.copytree(finished_task, tmp_path / "任務 folder"))


@pytest.fixture
def hub():
    with Hub(TOKEN) as server:
        yield server


def make_task(root: Path, definition: dict, config: dict, splits: tuple[str, ...] = ("validation", "test")) -> Path:
    """A task folder as 01 to 04 leave it behind, with a tiny adapter in the place of a trained one."""
    shutil.copytree(ROOT / "scripts" / "task", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    write_yaml(root / "task_definition.yaml", definition)
    write_yaml(root / "configs" / "baseline.yaml", config)
    raw = root / "data" / "raw" / "news.csv"
    raw.parent.mkdir(parents=True)
    labels = list(definition["task"]["labels"])
    lines = [f"第{n}季營收的機密標題{n},{labels[n % len(labels)]}" for n in range(60)]
    raw.write_text("\n".join(["標題,情感", *lines]), encoding="utf-8")
    paths, loaded = task_paths(root), schema.load_definition(root / "task_definition.yaml")
    conversion.convert(paths, loaded, conversion.plan(paths, loaded, dataset.scan(paths, loaded)))
    write_run(root, splits)
    return root


def write_run(root: Path, splits: tuple[str, ...]) -> None:
    """models/baseline/ and its benchmarks, made from the definition and config that lie in the task."""
    paths, definition = task_paths(root), schema.load_definition(root / "task_definition.yaml")
    config = schema.load_config(root / "configs" / "baseline.yaml")
    record = runs.RunRecord(
        status="finished", argv=["03_train.py", "--set", "secret.argument=1"], config=config.model_dump(mode="json"),
        identity=runs.identity(config, definition, paths), inputs={}, code=runs.code_hashes(paths),
        environment={"python": "3.11.9", "platform": "Linux-of-my-machine", "peft": "0.21.2"},
        hardware={"cpu_count": 2}, seed=42,
        started_at="2026-11-22T10:00:00+00:00", finished_at="2026-11-22T10:30:00+00:00",
        counts={"rows": 42, "tokens": 4321, "trained_tokens": 168, "steps": 18, "trainable_parameters": 9216},
        final={"train_loss": 0.4321, "eval_loss": 0.5432},
    )  # fmt: skip
    runs.write_record(paths.run("baseline"), record)
    full = config.adapter.type == "full"
    weights = paths.run("baseline") / ("model" if full else "adapter")
    weights.mkdir()
    tensor = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    save_file({"layer.lora_A.weight": tensor}, weights / ("model.safetensors" if full else "adapter_model.safetensors"))
    base = {"base_model_name_or_path": config.base_model.id, "r": 4}
    (weights / ("config.json" if full else "adapter_config.json")).write_text(json.dumps(base))
    (weights / "tokenizer_config.json").write_text("{}")
    (weights / "chat_template.jinja").write_text("{{ messages }}")
    (paths.run("baseline") / "checkpoints").mkdir()
    (paths.run("baseline") / "checkpoints" / "optimizer.pt").write_bytes(b"optimizer state")
    for split in splits:
        write_results(root, split)


def write_results(root: Path, split: str) -> None:
    """metrics.json of the run and of two baselines on one split."""
    paths, definition = task_paths(root), schema.load_definition(root / "task_definition.yaml")
    config = schema.load_config(root / "configs" / "baseline.yaml")
    rows = evaluation.Rows(split, conversion.load_split(paths, split), [])
    record = runs.finished_run(paths, "baseline")
    ours = made_metrics("baseline", rows, VALUES[split], definition.evaluation.decoding)
    identity = evaluation.run_identity(definition, config, rows, record)
    better = Comparison(against="majority", metric="macro_f1", delta=0.6123, ci_low=0.41, ci_high=0.8, p_value=0.001,
                        verdict="better")  # fmt: skip
    gate = Gate(passed=False, target=0.8, reasons=["worse than zero_shot"])
    ours = ours.model_copy(update={"identity": identity, "comparisons": [better], "gate": gate})
    metrics.write(paths.benchmark("baseline", split), ours)
    (paths.benchmark("baseline", split) / "predictions.jsonl").write_text('{"raw_output": "機密標題"}\n')
    majority = made_metrics("majority", rows, 0.2002, "none")
    other_rows = made_metrics("tfidf_logreg", rows, 0.6464, "none").model_copy(update={"rows_sha256": "another"})
    for baseline in (majority, other_rows):
        metrics.write(evaluation.baseline_folder(paths, baseline.run, config, split), baseline)


def made_metrics(run: str, rows: Any, value: float, decoding: str) -> Metrics:
    primary = {"value": value, "ci_low": value - 0.1, "ci_high": value + 0.1}
    accuracy = {"value": value + 0.01, "ci_low": value - 0.09, "ci_high": value + 0.11}
    per_class = {"positive": {"precision": 0.5, "recall": None, "f1": 0.6, "support": 4.0}}
    return Metrics(
        run=run, split=rows.split, decoding=decoding, n_rows=len(rows.rows), rows_sha256=rows.sha256, identity=run,
        primary=Primary(name="macro_f1", **primary), per_class=per_class,
        metrics={"macro_f1": Interval(**primary), "accuracy": Interval(**accuracy)},
    )  # fmt: skip


def write_yaml(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(value, allow_unicode=True, sort_keys=False), encoding="utf-8")


def change_definition(task: Path, section: str, **values: Any) -> None:
    definition = yaml.safe_load((task / "task_definition.yaml").read_text(encoding="utf-8"))
    definition[section] = {**definition[section], **values}
    write_yaml(task / "task_definition.yaml", definition)


def call(task: Path, hub: Hub | None, *flags: str, token: str | None = TOKEN, **environment: str):
    """Runs the script as a person would; nothing of this machine's login, cache or settings reaches it."""
    home = task.parent / "home"
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    kept = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "127.0.0.1"}
    kept |= {"HOME": str(home), "HF_HOME": str(home / "hf"), "TMPDIR": str(home / "tmp"), "HF_HUB_DISABLE_XET": "1"}
    kept |= {"HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9"} | ({"HF_TOKEN": token} if token else {})
    command = [sys.executable, "scripts/05_upload_hf.py", *flags]
    return subprocess.run(command, cwd=task, env={**kept, **environment}, capture_output=True, text=True, timeout=300)


def summary(result: Any) -> dict:
    assert "Traceback" not in result.stderr + result.stdout, result.stderr
    return json.loads(result.stdout)


def codes(problems: list[dict]) -> set[str]:
    return {problem["code"] for problem in problems}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_an_upload_arrives_whole_in_a_private_repository(task, hub):
    found = summary(call(task, hub, "--json"))
    assert (found["status"], found["errors"]) == ("ok", [])
    repo = hub.repos[REPO]
    assert repo.private and len(repo.commits) == 1
    assert set(repo.files) == {
        ".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja",
        "tokenizer_config.json", "training_run.json", "benchmarks/test/metrics.json",
        "benchmarks/validation/metrics.json",
    }  # fmt: skip
    local = task / "models" / "baseline" / "adapter" / "adapter_model.safetensors"
    assert repo.files["adapter_model.safetensors"] == local.read_bytes()
    assert repo.files["README.md"] == (task / "hf_cards" / "model_card.md").read_bytes()
    assert found["counts"] == {"files": 8}
    assert found["outputs"]["url"] == f"{hub.url}/{REPO}"
    assert found["outputs"]["commit"] == repo.head
    assert found["metrics"] == {"test macro_f1": 0.8126}


def test_no_data_prediction_command_line_or_machine_path_is_uploaded(task, hub):
    assert call(task, hub).returncode == 0
    sent = b"\n".join(hub.repos[REPO].files.values()).decode("utf-8", errors="replace")
    for secret in ("機密標題", "secret.argument", "Linux-of-my-machine", "optimizer state", str(task), "cpu_count"):
        assert secret not in sent
    run = json.loads(hub.repos[REPO].files["training_run.json"])
    assert run["counts"]["trained_tokens"] == 168
    assert run["config"]["adapter"]["r"] == 4
    assert run["environment"] == {"python": "3.11.9", "peft": "0.21.2"}
    assert run["identity_sha256"] == json.loads((task / "models/baseline/run.json").read_text())["identity"]["sha256"]


def test_the_metadata_of_the_card_parses_and_carries_the_measured_numbers(task, hub):
    assert call(task, hub).returncode == 0
    data = ModelCard(hub.repos[REPO].files["README.md"].decode()).data
    assert (data.language, data.license) == ("zh", "apache-2.0")
    assert (data.base_model, data["base_model_relation"]) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "adapter")
    assert (data.library_name, data.pipeline_tag) == ("peft", "text-generation")
    assert data.tags == ["classification", "sft", "lora", "finetune-llm", "trl"]
    assert data.metrics == ["f1", "accuracy"]
    assert {r.metric_name: r.metric_value for r in data.eval_results} == {
        "macro_f1": 0.8126,
        "accuracy": pytest.approx(0.8226),
    }
    assert {r.dataset_split for r in data.eval_results} == {"test"}


def test_the_card_shows_intervals_baselines_of_the_same_rows_and_limits(task, hub):
    assert call(task, hub, "--card-only").returncode == 0
    card = (task / "hf_cards" / "model_card.md").read_text(encoding="utf-8")
    assert "| 微調模型 | 0.813 (0.713 – 0.913) |" in card
    assert "| 多數類別 | 0.200 (0.100 – 0.300) |" in card and "+0.612 (+0.410 – +0.800) | 微調較好 |" in card
    assert "0.646" not in card, "a baseline on other rows must not be shown"
    assert "dequantized from Q4_1" in card and "基礎模型：`apache-2.0`" in card
    assert "測試集" in card and "沒有測試集的結果" not in card
    assert "品質門檻：**未通過**（主要指標的目標：0.8）。" in card
    assert "| positive | 正面 |" in card and "無定義" in card


def test_the_token_is_in_no_output_and_no_file(task, hub):
    for flags in (["--json"], [], ["--dry-run"], ["--card-only", "--json"]):
        result = call(task, hub, *flags)
        assert result.returncode == 0
        assert TOKEN not in result.stdout + result.stderr
    hub.failures["commit/main"] = 500
    change_definition(task, "hub", license="mit")
    result = call(task, hub)
    assert result.returncode == 4 and TOKEN not in result.stdout + result.stderr
    assert not [name for name, data in contents(task.parent).items() if TOKEN.encode() in data]
    assert not [r for r in hub.requests if TOKEN.encode() in r.body or TOKEN in r.path]


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_a_public_repository_is_refused_when_the_definition_says_private(task, hub, flags):
    hub.repos[REPO] = Repo(private=False)
    result = call(task, hub, "--json", *flags)
    assert result.returncode == 2
    assert codes(summary(result)["errors"]) == {"repo_public"}
    assert set(hub.repos[REPO].files) == {".gitattributes"}
    assert all(line.startswith("GET") for line in hub.calls())


def test_a_hub_that_makes_the_repository_public_gets_no_file(task, hub):
    hub.creates_public = True
    result = call(task, hub, "--json")
    assert result.returncode == 2
    assert codes(summary(result)["errors"]) == {"repo_public"}
    assert not any("preupload" in line or "commit" in line for line in hub.calls())


def test_a_public_upload_is_possible_when_the_definition_asks_for_it(task, hub):
    change_definition(task, "hub", private=False)
    assert call(task, hub).returncode == 0
    assert not hub.repos[REPO].private


def test_weights_that_came_from_elsewhere_are_not_overwritten(task, hub):
    hub.repos[REPO] = Repo(private=True, files={"model.gguf": b"of somebody else"})
    result = call(task, hub, "--json")
    assert result.returncode == 2
    assert codes(summary(result)["errors"]) == {"repo_in_use"}
    assert set(hub.repos[REPO].files) == {"model.gguf"}


def test_without_a_token_an_upload_is_exit_4_and_says_how_to_log_in(task, hub):
    result = call(task, hub, "--json", token=None)
    found = summary(result)
    assert (result.returncode, codes(found["errors"])) == (4, {"token_missing"})
    assert "hf auth login" in found["errors"][0]["hint"] and found["next"] == "uv run hf auth login"
    assert hub.calls() == [] and not (task / "hf_cards").exists()


def test_without_a_token_or_repository_a_dry_run_only_warns(task, hub):
    change_definition(task, "hub", repo_id=None)
    result = call(task, hub, "--dry-run", "--json", token=None)
    found = summary(result)
    assert (result.returncode, found["status"], found["errors"]) == (0, "ok", [])
    assert {"token_missing", "repo_id_missing"} <= codes(found["warnings"])
    assert found["next"] == "uv run hf auth login" and hub.calls() == []


def test_without_a_repository_the_next_command_names_one_of_the_task_s_name(task, hub):
    change_definition(task, "hub", repo_id=None)
    found = summary(call(task, hub, "--dry-run", "--json"))
    assert found["next"].endswith("--config configs/baseline.yaml --repo-id financial-sentiment")
    assert call(task, hub, *found["next"].split()[4:]).returncode == 0
    assert set(hub.repos) == {REPO}


def test_without_a_repository_an_upload_is_exit_2(task, hub):
    change_definition(task, "hub", repo_id=None)
    result = call(task, hub, "--json", token=None)
    assert result.returncode == 2
    assert codes(summary(result)["errors"]) == {"repo_id_missing", "token_missing"}


def test_a_name_without_an_owner_goes_to_the_token_s_own_account(task, hub):
    assert call(task, hub, "--repo-id", "short-name").returncode == 0
    assert set(hub.repos) == {"me/short-name"}


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_a_wrong_token_is_exit_4_without_a_traceback(task, hub, flags):
    result = call(task, hub, "--json", *flags, token="hf_wrong")
    found = summary(result)
    assert (result.returncode, codes(found["errors"])) == (4, {"token_rejected"})
    assert "hf_wrong" not in result.stdout + result.stderr
    assert not hub.repos


def test_a_token_that_may_only_read_is_refused_before_anything_is_made(task, hub):
    hub.role = "read"
    result = call(task, hub, "--dry-run", "--json")
    assert (result.returncode, codes(summary(result)["errors"])) == (4, {"token_read_only"})


def test_a_token_with_illegal_characters_is_not_shown_in_the_error(task, hub):
    result = call(task, hub, "--json", token="hf_bad\x01秘密")
    assert summary(result)["status"] == "error" and result.returncode == 4
    assert "hf_bad" not in result.stdout + result.stderr


@pytest.mark.parametrize("flags", [["a/b/c"], ["me/-x", "--dry-run"], ["me/two--hyphens", "--card-only"], [""]])
def test_an_illegal_repository_id_is_exit_2(task, hub, flags):
    result = call(task, hub, "--json", "--repo-id", *flags)
    assert (result.returncode, codes(summary(result)["errors"])) == (2, {"repo_id_illegal"})
    assert hub.calls() == []


@pytest.mark.parametrize(
    ("name", "flags"), [("adapter_model.bin", []), ("deep/optimizer.pt", []), ("x.PKL", ["--dry-run"])]
)
def test_pickles_are_refused(task, hub, name, flags):
    path = task / "models" / "baseline" / "adapter" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x80\x04.")
    result = call(task, hub, "--json", *flags)
    found = summary(result)
    assert (result.returncode, codes(found["errors"])) == (4, {"pickle"})
    assert found["errors"][0]["file"] == f"models/baseline/adapter/{name}"
    assert not hub.repos


def test_a_cut_safetensors_file_is_refused(task, hub):
    path = task / "models" / "baseline" / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    result = call(task, hub, "--json", "--dry-run")
    assert (result.returncode, codes(summary(result)["errors"])) == (4, {"weights_unreadable"})


def test_missing_weights_are_exit_4(task, hub):
    shutil.rmtree(task / "models" / "baseline" / "adapter")
    result = call(task, hub, "--json")
    assert (result.returncode, codes(summary(result)["errors"])) == (4, {"weights_missing"})


def test_a_file_that_is_no_part_of_the_model_is_left_out_and_named(task, hub):
    (task / "models" / "baseline" / "adapter" / "rows.jsonl").write_text("{}")
    found = summary(call(task, hub, "--json"))
    left_out = [warning["file"] for warning in found["warnings"] if warning["code"] == "file_left_out"]
    assert left_out == ["models/baseline/adapter/rows.jsonl"]
    assert "rows.jsonl" not in hub.repos[REPO].files


@pytest.mark.parametrize("flags", [[], ["--dry-run"], ["--card-only"]])
def test_an_unfinished_run_is_exit_4_and_names_the_command(task, hub, flags):
    record = json.loads((task / "models/baseline/run.json").read_text())
    (task / "models/baseline/run.json").write_text(json.dumps({**record, "status": "stopped"}))
    result = call(task, hub, "--json", *flags)
    found = summary(result)
    assert (result.returncode, codes(found["errors"])) == (4, {"run_not_finished"})
    assert "03_train.py" in found["next"]


def test_a_run_without_results_is_exit_4(task, hub):
    shutil.rmtree(task / "benchmarks" / "baseline")
    result = call(task, hub, "--json")
    found = summary(result)
    assert (result.returncode, codes(found["errors"])) == (4, {"not_evaluated"})
    assert found["next"] == "uv run python scripts/04_evaluate.py --config configs/baseline.yaml --split test"


def test_results_of_another_evaluation_are_refused(task, hub):
    change_definition(task, "evaluation", decoding="generate")
    result = call(task, hub, "--json")
    assert (result.returncode, codes(summary(result)["errors"])) == (4, {"results_out_of_date"})


def test_a_prompt_changed_after_training_is_refused(task, hub):
    change_definition(task, "prompt", instruction="另一個指示")
    result = call(task, hub, "--json")
    assert (result.returncode, codes(summary(result)["errors"])) == (2, {"identity_differs"})


def test_card_only_writes_the_card_and_asks_nobody(task, hub):
    before = contents(task)
    found = summary(call(task, hub, "--card-only", "--json", token=None))
    after = contents(task)
    assert set(after) - set(before) == {"hf_cards/model_card.md"}
    assert all(after[name] == data for name, data in before.items())
    assert found["outputs"] == {"card": "hf_cards/model_card.md"}
    assert found["next"] == "uv run python scripts/05_upload_hf.py --config configs/baseline.yaml --dry-run"
    assert hub.calls() == []


def test_a_dry_run_writes_and_sends_nothing(task, hub):
    before = contents(task)
    found = summary(call(task, hub, "--dry-run", "--json"))
    assert found["status"] == "ok" and found["counts"] == {"files": 8}
    assert found["next"] == "uv run python scripts/05_upload_hf.py --config configs/baseline.yaml"
    assert contents(task) == before and not hub.repos
    assert hub.calls() == ["GET /api/whoami-v2", f"GET /api/models/{REPO}"]
    assert not list((task.parent / "home" / "tmp").iterdir())


def test_card_only_and_dry_run_exclude_each_other(task, hub):
    assert call(task, hub, "--card-only", "--dry-run").returncode == 2


def test_json_is_exactly_one_object_also_when_it_fails(task, hub):
    for flags in ([], ["--dry-run"], ["--repo-id", "a/b/c"], ["--unknown"]):
        result = call(task, hub, "--json", *flags)
        assert isinstance(json.loads(result.stdout), dict) and result.stdout.count("\n") == 1


@pytest.mark.parametrize("where", ["repos/create", "commit/main", "whoami"])
def test_a_server_error_is_exit_4_without_a_traceback(task, hub, where):
    hub.failures[where] = 500
    result = call(task, hub, "--json")
    found = summary(result)
    assert (result.returncode, codes(found["errors"])) == (4, {"hub_failed"})
    assert len(found["errors"]) == 1
    assert all(set(repo.files) == {".gitattributes"} for repo in hub.repos.values())
    assert not list((task.parent / "home" / "tmp").iterdir()), "the staging folder stays behind"


def test_an_upload_that_failed_in_the_middle_can_be_repeated(task, hub):
    hub.failures["commit/main"] = 500
    assert call(task, hub).returncode == 4
    hub.failures.clear()
    assert call(task, hub).returncode == 0
    assert "adapter_model.safetensors" in hub.repos[REPO].files


def test_a_token_without_write_access_is_exit_4(task, hub):
    hub.failures["repos/create"] = 403
    result = call(task, hub, "--json")
    assert (result.returncode, codes(summary(result)["errors"])) == (4, {"hub_forbidden"})


def test_an_unreachable_hub_is_exit_4(task):
    result = call(task, None, "--json")
    assert (result.returncode, codes(summary(result)["errors"])) == (4, {"hub_failed"})


def test_offline_mode_is_exit_4_and_named(task, hub):
    result = call(task, hub, "--json", HF_HUB_OFFLINE="1")
    assert (result.returncode, codes(summary(result)["errors"])) == (4, {"hub_offline"})


def test_a_file_that_did_not_arrive_is_found_out(task, hub):
    hub.loses = "adapter_model.safetensors"
    result = call(task, hub, "--json")
    found = summary(result)
    assert (result.returncode, codes(found["errors"])) == (4, {"upload_incomplete"})
    assert "adapter_model.safetensors" in found["errors"][0]["message"]


def test_the_same_upload_again_makes_no_commit_and_is_skipped(task, hub):
    assert summary(call(task, hub, "--json"))["status"] == "ok"
    assert summary(call(task, hub, "--json"))["status"] == "skipped"
    assert len(hub.repos[REPO].commits) == 1


def test_numbers_of_an_earlier_run_do_not_stay_beside_new_weights(task, hub):
    assert call(task, hub).returncode == 0
    shutil.rmtree(task / "benchmarks" / "baseline" / "test")
    found = summary(call(task, hub, "--json"))
    assert "benchmarks/test/metrics.json" not in hub.repos[REPO].files
    assert {"old_file_removed", "no_test_result"} <= codes(found["warnings"])
    card = hub.repos[REPO].files["README.md"].decode()
    assert "沒有測試集的結果" in card and "0.778" in card and "0.813" not in card
    assert {r.dataset_split for r in ModelCard(card).data.eval_results} == {"validation"}


def test_the_client_s_pipelined_path_works_as_well(task, hub):
    """With hf_xet in use the client commits from another thread; a Hub without large files needs no xet server."""
    hub.large = "/none"
    first = summary(call(task, hub, "--json", HF_HUB_DISABLE_XET="0"))
    shutil.rmtree(task / "benchmarks" / "baseline" / "test")
    second = summary(call(task, hub, "--json", HF_HUB_DISABLE_XET="0"))
    third = summary(call(task, hub, "--json", HF_HUB_DISABLE_XET="0"))
    assert [found["status"] for found in (first, second, third)] == ["ok", "ok", "skipped"]
    assert len(hub.repos[REPO].commits) == 2
    assert "benchmarks/test/metrics.json" not in hub.repos[REPO].files


def test_no_license_is_guessed(task, hub):
    change_definition(task, "hub", license=None)
    found = summary(call(task, hub, "--json"))
    assert "license_missing" in codes(found["warnings"])
    assert ModelCard(hub.repos[REPO].files["README.md"].decode()).data.license is None


def test_a_local_base_model_is_named_without_its_path(tmp_path, hub):
    base = tmp_path / "private-place" / "my-base"
    base.mkdir(parents=True)
    config = {**CONFIG, "base_model": {"id": str(base)}, "training": {"deepspeed": "/srv/private/zero3.json"}}
    task = make_task(tmp_path / "task", DEFINITION, config)
    found = summary(call(task, hub, "--json"))
    assert found["status"] == "ok" and "base_model_local" in codes(found["warnings"])
    sent = b"\n".join(hub.repos[REPO].files.values()).decode("utf-8", errors="replace")
    assert "private-place" not in sent and "/srv" not in sent
    assert json.loads(hub.repos[REPO].files["adapter_config.json"])["base_model_name_or_path"] == "my-base"
    assert ModelCard(hub.repos[REPO].files["README.md"].decode()).data.base_model is None


def test_a_fully_trained_model_is_uploaded_as_a_transformers_model(tmp_path, hub):
    config = {"schema_version": 1, "base_model": {"id": "Qwen/Qwen3-0.6B"}, "adapter": {"type": "full"}}
    task = make_task(tmp_path / "task", DEFINITION, config)
    assert summary(call(task, hub, "--json"))["status"] == "ok"
    assert {"config.json", "model.safetensors"} <= set(hub.repos[REPO].files)
    data = ModelCard(hub.repos[REPO].files["README.md"].decode()).data
    assert (data.library_name, data["base_model_relation"]) == ("transformers", "finetune")


# The snippet of the card, run with stand-ins for transformers and peft.


# Exports.


def write_export(task: Path, name: str, **system: Any) -> Path:
    """models/baseline/exports/<name>/ as export_model.py leaves it, with tiny files in the place of weights."""
    paths, definition = task_paths(task), schema.load_definition(task / "task_definition.yaml")
    record, folder = runs.finished_run(paths, "baseline"), paths.exports("baseline") / name
    folder.mkdir(parents=True)
    format, _, quantization = name.partition("-")
    tensor = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
    if quantization:
        (folder / "t-baseline.gguf").write_bytes(b"GGUF" + tensor.tobytes())
    else:
        for part in "12":
            save_file({f"layer.{part}": tensor * int(part)}, folder / f"model-0000{part}-of-00002.safetensors")
        (folder / "config.json").write_text("{}")
    if format == "ollama":
        (folder / "Modelfile").write_text("FROM ./t-baseline.gguf\n")
    sealed = contract.Contract(
        task="financial-sentiment", run="baseline", identity=record.identity["sha256"], trained_at=record.finished_at,
        format=format, quantization=quantization or None, base_model="b", base_revision="main", prompt_sha256="p",
        system=definition.prompt.system, instruction="i", normalize=[], n_few_shot=0, enable_thinking=False,
        labels=definition.task_type.label_set(definition.task), max_length=512, stop=["<|im_end|>"],
        stop_token_ids=[2], decoding={"evaluated_by": "score", "max_new_tokens": 16},
        example={"messages": [], "prompt": "", "token_ids": []},
    )  # fmt: skip
    contract.seal(folder, sealed)
    value = {"value": 0.8, "ci_low": 0.7, "ci_high": 0.9}
    comparison = Comparison(against="run", metric="macro_f1", delta=-0.01, ci_low=-0.05, ci_high=0.03, p_value=0.6,
                            verdict="not_distinguishable")  # fmt: skip
    found = parity.System(**{
        "name": name, "n_rows": 12, "prompt_check": "token_ids", "n_prompts_differ": 0, "n_texts_differ": 1,
        "n_not_ended": 0, "primary": value, "comparison": comparison, "rows_per_s": 1.0, "median_latency_s": 1.0,
        **system,
    })  # fmt: skip
    whole = parity.Parity(run="baseline", identity="i", metric="macro_f1", split="validation", rows_sha256="r",
                          date="2026-11-22", hardware={}, systems=[found])  # fmt: skip
    parity.write(paths.exports("baseline"), whole)
    return folder


@pytest.mark.parametrize(
    ("name", "library", "relation", "words"),
    [
        ("merged", "transformers", "finetune", "AutoModelForCausalLM.from_pretrained(REPOSITORY"),
        ("gguf-q8_0", "gguf", "quantized", "llama-server --model t-baseline.gguf"),
        ("ollama-q8_0", "gguf", "quantized", "ollama run hf.co/"),
    ],
)
def test_an_export_is_uploaded_with_its_contract_the_right_card_and_a_tag(task, hub, name, library, relation, words):
    folder = write_export(task, name)
    report = summary(call(task, hub, "--json", "--export", name))
    assert report["status"] == "ok", report
    repo = hub.repos[REPO]
    for path in folder.iterdir():
        assert repo.files[path.name] == path.read_bytes()
    card = ModelCard(repo.files["README.md"].decode())
    assert (card.data.library_name, card.data.base_model_relation) == (library, relation)
    assert words in card.text and "PeftModel" not in card.text and "inference.json" in card.text
    assert ("gguf" in card.data.tags) == (library == "gguf")
    assert "12" in card.text and "分不出差別" in card.text
    assert repo.refs == {report["outputs"]["tag"]: repo.head} and report["outputs"]["tag"].startswith(
        f"baseline-{name}"
    )


def test_an_export_that_answers_otherwise_is_not_uploaded_and_one_that_scores_worse_says_so(task, hub):
    write_export(task, "merged", faults=["12 of 12 prompts differ from training"])
    result = call(task, hub, "--json", "--export", "merged")
    assert (result.returncode, codes(summary(result)["errors"])) == (5, {"parity"}) and not hub.repos
    shutil.rmtree(task / "models/baseline/exports")
    write_export(task, "gguf-q8_0", loss="macro_f1 is worse than the run's by 0.100")
    report = summary(call(task, hub, "--json", "--export", "gguf-q8_0"))
    assert "export_worse" in codes(report["warnings"])
    assert "顯著變差" in hub.repos[REPO].files["README.md"].decode()


def test_an_export_that_nobody_compared_is_uploaded_with_a_warning(task, hub):
    write_export(task, "merged")
    (task / "models/baseline/exports/parity.json").unlink()
    report = summary(call(task, hub, "--json", "--export", "merged"))
    assert report["status"] == "ok" and "not_verified" in codes(report["warnings"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda folder: (folder / "config.json").write_text("{ }"), "export_damaged"),
        (lambda folder: (folder / "config.json").unlink(), "export_damaged"),
        (lambda folder: (folder / contract.NAME).unlink(), "contract_missing"),
        (lambda folder: relabelled(folder), "contract_differs"),
    ],
    ids=["changed", "gone", "no contract", "labels"],
)
def test_a_damaged_export_or_one_under_another_contract_is_refused(task, hub, change, code):
    change(write_export(task, "merged"))
    result = call(task, hub, "--json", "--export", "merged")
    assert (result.returncode, codes(summary(result)["errors"])) == (4, {code}) and not hub.repos


def relabelled(folder: Path) -> None:
    found = json.loads((folder / contract.NAME).read_text())
    found["labels"] = {"positive": "負面", "negative": "正面", "neutral": "中性"}
    (folder / contract.NAME).write_text(json.dumps(found))


def test_an_upload_killed_in_the_middle_goes_on_and_sends_only_what_is_missing(task, hub):
    folder = write_export(task, "merged")
    second = hashlib.sha256((folder / "model-00002-of-00002.safetensors").read_bytes()).hexdigest()
    hub.stalls = f"PUT /lfs/{second}"
    home = task.parent / "home"
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
    environment |= {"HF_HUB_DISABLE_XET": "1", "TMPDIR": str(home / "tmp"), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "scripts/05_upload_hf.py", "--export", "merged"]
    process = subprocess.Popen(command, cwd=task, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(hub.objects) < 1 or not any(r.path.endswith(second) for r in hub.requests):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert "model-00001-of-00002.safetensors" not in hub.repos[REPO].files  # nothing half arrived
    hub.stalls, n_before = None, len(hub.requests)
    report = summary(call(task, hub, "--json", "--export", "merged"))
    sent = [r.path.removeprefix("/lfs/") for r in hub.requests[n_before:] if r.method == "PUT"]
    assert report["status"] == "ok" and sent == [second]
    assert set(hub.repos[REPO].files) >= {path.name for path in folder.iterdir()}


class StandIn:
    """Any class or object of transformers and peft: remembers what the tokenizer was asked to render."""

    device = "cpu"

    def __init__(self, seen: list):
        self.seen = seen

    def from_pretrained(self, *args: Any, **options: Any) -> StandIn:
        return self

    def apply_chat_template(self, messages: list, **options: Any) -> str:
        self.seen.append((messages, options))
        return "rendered"

    def __call__(self, *args: Any, **options: Any) -> Any:
        batch = type("Batch", (dict,), {"to": lambda self, device: self})
        return batch(input_ids=np.zeros((1, 3)))

    def eval(self) -> None:
        pass

    def generate(self, **inputs: Any) -> np.ndarray:
        return np.zeros((1, 5))

    def decode(self, tokens: Any, **options: Any) -> str:
        return " 正面 "


@pytest.mark.parametrize("adapter", ["lora", "qlora", "dora", "qdora", "full"])
@pytest.mark.parametrize("language", ["zh-TW", "en"])
@pytest.mark.parametrize("system", [None, "你是謹慎的分析師。"])
def test_the_snippet_asks_with_exactly_the_prompt_of_training(monkeypatch, capsys, adapter, language, system):
    prompt = {**DEFINITION["prompt"], "system": system}
    data = {**DEFINITION["data"], "normalize": ["nfkc"] if system else []}
    definition = schema.check_definition(
        Document("d", {**DEFINITION, "language": language, "prompt": prompt, "data": data}, {})
    )
    config = schema.check_config(Document("c", {**CONFIG, "adapter": {"type": adapter}}, {}))
    snippet = cards.usage_snippet(definition, config)
    ast.parse(snippet)
    seen: list = []
    for name in ("transformers", "peft"):
        module = types.ModuleType(name)
        module.__getattr__ = lambda attribute: StandIn(seen)
        monkeypatch.setitem(sys.modules, name, module)
    namespace: dict[str, Any] = {}
    exec(snippet, namespace)
    assert capsys.readouterr().out == "正面\n"
    record = definition.task_type.Record(text="ＡＢＣ {text} \\n", label="positive")
    assert namespace["answer"](record.text) == "正面"
    record = definition.task_type.normalized(record, definition.data.normalize, definition.task)
    assert seen[-1][0] == [*prompts.prefix_messages(definition, []), prompts.user_message(definition, record)]
    assert seen[-1][1] == {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}


@pytest.mark.parametrize("language", ["zh-TW", "en"])
def test_a_card_is_one_whole_document_in_the_language_of_the_task(finished_task, language):
    paths = task_paths(finished_task)
    definition = schema.check_definition(Document("d", {**DEFINITION, "language": language}, {}))
    results = {split: metrics.read(paths.benchmark("baseline", split)) for split in ("test", "validation")}
    card = cards.model_card(definition, runs.finished_run(paths, "baseline"), results, {})
    assert ModelCard(card).data.language == ("zh" if language == "zh-TW" else "en")
    assert "{" + "n}" not in card and "None" not in card
    own = [
        definition.description,
        definition.prompt.system,
        definition.prompt.instruction,
        *definition.task.labels.values(),
    ]
    for words in own:
        card = card.replace(words, "")
    assert any("一" <= letter <= "鿿" for letter in card) == (language == "zh-TW")


def test_the_words_of_the_card_have_the_same_keys_in_both_languages():
    from tasklib.writing.card_texts import MODEL_CARD

    def keys(value: Any) -> Any:
        return {key: keys(item) for key, item in value.items()} if isinstance(value, dict) else None

    assert keys(MODEL_CARD["zh-TW"]) == keys(MODEL_CARD["en"])


def test_help_answers_at_once(task, hub):
    result = call(task, hub, "--help")
    assert result.returncode == 0 and "--card-only" in result.stdout and "exit codes" in result.stdout
