"""`prompt.shorten`: the longest part of a text with which its row fits, whole characters, with a mark at the cut."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Rule = Literal["keep_start", "keep_end", "keep_both"]
Span = tuple[int, int]  # first character and the one after the last
MARK = "…"  # stands where something was cut


def longest_fitting(
    tokenizer: Any,
    texts: Sequence[str],
    excess: Sequence[int],
    rule: Rule,
    tokens_over: Callable[[list[tuple[int, str]]], list[int]],
) -> list[str | None]:
    """For each text its longest cut version that fits, None where not even `MARK` alone does.

    `excess[i]` is how many tokens row i has too many with its whole text; `tokens_over([(i, text), …])` says the same
    of cut texts, 0 or less where they fit. It is asked in rounds, all undecided rows at once, so that it can tokenize
    in batches. A cut falls between two tokens of the text; two or three rounds are the rule.
    """
    spans = _token_spans(tokenizer, texts)
    searches = [
        _Search(text, own, n_kept=max(0, len(own) - more - 1), too_many=len(own), rule=rule)
        for text, own, more in zip(texts, spans, excess, strict=True)
    ]
    undecided = list(range(len(searches)))
    while undecided:
        over = tokens_over([(i, searches[i].candidate()) for i in undecided])
        undecided = [i for i, n_over in zip(undecided, over, strict=True) if not searches[i].learn(n_over)]
    return [search.best for search in searches]


def cut(text: str, spans: Sequence[Span], n_kept: int, rule: Rule) -> str:
    """`n_kept` of the text's tokens (`spans`, in order), and the mark where the others were."""
    n_start = {"keep_start": n_kept, "keep_end": 0, "keep_both": (n_kept + 1) // 2}[rule]
    n_end = n_kept - n_start
    start = _before(text, spans[n_start - 1][1]) if n_start else 0
    end = _after(text, max(start, spans[len(spans) - n_end][0])) if n_end else len(text)
    return text[:start] + MARK + text[end:]


@dataclass
class _Search:
    """How many tokens of one text may stay: more than those of `best`, fewer than `too_many`."""

    text: str
    spans: list[Span]
    n_kept: int  # tried next
    too_many: int
    rule: Rule
    fits: int = -1
    best: str | None = None

    def candidate(self) -> str:
        return cut(self.text, self.spans, self.n_kept, self.rule)

    def learn(self, n_over: int) -> bool:
        """Takes in how far the candidate is off, and chooses the next one. Returns whether the best one is known."""
        if n_over <= 0:
            self.fits, self.best = self.n_kept, self.candidate()
        else:
            self.too_many = self.n_kept
        aim = self.n_kept - n_over
        between = self.fits < aim < self.too_many
        self.n_kept = aim if between else (self.fits + self.too_many) // 2
        return n_over == 0 or self.too_many - self.fits <= 1


def _token_spans(tokenizer: Any, texts: Sequence[str]) -> list[list[Span]]:
    """Where each token of each text stands; single characters where the tokenizer cannot say."""
    if not tokenizer.is_fast:
        return [[(i, i + 1) for i in range(len(text))] for text in texts]
    return tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]


def _before(text: str, position: int) -> int:
    """The nearest boundary between characters, as people see them, at or before `position`."""
    while _is_inside(text, position):
        position -= 1
    return position


def _after(text: str, position: int) -> int:
    while _is_inside(text, position):
        position += 1
    return position


def _is_inside(text: str, position: int) -> bool:
    """Whether `position` splits a letter from its accent, an emoji sequence or a flag (the common cases of UAX 29)."""
    if not 0 < position < len(text):
        return False
    last, following = text[position - 1], text[position]
    if _is_flag_half(last) and _is_flag_half(following):
        n_halves = position - next((i for i in range(position, 0, -1) if not _is_flag_half(text[i - 1])), 0)
        return n_halves % 2 == 1
    is_modifier = unicodedata.category(following)[0] == "M" or "\U0001f3fb" <= following <= "\U0001f3ff"
    return is_modifier or "\u200d" in (last, following)


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
