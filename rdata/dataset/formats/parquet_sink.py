"""How are Parquet files written?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from difflib import get_close_matches
from inspect import signature
from typing import Any

from msgspec import Struct, field

from rdata.dataset.block import conform, no_rows, plain, shape
from rdata.dataset.formats.output import OutputJob, WrittenFile, open_output
from rdata.dataset.formats.parquet_source import open_parquet
from rdata.errors import DataError, OptionError
from rdata.lazy import np, pa, pq

ROW_GROUP_BYTES = 64 << 20  # of a written file; smaller: dictionaries are begun anew more often
DICTIONARY_BYTES = 1 << 20  # of a column's different values in a row group: Arrow's default
SAMPLED_STEP = 2654435761  # spreads them as if drawn: a prime, near 2 ** 32 by the golden ratio
SAMPLED_ROWS = 2048  # fewer: values near that bound are miscounted; more: time for each file

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
        with ExitStack() as stack:
            for block in shape(blocks, self.label, ROW_GROUP_BYTES):
                if not block.num_columns:
                    continue
                if not files or not block.schema.equals(files[-1].schema):
                    stack.close()
                    files.append(self.job.new_file(task_index, len(files), block.schema))
                    writing = stack.enter_context(_Writing(self, files[-1], block))
                writing.write(block)
                files[-1] = files[-1].with_rows(block.num_rows)
        return files

    def open_writer(self, output: Any, schema: pa.Schema, **arguments: Any) -> pq.ParquetWriter:
        """Begin a file; the user's arguments count for more than `arguments`."""
        compression: Any = self.compression or "none"
        arguments = {**arguments, **self.arrow_parquet_args}
        return pq.ParquetWriter(output, schema, compression=compression, **arguments)

    def write_nothing(self) -> WrittenFile:
        """Write a file without rows and columns: what readers of the folder need at least."""
        file = self.job.new_file(0, 0, pa.schema([]))
        with _Writing(self, file, no_rows(file.schema)):
            pass
        return file

    def recast(self, file: WrittenFile, schema: pa.Schema) -> WrittenFile:
        """Write a file again, with the schema that the other files of the job have."""
        recast = self.job.recast_file(file, schema)
        with (
            open_parquet(file.temporary_path, self.job.storage_options) as written,
            _Writing(self, recast, no_rows(schema)) as writing,
        ):
            for batch in written.iter_batches(use_threads=False):
                table = plain(pa.Table.from_batches([batch]))
                writing.write(conform(table, schema, self.label))
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
    """A file being written, complete with the end of the block; its rows are like `sample`'s."""

    def __init__(self, sink: ParquetSink, file: WrittenFile, sample: pa.Table) -> None:
        self._label = sink.label
        self._folder = sink.job.shown_folder
        self._row_group_size = sink.row_group_size
        self._fixed = [each.name for each in file.schema if _has_fixed_lists(each.type)]
        dictionaries = _repetitive_columns(sample)
        self._output = open_output(file.temporary_path, sink.job.storage_options)
        try:
            with self._faults_named():
                self._writer = sink.open_writer(
                    self._output, file.schema, use_dictionary=dictionaries
                )
        except BaseException as error:
            with suppress(Exception):  # that the writer failed counts
                self._output.close()
            if isinstance(error, pa.ArrowNotImplementedError):
                column = _unwritable_column(file.schema)
                raise DataError(f"{sink.label}: column {column!r}: {error}") from error
            raise

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._close()
        else:
            with suppress(Exception):  # what has ended the block counts; the file is of no use
                self._close()

    def write(self, block: pa.Table) -> None:
        """Add rows, in row groups of their own."""
        for name in self._fixed:
            if any(_has_null_lists(chunk) for chunk in block.column(name).chunks):
                raise DataError(
                    f"{self._label}: column {name!r} has nulls in place of "
                    f"{block.schema.field(name).type}, which Arrow writes but cannot read back; "
                    "fill them, or make the column one of lists of any size"
                )
        with self._faults_named():
            self._writer.write_table(block, row_group_size=self._row_group_size)

    def _close(self) -> None:
        with self._faults_named():
            try:
                self._writer.close()  # which writes the footer
            finally:
                self._output.close()

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        """Say of a full disk, and the like, which folder it is on."""
        try:
            yield
        except OSError as error:
            if error.errno is None:  # then it would be shown by its file name only
                error.add_note(f"while {self._label} ran")
            else:
                error.filename = error.filename or self._folder
            raise


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
