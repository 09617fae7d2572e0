"""How does a dataset read CSV files? The ranges of `formats.csv` as splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from rdata.dataset.block import no_rows, part
from rdata.dataset.formats.csv import (
    PIECE_BYTES,
    CsvOptions,
    CsvPlan,
    CsvRange,
    plan_csv,
    read_csv_range,
)
from rdata.dataset.formats.paths import PathArgument
from rdata.lazy import pa

LEAST_PIECE_BYTES = 64 << 10  # where only a few rows are wanted


class CsvSplit(Struct, frozen=True):
    """A byte range of a file, and what is wanted of it."""

    range: CsvRange
    schema: pa.Schema
    options: CsvOptions
    columns: tuple[str, ...] | None
    limit: int | None
    piece_bytes: int

    @property
    def size_bytes(self) -> int:
        """See `Split`."""
        return self.range.size_bytes

    def read(self) -> Iterator[pa.Table]:
        """See `Split`."""
        pieces = read_csv_range(
            self.range,
            self.schema,
            self.options,
            columns=None if self.columns is None else list(self.columns),
            piece_bytes=self.piece_bytes,
        )
        has_rows = False
        for piece in _first(pieces, self.limit):
            has_rows = True
            yield piece
        if not has_rows:  # then tell the schema, at least
            names = self.schema.names if self.columns is None else self.columns
            yield no_rows(self.schema).select(list(names))


def _first(pieces: Iterator[pa.Table], limit: int | None) -> Iterator[pa.Table]:
    if limit is None:
        yield from pieces
        return
    for piece in pieces:
        yield part(piece, 0, limit)
        limit -= piece.num_rows
        if limit <= 0:
            return


class CsvSource(Struct, frozen=True, eq=False):
    """CSV files, found and sampled."""

    plan: CsvPlan
    options: CsvOptions
    columns: tuple[str, ...] | None = None
    limit: int | None = None

    @property
    def name(self) -> str:
        """See `Source`."""
        num_files = len({range.path for range in self.plan.ranges})
        return f"read_csv({num_files} file{'s' if num_files != 1 else ''})"

    def schema(self) -> pa.Schema:
        """See `Source`."""
        if self.columns is None:
            return self.plan.schema
        return pa.schema([self.plan.schema.field(name) for name in self.columns])

    def with_columns(self, columns: Sequence[str]) -> CsvSource:
        """See `Source`."""
        return replace(self, columns=tuple(columns))

    def with_limit(self, num_rows: int) -> CsvSource:
        """See `Source`."""
        least = num_rows if self.limit is None else min(num_rows, self.limit)
        return replace(self, limit=least)

    def splits(self) -> Sequence[CsvSplit]:
        """See `Source`."""
        piece_bytes = min(PIECE_BYTES, max(LEAST_PIECE_BYTES, self._bytes_of_limit()))
        return [
            CsvSplit(range, self.plan.schema, self.options, self.columns, self.limit, piece_bytes)
            for range in self.plan.ranges
        ]

    def _bytes_of_limit(self) -> int:
        total = self.plan.content_bytes
        if self.limit is None or not self.plan.num_rows:
            return total
        return min(total, total * self.limit // self.plan.num_rows + 1)

    def estimated_bytes(self) -> int:
        """See `Source`."""
        return self._bytes_of_limit()

    def num_rows(self) -> int | None:
        """See `Source`: unknown before all is parsed."""
        return None


def csv_source(paths: PathArgument, options: CsvOptions, num_splits: int | None) -> CsvSource:
    """Find files and their schema; about `num_splits` splits, if given."""
    return CsvSource(plan_csv(paths, options, num_ranges=num_splits), options)
