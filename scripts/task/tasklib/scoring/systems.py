"""Letting systems answer the rows of a split: the trained run, its baselines, models served elsewhere.

Answers go to disk as they come, so that an evaluation that was stopped goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tasklib import progress
from tasklib.answering import backends, endpoint, inference, pieces
from tasklib.answering.inference import Answer, Answers, Conversation
from tasklib.data import conversion
from tasklib.exit_codes import ExitCode
from tasklib.files import sha256_of_json, to_json
from tasklib.model import models, prompts, tokenized
from tasklib.paths import TaskPaths
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.scoring import evaluation
from tasklib.scoring.evaluation import PARTIAL, Result, Rows
from tasklib.summary import Problem, TaskError
from tasklib.training import runs
from tasklib.training.runs import RunRecord

SEGMENT_BATCHES = 4  # of a model in this process: answered together, and redone together after an interruption

Ask = Callable[[list[int]], Answers]  # positions of the rows still open -> positions of rows just done, their answers


@dataclass(frozen=True)
class Answered:
    """All answers in row order; `n_new` of them were given by this call, in `elapsed_s` seconds without loading."""

    answers: list[Answer]
    n_new: int = 0
    elapsed_s: float = 0.0


def answered(folder: Path, identity: str, n_rows: int, ask: Ask, what: str) -> Answered:
    """Answers each row, taking over what an earlier call with the same identity has written down.

    `<folder>/predictions.partial.jsonl` has the identity in its first line, then one line for all rows that `ask`
    yields together. Raises TaskError (exit 4) when another process is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / PARTIAL).open("a+b") as stream, progress.bar(what, n_rows, "row") as bar:
        _lock(stream, folder)
        found = _taken_over(stream, identity)
        bar.update(len(found))
        todo = [position for position in range(n_rows) if position not in found]
        batches = ask(todo) if todo else iter(())
        started = time.monotonic()
        for positions, batch in batches:
            line = {"positions": positions, "answers": [dataclasses.asdict(answer) for answer in batch]}
            stream.write((to_json(line) + "\n").encode())
            stream.flush()
            found.update(zip(positions, batch, strict=True))
            bar.update(len(positions))
        elapsed_s = time.monotonic() - started
    return Answered([found[position] for position in range(n_rows)], len(todo), elapsed_s)


def by_model(
    definition: TaskDefinition,
    config: RunConfig,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    load: Callable[[], Any],
    prior: inference.Prior | None = None,
    candidates: Sequence[Sequence[str]] | None = None,
) -> Ask:
    """A model in this process as what answers; it is loaded when there is something to answer.

    Rows go in fixed segments, long ones first. What a row is answered together with changes the last digits of its
    probabilities (padding, shared beginnings of prompts), so a segment is answered as a whole or not at all: the
    predictions of an interrupted evaluation are those of an uninterrupted one.
    """
    order = sorted(range(len(conversations)), key=lambda row: -sum(len(turn["content"]) for turn in conversations[row]))
    size = SEGMENT_BATCHES * config.generation.batch_size
    segments = [order[start : start + size] for start in range(0, len(order), size)]

    def ask(todo: list[int]) -> Answers:
        model, still_open = load(), set(todo)
        return (answer(model, segment) for segment in segments if segment[0] in still_open)

    def answer(model: Any, segment: list[int]) -> tuple[list[int], list[Answer]]:
        asked = [conversations[row] for row in segment]
        compared = None if candidates is None else [candidates[row] for row in segment]
        batches = inference.answers(definition, config, model, tokenizer, asked, prior, candidates=compared)
        return segment, inference.in_order(batches, len(segment))

    return ask


def _lock(stream: IO[bytes], folder: Path) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        message = f"another process is evaluating {folder.parent.name} on {folder.name}"
        problem = Problem(code="evaluation_locked", message=message, hint="wait until it ends, or stop it")
        raise TaskError(ExitCode.PREREQUISITE, [problem]) from None


def _taken_over(stream: IO[bytes], identity: str) -> dict[int, Answer]:
    """Position -> answer. What belongs to another evaluation is cut off, and so is a line torn by a crash."""
    stream.seek(0)
    found: dict[int, Answer] = {}
    whole = 0
    for line in stream:
        try:
            content = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            content = None
        if content is None or (whole == 0 and content != {"identity": identity}):
            break
        if whole:
            batch = [Answer(**answer) for answer in content["answers"]]
            found.update(zip(content["positions"], batch, strict=True))
        whole += len(line)
    stream.truncate(whole)
    if not whole:
        stream.write((to_json({"identity": identity}) + "\n").encode())
        stream.flush()
    return found


