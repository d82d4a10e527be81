"""scripts/task/05_upload_hf.py --dataset against a Hub on loopback, with the real huggingface_hub client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard

from hub_server import Hub, Repo
from task_folder import Task, jsonl, make_task, news, sha256s

TOKEN = "hf_SECRETsecretSECRET42"
REPO = "me/news"
SENT = {".gitattributes", "README.md", "manifest.json", "train.jsonl", "validation.jsonl", "test.jsonl"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A task as 01 and 02 leave it behind, without personal data."""
    task = make_task(
        tmp_path_factory.mktemp("prepared") / "task",
        {"news.jsonl": jsonl(*news(60))},
        hub={"dataset_repo_id": REPO, "dataset_license": "cc-by-4.0"},
    )
    task.ok("01_validate_data.py")
    task.ok("02_convert_format.py")
    return task


@pytest.fixture
def task(prepared, tmp_path):
    return Task(Path(shutil.copytree(prepared.folder, tmp_path / "任務 folder")))


@pytest.fixture
def hub():
    with Hub(TOKEN) as server:
        yield server


def call(task: Task, hub: Hub | None, *flags: str, token: str | None = TOKEN, **environment: str) -> tuple[int, dict]:
    """Exit code and summary of one call; nothing of this machine's login, cache or settings reaches it."""
    home = task.folder.parent / "home"
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    kept = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "127.0.0.1"}
    kept |= {"HOME": str(home), "HF_HOME": str(home / "hf"), "TMPDIR": str(home / "tmp"), "HF_HUB_DISABLE_XET": "1"}
    kept |= {"HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9"} | ({"HF_TOKEN": token} if token else {})
    command = [sys.executable, "scripts/05_upload_hf.py", "--dataset", "--json", *flags]
    environment = {**kept, **environment}
    done = subprocess.run(command, cwd=task.folder, env=environment, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr and done.stdout.count("\n") == 1, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert not list((home / "tmp").iterdir()), "a staging folder stays behind"
    return done.returncode, json.loads(done.stdout)


def codes(problems: list[dict]) -> set[str]:
    return {problem["code"] for problem in problems}


def change_definition(task: Task, section: str, **values: Any) -> None:
    path = task.folder / "task_definition.yaml"
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    definition[section] = {**definition.get(section, {}), **values}
    path.write_text(yaml.safe_dump(definition, allow_unicode=True), encoding="utf-8")


def change_report(task: Task, **values: Any) -> None:
    path = task.folder / "docs" / "data_report.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


# An upload.


def test_the_rows_the_manifest_and_the_card_arrive_in_a_private_repository(task, hub):
    code, found = call(task, hub)
    assert (code, found["status"], found["errors"], found["warnings"]) == (0, "ok", [], [])
    repo = hub.datasets[REPO]
    assert repo.private and len(repo.commits) == 1 and not hub.repos
    assert set(repo.files) == SENT
    for split in ("train", "validation", "test"):
        assert repo.files[f"{split}.jsonl"] == (task.folder / "data" / "processed" / f"{split}.jsonl").read_bytes()
    assert repo.files["README.md"] == (task.folder / "hf_cards" / "dataset_card.md").read_bytes()
    local = json.loads((task.folder / "data" / "processed" / "manifest.json").read_text(encoding="utf-8"))
    assert json.loads(repo.files["manifest.json"]) == local
    assert found["counts"] == {"files": 5}
    assert found["outputs"]["url"] == f"{hub.url}/datasets/{REPO}" and found["outputs"]["commit"] == repo.head
    assert found["outputs"]["card"] == "hf_cards/dataset_card.md"


def test_no_path_of_the_machine_is_uploaded(task, hub):
    change_definition(task, "hub", private=True)
    assert call(task, hub)[0] == 0
    sent = b"\n".join(hub.datasets[REPO].files.values()).decode()
    assert str(task.folder) not in sent and str(Path.home()) not in sent and TOKEN not in sent


def test_a_key_of_the_manifest_that_is_not_known_is_not_published(task, hub):
    path = task.folder / "data" / "processed" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "made_on": "my-machine"}), encoding="utf-8")
    assert call(task, hub)[0] == 0
    assert b"my-machine" not in b"".join(hub.datasets[REPO].files.values())


