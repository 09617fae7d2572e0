"""Where can the rows of a dataset come from?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rdata.arguments import whole_number
from rdata.dataset.batch import to_block
from rdata.dataset.block import (
    MIN_BLOCKS,
    conform,
    cut,
    default_cut,
    plain,
    table_of_rows,
    unify_schemas,
)
from rdata.dataset.dataset import Dataset
from rdata.dataset.formats.csv import csv_options
from rdata.dataset.formats.csv_source import csv_source
from rdata.dataset.formats.parquet_source import parquet_source
from rdata.dataset.formats.paths import PathArgument
from rdata.dataset.formats.rows import range_source
from rdata.dataset.logical import InMemory, Read
from rdata.dataset.options import columns_argument, positive
from rdata.errors import OptionError
from rdata.lazy import pa, pd


def range(n: int, *, override_num_blocks: int | None = None) -> Dataset:
    """The integers from 0 to `n - 1`, in a column `id`.

    >>> import rdata
    >>> rdata.range(3).take_all()
    [{'id': 0}, {'id': 1}, {'id': 2}]
    """
    num_rows = whole_number("range: n", n, 0)
    return Dataset(Read(range_source(num_rows, _num_blocks("range", override_num_blocks))))


def from_items(items: Sequence[Any], *, override_num_blocks: int | None = None) -> Dataset:
    """Rows from a list: dicts are rows; anything else goes into a column `item`.

    Makes 16 blocks, or as many as there are items, so that workers have something to share.

    >>> import rdata
    >>> rdata.from_items(["a", "b"]).take_all()
    [{'item': 'a'}, {'item': 'b'}]
    """
    values = list(items)
    are_rows = all(isinstance(value, Mapping) for value in values)
    rows = values if are_rows else [{"item": value} for value in values]
    table = table_of_rows(rows, "from_items")
    num_blocks = _num_blocks("from_items", override_num_blocks) or MIN_BLOCKS
    return _in_memory("from_items", cut(table, num_blocks))


def from_pandas(
    dfs: pd.DataFrame | Sequence[pd.DataFrame], *, override_num_blocks: int | None = None
) -> Dataset:
    """Rows from one DataFrame, or several. Their index is left out; NaN becomes null.

    >>> import pandas as pd
    >>> import rdata
    >>> rdata.from_pandas(pd.DataFrame({"a": [1, 2]})).sum("a")
    3
    """
    frames = list(dfs) if isinstance(dfs, (list, tuple)) else [dfs]
    for frame in frames:
        if not isinstance(frame, pd.DataFrame):
            raise OptionError(f"from_pandas takes DataFrames, not {type(frame).__name__}")
    tables = [to_block(frame, "from_pandas", may_share=True) for frame in frames]
    return _of_tables("from_pandas", tables, override_num_blocks)


def from_arrow(
    tables: pa.Table | Sequence[pa.Table], *, override_num_blocks: int | None = None
) -> Dataset:
    """Rows from one `pyarrow.Table`, or several, without copying.

    >>> import pyarrow as pa
    >>> import rdata
    >>> rdata.from_arrow(pa.table({"a": [1, 2]})).max("a")
    2
    """
    given = list(tables) if isinstance(tables, (list, tuple)) else [tables]
    for table in given:
        if not isinstance(table, pa.Table):
            raise OptionError(f"from_arrow takes pyarrow Tables, not {type(table).__name__}")
    blocks = [to_block(table, "from_arrow") for table in given]
    return _of_tables("from_arrow", blocks, override_num_blocks)


def _of_tables(origin: str, tables: Sequence[pa.Table], override_num_blocks: int | None) -> Dataset:
    if not tables:
        raise OptionError(f"{origin}: the list is empty; give at least one, which may have no row")
    places = [f"number {i + 1} of the list" for i, _ in enumerate(tables)]
    schema = unify_schemas((table.schema for table in tables), origin, places)
    tables = [conform(table, schema, origin) for table in tables]
    num_blocks = _num_blocks(origin, override_num_blocks)
    if num_blocks is not None:
        return _in_memory(origin, cut(pa.concat_tables(tables), num_blocks))
    return _in_memory(origin, [piece for table in tables for piece in default_cut(table)])


def _in_memory(origin: str, blocks: Sequence[pa.Table]) -> Dataset:
    return Dataset(InMemory(origin, tuple(plain(block) for block in blocks)))


def _num_blocks(method: str, override_num_blocks: int | None) -> int | None:
    if override_num_blocks is None:
        return None
    return positive(override_num_blocks, method, "override_num_blocks")


def read_csv(
    paths: PathArgument, *, override_num_blocks: int | None = None, **csv_args: Any
) -> Dataset:
    """Rows from CSV files: a path, folder, glob, URL that fsspec knows, or a list of these.

    One schema for all files, from samples of them; large files are read in parallel ranges of
    about 40 MiB. `csv_args` say how to understand the files: `delimiter`, `header`,
    `column_names`, `column_types`, `null_values`, `encoding`, … (docs/csv.md has them all). Names
    of folders (`year=2024/`) tell no columns here, as they do for `read_parquet`.

    Raises InputNotFoundError (a FileNotFoundError) and the like at once; CsvTypeError,
    CsvParseError and the like when it runs, with file, line, column, value, and the argument
    that helps.
    """
    options = csv_options(**csv_args)
    num_blocks = _num_blocks("read_csv", override_num_blocks)
    return Dataset(Read(csv_source(paths, options, num_blocks)))


def read_parquet(
    paths: PathArgument,
    *,
    columns: str | Sequence[str] | None = None,
    partitioning: Literal["hive"] | None = "hive",
    override_num_blocks: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Rows from Parquet files: a path, folder, glob, URL that fsspec knows, or a list of these.

    `columns` are those to read (or the one), in this order. Files may differ in columns (missing
    ones are null) and in types that one type can hold, such as integers and floats.

    Below a folder that is given, or that a glob begins with, folders named `key=value` tell columns
    that come after those of the files: int32 if all values are, else strings, with null for
    `__HIVE_DEFAULT_PARTITION__`. They count for more than columns of the files with such a name.
    `partitioning=None` takes no notice of folders' names.

    Raises InputNotFoundError (a FileNotFoundError), and DataError for files of another format.
    """
    num_blocks = _num_blocks("read_parquet", override_num_blocks)
    wanted = None if columns is None else columns_argument("read_parquet", columns, at_least=0)
    if partitioning not in ("hive", None):
        raise OptionError(f'read_parquet: partitioning is "hive" or None, not {partitioning!r}')
    is_hive = partitioning == "hive"
    return Dataset(Read(parquet_source(paths, wanted, num_blocks, storage_options, is_hive)))


__all__ = ["from_arrow", "from_items", "from_pandas", "range", "read_csv", "read_parquet"]
