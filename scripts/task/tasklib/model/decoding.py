"""Getting answers out of a model: likelihood over a closed label set, or free generation.

Both are generators that yield as batches finish, rows in length order, the longest first: a batch that does not fit
into memory is the first one, not the last. Tokens that all prompts begin with are run once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tasklib.model.prompts import token_ids

# What the logits of one pass over the answers may take, in bytes; more answers are scored in several passes.
LOGITS_BYTES = 2**28


@dataclass(frozen=True)
class Prefix:
    """The first `length` tokens of every prompt. `cache` holds them for one row and is only ever copied."""

    length: int
    cache: Any

    def repeated(self, n: int) -> Any:
        """The cache for `n` rows."""
        import torch

        cache = copy.deepcopy(self.cache)
        cache.reorder_cache(torch.zeros(n, dtype=torch.long))
        return cache


@dataclass(frozen=True)
class AnswerTree:
    """Answers as a tree of tokens, so that what several begin with is run once.

    `path` holds, for each node, itself and its ancestors; a node's place in its path is its depth. `scored` says which
    (answer, node, next token) add up to the answers; the first tokens stand in no tree, the prompt predicts them.
    """

    tokens: list[int]
    path: list[list[int]]
    scored: list[tuple[int, int, int]]


def score_labels(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    completions: Sequence[str],
    batch_size: int,
) -> Iterator[tuple[list[int], list[list[float]]]]:
    """Positions of the prompts just done, and the log-probability of each completion after each of them, in nats.

    A completion is the answer with its end of turn, so that one that begins another (正 and 正面) is scored fairly.
    Logits are computed only where a token is scored.
    """
    import torch

    ids = [token_ids(tokenizer, prompt) for prompt in prompts]
    answers = [token_ids(tokenizer, completion) for completion in completions]
    first_tokens = [answer[0] for answer in answers]
    n_rows, vocabulary = max(1, min(batch_size, len(ids))), model.config.get_text_config().vocab_size
    trees = answer_trees(answers, max_nodes=LOGITS_BYTES // (8 * n_rows * vocabulary))
    width = max((len(tree.tokens) for tree in trees), default=0)
    prefix = _shared_prefix(model, ids)
    for rows in _batches(ids, batch_size):
        with torch.inference_mode():
            batch = [ids[row] for row in rows]
            fits = prefix is not None and _takes_own_masks(model, prefix.cache, len(batch[0]) + width)
            log_first, cache, mask = _run_prompts(model, tokenizer, batch, prefix if fits else None)
            totals = log_first[:, first_tokens]
            if fits or _takes_own_masks(model, cache, mask.shape[1] + width):
                _add_trees(totals, model, cache, mask, trees)
            else:
                _add_one_by_one(totals, model, cache, mask, answers, batch_size)
        yield rows, totals.tolist()


def answer_trees(answers: Sequence[Sequence[int]], max_nodes: int) -> list[AnswerTree]:
    """Trees of at most `max_nodes` nodes (or of one answer) that together hold all answers of several tokens."""
    trees: list[AnswerTree] = []
    nodes: dict[tuple[int, ...], int] = {}
    alike_together = sorted(range(len(answers)), key=lambda number: tuple(answers[number]))
    for number in alike_together:
        starts = [tuple(answers[number][: end + 1]) for end in range(len(answers[number]) - 1)]
        if not starts:
            continue
        if not trees or (nodes and len(nodes) + sum(start not in nodes for start in starts) > max_nodes):
            trees.append(AnswerTree([], [], []))
            nodes = {}
        tree = trees[-1]
        for start in starts:
            if start not in nodes:
                above = tree.path[nodes[start[:-1]]] if len(start) > 1 else []
                nodes[start] = len(tree.tokens)
                tree.tokens.append(start[-1])
                tree.path.append([*above, nodes[start]])
            tree.scored.append((number, nodes[start], answers[number][len(start)]))
    return trees


def _takes_own_masks(model: Any, cache: Any, width: int) -> bool:
    """Whether rows of `width` tokens may be laid out freely, with gaps and branches, and described by the mask alone.

    So it is where each layer keeps one entry for each token and reads which to see from the mask: full attention, and
    a sliding window that is not reached yet. Linear attention counts every token in order.
    """
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    return (
        model.config.get_text_config()._attn_implementation in ("eager", "sdpa")
        and model._supports_attention_backend
        and all(
            type(layer) is DynamicLayer or (type(layer) is DynamicSlidingWindowLayer and width < layer.sliding_window)
            for layer in cache.layers
        )
    )


def _shared_prefix(model: Any, ids: list[list[int]]) -> Prefix | None:
    """What all prompts begin with, at least one token less than the shortest; None when there is nothing to share."""
    import torch

    if len(ids) < 2:
        return None
    first, last = min(ids), max(ids)  # in lexicographic order: what these two share, all share
    shortest = min(map(len, ids))
    n_shared = next((n for n in range(shortest - 1) if first[n] != last[n]), shortest - 1)
    if n_shared == 0:
        return None
    with torch.inference_mode():
        tokens = torch.tensor([first[:n_shared]], device=model.device)
        output = model(input_ids=tokens, use_cache=True, logits_to_keep=_last(model))
    return Prefix(n_shared, output.past_key_values)


def _batches(ids: list[list[int]], batch_size: int) -> Iterator[list[int]]:
    """Positions of the rows of each batch, the longest rows first."""
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _last(model: Any) -> Any:
    """The last position as `logits_to_keep`.

    The int 1, which generate() uses by itself, slices the hidden states so that torch multiplies the rows one by one
    and copies a frozen head for each of them.
    """
    import torch

    return torch.tensor([-1], device=model.device)


def _run_prompts(model: Any, tokenizer: Any, batch: list[list[int]], prefix: Prefix | None) -> tuple[Any, Any, Any]:
    """Log-probabilities of the next token (n_rows, vocabulary), the cache, and its mask (n_rows, width)."""
    tokens, mask = _laid_out(tokenizer, batch, prefix.length if prefix else 0, model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    start = prefix.length if prefix else 0
    output = model(
        input_ids=tokens[:, start:],
        attention_mask=mask,
        position_ids=positions[:, start:],
        past_key_values=prefix.repeated(len(batch)) if prefix else None,
        use_cache=True,
        logits_to_keep=_last(model),
    )
    return output.logits[:, -1].float().log_softmax(-1), output.past_key_values, mask


def _add_trees(totals: Any, model: Any, cache: Any, mask: Any, trees: list[AnswerTree]) -> None:
    """Adds the log-probability of every answer's second and later tokens to `totals` (n_rows, n_answers)."""
    import torch

    n_rows, device = mask.shape[0], mask.device
    for tree in trees:
        n_nodes = len(tree.tokens)
        depth = torch.tensor([len(path) - 1 for path in tree.path], device=device)
        sees = torch.zeros(n_nodes, n_nodes, dtype=torch.bool, device=device)
        for node, path in enumerate(tree.path):
            sees[node, path] = True
        allowed = torch.cat(
            [mask.bool()[:, None, :].expand(-1, n_nodes, -1), sees[None].expand(n_rows, -1, -1)], dim=-1
        )[:, None]
        output = model(
            input_ids=torch.tensor([tree.tokens], device=device).expand(n_rows, -1),
            attention_mask=_as_attention_reads_it(model, allowed),
            position_ids=mask.sum(-1, keepdim=True) + depth,
            past_key_values=cache,
            use_cache=True,
        )
        cache.crop(-n_nodes)
        log_probabilities = output.logits.log_softmax(-1, dtype=torch.float32)
        answer, node, target = torch.tensor(tree.scored, device=device).T
        totals.index_add_(1, answer, log_probabilities[:, node, target])


