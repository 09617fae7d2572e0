"""Do objects reach whoever holds a reference, and go when nobody does?"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import rdata
from rdata.core import serialize
from tests.eventually import eventually

pytestmark = pytest.mark.usefixtures("node")

MB = 1_000_000


def used_bytes() -> int:
    """What the node's store holds in sealed or unfinished objects."""
    used: int = rdata.nodes()[0]["ObjectStoreUsedBytes"]
    return used


@pytest.fixture(autouse=True)
def _memory_is_freed(node: None) -> Iterator[None]:
    """No test may leave an object in the store."""
    before = used_bytes()
    yield
    gc.collect()
    assert eventually(lambda: used_bytes() <= before), f"{used_bytes()} bytes are still in use"


@rdata.remote
def make(size: int) -> np.ndarray[Any, Any]:
    return np.ones(size, dtype=np.uint8)


@rdata.remote
def total(array: np.ndarray[Any, Any]) -> int:
    return int(array.sum())


@rdata.remote
def total_inside(container: Any) -> int:
    (ref,) = container["refs"]
    return int(rdata.get(ref).sum())


@rdata.remote
class Keeper:
    def __init__(self) -> None:
        self.refs: list[Any] = []

    def keep(self, refs: list[Any]) -> None:
        self.refs += refs

    def total(self) -> int:
        return sum(int(rdata.get(ref).sum()) for ref in self.refs)

    def give(self) -> list[Any]:
        return self.refs

    def drop(self) -> None:
        self.refs.clear()

    def pid(self) -> int:
        return os.getpid()


# ------------------------------------------------------------ references that travel


def test_what_a_function_captured_goes_when_it_was_dropped_before_it_ran() -> None:
    """Workers forget it, although it was on its way to none of them when the program did."""

    def use(number: int) -> Any:
        ref = rdata.put(np.full(MB, number, dtype=np.uint8))
        return rdata.remote(lambda late: int(rdata.get(ref)[0]) + late.size).remote(make.remote(1))

    assert [rdata.get(use(number)) for number in range(5)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("size", [10, MB], ids=["small", "large"])
def test_references_inside_arguments(size: int) -> None:
    refs = [rdata.put(np.ones(size, dtype=np.uint8)), make.remote(size)]
    for ref in refs:
        assert rdata.get(total.remote(ref)) == size
        assert rdata.get(total_inside.remote({"refs": [ref]})) == size


@pytest.mark.parametrize("size", [10, MB], ids=["small", "large"])
def test_references_inside_results(size: int) -> None:
    @rdata.remote
    def nest(depth: int) -> list[Any]:
        if depth == 0:
            return [make.remote(size)]
        return [nest.remote(depth - 1)]

    (ref,) = rdata.get(nest.remote(3))
    for _ in range(3):
        (ref,) = rdata.get(ref)
    assert rdata.get(ref).sum() == size
    assert rdata.get(total.remote(ref)) == size


def test_references_inside_objects() -> None:
    inner = rdata.put(np.ones(MB, dtype=np.uint8))
    middle = rdata.put({"refs": [inner]})
    outer = rdata.put([middle])
    del inner, middle
    gc.collect()
    (middle_again,) = rdata.get(outer)
    assert rdata.get(total_inside.remote(middle_again)) == MB
    assert rdata.get(rdata.get(middle_again)["refs"][0]).sum() == MB


def test_references_handed_through_a_chain_of_tasks() -> None:
    @rdata.remote
    def pass_on(container: list[Any], times: int) -> Any:
        if times == 0:
            return container
        return rdata.get(pass_on.remote(container, times - 1))

    ref = rdata.put(np.ones(MB, dtype=np.uint8))
    (again,) = rdata.get(pass_on.remote([ref], 5))
    assert again == ref
    del ref
    assert rdata.get(again).sum() == MB


def test_references_in_a_closure_and_in_a_default() -> None:
    ref = rdata.put(np.ones(MB, dtype=np.uint8))

    @rdata.remote
    def captured(also: Any = ref) -> int:
        return int(rdata.get(ref).sum() + rdata.get(also).sum())

    gc.collect()
    assert rdata.get(captured.remote()) == 2 * MB
    assert rdata.get(captured.remote()) == 2 * MB


@pytest.mark.parametrize("size", [10, MB], ids=["small", "large"])
def test_an_actor_keeps_a_borrowed_reference(size: int) -> None:
    keeper = Keeper.remote()
    ref, made = rdata.put(np.ones(size, dtype=np.uint8)), make.remote(size)
    rdata.get(keeper.keep.remote([ref, made]))
    del ref, made
    gc.collect()
    assert rdata.get(keeper.total.remote()) == 2 * size
    others = Keeper.remote()
    rdata.get(others.keep.remote(rdata.get(keeper.give.remote())))
    rdata.get(keeper.drop.remote())
    assert rdata.get(others.total.remote()) == 2 * size  # a borrower of a borrower's


def test_an_actor_drops_its_references_while_it_lives() -> None:
    keeper = Keeper.remote()
    rdata.get(keeper.keep.remote([rdata.put(np.ones(MB, dtype=np.uint8))]))
    assert used_bytes() >= MB
    rdata.get(keeper.drop.remote())
    assert eventually(lambda: used_bytes() < MB)


def test_an_actor_that_ends_lets_go() -> None:
    keeper = Keeper.remote()
    rdata.get(keeper.keep.remote([rdata.put(np.ones(MB, dtype=np.uint8))]))
    rdata.kill(keeper)
    assert eventually(lambda: used_bytes() < MB)


def test_what_a_dead_actor_held_is_freed_though_the_program_does_nothing() -> None:
    for _ in range(6):  # it stayed in one case of four
        keeper = Keeper.remote()
        pid = rdata.get(keeper.pid.remote())
        rdata.get(keeper.keep.remote([rdata.put(np.ones(MB, dtype=np.uint8))]))
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: used_bytes() < MB)