def baseline(paths: TaskPaths, definition: TaskDefinition, config: RunConfig, data: Rows, name: str) -> Result:
    """One baseline on these rows; computed once and read from its folder afterwards."""
    folder = evaluation.baseline_folder(paths, name, config, data.split)
    of_model = name not in definition.task_type.BASELINES
    decoding = definition.evaluation.decoding if of_model else "none"
    shots = _shots(definition, data) if name == "few_shot" else []
    depends_on: dict[str, Any] = {"baseline": name, "rows": data.sha256, "decoding": decoding}
    if of_model:
        depends_on |= {
            "base_model": config.base_model.model_dump(),
            "generation": config.generation.model_dump(),
            "weights": "nf4" if config.adapter.is_quantized else config.adapter.type == "full",
            "shots": conversion.rows_sha256(shots),
            "max_length": config.training.max_length if definition.prompt.shorten else None,
        }
    else:
        depends_on["train"] = conversion.rows_sha256(data.train)
    identity = sha256_of_json([depends_on, evaluation.definition_parts(definition)])
    cached = evaluation.read(folder)
    if cached is not None and cached.metrics.identity == identity:
        return cached
    about = {"run": folder.parent.name, "decoding": decoding, "identity": identity}
    if of_model:
        result = _by_base_model(definition, config, data, shots, folder, about)
    else:
        result = evaluation.score(definition, data, _classical(definition, data, name), **about)
    evaluation.save(folder, result)
    return result


def _by_base_model(
    definition: TaskDefinition, config: RunConfig, data: Rows, shots: list[dict[str, Any]], folder: Path, about: dict
) -> Result:
    """The base model as it is, with worked examples of train before each question if there are `shots`."""
    tokenizer = models.load_tokenizer(config.base_model)
    asked = pieces.of(definition, data.rows)
    conversations, shortened = tokenized.fitted(tokenizer, definition, config, asked.rows)
    if shots:
        prefix = _worked_examples(tokenizer, definition, config, shots)
        records = [_record(definition, row) for row in asked.rows]
        conversations = [
            [*prompts.follow_up(prefix, definition, record)[:-1], messages[-1]]
            for record, messages in zip(records, conversations, strict=True)
        ]
    candidates = inference.candidates_of(definition, asked.rows)
    ask = by_model(
        definition, config, tokenizer, conversations, lambda: models.load_base(config).eval(), candidates=candidates
    )
    found = answered(folder, about["identity"], len(conversations), ask, f"{folder.parent.name} on {data.split}")
    return _scored(definition, data, asked, found, about, shortened)


def _record(definition: TaskDefinition, row: dict[str, Any]) -> Any:
    return definition.task_type.Record(**row["record"])


def _shots(definition: TaskDefinition, data: Rows) -> list[dict[str, Any]]:
    """`evaluation.n_few_shot` training rows, chosen as `prompt.n_few_shot` chooses."""
    n, module = definition.evaluation.n_few_shot, definition.task_type
    asking = definition.model_copy(update={"prompt": definition.prompt.model_copy(update={"n_few_shot": n})})
    records = [module.Record(**row["record"]) for row in data.train]
    row_of = {id(record): row for record, row in zip(records, data.train, strict=True)}
    return [row_of[id(record)] for record in prompts.choose_shots(asking, records)]


def _worked_examples(
    tokenizer: Any, definition: TaskDefinition, config: RunConfig, shots: list[dict[str, Any]]
) -> Conversation:
    """System message, then each shot: its earlier turns, its question, cut as every text is, and its answer."""
    questions, _ = tokenized.fitted(tokenizer, definition, config, shots)
    said = [definition.task_type.history(_record(definition, row)) for row in shots]
    turns = [
        [*(turn for turn in earlier if turn["role"] != "system"), asked[-1], row["completion"][0]]
        for earlier, asked, row in zip(said, questions, shots, strict=True)
    ]
    return [*prompts.prefix_messages(definition, []), *(message for turn in turns for message in turn)]


