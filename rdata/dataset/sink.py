"""How can a chain of operators end in a task, so that only a small result comes back?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from rdata.lazy import pa


class Sink(Protocol):
    """What ends a chain of steps in a task: it writes, or sums up."""

    @property
    def label(self) -> str:
        """The operator, as plans and progress show it."""
        ...

    def consume(self, task_index: int, blocks: Iterator[pa.Table]) -> Any:
        """Use up the task's blocks and give what the driver must know, in a few KiB."""
        ...
