"""task_definition.yaml and configs/<run>.yaml: what they may hold, and how every mistake is told."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from conftest import BUNDLE
from tasklib import schema
from tasklib.cli import ExitCode
from tasklib.documents import parse_yaml
from tasklib.schema import OWNED_ADAPTER_FIELDS, OWNED_TRAINING_FIELDS, RENAMED_TRAINING_FIELDS
from tasklib.summary import Problem, TaskError
from tasklib.upstream_fields import DPO_FIELDS, LORA_FIELDS, ORPO_FIELDS, SFT_FIELDS

DEFINITION = """\
# task_definition.yaml: the contract over all runs
schema_version: 1
name: financial-sentiment
description: 判斷財經新聞標題的情感
language: zh-TW
task:
  type: classification
  labels: {positive: 正面, negative: 負面, neutral: 中性}
prompt:
  system: null
  instruction: 判斷下列財經新聞標題的情感。
  n_few_shot: 0
data:
  files: {all: [data/raw/news.csv]}
  fields: {text: 標題, label: 情感}
  normalize: []
  split: {validation: 0.1, test: 0.2, seed: 42, group_by: null}
evaluation:
  primary_metric: macro_f1
  decoding: score
  target: 0.85
  must_beat: [majority, tfidf_logreg, zero_shot]
compute:
  target: local
hub: {repo_id: null, private: true, license: null}
"""
CONFIG = """\
# configs/baseline.yaml: the first run
schema_version: 1
parent: null
hypothesis: LoRA on a small instruct model reaches the target
base_model:
  id: Qwen/Qwen3-0.6B
  revision: main
  dtype: auto
  attn_implementation: auto
  trust_remote_code: false
method: sft
adapter:
  type: lora
  r: 16
  lora_alpha: 32
  lora_dropout: 0.0
  target_modules: auto
training:
  num_train_epochs: 3
  learning_rate: 2e-4
  per_device_train_batch_size: 8
  max_length: 512
  seed: 42
generation: {max_new_tokens: 16}
"""
SMALLEST_DEFINITION = """\
schema_version: 1
name: a
task: {type: classification, labels: [x, y]}
data: {files: {all: [a.csv]}, fields: {text: t, label: l}}
"""
SMALLEST_CONFIG = "schema_version: 1\nbase_model: {id: some/model}\n"


def definition(text: str = DEFINITION) -> schema.TaskDefinition:
    return schema.check_definition(parse_yaml(text, "task_definition.yaml"))


def config(text: str = CONFIG, *overrides: str) -> schema.RunConfig:
    return schema.check_config(parse_yaml(text, "configs/baseline.yaml"), overrides)


def changed(text: str, old: str, new: str) -> str:
    """`text` with one passage replaced, which must stand there exactly once."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


def problems_of(load: Any, *arguments: str) -> list[Problem]:
    """Everything that a document which must be refused is told; each problem names file, key and a way out."""
    with pytest.raises(TaskError) as caught:
        load(*arguments)
    assert caught.value.exit_code == ExitCode.USAGE
    problems = caught.value.problems
    assert problems
    for problem in problems:
        assert problem.file in ("task_definition.yaml", "configs/baseline.yaml", "--set")
        assert problem.field and problem.message and problem.hint
    return problems


def places(problems: list[Problem]) -> list[tuple]:
    return [(p.code, p.field, p.line) for p in problems]


# What is legal.


def test_the_definition_of_the_manual_loads_with_every_value_as_written():
    loaded = definition()
    assert (loaded.name, loaded.language, loaded.description) == (
        "financial-sentiment", "zh-TW", "判斷財經新聞標題的情感",
    )  # fmt: skip
    assert loaded.task.labels == {"positive": "正面", "negative": "負面", "neutral": "中性"}
    assert loaded.prompt.instruction == "判斷下列財經新聞標題的情感。"
    assert [spec.path for spec in loaded.data.files["all"]] == loaded.data.raw_paths == ["data/raw/news.csv"]
    assert loaded.data.fields == {"text": "標題", "label": "情感"}
    assert (loaded.data.split.validation, loaded.data.split.test, loaded.data.split.seed) == (0.1, 0.2, 42)
    assert (loaded.primary_metric, loaded.evaluation.target) == ("macro_f1", 0.85)
    assert loaded.evaluation.must_beat == ["majority", "tfidf_logreg", "zero_shot"]
    assert (loaded.hub.repo_id, loaded.hub.private) == (None, True)
    assert loaded.task_type.__name__.endswith("classification")


