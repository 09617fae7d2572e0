"""What are the columns of a dataset, and their types?"""

from __future__ import annotations

from msgspec import Struct

from rdata.lazy import pa


class Schema(Struct, frozen=True):
    """Names and Arrow types of the columns; `base_schema` is the `pyarrow.Schema`. As in Ray.

    >>> import pyarrow as pa
    >>> Schema(pa.schema([("name", pa.string()), ("age", pa.int64())]))
    Column  Type
    ------  ----
    name    string
    age     int64
    """

    base_schema: pa.Schema

    @property
    def names(self) -> list[str]:
        """The columns' names, in order."""
        return list(self.base_schema.names)

    @property
    def types(self) -> list[pa.DataType]:
        """The columns' types, in order."""
        return list(self.base_schema.types)

    def __repr__(self) -> str:
        width = max(6, *(len(name) for name in self.names)) if self.names else 6
        rows = [("Column", "Type"), ("-" * 6, "-" * 4)]
        rows += [(name, str(type)) for name, type in zip(self.names, self.types, strict=True)]
        return "\n".join(f"{name:<{width}}  {type}" for name, type in rows)
