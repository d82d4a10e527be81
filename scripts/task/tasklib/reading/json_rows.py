"""JSON rows: one object a line, one array of objects, or a stream of objects over several lines each."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tasklib.reading import encodings
from tasklib.reading.encodings import BadByte
from tasklib.reading.records import Remark, Row
from tasklib.summary import Problem

HEAD_CHARACTERS = 1 << 16
CHUNK_CHARACTERS = 1 << 20
MAX_ELEMENT_CHARACTERS = 1 << 25  # beyond this a missing brace is likelier than a row
LONGEST_TOKEN = 16  # characters that the parser looks at as one: -Infinity, a pair of escaped surrogates
KEPT_CHARACTERS = 64  # of the text before the place of reading: the indentation of an element stands there
_WHITE = re.compile(r"[ \t\r\n\ufeff]*")
_WHITE_OR_NUL = re.compile(r"[ \t\r\n\ufeff\x00]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path, shown: str, encoding: str, errors: str) -> Iterator[Row | Problem | Remark]:
    """Rows of a JSON file, whichever of the three forms it has. Of an array or a stream no more is held in memory than
    one chunk or one element, whichever is longer."""
    with encodings.open_text(path, encoding, errors) as stream:
        head = stream.read(HEAD_CHARACTERS).lstrip("\ufeff \t\r\n")
        stream.seek(0)
        read = _read_elements if _is_array(head) or _opens_only(head) else _read_lines
        yield from read(stream, path, shown, encoding)


def _is_array(head: str) -> bool:
    """Whether the file is one array; not where its first line alone is one and an object follows: a row in vain."""
    if not head.startswith("["):
        return False
    first, *rest = re.split(r"[\r\n]+\s*", head, maxsplit=1)
    return not (rest and rest[0].startswith("{") and _is_whole(first))


def _opens_only(head: str) -> bool:
    """Whether the first line begins an object that later lines end (`{` or `{"text": "…",`), and is not a broken row
    above whole ones."""
    first, *others = re.split(r"[\r\n]+", head)
    if not first.startswith("{"):
        return False
    if not others and len(head) >= HEAD_CHARACTERS // 2:
        return True  # a line so long may be all objects of the file: they are read one by one
    try:
        _PLAIN.raw_decode(first)
        return False
    except (ValueError, RecursionError) as error:
        at_end = isinstance(error, json.JSONDecodeError) and error.pos >= len(first.rstrip()) - 1
    if not at_end and not first.rstrip().endswith(("{", "[", ",")):
        return False
    return not any(line.startswith('{"') and _is_whole(line) for line in others[:20])


def _is_whole(line: str) -> bool:
    try:
        return not line[_PLAIN.raw_decode(line)[1] :].strip()
    except (ValueError, RecursionError):
        return False


def _read_lines(stream: IO[str], path: Path, shown: str, encoding: str) -> Iterator[Row | Problem]:
    decode = _DECODER.raw_decode
    for number, line in enumerate(stream, start=1):
        if not line.isascii() and (bad := encodings.bad_byte(line, encoding)):
            problem, whole_file = encoding_problem(path, shown, encoding, number, bad)
            yield problem
            if whole_file:
                return
            continue
        text = line.strip()
        if not text:
            continue
        if text[0] == "\ufeff":
            text = text.lstrip("\ufeff")  # a mark where one file was joined to another
        try:
            value, end = decode(text)
            if end != len(text):
                raise json.JSONDecodeError("Extra data", text, end)
        except (ValueError, RecursionError) as error:  # json.JSONDecodeError is a ValueError
            yield _line_problem(text, shown, number, error)
            continue
        if type(value) is not dict:
            yield _not_an_object(value, shown, number)
        elif "\\u" in text and _SURROGATE.search(text) and (problem := half_pair(value, shown, number)):
            yield problem
        else:
            yield Row(value, shown, number)


def _line_problem(text: str, shown: str, line: int, error: Exception) -> Problem:
    """Why one line is no row: padding, cut off, two rows run together, or what the parser says."""
    if text.endswith("\x00"):
        return nul_padding(text, shown, line)
    if isinstance(error, json.JSONDecodeError):
        if error.msg == "Extra data" and text[error.pos :].lstrip(", \t").startswith("{"):
            second = text.index("{", error.pos) + 1
            message = f"two rows run together: the second begins at column {second}"
            return Problem(code="concatenated", message=message, file=shown, line=line, hint="put one object on a line")
        if error.msg == "Extra data" and text[error.pos :].strip() == ",":
            message, hint = "a comma stands behind the object", "remove it, or put all rows into one array: [ … ]"
            return Problem(code="unparsable", message=message, file=shown, line=line, hint=hint)
        if error.msg.startswith("Unterminated string") or error.pos >= len(text):
            return _truncated(f"the row is cut off: {error.msg} at column {error.colno}", shown, line)
        if re.match(r"\{\s*'", text):
            message = f"{error.msg} at column {error.colno}"
            hint = "this is how Python prints a dict, not JSON: write the rows with json.dumps"
            return Problem(code="unparsable", message=message, file=shown, line=line, hint=hint)
    return _unparsable(shown, line, error)


class _Window:
    """The part of a text stream that is being parsed; it grows at the end and is forgotten at the front."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream, self.text, self.position, self.line, self.ended = stream, "", 0, 1, False

    def grow(self) -> bool:
        more = self.stream.read(max(CHUNK_CHARACTERS, len(self.text) - self.position))
        while more.endswith("\r") and (behind := self.stream.read(1)):
            more += behind  # the two characters of a line end stay together
        forgotten = max(0, self.position - KEPT_CHARACTERS)
        self.text, self.position = self.text[forgotten:] + more, self.position - forgotten
        self.ended = not more
        return bool(more)

    def lines_to(self, position: int) -> int:
        """Line ends between here and `position`: LF, CR LF or CR, as an editor counts them."""
        text, start = self.text, self.position
        n_lines = text.count("\n", start, position)
        if text.find("\r", start, position) >= 0:
            n_lines += text.count("\r", start, position) - text.count("\r\n", start, position + 1)
        return n_lines

    def move_to(self, position: int) -> None:
        self.line += self.lines_to(position)
        self.position = position

    def skip(self, white: re.Pattern[str] = _WHITE) -> str:
        """Moves over white space; the next character, or "" at the end."""
        while True:
            self.move_to(white.match(self.text, self.position).end())
            if self.position < len(self.text) or not self.grow():
                return self.text[self.position : self.position + 1]

    def take(self, char: str) -> bool:
        """Moves over white space, and over `char` where it stands next."""
        found = self.skip() == char
        self.position += found
        return found

    def before(self) -> str | None:
        """What stands before this place on its line; None where that is long."""
        start = max(0, self.position - KEPT_CHARACTERS)
        text = self.text[start : self.position]
        at = max(text.rfind("\n"), text.rfind("\r")) + 1
        return text[at:] if at or (start == 0 and len(text) < KEPT_CHARACTERS) else None


