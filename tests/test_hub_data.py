"""scripts/creation/hub_data.py: which files of a repository are which split, and the download with the real client."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import BUNDLE
from creation import hub_data
from hub_server import Hub, Repo
from tasklib.summary import TaskError

TOKEN = "hf_SECRETsecretSECRET42"
SPEC = "hub:acme/news"
DRIVER = """
import dataclasses, json, sys
from pathlib import Path
from creation import hub_data
from tasklib.summary import TaskError
spec, folder, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
try:
    print(json.dumps(dataclasses.asdict(hub_data.fetch(spec, folder, **options)), default=str))
except TaskError as error:
    problems = [dataclasses.asdict(problem) for problem in error.problems]
    print(json.dumps({"exit": int(error.exit_code), "problems": problems, "report": error.report}))
"""


@pytest.fixture
def hub():
    with Hub(TOKEN) as server:
        yield server


@pytest.fixture
def fetch(tmp_path, hub):
    """Calls hub_data.fetch in a process of its own, which nothing of this machine's login or cache reaches."""

    def call(spec: str = SPEC, token: str | None = None, server: Hub | None = hub, options: Any = None, **more: str):
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        kept = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "127.0.0.1"}
        kept |= {"HOME": str(home), "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1", "TMPDIR": str(home)}
        kept |= {"PYTHONPATH": os.pathsep.join([str(BUNDLE / "scripts"), str(BUNDLE / "scripts" / "task")])}
        kept |= {"HF_ENDPOINT": server.url if server else "http://127.0.0.1:9"} | ({"HF_TOKEN": token} if token else {})
        command = [sys.executable, "-c", DRIVER, spec, str(tmp_path / "got"), json.dumps(options or {})]
        done = subprocess.run(command, env={**kept, **more}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and done.stdout.count("\n") == 1, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return {**json.loads(done.stdout), "stderr": done.stderr, "folder": tmp_path / "got"}

    return call


def publish(hub: Hub, files: dict[str, str | bytes], name: str = "acme/news", **options: Any) -> str:
    """A data set on the Hub; returns the sha of its commit."""
    repo = hub.datasets.setdefault(name, Repo(**{"private": False, **options}))
    return repo.commit({path: text.encode() if isinstance(text, str) else text for path, text in files.items()})


def card(metadata: str, body: str = "# News") -> str:
    return f"---\n{metadata.strip()}\n---\n\n{body}\n"


def names(found: dict) -> dict[str, list[str]]:
    """Split -> names of the fetched files."""
    return {split: [Path(path).name for path in paths] for split, paths in found["files"].items()}


def lying_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*"))} if folder.exists() else {}


def problem(found: dict, code: str, exit_code: int) -> dict:
    assert (found.get("exit"), [p["code"] for p in found["problems"]]) == (exit_code, [code]), found
    assert found["problems"][0]["hint"]
    assert lying_in(found["folder"]) == {}, "a refused data set leaves nothing behind"
    return found["problems"][0]


# What is fetched.


def test_files_named_after_splits_arrive_byte_for_byte_with_the_commit_they_are_of(hub, fetch):
    files = {"data/train.csv": "t,l\n甲,0\n", "data/dev.csv": "t,l\n乙,1\n", "data/test.csv": b"t,l\n\xff,1\n"}
    metadata = "license: cc-by-4.0\nlanguage:\n- zh\n- en"
    sha = publish(hub, {**files, "README.md": card(metadata), "train.py": "raise SystemExit('ran')"})
    found = fetch()
    assert names(found) == {"train": ["train.csv"], "validation": ["dev.csv"], "test": ["test.csv"]}
    assert lying_in(found["folder"]) == {
        Path(path).name: text.encode() if isinstance(text, str) else text for path, text in files.items()
    }
    assert (found["repo_id"], found["revision"], found["config"]) == ("acme/news", sha, None)
    assert (found["license"], found["card_language"]) == ("cc-by-4.0", ["zh", "en"])
    assert found["left_out"] == []


def test_the_size_and_the_commit_are_told_before_anything_is_downloaded(hub, fetch):
    sha = publish(hub, {"train.csv": "x" * 2_500_000})
    hub.failures["GET /datasets/"] = 500
    found = fetch()
    assert f"{SPEC}: commit {sha[:12]}, 1 files, 2.5 MB" in found["stderr"]
    problem(found, "hub_failed", 4)


def test_what_a_card_does_not_say_is_unknown(hub, fetch):
    publish(hub, {"all.jsonl": "{}\n"})
    found = fetch()
    assert (found["license"], found["card_language"], found["class_names"]) == (None, [], {})


def test_the_newest_commit_is_taken_and_an_older_one_by_its_hash(hub, fetch):
    old = publish(hub, {"train.csv": "old"})
    new = publish(hub, {"train.csv": "new"})
    assert old != new
    found = fetch("acme/news")
    assert f"{SPEC}: commit" in found["stderr"]
    assert (found["revision"], lying_in(found["folder"])) == (new, {"train.csv": b"new"})
    assert "/resolve/main/" not in str(hub.calls()), "a commit between two files must not mix them"
    again = fetch(f"{SPEC}@{old}")
    assert again["revision"] == old
    assert Path(again["files"]["train"][0]).read_bytes() == b"old"


def test_a_file_that_lies_in_the_folder_already_is_not_overwritten(hub, fetch, tmp_path):
    publish(hub, {"train.csv": "theirs"})
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "train.csv").write_text("mine")
    found = fetch()
    assert names(found) == {"train": ["train-2.csv"]}
    assert lying_in(found["folder"]) == {"train.csv": b"mine", "train-2.csv": b"theirs"}


