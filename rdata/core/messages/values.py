"""What do messages carry: values, tasks, replies, functions?"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages. Subclasses choose a tag that is unique in their vocabulary."""


class Value(msgspec.Struct, array_like=True, gc=False):
    """A task's result or an object's value, as it travels.

    kind INLINE: `data` is the serialized value, or, where that is empty, `atoms` the value itself:
    a number, text, bytes, None, or a tuple of these. STORED: it is in the store of `node`. Either
    way it has `size` bytes. ERROR: `data` is the serialized exception. `refs` are the references
    inside, each (object id, owner's address).
    """

    INLINE: ClassVar[int] = 0
    STORED: ClassVar[int] = 1
    ERROR: ClassVar[int] = 2

    kind: int
    data: bytes = b""
    size: int = 0
    node: bytes = b""
    refs: tuple[tuple[bytes, str], ...] = ()
    atoms: Any = None

    def plain(self) -> Any:
        """The value itself, where that is here. A message knows no tuples, and has lists."""
        atoms = self.atoms
        return tuple(atoms) if type(atoms) is list else atoms

    def message_bytes(self) -> int:
        """What it adds to the length of a message, but for some dozens."""
        return self.size if self.kind == self.INLINE else len(self.data)


class Argument(msgspec.Struct, array_like=True, gc=False):
    """The value of a reference that stood as a whole argument, at `position` or as `name`."""

    position: int
    name: str
    object_id: bytes
    owner: str
    value: Value


class FunctionBlob(msgspec.Struct, array_like=True, gc=False):
    """A pickled function or class: here, or as the object `stored` in the store of `node`."""

    id: bytes
    data: bytes
    stored: bytes = b""
    node: bytes = b""


class Task(msgspec.Struct, array_like=True, gc=False):
    """One attempt of a task, or one call of an actor's method (`method` is not empty)."""

    id: bytes
    attempt: int
    function: bytes
    name: str
    args: bytes | tuple[Any, ...]  # serialized (args, kwargs), or the args, where they are atoms
    num_returns: int  # STREAMING for a generator
    method: str = ""
    arguments: tuple[Argument, ...] = ()
    stored_args: bytes = b""  # the object that holds the serialized arguments, if they are large
    stored_node: bytes = b""  # and in whose store it is
    backpressure: int = 0  # items that may be made and not yet taken
    num_delivered: int = 0  # items of an earlier attempt, which are not wanted again
    num_taken: int = 0  # of these, how many the consumer has taken
    depth: int = 0  # how many tasks deep it was submitted
    retry_exceptions: bool = False
    runs_once: bool = False  # no retry is left: its start and its end must be known for sure
    actor: bytes = b""  # an actor's constructor: the actor's id
    actor_name: str = ""  # and the name that it was given, if any
    is_detached: bool = False  # and whether it outlives its creator
    known: tuple[tuple[bytes, Value], ...] = ()  # where nested references' large values are

    STREAMING: ClassVar[int] = -1


class Reply(msgspec.Struct, array_like=True, gc=False):
    """What became of an attempt: a value per return, or for a generator its number of items."""

    task: bytes
    attempt: int
    run_s: float
    values: list[Value]
    num_items: int = -1
    is_retryable: bool = False  # the exception is one that the task's options ask to retry
