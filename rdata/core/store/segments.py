"""How does a process make, fill and read shared memory?

    agent                        writer                             reader
    create_memfd ──descriptor──► WritableSegment.write
       │   └─────────descriptor──────────────────────────────────► map_readonly ──► memoryview
    punch                                                           last view gone ──► on_release

A segment is a memfd: it has no name that could be left behind, no limit but the memory of the
machine, and ends with the last process that maps it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from rdata.core.store.pages import PAGE_BYTES
from rdata.errors import ObjectStoreFullError

Part = bytes | bytearray | memoryview
_Piece = tuple[int, list[memoryview]]  # where it is to be written, and what

_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2
_MADV_POPULATE_READ, _MADV_POPULATE_WRITE = 22, 23  # since Linux 5.14
_MAP_FAILED = 2 ** (8 * ctypes.sizeof(ctypes.c_void_p)) - 1
_COPY_BYTES = 1 << 20  # a slice assignment holds the GIL; larger: other threads wait longer for it
_SHARED_BYTES = 16 << 20  # cold objects that two threads write; smaller: threads that do not pay
_PIECE_BYTES = 2 * _COPY_BYTES  # made resident in one call; larger: out of the cache when copied
_IOV_MAX = 1024  # buffers that one pwritev takes

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

# What exports the memory at an address as a buffer. One type for every length, for ctypes would
# make (and keep until the next garbage collection) a type for each; views are cut to size.
_Exporter: type[ctypes.Array[ctypes.c_char]] = ctypes.c_char * sys.maxsize


class _Forks:
    """Counts the forks of this process, and of those that it came from."""

    def __init__(self) -> None:
        self.seen = 0  # grows twice a fork, before and after: a mapping between them is tainted too
        self.generation = 0  # grows in each child

    def count(self) -> None:
        self.seen += 1

    def count_child(self) -> None:
        self.generation += 1


_forks = _Forks()
os.register_at_fork(
    before=_forks.count, after_in_parent=_forks.count, after_in_child=_forks.count_child
)


def create_memfd(capacity: int) -> int:
    """Make a segment of `capacity` bytes, which hold no memory yet; returns its descriptor.

    It is closed on exec, and can neither shrink nor grow: no process that has it can take pages
    away from under another's mapping, apart from punching them.
    """
    fd = os.memfd_create("rdata", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, capacity)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except OSError as error:
        os.close(fd)
        raise _full_or_same(error, f"a segment of {capacity} bytes") from error
    return fd


def reserve(fd: int, offset: int, length: int) -> None:
    """Make the range resident, so that no write into a mapping of it finds memory exhausted.

    Raises ObjectStoreFullError when the machine or its cgroup has no memory left. Not needed
    before `WritableSegment.write`, which finds that out itself.
    """
    try:
        os.posix_fallocate(fd, offset, length)
    except OSError as error:
        raise _full_or_same(error, f"{length} bytes at {offset}") from error


def punch(fd: int, offset: int, length: int) -> None:
    """Give the range's memory back, whoever maps it; it reads as zeros then."""
    flags = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    if _libc.fallocate(fd, flags, offset, length):
        raise _os_error(f"cannot punch {length} bytes at {offset} out of a segment")


def map_readonly(fd: int, offset: int, size: int, on_release: Callable[[bool], None]) -> memoryview:
    """Map an object, without a copy, for as long as anything looks at it.

    `offset` must be a multiple of the page size. The descriptor may be closed at once. Every view
    derived from the result (slices, numpy arrays, Arrow buffers) keeps the mapping alive; when the
    last is gone, the object is unmapped and `on_release(is_tainted)` called. `is_tainted` says
    that this process forked in between, so a child may still read that memory.

    `on_release` may run between any two bytecodes of any thread, whatever locks that thread holds:
    it must only note what happened (append to a deque), not block, lock or write. It runs neither
    in a forked child, which has no right to the parent's connections, nor at interpreter exit. A
    fork by native code that bypasses `os.fork` is not seen.
    """
    length = max(size, 1)
    address, exporter = _map(fd, offset, length, mmap.PROT_READ)
    release = (address, length, on_release, _forks.seen, _forks.generation)
    weakref.finalize(exporter, _release, *release).atexit = False
    return memoryview(exporter).cast("B")[:size].toreadonly()


