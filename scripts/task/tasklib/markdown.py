"""Markdown that shows what is in the data literally."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_MARKUP = re.compile(r"[\\`*<|&~$]|\](?=\()|(?<!\w)_|_(?!\w)")  # a_b and [0.1, 0.2] stay readable


def literal(value: object) -> str:
    """Text of one line in which no markup, link or HTML of the data comes alive."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(str(value).split()))


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table; every cell is shown literally."""
    lines = [header, ["---"] * len(header), *rows]
    head, rule, *body = ("| " + " | ".join(map(literal, line)) + " |" for line in lines)
    return "\n".join([head, rule, *body])
