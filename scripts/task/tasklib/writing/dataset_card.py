"""The data set as it may leave this machine: its card in the task's language, and what stands against an upload.

Every number of a card comes from data/processed/manifest.json and docs/data_report.json. Nothing of the machine enters
it, and no row of the data: the example of the format is one of the task type's own.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasklib.data import conversion, dataset, forms
from tasklib.exit_codes import ExitCode
from tasklib.files import read_json, sha256_of
from tasklib.markdown import literal, table
from tasklib.model import prompts
from tasklib.paths import TaskPaths
from tasklib.schema import PromptSpec, TaskDefinition
from tasklib.summary import Problem, TaskError
from tasklib.texts import CLASSES
from tasklib.writing.card_texts import DATASET_CARD
from tasklib.writing.cards import HUB_LANGUAGES

VALIDATE, CONVERT = "uv run python scripts/01_validate_data.py", "uv run python scripts/02_convert_format.py"
MAX_LABELS_SHOWN = 100
Words = dict[str, Any]


class Counts(BaseModel):
    """Of docs/data_report.json: rows of the raw files, and those that passed every check."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)
    rows: int = Field(ge=0)
    readable: int = Field(ge=0)


class DataReport(BaseModel):
    """docs/data_report.json as far as a card needs it. `totals`: code -> findings; `errors`: those of the codes that
    stop a conversion; `personal_data`: kind -> rows; `script`: traditional, simplified, mixed, none -> rows;
    `expected_interval`: test_rows, assumed_level and expected_half_width, or empty; `raw_sha256`: path -> sha256 of
    what was checked, `definition_sha256`: by which definition."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)
    raw_sha256: dict[str, str]
    definition_sha256: str
    counts: Counts
    totals: dict[str, int]
    errors: list[str]
    personal_data: dict[str, int]
    script: dict[str, int]
    expected_interval: dict[str, float | None]


class SplitCounts(BaseModel):
    """Of manifest.json: rows of one split, and of each label in it."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)
    n_rows: int = Field(ge=0)
    labels: dict[str, int]


