"""Columns that stand outside their file: constants of the definition, and files that run parallel to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tasklib.reading import table_rows
from tasklib.reading.records import Remark, Row
from tasklib.schema import FileSpec
from tasklib.summary import Problem


def with_columns(
    items: Iterator[Row | Problem | Remark], path: Path, shown: str, spec: FileSpec
) -> Iterator[Row | Problem | Remark]:
    """The rows with the columns that stand outside their file: constants, and files that run parallel to it."""
    if not spec.values and not spec.parallel:
        yield from items
        return
    added = [*spec.values, *spec.parallel]
    beside, last = _Parallel(path, spec), None
    for item in items:
        last = item
        if isinstance(item, Remark) or (isinstance(item, Problem) and item.line is None):
            yield item
            continue
        columns, problems = beside.next_line(item.line)
        if isinstance(item, Problem):
            yield item
        elif twice := [name for name in added if name in item.values or added.count(name) > 1]:
            message = f"column {twice[0]!r} stands in the row, and `values` or `parallel` gives it too"
            hint = "remove one of the two: which value counts cannot be known"
            yield Problem(code="duplicate_column", message=message, file=shown, line=item.line, hint=hint)
        elif not problems and len(columns) == len(spec.parallel):
            yield Row({**item.values, **spec.values, **columns}, item.file, item.line)
        yield from problems
    if not isinstance(last, Problem):  # behind such a one the reader may have stopped
        yield from beside.length_problems(shown)


class _Parallel:
    """The files that run parallel to a main one, read line by line beside it."""

    def __init__(self, path: Path, spec: FileSpec) -> None:
        # They lie where their paths say, seen from the same folder as the main file.
        root = path.parents[len(Path(spec.path).parts) - 1] if not Path(spec.path).is_absolute() else path.parent
        self.names = spec.parallel
        self.lines = {
            name: table_rows.read_lines(root / other, other, spec.encoding, keep_blank=True)
            for name, other in spec.parallel.items()
        }
        self.n_rows = 0
        self.faulty: set[str] = set()
        self.short: dict[str, int] = {}  # column -> the first row without a line there

    def next_line(self, line: int) -> tuple[dict[str, str], list[Problem]]:
        """The columns of the next row, and what is wrong with them. `line` is the row's own."""
        self.n_rows += 1
        columns, problems = {}, []
        for name, lines in self.lines.items():
            item = next(lines, None)
            if isinstance(item, Row):
                columns[name] = item.values["text"]
            elif item is None:
                self.short.setdefault(name, line)
            else:
                problems.append(item)
                self.faulty.add(name)
        return columns, problems

    def length_problems(self, shown: str) -> Iterator[Problem]:
        """Where the files end at different places. A file with a fault of its own may have been read in part."""
        hint = "every row needs exactly one line there, in the same order; a blank line counts"
        for name in [name for name in self.names if name not in self.faulty]:
            file, line = self.names[name], self.n_rows + 1
            if name in self.short:
                message = f"no line of {file} is left for this row and those behind it: they do not run parallel"
                file, line = shown, self.short[name]
            elif n_more := sum(1 for _ in self.lines[name]):
                message = f"{n_more} lines more than the {self.n_rows} rows of {shown}: they do not run parallel"
                hint += "; if its first line is a row and not a header, write `format: lines`"
            else:
                continue
            yield Problem(code="parallel_length", message=message, file=file, line=line, field=name, hint=hint)
