"""Which processes run because of this one, and what do they take of the machine?

Linux only: everything here is read from ``/proc``.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36
SHARED_FILE_SIGNS = ("/memfd:", "/dev/shm/")  # what shared memory looks like in /proc/PID/fd
BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system
BUSY_SHARE = 0.25  # a process did the work when it computed for this part of the job's time


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own, so that none is out of sight."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def reap_orphans() -> None:
    """Collect adopted children that have ended; call it only when no own child is awaited."""
    for child in psutil.Process().children():
        if is_ended(child):
            try:
                os.waitpid(child.pid, os.WNOHANG)
            except ChildProcessError:
                continue  # it was reaped by whoever started it


def is_ended(process: psutil.Process) -> bool:
    """True for a zombie, which holds nothing any more, and for a process that is gone."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def descendants(pid: int | None = None) -> list[psutil.Process]:
    """Every living process below ``pid`` (default: this one), zombies left out."""
    below = psutil.Process(pid).children(recursive=True)
    return [process for process in below if not is_ended(process)]


def clear_descendants(within_s: float) -> list[str]:
    """Wait until nothing runs below this process; kill and name what is left after ``within_s``."""
    deadline = time.monotonic() + within_s
    while True:
        reap_orphans()
        left = descendants()
        if not left:
            return []
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    names = [describe(process) for process in left]
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=5)
    reap_orphans()
    return names


def describe(process: psutil.Process) -> str:
    """The pid and the start of the command line, for a message."""
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:80] or process.name()}"
    except psutil.NoSuchProcess:
        return f"{process.pid} (gone)"


# --- who did the work -----------------------------------------------------------------------


class Work:
    """What `watch_work` saw: ``seconds`` of the block, and ``workers`` that computed in it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.workers = 0


@contextmanager
def watch_work() -> Iterator[Work]:
    """Time a block and count the other processes that were busy for a quarter of it or more."""
    work = Work()
    before = cpu_seconds()
    started = time.perf_counter()
    yield work
    work.seconds = time.perf_counter() - started
    used = {pid: spent - before.get(pid, 0.0) for pid, spent in cpu_seconds().items()}
    work.workers = sum(spent >= BUSY_SHARE * work.seconds for spent in used.values())


def cpu_seconds() -> dict[int, float]:
    """Processor time that each descendant has used so far, by pid."""
    spent: dict[int, float] = {}
    for process in descendants():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        spent[process.pid] = times.user + times.system
    return spent


# --- memory ---------------------------------------------------------------------------------


def memory_fields(pid: int | str) -> dict[str, int]:
    """``smaps_rollup`` of a process (``"self"`` too): field name → bytes; empty once it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    lines = (line.split() for line in text.splitlines()[1:])
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}


def node_memory() -> int:
    """Bytes held by everything below this process, shared memory that nobody maps included.

    The proportional set size (PSS) of each descendant. Shared memory is counted apart, and
    whole, because PSS gives a part of it to this process and misses segments that are open
    but not mapped: the pages that every memfd or /dev/shm file open here or below really has.
    """
    processes = descendants()
    fields = [memory_fields(process.pid) for process in processes]
    private = sum(field.get("Pss", 0) - field.get("Pss_Shmem", 0) for field in fields)
    mapped = sum(field.get("Pss_Shmem", 0) for field in fields)
    opened = shared_file_bytes([os.getpid(), *(process.pid for process in processes)])
    return private + max(mapped, opened)


def shared_file_bytes(pids: list[int]) -> int:
    """Bytes of pages in all memfds and /dev/shm files that these processes hold open, each once."""
    sizes: dict[tuple[int, int], int] = {}
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                if str(descriptor.readlink()).startswith(SHARED_FILE_SIGNS):
                    status = descriptor.stat()
                    sizes[status.st_dev, status.st_ino] = status.st_blocks * BLOCK_BYTES
            except OSError:
                continue  # closed since it was listed
    return sum(sizes.values())
