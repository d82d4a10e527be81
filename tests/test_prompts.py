"""One place renders prompts: what is trained ends its turn, whatever the model's template looks like."""

from __future__ import annotations

from datetime import datetime

import pytest
from transformers import AutoTokenizer

import small_tokenizers
from tasklib.documents import parse_yaml
from tasklib.model import builtin, prompts
from tasklib.schema import check_definition
from tasklib.summary import TaskError

TURN = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = "{% for m in messages %}" + TURN + "{% endfor %}" + ASK
THINKING = (  # as Qwen3: an empty thought stands before the last answer, and in the prompt when thinking is off
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
ALWAYS_THINKING = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")  # as DeepSeek-R1
THOUGHT_IN_PROMPT_ONLY = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n\n</think>\n{% endif %}")
NAMED_THOUGHT = (  # the flag is written into the prompt
    "{% if enable_thinking %}<|im_start|>mode\nthink<|im_end|>\n{% endif %}" + CHATML
)
OTHER_ROLE = (  # as Gemma: the assistant is called model, content is trimmed
    "{% for m in messages %}<|im_start|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
CHANNELS = (  # as gpt-oss: the generation prompt stops before the channel; another token ends the last turn
    "{% for m in messages %}<|start|>{{ m['role'] }}{% if m['role'] == 'assistant' %}<|channel|>final{% endif %}"
    "<|message|>{{ m['content'] }}{{ '<|return|>' if loop.last and m['role'] == 'assistant' else '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
TWO_ENDS = CHATML.replace("{% endif %}", "{% else %}{{ eos_token }}{% endif %}")  # as Phi-3
FINE = {
    "chatml": CHATML,
    "thinking": THINKING,
    "always thinking": ALWAYS_THINKING,
    "flag": NAMED_THOUGHT,
    "other role": OTHER_ROLE,
    "channels": CHANNELS,
    "two ends": TWO_ENDS,
}
DEFAULT_SYSTEM = (  # as Qwen2.5 and SmolLM2
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are Q, made by C.<|im_end|>\n{% endif %}" + CHATML
)
STRUCTURAL_SYSTEM = (  # as Llama 3.2 and gpt-oss: a header that is there in any case, with today's date
    "<|im_start|>system\nKnowledge: 2023\nToday: {{ strftime_now('%d %b %Y') }}, {{ strftime_now('%Y-%m-%d') }}\n"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% set messages = messages[1:] %}{% endif %}"
    "<|im_end|>\n" + CHATML
)
NO_SYSTEM = (  # as Gemma 1 and 2
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)
DROPS_SYSTEM = "{% for m in messages if m['role'] != 'system' %}" + TURN + "{% endfor %}" + ASK
MERGES_SYSTEM = (  # as Gemma 3: into the first question
    "{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set first = '' %}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ first if loop.first else '' }}{{ m['content'] }}"
    "<|im_end|>\n{% endfor %}" + ASK
)
QUESTION = [{"role": "user", "content": "判斷。\n\n獲利成長"}]
SYSTEM = [{"role": "system", "content": "你是分析師。"}, *QUESTION]
SHOTS = [{"role": "user", "content": "判斷。\n\n虧損"}, {"role": "assistant", "content": "負面"}, *QUESTION]


@pytest.fixture(scope="module")
def loaded():
    return AutoTokenizer.from_pretrained(builtin.folder("builtin:smollm2-135m"))


@pytest.fixture
def tokenizer(loaded):
    """SmolLM2's tokenizer; a test may give it another template."""
    own = loaded.chat_template
    yield loaded
    loaded.chat_template = own


@pytest.fixture
def definition():
    text = """
schema_version: 1
name: demo
task: {type: classification, labels: {p: 正面, n: 負面}}
prompt: {instruction: 判斷。}
data: {files: {all: [a.csv]}, fields: {text: t, label: l}}
"""
    return check_definition(parse_yaml(text, "task_definition.yaml"))


def with_prompt(definition, **changes):
    return definition.model_copy(update={"prompt": definition.prompt.model_copy(update=changes)})


def problem_of(call):
    with pytest.raises(TaskError) as caught:
        call()
    (problem,) = caught.value.problems
    assert caught.value.exit_code == 4 and problem.code == "chat_template" and problem.hint
    return problem


@pytest.mark.parametrize("enable_thinking", [False, True])
@pytest.mark.parametrize("messages", [QUESTION, SYSTEM, SHOTS], ids=["question", "system", "shots"])
@pytest.mark.parametrize("template", FINE.values(), ids=FINE)
def test_prompt_and_completion_are_what_the_template_makes_of_the_whole_conversation(
    tokenizer, template, messages, enable_thinking
):
    tokenizer.chat_template = template
    turn = [*messages, {"role": "assistant", "content": "正面"}]
    whole = tokenizer.apply_chat_template(turn, tokenize=False, enable_thinking=enable_thinking)
    prompt = prompts.render_prompt(tokenizer, messages, enable_thinking=enable_thinking)
    completion = prompts.render_completion(tokenizer, messages, "正面", enable_thinking=enable_thinking)
    assert prompt + completion == whole
    assert completion.startswith("正面") and "正面" not in prompt.rpartition("獲利成長")[2]


@pytest.mark.parametrize(
    ("template", "before", "completion"),
    [
        (CHATML, "<|im_start|>assistant\n", "正面<|im_end|>\n"),
        (THINKING, "assistant\n<think>\n\n</think>\n\n", "正面<|im_end|>\n"),
        (ALWAYS_THINKING, "<|im_end|>\n<|im_start|>assistant\n", "正面<|im_end|>\n"),
        (THOUGHT_IN_PROMPT_ONLY, "assistant\n<think>\n\n</think>\n", "正面<|im_end|>\n"),
        (CHANNELS, "<|start|>assistant<|channel|>final<|message|>", "正面<|return|>"),
        (TWO_ENDS, "<|im_start|>assistant\n", "正面<|im_end|>\n<|im_end|>"),
    ],
    ids=["chatml", "thinking", "always thinking", "thought in prompt only", "channels", "two ends"],
)
def test_what_stands_between_generation_prompt_and_answer_belongs_to_the_prompt(
    tokenizer, template, before, completion
):
    tokenizer.chat_template = template
    assert prompts.render_prompt(tokenizer, QUESTION).endswith(before)
    assert prompts.render_completion(tokenizer, QUESTION, "正面") == completion
    assert prompts.end_of_turn(tokenizer, QUESTION) == completion.removeprefix("正面")


def test_the_thinking_flag_reaches_the_template_and_the_hash(tokenizer, definition):
    tokenizer.chat_template = NAMED_THOUGHT
    assert "think" not in prompts.render_prompt(tokenizer, QUESTION)
    assert "mode\nthink" in prompts.render_prompt(tokenizer, QUESTION, enable_thinking=True)
    thinking = with_prompt(definition, enable_thinking=True)
    assert prompts.prompt_hash(tokenizer, definition) != prompts.prompt_hash(tokenizer, thinking)


@pytest.mark.parametrize("template", [CHATML, OTHER_ROLE], ids=["as it stands", "trimmed"])
def test_an_answer_may_lose_outer_whitespace_to_the_template_and_nothing_else(tokenizer, template):
    tokenizer.chat_template = template
    turn = [*QUESTION, {"role": "assistant", "content": " 正 面\n"}]
    whole = tokenizer.apply_chat_template(turn, tokenize=False)
    assert "".join(prompts.render(tokenizer, QUESTION, " 正 面\n")) == whole


def test_an_answer_that_the_template_changes_is_refused(tokenizer):
    tokenizer.chat_template = CHATML.replace("m['content'] }}", "m['content'].split('</think>')[-1] }}")
    assert prompts.render_completion(tokenizer, QUESTION, "正面").startswith("正面")
    assert "答案" in problem_of(lambda: prompts.render(tokenizer, QUESTION, "想</think>答案")).message


@pytest.mark.parametrize(
    "template",
    [
        CHATML.replace("{{ m['content'] }}", "{{ m['content'][0]['text'] }}"),
        "{% for m in messages %}{{ m['content'].text.strip() }}<|im_end|>{% endfor %}",
        "{% for m in messages if m['role'] == 'user' %}" + TURN + "{% endfor %}" + ASK,
        "<|im_start|>{% for m in messages if m['role'] == 'assistant' %}" + TURN + "{% endfor %}",
    ],
    ids=["image template", "template that fails", "no answer", "no question"],
)
def test_a_template_that_cannot_be_trained_with_is_refused(tokenizer, template):
    tokenizer.chat_template = template
    problem_of(lambda: prompts.render(tokenizer, QUESTION, "正面"))


@pytest.mark.parametrize("behind", ["", "\n"], ids=["nothing", "a line break"])
def test_an_answer_behind_which_the_template_writes_nothing_ends_with_eos(tokenizer, behind):
    tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}" + behind + "{% endfor %}" + (
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )  # fmt: skip
    assert prompts.render_completion(tokenizer, QUESTION, "正面") == "正面" + behind + tokenizer.eos_token
    assert prompts.render_prompt(tokenizer, QUESTION).endswith("<assistant>")


