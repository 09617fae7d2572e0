"""How do values of Python, numpy and pandas become an Arrow column, and of which type?"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Mapping
from types import NoneType
from typing import Any, TypeAlias

from msgspec import Struct

from rdata.errors import DataError
from rdata.lazy import is_loaded, np, pa, pd


class OldType(Struct, frozen=True):
    """The type that a column had when a function got it, and those it then comes back with.

    `untouched` holds the types of the column that a function hands back as it got it. They differ
    from `type` where batches or rows cannot express it: a row's integers are all int64.
    """

    type: pa.DataType
    untouched: tuple[pa.DataType, ...]


OldTypes: TypeAlias = "Mapping[str, OldType]"

# What pyarrow and numpy raise for values that are none, or none of the type: Arrow's errors, too.
_REFUSALS = (ValueError, TypeError, NotImplementedError, OverflowError)


def column_of(values: Any, name: str, origin: str, old: OldType | None = None) -> Any:
    """Make an Arrow column of a list, a numpy array, a pandas Series or an Arrow array.

    NaN counts as null, except in what is Arrow already, which is left as it is. An array of more
    than one dimension becomes a column of tensors. Other values get the type that Arrow infers, or
    the `old` type where that is one that they would have had untouched, and the old type holds
    them. Raises `DataError`, naming `origin` and the column.
    """
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    _check_is_column(values, name, origin)
    try:
        column = inferred(values, None if old is None else old.type)
    except _REFUSALS as error:
        column = None if old is None else _as_exactly(values, old.type)
        if column is None:
            raise DataError(
                f"{origin}: column {name!r} cannot become an Arrow column: {error}"
            ) from error
    if old is None or column.type == old.type:
        return column
    return _restored(values, column, old)


def unshared(values: Any) -> Any:
    """Copy an array that Arrow would take as it lies in memory, which others may write to."""
    if isinstance(values, np.ndarray):
        return values if values.dtype.kind == "O" else values.copy()
    if is_loaded("pandas") and isinstance(values, pd.Series):
        return values if values.dtype == object else values.copy()
    return values


def _check_is_column(values: Any, name: str, origin: str) -> None:
    is_table = isinstance(values, pa.Table) or (
        is_loaded("pandas") and isinstance(values, pd.DataFrame)
    )
    is_single = isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__")
    if is_table or is_single or getattr(values, "ndim", 1) == 0:
        kind = f"{'whole' if is_table else 'single'} {type(values).__name__}"
        raise DataError(
            f"{origin}: column {name!r} is a {kind}, not an array or list with one value for each "
            "row"
        )


def inferred(values: Any, old_type: pa.DataType | None = None) -> Any:
    """Make a column of the type that the values suggest; pairs are a map if the old type is."""
    try:
        if getattr(values, "ndim", 1) > 1:
            return _tensor_column(values)
        if getattr(getattr(values, "dtype", None), "names", None):
            return _struct_column(values)
        column = None
        if old_type is not None and pa.types.is_map(old_type):
            column = _map_column(values, old_type)
        if column is None:
            column = _array(values)
        if pa.types.is_temporal(column.type) and _are_objects(values):
            _check_is_one_kind(values, column)
            return _with_nanoseconds(values, column)
        if pa.types.is_binary(column.type) and _are_objects(values):
            _check_is_no_text(values)
        return column
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        mended = _column_of_mixture(values)
        if mended is None:
            raise
        return mended


def _array(values: Any, type: pa.DataType | None = None) -> Any:
    if isinstance(getattr(values, "dtype", None), (np.dtype, NoneType)):
        return pa.array(values, type, from_pandas=True)
    with warnings.catch_warnings():
        # pyarrow's own use of pandas, of zoned timestamps for one, which users cannot change
        warnings.simplefilter("ignore", DeprecationWarning)
        return pa.array(values, type, from_pandas=True)


def _tensor_column(values: Any) -> Any:
    shape = values.shape[1:]
    if values.dtype.kind not in "iuf" or 0 in shape:
        raise pa.ArrowTypeError(f"there are no tensors of {values.dtype}, shape {shape}")
    if np.ma.is_masked(values):
        raise pa.ArrowTypeError("there are no tensors with nulls in them")
    if not len(values):
        return pa.array([], pa.fixed_shape_tensor(pa.from_numpy_dtype(values.dtype), shape))
    contiguous = values if values.flags.c_contiguous else values.copy(order="C")
    return pa.FixedShapeTensorArray.from_numpy_ndarray(contiguous)


def _struct_column(values: Any) -> Any:
    types = [(name, pa.from_numpy_dtype(values.dtype[name])) for name in values.dtype.names]
    return _array(values, pa.struct(types))


def _map_column(values: Any, old_type: Any) -> Any:
    """A map is shown as a list of pairs, which Arrow alone would take for a list of lists."""
    entries = [entry for entry in values if entry is not None]
    if not all(isinstance(entry, list) for entry in entries):
        return None
    pairs = [pair for entry in entries for pair in entry]
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        return None
    if pairs:
        keys = inferred([key for key, _ in pairs])
        items = inferred([item for _, item in pairs], old_type.item_type)
        return _array(values, pa.map_(keys.type, items.type))
    return _array(values, old_type)


def _are_objects(values: Any) -> bool:
    return getattr(values, "dtype", None) in (None, np.dtype(object))


def _check_is_one_kind(values: Any, column: Any) -> None:
    """Refuse what Arrow changes in silence.

    It takes a number among dates for days, leaves out the hours of a datetime there, and reads
    datetimes without a zone as those of the zone that others have.
    """
    if column.null_count:
        are_valid = column.is_valid().to_pylist()
        values = [value for value, is_valid in zip(values, are_valid, strict=True) if is_valid]
    kinds = sorted({_kind(value) for value in values})
    if len(kinds) > 1:
        raise pa.ArrowInvalid(f"its values are of different kinds: {', '.join(kinds)}")


def _check_is_no_text(values: Any) -> None:
    """Refuse text among bytes, which Arrow would encode."""
    if any(isinstance(value, str) for value in values):
        raise pa.ArrowInvalid("some of its values are text, and others bytes")


def _kind(value: Any) -> str:
    if isinstance(value, np.datetime64):
        return "date" if np.datetime_data(value.dtype)[0] == "D" else "datetime without a zone"
    if isinstance(value, (dt.datetime, dt.time)):
        name = "datetime" if isinstance(value, dt.datetime) else "time"
        return f"{name} {'without' if value.tzinfo is None else 'with'} a zone"
    if isinstance(value, (dt.timedelta, np.timedelta64)):
        return "timedelta"
    return "date" if isinstance(value, dt.date) else type(value).__name__


def _with_nanoseconds(values: Any, column: Any) -> Any:
    """Arrow infers microseconds for pandas' timestamps and timedeltas, which may count more."""
    is_timestamp = pa.types.is_timestamp(column.type)
    if not (is_timestamp or pa.types.is_duration(column.type)) or column.type.unit != "us":
        return column
    if not any(getattr(value, "unit", None) == "ns" for value in values):
        return column
    try:
        precise: Any = pa.timestamp("ns", column.type.tz) if is_timestamp else pa.duration("ns")
        return _array(values, precise)
    except pa.ArrowInvalid:  # others are centuries away
        return column


