"""Which columns do the names of folders tell? `year=2024/month=1/x.parquet`, as Hive writes them.

As Arrow's datasets read them: a column is of int32 where all its values are, else of strings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from rdata.lazy import pa

Partition = Mapping[str, str | None]  # of a file: values by column, as text; None: null

_NULL = "__HIVE_DEFAULT_PARTITION__"


def partition_of(below: str) -> Partition:
    """What the folders of a path, which begins below the folder that was asked for, tell."""
    partition: dict[str, str | None] = {}
    for folder in below.split("/")[:-1]:
        name, equals, text = folder.partition("=")
        if name and equals:
            partition.setdefault(unquote(name), None if text == _NULL else unquote(text))
    return partition


def partition_schema(partitions: Sequence[Partition]) -> pa.Schema:
    """The columns that the folders of any file tell, and their types."""
    texts: dict[str, list[str]] = {}
    for partition in partitions:
        for name, text in partition.items():
            texts.setdefault(name, []).extend([] if text is None else [text])
    return pa.schema([(name, _type_of(values)) for name, values in texts.items()])


def _type_of(texts: Sequence[str]) -> pa.DataType:
    try:
        pa.array(texts, pa.string()).cast(pa.int32())
    except pa.ArrowInvalid:
        return pa.string()
    return pa.int32() if texts else pa.string()


def with_partition(table: pa.Table, partition: Partition, schema: pa.Schema) -> pa.Table:
    """Add the columns to rows of a file, as far as `schema` has them, in its types."""
    for name, text in partition.items():
        if name in schema.names:
            value = pa.scalar(text, pa.string()).cast(schema.field(name).type)
            table = table.append_column(name, pa.repeat(value, table.num_rows))
    return table