def test_a_default_system_prompt_of_the_template_is_silenced(tokenizer):
    tokenizer.chat_template = DEFAULT_SYSTEM
    assert "You are Q" in tokenizer.apply_chat_template(QUESTION, tokenize=False)
    for messages in (QUESTION, SHOTS):
        prompt, completion = prompts.render(tokenizer, messages, "正面")
        assert "You are Q" not in prompt and prompt.startswith("<|im_start|>system\n<|im_end|>\n<|im_start|>user\n")
        assert completion == "正面<|im_end|>\n"
    assert "你是分析師。" in prompts.render_prompt(tokenizer, SYSTEM)


def test_a_template_that_takes_an_empty_system_message_for_none_is_refused(tokenizer):
    unless = "{% if messages[0]['role'] != 'system' or not messages[0]['content'] %}System: You are Q.\n{% endif %}"
    tokenizer.chat_template = unless + CHATML
    assert problem_of(lambda: prompts.render_prompt(tokenizer, QUESTION)).field == "prompt.system"
    assert "You are Q" not in prompts.render_prompt(tokenizer, SYSTEM)


@pytest.mark.parametrize("template", [CHATML, MERGES_SYSTEM, NO_SYSTEM], ids=["chatml", "merges", "no system"])
def test_a_template_without_a_default_system_prompt_gets_no_empty_system_message(tokenizer, template):
    tokenizer.chat_template = template
    assert prompts.render_prompt(tokenizer, QUESTION).startswith("<|im_start|>user\n判斷。")


