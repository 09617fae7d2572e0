"""What does a worker add to its process's runtime? It runs tasks; a driver has no host."""

from __future__ import annotations

from typing import Any, Protocol

from rdata.core import messages as m


class Host(Protocol):
    """The worker, as its runtime sees it."""

    depth: int
    """How many tasks deep the running one is."""

    def receive(self, process: bytes, message: m.Direct) -> bool:
        """A message for the worker; False if it is not one."""
        ...

    def blocking(self) -> object | None:
        """A thread is about to wait; `unblocked` is to follow with what this returns, if any."""
        ...

    def unblocked(self, wait: object) -> None:
        """It goes on."""
        ...

    def may_interrupt(self) -> bool:
        """Whether a SIGINT may interrupt the main thread now."""
        ...

    def task_of_thread(self) -> bytes:
        """The task whose code the calling thread runs; empty on threads of a task's own."""
        ...

    def running(self) -> dict[str, Any]:
        """What runs: those fields of a RuntimeContext that a driver's has not."""
        ...

    def process_gone(self, process: bytes) -> None:
        """A process has ended."""
        ...

    def may_end(self) -> None:
        """The agent has no use for this worker."""
        ...
