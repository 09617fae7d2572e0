"""Which bytes are the rows of a range, one bounded piece at a time?

A row belongs to the range in which it starts. Let `first(offset)` be the first row start at or
after an offset, as a read of the file from its beginning would find it; a range is what lies
between `first(range.start)` and `first(range.end)`. So ranges fit together whenever everybody
finds the same `first`, and no range needs to hear of another.

The first range knows its first row. A later one finds it by looking back:

1. The text before the offset usually proves whether the offset is in quotes (`rows.py`).
2. Without any quote in `LOOKBACK_BYTES` before the offset there is no such proof. If that text
   looks like rows, with as many values as the file has columns, the offset is taken to be outside
   quotes; else the range looks back further, at last to the beginning of the file.

Only the assumption in step 2 can be wrong: in a quoted field longer than `LOOKBACK_BYTES` whose
text looks like rows. Therefore each range, knowing from its own first row on what is in quotes,
checks at its end that the next range will find what it has found, and raises `CsvSplitError` if
not. By induction over the ranges of a file, either all of them start right or one raises: no
split gives other rows than the unsplit file.

This costs a memory search for the quote character, 1.5 % of the parse, and no second pass. Scans
that carry a state from range to range would make each wait for the one before it, or have rows
taken back that were handed on already.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

from rdata.dataset.errors import CsvParseError, CsvSplitError, InputFilesError
from rdata.dataset.formats.csv.head import Head, read_head
from rdata.dataset.formats.csv.options import CsvOptions
from rdata.dataset.formats.csv.rows import (
    Dialect,
    Place,
    Text,
    count_line_ends,
    looks_like_rows,
    place_after,
    proven_place,
    row_start,
    unclosed_quote,
)
from rdata.dataset.formats.csv.window import ByteWindow, open_text, open_text_at
from rdata.dataset.formats.paths import read_bytes

# Longer: fields of more rows' likeness are read without CsvSplitError; shorter: less is read twice.
LOOKBACK_BYTES = 256 << 10
PROOF_BYTES = (256, 4 << 10, 64 << 10)  # of it, tried in turn: little is nearly always enough
SLACK_BYTES = 64 << 10  # read beyond a cut, to find the row end there; longer rows are read anew
FIRST_PIECE_BYTES = 1 << 20  # `take(5)` waits for this much; each further piece is twice as large
_COUNTED_BYTES = 1 << 20
MAX_ROW_BYTES = 512 << 20  # beyond, the likely cause is a stray quote that swallows the file


class CsvRange(Struct, frozen=True):
    """The rows of the file at `path` that start at an offset from `start` to before `end`.

    Offsets are those of the file as stored. A range of the whole file, which compressed files
    always are, goes on to the end of its content whatever `file_size` is.
    """

    path: str
    start: int
    end: int
    file_size: int

    @property
    def is_whole(self) -> bool:
        """Whether there is no other range of this file."""
        return self.start == 0 and self.end == self.file_size

    @property
    def size_bytes(self) -> int:
        """How much of the stored file the range is."""
        return self.end - self.start


class RangeText:
    """The rows of one range, read a piece at a time; see `open_range`."""

    def __init__(
        self,
        window: ByteWindow,
        head: Head,
        csv_range: CsvRange,
        options: CsvOptions,
    ) -> None:
        self._window = window
        self.head = head
        self._range = csv_range
        self._options = options
        self._dialect = options.dialect_of(csv_range.path)

    @property
    def offset(self) -> int:
        """The offset, in the file's content, of the current piece."""
        return self._window.base

    @property
    def has_quotes(self) -> bool:
        """Whether the quote character is in the current piece, or close behind it."""
        quote = self._dialect.quote
        return quote is not None and self._window.data.find(quote) >= 0

    @property
    def is_ascii(self) -> bool:
        """Whether all bytes of the current piece, and those close behind it, are ASCII."""
        return self._window.data.isascii()

    def pieces(self, piece_bytes: int) -> Iterator[memoryview]:
        """Give the rows, whole, about `piece_bytes` at a time, and less at first.

        A piece is valid until the next one is asked for. Raises `CsvSplitError`, `CsvParseError`
        for a quote that is never closed, `InputFilesError`.
        """
        window = self._window
        end = None if self._range.is_whole else self._range.end
        if end is not None and window.base >= end:
            self._check_next(window.base)
            return
        cut, next_bytes = 0, FIRST_PIECE_BYTES
        while end is None or window.base + cut < end:
            size, is_last = min(next_bytes, piece_bytes), False
            next_bytes *= 2
            if end is not None and end - window.base - cut <= size * 5 // 4:
                size, is_last = end - window.base - cut, True  # so that no crumb remains
            window.advance(cut, size + SLACK_BYTES)
            cut, place = self._cut(size)
            if is_last:
                self._check_end(place, cut)
            elif end is not None and window.base + cut >= end:
                self._check_next(window.base + cut)
            if window.is_end and cut == len(window.data):
                self._check_closed()
                end = window.base + cut
            if cut:
                yield memoryview(window.data)[:cut]

    def _cut(self, size: int) -> tuple[int, Place | None]:
        """Find the first row start at or after `size` in the window; None: the file ends first."""
        window = self._window
        while True:
            if len(window.data) > size:
                place = place_after(window.data, size, self._dialect)
                cut = row_start(window.data, place, self._dialect, window.is_end)
                if cut is not None:
                    return cut, place
            elif window.is_end:
                return len(window.data), None
            if len(window.data) > MAX_ROW_BYTES:
                self._fail_long_row(size)
            window.grow()

    def _check_end(self, place: Place | None, cut: int) -> None:
        """Check that the next range finds its first row where this one ends."""
        if place is None or not place.is_quoted:
            return  # the next range's assumption, if it makes one, is true
        quote = self._dialect.quote or b""
        if self._window.data.rfind(quote, 0, place.offset) < place.offset - LOOKBACK_BYTES:
            self._check_next(self._window.base + cut)

    def _check_next(self, found: int) -> None:
        end = self._range.end
        if end >= self._range.file_size:
            return
        if first_row(self._range, end, self.head, self._options) != found:
            raise self._split_error()

    def _split_error(self) -> CsvSplitError:
        path = self._range.path
        line = self.line_of(self._range.end - LOOKBACK_BYTES)
        return CsvSplitError(
            f"{path}: a quoted field that holds line {line} is longer than {LOOKBACK_BYTES:,} "
            "bytes and its text looks like rows, so a part of the file may begin inside it; if the "
            "quote is a stray one, pass quote_char=None; if the field is meant, pass split=False "
            "to read each file as a whole",
            path=path,
            line=line,
        )

    def _check_closed(self) -> None:
        data = self._window.data
        opened = unclosed_quote(data, self._dialect)
        if opened is None:
            return
        line = self.line_of(self._window.base + opened)
        text = bytes(data[opened : opened + 40]).decode("utf-8", "replace")
        raise CsvParseError(
            f"{self._range.path}, line {line}: the quote that opens at {text!r} is not closed "
            "before the file ends; if quotes mean nothing in this file, pass quote_char=None",
            path=self._range.path,
            line=line,
        )

    def _fail_long_row(self, size: int) -> None:
        line = self.line_of(self._window.base + size)
        raise CsvParseError(
            f"{self._range.path}: the row that holds line {line} is longer than "
            f"{MAX_ROW_BYTES:,} bytes, more likely after a stray quote than in truth; if quotes "
            "mean nothing in this file, pass quote_char=None",
            path=self._range.path,
            line=line,
        )

    def line_of(self, offset: int) -> int:
        """Count the lines up to `offset` of the content: reads the file again from its start."""
        line = 1
        with open_text(self._range.path, self._options) as window:
            while window.base < offset and not (window.is_end and not window.data):
                window.fill(_COUNTED_BYTES)
                text = window.data[: offset - window.base]
                if len(text) > 1 and text.endswith(b"\r") and window.base + len(text) < offset:
                    del text[-1]  # to be counted with the "\n" that may follow
                line += count_line_ends(text)
                window.advance(len(text))
        return line


