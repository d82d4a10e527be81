"""One place renders prompts: what is trained ends its turn, whatever the model's template looks like."""

from __future__ import annotations

import pytest

from tasklib import prompts, tokenized
from tasklib.schema import check_definition
from tasklib.summary import TaskError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (  # as Qwen3: an empty thought is written when thinking is off, in the prompt and in the last turn
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
OTHER_ROLE = (  # as Gemma: the assistant is called model, content is trimmed
    "{% for m in messages %}<|im_start|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "thinking": THINKING, "other role": OTHER_ROLE}


@pytest.fixture
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def definition():
    from tasklib.documents import parse_yaml

    text = """
schema_version: 1
name: demo
task: {type: classification, labels: {p: 正面, n: 負面}}
prompt: {instruction: 判斷。}
data: {files: {all: [a.csv]}, fields: {text: t, label: l}}
"""
    return check_definition(parse_yaml(text, "task_definition.yaml"))


def row(answer: str = "正面") -> dict:
    return {
        "prompt": [{"role": "user", "content": "判斷。\n\n獲利成長"}],
        "completion": [{"role": "assistant", "content": answer}],
        "source": {"file": "a.csv", "line": 7},
    }


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_the_completion_is_the_answer_and_the_end_of_turn_and_nothing_of_the_prompt(tokenizer, template):
    tokenizer.chat_template = template
    assert prompts.render_completion(tokenizer, row()["prompt"], "正面") == "正面<|im_end|>\n"


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_prompt_and_completion_together_are_what_the_template_writes_for_the_whole_turn(tokenizer, template):
    tokenizer.chat_template = template
    messages = [*row()["prompt"], {"role": "assistant", "content": "正面"}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=False)
    prompt = prompts.render_prompt(tokenizer, row()["prompt"])
    assert prompt + prompts.render_completion(tokenizer, row()["prompt"], "正面") == whole


def test_only_the_answer_and_its_end_of_turn_carry_a_label(tokenizer):
    encoded = tokenized.encode(tokenizer, [row()], max_length=64)[0]
    trained = [t for t in encoded["labels"] if t != tokenized.IGNORED]
    assert tokenizer.decode(trained) == "正面<|im_end|>\n"
    assert encoded["input_ids"][-len(trained) :] == trained
    assert len(encoded["labels"]) == len(encoded["input_ids"])


def test_a_row_that_does_not_fit_is_refused_with_its_line_and_the_length_it_needs(tokenizer):
    with pytest.raises(TaskError) as caught:
        tokenized.encode(tokenizer, [row(), row("正面" * 40)], max_length=60)
    (problem,) = caught.value.problems
    assert (caught.value.exit_code, problem.code, problem.file, problem.line) == (3, "too_long", "a.csv", 7)
    assert "training.max_length is 60" in problem.message


def test_a_template_that_does_not_end_the_turn_is_refused(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    with pytest.raises(TaskError) as caught:
        prompts.render_completion(tokenizer, row()["prompt"], "正面")
    assert caught.value.exit_code == 4 and caught.value.problems[0].code == "chat_template"


def test_a_model_without_a_chat_template_is_refused(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(TaskError) as caught:
        prompts.render_prompt(tokenizer, row()["prompt"])
    assert caught.value.problems[0].code == "no_chat_template"


def test_the_prompt_hash_changes_with_template_instruction_and_system_prompt(tokenizer, definition):
    hashes = [prompts.prompt_hash(tokenizer, definition)]
    for changes in ({"instruction": "判斷情感。"}, {"system": "你是分析師。"}):
        prompt = definition.prompt.model_copy(update=changes)
        hashes.append(prompts.prompt_hash(tokenizer, definition.model_copy(update={"prompt": prompt})))
    tokenizer.chat_template = THINKING
    hashes.append(prompts.prompt_hash(tokenizer, definition))
    assert len(set(hashes)) == len(hashes)
    tokenizer.chat_template = CHATML
    assert prompts.prompt_hash(tokenizer, definition) == hashes[0]


def test_the_builtin_model_gets_no_system_prompt_that_nobody_wrote(tokenizer):
    assert prompts.render_prompt(tokenizer, row()["prompt"]).startswith("<|im_start|>user\n")
