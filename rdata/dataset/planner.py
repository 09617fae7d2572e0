"""How does a chain of logical operators run? Which physical operators, and where?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from rdata.dataset.block import BlockMeta
from rdata.dataset.bundle import Piece
from rdata.dataset.fusion import fuse
from rdata.dataset.logical import (
    AddColumn,
    Aggregate,
    DropColumns,
    Filter,
    FlatMap,
    InMemory,
    Limit,
    MapBatches,
    MapRows,
    Materialized,
    Operator,
    Read,
    RenameColumns,
    Repartition,
    Resources,
    SelectColumns,
    Unary,
    Write,
    chain,
    static_schemas,
)
from rdata.dataset.physical.specs import LimitSpec, PiecesSpec, RecutSpec, Spec, TaskSpec
from rdata.dataset.physical.steps import (
    AddColumnStep,
    ConformStep,
    DropStep,
    FilterStep,
    FlatMapStep,
    JoinStep,
    MapBatchesStep,
    MapRowsStep,
    RenameStep,
    SelectStep,
    Step,
)
from rdata.dataset.rules import RULES, Rule

DRIVER_BYTES = 32 << 20  # of input that the driver works on itself: less time than starting a node


class Plan(Struct, frozen=True):
    """What will run, in order, where, and what the rules said."""

    specs: tuple[Spec, ...]
    place: Literal["driver", "workers"]
    why_there: str
    notes: tuple[str, ...]
    logical: Operator


def plan(operator: Operator, rules: Sequence[Rule] = RULES, *, is_fused: bool = True) -> Plan:
    """Plan a chain. Raises `DataError` if an operator names a column that it has not got.

    Without rules and fusion, each operator runs by itself; the result is the same.
    """
    operator, notes = plan_logically(operator, rules)
    specs = [spec for each in reversed(list(chain(operator))) for spec in specs_of(each)]
    if is_fused:
        specs, more_notes = fuse(specs)
        notes.extend(more_notes)
    place, why_there = _place(specs)
    return Plan(tuple(specs), place, why_there, tuple(notes), operator)


def plan_logically(operator: Operator, rules: Sequence[Rule] = RULES) -> tuple[Operator, list[str]]:
    """Check a chain and apply the rules: the chain that will run, and what they said."""
    static_schemas(operator)  # raises for columns that are not there
    notes: list[str] = []
    for rule in rules:
        operator, more = rule(operator)
        notes.extend(more)
    return operator, notes


def specs_of(operator: Operator) -> list[Spec]:
    """The physical operators of one logical operator."""
    match operator:
        case Read(source):
            return [TaskSpec((operator.label,), source)]
        case InMemory(_, blocks):
            pieces = tuple(Piece.whole(block, BlockMeta.of(block)) for block in blocks)
            return [PiecesSpec(operator.label, pieces)]
        case Materialized(bundles, schema):
            pieces = tuple(piece for bundle in bundles for piece in bundle.pieces)
            specs: list[Spec] = [PiecesSpec(operator.label, pieces)]
            if schema and not all(schema.equals(piece.meta.schema) for piece in pieces):
                specs.append(TaskSpec(("one schema",), steps=(ConformStep(schema),)))
            return specs
        case Limit(_, num_rows):
            return [LimitSpec(num_rows)]
        case Repartition(_, num_blocks):
            return [RecutSpec(num_blocks), TaskSpec(("join blocks",), steps=(JoinStep(),))]
        case Aggregate(_, sink) | Write(_, sink):
            return [TaskSpec((operator.label,), sink=sink)]
        case Unary():
            step, resources = _step_of(operator)
            return [_map_spec(operator, step, resources)]
    raise AssertionError(f"no physical operator for {type(operator).__name__}")


def _step_of(operator: Unary) -> tuple[Step, Resources]:
    match operator:
        case MapBatches(_, fn, batch_size, batch_format, resources):
            return MapBatchesStep(fn, batch_size, batch_format), resources
        case AddColumn(_, column, fn, batch_format, resources):
            return AddColumnStep(column, fn, batch_format), resources
        case MapRows(_, fn, resources):
            return MapRowsStep(fn), resources
        case FlatMap(_, fn, resources):
            return FlatMapStep(fn), resources
        case Filter(_, fn, resources):
            return FilterStep(fn), resources
        case SelectColumns(_, columns):
            return SelectStep(columns), Resources()
        case DropColumns(_, columns):
            return DropStep(columns), Resources()
        case RenameColumns(_, names):
            return RenameStep(names), Resources()
    raise AssertionError(f"no step for {type(operator).__name__}")


def _map_spec(operator: Unary, step: Step, resources: Resources) -> TaskSpec:
    fn: Any = getattr(operator, "fn", None)
    batch_size = operator.batch_size if isinstance(operator, MapBatches) else None
    return TaskSpec(
        (operator.label,),
        steps=(step,),
        is_actor=fn is not None and fn.is_class,
        num_cpus=resources.num_cpus,
        concurrency=resources.concurrency,
        min_rows=batch_size or 0,
    )


def _place(specs: Sequence[Spec]) -> tuple[Literal["driver", "workers"], str]:
    for spec in specs:
        if isinstance(spec, TaskSpec) and spec.runs_user_code:
            return "workers", "it runs user functions"
    first = specs[0]
    if isinstance(first, PiecesSpec):
        size_bytes = sum(piece.size_bytes for piece in first.pieces)
    elif isinstance(first, TaskSpec) and first.source is not None:
        size_bytes = first.source.estimated_bytes()
    else:
        raise AssertionError("a plan begins with rows")
    about = f"about {size_bytes / (1 << 20):.1f} MiB of input"
    if size_bytes <= DRIVER_BYTES:
        return "driver", f"no user function, and {about}"
    return "workers", about