def test_the_same_data_again_makes_no_commit_and_is_skipped(task, hub):
    assert call(task, hub)[1]["status"] == "ok"
    code, found = call(task, hub)
    assert (code, found["status"]) == (0, "skipped")
    assert len(hub.datasets[REPO].commits) == 1


def test_a_split_of_an_earlier_upload_does_not_stay(task, hub):
    assert call(task, hub)[0] == 0
    change_definition(task, "data", split={"validation": 0, "test": 0.2})
    task.ok("01_validate_data.py")
    task.ok("02_convert_format.py")
    code, found = call(task, hub)
    assert (code, codes(found["warnings"])) == (0, {"old_file_removed"})
    repo = hub.datasets[REPO]
    assert set(repo.files) == SENT - {"validation.jsonl"} and len(repo.commits) == 2
    splits = DatasetCard(repo.files["README.md"].decode()).data["configs"][0]["data_files"]
    assert [entry["split"] for entry in splits] == ["train", "test"]


def test_a_file_that_was_added_by_hand_stays(task, hub):
    assert call(task, hub)[0] == 0
    hub.datasets[REPO].files["notes.md"] = b"by hand"
    change_definition(task, "hub", dataset_license="mit")
    assert call(task, hub)[0] == 0
    assert hub.datasets[REPO].files["notes.md"] == b"by hand"


def test_large_files_arrive_too(task, hub):
    hub.large = ".jsonl"
    code, found = call(task, hub)
    assert (code, found["status"]) == (0, "ok")
    local = task.folder / "data" / "processed" / "train.jsonl"
    assert hub.datasets[REPO].files["train.jsonl"] == local.read_bytes() in hub.objects.values()
    assert call(task, hub)[1]["status"] == "skipped"


def test_a_file_that_did_not_arrive_is_found_out(task, hub):
    hub.loses = "test.jsonl"
    code, found = call(task, hub)
    assert (code, codes(found["errors"])) == (4, {"upload_incomplete"})
    assert "test.jsonl" in found["errors"][0]["message"]


def test_a_model_and_a_data_set_of_one_name_do_not_meet(task, hub):
    hub.repos[REPO] = Repo(private=False, files={"model.safetensors": b"weights"})
    assert call(task, hub)[0] == 0
    assert set(hub.repos[REPO].files) == {"model.safetensors"} and set(hub.datasets[REPO].files) == SENT


@pytest.mark.parametrize("where", ["repos/create", "commit/main", "whoami"])
def test_an_upload_that_failed_can_be_repeated(task, hub, where):
    hub.failures[where] = 500
    code, found = call(task, hub)
    assert (code, codes(found["errors"])) == (4, {"hub_failed"})
    assert all(set(repo.files) == {".gitattributes"} for repo in hub.datasets.values())
    hub.failures.clear()
    assert call(task, hub)[0] == 0
    assert set(hub.datasets[REPO].files) == SENT


# Where it goes.


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_a_public_repository_is_refused_when_the_definition_says_private(task, hub, flags):
    hub.datasets[REPO] = Repo(private=False)
    code, found = call(task, hub, *flags)
    assert (code, codes(found["errors"])) == (2, {"repo_public"})
    assert set(hub.datasets[REPO].files) == {".gitattributes"}
    assert all(line.startswith("GET") for line in hub.calls())


def test_a_hub_that_makes_the_repository_public_gets_no_file(task, hub):
    hub.creates_public = True
    code, found = call(task, hub)
    assert (code, codes(found["errors"])) == (2, {"repo_public"})
    assert not any("preupload" in line or "commit" in line for line in hub.calls())


def test_a_public_upload_is_possible_when_the_definition_asks_for_it(task, hub):
    change_definition(task, "hub", private=False)
    assert call(task, hub)[0] == 0
    assert not hub.datasets[REPO].private


