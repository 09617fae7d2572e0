"""What does a program hold of a value that is elsewhere, or not made yet?"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rdata.errors import GetTimeoutError, ObjectLostError
from rdata.lazy import asyncio

if TYPE_CHECKING:
    from rdata.core.runtime.seam import Runtime

WHY_ENDED = "rdata.shutdown() has ended it, or it is that of the process which forked this one"


class ObjectRef:
    """A handle to an immutable value, which a task will make or `put` has stored.

    Hashable, comparable, and awaitable in asyncio code. A reference travels to other processes
    only inside arguments, results and stored values, where rdata counts it. When the last one
    goes, the value's memory is freed.
    """

    __slots__ = ("__weakref__", "_runtime", "id", "owner")

    def __init__(self, id: bytes, owner: str, runtime: Runtime) -> None:
        """Only runtimes make references; `owner` is where the owning process can be reached."""
        self.id = id
        self.owner = owner
        self._runtime = runtime

    def __del__(self) -> None:
        # May run inside any lock, at any bytecode: the runtime only appends to a deque.
        try:
            self._runtime.released.append(self.id)
        except AttributeError:  # half made, or the interpreter is going down
            return

    def hex(self) -> str:
        """The id as text."""
        return self.id.hex()

    def binary(self) -> bytes:
        """The id as bytes."""
        return self.id

    def future(self) -> concurrent.futures.Future[Any]:
        """A `concurrent.futures.Future` of the value; its callbacks may be slow, and block.

        Where the task raised StopIteration, which no coroutine can receive, it gives RuntimeError;
        ObjectLostError if `rdata.shutdown()` comes first, as `rdata.get` after that.
        """
        return self._resolving(_Future())

    def __await__(self) -> Generator[Any, None, Any]:
        # asyncio's own callback is quick.
        return asyncio.wrap_future(self._resolving(concurrent.futures.Future())).__await__()

    def _resolving(self, future: concurrent.futures.Future[Any]) -> concurrent.futures.Future[Any]:
        """The future, which will get the value."""

        def resolve() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                value = self._runtime.get([self], None)[0]
            except StopIteration as error:  # an `await` would take it for the end of the future
                told = RuntimeError("the task raised StopIteration")
                told.__cause__ = error
                future.set_exception(told)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(value)

        try:
            self._runtime.on_ready(self, resolve)
        except ObjectLostError as error:
            future.set_exception(error)
        return future

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"ObjectRef({self.id.hex()})"

    def __copy__(self) -> ObjectRef:
        return self  # it cannot be changed

    def __deepcopy__(self, memo: object) -> ObjectRef:
        return self

    def __reduce__(self) -> Any:
        raise TypeError(
            "an ObjectRef cannot be pickled by itself: pass it in the arguments or the result of a "
            "task, or inside a value given to rdata.put(), where rdata counts who holds it"
        )


class _Future(concurrent.futures.Future[Any]):
    """One whose callbacks have a thread of their own: they delay no other future.

    Python has no public hook for that. Typeshed does not know the private one, hence the ignores.
    """

    def _invoke_callbacks(self) -> None:  # what the base calls when it is done
        if self._done_callbacks:  # type: ignore[attr-defined]  # of the base
            call = super()._invoke_callbacks  # type: ignore[misc]
            threading.Thread(target=call, name="rdata-callbacks").start()


class ObjectRefGenerator:
    """The items of a generator task, each as a reference, in order, while the task runs.

    `next()` blocks until the next item exists; several threads, or coroutines, may share the items.
    An exception in the task, or an item that cannot be pickled, ends it: `get` of the last
    reference raises the error. Dropping the generator stops the task at its next item.
    """

    def __init__(self, task_id: bytes, runtime: Runtime) -> None:
        self.task_id = task_id
        self._runtime = runtime

    def __iter__(self) -> Iterator[ObjectRef]:
        return self

    def __next__(self) -> ObjectRef:
        ref = self._runtime.next_item(self, None)
        if ref is None:
            raise StopIteration
        return ref

    def __aiter__(self) -> AsyncIterator[ObjectRef]:
        return self

    async def __anext__(self) -> ObjectRef:
        loop = asyncio.get_running_loop()
        is_available = asyncio.Event()

        def tell() -> None:
            loop.call_soon_threadsafe(is_available.set)

        while True:
            is_available.clear()
            self._runtime.on_ready(self, tell)
            await is_available.wait()
            with contextlib.suppress(GetTimeoutError):  # another coroutine has taken it
                ref = self._runtime.next_item(self, 0)
                if ref is None:
                    raise StopAsyncIteration
                return ref

    def __del__(self) -> None:
        try:
            self._runtime.dropped_streams.append(self.task_id)
        except AttributeError:
            return

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self.task_id.hex()})"

    def __reduce__(self) -> Any:
        raise TypeError("an ObjectRefGenerator stays in the process that submitted its task")


def check_runtime(refs: Iterable[ObjectRef | ObjectRefGenerator], runtime: Runtime | None) -> None:
    """Raise ObjectLostError if one of these belongs to another runtime."""
    for ref in refs:
        if ref._runtime is not runtime:
            raise of_ended_runtime(ref)


def of_ended_runtime(ref: ObjectRef | ObjectRefGenerator) -> ObjectLostError:
    """The error of using a reference whose runtime this process does not have any more."""
    return ObjectLostError(
        f"{ref!r} belongs to a runtime that this process does not have: {WHY_ENDED}. Make it again "
        "here"
    )