def _read_elements(stream: IO[str], path: Path, shown: str, encoding: str) -> Iterator[Row | Problem]:
    """Element by element, so that each has its line and a broken one is named."""
    window = _Window(stream)
    in_array = window.take("[")
    while (char := window.skip()) and not (in_array and char == "]"):
        if char == "\x00":
            yield nul_padding(char, shown, window.line)
            if not window.skip(_WHITE_OR_NUL):
                return
            continue
        line, before = window.line, window.before()
        value, raw, error = _element(window, _DECODER)
        if error:
            problem = _element_problem(window, shown, line, before, error)
            resumed = _skip_element(window, before)
            yield problem if resumed else _read_no_further(problem)
            if not resumed:
                return
            continue
        if not raw.isascii() and encodings.bad_byte(raw, encoding):
            problem, whole_file = _bad_byte_in(raw, path, shown, line, before, encoding)
            yield problem
            if whole_file:
                return
        elif type(value) is not dict:
            yield _not_an_object(value, shown, line)
        else:
            has_halves = "\\u" in raw and _SURROGATE.search(raw)
            yield (has_halves and half_pair(value, shown, line)) or Row(value, shown, line)
        if in_array and (problem := _comma_missing(window, shown)):
            resumed = window.skip() == "{" or _next_line_with_object(window, before)
            yield problem if resumed else _read_no_further(problem)
            if not resumed:
                return
    if in_array and char != "]":
        yield _truncated("the array is not closed", shown, window.line)
    elif in_array:
        window.move_to(window.position + 1)
        if window.skip():
            message, hint = "something follows the end of the array", "put all rows into one array"
            yield Problem(code="unparsable", message=message, file=shown, line=window.line, hint=hint)


