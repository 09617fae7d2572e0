"""How is one system after the other measured, in turns, each in a process of its own?

A benchmark is a program with two functions, given to `main`:

    measure(system, job, options) -> {metric: Sample}    runs in a fresh process per system
    rows(options) -> [Row]                               calls `compare`, names the bars

    compare ── round 1: rdata, ray, ppe ── round 2: ray, ppe, rdata ── …
                         │
                         └─ python bench_….py --cell {"system": …, "job": …}  → samples as JSON

The order turns with each round, so that no system always comes after the same one. Between
two runs everything that the last one started is gone, and the disk is written.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import adopt_orphans, clear_descendants
from systems import ENVIRONMENT, machine
from table import Row, markdown

ROUNDS = 5
MINUTE_S = 60.0
CELL_TIMEOUT_S = 600.0  # a run that takes longer has hung
SETTLE_S = 15.0  # Ray takes some seconds to end its processes after its driver
CLOSE_ENOUGH = 1e-9  # relative: sums of floats differ by the order of addition


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    quick: bool = False
    peers: tuple[str, ...] | None = None
    data: str = ""
    rounds: int = ROUNDS

    def size(self, full: int, quick: int) -> int:
        """``full``, or ``quick`` with ``--quick``."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Sample:
    """One measured figure, the answer to compare, and how many worker processes did the work."""

    value: float
    answer: Any = None
    workers: int | None = None


@dataclass
class Run:
    """One process of one system: its samples by metric, its own duration, or its fault."""

    samples: dict[str, Sample] = field(default_factory=dict)
    process_s: float = 0.0
    fault: str = ""


Measure = Callable[[str, str, Options], dict[str, Sample]]


@dataclass(frozen=True)
class Comparison:
    """All runs of one job, by system, in the order of the rounds."""

    runs: dict[str, list[Run]]

    def figures(self, metric: str) -> dict[str, list[float]]:
        """The values of one metric by system; none where that system failed or lacks it."""
        found: dict[str, list[float]] = {}
        for system, runs in self.runs.items():
            values = [run.samples[metric].value for run in runs if metric in run.samples]
            if values or any(run.fault for run in runs):
                found[system] = values
        return found

    def process_s(self) -> dict[str, list[float]]:
        """The time of the whole process by system."""
        return {
            system: [run.process_s for run in runs if not run.fault]
            for system, runs in self.runs.items()
        }

    def faults(self, metric: str | None = None, min_workers: int = 0) -> tuple[str, ...]:
        """What is wrong with the runs: failures, answers that differ, too few rdata workers."""
        found = [
            f"{system}: {run.fault}"
            for system, runs in self.runs.items()
            for run in runs
            if run.fault
        ]
        if metric is None:
            return tuple(found)
        samples = [
            (system, run.samples[metric])
            for system, runs in self.runs.items()
            for run in runs
            if metric in run.samples
        ]
        for system, sample in samples[1:]:
            if not is_same(sample.answer, samples[0][1].answer):
                first, answer = samples[0][0], samples[0][1].answer
                found.append(f"{system} answers {sample.answer!r:.300}, {first} {answer!r:.300}")
                break
        for system, sample in samples:
            if system == "rdata" and (sample.workers or 0) < min_workers:
                found.append(f"rdata: {sample.workers} worker processes did the work")
                break
        return tuple(found)


