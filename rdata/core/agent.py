"""What does a node do? Its one agent leases workers, keeps the store, and knows who lives.

    driver, worker ──messages──► agent ──► LeaseScheduler   decides who gets which worker
                                       ──► StoreService     shared memory
                                       ──► Head             actors (on the head node)
                                       ──► WorkerPool       zygotes and worker processes

Everything runs on one loop. The decisions come back as commands, carried out in `_act`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rdata.config import Settings
from rdata.core import head, ids
from rdata.core import messages as m
from rdata.core.head import Head
from rdata.core.listener import Listener
from rdata.core.scheduling import leases
from rdata.core.scheduling.leases import Demand, LeaseScheduler
from rdata.core.session import Session
from rdata.core.store.accounting import StoreAccount
from rdata.core.store.service import StoreService
from rdata.core.wire.auth import ServerHandshake
from rdata.core.wire.connection import Connection
from rdata.core.wire.loop import Loop
from rdata.core.worker_pool import WorkerPool, WorkerProcess, WorkerSetup

_TICK_S = 2.0
_URGENT_TICK_S = 0.05  # while somebody waits for a lease
_KEPT_DEATHS = 10_000  # reasons of ended processes, for those who ask late


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What a node is started with."""

    token: bytes
    resources: dict[str, float]
    store_bytes: int
    is_embedded: bool  # ends with the process that launched it
    launcher_pid: int
    settings: Settings


@dataclass(slots=True, eq=False)
class _Process:
    """A driver or a worker that is connected."""

    id: bytes
    job: bytes
    connection: Connection
    address: str
    registration: m.Register | None = None  # of a driver
    pidfd: int | None = None


