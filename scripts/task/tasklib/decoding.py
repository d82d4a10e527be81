"""Getting answers out of a model: likelihood over a closed label set, or free generation. Rows go in length order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tasklib.prompts import token_ids

Progress = Callable[[int], Any]  # called with the number of rows just done


def score_labels(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    completions: Sequence[str],
    batch_size: int,
    progress: Progress = lambda n: None,
) -> list[list[float]]:
    """Log-probability of each completion after each prompt, in nats: shape (n_prompts, n_completions).

    A completion is the answer with its end of turn, so that one that begins another (正 and 正面) is scored fairly. The
    prompt is run once and its cache is shared by all completions; logits are computed only where a token is scored.
    """
    import torch

    ids = [token_ids(tokenizer, prompt) for prompt in prompts]
    answers = [token_ids(tokenizer, completion) for completion in completions]
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    scores: list[list[float]] = [[] for _ in ids]
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            for row, values in zip(
                chosen, _score_batch(model, tokenizer, [ids[i] for i in chosen], answers), strict=True
            ):
                scores[row] = values
            progress(len(chosen))
    return scores


def _score_batch(model: Any, tokenizer: Any, batch: list[list[int]], answers: list[list[int]]) -> list[list[float]]:
    """Log-probabilities (len(batch), len(answers)) for one batch of prompts."""
    import torch

    tokens, mask = _left_padded(batch, tokenizer.pad_token_id, model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    last = torch.tensor([tokens.shape[1] - 1], device=model.device)  # an int would copy a frozen head for every row
    first = model(input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=last)
    log_first = first.logits[:, -1].float().log_softmax(-1)
    totals = log_first[:, [answer[0] for answer in answers]]
    if max(map(len, answers)) > 1:
        totals = totals + _score_rest(model, tokenizer, first.past_key_values, mask, answers)
    return totals.tolist()


def _score_rest(model: Any, tokenizer: Any, cache: Any, mask: Any, answers: list[list[int]]) -> Any:
    """Log-probability of every answer's second and later tokens, given the cached prompts: (n_prompts, n_answers)."""
    import torch

    n_prompts, n_answers = mask.shape[0], len(answers)
    width = max(map(len, answers)) - 1
    inputs = torch.tensor([a[:-1] + [tokenizer.pad_token_id] * (width + 1 - len(a)) for a in answers])
    targets = torch.tensor([a[1:] + [0] * (width + 1 - len(a)) for a in answers])
    counted = torch.tensor([[1.0] * (len(a) - 1) + [0.0] * (width + 1 - len(a)) for a in answers])
    inputs, targets, counted = (t.to(mask.device).repeat(n_prompts, 1) for t in (inputs, targets, counted))
    cache.batch_repeat_interleave(n_answers)
    prompt_mask = mask.repeat_interleave(n_answers, 0)
    positions = prompt_mask.sum(-1, keepdim=True) + torch.arange(width, device=mask.device)
    output = model(
        input_ids=inputs,
        attention_mask=torch.cat([prompt_mask, torch.ones_like(inputs)], 1),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    chosen = output.logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    return (chosen * counted).sum(-1).view(n_prompts, n_answers)


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    end_of_turn: str,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress = lambda n: None,
) -> list[str]:
    """Greedy answers, one for each prompt, without the end of turn."""
    import torch

    ids = [token_ids(tokenizer, prompt) for prompt in prompts]
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    texts = [""] * len(ids)
    stop = {tokenizer.eos_token_id, *token_ids(tokenizer, end_of_turn.strip())[:1]} - {None}
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            tokens, mask = _left_padded([ids[row] for row in chosen], tokenizer.pad_token_id, model.device)
            output = model.generate(
                input_ids=tokens,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=sorted(stop),
                pad_token_id=tokenizer.pad_token_id,
            )
            answers = tokenizer.batch_decode(output[:, tokens.shape[1] :], skip_special_tokens=True)
            for row, answer in zip(chosen, answers, strict=True):
                texts[row] = answer.strip()
            progress(len(chosen))
    return texts


def _left_padded(batch: list[list[int]], pad_token_id: int, device: Any) -> tuple[Any, Any]:
    """Token ids and attention mask, (len(batch), longest); padding on the left, where generation needs it."""
    import torch

    width = max(map(len, batch))
    tokens = [[pad_token_id] * (width - len(ids)) + ids for ids in batch]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in batch]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)
