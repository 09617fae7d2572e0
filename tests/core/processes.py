"""What do several processes do with references, and what is under way between them?

A simulation around the real `ObjectTable`: programs put, submit, get and drop; messages travel in
order between each two processes and in any order otherwise; processes die. What programs hold is
written down here a second time, so that a test can compare.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from rdata.config import Settings
from rdata.core import ids
from rdata.core import messages as m
from rdata.core.ids import owner_of
from rdata.core.runtime.agent_link import AgentLink
from rdata.core.runtime.objects import ObjectTable
from rdata.core.runtime.peers import Peers, process_of
from rdata.core.serialize import dump_system_error
from rdata.errors import WorkerCrashedError

Ref = tuple[bytes, str]
"""An object's id and where its owner can be reached."""
Channel = tuple[bytes, bytes]
"""From, to."""


@dataclass(eq=False)
class Submitted:
    """A task, as its submitter knows it: what it holds for it until the reply."""

    id: bytes
    worker: bytes
    nested: list[Ref]
    slots: list[Ref]
    held: list[bytes]
    num_unresolved: int = 0
    arguments: list[m.Value] = field(default_factory=list)
    attempt: int = 0

    @property
    def returned(self) -> bytes:
        return ids.object_id(self.id, 0)


@dataclass(eq=False)
class Run:
    """A task, as its worker knows it; also the message that brings it there."""

    task: bytes
    attempt: int
    submitter: bytes
    nested: list[Ref]
    arguments: list[m.Value]
    adopted: list[Ref] = field(default_factory=list)

    def refs(self) -> Iterator[Ref]:
        yield from self.nested
        for value in self.arguments:
            yield from value.refs


class Cluster:
    """Processes, and the messages between them."""

    def __init__(self) -> None:
        self.processes: dict[bytes, Process] = {}  # that live
        self.channels: dict[Channel, deque[Any]] = {}
        self.notices: set[Channel] = set()  # (who has ended, who is yet to be told)
        self.known: dict[bytes, bytes] = {}  # object → owner, of all there ever were
        self.inside: dict[bytes, set[bytes]] = {}  # object → objects in its value
        self.at_risk: set[bytes] = set()  # died with the process that held them for another
        self.freed: Counter[bytes] = Counter()
        self._num_started = 0

    def start(self) -> None:
        self._num_started += 1
        process = Process(self._num_started.to_bytes(8, "big"), self)
        self.processes[process.id] = process

    def post(self, sender: bytes, receiver: bytes, message: Any, is_reply: bool) -> None:
        if receiver in self.processes:
            self.channels.setdefault((sender, receiver), deque()).append(message)
        elif not is_reply:  # whoever cannot connect is told why
            self.notices.add((receiver, sender))

    def deliver(self, channel: Channel) -> None:
        queue = self.channels[channel]
        message = queue.popleft()
        if not queue:
            del self.channels[channel]
        sender, receiver = channel
        self.processes[receiver].receive(sender, message)

    def deliver_notice(self, notice: Channel) -> None:
        """Tell of an end, after all that the dead one had sent."""
        while notice in self.channels:
            self.deliver(notice)
        self.notices.discard(notice)
        self.processes[notice[1]].told_of_end(notice[0])

    def kill(self, victim: bytes, num_sent: Callable[[int], int]) -> None:
        """End a process. Of the messages under way from it, `num_sent(all)` have left it."""
        process = self.processes.pop(victim)
        for channel in [channel for channel in self.channels if victim in channel]:
            queue = self.channels[channel]
            num_kept = num_sent(len(queue)) if channel[0] == victim else 0
            while len(queue) > num_kept:
                queue.pop()
            if not queue:
                del self.channels[channel]
        self.notices = {notice for notice in self.notices if notice[1] != victim}
        self.notices |= {(victim, other) for other in self.processes}
        self._note_risks(process)

    def _note_risks(self, victim: Process) -> None:
        """What lived by the dead one's hold only, for somebody whom its owner does not know yet."""
        held = self._with_inside(victim.holds())
        endangered = [object_id for object_id in held if self._may_be_uncovered(object_id)]
        for outer, owner in self.known.items():
            if owner == victim.id and any(p.knows(outer) for p in self.processes.values()):
                endangered += self.inside.get(outer, ())  # their values are known elsewhere
        self.at_risk |= self._with_inside(endangered)

    def _with_inside(self, objects: Iterable[bytes]) -> set[bytes]:
        """These, and all that is in their values, at any depth."""
        found, waiting = set(), list(objects)
        while waiting:
            object_id = waiting.pop()
            if object_id not in found:
                found.add(object_id)
                waiting += self.inside.get(object_id, ())
        return found

    def _may_be_uncovered(self, object_id: bytes) -> bool:
        under_way = (ref for queue in self.channels.values() for ref in _refs_in(queue))
        if object_id in {id for id, _ in under_way}:
            return True
        owner = self.known[object_id]
        return any(
            process.id != owner
            and (process.holds()[object_id] > 0 or object_id in process.inbox_ids())
            and not process.is_acknowledged(object_id)
            for process in self.processes.values()
        )

    def reaches(self, start: bytes, goal: bytes) -> bool:
        """Whether `goal` is in the value of `start`, or in one inside it, at any depth."""
        return goal in self._with_inside([start])

    def holders(self, object_id: bytes) -> list[Process]:
        """The living processes that hold the object in any way."""
        return [p for p in self.processes.values() if p.holds()[object_id] > 0]


