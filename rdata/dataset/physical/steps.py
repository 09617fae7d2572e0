"""What does each operator do to a stream of blocks, inside a task?

A step is data, and travels to workers; `load` makes of it, once in each task or actor, the
function from blocks to blocks. Steps that follow each other in one task hand blocks on in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate, groupby
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from rdata.dataset.batch import BatchFormat, to_batch, to_block
from rdata.dataset.block import (
    concat,
    conform,
    no_rows,
    part,
    plain,
    pylist,
    rebatch,
    table_of_rows,
)
from rdata.dataset.columns import renamed, require_columns
from rdata.dataset.function import UserFunction
from rdata.dataset.untouched import old_types
from rdata.dataset.values import OldTypes, column_of, unshared
from rdata.errors import DataError
from rdata.lazy import pa

# As text: naming pa.Table here would import pyarrow with this module.
Blocks: TypeAlias = "Iterator[pa.Table]"
Transform: TypeAlias = "Callable[[Blocks], Blocks]"

ROWS_AT_ONCE = 4096  # turned into Python objects together; more: memory, fewer: cost per call


class Step(Protocol):
    """One operator's work on a task's blocks."""

    @property
    def label(self) -> str:
        """The operator, as plans and progress show it."""
        ...

    @property
    def runs_user_code(self) -> bool:
        """Whether it calls what the user wrote, which happens on workers only."""
        ...

    def load(self) -> Transform:
        """Make the function; for a class, this makes the instance."""
        ...


@contextmanager
def _named(origin: str) -> Iterator[None]:
    """Tell, in an exception of the user's code, which operator ran it."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in {origin} of a dataset")
        raise


class MapBatchesStep(Struct, frozen=True):
    """Calls a function on batches. Blocks without rows are left out: there is nothing to map."""

    fn: UserFunction
    batch_size: int | None
    batch_format: BatchFormat
    runs_user_code = True

    @property
    def label(self) -> str:
        return self.fn.name

    def load(self) -> Transform:
        call, origin = self.fn.load(), self.fn.origin

        def run(blocks: Blocks) -> Blocks:
            if self.batch_size is not None:
                blocks = rebatch(blocks, self.batch_size, origin)
            for block in blocks:
                if block.num_rows == 0:
                    continue
                with _named(origin):
                    result = call(to_batch(block, self.batch_format))
                old = old_types(block.schema, self.batch_format)
                for batch in _each(result, origin):
                    if not block.num_columns and isinstance(batch, Mapping) and not batch:
                        yield block  # a dict without columns cannot tell how many rows it has
                    else:
                        yield to_block(batch, origin, old)

        return run


def _each(result: Any, origin: str) -> Iterator[Any]:
    if not isinstance(result, Iterator):
        yield result
        return
    while True:
        with _named(origin):
            try:
                batch = next(result)
            except StopIteration:
                return
        yield batch


class AddColumnStep(Struct, frozen=True):
    """Calls a function on blocks, which gives one column."""

    column: str
    fn: UserFunction
    batch_format: BatchFormat
    runs_user_code = True

    @property
    def label(self) -> str:
        return f"add_column({self.column!r})"

    def load(self) -> Transform:
        call, origin = self.fn.load(), self.fn.origin

        def run(blocks: Blocks) -> Blocks:
            for block in blocks:
                if block.num_rows == 0:
                    continue
                with _named(origin):
                    values = call(to_batch(block, self.batch_format))
                yield self._added(block, values, origin)

        return run

    def _added(self, block: pa.Table, values: Any, origin: str) -> pa.Table:
        if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
            values = [values] * block.num_rows  # one value for all rows, as in pandas
        old = old_types(block.schema, self.batch_format).get(self.column)
        column = column_of(unshared(values), self.column, origin, old)
        if len(column) != block.num_rows:
            raise DataError(
                f"{origin}: the function gave {len(column)} values for column {self.column!r}, "
                f"but the batch has {block.num_rows} rows"
            )
        index = block.schema.get_field_index(self.column)
        if index >= 0:
            return block.set_column(index, self.column, column)
        return block.append_column(self.column, column)


