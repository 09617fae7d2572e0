"""Which columns, of which types, do all the files have?

Types come from a bounded sample: rows at the beginning of up to `SAMPLED_FILES` files spread over
the list, and in the middle and at the end of large ones. Samples of files with the same header are
put together and given to Arrow's inference as one text, so its rules hold over all of them; a
column that is empty in all samples, or not UTF-8, is read as strings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from msgspec import Struct

from rdata.dataset.errors import CsvColumnsError
from rdata.dataset.formats.csv.head import Head, read_head
from rdata.dataset.formats.csv.options import CsvOptions
from rdata.dataset.formats.csv.parse import parse_rows
from rdata.dataset.formats.csv.pieces import likely_place
from rdata.dataset.formats.csv.reader import check_columns
from rdata.dataset.formats.csv.rows import place_after, row_start
from rdata.dataset.formats.csv.window import ByteWindow, as_utf8, open_text
from rdata.dataset.formats.paths import InputFile, compression_of, is_remote, read_bytes
from rdata.errors import OptionError
from rdata.lazy import pa, pa_csv

SAMPLED_FILES = 16  # more: requests before anything starts; fewer: types guessed from less
SAMPLE_BYTES = 512 << 10  # of all files together; 1 MiB takes Arrow some 5 ms to infer types from
_SPOT_BYTES = (4 << 10, 64 << 10)  # least and most at one place of one file
_COMPRESSION_RATIO = 4  # of CSV text, roughly: only for the estimate of rows
_REMOTE_REQUESTS = 16  # at a time


class Sample(Struct, frozen=True):
    """Rows of one file, as UTF-8, each with its line end."""

    file: InputFile
    columns: tuple[str, ...]
    rows: bytes


class InferredSchema(Struct, frozen=True):
    """The columns that reading gives, and how many bytes of text a row has, if any was seen."""

    schema: pa.Schema
    bytes_per_row: float | None


def infer_schema(files: Sequence[InputFile], options: CsvOptions) -> InferredSchema:
    """Find one schema for `files`, from a bounded sample of them.

    Raises `CsvColumnsError` where the sampled files differ in their columns, all are empty, or an
    option names a column that is not there; `OptionError` for a type that text cannot become.
    """
    samples = [sample for sample in _samples(files, options) if sample.columns]
    first = samples[0].columns if samples else options.column_names
    if first is None:
        raise CsvColumnsError(
            f"{files[0].path}{' and all other files' if len(files) > 1 else ''}: empty, so there "
            "are no columns; to read no rows of known columns, pass column_names=[...]",
            path=files[0].path,
        )
    names = options.include_columns or first
    for sample in samples:
        check_columns(sample.file.path, sample.columns, names, options)
    given = dict(options.column_types)
    _check_named(files[0].path, "column_types", given, [*names, *first])
    if options.default_column_type is not None:
        given = dict.fromkeys(names, options.default_column_type) | given
    inferred, num_rows = _infer(samples, [name for name in names if name not in given], options)
    fields = [pa.field(name, given.get(name) or inferred.get(name, pa.string())) for name in names]
    schema = pa.schema(fields)
    _check_convertible(given, options)
    num_bytes = sum(len(sample.rows) for sample in samples)
    return InferredSchema(schema, num_bytes / num_rows if num_rows else None)


def content_bytes(files: Sequence[InputFile]) -> int:
    """Estimate how much text `files` hold: their size, times a usual ratio where compressed."""
    return sum(
        file.size_bytes * (_COMPRESSION_RATIO if compression_of(file.path) else 1) for file in files
    )


# -- samples ---------------------------------------------------------------------------------------


def _samples(files: Sequence[InputFile], options: CsvOptions) -> list[Sample]:
    count = min(len(files), SAMPLED_FILES)
    chosen = [files[index * (len(files) - 1) // max(1, count - 1)] for index in range(count)]
    least, most = _SPOT_BYTES
    spot_bytes = min(most, max(least, SAMPLE_BYTES // (3 * count)))
    sample = partial(_sample, spot_bytes=spot_bytes, options=options)
    if not is_remote(chosen[0].path):
        return [sample(file) for file in chosen]
    with ThreadPoolExecutor(_REMOTE_REQUESTS) as pool:
        return list(pool.map(sample, chosen))


def _sample(file: InputFile, spot_bytes: int, options: CsvOptions) -> Sample:
    with open_text(file.path, options, spot_bytes) as window:
        head = read_head(window, options)
        window.advance(head.rows_offset - window.base, spot_bytes)
        spots = [_whole_rows(window, spot_bytes, options)]
    if options.is_splittable and compression_of(file.path) is None:
        spots += _later_spots(file, head, spot_bytes, options)
    rows = b"".join(_ended(spot) for spot in spots if spot)
    return Sample(file, head.columns, rows)


def _ended(rows: bytes) -> bytes:
    return rows if rows.endswith((b"\n", b"\r")) else rows + b"\n"


def _whole_rows(window: ByteWindow, size: int, options: CsvOptions) -> bytes:
    """Give the rows at the window's start, about `size` bytes of them, at least one."""
    dialect = options.dialect_of(window.path)
    size = size * 3 // 4  # so that the end of the last row is likely to be there already
    while True:
        end: int | None = None
        if len(window.data) > size:
            place = place_after(window.data, size, dialect)
            end = row_start(window.data, place, dialect, window.is_end)
        elif window.is_end:
            end = len(window.data)
        if end is not None:
            return bytes(as_utf8(window.data[:end], options, "replace"))
        window.grow()