def _classical(definition: TaskDefinition, data: Rows, name: str) -> list[Answer]:
    train, rows = ([_record(definition, row) for row in part] for part in (data.train, data.rows))
    return [Answer(p, None, None) for p in definition.task_type.BASELINES[name](train, rows, definition.task)]


def _scored(
    definition: TaskDefinition,
    data: Rows,
    asked: pieces.Pieces,
    found: Answered,
    about: dict[str, Any],
    shortened: Sequence[int],
    notes: Sequence[str] = (),
) -> Result:
    given = asked.joined(found.answers)
    result = evaluation.score(definition, data, given, **about, n_shortened=len(shortened), notes=notes)
    return dataclasses.replace(result, n_answered=found.n_new, elapsed_s=found.elapsed_s)


@dataclass(frozen=True)
class FinishedRun:
    """A finished run of a config, or of the same config with another seed."""

    name: str
    seed: int
    config: RunConfig
    record: RunRecord


def finished_runs(
    paths: TaskPaths, definition: TaskDefinition, config: RunConfig, name: str, n: int, flags: str
) -> list[FinishedRun]:
    """The run `name` and its n - 1 further seeds; `flags` name them on a command line. Raises TaskError (exit 4)
    naming all that are missing, (exit 2) for one that was made from something else."""
    names = runs.seed_runs(name, config.training.seed, n)
    records = [runs.read_record(paths.run(run)) for run, _ in names]
    problems = [
        Problem(
            code="run_not_finished",
            message=f"run {run!r} " + ("does not exist" if record is None else f"is {record.status}"),
            file=paths.shown(paths.run(run) / "run.json"),
            hint="train it first",
        )
        for (run, _), record in zip(names, records, strict=True)
        if record is None or record.status != "finished"
    ]
    if problems:
        command = f"uv run python scripts/03_train.py {flags}"
        command += " --resume" if any(record and record.status != "finished" for record in records) else ""
        raise TaskError(ExitCode.PREREQUISITE, problems, next=command)
    found = []
    for (run, seed), record in zip(names, records, strict=True):
        own = runs.with_seed(config, seed)
        hint = "evaluate it with the config and data it was trained with, or train again"
        runs.require_same_identity(record, runs.identity(own, definition, paths), run, hint)
        found.append(FinishedRun(run, seed, own, record))
    return found


def trained(paths: TaskPaths, definition: TaskDefinition, data: Rows, run: FinishedRun) -> Result:
    """A finished run on these rows, scored and not yet compared or saved."""
    config = run.config
    folder = paths.benchmark(run.name, data.split)
    identity = evaluation.run_identity(definition, config, data, run.record)
    tokenizer = models.load_tokenizer(config.base_model)
    inference.require_same_prompt(tokenizer, definition, run.record.prompt_sha256, run.name)
    asked = pieces.of(definition, data.rows)
    conversations, shortened = tokenized.fitted(tokenizer, definition, config, asked.rows)
    prior, candidates = inference.prior(definition, config, data.train), inference.candidates_of(definition, asked.rows)

    def load() -> Any:
        return models.load_trained(config, paths.run(run.name))

    ask = by_model(definition, config, tokenizer, conversations, load, prior, candidates)
    about = {"run": run.name, "decoding": definition.evaluation.decoding, "identity": identity}
    strength, notes = config.imbalance.prior_correction, []
    if strength and definition.evaluation.decoding == "score":
        notes = [f"label probabilities are divided by (share in train) ** {strength:g}"]
    found = answered(folder, identity, len(conversations), ask, f"{run.name} on {data.split}")
    return _scored(definition, data, asked, found, about, shortened, notes)


@dataclass(frozen=True)
class Served:
    """A model that answers elsewhere. `depends_on` is what its answers depend on beside rows and prompt; `ask` makes an
    Ask of conversations."""

    name: str
    depends_on: dict[str, Any]
    ask: Callable[[list[Conversation]], Ask]
    tokenizer: Any = None
    client: backends.Client | None = None