class MapRowsStep(Struct, frozen=True):
    """Calls a function on each row, which gives a row."""

    fn: UserFunction
    runs_user_code = True

    @property
    def label(self) -> str:
        return self.fn.name

    def load(self) -> Transform:
        call, origin = self.fn.load(), self.fn.origin

        def make(rows: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
            with _named(origin):
                results = [_copied(call(row)) for row in rows]
            for result in results:
                if not isinstance(result, Mapping):
                    raise DataError(
                        f"{origin} returned {type(result).__name__} for a row; return a dict from "
                        "column name to value"
                    )
            return results

        return _by_rows(make, origin)


def _copied(row: Any) -> Any:
    """A function may fill the same dict again for the next row."""
    if type(row) is dict:  # as nearly always, and faster than to ask whether it is a Mapping
        return row.copy()
    return dict(row) if isinstance(row, Mapping) else row


class FlatMapStep(Struct, frozen=True):
    """Calls a function on each row, which gives any number of rows."""

    fn: UserFunction
    runs_user_code = True

    @property
    def label(self) -> str:
        return self.fn.name

    def load(self) -> Transform:
        call, origin = self.fn.load(), self.fn.origin

        def run(blocks: Blocks) -> Blocks:
            for rows, old in _row_groups(blocks):
                results: list[Mapping[str, Any]] = []
                for row in rows:
                    for result in self._of_row(call, row, origin):
                        results.append(_copied(result))
                        if len(results) == ROWS_AT_ONCE:
                            yield table_of_rows(results, origin, old)
                            results = []
                if results:
                    yield table_of_rows(results, origin, old)

        return run

    @staticmethod
    def _of_row(call: Callable[[Any], Any], row: Any, origin: str) -> Iterator[Mapping[str, Any]]:
        with _named(origin):
            given = call(row)
        if isinstance(given, Mapping) or not isinstance(given, Iterable):
            raise DataError(
                f"{origin} returned {type(given).__name__}; flat_map takes a function that "
                "returns or yields rows, each a dict (map takes one that returns a single row)"
            )
        for result in _each(iter(given), origin):
            if not isinstance(result, Mapping):
                raise DataError(
                    f"{origin} gave {type(result).__name__} as a row; rows are dicts from column "
                    "name to value"
                )
            yield result


class FilterStep(Struct, frozen=True):
    """Keeps the rows for which a function is true."""

    fn: UserFunction
    runs_user_code = True

    @property
    def label(self) -> str:
        return self.fn.name

    def load(self) -> Transform:
        call, origin = self.fn.load(), self.fn.origin

        def run(blocks: Blocks) -> Blocks:
            for block in blocks:
                mask: list[bool] = []
                for start in range(0, block.num_rows, ROWS_AT_ONCE):
                    rows = pylist(part(block, start, ROWS_AT_ONCE))
                    with _named(origin):
                        mask.extend(bool(call(row)) for row in rows)
                yield _kept(block, mask)

        return run


def _kept(block: pa.Table, mask: list[bool]) -> pa.Table:
    try:
        return block.filter(pa.array(mask, pa.bool_()))
    except pa.ArrowNotImplementedError:  # views of text and run-end encodings can only be cut
        runs = [(is_kept, len(list(run))) for is_kept, run in groupby(mask)]
        starts = accumulate((length for _, length in runs), initial=0)
        pieces = [
            part(block, start, length)
            for start, (is_kept, length) in zip(starts, runs, strict=False)
            if is_kept
        ]
        return pa.concat_tables(pieces or [no_rows(block.schema)]).combine_chunks()


def _row_groups(blocks: Blocks) -> Iterator[tuple[list[dict[str, Any]], OldTypes]]:
    for block in blocks:
        old = old_types(block.schema, "rows")
        for start in range(0, block.num_rows, ROWS_AT_ONCE):
            yield pylist(part(block, start, ROWS_AT_ONCE)), old


def _by_rows(
    make: Callable[[list[dict[str, Any]]], list[Mapping[str, Any]]], origin: str
) -> Transform:
    def run(blocks: Blocks) -> Blocks:
        for rows, old in _row_groups(blocks):
            yield table_of_rows(make(rows), origin, old)

    return run


class ConformStep(Struct, frozen=True, eq=False):
    """Brings blocks to one schema: they came of a run that gave several."""

    schema: pa.Schema
    runs_user_code = False
    label = "conform"

    def load(self) -> Transform:
        return lambda blocks: (conform(block, self.schema, "materialize") for block in blocks)


class SelectStep(Struct, frozen=True):
    """Keeps columns, in the order asked for."""

    columns: tuple[str, ...]
    runs_user_code = False

    @property
    def label(self) -> str:
        return "select_columns"

    def load(self) -> Transform:
        def run(blocks: Blocks) -> Blocks:
            for block in blocks:
                if block.num_columns or block.num_rows:
                    require_columns(self.columns, block.column_names, "select_columns")
                    block = block.select(list(self.columns))
                yield block

        return run


class DropStep(Struct, frozen=True):
    """Leaves columns out."""

    columns: tuple[str, ...]
    runs_user_code = False

    @property
    def label(self) -> str:
        return "drop_columns"

    def load(self) -> Transform:
        dropped = set(self.columns)

        def run(blocks: Blocks) -> Blocks:
            for block in blocks:
                if block.num_columns or block.num_rows:
                    require_columns(self.columns, block.column_names, "drop_columns")
                    kept = [name for name in block.column_names if name not in dropped]
                    block = block.select(kept)
                yield block

        return run


class RenameStep(Struct, frozen=True):
    """Gives columns other names."""

    names: Mapping[str, str] | tuple[str, ...]
    runs_user_code = False

    @property
    def label(self) -> str:
        return "rename_columns"

    def load(self) -> Transform:
        def run(blocks: Blocks) -> Blocks:
            for block in blocks:
                if block.num_columns or block.num_rows:
                    block = block.rename_columns(renamed(block.column_names, self.names))
                yield block

        return run


class LimitStep(Struct, frozen=True):
    """Ends after the first `num_rows` rows of the task: no task need give more than all may."""

    num_rows: int
    runs_user_code = False

    @property
    def label(self) -> str:
        return f"limit({self.num_rows})"

    def load(self) -> Transform:
        def run(blocks: Blocks) -> Blocks:
            left = self.num_rows
            for block in blocks:
                yield part(block, 0, left)
                left -= block.num_rows
                if left <= 0:
                    return

        return run


class JoinStep(Struct, frozen=True):
    """Makes one block of all that the task was given."""

    runs_user_code = False
    label = "join"

    def load(self) -> Transform:
        def run(blocks: Blocks) -> Blocks:
            yield plain(concat(list(blocks), "repartition")).combine_chunks()

        return run
