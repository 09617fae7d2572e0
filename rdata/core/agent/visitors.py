"""What does a node answer tools, such as the `rdata` command, which are no jobs of its?"""

from __future__ import annotations

import socket
from collections.abc import Callable

from rdata.core import messages as m
from rdata.core.wire.connection import Connection
from rdata.core.wire.loop import Loop


class Visitors:
    """The tools that are connected at the moment. They have proven the token, as all have."""

    def __init__(
        self, loop: Loop, describe: Callable[[int], m.Description], stop: Callable[[], None]
    ) -> None:
        """`describe(request)` makes an answer, `stop` ends the node."""
        self._loop = loop
        self._describe = describe
        self._stop = stop
        self._connections: set[Connection] = set()

    def arrived(self, sock: socket.socket) -> None:
        """A connection whose first frame was Visit."""
        self._connections.add(
            Connection(sock, self._loop, m.control_decoder, self._received, self._closed)
        )

    def close(self) -> None:
        """See them off."""
        for connection in list(self._connections):
            connection.close()

    def _received(self, connection: Connection, messages: list[m.Control]) -> None:
        for message in messages:
            match message:
                case m.Describe(request):
                    connection.send(self._describe(request))
                case m.StopNode(request):
                    connection.send(m.Done(request))
                    self._stop()
                case _:
                    connection.close(f"unexpected message {type(message).__name__}")
                    return

    def _closed(self, connection: Connection, reason: str) -> None:
        self._connections.discard(connection)
