"""Do actors keep state, order, names and an end, alike on every runtime?"""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import rdata
from rdata.actor import ActorHandle
from rdata.exceptions import (
    ActorUnschedulableError,
    OptionError,
    SerializationError,
)
from tests.core.runtime.counter import Counter, is_gone
from tests.eventually import eventually

pytestmark = pytest.mark.usefixtures("runtime")


def test_state_is_kept() -> None:
    counter = Counter.remote(10)
    assert isinstance(counter, ActorHandle)
    assert rdata.get([counter.add.remote(), counter.add.remote(amount=5)]) == [11, 16]
    assert rdata.get(Counter.remote(start=1).read.remote()) == 1


def test_actors_are_separate() -> None:
    a, b = Counter.remote(), Counter.remote()
    rdata.get(a.add.remote())
    assert rdata.get([a.read.remote(), b.read.remote()]) == [1, 0]


def test_calls_run_in_order() -> None:
    counter = Counter.remote()
    assert rdata.get([counter.add.remote() for _ in range(200)]) == list(range(1, 201))


def test_calls_of_many_threads_run_one_at_a_time() -> None:
    counter = Counter.remote()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: rdata.get(counter.add.remote()), range(40)))
    assert sorted(results) == list(range(1, 41))


def test_every_kind_of_method() -> None:
    counter = Counter.remote(3)
    assert rdata.get(counter.both.remote()) == [3, -3]
    assert rdata.get(counter.fixed.remote(4)) == 8
    assert rdata.get(counter.name.remote()) == "Counter"
    assert rdata.get(counter.__call__.remote(1)) == 4
    assert rdata.get(counter.both.options(num_returns=1).remote()) == (3, -3)
    assert counter.read.options(num_returns=0).remote() is None


def test_keywords_may_have_any_name() -> None:
    @rdata.remote
    class Keeper:
        def __init__(self, /, **kwargs: int) -> None:
            self.kwargs = kwargs

        def both(self, /, **kwargs: int) -> list[dict[str, int]]:
            return [self.kwargs, kwargs]

    names = ["self", "function", "call", "target", "args", "kwargs", "method", "actor", "options"]
    kwargs = {name: index for index, name in enumerate(names)}
    assert rdata.get(Keeper.remote(**kwargs).both.remote(**kwargs)) == [kwargs, kwargs]


def test_inherited_methods() -> None:
    class Base:
        def hello(self) -> str:
            return f"hello from {type(self).__name__}"

    class Derived(Base):
        pass

    assert rdata.get(rdata.remote(Derived).remote().hello.remote()) == "hello from Derived"


def test_references_among_arguments() -> None:
    counter = Counter.remote(rdata.put(5))
    assert rdata.get(counter.add.remote(counter.add.remote(rdata.put(1)))) == 12


def test_results_are_copies() -> None:
    @rdata.remote
    class Holder:
        def __init__(self) -> None:
            self.items = [1]

        def get(self) -> list[int]:
            return self.items

    holder = Holder.remote()
    first = holder.get.remote()
    rdata.get(first).append(2)
    assert rdata.get(holder.get.remote()) == [1]


def test_large_arguments_and_results() -> None:
    @rdata.remote
    class Store:
        def keep(self, array: Any) -> None:
            self.array = array

        def total(self) -> Any:
            return self.array * 2

    store = Store.remote()
    store.keep.remote(np.ones(300_000))
    assert rdata.get(store.total.remote()).sum() == 600_000


# Handles ----------------------------------------------------------------------------------------


def test_a_handle_is_passed_to_tasks_and_actors() -> None:
    @rdata.remote
    def use(counter: ActorHandle, times: int) -> int:
        return max(rdata.get([counter.add.remote() for _ in range(times)]))

    @rdata.remote
    class User:
        def __init__(self, counters: list[ActorHandle]) -> None:
            self.counters = counters

        def use(self) -> int:
            return sum(rdata.get([counter.add.remote(10) for counter in self.counters]))

    counter = Counter.remote()
    assert rdata.get(use.remote(counter, 3)) == 3
    assert rdata.get(User.remote([counter, counter]).use.remote()) == 13 + 23


