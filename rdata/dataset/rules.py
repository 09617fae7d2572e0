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
    rebuilt,
    static_schemas,
    taken_apart,
)
from rdata.lazy import pa

Rewritten = tuple[Operator, tuple[str, ...]]
Rule = Callable[[Operator], Rewritten]
Columns = frozenset[str] | None  # those that are needed; None: all, as they are
Projected = tuple[Unary | None, Columns, str]  # what is left, what that needs, and a note

_ROW_FOR_ROW = (SelectColumns, DropColumns, RenameColumns, MapRows)


def push_limits(operator: Operator) -> Rewritten:
    """Take a limit before operators that give one row for each, and into the source."""
    operators, source = taken_apart(operator)
    kept: list[Unary] = []
    notes: list[str] = []
    limit: Limit | None = None  # on its way to the source
    for each in operators:
        if isinstance(each, Limit):
            if limit is None or each.num_rows < limit.num_rows:
                limit = each
            continue
        if limit is not None:
            if isinstance(each, _ROW_FOR_ROW):
                notes.append(f"{limit.label} before {each.label}")
            else:
                notes.append(f"{limit.label} not before {each.label}: {_why_all_rows(each)}")
                kept.append(limit)
                limit = None
        kept.append(each)
    if limit is not None:
        match source:
            case Read():
                notes.append(f"{limit.label} into {source.label}")
                source = Read(source.source.with_limit(limit.num_rows))
                kept.append(limit)
            case InMemory():
                notes.append(f"{limit.label} into {source.label}")
                source = _limited_blocks(source, limit)
            case _:
                kept.append(limit)
    return rebuilt(source, kept), tuple(notes)


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
    operators, source = taken_apart(operator)
    kept: list[Unary] = []
    notes: list[str] = []
    needed: Columns = None
    for each, input in zip(operators, static_schemas(operator)[1:], strict=True):
        projected, needed, note = _projected(each, needed, input)
        if projected is not None:
            kept.append(projected)
        if note:
            notes.append(note)
    source, note = _projected_source(source, needed)
    return rebuilt(source, kept), (*notes, note) if note else tuple(notes)


def _projected(operator: Unary, needed: Columns, input: pa.Schema | None) -> Projected:
    """Rewrite for a consumer that needs these columns; `input` is the schema of what comes in."""
    match operator:
        case Aggregate(_, sink):
            used = (name for aggregate in sink.aggregates for name in aggregate.columns)
            return operator, frozenset(used), ""
        case SelectColumns(_, columns):
            if needed is not None and input is not None:
                columns = tuple(name for name in columns if name in needed)
            return SelectColumns(operator.input, columns), frozenset(columns), ""
        case DropColumns():
            return _without_drop(operator, needed, input)
        case RenameColumns():
            return _before_rename(operator, needed, input)
        case AddColumn(_, column) if needed is not None and column not in needed:
            return None, needed, f"left out {operator.label}: nobody uses it"
        case MapRows() if needed is not None and not needed:
            return None, needed, f"left out {operator.label}: only rows are counted"
        case Limit() | Repartition():
            return operator, needed, ""
    if needed is None:
        return operator, None, ""
    return operator, None, f"no projection before {operator.label}: its function sees all columns"


def _without_drop(drop: DropColumns, needed: Columns, input: pa.Schema | None) -> Projected:
    if input is None:  # whether the columns are there is seen only when it runs
        return drop, None, ""
    dropped = set(drop.columns)
    kept = tuple(name for name in input.names if name not in dropped)
    if needed is not None and needed.issubset(kept):
        return None, needed, ""
    return SelectColumns(drop.input, kept), frozenset(kept), ""


def _before_rename(rename: RenameColumns, needed: Columns, input: pa.Schema | None) -> Projected:
    if needed is None or input is None:
        return rename, None, ""
    new = renamed(input.names, rename.names)
    if not needed.issubset(new):  # an error, which must not find the old name below
        return rename, None, ""
    pairs = {old: name for old, name in zip(input.names, new, strict=True) if name in needed}
    changed = {old: name for old, name in pairs.items() if old != name}
    left = replace(rename, names=changed) if changed else None
    return left, frozenset(pairs), ""


def _projected_source(operator: Operator, needed: Columns) -> tuple[Operator, str]:
    match operator:
        case Read(source) if needed is not None:
            present = source.schema().names
            wanted = [name for name in present if name in needed]
            if len(wanted) == len(present):
                return operator, ""
            note = f"{len(wanted)} of {len(present)} columns from {operator.label}"
            return Read(source.with_columns(wanted)), note
        case InMemory(origin, blocks) if needed is not None:
            wanted = [name for name in blocks[0].column_names if name in needed]
            return InMemory(origin, tuple(block.select(wanted) for block in blocks)), ""
    return operator, ""


RULES: tuple[Rule, ...] = (push_limits, push_projections)