def test_items_of_a_generator_hold_references() -> None:
    @rdata.remote
    def yields() -> Iterator[Any]:
        for index in range(4):
            yield [rdata.put(np.full(MB, index, dtype=np.uint8))]

    sums = [int(rdata.get(rdata.get(item)[0]).sum()) for item in yields.remote()]
    assert sums == [index * MB for index in range(4)]


def test_untaken_items_are_freed() -> None:
    @rdata.remote
    def yields() -> Iterator[Any]:
        for _ in range(8):
            yield np.ones(MB, dtype=np.uint8)

    generator = yields.remote()
    next(generator)
    assert eventually(lambda: used_bytes() >= 4 * MB)
    del generator
    # see _memory_is_freed


def test_results_that_nobody_waits_for_are_freed() -> None:
    for _ in range(10):
        make.remote(MB)
    assert rdata.get(total.remote(make.remote(MB))) == MB


def test_what_was_made_of_results_of_which_one_cannot_travel_is_freed() -> None:
    @rdata.remote(num_returns=3)
    def make_some() -> Any:
        large = np.ones(MB, dtype=np.uint8)
        return large, [rdata.put(large)], threading.Lock()

    for _ in range(3):
        first, second, third = make_some.remote()
        for ref in (first, second, third):
            with pytest.raises(rdata.exceptions.SerializationError, match="lock"):
                rdata.get(ref)
    assert eventually(lambda: used_bytes() < MB)


def test_what_a_failed_task_was_given_is_freed() -> None:
    @rdata.remote
    def fail(array: Any, container: list[Any]) -> None:
        raise ValueError("as told")

    ref = rdata.put(np.ones(MB, dtype=np.uint8))
    failing = fail.remote(ref, [ref])
    del ref
    with pytest.raises(ValueError, match="as told"):
        rdata.get(failing)
    del failing


class Carrier(Exception):
    """Has a reference to a large value."""

    def __init__(self) -> None:
        super().__init__("see .ref")
        self.ref = rdata.put(np.ones(MB, dtype=np.uint8))


@rdata.remote
def fail() -> None:
    raise Carrier


@rdata.remote
def fail_later() -> Iterator[Any]:
    for _ in range(3):
        yield [rdata.put(np.ones(MB, dtype=np.uint8))]
    raise Carrier


@rdata.remote
class Failing:
    def fail(self, *args: Any) -> None:
        raise Carrier

    def fail_later(self) -> Iterator[Any]:
        yield 1
        raise Carrier


@rdata.remote
class Stillborn:
    def __init__(self, *args: Any) -> None:
        raise Carrier

    def look(self) -> None: ...


