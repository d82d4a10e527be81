"""How each raw file is read: the encoding, sheet, quoting and column names that its content shows, or a flag says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from creation import columns, layout, recognition
from creation.sources import Source, sample
from tasklib.reading import encodings
from tasklib.reading.records import Format, Row, file_format
from tasklib.schema import FileSpec
from tasklib.summary import Problem

TEXT_KINDS = ("json", "squad", "table", "lines", "conll", "triplet")


@dataclass(frozen=True)
class Flags:
    """What the command line says of every file that it can be said of; `named` are columns that the user speaks of."""

    encoding: str | None = None
    columns: tuple[str, ...] | None = None
    sheet: str | None = None
    named: frozenset[str] = frozenset()


@dataclass
class Understood:
    """The sources with the options that their content asks for; what was found and why; what is wrong, and choices."""

    sources: list[Source] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    candidates: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def warn(self, code: str, source: Source, message: str, hint: str) -> None:
        self.warnings.append(Problem(code=code, message=message, file=str(source.path), hint=hint))

    def refuse(self, code: str, source: Source, message: str, hint: str, choice: dict[str, Any] | None = None) -> None:
        self.problems.append(Problem(code=code, message=message, file=str(source.path), hint=hint))
        for name, options in (choice or {}).items():
            known = self.candidates.setdefault(name, [])
            known += [option for option in options if option not in known]


def understand(sources: Sequence[Source], flags: Flags) -> Understood:
    """Every source with what its content says. Options that the user gave stay as they are."""
    out = Understood()
    kinds = []
    for source in sources:
        source = _with_encoding(source, flags, out)
        found = file_format(source.path, str(source.path), source.spec())
        if isinstance(found, Problem):
            out.problems.append(found)
            found = Format("unreadable")
        elif found.kind == "excel":
            source = _with_sheet(source, flags, out)
        elif "format" not in source.options and (layout_of := _own_format(source, found)):
            source = source.having(format=layout_of)
            found = Format(layout_of)
        kinds.append(found.kind)
        if found.kind in ("table", "excel") and not any(p.file == str(source.path) for p in out.problems):
            source = _with_layout(source, found, flags, out)
        out.sources.append(source)
    _refuse_useless(flags, kinds, out)
    _align(out)
    return out


def _own_format(source: Source, found: Format) -> str | None:
    """The format of a text file that has rows of more than one line, and is taken for a table."""
    if found.kind not in ("table", "lines"):
        return None
    with encodings.open_text(source.path, source.spec().encoding) as stream:
        return recognition.format_of(stream.read(1 << 14))


def _refuse_useless(flags: Flags, kinds: list[str], out: Understood) -> None:
    """A flag that none of the files can use is a mistake."""
    for name, value, useful, what in (
        ("encoding", flags.encoding, TEXT_KINDS, "text file"),
        ("columns", flags.columns, ("table", "excel"), "table"),
        ("sheet", flags.sheet, ("excel",), "Excel file"),
    ):
        if value and not {*useful, "unreadable"} & set(kinds):
            message, hint = f"there is no {what} among the data", "remove the flag"
            out.problems.append(Problem(code="unused_flag", message=message, field=f"--{name}", hint=hint))


def _with_encoding(source: Source, flags: Flags, out: Understood) -> Source:
    if "encoding" in source.options or not source.path.is_file():
        return source
    plain = FileSpec(path=source.path.name, format=source.options.get("format"))
    found = file_format(source.path, str(source.path), plain)
    if not isinstance(found, Format) or found.kind not in TEXT_KINDS:
        return source
    if flags.encoding:
        return source.having(encoding=flags.encoding)
    with source.path.open("rb") as stream:
        marked = stream.read(3).startswith(tuple(encodings.BOMS))
    detected = encodings.detect(source.path)
    if detected.encoding == "utf-8" or marked:
        return source
    if detected.encoding:
        message = f"read as {detected.encoding}: every byte fits, and its characters are common ones"
        out.warn("encoding_detected", source, message, "look at the texts; --encoding says otherwise")
        return source.having(encoding=detected.encoding)
    if detected.candidates:
        message = f"not UTF-8; it reads equally well as {' and as '.join(detected.candidates)}"
        if len(detected.candidates) == 1:
            message = (
                f"not UTF-8; its bytes fit {detected.candidates[0]}, but then few of its characters are common ones"
            )
        choice = [{"value": name, "why": "every byte fits"} for name in detected.candidates]
        hint = f"say which: --encoding {' or '.join(detected.candidates)}"
        out.refuse("which_encoding", source, message, hint, {"encoding": choice})
    return source  # mixed or damaged: the reader names each line


def _with_sheet(source: Source, flags: Flags, out: Understood) -> Source:
    if flags.sheet and "sheet" not in source.options:
        source = source.having(sheet=flags.sheet)
    first = next(iter(source.rows()), None)
    if not isinstance(first, Problem) or first.code not in ("which_sheet", "missing_sheet"):
        return source
    names = _sheets(source)
    choice = [{"value": name, "why": f"{n} rows"} for name, n in names.items()]
    listed = ", ".join(f"{name} ({n} rows)" for name, n in names.items())
    message = first.message if first.code == "missing_sheet" else f"{len(names)} sheets hold rows: {listed}"
    out.refuse(first.code, source, message, f"say which: --sheet NAME, one of {', '.join(names)}", {"sheet": choice})
    return source


def _sheets(source: Source) -> dict[str, int]:
    """Sheets that hold something -> rows, the header among them."""
    from python_calamine import CalamineWorkbook

    workbook = CalamineWorkbook.from_path(str(source.path))
    sheets = {name: workbook.get_sheet_by_name(name).total_height for name in workbook.sheet_names}
    return {name: n for name, n in sheets.items() if n}


def _with_layout(source: Source, found: Format, flags: Flags, out: Understood) -> Source:
    """Quoting and column names of a table."""
    if found.kind == "table" and "quoting" not in source.options:
        source = _with_quoting(source, found, out)
    rows = layout.cells(source, found)
    if not rows or "columns" in source.options:
        return source
    if flags.columns:
        return _with_given_columns(source, list(flags.columns), rows, out)
    if found.kind == "table" and not source.spec().delimiter and layout.is_plain_lines(source, rows, found.delimiter):
        return source.having(format="lines")
    return _with_header(source, layout.first_line(rows, flags.named), rows, out)


def _with_quoting(source: Source, found: Format, out: Understood) -> Source:
    n_broken = layout.n_faults(source)
    plain = layout.without_quoting(source, found) if n_broken else None
    if plain is None:
        return source
    message = f"quotes are read as ordinary characters: quoting would break {n_broken} rows, this breaks none"
    out.warn("quotes_are_text", source, message, "write `quoting: true` for this file in data.files if that is wrong")
    return plain


def _with_given_columns(source: Source, given: list[str], rows: list[list[str]], out: Understood) -> Source:
    width = layout.width_of(rows)
    first = [cell.strip() for cell in rows[0]]
    if "" in given or len(set(given)) < len(given):
        message = f"--columns names a column twice or not at all: {','.join(given)}"
        out.refuse("columns_count", source, message, "give every column a name of its own")
    elif len(given) != width:
        message = f"--columns names {len(given)} columns, and the lines have {width} cells: {', '.join(first[:10])}"
        out.refuse("columns_count", source, message, f"give {width} names, separated by commas")
    elif first == given:
        message = f"the first line holds these names already: {', '.join(first)}"
        out.refuse("has_header", source, message, "--columns is for a table without a line of names: leave it out")
    elif (line := layout.first_line(rows, set())).certain:
        message = f"the first line is read as a row, and it looks like names: {', '.join(first)} ({line.why})"
        out.warn(
            "has_header", source, message, "leave --columns out if they are names; the text column is --text-field"
        )
    return source.having(columns=given)


def _with_header(source: Source, line: layout.FirstLine, rows: list[list[str]], out: Understood) -> Source:
    """Names for the columns of a table whose first line is a row."""
    if line.is_ == "title":
        message = (
            f"the first line holds one cell ({rows[0][0].strip()!r}), the lines below more: a title above the table"
        )
        out.refuse("title_above_table", source, message, "save a copy whose first line holds the names of the columns")
    elif line.is_ == "unsure":
        choice = [
            {"value": "--columns", "why": "the first line is a row: name the columns yourself"},
            {"value": "--text-field", "why": f"the first line holds names: {', '.join(rows[0])[:200]}"},
        ]
        message = f"the first line may be a row or the names of the columns: {line.why!r} is as long as a text"
        hint = "a row: --columns a,b,… names the columns; names: say --text-field and --label-field"
        out.refuse("row_or_header", source, message, hint, {"first_line": choice})
    elif line.is_ == "row":
        names = [f"column_{number}" for number in range(1, layout.width_of(rows) + 1)]
        hint = f"the columns are called {', '.join(names)}; name them with --columns a,b,…"
        out.warn("no_header", source, f"no header: {line.why}", hint)
        return source.having(columns=names)
    return source


def _align(out: Understood) -> None:
    """A headerless file beside others of the same width: it takes their names, or they are headerless as well."""
    if out.problems:
        return
    headers = {n: names for n, source in enumerate(out.sources) if (names := _names(source))}
    headerless = {n for n in headers if headers[n][0] == "column_1" and "columns" in out.sources[n].options}
    for n, names in headers.items():
        for other in sorted(headerless):
            if n in headerless or len(headers[other]) != len(names):
                continue
            if any(columns.has_name(name, columns.KNOWN_NAMES) for name in names):
                source = out.sources[other]
                message = f"its columns are named as in {out.sources[n].path.name}: {', '.join(names)}"
                out.warn("columns_from_sibling", source, message, "name them otherwise with --columns a,b,…")
                out.sources[other] = source.having(columns=names)
                headers[other] = names
                headerless = headerless - {other}
            else:
                source = out.sources[n]
                message = f"no header, as in {out.sources[other].path.name}: {', '.join(names)[:200]} is read as a row"
                out.warn("no_header", source, message, "name the columns with --columns a,b,…")
                out.sources[n] = source.having(columns=headers[other])
                break


def _names(source: Source) -> list[str] | None:
    """The columns of a table; None for what has no header."""
    found = file_format(source.path, str(source.path), source.spec())
    if not isinstance(found, Format) or found.kind not in ("table", "excel"):
        return None
    first = next((item for item in sample(source) if isinstance(item, Row)), None)
    return [name for name in first.values if name not in source.options.get("values", {})] if first else None