def test_equal_names_in_different_folders_keep_their_folder_in_the_name(hub, fetch):
    publish(hub, {"train/pos.txt": "a", "train/neg.txt": "b", "test/pos.txt": "c", "test/only.txt": "d"})
    found = fetch()
    assert names(found) == {"train": ["neg.txt", "train-pos.txt"], "test": ["only.txt", "test-pos.txt"]}
    assert lying_in(found["folder"])["train-pos.txt"] == b"a"


def test_a_data_set_that_moved_is_found_under_its_new_name(hub, fetch):
    publish(hub, {"train.csv": "x"}, name="stanford/imdb", renamed_from="imdb")
    assert fetch("hub:imdb")["repo_id"] == "stanford/imdb"


def test_a_private_data_set_arrives_with_a_token(hub, fetch):
    publish(hub, {"train.csv": "x"}, private=True)
    assert names(fetch(token=TOKEN)) == {"train": ["train.csv"]}


def test_names_for_numeric_labels_come_from_the_card(hub, fetch):
    metadata = """
dataset_info:
- config_name: other
  features:
  - name: label
    dtype: {class_label: {names: {'0': wrong, '1': worse}}}
- config_name: default
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': no
          '1': 正面
configs:
- config_name: default
  data_files: train.csv
- config_name: other
  data_files: other.csv
"""
    publish(hub, {"README.md": card(metadata), "train.csv": "x", "other.csv": "y"})
    assert fetch()["class_names"] == {"label": ["no", "正面"]}
    assert fetch(f"{SPEC}@main:other")["class_names"] == {"label": ["wrong", "worse"]}


# The card's configs.

TWO_CONFIGS = card("""
configs:
- config_name: zh
  data_files:
  - split: train
    path: zh/*.jsonl
- config_name: en
  data_files:
  - split: train
    path:
    - en/a.jsonl
    - en/b-[0-9].jsonl
  - split: test
    path: en/held-out.jsonl
""")
TWO_CONFIGS_FILES = {"README.md": TWO_CONFIGS, "zh/x.jsonl": "1", "en/a.jsonl": "2", "en/b-1.jsonl": "3",
                     "en/b-x.jsonl": "4", "en/held-out.jsonl": "5"}  # fmt: skip


