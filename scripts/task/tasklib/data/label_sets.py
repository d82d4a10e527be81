"""A closed set of labels: what may stand in one, and which of them a generated text names. Plain functions.

A set is a mapping label -> answer: the name in the data, and what the model writes for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from tasklib.data import answers


def as_mapping(value: Any) -> Any:
    """`[a, b]` means that the model writes the labels as they stand in the data; a number stands for its digits.

    Raises ValueError for a label that stands twice.
    """
    if isinstance(value, list):
        if len(set(map(str, value))) != len(value):
            raise ValueError("a label stands twice")
        value = {str(label): label for label in value}
    if isinstance(value, dict):
        return {name: str(text) if type(text) is int else text for name, text in value.items()}
    return value


def distinct(labels: dict[str, str]) -> dict[str, str]:
    """The labels as they are. Raises ValueError where one is empty or two answers cannot be told apart."""
    cleaned = [answers.fold(answer) for answer in labels.values()]
    if "" in cleaned or "" in (label.strip() for label in labels):
        raise ValueError("a label or its answer is empty")
    if len(set(cleaned)) < len(cleaned):
        same = [answer for answer in labels.values() if cleaned.count(answers.fold(answer)) > 1]
        raise ValueError(
            f"the answers {', '.join(map(repr, same))} cannot be told apart: width, case and outer punctuation do "
            "not count; write other answers, e.g. {'-1': negative, '1': positive}"
        )
    return labels


# A field of Options that holds such a set, with at least two labels.
Labels = Annotated[dict[str, str], BeforeValidator(as_mapping), AfterValidator(distinct), Field(min_length=2)]


def require_known(defined: Collection[str], labels: Mapping[str, str], key: str, of: str) -> None:
    """Raises ValueError where `key` of the options names something that is not among the labels, which `of` holds."""
    if unknown := [label for label in defined if label not in labels]:
        raise ValueError(f"{key}: {unknown[0]!r} is not in {of}; legal: {', '.join(labels)}")


def named_in(text: str, labels: Mapping[str, str]) -> str | None:
    """The label that a generated answer names, or None. Width, case and outer punctuation do not matter.

    An answer that is exactly one of the set wins; otherwise the text must contain exactly one of them, where an
    answer inside a longer one that also occurs (正面 in 不是正面) does not count.
    """
    cleaned = answers.fold(text)
    by_answer = {answers.fold(answer): label for label, answer in labels.items()}
    if cleaned in by_answer:
        return by_answer[cleaned]
    found = answers.longest_occurrences(cleaned, list(by_answer))
    return by_answer[found.pop()] if len(found) == 1 else None