@pytest.mark.parametrize("name", ["data/train-00000-of-00001.parquet", "news.py", "train.jsonl"])
def test_files_that_came_from_elsewhere_are_not_mixed_with_ours(task, hub, name):
    hub.datasets[REPO] = Repo(private=True, files={".gitattributes": b"", "README.md": b"# X", name: b"of others"})
    code, found = call(task, hub)
    assert (code, codes(found["errors"])) == (2, {"repo_in_use"})
    assert name in found["errors"][0]["message"] and hub.datasets[REPO].files[name] == b"of others"


def test_an_empty_repository_made_on_the_website_is_filled(task, hub):
    hub.datasets[REPO] = Repo(private=True, files={".gitattributes": b"", "README.md": b"# X", "LICENSE": b"MIT"})
    assert call(task, hub)[0] == 0
    assert set(hub.datasets[REPO].files) == {*SENT, "LICENSE"}


def test_the_repository_can_be_named_on_the_command_line(task, hub):
    change_definition(task, "hub", dataset_repo_id=None, repo_id="me/the-model")
    assert call(task, hub, "--repo-id", "other-news")[0] == 0
    assert set(hub.datasets) == {"me/other-news"}
    assert "load_dataset('YOUR_NAME/other-news')" in hub.datasets["me/other-news"].files["README.md"].decode()


def test_the_repository_of_the_model_is_not_the_repository_of_the_data(task, hub):
    change_definition(task, "hub", dataset_repo_id=None, repo_id="me/the-model")
    code, found = call(task, hub)
    assert (code, codes(found["errors"])) == (2, {"repo_id_missing"})
    assert found["errors"][0]["field"] == "hub.dataset_repo_id" and hub.calls() == []
    code, found = call(task, hub, "--dry-run")
    assert found["next"].endswith("--dataset --repo-id tiny") and codes(found["warnings"]) == {"repo_id_missing"}


@pytest.mark.parametrize("flags", [["--repo-id", "a/b/c"], ["--repo-id", "me/-x", "--card-only"]])
def test_an_illegal_repository_id_is_exit_2(task, hub, flags):
    code, found = call(task, hub, *flags)
    assert (code, codes(found["errors"])) == (2, {"repo_id_illegal"})
    assert found["errors"][0]["field"] == "hub.dataset_repo_id" and hub.calls() == []


@pytest.mark.parametrize("flags", [["--config", "configs/baseline.yaml"], ["--limit", "3"]])
def test_flags_that_choose_a_run_do_not_go_with_a_data_set(task, hub, flags):
    code, found = call(task, hub, *flags)
    assert (code, codes(found["errors"])) == (2, {"usage"})


def test_without_a_token_an_upload_is_exit_4_and_says_how_to_log_in(task, hub):
    code, found = call(task, hub, token=None)
    assert (code, codes(found["errors"])) == (4, {"token_missing"})
    assert found["next"] == "uv run hf auth login" and hub.calls() == []


def test_an_unreachable_hub_is_exit_4(task):
    code, found = call(task, None)
    assert (code, codes(found["errors"])) == (4, {"hub_failed"})


def test_no_license_is_guessed(task, hub):
    change_definition(task, "hub", dataset_license=None, license="apache-2.0")
    code, found = call(task, hub)
    assert (code, codes(found["warnings"])) == (0, {"license_missing"})
    assert found["warnings"][0]["field"] == "hub.dataset_license"
    assert DatasetCard(hub.datasets[REPO].files["README.md"].decode()).data.license is None


# Modes.


def test_card_only_writes_the_card_and_asks_nobody(task, hub):
    before = sha256s(task.folder)
    code, found = call(task, hub, "--card-only", token=None)
    after = sha256s(task.folder)
    assert code == 0 and set(after) - set(before) == {"hf_cards/dataset_card.md"} and before.items() <= after.items()
    assert found["outputs"] == {"card": "hf_cards/dataset_card.md"} and hub.calls() == []
    assert found["next"] == "uv run python scripts/05_upload_hf.py --dataset --dry-run"