class Manifest(BaseModel):
    """data/processed/manifest.json as far as it is published."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)
    schema_version: int
    inputs: dict[str, str]
    definition_sha256: str
    splits: dict[str, SplitCounts] = Field(min_length=1)
    files: dict[str, str]

    @property
    def n_rows(self) -> int:
        return sum(split.n_rows for split in self.splits.values())


def checked(paths: TaskPaths, definition: TaskDefinition) -> tuple[Manifest, DataReport]:
    """Manifest and report. Raises TaskError (exit 4) with everything that is missing, damaged or out of date: the
    report must be of the same files and definition as the processed rows, and these of what lies here now."""
    problems: list[Problem] = []
    report = _read(paths, "data_report_json", DataReport, "no_data_report", problems)
    manifest = _read(paths, "manifest", Manifest, "no_processed", problems)
    if manifest is not None:
        problems += _processed_problems(paths, definition, manifest)
        problems += _outside(manifest)
    if report is not None and manifest is not None and (what := _differs(report, manifest)):
        message = f"the report is of {what} than the processed rows"
        problems.append(_stale("data_report_stale", message, paths.shown(paths.data_report_json), VALIDATE))
    if problems or report is None or manifest is None:
        again = VALIDATE if any(VALIDATE in (problem.hint or "") for problem in problems) else CONVERT
        raise TaskError(ExitCode.PREREQUISITE, problems, next=again)
    return manifest, report


def _read(paths: TaskPaths, name: str, model: type[BaseModel], code: str, problems: list[Problem]) -> Any:
    """One of the two files, or None with a problem."""
    path, command = getattr(paths, name), VALIDATE if model is DataReport else CONVERT
    try:
        return model.model_validate(read_json(path))
    except FileNotFoundError:
        message = f"{paths.shown(path)} does not exist"
        problems.append(_stale(code, message, paths.shown(path), command))
    except ValidationError as error:
        for fault in error.errors():
            field = ".".join(map(str, fault["loc"]))
            problem = Problem(code=f"{code}_key", message=fault["msg"], file=paths.shown(path), field=field,
                              hint=f"made by another version: run {command}")  # fmt: skip
            problems.append(problem)
    except ValueError as error:
        problems.append(_stale(code, f"no JSON: {error}", paths.shown(path), command))
    return None


def _differs(report: DataReport, manifest: Manifest) -> str | None:
    """What the report was made from that the processed rows were not, or None."""
    if report.raw_sha256 != manifest.inputs:
        return "other raw files"
    by_another = report.definition_sha256 != manifest.definition_sha256
    if by_another or report.errors or report.counts.readable != manifest.n_rows:
        return "another definition"
    return None


def _processed_problems(paths: TaskPaths, definition: TaskDefinition, manifest: Manifest) -> list[Problem]:
    """Processed files changed by hand, and what they were made from that is different now."""
    problems = []
    for name in manifest.splits:
        path = paths.split(name)
        if not path.is_file() or sha256_of(path) != manifest.files.get(name):
            message = f"{path.name} is {'not what 02_convert_format.py wrote' if path.is_file() else 'missing'}"
            problems.append(_stale("processed_changed", message, paths.shown(path), f"{CONVERT} --force"))
    now = {name: sha256_of(paths.root / name) for name in definition.data.raw_paths if (paths.root / name).is_file()}
    for name in sorted({*now, *manifest.inputs, *definition.data.raw_paths}):
        if now.get(name) != manifest.inputs.get(name) or name not in now:
            if name not in definition.data.raw_paths:
                message = f"the processed rows were made from {name}, which data.files no longer names"
            elif name not in now:
                message = f"{name} is missing: nobody can say what the rows were made from"
            elif name in manifest.inputs:
                message = f"{name} was changed since the rows were converted"
            else:
                message = f"the processed rows were made before data.files named {name}"
            problems.append(_stale("raw_changed", message, name, f"{VALIDATE}, then {CONVERT}"))
    if manifest.definition_sha256 != conversion.definition_sha256(definition):
        message = "task, prompt, data or language changed since the rows were converted"
        problems.append(_stale("processed_out_of_date", message, "task_definition.yaml", f"{VALIDATE}, then {CONVERT}"))
    elif manifest.schema_version != conversion.MANIFEST_VERSION:
        message = f"made by version {manifest.schema_version} of the format, now {conversion.MANIFEST_VERSION}"
        problems.append(_stale("processed_out_of_date", message, paths.shown(paths.manifest), CONVERT))
    return problems


def _outside(manifest: Manifest) -> list[Problem]:
    """Raw files outside the task: their paths stand in every row, and say whose machine this is."""
    outside = [name for name in manifest.inputs if PurePath(name).is_absolute() or re.match(r"~|\.\.|[A-Za-z]:", name)]
    hint = f"copy it into data/raw/, name the copy in data.files, then run {VALIDATE} and {CONVERT}"
    message = "the rows name this file by its path on this machine"
    return [
        Problem(code="path_outside_task", message=message, file=name, field="data.files", hint=hint) for name in outside
    ]


def _stale(code: str, message: str, file: str, command: str) -> Problem:
    return Problem(code=code, message=message, file=file, hint=f"run {command}")


def unresolved_personal_data(definition: TaskDefinition, report: DataReport) -> list[tuple[ExitCode, Problem]]:
    """What stands against sending the rows anywhere, as (exit code, problem)."""
    found = {kind: n for kind, n in sorted(report.personal_data.items()) if n}
    if not found or definition.hub.personal_data_reviewed:
        return []
    problem = Problem(
        code="personal_data_unresolved",
        message=f"the data report lists personal data: {', '.join(f'{kind} in {n} rows' for kind, n in found.items())}",
        file="docs/data_report.md",
        field="hub.personal_data_reviewed",
        hint="replace them in a corrected copy of the raw files; or, when a person has looked at every finding and the "
        "rows may go out as they are, set hub.personal_data_reviewed: true in task_definition.yaml",
    )
    return [(ExitCode.DATA, problem)]


def contents(paths: TaskPaths, manifest: Manifest, card: str) -> dict[str, Any]:
    """Name in the repository -> a file here, text, or a value to write as JSON."""
    rows = {f"{name}.jsonl": paths.split(name) for name in manifest.splits}
    return {"README.md": card, "manifest.json": manifest.model_dump(mode="json"), **rows}


def render(definition: TaskDefinition, manifest: Manifest, report: DataReport) -> str:
    """README.md of the dataset repository: metadata for the Hub, then what a reader must know."""
    from huggingface_hub import DatasetCard

    words = DATASET_CARD[definition.language]
    sections = [
        [f"# {definition.name}", definition.description, f"> {words['generated']}"],
        _what(definition, manifest, report, words),
        _format(definition, words),
        _splits(definition, manifest, words),
        _checks(report, words),
        [f"## {words['personal_data']}", *_personal_data(definition, report, words)],
        _source(definition, manifest, words),
        [f"## {words['limits']}", "\n".join(f"- {line}" for line in _limits(definition, manifest, report, words))],
        _use(definition, words),
    ]
    body = "\n\n".join(block for section in sections for block in section if block)
    card = f"---\n{_metadata(definition, manifest).to_yaml()}\n---\n\n{body}\n"
    DatasetCard(card)  # raises when the Hub's own reader would not understand the metadata
    return card


def _metadata(definition: TaskDefinition, manifest: Manifest) -> Any:
    """The YAML block. What is not known is left out: the Hub reads an absent key as unknown."""
    from huggingface_hub import DatasetCardData

    data_files = [{"split": name, "path": f"{name}.jsonl"} for name in manifest.splits]
    own = definition.task_type.TASK_CATEGORIES  # the Hub's names for what the task type does
    return DatasetCardData(
        language=HUB_LANGUAGES[definition.language],
        license=definition.hub.dataset_license,
        pretty_name=definition.name,
        task_categories=list(dict.fromkeys([*own, "text-generation"])),  # each row is a text that a model is to write
        size_categories=size_category(manifest.n_rows),
        tags=[definition.task.type, "finetune-llm"],
        configs=[{"config_name": "default", "data_files": data_files}],
    )


def size_category(n_rows: int) -> str:
    """The Hub's size category of a data set: `n<1K`, `1K<n<10K`, … `n>1T`, the list in huggingface_hub's
    DatasetCardData. A power of ten counts as the larger one."""
    names = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    place = sum(n_rows >= 10**power for power in range(3, 13))
    if place == 0:
        return f"n<{names[0]}"
    return f"n>{names[-1]}" if place == len(names) else f"{names[place - 1]}<n<{names[place]}"


def example_row(definition: TaskDefinition) -> dict[str, Any]:
    """A row in the form of the processed files that is made from the task type's own example, not from the data."""
    module = definition.task_type
    record, _ = forms.examples(definition)[0]
    shape = definition.model_copy(update={"task": module.EXAMPLE_OPTIONS, "prompt": PromptSpec()})
    return {
        "id": "example.csv:2",
        "source": {"file": "data/raw/example.csv", "line": 2},
        "record": record.model_dump(),
        "prompt": prompts.asked(shape, [], record),
        "completion": [prompts.assistant_message(shape, record)],
    }


