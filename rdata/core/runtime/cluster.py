"""How does a program use a node? This is the runtime seam over the node's processes.

Drivers and workers have the same; what lies below it is `process.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from rdata.core import ids, serialize
from rdata.core import messages as m
from rdata.core.object_ref import ObjectRef, ObjectRefGenerator
from rdata.core.runtime.agent_link import Waiter
from rdata.core.runtime.calls import PendingTask
from rdata.core.runtime.process import NodeProcess
from rdata.core.runtime.seam import RuntimeContext, Waitable
from rdata.core.runtime.tasks import PoolKey
from rdata.core.specs import (
    ActorInterface,
    ActorOptions,
    Function,
    MethodOptions,
    TaskOptions,
)
from rdata.errors import GetTimeoutError, ObjectLostError

_TASK_BYTES = 100  # of a task's message, beside its arguments
_FIRST = ids.object_id(b"", 0)
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
            self._send_soon()
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
        is_detached = task.message.is_detached = options.lifetime == "detached"
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
        call.held += (actor.id,)
        with self.lock:
            self.objects.hold(actor.id, actor.owner)
            self.actors.call(actor.id, call)
            self._send_soon()
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
        return self.put_serialized(serialize.dumps(value))

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        """See Runtime."""
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
                self._load(ref, value, give_up_at) for ref, value in zip(refs, values, strict=True)
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
                self._call_back(callback)
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

    def await_preloaded(self, timeout: float) -> None:
        """See Runtime."""
        with contextlib.suppress(GetTimeoutError):
            self.agent.ask(m.AwaitPreloaded, timeout)

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
        task_id = self._ids.next()
        returns: tuple[bytes, ...] = (task_id + _FIRST,)
        count = 1
        if num_returns != 1:
            count = m.Task.STREAMING if num_returns == "streaming" else num_returns
            returns = tuple(ids.object_id(task_id, index) for index in range(count))
        message = m.Task(task_id, 0, function_id, name, b"", count)
        if count == m.Task.STREAMING:
            message.backpressure = backpressure or self.settings.generator_backpressure_num_objects
        task = PendingTask(task_id, function_id, message, returns, _TASK_BYTES)
        limit = self.settings.inline_object_bytes
        if not kwargs and (size := serialize.size_of_atoms(args, limit)) >= 0:
            message.args = args  # as they are: so it is with most calls
            task.size_bytes += size
        else:
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

    def _pool_of(self, options: TaskOptions, depth: int) -> PoolKey:
        known = self._last_pool  # most programs submit with one record of options for long
        if known is None or known[0] is not options or known[1][1] != depth:
            resources = {"CPU": options.num_cpus, **options.resources}
            known = self._last_pool = options, (tuple(sorted(resources.items())), depth)
        return known[1]

    def _hold(self, task: PendingTask, refs: Sequence[ObjectRef]) -> None:
        for ref in refs:
            self.objects.hold(ref.id, ref.owner)
        task.held += tuple(ref.id for ref in refs)

    def _results(self, task: PendingTask) -> list[ObjectRef] | ObjectRefGenerator:
        if task.message.num_returns == m.Task.STREAMING:
            return ObjectRefGenerator(task.id, self)
        if len(task.returns) == 1:  # as nearly always: a comprehension is a call
            return [ObjectRef(task.returns[0], self.address, self)]
        return [ObjectRef(object_id, self.address, self) for object_id in task.returns]

    def _await_values(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[m.Value]:
        waiter = Waiter(len(refs) + 1)
        happened, when_ready = waiter.happened, self.objects.when_ready
        with self.lock:
            self._drain()
            for ref in refs:
                if when_ready(ref.id, happened):
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

    def _load(self, ref: ObjectRef, value: m.Value, give_up_at: float | None) -> Any:
        if value.kind == m.Value.INLINE and not value.refs:
            return serialize.loads(value.data, None) if value.data else value.plain()
        adopted: list[bytes] = []
        object_id = ref.id
        while True:
            try:
                result = self.load_value(object_id, value, adopted)
                break
            except ObjectLostError as lost:
                if value.kind != m.Value.STORED:  # that is what it is
                    raise
                with self.lock:
                    why = self.objects.lost(object_id, value.node)
                if why:
                    raise ObjectLostError(f"{lost}, and {why}") from None
            left = None if give_up_at is None else max(0.0, give_up_at - time.monotonic())
            (value,) = self._await_values([ref], left)
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
        self._begun_at = 0.0  # what the program calls next is no part of a burst before this
        self._check_alive()
        self.interrupts.check()
        return is_done

    def _begin(self) -> None:
        """At the start of each call of the seam that changes tables."""
        now = time.monotonic()
        quiet_s = now - self._begun_at
        self._is_burst = quiet_s < _BURST_S
        if quiet_s > _SERVE_EVERY_S:  # no burst, or its begin
            self._served_at = now
            self.interrupts.guard()  # asking who handles SIGINT takes 2 µs
        elif now - self._served_at > _SERVE_EVERY_S and not self.interrupts.is_locked():
            self._served_at = now
            self.loop.serve()
            self.interrupts.check()
            now = time.monotonic()
        self._begun_at = now
        self._check_alive()
