"""What does a process do when a socket is readable, a time has come, or another thread asks?

One epoll loop serves the agent, the workers and the driver. It is not asyncio, which costs a
driver 60 ms to import and every event a task or a handle; what is needed is this page.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

_PARK_S = 0.005  # without a waiting thread for so long, the loop's own thread leads again
_SPIN_S = 0.0002  # so long a thread waits without sleep; longer: CPU time that others could use
_SPIN_IF_S = 0.0005  # where its last wait was shorter than this; longer: more spins in vain
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
    """Runs in one thread at a time; `call_soon`, `wait` and `stop` may be used from any.

    That thread is its own, which calls `run`, except while another waits for something that the
    loop has to bring: then the waiting one leads. A message that it waits for wakes it directly.
    """

    def __init__(self) -> None:
        # What connections read into, one after the other: the loop's thread alone touches it.
        self.read_buffer = memoryview(bytearray(_READ_BYTES))
        self._epoll = select.epoll()
        self._callbacks: dict[int, tuple[Callback, Callback | None]] = {}  # by descriptor
        self._calls: deque[Callback] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._timer_order = itertools.count()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self._wake_fd, self._drain_wakes)
        self._may_sleep = False
        self._is_stopping = False
        # Who leads the loop: its own thread, from `run`, or one that waits for something.
        self._lead = threading.Lock()
        self._leader: int | None = None
        self._is_home = False  # its own thread leads
        self._is_wanted = False  # another asks it to let go
        self._led_since = 0.0
        self._led_until = 0.0
        self._is_parked = False  # its own thread waits to be told
        self._is_soon = False  # the last wait was short
        self._parking = threading.Lock()
        self._parking.acquire()
        # Threads in `wait` that do anything but wait: an exception from a signal must not hit them.
        self.busy: set[int] = set()

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
        self._callbacks[fd] = on_readable, None
        self._epoll.register(fd, select.EPOLLIN)

    def watch_writes(self, fd: int, on_readable: Callback, on_writable: Callback | None) -> None:
        """Watch for writability too, or (None) no longer."""
        self._callbacks[fd] = on_readable, on_writable
        self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if on_writable else 0))

    def unwatch(self, fd: int) -> None:
        """Forget the descriptor; nothing happens if it is not watched."""
        if self._callbacks.pop(fd, None) is not None:
            with contextlib.suppress(OSError):  # closed already, and so forgotten
                self._epoll.unregister(fd)

    def is_current(self) -> bool:
        """Whether the caller runs on the loop's thread: the one that leads it at the moment."""
        return threading.get_ident() == self._leader

    def stop(self) -> None:
        """Let `run` return after the calls that are queued."""
        self._is_stopping = True
        self._wake()
        self._unpark()

    def run(self) -> None:
        """Serve until stopped. An exception in a callback is printed and does not end the loop."""
        while not self._is_stopping:
            with self._lead:
                self._leader = threading.get_ident()
                self._is_home = True
                while not self._is_stopping and not self._is_wanted:
                    self._turn(None)
                self._is_home = False
                self._is_wanted = False
            while not self._is_stopping and not self._park():
                continue
        with self._lead:
            self._leader = threading.get_ident()
            while self._calls:
                self._run(self._calls.popleft())

    def wait(
        self, gate: threading.Lock, timeout_s: float | None, check: Callback | None = None
    ) -> bool:
        """Acquire the lock `gate`, which a callback or another thread will release.

        While it waits, the calling thread leads the loop itself, if no other waiting thread does:
        what it waits for then needs no switch of threads. `check` is called before each pause,
        and may raise. False when `timeout_s` is over.
        """
        if gate.acquire(blocking=False):
            return True
        me = threading.get_ident()
        if me == self._leader and me not in self.busy:  # a signal's handler, amid a wait in here
            try:
                return self._turn_until(gate, timeout_s, check)
            finally:
                self.busy.discard(me)
        self.busy.add(me)
        try:
            if self._try_lead():
                return self._lead_until(gate, timeout_s, check)
            self.busy.discard(me)
            if check is not None:
                check()
            return gate.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s))
        finally:
            self.busy.discard(me)

    def serve(self) -> None:
        """Serve what has come, on the calling thread, unless another that waits leads.

        For a thread that calls often, in a burst: the loop's own thread would have to take turns
        with it at the interpreter's lock, which takes longer than the work.
        """
        me = threading.get_ident()
        if me == self._leader:  # a finaliser that struck in a callback
            return
        self.busy.add(me)
        try:
            if self._try_lead():
                try:
                    self._turn(0.0)
                finally:
                    self._let_go()
        finally:
            self.busy.discard(me)

    def _lead_until(
        self, gate: threading.Lock, timeout_s: float | None, check: Callback | None
    ) -> bool:
        try:
            return self._turn_until(gate, timeout_s, check)
        finally:
            self._let_go()

    def _turn_until(
        self, gate: threading.Lock, timeout_s: float | None, check: Callback | None
    ) -> bool:
        started = time.monotonic()
        while not gate.acquire(blocking=False):
            left_s = None if timeout_s is None else started + timeout_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return False
            self._turn(left_s, check)
        return True

    def _try_lead(self) -> bool:
        """Become the leader, if that is the loop's own thread, or nobody."""
        if not self._lead.acquire(blocking=False):
            if not self._is_home:
                return False
            self._is_wanted = True
            self._wake()
            if not self._lead.acquire(timeout=_PARK_S):
                self._is_wanted = False
                return False
        self._leader = threading.get_ident()
        self._led_since = time.monotonic()
        return True

    def _let_go(self) -> None:
        """The calling thread no longer leads."""
        self.busy.add(threading.get_ident())
        self._leader = None
        self._led_until = time.monotonic()
        self._lead.release()
        if self._is_parked:
            self._unpark()

    def _park(self) -> bool:
        """Let other threads lead; True when it is the loop's own thread's turn again."""
        if self._lead.locked() and time.monotonic() - self._led_since > _PARK_S:
            self._is_parked = True
            if self._lead.locked():  # who lets go after this sees that it is parked
                self._parking.acquire()
            self._is_parked = False
            return True
        if self._parking.acquire(timeout=_PARK_S):
            return True
        return not self._lead.locked() and time.monotonic() - self._led_until > _PARK_S

    def _unpark(self) -> None:
        if self._parking.locked():
            with contextlib.suppress(RuntimeError):  # another was faster
                self._parking.release()

    def _turn(self, limit_s: float | None, check: Callback | None = None) -> None:
        """Wait for events, at most so long, and serve them."""
        me = threading.get_ident()
        self._may_sleep = True
        timeout_s = 0.0 if self._calls else self._seconds_to_next_timer()
        if limit_s is not None:
            timeout_s = limit_s if timeout_s is None else min(timeout_s, limit_s)
        self.busy.discard(me)
        if check is not None:  # from here on, a signal is served at once
            check()
        events = self._poll(timeout_s)
        self.busy.add(me)
        self._may_sleep = False
        for fd, mask in events:
            callbacks = self._callbacks.get(fd)
            if callbacks is None:  # unwatched by another callback of this turn
                continue
            on_readable, on_writable = callbacks
            if mask & ~select.EPOLLIN and on_writable:  # an error, and the end, are both
                self._run(on_writable)
            if mask & ~select.EPOLLOUT:
                self._run(on_readable)
        self._run_due()

    def _poll(self, timeout_s: float | None) -> list[tuple[int, int]]:
        """Wait for events; after a short wait without sleep at first.

        To put a thread to sleep and wake it costs more than most answers take, on virtual
        machines above all. The loop's own thread sleeps at once: others have work to do.
        """
        if self._is_home or timeout_s == 0:
            return self._epoll.poll(timeout_s)
        started = now = time.monotonic()
        if self._is_soon:
            spin_s = _SPIN_S if timeout_s is None else min(_SPIN_S, timeout_s)
            while now - started < spin_s:
                events = self._epoll.poll(0)
                if events:
                    return events
                os.sched_yield()
                now = time.monotonic()
        events = self._epoll.poll(timeout_s)
        self._is_soon = time.monotonic() - started < _SPIN_IF_S
        return events

    def close(self) -> None:
        """Release the loop's own descriptors; call after `run` has returned."""
        self._epoll.close()
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
