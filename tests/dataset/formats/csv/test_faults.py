"""Does what is wrong with a file reach the user with file, line, column, value and remedy?"""

from __future__ import annotations

import gzip
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rdata.dataset.errors import (
    CsvColumnsError,
    CsvEncodingError,
    CsvError,
    CsvParseError,
    CsvSplitError,
    CsvTypeError,
    InputFilesError,
    InputNotFoundError,
)
from rdata.dataset.formats.csv import csv_options, pieces, plan_csv, read_csv_range
from rdata.errors import DataError

ROWS = 2000


def read(path: Path, target_bytes: int = 1 << 20, **arguments: Any) -> None:
    options = csv_options(**arguments)
    plan = plan_csv(path, options, target_bytes)
    for item in plan.ranges:
        for _ in read_csv_range(item, plan.schema, options, piece_bytes=4000):
            pass


def write(folder: Path, lines: list[str], line_end: str = "\n", encoding: str = "utf-8") -> Path:
    path = folder / "a.csv"
    path.write_bytes((line_end.join(lines) + line_end).encode(encoding))
    return path


def rows(bad_line: int, bad: str, before: str = "1,a,2.5") -> list[str]:
    """The lines of a file of three columns, the 1-based `bad_line` of which is `bad`."""
    lines = ["x,y,z", *[before] * ROWS]
    lines[bad_line - 1] = bad
    return lines


# Lines in the middle of the first and last piece, and one that only a later range reads.
LINES = pytest.mark.parametrize("line", [300, 1300, ROWS + 1])
TARGETS = pytest.mark.parametrize("target_bytes", [5000, 1 << 20])


class TestValues:
    @LINES
    @TARGETS
    @pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
    def test_are_named_with_their_line(
        self, tmp_path: Path, line: int, target_bytes: int, line_end: str
    ) -> None:
        path = write(tmp_path, rows(line, '"oh, no",b,1'), line_end)
        with pytest.raises(CsvTypeError) as caught:
            read(path, target_bytes, column_types={"x": "int64"})
        error = caught.value
        assert (error.path, error.line, error.column) == (str(path), line, "x")
        assert (error.type, error.value) == ("int64", "oh, no")
        message = str(error)
        assert message.startswith(f"{path}, line {line}: column 'x': value 'oh, no' does not fit")
        assert "column_types={'x': 'string'}" in message
        assert "null_values=['oh, no', ...]" in message

    def test_that_a_sample_did_not_suggest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("rdata.dataset.formats.csv.schema.SAMPLE_BYTES", 1)
        lines = ["x,y", *["1,a"] * 200_000]
        lines[30_000] = "1.5,b"
        with pytest.raises(
            CsvTypeError, match=r"line 30001: .*'1\.5' does not fit int64, the type that a sample"
        ) as caught:
            read(write(tmp_path, lines))
        assert "column_types={'x': 'float64'}" in str(caught.value)

    def test_of_the_first_row_at_fault(self, tmp_path: Path) -> None:
        lines = rows(900, "1,a,late")
        lines[700] = "early,a,1"  # another column, which Arrow converts on its own
        lines[800] = "1,a"
        with pytest.raises(CsvTypeError, match=r"line 701: column 'x': value 'early'"):
            read(write(tmp_path, lines), column_types={"x": "int64", "z": "float64"})

    def test_after_line_ends_in_quotes_and_empty_lines(self, tmp_path: Path) -> None:
        lines = ["x,y", '1,"a\nb\nc"', "", "", "2,d", "", "oh,e"]
        with pytest.raises(CsvTypeError, match=r"line 9: column 'x': value 'oh'"):
            read(write(tmp_path, lines), column_types={"x": "int64"})

    def test_below_skipped_lines_and_a_mark(self, tmp_path: Path) -> None:
        path = write(tmp_path, ["\ufefftitle", "more", "x", "1", "oh"])
        with pytest.raises(CsvTypeError, match=r"line 5: column 'x': value 'oh'"):
            read(path, skip_rows=2, column_types={"x": "int64"})

    @pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
    def test_in_other_encodings(self, tmp_path: Path, encoding: str) -> None:
        path = write(tmp_path, rows(1200, "é,b,1"), encoding=encoding)
        with pytest.raises(CsvTypeError, match=r"line 1200: column 'x': value 'é'"):
            read(path, 5000, encoding=encoding, column_types={"x": "int64"})

    def test_in_compressed_files(self, tmp_path: Path) -> None:
        path = write(tmp_path, rows(1200, "oh,b,1"))
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
        with pytest.raises(CsvTypeError, match=r"a\.csv\.gz, line 1200: column 'x'"):
            read(tmp_path / "a.csv.gz", column_types={"x": "int64"})

    def test_of_columns_not_read_do_not_matter(self, tmp_path: Path) -> None:
        path = write(tmp_path, rows(900, "oh,b,1"))
        read(path, include_columns=["y", "z"])

    @pytest.mark.parametrize(
        ("type", "value", "remedy"),
        [
            ("int8", "300", "float64"),
            ("bool", "maybe", "string"),
            ("date32", "tomorrow", "string"),
            ("date32", "2024-01-01 10:00:00", "timestamp[s]"),
            ("timestamp[s]", "2024-01-01 10:00:00.5", "timestamp[ns]"),
            ("timestamp[s]", "31.12.2020", "string"),
            ("timestamp[s, tz=UTC]", "2024-01-01 10:00:00.5Z", "timestamp[ns, tz=UTC]"),
            ("timestamp[ns]", "3000-01-01", "timestamp[us]"),
        ],
    )
    def test_get_a_type_that_fits(self, tmp_path: Path, type: str, value: str, remedy: str) -> None:
        path = write(tmp_path, ["x", value])
        with pytest.raises(CsvTypeError, match=re.escape(f"column_types={{'x': '{remedy}'}}")):
            read(path, column_types={"x": type})
        read(path, column_types={"x": remedy})

    def test_that_are_times_in_another_format(self, tmp_path: Path) -> None:
        path = write(tmp_path, ["x", "31.12.2020"])
        with pytest.raises(CsvTypeError, match=r"timestamp_parsers=\['%d\.%m\.%Y', \.\.\.\] with"):
            read(path, column_types={"x": "timestamp[s]"})
        read(path, column_types={"x": "timestamp[s]"}, timestamp_parsers=["%d.%m.%Y"])


