"""Does the loop call what it was asked to, in order, from wherever it was asked?"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from rdata.core.wire.loop import Loop
from tests.core.wire.ends import on_loop, running_loop
from tests.eventually import eventually


@pytest.fixture
def loop() -> Iterator[Loop]:
    with running_loop() as loop:
        yield loop


def test_calls_run_in_order_on_the_loops_thread(loop: Loop) -> None:
    seen: list[tuple[int, bool]] = []
    for number in range(100):
        loop.call_soon(lambda number=number: seen.append((number, loop.is_current())))
    on_loop(loop, lambda: None)
    assert seen == [(number, True) for number in range(100)]
    assert not loop.is_current()


def test_a_sleeping_loop_wakes_for_calls_of_many_threads(loop: Loop) -> None:
    seen: list[int] = []

    def call() -> None:
        for _ in range(300):
            is_done = threading.Event()
            loop.call_soon(is_done.set)
            assert is_done.wait(20)
            loop.call_soon(lambda: seen.append(1))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    on_loop(loop, lambda: None)
    assert len(seen) == 1200


def test_a_call_that_asks_for_another_does_not_keep_timers_waiting(loop: Loop) -> None:
    is_due = threading.Event()

    def again() -> None:
        if not is_due.is_set():
            loop.call_soon(again)

    loop.call_soon(again)
    on_loop(loop, lambda: loop.call_later(0.001, is_due.set))
    assert is_due.wait(20)


def test_timers_are_called_in_the_order_of_their_times(loop: Loop) -> None:
    seen: list[str] = []
    is_over = threading.Event()

    def start() -> None:
        loop.call_later(0.03, is_over.set)
        loop.call_later(0.02, lambda: seen.append("second"))
        loop.call_later(0.01, lambda: seen.append("first"))
        loop.call_later(0.015, lambda: seen.append("never")).cancel()

    loop.call_soon(start)
    assert is_over.wait(20)
    assert seen == ["first", "second"]


def test_an_exception_is_printed_and_ends_nothing(
    loop: Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    loop.call_soon(lambda: 1 / 0)
    on_loop(loop, lambda: None)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_what_is_not_watched_is_not_called(loop: Loop) -> None:
    read_fd, write_fd = os.pipe()
    seen: list[bytes] = []
    is_read = threading.Event()

    def read() -> None:
        seen.append(os.read(read_fd, 10))
        is_read.set()

    on_loop(loop, lambda: loop.watch(read_fd, read))
    os.write(write_fd, b"heard")
    assert is_read.wait(20)
    on_loop(loop, lambda: loop.unwatch(read_fd))
    on_loop(loop, lambda: loop.unwatch(read_fd))  # twice does no harm
    os.write(write_fd, b"unheard")
    on_loop(loop, lambda: None)
    assert seen == [b"heard"]
    os.close(read_fd)
    os.close(write_fd)


def test_a_thread_that_waits_serves_what_it_waits_for(loop: Loop) -> None:
    """Again and again, as a program that calls and gets does; the answers come at once."""
    ours, theirs = socket.socketpair()
    gate = threading.Lock()
    served_by: set[int] = set()

    def answered() -> None:
        ours.recv(1)
        served_by.add(threading.get_ident())
        gate.release()

    def answer() -> None:
        while theirs.recv(1):
            theirs.send(b"a")

    thread = threading.Thread(target=answer)
    thread.start()
    on_loop(loop, lambda: loop.watch(ours.fileno(), answered))
    gate.acquire()
    for _ in range(1000):
        ours.send(b"q")
        assert loop.wait(gate, 20)
    assert threading.get_ident() in served_by
    assert not loop.wait(gate, 0.01)
    on_loop(loop, lambda: loop.unwatch(ours.fileno()))
    ours.close()
    thread.join()
    theirs.close()


def test_a_busy_thread_can_serve_what_has_come(loop: Loop) -> None:
    served_by: list[int] = []

    def serve_one() -> bool:
        served_by.clear()
        loop.serve()  # takes over from the loop's own thread, for a while
        loop.call_soon(lambda: served_by.append(threading.get_ident()))
        loop.serve()
        return served_by == [threading.get_ident()]

    assert eventually(serve_one)  # on a busy machine it may not let go in time
    assert eventually(lambda: all(serve_one() for _ in range(10)))
    assert not loop.is_current()
    on_loop(loop, lambda: None)  # by its own thread again, when nobody serves or waits
    assert on_loop(loop, lambda: loop.serve() or loop.is_current())  # from a finaliser, say


def test_calls_made_before_the_stop_are_carried_out() -> None:
    seen: list[int] = []
    with running_loop() as loop:
        for number in range(100):
            loop.call_soon(lambda number=number: seen.append(number))
    assert seen == list(range(100))
