"""Do the items of a generator task arrive one by one, alike on every runtime?"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np
import pytest

import rdata
from rdata.core.runtime.inline_calls import Stream as InlineStream
from rdata.core.runtime.streams import Stream
from rdata.exceptions import SerializationError, TaskCancelledError, TaskError
from tests.eventually import eventually

pytestmark = pytest.mark.usefixtures("runtime")


@rdata.remote
def count(n: int) -> Iterator[int]:
    yield from range(n)


@rdata.remote
class Log:
    def __init__(self) -> None:
        self.lines: list[Any] = []

    def write(self, line: Any) -> None:
        self.lines.append(line)

    def read(self) -> list[Any]:
        return self.lines


def test_items_come_in_order() -> None:
    generator = count.remote(5)
    assert isinstance(generator, rdata.ObjectRefGenerator)
    assert [rdata.get(ref) for ref in generator] == [0, 1, 2, 3, 4]


def test_the_end_stays_the_end() -> None:
    generator = count.remote(1)
    assert rdata.get(next(generator)) == 0
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(generator)


def test_no_items() -> None:
    assert list(count.remote(0)) == []


def test_items_outlive_their_generator() -> None:
    refs = list(count.remote(3))
    assert rdata.get(refs) == [0, 1, 2]


def test_large_items() -> None:
    @rdata.remote
    def arrays() -> Iterator[Any]:
        for index in range(3):
            yield np.full(200_000, index)

    assert [int(rdata.get(ref).sum()) for ref in arrays.remote()] == [0, 200_000, 400_000]


def test_more_items_than_may_wait() -> None:
    generator = count.options(generator_backpressure_num_objects=2).remote(30)
    assert [rdata.get(ref) for ref in generator] == list(range(30))


def test_a_generator_is_held_back_by_its_consumer() -> None:
    @rdata.remote
    def logged(log: Any) -> Iterator[int]:
        for index in range(20):
            rdata.get(log.write.remote(index))
            yield index

    log = Log.remote()
    generator = logged.options(generator_backpressure_num_objects=2).remote(log)
    first = next(generator)
    assert rdata.get(first) == 0
    # It waits with at most two items made and not taken, and one more in its hands.
    assert len(rdata.get(log.read.remote())) <= 4
    assert len(list(generator)) == 19
    assert rdata.get(log.read.remote()) == list(range(20))


def test_an_exception_is_raised_by_the_last_reference() -> None:
    @rdata.remote
    def failing() -> Iterator[int]:
        yield 1
        raise KeyError("after one")

    first, last = failing.remote()
    assert rdata.get(first) == 1
    with pytest.raises(KeyError, match="after one"):
        rdata.get(last)


def test_an_argument_that_failed_fails_the_generator() -> None:
    def fail() -> None:
        raise OSError("no argument")

    (ref,) = count.remote(rdata.remote(fail).remote())
    with pytest.raises(OSError, match="no argument"):
        rdata.get(ref)


def test_an_item_that_cannot_travel_ends_its_generator() -> None:
    @rdata.remote
    def unsendable(log: Any) -> Iterator[Any]:
        try:
            yield iter([1]).__reduce__  # a bound method of a list iterator travels …
            yield (index for index in range(2))  # … and a generator does not
            yield 3
        finally:
            rdata.get(log.write.remote("ended"))

    log = Log.remote()
    _, last = unsendable.remote(log)
    with pytest.raises(TypeError, match="generator") as raised:
        rdata.get(last)
    assert isinstance(raised.value, SerializationError)
    assert isinstance(raised.value, TaskError)
    assert eventually(lambda: rdata.get(log.read.remote()) == ["ended"])


def test_streaming_can_be_asked_of_a_function_that_returns_an_iterator() -> None:
    task = rdata.remote(num_returns="streaming")(lambda: iter([7, 8]))
    assert [rdata.get(ref) for ref in task.remote()] == [7, 8]


def test_streaming_of_something_else_is_refused() -> None:
    (ref,) = rdata.remote(num_returns="streaming")(lambda: 5).remote()
    with pytest.raises(TypeError, match="generator function"):
        rdata.get(ref)


def test_wait_for_a_generator() -> None:
    generator = count.remote(1)
    ready, rest = rdata.wait([generator], timeout=20)
    assert (ready, rest) == ([generator], [])
    assert rdata.get(next(generator)) == 0


def test_a_dropped_generator_stops_its_task() -> None:
    @rdata.remote
    def endless(log: Any) -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            rdata.get(log.write.remote("stopped"))

    log = Log.remote()
    generator = endless.options(generator_backpressure_num_objects=1).remote(log)
    next(generator)
    del generator
    assert eventually(lambda: rdata.get(log.read.remote()) == ["stopped"])


def test_a_cancelled_generator_ends_with_the_error() -> None:
    @rdata.remote
    def endless() -> Iterator[int]:
        while True:
            yield 1

    generator = endless.options(generator_backpressure_num_objects=1).remote()
    assert rdata.get(next(generator)) == 1
    rdata.cancel(generator)
    refs = list(generator)
    with pytest.raises(TaskCancelledError):
        rdata.get(refs[-1])


def test_generators_in_asyncio() -> None:
    async def collect() -> list[int]:
        return [await ref async for ref in count.remote(4)]

    assert asyncio.run(collect()) == [0, 1, 2, 3]


def test_several_threads_share_a_generator() -> None:
    generator = one_by_one(100)

    def consume(_: int) -> list[int]:
        return [rdata.get(ref) for ref in generator]

    with ThreadPoolExecutor(4) as pool:
        taken = pool.map(consume, range(4), timeout=60)
        assert sorted(chain.from_iterable(taken)) == list(range(100))
    assert rdata.get(list(count.remote(3))) == [0, 1, 2]


def test_several_coroutines_share_a_generator() -> None:
    generator = one_by_one(30)

    async def consume() -> list[int]:
        return [await ref async for ref in generator]

    async def main() -> list[list[int]]:
        return await asyncio.gather(*(consume() for _ in range(3)))

    assert sorted(chain.from_iterable(asyncio.run(main()))) == list(range(30))


def one_by_one(n: int) -> rdata.ObjectRefGenerator:
    """A generator whose consumers all wait whenever an item comes: the one before was taken."""
    generator = count.options(generator_backpressure_num_objects=1).remote(n)
    assert isinstance(generator, rdata.ObjectRefGenerator)
    return generator


def test_generators_of_actors_keep_the_order_of_calls() -> None:
    @rdata.remote
    class Counter:
        def __init__(self) -> None:
            self.value = 0

        def upto(self, n: int) -> Iterator[int]:
            for _ in range(n):
                self.value += 1
                yield self.value

        def read(self) -> int:
            return self.value

    counter = Counter.remote()
    generator = counter.upto.remote(3)
    value = counter.read.remote()
    assert rdata.get(value) == 3
    assert [rdata.get(ref) for ref in generator] == [1, 2, 3]


def test_nothing_stays_of_dropped_generators() -> None:
    @rdata.remote
    class Counter:
        def upto(self, n: int) -> Iterator[int]:
            yield from range(n)

    def num_streams() -> int:
        rdata.put(None)  # a runtime takes note of what was dropped when it is called next
        return sum(type(known) in (Stream, InlineStream) for known in gc.get_objects())

    counter = Counter.remote()
    before = num_streams()
    for generate in (count, counter.upto):
        for _ in range(3):
            next(generate.remote(1000))
            list(generate.remote(2))
    assert eventually(lambda: num_streams() == before)


def test_generators_call_tasks_between_items() -> None:
    @rdata.remote
    def sums(n: int) -> Iterator[int]:
        for index in range(n):
            yield sum(rdata.get(ref) for ref in count.remote(index + 1))

    assert [rdata.get(ref) for ref in sums.remote(4)] == [0, 1, 3, 6]
