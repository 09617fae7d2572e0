"""How does a process use a node? As driver or as worker, the same: this is its runtime.

    program's threads ──submit, get, put──┐
                                          ├─ one lock ─► ObjectTable, TaskTable, ActorTable
    I/O thread ──messages──────────────── ┘                    │ messages, which never block
                                                               ▼
                                               agent, workers, owners, borrowers

The tables decide and send under the lock; nothing waits while holding it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import msgspec

from rdata.config import Settings
from rdata.core import ids, serialize
from rdata.core import messages as m
from rdata.core.ids import TaskIds
from rdata.core.object_ref import ObjectRef, ObjectRefGenerator
from rdata.core.runtime.actors import ActorTable
from rdata.core.runtime.agent_link import AgentLink, Waiter
from rdata.core.runtime.calls import CallEncoder, PendingTask
from rdata.core.runtime.interrupts import Interrupts
from rdata.core.runtime.objects import ObjectTable
from rdata.core.runtime.peers import Peers
from rdata.core.runtime.seam import RuntimeContext, Waitable
from rdata.core.runtime.store_client import StoreClient
from rdata.core.runtime.tasks import PoolKey, TaskTable
from rdata.core.serialize import Serialized
from rdata.core.specs import (
    ActorInterface,
    ActorOptions,
    Function,
    MethodOptions,
    TaskOptions,
)
from rdata.core.wire.connection import Connection
from rdata.core.wire.loop import Loop, Timer
from rdata.errors import GetTimeoutError, NodeDiedError, ObjectLostError

_TICK_S = 0.02
_FLUSH_AFTER_S = 0.001  # tasks submitted in a burst are held back so long at most
_DRAIN_AFTER_S = 0.01  # references that go one by one are let go of together


class Host(Protocol):
    """What a worker adds to its process's runtime: it runs tasks. A driver has none."""

    depth: int
    """How many tasks deep the running one is."""

    def receive(self, process: bytes, message: m.Direct) -> bool:
        """A message for the worker; False if it is not one."""
        ...

    def blocking(self) -> object | None:
        """A thread is about to wait; `unblocked` is to follow with what this returns, if any."""
        ...

    def unblocked(self, wait: object) -> None:
        """It goes on."""
        ...

    def may_interrupt(self) -> bool:
        """Whether a SIGINT may interrupt the main thread now."""
        ...

    def context(self) -> RuntimeContext:
        """What runs."""
        ...

    def process_gone(self, process: bytes) -> None:
        """A process has ended."""
        ...

    def may_end(self) -> None:
        """The agent has no use for this worker."""
        ...


