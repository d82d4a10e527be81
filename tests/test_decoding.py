"""Decoding against the plainest possible reference: one full forward pass for each prompt and answer."""

from __future__ import annotations

import pytest
import torch

from tasklib import decoding

PROMPTS = ["短", "一段比較長的文字，長度和別的不同", "middle length text", "另一句話"]
ANSWERS = ["正面<|im_end|>\n", "負面<|im_end|>\n", "不是正面<|im_end|>\n", "正<|im_end|>\n"]


@pytest.fixture(scope="module")
def model_and_tokenizer(tiny_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, attn_implementation="eager")
    return model.eval(), AutoTokenizer.from_pretrained(tiny_model)


def reference_score(model, tokenizer, prompt: str, answer: str) -> float:
    prompt_ids, answer_ids = tokenizer(prompt)["input_ids"], tokenizer(answer)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([prompt_ids + answer_ids])).logits[0].log_softmax(-1)
    return sum(logits[len(prompt_ids) - 1 + n, token].item() for n, token in enumerate(answer_ids))


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("adapter", [False, True], ids=["base model", "with adapter"])
def test_label_scores_equal_a_full_forward_pass_of_each_prompt_and_answer(model_and_tokenizer, batch_size, adapter):
    model, tokenizer = model_and_tokenizer
    if adapter:
        import copy

        from peft import LoraConfig, get_peft_model

        model = get_peft_model(copy.deepcopy(model), LoraConfig(target_modules="all-linear", init_lora_weights=False))
        model = model.eval()
    scores = decoding.score_labels(model, tokenizer, PROMPTS, ANSWERS, batch_size)
    for prompt, row in zip(PROMPTS, scores, strict=True):
        expected = [reference_score(model, tokenizer, prompt, answer) for answer in ANSWERS]
        assert row == pytest.approx(expected, abs=2e-4)


def test_answers_of_one_token_need_no_second_pass(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    answers = ["a", "b"]
    scores = decoding.score_labels(model, tokenizer, PROMPTS, answers, 4)
    expected = [[reference_score(model, tokenizer, p, a) for a in answers] for p in PROMPTS]
    assert torch.tensor(scores).tolist() == [pytest.approx(row, abs=2e-4) for row in expected]


def test_generation_in_batches_equals_generation_one_by_one_and_keeps_the_order(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    together = decoding.generate(model, tokenizer, PROMPTS, "<|im_end|>\n", 8, batch_size=4)
    alone = [decoding.generate(model, tokenizer, [p], "<|im_end|>\n", 8, batch_size=1)[0] for p in PROMPTS]
    assert together == alone


def test_generation_stops_at_the_end_of_turn_and_does_not_return_it(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")

    class Always(torch.nn.Module):
        """Wants to end the turn at once, whatever came before."""

        def forward(self, hidden):
            logits = torch.full((*hidden.shape[:-1], len(tokenizer)), -10.0)
            logits[..., stop] = 10.0
            return logits

    head, model.lm_head = model.lm_head, Always()
    try:
        assert decoding.generate(model, tokenizer, ["x"], "<|im_end|>\n", 8, batch_size=1) == [""]
    finally:
        model.lm_head = head
