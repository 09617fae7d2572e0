"""How do the results of a run come together: blocks kept, aggregates merged, files published?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rdata.core import api
from rdata.core.remote import remote
from rdata.dataset.aggregates import Aggregate, AggregateSink, CountRows
from rdata.dataset.block import concat, unify_schemas
from rdata.dataset.bundle import Bundle
from rdata.dataset.executor import execute, launcher_for
from rdata.dataset.formats.output import SaveMode, WrittenFile
from rdata.dataset.formats.parquet_sink import ParquetSink
from rdata.dataset.iterate import blocks_of
from rdata.dataset.logical import Aggregate as AggregateOperator
from rdata.dataset.logical import (
    DropColumns,
    InMemory,
    Limit,
    Materialized,
    Operator,
    Read,
    RenameColumns,
    Repartition,
    SelectColumns,
    Write,
    taken_apart,
)
from rdata.dataset.planner import Plan, plan, plan_logically
from rdata.errors import OptionError
from rdata.lazy import pa


def aggregate(
    operator: Operator, aggregates: Sequence[Aggregate], *, is_of_all: bool = False
) -> list[Any]:
    """Run a chain, taking aggregates of its rows; of all columns, or of some."""
    sink = AggregateSink(tuple(aggregates), is_of_all)
    planned = plan(AggregateOperator(operator, sink))
    return sink.merge(list(execute(planned, launcher_for(planned))))


def count(operator: Operator) -> int:
    """The number of rows: from what is known of them, else by a run that reads no column."""
    counted, _ = plan_logically(AggregateOperator(operator, AggregateSink((CountRows(),))))
    known = _known_rows(counted)
    return int(aggregate(operator, [CountRows()])[0]) if known is None else known


_ROW_FOR_ROW = (AggregateOperator, SelectColumns, DropColumns, RenameColumns, Repartition)


def _known_rows(operator: Operator) -> int | None:
    operators, source = taken_apart(operator)
    limits = [each.num_rows for each in operators if isinstance(each, Limit)]
    if not all(isinstance(each, (Limit, *_ROW_FOR_ROW)) for each in operators):
        return None
    match source:
        case Read(files):
            known = files.num_rows()
            return None if known is None else min([known, *limits])
        case InMemory(_, blocks):
            return min([sum(block.num_rows for block in blocks), *limits])
        case Materialized(bundles):
            return min([sum(bundle.num_rows for bundle in bundles), *limits])
    return None


def materialize(operator: Operator) -> Materialized:
    """Run a chain, keeping its blocks where they were made."""
    planned = plan(operator)
    bundles: list[Bundle] = list(execute(planned, launcher_for(planned)))
    schema = _schema_of(bundles)
    filled = [bundle for bundle in bundles if bundle.num_rows]
    return Materialized(tuple(filled or bundles[:1]), schema)


def _schema_of(bundles: Sequence[Bundle]) -> pa.Schema | None:
    pieces = [piece for bundle in bundles for piece in bundle.pieces]
    schemas = [piece.meta.schema for piece in pieces if piece.num_rows]
    schemas = schemas or [piece.meta.schema for piece in pieces if piece.meta.schema.names][:1]
    return unify_schemas(schemas, "materialize") if schemas else None


def collect(operator: Operator) -> pa.Table:
    """Run a chain and bring all its rows into one table of this process."""
    return concat(list(blocks_of(operator)), "the dataset")


def first_schema(operator: Operator) -> pa.Schema | None:
    """Run as little of a chain as gives a block with columns, and tell its schema."""
    schema: pa.Schema | None = None
    for block in blocks_of(operator):
        if block.num_columns and (schema is None or block.num_rows):
            schema = block.schema
        if block.num_rows:
            break
    return schema


def write_parquet(operator: Operator, sink: ParquetSink, mode: SaveMode) -> None:
    """Run a chain into files, and publish them when all are complete."""
    planned = plan(Write(operator, sink))
    _require_reach(planned, sink)
    if not sink.job.begin(mode):
        return
    try:
        with sink.job.held():
            results = list(execute(planned, launcher_for(planned)))
            files: list[WrittenFile] = [file for result in results for file in result]
            files = [file for file in files if file.num_rows] or files[:1] or [sink.write_nothing()]
            files = _with_one_schema(files, sink, is_local=planned.place == "driver")
            sink.job.publish(files, mode)
    finally:
        sink.job.clear()


def _require_reach(planned: Plan, sink: ParquetSink) -> None:
    """Refuse to let workers write into their own memory, which ends with them."""
    if planned.place == "workers" and sink.job.is_in_memory:
        worker_pid = api.get(remote(os.getpid).remote())
        if worker_pid != os.getpid():
            raise OptionError(
                f"{sink.label}: each process has a memory:// of its own, and this plan runs on "
                f"workers ({planned.why_there}); write to a folder, or to a URL that all reach"
            )


def _with_one_schema(
    files: Sequence[WrittenFile], sink: ParquetSink, is_local: bool
) -> list[WrittenFile]:
    """Write those files again that have another schema: blocks of integers among floats, say."""
    if not files:
        return []
    schema = unify_schemas((file.schema for file in files), sink.label)
    others = [file for file in files if not file.schema.equals(schema)]
    if is_local:
        recast = [sink.recast(file, schema) for file in others]
    else:
        task = remote(_recast)
        refs = [task.remote(sink, file, schema) for file in others]
        api.wait(refs, num_returns=len(refs))  # none may write on when one has failed
        recast = api.get(refs)
    by_name = {file.final_name: file for file in recast}
    return [by_name.get(file.final_name, file) for file in files]


def _recast(sink: ParquetSink, file: WrittenFile, schema: pa.Schema) -> WrittenFile:
    return sink.recast(file, schema)
