"""Whatever bytes a file holds: reading never raises, never hangs, and names only places that the file has.

Tables and JSON that are legal are read back exactly, however odd their cells.
"""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasklib.reading import encodings, json_rows
from tasklib.reading.records import Remark, Row, read_file
from tasklib.reading.times import posix_seconds
from tasklib.schema import FileSpec
from tasklib.summary import Problem

# 2 seconds for a file of some hundred bytes is a hang. One thousand examples take a few seconds.
FUZZ = settings(max_examples=1000, deadline=2000, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
EXACT = settings(FUZZ, max_examples=300)
NAMES = ("a.csv", "a.tsv", "a.txt", "a.json", "a.jsonl", "a.xlsx", "a.xls", "a.parquet", "a.conll")
LINE_ENDS = ("\n", "\r\n", "\r")
ENCODINGS = {"utf-8": "utf-8", "utf-16": "utf-16", "big5": "cp950", "gb18030": "gb18030"}


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def read_all(folder: Path, content: bytes, name: str = "a.csv", errors: str = encodings.REPORT, **spec):
    """Every item of a file, each looked at: its kind, and that its place is one of the file."""
    path = folder / name
    path.write_bytes(content)
    items = list(read_file(path, name, FileSpec(path=name, **spec), errors))
    assert items, "a file is never passed over in silence"
    n_lines = _n_lines(content, path, spec.get("encoding", "utf-8"))
    for item in items:
        problem = item.problem if isinstance(item, Remark) else item
        assert isinstance(problem, Row | Problem)
        if isinstance(problem, Problem):
            assert problem.code and problem.message and problem.hint
            problem.to_text().encode()  # it can be printed
        else:
            assert isinstance(problem.values, dict) and all(type(name) is str for name in problem.values)
            json.dumps(problem.values, allow_nan=False, ensure_ascii=False).encode()
        assert problem.file in (name, "beside.txt")
        assert problem.line is None or 1 <= problem.line <= n_lines + 1
    return items


def _n_lines(content: bytes, path: Path, encoding: str) -> int:
    """Lines as an editor counts them, in whatever encoding; Excel and Parquet have more rows than their bytes lines."""
    if content.startswith((b"PK", b"PAR1", b"\xd0\xcf")):
        return 1 << 20
    with encodings.open_text(path, encoding) as stream:
        return len(re.split(r"\r\n|\r|\n", stream.read()))


# Hostile files

CHARACTERS = st.sampled_from(
    [*"\"'{}[],;|\t:\\ax0 \x00\ufeff", "\n", "\r", "\r\n", "好", "\u2028", "\U0001f600", "\\ud83d"]
)
PIECES = st.sampled_from(
    [
        *(b'{"t": "x", "u": 1}', b'{"t"', b'"u": NaN}', b"[", b"]", b"},", b"{\n", b'"a', b'a"', b'""', b"sep=;\n"),
        *(b"a,b\n", b"1e999", b"9" * 5000, b"[" * 2000, b"\\u0000", b"\\ud83d", b"\r\r\n", b"\x00" * 9, b"\xff"),
        *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xed\xa0\xbd\xed\xb8\x80", b"\xed\xa0\xbd", b"\xc0\xe7"),
        *(
            b"\xed\xa0\xbd\tO\n\xed\xb2\x8b\tO\n",
            b"\nO B-PER\nx I-PER",
            b" I-",
            b"0\tO\n",
            b"\n\n",
            b"-DOCSTART- -X- O\n",
        ),
        *("營收".encode("big5"), "营收".encode("gb18030"), "營收\n".encode("utf-16-le"), "好".encode()[:2]),
        *(b"PK\x03\x04", b"PAR1", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"\x1f\x8b", b"<html>", b"<?xml "),
    ]
)
BYTES = st.one_of(
    st.binary(max_size=200),
    st.lists(CHARACTERS, max_size=60).map(lambda found: "".join(found).encode()),
    st.lists(st.one_of(PIECES, st.binary(max_size=6)), max_size=25).map(b"".join),
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "encoding": st.sampled_from(list(ENCODINGS)),
        "format": st.sampled_from(["json", "table", "lines", "excel", "parquet", "squad", "triplet", "conll"]),
        "delimiter": st.one_of(st.sampled_from([*',;|\t" \r\n\x00\x01好']), st.characters(codec="utf-8")),
        "columns": st.lists(st.sampled_from(["t", "u", "v", ""]), min_size=1, max_size=4),
        "quoting": st.booleans(),
        "sheet": st.sampled_from(["Sheet", "表"]),
        "explode": st.just({"column": "v"}),
        "melt": st.just({"columns": ["u", "v*"], "entity": "e", "value": "t2", "drop": ["1"]}),
        "collect": st.just({"by": "t", "into": "all", "columns": ["e", "u"]}),
        "values": st.dictionaries(st.sampled_from(["t", "label"]), st.text(max_size=3), max_size=1),
        "parallel": st.just({"label": "beside.txt"}),
    },
)


