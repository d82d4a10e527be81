"""docs/annotation_guide.md and docs/integration.md: they say what the definition, the data and the code say."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import runpy
import shlex
import string
import subprocess
import sys
import types

import numpy as np
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from conftest import BUNDLE
from every_type import definition_of
from task_folder import jsonl, make_task, news
from tasklib import schema, task_types
from tasklib.data import dataset, forms
from tasklib.data.answers import fold
from tasklib.data.decisions import Contradiction, Decision
from tasklib.documents import parse_yaml
from tasklib.model import prompts
from tasklib.paths import TaskPaths
from tasklib.summary import TaskError
from tasklib.writing import guides
from tasklib.writing.guide_texts import ANNOTATION, INTEGRATION, LABELLING, OF_TYPE
from test_docs import parser_of

LANGUAGES = ("zh-TW", "en")
every_language = pytest.mark.parametrize("language", LANGUAGES)
EXAMPLES = {"good": ["獲利成長三成", "訂單滿載"], "bad": ["客戶砍單"]}


def definition(**sections):
    """A definition of two labels; `sections` extend it."""
    base = {
        "schema_version": 1,
        "name": "tiny",
        "description": "新聞對股價的影響",
        "language": "en",
        "task": {"type": "classification", "labels": {"good": "利多", "bad": "利空"}},
        "data": {"files": {"all": ["data/raw/a.csv"]}, "fields": {"text": "title", "label": "mood"}},
    }
    for key, value in sections.items():
        base[key] = {**base.get(key, {}), **value} if isinstance(value, dict) else value
    return schema.check_definition(parse_yaml(json.dumps(base), "task_definition.yaml"))


def config(**sections):
    base = {"schema_version": 1, "base_model": {"id": "builtin:smollm2-135m"}}
    return schema.check_config(parse_yaml(json.dumps(base | sections), "configs/baseline.yaml"))


def annotation(examples=EXAMPLES, decisions=(), contradictions=(), **sections):
    return guides.annotation_guide(definition(**sections), examples, list(decisions), list(contradictions))


def integration(run_config=None, **sections):
    return guides.integration_guide(definition(**sections), run_config or config())


def parsed(text):
    return MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)


def blocks(text, language):
    """The contents of the code blocks of one language."""
    return [token.content for token in parsed(text) if token.type == "fence" and token.info == language]


def tables(text):
    """Every table as rows of cells, markup resolved to text; the header is the first row."""
    found, cell = [], False
    for token in parsed(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            cell = True
        elif token.type == "inline" and cell:
            found[-1][-1].append("".join(child.content for child in token.children))
            cell = False
    return found


def headings(text):
    tokens = parsed(text)
    return [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]


def row_with(text, first_cell):
    """The first row of any table that begins with this cell."""
    return next(row for table in tables(text) for row in table if row[0] == first_cell)


# The words.


@pytest.mark.parametrize(
    "words", [ANNOTATION, INTEGRATION, LABELLING, OF_TYPE], ids=lambda words: next(iter(words["en"]))
)
def test_both_languages_say_the_same_things_with_the_same_places_to_fill(words):
    def shape(value):
        if isinstance(value, dict):
            return {key: shape(value[key]) for key in sorted(value) if key != "roles"}
        if isinstance(value, list):
            return [shape(item) for item in value]
        return sorted(name for _, name, _, _ in string.Formatter().parse(value) if name is not None)

    assert shape(words["zh-TW"]) == shape(words["en"])


@every_language
def test_no_place_to_fill_is_left_open_in_a_guide(language):
    prompt = {"n_few_shot": 2, "system": "Be brief."}
    contradictions = [Contradiction("x", (("good", "a:1"), ("bad", "a:2")))] * 60
    texts = [
        annotation(decisions=[Decision("x", "good", "r")], contradictions=contradictions, language=language),
        integration(language=language, prompt=prompt, data={"normalize": ["nfkc"]}),
        integration(language=language, evaluation={"decoding": "generate"}),
    ]
    for text in texts:
        prose = re.sub(r"^(`{3,}).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
        assert not re.search(r"\{[a-z_]+\}", prose)


# The annotation guide.


@every_language
def test_a_label_without_a_definition_is_shown_as_such_and_the_guide_says_where_to_write_it(language):
    text = annotation(language=language, task={"label_definitions": {"good": "the price should rise"}})
    undefined = ANNOTATION[language]["undefined"]
    assert row_with(text, "good")[:3] == ["good", "利多", "the price should rise"]
    assert undefined in row_with(text, "bad")[2] and undefined not in row_with(text, "good")[2]
    (snippet,) = blocks(text, "yaml")
    assert list(yaml.safe_load(snippet)["task"]["label_definitions"]) == ["bad"]
    complete = annotation(language=language, task={"label_definitions": {"good": "up", "bad": "down"}})
    assert undefined not in complete and blocks(complete, "yaml") == []


@pytest.mark.parametrize("label", ["差", "yes", "1", "-1", 'a "b"', "a: b # c", "a\u2028b", "🙂", "{x}", "- y"])
def test_what_the_guide_says_to_write_is_a_definition_that_the_schema_takes(label):
    labels = {label: "利空", "good": "利多"}
    (snippet,) = blocks(annotation(task={"labels": labels}), "yaml")
    document = parse_yaml(snippet, "snippet")
    again = definition(task={"labels": labels, **document.data["task"]})
    assert set(again.task.label_definitions) == set(labels)
    assert blocks(guides.annotation_guide(again, {}, [], []), "yaml") == []


@every_language
def test_examples_of_each_label_are_shown_and_a_label_without_any_says_so(language):
    rows = tables(annotation({"good": ["獲利成長三成", "訂單滿載"]}, language=language))
    examples = next(table for table in rows if ["good", "訂單滿載"] in table)
    assert ["good", "獲利成長三成"] in examples
    (bad,) = [row for row in examples if row[0] == "bad"]
    assert ANNOTATION[language]["no_examples"] in bad[1]


def test_a_long_text_is_cut_and_line_breaks_do_not_break_the_table():
    text = annotation({"good": ["長" * 500], "bad": ["first\n\n| second |\r\nthird"]})
    longest = max((row[1] for table in tables(text) for row in table if row[0] == "good"), key=len)
    assert longest == "長" * (guides.MAX_CHARACTERS - 1) + "…"
    assert ["bad", "first | second | third"] in [row for table in tables(text) for row in table]


@every_language
def test_decided_edge_cases_and_open_contradictions_stand_with_their_reason_and_places(language):
    words = ANNOTATION[language]
    decided = [Decision("虧損縮小", "good", "比去年好")]
    contradictions = [Contradiction("配息一元", (("good", "data/raw/a.csv:2"), ("bad", "data/raw/a.csv:7")))]
    rows = [row for table in tables(annotation(EXAMPLES, decided, contradictions, language=language)) for row in table]
    assert ["虧損縮小", "good", "比去年好"] in rows
    (places,) = [row[1] for row in rows if row[0] == "配息一元"]
    assert re.findall(r"\w+ \([\w/.]+:\d+\)", places) == ["good (data/raw/a.csv:2)", "bad (data/raw/a.csv:7)"]
    without = annotation(language=language)
    assert words["no_decisions"] in without and words["no_contradictions"] in without


def test_of_many_contradictions_the_first_are_shown_and_the_rest_counted():
    many = [Contradiction(f"text {n}", (("good", "a:1"), ("bad", "a:2"))) for n in range(guides.MAX_CONTRADICTIONS + 7)]
    text = annotation(contradictions=many)
    shown = [row for table in tables(text) for row in table if row[0].startswith("text ")]
    assert len(shown) == guides.MAX_CONTRADICTIONS
    assert ANNOTATION["en"]["more"].format(n=7) in text


@pytest.mark.parametrize(
    "fields", [{"text": "title", "label": "mood"}, {"text": 'a, "b"', "label": "標籤"}, {"text": "`x`", "label": "=y"}]
)
@every_language
def test_the_file_that_the_guide_shows_is_read_as_two_good_rows(tmp_path, language, fields):
    split = {"group_by": "company", "time_field": "day"}
    made = definition(language=language, data={"fields": fields, "split": split})
    (sample,) = blocks(guides.annotation_guide(made, EXAMPLES, [], []), "csv")
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "a.csv").write_text(sample, encoding="utf-8")
    data = dataset.scan(TaskPaths(tmp_path), made)
    assert (data.findings.errors, len(data.index)) == ([], 2)
    assert data.label_counts() == {"good": 1, "bad": 1}
    assert [e.record.text for e in dataset.examples(TaskPaths(tmp_path), made)] == ["獲利成長三成", "客戶砍單"]


def test_the_shown_file_does_not_contradict_itself_where_there_are_no_examples_yet():
    (sample,) = blocks(annotation({}), "csv")
    _, *rows = csv.reader(sample.splitlines())
    assert len({text for text, _ in rows}) == len({label for _, label in rows}) == 2


@pytest.mark.parametrize("n_labels", [2, 3, 5, 14, 50])
def test_the_rows_to_label_twice_give_the_promised_interval_in_a_simulation(n_labels):
    """Two labellers who agree with kappa 0.8 on balanced labels: 95 % of the measured kappas lie within ±0.1."""
    n_rows, random = guides.rows_for_agreement(n_labels), np.random.default_rng(0)
    first = random.integers(n_labels, size=(4000, n_rows))
    second = np.where(random.random(first.shape) < 0.8, first, random.integers(n_labels, size=first.shape))
    observed = (first == second).mean(1)
    shares = [np.stack([(labels == k).mean(1) for k in range(n_labels)]) for labels in (first, second)]
    expected = (shares[0] * shares[1]).sum(0)
    kappa = (observed - expected) / (1 - expected)
    assert abs(kappa.mean() - 0.8) < 0.01
    assert np.mean(np.abs(kappa - 0.8) <= 0.1) > 0.93
    assert n_rows % 10 == 0 and n_rows >= guides.ROWS_OF_A_LABEL * n_labels


def test_the_program_of_the_guide_measures_agreement_as_scikit_learn_does(tmp_path):
    from sklearn.metrics import cohen_kappa_score

    column = "標題 'x' a\"b\\n"
    (code,) = blocks(annotation(data={"fields": {"text": column, "label": "mood"}}), "python")
    (tmp_path / "agreement.py").write_text(code, encoding="utf-8")
    first = [("一", "good"), ("二", "bad"), ("三", "bad"), ("四", "good"), ("五", ""), ("只有甲", "bad")]
    second = [("二", "bad"), ("一", "good"), ("三", "good"), ("四", "good"), ("五", "bad")]
    for name, rows in (("a.csv", first), ("b.csv", second)):
        with (tmp_path / name).open("w", encoding="utf-8-sig", newline="") as stream:
            csv.writer(stream).writerows([(column, "mood"), *rows])
    done = subprocess.run(
        [sys.executable, "agreement.py", "a.csv", "b.csv"], cwd=tmp_path, capture_output=True, encoding="utf-8"
    )
    kappa = cohen_kappa_score(["good", "bad", "bad", "good"], ["good", "bad", "good", "good"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"4 rows, kappa {kappa:.3f}", "bad / good: 三"]


def test_the_guide_names_the_similarity_above_which_texts_stay_together_only_where_there_is_one():
    assert "0.65" in annotation(data={"split": {"near_duplicates": 0.65}})
    assert ANNOTATION["en"]["near_duplicates"][:20] not in annotation(data={"split": {"near_duplicates": None}})


# The integration guide.


def messages_of(text):
    (messages,) = [value for value in map(json.loads, blocks(text, "json")) if isinstance(value, list)]
    return messages


@pytest.mark.parametrize(("system", "normalize"), [(None, []), ("Answer briefly.", ["nfkc"])])
def test_the_request_is_the_prompt_that_converted_rows_have(tmp_path, system, normalize):
    from tasklib.task_types.classification import EXAMPLES as RECORDS

    rows = [*news(40), {"title": RECORDS[0].text, "mood": "good"}]
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)}, prompt={"system": system})
    path = task.folder / "task_definition.yaml"
    path.write_text(path.read_text(encoding="utf-8") + f"  normalize: {normalize}\n", encoding="utf-8")
    task.ok("02_convert_format.py")
    made = schema.load_definition(path)
    assert made.data.normalize == normalize
    converted = [row for split in ("train", "validation", "test") for row in task.rows(split)]
    (row,) = [row for row in converted if row["source"]["line"] == 41]
    assert messages_of(guides.integration_guide(made, config())) == row["prompt"]


def test_with_worked_examples_the_request_shows_their_place_and_how_many_there_are():
    text = integration(prompt={"n_few_shot": 3, "system": "S"})
    assert [message["role"] for message in messages_of(text)] == ["system", "user", "assistant", "user"]
    assert "`n_few_shot` is 3" in text and "n_few_shot" not in integration()


def test_the_normalization_of_the_guide_is_what_the_task_type_does():
    import unicodedata

    text = integration(data={"normalize": ["nfkc"]})
    before, after = re.search(r"`([^`]*)` becomes `([^`]*)`", text).groups()
    assert before != after == unicodedata.normalize("NFKC", before)
    assert "NFKC" not in integration()


@every_language
def test_answers_stand_beside_their_labels_and_the_parser_is_shown_as_it_is(language):
    from tasklib.task_types import classification

    made = definition(language=language)
    text = guides.integration_guide(made, config())
    assert row_with(text, "利多") == ["利多", "good"] and row_with(text, "利空") == ["利空", "bad"]
    words = INTEGRATION[language]
    (table,) = [table for table in tables(text) if table[0] == [words["written"], words["parsed_as"]]]
    results = {json.loads(written): label for written, label in table[1:]}
    assert {"利多", "", "利多 利空"} <= set(results)
    for written, label in results.items():
        assert label == (classification.parse(written, made.task) or words["unparsable"])


@pytest.mark.parametrize("decoding", ["score", "generate"])
@every_language
def test_the_output_that_is_shown_has_the_keys_that_predict_writes(language, decoding):
    """The keys come out of predict.py's own source."""
    tree = ast.parse((BUNDLE / "scripts/task/predict.py").read_text(encoding="utf-8"))
    dicts = [[key.value for key in node.keys] for node in ast.walk(tree) if isinstance(node, ast.Dict) and node.keys
             and all(isinstance(key, ast.Constant) for key in node.keys)]  # fmt: skip
    (row_keys,) = [keys for keys in dicts if "prediction" in keys]
    text = integration(language=language, evaluation={"decoding": decoding})
    (shown,) = [value for value in map(json.loads, blocks(text, "json")) if isinstance(value, dict)]
    (row,) = shown["outputs"]["predictions"]
    assert list(row) == row_keys
    (explained,) = [table for table in tables(text) if table[0][0] == INTEGRATION[language]["key"]]
    assert [cells[0] for cells in explained[1:]] == row_keys
    assert (row["probabilities"] is None, row["raw_output"] is None) == (decoding == "generate", decoding == "score")
    if decoding == "score":
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_the_settings_are_those_of_the_config():
    run = config(generation={"max_new_tokens": 33, "batch_size": 5}, base_model={"id": "me/model", "revision": "abc"})
    text = integration(run)
    expected = {"generation.max_new_tokens": "33", "generation.batch_size": "5", "base_model.id": "me/model"}
    for key, value in {**expected, "base_model.revision": "abc", "adapter.type": "lora"}.items():
        assert row_with(text, key) == [key, value]


