"""Which rows a person should look at next: labels that look wrong, and of texts without a label those that teach most.

Uncertain texts are those with the smallest margin between the two likeliest labels (Scheffer, Decomain & Wrobel 2001;
Settles 2009, "Active Learning Literature Survey"). Diverse texts are far from everything known: k-centre greedy (Sener
& Savarese 2018, "Active Learning for Convolutional Neural Networks: A Core-Set Approach") on TF-IDF vectors. Texts that
fit nowhere, broken or in another language, are among the first of these: a person should see them too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasklib.data import conversion, dataset, near_duplicates, text_baselines
from tasklib.data.label_sheets import label_role, spec_of
from tasklib.data.raw_versions import PoolRow
from tasklib.iterating import label_noise
from tasklib.iterating.check_sheet import SheetRow
from tasklib.paths import TaskPaths
from tasklib.reading.records import read_rows
from tasklib.schema import SPLITS, TaskDefinition
from tasklib.scoring import evaluation
from tasklib.summary import Problem

MISLABELLED, UNCERTAIN, DIVERSE = "likely_mislabelled", "uncertain", "diverse"
SURE = 0.9  # probability of another label from which a run contradicts the given one, whatever its mean
_ROWS_AT_ONCE = 256  # of the pool that are compared with all labelled texts: bounds the memory


@dataclass(frozen=True)
class Labelled:
    """One processed row."""

    id: str
    split: str
    text: str
    text_key: str
    label: str


def labelled_rows(paths: TaskPaths, definition: TaskDefinition) -> list[Labelled]:
    """The rows of all splits, train first. Raises TaskError (exit 4) where they are missing or out of date."""
    label_role(definition)
    module, rows = definition.task_type, []
    for split in SPLITS if paths.manifest.is_file() else ("train",):
        if split != "train" and not paths.split(split).is_file():
            continue
        for row in conversion.load_split(paths, split):
            record = module.Record(**row["record"])
            text = module.text_of(record)
            rows.append(Labelled(row["id"], split, text, dataset.text_key(text), module.gold(record)))
    conversion.require_current(paths, definition)
    return rows


# Labels that look wrong.


def probabilities_of_run(
    paths: TaskPaths, run: str, splits: Sequence[str], labels: Sequence[str]
) -> dict[str, np.ndarray]:
    """text_key -> what the run answered in its evaluation, shape (n_labels,). Empty where it was not evaluated, or
    answered in free text; train is left out, which the run knows by heart."""
    found = {}
    for split in splits:
        result = evaluation.read(paths.benchmark(run, split)) if split != "train" else None
        for p in result.predictions if result else ():
            if p.text_key and p.probabilities and set(p.probabilities) == set(labels):
                found[p.text_key] = np.array([p.probabilities[label] for label in labels])
    return found


def mislabelled(
    rows: Sequence[Labelled],
    by_run: Mapping[str, np.ndarray],
    splits: Sequence[str],
    labels: Sequence[str],
    confirmed: Mapping[str, str],
) -> list[SheetRow]:
    """Rows of `splits` whose label looks wrong, each text once, the likeliest first.

    Rows that the run answered against their label come first, in turn with those that the TF-IDF baseline contradicts
    out of fold, so that neither hides the other. `confirmed` (text_key -> label) are those that a person looked at.
    """
    first: dict[str, Labelled] = {}
    for row in rows:
        if row.split == "train" or row.split in splits:
            first.setdefault(row.text_key, row)
    unique = list(first.values())
    answered = [row for row in unique if row.text_key in by_run]
    others = [row for row in unique if row.text_key not in by_run]
    found = [_issues(answered, np.array([by_run[row.text_key] for row in answered]), labels, SURE)]
    if any(row.split in splits for row in others):
        texts, golds = [row.text for row in others], [row.label for row in others]
        found.append(_issues(others, label_noise.out_of_fold(texts, golds, labels), labels))
    keys = {row.text_key for row in unique if row.split in splits and confirmed.get(row.text_key) != row.label}
    return _in_turn([[row for row in ranked if row.text_key in keys] for ranked in found])


def _issues(
    rows: Sequence[Labelled], probabilities: np.ndarray, labels: Sequence[str], sure: float | None = None
) -> list[SheetRow]:
    column = {label: position for position, label in enumerate(labels)}
    return [
        SheetRow(
            id=rows[issue.position].id,
            text_key=rows[issue.position].text_key,
            text=rows[issue.position].text,
            label=issue.given,
            reason=MISLABELLED,
            suggested_label=issue.suggested,
            confidence=float(probabilities[issue.position, column[issue.suggested]]),
        )
        for issue in label_noise.issues([row.label for row in rows], probabilities, labels, sure)
    ]


def _in_turn(ranked: Sequence[Sequence[SheetRow]]) -> list[SheetRow]:
    """The first of each list, then the second of each, and so on."""
    longest = max(map(len, ranked), default=0)
    return [rows[n] for n in range(longest) for rows in ranked if n < len(rows)]


# Texts without a label.


@dataclass(frozen=True)
class Pool:
    """Texts without a label, as the task reads them, and the raw row of each."""

    records: list[object]
    rows: list[PoolRow]
    n_known: int = 0
    n_near: int = 0

    def only(self, positions: Sequence[int], **counts: int) -> Pool:
        records, rows = ([values[i] for i in positions] for values in (self.records, self.rows))
        return dataclasses.replace(self, records=records, rows=rows, **counts)


def read_pool(path: Path, definition: TaskDefinition) -> tuple[Pool, list[Problem]]:
    """The texts of a file in any format that is read here, or one text a line; and a problem for each bad row."""
    module, fields = definition.task_type, definition.data.fields
    spec, pool, problems = spec_of(path), Pool([], []), []
    for item in read_rows(path, str(path), spec):
        if isinstance(item, Problem):
            problems.append(item)
            continue
        values = {fields[module.INPUT_FIELDS[0]]: item.values["text"]} if spec.format == "lines" else dict(item.values)
        record, faults = module.read_input(
            {role: values.get(fields[role]) for role in module.INPUT_FIELDS}, definition.task
        )
        problems += [
            Problem(code=f.code, message=f.message, file=item.file, line=item.line, field=fields[f.role], hint=f.hint)
            for f in faults
        ]
        if record is not None:
            record = module.normalized(record, definition.data.normalize, definition.task)
            key = dataset.text_key(module.text_of(record))
            pool.records.append(record)
            pool.rows.append(PoolRow(key, item.file, item.line, values))
    return pool, problems


def held_out_groups(paths: TaskPaths, definition: TaskDefinition, labelled: Sequence[Labelled]) -> set[str]:
    """The values of data.split.group_by in validation and test: no further row of theirs may come into train."""
    if definition.data.split.group_by is None:
        return set()
    held_out = {row.id for row in labelled if row.split != "train"}
    return {e.group for e in dataset.examples(paths, definition) if e.group is not None and e.id in held_out}


def unknown(pool: Pool, labelled: Sequence[Labelled], held_out: set[str], definition: TaskDefinition) -> Pool:
    """The pool without texts that the data hold, or nearly hold, in any split, without rows of `held_out` groups, and
    with one text of each cluster of near duplicates: a twin of a test row must not come into train, and a twin of a
    training row teaches nothing."""
    known, kept = {row.text_key for row in labelled}, []
    group_by = definition.data.split.group_by
    for position, row in enumerate(pool.rows):
        if row.text_key not in known and str(row.values.get(group_by)) not in held_out:
            known.add(row.text_key)
            kept.append(position)
    new = pool.only(kept, n_known=len(pool.rows) - len(kept))
    threshold = definition.data.split.near_duplicates
    if threshold is None or not kept:
        return new
    texts = [row.text for row in labelled]
    apart = _one_of_each_cluster(texts, [definition.task_type.text_of(record) for record in new.records], threshold)
    return new.only(apart, n_near=len(kept) - len(apart))


def _one_of_each_cluster(known: Sequence[str], new: Sequence[str], threshold: float) -> list[int]:
    """Positions in `new`: the first text of each cluster that holds no known one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(known) + len(new)
    pairs = near_duplicates.pairs([*known, *new], threshold)
    links = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    cluster = connected_components(links, directed=False)[1]
    taken, kept = set(cluster[: len(known)].tolist()), []
    for position, number in enumerate(cluster[len(known) :].tolist()):
        if number not in taken:
            taken.add(number)
            kept.append(position)
    return kept


