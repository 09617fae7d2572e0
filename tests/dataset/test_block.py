"""Are blocks cut and joined without losing, doubling or reordering a row?"""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdata.dataset.block import (
    concat,
    conform,
    cut,
    default_cut,
    plain,
    pylist,
    rebatch,
    rows_only,
    shape,
    size_of,
    table_of_rows,
    unify_schemas,
)
from rdata.errors import DataError

lengths = st.lists(st.integers(0, 40), max_size=8)


def blocks_of(lengths: list[int]) -> list[pa.Table]:
    blocks, start = [], 0
    for length in lengths:
        blocks.append(pa.table({"i": pa.array(range(start, start + length), pa.int64())}))
        start += length
    return blocks


def values_of(blocks: list[pa.Table]) -> list[int]:
    return [value for block in blocks for value in block.column("i").to_pylist()]


@given(lengths, st.integers(1, 50))
def test_rebatching_keeps_every_row_in_order(lengths: list[int], num_rows: int) -> None:
    batches = list(rebatch(blocks_of(lengths), num_rows, "test"))
    assert values_of(batches) == list(range(sum(lengths)))
    assert all(batch.num_rows == num_rows for batch in batches[:-1])
    assert all(batch.num_rows for batch in batches)


@given(lengths, st.integers(1, 400))
def test_shaping_keeps_every_row_and_bounds_blocks(lengths: list[int], target: int) -> None:
    shaped = list(shape(blocks_of(lengths), "test", target))
    assert len(shaped) >= 1
    if sum(lengths):
        assert values_of(shaped) == list(range(sum(lengths)))
        assert all(block.num_rows for block in shaped)
        assert all(size_of(block) <= 2 * max(target, 8) for block in shaped)
    else:
        assert [block.num_rows for block in shaped] == [0]


def test_shaping_does_not_depend_on_how_the_rows_arrive_twice() -> None:
    lengths = [3, 0, 7, 1, 20]
    first = [block.num_rows for block in shape(blocks_of(lengths), "test", 50)]
    again = [block.num_rows for block in shape(blocks_of(lengths), "test", 50)]
    assert first == again


def test_shaping_nothing_keeps_the_first_schema_with_columns() -> None:
    empty = pa.table({"a": pa.array([], pa.int8())})
    (block,) = shape([pa.table({}), empty, pa.table({})], "test")
    assert block.schema == empty.schema


@given(st.integers(0, 30), st.integers(1, 40))
def test_cutting_gives_nearly_equal_pieces(num_rows: int, num_pieces: int) -> None:
    (block,) = blocks_of([num_rows])
    pieces = cut(block, num_pieces)
    assert values_of(pieces) == list(range(num_rows))
    assert len(pieces) == max(1, min(num_rows, num_pieces))
    sizes = [piece.num_rows for piece in pieces]
    assert max(sizes) - min(sizes) <= 1


def test_small_tables_are_not_cut_and_large_ones_are() -> None:
    assert len(default_cut(pa.table({"i": [1, 2, 3]}))) == 1
    assert len(default_cut(pa.table({"i": pa.array(range(1 << 19))}))) == 4  # of 4 MiB


def test_joining_promotes_numbers_and_nulls() -> None:
    joined = concat(
        [
            pa.table({"a": pa.array([None, None])}),
            pa.table({"a": [1]}),
            pa.table({"a": [0.5], "b": ["x"]}),
        ],
        "test",
    )
    assert joined.schema == pa.schema([("a", pa.float64()), ("b", pa.string())])
    assert joined.to_pylist() == [
        {"a": None, "b": None},
        {"a": None, "b": None},
        {"a": 1.0, "b": None},
        {"a": 0.5, "b": "x"},
    ]


def test_joining_blocks_without_columns_counts_rows() -> None:
    assert concat([rows_only(3), rows_only(4)], "test").num_rows == 7


def test_joining_what_does_not_fit_names_column_and_types() -> None:
    with pytest.raises(DataError, match=r"here: column 'a' is int64 in one block and string"):
        concat([pa.table({"b": [1], "a": [1]}), pa.table({"b": [2.5], "a": ["x"]})], "here")


def test_conforming_reorders_casts_and_fills() -> None:
    schema = pa.schema([("b", pa.float64()), ("a", pa.int64()), ("c", pa.string())])
    block = conform(pa.table({"a": [1], "b": [2]}), schema, "test")
    assert block.schema == schema
    assert block.to_pylist() == [{"b": 2.0, "a": 1, "c": None}]


