"""Who holds which object, and when may its memory go?

One process's view: of the objects that it owns, who else holds them; of those that it borrows,
what it has told their owners. A pure state machine: every method is an event, and the commands
that follow from it collect in `commands` for the process around it to carry out.

The rules. An owned object lives while this process holds it (`holds` counts its references, tasks
that take it as an argument, results and stored values that contain it) or while any process
borrows it. A borrower tells the owner *that* it holds an object, with a version that grows at each
change, and not how often, so a message that arrives late or twice does no harm. Whoever handed the
reference to the borrower keeps a hold until the owner has acknowledged the borrower: `keep`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rdata.core.ids import owner_of


class FreeObject(msgspec.Struct, frozen=True):
    """Nobody holds the owned object any more."""

    object_id: bytes


class SendBorrow(msgspec.Struct, frozen=True):
    """Tell the owner that this process holds the object."""

    owner: str
    object_id: bytes
    version: int


class SendRelease(msgspec.Struct, frozen=True):
    """Tell the owner that this process holds it no longer; forget what is known of it."""

    owner: str
    object_id: bytes
    version: int
    was_reported: bool


class SendAck(msgspec.Struct, frozen=True):
    """Tell the borrower that this owner knows of it."""

    borrower: bytes
    object_id: bytes
    version: int


class Settled(msgspec.Struct, frozen=True):
    """The holds of `keep` are acknowledged: what waited for `ticket` may go on."""

    ticket: Any


Command = FreeObject | SendBorrow | SendRelease | SendAck | Settled


class _Borrowed:
    __slots__ = ("holds", "is_acknowledged", "is_reported", "owner", "tickets", "version")

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.holds = 0
        self.version = 0
        self.is_reported = False
        self.is_acknowledged = not owner  # nobody counts a detached actor's handles
        self.tickets: list[_Ticket] = []


class _Ticket:
    __slots__ = ("count", "ticket")

    def __init__(self, ticket: Any, count: int) -> None:
        self.ticket = ticket
        self.count = count


class Ownership:
    """The references of one process. Not thread-safe: the process holds its lock around it."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self._owned: dict[bytes, int] = {}  # object → holds of this process
        self._borrowers: dict[bytes, dict[bytes, int]] = {}  # object → process → version
        self._borrowed: dict[bytes, _Borrowed] = {}
        self._version = 0  # one count for all objects, so that it grows across a re-borrowing too

    def owns(self, object_id: bytes) -> bool:
        """Whether the object is owned here and still held by anybody."""
        return object_id in self._owned

    def is_idle(self) -> bool:
        """Whether nobody holds anything that this process owns."""
        return not self._owned

    def is_lent(self) -> bool:
        """Whether any other process holds anything that this one owns."""
        return any(version > 0 for each in self._borrowers.values() for version in each.values())

    def create(self, object_id: bytes) -> None:
        """A new object of this process's own, held once."""
        self._owned[object_id] = 1

    def hold(self, object_id: bytes, owner: str = "") -> None:
        """One more holder in this process. The first of a foreign object makes it a borrowed one.

        `owner` is where a foreign object's owner can be reached.
        """
        if object_id in self._owned:
            self._owned[object_id] += 1
            return
        borrowed = self._borrowed.get(object_id)
        if borrowed is None:
            borrowed = self._borrowed[object_id] = _Borrowed(owner)
        borrowed.holds += 1

    def drop(self, object_id: bytes) -> None:
        """One holder in this process less."""
        holds = self._owned.get(object_id)
        if holds is not None:
            self._owned[object_id] = holds - 1
            if holds == 1:
                self._free_if_unheld(object_id)
            return
        borrowed = self._borrowed[object_id]
        borrowed.holds -= 1
        if borrowed.holds == 0:
            self._forget_borrowed(object_id, borrowed)

    def keep(self, object_ids: list[bytes], ticket: Any) -> bool:
        """Make sure that the owners of all borrowed objects among these know of this process.

        True if they know already; else `Settled(ticket)` follows when the last has acknowledged
        (or has died, or this process no longer holds the object).
        """
        waiting = _Ticket(ticket, 0)
        for object_id in object_ids:
            borrowed = self._borrowed.get(object_id)
            if borrowed is None or borrowed.is_acknowledged:
                continue
            if not borrowed.is_reported:
                borrowed.is_reported = True
                borrowed.version = self._next_version()
                self.commands.append(SendBorrow(borrowed.owner, object_id, borrowed.version))
            borrowed.tickets.append(waiting)
            waiting.count += 1
        return waiting.count == 0

    def borrow_acknowledged(self, object_id: bytes, version: int) -> None:
        """The owner knows of this process's hold."""
        borrowed = self._borrowed.get(object_id)
        if borrowed is None or borrowed.version != version:
            return  # about a hold that has ended meanwhile
        borrowed.is_acknowledged = True
        self._settle(borrowed)

    def borrowed_by(self, object_id: bytes, borrower: bytes, version: int) -> None:
        """A process says that it holds an object of this one's."""
        if object_id in self._owned:
            borrowers = self._borrowers.setdefault(object_id, {})
            if abs(borrowers.get(borrower, 0)) < version:
                borrowers[borrower] = version
        self.commands.append(SendAck(borrower, object_id, version))

    def released_by(self, object_id: bytes, borrower: bytes, version: int) -> None:
        """A process says that it no longer holds an object of this one's."""
        borrowers = self._borrowers.get(object_id)
        if borrowers is not None and abs(borrowers.get(borrower, 0)) < version:
            # The negative version stays: an older "I hold it" that comes late is then no news.
            borrowers[borrower] = -version
            self._free_if_unheld(object_id)

    def process_gone(self, process: bytes) -> list[bytes]:
        """A process has ended, as a borrower and as an owner.

        The objects of its own that this process holds: nobody is left to be told of that.
        """
        for object_id, borrowers in list(self._borrowers.items()):
            if borrowers.pop(process, None) is not None:
                self._free_if_unheld(object_id)
        lost = [object_id for object_id in self._borrowed if owner_of(object_id) == process]
        for object_id in lost:
            borrowed = self._borrowed[object_id]
            borrowed.is_reported, borrowed.is_acknowledged = False, True
            self._settle(borrowed)
        return lost

    def _next_version(self) -> int:
        self._version += 1
        return self._version

    def _free_if_unheld(self, object_id: bytes) -> None:
        if self._owned[object_id] > 0:
            return
        borrowers = self._borrowers.get(object_id)
        if borrowers and any(version > 0 for version in borrowers.values()):
            return
        self._borrowers.pop(object_id, None)
        del self._owned[object_id]
        self.commands.append(FreeObject(object_id))

    def _forget_borrowed(self, object_id: bytes, borrowed: _Borrowed) -> None:
        del self._borrowed[object_id]
        self._settle(borrowed)
        version = self._next_version()
        self.commands.append(SendRelease(borrowed.owner, object_id, version, borrowed.is_reported))

    def _settle(self, borrowed: _Borrowed) -> None:
        tickets, borrowed.tickets = borrowed.tickets, []
        for waiting in tickets:
            waiting.count -= 1
            if waiting.count == 0:
                self.commands.append(Settled(waiting.ticket))