def test_two_configs_without_a_default_are_refused_with_the_candidates(hub, fetch):
    publish(hub, TWO_CONFIGS_FILES)
    found = fetch()
    refused = problem(found, "hub_config", 2)
    assert [choice["value"] for choice in found["report"]["candidates"]["data"]] == [f"{SPEC}:zh", f"{SPEC}:en"]
    assert "hub:acme/news:zh" in refused["hint"] and "zh, en" in refused["message"]


def test_a_named_config_gives_its_own_files(hub, fetch):
    publish(hub, TWO_CONFIGS_FILES)
    found = fetch(f"{SPEC}:en")
    assert found["config"] == "en"
    assert names(found) == {"train": ["a.jsonl", "b-1.jsonl"], "test": ["held-out.jsonl"]}


def test_a_config_that_does_not_exist_is_refused_with_those_that_do(hub, fetch):
    publish(hub, TWO_CONFIGS_FILES)
    found = fetch(f"{SPEC}:fr")
    assert "zh, en" in problem(found, "hub_config", 2)["message"]
    assert [choice["value"] for choice in found["report"]["candidates"]["data"]] == [f"{SPEC}:zh", f"{SPEC}:en"]


@pytest.mark.parametrize("mark", ["default: true", "drop_labels: false"])
def test_the_default_config_is_taken_by_its_name_or_its_mark(hub, fetch, mark):
    name = "main" if mark == "default: true" else "default"
    metadata = f"configs:\n- config_name: extra\n  data_files: extra.csv\n- config_name: {name}\n  {mark}\n"
    publish(hub, {"README.md": card(f"{metadata}  data_files: main.csv"), "extra.csv": "1", "main.csv": "2"})
    found = fetch()
    assert (found["config"], names(found)) == (name, {"all": ["main.csv"]})


def test_the_hub_s_own_parquet_copy_can_be_named_as_a_revision(hub, fetch):
    publish(hub, {"news.py": "import os"})
    copy = {"plain/train/0000.parquet": b"PAR1", "plain/test/0000.parquet": b"PAR2"}
    sha = hub.datasets["acme/news"].commit(copy, ref="refs/convert/parquet")
    refused = problem(fetch(), "hub_script", 2)
    assert "Python script" in refused["message"] and "no longer runs" in refused["message"]
    spec = re.search(r"hub:\S+?parquet", refused["hint"])[0]
    found = fetch(spec)
    assert (found["revision"], found["config"]) == (sha, "plain")
    assert names(found) == {"train": ["plain-train-0000.parquet"], "test": ["plain-test-0000.parquet"]}


# What is refused.


def test_a_script_of_the_data_set_s_own_name_is_refused_and_never_fetched(hub, fetch):
    publish(hub, {"news.py": "raise SystemExit('ran')", "train.csv": "x"})
    problem(fetch(), "hub_script", 2)
    assert not any("news.py" in call for call in hub.calls())


def test_a_gated_data_set_is_exit_4_with_what_to_do(hub, fetch):
    publish(hub, {"train.csv": "x"}, gated=True)
    hint = problem(fetch(token=TOKEN), "hub_gated", 4)["hint"]
    assert f"{hub.url}/datasets/acme/news" in hint and "hf auth login" not in hint
    assert "hf auth login" in problem(fetch(), "hub_gated", 4)["hint"]


def test_a_private_data_set_without_a_login_is_exit_4_and_says_to_log_in(hub, fetch):
    publish(hub, {"train.csv": "x"}, private=True)
    assert "hf auth login" in problem(fetch(), "hub_not_found", 4)["hint"]


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_data_set_that_does_not_exist_is_exit_4(fetch, token):
    assert "acme/nothing" in problem(fetch("hub:acme/nothing", token), "hub_not_found", 4)["message"]


def test_a_revision_that_does_not_exist_is_exit_4(hub, fetch):
    publish(hub, {"train.csv": "x"})
    assert "'v9'" in problem(fetch(f"{SPEC}@v9"), "hub_revision_not_found", 4)["message"]


