"""How does a node get a new worker process in milliseconds? It forks one that is ready to go.

    agent ──socket──► zygote (bare) ──forks──► workers, until the other is ready
                        └─forks─► zygote (numpy, pyarrow, pandas imported) ──forks──► workers

A zygote is single-threaded, so that forking is safe, and does nothing but fork, reap, and watch
the agent: when the agent's end of the socket closes, it kills its workers with all that they
started, waits for the preloaded zygote to do the same, and ends. Requests and reports are
frames, with descriptors beside their first byte.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import random
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping

import msgspec

from rdata.core.wire.frames import encode_frame
from rdata.errors import report_of

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl  # looked up before a fork, which would copy what that touches
_MAX_FDS = 4  # beside a request
_PRELOADED = (
    "numpy",
    "pyarrow",
    "pandas",
    "pyarrow.compute",
    "pyarrow.csv",
    "pyarrow.parquet",
    "rdata.dataset",
)
# Read when the modules are imported: no native thread may exist when a zygote forks.
_NO_THREADS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


class Fork(msgspec.Struct, tag=1):
    """Agent → zygote, with three descriptors: control socket, stdout, stderr."""

    worker: bytes
    import_path: list[bytes]
    directory: bytes
    environment: dict[bytes, bytes]


class Preload(msgspec.Struct, tag=2):
    """Agent → bare zygote, with a socket: fork a zygote that imports the heavy modules."""


class Forked(msgspec.Struct, tag=3):
    """Zygote → agent."""

    worker: bytes
    pid: int


class Exited(msgspec.Struct, tag=4):
    """Zygote → agent: `status` as `os.waitpid` gives it, `peak_bytes` of resident memory."""

    pid: int
    status: int
    peak_bytes: int


class Ready(msgspec.Struct, tag=5):
    """Preloaded zygote → agent: from now on, ask me."""

    pid: int


class Refused(msgspec.Struct, tag=6):
    """Zygote → agent: the system allows no further process for that worker."""

    worker: bytes
    reason: str


_requests = msgspec.msgpack.Decoder(Fork | Preload)
Report = Forked | Exited | Ready | Refused
reports = msgspec.msgpack.Decoder(Report)

WorkerMain = Callable[[socket.socket, bytes], None]


class Zygote:
    """The loop of one zygote process."""

    def __init__(self, agent: socket.socket, worker_main: WorkerMain) -> None:
        self._agent = agent
        self._worker_main = worker_main
        self._pids_by_pidfd: dict[int, int] = {}
        self._zygotes: set[int] = set()  # those of the pids that are no workers
        self._poll = select.poll()
        self._poll.register(agent, select.POLLIN)

    def run(self) -> None:
        """Serve until the agent is gone; then leave no process behind."""
        is_agent_alive = True
        while is_agent_alive:
            for fd, _ in self._poll.poll():
                if fd == self._agent.fileno():
                    is_agent_alive = self._serve_request()
                else:
                    self._report_exit(fd)
        for pid in self._pids_by_pidfd.values():
            if pid in self._zygotes:
                os.kill(pid, signal.SIGTERM)  # ignored by one that has workers to end
                continue
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(pid, signal.SIGKILL)
        for pid in self._pids_by_pidfd.values():
            os.waitpid(pid, 0)

    def _serve_request(self) -> bool:
        try:
            head, fds, _, _ = socket.recv_fds(self._agent, 4, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
            head += read_exactly(self._agent, 4 - len(head))
            data = read_exactly(self._agent, int.from_bytes(head, "little"))
        except ConnectionError:
            return False
        request = _requests.decode(data)
        try:  # a limit of processes must not end the workers that there are
            if isinstance(request, Fork):
                pid = self._fork(lambda: self._become_worker(request, fds))
                self._send(Forked(request.worker, pid))
            else:
                self._zygotes.add(self._fork(lambda: self._become_preloaded(fds[0])))
        except OSError as error:
            if isinstance(request, Fork):
                self._send(Refused(request.worker, str(error)))
        for fd in fds:
            os.close(fd)
        return True

    def _fork(self, child: Callable[[], None]) -> int:
        if threading.active_count() > 1 or len(os.listdir("/proc/self/task")) > 1:
            raise RuntimeError("a zygote must be single-threaded when it forks")
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self._watch(pid)
            return pid
        status = 1
        try:
            die_with_parent(parent)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._agent.close()
            for pidfd in self._pids_by_pidfd:
                os.close(pidfd)
            child()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException as error:
            sys.stderr.write("".join(report_of(error).format()))
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _watch(self, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # no descriptor is left
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._pids_by_pidfd[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)

    def _become_worker(self, request: Fork, fds: list[int]) -> None:
        control, stdout, stderr = fds
        os.setpgid(0, 0)  # so that what the worker starts can be killed with it
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.close(stdout)
        os.close(stderr)
        reseed()
        set_environment(request.environment)
        sys.path[:] = map(os.fsdecode, request.import_path)
        importlib.invalidate_caches()
        with contextlib.suppress(OSError):  # gone meanwhile, or not on this machine
            os.chdir(request.directory)
        self._worker_main(socket.socket(fileno=control), request.worker)

    def _become_preloaded(self, fd: int) -> None:
        agent = socket.socket(fileno=fd)
        os.environ.update(_NO_THREADS)
        # Arrow's allocator asks for pages of 2 MiB: touched in part, they are made and kept whole.
        os.environ.setdefault("MIMALLOC_ALLOW_THP", "0")
        for module in _PRELOADED:
            importlib.import_module(module)
        pyarrow = sys.modules["pyarrow"]
        pyarrow.set_cpu_count(1)
        gc.collect()
        gc.freeze()  # the workers' collector then leaves the shared pages alone
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from now on, the agent's end ends it
        agent.sendall(encode_frame(Ready(os.getpid())))
        Zygote(agent, self._worker_main).run()

    def _report_exit(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        os.close(pidfd)
        pid = self._pids_by_pidfd.pop(pidfd)
        self._zygotes.discard(pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # what the worker started ends with it
        _, status, usage = os.wait4(pid, 0)
        self._send(Exited(pid, status, usage.ru_maxrss * 1024))

    def _send(self, report: Report) -> None:
        with contextlib.suppress(ConnectionError):  # the next poll sees that the agent is gone
            self._agent.sendall(encode_frame(report))


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes. Raises ConnectionError if the other side ends before."""
    data = bytearray()
    while len(data) < size:
        received = sock.recv(size - len(data))
        if not received:
            raise ConnectionResetError
        data += received
    return bytes(data)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; the parent is single-threaded."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


def set_environment(wanted: Mapping[bytes, bytes]) -> None:
    """Change what differs only: the rest of a fork's memory stays shared."""
    for name in os.environb.keys() - wanted.keys():
        del os.environb[name]
    for name, value in wanted.items():
        if os.environb.get(name) != value:
            os.environb[name] = value


def reseed() -> None:
    """Give a forked process random numbers of its own."""
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
