#!/usr/bin/env python3
"""Searches the values that a run's diagnosis names, on validation, and writes the best of them as a config."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasklib import cli
from tasklib.summary import Problem, Summary, TaskError

N_TRIALS = 8  # where no budget is given
MAX_FAILURES = 3  # in a row: then it is not the values


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "sweep",
        "A small search over the values that diagnose.py names for a run, and no others. Each trial is a whole run\n"
        "<name>.tN, scored on validation, never on test. The best becomes configs/<name>.yaml if it scores above the\n"
        "parent. With both budgets, whichever ends first; a trial that has begun is finished, never cut. The same\n"
        "command again goes on where it was stopped. Where adapter.r is searched, lora_alpha keeps its ratio to it.",
        [
            "uv run --extra sweep python scripts/sweep.py --from baseline --name lr-search --dry-run",
            "uv run --extra sweep python scripts/sweep.py --from baseline --name lr-search --trials 12 --minutes 90",
            "uv run --extra sweep python scripts/sweep.py --from baseline --name lr-search "
            "--search training.learning_rate=1e-4..1e-3:log --search adapter.r=8,16",
        ],
    )
    cli.add_task_flags(parser, __file__)
    add = parser.add_argument
    add("--from", dest="parent", metavar="RUN", default="baseline", help="trained and diagnosed run to start from")
    add("--name", help="name of the search, and of the config that it writes")
    add("--trials", type=cli.positive_int, metavar="N", help=f"budget in trials (default: {N_TRIALS}, if no --minutes)")
    add("--minutes", type=cli.positive_int, metavar="M", help="budget in minutes, over all calls")
    add(
        "--search",
        action="append",
        default=[],
        metavar="KEY=VALUES",
        help="other values for a key that the diagnosis names: LOW..HIGH, LOW..HIGH:log or A,B,C (may repeat)",
    )
    add("--dry-run", action="store_true", help="show space, budget and an estimate of the time; train nothing")
    return parser


def sweep(args: argparse.Namespace) -> Summary:
    from tasklib import schema
    from tasklib.iterating import search
    from tasklib.paths import task_paths
    from tasklib.training import runs

    paths = task_paths(args.task_dir)
    if args.name is None:
        raise cli.UsageError("--name must be given")
    if args.trials is None and args.minutes is None:
        args.trials = N_TRIALS
    definition = schema.load_definition(paths.definition)
    declared = search.declare(paths, definition, parent=args.parent, name=args.name, narrowed=args.search)
    search.require_optuna()
    budget = search.Budget(args.trials, 60 * args.minutes if args.minutes else None)
    is_new = not declared.journal.is_file()
    if is_new:
        search.require_free_name(declared)
    if is_new and args.dry_run:
        return _planned(declared, budget, [], _command(args))
    with runs.lock(declared.folder):
        search.mend_journal(declared)
        study = search.Study(declared)
        study.begin()
        if args.dry_run:
            return _planned(declared, budget, study.trials(), _command(args))
        return _searched(declared, study, budget, args)


def _planned(declared: Any, budget: Any, trials: list[Any], after: str) -> Summary:
    """Space, budget and time: a trial takes what those before it took, the first what the parent's training took."""
    ended = [t.elapsed_s for t in trials if t.status == "finished"]
    seconds = sum(ended) / len(ended) if ended else declared.parent.elapsed_s
    source = f"{len(ended)} trials" if ended else f"the training of {declared.parent.name}, without its evaluation"
    left = [budget.n_trials - len(trials)] if budget.n_trials else []
    if budget.seconds:
        left.append(int((budget.seconds - sum(t.elapsed_s for t in trials)) // max(seconds, 1)) + 1)
    n = max(0, min(left))
    return Summary.of(
        "sweep",
        run=declared.name,
        counts={"trials_done": len(trials), "trials_to_come": n},
        metrics={"one_trial_s": seconds, "all_trials_s": seconds * n, "estimated_from": source},
        outputs={f"search {key}": dimension.to_text() for key, dimension in declared.dimensions.items()},
        next=after,
    )


def _command(args: argparse.Namespace) -> str:
    """The same command without --dry-run."""
    import shlex

    words = ["--from", args.parent, "--name", args.name]
    words += ["--trials", str(args.trials)] if args.trials else []
    words += ["--minutes", str(args.minutes)] if args.minutes else []
    words += [word for text in args.search for word in ("--search", text)]
    return "uv run --extra sweep python scripts/sweep.py " + shlex.join(words)


def _searched(declared: Any, study: Any, budget: Any, args: argparse.Namespace) -> Summary:
    """Trials until the budget is spent, then the config of the best."""
    from tasklib.iterating import search

    study.forget_half_begun()
    _require_open(declared, study, budget)
    n_run = _run_trials(declared, study, budget)
    trials = study.trials()
    winner = search.best(trials, declared.parent)
    is_written, problems = _promote(declared, study, winner) if winner else (False, [])
    warnings = [*_warnings(declared, trials, winner), *problems]
    has_config = winner is not None and not problems
    outputs = {"study": declared.paths.shown(declared.folder)}
    if has_config:
        outputs |= {"config": f"configs/{declared.name}.yaml", "run": f"models/{declared.name}"}
    return Summary.of(
        "sweep",
        "ok" if n_run or is_written else "skipped",
        run=declared.name,
        counts={
            "trials": len(trials),
            "failed": sum(t.status == "failed" for t in trials),
            "elapsed_s": round(sum(t.elapsed_s for t in trials)),
        },
        metrics=_table(declared, trials, winner if has_config else None),
        outputs=outputs,
        warnings=warnings,
        next=f"uv run python scripts/compare_runs.py {declared.name} --against {declared.parent.name}"
        if has_config
        else f"uv run python scripts/diagnose.py --config configs/{declared.parent.name}.yaml",
    )


def _require_open(declared: Any, study: Any, budget: Any) -> None:
    """Raises TaskError (exit 2) for further trials of a search whose best is a config: none is ever rewritten."""
    from tasklib.exit_codes import ExitCode

    is_over = budget.is_spent(study.trials()) or "ended" in study.facts
    if "winner" in study.facts and not is_over:
        message = f"search {declared.name!r} has ended, and configs/{declared.name}.yaml is its best trial"
        hint = "give another --name for a further search; its parent may be this one"
        raise TaskError(ExitCode.USAGE, [Problem(code="search_closed", message=message, field="--name", hint=hint)])


def _run_trials(declared: Any, study: Any, budget: Any) -> int:
    """Runs trials, an interrupted one first; returns how many. Raises TaskError after three failures in a row."""
    failures: list[Any] = []
    n_run = 0
    while True:
        trials = study.trials()
        trial = next((t for t in trials if t.status == "open"), None)
        if trial is None and not budget.is_spent(trials):
            trial = study.suggested()
        if trial is None:
            return n_run
        _say(declared, budget, trial)
        reason = _run_trial(declared, study, trial)
        n_run += 1
        failures = [*failures, (trial, reason)] if reason else []
        if len(failures) == MAX_FAILURES:
            raise _too_many_failures(declared, failures)


def _say(declared: Any, budget: Any, trial: Any) -> None:
    from tasklib.iterating import search_space

    of = f" of {budget.n_trials}" if budget.n_trials else ""
    number = trial.run.removeprefix(f"{declared.name}.t")
    print(f"trial {number}{of}: {search_space.to_text(trial.values)}", file=sys.stderr, flush=True)


def _run_trial(declared: Any, study: Any, trial: Any) -> str | None:
    """One run, from its config to its score; returns why it failed. The time of earlier calls is counted too."""
    from tasklib.iterating import search, trial_run

    scripts = _scripts(declared, lambda seconds: study.keep_time(trial, trial.elapsed_s + seconds))
    reason = trial_run.train_and_score(scripts, trial.run, search.write_config(declared, trial))
    found = None if reason else search.score_of(declared, trial.run)
    if reason is None and found is None:
        reason = f"{declared.definition.primary_metric} is undefined"
    study.finish(trial, found, reason)
    return reason


def _too_many_failures(declared: Any, failures: list[tuple[Any, str]]) -> TaskError:
    from tasklib.exit_codes import ExitCode

    hint = "three in a row: mend the cause or narrow the space; the same command then goes on"
    problems = [
        Problem(code="trial_failed", message=f"{trial.run}: {reason}", file=f"models/{trial.run}", hint=hint)
        for trial, reason in failures
    ]
    return TaskError(ExitCode.PREREQUISITE, problems)


def _promote(declared: Any, study: Any, winner: Any) -> tuple[bool, list[Problem]]:
    """Makes the best trial the run <name>. Returns whether anything was done, and what kept it from being done."""
    from tasklib.iterating import promotion

    try:
        return promotion.promote(declared, study, winner, _scripts(declared, lambda seconds: None)), []
    except TaskError as error:
        if {problem.code for problem in error.problems} != {"same_experiment"}:
            raise
        return False, error.problems  # the best is known by another name: no second config of it


def _scripts(declared: Any, tick: Any) -> Any:
    from tasklib.iterating import trial_run

    return trial_run.Scripts(Path(__file__).resolve().parent, declared.paths, tick, time.monotonic())


def _warnings(declared: Any, trials: list[Any], winner: Any) -> list[Problem]:
    """Failed trials, and what the best score is worth."""
    parent, n_scored = declared.parent, sum(t.value is not None for t in trials)
    found = [
        Problem(code="trial_failed", message=f"{t.run}: {t.reason}", file=f"models/{t.run}")
        for t in trials
        if t.status == "failed"
    ]
    if winner is None:
        message = f"no trial is above {parent.name}: no config is written, nothing changes"
        hint = "the values are not what holds this run back: look at its errors and its data"
        return [*found, Problem(code="nothing_better", message=message, hint=hint)]
    if n_scored > 1:
        message = f"{winner.run} is the best of {n_scored} on the same {declared.n_rows} validation rows: its score is "
        hint = f"confirm it: uv run python scripts/03_train.py --config configs/{declared.name}.yaml --seeds 3, then "
        hint += "04_evaluate.py --seeds 3 with the same config; look at test once, for what is chosen in the end"
        found.append(Problem(code="best_of_many", message=message + "optimistic", hint=hint))
    return found


def _table(declared: Any, trials: list[Any], winner: Any) -> dict[str, dict[str, Any]]:
    """The parent, which is not trained again, then one row for each trial."""
    from tasklib.iterating import search_space

    parent, metric = declared.parent, declared.definition.primary_metric
    score = parent.primary.model_dump(include={"value", "ci_low", "ci_high"}) if parent.primary else {}
    values = search_space.current(declared.dimensions, parent.config)
    rows = {parent.name: _row(values, metric, score, parent.elapsed_s, "parent" if score else "parent, failed")}
    for t in trials:
        score = {"value": t.value, "ci_low": t.ci_low, "ci_high": t.ci_high} if t.value is not None else {}
        status = f"best, now {declared.name}" if winner is not None and t.run == winner.run else t.status
        rows[t.run] = _row(t.values, metric, score, t.elapsed_s, status)
    return rows


def _row(values: dict[str, Any], metric: str, score: dict[str, Any], elapsed_s: float, status: str) -> dict[str, Any]:
    shown = {key: value if isinstance(value, int | float) else str(value) for key, value in values.items()}
    numbers = {metric: score.get("value"), "ci_low": score.get("ci_low"), "ci_high": score.get("ci_high")}
    return {**shown, **numbers, "elapsed_s": elapsed_s, "status": status}


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), sweep, argv)


if __name__ == "__main__":
    raise SystemExit(main())
