"""Are rows read as the options say, whatever the file is kept in?"""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import lzma
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from rdata.dataset.errors import CsvColumnsError, CsvEncodingError
from rdata.dataset.formats.csv import csv_options, plan_csv, read_csv_range


def read(path: Any, target_bytes: int = 1 << 20, **arguments: Any) -> pa.Table:
    options = csv_options(**arguments)
    plan = plan_csv(path, options, target_bytes)
    tables = [table for item in plan.ranges for table in read_csv_range(item, plan.schema, options)]
    assert all(table.schema == plan.schema and table.num_rows for table in tables)
    return pa.concat_tables(tables) if tables else plan.schema.empty_table()


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


NUMBERS = "x,y\n" + "".join(f"{index},n{index}\n" for index in range(20_000))
EXPECTED = pa.table({"x": range(20_000), "y": [f"n{index}" for index in range(20_000)]})


@pytest.mark.parametrize("target_bytes", [1000, 50_000, 1 << 20])
def test_ranges_together_are_the_file(tmp_path: Path, target_bytes: int) -> None:
    assert read(write(tmp_path / "a.csv", NUMBERS), target_bytes) == EXPECTED


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_compressed_files(tmp_path: Path, suffix: str, compress: Any) -> None:
    path = write(tmp_path / f"a.csv{suffix}", compress(NUMBERS.encode()))
    assert read(path, 1000) == EXPECTED


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_arrows_compressions(tmp_path: Path, compression: str) -> None:
    suffix = {"zstd": "zst", "lz4": "lz4"}[compression]
    with pa.output_stream(tmp_path / f"a.csv.{suffix}", compression=compression) as file:
        file.write(NUMBERS.encode())
    assert read(tmp_path, 1000) == EXPECTED


