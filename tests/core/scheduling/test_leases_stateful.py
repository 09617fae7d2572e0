"""Does the lease scheduler do what a slow and simple model of it does, whatever happens?

The model keeps sums by adding up, order by sorting, and looks at everything after each event:

- what is held is what was granted, and nothing is granted beyond what is free;
- who gets a worker next, and how many are started, is what a plan made one lease at a time says;
- whoever could be helped by a lease that may be asked back has had it asked back;
- no lease, demand or worker is lost, and when all have gone, all is free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rdata.core.scheduling.leases import (
    Command,
    Demand,
    Infeasible,
    KillReason,
    KillWorker,
    StartWorker,
    WarnWaiting,
)
from tests.core.scheduling.lease_model import (
    IDLE_S,
    WARN_S,
    LeaseModel,
    ModelDemand,
    ModelJob,
    ModelWorker,
    fit,
    sums,
)

SHAPES: list[tuple[dict[str, float], dict[str, float] | None]] = [
    ({"CPU": 1}, None),
    ({"CPU": 0.5}, None),
    ({"CPU": 2}, None),
    ({"disk": 1}, None),
    ({"CPU": 1, "disk": 1}, None),
    ({}, None),
    ({"CPU": 1}, {}),
    ({"CPU": 1}, {"disk": 1}),
]


class Leases(LeaseModel, RuleBasedStateMachine):
    @initialize(num_cpus=st.sampled_from([1, 2, 3, 1.5]), num_disks=st.sampled_from([0, 1, 2]))
    def start(self, num_cpus: float, num_disks: float) -> None:
        self.set_up(num_cpus, num_disks)
        self.start_job()  # most of what can happen needs one, and its workers
        for worker, entered in self.workers.items():
            self.make_ready(worker, entered)

    # ------------------------------------------------------------ rules: jobs and workers

    @precondition(lambda self: len(self.jobs) < 3)
    @rule()
    def start_job(self) -> None:
        job = f"j{self.num_jobs}".encode()
        self.num_jobs += 1
        self.jobs[job] = ModelJob()
        commands = self.scheduler.job_started(job, self.now)
        assert len(commands) == self.num_cpus
        self.carry_out(commands)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), chance=st.integers(0, 3))
    def end_job(self, data: st.DataObject, chance: int) -> None:
        if chance:  # rarely, so that the others get somewhere
            return
        job = data.draw(st.sampled_from(sorted(self.jobs)))
        del self.jobs[job]
        for party in [p for p, demand in self.demands.items() if demand.job == job]:
            del self.demands[party]
            self.settle_turn(party[0])
        expected = {id for id, w in self.workers.items() if w.job == job and w.state != "ending"}
        commands = self.scheduler.job_ended(job, self.now)
        kills = commands[: len(expected)]
        for command in kills:
            assert self.kill(command, KillReason.JOB_ENDED).job == job
        self.check_settled(commands[len(expected) :])

    @precondition(lambda self: any(w.state == "starting" for w in self.workers.values()))
    @rule(data=st.data())
    def worker_ready(self, data: st.DataObject) -> None:
        self.ready(data, "starting")

    @precondition(lambda self: self.unused())
    @rule()
    def workers_are_preloaded(self) -> None:
        unused = self.unused()
        commands = self.scheduler.preloaded()
        killed = [each.worker for each in commands if isinstance(each, KillWorker)]
        starts = [each for each in commands if isinstance(each, StartWorker)]
        assert sorted(killed) == sorted(unused)
        jobs = Counter(self.workers[worker].job for worker in unused)
        assert Counter(start.job for start in starts) == jobs
        self.carry_out(starts)
        for worker in unused:
            self.workers[worker].state = "ending"

    def unused(self) -> list[bytes]:
        return [id for id, w in self.workers.items() if w.state == "idle" and w.is_unused]

    @precondition(lambda self: any(w.state == "retiring" for w in self.workers.values()))
    @rule(data=st.data())
    def worker_declines(self, data: st.DataObject) -> None:
        self.ready(data, "retiring")

    def ready(self, data: st.DataObject, state: str) -> None:
        worker = self.worker_in(data, state)
        self.make_ready(worker, self.workers[worker])

    def make_ready(self, worker: bytes, entered: ModelWorker) -> None:
        if entered.state == "starting":
            self.jobs[entered.job] = ModelJob()
        entered.state, entered.idle_since = "idle", self.now
        self.check_settled(self.scheduler.worker_ready(worker, entered.job, self.now))

    @precondition(lambda self: any(w.state == "ending" for w in self.workers.values()))
    @rule(data=st.data())
    def killed_worker_is_ready(self, data: st.DataObject) -> None:
        worker = self.worker_in(data, "ending")
        commands = self.scheduler.worker_ready(worker, self.workers[worker].job, self.now)
        assert commands == [KillWorker(worker, KillReason.UNEXPECTED)]

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        self.gone(data.draw(st.sampled_from(sorted(self.workers))))

    @precondition(lambda self: any(w.state == "ending" for w in self.workers.values()))
    @rule(data=st.data())
    def killed_worker_is_gone(self, data: st.DataObject) -> None:
        self.gone(self.worker_in(data, "ending"))

    def gone(self, worker: bytes) -> None:
        entered = self.workers.pop(worker)
        if entered.lease is not None and not entered.lease.is_over:
            del self.leases[entered.lease.id]
        if entered.state == "starting":
            job = self.jobs[entered.job]
            job.no_start_before = self.now + min(0.1 * 2**job.num_failed, 5.0)
            job.num_failed += 1
        self.check_settled(self.scheduler.worker_gone(worker, self.now))

    @precondition(lambda self: self.detachable())
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.detachable()))
        entered = self.workers[worker]
        assert entered.lease is not None
        self.jobs[worker] = ModelJob()
        entered.job = entered.lease.requester = worker
        entered.lease.key = -1
        self.scheduler.detached(worker)

    def detachable(self) -> list[bytes]:
        return sorted(
            id
            for id, w in self.workers.items()
            if w.lease is not None and w.lease.is_dedicated and not w.lease.is_over
            if id not in self.jobs
        )

    def worker_in(self, data: st.DataObject, state: str) -> bytes:
        return data.draw(
            st.sampled_from(sorted(i for i, w in self.workers.items() if w.state == state))
        )

    # ------------------------------------------------------------ rules: requesters

    @precondition(lambda self: self.jobs)
    @rule(
        data=st.data(),
        key=st.integers(1, 3),
        shape=st.sampled_from(SHAPES),
        count=st.integers(0, 4),
        is_dedicated=st.sampled_from([False, False, True]),
    )
    def demand(
        self, data: st.DataObject, key: int, shape: tuple, count: int, is_dedicated: bool
    ) -> None:
        leased = [id for id, w in self.workers.items() if w.state == "leased"]
        requester = data.draw(
            st.sampled_from([b"driver " + job for job in sorted(self.jobs)] + leased)
        )
        if requester in self.workers:
            lease = self.workers[requester].lease
            assert lease is not None
            job, depth = self.workers[requester].job, min(lease.depth + 1, 4)
        else:
            job, depth = requester.removeprefix(b"driver "), 0
        demand = Demand(key, shape[0], count, depth, shape[1], is_dedicated)
        commands = self.scheduler.demand(requester, job, demand, self.now)
        holds = sums(shape[0] if shape[1] is None else shape[1])
        needs = {**holds, **sums(shape[0])}
        earlier = self.demands.pop((requester, key), None)
        if count and not fit(needs, self.total):
            refusal = commands.pop(0)
            assert isinstance(refusal, Infeasible)
            assert (refusal.requester, refusal.key) == (requester, key)
        elif count:
            changed = ModelDemand(
                requester,
                key,
                job,
                needs,
                holds,
                depth,
                is_dedicated,
                count,
                earlier.number if earlier else next(self.numbers),
                earlier.since if earlier else self.now,
            )
            shape_of = ("job", "needs", "holds", "depth", "is_dedicated")
            if earlier and all(getattr(earlier, n) == getattr(changed, n) for n in shape_of):
                changed.is_overdue, changed.has_warned = earlier.is_overdue, earlier.has_warned
            self.demands[requester, key] = changed
            if not depth:
                self.turns.setdefault(requester, changed.number)
        self.settle_turn(requester)
        self.check_settled(commands)

    @rule()
    def demand_of_an_ended_job(self) -> None:
        demand = Demand(1, {"CPU": 1}, 3)
        assert self.scheduler.demand(b"late", b"ended", demand, self.now) == []

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def return_lease(self, data: st.DataObject) -> None:
        lease = self.leases[data.draw(st.sampled_from(sorted(self.leases)))]
        commands = self.scheduler.lease_returned(lease.id, self.now)
        worker = self.workers[lease.worker]
        if lease.is_dedicated:
            assert self.kill(commands.pop(0), KillReason.LEASE_ENDED) is worker
        else:
            del self.leases[lease.id]
            worker.state, worker.lease, worker.idle_since = "idle", None, self.now
        self.check_settled(commands)
        assert self.scheduler.lease_returned(lease.id, self.now) == []

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), is_blocked=st.booleans())
    def block(self, data: st.DataObject, is_blocked: bool) -> None:
        lease = self.leases[data.draw(st.sampled_from(sorted(self.leases)))]
        event = self.scheduler.blocked if is_blocked else self.scheduler.unblocked
        commands = event(lease.worker, self.now)
        if lease.is_blocked == is_blocked:
            assert commands == []
        else:
            lease.is_blocked = is_blocked
            self.check_settled(commands)

    @precondition(lambda self: any(w.state != "leased" for w in self.workers.values()))
    @rule(data=st.data(), is_blocked=st.booleans())
    def block_without_a_lease(self, data: st.DataObject, is_blocked: bool) -> None:
        others = sorted(id for id, w in self.workers.items() if w.state != "leased")
        event = self.scheduler.blocked if is_blocked else self.scheduler.unblocked
        assert event(data.draw(st.sampled_from(others)), self.now) == []

    @precondition(lambda self: self.leases or self.demands)
    @rule(data=st.data())
    def requester_gone(self, data: st.DataObject) -> None:
        requesters = {requester for requester, _ in self.demands}
        requesters |= {lease.requester for lease in self.leases.values()}
        requester = data.draw(st.sampled_from(sorted(requesters)))
        for party in [party for party in self.demands if party[0] == requester]:
            del self.demands[party]
        self.settle_turn(requester)
        expected = {lease.worker for lease in self.leases.values() if lease.requester == requester}
        commands = self.scheduler.requester_gone(requester, self.now)
        killed = set()
        for command in commands[: len(expected)]:
            self.kill(command, KillReason.REQUESTER_GONE)
            killed.add(command.worker)
        assert killed == expected
        self.check_settled(commands[len(expected) :])

    @rule(what=st.sampled_from(["worker_gone", "blocked", "unblocked", "requester_gone"]))
    def event_of_a_stranger(self, what: str) -> None:
        commands = getattr(self.scheduler, what)(b"stranger", self.now)
        if what == "requester_gone":
            self.check_settled(commands)
        else:
            assert commands == []

    # ------------------------------------------------------------ rules: time

    @rule(seconds=st.sampled_from([0.001, 0.06, 0.2, 1.0, 11.0, 31.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        commands = self.scheduler.tick(self.now)
        warned = set()
        while commands and isinstance(commands[0], WarnWaiting):
            warning = commands.pop(0)
            warned.add((warning.requester, warning.key))
            waited_s = self.now - self.demands[warning.requester, warning.key].since
            assert f"has waited for {waited_s:.0f} s" in warning.message
        due = set()
        for party, demand in self.demands.items():
            is_served = any((lease.requester, lease.key) == party for lease in self.leases.values())
            if self.now - demand.since >= WARN_S and (demand.is_dedicated or not is_served):
                if not demand.has_warned and not demand.is_overdue:
                    due.add(party)
                demand.is_overdue = demand.has_warned = True
        assert warned <= due
        assert {requester for requester, _ in warned} == {requester for requester, _ in due}
        while commands and isinstance(commands[0], KillWorker):
            self.retire(commands.pop(0))
        self.check_settled(commands)

    def retire(self, command: KillWorker) -> None:
        assert command.reason is KillReason.IDLE
        worker = self.workers[command.worker]
        assert worker.state == "idle"
        assert self.now - worker.idle_since >= IDLE_S
        assert sum(w.state == "idle" for w in self.workers.values()) > self.num_cpus
        assert not any(lease.requester == command.worker for lease in self.leases.values())
        assert not any(requester == command.worker for requester, _ in self.demands)
        worker.state = "retiring"

    # ------------------------------------------------------------ always

    @invariant()
    def sums_agree(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        free = {name: float(max(amount, Fraction(0))) for name, amount in self.free().items()}
        assert self.scheduler.available() == free
        status = self.scheduler.status()
        assert status.num_leases == len(self.leases)
        assert status.num_blocked == sum(lease.is_blocked for lease in self.leases.values())
        assert status.num_waiting == sum(demand.count for demand in self.demands.values())
        states = Counter(worker.state for worker in self.workers.values())
        assert +Counter({str(s): n for s, n in status.num_workers.items()}) == states
        for lease in self.leases.values():
            assert self.scheduler.holder_of(lease.worker) == lease.requester

    def teardown(self) -> None:
        """When all have gone, all is free, and nothing is waited for."""
        if not hasattr(self, "scheduler"):
            return
        for lease in sorted(self.leases):
            self.note_starts(self.scheduler.lease_returned(lease, self.now))
        for job in sorted(self.jobs):
            self.note_starts(self.scheduler.job_ended(job, self.now))
        for worker in sorted(self.workers):
            assert self.scheduler.worker_gone(worker, self.now) == []
        status = self.scheduler.status()
        assert status.available == {name: float(total) for name, total in self.total.items()}
        assert (status.num_leases, status.num_waiting) == (0, 0)
        assert set(status.num_workers.values()) == {0}

    def note_starts(self, commands: Iterable[Command]) -> None:
        for command in commands:
            if isinstance(command, StartWorker):
                self.workers[command.worker] = ModelWorker(command.job)


Leases.TestCase.settings = hypothesis.settings(max_examples=200, stateful_step_count=80)
TestLeases = Leases.TestCase