@contextmanager
def open_range(csv_range: CsvRange, options: CsvOptions) -> Iterator[RangeText]:
    """Open the file of a range, read its head, and go to the range's first row.

    Raises `InputFilesError`, `CsvColumnsError`.
    """
    window = open_text(csv_range.path, options)
    try:
        head = read_head(window, options)
        if csv_range.start <= head.rows_offset:
            window.advance(head.rows_offset - window.base)
        else:
            window.close()
            start = first_row(csv_range, csv_range.start, head, options)
            window = open_text_at(csv_range.path, start, options)
        yield RangeText(window, head, csv_range, options)
    finally:
        window.close()


def first_row(csv_range: CsvRange, offset: int, head: Head, options: CsvOptions) -> int:
    """Find the first row start at or after `offset` of an uncompressed file, by looking back.

    Raises `InputFilesError` where the file has become shorter.
    """
    if offset <= head.rows_offset:
        return head.rows_offset
    dialect = options.dialect_of(csv_range.path)
    lookback, ahead = LOOKBACK_BYTES, SLACK_BYTES
    while True:
        origin = max(head.rows_offset, offset - lookback)
        size = offset - origin + ahead
        text = read_bytes(csv_range.path, origin, size, options.storage_options)
        if len(text) < min(size, csv_range.file_size - origin):
            raise InputFilesError(
                f"{csv_range.path}: is shorter than the {csv_range.file_size:,} bytes that it had "
                "when it was listed; call read_csv again once nobody writes to it"
            )
        if origin == head.rows_offset:
            place: Place | None = place_after(text, offset - origin, dialect)
        else:
            place = likely_place(text, offset - origin, dialect, len(head.columns))
        if place is None:
            lookback *= 4
            continue
        start = row_start(text, place, dialect, is_end=origin + size >= csv_range.file_size)
        if start is not None:
            return origin + start
        ahead *= 4


def likely_place(text: Text, offset: int, dialect: Dialect, num_columns: int) -> Place | None:
    """Tell whether `offset` is in quotes: proven, or else likely; None: look back further."""
    if dialect.escape and not text[:offset].rstrip(dialect.escape):
        return None
    if dialect.quote is not None and text.find(dialect.quote, 0, offset) >= 0:
        for size in (*PROOF_BYTES, offset):
            place = proven_place(text, max(0, offset - size), offset, dialect)
            if place is not None:
                return place
        return None
    likely = text[max(0, offset - PROOF_BYTES[-1]) : offset]
    if dialect.quote is None or looks_like_rows(likely, dialect.delimiter, num_columns):
        return Place(offset, False)
    return None
