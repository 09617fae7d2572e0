"""Do results become as many values as there are references?"""

from __future__ import annotations

from typing import Any

import pytest

from rdata.core.returns import returned, split_returns, streamed_items


@pytest.mark.parametrize(
    ("result", "num_returns", "values"),
    [
        ((1, 2), 1, [(1, 2)]),
        (None, 1, [None]),
        ((1, 2), 2, [1, 2]),
        ([1, 2], 2, [1, 2]),
        (iter("ab"), 2, ["a", "b"]),
        ("anything", 0, []),
    ],
)
def test_results_are_split(result: Any, num_returns: int, values: list[Any]) -> None:
    assert split_returns(result, num_returns, "task f") == values


def test_one_return_keeps_an_iterator_whole() -> None:
    result = iter("ab")
    assert split_returns(result, 1, "task f") == [result]


@pytest.mark.parametrize("result", ["ab", {"a": 1, "b": 2}, {1, 2}, 5])
def test_only_tuples_lists_and_generators_are_several_values(result: Any) -> None:
    with pytest.raises(TypeError, match=f"task f .* returned one {type(result).__name__}"):
        split_returns(result, 2, "task f")


def test_a_wrong_number_names_both() -> None:
    with pytest.raises(ValueError, match=r"task f .*num_returns=3 and gave 2 values"):
        split_returns((1, 2), 3, "task f")


def test_streaming_takes_an_iterator() -> None:
    assert list(streamed_items(iter([1]), "task f")) == [1]
    with pytest.raises(TypeError, match=r"task f .* returned a list"):
        streamed_items([1], "task f")


def test_what_the_caller_gets() -> None:
    ref: Any = object()
    assert returned([]) is None
    assert returned([ref]) is ref
    assert returned([ref, ref]) == [ref, ref]
