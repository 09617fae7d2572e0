"""Does a plan give the same rows after the rules, and do the rules do what they say?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import rdata
from rdata.dataset import Dataset
from rdata.dataset.aggregates import AggregateSink, CountRows, OfColumn
from rdata.dataset.executor import execute
from rdata.dataset.logical import Aggregate, InMemory, Operator, Read, chain
from rdata.dataset.physical.launch import InlineLauncher
from rdata.dataset.physical.specs import TaskSpec
from rdata.dataset.planner import Plan, plan
from rdata.errors import DataError

Build = Callable[[Dataset], Dataset]


def add_one(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(**{frame.columns[0]: frame[frame.columns[0]] + 1})


def evens(row: dict[str, Any]) -> bool:
    return bool(next(iter(row.values())) % 2 == 0)


def twice(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [row, row]


def negate(row: dict[str, Any]) -> dict[str, Any]:
    return {name: -value for name, value in row.items()}


def halves(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    half = len(next(iter(batch.values()))) // 2
    yield {name: values[:half] for name, values in batch.items()}
    yield {name: values[half:] for name, values in batch.items()}


class Shift:
    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {name: values + self.by for name, values in batch.items()}


STEPS: list[Build] = [
    lambda ds: ds.map_batches(add_one),
    lambda ds: ds.map_batches(add_one, batch_size=7),
    lambda ds: ds.map_batches(halves, batch_size=5),
    lambda ds: ds.map_batches(Shift, fn_constructor_args=(10,), concurrency=2),
    lambda ds: ds.map(negate),
    lambda ds: ds.filter(evens),
    lambda ds: ds.flat_map(twice),
    lambda ds: ds.limit(0),
    lambda ds: ds.limit(4),
    lambda ds: ds.limit(23),
    lambda ds: ds.repartition(1),
    lambda ds: ds.repartition(5),
]
# These need the columns a and b (and d, which add_column brings).
COLUMN_STEPS: list[Build] = [
    lambda ds: ds.select_columns(["b", "a"]),
    lambda ds: ds.select_columns("a"),
    lambda ds: ds.drop_columns(["b"]),
    lambda ds: ds.rename_columns({"a": "z"}).rename_columns({"z": "a"}),
    lambda ds: ds.add_column("d", lambda frame: frame["a"] * 2),
]

pipelines = st.lists(st.sampled_from(STEPS + COLUMN_STEPS), max_size=5)


def rows_of(planned: Plan) -> list[dict[str, Any]]:
    launcher = InlineLauncher()
    tables = [
        launcher.get(piece) for bundle in execute(planned, launcher) for piece in bundle.pieces
    ]
    return [row for table in tables for row in table.to_pylist()]


def sources(folder: Path) -> list[Dataset]:
    table = pa.table({"a": list(range(40)), "b": [7 * i % 11 for i in range(40)]})
    for part in range(3):
        pq.write_table(table.slice(14 * part, 14), folder / f"{part}.parquet", row_group_size=5)
    return [
        rdata.from_arrow(table, override_num_blocks=6),
        rdata.read_parquet(str(folder)),
        rdata.read_parquet(str(folder), override_num_blocks=12),
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(steps=pipelines, which=st.integers(0, 2))
def test_rules_and_fusion_change_no_row(
    steps: list[Build], which: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dataset = sources(tmp_path_factory.mktemp("in"))[which]
    for step in steps:
        dataset = step(dataset)
    try:
        expected = rows_of(plan(dataset._operator, rules=(), is_fused=False))
    except (DataError, KeyError) as error:  # a column is missing
        with pytest.raises(type(error)):
            rows_of(plan(dataset._operator))
        return
    assert rows_of(plan(dataset._operator)) == expected
    counted = Aggregate(dataset._operator, AggregateSink((CountRows(),)))
    assert _one(counted, plan(counted)) == [len(expected)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(steps=pipelines)
def test_aggregates_are_those_of_the_rows(
    steps: list[Build], tmp_path_factory: pytest.TempPathFactory
) -> None:
    dataset = sources(tmp_path_factory.mktemp("in"))[1]
    for step in steps:
        dataset = step(dataset)
    kinds = ("sum", "min", "max", "mean")
    aggregated = Aggregate(
        dataset._operator, AggregateSink(tuple(OfColumn(kind, "a") for kind in kinds))
    )
    try:
        values = [row["a"] for row in rows_of(plan(dataset._operator))]
        found = _one(aggregated, plan(aggregated))
    except (DataError, KeyError):  # a column is missing
        assume(False)
        return
    if not values:
        assert found == [None] * 4
    else:
        assert found == [sum(values), min(values), max(values), sum(values) / len(values)]


def _one(operator: Aggregate, planned: Plan) -> list[Any]:
    return operator.sink.merge(list(execute(planned, InlineLauncher())))


# -- each rule -------------------------------------------------------------------------------------


def after_rules(dataset: Dataset) -> list[Operator]:
    return list(reversed(list(chain(plan(dataset._operator).logical))))


def test_a_limit_goes_before_what_keeps_rows_and_into_the_source(csv_folder: Path) -> None:
    dataset = rdata.read_csv(str(csv_folder)).rename_columns({"name": "n"}).map(negate).limit(3)
    read, *others = after_rules(dataset.limit(5))
    assert isinstance(read, Read)
    assert read.source.estimated_bytes() < 200
    assert [type(each).__name__ for each in others] == ["Limit", "RenameColumns", "MapRows"]


def test_a_limit_does_not_go_before_what_changes_their_number() -> None:
    planned = plan(rdata.range(10).filter(evens).limit(3)._operator)
    assert "limit(3) not before filter(evens): it may change the number of rows" in planned.notes


def test_a_limit_does_not_go_before_a_function_of_batches() -> None:
    dataset = rdata.range(10, override_num_blocks=1).add_column("mean", lambda df: df.id.mean())
    assert rows_of(plan(dataset.limit(2)._operator)) == rows_of(plan(dataset._operator))[:2]
    note = "limit(2) not before add_column('mean'): its function sees whole batches"
    assert note in plan(dataset.limit(2)._operator).notes


def test_only_columns_that_are_used_are_read(csv_folder: Path) -> None:
    dataset = rdata.read_csv(str(csv_folder)).rename_columns({"price": "p"})
    read = after_rules(dataset.select_columns(["p"]))[0]
    assert isinstance(read, Read)
    assert read.source.schema().names == ["price"]
    read = after_rules(dataset.drop_columns(["p", "name"]))[0]
    assert isinstance(read, Read)
    assert read.source.schema().names == ["number"]


def test_counting_reads_no_column_and_calls_no_row_function(csv_folder: Path) -> None:
    dataset = rdata.read_csv(str(csv_folder)).map(negate).add_column("d", add_one)
    counted = plan(Aggregate(dataset._operator, AggregateSink((CountRows(),))))
    (spec,) = counted.specs
    assert isinstance(spec, TaskSpec)
    assert spec.steps == ()
    assert spec.source is not None
    assert spec.source.schema().names == []
    assert dataset.count() == 300


def test_columns_in_memory_are_left_out_as_well() -> None:
    dataset = rdata.from_arrow(pa.table({"a": [1], "b": ["x"]})).select_columns(["b"])
    memory = after_rules(dataset)[0]
    assert isinstance(memory, InMemory)
    assert memory.blocks[0].column_names == ["b"]


def test_read_maps_and_sink_run_in_one_task(csv_folder: Path) -> None:
    dataset = rdata.read_csv(str(csv_folder)).map_batches(add_one).filter(evens)
    summed = Aggregate(dataset._operator, AggregateSink((OfColumn("sum", "number"),)))
    (spec,) = plan(summed).specs
    assert spec.name == "read_csv(3 files) → map_batches(add_one) → filter(evens) → sum(number)"


@pytest.mark.parametrize(
    ("build", "note"),
    [
        (
            lambda ds: ds.map_batches(Shift, fn_constructor_args=(1,)),
            "map_batches(Shift) not in the task of range(9): an instance of a class lives on",
        ),
        (
            lambda ds: ds.map_batches(add_one, num_cpus=2).map(negate),
            "map(negate) not in the task of range(9) → map_batches(add_one): it has another",
        ),
        (
            lambda ds: ds.map_batches(Shift, fn_constructor_args=(1,)).map(negate),
            "map(negate) not in the task of map_batches(Shift): it would run only on the actors",
        ),
    ],
)
def test_where_fusion_stops_the_plan_says_why(build: Build, note: str) -> None:
    notes = plan(build(rdata.range(9))._operator).notes
    assert any(each.startswith(note) for each in notes), notes


def test_a_plan_without_user_code_over_little_data_runs_in_the_driver(csv_folder: Path) -> None:
    little = rdata.read_csv(str(csv_folder)).select_columns(["name"])
    assert plan(little._operator).place == "driver"
    assert plan(little.map(negate)._operator).place == "workers"
    assert plan(rdata.range(1 << 30)._operator).place == "workers"
    assert plan(rdata.range(1 << 30).limit(5)._operator).place == "driver"


def test_unknown_columns_are_named_before_anything_runs() -> None:
    dataset = rdata.from_arrow(pa.table({"price": [1], "name": ["x"]}))
    for wrong in (
        dataset.select_columns(["prize"]),
        dataset.drop_columns(["prize"]),
        dataset.rename_columns({"prize": "p"}),
        dataset.rename_columns({"name": "n"}).select_columns(["price", "prize"]),
    ):
        with pytest.raises(DataError, match=r"no column 'prize'; did you mean 'price'\?"):
            plan(wrong._operator)
    with pytest.raises(DataError, match="two columns would be named 'name'"):
        plan(dataset.rename_columns({"price": "name"})._operator)
    with pytest.raises(DataError, match=r"1 names were given for 2 columns"):
        plan(dataset.rename_columns(["p"])._operator)
    with pytest.raises(DataError, match=r"sum\(prize\): there is no column 'prize'"):
        dataset.sum("prize")


@pytest.mark.parametrize("gone", [{"a": "z"}, ["a"]], ids=["renamed", "dropped"])
@pytest.mark.parametrize("keep", [lambda ds: ds, lambda ds: ds.filter(evens)], ids=["", "filter"])
def test_columns_that_are_gone_are_not_found_below(keep: Build, gone: Any) -> None:
    dataset = keep(rdata.from_arrow(pa.table({"a": [2], "b": [4]})))
    without = dataset.rename_columns(gone) if isinstance(gone, dict) else dataset.drop_columns(gone)
    selected = without.add_column("d", len).select_columns(["a", "b"])
    with pytest.raises(DataError, match="there is no column 'a'"):
        rows_of(plan(selected._operator))


def test_a_limit_makes_no_rows_up_where_only_rows_are_counted() -> None:
    """Arrow's `slice` of a table without columns does not stop at its end."""
    few = rdata.from_items([{"a": 1}, {"a": 2}])
    for dataset in (few.limit(0).repartition(1).limit(4), few.repartition(1).limit(4)):
        counted = Aggregate(dataset._operator, AggregateSink((CountRows(),)))
        assert _one(counted, plan(counted)) == [len(dataset.take_all())]


