"""What can go wrong, and which exception says so?

    RdataError
    ├── NotInitializedError            a call that needs a runtime where none can be started
    ├── OptionError          ValueError   an argument or option that cannot be meant
    ├── NodeStartError                 a node could not be started, or refused
    │   └── NodeNotFoundError  ConnectionError   none runs at the address
    ├── NodeDiedError                  the node's processes ended while work was under way
    ├── GetTimeoutError      TimeoutError
    ├── SerializationError   TypeError    a value that cannot travel between processes
    ├── TaskError                      user code raised; also an instance of what it raised
    ├── TaskCancelledError
    ├── WorkerCrashedError             the process that ran a task ended
    ├── ActorError
    │   ├── ActorDiedError             ended, with the cause
    │   └── ActorUnschedulableError    no node can ever hold it
    ├── TaskUnschedulableError         no node can ever run it
    ├── NondeterministicTaskError      a rerun generator gave another number of items
    ├── ObjectLostError
    │   └── OwnerDiedError             the process that owned the object ended
    ├── ObjectStoreFullError           nothing more fits into the store's quota
    └── DataError                      a dataset's input, plan or user function is at fault

`rdata.exceptions` offers the same classes, also under the names that Ray gives them.
"""

from __future__ import annotations

import builtins
from functools import lru_cache
from typing import Any, TypeVar

E = TypeVar("E", bound=BaseException)


class RdataError(Exception):
    """Base of every error that rdata raises on purpose."""


class NotInitializedError(RdataError):
    """The call needs a runtime, and none can be started from here."""


class OptionError(RdataError, ValueError):
    """An argument or option has a value, or a name, that cannot be meant."""


class NodeStartError(RdataError):
    """A node could not be started, or the one asked for could not be reached."""


class NodeNotFoundError(NodeStartError, ConnectionError):
    """No node runs at the address that was given."""


class NodeDiedError(RdataError):
    """The node ended while this call, or an object that it needs, depended on it."""


class GetTimeoutError(RdataError, TimeoutError):
    """The value was not ready within `timeout` seconds."""


class SerializationError(RdataError, TypeError):
    """A value cannot be sent to another process, or be rebuilt there."""


class TaskCancelledError(RdataError):
    """The task was cancelled before it gave its result."""


class WorkerCrashedError(RdataError):
    """The process that ran the task ended, and the task has no retries left."""


class ActorError(RdataError):
    """A call to an actor has no result, for a reason other than an exception in its method."""


class ActorDiedError(ActorError):
    """The actor has ended; the message tells how."""


class ActorUnschedulableError(ActorError):
    """No node can ever hold the actor."""


class TaskUnschedulableError(RdataError):
    """No node can ever run the task."""


class NondeterministicTaskError(RdataError):
    """A generator task that was run again gave another number of items than before."""


class ObjectLostError(RdataError):
    """The object's value is gone and cannot be made again."""


class OwnerDiedError(ObjectLostError):
    """The process that owned the object has ended, and its objects with it."""


class ObjectStoreFullError(RdataError):
    """The object does not fit into the store's quota beside what is in use."""


class DataError(RdataError):
    """A dataset's input, its plan, or a function applied to it is at fault."""


class TaskError(RdataError):
    """User code raised in a task or an actor's method.

    What `rdata.get` raises is an instance of this class *and* of the class that the user's code
    raised, with its arguments and attributes, so that `except ValueError` works. `cause` is the
    exception itself; the frames of the user's code stand in a note below the message.
    """

    cause: BaseException
    origin: str
    frames: str

    @staticmethod
    def wrap(cause: BaseException, origin: str, frames: str) -> TaskError:
        """Make the error that `get` raises.

        `origin` says which task raised, and where; `frames` is the formatted traceback of the
        user's code.
        """
        if isinstance(cause, TaskError) and hasattr(cause, "origin"):
            return cause  # a task waited for another: the first one's frames tell the story
        error = cause if isinstance(cause, TaskError) else _instance_like(cause)
        error.cause, error.origin, error.frames = cause, origin, frames
        error.add_note(f"\nraised in {origin}:\n{frames}".rstrip())
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskError.wrap, (self.cause, self.origin, self.frames)


def _instance_like(cause: BaseException) -> TaskError:
    args, attributes = exception_parts(cause)
    notes = attributes.pop("__notes__", ())
    try:
        dual: type[TaskError] = _dual_class(type(cause))  # type: ignore[arg-type]  # is hashable
        error = rebuild(dual, args)
        error.__setstate__(attributes)
    except TypeError:  # a class that refuses a second base or a plain __new__
        error = TaskError(f"{type(cause).__name__}: {cause}")
    for note in notes:
        error.add_note(note)
    return error


def exception_parts(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What `rebuild`, and `__setstate__` after it, need to make the error again."""
    # Asked of the built-in base, which knows what it keeps outside of __dict__ (a file's name …).
    _, args, *state = _builtin_base(type(error)).__reduce__(error)
    return args, dict(state[0]) if state and state[0] else {}


def rebuild(cls: type[E], args: tuple[Any, ...]) -> E:
    """Make an exception without its class's constructor, which may want other arguments."""
    error = cls.__new__(cls, *args)
    _builtin_base(cls).__init__(error, *args)
    return error


def _builtin_base(cls: type[BaseException]) -> Any:
    return next(base for base in cls.__mro__ if vars(builtins).get(base.__name__) is base)


@lru_cache(maxsize=256)
def _dual_class(cause_type: type[BaseException]) -> type[TaskError]:
    def __init__(self: TaskError, *args: Any) -> None:
        """Leave alone what `_instance_like` sets; the user's __init__ ran where it was raised."""

    body = {
        "__init__": __init__,
        "__str__": cause_type.__str__,
        "__module__": cause_type.__module__,
    }
    dual = type(cause_type.__name__, (TaskError, cause_type), body)
    dual.__qualname__ = cause_type.__qualname__
    return dual
