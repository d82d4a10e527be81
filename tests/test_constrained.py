"""Answers that are forced to follow a JSON Schema: real decoding by a tiny model of random weights, which alone never
writes JSON."""

from __future__ import annotations

import json

import pytest

from tasklib import schema
from tasklib.data import json_schemas
from tasklib.documents import parse_yaml
from tasklib.exit_codes import ExitCode
from tasklib.model import constrained, decoding
from tasklib.summary import TaskError
from tasklib.task_types import entity_sentiment_pairs, extraction, ner

pytest.importorskip("llguidance")

SHORT = {  # whatever is written under it ends within a few tokens
    "type": "object",
    "properties": {
        "品項": {"enum": ["冷氣", "洗衣機"]},
        "件數": {"type": "integer", "minimum": 1, "maximum": 9},
        "急件": {"type": "boolean"},
        "備註": {"type": ["string", "null"], "maxLength": 4},
    },
    "required": ["品項", "件數", "急件", "備註"],
}
OPTIONS = extraction.Options(type="extraction", json_schema=SHORT)
PROMPTS = ["冷氣不冷", "洗衣機兩台，今天就要", "a", "The dryer is fine, thank you."]


@pytest.fixture(scope="module")
def loaded(tiny_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(tiny_model).eval(), AutoTokenizer.from_pretrained(tiny_model)


def written(loaded, wanted, *, temperature=None, max_new_tokens=90, batch_size=3):
    """The answers to PROMPTS in order; with three rows at once they are padded and end at different steps."""
    import torch

    torch.manual_seed(0)
    model, tokenizer = loaded
    settings = "<|im_end|>\n", max_new_tokens, batch_size, temperature
    found = dict(
        pair
        for rows, texts in decoding.generate(model, tokenizer, PROMPTS, *settings, schema=wanted)
        for pair in zip(rows, texts, strict=True)
    )
    return [found[position] for position in range(len(PROMPTS))]


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [None, 1.0], ids=["greedy", "sampled"])
def test_a_model_that_never_writes_json_writes_nothing_else_when_it_is_constrained(loaded, temperature):
    free = written(loaded, None, temperature=temperature, max_new_tokens=20)
    assert all(extraction.parse(text, OPTIONS) is None for text in free)
    forced = written(loaded, extraction.answer_schema(OPTIONS), temperature=temperature)
    for text in forced:
        assert text.startswith("{") and text.endswith("}")  # it ends where the object does
        assert json_schemas.is_valid(extraction.parse(text, OPTIONS), SHORT), text


@pytest.mark.slow
def test_what_a_row_answers_does_not_depend_on_the_rows_beside_it(loaded):
    wanted = extraction.answer_schema(OPTIONS)
    assert written(loaded, wanted, batch_size=1) == written(loaded, wanted, batch_size=4)


@pytest.mark.slow
def test_an_answer_that_is_cut_off_is_torn_all_the_same(loaded):
    texts = written(loaded, extraction.answer_schema(OPTIONS), max_new_tokens=3)
    assert all(extraction.parse(text, OPTIONS) is None for text in texts)


@pytest.mark.slow
def test_a_pattern_that_llguidance_cannot_follow_is_told_in_its_words(loaded):
    wanted = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(?=x)y$"}}, "required": ["a"]}
    with pytest.raises(TaskError) as error:
        written(loaded, wanted)
    assert error.value.exit_code == ExitCode.USAGE and error.value.problems[0].code == "not_constrainable"


@pytest.mark.parametrize("module", [extraction, ner, entity_sentiment_pairs], ids=lambda module: module.__name__)
def test_every_answer_that_is_trained_follows_the_schema_that_answers_are_forced_to(module):
    import jsonschema
    from llguidance import LLMatcher, LLTokenizer

    wanted = module.answer_schema(module.EXAMPLE_OPTIONS)
    grammar = LLMatcher.grammar_from_json_schema(wanted, overrides=constrained._SEPARATORS)
    bytes_only = LLTokenizer("byte")
    for record in module.EXAMPLES:
        text = module.answer(record, module.EXAMPLE_OPTIONS)
        matcher = LLMatcher(bytes_only, grammar, log_level=0)
        assert matcher.consume_tokens(list(text.encode())), (text, matcher.get_error())
        assert matcher.is_accepting()
        jsonschema.validate(json.loads(text), wanted)


def definition(**task):
    text = {"schema_version": 1, "name": "demo", "task": task, "data": {"files": {"all": ["a"]}, "fields": {}}}
    fields = {"extraction": ("text", "output"), "classification": ("text", "label")}[task["type"]]
    text["data"]["fields"] = {role: role for role in fields}
    return text


def checked(text, **generation):
    config = {"schema_version": 1, "base_model": {"id": "x"}, "generation": generation}
    made = schema.check_definition(parse_yaml(json.dumps(text), "task_definition.yaml"))
    return schema.answer_schema(made, schema.check_config(parse_yaml(json.dumps(config), "configs/a.yaml")))


def test_a_task_whose_answers_are_no_json_cannot_be_constrained():
    labels = definition(type="classification", labels=["a", "b"])
    assert checked(labels, constrained=False) is None
    with pytest.raises(TaskError) as error:
        checked(labels, constrained=True)
    (problem,) = error.value.problems
    assert (error.value.exit_code, problem.field) == (ExitCode.USAGE, "generation.constrained")


def test_a_model_that_thinks_first_cannot_be_constrained():
    text = definition(type="extraction", json_schema=SHORT)
    assert checked(text, constrained=True) == json_schemas.closed(SHORT)
    with pytest.raises(TaskError, match="enable_thinking"):
        checked({**text, "prompt": {"enable_thinking": True}}, constrained=True)


def test_without_the_package_the_command_that_installs_it_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TaskError) as error:
        constrained.require_package()
    assert error.value.exit_code == ExitCode.PREREQUISITE
    assert error.value.problems[0].hint == "uv sync --extra constrained"
