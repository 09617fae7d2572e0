"""How are Parquet files read in parts?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from rdata.dataset.block import (
    conform,
    no_rows,
    part,
    plain,
    rows_only,
    shape,
    unify_schemas,
)
from rdata.dataset.columns import repeated, require_columns
from rdata.dataset.errors import InputFilesError
from rdata.dataset.formats.hive import Partition, partition_of, partition_schema, with_partition
from rdata.dataset.formats.paths import (
    InputFile,
    PathArgument,
    StorageOptions,
    cannot_seek,
    expand_paths,
    file_gone,
    is_remote,
    open_file,
)
from rdata.errors import DataError
from rdata.lazy import pa, pq

SUFFIXES = (".parquet",)
SPLIT_BYTES = 64 << 20  # of decoded columns in a task; smaller: overhead, larger: idle at the end
PIECE_BYTES = 8 << 20  # of decoded columns at once; more: memory of a task; less: calls for each
ROWS_AT_ONCE = 1 << 16  # at most, since footers tell the bytes of values before they are decoded


class ParquetSplit(Struct, frozen=True):
    """Neighbouring row groups of a file."""

    path: str
    row_groups: tuple[int, ...]
    num_rows: int
    size_bytes: int
    schema: pa.Schema  # of the dataset, cut to the columns that are wanted
    storage_options: StorageOptions
    limit: int | None
    partition: Partition

    def read(self) -> Iterator[pa.Table]:
        """See `Split`."""
        left = self.num_rows if self.limit is None else min(self.limit, self.num_rows)
        if not self.schema.names:
            yield rows_only(left)
            return
        if left == 0:
            yield no_rows(self.schema)
            return
        with open_parquet(self.path, self.storage_options) as file:
            yield from shape(self._tables(file, left), self.path, PIECE_BYTES)

    def _tables(self, file: pq.ParquetFile, left: int) -> Iterator[pa.Table]:
        present = set(file.schema_arrow.names).difference(self.partition)
        columns = [name for name in self.schema.names if name in present]
        row_bytes = max(1, self.size_bytes // max(1, self.num_rows))
        batches = file.iter_batches(
            batch_size=max(1, min(left, ROWS_AT_ONCE, PIECE_BYTES // row_bytes)),
            row_groups=list(self.row_groups),
            columns=columns,
            use_threads=False,
        )
        with _faults_named(self.path):
            for batch in batches:
                table = part(plain(pa.Table.from_batches([batch])), 0, left)
                table = with_partition(table, self.partition, self.schema)
                yield conform(table, self.schema, self.path)
                left -= table.num_rows
                if left == 0:
                    return


@contextmanager
def open_parquet(path: str, storage_options: StorageOptions) -> Iterator[pq.ParquetFile]:
    """Open a local or remote file; raises `InputFilesError` for one that is not Parquet."""
    with ExitStack() as stack:
        source: Any = path
        if is_remote(path):
            source = stack.enter_context(open_file(path, storage_options))
        with _faults_named(path):
            file = stack.enter_context(pq.ParquetFile(source, pre_buffer=is_remote(path)))
        yield file


@contextmanager
def _faults_named(path: str) -> Iterator[None]:
    """Raise what Arrow finds wrong with a file as `InputFilesError`, or its subclass."""
    try:
        yield
    except FileNotFoundError as error:
        raise file_gone(path) from error
    except (pa.ArrowInvalid, OSError) as error:
        is_decoding = getattr(error, "errno", None) is None
        what = "is not a Parquet file, or a damaged one" if is_decoding else "cannot be read"
        raise InputFilesError(f"{path}: {what}: {error}") from error
    except ValueError as error:
        if not is_remote(path):
            raise
        raise cannot_seek(path, error) from error


class _Group(Struct, frozen=True):
    """One row group, as the footer of its file tells."""

    path: str
    index: int
    num_rows: int
    bytes_by_column: Mapping[str, int]
    partition: Partition


class ParquetSource(Struct, frozen=True, eq=False):
    """Parquet files whose footers have been read."""

    num_files: int
    groups: tuple[_Group, ...]
    full_schema: pa.Schema
    storage_options: StorageOptions = None
    split_bytes: int = SPLIT_BYTES
    columns: tuple[str, ...] | None = None
    limit: int | None = None

    @property
    def name(self) -> str:
        """See `Source`."""
        return f"read_parquet({self.num_files} file{'s' if self.num_files != 1 else ''})"

    def schema(self) -> pa.Schema:
        """See `Source`."""
        if self.columns is None:
            return self.full_schema
        return pa.schema([self.full_schema.field(name) for name in self.columns])

    def with_columns(self, columns: Sequence[str]) -> ParquetSource:
        """See `Source`."""
        return replace(self, columns=tuple(columns))

    def with_limit(self, num_rows: int) -> ParquetSource:
        """See `Source`."""
        least = num_rows if self.limit is None else min(num_rows, self.limit)
        return replace(self, limit=least)

    def splits(self) -> Sequence[ParquetSplit]:
        """See `Source`: row groups of one file that are small together make one split."""
        schema = self.schema()
        splits: list[ParquetSplit] = []
        gathered: list[_Group] = []
        gathered_bytes = 0
        num_rows = 0
        for group in self.groups:
            size_bytes = self._bytes_of(group)
            is_other = bool(gathered) and gathered[0].path != group.path
            if gathered and (is_other or gathered_bytes + size_bytes > self.split_bytes):
                splits.append(self._split(gathered, gathered_bytes, schema))
                gathered, gathered_bytes = [], 0
                if self.limit is not None and num_rows >= self.limit:
                    break
            gathered.append(group)
            gathered_bytes += size_bytes
            num_rows += group.num_rows
        if gathered:
            splits.append(self._split(gathered, gathered_bytes, schema))
        return splits or [ParquetSplit("", (), 0, 0, schema, None, self.limit, {})]

    def _split(self, groups: list[_Group], size_bytes: int, schema: pa.Schema) -> ParquetSplit:
        return ParquetSplit(
            groups[0].path,
            tuple(group.index for group in groups),
            sum(group.num_rows for group in groups),
            size_bytes,
            schema,
            self.storage_options,
            self.limit,
            groups[0].partition,
        )

    def _bytes_of(self, group: _Group) -> int:
        if self.columns is None:
            return sum(group.bytes_by_column.values())
        return sum(group.bytes_by_column.get(name, 0) for name in self.columns)

    def estimated_bytes(self) -> int:
        """See `Source`."""
        size_bytes = 0
        num_rows = 0
        for group in self.groups:
            size_bytes += self._bytes_of(group)
            num_rows += group.num_rows
            if self.limit is not None and num_rows >= self.limit:
                return size_bytes * self.limit // max(1, num_rows)
        return size_bytes

    def num_rows(self) -> int | None:
        """See `Source`: the footers tell."""
        num_rows = sum(group.num_rows for group in self.groups)
        return num_rows if self.limit is None else min(num_rows, self.limit)


def parquet_source(
    paths: PathArgument,
    columns: Sequence[str] | None,
    num_splits: int | None,
    storage_options: StorageOptions,
    is_hive: bool,
) -> ParquetSource:
    """Read the footers of all files that `paths` means, and bring their schemas together.

    With `is_hive`, folders named `key=value` tell columns, too.

    Raises `InputNotFoundError`, `InputFilesError` (also for a file that is damaged, or of another
    format), and `DataError` for a column that is not there, and types that nothing holds.
    """
    files = expand_paths(paths, SUFFIXES, storage_options)
    groups: list[_Group] = []
    schemas: list[pa.Schema] = []
    partitions = [partition_of(file.below) if is_hive else {} for file in files]
    for file, partition in zip(files, partitions, strict=True):
        schema, file_groups = _footer(file, partition, storage_options)
        schemas.append(schema)
        groups.extend(file_groups)
    places = [file.path for file in files]
    if any(partitions):
        schemas.append(partition_schema(partitions))
        places.append("the names of folders")
    schema = unify_schemas(schemas, "read_parquet", places)
    source = ParquetSource(len(files), tuple(groups), schema, storage_options)
    if num_splits is not None:
        split_bytes = source.estimated_bytes() // max(1, num_splits)
        source = replace(source, split_bytes=split_bytes)
    if columns is None:
        return source
    require_columns(columns, schema.names, source.name)
    return source.with_columns(columns)


def _footer(
    file: InputFile, partition: Partition, storage_options: StorageOptions
) -> tuple[pa.Schema, list[_Group]]:
    with open_parquet(file.path, storage_options) as opened:
        metadata = opened.metadata
        schema = opened.schema_arrow.remove_metadata()
        twice = repeated(schema.names)
        if twice is not None:
            raise DataError(f"{file.path}: there is more than one column named {twice!r}")
        groups = []
        for i in range(metadata.num_row_groups):
            group = metadata.row_group(i)
            sizes: dict[str, int] = {}
            for j in range(group.num_columns):
                column = group.column(j)
                name = column.path_in_schema.split(".", 1)[0]
                sizes[name] = sizes.get(name, 0) + column.total_uncompressed_size
            groups.append(_Group(file.path, i, group.num_rows, sizes, partition))
    return schema, groups
