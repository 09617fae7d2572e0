"""Which actors does the cluster have, and where? The head's state, as a pure state machine.

Events return commands for the process around it. A named actor is found by (namespace, name) from
its creation until it is to end or is killed; a detached one is the head's, and outlives its
creator.

A head that is started anew takes up what the last one knew. Of processes that it has only read of,
it waits to hear from their nodes.
"""

from __future__ import annotations

from msgspec import Struct, field
from msgspec.structs import replace

from rdata.core.ids import owner_of
from rdata.core.messages import ActorAt, CreateActor


class Tell(Struct, frozen=True):
    """Send the message to the process."""

    process: bytes
    message: ActorAt


class EndProcess(Struct, frozen=True):
    """Kill the process; the reason is what its actor's callers will read."""

    process: bytes
    reason: str


Command = Tell | EndProcess


class ActorEntry(Struct):
    """One actor, while it lives or is being made."""

    request: CreateActor
    worker: bytes = b""
    address: str = ""
    is_started: bool = False
    waiting: list[bytes] = field(default_factory=list)  # processes that asked where it is
    kill_reason: str = ""


class Head:
    """The directory of actors."""

    def __init__(self) -> None:
        self._actors: dict[bytes, ActorEntry] = {}
        self._names: dict[tuple[str, str], bytes] = {}
        self._by_worker: dict[bytes, bytes] = {}
        self._deaths: dict[bytes, str] = {}
        # Who asked for an actor of which its creator's message has not come yet: the two travel
        # on different connections.
        self._early: dict[bytes, list[bytes]] = {}
        self._gone: set[bytes] = set()  # ended processes: what they created will not come
        self._unseen: dict[bytes, str] = {}  # processes only read of → addresses of their nodes
        self._changed: dict[bytes, None] = {}  # actors that have, since somebody took note

    def create(self, request: CreateActor) -> str:
        """Enter an actor. The answer is empty, or says why not: its name is taken."""
        if request.actor in self._actors:  # asked again, of a head that was started anew
            return ""
        if request.name:
            key = (request.namespace, request.name)
            if key in self._names:
                return (
                    f"an actor named {request.name!r} exists in namespace {request.namespace!r}; "
                    "use another name, rdata.get_actor(), or get_if_exists=True"
                )
            self._names[key] = request.actor
        waiting = self._early.pop(request.actor, [])
        self._actors[request.actor] = ActorEntry(request, waiting=waiting)
        self._changed[request.actor] = None
        return ""

    def find(self, name: str, namespace: str) -> CreateActor | None:
        """The actor of that name."""
        actor = self._names.get((namespace, name))
        return None if actor is None else self._actors[actor].request

    def placed(self, actor: bytes, worker: bytes, address: str) -> list[Command]:
        """Its constructor is about to run on that worker."""
        entry = self._actors.get(actor)
        if entry is None:
            return [EndProcess(worker, self._deaths.get(actor, "the actor was ended"))]
        entry.worker, entry.address = worker, address
        self._by_worker[worker] = actor
        self._changed[actor] = None
        return []

    def started(self, actor: bytes, failure: str) -> list[Command]:
        """Its constructor has returned, or (`failure`) raised; or it has ended, its process not."""
        entry = self._actors.get(actor)
        if entry is None:
            return []
        if failure:
            return self._ended(actor, failure)
        entry.is_started = True
        self._changed[actor] = None
        at = ActorAt(actor, entry.worker, entry.address, "")
        told: list[Command] = [Tell(process, at) for process in entry.waiting]
        entry.waiting.clear()
        return told

    def locate(self, actor: bytes, process: bytes) -> list[Command]:
        """A process asks where the actor is: it is told now, or once it is known."""
        entry = self._actors.get(actor)
        if entry is None:
            death = self._deaths.get(actor, "")
            if owner_of(actor) in self._gone:
                death = death or "the process that created it has ended"
            if not death:
                self._early.setdefault(actor, []).append(process)
                return []
            return [Tell(process, ActorAt(actor, b"", "", death))]
        if entry.is_started:
            return [Tell(process, ActorAt(actor, entry.worker, entry.address, ""))]
        entry.waiting.append(process)
        return []

    def kill(self, actor: bytes, reason: str) -> list[Command]:
        """Somebody wants the actor to end."""
        entry = self._actors.get(actor)
        if entry is None:
            return []
        entry.kill_reason = reason
        self._free_name(entry)
        self._changed[actor] = None
        if not entry.worker:
            return self._ended(actor, reason)
        return [EndProcess(entry.worker, reason)]

    def free_name(self, actor: bytes) -> None:
        """Its last handle is gone: it ends after its calls, and may be made anew before that."""
        entry = self._actors.get(actor)
        if entry is not None:
            self._free_name(entry)
            self._changed[actor] = None

    def process_gone(self, process: bytes, reason: str) -> list[Command]:
        """A process has ended: an actor's own, or one that had created actors."""
        commands: list[Command] = []
        self._gone.add(process)
        self._unseen.pop(process, None)
        for early in [id for id in self._early if owner_of(id) == process]:
            at = ActorAt(early, b"", "", "the process that created it has ended")
            commands += [Tell(asker, at) for asker in self._early.pop(early)]
        actor = self._by_worker.pop(process, None)
        if actor is not None and actor in self._actors:
            commands += self._ended(actor, self._actors[actor].kill_reason or reason)
        for actor, entry in list(self._actors.items()):
            # A detached one needs its creator until it is placed.
            is_on_its_own = entry.request.is_detached and entry.worker
            if entry.request.owner == process and not is_on_its_own:
                commands += self.kill(actor, f"the process that created it has ended ({reason})")
        return commands

    # ------------------------------------------------------------ a head that is started anew

    def take_changes(self) -> dict[bytes, ActorEntry | None]:
        """The actors that have changed since the last call; None: it has ended."""
        changed, self._changed = self._changed, {}
        return {actor: self._actors.get(actor) for actor in changed}

    def restore(self, entries: list[ActorEntry]) -> None:
        """Take up what an earlier head knew."""
        for entry in entries:
            request = entry.request
            self._actors[request.actor] = entry
            if request.name:
                self._names[request.namespace, request.name] = request.actor
            if entry.worker:
                self._by_worker[entry.worker] = request.actor
                self._unseen[entry.worker] = _node_in(entry.address)
            if not (request.is_detached and entry.worker):
                self._unseen[request.owner] = _node_in(request.owner_address)

    def process_seen(self, process: bytes) -> list[Command]:
        """Its node says that it lives."""
        self._unseen.pop(process, None)
        entry = self._actors.get(self._by_worker.get(process, b""))
        if entry is not None and entry.kill_reason:  # before its node was there to be told
            return [EndProcess(process, entry.kill_reason)]
        return []

    def node_seen(self, address: str) -> list[Command]:
        """The node there has named all processes that it has: it has no others."""
        return self._give_up([id for id, node in self._unseen.items() if node == address])

    def stop_waiting(self) -> list[Command]:
        """Nodes that have not come by now have ended."""
        return self._give_up(list(self._unseen))

    def _give_up(self, processes: list[bytes]) -> list[Command]:
        commands: list[Command] = []
        for process in processes:
            commands += self.process_gone(process, "it ended while the head was away")
        return commands

    def _ended(self, actor: bytes, reason: str) -> list[Command]:
        entry = self._actors.pop(actor)
        self._free_name(entry)
        # Later callers read why. Bounded by the actors that a node can have had: some 100 bytes.
        self._deaths[actor] = reason
        self._changed[actor] = None
        at = ActorAt(actor, b"", "", reason)
        return [Tell(process, at) for process in entry.waiting]

    def _free_name(self, entry: ActorEntry) -> None:
        request = entry.request
        if request.name:
            del self._names[request.namespace, request.name]
            entry.request = replace(request, name="")


def _node_in(address: str) -> str:
    """The node's part of a process's address."""
    return address.partition("@")[2]