# Programs of the guide.


@pytest.fixture
def task(tmp_path):
    """A task whose column has quotes, and `uv run` that uses the Python of the tests."""
    rows = [{'the "title"': row["title"], "mood": row["mood"]} for row in news(30)]
    fields = {"fields": {"text": 'the "title"', "label": "mood"}}
    made = make_task(tmp_path / "任務 folder's", {"a.jsonl": jsonl(*rows)}, data=fields)
    shim = tmp_path / "bin" / "uv"
    shim.parent.mkdir()
    shim.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "run python" ] || exit 9\nshift 2\nexec {shlex.quote(sys.executable)} "$@"\n'
    )
    shim.chmod(0o755)
    return made, {**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}"}


def run_snippet(task, environment):
    text = guides.integration_guide(schema.load_definition(task.folder / "task_definition.yaml"), config())
    code = blocks(text, "python")[0]
    return subprocess.run(
        [sys.executable, "-c", code], cwd=task.folder, env=environment, capture_output=True, encoding="utf-8"
    )


def test_the_program_of_the_guide_tells_why_there_is_no_answer_before_training(task):
    done = run_snippet(*task)
    assert done.returncode == 1
    assert "RuntimeError" in done.stderr and "run_not_finished" in done.stderr and "03_train.py" not in done.stdout


