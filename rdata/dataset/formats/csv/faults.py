"""Which value on which line made Arrow refuse a piece of CSV text, and what helps?

Arrow's own message counts rows from wherever its text began. Here, after the error, the rows of
the piece are halved until one is left, and lines are counted from the start of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rdata.dataset.errors import CsvEncodingError, CsvError, CsvParseError, CsvTypeError
from rdata.dataset.formats.csv.options import CsvOptions
from rdata.dataset.formats.csv.parse import parse_rows
from rdata.dataset.formats.csv.pieces import RangeText
from rdata.dataset.formats.csv.rows import Place, row_end
from rdata.dataset.formats.csv.types import arrow_type
from rdata.dataset.formats.csv.window import as_utf8, undecodable
from rdata.lazy import pa, pa_csv

_SHOWN = 80  # characters of a value or row in a message


def explain(
    error: Exception,
    piece: bytes,
    text: RangeText,
    path: str,
    types: Mapping[str, pa.DataType],
    options: CsvOptions,
) -> CsvError:
    """Make the error that names file, line, column and value for what Arrow or a codec raised.

    `piece` is the current piece of `text` as stored, `types` the columns that were read from it.
    """
    probe = _Probe(path, text.head.columns, types, options)
    start, end = _first_failing_row(piece, probe)
    row = piece[start:end]
    line = text.line_of(text.offset + start)
    cause = probe.failure(row, types)
    if cause is None:  # each row alone is well: Arrow's message is all there is to say
        return CsvParseError(f"{path}, from line {line}: {error}", path=path, line=line)
    if isinstance(cause, UnicodeDecodeError):
        return undecodable(path, line, row[cause.start : cause.end], options.encoding)
    num_values = probe.num_values(row)
    if num_values != len(text.head.columns):
        return _ragged(path, line, row, num_values, text.head.columns, options)
    for column, type in types.items():
        if probe.failure(row, {column: type}) is not None:
            return _misfit(line, column, type, row, probe)
    return CsvParseError(f"{path}, line {line}: {cause}", path=path, line=line)


class _Probe:
    """Reads rows again, as the reader did, to see which fail."""

    def __init__(
        self,
        path: str,
        columns: tuple[str, ...],
        types: Mapping[str, pa.DataType],
        options: CsvOptions,
    ) -> None:
        self.path = path
        self.options = options
        self.types = types
        self._columns = columns

    def failure(self, rows: bytes, types: Mapping[str, pa.DataType]) -> Exception | None:
        """Give the error of reading the columns `types` of `rows`, or None."""
        convert = self.options.arrow_convert_options(
            types, types, self.options.include_missing_columns
        )
        try:
            self._read(rows, self._columns, convert)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            return error
        return None

    def fits(self, row: bytes, column: str, type_name: str) -> bool:
        """Tell whether the value of `column` in one row fits the type of that name."""
        return self.failure(row, {column: arrow_type(column, type_name)}) is None

    def num_values(self, row: bytes) -> int:
        """Count the values of one row."""
        convert = pa_csv.ConvertOptions(check_utf8=False)
        return self._read(row, None, convert).num_columns

    def value(self, row: bytes, column: str) -> bytes:
        """Give one value of one row, without its quotes."""
        convert = pa_csv.ConvertOptions(
            column_types={column: pa.binary()}, include_columns=[column], strings_can_be_null=False
        )
        value: bytes = self._read(row, self._columns, convert).column(0)[0].as_py()
        return value

    def _read(self, rows: bytes, columns: tuple[str, ...] | None, convert: Any) -> pa.Table:
        text = as_utf8(rows, self.options)
        return parse_rows(text, columns, self.options.arrow_parse_options(self.path), convert)


def _first_failing_row(piece: bytes, probe: _Probe) -> tuple[int, int]:
    starts = _row_starts(piece, probe)
    first, last = 0, len(starts) - 1  # the failing row is one of starts[first:last]
    while last - first > 1:
        middle = (first + last) // 2
        if probe.failure(piece[starts[first] : starts[middle]], probe.types) is not None:
            last = middle
        else:
            first = middle
    return starts[first], starts[last]


def _row_starts(piece: bytes, probe: _Probe) -> list[int]:
    """List where each row starts, and the end of the last; empty lines go with the row before."""
    dialect = probe.options.dialect_of(probe.path)
    starts = [0]
    offset = 0
    while offset < len(piece):
        end = row_end(piece, Place(offset, False), dialect, is_end=True)
        assert end is not None, "every row of a piece ends in it"
        offset = end
        if probe.options.ignore_empty_lines and not piece[starts[-1] : end].strip(b"\r\n"):
            starts[-1] = end
        else:
            starts.append(end)
    return starts


def _ragged(
    path: str,
    line: int,
    row: bytes,
    num_values: int,
    columns: tuple[str, ...],
    options: CsvOptions,
) -> CsvParseError:
    comparison = "more" if num_values > len(columns) else "fewer"
    return CsvParseError(
        f"{path}, line {line}: {num_values} values, {comparison} than the {len(columns)} columns "
        f"({_short(', '.join(columns))}): {_short(_shown(row, options))}; if the file separates "
        f"values by another character than {options.delimiter_of(path)!r}, pass delimiter=...; to "
        "leave such rows out, pass parse_options=pyarrow.csv.ParseOptions(invalid_row_handler="
        'lambda row: "skip")',
        path=path,
        line=line,
    )


def _misfit(line: int, column: str, type: pa.DataType, row: bytes, probe: _Probe) -> CsvError:
    path, options, value = probe.path, probe.options, probe.value(row, column)
    if pa.types.is_string(type) or pa.types.is_large_string(type):
        error = undecodable(path, line, value, options.encoding)
        return CsvEncodingError(
            f'{error}; or read column {column!r} as bytes: column_types={{"{column}": "binary"}}',
            path=path,
            line=line,
            value=value,
        )
    shown = value.decode("utf-8", "replace")
    is_given = options.default_column_type is not None or column in dict(options.column_types)
    origin = "the type given" if is_given else "the type that a sample of the files suggests"
    fitting = [name for name in _wider(type) if probe.fits(row, column, name)]
    parsers = "timestamp_parsers=['%d.%m.%Y', ...] with the value's format, "
    has_other_format = pa.types.is_timestamp(type) and not fitting
    return CsvTypeError(
        f"{path}, line {line}: column {column!r}: value {_short(shown)!r} does not fit {type}, "
        f"{origin}; pass column_types={{{column!r}: {[*fitting, 'string'][0]!r}}} for another "
        f"type, {parsers if has_other_format else ''}or null_values=[{_short(shown)!r}, ...] if "
        "the value means null",
        path=path,
        line=line,
        column=column,
        type=str(type),
        value=shown,
    )


def _wider(type: pa.DataType) -> list[str]:
    """Name types that a value may fit that does not fit `type`, the best first."""
    if pa.types.is_integer(type) or pa.types.is_floating(type):
        return ["float64"]
    if pa.types.is_date(type):
        return ["timestamp[s]", "timestamp[ns]"]
    if pa.types.is_timestamp(type):
        return [str(pa.timestamp("ns", type.tz)), str(pa.timestamp("us", type.tz))]
    return []


def _shown(row: bytes, options: CsvOptions) -> str:
    encoding = options.encoding if options.is_single_byte else "utf-8"
    return row.decode(encoding, "replace").rstrip("\r\n")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
