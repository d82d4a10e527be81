"""Character encodings: reading text without losing a wrong byte, and telling which encoding a file really has."""

from __future__ import annotations

import codecs
import functools
import re
from dataclasses import dataclass
from encodings import utf_8_sig
from pathlib import Path
from typing import IO, NamedTuple

# Name in `data.files` -> Python codec. Taiwan's Windows writes cp950, a superset of Big5.
CODECS = {"utf-8": "utf-8-sig", "utf-16": "utf-16", "big5": "cp950", "gb18030": "gb18030"}
BOMS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
REPORT, MEND = "escape_byte", "join_halves"  # what open_text does with a byte that is no text
HEAD_BYTES = 1 << 16
SAMPLE_CHARACTERS = 20_000
BROKEN_SHARE = 1 / 200  # so many broken characters are damage, more are another encoding
_ESCAPE = 0xDC00  # as PEP 383 does: a byte that is no text becomes a lone surrogate, so the rows around it are read
_ESCAPED = re.compile("[\udc00-\udcff]")
# CESU-8: an emoji as the two halves of a surrogate pair, three bytes each. https://www.unicode.org/reports/tr26/
_HALVES = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]")
_HALVES_BEGUN = re.compile(rb"\xed(?:[\xa0-\xaf](?:[\x80-\xbf](?:\xed[\xb0-\xbf]?)?)?)?\Z")
_HALF_ESCAPED = re.compile("\udced[\udca0-\udcbf][\udc80-\udcbf]")


class BadByte(NamedTuple):
    """A byte that cannot be decoded: its place in the line, counted in bytes from 1, and its value."""

    position: int
    byte: int
    is_half: bool  # it begins half of an emoji, which errors=MEND joins


@dataclass(frozen=True)
class Detected:
    """What the bytes of a file say. `encoding` is None where nothing fits or two readings are equally good."""

    encoding: str | None
    candidates: tuple[str, ...]


def open_text(path: Path, encoding: str, errors: str = REPORT) -> IO[str]:
    """The file as text, line ends untranslated; a byte that cannot be decoded becomes one lone surrogate U+DC00 + byte,
    but with `errors=MEND` the halves of an emoji become the emoji. A byte order mark decides over `encoding`."""
    head = _head(path)
    name = marked(head) or encoding
    codec = CODECS[name]
    if name == "utf-16" and not marked(head):
        codec = "utf-16-be" if head[::2].count(0) > head[1::2].count(0) else "utf-16-le"
    if name == "utf-8" and errors == MEND:
        codec = _JOINING
    return path.open(encoding=codec, errors=REPORT, newline="")


def actual(path: Path, declared: str) -> str:
    """The encoding that `open_text` reads the file in."""
    return marked(_head(path, 4)) or declared


def marked(head: bytes) -> str | None:
    """The encoding that a byte order mark names."""
    return next((name for bom, name in BOMS.items() if head.startswith(bom)), None)


def bad_byte(line: str, encoding: str) -> BadByte | None:
    """The first byte of a line that could not be decoded."""
    try:
        line.encode()
        return None
    except UnicodeEncodeError as error:
        found = _ESCAPED.search(line, error.start)
    if not found:
        return None  # a lone surrogate written as an escape of JSON: the rows are checked for it
    codec = "utf-16-le" if encoding == "utf-16" else CODECS[encoding].removesuffix("-sig")  # both without a mark
    before = line[: found.start()].encode(codec, "replace")
    is_half = encoding == "utf-8" and _HALF_ESCAPED.match(line, found.start()) is not None
    return BadByte(len(before) + 1, ord(found.group()) - _ESCAPE, is_half)


