"""What if Ctrl-C comes while a table is half changed, or a frame half sent?

Python raises KeyboardInterrupt between any two bytecodes of the main thread. Here it waits until
that thread neither holds the runtime's lock nor serves the loop: all of that happens there.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from rdata.core.wire.loop import Loop

_GUARD_EVERY_S = 0.05  # asking Python for the handler takes 2 µs
_IMPORT_MACHINERY = "<frozen importlib._bootstrap>"  # the file of its frames


class Interrupts:
    """Stands in for Python's own SIGINT handler, where a program has not set one of its own."""

    def __init__(self, lock: threading.RLock, loop: Loop, may_raise: Callable[[], bool]) -> None:
        """`may_raise`: whether a signal counts now."""
        self.is_pending = False  # one came while the lock was held: `check` is to follow
        self.is_due: Callable[[], bool] | None = None  # whether one must have come
        self.num_raised = 0
        self.spares_imports_until = 0.0  # until then, one that comes amid an import is dropped
        self._lock = lock
        self._loop = loop
        self._may_raise = may_raise
        self._guarded_at = 0.0

    def guard(self) -> None:
        """Be the handler from now on. Called again and again: notebooks set theirs a cell."""
        now = time.monotonic()
        if now - self._guarded_at < _GUARD_EVERY_S or threading.get_ident() != _main_thread():
            return
        self._guarded_at = now
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_signal)

    def check(self) -> None:
        """Raise the KeyboardInterrupt that came while the lock was held, or that got lost.

        Python drops one that is raised in a finaliser.
        """
        is_due = self.is_pending or (self.is_due is not None and self.is_due())
        if is_due and threading.get_ident() == _main_thread():
            self.is_pending = False
            self.num_raised += 1
            raise KeyboardInterrupt

    def is_locked(self) -> bool:
        """Whether the calling thread holds the runtime's lock: a table may be half changed."""
        return self._lock._is_owned()  # type: ignore[attr-defined, no-any-return]  # as Condition

    def restore(self) -> None:
        """Give the place back to Python's handler."""
        if (
            threading.get_ident() == _main_thread()
            and signal.getsignal(signal.SIGINT) == self._on_signal
        ):
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._may_raise():
            return
        if self.is_locked() or threading.get_ident() in self._loop.busy:
            self.is_pending = True
        elif time.monotonic() >= self.spares_imports_until or not _is_importing(frame):
            self.num_raised += 1
            raise KeyboardInterrupt


def _main_thread() -> int | None:
    return threading.main_thread().ident


def _is_importing(frame: FrameType | None) -> bool:
    """Whether an import is under way, which would leave a module that is loaded in part.

    Python takes it back, but neither its submodules nor what extensions have in C.
    """
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_MACHINERY:
            return True
        frame = frame.f_back
    return False
