"""Decoding against the plainest possible reference: one full forward pass for each prompt and answer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tasklib.model import decoding

pytestmark = pytest.mark.slow

INSTRUCTION = "Decide whether the news is good or bad.\n\n"
PROMPTS = [
    INSTRUCTION + text
    for text in ("短", "一段比較長的文字，長度和別的不同", "middle length", "另一句話", "middle length")
]
# Answers that share first tokens, one that begins another, and one of a single token.
ANSWERS = ["正面<|im_end|>\n", "負面<|im_end|>\n", "不是正面<|im_end|>\n", "正<|im_end|>\n", "正", "a"]
END = "<|im_end|>\n"

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024,
    "initializer_range": 0.3,  # large enough for every token seen to matter
}  # fmt: skip
MIXED = {"layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts_per_tok": 2}
SINKS = {"num_local_experts": 4, **EXPERTS, **MIXED}
LINEAR = {
    "num_hidden_layers": 3, "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "moe_intermediate_size": 16,
    "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, **EXPERTS,
}  # fmt: skip
# name -> transformers' config class, its fields, whether all rows are laid out freely around one prefix
ARCHITECTURES = {
    "Llama": ("LlamaConfig", {}, True),
    "Qwen3": ("Qwen3Config", {}, True),
    "Qwen3-MoE": ("Qwen3MoeConfig", {"num_experts": 4, "moe_intermediate_size": 16, **EXPERTS}, True),
    "Qwen3.5, linear attention": ("Qwen3_5TextConfig", LINEAR, False),
    "DeepSeek-V3": ("DeepseekV3Config", LATENT, True),
    "gpt-oss, window reached": ("GptOssConfig", {"sliding_window": 8, **SINKS}, False),
    "gpt-oss, window wide": ("GptOssConfig", {"sliding_window": 128, **SINKS}, True),
    "Gemma 3, window reached": ("Gemma3TextConfig", {"sliding_window": 8, **MIXED}, False),
    "Gemma 3, window wide": ("Gemma3TextConfig", {"sliding_window": 128, **MIXED}, True),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def build(tokenizer) -> Callable[..., Any]:
    """Random models of real architectures, made once."""
    import transformers

    made: dict[tuple[str, str], Any] = {}

    def build(name: str, attention: str = "eager") -> Any:
        if (name, attention) not in made:
            kind, fields, _ = ARCHITECTURES[name]
            ends = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
            config = getattr(transformers, kind)(**{**SIZES, **fields, **ends, "vocab_size": len(tokenizer)})
            torch.manual_seed(0)
            model = transformers.AutoModelForCausalLM.from_config(
                config, attn_implementation=attention, dtype=torch.float32
            )
            made[name, attention] = model.eval().requires_grad_(False)
        return made[name, attention]

    return build


@pytest.fixture
def llama(build):
    return build("Llama")


def all_scores(model, tokenizer, prompts=PROMPTS, answers=ANSWERS, batch_size=16) -> torch.Tensor:
    found = torch.full((len(prompts), len(answers)), torch.nan)
    for rows, scores in decoding.score_labels(model, tokenizer, prompts, answers, batch_size):
        assert found[rows].isnan().all()  # each row once
        found[rows] = torch.tensor(scores)
    return found


def all_texts(model, tokenizer, prompts=PROMPTS, end_of_turn=END, max_new_tokens=8, batch_size=4) -> list[str]:
    found = [""] * len(prompts)
    for rows, texts in decoding.generate(model, tokenizer, prompts, end_of_turn, max_new_tokens, batch_size):
        for row, text in zip(rows, texts, strict=True):
            found[row] = text
    return found


def n_shared(tokenizer) -> int:
    columns = zip(*(tokenizer(prompt)["input_ids"] for prompt in PROMPTS), strict=False)
    return next(n for n, column in enumerate(columns) if len(set(column)) > 1)


def n_starts(tokenizer) -> int:
    """How many different beginnings the answers have, from which a next token is scored."""
    ids = [tokenizer(answer)["input_ids"] for answer in ANSWERS]
    return len({tuple(answer[:n]) for answer in ids for n in range(1, len(answer))})


def reference_scores(model, tokenizer, prompts=PROMPTS, answers=ANSWERS) -> torch.Tensor:
    return torch.tensor(
        [[reference_score(model, tokenizer, prompt, answer) for answer in answers] for prompt in prompts]
    )


def reference_score(model, tokenizer, prompt: str, answer: str) -> float:
    prompt_ids, answer_ids = tokenizer(prompt)["input_ids"], tokenizer(answer)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([prompt_ids + answer_ids]), use_cache=False).logits[0].log_softmax(-1)
    return sum(logits[len(prompt_ids) - 1 + n, token].item() for n, token in enumerate(answer_ids))


def greedy_reference(model, tokenizer, prompt: str, n: int) -> str:
    """The likeliest next token, n times, each from a full forward pass."""
    ids = tokenizer(prompt)["input_ids"]
    written: list[int] = []
    while len(written) < n:
        with torch.no_grad():
            token = model(torch.tensor([ids + written]), use_cache=False).logits[0, -1].argmax().item()
        if token == tokenizer.eos_token_id:
            break
        written.append(token)
    return tokenizer.decode(written, skip_special_tokens=True).strip()


def with_adapter(model, **fields):
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(target_modules="all-linear", init_lora_weights=False, **fields)
    return get_peft_model(copy.deepcopy(model), lora).eval()


class Watched:
    """What a module is called with, while the block runs."""

    def __init__(self, module) -> None:
        self.inputs: list[torch.Tensor] = []
        self.module = module

    def __enter__(self) -> list[torch.Tensor]:
        self.hook = self.module.register_forward_pre_hook(lambda module, inputs: self.inputs.append(inputs[0]))
        return self.inputs

    def __exit__(self, *error: object) -> None:
        self.hook.remove()


# Scoring


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_label_scores_equal_a_full_forward_pass_of_each_prompt_and_answer(build, tokenizer, name):
    model = build(name)
    expected = reference_scores(model, tokenizer)
    assert (expected.std(0) > 0.5).any() and (
        expected.std(1) > 0.5
    ).all()  # rows and answers differ, or nothing is shown
    for batch_size in (1, 3, 16):
        assert all_scores(model, tokenizer, batch_size=batch_size) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["Llama", "DeepSeek-V3", "Gemma 3, window wide", "Gemma 3, window reached"])
def test_label_scores_are_the_same_with_sdpa(build, tokenizer, name):
    expected = reference_scores(build(name), tokenizer)
    assert all_scores(build(name, "sdpa"), tokenizer, batch_size=3) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_all_prompts_begin_with_is_run_once_where_the_architecture_allows_it(build, tokenizer, name):
    model, free = build(name), ARCHITECTURES[name][2]
    lengths = [len(tokenizer(prompt)["input_ids"]) for prompt in PROMPTS]
    shared = n_shared(tokenizer)
    with Watched(model.get_input_embeddings()) as inputs:
        all_scores(model, tokenizer, batch_size=len(PROMPTS))
    run = [tuple(ids.shape) for ids in inputs]
    assert run[0] == (1, shared)
    assert run[1] == (len(PROMPTS), max(lengths) - (shared if free else 0))
    if free:  # then every first part of an answer, once: 正|面 and 正|<|im_end|> share 正
        assert run[2:] == [(len(PROMPTS), n_starts(tokenizer))]


@pytest.mark.parametrize("what", ["score", "generate"])
def test_a_sliding_window_of_any_width_around_that_of_the_rows_is_right(build, tokenizer, what):
    from transformers import AutoModelForCausalLM

    wide = build("Gemma 3, window wide")
    width = max(len(tokenizer(prompt)["input_ids"]) for prompt in PROMPTS)
    n_more = n_starts(tokenizer) if what == "score" else 24
    for window in (width - 1, width + 2, width + n_more - 1, width + n_more, width + n_more + 1):
        config = copy.deepcopy(wide.config)
        config.sliding_window, config.layer_types = window, ["sliding_attention"] * 2
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
        model.load_state_dict(wide.state_dict())
        if what == "score":
            expected = reference_scores(model, tokenizer)
            assert all_scores(model, tokenizer) == pytest.approx(expected, abs=1e-3)
        else:
            expected = [greedy_reference(model, tokenizer, prompt, 24) for prompt in PROMPTS]
            assert all_texts(model, tokenizer, max_new_tokens=24) == expected


def test_few_shot_prompts_and_an_adapter_that_is_not_merged_score_the_same_too(llama, tokenizer):
    model = with_adapter(llama)
    shots = "".join(f"<|im_start|>user\n例子{n}<|im_end|>\n<|im_start|>assistant\n正面<|im_end|>\n" for n in range(8))
    prompts = [shots + prompt for prompt in PROMPTS]
    assert all_scores(model, tokenizer, prompts) == pytest.approx(reference_scores(model, tokenizer, prompts), abs=1e-3)


@pytest.mark.parametrize(
    "prompts",
    [["only one"], ["same", "same"], ["ab", "ab cd"], ["正", "反"]],
    ids=["one prompt", "equal prompts", "one begins the other", "nothing shared"],
)
def test_any_prompts_can_be_scored(llama, tokenizer, prompts):
    expected = reference_scores(llama, tokenizer, prompts)
    assert all_scores(llama, tokenizer, prompts) == pytest.approx(expected, abs=1e-3)


def test_answers_of_one_token_need_no_second_pass(llama, tokenizer):
    with Watched(llama.get_input_embeddings()) as inputs:
        found = all_scores(llama, tokenizer, answers=["a", "b"])
    assert len(inputs) == 2  # the shared part, and one batch
    assert found == pytest.approx(reference_scores(llama, tokenizer, answers=["a", "b"]), abs=1e-3)


@pytest.mark.parametrize("name", ["Llama", "Qwen3.5, linear attention"])
def test_sixty_labels_are_scored_in_passes_of_bounded_size(build, tokenizer, monkeypatch, name):
    model = build(name)
    prompts, answers = PROMPTS[:3], [f"第{number}類新聞{END}" for number in range(60)]
    monkeypatch.setattr(decoding, "LOGITS_BYTES", 8 * 3 * 20 * len(tokenizer))  # 20 positions of each row
    with Watched(model.get_output_embeddings()) as inputs:
        found = all_scores(model, tokenizer, prompts, answers, batch_size=8)
    longest = max(len(tokenizer(answer)["input_ids"]) for answer in answers)
    assert max(hidden.shape[0] * hidden.shape[1] for hidden in inputs) <= max(3 * 20, 8 * longest)
    assert found == pytest.approx(reference_scores(model, tokenizer, prompts, answers), abs=1e-3)


def test_trees_hold_every_answer_and_no_more_nodes_than_allowed():
    answers = [[1, 2, 3], [1, 2, 4, 5], [1], [6, 2], [1, 2, 3], [7]]
    for most in (0, 1, 2, 3, 100):
        trees = decoding.answer_trees(answers, most)
        scored = [entry for tree in trees for entry in tree.scored]
        assert sorted((answer, token) for answer, _, token in scored) == sorted(
            (answer, token) for answer, ids in enumerate(answers) for token in ids[1:]
        )
        for tree in trees:
            assert len(tree.tokens) <= max(most, 3)
            for answer, node, token in tree.scored:
                start = [tree.tokens[n] for n in tree.path[node]]
                assert answers[answer][: len(start) + 1] == [*start, token]
    assert [len(tree.tokens) for tree in decoding.answer_trees(answers, 100)] == [4]  # 1, 1 2, 1 2 4, 6
    assert decoding.answer_trees([[1], [2]], 100) == []


def test_the_head_sees_scored_positions_alone(llama, tokenizer):
    with Watched(llama.get_output_embeddings()) as inputs:
        all_scores(llama, tokenizer, batch_size=4)
    n_scored = sum(hidden.shape[0] * hidden.shape[1] for hidden in inputs)
    assert n_scored == 1 + len(PROMPTS) * (1 + n_starts(tokenizer))


# Generation


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_generation_in_batches_equals_the_likeliest_token_of_a_full_pass_each_time(build, tokenizer, name):
    model = build(name)
    expected = [greedy_reference(model, tokenizer, prompt, 8) for prompt in PROMPTS]
    assert len(set(expected)) == 4  # two prompts are alike
    for batch_size in (1, 4):
        assert all_texts(model, tokenizer, batch_size=batch_size) == expected


def test_generation_runs_what_all_prompts_begin_with_once(llama, tokenizer):
    lengths = [len(tokenizer(prompt)["input_ids"]) for prompt in PROMPTS]
    shared = n_shared(tokenizer)
    with Watched(llama.get_input_embeddings()) as inputs:
        all_texts(llama, tokenizer, batch_size=8)
    assert [tuple(ids.shape) for ids in inputs[:3]] == [(1, shared), (5, max(lengths) - shared), (5, 1)]


@pytest.mark.parametrize("what", [all_scores, all_texts])
def test_a_frozen_head_is_not_copied_for_every_row(llama, tokenizer, what):
    """torch multiplies hidden states that do not lie side by side row by row, with a copy of a frozen head for each."""
    with Watched(llama.get_output_embeddings()) as inputs:
        what(llama, tokenizer, batch_size=4)
    assert {hidden.shape[0] for hidden in inputs} == {1, 4}
    assert all(hidden.is_contiguous() for hidden in inputs)


class Always(torch.nn.Module):
    """A head that writes the same tokens in turn, whatever came before."""

    def __init__(self, tokens: list[int], vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.vocabulary, self.turn = tokens, vocabulary, 0

    def forward(self, hidden):
        logits = torch.ones(*hidden.shape[:-1], self.vocabulary)
        logits[..., self.tokens[self.turn % len(self.tokens)]] = 10.0
        self.turn += 1
        return logits


@pytest.fixture
def writing(llama, tokenizer):
    """The model with a head that writes given tokens."""
    head = llama.lm_head

    def writing(*tokens: int) -> Any:
        llama.lm_head = Always(list(tokens), len(tokenizer))
        return llama

    yield writing
    llama.lm_head = head


def test_generation_stops_at_the_end_of_turn_and_does_not_return_it(writing, tokenizer):
    (word,), stop = tokenizer("good")["input_ids"], tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert all_texts(writing(word, stop), tokenizer, ["x"]) == ["good"]
    assert all_texts(writing(stop), tokenizer, ["x"]) == [""]


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True, "temperature": 100.0, "top_p": 1.0},
        {"repetition_penalty": 100.0},
        {"no_repeat_ngram_size": 1},
        {"min_new_tokens": 6},
        {"suppress_tokens": [12018]},
        {"max_length": 2, "max_new_tokens": 1},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_of_the_models_own_generation_config_change_nothing(writing, tokenizer, monkeypatch, settings):
    from transformers import GenerationConfig

    (word,), (stop,) = tokenizer("good")["input_ids"], tokenizer("<|im_end|>")["input_ids"]
    assert settings.get("suppress_tokens", [word]) == [word]
    own = GenerationConfig(eos_token_id=stop, pad_token_id=stop, **settings)
    monkeypatch.setattr(writing(word, word, stop), "generation_config", own)
    by_itself = writing(word, word, stop).generate(torch.tensor([[word]]), attention_mask=torch.ones(1, 1).long())
    assert tokenizer.decode(by_itself[0, 1:], skip_special_tokens=True) != "goodgood"  # so it would be seen
    model = writing(word, word, stop)
    assert all_texts(model, tokenizer, ["x"]) == ["goodgood"]
    assert model.generation_config is own


def test_the_models_own_end_tokens_stop_it_too(writing, tokenizer, monkeypatch):
    word, other, stop = tokenizer("good news!")["input_ids"]
    model = writing(word, other, stop)
    assert all_texts(model, tokenizer, ["x"], max_new_tokens=6) == ["good news!good news!"]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [tokenizer.eos_token_id, stop])
    assert all_texts(writing(word, other, stop), tokenizer, ["x"], max_new_tokens=6) == ["good news!"]


def test_an_end_of_turn_of_several_ordinary_tokens_stops_and_its_first_token_alone_does_not(writing, tokenizer):
    end = "\n### End\n"
    tokens = tokenizer("good ### news\n### End\nmore")["input_ids"]
    assert all_texts(writing(*tokens), tokenizer, ["x"], end, max_new_tokens=30) == ["good ### news"]


# Both


@pytest.mark.parametrize("what", ["score", "generate"])
def test_the_longest_rows_come_first_and_batches_come_as_they_are_done(llama, tokenizer, what):
    prompts = [INSTRUCTION + "好" * n for n in (1, 9, 3, 7, 5)]
    batches = (
        decoding.score_labels(llama, tokenizer, prompts, ANSWERS, 2)
        if what == "score"
        else decoding.generate(llama, tokenizer, prompts, END, 2, 2)
    )
    with Watched(llama.get_input_embeddings()) as inputs:
        first, _ = next(batches)
        n_run = len(inputs)
    assert first == [1, 3]
    assert not torch.is_inference_mode_enabled()  # nothing of it reaches the caller between two batches
    with Watched(llama.get_input_embeddings()) as inputs:
        assert [rows for rows, _ in batches] == [[4, 2], [0]]
    assert len(inputs) >= n_run - 1


def test_no_prompts_are_no_batches(llama, tokenizer):
    assert list(decoding.score_labels(llama, tokenizer, [], ANSWERS, 2)) == []
    assert list(decoding.generate(llama, tokenizer, [], END, 2, 2)) == []
