"""How fast do objects and tasks cross from one node to another?

Bars: a 256 MB object pulled from another node on loopback, warm, ≥ 2 GB/s and ≥ 3 x Ray; trivial
tasks on another node's workers, pipelined ≥ 60 % and one at a time ≥ 50 % of those on the driver's.
"""

from __future__ import annotations

import importlib
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness import Options, Sample, compare, main
from systems import NUM_WORKERS, RAY_OPTIONS, SETTLE_S, present
from table import Bar, Row

SYSTEMS = ("rdata", "ray")
OWN = "own node"
STORE_BYTES = 2 << 30


@contextmanager
def two_nodes(system: str) -> Iterator[Any]:
    """The module of rdata or Ray, joined to a cluster whose nodes have `here` and `there`."""
    api = importlib.import_module(system)
    with ray_nodes() if system == "ray" else rdata_nodes() as address:
        api.init(address=address, **(RAY_OPTIONS if system == "ray" else {}))
        time.sleep(SETTLE_S)
        try:
            yield api
        finally:
            api.shutdown()


@contextmanager
def ray_nodes() -> Iterator[str]:
    from ray.cluster_utils import Cluster  # Ray may be missing

    options = {"num_cpus": NUM_WORKERS, "object_store_memory": STORE_BYTES}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**options, "resources": {"here": 2}, "include_dashboard": False},
    )
    try:
        cluster.add_node(**options, resources={"there": 2})
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


@contextmanager
def rdata_nodes() -> Iterator[str]:
    from rdata.config import Settings
    from rdata.core.launch import LaunchedNode, NodeOptions, launch_node

    token = os.urandom(32)
    nodes: list[LaunchedNode] = []

    def add(name: str) -> str:
        head = nodes[0].address.removeprefix("tcp:") if nodes else ""
        options = NodeOptions(
            NUM_WORKERS,
            {name: 2},
            STORE_BYTES,
            token=token,
            is_embedded=False,
            host="127.0.0.1",
            head=head,
        )
        nodes.append(launch_node(options, Settings.from_environment()))
        return nodes[0].address.removeprefix("tcp:")

    try:
        add("here")
        yield add("there")
    finally:
        for node in reversed(nodes):
            node.process.terminate()
            node.wait_for_end(10)


def make(count: int, first: int) -> Any:
    """A large array, on the node where this runs."""
    numpy = importlib.import_module("numpy")
    return numpy.arange(first, first + count, dtype="float64")


def trivial(value: int) -> tuple[int, int]:
    """The smallest task: its result proves that it ran, and where."""
    return value + 1, os.getpid()


def measure(system: str, job: str, options: Options) -> dict[str, Sample]:
    with two_nodes(system) as api:
        if job == "pull":
            return measure_pull(system, api, options)
        samples: dict[str, Sample] = {}
        for place in ("there", "here"):
            samples.update(measure_tasks(api, place, options))
        return samples


def measure_pull(system: str, api: Any, options: Options) -> dict[str, Sample]:
    """GB/s of `get` in the driver, each time of another array that the other node has made."""
    count = options.size(32_000_000, 1_000_000)
    remote = api.remote(make).options(resources={"there": 1})
    waiting: dict[str, Any] = {"fetch_local": False} if system == "ray" else {}
    rates = []
    for index in range(9):
        ref = remote.remote(count, index)
        api.wait([ref], **waiting)
        time.sleep(0.3)  # let the node that made it come to rest
        started = time.perf_counter()
        array = api.get(ref)
        rates.append(array.nbytes / (time.perf_counter() - started) / 1e9)
        assert array[0] == index
        assert array[-1] == count + index - 1
        del array, ref
        time.sleep(0.3)
    return {"pull": Sample(statistics.median(rates[3:]))}


def measure_tasks(api: Any, place: str, options: Options) -> dict[str, Sample]:
    """Tasks a second on one of the nodes, pipelined and one at a time."""
    remote = api.remote(trivial).options(resources={place: 0.0001})
    count = options.size(10_000, 500)
    api.get([remote.remote(value) for value in range(count // 2)])
    started = time.perf_counter()
    results = api.get([remote.remote(value) for value in range(count)])
    pipelined = count / (time.perf_counter() - started)
    assert [value for value, _ in results] == list(range(1, count + 1))
    count = options.size(2_000, 200)
    started = time.perf_counter()
    for value in range(count):
        assert api.get(remote.remote(value))[0] == value + 1
    single = count / (time.perf_counter() - started)
    workers = len({pid for _, pid in results})
    return {
        f"pipelined {place}": Sample(pipelined, workers=workers),
        f"one at a time {place}": Sample(single, workers=workers),
    }


def rows(options: Options) -> list[Row]:
    pulls = compare(__file__, "pull", present(SYSTEMS, options.peers), options)
    tasks = compare(__file__, "tasks", present(SYSTEMS, options.peers), options)
    fast = Bar("≥ 2 GB/s", 2.0, is_minimum=True)
    faster = Bar("≥ 3 x Ray", 3.0, ("ray",), is_minimum=True)
    size = f"{options.size(256, 8)} MB"

    def row(how: str, bar: Bar) -> Row:
        figures = tasks.figures(f"{how} there")
        figures[OWN] = tasks.figures(f"{how} here").get("rdata", [])
        what = f"trivial tasks on another node, {how}"
        return Row(what, "/s", figures, (bar,), tasks.faults(f"{how} there"))

    return [
        Row(
            f"{size} object pulled from another node, warm",
            "GB/s",
            pulls.figures("pull"),
            (fast, faster),
            pulls.faults("pull"),
        ),
        row("pipelined", Bar("≥ 60 % of its own node", 0.6, (OWN,), is_minimum=True)),
        row("one at a time", Bar("≥ 50 % of its own node", 0.5, (OWN,), is_minimum=True)),
    ]


if __name__ == "__main__":
    main(__doc__, rows, measure, SYSTEMS)
