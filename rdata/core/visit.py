"""How does a tool ask a node something, without becoming one of its drivers?"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from rdata.core.ids import new_process_id
from rdata.core.messages import (
    Control,
    Describe,
    Description,
    Done,
    StopNode,
    Visit,
    control_decoder,
)
from rdata.core.wire.auth import ROLE_DRIVER, ClientHandshake, RefusedError
from rdata.core.wire.dial import connect_node
from rdata.core.wire.frames import MAX_FRAME_BYTES, encode_frame
from rdata.errors import NodeNotFoundError, NodeStartError

_Answer = TypeVar("_Answer", bound=Control)


class Visited:
    """A node that listens. Each call waits for its answer, and raises NodeStartError without."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self._sock = sock
        self._name = name

    def describe(self) -> Description:
        """The nodes of its cluster, and what is available there."""
        return self._ask(Describe(1), Description)

    def stop(self) -> None:
        """End it. It has begun to end when this returns."""
        self._ask(StopNode(1), Done)

    def _ask(self, request: Control, kind: type[_Answer]) -> _Answer:
        try:
            self._sock.sendall(encode_frame(request))
            size = int.from_bytes(_receive(self._sock, 4), "little")
            if size > MAX_FRAME_BYTES:
                raise ConnectionAbortedError("it answers in another language")
            answer = control_decoder.decode(_receive(self._sock, size))
        except OSError as error:
            raise NodeStartError(f"the node at {self._name} does not answer: {error}") from error
        assert isinstance(answer, kind)
        return answer


@contextmanager
def visit(address: str, token: bytes, timeout_s: float) -> Iterator[Visited]:
    """Connect with a node and prove the token to each other.

    `address` is `tcp:HOST:PORT` or `unix:PATH`; no step waits longer than `timeout_s`. Raises
    NodeNotFoundError if nobody listens there, NodeStartError if it is not a node of this cluster.
    """
    name = address.partition(":")[2]
    with reach(address, timeout_s) as sock:
        sock.settimeout(timeout_s)
        handshake = ClientHandshake(token, ROLE_DRIVER, new_process_id())
        try:
            sock.sendall(handshake.hello)
            sock.sendall(handshake.feed(_receive(sock, handshake.needs)))
            sock.sendall(encode_frame(Visit()))
        except (RefusedError, OSError) as error:
            raise NodeStartError(f"{name} does not let this program in: {error}") from error
        yield Visited(sock, name)


def reach(address: str, timeout_s: float) -> socket.socket:
    """A connection with whoever listens there. Raises NodeNotFoundError."""
    try:
        return connect_node(address, timeout_s)
    except OSError as error:
        name = address.partition(":")[2]
        raise NodeNotFoundError(f"no rdata node at {name}: {error.strerror or error}") from error


def _receive(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes. Raises OSError."""
    data = b""
    while len(data) < size:
        received = sock.recv(size - len(data))
        if not received:
            raise ConnectionResetError("it has closed the connection")
        data += received
    return data
