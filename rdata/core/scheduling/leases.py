"""Which requester gets which worker of this node, and when?

A pure state machine: each event, with its time, returns the commands that follow from it.

    demand ──► DemandQueue ──► Plan ──► Grant, StartWorker
                                 └────► Reclaim, from those who have what others wait for

Rules. A worker belongs to one job; a detached actor is a job of its own. A demand that fits is
served at once, if need be by a worker that is started for it; deeper ones first. A blocked worker
hands back its CPU and retakes it when it goes on, as debt if need be: no further lease then gets
CPU until that is repaid. A dedicated worker has run nothing before: its process ends with its
actor, and what tasks had left there to be owned would be lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from msgspec import Struct

from rdata.core.options import UNITS_PER_ONE
from rdata.core.scheduling.commands import (
    Command,
    Grant,
    Infeasible,
    KillReason,
    KillWorker,
    Reclaim,
    StartWorker,
    WarnWaiting,
)
from rdata.core.scheduling.demands import Demand, DemandQueue, Waiting, needs_and_holds
from rdata.core.scheduling.ledger import Lease, Ledger
from rdata.core.scheduling.plan import Planner
from rdata.core.scheduling.reclaim import Reclaimer
from rdata.core.scheduling.resources import (
    CPU,
    Amounts,
    Units,
    describe,
    fits,
    number,
    to_amounts,
    to_units,
)
from rdata.core.scheduling.roster import Job, Roster, Worker, WorkerState
from rdata.errors import OptionError

__all__ = [
    "Command",
    "Demand",
    "Grant",
    "Infeasible",
    "KillReason",
    "KillWorker",
    "LeaseScheduler",
    "Reclaim",
    "StartWorker",
    "Status",
    "WarnWaiting",
    "WorkerState",
]

_MIN_STARTING = 8  # workers a job may have in start; fewer: many actors start slowly; more: a crowd
_MAX_HOLDERS_NAMED = 5


class Status(Struct, frozen=True):
    """The node in numbers."""

    total: Amounts
    available: Amounts
    num_workers: dict[WorkerState, int]
    num_leases: int
    num_blocked: int
    num_waiting: int  # leases that are wanted


class LeaseScheduler:
    """One node's leases. Not thread-safe.

    `total` is what the node has, CPU among it. `new_id` names workers. `name_of` gives the words
    for a process in messages; without it, the start of its id.
    """

    def __init__(
        self,
        total: Amounts,
        warn_waiting_s: float,
        worker_idle_s: float,
        new_id: Callable[[], bytes],
        name_of: Callable[[bytes], str] | None = None,
        first_lease: int = 1,
    ) -> None:
        self._ledger = Ledger(to_units(total))
        self._roster = Roster(new_id)
        self._demands = DemandQueue()
        self._total = {CPU: 0.0, **total}
        self._warn_waiting_s = warn_waiting_s
        self._worker_idle_s = worker_idle_s
        self._name_of = name_of or (lambda process: f"process {process.hex()[:8]}")
        self._num_cpus = max(1, self._ledger.total.get(CPU, 0) // UNITS_PER_ONE)
        self._max_starting = max(_MIN_STARTING, 2 * self._num_cpus)
        self._lease_ids = itertools.count(first_lease)

    # ------------------------------------------------------------ jobs and workers

    def job_started(self, job: bytes, now: float, max_ahead: int | None = None) -> list[Command]:
        """A driver has come: workers are started for it ahead of its first task, one a CPU.

        No more than `max_ahead`: a node may be told of more CPUs than there are.
        """
        if job in self._roster.jobs:
            return []
        entered = self._roster.add_job(job)
        count = self._num_cpus if max_ahead is None else min(self._num_cpus, max_ahead)
        return [self._start(entered) for _ in range(count)]

    def job_ended(self, job: bytes, now: float) -> list[Command]:
        """A driver is gone: its demands are dropped and its workers killed."""
        ended = self._roster.jobs.pop(job, None)
        if ended is None:
            return []
        self._demands.drop_job(job)
        workers = [w for w in ended.workers.values() if w.state is not WorkerState.ENDING]
        kills = [self._kill(worker, KillReason.JOB_ENDED) for worker in workers]
        return [*kills, *self._advance(now)]

    def worker_ready(self, worker: bytes, job: bytes, now: float) -> list[Command]:
        """A worker has started, or declines to retire."""
        entered = self._roster.workers.get(worker)
        if entered is None or entered.job.id != job or entered.state is WorkerState.ENDING:
            return [KillWorker(worker, KillReason.UNEXPECTED)]
        if entered.state in (WorkerState.STARTING, WorkerState.RETIRING):
            self._roster.set_idle(entered, now)
        return self._advance(now)

    def preloaded(self) -> list[Command]:
        """Workers that are started from now on are the better ones: replace those not used yet."""
        commands: list[Command] = []
        for worker in self._roster.unused():
            commands += [self._start(worker.job), self._kill(worker, KillReason.REPLACED)]
        return commands

    def worker_gone(self, worker: bytes, now: float) -> list[Command]:
        """A worker's process has ended, for whatever reason: what its lease held is free."""
        entered = self._roster.workers.get(worker)
        if entered is None:
            return []
        if entered.lease is not None:
            self._ledger.release(entered.lease)
        self._roster.remove(entered, now)
        return self._advance(now)

    def blocked(self, worker: bytes, now: float) -> list[Command]:
        """The worker's task waits for others: it hands back its CPU, and only that."""
        return self._set_blocked(worker, True, now)

    def unblocked(self, worker: bytes, now: float) -> list[Command]:
        """The worker's task goes on: it has its CPU again, whether or not that is free."""
        return self._set_blocked(worker, False, now)

    def detached(self, worker: bytes) -> None:
        """The dedicated worker outlives its job and who leased it: it is a job of its own name."""
        entered = self._roster.workers.get(worker)
        lease = entered.lease if entered is not None else None
        if entered is None or lease is None or worker in self._roster.jobs:
            return
        if lease.is_ending or not lease.is_dedicated:
            return
        self._ledger.hand_over(lease, worker)
        self._roster.move(entered, self._roster.add_job(worker))

    # ------------------------------------------------------------ requesters

    def demand(self, requester: bytes, job: bytes, demand: Demand, now: float) -> list[Command]:
        """The requester now wants `demand.count` leases beyond those granted; 0: none any more.

        Replaces what it wanted under this key. A worker asks under its worker id. What a job
        that is not under way asks for is ignored: its workers may not know yet that it has ended.
        """
        if job not in self._roster.jobs:
            return []
        error = ""
        try:
            needs, holds = needs_and_holds(demand)
            if not fits(needs, self._ledger.total):
                error = self._why_infeasible(needs)
        except OptionError as refusal:
            error = str(refusal)
        if demand.count > 0 and not error:
            self._demands.put(requester, job, demand, needs, holds, now)
        elif (waiting := self._demands.find(requester, demand.key)) is not None:
            self._demands.drop(waiting)
        infeasible = (
            [Infeasible(requester, demand.key, error)] if demand.count > 0 and error else []
        )
        return [*infeasible, *self._advance(now)]

    def lease_returned(self, lease: int, now: float) -> list[Command]:
        """The requester is done with it: the worker is idle, or ends if it was dedicated."""
        returned = self._ledger.leases.get(lease)
        if returned is None:
            return []
        worker = self._roster.workers[returned.worker]
        if returned.is_dedicated:
            return [self._kill(worker, KillReason.LEASE_ENDED), *self._advance(now)]
        self._ledger.release(returned)
        self._roster.set_idle(worker, now)
        return self._advance(now)

    def requester_gone(self, requester: bytes, now: float) -> list[Command]:
        """A driver or worker has ended: its demands vanish, and the workers that it leased end."""
        self._demands.drop_requester(requester)
        workers = [
            self._roster.workers[lease.worker] for lease in self._ledger.leases_of(requester)
        ]
        kills = [self._kill(worker, KillReason.REQUESTER_GONE) for worker in workers]
        return [*kills, *self._advance(now)]

    # ------------------------------------------------------------ time

    def tick(self, now: float) -> list[Command]:
        """Time has passed: warn of long waits, let surplus workers end, ask for leases back."""
        commands: list[Command] = [*self._warnings(now)]
        for worker in self._roster.idle_since(now - self._worker_idle_s):
            if self._roster.num_idle() <= self._num_cpus:
                break
            if not self._demands.has(worker.id) and not self._ledger.leases_of(worker.id):
                self._roster.set_ending(worker, WorkerState.RETIRING)
                commands.append(KillWorker(worker.id, KillReason.IDLE))
        return commands + self._advance(now)

    def needs_ticks(self) -> bool:
        """Whether somebody waits, so that ticks are wanted often (every 50 ms or so)."""
        return len(self._demands) > 0

    # ------------------------------------------------------------ what there is

    def total(self) -> dict[str, float]:
        """What the node has."""
        return dict(self._total)

    def available(self) -> dict[str, float]:
        """What of it nobody holds; 0 where more is held than there is."""
        free = to_amounts(self._ledger.free)
        return {name: max(0.0, free.get(name, 0.0)) for name in self._total}

    def holder_of(self, worker: bytes) -> bytes | None:
        """The requester that has the worker on lease."""
        entered = self._roster.workers.get(worker)
        if entered is None or entered.state is not WorkerState.LEASED or entered.lease is None:
            return None
        return entered.lease.requester

    def status(self) -> Status:
        """The node in numbers."""
        leases = self._ledger.leases.values()
        return Status(
            self.total(),
            self.available(),
            self._roster.counts(),
            len(leases),
            sum(lease.is_blocked for lease in leases),
            sum(waiting.count for waiting in self._demands),
        )

    # ------------------------------------------------------------ inside

    def _advance(self, now: float) -> list[Command]:
        """Serve who can be served."""
        if not len(self._demands):
            return []
        plan = Planner(self._demands, self._ledger, self._roster, self._max_starting, now).make()
        commands: list[Command] = [self._grant(waiting, now) for waiting in plan.grants]
        for job, num_needed in plan.num_starting.items():
            commands += [self._start(job) for _ in range(num_needed - job.num_starting)]
        if len(self._demands):
            commands += Reclaimer(self._demands, self._ledger, self._roster, plan, now).ask()
        return commands

    def _grant(self, waiting: Waiting, now: float) -> Grant:
        lease = Lease(
            next(self._lease_ids),
            waiting.requester,
            waiting.key,
            waiting.depth,
            waiting.is_dedicated,
            waiting.holds,
            now,
        )
        lease.worker = self._roster.take(self._roster.jobs[waiting.job], lease).id
        self._ledger.grant(lease)
        self._demands.served(waiting, now)
        resources = to_amounts(lease.granted)
        return Grant(lease.requester, lease.key, lease.id, lease.worker, resources)

    def _start(self, job: Job) -> StartWorker:
        return StartWorker(self._roster.start(job).id, job.id)

    def _kill(self, worker: Worker, reason: KillReason) -> KillWorker:
        if worker.lease is not None and not worker.lease.is_ending:
            self._ledger.end(worker.lease)
        self._roster.set_ending(worker)
        return KillWorker(worker.id, reason)

    def _set_blocked(self, worker: bytes, is_blocked: bool, now: float) -> list[Command]:
        entered = self._roster.workers.get(worker)
        lease = entered.lease if entered is not None else None
        if lease is None or lease.is_ending or lease.is_blocked == is_blocked:
            return []  # heard of before, or overtaken by the end of the lease
        self._ledger.set_blocked(lease, is_blocked)
        return self._advance(now)

    # ------------------------------------------------------------ messages

    def _why_infeasible(self, needs: Units) -> str:
        lacking = {n: c for n, c in needs.items() if self._ledger.total.get(n, 0) < c}
        custom = {name: count / UNITS_PER_ONE for name, count in lacking.items() if name != CPU}
        more = [f"num_cpus={number(lacking[CPU])}"] if CPU in lacking else []
        more += [f"resources={custom}"] if custom else []
        return (
            f"a request for {describe(needs)} can never be met: this node has "
            f"{describe(self._ledger.total)} in all. Ask for less, or give the node more: "
            f"rdata.init({', '.join(more)})"
        )

    def _warnings(self, now: float) -> list[WarnWaiting]:
        """One for each requester and shape; the demands that have waited too long are marked."""
        late: list[Waiting] = []
        overdue: dict[object, list[Waiting]] = {}
        for waiting in self._demands:
            if now - waiting.since < self._warn_waiting_s or waiting.is_overdue:
                continue
            party = (waiting.requester, waiting.key)
            if waiting.is_dedicated or not self._ledger.num_leases(party):  # else it is served
                late.append(waiting)
                if not waiting.has_warned:
                    waiting.has_warned = True
                    overdue.setdefault((waiting.requester, waiting.place), []).append(waiting)
        for waiting in late:
            self._demands.set_overdue(waiting)
        return [
            WarnWaiting(group[0].requester, group[0].key, self._why_waiting(group, now))
            for group in overdue.values()
        ]

    def _why_waiting(self, group: list[Waiting], now: float) -> str:
        needs, num_leases = group[0].needs, sum(waiting.count for waiting in group)
        text = f"a request for {describe(needs)}"
        if num_leases > 1:
            text += f" (and {num_leases - 1} more like it)"
        text += f" has waited for {now - group[0].since:.0f} s. "
        lacking = [name for name, count in needs.items() if self._ledger.free[name] < count]
        if lacking:
            return text + self._who_holds(lacking)
        num_failed = self._roster.jobs[group[0].job].num_failed_starts
        if num_failed:
            return text + (
                f"The last {num_failed} workers that were started for it ended at once; "
                "the node's log folder has their output"
            )
        return text + "What it needs is free; workers are being started, or others come first"

    def _who_holds(self, names: list[str]) -> str:
        free = {name: max(0, self._ledger.free[name]) for name in names}
        total = {name: self._ledger.total[name] for name in names}
        held: dict[str, dict[str, int]] = {}
        for lease in self._ledger.holders(names):
            who = self._name_of(lease.worker if lease.is_dedicated else lease.requester)
            who = f"the actor in {who}" if lease.is_dedicated else f"tasks of {who}"
            sums = held.setdefault(who, {})
            for name in names:
                sums[name] = sums.get(name, 0) + lease.holds.get(name, 0)
        parts = [f"{who} ({describe(sums)})" for who, sums in held.items()]
        if len(parts) > _MAX_HOLDERS_NAMED:
            more = len(parts) - _MAX_HOLDERS_NAMED
            parts = [*parts[:_MAX_HOLDERS_NAMED], f"{more} others"]
        holders = ", ".join(parts) or "workers that are ending"
        return (
            f"Of {describe(total)}, {describe(free)} is free; the rest is held by {holders}. It "
            "is served when they let go: kill actors that are not needed, or ask for less"
        )
