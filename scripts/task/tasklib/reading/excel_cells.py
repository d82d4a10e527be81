"""What the reader of workbooks does not tell of a sheet in .xlsx: formulas without a value, how far the sheet reaches.

Cells are found by their XML as ECMA-376 has it, part 1, 18.3.1.4: <c r="B7" t="e"><f>1/0</f><v>#DIV/0!</v></c>.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

CHUNK_BYTES = 1 << 20
_CELL = rb'<(?:\w+:)?c\s[^<>]*?\br="([A-Z]{1,3})(\d{1,7})"'
_FORMULA = rb"<(?:\w+:)?f\b[^<>]*(?:/>|>[^<]*</(?:\w+:)?f>)"
_FILLED = re.compile(_CELL + rb"[^<>]*(?<!/)>(?!</(?:\w+:)?c>)")  # an empty cell may be written as <c …></c>, too
_ERROR = re.compile(_CELL + rb'[^<>]*\bt="e"[^<>]*>(?:' + _FORMULA + rb")?<(?:\w+:)?v>([^<]*)")
# The result of a formula may be an empty text, but then the cell has a type. Without one it was never calculated.
_NOT_CALCULATED = re.compile(
    _CELL + rb"(?![^<>]*\bt=)[^<>]*>" + _FORMULA + rb"(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?</(?:\w+:)?c>"
)


@dataclass
class Cells:
    """`faults`: row -> (column, what is wrong) of formulas without a value; the last row and column with a filled cell.
    All are counted from 1."""

    faults: dict[int, list[tuple[int, str]]] = field(default_factory=dict)
    last_row: int = 0
    last_column: int = 0

    def fault(self, letters: bytes, row: bytes, message: str) -> None:
        self.faults.setdefault(int(row), []).append((column_of(letters), message))


def of_sheet(path: Path, sheet: str) -> Cells:
    """The cells of one sheet. Nothing is told of other formats than .xlsx, and of parts that are damaged."""
    cells = Cells()
    try:
        for xml in _chunks(path, sheet):
            if filled := _FILLED.findall(xml):
                cells.last_row = max(cells.last_row, int(filled[-1][1]))
                cells.last_column = max(
                    cells.last_column, *(column_of(letters) for letters in {at for at, _ in filled})
                )
            for letters, row, text in _ERROR.findall(xml):
                cells.fault(letters, row, f"the formula gave {text.decode()}")
            for letters, row in _NOT_CALCULATED.findall(xml):
                cells.fault(letters, row, "the formula was never calculated")
    except (zipfile.BadZipFile, zlib.error, ElementTree.ParseError, ValueError, NotImplementedError, EOFError):
        pass  # the reader of workbooks names what is damaged
    return cells


def column_of(letters: bytes) -> int:
    """A is 1, Z 26, AA 27."""
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number


def name_of(column: int) -> str:
    """1 is A, 26 Z, 27 AA."""
    letters = ""
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def _chunks(path: Path, sheet: str) -> Iterator[bytes]:
    """The XML of a sheet in pieces that end between two cells."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        name = _part(archive, sheet)
        if name not in archive.namelist():
            return
        with archive.open(name) as stream:
            rest = b""
            while chunk := stream.read(CHUNK_BYTES):
                xml = rest + chunk
                cut = max(0, xml.rfind(b"<", 0, max(0, xml.rfind(b' r="'))))
                rest = xml[cut:]
                yield xml[:cut]
            yield rest


def _part(archive: zipfile.ZipFile, sheet: str) -> str | None:
    """The name of the part that holds a sheet, found by the workbook's relations."""
    names = archive.namelist()
    if not {"xl/workbook.xml", "xl/_rels/workbook.xml.rels"} <= set(names):
        return None
    workbook = ElementTree.fromstring(archive.read("xl/workbook.xml"))
    relations = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))
    targets = {relation.get("Id"): relation.get("Target", "") for relation in relations}
    for element in workbook.findall(".//{*}sheet"):
        if element.get("name") == sheet:
            relation = next((value for key, value in element.attrib.items() if key.endswith("}id")), None)
            target = targets.get(relation, "")
            return target[1:] if target.startswith("/") else f"xl/{target}"
    return None
