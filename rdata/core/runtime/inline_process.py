"""How does user code run in the thread that calls it, and what is kept of what it makes?

The seam's methods, which programs call, are one class further up: `inline.py`. Any thread may call
them. Tables change under one lock, which is never held while user code runs; an actor has a lock of
its own, so that one call at a time runs there, and so has a generator.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast
from weakref import WeakSet

from rdata.core.ids import new_process_id, object_id, task_ids
from rdata.core.object_ref import ObjectRef, ObjectRefGenerator, of_ended_runtime
from rdata.core.returns import returned, split_returns
from rdata.core.runtime.inline_calls import (
    Actor,
    Call,
    DependencyError,
    Failure,
    Resources,
    Stream,
    taken,
)
from rdata.core.runtime.seam import Returned, Runtime, Waitable
from rdata.core.runtime.snapshot import Snapshot
from rdata.core.specs import Function
from rdata.errors import NotInitializedError

T = TypeVar("T")

_log = logging.getLogger(__name__)
_ENDED = "rdata.shutdown() has ended this runtime: call rdata.init()"


class InlineProcess:
    """Tables, and the running of calls."""

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
        self._unclosed: deque[Stream] = deque()  # finished while their code ran
        self._travelled: WeakSet[Function] = WeakSet()
        self._local = threading.local()
        self._is_down = False

    # calls --------------------------------------------------------------------------------

    def _apply(self, target: Callable[..., Any], arguments: Snapshot) -> Any:
        args, kwargs = arguments.load()
        return target(
            *(self._argument(value) for value in args),
            **{name: self._argument(value) for name, value in kwargs.items()},
        )

    def _argument(self, value: Any) -> Any:
        if not isinstance(value, ObjectRef):
            return value
        stored = self._found(self._objects, value)
        if isinstance(stored, Failure):
            raise DependencyError(stored)
        return stored.load()

    def _perform(self, call: Call) -> Returned:
        num_returns = call.num_returns
        if num_returns == "streaming":
            stream = Stream(call)
            if call.actor is not None:
                stream.lock = call.actor.lock
                call.actor.streams.append(stream)
            self._streams[call.task_id] = stream
            return ObjectRefGenerator(call.task_id, self._as_runtime())
        attempt = 0
        while True:
            try:
                results = self._run(
                    call, lambda: split_returns(call.run(), num_returns, call.origin)
                )
                copies = [Snapshot(result) for result in results]
                break
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                if not call.is_retried(error, attempt):
                    return self._failed(call, self._failure(call, error))
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
        return ObjectRefGenerator(call.task_id, self._as_runtime())

    def _failure(self, call: Call, error: BaseException) -> Failure:
        """What `get` will raise because the user's code raised `error`."""
        actor = call.actor
        if actor is not None and actor.failure is not None:  # it was killed meanwhile
            return actor.failure
        failure = call.failure(error)
        if actor is not None and isinstance(error, SystemExit):
            return self._end_actor(actor, failure)
        return failure

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

    # generators ---------------------------------------------------------------------------

    def _advance(self, stream: Stream) -> None:
        """Run the generator up to its next new item, or to its end."""
        call = stream.call
        while not stream.is_finished:
            try:
                item = self._run(call, stream.advance)
                copy = None if stream.num_again else Snapshot(item)
            except StopIteration:
                self._finish(stream, stream.nondeterministic() if stream.num_again else None)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                if call.is_retried(error, stream.attempt):
                    stream.attempt, stream.items = stream.attempt + 1, None
                    stream.num_again = stream.num_made
                    continue
                self._finish(stream, self._failure(call, error))
            else:
                if copy is not None:
                    self._append(stream, copy)
                    return
                stream.num_again -= 1

    def _append(self, stream: Stream, stored: Snapshot | Failure) -> None:
        with self._lock:
            if stream.is_finished:  # it was cancelled, or its actor killed, while this was made
                return
            stream.made.append(self._store(object_id(stream.call.task_id, stream.num_made), stored))
            stream.num_made += 1

    def _finish(self, stream: Stream, failure: Failure | None = None) -> None:
        """Make no item any more but the failure, if there is one; from any thread."""
        actor = stream.call.actor
        with self._lock:
            if stream.is_finished:
                return
            if failure is not None:
                self._append(stream, failure)
            stream.is_finished = True
            if actor is not None:
                actor.streams.remove(stream)
        if not self._close(stream):
            self._unclosed.append(stream)
        if actor is not None:
            self._end_if_unheld(actor)

    def _close(self, stream: Stream) -> bool:
        try:
            return self._run(stream.call, stream.close)
        except Exception:  # of a `finally` in the user's generator; nobody waits for it any more
            _log.exception("%s raised when it was stopped", stream.call.origin)
            return True

    # actors -------------------------------------------------------------------------------

    def _end_if_unheld(self, actor: Actor) -> None:
        """End the actor if its last handle is gone, and all that was called is done."""
        with self._lock:
            if self._num_refs[actor.id] or actor.streams:
                return
            self._actors.pop(actor.id, None)
        self._end_actor(actor, actor.death("its last handle went out of scope"))

    def _end_actor(self, actor: Actor, failure: Failure) -> Failure:
        """Let go of what it has; what its calls give from now on: the first failure it had."""
        with self._lock:
            failure = actor.failure = actor.failure or failure
            named = (actor.namespace, actor.options.name or "")
            if self._names.get(named) is actor:
                del self._names[named]
            if actor.is_placed:
                actor.is_placed = False
                self._resources.held.subtract(actor.held)
            instance, actor.instance = actor.instance, None
        del instance  # outside of the lock: its finaliser is the user's code
        actor.detached_ref = None
        for stream in list(actor.streams):
            self._finish(stream, failure)
        return failure

    # references ---------------------------------------------------------------------------

    def _new_ref(self, id: bytes) -> ObjectRef:
        with self._lock:
            self._num_refs[id] += 1
        return ObjectRef(id, "inline", self._as_runtime())

    def _store(self, id: bytes, stored: Snapshot | Failure) -> ObjectRef:
        self._objects[id] = stored
        return self._new_ref(id)

    def _found(self, table: Mapping[bytes, T], ref: ObjectRef) -> T:
        self._check_owned(ref)
        found = table.get(ref.id)
        if found is None:  # another thread has just ended the runtime
            raise NotInitializedError(_ENDED)
        return found

    def _check_owned(self, ref: Waitable) -> None:
        if ref._runtime is not self._as_runtime():
            raise of_ended_runtime(ref)

    def _release(self, id: bytes) -> None:
        with self._lock:
            self._num_refs[id] -= 1
            if self._num_refs[id]:
                return
            del self._num_refs[id]
            freed = self._objects.pop(id, None)
            actor = self._actors.get(id)
        del freed  # outside of the lock: the references within it go now
        if actor is not None:
            self._end_if_unheld(actor)

    def _begin(self) -> None:
        """Every call starts here: refuse after the end, and do what finalisers have asked for."""
        if self._is_down:
            raise NotInitializedError(_ENDED)
        for id in taken(self.released):
            self._release(id)
        for task_id in taken(self.dropped_streams):
            stream = self._streams.pop(task_id, None)
            if stream is not None:
                self._finish(stream)
        if self._unclosed:
            running = [stream for stream in taken(self._unclosed) if not self._close(stream)]
            self._unclosed.extend(running)

    def _as_runtime(self) -> Runtime:
        return cast("Runtime", self)  # which its subclass is
