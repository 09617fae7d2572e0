"""Does `cancel` end what it is told to, and nothing else?"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import rdata
from rdata.exceptions import (
    OwnerDiedError,
    TaskCancelledError,
)
from tests.core.runtime.gate import pass_through
from tests.eventually import eventually

pytestmark = pytest.mark.usefixtures("cluster")


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


@rdata.remote
def handle_signals(ready: Path, seconds: float) -> int:
    """How many come within so long."""
    received = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    ready.touch()
    time.sleep(seconds)
    signal.signal(signal.SIGINT, before)
    return len(received)


def test_a_task_with_a_handler_of_its_own_gets_one_signal(tmp_path: Path) -> None:
    ref = handle_signals.remote(tmp_path / "ready", 0.5)
    assert eventually((tmp_path / "ready").exists)
    rdata.cancel(ref)
    assert rdata.get(ref) == 1


@rdata.remote
def clean_up(ready: Path, found: Path) -> None:
    try:
        ready.touch()
        time.sleep(60)
    finally:
        found.write_text(str([rdata.get(rdata.put(number)) for number in range(3)]))


def test_what_is_cleaned_up_after_a_cancel_may_call_rdata(tmp_path: Path) -> None:
    ref = clean_up.remote(tmp_path / "ready", tmp_path / "found")
    assert eventually((tmp_path / "ready").exists)
    rdata.cancel(ref)
    with pytest.raises(TaskCancelledError):
        rdata.get(ref)
    assert (tmp_path / "found").read_text() == "[0, 1, 2]"


@rdata.remote(num_cpus=2)
def poll(ready: Path) -> None:
    """Be under the runtime's lock for most of the time, where no signal may come."""
    refs = [rdata.put(number) for number in range(2000)]
    ready.touch()
    for _ in range(100_000):
        rdata.wait(refs, num_returns=len(refs), timeout=0)


@rdata.remote(num_cpus=2)
def put_and_get() -> int:
    return int(rdata.get(rdata.put(7)))


def test_a_cancel_is_neither_lost_nor_for_the_next_task(tmp_path: Path) -> None:
    for index in range(5):
        ready = tmp_path / str(index)
        ref = poll.remote(ready)
        assert eventually(ready.exists)
        rdata.cancel(ref)
        with pytest.raises(TaskCancelledError):
            rdata.get(ref, timeout=30)
        assert rdata.get(put_and_get.remote()) == 7


@rdata.remote(num_cpus=0)
class Taker:
    def take(self, value: Any) -> Any:
        return value

    def wait(self, gate: Any) -> int:
        return int(rdata.get(pass_through.remote(gate)))

    def items(self) -> Iterator[int]:
        yield 1


def test_a_cancelled_call_that_waits_for_an_argument_holds_up_no_other(gate: Any) -> None:
    taker = Taker.remote()
    waiting = taker.take.remote(pass_through.remote(gate))
    rdata.cancel(waiting)
    assert rdata.get(taker.take.remote(7), timeout=20) == 7
    with pytest.raises(TaskCancelledError):
        rdata.get(waiting)


def test_a_call_that_is_queued_at_its_actor_is_cancelled_at_once(gate: Any) -> None:
    taker = Taker.remote()
    first = taker.wait.remote(gate)
    queued, items = taker.wait.remote(gate), taker.items.remote()
    assert rdata.wait([queued], timeout=0.2) == ([], [queued])  # let them come there
    rdata.cancel(queued)
    rdata.cancel(items)
    for each in (queued, next(items)):
        with pytest.raises(TaskCancelledError):
            rdata.get(each, timeout=20)
    assert rdata.wait([first], timeout=0) == ([], [first])
    gate.open.remote()
    assert rdata.get(first, timeout=20) == 0