@FUZZ
@given(content=BYTES, name=st.sampled_from(NAMES))
def test_any_bytes_are_read_to_the_end(folder, content, name):
    read_all(folder, content, name)


@FUZZ
@given(content=BYTES, spec=SPECS, beside=BYTES, mend=st.booleans())
def test_any_bytes_are_read_to_the_end_under_any_options(folder, content, spec, beside, mend):
    (folder / "beside.txt").write_bytes(beside)
    read_all(folder, content, "a.csv", encodings.MEND if mend else encodings.REPORT, **spec)


# Mutated files


def _good_files() -> dict[str, bytes]:
    rows = [{"t": f"第{number}家，營收", "u": number, "v": ["x", None]} for number in range(8)]
    table = "t,u\n" + "".join(f'"第{number}家,\n營收",{number}\n' for number in range(8))
    return {
        "lines": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(),
        "array": json.dumps(rows, ensure_ascii=False).encode(),
        "indented": json.dumps(rows, ensure_ascii=False, indent=2).encode(),
        "stream": "".join(json.dumps(row, indent=1) + "\n" for row in rows).encode(),
        "table": table.encode(),
        "squad": json.dumps({"data": [{"paragraphs": [{"context": "營收", "qas": rows}]}]}).encode(),
        "triplet": ("$T$ 營收\n第一家\nPositive\n好 $T$\n營收\n-1\n" * 4).encode(),
        "conll": ("王 B-PER\n小 I-PER\n\U0001f48b O\n到 O\n台 B-LOC\n北 I-LOC\n\n" * 4).encode(),
        "plain": "".join(f"第{number}家\t營收\n" for number in range(8)).encode(),
    }


GOOD_FILES = _good_files()


@st.composite
def mutated(draw):
    """A good file after some accidents."""
    content = bytearray(GOOD_FILES[draw(st.sampled_from(list(GOOD_FILES)))])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "drop", "repeat", "ends", "encode", "join"]))
        if kind == "flip" and at < len(content):
            content[at] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del content[at:]
        elif kind == "insert":
            content[at:at] = draw(PIECES)
        elif kind == "drop":
            del content[at : at + draw(st.integers(1, 30))]
        elif kind == "repeat":
            content[at:at] = content[max(0, at - 30) : at]
        elif kind == "ends":
            content = content.replace(b"\n", draw(st.sampled_from(LINE_ENDS)).encode(), draw(st.integers(-1, 5)))
        elif kind == "encode":
            codec = draw(st.sampled_from(["cp950", "gb18030", "utf-16", "utf-16-be"]))
            half = content[:at] if draw(st.booleans()) else content
            content = bytearray(half.decode("utf-8", "ignore").encode(codec, "ignore")) + content[len(half) :]
        elif kind == "join":
            content += GOOD_FILES[draw(st.sampled_from(list(GOOD_FILES)))]
    return bytes(content)


@FUZZ
@given(content=mutated(), name=st.sampled_from(NAMES), encoding=st.sampled_from(list(ENCODINGS)))
def test_a_damaged_file_is_read_to_the_end(folder, content, name, encoding):
    read_all(folder, content, name, encoding=encoding)