def test_the_config_of_the_manual_loads_with_every_value_as_written():
    loaded = config()
    assert loaded.base_model.id == "Qwen/Qwen3-0.6B"
    assert loaded.adapter.type == "lora"
    assert loaded.adapter.peft_fields == {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "auto"}
    assert loaded.training.learning_rate == 2e-4
    assert (loaded.training.num_train_epochs, loaded.training.max_length, loaded.training.seed) == (3, 512, 42)
    assert loaded.generation.max_new_tokens == 16
    assert loaded.base_model.trust_remote_code is False


def test_what_a_short_definition_leaves_out_has_the_values_of_the_manual():
    short, long = definition(SMALLEST_DEFINITION), definition()
    assert short.data.split == long.data.split
    assert short.primary_metric == long.primary_metric
    assert (short.evaluation.decoding, short.evaluation.must_beat) == (
        long.evaluation.decoding, long.evaluation.must_beat,
    )  # fmt: skip
    assert (short.prompt.system, short.prompt.n_few_shot) == (None, 0)
    assert (short.hub, short.compute, short.language) == (long.hub, long.compute, long.language)
    assert short.evaluation.target is None


def test_what_a_short_config_leaves_out_has_the_values_of_the_manual():
    short, long = config(SMALLEST_CONFIG), config()
    assert short.adapter == long.adapter
    assert short.training == long.training
    assert short.generation == long.generation
    assert short.method == long.method


def test_a_whole_number_serves_where_a_fraction_is_legal():
    assert config(changed(CONFIG, "lora_dropout: 0.0", "lora_dropout: 0")).adapter.peft_fields["lora_dropout"] == 0
    assert config(changed(CONFIG, "seed: 42", "weight_decay: 1")).training.model_extra["weight_decay"] == 1
    assert config(changed(CONFIG, "num_train_epochs: 3", "num_train_epochs: 3.0")) == config()


def test_labels_may_be_a_plain_list_that_the_model_writes_as_they_are():
    loaded = definition(changed(DEFINITION, "{positive: 正面, negative: 負面, neutral: 中性}", "[yes, no, '0']"))
    assert loaded.task.labels == {"yes": "yes", "no": "no", "0": "0"}


def test_labels_that_are_digits_in_the_data_may_be_written_without_quotes():
    loaded = definition(changed(DEFINITION, "{positive: 正面, negative: 負面, neutral: 中性}", "{0: 負面, 1: 正面}"))
    assert loaded.task.labels == {"0": "負面", "1": "正面"}


@pytest.mark.parametrize(
    "files", ["{all: [a.csv, b.jsonl]}", "{train: [a.csv]}", "{train: [a], validation: [b], test: [c]}"]
)
def test_data_files_are_one_pool_or_named_splits(files):
    text = changed(DEFINITION, "{all: [data/raw/news.csv]}", files)
    loaded = definition(re.sub(r"\n  split: .*", "", text))
    paths = {split: [spec.path for spec in specs] for split, specs in loaded.data.files.items()}
    assert paths == parse_yaml(files, "x").data


def test_shares_that_nothing_is_drawn_for_are_refused_and_a_group_is_not():
    files = "{train: [a], validation: [b], test: [c]}"
    text = changed(DEFINITION, "{all: [data/raw/news.csv]}", files)
    with pytest.raises(TaskError) as caught:
        definition(re.sub(r"\n  split: .*", "\n  split: {validation: 0.1, group_by: who}", text))
    assert [(p.code, p.field) for p in caught.value.problems] == [("unused_key", "data.split.validation")]


@pytest.mark.parametrize("kind", ["lora", "qlora", "dora", "qdora"])
def test_an_adapter_type_says_whether_it_is_quantized_and_uses_dora(kind):
    adapter = config(changed(CONFIG, "type: lora", f"type: {kind}")).adapter
    assert (adapter.is_quantized, adapter.uses_dora) == (kind.startswith("q"), kind.endswith("dora"))
    assert adapter.peft_fields["r"] == 16


def test_full_training_has_no_adapter_fields():
    adapter = config(SMALLEST_CONFIG + "adapter: {type: full}\n").adapter
    assert (adapter.peft_fields, adapter.is_quantized, adapter.uses_dora) == ({}, False, False)


def test_a_field_of_peft_or_trl_passes_through_under_its_own_name():
    text = changed(CONFIG, "target_modules: auto", "target_modules: [q_proj, v_proj]\n  rank_pattern: {q_proj: 8}")
    text = changed(text, "seed: 42", "seed: 42\n  save_strategy: no\n  report_to: [tensorboard]\n  max_steps: 10")
    loaded = config(text)
    assert loaded.adapter.peft_fields["target_modules"] == ["q_proj", "v_proj"]
    assert loaded.adapter.peft_fields["rank_pattern"] == {"q_proj": 8}
    assert loaded.training.model_dump()["save_strategy"] == "no"
    assert loaded.training.model_dump()["report_to"] == ["tensorboard"]
    assert loaded.training.model_dump()["max_steps"] == 10


