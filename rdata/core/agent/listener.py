"""Who has come to this node's port, and to which process do they want to be handed on?

Nothing is decoded before the handshake has proven the peer, and then one frame: `Register` makes
it a driver of this node, `Attach` passes its descriptor to the process that it names, `Link` comes
from another node, `Pull` fetches an object for one, `Visit` is a tool's. Bytes are read exactly as
far as that frame goes; what follows belongs to whoever gets the descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from rdata.core.messages import Attach, Control, Link, Pull, Register, Visit, control_decoder
from rdata.core.wire.auth import RefusedError, ServerHandshake
from rdata.core.wire.loop import Loop, Timer
from rdata.errors import NodeStartError

_MAX_UNPROVEN = 128  # more at once wait in the kernel's queue; each costs a descriptor
_PROOF_TIMEOUT_S = 10.0
_BACKLOG = 512
_GRACE_S = 0.25  # and if others wait; shorter: a busy process of ours is turned away as well
_MAX_FIRST_FRAME = 1 << 20

OnProven = Callable[[socket.socket, ServerHandshake, Control], None]

FROM_OUTSIDE = (Attach, Link, Pull, Visit)
FROM_THIS_NODE = (*FROM_OUTSIDE, Register)  # a driver is passed descriptors


def listen_here(path: Path) -> socket.socket:
    """The socket for this node's own processes."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen(_BACKLOG)
    return sock


def listen_for_others(host: str, port: int) -> socket.socket:
    """The socket for other nodes, at one address of this machine. Raises NodeStartError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NodeStartError(f"the address {host!r} is unknown here: {error.strerror}") from error
    except UnicodeError as error:  # 'a..b' for instance
        raise NodeStartError(f"{host!r} cannot be a host's name") from error
    family, kind, protocol, _, place = found[0]
    if place[0] in ("0.0.0.0", "::"):
        raise NodeStartError(
            f"{host} stands for all addresses of this machine: give the one at which the other "
            "nodes reach it"
        )
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last one may linger
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted ones inherit it
        sock.bind(place)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise NodeStartError(_why_not_there(host, port, error)) from error
    return sock


def _why_not_there(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: give another one, or 0 for one that is free"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine"
    return f"cannot listen at port {port} on {host}: {error.strerror}"


class Listener:
    """Accepts on one listening socket and calls `on_proven` with each peer's first frame.

    A Unix socket takes every kind of first frame, a TCP socket all but a driver's.
    """

    def __init__(
        self, sock: socket.socket, loop: Loop, token: bytes, node_id: bytes, on_proven: OnProven
    ) -> None:
        sock.setblocking(False)
        self._accepts = FROM_THIS_NODE if sock.family == socket.AF_UNIX else FROM_OUTSIDE
        self._sock = sock
        self._loop = loop
        self._token = token
        self._node_id = node_id
        self._on_proven = on_proven
        self._visitors: dict[_Visitor, None] = {}  # in the order of their arrival
        self._pause: Timer | None = None
        loop.watch(sock.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening and turn away who is not proven yet."""
        self._loop.unwatch(self._sock.fileno())
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._sock.close()
        for visitor in list(self._visitors):
            visitor.turn_away()

    def _accept(self) -> None:
        for _ in range(64):
            if len(self._visitors) >= _MAX_UNPROVEN:
                oldest = next(iter(self._visitors))
                wait_s = oldest.since + _GRACE_S - time.monotonic()
                if wait_s > 0:
                    self._accept_later(wait_s)
                    return
                oldest.turn_away()
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # out of descriptors: who is connected may end and leave some
                self._accept_later(_GRACE_S)
                return
            sock.setblocking(False)
            handshake = ServerHandshake(self._token, self._node_id)
            visitor = _Visitor(sock, self._loop, handshake, self._proven, self._left)
            self._visitors[visitor] = None

    def _accept_later(self, delay_s: float) -> None:
        self._loop.unwatch(self._sock.fileno())
        self._pause = self._loop.call_later(delay_s, self._accept_again)

    def _accept_again(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            self._loop.watch(self._sock.fileno(), self._accept)

    def _proven(self, visitor: _Visitor, first: Control) -> None:
        if not isinstance(first, self._accepts):
            visitor.sock.close()
            self._left(visitor)
            return
        self._left(visitor)
        self._on_proven(visitor.sock, visitor.handshake, first)

    def _left(self, visitor: _Visitor) -> None:
        self._visitors.pop(visitor, None)
        self._accept_again()


class _Visitor:
    """A connection until its first frame."""

    def __init__(
        self,
        sock: socket.socket,
        loop: Loop,
        handshake: ServerHandshake,
        on_proven: Callable[[_Visitor, Control], None],
        on_left: Callable[[_Visitor], None],
    ) -> None:
        self.sock = sock
        self.handshake = handshake
        self.since = time.monotonic()
        self._loop = loop
        self._on_proven = on_proven
        self._on_left = on_left
        self._received = b""
        self._frame_bytes: int | None = None
        self._timer: Timer = loop.call_later(_PROOF_TIMEOUT_S, self.turn_away)
        loop.watch(sock.fileno(), self._on_readable)

    def turn_away(self) -> None:
        """Close the connection."""
        self._forget()
        self.sock.close()
        self._on_left(self)

    def _on_readable(self) -> None:
        try:
            self._read()
        except RefusedError as error:
            with contextlib.suppress(OSError):
                self.sock.send(error.answer)
            self.turn_away()
        except (OSError, msgspec.DecodeError):
            self.turn_away()

    def _read(self) -> None:
        while True:
            try:
                data = self.sock.recv(self._needed() - len(self._received))
            except BlockingIOError:
                return
            if not data:
                raise ConnectionResetError
            self._received += data
            if len(self._received) < self._needed():
                continue
            received, self._received = self._received, b""
            if not self.handshake.is_proven:
                answer = self.handshake.feed(received)
                if answer:
                    self.sock.send(answer)
            elif self._frame_bytes is None:
                self._frame_bytes = int.from_bytes(received, "little")
                if not 0 < self._frame_bytes <= _MAX_FIRST_FRAME:
                    raise RefusedError("an oversized first frame")
            else:
                first = control_decoder.decode(received)
                self._forget()
                self._on_proven(self, first)
                return

    def _needed(self) -> int:
        if not self.handshake.is_proven:
            return self.handshake.needs
        return 4 if self._frame_bytes is None else self._frame_bytes

    def _forget(self) -> None:
        self._timer.cancel()
        with contextlib.suppress(OSError):
            self._loop.unwatch(self.sock.fileno())
