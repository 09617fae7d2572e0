"""How does a user of each system write the CSV jobs?

- ``copy``: CSV → Parquet, compressed with snappy.
- ``clean``: the same with a given pandas function between (clip, upper-case, filter).
- ``express``: the same again in expressions of the system's own, for those that have them.
- ``loop``: a loop in Python over all rows, its results summed.

A job is a function of (paths, pattern, output path) that returns the sum, or 0.0. Packages are
imported where they are used: a process loads only the system that it measures.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from csv_data import MAX_PRICE, MIN_PRICE, MIN_QUANTITY
from systems import NUM_WORKERS, node, warm_workers

BATCH_ROWS = 200_000  # of DuckDB's stream, when its rows go through the pandas function

Job = Callable[[Sequence[str], str, str], float]


def clean(orders: Any) -> Any:
    """The pandas function: DataFrame to DataFrame."""
    orders = orders.assign(
        price=orders["price"].clip(MIN_PRICE, MAX_PRICE), city=orders["city"].str.upper()
    )
    return orders[orders["quantity"] >= MIN_QUANTITY]


def points(orders: Any) -> Any:
    """The loop: a DataFrame of orders to one with a column ``x``, a figure for each row."""
    found: list[float] = []
    columns = (orders[name].tolist() for name in ("price", "quantity", "client", "sku"))
    for price, quantity, client, sku in zip(*columns, strict=True):
        value = price * quantity
        if quantity >= 75:
            value *= 0.9
        elif quantity >= 50:
            value *= 0.95
        check = 0
        for position, character in enumerate(client + sku):
            check = (check * 31 + ord(character) ^ position) % 9973
        found.append(value + check)
    return importlib.import_module("pandas").DataFrame({"x": found})


# --- rdata and Ray --------------------------------------------------------------------------


def node_jobs(system: str) -> dict[str, Job]:
    read_csv = importlib.import_module("rdata" if system == "rdata" else "ray.data").read_csv

    def copy(paths: Sequence[str], pattern: str, out: str) -> float:
        read_csv(list(paths)).write_parquet(out)
        return 0.0

    def cleaned(paths: Sequence[str], pattern: str, out: str) -> float:
        read_csv(list(paths)).map_batches(clean, batch_format="pandas").write_parquet(out)
        return 0.0

    def loop(paths: Sequence[str], pattern: str, out: str) -> float:
        batches = read_csv(list(paths)).map_batches(points, batch_format="pandas")
        return float(batches.sum("x"))

    return {"copy": copy, "clean": cleaned, "loop": loop}


# --- the others -----------------------------------------------------------------------------


def pandas_jobs() -> dict[str, Job]:
    pd = importlib.import_module("pandas")

    def read(path: str) -> Any:
        return pd.read_csv(path, engine="pyarrow")

    def write(frame: Any, path: str, out: str) -> None:
        Path(out).mkdir(exist_ok=True)
        frame.to_parquet(Path(out, f"{Path(path).stem}.parquet"), compression="snappy", index=False)

    def copy(paths: Sequence[str], pattern: str, out: str) -> float:
        for path in paths:
            write(read(path), path, out)
        return 0.0

    def cleaned(paths: Sequence[str], pattern: str, out: str) -> float:
        for path in paths:
            write(clean(read(path)), path, out)
        return 0.0

    def loop(paths: Sequence[str], pattern: str, out: str) -> float:
        return sum(float(points(read(path))["x"].sum()) for path in paths)

    return {"copy": copy, "clean": cleaned, "loop": loop}


def polars_jobs() -> dict[str, Job]:
    pl = importlib.import_module("polars")

    def copy(paths: Sequence[str], pattern: str, out: str) -> float:
        pl.scan_csv(pattern).sink_parquet(out, compression="snappy")
        return 0.0

    def cleaned(paths: Sequence[str], pattern: str, out: str) -> float:
        def convert(frame: Any) -> Any:
            return pl.from_pandas(clean(frame.to_pandas()))

        rows = pl.scan_csv(pattern).map_batches(convert, streamable=True)  # part by part: faster
        rows.sink_parquet(out, compression="snappy")
        return 0.0

    def express(paths: Sequence[str], pattern: str, out: str) -> float:
        pl.scan_csv(pattern).with_columns(
            pl.col("price").clip(MIN_PRICE, MAX_PRICE), pl.col("city").str.to_uppercase()
        ).filter(pl.col("quantity") >= MIN_QUANTITY).sink_parquet(out, compression="snappy")
        return 0.0

    return {"copy": copy, "clean": cleaned, "express": express}


def duckdb_jobs() -> dict[str, Job]:
    duckdb = importlib.import_module("duckdb")
    pa, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))

    def write(query: str, out: str) -> float:
        duckdb.execute(f"COPY ({query}) TO '{out}' (FORMAT parquet, COMPRESSION snappy)")
        return 0.0

    def copy(paths: Sequence[str], pattern: str, out: str) -> float:
        return write(f"SELECT * FROM read_csv('{pattern}')", out)

    def cleaned(paths: Sequence[str], pattern: str, out: str) -> float:
        reader = duckdb.execute(f"SELECT * FROM read_csv('{pattern}')").to_arrow_reader(BATCH_ROWS)
        with ExitStack() as stack:
            writer = None
            for batch in reader:
                table = pa.Table.from_pandas(clean(batch.to_pandas()), preserve_index=False)
                if writer is None:
                    writer = stack.enter_context(parquet.ParquetWriter(out, table.schema))
                writer.write_table(table)
        return 0.0

    def express(paths: Sequence[str], pattern: str, out: str) -> float:
        price = f"greatest(least(price, {MAX_PRICE}), {MIN_PRICE}) AS price"
        columns = f"* REPLACE ({price}, upper(city) AS city)"
        rows = f"read_csv('{pattern}') WHERE quantity >= {MIN_QUANTITY}"
        return write(f"SELECT {columns} FROM {rows}", out)

    return {"copy": copy, "clean": cleaned, "express": express}


def daft_jobs() -> dict[str, Job]:
    daft = importlib.import_module("daft")

    def copy(paths: Sequence[str], pattern: str, out: str) -> float:
        daft.read_csv(pattern).write_parquet(out, compression="snappy")
        return 0.0

    def express(paths: Sequence[str], pattern: str, out: str) -> float:
        column = daft.col
        daft.read_csv(pattern).with_columns(
            {
                "price": column("price").clip(MIN_PRICE, MAX_PRICE),
                "city": column("city").upper(),
            }
        ).where(column("quantity") >= MIN_QUANTITY).write_parquet(out, compression="snappy")
        return 0.0

    return {"copy": copy, "express": express}


def dask_jobs() -> dict[str, Job]:
    dask, frames = importlib.import_module("dask"), importlib.import_module("dask.dataframe")

    def copy(paths: Sequence[str], pattern: str, out: str) -> float:
        frames.read_csv(pattern).to_parquet(out, compression="snappy", write_index=False)
        return 0.0

    def cleaned(paths: Sequence[str], pattern: str, out: str) -> float:
        rows = frames.read_csv(pattern).map_partitions(clean)
        rows.to_parquet(out, compression="snappy", write_index=False)
        return 0.0

    def loop(paths: Sequence[str], pattern: str, out: str) -> float:
        with dask.config.set(scheduler="processes", num_workers=NUM_WORKERS):
            rows = frames.read_csv(pattern).map_partitions(points, meta={"x": "float64"})
            return float(rows["x"].sum().compute())

    return {"copy": copy, "clean": cleaned, "loop": loop}


def arrow_jobs() -> dict[str, Job]:
    csv, parquet = (importlib.import_module(f"pyarrow.{name}") for name in ("csv", "parquet"))
    alone = csv.ReadOptions(use_threads=False)

    def copy(paths: Sequence[str], pattern: str, out: str) -> float:
        Path(out).mkdir(exist_ok=True)
        for path in paths:
            table = csv.read_csv(path, read_options=alone)
            parquet.write_table(table, Path(out, f"{Path(path).stem}.parquet"))
        return 0.0

    return {"copy": copy}


class BareProcesses(AbstractContextManager["BareProcesses"]):
    """A yardstick: two forked processes, each with half of the files, and no more."""

    def __init__(self, job: Job) -> None:
        self.job = job  # what it needs is imported before the fork, as a warm worker has it
        context = multiprocessing.get_context("fork")
        self.pipes, self.processes = [], []
        for _ in range(NUM_WORKERS):
            ours, theirs = context.Pipe()
            process = context.Process(target=self.serve, args=(theirs,), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def serve(self, pipe: Any) -> None:
        while (work := pipe.recv()) is not None:
            pipe.send(self.job(*work))

    def run(self, paths: Sequence[str], pattern: str, out: str) -> float:
        for index, pipe in enumerate(self.pipes):
            pipe.send((paths[index::NUM_WORKERS], pattern, out))
        return sum(float(pipe.recv()) for pipe in self.pipes)

    def __exit__(self, *_: object) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


PEER_JOBS: dict[str, Callable[[], dict[str, Job]]] = {
    "pandas": pandas_jobs,
    "polars": polars_jobs,
    "duckdb": duckdb_jobs,
    "daft": daft_jobs,
    "dask": dask_jobs,
}
BARE_JOBS = {"copy": arrow_jobs, "loop": pandas_jobs}


def start(system: str, job: str, stack: ExitStack, is_warm: bool) -> Job:
    """The job of a system that is up until ``stack`` closes, its workers warm if asked for."""
    if system in ("rdata", "ray"):
        api = stack.enter_context(node(system, settles=is_warm))
        if is_warm:
            warm_workers(api, ["pandas", "pyarrow.csv", "pyarrow.parquet"])
        return node_jobs(system)[job]
    if system == "bare":
        return stack.enter_context(BareProcesses(BARE_JOBS[job]()[job])).run
    if system == "one core":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        return pandas_jobs()[job]
    return PEER_JOBS[system]()[job]
