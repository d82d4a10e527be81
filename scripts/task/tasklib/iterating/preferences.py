"""Preference pairs out of a task's own rows: the gold answer against a wrong one of the model's own.

Pairs are training rows, so they are made of train alone. DPO's derivation takes both answers from the model that is
trained (Rafailov et al. 2023, arXiv:2305.18290, section 4): the rejected one is what the run would really say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasklib import progress, schema
from tasklib.answering import inference
from tasklib.data import answers, conversion, dataset, preference_pairs
from tasklib.exit_codes import ExitCode
from tasklib.files import read_json, sha256_of, write_json, write_jsonl
from tasklib.iterating import evidence, findings
from tasklib.iterating.evidence import Answered
from tasklib.model import decoding, models, prompts, tokenized
from tasklib.paths import TaskPaths
from tasklib.schema import TaskDefinition
from tasklib.scoring.systems import FinishedRun
from tasklib.summary import Problem, TaskError

FEW_PAIRS = 20  # below this a method that learns from pairs learns them by heart
MANIFEST_VERSION = 1

Pair = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """`n_rows` training rows are asked. A row is a pair where it is answered wrong, or (`score`) where its gold label
    gets less than `max_probability`. `n_samples` answers are drawn for each row under `generate` beside the greedy one,
    at `temperature`."""

    n_rows: int = evidence.MAX_TRAIN_ROWS
    max_probability: float = 0.9
    n_samples: int = 0
    temperature: float = 1.0


@dataclass(frozen=True)
class Made:
    """The pairs, what became of the rows that gave none, and where all of it belongs."""

    pairs: list[Pair]
    counts: dict[str, int]
    inputs: dict[str, Any]


def require_makeable(definition: TaskDefinition, wanted: Wanted) -> None:
    """Raises TaskError (exit 2) for a task whose rows are pairs already or that learns from none, and for samples
    where nothing is generated."""
    module, problems = definition.task_type, []
    if "chosen" in module.FIELDS:
        hint = "train them as they are: method: dpo (or orpo) in a config, without preference_data"
        problems.append(Problem(code="pairs_already", message="the rows of this task are pairs", hint=hint))
    elif not {"dpo", "orpo"} & set(module.METHODS):
        message = f"task type {definition.task.type} learns from no pairs"
        problems.append(Problem(code="no_method", message=message, hint=f"its methods: {', '.join(module.METHODS)}"))
    elif wanted.n_samples and definition.evaluation.decoding != "generate":
        message = f"under decoding {definition.evaluation.decoding} the model writes nothing that could be sampled"
        problems.append(Problem(code="usage", message=message, field="--samples", hint="leave it out"))
    if problems:
        raise TaskError(ExitCode.USAGE, problems)


def inputs_of(paths: TaskPaths, definition: TaskDefinition, run: FinishedRun, wanted: Wanted) -> dict[str, Any]:
    """All that the pairs depend on: what the manifest says, and what a second call compares."""
    return {
        "run": run.name,
        "identity": run.record.identity["sha256"],
        "finished_at": run.record.finished_at,
        "decoding": definition.evaluation.decoding,
        "generation": run.config.generation.model_dump(exclude={"batch_size"}),
        "prior_correction": run.config.imbalance.prior_correction,
        "rows_sha256": conversion.rows_sha256(conversion.load_split(paths, "train")),
        "wanted": asdict(wanted),
    }


def path_of(paths: TaskPaths, name: str) -> Path:
    return paths.preferences / f"{name}.jsonl"


def is_current(path: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether the file holds what making it now would give, untouched."""
    manifest = _manifest(path)
    return path.is_file() and manifest.get("inputs") == inputs and manifest.get("sha256") == sha256_of(path)


def read_counts(path: Path) -> dict[str, int]:
    """The counts of a file that is current."""
    return _manifest(path)["counts"]


