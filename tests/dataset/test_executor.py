"""Does the loop keep order, bound memory and stop in time, whatever order tasks end in?"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdata.dataset.aggregates import AggregateSink, CountRows
from rdata.dataset.block import BlockMeta
from rdata.dataset.bundle import Bundle, Piece
from rdata.dataset.executor import execute
from rdata.dataset.formats.rows import RangeSource
from rdata.dataset.function import user_function
from rdata.dataset.logical import (
    Aggregate,
    Limit,
    MapBatches,
    Operator,
    Read,
    Repartition,
    Resources,
)
from rdata.dataset.physical.launch import Result, Runner, Stream, Waited
from rdata.dataset.physical.work import Input, LoadedWork, Work
from rdata.dataset.planner import plan

seeds = st.integers(0, 2**32)


@dataclass
class ShuffledLauncher:
    """A launcher whose tasks become ready in a random order, and which counts what is held."""

    rng: random.Random
    num_cpus: float = 2.0
    budget_bytes: int = 10_000
    running: set[Any] = field(default_factory=set)
    num_started: int = 0
    num_cancelled: int = 0
    rows_made: int = 0
    most_running: int = 0

    def tasks(self, work: Work, num_cpus: float) -> Runner:
        return _Runner(self, work.load())

    def actor(self, work: Work, num_cpus: float | None) -> Runner:
        return _Runner(self, work.load())

    def adopt(self, piece: Piece) -> Piece:
        return piece

    def get(self, piece: Piece) -> pa.Table:
        block: pa.Table = piece.handle
        return block.slice(piece.start, piece.num_rows)

    def wait(self, waited: Sequence[Waited], timeout: float) -> list[Waited]:
        self.most_running = max(self.most_running, len(self.running))
        ready = self.rng.sample(list(waited), self.rng.randint(1, len(waited)))
        return [each for each in waited if each in ready]


class _Runner:
    def __init__(self, launcher: ShuffledLauncher, work: LoadedWork) -> None:
        self.launcher, self.work = launcher, work

    def stream(self, input: Input, bundle: Bundle | None) -> Stream:
        blocks = [] if bundle is None else list(bundle.handles)
        return _Stream(self.launcher, self.work.stream(input, blocks))

    def call(self, task_index: int, input: Input, bundle: Bundle | None) -> Result:
        blocks = [] if bundle is None else list(bundle.handles)
        return _Result(self.launcher, lambda: self.work.finish(task_index, input, blocks))


class _Tracked:
    def __init__(self, launcher: ShuffledLauncher) -> None:
        self.launcher = launcher
        launcher.running.add(self)
        launcher.num_started += 1

    def cancel(self) -> None:
        self.launcher.running.discard(self)
        self.launcher.num_cancelled += 1


class _Stream(_Tracked):
    def __init__(self, launcher: ShuffledLauncher, items: Iterator[Any]) -> None:
        super().__init__(launcher)
        self.items = items

    def take(self) -> Piece | None:
        block = next(self.items, None)
        if block is None:
            self.launcher.running.discard(self)
            return None
        meta: BlockMeta = next(self.items)
        self.launcher.rows_made += meta.num_rows
        return Piece.whole(block, meta)


class _Result(_Tracked):
    def __init__(self, launcher: ShuffledLauncher, run: Any) -> None:
        super().__init__(launcher)
        self.run = run

    def value(self) -> Any:
        self.launcher.running.discard(self)
        return self.run()


def ranged(num_rows: int, num_splits: int) -> Operator:
    return Read(RangeSource(num_rows, num_splits))


def mapped(input: Operator, **needs: Any) -> Operator:
    fn = user_function(lambda batch: batch, "map_batches")
    return MapBatches(input, fn, None, "pyarrow", Resources(**needs))


def ids(operator: Operator, launcher: ShuffledLauncher, **options: Any) -> list[int]:
    values: list[int] = []
    for bundle in execute(plan(operator, **options), launcher):
        for piece in bundle.pieces:
            if piece.num_rows:  # else it may have no column
                values.extend(launcher.get(piece).column("id").to_pylist())
    return values


@given(seeds, st.integers(0, 200), st.integers(1, 30), st.integers(1, 3))
def test_rows_keep_their_order(seed: int, num_rows: int, num_splits: int, num_maps: int) -> None:
    launcher = ShuffledLauncher(random.Random(seed))
    operator = ranged(num_rows, num_splits)
    for _ in range(num_maps):
        operator = mapped(operator)
    assert ids(operator, launcher, is_fused=False) == list(range(num_rows))
    assert launcher.running == set()


@given(seeds, st.sampled_from([1.0, 2.0, 5.0]), st.integers(1, 3000))
def test_a_plan_moves_with_any_budget_and_any_cpus(
    seed: int, num_cpus: float, budget_bytes: int
) -> None:
    launcher = ShuffledLauncher(random.Random(seed), num_cpus, budget_bytes)
    operator = Repartition(mapped(mapped(ranged(300, 30))), 7)
    assert ids(mapped(operator), launcher, is_fused=False) == list(range(300))


def test_a_consumer_that_stops_asking_stops_the_sources() -> None:
    launcher = ShuffledLauncher(random.Random(0), budget_bytes=4_000)
    operator = mapped(mapped(ranged(100_000, 1000)))  # blocks of 100 rows, 800 bytes
    iterator = execute(plan(operator, is_fused=False), launcher)
    for _ in range(20):
        next(iterator)
    # Both operators may have their share of the budget, and what their tasks were making.
    assert launcher.rows_made <= 2 * (20 * 100 + 4_000 // 8 + 8 * 100)
    iterator.close()  # type: ignore[attr-defined]  # a generator
    assert launcher.running == set()


def test_a_limit_stops_what_is_no_longer_needed() -> None:
    launcher = ShuffledLauncher(random.Random(0))
    assert ids(Limit(mapped(ranged(100_000, 1000)), 250), launcher) == list(range(250))
    assert launcher.num_started < 20
    assert launcher.running == set()


def test_a_failing_task_stops_the_others() -> None:
    def fail(batch: Any) -> Any:
        raise ValueError("no")

    fn = user_function(fail, "map_batches")
    operator = MapBatches(ranged(100, 50), fn, None, "numpy", Resources())
    launcher = ShuffledLauncher(random.Random(0))
    with pytest.raises(ValueError, match="no"):
        ids(operator, launcher)
    assert launcher.num_cancelled >= 1
    assert launcher.num_started <= 4


def test_no_more_tasks_run_than_concurrency_says() -> None:
    launcher = ShuffledLauncher(random.Random(0), num_cpus=16)
    assert ids(mapped(ranged(100, 50), concurrency=3), launcher) == list(range(100))
    assert launcher.most_running == 3


@given(seeds, st.integers(0, 100), st.integers(1, 9))
def test_sinks_give_a_result_for_each_task_in_order(
    seed: int, num_rows: int, num_splits: int
) -> None:
    sink = AggregateSink((CountRows(),))
    planned = plan(Aggregate(mapped(ranged(num_rows, num_splits)), sink))
    assert sink.merge(list(execute(planned, ShuffledLauncher(random.Random(seed))))) == [num_rows]
