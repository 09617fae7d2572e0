"""What do the tasks and actors do whose ends are tested?

A module of its own, so that workers import little: many of them are started here.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rdata


def happen(what: str) -> str:
    """Do in a worker what a cell of the table says."""
    if what == "exit 3":
        sys.stderr.write("last words\n")
        os._exit(3)
    if what == "sys.exit(4)":
        sys.exit(4)
    if what == "exit without stdout":
        sys.stdout.close()
        sys.exit(5)
    if what == "sys.exit":
        sys.exit("no more")
    if what == "raise SystemExit":
        raise SystemExit
    if what.startswith("SIG"):
        sys.stderr.write(f"before {what}\nand its end")
        os.kill(os.getpid(), signal.Signals[what])
        time.sleep(1000)
    if what.endswith("Error"):
        raise {"ValueError": ValueError, "KeyError": KeyError}[what]("as told")
    return what


def num_lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@rdata.remote
def attempt(plan: list[str], log: Path) -> str:
    with log.open("a") as file:
        file.write("attempt\n")
    return happen(plan[num_lines(log) - 1])


@rdata.remote(max_retries=0)
def step(index: int, crashes: frozenset[int]) -> int:
    if index in crashes:
        os._exit(3)
    return index


@rdata.remote
def items(plan: list[tuple[int, str]], log: Path, payload: int = 0) -> Iterator[Any]:
    """In each attempt, so many items, and then what the plan says."""
    with log.open("a") as file:
        file.write("attempt\n")
    num_items, what = plan[num_lines(log) - 1]
    for index in range(num_items):
        yield (index, bytes(payload)) if payload else index
    time.sleep(0.05)  # the items are on their way
    happen(what)


@rdata.remote
class Fragile:
    def __init__(self, what: str = "ok") -> None:
        happen(what)
        self.value = 0

    def add(self) -> int:
        self.value += 1
        return self.value

    def do(self, what: str) -> str:
        return happen(what)

    def pid(self) -> int:
        return os.getpid()

    def count(self, what: str) -> Iterator[int]:
        yield 1
        yield 2
        time.sleep(0.05)
        happen(what)

    def sleep(self) -> None:
        time.sleep(1000)


@rdata.remote
class Owner:
    def put(self, size: int) -> list[Any]:
        return [rdata.put(bytes(size))]

    def submit(self) -> list[Any]:
        return [rdata.remote(lambda: bytes(1_000_000)).remote()]

    def submit_slow(self) -> list[Any]:
        return [rdata.remote(lambda: time.sleep(1000)).remote()]

    def pid(self) -> int:
        return os.getpid()
