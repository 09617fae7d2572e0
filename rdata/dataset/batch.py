"""What does user code see of a block, and how does what it returns become one?

| batch format | user code sees                       | integers and bools with nulls are | NaN |
|--------------|--------------------------------------|-----------------------------------|-----|
| `"numpy"`    | a dict from column name to array     | masked arrays (`numpy.ma`)        | null |
| `"pandas"`   | a `pandas.DataFrame`                 | nullable dtypes (`Int64`, …)      | null |
| `"pyarrow"`  | a `pyarrow.Table`                    | themselves                        | NaN |

So integers stay integers, and nulls stay nulls, on the way in and back out. In floats, numpy and
pandas show a null as NaN, and a NaN that comes back is a null. Numpy and pandas batches are
private copies: they may be changed in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from rdata.dataset.block import plain, rows_only
from rdata.dataset.columns import repeated
from rdata.dataset.values import OldTypes, column_of, unshared
from rdata.errors import DataError, OptionError
from rdata.lazy import is_loaded, np, pa, pd

BatchFormat = Literal["numpy", "pandas", "pyarrow"]
_FORMATS = ("numpy", "pandas", "pyarrow")


def resolve_format(batch_format: str | None, default: BatchFormat = "numpy") -> BatchFormat:
    """The format that the argument means: Ray's "default", and None, mean `default`.

    Raises `OptionError` for any other name.
    """
    if batch_format is None or batch_format == "default":
        return default
    for known in _FORMATS:
        if batch_format == known:
            return known  # type: ignore[return-value]  # a member of the literal
    raise OptionError(
        f"batch_format={batch_format!r} is unknown; use one of {', '.join(map(repr, _FORMATS))}"
    )


# -- block → batch ---------------------------------------------------------------------------------


def to_batch(block: pa.Table, batch_format: BatchFormat) -> Any:
    """Give the rows of a block in a batch format."""
    if batch_format == "pyarrow":
        return block
    if batch_format == "pandas":
        return to_pandas(block)
    return to_numpy(block)


def to_numpy(block: pa.Table) -> dict[str, np.ndarray[Any, Any]]:
    """Give the columns as writable arrays; strings and nested values as arrays of objects.

    Tensors are one array of more dimensions, or, if some are null, an array of arrays.
    """
    return {
        name: _writable(_numpy_column(column))
        for name, column in zip(block.column_names, block.columns, strict=True)
    }


def _numpy_column(column: Any) -> Any:
    if isinstance(column.type, pa.FixedShapeTensorType):
        return _tensors(column)
    if pa.types.is_nested(column.type):
        return column.to_pandas(integer_object_nulls=True).to_numpy()
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)  # of a slice, to_numpy loses the nulls
    if column.null_count and _loses_type_with_nulls(column.type):
        fill = False if pa.types.is_boolean(column.type) else 0
        return np.ma.MaskedArray(
            _writable(column.fill_null(fill).to_numpy()), mask=column.is_null().to_numpy()
        )
    return column.to_numpy()


def _tensors(column: Any) -> Any:
    """One array of all tensors or, if some are null, an array of objects."""
    if column.null_count:
        tensors = np.empty(len(column), object)
        for i, tensor in enumerate(column):
            tensors[i] = tensor.to_numpy().copy() if tensor.is_valid else None
        return tensors
    joined = column.combine_chunks()
    if isinstance(joined, pa.ChunkedArray):  # no chunk at all, or too many bytes for one
        joined = pa.concat_arrays(joined.chunks) if joined.num_chunks else _no_tensors(column)
    return joined.to_numpy_ndarray()


def _no_tensors(column: Any) -> Any:
    return pa.ExtensionArray.from_storage(column.type, pa.array([], column.type.storage_type))


def _loses_type_with_nulls(type: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type) or pa.types.is_boolean(type))


def _writable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array if array.flags.writeable else array.copy()


def to_pandas(block: pa.Table) -> pd.DataFrame:
    """Give a DataFrame with pandas' default dtypes, but nullable ones where nulls need them."""
    nullable = [
        i
        for i, column in enumerate(block.columns)
        if _loses_type_with_nulls(column.type) and column.null_count
    ]
    if nullable:
        return _to_pandas_nullable(block, nullable)
    frame = block.to_pandas(use_threads=False, integer_object_nulls=True)
    for name in _columns_not_copied(block):
        frame[name] = frame[name].copy()
    for name, column in zip(block.column_names, block.columns, strict=True):
        if isinstance(column.type, pa.FixedShapeTensorType):  # which pandas would show flat
            tensors = list(_writable(_tensors(column)))
            frame[name] = pd.Series(tensors, frame.index, dtype=object)
    return frame


