"""Are Parquet files read in parts, with one schema?"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rdata
from rdata.dataset.errors import InputFilesError, InputNotFoundError
from rdata.dataset.formats.parquet_source import PIECE_BYTES, parquet_source
from rdata.errors import DataError, OptionError

pytestmark = pytest.mark.usefixtures("local")


def test_row_groups_are_splits_and_small_ones_join(tmp_path: Path) -> None:
    table = pa.table({"a": list(range(100)), "b": [str(i) for i in range(100)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10)
    dataset = rdata.read_parquet(tmp_path / "a.parquet")
    assert dataset.materialize().num_blocks() == 1
    many = rdata.read_parquet(tmp_path / "a.parquet", override_num_blocks=10)
    assert many.materialize().num_blocks() >= 10
    assert many.take_all() == table.to_pylist()
    assert many.limit(25).select_columns(["a"]).sum("a") == sum(range(25))


def test_rows_come_in_pieces_of_a_few_mebibytes(tmp_path: Path) -> None:
    text = ["a text that a dictionary of one value holds"] * 1_000_000
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    pieces = [
        table.nbytes
        for split in parquet_source(tmp_path, None, None, None, False).splits()
        for table in split.read()
    ]
    assert sum(pieces) > 40_000_000
    assert max(pieces) <= PIECE_BYTES


def test_columns_are_read_as_asked(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": [2], "c": [3]}), tmp_path / "a.parquet")
    dataset = rdata.read_parquet(tmp_path, columns=["c", "a"])
    assert dataset.take_all() == [{"c": 3, "a": 1}]
    with pytest.raises(DataError, match="no column 'cc'; did you mean 'c'"):
        rdata.read_parquet(tmp_path, columns=["cc"])


def test_columns_are_one_or_several_none_twice(tmp_path: Path) -> None:
    pq.write_table(pa.table({"i": [1], "d": [2], "id": [3]}), tmp_path / "a.parquet")
    assert rdata.read_parquet(tmp_path, columns="id").take_all() == [{"id": 3}]
    assert rdata.read_parquet(tmp_path, columns=[]).take_all() == [{}]
    with pytest.raises(OptionError, match="read_parquet: column 'i' is named twice"):
        rdata.read_parquet(tmp_path, columns=["i", "i"])


def test_files_may_differ_as_far_as_one_schema_holds_them(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"c": [True], "a": [0.5]}), tmp_path / "2.parquet")
    assert rdata.read_parquet(tmp_path).take_all() == [
        {"a": 1.0, "b": "x", "c": None},
        {"a": 0.5, "b": None, "c": True},
    ]
    assert rdata.read_parquet(tmp_path).select_columns("b").take_all() == [
        {"b": "x"},
        {"b": None},
    ]
    pq.write_table(pa.table({"a": ["text"]}), tmp_path / "3.parquet")
    clash = "'a' is int64 in .*/1.parquet and string in .*/3.parquet; no type holds both"
    with pytest.raises(DataError, match=f"read_parquet: column {clash}"):
        rdata.read_parquet(tmp_path)


def test_counting_reads_footers_only(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": list(range(1000))}), tmp_path / "a.parquet")
    dataset = rdata.read_parquet(tmp_path)
    (tmp_path / "a.parquet").unlink()
    assert dataset.count() == 1000
    assert dataset.limit(7).rename_columns({"a": "b"}).repartition(2).count() == 7


def test_another_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"a\.parquet: is not a Parquet file"):
        rdata.read_parquet(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [str(i) for i in range(10_000)]}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + b"\xff" * 500 + whole[700:])
    dataset = rdata.read_parquet(path)
    for result in (dataset.take_all, dataset.map(lambda row: row).take_all):
        with pytest.raises(InputFilesError, match=r"a\.parquet: is not a Parquet file, or a dam"):
            result()
    path.write_bytes(whole[:-60] + b"\xff" * 50 + whole[-10:])
    with pytest.raises(InputFilesError, match=r"a\.parquet: is not a Parquet file, or a dam"):
        rdata.read_parquet(path)
    path.unlink()
    with pytest.raises(InputNotFoundError, match=r"a\.parquet: no such file"):
        dataset.take_all()


def test_pandas_index_columns_are_plain_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="k"))
    frame.to_parquet(tmp_path / "a.parquet")
    kept = rdata.read_parquet(tmp_path).map_batches(lambda b: b, batch_format="pandas")
    assert kept.take_all() == [{"a": 1, "k": "x"}, {"a": 2, "k": "y"}]


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(DataError, match=r"twice\.parquet: .* more than one column named 'a'"):
        rdata.read_parquet(tmp_path)
