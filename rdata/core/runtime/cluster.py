"""How does a program use a node? This is the runtime seam over the node's processes.

Drivers and workers have the same; what lies below it is `process.py`.
"""

from __future__ import annotations

import contextlib
import operator
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from rdata.core import ids, serialize
from rdata.core import messages as m
from rdata.core.object_ref import ObjectRef, ObjectRefGenerator, check_runtime
from rdata.core.returns import returned
from rdata.core.runtime import current
from rdata.core.runtime.agent_link import Waiter
from rdata.core.runtime.calls import PendingTask, Registration
from rdata.core.runtime.process import NodeProcess
from rdata.core.runtime.seam import Returned, RuntimeContext, Waitable
from rdata.core.runtime.streams import Stream
from rdata.core.specs import ActorInterface, ActorOptions, Function, MethodOptions, TaskOptions
from rdata.errors import GetTimeoutError, ObjectLostError

_TASK_BYTES = 100  # of a task's message, beside its arguments
_FIRST = ids.object_id(b"", 0)
_NO_RETURNS = MethodOptions(num_returns=0)
_MISSING = m.Value(-1)
_kind_of = operator.attrgetter("kind")
_BURST_S = 0.001  # calls that follow each other faster go together; longer: later starts
_SERVE_EVERY_S = 0.002  # in a burst of calls; longer: what has come waits longer


