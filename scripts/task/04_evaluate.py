#!/usr/bin/env python3
"""Evaluates one run beside its baselines on the same rows and writes benchmarks/<run>/<split>/."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasklib import cli
from tasklib.summary import Problem, Summary, TaskError

MANY_LOOKS = 3
OPENAI = {"base_url": None, "model": None, "parallel": 4, "timeout_s": 120, "allow_remote": False}


def build_parser() -> cli.Parser:
    parser = cli.Parser(
        "evaluate",
        "Score one trained run and its baselines on the same rows, with 95 % intervals and the paired test. With\n"
        "--backend openai, score any model behind an OpenAI-compatible endpoint on these rows instead; its key, if it\n"
        "wants one, comes from the environment variable OPENAI_API_KEY. What was interrupted goes on where it stopped.",
        [
            "uv run python scripts/04_evaluate.py --baselines-only",
            "uv run python scripts/04_evaluate.py",
            "uv run python scripts/04_evaluate.py --split test --seeds 3",
            "uv run python scripts/04_evaluate.py --backend openai --base-url http://localhost:8080/v1 --model m",
        ],
    )
    cli.add_task_flags(parser, __file__)
    cli.add_run_flags(parser)
    add = parser.add_argument
    add(
        "--split",
        choices=["validation", "test"],
        default="validation",
        help="rows to score (default: %(default)s; every look at test is recorded)",
    )
    add("--baselines-only", action="store_true", help="before training: what must be beaten")
    add("--seeds", type=cli.positive_int, metavar="N", help="the run and N-1 further seeds of it, as mean and sd")
    add(
        "--backend",
        choices=["transformers", "vllm", "openai"],
        default="transformers",
        help="what answers (default: %(default)s; the others write free text, decoding generate)",
    )
    add("--base-url", metavar="URL", help="openai: address up to /v1")
    add("--model", help="openai: name of the model at the endpoint")
    add("--parallel", type=cli.positive_int, metavar="N", help="openai: requests at a time (default: 4)")
    add("--timeout-s", type=cli.positive_int, metavar="S", help="openai: seconds for one answer (default: 120)")
    add(
        "--allow-remote",
        action="store_true",
        default=None,
        help="openai: the texts may leave this machine; needed for an address elsewhere",
    )
    add("--force", action="store_true", help="evaluate again even if nothing changed")
    add("--dry-run", action="store_true", help="check run and rows; load no model, send no text, write nothing")
    return parser


@dataclass(frozen=True)
class Job:
    """What is evaluated: the task, one config, the rows of a split."""

    args: argparse.Namespace
    paths: Any
    definition: Any
    config: Any
    data: Any
    name: str


def evaluate(args: argparse.Namespace) -> Summary:
    from tasklib import schema
    from tasklib.data import conversion
    from tasklib.paths import config_path, task_paths
    from tasklib.scoring import evaluation
    from tasklib.training import runs

    _check_flags(args)
    paths = task_paths(args.task_dir)
    definition = schema.load_definition(paths.definition)
    config_file = config_path(paths, args.config)
    config = schema.load_config(config_file, args.overrides, args.config)
    schema.answer_schema(definition, config)  # raises where answers cannot be constrained
    if args.baselines_only:  # they come before the training: what it would refuse is said before time is spent
        schema.require_trainable(definition, config, has_validation=True)
    data = evaluation.Rows(
        args.split,
        conversion.load_split(paths, args.split)[: args.limit],
        conversion.load_split(paths, "train")[: args.limit],
    )
    job = Job(args, paths, definition, config, data, runs.run_name(config_file, args.limit))
    evaluation.require_unseen(definition, data)
    if args.baselines_only:
        return _baselines_summary(job)
    return _evaluate_run(job) if args.backend == "transformers" else _evaluate_served(job)


def _check_flags(args: argparse.Namespace) -> None:
    """Raises UsageError for flags that mean nothing together."""
    for name, default in OPENAI.items():
        flag = "--" + name.replace("_", "-")
        if getattr(args, name) is None:
            if args.backend == "openai" and default is None:
                raise cli.UsageError(f"--backend openai needs {flag}")
            setattr(args, name, default)
        elif args.backend != "openai":
            raise cli.UsageError(f"{flag} has no meaning without --backend openai")
    if args.backend != "transformers" and (args.seeds or args.baselines_only):
        flag = "--seeds" if args.seeds else "--baselines-only"
        raise cli.UsageError(f"{flag} has no meaning with --backend {args.backend}")
    if args.seeds and args.baselines_only:
        raise cli.UsageError("--seeds has no meaning with --baselines-only")


def _evaluate_run(job: Job) -> Summary:
    """The run, or the mean over its seeds, beside its baselines."""
    from tasklib.scoring import evaluation, systems

    runs_of_seeds = systems.finished_runs(
        job.paths, job.definition, job.config, job.name, job.args.seeds or 1, cli.run_flags(job.args)
    )
    identities = [evaluation.run_identity(job.definition, r.config, job.data, r.record) for r in runs_of_seeds]
    identity, folder = evaluation.identity_of_seeds(identities), job.paths.benchmark(job.name, job.args.split)
    found = evaluation.read(folder)
    is_current = found is not None and found.metrics.identity == identity
    warnings = _seeds_dropped(job, found, len(runs_of_seeds))
    if job.args.dry_run:  # numbers of another evaluation are never shown as this one's
        return _summary(job, found if is_current and not job.args.force else None, folder, warnings, skipped=True)
    if is_current and not job.args.force:
        result, others = _compared_again(job, found, runs_of_seeds[0].record)
        if result.metrics != found.metrics:
            _write(job, folder, result, others)
        return _summary(job, result, folder, warnings, skipped=result.metrics == found.metrics)
    resumed = _forget_finished(job, runs_of_seeds, [*identities, identity])
    results = [_result(job, run, wanted) for run, wanted in zip(runs_of_seeds, identities, strict=True)]
    result = evaluation.combined(job.definition, results, [run.seed for run in runs_of_seeds], identity)
    others = _others(job, runs_of_seeds[0].record)
    result = evaluation.compared(job.definition, result, others)
    if job.args.split == "test":
        evaluation.record_look(job.paths, result.metrics, resumed=resumed)
    for run, of_seed in zip(runs_of_seeds[1:], results[1:], strict=True):
        evaluation.save(job.paths.benchmark(run.name, job.args.split), of_seed)
    _write(job, folder, result, others)
    return _summary(job, result, folder, warnings, skipped=False)


def _forget_finished(job: Job, runs_of_seeds: list[Any], identities: list[str]) -> bool:
    """With --force, drops what is left over of evaluations that have ended before. Returns whether this evaluation goes
    on from an interrupted one."""
    from tasklib.scoring import evaluation

    resumed = False
    for run in runs_of_seeds:
        folder = job.paths.benchmark(run.name, job.args.split)
        found = evaluation.read_metrics(folder)
        if job.args.force and found is not None and found.identity in identities:
            (folder / evaluation.PARTIAL).unlink(missing_ok=True)
        resumed = resumed or (folder / evaluation.PARTIAL).is_file()
    return resumed


def _result(job: Job, run: Any, identity: str) -> Any:
    """One run on the rows, from disk where it has been evaluated before."""
    from tasklib.scoring import evaluation, systems

    found = evaluation.read(job.paths.benchmark(run.name, job.args.split))
    if found is not None and found.metrics.identity == identity and not job.args.force:
        return found
    return systems.trained(job.paths, job.definition, job.data, run)


def _others(job: Job, record: Any) -> dict[str, Any]:
    """What the run is compared with: its baselines, and the best earlier run if there is one."""
    from tasklib.scoring import evaluation

    best = evaluation.previous_best(job.paths, job.definition, job.data, job.name, record)
    return _baselines(job) | ({evaluation.PREVIOUS_BEST: best} if best else {})


def _baselines(job: Job) -> dict[str, Any]:
    from tasklib.scoring import evaluation, systems

    names = evaluation.baseline_names(job.definition)
    return {name: systems.baseline(job.paths, job.definition, job.config, job.data, name) for name in names}


def _compared_again(job: Job, found: Any, record: Any) -> tuple[Any, dict[str, Any]]:
    """A finished evaluation, compared anew where another run may be the best earlier one by now."""
    from tasklib.scoring import evaluation

    was_compared = any(c.against == evaluation.PREVIOUS_BEST for c in found.metrics.comparisons)
    if not was_compared and not evaluation.previous_best(job.paths, job.definition, job.data, job.name, record):
        return found, {}
    others = _others(job, record)
    return evaluation.compared(job.definition, found, others), others


def _seeds_dropped(job: Job, found: Any, n_seeds: int) -> list[Problem]:
    """A warning where one seed takes the place of several."""
    n_before = len(found.metrics.seeds.seeds) if found is not None and found.metrics.seeds else 1
    if n_before <= n_seeds:
        return []
    message = f"{n_before} seeds were evaluated before: their mean gives way to {n_seeds} of them"
    hint = f"--seeds {n_before} evaluates all of them"
    return [Problem(code="fewer_seeds", message=message, field="--seeds", hint=hint)]


def _write(job: Job, folder: Any, result: Any, others: dict[str, Any]) -> None:
    """Both reports, then predictions and metrics."""
    from tasklib.scoring import evaluation, report

    compared_with = {name: other.metrics for name, other in others.items()}
    report.write(folder, job.definition, result.metrics, result.predictions, job.data.rows, compared_with)
    evaluation.save(folder, result)


def _evaluate_served(job: Job) -> Summary:
    """A model behind an endpoint, or the run by vLLM, beside what was answered by the same decoding. There is no gate:
    it is about the run as it was trained."""
    from tasklib.scoring import evaluation, systems

    system, warnings = _system(job)
    folder = job.paths.benchmark(system.name, job.args.split)
    identity = systems.served_identity(job.definition, job.config, job.data, system)
    found = evaluation.read(folder)
    is_current = found is not None and found.metrics.identity == identity
    if job.args.dry_run or (is_current and not job.args.force):
        return _summary(job, found if is_current else None, folder, warnings, skipped=True)
    partial = folder / evaluation.PARTIAL
    if is_current:
        partial.unlink(missing_ok=True)
    resumed = partial.is_file()
    result = systems.served(job.paths, job.definition, job.config, job.data, system)
    others = systems.answered_alike(job.paths, job.definition, job.config, job.data, job.name)
    result = evaluation.compared(job.definition, result, others, judged=False)
    if job.args.split == "test":
        evaluation.record_look(job.paths, result.metrics, resumed=resumed)
    _write(job, folder, result, others)
    return _summary(job, result, folder, warnings, skipped=False)


def _system(job: Job) -> tuple[Any, list[Problem]]:
    """What answers, and what a person should know before texts are sent to it."""
    from tasklib import schema
    from tasklib.answering import backends
    from tasklib.scoring import systems

    if job.args.backend == "vllm":
        backends.require_vllm(job.config)
        (run,) = systems.finished_runs(job.paths, job.definition, job.config, job.name, 1, cli.run_flags(job.args))
        return systems.vllm_run(job.paths, job.definition, run), []
    args, key = job.args, os.environ.get("OPENAI_API_KEY") or None
    with backends.in_own_words():
        client = backends.Client(
            args.base_url,
            args.model,
            key,
            timeout_s=args.timeout_s,
            max_tokens=job.config.generation.max_new_tokens,
            schema=schema.answer_schema(job.definition, job.config),
        )
        warnings = _remote(job, client.url, has_key=key is not None)
        if args.dry_run:
            client.check()
    return systems.endpoint_model(job.definition, job.config, client, args.parallel), warnings


def _remote(job: Job, url: str, *, has_key: bool) -> list[Problem]:
    """Raises TaskError (exit 2) where texts would leave this machine and nobody said that they may."""
    from tasklib.answering import endpoint
    from tasklib.data import personal_data

    if endpoint.is_local(url):
        return []
    texts = [row["prompt"][-1]["content"] for row in job.data.rows]
    n_personal = sum(bool(personal_data.findings(text)) for text in texts)
    message = f"{len(texts)} texts are sent to {url}" + (f"; {n_personal} hold personal data" if n_personal else "")
    if not job.args.allow_remote:
        hint = "give --allow-remote if these texts may leave this machine; they may then be learnt from elsewhere"
        problem = Problem(code="texts_leave_machine", message=message, field="--base-url", hint=hint)
        raise TaskError(cli.ExitCode.USAGE, [problem])
    warnings = [Problem(code="texts_leave_machine", message=message, field="--base-url")]
    if url.startswith("http://") and has_key:
        message, hint = "the API key is sent without encryption", "use an https address"
        warnings.append(Problem(code="key_unencrypted", message=message, field="--base-url", hint=hint))
    return warnings


def _baselines_summary(job: Job) -> Summary:
    from tasklib.scoring import evaluation

    found = {} if job.args.dry_run else _baselines(job)
    folders = {n: evaluation.baseline_folder(job.paths, n, job.config, job.args.split) for n in found}
    return Summary.of(
        "evaluate",
        counts={"rows": len(job.data.rows)},
        metrics={n: _columns(job, result.metrics) for n, result in found.items()},
        outputs={n: job.paths.shown(folder) for n, folder in folders.items()},
        next=f"uv run python scripts/03_train.py {cli.run_flags(job.args)}",
    )


def _summary(job: Job, result: Any, folder: Any, warnings: list[Problem], *, skipped: bool) -> Summary:
    """Status gate_failed (exit 5) when the gate was not met, also when that was found by an earlier call."""
    is_run = job.args.backend == "transformers"
    name = job.name if is_run else f"served/{folder.parent.name}"
    if result is None:
        after = f"uv run python scripts/04_evaluate.py {cli.run_flags(job.args)} --split {job.args.split}"
        return Summary.of(
            "evaluate", run=name, warnings=warnings, next=after if is_run else "the same command without --dry-run"
        )
    found = result.metrics
    warnings = warnings + _often_looked_at(job)
    failed = found.gate is not None and not found.gate.passed and not job.args.limit
    problems = [
        Problem(code="gate_not_met", message=reason, hint="see report.html for what goes wrong")
        for reason in (found.gate.reasons if failed else [])
    ]
    warnings = warnings + [Problem(code="metric", message=text) for text in found.warnings]
    after = f"uv run python scripts/04_evaluate.py {cli.run_flags(job.args)} --split test"
    if failed or not is_run:
        after = f"open {job.paths.shown(folder / 'report.html')}"
    elif job.args.split == "test":
        after = f"uv run python scripts/05_upload_hf.py --config {job.args.config} --dry-run"
    return Summary.of(
        "evaluate",
        "gate_failed" if failed else "skipped" if skipped else "ok",
        run=name,
        errors=problems,
        warnings=warnings,
        counts={"rows": found.n_rows, **_counts(job, result)},
        metrics=_table(job, found, name),
        next=after,
        outputs={n: job.paths.shown(folder / f) for n, f in (("report", "report.html"), ("metrics", "metrics.json"))},
    )


def _often_looked_at(job: Job) -> list[Problem]:
    """From the third look at test on: whoever chooses by what he sees there fits to these rows."""
    from tasklib.scoring import evaluation

    n = evaluation.n_looks(job.paths) if job.args.split == "test" else 0
    if n < MANY_LOOKS:
        return []
    message = f"test has been looked at {n} times: what was changed after a look is fitted to these rows"
    hint = "iterate on validation; for a score that can be believed, label new test rows"
    return [Problem(code="many_test_looks", message=message, file=job.paths.shown(job.paths.test_looks), hint=hint)]


def _counts(job: Job, result: Any) -> dict[str, Any]:
    """What was unusual about the rows, and how long the answers of this call took."""
    found = result.metrics
    counts = {"shortened": found.n_shortened, "failed": found.n_failed, "retries": found.n_retries}
    counts = {name: n for name, n in counts.items() if n}
    if result.n_answered:
        counts |= {"answered": result.n_answered, "elapsed_s": round(result.elapsed_s, 1)}
        counts["rows_per_s"] = round(result.n_answered / max(result.elapsed_s, 1e-3), 1)
        if job.args.backend != "openai":
            from tasklib.training import training_log

            counts["peak_memory_bytes"] = training_log.peak_memory_bytes()
    return counts


def _table(job: Job, found: Any, name: str) -> dict[str, dict[str, Any]]:
    """One row for each system: the primary metric with its interval, and how the run compares with it."""
    from tasklib.scoring import evaluation

    rows = {}
    for c in found.comparisons:
        if c.against == evaluation.PREVIOUS_BEST:
            other = _previous_best(job)
        elif c.against == job.name:
            other = evaluation.read_metrics(job.paths.benchmark(c.against, found.split))
        else:
            folder = evaluation.baseline_folder(job.paths, c.against, job.config, found.split)
            other = evaluation.read_metrics(folder)
        if other is not None and other.rows_sha256 == found.rows_sha256:
            columns = {**_columns(job, other), "run_minus_it": c.delta, "p_value_holm": c.p_value_holm}
            rows[c.against] = columns | {"run_is": c.verdict}
            rows[c.against] |= {"it_is": other.run} if c.against == evaluation.PREVIOUS_BEST else {}
    own = _columns(job, found)
    if found.seeds:
        own |= {"sd": found.seeds.sd[found.primary.name], "n_seeds": len(found.seeds.seeds)}
    return {**rows, name: own}


def _previous_best(job: Job) -> Any:
    from tasklib.scoring import evaluation
    from tasklib.training import runs

    record = runs.finished_run(job.paths, job.name)
    best = evaluation.previous_best(job.paths, job.definition, job.data, job.name, record)
    return best and best.metrics


def _columns(job: Job, found: Any) -> dict[str, Any]:
    """The primary metric that the definition names today: a baseline's own file may still name another one."""
    name = job.definition.primary_metric
    value = found.metrics[name]
    return {name: value.value, "ci_low": value.ci_low, "ci_high": value.ci_high}


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), evaluate, argv)


if __name__ == "__main__":
    raise SystemExit(main())
