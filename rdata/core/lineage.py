"""Which finished tasks can run again, to make anew what was lost? A pure record, bounded in memory.

make() ──► a ──┐                       the spec of a task is kept while something that it made
               ├─► join(a, b) ──► c    is held, or something that was made of that: to make c
load() ──► b ──┘                       again, make and load may have to run again too
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from rdata.core.ids import task_of


class _Record(Struct, eq=False):
    spec: Any
    size_bytes: int
    held: set[bytes]  # of what it made
    inputs: set[bytes]  # recorded tasks that made what it needs
    num_dependents: int = 0  # recorded tasks of which it is an input


class Lineage:
    """The record of one process's tasks. Over `limit_bytes`, the oldest are forgotten."""

    def __init__(self, limit_bytes: int) -> None:
        self.size_bytes = 0
        self._limit_bytes = limit_bytes
        self._records: OrderedDict[bytes, _Record] = OrderedDict()  # whose oldest are found at once

    def __len__(self) -> int:
        return len(self._records)

    def record(
        self,
        task_id: bytes,
        spec: Any,
        size_bytes: int,
        made: Iterable[bytes],
        needed: Iterable[bytes],
    ) -> None:
        """The task has made these objects, which are held, of those that it needed."""
        known = self._records.get(task_id)
        makers = {task_of(object_id) for object_id in needed} - {task_id}
        inputs = {maker for maker in makers if maker in self._records}
        for each in inputs:
            self._records[each].num_dependents += 1
        record = self._records[task_id] = _Record(spec, size_bytes, set(made), inputs)
        self.size_bytes += size_bytes
        if known is not None:  # it ran again
            record.num_dependents = known.num_dependents
            self.size_bytes -= known.size_bytes
            self._let_go(known.inputs)
        while self.size_bytes > self._limit_bytes:
            self._forget(next(iter(self._records)))

    def spec_of(self, task_id: bytes) -> Any | None:
        """What is recorded of the task; None if it is not, or not any more."""
        record = self._records.get(task_id)
        return None if record is None else record.spec

    def freed(self, object_id: bytes) -> None:
        """Nobody holds the object any more."""
        task_id = task_of(object_id)
        record = self._records.get(task_id)
        if record is not None and object_id in record.held:
            record.held.discard(object_id)
            self._forget_if_useless(task_id)

    def _forget(self, task_id: bytes) -> None:
        record = self._records.pop(task_id)
        self.size_bytes -= record.size_bytes
        self._let_go(record.inputs)

    def _let_go(self, tasks: set[bytes]) -> None:
        """One dependent less of each, as far as they are still recorded."""
        stack = list(tasks)
        while stack:  # a chain may be long
            task_id = stack.pop()
            record = self._records.get(task_id)
            if record is None:
                continue
            record.num_dependents -= 1
            if not record.num_dependents and not record.held:
                del self._records[task_id]
                self.size_bytes -= record.size_bytes
                stack += record.inputs

    def _forget_if_useless(self, task_id: bytes) -> None:
        record = self._records[task_id]
        if not record.held and not record.num_dependents:
            self._forget(task_id)
