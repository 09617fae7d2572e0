"""How are a user's functions and classes called, and what do their faults look like?"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import re
import traceback
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, Optional

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pandas import DataFrame as Frame
from pyarrow import Table as ArrowTable

import rdata
from rdata.dataset.function import annotated_format, name_of
from rdata.errors import DataError, OptionError, TaskError

pytestmark = pytest.mark.usefixtures("local")


def frame_in(frame: pd.DataFrame) -> Any: ...
def table_in(table: pa.Table) -> Any: ...
def dict_in(batch: dict[str, np.ndarray]) -> Any: ...  # type: ignore[type-arg]
def anything_in(batch): ...  # type: ignore[no-untyped-def]
def text_in(batch: "pandas.DataFrame") -> Any: ...  # type: ignore[name-defined]  # noqa: F821, UP037
def optional_in(frame: pd.DataFrame | None) -> Any: ...
def old_optional_in(frame: Optional[pd.DataFrame]) -> Any: ...  # noqa: UP045
def annotated_in(frame: Annotated[pd.DataFrame, "cleaned"]) -> Any: ...
def alias_in(frame: Frame) -> Any: ...
def arrow_alias_in(table: ArrowTable) -> Any: ...
def other_frame_in(frame: "polars.DataFrame") -> Any: ...  # type: ignore[name-defined]  # noqa: F821, UP037
def unknown_optional_in(frame: "Optional[pandas.DataFrame]") -> Any: ...  # type: ignore[name-defined]  # noqa: F821, UP037, UP045
def evaluated_in(frame: Any) -> Any: ...


evaluated_in.__annotations__["frame"] = Optional[pd.DataFrame]  # noqa: UP045


class FrameIn:
    def __call__(self, frame: pd.DataFrame) -> Any: ...


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (frame_in, "pandas"),
        (table_in, "pyarrow"),
        (dict_in, "numpy"),
        (anything_in, None),
        (text_in, "pandas"),
        (optional_in, "pandas"),
        (old_optional_in, "pandas"),
        (annotated_in, "pandas"),
        (alias_in, "pandas"),
        (arrow_alias_in, "pyarrow"),
        (other_frame_in, None),
        (unknown_optional_in, "pandas"),
        (evaluated_in, "pandas"),
        (FrameIn, "pandas"),
        (FrameIn(), "pandas"),
        (FrameIn().__call__, "pandas"),
        (functools.partial(frame_in), "pandas"),
        (functools.partial(alias_in), "pandas"),
        (len, None),
    ],
    ids=map(str, itertools.count()),
)
def test_the_annotation_of_the_first_parameter_says_the_format(fn: Any, expected: Any) -> None:
    assert annotated_format(fn) == expected


def test_the_argument_goes_before_the_annotation() -> None:
    def kind(frame: pd.DataFrame) -> dict[str, list[str]]:
        return {"kind": [type(frame).__name__]}

    assert rdata.range(1).map_batches(kind).take_all() == [{"kind": "DataFrame"}]
    named = rdata.range(1).map_batches(kind, batch_format="pyarrow")
    assert named.take_all() == [{"kind": "Table"}]
    default = rdata.range(1).map_batches(lambda batch: {"kind": [type(batch).__name__]})
    assert default.take_all() == [{"kind": "dict"}]


def test_arguments_are_handed_on() -> None:
    def scaled(batch: dict[str, Any], by: int, plus: int = 0) -> dict[str, Any]:
        return {"x": batch["id"] * by + plus}

    dataset = rdata.range(3).map_batches(scaled, fn_args=[10], fn_kwargs={"plus": 1})
    assert [row["x"] for row in dataset.take_all()] == [1, 11, 21]
    rows = rdata.range(2).map(lambda row, by: {"x": row["id"] * by}, fn_args=[5])
    assert rows.sum("x") == 5
    assert rdata.range(9).filter(lambda row, n: row["id"] > n, fn_kwargs={"n": 6}).count() == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"fn_args": 5}, "fn_args must be a list of arguments, not 5"),
        ({"fn_args": "ab"}, "fn_args must be a list of arguments, not 'ab'"),
        ({"fn_args": {"n": 6}}, "fn_args must be a list of arguments, not {'n': 6}"),
        ({"fn_kwargs": ["n"]}, "fn_kwargs must be a dict of arguments by name, not ['n']"),
    ],
)
def test_arguments_of_another_kind_are_refused(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError, match=f"^map: {re.escape(expected)}$"):
        rdata.range(3).map(lambda row, *_: row, **arguments)


def test_batches_are_as_long_as_asked_for_and_never_empty() -> None:
    def lengths(batch: dict[str, Any]) -> dict[str, Any]:
        return {"n": [len(batch["id"])]}

    dataset = rdata.range(100, override_num_blocks=1).map_batches(lengths, batch_size=30)
    assert [row["n"] for row in dataset.take_all()] == [30, 30, 30, 10]
    blocks = rdata.from_items([{"id": i} for i in range(100)], override_num_blocks=50)
    small = blocks.map_batches(lengths, batch_size=30)
    assert [row["n"] for row in small.take_all()] == [30, 30, 30, 10]
    filtered = rdata.range(100).filter(lambda row: row["id"] == 50).map_batches(lengths)
    assert filtered.take_all() == [{"n": 1}]


def test_a_class_is_made_once_an_actor_and_keeps_state() -> None:
    class Counter:
        def __init__(self, start: int, step: int = 1) -> None:
            self.calls = start
            self.step = step

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            self.calls += self.step
            return {"calls": [self.calls]}

    dataset = rdata.range(100, override_num_blocks=5).map_batches(
        Counter, fn_constructor_args=[100], fn_constructor_kwargs={"step": 10}, concurrency=1
    )
    assert [row["calls"] for row in dataset.take_all()] == [110, 120, 130, 140, 150]
    again = dataset.take(1)
    assert again == [{"calls": 110}]


def test_classes_serve_rows_as_well() -> None:
    class Above:
        def __init__(self, least: int) -> None:
            self.least = least

        def __call__(self, row: dict[str, Any]) -> bool:
            return bool(row["id"] >= self.least)

    assert rdata.range(10).filter(Above, fn_constructor_args=[7]).count() == 3


def test_a_generator_gives_several_batches() -> None:
    def pieces(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for value in batch["id"]:
            if value % 2:
                yield {"x": [value, -value]}

    dataset = rdata.range(4, override_num_blocks=1).map_batches(pieces)
    assert [row["x"] for row in dataset.take_all()] == [1, -1, 3, -3]


@pytest.mark.parametrize("keep", [{"a", "d"}, {"b", "c", "d"}, set("abcd"), set()])
def test_columns_that_arrow_cannot_filter_are_filtered(keep: set[str]) -> None:
    texts = ["a", "b", "c", "d"]
    table = pa.table(
        {
            "view": pa.array(texts, pa.string_view()),
            "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 3, 4], pa.int32()), [7, 8, 9]),
            "n": [1, None, 3, 4],
        }
    )
    dataset = rdata.from_arrow(table, override_num_blocks=1)
    filtered = dataset.filter(lambda row: row["view"] in keep).materialize()
    assert filtered.take_all() == [row for row in table.to_pylist() if row["view"] in keep]
    schema = filtered.schema()
    assert schema is not None
    assert schema.base_schema == table.schema


def test_types_survive_a_function_that_only_filters() -> None:
    table = pa.table(
        {
            "i": pa.array([1, None, 2**53 + 1], pa.int64()),
            "s": ["a", None, "c"],
            "d": pa.array([None, 1, 2], pa.date32()),
            "k": pa.array(["u", "v", None]).dictionary_encode(),
        }
    )
    for batch_format in ("numpy", "pandas", "pyarrow"):
        dataset = rdata.from_arrow(table, override_num_blocks=3).map_batches(
            lambda batch: batch, batch_format=batch_format
        )
        assert dataset.take_all() == table.to_pylist()
        schema = dataset.schema()
        assert schema is not None
        assert schema.types == table.schema.types
    rows = rdata.from_arrow(table, override_num_blocks=3).map(lambda row: row)
    assert rows.take_all() == table.to_pylist()


NOON = dt.datetime(2024, 7, 1, 12)  # noqa: DTZ001
NAIVE = pa.table({"x": pa.array([NOON], pa.timestamp("us"))})
UTC = pa.table({"x": pa.array([NOON], pa.timestamp("us", "UTC"))})
BERLIN = pa.timestamp("us", "Europe/Berlin")
STRUCT = pa.table({"x": [{"a": 1, "b": 2}]})
INTS = pa.table({"x": [[1, 2], [3]]})
CATEGORY = pa.table({"x": pa.array(["a"]).dictionary_encode()})
DECIMAL = pa.table({"x": pa.array([Decimal("1.00")], pa.decimal128(10, 2))})


def cast_to(type: pa.DataType) -> Any:
    return lambda table: pa.table({"x": table["x"].cast(type)})


@pytest.mark.parametrize(
    ("shown", "table", "change", "expected"),
    [
        ("rows", STRUCT, lambda x: {**x, "c": 3}, [{"a": 1, "b": 2, "c": 3}]),
        ("rows", STRUCT, lambda x: {"a": x["a"]}, [{"a": 1}]),
        ("rows", STRUCT, lambda x: {"z": x["a"], "b": 2}, [{"z": 1, "b": 2}]),
        ("rows", STRUCT, lambda x: {"a": str(x["a"]), "b": 2}, [{"a": "1", "b": 2}]),
        ("rows", INTS, lambda x: [float(i) for i in x], pa.array([[1.0, 2.0], [3.0]])),
        ("rows", INTS, lambda x: [str(i) for i in x], [["1", "2"], ["3"]]),
        ("rows", pa.table({"x": [["1"]]}), lambda x: [int(i) for i in x], [[1]]),
        ("rows", NAIVE, lambda x: x.replace(tzinfo=dt.UTC), UTC["x"]),
        ("rows", UTC, lambda x: x.replace(tzinfo=None), NAIVE["x"]),
        (
            "rows",
            pa.table({"x": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32()))}),
            lambda x: [(key, str(item)) for key, item in x],
            pa.array([[("k", "1")]], pa.map_(pa.string(), pa.string())),
        ),
        ("pandas", STRUCT, lambda df: df.assign(x=[{"a": 1, "c": 3}]), [{"a": 1, "c": 3}]),
        (
            "pandas",
            NAIVE,
            lambda df: df.assign(x=df["x"].dt.tz_localize("Europe/Berlin")),
            pa.array([dt.datetime(2024, 7, 1, 10, tzinfo=dt.UTC)], BERLIN),
        ),
        (
            "pandas",
            UTC,
            lambda df: df.assign(x=df["x"].dt.tz_convert("Europe/Berlin")),
            pa.array([NOON], BERLIN),
        ),
        (
            "pandas",
            UTC,
            lambda df: df.assign(x=df["x"].dt.tz_convert("Europe/Berlin").dt.tz_localize(None)),
            pa.array([NOON + dt.timedelta(hours=2)], pa.timestamp("us")),
        ),
        (
            "pandas",
            CATEGORY,
            lambda df: df.assign(x=df["x"].astype(str)),
            pa.Table.from_pandas(pd.DataFrame({"x": ["a"]}))["x"],
        ),
        ("pyarrow", NAIVE, cast_to(pa.timestamp("s")), pa.array([NOON], pa.timestamp("s"))),
        ("pyarrow", CATEGORY, cast_to(pa.large_string()), pa.array(["a"], pa.large_string())),
        ("pyarrow", CATEGORY, cast_to(pa.string()), pa.array(["a"])),
        (
            "pyarrow",
            DECIMAL,
            cast_to(pa.decimal128(20, 6)),
            pa.array([Decimal("1.000000")], pa.decimal128(20, 6)),
        ),
    ],
    ids=map(str, itertools.count()),
)
def test_a_type_that_a_function_changes_stays_changed(
    shown: str, table: pa.Table, change: Any, expected: Any
) -> None:
    dataset = rdata.from_arrow(table)
    if shown == "rows":
        results = [
            dataset.map(lambda row: {"x": change(row["x"])}),
            dataset.flat_map(lambda row: [{"x": change(row["x"])}]),
        ]
    else:
        results = [dataset.map_batches(change, batch_format=shown)]
    for result in results:
        found = result.take_batch(10, batch_format="pyarrow")
        wanted = pa.table({"x": expected})
        assert found.schema == wanted.schema
        assert found.to_pylist() == wanted.to_pylist()


def test_nanoseconds_stay() -> None:
    instants = [pd.Timestamp(1), pd.Timestamp(2, tz="Europe/Berlin"), pd.Timedelta(3)]
    for instant in instants:
        dataset = rdata.from_items([instant, None])
        for kept in (dataset, dataset.map(lambda row: row), dataset.flat_map(lambda row: [row])):
            assert [row["item"] for row in kept.take_all()] == [instant, None]
    mixed = rdata.from_items([pd.Timestamp(1), dt.datetime(3000, 1, 1)])  # noqa: DTZ001
    assert mixed.take_all()[1] == {"item": dt.datetime(3000, 1, 1)}  # noqa: DTZ001


def test_times_that_rows_cannot_show_are_named() -> None:
    table = pa.table({"t": pa.array([1000, 1001], pa.time64("ns"))})
    assert rdata.from_arrow(table).limit(1).map(lambda row: row).take_all() == [
        {"t": dt.time(0, 0, 0, 1)}
    ]
    with pytest.raises(DataError, match="column 't' has times with nanoseconds"):
        rdata.from_arrow(table).map(lambda row: row).take_all()


def test_blocks_of_different_types_come_together() -> None:
    def mixed(batch: dict[str, Any]) -> dict[str, Any]:
        first = int(batch["id"][0])
        values = {0: [None], 1: [1], 2: [2.5]}[first]
        return {"x": values, f"only{first}": ["t"]}

    dataset = rdata.range(3).map_batches(mixed)
    frame = dataset.to_pandas()
    assert frame["x"].dtype == np.float64
    assert frame.columns.tolist() == ["x", "only0", "only1", "only2"]
    assert dataset.materialize().columns() == frame.columns.tolist()
    assert dataset.sum("x") == 3.5


def test_rows_may_be_added_and_dropped() -> None:
    tripled = rdata.range(3).flat_map(lambda row: ({"id": row["id"]} for _ in range(3)))
    assert [row["id"] for row in tripled.take_all()] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert rdata.range(3).flat_map(lambda row: []).count() == 0
    many = rdata.range(1).flat_map(lambda row: ({"x": i} for i in range(10_000)))
    assert many.count() == 10_000


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_rows_without_columns_are_kept(batch_format: str, batch_size: int | None) -> None:
    without = rdata.range(20, override_num_blocks=1).drop_columns(["id"])
    same = without.map_batches(lambda b: b, batch_format=batch_format, batch_size=batch_size)
    assert same.count() == 20
    assert same.take_all() == [{}] * 20
    assert rdata.range(20).map_batches(lambda batch: {}).count() == 0


def test_add_column_takes_any_format_and_may_replace() -> None:
    dataset = rdata.range(3).add_column("id", lambda df: df["id"] + 1)
    assert dataset.take_all() == [{"id": 1}, {"id": 2}, {"id": 3}]
    one = rdata.range(2).add_column("k", lambda batch: "x", batch_format="numpy")
    assert one.take_all() == [{"id": 0, "k": "x"}, {"id": 1, "k": "x"}]
    text = rdata.from_arrow(pa.table({"s": ["a"]})).add_column("s", lambda df: df["s"] + "b")
    assert text.take_batch(batch_format="pyarrow") == pa.table({"s": ["ab"]})
    with pytest.raises(DataError, match="gave 1 values for column 'k', but the batch has 3 rows"):
        rdata.range(3, override_num_blocks=1).add_column("k", lambda df: df["id"][:1]).take_all()


class TestFaults:
    def test_an_exception_keeps_its_type_and_shows_operator_and_frames(self) -> None:
        def inner() -> None:
            raise ValueError("bad value")

        def broken(batch: dict[str, Any]) -> dict[str, Any]:
            inner()
            return batch

        with pytest.raises(ValueError, match="bad value") as caught:
            rdata.range(3).map_batches(broken).take_all()
        assert isinstance(caught.value, TaskError)
        text = "".join(traceback.format_exception(caught.value))
        assert "in map_batches(broken)" in text
        assert f'in map_batches(broken) (File "{__file__}"' in text
        assert "in inner" in text
        assert 'raise ValueError("bad value")' in text
        frames = caught.value.frames
        assert frames.count("  File ") == 2, "of broken and of inner"

    @pytest.mark.parametrize(
        "build",
        [
            lambda ds: ds.map(lambda row: 1 / 0),
            lambda ds: ds.flat_map(lambda row: 1 / 0),
            lambda ds: ds.filter(lambda row: 1 / 0),
            lambda ds: ds.add_column("x", lambda df: 1 / 0),
            lambda ds: ds.map_batches(lambda batch: (1 / 0 for _ in range(2))),
        ],
        ids=["map", "flat_map", "filter", "add_column", "generator"],
    )
    def test_each_operator_names_itself(self, build: Any) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            build(rdata.range(3)).take_all()
        assert any("<lambda>) (File" in note for note in caught.value.__notes__)

    def test_a_constructor_that_raises_is_named(self) -> None:
        class Broken:
            def __init__(self) -> None:
                raise KeyError("weights")

            def __call__(self, batch: Any) -> Any: ...

        with pytest.raises(KeyError) as caught:
            rdata.range(3).map_batches(Broken).take_all()
        assert any("constructor of map_batches(Broken)" in note for note in caught.value.__notes__)

    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda ds: ds.map_batches(lambda b: 3), r"map_batches\(<lambda>\) \(File .*test_map"),
            (lambda ds: ds.map_batches(lambda b: {"a": [1], "b": []}), "different lengths"),
            (lambda ds: ds.map_batches(lambda b: {"x": pd.DataFrame(b)}), "a whole DataFrame"),
            (lambda ds: ds.add_column("x", lambda df: df[["id"]]), "'x' is a whole DataFrame"),
            (lambda ds: ds.add_column("x", lambda df: {"a": 1}), "'x' is a single dict"),
            (lambda ds: ds.add_column("x", lambda df: np.array(5)), "'x' is a single ndarray"),
            (lambda ds: ds.map(lambda row: 3), r"map\(<lambda>\) .*returned int for a row"),
            (lambda ds: ds.map(lambda row: {"a": object()}), "column 'a' cannot become"),
            (lambda ds: ds.flat_map(lambda row: row), "returned dict; flat_map takes a function"),
            (lambda ds: ds.flat_map(lambda row: [3]), "gave int as a row"),
            (lambda ds: ds.map_batches(lambda b: b).select_columns("x"), "no column 'x'"),
        ],
    )
    def test_results_that_are_no_rows_are_named(self, build: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            build(rdata.range(3)).take_all()

    def test_columns_of_types_that_nothing_holds_are_named(self) -> None:
        def mixed(batch: dict[str, Any]) -> dict[str, Any]:
            return {"x": ["text"] if batch["id"][0] else [1]}

        with pytest.raises(DataError, match="column 'x' is int64 in one block and string in"):
            rdata.range(2).map_batches(mixed).to_pandas()


def test_names_of_callables() -> None:
    assert name_of(functools.partial(frame_in)) == "frame_in"
    assert name_of(FrameIn()) == "FrameIn"
    assert name_of(test_names_of_callables) == "test_names_of_callables"