def by_margin(probabilities: np.ndarray) -> list[int]:
    """Positions of the rows of `probabilities` (n_rows, n_labels), the most uncertain first: the smallest margin
    between the two likeliest labels, among equal ones the largest entropy."""
    if not len(probabilities):
        return []
    two = np.sort(probabilities, axis=1)[:, -2:]
    safe = np.clip(probabilities, 1e-12, 1)
    entropy = -(safe * np.log(safe)).sum(axis=1)
    return np.lexsort((np.arange(len(two)), -entropy.round(6), (two[:, 1] - two[:, 0]).round(6))).tolist()


def farthest_first(texts: Sequence[str], centres: Sequence[str]) -> Iterator[int]:
    """Positions in `texts`, each the one that is least like every centre and every text before it: k-centre greedy with
    the cosine of TF-IDF vectors. Ties go to the first."""
    if not texts:
        return
    vectors = text_baselines.tfidf_pipeline()[0].fit_transform([*centres, *texts])
    known, new = vectors[: len(centres)], vectors[len(centres) :]
    nearest = np.full(len(texts), -1.0)  # the cosine with what is most like it
    for start in range(0, len(texts) if len(centres) else 0, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        nearest[part] = (new[part] @ known.T).max(axis=1).toarray().ravel()
    for _ in texts:
        chosen = int(nearest.round(9).argmin())
        yield chosen
        nearest = np.maximum(nearest, (new @ new[chosen].T).toarray().ravel())
        nearest[chosen] = np.inf


def from_pool(
    pool: Pool,
    probabilities: np.ndarray | None,
    labelled: Sequence[Labelled],
    definition: TaskDefinition,
    n_uncertain: int,
    n_diverse: int,
) -> list[SheetRow]:
    """Rows of the pool to label: uncertain ones first, then diverse ones that are far from those too. `probabilities`
    is of shape (n_rows, n_labels); None, from a run that answers in free text, leaves only the diverse ones."""
    texts = [definition.task_type.text_of(record) for record in pool.records]
    labels = list(definition.task_type.label_set(definition.task))
    uncertain = by_margin(probabilities)[:n_uncertain] if probabilities is not None else []
    taken = set(uncertain)
    rest = [position for position in range(len(texts)) if position not in taken]
    centres = [row.text for row in labelled] + [texts[position] for position in uncertain]
    order = farthest_first([texts[position] for position in rest], centres)
    diverse = [rest[n] for n, _ in zip(order, range(min(n_diverse, len(rest))), strict=False)]
    return [
        SheetRow(
            id=f"{pool.rows[i].file}:{pool.rows[i].line}",
            text_key=pool.rows[i].text_key,
            text=texts[i],
            label="",
            reason=UNCERTAIN if i in taken else DIVERSE,
            suggested_label="" if probabilities is None else labels[int(probabilities[i].argmax())],
            confidence=None if probabilities is None else float(probabilities[i].max()),
        )
        for i in [*uncertain, *diverse]
    ]


def shares(n_rows: int, available: Mapping[str, int]) -> dict[str, int]:
    """How many rows of each reason: equal shares, what one cannot fill goes to the others in order."""
    found = dict.fromkeys(available, 0)
    while sum(found.values()) < min(n_rows, sum(available.values())):
        for reason, n in available.items():
            if found[reason] < n and sum(found.values()) < n_rows:
                found[reason] += 1
    return found
