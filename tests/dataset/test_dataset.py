"""Do a dataset's methods give what Ray's give?"""

from __future__ import annotations

import datetime as dt
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import rdata
from rdata.dataset import Dataset, MaterializedDataset, Schema
from rdata.errors import DataError, OptionError

pytestmark = pytest.mark.usefixtures("local")

MIXED = pa.table(
    {
        "i": pa.array([3, None, 1, 2], pa.int64()),
        "f": [0.5, 1.5, None, float("nan")],
        "s": ["ä", "b", None, "日本"],
        "d": [dt.date(2024, 1, day) for day in (4, 3, 2, 1)],
        "n": pa.nulls(4, pa.int32()),
        "b": [True, False, None, True],
    }
)


def ids(rows: list[dict[str, Any]]) -> list[Any]:
    return [row["id"] for row in rows]


def test_arrays_in_rows_are_tensors_and_come_back_as_nested_lists() -> None:
    arrays = [np.full((2, 3), i) for i in range(3)]
    dataset = rdata.from_items([{"v": array} for array in arrays])
    assert dataset.take_all() == [{"v": array.tolist()} for array in arrays]
    np.testing.assert_array_equal(dataset.take_batch(3)["v"], np.stack(arrays))
    mapped = rdata.range(3).map(lambda row: {"v": np.full((2, 3), row["id"])})
    assert mapped.take_all() == dataset.take_all()
    for odd in (np.ones((3, 2)), np.ones((2, 3)), None, 1):  # of another shape, of another type
        with pytest.raises(DataError, match="from_items: column 'v' cannot become"):
            rdata.from_items([{"v": arrays[0]}, {"v": odd}])


class TestTaking:
    def test_take_gives_the_first_rows_and_twenty_by_default(self) -> None:
        assert ids(rdata.range(100).take(3)) == [0, 1, 2]
        assert ids(rdata.range(100).take()) == list(range(20))
        assert ids(rdata.range(2).take(5)) == [0, 1]
        assert rdata.range(2).take(0) == []

    def test_take_all_gives_all_or_refuses(self) -> None:
        assert ids(rdata.range(40).take_all()) == list(range(40))
        assert ids(rdata.range(40).take_all(limit=40)) == list(range(40))
        with pytest.raises(DataError, match="more than limit=39 rows"):
            rdata.range(40).take_all(limit=39)

    def test_take_batch_gives_one_batch(self) -> None:
        assert rdata.range(40).take_batch(3)["id"].tolist() == [0, 1, 2]
        frame = rdata.range(2).take_batch(5, batch_format="pandas")
        assert frame["id"].tolist() == [0, 1]
        with pytest.raises(ValueError, match="the dataset is empty"):
            rdata.range(0).take_batch()

    def test_show_prints_rows(self, capsys: pytest.CaptureFixture[str]) -> None:
        rdata.range(5).show(2)
        assert capsys.readouterr().out == "{'id': 0}\n{'id': 1}\n"

    def test_iter_rows_and_batches_walk_in_order(self) -> None:
        assert ids(list(rdata.range(50).iter_rows())) == list(range(50))
        batches = list(rdata.range(50).iter_batches(batch_size=20))
        assert [len(batch["id"]) for batch in batches] == [20, 20, 10]
        full = list(rdata.range(50).iter_batches(batch_size=20, drop_last=True))
        assert [len(batch["id"]) for batch in full] == [20, 20]
        whole = list(rdata.range(50).iter_batches(batch_size=None, batch_format="pyarrow"))
        assert sum(table.num_rows for table in whole) == 50

    def test_an_iterator_may_be_left_early(self) -> None:
        rows = rdata.range(1000).map(lambda row: row).iter_rows()
        assert next(iter(rows)) == {"id": 0}
        rows.close()  # type: ignore[attr-defined]  # a generator

    def test_a_dataset_is_not_iterable_by_mistake(self) -> None:
        with pytest.raises(TypeError, match="use iter_rows"):
            list(rdata.range(3))  # type: ignore[call-overload]

    def test_to_pandas_keeps_types(self) -> None:
        frame = rdata.from_arrow(MIXED).to_pandas()
        assert str(frame["i"].dtype) == "Int64"
        assert frame["s"].tolist()[3] == "日本"
        with pytest.raises(DataError, match="more than limit=3 rows"):
            rdata.from_arrow(MIXED).to_pandas(limit=3)
        assert len(rdata.from_arrow(MIXED).to_pandas(limit=4)) == 4


