"""What is a block, and how are blocks cut, joined and measured?

A block is a `pyarrow.Table` without schema metadata (pandas' notes about its index would be stale
after the first operator). All functions here are pure, and cut without copying.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from msgspec import Struct

from rdata.dataset.values import OldTypes, column_of
from rdata.errors import DataError
from rdata.lazy import pa

TARGET_BLOCK_BYTES = 16 << 20  # larger: a budget holds fewer blocks; smaller: overhead for each
MIN_BLOCKS = 16  # rows made in memory are cut into so many, so that a few workers end together
MIN_SLICE_BYTES = 1 << 20  # but Arrow data is not cut into less than this
DECIMAL128_DIGITS = 38  # the most that Arrow's types hold
DECIMAL256_DIGITS = 76


class BlockMeta(Struct, frozen=True):
    """What the driver knows of a block that lies elsewhere."""

    num_rows: int
    size_bytes: int
    schema: pa.Schema

    @classmethod
    def of(cls, block: pa.Table) -> BlockMeta:
        """Measure a block; a slice counts its own rows only."""
        return cls(block.num_rows, size_of(block), block.schema)


def size_of(block: pa.Table) -> int:
    """The bytes that the block's rows take, whatever buffers they lie in."""
    return int(block.nbytes)


def plain(table: pa.Table) -> pa.Table:
    """The same table without schema metadata."""
    return table if table.schema.metadata is None else table.replace_schema_metadata(None)


def no_rows(schema: pa.Schema) -> pa.Table:
    """A block of these columns and no row."""
    columns = [pa.nulls(0, field.type) for field in schema]  # pa.array([]) would import pandas
    return pa.Table.from_arrays(columns, schema=schema)


def rows_only(num_rows: int) -> pa.Table:
    """A block of `num_rows` rows and no column."""
    return pa.table({"_": pa.nulls(num_rows)}).select([])


