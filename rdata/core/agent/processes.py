"""Which processes are there, here and on other nodes, and how have others ended?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Protocol

from msgspec import Struct, field

from rdata.core.messages import ActorPlaced, ActorStarted, Register

_KEPT_DEATHS = 10_000  # reasons of ended processes, for those who ask late


class Channel(Protocol):
    """What leads to a process: a connection, or for one of another node the link with that."""

    def send(self, message: Struct, fds: Sequence[int] = ()) -> None:
        """Send the message; nothing if the process is gone."""
        ...

    def close(self, reason: str = ...) -> None:
        """Nothing more will be sent or received."""
        ...


class Process(Struct, eq=False):
    """A driver or a worker."""

    id: bytes
    job: bytes
    channel: Channel
    address: str
    registration: Register | None = None  # of a driver
    node: bytes = b""  # of another node's process
    pidfd: int | None = None  # of a driver of this node
    # What a worker of this node has said of the actor that lives in it.
    actor: list[ActorPlaced | ActorStarted] = field(default_factory=list)

    @property
    def actor_class(self) -> str:
        """The class of the actor that lives in it; "" for none."""
        return next((each.class_name for each in self.actor if isinstance(each, ActorPlaced)), "")

    @property
    def is_local(self) -> bool:
        """Whether it runs on this node."""
        return not self.node


class ProcessTable:
    """The processes that this node's agent knows."""

    def __init__(self) -> None:
        self._processes: dict[bytes, Process] = {}
        self._by_channel: dict[Channel, Process] = {}
        self._deaths: dict[bytes, str] = {}
        self._jobs: dict[bytes, Register] = {}  # by the process with which they end
        self._guests: set[bytes] = set()  # jobs of drivers of other nodes

    def add(self, process: Process) -> None:
        """Enter a process."""
        self._processes[process.id] = process
        self._by_channel[process.channel] = process
        self._deaths.pop(process.id, None)  # its node was taken for dead, and has joined again
        if process.registration is not None:
            self._jobs[process.id] = process.registration
            if not process.is_local:
                self._guests.add(process.id)

    def detach(self, process: Process, registration: Register) -> None:
        """Its detached actor is a job of its own from now on, in all else like its creator's."""
        self._jobs[process.id] = registration
        if process.job in self._guests:
            self._guests.add(process.id)
        process.job = process.id

    def remove(self, process: Process, reason: str) -> bool:
        """It has ended; False if that is known."""
        if self._processes.pop(process.id, None) is None:
            return False
        del self._by_channel[process.channel]
        self._jobs.pop(process.id, None)
        self._guests.discard(process.id)
        if process.pidfd is not None:
            os.close(process.pidfd)
        process.channel.close()
        if len(self._deaths) >= _KEPT_DEATHS:
            self._deaths.pop(next(iter(self._deaths)))
        self._deaths[process.id] = reason
        return True

    def get(self, process_id: bytes) -> Process | None:
        """The process of that id, if it lives."""
        return self._processes.get(process_id)

    def send(self, process_id: bytes, message: Struct, fds: Sequence[int] = ()) -> None:
        """Tell the process; nothing if it is gone."""
        process = self._processes.get(process_id)
        if process is not None:
            process.channel.send(message, fds)
            return
        for fd in fds:
            os.close(fd)

    def at(self, channel: Channel) -> Process | None:
        """The process at the other end."""
        return self._by_channel.get(channel)

    def registration(self, job: bytes) -> Register | None:
        """What the job's driver, or the driver that created its detached actor, has said."""
        return self._jobs.get(job)

    def is_guest(self, job: bytes) -> bool:
        """Whether the job's driver is, or was, of another node."""
        return job in self._guests

    def driver(self, job: bytes) -> Process | None:
        """The driver of the job, or the one that created its detached actor, if it lives."""
        registration = self._jobs.get(job)
        return None if registration is None else self._processes.get(registration.job)

    def death(self, process_id: bytes) -> str:
        """How it has ended; "" if it is not known to have."""
        return self._deaths.get(process_id, "")

    def of_node(self, node: bytes) -> list[Process]:
        """The processes of another node; of this one for b""."""
        return [process for process in self._processes.values() if process.node == node]

    def __iter__(self) -> Iterator[Process]:
        return iter(list(self._processes.values()))
