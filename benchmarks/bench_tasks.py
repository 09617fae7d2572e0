"""How many tasks a second, small, large and nested, against Python's own pools and Ray?

Bars: trivial tasks pipelined ≥ 8 x and one at a time ≥ 1.5 x `ProcessPoolExecutor`; 2,000 tasks
that take and return 100 KB ≥ 10 x Ray, without a stall; a tree of waiting tasks ≤ 1/15 of Ray.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from harness import Options, Sample, compare, main
from systems import NUM_WORKERS, node, present, warm_workers
from table import Bar, Row

SYSTEMS = ("rdata", "ppe", "pool", "ray")
PAYLOAD_BYTES = 100_000
TREE_DEPTH = 5
STALL_S = 1.0  # 2,000 tasks take about as long: nobody should wait that long for the next result


def trivial(value: int) -> tuple[int, int]:
    """The smallest task: its result proves that it ran, and where."""
    return value + 1, os.getpid()


def stamp(payload: bytes) -> bytes:
    """As many bytes as came, begun with the pid of the process that made them."""
    return os.getpid().to_bytes(4, "little") + payload[4:]


def nap(_: int) -> int:
    """Long enough that each worker of a pool gets one: they all exist afterwards."""
    time.sleep(0.3)
    return os.getpid()


def measure(system: str, job: str, options: Options) -> dict[str, Sample]:
    if system == "ppe":
        with ProcessPoolExecutor(NUM_WORKERS) as executor:
            list(executor.map(nap, range(NUM_WORKERS)))
            return measure_trivial(
                options,
                lambda value: executor.submit(trivial, value),
                lambda futures: [future.result() for future in futures],
            )
    if system == "pool":
        with multiprocessing.Pool(NUM_WORKERS) as pool:
            pool.map(nap, range(NUM_WORKERS), chunksize=1)
            return measure_trivial(
                options,
                lambda value: pool.apply_async(trivial, (value,)),
                lambda results: [result.get() for result in results],
            )
    with node(system) as api:
        warm_workers(api)
        remote = api.remote(trivial)
        samples = measure_trivial(options, remote.remote, api.get)
        samples.update(measure_large(api, options))
        samples["tree"] = measure_tree(api)
        return samples


def measure_trivial(
    options: Options,
    submit: Callable[[int], Any],
    get: Callable[[Sequence[Any]], list[tuple[int, int]]],
) -> dict[str, Sample]:
    """Tasks a second, all submitted and then all got, and each got before the next."""
    count = options.size(10_000, 500)
    get([submit(value) for value in range(count // 10)])
    started = time.perf_counter()
    results = get([submit(value) for value in range(count)])
    pipelined = count / (time.perf_counter() - started)
    assert [value for value, _ in results] == list(range(1, count + 1))
    pids = {pid for _, pid in results}

    count = options.size(2_000, 200)
    started = time.perf_counter()
    for value in range(count):
        (result,) = get([submit(value)])
        assert result[0] == value + 1
        assert result[1] != os.getpid()
    single = count / (time.perf_counter() - started)
    return {
        "pipelined": Sample(pipelined, workers=len(pids - {os.getpid()})),
        "one at a time": Sample(single),
    }


def measure_large(api: Any, options: Options) -> dict[str, Sample]:
    """Tasks that take and return 100 KB, and the longest wait from one result to the next."""
    count = options.size(2_000, 100)
    remote = api.remote(stamp)
    payloads = [index.to_bytes(8, "little") * (PAYLOAD_BYTES // 8) for index in range(count)]
    api.get([remote.remote(payload) for payload in payloads[:20]])
    pids: set[int] = set()
    longest = 0.0
    started = time.perf_counter()
    refs = [remote.remote(payload) for payload in payloads]
    for ref, payload in zip(refs, payloads, strict=True):
        waiting = time.perf_counter()
        result = api.get(ref)
        longest = max(longest, time.perf_counter() - waiting)
        assert result[4:] == payload[4:]
        pids.add(int.from_bytes(result[:4], "little"))
    rate = count / (time.perf_counter() - started)
    workers = len(pids - {os.getpid()})
    return {"100 KB": Sample(rate, workers=workers), "stall": Sample(longest, workers=workers)}


def measure_tree(api: Any) -> Sample:
    """Seconds for a binary tree in which every task waits for its two children."""

    def grow(depth: int) -> tuple[int, list[int]]:
        if depth == 0:
            return 1, [os.getpid()]
        children = api.get([remote.remote(depth - 1) for _ in range(2)])
        pids = {os.getpid(), *(pid for _, below in children for pid in below)}
        return 1 + sum(size for size, _ in children), sorted(pids)

    remote = api.remote(grow)
    started = time.perf_counter()
    size, pids = api.get(remote.remote(TREE_DEPTH))
    seconds = time.perf_counter() - started
    return Sample(seconds, answer=size, workers=len(pids))


def rows(options: Options) -> list[Row]:
    result = compare(__file__, "tasks", present(SYSTEMS, options.peers), options)

    def row(what: str, metric: str, unit: str, bars: tuple[Bar, ...], min_workers: int = 2) -> Row:
        faults = result.faults(metric, min_workers)
        return Row(what, unit, result.figures(metric), bars, faults)

    eight = Bar("≥ 8 x ProcessPoolExecutor", 8, ("ppe",), is_minimum=True)
    more = Bar("≥ 1.5 x ProcessPoolExecutor", 1.5, ("ppe",), is_minimum=True)
    aim = Bar("aim 2 x", 2, ("ppe",), is_minimum=True)
    ten = Bar("≥ 10 x Ray", 10, ("ray",), is_minimum=True)
    still = Bar(f"no stall: ≤ {STALL_S:g} s", STALL_S)
    fifteenth = Bar("≤ 1/15 of Ray", 1 / 15, ("ray",))
    return [
        row("trivial tasks, submitted then all got", "pipelined", "/s", (eight,)),
        # One after the other may well be one worker's work, so workers are not counted here.
        row("trivial task, one at a time", "one at a time", "/s", (more, aim), min_workers=0),
        row("2,000 tasks that take and return 100 KB", "100 KB", "/s", (ten,)),
        row("the longest wait for the next of these", "stall", "s", (still,)),
        row(f"tree of waiting tasks, depth {TREE_DEPTH}", "tree", "s", (fifteenth,)),
    ]


if __name__ == "__main__":
    main(__doc__, rows, measure, SYSTEMS)
