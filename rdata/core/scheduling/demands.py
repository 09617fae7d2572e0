"""Which waiting demand is served next?

Deeper ones first (the children of tasks that are blocked), the newest first among them: so a tree
of tasks is worked off branch by branch. Then the roots: first come, first served, and a requester
that was served goes behind the others, as does each of its demands behind its others. Ahead of all
are the overdue, whose requesters have waited for long and have nothing: none starves, whatever
endless work others have.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from operator import itemgetter

from msgspec import Struct

from rdata.core.scheduling.resources import Units, to_units

Order = tuple[int, int, int]
"""Less is sooner. No two demands have the same."""
OVERDUE = -(2**62)
"""The order of an overdue demand begins with this, of a root with 0."""
Shape = tuple[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]
"""What is needed, what is held: demands of one shape fit, or do not, alike."""
Place = tuple[bytes, Shape, bool]
"""Of a queue: its job, its shape, and whether its workers are to be dedicated."""


class Demand(Struct, frozen=True):
    """What a requester wants: `count` leases of key `key`, beyond those that it was granted.

    `resources` must be free for it to be placed; `held` is what a lease then holds for life (an
    actor by default: one CPU to be placed, none while it lives), None for the same. `depth` is
    how many tasks deep the work was submitted, 0 for a driver. `dedicated`: the workers never
    return to the pool.
    """

    key: int
    resources: Mapping[str, float]
    count: int
    depth: int = 0
    held: Mapping[str, float] | None = None
    dedicated: bool = False


class Waiting(Struct, eq=False):
    """A demand in the queue."""

    requester: bytes
    key: int
    job: bytes
    depth: int
    needs: Units
    holds: Units
    is_dedicated: bool
    count: int
    number: int
    since: float  # of its last grant, or of its arrival
    place: Place
    order: Order = (0, 0, 0)
    is_overdue: bool = False  # it has waited for long since its last grant
    has_warned: bool = False


Queue = list[tuple[Order, Waiting]]
"""Demands of one place, soonest first."""


def needs_and_holds(demand: Demand) -> tuple[Units, Units]:
    """What must be free for a lease, and what it then holds. What is held must be free, too."""
    needs = to_units(demand.resources)
    if demand.held is None:
        return needs, needs
    holds = to_units(demand.held)
    for name, count in holds.items():
        needs[name] = max(count, needs.get(name, 0))
    return needs, holds


class DemandQueue:
    """All demands that wait, by place."""

    def __init__(self) -> None:
        self._queues: dict[Place, Queue] = {}
        self._by_requester: dict[bytes, dict[int, Waiting]] = {}
        self._turns: dict[bytes, int] = {}  # of requesters with roots: who waits longest is next
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[Waiting]:
        return (waiting for queue in self._queues.values() for _, waiting in queue)

    def queues(self) -> list[Queue]:
        """The queues that are not empty. Not to be changed, and valid until the next change."""
        return list(self._queues.values())

    def has(self, requester: bytes) -> bool:
        """Tell whether the requester waits for anything."""
        return requester in self._by_requester

    def find(self, requester: bytes, key: int) -> Waiting | None:
        """The requester's demand of that key."""
        return self._by_requester.get(requester, {}).get(key)

    def put(
        self, requester: bytes, job: bytes, demand: Demand, needs: Units, holds: Units, now: float
    ) -> None:
        """Enter a demand, in place of an earlier one of the same key, whose place it keeps."""
        earlier = self.find(requester, demand.key)
        is_same = (
            earlier is not None
            and earlier.job == job
            and earlier.depth == demand.depth
            and earlier.is_dedicated == demand.dedicated
            and earlier.needs == needs
            and earlier.holds == holds
        )
        if earlier is not None and is_same:
            earlier.count = demand.count
            return
        turn = self._turns.get(requester)
        shape = (tuple(sorted(needs.items())), tuple(sorted(holds.items())))
        waiting = Waiting(
            requester,
            demand.key,
            job,
            demand.depth,
            needs,
            holds,
            demand.dedicated,
            demand.count,
            earlier.number if earlier else next(self._numbers),
            earlier.since if earlier else now,
            (job, shape, demand.dedicated),
        )
        if earlier is not None:
            self.drop(earlier)
        if demand.depth <= 0:
            self._turns[requester] = waiting.number if turn is None else turn
        self._by_requester.setdefault(requester, {})[demand.key] = waiting
        self._enqueue(waiting)

    def served(self, waiting: Waiting, now: float) -> None:
        """One lease less is wanted; a root's requester goes behind the others."""
        waiting.count -= 1
        waiting.since, waiting.is_overdue = now, False
        if waiting.count == 0:
            self.drop(waiting)
        moved = [waiting] if waiting.count else []
        if waiting.depth <= 0 and waiting.requester in self._turns:
            demands = self._by_requester[waiting.requester].values()
            moved = [other for other in demands if other.depth <= 0]
            self._turns[waiting.requester] = next(self._numbers)
            waiting.number = next(self._numbers)
        for other in moved:
            self._dequeue(other)
            self._enqueue(other)

    def set_overdue(self, waiting: Waiting) -> None:
        """Put the demand ahead, until it is served."""
        self._dequeue(waiting)
        waiting.is_overdue = True
        self._enqueue(waiting)

    def drop(self, waiting: Waiting) -> None:
        """Forget the demand."""
        self._dequeue(waiting)
        demands = self._by_requester[waiting.requester]
        del demands[waiting.key]
        if not any(other.depth <= 0 for other in demands.values()):
            self._turns.pop(waiting.requester, None)
        if not demands:
            del self._by_requester[waiting.requester]

    def drop_requester(self, requester: bytes) -> None:
        """Forget the requester's demands."""
        for waiting in list(self._by_requester.get(requester, {}).values()):
            self.drop(waiting)

    def drop_job(self, job: bytes) -> None:
        """Forget the job's demands."""
        for waiting in [waiting for waiting in self if waiting.job == job]:
            self.drop(waiting)

    def _enqueue(self, waiting: Waiting) -> None:
        if waiting.is_overdue:
            waiting.order = (OVERDUE, waiting.number, 0)
        elif waiting.depth > 0:
            waiting.order = (-waiting.depth, -waiting.number, 0)
        else:
            waiting.order = (0, self._turns[waiting.requester], waiting.number)
        queue = self._queues.setdefault(waiting.place, [])
        insort(queue, (waiting.order, waiting))

    def _dequeue(self, waiting: Waiting) -> None:
        queue = self._queues[waiting.place]
        del queue[bisect_left(queue, waiting.order, key=itemgetter(0))]
        if not queue:
            del self._queues[waiting.place]