WITHOUT_MODEL = """
import sys
from tasklib.training import runs
from tasklib.answering import inference
from tasklib.model import models, tokenized

names = [(models, "load_tokenizer"), (models, "load_trained"), (runs, "require_same_identity"),
         (inference, "require_same_prompt")]
for module, name in names:
    setattr(module, name, lambda *args, **rest: None)
runs.finished_run = lambda paths, name: type("Record", (), {"prompt_sha256": None})
tokenized.fitted = lambda tokenizer, definition, config, rows: ([row["prompt"] for row in rows], [])
inference.answers = lambda definition, config, model, tokenizer, conversations, prior=None: iter([(
    list(range(len(conversations))),
    [inference.Answer("good" if "成長" in turns[-1]["content"] else None, None, None) for turns in conversations],
)])
import trained_predict

raise SystemExit(trained_predict.main())
"""


def test_the_program_of_the_guide_prints_the_label_that_predict_answers(task):
    """predict.py as it is reads the rows and writes the JSON; only the model behind it is replaced."""
    made, environment = task
    scripts = made.folder / "scripts"
    (scripts / "predict.py").rename(scripts / "trained_predict.py")
    (scripts / "predict.py").write_text(WITHOUT_MODEL, encoding="utf-8")
    done = run_snippet(made, environment)
    assert (done.returncode, done.stdout) == (0, "good\n"), done.stderr


