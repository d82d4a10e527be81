"""02_convert_format.py: every row goes to exactly one split, the same bytes every time, and no answer into a prompt."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from task_folder import LABELS, jsonl, make_task, news, write
from tasklib import schema
from tasklib.data import conversion, dataset
from tasklib.documents import parse_yaml
from tasklib.model import prompts
from tasklib.paths import TaskPaths
from tasklib.summary import TaskError

SCRIPT = "02_convert_format.py"
SPLITS = ("train", "validation", "test")
FIELDS = {"fields": {"text": "title", "label": "mood"}}


def converted(task, *flags):
    """Split -> rows, after a real conversion."""
    task.ok(SCRIPT, *flags)
    return {name: task.rows(name) for name in SPLITS if (task.folder / f"data/processed/{name}.jsonl").is_file()}


def manifest_of(task):
    return json.loads((task.folder / "data/processed/manifest.json").read_text(encoding="utf-8"))


def edit_definition(task, section, **values):
    path = task.folder / "task_definition.yaml"
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    definition[section] = {**definition.get(section, {}), **values}
    write(path, yaml.safe_dump(definition, allow_unicode=True, sort_keys=False))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A converted task of 60 rows. Tests read it; those that change something make their own."""
    task = make_task(tmp_path_factory.mktemp("converted") / "任務 one", {"a.jsonl": jsonl(*news(60))})
    task.ok(SCRIPT)
    return task


# Splits


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.2), (0.2, 0.25), (0.33, 0.33), (0.05, 0.0), (0.0, 0.5)])
@pytest.mark.parametrize("seed", [0, 42])
def test_each_split_has_its_share_of_every_label_to_within_a_row(tmp_path, validation, test, seed):
    labels = {"often": "常", "seldom": "少", "rare": "稀"}
    rows = [
        {**row, "mood": m}
        for row, m in zip(news(500), ["often", "seldom", "often", "seldom", "rare"] * 100, strict=True)
    ]
    data = {"split": {"validation": validation, "test": test, "seed": seed}}
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)}, task={"labels": labels}, data=data)
    splits = converted(task)
    shares = {"train": 1 - validation - test, "validation": validation, "test": test}
    assert set(splits) == {name for name, share in shares.items() if share > 0}
    for name, chosen in splits.items():
        counts = Counter(row["record"]["label"] for row in chosen)
        for label, n in {"often": 200, "seldom": 200, "rare": 100}.items():
            assert abs(counts[label] - shares[name] * n) <= 1, (name, label, counts)


def test_another_seed_gives_another_split_of_the_same_sizes(tmp_path):
    found = []
    for seed in (1, 2):
        data = {"split": {"validation": 0.2, "test": 0.2, "seed": seed}}
        task = make_task(tmp_path / str(seed), {"a.jsonl": jsonl(*news(100))}, data=data)
        found.append({name: {row["id"] for row in rows} for name, rows in converted(task).items()})
    assert {name: len(ids) for name, ids in found[0].items()} == {"train": 60, "validation": 20, "test": 20}
    assert {name: len(ids) for name, ids in found[1].items()} == {"train": 60, "validation": 20, "test": 20}
    assert found[0]["test"] != found[1]["test"]


def test_texts_equal_but_for_width_case_and_space_stay_on_one_side(tmp_path):
    spellings = ("Q{n} 成長 ABC", "q{n}成長abc", "Ｑ{n}成長ＡＢＣ\u3000", "Q{n} 成長\u00a0Abc")
    rows = [{"title": s.format(n=n), "mood": ("good", "bad")[n % 2]} for s in spellings for n in range(40)]
    splits = converted(make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)}))
    sides = {}
    for name, chosen in splits.items():
        for row in chosen:
            sides.setdefault((row["source"]["line"] - 1) % 40, set()).add(name)
    assert len(sides) == 40 and all(len(names) == 1 for names in sides.values())
    assert set().union(*sides.values()) == set(SPLITS)


def test_a_contradicting_duplicate_stays_beside_the_row_that_it_contradicts(tmp_path):
    rows = [{"title": f"第{n}則", "mood": mood} for n in range(30) for mood in ("good", "bad")]
    splits = converted(make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)}))
    texts = {name: [row["record"]["text"] for row in chosen] for name, chosen in splits.items()}
    assert sum(map(len, texts.values())) == 60
    assert all(set(Counter(chosen).values()) == {2} for chosen in texts.values())