def _what(definition: TaskDefinition, manifest: Manifest, report: DataReport, words: Words) -> list[str]:
    shown = [(words["script_name"].get(name, name), f"{n:,}") for name, n in report.script.items() if n]
    text = words["what_text"].format(
        n=f"{manifest.n_rows:,}", task_type=definition.task.type, splits=len(manifest.splits)
    )
    is_chinese = any(n and name != "none" for name, n in report.script.items())
    scripts = [words["scripts"], table((words["script"], words["rows"]), shown)] if is_chinese else []
    return [f"## {words['what']}", text, *scripts]


def _format(definition: TaskDefinition, words: Words) -> list[str]:
    from tasklib.files import to_json

    columns = [(f"`{name}`", meaning) for name, meaning in words["columns"].items()]
    fields = [(f"`record.{name}`", made_of) for name, made_of in _fields(definition, words).items()]
    n_shots, row = definition.prompt.n_few_shot, example_row(definition)
    lines = ",\n".join(f"  {to_json(key)}: {to_json(value)}" for key, value in row.items())
    return [
        f"## {words['format']}",
        words["format_text"],
        _table((words["column"], words["meaning"]), columns),
        _table((words["field"], words["raw_column"]), fields),
        words["few_shot"].format(n=n_shots) if n_shots else "",
        words["system"] if definition.prompt.system is not None else "",
        words["nfkc"] if "nfkc" in definition.data.normalize else "",
        words["example"],
        f"```json\n{{\n{lines}\n}}\n```",
    ]


def _fields(definition: TaskDefinition, words: Words) -> dict[str, str]:
    """Field of a record -> the raw column that it is; all columns that are no field where it is made of them."""
    fields = definition.data.fields
    others = ", ".join(literal(column) for role, column in fields.items() if role not in _record_fields(definition))
    made_of = words["made_of"].format(columns=others) if others else None
    found = {name: literal(fields[name]) if name in fields else made_of for name in _record_fields(definition)}
    return {name: shown for name, shown in found.items() if shown}