def test_conforming_a_value_that_does_not_fit_says_which_column() -> None:
    with pytest.raises(DataError, match=r"column 'a', which is string here, does not fit the type"):
        conform(pa.table({"a": ["x"]}), pa.schema([("a", pa.int64())]), "test")


def test_one_schema_for_many_is_the_same_object_if_they_agree() -> None:
    schema = pa.schema([("a", pa.int64())])
    assert unify_schemas([schema, pa.schema([("a", pa.int64())])], "test") is schema


@pytest.mark.parametrize(
    ("integer", "held"),
    [
        (pa.int8(), pa.decimal128(4, 1)),
        (pa.int64(), pa.decimal128(20, 1)),
        (pa.uint64(), pa.decimal128(21, 1)),
    ],
    ids=str,
)
def test_a_type_for_decimals_holds_the_integers_beside_them(integer: Any, held: Any) -> None:
    most = 2 ** (integer.bit_width - pa.types.is_signed_integer(integer)) - 1
    tables = [
        pa.table({"a": pa.array([most], integer)}),
        pa.table({"b": ["x"], "a": [decimal.Decimal("1.5")]}),
    ]
    joined = concat(tables, "test")
    assert joined.schema.field("a").type == held
    assert joined.column("a").to_pylist() == [decimal.Decimal(most), decimal.Decimal("1.5")]


def test_a_type_for_decimals_is_as_wide_as_it_must_be() -> None:
    types = [pa.int64(), pa.decimal128(38, 20)]
    unified = unify_schemas([pa.schema([("a", type)]) for type in types], "test")
    assert unified.field("a").type == pa.decimal256(39, 20)


def test_rows_become_columns_whatever_keys_they_have() -> None:
    table = table_of_rows([{"a": 1, "b": "x"}, {"b": "y", "c": 2.5}, {"a": 3, "c": 1}], "test")
    assert table.to_pylist() == [
        {"a": 1, "b": "x", "c": None},
        {"a": None, "b": "y", "c": 2.5},
        {"a": 3, "b": None, "c": 1.0},
    ]
    other_keys = table_of_rows([{"a": 1}, {"b": 2}], "test")
    assert other_keys.to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": 2}]
    assert table_of_rows([{}, {}], "test").num_rows == 2


def test_rows_with_values_that_fit_no_type_name_the_column() -> None:
    with pytest.raises(DataError, match="here: column 'a' cannot become an Arrow column"):
        table_of_rows([{"a": 1}, {"a": "x"}], "here")
    with pytest.raises(DataError, match="a row has the key 1; column names must be text"):
        table_of_rows([{1: 2}], "here")


def test_rows_of_a_block_without_columns_are_empty_dicts() -> None:
    assert pylist(rows_only(2)) == [{}, {}]


def test_plain_tables_carry_no_notes_of_pandas() -> None:
    noted = pa.table({"a": [1]}).replace_schema_metadata({"pandas": "{}"})
    assert plain(noted).schema.metadata is None


def test_instants_of_several_offsets_are_in_utc() -> None:
    def block(text: str) -> pa.Table:
        return pa.table({"t": [dt.datetime.fromisoformat(text)]})

    blocks = [block("2024-03-30T12:00:00+01:00"), block("2024-04-01T12:00:00+02:00")]
    joined = concat([*blocks, pa.table({"t": pa.nulls(1)})], "test")
    assert joined.schema.field("t").type == pa.timestamp("us", "UTC")
    assert [value and value.hour for value in joined["t"].to_pylist()] == [11, 10, None]
    assert concat([blocks[0], blocks[0]], "test").schema == blocks[0].schema
    naive = pa.table({"t": [dt.datetime(2024, 4, 1)]})  # noqa: DTZ001 - that is the point
    with pytest.raises(DataError, match="column 't' is timestamp"):
        concat([*blocks, naive], "test")


def test_text_in_one_block_and_bytes_in_another_are_refused() -> None:
    blocks = [pa.table({"x": ["a"]}), pa.table({"x": [b"\xff"]})]
    with pytest.raises(DataError, match="column 'x' is string in one block and binary in another"):
        concat(blocks, "test")
