"""Do `get`, `wait` and `cancel` keep their word while tasks run elsewhere?"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import rdata
from rdata.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    OwnerDiedError,
    TaskCancelledError,
)
from tests.eventually import eventually

pytestmark = pytest.mark.usefixtures("cluster")


@rdata.remote(num_cpus=0)
class Gate:
    """What a test's tasks ask until it lets them through."""

    def __init__(self) -> None:
        self.is_open = False

    def open(self) -> None:
        self.is_open = True

    def has_opened(self) -> bool:
        return self.is_open


@rdata.remote
def pass_through(gate: Any, value: int = 0) -> int:
    while not rdata.get(gate.has_opened.remote()):
        time.sleep(0.01)
    return value


@pytest.fixture
def gate() -> Iterator[Any]:
    gate = Gate.remote()
    yield gate
    gate.open.remote()


def test_get_gives_up_after_its_timeout(gate: Any) -> None:
    ref = pass_through.remote(gate, 5)
    for timeout in (0, 0.05):
        with pytest.raises(GetTimeoutError) as raised:
            rdata.get(ref, timeout=timeout)
        assert isinstance(raised.value, TimeoutError)
    rdata.get(gate.open.remote())
    assert rdata.get(ref, timeout=20) == 5


def test_get_of_several_gives_up_after_its_timeout(gate: Any) -> None:
    with pytest.raises(GetTimeoutError):
        rdata.get([rdata.put(1), pass_through.remote(gate)], timeout=0.05)


def test_get_of_several_raises_with_the_first_that_fails(gate: Any) -> None:
    @rdata.remote
    def fail(error: Exception, after: Any) -> None:
        raise error

    slow = pass_through.remote(gate)
    failed, missing = fail.remote(ValueError("at once"), None), fail.remote(KeyError("no"), None)
    rdata.wait([failed, missing], num_returns=2, timeout=20)
    with pytest.raises(ValueError, match="at once"):
        rdata.get([slow, failed, missing], timeout=20)
    with pytest.raises(ValueError, match="at once"):
        rdata.get([slow, failed], timeout=0)
    with ThreadPoolExecutor(1) as pool:
        inner = Gate.remote()
        late = fail.remote(KeyError("late"), pass_through.remote(inner))
        got = pool.submit(rdata.get, [slow, late, slow], timeout=20)
        rdata.get(inner.open.remote())
        with pytest.raises(KeyError):
            got.result(timeout=20)
    gate.open.remote()
    assert rdata.get([slow, slow], timeout=20) == [0, 0]


def test_wait_gives_up_after_its_timeout(gate: Any) -> None:
    slow, done = pass_through.remote(gate), rdata.put(1)
    assert rdata.wait([slow, done], num_returns=2, timeout=0.05) == ([done], [slow])
    assert rdata.wait([slow], timeout=0) == ([], [slow])
    rdata.get(gate.open.remote())
    assert rdata.wait([slow, done], num_returns=2, timeout=20) == ([slow, done], [])


def test_wait_returns_with_the_first_that_is_ready(gate: Any) -> None:
    slow, quick = pass_through.remote(gate), rdata.remote(lambda: 1).remote()
    assert rdata.wait([slow, quick], timeout=20) == ([quick], [slow])


@pytest.mark.parametrize("gap_s", [0.001, 0.003, 0.006])
def test_a_result_does_not_wait_for_a_call_sent_while_it_was_made(
    gap_s: float, tmp_path: Path
) -> None:
    @rdata.remote
    class Sleeper:
        def sleep(self, until: Path | None) -> None:
            time.sleep(0.015)
            while until is not None and not until.exists():  # no `get`, which would tell
                time.sleep(0.01)

    sleeper = Sleeper.remote()
    rdata.get(sleeper.sleep.remote(None))
    time.sleep(0.3)  # until no timer runs there any more
    first = sleeper.sleep.remote(None)
    time.sleep(gap_s)
    second = sleeper.sleep.remote(tmp_path / "go")
    try:
        assert rdata.wait([first], timeout=10) == ([first], [])
    finally:
        (tmp_path / "go").touch()
    rdata.get(second)


