"""How does the agent serve its processes' requests for store memory?

It asks the account where an object goes, keeps the memfds, and passes each descriptor to a process
the first time that the process needs it. Processes write and read the memory themselves.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from rdata.core.ids import owner_of
from rdata.core.messages import Create, Created, DropSegments, Failed, Message, Open, Opened
from rdata.core.store import segments
from rdata.core.store.accounting import DropSegment, Placement, PunchRange, StoreAccount
from rdata.core.wire.loop import Loop
from rdata.errors import ObjectStoreFullError, OwnerDiedError

_EXPIRE_EVERY_S = 1.0

Send = Callable[[bytes, Message, "list[int]"], None]


class _Waiting(Struct):
    """Somebody who wants room for an object."""

    process: bytes
    object_id: bytes
    size: int
    placed: Callable[[Placement], None]
    failed: Callable[[Exception], None]
    deadline: float


class StoreService:
    """The node's store. Lives on the agent's loop; `send(process, message, fds)` answers."""

    def __init__(self, account: StoreAccount, loop: Loop, send: Send, wait_s: float) -> None:
        self.account = account
        self._loop = loop
        self._send = send
        self._wait_s = wait_s
        self._fds: dict[int, int] = {}
        self._known: dict[bytes, set[int]] = {}  # process → segments whose descriptor it has
        self._writable: dict[int, segments.WritableSegment] = {}  # those that hold copies
        self._waiting: deque[_Waiting] = deque()
        self._when_changed: list[tuple[bytes, Callable[[], None]]] = []  # by process
        loop.call_later(_EXPIRE_EVERY_S, self._expire)

    def create(self, process: bytes, request: Create) -> None:
        """Find room; the answer (Created or Failed) may come later."""
        self.place(
            process,
            request.object_id,
            request.size,
            partial(self._send_created, process, request),
            partial(self._fail, process, request),
        )

    def place(
        self,
        process: bytes,
        object_id: bytes,
        size: int,
        placed: Callable[[Placement], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Find room for an object that `process` writes; calls one of the two, perhaps later."""
        deadline = time.monotonic() + self._wait_s
        waiting = _Waiting(process, object_id, size, placed, failed, deadline)
        if self._waiting or not self._try_place(waiting):  # no overtaking
            self._waiting.append(waiting)
            self._loop.call_later(self._wait_s + 0.01, self._give_up)

    def refuse(self, process: bytes, request: Create) -> None:
        """Nobody is there any more to whom the object would belong, and who would free it."""
        self._fail(process, request, _ownerless(request.object_id))

    def open(self, process: bytes, request: Open) -> None:
        """Pin the object for the process and tell it where it is."""
        placement = self.account.open(request.object_id, process)
        if placement is None and self.account.is_being_written(request.object_id):
            # Its writer has sealed it, and told the asker so; the latter's message was faster.
            self.once_changed(process, partial(self.open, process, request))
            return
        if placement is None:
            self.answer(process, Opened(request.request, False))
            return
        fds = self._fd_if_new(process, placement.segment)
        segment, offset, size = placement.segment, placement.offset, placement.size
        message = Opened(request.request, True, segment, offset, size, bool(fds))
        self._send(process, message, fds)

    def seal(self, process: bytes, object_id: bytes) -> None:
        """The object is written."""
        self.account.seal(object_id, process)
        self.changed()

    def abandon(self, process: bytes, object_id: bytes) -> None:
        """The object could not be written."""
        self.account.abandon(object_id, process)
        self.changed()

    def unpin(self, process: bytes, objects: list[bytes], tainted: list[bytes]) -> None:
        """The process has no view of these any more."""
        for object_id in objects:
            self.account.unpin(object_id, process)
        for object_id in tainted:
            self.account.unpin(object_id, process, is_tainted=True)
        self.changed()

    def free(self, objects: list[bytes]) -> None:
        """Nobody holds these any more."""
        for object_id in objects:
            self.account.free(object_id)
        self.changed()

    def process_gone(self, process: bytes) -> None:
        """Drop its pins, its unfinished objects and those that it owned."""
        self._known.pop(process, None)
        self._when_changed = [item for item in self._when_changed if item[0] != process]
        waiting, self._waiting = self._waiting, deque()
        for item in waiting:
            if owner_of(item.object_id) == process:
                item.failed(_ownerless(item.object_id))
            elif item.process != process:
                self._waiting.append(item)
        self.account.process_gone(process)
        self.changed()

    def answer(self, process: bytes, message: Message) -> None:
        """What need not be accompanied by a descriptor."""
        self._send(process, message, [])

    def once_changed(self, process: bytes, then: Callable[[], None]) -> None:
        """Call `then` after the next event, unless the process has ended."""
        self._when_changed.append((process, then))

    def descriptor(self, placement: Placement) -> int:
        """The segment's descriptor, which stays the store's."""
        return self._fds[placement.segment]

    def writable(self, placement: Placement) -> segments.WritableSegment:
        """The segment, mapped for the agent's own writing, until it is dropped."""
        segment = self._writable.get(placement.segment)
        if segment is None:
            fd = self._fds[placement.segment]
            segment = self._writable[placement.segment] = segments.WritableSegment(
                fd, placement.capacity
            )
        return segment

    def close(self) -> None:
        """Let all memory go."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def _try_place(self, waiting: _Waiting) -> bool:
        process, object_id = waiting.process, waiting.object_id
        try:
            placement = self.account.create(object_id, waiting.size, process, time.monotonic())
            self._act()
            if placement is None:
                return False
            if placement.is_new:
                self._fds[placement.segment] = segments.create_memfd(placement.capacity)
            waiting.placed(placement)
        except ObjectStoreFullError as error:
            self.account.abandon(object_id, process)
            waiting.failed(error)
        except OSError as error:  # no descriptor is left, for instance
            self.account.abandon(object_id, process)
            waiting.failed(ObjectStoreFullError(f"no shared memory: {error}"))
        return True

    def _send_created(self, process: bytes, request: Create, placement: Placement) -> None:
        fds = self._fd_if_new(process, placement.segment)
        message = Created(
            request.request,
            placement.segment,
            placement.offset,
            placement.capacity,
            placement.is_resident,
            bool(fds),
        )
        self._send(process, message, fds)

    def _fail(self, process: bytes, request: Create, error: Exception) -> None:
        self.answer(process, Failed(request.request, type(error).__name__, str(error)))

    def _fd_if_new(self, process: bytes, segment: int) -> list[int]:
        known = self._known.setdefault(process, set())
        if segment in known:
            return []
        known.add(segment)
        return [os.dup(self._fds[segment])]

    def _act(self) -> None:
        """Carry out what the account has decided."""
        dropped = []
        for command in self.account.take_commands():
            if isinstance(command, DropSegment):
                self._drop(command)
                dropped.append(command.segment)
            elif isinstance(command, PunchRange):
                segments.punch(self._fds[command.segment], command.offset, command.length)
        for process, known in self._known.items():
            gone = known.intersection(dropped)
            if gone:
                known -= gone
                self.answer(process, DropSegments(sorted(gone)))

    def _drop(self, command: DropSegment) -> None:
        writable = self._writable.pop(command.segment, None)
        if writable is not None:
            writable.close()
        fd = self._fds.pop(command.segment, None)
        if fd is None:  # it could not be made
            return
        if not command.is_tainted:  # its memory need not wait until all have unmapped it
            segments.punch(fd, 0, command.capacity)
        os.close(fd)

    def changed(self) -> None:
        """After events that may have made room: act, and serve who waits, in order."""
        self._act()
        when_changed, self._when_changed = self._when_changed, []
        for _, then in when_changed:
            then()
        while self._waiting and self._try_place(self._waiting[0]):
            self._waiting.popleft()

    def _give_up(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0].deadline <= now:
            waiting = self._waiting.popleft()
            waiting.failed(self.account.full_error(waiting.object_id, waiting.size))

    def _expire(self) -> None:
        self.account.expire(time.monotonic())
        self.changed()
        self._loop.call_later(_EXPIRE_EVERY_S, self._expire)


def _ownerless(object_id: bytes) -> OwnerDiedError:
    return OwnerDiedError(f"the owner of object {object_id.hex()} has ended")
