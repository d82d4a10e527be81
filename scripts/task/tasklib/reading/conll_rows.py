"""CoNLL files: a token and its tag on each line, a blank line between sentences.

王 B-PER
小 I-PER
明 I-PER
到 O

Token first, tag last, parted by tabs or by spaces; columns between them are passed over. Rows have the columns `tokens`
and `tags`. Lines that begin with -DOCSTART- or with "# " and have no tag are comments. In the character-level files of
golden-horse (Weibo NER, Peng & Dredze 2015) a digit behind each character says its place in its word (科0 技1): where
every token of a file's beginning is so, the digits are taken off, and a remark says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tasklib.reading import encodings, table_rows
from tasklib.reading.records import Remark, Row
from tasklib.summary import Problem

TAG = re.compile(r"O|[BIESMLU]-(?:[!-~]{1,40}|\S{1,8})")  # a longer one is no name of a type
_WITH_PLACE = re.compile(r"(\S)\d{1,2}")
LEAST_LINES = 5  # fewer say too little
LOOKED_AT = 400  # lines of the beginning that decide about the digits


def is_conll(head: str) -> bool:
    """Whether a file that begins so is certainly one: nearly every filled line is a token and a tag, with one number of
    columns, and some tag is that of an entity."""
    lines = [line for line in head.lstrip("\ufeff").splitlines()[:-1] if line.strip() and not _is_comment(line)]
    found = [cells for line in lines if (cells := _cells(line)) and TAG.fullmatch(cells[-1])]
    if len(lines) < LEAST_LINES or len(found) < 0.9 * len(lines) or not any(cells[-1] != "O" for cells in found):
        return False
    one_width = len({len(cells) for cells in found}) == 1
    return one_width and len(found[0]) <= 5 and sum(len(cells[0]) for cells in found) <= 15 * len(found)


def read_conll(
    path: Path, shown: str, encoding: str, errors: str = encodings.REPORT
) -> Iterator[Row | Problem | Remark]:
    """One row for each sentence, at its first line. A line that cannot be read costs its own sentence alone."""
    takes_off = _has_places(path, encoding)
    if takes_off:
        message = "each token is a character and its place in its word (科0): the digits are taken off"
        hint = "tokens that really end in a digit are read wrong: write the file anew without the places"
        yield Remark(Problem(code="token_places", message=message, file=shown, line=1, hint=hint))
    joined = _joined_lines(path, encoding) if errors == encodings.MEND else {}
    for line, text in joined.items():
        if text is not None:
            message = f"lines {line} and {line + 1} were the halves of {text[0]}: one token now"
            yield Remark(Problem(code="joined_halves", message=message, file=shown, line=line, hint="keep the copy"))
    sentence: list[Row | Problem] = []
    for item in table_rows.read_lines(path, shown, encoding, errors, keep_blank=True):
        if item.line in joined:
            text = joined[item.line]
            if text is not None:
                sentence.append(Row({"text": text}, shown, item.line))
        elif isinstance(item, Problem) and item.line is None:
            yield item
        elif isinstance(item, Row) and (_is_blank(item.values["text"]) or _is_comment(item.values["text"])):
            yield from _sentence(sentence, shown, takes_off)
            sentence = []
        else:
            sentence.append(item)
    yield from _sentence(sentence, shown, takes_off)


def _joined_lines(path: Path, encoding: str) -> dict[int, str | None]:
    """Emoji whose halves (CESU-8) are tokens of two lines, as in golden-horse: the number of the first line -> the line
    of the whole emoji with the first tag; that of the second -> None. They stay apart where the second tag does not go
    on with the first."""
    found: dict[int, str | None] = {}
    with encodings.open_text(path, encodings.actual(path, encoding)) as stream:
        before = ""
        for number, line in enumerate(stream, start=1):
            emoji = encodings.join_halves(before[:3], line[:3])
            one, other = before[3:].strip(), line[3:].strip()
            if emoji and other in (one, one.replace("B-", "I-")):
                found |= {number - 1: emoji + before[3:].rstrip("\r\n"), number: None}
                before = ""
            else:
                before = line
    return found


def _is_blank(line: str) -> bool:
    return not line.strip("\ufeff").strip()  # some tools write a tab or a space there


def _is_comment(line: str) -> bool:
    return line.startswith("-DOCSTART-") or (line.startswith("# ") and not TAG.fullmatch(line.split()[-1]))


def _cells(line: str) -> list[str] | None:
    """Token, further columns, tag; a line that is a space and a tag has a space as its token. None without two."""
    line = line.lstrip("\ufeff")
    cells = line.split("\t") if "\t" in line.strip() else line.split()
    if len(cells) == 1 and line[:1].isspace():
        cells = [line[0], cells[0]]
    return [cell if number == 0 else cell.strip() for number, cell in enumerate(cells)] if len(cells) > 1 else None


def _has_places(path: Path, encoding: str) -> bool:
    with encodings.open_text(path, encodings.actual(path, encoding)) as stream:
        lines = [line for _, line in zip(range(LOOKED_AT), stream, strict=False)]
    tokens = [cells[0] for line in lines if (cells := _cells(line.rstrip("\r\n")))]
    return len(tokens) >= LEAST_LINES and all(_WITH_PLACE.fullmatch(token) for token in tokens)


def _sentence(lines: list[Row | Problem], shown: str, takes_off: bool) -> Iterator[Row | Problem]:
    """The row of one sentence, or every fault of its lines."""
    if not lines:
        return
    problems = [item for item in lines if isinstance(item, Problem)]
    cells = [(item.line, _cells(item.values["text"])) for item in lines if isinstance(item, Row)]
    width = next((len(found) for _, found in cells if found), 2)
    problems += [fault for line, found in cells if (fault := _fault(found, width, shown, line))]
    if problems:
        yield from problems
        return
    tokens = [found[0] for _, found in cells]
    if takes_off:
        tokens = [match[1] if (match := _WITH_PLACE.fullmatch(token)) else token for token in tokens]
    item_lines = tuple(line for line, _ in cells)
    yield Row({"tokens": tokens, "tags": [found[-1] for _, found in cells]}, shown, item_lines[0], item_lines)


def _fault(cells: list[str] | None, width: int, shown: str, line: int) -> Problem | None:
    if cells is None:
        message, hint = "this line has no tag", "write token and tag, or a blank line between two sentences"
        return Problem(code="missing_tag", message=message, file=shown, line=line, hint=hint)
    if len(cells) != width:
        message = f"{len(cells)} columns, where the sentence begins with {width}"
        hint = "part the columns of a file in one way; a token that holds a space needs tabs"
        return Problem(code="column_count", message=message, file=shown, line=line, hint=hint)
    return None
