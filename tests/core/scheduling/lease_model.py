"""What should the lease scheduler decide? A slow and simple model of it.

Sums are made by adding up, order by sorting, a plan one lease at a time; and all that may be asked
back is looked at anew after each event.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction

from rdata.core.scheduling.leases import (
    Command,
    Grant,
    KillReason,
    KillWorker,
    LeaseScheduler,
    Reclaim,
    StartWorker,
)
from rdata.core.scheduling.reclaim import PATIENCE_S, TENURE_S

WARN_S, IDLE_S = 10.0, 30.0
MAX_STARTING = 8
Sums = dict[str, Fraction]
Party = tuple[bytes, int]


@dataclass
class ModelDemand:
    requester: bytes
    key: int
    job: bytes
    needs: Sums
    holds: Sums
    depth: int
    is_dedicated: bool
    count: int
    number: int
    since: float
    is_overdue: bool = False
    has_warned: bool = False


@dataclass
class ModelLease:
    id: int
    requester: bytes
    key: int
    worker: bytes
    grants: Sums
    depth: int
    is_dedicated: bool
    granted_at: float
    is_blocked: bool = False
    is_over: bool = False
    asked: set[bool] = field(default_factory=set)  # only_if_idle of each Reclaim

    def holds(self, name: str) -> Fraction:
        if self.is_blocked and name == "CPU":
            return Fraction(0)
        return self.grants.get(name, Fraction(0))

    @property
    def is_kept(self) -> bool:
        return not (self.is_over or self.is_dedicated or self.is_blocked or False in self.asked)

    @property
    def is_returning(self) -> bool:
        return self.is_over or (
            False in self.asked and not self.is_blocked and not self.is_dedicated
        )


@dataclass
class ModelWorker:
    job: bytes
    state: str = "starting"
    idle_since: float = 0.0
    is_unused: bool = True
    lease: ModelLease | None = None


@dataclass
class ModelJob:
    num_failed: int = 0
    no_start_before: float = 0.0


def sums(amounts: dict[str, float]) -> Sums:
    return {name: Fraction(amount) for name, amount in amounts.items() if amount}


def fit(needs: Sums, free: Sums) -> bool:
    return all(free.get(name, Fraction(0)) >= amount for name, amount in needs.items())


def minus(left: Sums, right: Sums) -> Sums:
    return {name: left.get(name, Fraction(0)) - right.get(name, Fraction(0)) for name in left}


class LeaseModel:
    """The scheduler, and beside it what should be the case."""

    def set_up(self, num_cpus: float, num_disks: float) -> None:
        """A node without jobs."""
        total = {"CPU": num_cpus, "disk": num_disks}
        ids = (f"w{n}".encode() for n in itertools.count())
        self.scheduler = LeaseScheduler(total, WARN_S, IDLE_S, lambda: next(ids))
        self.total = {name: Fraction(amount) for name, amount in total.items()}
        self.num_cpus = max(1, int(num_cpus))
        self.now = 0.0
        self.jobs: dict[bytes, ModelJob] = {}
        self.workers: dict[bytes, ModelWorker] = {}
        self.leases: dict[int, ModelLease] = {}
        self.demands: dict[Party, ModelDemand] = {}
        self.turns: dict[bytes, int] = {}
        self.numbers = itertools.count(1)
        self.num_jobs = 0

    # ------------------------------------------------------------ what there is, by adding up

    def all_leases(self) -> list[ModelLease]:
        over = [w.lease for w in self.workers.values() if w.lease is not None and w.lease.is_over]
        return [*self.leases.values(), *over]

    def free(self) -> Sums:
        return {
            name: total - sum(lease.holds(name) for lease in self.all_leases())
            for name, total in self.total.items()
        }

    def num_starting(self, job: bytes) -> int:
        return sum(w.job == job and w.state == "starting" for w in self.workers.values())

    def num_idle(self, job: bytes, *, is_unused: bool) -> int:
        idle = [w for w in self.workers.values() if w.job == job and w.state == "idle"]
        return sum(worker.is_unused == is_unused for worker in idle)

    def order(self, demand: ModelDemand, turns: dict[bytes, int]) -> tuple[int, int, int]:
        if demand.is_overdue:
            return (-(10**18), demand.number, 0)
        if demand.depth:
            return (-demand.depth, -demand.number, 0)
        return (0, turns[demand.requester], demand.number)

    def obtainable(self) -> Sums:
        leases = [lease for lease in self.all_leases() if lease.is_kept or lease.is_returning]
        free = self.free().items()
        return {name: f + sum(lease.holds(name) for lease in leases) for name, f in free}

    def num_kept(self, party: Party) -> int:
        return sum(
            lease.is_kept and (lease.requester, lease.key) == party
            for lease in self.leases.values()
        )

    # ------------------------------------------------------------ the plan, a lease at a time

    def plan(self) -> tuple[list[Party], Counter[bytes], Counter[Party]]:
        """Who is granted a lease, in order; starts needed by job; the leases these are for."""
        free, turns = self.free(), dict(self.turns)
        demands = [replace(demand) for demand in self.demands.values()]
        used = {job: self.num_idle(job, is_unused=False) for job in self.jobs}
        unused = {job: self.num_idle(job, is_unused=True) for job in self.jobs}
        granted: list[Party] = []
        starting: Counter[bytes] = Counter()
        started_for: Counter[Party] = Counter()
        late = itertools.count(10**9)
        obtainable = self.obtainable()
        floor: Sums = dict.fromkeys(free, Fraction(0))  # must stay for those that await a start
        passed: set[str] = set()  # places of which none can be served
        while True:
            for demand in sorted(demands, key=lambda d: self.order(d, turns)):
                party, job = (demand.requester, demand.key), demand.job
                kind = f"{job!r} {sorted(demand.needs.items())} {sorted(demand.holds.items())}"
                kind += f" {demand.is_dedicated}"
                if not demand.count or kind in passed:
                    continue
                left = minus(free, demand.holds)
                if not (fit(demand.needs, free) and all(left[n] >= floor[n] for n in demand.holds)):
                    passed.add(kind)
                    if demand.is_overdue and fit(demand.needs, obtainable):
                        free = minus(free, demand.needs)
                    continue
                may_start = starting[job] < self.num_starting(job) or (
                    starting[job] < MAX_STARTING and self.now >= self.jobs[job].no_start_before
                )
                idle = used if used[job] and not demand.is_dedicated else unused
                if idle[job]:
                    idle[job] -= 1
                    granted.append(party)
                    if demand.is_dedicated:
                        obtainable = minus(obtainable, demand.holds)
                    demand.is_overdue = False
                    if not demand.depth:
                        turns[demand.requester], demand.number = next(late), next(late)
                elif may_start:
                    starting[job] += 1
                    started_for[party] += 1
                    obtainable = minus(obtainable, demand.holds)
                    at_first = minus(demand.needs, demand.holds)
                    floor.update({name: max(floor[name], n) for name, n in at_first.items()})
                else:
                    passed.add(kind)
                    continue
                demand.count -= 1
                free = left
                break
            else:
                return granted, starting, started_for

    # ------------------------------------------------------------ events and their commands

    def check_settled(self, commands: Iterable[Command]) -> None:
        """The commands of an event that has the scheduler look at all demands again."""
        granted, starting, started_for = self.plan()
        starts = {job: max(0, n - self.num_starting(job)) for job, n in starting.items()}
        commands = list(commands)
        grants = [c for c in commands if isinstance(c, Grant)]
        assert [(grant.requester, grant.key) for grant in grants] == granted
        started = Counter(c.job for c in commands if isinstance(c, StartWorker))
        assert started == +Counter(starts)
        self.carry_out(commands)
        assert self.plan() == ([], starting, started_for)  # nothing undoes what was planned
        self.check_reclaims(started_for)

    def carry_out(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case StartWorker():
                    assert command.job in self.jobs
                    assert command.worker not in self.workers
                    self.workers[command.worker] = ModelWorker(command.job)
                case Grant():
                    self.carry_out_grant(command)
                case Reclaim():
                    self.carry_out_reclaim(command)
                case _:
                    raise AssertionError(f"unexpected {command}")

    def carry_out_grant(self, grant: Grant) -> None:
        demand = self.demands[grant.requester, grant.key]
        worker = self.workers[grant.worker]
        assert worker.state == "idle"
        assert worker.job == demand.job
        assert worker.is_unused or not demand.is_dedicated
        assert fit(demand.needs, self.free())
        assert sums(dict(grant.resources)) == demand.holds
        assert grant.lease not in self.leases
        lease = ModelLease(
            grant.lease,
            grant.requester,
            grant.key,
            grant.worker,
            demand.holds,
            demand.depth,
            demand.is_dedicated,
            self.now,
        )
        self.leases[grant.lease] = worker.lease = lease
        worker.state, worker.is_unused = "leased", False
        demand.count -= 1
        demand.since, demand.is_overdue = self.now, False
        if not demand.count:
            del self.demands[grant.requester, grant.key]
        self.settle_turn(grant.requester)
        if not demand.depth and grant.requester in self.turns:
            self.turns[grant.requester] = next(self.numbers)
            demand.number = next(self.numbers)

    def carry_out_reclaim(self, reclaim: Reclaim) -> None:
        lease = self.leases[reclaim.lease]
        assert lease.requester == reclaim.requester
        assert lease.is_kept
        assert reclaim.only_if_idle not in lease.asked
        party = (lease.requester, lease.key)
        others = [d for p, d in self.demands.items() if p != party]
        others = [d for d in others if any(lease.holds(name) for name in d.needs)]
        assert others
        if not reclaim.only_if_idle:
            assert any(self.may_ask(demand, lease) for demand in others)
        lease.asked.add(reclaim.only_if_idle)

    def may_ask(self, demand: ModelDemand, lease: ModelLease) -> bool:
        if self.is_patient(demand):
            return False
        if demand.requester != lease.requester:
            if lease.depth < demand.depth:
                return True
            if lease.depth > demand.depth and not demand.is_overdue:
                return False
        return self.now - lease.granted_at >= TENURE_S

    def is_patient(self, demand: ModelDemand) -> bool:
        worker = self.workers.get(demand.requester)
        lease = worker.lease if worker else None
        return lease is not None and not lease.is_blocked and self.now - demand.since < PATIENCE_S

    def check_reclaims(self, started_for: Counter[Party]) -> None:
        """The first that waits in vain has asked for all that it may."""
        spare = self.free()
        for party, count in started_for.items():
            for _ in range(count):
                spare = minus(spare, self.demands[party].holds)
        returning = [lease for lease in self.all_leases() if lease.is_returning]
        spare = {n: s + sum(lease.holds(n) for lease in returning) for n, s in spare.items()}
        waiting = [d for p, d in self.demands.items() if d.count > started_for[p]]
        if not waiting:
            return
        first = min(waiting, key=lambda demand: self.order(demand, self.turns))
        if fit(first.needs, spare):
            return
        party = (first.requester, first.key)
        kept = [
            lease
            for lease in self.leases.values()
            if lease.is_kept and (lease.requester, lease.key) != party
        ]
        is_first_lease = self.num_kept(party) == 0
        may_have = [
            lease
            for lease in kept
            if self.may_ask(first, lease) and (is_first_lease or lease.depth < first.depth)
        ]
        obtainable = {n: s + sum(lease.holds(n) for lease in may_have) for n, s in spare.items()}
        assert not fit(first.needs, obtainable)
        short = [name for name, amount in first.needs.items() if spare[name] < amount]
        if all(
            any(lease.holds(n) for lease in self.leases.values() if lease.is_kept) for n in short
        ):
            for lease in kept:
                if any(lease.holds(name) for name in short) and lease.worker != first.requester:
                    assert lease.asked

    def settle_turn(self, requester: bytes) -> None:
        if not any(d.requester == requester and not d.depth for d in self.demands.values()):
            self.turns.pop(requester, None)

    def kill(self, command: Command, reason: KillReason) -> ModelWorker:
        assert isinstance(command, KillWorker)
        assert command.reason is reason
        worker = self.workers[command.worker]
        assert worker.state != "ending"
        worker.state = "ending"
        if worker.lease is not None:
            worker.lease.is_over = True
            del self.leases[worker.lease.id]
        return worker
