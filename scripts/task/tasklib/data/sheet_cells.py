"""Cells of a sheet that a person opens in Excel: text must come back as the text that it was."""

from __future__ import annotations

import re
import unicodedata

UNSAFE_START = "'=+-@＝＋－＠.("  # besides digits, currency signs, spaces and control characters
DATE_OR_TRUTH = re.compile(
    r"(true|false|(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\W*\d.*)\Z", re.I | re.S
)


def guard(text: str) -> str:
    """The cell that a spreadsheet shows as this text and does not take for a formula, a number or a date."""
    if not text:
        return text
    category = unicodedata.category(text[0])
    is_unsafe = text[0] in UNSAFE_START or category[0] in "NZC" or category == "Sc" or DATE_OR_TRUTH.match(text)
    return "'" + text if is_unsafe else text


def unguard(cell: str) -> str:
    """The text of a cell. `unguard(guard(text)) == text` for every text."""
    return cell[1:] if cell.startswith("'") else cell
