"""Do positions in a text get the state that reading it byte by byte gives them?"""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rdata.dataset.formats.csv.rows import (
    Dialect,
    Place,
    count_line_ends,
    looks_like_rows,
    place_after,
    proven_place,
    row_start,
    unclosed_quote,
)
from tests.dataset.formats.csv import reference

dialects = st.builds(
    Dialect,
    quote=st.sampled_from([b'"', None]),
    escape=st.sampled_from([None, b"\\"]),
    double_quote=st.booleans(),
)
texts = st.one_of(reference.any_text, reference.written_text)


@given(texts, dialects, st.integers(0, 400))
@example(b'"a""\n",c\n', Dialect(), 3)  # between the two quotes
@example(b"a\\\\\nb\n", Dialect(escape=b"\\"), 2)  # the second escape escapes nothing
@example(b'"a\r\n', Dialect(), 3)
@example(b"a\r\nb", Dialect(), 2)  # between the two bytes of a line end
def test_the_first_row_start_after_any_offset(text: bytes, dialect: Dialect, offset: int) -> None:
    offset = min(offset, len(text))
    found = row_start(text, place_after(text, offset, dialect), dialect, is_end=True)
    assert found == reference.read(text, dialect).first(offset)


@given(texts, texts, dialects, st.integers(0, 200), st.integers(0, 200))
@example(b'"x""a', b",b\n", Dialect(), 1, 6)  # it must not start between the two quotes
@example(b'"x\\"', b"a,b\n", Dialect(escape=b"\\"), 0, 6)  # nor after the escape
def test_what_is_proven_holds_whatever_precedes(
    before: bytes, text: bytes, dialect: Dialect, origin: int, offset: int
) -> None:
    whole = before + text
    offset = min(offset, len(whole))
    place = proven_place(whole, min(origin, offset), offset, dialect)
    if place is not None:
        assert place == place_after(whole, offset, dialect)


@given(st.lists(st.text("abc1 ", min_size=1), min_size=2, max_size=5), st.integers(0, 20))
def test_a_quoted_word_proves_the_state(words: list[str], cut: int) -> None:
    row = ",".join(f'"{word}"' for word in words).encode() + b"\n"
    text = (row * 4)[cut:]
    assert proven_place(text, 0, len(text), Dialect()) == Place(len(text), False)


def test_text_without_quotes_proves_nothing() -> None:
    assert proven_place(b"a,b\nc,d\n", 0, 8, Dialect()) is None


@given(texts, dialects, st.integers(0, 400), st.integers(0, 400))
def test_an_answer_from_part_of_the_text_is_the_answer(
    text: bytes, dialect: Dialect, offset: int, size: int
) -> None:
    offset, size = min(offset, len(text)), min(size, len(text))
    if size <= offset:
        return
    part = text[:size]
    found = row_start(part, place_after(part, offset, dialect), dialect, is_end=False)
    if found is not None:
        assert found == reference.read(text, dialect).first(offset)


@given(texts, dialects)
def test_a_quote_left_open_is_found(text: bytes, dialect: Dialect) -> None:
    opened = unclosed_quote(text, dialect)
    assert (opened is not None) == reference.read(text, dialect).is_open
    if opened is not None:
        assert text[opened : opened + 1] == dialect.quote
        assert not reference.read(text[:opened], dialect).is_open


def test_line_ends_are_counted_once_each() -> None:
    assert count_line_ends(b"a\nb\r\nc\rd\r\re\n\r") == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"tail,1\n1,2\n3,4\n5", True),
        (b"tail\n\n1,2\n\n3,4\n5", True),
        (b"tail\nwords, and words, and words\nand more\nend", False),
        (b"no line end at all", False),
    ],
)
def test_rows_of_the_right_width_look_like_rows(text: bytes, expected: bool) -> None:
    assert looks_like_rows(text, b",", num_columns=2) is expected
