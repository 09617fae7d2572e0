"""Do types and nulls survive the way into a batch and back out?"""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdata.dataset.batch import resolve_format, to_batch, to_block
from rdata.dataset.block import pylist, table_of_rows
from rdata.dataset.untouched import old_types
from rdata.errors import DataError, OptionError

FORMATS = ("numpy", "pandas", "pyarrow")
FIRST = dt.datetime(1700, 1, 1)  # noqa: DTZ001 (Hypothesis wants it without a zone)
INT64 = st.integers(-(2**63), 2**63 - 1)


def round_trip(block: pa.Table, batch_format: Any) -> pa.Table:
    old = old_types(block.schema, batch_format)
    return to_block(to_batch(block, batch_format), "test", old)


def column_of(type: pa.DataType, values: st.SearchStrategy[Any]) -> st.SearchStrategy[pa.Array]:
    return st.lists(st.none() | values, max_size=6).map(lambda given: pa.array(given, type))


columns = st.one_of(
    column_of(pa.int64(), INT64),
    column_of(pa.int8(), st.integers(-128, 127)),
    column_of(pa.uint64(), st.integers(0, 2**64 - 1)),
    column_of(pa.bool_(), st.booleans()),
    column_of(pa.float64(), st.floats(allow_nan=False)),
    column_of(pa.float32(), st.floats(width=32, allow_nan=False)),
    column_of(pa.string(), st.text()),
    column_of(pa.large_string(), st.text()),
    column_of(pa.binary(), st.binary()),
    column_of(pa.date32(), st.dates()),
    column_of(pa.timestamp("us"), st.datetimes(min_value=FIRST)),
    column_of(
        pa.timestamp("us", "UTC"),
        st.datetimes(min_value=FIRST, timezones=st.just(dt.UTC)),
    ),
    column_of(pa.duration("s"), st.timedeltas().map(lambda d: dt.timedelta(days=d.days))),
    column_of(pa.decimal128(12, 2), st.decimals(-(10**6), 10**6, places=2)),
    column_of(pa.list_(pa.int64()), st.lists(st.none() | INT64, max_size=3)),
    column_of(pa.struct([("k", pa.string())]), st.fixed_dictionaries({"k": st.text()})),
    column_of(pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["a", "b"])),
)


@pytest.mark.parametrize("batch_format", FORMATS)
@given(column=columns, num_chunks=st.integers(1, 2))
def test_a_round_trip_keeps_types_values_and_nulls(
    batch_format: str, column: pa.Array, num_chunks: int
) -> None:
    half = len(column) // 2
    chunks = [column] if num_chunks == 1 else [column[:half], column[half:]]
    block = pa.table({"c": pa.chunked_array(chunks, column.type)})
    result = round_trip(block, batch_format)
    assert result.schema == block.schema
    assert result.to_pylist() == block.to_pylist()


def test_integers_with_nulls_stay_integers_for_user_code() -> None:
    big = 2**53 + 1
    block = pa.table({"i": [big, None], "b": [True, None], "f": [1.5, None]})
    numpy = to_batch(block, "numpy")
    assert numpy["i"].dtype == np.int64
    assert (numpy["i"] + 1)[0] == big + 1
    assert numpy["i"].mask.tolist() == [False, True]
    assert np.isnan(numpy["f"][1])
    frame = to_batch(block, "pandas")
    assert [str(dtype) for dtype in frame.dtypes] == ["Int64", "boolean", "float64"]
    assert list(frame.columns) == ["i", "b", "f"]
    assert frame["i"][0] == big


def test_without_nulls_pandas_gets_its_usual_dtypes() -> None:
    frame = to_batch(pa.table({"i": [1], "f": [0.5], "s": ["x"]}), "pandas")
    assert frame["i"].dtype == np.int64
    assert frame["f"].dtype == np.float64
    assert frame["s"].dtype == pd.Series(["x"]).dtype


@pytest.mark.parametrize("num_chunks", [1, 2])
def test_batches_may_be_changed_in_place_and_blocks_do_not_change(num_chunks: int) -> None:
    values = pa.chunked_array([[1, 2, 3]] * num_chunks)
    block = pa.table({"i": values, "f": values.cast(pa.float64()), "s": ["x"] * len(values)})
    before = block.to_pylist()
    arrays = to_batch(block, "numpy")
    arrays["i"] += 1
    arrays["f"][0] = -1
    frame = to_batch(block, "pandas")
    frame.loc[0, "i"] = 9
    frame.loc[frame["i"] > 1, "f"] = 0
    frame["i"] *= 2
    assert block.to_pylist() == before


