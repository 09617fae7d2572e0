"""What did a test leave behind?

A pytest plugin. Before each test and each module it notes which processes, threads, descriptors,
mapped segments and files there are; afterwards it waits until none is left that came since, and
fails the test if some stay. A test that has failed already is not blamed twice, but processes that
it left are ended all the same.

While a runtime is up that a module's fixture started (`node`), the test's own check is put off to
the end of the module: the runtime's processes, threads and segments belong to it.

A run marks its processes with an environment variable, which children inherit whatever their
session or parent is, and has a temp folder of its own, so that runs beside it do not disturb it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

RUN_VARIABLE = "RDATA_TEST_RUN"  # ids of the runs a process belongs to: pytest may run in a test
FOREIGN_VARIABLES = ("RDATA_ADDRESS", "RDATA_TEMP_DIR", "RDATA_TOKEN")  # lead to other nodes
POLL_S = 0.02

# Each of these stays for the life of a process once something has started it.
LASTING_THREADS = (
    "fsspecIO",  # the event loop of fsspec's remote file systems
    "pytest_timeout",  # watches this very test
)
LASTING_PROCESSES = (
    "multiprocessing.resource_tracker",  # the standard library starts one, and ends it at exit
)
LASTING_DESCRIPTORS = (
    "/dev/urandom",  # kept open by the C library of some extension modules
)


@dataclass(frozen=True)
class Holdings:
    """What this process and its descendants hold at one moment, as readable names."""

    processes: frozenset[tuple[int, float]]  # pid and start time: pids come round again
    threads: frozenset[threading.Thread]
    descriptors: frozenset[tuple[int, str]]
    segments: frozenset[str]
    files: frozenset[Path]

    def beyond(self, before: Holdings) -> list[str]:
        """One line for each thing that is here and was not there before."""
        return [
            *(_describe_process(pid) for pid, _ in self.processes - before.processes),
            *(f"thread {thread.name!r}" for thread in self.threads - before.threads),
            *(f"descriptor {fd} -> {to}" for fd, to in self.descriptors - before.descriptors),
            *(f"mapping of {segment}" for segment in self.segments - before.segments),
            *(f"file {path}" for path in self.files - before.files),
        ]


def is_runtime_up() -> bool:
    """Tell whether this process has a runtime, without importing the core to ask."""
    runtime = sys.modules.get("rdata.core.runtime")
    return runtime is not None and runtime.current() is not None


def _processes(run_id: str) -> frozenset[tuple[int, float]]:
    """Live descendants of this process, and all that ever descended from this run."""
    me = psutil.Process()
    found = set(me.children(recursive=True))
    mark = run_id.encode()
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.NoSuchProcess):  # ended, or not ours to read
            if pid != me.pid and mark in Path(f"/proc/{pid}/environ").read_bytes():
                found.add(psutil.Process(pid))
    lasting = set()
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            command = " ".join(process.cmdline())
            if any(name in command for name in LASTING_PROCESSES):
                lasting.add(process)
    return frozenset((process.pid, process.create_time()) for process in found - lasting)


def _describe_process(pid: int) -> str:
    try:
        return f"process {pid}: {' '.join(psutil.Process(pid).cmdline())[:200]}"
    except psutil.ZombieProcess:
        return f"process {pid}, which ended and was never waited for"
    except psutil.NoSuchProcess:
        return f"process {pid}, which ended just now"


def _threads() -> frozenset[threading.Thread]:
    return frozenset(
        thread for thread in threading.enumerate() if not thread.name.startswith(LASTING_THREADS)
    )


def _descriptors() -> frozenset[tuple[int, str]]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that listed the folder
            target = str(entry.readlink())
            if target not in LASTING_DESCRIPTORS:
                found.add((int(entry.name), target))
    return frozenset(found)


def _mapped_segments() -> frozenset[str]:
    """Shared memory that this process has mapped, by name and inode."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return frozenset(
        f"{fields[5]}, inode {fields[4]}"
        for fields in (line.split(maxsplit=5) for line in lines)
        if len(fields) == 6 and fields[5].startswith(("/memfd:", "/dev/shm/"))
    )


def _sweep(folder: Path) -> None:
    """Remove the temp folders of runs that a timeout or a signal ended in mid-air."""
    for stale in folder.glob("rt-*-*"):
        pid = stale.name.split("-")[1]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(stale, ignore_errors=True)