class TestShape:
    def test_rows_without_columns_are_still_rows(self) -> None:
        dataset = rdata.range(3).drop_columns("id")
        assert len(dataset.to_pandas()) == dataset.count() == 3

    def test_count_schema_and_columns(self) -> None:
        dataset = rdata.from_arrow(MIXED)
        assert dataset.count() == 4
        schema = dataset.schema()
        assert isinstance(schema, Schema)
        assert schema.names == MIXED.column_names == dataset.columns()
        assert schema.types == MIXED.schema.types
        assert schema.base_schema == MIXED.schema
        assert "i       int64" in repr(schema)

    def test_the_schema_after_a_function_takes_one_block(self) -> None:
        called = []

        def count_calls(batch: dict[str, Any]) -> dict[str, Any]:
            called.append(1)
            return {"twice": batch["id"] * 2}

        dataset = rdata.range(1000, override_num_blocks=1000).map_batches(count_calls)
        assert dataset.columns() == ["twice"]
        assert dataset.columns() == ["twice"]
        assert len(called) < 500  # not all of the 1000 blocks, and not again

    def test_the_schema_of_no_rows_is_kept_where_it_is_known(self) -> None:
        empty = rdata.from_arrow(MIXED.slice(0, 0))
        assert empty.count() == 0
        assert empty.columns() == MIXED.column_names
        assert empty.take_all() == []
        assert empty.to_pandas().columns.tolist() == MIXED.column_names
        assert empty.limit(3).materialize().columns() == MIXED.column_names
        assert empty.map(lambda row: row).schema() is None
        assert empty.map(lambda row: row).count() == 0

    def test_one_row(self) -> None:
        one = rdata.from_arrow(MIXED.slice(0, 1))
        assert one.map_batches(lambda batch: batch).take_all() == MIXED.slice(0, 1).to_pylist()
        assert one.repartition(3).take_all() == MIXED.slice(0, 1).to_pylist()

    def test_a_function_that_gives_no_rows_keeps_its_schema(self) -> None:
        def none(frame: pd.DataFrame) -> pd.DataFrame:
            return frame[frame["id"] < 0].assign(x="")

        dataset = rdata.range(10).map_batches(none)
        assert dataset.columns() == ["id", "x"]
        assert dataset.to_pandas().columns.tolist() == ["id", "x"]

    def test_wide_tables(self) -> None:
        wide = rdata.from_arrow(pa.table({f"c{i}": [i, i + 1] for i in range(2000)}))
        result = wide.map_batches(lambda batch: batch).select_columns(["c1999", "c3"])
        assert result.take_all() == [{"c1999": 1999, "c3": 3}, {"c1999": 2000, "c3": 4}]

    def test_num_blocks_is_known_once_there_are_blocks(self) -> None:
        with pytest.raises(NotImplementedError, match=r"materialize\(\)"):
            rdata.range(10).num_blocks()
        assert rdata.range(100).repartition(7).materialize().num_blocks() == 7
        assert rdata.range(100, override_num_blocks=4).materialize().num_blocks() == 4
        assert rdata.from_items([1, 2, 3]).materialize().num_blocks() == 3

    def test_repartitioned_blocks_are_of_nearly_equal_length(self) -> None:
        dataset = rdata.range(100).filter(lambda row: row["id"] % 3 == 0).repartition(4)
        lengths = [len(batch["id"]) for batch in dataset.iter_batches(batch_size=None)]
        assert lengths == [8, 9, 8, 9]
        assert ids(dataset.take_all()) == list(range(0, 100, 3))

    def test_repr_and_explain_show_the_plan(self, capsys: pytest.CaptureFixture[str]) -> None:
        dataset = rdata.range(10).rename_columns({"id": "n"})
        assert repr(dataset) == ("range(10)\n   └─ rename_columns(id → n)\nschema: {n: int64}")
        dataset.explain()
        shown = capsys.readouterr().out
        assert "Runs on the driver: no user function" in shown
        dataset.map_batches(lambda batch: batch).explain()
        shown = capsys.readouterr().out
        assert "Runs on workers: it runs user functions" in shown
        assert "range(10) → rename_columns(id → n) → map_batches(<lambda>): tasks" in shown

    def test_the_repr_of_a_long_chain_shows_its_ends(self) -> None:
        dataset = rdata.range(3)
        for i in range(11):
            dataset = dataset.limit(i)
        assert len(repr(dataset).splitlines()) == 13
        assert "…" not in repr(dataset)
        lines = repr(dataset.limit(11)).splitlines()
        assert [line.split("─ ")[-1].strip() for line in lines] == [
            "range(3)",
            "limit(0)",
            "… (13 operators)",
            *[f"limit({i})" for i in range(2, 12)],
            "schema: {id: int64}",
        ]


