"""Helper: one raw file read to its end, with the places of everything that was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from task_folder import write
from tasklib.reading import encodings
from tasklib.reading.records import Remark, Row, read_file
from tasklib.schema import FileSpec
from tasklib.summary import Problem


class Reading(NamedTuple):
    """What read_file gave, in the order of reading."""

    rows: list[tuple[int, dict[str, Any]]]
    problems: list[Problem]
    remarks: list[Problem]

    @property
    def faults(self) -> list[tuple[str, int | None]]:
        return [(problem.code, problem.line) for problem in self.problems]

    @property
    def warnings(self) -> list[tuple[str, int | None]]:
        return [(problem.code, problem.line) for problem in self.remarks]

    @property
    def values(self) -> list[tuple[Any, ...]]:
        """The cells of the rows without their columns' names."""
        return [tuple(values.values()) for _, values in self.rows]


def read(path: Path, content: str | bytes | None = None, errors: str = encodings.REPORT, **spec: Any) -> Reading:
    """Reads a file, written first where `content` is given; `spec` are options of FileSpec."""
    if content is not None:
        write(path, content)
    items = list(read_file(path, path.name, FileSpec(path=path.name, **spec), errors))
    assert all(isinstance(item, Row | Problem | Remark) for item in items)
    return Reading(
        [(item.line, item.values) for item in items if isinstance(item, Row)],
        [item for item in items if isinstance(item, Problem)],
        [item.problem for item in items if isinstance(item, Remark)],
    )
