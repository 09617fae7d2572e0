"""Which pages of a segment are taken, and which hold memory?

A page is free or taken, and, apart from that, resident or not: a freed page stays resident (warm)
until it is punched, and a page of a fresh segment is not resident until something is written there.
"""

from __future__ import annotations

from bisect import bisect_left
from mmap import PAGESIZE

PAGE_BYTES = PAGESIZE  # what memory is mapped, reserved and punched by


def pages_for(size_bytes: int) -> int:
    """Pages that an object of `size_bytes` takes: at least one, so that each has a place."""
    return max(1, -(-size_bytes // PAGE_BYTES))


class Pages:
    """The pages of one segment. Ranges are (first page, number of pages)."""

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self.num_taken = 0
        self.num_resident = 0
        self._free = [(0, num_pages)]  # sorted, never adjacent
        self._is_resident = bytearray(num_pages)

    @property
    def num_unused(self) -> int:
        """Pages that hold memory and no object."""
        return self.num_resident - self.num_taken

    def find(self, count: int) -> int | None:
        """Find the first free range that is long enough; its first page, or None."""
        if count > self.num_pages - self.num_taken:
            return None
        return next((first for first, length in self._free if length >= count), None)

    def are_resident(self, first: int, count: int) -> bool:
        """Tell whether every page of the range holds memory."""
        return self._is_resident.find(0, first, first + count) < 0

    def take(self, first: int, count: int) -> None:
        """Take a range found by `find`; all of it counts as resident from now on."""
        at = bisect_left(self._free, (first + 1,)) - 1
        start, length = self._free[at]
        pieces = [(start, first - start), (first + count, start + length - first - count)]
        self._free[at : at + 1] = [piece for piece in pieces if piece[1]]
        self.num_taken += count
        self.num_resident += count - self._is_resident.count(1, first, first + count)
        self._is_resident[first : first + count] = b"\1" * count

    def give_back(self, first: int, count: int) -> None:
        """Free a taken range; its pages stay resident."""
        at = bisect_left(self._free, (first,))
        end = first + count
        if at < len(self._free) and self._free[at][0] == end:
            end += self._free.pop(at)[1]
        if at and sum(self._free[at - 1]) == first:
            at -= 1
            first = self._free.pop(at)[0]
        self._free.insert(at, (first, end - first))
        self.num_taken -= count

    def punch(self) -> list[tuple[int, int]]:
        """Stop counting free pages as resident; returns the ranges that must be punched."""
        punched: list[tuple[int, int]] = []
        for first, length in self._free:
            begin = self._is_resident.find(1, first, first + length)
            if begin < 0:
                continue
            end = self._is_resident.rfind(1, first, first + length) + 1
            punched.append((begin, end - begin))
            self._is_resident[begin:end] = bytes(end - begin)
        self.num_resident = self.num_taken
        return punched
