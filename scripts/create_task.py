#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "huggingface_hub==2.4.0",
#     "jsonschema==4.26.0",
#     "numpy==2.4.6",
#     "pyarrow==26.0.1",
#     "pydantic==2.14.3",
#     "python-calamine==0.9.1",
#     "PyYAML==6.0.3",
#     "tqdm==4.70.1",
# ]
# ///
"""Creates tasks/<name>/: a self-contained fine-tuning project made from data files and a few answers."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

BUNDLE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BUNDLE / "scripts" / "task"))

from tasklib import cli, task_types  # noqa: E402 - the only copy of the schema lies in scripts/task
from tasklib.summary import Problem, Summary, TaskError  # noqa: E402

if TYPE_CHECKING:
    from creation.answers import Given
    from creation.fitting import Sizes
    from creation.hub_data import HubData
    from creation.sources import Source

# What a task without data waits for in data/raw/: a table, or JSON lines where a cell holds more than a text.
LABELLED, LABELLED_JSON = "labelled.csv", "labelled.jsonl"

# Refusals that another command line settles (exit 2); for others the data must change (exit 3).
USAGE_CODES = {
    "ambiguous_column", "columns_count", "file_missing", "file_twice", "foreign_layout", "has_header", "illegal_value",
    "label_names", "labels_alike", "labels_unknown", "missing_column", "missing_sheet", "no_data", "row_or_header",
    "several_labels", "too_many_labels", "unknown_format", "unknown_key", "unsupported_task_type", "unused_flag",
    "usage", "which_encoding", "which_file", "which_sheet", "which_split",
}  # fmt: skip


class Checked(NamedTuple):
    """Relative path -> text of the generated documents, and the two that the schema has checked."""

    texts: dict[str, str]
    definition: Any
    config: Any


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "create_task",
        "Create tasks/<name>/ from data files. It looks at the data and proposes columns, labels and language; flags "
        "override --answers, a partial task_definition.yaml, and both override what was found.",
        [
            "uv run scripts/create_task.py --name news-sentiment --data news.csv --dry-run",
            "uv run scripts/create_task.py --name news-sentiment --data news.csv --text-field title --label-field mood",
            "uv run scripts/create_task.py --name topics --data dev.txt --label-names class.txt",
            "uv run scripts/create_task.py --name people --data a.jsonl --type ner --fields text=body,entities=spans",
            "uv run scripts/create_task.py --name intents --labels refund,order,other",
            "uv run scripts/create_task.py --upgrade tasks/news-sentiment --dry-run",
        ],
    )
    add = parser.add_argument
    add(
        "--answers",
        type=Path,
        help="YAML: a partial task_definition.yaml; `baseline:` in it goes into configs/baseline.yaml; a file in "
        "data.files may have the steps `explode` (a row for each item of a list), `melt` (a row for each of several "
        "columns) and `collect` (one row of several)",
    )
    add("--name", help="name of the task: a-z, 0-9 and hyphens")
    add("--description", help="one sentence about the task")
    add("--type", help="task type (default: what the data show; classification where there are none)")
    add(
        "--data",
        action="append",
        metavar="FILE",
        help="raw file, glob, folder (split files, or one .txt for each class) or hub:OWNER/NAME; may repeat",
    )
    for split in ("train", "validation", "test"):
        add(f"--{split}", action="append", metavar="FILE", help=f"file of your own {split} split; may repeat")
    add("--label-lines", metavar="FILE", help="file that holds the label of each line of --data, a text a line")
    add("--label-names", type=Path, metavar="FILE", help="names of numeric labels, one a line, the first is 0")
    add("--columns", help="a,b,…: names of the columns of a table without a header row")
    add("--encoding", choices=["utf-8", "utf-16", "big5", "gb18030"], help="of the raw files (default: what they show)")
    add("--sheet", help="Excel sheet that holds the rows")
    add(
        "--fields",
        metavar="ROLE=COLUMN,…",
        help="columns by their role in the task type, e.g. text=body,entities=spans",
    )
    add("--text-field", metavar="COLUMN", help="the column that the model reads: --fields text=COLUMN")
    add("--label-field", metavar="COLUMN", help="the column that the model answers: --fields label=COLUMN")
    add(
        "--labels",
        help="a,b,c or name-in-data=what-the-model-writes,…: labels, entity types, sentiments or stances (default: "
        "those found in the data)",
    )
    add("--base-model", help="Hub id, local path or builtin:smollm2-135m (default: Qwen/Qwen3-0.6B)")
    add(
        "--language",
        choices=["zh-TW", "en"],
        help="language of the default prompt and of generated documents (default: that of the texts)",
    )
    add("--target", type=float, help="value of the primary metric that the gate asks for")
    add("--tasks-dir", type=Path, default=Path("tasks"), help="where tasks lie (default: ./tasks)")
    add("--upgrade", type=Path, metavar="TASK", help="bring the scripts of an existing task up to date, nothing else")
    add("--dry-run", action="store_true", help="check everything and show the proposal, write nothing")
    add("--json", action="store_true", help="print one JSON object on stdout")
    return parser


@dataclass
class Plan:
    """What will be written: the definition, raw file -> its name in data/raw/, what the summary says, and how long
    prompts and answers are."""

    definition: dict[str, Any]
    sources: list[Source] = field(default_factory=list)
    copies: dict[Path, str] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    sizes: Sizes | None = None


def create(args: argparse.Namespace) -> Summary:
    if args.upgrade:
        from creation import upgrade

        return upgrade.upgrade(args.upgrade, BUNDLE, dry_run=args.dry_run)
    from creation import answers

    given = answers.read(args)
    with contextlib.ExitStack() as stack:
        files, hub = _from_hub(given, stack)
        plan = _from_data(args, given, files, hub) if files else _without_data(args, given)
        return _write(args, given, plan)


def _from_data(args: argparse.Namespace, given: Given, files: dict[str, Any], hub: HubData | None) -> Plan:
    """Looks at the files. Raises TaskError: exit 2 with what is not clear and the candidates, exit 3 for files without
    a readable row; in both cases with everything else that is wrong."""
    from creation import labels, proposal, reading, sources

    found = sources.find(files, given.base, by_name=given.by_flag)
    named = frozenset(name for name in given.answers["data"]["fields"].values() if isinstance(name, str))
    columns = tuple(name.strip() for name in args.columns.split(",")) if args.columns else None
    understood = reading.understand(found.sources, reading.Flags(args.encoding, columns, args.sheet, named))
    by_class, more = sources.by_class(understood.sources)
    warnings = found.warnings + understood.warnings + more + _left_out(hub)
    names = labels.names_of(args.label_names)
    problems = found.problems + understood.problems + ([names] if isinstance(names, Problem) else [])
    if problems:
        _fail(args, given, problems, warnings=warnings, candidates=understood.candidates)
    task = given.answers["task"]
    wanted = {"type": given.type, "fields": given.answers["data"]["fields"], "task": task}
    wanted["labels"] = given.labels or task.get(given.label_option or "labels")
    wanted |= {"language": given.answers.get("language"), "prompt": given.answers.get("prompt")}
    proposed = proposal.propose(by_class, wanted, names, hub.class_names if hub else None)
    given.settle(proposed.type or proposal.TABLE)
    outputs = {"source": given.files["all"][0]} if hub else {}
    if proposed.fields:
        print(proposed.to_text(), file=sys.stderr)
        outputs["proposal"] = proposed.shown()
    report = {"warnings": warnings + proposed.warnings, "totals": proposed.totals, "outputs": outputs}
    report["candidates"] = proposed.candidates
    if proposed.unreadable or proposed.problems:
        _fail(args, given, proposed.unreadable + proposed.problems, **report)
    copies = sources.raw_names(by_class)
    definition = _definition(given, sources.data_files(proposed.sources, copies), proposed)
    if hub and hub.license and isinstance(definition.get("hub") or {}, dict):
        definition["hub"] = {"dataset_license": hub.license, **(definition.get("hub") or {})}
    return Plan(definition, by_class, copies, report, sizes=proposed.sizes)


def _without_data(args: argparse.Namespace, given: Given) -> Plan:
    """A task that waits for data: guides, an example of the right form, and the way to label texts."""
    from creation import answers

    of_data = [flag for flag in ("label_lines", "label_names", "columns", "encoding", "sheet") if vars(args)[flag]]
    given.settle("classification")
    if of_data or not (given.label_option or given.is_complete):
        message = "neither data nor labels were given"
        if of_data:
            message = f"--{of_data[0].replace('_', '-')} says something of data, and none were given"
        hint = "give --data FILE (may repeat); or only --labels a,b,…: the task then helps to label texts; or --type "
        hint += f"and the options that it needs: {', '.join(task_types.names())}"
        _fail(args, given, [Problem(code="no_data", message=message, field="data.files", hint=hint)])
    given.answers["data"]["fields"] = answers.complete_fields(given)
    name, example = waiting_for(given.type)
    definition = _definition(given, {"all": [f"data/raw/{name}"]}, None)
    hint = f"see docs/annotation_guide.md and {example}; then put the rows into data/raw/{name}"
    warning = Problem(code="no_data_yet", message="the task has no data yet", field="data.files", hint=hint)
    return Plan(definition, report={"warnings": [warning]})


def waiting_for(task_type: str) -> tuple[str, str]:
    """The file that a task without data waits for, and the example of its form."""
    from creation import rendering

    is_table = rendering.fits_a_table(task_type)
    return (LABELLED, "data/example.csv") if is_table else (LABELLED_JSON, "data/example.jsonl")


def _definition(given: Given, files: dict[str, list[Any]], proposed: Any) -> dict[str, Any]:
    """The answers as a task definition, over what the data propose."""
    answers = given.answers
    definition = {key: value for key, value in answers.items() if key != "baseline"}
    fields = {**(proposed.fields if proposed else {}), **answers["data"]["fields"]}
    definition["data"] = {**answers["data"], "files": files, "fields": fields}
    task = {key: value for key, value in answers["task"].items() if key != "type" and value is not None}
    found = {key: value for key, value in proposed.task.items() if key != "type"} if proposed else {}
    definition["task"] = {"type": given.type, **found, **task}  # read first, so written first
    if proposed and definition.get("language") is None:
        definition["language"] = proposed.language
    prompt = definition.get("prompt") or {}
    if proposed and proposed.instruction and isinstance(prompt, dict) and prompt.get("instruction") is None:
        definition["prompt"] = {**prompt, "instruction": proposed.instruction}
    return definition


def _fail(args: argparse.Namespace, given: Given, problems: list[Problem], **report: Any) -> NoReturn:
    """Raises TaskError with these problems of the data and with what is wrong beside them."""
    usage = cli.ExitCode.USAGE
    code = usage if all(problem.code in USAGE_CODES for problem in problems) else cli.ExitCode.DATA
    files = {split: [f"data/raw/{split}"] for split in given.files} or {"all": ["data/raw/all"]}
    from creation import answers, rendering

    given.settle("classification")
    stand_in = _definition(given, files, None)
    stand_in["data"]["fields"] = answers.complete_fields(given)
    stand_in["task"] = rendering.with_example_options(stand_in["task"])
    stand_in["prompt"] = {"instruction": "Answer.", **(stand_in.get("prompt") or {})}
    try:
        _check(args, given, stand_in)
    except TaskError as error:
        told = {problem.field for problem in problems if problem.field}
        problems = problems + [problem for problem in error.problems if problem.field not in told]
    raise TaskError(code, problems, **report)


def _check(args: argparse.Namespace, given: Given, definition: dict[str, Any], sizes: Sizes | None = None) -> Checked:
    """Renders and checks every document. Raises TaskError (exit 2) with everything that is wrong."""
    from creation import answers, rendering
    from tasklib.model import builtin

    problems = [problem] if (problem := answers.name_problem(definition.get("name"))) else []
    if problem:
        definition = {**definition, "name": "name"}
    config = rendering.config_of(given.answers["baseline"], args.base_model, given.type, sizes)
    try:
        texts = rendering.render(definition, config)
        checked, run_config = rendering.checked(texts, args.answers, given.lines)
        if builtin.is_builtin(run_config.base_model.id):
            builtin.describe(run_config.base_model.id)
        if not problem:
            _require_free((args.tasks_dir / checked.name).resolve())
    except TaskError as error:
        raise TaskError(error.exit_code, problems + error.problems, **error.report) from None
    if problems:
        raise TaskError(cli.ExitCode.USAGE, problems)
    return Checked(texts, checked, run_config)


def _require_free(target: Path) -> None:
    """Raises TaskError (exit 2) where no task may be written."""
    if target.is_relative_to(BUNDLE) and not (BUNDLE / ".git").exists():
        message = f"{target} lies inside the installed skill"
        hint = "run from your project's folder, or give --tasks-dir"
        raise TaskError(cli.ExitCode.USAGE, [Problem(code="inside_skill", message=message, hint=hint)])
    if target.exists():
        hint = "choose another name, or work on the existing task"
        problem = Problem(code="task_exists", message=f"{target} exists already", field="--name", hint=hint)
        again = f"bash {shlex.quote(str(target / 'scripts' / 'run_pipeline.sh'))}"
        raise TaskError(cli.ExitCode.USAGE, [problem], next=again)


def _write(args: argparse.Namespace, given: Given, plan: Plan) -> Summary:
    from creation import rendering

    try:
        checked = _check(args, given, plan.definition, plan.sizes)
    except TaskError as error:
        raise TaskError(error.exit_code, error.problems, **{**plan.report, **error.report}) from None
    target = (args.tasks_dir / checked.definition.name).resolve()
    texts = checked.texts | rendering.guides(checked.definition, checked.config)
    if not plan.sources:
        texts[waiting_for(given.type)[1]] = rendering.example_of(checked.definition)
    outputs = plan.report.pop("outputs", {})
    if not args.dry_run:
        rendering.write(target, texts, plan.copies, given.answers, plan.sources)
        outputs = {"task": str(target), **outputs}
    labels_help = checked.definition.task_type.label_set(checked.definition.task) is not None
    waiting = f"uv run python scripts/{'label_with.py --help' if labels_help else '01_validate_data.py'}"
    after = "bash scripts/run_pipeline.sh" if plan.sources else waiting
    return Summary.of(
        "create_task",
        **plan.report,
        outputs=outputs,
        counts={"data_files": len(plan.copies)},
        next="the same command without --dry-run" if args.dry_run else f"cd {shlex.quote(str(target))} && {after}",
    )


def _from_hub(given: Given, stack: contextlib.ExitStack) -> tuple[dict[str, Any], HubData | None]:
    """The files, or those of a `hub:` entry once they are fetched into a folder that `stack` removes; the answers then
    keep the commit that was fetched."""
    from creation import hub_data

    files = given.files
    entries = [name for names in files.values() for name in (names if isinstance(names, list) else [names])]
    hub = [name for name in entries if isinstance(name, str) and name.startswith("hub:")]
    if not hub:
        return files, None
    if len(entries) > 1 or "all" not in files:
        message, hint = "a Hub data set brings its own splits and stands alone", "give one --data hub:OWNER/NAME"
        problem = Problem(code="usage", message=message, field="data.files", hint=hint)
        raise TaskError(cli.ExitCode.USAGE, [problem])
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="finetune-llm-")))
    fetched = hub_data.fetch(hub[0], folder)
    config = f":{fetched.config}" if hub[0].count(":") > 1 else ""
    files["all"] = [f"hub:{fetched.repo_id}@{fetched.revision}{config}"]
    return {split: [str(path) for path in paths] for split, paths in fetched.files.items()}, fetched


def _left_out(hub: HubData | None) -> list[Problem]:
    if not (hub and hub.left_out):
        return []
    message, hint = f"{', '.join(hub.left_out[:10])} is not used", "download it and name it if it is needed"
    return [Problem(code="file_left_out", message=message, field="data.files", hint=hint)]


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), create, argv)


if __name__ == "__main__":
    raise SystemExit(main())