@pytest.mark.parametrize("as_text", [True, False])
def test_rows_of_one_group_stay_on_one_side(tmp_path, as_text):
    rows = [{**row, "company": str(number // 5) if as_text else number // 5} for number, row in enumerate(news(200))]
    data = {"split": {"validation": 0.2, "test": 0.2, "group_by": "company"}}
    splits = converted(make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)}, data=data))
    groups = {name: {(row["source"]["line"] - 1) // 5 for row in chosen} for name, chosen in splits.items()}
    assert sorted(group for found in groups.values() for group in found) == list(range(40))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 120, "validation": 40, "test": 40}


def test_groups_and_equal_texts_are_joined_across_each_other(tmp_path):
    """Rows 2n and 2n+1 share a company, rows 2n+1 and 2n+2 share a text: all 40 hang together."""
    chain = [{"title": f"文{(n + 1) // 2}", "mood": ("good", "bad")[n % 2], "company": n // 2} for n in range(40)]
    others = [{**row, "company": 100 + n} for n, row in enumerate(news(160))]
    data = {"split": {"validation": 0.2, "test": 0.2, "group_by": "company"}}
    splits = converted(make_task(tmp_path / "task", {"a.jsonl": jsonl(*chain, *others)}, data=data))
    sides = {name for name, chosen in splits.items() for row in chosen if row["source"]["line"] <= 40}
    assert len(sides) == 1


def test_rows_without_a_group_are_not_one_group(tmp_path):
    rows = [{**row, "company": "" if n % 2 else None} for n, row in enumerate(news(50))]
    rows.append({"title": "有公司", "mood": "good", "company": "A"})
    data = {"split": {"validation": 0.2, "test": 0.2, "group_by": "company"}}
    splits = converted(make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)}, data=data))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 31, "validation": 10, "test": 10}


def with_own_splits(folder, own, **shares):
    """A task with 100 rows in a file for each of `own`, which it also returns."""
    rows = {name: news(100, prefix=name) for name in own}
    files = {f"{name}.jsonl": jsonl(*chosen) for name, chosen in rows.items()}
    data = {"files": {name: [f"data/raw/{name}.jsonl"] for name in own}, **FIELDS}
    if len(own) < len(SPLITS):  # with a file for each, shares would do nothing and are refused
        data["split"] = shares
    return make_task(folder, files, data=data), {name: [row["title"] for row in rows[name]] for name in own}


def texts_of(rows):
    return [row["record"]["text"] for row in rows]


@pytest.mark.parametrize(
    "own", [SPLITS, ("train", "test"), ("train", "validation"), ("test", "validation", "train")], ids="-".join
)
def test_the_users_own_splits_are_kept_row_by_row(tmp_path, own):
    task, rows = with_own_splits(tmp_path / "task", own, validation=0, test=0)
    splits = converted(task)
    assert set(splits) == set(own)
    assert all(texts_of(splits[name]) == rows[name] for name in own)


@pytest.mark.parametrize(
    ("own", "drawn"), [(("train", "test"), {"validation": 20}), (("train",), {"validation": 20, "test": 30})]
)
def test_splits_that_the_user_does_not_have_are_drawn_from_train_alone(tmp_path, own, drawn):
    task, rows = with_own_splits(tmp_path / "task", own, validation=0.2, test=0.3)
    splits = converted(task)
    assert {name: len(splits[name]) for name in drawn} == drawn
    assert sorted(texts_of([row for name in ("train", *drawn) for row in splits[name]])) == sorted(rows["train"])
    assert all(texts_of(splits[name]) == rows[name] for name in own if name != "train")


def test_a_split_without_a_row_is_exit_3_and_the_processed_files_stay_as_they_were(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(40))})
    task.ok(SCRIPT)
    before = task.hashes("data/processed")
    write(task.folder / "data/raw/a.jsonl", jsonl(*news(2)))
    outcome = task.run(SCRIPT)
    assert outcome.code == 3
    (problem,) = outcome.problems("empty_split")
    assert "no row falls into validation" in problem["message"]
    assert task.hashes("data/processed") == before and len(before) == 4