class TestRows:
    @LINES
    @TARGETS
    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            ("1,b", r"2 values, fewer than the 3 columns \(x, y, z\): 1,b; .*delimiter=.*skip"),
            ('1,"b\nc",2,3', r"4 values, more than the 3 columns"),
        ],
    )
    def test_of_another_width(
        self, tmp_path: Path, line: int, target_bytes: int, bad: str, message: str
    ) -> None:
        path = write(tmp_path, rows(line, bad))
        with pytest.raises(CsvParseError, match=message) as caught:
            read(path, target_bytes)
        assert (caught.value.path, caught.value.line) == (str(path), line)

    def test_that_given_names_do_not_fit(self, tmp_path: Path) -> None:
        with pytest.raises(
            CsvParseError, match=r"line 1: 3 values, more than the 2 columns \(a, b"
        ):
            read(write(tmp_path, ["1,2,3"]), column_names=["a", "b"])

    def test_that_are_last_and_have_no_line_end(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes(b"x,y\n1,2\n1,2,3")
        with pytest.raises(CsvParseError, match=r"line 3: 3 values, more than the 2 columns"):
            read(path)

    @TARGETS
    def test_with_a_quote_never_closed(self, tmp_path: Path, target_bytes: int) -> None:
        path = write(tmp_path, rows(ROWS - 5, '1,"b,2'))
        with pytest.raises(
            CsvParseError, match=r"the quote that opens at '\"b,2.* quote_char=None"
        ):
            read(path, target_bytes)
        read(path, target_bytes, quote_char=None)

    def test_a_stray_quote_in_a_large_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pieces, "LOOKBACK_BYTES", 500)
        with pytest.raises(CsvSplitError, match=r"stray one, pass quote_char=None"):
            read(write(tmp_path, rows(100, '1,"b,2')), 5000)

    def test_a_stray_quote_does_not_fill_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pieces, "MAX_ROW_BYTES", 100_000)
        lines = ["x,y,z", *["1,a,2.5"] * 50_000]
        lines[100] = '1,"b,2'
        with pytest.raises(CsvParseError, match=r"longer than 100,000 bytes.*stray quote"):
            read(write(tmp_path, lines), 1 << 30)

    def test_a_header_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(CsvParseError, match=r"line 1: the first row cannot be read"):
            read(write(tmp_path, ['"x']))