def require_replaceable(paths: TaskPaths, path: Path) -> None:
    """Raises TaskError (exit 2) for a file that a person wrote or changed."""
    if path.is_file() and _manifest(path).get("sha256") != sha256_of(path):
        problem = Problem(
            code="written_by_hand",
            message=f"{paths.shown(path)} is not as this script wrote it",
            file=paths.shown(path),
            hint="keep it and give another --output, or replace it with --force",
        )
        raise TaskError(ExitCode.USAGE, [problem])


def _manifest(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path.with_suffix(".json"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def make(paths: TaskPaths, definition: TaskDefinition, run: FinishedRun, wanted: Wanted) -> Made:
    """Asks the run and makes the pairs. Raises TaskError (exit 3) where there is nothing to prefer, and for a pair
    whose question validation or test asks too."""
    inputs = inputs_of(paths, definition, run, wanted)
    train = conversion.load_split(paths, "train")
    asked = evidence.answered_again(paths, definition, run, train, wanted.n_rows)
    whole = [row for row in asked if _is_one_piece(definition, row.row)]
    tokenizer = models.load_tokenizer(run.config.base_model)
    conversations, _ = tokenized.fitted(tokenizer, definition, run.config, [row.row for row in whole])
    sampled = _sampled(paths, definition, run, tokenizer, conversations, wanted) if wanted.n_samples else {}
    counts: Counter[str] = Counter(rows=len(asked), in_pieces=len(asked) - len(whole))
    golds, pairs = _golds(definition, train), []
    for position, (row, prompt) in enumerate(zip(whole, conversations, strict=True)):
        chosen, kept = _answer(definition, row.row), {}
        for text, kind in _rejected(definition, row, wanted, sampled.get(position, ())):
            key = dataset.duplicate_key(text)
            if key and key not in golds[preference_pairs.key_of(row.row["prompt"])]:
                kept.setdefault(key, (text, kind))
        counts["without_wrong_answer"] += not kept
        for number, (text, kind) in enumerate(kept.values(), start=1):
            about = {"id": row.row["id"] + (f"/{number}" if number > 1 else ""), "source": row.row["source"]}
            pairs.append({**about, "prompt": prompt, "chosen": chosen, "rejected": text, "kind": kind, "run": run.name})
    counts["pairs"] = len(pairs)
    counts.update(pair["kind"] for pair in pairs)
    _require_pairs(definition, pairs, wanted)
    _require_unseen(paths, definition, pairs)
    return Made(pairs, dict(counts), inputs)


def _is_one_piece(definition: TaskDefinition, row: dict[str, Any]) -> bool:
    """Whether the row is asked and trained whole: of windows and earlier turns the answers stand in other pieces."""
    module = definition.task_type
    if module.pieces is answers.one_piece:
        return True
    record = module.Record(**row["record"])
    return module.pieces(record, definition.task, training=False) == [record]


def _answer(definition: TaskDefinition, row: dict[str, Any]) -> str:
    module = definition.task_type
    return module.answer(module.Record(**row["record"]), definition.task)


def _golds(definition: TaskDefinition, train: Sequence[dict[str, Any]]) -> dict[preference_pairs.Key, set[str]]:
    """Question -> every answer that is right to it in some training row: none of them is ever rejected."""
    found: dict[preference_pairs.Key, set[str]] = {}
    for row in train:
        key = preference_pairs.key_of(row["prompt"])
        found.setdefault(key, set()).add(dataset.duplicate_key(_answer(definition, row)))
    return found


def _rejected(
    definition: TaskDefinition, row: Answered, wanted: Wanted, sampled: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """(answer, kind) of each answer that the gold one should win against."""
    module, options = definition.task_type, definition.task
    if definition.evaluation.decoding == "score":
        probabilities = row.probabilities or {}
        others = {label: value for label, value in probabilities.items() if label != row.gold}
        is_wrong = row.prediction != row.gold
        if others and (is_wrong or probabilities.get(row.gold, 0.0) < wanted.max_probability):
            likeliest = max(others, key=others.__getitem__)
            yield module.label_set(options)[likeliest], "wrong" if is_wrong else "unsure"
        return
    record = module.Record(**row.row["record"])
    for text, kind in [(row.raw_output or "", "wrong"), *((text, "sampled") for text in sampled)]:
        if module.reward(record, text, options) < 1:
            yield text.strip(), kind


def _sampled(
    paths: TaskPaths,
    definition: TaskDefinition,
    run: FinishedRun,
    tokenizer: Any,
    conversations: Sequence[inference.Conversation],
    wanted: Wanted,
) -> dict[int, list[str]]:
    """Position of a conversation -> `n_samples` answers to it, drawn with the run's own seed."""
    import torch

    thinking, spec = definition.prompt.enable_thinking, run.config.generation
    rendered = [prompts.render_prompt(tokenizer, messages, enable_thinking=thinking) for messages in conversations]
    end = prompts.end_of_turn(tokenizer, conversations[0], enable_thinking=thinking)
    model = models.load_trained(run.config, paths.run(run.name))
    found: dict[int, list[str]] = {position: [] for position in range(len(rendered))}
    torch.manual_seed(run.seed)
    with progress.bar(f"{run.name} samples", wanted.n_samples * len(rendered), "answer") as bar:
        for _ in range(wanted.n_samples):
            settings = end, spec.max_new_tokens, spec.batch_size, wanted.temperature
            for positions, texts in decoding.generate(model, tokenizer, rendered, *settings):
                bar.update(len(positions))
                for position, text in zip(positions, texts, strict=True):
                    found[position].append(text)
    return found


def _require_pairs(definition: TaskDefinition, pairs: Sequence[Pair], wanted: Wanted) -> None:
    if pairs:
        return
    if definition.evaluation.decoding == "score":
        message = f"the run is right, and at least {wanted.max_probability:g} sure, on every training row it was asked"
        hint = "there is nothing to prefer: raise --max-probability, ask more rows with --limit, or leave it at SFT"
    else:
        message = "the run answered every training row that it was asked as it was taught"
        hint = "ask more rows with --limit, or sample its other answers: --samples 4 --temperature 1.0"
    raise TaskError(ExitCode.DATA, [Problem(code="no_wrong_answers", message=message, hint=hint)])


def _require_unseen(paths: TaskPaths, definition: TaskDefinition, pairs: Sequence[Pair]) -> None:
    evaluated = preference_pairs.evaluated_keys(paths, definition)
    problems = [
        Problem(
            code="leakage",
            message=f"the question of row {pair['id']} is in {split} too",
            file=pair["source"]["file"],
            line=pair["source"]["line"],
            hint="convert again with scripts/02_convert_format.py --force, which keeps equal texts on one side",
        )
        for pair in pairs
        if (split := preference_pairs.leaked_into(pair["prompt"], evaluated))
    ]
    if problems:
        raise TaskError(ExitCode.DATA, problems)


def save(path: Path, made: Made) -> None:
    """The pairs, then their manifest: one without the other is seen as written by hand."""
    path.with_suffix(".json").unlink(missing_ok=True)
    write_jsonl(path, made.pairs)
    manifest = {"schema_version": MANIFEST_VERSION, "sha256": sha256_of(path), "counts": made.counts}
    write_json(path.with_suffix(".json"), manifest | {"inputs": made.inputs})


def next_command(paths: TaskPaths, run: str, path: Path) -> str:
    """The literal command that makes the config of a run which goes on from `run` and learns from the pairs."""
    return findings.experiment_from(
        paths,
        run,
        "dpo",
        "the run's own wrong answers become less likely than the gold ones",
        method="dpo",
        start_from=run,
        preference_data=paths.shown(path),
        training__learning_rate=schema.learning_rate("dpo", "lora"),
    )
