"""Does every split of every file give exactly the rows of the unsplit file?

Arrow, given the whole text as one block, is the reference.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rdata.dataset.errors import CsvParseError, CsvSplitError
from rdata.dataset.formats.csv import CsvOptions, CsvRange, csv_options, pieces, read_csv_range
from rdata.dataset.formats.csv.rows import BOM
from tests.dataset.formats.csv import reference

SMALL = {"SLACK_BYTES": 4, "PROOF_BYTES": (3, 8), "FIRST_PIECE_BYTES": 1}


@pytest.fixture
def small_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the sizes that texts of a few bytes never reach ones that they do."""
    for name, value in SMALL.items():
        monkeypatch.setattr(pieces, name, value)


@pytest.fixture
def file() -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        yield Path(file.name)


def skip(row: pa_csv.InvalidRow) -> str:
    return "skip"  # rows of any width occur; what is skipped must be the same too


def unsplit(text: bytes, options: CsvOptions) -> pa.Table | None:
    """Read `text` with Arrow, all columns as strings; None where it has no row."""

    def read(convert_options: pa_csv.ConvertOptions) -> pa.Table:
        source: Any = pa.BufferReader(text)
        return pa_csv.read_csv(
            source,
            pa_csv.ReadOptions(
                use_threads=False, block_size=len(text) + 1, autogenerate_column_names=True
            ),
            options.arrow_parse_options("a.csv"),
            convert_options,
        )

    if not text.removeprefix(BOM).strip(b"\r\n"):
        return None
    text += b"\n"  # of a lone row without a line end Arrow would not tell the columns
    names = read(options.arrow_convert_options()).column_names
    return read(options.arrow_convert_options(dict.fromkeys(names, pa.string())))


def read_split(
    file: Path, cuts: list[int], options: CsvOptions, schema: pa.Schema, piece_bytes: int
) -> list[dict[str, Any]]:
    size = file.stat().st_size
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < size}), size]
    return [
        row
        for start, end in itertools.pairwise(bounds)
        for table in read_csv_range(
            CsvRange(str(file), start, end, size), schema, options, piece_bytes=piece_bytes
        )
        for row in table.to_pylist()
    ]


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.one_of(reference.any_text, reference.written_text),
    cuts=st.lists(st.integers(1, 120), max_size=6),
    piece_bytes=st.integers(1, 60),
    lookback=st.sampled_from([4, 16, 1 << 18]),
    escape=st.sampled_from([None, "\\"]),
    quote=st.sampled_from(['"', '"', None]),
    double_quote=st.booleans(),
    has_mark=st.booleans(),
)
@example(b'a,"x\ny"\nb,"z"\n', [5], 1, 4, None, '"', True, False)
@example(b'"a""b",c\n' * 3, [3], 1, 4, None, '"', True, False)
@example(b"a", [], 1, 4, None, '"', True, False)  # one row, and no line end
@example(b'"a",b', [2], 1, 4, None, '"', True, True)
@example(b"a\n\xef\xbb\xbfb\n", [2], 1, 4, None, '"', True, False)  # a mark that is text
def test_every_split_gives_the_unsplit_rows(
    file: Path,
    small_reads: None,
    text: bytes,
    cuts: list[int],
    piece_bytes: int,
    lookback: int,
    escape: str | None,
    quote: str | None,
    double_quote: bool,
    has_mark: bool,
) -> None:
    options = csv_options(
        header=False,
        escape_char=escape,
        quote_char=quote,
        double_quote=double_quote,
        invalid_row_handler=skip,
    )
    while text.startswith(BOM):
        text = text[len(BOM) :]  # `has_mark` decides
    if escape and (len(text) - len(text.rstrip(b"\\"))) % 2:
        text += b"\\"  # an escape of nothing, which Arrow refuses
    if reference.read(text, options.dialect_of("a.csv")).is_open:
        text += b'"'  # else it is refused, as test_faults.py has it
    if has_mark:
        text = BOM + text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "LOOKBACK_BYTES", lookback)
        file.write_bytes(text)
        try:
            expected = unsplit(text, options)
        except pa.ArrowInvalid:
            with pytest.raises(CsvParseError):
                read_split(file, cuts, options, pa.schema([]), piece_bytes)
            return
        schema = pa.schema([]) if expected is None else expected.schema
        rows = [] if expected is None else expected.to_pylist()
        try:
            assert read_split(file, cuts, options, schema, piece_bytes) == rows
        except CsvSplitError:
            assert lookback < len(text), "with the whole text to look back at, nothing is assumed"


