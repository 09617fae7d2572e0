"""Which of the program's callbacks are to come, and which thread runs them?"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

Callback = Callable[[], None]


class Callbacks:
    """Callbacks of `on_ready`. Wants the runtime's lock."""

    def __init__(self) -> None:
        self._awaited: list[Callback] = []
        self._thread: ThreadPoolExecutor | None = None

    def add(self, callback: Callback) -> None:
        """It is to come."""
        self._awaited.append(callback)

    def run(self, callback: Callback) -> bool:
        """Its time has come; False if that was known."""
        if callback not in self._awaited:
            return False
        self._awaited.remove(callback)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="rdata-callbacks")
        try:
            self._thread.submit(callback)
        except RuntimeError:  # the thread has ended, with the runtime or with the interpreter
            with suppress(Exception):  # as there
                callback()
        return True

    def run_all(self) -> None:
        """Nothing will be ready any more: the `get` of each raises."""
        for callback in self._awaited[:]:
            self.run(callback)

    def end(self) -> None:
        """Let the thread end when it has run what it has."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)
