"""The whole pipeline in a generated task: from another folder, without the bundle, twice, dry, and broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from trainable_task import FULL, LEARNS, Task, environment

pytestmark = pytest.mark.slow

BUNDLE = Path(__file__).resolve().parent.parent


def pipeline(task: Task, *flags: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(task.folder / "scripts/run_pipeline.sh"), *flags],
        capture_output=True, text=True, cwd="/", timeout=900, env=environment(PYTHON=sys.executable, **env),
    )  # fmt: skip


def create(tmp_path: Path, model: Path, bundle: Path = BUNDLE) -> Task:
    """A task made by create_task.py from 120 easy rows, on the tiny model, in a folder with a space and Chinese."""
    rows = ["標題,情感"]
    words = {"positive": "獲利成長", "negative": "虧損擴大", "neutral": "召開股東會"}
    rows += [f"第{n}家公司{words[label]},{label}" for n in range(40) for label in words]
    data = tmp_path / "新聞.csv"
    data.write_text("\n".join(rows) + "\n", encoding="utf-8")
    answers = {
        "name": "news",
        "description": "判斷新聞",
        "task": {"labels": {"positive": "正面", "negative": "負面", "neutral": "中性"}},
        "prompt": {"instruction": "判斷。"},
        "data": {"files": {"all": [str(data)]}, "fields": {"text": "標題", "label": "情感"}},
        "evaluation": {"must_beat": ["majority", "zero_shot"]},
        "baseline": {
            "base_model": {"id": str(model), "dtype": "float32"},
            "training": LEARNS,
        },
    }
    (tmp_path / "answers.yaml").write_text(yaml.safe_dump(answers, allow_unicode=True), encoding="utf-8")
    tasks = tmp_path / "我的 任務"
    subprocess.run(
        [sys.executable, str(bundle / "scripts/create_task.py"), "--answers", str(tmp_path / "answers.yaml"),
         "--tasks-dir", str(tasks)],
        check=True, env=environment(),
    )  # fmt: skip
    task = Task(tasks / "news")
    task.write_config("baseline", adapter=FULL)  # the answers could not take fields away from adapter
    return task


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory) -> tuple[Task, subprocess.CompletedProcess]:
    """The pipeline run to its end, after the bundle that made the task has been removed."""
    tmp_path = tmp_path_factory.mktemp("pipeline")
    bundle = tmp_path / "bundle"
    for part in ("scripts", "templates"):
        shutil.copytree(BUNDLE / part, bundle / part, ignore=shutil.ignore_patterns("__pycache__"))
    task = create(tmp_path, tiny_model, bundle)
    shutil.rmtree(bundle)
    return task, pipeline(task)


def test_a_generated_task_runs_from_csv_to_card_without_the_bundle(finished):
    task, process = finished
    assert process.returncode == 0, process.stdout + process.stderr[-3000:]
    for made in (
        "docs/data_report.md", "data/processed/manifest.json", "models/baseline/run.json",
        "benchmarks/baseline/validation/report.html", "benchmarks/baseline/test/report.html",
        "benchmarks/test_looks.jsonl", "hf_cards/model_card.md",
    ):  # fmt: skip
        assert (task.folder / made).is_file(), made


def test_the_card_carries_the_measured_numbers_of_the_test_split(finished):
    task, _ = finished
    value = task.json("benchmarks/baseline/test/metrics.json")["primary"]["value"]
    metadata = next(yaml.safe_load_all((task.folder / "hf_cards/model_card.md").read_text(encoding="utf-8")))
    metrics = metadata["model-index"][0]["results"][0]["metrics"]
    assert any(metric["value"] == pytest.approx(value, abs=1e-4) for metric in metrics)


def test_a_second_run_skips_what_is_done_and_looks_at_test_once(finished):
    task, _ = finished
    again = pipeline(task)
    assert again.returncode == 0
    for stage in ("convert", "train", "evaluate"):
        assert f"[skipped] {stage}" in again.stdout
    assert len((task.folder / "benchmarks/test_looks.jsonl").read_text().splitlines()) == 1


def test_no_file_of_the_task_names_the_folder_it_lies_in_except_its_checkpoints(finished):
    task, _ = finished
    named = [
        path.relative_to(task.folder) for path in task.folder.rglob("*")
        if path.is_file() and "checkpoints" not in path.parts and str(task.folder).encode() in path.read_bytes()
    ]  # fmt: skip
    assert named == []


def listed(tasks: Path) -> dict:
    process = subprocess.run(
        [sys.executable, str(BUNDLE / "scripts/list_tasks.py"), "--tasks-dir", str(tasks), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(process.stdout)["outputs"]["news"]


def test_list_tasks_shows_the_best_run_and_the_next_step(finished, tmp_path):
    task, _ = finished
    found = listed(task.folder.parent)
    assert found["best"]["run"] == "baseline" and found["runs"]["baseline"]["status"] == "finished"
    assert found["next"].endswith("05_upload_hf.py --config configs/baseline.yaml --dry-run")
    copy = shutil.copytree(task.folder, tmp_path / "news", ignore=shutil.ignore_patterns("adapter", "model", ".venv"))
    scores = copy / "benchmarks/baseline/validation/metrics.json"
    written = json.loads(scores.read_text(encoding="utf-8"))
    written["gate"] = {"passed": False, "target": 0.99, "reasons": ["short of the target"]}
    scores.write_text(json.dumps(written), encoding="utf-8")
    assert listed(tmp_path)["next"].endswith("scripts/diagnose.py --config configs/baseline.yaml")


def test_a_dry_run_goes_through_every_stage_and_keeps_nothing(tiny_model, tmp_path):
    task = create(tmp_path, tiny_model)
    before = sorted(str(p) for p in task.folder.rglob("*"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = pipeline(task, "--dry-run", TMPDIR=str(scratch))
    assert process.returncode == 0, process.stdout + process.stderr[-3000:]
    assert "dry run done" in process.stdout
    made = {p for p in map(str, task.folder.rglob("*")) if "__pycache__" not in p}
    assert sorted(made) == before
    assert list(scratch.iterdir()) == []


def test_the_pipeline_stops_at_the_first_failure_with_stage_code_and_next_command(tiny_model, tmp_path):
    task = create(tmp_path, tiny_model)
    raw = task.folder / "data/raw/新聞.csv"
    raw.write_text(raw.read_text(encoding="utf-8") + "沒有標籤的列,\n", encoding="utf-8")
    process = pipeline(task)
    assert process.returncode == 3
    assert "stopped at validate (exit 3)" in process.stderr
    assert "--from validate" in process.stderr
    assert not (task.folder / "data/processed").exists()


def test_from_and_until_choose_stages_and_unknown_ones_are_refused(tiny_model, tmp_path):
    task = create(tmp_path, tiny_model)
    process = pipeline(task, "--from", "convert", "--until", "convert")
    assert process.returncode == 0 and "validate" not in process.stdout
    assert (task.folder / "data/processed/manifest.json").is_file()
    assert pipeline(task, "--from", "nonsense").returncode == 2
    assert pipeline(task, "--nonsense").returncode == 2


def test_a_missed_gate_stops_the_pipeline_with_exit_5_before_test_is_looked_at(tiny_model, tmp_path):
    task = create(tmp_path, tiny_model)
    task.edit_definition(evaluation={"target": 1.0, "must_beat": ["tfidf_logreg"]})
    task.write_config("weak", training={"max_steps": 1})
    process = pipeline(task, "--config", "configs/weak.yaml")
    assert process.returncode == 5 and "stopped at evaluate (exit 5)" in process.stderr
    assert not (task.folder / "benchmarks/test_looks.jsonl").exists()


@pytest.mark.uv
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not on PATH: run scripts/run_tests.sh")
def test_create_task_and_a_task_run_through_uv_alone(tmp_path):
    """The PEP 723 header and the generated pyproject.toml are enough: no interpreter of ours is involved."""
    data = tmp_path / "rows.csv"
    data.write_text("t,l\n" + "".join(f"text number {n},{'ab'[n % 2]}\n" for n in range(40)), encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    create = ["uv", "run", "--quiet", str(BUNDLE / "scripts/create_task.py"), "--name", "via-uv", "--data", str(data),
              "--text-field", "t", "--label-field", "l", "--base-model", "builtin:smollm2-135m"]  # fmt: skip
    subprocess.run(create, check=True, cwd=tmp_path, env=env, timeout=600)
    process = subprocess.run(
        ["bash", "tasks/via-uv/scripts/run_pipeline.sh", "--until", "convert"],
        cwd=tmp_path, env={k: v for k, v in env.items() if k != "PYTHON"}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    assert (tmp_path / "tasks/via-uv/uv.lock").is_file()
    assert "[ok] convert" in process.stdout