def _as_attention_reads_it(model: Any, allowed: Any) -> Any:
    """A 4D mask as sdpa wants it (booleans) or as eager attention adds it."""
    import torch

    if model.config.get_text_config()._attn_implementation == "sdpa":
        return allowed
    bias = torch.zeros(allowed.shape, dtype=model.dtype, device=allowed.device)
    return bias.masked_fill_(~allowed, torch.finfo(model.dtype).min)


def _add_one_by_one(totals: Any, model: Any, cache: Any, mask: Any, answers: list[list[int]], batch_size: int) -> None:
    """The same for any architecture: the prompts' cache is copied for each answer, `batch_size` rows at a time.

    Answers of one length go together, so that nothing is padded and every logit is scored.
    """
    import torch

    n_rows, device = mask.shape[0], mask.device
    at_once = max(1, batch_size // n_rows)
    for length in sorted({len(answer) for answer in answers} - {1}):
        alike = [number for number, answer in enumerate(answers) if len(answer) == length]
        for start in range(0, len(alike), at_once):
            chosen = alike[start : start + at_once]
            tokens = torch.tensor([answers[number] for number in chosen], device=device).repeat(n_rows, 1)
            row = torch.arange(n_rows, device=device).repeat_interleave(len(chosen))
            copied = copy.deepcopy(cache)
            copied.reorder_cache(row)
            output = model(
                input_ids=tokens[:, :-1],
                attention_mask=torch.cat([mask[row], torch.ones_like(tokens[:, :-1])], 1),
                position_ids=mask[row].sum(-1, keepdim=True) + torch.arange(length - 1, device=device),
                past_key_values=copied,
                use_cache=True,
            )
            log_probabilities = output.logits.log_softmax(-1, dtype=torch.float32)
            scored = log_probabilities.gather(-1, tokens[:, 1:, None])[..., 0].sum(-1)
            totals[:, chosen] += scored.view(n_rows, len(chosen))


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    end_of_turn: str,
    max_new_tokens: int,
    batch_size: int,
    temperature: float | None = None,
    schema: dict[str, Any] | None = None,
) -> Iterator[tuple[list[int], list[str]]]:
    """Positions of the prompts just done, and their answers without the end of turn: greedy, or with a `temperature`
    sampled from the whole vocabulary; with a `schema` only what follows it."""
    import torch

    ids = [token_ids(tokenizer, prompt) for prompt in prompts]
    prefix = _shared_prefix(model, ids)
    for rows in _batches(ids, batch_size):
        batch = [ids[row] for row in rows]
        fits = prefix is not None and _takes_own_masks(model, prefix.cache, len(batch[0]) + max_new_tokens)
        tokens, mask = _laid_out(tokenizer, batch, prefix.length if fits else 0, model.device)
        settings = end_of_turn, max_new_tokens, temperature
        with torch.inference_mode(), _generating(model, tokenizer, *settings) as base_model:
            forced = None if schema is None else _forced(base_model, tokenizer, schema, len(batch))
            output = base_model.generate(
                input_ids=tokens,
                attention_mask=mask,
                past_key_values=prefix.repeated(len(batch)) if fits else None,
                logits_to_keep=_last(model),
                tokenizer=tokenizer,
                logits_processor=forced,
            )
        answers = tokenizer.batch_decode(output[:, tokens.shape[1] :], skip_special_tokens=True)
        yield rows, [answer.split(end_of_turn.strip())[0].strip() for answer in answers]


