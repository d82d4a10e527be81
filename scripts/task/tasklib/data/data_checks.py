"""What needs all rows at once: duplicates, contradictions, leakage, classes, lengths, scripts. Works on the index."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from tasklib.data import spans
from tasklib.data.dataset import CHUNK_ROWS, PLACES, SCRIPTS, Dataset, Index
from tasklib.schema import TaskDefinition
from tasklib.summary import MAX_PROBLEMS_PER_CODE, Problem

RARE_ROWS = 10  # below this a class's F1 says little
IMBALANCE_RATIO = 20  # largest class over smallest
MOST_ROWS = 0.98  # share of rows that another way to read offsets must read
ONE_SIDED, LEAST_PAIRS = 0.8, 20  # share of pairs whose longer answer is on one side, and how many pairs say so


def check(dataset: Dataset, definition: TaskDefinition) -> None:
    """Adds every finding over the whole data set to `dataset.findings`."""
    findings, index = dataset.findings, dataset.index
    if not findings.errors:
        for problem in _too_few_classes(dataset, definition):
            findings.error(problem)
    _duplicates(dataset, definition)
    _leakage(dataset, index.passage if index.passage.any() else index.text_key, "text")
    _leakage(dataset, index.group, "group")
    for problem in _class_sizes(dataset, definition):
        findings.warning(problem)
    _lengths(dataset)
    _scripts(dataset)


def earlier_equal(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(positions, first): every row whose key a row before it has, in order, and the first row that has it. Takes one
    copy of the keys, and more only for those that occur twice."""
    ranked = np.sort(keys)
    twice = np.unique(ranked[1:][ranked[1:] == ranked[:-1]])
    del ranked
    some = np.flatnonzero(_among(keys, twice))
    order = np.argsort(keys[some], kind="stable")
    ranked = keys[some][order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(some) else some
    sizes = np.diff(np.r_[starts, len(some)])
    again = np.ones(len(some), dtype=bool)
    again[starts] = False
    positions, first = some[order[again]], np.repeat(some[order[starts]], sizes - 1)
    back = np.argsort(positions, kind="stable")
    return positions[back], first[back]


def _among(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which of the keys stand in the sorted array `wanted`."""
    found = np.zeros(len(keys), dtype=bool)
    for start in range(0, len(keys) if len(wanted) else 0, CHUNK_ROWS):
        part = keys[start : start + CHUNK_ROWS]
        at = np.minimum(np.searchsorted(wanted, part), len(wanted) - 1)
        found[start : start + CHUNK_ROWS] = wanted[at] == part
    return found


def _duplicates(dataset: Dataset, definition: TaskDefinition) -> None:
    """Equal texts within one split, with the same label or with another."""
    index, keys = dataset.index, dataset.index.text_key
    if _n_splits(index) > 1:
        keys = keys + index.split * np.uint64(0x9E3779B97F4A7C15)  # wraps around, as a hash may
    positions, first = earlier_equal(keys)
    agree = index.gold[positions] == index.gold[first]
    hint = "duplicates are kept on one side of the split"
    _add(dataset, positions[agree], first[agree], "duplicate", lambda a, b: (f"same text as {index.place(b)}", hint))
    own_words = getattr(definition.task_type, "CONTRADICTION", None)
    hint = "decide on one label: run 01_validate_data.py --decide; at most one of the two can be scored as right"

    def contradiction(a: int, b: int) -> tuple[str, str]:
        if own_words:
            return own_words[0].format(other=index.place(b)), own_words[1]
        return f"same text as {index.place(b)}, but {labels(index, a)} here and {labels(index, b)} there", hint

    _add(dataset, positions[~agree], first[~agree], "contradicting_duplicate", contradiction)


def _leakage(dataset: Dataset, keys: np.ndarray, what: str) -> None:
    """The same text, or the same group, in two of the user's own splits."""
    index = dataset.index
    if _n_splits(index) < 2:
        return
    some = np.flatnonzero(keys)
    positions, first = (some[found] for found in earlier_equal(keys[some]))
    crosses = index.split[positions] != index.split[first]

    def leak(a: int, b: int) -> tuple[str, str]:
        split = PLACES[index.split[a]]
        message = f"the same {what} is in {PLACES[index.split[b]]} ({index.place(b)}) and in {split}"
        if what == "text":
            there, here = labels(index, b), labels(index, a)
            if index.gold[a] == index.gold[b]:
                message += ", with the same label"
            elif there == here:
                message += ", with another answer"  # of the same labels, such as entities at other places
            else:
                message += f", as {there} there and {here} here"
        return message, "remove one of the two: a score on trained rows means nothing"

    _add(dataset, positions[crosses], first[crosses], "leakage", leak, error=True)


def _n_splits(index: Index) -> int:
    return sum(bool((index.split == place).any()) for place in range(len(PLACES)))


def _add(
    dataset: Dataset,
    positions: np.ndarray,
    others: np.ndarray,
    code: str,
    words: Callable[[int, int], tuple[str, str]],
    error: bool = False,
) -> None:
    """One finding for each pair (position, other); words are made only for those that are kept."""
    index, findings = dataset.index, dataset.findings
    add = findings.error if error else findings.warning
    for position, other in zip(positions[:MAX_PROBLEMS_PER_CODE], others[:MAX_PROBLEMS_PER_CODE], strict=True):
        message, hint = words(int(position), int(other))
        file, line = index.files[index.file[position]], int(index.line[position])
        add(Problem(code=code, message=message, file=file, line=line, hint=hint))
    findings.more(code, max(0, len(positions) - MAX_PROBLEMS_PER_CODE))


def labels(index: Index, position: int) -> str:
    """The labels of one row, as a message names them."""
    return ", ".join(map(repr, index.strata[index.stratum[position]])) or "another answer"


def add_near_duplicates(dataset: Dataset, pairs: np.ndarray) -> None:
    """Adds texts that are nearly equal, `pairs` of row positions of shape (m, 2): within a split, and across splits."""
    index = dataset.index
    crosses = index.split[pairs[:, 0]] != index.split[pairs[:, 1]]

    def near(a: int, b: int) -> tuple[str, str]:
        same = index.gold[a] == index.gold[b]
        message = f"nearly the same text as {index.place(b)}"
        message += ", with the same label" if same else f", but {labels(index, a)} here and {labels(index, b)} there"
        return message, "near duplicates are kept on one side of the split; compare the labels"

    def leak(a: int, b: int) -> tuple[str, str]:
        message, _ = near(a, b)
        return f"{message}, which is in {PLACES[index.split[b]]}", "remove one: the score would be partly remembered"

    for code, words, chosen in (("near_duplicate", near, pairs[~crosses]), ("near_leakage", leak, pairs[crosses])):
        chosen = chosen[np.argsort(chosen[:, 1], kind="stable")]
        _add(dataset, chosen[:, 1], chosen[:, 0], code, words)


def _too_few_classes(dataset: Dataset, definition: TaskDefinition) -> Iterator[Problem]:
    if definition.task_type.label_set(definition.task) is None:
        return
    counts = dataset.label_counts()
    if len(counts) < 2:
        yield Problem(
            code="one_class",
            message=f"only {len(counts)} label occurs in {len(dataset.index)} rows",
            hint="a classifier needs at least two labels with rows",
        )


def _class_sizes(dataset: Dataset, definition: TaskDefinition) -> Iterator[Problem]:
    names: Any = definition.task_type.label_set(definition.task)
    if names is None or not len(dataset.index):
        return
    counts = dataset.label_counts()
    for label in names:
        n = counts[label]
        if n == 1:
            message, hint = f"label {label!r} has a single row", "it can be trained or tested, not both: label more"
            yield Problem(code="one_example_label", message=message, hint=hint)
        elif n < RARE_ROWS:
            message, hint = f"label {label!r} has {n} rows", "below 10 rows its F1 says little; label more, or merge it"
            yield Problem(code="rare_label", message=message, hint=hint)
    largest, smallest = counts.most_common(1)[0], counts.most_common()[-1]
    if largest[1] >= IMBALANCE_RATIO * smallest[1]:
        message = f"{largest[0]!r} has {largest[1] / smallest[1]:.0f} times the rows of {smallest[0]!r}"
        hint = "judge by macro-F1, not accuracy; collect more of the rare label"
        yield Problem(code="imbalance", message=message, hint=hint)


def _lengths(dataset: Dataset) -> None:
    """Texts far longer or shorter than the others: beyond three interquartile ranges on the log scale, the outer fence
    of Tukey (1977), and at least a factor of four from the median."""
    index = dataset.index
    if len(index) < 20:
        return
    low, middle, high = np.log(np.maximum(np.percentile(index.length, [25, 50, 75]), 1))
    reach = max(3 * (high - low), np.log(4))
    longest, shortest = np.exp(max(high, middle) + reach), np.exp(min(low, middle) - reach)
    for name, far in (("longer", index.length > longest), ("shorter", index.length < shortest)):
        positions = np.flatnonzero(far)
        hint = "look whether rows ran together" if name == "longer" else "look whether the text was cut off"

        def words(a: int, _: int, name: str = name, hint: str = hint) -> tuple[str, str]:
            return f"{index.length[a]} characters: far {name} than the median of {np.exp(middle):.0f}", hint

        _add(dataset, positions, positions, "length_outlier", words)


def _scripts(dataset: Dataset) -> None:
    """Rows in the other Chinese script than most rows, and rows that mix both."""
    index = dataset.index
    counts = dataset.script_counts()
    main, other = "traditional", "simplified"
    if counts[other] > counts[main]:
        main, other = other, main
    odd = np.flatnonzero((index.script == SCRIPTS.index(other)) | (index.script == SCRIPTS.index("mixed")))
    if not counts[main]:
        odd = odd[:0]

    def words(a: int, _: int) -> tuple[str, str]:
        return (
            f"{SCRIPTS[index.script[a]]} Chinese, where {counts[main]} rows are {main}",
            "convert the texts to one script before training, or keep both on purpose",
        )

    _add(dataset, odd, odd, "mixed_script", words)


def add_length_bias(dataset: Dataset, pairs: Iterable[Any]) -> None:
    """A warning where the longer answer, or the shorter, is nearly always the chosen one: DPO learns length first where
    it can (Park et al. 2024, arXiv:2403.19159). `pairs` are records with `chosen` and `rejected`."""
    differences = np.array([len(pair.chosen) - len(pair.rejected) for pair in pairs])
    differences = differences[differences != 0]
    if len(differences) < LEAST_PAIRS:
        return
    share = float((differences > 0).mean())
    if max(share, 1 - share) < ONE_SIDED:
        return
    which = "longer" if share >= 0.5 else "shorter"
    message = f"chosen is the {which} answer in {max(share, 1 - share):.0%} of the pairs that differ in length"
    hint = f"a model may learn to write {which} answers and nothing else: add pairs whose better answer is not the "
    hint += f"{which} one, and look whether the run beats the baseline `{which}` of 04_evaluate.py"
    dataset.findings.warning(Problem(code="length_bias", message=message, hint=hint))


def add_doubtful_offsets(dataset: Dataset, definition: TaskDefinition, rows: Sequence[Mapping[str, Any]]) -> None:
    """A warning where mentions would end as words do if offsets counted otherwise than `task.offsets` says. `rows` are
    readable ones, role -> value."""
    module, declared = definition.task_type, definition.task.offsets
    legal = {name: get_args(field.annotation) for name, field in type(declared).model_fields.items()}
    read = {}
    for values in itertools.product(*legal.values()):
        offsets = type(declared)(**dict(zip(legal, values, strict=True)))
        options = definition.task.model_copy(update={"offsets": offsets})
        found = [record for row in rows if (record := module.read_record(row, options)[0]) is not None]
        if len(found) >= MOST_ROWS * len(rows):
            read[offsets] = found
    best = max(read, key=lambda offsets: spans.variety(read[offsets]), default=declared)
    if best == declared or spans.variety(read[best]) <= spans.MORE_VARIED * spans.variety(read.get(declared, [])):
        return
    pairs = zip(spans.mentions(read[best]), spans.mentions(read[declared]), strict=False)
    one, other = next(((a, b) for a, b in pairs if a != b), ("", ""))
    message = f"mentions like {other!r} seem to be cut, or too long; with other offsets they are {one!r}"
    hint = f"look at some rows; if the second is right: task.offsets: {spans.convention(best.model_dump())}"
    dataset.findings.warning(Problem(code="doubtful_offsets", message=message, field="task.offsets", hint=hint))