def test_data_with_faults_is_exit_3_with_all_of_them_and_nothing_is_written(tmp_path):
    rows = [*news(30), {"title": "", "mood": "good"}, {"title": "x", "mood": "?"}]
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)})
    outcome = task.run(SCRIPT)
    assert outcome.code == 3
    assert {(p["code"], p["line"]) for p in outcome.summary["errors"]} >= {("empty_field", 31), ("unknown_label", 32)}
    assert not (task.folder / "data/processed").exists()


row_texts = st.one_of(
    st.sampled_from(["a", "A", "ａ", " a ", "b", "Ｂ", "c d", "cd"]),  # many duplicates
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(str.strip),
)
small_rows = st.lists(
    st.tuples(row_texts, st.sampled_from(["good", "bad", "odd"]), st.sampled_from([None, "g1", "g2", 3])),
    min_size=1,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(
    rows=small_rows,
    shares=st.sampled_from([(0.1, 0.2), (0.0, 0.3), (0.3, 0.0), (0.4, 0.5), (0.0, 0.0)]),
    seed=st.integers(0, 3),
    group_by=st.sampled_from([None, "company"]),
    one_line=st.booleans(),
    shots=st.sampled_from([0, 2]),
)
def test_no_row_is_lost_or_doubled_and_equal_texts_and_groups_are_never_parted(
    rows, shares, seed, group_by, one_line, shots
):
    raw = [{"title": text, "mood": label, "company": group} for text, label, group in rows]
    definition = schema.check_definition(
        parse_yaml(
            yaml.safe_dump(
                {
                    "schema_version": 1,
                    "name": "tiny",
                    "task": {"type": "classification", "labels": {**LABELS, "odd": "不明"}},
                    "prompt": {"n_few_shot": shots},
                    "data": {
                        "files": {"all": ["a.json"]},
                        "split": {"validation": shares[0], "test": shares[1], "seed": seed, "group_by": group_by},
                        **FIELDS,
                    },
                }
            ),
            "task_definition.yaml",
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "a.json", json.dumps(raw, indent=None if one_line else 1))
        paths = TaskPaths(Path(folder))
        data, examples = dataset.scan(paths, definition), list(dataset.examples(paths, definition))
        assert data.n_rows == len(data.index) == len(examples) == len(rows)
        try:
            plan = conversion.plan(paths, definition, data)
        except TaskError as error:
            assert [problem.code for problem in error.problems] == ["empty_split"]
            return
        splits = {name: [] for name in plan.splits}
        for name, _, row in conversion.conversations(paths, definition, plan):
            splits[name].append(row)
    ids = [row["id"] for chosen in splits.values() for row in chosen]
    assert len(set(ids)) == len(ids) == len(rows)
    assert set(ids) == {example.id for example in examples}
    by_id = {example.id: example for example in examples}
    sides = {}
    for name, chosen in splits.items():
        for row in chosen:
            example = by_id[row["id"]]
            assert row["record"] == example.record.model_dump()
            sides.setdefault(("text", example.duplicate_key), set()).add(name)
            if example.group is not None:
                sides.setdefault(("group", example.group), set()).add(name)
    assert all(len(names) == 1 for names in sides.values())


# Repetition


def test_the_same_input_gives_the_same_bytes_in_another_folder_and_process(task, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    other = make_task(tmp_path / "another name", {"a.jsonl": jsonl(*news(60))})
    assert other.spawn(SCRIPT).code == 0
    assert other.hashes("data/processed") == task.hashes("data/processed")
    assert len(task.hashes("data/processed")) == 4


def test_a_second_call_is_skipped_and_fast_and_writes_nothing(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(2000))})
    first = task.ok(SCRIPT)
    stamps = {p.name: p.stat().st_mtime_ns for p in (task.folder / "data/processed").iterdir()}
    started = time.monotonic()
    second = task.ok(SCRIPT)
    assert time.monotonic() - started < 10
    assert (first["status"], second["status"]) == ("ok", "skipped")
    assert second["counts"] == first["counts"] == {"train": 1400, "validation": 200, "test": 400}
    assert {p.name: p.stat().st_mtime_ns for p in (task.folder / "data/processed").iterdir()} == stamps


def test_force_writes_the_same_bytes_again(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(60))})
    task.ok(SCRIPT)
    before = task.hashes("data/processed")
    assert task.ok(SCRIPT, "--force")["status"] == "ok"
    assert task.hashes("data/processed") == before


