"""What can go wrong, and which exception says so?

    RdataError
    ├── NotInitializedError            a call that needs a runtime where none can be started
    ├── OptionError          ValueError   an argument or option that cannot be meant
    │   └── UnknownOptionError  TypeError    it has a name that rdata does not know, or not yet
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
from collections.abc import Mapping
from functools import lru_cache
from traceback import TracebackException
from typing import Any, TypeVar

E = TypeVar("E", bound=BaseException)
Story = tuple[BaseException, str, str]  # of a TaskError: its cause, origin and frames


class RdataError(Exception):
    """Base of every error that rdata raises on purpose."""


class NotInitializedError(RdataError):
    """The call needs a runtime, and none can be started from here."""


class OptionError(RdataError, ValueError):
    """An argument or option has a value, or a name, that cannot be meant."""


class UnknownOptionError(OptionError, TypeError):
    """An argument or option has a name that rdata does not know, or does not have yet."""


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
    exception itself, or a TaskError with its text if it cannot travel; `origin` says which task
    raised it; `frames`, the formatted traceback of the user's code, stands in a note, too. An
    attribute of one of these names that the user's class has is the user's.
    """

    cause: BaseException
    origin: str
    frames: str
    _rdata_story: Story | None = None  # None: made by the user's code, and not come out of a task

    @staticmethod
    def wrap(cause: BaseException, origin: str, frames: str) -> TaskError:
        """Make the error that `get` raises.

        `origin` says which task raised, and where; `frames` is the formatted traceback of the
        user's code.
        """
        if isinstance(cause, TaskError) and cause._rdata_story is not None:
            return cause  # a task waited for another: the first one's frames tell the story
        story = cause, origin, frames
        try:
            args, attributes = exception_parts(cause)
            error = rebuild(_dual_class(type(cause)), args)  # type: ignore[arg-type]  # is hashable
            _tell(error, attributes, story)
        except Exception:  # the user's class refuses a second base or a plain __new__, or fails
            error = TaskError(describe(cause))
            _tell(error, {}, story)
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        if self._rdata_story is not None:
            return TaskError.wrap, self._rdata_story
        args, attributes = exception_parts(self)
        return rebuild, (type(self), args), attributes


def story_of(error: BaseException) -> Story | None:
    """Cause, origin and frames of an error that came out of a task; None of any other."""
    return error._rdata_story if isinstance(error, TaskError) else None


def _tell(error: TaskError, attributes: Mapping[str, Any], story: Story) -> None:
    own = _variables(error)
    for name, value in zip(("cause", "origin", "frames"), story, strict=True):
        if not hasattr(type(error), name):
            own[name] = value
    set_attributes(error, attributes)
    _, origin, frames = story
    note = f"\nraised in {origin}:\n{frames}".rstrip()
    own.update(_rdata_story=story, __notes__=[*attributes.get("__notes__", ()), note])


def describe(error: BaseException) -> str:
    """Its class and message, as the last lines of a traceback show them."""
    return "".join(report_of(error).format_exception_only()).strip()


def report_of(error: BaseException) -> TracebackException:
    """What there is to format of an exception, whatever the code of its class does."""
    try:
        return TracebackException.from_exception(error)
    except Exception:  # it looks for attributes, and asks a __getattr__ which fails
        cls = type(error)
        body = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        plain = type(cls.__name__, (Exception,), body)(_message(error))
        plain.__traceback__ = object.__getattribute__(error, "__traceback__")
        return TracebackException.from_exception(plain)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "<exception str() failed>"


def exception_parts(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What `rebuild`, and `set_attributes` after it, need to make the error again."""
    # Asked of the built-in base, which knows what it keeps outside of __dict__ (a file's name …).
    _, args, *state = _builtin_base(type(error)).__reduce__(error)
    return args, dict(state[0]) if state and state[0] else {}


def rebuild(cls: type[E], args: tuple[Any, ...]) -> E:
    """Make an exception without its class's constructor, which may want other arguments."""
    error = cls.__new__(cls, *args)
    _builtin_base(cls).__init__(error, *args)
    return error


def set_attributes(error: BaseException, attributes: Mapping[str, Any]) -> None:
    """Set them without the class's own code, which may refuse: that of a frozen dataclass does."""
    base = _builtin_base(type(error))
    for name, value in attributes.items():
        if hasattr(base, name):  # kept outside of __dict__
            object.__setattr__(error, name, value)
        else:
            _variables(error)[name] = value


def _variables(error: BaseException) -> dict[str, Any]:
    variables: dict[str, Any] = object.__getattribute__(error, "__dict__")
    return variables


def _builtin_base(cls: type[BaseException]) -> Any:
    return next(base for base in cls.__mro__ if vars(builtins).get(base.__name__) is base)


@lru_cache(maxsize=256)
def _dual_class(cause_type: type[BaseException]) -> type[TaskError]:
    if issubclass(cause_type, TaskError):
        return cause_type
    # The user's class first: its attributes are the user's, and its built-in base makes instances.
    both = (TaskError,) if issubclass(TaskError, cause_type) else (cause_type, TaskError)
    body = {"__module__": cause_type.__module__, "__qualname__": cause_type.__qualname__}
    return type(cause_type.__name__, (_Dual, *both), body)


class _Dual:
    """Comes before the user's class in a dual class: what that must not decide there."""

    def __init__(self, *args: Any) -> None:
        """Leave alone what `rebuild` sets; the user's __init__ ran where it was raised."""

    def __init_subclass__(cls) -> None:
        """Add nothing: the user's may refuse, or want arguments."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return TaskError.__reduce__(self)  # type: ignore[arg-type]  # every dual class is one
