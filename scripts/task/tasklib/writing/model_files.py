"""The files of a model that may be uploaded: those of a run, or those of one of its exports."""

from __future__ import annotations

import re
from pathlib import Path

from tasklib.exit_codes import ExitCode
from tasklib.export import contract, parity
from tasklib.paths import TaskPaths
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.summary import Problem
from tasklib.training import runs
from tasklib.writing import cards

PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}
UPLOADED = {".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken", ".gguf"}
OF_OLLAMA = {"Modelfile", "template", "system", "params"}
TRAINING_STATE = re.compile(r"(optimizer|scheduler|scaler|rng_state|trainer_state|training_args|run)\b.*")


def of_run(paths: TaskPaths, name: str, config: RunConfig) -> tuple[dict[str, Path], list, list]:
    """Files of adapter/ or model/ by their name in the repository, problems as (exit code, problem), and warnings."""
    full = config.adapter.type == "full"
    folder = paths.run(name) / ("model" if full else "adapter")
    needed = "config.json" if full else "adapter_config.json"
    found, problems, warnings = _files_of(paths, folder)
    if needed not in found or not any(path.suffix == ".safetensors" for path in folder.rglob("*")):
        problem = Problem(
            code="weights_missing",
            message=f"there is no {needed} with safetensors weights",
            file=paths.shown(folder),
            hint="train again",
        )
        problems.append((ExitCode.PREREQUISITE, problem))
    return found, problems, warnings


def _files_of(paths: TaskPaths, folder: Path) -> tuple[dict[str, Path], list, list]:
    """Files of a model by their name in the repository; problems as (exit code, problem) for pickles and damaged
    weights; warnings for what is left out."""
    found, problems, warnings = {}, [], []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        relative, shown = path.relative_to(folder).as_posix(), paths.shown(path)
        if path.suffix.lower() in PICKLES:
            problems.append(
                Problem(
                    code="pickle",
                    message="a pickle can run code when it is loaded",
                    file=shown,
                    hint="only safetensors are uploaded: remove it, or train again",
                )
            )
        elif (path.suffix not in UPLOADED and relative not in OF_OLLAMA) or TRAINING_STATE.fullmatch(path.name):
            if relative != "README.md":  # the card takes its place
                warnings.append(Problem(code="file_left_out", message="no file of the model: not uploaded", file=shown))
        elif path.suffix == ".safetensors" and (fault := _safetensors_fault(path)):
            problems.append(Problem(code="weights_unreadable", message=fault, file=shown, hint="train again"))
        else:
            found[relative] = path
    return found, [(ExitCode.PREREQUISITE, problem) for problem in problems], warnings


def _safetensors_fault(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            return None if tensors.keys() else "the file holds no tensor"
    except (SafetensorError, OSError) as error:
        return f"no whole safetensors file: {error}"


def of_export(
    paths: TaskPaths, definition: TaskDefinition, run: str, name: str
) -> tuple[cards.Served, dict[str, Path], list, list]:
    """What the card says of an export, its files by their name in the repository, problems as (exit code, problem), and
    warnings. Raises TaskError (exit 4) when it is damaged, or when its contract is of another training."""

    folder = paths.exports(run) / name
    sealed = contract.read(folder)
    contract.require_whole(folder, sealed)
    record, shown = runs.finished_run(paths, run), paths.shown(folder / contract.NAME)
    if (sealed.identity, sealed.trained_at) != (record.identity["sha256"], record.finished_at):
        contract.raise_differences(
            [f"trained_at: the export has {sealed.trained_at}, the run {record.finished_at}"], shown
        )
    labels = definition.task_type.label_set(definition.task)
    wanted = {"labels": labels, "system": definition.prompt.system}
    wanted["options"] = definition.task.model_dump(mode="json") if labels is None else None
    found = contract.differences(sealed.model_dump(), {**sealed.model_dump(), **wanted})
    contract.raise_differences(found, shown)
    files, problems, warnings = _files_of(paths, folder)
    compared = parity.read(paths.exports(run))
    system = next((s for s in compared.systems if s.name == name), None) if compared else None
    command = f"uv run python scripts/export_model.py --config configs/{run}.yaml --verify"
    if system is None:
        message = f"nobody compared {name} with the run"
        warnings.append(Problem(code="not_verified", message=message, file=shown, hint=f"run: {command}"))
    else:
        lines = [Problem(code="parity", message=fault, file=shown, hint="export again") for fault in system.faults]
        problems += [(ExitCode.GATE, problem) for problem in lines]
        hint = "the card says so; a larger number format loses less"
        warnings += [Problem(code="export_worse", message=system.loss, file=shown, hint=hint)] if system.loss else []
    return cards.Served(sealed, system), files, problems, warnings