def append_raw_row(task):
    path = task.folder / "data/raw/a.jsonl"
    write(path, path.read_text(encoding="utf-8") + jsonl({"title": "新的一列", "mood": "good"}))


CHANGES = {
    "a raw row more": (append_raw_row, "ok"),
    "another instruction": (lambda task: edit_definition(task, "prompt", instruction="Decide."), "ok"),
    "another answer": (lambda task: edit_definition(task, "task", labels={**LABELS, "good": "看多"}), "ok"),
    "another seed": (lambda task: edit_definition(task, "data", split={"seed": 1}), "ok"),
    "another target": (lambda task: edit_definition(task, "evaluation", target=0.9), "skipped"),
    "a place on the Hub": (lambda task: edit_definition(task, "hub", repo_id="me/x"), "skipped"),
}


@pytest.mark.parametrize(("change", "status"), CHANGES.values(), ids=CHANGES)
def test_what_changes_the_rows_converts_again_and_nothing_else_does(tmp_path, change, status):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(60))})
    task.ok(SCRIPT)
    before = task.hashes("data/processed")
    change(task)
    assert task.ok(SCRIPT)["status"] == status
    assert (task.hashes("data/processed") != before) == (status == "ok")
    assert task.ok(SCRIPT)["status"] == "skipped"


def test_a_split_that_is_no_longer_wanted_disappears(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(60))})
    task.ok(SCRIPT)
    edit_definition(task, "data", split={"test": 0.0})
    task.ok(SCRIPT)
    assert set(task.hashes("data/processed")) == {"train.jsonl", "validation.jsonl", "manifest.json"}


DAMAGE = {
    "an edited row": lambda folder: write(folder / "test.jsonl", (folder / "test.jsonl").read_bytes() + b"{}\n"),
    "a deleted split": lambda folder: (folder / "validation.jsonl").unlink(),
    "an empty split": lambda folder: write(folder / "train.jsonl", ""),
    "a deleted manifest": lambda folder: (folder / "manifest.json").unlink(),
    "a truncated manifest": lambda folder: write(folder / "manifest.json", '{"schema_version": 1, "inp'),
    "an empty manifest": lambda folder: write(folder / "manifest.json", ""),
    "a manifest of something else": lambda folder: write(folder / "manifest.json", "[1]"),
    "a manifest without files": lambda folder: write(folder / "manifest.json", "{}"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_processed_files_changed_by_hand_are_noticed_and_written_again(tmp_path, damage):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(60))})
    task.ok(SCRIPT)
    before = task.hashes("data/processed")
    damage(task.folder / "data/processed")
    assert task.ok(SCRIPT)["status"] == "ok"
    assert task.hashes("data/processed") == before and len(before) == 4


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_rows_changed_by_hand_are_never_loaded(tmp_path, damage):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(60))})
    task.ok(SCRIPT)
    damage(task.folder / "data/processed")
    codes = set()
    for name in SPLITS:
        try:
            conversion.load_split(TaskPaths(task.folder), name)
        except TaskError as error:
            assert error.exit_code == 4 and "02_convert_format.py" in error.report["next"]
            codes |= {problem.code for problem in error.problems}
    assert codes and codes <= {"no_split", "processed_changed"}


def test_nothing_is_written_under_dry_run(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(60))})
    before = task.hashes(".")
    summary = task.ok(SCRIPT, "--dry-run")
    assert summary["counts"] == {"train": 42, "validation": 6, "test": 12} and summary["outputs"] == {}
    assert task.hashes(".") == before
    assert not (task.folder / "data/processed").exists()
    task.ok(SCRIPT)
    append_raw_row(task)
    before = task.hashes(".")
    task.ok(SCRIPT, "--dry-run", "--force")
    assert task.hashes(".") == before


def test_raw_data_is_never_touched(task):
    before = task.hashes("data/raw")
    task.ok(SCRIPT, "--force")
    assert task.hashes("data/raw") == before == {"a.jsonl": hashlib.sha256(jsonl(*news(60)).encode()).hexdigest()}


# Rows


