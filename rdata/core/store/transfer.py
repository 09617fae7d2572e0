"""How does an object's memory get from one node's store into another's?

Over a connection of its own, so that nothing else waits behind it, by blocking calls on a thread:

    pulling agent                               agent that has it
      │ handshake, Pull(object id) ────────────────────►│
      │◄──────────────────────── size, or that it has none
      │◄──────────────────────── the bytes, by sendfile │
"""

from __future__ import annotations

import os
import socket
import struct

from rdata.core.messages import Pull
from rdata.core.store.segments import WritableSegment
from rdata.core.wire.auth import ROLE_AGENT, ClientHandshake, RefusedError
from rdata.core.wire.connection import encode_frame
from rdata.core.wire.dial import connect_node
from rdata.errors import ObjectLostError

_SIZE = struct.Struct("<q")
_NONE = -1  # in place of a size
_TIMEVAL = struct.Struct("@ll")
_SENDFILE_BYTES = 64 << 20  # at once; the kernel takes at most 2 GiB
_COLD_BYTES = 1 << 20  # received at once on the way to pages that hold no memory yet


def serve(sock: socket.socket, place: tuple[int, int, int] | None, stall_s: float) -> None:
    """Send the object at `place` (descriptor, offset, size in bytes), or that there is none.

    Raises OSError when the other side ends, or takes nothing for `stall_s`.
    """
    _set_timeouts(sock, stall_s)
    if place is None:
        sock.sendall(_SIZE.pack(_NONE))
        return
    fd, offset, size = place
    sock.sendall(_SIZE.pack(size))
    end = offset + size
    while offset < end:
        offset += os.sendfile(sock.fileno(), fd, offset, min(end - offset, _SENDFILE_BYTES))


class Incoming:
    """An object that is being pulled. Raises ObjectLostError from every method that can fail."""

    def __init__(self, address: str, token: bytes, node_id: bytes, object_id: bytes) -> None:
        self._address = address
        self._token = token
        self._node_id = node_id
        self._object_id = object_id
        self._sock: socket.socket | None = None

    def begin(self, connect_s: float, stall_s: float) -> int | None:
        """Connect and ask; returns the object's size in bytes, or None: that node has none."""
        try:
            self._sock = sock = connect_node(self._address, connect_s)
            _set_timeouts(sock, stall_s)
            handshake = ClientHandshake(self._token, ROLE_AGENT, self._node_id)
            sock.sendall(handshake.hello)
            proof = handshake.feed(self._receive(handshake.needs))
            sock.sendall(proof + encode_frame(Pull(self._object_id)))
            (size,) = _SIZE.unpack(self._receive(_SIZE.size))
        except (OSError, RefusedError) as error:
            raise self._failed(error) from error
        if size < _NONE:
            raise self._failed(ValueError(f"a size of {size} bytes"))
        return None if size == _NONE else size

    def receive(
        self, segment: WritableSegment, offset: int, size: int, *, is_resident: bool
    ) -> None:
        """Receive the bytes into the segment."""
        assert self._sock is not None
        try:
            if is_resident:
                self._fill(segment.view(offset, size, is_resident=True))
                return
            buffer = memoryview(bytearray(min(size, _COLD_BYTES)))
            end = offset + size
            while offset < end:
                part = buffer[: end - offset]
                self._fill(part)
                offset += segment.write(offset, [part], is_resident=False)
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Let go of the connection."""
        if self._sock is not None:
            self._sock.close()

    def _receive(self, size: int) -> bytes:
        data = bytearray(size)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, view: memoryview) -> None:
        assert self._sock is not None
        done = 0
        while done < len(view):
            size = self._sock.recv_into(view[done:])
            if not size:
                raise ConnectionResetError("the connection was closed")
            done += size

    def _failed(self, error: Exception) -> ObjectLostError:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        return ObjectLostError(
            f"object {self._object_id.hex()} could not be fetched from {self._address}: {why}"
        )


def _set_timeouts(sock: socket.socket, stall_s: float) -> None:
    """Block, but fail where nothing moves for so long.

    Python's own timeouts make the socket non-blocking, which sendfile does not wait for.
    """
    sock.setblocking(True)
    limit = _TIMEVAL.pack(int(stall_s), int(stall_s % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