def _forced(model: Any, tokenizer: Any, schema: dict[str, Any], n_rows: int) -> Any:
    """The processor that keeps one batch to the schema, under the model's present generation config."""
    from tasklib.model import constrained

    n_vocabulary = model.config.get_text_config().vocab_size
    return constrained.processor(tokenizer, schema, n_rows, n_vocabulary, model.generation_config.eos_token_id)


@contextmanager
def _generating(
    model: Any, tokenizer: Any, end_of_turn: str, max_new_tokens: int, temperature: float | None
) -> Iterator[Any]:
    """The model without its adapter's wrapper, and for that time with a generation config that is greedy (or samples)
    and no more.

    generate() fills every setting it does not get from the model's own generation config: a repetition penalty there
    would change what is measured. Only its end tokens are kept.
    """
    from transformers import GenerationConfig

    base_model = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = base_model.generation_config
    ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    end_ids = token_ids(tokenizer, end_of_turn.strip())
    stop_at_text = len(end_ids) > 1 and end_ids[0] not in tokenizer.all_special_ids
    stop = {tokenizer.eos_token_id, *ends, *([] if stop_at_text else end_ids[:1])} - {None}
    base_model.generation_config = GenerationConfig(
        do_sample=temperature is not None,
        temperature=temperature,
        top_k=0 if temperature is not None else None,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(stop),
        pad_token_id=tokenizer.pad_token_id,
        stop_strings=end_of_turn.strip() if stop_at_text else None,
    )
    try:
        yield base_model
    finally:
        base_model.generation_config = own


def mean_log_probabilities(
    model: Any, tokenizer: Any, rendered: Sequence[Sequence[tuple[str, str]]], batch_size: int
) -> Iterator[tuple[list[int], list[list[float]]]]:
    """Positions of the rows just done, and for each (prompt, completion) of a row the mean log-probability of the
    completion's tokens, in nats. Each row has its own completions, of any length."""
    ids = [[(token_ids(tokenizer, p), token_ids(tokenizer, c)) for p, c in row] for row in rendered]
    longest = [[0] * max(len(prompt) + len(completion) for prompt, completion in row) for row in ids]
    for rows in _batches(longest, max(1, batch_size // max(map(len, ids), default=1))):
        sequences = [pair for row in rows for pair in ids[row]]
        found = iter(_means(model, tokenizer, sequences))
        yield rows, [[next(found) for _ in ids[row]] for row in rows]


def _means(model: Any, tokenizer: Any, sequences: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    """The mean log-probability of each (prompt, completion)'s completion; logits only where a token is scored."""
    import torch

    width = max(len(prompt) + len(completion) for prompt, completion in sequences)
    tokens, mask = _laid_out(tokenizer, [prompt + completion for prompt, completion in sequences], 0, model.device)
    n_kept = max(len(completion) for _, completion in sequences) + 1  # rows end together
    with torch.inference_mode():
        logits = model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=torch.arange(width - n_kept, width, device=model.device),
        ).logits
        log_probabilities = logits[:, :-1].log_softmax(-1, dtype=torch.float32)
        scored = log_probabilities.gather(-1, tokens[:, width - n_kept + 1 :, None])[..., 0]
    return [float(row[-len(c) :].mean()) for row, (_, c) in zip(scored, sequences, strict=True)]


def _laid_out(tokenizer: Any, batch: list[list[int]], n_shared: int, device: Any) -> tuple[Any, Any]:
    """Token ids and mask, (n_rows, longest). Rows end together: padding stands behind the `n_shared` first tokens."""
    import torch

    width = max(map(len, batch))
    tokens, mask = [], []
    for ids in batch:
        padding = width - len(ids)
        tokens.append(ids[:n_shared] + [tokenizer.pad_token_id] * padding + ids[n_shared:])
        mask.append([1] * n_shared + [0] * padding + [1] * (len(ids) - n_shared))
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)
