"""How are processes, tasks and objects named?

An id is bytes, made without asking anybody. A process draws its own at random; a task's id is its
submitter's process id and a counter; an object's id is the task that makes it and an index. So
the id of an object names its owner.
"""

from __future__ import annotations

import itertools
import os

PROCESS_ID_BYTES = 8
TASK_ID_BYTES = 16
OBJECT_ID_BYTES = 20


def new_process_id() -> bytes:
    """Draw an id for a process or a node."""
    return os.urandom(PROCESS_ID_BYTES)


class TaskIds:
    """Gives one process the ids of the tasks that it submits and the objects that it puts."""

    def __init__(self, process_id: bytes) -> None:
        self.process_id = process_id
        self._counter = itertools.count(1)  # next() on it is atomic

    def next(self) -> bytes:
        """A task id that no other call, here or elsewhere, returns."""
        return self.process_id + next(self._counter).to_bytes(8, "little")


def object_id(task_id: bytes, index: int) -> bytes:
    """The id of the task's return value (or yielded item) number `index`."""
    return task_id + index.to_bytes(4, "little")


def task_of(object_id: bytes) -> bytes:
    """The task that makes the object."""
    return object_id[:TASK_ID_BYTES]


def owner_of(any_id: bytes) -> bytes:
    """The process that owns the object, or that submitted the task."""
    return any_id[:PROCESS_ID_BYTES]
