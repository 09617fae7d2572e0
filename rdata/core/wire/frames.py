"""How is a message cut out of a stream of bytes? As a 4-byte length and a msgpack message.

Short frames arrive many at a time in a buffer that all connections share, and are decoded there.
A frame that has arrived in part gets memory of its own, into which the rest of it is read.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec

MAX_FRAME_BYTES = 256 << 20  # some 2,600 inline values; a longer one comes from a broken peer
_HEAD = struct.Struct("<I")
_HEAD_BYTES = _HEAD.size
_KEPT_BYTES = 1 << 20  # of memory, for the next frame that arrives in part

_encoder = msgspec.msgpack.Encoder()


def encode_frame(message: msgspec.Struct) -> bytearray:
    """The message as it goes over the wire. Raises ValueError if it is too long for a frame."""
    frame = bytearray(_HEAD_BYTES)
    _encoder.encode_into(message, frame, _HEAD_BYTES)
    size = len(frame) - _HEAD_BYTES
    if size > MAX_FRAME_BYTES:
        raise ValueError(
            f"a {type(message).__name__} message of {size} bytes is longer than a frame "
            f"may be ({MAX_FRAME_BYTES} bytes); put large or many values into the store"
        )
    _HEAD.pack_into(frame, 0, size)
    return frame


class FrameReader:
    """The messages in what one connection receives, however that is cut."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[Any]) -> None:
        self.fault = ""  # why what follows is no message; nothing more is decoded then
        self._decoder = decoder
        self._memory = bytearray()
        self._begun = memoryview(b"")  # a frame of which a part is there, or of its head
        self._filled = 0

    def targets(self, shared: memoryview) -> Sequence[memoryview]:
        """Where the next bytes shall be read to: what a frame lacks, then `shared`."""
        if not self._begun:
            return (shared,)
        return (self._begun[self._filled :], shared)

    def received(self, shared: memoryview, size: int) -> list[Any]:
        """The messages that are whole, now that `size` bytes have been read to `targets`."""
        messages: list[Any] = []
        at, end = 0, size
        data = shared[:end]
        try:
            if self._begun:
                direct = min(size, len(self._begun) - self._filled)
                self._filled += direct
                end -= direct
                data = data[:end]
                at = self._go_on(data, messages)
            while end - at >= _HEAD_BYTES:
                stop = at + _HEAD_BYTES + _size(data, at)
                if stop > end:
                    self._begin(stop - at)
                    break
                messages.append(self._decoder.decode(data[at + _HEAD_BYTES : stop]))
                at = stop
            if at < end:
                if not self._begun:
                    self._begin(_HEAD_BYTES)
                self._fill(data[at:])
        except msgspec.DecodeError as error:
            self.fault = f"not a message: {error}"
        return messages

    def _go_on(self, data: memoryview, messages: list[Any]) -> int:
        """Complete the frame that has begun; how many bytes of `data` were of it."""
        at = self._fill(data)
        if len(self._begun) == self._filled == _HEAD_BYTES:
            head = bytes(self._begun)
            self._begin(_HEAD_BYTES + _size(head, 0))
            self._fill(memoryview(head))
            at += self._fill(data[at:])
        if len(self._begun) == self._filled > _HEAD_BYTES:
            messages.append(self._decoder.decode(self._begun[_HEAD_BYTES:]))
            self._begin(0)
        return at

    def _begin(self, size: int) -> None:
        if not size <= len(self._memory) <= _KEPT_BYTES:
            self._memory = bytearray(size)
        self._begun = memoryview(self._memory)[:size]
        self._filled = 0

    def _fill(self, data: memoryview) -> int:
        count = min(len(data), len(self._begun) - self._filled)
        self._begun[self._filled : self._filled + count] = data[:count]
        self._filled += count
        return count


def _size(data: bytes | memoryview, at: int) -> int:
    size: int = _HEAD.unpack_from(data, at)[0]
    if not 0 < size <= MAX_FRAME_BYTES:
        raise msgspec.DecodeError(f"a frame of {size} bytes")
    return size
