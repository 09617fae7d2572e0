"""Which of the program's callbacks are to come, and which thread runs them?"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue

Callback = Callable[[], None]
_Queue = SimpleQueue[Callback | None]  # None: the end


class Callbacks:
    """Callbacks of `on_ready`, which may take their time and block. Wants the runtime's lock.

    They run one after the other on a thread of their own, which begins with the first. An executor
    would refuse them from when the program ends, before its `atexit` callbacks run.
    """

    def __init__(self) -> None:
        self._awaited: list[Callback] = []
        self._queue: _Queue | None = None

    def add(self, callback: Callback) -> None:
        """It is to come."""
        self._awaited.append(callback)

    def run(self, callback: Callback) -> bool:
        """Its time has come; False if that was known. Does not block."""
        if callback not in self._awaited:
            return False
        self._awaited.remove(callback)
        if self._queue is None:
            self._queue = SimpleQueue()
            threading.Thread(
                target=_run, args=(self._queue,), name="rdata-callbacks", daemon=True
            ).start()
        self._queue.put(callback)
        return True

    def run_all(self) -> None:
        """Nothing will be ready any more: the `get` of each raises."""
        for callback in self._awaited[:]:
            self.run(callback)

    def end(self) -> None:
        """Let the thread end when it has run what it has."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.put(None)


def _run(queue: _Queue) -> None:
    while (callback := queue.get()) is not None:
        with contextlib.suppress(Exception):  # an event loop that is closed, for instance
            callback()
        del callback  # it holds its reference
