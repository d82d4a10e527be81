"""Answers from elsewhere than this process's own transformers model: an OpenAI-compatible endpoint, or vLLM.

Both write free text: there is no likelihood of a label to compare, so that the decoding is always `generate`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasklib.answering import endpoint, inference
from tasklib.answering.inference import Answer, Answers, Conversation
from tasklib.exit_codes import ExitCode
from tasklib.model import models, prompts
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.summary import Problem, TaskError

FAILS_ONE_ROW = {"endpoint_busy", "endpoint_timeout", "bad_answer"}  # another row may well be answered
MAX_FAILED = 20  # rows in a row without an answer: then it is the server
VLLM_CHUNK_ROWS = 1024  # answered at once and then written down
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's max_lora_rank may be


class _Failed(endpoint.Refused):
    """All attempts for one row went wrong."""


class Client(endpoint.Client):
    """An endpoint's client that takes a failure of one row for that row's own, and counts requests sent again."""

    def __init__(self, url: str, model: str, key: str | None, **options: Any) -> None:
        super().__init__(url, model, key, **options)
        self._lock, self._n_failures, self._n_given_up = threading.Lock(), 0, 0

    @property
    def n_retries(self) -> int:
        return self._n_failures - self._n_given_up

    def ask(self, messages: Sequence[dict[str, str]]) -> str:
        """The model's answer to one conversation. Raises Refused where there is none, and TaskError (exit 4) for what
        no other row would get past: nobody there, a wrong key, an unknown model."""
        try:
            return super().ask(messages)
        except TaskError as error:
            problem = error.problems[0]
            if problem.code not in FAILS_ONE_ROW:
                raise
            with self._lock:
                self._n_given_up += 1
            raise _Failed(problem.message) from None

    def _answer(self, request: dict[str, Any], sent: list[str]) -> endpoint.Reply:
        try:
            return super()._answer(request, sent)
        except endpoint._Failure:
            with self._lock:
                self._n_failures += 1
            raise


def by_endpoint(
    definition: TaskDefinition,
    client: Client,
    conversations: Sequence[Conversation],
    parallel: int,
    *,
    any_before: bool = False,
) -> Answers:
    """Answers of a model behind an endpoint, `parallel` requests at a time, in the order in which they come.

    A row that the server refuses, or fails to answer five times, gets an answer that says so and counts as unparsed.
    It is handed on when a later row has been answered: before that it may be the server. Raises TaskError (exit 4) when
    20 rows fail one after another, when no row at all is answered (`any_before`: some were by an earlier call), and
    for whatever concerns the endpoint as a whole.
    """
    held: list[tuple[int, Answer]] = []
    n_failed, n_retries, any_answer = 0, 0, any_before
    for n_done, (position, said) in enumerate(_asked(client, conversations, parallel), start=1):
        n_more, n_retries = client.n_retries - n_retries, client.n_retries
        if isinstance(said, endpoint.Refused):
            held.append((position, Answer(None, f"(no answer: {said})", None, failed=True, n_retries=n_more)))
            n_failed += isinstance(said, _Failed)
            if n_failed >= MAX_FAILED:
                raise _no_answers(f"{n_failed} rows one after another were not answered; the last: {said}")
        else:
            held.append((position, inference.parsed(definition, said.strip(), n_more)))
            n_failed, any_answer = 0, True
            yield [at for at, _ in held], [answer for _, answer in held]
            held = []
        if n_done == len(conversations):
            break  # one more step and endpoint.answers would judge by this call alone
    if held and not any_answer:
        raise _no_answers(f"no row was answered; the last: {held[-1][1].raw_output}")
    if held:
        yield [at for at, _ in held], [answer for _, answer in held]


def _asked(
    client: Client, conversations: Sequence[Conversation], parallel: int
) -> Iterator[tuple[int, str | endpoint.Refused]]:
    try:
        with in_own_words():
            yield from endpoint.answers(client, conversations, parallel)
    except TaskError as error:
        if error.problems[0].code != "request_refused":
            raise
        raise _no_answers(error.problems[0].message) from None


def _no_answers(message: str) -> TaskError:
    hint = (
        "look at the server, --model and generation.max_new_tokens; then run the same command again: it goes on "
        "where it stopped"
    )
    problem = Problem(code="no_answers", message=message, field="--base-url", hint=hint)
    return TaskError(ExitCode.PREREQUISITE, [problem])


@contextlib.contextmanager
def in_own_words() -> Iterator[None]:
    """The endpoint's problems by the name that the address has here."""
    try:
        yield
    except TaskError as error:
        problems = [
            dataclasses.replace(
                problem,
                field="--base-url" if problem.field == "--endpoint" else problem.field,
                hint=problem.hint and problem.hint.replace("--endpoint", "--base-url"),
            )
            for problem in error.problems
        ]
        raise TaskError(error.exit_code, problems, **error.report) from None