def test_a_wrong_token_is_exit_4(hub, fetch):
    publish(hub, {"train.csv": "x"})
    problem(fetch(token="hf_wrong"), "token_rejected", 4)


def test_a_hub_that_does_not_answer_is_exit_4(fetch):
    problem(fetch(server=None), "hub_failed", 4)


@pytest.mark.parametrize("where", ["/api/datasets/acme/news$", "/tree/", "GET /datasets/.*train", "README"])
def test_an_error_of_the_hub_at_any_step_is_exit_4_and_leaves_nothing(hub, fetch, where):
    publish(hub, {"README.md": card("license: mit"), "train.csv": "x", "test.csv": "y"})
    hub.failures[where] = 501  # the client repeats some requests that fail with other numbers, for half a minute
    problem(fetch(), "hub_failed", 4)


def test_offline_mode_is_exit_4_and_named(hub, fetch):
    publish(hub, {"train.csv": "x"})
    assert "HF_HUB_OFFLINE" in problem(fetch(HF_HUB_OFFLINE="1"), "hub_offline", 4)["hint"]


@pytest.mark.parametrize("spec", ["hub:", "", "hub:a/b/c", "hub:acme/news@", "hub:acme/news:", "hub:-a/b",
                                  "hub:https://huggingface.co/datasets/a/b", "hub:acme/news@a@b"])  # fmt: skip
def test_a_spec_that_names_no_data_set_is_exit_2_and_asks_nobody(hub, fetch, spec):
    assert "hub:owner/name" in problem(fetch(spec), "hub_spec_illegal", 2)["hint"]
    assert hub.calls() == []


def test_too_much_data_is_refused_before_the_download(hub, fetch):
    publish(hub, {"train.csv": "x" * 2_000, "test.csv": "x" * 1_001})
    refused = problem(fetch(options={"max_bytes": 3000}), "hub_too_large", 2)
    assert "hf download acme/news" in refused["hint"]
    assert not any("resolve" in call for call in hub.calls())
    assert names(fetch(options={"max_bytes": 3001})) == {"train": ["train.csv"], "test": ["test.csv"]}


def test_too_many_files_are_refused_before_the_download(hub, fetch):
    publish(hub, {f"train/{number}.txt": "x" for number in range(1001)})
    assert "1001 files" in problem(fetch(), "hub_too_large", 2)["message"]
    assert not any("resolve" in call for call in hub.calls())


def test_a_card_that_cannot_be_read_is_refused_with_its_line(hub, fetch):
    publish(hub, {"README.md": card("license: mit\nconfigs: [a,\nlanguage: zh"), "train.csv": "x"})
    assert "README.md of acme/news, line" in problem(fetch(), "hub_card_unreadable", 2)["message"]


def test_a_name_that_would_leave_the_folder_is_refused(hub, fetch, tmp_path):
    publish(
        hub, {"README.md": card("configs:\n- config_name: default\n  data_files: ../train.csv"), "../train.csv": "x"}
    )
    problem(fetch(), "hub_failed", 4)
    assert not (tmp_path / "train.csv").exists()


def test_a_folder_that_cannot_be_written_is_not_blamed_on_the_hub(hub, fetch, tmp_path):
    publish(hub, {"train.csv": "x"})
    (tmp_path / "got").write_text("a file")
    with pytest.raises(AssertionError, match="FileExistsError"):
        fetch()


def test_without_the_package_the_refusal_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", None)
    with pytest.raises(TaskError) as raised:
        hub_data.parse_spec(SPEC)
    assert raised.value.exit_code == 4
    pinned = next(line for line in (BUNDLE / "pyproject.toml").read_text().splitlines() if '"huggingface_hub==' in line)
    assert pinned.strip('", ') in raised.value.problems[0].hint


# Which file is which split, without a Hub.


