"""What does the user see of a run? A line for each operator that runs tasks.

Lines appear where somebody looks: in a notebook, and on a terminal; and only for runs that take
longer than half a second. `rdata.dataset.progress.enabled = False` turns them off.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

from rdata.dataset.physical.pool import RunningPool
from rdata.lazy import is_loaded, tqdm_auto

enabled = True

DELAY_S = 0.5
NAME_WIDTH = 60


class Progress:
    """The lines of one run; none, where nobody looks."""

    def __init__(self, pools: Sequence[RunningPool], bars: Sequence[Any]) -> None:
        self._pools = pools
        self._bars = bars

    def update(self) -> None:
        """Show where the operators are. Cheap: a bar draws ten times a second at most."""
        for pool, bar in zip(self._pools, self._bars, strict=False):
            bar.total = pool.num_inputs
            bar.update(pool.num_finished - bar.n)

    def close(self) -> None:
        """Leave the lines as they are."""
        self.update()
        for bar in self._bars:
            bar.close()


def open_progress(pools: Sequence[RunningPool]) -> Progress:
    """Make a line for each operator, if somebody looks."""
    if not (enabled and pools and _is_watched()):
        return Progress((), ())
    new_bar = _bar_class()
    bars = [
        new_bar(
            total=pool.num_inputs,
            desc=_shortened(pool.name),
            unit="task",
            position=i,
            delay=DELAY_S,
            dynamic_ncols=True,
        )
        for i, pool in enumerate(pools)
    ]
    return Progress(pools, bars)


def _shortened(name: str) -> str:
    """Leave out the middle of a long name: the first operator and the last tell the most."""
    if len(name) <= NAME_WIDTH:
        return name
    half = (NAME_WIDTH - 3) // 2
    return f"{name[:half]} … {name[-half:]}"


@cache
def _bar_class() -> Any:
    """tqdm without its watching thread and its lock between processes, which would stay on."""
    with warnings.catch_warnings():
        # Where a notebook lacks ipywidgets, tqdm draws with text, and says so at length.
        warnings.simplefilter("ignore")
        bar_class: Any = type("Bar", (tqdm_auto.tqdm,), {"monitor_interval": 0})
    bar_class.set_lock(threading.RLock())
    return bar_class


def _is_watched() -> bool:
    if is_loaded("ipykernel"):
        return True
    return bool(sys.stderr and sys.stderr.isatty())