@rdata.remote
def pass_on(*args: Any) -> None: ...


@rdata.remote
def relay(container: list[Any]) -> list[Any]:
    """The error passes on to a task of this one's, which did not make it."""
    return [pass_on.remote(*container)]


@pytest.mark.parametrize(
    "failing",
    [
        lambda: [fail.remote()],
        lambda: [fail.options(max_retries=2, retry_exceptions=True).remote()],
        fail.options(num_returns=3).remote,
        lambda: list(fail_later.remote()),
        lambda: [Failing.remote().fail.remote()],
        lambda: list(Failing.remote().fail_later.options(num_returns="streaming").remote()),
        lambda: [Stillborn.remote().look.remote()],
        lambda: [pass_on.remote(fail.remote())],
        lambda: [Stillborn.remote(fail.remote()).look.remote()],
        lambda: [Failing.remote().fail.remote(fail.remote())],
        lambda: rdata.get(relay.remote([fail.remote()])),
        lambda: rdata.get(relay.remote([Stillborn.remote().look.remote()])),
    ],
    ids=[
        "task",
        "retried task",
        "several returns",
        "generator",
        "method",
        "generator method",
        "constructor",
        "dependent task",
        "dependent constructor",
        "dependent method",
        "borrowed",
        "borrowed of an actor's",
    ],
)
def test_a_reference_inside_an_error(failing: Any) -> None:
    for _ in range(5):
        ref = failing()[-1]
        rdata.wait([ref])
        gc.collect()
        with pytest.raises(Carrier) as raised:
            rdata.get(ref)
        inside = raised.value.ref
        del ref, raised
        gc.collect()
        rdata.get([pass_on.remote() for _ in range(20)])  # who lets go of it does so meanwhile
        assert rdata.get(inside).sum() == MB


def test_an_error_that_nobody_asks_for_lets_go_of_its_references() -> None:
    refs = [fail.remote(), Failing.remote().fail.remote(), pass_on.remote(fail.remote())]
    rdata.wait(refs, num_returns=len(refs))
    # see _memory_is_freed


def test_an_error_does_not_keep_what_its_function_had() -> None:
    @rdata.remote
    def fail_in_a_cycle(array: Any) -> None:
        error = ValueError(f"{array.size}")  # it holds its frame, which holds it and the array
        raise error

    @rdata.remote
    def yields_in_a_cycle(array: Any) -> Iterator[int]:
        yield 1
        error = ValueError(f"{array.size}")
        raise error

    array = rdata.put(np.ones(MB, dtype=np.uint8))
    for ref in (fail_in_a_cycle.remote(array), list(yields_in_a_cycle.remote(array))[1]):
        with pytest.raises(ValueError, match=f"{MB}"):
            rdata.get(ref)
    del array
    gc.collect()
    assert eventually(lambda: used_bytes() < MB)


def test_a_view_keeps_the_memory_when_its_reference_is_gone() -> None:
    ref = rdata.put(np.arange(MB))
    view = rdata.get(ref)[10:20]
    del ref
    gc.collect()
    for _ in range(5):  # memory that is reused would show here
        rdata.get(rdata.put(np.zeros(MB)))
    assert view.tolist() == list(range(10, 20))


# ------------------------------------------------------------ zero-copy

SIZE = 64 * MB


