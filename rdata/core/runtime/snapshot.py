"""How does the inline runtime keep a value so that nobody can change it?"""

from __future__ import annotations

import sys
from types import NoneType
from typing import Any

from rdata.core.object_ref import ObjectRef, check_runtime
from rdata.core.pickling import copy_of_table
from rdata.core.runtime.seam import Runtime
from rdata.core.serialize import dumps, loads, refuse_argument
from rdata.errors import SerializationError
from rdata.lazy import pa

_IMMUTABLE = frozenset({NoneType, bool, int, float, complex, str, bytes})


class Snapshot:
    """A copy of a value, as other processes would get it; the references in it live as long."""

    __slots__ = ("_data", "_refs", "_shared")

    def __init__(self, value: Any, what: str = "") -> None:
        """Copy `value`; raises SerializationError, which calls it `what`."""
        self._refs: dict[bytes, ObjectRef] = {}
        self._data: bytes | None = None
        self._shared: Any = None
        if type(value) in _IMMUTABLE:
            self._shared = value
            return
        if "pyarrow" in sys.modules and type(value) in (pa.Table, pa.RecordBatch):
            # One copy for all: nobody knows who can write to the memory that a table stands on.
            self._shared = copy_of_table(value)
            return
        serialized = dumps(value, what)
        self._data = serialized.to_bytes()
        self._refs = {ref.id: ref for ref in serialized.refs}

    def check(self, runtime: Runtime) -> Snapshot:
        """Itself; raises ObjectLostError if a reference in it belongs to another runtime."""
        check_runtime(self._refs.values(), runtime)
        return self

    def load(self) -> Any:
        """A new copy of the value; its arrays and tables are read-only views of one memory."""
        if self._data is None:
            return self._shared
        return loads(self._data, lambda id, owner: self._refs[id])


def copy_arguments(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Snapshot:
    """Copy the arguments of a call; raises SerializationError, which says which cannot travel."""
    try:
        return Snapshot((args, kwargs))
    except SerializationError:
        refuse_argument(name, args, kwargs)
        raise
