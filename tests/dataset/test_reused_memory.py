"""May a function fill the same arrays, frames and rows again and again?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import rdata

pytestmark = pytest.mark.usefixtures("local")

Batch = dict[str, Any]
Row = dict[str, Any]


def arrays_changed_between_yields(batch: Batch) -> Iterator[Batch]:
    for _ in range(2):
        yield batch
        batch["id"] += 10


def frame_changed_between_yields(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for _ in range(2):
        yield frame
        frame.loc[:, "id"] = frame["id"] + 10


def array_filled_again(batch: Batch) -> Iterator[Batch]:
    array = np.empty((len(batch["id"]), 1), np.int64)
    for added in (0, 10):
        array[:, 0] = batch["id"] + added
        yield {"id": array[:, 0]}


@pytest.mark.parametrize(
    "function",
    [arrays_changed_between_yields, frame_changed_between_yields, array_filled_again],
)
def test_batches_that_were_yielded_stay_as_they_were(function: Any) -> None:
    rows = rdata.range(2, override_num_blocks=1).map_batches(function).take_all()
    assert [row["id"] for row in rows] == [0, 1, 10, 11]


class Refill:
    """A stateful function with one array for all that it gives."""

    def __init__(self) -> None:
        self.array = np.zeros(2)

    def __call__(self, batch: Batch) -> Any:
        self.array[:] = batch["id"]
        return {"id": self.array}


def test_what_was_returned_stays_as_it_was() -> None:
    ids = rdata.range(6, override_num_blocks=1)
    rows = ids.map_batches(Refill, batch_size=2, concurrency=1).take_all()
    assert [row["id"] for row in rows] == [0, 1, 2, 3, 4, 5]


def test_a_column_that_was_added_stays_as_it_was() -> None:
    buffer = np.zeros(2, np.int64)

    def refill(batch: Batch) -> Any:
        np.add(batch["id"], 1, out=buffer)
        return buffer

    rows = rdata.range(4, override_num_blocks=2).add_column("n", refill).take_all()
    assert [row["n"] for row in rows] == [1, 2, 3, 4]


def test_rows_stay_as_they_were() -> None:
    reused: Row = {}

    def fill(row: Row) -> Row:
        reused["n"] = row["id"]
        return reused

    def fill_twice(row: Row) -> Iterator[Row]:
        for n in range(2):
            row["n"] = n
            yield row

    ids = rdata.range(2, override_num_blocks=1)
    assert ids.map(fill).take_all() == [{"n": 0}, {"n": 1}]
    assert [row["n"] for row in ids.flat_map(fill_twice).take_all()] == [0, 1, 0, 1]
