#!/usr/bin/env python3
"""Labels texts with a model and a person: `propose` fills a sheet, `accept` takes the corrected one back."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasklib import cli
from tasklib.summary import Problem, Summary, TaskError

SAVE_EVERY_S = 10.0
# The flags of one action, with their defaults; the other action refuses them.
PROPOSE = {
    "endpoint": "http://localhost:11434/v1",
    "model": None,
    "output": None,
    "parallel": 4,
    "timeout_s": 120,
    "max_tokens": 512,
}
ACCEPT = {"apply": False}


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "label_with",
        "propose: let a model behind any OpenAI-compatible endpoint propose a label for each text, into a CSV for a\n"
        "person. accept: take the corrected CSV back as a new file in data/raw/. A proposal that nobody checked is\n"
        "never taken. The API key, if the endpoint wants one, comes from the environment variable OPENAI_API_KEY.",
        [
            "uv run python scripts/label_with.py propose --input texts.txt --model qwen3:8b",
            "uv run python scripts/label_with.py propose --input new.csv --model m --endpoint https://example.com/v1",
            "uv run python scripts/label_with.py accept --input data/labelling/texts.csv --apply",
        ],
    )
    cli.add_task_flags(parser, __file__)
    add = parser.add_argument
    add("action", nargs="?", choices=["propose", "accept"], help="what to do")
    add(
        "--input",
        type=Path,
        metavar="FILE",
        help="propose: .txt (one text a line), or a table or JSON file with the data's columns; accept: the sheet",
    )
    add("--dry-run", action="store_true", help="check everything, send no text, write nothing")
    add("--endpoint", metavar="URL", help=f"propose: address up to /v1 (default: {PROPOSE['endpoint']})")
    add("--model", help="propose: name of the model at the endpoint")
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="propose: the sheet (default: data/labelling/<name of the input>.csv)",
    )
    add("--parallel", type=cli.positive_int, metavar="N", help="propose: requests at a time (default: 4)")
    add("--timeout-s", type=cli.positive_int, metavar="S", help="propose: seconds for one answer (default: 120)")
    add("--max-tokens", type=cli.positive_int, metavar="N", help="propose: longest answer in tokens (default: 512)")
    add("--apply", action="store_true", default=None, help="accept: also write the new file into data.files")
    return parser


def label_with(args: argparse.Namespace) -> Summary:
    from tasklib import schema
    from tasklib.paths import task_paths

    paths = task_paths(args.task_dir)
    if args.action is None:
        raise cli.UsageError("say what to do: propose or accept")
    own, others = (PROPOSE, ACCEPT) if args.action == "propose" else (ACCEPT, PROPOSE)
    cli.take_flags(args, own, others)
    if args.input is None:
        raise cli.UsageError(f"{args.action} needs --input FILE")
    definition = schema.load_definition(paths.definition)
    return (propose if args.action == "propose" else accept)(args, paths, definition)


def propose(args: argparse.Namespace, paths: Any, definition: Any) -> Summary:
    from tasklib.answering import endpoint
    from tasklib.writing import labelling

    labelling.label_role(definition)
    if not args.model:
        raise cli.UsageError("propose needs --model NAME, the name that the endpoint knows")
    client = endpoint.Client(
        args.endpoint,
        args.model,
        os.environ.get("OPENAI_API_KEY") or None,
        timeout_s=args.timeout_s,
        max_tokens=args.max_tokens,
    )
    sheet = _Sheet(args.output or paths.root / "data" / "labelling" / f"{args.input.stem}.csv", definition)
    if sheet.path.resolve() == args.input.resolve():
        raise cli.UsageError("--output is the --input itself: it would be overwritten")
    texts, n_repeated, problems = labelling.read_texts(args.input, definition)
    if problems:
        raise TaskError(cli.ExitCode.DATA, problems)
    sheet.merge(texts)
    asked = [position for position, row in enumerate(sheet.rows) if row.is_open]
    counts = {"texts": len(texts), "repeated": n_repeated, "in_sheet_before": sheet.n_before, "asked": len(asked)}
    warnings = _warnings_before(client.url, [sheet.rows[position] for position in asked])
    command = shlex.join(["uv", "run", "python", "scripts/label_with.py", "accept", "--input", paths.shown(sheet.path)])
    report = {"warnings": warnings, "counts": counts}
    if args.dry_run:
        client.check()
        return Summary.of("label_with", **report, next="the same command without --dry-run")
    with _told(report, sheet, asked, paths):
        refused = _ask(client, sheet, asked, definition, args.parallel) if asked else []
        sheet.save()
    proposed = Counter(sheet.rows[position].proposed for position in asked)
    counts |= {"proposed": len(asked) - proposed[""], "unparsable": proposed.pop("", 0) - len(refused)}
    counts |= {"refused": len(refused)} if refused else {}
    warnings += _warnings_after(refused, counts["unparsable"], client.dropped)
    return Summary.of(
        "label_with",
        "ok" if sheet.was_written else "skipped",
        **report,
        metrics={"proposed": dict(proposed)},
        outputs={"sheet": paths.shown(sheet.path)},
        next=command,
    )


class _Sheet:
    """The sheet on disk and in memory. What a person wrote is read before anything is written, never overwritten."""

    def __init__(self, path: Path, definition: Any) -> None:
        self.path, self.definition = path, definition
        self.rows: list[Any] = []
        self.n_before, self.was_written = 0, False
        self._text, self._saved_at = None, time.monotonic()

    def merge(self, texts: list[Any]) -> None:
        """Takes over what the file says of the texts already. Raises TaskError (exit 3) where it cannot be read."""
        from tasklib.writing import labelling

        found: list[Any] = []
        if self.path.exists():
            self._text = self.path.read_bytes()
            found, problems = labelling.read_sheet(self.path, self.definition)
            if problems:
                raise TaskError(cli.ExitCode.DATA, problems)
        self.n_before = len(found)
        self.rows = labelling.merged(texts, found)

    def put(self, position: int, label: str) -> None:
        self.rows[position] = dataclasses.replace(self.rows[position], proposed=label)
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Writes the sheet if it changed. Raises TaskError (exit 4) when somebody else changed the file meanwhile."""
        from tasklib import files
        from tasklib.writing import labelling

        self._saved_at = time.monotonic()
        text = labelling.sheet_text(self.rows, self.definition)
        on_disk = self.path.read_bytes() if self.path.exists() else None
        if on_disk != self._text:
            problem = Problem(
                code="sheet_changed",
                message="the sheet was changed while proposals were being made; it is left as it is now",
                file=str(self.path),
                hint="save and close it, then run the same command again: it goes on from there",
            )
            raise TaskError(cli.ExitCode.PREREQUISITE, [problem])
        if on_disk != text.encode():
            files.write_text(self.path, text)
            self._text, self.was_written = text.encode(), True