class ClusterRuntime(NodeProcess):
    """See `Runtime` for what each method promises."""

    # ------------------------------------------------------------ the seam: tasks and actors

    def submit(
        self,
        function: Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: TaskOptions,
    ) -> Returned:
        """See Runtime."""
        self._begin()
        registration = self._encoder.register(function)
        host = self.host
        depth = 0 if host is None else host.depth + 1
        last_options, last_depth, pool = self._last_pool  # many tasks are of one kind
        if last_options is not options or last_depth != depth:
            pool = self._pool_of(options, depth)
        name = options.name or function.name
        task = self._pending(name, args, kwargs, options, registration, pool, options.max_retries)
        if host is not None:
            task.message.depth = depth
            task.parent = host.task_of_thread()
        if options.retry_exceptions:
            task.message.retry_exceptions = True
            task.retry_on = options.retry_exceptions
        with self.lock:
            if registration.captured:
                self._hold(task, registration.captured)
            self.tasks.add(task)
            if self._timer is None:
                self._schedule_tick()
            self._send_soon()
        if self.interrupts.is_pending:
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
        name = f"{interface.class_name}.__init__"
        task = self._pending(name, args, kwargs, _NO_RETURNS, registration)
        task.message.actor = task.id
        task.message.actor_name = options.name or ""
        is_detached = task.message.is_detached = options.lifetime == "detached"
        object_id = ids.object_id(task.id, 0)
        with self.lock:
            self._drain()
            self._hold(task, registration.captured)
            self.actors.create(object_id, interface.class_name, task)
            ref = ObjectRef(object_id, self.address, self)
        existing = self._enter_actor(task.message, options, interface)
        if existing is not None:
            return existing
        needed = {"CPU": 1.0 if options.num_cpus is None else options.num_cpus}
        held = {} if options.num_cpus is None else dict(needed)
        depth = self.host.depth + 1 if self.host is not None else 0
        with self.lock:
            self.actors.place(
                object_id, {**needed, **options.resources}, {**held, **options.resources}, depth
            )
            if is_detached:
                self.objects.hold(object_id, "")  # the head's hold: it lives until it is killed
        return ref

    def call_actor(
        self,
        actor: ObjectRef,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: MethodOptions,
    ) -> Returned:
        """See Runtime."""
        self._begin()
        call = self._pending(options.name, args, kwargs, options)
        call.message.method = method
        if self.host is not None:
            call.parent = self.host.task_of_thread()
        call.held += (actor.id,)
        with self.lock:
            self.objects.hold(actor.id, actor.owner)
            self.actors.call(actor.id, call)
            self._send_soon()
            results = self._results(call)
        if self.interrupts.is_pending:
            self.interrupts.check()
        return results

    def find_actor(self, name: str, namespace: str | None) -> tuple[ObjectRef, ActorInterface]:
        """See Runtime."""
        found: m.FoundActor = self.agent.ask(
            lambda number: m.FindActor(number, name, namespace or self.namespace)
        )
        interface = msgspec.msgpack.decode(found.interface, type=ActorInterface)
        ref = self.adopt(ids.object_id(found.actor, 0), found.owner_address)
        with self.lock:
            self.objects.keep([ref.id], lambda: None)  # it ends with the last handle known of
        return ref, interface

    def _enter_actor(
        self, creation: m.Task, options: ActorOptions, interface: ActorInterface
    ) -> ObjectRef | None:
        """Enter a new actor in the directory; or the one that is there, with `get_if_exists`."""
        request = m.CreateActor(
            0,
            creation.id,
            self.process_id,
            "" if creation.is_detached else self.address,
            creation.actor_name,
            options.namespace or self.namespace,
            creation.is_detached,
            msgspec.msgpack.encode(interface),
        )
        if not options.name:  # it cannot be refused, and so is not worth waiting for
            self.agent.send(request)
            return None
        while True:
            if options.get_if_exists:
                with contextlib.suppress(ValueError):  # there is none
                    return self.find_actor(options.name, options.namespace)[0]
            try:
                self.agent.ask(lambda number: msgspec.structs.replace(request, request=number))
                return None
            except ValueError:  # the name is taken
                if not options.get_if_exists:
                    raise

    def kill_actor(self, actor: ObjectRef, class_name: str) -> None:
        """See Runtime."""
        with self.lock:
            self.actors.kill(actor.id, class_name)

    def cancel(self, ref: Waitable, force: bool, recursive: bool) -> None:
        """See Runtime."""
        task_id = ref.task_id if isinstance(ref, ObjectRefGenerator) else ids.task_of(ref.id)
        with self.lock:
            if ids.owner_of(task_id) == self.process_id:
                self._cancel(task_id, force, recursive)
            elif isinstance(ref, ObjectRef):  # a generator stays with its owner
                self.peers.send(ref.owner, m.Cancel(task_id, force, recursive))

    # ------------------------------------------------------------ the seam: objects

    def put(self, value: Any) -> ObjectRef:
        """See Runtime."""
        self._begin()
        serialized = serialize.dumps(value)
        self._check_refs(serialized.refs)
        return self.put_serialized(serialized)

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        """See Runtime."""
        check_runtime(refs[:1], current())
        give_up_at = None if timeout is None else time.monotonic() + timeout
        values = self._await_values(refs, timeout)
        stored = [
            ref.id
            for ref, value in zip(refs, values, strict=True)
            if value.kind == m.Value.STORED and value.node == self.node_id
        ]
        self.store.ask_for(stored)
        try:
            return [
                self._load(ref, value, give_up_at)
                if value.data or value.kind != m.Value.INLINE
                else value.plain()
                for ref, value in zip(refs, values, strict=True)
            ]
        finally:
            self.store.forget_asked(stored)  # where one of them raised

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
        give_up_at = None if timeout is None else time.monotonic() + timeout
        while True:  # another thread may take what this one has waited for
            waiter = Waiter(1)
            with self.lock:
                self._drain()
                stream = self.tasks.streams.get(generator.task_id)
                if stream is None or stream.is_at_end():
                    return None
                if stream.when_ready(waiter.happened):
                    return self._take(stream)
            left_s = None if give_up_at is None else max(0.0, give_up_at - time.monotonic())
            try:
                if not self._sleep(waiter, left_s):
                    raise GetTimeoutError(f"no item came within {timeout:g} s")
            finally:
                with self.lock:
                    stream.forget_callback(waiter.happened)

    def on_ready(self, ref: Waitable, callback: Callable[[], None]) -> None:
        """See Runtime."""
        check_runtime([ref], current())
        wait = self.host.blocking() if self.host is not None else None

        def fire(value: object = None) -> None:
            if self._callbacks.run(callback) and wait is not None and self.host is not None:
                self.host.unblocked(wait)

        with self.lock:
            self._drain()
            self._callbacks.add(callback)
            if self._failure is not None or self._when_ready(ref, fire):
                fire()

    # ------------------------------------------------------------ the seam: state

    def context(self) -> RuntimeContext:
        """See Runtime."""
        running = {} if self.host is None else self.host.running()
        job, node, process = self.job_id.hex(), self.node_id.hex(), self.process_id.hex()
        return RuntimeContext(job, node, process, self.namespace, **running)

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

    def await_preloaded(self, timeout: float) -> None:
        """See Runtime."""
        with contextlib.suppress(GetTimeoutError):
            self.agent.ask(m.AwaitPreloaded, timeout)

    # ------------------------------------------------------------ inside

    def _pending(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: TaskOptions | MethodOptions,
        registration: Registration | None = None,
        pool: int = 0,
        retries_left: int = 0,
    ) -> PendingTask:
        size = -1 if kwargs else serialize.size_of_atoms(args, self.settings.inline_object_bytes)
        task_id = next(self._ids)
        function_id = b"" if registration is None else registration.blob.id
        count = options.num_returns
        backpressure = 0
        if count == 1:
            returns: tuple[bytes, ...] = (task_id + _FIRST,)
        elif count == "streaming":
            count, returns = m.Task.STREAMING, ()
            backpressure = (
                options.generator_backpressure_num_objects
                or self.settings.generator_backpressure_num_objects
            )
        else:
            returns = tuple(ids.object_id(task_id, index) for index in range(count))
        message = m.Task(
            task_id,
            0,
            function_id,
            name,
            b"" if size < 0 else args,
            count,
            backpressure=backpressure,
        )
        task = PendingTask(
            task_id,
            function_id,
            message,
            returns,
            _TASK_BYTES + size,
            registration,
            pool,
            retries_left,
        )
        if size < 0:  # there is more to do; most calls have atoms, which go as they are
            self._add_arguments(task, args, kwargs)
        return task

    def _add_arguments(
        self, task: PendingTask, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        name = task.message.name
        data, stored, task.slots, refs = self._encoder.encode_arguments(name, args, kwargs)
        task.message.args = data
        task.size_bytes = _TASK_BYTES + len(data)
        if stored is not None:
            task.message.stored_args = stored.id
            task.message.stored_node = self.node_id
        if refs:
            with self.lock:  # while `refs` still hold them
                self._hold(task, refs)
                # Where large values are goes along: the task need not ask their owner.
                task.message.known = tuple(
                    (ref.id, entry.value)
                    for ref in refs
                    if (entry := self.objects.entry(ref.id)) is not None
                    and entry.value is not None
                    and entry.value.kind == m.Value.STORED
                )

    def _pool_of(self, options: TaskOptions, depth: int) -> int:
        with self.lock:
            pool = self.tasks.pool_of({"CPU": options.num_cpus, **options.resources}, depth)
        self._last_pool = options, depth, pool
        return pool

    def _hold(self, task: PendingTask, refs: Sequence[ObjectRef]) -> None:
        for ref in refs:
            self.objects.hold(ref.id, ref.owner)
        task.held += tuple(ref.id for ref in refs)

    def _results(self, task: PendingTask) -> Returned:
        count = task.message.num_returns
        if count == 1:
            return ObjectRef(task.returns[0], self.address, self)
        if count == m.Task.STREAMING:
            return ObjectRefGenerator(task.id, self)
        return returned([ObjectRef(object_id, self.address, self) for object_id in task.returns])

    def _take(self, stream: Stream) -> ObjectRef:
        taken = stream.take()
        count = stream.count_to_acknowledge()
        if count is not None and stream.num_items is None:
            message = m.ItemsTaken(stream.task_id, count)
            if not self.actors.tell(stream.task_id, message):
                self.tasks.tell(stream.task_id, message)
        return ObjectRef(taken, self.address, self)  # takes over the stream's hold

    def _await_values(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[m.Value]:
        """Wait for the values; raises the first that is an error as soon as one is."""
        give_up_at = None if timeout is None else time.monotonic() + timeout
        values = [_MISSING] * len(refs)
        waiter = Waiter(0)
        with self.lock:
            self._drain()
            missing = self.objects.fill(values, refs, range(len(refs)), waiter.made)
            waiter.count = len(missing)
        try:
            self.interrupts.check()
            while missing:  # again if one was lost meanwhile, and is being made again
                kinds = list(map(_kind_of, values))
                if m.Value.ERROR in kinds:
                    failed = kinds.index(m.Value.ERROR)
                    self._load(refs[failed], values[failed], None)
                left_s = None if give_up_at is None else max(0.0, give_up_at - time.monotonic())
                if not self._sleep(waiter, left_s):
                    raise GetTimeoutError(
                        f"{waiter.count} of {len(refs)} values were not ready within {timeout:g} s"
                    )
                with self.lock:
                    missing = self.objects.fill(values, refs, missing, waiter.made)
                    waiter.count = len(missing)
        finally:
            if missing:
                with self.lock:
                    for position in missing:
                        self.objects.forget_callback(refs[position].id, waiter.made)
        return values

    def _load(self, ref: ObjectRef, value: m.Value, give_up_at: float | None) -> Any:
        if value.kind == m.Value.INLINE and not value.refs:
            return serialize.loads(value.data, None)
        adopted: list[bytes] = []
        object_id = ref.id
        try:
            while True:
                try:
                    return self.load_value(object_id, value, adopted)
                except ObjectLostError as lost:
                    if value.kind != m.Value.STORED:  # that is what it is
                        raise
                    with self.lock:
                        why = self.objects.lost(object_id, value.node)
                    if why:
                        raise ObjectLostError(f"{lost}, and {why}") from None
                left = None if give_up_at is None else max(0.0, give_up_at - time.monotonic())
                (value,) = self._await_values([ref], left)
        finally:
            if adopted:  # inside a value, or an error
                with self.lock:
                    self.objects.keep_inside(object_id, adopted)

    def _when_ready(self, ref: Waitable, callback: Callable[..., None]) -> bool:
        if isinstance(ref, ObjectRef):
            return self.objects.when_ready(ref.id, callback)
        stream = self.tasks.streams.get(ref.task_id)
        return stream is None or stream.when_ready(callback)

    def _forget_callback(self, ref: Waitable, callback: Callable[..., None]) -> bool:
        """Undo `_when_ready`; False if `ref` is ready."""
        if isinstance(ref, ObjectRef):
            return self.objects.forget_callback(ref.id, callback)
        stream = self.tasks.streams.get(ref.task_id)
        return stream is not None and stream.forget_callback(callback)

    def _begin(self) -> None:
        """At the start of each call of the seam that changes tables."""
        now = time.monotonic()
        quiet_s = now - self._begun_at
        self._is_burst = quiet_s < _BURST_S
        if quiet_s > _SERVE_EVERY_S:  # no burst, or its begin
            self._served_at = now
            self.interrupts.guard()  # asking who handles SIGINT takes 2 µs
            self.interrupts.check()
        elif now - self._served_at > _SERVE_EVERY_S and not self.interrupts.is_locked():
            self._served_at = now
            self.loop.serve()
            self.interrupts.check()
            now = time.monotonic()
        self._begun_at = now
        self._check_alive()