def _element(window: _Window, decoder: json.JSONDecoder) -> tuple[Any, str, Exception | None]:
    """The value at the window's position, read on until it is whole, and its text; or why it is none."""
    while True:
        try:
            value, end = decoder.raw_decode(window.text, window.position)
            margin = 0 if type(value) is dict else LONGEST_TOKEN  # a number may go on: `12`, then `e5`
            if end + margin < len(window.text) or window.ended:
                raw = window.text[window.position : end]
                window.move_to(end)
                return value, raw, None
        except json.JSONDecodeError as error:
            cut = error.msg.startswith("Unterminated") or error.pos >= len(window.text) - LONGEST_TOKEN
            if not cut or window.ended:
                return None, "", error
        except (ValueError, RecursionError) as error:
            return None, "", error
        if len(window.text) - window.position > MAX_ELEMENT_CHARACTERS:
            return None, "", _TooLong(f"one row goes on for more than {MAX_ELEMENT_CHARACTERS:,} characters")
        window.grow()


def _comma_missing(window: _Window, shown: str) -> Problem | None:
    """Moves over the comma behind an element of an array."""
    if window.take(",") or window.skip() in ("", "]"):
        return None
    message, hint = "expected ',' or ']' after an element", "separate the objects by commas"
    return Problem(code="unparsable", message=message, file=shown, line=window.line, hint=hint)


def _element_problem(window: _Window, shown: str, line: int, before: str | None, error: Exception) -> Problem:
    if not isinstance(error, json.JSONDecodeError):
        return _unparsable(shown, line, error)
    at = line + window.lines_to(error.pos)
    start = max(window.text.rfind("\n", 0, error.pos), window.text.rfind("\r", 0, error.pos)) + 1
    column = error.pos - (window.position if before is None and at == line else start) + 1
    if window.ended and (error.msg.startswith("Unterminated") or not window.text[error.pos :].strip()):
        return _truncated(f"the row is cut off: {error.msg} at column {column}", shown, line)
    if at > line and column == 1 + len(before or "") and window.text[error.pos] == "{":
        return _truncated(f"the row is cut off: another one begins on line {at}", shown, line)
    hint = "the row is broken, or a quote or comma is missing before this place"
    of = " of the row" if before is None and at == line else ""
    return Problem(code="unparsable", message=f"{error.msg} at column {column}{of}", file=shown, line=at, hint=hint)


def _skip_element(window: _Window, before: str | None) -> bool:
    """Moves to the element behind a broken one: behind it where it is JSON all the same (a key twice, NaN), otherwise
    to the next line that begins an object at the same depth. False where that can only be guessed."""
    _, _, error = _element(window, _PLAIN)
    if error is None:
        window.take(",")
        return True
    return _next_line_with_object(window, before)


def whole_value(text: str, shown: str) -> Any:
    """The one value of a file that is read at once, or the Problem that keeps it from being JSON."""
    text = text.lstrip("\ufeff")
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        if not isinstance(error, json.JSONDecodeError):
            return _unparsable(shown, 1, error)
        end = text.rstrip()
        if error.msg.startswith("Unterminated string") or (
            error.pos >= len(end) - LONGEST_TOKEN and not end.endswith(("}", "]"))
        ):
            return _truncated(f"the file is cut off: {error.msg} at column {error.colno}", shown, error.lineno)
        return _unparsable(shown, error.lineno, error)


def _next_line_with_object(window: _Window, before: str | None) -> bool:
    """Moves to the next object that begins a line, or stands behind `},` there. False where the elements do
    not begin lines, or no more of them does."""
    if before is None or before.strip() not in ("", "[", "},"):
        return False
    indent = before[: len(before) - len(before.lstrip())]
    start = re.compile(rf"[\r\n]{re.escape(indent)}(?:\}}[ \t]*,[ \t]*)?\{{")
    while True:
        if found := start.search(window.text, window.position + 1):
            window.move_to(found.end() - 1)
            return True
        window.move_to(max(window.position, len(window.text) - KEPT_CHARACTERS - len(indent)))
        if not window.grow():
            return False


def _bad_byte_in(
    raw: str, path: Path, shown: str, line: int, before: str | None, encoding: str
) -> tuple[Problem, bool]:
    """The problem of a byte in the text of an element, placed in its own line, and whether the whole file has another
    encoding."""
    lines = re.split(r"\r\n|\r|\n", raw)
    number = next(number for number, text in enumerate(lines) if encodings.bad_byte(text, encoding))
    bad = encodings.bad_byte((before or "") + lines[0] if number == 0 else lines[number], encoding)
    of = "row" if number == 0 and before is None else "line"
    return encoding_problem(path, shown, encoding, line + number, bad, of)


