"""An export opened again: its contract kept, its files whole, its model loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasklib.export import contract
from tasklib.export.contract import Contract
from tasklib.model import models
from tasklib.schema import RunConfig, TaskDefinition


def opened(folder: Path, config: RunConfig, definition: TaskDefinition) -> tuple[Contract, Any]:
    """The contract and the tokenizer of an export. Raises TaskError (exit 4) when a file of it is damaged, or its
    contract is not that of the task."""
    from tasklib.export import weights

    sealed = contract.read(folder)
    contract.require_whole(folder, sealed)
    if sealed.format in contract.WITH_TRANSFORMERS:
        tokenizer = models.load_tokenizer(local(config, folder).base_model)
    else:
        tokenizer = weights.export_tokenizer(config, definition)
    contract.require_same(sealed, definition, tokenizer, str(folder / contract.NAME))
    return sealed, tokenizer


def model(folder: Path, sealed: Contract, config: RunConfig) -> Any:
    """The model of an exported adapter (on its base model) or of a merged export. Raises TaskError (exit 4)."""
    if sealed.format == "adapter":
        return models.with_adapter(models.load_base(config), config, folder).eval()
    return models.fully_trained(config, folder).eval()


def gguf_file(folder: Path, sealed: Contract) -> Path:
    """The one GGUF file of a gguf or ollama export."""
    return folder / next(name for name in sealed.files if name.endswith(".gguf"))


def local(config: RunConfig, folder: Path) -> RunConfig:
    """The config with a folder in the place of its base model."""
    spec = config.base_model.model_copy(update={"id": str(folder), "revision": "main"})
    return config.model_copy(update={"base_model": spec})