def require_allowed(url: str, *, allow_remote: bool) -> None:
    """Raises TaskError (exit 2) for an address elsewhere where nobody said that texts may leave this machine."""
    if not endpoint.is_local(endpoint.checked_url(url)) and not allow_remote:
        message, hint = f"the texts would be sent to {url}", "give --allow-remote if they may leave this machine"
        problem = Problem(code="texts_leave_machine", message=message, field="--base-url", hint=hint)
        raise TaskError(ExitCode.USAGE, [problem])


def require_vllm(config: RunConfig) -> None:
    """Raises TaskError (exit 4) without the package, (exit 2) for adapters that vLLM does not apply."""
    if importlib.util.find_spec("vllm") is None:
        hint = "uv pip install vllm (it needs a GPU and brings its own torch), or --backend transformers"
        problem = Problem(code="package_missing", message="the Python package vllm is not installed", hint=hint)
        raise TaskError(ExitCode.PREREQUISITE, [problem])
    if config.adapter.type not in ("lora", "full"):
        message = f"vLLM applies adapters of type lora, got {config.adapter.type}"
        problem = Problem(code="backend_adapter", message=message, field="adapter.type", hint="--backend transformers")
        raise TaskError(ExitCode.USAGE, [problem])


def by_vllm(
    definition: TaskDefinition,
    config: RunConfig,
    run_folder: Path,
    tokenizer: Any,
    conversations: Sequence[Conversation],
) -> Answers:
    """Greedy answers of a finished run by vLLM, from the very token ids that training rendered.

    Untested on the machine that this project is developed on, which has no vLLM; written after vLLM's documentation of
    `LLM`, `SamplingParams` and `LoRARequest` (docs.vllm.ai, offline inference, LoRA adapters).
    """
    vllm = importlib.import_module("vllm")  # none of the pinned packages: it is there where somebody installed it
    spec, is_full, more, lora = config.base_model, config.adapter.type == "full", {}, None
    if not is_full:
        rank = config.adapter.peft_fields["r"]
        more = {"enable_lora": True, "max_lora_rank": min((r for r in LORA_RANKS if r >= rank), default=rank)}
        lora_request = importlib.import_module("vllm.lora.request").LoRARequest
        lora = lora_request("adapter", 1, str(run_folder / "adapter"))
    where = str(run_folder / "model") if is_full else models.location(spec)
    revision = None if is_full or Path(where).is_dir() else spec.revision
    llm = vllm.LLM(model=where, revision=revision, dtype=spec.dtype, trust_remote_code=spec.trust_remote_code, **more)
    thinking = definition.prompt.enable_thinking
    end = prompts.end_of_turn(tokenizer, conversations[0], enable_thinking=thinking).strip()
    ids = prompts.token_ids(tokenizer, end)  # one special token, or plain text
    sampling = vllm.SamplingParams(
        temperature=0.0,
        max_tokens=config.generation.max_new_tokens,
        stop=[end],
        stop_token_ids=ids if len(ids) == 1 else None,
    )
    for start in range(0, len(conversations), VLLM_CHUNK_ROWS):
        chunk = conversations[start : start + VLLM_CHUNK_ROWS]
        rendered = [prompts.render_prompt(tokenizer, messages, enable_thinking=thinking) for messages in chunk]
        inputs = [{"prompt_token_ids": prompts.token_ids(tokenizer, text)} for text in rendered]
        outputs = llm.generate(inputs, sampling, lora_request=lora, use_tqdm=False)
        texts = [output.outputs[0].text.strip() for output in outputs]
        yield list(range(start, start + len(chunk))), [inference.parsed(definition, text) for text in texts]
