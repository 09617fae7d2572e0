"""What must a runtime do, so that the public core API means something?

Two implementations: `cluster` (a node's processes do the work) and `inline` (the calling thread
does). One contract suite, `tests/core/runtime/`, runs over both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from rdata.core.object_ref import ObjectRef, ObjectRefGenerator
from rdata.core.specs import ActorInterface, ActorOptions, Function, MethodOptions, TaskOptions

Waitable = ObjectRef | ObjectRefGenerator
Returned = ObjectRef | list[ObjectRef] | ObjectRefGenerator | None  # by `.remote()`


class RuntimeContext(Struct, frozen=True):
    """Where code runs; ids as hex text, None where there is none (Ray's `RuntimeContext`)."""

    job_id: str
    node_id: str
    worker_id: str
    namespace: str
    task_id: str | None = None
    task_name: str | None = None
    actor_id: str | None = None
    actor_name: str | None = None
    assigned_resources: Mapping[str, float] | None = None

    def get_job_id(self) -> str:
        """The program's."""
        return self.job_id

    def get_node_id(self) -> str:
        """That of the node where this runs, as in `rdata.nodes()`."""
        return self.node_id

    def get_worker_id(self) -> str:
        """This process's."""
        return self.worker_id

    def get_task_id(self) -> str | None:
        """That of the running task or actor call; None in a driver."""
        return self.task_id

    def get_task_name(self) -> str | None:
        """What the running task is called in messages; None in a driver."""
        return self.task_name

    def get_actor_id(self) -> str | None:
        """That of the actor that lives here; None elsewhere."""
        return self.actor_id

    def get_actor_name(self) -> str | None:
        """The name that the actor was given; None without one."""
        return self.actor_name


class Runtime(Protocol):
    """Thread-safe throughout. What blocks says so; nothing else waits for another process."""

    released: deque[bytes]
    """Ids of references that were finalised: `ObjectRef.__del__` appends, the runtime drains."""
    dropped_streams: deque[bytes]
    """Task ids of generators that were finalised."""

    def submit(
        self,
        function: Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: TaskOptions,
    ) -> Returned:
        """Run the function somewhere: what `.remote()` returns.

        That is one reference, a list of `num_returns`, None for 0, or a generator of them.
        References among `args` and the values of `kwargs` are replaced by their values before
        the function is called; those nested deeper stay references. Raises SerializationError
        at once if an argument or the function cannot travel, ObjectLostError if a reference in it
        is from before `rdata.shutdown()`.
        """
        ...

    def create_actor(
        self,
        cls: Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
        interface: ActorInterface,
    ) -> ObjectRef:
        """Start an actor. The reference stands for it: when all copies are gone, the actor ends.

        Raises ValueError if its name is taken in its namespace. Does not wait for the constructor;
        that one's exception is raised by the first call's `get`.
        """
        ...

    def call_actor(
        self,
        actor: ObjectRef,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: MethodOptions,
    ) -> Returned:
        """Call a method. Calls from one process run in the order in which they were made."""
        ...

    def find_actor(self, name: str, namespace: str | None) -> tuple[ObjectRef, ActorInterface]:
        """The live actor of that name. Blocks for a round trip; ValueError if there is none."""
        ...

    def kill_actor(self, actor: ObjectRef, class_name: str) -> None:
        """End the actor now; calls that have not finished raise ActorDiedError, which names it."""
        ...

    def cancel(self, ref: Waitable, force: bool, recursive: bool) -> None:
        """Stop the task that makes `ref` if it has not finished; `get` raises TaskCancelledError.

        A running task gets a KeyboardInterrupt; with `force` its process is ended, and with that
        the tasks that it has submitted. With `recursive` these are cancelled as well, and theirs.
        Of a task that another process has submitted, that process is asked to.
        """
        ...

    def put(self, value: Any) -> ObjectRef:
        """Store a copy of the value. Blocks while the store has no room."""
        ...

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        """The values, in order. Blocks until all exist, or one is an error, which is raised.

        Of several errors that are there, that is the first. Large numpy arrays and Arrow tables are
        read-only views of shared memory. Raises GetTimeoutError after `timeout` seconds.
        """
        ...

    def wait(
        self, refs: Sequence[Waitable], num_returns: int, timeout: float | None
    ) -> tuple[list[Waitable], list[Waitable]]:
        """Block until `num_returns` of `refs` are ready: (ready, not ready), each in given order.

        A generator is ready when `next_item` would not block. At most `num_returns` are returned
        as ready. An error counts as ready.
        """
        ...

    def next_item(self, generator: ObjectRefGenerator, timeout: float | None) -> ObjectRef | None:
        """The next item's reference, None after the last. Blocks; GetTimeoutError."""
        ...

    def on_ready(self, ref: Waitable, callback: Callable[[], None]) -> None:
        """Call `callback` once, from any thread (or at once), when `ref` is ready.

        Or when the runtime ends. After that, raises ObjectLostError.
        """
        ...

    def context(self) -> RuntimeContext:
        """Where the calling thread runs."""
        ...

    def nodes(self) -> list[dict[str, Any]]:
        """One dict a node, with Ray's keys: NodeID, Alive, NodeManagerAddress, Resources, …."""
        ...

    def cluster_resources(self) -> dict[str, float]:
        """All resources of all live nodes, by name."""
        ...

    def available_resources(self) -> dict[str, float]:
        """What of them no lease or actor holds at the moment."""
        ...

    def await_preloaded(self, timeout: float) -> None:
        """Block until workers start with numpy, pyarrow and pandas loaded, or `timeout` is over."""
        ...

    def shutdown(self) -> None:
        """End the runtime and all that it started. Blocked calls of other threads raise."""
        ...
