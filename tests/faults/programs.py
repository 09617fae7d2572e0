"""How does a test run a program that uses rdata, and what has the program left behind?

Each program is a process of its own with a temp folder of its own. It and all that descends from
it carries a mark in the environment, whatever session, group or parent it has by then.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

import rdata

PROMISE_S = 2.0  # after so long nothing remains of a node that has ended
NOISE = 4.0  # how much slower a crowded machine may be
PROGRAM_S = 40.0  # reached only by a program that hangs
POLL_S = 0.01
MARK = "RDATA_TEST_PROGRAM"
# Every program can say things to its test, one line of JSON each, and wait to be ended.
_PRELUDE = """\
import faulthandler, json, os, signal, subprocess, sys, threading, time
from pathlib import Path
import rdata

faulthandler.register(signal.SIGUSR1)  # for Program.story

def report(**what):
    print(json.dumps(what), flush=True)

def parts():
    node = rdata.nodes()[0]
    return {**node["Processes"], "session": node["SessionDir"]}
"""


class Program:
    """One run of a Python program. Leaving the context ends it and all that it started."""

    def __init__(
        self,
        source: str = "",
        *,
        command: Sequence[str] = (),
        folder_name: str = "t",
        environment: dict[str, str] | None = None,
    ) -> None:
        """`source` runs after the prelude; or `command` are the interpreter's arguments.

        `folder_name` is the name of the temp folder that the program gets.
        """
        self.mark = f"{MARK}={uuid.uuid4().hex}"
        self.home = Path(tempfile.mkdtemp(prefix="p-"))  # short: a socket's path is bounded
        self.temp_folder = self.home / folder_name
        self.temp_folder.mkdir()
        (self.home / "program.py").write_text(_PRELUDE + textwrap.dedent(source))
        self._num_reports_read = 0
        self._tells_stacks = not command
        root = str(Path(rdata.__file__).parent.parent)
        inherited = {**os.environ, **(environment or {})}
        path = os.pathsep.join(filter(None, [root, inherited.get("PYTHONPATH")]))
        private = {MARK: self.mark.partition("=")[2], "TMPDIR": str(self.temp_folder)}
        with (self.home / "out").open("wb") as out, (self.home / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *(command or [str(self.home / "program.py")])],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self.home,
                env={**inherited, "PYTHONPATH": path, **private},
                start_new_session=True,  # a process group of its own, as a shell gives it
            )

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        until(self._has_killed_all, PROGRAM_S)
        shutil.rmtree(self.home)

    def _has_killed_all(self) -> bool:
        """Kill what there is; to be asked again, for what that had just started."""
        pids = self.processes()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    # ------------------------------------------------------------ what it says

    @property
    def out(self) -> str:
        """What it has written to stdout so far."""
        return (self.home / "out").read_text(errors="replace")

    @property
    def err(self) -> str:
        """What it has written to stderr so far."""
        return (self.home / "err").read_text(errors="replace")

    def report(self, within_s: float = PROGRAM_S) -> Any:
        """The next thing that it says, waiting for it."""
        wanted = self._num_reports_read + 1

        def reports() -> list[str]:
            return [line for line in self.out.splitlines(keepends=True) if line[:2] == '{"']

        def has_come() -> bool:
            found = reports()
            is_there = len(found) >= wanted and found[wanted - 1].endswith("\n")
            return is_there or self.process.poll() is not None

        is_settled = until(has_come, within_s)
        found = reports()
        if len(found) < wanted:
            what = f"exit code {self.process.poll()}" if is_settled else f"{within_s:g} s passed"
            raise AssertionError(f"no report came: {what}\n{self.story()}")
        self._num_reports_read = wanted
        return json.loads(found[wanted - 1])

    def wait(self) -> int:
        """Its exit code, as subprocess gives it."""
        try:
            return self.process.wait(PROGRAM_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the program does not end\n{self.story()}") from None

    def story(self) -> str:
        """What it has printed, where it hangs, and its node's log, for a failed assertion."""
        if self._tells_stacks and self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)
            until(lambda: "most recent call first" in self.err, 1.0)
        text = f"stdout:\n{self.out}\nstderr:\n{self.err}\n"
        for path in self.files():
            if path.name == "node.log":
                with contextlib.suppress(FileNotFoundError):  # its node ends just now
                    text += f"{path}:\n{path.read_text()}"
        return text

    def run(self) -> Program:
        """Wait for a good end that leaves nothing."""
        code = self.wait()
        if code != 0:
            raise AssertionError(f"exit code {code}\n{self.story()}")
        self.check_nothing_remains()
        return self

    # ------------------------------------------------------------ what it leaves

    def processes(self) -> list[int]:
        """Live processes that descend from it, itself excepted."""
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(OSError):  # ended, or not ours to read
                variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if pid != self.process.pid and self.mark.encode() in variables:
                    found.append(pid)
        return found

    def files(self) -> list[Path]:
        """What is in its temp folder."""
        found = []
        for folder, folders, names in os.walk(self.temp_folder):  # it bears what goes meanwhile
            found += [Path(folder, name) for name in (*folders, *names)]
        return found

    def remains(self, excused: Sequence[int] = ()) -> list[str]:
        """A line for each process, file or socket that is there."""
        sockets = Path("/proc/net/unix").read_text().splitlines()
        return [
            *(describe(pid) for pid in self.processes() if pid not in excused),
            *(f"file {path}" for path in self.files()),
            *(f"socket {line}" for line in sockets if str(self.temp_folder) in line),
        ]

    def check_nothing_remains(self, excused: Sequence[int] = ()) -> None:
        """Wait as long as the promise allows; fail with what is there then."""
        until(lambda: not self.remains(excused), PROMISE_S * NOISE)
        if left := self.remains(excused):
            raise AssertionError("\n".join(["these remain:", *left, self.story()]))


def describe(pid: int) -> str:
    """A process as a failed assertion shows it."""
    try:
        process = psutil.Process(pid)
        return f"process {pid} (of {process.ppid()}, {process.status()}): {process.cmdline()}"
    except psutil.NoSuchProcess:
        return f"process {pid}, which ended just now"


def until(holds: Callable[[], bool], within_s: float) -> bool:
    """Ask until the claim holds; False if it does not within that time."""
    give_up_at = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(POLL_S)
    return True
