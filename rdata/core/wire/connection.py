"""How do two processes exchange messages without ever waiting for each other?

Sending never blocks: whoever sends drains the queue as far as the socket takes it, and the loop
goes on when it takes more. So a process always keeps reading, whatever its peers do, and no two can
block one another.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from rdata.core.wire.auth import ClientHandshake, RefusedError
from rdata.core.wire.frames import FrameReader, encode_frame
from rdata.core.wire.loop import Loop

_MAX_GATHER = 64  # buffers a sendmsg call
_ANCILLARY_BYTES = socket.CMSG_SPACE(16 * 4)  # for so many descriptors at once


class Connection:
    """Messages both ways over one stream socket, read on a loop's thread.

    `on_messages` gets what has arrived, in order, several at a time, on the loop's thread;
    `on_close` is called there once, with the reason. `fds` holds descriptors that came along
    with messages, in their order; who understands the message takes them from there.
    """

    def __init__(
        self,
        sock: socket.socket,
        loop: Loop,
        decoder: msgspec.msgpack.Decoder[Any],
        on_messages: Callable[[Connection, list[Any]], None],
        on_close: Callable[[Connection, str], None],
        handshake: ClientHandshake | None = None,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fds: deque[int] = deque()
        self.is_closed = False
        self.queued_bytes = 0
        self._loop = loop
        self._reader = FrameReader(decoder)
        self._on_messages = on_messages
        self._on_close = on_close
        self._handshake = handshake
        self._is_unix = sock.family == socket.AF_UNIX
        self._welcome = bytearray()  # of the handshake
        self._queue: deque[tuple[bytearray | memoryview, Sequence[int]]] = deque()
        self._rest: memoryview | None = None  # of a frame that the socket took partly
        self._writing = threading.Lock()
        self._waits_for_room = False
        self._is_greeted = handshake is None
        self._greet()
        loop.call_soon(self._start)

    def send(self, message: msgspec.Struct, fds: Sequence[int] = ()) -> None:
        """Queue the message and write what the socket takes. From any thread; never blocks.

        `fds` are sent along and stay the caller's until `close_after_send` or the message is
        out, so pass duplicates. On a closed connection nothing happens: `on_close` tells.
        """
        if self.is_closed:
            _close_all(fds)
            return
        frame = encode_frame(message)
        self._queue.append((frame, fds))
        self.queued_bytes += len(frame)
        self._flush()

    def close(self, reason: str = "closed here") -> None:
        """Close the socket; `on_close` follows on the loop's thread."""
        if self._loop.is_current():
            self._close(reason)
        else:
            self._loop.call_soon(lambda: self._close(reason))

    def drain_and_close(self, reason: str) -> None:
        """Take what the peer, which has ended, had sent before, then close. Loop's thread only."""
        while not self.is_closed and self._read_some():
            pass
        self._close(reason)

    def close_in_child(self) -> None:
        """After a fork, in the child: let go of the descriptor, and nothing else."""
        self.is_closed = True
        os.close(self.sock.detach())

    def _greet(self) -> None:
        """Begin the handshake, or have that done once the socket is connected."""
        if self._is_greeted or self._handshake is None:
            return
        try:
            self._write_now(self._handshake.hello)
            self._is_greeted = True
        except BlockingIOError:
            self._waits_for_room = True
            self._loop.call_soon(self._watch_writes)
        except OSError as error:  # it could not be connected
            reason = f"connection failed: {error.strerror or error}"
            self._loop.call_soon(lambda: self._close(reason))

    def _start(self) -> None:
        if not self.is_closed:
            self._loop.watch(self.sock.fileno(), self._read_some)

    def _read_some(self) -> bool:
        """Read once; False when there was nothing."""
        buffer = self._loop.read_buffer
        try:
            size = self._receive(self._reader.targets(buffer))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._close(f"connection failed: {error.strerror or error}")
            return False
        if not size:
            self._close("closed by the other side")
            return False
        if self._handshake is not None:
            self._welcome += buffer[:size]
            if not self._step_handshake():
                return True
            size = len(self._welcome)  # what came with it is messages
            buffer[:size], self._welcome = self._welcome, bytearray()
        messages = self._reader.received(buffer, size)
        if messages:
            self._on_messages(self, messages)
        if self._reader.fault:
            self._close(self._reader.fault)
        return True

    def _receive(self, targets: Sequence[memoryview]) -> int:
        if not self._is_unix:
            return self.sock.recvmsg_into(targets)[0]
        size, ancillary, flags, _ = self.sock.recvmsg_into(
            targets, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, body in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(body[: len(body) - len(body) % received.itemsize])
                self.fds.extend(received)
        if flags & socket.MSG_CTRUNC:  # more came than this process may have
            raise OSError(errno.EMFILE, "more open files are needed than are allowed (ulimit -n)")
        return size

    def _step_handshake(self) -> bool:
        handshake = self._handshake
        assert handshake is not None
        if len(self._welcome) < handshake.needs:
            return False
        welcome = bytes(self._welcome[: handshake.needs])
        del self._welcome[: handshake.needs]
        try:
            self._write_now(handshake.feed(welcome))
        except (RefusedError, OSError) as error:
            self._close(str(error))
            return False
        self._handshake = None
        self._flush()
        return True

    def _write_now(self, data: bytes) -> None:
        # Some dozens of bytes into an empty socket buffer: it takes them whole.
        if self.sock.send(data) != len(data):
            raise OSError("the socket took half a handshake")

    def _flush(self) -> None:
        # Whoever gets the lock writes for all; who does not leaves the work to that one, which
        # looks at the queue again after it has let go of the lock.
        while (self._queue or self._rest) and not self._waits_for_room:
            if self._handshake is not None or self.is_closed:
                return
            if not self._writing.acquire(blocking=False):
                return
            try:
                self._write_queue()
            finally:
                self._writing.release()

    def _write_queue(self) -> None:
        try:
            while self._rest is not None or self._queue:
                if self._rest is not None:
                    self._took(self.sock.send(self._rest), [self._rest])
                elif self._queue[0][1]:
                    self._write_with_fds()
                else:
                    buffers = [self._queue.popleft()[0]]
                    while self._queue and len(buffers) < _MAX_GATHER and not self._queue[0][1]:
                        buffers.append(self._queue.popleft()[0])
                    try:
                        if len(buffers) == 1:
                            sent = self.sock.send(buffers[0])
                        else:
                            sent = self.sock.sendmsg(buffers)
                    except BlockingIOError:
                        self._took(0, buffers)
                        raise
                    self._took(sent, buffers)
        except BlockingIOError:
            self._waits_for_room = True
            self._loop.call_soon(self._watch_writes)
        except OSError as error:
            reason = f"connection failed: {error.strerror or error}"
            self._loop.call_soon(lambda: self._close_after_reading(reason))
            self._forget_queue()

    def _write_with_fds(self) -> None:
        frame, fds = self._queue[0]
        sent = socket.send_fds(self.sock, [frame], list(fds))
        self._queue.popleft()
        for fd in fds:
            os.close(fd)
        self._took(sent, [frame])

    def _took(self, sent: int, buffers: Sequence[bytearray | memoryview]) -> None:
        """Keep what the socket did not take of the buffers."""
        self.queued_bytes -= sent
        self._rest = None
        if sent == sum(map(len, buffers)):  # as nearly always
            return
        for position, buffer in enumerate(buffers):
            if sent >= len(buffer):
                sent -= len(buffer)
                continue
            self._rest = memoryview(buffer)[sent:]
            for later in reversed(buffers[position + 1 :]):
                self._queue.appendleft((later, ()))
            return

    def _watch_writes(self) -> None:
        if not self.is_closed:
            self._loop.watch_writes(self.sock.fileno(), self._read_some, self._on_writable)

    def _on_writable(self) -> None:
        if self.is_closed:  # by what else was readable in the same round
            return
        self._loop.watch_writes(self.sock.fileno(), self._read_some, None)
        self._waits_for_room = False
        self._greet()
        self._flush()

    def _close_after_reading(self, reason: str) -> None:
        if not self.is_closed:
            self.drain_and_close(reason)

    def _close(self, reason: str) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._loop.unwatch(self.sock.fileno())
        with self._writing:  # nobody may write to a descriptor that could be another's by then
            self.sock.close()
            self._forget_queue()
        _close_all(self.fds)
        self.fds.clear()
        self._on_close(self, reason)

    def _forget_queue(self) -> None:
        self._rest = None
        while self._queue:
            _close_all(self._queue.popleft()[1])


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
