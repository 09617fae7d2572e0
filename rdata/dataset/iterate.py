"""How does a program walk over the rows of a dataset, block by block?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rdata.dataset.batch import BatchFormat, to_batch
from rdata.dataset.block import part, pylist, rebatch
from rdata.dataset.executor import execute, launcher_for
from rdata.dataset.logical import Operator
from rdata.dataset.planner import plan
from rdata.lazy import pa

ROWS_AT_ONCE = 1024  # turned into Python objects together


def blocks_of(operator: Operator) -> Iterator[pa.Table]:
    """Run a chain and give its blocks, in order, as they are made.

    Blocks without rows tell the schema; there may be some. Closing the iterator stops the run.
    """
    planned = plan(operator)
    launcher = launcher_for(planned)
    for bundle in execute(planned, launcher):
        for piece in bundle.pieces:
            yield launcher.get(piece)


def rows_of(operator: Operator) -> Iterator[dict[str, Any]]:
    """Run a chain and give its rows, as dicts of Python values."""
    for block in blocks_of(operator):
        for start in range(0, block.num_rows, ROWS_AT_ONCE):
            yield from pylist(part(block, start, ROWS_AT_ONCE))


def batches_of(
    operator: Operator, batch_size: int | None, batch_format: BatchFormat, drop_last: bool
) -> Iterator[Any]:
    """Run a chain and give batches of `batch_size` rows; None: the blocks as they come."""
    blocks = blocks_of(operator)
    if batch_size is not None:
        blocks = rebatch(blocks, batch_size, "iter_batches")
    for block in blocks:
        if block.num_rows and not (drop_last and batch_size and block.num_rows < batch_size):
            yield to_batch(block, batch_format)
