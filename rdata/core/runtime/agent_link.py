"""How does a process talk to its node's agent, and wait for an answer?"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rdata import errors
from rdata.core.messages import Control, Failed
from rdata.core.wire.connection import Connection
from rdata.core.wire.loop import Loop
from rdata.errors import GetTimeoutError, NodeDiedError, RdataError


class Waiter:
    """Lets one thread sleep until `count` things have happened, or all has ended."""

    __slots__ = ("count", "gate")

    def __init__(self, count: int) -> None:
        self.count = count
        self.gate = threading.Lock()
        self.gate.acquire()

    def happened(self) -> None:
        """One of the things. Called under the runtime's lock."""
        self.count -= 1
        if self.count == 0:
            self.wake()

    def wake(self) -> None:
        """Let the thread go on."""
        if self.gate.locked():
            self.gate.release()


class AgentLink:
    """Requests to the agent, each matched with its answer by number."""

    def __init__(self, lock: threading.RLock, loop: Loop) -> None:
        self._loop = loop
        self._connection: Connection | None = None
        self._numbers = itertools.count(1)
        self._answers: dict[int, tuple[Waiter, list[Any]]] = {}
        self._lock = lock
        self.failure: NodeDiedError | None = None

    def attach(self, connection: Connection) -> None:
        """Use the connection from now on."""
        self._connection = connection

    def send(self, message: Control, fds: Sequence[int] = ()) -> None:
        """Tell the agent; never blocks."""
        assert self._connection is not None
        with self._lock:
            self._connection.send(message, fds)

    def ask(self, make: Callable[[int], Control], timeout_s: float | None = None) -> Any:
        """Send `make(number)` and wait for the answer of that number.

        Raises what the agent answers with `Failed`, GetTimeoutError, and NodeDiedError.
        """
        number = next(self._numbers)
        waiter, slot = Waiter(1), []  # type: tuple[Waiter, list[Any]]
        with self._lock:
            if self.failure is not None:
                raise self.failure
            self._answers[number] = waiter, slot
        try:
            self.send(make(number))
            if not self._loop.wait(waiter.gate, timeout_s):
                raise GetTimeoutError(f"the agent did not answer within {timeout_s:g} s")
        finally:
            with self._lock:
                self._answers.pop(number, None)
        if not slot:
            assert self.failure is not None
            raise self.failure
        answer = slot[0]
        if isinstance(answer, Failed):
            raise _exception(answer)
        return answer

    def answered(self, number: int, answer: Any) -> bool:
        """An answer has come; False if nobody waits for it any more."""
        with self._lock:
            waiting = self._answers.get(number)
            if waiting is None:
                return False
            waiting[1].append(answer)
            waiting[0].happened()
            return True

    def fail(self, failure: NodeDiedError) -> None:
        """The agent is gone: all who wait raise `failure`, and so will all who ask."""
        with self._lock:
            self.failure = failure
            for waiter, _ in self._answers.values():
                waiter.wake()


def _exception(answer: Failed) -> Exception:
    if answer.kind == "ValueError":
        return ValueError(answer.reason)
    kind = getattr(errors, answer.kind, RdataError)
    return kind(answer.reason) if issubclass(kind, RdataError) else RdataError(answer.reason)