def _columns_not_copied(block: pa.Table) -> list[str]:
    """Name the columns that Arrow hands to pandas as they lie, which makes them read-only.

    It does so for one chunk of fixed-width values that shares its type with no other column, and
    for the codes of categories.
    """
    found = []
    by_type: dict[pa.DataType, list[str]] = {}
    for name, column in zip(block.column_names, block.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            found.append(name)
        elif pa.types.is_primitive(column.type):
            is_one = column.num_chunks == 1 and not column.null_count
            by_type.setdefault(column.type, []).append(name if is_one else "")
    found += [names[0] for names in by_type.values() if len(names) == 1 and names[0]]
    return found


def _to_pandas_nullable(block: pa.Table, nullable: list[int]) -> pd.DataFrame:
    dtypes = {
        pa.int8(): pd.Int8Dtype(),
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.uint8(): pd.UInt8Dtype(),
        pa.uint16(): pd.UInt16Dtype(),
        pa.uint32(): pd.UInt32Dtype(),
        pa.uint64(): pd.UInt64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    special = block.select(nullable).to_pandas(types_mapper=dtypes.get, use_threads=False)
    others = [i for i in range(block.num_columns) if i not in set(nullable)]
    usual = to_pandas(block.select(others)) if others else pd.DataFrame(index=special.index)
    joined = pd.concat([usual, special], axis=1)
    return joined[block.column_names]


# -- batch → block ---------------------------------------------------------------------------------


def to_block(
    batch: Any, origin: str, old: OldTypes | None = None, *, may_share: bool = False
) -> pa.Table:
    """Make a block of what user code gave: a dict of columns, a DataFrame or an Arrow table.

    What is Arrow stays as it is; for other columns, `old` has the types that they may get back.
    Those are copied, for the function may fill the same arrays again, unless they `may_share` their
    memory with the block.

    Raises `DataError`, naming `origin` (the operator and its function) and the column, for
    anything else, columns of different lengths, and values without an Arrow type.
    """
    if isinstance(batch, pa.Table):
        _check_names(batch.column_names, origin)
        return plain(batch)
    if isinstance(batch, pa.RecordBatch):
        return to_block(pa.Table.from_batches([batch]), origin)
    if isinstance(batch, Mapping):
        return _block_of_columns(batch, origin, old or {}, may_share)
    if is_loaded("pandas") and isinstance(batch, pd.DataFrame):
        return _block_of_frame(batch, origin, old or {}, may_share)
    raise DataError(f"{origin} returned {_describe(batch)}; {_ADVICE}")


_ADVICE = (
    "a batch is a dict from column name to array or list, a pandas.DataFrame or a pyarrow.Table "
    "(to give several batches, yield them)"
)


def _describe(value: Any) -> str:
    if value is None:
        return "None (is a return missing?)"
    if isinstance(value, list) and value and _is_row(value[0]):
        return "a list of rows (flat_map takes functions that return rows)"
    return f"a value of type {type(value).__module__}.{type(value).__qualname__}"


def _is_row(value: Any) -> bool:
    """Whether it is a dict, and not one of arrays or lists, which might be a batch."""
    return isinstance(value, Mapping) and not all(
        hasattr(one, "__len__") and not isinstance(one, (str, bytes)) for one in value.values()
    )


def _block_of_columns(
    batch: Mapping[Any, Any], origin: str, old: OldTypes, may_share: bool
) -> pa.Table:
    if not batch:
        return pa.table({})
    _check_names(list(batch), origin)
    columns = {
        name: column_of(values if may_share else unshared(values), name, origin, old.get(name))
        for name, values in batch.items()
    }
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name!r}: {length}" for name, length in list(lengths.items())[:8])
        raise DataError(f"{origin}: the columns have different lengths ({shown})")
    return pa.table(columns)


def _block_of_frame(frame: pd.DataFrame, origin: str, old: OldTypes, may_share: bool) -> pa.Table:
    if not len(frame.columns):
        return rows_only(len(frame))
    _check_names(list(frame.columns), origin)  # before a dict loses one of two
    # Column by column is faster than pyarrow's own way where there are many.
    return _block_of_columns(dict(frame.items()), origin, old, may_share)


def _check_names(names: list[Any], origin: str) -> None:
    for name in names:
        if not isinstance(name, str):
            raise DataError(f"{origin}: column name {name!r} is not text; use rename, or str()")
    twice = repeated(names)
    if twice is not None:
        raise DataError(f"{origin}: there is more than one column named {twice!r}")