@every_language
def test_every_command_of_a_guide_parses_with_the_scripts_own_parser(language):
    found = []
    for text in (annotation(language=language), integration(language=language)):
        pieces = [line for block in blocks(text, "bash") for line in block.splitlines()]
        pieces += [
            child.content for token in parsed(text) for child in token.children or () if child.type == "code_inline"
        ]
        found += [piece for piece in pieces if piece.startswith("uv run python scripts/")]
    assert len(found) >= 9
    assert {"label_with.py", "predict.py", "01_validate_data.py"} <= {re.search(r"scripts/(\S+)", c)[1] for c in found}
    for command in found:
        words = shlex.split(command.split(" < ")[0])
        script = BUNDLE / "scripts" / "task" / words[words.index("python") + 1].removeprefix("scripts/")
        if script.parent.name == "task":
            parser_of(script).parse_args(words[words.index("python") + 2 :])


def test_the_guides_name_no_part_that_does_not_exist():
    text = annotation() + integration()
    for name in set(re.findall(r"scripts/([\w/]+\.(?:py|sh))", text)):
        assert (BUNDLE / "scripts" / "task" / name).is_file(), name


# What is in the data never comes alive.

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=y>", "[x](http://evil.example)", "![x](http://evil.example/p.png)",
    "a | b | c", "# x", "- x", "1. x", "> x", "***", "`code`", "```\n# x\n```", "~~~\n<b>", "\\", "|", "&lt;b&gt;",
    "$x$", "**b** _i_", "</details>", "<!--", "\u2028# x", "x\n\n<b>y</b>\n\n# z", "````", "---",
]  # fmt: skip


