"""Rows become tokens whole: what does not fit is shortened by the declared rule or refused, never the answer."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

import small_tokenizers
from processed_rows import ENGLISH, LONG, make_config, make_definition, make_row, problems_of
from tasklib.model import builtin, prompts, shortening, tokenized
from tasklib.task_types import classification


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(builtin.folder("builtin:smollm2-135m"))


def text_in(messages) -> str:
    return messages[-1]["content"].removeprefix("判斷。\n\n")


def n_prompt_tokens(tokenizer, messages) -> int:
    return len(prompts.token_ids(tokenizer, prompts.render_prompt(tokenizer, messages)))


def test_only_the_answer_and_its_end_of_turn_carry_a_label(tokenizer):
    definition = make_definition()
    encoded = tokenized.encode(tokenizer, definition, make_config(64), [make_row(definition)])
    (example,) = encoded.examples
    trained = [t for t in example["labels"] if t != tokenized.IGNORED]
    assert tokenizer.decode(trained) == "正面<|im_end|>\n"
    assert example["input_ids"][-len(trained) :] == trained
    assert len(example["labels"]) == len(example["input_ids"])
    assert tokenizer.decode(example["input_ids"]).startswith("<|im_start|>user\n判斷。\n\n獲利成長<|im_end|>")
    assert encoded.shortened == []


def test_without_a_rule_every_row_that_does_not_fit_is_named_with_the_length_that_would(tokenizer):
    definition = make_definition()
    rows = [make_row(definition, line=2), make_row(definition, LONG, line=3), make_row(definition, LONG * 2, line=4)]
    found = problems_of(lambda: tokenized.encode(tokenizer, definition, make_config(60), rows))
    assert [(p.code, p.file, p.line) for p in found] == [("too_long", "a.csv", 3), ("too_long", "a.csv", 4)]
    assert "training.max_length is 60" in found[0].message and "prompt.shorten" in found[0].hint
    needed = int(found[0].hint.split("training.max_length to ")[1].split()[0])
    assert len(tokenized.encode(tokenizer, definition, make_config(needed), rows).examples) == 3
    problems_of(lambda: tokenized.encode(tokenizer, definition, make_config(needed - 1), rows))


def test_without_a_rule_nothing_is_cut_for_evaluation(tokenizer):
    definition = make_definition()
    rows = [make_row(definition, LONG)]
    assert tokenized.fitted(tokenizer, definition, make_config(60), rows) == ([rows[0]["prompt"]], [])


@pytest.mark.parametrize("rule", ["keep_start", "keep_end", "keep_both"])
@pytest.mark.parametrize("text", [LONG, ENGLISH], ids=["zh", "en"])
@pytest.mark.parametrize("kind", ["smollm2", "byte level", "sentencepiece-like"])
def test_a_text_is_cut_so_that_its_row_just_fits(tokenizer, kind, text, rule):
    makers = {"byte level": small_tokenizers.byte_level, "sentencepiece-like": small_tokenizers.sentencepiece_like}
    tokenizer = makers[kind]() if kind in makers else tokenizer
    definition, config = make_definition(shorten=rule), make_config(200)
    rows = [make_row(definition, line=2), make_row(definition, text, line=3)]
    conversations, shortened = tokenized.fitted(tokenizer, definition, config, rows)
    assert shortened == [1] and conversations[0] == rows[0]["prompt"]
    kept = text_in(conversations[1])
    assert len(kept) > 30 and kept.count("…") == 1
    start, _, end = kept.partition("…")
    assert text.startswith(start) and text.endswith(end)
    assert {"keep_start": not end, "keep_end": not start, "keep_both": start and end}[rule]
    answers = [
        len(prompts.token_ids(tokenizer, f"{a}{prompts.end_of_turn(tokenizer, rows[0]['prompt'])}"))
        for a in ("正面", "不是正面")
    ]
    used = n_prompt_tokens(tokenizer, conversations[1]) + max(answers)
    assert used <= 200
    longer = text[: len(start) + 8] if rule != "keep_end" else text[-len(end) - 8 :]
    more = {"keep_start": f"{longer}…", "keep_end": f"…{longer}", "keep_both": f"{longer}…{end}"}[rule]
    with_more = [{"role": "user", "content": f"判斷。\n\n{more}"}]
    assert n_prompt_tokens(tokenizer, with_more) + max(answers) > 200


def test_what_is_cut_does_not_depend_on_the_row_s_own_answer_nor_on_other_rows(tokenizer):
    definition, config = make_definition(shorten="keep_both"), make_config(120)
    texts = [LONG, ENGLISH, LONG[7:], ENGLISH * 3]
    short = [make_row(definition, text, "p") for text in texts]
    long = [make_row(definition, text, "n") for text in texts]
    together, _ = tokenized.fitted(tokenizer, definition, config, short)
    assert together == tokenized.fitted(tokenizer, definition, config, long)[0]
    assert together == [tokenized.fitted(tokenizer, definition, config, [row])[0][0] for row in long]
    unlabelled = [{"record": {**row["record"], "label": ""}, "prompt": row["prompt"]} for row in short]  # prediction
    assert together == tokenized.fitted(tokenizer, definition, config, unlabelled)[0]


def test_training_gets_the_text_that_evaluation_gets_and_the_whole_answer(tokenizer):
    definition, config = make_definition(shorten="keep_start"), make_config(120)
    rows = [make_row(definition), make_row(definition, LONG, "n")]
    encoded = tokenized.encode(tokenizer, definition, config, rows)
    conversations, _ = tokenized.fitted(tokenizer, definition, config, rows)
    assert encoded.shortened == [1]
    for example, messages, answer in zip(encoded.examples, conversations, ("正面", "不是正面"), strict=True):
        turn = [*messages, {"role": "assistant", "content": answer}]
        assert tokenizer.decode(example["input_ids"]) == tokenizer.apply_chat_template(turn, tokenize=False)
        assert len(example["input_ids"]) <= 120


def test_instruction_system_message_and_worked_examples_are_never_cut(tokenizer):
    definition = make_definition(shorten="keep_end", system="你是分析師。")
    shot = classification.Record(text="虧損擴大" * 5, label="n")
    row = make_row(definition, LONG, shots=[shot])
    (messages,), _ = tokenized.fitted(tokenizer, definition, make_config(200), [row])
    assert messages[:-1] == row["prompt"][:-1] and len(messages) == 4
    assert messages[-1]["content"].startswith("判斷。\n\n…")


def test_a_row_that_does_not_fit_even_without_its_text_is_named(tokenizer):
    definition = make_definition(shorten="keep_start", instruction="判斷情感。" * 20)
    rows = [make_row(definition, line=2), make_row(definition, LONG, line=3)]
    found = problems_of(lambda: tokenized.fitted(tokenizer, definition, make_config(60), rows))
    assert [(p.code, p.line) for p in found] == [("too_long", 2), ("too_long", 3)]
    assert "even without its text" in found[0].message


def test_texts_longer_than_one_round_are_cut_in_parts(tokenizer, monkeypatch):
    definition, config = make_definition(shorten="keep_start"), make_config(80)
    rows = [make_row(definition, f"{number}{LONG}") for number in range(5)]
    whole = tokenized.fitted(tokenizer, definition, config, rows)
    monkeypatch.setattr(tokenized, "_AT_ONCE", 2)
    assert tokenized.fitted(tokenizer, definition, config, rows) == whole


def test_a_tokenizer_that_cannot_say_where_its_tokens_stand_is_searched_by_characters(tokenizer, monkeypatch):
    definition, config = make_definition(shorten="keep_start"), make_config(120)
    rows = [make_row(definition, ENGLISH)]
    by_token = text_in(tokenized.fitted(tokenizer, definition, config, rows)[0][0])
    monkeypatch.setattr(type(tokenizer), "is_fast", property(lambda self: False))
    by_character = text_in(tokenized.fitted(tokenizer, definition, config, rows)[0][0])
    assert 0 <= len(by_character) - len(by_token) < 10


@pytest.mark.parametrize(
    ("text", "n_characters", "kept"),
    [("é" * 3, 3, "é"), ("👩‍👩‍👧好", 3, ""), ("🇹🇼🇯🇵", 3, "🇹🇼"), ("👍🏽好", 1, ""), ("好👍🏽", 3, "好👍🏽")],
    ids=["accent", "family", "flags", "skin tone", "fits"],
)
def test_a_character_as_people_see_it_stays_whole(text, n_characters, kept):
    text = text.replace("é", "e\u0301")
    spans = [(i, i + 1) for i in range(len(text))]
    kept = kept.replace("é", "e\u0301")
    assert shortening.cut(text, spans, n_characters, "keep_start") == kept + "…"


def test_an_end_never_begins_with_half_a_character():
    text = "好e\u0301🇹🇼"
    spans = [(i, i + 1) for i in range(len(text))]
    ends = [shortening.cut(text, spans, n, "keep_end") for n in range(len(text))]
    assert ends == ["…", "…", "…🇹🇼", "…🇹🇼", "…e\u0301🇹🇼"]


def test_an_answer_that_generation_would_cut_is_named_with_the_value_needed(tokenizer, monkeypatch):
    definition = make_definition()
    rows = [make_row(definition, line=2), make_row(definition, label="n", line=3)]
    n_long = len(prompts.token_ids(tokenizer, "不是正面"))
    assert tokenized.encode(tokenizer, definition, make_config(80, max_new_tokens=n_long - 1), rows)  # scored
    evaluation = definition.evaluation.model_copy(update={"decoding": "generate"})
    definition = definition.model_copy(update={"evaluation": evaluation})
    found = problems_of(lambda: tokenized.encode(tokenizer, definition, make_config(80, n_long - 1), rows))
    assert [(p.code, p.file, p.line) for p in found] == [("answer_too_long", "a.csv", 3)]
    assert f"generation.max_new_tokens to {n_long + 1}" in found[0].hint
    assert tokenized.encode(tokenizer, definition, make_config(80, n_long), rows)
    open_answers = make_definition()
    monkeypatch.setattr(classification, "label_set", lambda options: None)
    assert problems_of(lambda: tokenized.encode(tokenizer, open_answers, make_config(80, n_long - 1), rows)) == found


def test_open_answers_leave_room_for_what_may_be_generated(tokenizer, monkeypatch):
    monkeypatch.setattr(classification, "label_set", lambda options: None)
    definition = make_definition(shorten="keep_start")
    rows = [make_row(definition, LONG)]
    for max_new_tokens in (8, 40):
        (messages,), _ = tokenized.fitted(tokenizer, definition, make_config(120, max_new_tokens), rows)
        assert 0 <= 120 - max_new_tokens - n_prompt_tokens(tokenizer, messages) < 4


def test_an_answer_that_the_template_changes_is_named_with_its_line():
    tokenizer = small_tokenizers.byte_level()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'].replace('不是', '') }}<|end|>{% endfor %}"
    definition = make_definition()
    rows = [make_row(definition, line=2), make_row(definition, label="n", line=3)]
    found = problems_of(lambda: tokenized.encode(tokenizer, definition, make_config(80), rows), exit_code=4)
    assert [(p.code, p.file, p.line) for p in found] == [("chat_template", "a.csv", 3)]


def test_no_rows_are_no_error(tokenizer):
    definition = make_definition(shorten="keep_start")
    assert tokenized.encode(tokenizer, definition, make_config(80), []) == tokenized.Encoded([], [])
    assert tokenized.fitted(tokenizer, definition, make_config(80), []) == ([], [])


def test_statistics_count_tokens_trained_tokens_and_shortened_rows():
    examples = [{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}, {"input_ids": [1] * 5, "labels": [-100] * 4 + [1]}]
    found = tokenized.statistics(examples, n_shortened=1)
    assert (found["n_rows"], found["n_tokens"], found["n_trained_tokens"], found["n_shortened"]) == (2, 8, 3, 1)
    assert found["tokens_per_row"]["max"] == 5 and found["trained_tokens_per_row"]["min"] == 1