class ClusterRuntime:
    """The runtime seam over a node's processes. See `Runtime` for what each method promises."""

    def __init__(
        self,
        process_id: bytes,
        node_address: str,
        node_id: bytes,
        job_id: bytes,
        token: bytes,
        namespace: str,
        settings: Settings,
        on_log: Callable[[m.LogLines], None] | None = None,
    ) -> None:
        self.process_id = process_id
        self.address = f"{process_id.hex()}@{node_address}"
        self.node_id = node_id
        self.namespace = namespace
        self.job_id = job_id
        self.settings = settings
        self.lock = threading.RLock()
        self._finalised = [_Released(self._released_one) for _ in range(4)]
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
            token,
            self.loop,
            settings.connect_timeout_s,
            self._direct_messages,
            self._process_gone,
        )
        self.objects = ObjectTable(process_id, self.peers, self.agent, self._actor_unheld)
        self.tasks = TaskTable(self.agent, self.peers, self.objects, settings, self.load_error)
        self.actors = ActorTable(self.agent, self.peers, self.objects, self.tasks)
        self._encoder = CallEncoder(
            process_id,
            self.store,
            settings.inline_object_bytes,
            self._put_serialized,
            self._forgotten.append,
        )
        self._ids = TaskIds(process_id)
        self._will_flush = False
        self._last_pool: tuple[TaskOptions, PoolKey] | None = None
        self._on_log = on_log
        self._agent_connection: Connection | None = None
        self._failure: NodeDiedError | None = None
        self._waiters: set[Waiter] = set()
        self._timer: Timer | None = None
        self._callbacks: ThreadPoolExecutor | None = None
        self._awaited: list[Callable[[], None]] = []  # callbacks of `on_ready` that are to come
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
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
        self.loop.call_soon(self._close_connections)
        self.loop.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self.loop.close()
        if self._callbacks is not None:
            self._callbacks.shutdown(wait=False)
        self.store.close()
        if self._at_shutdown is not None:
            self._at_shutdown()

    def _close_connections(self) -> None:
        self.peers.close()
        if self._agent_connection is not None:
            self._agent_connection.close()

    def close_in_child(self) -> None:
        """After a fork, in the child: let go of descriptors, tell nobody."""
        if self._agent_connection is not None and not self._agent_connection.is_closed:
            self._agent_connection.close_in_child()
        self.peers.close_in_child()

    # ------------------------------------------------------------ the seam: tasks and actors

    def submit(
        self,
        function: Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: TaskOptions,
    ) -> list[ObjectRef] | ObjectRefGenerator:
        """See Runtime."""
        self._begin()
        registration = self._encoder.register(function)
        depth = self.host.depth + 1 if self.host is not None else 0
        task = self._pending(
            registration.blob.id,
            options.name or function.name,
            args,
            kwargs,
            options.num_returns,
            options.generator_backpressure_num_objects,
        )
        task.registration = registration
        task.message.depth = depth
        task.retries_left = options.max_retries
        if options.retry_exceptions:
            task.message.retry_exceptions = True
            task.retry_on = options.retry_exceptions
        task.pool = self._pool_of(options, depth)
        with self.lock:
            if registration.captured:
                self._hold(task, registration.captured)
            self.tasks.add(task)
            if self._timer is None:
                self._schedule_tick()
            if not self._will_flush and self.tasks.holds_back():
                self._will_flush = True
                self.loop.call_soon(self._flush_soon)
        self.interrupts.check()
        return self._results(task)

    def create_actor(
        self,
        cls: Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
        interface: ActorInterface,
    ) -> ObjectRef:
        """See Runtime."""
        self._begin()
        registration = self._encoder.register(cls)
        if options.get_if_exists and options.name:
            with contextlib.suppress(ValueError):  # there is none yet
                return self.find_actor(options.name, options.namespace)[0]
        name = f"{interface.class_name}.__init__"
        task = self._pending(registration.blob.id, name, args, kwargs, 0, None)
        task.registration = registration
        task.message.actor = task.id
        task.message.actor_name = options.name or ""
        is_detached = options.lifetime == "detached"
        owner = "" if is_detached else self.address
        request = m.CreateActor(
            0,
            task.id,
            self.process_id,
            owner,
            options.name or "",
            options.namespace or self.namespace,
            is_detached,
            msgspec.msgpack.encode((interface.class_name, interface.methods)),
            interface.class_name,
        )
        if options.name:  # only then can it be refused, and is worth waiting for
            self.agent.ask(lambda number: msgspec.structs.replace(request, request=number))
        else:
            self.agent.send(request)
        needed = {"CPU": 1.0 if options.num_cpus is None else options.num_cpus}
        held = {} if options.num_cpus is None else dict(needed)
        object_id = ids.object_id(task.id, 0)
        with self.lock:
            self._drain()
            self._hold(task, registration.captured)
            self.actors.create(
                object_id,
                interface.class_name,
                task,
                {**needed, **options.resources},
                {**held, **options.resources},
                self.host.depth + 1 if self.host is not None else 0,
            )
            if is_detached:
                self.objects.hold(object_id, "")  # the head's hold: it lives until it is killed
            return ObjectRef(object_id, self.address, self)

    def call_actor(
        self,
        actor: ObjectRef,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: MethodOptions,
    ) -> list[ObjectRef] | ObjectRefGenerator:
        """See Runtime."""
        self._begin()
        call = self._pending(
            b"",
            options.name or method,
            args,
            kwargs,
            options.num_returns,
            options.generator_backpressure_num_objects,
        )
        call.message.method = method
        call.held.append(actor.id)
        with self.lock:
            self._drain()
            self.objects.hold(actor.id, actor.owner)
            self._hold(call, ())
            self.actors.call(actor.id, call)
            results = self._results(call)
        self.interrupts.check()
        return results

    def find_actor(self, name: str, namespace: str | None) -> tuple[ObjectRef, ActorInterface]:
        """See Runtime."""
        found: m.FoundActor = self.agent.ask(
            lambda number: m.FindActor(number, name, namespace or self.namespace)
        )
        class_name, methods = msgspec.msgpack.decode(found.interface)
        interface = ActorInterface(
            class_name, {name: MethodOptions(**given) for name, given in methods.items()}
        )
        return self.adopt(ids.object_id(found.actor, 0), found.owner_address), interface

    def kill_actor(self, actor: ObjectRef) -> None:
        """See Runtime."""
        with self.lock:
            self.actors.kill(actor.id)

    def cancel(self, ref: Waitable, force: bool) -> None:
        """See Runtime."""
        task_id = ref.task_id if isinstance(ref, ObjectRefGenerator) else ids.task_of(ref.id)
        with self.lock:
            if not self.actors.cancel(task_id):
                self.tasks.cancel(task_id, force)

    # ------------------------------------------------------------ the seam: objects

    def put(self, value: Any) -> ObjectRef:
        """See Runtime."""
        self._begin()
        return self._put_serialized(serialize.dumps(value))

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        """See Runtime."""
        entries = self._await_values(refs, timeout)
        return [self._load(ref.id, value) for ref, value in zip(refs, entries, strict=True)]

    def wait(
        self, refs: Sequence[Waitable], num_returns: int, timeout: float | None
    ) -> tuple[list[Waitable], list[Waitable]]:
        """See Runtime."""
        waiter = Waiter(num_returns)
        with self.lock:
            self._drain()
            waiter.count -= sum(self._when_ready(ref, waiter.happened) for ref in refs)
            is_enough = waiter.count <= 0
        try:
            if not is_enough:
                self._sleep(waiter, timeout)
        finally:
            with self.lock:
                ready = [ref for ref in refs if not self._forget_callback(ref, waiter.happened)]
        chosen = ready[:num_returns]
        picked = {id(ref) for ref in chosen}
        return chosen, [ref for ref in refs if id(ref) not in picked]

    def next_item(self, generator: ObjectRefGenerator, timeout: float | None) -> ObjectRef | None:
        """See Runtime."""
        waiter = Waiter(1)
        with self.lock:
            self._drain()
            stream = self.tasks.streams.get(generator.task_id)
            if stream is None:
                return None
            is_ready = stream.when_ready(waiter.happened)
        if not is_ready and not self._sleep(waiter, timeout):
            raise GetTimeoutError(f"no item came within {timeout:g} s")
        with self.lock:
            if stream.is_at_end():
                return None
            taken = stream.take()
            count = stream.count_to_acknowledge()
            if count is not None and stream.num_items is None:
                message = m.ItemsTaken(generator.task_id, count)
                if not self.actors.tell(generator.task_id, message):
                    self.tasks.tell(generator.task_id, message)
            return ObjectRef(taken, self.address, self)  # takes over the stream's hold

    def on_ready(self, ref: Waitable, callback: Callable[[], None]) -> None:
        """See Runtime."""
        if self._callbacks is None:
            self._callbacks = ThreadPoolExecutor(1, thread_name_prefix="rdata-callbacks")

        wait = self.host.blocking() if self.host is not None else None

        def fire() -> None:
            if callback in self._awaited:
                self._awaited.remove(callback)
                _submit(self._callbacks, callback)
                if wait is not None and self.host is not None:
                    self.host.unblocked(wait)

        with self.lock:
            self._drain()
            self._awaited.append(callback)
            if self._failure is not None or self._when_ready(ref, fire):
                fire()

    # ------------------------------------------------------------ the seam: state

    def context(self) -> RuntimeContext:
        """See Runtime."""
        if self.host is not None:
            return self.host.context()
        return RuntimeContext(
            self.job_id.hex(), self.node_id.hex(), self.process_id.hex(), self.namespace
        )

    def nodes(self) -> list[dict[str, Any]]:
        """See Runtime."""
        description: m.Description = self.agent.ask(m.Describe)
        return description.nodes

    def cluster_resources(self) -> dict[str, float]:
        """See Runtime."""
        total: dict[str, float] = {}
        for node in self.nodes():
            for name, amount in node["Resources"].items():
                total[name] = total.get(name, 0.0) + amount
        return total

    def available_resources(self) -> dict[str, float]:
        """See Runtime."""
        description: m.Description = self.agent.ask(m.Describe)
        return description.available

    # ------------------------------------------------------------ for workers too

    def adopt(self, object_id: bytes, owner: str) -> ObjectRef:
        """A reference to an object that this process may not know yet."""
        with self.lock:
            self.objects.hold(object_id, owner)
        return ObjectRef(object_id, owner, self)

    def load(self, data: bytes | memoryview, adopted: list[bytes]) -> Any:
        """The value; the ids of references inside it are added to `adopted`."""

        def restore(object_id: bytes, owner: str) -> ObjectRef:
            adopted.append(object_id)
            return self.adopt(object_id, owner)

        return serialize.loads(data, restore)

    def load_error(self, data: bytes) -> BaseException:
        """An exception as it is to be raised."""
        return serialize.load_error(data, self.adopt)

    def load_value(self, object_id: bytes, value: m.Value, adopted: list[bytes]) -> Any:
        """The Python value of an object; raises what it is, if it is an error."""
        if value.kind == m.Value.INLINE:
            return self.load(value.data, adopted)
        if value.kind == m.Value.ERROR:
            raise self.load_error(value.data)
        stored = self.store.read(object_id)
        if stored is None:
            raise ObjectLostError(f"object {object_id.hex()} is no longer in the store")
        return self.load(stored, adopted)

    def drain(self) -> None:
        """Take note of references that were finalised."""
        with self.lock:
            self._drain()

    # ------------------------------------------------------------ inside

    def _pending(
        self,
        function_id: bytes,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        num_returns: Any,
        backpressure: int | None,
    ) -> PendingTask:
        is_stream = num_returns == "streaming"
        message = m.Task(
            self._ids.next(),
            0,
            function_id,
            name,
            b"",
            m.Task.STREAMING if is_stream else num_returns,
        )
        if is_stream:
            message.backpressure = backpressure or self.settings.generator_backpressure_num_objects
        task = PendingTask(message)
        if args or kwargs:
            self._add_arguments(task, args, kwargs)
        return task

    def _add_arguments(
        self, task: PendingTask, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        data, stored, task.slots, refs = self._encoder.encode_arguments(args, kwargs)
        task.message.args = data
        task.size_bytes += len(data)
        if stored is not None:
            task.message.stored_args = stored.id
        if refs:
            with self.lock:  # while `refs` still hold them
                self._hold(task, refs)

    def _pool_of(self, options: TaskOptions, depth: int) -> PoolKey:
        known = self._last_pool  # most programs submit with one record of options for long
        if known is None or known[0] is not options or known[1][1] != depth:
            resources = {"CPU": options.num_cpus, **options.resources}
            known = self._last_pool = options, (tuple(sorted(resources.items())), depth)
        return known[1]

    def _hold(self, task: PendingTask, refs: Sequence[ObjectRef]) -> None:
        for ref in refs:
            self.objects.hold(ref.id, ref.owner)
            task.held.append(ref.id)

    def _results(self, task: PendingTask) -> list[ObjectRef] | ObjectRefGenerator:
        if task.message.num_returns == m.Task.STREAMING:
            return ObjectRefGenerator(task.id, self)
        return [ObjectRef(object_id, self.address, self) for object_id in task.returns]

    def _put_serialized(self, value: Serialized) -> ObjectRef:
        object_id = ids.object_id(self._ids.next(), 0)
        refs = [(ref.id, ref.owner) for ref in value.refs]
        if value.size <= self.settings.inline_object_bytes:
            stored = m.Value(m.Value.INLINE, value.to_bytes(), refs=refs)
        else:
            self.store.write(object_id, value)
            stored = m.Value(m.Value.STORED, b"", value.size, self.node_id, refs)
        with self.lock:
            self._drain()
            self.objects.create(object_id)
            self.objects.complete(object_id, stored)
        return ObjectRef(object_id, self.address, self)

    def _await_values(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[m.Value]:
        waiter = Waiter(len(refs) + 1)
        with self.lock:
            self._drain()
            for ref in refs:
                if self.objects.when_ready(ref.id, waiter.happened):
                    waiter.count -= 1
            waiter.happened()
            is_ready = waiter.count == 0
        self.interrupts.check()
        if not is_ready and not self._sleep(waiter, timeout):
            num_missing = waiter.count
            with self.lock:
                for ref in refs:
                    self.objects.forget_callback(ref.id, waiter.happened)
            raise GetTimeoutError(
                f"{num_missing} of {len(refs)} values were not ready within {timeout:g} s"
            )
        values = []
        with self.lock:
            for ref in refs:
                entry = self.objects.entry(ref.id)
                if entry is None or entry.value is None:
                    raise ObjectLostError(f"object {ref.id.hex()} is not known here any more")
                values.append(entry.value)
        return values

    def _load(self, object_id: bytes, value: m.Value) -> Any:
        if value.kind == m.Value.INLINE and not value.refs:
            return serialize.loads(value.data, None)
        adopted: list[bytes] = []
        result = self.load_value(object_id, value, adopted)
        if adopted:
            # Those inside live by the outer one until their owners know of this process.
            with self.lock:
                entry = self.objects.entry(object_id)
                if entry is not None:
                    self.objects.hold(object_id, entry.owner)
                    self.objects.keep(adopted, lambda: self.objects.drop(object_id))
        return result

    def _when_ready(self, ref: Waitable, callback: Callable[[], None]) -> bool:
        if isinstance(ref, ObjectRef):
            return self.objects.when_ready(ref.id, callback)
        stream = self.tasks.streams.get(ref.task_id)
        return stream is None or stream.when_ready(callback)

    def _forget_callback(self, ref: Waitable, callback: Callable[[], None]) -> bool:
        """Undo `_when_ready`; False if `ref` is ready."""
        if isinstance(ref, ObjectRef):
            return self.objects.forget_callback(ref.id, callback)
        stream = self.tasks.streams.get(ref.task_id)
        return stream is not None and stream.forget_callback(callback)

    def _sleep(self, waiter: Waiter, timeout: float | None) -> bool:
        """Wait; False when the time is over. Raises NodeDiedError when the node has ended."""
        self.interrupts.guard()
        with self.lock:
            self._check_alive()
            self._waiters.add(waiter)
        self.interrupts.check()
        wait = self.host.blocking() if timeout != 0 and self.host is not None else None
        try:
            is_done = self.loop.wait(waiter.gate, timeout, self.interrupts.check)
        finally:
            with self.lock:
                self._waiters.discard(waiter)
            if wait is not None and self.host is not None:
                self.host.unblocked(wait)
        self._check_alive()
        return is_done

    def _begin(self) -> None:
        """At the start of each call of the seam that changes tables."""
        if self.tasks.is_idle():  # asking who handles SIGINT takes as long as half a submission
            self.interrupts.guard()
        self._check_alive()

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _may_interrupt(self) -> bool:
        return self.host is None or self.host.may_interrupt()

    def _drain(self) -> None:
        self.tasks.flush()
        released, streams = self.released, self.dropped_streams
        while released:
            self.objects.drop(released.popleft())
        while self._forgotten:
            self.tasks.forget_function(self._forgotten.popleft())
        while streams:
            task_id = streams.popleft()
            if not self.actors.tell(task_id, m.StopStream(task_id)):
                self.tasks.tell(task_id, m.StopStream(task_id))
            self.tasks.drop_stream(task_id)
        self.objects.flush_frees()

    def _actor_unheld(self, object_id: bytes) -> bool:
        return self.actors.unheld(object_id)

    def _released_one(self) -> None:
        """Let the I/O thread drain soon: this one may hold any lock, and must only note it."""
        self.loop.call_soon(lambda: self.loop.call_later(_DRAIN_AFTER_S, self._drain_late))

    def _drain_late(self) -> None:
        for noted in self._finalised:
            noted.is_scheduled = False
        with self.lock:
            self._drain()
        self.store.flush()

    def _flush_soon(self) -> None:
        self.loop.call_later(_FLUSH_AFTER_S, self._flush)

    def _flush(self) -> None:
        """The program may not wait for what it has submitted: then this sends it."""
        with self.lock:
            self._will_flush = False
            self.tasks.flush()

    def _schedule_tick(self) -> None:
        if self._timer is None:
            self._timer = _NO_TIMER
            self.loop.call_soon(self._start_tick)

    def _start_tick(self) -> None:
        self._timer = self.loop.call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        with self.lock:
            self._drain()
            is_needed = self.tasks.tick()
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
            self._drain()

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
            case m.Fetch(object_id):
                self.objects.fetch(process, object_id)
            case m.Fetched():
                self.objects.fetched(message)
            case m.Borrow():
                self.objects.borrowed_by(process, message)
            case m.BorrowAck():
                self.objects.borrow_acknowledged(message)
            case m.Release():
                self.objects.released_by(process, message)

    def _control_messages(self, connection: Connection, messages: list[Any]) -> None:
        for message in messages:
            self._control_message(connection, message)

    def _control_message(self, connection: Connection, message: m.Control) -> None:
        match message:
            case m.Granted():
                with self.lock:
                    table = self.actors if self.actors.owns_key(message.key) else self.tasks
                    table.granted(message)
                    self._schedule_tick()
            case m.Reclaim():
                with self.lock:
                    self.tasks.reclaimed(message)
            case m.Created(has_fd=has_fd) | m.Opened(has_fd=has_fd):
                if has_fd:
                    self.store.keep_descriptor(message.segment, connection.fds.popleft())
                self.agent.answered(message.request, message)
            case m.Attached(peer):
                self.peers.accept(peer, connection.fds.popleft())
            case m.ProcessDied(process, reason):
                self._process_gone(process, reason)
            case m.ActorAt():
                with self.lock:
                    self.actors.located(message)
            case m.Unschedulable(key, reason):
                with self.lock:
                    table = self.actors if self.actors.owns_key(key) else self.tasks
                    table.unschedulable(key, reason)
            case m.DropSegments(segments):
                self.store.drop(segments)
            case m.LogLines() if self._on_log is not None:
                self._on_log(message)
            case m.Warn(text):
                sys.stderr.write(f"rdata: {text}\n")
            case m.Registered(node_id):
                self.node_id = node_id
                self._registered.happened()
            case m.MayEnd() if self.host is not None:
                self.host.may_end()
            case m.Failed() | m.Done() | m.FoundActor() | m.Description():
                self.agent.answered(message.request, message)

    def _process_gone(self, process: bytes, reason: str) -> None:
        self.peers.process_ended(process, reason)  # what it had sent comes first
        with self.lock:
            self.actors.process_gone(process, reason)
            self.tasks.worker_died(process, reason)
            self.objects.process_gone(process, reason)
            if self.host is not None:
                self.host.process_gone(process)

    def _agent_gone(self, connection: Connection, reason: str) -> None:
        if self.host is not None:
            os._exit(1)  # a worker does not outlive its node
        self._fail(
            NodeDiedError(
                f"the node has ended ({reason}): its agent was killed, or the machine ran out of "
                "memory. rdata.shutdown() and rdata.init() start anew"
            )
        )

    def _fail(self, failure: NodeDiedError) -> None:
        with self.lock:
            self._failure = self._failure or failure
            self.agent.fail(self._failure)
            self._registered.wake()
            for waiter in self._waiters:
                waiter.wake()
            for callback in self._awaited:  # their `get` raises
                _submit(self._callbacks, callback)
            self._awaited.clear()


class _Released(deque[Any]):
    """What finalisers have noted; the first one calls `on_first`, until it is reset."""

    def __init__(self, on_first: Callable[[], None]) -> None:
        super().__init__()
        self.is_scheduled = False
        self._on_first = on_first

    def append(self, noted: Any) -> None:
        super().append(noted)
        if not self.is_scheduled:
            self.is_scheduled = True
            self._on_first()


_NO_TIMER = Timer(0.0, lambda: None)


def _submit(callbacks: ThreadPoolExecutor | None, callback: Callable[[], None]) -> None:
    assert callbacks is not None
    try:
        callbacks.submit(callback)
    except RuntimeError:  # shut down meanwhile
        return