def hostile_guides(hostile):
    """Both guides with the text in every place that data or definition fill."""
    labels = {"good": f"A {hostile}", "bad": "利空"}
    sections = {
        "description": hostile,
        "prompt": {"instruction": f"I {hostile}", "system": f"S {hostile}"},
        "task": {"labels": labels, "label_definitions": {"good": f"D {hostile}"}},
        "data": {"fields": {"text": f"T {hostile}", "label": "mood"}, "normalize": ["nfkc"]},
    }
    return [
        annotation(
            {"good": [hostile], "bad": [f"{hostile} x"]},
            [Decision(hostile, hostile, hostile)],
            [Contradiction(hostile, ((hostile, hostile), ("bad", "a:1")))],
            **sections,
        ),
        integration(**sections),
    ]


def structure(text):
    """The blocks of a page and the inline markup in each of them, without the text."""
    plain = ("text", "text_special", "softbreak")
    return [
        (token.type, token.tag, token.info, [child.type for child in token.children or () if child.type not in plain])
        for token in parsed(text)
    ]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_markup_in_data_and_definition_stays_text(hostile):
    for page, plain in zip(hostile_guides(hostile), hostile_guides("plain"), strict=True):
        assert structure(page) == structure(plain)


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("ab `*_|<>[]()!#-~\\&$\n1.:\"'{}"), min_size=1, max_size=30).filter(str.strip))
def test_no_text_changes_the_structure_of_a_guide(text):
    assume(fold(f"A {text}") != fold("利空"))
    for page, plain in zip(hostile_guides(text), hostile_guides("plain"), strict=True):
        assert structure(page) == structure(plain)


