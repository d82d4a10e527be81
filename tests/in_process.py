"""Helper: a script of the bundle called in this process, so that its imports are paid once for many calls."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from tasklib import cli
from tasklib.files import to_json

BUNDLE = Path(__file__).resolve().parent.parent


@functools.cache
def loaded(script: Path) -> Any:
    """A script of the bundle as a module; a task's own copy is the same, byte for byte."""
    spec = importlib.util.spec_from_file_location(f"script_{script.stem}", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def call(
    script: Path, argv: list[str], cwd: Path | str = "/", shown_as: list[str] | None = None
) -> tuple[int, dict, str]:
    """(exit code, summary as --json prints it, stderr) of a script; `shown_as` is the command line that it records."""
    module = loaded(script)
    with mock.patch.object(cli, "run", lambda parser, body, argv=None: (parser, body)):
        parser, body = module.main([])
    stderr = io.StringIO()
    before = os.getcwd(), sys.argv, signal.getsignal(signal.SIGTERM), os.environ.copy()
    try:
        os.chdir(cwd)
        sys.argv = shown_as or [str(script), *argv]
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(stderr):
            summary, code = cli._run_body(parser, body, argv)
    finally:
        os.chdir(before[0])
        sys.argv = before[1]
        signal.signal(signal.SIGTERM, before[2])
        if os.environ != before[3]:
            os.environ.clear()
            os.environ.update(before[3])
    return int(code), json.loads(to_json(dataclasses.asdict(summary))), stderr.getvalue()
