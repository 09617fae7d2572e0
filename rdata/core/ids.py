"""How are processes, tasks and objects named?

An id is bytes, made without asking anybody. A process draws its own at random; a task's id is its
submitter's process id and a counter; an object's id is the task that makes it and an index. So
the id of an object names its owner.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator

PROCESS_ID_BYTES = 8
TASK_ID_BYTES = 16
OBJECT_ID_BYTES = 20


def new_process_id() -> bytes:
    """Draw an id for a process or a node."""
    return os.urandom(PROCESS_ID_BYTES)


def task_ids(process_id: bytes) -> Iterator[bytes]:
    """The ids of the tasks that a process submits, and of those that stand for what it puts.

    Any thread may take the next one: all of this is C code, which none interrupts.
    """
    pack = struct.Struct(f"<{PROCESS_ID_BYTES}sQ").pack
    return map(pack, itertools.repeat(process_id), itertools.count(1))


def object_id(task_id: bytes, index: int) -> bytes:
    """The id of the task's return value (or yielded item) number `index`."""
    return task_id + index.to_bytes(4, "little")


def task_of(object_id: bytes) -> bytes:
    """The task that makes the object."""
    return object_id[:TASK_ID_BYTES]


def owner_of(any_id: bytes) -> bytes:
    """The process that owns the object, or that submitted the task."""
    return any_id[:PROCESS_ID_BYTES]
