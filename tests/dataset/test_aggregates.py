"""Do aggregates taken in parts equal those of the whole?"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import time
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdata.dataset.aggregates import AggregateSink, CountRows, OfColumn
from rdata.dataset.logical import Aggregate, InMemory, static_schemas
from rdata.errors import DataError

values = st.lists(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=6), max_size=5)


@given(values)
def test_integers_are_exact_however_the_rows_are_cut(parts: list[list[int | None]]) -> None:
    blocks = [pa.table({"x": pa.array(part, pa.int64())}) for part in parts]
    kinds = ("sum", "min", "max", "mean")
    sink = AggregateSink((CountRows(), *(OfColumn(kind, "x") for kind in kinds)))
    results = [sink.consume(i, iter([block])) for i, block in enumerate(blocks)]
    whole = [value for part in parts for value in part if value is not None]
    expected = (
        [sum(whole), min(whole), max(whole), sum(whole) / len(whole)] if whole else [None] * 4
    )
    assert sink.merge(results) == [sum(map(len, parts)), *expected]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.integers(1, 5))
def test_floats_are_close_and_the_same_each_time(numbers: list[float], num_parts: int) -> None:
    parts = [numbers[i::num_parts] for i in range(num_parts)]
    sink = AggregateSink((OfColumn("sum", "x"),))

    def total() -> float:
        blocks = iter([pa.table({"x": pa.array(part, pa.float64())}) for part in parts])
        (result,) = sink.merge([sink.consume(0, blocks)])
        return float(result)

    assert total() == total()
    assert math.isclose(total(), math.fsum(numbers), rel_tol=1e-9, abs_tol=1e-6)


@pytest.mark.parametrize(
    "type",
    [pa.decimal32(9, 2), pa.decimal64(18, 2), pa.decimal128(38, 2), pa.decimal256(76, 2)],
    ids=str,
)
def test_decimals_are_exact_however_the_rows_are_cut(type: Any) -> None:
    most = decimal.Decimal(10**type.precision - 1).scaleb(-2, decimal.Context(prec=100))
    column = pa.array([most, None, most, most, most.copy_negate(), most], type)
    sink = AggregateSink((OfColumn("sum", "x"), OfColumn("mean", "x")))
    block = pa.table({"x": column})
    for blocks in ([block], [block.slice(0, 4), block.slice(4)]):
        total, mean = sink.merge([sink.consume(0, iter(blocks))])
        assert str(total) == f"{3 * (10**type.precision - 1) // 100}.{97:02}"
        with decimal.localcontext(prec=max(28, type.precision + 1)):  # as many as the sum has
            assert mean == total / 5


@pytest.mark.parametrize(
    ("column", "kind", "expected"),
    [
        (pa.array([True, None, True]), "sum", 2),
        (
            pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.25")]),
            "sum",
            decimal.Decimal("3.75"),
        ),
        (pa.array(["b", "a", None]).dictionary_encode(), "min", "a"),
        (pa.array([2**64 - 1, 2**64 - 1], pa.uint64()), "sum", 2**65 - 2),
        (pa.array([-(2**63), -(2**63)]), "sum", -(2**64)),
        (pa.array([None, None], pa.float64()), "mean", None),
    ],
    ids=["bool", "decimal", "category", "uint64", "int64", "nulls"],
)
def test_types(column: pa.Array, kind: Any, expected: Any) -> None:
    sink = AggregateSink((OfColumn(kind, "x"),))
    blocks = iter([pa.table({"x": column}).slice(i, 1) for i in range(len(column))])
    assert sink.merge([sink.consume(0, blocks)]) == [expected]


TIME = dt.datetime(2024, 1, 31)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("max", [1, "text"]),
        ("max", [TIME.replace(tzinfo=dt.UTC), TIME]),
        ("min", [decimal.Decimal(1), "x"]),
        ("sum", [decimal.Decimal(1), 1.5]),
    ],
)
def test_types_that_do_not_go_together_are_an_error_of_the_data(kind: Any, values: Any) -> None:
    sink = AggregateSink((OfColumn(kind, "x"),))
    results = [sink.consume(i, iter([pa.table({"x": [v]})])) for i, v in enumerate(values)]
    with pytest.raises(DataError, match=r"\(x\): column 'x' has types in different blocks that do"):
        sink.merge(results)


def test_the_mean_of_equal_decimals_is_exact() -> None:
    value = decimal.Decimal(12345678901234567890123456789012345678)
    sink = AggregateSink((OfColumn("mean", "x"),))
    results = [sink.consume(0, iter([pa.table({"x": [value, value]})]))]
    assert sink.merge(results) == [value]
    results = [sink.consume(0, iter([pa.table({"x": [decimal.Decimal(n)]})])) for n in (1, 1, 2)]
    assert sink.merge(results) == [decimal.Decimal(4) / 3]


def test_each_column_costs_the_same_however_many_there_are() -> None:
    def best_time(num_columns: int) -> float:
        block = pa.table({f"c{i}": [i] for i in range(num_columns)})
        names = tuple(OfColumn("max", name) for name in block.column_names)
        memory = Aggregate(InMemory("", (block,)), AggregateSink(names))
        times = []
        for _ in range(5):
            start = time.perf_counter()
            static_schemas(memory)
            memory.sink.consume(0, iter([block]))
            times.append(time.perf_counter() - start)
        return min(times)

    assert best_time(1600) < 2.5 * 8 * best_time(200)
