"""How many tasks a second, small, large and nested, against Python's own pools and Ray?

Bars: trivial tasks pipelined ≥ 8 x and one at a time ≥ 1.5 x `ProcessPoolExecutor`; 2,000 tasks
that take and return 100 KB ≥ 10 x Ray, without a stall; a tree of waiting tasks ≤ 1/15 of Ray.

How far 100 KB can get is measured beside them: one core calls the function where the payloads
are, and two bare processes get one payload at a time through a pipe, in whatever order. All do it
twice, since the results are kept, 200 MB: the first time includes what the kernel, and below it the
host of a virtual machine, take to provide so much memory.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from harness import Options, Sample, compare, main
from systems import NUM_WORKERS, node, present, warm_workers
from table import Bar, Row

SYSTEMS = ("rdata", "ppe", "pool", "ray", "bare", "one core")
PAYLOAD_BYTES = 100_000
NUM_WARM = 20
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
    if system == "one core":
        return measure_large(options, stamp, list)
    if system == "bare":
        return measure_bare(options)
    if system == "ppe":
        with ProcessPoolExecutor(NUM_WORKERS) as executor:
            list(executor.map(nap, range(NUM_WORKERS)))

            def results(futures: Sequence[Any]) -> list[Any]:
                return [future.result() for future in futures]

            return {
                **measure_trivial(options, partial(executor.submit, trivial), results),
                **measure_large(options, partial(executor.submit, stamp), results),
            }
    if system == "pool":
        with multiprocessing.Pool(NUM_WORKERS) as pool:
            pool.map(nap, range(NUM_WORKERS), chunksize=1)

            def submit(function: Callable[[Any], Any], argument: Any) -> Any:
                return pool.apply_async(function, (argument,))

            def values(results: Sequence[Any]) -> list[Any]:
                return [result.get() for result in results]

            return {
                **measure_trivial(options, partial(submit, trivial), values),
                **measure_large(options, partial(submit, stamp), values),
            }
    with node(system) as api:
        warm_workers(api)
        return {
            **measure_trivial(options, api.remote(trivial).remote, api.get),
            **measure_large(options, api.remote(stamp).remote, api.get),
            "tree": measure_tree(api),
        }


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


def measure_large(
    options: Options,
    submit: Callable[[bytes], Any],
    get: Callable[[Sequence[Any]], list[bytes]],
) -> dict[str, Sample]:
    """Tasks that take and return 100 KB, and the longest wait from one result to the next."""
    payloads = large_payloads(options)
    get([submit(payload) for payload in payloads[:NUM_WARM]])
    first, first_wait = time_large(payloads, submit, get)
    again, longest_wait = time_large(payloads, submit, get)
    stall = Sample(max(first_wait, longest_wait), workers=first.workers)
    return {"100 KB": first, "100 KB again": again, "stall": stall}


def time_large(
    payloads: Sequence[bytes],
    submit: Callable[[bytes], Any],
    get: Callable[[Sequence[Any]], list[bytes]],
) -> tuple[Sample, float]:
    pids: set[int] = set()
    longest = 0.0
    started = time.perf_counter()
    submitted = [submit(payload) for payload in payloads]
    for one, payload in zip(submitted, payloads, strict=True):
        waiting = time.perf_counter()
        (result,) = get([one])
        longest = max(longest, time.perf_counter() - waiting)
        pids.add(check_stamp(result, payload))
    rate = len(payloads) / (time.perf_counter() - started)
    return Sample(rate, workers=len(pids - {os.getpid()})), longest


def measure_bare(options: Options) -> dict[str, Sample]:
    """The same payloads, one at a time to each of two processes, through nothing but pipes."""
    payloads = large_payloads(options)
    pipes = []
    for _ in range(NUM_WORKERS):
        here, there = multiprocessing.Pipe()
        multiprocessing.Process(target=stamp_all, args=(there,)).start()
        here.send_bytes(payloads[0])
        check_stamp(here.recv_bytes(), payloads[0])
        pipes.append(here)
    found = {"100 KB": time_bare(payloads, pipes), "100 KB again": time_bare(payloads, pipes)}
    for pipe in pipes:
        pipe.send_bytes(b"")
    return found


def time_bare(payloads: Sequence[bytes], pipes: Sequence[Connection]) -> Sample:
    results = []  # kept, as those of the systems are
    sent: dict[Any, bytes] = {}
    left = iter(payloads)
    started = time.perf_counter()
    for pipe in pipes:
        sent[pipe] = next(left)
        pipe.send_bytes(sent[pipe])
    while sent:
        for pipe in wait(list(sent)):
            results.append(pipe.recv_bytes())
            payload, following = sent.pop(pipe), next(left, b"")
            if following:
                sent[pipe] = following
                pipe.send_bytes(following)
            check_stamp(results[-1], payload)
    rate = len(payloads) / (time.perf_counter() - started)
    return Sample(rate, workers=NUM_WORKERS)


def stamp_all(pipe: Connection) -> None:
    """A bare process: a stamped payload back for each that comes, until an empty one."""
    while payload := pipe.recv_bytes():
        pipe.send_bytes(stamp(payload))


def large_payloads(options: Options) -> list[bytes]:
    count = options.size(2_000, 100)
    return [index.to_bytes(8, "little") * (PAYLOAD_BYTES // 8) for index in range(count)]


def check_stamp(result: bytes, payload: bytes) -> int:
    """The pid of the process that stamped it."""
    assert result[4:] == payload[4:]
    return int.from_bytes(result[:4], "little")


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
        row("- again, in the same process", "100 KB again", "/s", (ten,)),
        row("the longest wait for the next of these", "stall", "s", (still,)),
        row(f"tree of waiting tasks, depth {TREE_DEPTH}", "tree", "s", (fifteenth,)),
    ]


if __name__ == "__main__":
    main(__doc__, rows, measure, SYSTEMS)
