"""What does the inline runtime know of a call, an actor and a stream of items?"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from msgspec import Struct, field

from rdata.core.object_ref import ObjectRef
from rdata.core.returns import streamed_items
from rdata.core.runtime.seam import RuntimeContext
from rdata.core.serialize import dump_error, load_error
from rdata.core.specs import ActorInterface, ActorOptions, NumReturns
from rdata.errors import (
    ActorDiedError,
    NondeterministicTaskError,
    WorkerCrashedError,
)

T = TypeVar("T")


class Failure:
    """An error that stands where a value would, as it would have travelled."""

    __slots__ = ("_data", "_refs")

    def __init__(self, error: BaseException, origin: str = "") -> None:
        """`origin`: the user's code that raised it; without one, it is an error of rdata's own."""
        value = dump_error(error, origin)
        self._data = value.pickled
        self._refs = {ref.id: ref for ref in value.refs}

    def error(self) -> BaseException:
        """The error as a new instance: raising one instance again and again piles up frames."""
        return load_error(self._data, lambda id, owner: self._refs[id])


def taken(notes: deque[T]) -> Iterator[T]:
    """Take all notes out; those that another thread takes meanwhile are left to that one."""
    with suppress(IndexError):
        while notes:
            yield notes.popleft()


class Resources(Struct):
    """What the only node has, and what of it is in use; more than there is, if calls nest."""

    total: Mapping[str, float]
    held: Counter[str] = field(default_factory=Counter)

    def lack(self, needs: Mapping[str, float]) -> str:
        """Why `needs` can never be met; empty if they can."""
        if all(amount <= self.total.get(name, 0) for name, amount in needs.items()):
            return ""
        return (
            f"needs {dict(needs)}, and the only node has {dict(self.total)}: ask for less, or call "
            "rdata.init with more num_cpus or resources"
        )

    def available(self) -> dict[str, float]:
        """The amounts that are not in use."""
        return {name: max(0.0, total - self.held[name]) for name, total in self.total.items()}


class Actor(Struct):
    """An actor: a plain object, and a lock so that one call at a time runs."""

    id: bytes
    interface: ActorInterface
    options: ActorOptions
    namespace: str
    instance: Any = None
    failure: Failure | None = None  # of the constructor, or the actor's death
    lock: threading.RLock = field(default_factory=threading.RLock)
    streams: list[Stream] = field(default_factory=list)  # of its methods, unfinished
    is_placed: bool = False  # holds its resources
    detached_ref: ObjectRef | None = None

    @property
    def held(self) -> dict[str, float]:
        """The resources it holds for life: those that were asked for."""
        cpus = {"CPU": self.options.num_cpus} if self.options.num_cpus else {}
        return {**cpus, **self.options.resources}

    def death(self, how: str) -> Failure:
        """What its calls give when it has ended so."""
        text = f"actor {self.interface.class_name} ({self.id.hex()}) has ended: {how}"
        return Failure(ActorDiedError(text))


class Call(Struct, frozen=True):
    """One run of user code: of a task, an actor's constructor or one of its methods."""

    task_id: bytes
    origin: str
    context: RuntimeContext
    run: Callable[[], Any]  # resolves the arguments and calls the user's function
    num_returns: NumReturns
    needs: Mapping[str, float]
    retries: int = 0
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    actor: Actor | None = None

    def is_retried(self, error: BaseException, attempt: int) -> bool:
        """Tell whether the task runs again after its attempt number `attempt` raised `error`."""
        if attempt >= self.retries >= 0 or self.retry_exceptions is False:
            return False
        return self.retry_exceptions is True or isinstance(error, self.retry_exceptions)

    def failure(self, error: BaseException) -> Failure:
        """What `get` will raise because the user's code raised `error`."""
        if isinstance(error, DependencyError):
            return error.failure
        if isinstance(error, SystemExit) and self.actor is not None:
            return self.actor.death(f"it left by exit_actor() or sys.exit({error.code!r})")
        if isinstance(error, SystemExit):
            return Failure(WorkerCrashedError(f"{self.origin} called sys.exit({error.code!r})"))
        return Failure(error, self.origin)


class DependencyError(Exception):
    """An argument is a reference to an error, which becomes the call's own."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


class Stream(Struct):
    """A generator call whose items are made when they are asked for.

    Its code runs, and is closed, by whoever has `lock`: one thread at a time, and in an actor one
    call. What else there is changes under the runtime's lock.
    """

    call: Call
    items: Iterator[Any] | None = None  # None: not begun
    made: deque[ObjectRef] = field(default_factory=deque)  # and not taken yet
    num_made: int = 0
    num_again: int = 0  # items of a rerun that were made before
    attempt: int = 0
    is_finished: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)  # of an actor's, the actor's

    def advance(self) -> Any:
        """Run the user's code until it yields; raises StopIteration at its end."""
        if self.items is None:
            self.items = streamed_items(self.call.run(), self.call.origin)
        return next(self.items)

    def close(self) -> bool:
        """Close the generator; False if it runs. Raises what its code raises then."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            if getattr(self.items, "gi_running", False):  # it has stopped itself
                return False
            close = getattr(self.items, "close", None)
            self.items = None
            if close is not None:
                close()
        finally:
            self.lock.release()
        return True

    def nondeterministic(self) -> Failure:
        """The error of a rerun that ended before the items that the first run gave."""
        return Failure(
            NondeterministicTaskError(
                f"{self.call.origin} ran again and yielded {self.num_made - self.num_again} "
                f"items, where it had yielded at least {self.num_made} before: a generator that "
                "is retried must yield the same items each time"
            )
        )
