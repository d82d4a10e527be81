"""Declared steps between the rows of a file and the rows of a task: `explode`, `melt`, `collect`, in this order.

explode  a list in a cell          -> a row for each of its elements
melt     a column for each aspect  -> a row for each filled one of them, as pandas.melt makes
collect  a row for each element    -> rows that follow each other with equal cells become one, with a list

A row that comes out of another one keeps its line. What no row comes out of is counted in a remark.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator
from typing import Any

from tasklib.reading.records import Remark, Row
from tasklib.schema import CollectSpec, ExplodeSpec, FileSpec, MeltSpec
from tasklib.summary import Problem

Items = Iterator[Row | Problem | Remark]


def with_steps(items: Items, shown: str, spec: FileSpec) -> Items:
    """The rows after the steps that `spec` declares; faults and remarks pass through in their places."""
    if spec.explode:
        items = explode(items, shown, spec.explode)
    if spec.melt:
        items = melt(items, shown, spec.melt)
    if spec.collect:
        items = collect(items, shown, spec.collect)
    return items


def explode(items: Items, shown: str, spec: ExplodeSpec) -> Items:
    """A row for each element of the list in `spec.column`, which may stand there as JSON text.

    The keys of an element stand beside the row's own columns, in place of the list; a key that the row has too is
    called `<column>.<key>`. An element that is no object stands in the column itself, as pandas.explode does it.
    """
    n_empty, first_empty, any_row, has_column = 0, None, False, False
    for item in items:
        if not isinstance(item, Row):
            yield item
            continue
        any_row, has_column = True, has_column or spec.column in item.values
        elements = _list_in(item.values.get(spec.column))
        if elements is None:
            if spec.column in item.values:
                message = f"column {spec.column!r} holds no list, which `explode` needs"
                hint = "correct the cell, or remove `explode`"
                yield Problem(code="no_list", message=message, file=shown, line=item.line, field=spec.column, hint=hint)
                continue
            elements = []
        if not elements:
            n_empty, first_empty = n_empty + 1, first_empty or item.line
        own = {name: value for name, value in item.values.items() if name != spec.column}
        for element in elements:
            yield Row({**own, **_columns_of(element, own, spec.column)}, item.file, item.line)
    if any_row and not has_column:
        yield _missing(spec.column, "explode.column", shown)
    elif n_empty:
        yield _remark("empty_list", f"{n_empty} rows have nothing in {spec.column!r}", shown, first_empty)


def _list_in(value: Any) -> list[Any] | None:
    """The list that a cell holds, as such or as JSON text; an empty cell is an empty list."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def _columns_of(element: Any, own: dict[str, Any], column: str) -> dict[str, Any]:
    if not isinstance(element, dict):
        return {column: element}
    return {f"{column}.{key}" if key in own else key: value for key, value in element.items()}


def melt(items: Items, shown: str, spec: MeltSpec) -> Items:
    """A row for each of the columns `spec.columns` (names, or patterns as file names have them): the other columns, the
    column's name in `spec.entity`, its value in `spec.value`. Values in `spec.drop` make no row; an empty cell is ''.
    """
    wanted = [spec.columns] if isinstance(spec.columns, str) else spec.columns
    unseen, any_row, n_dropped, first_dropped = set(wanted), False, 0, None
    for item in items:
        if not isinstance(item, Row):
            yield item
            continue
        any_row, taken = True, [name for name in item.values if any(_is_named(name, one) for one in wanted)]
        unseen = {one for one in unseen if not any(_is_named(name, one) for name in taken)}
        own = {name: value for name, value in item.values.items() if name not in taken}
        if twice := [name for name in (spec.entity, spec.value) if name in own]:
            message = f"column {twice[0]!r} stands in the row, and `melt` gives it too"
            hint = "choose another name for the new column"
            yield Problem(code="duplicate_column", message=message, file=shown, line=item.line, hint=hint)
            continue
        kept = [name for name in taken if _as_text(item.values[name]) not in spec.drop]
        if taken and not kept:
            n_dropped, first_dropped = n_dropped + 1, first_dropped or item.line
        for name in kept:
            yield Row({**own, spec.entity: name, spec.value: item.values[name]}, item.file, item.line)
    for one in sorted(unseen) if any_row else ():
        yield _missing(one, "melt.columns", shown)
    if n_dropped:
        yield _remark("all_dropped", f"{n_dropped} rows have dropped values alone", shown, first_dropped)


def _is_named(name: str, wanted: str) -> bool:
    """A column that is called so counts even where its name would be a pattern, like `size[cm]`."""
    return name == wanted or fnmatch.fnmatchcase(name, wanted)


def _as_text(value: Any) -> str:
    """A cell as `drop` names it: -2 and -2.0 of Excel or JSON are '-2'."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def collect(items: Items, shown: str, spec: CollectSpec) -> Items:
    """One row for rows that follow each other with the same value in `spec.by`: the columns of the first, and in
    `spec.into` a list with an object of `spec.columns` for each. A row whose `spec.columns` are all empty adds nothing.

    Only neighbours are joined, so that a file of any length can be read: rows that are not in order have to be sorted
    first. A fault between two rows does not part them.
    """
    open_row: Row | None = None
    absent, any_row = {spec.by, *spec.columns}, False
    for item in items:
        if not isinstance(item, Row):
            yield item
            continue
        any_row, absent = True, absent - set(item.values)
        rest = {name: value for name, value in item.values.items() if name not in spec.columns}
        if spec.into in rest:
            message = f"column {spec.into!r} stands in the row, and `collect` gives it too"
            hint = "choose another name for the new column"
            yield Problem(code="duplicate_column", message=message, file=shown, line=item.line, hint=hint)
            continue
        if open_row is None or open_row.values.get(spec.by) != item.values.get(spec.by):
            if open_row is not None:
                yield open_row
            open_row = Row({**rest, spec.into: []}, item.file, item.line)
        element = {name: item.values.get(name) for name in spec.columns}
        if any(value not in (None, "") for value in element.values()):
            open_row.values[spec.into].append(element)
    if open_row is not None:
        yield open_row
    for name in sorted(absent) if any_row else ():
        yield _missing(name, "collect", shown)


def _missing(name: str, field: str, shown: str) -> Problem:
    message, hint = f"no column {name!r}", "correct the step in data.files"
    return Problem(code="missing_column", message=message, file=shown, line=1, field=field, hint=hint)


def _remark(code: str, message: str, shown: str, line: int | None) -> Remark:
    hint = "nothing to do if that is meant"
    return Remark(
        Problem(code=code, message=f"{message}: they make no row of the task", file=shown, line=line, hint=hint)
    )
