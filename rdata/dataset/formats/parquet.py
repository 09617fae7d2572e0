"""How are Parquet files read in parts, and written?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from inspect import signature
from typing import Any

from msgspec import Struct, field
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
from rdata.dataset.columns import require_columns
from rdata.dataset.errors import InputFilesError
from rdata.dataset.formats.hive import Partition, partition_of, partition_schema, with_partition
from rdata.dataset.formats.output import OutputJob, WrittenFile, open_output
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
from rdata.errors import DataError, OptionError
from rdata.lazy import np, pa, pq

SUFFIXES = (".parquet",)
SPLIT_BYTES = 64 << 20  # of decoded columns in a task; smaller: overhead, larger: idle at the end
ROW_GROUP_BYTES = 64 << 20  # of a written file; smaller: dictionaries are begun anew more often
DICTIONARY_BYTES = 1 << 20  # of a column's different values in a row group: Arrow's default
SAMPLED_STEP = 2654435761  # spreads them as if drawn: a prime, near 2 ** 32 by the golden ratio
SAMPLED_ROWS = 2048  # fewer: values near that bound are miscounted; more: time for each file
PIECE_BYTES = 8 << 20  # of decoded columns at once; more: memory of a task; less: calls for each
ROWS_AT_ONCE = 1 << 16  # at most, since footers tell the bytes of values before they are decoded


# -- reading ---------------------------------------------------------------------------------------


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
        with _open(self.path, self.storage_options) as file:
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
def _open(path: str, storage_options: StorageOptions) -> Iterator[pq.ParquetFile]:
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
    with _open(file.path, storage_options) as opened:
        metadata = opened.metadata
        schema = opened.schema_arrow.remove_metadata()
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


# -- writing ---------------------------------------------------------------------------------------


_COMPRESSION = "snappy"


class ParquetSink(Struct, frozen=True):
    """Writes a task's blocks to a file of the job; to several, where their schemas differ."""

    job: OutputJob
    compression: str | None = _COMPRESSION
    row_group_size: int | None = None
    arrow_parquet_args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """See `Sink`."""
        return f"write_parquet({self.job.shown_folder})"

    def consume(self, task_index: int, blocks: Iterator[pa.Table]) -> list[WrittenFile]:
        """See `Sink`: the files written, under temporary names; none for no columns."""
        files: list[WrittenFile] = []
        writing: _Writing | None = None
        try:
            for block in shape(blocks, self.label, ROW_GROUP_BYTES):
                if not block.num_columns:
                    continue
                if writing is None or not block.schema.equals(files[-1].schema):
                    if writing is not None:
                        writing.close()
                    files.append(self.job.new_file(task_index, len(files), block.schema))
                    writing = _Writing(self, files[-1], block)
                writing.write(block)
                files[-1] = files[-1].with_rows(block.num_rows)
        finally:
            if writing is not None:
                writing.close()
        return files

    def open_writer(self, output: Any, schema: pa.Schema, **arguments: Any) -> pq.ParquetWriter:
        """Begin a file; the user's arguments count for more than `arguments`."""
        compression: Any = self.compression or "none"
        arguments = {**arguments, **self.arrow_parquet_args}
        return pq.ParquetWriter(output, schema, compression=compression, **arguments)

    def write_nothing(self) -> WrittenFile:
        """Write a file without rows and columns: what readers of the folder need at least."""
        file = self.job.new_file(0, 0, pa.schema([]))
        _Writing(self, file, no_rows(file.schema)).close()
        return file

    def recast(self, file: WrittenFile, schema: pa.Schema) -> WrittenFile:
        """Write a file again, with the schema that the other files of the job have."""
        recast = self.job.recast_file(file, schema)
        with _open(file.temporary_path, self.job.storage_options) as written:
            writing = _Writing(self, recast, no_rows(schema))
            try:
                for batch in written.iter_batches(use_threads=False):
                    table = plain(pa.Table.from_batches([batch]))
                    writing.write(conform(table, schema, self.label))
            finally:
                writing.close()
        return recast


_NOT_ARGUMENTS = ("where", "schema", "filesystem", "compression", "options")  # of the writer's
_ABSENT: Mapping[str, Any] = {  # Ray's arguments that rdata does not have, and what they are there
    "arrow_open_stream_args": None,
    "arrow_parquet_args_fn": None,
    "catalog": None,
    "concurrency": None,
    "filename_provider": None,
    "filesystem": None,
    "max_rows_per_file": None,
    "min_bytes_per_file": None,
    "min_rows_per_file": None,
    "num_rows_per_file": None,
    "partition_cols": None,
    "ray_remote_args": None,
    "try_create_dir": True,
}