@FUZZ
@given(kind=st.sampled_from(list(GOOD_FILES)), at=st.integers(0, 2000))
def test_a_file_cut_anywhere_keeps_every_row_before_the_cut(folder, kind, at):
    content = GOOD_FILES[kind]
    # one example and a half do not show what a file is
    spec = {"format": kind} if kind in ("triplet", "conll") else {}
    whole = [item for item in read_all(folder, content, "a", **spec) if isinstance(item, Row)]
    found = [item for item in read_all(folder, content[:at], "a", **spec) if isinstance(item, Row)]
    n_whole_lines = content[:at].count(b"\n")
    certain = [row for row, behind in itertools.pairwise(whole) if behind.line <= n_whole_lines and kind != "array"]
    assert found[: len(certain)] == certain


@FUZZ
@given(content=mutated(), chunk=st.integers(1, 90))
def test_json_is_read_alike_however_it_is_cut_into_chunks(folder, content, chunk):
    def found() -> list[Row | tuple[str, int | None]]:
        items = read_all(folder, content, "a.json", format="json")
        return [item if isinstance(item, Row) else (item.code, item.line) for item in items]

    whole = found()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "CHUNK_CHARACTERS", chunk)
        assert found() == whole


# Legal files are read back exactly

ODD = [*"\"',;|\t:\\{}[]<>\n\r\u2028\u2029\x85\x0b\x0c\x1c好", "\r\n", '""', '{"', "sep=;"]
CHARACTER = st.characters(exclude_categories=["Cs"], exclude_characters="\x00\ufeff")
TEXTS = st.lists(st.one_of(CHARACTER, st.sampled_from(ODD)), max_size=12).map("".join)
TABLES = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(TEXTS, min_size=width, max_size=width), min_size=1, max_size=6)
)


@EXACT
@given(
    rows=TABLES,
    delimiter=st.sampled_from(",;|\t"),
    # csv leaves line ends that are not its own unquoted
    written=st.one_of(
        st.tuples(st.just(csv.QUOTE_ALL), st.sampled_from(LINE_ENDS)), st.just((csv.QUOTE_MINIMAL, "\r\n"))
    ),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    declared=st.booleans(),
)
def test_a_table_that_csv_writes_is_read_back_exactly(folder, rows, delimiter, written, encoding, declared):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, quoting=written[0], lineterminator=written[1])
    header = [f"column {number}" for number in range(len(rows[0]))]
    writer.writerow(header)
    writer.writerows(rows)
    options = {"delimiter": delimiter} if declared or delimiter != "," else {}
    items = read_all(folder, stream.getvalue().encode(encoding), "a.csv", format="table", **options)
    expected, line = [], 2
    for row in rows:
        if any(row):
            expected.append((line, dict(zip(header, row, strict=True))))
        line += 1 + sum(len(re.findall(r"\r\n|\r|\n", cell)) for cell in row)
    assert [(item.line, item.values) for item in items if isinstance(item, Row)] == expected
    assert not [item for item in items if isinstance(item, Problem)] or not expected


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), FLOATS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4), min_size=1, max_size=6)


