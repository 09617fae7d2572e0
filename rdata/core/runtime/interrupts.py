"""What if Ctrl-C comes while a table is half changed, or a frame half sent?

Python raises KeyboardInterrupt between any two bytecodes of the main thread. Here it waits until
that thread neither holds the runtime's lock nor serves the loop: all of that happens there.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import cast

from rdata.core.wire.loop import Loop

_GUARD_EVERY_S = 0.05  # asking Python for the handler takes 2 µs
_IMPORT_MACHINERY = "<frozen importlib._bootstrap>"  # the file of its frames
_IMPORT_S = 10.0  # shorter: more are torn; longer: one that hangs cannot be cancelled
_LOOK_EVERY_S = 0.02  # shorter: the loop wakes in vain; longer: what was put off comes later


class Interrupts:
    """Stands in for Python's own SIGINT handler, where a program has not set one of its own."""

    def __init__(self, lock: threading.RLock, loop: Loop, may_raise: Callable[[], bool]) -> None:
        """`may_raise`: whether a signal counts now."""
        self.is_pending = False  # one came while the lock was held: `check` is to follow
        self._lock = lock
        self._loop = loop
        self._may_raise = may_raise
        self._guarded_at = 0.0
        self._is_unheard = False  # one that was sent has to be sent again
        self._spares_imports_until = 0.0

    def guard(self) -> None:
        """Be the handler from now on. Called again and again: notebooks set theirs a cell."""
        now = time.monotonic()
        if now - self._guarded_at < _GUARD_EVERY_S or threading.get_ident() != _main_thread():
            return
        self._guarded_at = now
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_signal)

    def hear_of_lost(self) -> None:
        """Send again what is raised in a finaliser, which Python drops."""
        show = sys.unraisablehook

        def hook(lost: sys.UnraisableHookArgs) -> None:
            if lost.exc_type is KeyboardInterrupt:
                self._is_unheard = True
            else:
                show(lost)

        sys.unraisablehook = hook

    def send(self, is_wanted: Callable[[], bool], *, is_first: bool) -> None:
        """Interrupt the main thread, once, while `is_wanted`. Loop's thread only.

        Not amid an import, though, for `_IMPORT_S` from the first on: it would leave a module that
        is loaded in part. Python takes that back, but neither its submodules nor what it has in C.
        """
        if is_first:
            self._spares_imports_until = time.monotonic() + _IMPORT_S
        self._is_unheard = True

        def see_to_it() -> None:
            if is_wanted():
                self._loop.call_later(_LOOK_EVERY_S, see_to_it)
                if self._is_unheard:
                    self._is_unheard = False
                    signal.pthread_kill(cast(int, _main_thread()), signal.SIGINT)

        see_to_it()

    def check(self) -> None:
        """Raise the KeyboardInterrupt that came while the lock was held."""
        if self.is_pending and threading.get_ident() == _main_thread():
            self.is_pending = False
            if self._may_raise():  # it was for what the thread did then
                self._raise(sys._getframe())

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
            self.is_pending = self._is_unheard = True  # for no `check` may follow
        else:
            self._raise(frame)

    def _raise(self, frame: FrameType | None) -> None:
        if time.monotonic() < self._spares_imports_until and _is_importing(frame):
            self._is_unheard = True
        else:
            self.is_pending = self._is_unheard = False
            raise KeyboardInterrupt


def _main_thread() -> int | None:
    return threading.main_thread().ident


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_MACHINERY:
            return True
        frame = frame.f_back
    return False