class TestMaterializing:
    def test_what_is_computed_is_not_computed_again(self) -> None:
        called = []

        def count_calls(row: dict[str, Any]) -> dict[str, Any]:
            called.append(1)
            return row

        dataset = rdata.range(10).map(count_calls)
        kept = dataset.materialize()
        assert isinstance(kept, MaterializedDataset)
        assert len(called) == 10
        assert dataset.materialize() is kept
        assert kept.materialize() is kept
        assert dataset.sum("id") == kept.sum("id") == 45
        assert ids(dataset.limit(2).take_all()) == [0, 1]
        assert kept.count() == dataset.count() == 10
        assert dataset.num_blocks() == kept.num_blocks()
        assert len(called) == 10

    def test_a_kept_result_goes_through_functions_again(self) -> None:
        kept = rdata.range(10).materialize()
        assert kept.map_batches(lambda batch: {"x": batch["id"] + 1}).sum("x") == 55
        assert kept.repartition(3).limit(4).map(lambda row: row).count() == 4

    def test_blocks_of_several_schemas_are_kept_as_rows_of_one(self) -> None:
        def varying(batch: dict[str, Any]) -> dict[str, Any]:
            rows = [{"a": [1]}, {"a": [0.5], "b": ["x"]}, {"b": [], "c": []}]
            return rows[batch["id"][0]]

        kept = rdata.range(3, override_num_blocks=3).map_batches(varying).materialize()
        assert kept.columns() == ["a", "b"]
        assert kept.num_blocks() == 2
        assert kept.take_all() == [{"a": 1.0, "b": None}, {"a": 0.5, "b": "x"}]
        assert kept.select_columns("b").take_all() == [{"b": None}, {"b": "x"}]
        assert kept.rename_columns({"b": "c"}).columns() == ["a", "c"]
        assert kept.map_batches(lambda batch: batch).drop_columns("b").sum("a") == 1.5
        assert kept.max(["a", "b"]) == {"max(a)": 1.0, "max(b)": "x"}
        assert kept.limit(1).to_pandas().columns.tolist() == ["a", "b"]


class TestAggregates:
    def test_nulls_are_left_out_unless_asked_for(self) -> None:
        dataset = rdata.from_arrow(MIXED.select(["i", "s", "n", "d"]))
        assert dataset.sum("i") == 6
        assert dataset.mean("i") == 2.0
        assert dataset.sum("i", ignore_nulls=False) is None
        assert (dataset.min("s"), dataset.max("s")) == ("b", "日本")
        assert dataset.min("d") == dt.date(2024, 1, 1)
        assert dataset.sum("n") is None
        assert dataset.max(["i", "d"]) == {"max(i)": 3, "max(d)": dt.date(2024, 1, 4)}

    def test_no_rows_give_none(self) -> None:
        empty = rdata.from_arrow(MIXED.slice(0, 0))
        assert empty.sum("i") is None
        assert empty.mean(["i", "f"]) == {"mean(i)": None, "mean(f)": None}

    def test_all_columns_by_default(self) -> None:
        assert rdata.range(4).sum() == 6
        two = rdata.from_items([{"a": 1, "b": 2.5}, {"a": 2, "b": 1.0}])
        assert two.sum() == {"sum(a)": 3, "sum(b)": 3.5}

    def test_integer_sums_do_not_overflow(self) -> None:
        big = 2**62
        dataset = rdata.from_items([{"x": big}] * 8 + [{"x": -1}], override_num_blocks=2)
        assert dataset.sum("x") == 8 * big - 1
        assert dataset.mean("x") == (8 * big - 1) / 9

    def test_nan_is_a_value_of_arrow(self) -> None:
        dataset = rdata.from_arrow(pa.table({"f": [1.0, float("nan"), 2.0]}), override_num_blocks=3)
        assert str(dataset.sum("f")) == "nan"
        assert (dataset.min("f"), dataset.max("f")) == (1.0, 2.0)

    def test_a_column_without_such_an_aggregate_is_named(self) -> None:
        with pytest.raises(DataError, match=r"sum\(s\): column 's' is string, which has no sum"):
            rdata.from_arrow(MIXED).sum("s")
        with pytest.raises(DataError, match="no column 'idd'; did you mean 'id'"):
            rdata.range(3).map(lambda row: row).sum("idd")


