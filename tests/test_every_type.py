"""Scripts over every task type, from raw rows made of its examples: they work, or refuse with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import every_type
import in_process
from task_folder import Task, make_task
from tasklib import schema
from tasklib.answering import inference, pieces
from tasklib.export import parity
from tasklib.schema import TaskDefinition
from tasklib.scoring import evaluation

OPEN = [n for n in every_type.NAMES if (m := every_type.task_types.load(n)).label_set(m.EXAMPLE_OPTIONS) is None]


def task_of(folder: Path, name: str) -> tuple[Task, TaskDefinition]:
    made = every_type.definition_of(name)
    task = make_task(folder, {"a.jsonl": every_type.raw_lines(made)})
    definition = yaml.safe_dump(made.model_dump(mode="json", exclude_unset=True), allow_unicode=True)
    (folder / "task_definition.yaml").write_text(definition, encoding="utf-8")
    return task, made


@pytest.mark.parametrize("name", every_type.NAMES)
def test_validation_writes_the_documents_of_any_type(tmp_path, name):
    task, _ = task_of(tmp_path / "task", name)
    outcome = task.run("01_validate_data.py")
    assert outcome.code == 0, outcome.summary["errors"]
    docs = {path.name: path.read_text(encoding="utf-8") for path in (task.folder / "docs").iterdir()}
    assert set(docs) == {"data_report.md", "data_report.json", "annotation_guide.md", "integration.md"}
    assert "None" not in docs["data_report.md"] + docs["integration.md"]
    lengths = json.loads(docs["data_report.json"])["answer_lengths"]
    assert bool(lengths) == (name in OPEN)
    assert all(n["minimum"] <= n["median"] <= n["p95"] <= n["maximum"] for n in lengths.values())
    tables = docs["data_report.md"].split("## ")
    assert all(len(section.strip().splitlines()) > 2 for section in tables[1:]), "an empty section"


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("01_validate_data.py", ["--decide"]),
        ("suggest_labels.py", ["suggest"]),
        ("suggest_labels.py", ["merge"]),
        ("label_with.py", ["propose", "--input", "a.txt", "--model", "m", "--endpoint", "http://127.0.0.1:9/v1"]),
        ("label_with.py", ["accept", "--input", "a.csv", "--apply"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_what_works_on_labels_alone_refuses_open_answers_with_a_reason(tmp_path, name, script, flags):
    task, _ = task_of(tmp_path / "task", name)
    outcome = task.run(script, *flags)
    assert outcome.code == 2 and [p["code"] for p in outcome.summary["errors"]] == ["no_labels"]
    assert outcome.summary["errors"][0]["hint"]


@pytest.mark.parametrize("name", every_type.NAMES)
def test_fix_leaves_a_task_of_any_type_readable(tmp_path, name):
    task, _ = task_of(tmp_path / "task", name)
    assert task.run("01_validate_data.py", "--fix").code == 0


def test_fix_never_moves_the_characters_that_entities_count(tmp_path):
    rows = [
        {"the text": "\u200b台積電擴廠", "the entities": [{"start": 1, "end": 4, "type": "ORG"}]},
        {"the text": "聯電\u200b也擴廠", "the entities": []},
    ]
    task, _ = task_of(tmp_path / "task", "ner")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (task.folder / "data" / "raw" / "a.jsonl").write_text(lines, encoding="utf-8")
    task.run("01_validate_data.py", "--fix")
    copy = task.folder / "data" / "raw" / "a.fixed.jsonl"
    fixed = copy.read_text(encoding="utf-8") if copy.is_file() else lines
    assert json.loads(fixed.splitlines()[0])["the text"][1:4] == "台積電"


def test_predict_asks_a_long_text_in_windows_and_answers_it_once(tmp_path, monkeypatch):
    """What the model says of each window is written here; everything else is predict.py."""
    task, _ = task_of(tmp_path / "task", "ner")
    path = task.folder / "task_definition.yaml"
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    definition["task"]["windows"] = {"max_chars": 40, "overlap_chars": 8}
    path.write_text(yaml.safe_dump(definition, allow_unicode=True), encoding="utf-8")
    loaded = schema.load_definition(path)
    person = loaded.task.entity_types["PER"]
    asked = []

    def answered(job, stack):
        found = []
        for row in job.rows:
            text = row["record"]["text"]
            asked.append(text)
            said = [{"text": "林怡君", "type": person}] if "林怡君" in text else []
            found.append(inference.parsed(job.definition, json.dumps(said, ensure_ascii=False)))
        return iter([(range(len(found)), found)]), []

    module = in_process.loaded(in_process.BUNDLE / "scripts" / "task" / "predict.py")
    monkeypatch.setattr(module, "_by_run", answered)
    text = "今天的會議由總經理主持。" * 6 + "林怡君最後發言。"
    args = module.build_parser().parse_args(["--task-dir", str(task.folder), text, "沒有人。"])
    first, second = module.predict(args).outputs["predictions"]
    assert len(asked) > 3 and max(map(len, asked)) <= 40
    assert first["text"] == text and second["prediction"] == []
    (entity,) = first["prediction"]
    assert text[entity["start"] : entity["end"]] == "林怡君" and entity["type"] == "PER"


def test_predict_and_parity_write_text_where_evaluation_compares(monkeypatch):
    """Without candidates, decoding compare generates; what is written has no score, and parity says so."""
    made = every_type.definition_of("preference")
    monkeypatch.setattr(inference, "_require_context", lambda *args: None)
    monkeypatch.setattr(inference.prompts, "render_prompt", lambda *args, **rest: "x")
    monkeypatch.setattr(inference, "_by_generation", lambda *args: iter([([0], ["written"])]))
    config = schema.RunConfig(schema_version=1, base_model={"id": "any"})
    assert list(inference.answers(made, config, None, None, [[{"role": "user", "content": "?"}]])) == [
        ([0], ["written"])
    ]
    rows = every_type.processed(made)
    parts = pieces.of(made, rows)
    of = parity.Asked(made, config, evaluation.Rows("validation", rows, []), None, parts, [], [[1]] * len(rows))
    replies = [parity.Reply("same", [1], True, 0.1)] * len(rows)
    run, merged = parity.compare(of, {"run": replies, "merged": replies})
    assert (merged.n_texts_differ, merged.n_prompts_differ, merged.faults, merged.loss) == (0, 0, [], None)
    assert merged.comparison is None and merged.primary.value is None
    assert parity.columns(run, "m")["it_is"] == "(reference)" and parity.columns(merged, "m")["it_is"] == "(no score)"


def test_parity_counts_rows_not_windows():
    made = every_type.definition_of("ner", task={**every_type.definition_of("ner").task.model_dump(mode="json"),
                                                 "windows": {"max_chars": 16, "overlap_chars": 4}})  # fmt: skip
    rows = [{**every_type.processed(made)[0], "record": {"text": "今天的會議由總經理主持。" * 5, "entities": []}}]
    parts = pieces.of(made, rows)
    n = len(parts.rows)
    assert n > 2
    config = schema.RunConfig(schema_version=1, base_model={"id": "any"})
    tokenizer = type(
        "Tokenizer",
        (),
        {"decode": lambda self, ids: str(ids), "__call__": lambda self, text, **rest: {"input_ids": [1]}},
    )()
    of = parity.Asked(made, config, evaluation.Rows("validation", rows, []), tokenizer, parts, [], [[1]] * n)
    one = [parity.Reply("[]", [1], True, 0.1)] * n
    other = [parity.Reply("[ ]", [1], True, 0.1)] * n
    run, merged = parity.compare(of, {"run": one, "merged": other})
    assert (run.n_rows, merged.n_rows, merged.n_texts_differ) == (1, 1, 1)
