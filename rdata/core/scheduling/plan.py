"""Who of those that wait gets a worker now, and for whom is one to be started?

In the order of the demands, as far as the free resources reach. What awaits a worker that is being
started counts as taken, so that nobody behind it snatches it away in the meantime.
"""

from __future__ import annotations

import heapq
import itertools

from msgspec import Struct, field

from rdata.core.scheduling.demands import OVERDUE, DemandQueue, Order, Queue, Waiting
from rdata.core.scheduling.ledger import Ledger
from rdata.core.scheduling.resources import fits
from rdata.core.scheduling.roster import Job, Roster

_LATE = 2**62  # turns that come in a plan are later than all that have been

_Entry = tuple[Order, Waiting, int, Queue, int]
"""Order, demand, leases that it still wants, its queue, its index there (-1: seen already)."""


class Plan(Struct):
    """What to do about the demands."""

    spare: dict[str, int]  # free after all this
    grants: list[Waiting] = field(default_factory=list)  # a lease each, in this order
    starting: dict[Waiting, int] = field(default_factory=dict)  # leases that await a worker's start
    num_starting: dict[Job, int] = field(default_factory=dict)  # the same by job


class Planner:
    """Makes one plan of the state that it is given, and changes nothing."""

    def __init__(
        self, demands: DemandQueue, ledger: Ledger, roster: Roster, max_starting: int, now: float
    ) -> None:
        self._demands, self._ledger, self._roster = demands, ledger, roster
        self._max_starting, self._now = max_starting, now
        self._plan = Plan(dict(ledger.free))
        self._free = dict(ledger.free)  # for whoever is next
        self._committed: dict[str, int] = {}  # what does not come back soon of what was taken
        self._floor: dict[str, int] = {}  # of that, what must stay for those that await a start
        self._num_idle: dict[Job, tuple[int, int]] = {}  # used, unused
        self._turns: dict[bytes, int] = {}
        self._late = itertools.count(_LATE)

    def make(self) -> Plan:
        """The plan."""
        heap: list[_Entry] = []
        for queue in self._demands.queues():
            order, first = queue[0]
            if first.is_overdue or fits(first.needs, self._free):
                heap.append((order, first, first.count, queue, 0))
        heapq.heapify(heap)
        while heap:
            order, waiting, wanted, queue, index = heapq.heappop(heap)
            if not self._has_room(waiting):
                if order[0] == OVERDUE:
                    self._hold_back(waiting)
                continue  # nor does anything behind it in its queue
            turn = self._turns.get(waiting.requester, 0)
            is_its_turn = order[0] < 0 or turn <= order[1]
            if not is_its_turn:  # its requester was served in the meantime
                order = (0, turn, order[2])
            elif self._grant(waiting):
                wanted -= 1
                order = self._next_order(waiting)
            elif self._start(waiting):
                wanted -= 1  # it keeps its place until it is granted
            else:
                continue  # its job gets no further worker, so nor does its queue
            if 0 <= index < len(queue) - 1:
                next_order, following = queue[index + 1]
                heapq.heappush(heap, (next_order, following, following.count, queue, index + 1))
            if wanted:
                heapq.heappush(heap, (order, waiting, wanted, queue, -1))
        return self._plan

    def _has_room(self, waiting: Waiting) -> bool:
        if not fits(waiting.needs, self._free):
            return False
        floor = self._floor
        return all(self._free[n] - c >= floor.get(n, 0) for n, c in waiting.holds.items())

    def _grant(self, waiting: Waiting) -> bool:
        job = self._roster.jobs[waiting.job]
        num_used, num_unused = self._num_idle.get(job, (len(job.used), len(job.unused)))
        if num_used and not waiting.is_dedicated:
            num_used -= 1
        elif num_unused:
            num_unused -= 1
        else:
            return False
        self._num_idle[job] = num_used, num_unused
        self._plan.grants.append(waiting)
        self._take(waiting, is_for_good=waiting.is_dedicated)
        return True

    def _start(self, waiting: Waiting) -> bool:
        job = self._roster.jobs[waiting.job]
        if not self._may_start(job):
            return False
        self._plan.num_starting[job] = self._plan.num_starting.get(job, 0) + 1
        self._plan.starting[waiting] = self._plan.starting.get(waiting, 0) + 1
        self._take(waiting, is_for_good=True)
        for name, count in waiting.needs.items():
            only_at_first = count - waiting.holds.get(name, 0)
            self._floor[name] = max(self._floor.get(name, 0), only_at_first)
        return True

    def _take(self, waiting: Waiting, *, is_for_good: bool) -> None:
        for name, count in waiting.holds.items():
            self._free[name] -= count
            self._plan.spare[name] -= count
            if is_for_good:
                self._committed[name] = self._committed.get(name, 0) + count

    def _next_order(self, waiting: Waiting) -> Order:
        """As it will be once the demand has been served."""
        if waiting.depth > 0:
            return (-waiting.depth, -waiting.number, 0)
        self._turns[waiting.requester] = next(self._late)
        return (0, self._turns[waiting.requester], next(self._late))

    def _may_start(self, job: Job) -> bool:
        num_planned = self._plan.num_starting.get(job, 0)
        if num_planned < job.num_starting:
            return True
        return num_planned < self._max_starting and self._now >= job.no_start_before

    def _hold_back(self, waiting: Waiting) -> None:
        """Keep what is free for a demand that has waited long for the rest of what it needs.

        Else one for many CPUs would starve among those for few. Only if every resource can be had
        from leases that end or are asked back: what a blocked task or an actor holds may depend
        on the very work that this would hold up.
        """
        obtainable = {
            name: self._ledger.obtainable(name) - self._committed.get(name, 0)
            for name in waiting.needs
        }
        if fits(waiting.needs, obtainable):
            for name, count in waiting.needs.items():
                self._free[name] -= count
