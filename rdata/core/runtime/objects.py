"""What does this process know of each object: its value, who holds it, who waits for it?

Every method wants the runtime's lock held. `ownership` decides; this table keeps the values, and
carries the decisions out as messages, which never block.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

from rdata.config import Settings
from rdata.core import messages as m
from rdata.core import ownership
from rdata.core.ids import owner_of
from rdata.core.object_ref import ObjectRef
from rdata.core.ownership import Ownership
from rdata.core.runtime.agent_link import AgentLink
from rdata.core.runtime.peers import Peers
from rdata.core.serialize import dump_system_error
from rdata.errors import ObjectLostError, OwnerDiedError

_SMALL = 4096  # a page, below which the store would take more memory

Callback = Callable[[], None]
OnValue = Callable[[m.Value], None]


class ObjectEntry(msgspec.Struct, gc=False, eq=False):
    """What is known of one object. A table may have millions: the collector does not walk them."""

    owner: str  # where its owner can be reached; "" for this process's own
    value: m.Value | None = None
    callbacks: list[OnValue] | None = None
    fetchers: list[bytes] | None = None  # borrowers that wait for the value
    is_fetching: bool = False


class ObjectTable:
    """The objects of one process, owned and borrowed."""

    def __init__(
        self, process_id: bytes, peers: Peers, agent: AgentLink, settings: Settings
    ) -> None:
        self._inline_limits = settings.inline_object_bytes, settings.owner_inline_bytes
        self._inline_bytes = 0  # of values here, own ones, but for the smallest
        self._process_id = process_id
        self._peers = peers
        self._agent = agent
        self.on_actor_unheld: Callable[[bytes], bool] | None = None  # False if it was no actor's
        self.on_actor_released: Callable[[bytes], None] | None = None  # if it is an actor's
        self.on_freed: Callable[[bytes], None] | None = None  # one of this process's own
        self.on_lost: Callable[[bytes], str] | None = None  # makes it again; or says why not
        self._ownership = Ownership()
        self._entries: dict[bytes, ObjectEntry] = {}
        self._to_free: defaultdict[bytes, list[bytes]] = defaultdict(list)  # by node

    # ------------------------------------------------------------ holders

    def create(self, object_id: bytes) -> ObjectEntry:
        """A new object of this process's own, held once."""
        self._ownership.create(object_id)
        entry = self._entries[object_id] = ObjectEntry("")
        return entry

    def hold(self, object_id: bytes, owner: str) -> None:
        """One more holder; a foreign object becomes known by its first."""
        if object_id not in self._entries:
            if owner_of(object_id) == self._process_id:
                # A reference came back after all holders had let go: that needs a lost message.
                entry = self._entries[object_id] = ObjectEntry("")
                self._ownership.create(object_id)
                entry.value = _lost(object_id, "its owner had let go of it")
                return
            self._entries[object_id] = ObjectEntry(owner)
        self._ownership.hold(object_id, owner)

    def drop(self, object_id: bytes) -> None:
        """One holder less."""
        self._ownership.drop(object_id)
        self.act()

    def drop_all(self, object_ids: Sequence[bytes]) -> None:
        """One holder less of each."""
        for object_id in object_ids:
            self._ownership.drop(object_id)
        self.act()

    def keep(self, object_ids: list[bytes], then: Callback) -> None:
        """Call `then` once the owners of all these know that this process holds them."""
        is_known = self._ownership.keep(object_ids, then)
        self.act()
        if is_known:
            then()

    def keep_inside(self, object_id: bytes, inside: list[bytes]) -> None:
        """Let the object live until the owners of those inside know that this process has them."""
        entry = self._entries.get(object_id)
        if entry is not None:
            self.hold(object_id, entry.owner)
            self.keep(inside, lambda: self.drop(object_id))

    def drop_after(self, object_ids: Sequence[bytes], values: Sequence[m.Value]) -> None:
        """One holder less of each, once the owners of what is inside `values` know of this process.

        An error of an argument may have brought them.
        """
        inside = [object_id for value in values for object_id, _ in value.refs]
        if inside:
            self.keep(inside, lambda: self.drop_all(object_ids))
        else:
            self.drop_all(object_ids)

    def is_held(self, object_id: bytes) -> bool:
        """Whether anybody in this process holds it."""
        return object_id in self._entries

    def is_idle(self) -> bool:
        """Whether nobody holds anything that this process owns."""
        return self._ownership.is_idle()

    def is_lent(self) -> bool:
        """Whether any other process holds anything that this one owns."""
        return self._ownership.is_lent()

    # ------------------------------------------------------------ values

    def entry(self, object_id: bytes) -> ObjectEntry | None:
        """What is known of it."""
        return self._entries.get(object_id)

    def fill(
        self,
        values: list[m.Value],
        refs: Sequence[ObjectRef],
        missing: Sequence[int],
        callback: OnValue,
    ) -> list[int]:
        """Fill in the `values` of `refs` at the positions `missing`, where they are known.

        Returns the positions that are missing still; for each, `callback(value)` follows.
        """
        get, when_ready = self._entries.get, self.when_ready
        left = []
        for position in missing:
            object_id = refs[position].id
            entry = get(object_id)
            if entry is None:
                values[position] = _lost(object_id, "this process has let go of it")
            elif entry.value is None:
                left.append(position)
                when_ready(object_id, callback)
            else:
                values[position] = entry.value
        return left

    def when_ready(self, object_id: bytes, callback: OnValue) -> bool:
        """True if the value is known; else `callback(value)` follows when it is, under the lock."""
        entry = self._entries.get(object_id)
        if entry is None or entry.value is not None:
            return True
        if entry.callbacks is None:
            entry.callbacks = []
        entry.callbacks.append(callback)
        if entry.owner and not entry.is_fetching:
            entry.is_fetching = True
            self._peers.send(entry.owner, m.Fetch(object_id))
        return False

    def forget_callback(self, object_id: bytes, callback: OnValue) -> bool:
        """Take back what `when_ready` noted; False if the value is known."""
        entry = self._entries.get(object_id)
        if entry is None or entry.value is not None:
            return False
        if entry.callbacks and callback in entry.callbacks:
            entry.callbacks.remove(callback)
        return True

    def forget_callbacks(self) -> None:
        """Nothing will be ready any more. They lead back here, which no collector would see."""
        for entry in self._entries.values():
            entry.callbacks = None

    def complete(self, object_id: bytes, value: m.Value) -> None:
        """The value of an object is known. One that nobody holds any more is freed at once."""
        entry = self._entries.get(object_id)
        if entry is None:
            if value.kind == m.Value.STORED and owner_of(object_id) == self._process_id:
                self._to_free[value.node].append(object_id)
            return
        if value.refs and not entry.owner:
            for inner, owner in value.refs:
                self.hold(inner, owner)
        entry.value = value
        if value.size > _SMALL:
            self._count(entry, 1)
        if entry.callbacks:
            callbacks, entry.callbacks = entry.callbacks, None
            for callback in callbacks:
                callback(value)
        if entry.fetchers:
            self._answer_fetchers(entry, m.Fetched(object_id, True, value))

    def _answer_fetchers(self, entry: ObjectEntry, answer: m.Fetched) -> None:
        fetchers, entry.fetchers = entry.fetchers, None
        for process in fetchers or ():
            self._peers.reply(process, answer)

    @property
    def inline_limit(self) -> int:
        """Bytes that a new value may have here, and not in the store.

        Where many of them lie here already, no more than the smallest: the store is what has a
        bound, and says so where it is reached; a process's memory ends without a word.
        """
        limit, most = self._inline_limits
        return limit if self._inline_bytes < most else min(limit, _SMALL)

    def _count(self, entry: ObjectEntry, sign: int) -> None:
        if not entry.owner and entry.value is not None:
            self._inline_bytes += sign * entry.value.message_bytes()

    def learn(self, object_id: bytes, value: m.Value) -> None:
        """Whoever passed a reference on has said what its value is."""
        entry = self._entries.get(object_id)
        if entry is not None and entry.value is None and entry.owner:
            self.complete(object_id, value)

    def lost(self, object_id: bytes, node: bytes) -> str:
        """Somebody finds that the value cannot be had of that node's store.

        "" if another value, or an error, will follow. Or why this process's own object cannot be
        made again; then it is left as it is, for the node may only be slow.
        """
        entry = self._entries.get(object_id)
        if entry is None or entry.value is None or entry.value.kind != m.Value.STORED:
            return ""
        if entry.value.node != node:  # it was made again meanwhile
            return ""
        if not entry.owner:
            assert self.on_lost is not None
            return self.on_lost(object_id)
        entry.value = None
        entry.is_fetching = True
        self._peers.send(entry.owner, m.Lost(object_id, node))
        return ""

    def reported_lost(self, process: bytes, message: m.Lost) -> None:
        """A borrower finds that, of an object of this process's own, and waits for a value."""
        why = self.lost(message.object_id, message.node)
        if why:
            error = _lost(message.object_id, f"its store is gone, or does not answer, and {why}")
            self._peers.reply(process, m.Fetched(message.object_id, True, error))
        else:
            self.fetch(process, message.object_id)

    def forget_value(self, object_id: bytes) -> None:
        """The object, of this process's own, will be made again."""
        entry = self._entries[object_id]
        value, entry.value = entry.value, None
        for inner, _ in () if value is None else value.refs:
            self._ownership.drop(inner)
        self.act()

    def is_made(self, object_id: bytes) -> bool:
        """Whether its value is known, or nobody holds it."""
        entry = self._entries.get(object_id)
        return entry is None or entry.value is not None

    def discard(self, object_id: bytes, value: m.Value) -> None:
        """A value that is not wanted: there is one already."""
        if value.kind == m.Value.STORED:
            self._to_free[value.node].append(object_id)

    # ------------------------------------------------------------ messages of other processes

    def fetch(self, process: bytes, object_id: bytes) -> None:
        """A borrower asks for the value."""
        entry = self._entries.get(object_id)
        if entry is None:
            self._peers.reply(process, _unknown(object_id))
        elif entry.value is not None:
            self._peers.reply(process, m.Fetched(object_id, True, entry.value))
        else:
            entry.fetchers = [*(entry.fetchers or ()), process]

    def fetched(self, message: m.Fetched) -> None:
        """An owner answers."""
        value = message.value
        if not message.is_known:
            value = _lost(message.object_id, "its owner had let go of it")
        self.complete(message.object_id, value)

    def borrowed_by(self, process: bytes, message: m.Borrow) -> None:
        """A process holds an object of this one's."""
        self._ownership.borrowed_by(message.object_id, process, message.version)
        self.act()

    def borrow_acknowledged(self, message: m.BorrowAck) -> None:
        """An owner knows of this process's hold."""
        self._ownership.borrow_acknowledged(message.object_id, message.version)
        self.act()

    def released_by(self, process: bytes, message: m.Release) -> None:
        """A process lets go of an object of this one's."""
        self._ownership.released_by(message.object_id, process, message.version)
        self.act()

    def process_gone(self, process: bytes, reason: str) -> None:
        """A process has ended: what it owned is lost, what it held it holds no longer."""
        for object_id in self._ownership.process_gone(process):
            entry = self._entries.get(object_id)
            if entry is not None and (entry.value is None or entry.value.kind == m.Value.STORED):
                error = OwnerDiedError(
                    f"object {object_id.hex()} is gone with the process that owned it ({reason}); "
                    "have a longer-lived process, the driver for instance, submit the task or put"
                )
                entry.value = None
                self.complete(object_id, m.Value(m.Value.ERROR, dump_system_error(error)))
        self.act()

    # ------------------------------------------------------------ carrying out decisions

    def act(self) -> None:
        """Carry out what ownership has decided."""
        commands = self._ownership.commands
        while commands:  # grows meanwhile: an object that is freed drops those inside
            batch = commands[:]
            commands.clear()
            for command in batch:
                self._carry_out(command)

    def flush_frees(self) -> None:
        """Tell the agent which stored objects are no longer held."""
        if self._to_free:
            for node, objects in self._to_free.items():
                self._agent.send(m.Free(objects, node))
            self._to_free.clear()

    def _carry_out(self, command: ownership.Command) -> None:
        match command:
            case ownership.FreeObject(object_id):
                self._free(object_id)
            case ownership.SendRelease(owner, object_id, version, was_reported):
                self._entries.pop(object_id, None)
                if self.on_actor_released is not None:
                    self.on_actor_released(object_id)
                if was_reported:
                    self._peers.send(owner, m.Release(object_id, version))
            case ownership.SendBorrow(owner, object_id, version):
                self._peers.send(owner, m.Borrow(object_id, version))
            case ownership.SendAck(borrower, object_id, version):
                self._peers.reply(borrower, m.BorrowAck(object_id, version))
            case ownership.Settled(then):
                then()

    def _free(self, object_id: bytes) -> None:
        if self.on_actor_unheld is not None and self.on_actor_unheld(object_id):
            self._entries.pop(object_id, None)
            return
        if self.on_freed is not None:
            self.on_freed(object_id)
        entry = self._entries.pop(object_id, None)
        if entry is None:
            return
        value = entry.value
        if value is None:  # it was dropped before it was made
            # Whoever waits for it even so was not known as a holder, and who lent it has died.
            self._answer_fetchers(entry, _unknown(object_id))
            return
        if value.size > _SMALL:
            self._count(entry, -1)
        for inner, _ in value.refs:
            self._ownership.drop(inner)
        if value.kind == m.Value.STORED:
            self._to_free[value.node].append(object_id)


def _unknown(object_id: bytes) -> m.Fetched:
    """The answer of an owner that does not know the object any more."""
    return m.Fetched(object_id, False, m.Value(m.Value.ERROR))


def _lost(object_id: bytes, why: str) -> m.Value:
    error = ObjectLostError(f"object {object_id.hex()} cannot be had: {why}")
    return m.Value(m.Value.ERROR, dump_system_error(error))