LONG: dict[str, Build] = {
    "rename": lambda ds: ds.rename_columns({"id": "n"}).rename_columns({"n": "id"}),
    "select": lambda ds: ds.select_columns(["id"]),
    "drop": lambda ds: ds.drop_columns([]),
    "filter": lambda ds: ds.filter(lambda row: True),
    "batches": lambda ds: ds.map_batches(lambda b: b, batch_size=2, batch_format="pyarrow"),
    "flat_map": lambda ds: ds.flat_map(lambda row: [row]),
    "limit": lambda ds: ds.limit(4),
}


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize("step", LONG.values(), ids=LONG.keys())
def test_chains_of_thousands_of_operators_are_planned_and_run(
    step: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = rdata.range(4, override_num_blocks=1)
    for _ in range(2000):
        dataset = step(dataset)
    assert repr(dataset).startswith("range(4)")
    dataset.explain()
    assert capsys.readouterr().out.startswith("Logical plan\n  range(4)")
    assert dataset.columns() == ["id"]
    assert dataset.count() == 4
    assert [row["id"] for row in dataset.take_all()] == [0, 1, 2, 3]


def test_where_a_task_has_too_many_operators_the_plan_says_so() -> None:
    dataset = rdata.range(4)
    for _ in range(150):
        dataset = dataset.filter(evens)
    first, second = plan(dataset._operator).specs
    assert isinstance(first, TaskSpec)
    assert isinstance(second, TaskSpec)
    assert (len(first.steps), len(second.steps)) == (100, 50)
    assert "it has 100 operators already" in plan(dataset._operator).notes[-1]