def chosen(*paths: str, **params: Any) -> dict[str, list[str]]:
    return hub_data.choose_files(hub_data.parse_spec(SPEC), params, paths)[0]


def refused(*paths: str, **params: Any) -> tuple[str, str]:
    with pytest.raises(TaskError) as raised:
        chosen(*paths, **params)
    assert raised.value.exit_code == 2
    return raised.value.problems[0].code, raised.value.problems[0].message


@pytest.mark.parametrize(
    ("paths", "splits"),
    [
        (["news.csv"], {"all": ["news.csv"]}),
        (["part-0.jsonl", "part-1.jsonl"], {"all": ["part-0.jsonl", "part-1.jsonl"]}),
        (["training.json", "valid.json", "evaluation.json"],
         {"train": ["training.json"], "validation": ["valid.json"], "test": ["evaluation.json"]}),
        (["news_train_1.csv", "news-val.csv"], {"train": ["news_train_1.csv"], "validation": ["news-val.csv"]}),
        (["a/train/x.csv", "a/dev/train.csv"], {"train": ["a/train/x.csv"], "validation": ["a/dev/train.csv"]}),
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002-abc.parquet", "extra/test.parquet"],
         {"train": ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002-abc.parquet"]}),
        (["train.csv", "train.json", "LICENSE.txt", "labels.txt", "notes.txt"], {"train": ["train.json"]}),
        (["news.csv", "LICENSE.txt", "requirements.txt"], {"all": ["news.csv"]}),
        (["scripts/train.py", "news.csv", "tests/test_x.py"], {"all": ["news.csv"]}),
        (["news.json", "config.json", "dataset_info.json"], {"all": ["news.json"]}),
        (["TRAIN.CSV"], {"all": ["TRAIN.CSV"]}),
        ([".cache/train.csv", "__old__/train.csv", "news.csv"], {"all": ["news.csv"]}),
    ],
)  # fmt: skip
def test_names_tell_the_splits(paths, splits):
    assert chosen(*paths) == splits


@pytest.mark.parametrize(
    ("data_files", "splits"),
    [
        ("*.csv", {"all": ["a.csv", "b.csv"]}),
        (["a.csv", "./b.csv"], {"all": ["a.csv", "b.csv"]}),
        ([{"split": "train", "path": "**/*.csv"}], {"train": ["a.csv", "b.csv", "deep/er/c.csv"]}),
        ([{"split": "train", "path": ["a.csv", "a.*"]}, {"split": "val", "path": "deep/**"}],
         {"train": ["a.csv"], "validation": ["deep/er/c.csv"]}),
    ],
)  # fmt: skip
def test_patterns_of_a_card_choose_the_files(data_files, splits):
    assert chosen("a.csv", "b.csv", "deep/er/c.csv", "deep/README.md", data_files=data_files) == splits


def test_a_config_s_folder_is_where_its_names_count():
    paths = ["zh/train.csv", "zh/test.csv", "zhtw/train.csv", "en/train.csv"]
    assert chosen(*paths, data_dir="zh") == {"train": ["zh/train.csv"], "test": ["zh/test.csv"]}
    assert chosen(*paths, data_dir="./zh/", data_files="te*.csv") == {"all": ["zh/test.csv"]}


@pytest.mark.parametrize("name", ["train.zip", "train.csv.gz", "train.arrow", "train/1.jpg", "train.pkl", "train.PNG"])
def test_formats_that_are_not_read_are_refused_by_name(name):
    code, message = refused(name)
    assert code == "hub_format" and name in message
    code, message = refused(name, "train-2.csv" if "/" not in name else "train/2.csv")
    assert code == "hub_format" and name in message, "a part of a split must not be dropped in silence"


def test_splits_of_other_names_are_refused_with_the_list():
    files = [{"split": split, "path": f"{split}.jsonl"} for split in ("train_sft", "test_sft", "train")]
    paths = [entry["path"] for entry in files]
    assert refused(*paths, data_files=files[:2])[1].endswith("train_sft, test_sft")
    assert refused(*paths, data_files=files)[1].endswith("train_sft, test_sft (beside train)")
    assert refused("data/train-00000-of-00001.parquet", "data/unsupervised-00000-of-00001.parquet")[0] == "hub_splits"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["test.csv", "news.csv"], "no train split, only test; files of no split: news.csv"),
        (["dev.csv", "test.csv"], "no train split, only validation, test"),
        (["train_test.csv"], "train_test.csv would be in two splits"),
        (["data/dev-00000-of-00001.csv", "data/val-00000-of-00001.csv"], "two splits that would both be validation"),
        (["train.parquet", "test.csv"], "test is not in the format of the other splits"),
        (["README.md", "model.bin"], "no file of data"),
        ([], "no file of data"),
    ],
)
def test_what_would_need_a_guess_is_refused(paths, message):
    assert message in refused(*paths)[1]


