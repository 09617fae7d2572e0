"""How long does `take(5)` of the big CSV take in a process that has done nothing before?

Bar: the call ≤ 0.3 s. Timed: the call alone, after the import; what it imports or starts by
itself is in it. Ray gets its node before, DuckDB asks for five rows as its users do.
"""

from __future__ import annotations

import importlib
import time
from contextlib import ExitStack
from typing import Any

from csv_data import orders, warm_cache
from harness import Options, Sample, compare, main
from systems import node, present
from table import Bar, Row

SYSTEMS = ("rdata", "duckdb", "ray")
NUM_ROWS = 5
LIMIT_S = 0.3


def measure(system: str, job: str, options: Options) -> dict[str, Sample]:
    data = orders(options.data, options.size(5_000_000, 400_000))
    with ExitStack() as stack:
        if system == "ray":
            stack.enter_context(node(system))
        module = importlib.import_module("ray.data" if system == "ray" else system)
        started = time.perf_counter()
        if system == "duckdb":
            query = f"SELECT * FROM read_csv('{data.pattern}') LIMIT {NUM_ROWS}"
            cursor = module.execute(query)
            names = [column[0] for column in cursor.description]
            found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        else:
            found = module.read_csv(data.paths).take(NUM_ROWS)
        seconds = time.perf_counter() - started
    return {"call": Sample(seconds, answer=[plain(row) for row in found])}


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row with Python's own numbers, which JSON takes."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in row.items()}


def rows(options: Options) -> list[Row]:
    data = orders(options.data, options.size(5_000_000, 400_000))
    warm_cache(data.paths)
    result = compare(__file__, "take", present(SYSTEMS, options.peers), options)
    what = f"take({NUM_ROWS}) of {data.num_rows / 1e6:g} M rows of CSV, the call, fresh process"
    bar = Bar(f"≤ {LIMIT_S} s", LIMIT_S)
    return [Row(what, "s", result.figures("call"), (bar,), result.faults("call"))]


if __name__ == "__main__":
    main(__doc__, rows, measure, SYSTEMS)
