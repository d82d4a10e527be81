"""The model card over every task type and method: it parses, says how the model is asked, and its code asks so."""

from __future__ import annotations

import ast
import itertools
import re
from typing import Any

import pytest
from huggingface_hub import ModelCard

import every_type
from tasklib import schema, task_types
from tasklib.data import forms
from tasklib.documents import parse_yaml
from tasklib.export import contract, parity
from tasklib.model import prompts
from tasklib.scoring import evaluation
from tasklib.training import runs
from tasklib.writing import cards
from tasklib.writing.card_texts import MODEL_CARD
from test_report import REPORT, visible_text_of_markdown

EVERY_FORM = [(name, form) for name in every_type.NAMES for form in task_types.load(name).FORMS]
LINK = {"run": "baseline", "method": "sft", "identity": "x", "finished_at": "2026-01-01"}


def record_of(method: str = "sft", chain: Any = ()) -> runs.RunRecord:
    base = {"schema_version": 1, "method": method, "base_model": {"id": "org/model"}}
    config = schema.check_config(parse_yaml(str(base).replace("'", '"'), "configs/baseline.yaml"))
    return runs.RunRecord(
        status="finished", argv=[], config=config.model_dump(mode="json"), identity={"sha256": "x"}, inputs={}, code={},
        environment={"torch": "2"}, hardware={}, seed=42, started_at="2026-01-01", finished_at="2026-01-01",
        counts={"rows": 3}, chain=list(chain),
    )  # fmt: skip


def card_of(made: schema.TaskDefinition, record: runs.RunRecord, served: cards.Served | None = None) -> str:
    data = evaluation.Rows("test", every_type.processed(made), [])
    answers, decoding = every_type.wrong(made), made.evaluation.decoding
    result = evaluation.score(made, data, answers, run="baseline", decoding=decoding, identity="x")
    return cards.model_card(made, record, {"test": result.metrics}, {}, served)


@pytest.mark.parametrize("language", ["zh-TW", "en"])
@pytest.mark.parametrize(("name", "form"), EVERY_FORM)
def test_the_card_of_any_type_parses_and_has_a_table_of_answers_only_for_labels(name, form, language):
    made, words = every_type.definition_of(name, form, language), MODEL_CARD[language]
    card = card_of(made, record_of())
    assert ModelCard(card).data.tags[:2] == [name, "sft"]
    assert (words["answers"] in card) == (made.task_type.label_set(made.task) is not None)
    assert words["decoding"][made.evaluation.decoding] in card
    assert f"| {REPORT[language]['systems']['finetuned']} |" in card or words["finetuned"] in card
    assert made.primary_metric in card and "None" not in visible_text_of_markdown(card.split("---\n")[-1])


@pytest.mark.parametrize(("name", "form"), EVERY_FORM)
def test_the_code_of_the_card_asks_with_the_messages_of_training(name, form):
    made = every_type.definition_of(name, form)
    asked, _ = forms.example_input(made)
    (function,) = [n for n in ast.parse(cards.usage_snippet(made, config())).body if isinstance(n, ast.FunctionDef)]
    (messages,) = [n.value for n in function.body if isinstance(n, ast.Assign) and n.targets[0].id == "messages"]
    arguments = {argument.arg: getattr(asked, argument.arg) for argument in function.args.args}
    assert arguments
    assert eval(ast.unparse(messages), arguments)[-1] == prompts.user_message(made, asked)


def config() -> schema.RunConfig:
    return schema.RunConfig.model_validate(record_of().config)


@pytest.mark.parametrize(("method", "language"), list(itertools.product(schema.METHODS, ["zh-TW", "en"])))
def test_the_card_names_the_method_with_its_page_and_what_the_run_goes_on_from(method, language):
    made = every_type.definition_of("preference", language=language)
    card = card_of(made, record_of(method, [LINK, {**LINK, "run": "second", "method": "orpo"}]))
    assert re.search(rf"\[{method.upper()}\]\(https://huggingface\.co/docs/trl/{method}_trainer\)", card)
    assert f"| {MODEL_CARD[language]['start_from']} | baseline (sft) → second (orpo) |" in card.replace("\\_", "_")
    assert MODEL_CARD[language]["start_from"] not in card_of(made, record_of(method))


@pytest.mark.parametrize("language", ["zh-TW", "en"])
def test_an_export_whose_texts_have_no_score_says_how_many_are_the_same(language):
    made = every_type.definition_of("preference", language=language)
    system = parity.System(
        name="merged", n_rows=9, prompt_check="token_ids", n_prompts_differ=0, n_texts_differ=2, n_not_ended=0,
        primary=evaluation._UNDEFINED, rows_per_s=1.0, median_latency_s=1.0,
    )  # fmt: skip
    sealed = contract.Contract(
        task="tiny", run="baseline", identity="x", trained_at="x", format="merged", base_model="org/model",
        base_revision="main", prompt_sha256="x", system=None, instruction="", normalize=[], n_few_shot=0,
        enable_thinking=False, labels=None, options=made.task.model_dump(), max_length=8, stop=[], stop_token_ids=[],
        decoding=contract.Decoding(evaluated_by="compare", max_new_tokens=8),
        example=contract.Example(messages=[], prompt="", token_ids=[]),
    )  # fmt: skip
    card = card_of(made, record_of(), cards.Served(sealed, system))
    assert MODEL_CARD[language]["compared_texts"].format(n=9, same_prompt=9, same_text=7) in card
