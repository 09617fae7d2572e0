"""How is an object made again that was lost with the store that had it?

    reader finds it gone ──Lost──► owner: Rebuilder ──► its task runs again, and before it those
                                                        that made arguments which are gone as well

Every method wants the runtime's lock held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rdata.core import ids
from rdata.core import messages as m
from rdata.core.lineage import Lineage
from rdata.core.runtime.calls import PendingTask
from rdata.core.runtime.objects import ObjectTable


class _CannotRebuildError(Exception):
    """The text says why."""


class Rebuilder:
    """Finished tasks of one process, and the objects of its own that are being made again."""

    def __init__(
        self,
        objects: ObjectTable,
        limit_bytes: int,
        is_running: Callable[[bytes], bool],
        start_again: Callable[[PendingTask], None],
    ) -> None:
        """`limit_bytes`: of recorded tasks; 0 where no store can end before this process does."""
        self.is_needed = limit_bytes > 0
        self._objects = objects
        self._lineage = Lineage(limit_bytes)
        self._is_running = is_running
        self._start_again = start_again
        objects.on_lost = self._lost
        if self.is_needed:
            objects.on_freed = self._lineage.freed

    def record(self, task: PendingTask, values: Sequence[m.Value]) -> None:
        """A task has finished, with these results or an error."""
        made = [
            object_id
            for object_id, value in zip(task.returns, values, strict=False)  # an error is one
            if value.kind == m.Value.STORED and self._objects.is_held(object_id)
        ]
        if made:
            self._lineage.record(task.id, task, task.size_bytes, made, task.held)

    def finished(self, task: PendingTask, values: Sequence[m.Value]) -> None:
        """A task has finished again: what of its results was not lost stays as it is."""
        given = values if len(values) == len(task.returns) else [values[0]] * len(task.returns)
        for object_id, value in zip(task.returns, given, strict=True):
            entry = self._objects.entry(object_id)
            if entry is None or entry.value is None:
                self._objects.complete(object_id, value)
            else:
                self._objects.discard(object_id, value)

    def _lost(self, object_id: bytes) -> str:
        """An object of this process's own is held, and cannot be had. "", or why it stays lost."""
        try:
            self._run_again(ids.task_of(object_id))
        except _CannotRebuildError as reason:
            return str(reason)
        self._objects.forget_value(object_id)
        return ""

    def _run_again(self, task_id: bytes) -> None:
        tasks, missing = self._plan(task_id)
        for object_id in missing:
            self._objects.create(object_id)
        for task in tasks:
            for object_id in task.held:
                self._objects.hold(object_id, "")  # somebody does already
        for object_id, value in missing.items():
            if value is not None:
                self._objects.complete(object_id, value)
            self._objects.drop(object_id)
        for task in tasks:
            task.is_rebuilding = True
            self._start_again(task)

    def _plan(self, task_id: bytes) -> tuple[list[PendingTask], dict[bytes, m.Value | None]]:
        """The tasks to run, and objects that they need and nobody holds (with values known here).

        Raises _CannotRebuildError.
        """
        tasks: dict[bytes, PendingTask] = {}
        missing: dict[bytes, m.Value | None] = {}
        stack = [task_id]
        while stack:
            each = stack.pop()
            if each in tasks or self._is_running(each):
                continue
            tasks[each] = task = self._recorded(each)
            for needed in task.held:
                if self._objects.is_held(needed) or needed in missing:
                    continue
                missing[needed] = value = _inline_value(task, needed)
                if value is None:
                    stack.append(ids.task_of(needed))
        return list(tasks.values()), missing

    def _recorded(self, task_id: bytes) -> PendingTask:
        task: PendingTask | None = self._lineage.spec_of(task_id)
        if task is None:
            raise _CannotRebuildError(
                "no task can make it again: that is only kept of tasks, not of put, of actors"
                " and of generators, and within lineage_bytes"
            )
        if task.retries_left == 0:
            raise _CannotRebuildError(
                f"task {task.message.name} has no retries left to make it again"
            )
        return task


def _inline_value(task: PendingTask, object_id: bytes) -> m.Value | None:
    """An argument's value that the task's message still has."""
    for argument in task.message.arguments:
        if argument.object_id == object_id and argument.value.kind == m.Value.INLINE:
            return argument.value
    return None