def test_categories_may_be_changed_in_place() -> None:
    block = pa.table({"c": pa.array(["a", "b", None]).dictionary_encode()})
    narrow = block.cast(pa.schema([("c", pa.dictionary(pa.int8(), pa.string()))]))
    for each in (block, narrow):
        frame = to_batch(each, "pandas")
        frame.loc[frame["c"] == "a", "c"] = "b"
        assert frame["c"].tolist()[:2] == ["b", "b"]
        assert each["c"].to_pylist() == ["a", "b", None]


def test_wide_tables_convert() -> None:
    block = pa.table({f"c{i}": [i, None if i % 7 else i] for i in range(2000)})
    for batch_format in FORMATS:
        assert round_trip(block, batch_format).schema == block.schema


def test_nan_is_a_null_in_numpy_and_pandas_and_itself_in_arrow() -> None:
    values = np.array([1.0, np.nan])
    assert to_block({"a": values}, "test").column("a").null_count == 1
    assert to_block(pd.DataFrame({"a": values}), "test").column("a").null_count == 1
    assert to_block(pa.table({"a": pa.array(values)}), "test").column("a").null_count == 0


def test_arrays_of_more_dimensions_are_tensors() -> None:
    images = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    block = to_block({"image": images, "turned": images.transpose(0, 2, 1)}, "test")
    back = to_batch(block, "numpy")
    np.testing.assert_array_equal(back["image"], images)
    np.testing.assert_array_equal(back["turned"], images.transpose(0, 2, 1))
    np.testing.assert_array_equal(to_batch(block.slice(1, 2), "numpy")["image"], images[1:3])


def test_tensors_of_no_rows_and_what_cannot_be_a_tensor() -> None:
    images = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    empty = to_block({"image": images[:0]}, "test")
    assert empty.schema == to_block({"image": images}, "test").schema
    assert to_batch(empty, "numpy")["image"].shape == (0, 3, 2)
    for values in (images[:, :0], images > 3, images.astype(str), images.astype(complex)):
        with pytest.raises(DataError, match=r"column 'image'.*there are no tensors of"):
            to_block({"image": values}, "test")


UNUSUAL = [
    pa.array([1, None], pa.int8()),
    pa.array([2**64 - 1, None], pa.uint64()),
    pa.array([0.1, None], pa.float32()),
    pa.array(["a", None], pa.large_string()),
    pa.array([b"ab", None], pa.binary(2)),
    pa.array([1, None], pa.timestamp("s")),
    pa.array([1, None], pa.timestamp("ns")),
    pa.array([1, None], pa.timestamp("ns", "Europe/Berlin")),
    pa.array([1, None], pa.duration("ns")),
    pa.array([86_400_000, None], pa.date64()),
    pa.array([1, None], pa.time32("s")),
    pa.array([decimal.Decimal("1.10"), None], pa.decimal128(10, 2)),
    pa.array([10, None]).dictionary_encode(),
    pa.array([[1, None], None], pa.list_(pa.int32())),
    pa.array([[2**63 - 1, None]], pa.list_(pa.int64())),  # which no float is
    pa.array([[2**64 - 1]], pa.list_(pa.uint64())),
    pa.array([[1, None], None], pa.list_(pa.timestamp("ns"))),
    pa.array([[dt.date(2024, 1, 31), None], None], pa.list_(pa.date32())),
    pa.array([[1, 2], None], pa.list_(pa.int32(), 2)),
    pa.array([{"a": 2**53 + 1}, {"a": None}, None], pa.struct([("a", pa.int64())])),
    pa.array([{"a": 1, "b": 0.1}, None], pa.struct([("a", pa.int8()), ("b", pa.float32())])),
    pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int32())),
    pa.array([[], None], pa.map_(pa.string(), pa.int32())),
    pa.array([[("k", "v")], None], pa.map_(pa.string(), pa.string())),
    pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8, dtype=np.float32).reshape(2, 2, 2)),
    pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(4).reshape(2, 2)),
    pa.nulls(2),
    pa.nulls(2, pa.int64()),
    pa.nulls(2, pa.list_(pa.int64())),
    pa.nulls(2, pa.map_(pa.string(), pa.int32())),
]