def test_wait_for_a_generator_whose_item_is_not_made(gate: Any) -> None:
    @rdata.remote
    def items(gate: Any) -> Iterator[int]:
        yield 1
        yield rdata.get(pass_through.remote(gate, 2))

    generator = items.remote(gate)
    assert rdata.get(next(generator)) == 1
    assert rdata.wait([generator], timeout=0.05) == ([], [generator])
    gate.open.remote()
    assert rdata.wait([generator], timeout=20) == ([generator], [])
    assert rdata.get(next(generator)) == 2


def test_items_arrive_while_their_task_runs(gate: Any) -> None:
    @rdata.remote
    def items(gate: Any) -> Iterator[int]:
        yield 1
        while not rdata.get(gate.has_opened.remote()):
            time.sleep(0.01)
        yield 2

    generator = items.remote(gate)
    assert rdata.get(next(generator), timeout=20) == 1
    gate.open.remote()
    assert [rdata.get(ref) for ref in generator] == [2]


def test_a_thread_waits_while_another_works(gate: Any) -> None:
    ref = pass_through.remote(gate, 3)
    with ThreadPoolExecutor(3) as pool:
        values = [pool.submit(rdata.get, ref) for _ in range(3)]
        rdata.get(gate.open.remote())
        assert [value.result(timeout=20) for value in values] == [3, 3, 3]


def test_awaiting_does_not_block_the_loop(gate: Any) -> None:
    async def main() -> int:
        value = asyncio.ensure_future(_awaited(pass_through.remote(gate, 4)))
        await asyncio.sleep(0)
        assert not value.done()
        await gate.open.remote()
        return await value

    assert asyncio.run(main()) == 4


async def _awaited(ref: Any) -> int:
    return int(await ref)


def test_callbacks_of_futures_wait_for_other_futures(gate: Any) -> None:
    seen: SimpleQueue[int] = SimpleQueue()

    def add_one(future: Future[int]) -> None:
        seen.put(pass_through.remote(gate, future.result() + 1).future().result(timeout=20))

    for value in range(3):
        pass_through.remote(gate, value).future().add_done_callback(add_one)
    gate.open.remote()
    assert sorted(seen.get(timeout=20) for _ in range(3)) == [1, 2, 3]


def test_a_slow_callback_of_a_future_delays_no_other(gate: Any) -> None:
    slow = pass_through.remote(gate, 1).future()
    has_begun, may_end = threading.Event(), threading.Event()
    seen: SimpleQueue[int] = SimpleQueue()

    def linger(future: Future[int]) -> None:
        has_begun.set()
        may_end.wait(20)
        seen.put(future.result())

    slow.add_done_callback(linger)
    slow.add_done_callback(lambda future: seen.put(future.result() + 1))
    try:
        rdata.get(gate.open.remote())
        assert has_begun.wait(20)
        ref = pass_through.remote(gate, 5)
        assert ref.future().result(timeout=20) == 5
        assert asyncio.run(_awaited(ref)) == 5
        assert seen.empty()
    finally:
        may_end.set()
    assert [seen.get(timeout=20) for _ in range(2)] == [1, 2]


def test_a_future_that_was_cancelled_is_done(gate: Any) -> None:
    ref = pass_through.remote(gate, 1)
    cancelled, other = ref.future(), ref.future()
    assert cancelled.cancel()
    rdata.get(gate.open.remote())
    assert wait([cancelled, other], timeout=20).not_done == set()
    assert other.result() == 1


def test_a_task_that_runs_is_cancelled(gate: Any) -> None:
    ref = pass_through.remote(gate)
    rdata.wait([ref], timeout=0.2)  # let it start
    rdata.cancel(ref)
    with pytest.raises(TaskCancelledError):
        rdata.get(ref, timeout=20)