def parquet_sink(
    job: OutputJob,
    compression: str | None,
    row_group_size: int | None,
    arrow_parquet_args: Mapping[str, Any],
) -> ParquetSink:
    """Check the arguments of `write_parquet`, as far as Arrow does; raises `OptionError`."""
    given = {
        name: value
        for name, value in arrow_parquet_args.items()
        if name not in _ABSENT or value is not _ABSENT[name]
    }
    sink = ParquetSink(job, compression, row_group_size, given)
    if not given and compression == _COMPRESSION:
        return sink  # nothing to check that is worth the time to import the writer
    known = [name for name in signature(pq.ParquetWriter).parameters if name not in _NOT_ARGUMENTS]
    for name, value in given.items():
        if name in _ABSENT:
            raise OptionError(
                f"write_parquet: {name}={value!r}: rdata does not have this argument yet; leave it "
                "out"
            )
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
            raise OptionError(
                f"write_parquet: {name!r} is an argument neither of it nor of "
                f"pyarrow.parquet.ParquetWriter; {hint}"
            )
    try:
        sink.open_writer(pa.BufferOutputStream(), pa.schema([])).close()
    except (pa.ArrowException, AttributeError, TypeError, ValueError) as error:
        raise OptionError(f"write_parquet: {error}") from error
    return sink


def _repetitive_columns(block: pa.Table) -> list[str] | bool:
    """Name the columns that are worth a dictionary; True for all, as Arrow writes them.

    Arrow begins a dictionary for every column, and gives up where it outgrows `DICTIONARY_BYTES`:
    a column of many different values then takes more time, and more bytes, than one without. So
    this foresees how many there are: n rows drawn from N values repeat some n * n / 2N times.
    """
    if not block.num_rows or not all(_is_plain(field.type) for field in block.schema):
        return True  # of nested columns, Arrow would want to know the names of their leaves
    sample = block
    if block.num_rows > SAMPLED_ROWS:
        sample = block.take(np.arange(SAMPLED_ROWS) * SAMPLED_STEP % block.num_rows)
    repetitive = []
    for name, column in zip(sample.column_names, sample.columns, strict=True):
        values = column.drop_null()
        num_repeats = len(values) - len(values.unique())
        num_values = len(values) ** 2 / (2 * max(num_repeats, 1))
        if num_values * values.nbytes <= DICTIONARY_BYTES * len(values):
            repetitive.append(name)
    return repetitive


def _is_plain(type: pa.DataType) -> bool:
    types = pa.types
    if types.is_float16(type):  # whose different values Arrow cannot find
        return False
    return bool(types.is_primitive(type) or types.is_string(type) or types.is_large_string(type))


class _Writing:
    """A file being written; its rows will be like those of `sample`."""

    def __init__(self, sink: ParquetSink, file: WrittenFile, sample: pa.Table) -> None:
        self._label = sink.label
        self._row_group_size = sink.row_group_size
        self._fixed = [each.name for each in file.schema if _has_fixed_lists(each.type)]
        self._output = open_output(file.temporary_path, sink.job.storage_options)
        dictionaries = _repetitive_columns(sample)
        try:
            self._writer = sink.open_writer(self._output, file.schema, use_dictionary=dictionaries)
        except BaseException as error:
            self._output.close()
            if isinstance(error, pa.ArrowNotImplementedError):
                column = _unwritable_column(file.schema)
                raise DataError(f"{sink.label}: column {column!r}: {error}") from error
            raise

    def write(self, block: pa.Table) -> None:
        """Add rows, in row groups of their own."""
        for name in self._fixed:
            if any(_has_null_lists(chunk) for chunk in block.column(name).chunks):
                raise DataError(
                    f"{self._label}: column {name!r} has nulls in place of "
                    f"{block.schema.field(name).type}, which Arrow writes but cannot read back; "
                    "fill them, or make the column one of lists of any size"
                )
        self._writer.write_table(block, row_group_size=self._row_group_size)

    def close(self) -> None:
        """Write the footer."""
        try:
            self._writer.close()
        finally:
            self._output.close()


def _has_fixed_lists(type: Any) -> bool:
    if isinstance(type, pa.BaseExtensionType):
        type = type.storage_type
    fields = (type.field(i) for i in range(type.num_fields))
    return pa.types.is_fixed_size_list(type) or any(_has_fixed_lists(each.type) for each in fields)


def _has_null_lists(array: Any) -> bool:
    """Whether a list of fixed size, at any depth, is null: then the file could not be read."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if not _has_fixed_lists(array.type):
        return False
    if pa.types.is_fixed_size_list(array.type) and array.null_count:
        return True
    if pa.types.is_map(array.type):
        start, stop = array.offsets.to_numpy()[[0, -1]]
        return _has_null_lists(array.items[start:stop])
    inner = array.flatten()  # without what is null; of a struct, a list of columns
    return any(_has_null_lists(each) for each in (inner if isinstance(inner, list) else [inner]))


def _unwritable_column(schema: pa.Schema) -> str | None:
    """Name the first column whose type Parquet does not have."""
    for each in schema:
        try:
            pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([each])).close()
        except pa.ArrowNotImplementedError:
            return each.name
    return None