def _ask(client: Any, sheet: _Sheet, asked: list[int], definition: Any, parallel: int) -> list[Problem]:
    """Asks for each open row and fills the sheet, which is saved whatever happens. Returns the refused rows."""
    from tasklib import progress
    from tasklib.answering import endpoint
    from tasklib.writing import labelling

    refused = []
    conversations = [labelling.conversation(definition, sheet.rows[position]) for position in asked]
    try:
        with progress.bar("propose", len(asked), "text") as bar:
            for number, answer in endpoint.answers(client, conversations, parallel):
                bar.update(1)
                if isinstance(answer, endpoint.Refused):
                    message = f"{next(iter(sheet.rows[asked[number]].values.values()))[:40]!r}: {answer}"
                    hint = "shorten the text, or label it by hand"
                    refused.append(Problem(code="text_refused", message=message, hint=hint))
                else:
                    sheet.put(asked[number], definition.task_type.parse(answer, definition.task) or "")
    except BaseException:
        if any(sheet.rows[position].proposed for position in asked):
            with contextlib.suppress(TaskError):  # the first failure is the one to tell
                sheet.save()
        raise
    return refused


@contextlib.contextmanager
def _told(report: dict[str, Any], sheet: _Sheet, asked: list[int], paths: Any) -> Iterator[None]:
    """Adds to a failure what was done before it, and that the same command goes on."""
    try:
        yield
    except TaskError as error:
        report["counts"]["proposed"] = sum(bool(sheet.rows[position].proposed) for position in asked)
        outputs = {"sheet": paths.shown(sheet.path)} if sheet.was_written else {}
        again = "run the same command again: it goes on where it stopped"
        raise TaskError(error.exit_code, error.problems, **report, outputs=outputs, next=again) from None


def _warnings_before(url: str, rows: list[Any]) -> list[Problem]:
    """What a person should know before texts are sent anywhere."""
    from tasklib.answering import endpoint
    from tasklib.data import personal_data
    from tasklib.writing import labelling

    warnings = []
    texts = [text for row in rows for text in row.values.values()]
    if texts and not endpoint.is_local(url):
        personal = sum(bool(personal_data.findings(text)) for text in texts)
        found = f"; {personal} of them hold personal data" if personal else ""
        hint = "use an endpoint on this machine if they must not leave it"
        message = f"{len(rows)} texts are sent to {url}{found}"
        warnings.append(Problem(code="texts_leave_machine", message=message, field="--endpoint", hint=hint))
        if url.startswith("http://") and os.environ.get("OPENAI_API_KEY"):
            message, hint = "the API key is sent without encryption", "use an https address"
            warnings.append(Problem(code="key_unencrypted", message=message, field="--endpoint", hint=hint))
    if long := [row for row in rows if any(len(t) > labelling.MAX_CELL_CHARACTERS for t in row.values.values())]:
        message = f"{len(long)} texts have more characters than a cell of Excel holds (first on line {long[0].line})"
        hint = "correct the sheet with another program, or shorten the texts first"
        warnings.append(Problem(code="long_text", message=message, hint=hint))
    return warnings