@dataclass
class Run:
    """One pytest run: the mark on its processes and the temp folder that it gives its tests."""

    run_id: str
    temp_folder: Path
    deadline_s: float
    replaced: dict[str, str | None]

    @classmethod
    def start(cls, deadline_s: float) -> Run:
        """Point this process, and all that it will start, to a mark and a temp folder."""
        run_id = uuid.uuid4().hex
        lasting_folder = tempfile.gettempdir()
        _sweep(Path(lasting_folder))
        # A short name: the path of a Unix socket has at most 107 bytes.
        temp_folder = Path(tempfile.mkdtemp(prefix=f"rt-{os.getpid()}-"))
        changed = {
            RUN_VARIABLE: f"{os.environ.get(RUN_VARIABLE, '')} {run_id}".strip(),
            "TMPDIR": str(temp_folder),
            # pytest's own folder (tmp_path) outlives the run, so that people can look into it.
            "PYTEST_DEBUG_TEMPROOT": os.environ.get("PYTEST_DEBUG_TEMPROOT", lasting_folder),
        }
        replaced = {name: os.environ.get(name) for name in (*changed, *FOREIGN_VARIABLES)}
        os.environ.update(changed)
        for name in FOREIGN_VARIABLES:
            os.environ.pop(name, None)
        tempfile.tempdir = None  # the module keeps what it found first
        return cls(run_id, temp_folder, deadline_s, replaced)

    def end(self) -> None:
        """Undo `start`."""
        for name, value in self.replaced.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        tempfile.tempdir = None
        shutil.rmtree(self.temp_folder, ignore_errors=True)

    def holdings(self) -> Holdings:
        """Look at /proc, the threads, the temp folder and /dev/shm; takes a few milliseconds."""
        return Holdings(
            processes=_processes(self.run_id),
            threads=_threads(),
            descriptors=_descriptors(),
            segments=_mapped_segments(),
            files=frozenset([*self.temp_folder.iterdir(), *Path("/dev/shm").glob("*rdata*")]),
        )

    def leaks_since(self, before: Holdings) -> list[str]:
        """What is still there of what came since `before`, after waiting for it to go."""
        give_up_at = time.monotonic() + self.deadline_s
        while leaks := self.holdings().beyond(before):
            if time.monotonic() > give_up_at:
                break
            gc.collect()  # what only a cycle of references holds has not been leaked
            time.sleep(POLL_S)
        return sorted(leaks)

    def end_processes(self, before: Holdings) -> None:
        """Kill what was started since `before`, so that no later test meets it."""
        for pid, started in _processes(self.run_id) - before.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if process.create_time() == started:
                    process.kill()

    def check(self, request: pytest.FixtureRequest, may_stay_up: bool) -> Iterator[None]:
        """The two halves of a fixture: note what there is; fail for what has been left."""
        failed_before = request.session.testsfailed
        before = self.holdings()
        yield
        if is_runtime_up():
            if may_stay_up:
                return
            sys.modules["rdata"].shutdown()
            leaks = ["a runtime, which nothing shut down"]
        elif request.session.testsfailed > failed_before:
            leaks = []  # its traceback keeps things alive, and one failure is enough
        else:
            leaks = self.leaks_since(before)
        self.end_processes(before)
        if leaks:
            what = "\n  ".join(leaks)
            pytest.fail(f"{request.node.name} left behind:\n  {what}", pytrace=False)


_RUN = pytest.StashKey[Run]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The wait is an option, so that the tests of this plugin need not wait for it."""
    parser.addoption(
        "--leak-deadline", type=float, default=3.0, help="seconds that a test's leftovers may take"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin before any fixture or test module asks for a temp folder."""
    config.stash[_RUN] = Run.start(config.getoption("--leak-deadline"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave this process as it was found."""
    config.stash[_RUN].end()


@pytest.fixture(scope="module", autouse=True)
def _leave_nothing_behind_in_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set up before, and so checked after, every other fixture of the module."""
    yield from request.config.stash[_RUN].check(request, may_stay_up=False)


@pytest.fixture(autouse=True)
def _leave_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set up before, and so checked after, every other fixture of the test."""
    # A runtime that is up by now belongs to a fixture of the module, which ends it.
    yield from request.config.stash[_RUN].check(request, may_stay_up=is_runtime_up())