def test_a_dry_run_writes_and_sends_nothing(task, hub):
    before = sha256s(task.folder)
    code, found = call(task, hub, "--dry-run")
    assert (code, found["status"], found["counts"]) == (0, "ok", {"files": 5})
    assert found["next"] == "uv run python scripts/05_upload_hf.py --dataset"
    assert sha256s(task.folder) == before and not hub.datasets
    assert hub.calls() == ["GET /api/whoami-v2", f"GET /api/datasets/{REPO}"]


# Personal data, and what is out of date.


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_unresolved_personal_data_stop_an_upload_before_anyone_is_asked(task, hub, flags):
    change_report(task, personal_data={"phone": 2, "email": 1})
    code, found = call(task, hub, *flags)
    assert (code, codes(found["errors"])) == (3, {"personal_data_unresolved"})
    problem = found["errors"][0]
    assert problem["field"] == "hub.personal_data_reviewed" and "phone in 2 rows" in problem["message"]
    assert hub.calls() == [] and not (task.folder / "hf_cards").exists()


def test_unresolved_personal_data_are_told_together_with_what_else_is_wrong(task, hub):
    change_report(task, personal_data={"phone": 2})
    code, found = call(task, hub, "--repo-id", "a/b/c")
    assert (code, codes(found["errors"])) == (2, {"repo_id_illegal", "personal_data_unresolved"})


def test_the_card_alone_is_written_with_a_warning_and_says_so_itself(task, hub):
    change_report(task, personal_data={"phone": 2})
    code, found = call(task, hub, "--card-only")
    assert (code, codes(found["warnings"])) == (0, {"personal_data_unresolved"})
    assert "Nobody has confirmed" in (task.folder / "hf_cards" / "dataset_card.md").read_text(encoding="utf-8")


def test_personal_data_that_a_person_has_reviewed_may_go_out(task, hub):
    change_report(task, personal_data={"phone": 2})
    change_definition(task, "hub", personal_data_reviewed=True)
    assert call(task, hub)[0] == 0
    assert "The owner has looked at each" in hub.datasets[REPO].files["README.md"].decode()


def test_a_telephone_number_in_the_raw_data_stops_the_upload(tmp_path, hub):
    rows = [*news(60), {"title": "請洽承辦人 0912-345-678 或 someone@example.com", "mood": "good"}]
    task = make_task(tmp_path / "task", {"news.jsonl": jsonl(*rows)}, hub={"dataset_repo_id": REPO})
    task.ok("01_validate_data.py")
    task.ok("02_convert_format.py")
    code, found = call(task, hub)
    assert (code, codes(found["errors"])) == (3, {"personal_data_unresolved"})
    assert not hub.datasets


@pytest.mark.parametrize("flags", [[], ["--dry-run"], ["--card-only"]])
def test_a_missing_report_is_exit_4_and_names_the_command(task, hub, flags):
    (task.folder / "docs" / "data_report.json").unlink()
    code, found = call(task, hub, *flags)
    assert (code, codes(found["errors"])) == (4, {"no_data_report"})
    assert found["next"] == "uv run python scripts/01_validate_data.py" and hub.calls() == []


def test_missing_rows_are_exit_4_and_name_the_command(task, hub):
    (task.folder / "data" / "processed" / "train.jsonl").unlink()
    code, found = call(task, hub)
    assert (code, codes(found["errors"])) == (4, {"processed_changed"})
    assert found["next"] == "uv run python scripts/02_convert_format.py" and hub.calls() == []


@pytest.mark.parametrize("flags", [[], ["--dry-run"], ["--card-only"]])
def test_a_report_of_other_raw_files_is_exit_4(task, hub, flags):
    change_report(task, raw_sha256={"data/raw/news.jsonl": "0" * 64})
    code, found = call(task, hub, *flags)
    assert (code, codes(found["errors"])) == (4, {"data_report_stale"})
    assert not (task.folder / "hf_cards").exists()
