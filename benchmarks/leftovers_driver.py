"""What does a program look like that is ended in the middle of its work?

`bench_leftovers` runs it: ``python leftovers_driver.py KIND``. With two workers, an actor, an
array in the store, prints and unfinished tasks, it writes one line of JSON about its processes,
then ends as KIND says, or works on until something is killed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np

import rdata

TASK_S = {"agent killed": 60.0}  # a task that nobody will finish, unless the node's end ends it
BRIEF_S = 1.0


@rdata.remote
def whoami() -> int:
    time.sleep(0.2)
    return os.getpid()


@rdata.remote
def work(seconds: float, payload: Any) -> int:
    print("working", flush=True)
    time.sleep(seconds)
    return int(payload.nbytes)


class Counter:
    """An actor that lives on when the program ends."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, step: int) -> int:
        self.count += step
        return self.count


def main(kind: str) -> None:
    rdata.init(num_cpus=2)
    workers = sorted(set(rdata.get([whoami.remote() for _ in range(4)])))
    payload = rdata.put(np.ones(4_000_000))
    counter = rdata.remote(Counter).remote()
    assert rdata.get(counter.add.remote(1)) == 1
    child = 0
    if kind == "SIGKILL, a forked child lives on":
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    seconds = TASK_S.get(kind, BRIEF_S if kind.endswith("killed") else 60.0)
    pending = [work.remote(seconds, payload) for _ in range(3)]
    print(json.dumps({"workers": workers, "child": child}), flush=True)
    if kind == "exit":
        return
    if kind == "exception":
        raise RuntimeError("the program fails")
    if kind == "os._exit":
        os._exit(3)
    try:
        outcome = f"{len(rdata.get(pending, timeout=40))} results"
    except Exception as error:  # which one depends on what was killed; the benchmark shows it
        outcome = type(error).__name__
    print(json.dumps({"outcome": outcome}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