def test_a_code_block_ends_where_the_guide_ends_it():
    for text in ("```", "a ```` b", "`````\n```", "plain"):
        (fence,) = [token for token in parsed(guides.fenced(text, "x")) if token.type == "fence"]
        assert fence.content == text + "\n"


# A task type without a closed set.


@every_language
def test_a_task_type_with_open_answers_gets_guides_without_labels(monkeypatch, language):
    from tasklib.task_types import classification

    made = definition(language=language)
    open_answers = types.SimpleNamespace(**{**vars(classification), "label_set": lambda options: None})
    monkeypatch.setattr(schema.task_types, "load", lambda name: open_answers)
    annotated = guides.annotation_guide(made, {"x": ["text"]}, [], [])
    integrated = guides.integration_guide(made, config())
    absent = {ANNOTATION[language][key] for key in ("sheet", "agreement")} | {INTEGRATION[language]["answers"]}
    assert absent & {*headings(annotated), *headings(integrated)} == set()
    assert ANNOTATION[language]["file"] in headings(annotated)
    assert messages_of(integrated)


# Every task type, in every form of its raw rows.


EVERY_FORM = [
    pytest.param(name, form, id=f"{name}-{'+'.join(form.required)}")
    for name in task_types.names()
    for form in task_types.load(name).FORMS
]
every_form = pytest.mark.parametrize(("name", "form"), EVERY_FORM)


@every_form
def test_the_file_of_any_type_that_the_guide_shows_is_read_without_a_fault(tmp_path, name, form):
    made = definition_of(name, form)
    text = guides.annotation_guide(made, {}, [], [])
    sample = [token.content for token in parsed(text) if token.type == "fence" and token.info in ("csv", "json")][-1]
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "a.jsonl").write_text(sample, encoding="utf-8")
    data = dataset.scan(TaskPaths(tmp_path), made)
    assert data.findings.errors == [] and len(data.index) in (1, 2)


@every_form
def test_the_guides_of_any_type_show_rows_of_the_data_where_there_are_some(name, form):
    made = definition_of(name, form)
    own, _ = forms.examples(made)[-1]
    marked = {column: {"own": role} for role, column in made.data.fields.items()}
    text = guides.annotation_guide(made, {}, [], [], [marked])
    is_open = made.task_type.label_set(made.task) is None
    assert (ANNOTATION["en"]["file_example_own"] in text) == is_open == ('{"own"' in text)
    asked, _ = forms.example_input(made, own)
    assert messages_of(guides.integration_guide(made, config(), None, own)) == prompts.asked(made, [], asked)


