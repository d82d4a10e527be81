"""A base model by any name that people have for it: catalog name, Hub id, folder, config.json."""

from __future__ import annotations

import difflib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from knowledge import catalogs
from knowledge.catalogs import Model
from tasklib.exit_codes import ExitCode
from tasklib.model import builtin
from tasklib.summary import Problem, TaskError


@dataclass(frozen=True)
class Base:
    """`location` is what `base_model.id` takes. `entry` is its catalog entry, where there is one; `notes` say where the
    config comes from."""

    name: str
    location: str
    entry: Model | None = None
    notes: tuple[str, ...] = ()


@contextmanager
def located(name: str) -> Iterator[Base]:
    """The base model called `name`, with a config that can be read while this lasts.

    A folder or a config.json comes first, then the catalog (whole id, or what follows its slash, in any case), then the
    Hub. Raises TaskError (exit 2) for a file that is no config.json.
    """
    path = Path(name).expanduser()
    with tempfile.TemporaryDirectory() as workspace:
        if path.is_dir() or builtin.is_builtin(name):
            yield Base(name, str(path) if path.is_dir() else name)
        elif path.is_file():
            yield Base(name, _folder(Path(workspace), _read(path)), notes=(f"config: {path}",))
        elif (entry := find(name)) and entry.config:
            doubt = ", which was not read at its source" if "config" in entry.unverified else ""
            location = _folder(Path(workspace), {"dtype": "bfloat16", **entry.config})
            yield Base(
                entry.id, location, entry, (f"config: the catalog's{doubt}; its weights are taken for bfloat16",)
            )
        else:
            yield Base(entry.id if entry else name, entry.id if entry else name, entry, ("config: from the Hub",))


def find(name: str) -> Model | None:
    """The catalog model of that id, or the only one whose id ends so."""
    wanted = name.lower()
    found = [model for model in catalogs.load("models/catalog.yaml") if wanted in (model.id.lower(), _short(model))]
    return found[0] if len(found) == 1 else None


def nearest(name: str) -> list[str]:
    """Ids of the catalog that look like `name`."""
    ids = {_short(model): model.id for model in catalogs.load("models/catalog.yaml")}
    return [ids[short] for short in difflib.get_close_matches(name.rpartition("/")[2].lower(), ids, n=3, cutoff=0.5)]


def _short(model: Model) -> str:
    return model.id.partition("/")[2].lower()


def _folder(workspace: Path, config: dict) -> str:
    (workspace / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(workspace)


def _read(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        found = error
    if isinstance(found, dict) and "model_type" in found:
        return found
    message = "is no config.json of a model: it has no model_type"
    hint = "give the config.json of a transformers model, a Hub id, or a name of references/models/catalog.yaml"
    raise TaskError(ExitCode.USAGE, [Problem(code="no_config", message=message, file=str(path), hint=hint)])
