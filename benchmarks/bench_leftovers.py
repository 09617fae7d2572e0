"""What is left two seconds after a program ended, or a part of its node was killed?

50 ends in turns: exit, exception, os._exit, SIGINT, SIGTERM, SIGKILL (once more with a forked
child that lives on), and SIGKILL of a worker, of the agent, of a zygote, after which the program
must come to its own end. Counted: processes, files and folders under the temp and the runtime
folder (sessions, sockets), new names in /dev/shm, Unix sockets. Bar: 0.

The program's temp folder is one of our own and we adopt its orphans, so nothing that it leaves
is out of sight, and nothing that others do on the machine is counted.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from harness import Options, main
from processes import clear_descendants, descendants, describe, reap_orphans
from systems import ENVIRONMENT
from table import Bar, Row

NUM_ENDS = 50
GRACE_S = 2.0  # the promise: after this long nothing remains
EXIT_S = 10.0  # from the signal, or from the last word of the program, to its end
PROGRAM_S = 60.0  # a program that runs for as long has hung

SIGNALS = {
    "SIGINT": signal.SIGINT,
    "SIGTERM": signal.SIGTERM,
    "SIGKILL": signal.SIGKILL,
    "SIGKILL, a forked child lives on": signal.SIGKILL,
}
KINDS = (
    *("exit", "exception", "os._exit"),
    *SIGNALS,
    *("worker killed", "agent killed", "zygote killed"),
)
OUTCOMES = {  # of the `get` for which the program waits when a part of its node is killed
    "worker killed": ("3 results",),  # tasks are retried
    "agent killed": ("NodeDiedError",),
    "zygote killed": ("3 results", "NodeDiedError"),
}


@dataclass
class End:
    """What one end left, and how long the rest took to go."""

    kind: str
    remains: list[str] = field(default_factory=list)
    gone_after_s: float = 0.0
    outcome: str = ""
    fault: str = ""


def run_end(kind: str) -> End:
    """Start the program, end it as ``kind`` says, and look at what remains."""
    with tempfile.TemporaryDirectory(prefix="b-") as folder:  # short: socket paths have a limit
        shared = shared_names()
        with Path(folder, "errors").open("w") as errors:
            driver = start_driver(kind, folder, errors)
        watchdog = threading.Timer(PROGRAM_S, driver.kill)  # ends the reading of its reports too
        watchdog.start()
        try:
            return watch_end(kind, driver, Path(folder), shared)
        finally:
            watchdog.cancel()
            if driver.poll() is None:
                driver.kill()
                driver.wait()
            if driver.stdout is not None:
                driver.stdout.close()
            clear_descendants(0.0)


def start_driver(kind: str, folder: str, errors: Any) -> subprocess.Popen[str]:
    here = Path(__file__).resolve().parent
    temp = Path(folder, "t")
    temp.mkdir()
    path = os.pathsep.join(filter(None, [str(here.parent), os.environ.get("PYTHONPATH")]))
    private = {"TMPDIR": str(temp), "XDG_RUNTIME_DIR": str(temp), "PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, str(here / "leftovers_driver.py"), kind],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,  # a process group of its own, as a shell gives it
        env={**os.environ, **ENVIRONMENT, **private},
    )


def watch_end(kind: str, driver: subprocess.Popen[str], folder: Path, shared: set[str]) -> End:
    end = End(kind)
    report = read_report(driver, "workers")
    if report is None:
        driver.wait(PROGRAM_S)
        last = (folder / "errors").read_text().strip().splitlines()[-1:]
        end.fault = f"{kind}: the program did not come up: {' '.join(last)[:300]}"
        return end
    if kind == "SIGINT":
        os.killpg(driver.pid, signal.SIGINT)  # as Ctrl-C does
    elif kind in SIGNALS:
        driver.send_signal(SIGNALS[kind])
    elif kind.endswith("killed"):
        parts = find_parts(driver.pid, report["workers"])
        if len(parts) < 3:
            end.fault = f"{kind}: driver > agent > zygote > worker expected, found {parts}"
            return end
        os.kill(parts[kind.removesuffix(" killed")], signal.SIGKILL)
        told = read_report(driver, "outcome")
        end.outcome = str(told["outcome"]) if told else "no outcome"
        if end.outcome not in OUTCOMES[kind]:
            end.fault = f"{kind}: the program's `get` gave {end.outcome}, not {OUTCOMES[kind]}"
            return end
    started = time.monotonic()
    driver.wait()
    if time.monotonic() - started > EXIT_S:
        end.fault = f"{kind}: the program took longer than {EXIT_S:.0f} s to end"
        return end
    ended = time.monotonic()
    while True:
        end.remains = find_remains(folder / "t", shared, {report["child"]})
        end.gone_after_s = time.monotonic() - ended
        if not end.remains or end.gone_after_s > GRACE_S:
            return end
        time.sleep(0.02)


def shared_names() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


def read_report(driver: subprocess.Popen[str], key: str) -> dict[str, Any] | None:
    """The program's line of JSON that has ``key``; None when it ends without one."""
    assert driver.stdout is not None
    for line in driver.stdout:
        if line.startswith("{"):
            report: dict[str, Any] = json.loads(line)
            if key in report:
                return report
    return None


def find_parts(driver: int, workers: list[int]) -> dict[str, int]:
    """The pids of a worker, of the zygote that forked it and of the agent, as far as found."""
    line = [parent.pid for parent in psutil.Process(workers[0]).parents()]
    above = line[: line.index(driver)]  # from the worker's parent up to the driver's child
    found = {"worker": workers[0], "agent": above[-1]}
    return {**found, "zygote": above[0]} if len(above) > 1 else found


def find_remains(folder: Path, shared: set[str], excused: set[int]) -> list[str]:
    """Everything of the ended program that is still there, as texts."""
    reap_orphans()
    processes = [process for process in descendants() if process.pid not in excused]
    sockets = Path("/proc/net/unix").read_text().splitlines()
    return [
        *(f"process {describe(process)}" for process in processes),
        *(f"file {path.relative_to(folder)}" for path in folder.rglob("*")),
        *(f"/dev/shm/{name}" for name in shared_names() - shared if "rdata" in name),
        *(f"socket {line.split()[-1]}" for line in sockets if str(folder) in line),
    ]


def rows(options: Options) -> list[Row]:
    ends: list[End] = []
    for index in range(options.size(NUM_ENDS, len(KINDS))):
        end = run_end(KINDS[index % len(KINDS)])
        ends.append(end)
        state = end.fault or f"{len(end.remains)} left after {end.gone_after_s:.2f} s"
        print(f"{end.kind}: {state} {end.outcome}", file=sys.stderr, flush=True)
    faults = [end.fault for end in ends if end.fault]
    faults += [f"{end.kind}: {'; '.join(end.remains)[:300]}" for end in ends if end.remains]
    good = [end for end in ends if not end.fault]
    remains = {"rdata": [float(sum(len(end.remains) for end in good))]} if good else {}
    slowest = {"rdata": [max(end.gone_after_s for end in good)]} if good else {}
    what = f"leftovers {GRACE_S:g} s after {len(ends)} abrupt ends of {len(KINDS)} kinds"
    return [
        Row(what, "", remains, (Bar("0", 0.0),), tuple(faults)),
        Row("the longest until all was gone", "s", slowest, (Bar(f"≤ {GRACE_S:g} s", GRACE_S),)),
    ]


if __name__ == "__main__":
    main(__doc__, rows, None, ("rdata",))
