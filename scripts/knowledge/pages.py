"""The pages of references/, taken apart: front matter, headings, links, code spans and blocks, each with its line."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
GENERATED = re.compile(r"<!-- table: .*?<!-- end -->", re.DOTALL)
SPAN = re.compile(r"(~~)?`([^`\n]+)`(?:~~)?")
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]*)\)")
CJK = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
CJK_PER_WORD = 1.6  # Chinese characters that say as much as one English word


@dataclass(frozen=True)
class Span:
    """A piece of inline code. `is_denied`: it is struck out, so what it says must not be so."""

    text: str
    line: int
    is_denied: bool = False


@dataclass(frozen=True)
class Block:
    """A fenced block of `language`."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Page:
    """One Markdown file. `name` is its path below references/."""

    path: Path
    name: str
    text: str

    @property
    def is_index(self) -> bool:
        return self.path.name == "INDEX.md"

    @functools.cached_property
    def front_matter(self) -> dict[str, Any] | None:
        """None where there is none, or what stands there is no mapping."""
        match = re.match(r"---\n(.*?)\n---\n", self.text, re.DOTALL)
        try:
            found = yaml.safe_load(match[1]) if match else None
        except yaml.YAMLError:
            return None
        return found if isinstance(found, dict) else None

    @functools.cached_property
    def body(self) -> str:
        """What a person wrote: without front matter and generated tables; lines stay where they are."""
        blanked = GENERATED.sub(_blank, re.sub(r"\A---\n.*?\n---\n", _blank, self.text, count=1, flags=re.DOTALL))
        return blanked

    @functools.cached_property
    def prose(self) -> str:
        """The body without fenced blocks."""
        return FENCE.sub(_blank, self.body)

    def spans(self) -> list[Span]:
        return [Span(m[2], _line(self.prose, m.start()), bool(m[1])) for m in SPAN.finditer(self.prose)]

    def blocks(self) -> list[Block]:
        return [Block(m[1], m[2], _line(self.body, m.start())) for m in FENCE.finditer(self.body)]

    def links(self) -> list[Span]:
        return [Span(m[2], _line(self.prose, m.start())) for m in LINK.finditer(SPAN.sub("", self.prose))]

    def anchors(self) -> set[str]:
        """What `#…` may name: the headings, as GitHub spells them."""
        return {slug(heading) for heading in re.findall(r"^#{1,6} (.+)$", self.prose, re.MULTILINE)}

    def n_words(self) -> int:
        """English words, with 1.6 Chinese characters counted as one."""
        n_cjk = len(CJK.findall(self.body))
        return round(n_cjk / CJK_PER_WORD) + len(CJK.sub(" ", self.body).split())


def load(folder: Path) -> list[Page]:
    """Every page below `folder`."""
    return [
        Page(path, path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.md"))
    ]


def slug(heading: str) -> str:
    """The anchor of a heading: small letters, no punctuation, hyphens for spaces."""
    plain = LINK.sub(r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def _blank(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
