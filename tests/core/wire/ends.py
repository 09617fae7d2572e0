"""What stands at the end of a connection in a test?"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from rdata.core import messages as m
from rdata.core.wire.auth import ClientHandshake
from rdata.core.wire.connection import Connection
from rdata.core.wire.loop import Loop
from tests.eventually import eventually


@contextlib.contextmanager
def running_loop() -> Iterator[Loop]:
    """A loop on a thread of its own."""
    loop = Loop()
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield loop
    finally:
        loop.stop()
        thread.join()
        loop.close()


def on_loop(loop: Loop, call: Callable[[], Any]) -> Any:
    """What `call` returns on the loop's thread."""
    result: list[Any] = []
    is_done = threading.Event()

    def run() -> None:
        try:
            result.append(call())
        finally:
            is_done.set()

    loop.call_soon(run)
    assert is_done.wait(20)
    return result[0]


class End:
    """Notes what arrives, and the reason of the end; `story` has both in their order."""

    def __init__(
        self, sock: socket.socket, loop: Loop, handshake: ClientHandshake | None = None
    ) -> None:
        self.story: list[Any] = []
        self.contents: list[bytes] = []  # of files whose descriptors came with a BorrowAck
        self.is_closed = threading.Event()
        self.connection = Connection(
            sock, loop, m.direct_decoder, self._arrived, self._ended, handshake
        )

    def _arrived(self, connection: Connection, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, m.BorrowAck):
                fd = connection.fds.popleft()
                self.contents.append(os.pread(fd, 100, 0))
                os.close(fd)
        self.story += messages

    def _ended(self, connection: Connection, reason: str) -> None:
        assert not self.is_closed.is_set(), "closed twice"
        self.story.append(reason)
        self.is_closed.set()

    def waits_for(self, count: int) -> bool:
        return eventually(lambda: len(self.story) >= count)


class ManualLoop:
    """Calls at once what should be called soon; the test says when a socket is readable."""

    def __init__(self) -> None:
        self.read_buffer = memoryview(bytearray(1000))

    def call_soon(self, callback: Callable[[], object]) -> None:
        callback()

    def watch(self, fd: int, on_readable: Callable[[], object]) -> None:
        self.on_readable = on_readable

    def unwatch(self, fd: int) -> None:
        return

    def is_current(self) -> bool:
        return True
