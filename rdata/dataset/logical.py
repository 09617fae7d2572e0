"""What does a dataset mean? A chain of immutable operators, each with its parameters as fields.

    Read ─► MapBatches ─► Limit ─► …

An operator says what its result is, and nothing of how it is computed: `rules` rewrites chains,
`planner` turns them into physical operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from rdata.dataset.aggregates import AggregateSink
from rdata.dataset.batch import BatchFormat
from rdata.dataset.bundle import Bundle
from rdata.dataset.columns import listed, renamed, require_columns
from rdata.dataset.formats.source import Source
from rdata.dataset.function import UserFunction
from rdata.dataset.sink import Sink
from rdata.lazy import pa

Concurrency = int | tuple[int, int] | None


class Resources(Struct, frozen=True):
    """What the tasks or actors of a function need; None where the user did not say."""

    num_cpus: float | None = None
    concurrency: Concurrency = None


class Operator(Struct, frozen=True):
    """One operator of a chain."""

    @property
    def label(self) -> str:
        """The operator as plans, progress and errors show it."""
        raise NotImplementedError

    def static_schema(self) -> pa.Schema | None:
        """The result's schema, if it is known without running user code."""
        raise NotImplementedError


# -- where rows come from --------------------------------------------------------------------------


class Read(Operator, frozen=True):
    """The rows of a source."""

    source: Source

    @property
    def label(self) -> str:
        return self.source.name

    def static_schema(self) -> pa.Schema | None:
        return self.source.schema()


class InMemory(Operator, frozen=True, eq=False):
    """Rows that the program holds in memory, in blocks of one schema; at least one block."""

    origin: str
    blocks: tuple[pa.Table, ...]

    @property
    def label(self) -> str:
        return self.origin

    def static_schema(self) -> pa.Schema | None:
        return self.blocks[0].schema


class Materialized(Operator, frozen=True, eq=False):
    """Rows that a run has computed, and that lie in the object store."""

    bundles: tuple[Bundle, ...]
    schema: pa.Schema | None

    @property
    def label(self) -> str:
        return "materialized"

    def static_schema(self) -> pa.Schema | None:
        return self.schema


# -- what becomes of them --------------------------------------------------------------------------


class Unary(Operator, frozen=True):
    """An operator on the rows of one other."""

    input: Operator


class MapBatches(Unary, frozen=True):
    """A function from a batch to a batch, or to several."""

    fn: UserFunction
    batch_size: int | None
    batch_format: BatchFormat
    resources: Resources

    @property
    def label(self) -> str:
        return self.fn.name

    def static_schema(self) -> pa.Schema | None:
        return None


class AddColumn(Unary, frozen=True):
    """A function from a batch to one more column."""

    column: str
    fn: UserFunction
    batch_format: BatchFormat
    resources: Resources

    @property
    def label(self) -> str:
        return f"add_column({self.column!r})"

    def static_schema(self) -> pa.Schema | None:
        return None


class MapRows(Unary, frozen=True):
    """A function from a row to a row."""

    fn: UserFunction
    resources: Resources

    @property
    def label(self) -> str:
        return self.fn.name

    def static_schema(self) -> pa.Schema | None:
        return None


class FlatMap(Unary, frozen=True):
    """A function from a row to several rows."""

    fn: UserFunction
    resources: Resources

    @property
    def label(self) -> str:
        return self.fn.name

    def static_schema(self) -> pa.Schema | None:
        return None


class Filter(Unary, frozen=True):
    """The rows for which a function is true."""

    fn: UserFunction
    resources: Resources

    @property
    def label(self) -> str:
        return self.fn.name

    def static_schema(self) -> pa.Schema | None:
        return self.input.static_schema()


class SelectColumns(Unary, frozen=True):
    """These columns, in this order."""

    columns: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"select_columns({listed(self.columns)})"

    def static_schema(self) -> pa.Schema | None:
        schema = self.input.static_schema()
        if schema is None:
            return None
        require_columns(self.columns, schema.names, "select_columns")
        return pa.schema([schema.field(name) for name in self.columns])


class DropColumns(Unary, frozen=True):
    """All columns but these."""

    columns: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"drop_columns({listed(self.columns)})"

    def static_schema(self) -> pa.Schema | None:
        schema = self.input.static_schema()
        if schema is None:
            return None
        require_columns(self.columns, schema.names, "drop_columns")
        dropped = set(self.columns)
        return pa.schema([field for field in schema if field.name not in dropped])


class RenameColumns(Unary, frozen=True):
    """The same columns under other names: a mapping of some, or a list of all."""

    names: Mapping[str, str] | tuple[str, ...]

    @property
    def label(self) -> str:
        if isinstance(self.names, tuple):
            return f"rename_columns({listed(self.names)})"
        pairs = [f"{old} → {new}" for old, new in self.names.items()]
        return f"rename_columns({listed(pairs)})"

    def static_schema(self) -> pa.Schema | None:
        schema = self.input.static_schema()
        if schema is None:
            return None
        names = renamed(schema.names, self.names)
        return pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])


class Limit(Unary, frozen=True):
    """The first `num_rows` rows."""

    num_rows: int

    @property
    def label(self) -> str:
        return f"limit({self.num_rows})"

    def static_schema(self) -> pa.Schema | None:
        return self.input.static_schema()


class Repartition(Unary, frozen=True):
    """The same rows, in order, in `num_blocks` blocks of nearly equal length."""

    num_blocks: int

    @property
    def label(self) -> str:
        return f"repartition({self.num_blocks})"

    def static_schema(self) -> pa.Schema | None:
        return self.input.static_schema()


# -- how a chain can end ---------------------------------------------------------------------------


class Aggregate(Unary, frozen=True):
    """One row of aggregates of all rows."""

    sink: AggregateSink

    @property
    def label(self) -> str:
        return self.sink.label

    def static_schema(self) -> pa.Schema | None:
        schema = self.input.static_schema()
        if schema is not None:
            names = schema.names
            present = set(names)
            for aggregate in self.sink.aggregates:
                if not present.issuperset(aggregate.columns):
                    require_columns(aggregate.columns, names, aggregate.label)
        return None


class Write(Unary, frozen=True):
    """Files that hold all rows."""

    sink: Sink

    @property
    def label(self) -> str:
        return self.sink.label

    def static_schema(self) -> pa.Schema | None:
        return self.input.static_schema()


# -- chains ----------------------------------------------------------------------------------------


def chain(operator: Operator) -> Iterator[Operator]:
    """The operator and all before it, last first."""
    while isinstance(operator, Unary):
        yield operator
        operator = operator.input
    yield operator


def on_input(operator: Unary, input: Operator) -> Unary:
    """The same operator on another input."""
    if operator.input is input:
        return operator
    return replace(operator, input=input)


def check_columns(operator: Operator) -> None:
    """Raise `DataError` for the first operator of a chain that names a column it has not got.

    Sees as far as schemas are known without running user code.
    """
    for each in reversed(list(chain(operator))):
        if isinstance(each, (SelectColumns, DropColumns, RenameColumns, Aggregate)):
            each.static_schema()
