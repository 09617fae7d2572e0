"""Where in a piece of CSV text does a row start?

Arrow's reading of a row, which this file follows: a quote opens only as the first character of a
field; inside quotes two quotes are one (if `double_quote`), and one quote ends the quoted part; a
row ends at "\\n", "\\r" or "\\r\\n" outside quotes; an escape character takes the next one
literally, inside quotes and out.

Whether a position far into a file lies inside quotes depends on all that precedes it, but is
nearly always proven by a little: text read once as if it began inside quotes, and once as if
outside, comes to the same state after the first quoted field that starts like a word. In `..."ab"`
the reader that was outside opens and closes; the one that was inside closes, takes `ab` for
unquoted text, and takes the last quote literally, since it starts no field: now both are outside.

A `Place` is a position with that state. Functions here look at bytes only.
"""

from __future__ import annotations

from functools import cached_property

from msgspec import Struct

Text = bytes | bytearray

BOM = b"\xef\xbb\xbf"
_LOOKBACKS = (256, 4 << 10, 64 << 10)  # tried in turn: little is nearly always enough


class Dialect(Struct, frozen=True, dict=True):  # a dict for what is cached
    """The characters that shape a CSV file, each a single byte; None where there is none."""

    delimiter: bytes = b","
    quote: bytes | None = b'"'
    escape: bytes | None = None
    double_quote: bool = True

    @cached_property
    def field_ends(self) -> frozenset[int]:
        """The bytes after which, unescaped and outside quotes, a field starts."""
        return frozenset((self.delimiter[0], 0x0A, 0x0D))

    @cached_property
    def ambiguous(self) -> frozenset[int]:
        """The bytes whose meaning depends on the byte before them or changes the next one's."""
        return frozenset((self.quote or b"")[:1] + (self.escape or b"")[:1])


class Place(Struct, frozen=True):
    """A position between two bytes, at or after the one asked for, and whether it is in quotes."""

    offset: int
    is_quoted: bool


def place_after(text: Text, offset: int, dialect: Dialect) -> Place:
    """Tell whether `offset` is in quotes, where `text` starts with a row.

    The byte at `offset` must be in `text`, or the file end there: two quotes may lie around it.
    """
    if dialect.quote is None or text.find(dialect.quote, 0, offset) < 0:
        return Place(offset, False)
    for lookback in _LOOKBACKS:
        if lookback < offset:
            place = proven_place(text, offset - lookback, offset, dialect)
            if place is not None:
                return place
    return _walk(text, Place(0, False), offset, dialect)


def proven_place(text: Text, origin: int, offset: int, dialect: Dialect) -> Place | None:
    """Tell whether `offset` is in quotes, from the text after `origin`, or None if that is open.

    Nothing is assumed of `origin`. The answer is a proof, also for text that no CSV writer writes.
    """
    if dialect.quote is None:
        return Place(offset, False)
    start = _neutral_start(text, origin, offset, dialect)
    if start is None:
        return None
    if_outside = _walk(text, Place(start, False), offset, dialect)
    if_inside = _walk(text, Place(start, True), offset, dialect)
    return if_outside if if_outside == if_inside else None


def row_start(text: Text, place: Place, dialect: Dialect, is_end: bool) -> int | None:
    """Find the first row start at or after `place`; the end of the file counts as one.

    `is_end` says that the file ends where `text` does. None: the answer lies beyond `text`.
    """
    offset = place.offset
    if not place.is_quoted and offset == 0:
        return 0
    if not place.is_quoted and _ends_row(text, offset - 1, dialect):
        return _after_line_end(text, offset - 1, is_end)
    return row_end(text, place, dialect, is_end)


def row_end(text: Text, place: Place, dialect: Dialect, is_end: bool) -> int | None:
    """Find the end, past its line end, of the row that `place` is in; else as `row_start`."""
    offset, is_quoted = place.offset, place.is_quoted
    while True:
        if is_quoted:
            closing = _quote_end(text, offset, len(text), dialect)
            if closing is None:
                return len(text) if is_end else None
            offset = closing
        newline = _newline(text, offset, dialect)
        stop = len(text) if newline is None else newline
        opening = _opening_quote(text, offset, stop, dialect)
        is_quoted = opening is not None
        if opening is not None:
            offset = opening + 1
        elif newline is None:
            return len(text) if is_end else None
        else:
            return _after_line_end(text, newline, is_end)


def unclosed_quote(text: Text, dialect: Dialect) -> int | None:
    """Find the quote that is open at the end of `text`, which starts with a row."""
    if not place_after(text, len(text), dialect).is_quoted:
        return None
    offset = 0
    while True:
        opening = _opening_quote(text, offset, len(text), dialect)
        assert opening is not None, "the end of the text is in quotes, so one of them is open"
        closing = _quote_end(text, opening + 1, len(text), dialect)
        if closing is None:
            return opening
        offset = closing