def test_a_store(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pipe("/csv/a.csv", NUMBERS.encode())
    memory.pipe("/csv/b.csv.gz", gzip.compress(NUMBERS.encode()))
    assert read("memory://csv", 10_000) == pa.concat_tables([EXPECTED, EXPECTED])


def test_a_chain_of_stores(tmp_path: Path) -> None:
    archive = fsspec.filesystem("zip", fo=str(tmp_path / "a.zip"), mode="w")
    with archive.open("a.csv", "wb") as file:
        file.write(NUMBERS.encode())
    archive.close()
    assert read(f"zip://a.csv::file://{tmp_path}/a.zip", 50_000) == EXPECTED


def test_arrows_objects_mean_what_they_mean_to_arrow(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "x,y\n1,-\n-,NA\n")
    parse = pa_csv.ParseOptions(delimiter=",")
    convert = pa_csv.ConvertOptions(null_values=["-"], strings_can_be_null=False)
    found = read(path, parse_options=parse, convert_options=convert)
    assert found == pa_csv.read_csv(path, parse_options=parse, convert_options=convert)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_a_lone_row_without_a_line_end(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.csv", "1,é".encode(encoding))
    expected = pa.table({"f0": [1], "f1": ["é"]})
    assert read(path, header=False, encoding=encoding) == expected
    assert read(path, 2, header=False, encoding=encoding) == expected
    assert read(path, encoding=encoding).column_names == ["1", "é"]
    assert read(path, encoding=encoding).num_rows == 0


@pytest.mark.parametrize(
    "encoding", ["latin-1", "cp1252", "utf-16", "utf-32-be", "gbk", "utf-8-sig"]
)
def test_encodings(tmp_path: Path, encoding: str) -> None:
    word = "价格" if encoding == "gbk" else "é"
    text = "x,y\n" + "".join(f'{index},"{word}\n{index}"\n' for index in range(3000))
    table = read(write(tmp_path / "a.csv", text.encode(encoding)), 2000, encoding=encoding)
    assert table.column("y").to_pylist() == [f"{word}\n{index}" for index in range(3000)]


def test_line_ends_in_quotes_as_pandas_reads_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'x,y\n1,"a\nb"\r\n2,"c ""d""\r\n"\n\n3,')
    assert read(path, 4).to_pydict() == {"x": [1, 2, 3], "y": ["a\nb", 'c "d"\r\n', ""]}


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ("x;y\n1;2\n", {"delimiter": ";"}, {"x": [1], "y": [2]}),
        ("1,2\n", {"header": False}, {"f0": [1], "f1": [2]}),
        ("1,2\n", {"column_names": ["a", "b"]}, {"a": [1], "b": [2]}),
        ("x,y\n1,2\n", {"column_names": ["a", "b"], "header": True}, {"a": [1], "b": [2]}),
        ("#\n#\nx\n1\n", {"skip_rows": 2}, {"x": [1]}),
        ("x\nunit\n1\n", {"skip_rows_after_names": 1}, {"x": [1]}),
        ("x\n1\nNA\n", {}, {"x": [1, None]}),
        ("x,y\n1,-\n-,a\n", {"null_values": ["-"]}, {"x": [1, None], "y": [None, "a"]}),
        ("x,y\n1,\n,a\n", {}, {"x": [1, None], "y": ["", "a"]}),
        ("x,y\n1,\n", {"strings_can_be_null": True}, {"x": [1], "y": [None]}),
        ("x\nja\nnein\n", {"true_values": ["ja"], "false_values": ["nein"]}, {"x": [True, False]}),
        ("x;y\n1,5;2\n", {"delimiter": ";", "decimal_point": ","}, {"x": [1.5], "y": [2]}),
        ("x\n'a,b'\n", {"quote_char": "'"}, {"x": ["a,b"]}),
        ('x,y\n"a,b"\n', {"quote_char": None}, {"x": ['"a'], "y": ['b"']}),
        ("x,y\na\\,b,1\n", {"escape_char": "\\"}, {"x": ["a,b"], "y": [1]}),
        ("x\n1\n\n2\n", {"ignore_empty_lines": False}, {"x": [1, None, 2]}),
        ("x,y\n007,1\n", {"column_types": {"x": str}}, {"x": ["007"], "y": [1]}),
        ("x,y,z\n1,2,3\n", {"include_columns": ["z", "x"]}, {"z": [3], "x": [1]}),
        (
            "x\n3.4.2024\n",
            {"timestamp_parsers": ["%d.%m.%Y"]},
            {"x": [dt.datetime.fromisoformat("2024-04-03")]},
        ),
        (
            "x\n1\n",
            {"include_columns": ["x", "w"], "include_missing_columns": True},
            {"x": [1], "w": [None]},
        ),
        (
            "x,y\n1\n2,3\n",
            {"parse_options": pa_csv.ParseOptions(invalid_row_handler=lambda row: "skip")},
            {"x": [2], "y": [3]},
        ),
        ('x\n"1\n2"\n', {"newlines_in_values": False}, {"x": ["1\n2"]}),
    ],
)
def test_options(
    tmp_path: Path, text: str, arguments: dict[str, Any], expected: dict[str, list[Any]]
) -> None:
    path = write(tmp_path / "a.csv", text)
    for target_bytes in (3, 1 << 20):
        assert read(path, target_bytes, **arguments).to_pydict() == expected