@pytest.mark.parametrize("shown", [*FORMATS, "rows"])
@pytest.mark.parametrize("column", UNUSUAL, ids=map(str, itertools.count()))
def test_types_that_batches_and_rows_do_not_have_come_back(column: pa.Array, shown: Any) -> None:
    chunks = [column, pa.nulls(1, column.type)]
    block = pa.table({"c": pa.chunked_array(chunks)})
    if shown == "rows":
        result = table_of_rows(pylist(block), "test", old_types(block.schema, "rows"))
    else:
        result = round_trip(block, shown)
    assert result.schema == block.schema
    assert pylist(result) == pylist(block)


def test_values_that_the_old_type_does_not_hold_have_another() -> None:
    schema = pa.schema([("i", pa.int8()), ("f", pa.float32()), ("t", pa.timestamp("s"))])
    fitting = [{"i": 2, "f": 0.5, "t": dt.datetime(2024, 1, 31, tzinfo=None)}]  # noqa: DTZ001
    old = old_types(schema, "rows")
    assert table_of_rows(fitting, "test", old).schema == schema
    others = [{"i": 300, "f": 0.1, "t": dt.datetime(2024, 1, 31, 0, 0, 0, 1)}]  # noqa: DTZ001
    result = table_of_rows(others, "test", old)
    assert result.schema.types == [pa.int64(), pa.float64(), pa.timestamp("us")]
    assert result.to_pylist() == others


def test_structured_arrays_become_structs() -> None:
    points = np.array([(1, 0.5, "a"), (2, 1.5, "b")], [("x", "i4"), ("y", "f8"), ("name", "U1")])
    block = to_block({"p": points[::-1]}, "test")
    types = {"x": pa.int32(), "y": pa.float64(), "name": pa.string()}
    assert block.schema.field("p").type == pa.struct(types)
    assert block["p"].to_pylist()[0] == {"x": 2, "y": 1.5, "name": "b"}
    nested = np.zeros(2, [("x", "i4"), ("inner", [("y", "i4")])])
    for refused in (nested, list(points)):
        with pytest.raises(DataError, match="column 'p' cannot become an Arrow column"):
            to_block({"p": refused}, "test")


NAIVE = dt.datetime(2024, 1, 31, 5)  # noqa: DTZ001 (without a zone on purpose)
ZONED = NAIVE.replace(tzinfo=dt.timezone(dt.timedelta(hours=2)))
DAY = dt.date(2024, 1, 31)


