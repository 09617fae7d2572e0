"""Does the account keep its promises whatever happens, in whatever order?

Beside the account runs a machine that has memory: it does what placements and commands say, page
by page, and processes write and read there. What a reader may still look at must never change.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rdata.core.store.accounting import LARGE_BYTES, DropSegment, StoreAccount
from rdata.core.store.pages import PAGE_BYTES, pages_for
from rdata.errors import ObjectStoreFullError

QUOTA_PAGES = 6000
IDLE_PAGES = 2500
IDLE_S = 10.0
LARGE_PAGES = LARGE_BYTES // PAGE_BYTES
NOTHING = 0  # what a page holds that no one has written to

PROCESSES = [bytes([number]) * 8 for number in range(3)]
A_PROCESS = st.sampled_from(PROCESSES)
AN_ID = st.builds(
    lambda owner, index: owner + index.to_bytes(12, "little"), A_PROCESS, st.integers(0, 2)
)
# Few sizes, so that what one object leaves fits another.
A_SMALL_SIZE = st.sampled_from([0, PAGE_BYTES, PAGE_BYTES + 1, 300 * PAGE_BYTES, LARGE_BYTES - 1])
A_LARGE_SIZE = st.sampled_from(
    [pages * PAGE_BYTES - 1 for pages in (LARGE_PAGES + 1, LARGE_PAGES + 400, 2 * LARGE_PAGES)]
)
A_HUGE_SIZE = st.sampled_from([QUOTA_PAGES * PAGE_BYTES, QUOTA_PAGES * PAGE_BYTES + 1])
A_SIZE = A_SMALL_SIZE | A_LARGE_SIZE | A_LARGE_SIZE | A_HUGE_SIZE


@dataclass(eq=False)
class Segment:
    content: npt.NDArray[np.int64]  # which object was written to each page
    is_resident: npt.NDArray[np.bool_]
    is_written: npt.NDArray[np.bool_]  # to the end, since the page was last punched
    is_tainted: npt.NDArray[np.bool_]  # a fork may look at the page


@dataclass(eq=False)
class Object:
    stamp: int
    object_id: bytes
    segment: int
    pages: slice
    writer: bytes | None
    is_freed: bool = False
    is_copy: bool = False
    is_tainted: bool = False
    views: Counter[bytes] = field(default_factory=Counter)  # process → views that it has
    believed: set[bytes] = field(default_factory=set)  # processes that the account waits for

    @property
    def num_pages(self) -> int:
        return int(self.pages.stop - self.pages.start)


class Store(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.account = StoreAccount(QUOTA_PAGES * PAGE_BYTES, IDLE_PAGES * PAGE_BYTES, IDLE_S)
        self.now = 0.0
        self.stamps = 0
        self.segments: dict[int, Segment] = {}
        self.objects: list[Object] = []  # all whose memory may not be reused

    # What processes do

    @rule(object_id=AN_ID, size=A_SIZE, process=A_PROCESS, is_done=st.booleans())
    def create(self, object_id: bytes, size: int, process: bytes, is_done: bool) -> None:
        num_pages = pages_for(size)
        if num_pages > QUOTA_PAGES:
            with pytest.raises(ObjectStoreFullError):
                self.account.create(object_id, size, process, self.now)
            return
        placement = self.account.create(object_id, size, process, self.now)
        for made in self.objects:
            if made.object_id == object_id:
                made.is_freed = True
                made.writer = None if made.writer == process else made.writer
        evicted = [made for made in self.live() if not self.account.has(made.object_id)]
        for made in evicted:
            assert self.is_evictable(made)
            assert self.used_pages() + num_pages > QUOTA_PAGES, "there was room"
            made.is_freed = True
            self.settle()
        self.settle()
        if placement is None:
            self.perform()
            assert not any(map(self.is_evictable, self.live())), "there is something to drop"
            assert self.used_pages() + num_pages > QUOTA_PAGES, "there is room"
            return
        assert placement.size == size
        first, rest = divmod(placement.offset, PAGE_BYTES)
        assert rest == 0
        pages = slice(first, first + num_pages)
        self.perform(being_placed=placement.segment)
        assert placement.is_new == (placement.segment not in self.segments)
        if placement.is_new:
            count = placement.capacity // PAGE_BYTES
            self.segments[placement.segment] = Segment(
                np.full(count, NOTHING), *(np.zeros(count, bool) for _ in range(3))
            )
        segment = self.segments[placement.segment]
        assert pages.stop * PAGE_BYTES <= placement.capacity
        assert placement.capacity == len(segment.content) * PAGE_BYTES
        assert placement.is_resident == segment.is_resident[pages].all()
        assert segment.is_written[pages].all() or not placement.is_resident
        assert not segment.is_tainted.any(), "a fork looks at pages here"
        self.stamps += 1
        self.objects.append(Object(self.stamps, object_id, placement.segment, pages, process))
        segment.content[pages] = self.stamps
        segment.is_resident[pages] = True
        segment.is_written[pages] &= placement.is_resident
        if is_done:
            self.finish(self.objects[-1])

    def being_written(self) -> list[Object]:
        return [made for made in self.objects if made.writer is not None]

    @precondition(being_written)
    @rule(data=st.data(), is_copy=st.booleans())
    def seal(self, data: st.DataObject, is_copy: bool) -> None:
        self.finish(data.draw(st.sampled_from(self.being_written())), is_copy)

    def finish(self, made: Object, is_copy: bool = False) -> None:
        assert made.writer is not None
        self.account.seal(made.object_id, made.writer, is_copy)
        made.is_copy = is_copy
        self.segments[made.segment].is_written[made.pages] = True
        made.writer = None

    @precondition(being_written)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        made = data.draw(st.sampled_from(self.being_written()))
        assert made.writer is not None
        self.account.abandon(made.object_id, made.writer)
        made.writer, made.is_freed = None, True

    @staticmethod
    def is_evictable(made: Object) -> bool:
        return made.is_copy and made.writer is None and not made.believed

    def live(self) -> list[Object]:
        return [made for made in self.objects if not made.is_freed]

    @precondition(live)
    @rule(data=st.data(), process=A_PROCESS)
    def open(self, data: st.DataObject, process: bytes) -> None:
        made = data.draw(st.sampled_from(self.live()))
        placement = self.account.open(made.object_id, process)
        if made.writer is not None:
            assert placement is None
            return
        assert placement is not None
        assert placement.segment == made.segment
        assert placement.offset == made.pages.start * PAGE_BYTES
        assert not placement.is_new
        made.views[process] += 1
        made.believed.add(process)

    @rule(object_id=AN_ID)
    def what_is_not_there_is_not_found(self, object_id: bytes) -> None:
        if object_id not in {made.object_id for made in self.live()}:
            assert self.account.open(object_id, PROCESSES[0]) is None

    def viewed(self) -> list[tuple[Object, bytes]]:
        return [(made, process) for made in self.objects for process in sorted(made.views)]

    @precondition(viewed)
    @rule(data=st.data(), is_tainted=st.sampled_from([False, False, True]))
    def unpin(self, data: st.DataObject, is_tainted: bool) -> None:
        made, process = data.draw(st.sampled_from(self.viewed()))
        self.account.unpin(made.object_id, process, is_tainted)
        made.views[process] -= 1
        made.views = +made.views
        alike = [m for m in self.objects if m.object_id == made.object_id]
        for other in alike:
            if is_tainted and process in other.believed:
                self.taint(other)
        if not any(other.views[process] for other in alike):
            for other in alike:
                other.believed.discard(process)

    @rule(object_id=AN_ID, process=A_PROCESS)
    def a_pin_that_is_not_there_is_not_taken_back(self, object_id: bytes, process: bytes) -> None:
        alike = [made for made in self.objects if made.object_id == object_id]
        if not any(made.views[process] for made in alike):
            self.account.unpin(object_id, process)

    @precondition(live)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        made = data.draw(st.sampled_from(self.live()))
        self.account.free(made.object_id)
        made.is_freed = True

    @rule(process=A_PROCESS)
    def die(self, process: bytes) -> None:
        self.account.process_gone(process)
        for made in self.objects:
            if made.writer == process:
                made.writer, made.is_freed = None, True
            if made.object_id.startswith(process):
                made.is_freed = True
            if process in made.believed:
                self.taint(made)  # its forks live on
            del made.views[process]
            made.believed.discard(process)

    @rule(seconds=st.floats(0, 2 * IDLE_S))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.account.expire(self.now)
        if seconds >= IDLE_S:
            assert self.account.idle_bytes == 0

    # What the machine does

    def taint(self, made: Object) -> None:
        made.is_tainted = True
        self.segments[made.segment].is_tainted[made.pages] = True

    def settle(self) -> None:
        self.objects = [
            made
            for made in self.objects
            if not made.is_freed or made.writer is not None or made.believed
        ]

    def perform(self, being_placed: int | None = None) -> None:
        for command in self.account.take_commands():
            segment = self.segments[command.segment]
            if isinstance(command, DropSegment):
                assert command.segment != being_placed
                assert not [m for m in self.objects if m.segment == command.segment]
                assert command.is_tainted == segment.is_tainted.any()
                assert command.capacity == len(segment.content) * PAGE_BYTES
                del self.segments[command.segment]
            else:
                first, count = command.offset // PAGE_BYTES, command.length // PAGE_BYTES
                punched = slice(first, first + count)
                assert not segment.is_tainted[punched].any(), "a fork looks at these pages"
                segment.content[punched] = NOTHING
                segment.is_resident[punched] = segment.is_written[punched] = False

    def catch_up(self) -> None:
        self.settle()
        self.perform()

    def used_pages(self) -> int:
        """Pages of objects, and those of dead ones that cannot come back without their segment."""
        lost = 0
        for number, segment in self.segments.items():
            tainted = segment.is_tainted.copy()
            for made in self.objects:
                if made.segment == number:
                    tainted[made.pages] = False
            lost += int(tainted.sum())
        return sum(made.num_pages for made in self.objects) + lost

    @invariant()
    def nothing_that_is_held_has_changed(self) -> None:
        self.catch_up()
        for made in self.objects:
            assert (self.segments[made.segment].content[made.pages] == made.stamp).all()

    @invariant()
    def memory_is_what_is_accounted_for(self) -> None:
        self.catch_up()
        resident = sum(int(segment.is_resident.sum()) for segment in self.segments.values())
        used = self.used_pages()
        assert self.account.used_bytes == used * PAGE_BYTES
        assert self.account.idle_bytes == (resident - used) * PAGE_BYTES
        assert resident <= QUOTA_PAGES
        assert resident - used <= IDLE_PAGES
        assert self.account.num_segments == len(self.segments)
        assert self.account.num_objects == len(self.live())

    def teardown(self) -> None:
        """Everyone dies: all memory comes back."""
        for process in PROCESSES:
            self.die(process)
        self.catch_up()
        self.account.expire(self.now + IDLE_S)
        self.catch_up()
        assert not self.objects
        assert not self.segments
        assert (self.account.used_bytes, self.account.idle_bytes) == (0, 0)
        records = [value for value in vars(self.account).values() if isinstance(value, dict | list)]
        assert not any(records), "something about the dead is kept"


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=150, stateful_step_count=60)