def test_a_handle_comes_back_from_a_task() -> None:
    @rdata.remote
    def make() -> ActorHandle:
        counter = Counter.remote(7)
        rdata.get(counter.add.remote())
        return counter

    assert rdata.get(rdata.get(make.remote()).read.remote()) == 8


def test_a_stored_handle_keeps_its_actor() -> None:
    ref = rdata.put({"counter": Counter.remote(4)})
    assert rdata.get(rdata.get(ref)["counter"].read.remote()) == 4


def test_handles_compare() -> None:
    counter = Counter.remote()
    same = rdata.get(rdata.put(counter))
    assert same == counter
    assert len({same, counter, Counter.remote()}) == 2


def test_an_unknown_method_names_those_there_are() -> None:
    counter = Counter.remote()
    with pytest.raises(AttributeError, match=r"did you mean 'read'.*add, both, fail"):
        counter.rea  # noqa: B018 - the attribute access is what is tested
    assert not hasattr(counter, "value")
    assert {"add", "read"} <= set(dir(counter))


def test_wrong_arguments_are_told_at_once() -> None:
    counter = Counter.remote()
    with pytest.raises(TypeError, match=r"Counter\.add"):
        counter.add.remote(1, 2)
    with pytest.raises(TypeError, match="Counter"):
        Counter.remote(1, 2)
    with pytest.raises(TypeError, match="amuont"):
        counter.add.remote(amuont=1)


def test_wrong_arguments_through_a_handle_that_travelled() -> None:
    with pytest.raises(TypeError):
        rdata.get(rdata.get(rdata.put(Counter.remote())).add.remote(1, 2))


def test_an_argument_that_cannot_travel_is_told_at_once() -> None:
    with pytest.raises(SerializationError):
        Counter.remote().add.remote(index for index in range(2))


# Errors -----------------------------------------------------------------------------------------


def test_an_exception_in_a_method_leaves_the_actor_alive() -> None:
    counter = Counter.remote(1)
    with pytest.raises(KeyError, match="in the actor"):
        rdata.get(counter.fail.remote())
    assert rdata.get(counter.add.remote()) == 2


def test_an_exception_in_the_constructor_is_raised_by_the_first_call() -> None:
    @rdata.remote
    class Broken:
        def __init__(self) -> None:
            raise ValueError("cannot be made")

        def call(self) -> int:
            return 1

    broken = Broken.remote()
    with pytest.raises(ValueError, match="cannot be made"):
        rdata.get(broken.call.remote())


def test_a_failed_argument_of_the_constructor_is_raised_by_the_first_call() -> None:
    def fail() -> None:
        raise OSError("no start")

    with pytest.raises(OSError, match="no start"):
        rdata.get(Counter.remote(rdata.remote(fail).remote()).read.remote())


def test_an_actor_that_no_node_can_hold() -> None:
    counter = Counter.options(resources={"widget": 3}).remote()
    with pytest.raises(ActorUnschedulableError, match="widget"):
        rdata.get(counter.read.remote(), timeout=20)


# Names ------------------------------------------------------------------------------------------


def test_a_named_actor_is_found() -> None:
    counter = Counter.options(name="found").remote(2)
    same = rdata.get_actor("found")
    assert same == counter
    assert rdata.get(same.add.remote()) == 3
    assert rdata.get(
        rdata.remote(lambda: rdata.get(rdata.get_actor("found").read.remote())).remote()
    )


def test_an_unknown_name_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="nobody"):
        rdata.get_actor("nobody")


def test_a_name_is_taken_once() -> None:
    first = Counter.options(name="once").remote(1)
    with pytest.raises(ValueError, match="once"):
        Counter.options(name="once").remote()
    assert Counter.options(name="once", get_if_exists=True).remote(5) == first
    other = Counter.options(name="once", namespace="elsewhere").remote(9)
    assert rdata.get(rdata.get_actor("once", namespace="elsewhere").read.remote()) == 9
    assert other != first