def detect(path: Path) -> Detected:
    """The encoding in which the whole file can be decoded, judged by how common its characters then are.

    A few characters may be broken (BROKEN_SHARE): a damaged row does not make another encoding. What is valid UTF-8 is
    UTF-8: other encodings hardly ever form valid UTF-8 by chance. Of Big5 and GB18030 the one is taken whose Chinese
    characters are mostly of the first, frequent level of its own standard; neither where both or none look like text.
    """
    stat = path.stat()
    return _detect(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _detect(path: Path, size: int, changed_ns: int) -> Detected:
    head = _head(path)
    if known := marked(head) or (utf16_order(head) and "utf-16"):
        return Detected(known, (known,))
    if (text := _sample(path, CODECS["utf-8"])) is not None:
        return Detected("utf-8", ("utf-8",) if text else ("utf-8", "big5", "gb18030"))  # ASCII is valid in all three
    samples = {name: _sample(path, CODECS[name]) for name in ("big5", "gb18030")}
    shares = {name: _common_share(text, name) for name, text in samples.items() if text}
    likely = [name for name in shares if shares[name] >= 0.6]
    best = max(likely, key=shares.__getitem__, default=None)
    clear = best is not None and all(shares[best] - shares[name] > 0.15 for name in likely if name != best)
    return Detected(best if clear else None, tuple(likely or shares))


def utf16_order(head: bytes) -> str | None:
    """`utf-16-le` or `utf-16-be` where bytes without a mark are UTF-16: ASCII characters have a NUL on one side, and so
    read nearly all characters are ASCII or frequent Chinese ones. Text with a stray NUL is no UTF-16."""
    head = head[:4096]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if even == odd or min(even, odd) * 4 > max(even, odd):
        return None
    codec = "utf-16-be" if even > odd else "utf-16-le"
    text = head[: len(head) // 2 * 2].decode(codec, "replace")
    usual = sum(_is_usual(char) or _is_common(char, "big5") or _is_common(char, "gb18030") for char in text)
    return codec if usual >= 0.8 * len(text) else None


def count_halves(path: Path) -> tuple[int, int | None]:
    """How many emoji the file stores as two halves (CESU-8), and the line of the first."""
    n_found, first = 0, None
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if found := len(_HALVES.findall(line)):
                n_found, first = n_found + found, first or number
    return n_found, first


def join_halves(first: str, second: str) -> str | None:
    """The emoji of two halves that `open_text` could not decode, three characters each; None where they are none."""
    if not (_HALF_ESCAPED.fullmatch(first) and _HALF_ESCAPED.fullmatch(second)):
        return None
    halves = _HALVES.fullmatch((first + second).encode("utf-8", "surrogateescape"))
    return _join(halves).decode() if halves else None


def _head(path: Path, n_bytes: int = HEAD_BYTES) -> bytes:
    with path.open("rb") as stream:
        return stream.read(n_bytes)


def _sample(path: Path, codec: str) -> str | None:
    """The first characters of the file that are not ASCII; None where too many are broken. A file that ends
    within a character was cut off and has no other encoding."""
    decoder = codecs.getincrementaldecoder(codec)(REPORT)
    sample, n_characters, n_broken = "", 0, 0
    with path.open("rb") as stream:
        while chunk := stream.read(HEAD_BYTES):
            if chunk.isascii() and not decoder.getstate()[0]:
                continue
            text = re.sub(r"[\x00-\x7f]+", "", decoder.decode(chunk))
            n_characters += len(text)
            n_broken += len(_ESCAPED.findall(text))
            if n_broken > 100 and n_broken > BROKEN_SHARE * n_characters:
                return None
            if len(sample) < SAMPLE_CHARACTERS:
                sample += _ESCAPED.sub("", text)
    return None if n_broken > BROKEN_SHARE * n_characters else sample


def _common_share(text: str, encoding: str) -> float:
    """The share of the Chinese characters that are common ones in an encoding; 0 without any."""
    han = [char for char in text if "\u3400" <= char <= "\u9fff" or "\ue000" <= char <= "\uf8ff"]
    return sum(_is_common(char, encoding) for char in han) / len(han) if han else 0.0


@functools.lru_cache(maxsize=1 << 16)
def _is_common(char: str, encoding: str) -> bool:
    """Whether a character stands in the first level of the encoding's own standard: 5,401 frequent characters of Big5
    (0xA440 to 0xC67E), 3,755 of GB 2312 (rows 16 to 55)."""
    codec, low, high = ("cp950", 0xA440, 0xC67E) if encoding == "big5" else ("gb2312", 0xB0A1, 0xD7F9)
    return low <= int.from_bytes(char.encode(codec, "ignore"), "big") <= high


def _is_usual(char: str) -> bool:
    """ASCII text, Chinese punctuation and kana, full-width forms."""
    return " " <= char <= "~" or char in "\t\r\n" or "\u3000" <= char <= "\u30ff" or "\uff00" <= char <= "\uffef"


def _escape_byte(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    width = 2 if "16" in error.encoding else 1  # UTF-16 goes on at the next pair of bytes
    return chr(_ESCAPE + error.object[error.start]), min(error.start + width, len(error.object))


class _JoiningDecoder(utf_8_sig.IncrementalDecoder):
    """UTF-8 in which the halves of an emoji are joined, also where a chunk of the file ends between them."""

    def _buffer_decode(self, data: bytes, errors: str, final: bool) -> tuple[str, int]:
        begun = None if final else _HALVES_BEGUN.search(data)
        end = begun.start() if begun else len(data)
        joined = _HALVES.sub(_join, data[:end])
        text, used = super()._buffer_decode(joined, errors, final)
        return text, end - (len(joined) - used)


def _join(halves: re.Match[bytes]) -> bytes:
    pair = halves.group().decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass")
    return pair.decode("utf-16-le").encode()


_JOINING = "utf-8-joining"
codecs.register_error(REPORT, _escape_byte)
codecs.register(
    lambda name: (
        codecs.CodecInfo(codecs.utf_8_encode, codecs.utf_8_decode, incrementaldecoder=_JoiningDecoder, name=name)
        if name == _JOINING.replace("-", "_")
        else None
    )
)