def _later_spots(file: InputFile, head: Head, spot_bytes: int, options: CsvOptions) -> list[bytes]:
    if file.size_bytes - head.rows_offset < 4 * spot_bytes:
        return []
    offsets = (file.size_bytes // 2, file.size_bytes - spot_bytes)
    return [_spot(file, head, offset, spot_bytes, options) for offset in offsets]


def _spot(file: InputFile, head: Head, offset: int, size: int, options: CsvOptions) -> bytes:
    """Give whole rows within `size` bytes from `offset`; none where it is open what is in quotes.

    A wrong guess would cost a wrong type at most, so this looks back only a little.
    """
    dialect = options.dialect_of(file.path)
    lookback = min(size, offset - head.rows_offset)
    origin = offset - lookback
    text = read_bytes(file.path, origin, lookback + size, options.storage_options)
    is_end = origin + len(text) >= file.size_bytes
    place = likely_place(text, lookback, dialect, len(head.columns))
    start = None if place is None else row_start(text, place, dialect, is_end)
    if start is None:
        return b""
    rows = text[start:]
    end: int | None = len(rows)
    if not is_end:
        middle = len(rows) * 3 // 4
        end = row_start(rows, place_after(rows, middle, dialect), dialect, is_end=False)
    return bytes(as_utf8(rows[: end or 0], options, "replace"))


# -- inference -------------------------------------------------------------------------------------


def _infer(
    samples: Sequence[Sample], names: Sequence[str], options: CsvOptions
) -> tuple[dict[str, pa.DataType], int]:
    """Give the types of the columns `names`, and how many rows the samples have."""
    texts: dict[tuple[tuple[str, ...], str], list[bytes]] = {}
    for sample in samples:
        key = sample.columns, options.delimiter_of(sample.file.path)
        texts.setdefault(key, []).append(sample.rows)
    paths = {
        (sample.columns, options.delimiter_of(sample.file.path)): sample.file.path
        for sample in samples
    }
    types: dict[str, pa.DataType] = {}
    num_rows = 0
    for key, rows in texts.items():
        table = _table(b"".join(rows), key[0], paths[key], names, options)
        num_rows += table.num_rows
        for field in table.schema:
            types[field.name] = _common_type(types.get(field.name, pa.null()), field.type)
    return {name: _settled(type) for name, type in types.items()}, num_rows


def _table(
    text: bytes,
    columns: tuple[str, ...],
    path: str,
    names: Sequence[str],
    options: CsvOptions,
) -> pa.Table:
    included = [name for name in names if name in columns]
    # Without any type to find out, one column counts the rows.
    typed = {} if included else {columns[0]: pa.binary()}
    return parse_rows(
        text,
        columns,
        # Rows at fault are reported where they are read, with their line.
        options.arrow_parse_options(path, _skip),
        options.arrow_convert_options(typed, included or columns[:1]),
    ).select(included)


def _skip(row: pa_csv.InvalidRow) -> str:
    return "skip"


def _common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Give the type for a column that two groups of files suggest different types for."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    both = {str(one), str(other)}
    if both <= {"int64", "double"}:
        return pa.float64()
    if both <= {"date32[day]", "timestamp[s]", "timestamp[ns]"}:
        return pa.timestamp("ns" if "timestamp[ns]" in both else "s")
    return pa.string()


def _settled(type: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_null(type) or pa.types.is_binary(type) else type


# -- checks ----------------------------------------------------------------------------------------


def _check_named(
    path: str, argument: str, given: Sequence[str] | dict[str, pa.DataType], names: Sequence[str]
) -> None:
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        raise CsvColumnsError(
            f"{argument} names {unknown!r}, but {path} has no such column; it has "
            f"{', '.join(dict.fromkeys(names))}",
            path=path,
        )


def _check_convertible(given: Mapping[str, pa.DataType], options: CsvOptions) -> None:
    for name, type in given.items():
        try:
            parse_rows(
                b"", [name], pa_csv.ParseOptions(), options.arrow_convert_options({name: type})
            )
        except pa.ArrowNotImplementedError as error:
            raise OptionError(
                f"column {name!r}: CSV text cannot be read as {type}; "
                "read it as 'string' and convert it with map_batches"
            ) from error