def half_pair(value: dict[str, Any], shown: str, line: int) -> Problem | None:
    """Half of a surrogate pair, written as an escape: no text, and no model can read it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
        return None
    except RecursionError as error:
        return _unparsable(shown, line, error)
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
    message, hint = f"{half} is half of a surrogate pair", "an emoji was cut in two: remove it, or export again"
    return Problem(code="lone_surrogate", message=message, file=shown, line=line, hint=hint)


def encoding_problem(
    path: Path, shown: str, encoding: str, line: int, bad: BadByte, of: str = "line"
) -> tuple[Problem, bool]:
    """The problem of a byte that cannot be decoded, and whether the whole file has another encoding."""
    detected = encodings.detect(path).encoding
    other = detected if detected not in (None, encoding) else None
    message = f"byte {bad.position} of the {of} is 0x{bad.byte:02x}: not {encoding.upper()}"
    if other:
        hint = f"the whole file reads as {other}: write `encoding: {other}` for it in data.files, or save it as UTF-8"
    elif bad.is_half:
        message += ", but half of an emoji (CESU-8, as old MySQL and Java write it)"
        hint = "--fix writes a copy in which the halves are joined"
    else:
        hint = "the file mixes encodings: correct this row, or export it again as UTF-8 (in Excel: CSV UTF-8)"
    code = "not_utf8" if encoding == "utf-8" else "not_decodable"
    return Problem(code=code, message=message, file=shown, line=line, hint=hint), other is not None


def nul_padding(text: str, shown: str, line: int) -> Problem:
    """The problem of a line that ends in NUL bytes, or is nothing else."""
    message = "the line ends in NUL bytes" if text.strip("\x00") else "the line is nothing but NUL bytes"
    hint = "the disk or a copy cut the file short: copy or export it again"
    return Problem(code="nul_padding", message=message, file=shown, line=line, hint=hint)


def _truncated(message: str, shown: str, line: int) -> Problem:
    hint = "the file may be truncated: export or copy it again"
    return Problem(code="truncated", message=message, file=shown, line=line, hint=hint)


def _read_no_further(problem: Problem) -> Problem:
    if problem.code == "truncated":
        return problem
    return dataclasses.replace(problem, hint=f"{problem.hint}; rows behind this place were not read")


def _not_an_object(value: Any, shown: str, line: int) -> Problem:
    message, hint = f"the row is {type(value).__name__}, not an object", 'write {"column": "value", …}'
    return Problem(code="not_an_object", message=message, file=shown, line=line, hint=hint)


def _unparsable(shown: str, line: int, error: Exception) -> Problem:
    if isinstance(error, _KeyTwice):
        hint = "rename one of the two: which value counts cannot be known"
        return Problem(code="duplicate_key", message=str(error), file=shown, line=line, hint=hint)
    if isinstance(error, _NoNumber):
        hint = "write null, or leave the row out"
        return Problem(code="nan_literal", message=str(error), file=shown, line=line, hint=hint)
    if isinstance(error, _TooLong):
        hint = "a quote or brace may be missing; if the rows stand in a list inside one object, give that list alone"
        return Problem(code="unparsable", message=str(error), file=shown, line=line, hint=hint)
    is_syntax = isinstance(error, json.JSONDecodeError)
    message = f"{error.msg} at column {error.colno}" if is_syntax else str(error)
    hint = "the row is broken: look before this place for a missing quote or comma"
    return Problem(code="unparsable", message=message, file=shown, line=line, hint=hint)


class _KeyTwice(ValueError):
    """A key stands twice in one object."""


class _TooLong(ValueError):
    """No end of a row is in sight."""


class _NoNumber(ValueError):
    """NaN and Infinity are Python's, not JSON's."""


def _checked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise _KeyTwice(f"key {twice!r} stands twice in one object")
    return result


def _refuse_constant(name: str) -> Any:
    raise _NoNumber(f"{name} is not JSON")


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise _NoNumber(f"{digits[:40]} is too large for a number")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_checked_object, parse_constant=_refuse_constant, parse_float=_finite)
_PLAIN = json.JSONDecoder()
