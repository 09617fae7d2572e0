"""How are sums, extremes, means and counts taken in parts, and the parts put together?

Each task gives a partial result of its blocks, a few numbers; the driver merges them in the order
of the rows, so that a float sum is the same every time.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from rdata.dataset.block import DECIMAL128_DIGITS, DECIMAL256_DIGITS
from rdata.dataset.columns import require_columns
from rdata.errors import DataError
from rdata.lazy import pa, pc

Kind = Literal["sum", "min", "max", "mean"]
Partial = tuple[Any, ...]

_INT64_MAX = 2**63 - 1
_EXACT = decimal.Context(prec=4 * DECIMAL256_DIGITS)  # the usual one would round to 28 digits


class Aggregate(Protocol):
    """One aggregate: stateless, so that it travels."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it looks at."""
        ...

    @property
    def label(self) -> str:
        """Its name in plans and results, such as `sum(price)`."""
        ...

    def partial(self, block: pa.Table) -> Partial:
        """The result of one block, in a form that can be merged."""
        ...

    def merge(self, partials: Sequence[Partial]) -> Any:
        """The result of all blocks."""
        ...


class CountRows(Struct, frozen=True):
    """The number of rows."""

    columns: tuple[str, ...] = ()
    label: str = "count()"

    def partial(self, block: pa.Table) -> Partial:
        """See `Aggregate`."""
        return (block.num_rows,)

    def merge(self, partials: Sequence[Partial]) -> int:
        """See `Aggregate`."""
        return sum(partial[0] for partial in partials)


class OfColumn(Struct, frozen=True):
    """The sum, least, greatest or mean value of a column; None where there is no value.

    Nulls are left out, or, with `ignore_nulls=False`, make the result None. Sums of integers and
    of decimals are exact.
    """

    kind: Kind
    column: str
    ignore_nulls: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Aggregate`."""
        return (self.column,)

    @property
    def label(self) -> str:
        """See `Aggregate`."""
        return f"{self.kind}({self.column})"

    def partial(self, block: pa.Table) -> Partial:
        """(number of values, number of nulls, value or None). See `Aggregate`."""
        if block.num_rows == 0:
            return 0, 0, None
        index = block.schema.get_field_index(self.column)
        if index < 0:
            require_columns(self.columns, block.column_names, self.label)
        column = block.column(index)
        num_values = len(column) - column.null_count
        if num_values == 0:
            return 0, column.null_count, None
        try:
            value = self._of_values(column, num_values)
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            raise DataError(
                f"{self.label}: column {self.column!r} is {column.type}, which has no {self.kind}"
            ) from error
        return num_values, column.null_count, value

    def _of_values(self, column: pa.ChunkedArray[Any], num_values: int) -> Any:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if self.kind in ("min", "max"):
            return _ends(column)[self.kind == "max"]
        is_integer = pa.types.is_integer(column.type)
        if is_integer and max(abs(end) for end in _ends(column)) * num_values > _INT64_MAX:
            return sum(column.drop_null().to_pylist())
        if pa.types.is_decimal(column.type):
            return _decimal_sum(column)
        return pc.sum(column).as_py()

    def merge(self, partials: Sequence[Partial]) -> Any:
        """See `Aggregate`."""
        num_nulls = sum(partial[1] for partial in partials)
        found = [partial for partial in partials if partial[0]]
        if not found or (num_nulls and not self.ignore_nulls):
            return None
        values = [value for _, _, value in found]
        try:
            merged = self._of_parts(values)
        except TypeError as error:  # numbers and text, or times of which some have a zone
            types = " and ".join(sorted({type(value).__name__ for value in values}))
            raise DataError(
                f"{self.label}: column {self.column!r} has types in different blocks that do not "
                f"go together ({types}: {error}); make the function return one type for it"
            ) from error
        if self.kind == "mean":
            return _quotient(merged, sum(partial[0] for partial in found))
        return merged

    def _of_parts(self, values: list[Any]) -> Any:
        if self.kind in ("min", "max"):
            return _extreme(self.kind, values)
        total = values[0]
        with decimal.localcontext(_EXACT):
            for value in values[1:]:
                total = total + value
        return total


def _quotient(total: Any, count: int) -> Any:
    if not isinstance(total, decimal.Decimal):
        return total / count
    # As many digits as the sum has: the mean of one value, or of equal ones, is that value.
    with decimal.localcontext(prec=max(28, len(total.as_tuple().digits))):
        return total / count


def _ends(column: pa.ChunkedArray[Any]) -> tuple[Any, Any]:
    found: Any = pc.min_max(column).as_py()
    return found["min"], found["max"]


def _decimal_sum(column: pa.ChunkedArray[Any]) -> Any:
    """Sum in a type that the sum fits: Arrow's sums wrap around beyond the digits of theirs."""
    digits = column.type.precision + len(str(len(column)))
    if digits > DECIMAL256_DIGITS:
        with decimal.localcontext(_EXACT):
            return sum(column.drop_null().to_pylist())
    if digits > DECIMAL128_DIGITS:
        return pc.sum(column.cast(pa.decimal256(DECIMAL256_DIGITS, column.type.scale))).as_py()
    return pc.sum(column.cast(pa.decimal128(DECIMAL128_DIGITS, column.type.scale))).as_py()


def _extreme(kind: Kind, values: list[Any]) -> Any:
    numbers = [v for v in values if not (isinstance(v, float) and math.isnan(v))]
    if not numbers:
        return values[0]
    return min(numbers) if kind == "min" else max(numbers)


class AggregateSink(Struct, frozen=True):
    """Takes the partial results of a task's blocks."""

    aggregates: tuple[Aggregate, ...]
    is_of_all: bool = False  # of all columns, that is, of those that were known before the run

    @property
    def label(self) -> str:
        """See `Sink`."""
        names = [aggregate.label for aggregate in self.aggregates]
        return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")

    def consume(self, task_index: int, blocks: Iterator[pa.Table]) -> list[tuple[Partial, ...]]:
        """See `Sink`: the partial results, block by block."""
        return [self._partials(block) for block in blocks]

    def _partials(self, block: pa.Table) -> tuple[Partial, ...]:
        if self.is_of_all:
            known = {name for aggregate in self.aggregates for name in aggregate.columns}
            new = next((name for name in block.column_names if name not in known), None)
            if new is not None and block.num_rows:
                raise DataError(
                    f"{self.label}: column {new!r} is not in the first block, and so not in the "
                    "result: have the function return the same columns each time, materialize() "
                    "first, or name the columns that are meant"
                )
        return tuple(aggregate.partial(block) for aggregate in self.aggregates)

    def merge(self, results: Sequence[list[tuple[Partial, ...]]]) -> list[Any]:
        """The results, one for each aggregate, of what all tasks gave."""
        by_block = [partials for result in results for partials in result]
        return [
            aggregate.merge([partials[i] for partials in by_block])
            for i, aggregate in enumerate(self.aggregates)
        ]
