"""What does the executor ask of a running operator?"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from rdata.dataset.bundle import Bundle, Piece
from rdata.dataset.physical.launch import Launcher, Waited

Output = Any  # a Bundle; from an operator with a sink, what the sink gave


class RunningOperator:
    """An operator of a plan while it runs: bundles in, bundles out, in order.

    This class is one that needs no task: `add` is all that most of these override.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.outputs: deque[Output] = deque()
        self.is_input_closed = False

    def add(self, bundle: Bundle) -> None:
        """Take the next input."""
        raise NotImplementedError

    def close_input(self) -> None:
        """There is no more input."""
        self.is_input_closed = True

    @property
    def wants_input(self) -> bool:
        """Whether it could start on one more input now."""
        return not self.is_full

    @property
    def is_full(self) -> bool:
        """Whether no more input can change the result: those before it may stop."""
        return False

    @property
    def is_done(self) -> bool:
        """Whether all outputs have been taken, and none will follow."""
        return self.is_input_closed and not self.outputs

    @property
    def is_starving(self) -> bool:
        """Whether it has nothing to do, and so needs input."""
        return not self.outputs

    @property
    def pending_bytes(self) -> int:
        """The bytes of inputs that it holds and has not started on."""
        return 0

    @property
    def num_running(self) -> int:
        """The tasks under way."""
        return 0

    def waited(self, is_urgent: bool) -> Sequence[Waited]:
        """The tasks from which something may be taken now; all of them if it is urgent."""
        return ()

    def take(self, ready: Waited) -> None:
        """Take what one of its tasks has ready."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Stop all tasks, forget all inputs and outputs."""
        self.outputs.clear()
        self.is_input_closed = True


class RunningPieces(RunningOperator):
    """Gives blocks that exist, one by one as they are used: they may have to be stored first."""

    def __init__(self, name: str, pieces: Iterable[Piece], launcher: Launcher) -> None:
        super().__init__(name)
        self._pieces = deque(pieces)
        self._launcher = launcher
        self.is_input_closed = True

    def refill(self) -> bool:
        """Put the next block into the outputs; False if there is none."""
        if not self._pieces:
            return False
        self.outputs.append(Bundle((self._launcher.adopt(self._pieces.popleft()),)))
        return True

    @property
    def is_done(self) -> bool:
        """See `RunningOperator`."""
        return not self._pieces and not self.outputs

    def cancel(self) -> None:
        """See `RunningOperator`."""
        self._pieces.clear()
        super().cancel()


class RunningLimit(RunningOperator):
    """Passes the first `num_rows` rows on."""

    def __init__(self, name: str, num_rows: int) -> None:
        super().__init__(name)
        self._left = num_rows
        self._has_passed_one = False

    def add(self, bundle: Bundle) -> None:
        """See `RunningOperator`."""
        if self._left == 0 and self._has_passed_one:
            return
        kept = bundle.first(self._left)  # of limit(0), a bundle without rows tells the schema
        self._left -= kept.num_rows
        self._has_passed_one = True
        self.outputs.append(kept)

    @property
    def is_full(self) -> bool:
        """See `RunningOperator`."""
        return self._left == 0 and self._has_passed_one


class RunningRecut(RunningOperator):
    """Gathers all bundles, and cuts their rows into bundles of nearly equal length.

    No row is moved: a bundle names runs of rows of blocks. The task that follows joins them.
    """

    def __init__(self, name: str, num_bundles: int) -> None:
        super().__init__(name)
        self._num_bundles = num_bundles
        self._gathered: list[Bundle] = []

    def add(self, bundle: Bundle) -> None:
        """See `RunningOperator`."""
        self._gathered.append(bundle)

    def close_input(self) -> None:
        """See `RunningOperator`."""
        if not self.is_input_closed:
            self.outputs.extend(recut(self._gathered, self._num_bundles))
            self._gathered.clear()
        super().close_input()

    @property
    def is_starving(self) -> bool:
        """See `RunningOperator`."""
        return not self.is_input_closed

    def cancel(self) -> None:
        """See `RunningOperator`."""
        self._gathered.clear()
        super().cancel()


def recut(bundles: Sequence[Bundle], num_bundles: int) -> list[Bundle]:
    """Cut the rows of bundles into `num_bundles` others; those without rows keep a schema."""
    pieces = [piece for bundle in bundles for piece in bundle.pieces]
    filled = [piece for piece in pieces if piece.num_rows]
    num_rows = sum(piece.num_rows for piece in filled)
    like = next((piece for piece in pieces if piece.meta.schema.names), pieces[0])
    bounds = [num_rows * i // num_bundles for i in range(num_bundles + 1)]
    result = []
    i, used = 0, 0  # the next piece, and how many of its rows are in bundles already
    for start, stop in pairwise(bounds):
        wanted = stop - start
        taken = []
        while wanted:
            piece = filled[i]
            num = min(wanted, piece.num_rows - used)
            taken.append(piece.slice(used, num))
            wanted -= num
            used += num
            if used == piece.num_rows:
                i, used = i + 1, 0
        result.append(Bundle(tuple(taken or [like.slice(0, 0)])))
    return result