@pytest.mark.parametrize(
    "data_files", [{}, 3, [3], [{"split": "train"}], [{"path": "a.csv"}], ["a.csv", {"split": "x", "path": "y"}],
                   [{"split": "train", "path": []}], [{"split": "train", "path": "a**b.csv"}],
                   [{"split": "train", "path": "a.csv"}, {"split": "train", "path": "b.csv"}]],
)  # fmt: skip
def test_data_files_that_cannot_be_read_are_refused(data_files):
    assert refused("a.csv", data_files=data_files)[0] == "hub_card_unreadable"


def test_a_pattern_without_a_file_is_refused_and_not_an_empty_split():
    files = [{"split": "train", "path": "a.csv"}, {"split": "test", "path": "https://elsewhere.example/x.csv"}]
    assert refused("a.csv", data_files=files) == ("hub_no_files", f"{SPEC}: the card names no file of data for test")


def test_files_that_are_left_out_are_named():
    spec = hub_data.parse_spec(SPEC)
    splits, left_out = hub_data.choose_files(spec, {}, ["train.csv", "labels.txt", "raw.zip", "logo.svg", "train.json"])
    assert splits == {"train": ["train.json"]} and left_out == ["labels.txt", "raw.zip", "train.csv"]


WORDS = ["train", "test", "dev", "val", "valid", "eval", "evaluation", "training", "data", "news", "latest", "x-train"]
WORDS += ["test_1", ".hidden", "__old__", "train-00000-of-00001", "dev-00001-of-00002"]
PATH = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(lambda parts: f"{'/'.join(parts)}.csv")
PATHS = st.lists(PATH, min_size=1, max_size=6, unique=True)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths=PATHS)
def test_the_splits_are_those_that_datasets_finds(tmp_path_factory, paths):
    from datasets.data_files import DataFilesDict, EmptyDatasetError, get_data_patterns

    folder = tmp_path_factory.mktemp("repository")
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    try:
        patterns = get_data_patterns(str(folder))
        theirs = DataFilesDict.from_patterns(patterns, base_path=str(folder), allowed_extensions=[".csv"])
    except EmptyDatasetError:
        theirs = {}
    theirs = {split: {str(Path(path).relative_to(folder)) for path in found} for split, found in theirs.items()}
    ours = {split: set(found) for split, found in hub_data._by_name(sorted(paths)).items()}
    assert {("train" if split == "all" else split): found for split, found in ours.items()} == {
        str(split): found for split, found in theirs.items()
    }


def test_the_words_for_splits_and_the_ignored_names_are_those_of_datasets():
    from datasets import data_files

    assert {str(split): tuple(words) for split, words in data_files.SPLIT_KEYWORDS.items()} == hub_data.KEYWORDS
    assert set(data_files.FILES_TO_IGNORE) == hub_data.IGNORED


def test_everything_that_is_returned_is_known():
    assert [field.name for field in dataclasses.fields(hub_data.HubData)] == [
        "files", "repo_id", "revision", "config", "license", "card_language", "class_names", "left_out",
    ]  # fmt: skip
