"""The command line that every script shares: common flags, exit codes, one JSON object on stdout.

Only the standard library is imported at the top, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import io
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from tasklib.exit_codes import EXIT_CODE_HELP, ExitCode
from tasklib.files import to_json
from tasklib.summary import Problem, Summary, TaskError


class UsageError(Exception):
    """The command line itself could not be understood."""


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, and with errors that reach the JSON summary."""

    def __init__(self, stage: str, description: str, examples: Sequence[str]) -> None:
        epilog = "examples:\n" + "\n".join(f"  {line}" for line in examples) + "\n\n" + EXIT_CODE_HELP
        super().__init__(
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.stage = stage

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def parse_args(self, args=None, namespace=None):  # noqa: ANN201 - argparse's own signature
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            words = []
            for word in unknown:
                near = difflib.get_close_matches(word.split("=")[0], flags, n=1)
                words.append(f"{word} (did you mean {near[0]}?)" if near else word)
            self.error("unrecognized arguments: " + ", ".join(words))
        return parsed


def add_task_flags(parser: Parser, script_file: str) -> None:
    """Adds the flags that every script of a task has."""
    default = Path(script_file).resolve().parent.parent
    parser.add_argument("--task-dir", type=Path, default=default, help="the task folder (default: above this script)")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on stdout, everything else on stderr"
    )


def add_run_flags(parser: Parser) -> None:
    """Adds the flags of scripts that read one run's config."""
    parser.add_argument("--config", default="configs/baseline.yaml", help="run config (default: %(default)s)")
    add_set_flag(parser, "override one config value")
    parser.add_argument(
        "--limit", type=positive_int, metavar="N", help="use the first N rows; the run is kept apart as <run>.limitN"
    )


def add_set_flag(parser: Parser, what: str) -> None:
    """Adds --set KEY=VALUE; `args.overrides` has them in order."""
    text = f"{what}, e.g. --set training.learning_rate=1e-4 (may repeat)"
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=text)


def take_flags(args: argparse.Namespace, own: Mapping[str, Any], others: Mapping[str, Any]) -> None:
    """Sets the defaults of the flags of `args.action` (`own`: name -> default) and refuses those of other actions.
    Flags of one action have the default None in the parser. Raises UsageError."""
    if wrong := [name for name in others if getattr(args, name) is not None]:
        flag = "FILE" if wrong[0] == "file" else "--" + wrong[0].replace("_", "-")
        raise UsageError(f"{flag} has no meaning for {args.action}")
    for name, default in own.items():
        if getattr(args, name) is None:
            setattr(args, name, default)


def run_flags(args: argparse.Namespace) -> str:
    """The flags that name the same run again, for the next command."""
    flags = ["--config", args.config] + [word for o in args.overrides for word in ("--set", o)]
    flags += ["--limit", str(args.limit)] if args.limit else []
    n_seeds = getattr(args, "seeds", None) or 1
    return shlex.join([*flags, "--seeds", str(n_seeds)] if n_seeds > 1 else flags)


def positive_int(text: str) -> int:
    """argparse type: an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def run(parser: Parser, body: Callable[[argparse.Namespace], Summary], argv: Sequence[str] | None) -> int:
    """Parses `argv`, runs `body`, prints its summary and returns the exit code; a traceback means a bug."""
    argv = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in argv
    # Idle OpenMP threads spin a moment and then sleep. Spinning on, as is the default, is several times slower on CPU
    # beside another busy process; sleeping at once costs a third of the speed. It changes no result. It must be set
    # before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    with _stdout_for_summary(as_json) as stdout:
        summary, code = _run_body(parser, body, argv)
        try:
            text = _shown(summary, code, as_json)
        except Exception as error:
            summary, code = _bug(parser.stage, error)
            text = _shown(summary, code, as_json)
        try:
            print(text, file=stdout, flush=True)
        except BrokenPipeError:  # the reader has seen enough (`… | head`); Python flushes again when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
    return int(code)


def _shown(summary: Summary, code: ExitCode, as_json: bool) -> str:
    return to_json(dataclasses.asdict(summary)) if as_json else summary.to_text(code)


def _run_body(parser: Parser, body: Callable, argv: list[str]) -> tuple[Summary, ExitCode]:
    def terminate(signum: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # not in the main thread: leave signals alone
        signal.signal(signal.SIGTERM, terminate)
    try:
        summary = body(parser.parse_args(argv))
        return summary, ExitCode.GATE if summary.status == "gate_failed" else ExitCode.OK
    except UsageError as error:
        problem = Problem(code="usage", message=str(error), hint="run with --help to see the legal flags")
        return Summary.failed(parser.stage, [problem]), ExitCode.USAGE
    except TaskError as error:
        return Summary.failed(parser.stage, error.problems, **error.report), error.exit_code
    except KeyboardInterrupt:
        problem = Problem(code="interrupted", message="interrupted", hint="run the same command again to continue")
        return Summary.failed(parser.stage, [problem]), ExitCode.INTERRUPTED
    except ModuleNotFoundError as error:
        if (error.name or "tasklib").startswith("tasklib"):
            return _bug(parser.stage, error)
        problem = Problem(
            code="package_missing",
            message=f"the Python package {error.name} is not installed for {sys.executable}",
            hint="run the script through uv in the task folder: uv run python scripts/…",
        )
        return Summary.failed(parser.stage, [problem]), ExitCode.PREREQUISITE
    except OSError as error:
        problem = Problem(
            code="os_error",
            message=error.strerror or str(error),
            file=str(error.filename) if error.filename else None,
            hint="check the path, its permissions and the free disk space",
        )
        return Summary.failed(parser.stage, [problem]), ExitCode.PREREQUISITE
    except Exception as error:
        return _bug(parser.stage, error)


def _bug(stage: str, error: Exception) -> tuple[Summary, ExitCode]:
    traceback.print_exception(error, file=sys.stderr)
    problem = Problem(
        code="internal_error",
        message=f"{type(error).__name__}: {error}",
        hint="this is a bug: please report it with the traceback on stderr",
    )
    return Summary.failed(stage, [problem]), ExitCode.BUG


@contextlib.contextmanager
def _stdout_for_summary(as_json: bool) -> Iterator:
    """Yields the stream for the summary; with `as_json` everything else, child processes too, goes to stderr."""
    if not as_json:
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
            sys.stdout.reconfigure(errors="backslashreplace")  # what a terminal cannot show must not hide the rest
        yield sys.stdout
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        # a file name that is no UTF-8 comes out as JSON's own escape
        with os.fdopen(os.dup(kept), "w", encoding="utf-8", errors="backslashreplace") as stream:
            yield stream
    finally:
        _flush_buffers(stdout)
        sys.stdout = stdout
        os.dup2(kept, 1)
        os.close(kept)


def _flush_buffers(stdout: IO[str]) -> None:
    """Sends what was written past sys.stdout, by Python or by a C library, to where file descriptor 1 points now."""
    import ctypes

    stdout.flush()
    ctypes.CDLL(None).fflush(None)