def _warnings_after(refused: list[Problem], n_unparsable: int, dropped: set[str]) -> list[Problem]:
    from tasklib.answering import endpoint

    warnings = list(refused)
    if n_unparsable:
        message = f"{n_unparsable} answers name no label, or more than one: their proposals are empty"
        hint = "label these rows by hand; a model that thinks at length first needs more --max-tokens"
        warnings.append(Problem(code="unparsable", message=message, hint=hint))
    for name in sorted(dropped):
        message = f"the endpoint refused {name}: left out"
        warnings.append(Problem(code="parameter_refused", message=message, field=name, hint=endpoint.WITHOUT[name]))
    return warnings


def accept(args: argparse.Namespace, paths: Any, definition: Any) -> Summary:
    from tasklib.writing import labelling

    labelling.label_role(definition)
    rows, problems = labelling.read_sheet(args.input, definition)
    if problems:
        raise TaskError(cli.ExitCode.DATA, problems)
    found = labelling.reviewed(rows, definition, str(args.input))
    counts = {"rows": len(rows), "accepted": len(found.rows), "corrected": found.n_corrected}
    counts |= {"confirmed": found.n_confirmed, "unreviewed": found.n_unreviewed}
    warnings, report = [], {"counts": counts}
    if found.n_unreviewed:
        message = f"{found.n_unreviewed} rows were not looked at and are left out"
        hint = (
            "write x into `checked` where the proposal is right, or a label into `corrected_label`; then accept again"
        )
        warnings.append(Problem(code="unreviewed", message=message, file=str(args.input), hint=hint))
    if not found.rows:
        raise TaskError(cli.ExitCode.DATA, [_nothing(args.input)], warnings=warnings, **report)
    agreement = labelling.agreement([(row.proposed, label) for row, label in found.rows if row.proposed])
    if agreement["rows"] and agreement["cohen_kappa"] is None:
        message, hint = "Cohen's kappa is undefined: one label throughout", "check more rows of other labels"
        warnings.append(Problem(code="undefined_metric", message=message, field="cohen_kappa", hint=hint))
    report |= {"warnings": warnings, "metrics": {"agreement": agreement}}
    return _as_new_version(args, paths, definition, labelling.raw_text(found.rows, definition), report)


def _nothing(path: Path) -> Problem:
    hint = "fill `corrected_label`, or write x into `checked` where the proposal is right"
    return Problem(code="nothing_reviewed", message="no row was corrected or checked", file=str(path), hint=hint)


def _as_new_version(
    args: argparse.Namespace, paths: Any, definition: Any, text: str, report: dict[str, Any]
) -> Summary:
    """Writes the raw file, unless a version of the same content exists; names or makes the change of data.files."""
    from tasklib import files
    from tasklib.writing import labelling

    stem = args.input.stem
    existing = labelling.versions(paths, stem)
    same = [number for number, path in existing.items() if path.read_bytes() == text.encode()]
    number = max(same) if same else max(existing, default=0) + 1
    path = paths.raw / f"{stem}-v{number}.csv"
    change = labelling.files_change(paths, definition, paths.shown(path), stem)
    edited = None
    if change and args.apply:
        with paths.definition.open(encoding="utf-8", newline="") as stream:
            edited = labelling.edited_definition(stream.read(), paths.shown(paths.definition), change)
    outputs = {} if args.dry_run else {"raw": paths.shown(path)}
    if change:
        outputs["data_files"] = str(change)
    if args.dry_run:
        return Summary.of("label_with", **report, outputs=outputs, next="the same command without --dry-run")
    if not same:
        labelling.write_version(paths, stem, number, text)
    if edited:
        files.write_text(paths.definition, edited)
    after = "uv run python scripts/01_validate_data.py"
    if change and not edited:
        after = f"write it into task_definition.yaml ({change}), or give --apply; then {after}"
    return Summary.of("label_with", "skipped" if same and not edited else "ok", **report, outputs=outputs, next=after)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), label_with, argv)


if __name__ == "__main__":
    raise SystemExit(main())