def test_a_header_that_the_template_always_writes_stays_with_one_fixed_date(tokenizer, definition, monkeypatch):
    tokenizer.chat_template = STRUCTURAL_SYSTEM

    def on(year, month, day):
        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return cls(year, month, day)

        from transformers.utils import chat_template_utils

        monkeypatch.setattr(chat_template_utils, "datetime", Clock)
        plain = tokenizer.apply_chat_template(QUESTION, tokenize=False)
        return plain, prompts.render_prompt(tokenizer, QUESTION), prompts.prompt_hash(tokenizer, definition)

    one, other = on(2025, 1, 2), on(2026, 11, 22)
    assert one[0] != other[0] and "02 Jan 2025, 2025-01-02" in one[0]  # the clock does reach the template
    assert one[1:] == other[1:]
    assert one[1].startswith("<|im_start|>system\nKnowledge: 2023\nToday: 26 Jul 2024, 2024-07-26\n<|im_end|>\n")


def test_the_fixed_date_is_one_day_in_every_form():
    day = datetime(2024, 7, 26)
    for code, text in prompts.TEMPLATE_DATE.items():
        assert day.strftime(code) == text


def test_fixing_the_date_changes_nothing_else(tokenizer):
    text = "  {% if strftime_now is defined %}\n  dated{% endif %}\n" + CHATML + "{{ strftime_now('%Y') }}"
    tokenizer.chat_template = text
    whole = tokenizer.apply_chat_template([*QUESTION, {"role": "assistant", "content": "正面"}], tokenize=False)
    assert "".join(prompts.render(tokenizer, QUESTION, "正面")) == whole.replace(f"{datetime.now():%Y}", "2024")


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM], ids=["raises", "drops"])
def test_a_system_message_that_the_template_has_no_place_for_is_refused(tokenizer, template):
    tokenizer.chat_template = template
    assert "prompt.instruction" in problem_of(lambda: prompts.render_prompt(tokenizer, SYSTEM)).hint
    assert prompts.render_prompt(tokenizer, QUESTION)


