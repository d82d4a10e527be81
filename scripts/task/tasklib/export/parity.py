"""Whether an export answers as the trained run does: same prompt tokens, same greedy text, same score on equal rows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tasklib.answering import endpoint, inference, pieces
from tasklib.export import exported, llama_cpp
from tasklib.export.contract import WITH_TRANSFORMERS, Contract
from tasklib.files import read_json, write_json
from tasklib.model import models, prompts, tokenized
from tasklib.paths import TaskPaths
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.scoring import evaluation
from tasklib.scoring.evaluation import Result, Rows
from tasklib.scoring.metrics import Comparison, Interval

NAME = "parity.json"
REFERENCE = "run"  # the trained run itself, its adapter unmerged
Conversation = list[dict[str, str]]


@dataclass(frozen=True)
class Reply:
    """One answer of a system. `prompt_ids` are the tokens of its prompt (an int where only their number is known, None
    where nothing is); `ended`: it stopped by itself (None: unknown)."""

    text: str
    prompt_ids: list[int] | int | None
    ended: bool | None
    elapsed_s: float


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Divergence(_Frozen):
    """The first difference in a row: token number `position` is `expected` in the run and `found` in the export."""

    id: str
    position: int
    expected: str
    found: str


class System(_Frozen):
    """One export, or one served model, beside the run. `n_...` count rows.

    `prompt_check` says what could be compared: token ids, their number alone, or nothing. `n_not_ended` answers ran
    into `max_new_tokens`, which the run's own (`n_not_ended` of the reference) may do as well. `faults` are reasons
    not to ship it: other prompts, answers that do not stop. `loss` says so where it scores worse than the run. A row
    that is asked in several pieces differs where one of them does. Where evaluation compares the likelihoods of given
    answers (decoding compare), what is written has no score: `primary` is null, there is no `comparison`, and parity is
    that of prompts and texts alone.
    """

    name: str
    n_rows: int
    prompt_check: Literal["token_ids", "n_tokens", "none"]
    n_prompts_differ: int
    first_prompt: Divergence | None = None
    n_texts_differ: int
    first_text: Divergence | None = None
    n_not_ended: int
    primary: Interval
    comparison: Comparison | None = None
    rows_per_s: float
    median_latency_s: float
    faults: list[str] = []
    loss: str | None = None


class Parity(_Frozen):
    """exports/parity.json. All answered greedily (decoding generate), whatever the definition's own decoding is."""

    schema_version: Literal[1] = 1
    run: str
    identity: str
    metric: str
    split: str
    rows_sha256: str
    date: str
    hardware: dict[str, Any]
    systems: list[System]


@dataclass(frozen=True)
class Asked:
    """What every system is asked: the rows, the conversations made of their pieces, and the prompts that training
    rendered."""

    definition: TaskDefinition
    config: RunConfig
    data: Rows
    tokenizer: Any
    pieces: pieces.Pieces
    conversations: list[Conversation]
    prompt_ids: list[list[int]]


def asked(definition: TaskDefinition, config: RunConfig, data: Rows) -> Asked:
    """The rows as conversations, fitted as in training."""
    tokenizer = models.load_tokenizer(config.base_model)
    parts = pieces.of(definition, data.rows)
    conversations, _ = tokenized.fitted(tokenizer, definition, config, parts.rows)
    thinking = definition.prompt.enable_thinking
    rendered = [prompts.render_prompt(tokenizer, messages, enable_thinking=thinking) for messages in conversations]
    ids = prompts.token_ids_of(tokenizer, rendered)
    return Asked(definition, config, data, tokenizer, parts, conversations, ids)


def by_run(of: Asked, run_folder: Path, contract: Contract) -> list[Reply]:
    """The trained run: base model and adapter as they were trained."""
    model = models.load_trained(of.config, run_folder, merged=False)
    return _by_model(model, of.tokenizer, of.prompt_ids, contract.stop_token_ids, contract)


def by_export(of: Asked, folder: Path, contract: Contract) -> list[Reply]:
    """An export as it is served: by transformers, or by llama.cpp for a GGUF file."""
    if contract.format in WITH_TRANSFORMERS:
        return by_folder(of, folder, contract)
    return by_gguf(of, exported.gguf_file(folder, contract), contract)


def by_folder(of: Asked, folder: Path, contract: Contract) -> list[Reply]:
    """An exported adapter or merged model through transformers, with the export's own tokenizer and template, asked as
    a server asks it: messages, and nothing else. It must stop by itself."""
    model = exported.model(folder, contract, of.config)
    tokenizer = models.load_tokenizer(exported.local(of.config, folder).base_model)
    template = tokenizer.get_chat_template()
    rendered = [prompts.rendered_by(tokenizer, template, messages) for messages in of.conversations]
    own = [] if contract.format == "merged" else contract.stop_token_ids
    return _by_model(model, tokenizer, prompts.token_ids_of(tokenizer, rendered), own, contract)


