"""When does a signal count?"""

from __future__ import annotations

import importlib
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from rdata.core.runtime.interrupts import Interrupts


class Loop:
    """Keeps what is to be called later, for the test to call it."""

    def __init__(self) -> None:
        self.busy: set[int] = set()
        self.later: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        callback()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.later.append(callback)

    def wake(self) -> None:
        due, self.later = self.later, []
        for callback in due:
            callback()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def running() -> list[str]:
    """What the main thread does that may be interrupted, if anything."""
    return ["a task"]


@pytest.fixture
def interrupts(loop: Loop, running: list[str]) -> Iterator[Interrupts]:
    interrupts = Interrupts(threading.RLock(), cast(Any, loop), lambda: bool(running))
    interrupts.guard()
    yield interrupts
    interrupts.restore()


def test_one_comes_at_once(interrupts: Interrupts, loop: Loop) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupts.send(is_first=True)
    assert not loop.later


def test_one_amid_an_import_comes_after_it(
    interrupts: Interrupts, loop: Loop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def send() -> None:
        interrupts.send(is_first=True)
        interrupts.check()  # as the module may do, by calling rdata

    monkeypatch.setattr(sys, "interrupt_for_test", send, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "interrupted_import.py").write_text("import sys; sys.interrupt_for_test()")
    importlib.import_module("interrupted_import")
    with pytest.raises(KeyboardInterrupt):
        loop.wake()
    loop.wake()  # it has been raised: once is enough
    monkeypatch.setattr("rdata.core.runtime.interrupts._IMPORT_S", 0.0)
    del sys.modules["interrupted_import"]
    with pytest.raises(KeyboardInterrupt):
        importlib.import_module("interrupted_import")


@pytest.mark.parametrize("is_checked", [False, True])
def test_one_that_comes_under_the_lock_comes_after_it(
    interrupts: Interrupts, loop: Loop, is_checked: bool
) -> None:
    with interrupts._lock:
        interrupts.send(is_first=True)
    with pytest.raises(KeyboardInterrupt):
        (interrupts.check if is_checked else loop.wake)()
    loop.wake()
    interrupts.check()  # once is enough


def test_one_for_what_has_ended_meanwhile_is_dropped(
    interrupts: Interrupts, loop: Loop, running: list[str]
) -> None:
    with interrupts._lock:
        interrupts.send(is_first=True)
    running.clear()
    interrupts.check()
    running.append("the next task")
    loop.wake()
    interrupts.check()


class Finalised:
    def __init__(self, send: Callable[[], None]) -> None:
        self.send = send

    def __del__(self) -> None:
        self.send()


def finalise_object(send: Callable[[], None]) -> None:
    Finalised(send)


def finalise_by_callback(send: Callable[[], None]) -> None:
    weakref.finalize(Loop(), send)


def finalise_by_reference(send: Callable[[], None]) -> None:
    waited_for = Loop()
    reference = weakref.ref(waited_for, lambda _: send())
    del waited_for
    assert reference() is None


@pytest.mark.parametrize("finalise", [finalise_object, finalise_by_callback, finalise_by_reference])
def test_one_amid_a_finaliser_comes_after_it(
    interrupts: Interrupts,
    loop: Loop,
    monkeypatch: pytest.MonkeyPatch,
    finalise: Callable[[Callable[[], None]], None],
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    interrupts.hear_of_lost()
    finalise(lambda: interrupts.send(is_first=True))
    with pytest.raises(KeyboardInterrupt):
        loop.wake()
