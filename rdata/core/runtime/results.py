"""How does what a call returns, or raises, get into a message? See `decoder` for the way in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

from rdata.core import ids, serialize
from rdata.core import messages as m
from rdata.core.runtime.cluster import ClusterRuntime
from rdata.core.serialize import Serialized
from rdata.errors import TaskError, describe


class Call(Protocol):
    """A call, and who waits for what it returns."""

    submitter: bytes
    message: m.Task
    inline_bytes: int  # larger results go to the store


class ResultEncoder:
    """Results on their way. Runs user code: pickling."""

    def __init__(self, runtime: ClusterRuntime) -> None:
        self._runtime = runtime
        # By task and index: references inside, held until the submitter has told their owners.
        self._lent: dict[tuple[bytes, int], tuple[bytes, list[bytes]]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held for those who have not yet received it. Wants the lock."""
        return not self._lent

    def values(self, call: Call, results: Sequence[Any]) -> list[m.Value]:
        """All of the results; nothing is left of them if one cannot travel."""
        done: list[m.Value] = []
        try:
            for index, result in enumerate(results):
                done.append(self.value(call, index, result))
        except BaseException:
            runtime = self._runtime
            with runtime.lock:
                for index, value in enumerate(done):
                    self.received(call.message.id, index)
                    runtime.objects.discard(ids.object_id(call.message.id, index), value)
                runtime.objects.flush_frees()
            raise
        return done

    def value(self, call: Call, index: int, result: Any) -> m.Value:
        """The result of that index, or a generator's item."""
        runtime = self._runtime
        limit = call.inline_bytes
        size = serialize.size_of_atoms(result if type(result) is tuple else (result,), limit)
        if size >= 0:
            return m.Value(m.Value.INLINE, size=size, atoms=result)
        serialized = serialize.dumps(result)
        if serialized.size > limit:
            runtime.store.write(ids.object_id(call.message.id, index), serialized)
        refs = self._lend(call, index, serialized) if serialized.refs else ()
        if serialized.size <= limit:
            return m.Value(m.Value.INLINE, serialized.to_bytes(), serialized.size, refs=refs)
        return m.Value(m.Value.STORED, b"", serialized.size, runtime.node_id, refs)

    def error(self, call: Call, index: int, error: BaseException) -> m.Value:
        """The error in place of that result, or of a generator's item."""
        try:
            return self._error(call, index, error)
        except Exception:  # in code of the exception's class
            return self._error(call, index, TaskError(describe(error)))

    def received(self, task: bytes, index: int) -> None:
        """The owners of the references inside that result know who holds them. Wants the lock."""
        _, held = self._lent.pop((task, index), (b"", []))
        self._runtime.objects.drop_all(held)

    def process_gone(self, process: bytes) -> None:
        """It will not receive what it was sent. Wants the lock."""
        for task, index in [key for key, (to, _) in self._lent.items() if to == process]:
            self.received(task, index)

    def _error(self, call: Call, index: int, error: BaseException) -> m.Value:
        message = call.message
        kind = "actor method" if message.method else "task"
        origin = f"{kind} {message.name} (pid {os.getpid()}, node {self._runtime.node_id.hex()})"
        value = serialize.dump_error(error, origin)
        return m.Value(m.Value.ERROR, value.pickled, refs=self._lend(call, index, value))

    def _lend(self, call: Call, index: int, result: Serialized) -> tuple[tuple[bytes, str], ...]:
        refs = result.ref_owners()
        runtime = self._runtime
        with runtime.lock:
            if refs and runtime.peers.is_connected(call.submitter):  # else nobody will receive it
                for object_id, owner in refs:
                    runtime.objects.hold(object_id, owner)
                held = [object_id for object_id, _ in refs]
                self._lent[call.message.id, index] = call.submitter, held
        return refs
