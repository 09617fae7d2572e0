"""Which object lies where in the node's shared memory, and what must make room?

    create ──► writing ──seal──► sealed ──free──► freed, still held ──last pin falls──► unused
                  │                                                                       │
                  └─ abandon, or its writer dies: the memory goes back at once     reuse or reclaim

Large objects have a segment each, smaller ones are slots in slabs. Memory is counted by resident
pages: those of objects are *used*; those of freed objects, of segments that wait for reuse, and
behind a small object in a larger recycled segment are *idle*, which means warm and reclaimable.
Used and idle pages together never exceed the quota.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from heapq import nlargest
from typing import TypeVar

from msgspec import Struct, field

from rdata.core.ids import owner_of
from rdata.core.store.pages import PAGE_BYTES, Pages, pages_for
from rdata.errors import ObjectStoreFullError

LARGE_BYTES = 4 << 20  # smaller: more segments (a descriptor each); larger: slabs waste more
SLAB_BYTES = 32 << 20  # smaller: more descriptors; larger: one long-lived slot keeps more alive
MAX_OVERSIZE = 1.5  # of a recycled segment; larger: warm more often, with a longer idle tail
NUM_NAMED_HOLDERS = 3  # objects that an error lists


class Placement(Struct, frozen=True):
    """Where an object lies."""

    segment: int
    offset: int  # in bytes; a multiple of the page size
    size: int  # of the object, in bytes; its last page is its own to the end
    is_new: bool  # a memfd of `capacity` bytes must be created first
    capacity: int  # of the segment, in bytes
    is_resident: bool  # its pages hold memory already, so writing needs no reservation


class PunchRange(Struct, frozen=True):
    """Give the range's memory back. To be done before any later placement is handed out."""

    segment: int
    offset: int
    length: int


class DropSegment(Struct, frozen=True):
    """Close the memfd, and have the processes that wrote there unmap it."""

    segment: int
    capacity: int
    is_tainted: bool  # a fork still maps it; otherwise punch it all: no need to await unmapping
    written_by: frozenset[bytes]


T = TypeVar("T")
Command = PunchRange | DropSegment


class _Segment(Struct, eq=False):
    number: int
    pages: Pages
    is_slab: bool
    num_objects: int = 0
    is_tainted: bool = False  # a fork maps part of it: takes no new object
    last_use_s: float = 0.0
    written_by: set[bytes] = field(default_factory=set)


class _Object(Struct, eq=False):
    object_id: bytes
    size: int
    segment: _Segment
    first_page: int
    num_pages: int
    writer: bytes | None  # None once sealed
    is_freed: bool = False
    is_tainted: bool = False
    readers: set[bytes] = field(default_factory=set)  # how often is in StoreAccount._pins

    @property
    def is_held(self) -> bool:
        return self.writer is not None or bool(self.readers)