def endpoint_model(definition: TaskDefinition, config: RunConfig, client: backends.Client, parallel: int) -> Served:
    """A model behind an OpenAI-compatible endpoint. Texts are cut as everywhere, with the config's own tokenizer."""

    def ask(conversations: list[Conversation]) -> Ask:
        def of(todo: list[int]) -> Answers:
            asked, any_before = [conversations[row] for row in todo], len(todo) < len(conversations)
            batches = backends.by_endpoint(definition, client, asked, parallel, any_before=any_before)
            return (([todo[position] for position in positions], batch) for positions, batch in batches)

        return of

    tokenizer = models.load_tokenizer(config.base_model) if definition.prompt.shorten else None
    depends_on = {"base_url": client.url, "model": client.model}
    return Served(f"served/{evaluation.slug(client.model)}", depends_on, ask, tokenizer, client)


def vllm_run(paths: TaskPaths, definition: TaskDefinition, run: FinishedRun) -> Served:
    """A finished run answered by vLLM."""
    tokenizer = models.load_tokenizer(run.config.base_model)
    inference.require_same_prompt(tokenizer, definition, run.record.prompt_sha256, run.name)

    def ask(conversations: list[Conversation]) -> Ask:
        def of(todo: list[int]) -> Answers:
            asked = [conversations[row] for row in todo]
            batches = backends.by_vllm(definition, run.config, paths.run(run.name), tokenizer, asked)
            return (([todo[position] for position in positions], batch) for positions, batch in batches)

        return of

    depends_on = {"run": run.record.identity["sha256"], "finished_at": run.record.finished_at}
    return Served(f"served/vllm-{evaluation.slug(run.name)}", depends_on, ask, tokenizer)


def served_identity(definition: TaskDefinition, config: RunConfig, data: Rows, system: Served) -> str:
    """Everything that the metrics.json of a served model depends on."""
    parts = [system.name, system.depends_on, data.split, data.sha256, config.generation.max_new_tokens]
    parts += [config.generation.constrained] if config.generation.constrained else []
    more = [definition.primary_metric, evaluation.definition_parts(definition)]
    cut = config.training.max_length if definition.prompt.shorten else None
    return sha256_of_json([*parts, *more, cut])


def served(paths: TaskPaths, definition: TaskDefinition, config: RunConfig, data: Rows, system: Served) -> Result:
    """A served model on these rows, under `generate`; rows without an answer count as unparsed, and are counted."""
    asked = pieces.of(definition, data.rows)
    conversations, shortened = [row["prompt"] for row in asked.rows], []
    if system.tokenizer is not None:
        conversations, shortened = tokenized.fitted(system.tokenizer, definition, config, asked.rows)
    folder, identity = paths.benchmark(system.name, data.split), served_identity(definition, config, data, system)
    ask = system.ask(conversations)
    found = answered(folder, identity, len(conversations), ask, f"{system.name} on {data.split}")
    about = {"run": system.name, "decoding": "generate", "identity": identity}
    n_failed, n_retries = sum(a.failed for a in found.answers), sum(a.n_retries for a in found.answers)
    notes = [f"answered by {system.client.model} at {system.client.url}"] if system.client else ["answered by vLLM"]
    if n_failed:
        notes.append(f"{n_failed} of {len(data.rows)} rows got no answer: they count as unparsed")
    if n_retries:
        notes.append(f"{n_retries} requests were sent again")
    if definition.evaluation.decoding != "generate":
        notes.append("answered under generate: not to be compared with results under score, and not judged by the gate")
    dropped = sorted(system.client.dropped) if system.client else []
    notes += [f"the endpoint refused {name}: left out, {endpoint.WITHOUT[name]}" for name in dropped]
    return _scored(definition, data, asked, found, about, shortened, notes)


def answered_alike(
    paths: TaskPaths, definition: TaskDefinition, config: RunConfig, data: Rows, run: str
) -> dict[str, Result]:
    """What free text can be compared with: the baselines that no model answers, and what has answered the same rows
    under generate already, `run` too. No model is loaded for it."""
    others: dict[str, Result | None] = {run: evaluation.read(paths.benchmark(run, data.split))}
    for name in evaluation.baseline_names(definition):
        if name in definition.task_type.BASELINES:
            others[name] = baseline(paths, definition, config, data, name)
        else:
            others[name] = evaluation.read(evaluation.baseline_folder(paths, name, config, data.split))
    return {
        name: other
        for name, other in others.items()
        if other and other.metrics.rows_sha256 == data.sha256 and other.metrics.decoding in ("none", "generate")
    }
