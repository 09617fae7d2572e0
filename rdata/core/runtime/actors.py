"""How do calls reach an actor, in the order in which this process made them?

    new ──lease granted, or located──► connected ──its process ends──► dead
     └────────────── creation fails, killed, owner gone ────────────────┘

Calls wait in one queue an actor until the first is ready to go: its arguments are known, and so is
where the actor runs. Its creator sends the constructor ahead of them on the same connection.
Every method wants the runtime's lock held.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence

from msgspec import Struct, field

from rdata.core import ids, serialize
from rdata.core import messages as m
from rdata.core.runtime.agent_link import AgentLink
from rdata.core.runtime.calls import PendingTask
from rdata.core.runtime.objects import ObjectTable
from rdata.core.runtime.peers import Peers
from rdata.core.runtime.streams import Stream
from rdata.core.runtime.tasks import TaskTable, are_known, fill_slots, push_message, resolve
from rdata.core.scheduling.submitter import BATCH
from rdata.errors import ActorDiedError, ActorUnschedulableError, RdataError, TaskCancelledError


class _Actor(Struct, eq=False):
    """An actor, as one of its callers sees it."""

    id: bytes
    name: str
    queue: deque[PendingTask] = field(default_factory=deque)
    sent: dict[bytes, PendingTask] = field(default_factory=dict)  # without a reply yet
    worker: bytes = b""
    address: str = ""
    death: m.Value | None = None  # the error that its calls give
    creation: PendingTask | None = None  # in its creator, until the constructor has returned
    key: int | None = None  # of the creator's demand for its lease
    has_name: bool = False  # and this process is its owner
    is_unheld: bool = False  # its last handle is gone: it ends after its calls
    has_sent_end: bool = False


class ActorTable:
    """The actors that this process calls."""

    def __init__(
        self, agent: AgentLink, peers: Peers, objects: ObjectTable, tasks: TaskTable
    ) -> None:
        self._agent = agent
        self._peers = peers
        self._objects = objects
        self._tasks = tasks
        self._actors: dict[bytes, _Actor] = {}  # by object id
        self._by_worker: dict[bytes, _Actor] = {}
        self._by_key: dict[int, _Actor] = {}  # while a lease for it is wanted
        self._keys = itertools.count(1, 2)  # odd: tasks have the even ones
        self._calls: dict[bytes, tuple[_Actor, PendingTask]] = {}
        self._held_back: dict[bytes, _Actor] = {}  # whose last calls are part of a burst
        self._streams = tasks.streams

    # ------------------------------------------------------------ creation

    def create(self, object_id: bytes, name: str, creation: PendingTask) -> None:
        """A new actor of this process's, before anybody can find it by its name."""
        has_name = bool(creation.message.actor_name)
        self._actors[object_id] = _Actor(object_id, name, creation=creation, has_name=has_name)
        entry = self._objects.create(object_id)
        entry.value = m.Value(m.Value.INLINE)  # there is nothing to wait for

    def place(
        self, object_id: bytes, resources: dict[str, float], held: dict[str, float], depth: int
    ) -> None:
        """Its name is its own: its lease is wanted once its arguments are known."""
        actor = self._actors[object_id]
        creation = actor.creation
        if creation is None:  # another thread has killed it
            return

        def want() -> None:
            if actor.death is not None:
                return
            failed = fill_slots(self._objects, creation)
            if failed is not None:
                self._end(actor, failed)
                self._agent.send(m.KillActor(ids.task_of(actor.id), "an argument of it failed"))
                return
            actor.key = next(self._keys)
            self._by_key[actor.key] = actor
            self._agent.send(m.Want(actor.key, resources, 1, depth, held, dedicated=True))

        resolve(self._objects, creation, want)

    @staticmethod
    def owns_key(key: int) -> bool:
        """Whether the agent's `key` is one of an actor."""
        return key % 2 == 1

    def granted(self, grant: m.Granted) -> None:
        """A worker for an actor: it gets the constructor, and all calls after it."""
        actor = self._by_key.pop(grant.key, None)
        if actor is None or actor.creation is None:  # it has ended, or has another
            self._agent.send(m.ReturnLease(grant.lease))
            return
        actor.worker, actor.address = grant.worker, grant.address
        self._by_worker[grant.worker] = actor
        self._calls[actor.creation.id] = actor, actor.creation
        self._push(actor, [actor.creation])
        self._send_ready(actor)

    def unschedulable(self, key: int, reason: str) -> None:
        """No node can ever hold the actor."""
        actor = self._by_key.get(key)
        if actor is None:
            return
        self._end(actor, _error(ActorUnschedulableError(f"actor {actor.name}: {reason}")))
        self._agent.send(m.KillActor(ids.task_of(actor.id), reason))

    # ------------------------------------------------------------ calls

    def call(self, object_id: bytes, call: PendingTask) -> None:
        """A call: it goes after all that this process has made before."""
        message = call.message
        if message.num_returns == m.Task.STREAMING:
            self._streams[call.id] = Stream(call.id, message.backpressure)
        else:
            for return_id in call.returns:
                self._objects.create(return_id)
        actor = self._actors.get(object_id)
        if actor is None:
            actor = self._actors[object_id] = _Actor(
                object_id, message.name.rpartition(f".{message.method}")[0]
            )
            self._agent.send(m.LocateActor(ids.task_of(object_id)))
        self._calls[call.id] = actor, call
        if actor.death is not None:
            self._finish(call, [actor.death])
            return
        actor.queue.append(call)
        if call.slots:
            resolve(self._objects, call, lambda: self._send_ready(actor))
        elif len(actor.queue) % BATCH:
            self._held_back[object_id] = actor
        else:
            self._send_ready(actor)

    def flush(self) -> None:
        """Send what was held back to go together."""
        while self._held_back:
            self._send_ready(self._held_back.popitem()[1])

    def _send_ready(self, actor: _Actor) -> None:
        if not actor.worker:
            return
        batch = []
        while actor.queue and actor.queue[0].num_unresolved == 0:
            call = actor.queue[0]
            if call.slots and not are_known(self._objects, call):
                resolve(self._objects, call, lambda: self._send_ready(actor))
                break
            actor.queue.popleft()
            failed = fill_slots(self._objects, call) if call.slots else None
            if failed is not None:
                self._finish(call, [failed])
                continue
            actor.sent[call.id] = call
            batch.append(call)
        if batch:
            self._push(actor, batch)
        self._end_if_unheld(actor)

    def _push(self, actor: _Actor, calls: list[PendingTask]) -> None:
        message = push_message(calls, set(), self._objects.inline_limit)
        self._peers.send(actor.address, message)

    # ------------------------------------------------------------ events

    def located(self, message: m.ActorAt) -> None:
        """The agent says where an actor runs, or how it ended."""
        actor = self._actors.get(ids.object_id(message.actor, 0))
        if actor is None or actor.worker or actor.death is not None:
            return
        if message.death:
            self._end(actor, self._died(actor, message.death))
            return
        actor.worker, actor.address = message.worker, message.address
        self._by_worker[message.worker] = actor
        self._send_ready(actor)

    def replied(self, worker: bytes, replies: list[m.Reply]) -> list[m.Reply]:
        """Finish the calls among these; the rest is not about actors."""
        if not self._calls:
            return replies
        others = []
        for reply in replies:
            known = self._calls.get(reply.task)
            if known is None:
                others.append(reply)
                continue
            actor, call = known
            if call is actor.creation:
                self._created(actor, reply)
            else:
                self._replied(actor, call, reply)
            for index, value in enumerate(reply.values):
                if value.refs:  # a generator's error stands in the place of its next item
                    at = max(0, reply.num_items) + index
                    self._tasks.acknowledge(worker, call.id, at, value)
        return others

    def _replied(self, actor: _Actor, call: PendingTask, reply: m.Reply) -> None:
        actor.sent.pop(call.id, None)
        stream = self._streams.get(call.id)
        if stream is not None and not reply.values:
            self._tasks.end_stream(stream, reply.num_items)
            self._forget(call)
        else:
            self._finish(call, reply.values)

    def _created(self, actor: _Actor, reply: m.Reply) -> None:
        creation, actor.creation = actor.creation, None
        assert creation is not None
        self._forget(creation)
        if reply.values and reply.values[0].kind == m.Value.ERROR:
            self._end(actor, reply.values[0])
            self._peers.send(actor.address, m.EndActor())

    def item(self, worker: bytes, message: m.Item) -> bool:
        """A generator method has yielded; False if it is not an actor's."""
        known = self._calls.get(message.task)
        if known is None:
            return False
        self._tasks.add_item(self._streams[message.task], message.index, message.value)
        if message.value.refs:
            self._tasks.acknowledge(worker, message.task, message.index, message.value)
        return True

    def process_gone(self, process: bytes, reason: str) -> None:
        """A process has ended: perhaps an actor's."""
        actor = self._by_worker.pop(process, None)
        if actor is None:
            return
        if actor.key is not None:  # its creator's; the head may not know yet that it ran there
            self._agent.send(m.KillActor(ids.task_of(actor.id), reason))
        self._end(actor, self._died(actor, reason))

    def unheld(self, object_id: bytes) -> bool:
        """The last handle of an actor of this process's is gone; False if it is no actor."""
        actor = self._actors.get(object_id)
        if actor is None:
            return False
        actor.is_unheld = True
        if actor.has_name:
            self._agent.send(m.FreeActorName(ids.task_of(object_id)))
        if actor.death is not None:
            del self._actors[object_id]
            self._objects.drop_all([inner for inner, _ in actor.death.refs])
        self._end_if_unheld(actor)
        return True

    def released(self, object_id: bytes) -> None:
        """The last handle in this process of another's actor is gone, if it is one."""
        actor = self._actors.pop(object_id, None)
        if actor is not None:
            self._by_worker.pop(actor.worker, None)

    def _end_if_unheld(self, actor: _Actor) -> None:
        if not actor.is_unheld or actor.has_sent_end or actor.death is not None:
            return
        if actor.worker and not actor.queue:
            actor.has_sent_end = True
            self._peers.send(actor.address, m.EndActor())
        elif not actor.worker and not actor.queue and actor.creation is not None:
            reason = "all handles to it are gone"
            self._agent.send(m.KillActor(ids.task_of(actor.id), reason))
            self._end(actor, self._died(actor, reason))

    def kill(self, object_id: bytes, name: str) -> None:
        """Somebody in this process wants the actor to end now."""
        reason = "it was ended by rdata.kill()"
        self._agent.send(m.KillActor(ids.task_of(object_id), reason))
        actor = self._actors.setdefault(object_id, _Actor(object_id, name))
        if actor.death is None:  # for this process, from now on; no call may slip through
            self._end(actor, self._died(actor, reason))

    def cancel(self, task_id: bytes, recursive: bool) -> bool:
        """Stop a call that has not finished; False if it is not an actor's."""
        known = self._calls.get(task_id)
        if known is None:
            return False
        actor, call = known
        call.is_cancelled = True
        if task_id in actor.sent:
            self._peers.send(actor.address, m.CancelTask(task_id, recursive))
        else:
            actor.queue.remove(call)  # or what comes after it would wait for its arguments
            error = TaskCancelledError(f"call {call.message.name} was cancelled")
            self._finish(call, [_error(error)])
            self._send_ready(actor)
            self._end_if_unheld(actor)
        return True

    def cancel_children(self, parent: bytes) -> None:
        """Stop what the task `parent`, which runs here, has submitted and has not finished."""
        for actor, call in list(self._calls.values()):
            if call.parent == parent and not call.is_cancelled and call is not actor.creation:
                self.cancel(call.id, recursive=True)
        self._tasks.cancel_children(parent)

    def tell(self, task_id: bytes, message: m.Direct) -> bool:
        """Send to the actor that runs that call; False if it is not an actor's."""
        known = self._calls.get(task_id)
        if known is None:
            return False
        if known[0].worker:
            self._send_ready(known[0])  # it must not arrive before the call
            self._peers.send(known[0].address, message)
        return True

    # ------------------------------------------------------------ ends

    def _end(self, actor: _Actor, error: m.Value) -> None:
        actor.death = error
        if actor.is_unheld:
            self._actors.pop(actor.id, None)
        else:
            for inner, owner in error.refs:
                self._objects.hold(inner, owner)
        if actor.key is not None and self._by_key.pop(actor.key, None) is not None:
            self._agent.send(m.Want(actor.key, {}, 0, 0, None, dedicated=True))
        creation, actor.creation = actor.creation, None
        if creation is not None:
            self._forget(creation, [error])
        unfinished = [*actor.sent.values(), *actor.queue]
        actor.sent.clear()
        actor.queue.clear()
        for call in unfinished:
            if call.id in self._calls:
                self._finish(call, [error])
        self._by_worker.pop(actor.worker, None)

    @staticmethod
    def _died(actor: _Actor, reason: str) -> m.Value:
        actor_id = ids.task_of(actor.id).hex()
        who = f"{actor.name} ({actor_id})" if actor.name else actor_id
        return _error(ActorDiedError(f"actor {who} has ended: {reason}"))

    def _finish(self, call: PendingTask, values: list[m.Value]) -> None:
        stream = self._streams.get(call.id)
        if stream is not None:
            self._tasks.fail_stream(stream, values[0])
        else:
            returns = call.returns
            given = values if len(values) == len(returns) else values[:1] * len(returns)
            for object_id, value in zip(returns, given, strict=True):
                self._objects.complete(object_id, value)
        self._forget(call, values)

    def _forget(self, call: PendingTask, values: Sequence[m.Value] = ()) -> None:
        self._calls.pop(call.id, None)
        if call.held:
            self._objects.drop_after(call.held, values)
            call.held = ()


def _error(error: RdataError) -> m.Value:
    return m.Value(m.Value.ERROR, serialize.dump_system_error(error))