class StoreAccount:
    """The account of one node's shared memory, kept by its agent.

    Nothing here waits: where `create` finds no room it returns None, and the caller tries again
    after the next `free`, `unpin`, `seal`, `abandon` or `process_gone`. After every call,
    `take_commands` returns what has to be done to segments; performing a PunchRange late would
    erase an object that was placed there since.

    An object id that is created again (a retried task) replaces the earlier object, which stays
    readable for those who have it pinned.
    """

    def __init__(self, quota_bytes: int, idle_bytes: int, idle_s: float) -> None:
        self.quota_bytes = quota_bytes
        self._quota_pages = quota_bytes // PAGE_BYTES
        self._idle_limit_pages = idle_bytes // PAGE_BYTES
        self._idle_s = idle_s
        self._now = 0.0
        self._used_pages = 0
        self._resident_pages = 0
        self._num_segments_ever = 0
        self._segments: dict[int, _Segment] = {}
        self._open_slabs: dict[int, _Segment] = {}  # those that take new objects
        self._reclaimable: dict[int, _Segment] = {}  # those with unused pages, oldest use first
        self._current: dict[bytes, _Object] = {}
        self._copies: dict[bytes, _Object] = {}  # that other nodes have too, oldest use first
        self._freed: defaultdict[bytes, list[_Object]] = defaultdict(list)  # and still held
        self._owned: defaultdict[bytes, set[bytes]] = defaultdict(set)  # owner → ids in _current
        self._writing: defaultdict[bytes, set[_Object]] = defaultdict(set)
        self._pins: defaultdict[bytes, Counter[bytes]] = defaultdict(Counter)  # process → id → n
        self._commands: list[Command] = []

    # What an object goes through

    def create(self, object_id: bytes, size: int, process: bytes, now: float) -> Placement | None:
        """Place an object that `process` is going to write; None while there is no room.

        Raises ObjectStoreFullError when the object alone exceeds the quota.
        """
        self._now = max(now, self._now)
        num_pages = pages_for(size)
        if num_pages > self._quota_pages:
            raise ObjectStoreFullError(
                f"object {object_id.hex()} of {_show(size)} is larger than the whole object store"
                f" ({_show(self.quota_bytes)}); start the node with a larger object_store_memory,"
                " or split the object"
            )
        self.abandon(object_id, process)  # its earlier attempt, in the same process, is over
        self.free(object_id)
        self._evict_copies(num_pages)
        if self._used_pages + num_pages > self._quota_pages:
            return None  # spilling will move sealed, unpinned objects out of the way here
        is_large = num_pages * PAGE_BYTES >= LARGE_BYTES
        segment = (self._idle_segment if is_large else self._slab_with_room)(num_pages, process)
        is_new = segment is None
        if segment is None:
            segment = self._new_segment(num_pages, is_slab=not is_large)
        first_page = segment.pages.find(num_pages)
        assert first_page is not None
        is_resident = segment.pages.are_resident(first_page, num_pages)
        made = _Object(object_id, size, segment, first_page, num_pages, writer=process)
        self._current[object_id] = made
        self._owned[owner_of(object_id)].add(object_id)
        self._writing[process].add(made)
        segment.written_by.add(process)
        segment.num_objects += 1
        self._uncount(segment)
        segment.pages.take(first_page, num_pages)
        self._count(segment)
        self._reclaim_until(lambda: self._resident_pages <= self._quota_pages)
        return _placement(made, is_new=is_new, is_resident=is_resident)

    def seal(self, object_id: bytes, process: bytes, is_copy: bool = False) -> None:
        """The writer is done: the object can be opened. Ignored when it has been dropped since.

        `is_copy`: another node has the object too, so this one may drop it when room is short.
        """
        for made in self._objects(object_id):
            if made.writer == process:
                self._end_writing(made)
                if is_copy and not made.is_freed:
                    self._copies[object_id] = made
                self._drop_if_unheld(made)

    def abandon(self, object_id: bytes, process: bytes) -> None:
        """The writer gives up: what it has not sealed is dropped, and its memory with it."""
        for made in self._objects(object_id):
            if made.writer == process:
                self._abandon(made)

    def open(self, object_id: bytes, process: bytes) -> Placement | None:
        """Pin the object for `process`, once more; None when it is unknown or not sealed."""
        made = self._current.get(object_id)
        if made is None or made.writer is not None:
            return None
        self._pins[process][object_id] += 1
        made.readers.add(process)
        if object_id in self._copies:  # last: used most recently
            self._copies[object_id] = self._copies.pop(object_id)
        return _placement(made, is_new=False, is_resident=True)

    def is_being_written(self, object_id: bytes) -> bool:
        """Whether the object has been created, and neither sealed nor dropped since."""
        made = self._current.get(object_id)
        return made is not None and made.writer is not None

    def has(self, object_id: bytes) -> bool:
        """Whether the object can be opened, or will be when its writer is done."""
        return object_id in self._current

    def unpin(self, object_id: bytes, process: bytes, is_tainted: bool = False) -> None:
        """Take back one pin; ignored when the process has none, for it may have been dropped.

        `is_tainted`: the process forked while it had the object mapped, so the fork may read it
        for as long as it lives. That memory is never reused, only dropped.

        Where a process pinned an object and also what replaced it, it holds both until its last
        pin on that id falls: the message does not say which one it let go.
        """
        counts = self._pins.get(process)
        if counts is None or object_id not in counts:
            return
        counts[object_id] -= 1
        is_last = not counts[object_id]
        if is_last:
            del counts[object_id]
            if not counts:
                del self._pins[process]
        self._release(object_id, process, is_last=is_last, is_tainted=is_tainted)

    def free(self, object_id: bytes) -> None:
        """The owner lets go; the memory is unused when the last pin falls and no one writes."""
        made = self._current.pop(object_id, None)
        if made is None:
            return
        _discard(self._owned, owner_of(object_id), object_id)
        self._copies.pop(object_id, None)
        made.is_freed = True
        self._freed[object_id].append(made)
        self._drop_if_unheld(made)

    def process_gone(self, process: bytes) -> None:
        """Drop what the process was writing, its pins, and every object that it owned.

        Its pins count as tainted: it can no longer tell whether it left forks that still read.
        """
        for made in tuple(self._writing.get(process, ())):
            self._abandon(made)
        for object_id in self._pins.pop(process, Counter()):
            self._release(object_id, process, is_last=True, is_tainted=True)
        for object_id in tuple(self._owned.get(process, ())):
            self.free(object_id)
        for segment in self._segments.values():
            segment.written_by.discard(process)

    # Time, commands, status

    def expire(self, now: float) -> None:
        """Give back the memory of segments whose unused pages waited `idle_s` for reuse."""
        self._now = max(now, self._now)
        self._reclaim_until(
            lambda: next(iter(self._reclaimable.values())).last_use_s + self._idle_s > self._now
        )

    def take_commands(self) -> list[Command]:
        """What has to be done to segments now, in this order."""
        commands, self._commands = self._commands, []
        return commands

    @property
    def used_bytes(self) -> int:
        """Memory of objects, up to the ends of their last pages."""
        return self._used_pages * PAGE_BYTES

    @property
    def idle_bytes(self) -> int:
        """Memory that is kept warm for objects to come."""
        return (self._resident_pages - self._used_pages) * PAGE_BYTES

    @property
    def num_objects(self) -> int:
        """Objects that are being written or can be opened."""
        return len(self._current)

    @property
    def num_segments(self) -> int:
        """Segments that the agent has a descriptor of."""
        return len(self._segments)

    def full_error(
        self, object_id: bytes, size: int, names: Mapping[bytes, str] | None = None
    ) -> ObjectStoreFullError:
        """What to raise when the wait for room for this object ran out.

        `names` says how to call the processes that hold objects; others are shown by their ids.
        """
        every = [*self._current.values(), *(made for some in self._freed.values() for made in some)]
        largest = nlargest(NUM_NAMED_HOLDERS, every, key=lambda made: made.num_pages)
        return ObjectStoreFullError(
            f"object {object_id.hex()} of {_show(size)} found no room in the object store:"
            f" {_show(self.used_bytes)} of {_show(self.quota_bytes)} are in use by"
            f" {len(every)} objects. The largest: "
            + "; ".join(_describe(made, names or {}) for made in largest)
            + ". Let go of references (del ref, smaller batches), or start the node with a larger"
            " object_store_memory"
        )

    # How an object's memory comes back

    def _objects(self, object_id: bytes) -> list[_Object]:
        current = self._current.get(object_id)
        return [*self._freed.get(object_id, ()), *([current] if current else ())]

    def _release(
        self, object_id: bytes, process: bytes, *, is_last: bool, is_tainted: bool
    ) -> None:
        for made in self._objects(object_id):
            if process not in made.readers:
                continue
            if is_tainted:
                made.is_tainted = made.segment.is_tainted = True
                self._open_slabs.pop(made.segment.number, None)
            if is_last:
                made.readers.discard(process)
                self._drop_if_unheld(made)

    def _evict_copies(self, num_pages: int) -> None:
        """Drop copies that nobody looks at, until there is room for so many pages."""
        for object_id, made in list(self._copies.items()):
            if self._used_pages + num_pages <= self._quota_pages:
                return
            if not made.is_held:
                self.free(object_id)

    def _end_writing(self, made: _Object) -> None:
        assert made.writer is not None
        _discard(self._writing, made.writer, made)
        made.writer = None

    def _abandon(self, made: _Object) -> None:
        """Drop an object that may be half written, and pages that may not be resident yet."""
        self._end_writing(made)
        if self._current.get(made.object_id) is made:
            self.free(made.object_id)
        else:
            self._drop_if_unheld(made)
        if made.segment.number in self._segments:
            self._reclaim(made.segment)

    def _drop_if_unheld(self, made: _Object) -> None:
        if not made.is_freed or made.is_held:
            return
        freed = self._freed[made.object_id]
        freed.remove(made)
        if not freed:
            del self._freed[made.object_id]
        segment = made.segment
        segment.num_objects -= 1
        if not made.is_tainted:
            self._uncount(segment)
            segment.pages.give_back(made.first_page, made.num_pages)
            self._count(segment)
        if segment.is_tainted and not segment.num_objects:
            self._reclaim(segment)
        elif segment.pages.num_unused > self._idle_limit_pages:
            self._reclaim(segment)  # rather than everything else that is warm
        self._reclaim_until(
            lambda: self._resident_pages - self._used_pages <= self._idle_limit_pages
        )

    # Segments

    def _new_segment(self, num_pages: int, *, is_slab: bool) -> _Segment:
        pages = Pages(SLAB_BYTES // PAGE_BYTES if is_slab else num_pages)
        segment = _Segment(self._num_segments_ever, pages, is_slab)
        self._num_segments_ever += 1
        self._segments[segment.number] = segment
        if is_slab:
            self._open_slabs[segment.number] = segment
        return segment

    def _idle_segment(self, num_pages: int, process: bytes) -> _Segment | None:
        """The best one to recycle for a large object: mapped by the writer, then small.

        Among equals the one used last: readers have it too, and the others go sooner.
        """
        fitting = [
            segment
            for segment in reversed(self._reclaimable.values())
            if not segment.is_slab
            and not segment.num_objects
            and num_pages <= segment.pages.num_resident <= num_pages * MAX_OVERSIZE
        ]
        return min(
            fitting,
            key=lambda segment: (process not in segment.written_by, segment.pages.num_resident),
            default=None,
        )

    def _slab_with_room(self, num_pages: int, process: bytes) -> _Segment | None:
        """The oldest slab with room for a small object, if any; of those the writer has mapped."""
        unmapped: _Segment | None = None
        for segment in self._open_slabs.values():
            if segment.pages.find(num_pages) is None:
                continue
            if process in segment.written_by:
                return segment
            unmapped = unmapped or segment
        return unmapped

    def _uncount(self, segment: _Segment) -> None:
        self._used_pages -= segment.pages.num_taken
        self._resident_pages -= segment.pages.num_resident
        self._reclaimable.pop(segment.number, None)

    def _count(self, segment: _Segment) -> None:
        self._used_pages += segment.pages.num_taken
        self._resident_pages += segment.pages.num_resident
        segment.last_use_s = self._now
        if segment.pages.num_unused:
            self._reclaimable[segment.number] = segment

    def _reclaim_until(self, is_enough: Callable[[], bool]) -> None:
        while self._reclaimable and not is_enough():
            self._reclaim(next(iter(self._reclaimable.values())))

    def _reclaim(self, segment: _Segment) -> None:
        """Give back the memory of a segment's unused pages, or all of it if there is no object."""
        self._uncount(segment)
        if segment.num_objects:
            for first, count in segment.pages.punch():
                self._commands.append(
                    PunchRange(segment.number, first * PAGE_BYTES, count * PAGE_BYTES)
                )
            self._count(segment)
            return
        del self._segments[segment.number]
        self._open_slabs.pop(segment.number, None)
        capacity = segment.pages.num_pages * PAGE_BYTES
        self._commands.append(
            DropSegment(segment.number, capacity, segment.is_tainted, frozenset(segment.written_by))
        )


def _placement(made: _Object, *, is_new: bool, is_resident: bool) -> Placement:
    return Placement(
        segment=made.segment.number,
        offset=made.first_page * PAGE_BYTES,
        size=made.size,
        is_new=is_new,
        capacity=made.segment.pages.num_pages * PAGE_BYTES,
        is_resident=is_resident,
    )


def _discard(sets: dict[bytes, set[T]], key: bytes, item: T) -> None:
    sets[key].remove(item)
    if not sets[key]:
        del sets[key]


def _describe(made: _Object, names: Mapping[bytes, str]) -> str:
    def named(process: bytes) -> str:
        return names.get(process) or process.hex()

    facts = [f"{'let go' if made.is_freed else 'owned'} by {named(owner_of(made.object_id))}"]
    if made.writer is not None:
        facts.append(f"being written by {named(made.writer)}")
    if made.readers:
        facts.append(f"mapped by {', '.join(sorted(map(named, made.readers)))}")
    return f"{_show(made.size)} {made.object_id.hex()} ({', '.join(facts)})"


def _show(size_bytes: int) -> str:
    """Give a size in the largest binary unit that leaves at least one."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"
