"""inference.json, which lies beside every export: what must hold wherever the model is served, and hashes of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tasklib.exit_codes import ExitCode
from tasklib.files import read_json, sha256_of, write_json
from tasklib.model import models, prompts
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.summary import Problem, TaskError
from tasklib.training.runs import RunRecord

NAME = "inference.json"
Format = Literal["adapter", "merged", "gguf", "ollama"]
# What a caller must do alike; the other keys only say where the export comes from
OF_THE_PROMPT = ("prompt_sha256", "system", "instruction", "normalize", "n_few_shot", "enable_thinking", "labels",
                 "options")  # fmt: skip
WITH_TRANSFORMERS = ("adapter", "merged")  # the others are served by llama.cpp and Ollama
_HINT = "export again with scripts/export_model.py, or restore the definition it was exported with"


class Decoding(BaseModel):
    """How answers were decoded: `evaluated_by` is `score` (likelihoods over the labels), `generate` (free text) or
    `compare` (likelihoods of answers that each row gives); a server writes free text, greedily, at most
    `max_new_tokens`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    evaluated_by: str
    do_sample: Literal[False] = False
    max_new_tokens: int


class Example(BaseModel):
    """A stand-in question as messages, as the text a server must make of them, and as that text's token ids."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    messages: list[dict[str, str]]
    prompt: str
    token_ids: list[int]


class Contract(BaseModel):
    """inference.json. `files` maps each file of the export to its sha256; `labels` a label to what the model writes,
    null where answers are open: then `options` is the whole `task` section of the definition, otherwise null."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    task: str
    run: str
    identity: str
    trained_at: str
    format: Format
    quantization: str | None = None
    base_model: str
    base_revision: str
    prompt_sha256: str
    system: str | None
    instruction: str
    normalize: list[str]
    n_few_shot: int
    enable_thinking: bool
    labels: dict[str, str] | None
    options: dict[str, Any] | None = None
    max_length: int
    stop: list[str]
    stop_token_ids: list[int]
    decoding: Decoding
    example: Example
    files: dict[str, str] = {}


def of_run(
    definition: TaskDefinition,
    config: RunConfig,
    record: RunRecord,
    tokenizer: Any,
    name: str,
    *,
    format: Format,
    quantization: str | None = None,
) -> Contract:
    """The contract of a finished run; `files` is filled by `seal`."""
    thinking, question = definition.prompt.enable_thinking, {"role": "user", "content": "\u241fquestion\u241f"}
    messages = [*prompts.prefix_messages(definition, []), question]
    prompt = prompts.render_prompt(tokenizer, messages, enable_thinking=thinking)
    end = prompts.end_of_turn(tokenizer, messages, enable_thinking=thinking).strip()
    end_ids = prompts.token_ids(tokenizer, end)
    return Contract(
        task=definition.name,
        run=name,
        identity=record.identity["sha256"],
        trained_at=record.finished_at,
        format=format,
        quantization=quantization,
        base_model=models.hub_name(config.base_model),
        base_revision=config.base_model.revision,
        **prompt_parts(definition, tokenizer),
        max_length=config.training.max_length,
        stop=[end],
        stop_token_ids=end_ids if len(end_ids) == 1 else [],
        decoding=Decoding(evaluated_by=definition.evaluation.decoding, max_new_tokens=config.generation.max_new_tokens),
        example=Example(messages=messages, prompt=prompt, token_ids=prompts.token_ids(tokenizer, prompt)),
    )


def prompt_parts(definition: TaskDefinition, tokenizer: Any) -> dict[str, Any]:
    """The keys OF_THE_PROMPT as the definition has them today."""
    labels = definition.task_type.label_set(definition.task)
    return {
        "prompt_sha256": prompts.prompt_hash(tokenizer, definition),
        "system": definition.prompt.system,
        "instruction": prompts.instruction(definition),
        "normalize": list(definition.data.normalize),
        "n_few_shot": definition.prompt.n_few_shot,
        "enable_thinking": definition.prompt.enable_thinking,
        "labels": labels,
        "options": definition.task.model_dump(mode="json") if labels is None else None,
    }


def seal(folder: Path, contract: Contract) -> Contract:
    """Writes inference.json with the hashes of all that lies in the folder."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != NAME)
    sealed = contract.model_copy(update={"files": {name: sha256_of(folder / name) for name in names}})
    write_json(folder / NAME, sealed.model_dump(mode="json"))
    return sealed


def read(folder: Path) -> Contract:
    """The contract of an export. Raises TaskError (exit 4) when there is none, or it cannot be read."""
    path = folder / NAME
    try:
        return Contract.model_validate(read_json(path))
    except OSError:
        message, hint = f"{folder} has no {NAME}", "make the export with scripts/export_model.py"
    except (ValueError, ValidationError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        message, hint = f"not a contract: {'; '.join(lines[1:3] or lines)[:200]}", "export again"
    problem = Problem(code="contract_missing", message=message, file=str(path), hint=hint)
    raise TaskError(ExitCode.PREREQUISITE, [problem])


def require_whole(folder: Path, contract: Contract) -> None:
    """Raises TaskError (exit 4) naming each file that is missing, or not the exported one: cut off, changed."""
    problems = []
    for name, wanted in contract.files.items():
        path = folder / name
        message = None if path.is_file() else f"{name} is missing"
        if message is None and (found := sha256_of(path)) != wanted:
            message = f"{name} has sha256 {found[:12]}…, exported was {wanted[:12]}…"
        if message:
            hint = "export it again, or download it again: it was cut off or changed"
            problems.append(Problem(code="export_damaged", message=message, file=str(path), hint=hint))
    if problems:
        raise TaskError(ExitCode.PREREQUISITE, problems)


def require_same(contract: Contract, definition: TaskDefinition, tokenizer: Any, where: str) -> None:
    """Raises TaskError (exit 4) with every difference between an export's contract and the definition of today."""
    wanted = prompt_parts(definition, tokenizer)
    found = contract.model_dump(include=set(OF_THE_PROMPT))
    raise_differences(differences(found, wanted), where)


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """`key: found, wanted` for every key of the contract that differs; labels one by one."""
    lines = []
    for key in OF_THE_PROMPT:
        one, other = found[key], wanted[key]
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            lines += [
                f"{key}.{name}: the export has {one.get(name)!r}, the task {other.get(name)!r}"
                for name in {**one, **other}
                if one.get(name) != other.get(name)
            ]
            lines += [] if list(one) == list(other) or dict(one) != dict(other) else [f"{key}: another order"]
        else:
            lines.append(f"{key}: the export has {one!r}, the task {other!r}")
    return lines


def raise_differences(lines: list[str], where: str) -> None:
    """Raises TaskError (exit 4), a problem a line, when there are any."""
    problems = [Problem(code="contract_differs", message=line, file=where, hint=_HINT) for line in lines]
    if problems:
        raise TaskError(ExitCode.PREREQUISITE, problems)
