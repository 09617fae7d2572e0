"""What do an agent and workers do to a submitter, and what must hold of it all the time?

A submitter between a simulated agent, which has few leases and wants them back, and simulated
workers, which run, block, give back and die. Messages take their time; those between the same two
arrive in order. What is where is written down here a second time, to be compared.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rdata.core.messages import Reply
from rdata.core.scheduling.submitter import (
    Push,
    ReturnLease,
    Submitter,
    TakeBackTasks,
    WantLeases,
)

TARGET_S = 0.005
BATCH_BYTES = 1000
IDLE_S = 0.5
MIN_RUN_S = 20e-6
WORTH_TAKING_S = 0.002
OVERDUE_S = 4 * TARGET_S
NEVER = float("inf")

POOLS = ["one", "two", "impossible"]
RUN_S = {  # by function: one of these
    b"tiny": [1e-6],
    b"short": [0.001],
    b"middle": [0.02],
    b"long": [1.0],
    b"mixed": [1e-5, 1e-5, 1e-5, 0.5],
    b"drifting": [1e-5, 0.003],
}

T = TypeVar("T")
Pick = Callable[[Sequence[T]], T]


@dataclass(eq=False)
class Task:
    id: bytes
    function_id: bytes
    size_bytes: int
    pool: str
    run_s: float
    is_suspect: bool = False
    place: str = "queue"  # or "lease", "done"
    is_cancelled: bool = False

    def __repr__(self) -> str:
        return f"task {int.from_bytes(self.id, 'big')} ({self.function_id.decode()})"


@dataclass(eq=False)
class Worker:
    """The process behind a lease. `inbox` and `outbox` are messages under way."""

    lease: int
    pool: str
    inbox: deque[Any] = field(default_factory=deque)
    outbox: deque[tuple[Any, ...]] = field(default_factory=deque)
    queue: deque[Task] = field(default_factory=deque)
    running: Task | None = None
    ends_at: float = 0.0
    is_blocked: bool = False

    def start_next(self, now: float) -> None:
        if self.running is None and self.queue:
            self.running = self.queue.popleft()
            self.ends_at = now + (0.0 if self.running.is_cancelled else self.running.run_s)

    def give_back(self) -> None:
        self.outbox.append(("given back", list(self.queue), self.is_blocked))
        self.queue.clear()

    def receive(self, message: Any, now: float) -> None:
        if message == "take back":
            self.give_back()
            return
        self.queue.extend(message)
        if self.is_blocked:
            self.give_back()
        self.start_next(now)

    def work_until(self, now: float) -> None:
        done = []
        while self.running is not None and not self.is_blocked and self.ends_at <= now:
            done.append((self.running, self.running.run_s))
            self.running, started_at = None, self.ends_at
            self.start_next(started_at)
        if done:
            self.outbox.append(("done", done))


@dataclass
class Known:
    """A lease as the submitter must see it, by what it was told and what it said."""

    worker: Worker
    running: list[Task] = field(default_factory=list)
    since: float = 0.0
    is_reclaimed: bool = False
    is_stalled: bool = False
    is_taking_back: bool = False


class World:
    """All that can happen, each with a condition of the same name and `can_` before it."""

    def __init__(self) -> None:
        self.submitter = Submitter(TARGET_S, BATCH_BYTES, IDLE_S)
        self.now = 100.0
        self.capacity = 3
        self.tasks: list[Task] = []
        self.known: dict[int, Known] = {}
        self.workers: dict[int, Worker] = {}  # of leases that the agent has granted
        self.wanted: Counter[str] = Counter()  # as the agent sees it
        self.to_agent: deque[tuple[Any, ...]] = deque()
        self.from_agent: deque[tuple[Any, ...]] = deque()
        self.fastest: dict[bytes, float] = {}  # by function, of those that the submitter has seen
        self.num_leases = 0

    def act(self, pick: Pick[Any]) -> None:
        """Let something happen that can."""
        name = pick([name for name in ACTIONS if getattr(self, "can_" + name)()])
        getattr(self, name)(pick)

    # ------------------------------------------------------------ the program

    def can_submit(self) -> bool:
        return True

    def submit(self, pick: Pick[Any]) -> None:
        pool = pick([*POOLS[:2] * 4, POOLS[2]])
        function_id = pick(sorted(RUN_S))
        count = pick([1, 1, 2, 5, 20, *[300][: function_id == b"tiny"]])
        size_bytes = pick([1, 1, 100, 3 * BATCH_BYTES])
        tasks = []
        for _ in range(count):
            number = len(self.tasks) + 1
            run_s = RUN_S[function_id][0] if count > 20 else pick(RUN_S[function_id])
            task = Task(number.to_bytes(4, "big"), function_id, size_bytes, pool, run_s)
            self.tasks.append(task)
            tasks.append(task)
        for task in tasks:
            if self.submitter.submit(pool, task):
                self.submitter.flush(self.now)
        if pick([False, True]):
            self.submitter.flush(self.now)

    def can_cancel(self) -> bool:
        return any(task.place != "done" for task in self.tasks)

    def cancel(self, pick: Pick[Any]) -> None:
        task = pick([task for task in self.tasks if task.place != "done"])
        lease = self.submitter.lease_of(task.id)
        if lease is None:
            assert task.place == "queue"
            assert self.submitter.cancel(task.pool, task.id)
            task.place = "done"
        else:
            assert task in self.known[lease].running
            assert not self.submitter.cancel(task.pool, task.id)
            task.is_cancelled = True

    def can_pass_time(self) -> bool:
        return True

    def pass_time(self, pick: Pick[Any]) -> None:
        self.now += pick([1e-4, 0.002, 0.021, 0.6, 2.0])
        for worker in self.workers.values():
            worker.work_until(self.now)

    def can_tick(self) -> bool:
        return True

    def tick(self, pick: Pick[Any]) -> None:
        self.submitter.flush(self.now)
        self.submitter.tick(self.now)
        self.carry_out()
        for known in self.known.values():
            if len(known.running) > 1 and self.now - known.since > OVERDUE_S:
                assert known.is_taking_back, "work waits behind an overdue task"
            if not known.running and self.now - known.since >= IDLE_S:
                assert self.num_queued(known.worker.pool), "an idle lease is kept"

    # ------------------------------------------------------------ agent

    def can_agent_hears(self) -> bool:
        return bool(self.to_agent)

    def agent_hears(self, pick: Pick[Any]) -> None:
        match self.to_agent.popleft():
            case "want", pool, count if pool == "impossible":
                if count:
                    self.from_agent.append(("unschedulable", pool))
            case "want", pool, count:
                self.wanted[pool] = count
            case "return", lease:
                worker = self.workers.pop(lease, None)
                assert worker is None or not (worker.queue or worker.running)
                assert worker is None or set(worker.inbox) <= {"take back"}

    def can_grant(self) -> list[str]:
        has_free = len(self.workers) < self.capacity
        return [pool for pool in POOLS if self.wanted[pool]] if has_free else []

    def grant(self, pick: Pick[Any]) -> None:
        pool = pick(self.can_grant())
        self.wanted[pool] -= 1
        self.num_leases += 1
        self.workers[self.num_leases] = Worker(self.num_leases, pool)
        self.from_agent.append(("granted", pool, self.num_leases))

    def can_reclaim(self) -> bool:
        return bool(self.workers)

    def reclaim(self, pick: Pick[Any]) -> None:
        lease = pick(sorted(self.workers))
        self.from_agent.append(("reclaim", lease, pick([True, True, False])))

    def can_agent_is_heard(self) -> bool:
        return bool(self.from_agent)

    def agent_is_heard(self, pick: Pick[Any]) -> None:
        match self.from_agent.popleft():
            case "granted", pool, lease:
                if lease in self.workers:
                    self.known[lease] = Known(self.workers[lease], since=self.now)
                else:  # died at once; told so after this
                    self.known[lease] = Known(Worker(lease, pool), since=self.now)
                self.submitter.granted(pool, lease, self.now)
            case "unschedulable", pool:
                for task in self.submitter.unschedulable(pool):
                    assert isinstance(task, Task)
                    assert (task.place, task.pool) == ("queue", pool)
                    task.place = "done"
                assert not self.num_queued(pool)
            case "reclaim", lease, only_if_idle:
                self.submitter.reclaimed(lease, only_if_idle)
                if lease in self.known and not only_if_idle:
                    self.known[lease].is_reclaimed = True
                self.carry_out()
                if lease in self.known and not self.submitter.holds_back:
                    assert self.known[lease].running, "an idle lease is kept from others"
            case "died", lease:
                self._lease_lost(lease, pick)

    # ------------------------------------------------------------ workers

    def _with(self, holds: Callable[[Worker], object]) -> list[Worker]:
        return [worker for worker in self.workers.values() if holds(worker)]

    def can_worker_hears(self) -> list[Worker]:
        return self._with(lambda worker: worker.inbox)

    def worker_hears(self, pick: Pick[Any]) -> None:
        worker = pick(self.can_worker_hears())
        worker.receive(worker.inbox.popleft(), self.now)

    def can_worker_is_heard(self) -> list[Worker]:
        return self._with(lambda worker: worker.outbox)

    def worker_is_heard(self, pick: Pick[Any]) -> None:
        self._hear(pick(self.can_worker_is_heard()))

    def can_block(self) -> list[Worker]:
        return self._with(lambda worker: worker.running and not worker.is_blocked)

    def block(self, pick: Pick[Any]) -> None:
        worker = pick(self.can_block())
        worker.is_blocked, worker.ends_at = True, NEVER
        worker.give_back()

    def can_unblock(self) -> list[Worker]:
        return self._with(lambda worker: worker.is_blocked)

    def unblock(self, pick: Pick[Any]) -> None:
        worker = pick(self.can_unblock())
        worker.is_blocked, worker.ends_at = False, self.now + 0.001

    def can_die(self) -> bool:
        return bool(self.workers) and self.num_leases < 30

    def die(self, pick: Pick[Any]) -> None:
        """What it had sent arrives, or only the first of it; then the agent tells of the end."""
        worker = self.workers.pop(pick(sorted(self.workers)))
        for _ in range(pick(range(len(worker.outbox) + 1))):
            worker.outbox.pop()
        self.from_agent.append(("died", worker.lease))

    def _hear(self, worker: Worker) -> None:
        known = self.known.get(worker.lease)
        match worker.outbox.popleft():
            case "done", done:
                if known is not None:
                    for task, run_s in done:
                        known.running.remove(task)
                        assert task.place == "lease"
                        task.place = "done"
                        run_s = max(run_s, MIN_RUN_S)
                        self.fastest[task.function_id] = min(
                            run_s, self.fastest.get(task.function_id, NEVER)
                        )
                    known.since = self.now
                    if not known.running:
                        known.is_stalled = known.is_taking_back = False
                results = [Reply(task.id, 0, run_s, []) for task, run_s in done]
                self.submitter.finished(worker.lease, results, self.now)
            case "given back", tasks, is_blocked:
                for task in tasks:
                    if task.is_cancelled:
                        self.submitter.forget(worker.lease, task.id)
                if known is not None:
                    for task in tasks:
                        known.running.remove(task)
                        task.place = "done" if task.is_cancelled else "queue"
                    known.is_taking_back = False
                    known.is_stalled = bool(known.running) and (known.is_stalled or is_blocked)
                ids = [task.id for task in tasks]
                self.submitter.taken_back(worker.lease, ids, is_blocked, self.now)

    def _lease_lost(self, lease: int, pick: Pick[Any]) -> None:
        known = self.known.pop(lease, None)
        if known is None:  # it had gone back before
            assert self.submitter.lease_lost(lease, self.now) == []
            return
        self.known[lease] = known
        while known.worker.outbox and lease in self.known:
            self._hear(known.worker)
            self.carry_out()
        lost = self.submitter.lease_lost(lease, self.now)
        known = self.known.pop(lease, None)
        assert lost == (known.running if known else [])
        self.carry_out()
        for task in lost:
            assert isinstance(task, Task)
            if task.is_cancelled:
                task.place = "done"
            else:
                task.place = "queue"
                task.is_suspect = pick([False, False, True])
                self.submitter.retry(task.pool, [task], self.now)

    # ------------------------------------------------------------ what the submitter says

    def carry_out(self) -> None:
        commands, self.submitter.commands[:] = self.submitter.commands[:], []
        for command in commands:
            match command:
                case Push(lease, tasks):
                    self._pushed(self.known[lease], tasks)  # type: ignore[arg-type]
                case WantLeases(pool, count):
                    self.to_agent.append(("want", pool, count))
                case ReturnLease(lease):
                    known = self.known.pop(lease)
                    assert not known.running, "a lease is returned with tasks on it"
                    self.to_agent.append(("return", lease))
                case TakeBackTasks(lease):
                    known = self.known[lease]
                    assert len(known.running) > 1
                    assert not known.is_taking_back
                    known.is_taking_back = True
                    known.worker.inbox.append("take back")

    def _pushed(self, known: Known, tasks: list[Task]) -> None:
        assert not known.is_reclaimed
        assert not known.is_stalled
        assert not known.is_taking_back
        if known.running:
            assert self.now - known.since <= OVERDUE_S, "sent behind an overdue task"
        else:
            known.since = self.now
        assert len(tasks) == 1 or sum(task.size_bytes for task in tasks) <= BATCH_BYTES
        for task in tasks:
            assert task.place == "queue", "sent twice"
            assert task.pool == known.worker.pool
            if known.running:
                for other in [*known.running, task]:
                    assert other.function_id in self.fastest, "sent behind an unknown duration"
                    assert not other.is_suspect
                assert self.least_s([*known.running, task]) <= TARGET_S * 1.001
                ahead_bytes = sum(other.size_bytes for other in known.running)
                assert ahead_bytes + task.size_bytes <= 4 * BATCH_BYTES
            task.place = "lease"
            known.running.append(task)
        known.is_stalled = tasks[-1].is_suspect
        known.worker.inbox.append(tasks)

    def least_s(self, tasks: Sequence[Task]) -> float:
        """What the tasks take at least, by what has been seen."""
        return sum(self.fastest[task.function_id] for task in tasks)

    # ------------------------------------------------------------ what must hold

    def num_queued(self, pool: str) -> int:
        return sum(task.place == "queue" and task.pool == pool for task in self.tasks)

    def check(self) -> None:
        self.carry_out()
        on_leases = [task for known in self.known.values() for task in known.running]
        assert len(on_leases) == len(set(on_leases))
        assert {task for task in self.tasks if task.place == "lease"} == set(on_leases)
        assert self.submitter.needs_ticks() == bool(self.known)
        if not self.submitter.holds_back:
            for pool in POOLS:
                self._check_pool(pool)

    def _check_pool(self, pool: str) -> None:
        known_ones = [known for known in self.known.values() if known.worker.pool == pool]
        free = [
            known
            for known in known_ones
            if not (known.running or known.is_reclaimed or known.is_taking_back)
        ]
        if self.num_queued(pool):
            assert not free, "a task waits beside a free lease"
            asked = [message[2] for message in self.to_agent if message[:2] == ("want", pool)]
            may_come = asked[-1] if asked else self.wanted[pool]
            told = {message[:2] for message in self.from_agent}
            is_told = ("granted", pool) in told or ("unschedulable", pool) in told
            assert may_come or is_told, "a task waits, and no lease is asked for"
        elif free:
            for known in known_ones:
                count = len(known.running)
                if count > 1 and not known.is_taking_back:
                    waiting_s = self.least_s(known.running) * (1 - 1 / count)
                    assert waiting_s <= WORTH_TAKING_S * 1.001, "work waits beside a free lease"

    def finish(self) -> None:
        """Everybody does what they have to: every task ends, and no lease is held or wanted."""
        for _ in range(len(self.tasks) + 10):
            self.submitter.flush(self.now)
            self.check()
            for name in ("unblock", "agent_hears", "grant", "agent_is_heard", "worker_hears"):
                while getattr(self, "can_" + name)():
                    getattr(self, name)(_first)
                    self.check()
            self.pass_time(_last)
            while self.can_worker_is_heard():
                self.worker_is_heard(_first)
                self.check()
            self.tick(_first)
            self.check()
            is_over = not (self.workers or self.to_agent or self.from_agent)
            if is_over and all(task.place == "done" for task in self.tasks):
                assert not +self.wanted, "leases are wanted for nothing"
                return
        raise AssertionError("something waits for ever")


def _first(choices: Sequence[T]) -> T:
    return choices[0]


def _last(choices: Sequence[T]) -> T:
    return choices[-1]


# One of these at a time.
ACTIONS = sorted(name[4:] for name in vars(World) if name.startswith("can_"))
