"""What does a node do? Its one agent leases workers, keeps the store, and knows who lives.

    driver, worker ──messages──► agent ──► LeaseService     who gets which worker, here or elsewhere
                                       ──► StoreService     shared memory
                                       ──► HeadService      actors
                                       ──► Relay            other nodes
                                       ──► WorkerPool       zygotes and worker processes

Everything runs on one loop. The decisions come back as commands, carried out in `_act`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from rdata.config import Settings
from rdata.core import ids
from rdata.core import messages as m
from rdata.core.addresses import joined_address
from rdata.core.agent.head_service import HeadService
from rdata.core.agent.journal import Journal
from rdata.core.agent.lease_service import LeaseService
from rdata.core.agent.links import NodeIdentity
from rdata.core.agent.listener import Listener, listen_for_others, listen_here
from rdata.core.agent.node_view import NodeView
from rdata.core.agent.processes import Process, ProcessTable
from rdata.core.agent.relay import Relay
from rdata.core.agent.visitors import Visitors
from rdata.core.agent.worker_pool import WorkerPool, WorkerProcess
from rdata.core.messages import cluster
from rdata.core.session import Session
from rdata.core.store.accounting import StoreAccount
from rdata.core.store.pulls import Pulls
from rdata.core.store.service import StoreService
from rdata.core.wire.auth import ServerHandshake
from rdata.core.wire.connection import Connection
from rdata.core.wire.loop import Loop


class NodeSpec(Struct, frozen=True):
    """What a node is started with."""

    token: bytes
    resources: dict[str, float]
    store_bytes: int
    is_embedded: bool  # ends with the process that launched it, and is alone
    host: str  # where it listens for other nodes
    port: int  # 0: any that is free
    head: str  # host:port of the head to join; "" for a head
    journal: str  # a head's file, for one that is started anew; "": none
    launcher_pid: int
    settings: Settings


class Agent:
    """One node."""

    def __init__(
        self, spec: NodeSpec, session: Session, zygote: socket.socket, zygote_pid: int
    ) -> None:
        self.node_id = ids.new_process_id()
        self.loop = Loop()
        self.settings = settings = spec.settings
        self._spec = spec
        self._session = session
        self._processes = ProcessTable()
        self._leavers: dict[bytes, tuple[Process, int]] = {}  # jobs that end, with the request
        idle_bytes = int(spec.store_bytes * settings.idle_segment_fraction)
        account = StoreAccount(spec.store_bytes, idle_bytes, settings.idle_segment_s)
        self._store = StoreService(account, self.loop, self._processes.send, settings.store_wait_s)
        self._pool = WorkerPool(
            self.loop,
            (zygote, zygote_pid),
            session.folder,
            self._worker_started,
            self._worker_exited,
            self._worker_refused,
            self._worker_printed,
            self.fail,
        )
        self._leases = LeaseService(
            self.loop,
            self.node_id,
            spec.resources,
            settings,
            self._processes,
            self._pool,
            is_cluster=not spec.is_embedded,
        )
        listening = [listen_here(session.socket_path)]
        self.address = self.local_address = f"unix:{session.socket_path}"
        if not spec.is_embedded:
            listening.append(listen_for_others(spec.host, spec.port))
            # As a number, which is the same everywhere, and none but this machine's own.
            self.address = f"tcp:{joined_address(*listening[-1].getsockname()[:2])}"
        self._listeners = [
            Listener(sock, self.loop, spec.token, self.node_id, self._arrived) for sock in listening
        ]
        self.identity = NodeIdentity(self.node_id, self.address, spec.token, not spec.head)
        scheduler = self._leases.scheduler
        self._view = NodeView(self.identity, session, scheduler, self._store, self._pool)
        self._visitors = Visitors(self.loop, self._view.describe, self.loop.stop)
        self._relay = Relay(self, self._processes, self.loop)
        self._leases.attach(self._relay, self._view.state)
        self._pulls = Pulls(
            self._store,
            self.loop,
            self.node_id,
            spec.token,
            settings,
            self._relay.links.address_of,
        )
        ask_head = self._relay.ask_head if spec.head else None
        self._journal = Journal(spec.journal) if spec.journal else None
        self._head = HeadService(self._processes, ask_head, self.end_process, self._journal)
        if self._journal is not None:
            self._journal.set_token(spec.token)
            self._head.node_seen(self.address)  # what there was of it, ended with the last head
            self.loop.call_later(settings.head_wait_s, self._head.stop_waiting)
        self._handlers: dict[type[m.Control], Callable[[Process, Any], None]] = {
            m.Create: self._on_create,
            m.Seal: lambda process, message: self._store.seal(process.id, message.object_id),
            m.Abandon: lambda process, message: self._store.abandon(process.id, message.object_id),
            m.Open: self._on_open,
            m.Unpin: self._on_unpin,
            m.Free: self._on_free,
            m.KillProcess: self._on_kill_process,
            m.Describe: self._on_describe,
            m.Leave: self._on_leave,
            m.AwaitPreloaded: self._on_await_preloaded,
            **self._leases.handlers,
            **self._head.handlers,
        }
        signal.signal(signal.SIGTERM, lambda *_: self.loop.stop())
        if spec.is_embedded:
            self._watch_launcher(spec.launcher_pid)

    def run(self, on_ready: Callable[[str], None]) -> None:
        """Serve until the node's end, and leave nothing behind.

        `on_ready` gets "" when the node is part of its cluster, or why it cannot be, and ends.
        """

        def joined(reason: str) -> None:
            on_ready(reason)
            if reason:
                self.loop.stop()

        try:
            if self._spec.head:
                self._relay.links.join(f"tcp:{self._spec.head}", joined)
            else:
                joined("")
            self.loop.run()
        finally:
            for listener in self._listeners:
                listener.close()
            self._visitors.close()
            self._relay.links.close()
            self._pool.close()
            self._store.close()
            if self._journal is not None:
                self._journal.close()

    @property
    def head_address(self) -> str:
        """Where the cluster's head is reached: as it says itself, so alike on all nodes."""
        if not self._spec.head:
            return self.address
        return self._relay.links.head_address() or f"tcp:{self._spec.head}"  # it is away again

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
            case m.Visit():
                self._visitors.arrived(sock)
            case m.Link():
                self._relay.links.accept(sock, handshake.peer_id, first)
            case m.Pull():
                self._pulls.serve(sock, handshake.peer_id, first)
            case _:
                sock.close()

    def _attach(self, sock: socket.socket, handshake: ServerHandshake, first: m.Attach) -> None:
        if self._processes.death(handshake.peer_id):  # its last words: its end is known
            sock.close()
            return
        target = self._processes.get(first.target)
        if target is None or not target.is_local:
            reason = self._processes.death(first.target) or "no such process on this node"
            connection = self._connection(sock)
            connection.send(m.AttachFailed(first.target, reason))
            connection.close()
            return
        target.channel.send(m.Attached(handshake.peer_id), [sock.detach()])

    def _register_driver(self, sock: socket.socket, process_id: bytes, hello: m.Register) -> None:
        pid = _peer_pid(sock)
        process = self._add_process(sock, process_id, hello.job, hello)
        with contextlib.suppress(OSError):  # ended already: the closed connection tells
            process.pidfd = os.pidfd_open(pid)
            # A child that the driver forked may keep the connection open; the pidfd tells.
            self.loop.watch(process.pidfd, lambda: self.process_gone(process, "the driver ended"))
        process.channel.send(m.Registered(self.node_id, self.address))
        self._leases.job_started(process)

    def _add_process(
        self,
        sock: socket.socket,
        process_id: bytes,
        job: bytes,
        registration: m.Register | None = None,
    ) -> Process:
        address = f"{process_id.hex()}@{self.address}"
        process = Process(process_id, job, self._connection(sock), address, registration)
        self._processes.add(process)
        self._relay.started(process)
        return process

    def _connection(self, sock: socket.socket) -> Connection:
        return Connection(sock, self.loop, m.control_decoder, self._received, self._closed)

    def _received(self, connection: Connection, messages: list[m.Control]) -> None:
        process = self._processes.at(connection)
        if process is not None:
            for message in messages:
                self.receive(process, message)

    def receive(self, process: Process, message: m.Control) -> None:
        """A process, of this node or (see Neighbours) of another, asks for something."""
        if isinstance(message, m.ActorPlaced | m.ActorStarted) and process.is_local:
            process.actor.append(message)
            if isinstance(message, m.ActorPlaced) and message.is_detached:
                self._detach(process)
        handler = self._handlers.get(type(message))
        if handler is None:
            process.channel.close(f"unexpected message {type(message).__name__}")
        else:
            handler(process, message)

    def _closed(self, connection: Connection, reason: str) -> None:
        process = self._processes.at(connection)
        # A worker's end is told by its zygote, with how it ended.
        if process is not None and process.registration is not None:
            self.process_gone(process, "the driver disconnected")

    def process_gone(self, process: Process, reason: str) -> None:
        """A process, of this node or (see Neighbours) of another, has ended."""
        if process.pidfd is not None and self._processes.get(process.id) is process:
            self.loop.unwatch(process.pidfd)
        if not self._processes.remove(process, reason):
            return
        if process.is_local:
            self._relay.ended(process, reason)
        self._pulls.process_gone(process.id)
        self._store.process_gone(process.id)
        self._head.process_gone(process, reason)
        self._leases.requester_gone(process)
        if process.job == process.id:
            self._leases.job_ended(process.job)
        for other in self._processes.of_node(b""):
            other.channel.send(m.ProcessDied(process.id, reason))
        if process.id in self._leavers:
            del self._leavers[process.id]
        self._finish_leaving(process.job)
        if process.registration is not None and process.is_local and self._spec.is_embedded:
            self.loop.stop()

    # ------------------------------------------------------------ workers

    def _on_await_preloaded(self, process: Process, request: m.AwaitPreloaded) -> None:
        self._pool.when_preloaded(lambda: process.channel.send(m.Done(request.request)))

    def _worker_started(self, worker: WorkerProcess) -> None:
        said = self._processes.registration(worker.job)
        if said is None:
            self._pool.kill(worker.id, "its job has ended")
            return
        process = self._add_process(worker.control, worker.id, worker.job)
        process.channel.send(
            m.StartJob(
                worker.job,
                self.node_id,
                self.address,
                self.local_address,
                self._spec.token,
                said.namespace,
            )
        )
        self._leases.worker_ready(worker.id, worker.job)

    def _worker_exited(self, worker: WorkerProcess, reason: str) -> None:
        process = self._processes.get(worker.id)
        if process is None:
            worker.control.close()
        else:
            assert isinstance(process.channel, Connection)
            process.channel.drain_and_close(reason)
        self._leases.worker_gone(worker.id)
        if process is not None:
            self.process_gone(process, reason)
        self._finish_leaving(worker.job)

    def _worker_refused(self, worker: WorkerProcess, reason: str) -> None:
        worker.control.close()
        self._leases.worker_refused(worker.id, worker.job, reason)
        self._finish_leaving(worker.job)

    def _worker_printed(self, worker: WorkerProcess, is_stderr: bool, lines: list[str]) -> None:
        driver = self._processes.driver(worker.job)
        if driver is not None and driver.registration and driver.registration.wants_logs:
            process = self._processes.get(worker.id)
            name = process.actor_class if process is not None else ""
            driver.channel.send(m.LogLines(name or "worker", worker.pid, is_stderr, lines))

    def process_arrived(self, process: Process) -> None:
        """See Neighbours."""
        known = self._processes.get(process.id)
        if known is not None and process.registration is not None:
            self._processes.detach(known, process.registration)
            self._leases.detached(known)
            return
        self._processes.add(process)
        self._head.process_arrived(process)
        if process.registration is not None:
            self._leases.job_started(process)

    def _detach(self, actor: Process) -> None:
        """Let an actor of this node outlive the job that created it."""
        registration = self._processes.registration(actor.job)
        worker = self._pool.workers.get(actor.id)
        if registration is not None and worker is not None:  # else it ends with its job
            self._processes.detach(actor, registration)
            worker.job = actor.id
            self._leases.detached(actor)
            self._relay.started(actor)

    def granted(self, node: bytes, process: Process, grant: m.Granted) -> None:
        """See Neighbours."""
        self._leases.granted(node, process, grant)

    # ------------------------------------------------------------ messages: store, actors, state

    def _on_open(self, process: Process, request: m.Open) -> None:
        if request.node in (b"", self.node_id):
            self._store.open(process.id, request)
        else:
            self._pulls.open(process.id, request)

    def _on_free(self, process: Process, message: m.Free) -> None:
        if message.node not in (b"", self.node_id):
            self._relay.ask(message.node, process, message)
            return
        for node, copies in self._pulls.freed(message.objects).items():
            self._relay.copies_freed(node, copies)
        self._store.free(message.objects)

    def free_copies(self, objects: list[bytes]) -> None:
        """See Neighbours."""
        self._pulls.freed(objects)
        self._store.free(objects)

    def _on_create(self, process: Process, request: m.Create) -> None:
        owner = ids.owner_of(request.object_id)
        if self._processes.get(owner) is None and self._processes.death(owner):
            self._store.refuse(process.id, request)  # a late result, which nobody would free
        else:
            self._store.create(process.id, request)

    def _on_unpin(self, process: Process, message: m.Unpin) -> None:
        self._store.unpin(process.id, message.objects, message.tainted)

    def _on_kill_process(self, process: Process, message: m.KillProcess) -> None:
        target = self._processes.get(message.process)
        if target is None or target.job != process.job or target.registration is not None:
            return
        if target.is_local:
            self._pool.kill(message.process, message.reason)
        else:
            self._relay.ask(target.node, process, message)

    def end_process(self, process: bytes, reason: str) -> None:
        """An actor is not wanted any more: kill its process, here or (see Neighbours) elsewhere."""
        target = self._processes.get(process)
        if target is None or target.is_local:
            self._pool.kill(process, reason)
        else:
            self._relay.end_process(target, reason)

    def state(self) -> cluster.NodeState:
        """See Neighbours."""
        return self._view.state()

    def node_changed(self, node: bytes, state: cluster.NodeState) -> None:
        """See Neighbours."""
        self._view.changed(node, state)
        self._head.node_seen(self._relay.links.address_of(node) or "")
        self._leases.node_changed(node, state)

    def node_gone(self, node: bytes) -> None:
        """See Neighbours."""
        self._view.gone(node)
        self._leases.node_gone(node)

    def _on_describe(self, process: Process, request: m.Describe) -> None:
        process.channel.send(self._view.describe(request.request))

    # ------------------------------------------------------------ ends

    def _on_leave(self, process: Process, request: m.Leave) -> None:
        """The driver's job ends: answered when its workers have ended and are drained."""
        if process.is_local:
            self._leavers[process.job] = (process, request.request)
            self._relay.ask_all(process, request)
        self._leases.job_ended(process.job)
        for worker in list(self._pool.workers.values()):
            if worker.job == process.job:
                self._pool.kill(worker.id, "its job has ended")
        self._finish_leaving(process.job)

    def _finish_leaving(self, job: bytes) -> None:
        leaving = self._leavers.get(job)
        if leaving is None or any(worker.job == job for worker in self._pool.workers.values()):
            return
        process, request = leaving
        if not any(other.job == job and other is not process for other in self._processes):
            del self._leavers[job]
            process.channel.send(m.Done(request))

    def fail(self, reason: str) -> None:
        """The node cannot go on."""
        for process in self._processes.of_node(b""):
            process.channel.send(m.Warn(f"the node ends: {reason}"))
        self.loop.stop()


def _peer_pid(sock: socket.socket) -> int:
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", data)[0])