class Agent:
    """One node."""

    def __init__(
        self, spec: NodeSpec, session: Session, zygote: socket.socket, zygote_pid: int
    ) -> None:
        self.node_id = ids.new_process_id()
        self.loop = Loop()
        self._spec = spec
        self._session = session
        self._processes: dict[bytes, _Process] = {}
        self._by_connection: dict[Connection, _Process] = {}
        self._deaths: dict[bytes, str] = {}
        self._leavers: dict[bytes, tuple[_Process, int]] = {}  # jobs that end, with the request
        self._head = Head()
        settings = spec.settings
        self._scheduler = LeaseScheduler(
            spec.resources,
            settings.warn_waiting_s,
            settings.worker_idle_s,
            ids.new_process_id,
            self._name_of,
        )
        idle_bytes = int(spec.store_bytes * settings.idle_segment_fraction)
        account = StoreAccount(spec.store_bytes, idle_bytes, settings.idle_segment_s)
        self._store = StoreService(account, self.loop, self._send_to, settings.store_wait_s)
        self._pool = WorkerPool(
            self.loop,
            zygote,
            zygote_pid,
            session.folder,
            self._worker_started,
            self._worker_exited,
            self._worker_printed,
            self._fail,
        )
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(session.socket_path))
        listening.listen(512)
        self.address = self._local_address = f"unix:{session.socket_path}"
        self._listener = Listener(listening, self.loop, spec.token, self.node_id, self._arrived)
        self._handlers: dict[type[m.Control], Callable[[_Process, Any], None]] = {
            m.Want: self._on_want,
            m.ReturnLease: self._on_return_lease,
            m.Blocked: self._on_blocked,
            m.Unblocked: self._on_unblocked,
            m.Create: lambda process, request: self._store.create(process.id, request),
            m.Seal: lambda process, message: self._store.seal(process.id, message.object_id),
            m.Abandon: lambda process, message: self._store.abandon(process.id, message.object_id),
            m.Open: lambda process, request: self._store.open(process.id, request),
            m.Unpin: self._on_unpin,
            m.Free: lambda process, message: self._store.free(message.objects),
            m.CreateActor: self._on_create_actor,
            m.ActorPlaced: self._on_actor_placed,
            m.ActorStarted: self._on_actor_started,
            m.FindActor: self._on_find_actor,
            m.LocateActor: self._on_locate_actor,
            m.KillActor: self._on_kill_actor,
            m.KillProcess: self._on_kill_process,
            m.StillNeeded: self._on_still_needed,
            m.Describe: self._on_describe,
            m.Leave: self._on_leave,
        }
        signal.signal(signal.SIGTERM, lambda *_: self.loop.stop())
        if spec.is_embedded:
            self._watch_launcher(spec.launcher_pid)
        self._is_urgent = False
        self._timer = self.loop.call_later(_TICK_S, self._tick)

    def run(self) -> None:
        """Serve until the node's end, and leave nothing behind."""
        try:
            self.loop.run()
        finally:
            self._listener.close()
            self._pool.close()
            self._store.close()

    def _watch_launcher(self, pid: int) -> None:
        """End with the driver that started this node, even if it never gets to register."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            self.loop.stop()
            return
        self.loop.watch(pidfd, self.loop.stop)
        if os.getppid() != pid:  # it ended before, and the pid may be another's by now
            self.loop.stop()

    # ------------------------------------------------------------ processes come and go

    def _arrived(self, sock: socket.socket, handshake: ServerHandshake, first: m.Control) -> None:
        match first:
            case m.Register():
                self._register_driver(sock, handshake.peer_id, first)
            case m.Attach():
                self._attach(sock, handshake, first)
            case _:
                sock.close()

    def _attach(self, sock: socket.socket, handshake: ServerHandshake, first: m.Attach) -> None:
        if handshake.peer_id in self._deaths:  # its last words; all have been told of its end
            sock.close()
            return
        target = self._processes.get(first.target)
        if target is None:
            reason = self._deaths.get(first.target, "no such process on this node")
            connection = self._connection(sock)
            connection.send(m.AttachFailed(first.target, reason))
            connection.close()
            return
        target.connection.send(m.Attached(handshake.peer_id), [sock.detach()])

    def _register_driver(self, sock: socket.socket, process_id: bytes, hello: m.Register) -> None:
        pid = _peer_pid(sock)
        process = self._add_process(sock, process_id, hello.job)
        process.registration = hello
        with contextlib.suppress(OSError):  # ended already: the closed connection tells
            process.pidfd = os.pidfd_open(pid)
            # A child that the driver forked may keep the connection open; the pidfd tells.
            self.loop.watch(process.pidfd, lambda: self._process_gone(process, "the driver ended"))
        process.connection.send(m.Registered(self.node_id, self.address))
        self._act(self._scheduler.job_started(hello.job, time.monotonic()))

    def _add_process(self, sock: socket.socket, process_id: bytes, job: bytes) -> _Process:
        connection = self._connection(sock)
        address = f"{process_id.hex()}@{self.address}"
        process = _Process(process_id, job, connection, address)
        self._processes[process_id] = self._by_connection[connection] = process
        return process

    def _connection(self, sock: socket.socket) -> Connection:
        return Connection(sock, self.loop, m.control_decoder, self._received, self._closed)

    def _received(self, connection: Connection, messages: list[m.Control]) -> None:
        process = self._by_connection.get(connection)
        if process is None:
            return
        for message in messages:
            handler = self._handlers.get(type(message))
            if handler is None:
                connection.close(f"unexpected message {type(message).__name__}")
                return
            handler(process, message)

    def _closed(self, connection: Connection, reason: str) -> None:
        process = self._by_connection.get(connection)
        # A worker's end is told by its zygote, with how it ended.
        if process is not None and process.registration is not None:
            self._process_gone(process, "the driver disconnected")

    def _process_gone(self, process: _Process, reason: str) -> None:
        if self._processes.pop(process.id, None) is None:
            return
        del self._by_connection[process.connection]
        if process.pidfd is not None:
            self.loop.unwatch(process.pidfd)
            os.close(process.pidfd)
        process.connection.close()
        if len(self._deaths) >= _KEPT_DEATHS:
            self._deaths.pop(next(iter(self._deaths)))
        self._deaths[process.id] = reason
        now = time.monotonic()
        self._store.process_gone(process.id)
        self._act_head(self._head.process_gone(process.id, reason))
        self._act(self._scheduler.requester_gone(process.id, now))
        if process.registration is not None:
            self._act(self._scheduler.job_ended(process.job, now))
        for other in self._processes.values():
            other.connection.send(m.ProcessDied(process.id, reason))
        if process.registration is not None and self._spec.is_embedded:
            self.loop.stop()

    # ------------------------------------------------------------ workers

    def _start_worker(self, worker_id: bytes, job: bytes) -> None:
        driver = self._processes.get(job)
        if driver is None or driver.registration is None:
            self._act(self._scheduler.worker_gone(worker_id, time.monotonic()))
            return
        said = driver.registration
        setup = WorkerSetup(said.import_path, said.directory, said.environment)
        self._pool.start(worker_id, job, setup)

    def _worker_started(self, worker: WorkerProcess) -> None:
        driver = self._processes.get(worker.job)
        if driver is None or driver.registration is None:
            self._pool.kill(worker.id, "its job has ended")
            return
        process = self._add_process(worker.control, worker.id, worker.job)
        process.connection.send(
            m.StartJob(
                worker.job,
                self.node_id,
                self.address,
                self._local_address,
                self._spec.token,
                driver.registration.namespace,
            )
        )
        self._act(self._scheduler.worker_ready(worker.id, worker.job, time.monotonic()))

    def _worker_exited(self, worker: WorkerProcess, reason: str) -> None:
        process = self._processes.get(worker.id)
        if process is None:
            worker.control.close()
        else:
            process.connection.drain_and_close(reason)
        now = time.monotonic()
        self._act(self._scheduler.worker_gone(worker.id, now))
        if process is not None:
            self._process_gone(process, reason)
        self._finish_leaving(worker.job)

    def _worker_printed(self, worker: WorkerProcess, is_stderr: bool, lines: list[str]) -> None:
        driver = self._processes.get(worker.job)
        if driver is not None and driver.registration and driver.registration.wants_logs:
            name = self._head.class_name_at(worker.id) or "worker"
            driver.connection.send(m.LogLines(name, worker.pid, is_stderr, lines))

    # ------------------------------------------------------------ messages: leases

    def _on_want(self, process: _Process, want: m.Want) -> None:
        demand = Demand(want.key, want.resources, want.count, want.depth, want.held, want.dedicated)
        self._act(self._scheduler.demand(process.id, process.job, demand, time.monotonic()))

    def _on_return_lease(self, process: _Process, message: m.ReturnLease) -> None:
        self._act(self._scheduler.lease_returned(message.lease, time.monotonic()))

    def _on_blocked(self, process: _Process, message: m.Blocked) -> None:
        self._act(self._scheduler.blocked(process.id, time.monotonic()))

    def _on_unblocked(self, process: _Process, message: m.Unblocked) -> None:
        self._act(self._scheduler.unblocked(process.id, time.monotonic()))

    def _on_still_needed(self, process: _Process, message: m.StillNeeded) -> None:
        self._act(self._scheduler.worker_ready(process.id, process.job, time.monotonic()))

    def _tick(self) -> None:
        self._act(self._scheduler.tick(time.monotonic()))
        is_urgent = self._scheduler.needs_ticks()
        self._timer = self.loop.call_later(_URGENT_TICK_S if is_urgent else _TICK_S, self._tick)
        self._is_urgent = is_urgent

    def _act(self, commands: list[leases.Command]) -> None:
        """Carry out what the scheduler has decided."""
        if not self._is_urgent and self._scheduler.needs_ticks():
            self._timer.cancel()
            self._is_urgent = True
            self._timer = self.loop.call_later(_URGENT_TICK_S, self._tick)
        for command in commands:
            match command:
                case leases.StartWorker(worker, job):
                    self._start_worker(worker, job)
                case leases.Grant(requester, key, lease, worker, resources):
                    address = self._processes[worker].address
                    granted = m.Granted(key, lease, worker, address, dict(resources))
                    self._send_to(requester, granted)
                case leases.Reclaim(requester, lease, only_if_idle):
                    self._send_to(requester, m.Reclaim(lease, only_if_idle))
                case leases.Infeasible(requester, key, message):
                    self._send_to(requester, m.Unschedulable(key, message))
                case leases.KillWorker(worker, leases.KillReason.IDLE):
                    self._send_to(worker, m.MayEnd())
                case leases.KillWorker(worker, reason):
                    self._pool.kill(worker, f"the worker was ended: {reason}")
                case leases.WarnWaiting(requester, _, message):
                    self._send_to(requester, m.Warn(message))

    def _name_of(self, process: bytes) -> str:
        worker = self._pool.workers.get(process)
        if worker is not None:
            return f"{self._head.class_name_at(process) or 'worker'} (pid {worker.pid})"
        driver = self._processes.get(process)
        if driver is not None and driver.registration is not None:
            return f"the driver (pid {driver.registration.pid})"
        return f"process {process.hex()}"

    def _send_to(self, process: bytes, message: m.Message, fds: list[int] | None = None) -> None:
        target = self._processes.get(process)
        if target is not None:
            target.connection.send(message, fds or [])
            return
        for fd in fds or []:
            os.close(fd)

    # ------------------------------------------------------------ messages: store, actors, state

    def _on_unpin(self, process: _Process, message: m.Unpin) -> None:
        self._store.unpin(process.id, message.objects, message.tainted)

    def _on_create_actor(self, process: _Process, request: m.CreateActor) -> None:
        refusal = self._head.create(request)
        answer = m.Failed(request.request, "ValueError", refusal) if refusal else None
        process.connection.send(answer or m.Done(request.request))

    def _on_actor_placed(self, process: _Process, message: m.ActorPlaced) -> None:
        self._act_head(self._head.placed(message.actor, process.id, process.address))

    def _on_actor_started(self, process: _Process, message: m.ActorStarted) -> None:
        self._act_head(self._head.started(message.actor, message.failure))

    def _on_find_actor(self, process: _Process, request: m.FindActor) -> None:
        found = self._head.find(request.name, request.namespace)
        if found is None:
            reason = f"no actor named {request.name!r} in namespace {request.namespace!r}"
            process.connection.send(m.Failed(request.request, "ValueError", reason))
            return
        process.connection.send(
            m.FoundActor(
                request.request,
                found.actor,
                found.owner_address,
                found.is_detached,
                found.interface,
            )
        )

    def _on_locate_actor(self, process: _Process, message: m.LocateActor) -> None:
        self._act_head(self._head.locate(message.actor, process.id))

    def _on_kill_actor(self, process: _Process, message: m.KillActor) -> None:
        self._act_head(self._head.kill(message.actor, message.reason))

    def _on_kill_process(self, process: _Process, message: m.KillProcess) -> None:
        target = self._processes.get(message.process)
        if target is not None and target.job == process.job and target.registration is None:
            self._pool.kill(message.process, message.reason)

    def _act_head(self, commands: list[head.Command]) -> None:
        for command in commands:
            match command:
                case head.Tell(process, message):
                    self._send_to(process, message)
                case head.EndProcess(process, reason):
                    self._pool.kill(process, reason)

    def _on_describe(self, process: _Process, request: m.Describe) -> None:
        node = {
            "NodeID": self.node_id.hex(),
            "Alive": True,
            "NodeManagerAddress": "127.0.0.1",
            "NodeManagerHostname": socket.gethostname(),
            "Resources": {
                **self._scheduler.total(),
                "object_store_memory": float(self._store.account.quota_bytes),
            },
            "ObjectStoreSocketName": str(self._session.socket_path),
            "ObjectStoreUsedBytes": self._store.account.used_bytes,
            "SessionDir": str(self._session.folder),
            "Processes": {
                "agent": os.getpid(),
                **self._pool.pids(),
                "workers": sorted(worker.pid for worker in self._pool.workers.values()),
            },
        }
        account = self._store.account
        free = float(account.quota_bytes - account.used_bytes)
        available = {**self._scheduler.available(), "object_store_memory": free}
        process.connection.send(m.Description(request.request, [node], available))

    # ------------------------------------------------------------ ends

    def _on_leave(self, process: _Process, request: m.Leave) -> None:
        """The driver's job ends: answered when its workers have ended and are drained."""
        self._leavers[process.job] = (process, request.request)
        self._act(self._scheduler.job_ended(process.job, time.monotonic()))
        for worker in list(self._pool.workers.values()):
            if worker.job == process.job:
                self._pool.kill(worker.id, "its job has ended")
        self._finish_leaving(process.job)

    def _finish_leaving(self, job: bytes) -> None:
        leaving = self._leavers.get(job)
        if leaving and not any(worker.job == job for worker in self._pool.workers.values()):
            del self._leavers[job]
            process, request = leaving
            process.connection.send(m.Done(request))

    def _fail(self, reason: str) -> None:
        for process in self._processes.values():
            process.connection.send(m.Warn(f"the node ends: {reason}"))
        self.loop.stop()


def _peer_pid(sock: socket.socket) -> int:
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", data)[0])
