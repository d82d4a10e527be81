"""Texts that are nearly the same: candidates by MinHash, each verified by its exact Jaccard similarity.

Similarity is that of the sets of character n-grams of two duplicate keys (width, case and white space do not matter):
2-grams where the shorter text has fewer than 30 characters, else 3-grams. One changed character removes n grams and
adds n others, so at the usual threshold of 0.8 a text needs about 9n characters to bear one: 18 with 2-grams, 27 with
3-grams. In long texts of a Latin script, on the other hand, unrelated texts share up to half of their 2-grams.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tasklib import progress
from tasklib.data.dataset import duplicate_key

SHORT_LENGTH = 30  # characters; a pair whose shorter text has fewer is judged by 2-grams
N_HASHES = 126  # MinHash values of a text, divided into bands
BAND_RECALL = 0.98  # probability that a pair exactly at the threshold becomes a candidate
N_NEIGHBOURS = 20  # rows of one bucket that a row is compared with: bounds the work at 20 x rows for each band
PROGRESS_ROWS = 20_000
_CHARACTERS_AT_ONCE = 2_000_000  # bounds the memory of grams to about 100 MB


def pairs(texts: Iterable[str], threshold: float) -> np.ndarray:
    """Pairs of near duplicates as positions (i, j), i < j, sorted: int64 of shape (m, 2).

    A pair has a Jaccard similarity of at least `threshold` (0 < threshold <= 1), and lengths that differ no more than
    that either: 哈哈 is not near 哈哈哈哈. Of rows with one duplicate key only the first has pairs: the others are
    equal texts, which are found without this. In a cluster of more than 20 texts every text is linked to some of the
    others, not to all. The same texts give the same pairs every time.
    """
    first: dict[str, int] = {}
    for position, text in enumerate(texts):
        first.setdefault(duplicate_key(text), position)
    keys, lengths = list(first), np.array([len(key) for key in first], dtype=np.int64)
    long = np.flatnonzero(lengths >= SHORT_LENGTH)
    short = np.flatnonzero((lengths >= 2) & (lengths < SHORT_LENGTH / threshold))  # with partners that may be longer
    shown = progress.bar("near duplicates", len(long) + len(short), "rows") if len(keys) > PROGRESS_ROWS else None
    with shown or contextlib.nullcontext() as bar:
        found = [_pairs(keys, lengths, long, 3, threshold, bar), _pairs(keys, lengths, short, 2, threshold, bar)]
    found[1] = found[1][lengths[found[1]].min(axis=1) < SHORT_LENGTH]
    positions = np.fromiter(first.values(), dtype=np.int64, count=len(first))
    return np.unique(positions[np.concatenate(found)], axis=0)


def _pairs(
    keys: Sequence[str], lengths: np.ndarray, rows: np.ndarray, n: int, threshold: float, bar: Any
) -> np.ndarray:
    """Verified pairs among some rows, as positions in `keys`, shape (m, 2)."""
    found = [np.zeros((0, 2), dtype=np.int64)]
    bands = _bands(keys, lengths, rows, n, threshold, bar)
    for band in range(bands.shape[1]):
        candidates = rows[_neighbours(bands[:, band], bands[:, (band + 1) % bands.shape[1]])]
        compared = lengths[candidates]
        candidates = candidates[compared.min(axis=1) >= threshold * compared.max(axis=1)]
        for part in _chunks(candidates, lengths[candidates].sum(axis=1)):
            found.append(part[_similarity(keys, part, n) >= threshold - 1e-9])
    return np.unique(np.concatenate(found), axis=0)


def _bands(
    keys: Sequence[str], lengths: np.ndarray, rows: np.ndarray, n: int, threshold: float, bar: Any
) -> np.ndarray:
    """One number for each row and band, equal where all MinHash values of the band are: uint64 of shape (rows, bands).

    Texts with similarity s share a band of r values with probability s^r, and one of b bands with 1 - (1 - s^r)^b
    (Leskovec, Rajaraman & Ullman, "Mining of Massive Datasets", section 3.4.2). r is the largest for which that is
    BAND_RECALL at the threshold. The bands are compared here and not in datasketch's own index, which keeps 5 kB a row
    in Python objects.
    """
    from datasketch import MinHash

    fits = [r for r in range(1, N_HASHES + 1) if 1 - (1 - threshold**r) ** (N_HASHES // r) >= BAND_RECALL]
    r = max(fits, default=1)
    n_bands = N_HASHES // r
    bands = [np.zeros((0, n_bands), dtype=np.uint64)]
    for part in _chunks(rows, lengths[rows]):
        grams, ends = _grams([keys[row] for row in part], n)
        hashed = (_mixed(grams) >> np.uint64(32)).tolist()
        sets = (hashed[start:end] for start, end in zip([0, *ends], ends, strict=False))
        hashes = [minhash.hashvalues for minhash in MinHash.generator(sets, num_perm=N_HASHES, hashfunc=int)]
        bands.append(_combined(np.array(hashes, dtype=np.uint64)[:, : n_bands * r].reshape(len(part), n_bands, r)))
        if bar is not None:
            bar.update(len(part))
    return np.concatenate(bands)


def _neighbours(band: np.ndarray, next_band: np.ndarray) -> np.ndarray:
    """Pairs of positions with equal numbers in `band`, each with the 20 that follow it at most: shape (m, 2), i < j.

    Within a bucket the rows that agree in the next band, too, stand side by side: large clusters stay connected.
    """
    order = np.lexsort((next_band, band))
    ordered, found = band[order], [np.zeros((0, 2), dtype=np.int64)]
    for distance in range(1, min(N_NEIGHBOURS, len(band) - 1) + 1):
        at = np.flatnonzero(ordered[distance:] == ordered[:-distance])
        if not len(at):
            break
        found.append(np.sort(np.stack([order[at], order[at + distance]], axis=1), axis=1))
    return np.concatenate(found)


def _similarity(keys: Sequence[str], pairs: np.ndarray, n: int) -> np.ndarray:
    """The exact Jaccard similarity of each pair of positions: shape (m,)."""
    from scipy.sparse import csr_matrix

    rows, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(pairs.shape)
    grams, ends = _grams([keys[row] for row in rows], n)
    numbers = np.unique(grams, return_inverse=True)[1]
    sets = csr_matrix((np.ones(len(grams), dtype=np.int32), numbers, [0, *ends]))
    sets.sum_duplicates()
    sets.data[:] = 1
    sizes = np.diff(sets.indptr)[places].sum(axis=1)
    shared = np.asarray(sets[places[:, 0]].multiply(sets[places[:, 1]]).sum(axis=1)).ravel()
    return shared / (sizes - shared)


def _grams(keys: Sequence[str], n: int) -> tuple[np.ndarray, list[int]]:
    """The n-grams of some texts one after another, and where those of each text end. A code point has 21 bits, so that
    n <= 3 of them make one uint64 without collision. Every text has at least n characters."""
    codes = np.frombuffer("".join(keys).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    lengths = np.array([len(key) for key in keys])
    last = np.cumsum(lengths)
    inside = np.ones(len(codes), dtype=bool)  # places where a gram starts
    for back in range(1, n):
        inside[last - back] = False
    starts = np.flatnonzero(inside)
    grams = codes[starts]
    for offset in range(1, n):
        grams = (grams << np.uint64(21)) | codes[starts + offset]
    return grams, np.cumsum(lengths - n + 1).tolist()


def _chunks(items: np.ndarray, sizes: np.ndarray) -> Iterator[np.ndarray]:
    """`items` in order, cut so that the sizes of a part sum to about two million characters."""
    cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // _CHARACTERS_AT_ONCE)) + 1
    return (part for part in np.split(items, cuts) if len(part))


def _combined(values: np.ndarray) -> np.ndarray:
    """One uint64 for the values along the last axis: uint64 (..., r) -> (...)."""
    total = np.zeros(values.shape[:-1], dtype=np.uint64)
    for position in range(values.shape[-1]):
        total = _mixed(total ^ values[..., position])
    return total


def _mixed(values: np.ndarray) -> np.ndarray:
    """A bijection of uint64 that spreads every bit upwards (Knuth's multiplicative hash, then a shift)."""
    values = values * np.uint64(0x9E3779B97F4A7C15)
    return values ^ (values >> np.uint64(29))
