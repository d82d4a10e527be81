"""What every script reports: problems with a place and a hint, and one summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tasklib.exit_codes import ExitCode

MAX_PROBLEMS_PER_CODE = 20


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong: what (with the value got), where, and what to do next."""

    code: str
    message: str
    file: str | None = None
    line: int | None = None
    field: str | None = None
    hint: str | None = None

    def to_text(self) -> str:
        where = self.file or ""
        if self.line is not None:
            where += f":{self.line}"
        if self.field is not None:
            where = f"{where} [{self.field}]".strip()
        text = f"{self.code}: {where + ': ' if where else ''}{self.message}"
        return f"{text}\n      -> {self.hint}" if self.hint else text


class TaskError(Exception):
    """A failure that is not a bug; carries every problem found and the exit code that they mean.

    `report` holds what else the summary should show: warnings, counts, outputs, next.
    """

    def __init__(self, exit_code: ExitCode, problems: Iterable[Problem], **report: Any) -> None:
        self.exit_code = exit_code
        self.problems = list(problems)
        self.report = report
        super().__init__("; ".join(problem.message for problem in self.problems))


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The result of one script: printed as text, or as the one JSON object of `--json`."""

    schema_version: Literal[1] = 1
    stage: str
    status: Literal["ok", "skipped", "gate_failed", "error"]
    run: str | None = None
    outputs: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    warnings: list[Problem] = field(default_factory=list)
    errors: list[Problem] = field(default_factory=list)
    candidates: dict[str, Any] = field(default_factory=dict)
    next: str | None = None

    @classmethod
    def of(
        cls,
        stage: str,
        status: str = "ok",
        *,
        warnings: Iterable[Problem] = (),
        errors: Iterable[Problem] = (),
        counts: dict[str, int] | None = None,
        totals: Mapping[str, int] | None = None,
        **rest: Any,
    ) -> Summary:
        """A summary with at most 20 problems of a code; totals of the codes that were cut stand in `counts`. `totals`
        gives them where the caller itself kept only the first ones."""
        counts = dict(counts or {})
        warnings, errors = list(warnings), list(errors)
        totals = Counter(problem.code for problem in warnings + errors) | Counter(totals or {})
        counts.update({code: n for code, n in totals.items() if n > MAX_PROBLEMS_PER_CODE})
        return cls(
            stage=stage,
            status=status,
            warnings=first_of_each_code(warnings),
            errors=first_of_each_code(errors),
            counts=counts,
            **rest,
        )

    @classmethod
    def failed(cls, stage: str, problems: Iterable[Problem], **report: Any) -> Summary:
        return cls.of(stage, "error", errors=problems, **report)

    def to_text(self, code: int = 0) -> str:
        head = f"[{self.status}] {self.stage}" + (f" · {self.run}" if self.run else "")
        lines = [head if not code else f"{head} (exit {int(code)})"]
        if self.counts:
            lines.append("  " + " · ".join(f"{name} {n}" for name, n in self.counts.items()))
        lines += [f"  {name}: {_number(value)}" for name, value in self.metrics.items() if not isinstance(value, dict)]
        lines += _table({name: value for name, value in self.metrics.items() if isinstance(value, dict)})
        lines += [f"  error {problem.to_text()}" for problem in self.errors]
        lines += [f"  warning {problem.to_text()}" for problem in self.warnings]
        lines += [f"  {name}: {value}" for name, value in self.outputs.items() if isinstance(value, str)]
        if self.next:
            lines.append(f"  next: {self.next}")
        return "\n".join(lines)


class Findings:
    """Problems of a large data set: all are counted, the first 20 of each code are kept."""

    def __init__(self) -> None:
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self.totals: Counter[str] = Counter()
        self._by_field: Counter[tuple[str, str | None]] = Counter()

    def error(self, problem: Problem) -> None:
        self._add(self.errors, problem)

    def warning(self, problem: Problem) -> None:
        self._add(self.warnings, problem)

    def more(self, code: str, n: int) -> None:
        """Counts `n` further problems of a code that has 20 already."""
        if n > 0:
            self.totals[code] += n

    def _add(self, kept: list[Problem], problem: Problem) -> None:
        self.totals[problem.code] += 1
        self._by_field[problem.code, problem.field] += 1
        if self.totals[problem.code] <= MAX_PROBLEMS_PER_CODE:
            kept.append(problem)

    def extend(self, other: Findings) -> None:
        """Adds the findings of another part of the same data."""
        for mine, theirs in ((self.errors, other.errors), (self.warnings, other.warnings)):
            for problem in theirs:
                self._add(mine, problem)
        for code, n in other.totals.items():
            self.totals[code] += n - sum(problem.code == code for problem in other.errors + other.warnings)

    def forget(self, code: str, field: str) -> None:
        """Drops every problem of a code in one field: another finding says it better."""
        self.errors = [problem for problem in self.errors if (problem.code, problem.field) != (code, field)]
        self.totals[code] -= self._by_field.pop((code, field), 0)


def first_of_each_code(problems: list[Problem]) -> list[Problem]:
    """The problems in order, cut to 20 of each code."""
    seen: Counter[str] = Counter()
    kept = []
    for problem in problems:
        seen[problem.code] += 1
        if seen[problem.code] <= MAX_PROBLEMS_PER_CODE:
            kept.append(problem)
    return kept


def _table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Metrics that are objects, one a line, in columns."""
    if not rows:
        return []
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    cells = [["", *columns]] + [[name, *(_number(row.get(c, "")) for c in columns)] for name, row in rows.items()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    ]


def _number(value: object) -> str:
    if value is None:
        return "undefined"
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        return f"{value:.3g}"  # a learning rate is not 0.0002 but 0.000234
    return f"{value:.4f}" if isinstance(value, float) else str(value)
