"""How is a chain of operators rewritten into one that gives the same rows with less work?

Each rule is a small function from a chain to a chain and notes: what it did, or why it did not,
which `explain()` shows. They run once each, in the order of `RULES`. (Which neighbours then run in
one task is decided on physical operators: `fusion`.)
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from rdata.dataset.block import part
from rdata.dataset.columns import renamed
from rdata.dataset.logical import (
    AddColumn,
    Aggregate,
    DropColumns,
    InMemory,
    Limit,
    MapRows,
    Operator,
    Read,
    RenameColumns,
    Repartition,
    SelectColumns,
    Unary,
    on_input,
)

Rewritten = tuple[Operator, tuple[str, ...]]
Rule = Callable[[Operator], Rewritten]

_ROW_FOR_ROW = (SelectColumns, DropColumns, RenameColumns, MapRows)


def push_limits(operator: Operator) -> Rewritten:
    """Take a limit before operators that give one row for each, and into the source."""
    if not isinstance(operator, Unary):
        return operator, ()
    input, notes = push_limits(operator.input)
    operator = on_input(operator, input)
    if not isinstance(operator, Limit):
        return operator, notes
    below = operator.input
    if isinstance(below, Limit):
        smaller = min(operator.num_rows, below.num_rows)
        return push_limits(Limit(below.input, smaller))
    if isinstance(below, _ROW_FOR_ROW):
        pushed, more = push_limits(Limit(below.input, operator.num_rows))
        return on_input(below, pushed), (f"{operator.label} before {below.label}", *more)
    if isinstance(below, Read):
        limited = Read(below.source.with_limit(operator.num_rows))
        return Limit(limited, operator.num_rows), (f"{operator.label} into {below.label}",)
    if isinstance(below, InMemory):
        return _limited_blocks(below, operator), (f"{operator.label} into {below.label}",)
    if isinstance(below, Unary):
        reason = f"{operator.label} not before {below.label}: {_why_all_rows(below)}"
        return operator, (*notes, reason)
    return operator, notes


def _why_all_rows(operator: Unary) -> str:
    if isinstance(operator, AddColumn):
        return "its function sees whole batches"
    return "it may change the number of rows"


def _limited_blocks(below: InMemory, limit: Limit) -> InMemory:
    kept = []
    left = limit.num_rows
    for block in below.blocks:
        kept.append(part(block, 0, left))
        left -= block.num_rows
        if left <= 0:
            break
    return InMemory(below.origin, tuple(kept))


def push_projections(operator: Operator) -> Rewritten:
    """Read only columns that are used, and leave out operators whose results are not."""
    return _projected(operator, None)


def _projected(operator: Operator, needed: frozenset[str] | None) -> Rewritten:
    """Rewrite for a consumer that needs these columns; None: all, as they are."""
    match operator:
        case Aggregate(input, sink):
            used = (name for aggregate in sink.aggregates for name in aggregate.columns)
            return _through(operator, input, frozenset(used))
        case SelectColumns(input, columns):
            if needed is not None and input.static_schema() is not None:
                columns = tuple(name for name in columns if name in needed)
            projected, notes = _projected(input, frozenset(columns))
            return SelectColumns(projected, columns), notes
        case DropColumns():
            return _without_drop(operator, needed)
        case RenameColumns():
            return _before_rename(operator, needed)
        case AddColumn(input, column):
            if needed is not None and column not in needed:
                projected, notes = _projected(input, needed)
                return projected, (f"left out {operator.label}: nobody uses it", *notes)
            return _through(operator, input, None, needed)
        case MapRows(input) if needed is not None and not needed:
            projected, notes = _projected(input, needed)
            return projected, (f"left out {operator.label}: only rows are counted", *notes)
        case Limit(input) | Repartition(input):
            return _through(operator, input, needed)
        case Unary(input):
            return _through(operator, input, None, needed)
    return _projected_source(operator, needed)


def _projected_source(operator: Operator, needed: frozenset[str] | None) -> Rewritten:
    match operator:
        case Read(source) if needed is not None:
            present = source.schema().names
            wanted = [name for name in present if name in needed]
            if len(wanted) == len(present):
                return operator, ()
            note = f"{len(wanted)} of {len(present)} columns from {operator.label}"
            return Read(source.with_columns(wanted)), (note,)
        case InMemory(origin, blocks) if needed is not None:
            wanted = [name for name in blocks[0].column_names if name in needed]
            return InMemory(origin, tuple(block.select(wanted) for block in blocks)), ()
    return operator, ()


def _through(
    operator: Unary,
    input: Operator,
    needed: frozenset[str] | None,
    asked: frozenset[str] | None = None,
) -> Rewritten:
    projected, notes = _projected(input, needed)
    if asked is not None and needed is None:
        notes = (f"no projection before {operator.label}: its function sees all columns", *notes)
    return on_input(operator, projected), notes


def _without_drop(drop: DropColumns, needed: frozenset[str] | None) -> Rewritten:
    schema = drop.input.static_schema()
    if schema is None:  # whether the columns are there is seen only when it runs
        return _through(drop, drop.input, None)
    dropped = set(drop.columns)
    kept = tuple(name for name in schema.names if name not in dropped)
    if needed is not None and needed.issubset(kept):
        return _projected(drop.input, needed)
    return _projected(SelectColumns(drop.input, kept), None)


def _before_rename(rename: RenameColumns, needed: frozenset[str] | None) -> Rewritten:
    schema = rename.input.static_schema()
    if needed is None or schema is None:
        return _through(rename, rename.input, None, needed)
    new = renamed(schema.names, rename.names)
    if not needed.issubset(new):  # an error, which must not find the old name below
        return _through(rename, rename.input, None)
    pairs = {old: name for old, name in zip(schema.names, new, strict=True) if name in needed}
    projected, notes = _projected(rename.input, frozenset(pairs))
    changed = {old: name for old, name in pairs.items() if old != name}
    if not changed:
        return projected, notes
    return replace(rename, input=projected, names=changed), notes


RULES: tuple[Rule, ...] = (push_limits, push_projections)
