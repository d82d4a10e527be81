"""Splits keep together what belongs together, meet their shares in every label, and say where they cannot."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasklib.data import splits
from tasklib.data.dataset import Index, rows_of

SHARES = {"validation": 0.1, "test": 0.2}
WANTED = {"train": 0.7, "validation": 0.1, "test": 0.2}


def made(labels, *, texts=None, passages=None, groups=None, times=None):
    """(index, strata) of rows with these labels (a name or a tuple of names each); texts are different unless given."""
    n = len(labels)
    labels = [(label,) if isinstance(label, str) else label for label in labels]
    strata = list(dict.fromkeys(labels))
    number = {labels: position for position, labels in enumerate(strata)}
    keys = np.random.default_rng(5).integers(1, 2**63, max([n, *(t + 1 for t in texts or [])]), dtype=np.uint64)
    zeros = np.zeros(n, dtype=np.int64)
    index = Index(
        file=zeros,
        line=np.arange(1, n + 1),
        split=zeros,
        text_key=keys[np.arange(n) if texts is None else texts],
        passage=np.zeros(n, dtype=np.uint64) if passages is None else np.array(passages, dtype=np.uint64),
        gold=zeros,
        stratum=np.array([number[label] for label in labels], dtype=np.int32),
        group=np.zeros(n, dtype=np.uint64) if groups is None else np.array(groups, dtype=np.uint64),
        time=np.full(n, np.nan) if times is None else np.array(times, dtype=np.float64),
        length=zeros,
        script=zeros,
        files=["a.jsonl"],
        strata=strata,
    )
    return index, strata


def assigned(index, strata, shares=SHARES, *, seed=42, near=None, by_time=False):
    near_pairs = None if near is None else np.array(near, dtype=np.int64).reshape(-1, 2)
    return splits.assign(index, strata, shares, seed=seed, near_pairs=near_pairs, by_time=by_time)


def codes(outcome):
    return [problem.code for problem in outcome.warnings]


def per_label(index, strata, split):
    """Label -> split -> rows."""
    found = defaultdict(Counter)
    for stratum, name in zip(index.stratum, split, strict=True):
        for label in strata[stratum]:
            found[label][name] += 1
    return found


def deviation(index, strata, split, wanted=WANTED):
    """The largest difference between a label's rows in a split and its share of them."""
    found = per_label(index, strata, split)
    return max(abs(n[name] - share * n.total()) for n in found.values() for name, share in wanted.items())


# Shares


@pytest.mark.parametrize("shares", [SHARES, {"test": 0.5}, {"validation": 0.05}, {"validation": 0.33, "test": 0.33}])
@pytest.mark.parametrize("seed", [0, 42, -1, 2**70])
def test_each_label_has_its_share_in_each_split_to_within_a_row(shares, seed):
    index, strata = made(["often"] * 203 + ["seldom"] * 101 + ["rare"] * 57)
    outcome = assigned(index, strata, shares, seed=seed)
    wanted = {"train": 1 - sum(shares.values()), **shares}
    assert set(outcome.split) == set(wanted) and outcome.warnings == []
    assert deviation(index, strata, outcome.split, wanted) <= 1


@pytest.mark.parametrize("n_labels", [1, 2, 3])
@pytest.mark.parametrize("n", [200, 3000])
def test_shares_hold_for_every_label_where_rows_have_several(n, n_labels):
    rng = random.Random(n)
    names = [f"l{min(40, int(rng.paretovariate(0.7)))}" for _ in range(5 * n)]
    labels = [tuple(sorted(set(rng.sample(names, rng.randint(1, n_labels))))) for _ in range(n)]
    index, strata = made(labels)
    outcome = assigned(index, strata)
    assert deviation(index, strata, outcome.split) <= 2
    sizes = Counter(outcome.split)
    assert all(abs(sizes[name] - share * n) <= 0.03 * n for name, share in WANTED.items())


