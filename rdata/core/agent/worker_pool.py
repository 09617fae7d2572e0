"""How do worker processes come and go on this node, and what have they printed?

The agent's side of the zygotes: it asks the preloaded zygote, or the bare one until that is ready,
for a process; gives it a control connection; reads what it prints; and learns how it ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, field

from rdata.core import interpreter, zygote
from rdata.core.agent.log_stream import LogStream
from rdata.core.wire.connection import Connection
from rdata.core.wire.loop import Loop
from rdata.core.zygote import Exited, Fork, Forked, Preload, Ready, Refused

_STDERR_LINES_KEPT = 20  # for the message of a crash
_STDERR_LINE_KEPT = 2_000  # characters of each of these, its last
_MAX_ZYGOTE_ENDS = 5  # a bare zygote that keeps dying ends the node rather than loop
_MAX_PRELOAD_ENDS = 3  # one that cannot import its modules is done without: forks are slower then


class WorkerSetup(Struct, frozen=True):
    """What the workers of a job are forked with."""

    import_path: list[bytes]
    directory: bytes
    environment: dict[bytes, bytes]


class WorkerProcess(Struct):
    """One worker, from the request for it until it has ended and all that it printed is read."""

    id: bytes
    job: bytes
    control: socket.socket  # the agent's end
    zygote: Connection  # that it was asked of
    pid: int = 0
    kill_reason: str = ""
    stderr_tail: deque[str] = field(default_factory=lambda: deque(maxlen=_STDERR_LINES_KEPT))
    streams: list[LogStream] = field(default_factory=list)
    exit: Exited | None = None


class WorkerPool:
    """All workers of the node. Lives on the agent's loop; callbacks run there."""

    def __init__(
        self,
        loop: Loop,
        first_zygote: tuple[socket.socket, int],
        session_folder: Path,
        on_started: Callable[[WorkerProcess], None],
        on_exited: Callable[[WorkerProcess, str], None],
        on_refused: Callable[[WorkerProcess, str], None],
        on_lines: Callable[[WorkerProcess, bool, list[str]], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self.workers: dict[bytes, WorkerProcess] = {}
        self._loop = loop
        self._folder = session_folder
        self._on_started = on_started
        self._on_exited = on_exited
        self._on_refused = on_refused
        self._on_lines = on_lines
        self._on_failure = on_failure
        self._by_pid: dict[int, WorkerProcess] = {}
        self._num_bare_ends = 0
        self._num_preload_ends = 0
        self._is_closed = False
        self._when_preloaded: list[Callable[[], None]] = []
        self._bare, self._bare_pid = self._connect(first_zygote[0]), first_zygote[1]
        self._preloaded = self._start_preload()

    def start(self, worker_id: bytes, job: bytes, setup: WorkerSetup) -> None:
        """Ask for a worker; `on_started` or `on_refused` follows.

        Raises OSError if this process may open no more files.
        """
        mine, theirs, read_out, out, read_err, err = _open_channels()
        asked = self._preloaded if self.is_preloaded else self._bare
        worker = WorkerProcess(worker_id, job, socket.socket(fileno=mine), asked)
        self.workers[worker_id] = worker
        self._follow(worker, read_out, is_stderr=False)
        self._follow(worker, read_err, is_stderr=True)
        request = Fork(worker_id, setup.import_path, setup.directory, setup.environment)
        # If the zygote has ended, that is seen, and the worker lost with it.
        asked.send(request, [theirs, out, err])

    def kill(self, worker_id: bytes, reason: str) -> None:
        """End the worker; `on_exited` follows, with this reason."""
        worker = self.workers.get(worker_id)
        if worker is None or worker.exit is not None:
            return
        worker.kill_reason = worker.kill_reason or reason
        if worker.pid:  # else once the zygote has told it
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    def when_preloaded(self, then: Callable[[], None]) -> None:
        """Call `then` once workers are forked preloaded (`is_preloaded`), or never will be."""
        self._when_preloaded.append(then)
        if self.is_preloaded or self._num_preload_ends >= _MAX_PRELOAD_ENDS:
            self._tell_preloaded()

    def pids(self) -> dict[str, int]:
        """The processes beside the workers, by role."""
        return {"zygote": self._bare_pid, "preloaded_zygote": self._preloaded_pid}

    def close(self) -> None:
        """End the zygotes, and with them all workers."""
        self._is_closed = True
        for connection in (self._preloaded, self._bare):
            connection.close()

    # ------------------------------------------------------------ zygotes

    def _start_preload(self) -> Connection:
        mine, theirs = socket.socketpair()
        self.is_preloaded, self._preloaded_pid = False, 0
        self._bare.send(Preload(), [theirs.detach()])
        return self._connect(mine)

    def _connect(self, sock: socket.socket) -> Connection:
        return Connection(sock, self._loop, zygote.reports, self._reported, self._zygote_gone)

    def _reported(self, _: Connection, reports: list[zygote.Report]) -> None:
        for report in reports:
            match report:
                case Forked():
                    self._forked(report)
                case Exited():
                    self._exited(report)
                case Refused():
                    self._refused(report)
                case Ready():
                    self.is_preloaded, self._preloaded_pid = True, report.pid
                    self._tell_preloaded()

    def _tell_preloaded(self) -> None:
        waiting, self._when_preloaded = self._when_preloaded, []
        for then in waiting:
            then()

    def _zygote_gone(self, gone: Connection, _: str) -> None:
        if self._is_closed or gone not in (self._bare, self._preloaded):
            return
        was_bare = gone is self._bare
        if was_bare:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._bare_pid, signal.SIGKILL)
                os.waitpid(self._bare_pid, 0)
            self._num_bare_ends += 1
            if self._num_bare_ends > _MAX_ZYGOTE_ENDS:
                self._on_failure("its zygote process ended again and again")
                return
            sock, self._bare_pid = exec_zygote(self._folder)
            self._bare = self._connect(sock)
            # The kernel has killed its children with it, the preloaded zygote among them.
            preloaded, self._preloaded = self._preloaded, self._bare
            preloaded.close()
        else:
            self._num_preload_ends += 1
        self.is_preloaded = False
        for worker in list(self.workers.values()):
            # Its parent's death kills it; without a parent, nobody reports how it ended.
            if worker.exit is None and (was_bare or worker.zygote is gone):
                self._exited_unreported(worker)
        if self._num_preload_ends < _MAX_PRELOAD_ENDS:
            self._preloaded = self._start_preload()
        else:
            self._tell_preloaded()

    # ------------------------------------------------------------ a worker's life

    def _forked(self, report: Forked) -> None:
        worker = self.workers.get(report.worker)
        if worker is None:  # given up meanwhile
            with contextlib.suppress(ProcessLookupError):
                os.kill(report.pid, signal.SIGKILL)
            return
        worker.pid = report.pid
        self._by_pid[report.pid] = worker
        if worker.kill_reason:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
        else:
            self._on_started(worker)

    def _refused(self, report: Refused) -> None:
        worker = self.workers.pop(report.worker, None)
        if worker is not None:
            for stream in worker.streams:
                stream.close()
            self._on_refused(worker, report.reason)

    def _exited(self, report: Exited) -> None:
        worker = self._by_pid.pop(report.pid, None)
        if worker is not None:
            worker.exit = report
            self._finish(worker)

    def _exited_unreported(self, worker: WorkerProcess) -> None:
        if worker.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.pid, signal.SIGKILL)
            self._by_pid.pop(worker.pid, None)
        worker.kill_reason = worker.kill_reason or "it ended with the process that had forked it"
        worker.exit = Exited(worker.pid, 0, 0)
        self._finish(worker)

    def _finish(self, worker: WorkerProcess) -> None:
        """Tell of the end, after what it printed last; a grandchild may keep the pipe open."""
        for stream in worker.streams:
            stream.read()
            stream.close()
        if self.workers.pop(worker.id, None) is not None:
            self._on_exited(worker, describe_exit(worker))

    def _follow(self, worker: WorkerProcess, read_fd: int, *, is_stderr: bool) -> None:
        """Read one of the worker's outputs."""
        suffix = "err" if is_stderr else "out"
        log_file = self._folder / "logs" / f"worker-{worker.id.hex()}.{suffix}"

        def take(lines: list[str]) -> None:
            if is_stderr:
                worker.stderr_tail.extend(line[-_STDERR_LINE_KEPT:] for line in lines)
            self._on_lines(worker, is_stderr, lines)

        worker.streams.append(LogStream(self._loop, read_fd, log_file, take))