class TestReading:
    def test_csv(self, csv_folder: Path) -> None:
        dataset = rdata.read_csv(str(csv_folder))
        assert dataset.count() == 300
        assert dataset.take(1) == [{"number": 0, "name": "n0", "price": 0.0}]
        assert dataset.sum("number") == sum(range(300))
        assert [row["number"] for row in dataset.iter_rows()] == list(range(300))
        assert dataset.select_columns("price").max("price") == 299 / 4
        split = rdata.read_csv(str(csv_folder), override_num_blocks=20)
        assert split.take_all() == dataset.take_all()

    def test_csv_arguments_reach_the_reader(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("1;x\n2;-\n")
        dataset = rdata.read_csv(
            tmp_path / "a.csv", delimiter=";", column_names=["a", "b"], null_values=["-"]
        )
        assert dataset.take_all() == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
        with pytest.raises(OptionError, match="delimiter"):
            rdata.read_csv(tmp_path / "a.csv", sep=";")

    def test_missing_files_are_errors_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no such file"):
            rdata.read_csv(tmp_path / "none.csv")
        with pytest.raises(FileNotFoundError, match="no such file"):
            rdata.read_parquet(tmp_path / "none.parquet")

    def test_taking_a_few_rows_of_a_large_file_reads_little(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "large.csv"
        path.write_text("a,b\n" + "1,some text\n" * 3_000_000)  # 36 MB
        from rdata.dataset.formats import csv_source

        given = []
        whole = csv_source.read_csv_range

        def watched(*args: Any, **kwargs: Any) -> Any:
            for table in whole(*args, **kwargs):
                given.append(table.num_rows)
                yield table

        monkeypatch.setattr(csv_source, "read_csv_range", watched)
        assert rdata.read_csv(path).take(5) == [{"a": 1, "b": "some text"}] * 5
        assert sum(given) < 50_000

    def test_items_rows_frames_and_tables(self) -> None:
        assert rdata.from_items([1, "a"][:1]).take_all() == [{"item": 1}]
        assert rdata.from_items([{"a": 1}, {"b": 2}]).take_all() == [
            {"a": 1, "b": None},
            {"a": None, "b": 2},
        ]
        assert rdata.from_items([]).count() == 0
        frames = [pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [0.5], "b": ["x"]})]
        assert rdata.from_pandas(frames).take_all() == [
            {"a": 1.0, "b": None},
            {"a": 2.0, "b": None},
            {"a": 0.5, "b": "x"},
        ]
        with pytest.raises(OptionError, match="from_pandas takes DataFrames, not dict"):
            rdata.from_pandas([{"a": 1}])  # type: ignore[list-item]
        tables = [pa.table({"a": [1]}), pa.table({"a": [0.5]}), pa.table({"a": ["x"]})]
        clash = "column 'a' is int64 in number 1 of the list and string in number 3 of the list; no"
        with pytest.raises(DataError, match=f"from_arrow: {clash}"):
            rdata.from_arrow(tables)
        with pytest.raises(DataError, match=f"from_pandas: {clash}".replace("string", ".*string")):
            rdata.from_pandas([table.to_pandas() for table in tables])
        with pytest.raises(OptionError, match="from_arrow takes pyarrow Tables"):
            rdata.from_arrow(pd.DataFrame())  # type: ignore[arg-type]
        with pytest.raises(OptionError, match="the list is empty"):
            rdata.from_arrow([])

    @pytest.mark.parametrize("wrong", [-1, 2.5, True, "3"])
    def test_a_range_is_of_a_whole_number(self, wrong: Any) -> None:
        with pytest.raises(OptionError, match="give a whole number, 0 or more"):
            rdata.range(wrong)

    def test_a_small_job_starts_no_node_and_loads_no_pandas(self, csv_folder: Path) -> None:
        program = (
            "import sys, rdata\n"
            f"assert len(rdata.read_csv({str(csv_folder)!r}).take(5)) == 5\n"
            f"assert rdata.read_csv({str(csv_folder)!r}).sum('number') == {sum(range(300))}\n"
            "assert not rdata.is_initialized()\n"
            "print(sorted({'pandas', 'fsspec', 'tqdm', 'pyarrow.parquet'} & set(sys.modules)))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "call",
    [
        lambda ds: ds.limit(-1),
        lambda ds: ds.take(1.5),
        lambda ds: ds.take_all("a"),
        lambda ds: ds.limit(np.True_),
        lambda ds: ds.repartition(0),
        lambda ds: ds.select_columns([]),
        lambda ds: ds.select_columns(["id", "id"]),
        lambda ds: ds.drop_columns([3]),
        lambda ds: ds.rename_columns({"id": 1}),
        lambda ds: ds.rename_columns("id"),
        lambda ds: ds.add_column(1, len),
        lambda ds: ds.map_batches("fn"),
        lambda ds: ds.map_batches(object),
        lambda ds: ds.map_batches(len, batch_size=0),
        lambda ds: ds.map_batches(len, batch_format="polars"),
        lambda ds: ds.map_batches(len, num_cpus=-1),
        lambda ds: ds.map_batches(len, num_cpus="two"),
        lambda ds: ds.filter(len, num_cpus=True),
        lambda ds: rdata.range(2**70),
        lambda ds: ds.map_batches(len, concurrency=0),
        lambda ds: ds.map_batches(len, concurrency=(3, 2)),
        lambda ds: ds.map_batches(len, concurrency=(1, True)),
        lambda ds: ds.map_batches(len, concurrency=(1, 2, 3)),
        lambda ds: ds.map_batches(len, fn_constructor_args=[1]),
        lambda ds: ds.iter_batches(batch_size=0),
        lambda ds: ds.write_parquet("x", mode="replace"),
    ],
    ids=map(str, itertools.count()),
)
def test_arguments_that_cannot_be_meant_are_refused_at_once(call: Any) -> None:
    with pytest.raises(OptionError):
        call(rdata.range(3))