def unify_schemas(
    schemas: Iterable[pa.Schema], origin: str, places: Sequence[str] | None = None
) -> pa.Schema:
    """One schema that holds the rows of all: numbers are widened, `null` becomes any other type.

    Instants of several zones, or offsets from UTC, are in UTC then. Columns that only some have are
    appended in the order of their first appearance.

    Raises `DataError`, naming `origin`, the column and both types, where no type holds both.
    `places` say where the schemas come from; without them, they are those of blocks that functions
    made.
    """
    distinct: list[pa.Schema] = []
    found_in: list[str] = []
    for i, schema in enumerate(schemas):
        if not any(schema.equals(known) for known in distinct):
            distinct.append(schema)
            found_in.append(places[i] if places else "")
    if len(distinct) == 1:
        return distinct[0]
    distinct = _in_one_zone(distinct)
    try:
        unified = pa.unify_schemas(distinct, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise DataError(f"{origin}: {_clash(distinct, found_in)}") from error
    for i, field in enumerate(unified):
        if pa.types.is_decimal(field.type):
            unified = unified.set(i, field.with_type(_decimal_for(field, distinct)))
        if _is_bytes(field.type) and any(map(_is_text, _types_of(field.name, distinct))):
            raise DataError(f"{origin}: {_clash(distinct, found_in)}")
    return unified


def _types_of(name: str, schemas: Sequence[pa.Schema]) -> list[pa.DataType]:
    return [schema.field(name).type for schema in schemas if name in schema.names]


def _in_one_zone(schemas: Sequence[pa.Schema]) -> list[pa.Schema]:
    zones: dict[str, set[str]] = {}
    for schema in schemas:
        for field in schema:
            if pa.types.is_timestamp(field.type) and field.type.tz is not None:
                zones.setdefault(field.name, set()).add(field.type.tz)
    several = {name for name, names in zones.items() if len(names) > 1}
    found = list(schemas)
    for at, schema in enumerate(found):
        for name in several.intersection(schema.names):
            field = schema.field(name)
            if pa.types.is_timestamp(field.type) and field.type.tz is not None:
                in_utc = field.with_type(pa.timestamp(field.type.unit, "UTC"))
                schema = schema.set(schema.get_field_index(name), in_utc)
        found[at] = schema
    return found


def _is_text(type: pa.DataType) -> bool:
    types = pa.types
    return types.is_string(type) or types.is_large_string(type) or types.is_string_view(type)


def _is_bytes(type: pa.DataType) -> bool:
    types = pa.types
    return types.is_binary(type) or types.is_large_binary(type) or types.is_binary_view(type)


def _decimal_for(field: pa.Field[Any], schemas: Sequence[pa.Schema]) -> Any:
    """Widen a decimal that is to hold integers, too: Arrow forgets the digits behind its point."""
    types = _types_of(field.name, schemas)
    digits = [
        len(str(2 ** (type.bit_width - pa.types.is_signed_integer(type))))
        for type in types
        if pa.types.is_integer(type)
    ]
    precision = min(max(digits, default=0) + field.type.scale, DECIMAL256_DIGITS)
    if precision <= field.type.precision:
        return field.type
    if precision <= DECIMAL128_DIGITS:
        return pa.decimal128(precision, field.type.scale)
    return pa.decimal256(precision, field.type.scale)


def _clash(schemas: Sequence[pa.Schema], places: Sequence[str]) -> str:
    first: dict[str, tuple[pa.DataType, str]] = {}
    for schema, place in zip(schemas, places, strict=True):
        for field in schema:
            known, before = first.setdefault(field.name, (field.type, place))
            if known == field.type or _has_common_type(known, field.type):
                continue
            clash = (
                f"column {field.name!r} is {known} in {before or 'one block'} and {field.type} in"
            )
            if place:
                return f"{clash} {place}; no type holds both"
            return f"{clash} another; make the function return one type for it, e.g. with astype"
    return "the schemas cannot be brought together"


def _has_common_type(first: pa.DataType, second: pa.DataType) -> bool:
    if (_is_text(first) and _is_bytes(second)) or (_is_bytes(first) and _is_text(second)):
        return False  # Arrow would encode the text
    schemas = [pa.schema([("_", first)]), pa.schema([("_", second)])]
    try:
        pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return False
    return True


def conform(block: pa.Table, schema: pa.Schema, origin: str) -> pa.Table:
    """Bring a block to `schema`: cast columns, reorder them, add missing ones as nulls.

    Raises `DataError`, naming `origin` and the column, where a value does not fit.
    """
    if block.schema.equals(schema):
        return block
    columns = []
    present = set(block.column_names)
    for field in schema:
        if field.name not in present:
            columns.append(pa.nulls(block.num_rows, field.type))
            continue
        column = block.column(field.name)
        if column.type != field.type:
            try:
                column = column.cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise DataError(
                    f"{origin}: column {field.name!r}, which is {column.type} here, does not fit "
                    f"the type {field.type} that it has elsewhere: {error}"
                ) from error
        columns.append(column)
    if not columns:
        return rows_only(block.num_rows)
    return pa.Table.from_arrays(columns, schema=schema)


def concat(blocks: Sequence[pa.Table], origin: str) -> pa.Table:
    """Join blocks into one, without copying where their schemas agree; see `unify_schemas`.

    Blocks without rows matter only where all have none: then the first with columns counts.
    """
    filled = [block for block in blocks if block.num_rows]
    if not filled:
        with_columns = [block for block in blocks if block.num_columns]
        return (with_columns or list(blocks) or [pa.table({})])[0]
    if len(filled) == 1:
        return filled[0]
    schema = unify_schemas((block.schema for block in filled), origin)
    if not schema.names:
        return rows_only(sum(block.num_rows for block in filled))
    return pa.concat_tables([conform(block, schema, origin) for block in filled])


def part(block: pa.Table, start: int, num_rows: int) -> pa.Table:
    """At most so many rows from `start` on; Arrow's `slice` makes up rows where no column is."""
    return block.slice(start, min(num_rows, block.num_rows - start))


def rebatch(blocks: Iterable[pa.Table], num_rows: int, origin: str) -> Iterator[pa.Table]:
    """Regroup rows, in order, into tables of `num_rows`; the last may have fewer."""
    pending: list[pa.Table] = []
    pending_rows = 0
    for block in blocks:
        start = 0
        while block.num_rows - start >= num_rows - pending_rows:
            take = num_rows - pending_rows
            piece = block.slice(start, take)
            yield concat([*pending, piece], origin) if pending else piece
            start += take
            pending, pending_rows = [], 0
        if start < block.num_rows:
            pending.append(part(block, start, num_rows))
            pending_rows += block.num_rows - start
    if pending:
        yield concat(pending, origin)


def shape(
    blocks: Iterable[pa.Table], origin: str, target_bytes: int = TARGET_BLOCK_BYTES
) -> Iterator[pa.Table]:
    """Join small blocks and cut large ones to about `target_bytes`; at least one, maybe empty.

    The boundaries depend on the rows alone, so that a task that runs again gives the same blocks.
    """
    pending: list[pa.Table] = []
    pending_bytes = 0
    empty: pa.Table | None = None
    is_any = False
    for block in blocks:
        if block.num_rows == 0:
            if empty is None or not empty.num_columns:
                empty = block
            continue
        size_bytes = size_of(block)
        if pending and pending_bytes + size_bytes > target_bytes:
            yield concat(pending, origin)
            is_any = True
            pending, pending_bytes = [], 0
        if size_bytes > 2 * target_bytes:
            yield from cut(block, size_bytes // target_bytes)
            is_any = True
        else:
            pending.append(block)
            pending_bytes += size_bytes
    if pending:
        yield concat(pending, origin)
    elif not is_any:
        yield pa.table({}) if empty is None else empty


def cut(block: pa.Table, num_pieces: int) -> list[pa.Table]:
    """Cut a block into `num_pieces` of nearly equal length, in order, none of them empty."""
    num_pieces = max(1, min(num_pieces, block.num_rows))
    bounds = [block.num_rows * i // num_pieces for i in range(num_pieces + 1)]
    return [block.slice(start, stop - start) for start, stop in pairwise(bounds)]


def default_cut(block: pa.Table) -> list[pa.Table]:
    """Cut a table that a program holds in memory: see `MIN_BLOCKS` and `MIN_SLICE_BYTES`."""
    size_bytes = size_of(block)
    num_pieces = min(MIN_BLOCKS, size_bytes // MIN_SLICE_BYTES)
    return cut(block, max(num_pieces, size_bytes // TARGET_BLOCK_BYTES, 1))


def table_of_rows(
    rows: Sequence[Mapping[str, Any]], origin: str, old: OldTypes | None = None
) -> pa.Table:
    """Make a block of rows; a key that a row lacks is null there. For `old` see `column_of`.

    Raises `DataError`, naming `origin`, for keys that are not text, and for a column whose values
    have no common Arrow type.
    """
    if not rows:
        return pa.table({})
    names = list(rows[0])
    if any(len(row) != len(names) for row in rows):
        names = list(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, Any] = {}
    for name in names:
        if not isinstance(name, str):
            raise DataError(f"{origin}: a row has the key {name!r}; column names must be text")
        try:
            values = [row[name] for row in rows]
        except KeyError:
            if len(names) == len(rows[0]):  # as many keys in each row, but others
                names = list(dict.fromkeys(key for row in rows for key in row))
                filled = [dict.fromkeys(names) | dict(row) for row in rows]
                return table_of_rows(filled, origin, old)
            values = [row.get(name) for row in rows]
        columns[name] = column_of(values, name, origin, (old or {}).get(name))
    return pa.table(columns) if columns else rows_only(len(rows))


def pylist(block: pa.Table) -> list[dict[str, Any]]:
    """The rows as dicts of Python values."""
    if not block.num_columns:
        return [{} for _ in range(block.num_rows)]
    names = block.column_names
    columns = [_python_values(*named) for named in zip(names, block.columns, strict=True)]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _python_values(name: str, column: pa.ChunkedArray[Any]) -> list[Any]:
    if isinstance(column.type, pa.FixedShapeTensorType):  # whose own lists are flat
        return [tensor.to_numpy().tolist() if tensor.is_valid else None for tensor in column]
    if pa.types.is_time64(column.type) and column.type.unit == "ns":
        try:
            column = column.cast(pa.time64("us"))
        except pa.ArrowInvalid as error:
            raise DataError(
                f"column {name!r} has times with nanoseconds, which those of Python cannot have; "
                'cast it to time64("us"), or use map_batches with batch_format="pyarrow"'
            ) from error
    values: list[Any] = column.to_pylist()
    return values