def is_same(one: Any, other: Any) -> bool:
    """Equality of two JSON values in which floats may differ by the order of their addition."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, float) or isinstance(other, float):
        return math.isclose(one, other, rel_tol=CLOSE_ENOUGH)
    return bool(one == other)


def compare(
    program: str,
    job: str,
    systems: Sequence[str],
    options: Options,
    after: Callable[[Run], None] | None = None,
) -> Comparison:
    """Run ``job`` of ``program`` for every system in turns; five rounds where that is quick.

    A system takes part five times; three times if five would take it over a minute; once if
    one run takes over half a minute. ``after`` sees each run that did not fail, out of the
    measured time: there to check what it wrote.
    """
    runs: dict[str, list[Run]] = {system: [] for system in systems}
    for turn in range(options.rounds):
        shift = turn % max(len(systems), 1)
        for system in [*systems[shift:], *systems[:shift]]:
            past = runs[system]
            if past and (past[0].fault or turn >= rounds_for(past[0].process_s, options.rounds)):
                continue
            run = run_cell(program, system, job, options)
            if after is not None and not run.fault:
                after(run)
            past.append(run)
            state = run.fault or "ok"
            print(
                f"{Path(program).stem} {job} · {system} · round {turn + 1}:"
                f" {run.process_s:.1f} s, {state.splitlines()[-1]}",
                file=sys.stderr,
                flush=True,
            )
    return Comparison(runs)


def rounds_for(cost_s: float, wanted: int) -> int:
    """How often a system runs whose first run took ``cost_s``."""
    if wanted * cost_s <= MINUTE_S:
        return wanted
    return min(wanted, 3) if cost_s <= MINUTE_S / 2 else 1


def run_cell(program: str, system: str, job: str, options: Options) -> Run:
    """Run ``measure`` of ``program`` in a fresh process; ends whatever that leaves behind."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        answer_file = Path(folder, "samples.json")
        cell = {"system": system, "job": job, "answer_file": str(answer_file)}
        command = [sys.executable, program, "--cell", json.dumps(cell), *arguments(options)]
        run = run_process(command, Path(folder, "output.txt"))
        if not run.fault:
            samples = json.loads(answer_file.read_text())
            run.samples = {metric: Sample(**sample) for metric, sample in samples.items()}
    return run


def run_process(command: Sequence[str], output_file: Path) -> Run:
    """Time a whole process from start to exit, with the machine quiet before and after it."""
    root = str(Path(__file__).resolve().parent.parent)  # measures this checkout
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with output_file.open("w") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
        )
        try:
            code: int | None = process.wait(CELL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = None
            process.kill()
            process.wait()
        run = Run(process_s=time.perf_counter() - started)
    left = clear_descendants(SETTLE_S)
    if left:
        print(f"had to end {len(left)} processes left over: {left}", file=sys.stderr)
    os.sync()
    if code != 0:
        reason = f"no end after {CELL_TIMEOUT_S:.0f} s" if code is None else f"exit code {code}"
        last = output_file.read_text(errors="replace").strip().splitlines()[-1:]
        run.fault = f"{reason}: {' '.join(last)[:400]}"
    return run


def arguments(options: Options) -> list[str]:
    """The command line that gives ``options`` again."""
    given = ["--data", options.data, "--rounds", str(options.rounds)]
    if options.quick:
        given.append("--quick")
    if options.peers is not None:
        given += ["--peers", ",".join(options.peers)]
    return given


def read_options(description: str | None, argv: Sequence[str] | None = None) -> tuple[Options, Any]:
    """The options of the command line, and the other arguments that only harnesses pass."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--peers", help="only these, separated by commas (default: all)")
    parser.add_argument("--data", help="folder for generated files (default: in the temp folder)")
    parser.add_argument("--rounds", type=int, help=f"runs of each system (default: {ROUNDS})")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    parser.add_argument("--rows-file", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    data = given.data or str(Path(tempfile.gettempdir(), "rdata-benchmarks"))
    peers = None if given.peers is None else tuple(filter(None, given.peers.split(",")))
    rounds = given.rounds or (1 if given.quick else ROUNDS)
    return Options(given.quick, peers, data, rounds), given


def main(
    description: str | None,
    rows: Callable[[Options], list[Row]],
    measure: Measure | None,
    systems: Sequence[str],
) -> None:
    """The program of a benchmark: measure one cell if told so, else print the table."""
    options, given = read_options(description)
    if given.cell is not None and measure is not None:
        cell = json.loads(given.cell)
        samples = measure(cell["system"], cell["job"], options)
        text = json.dumps({metric: dataclasses.asdict(one) for metric, one in samples.items()})
        Path(cell["answer_file"]).write_text(text)
        return
    adopt_orphans()
    table = rows(options)
    if given.rows_file:
        text = json.dumps([dataclasses.asdict(row) for row in table])
        Path(given.rows_file).write_text(text)
    print(machine(systems), "- quick sizes: the verdicts do not count\n" if options.quick else "\n")
    print(markdown(table))
    sys.exit(1 if any(row.faults for row in table) else 0)