def looks_like_rows(text: Text, delimiter: bytes, num_columns: int) -> bool:
    """Tell whether most whole lines of `text`, which has no quote, have `num_columns` values."""
    lines = [line for line in text.splitlines()[1:-1] if line]
    if not lines:
        return False
    fitting = sum(line.count(delimiter) == num_columns - 1 for line in lines)
    return 2 * fitting > len(lines)


def count_line_ends(text: Text) -> int:
    """Count the line ends in `text`: "\\n", "\\r" and "\\r\\n" are one each."""
    return text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")


# -- steps -----------------------------------------------------------------------------------------


def _walk(text: Text, place: Place, stop: int, dialect: Dialect) -> Place:
    """Follow quotes from `place` to the first position at or after `stop` between characters."""
    offset, is_quoted = place.offset, place.is_quoted
    while offset < stop:
        if is_quoted:
            closing = _quote_end(text, offset, stop, dialect)
            if closing is None:
                return Place(_past_pair(text, stop, offset, dialect), True)
            offset, is_quoted = closing, False
        else:
            opening = _opening_quote(text, offset, stop, dialect)
            if opening is None:
                return Place(stop, False)
            offset, is_quoted = opening + 1, True
    return Place(offset, is_quoted)


def _quote_end(text: Text, offset: int, stop: int, dialect: Dialect) -> int | None:
    """Find the position after the quote before `stop` that ends the quotes open at `offset`."""
    quote = dialect.quote
    assert quote is not None, "without a quote character nothing is in quotes"
    while True:
        found = text.find(quote, offset, stop)
        if found < 0:
            return None
        if dialect.escape and _is_escaped(text, found, dialect):
            offset = found + 1
        elif dialect.double_quote and text[found + 1 : found + 2] == quote:
            offset = found + 2
        else:
            return found + 1


def _past_pair(text: Text, stop: int, origin: int, dialect: Dialect) -> int:
    """Give `stop`, or the position after it where a pair of quotes lies around it."""
    quote = dialect.quote
    if quote is None or not dialect.double_quote or text[stop - 1 : stop + 1] != quote + quote:
        return stop
    run = stop - 1  # quotes pair up from the first of the run, which starts after `origin`
    while run > origin and text[run - 1 : run] == quote:
        run -= 1
    if dialect.escape and _is_escaped(text, run, dialect):
        run += 1
    return stop + (stop - run) % 2


def _opening_quote(text: Text, offset: int, stop: int, dialect: Dialect) -> int | None:
    """Find the first quote before `stop` that opens, reading outside quotes from `offset`."""
    quote = dialect.quote
    if quote is None:
        return None
    found = text.find(quote, offset, stop)
    while found >= 0:
        if found == 0 or (
            text[found - 1] in dialect.field_ends and not _is_escaped(text, found - 1, dialect)
        ):
            return found
        found = text.find(quote, found + 1, stop)
    return None


def _newline(text: Text, offset: int, dialect: Dialect) -> int | None:
    """Find the first unescaped line end at or after `offset`."""
    while True:
        line_feed = text.find(b"\n", offset)
        found = text.find(b"\r", offset, len(text) if line_feed < 0 else line_feed)
        if found < 0:
            found = line_feed
        if found < 0 or not _is_escaped(text, found, dialect):
            return None if found < 0 else found
        offset = found + 1


def _after_line_end(text: Text, newline: int, is_end: bool) -> int | None:
    """Give the position after the line end at `newline`, which may be one of two bytes."""
    after = newline + 1
    if text[newline] == 0x0A:
        return after
    if after == len(text) and not is_end:
        return None
    return after + 1 if text[after : after + 1] == b"\n" else after


def _ends_row(text: Text, position: int, dialect: Dialect) -> bool:
    return text[position] in b"\r\n" and not _is_escaped(text, position, dialect)


def _is_escaped(text: Text, position: int, dialect: Dialect) -> bool:
    """Tell whether an odd number of escape characters stands right before `position`."""
    if dialect.escape is None:
        return False
    first = position
    while first > 0 and text[first - 1 : first] == dialect.escape:
        first -= 1
    return (position - first) % 2 == 1


def _neutral_start(text: Text, origin: int, stop: int, dialect: Dialect) -> int | None:
    """Find where to start reading without knowing the state: what stands before it is plain.

    After a quote, another one might be the second of a pair; after an escape, no byte is itself.
    """
    needed = 2 if dialect.escape else 1
    for start in range(origin + 2, stop):
        if dialect.ambiguous.isdisjoint(text[start - needed : start]):
            return start
    return None
