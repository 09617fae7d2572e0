"""Do arrays and tables come back as they went, without a copy too many?"""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdata.core.serialize import dumps, loads
from tests.core.travel import round_trip

# ---------------------------------------------------------------- arrays


@given(
    hnp.arrays(
        st.one_of(
            hnp.scalar_dtypes(),
            hnp.unicode_string_dtypes(),
            hnp.byte_string_dtypes(),
            hnp.array_dtypes(),
        ),
        hnp.array_shapes(min_dims=0, min_side=0, max_side=4),
    ),
    st.sampled_from(["C", "F", "reversed", "strided", "transposed"]),
)
@settings(max_examples=60)
def test_arrays_come_back(array: npt.NDArray[Any], layout: str) -> None:
    if layout in {"C", "F"}:
        array = np.asarray(array, order=layout)  # type: ignore[call-overload]
    elif array.ndim:
        array = {"reversed": array[::-1], "strided": array[::2], "transposed": array.T}[layout]
    back = round_trip(array)
    assert back.dtype in {array.dtype, array.dtype.newbyteorder("=")}  # NumPy's own: of times
    assert back.shape == array.shape
    assert repr(back.tolist()) == repr(array.tolist())
    if array.size > 1:
        is_fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        assert back.flags.f_contiguous or not is_fortran


@pytest.mark.parametrize(
    "array",
    [
        np.array([1, "a", None], dtype=object),
        np.ma.masked_array([1, 2, 3], mask=[0, 1, 0]),
        np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", ">f8")]),
        np.zeros((0, 3)),
        np.array(5.0),
        np.float32(1.5),
        np.datetime64("2024-02-29T12:00", "us"),
        np.broadcast_to(np.arange(3), (4, 3)),
    ],
    ids=["objects", "masked", "record", "no rows", "no shape", "scalar", "time", "broadcast"],
)
def test_odd_arrays_come_back(array: Any) -> None:
    back = round_trip(array)
    assert type(back) is type(array)
    assert back.dtype == array.dtype
    assert back.tolist() == array.tolist()


def address_of(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def test_arrays_are_read_only_views_of_what_was_read() -> None:
    base = np.arange(1000)
    arrays = [
        base,
        np.ones((7, 5), order="F"),
        np.zeros(3),
        base[::3],
        base[::-1],
        np.broadcast_to(base[:3], (4, 3)),
    ]
    data = memoryview(bytearray(dumps({"in": arrays}).to_bytes()))
    start = address_of(np.frombuffer(data, np.uint8))
    back = loads(data, None)["in"]
    for array, sent in zip(back, arrays, strict=True):
        np.testing.assert_array_equal(array, sent, strict=True)
        assert not array.flags.writeable
        assert start <= address_of(array) < start + len(data)
        assert (address_of(array) - start) % 64 == 0  # as Arrow wants it
    data[:] = bytes(len(data))
    assert not back[0].any()


def test_nothing_of_an_array_is_copied_into_the_pickle() -> None:
    array = np.zeros(1_000_000)
    pieces = dumps([array, array]).parts()  # the same one twice is sent once
    assert sum(len(piece) for piece in pieces if isinstance(piece, bytes)) < 1000
    (view,) = [piece for piece in pieces if isinstance(piece, memoryview)]
    assert np.shares_memory(np.frombuffer(view), array)


# ---------------------------------------------------------------- tables

TABLE = pa.table(
    {
        "number": pa.array(range(10_000)),
        "text": pa.array([f"row {number}" if number % 3 else None for number in range(10_000)]),
        "list": pa.array([[number] * (number % 4) for number in range(10_000)]),
        "flag": pa.array([None, True, False, True] * 2500),
        "word": pa.array(["a", "b"] * 5000).dictionary_encode(),
        "nested": pa.array([{"x": number, "y": str(number)} for number in range(10_000)]),
    }
).replace_schema_metadata({"origin": "a test"})


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        TABLE.slice(17, 1000),
        TABLE.slice(9999),
        TABLE.slice(0, 0),
        TABLE.schema.empty_table(),
        pa.concat_tables([TABLE.slice(3, 5), TABLE.slice(0, 0), TABLE.slice(99, 7)]),
        TABLE.select([]),
        pa.table({}),
        pa.table({"": pa.nulls(3), "same": [1, 2, 3]}),
        pa.table([[1], [2]], names=["same", "same"]),
        pa.table(
            {
                "word": pa.chunked_array(
                    [pa.array(["a"]).dictionary_encode(), pa.array(["b"]).dictionary_encode()]
                )
            }
        ),
    ],
    ids=[
        "whole",
        "slice",
        "one row",
        "no row",
        "schema only",
        "chunks",
        "rows without columns",
        "nothing",
        "nulls",
        "same name twice",
        "dictionaries that differ",
    ],
)
def test_tables_come_back(table: pa.Table) -> None:
    back = round_trip(table)
    assert type(back) is pa.Table
    assert back.schema.equals(table.schema, check_metadata=True)
    assert back.num_rows == table.num_rows
    assert back.equals(table)
    back.validate(full=True)
    for batch in table.to_batches():
        back = round_trip(batch)
        assert type(back) is pa.RecordBatch
        assert back.equals(batch, check_metadata=True)


@given(st.integers(0, 10_000), st.integers(0, 10_000))
@settings(max_examples=30)
def test_a_slice_takes_its_own_rows_only(start: int, length: int) -> None:
    part = TABLE.slice(start, length)
    assert round_trip(part).equals(part)
    whole, fixed = dumps(TABLE).size, dumps(TABLE.slice(0, 0)).size
    share = part.num_rows / TABLE.num_rows
    assert dumps(part).size <= fixed + share * whole * 1.25 + 1000
    for batch in part.to_batches():
        assert dumps(batch).size <= fixed + share * whole * 1.25 + 1000


@pytest.mark.parametrize("name", TABLE.column_names)
def test_a_slice_of_a_column_takes_its_own_rows_only(name: str) -> None:
    column = TABLE[name].slice(17, 100)
    for part in (column, column.chunk(0), column.slice(0, 0)):
        back = round_trip(part)
        assert (type(back), back.type) == (type(part), part.type)
        assert back.equals(part)
        back.validate(full=True)
        assert dumps(part).size <= dumps(TABLE[name]).size / 50 + 1000


def test_tables_are_views_of_what_was_read() -> None:
    data = bytearray(dumps({"inside": TABLE}).to_bytes())
    start = address_of(np.frombuffer(data, np.uint8))
    back = loads(memoryview(data), None)["inside"]
    (chunk,) = back["number"].chunks
    assert start <= chunk.buffers()[1].address < start + len(data)


def test_frames_come_back() -> None:
    frame = TABLE.select(["number", "text", "flag"]).to_pandas()
    frame["when"] = pd.Timestamp("2024-02-29", tz="Europe/Berlin")
    frame["kind"] = frame["text"].astype("category")
    for part in (frame, frame.iloc[10:20], frame.iloc[:0]):
        pd.testing.assert_frame_equal(round_trip(part), part)