def test_no_column_may_be_dropped() -> None:
    assert rdata.range(2).drop_columns([]).take_all() == [{"id": 0}, {"id": 1}]
    assert rdata.range(2).map(lambda row: row).drop_columns([]).count() == 2


def test_whole_numbers_may_be_numpys() -> None:
    two = np.int64(2)
    dataset = rdata.range(np.int32(5), override_num_blocks=two)
    mapped = dataset.map_batches(lambda batch: batch, batch_size=two, concurrency=two, num_cpus=two)
    assert mapped.map(lambda row: row, concurrency=(np.int8(1), two)).count() == 5
    assert ids(dataset.limit(two).take_all(two)) == ids(dataset.take(two)) == [0, 1]
    assert len(dataset.take_batch(two)["id"]) == len(dataset.limit(2).to_pandas(limit=two)) == 2
    assert len(list(dataset.iter_batches(batch_size=two))) == 3
    assert dataset.repartition(two).materialize().num_blocks() == 2


def test_methods_do_not_change_the_dataset() -> None:
    dataset = rdata.range(3)
    assert isinstance(dataset.limit(1), Dataset)
    assert dataset.count() == 3


def test_an_aggregate_of_all_columns_does_not_leave_one_out() -> None:
    def more_and_more(row: dict[str, Any]) -> dict[str, Any]:
        return {"a": 1} if row["id"] == 0 else {"a": 1, "b": 2}

    rows = rdata.range(2, override_num_blocks=2).map(more_and_more)
    with pytest.raises(DataError, match=r"sum\(a\): column 'b' is not in the first block"):
        rows.sum()
    assert rows.sum("a") == 2
    assert rows.materialize().sum() == {"sum(a)": 2, "sum(b)": 2}
