"""How does an object's memory get from one node's store into another's?

Over connections of its own, so that nothing else waits behind it, by blocking calls on threads:

    pulling agent                                  agent that has it
      │ handshake, Pull(object id, part) ─────────────────►│
      │◄───────────────────────── size, or that it has none
      │◄────────────────────── the part's bytes, by sendfile │

A large object comes in several parts at once: one stream alone is held up by one core at each end.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from rdata.core.messages import Pull
from rdata.core.store.pages import PAGE_BYTES
from rdata.core.store.segments import WritableSegment
from rdata.core.wire.auth import ROLE_AGENT, ClientHandshake, RefusedError
from rdata.core.wire.dial import connect_node
from rdata.core.wire.frames import encode_frame
from rdata.errors import ObjectLostError

_NUM_PARTS = 2  # of a large object; more gain nothing where two cores send and receive
_LARGE_BYTES = 16 << 20  # smaller: it has come before another connection is there
_SIZE = struct.Struct("<q")
_NONE = -1  # in place of a size
_TIMEVAL = struct.Struct("@ll")
_SENDFILE_BYTES = 64 << 20  # at once; the kernel takes at most 2 GiB
_COLD_BYTES = 1 << 20  # received at once on the way to pages that hold no memory yet


class Place(Struct, frozen=True):
    """Where an object lies: `size` bytes at `offset` of the file that `fd` is open for."""

    fd: int
    offset: int
    size: int


class Source(Struct, frozen=True):
    """What is to be fetched from where, by whom, and how long each step may take."""

    object_id: bytes
    address: str
    node_id: bytes  # who fetches
    token: bytes
    connect_s: float
    stall_s: float


class Room(Struct, frozen=True):
    """Where the object is to lie here."""

    segment: WritableSegment
    offset: int
    is_resident: bool


def serve(sock: socket.socket, place: Place | None, part: int, stall_s: float) -> None:
    """Send a part of the object, or that there is none.

    Raises OSError when the other side ends, or takes nothing for `stall_s`.
    """
    _set_timeouts(sock, stall_s)
    if place is None:
        sock.sendall(_SIZE.pack(_NONE))
        return
    sock.sendall(_SIZE.pack(place.size))
    start, end = _parts(place.size)[part]
    offset, end = place.offset + start, place.offset + end
    while offset < end:
        offset += os.sendfile(sock.fileno(), place.fd, offset, min(end - offset, _SENDFILE_BYTES))


def fetch(source: Source, find_room: Callable[[int], Room]) -> None:
    """Fetch an object into the room that `find_room(size in bytes)` gives for it.

    Raises ObjectLostError when it does not come, and what `find_room` raises.
    """
    with contextlib.ExitStack() as streams:
        first = streams.enter_context(contextlib.closing(_Stream(source, 0)))
        size = first.begin()
        room = find_room(size)
        parts = _parts(size)
        others = [
            streams.enter_context(contextlib.closing(_Stream(source, part)))
            for part in range(1, len(parts))
        ]

        def receive_other(stream: _Stream, start: int, end: int) -> None:
            if stream.begin() != size:
                raise stream.failed(ValueError("it was replaced meanwhile"))
            stream.receive(room, start, end)

        with ThreadPoolExecutor(_NUM_PARTS) as pool:
            coming = [
                pool.submit(receive_other, stream, *part)
                for stream, part in zip(others, parts[1:], strict=True)
            ]
            try:
                first.receive(room, *parts[0])
                for each in coming:
                    each.result()
            except ObjectLostError:
                for stream in others:
                    stream.close()  # the others are of no use any more
                raise


def _parts(size: int) -> list[tuple[int, int]]:
    """The object's parts, each from one byte to another; borders are those of pages."""
    if size < _LARGE_BYTES:
        return [(0, size)]
    border = size // _NUM_PARTS // PAGE_BYTES * PAGE_BYTES
    starts = [number * border for number in range(_NUM_PARTS)]
    return list(zip(starts, [*starts[1:], size], strict=True))


class _Stream:
    """A connection over which a part comes. Raises ObjectLostError when it does not."""

    def __init__(self, source: Source, part: int) -> None:
        self._source = source
        self._part = part
        self._sock: socket.socket | None = None

    def begin(self) -> int:
        """Connect and ask; returns the whole object's size in bytes."""
        source = self._source
        try:
            self._sock = sock = connect_node(source.address, source.connect_s)
            _set_timeouts(sock, source.stall_s)
            handshake = ClientHandshake(source.token, ROLE_AGENT, source.node_id)
            sock.sendall(handshake.hello)
            proof = handshake.feed(self._read(handshake.needs))
            sock.sendall(proof + encode_frame(Pull(source.object_id, self._part)))
            (size,) = _SIZE.unpack(self._read(_SIZE.size))
        except (OSError, RefusedError) as error:
            raise self.failed(error) from error
        if size < 0:
            raise self.failed(LookupError("that node does not have it any more"))
        return int(size)

    def receive(self, room: Room, start: int, end: int) -> None:
        """Receive the bytes from `start` to `end` of the object."""
        segment, offset, end = room.segment, room.offset + start, room.offset + end
        try:
            if room.is_resident:
                self._fill(segment.view(offset, end - offset, is_resident=True))
                return
            buffer = memoryview(bytearray(min(end - offset, _COLD_BYTES)))
            while offset < end:
                piece = buffer[: end - offset]
                self._fill(piece)
                offset += segment.write(offset, [piece], is_resident=False)
        except OSError as error:
            raise self.failed(error) from error

    def close(self) -> None:
        """Let go of the connection, also from under a thread that receives."""
        if self._sock is not None:
            with contextlib.suppress(OSError):  # it is closed already
                self._sock.shutdown(socket.SHUT_RDWR)
            self._sock.close()

    def failed(self, error: Exception) -> ObjectLostError:
        """What to raise."""
        why = (error.strerror if isinstance(error, OSError) else None) or error
        return ObjectLostError(
            f"object {self._source.object_id.hex()} could not be fetched from"
            f" {self._source.address}: {why}"
        )

    def _read(self, size: int) -> bytes:
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


def _set_timeouts(sock: socket.socket, stall_s: float) -> None:
    """Block, but fail where nothing moves for so long.

    Python's own timeouts make the socket non-blocking, which sendfile does not wait for.
    """
    sock.setblocking(True)
    limit = _TIMEVAL.pack(int(stall_s), int(stall_s % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
