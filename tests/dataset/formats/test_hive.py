"""Do folders named `key=value` tell columns, as they do for Arrow's datasets?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq
import pytest

import rdata
from rdata.errors import DataError, OptionError

pytestmark = pytest.mark.usefixtures("local")


def write(folder: Path, below: str, columns: dict[str, Any]) -> None:
    (folder / below).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / below, row_group_size=2)


@pytest.fixture
def years(tmp_path: Path) -> Path:
    for year in (2023, 2024):
        for month in ("1", "02"):
            n = 100 * year + int(month)
            write(tmp_path, f"year={year}/month={month}/x.parquet", {"n": [n] * 5})
    return tmp_path


def arrow_rows(folder: Path) -> tuple[pa.Schema, list[dict[str, Any]]]:
    dataset = pa_dataset.dataset(folder, partitioning="hive")
    files = sorted(dataset.files)
    table = pa.concat_tables(
        fragment.to_table(schema=dataset.schema)
        for file in files
        for fragment in dataset.get_fragments()
        if fragment.path == file
    )
    return dataset.schema, table.to_pylist()


@pytest.mark.parametrize(
    "folders",
    [
        ["k=1", "k=02", "k=-3"],
        ["k=1", "k=3000000000"],
        ["k=1", "k=+2"],
        ["k=1", "k=x"],
        ["k=1", "k="],
        ["k=1.5", "k=2024-01-01", "k=a%20b%2F", "k=a=b"],
        ["k=1", "k=__HIVE_DEFAULT_PARTITION__"],
        ["k=x", "k=__HIVE_DEFAULT_PARTITION__"],
        ["k=1/j=2", "k=2/other/j=3", "j=4", "neither", "k=5/k=6"],
    ],
)
def test_columns_types_and_values_are_arrows(tmp_path: Path, folders: Sequence[str]) -> None:
    for index, folder in enumerate(folders):
        write(tmp_path, f"{folder}/x.parquet", {"n": [index, index]})
    schema, rows = arrow_rows(tmp_path)
    dataset = rdata.read_parquet(tmp_path)
    found = dataset.schema()
    assert found is not None
    assert dict(zip(found.names, found.types, strict=True)) == dict(
        zip(schema.names, schema.types, strict=True)
    )
    assert dataset.take_all() == rows


def test_nulls_alone_are_strings(tmp_path: Path) -> None:
    write(tmp_path, "k=__HIVE_DEFAULT_PARTITION__/x.parquet", {"n": [1]})
    dataset = rdata.read_parquet(tmp_path)
    assert dataset.take_all() == [{"n": 1, "k": None}]
    assert dataset.schema().types == [pa.int64(), pa.string()]  # type: ignore[union-attr]


def test_projections_limits_filters_and_counts_are_right(years: Path) -> None:
    dataset = rdata.read_parquet(years, override_num_blocks=20)
    rows = dataset.take_all()
    assert len(rows) == 20
    assert all(row["n"] == 100 * row["year"] + row["month"] for row in rows)
    assert dataset.count() == 20
    assert dataset.sum("year") == 10 * (2023 + 2024)
    assert dataset.select_columns(["month"]).take(6) == [{"month": 2}] * 5 + [{"month": 1}]
    assert dataset.drop_columns(["n", "month"]).limit(11).sum("year") == 10 * 2023 + 2024
    assert dataset.rename_columns({"year": "y"}).select_columns("y").max("y") == 2024
    assert dataset.filter(lambda row: row["year"] == 2024).count() == 10
    assert rdata.read_parquet(years, columns=["year", "n"]).take(1) == [{"year": 2023, "n": 202302}]


def test_only_folders_below_what_is_given_count(years: Path, monkeypatch: Any) -> None:
    below = years / "year=2024"
    assert rdata.read_parquet(below).columns() == ["n", "month"]
    assert rdata.read_parquet(f"{below}/*/*.parquet").columns() == ["n", "month"]
    assert rdata.read_parquet(f"{years}/year=*/*/x.parquet").columns() == ["n", "year", "month"]
    assert rdata.read_parquet(f"{years}/**/x.parquet").columns() == ["n", "year", "month"]
    assert rdata.read_parquet([below, years / "year=2023"]).columns() == ["n", "month"]
    assert rdata.read_parquet(below / "month=1" / "x.parquet").columns() == ["n"]
    monkeypatch.chdir(years)
    assert rdata.read_parquet(".").columns() == ["n", "year", "month"]
    assert rdata.read_parquet(f"file://{years}/").columns() == ["n", "year", "month"]


def test_folders_of_a_store_count_as_well(years: Path) -> None:
    memory = fsspec.filesystem("memory")
    for file in years.rglob("*.parquet"):
        memory.pipe(f"/in/{os.path.relpath(file, years)}", file.read_bytes())
    for url in ("memory://in", "memory://in/", "memory:///in/year=*/*/*.parquet"):
        dataset = rdata.read_parquet(url)
        assert dataset.columns() == ["n", "year", "month"], url
        assert dataset.take(1) == [{"n": 202302, "year": 2023, "month": 2}]
    memory.rm("/in", recursive=True)


def test_names_may_be_taken_no_notice_of(years: Path) -> None:
    assert rdata.read_parquet(years, partitioning=None).columns() == ["n"]
    with pytest.raises(OptionError, match="partitioning is \"hive\" or None, not 'dir'"):
        rdata.read_parquet(years, partitioning="dir")  # type: ignore[arg-type]


def test_a_folder_counts_for_more_than_its_files(tmp_path: Path) -> None:
    write(tmp_path, "k=1/x.parquet", {"k": [7], "n": [0]})
    dataset = rdata.read_parquet(tmp_path)
    assert dataset.take_all() == [{"k": 1, "n": 0}]
    write(tmp_path, "k=a/x.parquet", {"k": [7], "n": [0]})
    with pytest.raises(DataError, match=r"'k' is int64 in .* and string in the names of folders"):
        rdata.read_parquet(tmp_path)
