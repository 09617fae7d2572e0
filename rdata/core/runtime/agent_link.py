"""How does a process talk to its node's agent, and wait for an answer?"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rdata import errors
from rdata.core.messages import Control, Failed, Value
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

    def happened(self, value: object = None) -> None:
        """One of the things, whatever its value. Called under the runtime's lock."""
        self.count -= 1
        if self.count == 0:
            self.wake()

    def made(self, value: Value) -> None:
        """One of the things is that value, and one error is enough. Under the runtime's lock."""
        self.count -= 1
        if self.count == 0 or value.kind == Value.ERROR:
            self.wake()

    def wake(self) -> None:
        """Let the thread go on."""
        if self.gate.locked():
            self.gate.release()


class Asked:
    """A request to the agent, and its answer when that has come."""

    __slots__ = ("answer", "number", "then", "waiter")

    def __init__(self, number: int) -> None:
        self.number = number
        self.waiter = Waiter(1)
        self.answer: Any = None
        self.then: Callable[[Any], None] | None = None  # who wants it now, if nobody waits


class AgentLink:
    """Requests to the agent, each matched with its answer by number."""

    def __init__(self, lock: threading.RLock, loop: Loop) -> None:
        self._loop = loop
        self._connection: Connection | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, Asked] = {}
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
        return self.finish(self.begin(make), timeout_s)

    def begin(self, make: Callable[[int], Control]) -> Asked:
        """Send `make(number)`, for `finish` or `forget`. Raises NodeDiedError."""
        asked = Asked(next(self._numbers))
        message = make(asked.number)
        with self._lock:
            if self.failure is not None:
                raise self.failure
            self._asked[asked.number] = asked
        self.send(message)
        return asked

    def finish(self, asked: Asked, timeout_s: float | None = None) -> Any:
        """Wait for the answer. Raises what `ask` does."""
        try:
            if not self._loop.wait(asked.waiter.gate, timeout_s):
                raise GetTimeoutError(f"the agent did not answer within {timeout_s:g} s")
        finally:
            with self._lock:
                self._asked.pop(asked.number, None)
        if asked.answer is None:
            assert self.failure is not None
            raise self.failure
        if isinstance(asked.answer, Failed):
            raise _exception(asked.answer)
        return asked.answer

    def forget(self, asked: Asked, then: Callable[[Any], None]) -> None:
        """Nobody will wait for the answer: call `then` with it, now or on the loop's thread."""
        with self._lock:
            if asked.answer is None:
                asked.then = then
                return
            self._asked.pop(asked.number, None)
        then(asked.answer)

    def answered(self, number: int, answer: Any) -> None:
        """An answer has come; it is dropped if nobody waits for it any more."""
        with self._lock:
            asked = self._asked.get(number)
            if asked is None:
                return
            asked.answer = answer
            if asked.then is None:
                asked.waiter.happened()
                return
            del self._asked[number]
        asked.then(answer)

    def fail(self, failure: NodeDiedError) -> None:
        """The agent is gone: all who wait raise `failure`, and so will all who ask."""
        with self._lock:
            self.failure = failure
            for asked in self._asked.values():
                asked.waiter.wake()


def _exception(answer: Failed) -> Exception:
    if answer.kind == "ValueError":
        return ValueError(answer.reason)
    kind = getattr(errors, answer.kind, RdataError)
    return kind(answer.reason) if issubclass(kind, RdataError) else RdataError(answer.reason)