class Arriving:
    """An argument that takes until the call is interrupted to be read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return await_interrupt, (self.path,)


def await_interrupt(path: Path) -> None:
    has_come = threading.Event()
    handler = signal.signal(signal.SIGINT, lambda *_: has_come.set())
    path.touch()
    has_come.wait(20)
    signal.signal(signal.SIGINT, handler)


@rdata.remote
class Reader:
    def read(self, value: Any) -> None: ...


@pytest.mark.parametrize("is_method", [False, True])
def test_a_task_that_still_gets_its_arguments_is_cancelled(is_method: bool, tmp_path: Path) -> None:
    reader = Reader.remote()
    call = reader.read.remote if is_method else rdata.remote(lambda value: None).remote
    ref = call(Arriving(tmp_path / "begun"))
    assert eventually((tmp_path / "begun").exists)
    rdata.cancel(ref)
    with pytest.raises(TaskCancelledError):
        rdata.get(ref, timeout=30)


def test_a_task_that_has_not_started_is_cancelled(gate: Any) -> None:
    running = [pass_through.remote(gate) for _ in range(8)]
    queued = pass_through.remote(gate)
    rdata.cancel(queued)
    with pytest.raises(TaskCancelledError):
        rdata.get(queued, timeout=20)
    gate.open.remote()
    assert rdata.get(running, timeout=20) == [0] * 8


def test_a_task_that_hangs_is_cancelled_by_force() -> None:
    @rdata.remote
    def hang() -> None:
        while True:
            try:
                time.sleep(100)
            except KeyboardInterrupt:
                continue

    ref = hang.remote()
    rdata.wait([ref], timeout=0.2)
    rdata.cancel(ref, force=True)
    with pytest.raises(TaskCancelledError):
        rdata.get(ref, timeout=20)


@rdata.remote(num_cpus=0)
def cancel(refs: list[Any], force: bool) -> None:
    rdata.cancel(refs[0], force=force)


@pytest.mark.parametrize("force", [False, True])
def test_whoever_was_given_a_reference_cancels_its_task(gate: Any, force: bool) -> None:
    running = pass_through.remote(gate)
    rdata.wait([running], timeout=0.2)
    queued = pass_through.remote(running)
    rdata.get([cancel.remote([ref], force) for ref in (running, queued)])
    for ref in (running, queued):
        with pytest.raises(TaskCancelledError):
            rdata.get(ref, timeout=20)


def test_the_driver_cancels_what_a_task_has_submitted(gate: Any) -> None:
    submit = rdata.remote(lambda gate: [pass_through.remote(gate), gate.has_opened.remote()])
    ref, done = rdata.get(submit.remote(gate))
    assert rdata.get(done) is False
    for known in (ref, done):
        rdata.cancel(known)
    with pytest.raises(TaskCancelledError):
        rdata.get(ref, timeout=20)
    assert rdata.get(done) is False


def test_an_actor_cancels_a_call_of_another_actor(gate: Any) -> None:
    @rdata.remote
    class Canceller:
        def cancel(self, refs: list[Any]) -> None:
            rdata.cancel(refs[0])

    @rdata.remote
    class Waiter:
        def wait(self, gate: Any) -> int:
            return int(rdata.get(pass_through.remote(gate)))

    ref = Waiter.remote().wait.remote(gate)
    rdata.wait([ref], timeout=0.2)
    rdata.get(Canceller.remote().cancel.remote([ref]))
    with pytest.raises(TaskCancelledError):
        rdata.get(ref, timeout=20)


@rdata.remote
class Chain:
    """Each of so many tasks, or actor's calls, submits the next and waits for it."""

    def call(self, refs: Any, depth: int, gate: Any) -> int:
        return _go_deeper(refs, depth, gate, False)


def _go_deeper(refs: Any, depth: int, gate: Any, by_actors: bool) -> int:
    if depth == 0:
        ref = pass_through.remote(gate)
    elif by_actors:
        ref = Chain.options(num_cpus=0).remote().call.remote(refs, depth - 1, gate)
    else:
        ref = go_deeper.remote(refs, depth - 1, gate)
    rdata.get(refs.add.remote([ref]))
    return int(rdata.get(ref))


@rdata.remote
def go_deeper(refs: Any, depth: int, gate: Any, by_actors: bool = False) -> int:
    return _go_deeper(refs, depth, gate, by_actors)


@rdata.remote
class Refs:
    """What a test's tasks have submitted."""

    def __init__(self) -> None:
        self.known: list[Any] = []

    def add(self, refs: list[Any]) -> None:
        self.known += refs

    def all(self) -> list[Any]:
        return self.known


def _submitted(refs: Any, count: int) -> list[Any]:
    while len(known := rdata.get(refs.all.remote())) < count:
        time.sleep(0.01)
    return list(known)