def _open_channels() -> list[int]:
    """Both ends of a control connection, and of two pipes. Raises OSError, and keeps none then."""
    fds: list[int] = []
    try:
        fds += [end.detach() for end in socket.socketpair()]
        for _ in range(2):
            fds += os.pipe2(os.O_CLOEXEC)
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    return fds


def describe_exit(worker: WorkerProcess) -> str:
    """How the worker ended, for an error message."""
    assert worker.exit is not None
    status = worker.exit.status
    if worker.kill_reason:
        return worker.kill_reason
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        how = f"was killed by signal {number} ({signal.Signals(number).name})"
        if number == signal.SIGKILL:
            how += ", perhaps by the kernel for lack of memory"
    else:
        how = f"ended with exit code {os.waitstatus_to_exitcode(status)}"
    text = f"worker process {worker.pid} {how}; its memory had peaked at "
    text += f"{worker.exit.peak_bytes / 2**20:.0f} MiB"
    if worker.stderr_tail:
        text += "; its last lines of stderr:\n  " + "\n  ".join(worker.stderr_tail)
    return text


def exec_zygote(session_folder: Path) -> tuple[socket.socket, int]:
    """Start a bare zygote as a new program: the agent's end of its socket, and its pid."""
    mine, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            interpreter.command("zygote", str(theirs.fileno()), str(session_folder)),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
    return mine, process.pid