def test_shares_hold_where_units_are_of_very_different_sizes():
    rng = random.Random(1)
    groups = [number for number in range(1, 400) for _ in range(rng.choice([1, 2, 5, 20]))]
    labels = [f"l{min(8, int(rng.paretovariate(0.8)))}" for _ in groups]
    index, strata = made(labels, groups=groups)
    outcome = assigned(index, strata)
    assert deviation(index, strata, outcome.split) <= 3
    assert outcome.warnings == []


@settings(max_examples=200, deadline=None)
@given(
    labels=st.lists(
        st.sets(st.sampled_from("abcde"), max_size=3).map(lambda s: tuple(sorted(s))), min_size=1, max_size=60
    ),
    data=st.data(),
    shares=st.sampled_from([SHARES, {"validation": 0.4, "test": 0.5}, {"test": 0.3}, {}]),
)
def test_no_unit_is_ever_parted_and_every_row_gets_a_split(labels, data, shares):
    n = len(labels)
    texts = data.draw(st.lists(st.integers(0, 50), min_size=n, max_size=n))
    groups = data.draw(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3]), min_size=n, max_size=n))
    index, strata = made(labels, texts=texts, groups=groups)
    outcome = assigned(index, strata, shares, seed=data.draw(st.integers(0, 3)))
    assert len(outcome.split) == n and set(outcome.split) <= {"train", *shares}
    for column in (texts, groups):
        sides = defaultdict(set)
        for key, name in zip(column, outcome.split, strict=True):
            sides[key].add(name)
        assert all(len(names) == 1 for key, names in sides.items() if key or column is texts)
    lacking = {label for label, n_in in per_label(index, strata, outcome.split).items() if len(n_in) <= len(shares)}
    warned = {problem.message.split("'")[1] for problem in outcome.warnings if problem.code == "small_stratum"}
    assert warned == lacking


