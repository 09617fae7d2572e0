"""A scheduler whose workers start at once: what do its tests of single rules have in common?"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from rdata.core.scheduling.leases import (
    Command,
    Demand,
    Grant,
    LeaseScheduler,
    Reclaim,
    StartWorker,
    WorkerState,
)

JOB, OTHER_JOB = b"job", b"other job"
DRIVER, OTHER_DRIVER = b"driver", b"other driver"
ONE_CPU = {"CPU": 1.0}


class Node:
    """A scheduler whose workers start at once, unless told otherwise."""

    def __init__(self, num_cpus: float = 2, *, starts: bool = True, **custom: float) -> None:
        ids = (f"worker {n}".encode() for n in itertools.count())
        self.scheduler = LeaseScheduler({"CPU": num_cpus, **custom}, 10.0, 30.0, lambda: next(ids))
        self.starts = starts
        self.now = 0.0
        self.do("job_started", JOB)

    def do(self, event: str, *args: object) -> list[Command]:
        """Send an event; the commands that follow, the starts of workers carried out."""
        done: list[Command] = []
        todo = list(getattr(self.scheduler, event)(*args, self.now))
        while todo:
            command = todo.pop(0)
            done.append(command)
            if isinstance(command, StartWorker) and self.starts:
                todo += self.scheduler.worker_ready(command.worker, command.job, self.now)
        return done

    def want(
        self,
        count: int = 1,
        requester: bytes = DRIVER,
        resources: dict[str, float] = ONE_CPU,
        job: bytes = JOB,
        key: int = 1,
        **more: object,
    ) -> list[Command]:
        demand = Demand(key, resources, count, **more)  # type: ignore[arg-type]
        return self.do("demand", requester, job, demand)

    @property
    def free(self) -> float:
        return self.scheduler.available()["CPU"]

    def workers(self, state: WorkerState) -> int:
        return self.scheduler.status().num_workers[state]


def grants(commands: Iterable[Command]) -> list[Grant]:
    return [command for command in commands if isinstance(command, Grant)]


def reclaims(commands: Iterable[Command]) -> list[Reclaim]:
    return [command for command in commands if isinstance(command, Reclaim)]


def starts(commands: Iterable[Command]) -> list[StartWorker]:
    return [command for command in commands if isinstance(command, StartWorker)]
