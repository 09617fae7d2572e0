"""How do a function, its arguments and its result cross to another process and back?"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from rdata.core import messages as m
from rdata.core import serialize
from rdata.core.object_ref import ObjectRef
from rdata.core.runtime.store_client import StoreClient
from rdata.core.serialize import Serialized
from rdata.core.specs import Function
from rdata.errors import SerializationError


class Registration(Struct, frozen=True, eq=False, weakref=True):
    """A function as one runtime knows it: pickled once, with what it captured kept alive.

    It lives as long as the function, or as tasks that are to run it: then workers forget it.
    """

    runtime_id: bytes
    blob: m.FunctionBlob
    captured: tuple[ObjectRef, ...]


class Slot(Struct, frozen=True):
    """A reference that stands as a whole argument: its value takes its place."""

    position: int  # -1 for a keyword argument
    name: str
    object_id: bytes
    owner: str


class PendingTask(Struct, eq=False):
    """A task or an actor's call, from its submission until its last reply."""

    id: bytes
    function_id: bytes
    message: m.Task
    returns: tuple[bytes, ...]  # the objects that the task makes, other than a generator's items
    size_bytes: int  # of its message
    registration: Registration | None = None
    pool: int = 0  # of the workers that may run it; an actor's calls have none
    retries_left: int = 0
    held: tuple[bytes, ...] = ()  # objects that live at least as long as this task
    slots: Sequence[Slot] = ()  # whole arguments that are references
    num_unresolved: int = 0
    retry_on: bool | tuple[type[BaseException], ...] = False
    parent: bytes = b""  # the task, or actor's call, that has submitted it, if one has
    is_cancelled: bool = False
    is_rebuilding: bool = False  # it has finished before; what it made was lost
    is_suspect: bool = False  # it may have ended a worker: it runs with nothing beside it


class CallEncoder:
    """Makes messages of functions and arguments. Does not need the runtime's lock."""

    def __init__(
        self,
        runtime_id: bytes,
        store: StoreClient,
        inline_bytes: int,
        put: Callable[[Serialized], ObjectRef],
        check: Callable[[Iterable[ObjectRef]], None],
        on_forgotten: Callable[[bytes], object],
    ) -> None:
        """`check(references)` raises if one cannot be sent.

        `on_forgotten(function id)`: a bound method, for a finaliser; it must only note it.
        """
        self.node_id = b""  # where `put` puts
        self._on_forgotten = weakref.WeakMethod(on_forgotten)  # functions outlive runtimes
        self._runtime_id = runtime_id
        self._store = store
        self._inline_bytes = inline_bytes
        self._put = put
        self._check = check

    def register(self, function: Function) -> Registration:
        """Pickle the function, unless this runtime has it already."""
        known: Registration | None = function.registration
        if known is not None and known.runtime_id == self._runtime_id:
            return known
        value = serialize.dumps(function.target, f"function or class {function.name}")
        captured = tuple(value.refs)
        self._check(captured)
        data = value.to_bytes()
        function_id = hashlib.blake2b(data, digest_size=16).digest()
        blob = m.FunctionBlob(function_id, data)
        if len(data) > self._inline_bytes:  # once into the store, and not to every worker
            stored = self._put(value)
            blob = m.FunctionBlob(function_id, b"", stored.id, self.node_id)
            captured += (stored,)
        registration = Registration(self._runtime_id, blob, captured)
        function.registration = registration
        weakref.finalize(registration, _tell, self._on_forgotten, function_id).atexit = False
        return registration

    def encode_arguments(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bytes, ObjectRef | None, Sequence[Slot], Sequence[ObjectRef]]:
        """Serialize arguments: (bytes, or the stored object, whole-reference slots, all refs)."""
        slots: list[Slot] = []
        refs: list[ObjectRef] = []
        for position, value in enumerate(args):
            if type(value) is ObjectRef:
                slots.append(Slot(position, "", value.id, value.owner))
                refs.append(value)
        for keyword, value in kwargs.items():
            if type(value) is ObjectRef:
                slots.append(Slot(-1, keyword, value.id, value.owner))
                refs.append(value)
        if slots:
            args = tuple(None if type(value) is ObjectRef else value for value in args)
            kwargs = {
                keyword: None if type(value) is ObjectRef else value
                for keyword, value in kwargs.items()
            }
        try:
            value = serialize.dumps((args, kwargs))
        except SerializationError:
            serialize.refuse_argument(name, args, kwargs)
            raise
        refs.extend(value.refs)
        self._check(refs)
        if value.size <= self._inline_bytes:
            return value.to_bytes(), None, slots, refs
        stored = self._put(value)
        return b"", stored, slots, (*refs, stored)


def _tell(method: weakref.WeakMethod[Callable[[bytes], object]], function_id: bytes) -> None:
    on_forgotten = method()
    if on_forgotten is not None:
        on_forgotten(function_id)
