"""Which operator may start a task, and from which running task may the driver take a block?

Blocks that are made and not used yet take memory. Each operator that runs tasks has a share of
the budget for what it makes, and may go beyond it only where nothing else could move:

    start a task:    what it will make fits the share, or it has none running and the next starves
    take a block:    the share is not full, or the task is the oldest and the next starves

A task from which nothing is taken soon stops making blocks, but keeps its CPU. So an operator
with a later one that needs CPUs leaves it some (see `sizing`), and if that cannot be, its blocks
are always taken, and only starting is held back.
"""

from __future__ import annotations

from msgspec import Struct


class Load(Struct, frozen=True):
    """How an operator stands to the one after it."""

    share_bytes: int  # of the budget, for what it makes
    downstream_bytes: int  # made by it, and waiting before the next operator
    is_next_starving: bool  # the next operator, or the consumer, has nothing to do
    keeps_cpu_from_next: bool  # no CPU is left for the next while its tasks hold theirs


def may_start(load: Load, output_bytes: int, num_running: int, task_bytes: int) -> bool:
    """Tell whether one more task may start.

    `output_bytes` have been made and not handed on; `task_bytes` is what a task is likely to make.
    """
    if num_running == 0 and load.is_next_starving:
        return True
    unused_bytes = output_bytes + load.downstream_bytes
    expected_bytes = unused_bytes + (num_running + 1) * task_bytes
    return unused_bytes < load.share_bytes and expected_bytes <= load.share_bytes


def may_take(load: Load, output_bytes: int, is_oldest: bool) -> bool:
    """Tell whether a block may be taken from a running task; outputs leave oldest task first."""
    if load.keeps_cpu_from_next or output_bytes + load.downstream_bytes < load.share_bytes:
        return True
    return is_oldest and load.is_next_starving
