"""Can tasks wait for tasks, however deep and wide, without deadlock and with few workers?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import rdata
from tests.eventually import eventually


@pytest.fixture(scope="module", params=[1, 2], ids=["one CPU", "two CPUs"])
def num_cpus(request: pytest.FixtureRequest) -> Iterator[int]:
    """A node with so many CPUs, whose idle workers end soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RDATA_WORKER_IDLE_S", "0.5")
        rdata.init(num_cpus=request.param)
        yield int(request.param)
        rdata.shutdown()


def num_workers() -> int:
    return len(rdata.nodes()[0]["Processes"]["workers"])


@rdata.remote
def tree(depth: int, width: int) -> int:
    """How many leaves there are: every task waits for `width` others."""
    if depth == 0:
        return 1
    return sum(rdata.get([tree.remote(depth - 1, width) for _ in range(width)]))


@rdata.remote
def chain(depth: int) -> int:
    return 0 if depth == 0 else 1 + int(rdata.get(chain.remote(depth - 1)))


@rdata.remote
def identity(value: Any) -> Any:
    return value


@rdata.remote
def fan_out(num_children: int) -> int:
    return sum(rdata.get([identity.remote(index) for index in range(num_children)]))


@pytest.mark.parametrize("depth", range(7))
def test_a_binary_tree(num_cpus: int, depth: int) -> None:
    assert rdata.get(tree.remote(depth, 2), timeout=60) == 2**depth


@pytest.mark.parametrize(("depth", "width"), [(3, 5), (2, 12), (1, 100)])
def test_a_wide_tree(num_cpus: int, depth: int, width: int) -> None:
    assert rdata.get(tree.remote(depth, width), timeout=60) == width**depth


def test_several_trees_at_once(num_cpus: int) -> None:
    assert rdata.get([tree.remote(3, 2) for _ in range(6)], timeout=60) == [8] * 6


def test_a_chain(num_cpus: int) -> None:
    assert rdata.get(chain.remote(12), timeout=60) == 12


def test_a_task_with_hundreds_of_children(num_cpus: int) -> None:
    assert rdata.get(fan_out.remote(500), timeout=60) == sum(range(500))
    assert rdata.get([fan_out.remote(100) for _ in range(5)], timeout=60) == [sum(range(100))] * 5


def test_a_tree_needs_few_workers_and_they_end(num_cpus: int) -> None:
    depth = 5
    refs = [tree.remote(depth, 2) for _ in range(3)]
    most = 0
    while refs:
        _, refs = rdata.wait(refs, timeout=0.02)
        most = max(most, num_workers())
    # At each depth as many as there are CPUs may wait, and some are between two states.
    assert most <= 2 * (depth + 1) * num_cpus + 2
    assert eventually(lambda: num_workers() <= num_cpus)


def test_a_task_waits(num_cpus: int) -> None:
    @rdata.remote
    def waits() -> list[int]:
        pending = [identity.remote(index) for index in range(20)]
        seen: list[int] = []
        while pending:
            ready, pending = rdata.wait(pending)
            seen += rdata.get(ready)
        return sorted(seen)

    assert rdata.get([waits.remote() for _ in range(3)], timeout=60) == [list(range(20))] * 3


def test_a_task_waits_with_a_time_limit(num_cpus: int) -> None:
    @rdata.remote
    def waits() -> int:
        ref = identity.remote(3)
        while not rdata.wait([ref], timeout=0.05)[0]:
            pass
        return int(rdata.get(ref, timeout=30))

    assert rdata.get(waits.remote(), timeout=60) == 3


def test_a_task_consumes_a_generator(num_cpus: int) -> None:
    @rdata.remote
    def yields(n: int) -> Iterator[int]:
        yield from range(n)

    @rdata.remote
    def consumes(n: int) -> int:
        generator = yields.options(generator_backpressure_num_objects=2).remote(n)
        return sum(rdata.get(ref) for ref in generator)

    assert rdata.get([consumes.remote(30) for _ in range(3)], timeout=60) == [sum(range(30))] * 3


def test_a_generator_is_consumed_through_generators(num_cpus: int) -> None:
    @rdata.remote
    def numbers(n: int) -> Iterator[int]:
        yield from range(n)

    @rdata.remote
    def doubled(depth: int, n: int) -> Iterator[int]:
        inner = doubled.remote(depth - 1, n) if depth else numbers.remote(n)
        for ref in inner:
            yield 2 * rdata.get(ref)

    values = [rdata.get(ref, timeout=60) for ref in doubled.remote(3, 20)]
    assert values == [16 * index for index in range(20)]


def test_a_task_and_an_actor_wait_for_each_other(num_cpus: int) -> None:
    @rdata.remote
    class Actor:
        def ask(self, value: int) -> int:
            return int(rdata.get(identity.remote(value)))

    @rdata.remote
    def asks(actor: Any, value: int) -> int:
        return int(rdata.get(actor.ask.remote(value)))

    actor = Actor.remote()
    assert rdata.get([asks.remote(actor, i) for i in range(10)], timeout=60) == list(range(10))


def test_a_function_that_one_of_two_submitters_lets_go_of(num_cpus: int) -> None:
    @rdata.remote(num_cpus=0)
    class Caller:
        def __init__(self, function: Any) -> None:
            self.function = function

        def call(self, value: int) -> Any:
            return rdata.get(self.function.remote(value))

        def let_go(self) -> None:
            self.function = None

    callers = [Caller.remote(identity) for _ in range(4)]
    while callers:
        values = rdata.get([caller.call.remote(1) for caller in callers], timeout=60)
        assert values == [1] * len(callers)
        rdata.get(callers.pop().let_go.remote())
        time.sleep(0.1)  # the workers hear of it, which nothing shows


def test_tasks_of_other_shapes_below(num_cpus: int) -> None:
    half = identity.options(num_cpus=0.5)
    free = identity.options(num_cpus=0)

    @rdata.remote
    def mixed(value: int) -> int:
        return sum(rdata.get([half.remote(value), free.remote(value), identity.remote(value)]))

    assert rdata.get([mixed.remote(i) for i in range(8)], timeout=60) == [3 * i for i in range(8)]


def test_all_cpus_come_back(num_cpus: int) -> None:
    assert rdata.get(tree.remote(4, 2), timeout=60) == 16
    assert eventually(lambda: rdata.available_resources()["CPU"] == num_cpus)
