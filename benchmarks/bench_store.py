"""How fast does a 100 MB array get into shared memory, and out of it in another process?

Bars: `put` steady ≥ 50 % of a warm memcpy, first and with 20 kept ≥ Ray; `get` ≤ 1.0 x Ray,
without a copy: the array is read-only, and the reader's own memory does not grow by it.
"""

from __future__ import annotations

import importlib
import os
import statistics
import time
from typing import Any

from harness import Comparison, Options, Sample, compare, main
from processes import memory_fields
from systems import node, present, warm_workers
from table import Bar, Row

SYSTEMS = ("rdata", "ray")
MIN_GROWTH = 0.1  # of the array: a reader whose own memory grows by more has copied it


class Reader:
    """Gets arrays in a process of its own, and says what that cost."""

    def __init__(self, module: str) -> None:
        self.api = importlib.import_module(module)
        self.growth = 0

    def read(self, refs: list[Any]) -> tuple[float, bool, float]:
        """Seconds of `get`, whether the array could be written to, and its sum."""
        before = memory_fields("self")["Anonymous"]
        started = time.perf_counter()
        array = self.api.get(refs[0])
        seconds = time.perf_counter() - started
        total = float(array.sum())  # touches every page: a copy made late shows too
        self.growth = max(self.growth, memory_fields("self")["Anonymous"] - before)
        return seconds, bool(array.flags.writeable), total

    def report(self) -> tuple[int, int]:
        """The pid, and by how many bytes a `get` made the memory of this process alone grow."""
        return os.getpid(), self.growth


def measure(system: str, job: str, options: Options) -> dict[str, Sample]:
    numpy = importlib.import_module("numpy")
    array = numpy.arange(options.size(12_500_000, 1_250_000), dtype="float64")
    copied = array.copy()
    with node(system) as api:
        warm_workers(api, ["numpy"])
        samples = measure_put(api, array, copied)
        samples.update(measure_get(system, api, array))
        return samples


def measure_put(api: Any, array: Any, copied: Any) -> dict[str, Sample]:
    """GB/s of the first `put`, of one after the other, and of 20 of which none is freed."""
    first = array.nbytes / seconds_of(lambda: api.put(array))
    puts: list[float] = []
    copies: list[float] = []
    for _ in range(12):
        puts.append(array.nbytes / seconds_of(lambda: api.put(array)))  # freed at once
        copies.append(array.nbytes / seconds_of(lambda: copied.__setitem__(slice(None), array)))
    kept: list[Any] = []
    seconds = seconds_of(lambda: kept.extend(api.put(array) for _ in range(20)))
    for ref in kept:
        assert (api.get(ref) == array).all()
    return {
        "first": Sample(first / 1e9),
        "steady": Sample(statistics.median(puts[2:]) / 1e9),
        "memcpy": Sample(statistics.median(copies[2:]) / 1e9),
        "20 kept": Sample(20 * array.nbytes / seconds / 1e9),
    }


def measure_get(system: str, api: Any, array: Any) -> dict[str, Sample]:
    """Seconds of `get` in an actor, each time of another array; fails when one is copied."""
    reader = api.remote(Reader).remote(system)
    seconds: list[float] = []
    for index in range(7):
        changed = array + index
        elapsed, is_writeable, total = api.get(reader.read.remote([api.put(changed)]))
        assert not is_writeable, "the array that another process owns is writeable"
        assert total == float(changed.sum()), "the array came out changed"
        seconds.append(elapsed)
    pid, growth = api.get(reader.report.remote())
    assert pid != os.getpid()
    assert growth < MIN_GROWTH * array.nbytes, f"the reader grew by {growth / 1e6:.0f} MB: a copy"
    return {"get": Sample(statistics.median(seconds[2:]))}


def seconds_of(action: Any) -> float:
    """How long one call takes; its result is dropped in that time."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def rows(options: Options) -> list[Row]:
    result = compare(__file__, "store", present(SYSTEMS, options.peers), options)
    size = f"{options.size(100, 10)} MB"
    steady = result.figures("steady")
    if "rdata" in steady:  # the memcpy of the same process, so that the pair is a pair
        steady["memcpy"] = result.figures("memcpy").get("rdata", [])
    half = Bar("≥ 50 % of a warm memcpy", 0.5, ("memcpy",), is_minimum=True)
    more = Bar("≥ Ray", 1.0, ("ray",), is_minimum=True)
    no_slower = Bar("≤ 1.0 x Ray", 1.0, ("ray",))
    return [
        Row(f"put of a {size} array, steady", "GB/s", steady, (half,), result.faults("steady")),
        row(result, f"put of a {size} array, first", "first", "GB/s", more),
        row(result, f"put of a {size} array, 20 kept", "20 kept", "GB/s", more),
        row(result, "get of it in another process, no copy", "get", "s", no_slower),
    ]


def row(result: Comparison, what: str, metric: str, unit: str, bar: Bar) -> Row:
    return Row(what, unit, result.figures(metric), (bar,), result.faults(metric))


if __name__ == "__main__":
    main(__doc__, rows, measure, SYSTEMS)
