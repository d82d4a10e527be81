"""What the installed libraries have: names, parameters, defaults; and what a page claims of them."""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGES = ("transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate", "torch")
API = re.compile(r"^([A-Za-z_][\w.]*)(?:\(([^()]*)\))?$")
SOURCE = re.compile(r"([\w-]+) ([\d.]+): (\S+)")
MODULE = {"scikit-learn": "sklearn", "opencc": "opencc", "huggingface-hub": "huggingface_hub"}
MISSING = object()


def version(package: str) -> str | None:
    """Major and minor of an installed package."""
    try:
        return ".".join(importlib.metadata.version(package).split(".")[:2])
    except importlib.metadata.PackageNotFoundError:
        return None


def source_exists(package: str, path: str) -> bool:
    """Whether `path` lies in the installed package, or beside it."""
    spec = importlib.util.find_spec(MODULE.get(package, package))
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return folder is not None and any((base / path).exists() for base in (folder, folder.parent))


def find(name: str) -> Any:
    """What a dotted name leads to: a module, class, function or attribute; MISSING where it leads nowhere."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return MISSING
    found: Any = _module(parts[0])
    for number, part in enumerate(parts[1:], 1):
        inner = getattr(found, part, MISSING)
        if inner is MISSING and dataclasses.is_dataclass(found):  # a field without a default is no class attribute
            inner = {field.name: field for field in dataclasses.fields(found)}.get(part, MISSING)
        if inner is MISSING and inspect.ismodule(found):
            inner = _module(".".join(parts[: number + 1]))
        if inner is MISSING:
            return MISSING
        found = inner
    return found


def find_exported(name: str) -> Any:
    """What any of the packages exports under this bare name."""
    for package in PACKAGES:
        found = getattr(_module(package), name, MISSING)
        if found is not MISSING:
            return found
    return MISSING


def parameters(callee: Any) -> dict[str, Any] | None:
    """Parameter -> default (MISSING without one) of a class or function; None where it has no signature."""
    if _has_generated_init(callee):
        return {field.name: _default(field) for field in dataclasses.fields(callee)}
    try:
        signature = inspect.signature(callee)
    except (TypeError, ValueError):
        return None
    empty = inspect.Parameter.empty
    return {name: MISSING if p.default is empty else p.default for name, p in signature.parameters.items()}


def takes_anything(callee: Any) -> bool:
    """Whether it takes **kwargs, so that a name says nothing."""
    if _has_generated_init(callee):
        return False
    with_signature = inspect.signature(callee)
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in with_signature.parameters.values())


def faults_of_claim(name: str, arguments: str | None, found: Any) -> list[str]:
    """What is false in `name(arguments)`: each argument must be a parameter, each `=value` its installed default."""
    known, wrong = parameters(found), []
    for claim in [part.strip() for part in (arguments or "").split(",") if part.strip()]:
        key, equals, value = claim.partition("=")
        key = key.strip()
        if known is None or key not in known:
            wrong.append(f"{name} has no parameter {key!r}")
        elif equals and (said := _literal(value.strip())) != (real := _plain(known[key])):
            shown = "no default" if real is MISSING else repr(real)
            wrong.append(f"{name}({key}) has {shown} as its default, not {said!r}")
    return wrong


def faults_of_code(text: str) -> Iterator[tuple[int, str]]:
    """(line, fault) of a Python block: imports that fail, keyword arguments that the imported callee does not take."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield error.lineno or 1, f"is no Python: {error.msg}"
        return
    imported: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            for alias in node.names:
                found = find(f"{node.module}.{alias.name}")
                if found is MISSING:
                    yield node.lineno, f"{node.module} has no {alias.name}"
                imported[alias.asname or alias.name] = found
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            callee = imported.get(node.func.id, MISSING)
            known = None if callee is MISSING else parameters(callee)
            for keyword in node.keywords:
                if known is not None and keyword.arg and keyword.arg not in known and not takes_anything(callee):
                    yield node.lineno, f"{node.func.id} has no parameter {keyword.arg!r}"


@functools.cache
def training_words() -> frozenset[str]:
    """Parameters of the classes whose names the configs carry, and the arguments of their trainers."""
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig, GenerationConfig, TrainingArguments
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
    from trl.experimental.kto import KTOConfig
    from trl.experimental.orpo import ORPOConfig

    words: set[str] = set()
    for callee in (SFTConfig, DPOConfig, ORPOConfig, KTOConfig, TrainingArguments, LoraConfig, BitsAndBytesConfig):
        words |= set(parameters(callee) or {})
    for callee in (SFTTrainer, DPOTrainer):
        words |= set(parameters(callee) or {})
    return frozenset(words | set(vars(GenerationConfig())))


@functools.cache
def model_words(model_types: tuple[str, ...]) -> frozenset[str]:
    """Every name with an underscore in transformers' code of these model types: modules, config keys."""
    folder = Path(_module("transformers").__file__).parent / "models"
    named = {model_type.replace("-", "_") for model_type in model_types}
    # a config's text_config has a type of its own (gemma3 -> gemma3_text) but the same folder
    folders = [path for path in folder.iterdir() if any(name.startswith(path.name) for name in named)]
    words: set[str] = set()
    for file in (file for path in folders for file in path.glob("*.py")):
        words |= set(re.findall(r"\b[a-zA-Z]\w*_\w+\b", file.read_text(encoding="utf-8")))
    return frozenset(words)


@functools.cache
def trainer_words() -> frozenset[str]:
    """Every name with an underscore in the code of the trainers: what they log, names of schedules and losses."""
    trl, transformers = (Path(_module(name).__file__).parent for name in ("trl", "transformers"))
    files = [*(trl / "trainer").glob("*.py"), *(trl / "experimental" / "orpo").glob("*.py")]
    files += [transformers / "trainer_utils.py", transformers / "trainer.py", transformers / "optimization.py"]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return frozenset(re.findall(r"\b[a-zA-Z]\w*_\w+\b", text))


@functools.cache
def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return MISSING


def _has_generated_init(callee: Any) -> bool:
    """A dataclass whose fields are its parameters: an __init__ of its own (BitsAndBytesConfig) has its own."""
    return dataclasses.is_dataclass(callee) and callee.__init__.__code__.co_filename == "<string>"


def _default(field: dataclasses.Field) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return MISSING if field.default_factory is dataclasses.MISSING else field.default_factory()


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value