def by_gguf(of: Asked, path: Path, contract: Contract) -> list[Reply]:
    """A GGUF file in the real llama.cpp engine, over HTTP."""
    room = contract.max_length + contract.decoding.max_new_tokens + 8
    with llama_cpp.served(path, n_ctx=max(room, 256), n_parallel=1) as url:
        client = endpoint.Client(url, path.stem, None, timeout_s=600, max_tokens=contract.decoding.max_new_tokens)
        return by_endpoint(of, client)


def by_endpoint(of: Asked, client: endpoint.Client) -> list[Reply]:
    """A served model, asked one row after another, so that what else runs there does not change the last digits."""
    replies, tell = [], _teller(client)
    for messages in of.conversations:
        started = time.perf_counter()
        try:
            said = client.reply(messages)
        except endpoint.Refused as error:
            replies.append(Reply(f"(no answer: {error})", None, False, time.perf_counter() - started))
            continue
        elapsed_s = time.perf_counter() - started
        ended = None if said.finish_reason is None else said.finish_reason != "length"
        replies.append(Reply(said.text.strip(), tell(messages) or said.prompt_tokens, ended, elapsed_s))
    return replies


def _teller(client: endpoint.Client) -> Callable[[Conversation], list[int] | None]:
    """How this server tells the tokens of a prompt: llama.cpp's /apply-template and /tokenize, vLLM's /tokenize."""

    def llama(messages: Conversation) -> list[int]:
        prompt = llama_cpp.ask(client.url, "/apply-template", {"messages": messages})["prompt"]
        request = {"content": prompt, "add_special": True, "parse_special": True}
        return llama_cpp.ask(client.url, "/tokenize", request)["tokens"]

    def vllm(messages: Conversation) -> list[int]:
        return llama_cpp.ask(client.url, "/tokenize", {"model": client.model, "messages": messages})["tokens"]

    for way in (llama, vllm):
        try:
            way([{"role": "user", "content": "?"}])
        except (OSError, ValueError, LookupError, TypeError):
            continue
        return way
    return lambda messages: None


def _by_model(
    model: Any, tokenizer: Any, prompt_ids: list[list[int]], stop_token_ids: list[int], contract: Contract
) -> list[Reply]:
    """Greedy answers one row at a time. It stops at `stop_token_ids` and at what the model's own generation config
    names; with stop texts only where those are no single token."""
    import torch
    from transformers import GenerationConfig

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = base.generation_config.eos_token_id
    ends = sorted({*stop_token_ids, *(own if isinstance(own, list) else [own])} - {None})
    texts = [] if contract.stop_token_ids else contract.stop
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=contract.decoding.max_new_tokens, eos_token_id=ends or None,
        pad_token_id=tokenizer.pad_token_id, stop_strings=texts or None,
    )  # fmt: skip
    replies = []
    for ids in prompt_ids:
        started = time.perf_counter()
        tokens = torch.tensor([ids], device=model.device)
        with torch.inference_mode():
            output = base.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                generation_config=settings,
                tokenizer=tokenizer,
            )
        written = output[0, len(ids) :].tolist()
        text = tokenizer.decode(written, skip_special_tokens=True)
        ended = bool(written) and (written[-1] in ends or any(stop in text for stop in texts))
        for stop in contract.stop:
            text = text.split(stop)[0]
        replies.append(Reply(text.strip(), list(ids), ended, time.perf_counter() - started))
    return replies


def compare(of: Asked, replies: dict[str, list[Reply]], before: Sequence[System] = ()) -> list[System]:
    """Each system beside REFERENCE, which must be among the replies. `before`: systems compared earlier, kept."""
    wanted, found = replies[REFERENCE], []
    is_scored = of.definition.evaluation.decoding != "compare"
    results = {name: _scored(of, name, answers) if is_scored else None for name, answers in replies.items()}
    for name in [REFERENCE, *(name for name in replies if name != REFERENCE)]:
        result, comparison = results[name], None
        if result is not None and name != REFERENCE:
            compared = evaluation.compared(of.definition, result, {REFERENCE: results[REFERENCE]}, judged=False)
            (comparison,) = compared.metrics.comparisons
        found.append(_system(of, name, replies[name], wanted, result, comparison))
    kept = [system for system in before if system.name not in replies]
    return [*found, *kept]


def _scored(of: Asked, name: str, replies: list[Reply]) -> Result:
    answers = of.pieces.joined([inference.parsed(of.definition, reply.text) for reply in replies])
    return evaluation.score(of.definition, of.data, answers, run=name, decoding="generate", identity="")


