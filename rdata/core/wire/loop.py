"""What does a process do when a socket is readable, a time has come, or another thread asks?

One selector loop serves the agent, the workers and the driver. It is not asyncio, which costs a
driver 60 ms to import and every event a task or a handle; what is needed is this page.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

_READ_BYTES = 256 * 1024  # a batch of tasks or replies, as far as one read takes it

Callback = Callable[[], object]


class Timer:
    """A call that is due at `when` (monotonic seconds), until cancelled."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callback) -> None:
        self.when = when
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Do not call."""
        self.callback = None


class Loop:
    """Runs in one thread; `call_soon` and `stop` may be used from any."""

    def __init__(self) -> None:
        # What connections read into, one after the other: the loop's thread alone touches it.
        self.read_buffer = memoryview(bytearray(_READ_BYTES))
        self._selector = selectors.DefaultSelector()
        self._calls: deque[Callback] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._timer_order = itertools.count()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake_fd, selectors.EVENT_READ, self._drain_wakes)
        self._may_sleep = False
        self._is_stopping = False
        self._thread_id: int | None = None

    def call_soon(self, callback: Callback) -> None:
        """Run `callback` on the loop's thread."""
        self._calls.append(callback)
        if self._may_sleep:  # the loop looks at the calls once more after it sets this
            self._wake()

    def call_later(self, delay_s: float, callback: Callback) -> Timer:
        """Run `callback` on the loop's thread after `delay_s`. Only from that thread."""
        timer = Timer(time.monotonic() + delay_s, callback)
        heapq.heappush(self._timers, (timer.when, next(self._timer_order), timer))
        return timer

    def watch(self, fd: int, on_readable: Callback) -> None:
        """Call when the descriptor is readable. Only from the loop's thread."""
        self._selector.register(fd, selectors.EVENT_READ, (on_readable, None))

    def watch_writes(self, fd: int, on_readable: Callback, on_writable: Callback | None) -> None:
        """Watch for writability too, or (None) no longer."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if on_writable else 0)
        self._selector.modify(fd, events, (on_readable, on_writable))

    def unwatch(self, fd: int) -> None:
        """Forget the descriptor; nothing happens if it is not watched."""
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError):
            return

    def is_current(self) -> bool:
        """Tell whether the caller runs on the loop's thread."""
        return threading.get_ident() == self._thread_id

    def stop(self) -> None:
        """Let `run` return after the calls that are queued."""
        self._is_stopping = True
        self._wake()

    def run(self) -> None:
        """Serve until stopped. An exception in a callback is printed and does not end the loop."""
        self._thread_id = threading.get_ident()
        while not self._is_stopping:
            self._may_sleep = True
            timeout = 0.0 if self._calls else self._seconds_to_next_timer()
            events = self._selector.select(timeout)
            self._may_sleep = False
            for key, mask in events:
                if key.fd == self._wake_fd:
                    self._drain_wakes()
                    continue
                on_readable, on_writable = key.data
                if mask & selectors.EVENT_WRITE and on_writable:
                    self._run(on_writable)
                if mask & selectors.EVENT_READ:
                    self._run(on_readable)
            self._run_due()
        while self._calls:
            self._run(self._calls.popleft())

    def close(self) -> None:
        """Release the loop's own descriptors; call after `run` has returned."""
        self._selector.close()
        os.close(self._wake_fd)

    def _run_due(self) -> None:
        for _ in range(len(self._calls)):
            self._run(self._calls.popleft())
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                self._run(timer.callback)

    def _seconds_to_next_timer(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _wake(self) -> None:
        try:
            os.eventfd_write(self._wake_fd, 1)
        except OSError:  # full (it is awake anyway) or closed
            return

    def _drain_wakes(self) -> None:
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:
            return

    @staticmethod
    def _run(callback: Callable[..., Any]) -> None:
        try:
            callback()
        except Exception:  # one connection's fault must not end the others
            traceback.print_exc()
