"""What can be done with a dataset? Methods that build a plan, and methods that run it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rdata.dataset import run
from rdata.dataset.aggregates import Kind, OfColumn
from rdata.dataset.batch import resolve_format, to_batch
from rdata.dataset.batch import to_pandas as block_to_pandas
from rdata.dataset.explain import explain
from rdata.dataset.formats.output import SaveMode, output_job, save_mode
from rdata.dataset.formats.parquet_sink import parquet_sink
from rdata.dataset.function import annotated_format, user_function
from rdata.dataset.iterate import batches_of, rows_of
from rdata.dataset.logical import (
    AddColumn,
    Concurrency,
    DropColumns,
    Filter,
    FlatMap,
    Limit,
    MapBatches,
    MapRows,
    Materialized,
    Operator,
    RenameColumns,
    Repartition,
    SelectColumns,
    chain,
    static_schemas,
)
from rdata.dataset.options import (
    columns_argument,
    positive,
    renaming_argument,
    resources_argument,
    rows_argument,
)
from rdata.dataset.schema import Schema
from rdata.errors import DataError, OptionError
from rdata.lazy import pd

Row = dict[str, Any]

_MAX_SHOWN = 12  # operators in a repr; `explain` shows all


class Dataset:
    """Rows with named columns, which are computed when they are asked for.

    Methods that transform return another Dataset at once, and nothing runs; `take`, `count`,
    `to_pandas`, `write_parquet` and the like run the plan. Order is kept. Names, defaults and
    results are Ray Data's.

    >>> import rdata
    >>> ds = rdata.range(1000).rename_columns({"id": "n"}).limit(2)
    >>> ds.take_all()
    [{'n': 0}, {'n': 1}]
    """

    def __init__(self, operator: Operator) -> None:
        """Not for programs: `rdata.range`, `rdata.read_csv` and the like make datasets."""
        self._operator = operator
        self._materialized: MaterializedDataset | None = None
        self._schema: Schema | None = None
        self._count: int | None = None

    @property
    def _source(self) -> Operator:
        """What to run: the kept result, where there is one."""
        return self._operator if self._materialized is None else self._materialized._operator

    # -- transformations -----------------------------------------------------------------------

    def map_batches(  # noqa: PLR0913 (the parameters are those of Ray's)
        self,
        fn: Callable[..., Any],
        *,
        batch_size: int | None = None,
        batch_format: str | None = "default",
        fn_args: Iterable[Any] | None = None,
        fn_kwargs: Mapping[str, Any] | None = None,
        fn_constructor_args: Iterable[Any] | None = None,
        fn_constructor_kwargs: Mapping[str, Any] | None = None,
        num_cpus: float | None = None,
        concurrency: Concurrency = None,
    ) -> Dataset:
        """Call `fn` on batches of rows, in parallel worker processes.

        `fn` takes a batch, and returns one (or yields several): a dict from column name to numpy
        array, a `pandas.DataFrame` or a `pyarrow.Table`, whatever it was given. What it is given
        is `batch_format` ("numpy", "pandas", "pyarrow"), or, by default, what the annotation of
        its first parameter says, else "numpy". A batch is private to the call, unless it is a
        `pyarrow.Table`, which cannot be changed.

        `batch_size` is in rows; None gives whole blocks, as they were read: up to some 10 MiB.
        The last batch of a task may be smaller. Of a function that shares a task with the read,
        that is at the end of each part of the input; other functions, and classes, are given as
        many blocks at once as hold `batch_size` rows.

        A class is instantiated (with `fn_constructor_args` and `…_kwargs`) once on each of
        several actors, and its instances are called. `concurrency` is the number of tasks or
        actors, or (least, most); `num_cpus` what each holds.

        What `fn` raises is raised by what runs the plan, as the same type. DataError is raised
        for a result that is no batch, or whose columns differ in length.

        >>> import rdata
        >>> def double(batch):
        ...     return {"n": batch["id"] * 2}
        >>> with rdata.init(local_mode=True):
        ...     rdata.range(3).map_batches(double).take_all()
        [{'n': 0}, {'n': 2}, {'n': 4}]
        """
        function = user_function(
            fn, "map_batches", fn_args, fn_kwargs, fn_constructor_args, fn_constructor_kwargs
        )
        if batch_size is not None:
            batch_size = positive(batch_size, "map_batches", "batch_size")
        batch = resolve_format(batch_format, annotated_format(fn) or "numpy")
        resources = resources_argument("map_batches", num_cpus, concurrency)
        return Dataset(MapBatches(self._source, function, batch_size, batch, resources))

    def map(
        self,
        fn: Callable[..., Mapping[str, Any]],
        *,
        fn_args: Iterable[Any] | None = None,
        fn_kwargs: Mapping[str, Any] | None = None,
        fn_constructor_args: Iterable[Any] | None = None,
        fn_constructor_kwargs: Mapping[str, Any] | None = None,
        num_cpus: float | None = None,
        concurrency: Concurrency = None,
    ) -> Dataset:
        """Call `fn` on each row, a dict, for another row. `map_batches` is many times faster.

        >>> import rdata
        >>> with rdata.init(local_mode=True):
        ...     rdata.range(2).map(lambda row: {"square": row["id"] ** 2}).take_all()
        [{'square': 0}, {'square': 1}]
        """
        function = user_function(
            fn, "map", fn_args, fn_kwargs, fn_constructor_args, fn_constructor_kwargs
        )
        resources = resources_argument("map", num_cpus, concurrency)
        return Dataset(MapRows(self._source, function, resources))

    def flat_map(
        self,
        fn: Callable[..., Iterable[Mapping[str, Any]]],
        *,
        fn_args: Iterable[Any] | None = None,
        fn_kwargs: Mapping[str, Any] | None = None,
        fn_constructor_args: Iterable[Any] | None = None,
        fn_constructor_kwargs: Mapping[str, Any] | None = None,
        num_cpus: float | None = None,
        concurrency: Concurrency = None,
    ) -> Dataset:
        """Call `fn` on each row; it returns or yields any number of rows.

        >>> import rdata
        >>> with rdata.init(local_mode=True):
        ...     rdata.range(2).flat_map(lambda row: [row] * row["id"]).take_all()
        [{'id': 1}]
        """
        function = user_function(
            fn, "flat_map", fn_args, fn_kwargs, fn_constructor_args, fn_constructor_kwargs
        )
        resources = resources_argument("flat_map", num_cpus, concurrency)
        return Dataset(FlatMap(self._source, function, resources))

    def filter(
        self,
        fn: Callable[..., Any],
        *,
        fn_args: Iterable[Any] | None = None,
        fn_kwargs: Mapping[str, Any] | None = None,
        fn_constructor_args: Iterable[Any] | None = None,
        fn_constructor_kwargs: Mapping[str, Any] | None = None,
        num_cpus: float | None = None,
        concurrency: Concurrency = None,
    ) -> Dataset:
        """Keep the rows for which `fn`, called with a dict, is true.

        >>> import rdata
        >>> with rdata.init(local_mode=True):
        ...     rdata.range(9).filter(lambda row: row["id"] % 4 == 0).take_all()
        [{'id': 0}, {'id': 4}, {'id': 8}]
        """
        function = user_function(
            fn, "filter", fn_args, fn_kwargs, fn_constructor_args, fn_constructor_kwargs
        )
        resources = resources_argument("filter", num_cpus, concurrency)
        return Dataset(Filter(self._source, function, resources))

    def add_column(
        self,
        col: str,
        fn: Callable[..., Any],
        *,
        batch_format: str | None = "pandas",
        num_cpus: float | None = None,
        concurrency: Concurrency = None,
    ) -> Dataset:
        """Add a column, or replace it: `fn` takes a batch and gives the column's values.

        >>> import rdata
        >>> with rdata.init(local_mode=True):
        ...     rdata.range(2).add_column("twice", lambda df: df["id"] * 2).take_all()
        [{'id': 0, 'twice': 0}, {'id': 1, 'twice': 2}]
        """
        if not isinstance(col, str):
            raise OptionError(f"add_column: the column's name must be text, not {col!r}")
        function = user_function(fn, "add_column")
        resources = resources_argument("add_column", num_cpus, concurrency)
        batch = resolve_format(batch_format, "pandas")
        return Dataset(AddColumn(self._source, col, function, batch, resources))

    def select_columns(self, cols: str | Sequence[str]) -> Dataset:
        """Keep these columns, in this order. Files are read for these columns only."""
        return Dataset(SelectColumns(self._source, columns_argument("select_columns", cols)))

    def drop_columns(self, cols: str | Sequence[str]) -> Dataset:
        """Leave these columns out."""
        dropped = columns_argument("drop_columns", cols, at_least=0)
        return Dataset(DropColumns(self._source, dropped))

    def rename_columns(self, names: Mapping[str, str] | Sequence[str]) -> Dataset:
        """Rename columns: a dict from old to new name, or a list of the new names of all."""
        return Dataset(RenameColumns(self._source, renaming_argument(names)))

    def limit(self, limit: int) -> Dataset:
        """Keep the first `limit` rows. No more is read than these need, where that is known."""
        return Dataset(Limit(self._source, rows_argument("limit", limit)))

    def repartition(self, num_blocks: int) -> Dataset:
        """Cut the rows, in order, into `num_blocks` blocks of nearly equal length.

        No block is empty: of fewer rows, there are as many blocks as rows. All blocks are held in
        the object store at once.
        """
        return Dataset(Repartition(self._source, positive(num_blocks, "repartition", "num_blocks")))

    # -- results -------------------------------------------------------------------------------

    def take(self, limit: int = 20) -> list[Row]:
        """The first `limit` rows, as dicts of Python values."""
        return list(rows_of(Limit(self._source, rows_argument("take", limit))))

    def take_all(self, limit: int | None = None) -> list[Row]:
        """All rows, as dicts. Raises DataError if there are more than `limit`."""
        if limit is None:
            return list(rows_of(self._source))
        limit = rows_argument("take_all", limit)
        rows = self.take(limit + 1)
        if len(rows) > limit:
            raise DataError(f"take_all: the dataset has more than limit={limit} rows")
        return rows

    def take_batch(self, batch_size: int = 20, *, batch_format: str | None = "default") -> Any:
        """The first `batch_size` rows as one batch, which may have fewer.

        Raises ValueError (as Ray does) if there is no row.
        """
        limited = Limit(self._source, positive(batch_size, "take_batch", "batch_size"))
        table = run.collect(limited)
        if table.num_rows == 0:
            raise OptionError("take_batch: the dataset is empty")
        return to_batch(table, resolve_format(batch_format))

    def show(self, limit: int = 20) -> None:
        """Print the first `limit` rows."""
        for row in self.take(limit):
            print(row)  # noqa: T201 (its purpose)

    def iter_rows(self) -> Iterator[Row]:
        """Walk over all rows, as dicts, while the plan runs."""
        return rows_of(self._source)

    def iter_batches(
        self,
        *,
        batch_size: int | None = 256,
        batch_format: str | None = "default",
        drop_last: bool = False,
    ) -> Iterator[Any]:
        """Walk over all rows in batches of `batch_size`, while the plan runs.

        None gives blocks as they come. `drop_last` leaves out a last batch that is not full.
        """
        if batch_size is not None:
            batch_size = positive(batch_size, "iter_batches", "batch_size")
        return batches_of(self._source, batch_size, resolve_format(batch_format), drop_last)

    def to_pandas(self, limit: int | None = None) -> pd.DataFrame:
        """All rows as one DataFrame; raises DataError if there are more than `limit`."""
        operator = self._source
        if limit is not None:
            limit = rows_argument("to_pandas", limit)
            operator = Limit(operator, limit + 1)
        table = run.collect(operator)
        if limit is not None and table.num_rows > limit:
            raise DataError(
                f"to_pandas: the dataset has more than limit={limit} rows; raise the limit, or "
                "take some with ds.limit(…).to_pandas()"
            )
        return block_to_pandas(table)

    def count(self) -> int:
        """The number of rows; from the files' metadata, where that tells.

        No function runs that cannot change the number: what those given to `map` and `add_column`
        would raise is not raised.
        """
        if self._count is None:
            self._count = run.count(self._source)
        return self._count

    def schema(self) -> Schema | None:
        """Names and types of the columns; None if that takes a row and there is none.

        Known at once unless a user function comes in between: then its first block is computed.
        """
        if self._schema is None:
            schema = static_schemas(self._source)[0]
            if schema is None:
                schema = run.first_schema(Limit(self._source, 1))
            self._schema = None if schema is None else Schema(schema)
        return self._schema

    def columns(self) -> list[str] | None:
        """The columns' names; None as for `schema`."""
        schema = self.schema()
        return None if schema is None else schema.names

    def num_blocks(self) -> int:
        """The number of blocks, which only a materialized dataset knows (as in Ray)."""
        if self._materialized is not None:
            return self._materialized.num_blocks()
        raise NotImplementedError(
            "the number of blocks is known once they are computed: ds.materialize().num_blocks()"
        )

    def sum(self, on: str | Sequence[str] | None = None, ignore_nulls: bool = True) -> Any:
        """The sum of a column, or a dict of sums: {"sum(a)": …, "sum(b)": …}.

        `on=None` means all columns. Nulls are left out, or make the result None. None, too, if
        there is no value. Sums of integers and decimals are exact.

        >>> import rdata
        >>> rdata.range(101).sum("id")
        5050
        """
        return self._aggregate("sum", on, ignore_nulls)

    def min(self, on: str | Sequence[str] | None = None, ignore_nulls: bool = True) -> Any:
        """The least value of a column; arguments and result as for `sum`."""
        return self._aggregate("min", on, ignore_nulls)

    def max(self, on: str | Sequence[str] | None = None, ignore_nulls: bool = True) -> Any:
        """The greatest value of a column; arguments and result as for `sum`."""
        return self._aggregate("max", on, ignore_nulls)

    def mean(self, on: str | Sequence[str] | None = None, ignore_nulls: bool = True) -> Any:
        """The mean of a column; arguments and result as for `sum`."""
        return self._aggregate("mean", on, ignore_nulls)

    def _aggregate(self, kind: Kind, on: str | Sequence[str] | None, ignore_nulls: bool) -> Any:
        columns = self.columns() or [] if on is None else columns_argument(kind, on)
        aggregates = [OfColumn(kind, column, ignore_nulls) for column in columns]
        if not aggregates:
            return None
        values = run.aggregate(self._source, aggregates, is_of_all=on is None)
        if len(values) == 1:
            return values[0]
        return {each.label: value for each, value in zip(aggregates, values, strict=True)}

    def materialize(self) -> MaterializedDataset:
        """Run the plan and keep the blocks in the object store, for as long as the result lives.

        This dataset, and those made from it later, use the result as well.
        """
        if self._materialized is None:
            self._materialized = MaterializedDataset(run.materialize(self._operator))
        return self._materialized

    def write_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        mode: SaveMode | str = SaveMode.APPEND,
        compression: str | None = "snappy",
        row_group_size: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
        **arrow_parquet_args: Any,
    ) -> None:
        """Write Parquet files to the folder `path`: a local one, or a URL that fsspec knows.

        One file for each task, named so that sorting gives the order of the rows. They appear
        together when all are complete; a write that fails leaves nothing. (One whose driver is
        killed leaves a hidden folder, `.rdata-…`. The next write to the same local folder from that
        machine removes it; below a URL it stays.) `mode` is "append", "overwrite", "error" or
        "ignore": see `rdata.data.SaveMode`. All files get one schema: integers are widened to
        floats if some blocks have floats. `storage_options` go to fsspec, other arguments to
        `pyarrow.parquet.ParquetWriter`.

        Raises OptionError for arguments that cannot be meant, before anything runs, and DataError
        if a column has types in different blocks that nothing holds together, or one that Parquet
        does not have.
        """
        job = output_job(path, ".parquet", storage_options)
        if row_group_size is not None:
            row_group_size = positive(row_group_size, "write_parquet", "row_group_size")
        sink = parquet_sink(job, compression, row_group_size, arrow_parquet_args)
        run.write_parquet(self._source, sink, save_mode(mode))

    # -- how it looks --------------------------------------------------------------------------

    def explain(self) -> None:
        """Print the plan: as built, after the rules, and what will run where, and why."""
        print(explain(self._source))  # noqa: T201 (its purpose)

    def __repr__(self) -> str:
        labels = [each.label for each in reversed(list(chain(self._source)))]
        if len(labels) > _MAX_SHOWN:
            labels[2 : 2 - _MAX_SHOWN] = [f"… ({len(labels)} operators)"]
        lines = [f"{'   ' * i}{'└─ ' if i else ''}{label}" for i, label in enumerate(labels)]
        schema = None if self._schema is None else self._schema.base_schema
        if schema is None:
            schema = static_schemas(self._source)[0]
        if schema is None:
            return "\n".join([*lines, "schema: known when it has run"])
        fields = [f"{field.name}: {field.type}" for field in schema]
        shown = fields[:8] + ([f"… ({len(fields)} columns)"] if len(fields) > 8 else [])
        return "\n".join([*lines, f"schema: {{{', '.join(shown)}}}"])

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(
            "a Dataset is not iterable by itself: use iter_rows(), iter_batches() or take_all()"
        )


class MaterializedDataset(Dataset):
    """A dataset whose rows have been computed, and lie in the object store."""

    def __init__(self, operator: Materialized) -> None:
        super().__init__(operator)
        self._num_blocks = sum(len(bundle.pieces) for bundle in operator.bundles)

    def materialize(self) -> MaterializedDataset:
        """This dataset."""
        return self

    def num_blocks(self) -> int:
        """The number of blocks."""
        return self._num_blocks
