"""Which workers does each job have on this node, and what is each doing?

STARTING ──► IDLE ◄──► LEASED
              │▲          │
              ▼│          │
           RETIRING       │         asked to end, and may decline
                          ▼
                        ENDING      told to end, and does
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from itertools import takewhile

from msgspec import Struct, field

from rdata.core.scheduling.ledger import Lease

_FIRST_RETRY_S = 0.1  # after a worker that died while starting; doubles, so a full machine rests
_LAST_RETRY_S = 5.0


class WorkerState(StrEnum):
    """What a worker is doing, as far as the scheduler knows."""

    STARTING = "starting"
    IDLE = "idle"
    LEASED = "leased"
    RETIRING = "retiring"
    ENDING = "ending"


class Worker(Struct, eq=False):
    """A process that runs, is about to, or has been told to end."""

    id: bytes
    job: Job
    state: WorkerState = WorkerState.STARTING
    idle_since: float = 0.0
    is_unused: bool = True  # it has never been leased
    lease: Lease | None = None  # while LEASED; while ENDING, the one that it ended with


class Job(Struct, eq=False):
    """The workers of a driver, or of a detached actor."""

    id: bytes
    workers: dict[bytes, Worker] = field(default_factory=dict)
    used: dict[bytes, Worker] = field(default_factory=dict)  # and idle; the last one at the end
    unused: dict[bytes, Worker] = field(default_factory=dict)  # and idle
    num_starting: int = 0
    num_failed_starts: int = 0  # since the last that succeeded
    no_start_before: float = 0.0


class Roster:
    """All workers of the node. New ones are named by `new_id`."""

    def __init__(self, new_id: Callable[[], bytes]) -> None:
        self.jobs: dict[bytes, Job] = {}
        self.workers: dict[bytes, Worker] = {}
        self._new_id = new_id
        self._idle: dict[bytes, Worker] = {}  # of all jobs, the longest idle first

    def counts(self) -> dict[WorkerState, int]:
        """How many workers are in each state."""
        counter = Counter(worker.state for worker in self.workers.values())
        return {state: counter[state] for state in WorkerState}

    def add_job(self, job_id: bytes) -> Job:
        """Enter a job."""
        job = self.jobs[job_id] = Job(job_id)
        return job

    def start(self, job: Job) -> Worker:
        """Enter a worker that is about to be started."""
        worker = Worker(self._new_id(), job)
        self.workers[worker.id] = job.workers[worker.id] = worker
        job.num_starting += 1
        return worker

    def set_idle(self, worker: Worker, now: float) -> None:
        """The worker has nothing to do."""
        self._leave_state(worker)
        if worker.state is WorkerState.STARTING:
            worker.job.num_failed_starts = 0
            worker.job.no_start_before = 0.0
        worker.state, worker.idle_since, worker.lease = WorkerState.IDLE, now, None
        self._idle[worker.id] = _pool(worker)[worker.id] = worker

    def take(self, job: Job, lease: Lease) -> Worker:
        """Give the lease the worker that was used last: its memory is the warmest.

        Or an unused one, if it is for an actor, with which all ends that the process owns.
        """
        pool = job.unused if lease.is_dedicated else job.used or job.unused
        worker = next(reversed(pool.values()))
        self._leave_state(worker)
        worker.state, worker.is_unused, worker.lease = WorkerState.LEASED, False, lease
        return worker

    def set_ending(self, worker: Worker, state: WorkerState = WorkerState.ENDING) -> None:
        """The worker is asked (RETIRING) or told (ENDING) to end."""
        self._leave_state(worker)
        worker.state = state

    def remove(self, worker: Worker, now: float) -> None:
        """The worker has ended."""
        self._leave_state(worker)
        del self.workers[worker.id]
        job = worker.job
        job.workers.pop(worker.id, None)
        if worker.state is WorkerState.STARTING:
            wait_s = min(_FIRST_RETRY_S * 2.0**job.num_failed_starts, _LAST_RETRY_S)
            job.num_failed_starts += 1
            job.no_start_before = now + wait_s

    def move(self, worker: Worker, job: Job) -> None:
        """The worker, a leased one, belongs to another job from now on."""
        worker.job.workers.pop(worker.id, None)
        worker.job = job
        job.workers[worker.id] = worker

    def num_idle(self) -> int:
        """How many workers of all jobs are idle."""
        return len(self._idle)

    def unused(self) -> list[Worker]:
        """The workers that are idle and have never been leased."""
        return [worker for worker in self._idle.values() if worker.is_unused]

    def idle_since(self, since: float) -> list[Worker]:
        """The workers that have been idle since then, the longest idle first."""
        return list(takewhile(lambda worker: worker.idle_since <= since, self._idle.values()))

    def _leave_state(self, worker: Worker) -> None:
        if worker.state is WorkerState.STARTING:
            worker.job.num_starting -= 1
        elif worker.state is WorkerState.IDLE:
            del self._idle[worker.id], _pool(worker)[worker.id]


def _pool(worker: Worker) -> dict[bytes, Worker]:
    return worker.job.unused if worker.is_unused else worker.job.used
