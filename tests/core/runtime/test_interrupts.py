"""When does a signal count?"""

from __future__ import annotations

import importlib
import sys
import threading
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
def interrupts(loop: Loop) -> Iterator[Interrupts]:
    interrupts = Interrupts(threading.RLock(), cast(Any, loop), lambda: True)
    interrupts.guard()
    yield interrupts
    interrupts.restore()


def test_one_amid_an_import_comes_after_it(
    interrupts: Interrupts, loop: Loop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def send() -> None:
        interrupts.send(lambda: True, is_first=True)

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


def test_one_that_comes_under_the_lock_comes_after_it(interrupts: Interrupts, loop: Loop) -> None:
    with interrupts._lock:
        interrupts.send(lambda: True, is_first=True)
    assert interrupts.is_pending
    with pytest.raises(KeyboardInterrupt):
        loop.wake()
    interrupts.check()  # it has been raised


def test_one_for_what_has_ended_meanwhile_is_dropped(loop: Loop) -> None:
    running = [True]
    interrupts = Interrupts(threading.RLock(), cast(Any, loop), lambda: bool(running))
    interrupts.guard()
    with interrupts._lock:
        interrupts.send(lambda: bool(running), is_first=True)
    running.clear()
    interrupts.check()
    loop.wake()
    assert not loop.later
    interrupts.restore()


def test_one_that_a_finaliser_swallows_comes_again(
    interrupts: Interrupts, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finalised:
        def __del__(self) -> None:
            interrupts.send(lambda: True, is_first=True)

    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    interrupts.hear_of_lost()
    Finalised()
    with pytest.raises(KeyboardInterrupt):
        loop.wake()
