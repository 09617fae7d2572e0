"""What can a program do with references, actors and the cluster? The public functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from rdata.arguments import nonnegative_number, whole_number
from rdata.core.actor import ActorHandle
from rdata.core.lifecycle import ensure_runtime, runtime_of
from rdata.core.object_ref import ObjectRef, ObjectRefGenerator, check_runtime
from rdata.core.runtime import RuntimeContext
from rdata.core.runtime.seam import Waitable
from rdata.errors import OptionError, TaskError


@overload
def get(refs: ObjectRef, *, timeout: float | None = None) -> Any: ...
@overload
def get(refs: Sequence[ObjectRef], *, timeout: float | None = None) -> list[Any]: ...
def get(refs: ObjectRef | Sequence[ObjectRef], *, timeout: float | None = None) -> Any:
    """The value of a reference, or the values of a list of them, in its order.

    Blocks until all are made, at most `timeout` seconds if given, or until one turns out to be an
    error. Large numpy arrays and Arrow tables are read-only views of shared memory; arrays of
    times, of Python objects and of subclasses (masked ones, say) are copies.

    Raises what a task raised, also as TaskError; GetTimeoutError; ObjectLostError if the value is
    gone; ActorDiedError, WorkerCrashedError, TaskCancelledError, TaskUnschedulableError or
    ActorUnschedulableError if it was never made. Of several errors that are there, it is the first
    in the list; tasks whose values are not there yet go on.
    """
    try:
        if isinstance(refs, ObjectRef):
            return runtime_of(refs).get([refs], _seconds(timeout))[0]
        if not isinstance(refs, list | tuple):
            raise _not_a_ref(refs, "rdata.get takes an ObjectRef or a list of them")
        for ref in refs:
            if not isinstance(ref, ObjectRef):
                raise _not_a_ref(ref, "rdata.get takes an ObjectRef or a list of them")
        if not refs:
            return []
        runtime = runtime_of(refs[0])
        check_runtime(refs, runtime)
        return runtime.get(refs, _seconds(timeout))
    except TaskError as error:
        # It brings the frames of the task; those on the way from there are of no use to anyone.
        raise error.with_traceback(None)  # noqa: B904 - it is the same exception


def put(value: Any) -> ObjectRef:
    """Store a copy of `value` and return a reference to it.

    Worth it for a large value that several tasks take: it is copied once. Blocks while the store
    has no room. Raises SerializationError, ObjectStoreFullError.

    >>> import rdata
    >>> with rdata.init(local_mode=True):
    ...     rdata.get(rdata.put({"a": 1}))
    {'a': 1}
    """
    if isinstance(value, ObjectRef):
        raise TypeError("rdata.put() got an ObjectRef, whose value is stored already: use it as is")
    return ensure_runtime().put(value)


def wait(
    refs: Sequence[Waitable],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = False,
) -> tuple[list[Any], list[Any]]:
    """Block until `num_returns` of the references are ready: (ready, the others).

    Both lists keep the order of `refs`. After `timeout` seconds, returns with fewer. A generator
    is ready when its next item is. An error counts as ready. `refs` must differ from each other.
    Does not fetch values from other nodes: Ray's `fetch_local` may only be False.

    Raises ObjectLostError if a reference is from before `rdata.shutdown()`.

    >>> import rdata
    >>> with rdata.init(local_mode=True):
    ...     ready, others = rdata.wait([rdata.put(1), rdata.put(2)], timeout=10)
    ...     len(ready), len(others)
    (1, 1)
    """
    if fetch_local:
        raise OptionError("fetch_local=True: rdata.wait does not fetch values, rdata.get does")
    if isinstance(refs, ObjectRef | ObjectRefGenerator):
        raise TypeError("rdata.wait takes a list of references: rdata.wait([ref])")
    refs = list(refs)
    for ref in refs:
        if not isinstance(ref, ObjectRef | ObjectRefGenerator):
            raise TypeError(f"rdata.wait takes a list of references; it has {_shown(ref)}")
    limit_s = _seconds(timeout)
    if not refs:
        return [], []
    if len(set(refs)) != len(refs):
        raise OptionError("rdata.wait takes references that differ from each other")
    expected = f"1 to {len(refs)}, the number of references"
    count = whole_number("num_returns", num_returns, 1, expected)
    if count > len(refs):
        raise OptionError(f"num_returns={count}: give {expected}")
    runtime = runtime_of(refs[0])
    check_runtime(refs, runtime)
    return runtime.wait(refs, count, limit_s)


def cancel(ref: Waitable, *, force: bool = False, recursive: bool = True) -> None:
    """Stop the task that makes `ref`; nothing if it has finished.

    A task that has not started never will; one that runs gets a KeyboardInterrupt (amid an import,
    at its end or after 10 s), or with `force` its process is ended. `get` raises TaskCancelledError
    then. Any process that was given the reference may cancel; the one that submitted the task is
    asked to, which is not waited for.

    The tasks and actors' calls that it has submitted, on its own thread and not on others, and that
    have not finished are cancelled as well, and theirs; not with `recursive=False`. What a process
    that is ended by `force` has submitted is ended with it in either case, except actors' calls.
    """
    if not isinstance(ref, ObjectRef | ObjectRefGenerator):
        raise _not_a_ref(ref, "rdata.cancel takes an ObjectRef or an ObjectRefGenerator")
    runtime_of(ref).cancel(ref, force, recursive)


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """End an actor at once. Calls that have not finished, and later ones, raise ActorDiedError.

    Actors are not restarted: Ray's `no_restart` may only be True.
    """
    if not no_restart:
        raise OptionError("no_restart=False: rdata does not restart actors yet")
    if not isinstance(actor, ActorHandle):
        raise _not_a_ref(actor, "rdata.kill takes an actor's handle (a task is for rdata.cancel)")
    runtime_of(actor._ref).kill_actor(actor._ref, actor._interface.class_name)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """A handle to the live actor of that name, in this program's namespace unless one is given.

    Raises ValueError if there is none.
    """
    if not isinstance(name, str) or not name:
        raise OptionError(f"rdata.get_actor({name!r}): give the actor's name")
    return ActorHandle(*ensure_runtime().find_actor(name, namespace))


def nodes() -> list[dict[str, Any]]:
    """One dict for each node of the cluster, dead ones too, by which `Alive` is False.

    Keys that are Ray's: `NodeID`, `Alive`, `NodeManagerAddress`, `NodeManagerPort` (0: no other
    program can join), `NodeManagerHostname`, `Resources`. And rdata's own: `IsHead`,
    `SessionDir`, and, but for local mode, `AvailableResources`, `ObjectStoreUsedBytes` and
    `Processes`, with the ids of the node's processes by what they are.
    """
    return ensure_runtime().nodes()


def cluster_resources() -> dict[str, float]:
    """All resources of all live nodes, by name: CPU, object_store_memory (bytes), custom ones."""
    return ensure_runtime().cluster_resources()


def available_resources() -> dict[str, float]:
    """What of the cluster's resources is not in use at the moment, by name."""
    return ensure_runtime().available_resources()


def await_preloaded(timeout: float = 10.0) -> None:
    """Block until workers start with numpy, pyarrow and pandas loaded, or `timeout` is over.

    A node preloads them for a second or two after its start; workers that start before that
    import them anew, each for itself. For work that needs them anyway, waiting takes less time.
    """
    ensure_runtime().await_preloaded(timeout)


def get_runtime_context() -> RuntimeContext:
    """Where the calling code runs: its node, worker, task and actor."""
    return ensure_runtime().context()


def _seconds(timeout: Any) -> float | None:
    if timeout is None:
        return None
    return nonnegative_number("timeout", timeout, "seconds, 0 or more, or None to wait on")


def _not_a_ref(value: Any, rule: str) -> OptionError:
    return OptionError(f"{rule}, and got {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, ObjectRefGenerator):
        return "an ObjectRefGenerator: iterate over it, each item is an ObjectRef"
    return f"a {type(value).__name__}: {value!r:.80}"