def test_a_system_message_that_the_template_merges_is_in_the_prompt(tokenizer):
    tokenizer.chat_template = MERGES_SYSTEM
    assert prompts.render_prompt(tokenizer, SYSTEM).startswith("<|im_start|>user\n你是分析師。\n\n判斷。")


@pytest.mark.parametrize("make", [small_tokenizers.byte_level, small_tokenizers.sentencepiece_like])
def test_a_tokenizer_without_a_template_gets_a_plain_one_that_is_saved_with_it(make, definition, tmp_path):
    tokenizer = make()
    size = len(tokenizer)
    prompt, completion = prompts.render(tokenizer, SYSTEM, "正面")
    assert completion == "正面" + tokenizer.eos_token and "你是分析師。" in prompt and len(tokenizer) == size
    assert not prompts.ensure_template(tokenizer)  # it has one now
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert prompts.render(loaded, SYSTEM, "正面") == (prompt, completion)
    assert prompts.prompt_hash(loaded, definition) == prompts.prompt_hash(make(), definition)


def test_ensure_template_says_whether_it_gave_one(tokenizer):
    assert not prompts.ensure_template(tokenizer)
    assert prompts.ensure_template(small_tokenizers.byte_level())


def test_a_tokenizer_with_neither_template_nor_eos_is_refused():
    tokenizer = small_tokenizers.byte_level()
    tokenizer.eos_token = None
    problem_of(lambda: prompts.render_prompt(tokenizer, QUESTION))


def test_bos_stands_once_where_the_tokenizer_writes_one_and_never_else():
    bos = small_tokenizers.sentencepiece_like()
    ids = prompts.token_ids(bos, prompts.render_prompt(bos, QUESTION))
    assert ids.count(bos.bos_token_id) == 1 and ids[0] == bos.bos_token_id
    plain = small_tokenizers.byte_level()
    assert "None" not in prompts.render_prompt(plain, QUESTION)


@pytest.mark.parametrize("make", [None, small_tokenizers.byte_level, small_tokenizers.sentencepiece_like])
def test_prompt_tokens_and_completion_tokens_read_as_the_whole_text(tokenizer, make):
    tokenizer = make() if make else tokenizer
    parts = prompts.render(tokenizer, SHOTS, "正面")
    ids = [prompts.token_ids(tokenizer, part) for part in parts]
    whole = prompts.token_ids(tokenizer, "".join(parts))
    if make is not small_tokenizers.sentencepiece_like:  # puts a space before the completion
        assert ids[0] + ids[1] == whole
    assert whole[: len(ids[0])] == ids[0]
    assert tokenizer.decode(ids[1]) == parts[1]


def test_texts_tokenized_together_have_the_tokens_that_they_have_alone(tokenizer, monkeypatch):
    monkeypatch.setattr(prompts, "_BATCH", 3)
    texts = [f"<|im_start|>第{number}季 margin\n" * (number % 3) for number in range(10)]
    assert prompts.token_ids_of(tokenizer, texts) == [prompts.token_ids(tokenizer, text) for text in texts]
    assert prompts.token_ids_of(tokenizer, []) == []


def test_the_prompt_hash_changes_with_template_instruction_and_system_prompt(tokenizer, definition):
    hashes = [prompts.prompt_hash(tokenizer, definition)]
    for changes in ({"instruction": "判斷情感。"}, {"system": "你是分析師。"}):
        hashes.append(prompts.prompt_hash(tokenizer, with_prompt(definition, **changes)))
    own = tokenizer.chat_template
    tokenizer.chat_template = THINKING
    hashes.append(prompts.prompt_hash(tokenizer, definition))
    assert len(set(hashes)) == len(hashes)
    tokenizer.chat_template = own
    assert prompts.prompt_hash(tokenizer, definition) == hashes[0]


def test_the_builtin_model_gets_no_system_prompt_that_nobody_wrote(tokenizer):
    assert prompts.render_prompt(tokenizer, QUESTION).startswith("<|im_start|>user\n")