@EXACT
@given(
    rows=OBJECTS,
    form=st.sampled_from(["lines", "array", "stream"]),
    indent=st.sampled_from([None, 0, 2, "\t"]),
    ascii_only=st.booleans(),
    line_end=st.sampled_from(LINE_ENDS),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_rows_that_json_writes_are_read_back_exactly(folder, rows, form, indent, ascii_only, line_end, encoding):
    if form == "array":
        text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    else:
        indent = None if form == "lines" else indent
        text = "".join(json.dumps(row, indent=indent, ensure_ascii=ascii_only) + "\n" for row in rows)
    content = text.replace("\n", line_end).encode(encoding)
    items = read_all(folder, content, "a.json", format="json")
    assert [item for item in items if not isinstance(item, Row)] == []
    assert [item.values for item in items] == rows
    if form == "lines":
        assert [item.line for item in items] == list(range(1, len(rows) + 1))


@EXACT
@given(
    lines=st.lists(TEXTS.filter(lambda text: not re.search(r"[\r\n]", text)), min_size=1, max_size=8),
    line_end=st.sampled_from(LINE_ENDS),
)
def test_plain_lines_are_read_back_exactly_beside_their_parallel_file(folder, lines, line_end):
    content = "".join(line + line_end for line in lines).encode()
    (folder / "beside.txt").write_bytes(content)
    items = read_all(folder, content, "a.txt", format="lines", parallel={"label": "beside.txt"})
    assert items == [Row({"text": text, "label": text}, "a.txt", line) for line, text in enumerate(lines, start=1)]


TOKENS = TEXTS.filter(lambda text: text and not re.search(r"[\s\x00]", text) and not text.startswith("-DOCSTART-"))
TAGS = st.sampled_from(["O", "B-PER", "I-PER", "E-GPE.NAM", "S-人名", "L-x", "U-y", "M-z"])


@EXACT
@given(
    sentences=st.lists(st.lists(st.tuples(TOKENS, TAGS), min_size=1, max_size=6), min_size=1, max_size=5),
    between=st.sampled_from("\t "),
    line_end=st.sampled_from(LINE_ENDS[:2]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    errors=st.sampled_from([encodings.REPORT, encodings.MEND]),
)
def test_conll_sentences_are_read_back_exactly(folder, sentences, between, line_end, encoding, errors):
    sentences = [[("好", "O"), *sentence] for sentence in sentences]
    blocks = ["".join(f"{token}{between}{tag}{line_end}" for token, tag in sentence) for sentence in sentences]
    content = line_end.join(blocks).encode(encoding)
    items = read_all(folder, content, "a.conll", errors, format="conll")
    assert [(item.values["tokens"], item.values["tags"]) for item in items] == [
        tuple(map(list, zip(*sentence, strict=True))) for sentence in sentences
    ]


@EXACT
@given(texts=st.lists(st.text(st.sampled_from("aé好\ufeff\U0001f600\U0010ffff"), max_size=9), min_size=1, max_size=5))
def test_emoji_stored_as_halves_are_mended_exactly(folder, texts):
    units = "\n".join(f"x{text}" for text in texts).encode("utf-16-be")
    halves = [chr(int.from_bytes(units[at : at + 2], "big")) for at in range(0, len(units), 2)]
    content = "".join(halves).encode("utf-8", "surrogatepass")
    items = read_all(folder, content, "a.txt", encodings.MEND, format="lines")
    assert [item.values["text"] for item in items if isinstance(item, Row)] == [f"x{text}" for text in texts]


# Dates


DATED = st.from_regex(
    r"(民國)?\d{2,4}[-/.年]\d{1,2}[-/.月]\d{1,2}日?"
    r"( (上午|下午)? ?\d{1,2}:\d{2}(:\d{2})?( [AP]M)?( ?[+-]\d\d:\d\d)?)?"
)


@settings(FUZZ, deadline=200)
@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.datetimes(), st.dates(), DATED))
def test_no_value_makes_a_date_raise(value):
    seconds = posix_seconds(value)
    assert seconds is None or isinstance(seconds, float)


@EXACT
@given(moments=st.tuples(*[st.datetimes(datetime.datetime(1912, 1, 1), datetime.datetime(2900, 1, 1))] * 2))
def test_dates_keep_their_order_in_every_notation(moments):
    first, second = sorted(moment.replace(microsecond=0) for moment in moments)
    for write in (
        lambda moment: moment.isoformat(),
        lambda moment: f"{moment:%Y/%m/%d %H:%M:%S}",
        lambda moment: f"民國{moment.year - 1911:02}年{moment.month}月{moment.day}日 {moment:%H:%M:%S}",
        lambda moment: f"{moment:%Y/%m/%d} {'上午' if moment.hour < 12 else '下午'} {moment:%I:%M:%S}",
        lambda moment: f"{moment:%Y-%m-%d %I:%M:%S %p}",
    ):
        before, after = posix_seconds(write(first)), posix_seconds(write(second))
        assert after - before == (second - first).total_seconds()
