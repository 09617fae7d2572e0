"""With which type does a column come back that a function did not touch?

Some types have no form of their own in a batch or row: an int8 is an `int`, a timestamp with a
zone a `datetime64`, which has none. What comes back as such is given the type that it had. Where a
function made something else, that stays, so only the very types count that come back from a
column which nothing has touched; they are found by sending a made-up value there and back.
"""

from __future__ import annotations

import decimal
from functools import lru_cache
from typing import Any, Literal

from rdata.dataset.batch import BatchFormat, to_batch
from rdata.dataset.block import pylist
from rdata.dataset.values import OldType, OldTypes, inferred
from rdata.lazy import pa

Shown = BatchFormat | Literal["rows"]


def old_types(schema: pa.Schema, shown: Shown) -> OldTypes:
    """What is to be known of the columns that a function gets, in the format that it gets them."""
    if shown == "pyarrow":  # which expresses all types: what comes back is meant
        return {}
    return {field.name: _old_type(field.type, shown) for field in schema}


@lru_cache(maxsize=4096)
def _old_type(type: pa.DataType, shown: Shown) -> OldType:
    found: list[pa.DataType] = []
    for nulls in ([], [None]):  # with which batches show integers and tensors in other ways
        try:
            column = inferred(_shown(_sample(type, nulls), shown), type)
        except (ValueError, TypeError, NotImplementedError):
            continue  # Arrow has to be told the type of such values
        if column.type not in found:
            found.append(column.type)
    return OldType(type, tuple(found))


def _shown(column: Any, shown: Shown) -> Any:
    block = pa.table({"_": column})
    return [row["_"] for row in pylist(block)] if shown == "rows" else to_batch(block, shown)["_"]


def _sample(type: Any, nulls: list[None]) -> Any:
    if isinstance(type, pa.BaseExtensionType):
        values = [_value(type.storage_type, []), *nulls]
        return pa.ExtensionArray.from_storage(type, pa.array(values, type.storage_type))
    return pa.array([_value(type, nulls), *nulls], type)


def _value(type: Any, nulls: list[None]) -> Any:
    """Some value of the type that is null nowhere, except that lists end with `nulls`."""
    types = pa.types
    if types.is_dictionary(type) or types.is_run_end_encoded(type):
        return _value(type.value_type, nulls)
    if types.is_struct(type):
        return {field.name: _value(field.type, nulls) for field in type}
    if types.is_map(type):
        return [(_value(type.key_type, nulls), _value(type.item_type, nulls))]
    if types.is_fixed_size_list(type):
        value = _value(type.value_type, nulls)
        return [value] * (type.list_size - len(nulls)) + nulls
    if hasattr(type, "value_type"):
        return [_value(type.value_type, nulls), *nulls]
    if types.is_decimal(type):
        return decimal.Decimal((0, (9,) * type.precision, -type.scale))
    if types.is_fixed_size_binary(type):
        return bytes(type.byte_width)
    if types.is_boolean(type):
        return False
    if types.is_integer(type) or types.is_floating(type) or types.is_temporal(type):
        return 0
    return None if types.is_null(type) else ""
