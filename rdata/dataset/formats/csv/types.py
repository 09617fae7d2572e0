"""Which Arrow type does a column type, as users write one, stand for?"""

from __future__ import annotations

import datetime as dt
import decimal
import inspect
import re
from typing import Any, cast

from rdata.errors import OptionError
from rdata.lazy import pa

_PYTHON_TYPES = {
    bool: "bool",
    int: "int64",
    float: "float64",
    str: "string",
    bytes: "binary",
    dt.datetime: "timestamp[us]",
    dt.date: "date32",
    dt.time: "time64[us]",
    dt.timedelta: "duration[us]",
}
# Names of numpy and pandas dtypes that Arrow does not know; others it does, in lower case.
_DTYPE_NAMES = {
    "object": "string",
    "str": "string",
    "boolean": "bool",
    "text": "string",
    "float": "float64",
    "int": "int64",
}
_DECIMAL = re.compile(r"(decimal(?:128|256)?)\(\s*(\d+)\s*,\s*(-?\d+)\s*\)")
_DATETIME = re.compile(
    r"(?:datetime64|timestamp)\[\s*(s|ms|us|ns)\s*(?:,\s*(?:tz\s*=\s*)?(.+?)\s*)?\]"
)


def arrow_type(argument: str, wanted: Any) -> pa.DataType:
    """Give the Arrow type for `wanted`: Arrow's own, its name, or a Python, numpy or pandas type.

    Raises `OptionError`, naming the argument, for anything else.

    >>> arrow_type("default_column_type", "float64")
    DataType(double)
    >>> arrow_type("column_types: 'seen'", "datetime64[ns, UTC]")
    TimestampType(timestamp[ns, tz=UTC])
    >>> arrow_type("column_types: 'kind'", "category")
    DictionaryType(dictionary<values=string, indices=int32, ordered=0>)
    """
    if isinstance(wanted, pa.DataType):
        return wanted
    if hasattr(wanted, "pyarrow_dtype"):  # pandas.ArrowDtype
        return cast("pa.DataType", wanted.pyarrow_dtype)
    if wanted is decimal.Decimal:
        raise OptionError(f"{argument}: a decimal needs its digits, such as 'decimal128(12, 2)'")
    name = _type_name(wanted)
    found = None if name is None else _named_type(name)
    if found is None:
        raise OptionError(
            f"{argument}: {wanted!r} names no Arrow type; give one such as 'int64', "
            "'float64', 'string', 'bool', 'date32', 'timestamp[ms]', 'decimal128(12, 2)', "
            "'category', or a pyarrow.DataType"
        )
    return found


def _type_name(wanted: Any) -> str | None:
    if isinstance(wanted, str):
        return wanted.strip()
    try:
        if wanted in _PYTHON_TYPES:
            return _PYTHON_TYPES[wanted]
    except TypeError:  # an instance without a hash
        return None
    if inspect.isclass(wanted) and hasattr(wanted, "dtype"):  # numpy.int32, the class
        return wanted.__name__.rstrip("_")
    if getattr(wanted, "kind", "") == "U":  # numpy.dtype("U5")
        return "string"
    name = getattr(wanted, "name", None)  # numpy.dtype, pandas.Int64Dtype()
    return name if isinstance(name, str) else None


def _named_type(name: str) -> pa.DataType | None:
    if decimal_match := _DECIMAL.fullmatch(name):
        kind, precision, scale = decimal_match.groups()
        make = pa.decimal256 if kind == "decimal256" else pa.decimal128
        return make(int(precision), int(scale))
    if time_match := _DATETIME.fullmatch(name):
        unit: Any = time_match[1]
        return pa.timestamp(unit, tz=time_match[2])
    if name.startswith("string["):  # pandas: string[pyarrow]
        return pa.string()
    if name == "category":
        return pa.dictionary(pa.int32(), pa.string())
    alias: Any = _DTYPE_NAMES.get(name.lower(), name.lower())
    try:
        return cast("pa.DataType", pa.type_for_alias(alias))
    except ValueError:
        return None
