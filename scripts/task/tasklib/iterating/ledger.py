"""docs/EXPERIMENTS.md: what was tried, why, what came out, what was decided. Scripts append to it and change nothing in
it, so that a person may write between their lines.
"""

from __future__ import annotations

import datetime

from tasklib.iterating.experiments import Experiment
from tasklib.markdown import literal
from tasklib.paths import TaskPaths
from tasklib.schema import TaskDefinition
from tasklib.scoring.metrics import Comparison, Interval
from tasklib.texts import EXPERIMENT

MAX_DATA_CHANGES = 10  # lines; each label that moved a row is one


def record_experiment(paths: TaskPaths, definition: TaskDefinition, made: Experiment) -> None:
    """Appends hypothesis and change of an experiment that is about to be run."""
    words = EXPERIMENT[definition.language]
    changed = [literal(change.to_text()) for change in made.changes]
    changed += [f"{words['data']} {literal(line)}" for line in made.data_changes[:MAX_DATA_CHANGES]]
    if len(made.data_changes) > MAX_DATA_CHANGES:
        changed.append(words["more"].format(n=len(made.data_changes) - MAX_DATA_CHANGES))
    lines = [f"## {literal(made.name)} · {_now()}", ""]
    lines += [f"- {words['parent']}: {literal(made.parent)}", f"- {words['hypothesis']}: {literal(made.hypothesis)}"]
    lines += [f"- {words['change']}: {line}" for line in changed]
    _append(paths, definition, lines)


def record_result(
    paths: TaskPaths,
    definition: TaskDefinition,
    *,
    run: str,
    split: str,
    value: Interval,
    comparison: Comparison,
    n_rows: int,
    n_fixed: int,
    n_broken: int,
) -> bool:
    """Appends how a run did against another, and the decision that follows; False where the same stands there already.

    Kept is what is proven better. What cannot be told apart is dropped: the parent is the simpler of two equals.
    """
    words = EXPERIMENT[definition.language]
    metric, other = literal(comparison.metric), literal(comparison.against)
    numbers = {"n": n_rows, "metric": metric, "value": _interval(value), "against": other}
    numbers |= {"delta": _signed(comparison), "p": _p_value(comparison), "n_fixed": n_fixed, "n_broken": n_broken}
    result = words["result_line"].format(split=words["split"].get(split, split), **numbers)
    decision = words["decisions"][comparison.verdict].format(run=literal(run), against=other)
    lines = [f"- {words['result']}: {result}", f"- {words['decision']}: {decision}"]
    heading = f"### {literal(run)} − {other} · "
    if _stands_there(paths, heading, lines):
        return False
    _append(paths, definition, [heading + _now(), "", *lines])
    return True


def _stands_there(paths: TaskPaths, heading: str, lines: list[str]) -> bool:
    """Whether the latest result of this pair of runs is this one."""
    text = paths.ledger.read_text(encoding="utf-8") if paths.ledger.is_file() else ""
    latest = text.rpartition(heading)[2] if heading in text else ""
    return bool(latest) and all(line in latest.split("\n## ")[0].split("\n### ")[0] for line in lines)


def _append(paths: TaskPaths, definition: TaskDefinition, lines: list[str]) -> None:
    paths.ledger.parent.mkdir(parents=True, exist_ok=True)
    words = EXPERIMENT[definition.language]
    with paths.ledger.open("a", encoding="utf-8", newline="\n") as stream:
        if stream.tell() == 0:
            stream.write(f"# {words['title']}: {definition.name}\n\n{words['intro']}\n")
        stream.write("\n" + "\n".join(lines) + "\n")


def _interval(value: Interval) -> str:
    if value.value is None:
        return "–"
    return f"{value.value:.3f} [{value.ci_low:.3f}, {value.ci_high:.3f}]"


def _signed(comparison: Comparison) -> str:
    if comparison.delta is None:
        return "–"
    return f"{comparison.delta:+.3f} [{comparison.ci_low:+.3f}, {comparison.ci_high:+.3f}]"


def _p_value(comparison: Comparison) -> str:
    value = comparison.p_value if comparison.p_value_holm is None else comparison.p_value_holm
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