def test_a_row_is_a_question_and_its_answer_with_the_place_it_came_from(task):
    rows = [row for name in SPLITS for row in task.rows(name)]
    assert len(rows) == 60
    raw = news(60)
    for row in rows:
        source = raw[row["source"]["line"] - 1]
        assert row["id"] == f"a.jsonl:{row['source']['line']}" and row["source"]["file"] == "data/raw/a.jsonl"
        assert row["record"] == {"text": source["title"], "label": source["mood"]}
        assert row["prompt"] == [{"role": "user", "content": f"Judge.\n\n{source['title']}"}]
        assert row["completion"] == [{"role": "assistant", "content": LABELS[source["mood"]]}]


def test_files_of_one_name_and_rows_of_one_line_get_ids_of_their_own(tmp_path):
    rows = news(60)
    files = {"old/a.json": json.dumps(rows[:30]), "new/a.json": json.dumps(rows[30:])}  # each on a single line
    found = [row for chosen in converted(make_task(tmp_path / "task", files)).values() for row in chosen]
    assert len({row["id"] for row in found}) == len(found) == 60
    assert {row["record"]["text"] for row in found} == {row["title"] for row in rows}


def test_no_prompt_contains_the_answer(task):
    for name in SPLITS:
        for row in task.rows(name):
            prompt = json.dumps(row["prompt"], ensure_ascii=False)
            assert not any(word in prompt for word in (*LABELS, *LABELS.values()))


def test_the_system_message_stands_first_where_the_definition_has_one(tmp_path):
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(60))}, prompt={"system": "你是分析師。"})
    rows = [row for chosen in converted(task).values() for row in chosen]
    assert len(rows) == 60
    assert all(row["prompt"][0] == {"role": "system", "content": "你是分析師。"} for row in rows)
    assert all([m["role"] for m in row["prompt"]] == ["system", "user"] for row in rows)


FULL_WIDTH = "ＥＰＳ　３８％　①"


@pytest.mark.parametrize(("forms", "text"), [([], FULL_WIDTH), (["nfkc"], "EPS 38% 1")])
def test_texts_are_normalized_only_where_the_definition_says_so(tmp_path, forms, text):
    rows = [{"title": f"{FULL_WIDTH}{n}", "mood": ("good", "bad")[n % 2]} for n in range(60)]
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)}, data={"normalize": forms})
    found = [row for chosen in converted(task).values() for row in chosen]
    assert len(found) == 60
    for row in found:
        expected = f"{text}{row['source']['line'] - 1}"
        assert row["record"]["text"] == expected and row["prompt"][-1]["content"] == f"Judge.\n\n{expected}"


# Worked examples


@pytest.fixture(scope="module")
def few_shot(tmp_path_factory):
    """60 rows and 6 worked examples; every text of train stands there twice but for its width."""
    rows = news(60)
    for row in news(60)[::4]:
        rows.append({"title": row["title"].replace("公司", " 公司 "), "mood": row["mood"]})
    task = make_task(tmp_path_factory.mktemp("few") / "task", {"a.jsonl": jsonl(*rows)}, prompt={"n_few_shot": 6})
    return converted(task)


