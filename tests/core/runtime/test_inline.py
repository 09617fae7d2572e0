"""Does the inline runtime run tasks where they are called, and let go of what nobody holds?"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import rdata
from rdata.core.object_ref import ObjectRef
from rdata.core.runtime import current
from rdata.core.runtime.inline import InlineRuntime
from rdata.core.specs import Function, TaskOptions
from rdata.exceptions import (
    ActorDiedError,
    NotInitializedError,
    ObjectLostError,
    TaskCancelledError,
    WorkerCrashedError,
)


@pytest.fixture
def inline() -> Iterator[InlineRuntime]:
    with rdata.init(local_mode=True, num_cpus=2):
        runtime = current()
        assert isinstance(runtime, InlineRuntime)
        yield runtime


def held(runtime: InlineRuntime) -> tuple[int, int, int, int]:
    """How many objects, actors, streams and references the runtime knows."""
    gc.collect()
    runtime.cluster_resources()  # any call drains what finalisers have asked for
    return (
        len(runtime._objects),
        len(runtime._actors),
        len(runtime._streams),
        sum(runtime._num_refs.values()),
    )


def test_a_task_runs_in_the_calling_thread_before_remote_returns(inline: InlineRuntime) -> None:
    ran_in = []
    ref = rdata.remote(lambda: ran_in.append((os.getpid(), threading.get_ident()))).remote()
    assert ran_in == [(os.getpid(), threading.get_ident())]
    assert rdata.get(ref) is None


def test_a_generator_runs_only_as_far_as_it_is_asked(inline: InlineRuntime) -> None:
    made = []

    @rdata.remote
    def count() -> Iterator[int]:
        for index in range(3):
            made.append(index)
            yield index

    generator = count.remote()
    assert made == []
    next(generator)
    assert made == [0]
    list(generator)
    assert made == [0, 1, 2]


def test_values_are_freed_with_their_last_reference(inline: InlineRuntime) -> None:
    refs = [rdata.put(np.zeros(1000)) for _ in range(3)]
    assert held(inline) == (3, 0, 0, 3)
    inner = rdata.put([refs.pop()])
    assert held(inline) == (4, 0, 0, 4)
    del refs
    assert held(inline) == (2, 0, 0, 2)
    (ref,) = rdata.get(inner)
    del inner
    assert held(inline) == (1, 0, 0, 1)
    del ref
    assert held(inline) == (0, 0, 0, 0)


def test_everything_is_freed_in_the_end(inline: InlineRuntime) -> None:
    @rdata.remote
    class Keeper:
        def keep(self, refs: list[ObjectRef]) -> None:
            self.refs = refs

        def items(self) -> Iterator[int]:
            yield 1
            yield 2

    def use() -> None:
        keeper = Keeper.remote()
        keeper.keep.remote([rdata.put(1), rdata.put(keeper)])
        next(keeper.items.remote())
        rdata.remote(lambda refs: refs).remote([rdata.put(2)])
        with pytest.raises(ZeroDivisionError):
            rdata.get(rdata.remote(lambda ref: 1 / 0).remote([rdata.put(3)]))
        rdata.kill(keeper)

    use()
    assert held(inline) == (0, 0, 0, 0)
    assert rdata.available_resources() == {"CPU": 2}


def test_an_error_does_not_keep_the_local_variables_of_its_frames(inline: InlineRuntime) -> None:
    class Big:
        pass

    alive: list[Any] = []

    def fail() -> None:
        big = Big()
        alive.append(weakref.ref(big))
        try:
            raise KeyError(1)
        except KeyError as error:
            raise ValueError(2) from error

    ref = rdata.remote(fail).remote()
    gc.collect()
    assert alive[0]() is None
    with pytest.raises(ValueError, match="2"):
        rdata.get(ref)


def test_a_reference_in_an_error_lives_as_long_as_the_error(inline: InlineRuntime) -> None:
    def fail() -> None:
        raise KeyError(rdata.put(5))

    ref = rdata.remote(fail).remote()
    with pytest.raises(KeyError) as raised:
        rdata.get(ref)
    assert rdata.get(raised.value.args[0]) == 5


def test_an_actors_instance_goes_with_its_last_handle(inline: InlineRuntime) -> None:
    ended = []

    class Finalised:
        def __del__(self) -> None:
            ended.append(1)

    handle = rdata.remote(Finalised).remote()
    assert held(inline)[1] == 1
    del handle
    assert held(inline)[1] == 0
    assert ended == [1]


def test_arrow_tables_are_copied_once(inline: InlineRuntime) -> None:
    ref = rdata.put(pa.table({"a": [1, 2]}))
    first = rdata.get(ref)
    assert rdata.get(rdata.remote(lambda table: table is first).remote(ref))


def test_task_exit_is_a_crash(inline: InlineRuntime) -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(WorkerCrashedError, match=r"sys\.exit\(3\)"):
        rdata.get(rdata.remote(leave).remote())


def test_an_interrupt_reaches_the_program(inline: InlineRuntime) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    @rdata.remote
    class Interrupted:
        def __init__(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rdata.remote(interrupt).remote()
    with pytest.raises(KeyboardInterrupt):
        Interrupted.remote()
    assert rdata.available_resources() == {"CPU": 2}


def test_a_task_holds_its_cpu_while_it_runs(inline: InlineRuntime) -> None:
    assert rdata.get(rdata.remote(rdata.available_resources).remote()) == {"CPU": 1}
    assert rdata.get(rdata.remote(rdata.available_resources).options(num_cpus=2).remote()) == {
        "CPU": 0
    }


def test_a_generator_that_raises_when_it_is_stopped_is_logged(
    inline: InlineRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    @rdata.remote
    def stubborn() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            raise OSError("at the end")

    generator = stubborn.remote()
    next(generator)
    del generator
    with caplog.at_level(logging.ERROR):
        rdata.put(1)
    assert "stubborn" in caplog.text
    assert "at the end" in caplog.text


def test_a_generator_may_cancel_itself(inline: InlineRuntime) -> None:
    known: list[Any] = []

    @rdata.remote
    def suicidal() -> Iterator[int]:
        yield 1
        rdata.cancel(known[0])
        yield 2

    known.append(suicidal.remote())
    first, last = known[0]
    assert rdata.get(first) == 1
    with pytest.raises(TaskCancelledError, match="suicidal"):
        rdata.get(last)


def test_an_actor_may_kill_itself(inline: InlineRuntime) -> None:
    @rdata.remote
    class Mortal:
        def end(self, me: Any) -> int:
            rdata.kill(me)
            return 1

        def items(self, me: Any) -> Iterator[int]:
            yield 1
            rdata.kill(me)
            yield 2

    mortal = Mortal.remote()
    with pytest.raises(ActorDiedError, match="kill"):
        rdata.get(mortal.end.remote(mortal))
    mortal = Mortal.remote()
    first, last = mortal.items.remote(mortal)
    assert rdata.get(first) == 1
    with pytest.raises(ActorDiedError, match="kill"):
        rdata.get(last)


def test_a_generator_of_a_killed_actor_ends_with_the_error(inline: InlineRuntime) -> None:
    @rdata.remote
    class Endless:
        def items(self) -> Iterator[int]:
            while True:
                yield 1

    endless = Endless.remote()
    generator = endless.items.remote()
    next(generator)
    rdata.kill(endless)
    with pytest.raises(ActorDiedError):
        rdata.get(list(generator)[-1])


# Several threads --------------------------------------------------------------------------------

begun, may_go_on = threading.Event(), threading.Event()


class Slow:
    """Waits in its constructor, or in a call, for the test to let it go on."""

    def __init__(self, is_slow: bool) -> None:
        if is_slow:
            self.hold()
        self.value = 7

    def hold(self) -> None:
        begun.set()
        assert may_go_on.wait(20)

    def read(self) -> int:
        return self.value

    def fail_after(self) -> None:
        self.hold()
        raise KeyError("from a call that was killed")

    def upto(self, n: int) -> Iterator[int]:
        for index in range(n):
            self.hold()
            yield index


@pytest.fixture
def other_thread() -> Iterator[ThreadPoolExecutor]:
    begun.clear()
    may_go_on.clear()
    with ThreadPoolExecutor(2) as pool:
        try:
            yield pool
        finally:
            may_go_on.set()


def test_an_actor_found_by_its_name_is_called_after_its_constructor(
    inline: InlineRuntime, other_thread: ThreadPoolExecutor
) -> None:
    named = rdata.remote(Slow).options(name="slow", get_if_exists=True)
    creating = other_thread.submit(lambda: named.remote(True))
    assert begun.wait(20)
    handle = named.remote(False)
    calling = other_thread.submit(lambda: rdata.get(handle.read.remote()))
    may_go_on.set()
    assert calling.result(20) == 7
    assert creating.result(20) == handle


def test_a_call_that_was_killed_says_so_whatever_becomes_of_it(
    inline: InlineRuntime, other_thread: ThreadPoolExecutor
) -> None:
    handle = rdata.remote(Slow).remote(False)
    calling = other_thread.submit(lambda: rdata.get(handle.fail_after.remote()))
    assert begun.wait(20)
    rdata.kill(handle)
    may_go_on.set()
    with pytest.raises(ActorDiedError, match="kill"):
        calling.result(20)


def test_a_generator_that_another_thread_runs_is_cancelled(
    inline: InlineRuntime, other_thread: ThreadPoolExecutor
) -> None:
    handle = rdata.remote(Slow).remote(False)
    generator = handle.upto.remote(3)
    collecting = other_thread.submit(list, generator)
    assert begun.wait(20)
    rdata.cancel(generator)
    may_go_on.set()
    (last,) = collecting.result(20)
    with pytest.raises(TaskCancelledError):
        rdata.get(last)
    del handle, generator, collecting, last
    assert held(inline) == (0, 0, 0, 0)


class Notes(deque[bytes]):
    """Lets another thread run between a look and what follows from it."""

    def __bool__(self) -> bool:
        has_notes = len(self) > 0
        time.sleep(0)
        return has_notes


def test_many_threads_drop_what_they_have(inline: InlineRuntime) -> None:
    inline.released, inline.dropped_streams = Notes(), Notes()

    @rdata.remote
    def count() -> Iterator[int]:
        yield from range(20)

    def work(thread: int) -> None:
        for _ in range(20):
            refs = [rdata.put(index) for index in range(10)]
            generator = count.remote()
            assert rdata.get(next(generator)) == 0
            assert rdata.get(refs) == list(range(10))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert held(inline) == (0, 0, 0, 0)


# The end ----------------------------------------------------------------------------------------


def test_a_runtime_that_ended_says_so() -> None:
    runtime = InlineRuntime(1, {}, None)
    ref = runtime.put(1)
    runtime.shutdown()
    runtime.shutdown()
    with pytest.raises(NotInitializedError, match=r"rdata\.init"):
        runtime.get([ref], None)


def test_a_reference_of_another_runtime_is_refused() -> None:
    mine, other = InlineRuntime(1, {}, None), InlineRuntime(1, {}, None)
    ref = other.put(1)
    with pytest.raises(ObjectLostError, match=r"rdata\.shutdown"):
        mine.get([ref], None)
    with pytest.raises(ObjectLostError, match=r"rdata\.shutdown"):
        mine.submit(Function(lambda x: x), (ref,), {}, TaskOptions())
    mine.shutdown()
    other.shutdown()
