"""How many actor calls a second, and how many new actors, against Ray?

Bars: calls one at a time ≥ 5 x and pipelined ≥ 10 x Ray; 20 actors created and called ≥ 30 x.
"""

from __future__ import annotations

import os
import time
from typing import Any

from harness import Options, Sample, compare, main
from systems import node, present, warm_workers
from table import Bar, Row

SYSTEMS = ("rdata", "ray")


class Counter:
    """The smallest actor with state: a call that is lost or doubled shows."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, step: int) -> int:
        self.count += step
        return self.count

    def pid(self) -> int:
        return os.getpid()


def measure(system: str, job: str, options: Options) -> dict[str, Sample]:
    with node(system) as api:
        warm_workers(api)
        remote = api.remote(Counter)
        samples = measure_calls(api, remote.remote(), options)
        samples["created"] = measure_created(api, remote, options.size(20, 4))
        return samples


def measure_calls(api: Any, counter: Any, options: Options) -> dict[str, Sample]:
    """Calls a second to one actor: each got before the next, and all submitted first."""
    assert api.get(counter.add.remote(0)) == 0
    count = options.size(2_000, 200)
    started = time.perf_counter()
    for index in range(count):
        assert api.get(counter.add.remote(1)) == index + 1
    single = count / (time.perf_counter() - started)

    calls = options.size(10_000, 1_000)
    api.get([counter.add.remote(0) for _ in range(calls // 10)])
    started = time.perf_counter()
    results = api.get([counter.add.remote(1) for _ in range(calls)])
    pipelined = calls / (time.perf_counter() - started)
    assert results == list(range(count + 1, count + calls + 1)), "calls lost, doubled or reordered"
    assert api.get(counter.pid.remote()) != os.getpid()
    return {"one at a time": Sample(single), "pipelined": Sample(pipelined)}


def measure_created(api: Any, remote: Any, count: int) -> Sample:
    """Actors a second, from the first creation to the first answer of each."""
    started = time.perf_counter()
    actors = [remote.remote() for _ in range(count)]
    pids = api.get([actor.pid.remote() for actor in actors])
    rate = count / (time.perf_counter() - started)
    assert len(set(pids)) == count, "two actors shared a process"
    return Sample(rate, workers=len(set(pids)))


def rows(options: Options) -> list[Row]:
    result = compare(__file__, "actors", present(SYSTEMS, options.peers), options)

    def row(what: str, metric: str, times: int, min_workers: int = 0) -> Row:
        bar = Bar(f"≥ {times} x Ray", times, ("ray",), is_minimum=True)
        faults = result.faults(metric, min_workers)
        return Row(what, "/s", result.figures(metric), (bar,), faults)

    return [
        row("actor calls, one at a time", "one at a time", 5),
        row("actor calls, submitted then all got", "pipelined", 10),
        row("20 actors created and called once", "created", 30, min_workers=2),
    ]


if __name__ == "__main__":
    main(__doc__, rows, measure, SYSTEMS)