class WritableSegment:
    """A whole segment mapped read-write, kept by a process for the objects that it writes there.

    The second object in the same place is written about as fast as memory is copied: by then its
    pages hold memory and are mapped here. Two threads may write different objects at once.
    """

    def __init__(self, fd: int, capacity: int) -> None:
        """Map the segment. The descriptor stays the caller's, and open until `close`."""
        self.capacity = capacity
        self._fd = fd
        self._address, exporter = _map(fd, 0, capacity, mmap.PROT_READ | mmap.PROT_WRITE)
        weakref.finalize(exporter, _libc.munmap, self._address, capacity).atexit = False
        self._memory = memoryview(exporter).cast("B")[:capacity]
        self._is_mapped = bytearray(-(-capacity // PAGE_BYTES))  # pages whose use faults no more

    def write(self, offset: int, parts: Sequence[Part], *, is_resident: bool) -> int:
        """Write the parts one after the other from `offset`; returns the number of bytes.

        Parts are contiguous buffers. `is_resident` is what the object's placement says. Raises
        ObjectStoreFullError when the machine or its cgroup has no memory left.
        """
        flat = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
        size = sum(map(len, flat))
        self._check_range(offset, size)
        if is_resident:
            self._prefault(offset, size)
            for part in flat:
                copy_into(self._memory[offset : offset + len(part)], part)
                offset += len(part)
        else:
            self._write_cold(offset, flat, size)
        return size

    def view(self, offset: int, size: int, *, is_resident: bool) -> memoryview:
        """The object's memory, for what can only be written in place; reserved if need be.

        Slower than `write` where pages are not resident.
        """
        self._check_range(offset, size)
        if is_resident:
            self._prefault(offset, size)
        else:
            reserve(self._fd, offset, max(size, 1))
            self._set_mapped(offset, size, is_mapped=True)  # by those writes
        return self._memory[offset : offset + size]

    def _write_cold(self, offset: int, parts: list[memoryview], size: int) -> None:
        # Faster than the mapping here: a page that is written whole is not zeroed before, and
        # does not fault. And there is an error, not a signal, where memory runs out.
        if size < _SHARED_BYTES or len(os.sched_getaffinity(0)) < 2:
            self._write_piece(offset, parts)
            return
        # A file takes one write at a time. But while one thread writes, another may fault pages in
        # elsewhere, and most of the time goes into finding the pages. One goes forwards, one
        # backwards, until they meet: they are not equally fast.
        pieces = _cut(parts, offset)
        with ThreadPoolExecutor(1) as another:
            try:
                writing = another.submit(_work_off, pieces, pieces.popleft, self._write_piece)
            except RuntimeError:  # the program is ending, or may have no further thread
                self._write_piece(offset, parts)
                return
            _work_off(pieces, pieces.pop, self._write_piece_through_mapping)
        writing.result()

    def _write_piece(self, offset: int, parts: list[memoryview]) -> None:
        self._set_mapped(offset, sum(map(len, parts)), is_mapped=False)
        _write_all(self._fd, parts, offset)

    def _write_piece_through_mapping(self, offset: int, parts: list[memoryview]) -> None:
        self._populate(offset, sum(map(len, parts)))
        for part in parts:
            copy_into(self._memory[offset : offset + len(part)], part)
            offset += len(part)

    def _populate(self, offset: int, length: int) -> None:
        """Make pages resident and mapped; raises ObjectStoreFullError."""
        if _libc.madvise(self._address + offset, length, _MADV_POPULATE_WRITE):
            error = _os_error(f"cannot populate {length} bytes at {offset} of a segment")
            if error.errno == errno.EINVAL:  # a kernel that does not know it
                reserve(self._fd, offset, length)
                return
            if error.errno == errno.EFAULT:  # what would have been SIGBUS
                error.errno = errno.ENOMEM
            raise _full_or_same(error, f"{length} bytes at {offset}") from error
        self._set_mapped(offset, length, is_mapped=True)

    def close(self) -> None:
        """Let go: the segment is unmapped when the last view of it is gone."""
        self._memory = memoryview(b"")
        self.capacity = 0

    def _check_range(self, offset: int, size: int) -> None:
        if offset < 0 or offset + size > self.capacity:
            raise ValueError(
                f"bytes {offset} to {offset + size} lie outside a segment of {self.capacity} bytes"
            )

    def _prefault(self, offset: int, size: int) -> None:
        """Map resident pages, many at a time: a first write to each would fault one by one."""
        first, last = offset // PAGE_BYTES, -(-(offset + size) // PAGE_BYTES)
        if self._is_mapped.find(0, first, last) < 0:
            return
        start = self._address + first * PAGE_BYTES
        # A hint: a kernel that does not know it has them fault one by one.
        _libc.madvise(start, (last - first) * PAGE_BYTES, _MADV_POPULATE_READ)
        self._set_mapped(offset, size, is_mapped=True)

    def _set_mapped(self, offset: int, size: int, *, is_mapped: bool) -> None:
        first, last = offset // PAGE_BYTES, -(-(offset + size) // PAGE_BYTES)
        self._is_mapped[first:last] = bytes([is_mapped]) * (last - first)


def copy_into(view: memoryview, data: memoryview) -> None:
    """Copy bytes to memory of the same length, and let other threads run in between."""
    for start in range(0, len(data), _COPY_BYTES):
        view[start : start + _COPY_BYTES] = data[start : start + _COPY_BYTES]


def _cut(parts: list[memoryview], offset: int) -> deque[_Piece]:
    """Cut what is written from `offset` on, where multiples of `_PIECE_BYTES` are."""
    pieces: deque[_Piece] = deque()
    room = 0
    for part in parts:
        at = 0
        while at < len(part):
            if not room:
                pieces.append((offset, []))
                room = _PIECE_BYTES - offset % _PIECE_BYTES
            taken = part[at : at + room]
            pieces[-1][1].append(taken)
            at += len(taken)
            offset += len(taken)
            room -= len(taken)
    return pieces


def _work_off(
    pieces: deque[_Piece],
    take: Callable[[], _Piece],
    write: Callable[[int, list[memoryview]], None],
) -> None:
    """Write pieces until none is left; after an error, nobody need go on."""
    try:
        while True:
            try:
                piece = take()
            except IndexError:
                return
            write(*piece)
    except BaseException:
        pieces.clear()
        raise


def _write_all(fd: int, parts: list[memoryview], offset: int) -> None:
    at = 0
    while at < len(parts):
        try:
            written = os.pwritev(fd, parts[at : at + _IOV_MAX], offset)
        except OSError as error:
            size = sum(map(len, parts[at:]))
            raise _full_or_same(error, f"{size} bytes at {offset}") from error
        offset += written
        while at < len(parts) and written >= len(parts[at]):
            written -= len(parts[at])
            at += 1
        if written:
            parts[at] = parts[at][written:]


def _map(
    fd: int, offset: int, length: int, protection: int
) -> tuple[int, ctypes.Array[ctypes.c_char]]:
    """Map without keeping a descriptor (as mmap.mmap would); the caller sees to the unmapping."""
    address = _libc.mmap(None, length, protection, mmap.MAP_SHARED, fd, offset)
    if address == _MAP_FAILED:
        raise _os_error(
            f"cannot map {length} bytes at {offset} of a segment; if memory is said to be short,"
            " this process may have more than vm.max_map_count mappings"
        )
    return address, _Exporter.from_address(address)


def _release(
    address: int,
    length: int,
    on_release: Callable[[bool], None],
    forks_seen: int,
    generation: int,
) -> None:
    _libc.munmap(address, length)  # in a forked child, its own copy of the mapping
    if generation == _forks.generation:
        on_release(forks_seen != _forks.seen)


def _full_or_same(error: OSError, what: str) -> Exception:
    if error.errno not in (errno.ENOSPC, errno.ENOMEM):
        return error
    return ObjectStoreFullError(
        f"no memory for {what} of a shared-memory segment ({error.strerror}), although the object"
        " store is within its quota: stop what else uses memory on this machine or in its"
        " container, or start the node with a smaller object_store_memory"
    )


def _os_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{os.strerror(number)}: {what}")