def _column_of_mixture(values: Any) -> Any:
    """Rows may hold arrays, or mix numpy and Python numbers: Arrow infers no type for these."""
    filled = [value for value in values if value is not None]
    kinds = {type(value) for value in filled}
    try:
        if kinds == {np.ndarray} and len(filled) == len(values):
            shapes = {(value.shape, value.dtype) for value in filled}
            return _tensor_column(np.stack(filled)) if len(shapes) == 1 else None
        are_numbers = all(hasattr(kind, "dtype") or kind in (int, float, bool) for kind in kinds)
        if not are_numbers or np.void in kinds:  # whose values are the fields of a structure
            return None
        plain_values = [value.item() if hasattr(value, "item") else value for value in values]
        return pa.array(plain_values, from_pandas=True)
    except _REFUSALS:
        return None


# -- the old type ----------------------------------------------------------------------------------


def _restored(values: Any, column: Any, old: OldType) -> Any:
    if pa.types.is_null(column.type):
        old_type: Any = old.type
        return pa.nulls(len(column), old_type)
    for untouched in old.untouched:
        if _is_untouched(column.type, untouched):
            restored = _as_type(values, column, old.type)
            if restored is not None and _is_same(restored, column, untouched):
                return restored
    return column


def _is_untouched(type: pa.DataType, untouched: pa.DataType) -> bool:
    """Whether they are equal, but for what depends on the values that a batch happens to have."""
    types = pa.types
    if type == untouched or types.is_null(type):
        return True
    if types.is_decimal(type) and types.is_decimal(untouched):
        return bool(type.scale == untouched.scale)
    if types.is_dictionary(type) and types.is_dictionary(untouched):
        is_ordered = type.ordered == untouched.ordered
        return is_ordered and _is_untouched(type.value_type, untouched.value_type)
    if types.is_list(type) and types.is_list(untouched):
        return _is_untouched(type.value_type, untouched.value_type)
    if types.is_map(type) and types.is_map(untouched):
        are_keys = _is_untouched(type.key_type, untouched.key_type)
        return are_keys and _is_untouched(type.item_type, untouched.item_type)
    if types.is_struct(type) and types.is_struct(untouched):
        return [field.name for field in type] == [field.name for field in untouched] and all(
            _is_untouched(field.type, other.type)
            for field, other in zip(type, untouched, strict=True)
        )
    return False


