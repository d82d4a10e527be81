"""Names that a text should hold: whether one occurs, and where it nearly does. Plain functions."""

from __future__ import annotations

import difflib
import unicodedata

from tasklib.data.answers import Fault

MIN_ALIKE = 0.5  # of the name's characters, so that a hint is worth reading


def folded(text: str) -> str:
    """The form in which names are compared: width and case do not count, nor does outer white space."""
    return unicodedata.normalize("NFKC", text).casefold().strip()


def occurs(name: str, text: str) -> bool:
    return folded(name) in folded(text)


def position(name: str, text: str) -> int:
    """Where the name first occurs in the folded text; behind its end where it does not."""
    place = folded(text).find(folded(name))
    return place if place >= 0 else len(text)


def nearest(name: str, text: str) -> str | None:
    """The part of the text that shares the longest run of characters with the name, as long as the name; None where
    less than half of the name is shared."""
    run = difflib.SequenceMatcher(None, text, name, autojunk=False).find_longest_match()
    if run.size < max(1, MIN_ALIKE * len(name)):
        return None
    start = max(0, run.a - run.b)
    return text[start : start + len(name)].strip()


def require_in(text: str, name: str, role: str) -> list[Fault]:
    """A fault where the name does not occur in the text."""
    if occurs(name, text):
        return []
    found = nearest(name, text)
    hint = f"the nearest is {found!r}: correct one of the two" if found else "correct the row"
    hint += "; names of aspects that texts do not say: task.mention: free"
    return [Fault("entity_not_in_text", f"{name[:40]!r} does not occur in the text", role, hint)]
