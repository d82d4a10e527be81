"""The files of an export that hold weights: the adapter as it is, or the base model with the adapter merged into it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.export import served_template
from tasklib.files import read_json, write_json
from tasklib.model import models, prompts
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.summary import Problem, TaskError

NOT_OF_THE_MODEL = {"README.md", "training_args.bin"}


def write_adapter(config: RunConfig, run_folder: Path, tokenizer: Any, target: Path) -> None:
    """The adapter of a run with its tokenizer. Raises TaskError (exit 2) after full training, which has none."""
    if config.adapter.type == "full":
        problem = Problem(
            code="no_adapter",
            message="the run was trained in full: there is no adapter",
            field="adapter.type",
            hint="--format merged exports the whole model",
        )
        raise TaskError(ExitCode.USAGE, [problem])
    for path in sorted((run_folder / "adapter").iterdir()):
        if path.is_file() and path.name not in NOT_OF_THE_MODEL:
            shutil.copyfile(path, target / path.name)
    settings = read_json(target / "adapter_config.json")  # a local base model: its folder is nobody's business
    if Path(settings["base_model_name_or_path"]).is_dir():
        name = Path(settings["base_model_name_or_path"]).name
        write_json(target / "adapter_config.json", {**settings, "base_model_name_or_path": name})
    tokenizer.save_pretrained(target)


def write_merged(config: RunConfig, run_folder: Path, tokenizer: Any, stop_token_ids: list[int], target: Path) -> None:
    """The base model with the adapter added into its weights, in the dtype the base is stored in; never in 4 bit.

    A run on a 4-bit base is merged into that base in 16 bit: merging into the 4-bit weights would round the adapter
    away (https://github.com/huggingface/peft/issues/2321). Raises TaskError (exit 2) where merging makes another model.
    """
    model = merged_model(config, run_folder)
    generation = model.generation_config
    ends = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    ends = list(dict.fromkeys(n for n in [*stop_token_ids, *ends, tokenizer.eos_token_id] if n is not None))
    # evaluation was greedy: a server that takes its defaults from this file must not sample
    for name in ("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty"):
        setattr(generation, name, None)
    generation.do_sample = False
    generation.eos_token_id, generation.pad_token_id = ends, tokenizer.pad_token_id
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def merged_model(config: RunConfig, run_folder: Path) -> Any:
    """A finished run as one model without adapter."""
    if config.adapter.type == "full":
        return models.load_trained(config, run_folder)
    plain = {"qlora": "lora", "qdora": "dora"}.get(config.adapter.type, config.adapter.type)
    whole = config.model_copy(update={"adapter": config.adapter.model_copy(update={"type": plain})})
    return models.merge(models.load_trained(whole, run_folder, merged=False)).eval()


def export_tokenizer(config: RunConfig, definition: TaskDefinition) -> Any:
    """The run's tokenizer with the template that a server can render (`served_template`)."""
    tokenizer = models.load_tokenizer(config.base_model)
    prompts.ensure_template(tokenizer)
    tokenizer.chat_template = served_template.served_template(tokenizer, definition)
    return tokenizer
