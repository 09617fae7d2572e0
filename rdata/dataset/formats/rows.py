"""How does a dataset make rows from nothing? `range`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from rdata.dataset.block import MIN_BLOCKS, TARGET_BLOCK_BYTES, rows_only
from rdata.lazy import np, pa

ROWS_AT_ONCE = 1 << 20
_SCHEMA_COLUMN = "id"


class RangeSplit(Struct, frozen=True):
    """The integers from `start` to before `stop`."""

    start: int
    stop: int
    has_column: bool = True

    @property
    def size_bytes(self) -> int:
        """See `Split`."""
        return 8 * (self.stop - self.start)

    def read(self) -> Iterator[pa.Table]:
        """See `Split`."""
        for start in range(self.start, max(self.stop, self.start + 1), ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, self.stop)
            if self.has_column:
                values = pa.array(np.arange(start, stop, dtype=np.int64))
                yield pa.table({_SCHEMA_COLUMN: values})
            else:
                yield rows_only(stop - start)


class RangeSource(Struct, frozen=True):
    """The integers from 0 to before `stop`, in a column `id`."""

    stop: int
    num_splits: int
    columns: tuple[str, ...] = (_SCHEMA_COLUMN,)

    @property
    def name(self) -> str:
        """See `Source`."""
        return f"range({self.stop})"

    def schema(self) -> pa.Schema:
        """See `Source`."""
        return pa.schema([(name, pa.int64()) for name in self.columns])

    def with_columns(self, columns: Sequence[str]) -> RangeSource:
        """See `Source`."""
        return replace(self, columns=tuple(columns))

    def with_limit(self, num_rows: int) -> RangeSource:
        """See `Source`: the splits stay as they are, but for what is beyond the limit."""
        return replace(self, stop=min(self.stop, num_rows))

    def splits(self) -> Sequence[RangeSplit]:
        """See `Source`."""
        count = max(1, min(self.num_splits, self.stop))
        bounds = [self.stop * i // count for i in range(count + 1)]
        return [RangeSplit(start, stop, bool(self.columns)) for start, stop in pairwise(bounds)]

    def estimated_bytes(self) -> int:
        """See `Source`."""
        return 8 * self.stop

    def num_rows(self) -> int | None:
        """See `Source`."""
        return self.stop


def range_source(stop: int, num_splits: int | None) -> RangeSource:
    """The integers below `stop`; more splits the more there are, so that none is too large."""
    return RangeSource(stop, num_splits or max(MIN_BLOCKS, 8 * stop // TARGET_BLOCK_BYTES))