def test_a_loaded_document_cannot_be_changed():
    models = list(_models(definition())) + list(_models(config()))
    assert {type(model).__name__ for model in models} >= {
        "PromptSpec", "SplitSpec", "DataSpec", "EvaluationSpec_classification", "ComputeSpec", "HubSpec", "Options",
        "BaseModelSpec", "AdapterSpec", "TrainingSpec", "GenerationSpec", "RunConfig", "TaskDefinition_classification",
    }  # fmt: skip
    for model in models:
        name = next(iter(type(model).model_fields))
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, name, getattr(model, name))


def _models(value: object) -> Any:
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from _models(getattr(value, name))


def test_files_are_loaded_by_path_and_named_in_errors_as_the_user_named_them(tmp_path: Path):
    (tmp_path / "task_definition.yaml").write_text(DEFINITION, encoding="utf-8")
    (tmp_path / "lr.yaml").write_text(changed(CONFIG, "seed: 42", "sed: 42"), encoding="utf-8")
    assert schema.load_definition(tmp_path / "task_definition.yaml") == definition()
    with pytest.raises(TaskError) as caught:
        schema.load_config(tmp_path / "lr.yaml")
    assert (caught.value.problems[0].file, caught.value.problems[0].line) == ("configs/lr.yaml", 23)
    with pytest.raises(TaskError) as caught:
        schema.load_config(tmp_path / "lr.yaml", shown_as="../lr.yaml")
    assert caught.value.problems[0].file == "../lr.yaml"


@pytest.mark.parametrize("load", [schema.load_definition, schema.load_config])
def test_a_document_that_does_not_exist_is_a_missing_prerequisite(load, tmp_path: Path):
    with pytest.raises(TaskError) as caught:
        load(tmp_path / "absent.yaml")
    assert caught.value.exit_code == ExitCode.PREREQUISITE


@pytest.mark.parametrize("load", [definition, config])
@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "just words\n", "12\n"])
def test_a_document_without_keys_is_refused(load, text):
    with pytest.raises(TaskError) as caught:
        load(text)
    assert caught.value.exit_code == ExitCode.USAGE
    assert [p.code for p in caught.value.problems] == ["yaml_not_a_mapping"]


# Mistakes: problem code -> what is written, by what it is replaced, key path, line, and words that must be told.

LABELS = "{positive: 正面, negative: 負面, neutral: 中性}"
FILES = "{all: [data/raw/news.csv]}"


def rows(mistakes: dict[str, list[tuple]]) -> list[tuple]:
    return [
        (code, old, new, field, line, words)
        for code, cases in mistakes.items()
        for old, new, field, line, *words in cases
    ]


