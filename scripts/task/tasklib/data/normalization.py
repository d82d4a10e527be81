"""Declared steps of `data.normalize` that change texts before they are trained, evaluated or predicted.

Nothing here is done unless the definition names it: a step changes the task, and whoever calls the model must know it.
"""

from __future__ import annotations

import difflib
import functools
import unicodedata
from collections.abc import Callable, Sequence

# Full-width forms of ASCII (U+FF01 to U+FF5E) and the ideographic space: half-width ones, and nothing else.
_HALFWIDTH = {0xFF01 + i: 0x21 + i for i in range(0x5E)} | {0x3000: 0x20}


def applied(text: str, steps: Sequence[str]) -> str:
    """The text after each step in turn. A step is one of schema.NORMALIZE_STEPS."""
    for step in steps:
        text = _step(step)(text)
    return text


def with_offsets(text: str, steps: Sequence[str], offsets: Sequence[int]) -> tuple[str, list[int]]:
    """The text after each step, and where each of these boundaries (0 to len(text)) stands in it then.

    The whole text is converted, as prediction does, and not the parts between the boundaries: OpenCC chooses
    characters by phrases. A boundary follows what stands before it; where the conversion joined both sides of it, it
    goes to the nearest place that an alignment of old and new text gives.
    """
    places = list(offsets)
    for step in steps:
        convert = _step(step)
        new = convert(text)
        places = places if new == text else [_moved(convert, text, new, place) for place in places]
        text = new
    return text, places


def _moved(convert: Callable[[str], str], old: str, new: str, place: int) -> int:
    before, behind = convert(old[:place]), convert(old[place:])
    if before + behind == new:
        return len(before)
    for tag, old_start, old_end, new_start, new_end in _alignment(old, new):
        if old_start <= place <= old_end:
            if tag == "equal":
                return new_start + place - old_start
            share = (place - old_start) / max(old_end - old_start, 1)
            return new_start + round(share * (new_end - new_start))
    return len(new)


@functools.lru_cache(maxsize=8)
def _alignment(old: str, new: str) -> list[tuple[str, int, int, int, int]]:
    return difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()


@functools.cache
def _step(name: str) -> Callable[[str], str]:
    if name == "nfkc":
        return functools.partial(unicodedata.normalize, "NFKC")
    if name == "halfwidth":
        return lambda text: text.translate(_HALFWIDTH)
    import opencc

    return opencc.OpenCC(name.removeprefix("opencc_")).convert
