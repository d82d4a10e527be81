"""Progress bars on stderr with the time left; a line every ten seconds where nobody watches a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def bar(what: str, total: int, unit: str) -> Iterator[Any]:
    """Yields a tqdm bar: `update(n)` counts done, `set_postfix(loss=…)` shows a value."""
    from tqdm import tqdm

    interval_s = 0.1 if sys.stderr.isatty() else 10.0
    flags = {"mininterval": interval_s, "maxinterval": interval_s, "disable": os.environ.get("RANK", "0") != "0"}
    with tqdm(total=total, desc=what, unit=unit, file=sys.stderr, **flags) as it:  # of several processes one speaks
        yield it


def counted(batches: Iterable[tuple[Sequence[int], Any]], bar: Any) -> Iterator[tuple[Sequence[int], Any]]:
    """The same batches of (positions, values), each counted on the bar when it has been used."""
    for positions, values in batches:
        yield positions, values
        bar.update(len(positions))
