"""What a rule answers: one fault of a run with its evidence, and the one change that should mend it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tasklib.iterating.evidence import Evidence
from tasklib.paths import TaskPaths

Confidence = Literal["high", "medium", "low"]
MAX_NAME = 56  # characters of a proposed name, of the 64 that new_experiment.py allows
MAX_ROWS = 20  # rows named by a finding


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`evidence` are numbers by name; `rows` name rows as file:line. `first` is what must be done by hand or by another
    script before `command`, the literal change; `expect` is what should be seen after it. `search` are ranges worth
    searching when one value is not enough: key -> {low, high, log} or {choices}."""

    code: str
    confidence: Confidence
    message: str
    evidence: Mapping[str, Any]
    command: str
    expect: str
    first: str | None = None
    rows: Sequence[str] = ()
    search: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Option:
    """What may be done about a run in which nothing is wrong."""

    message: str
    command: str
    search: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def experiment(e: Evidence, name: str, hypothesis: str, **values: Any) -> str:
    """`experiment_from` the run that is looked at."""
    return experiment_from(e.paths, e.name, name, hypothesis, **values)


def experiment_from(paths: TaskPaths, run: str, name: str, hypothesis: str, **values: Any) -> str:
    """The literal new_experiment.py command; `values` are key paths with `__` for the dot. Without values the data are
    what changes. The name is one that no run has yet, so that the command can be given as it stands."""
    base = name = f"{run}-{name}"[:MAX_NAME]
    n = 1
    while (paths.root / "configs" / f"{name}.yaml").exists() or paths.run(name).exists():
        n += 1
        name = f"{base}-{n}"
    words = ["uv", "run", "python", "scripts/new_experiment.py", "--from", run, "--name", name]
    words += ["--hypothesis", hypothesis]
    for key, value in values.items():
        shown = f"{value:.3g}" if isinstance(value, float) else str(value)
        words += ["--set", f"{key.replace('__', '.')}={shown}"]
    return shlex.join(words)


def script(name: str, run: str, *more: str) -> str:
    """A literal command for one of the task's scripts and a run's config."""
    return shlex.join(["uv", "run", "python", f"scripts/{name}", "--config", f"configs/{run}.yaml", *more])


def suggest_labels(run: str) -> str:
    """The literal command that writes the sheet of doubtful rows."""
    return shlex.join(
        ["uv", "run", "python", "scripts/suggest_labels.py", "suggest", "--config", f"configs/{run}.yaml"]
    )


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
