"""What if Ctrl-C comes while a table is half changed, or a frame half sent?

Python raises KeyboardInterrupt between any two bytecodes of the main thread. Here it waits until
that thread neither holds the runtime's lock nor serves the loop, where all of that happens, nor
runs a finaliser, where Python drops it. A signal that is put off is sent again, again and again.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import cast
from weakref import finalize

from rdata.core.wire.loop import Loop

_GUARD_EVERY_S = 0.05  # asking Python for the handler takes 2 µs
_IMPORT_MACHINERY = "<frozen importlib._bootstrap>"  # the file of its frames
_FINALIZE = finalize.__call__.__code__
_IMPORT_S = 10.0  # shorter: more are torn; longer: one that hangs cannot be cancelled
_AGAIN_AFTER_S = 0.02  # shorter: the loop wakes in vain; longer: what was put off comes later


class Interrupts:
    """Stands in for Python's own SIGINT handler, where a program has not set one of its own."""

    def __init__(self, lock: threading.RLock, loop: Loop, may_raise: Callable[[], bool]) -> None:
        """`may_raise`: whether a signal counts now."""
        self.is_pending = False  # one has been put off: `check` raises it, or else it is sent again
        self._lock = lock
        self._loop = loop
        self._may_raise = may_raise
        self._guarded_at = 0.0
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
        """Send again what Python drops, in finalisers that are not known for such."""
        show = sys.unraisablehook

        def hook(lost: sys.UnraisableHookArgs) -> None:
            if lost.exc_type is KeyboardInterrupt:
                self._put_off()
            else:
                show(lost)

        sys.unraisablehook = hook

    def send(self, *, is_first: bool) -> None:
        """Interrupt the main thread, once.

        Not amid an import, though, for `_IMPORT_S` from the first on: it would leave a module that
        is loaded in part. Python takes that back, but neither its submodules nor what it has in C.
        """
        if is_first:
            self._spares_imports_until = time.monotonic() + _IMPORT_S
        self._signal()

    def check(self) -> None:
        """Raise the KeyboardInterrupt that was put off."""
        if self.is_pending and threading.get_ident() == _main_thread():
            if not self._may_raise():
                self.is_pending = False  # it was for what the thread did then
            elif not self._is_spared(sys._getframe()):
                self._raise()

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
        is_amid = self.is_locked() or threading.get_ident() in self._loop.busy
        if is_amid or self._is_spared(frame):
            self._put_off()
        else:
            self._raise()

    def _raise(self) -> None:
        self.is_pending = False
        raise KeyboardInterrupt

    def _put_off(self) -> None:
        self.is_pending = True
        self._loop.call_soon(lambda: self._loop.call_later(_AGAIN_AFTER_S, self._send_pending))

    def _send_pending(self) -> None:
        if self.is_pending:  # no `check` has followed
            self._signal()

    @staticmethod
    def _signal() -> None:
        signal.pthread_kill(cast(int, _main_thread()), signal.SIGINT)

    def _is_spared(self, frame: FrameType | None) -> bool:
        """Whether a finaliser runs, or an import that is spared."""
        spares_imports = time.monotonic() < self._spares_imports_until
        while frame is not None:
            code = frame.f_code
            if code is _FINALIZE or code.co_name == "__del__":
                return True
            if spares_imports and code.co_filename == _IMPORT_MACHINERY:
                return True
            frame = frame.f_back
        return False


def _main_thread() -> int | None:
    return threading.main_thread().ident