@every_form
def test_every_role_has_a_name_in_chinese(name, form):
    assert {*form.required, *form.optional} <= {*ANNOTATION["zh-TW"]["roles"]}


@pytest.mark.parametrize("offsets", [{}, {"end": "inclusive"}, {"unit": "utf16"}])
def test_the_guide_of_entities_says_how_their_offsets_count(offsets):
    made = definition_of("ner", task_types.load("ner").FORMS[0])
    made = made.model_copy(
        update={"task": made.task.model_copy(update={"offsets": type(made.task.offsets)(**offsets)})}
    )
    words, text = ANNOTATION["en"], guides.annotation_guide(made, {}, [], [])
    assert words["ends"][offsets.get("end", "exclusive")] in text
    assert words["units"][offsets.get("unit", "code_points")] in text


@every_form
@every_language
def test_the_guides_of_any_type_have_no_empty_section_and_no_place_left_open(name, form, language):
    made = definition_of(name, form, language)
    for text in (guides.annotation_guide(made, {}, [], []), guides.integration_guide(made, config())):
        lines = [line for line in text.splitlines() if line.strip()]
        titles = [n for n, line in enumerate(lines) if re.match("#+ ", line)]
        empty = [
            n
            for n in titles
            if n + 1 == len(lines) or (n + 1 in titles and lines[n].count("#") == 2 == lines[n + 1].count("#"))
        ]
        assert [lines[n] for n in empty] == []
        prose = re.sub(r"^(`{3,}).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
        assert not re.search(r"\{[a-z_]+\}", prose)


@every_form
@every_language
def test_every_key_of_the_task_that_the_annotation_guide_names_is_one_that_it_has(name, form, language):
    made = definition_of(name, form, language)
    named = re.findall(r"`task\.(\w+)`", guides.annotation_guide(made, {}, [], []))
    assert set(named) <= set(type(made.task).model_fields)


@every_form
def test_the_request_of_any_type_is_that_of_a_row_to_predict(name, form):
    made = definition_of(name, form)
    asked, _ = forms.example_input(made)
    assert messages_of(guides.integration_guide(made, config())) == prompts.asked(made, [], asked)


@every_form
def test_the_call_that_the_guide_of_any_type_shows_is_taken_by_predict(tmp_path, name, form):
    """What predict.py makes of the shown argument is the shown request, and its keys are the shown ones."""
    made = definition_of(name, form)
    text = guides.integration_guide(made, config())
    command = shlex.split(next(block for block in blocks(text, "bash") if "predict.py" in block))
    parser = parser_of(BUNDLE / "scripts" / "task" / "predict.py")
    script = runpy.run_path(str(BUNDLE / "scripts" / "task" / "predict.py"))
    (row,) = script["_rows"](parser.parse_args(command[command.index("python") + 2 :]), TaskPaths(tmp_path), made)
    assert row["prompt"] == messages_of(text)
    (shown,) = [
        value for value in map(json.loads, blocks(text, "json")) if isinstance(value, dict) and "stage" in value
    ]
    assert shown["outputs"]["predictions"][0]["text"] == made.task_type.text_of(made.task_type.Record(**row["record"]))


@pytest.mark.parametrize("name", task_types.names())
def test_every_type_whose_answers_are_no_labels_has_words_of_its_own(name):
    module = task_types.load(name)
    for language in LANGUAGES:
        assert module.label_set(module.EXAMPLE_OPTIONS) is not None or name in OF_TYPE[language]


def test_a_row_of_several_fields_that_is_no_json_object_is_refused_with_an_example(tmp_path):
    made = definition_of("generation", task_types.load("generation").FORMS[-1])
    script = runpy.run_path(str(BUNDLE / "scripts" / "task" / "predict.py"))
    args = script["build_parser"]().parse_args(["who?", '["x"]'])
    with pytest.raises(TaskError) as caught:
        script["_rows"](args, TaskPaths(tmp_path), made)
    assert caught.value.exit_code == 2 and [p.code for p in caught.value.problems] == ["not_a_row"] * 2
    assert '{"the context": "…", "the question": "…"}' in caught.value.problems[0].hint