@pytest.mark.parametrize("n", range(3, 30))
@pytest.mark.parametrize("size", [1, 2], ids=["single rows", "pairs of equal texts"])
def test_a_label_with_as_many_units_as_splits_is_in_every_split(n, size):
    labels = ["often"] * 200 + ["rare"] * n * size
    index, strata = made(labels, texts=[*range(200), *(200 + k // size for k in range(n * size))])
    outcome = assigned(index, strata)
    assert set(per_label(index, strata, outcome.split)["rare"]) == set(WANTED)
    assert outcome.warnings == []


@pytest.mark.parametrize("n", [1, 2])
def test_a_label_with_fewer_units_than_splits_is_a_warning_that_names_what_lacks_it(n):
    index, strata = made(["often"] * 100 + ["rare"] * n)
    outcome = assigned(index, strata)
    has = set(per_label(index, strata, outcome.split)["rare"])
    (problem,) = outcome.warnings
    assert problem.code == "small_stratum" and len(has) == n and "train" in has
    assert "'rare'" in problem.message and f"{n} rows" in problem.message
    assert all((name in problem.message) == (name not in has) for name in WANTED)


def test_equal_texts_count_once_when_a_label_is_too_small():
    index, strata = made(["often"] * 100 + ["rare"] * 8, texts=[*range(100), *[100] * 8])
    (problem,) = assigned(index, strata).warnings
    assert problem.code == "small_stratum" and "8 rows, 1 of which" in problem.message


def test_rows_without_a_label_are_shared_out_and_not_warned_of():
    index, strata = made([()] * 100 + ["a"] * 100 + [()])
    outcome = assigned(index, strata)
    assert Counter(outcome.split[:100])["test"] == 20 and outcome.warnings == []


def test_nothing_is_drawn_where_no_share_is_wanted():
    index, strata = made(["a", "b"] * 10)
    for shares in ({}, {"validation": 0.0, "test": 0.0}):
        assert set(assigned(index, strata, shares).split) == {"train"}
    assert len(assigned(rows_of(index, np.array([], dtype=int)), strata).split) == 0


# Repetition


def test_a_seed_gives_one_split_and_another_seed_another_of_the_same_sizes():
    index, strata = made(["a", "b"] * 100)
    first, again, other = assigned(index, strata), assigned(index, strata), assigned(index, strata, seed=7)
    assert first.split.tolist() == again.split.tolist() != other.split.tolist()
    assert Counter(first.split) == Counter(other.split) == {"train": 140, "validation": 20, "test": 40}


def test_the_order_of_the_rows_changes_no_rows_split():
    rng = np.random.default_rng(0)
    groups, texts = rng.integers(0, 40, 300), rng.integers(0, 250, 300).tolist()
    index, strata = made([("a", "b", "ab")[n % 3] for n in range(300)], texts=texts, groups=groups)
    order = rng.permutation(300)
    split, of_shuffled = assigned(index, strata).split, assigned(rows_of(index, order), strata).split
    assert split[order].tolist() == of_shuffled.tolist() and len(set(split)) == 3


# Near duplicates


def test_rows_of_one_passage_stay_on_one_side_whatever_their_questions():
    passages = [number // 4 + 1 for number in range(200)]
    index, strata = made(["a", "b"] * 100, passages=passages)
    found = splits.assign(index, strata, SHARES, seed=3).split
    assert len(set(found)) == 3
    assert all(len(set(found[start : start + 4])) == 1 for start in range(0, 200, 4))


def test_rows_linked_by_near_pairs_stay_on_one_side_across_texts_and_groups():
    """Near 0-1, text 1-2, group 2-3, near 3-4."""
    texts, groups = list(range(200)), [0] * 200
    texts[2], groups[2], groups[3] = texts[1], 9, 9
    index, strata = made(["a", "b"] * 100, texts=texts, groups=groups)
    for seed in range(20):
        assert len(set(assigned(index, strata, near=[(0, 1), (3, 4)], seed=seed).split[:5])) == 1
    assert any(len(set(assigned(index, strata, near=[(0, 1)], seed=seed).split[:5])) > 1 for seed in range(20))


def chain(n):
    return list(itertools.pairwise(range(n)))


def test_a_chain_of_near_duplicates_larger_than_half_a_split_is_parted_with_a_warning():
    index, strata = made(["a", "b"] * 100)
    outcome = assigned(index, strata, near=[*chain(60), (70, 71)])
    (problem,) = outcome.warnings
    assert problem.code == "near_duplicate_chain" and "60 rows" in problem.message and "10 rows" in problem.message
    assert (problem.file, problem.line) == ("a.jsonl", 1) and "near_duplicates" in problem.hint
    assert len(set(outcome.split[:60])) == 3
    assert outcome.split[70] == outcome.split[71]  # a chain elsewhere changes nothing here


def test_in_a_parted_chain_equal_texts_and_groups_still_stay_together():
    texts, groups = list(range(200)), [0] * 200
    for position in range(0, 60, 2):
        texts[position] = texts[position + 1]
    groups[1] = groups[58] = 5
    index, strata = made(["a", "b"] * 100, texts=texts, groups=groups)
    outcome = assigned(index, strata, near=chain(60))
    assert codes(outcome) == ["near_duplicate_chain"]
    assert all(outcome.split[position] == outcome.split[position + 1] for position in range(0, 60, 2))
    assert outcome.split[1] == outcome.split[58]


@pytest.mark.parametrize(("n", "kept"), [(11, True), (12, False)])
def test_a_chain_is_kept_up_to_half_of_the_smallest_split(n, kept):
    """Of 200 rows 20 are drawn for validation; the links of 11 rows add 10 to the first."""
    index, strata = made(["a", "b"] * 100)
    outcome = assigned(index, strata, near=chain(n))
    assert (codes(outcome) == []) == kept
    assert (len(set(outcome.split[:n])) == 1) == kept


def test_two_near_texts_are_no_chain_however_few_the_rows():
    index, strata = made(["a", "b"] * 4)
    for seed in range(20):
        outcome = assigned(index, strata, near=[(2, 5)], seed=seed)
        assert outcome.split[2] == outcome.split[5] and "near_duplicate_chain" not in codes(outcome)


def test_a_large_group_is_no_chain_and_keeps_its_near_duplicate():
    index, strata = made(["a", "b"] * 100, groups=[1] * 60 + [0] * 140)
    outcome = assigned(index, strata, near=[(0, 100)])
    assert outcome.warnings == [] and len(set(outcome.split[[*range(60), 100]])) == 1


# By time


def test_the_oldest_rows_train_and_the_newest_test():
    times = np.random.default_rng(3).permutation(1000) * 60.0
    index, strata = made(["a", "b"] * 500, times=times)
    outcome = assigned(index, strata, by_time=True)
    by_time = [outcome.split[position] for position in np.argsort(times)]
    assert by_time == ["train"] * 700 + ["validation"] * 100 + ["test"] * 200 and outcome.warnings == []


def test_rows_of_one_moment_stay_on_one_side():
    index, strata = made(["a", "b"] * 50, times=[number // 13 for number in range(100)])
    outcome = assigned(index, strata, by_time=True)
    assert all(len(set(outcome.split[n : n + 13])) == 1 for n in range(0, 100, 13))
    assert list(dict.fromkeys(outcome.split)) == ["train", "validation", "test"]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([1, 1, 1, 1], ["train"] * 4),
        ([1, 2, 2, 2], ["train", "validation", "validation", "validation"]),
        ([1, 1, 1, 2, 3], ["train", "train", "train", "validation", "test"]),
    ],
)
def test_each_split_gets_a_moment_while_there_are_enough(times, expected):
    index, strata = made([("a", "b")[n % 2] for n in range(len(times))], times=times)
    assert assigned(index, strata, by_time=True).split.tolist() == expected


def test_a_group_that_spans_a_boundary_goes_to_its_earliest_row_with_a_warning():
    groups = [0] * 100
    groups[10] = groups[75] = groups[99] = 4
    index, strata = made(["a", "b"] * 50, groups=groups, times=[86400.0 * day for day in range(100)])
    outcome = assigned(index, strata, by_time=True)
    assert set(outcome.split[[10, 75, 99]]) == {"train"}
    (problem,) = outcome.warnings
    assert problem.code == "moved_in_time" and problem.line == 76 and problem.message.startswith("2 rows")
    assert "1970-03-17" in problem.message and "validation" in problem.message and "train" in problem.message


def test_a_label_that_is_only_new_is_a_warning_by_time_too():
    index, strata = made(["a"] * 90 + ["new"] * 10, times=range(100))
    (problem,) = assigned(index, strata, by_time=True).warnings
    assert problem.code == "small_stratum" and "'new'" in problem.message and "train, validation" in problem.message


def test_a_row_without_a_time_never_gets_this_far():
    index, strata = made(["a", "b"], times=[1.0, np.nan])
    with pytest.raises(AssertionError):
        assigned(index, strata, by_time=True)


# Speed


@pytest.mark.parametrize("n_labels", [1, 2], ids=["one label a row", "two labels a row"])
def test_a_hundred_thousand_rows_a_second(n_labels):
    n = 200_000 if n_labels == 1 else 50_000
    names = np.random.default_rng(0).integers(0, 20, (n, n_labels))
    index, strata = made([tuple(f"l{name}" for name in sorted(set(row))) for row in names.tolist()])
    assigned(*made(["a", "b"]))  # loads scipy
    started = time.perf_counter()
    outcome = assigned(index, strata)
    assert time.perf_counter() - started < n / 100_000 * (1 if n_labels == 1 else 3)
    assert deviation(index, strata, outcome.split) <= 2