@pytest.mark.parametrize("by_actors", [False, True], ids=["tasks", "calls"])
@pytest.mark.parametrize("cancel", [rdata.cancel, partial(rdata.cancel, recursive=True)])
def test_what_a_cancelled_task_has_submitted_is_cancelled(
    gate: Any, cancel: Any, by_actors: bool
) -> None:
    refs = Refs.remote()
    outer = go_deeper.remote(refs, 2, gate, by_actors)
    inner = _submitted(refs, 3)
    cancel(outer)
    for ref in (outer, *inner):
        with pytest.raises(TaskCancelledError):
            rdata.get(ref, timeout=20)
    assert eventually(lambda: rdata.available_resources()["CPU"] == 2)


def test_what_a_cancelled_task_has_submitted_goes_on_if_that_is_wanted(gate: Any) -> None:
    refs = Refs.remote()
    outer = go_deeper.remote(refs, 1, gate)
    inner = _submitted(refs, 2)
    rdata.cancel(outer, recursive=False)
    with pytest.raises(TaskCancelledError):
        rdata.get(outer, timeout=20)
    gate.open.remote()
    assert rdata.get(inner, timeout=20) == [0, 0]


def test_of_an_actor_only_what_the_cancelled_call_has_submitted_is_cancelled(gate: Any) -> None:
    @rdata.remote
    class Submitter:
        def submit(self, gate: Any) -> list[Any]:
            self.thread = ThreadPoolExecutor(1)
            self.thread.submit(rdata.get, gate.has_opened.remote())
            return [pass_through.remote(gate, 1)]

        def submit_and_wait(self, refs: Any, gate: Any) -> None:
            others = self.thread.submit(pass_through.remote, gate, 2).result()
            rdata.get(refs.add.remote([pass_through.remote(gate, 3), others]))
            rdata.get(pass_through.remote(gate))

    refs, submitter = Refs.remote(), Submitter.remote()
    (earlier,) = rdata.get(submitter.submit.remote(gate))
    call = submitter.submit_and_wait.remote(refs, gate)
    own, others = _submitted(refs, 2)
    rdata.cancel(call)
    for ref in (call, own):
        with pytest.raises(TaskCancelledError):
            rdata.get(ref, timeout=20)
    gate.open.remote()
    assert rdata.get([earlier, others], timeout=20) == [1, 2]


def test_a_task_that_submits_on_and_on_leaves_nothing_when_it_is_cancelled(gate: Any) -> None:
    @rdata.remote(num_cpus=0)
    def submit_on(refs: Any, gate: Any) -> None:
        rdata.get(refs.add.remote([pass_through.remote(gate)]))
        submitted = []
        while True:
            submitted.append(pass_through.remote(gate))

    for _ in range(10):
        refs = Refs.remote()
        outer = submit_on.remote(refs, gate)
        _submitted(refs, 1)
        rdata.cancel(outer)
        with pytest.raises(TaskCancelledError):
            rdata.get(outer, timeout=20)
    assert eventually(lambda: rdata.available_resources()["CPU"] == 2)


@pytest.mark.parametrize("recursive", [False, True])
def test_what_a_task_that_is_ended_has_submitted_is_ended(gate: Any, recursive: bool) -> None:
    refs = Refs.remote()
    outer = go_deeper.remote(refs, 1, gate)
    inner = _submitted(refs, 2)
    rdata.cancel(outer, force=True, recursive=recursive)
    with pytest.raises(TaskCancelledError):
        rdata.get(outer, timeout=20)
    for ref in inner:
        with pytest.raises(OwnerDiedError):
            rdata.get(ref, timeout=20)
    assert eventually(lambda: rdata.available_resources()["CPU"] == 2)


def test_cancelling_what_has_finished_changes_nothing() -> None:
    ref = rdata.remote(lambda: 1).remote()
    assert rdata.get(ref) == 1
    rdata.cancel(ref)
    assert rdata.get(ref) == 1


def test_a_call_that_runs_fails_when_its_actor_is_killed(gate: Any) -> None:
    @rdata.remote
    class Waiter:
        def wait(self, gate: Any) -> int:
            return int(rdata.get(pass_through.remote(gate)))

    waiter = Waiter.remote()
    refs = [waiter.wait.remote(gate) for _ in range(2)]
    rdata.wait(refs, timeout=0.2)
    rdata.kill(waiter)
    for ref in refs:
        with pytest.raises(ActorDiedError):
            rdata.get(ref, timeout=20)
