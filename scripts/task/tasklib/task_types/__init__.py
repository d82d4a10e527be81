"""One file for each task type; the file name is the registry.

What a module offers stands in CONTRIBUTING.md, "Adding a task type"; tests/test_task_type_laws.py holds every file
to it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType


def names() -> list[str]:
    """The task types that exist."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def load(name: str) -> ModuleType:
    """The module of one task type. Raises KeyError for a name that is no file here."""
    if name not in names():
        raise KeyError(name)
    return importlib.import_module(f"tasklib.task_types.{name}")
