"""What does a dataset mean? A chain of immutable operators, each with its parameters as fields.

    Read ─► MapBatches ─► Limit ─► …

An operator says what its result is, and nothing of how it is computed: `rules` rewrites chains,
`planner` turns them into physical operators.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

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

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
        """The result's schema, if it is known without running user code.

        `input` is that of the operator's input, as far as it is known; sources have none. Raises
        `DataError` for columns that are not in it.
        """
        raise NotImplementedError


# -- where rows come from --------------------------------------------------------------------------


class Read(Operator, frozen=True):
    """The rows of a source."""

    source: Source

    @property
    def label(self) -> str:
        return self.source.name

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
        return self.source.schema()


class InMemory(Operator, frozen=True, eq=False):
    """Rows that the program holds in memory, in blocks of one schema; at least one block."""

    origin: str
    blocks: tuple[pa.Table, ...]

    @property
    def label(self) -> str:
        return self.origin

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
        return self.blocks[0].schema


class Materialized(Operator, frozen=True, eq=False):
    """Rows that a run has computed, and that lie in the object store."""

    bundles: tuple[Bundle, ...]
    schema: pa.Schema | None

    @property
    def label(self) -> str:
        return "materialized"

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
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

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
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

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
        return None


class MapRows(Unary, frozen=True):
    """A function from a row to a row."""

    fn: UserFunction
    resources: Resources

    @property
    def label(self) -> str:
        return self.fn.name

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
        return None


class FlatMap(Unary, frozen=True):
    """A function from a row to several rows."""

    fn: UserFunction
    resources: Resources

    @property
    def label(self) -> str:
        return self.fn.name

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
        return None


class Filter(Unary, frozen=True):
    """The rows for which a function is true."""

    fn: UserFunction
    resources: Resources

    @property
    def label(self) -> str:
        return self.fn.name

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
        return input


class SelectColumns(Unary, frozen=True):
    """These columns, in this order."""

    columns: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"select_columns({listed(self.columns)})"

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
        if input is None:
            return None
        require_columns(self.columns, input.names, "select_columns")
        return pa.schema([input.field(name) for name in self.columns])


class DropColumns(Unary, frozen=True):
    """All columns but these."""

    columns: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"drop_columns({listed(self.columns)})"

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
        if input is None:
            return None
        require_columns(self.columns, input.names, "drop_columns")
        dropped = set(self.columns)
        return pa.schema([field for field in input if field.name not in dropped])


class RenameColumns(Unary, frozen=True):
    """The same columns under other names: a mapping of some, or a list of all."""

    names: Mapping[str, str] | tuple[str, ...]

    @property
    def label(self) -> str:
        if isinstance(self.names, tuple):
            return f"rename_columns({listed(self.names)})"
        pairs = [f"{old} → {new}" for old, new in self.names.items()]
        return f"rename_columns({listed(pairs)})"

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
        if input is None:
            return None
        names = renamed(input.names, self.names)
        return pa.schema([field.with_name(name) for field, name in zip(input, names, strict=True)])


class Limit(Unary, frozen=True):
    """The first `num_rows` rows."""

    num_rows: int

    @property
    def label(self) -> str:
        return f"limit({self.num_rows})"

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
        return input


class Repartition(Unary, frozen=True):
    """The same rows, in order, in `num_blocks` blocks of nearly equal length."""

    num_blocks: int

    @property
    def label(self) -> str:
        return f"repartition({self.num_blocks})"

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
        return input


# -- how a chain can end ---------------------------------------------------------------------------


class Aggregate(Unary, frozen=True):
    """One row of aggregates of all rows."""

    sink: AggregateSink

    @property
    def label(self) -> str:
        return self.sink.label

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
        if input is not None:
            names = input.names
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

    def schema_from(self, input: pa.Schema | None) -> pa.Schema | None:
        return input


# -- chains ----------------------------------------------------------------------------------------


def chain(operator: Operator) -> Iterator[Operator]:
    """The operator and all before it, last first."""
    operators, source = taken_apart(operator)
    yield from operators
    yield source


def taken_apart(operator: Operator) -> tuple[list[Unary], Operator]:
    """The operators of a chain, last first, and the source that they are on."""
    operators: list[Unary] = []
    while isinstance(operator, Unary):
        operators.append(operator)
        operator = operator.input
    return operators, operator


def rebuilt(source: Operator, operators: Iterable[Unary]) -> Operator:
    """The chain of `operators`, last first, on a source; what they were on before is left."""
    operator = source
    for each in reversed(list(operators)):
        operator = each if each.input is operator else replace(each, input=operator)
    return operator


def static_schemas(operator: Operator) -> list[pa.Schema | None]:
    """The schemas of the operators of a chain, last first, as far as they are known statically.

    Raises `DataError` for the first operator that names a column it has not got.
    """
    schemas: list[pa.Schema | None] = []
    schema: pa.Schema | None = None
    for each in reversed(list(chain(operator))):
        schema = each.schema_from(schema)
        schemas.append(schema)
    return schemas[::-1]
