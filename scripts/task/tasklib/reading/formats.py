"""What a raw file is: JSON, a table, plain lines, Excel, Parquet, or something that is not read here. Its content says
so, not its name."""

from __future__ import annotations

import re
import struct
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tasklib.reading import encodings
from tasklib.schema import FileSpec
from tasklib.summary import Problem

FORMATS = "JSON, JSON lines, SQuAD, CoNLL, three lines an example, CSV, TSV, plain text lines, Excel, Parquet"
HEAD_BYTES = 1 << 16
# Files that people hand in by mistake: first bytes -> what it is, what to do.
_UNPACK, _AS_CSV, _TEXTS = "unpack it first", "export the table as CSV", "give a file of texts"
FOREIGN = {
    b"\x1f\x8b": ("gzip", "unpack it first (gunzip)"),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", _UNPACK),
    b"Rar!\x1a\x07": ("a RAR archive", _UNPACK),
    b"BZh91AY&SY": ("bzip2", "unpack it first (bunzip2)"),
    b"\xfd7zXZ\x00": ("xz", "unpack it first (unxz)"),
    b"\x28\xb5\x2f\xfd": ("Zstandard", "unpack it first (unzstd)"),
    b"%PDF-": ("a PDF", _AS_CSV),
    b"{\\rtf": ("a rich-text document", _AS_CSV),
    b"SQLite format 3\x00": ("an SQLite database", _AS_CSV),
    b"ARROW1\x00\x00": ("an Arrow file", "save it as Parquet"),
    b"Obj\x01": ("an Avro file", "save it as Parquet"),
    b"\x93NUMPY": ("a NumPy array", "save it as CSV"),
    b"\x89PNG": ("an image", _TEXTS),
    b"\xff\xd8\xff": ("an image", _TEXTS),
    b"\xff\xfe\x00\x00": ("text in UTF-32", "save it as UTF-8"),
    b"version https://git-lfs": ("a Git LFS pointer and not the file itself", "fetch the file (git lfs pull)"),
    **{
        b"\x80" + bytes([protocol]): ("a pickle, which can run code when it is opened", "save it as CSV or Parquet")
        for protocol in (2, 3, 4, 5)
    },
}
MARKUP = {
    r"<\?xml\b": ("an XML file", "open it in Excel and save it as .xlsx or CSV UTF-8"),
    r"<(!doctype html|html|head|meta|body|table)\b": (
        "an HTML page (some systems export tables so, and call them .xls)",
        "open it in Excel and save it as .xlsx or CSV UTF-8",
    ),
}


@dataclass(frozen=True)
class Format:
    """How a file is read: `kind` is json, squad, conll, triplet, table, lines, excel or parquet."""

    kind: str
    delimiter: str | None = None


def file_format(path: Path, shown: str, spec: FileSpec) -> Format | Problem:
    """What the file is, by its first 64 KB; `spec.format` decides where it is given."""
    try:
        if not path.is_file():
            kind = "is a folder" if path.is_dir() else "does not exist"
            hint = "name the files in it" if path.is_dir() else "correct data.files"
            return Problem(code="file_missing", message=f"{shown} {kind}", file=shown, hint=hint)
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        return _format_of(path, shown, spec, head)
    except OSError as error:
        return unreadable(shown, error)


def unreadable(shown: str, error: OSError) -> Problem:
    message, hint = f"{shown} cannot be read: {error.strerror or error}", "check its name and permissions, or copy it"
    return Problem(code="file_missing", message=message, file=shown, hint=hint)


def _format_of(path: Path, shown: str, spec: FileSpec, head: bytes) -> Format | Problem:
    def unknown(message: str, hint: str, field: str | None = None) -> Problem:
        return Problem(code="unknown_format", message=message, file=shown, field=field, hint=hint)

    binary = _binary_format(path, head)
    if isinstance(binary, tuple):
        return unknown(f"{shown} is {binary[0]}, which is not read here", f"{binary[1]}; read are {FORMATS}")
    if binary and spec.format not in (None, binary):
        return unknown(f"{shown} is {binary}, not {spec.format}", "remove `format`", "format")
    if binary:
        return Format(binary)
    if spec.format in ("excel", "parquet"):
        message = f"{shown} is no {spec.format} file, whatever its name says" if head else f"{shown} is empty"
        return unknown(message, "remove `format`, or export it again", "format")
    if spec.delimiter is not None and spec.delimiter in '"\r\n':
        hint = "legal is any other character: ',', ';', '|', a tab"
        message = f"{spec.delimiter!r} cannot separate cells"
        return Problem(code="illegal_value", message=message, file=shown, field="delimiter", hint=hint)
    return _text_format(path, shown, spec)


def _binary_format(path: Path, head: bytes) -> str | tuple[str, str] | None:
    """`excel` or `parquet`; what a foreign file is and what to do; or None for text."""
    if head.startswith(b"PAR1") and (len(head) == 4 or b"\x00" in head):
        return "parquet"
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return "excel"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_format(path)
    if found := next((what for magic, what in FOREIGN.items() if head.startswith(magic)), None):
        return found
    controls = Counter(head.translate(None, bytes([*range(9, 14), *range(27, 256), 0])))
    if len(controls) > 8 and controls.total() * 50 > len(head) and not encodings.marked(head):
        return None if encodings.utf16_order(head) else ("a binary file", _TEXTS)
    return None


def _zip_format(path: Path) -> str | tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, struct.error):
        return "a damaged zip or Excel file", "save or copy it again"
    if any(name.startswith("xl/workbook") or name == "content.xml" for name in names):
        return "excel"
    if "word/document.xml" in names:
        return "a Word document", _AS_CSV
    return "a zip archive", _UNPACK


def _text_format(path: Path, shown: str, spec: FileSpec) -> Format | Problem:
    from tasklib.reading import conll_rows, squad_rows, table_rows, triplet_rows

    with encodings.open_text(path, spec.encoding) as stream:
        text = stream.read(HEAD_BYTES)
    kind = spec.format
    if kind is None:
        start = text.lstrip("\ufeff \t\r\n")[:100]
        for pattern, (what, hint) in MARKUP.items():
            if re.match(pattern, start, re.IGNORECASE) and spec.columns is None:
                message, hint = f"{shown} is {what}, which is not read here", f"{hint}, or write `format: lines`"
                return Problem(code="unknown_format", message=message, file=shown, hint=hint)
        kind = "json" if spec.columns is None and _is_json(text, path.suffix.lower()) else "table"
        kind = "squad" if kind == "json" and squad_rows.is_squad(text) else kind
        if kind == "table" and spec.columns is None and spec.delimiter is None:
            is_conll = conll_rows.is_conll(text)
            kind = "conll" if is_conll else "triplet" if triplet_rows.is_triplets(text) else kind
    if kind != "table":
        return Format(kind)
    return Format("table", spec.delimiter or table_rows.delimiter_of(text, path.suffix.lower(), spec.quoting))


def _is_json(text: str, suffix: str) -> bool:
    """An array, or lines of which at least half begin an object; a lone first row may be broken. A name that says JSON
    decides only where nothing separates cells."""
    if re.match(r"\s*\[\s*([{\[\"\]]|$)", text):
        return True
    lines = [line for line in re.split(r"[\r\n]+", text)[:50] if line.strip("\ufeff \t")]
    objects = [re.match(r"[\s\ufeff]*\{\s*([\"'}]|$)", line) is not None for line in lines]
    if not lines or objects[0] or sum(objects) * 2 >= len(lines):
        return bool(lines)
    return suffix in (".json", ".jsonl", ".ndjson") and re.search(r"[,;|\t]", lines[0]) is None
