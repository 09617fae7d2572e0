"""What of the node's resources does each lease hold, and what is coming back?

A lease counts in one of three ways, by what may be expected of it:

    KEPT        its holder returns it when it likes; it can be asked back
    RETURNING   it has been asked back, or its worker is ending
    FIXED       it is held for life, or its worker is blocked and holds all but its CPU
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import TypeVar

from msgspec import Struct

from rdata.core.scheduling.resources import CPU, Units

_Key = TypeVar("_Key")
_NO_DEMAND = -1  # the key of a lease that was handed over
Party = tuple[bytes, int]
"""Who shares with others: a requester, by the key of its demand."""
Holders = dict[str, dict[Party, dict[int, "Lease"]]]
"""Leases by what they hold, party and id."""


class Asked(Enum):
    """How a lease has been asked back."""

    NOT = auto()
    IF_IDLE = auto()
    NOW = auto()


class Outlook(Enum):
    """What may be expected of a lease."""

    KEPT = auto()
    RETURNING = auto()
    FIXED = auto()


class Lease(Struct, eq=False):
    """A grant of a worker and of resources."""

    id: int
    requester: bytes
    key: int
    depth: int
    is_dedicated: bool
    granted: Units
    granted_at: float
    worker: bytes = b""
    asked: Asked = Asked.NOT
    is_blocked: bool = False
    is_ending: bool = False

    @property
    def holds(self) -> Units:
        """What it holds at the moment."""
        if not self.is_blocked:
            return self.granted
        return {name: count for name, count in self.granted.items() if name != CPU}

    @property
    def party(self) -> Party:
        """Whose it is."""
        return self.requester, self.key

    @property
    def outlook(self) -> Outlook:
        """What may be expected of it."""
        if self.is_ending:
            return Outlook.RETURNING
        if self.is_dedicated or self.is_blocked:
            return Outlook.FIXED
        return Outlook.RETURNING if self.asked is Asked.NOW else Outlook.KEPT


class Ledger:
    """The node's resources and who holds them. `free` is negative while CPU is owed."""

    def __init__(self, total: Units) -> None:
        self.total = dict(total)
        self.free = dict(total)
        self.returning: dict[str, int] = dict.fromkeys(total, 0)
        self.kept: Holders = {name: {} for name in total}
        self.unasked: Holders = {name: {} for name in total}  # those kept and not asked in any way
        self.leases: dict[int, Lease] = {}  # those not ending
        self._by_requester: dict[bytes, dict[int, Lease]] = {}
        self._num_leases: dict[Party, int] = {}
        self._num_kept: dict[Party, int] = {}
        self._kept_depths: dict[int, int] = {}

    def grant(self, lease: Lease) -> None:
        """Enter a new lease."""
        self.leases[lease.id] = lease
        self._add_to_party(lease)
        self._enter(lease)

    def end(self, lease: Lease) -> None:
        """The lease is over, but its worker is not: it holds on to what it has until it ends."""
        del self.leases[lease.id]
        self._take_from_party(lease)
        self._leave(lease)
        lease.is_ending = True
        self._enter(lease)

    def release(self, lease: Lease) -> None:
        """The lease is over, and so is its worker, or it has nothing to do: all is free again."""
        if not lease.is_ending:
            self.end(lease)
        self._leave(lease)

    def set_blocked(self, lease: Lease, is_blocked: bool) -> None:
        """The worker hands back its CPU, or retakes it, as debt if need be."""
        self._leave(lease)
        lease.is_blocked = is_blocked
        self._enter(lease)

    def hand_over(self, lease: Lease, requester: bytes) -> None:
        """The lease, a dedicated one, is another's from now on, apart from what that one asks."""
        self._take_from_party(lease)
        lease.requester, lease.key = requester, _NO_DEMAND
        self._add_to_party(lease)

    def ask(self, lease: Lease, how: Asked) -> None:
        """The holder is asked to return the lease."""
        self._leave(lease)
        lease.asked = how
        self._enter(lease)

    def leases_of(self, requester: bytes) -> list[Lease]:
        """What the requester holds."""
        return list(self._by_requester.get(requester, {}).values())

    def num_leases(self, party: Party) -> int:
        """How many leases the party has."""
        return self._num_leases.get(party, 0)

    def num_kept(self, party: Party) -> int:
        """How many of them run work and have not been asked back."""
        return self._num_kept.get(party, 0)

    def most_kept(self) -> int:
        """The largest `num_kept` of a party."""
        return max(self._num_kept.values(), default=0)

    def shallowest_kept(self) -> int:
        """The smallest depth of a kept lease; 0 without any."""
        return min(self._kept_depths, default=0)

    def obtainable(self, name: str) -> int:
        """What would be free of the resource if every lease that can come back had."""
        leases = (lease for of_party in self.kept[name].values() for lease in of_party.values())
        kept = sum(lease.holds[name] for lease in leases)
        return self.free[name] + self.returning[name] + kept

    def holders(self, names: Iterable[str]) -> list[Lease]:
        """The leases that hold any of these resources, those of ending workers aside."""
        wanted = set(names)
        return [lease for lease in self.leases.values() if not wanted.isdisjoint(lease.holds)]

    def _add_to_party(self, lease: Lease) -> None:
        self._by_requester.setdefault(lease.requester, {})[lease.id] = lease
        _add(self._num_leases, lease.party, 1)

    def _take_from_party(self, lease: Lease) -> None:
        leases = self._by_requester[lease.requester]
        del leases[lease.id]
        if not leases:
            del self._by_requester[lease.requester]
        _add(self._num_leases, lease.party, -1)

    def _enter(self, lease: Lease) -> None:
        self._count(lease, 1)

    def _leave(self, lease: Lease) -> None:
        self._count(lease, -1)

    def _count(self, lease: Lease, sign: int) -> None:
        outlook = lease.outlook
        for name, count in lease.holds.items():
            self.free[name] -= sign * count
            if outlook is Outlook.RETURNING:
                self.returning[name] += sign * count
            elif outlook is Outlook.KEPT:
                _index(self.kept[name], lease, sign)
                if lease.asked is Asked.NOT:
                    _index(self.unasked[name], lease, sign)
        if outlook is Outlook.KEPT:
            _add(self._num_kept, lease.party, sign)
            _add(self._kept_depths, lease.depth, sign)


def _index(leases: dict[Party, dict[int, Lease]], lease: Lease, sign: int) -> None:
    if sign > 0:
        leases.setdefault(lease.party, {})[lease.id] = lease
        return
    del leases[lease.party][lease.id]
    if not leases[lease.party]:
        del leases[lease.party]


def _add(counts: dict[_Key, int], key: _Key, change: int) -> None:
    count = counts.get(key, 0) + change
    if count:
        counts[key] = count
    else:
        del counts[key]
