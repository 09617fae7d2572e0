"""How much memory does an idle node with two workers hold, beyond the driver?

Bar: at most 1/3 of Ray. Counted: the proportional set size of every process below the driver,
and every page of shared memory that any of them holds open, mapped or not.
"""

from __future__ import annotations

import importlib
import time

from harness import Options, Sample, compare, main
from processes import node_memory
from systems import node, present, warm_workers
from table import Bar, Row

SYSTEMS = ("rdata", "ray")
SETTLE_S = 5.0  # preloading and Ray's late starters have ended by then


def measure(system: str, job: str, options: Options) -> dict[str, Sample]:
    settle_s = options.size(int(SETTLE_S), 2)
    with node(system) as api:
        warm_workers(api)
        time.sleep(settle_s)
        idle = node_memory()
        api.get(api.put(importlib.import_module("numpy").ones(12_500_000)))  # 100 MB, freed at once
        time.sleep(settle_s)
        return {"idle": Sample(idle), "after a put": Sample(node_memory())}


def rows(options: Options) -> list[Row]:
    result = compare(__file__, "memory", present(SYSTEMS, options.peers), options)
    third = Bar("≤ 1/3 of Ray", 1 / 3, ("ray",))
    texts = {
        "idle": "idle node with two workers, memory beyond the driver",
        "after a put": "the same after 100 MB put and freed, idle segments included",
    }
    return [
        Row(what, "MB", result.figures(metric), (third,), result.faults(metric))
        for metric, what in texts.items()
    ]


if __name__ == "__main__":
    main(__doc__, rows, measure, SYSTEMS)