class TestBytes:
    @LINES
    @TARGETS
    def test_that_are_not_utf8(self, tmp_path: Path, line: int, target_bytes: int) -> None:
        path = write(tmp_path, rows(line, "1,café,2"), encoding="latin-1")
        with pytest.raises(CsvEncodingError) as caught:
            read(path, target_bytes)
        error = caught.value
        assert (error.path, error.line, error.value) == (str(path), line, b"caf\xe9")
        assert 'encoding="latin-1"' in str(error)
        assert 'column_types={"y": "binary"}' in str(error)
        read(path, target_bytes, encoding="latin-1")
        read(path, target_bytes, column_types={"y": "binary"})

    @pytest.mark.parametrize("encoding", ["cp1252", "shift_jis", "ascii"])
    def test_that_are_not_of_the_encoding(self, tmp_path: Path, encoding: str) -> None:
        path = write(tmp_path, rows(1200, "1,bad,2"))
        # 0x81 is undefined in cp1252, and in Shift-JIS it wants another byte than a comma.
        path.write_bytes(path.read_bytes().replace(b"bad", b"\x81"))
        with pytest.raises(CsvEncodingError) as caught:
            read(path, 5000, encoding=encoding)
        assert (caught.value.path, caught.value.line) == (str(path), 1200)

    def test_that_are_utf8_are_not_ascii(self, tmp_path: Path) -> None:
        path = write(tmp_path, ["x", "a", "é"])
        with pytest.raises(CsvEncodingError, match=r'line 3: .*valid ascii.*encoding="utf-8"'):
            read(path, encoding="ascii")

    def test_in_the_header(self, tmp_path: Path) -> None:
        with pytest.raises(CsvEncodingError, match=r"line 1: .*encoding="):
            read(write(tmp_path, ["é,x", "1,2"], encoding="latin-1"))

    @pytest.mark.parametrize("arguments", [{}, {"column_names": ["x"]}, {"skip_rows": 1}])
    def test_that_are_utf16(self, tmp_path: Path, arguments: dict[str, Any]) -> None:
        path = write(tmp_path, ["x", "é", "ä"], encoding="utf-16")
        with pytest.raises(CsvEncodingError, match=r'mark of UTF-16.*encoding="utf-16"') as caught:
            read(path, **arguments)
        assert (caught.value.path, caught.value.line) == (str(path), 1)
        read(path, encoding="utf-16", **arguments)

    def test_that_are_utf16_without_a_mark(self, tmp_path: Path) -> None:
        path = write(tmp_path, ["x", "é"], encoding="utf-16-le")
        with pytest.raises(CsvEncodingError, match=r'start with BOM; .*"utf-16-le"'):
            read(path, encoding="utf-16")


class TestFiles:
    @pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
    def test_that_are_archives(self, tmp_path: Path, encoding: str) -> None:
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("b.csv", "x\n1\n")
        with pytest.raises(InputFilesError, match=re.escape(f"pass 'zip://*.csv::{path}'")):
            read(path, encoding=encoding)

    def test_that_are_not_compressed_as_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv.gz").write_bytes(b"x\n1\n")
        with pytest.raises(InputFilesError, match=r"by its suffix it is compressed with gzip"):
            read(tmp_path / "a.csv.gz")

    @pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst", "lz4"])
    def test_that_are_cut_off(self, tmp_path: Path, suffix: str) -> None:
        pa = pytest.importorskip("pyarrow")
        text = "x\n" + "".join(f"{index * 7919 % 10007}\n" for index in range(300_000))
        path = tmp_path / f"a.csv.{suffix}"
        if suffix == "xz":
            lzma = pytest.importorskip("lzma")
            content = lzma.compress(text.encode())
        else:
            name = {"gz": "gzip", "bz2": "bz2", "zst": "zstd", "lz4": "lz4"}[suffix]
            with pa.output_stream(path, compression=name) as file:
                file.write(text.encode())
            content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(InputFilesError, match="cannot be read"):
            read(path)

    @pytest.mark.parametrize("left", [0, 20, 500])
    def test_a_file_that_became_shorter_is_named(self, tmp_path: Path, left: int) -> None:
        path = write(tmp_path, rows(ROWS + 1, "1,a,2.5"))
        options = csv_options()
        plan = plan_csv(path, options, target_bytes=4000)
        path.write_bytes(path.read_bytes()[:left])
        with pytest.raises(InputFilesError, match=r"a\.csv: is shorter than the [\d,]+ bytes that"):
            list(read_csv_range(plan.ranges[-1], plan.schema, options))

    def test_that_vanish(self, tmp_path: Path) -> None:
        path = write(tmp_path, ["x", "1"])
        plan = plan_csv(path)
        path.unlink()
        with pytest.raises(InputNotFoundError, match="no such file"):
            list(read_csv_range(plan.ranges[0], plan.schema, csv_options()))


@pytest.mark.parametrize(
    "error",
    [
        InputNotFoundError("no such file"),
        CsvColumnsError("m", path="a.csv"),
        CsvParseError("m", path="a.csv", line=3),
        CsvSplitError("m", path="a.csv", line=3),
        CsvTypeError("m", path="a.csv", line=3, column="x", type="int64", value="oh"),
        CsvEncodingError("m", path="a.csv", line=3, value=b"\xe9"),
    ],
)
def test_errors_travel(error: DataError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert isinstance(error, (CsvError, FileNotFoundError))