def _as_type(values: Any, column: Any, type: pa.DataType) -> Any:
    """Make the column anew, of this type; None where there is no way or a value does not fit."""
    try:
        if _is_tensor(type):
            return _tensors(values, type)
        try:
            return _array(values, type)
        except pa.ArrowNotImplementedError:
            encoded = column.dictionary_encode() if pa.types.is_dictionary(type) else column
            return encoded.cast(type)
    except _REFUSALS:
        return None


def _as_exactly(values: Any, type: pa.DataType) -> Any:
    """The same for values whose type Arrow cannot infer."""
    column = _as_type(values, None, type)
    try:
        is_same = column is not None and (_is_tensor(type) or column.to_pylist() == list(values))
    except ValueError:  # arrays, which are not simply equal
        return None
    return column if is_same else None


def _is_tensor(type: pa.DataType) -> bool:
    return isinstance(type, pa.FixedShapeTensorType)


def _tensors(values: Any, type: Any) -> Any:
    """Make tensors of arrays or nested lists; None if their shape differs or a value is rounded."""
    filled = [value for value in values if value is not None]
    given = np.asarray(filled)
    tensors = given.astype(type.value_type.to_pandas_dtype())
    is_same = (tensors == given) | ((tensors != tensors) & (given != given))  # both NaN
    if given.shape[1:] != tuple(type.shape) or not is_same.all():
        return None
    column = _tensor_column(tensors)
    if column.type != type:  # of another order of dimensions
        return None
    places = iter(range(len(filled)))
    return column.take(pa.array([None if value is None else next(places) for value in values]))


def _is_same(restored: Any, column: Any, untouched: pa.DataType) -> bool:
    """Whether no value was rounded or cut to fit the type."""
    types = pa.types
    if types.is_string(untouched) or types.is_large_string(untouched):
        return True  # text never is
    if _is_tensor(restored.type):
        return True  # compared as they were made
    try:
        expected = _chunked(column).cast(untouched)
        return bool(_chunked(restored).cast(untouched, safe=False).equals(expected))
    except pa.ArrowNotImplementedError:
        return True
    except pa.ArrowInvalid:
        return False


def _chunked(column: Any) -> Any:
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