def _record_fields(definition: TaskDefinition) -> list[str]:
    return list(definition.task_type.Record.model_fields)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _splits(definition: TaskDefinition, manifest: Manifest, words: Words) -> list[str]:
    drawn, spec = dataset.drawn_shares(definition), definition.data.split
    total, files = manifest.n_rows, definition.data.files
    rows = []
    for name, split in manifest.splits.items():
        origin = words["own_file"] if name in files else words["remainder"]
        if name in drawn:
            origin = words["drawn"].format(share=f"{drawn[name]:.1%}")
        share = f"{split.n_rows / total:.1%}" if total else words["unknown"]
        rows.append((name, f"{split.n_rows:,}", share, origin))
    how = [words["equal_texts"]]
    if drawn:
        how.append(words["by_time"].format(column=literal(spec.time_field)) if spec.time_field else
                   words["by_seed"].format(seed=spec.seed))  # fmt: skip
        near = spec.near_duplicates
        how.append(words["near"].format(similarity=near) if near is not None else words["no_near"])
    else:
        how.append(words["nothing_drawn"])
    if spec.group_by:
        how.append(words["by_group"].format(column=literal(spec.group_by)))
    return [
        f"## {words['splits']}",
        table((words["split"], words["rows"], words["share"], words["origin"]), rows),
        "\n".join(f"- {line}" for line in how),
        *_labels(definition, manifest, words),
    ]


def _labels(definition: TaskDefinition, manifest: Manifest, words: Words) -> list[str]:
    """Rows of each label by split; those of the definition first, in its order."""
    answers = definition.task_type.label_set(definition.task) or {}
    found = sorted({label for split in manifest.splits.values() for label in split.labels})
    names = list(dict.fromkeys([*answers, *found]))
    if not names:
        return []
    if len(names) > MAX_LABELS_SHOWN:
        return [words["many_labels"].format(n=len(names))]
    if named := CLASSES[definition.language].get(definition.task.type):
        words = words | {"label": named["label"], "labels": named["label"]}
    counted = [
        (
            label,
            *([answers.get(label, "")] if answers else []),
            *(f"{split.labels.get(label, 0):,}" for split in manifest.splits.values()),
        )
        for label in names
    ]
    several = any(sum(split.labels.values()) > split.n_rows for split in manifest.splits.values())
    header = (words["label"], *([words["answer"]] if answers else []), *manifest.splits)
    return [f"### {words['labels']}", table(header, counted), words["several_labels"] if several else ""]


def _checks(report: DataReport, words: Words) -> list[str]:
    found = [(code, f"{n:,}") for code, n in sorted(report.totals.items(), key=lambda item: -item[1]) if n]
    counts = words["checked"].format(rows=f"{report.counts.rows:,}", readable=f"{report.counts.readable:,}")
    result = table((words["code"], words["findings"]), found) if found else words["no_findings"]
    return [f"## {words['checks']}", words["checks_text"], counts, result]


def _personal_data(definition: TaskDefinition, report: DataReport, words: Words) -> list[str]:
    found = [(kind, f"{n:,}") for kind, n in sorted(report.personal_data.items()) if n]
    if not found:
        return [words["no_personal_data"], words["personal_data_limits"]]
    state = words["reviewed" if definition.hub.personal_data_reviewed else "not_reviewed"]
    return [table((words["kind"], words["rows"]), found), state, words["personal_data_limits"]]


def _source(definition: TaskDefinition, manifest: Manifest, words: Words) -> list[str]:
    license_id = definition.hub.dataset_license
    return [
        f"## {words['source']}",
        words["source_text"],
        table((words["file"], "sha256"), sorted(manifest.inputs.items())),
        words["license"].format(license=literal(license_id)) if license_id else words["no_license"],
    ]


def _limits(definition: TaskDefinition, manifest: Manifest, report: DataReport, words: Words) -> list[str]:
    lines = []
    contradicting = report.totals.get("contradicting_duplicate", 0)
    if contradicting:
        lines.append(words["limit_contradicting"].format(n=f"{contradicting:,}"))
    lines.append(_test_limit(manifest, report, words))
    compared = dataset.drawn_shares(definition) and definition.data.split.near_duplicates is not None
    if len(manifest.splits) > 1 and not compared and "near_leakage" not in report.totals:
        lines.append(words["limit_near"])
    return [*lines, words["limit_labels"], words["limit_checks"], words["limit_domain"]]


def _test_limit(manifest: Manifest, report: DataReport, words: Words) -> str:
    test, expected = manifest.splits.get("test"), report.expected_interval
    if test is None:
        return words["limit_no_test"]
    half_width = expected.get("expected_half_width")
    if half_width is None or expected.get("test_rows") != test.n_rows:  # said of another size than was drawn
        return words["limit_test"].format(n=f"{test.n_rows:,}")
    return words["limit_interval"].format(n=f"{test.n_rows:,}", level=expected["assumed_level"], half_width=half_width)


def _use(definition: TaskDefinition, words: Words) -> list[str]:
    name = definition.hub.dataset_repo_id or definition.name
    repository = name if "/" in name else f"YOUR_NAME/{name}"
    code = f"from datasets import load_dataset\n\nrows = load_dataset({repository!r})"
    return [f"## {words['use']}", words["login"], f"```python\n{code}\n```"]