def private_bytes() -> int:
    """Memory that only this process has: not files, not shared memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon in /proc/self/status")


@rdata.remote
class Reader:
    def __init__(self) -> None:
        self.before = 0

    def begin(self, small: Any) -> None:
        """Import what a value of that kind needs."""
        self.look(small)
        self.before = private_bytes()

    def look(self, value: Any) -> tuple[int, int, bool]:
        """The sum, by how much private memory has grown, and whether one may write."""
        if isinstance(value, pa.Table):
            total = int(value["x"].to_numpy().sum())
            return total, private_bytes() - self.before, False
        return int(value.sum()), private_bytes() - self.before, value.flags.writeable


def test_a_reader_does_not_copy_an_array() -> None:
    reader = Reader.remote()
    rdata.get(reader.begin.remote(rdata.put(np.ones(MB))))
    summed, growth, is_writeable = rdata.get(reader.look.remote(rdata.put(np.ones(SIZE // 8))))
    assert (summed, is_writeable) == (SIZE // 8, False)
    assert growth < SIZE // 8


def test_a_reader_does_not_copy_a_table() -> None:
    reader = Reader.remote()
    rdata.get(reader.begin.remote(rdata.put(pa.table({"x": np.ones(MB)}))))
    table = pa.table({"x": np.ones(SIZE // 8)})
    summed, growth, _ = rdata.get(reader.look.remote(rdata.put(table)))
    assert summed == SIZE // 8
    assert growth < SIZE // 8


def test_the_driver_does_not_copy_a_result() -> None:
    @rdata.remote
    def make_ones() -> Any:
        return np.ones(SIZE // 8)

    before = private_bytes()
    array = rdata.get(make_ones.remote())
    assert array.sum() == SIZE // 8
    assert private_bytes() - before < SIZE // 8
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 2


def test_a_slice_of_a_table_stores_its_own_rows_only() -> None:
    table = pa.table({"x": np.arange(SIZE // 8)})
    ref = rdata.put(table.slice(100, 20_000))
    assert used_bytes() < MB
    assert rdata.get(ref)["x"].to_pylist()[:3] == [100, 101, 102]


def test_two_gets_share_one_mapping() -> None:
    ref = rdata.put(np.ones(SIZE // 8))
    first, second = rdata.get([ref, ref])
    assert np.shares_memory(first, second)


# ------------------------------------------------------------ many


def test_thousands_of_small_objects() -> None:
    refs = [rdata.put(index) for index in range(5_000)]
    assert rdata.get(refs) == list(range(5_000))

    @rdata.remote
    def add_up(refs: list[Any]) -> int:
        return sum(rdata.get(refs))

    assert rdata.get(add_up.remote(refs)) == sum(range(5_000))


def test_thousands_of_objects_in_shared_memory() -> None:
    refs = [rdata.put(np.full(20_000, index)) for index in range(300)]  # 160 KB each
    assert used_bytes() >= 300 * 160_000

    @rdata.remote
    def firsts(refs: list[Any]) -> list[int]:
        return [int(array[0]) for array in rdata.get(refs)]

    assert rdata.get(firsts.remote(refs)) == list(range(300))
    assert [int(array[-1]) for array in rdata.get(refs)] == list(range(300))


def test_ten_thousand_references_in_one_get() -> None:
    identity = rdata.remote(lambda index: index)
    refs = [identity.remote(index) for index in range(10_000)]
    assert rdata.get(refs) == list(range(10_000))


def test_wait_over_a_thousand_references_again_and_again() -> None:
    identity = rdata.remote(lambda index: index)
    pending = [identity.remote(index) for index in range(1_000)]
    seen = []
    while pending:
        ready, pending = rdata.wait(pending, num_returns=min(10, len(pending)))
        seen += rdata.get(ready)
    assert sorted(seen) == list(range(1_000))


def test_a_task_with_a_thousand_references_as_arguments() -> None:
    identity = rdata.remote(lambda index: index)
    add_up = rdata.remote(lambda *numbers: sum(numbers))
    refs = [identity.remote(index) for index in range(1_000)]
    assert rdata.get(add_up.remote(*refs)) == sum(range(1_000))


def test_workers_do_not_collect_descriptors() -> None:
    @rdata.remote
    class Maker:
        def make(self, size: int) -> Any:
            return np.ones(size, dtype=np.uint8)

        def num_descriptors(self) -> int:
            return len(os.listdir("/proc/self/fd"))

    maker = Maker.remote()
    for size in (MB, 3 * MB):
        rdata.get(maker.make.remote(size))
    before = rdata.get(maker.num_descriptors.remote())
    for _ in range(50):
        assert rdata.get(maker.make.remote(MB)).size == MB
    assert rdata.get(maker.num_descriptors.remote()) <= before + 4


def test_a_large_argument_is_pickled_once(node: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    dumps = serialize.dumps

    def counted(value: object, what: str = "") -> serialize.Serialized:
        serialized = dumps(value, what)
        sizes.append(serialized.size)
        return serialized

    monkeypatch.setattr(serialize, "dumps", counted)
    text = "x" * 1_000_000
    assert rdata.get(rdata.remote(len).remote(text)) == 1_000_000
    assert sum(size > 1_000_000 for size in sizes) == 1