def examples_of(row):
    """(question, answer) of the worked examples before the row's own question."""
    contents = [message["content"] for message in row["prompt"][:-1]]
    assert [m["role"] for m in row["prompt"]] == ["user", "assistant"] * (len(contents) // 2) + ["user"]
    return list(zip(contents[::2], contents[1::2], strict=True))


def test_every_question_of_validation_and_test_has_the_same_examples_with_labels_in_turn(few_shot):
    found = [examples_of(row) for name in ("validation", "test") for row in few_shot[name]]
    assert len(found) > 10 and all(examples == found[0] for examples in found)
    assert [answer for _, answer in found[0]] == ["利空", "利多"] * 3
    assert len({question for question, _ in found[0]}) == 6


def test_worked_examples_are_training_rows_with_their_true_answers(few_shot):
    train = {(row["prompt"][-1]["content"], row["completion"][0]["content"]) for row in few_shot["train"]}
    examples = examples_of(few_shot["test"][0])
    assert len(examples) == 6 and set(examples) <= train


def test_no_row_has_its_own_text_among_its_worked_examples(few_shot):
    shown = 0
    for name in SPLITS:
        for row in few_shot[name]:
            own = dataset.duplicate_key(row["prompt"][-1]["content"])
            questions = [dataset.duplicate_key(question) for question, _ in examples_of(row)]
            assert own not in questions, (name, row["id"])
            assert name == "train" or len(questions) == 6
            shown += len(questions) == 6
    assert shown > sum(map(len, few_shot.values())) / 2


def test_the_examples_can_be_chosen_again_from_the_training_rows(few_shot, tmp_path):
    """What prediction must do to ask as evaluation asked."""
    task = make_task(tmp_path / "task", {"a.jsonl": ""}, prompt={"n_few_shot": 6})
    definition = schema.load_definition(task.folder / "task_definition.yaml")
    records = [definition.task_type.Record(**row["record"]) for row in few_shot["train"]]
    prefix = prompts.prefix_messages(definition, prompts.choose_shots(definition, records))
    assert len(few_shot["validation"]) > 3
    assert all(row["prompt"][:-1] == prefix for row in few_shot["validation"])


def test_fewer_training_rows_than_examples_are_all_shown(tmp_path):
    data = {"split": {"validation": 0.4, "test": 0.4}}
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(10))}, prompt={"n_few_shot": 32}, data=data)
    splits = converted(task)
    assert len(splits["train"]) == 2
    assert all(len(examples_of(row)) == 2 for name in ("validation", "test") for row in splits[name])
    assert all(len(examples_of(row)) == 1 for row in splits["train"])


# The manifest


def test_the_manifest_tells_the_truth_about_inputs_and_splits(task):
    manifest, folder = manifest_of(task), task.folder
    assert manifest["inputs"] == {
        "data/raw/a.jsonl": hashlib.sha256((folder / "data/raw/a.jsonl").read_bytes()).hexdigest()
    }
    assert set(manifest["files"]) == set(manifest["splits"]) == set(SPLITS)
    for name in SPLITS:
        rows, found = task.rows(name), manifest["splits"][name]
        assert (
            manifest["files"][name]
            == hashlib.sha256((folder / f"data/processed/{name}.jsonl").read_bytes()).hexdigest()
        )
        assert found["n_rows"] == len(rows) > 0
        assert found["labels"] == Counter(row["record"]["label"] for row in rows)


def test_the_summary_counts_what_the_files_hold(task):
    summary = task.ok(SCRIPT, "--force")
    assert summary["counts"] == {name: len(task.rows(name)) for name in SPLITS}
    assert sum(summary["counts"].values()) == 60
    assert (
        summary["outputs"] == {"processed": "data/processed"} and "04_evaluate.py --baselines-only" in summary["next"]
    )


# Splits by time, and near duplicates


def test_a_split_by_time_trains_on_the_oldest_rows_and_tests_on_the_newest(tmp_path):
    rows = [{**row, "date": f"115/{1 + n // 28:02}/{1 + n % 28:02}"} for n, row in enumerate(news(100))]
    split = {"validation": 0.1, "test": 0.2, "time_field": "date", "near_duplicates": None}
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*reversed(rows))}, data={"split": split})
    task.ok(SCRIPT)
    lines = {name: [row["source"]["line"] for row in task.rows(name)] for name in SPLITS}
    assert min(lines["train"]) > max(lines["validation"]) > min(lines["validation"]) > max(lines["test"])
    assert {name: len(found) for name, found in lines.items()} == {"train": 70, "validation": 10, "test": 20}


@pytest.mark.parametrize("threshold", [0.8, None])
def test_nearly_equal_texts_stay_on_one_side_unless_the_definition_says_otherwise(tmp_path, threshold):
    text = "公司{n}在今年第四季公布了全新的產品線與相當積極的{word}市場擴張計畫"
    words = "東西南北中內外前後左右上下新舊大小高低遠近"
    rows = []
    for number, word in enumerate(words):
        title = text.format(n=chr(0x5000 + number) * 9, word=word * 9)
        rows += [{"title": title + mark, "mood": "good" if number % 2 else "bad"} for mark in ("。", "！")]
    split = {"validation": 0.2, "test": 0.2, "near_duplicates": threshold}
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)}, data={"split": split})
    task.ok(SCRIPT)
    side = {row["record"]["text"]: name for name in SPLITS for row in task.rows(name)}
    parted = sum(side[row["title"]] != side[row["title"][:-1] + "！"] for row in rows[::2])
    assert (parted == 0) == (threshold is not None)