def _system(
    of: Asked,
    name: str,
    replies: list[Reply],
    wanted: list[Reply],
    result: Result | None,
    comparison: Comparison | None,
) -> System:
    owners = list(of.pieces.owners())
    ids = [row["id"] for row in of.pieces.rows]
    checked = [reply.prompt_ids for reply in replies]
    check = "none" if None in checked else "n_tokens" if any(isinstance(n, int) for n in checked) else "token_ids"
    prompts_differ = [
        row for row, found in enumerate(checked) if found is not None and not _same_prompt(found, of.prompt_ids[row])
    ]
    texts_differ = [row for row, reply in enumerate(replies) if reply.text != wanted[row].text]
    first_prompt = first_text = None
    if prompts_differ:
        row = prompts_differ[0]
        first_prompt = _prompt_divergence(of, ids[row], of.prompt_ids[row], checked[row])
    if texts_differ:
        row = texts_differ[0]
        one, other = (prompts.token_ids(of.tokenizer, reply.text) for reply in (wanted[row], replies[row]))
        first_text = _divergence(of.tokenizer, ids[row], one, other)
    not_ended = sum(reply.ended is False for reply in replies)
    undefined = Interval(value=None, ci_low=None, ci_high=None)
    times = [reply.elapsed_s for reply in replies]
    found = System(
        name=name,
        n_rows=len(of.data.rows),
        prompt_check=check,
        n_prompts_differ=len({owners[piece] for piece in prompts_differ}),
        first_prompt=first_prompt,
        n_texts_differ=len({owners[piece] for piece in texts_differ}),
        first_text=first_text,
        n_not_ended=not_ended,
        primary=undefined if result is None else result.metrics.metrics[of.definition.primary_metric],
        comparison=comparison,
        rows_per_s=round(len(of.data.rows) / max(sum(times), 1e-6), 2),
        median_latency_s=round(statistics.median(times), 4),
    )
    n_wanted = sum(reply.ended is False for reply in wanted)
    return found.model_copy(update={"faults": _faults(found, n_wanted), "loss": _loss(comparison)})


def _same_prompt(found: list[int] | int, wanted: list[int]) -> bool:
    return found == (len(wanted) if isinstance(found, int) else wanted)


def _faults(system: System, n_not_ended: int) -> list[str]:
    """Why this system must not be shipped."""
    faults = []
    if system.n_prompts_differ:
        first = system.first_prompt
        faults.append(
            f"{system.n_prompts_differ} of {system.n_rows} prompts differ from training: in row {first.id} token "
            f"{first.position} is {first.found!r} instead of {first.expected!r}"
        )
    if system.n_not_ended > n_not_ended:
        faults.append(
            f"{system.n_not_ended} of {system.n_rows} answers do not stop by themselves; {n_not_ended} of the run's do "
            "not: a stop token is missing"
        )
    return faults


def _loss(comparison: Comparison | None) -> str | None:
    """How much worse the export scores, where the paired test says that it does."""
    if comparison is None or comparison.verdict != "worse":
        return None
    c = comparison
    return (
        f"{c.metric} is worse than the run's by {-c.delta:.3f} (95 % interval {-c.ci_high:.3f} to {-c.ci_low:.3f}, "
        f"p = {c.p_value:.3f})"
    )


def _prompt_divergence(of: Asked, row_id: str, wanted: list[int], found: list[int] | int) -> Divergence:
    if isinstance(found, int):
        return Divergence(id=row_id, position=0, expected=f"{len(wanted)} tokens", found=f"{found} tokens")
    return _divergence(of.tokenizer, row_id, wanted, found)


def _divergence(tokenizer: Any, row_id: str, one: Sequence[int], other: Sequence[int]) -> Divergence:
    """The first place where two token sequences differ; their texts where no token does (other whitespace)."""
    places = range(max(len(one), len(other)))
    at = next((n for n in places if list(one[n : n + 1]) != list(other[n : n + 1])), len(one))

    def shown(ids: Sequence[int]) -> str:
        return tokenizer.decode(list(ids[at : at + 1])) if at < len(ids) else "(end)"

    return Divergence(id=row_id, position=at, expected=shown(one), found=shown(other))


def columns(system: System, metric: str) -> dict[str, Any]:
    """One line of a summary's table."""
    return {
        metric: system.primary.value,
        "ci_low": system.primary.ci_low,
        "ci_high": system.primary.ci_high,
        "it_is": "(reference)" if system.name == REFERENCE else _verdict(system),
        "prompts_differ": system.n_prompts_differ if system.prompt_check != "none" else "unknown",
        "texts_differ": system.n_texts_differ,
        "not_ended": system.n_not_ended,
        "rows_per_s": system.rows_per_s,
    }


def _verdict(system: System) -> str:
    return "(no score)" if system.comparison is None else system.comparison.verdict


def read(exports: Path) -> Parity | None:
    """parity.json of a run's exports; None where there is none, or one of an older version."""
    try:
        return Parity.model_validate(read_json(exports / NAME))
    except (OSError, ValueError):
        return None


def newest(paths: TaskPaths) -> Parity | None:
    """The parity of the run that was compared last."""
    folders = [path.parent for path in (paths.root / "models").glob(f"*/exports/{NAME}")]
    return read(max(folders, key=lambda folder: (folder / NAME).stat().st_mtime)) if folders else None


def write(exports: Path, found: Parity) -> None:
    write_json(exports / NAME, found.model_dump(mode="json"))
