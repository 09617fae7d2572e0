"""What does a task do? It reads a split or takes blocks, and puts them through its steps.

split or blocks ─► step ─► step ─► blocks of even size, each followed by its metadata
                               └─► a sink, whose small result is all that comes back
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from rdata.dataset.block import BlockMeta, shape
from rdata.dataset.formats.source import Split
from rdata.dataset.physical.steps import Step, Transform
from rdata.dataset.sink import Sink
from rdata.lazy import pa


class Input(Struct, frozen=True):
    """What one task works on: a split to read, or rows of blocks that come as arguments."""

    split: Split | None = None
    ranges: tuple[tuple[int, int], ...] = ()

    def blocks(self, given: Sequence[pa.Table]) -> Iterator[pa.Table]:
        """The blocks, without holding on to those that are done."""
        if self.split is not None:
            yield from self.split.read()
        for block, (start, num_rows) in zip(given, self.ranges, strict=True):
            yield block if num_rows == block.num_rows else block.slice(start, num_rows)


class Work(Struct, frozen=True):
    """The steps of a task, and its sink if it has one."""

    name: str
    steps: tuple[Step, ...]
    sink: Sink | None = None

    def load(self) -> LoadedWork:
        """Make the functions of the steps; instances of users' classes are made here."""
        return LoadedWork(self, [step.load() for step in self.steps])


class LoadedWork:
    """Work that is ready to run, any number of times."""

    def __init__(self, work: Work, transforms: Sequence[Transform]) -> None:
        self._work = work
        self._transforms = transforms

    def stream(self, input: Input, blocks: Sequence[pa.Table]) -> Iterator[pa.Table | BlockMeta]:
        """Give each block that the steps make, and after it its metadata."""
        for block in shape(self._run(input, blocks), self._work.name):
            yield block
            yield BlockMeta.of(block)

    def finish(self, task_index: int, input: Input, blocks: Sequence[pa.Table]) -> Any:
        """Let the sink consume what the steps make."""
        assert self._work.sink is not None, "a chain without a sink streams"
        return self._work.sink.consume(task_index, self._run(input, blocks))

    def _run(self, input: Input, given: Sequence[pa.Table]) -> Iterator[pa.Table]:
        blocks = input.blocks(given)
        for transform in self._transforms:
            blocks = transform(blocks)
        return blocks
