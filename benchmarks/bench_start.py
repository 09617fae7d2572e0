"""How long does a whole program take that does one task: import, init, task, get, exit?

Bar: at most 1/8 of Ray. Run it: ``python benchmarks/bench_start.py [--quick] [--peers ray]``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from harness import Comparison, Options, Run, main, rounds_for, run_process
from systems import NUM_WORKERS, RAY_OPTIONS, present
from table import Bar, Row

SYSTEMS = ("rdata", "ray")
AIM_S = 0.6

PROGRAM = """
import {module} as api
api.init(num_cpus={workers}, **{options})

@api.remote
def add_one(value):
    return value + 1

assert api.get(add_one.remote(41)) == 42
"""


def rows(options: Options) -> list[Row]:
    systems = present(SYSTEMS, options.peers)
    runs: dict[str, list[Run]] = {system: [] for system in systems}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for turn in range(options.rounds):
            for system in systems if turn % 2 == 0 else reversed(systems):
                past = runs[system]
                if past and turn >= rounds_for(past[0].process_s, options.rounds):
                    continue
                program = Path(folder, f"one_task_{system}.py")
                program.write_text(
                    PROGRAM.format(
                        module=system,
                        workers=NUM_WORKERS,
                        options=RAY_OPTIONS if system == "ray" else {},
                    )
                )
                past.append(run_process([sys.executable, str(program)], Path(folder, "output")))
    result = Comparison(runs)
    bars = (Bar("≤ 1/8 of Ray", 1 / 8, ("ray",)), Bar(f"aim {AIM_S} s", AIM_S))
    what = "whole process: import, init, one task, get, exit"
    return [Row(what, "s", result.process_s(), bars, result.faults())]


if __name__ == "__main__":
    main(__doc__, rows, None, SYSTEMS)
