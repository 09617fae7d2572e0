"""What are a file's columns, and where do its rows start?"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from rdata.dataset.columns import repeated
from rdata.dataset.errors import CsvColumnsError, CsvParseError
from rdata.dataset.formats.csv.options import CsvOptions
from rdata.dataset.formats.csv.rows import Dialect, Place, count_line_ends, row_end
from rdata.dataset.formats.csv.window import ByteWindow, as_utf8, open_text, undecodable
from rdata.lazy import pa, pa_csv

_HEAD_BYTES = 64 << 10  # what one request to a remote store asks for
_LINE_ENDS = (bytearray(b"\n"), bytearray(b"\r"))
_LINES = Dialect(quote=None)  # rows to skip are lines, whatever they hold


class Head(Struct, frozen=True):
    """The columns of a file, none if it is empty, and the offset of its first row."""

    columns: tuple[str, ...]
    rows_offset: int


def head_of(path: str, options: CsvOptions) -> Head:
    """Read the head of the file at `path`."""
    with open_text(path, options, _HEAD_BYTES) as window:
        return read_head(window, options)


def read_head(window: ByteWindow, options: CsvOptions) -> Head:
    """Read the head of a file whose start `window` shows; it shows more then, but nothing less.

    Raises `CsvColumnsError` for a name that stands twice, or another number of columns than
    `column_names` has.
    """
    dialect = options.dialect_of(window.path)
    offset = 0
    for _ in range(options.skip_rows):
        offset = _past_row(window, offset, _LINES)
    given = options.column_names
    if options.has_header:
        start = _past_empty_lines(window, offset, options)
        offset = _past_row(window, start, dialect)
        named = _names(window, start, offset, options)
        columns = _replaced(window, start, named, given) if named and given else named
    elif given is None:
        start = _past_empty_lines(window, offset, options)
        end = _past_row(window, start, dialect)
        columns = tuple(f"f{index}" for index in range(len(_names(window, start, end, options))))
    else:
        columns = given
    for _ in range(options.skip_rows_after_names):
        offset = _past_row(window, offset, dialect)
    return Head(columns, window.base + offset)


def _past_row(window: ByteWindow, offset: int, dialect: Dialect) -> int:
    while True:
        if offset < len(window.data) or window.is_end:
            end = row_end(window.data, Place(offset, False), dialect, window.is_end)
            if end is not None:
                return end
        window.grow()


def _past_empty_lines(window: ByteWindow, offset: int, options: CsvOptions) -> int:
    if not options.ignore_empty_lines:
        return offset
    while True:
        window.fill(offset + 1)
        if window.data[offset : offset + 1] not in _LINE_ENDS:
            return offset
        offset += 1


def _names(window: ByteWindow, start: int, end: int, options: CsvOptions) -> tuple[str, ...]:
    """Cut the row from `start` to `end` into values."""
    row = bytes(window.data[start:end])
    if not row:
        return ()
    try:
        # Arrow would leave out a byte order mark; after the empty line it is text, as in a file.
        # And of a lone row without a line end it would not tell the columns.
        source: Any = pa.BufferReader(b"\n" + as_utf8(row, options) + b"\n")
        table = pa_csv.read_csv(
            source,
            read_options=pa_csv.ReadOptions(
                use_threads=False, block_size=4 * len(row) + 3, skip_rows=1
            ),
            parse_options=options.arrow_parse_options(window.path),
        )
        names = tuple(table.column_names)
    except UnicodeDecodeError as error:
        raise undecodable(window.path, _line(window, start), row, options.encoding) from error
    except pa.ArrowInvalid as error:
        line = _line(window, start)
        raise CsvParseError(
            f"{window.path}, line {line}: the first row cannot be read: {error}; if quotes mean "
            "nothing in this file, pass quote_char=None",
            path=window.path,
            line=line,
        ) from error
    twice = repeated(names)
    if twice is not None and options.has_header and not options.column_names:
        raise CsvColumnsError(
            f"{window.path}: column {twice!r} stands twice in the header; give the columns names "
            "of their own: header=True, column_names=[...]",
            path=window.path,
            line=_line(window, start),
        )
    return names


def _replaced(
    window: ByteWindow, start: int, named: tuple[str, ...], given: tuple[str, ...]
) -> tuple[str, ...]:
    if len(named) != len(given):
        raise CsvColumnsError(
            f"{window.path}: column_names gives {len(given)} names, but the header has "
            f"{len(named)} columns: {', '.join(named)}",
            path=window.path,
            line=_line(window, start),
        )
    return given


def _line(window: ByteWindow, offset: int) -> int:
    return 1 + count_line_ends(window.data[:offset])