@given(st.lists(st.integers(1, 40_000), max_size=8), st.integers(1, 50_000))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_splits_of_a_larger_file_with_the_usual_sizes(
    file: Path, cuts: list[int], piece_bytes: int
) -> None:
    line = 'row {},"a ""word"", and\nanother",{}\n'
    text = "".join(line.format(index, "x" * (index % 50)) for index in range(600)).encode()
    file.write_bytes(text)
    options = csv_options(header=False)
    expected = unsplit(text, options)
    assert expected is not None
    assert expected.num_rows == 600
    assert read_split(file, cuts, options, expected.schema, piece_bytes) == expected.to_pylist()


def test_a_row_of_a_header_longer_than_the_first_ranges(file: Path, small_reads: None) -> None:
    file.write_bytes(b"a" * 50 + b",b\n1,2\n3,4\n")
    schema = pa.schema([("a" * 50, pa.int64()), ("b", pa.int64())])
    rows = read_split(file, [10, 20, 40, 56], csv_options(), schema, 1)
    assert [row["b"] for row in rows] == [2, 4]


class TestLongFields:
    """Quoted fields that are longer than what a range looks back at."""

    def split_in_four(self, file: Path, text: bytes) -> list[dict[str, Any]]:
        file.write_bytes(text)
        schema = pa.schema([("f0", pa.string()), ("f1", pa.string())])
        cuts = [len(text) * part // 4 for part in (1, 2, 3)]
        return read_split(file, cuts, csv_options(header=False), schema, 1 << 20)

    def test_of_prose_are_read(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pieces, "LOOKBACK_BYTES", 64)
        prose = "said, and meant, and heard\nor not\n" * 40
        rows = self.split_in_four(file, f'1,"{prose}"\n2,b\n'.encode())
        assert rows == [{"f0": "1", "f1": prose}, {"f0": "2", "f1": "b"}]

    @pytest.mark.parametrize("before", [0, 30, 200])
    @pytest.mark.parametrize("first_piece_bytes", [16, 1 << 20])
    def test_that_look_like_rows_are_refused(
        self, file: Path, monkeypatch: pytest.MonkeyPatch, before: int, first_piece_bytes: int
    ) -> None:
        monkeypatch.setattr(pieces, "LOOKBACK_BYTES", 64)
        monkeypatch.setattr(pieces, "FIRST_PIECE_BYTES", first_piece_bytes)
        text = "1,2\n" * before + '3,"' + "4,5\n" * 200 + '"\n6,7\n'
        with pytest.raises(CsvSplitError, match=r"looks like rows.*split=False") as caught:
            self.split_in_four(file, text.encode())
        assert caught.value.line is not None
        assert before < caught.value.line <= before + 201

    def test_that_look_like_rows_are_read_unsplit(self, file: Path) -> None:
        field = "4,5\n" * 200_000
        file.write_bytes(f'3,"{field}"\n6,7\n'.encode())
        schema = pa.schema([("f0", pa.int64()), ("f1", pa.string())])
        rows = read_split(file, [], csv_options(header=False), schema, 1 << 16)
        assert rows == [{"f0": 3, "f1": field}, {"f0": 6, "f1": "7"}]

    def test_over_several_ranges_where_only_a_later_one_looks_like_rows(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pieces, "LOOKBACK_BYTES", 64)
        monkeypatch.setattr(pieces, "PROOF_BYTES", (16, 64))
        prose, rows = "no row, not one, of these\n" * 20, "4,5\n" * 200
        text = f'1,"{prose}{rows}"\n6,7\n'.encode()
        file.write_bytes(text)
        schema = pa.schema([("f0", pa.string()), ("f1", pa.string())])
        with pytest.raises(CsvSplitError):
            read_split(file, [200, len(text) - 100], csv_options(header=False), schema, 1 << 20)
