"""Do whole programs get on, when processes behave around the scheduler as real ones do?

A simulation with a clock of its own: drivers and workers submit tasks, keep leases for a while,
return those that are asked back, block while they wait for what they have submitted.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdata.core.scheduling.leases import (
    Command,
    Demand,
    Grant,
    KillReason,
    KillWorker,
    LeaseScheduler,
    Reclaim,
    StartWorker,
    WarnWaiting,
)

LEASE_IDLE_S, START_S, TICK_S = 0.5, 0.003, 0.05


@dataclass(eq=False)
class Task:
    """Runs, submits children and waits for them, runs again."""

    run_s: float = 0.001
    children: list[Task] = field(default_factory=list)
    num_cpus: float = 1
    disks: float = 0


@dataclass(eq=False)
class Lease:
    id: int
    worker: bytes
    is_busy: bool = False
    is_reclaimed: bool = False
    lingers: bool = True
    idle_number: int = 0


@dataclass(eq=False)
class Pool:
    """What one process has queued and leased of one shape."""

    key: int
    demand: Callable[[int], Demand]
    queue: deque[tuple[Task, Callable[[], None]]] = field(default_factory=deque)
    leases: dict[int, Lease] = field(default_factory=dict)


class Simulation:
    def __init__(self, num_cpus: float, disks: float = 0) -> None:
        ids = (f"w{n}".encode() for n in itertools.count())
        total = {"CPU": num_cpus, "disk": disks}
        self.scheduler = LeaseScheduler(total, 10.0, 30.0, lambda: next(ids))
        self.now = 0.0
        self.num_done: Counter[bytes] = Counter()  # tasks by job
        self.warnings: list[str] = []
        self.num_workers = self.most_workers = 0
        self.num_running = self.most_running = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._jobs: dict[bytes, bytes] = {}  # by process
        self._pools: dict[bytes, dict[tuple[float, ...], Pool]] = defaultdict(dict)
        self._owners: dict[int, tuple[bytes, Pool]] = {}  # by lease
        self.at(TICK_S, self._tick)

    def at(self, delay_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_s, next(self._numbers), act))

    def run(self, until: Callable[[], bool], limit_s: float) -> None:
        """Let time pass until then; it must come within the limit."""
        while not until():
            self.now, _, act = heapq.heappop(self._events)
            assert self.now < limit_s, f"{self.num_done} done, {self.scheduler.status()}"
            act()

    def add_driver(self, name: bytes) -> None:
        self._jobs[name] = name
        self.obey(self.scheduler.job_started(name, self.now))

    def submit(self, process: bytes, depth: int, task: Task, done: Callable[[], None]) -> None:
        shape = (depth, task.num_cpus, task.disks)
        pools = self._pools[process]
        if shape not in pools:
            key = len(pools)
            resources = {"CPU": task.num_cpus, "disk": task.disks}
            pools[shape] = Pool(key, lambda count: Demand(key, resources, count, depth))
        pools[shape].queue.append((task, done))
        self._supply(process, pools[shape])

    def obey(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case StartWorker():
                    self._jobs[command.worker] = command.job
                    self.num_workers += 1
                    self.most_workers = max(self.most_workers, self.num_workers)
                    self.at(START_S, lambda c=command: self._ready(c.worker, c.job))
                case KillWorker():
                    assert command.reason is KillReason.IDLE
                    self.num_workers -= 1
                    self.at(0, lambda c=command: self._tell("worker_gone", c.worker))
                case Grant():
                    pools = self._pools[command.requester].values()
                    (pool,) = [pool for pool in pools if pool.key == command.key]
                    lease = Lease(command.lease, command.worker)
                    pool.leases[command.lease] = lease
                    self._owners[command.lease] = command.requester, pool
                    self.at(0, lambda le=lease: self._use(le))
                case Reclaim():
                    self.at(0, lambda c=command: self._reclaimed(c.lease, c.only_if_idle))
                case WarnWaiting():
                    self.warnings.append(command.message)
                case _:
                    raise AssertionError(f"unexpected {command}")

    # ------------------------------------------------------------ a submitter

    def _supply(self, process: bytes, pool: Pool) -> None:
        for lease in list(pool.leases.values()):
            if pool.queue and not lease.is_busy and not lease.is_reclaimed:
                task, done = pool.queue.popleft()
                lease.is_busy = True
                self._execute(lease, task, lambda le=lease, d=done: self._finished(le, d))
        demand = pool.demand(len(pool.queue))
        self.obey(self.scheduler.demand(process, self._jobs[process], demand, self.now))

    def _finished(self, lease: Lease, done: Callable[[], None]) -> None:
        process, _ = self._owners[lease.id]
        self.num_done[self._jobs[process]] += 1
        lease.is_busy = False
        done()
        self._use(lease)

    def _use(self, lease: Lease) -> None:
        """Give the lease that may be idle a task, or let it idle for a while, or return it."""
        if lease.id not in self._owners or lease.is_busy:
            return
        self._supply(*self._owners[lease.id])
        if lease.is_busy:
            return
        if lease.is_reclaimed or not lease.lingers:
            self._return(lease)
            return
        lease.idle_number += 1
        number = lease.idle_number
        self.at(LEASE_IDLE_S, lambda: self._idle_out(lease, number))

    def _idle_out(self, lease: Lease, number: int) -> None:
        if lease.id in self._owners and not lease.is_busy and lease.idle_number == number:
            self._return(lease)

    def _reclaimed(self, lease_id: int, only_if_idle: bool) -> None:
        if lease_id not in self._owners:
            return
        process, pool = self._owners[lease_id]
        lease = pool.leases[lease_id]
        lease.lingers = False
        lease.is_reclaimed |= not only_if_idle
        if not lease.is_busy and (lease.is_reclaimed or not pool.queue):
            self._return(lease)
            self._supply(process, pool)

    def _return(self, lease: Lease) -> None:
        _, pool = self._owners.pop(lease.id)
        del pool.leases[lease.id]
        self._tell("lease_returned", lease.id)

    # ------------------------------------------------------------ a worker

    def _execute(self, lease: Lease, task: Task, done: Callable[[], None]) -> None:
        _, pool = self._owners[lease.id]
        depth = pool.demand(0).depth + 1
        num_left = len(task.children)

        def wait() -> None:
            self.num_running -= 1
            self._tell("blocked", lease.worker)

        def child_done() -> None:
            nonlocal num_left
            num_left -= 1
            if num_left == 0:
                self._tell("unblocked", lease.worker)
                self._start_running()
                self.at(task.run_s, finish)

        def submit() -> None:
            for child in task.children:
                self.submit(lease.worker, depth, child, child_done)
            wait()

        def finish() -> None:
            self.num_running -= 1
            done()

        self._start_running()
        self.at(task.run_s, submit if task.children else finish)

    def _start_running(self) -> None:
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)

    def _ready(self, worker: bytes, job: bytes) -> None:
        self.obey(self.scheduler.worker_ready(worker, job, self.now))

    def _tell(self, event: str, argument: object) -> None:
        self.obey(getattr(self.scheduler, event)(argument, self.now))

    def _tick(self) -> None:
        self.obey(self.scheduler.tick(self.now))
        self.at(TICK_S, self._tick)


def tree(depth: int, width: int = 2) -> Task:
    return Task(children=[tree(depth - 1, width) for _ in range(width)] if depth else [])


def size(task: Task) -> int:
    return 1 + sum(map(size, task.children))


def run_s(task: Task) -> float:
    return task.run_s * (2 if task.children else 1) + sum(map(run_s, task.children))


@pytest.mark.parametrize("num_cpus", [1, 2, 4])
@pytest.mark.parametrize(("depth", "width"), [(1, 8), (5, 2), (8, 2), (4, 4), (60, 1)])
def test_a_tree_of_blocked_tasks_gets_on_with_few_workers(num_cpus: int, depth: int, width: int):
    simulation = Simulation(num_cpus)
    simulation.add_driver(b"d")
    root = tree(depth, width)
    simulation.submit(b"d", 0, root, lambda: None)
    simulation.run(lambda: simulation.num_done[b"d"] == size(root), limit_s=60)
    assert simulation.most_workers <= (depth + 2) * num_cpus
    assert simulation.most_running <= (depth + 2) * num_cpus
    # Nobody has waited for an idle lease to go back by itself: that takes 0.5 s each time.
    assert simulation.now < 1.5 * run_s(root) + (depth + 1) * START_S + 0.1
    assert not simulation.warnings


@pytest.mark.parametrize("num_cpus", [1, 2, 3])
def test_many_trees_hold_no_more_workers_than_one(num_cpus: int):
    simulation = Simulation(num_cpus)
    simulation.add_driver(b"d")
    roots = [tree(3) for _ in range(100)]
    for root in roots:
        simulation.submit(b"d", 0, root, lambda: None)
    simulation.run(lambda: simulation.num_done[b"d"] == sum(map(size, roots)), limit_s=60)
    assert simulation.most_workers <= (3 + 2) * num_cpus
    assert simulation.now < 1.5 * sum(map(run_s, roots)) / num_cpus + 0.2


@pytest.mark.parametrize("num_cpus", [1, 2, 5])
def test_two_drivers_share(num_cpus: int):
    simulation = Simulation(num_cpus)
    for name in (b"a", b"b"):
        simulation.add_driver(name)
    for name in (b"a", b"b"):  # the first has all before the second comes
        for _ in range(5000):
            simulation.submit(name, 0, Task(0.002), lambda: None)
    simulation.run(lambda: simulation.now >= 2, limit_s=3)
    done = simulation.num_done
    assert sum(done.values()) > 0.9 * 2 / 0.002 * num_cpus
    assert min(done.values()) > 0.35 * sum(done.values())


def test_more_drivers_than_cpus_all_get_on():
    simulation = Simulation(2)
    names = [b"%d" % n for n in range(7)]
    for name in names:
        simulation.add_driver(name)
        for _ in range(5000):
            simulation.submit(name, 0, Task(0.002), lambda: None)
    simulation.run(lambda: simulation.now >= 4, limit_s=5)
    assert min(simulation.num_done[name] for name in names) > 4 * 2 / 0.002 / 7 / 2


def test_a_short_program_does_not_wait_for_a_long_one():
    simulation = Simulation(2)
    simulation.add_driver(b"long")
    for _ in range(10000):
        simulation.submit(b"long", 0, Task(0.005), lambda: None)
    simulation.run(lambda: simulation.now >= 1, limit_s=2)
    simulation.add_driver(b"short")
    simulation.submit(b"short", 0, Task(0.005), lambda: None)
    simulation.run(lambda: simulation.num_done[b"short"] == 1, limit_s=1.1)


def test_idle_leases_are_not_kept_from_others():
    simulation = Simulation(2)
    simulation.add_driver(b"a")
    simulation.add_driver(b"b")
    for _ in range(2):
        simulation.submit(b"a", 0, Task(), lambda: None)
    simulation.run(lambda: simulation.num_done[b"a"] == 2, limit_s=1)
    begun = simulation.now
    for _ in range(2):
        simulation.submit(b"b", 0, Task(), lambda: None)
    simulation.run(lambda: simulation.num_done[b"b"] == 2, limit_s=begun + 0.01)


def test_a_task_for_all_cpus_is_not_starved_by_tasks_for_one():
    simulation = Simulation(3)
    simulation.add_driver(b"narrow")
    simulation.add_driver(b"wide")
    for n in range(20_000):
        simulation.submit(b"narrow", 0, Task(0.004 + n % 7 / 1000), lambda: None)
    simulation.submit(b"wide", 0, Task(num_cpus=3), lambda: None)
    simulation.run(lambda: simulation.num_done[b"wide"] == 1, limit_s=10.2)
    assert len(simulation.warnings) <= 1


def test_a_root_is_not_starved_by_endless_deeper_work():
    simulation = Simulation(2)
    simulation.add_driver(b"deep")
    simulation.add_driver(b"root")
    coordinator = Task(children=[Task(0.005) for _ in range(10_000)])
    simulation.submit(b"deep", 0, coordinator, lambda: None)
    simulation.run(lambda: simulation.now > 1, limit_s=2)
    simulation.submit(b"root", 0, Task(), lambda: None)
    simulation.run(lambda: simulation.num_done[b"root"] == 1, limit_s=11.2)
    assert len(simulation.warnings) == 1


def test_another_shape_of_the_same_driver_is_not_starved():
    simulation = Simulation(2)
    simulation.add_driver(b"d")
    is_done = []
    for _ in range(10_000):
        simulation.submit(b"d", 0, Task(0.005), lambda: None)
    simulation.submit(b"d", 0, Task(num_cpus=0.5), lambda: is_done.append(True))
    simulation.run(lambda: bool(is_done), limit_s=0.2)


@st.composite
def programs(draw: st.DrawFn) -> Task:
    """Trees of tasks of different shapes that cannot lock each other out."""

    def task(depth: int) -> Task:
        num_children = draw(st.integers(0, 3)) if depth < 4 else 0
        return Task(
            draw(st.sampled_from([0.0001, 0.001, 0.01, 0.2])),
            [task(depth + 1) for _ in range(num_children)],
            draw(st.sampled_from([1, 1, 1, 0, 0.5, 2])),
            # A task that blocks while it holds what its children need never ends.
            0 if num_children else draw(st.sampled_from([0, 0, 1])),
        )

    return task(0)


@settings(max_examples=100)
@given(
    st.lists(st.lists(programs(), min_size=1, max_size=4), min_size=1, max_size=3),
    st.sampled_from([2, 2.5, 3]),
    st.sampled_from([1, 2]),
)
def test_every_program_ends(jobs: list[list[Task]], num_cpus: float, disks: float):
    simulation = Simulation(num_cpus, disks)
    roots = [root for job in jobs for root in job]
    for number, job in enumerate(jobs):
        simulation.add_driver(b"%d" % number)
        for root in job:
            simulation.submit(b"%d" % number, 0, root, lambda: None)
    num_tasks = sum(map(size, roots))
    # One after the other is the slowest there may be, and a little for every change of hands.
    limit_s = 1 + sum(map(run_s, roots)) + 0.1 * num_tasks
    simulation.run(lambda: simulation.num_done.total() == num_tasks, limit_s)
    simulation.run(lambda: simulation.scheduler.status().num_leases == 0, limit_s + 1)
    assert simulation.scheduler.available() == {"CPU": num_cpus, "disk": disks}
