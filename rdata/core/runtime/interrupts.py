"""What if Ctrl-C comes while a table is half changed, or a frame half sent?

Python raises KeyboardInterrupt between any two bytecodes of the main thread. Here it waits until
that thread holds the runtime's lock no longer, under which all of that happens.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType


class Interrupts:
    """Stands in for Python's own SIGINT handler, where a program has not set one of its own."""

    def __init__(self, lock: threading.RLock, may_raise: Callable[[], bool]) -> None:
        self._lock = lock
        self._may_raise = may_raise
        self._is_pending = False

    def guard(self) -> None:
        """Be the handler from now on. Called again and again: notebooks set theirs a cell."""
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            signal.signal(signal.SIGINT, self._on_signal)

    def check(self) -> None:
        """Raise the KeyboardInterrupt that came while the lock was held."""
        if self._is_pending and threading.current_thread() is threading.main_thread():
            self._is_pending = False
            raise KeyboardInterrupt

    def restore(self) -> None:
        """Give the place back to Python's handler."""
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) == self._on_signal
        ):
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._may_raise():
            return
        if self._lock._is_owned():  # type: ignore[attr-defined]  # as threading.Condition asks
            self._is_pending = True
        else:
            raise KeyboardInterrupt