@pytest.mark.parametrize(
    "values",
    [
        [DAY, NAIVE],
        [DAY, pd.Timestamp(NAIVE)],
        [None, DAY, 7],
        [DAY, 2.5],
        [NAIVE, ZONED],
        [ZONED, NAIVE],
        [pd.Timestamp(ZONED), NAIVE],
        [NAIVE, 1],
        [dt.time(5), dt.time(5, tzinfo=dt.UTC)],
        [dt.time(5), 1],
        [dt.timedelta(1), 1],
    ],
)
def test_dates_and_times_of_two_kinds_are_refused_rather_than_changed(values: list[Any]) -> None:
    for given_values in (values, np.array(values, dtype=object), pd.Series(values, dtype=object)):
        with pytest.raises(DataError, match="column 't' cannot become an Arrow column: "):
            to_block({"t": given_values}, "test")
    for old_type in (pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        old = old_types(pa.schema([("t", old_type)]), "rows")
        with pytest.raises(DataError, match="column 't'"):
            table_of_rows([{"t": value} for value in values], "test", old)


def test_text_among_bytes_is_refused() -> None:
    for values in ([b"b", "text"], ["text", None, b"b"]):
        with pytest.raises(DataError, match=r"'t' cannot .* are text, and others bytes"):
            to_block({"t": values}, "test")
    mixed = to_block({"t": [b"b", bytearray(b"c"), None]}, "test")
    assert mixed["t"].to_pylist() == [b"b", b"c", None]


def test_dates_and_times_of_one_kind_stay_what_they_are() -> None:
    later = ZONED.astimezone(dt.UTC) + dt.timedelta(1)
    for values in (
        [DAY, None, pd.NaT, DAY],
        [NAIVE, pd.NaT, pd.Timestamp(NAIVE), float("nan")],
        [ZONED, None, later, pd.Timestamp(later)],
        [dt.time(5), None, dt.time(6)],
        [dt.timedelta(1), pd.NaT, pd.Timedelta(1, "D")],
    ):
        column = to_block({"t": values}, "test")["t"].to_pylist()
        assert column == [None if pd.isna(value) else value for value in values]


def test_restoring_leaves_alone_what_the_function_changed() -> None:
    given_schema = pa.schema([("a", pa.int64()), ("d", pa.decimal128(3, 1)), ("n", pa.date32())])
    result = {"a": [0.5], "d": [decimal.Decimal("12345.67")], "n": [None]}
    restored = to_block(result, "test", old_types(given_schema, "numpy"))
    assert restored.schema.types == [pa.float64(), pa.decimal128(7, 2), pa.date32()]


def test_pandas_shows_tensors_in_their_shape() -> None:
    images = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    block = to_block({"image": images, "n": [1, None, 3, 4]}, "test")
    frame = to_batch(block, "pandas")
    assert list(frame) == ["image", "n"]
    np.testing.assert_array_equal(np.stack(list(frame["image"])), images)
    frame["image"].iloc[0][0] = 100  # private, and writable
    np.testing.assert_array_equal(to_batch(block, "numpy")["image"], images)


def test_columns_may_be_lists_series_and_arrow_arrays() -> None:
    batch = {"l": [1, 2], "s": pd.Series(["a", "b"]), "a": pa.array([0.5, None])}
    block = to_block(batch, "test")
    assert block.num_rows == 2
    assert block.column("a").null_count == 1


def test_a_sparse_column_converts() -> None:
    frame = pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])})
    assert to_block(frame, "test").column("a").to_pylist() == [0, 1]


def test_a_frame_that_mixes_numbers_of_numpy_and_python_converts() -> None:
    frame = pd.DataFrame({"a": pd.Series([np.int64(1), 2, None], dtype=object)})
    assert to_block(frame, "test").column("a").to_pylist() == [1, 2, None]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (None, r"here returned None \(is a return missing\?\)"),
        (3, "here returned a value of type builtins.int; a batch is a dict"),
        ([{"a": 1}], r"a list of rows \(flat_map takes"),
        ([{"a": np.array([1])}], r"type builtins.list; .*to give several batches, yield them"),
        ([pd.DataFrame({"a": [1]})], r"type builtins.list; .*to give several batches, yield them"),
        (({"a": [1]},), r"type builtins.tuple; .*to give several batches, yield them"),
        ({"a": [1, 2], "b": [1]}, r"columns have different lengths \('a': 2, 'b': 1\)"),
        ({"a": 1}, "column 'a' is a single int, not an array or list"),
        ({"a": "text"}, "column 'a' is a single str"),
        ({1: [1]}, "column name 1 is not text"),
        ({"a": {"k": 1}}, "column 'a' is a single dict"),
        ({"a": np.array(5)}, "column 'a' is a single ndarray"),
        ({"a": pd.DataFrame({"k": [1]})}, "column 'a' is a whole DataFrame"),
        ({"a": pa.table({"k": [1]})}, "column 'a' is a whole Table"),
        ({"a": np.ma.MaskedArray([[1, 2]], [[0, 1]])}, "column 'a'.*no tensors with nulls"),
        ({"a": [1], "b": [{}, "x"]}, "column 'b' cannot become an Arrow column"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "more than one column named 'a'"),
        (pa.record_batch([[1], [2]], names=["a", "a"]), "more than one column named 'a'"),
        (pd.DataFrame({0: [1]}), "column name 0 is not text"),
        (pd.DataFrame({"ok": [1, 2], "bad": [1, "x"]}), "column 'bad' cannot become"),
        (pd.DataFrame({"bad": [object()]}), "column 'bad' cannot become"),
    ],
)
def test_what_is_no_batch_is_refused_by_name(batch: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_block(batch, "here")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(OptionError, match="batch_format='polars' is unknown"):
        resolve_format("polars")
    assert resolve_format("default", "pandas") == "pandas"