def _refs_in(queue: deque[Any]) -> Iterator[Ref]:
    for message in queue:
        if isinstance(message, Run):
            yield from message.refs()
        elif isinstance(message, m.Replies):
            for reply in message.replies:
                yield from reply.values[0].refs
        elif isinstance(message, m.Fetched):
            yield from message.value.refs


class Process:
    """One process: a real table of objects, and a program that can be told what to do."""

    def __init__(self, process_id: bytes, cluster: Cluster) -> None:
        self.id = process_id
        self.address = f"{process_id.hex()}@simulated"
        self.cluster = cluster
        self.table = ObjectTable(
            process_id, cast(Peers, self), cast(AgentLink, _Store(self)), Settings()
        )
        self.refs: list[Ref] = []  # what the program's variables refer to
        self.tasks: dict[bytes, Submitted] = {}
        self.inbox: list[Run] = []
        self.running: list[Run] = []
        self.in_transit: dict[bytes, tuple[bytes, list[bytes]]] = {}
        self.loads: list[bytes] = []  # whose inner references the owners do not know of yet
        self.kept: list[Run] = []  # ended, and their replies wait for acknowledgements
        self.gone: set[bytes] = set()
        self._ids = ids.task_ids(process_id)

    def __repr__(self) -> str:
        return f"process {self.id[-1]}"

    # ------------------------------------------------------------ peers and network

    def send(self, address: str, message: Any) -> None:
        self.cluster.post(self.id, process_of(address), message, is_reply=False)

    def reply(self, process: bytes, message: Any) -> None:
        self.cluster.post(self.id, process, message, is_reply=True)

    def receive(self, sender: bytes, message: Any) -> None:
        match message:
            case Run():
                self.inbox.append(message)
            case m.Replies(replies):
                for reply in replies:
                    self._replied(sender, reply)
            case m.Received(task):
                self.table.drop_all(self.in_transit.pop(task, (b"", []))[1])
            case m.Fetch(object_id):
                self.table.fetch(sender, object_id)
            case m.Fetched():
                self.table.fetched(message)
            case m.Borrow():
                self.table.borrowed_by(sender, message)
            case m.BorrowAck():
                self.table.borrow_acknowledged(message)
            case m.Release():
                self.table.released_by(sender, message)
            case _:
                raise AssertionError(message)
        self.table.flush_frees()

    def told_of_end(self, process: bytes) -> None:
        self.gone.add(process)
        for task in list(self.tasks.values()):
            if task.id in self.tasks and task.worker == process and not task.num_unresolved:
                self._retry(task)
        self.table.process_gone(process, "it was killed")
        self.inbox = [run for run in self.inbox if run.submitter != process]
        for task_id, (caller, held) in list(self.in_transit.items()):
            if caller == process:
                del self.in_transit[task_id]
                self.table.drop_all(held)
        self.table.flush_frees()

    # ------------------------------------------------------------ the program: objects

    def put(self, inner: list[Ref], is_stored: bool) -> None:
        object_id = ids.object_id(next(self._ids), 0)
        self.table.create(object_id)
        self._made(object_id, inner)
        self.table.complete(object_id, _value(inner, is_stored))
        self.refs.append((object_id, self.address))

    def drop(self, ref: Ref) -> None:
        self.refs.remove(ref)
        self.table.drop(ref[0])
        self.table.flush_frees()

    def get(self, ref: Ref) -> bool:
        """Hold what is inside; False if the value is not here yet, and its owner is asked."""
        if not self.table.when_ready(ref[0], lambda value: None):
            return False
        entry = self.table.entry(ref[0])
        assert entry is not None
        assert entry.value is not None
        if entry.value.kind == m.Value.ERROR:
            return True
        if not entry.value.refs:
            return True
        for inner in entry.value.refs:
            self.adopt(inner)
        object_id = ref[0]
        self.table.hold(object_id, entry.owner)
        self.loads.append(object_id)

        def known() -> None:
            self.loads.remove(object_id)
            self.table.drop(object_id)

        self.table.keep([inner for inner, _ in entry.value.refs], known)
        return True

    def adopt(self, ref: Ref) -> None:
        self.table.hold(*ref)
        self.refs.append(ref)

    def _made(self, object_id: bytes, inner: list[Ref]) -> None:
        self.cluster.known.setdefault(object_id, owner_of(object_id))
        self.cluster.inside[object_id] = {id for id, _ in inner}

    # ------------------------------------------------------------ the program: tasks, as submitter

    def submit(self, worker: bytes, nested: list[Ref], slots: list[Ref]) -> None:
        task = Submitted(next(self._ids), worker, nested, slots, [])
        for object_id, owner in nested + slots:
            self.table.hold(object_id, owner)
            task.held.append(object_id)
        self.table.create(task.returned)
        self.cluster.known[task.returned] = self.id
        self.refs.append((task.returned, self.address))
        self.tasks[task.id] = task
        task.num_unresolved = 1

        def one_ready(value: m.Value | None = None) -> None:
            task.num_unresolved -= 1
            if not task.num_unresolved:
                self._push(task)

        for object_id, _ in slots:
            task.num_unresolved += 1
            if self.table.when_ready(object_id, one_ready):
                task.num_unresolved -= 1
        one_ready()

    def _push(self, task: Submitted) -> None:
        task.arguments = []
        for object_id, _ in task.slots:
            entry = self.table.entry(object_id)
            assert entry is not None
            assert entry.value is not None
            if entry.value.kind == m.Value.ERROR:
                self._finish(task, entry.value)
                return
            task.arguments.append(entry.value)
        if task.worker in self.gone:
            self._retry(task)
            return
        run = Run(task.id, task.attempt, self.id, task.nested, task.arguments)
        self.cluster.post(self.id, task.worker, run, is_reply=False)

    def _retry(self, task: Submitted) -> None:
        others = [p for p in self.cluster.processes if p != self.id and p not in self.gone]
        if others:
            task.worker = min(others)
            task.attempt += 1
            self._push(task)
        else:
            error = dump_system_error(WorkerCrashedError("there is no worker left"))
            self._finish(task, m.Value(m.Value.ERROR, error))

    def _replied(self, worker: bytes, reply: m.Reply) -> None:
        task = self.tasks.get(reply.task)
        if task is None or task.attempt != reply.attempt:
            return
        (value,) = reply.values
        self._finish(task, value)
        if value.refs:
            received = m.Received(task.id, 0)
            inner = [object_id for object_id, _ in value.refs]
            self.table.keep(inner, lambda: self.reply(worker, received))

    def _finish(self, task: Submitted, value: m.Value) -> None:
        del self.tasks[task.id]
        self.table.complete(task.returned, value)
        self.table.drop_all(task.held)
        self.table.flush_frees()

    # ------------------------------------------------------------ the program: tasks, as worker

    def begin(self, run: Run) -> None:
        """Run it: its arguments become this program's."""
        self.inbox.remove(run)
        self.running.append(run)
        for ref in run.refs():
            self.adopt(ref)
            run.adopted.append(ref)

    def end(self, run: Run, result: list[Ref], dropped: list[Ref], is_stored: bool) -> None:
        """Return `result`; of its variables the program keeps all but `dropped`."""
        self.running.remove(run)
        returned = ids.object_id(run.task, 0)
        # A cycle of references is never freed: that is the limit of counting.
        result = [ref for ref in result if not self.cluster.reaches(ref[0], returned)]
        value = _value(result, is_stored)
        if run.submitter not in self.gone:
            self._made(returned, result)
            if result:
                for ref in result:
                    self.table.hold(*ref)
                self.in_transit[run.task] = run.submitter, [object_id for object_id, _ in result]
        for ref in dropped:
            self.drop(ref)
        reply = m.Replies([m.Reply(run.task, run.attempt, 0.0, [value])])
        kept = [id for id, _ in run.adopted if self.table.is_held(id)]
        self.kept.append(run)

        def send() -> None:
            self.kept.remove(run)
            self.reply(run.submitter, reply)

        self.table.keep(kept, send)

    # ------------------------------------------------------------ what is held

    def holds(self) -> Counter[bytes]:
        """How often this process holds which object, by what its program did."""
        held = Counter(object_id for object_id, _ in self.refs)
        for task in self.tasks.values():
            held.update(task.held)
        for _, objects in self.in_transit.values():
            held.update(objects)
        held.update(self.loads)
        waiting = [object_id for object_id, owner in self.cluster.known.items() if owner == self.id]
        for object_id in waiting:
            entry = self.table.entry(object_id)
            if entry is not None and entry.value is not None:
                held.update(inner for inner, _ in entry.value.refs)
        return held

    def inbox_ids(self) -> set[bytes]:
        """Objects in tasks that have arrived and not begun: nobody here holds them yet."""
        return {object_id for run in self.inbox for object_id, _ in run.refs()}

    def knows(self, object_id: bytes) -> bool:
        return self.table.is_held(object_id)

    def borrows(self) -> bool:
        """Whether this process holds anything that another one owns."""
        return any(owner != self.address for _, owner in self.refs)

    def is_acknowledged(self, object_id: bytes) -> bool:
        """Whether the owner has said that it knows of this process's hold."""
        borrowed = self.table._ownership._borrowed.get(object_id)
        return borrowed is not None and borrowed.is_acknowledged


class _Store:
    """In the agent's place: objects are freed once, and by their owners."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def send(self, message: m.Free) -> None:
        for object_id in message.objects:
            assert owner_of(object_id) == self._process.id, "a borrower has freed it"
        self._process.cluster.freed.update(message.objects)


def _value(inner: list[Ref], is_stored: bool) -> m.Value:
    return m.Value(m.Value.STORED if is_stored else m.Value.INLINE, b"v", refs=inner)
