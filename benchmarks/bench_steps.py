"""How much Python does a task cost the program that submits it? Counted, so noise has no part.

Of a trivial task, the bytecodes that all threads of the program run from its submission to its
result. To count makes the program far slower, and so the clock that it reads goes slower too: what
it sends is then grouped much as at full speed.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bench_tasks import trivial
from harness import Options, Sample, compare, main
from systems import NUM_WORKERS, node, present, warm_workers
from table import Bar, Row

SYSTEMS = ("rdata", "ppe")
SLOWER = 50  # goes the clock

counter = itertools.count()  # a step of C code: threads do not lose each other's counts


def measure(system: str, job: str, options: Options) -> dict[str, Sample]:
    threading.settrace(trace)  # for the threads that the system will start
    if system == "ppe":
        with ProcessPoolExecutor(NUM_WORKERS) as executor:
            return count(
                options,
                lambda value: executor.submit(trivial, value),
                lambda futures: [future.result() for future in futures],
            )
    with node(system) as api:
        warm_workers(api)
        return count(options, api.remote(trivial).remote, api.get)


def count(
    options: Options,
    submit: Callable[[int], Any],
    get: Callable[[Sequence[Any]], list[tuple[int, int]]],
) -> dict[str, Sample]:
    """Bytecodes a task, all submitted and then all got."""
    size = options.size(3_000, 300)
    get([submit(value) for value in range(size)])
    with slow_clock():
        sys.settrace(trace)
        started = next(counter)
        results = get([submit(value) for value in range(size)])
        steps = (next(counter) - started) / size
        sys.settrace(None)
    assert [value for value, _ in results] == list(range(1, size + 1))
    workers = len({pid for _, pid in results} - {os.getpid()})
    return {"steps": Sample(round(steps), workers=workers)}


def trace(frame: FrameType, event: str, _: Any) -> Any:
    """Count the bytecodes of each frame but this program's."""
    if frame.f_code.co_filename == __file__:
        return None
    frame.f_trace_opcodes, frame.f_trace_lines = True, False
    if event == "opcode":
        next(counter)
    return trace


@contextmanager
def slow_clock() -> Iterator[None]:
    """`time.monotonic` goes on from now so much slower."""
    monotonic = time.monotonic
    started = monotonic()
    time.monotonic = lambda: started + (monotonic() - started) / SLOWER
    try:
        yield
    finally:
        time.monotonic = monotonic


def rows(options: Options) -> list[Row]:
    result = compare(__file__, "steps", present(SYSTEMS, options.peers), options)
    fewer = Bar("fewer than ProcessPoolExecutor", 1, ("ppe",))
    return [
        Row(
            "bytecodes that a trivial task costs its submitter, submitted then all got",
            "",
            result.figures("steps"),
            (fewer,),
            result.faults("steps", 2),
        ),
    ]


if __name__ == "__main__":
    main(__doc__, rows, measure, SYSTEMS)
