"""What must a format offer, so that its files can be read in parts by many tasks?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, Self

from rdata.lazy import pa


class Split(Protocol):
    """One part of a source, which one task reads. Small, immutable, and picklable."""

    @property
    def size_bytes(self) -> int:
        """About how many bytes of input reading it takes."""
        ...

    def read(self) -> Iterator[pa.Table]:
        """Read the part in pieces of a few MiB; each has the source's schema.

        The pieces are the same each time. Uses one thread.
        """
        ...


class Source(Protocol):
    """Files of one format, and what is wanted of them. Immutable and cheap to make."""

    @property
    def name(self) -> str:
        """The operator as plans show it, such as `read_csv(8 files)`."""
        ...

    def schema(self) -> pa.Schema:
        """The columns that `read` gives; may look into a few files, once."""
        ...

    def with_columns(self, columns: Sequence[str]) -> Self:
        """The same rows with these columns only, in this order; maybe none."""
        ...

    def with_limit(self, num_rows: int) -> Self:
        """The same, where nobody needs more than the first `num_rows` rows of all splits."""
        ...

    def splits(self) -> Sequence[Split]:
        """The parts, in order; at least one, so that an empty source has a schema."""
        ...

    def estimated_bytes(self) -> int:
        """About how many bytes of input reading all of it takes; the limit counts."""
        ...

    def num_rows(self) -> int | None:
        """The exact number of rows, where that is known without reading them."""
        ...
