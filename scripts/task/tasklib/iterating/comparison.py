"""Runs beside each other on the rows that all of them answered: rank, paired test with Holm, and what changed where.

Runs may have been evaluated on different versions of the data. A row is its text (`text_key`), whatever file it came
from, and its gold is today's. Of a run with several seeds every number is the mean over them, except which rows it
answers right: that is of its first seed.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tasklib.data import conversion, dataset
from tasklib.exit_codes import ExitCode
from tasklib.files import sha256_of_json
from tasklib.iterating.runs_to_compare import Chosen, Evaluated, Note, choose, resolved_config
from tasklib.paths import TaskPaths
from tasklib.schema import TaskDefinition
from tasklib.scoring import bootstrap, row_scores, slices
from tasklib.scoring.metrics import Comparison, Interval, Prediction
from tasklib.summary import Problem, TaskError
from tasklib.training import runs

Key = tuple[str, int]  # a text, and which of the rows with that text
SAME_SCORE = 1e-9  # scores of a row that differ by less are the same
_NOT_COMPARED = ("schema_version", "parent", "hypothesis")  # keys of a config that change nothing


@dataclass(frozen=True)
class Standing:
    """One line of the ranking: every metric on the common rows, the mean over the seeds. `sd` is that of the primary
    metric over the seeds, null for one seed. A baseline is listed and not tested."""

    name: str
    is_baseline: bool
    metrics: dict[str, Interval]
    n_seeds: int
    sd: float | None
    finished_at: str | None


@dataclass(frozen=True)
class Change:
    """A number of the reference, of the run, and run minus reference with its 95 % interval; null where undefined.
    These are looked at, not tested."""

    before: float | None
    after: float | None
    delta: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class ClassChange:
    """`changes`: each per-class number of the task type; `n_rows` have the gold label."""

    label: str
    n_rows: int
    changes: dict[str, Change]


@dataclass(frozen=True)
class SliceChange:
    """The primary metric on one part of the rows by length, source or script; by label it is recall in `ClassChange`.
    Fewer than 10 rows are not scored."""

    by: str
    value_of: str
    n_rows: int
    change: Change


@dataclass(frozen=True)
class RowChange:
    """A row that one of the two answers right and the other wrong; with open answers, one that is worth more or less
    than before, and the scores say how much (the primary metric of this row alone). `text` is null where today's data
    has it no more."""

    kind: Literal["fixed", "broken"]
    id: str
    text: str | None
    gold: Any
    before: Any
    after: Any
    score_before: float | None = None
    score_after: float | None = None


@dataclass(frozen=True)
class Versus:
    """One run against the reference. `value` and `against_value` are the primary metric of the two on the common rows;
    `comparison` is run minus reference, corrected for all runs of the comparison. Differences are None where nobody
    knows what one of the two was made from."""

    run: str
    against: str
    split: str
    metric: str
    value: Interval
    against_value: Interval
    comparison: Comparison
    n_rows: int
    n_fixed: int
    n_broken: int
    hypothesis: str | None
    config_differences: tuple[str, ...] | None
    data_differences: tuple[str, ...] | None
    per_class: tuple[ClassChange, ...]
    slices: tuple[SliceChange, ...]
    rows: tuple[RowChange, ...]


@dataclass(frozen=True)
class Compared:
    """All of it. `ranking` is best first, baselines among the runs; `versus` has the runs in that order. `n_rows` are
    common to all runs, of `n_rows_known` that any of them answered or the split holds today."""

    split: str
    metric: str
    decoding: str
    reference: str
    n_rows: int
    n_rows_known: int
    rows_sha256: str
    ranking: tuple[Standing, ...]
    versus: tuple[Versus, ...]
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class _Rows:
    """The common rows with today's gold: `predictions` of each system, one list for each seed, all in one order.
    `processed` are the rows of the split, None where the text is no longer in it."""

    processed: list[dict[str, Any] | None]
    keys: list[Key]
    predictions: dict[str, list[list[Prediction]]]
    n_known: int
    n_gold_differs: int


def compare(
    paths: TaskPaths, definition: TaskDefinition, names: Sequence[str], *, against: str | None, split: str
) -> Compared:
    """Runs by name (none: all that have been evaluated on the split) against one of them. Raises TaskError: exit 4 for
    runs or rows that are not there, exit 3 where no row is common to all."""
    chosen = choose(paths, names, against, split)
    rows = _common_rows(definition, chosen, conversion.load_split(paths, split))
    systems = {s.name: s for s in (chosen.reference, *chosen.runs, *chosen.baselines) if s.name in rows.predictions}
    counts = {name: [_counts(definition, p) for p in rows.predictions[name]] for name in systems}
    standings = {name: _standing(definition, system, counts[name]) for name, system in systems.items()}
    metric = definition.primary_metric
    ranked = sorted(standings.values(), key=lambda s: (-_sortable(s.metrics[metric].value), s.name))
    tested = [systems[s.name] for s in ranked if not s.is_baseline and s.name != chosen.reference.name]
    versus = _versus(paths, definition, chosen, tested, rows, counts, standings)
    reference = rows.predictions[chosen.reference.name][0]
    return Compared(
        split=split,
        metric=metric,
        decoding=chosen.reference.decoding,
        reference=chosen.reference.name,
        n_rows=len(rows.keys),
        n_rows_known=rows.n_known,
        rows_sha256=sha256_of_json([[key, str(p.gold)] for key, p in zip(rows.keys, reference, strict=True)]),
        ranking=tuple(ranked),
        versus=tuple(versus),
        notes=(*chosen.notes, *_row_notes(rows), *_seed_notes(standings, versus)),
    )


def _versus(
    paths: TaskPaths,
    definition: TaskDefinition,
    chosen: Chosen,
    tested: Sequence[Evaluated],
    rows: _Rows,
    counts: dict[str, list[bootstrap.Counts]],
    standings: dict[str, Standing],
) -> list[Versus]:
    """Each of the tested runs against the reference, in their order."""
    reference, metric = chosen.reference, definition.primary_metric
    names = [system.name for system in tested]
    comparisons = _comparisons(definition, rows, counts, reference.name, names)
    by_slice = _slice_changes(definition, rows, counts, reference.name, names)
    found = []
    for run, comparison in zip(tested, comparisons, strict=True):
        changed = _row_changes(definition, rows, reference.name, run.name)
        found.append(
            Versus(
                run=run.name,
                against=reference.name,
                split=chosen.split,
                metric=metric,
                value=standings[run.name].metrics[metric],
                against_value=standings[reference.name].metrics[metric],
                comparison=comparison,
                n_rows=len(rows.keys),
                n_fixed=sum(row.kind == "fixed" for row in changed),
                n_broken=sum(row.kind == "broken" for row in changed),
                hypothesis=(resolved_config(paths, run.name) or {}).get("hypothesis"),
                config_differences=_config_differences(paths, reference.name, run.name),
                data_differences=_data_differences(reference, run),
                per_class=_class_changes(definition, counts[reference.name], counts[run.name]),
                slices=tuple(by_slice[run.name]),
                rows=changed,
            )
        )
    return found


# The rows.


def _common_rows(definition: TaskDefinition, chosen: Chosen, today: list[dict[str, Any]]) -> _Rows:
    """The rows that the reference and every run answered. A baseline that lacks one of them is left out."""
    module = definition.task_type
    tested, systems = (chosen.reference, *chosen.runs), (chosen.reference, *chosen.runs, *chosen.baselines)
    texts = {row["id"]: dataset.text_key(module.text_of(module.Record(**row["record"]))) for row in today}
    known = {conversion.rows_sha256(today): texts}
    for system in systems:
        if all(p.text_key for p in system.result.predictions):
            known.setdefault(system.result.metrics.rows_sha256, {p.id: p.text_key for p in system.result.predictions})
    keys = {system.name: _keys(system, known) for system in systems}
    row_of = dict(zip(_numbered(texts.values()), today, strict=True))
    newest_first = sorted(tested, key=lambda system: system.finished_at, reverse=True)
    order = list(dict.fromkeys([*row_of, *(key for system in newest_first for key in keys[system.name])]))
    common = set.intersection(*(set(keys[system.name]) for system in tested))
    if not common:
        raise _no_common_rows(tested, keys, chosen)
    kept = [key for key in order if key in common]
    golds = _golds(definition, kept, row_of, newest_first, keys)
    predictions = {
        system.name: [_picked(kept, keys[system.name], seed, golds) for seed in system.result.of_seeds]
        for system in systems
        if common <= set(keys[system.name])
    }
    places = [dict(zip(keys[system.name], system.result.predictions, strict=True)) for system in tested]
    n_differs = sum(any(place[key].gold != gold for place in places) for key, gold in zip(kept, golds, strict=True))
    return _Rows([_row_today(row_of, key) for key in kept], kept, predictions, len(order), n_differs)


def _keys(system: Evaluated, known: dict[str, dict[str, str]]) -> list[Key]:
    """The key of each row that a system answered. Files older than `text_key` have their texts from a system that
    answered the very same rows; without one, their ids are theirs alone."""
    rows_sha256 = system.result.metrics.rows_sha256
    by_id = known.get(rows_sha256, {})
    return _numbered(p.text_key or by_id.get(p.id) or f"{rows_sha256}:{p.id}" for p in system.result.predictions)


def _row_today(row_of: dict[Key, dict[str, Any]], key: Key) -> dict[str, Any] | None:
    """The row with this text; of fewer equal ones than there were, the first."""
    return row_of.get(key) or row_of.get((key[0], 0))


def _numbered(texts: Any) -> list[Key]:
    """Equal texts are told apart by their order."""
    seen: Counter[str] = Counter()
    found = []
    for text in texts:
        found.append((text, seen[text]))
        seen[text] += 1
    return found


def _golds(
    definition: TaskDefinition,
    kept: Sequence[Key],
    row_of: dict[Key, dict[str, Any]],
    newest_first: Sequence[Evaluated],
    keys: dict[str, list[Key]],
) -> list[Any]:
    """Today's gold of each row; where its text is no longer in the split, that of the newest run. Raises TaskError
    (exit 3) for a label that the definition no longer has."""
    module, labels = definition.task_type, definition.task_type.label_set(definition.task)
    newest = newest_first[0]
    answered = dict(zip(keys[newest.name], newest.result.predictions, strict=True))
    found, unknown = [], Counter()
    for key in kept:
        row = _row_today(row_of, key)
        gold = module.gold(module.Record(**row["record"])) if row else answered[key].gold
        if labels is not None and isinstance(gold, str) and gold not in labels:
            unknown[gold] += 1
        found.append(gold)
    problems = [
        Problem(
            code="unknown_gold",
            message=f"{n} rows have the gold label {label!r}, which the definition does not have",
            file="task_definition.yaml",
            field="task.labels",
            hint=f"legal: {', '.join(labels or {})}; convert, train and evaluate again after changing labels",
        )
        for label, n in unknown.items()
    ]
    if problems:
        raise TaskError(ExitCode.DATA, problems)
    return found


def _picked(
    kept: Sequence[Key], keys: Sequence[Key], predictions: Sequence[Prediction], golds: Sequence[Any]
) -> list[Prediction]:
    """The predictions of the kept rows, in their order and with their gold."""
    at = dict(zip(keys, predictions, strict=True))
    return [at[key].model_copy(update={"gold": gold}) for key, gold in zip(kept, golds, strict=True)]


def _no_common_rows(tested: Sequence[Evaluated], keys: dict[str, list[Key]], chosen: Chosen) -> TaskError:
    mine = set(keys[chosen.reference.name])
    problems = [
        Problem(
            code="no_common_rows",
            message=f"run {system.name!r} shares {len(mine & set(keys[system.name]))} of its "
            f"{len(keys[system.name])} {chosen.split} rows with {chosen.reference.name!r}, and no row is common to all "
            "runs",
            file=f"benchmarks/{system.name}/{chosen.split}/predictions.jsonl",
            hint="name runs that share rows, or evaluate the older ones again with scripts/04_evaluate.py",
        )
        for system in tested
        if system is not chosen.reference
    ]
    return TaskError(ExitCode.DATA, problems)


def _row_notes(rows: _Rows) -> list[Note]:
    n = len(rows.keys)
    notes = [Note("rows_differ", {"n": n, "total": rows.n_known})] if n < rows.n_known else []
    if rows.n_gold_differs:
        notes.append(Note("gold_differs", {"n": rows.n_gold_differs, "total": n}))
    return notes


# The numbers.


def _counts(definition: TaskDefinition, predictions: Sequence[Prediction]) -> bootstrap.Counts:
    golds, answers = [p.gold for p in predictions], [p.prediction for p in predictions]
    return definition.task_type.count(golds, answers, definition.task)


def _metrics_of(definition: TaskDefinition, names: Sequence[str] | None = None) -> bootstrap.ScoreCounts:
    """Summed counts -> the metrics, or those of some names."""

    def score(sums: np.ndarray) -> dict[str, np.ndarray]:
        found = definition.task_type.score_counts(sums, definition.task)
        return found if names is None else {name: found[name] for name in names}

    return score


def _standing(definition: TaskDefinition, system: Evaluated, counts: Sequence[bootstrap.Counts]) -> Standing:
    metrics = bootstrap.intervals(counts, _metrics_of(definition))
    if system.decoding != "generate":
        metrics.pop("parse_rate", None)  # nothing was parsed
    each = _points(counts, _metrics_of(definition, [definition.primary_metric]))[definition.primary_metric]
    is_spread = len(each) > 1 and None not in each
    return Standing(
        name=system.name,
        is_baseline=system.is_baseline,
        metrics=metrics,
        n_seeds=len(counts),
        sd=statistics.stdev(each) if is_spread else None,
        finished_at=system.finished_at or None,
    )


def _points(
    counts: Sequence[bootstrap.Counts], score: Callable[[np.ndarray], dict[str, Any]]
) -> dict[str, list[float | None]]:
    """Metric -> its value for each seed."""
    found = [score(matrix.sum(0)) for matrix in counts]
    return {name: [None if np.isnan(seed[name]) else float(seed[name]) for seed in found] for name in found[0]}


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else statistics.fmean(values)


def _sortable(value: float | None) -> float:
    return float("-inf") if value is None else value


def _comparisons(
    definition: TaskDefinition, rows: _Rows, counts: dict[str, Any], reference: str, tested: Sequence[str]
) -> list[Comparison]:
    """Each run minus the reference, with Holm over all of them."""
    metric = definition.primary_metric
    right = {name: row_scores.right(definition, rows.predictions[name][0]) for name in (*tested, reference)}
    is_closed = definition.task_type.label_set(definition.task) is not None
    score = _metrics_of(definition, [metric])
    return bootstrap.holm(
        [
            bootstrap.compare(
                counts[name],
                counts[reference],
                score,
                metric,
                reference,
                (right[name], right[reference]) if is_closed else None,
            )
            for name in tested
        ]
    )


def _class_changes(
    definition: TaskDefinition, before: Sequence[bootstrap.Counts], after: Sequence[bootstrap.Counts]
) -> tuple[ClassChange, ...]:
    """The change of every per-class number, in the order of the labels."""
    module, options = definition.task_type, definition.task
    differences = bootstrap.class_differences(after, before, module, options)
    old, new = ([module.per_class(matrix.sum(0), options) for matrix in counts] for counts in (before, after))
    return tuple(
        ClassChange(
            label,
            int(old[0][label].get("support") or 0),
            {
                name: Change(
                    before=_mean([seed[label].get(name) for seed in old]),
                    after=_mean([seed[label].get(name) for seed in new]),
                    delta=interval.value,
                    ci_low=interval.ci_low,
                    ci_high=interval.ci_high,
                )
                for name, interval in columns.items()
            },
        )
        for label, columns in differences.items()
    )


def _slice_changes(
    definition: TaskDefinition, rows: _Rows, counts: dict[str, Any], reference: str, tested: Sequence[str]
) -> dict[str, list[SliceChange]]:
    """For each run its changes on the rows that the split still holds. Slices are the outer loop: the resamples of one
    number of rows are drawn once for all runs."""
    present = np.flatnonzero([row is not None for row in rows.processed])
    found: dict[str, list[SliceChange]] = {name: [] for name in tested}
    sections = slices.sections(definition, [rows.processed[i] for i in present])
    for by, value_of, members in ((by, value, m) for by, parts in sections.items() for value, m in parts.items()):
        at = present[members]
        for name in tested:
            change = _slice_change(definition, [c[at] for c in counts[reference]], [c[at] for c in counts[name]])
            found[name].append(SliceChange(by, value_of, len(at), change))
    return found


def _slice_change(
    definition: TaskDefinition, before: Sequence[bootstrap.Counts], after: Sequence[bootstrap.Counts]
) -> Change:
    metric = definition.primary_metric
    if before[0].shape[0] < slices.MIN_ROWS:
        return Change(None, None, None, None, None)
    score = _metrics_of(definition, [metric])
    found = bootstrap.compare(after, before, score, metric, "")
    values = [_mean(_points(counts, score)[metric]) for counts in (before, after)]
    return Change(*values, found.delta, found.ci_low, found.ci_high)


def _row_changes(definition: TaskDefinition, rows: _Rows, reference: str, name: str) -> tuple[RowChange, ...]:
    """Rows broken, then rows fixed, each in the order of the data; with open answers the largest change first."""
    module = definition.task_type
    is_closed = module.label_set(definition.task) is not None
    found: dict[str, list[RowChange]] = {"broken": [], "fixed": []}
    before, after = rows.predictions[reference][0], rows.predictions[name][0]
    scores = row_scores.of(definition, before).tolist(), row_scores.of(definition, after).tolist()
    for row, old, new, was, now in zip(rows.processed, before, after, *scores, strict=True):
        if abs(now - was) > SAME_SCORE:
            kind = "fixed" if now > was else "broken"
            text = module.text_of(module.Record(**row["record"])) if row else None
            values = (row["id"] if row else new.id, text, new.gold, old.prediction, new.prediction)
            found[kind].append(RowChange(kind, *values, *((None, None) if is_closed else (was, now))))
    if not is_closed:
        for changed in found.values():
            changed.sort(key=lambda row: -abs(row.score_after - row.score_before))
    return (*found["broken"], *found["fixed"])


def _seed_notes(standings: dict[str, Standing], versus: Sequence[Versus]) -> list[Note]:
    """Differences that another seed alone could make."""
    notes = []
    for item in versus:
        sds = [sd for name in (item.run, item.against) if (sd := standings[name].sd) is not None]
        delta = item.comparison.delta
        if delta is not None and sds and abs(delta) < max(sds):
            values = {"run": item.run, "reference": item.against, "delta": f"{delta:+.3f}", "sd": f"{max(sds):.3f}"}
            notes.append(Note("within_seed_spread", values))
    return notes


# What the runs were made from.


def _config_differences(paths: TaskPaths, reference: str, name: str) -> tuple[str, ...] | None:
    """`key: reference -> run` for every leaf in which the two configs differ."""
    configs = [resolved_config(paths, run) for run in (reference, name)]
    if None in configs:
        return None
    return tuple(runs.differences(*({k: v for k, v in c.items() if k not in _NOT_COMPARED} for c in configs)))


def _data_differences(reference: Evaluated, run: Evaluated) -> tuple[str, ...] | None:
    """The same for what their identities hold beside the config: definition and processed files."""
    parts = [
        {k: v for k, v in system.record.identity.get("parts", {}).items() if k != "config"}
        for system in (reference, run)
        if system.record
    ]
    return tuple(runs.differences(*parts)) if len(parts) == 2 else None
