"""What does every process of a node have, be it driver or worker?

    program's threads ──submit, get, put──┐
                                          ├─ one lock ─► ObjectTable, TaskTable, ActorTable
    who leads the loop ──messages─────────┘                    │ messages, which never block
                                                               ▼
                                               agent, workers, owners, borrowers

The tables decide and send under the lock; nothing waits while holding it. The seam's methods, which
programs call, are one class further up: `cluster.py`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

from msgspec.structs import replace

from rdata.config import Settings
from rdata.core import ids, serialize
from rdata.core import messages as m
from rdata.core import runtime as runtimes
from rdata.core.ids import task_ids
from rdata.core.object_ref import ObjectRef, check_runtime
from rdata.core.pickling import RestoreRef
from rdata.core.runtime.actors import ActorTable
from rdata.core.runtime.agent_link import AgentLink, Waiter
from rdata.core.runtime.callbacks import Callbacks
from rdata.core.runtime.calls import CallEncoder
from rdata.core.runtime.host import Host
from rdata.core.runtime.interrupts import Interrupts
from rdata.core.runtime.objects import ObjectTable
from rdata.core.runtime.peers import Home, Peers
from rdata.core.runtime.released import Released
from rdata.core.runtime.seam import Runtime
from rdata.core.runtime.store_client import StoreClient
from rdata.core.runtime.tasks import TaskTable
from rdata.core.serialize import Serialized
from rdata.core.specs import TaskOptions
from rdata.core.wire.connection import Connection
from rdata.core.wire.loop import Loop, Timer
from rdata.errors import GetTimeoutError, NodeDiedError, ObjectLostError

_TICK_S = 0.05
_FLUSH_AFTER_S = 0.002  # calls of a burst are held back so long at most; shorter: smaller frames
_DRAIN_AFTER_S = 0.01  # references that go one by one are let go of together


class NodeProcess:
    """Connections, tables, and the thread that serves them when no other does."""

    def __init__(
        self,
        process_id: bytes,
        home: Home,
        job_id: bytes,
        token: bytes,
        namespace: str,
        settings: Settings,
        on_log: Callable[[m.LogLines], None] | None = None,
    ) -> None:
        self.process_id = process_id
        self.address = f"{process_id.hex()}@{home.address}"
        self.node_id = home.node_id
        self.namespace = namespace
        self.job_id = job_id
        self.settings = settings
        self.lock = threading.RLock()
        self._finalised = [Released(self._released_one) for _ in range(4)]
        self.released: deque[bytes] = self._finalised[0]
        self.dropped_streams: deque[bytes] = self._finalised[1]
        self._forgotten: deque[bytes] = self._finalised[2]  # functions
        self.host: Host | None = None
        self.loop = Loop()
        self.interrupts = Interrupts(self.lock, self.loop, self._may_interrupt)
        self.agent = AgentLink(self.lock, self.loop)
        self.store = StoreClient(self.agent, self._finalised[3])
        self.peers = Peers(
            process_id,
            home,
            token,
            self.loop,
            settings.connect_timeout_s,
            self._direct_messages,
            self._process_gone,
        )
        self.objects = ObjectTable(process_id, self.peers, self.agent, settings)
        self.tasks = TaskTable(
            self.agent,
            self.peers,
            self.objects,
            settings,
            self.load_error,
            is_cluster=home.address.startswith("tcp:"),
        )
        self.actors = ActorTable(self.agent, self.peers, self.objects, self.tasks)
        self.objects.on_actor_unheld = self.actors.unheld
        self.objects.on_actor_released = self.actors.released
        self._encoder = CallEncoder(
            process_id,
            self.store,
            settings.inline_object_bytes,
            self.put_serialized,
            self._check_refs,
            self._forgotten.append,
        )
        self._encoder.node_id = home.node_id
        self._ids = task_ids(process_id)
        self._begun_at = self._served_at = 0.0  # the last call of the seam, and when served
        self._is_burst = False  # that call followed another at once
        self._will_flush = False
        self._last_pool: tuple[TaskOptions | None, int, int] = (None, 0, 0)  # options, depth, pool
        self._on_log = on_log
        self._agent_connection: Connection | None = None
        self._failure: NodeDiedError | None = None
        self._waiters: set[Waiter] = set()
        self._timer: Timer | None = None
        self._callbacks = Callbacks()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self.is_left = False  # this process is a forked child of the one that the runtime is of
        self._registered = Waiter(1)
        self._at_shutdown: Callable[[], None] | None = None

    # ------------------------------------------------------------ start and end

    def start(self, sock: socket.socket, handshake: Any = None) -> None:
        """Speak with the agent over `sock`, on a thread of its own."""
        connection = Connection(
            sock,
            self.loop,
            m.control_decoder,
            self._control_messages,
            self._agent_gone,
            handshake,
        )
        self._agent_connection = connection
        self.agent.attach(connection)
        self._thread = threading.Thread(target=self.loop.run, name="rdata-io", daemon=True)
        self._thread.start()

    def register(self, hello: m.Register, timeout_s: float) -> bool:
        """Make this process a driver of the node; False if the agent does not answer."""
        self.agent.send(hello)
        return self.loop.wait(self._registered.gate, timeout_s) and self._failure is None

    def at_shutdown(self, call: Callable[[], None]) -> None:
        """Call that at the end of `shutdown`: it waits for an embedded node."""
        self._at_shutdown = call

    def shutdown(self) -> None:
        """See Runtime."""
        if os.getpid() != self._pid:  # a forked child has no part in it
            return
        if self.host is None and self._failure is None:
            with contextlib.suppress(NodeDiedError, GetTimeoutError):
                self.agent.ask(m.Leave, self.settings.connect_timeout_s)
        self.interrupts.restore()
        self._fail(NodeDiedError("rdata.shutdown() was called in this process"))
        if self.loop.is_current():  # on the loop's thread, or in a signal's handler amid a `get`
            self._close_connections()
        else:
            self.loop.call_soon(self._close_connections)
        self.loop.stop()
        if self._thread is not None and not self.loop.is_current():
            self._thread.join()
            self.loop.close()
        with self.lock:
            self._callbacks.end()
            self.objects.forget_callbacks()
        self.store.close()
        if self._at_shutdown is not None:
            self._at_shutdown()

    def _close_connections(self) -> None:
        self.peers.close()
        if self._agent_connection is not None:
            self._agent_connection.close()

    def close_in_child(self) -> None:
        """After a fork, in the child: let go of descriptors, tell nobody."""
        self.is_left = True
        if self._agent_connection is not None and not self._agent_connection.is_closed:
            self._agent_connection.close_in_child()
        self.peers.close_in_child()

    # ------------------------------------------------------------ objects, for workers too

    def adopt(self, object_id: bytes, owner: str) -> ObjectRef:
        """A reference to an object that this process may not know yet."""
        with self.lock:
            self.objects.hold(object_id, owner)
        return self._ref(object_id, owner)

    def load(self, data: bytes | memoryview, adopted: list[bytes]) -> Any:
        """The value; the ids of references inside it are added to `adopted`."""
        return serialize.loads(data, self._adopting(adopted))

    def load_error(self, data: bytes, adopted: list[bytes]) -> BaseException:
        """An exception as it is to be raised; as `load`."""
        return serialize.load_error(data, self._adopting(adopted))

    def _adopting(self, adopted: list[bytes]) -> RestoreRef:
        def restore(object_id: bytes, owner: str) -> ObjectRef:
            adopted.append(object_id)
            return self.adopt(object_id, owner)

        return restore

    def load_value(self, object_id: bytes, value: m.Value, adopted: list[bytes]) -> Any:
        """The Python value of an object; raises what it is, if it is an error."""
        if value.kind == m.Value.INLINE:
            return self.load(value.data, adopted) if value.data else value.plain()
        if value.kind == m.Value.ERROR:
            raise self.load_error(value.data, adopted)
        stored = self.store.read(object_id, value.node)
        if stored is None:
            where = "the store"
            if value.node != self.node_id:
                where = f"the store of node {value.node.hex()}, or that node has ended"
            raise ObjectLostError(f"object {object_id.hex()} is no longer in {where}")
        return self.load(stored, adopted)

    def drain(self) -> None:
        """Take note of references that were finalised."""
        with self.lock:
            self._drain()

    def put_serialized(self, value: Serialized) -> ObjectRef:
        """A new object of this process's own, inline or in the store."""
        object_id = ids.object_id(next(self._ids), 0)
        refs = value.ref_owners()
        if value.size <= self.objects.inline_limit:
            stored = m.Value(m.Value.INLINE, value.to_bytes(), value.size, refs=refs)
        else:
            self.store.write(object_id, value)
            stored = m.Value(m.Value.STORED, b"", value.size, self.node_id, refs)
        with self.lock:
            self._drain()
            self.objects.create(object_id)
            self.objects.complete(object_id, stored)
        return self._ref(object_id, self.address)

    def _ref(self, object_id: bytes, owner: str) -> ObjectRef:
        return ObjectRef(object_id, owner, cast("Runtime", self))  # which its subclass is

    # ------------------------------------------------------------ state

    def _check_refs(self, refs: Iterable[ObjectRef]) -> None:
        check_runtime(refs, cast("Runtime", self))

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _sleep(self, waiter: Waiter, timeout: float | None) -> bool:
        """Wait; False when the time is over. Raises NodeDiedError when the node has ended."""
        self.interrupts.guard()
        with self.lock:
            self._check_alive()
            self._waiters.add(waiter)
        wait = self.host.blocking() if timeout != 0 and self.host is not None else None
        try:
            is_done = self.loop.wait(waiter.gate, timeout, self.interrupts.check)
        finally:
            with self.lock:
                self._waiters.discard(waiter)
            if wait is not None and self.host is not None:
                self.host.unblocked(wait)
        self._begun_at = 0.0  # what the program calls next is no part of a burst before this
        self._check_alive()
        self.interrupts.check()
        return is_done

    def _may_interrupt(self) -> bool:
        return self.host is None or self.host.may_interrupt()

    def _drain(self) -> None:
        """At a call of the program that may wait, or be its last: nothing is held back any more."""
        self._send_held_back()
        self._let_go()

    def _let_go(self) -> None:
        """Take note of what was finalised."""
        released, streams = self.released, self.dropped_streams
        if released:
            self.objects.drop_all([released.popleft() for _ in range(len(released))])
        while self._forgotten:
            self.tasks.forget_function(self._forgotten.popleft())
        while streams:
            task_id = streams.popleft()
            if not self.actors.tell(task_id, m.StopStream(task_id)):
                self.tasks.tell(task_id, m.StopStream(task_id))
            self.tasks.drop_stream(task_id)
        self.objects.flush_frees()

    def _released_one(self) -> None:
        """Let the I/O thread drain soon: this one may hold any lock, and must only note it."""
        self.loop.call_soon(lambda: self.loop.call_later(_DRAIN_AFTER_S, self._drain_late))

    def _drain_late(self) -> None:
        for noted in self._finalised:
            noted.expect()
        with self.lock:
            self._let_go()
        self.store.flush()

    def _send_held_back(self) -> None:
        """Send the calls of a burst that were to go together."""
        self.tasks.flush()
        self.actors.flush()

    def _send_soon(self) -> None:
        """Send the program's call, together with those that follow it at once. Under the lock."""
        if not self._is_burst:
            self._send_held_back()
        elif not self._will_flush:
            self._will_flush = True
            self.loop.call_soon(lambda: self.loop.call_later(_FLUSH_AFTER_S, self._flush))

    def _flush(self) -> None:
        with self.lock:
            self._will_flush = False
            self._send_held_back()

    def _schedule_tick(self) -> None:
        if self._timer is None:
            self._timer = _NO_TIMER
            self.loop.call_soon(self._start_tick)

    def _start_tick(self) -> None:
        self._timer = self.loop.call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        with self.lock:
            is_needed = self.tasks.tick()
            self._let_go()
            self._timer = self.loop.call_later(_TICK_S, self._tick) if is_needed else None
        self.store.flush()

    # ------------------------------------------------------------ messages, on the I/O thread

    def _direct_messages(self, process: bytes, messages: list[Any]) -> None:
        host = self.host
        with self.lock:
            for message in messages:
                if host is not None and host.receive(process, message):
                    continue
                self._direct_message(process, message)
            self._let_go()
            if not self._will_flush:  # tasks whose arguments these messages have brought
                self._send_held_back()

    def _direct_message(self, process: bytes, message: m.Direct) -> None:
        match message:
            case m.Replies(replies):
                others = self.actors.replied(process, replies)
                if others:
                    self.tasks.replied(process, others)
            case m.Item():
                if not self.actors.item(process, message):
                    self.tasks.item(process, message)
            case m.TakenBack():
                self.tasks.taken_back(process, message)
            case m.Cancel(task, force, recursive):
                self._cancel(task, force, recursive)
            case _:
                self._object_message(process, message)

    def _object_message(self, process: bytes, message: m.Direct) -> None:
        """Between a borrower and an owner."""
        match message:
            case m.Fetch(object_id):
                self.objects.fetch(process, object_id)
            case m.Fetched():
                self.objects.fetched(message)
            case m.Lost():
                self.objects.reported_lost(process, message)
            case m.Borrow():
                self.objects.borrowed_by(process, message)
            case m.BorrowAck():
                self.objects.borrow_acknowledged(message)
            case m.Release():
                self.objects.released_by(process, message)

    def _cancel(self, task: bytes, force: bool, recursive: bool) -> None:
        """Cancel a task, or an actor's call, that this process has submitted."""
        if not self.actors.cancel(task, recursive):
            self.tasks.cancel(task, force, recursive)

    def _control_messages(self, connection: Connection, messages: list[Any]) -> None:
        for message in messages:
            self._control_message(connection, message)

    def _control_message(self, connection: Connection, message: m.Control) -> None:
        """About this process as a whole, or for who waits for an answer."""
        match message:
            case m.Created(has_fd=has_fd) | m.Opened(has_fd=has_fd):
                if has_fd:
                    self.store.keep_descriptor(message.segment, connection.fds.popleft())
                self.agent.answered(message.request, message)
            case m.Attached(peer):
                self.peers.accept(peer, connection.fds.popleft())
            case m.ProcessDied(process, reason):
                self._process_gone(process, reason)
            case m.DropSegments(segments):
                self.store.drop(segments)
            case m.LogLines() if self._on_log is not None:
                self._on_log(message)
            case m.Warn(text):
                with contextlib.suppress(AttributeError, ValueError, OSError):  # closed, or None
                    sys.stderr.write(f"rdata: {text}\n")
            case m.Registered(node_id, address):
                self.node_id = self._encoder.node_id = node_id
                self.address = f"{self.process_id.hex()}@{address}"
                self.peers.home = replace(self.peers.home, node_id=node_id, address=address)
                self._registered.happened()
            case m.MayEnd() if self.host is not None:
                self.host.may_end()
            case m.Failed() | m.Done() | m.FoundActor() | m.Description():
                self.agent.answered(message.request, message)
            case _:
                with self.lock:
                    self._table_message(message)
                    self._let_go()

    def _table_message(self, message: m.Control) -> None:
        """About tasks and actors."""
        match message:
            case m.Granted(key):
                self._table_of(key).granted(message)
                self._schedule_tick()
            case m.Reclaim():
                self.tasks.reclaimed(message)
            case m.Unschedulable(key, reason):
                self._table_of(key).unschedulable(key, reason)
            case m.ActorAt():
                self.actors.located(message)

    def _table_of(self, key: int) -> ActorTable | TaskTable:
        return self.actors if self.actors.owns_key(key) else self.tasks

    def _process_gone(self, process: bytes, reason: str) -> None:
        self.peers.process_ended(process, reason)  # what it had sent comes first
        with self.lock:
            self.actors.process_gone(process, reason)
            self.tasks.worker_died(process, reason)
            self.objects.process_gone(process, reason)
            if self.host is not None:
                self.host.process_gone(process)
            self._let_go()

    def _agent_gone(self, connection: Connection, reason: str) -> None:
        if self.host is not None:
            os._exit(1)  # a worker does not outlive its node
        was_expected = self._failure is not None
        self._fail(
            NodeDiedError(
                f"the node has ended ({reason}): its agent was killed, or the machine ran out of "
                "memory. rdata.shutdown() and rdata.init() start anew"
            )
        )
        if self._at_shutdown is not None and not was_expected:
            # Lest an embedded node stay a zombie; it may take its time to end.
            threading.Thread(target=self._at_shutdown, name="rdata-reap", daemon=True).start()

    def _fail(self, failure: NodeDiedError) -> None:
        with self.lock:
            self._failure = self._failure or failure
            self.agent.fail(self._failure)
            self._registered.wake()
            for waiter in self._waiters:
                waiter.wake()
            self._callbacks.run_all()


def _leave_in_child() -> None:
    runtime: object = runtimes.current()
    if isinstance(runtime, NodeProcess):
        runtimes.install(None)  # the child may init a node of its own
        runtime.close_in_child()


os.register_at_fork(after_in_child=_leave_in_child)

_NO_TIMER = Timer(0.0, lambda: None)
