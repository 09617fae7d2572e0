"""How do tasks and actors run in the thread that calls them?

For debugging (breakpoints work, errors show at the line that submitted the task) and for work too
small to be sent elsewhere. A task runs inside `.remote()`; a generator task runs on, item by item,
while its consumer asks for items; an actor is a plain object. Values are copied as if they had
travelled. Functions and classes are used as they are: what they close over is not copied.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from rdata.core.ids import object_id, task_of
from rdata.core.object_ref import ObjectRef, ObjectRefGenerator, of_ended_runtime
from rdata.core.runtime.inline_calls import Actor, Call, Failure
from rdata.core.runtime.inline_process import InlineProcess
from rdata.core.runtime.seam import Returned, RuntimeContext, Waitable
from rdata.core.runtime.snapshot import Snapshot, copy_arguments
from rdata.core.specs import ActorInterface, ActorOptions, Function, MethodOptions, TaskOptions
from rdata.errors import (
    ActorUnschedulableError,
    TaskCancelledError,
    TaskUnschedulableError,
)


class InlineRuntime(InlineProcess):
    """The runtime of `rdata.init(local_mode=True)`. See the seam for what each method promises."""

    # tasks ------------------------------------------------------------------------------------

    def submit(
        self,
        function: Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: TaskOptions,
    ) -> Returned:
        self._begin()
        self._check_travels(function)
        name = options.name or function.name
        arguments = copy_arguments(name, args, kwargs).check(self)
        task_id = next(self._ids)
        needs = {"CPU": options.num_cpus, **options.resources}
        call = Call(
            task_id=task_id,
            origin=f"task {name}",
            context=self._context(task_id=task_id.hex(), task_name=name, assigned_resources=needs),
            run=lambda: self._apply(function.target, arguments),
            num_returns=options.num_returns,
            needs=needs,
            retries=options.max_retries,
            retry_exceptions=options.retry_exceptions,
        )
        if lack := self._resources.lack(needs):
            return self._failed(call, Failure(TaskUnschedulableError(f"task {name} {lack}")))
        return self._perform(call)

    def _check_travels(self, function: Function) -> None:
        """Find what a cluster would refuse, though nothing here needs the function's copy."""
        if function not in self._travelled:
            Snapshot(function.target, f"function or class {function.name}").check(self)
            self._travelled.add(function)

    # generators -------------------------------------------------------------------------------

    def next_item(self, generator: ObjectRefGenerator, timeout: float | None) -> ObjectRef | None:
        self._begin()
        self._check_owned(generator)
        stream = self._streams.get(generator.task_id)
        if stream is None:  # taken to its end before
            return None
        with stream.lock:
            if not stream.made:
                self._advance(stream)
            if stream.made:
                return stream.made.popleft()
        self._streams.pop(generator.task_id, None)
        return None

    # actors -----------------------------------------------------------------------------------

    def create_actor(
        self,
        cls: Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
        interface: ActorInterface,
    ) -> ObjectRef:
        self._begin()
        self._check_travels(cls)
        arguments = copy_arguments(f"{interface.class_name}.__init__", args, kwargs).check(self)
        task_id = next(self._ids)
        actor = Actor(
            object_id(task_id, 0), interface, options, options.namespace or self._namespace
        )
        call = Call(
            task_id=task_id,
            origin=f"actor {interface.class_name}.__init__",
            context=self._actor_context(actor, task_id, f"{interface.class_name}.__init__"),
            run=lambda: self._apply(cls.target, arguments),
            num_returns=1,
            needs={},
            actor=actor,
        )
        with actor.lock:  # who finds it by its name meanwhile waits for its constructor
            ref = self._place(actor)
            if ref.id != actor.id or actor.failure is not None:
                return ref
            try:
                instance = self._run(call, call.run)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._end_actor(actor, call.failure(error))
                return ref
            with self._lock:
                if actor.failure is None:  # nobody has killed it meanwhile
                    actor.instance = instance
        return ref

    def _place(self, actor: Actor) -> ObjectRef:
        """Give the actor its name and its resources; a reference to it, or to the one it gets."""
        num_cpus = actor.options.num_cpus
        needs = {"CPU": 1.0 if num_cpus is None else num_cpus, **actor.options.resources}
        with self._lock:
            name = actor.options.name
            if name is not None:
                other = self._named(actor.namespace, name)
                if other is not None and actor.options.get_if_exists:
                    return self._new_ref(other.id)
                if other is not None:
                    raise ValueError(
                        f"an actor named {name!r} lives in namespace {actor.namespace!r}: "
                        "take another name, or get_if_exists=True"
                    )
                self._names[actor.namespace, name] = actor
            ref = self._new_ref(actor.id)
            self._actors[actor.id] = actor
            if actor.options.lifetime == "detached":
                actor.detached_ref = self._new_ref(actor.id)
            lack = self._resources.lack(needs)
            if not lack:
                self._resources.held.update(actor.held)
                actor.is_placed = True
        if lack:
            error = ActorUnschedulableError(f"actor {actor.interface.class_name} {lack}")
            self._end_actor(actor, Failure(error))
        return ref

    def call_actor(
        self,
        actor: ObjectRef,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: MethodOptions,
    ) -> Returned:
        self._begin()
        target = self._found(self._actors, actor)
        name = f"{target.interface.class_name}.{method}"
        arguments = copy_arguments(name, args, kwargs).check(self)
        task_id = next(self._ids)
        call = Call(
            task_id=task_id,
            origin=f"actor {name}",
            context=self._actor_context(target, task_id, options.name),
            run=lambda: self._apply(getattr(target.instance, method), arguments),
            num_returns=options.num_returns,
            needs={},
            actor=target,
        )
        with target.lock:
            for stream in list(target.streams):  # an earlier generator call is done first
                while not stream.is_finished:
                    self._advance(stream)
            if target.failure is not None:
                return self._failed(call, target.failure)
            return self._perform(call)

    def find_actor(self, name: str, namespace: str | None) -> tuple[ObjectRef, ActorInterface]:
        self._begin()
        namespace = namespace or self._namespace
        with self._lock:
            actor = self._named(namespace, name)
            if actor is not None:
                return self._new_ref(actor.id), actor.interface
            known = sorted(known for space, known in self._names if space == namespace)
        raise ValueError(
            f"no live actor is named {name!r} in namespace {namespace!r}; named are: "
            f"{', '.join(known) or 'none'}. An actor ends with its last handle, unless it was "
            "created with lifetime='detached'"
        )

    def _named(self, namespace: str, name: str) -> Actor | None:
        actor = self._names.get((namespace, name))
        return actor if actor is not None and actor.id in self._actors else None  # it ends just now

    def kill_actor(self, actor: ObjectRef, class_name: str) -> None:
        self._begin()
        target = self._found(self._actors, actor)
        self._end_actor(target, target.death("it was ended by rdata.kill()"))

    # objects ----------------------------------------------------------------------------------

    def put(self, value: Any) -> ObjectRef:
        self._begin()
        return self._store(object_id(next(self._ids), 0), Snapshot(value).check(self))

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        self._begin()
        values = []
        for ref in refs:
            stored = self._found(self._objects, ref)
            if isinstance(stored, Failure):
                raise stored.error()
            values.append(stored.load())
        return values

    def wait(
        self, refs: Sequence[Waitable], num_returns: int, timeout: float | None
    ) -> tuple[list[Waitable], list[Waitable]]:
        self._begin()
        for ref in refs:  # all are ready: an object was made by its task, an item is by next_item
            self._check_owned(ref)
        return list(refs[:num_returns]), list(refs[num_returns:])

    def on_ready(self, ref: Waitable, callback: Callable[[], None]) -> None:
        if self._is_down:
            raise of_ended_runtime(ref)
        self._begin()
        callback()

    def cancel(self, ref: Waitable, force: bool, recursive: bool) -> None:
        self._begin()
        self._check_owned(ref)
        task_id = ref.task_id if isinstance(ref, ObjectRefGenerator) else task_of(ref.id)
        stream = self._streams.get(task_id)
        if stream is not None:  # any other task has finished, as has what it has submitted
            error = TaskCancelledError(f"{stream.call.origin} was cancelled")
            self._finish(stream, Failure(error))

    # the whole --------------------------------------------------------------------------------

    def _context(self, **what: Any) -> RuntimeContext:
        return RuntimeContext(self._job_id, self._node_id, self._job_id, self._namespace, **what)

    def _actor_context(self, actor: Actor, task_id: bytes, name: str) -> RuntimeContext:
        return self._context(
            task_id=task_id.hex(),
            task_name=name,
            actor_id=actor.id.hex(),
            actor_name=actor.options.name,
            assigned_resources=actor.held,
        )

    def context(self) -> RuntimeContext:
        return getattr(self._local, "context", None) or self._context()

    def nodes(self) -> list[dict[str, Any]]:
        self._begin()
        return [
            {
                "NodeID": self._node_id,
                "Alive": True,
                "NodeManagerAddress": "127.0.0.1",
                "NodeManagerHostname": socket.gethostname(),
                "NodeManagerPort": 0,
                "Resources": dict(self._resources.total),
                "IsHead": True,
                "SessionDir": None,
            }
        ]

    def cluster_resources(self) -> dict[str, float]:
        self._begin()
        return dict(self._resources.total)

    def available_resources(self) -> dict[str, float]:
        self._begin()
        with self._lock:
            return self._resources.available()

    def await_preloaded(self, timeout: float) -> None: ...  # nothing is started

    def shutdown(self) -> None:
        if self._is_down:
            return
        self._begin()
        for stream in list(self._streams.values()):
            self._finish(stream)
        for actor in list(self._actors.values()):
            self._end_actor(actor, actor.death("rdata.shutdown() was called"))
        self._is_down = True
        for table in (self._objects, self._actors, self._streams, self._num_refs, self._unclosed):
            table.clear()
