"""Which systems are compared, which of them are here, and how are rdata and Ray started?"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SETTLE_S = 2.0  # both go on starting things in the background; bench_start.py times the start
NUM_WORKERS = 2  # every system gets as many; the bars are stated for two cores

# The system's name in the tables → the package that it needs; None: part of Python.
PACKAGES: dict[str, str | None] = {
    "rdata": "rdata",
    "ray": "ray",
    "pandas": "pandas",
    "polars": "polars",
    "duckdb": "duckdb",
    "daft": "daft",
    "dask": "dask",
    "ppe": None,
    "pool": None,
    "memcpy": None,
    "bare": None,
    "one core": None,
}

TITLES = {
    "ray": "Ray",
    "pandas": "pandas",
    "polars": "Polars",
    "duckdb": "DuckDB",
    "daft": "Daft",
    "dask": "Dask",
    "ppe": "ProcessPoolExecutor",
    "pool": "multiprocessing.Pool",
    "bare": "two bare processes",
}

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about GPUs
    "DAFT_ANALYTICS_ENABLED": "0",
    "DO_NOT_TRACK": "true",
    "TQDM_DISABLE": "1",
    "PYTHONDONTWRITEBYTECODE": "",  # compiled once, as an installed package is
}

RAY_OPTIONS: dict[str, Any] = {
    "include_dashboard": False,
    "log_to_driver": False,
    "configure_logging": True,
    "logging_level": "ERROR",
}


def title(system: str) -> str:
    """The name of a system as people write it."""
    return TITLES.get(system, system)


def present(wanted: Sequence[str], peers: Sequence[str] | None) -> list[str]:
    """Of ``wanted``, rdata and the peers that were asked for and are here; says what it skips.

    ``peers`` is the list of ``--peers``, or None for all. What is part of Python always runs:
    most of it is a yardstick that a bar needs.
    """
    found: list[str] = []
    for system in wanted:
        package = PACKAGES[system]
        if system != "rdata" and package is not None:
            if peers is not None and system not in peers:
                continue
            if importlib.util.find_spec(package) is None:
                print(f"skipped {system}: not installed (pip install {package})", file=sys.stderr)
                continue
        found.append(system)
    return found


@contextmanager
def node(system: str, *, settles: bool = True) -> Iterator[Any]:
    """The module of rdata or Ray with a node of two workers up; shut down at the end.

    It is given time to settle, unless that would be measured.
    """
    api = importlib.import_module(system)
    api.init(num_cpus=NUM_WORKERS, **(RAY_OPTIONS if system == "ray" else {}))
    if settles:
        time.sleep(SETTLE_S)
    try:
        yield api
    finally:
        api.shutdown()


def warm_workers(api: Any, modules: Sequence[str] = ()) -> None:
    """Have both workers up, and ``modules`` imported in them, before anything is timed."""

    def prepare(names: Sequence[str]) -> int:
        for name in names:
            importlib.import_module(name)
        time.sleep(0.3)  # long enough that no worker serves both tasks
        return os.getpid()

    remote = api.remote(prepare)
    pids: set[int] = set()
    deadline = time.monotonic() + 60
    while len(pids) < NUM_WORKERS:
        if time.monotonic() > deadline:
            raise RuntimeError(f"after 60 s only {len(pids)} of {NUM_WORKERS} workers took a task")
        pids.update(api.get([remote.remote(modules) for _ in range(NUM_WORKERS)]))


def machine(systems: Sequence[str]) -> str:
    """One line that names processor, cores, memory, kernel, Python, and versions compared."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [
        model,
        f"{len(os.sched_getaffinity(0))} cores",
        f"{memory:.0f} GiB",
        f"Linux {platform.release()}",
        f"Python {platform.python_version()}",
    ]
    for package in dict.fromkeys(PACKAGES[system] for system in systems):
        if package is not None:
            try:
                parts.append(f"{package} {importlib.metadata.version(package)}")
            except importlib.metadata.PackageNotFoundError:
                parts.append(f"{package} (not installed: from the checkout)")
    return ", ".join(parts)
