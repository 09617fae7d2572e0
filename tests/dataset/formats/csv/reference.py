"""Where do the rows of a CSV text start, read one byte after the other?

Written apart from `rdata.dataset.formats.csv.rows`, and too slow for anything but tests.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from rdata.dataset.formats.csv.rows import Dialect


@dataclass(frozen=True)
class Reading:
    """Where rows start, the end of the text among them, and whether a quote is open there."""

    row_starts: list[int]
    is_open: bool

    def first(self, offset: int) -> int:
        return next(start for start in self.row_starts if start >= offset)


def read(text: bytes, dialect: Dialect) -> Reading:
    quote, escape = dialect.quote, dialect.escape
    starts = [0]
    is_field_start, is_quoted, position = True, False, 0
    while position < len(text):
        byte = text[position : position + 1]
        following = text[position + 1 : position + 2]
        width = 1
        if is_field_start and byte == quote:
            is_quoted, is_field_start = True, False
        elif escape is not None and byte == escape:
            width, is_field_start = 2, False
        elif is_quoted:
            if byte == quote and dialect.double_quote and following == quote:
                width = 2
            elif byte == quote:
                is_quoted = False
        elif byte in (b"\r", b"\n"):
            width = 2 if byte + following == b"\r\n" else 1
            starts.append(position + width)
            is_field_start = True
        else:
            is_field_start = byte == dialect.delimiter
        position += width
    ends = [] if starts[-1] == len(text) else [len(text)]
    return Reading(starts + ends, is_quoted)


# What a text is put together from, so that quotes meet delimiters and line ends often.
_PARTS = [
    *(b'"', b'"', b'""', b",", b",", b"\n", b"\n", b"\r\n", b"\r", b"a", b"1", b" ", b"\\"),
    b"\\\\",
    *("é".encode(), b'",', b'"\n', b',"', b'\n"', b'",\n"', b"\xef\xbb\xbf"),
]
any_text = st.lists(st.sampled_from(_PARTS), max_size=40).map(b"".join)

_values = st.lists(
    st.sampled_from(["a", '"', "\n", "\r\n", "\r", ",", "é", " ", "", "1"]), max_size=5
).map("".join)


def _written(rows: list[list[str]], quotes_all: bool, line_end: str, ends_line: bool) -> bytes:
    def field(value: str) -> str:
        if quotes_all or any(special in value for special in '",\r\n'):
            return '"' + value.replace('"', '""') + '"'
        return value

    lines = [",".join(map(field, row)) for row in rows]
    return (line_end.join(lines) + (line_end if ends_line else "")).encode()


written_text = st.integers(1, 4).flatmap(
    lambda width: st.builds(
        _written,
        st.lists(st.lists(_values, min_size=width, max_size=width), max_size=8),
        st.booleans(),
        st.sampled_from(["\n", "\r\n", "\r"]),
        st.booleans(),
    )
)