def test_tsv(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.tsv", "x\ty\n1\t2\n")).to_pydict() == {"x": [1], "y": [2]}


def test_columns_in_another_order_are_matched_by_name(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "x,y\n1,a\n")
    write(tmp_path / "b.csv", "y,x\nb,2\n")
    write(tmp_path / "c.csv", "")
    assert read(tmp_path).to_pydict() == {"x": [1, 2], "y": ["a", "b"]}


def test_a_file_that_was_not_sampled_is_checked(tmp_path: Path) -> None:
    for index in range(40):
        write(tmp_path / f"{index:02}.csv", "x,y\n1,2\n")
    write(tmp_path / "20.csv", "x,z\n1,2\n")
    with pytest.raises(CsvColumnsError, match=r"20\.csv: lacks column 'y'; it has x, z"):
        read(tmp_path)


class TestProjection:
    def tables(self, tmp_path: Path, columns: list[str]) -> list[pa.Table]:
        options = csv_options()
        plan = plan_csv(write(tmp_path / "a.csv", NUMBERS), options, 50_000)
        return [
            table
            for item in plan.ranges
            for table in read_csv_range(item, plan.schema, options, columns)
        ]

    def test_columns_in_the_order_asked_for(self, tmp_path: Path) -> None:
        table = pa.concat_tables(self.tables(tmp_path, ["y"]))
        assert table == EXPECTED.select(["y"])
        table = pa.concat_tables(self.tables(tmp_path, ["y", "x"]))
        assert table == EXPECTED.select(["y", "x"])

    def test_no_columns_still_count(self, tmp_path: Path) -> None:
        tables = self.tables(tmp_path, [])
        assert sum(table.num_rows for table in tables) == 20_000
        assert {table.num_columns for table in tables} == {0}

    def test_an_unknown_column(self, tmp_path: Path) -> None:
        with pytest.raises(CsvColumnsError, match=r"no column 'z'; there are: x, y"):
            self.tables(tmp_path, ["z"])


def test_pieces_are_bounded_and_start_small(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x\n" + "1234567\n" * 1_000_000)
    options = csv_options()
    plan = plan_csv(path, options, 1 << 30)
    sizes = [
        table.num_rows * 8
        for table in read_csv_range(plan.ranges[0], plan.schema, options, piece_bytes=2 << 20)
    ]
    assert sizes[0] < 1.2 * (1 << 20)
    assert max(sizes) < 1.3 * (2 << 20)
    assert sum(sizes) == 8_000_000


def test_tables_do_not_change_when_reading_goes_on(tmp_path: Path) -> None:
    options = csv_options()
    plan = plan_csv(write(tmp_path / "a.csv", NUMBERS), options, 1 << 30)
    tables = list(read_csv_range(plan.ranges[0], plan.schema, options, piece_bytes=5000))
    assert len(tables) > 10
    assert pa.concat_tables(tables) == EXPECTED


def test_stopping_early_closes_the_file(tmp_path: Path) -> None:
    options = csv_options()
    plan = plan_csv(write(tmp_path / "a.csv", NUMBERS), options)
    reading = read_csv_range(plan.ranges[0], plan.schema, options, piece_bytes=5000)
    assert next(reading).slice(0, 2).to_pydict() == {"x": [0, 1], "y": ["n0", "n1"]}
    reading.close()  # type: ignore[attr-defined]


def test_threads_change_nothing(tmp_path: Path) -> None:
    options = csv_options()
    plan = plan_csv(write(tmp_path / "a.csv", NUMBERS), options)
    tables = read_csv_range(plan.ranges[0], plan.schema, options, threads=True)
    assert pa.concat_tables(list(tables)) == EXPECTED


@pytest.mark.parametrize("target_bytes", [20_000, 1 << 20])
@pytest.mark.parametrize(
    ("written", "value"),
    [('"a ""b"", c\nd"', 'a "b", c\nd'), ("é", "é"), ('"é"', "é"), ("a", "a")],
)
def test_what_comes_late_is_read_as_if_it_had_come_at_first(
    tmp_path: Path, written: str, value: str, target_bytes: int
) -> None:
    """Pieces without quotes, and those of ASCII alone, are parsed in simpler ways."""
    late = f"20000,{written}\n" + "20001,after\n"
    table = read(write(tmp_path / "a.csv", NUMBERS + late), target_bytes)
    expected = pa.table({"x": [20_000, 20_001], "y": [value, "after"]})
    assert table.combine_chunks() == pa.concat_tables([EXPECTED, expected]).combine_chunks()


def test_bytes_that_are_no_text_are_found_wherever_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", NUMBERS.encode() + b"20000,\xff\n")
    with pytest.raises(CsvEncodingError, match="20002"):
        read(path)
