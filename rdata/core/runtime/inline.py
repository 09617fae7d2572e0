"""How do tasks and actors run in the thread that calls them?

For debugging (breakpoints work, errors show at the line that submitted the task) and for work too
small to be sent elsewhere. A task runs inside `.remote()`; a generator task runs on, item by item,
while its consumer asks for items; an actor is a plain object. Values are copied as if they had
travelled. Functions and classes are used as they are: what they close over is not copied.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakSet

from rdata.core.ids import new_process_id, object_id, task_ids, task_of
from rdata.core.object_ref import ObjectRef, ObjectRefGenerator
from rdata.core.returns import returned, split_returns
from rdata.core.runtime.inline_calls import Actor, Call, DependencyError, Failure, Resources, Stream
from rdata.core.runtime.seam import Returned, RuntimeContext, Waitable
from rdata.core.runtime.snapshot import Snapshot, copy_arguments
from rdata.core.specs import ActorInterface, ActorOptions, Function, MethodOptions, TaskOptions
from rdata.errors import (
    ActorUnschedulableError,
    NotInitializedError,
    ObjectLostError,
    TaskCancelledError,
    TaskUnschedulableError,
)

T = TypeVar("T")
_log = logging.getLogger(__name__)


class InlineRuntime:
    """The runtime of `rdata.init(local_mode=True)`. See the seam for what each method promises."""

    def __init__(
        self, num_cpus: float, resources: Mapping[str, float], namespace: str | None
    ) -> None:
        self.released: deque[bytes] = deque()
        self.dropped_streams: deque[bytes] = deque()
        self._ids = task_ids(new_process_id())
        self._job_id = new_process_id().hex()
        self._node_id = new_process_id().hex()
        self._namespace = namespace or "default"
        self._resources = Resources({"CPU": float(num_cpus), **resources})
        # Held while the tables below change, and never while user code runs.
        self._lock = threading.RLock()
        self._num_refs: Counter[bytes] = Counter()
        self._objects: dict[bytes, Snapshot | Failure] = {}
        self._actors: dict[bytes, Actor] = {}
        self._names: dict[tuple[str, str], Actor] = {}
        self._streams: dict[bytes, Stream] = {}
        self._travelled: WeakSet[Function] = WeakSet()
        self._local = threading.local()
        self._is_down = False

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
        arguments = copy_arguments(name, args, kwargs)
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
            Snapshot(function.target, f"function or class {function.name}")
            self._travelled.add(function)

    def _apply(self, target: Callable[..., Any], arguments: Snapshot) -> Any:
        args, kwargs = arguments.load()
        return target(
            *(self._argument(value) for value in args),
            **{name: self._argument(value) for name, value in kwargs.items()},
        )

    def _argument(self, value: Any) -> Any:
        if not isinstance(value, ObjectRef):
            return value
        stored = self._stored(value)
        if isinstance(stored, Failure):
            raise DependencyError(stored)
        return stored.load()

    def _perform(self, call: Call) -> Returned:
        num_returns = call.num_returns
        if num_returns == "streaming":
            stream = Stream(call)
            self._streams[call.task_id] = stream
            if call.actor is not None:
                call.actor.streams.append(stream)
            return ObjectRefGenerator(call.task_id, self)
        attempt = 0
        while True:
            try:
                results = self._run(
                    call, lambda: split_returns(call.run(), num_returns, call.origin)
                )
                copies = [self._copy(result, call) for result in results]
                break
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                if not call.is_retried(error, attempt):
                    return self._failed(call, call.failure(error))
            attempt += 1
        if call.actor is not None and call.actor.failure is not None:  # killed itself meanwhile
            return self._failed(call, call.actor.failure)
        return self._made(call, copies)

    def _made(self, call: Call, values: Sequence[Snapshot | Failure]) -> Returned:
        refs = [self._store(object_id(call.task_id, at), value) for at, value in enumerate(values)]
        return returned(refs)

    def _failed(self, call: Call, failure: Failure) -> Returned:
        if call.num_returns != "streaming":
            return self._made(call, [failure] * call.num_returns)
        stream = Stream(call, is_finished=True)
        stream.made.append(self._store(object_id(call.task_id, 0), failure))
        self._streams[call.task_id] = stream
        return ObjectRefGenerator(call.task_id, self)

    @staticmethod
    def _copy(result: Any, call: Call) -> Snapshot:
        return Snapshot(result, f"the result of {call.origin}")

    def _run(self, call: Call, step: Callable[[], T]) -> T:
        """Run user code, on the call's resources and with its context."""
        outer = getattr(self._local, "context", None)
        self._local.context = call.context
        with self._lock:
            self._resources.held.update(call.needs)
        try:
            return step()
        finally:
            self._local.context = outer
            with self._lock:
                self._resources.held.subtract(call.needs)

    # generators -------------------------------------------------------------------------------

    def next_item(self, generator: ObjectRefGenerator, timeout: float | None) -> ObjectRef | None:
        self._begin()
        self._check_owned(generator)
        stream = self._streams.get(generator.task_id)
        if stream is None:  # taken to its end before
            return None
        actor = stream.call.actor
        with actor.lock if actor is not None else stream.lock:
            if not stream.made:
                self._advance(stream)
            if stream.made:
                return stream.made.popleft()
        self._streams.pop(generator.task_id, None)
        return None

    def _advance(self, stream: Stream) -> None:
        """Run the generator up to its next new item, or to its end."""
        call = stream.call
        while not stream.is_finished:
            try:
                item = self._run(call, stream.advance)
                copy = None if stream.num_again else self._copy(item, call)
            except StopIteration:
                if stream.num_again:
                    self._append(stream, stream.nondeterministic())
                self._finish(stream)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                if call.is_retried(error, stream.attempt):
                    stream.attempt, stream.items = stream.attempt + 1, None
                    stream.num_again = stream.num_made
                    continue
                self._append(stream, call.failure(error))
                self._finish(stream)
            else:
                if copy is not None:
                    self._append(stream, copy)
                    return
                stream.num_again -= 1

    def _append(self, stream: Stream, stored: Snapshot | Failure) -> None:
        if stream.is_finished:  # its own code has cancelled it, or killed its actor
            return
        stream.made.append(self._store(object_id(stream.call.task_id, stream.num_made), stored))
        stream.num_made += 1

    def _finish(self, stream: Stream) -> None:
        stream.is_finished = True
        items, stream.items = stream.items, None
        if stream.call.actor is not None and stream in stream.call.actor.streams:
            stream.call.actor.streams.remove(stream)
        close = getattr(items, "close", None)
        if close is None or getattr(items, "gi_running", False):
            return  # a generator that stops itself is closed when it has yielded
        try:
            self._run(stream.call, close)
        except Exception:  # of a `finally` in the user's generator; nobody waits for it any more
            _log.exception("%s raised when it was stopped", stream.call.origin)

    def _stop(self, stream: Stream, failure: Failure) -> None:
        if not stream.is_finished:
            self._append(stream, failure)
            self._finish(stream)

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
        arguments = copy_arguments(f"{interface.class_name}.__init__", args, kwargs)
        task_id = next(self._ids)
        actor = Actor(
            object_id(task_id, 0), interface, options, options.namespace or self._namespace
        )
        with self._lock:
            if options.name is not None:
                taken = self._names.get((actor.namespace, options.name))
                if taken is not None and options.get_if_exists:
                    return self._new_ref(taken.id)
                if taken is not None:
                    raise ValueError(
                        f"an actor named {options.name!r} lives in namespace {actor.namespace!r}: "
                        "take another name, or get_if_exists=True"
                    )
                self._names[actor.namespace, options.name] = actor
            ref = self._new_ref(actor.id)
            self._actors[actor.id] = actor
            if options.lifetime == "detached":
                actor.detached_ref = self._new_ref(actor.id)
        lack = self._resources.lack({"CPU": 1.0, **actor.held} if not actor.held else actor.held)
        if lack:
            message = f"actor {interface.class_name} {lack}"
            actor.failure = Failure(ActorUnschedulableError(message))
            self._end_actor(actor, message)
            return ref
        with self._lock:
            self._resources.held.update(actor.held)
            actor.is_placed = True
        call = Call(
            task_id=task_id,
            origin=f"actor {interface.class_name}.__init__",
            context=self._actor_context(actor, task_id, f"{interface.class_name}.__init__"),
            run=lambda: self._apply(cls.target, arguments),
            num_returns=1,
            needs={},
            actor=actor,
        )
        try:
            with actor.lock:
                actor.instance = self._run(call, call.run)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            actor.failure = call.failure(error)
            self._end_actor(actor, "its constructor raised")
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
        self._check_owned(actor)
        target = self._actors[actor.id]
        name = f"{target.interface.class_name}.{method}"
        arguments = copy_arguments(name, args, kwargs)
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
            actor = self._names.get((namespace, name))
            if actor is not None:
                return self._new_ref(actor.id), actor.interface
            known = sorted(known for space, known in self._names if space == namespace)
        raise ValueError(
            f"no live actor is named {name!r} in namespace {namespace!r}; named are: "
            f"{', '.join(known) or 'none'}. An actor ends with its last handle, unless it was "
            "created with lifetime='detached'"
        )

    def kill_actor(self, actor: ObjectRef, class_name: str) -> None:
        self._begin()
        self._check_owned(actor)
        self._end_actor(self._actors[actor.id], "rdata.kill() was called")

    def _end_actor(self, actor: Actor, how: str) -> None:
        """Let go of what it has; the first reason that is given stays the one that is told."""
        failure = actor.die(how)
        with self._lock:
            named = (actor.namespace, actor.options.name or "")
            if self._names.get(named) is actor:
                del self._names[named]
            if actor.is_placed:
                actor.is_placed = False
                self._resources.held.subtract(actor.held)
        actor.detached_ref = None
        for stream in list(actor.streams):
            self._stop(stream, failure)

    # objects ----------------------------------------------------------------------------------

    def put(self, value: Any) -> ObjectRef:
        self._begin()
        return self._store(object_id(next(self._ids), 0), Snapshot(value))

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        self._begin()
        values = []
        for ref in refs:
            stored = self._stored(ref)
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
        self._begin()
        self._check_owned(ref)
        callback()

    def cancel(self, ref: Waitable, force: bool) -> None:
        self._begin()
        self._check_owned(ref)
        task_id = ref.task_id if isinstance(ref, ObjectRefGenerator) else task_of(ref.id)
        stream = self._streams.get(task_id)
        if stream is not None:  # any other task has finished
            self._stop(stream, Failure(TaskCancelledError(f"{stream.call.origin} was cancelled")))

    def _new_ref(self, id: bytes) -> ObjectRef:
        with self._lock:
            self._num_refs[id] += 1
        return ObjectRef(id, "inline", self)

    def _store(self, id: bytes, stored: Snapshot | Failure) -> ObjectRef:
        self._objects[id] = stored
        return self._new_ref(id)

    def _stored(self, ref: ObjectRef) -> Snapshot | Failure:
        self._check_owned(ref)
        return self._objects[ref.id]

    def _check_owned(self, ref: Waitable) -> None:
        if ref._runtime is not self:
            raise ObjectLostError(
                f"{ref!r} belongs to a runtime that rdata.shutdown() ended, and its value is gone: "
                "make it again after rdata.init()"
            )

    # the whole --------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Every call starts here: refuse after the end, and do what finalisers have asked for."""
        if self._is_down:
            raise NotInitializedError("rdata.shutdown() has ended this runtime: call rdata.init()")
        while self.released:
            self._release(self.released.popleft())
        while self.dropped_streams:
            stream = self._streams.pop(self.dropped_streams.popleft(), None)
            if stream is not None and not stream.is_finished:
                self._finish(stream)

    def _release(self, id: bytes) -> None:
        with self._lock:
            self._num_refs[id] -= 1
            if self._num_refs[id]:
                return
            del self._num_refs[id]
            freed = self._objects.pop(id, None)
            actor = self._actors.pop(id, None)
        del freed  # outside of the lock: the references within it go now
        if actor is not None:
            self._end_actor(actor, "its last handle went out of scope")

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
            if not stream.is_finished:
                self._finish(stream)
        for actor in list(self._actors.values()):
            self._end_actor(actor, "rdata.shutdown() was called")
        self._is_down = True
        for table in (self._objects, self._actors, self._streams, self._num_refs):
            table.clear()