DEFINITION_MISTAKES = {
    "unknown_key": [
        ("name: fin", "nmae: x\nname: fin", "nmae", 3, "'nmae'", "did you mean 'name'"),
        ("  n_few_shot: 0", "  n_fewshot: 0", "prompt.n_fewshot", 12, "did you mean 'n_few_shot'", "system"),
        ("private: true", "privat: true", "hub.privat", 25, "did you mean 'private'", "repo_id, private"),
        ("group_by: null", "groupby: x", "data.split.groupby", 17, "did you mean 'group_by'", "seed"),
        ("  target: local", "  target: local\n  server: null", "compute.server", 25, "legal: target"),
        ("  type: classification", "  type: classification\n  label: []", "task.label", 8, "did you mean 'labels'"),
        ("label: 情感", "label: 情感, title: x", "data.fields.title", 15, "'title'", "legal: text, label"),
    ],
    "missing_key": [
        ("name: financial-sentiment\n", "", "name", 2, "add 'name'"),
        ("schema_version: 1\n", "", "schema_version", 2, "add 'schema_version'"),
        ("  fields: {text: 標題, label: 情感}\n", "", "data.fields", 13, "add 'fields'"),
        ("  files: {all: [data/raw/news.csv]}\n", "", "data.files", 13, "add 'files'"),
        ("  labels: {positive: 正面, negative: 負面, neutral: 中性}\n", "", "task.labels", 6, "add 'labels'"),
    ],
    "unknown_task_type": [
        ("type: classification", "type: clasification",
         "task.type", 7, "'clasification'", "did you mean 'classification'"),
        ("  type: classification\n", "", "task.type", 6, "legal: classification"),
        ("type: classification", "type: [classification]", "task.type", 7, "legal: classification"),
    ],
    "illegal_value": [
        ("schema_version: 1", "schema_version: 2", "schema_version", 2, "got 2", "legal: 1"),
        ("language: zh-TW", "language: zh_TW", "language", 5, "'zh_TW'", "did you mean 'zh-TW'", "en"),
        ("decoding: score", "decoding: scores", "evaluation.decoding", 20, "did you mean 'score'", "generate"),
        ("must_beat: [majority,", "must_beat: [majorty,", "evaluation.must_beat[0]", 22, "did you mean 'majority'"),
        ("normalize: []", "normalize: [nfc]", "data.normalize[0]", 16, "'nfc'", "nfkc"),
        ("primary_metric: macro_f1", "primary_metric: f1",
         "evaluation.primary_metric", 19, "'f1'", "macro_f1, accuracy"),
        ("target: local", "target: cloud", "compute.target", 24, "'cloud'", "legal: local"),
        ("target: local", "target: remote", "compute", 23, "no server is named", "remote.py setup"),
        ("files: {all:", "files: {dev: [x], all:", "data.files.dev", 14, "'dev'", "all, train, validation, test"),
        ("target: 0.85", "target: 85", "evaluation.target", 21, "less than or equal to 1", "85"),
        ("target: 0.85", "target: -0.1", "evaluation.target", 21, "greater than or equal to 0"),
        ("validation: 0.1", "validation: 1", "data.split.validation", 17, "less than 1"),
        ("validation: 0.1, test: 0.2", "validation: 0.5, test: 0.5", "data.split", 17, "nothing is left for train"),
        ("n_few_shot: 0", "n_few_shot: 33", "prompt.n_few_shot", 12, "less than or equal to 32", "33"),
        ("name: financial-sentiment", "name: Financial_Sentiment", "name", 3, "Financial_Sentiment", "a-z0-9"),
        ("name: financial-sentiment", "name: " + "a" * 65, "name", 3, "64"),
        ("instruction: 判斷下列財經新聞標題的情感。", 'instruction: ""', "prompt.instruction", 11, "at least 1"),
        ("n_few_shot: 0", "n_few_shot: true", "prompt.n_few_shot", 12, "integer", "True"),
        ("n_few_shot: 0", "n_few_shot: '0'", "prompt.n_few_shot", 12, "integer", "'0'"),
        ("seed: 42", "seed: 4.5", "data.split.seed", 17, "integer", "4.5"),
        ("target: 0.85", "target: high", "evaluation.target", 21, "number", "'high'"),
        ("target: 0.85", "target: true", "evaluation.target", 21, "number", "True"),
        ("private: true", "private: yes", "hub.private", 25, "boolean", "'yes'"),
        ("description: 判斷財經新聞標題的情感", "description: 2", "description", 4, "string", "2"),
        ("files: {all: [data/raw/news.csv]}", "files: {all: data/raw/news.csv}", "data.files.all", 14, "list"),
        ("primary_metric: macro_f1", "primary_metric: [macro_f1]", "evaluation.primary_metric", 19, "string"),
        ("{repo_id: null, private: true, license: null}", "[]", "hub", 25, "dictionary"),
        (FILES, "{all: [a.csv], train: [b.csv]}", "data.files", 14, "either 'all' or train"),
        (FILES, "{test: [b.csv]}", "data.files", 14, "'train' is missing"),
        (FILES, "{all: []}", "data.files", 14, "all has no file"),
        (FILES, "{}", "data.files", 14, "at least 1"),
        ("text: 標題", "text: [標題]", "data.fields.text", 15, "string"),
        ("negative: 負面", "negative: 正面", "task.labels", 8, "正面"),
        (LABELS, "{positive: 正面}", "task.labels", 8, "at least 2"),
        (LABELS, "[正面]", "task.labels", 8, "at least 2"),
        (LABELS, "[a, b, a]", "task.labels", 8, "twice"),
        (LABELS, "{a: x, '': y}", "task.labels", 8, "empty"),
        (LABELS, "{a: x, b: ''}", "task.labels", 8, "empty"),
        (LABELS, "正面", "task.labels", 8, "dictionary"),
    ],
    "missing_field": [
        ("text: 標題, label: 情感", "text: 標題", "data.fields", 15, "'label'", "label: <column"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("code", "old", "new", "field", "line", "words"), rows(DEFINITION_MISTAKES))
def test_a_mistake_in_the_definition_is_told_once_with_its_place_and_a_way_out(code, old, new, field, line, words):
    problems = problems_of(definition, changed(DEFINITION, old, new))
    assert places(problems) == [(code, field, line)]
    told = f"{problems[0].message} {problems[0].hint}"
    assert [word for word in words if word not in told] == []
    assert problems[0].file == "task_definition.yaml"


CONFIG_MISTAKES = {
    "unknown_key": [
        ("method: sft", "metod: sft", "metod", 11, "did you mean 'method'", "adapter, training"),
        ("  dtype: auto", "  dytpe: auto", "base_model.dytpe", 8, "did you mean 'dtype'", "revision"),
        ("{max_new_tokens: 16}", "{max_tokens: 16}", "generation.max_tokens", 24, "did you mean 'max_new_tokens'"),
        ("  lora_alpha: 32", "  lora_alhpa: 32", "adapter.lora_alhpa", 15, "did you mean 'lora_alpha'"),
        ("  type: lora", "  tpye: lora", "adapter.tpye", 13, "did you mean 'type'"),
        ("  learning_rate: 2e-4", "  learning_rat: 2e-4", "training.learning_rat", 20, "did you mean 'learning_rate'"),
        ("  seed: 42", "  xyzzy: 42", "training.xyzzy", 23, "SFTConfig"),
    ],
    "missing_key": [
        ("  id: Qwen/Qwen3-0.6B\n", "", "base_model.id", 5, "add 'id'"),
    ],
    "illegal_value": [
        ("method: sft", "method: kto", "method", 11, "'kto'", "legal: sft"),
        ("type: lora", "type: loar", "adapter.type", 13, "did you mean 'lora'", "qlora, dora, qdora, full"),
        ("dtype: auto", "dtype: fp16", "base_model.dtype", 8, "'fp16'", "float16"),
        ("attn_implementation: auto", "attn_implementation: flash",
         "base_model.attn_implementation", 9, "flash_attention_2"),
        ("trust_remote_code: false", "trust_remote_code: no", "base_model.trust_remote_code", 10, "boolean", "'no'"),
        ("num_train_epochs: 3", "num_train_epochs: 0", "training.num_train_epochs", 19, "greater than 0"),
        ("learning_rate: 2e-4", "learning_rate: -1", "training.learning_rate", 20, "greater than 0", "-1"),
        ("max_length: 512", "max_length: 4", "training.max_length", 22, "greater than or equal to 8"),
        ("max_new_tokens: 16", "max_new_tokens: 0", "generation.max_new_tokens", 24, "greater than or equal to 1"),
        ("learning_rate: 2e-4", "learning_rate: fast", "training.learning_rate", 20, "number", "'fast'"),
        ("learning_rate: 2e-4", "learning_rate: '2e-4'", "training.learning_rate", 20, "number", "'2e-4'"),
        ("seed: 42", "seed: true", "training.seed", 23, "integer", "True"),
        ("max_length: 512", "max_length: null", "training.max_length", 22, "integer", "None"),
    ],
    "illegal_type": [
        ("  r: 16", "  r: '16'", "adapter.r", 14, "'16'", "str", "legal types: int"),
        ("  r: 16", "  r: 16.0", "adapter.r", 14, "float", "legal types: int"),
        ("  r: 16", "  r: true", "adapter.r", 14, "bool", "legal types: int"),
        ("lora_dropout: 0.0", "lora_dropout: null", "adapter.lora_dropout", 16, "null", "float"),
        ("lora_dropout: 0.0", "lora_dropout: 1e999", "adapter.lora_dropout", 16, "inf"),
        ("target_modules: auto", "target_modules: 3", "adapter.target_modules", 17, "list, null, str"),
        ("seed: 42", "weight_decay: '0.1'", "training.weight_decay", 23, "'0.1'", "float"),
        ("seed: 42", "weight_decay: true", "training.weight_decay", 23, "bool", "float"),
        ("seed: 42", "max_steps: false", "training.max_steps", 23, "bool", "int"),
        ("seed: 42", "fp16: 1", "training.fp16", 23, "int", "bool"),
        ("seed: 42", "logging_steps: null", "training.logging_steps", 23, "null", "float"),
        ("seed: 42", "optim: [adamw_torch]", "training.optim", 23, "list", "str"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("code", "old", "new", "field", "line", "words"), rows(CONFIG_MISTAKES))
def test_a_mistake_in_a_config_is_told_once_with_its_place_and_a_way_out(code, old, new, field, line, words):
    problems = problems_of(config, changed(CONFIG, old, new))
    assert places(problems) == [(code, field, line)]
    told = f"{problems[0].message} {problems[0].hint}"
    assert [word for word in words if word not in told] == []
    assert problems[0].file == "configs/baseline.yaml"


@pytest.mark.parametrize("section", ["adapter", "training", "generation", "base_model"])
@pytest.mark.parametrize("value", ["null", "[]", "3", "text"])
def test_a_section_that_is_no_mapping_is_refused(section, value):
    text = (
        "schema_version: 1\n" + ("" if section == "base_model" else "base_model: {id: m}\n") + f"{section}: {value}\n"
    )
    problems = problems_of(config, text)
    assert places(problems) == [("illegal_value", section, text.count("\n"))]


# Keys that another key owns.

OWNED = [("adapter", key, hint) for key, hint in OWNED_ADAPTER_FIELDS.items()] + [
    ("training", key, hint) for key, hint in OWNED_TRAINING_FIELDS.items()
]


def test_there_are_owned_keys_of_both_kinds_and_none_is_owned_by_accident():
    assert {"use_dora", "task_type"} <= set(OWNED_ADAPTER_FIELDS)
    assert {
        "output_dir", "hub_token", "push_to_hub", "resume_from_checkpoint", "trust_remote_code", "model_init_kwargs",
        "completion_only_loss", "eval_packing",
    } <= set(OWNED_TRAINING_FIELDS)  # fmt: skip
    assert not {"r", "lora_alpha", "target_modules"} & set(OWNED_ADAPTER_FIELDS)
    assert not {"learning_rate", "max_length", "seed", "report_to"} & set(OWNED_TRAINING_FIELDS)


@pytest.mark.parametrize(("section", "key", "hint"), OWNED)
@pytest.mark.parametrize("value", ["true", "some text", "null"])
def test_an_owned_key_is_refused_with_the_name_of_its_owner_whatever_its_value(section, key, hint, value):
    problems = problems_of(config, SMALLEST_CONFIG + f"{section}:\n  {key}: {value}\n")
    assert places(problems) == [("owned_key", f"{section}.{key}", 4)]
    assert problems[0].hint == hint


@pytest.mark.parametrize(("section", "key", "hint"), OWNED)
def test_an_owned_key_is_a_field_of_the_pinned_class_so_that_none_outlives_its_field(section, key, hint):
    assert key in {"adapter": LORA_FIELDS, "training": {**SFT_FIELDS, **DPO_FIELDS, **ORPO_FIELDS}}[section]


def hinted(pattern: str) -> list[str]:
    """What the hints of owned keys name, never nothing."""
    names = [name for _, _, hint in OWNED for name in re.findall(pattern, hint)]
    assert names
    return names


def test_every_key_script_and_new_name_that_a_hint_points_to_exists():
    models = {**schema.RunConfig.model_fields, **schema.TaskDefinition.model_fields}
    for name in hinted(r"\b(?:base_model|adapter|training|hub|data)\.[a-z_]+"):
        section, key = name.split(".")
        legal = {*models[section].annotation.model_fields, *(SFT_FIELDS if section == "training" else ())}
        assert key in legal
    for script in hinted(r"scripts/(\w+\.py)"):
        assert (BUNDLE / "scripts" / "task" / script).is_file()
    for field in hinted(r"\bwrite (\w+), its name since"):
        assert field in SFT_FIELDS


@pytest.mark.parametrize("key", sorted(RENAMED_TRAINING_FIELDS))
def test_a_name_that_older_versions_used_is_refused_with_its_new_one(key):
    problems = problems_of(config, SMALLEST_CONFIG + f"training:\n  {key}: 1\n")
    assert places(problems) == [("renamed_key", f"training.{key}", 4)]
    assert problems[0].hint == RENAMED_TRAINING_FIELDS[key]
    assert key not in SFT_FIELDS


@pytest.mark.parametrize("key", ["max_seq_length", "warmup_ratio", "evaluation_strategy", "group_by_length"])
def test_the_new_name_of_a_renamed_key_is_a_field_of_the_pinned_class(key):
    words = set(re.findall(r"\w+", RENAMED_TRAINING_FIELDS[key]))
    assert words & set(SFT_FIELDS)


def test_keys_of_an_adapter_mean_nothing_in_full_training_and_are_refused_in_the_order_of_the_file():
    problems = problems_of(config, SMALLEST_CONFIG + "adapter:\n  r: 16\n  type: full\n  use_dora: true\n  foo: 1\n")
    assert places(problems) == [
        ("owned_key", "adapter.r", 4),
        ("owned_key", "adapter.use_dora", 6),
        ("owned_key", "adapter.foo", 7),
    ]
    assert all("full" in p.message and p.hint == "remove it" for p in problems)


@pytest.mark.parametrize(
    ("class_name", "file", "owned"),
    [
        ("config_class", "03_train.py", OWNED_TRAINING_FIELDS),
        ("LoraConfig", "tasklib/model/peft_reading.py", OWNED_ADAPTER_FIELDS),
    ],
)
def test_what_training_passes_beside_the_fields_of_a_config_can_stand_in_no_config(class_name, file, owned):
    tree = ast.parse((BUNDLE / "scripts" / "task" / file).read_text(encoding="utf-8"))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", None) == class_name]
    calls = [call for call in calls if any(keyword.arg is None for keyword in call.keywords)]
    assert len(calls) == 1
    passed = {keyword.arg for keyword in calls[0].keywords if keyword.arg}
    assert passed
    assert passed <= set(owned)


def test_what_this_project_sets_by_itself_are_fields_of_the_pinned_classes():
    assert schema.LORA_DEFAULTS and set(schema.LORA_DEFAULTS) <= set(LORA_FIELDS)
    for method in schema.METHODS:
        fields = set(schema.TRL_FIELDS[method])
        assert schema.TRAINING_DEFAULTS and {*schema.TRAINING_DEFAULTS, "learning_rate"} <= fields
        assert set(schema.TrainingSpec.model_fields) - schema.EARLY_STOPPING_FIELDS <= fields


# All problems at once.


def test_all_problems_of_a_definition_come_in_one_go():
    text = changed(DEFINITION, "language: zh-TW", "langage: zh-TW")
    text = changed(text, "n_few_shot: 0", "n_few_shot: many")
    text = changed(text, "label: 情感", "lable: 情感")
    text = changed(text, "macro_f1", "f1")
    text = changed(text, "decoding: score", "decoding: scor")
    text = changed(text, "target: 0.85", "target: 85")
    text = changed(text, "name: financial-sentiment\n", "")
    assert sorted(places(problems_of(definition, text)), key=str) == [
        ("illegal_value", "evaluation.decoding", 19),
        ("illegal_value", "evaluation.primary_metric", 18),
        ("illegal_value", "evaluation.target", 20),
        ("illegal_value", "prompt.n_few_shot", 11),
        ("missing_field", "data.fields", 14),
        ("missing_key", "name", 2),
        ("unknown_key", "data.fields.lable", 14),
        ("unknown_key", "langage", 4),
    ]


def test_an_unknown_task_type_does_not_hide_the_other_problems():
    text = changed(DEFINITION, "classification", "clasification")
    text = changed(changed(text, "language: zh-TW", "language: zh"), "target: 0.85", "target: 85")
    assert places(problems_of(definition, text)) == [
        ("unknown_task_type", "task.type", 7),
        ("illegal_value", "language", 5),
        ("illegal_value", "evaluation.target", 21),
    ]


def test_a_definition_with_nothing_but_a_key_is_told_everything_that_is_missing():
    problems = problems_of(definition, "name: a\n")
    assert sorted(p.field for p in problems) == ["data", "schema_version", "task.type"]


def test_all_problems_of_a_config_come_in_one_go():
    text = changed(CONFIG, "method: sft", "method: ppo")
    text = changed(text, "  id: Qwen/Qwen3-0.6B\n", "")
    text = changed(text, "  r: 16", "  r: big\n  use_dora: true\n  lora_alfa: 1")
    text = changed(text, "learning_rate: 2e-4", "learning_rate: fast\n  max_seq_length: 9\n  weight_decay: '0'")
    assert sorted(places(problems_of(config, text)), key=str) == [
        ("illegal_type", "adapter.r", 13),
        ("illegal_type", "training.weight_decay", 23),
        ("illegal_value", "method", 10),
        ("illegal_value", "training.learning_rate", 21),
        ("missing_key", "base_model.id", 5),
        ("owned_key", "adapter.use_dora", 14),
        ("renamed_key", "training.max_seq_length", 22),
        ("unknown_key", "adapter.lora_alfa", 15),
    ]


# --set.


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("training.learning_rate=1e-4", "training", "learning_rate", 1e-4),
        ("training.num_train_epochs=1", "training", "num_train_epochs", 1.0),
        ("training.max_steps=2", "training", "max_steps", 2),
        ("training.save_strategy=no", "training", "save_strategy", "no"),
        ("training.optim_args=a=1,b=2", "training", "optim_args", "a=1,b=2"),
        ("training.report_to=[tensorboard, wandb]", "training", "report_to", ["tensorboard", "wandb"]),
        ("training.bf16_full_eval=true", "training", "bf16_full_eval", True),
        ("training.run_name='12'", "training", "run_name", "12"),
        ("adapter.target_modules=[q_proj]", "adapter", "target_modules", ["q_proj"]),
        ("adapter.type=dora", "adapter", "type", "dora"),
        ("base_model.id=builtin:smollm2-135m", "base_model", "id", "builtin:smollm2-135m"),
        (" training.seed =7", "training", "seed", 7),
    ],
)
@pytest.mark.parametrize("text", [CONFIG, SMALLEST_CONFIG])
def test_set_gives_one_value_by_the_rules_of_a_file(text, override, section, key, value):
    found = config(text, override).model_dump()[section][key]
    assert found == value
    assert type(found) is type(value)


def test_set_leaves_every_other_value_alone():
    before, after = config().model_dump(), config(CONFIG, "training.seed=7").model_dump()
    assert after["training"].pop("seed") == 7
    assert before["training"].pop("seed") == 42
    assert before == after


def test_set_can_empty_a_value_replace_a_section_and_be_given_twice():
    assert config(CONFIG, "hypothesis=").hypothesis is None
    assert config(CONFIG, "adapter={type: full}").adapter.peft_fields == {}
    assert config(CONFIG, "training.seed=1", "training.seed=2").training.seed == 2


@pytest.mark.parametrize(
    ("override", "code", "field", "words"),
    [
        ("training.learning_rat=1", "unknown_key", "training.learning_rat", ["did you mean 'learning_rate'"]),
        ("trainig.seed=1", "unknown_key", "trainig", ["did you mean 'training'"]),
        ("trainig={seed: 1}", "unknown_key", "trainig", ["did you mean 'training'"]),
        ("training.learning_rate=fast", "illegal_value", "training.learning_rate", ["'fast'", "number"]),
        ("adapter.r=16.5", "illegal_type", "adapter.r", ["16.5", "int"]),
        ("adapter.r='16'", "illegal_type", "adapter.r", ["'16'", "int"]),
        ("training.output_dir=elsewhere", "owned_key", "training.output_dir", ["models/<run>/"]),
        ("training.warmup_ratio=0.1", "renamed_key", "training.warmup_ratio", ["warmup_steps"]),
        ("adapter.type=full", "owned_key", "adapter.r", ["full"]),
        ("training=3", "illegal_value", "training", ["dictionary"]),
        ("training.seed=[", "yaml_syntax", "training.seed", []),
        ("training.seed=!!int 3", "yaml_tag", "training.seed", []),
    ],
)
def test_a_mistake_in_set_is_told_as_one_of_the_command_line(override, code, field, words):
    problems = problems_of(config, CONFIG, override)
    first = problems[0]
    assert (first.code, first.field) == (code, field)
    told = f"{first.message} {first.hint}"
    assert [word for word in words if word not in told] == []
    if override != "adapter.type=full":  # the keys that it makes illegal stand in the file
        assert len(problems) == 1
        assert (first.file, first.line) == ("--set", None)
    else:
        assert (first.file, first.line) == ("configs/baseline.yaml", 14)


@pytest.mark.parametrize("override", ["training.seed", "=1", "", ".seed=1", "training..seed=1", "training.=1"])
def test_set_without_a_key_or_a_value_is_refused_with_an_example(override):
    with pytest.raises(TaskError) as caught:
        config(CONFIG, override)
    (problem,) = caught.value.problems
    assert (caught.value.exit_code, problem.code) == (ExitCode.USAGE, "usage")
    assert repr(override) in problem.message and "key=value" in problem.message
    assert "--set training.learning_rate=1e-4" in problem.hint


@pytest.mark.parametrize("override", ["method.x=1", "training.seed.x=1", "base_model.id.x.y=1"])
def test_set_below_a_value_that_has_no_keys_is_refused(override):
    with pytest.raises(TaskError) as caught:
        config(CONFIG, override)
    (problem,) = caught.value.problems
    assert (problem.code, problem.field) == ("usage", override.removesuffix("=1"))
    assert "has no keys" in problem.message


def test_all_overrides_that_cannot_be_read_are_told_at_once():
    with pytest.raises(TaskError) as caught:
        config(CONFIG, "training.seed=[", "nonsense", "method.x=1", "adapter.r='")
    assert [p.code for p in caught.value.problems] == ["yaml_syntax", "usage", "usage", "yaml_syntax"]


def test_mistakes_of_the_file_and_of_set_are_told_together_each_at_its_place():
    problems = problems_of(config, changed(CONFIG, "seed: 42", "sed: 42"), "adapter.r=big")
    assert sorted((p.file, p.field, p.line) for p in problems) == [
        ("--set", "adapter.r", None),
        ("configs/baseline.yaml", "training.sed", 23),
    ]
