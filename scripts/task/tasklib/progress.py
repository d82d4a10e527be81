"""Progress bars on stderr with the time left; a line every ten seconds where nobody watches a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def bar(what: str, total: int, unit: str) -> Iterator[Any]:
    """Yields a tqdm bar: `update(n)` counts done, `set_postfix(loss=…)` shows a value."""
    from tqdm import tqdm

    interval_s = 0.1 if sys.stderr.isatty() else 10.0
    with tqdm(total=total, desc=what, unit=unit, file=sys.stderr, mininterval=interval_s, maxinterval=interval_s) as it:
        yield it
