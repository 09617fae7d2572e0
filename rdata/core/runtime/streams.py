"""How do a generator task's items reach their consumer, in order and not too far ahead?"""

from __future__ import annotations

from collections.abc import Callable

from rdata.core.ids import object_id

Callback = Callable[[], None]


class Stream:
    """The items of one generator task, as its submitter sees them. Wants the runtime's lock.

    Items are numbered from 0; `num_arrived` of them exist, `num_taken` have been given out.
    """

    def __init__(self, task_id: bytes, backpressure: int) -> None:
        self.task_id = task_id
        self.backpressure = backpressure
        self.num_arrived = 0
        self.num_taken = 0
        self.num_acknowledged = 0
        self.num_items: int | None = None  # known at the end
        self.is_dropped = False
        self._callbacks: list[Callback] = []

    def is_ready(self) -> bool:
        """Whether the next item, or the end, is there."""
        return self.num_taken < self.num_arrived or self.is_at_end()

    def is_at_end(self) -> bool:
        """Whether all items have been taken and no more will come."""
        return self.num_items is not None and self.num_taken >= self.num_items

    def when_ready(self, callback: Callback) -> bool:
        """True if ready; else `callback` follows, once."""
        if self.is_ready():
            return True
        self._callbacks.append(callback)
        return False

    def forget_callback(self, callback: Callback) -> bool:
        """Take back what `when_ready` noted; False if ready."""
        if self.is_ready():
            return False
        if callback in self._callbacks:
            self._callbacks.remove(callback)
        return True

    def arrived(self, index: int) -> bool:
        """An item has come; False if it is one that came before (the task ran again)."""
        if index < self.num_arrived:
            return False
        self.num_arrived = index + 1
        self._wake()
        return True

    def ended(self, num_items: int) -> None:
        """The task has finished, with so many items."""
        self.num_items = num_items
        self._wake()

    def take(self) -> bytes:
        """The next item's object id; only if it is there."""
        taken = object_id(self.task_id, self.num_taken)
        self.num_taken += 1
        return taken

    def untaken(self) -> list[bytes]:
        """The items that nobody has taken."""
        return [object_id(self.task_id, i) for i in range(self.num_taken, self.num_arrived)]

    def count_to_acknowledge(self) -> int | None:
        """How many items were taken, when it is time to tell the worker so."""
        if (self.num_taken - self.num_acknowledged) * 2 < self.backpressure:
            return None
        self.num_acknowledged = self.num_taken
        return self.num_taken

    def _wake(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
