"""What moves between operators? References to blocks, and what is known of them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from rdata.dataset.block import BlockMeta


class Piece(Struct, frozen=True):
    """A run of rows of one block. `handle` is what the launcher gave for the block."""

    handle: Any
    meta: BlockMeta
    start: int
    num_rows: int

    @classmethod
    def whole(cls, handle: Any, meta: BlockMeta) -> Piece:
        """All rows of a block."""
        return cls(handle, meta, 0, meta.num_rows)

    @property
    def size_bytes(self) -> int:
        """The bytes of these rows, by their share of the block."""
        if self.num_rows == self.meta.num_rows:
            return self.meta.size_bytes
        return self.meta.size_bytes * self.num_rows // self.meta.num_rows

    def slice(self, start: int, num_rows: int) -> Piece:
        """Some of these rows; `start` counts from the first of them."""
        return Piece(self.handle, self.meta, self.start + start, num_rows)


class Bundle(Struct, frozen=True):
    """Pieces of blocks that go through the next operator together, in order."""

    pieces: tuple[Piece, ...]

    @property
    def num_rows(self) -> int:
        """The rows of all pieces."""
        return sum(piece.num_rows for piece in self.pieces)

    @property
    def size_bytes(self) -> int:
        """The bytes of all pieces."""
        return sum(piece.size_bytes for piece in self.pieces)

    def first(self, num_rows: int) -> Bundle:
        """The first `num_rows` rows."""
        kept: list[Piece] = []
        for piece in self.pieces:
            if num_rows <= 0 and kept:
                break
            kept.append(piece.slice(0, min(piece.num_rows, max(num_rows, 0))))
            num_rows -= piece.num_rows
        return Bundle(tuple(kept))

    @property
    def handles(self) -> tuple[Any, ...]:
        """The handles of the blocks, for a task's arguments."""
        return tuple(piece.handle for piece in self.pieces)

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The rows of each block that are meant: (start, number)."""
        return tuple((piece.start, piece.num_rows) for piece in self.pieces)
