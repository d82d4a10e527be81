"""Free text: the forms of its rows, what is wrong with them, what of a conversation is trained, and its baselines."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from conftest import BUNDLE
from processed_rows import make_config
from task_folder import jsonl, make_task
from tasklib import schema
from tasklib.answering import pieces
from tasklib.answering.inference import Answer
from tasklib.data.answers import Form
from tasklib.documents import parse_yaml
from tasklib.exit_codes import ExitCode
from tasklib.model import builtin, prompts, tokenized
from tasklib.paths import TaskPaths
from tasklib.scoring import evaluation, systems
from tasklib.summary import TaskError
from tasklib.task_types import generation

OPTIONS = generation.EXAMPLE_OPTIONS
USER, BOT = {"role": "user", "content": "你好"}, {"role": "assistant", "content": "請說"}
SYSTEM = {"role": "system", "content": "你是客服。"}
ASKED = {"role": "user", "content": "可以退嗎？"}
REPLY = {"role": "assistant", "content": "可以"}
CONTEXT = "🚧舊鐵橋修復工程今年動工，經費三億元，工期三年。"
N_BYTES = len(CONTEXT.partition("工期")[0].encode())


def read(**values):
    return generation.read_record(values, OPTIONS)


def codes(**values) -> list[str]:
    record, faults = read(**values)
    assert record is None and all(f.message and f.hint and f.role in values for f in faults)
    return [fault.code for fault in faults]


def record(**values):
    found, faults = read(**values)
    assert faults == []
    return found


# Forms


def test_a_prompt_and_its_response_with_a_system_message():
    found = record(prompt="可以退嗎？", response=" 可以\n", system="你是客服。")
    assert (found.prompt, found.response, found.history, found.references) == ("可以退嗎？", "可以", [SYSTEM], ["可以"])
    assert record(prompt="可以退嗎？", response="可以", system=" ").history == []


def test_alpaca_rows_hold_instruction_input_and_earlier_rounds():
    found = record(instruction="改成敬語", input="坐下", output="請坐", history=[["你好", "請說"]], system="你是客服。")
    assert found.prompt == "改成敬語\n\n坐下" and found.history == [SYSTEM, USER, BOT]
    assert record(instruction="說你好", input="", output="你好", history=[], system=None).prompt == "說你好"
    assert record(instruction="說你好", output="你好", history='[["你好", "請說"]]').history == [USER, BOT]


@pytest.mark.parametrize(
    "turns",
    [
        [SYSTEM, USER, BOT, ASKED, REPLY],
        [
            {"from": "system", "value": "你是客服。"},
            {"from": "human", "value": "你好"},
            {"from": "gpt", "value": "請說"},
            {"from": "Human", "value": "可以退嗎？"},
            {"from": "gpt", "value": "可以"},
        ],
        json.dumps([SYSTEM, USER, BOT, ASKED, REPLY]),
    ],
    ids=["openai", "sharegpt", "a cell of a table"],
)
def test_a_conversation_is_its_last_answer_and_what_was_said_before(turns):
    found = record(messages=turns)
    assert (found.prompt, found.response, found.history) == ("可以退嗎？", "可以", [SYSTEM, USER, BOT])


def test_a_document_and_its_summary():
    assert record(document="市圖週一休館。", summary="週一休館").prompt == "市圖週一休館。"


@pytest.mark.parametrize(
    ("answers", "references"),
    [
        ("三億元", ["三億元"]),
        (["三億元", "3億元", "三億元"], ["三億元", "3億元"]),
        ({"text": ["三億元"], "answer_start": [15]}, ["三億元"]),
        ([{"text": "三億元", "answer_start": 15}, {"text": " 億元", "answer_start": -1}], ["三億元", "億元"]),
        ([{"text": "三億元"}, {"text": "三億", "answer_start": None, "id": "2"}], ["三億元", "三億"]),
        ('{"text": ["三億元"], "answer_start": [15]}', ["三億元"]),
    ],
    ids=["a text", "several", "the Hub's SQuAD", "SQuAD's file", "without offsets", "a cell of a table"],
)
def test_answers_to_a_question_come_in_every_shape(answers, references):
    found = record(context=CONTEXT, question="多少錢？", answers=answers)
    assert found.references == references and found.response == references[0]
    assert generation.gold(found) == references


def test_a_row_to_be_answered_needs_no_answer_and_a_conversation_may_end_in_one():
    for turns in ([USER, BOT, ASKED], [USER, BOT, ASKED, REPLY]):
        found, faults = generation.read_input({"messages": turns}, OPTIONS)
        assert faults == [] and (found.prompt, found.history, found.response) == ("可以退嗎？", [USER, BOT], "")
    found, faults = generation.read_input({"context": CONTEXT, "question": "多少錢？"}, OPTIONS)
    assert faults == [] and found.references == []
    assert generation.read_input({"messages": "可以退嗎？"}, OPTIONS)[0].prompt == "可以退嗎？"


# Faults

CONVERSATIONS = {
    "not a list": (3, ["wrong_type"]),
    "no text of JSON": ("你好", ["wrong_type"]),
    "empty": ([], ["empty_field"]),
    "one object": ({"messages": [USER, BOT]}, ["wrong_nesting"]),
    "a list in a list": ([[USER, BOT]], ["wrong_nesting"]),
    "pairs": ([["你好", "請說"], ["a", "b"]], ["wrong_nesting"]),
    "texts": (["你好", "請說"], ["wrong_nesting", "wrong_nesting"]),
    "other keys": ([{"speaker": "a", "text": "b"}, BOT], ["wrong_nesting"]),
    "styles mixed up": ([{"role": "user", "value": "你好"}, BOT], ["missing_content"]),
    "an unknown role": ([{"role": "客人", "content": "你好"}, BOT], ["unknown_role"]),
    "a role that is no text": ([{"role": 1, "content": "你好"}, BOT], ["unknown_role"]),
    "two questions": ([USER, ASKED, REPLY], ["two_user_turns"]),
    "two answers": ([USER, BOT, REPLY], ["two_assistant_turns"]),
    "the answer first": ([BOT, USER, REPLY], ["no_user_turn"]),
    "the answer first behind a system message": ([SYSTEM, BOT, USER, REPLY], ["no_user_turn"]),
    "a system message later": ([USER, SYSTEM, BOT], ["system_not_first"]),
    "two system messages": ([SYSTEM, SYSTEM, USER, BOT], ["system_not_first"]),
    "no answer": ([USER], ["no_assistant_turn"]),
    "a question last": ([USER, BOT, ASKED], ["last_turn_not_assistant"]),
    "an empty turn": ([USER, {"role": "assistant", "content": " "}], ["empty_turn"]),
    "null": ([USER, {"role": "assistant", "content": None}], ["empty_turn"]),
    "parts": ([{"role": "user", "content": [{"type": "text", "text": "a"}]}, BOT], ["wrong_type"]),
    "a tool": ([USER, {"role": "tool", "content": "{}"}, BOT], ["tool_message"]),
    "a call": ([USER, {"role": "assistant", "content": "", "tool_calls": [{}]}], ["tool_message"]),
    "a weight": ([USER, {**BOT, "weight": 0}], ["turn_weight"]),
    "many at once": ([BOT, USER, USER, SYSTEM], ["no_user_turn", "two_user_turns", "system_not_first",
                                                 "last_turn_not_assistant"]),
}  # fmt: skip


@pytest.mark.parametrize(("turns", "expected"), CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_every_fault_of_a_conversation_is_named(turns, expected):
    assert codes(messages=turns) == expected


def test_a_fault_of_a_conversation_names_the_turns():
    (_, faults) = read(messages=[USER, USER, BOT])
    assert "turns 1 and 2 are both of the user" in faults[0].message


PAIRS = {
    "an empty answer": ({"prompt": "a", "response": " "}, ["empty_field"]),
    "no answer": ({"prompt": "a", "response": None}, ["missing_field"]),
    "the answer is the prompt": ({"prompt": "請說", "response": "請說 "}, ["answer_is_prompt"]),
    "the summary is the document": ({"document": "請說", "summary": "請說"}, ["answer_is_prompt"]),
    "everything is wrong": ({"prompt": 3, "response": "", "system": []}, ["wrong_type", "wrong_type", "empty_field"]),
    "broken rounds": (
        {"instruction": "a", "output": "b", "history": [["a"], ["a", ""]]}, ["wrong_nesting", "empty_turn"],
    ),
    "history is text": ({"instruction": "a", "output": "b", "history": "a"}, ["wrong_type"]),
    "an input that is a number": ({"instruction": "a", "output": "b", "input": 3}, ["wrong_type"]),
}  # fmt: skip


@pytest.mark.parametrize(("values", "expected"), PAIRS.values(), ids=PAIRS)
def test_every_fault_of_a_pair_is_named(values, expected):
    assert codes(**values) == expected


def test_copies_are_read_where_they_are_meant():
    options = generation.Options(type="generation", allow_copies=True)
    assert generation.read_record({"prompt": "請說", "response": "請說"}, options)[1] == []


ANSWERS = {
    "none": ([], "no_answer", "what the model is to answer"),
    "none of the Hub": ({"text": [], "answer_start": []}, "no_answer", "what the model is to answer"),
    "empty": (["三億元", ""], "empty_field", "answer 2"),
    "a number": ([3], "wrong_type", "int (3), not text"),
    "printed by Python": ("{'text': ['三億元'], 'answer_start': [15]}", "wrong_type", "json.dumps"),
    "too few offsets": ({"text": ["a", "b"], "answer_start": [1]}, "wrong_nesting", "2 texts and 1 offsets"),
    "an offset that is text": ([{"text": "三億元", "answer_start": "15"}], "wrong_type", "'15'"),
    "counted from 1": ([{"text": "🚧", "answer_start": 1}], "answer_offset", "off by one: it counts from 1"),
    "one too small": ([{"text": "工期", "answer_start": 18}], "answer_offset", "off by one: a character before it"),
    "UTF-16": ([{"text": "工程今年", "answer_start": 7}], "answer_offset", "UTF-16"),
    "bytes": ([{"text": "工期", "answer_start": N_BYTES}], "answer_offset", "bytes"),
    "elsewhere": ([{"text": "三億元", "answer_start": 3}], "answer_offset", "changed after"),
    "outside": ([{"text": "三億元", "answer_start": 900}], "answer_offset", "outside the text of 24"),
    "negative": ([{"text": "三億元", "answer_start": -7}], "answer_offset", "outside the text"),
    "absent": ([{"text": "五億元", "answer_start": 3}], "answer_not_in_context", "leave answer_start out"),
    "simplified": ([{"text": "旧铁桥", "answer_start": 1}], "answer_not_in_context", "simplified"),
    "width": ([{"text": "三億元,", "answer_start": 15}], "answer_not_in_context", "width"),
}  # fmt: skip


@pytest.mark.parametrize(("answers", "code", "said"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_its_text_does_not_hold_is_named_with_the_likely_cause(answers, code, said):
    assert codes(context=CONTEXT, question="多少錢？", answers=answers) == [code]
    (fault,) = read(context=CONTEXT, question="多少錢？", answers=answers)[1]
    assert said in f"{fault.message} {fault.hint}"


def test_every_wrong_offset_of_a_row_is_told_at_once():
    answers = [{"text": "三億元", "answer_start": 16}, {"text": "五億元", "answer_start": 15}]
    assert codes(context=CONTEXT, question=" ", answers=answers) == [
        "empty_field", "answer_offset", "answer_not_in_context",
    ]  # fmt: skip


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 99), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from([*"ab", "role", "content", "from", "value", "text", "answer_start"]), inner),
    ),
    max_leaves=12,
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "x", 3]), "content": st.one_of(st.text(), JSON)}
)
SPAN = st.fixed_dictionaries({"text": st.sampled_from(["三", "三億", "x"]), "answer_start": st.integers(-30, 40)})
VALUE = st.one_of(JSON, st.text(), st.lists(TURN, max_size=6), st.lists(SPAN, max_size=3))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(form=st.sampled_from(generation.FORMS), data=st.data())
def test_whatever_a_row_holds_it_is_a_record_that_reads_back_or_faults_of_its_own_roles(form, data):
    values = {role: data.draw(VALUE) for role in (*form.required, *form.optional)}
    for read_row in (generation.read_record, generation.read_input):
        found, faults = read_row(values, OPTIONS)
        assert (found is None) == bool(faults) and {fault.role for fault in faults} <= set(values)
        for fault in faults:
            assert fault.code and fault.message and fault.hint
        if found is not None and (row := generation.raw_row(found, form)):
            again, _ = read_row(row, OPTIONS)
            assert again == found


# What is asked and trained


def test_every_answer_of_a_conversation_is_trained_and_the_last_one_asked():
    found = record(messages=[SYSTEM, USER, BOT, ASKED, REPLY])
    first, second = generation.pieces(found, OPTIONS, training=True)
    assert (first.history, first.prompt, first.response, first.references) == ([SYSTEM], "你好", "請說", ["請說"])
    assert second == found
    assert generation.pieces(found, OPTIONS, training=False) == [found]
    last = generation.Options(type="generation", turns="last")
    assert generation.pieces(found, last, training=True) == [found]


def definition_of(fields=("messages",), **sections):
    document = {
        "schema_version": 1,
        "name": "demo",
        "task": {"type": "generation"},
        "data": {"files": {"all": ["a.jsonl"]}, "fields": {role: role for role in fields}},
        **sections,
    }
    return schema.check_definition(parse_yaml(json.dumps(document), "task_definition.yaml"))


def processed(definition, found, shots=()):
    return {
        "id": "a",
        "source": {"file": "a.jsonl", "line": 1},
        "record": found.model_dump(),
        "prompt": prompts.asked(definition, shots, found),
        "completion": [prompts.assistant_message(definition, found)],
    }


def test_the_pieces_of_a_row_are_conversations_of_their_own():
    definition = definition_of(prompt={"system": "另一個系統訊息"})
    found = record(messages=[SYSTEM, USER, BOT, ASKED, REPLY])
    rows = pieces.of(definition, [processed(definition, found)], training=True).rows
    assert [row["prompt"] for row in rows] == [[SYSTEM, USER], [SYSTEM, USER, BOT, ASKED]]
    assert [row["completion"] for row in rows] == [[BOT], [REPLY]]
    assert len(pieces.of(definition, [processed(definition, found)]).rows) == 1


def test_a_question_is_asked_behind_its_text_and_the_instruction():
    found = record(context=CONTEXT, question="多少錢？", answers="三億元")
    assert generation.prompt(found, OPTIONS, "只寫答案。") == f"只寫答案。\n\n{CONTEXT}\n\n多少錢？"
    assert generation.prompt(found, OPTIONS, "") == generation.text_of(found) == f"{CONTEXT}\n\n多少錢？"


def test_rows_that_ask_for_themselves_get_no_instruction_and_documents_need_one():
    assert prompts.instruction(definition_of()) == ""
    with pytest.raises(TaskError) as error:
        definition_of(("document", "summary"))
    (problem,) = error.value.problems
    assert error.value.exit_code == ExitCode.USAGE and problem.field == "prompt.instruction"
    assert definition_of(("document", "summary"), prompt={"instruction": "寫摘要"}).prompt.instruction == "寫摘要"


@pytest.mark.parametrize("fields", [("prompt",), ("messages", "response"), ("context", "answers")])
def test_fields_that_make_no_form_are_refused(fields):
    with pytest.raises(TaskError):
        definition_of(fields)


@pytest.mark.parametrize("rule", ["keep_start", "keep_end", "keep_both"])
def test_the_text_is_cut_and_not_the_question(rule):
    tokenizer = AutoTokenizer.from_pretrained(builtin.folder("builtin:smollm2-135m"))
    definition = definition_of(("context", "question", "answers"), prompt={"shorten": rule})
    found = record(context=CONTEXT * 40, question="多少錢？", answers="三億元")
    row = processed(definition, found)
    (asked,), shortened = tokenized.fitted(tokenizer, definition, make_config(200), [row])
    assert shortened == [0] and asked[-1]["content"].endswith("\n\n多少錢？") and "…" in asked[-1]["content"]
    assert len(tokenized.encode(tokenizer, definition, make_config(200), [row]).examples[0]["input_ids"]) <= 200


def test_declared_steps_change_everything_that_is_read_and_the_answers():
    found = record(messages=[{**SYSTEM, "content": "Ａ"}, {**USER, "content": "Ｂ"}, {**BOT, "content": "Ｃ"},
                             {**ASKED, "content": "Ｄ"}, {**REPLY, "content": "Ｅ"}])  # fmt: skip
    changed = generation.normalized(found, ["nfkc"], generation.EXAMPLE_OPTIONS)
    assert [turn["content"] for turn in changed.history] == ["A", "B", "C"]
    assert (changed.prompt, changed.response, changed.references) == ("D", "E", ["E"])
    asked = generation.normalized(
        record(context="Ａ", question="Ｂ", answers=["Ｃ", "Ｄ"]), ["nfkc"], generation.EXAMPLE_OPTIONS
    )
    assert (asked.context, asked.references) == ("A", ["C", "D"])
    simplified = record(context="铁桥经费三亿元。", question="经费多少？", answers=["三亿元", "三億元"])
    changed = generation.normalized(simplified, ["opencc_s2twp"], generation.EXAMPLE_OPTIONS)
    assert changed.context == "鐵橋經費三億元。" and changed.prompt == "經費多少？" and changed.references == ["三億元"]


# Validation over files


def task_of(folder, rows, fields, **data):
    """A task of this type over one file of JSON lines."""
    data = {"files": {"all": ["data/raw/a.jsonl"]}, "fields": fields, **data}
    task = make_task(folder, {"a.jsonl": jsonl(*rows)}, data=data)
    path = task.folder / "task_definition.yaml"
    definition = yaml.safe_load(path.read_text(encoding="utf-8")) | {"task": {"type": "generation"}}
    definition["data"]["fields"] = fields
    path.write_text(yaml.safe_dump(definition, allow_unicode=True), encoding="utf-8")
    return task


@pytest.mark.parametrize("form", ["pair", "messages"])
def test_answers_are_looked_at_as_closely_as_questions(tmp_path, form):
    answers = ["請撥 0912-345-678 找他", "壞掉\u0000的字", "好"]
    rows = [{"p": f"第{n}題怎麼辦？", "r": answer} for n, answer in enumerate(answers)]
    if form == "messages":
        rows = [{"m": [{**USER, "content": row["p"]}, {**BOT, "content": row["r"]}]} for row in rows]
    fields = {"messages": "m"} if form == "messages" else {"prompt": "p", "response": "r"}
    outcome = task_of(tmp_path, rows, fields).run("01_validate_data.py", "--dry-run")
    assert outcome.code == ExitCode.DATA
    assert [problem["line"] for problem in outcome.problems("nul_character")] == [2]
    assert [problem["line"] for problem in outcome.problems("personal_data", "warnings")] == [1]


# Splits


def test_questions_about_one_text_stay_on_one_side_of_the_split(tmp_path):
    rows = [
        {"c": f"第{number}座橋長{number * 7}公尺，寬{number}公尺。", "q": question, "a": [f"{number}"]}
        for number in range(30)
        for question in ("多長？", "多寬？", "幾座？")
    ]
    fields = {"context": "c", "question": "q", "answers": "a"}
    task = task_of(tmp_path, rows, fields, split={"near_duplicates": None})
    task.ok("02_convert_format.py")
    sides = {name: {row["record"]["context"] for row in task.rows(name)} for name in ("train", "validation", "test")}
    assert all(len(task.rows(name)) == 3 * len(texts) for name, texts in sides.items())
    assert not sides["train"] & sides["test"] and not sides["train"] & sides["validation"]


def test_the_same_question_in_another_conversation_is_another_row():
    one, other = record(messages=[USER, BOT, ASKED, REPLY]), record(messages=[ASKED, REPLY])
    assert generation.text_of(one) != generation.text_of(other)
    with_system = record(messages=[SYSTEM, ASKED, REPLY])
    assert generation.text_of(with_system) != generation.text_of(other)
    assert generation.passage_of(with_system) == generation.passage_of(other)  # system messages are shared by many rows


# Answers


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (" 可以\n", "可以"),
        ("<think>\n嗯\n</think>\n\n可以", "可以"),
        ("嗯\n</think>可以", "可以"),
        ("<think>還沒想完", None),
        ("<think></think>", None),
        ("", None),
        ("\n ", None),
    ],
)
def test_thoughts_are_no_part_of_an_answer(text, parsed):
    assert generation.parse(text, OPTIONS) == parsed


def test_the_best_of_several_references_counts_in_metrics_and_reward():
    found = record(context=CONTEXT, question="多少錢？", answers=["新台幣三億元", "三億元"])
    for said in ("三億元。", "新台幣三億元"):
        scores = generation.score([generation.gold(found)], [said], OPTIONS)
        assert scores.metrics["exact_match"] == scores.metrics["token_f1"] == scores.metrics["rouge_l"] == 1.0
        assert generation.reward(found, said, OPTIONS) == 1.0
    assert 0 < generation.reward(found, "三億", OPTIONS) < 1
    assert generation.reward(found, "<think>三億元", OPTIONS) == 0.0


def test_an_evaluation_with_several_references_has_intervals_and_no_classes():
    definition = definition_of(("context", "question", "answers"), evaluation={"primary_metric": "token_f1"})
    found = [record(context=f"{CONTEXT}{n}", question="多少錢？", answers=["三億元", "億元"]) for n in range(12)]
    rows = [processed(definition, one) | {"id": str(n)} for n, one in enumerate(found)]
    given = [Answer("三億元" if n % 2 else None, "三億元", None) for n in range(12)]
    data = evaluation.Rows("test", rows, [])
    result = evaluation.score(definition, data, given, run="a", decoding="generate", identity="1")
    assert result.metrics.primary.value == 0.5 and 0 < result.metrics.primary.ci_low < 0.5
    assert result.metrics.per_class == {} and result.metrics.metrics["parse_rate"].value == 0.5
    other = evaluation.score(
        definition, data, [Answer(None, "", None)] * 12, run="b", decoding="generate", identity="2"
    )
    (comparison,) = evaluation.compared(definition, result, {"b": other}).metrics.comparisons
    assert comparison.verdict == "better" and comparison.mcnemar_p_value is None
    result.metrics.model_dump_json()


# Baselines


def test_the_first_sentence_of_a_text_is_its_baseline_and_of_a_text_with_a_question_the_closest_one():
    best = generation.BASELINES["best_sentence"]
    document = record(document="市圖週一休館。還書箱開放！", summary="休館")
    english = record(document="It closed at 3.5 points. Then rain came.", summary="closed")
    asked = record(context="舊鐵橋今年動工。修復經費三億元。明年通車。", question="經費要多少元？", answers="三億元")
    assert best([], [document, english, asked], OPTIONS) == [
        "市圖週一休館。", "It closed at 3.5 points.", "修復經費三億元。",
    ]  # fmt: skip


def test_the_answer_of_the_most_similar_question_is_a_baseline():
    train = [record(prompt="可以退貨嗎？", response="十四天內可以"), record(prompt="幾點開門？", response="九點")]
    rows = [record(prompt="請問幾點開門", response="x"), record(prompt="想退貨可以嗎", response="x")]
    assert generation.BASELINES["nearest_answer"](train, rows, OPTIONS) == ["九點", "十四天內可以"]
    assert generation.BASELINES["nearest_answer"]([], rows, OPTIONS) == [None, None]


def test_a_row_is_written_in_the_form_that_can_hold_it_alone():
    with_history = record(messages=[SYSTEM, USER, BOT, ASKED, REPLY])
    held = [form.required for form in generation.FORMS if generation.raw_row(with_history, form)]
    assert held == [("instruction", "output"), ("messages",)]
    unanswered, _ = generation.read_input({"messages": [USER, BOT, ASKED]}, OPTIONS)
    assert generation.raw_row(unanswered, Form(("messages",))) == {"messages": [USER, BOT, ASKED]}
    asked = record(context=CONTEXT, question="多少錢？", answers=["三億元", "億元"])
    assert [form for form in generation.FORMS if generation.raw_row(asked, form)] == [
        Form(("context", "question", "answers"))
    ]


# The example


EXAMPLE = BUNDLE / "templates/examples/generation"


@pytest.fixture(scope="module")
def replies() -> list[dict]:
    return [json.loads(line) for line in (EXAMPLE / "replies.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_conversation_of_the_example_is_read_and_none_stands_twice(replies):
    found = [record(messages=row["messages"]) for row in replies]
    assert len({generation.text_of(one) for one in found}) == len({one.response for one in found}) == len(found) >= 60
    for one in found:
        generation.text_of(one).encode("big5")  # Simplified characters are not in Big5
        one.response.encode("big5")


def test_the_page_of_the_example_gives_the_true_counts(replies):
    page = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    n_answers = [sum(turn["role"] == "assistant" for turn in row["messages"]) for row in replies]
    n_system = sum(row["messages"][0]["role"] == "system" for row in replies)
    for topic, n in Counter(row["主題"] for row in replies).items():
        assert f"| {topic} | {n} |" in page
    for said in (f"{len(replies)} 段", f"{sum(n > 1 for n in n_answers)} 段有兩輪", f"共 {sum(n_answers)} 句"):
        assert said in page
    assert f"{n_system} 段有自己的" in page and min(n_system, sum(n > 1 for n in n_answers)) > 3


def test_the_answers_of_the_example_make_a_legal_definition():
    answers = parse_yaml((EXAMPLE / "answers.yaml").read_text(encoding="utf-8"), "answers.yaml").data
    baseline = answers.pop("baseline")
    definition = schema.check_definition(parse_yaml(json.dumps({"schema_version": 1, **answers}), "answers.yaml"))
    assert definition.task_type is generation and definition.primary_metric == "rouge_l"
    schema.check_config(parse_yaml(json.dumps({"schema_version": 1, **baseline}), "baseline.yaml"))


# Worked examples


def test_worked_examples_stand_between_a_rows_own_system_message_and_its_turns(monkeypatch, tmp_path):
    definition = definition_of(prompt={"system": "另一個系統訊息"}, evaluation={"n_few_shot": 2})
    shot = record(
        messages=[
            {**SYSTEM, "content": "別人的"},
            {**USER, "content": "早"},
            BOT,
            {**ASKED, "content": "幾點？"},
            REPLY,
        ]
    )
    plain = record(messages=[{**ASKED, "content": "貴嗎？"}, REPLY])
    rows = [processed(definition, record(messages=[SYSTEM, USER, BOT, ASKED, REPLY])), processed(definition, plain)]
    asked = []

    def answers(definition, config, model, tokenizer, conversations, prior=None, *, candidates=None):
        asked.extend(conversations)
        yield list(range(len(conversations))), [Answer("可以", "可以", None) for _ in conversations]

    monkeypatch.setattr(systems.models, "load_base", lambda config: SimpleNamespace(eval=lambda: None))
    monkeypatch.setattr(systems.inference, "answers", answers)
    data = evaluation.Rows("test", rows, [processed(definition, shot)])
    config = make_config(512).model_copy(update={"base_model": schema.BaseModelSpec(id="builtin:smollm2-135m")})
    systems.baseline(TaskPaths(tmp_path), definition, config, data, "few_shot")
    example = [{**USER, "content": "早"}, BOT, {**ASKED, "content": "幾點？"}, REPLY]
    found = sorted(asked, key=len)
    assert found[1] == [SYSTEM, *example, USER, BOT, ASKED]
    assert found[0] == [{**SYSTEM, "content": "另一個系統訊息"}, *example, {**ASKED, "content": "貴嗎？"}]
