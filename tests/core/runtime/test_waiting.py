"""Do `get` and `wait` keep their word while tasks run elsewhere?"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import rdata
from rdata.exceptions import (
    ActorDiedError,
    GetTimeoutError,
)
from tests.core.runtime.gate import Gate, pass_through

pytestmark = pytest.mark.usefixtures("cluster")


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