def test_get_if_exists_does_not_find_one_that_is_to_end() -> None:
    for _ in range(20):
        counter = Counter.options(name="short", get_if_exists=True).remote(5)
        assert rdata.get(counter.add.remote()) == 6
        del counter


def test_get_if_exists_creates_the_first() -> None:
    counter = Counter.options(name="maybe", get_if_exists=True).remote(5)
    assert rdata.get(counter.read.remote()) == 5
    with pytest.raises(OptionError, match="name"):
        Counter.options(get_if_exists=True)


def test_who_asks_for_one_name_at_once_gets_one_actor() -> None:
    at_once = threading.Barrier(4)

    def make(name: str) -> ActorHandle:
        at_once.wait()
        return Counter.options(name=name, get_if_exists=True).remote()

    with ThreadPoolExecutor(4) as threads:
        for number in range(20):
            handles = list(threads.map(make, [f"race {number}"] * 4))
            assert len(set(handles)) == 1
            assert sorted(rdata.get([each.add.remote() for each in handles])) == [1, 2, 3, 4]


def test_arguments_of_an_actor_that_was_not_made_are_let_go_of() -> None:
    first, argument = Counter.options(name="made").remote(1), Counter.options(name="arg").remote()
    with pytest.raises(ValueError, match="made"):
        Counter.options(name="made").remote(argument)
    same = Counter.options(name="made", get_if_exists=True).remote([argument])
    assert same == first
    del argument
    assert eventually(lambda: is_gone("arg"))


# Context ----------------------------------------------------------------------------------------


def test_the_context_of_an_actor() -> None:
    @rdata.remote
    class Where:
        def context(self) -> Any:
            return rdata.get_runtime_context()

    where = Where.options(name="where").remote()
    context = rdata.get(where.context.remote())
    assert context.actor_id is not None
    assert context.actor_name == "where"
    assert context.task_id is not None
    assert rdata.get(where.context.remote()).actor_id == context.actor_id


def test_what_calls_are_named() -> None:
    @rdata.remote
    class Named:
        def __init__(self) -> None:
            self.made_in = rdata.get_runtime_context().task_name

        def names(self) -> list[str | None]:
            return [self.made_in, rdata.get_runtime_context().task_name]

    named = Named.remote()
    assert rdata.get(named.names.remote()) == ["Named.__init__", "Named.names"]
    assert rdata.get(named.names.options(name="mine").remote())[1] == "mine"
    with pytest.raises(ValueError, match=r"Named\.names was submitted with num_returns=3"):
        rdata.get(named.names.options(num_returns=3).remote())


def test_an_actor_uses_tasks_and_actors_of_its_own() -> None:
    @rdata.remote
    class Boss:
        def __init__(self) -> None:
            self.counter = Counter.remote()

        def work(self, n: int) -> int:
            double = rdata.remote(lambda x: x * 2)
            for value in rdata.get([double.remote(index) for index in range(n)]):
                last = self.counter.add.remote(value)
            return rdata.get(last)

    assert rdata.get(Boss.remote().work.remote(4)) == 12


class Shelf(dict[str, int]):
    """Its methods are of kinds other than functions."""

    def scaled(self, by: int, x: int) -> int:
        return by * x + len(self)

    twice = functools.partialmethod(scaled, 2)
    kept = functools.lru_cache(scaled)
    power = functools.partial(pow, 2)
    largest = max

    def __hash__(self) -> int:  # type: ignore[override]  # lru_cache wants it
        return id(self)


def test_methods_that_are_no_functions() -> None:
    shelf = rdata.remote(Shelf).remote({"a": 5})
    assert rdata.get([shelf.get.remote("a"), shelf.get.remote("b", 6)]) == [5, 6]
    assert rdata.get([shelf.twice.remote(4), shelf.kept.remote(3, x=4)]) == [9, 13]
    assert rdata.get([shelf.power.remote(3), shelf.largest.remote(4, 7)]) == [8, 7]
    assert rdata.get(shelf.fromkeys.remote("xy", 1)) == {"x": 1, "y": 1}
    with pytest.raises(TypeError):
        rdata.get(shelf.get.remote("a", 1, 2))
