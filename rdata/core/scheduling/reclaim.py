"""Which leases are asked back for those that wait?

A demand that does not fit asks for as many leases as it needs, the oldest first: of shallower
work, without bound; of equally deep work (of deeper work, too, if it is overdue), and of its own
requester under another key, so far as that evens out how many each has. Whatever else holds what
it lacks is asked not to stay idle.
Each lease is asked at most once in each of the two ways.
"""

from __future__ import annotations

import heapq

from rdata.core.scheduling.commands import Reclaim
from rdata.core.scheduling.demands import DemandQueue, Place, Waiting
from rdata.core.scheduling.ledger import Asked, Holders, Lease, Ledger, Party
from rdata.core.scheduling.plan import Plan
from rdata.core.scheduling.resources import fits
from rdata.core.scheduling.roster import Roster

TENURE_S = 0.05  # a lease serves so long before its equals ask for it; shorter: more handshakes
PATIENCE_S = 0.1  # a running task's demand waits so long for it to block, which frees its own CPU


class Reclaimer:
    """Asks back what the demands need that a plan has left waiting."""

    def __init__(
        self, demands: DemandQueue, ledger: Ledger, roster: Roster, plan: Plan, now: float
    ) -> None:
        self._demands, self._ledger, self._roster = demands, ledger, roster
        self._starting, self._now = plan.starting, now
        self._spare = {name: n + ledger.returning[name] for name, n in plan.spare.items()}
        self._most_kept, self._shallowest = ledger.most_kept(), ledger.shallowest_kept()
        self._commands: list[Reclaim] = []

    def ask(self) -> list[Reclaim]:
        """Mark the leases as asked, and say whom to ask."""
        hopeless: set[Place] = set()
        for _, waiting in heapq.merge(*self._demands.queues()):
            if waiting.place not in hopeless and not self._ask_for(waiting):
                hopeless.add(waiting.place)
        return self._commands

    def _ask_for(self, waiting: Waiting) -> bool:
        """False if there is nothing to ask for, for the later demands of this shape either."""
        party = (waiting.requester, waiting.key)
        for num_coming in range(waiting.count - self._starting.get(waiting, 0)):
            if not fits(waiting.needs, self._spare):
                num_mine = self._ledger.num_kept(party) + num_coming
                has_claim = self._has_claim(waiting, num_mine)
                if not has_claim and not self._are_others(self._ledger.unasked, waiting, party):
                    return True
                if not self._ask_for_one(waiting, party, num_mine if has_claim else None):
                    # Who has none, and is not to be patient, may ask for all that others may.
                    return num_mine > 0 or waiting.is_overdue or self._may_block_soon(waiting)
            for name, count in waiting.holds.items():
                self._spare[name] -= count
        return True

    def _has_claim(self, waiting: Waiting, num_mine: int) -> bool:
        """Whether any lease can be such that `_may_take`; quick, as it mostly is not."""
        return num_mine == 0 or self._most_kept > num_mine + 1 or self._shallowest < waiting.depth

    @staticmethod
    def _are_others(holders: Holders, waiting: Waiting, party: Party) -> bool:
        """Whether any but the party holds something of what is needed."""
        return any(len(holders[name]) > (party in holders[name]) for name in waiting.needs)

    def _ask_for_one(self, waiting: Waiting, party: Party, num_mine: int | None) -> bool:
        """Ask for what one more lease needs; False if it cannot be had."""
        short = {name: count - self._spare[name] for name, count in waiting.needs.items()}
        short = {name: count for name, count in short.items() if count > 0}
        patient = self._may_block_soon(waiting)
        chosen = []
        if num_mine is not None and not patient:
            chosen = self._choose(waiting, party, short, num_mine)
        for lease in chosen:
            self._ask(lease, Asked.NOW)
            for name, count in lease.granted.items():
                self._spare[name] += count
        for lease in _of_others(self._ledger.unasked, party, short):
            if not (patient and lease.worker == waiting.requester):
                self._ask(lease, Asked.IF_IDLE)
        return bool(chosen)

    def _choose(
        self, waiting: Waiting, party: Party, short: dict[str, int], num_mine: int
    ) -> list[Lease]:
        """The leases to ask back so that one more of the demand fits; none if it cannot."""
        leases = _of_others(self._ledger.kept, party, short)
        num_taken: dict[Party, int] = {}
        chosen: list[Lease] = []
        for lease in sorted(leases, key=lambda lease: lease.id):
            num_theirs = self._ledger.num_kept(lease.party) - num_taken.get(lease.party, 0)
            is_of_use = any(short.get(name, 0) > 0 for name in lease.granted)
            if not is_of_use or not self._may_take(waiting, lease, num_mine, num_theirs):
                continue
            chosen.append(lease)
            num_taken[lease.party] = num_taken.get(lease.party, 0) + 1
            short = {name: n - lease.granted.get(name, 0) for name, n in short.items()}
            if max(short.values()) <= 0:
                return chosen
        return []

    def _may_take(self, waiting: Waiting, lease: Lease, num_mine: int, num_theirs: int) -> bool:
        if lease.requester != waiting.requester:
            if lease.depth < waiting.depth:
                return True
            if lease.depth > waiting.depth and not waiting.is_overdue:
                return False
        # Equals: who has none gets one; beyond that, only what does not just turn the tables.
        is_fair = num_mine == 0 or num_theirs > num_mine + 1
        return is_fair and self._now - lease.granted_at >= TENURE_S

    def _may_block_soon(self, waiting: Waiting) -> bool:
        worker = self._roster.workers.get(waiting.requester)
        is_running = worker is not None and worker.lease is not None and not worker.lease.is_blocked
        return is_running and self._now - waiting.since < PATIENCE_S

    def _ask(self, lease: Lease, how: Asked) -> None:
        self._ledger.ask(lease, how)
        self._commands.append(Reclaim(lease.requester, lease.id, how is Asked.IF_IDLE))


def _of_others(holders: Holders, party: Party, names: dict[str, int]) -> list[Lease]:
    """The leases of other parties that hold any of the resources, each once."""
    leases: dict[int, Lease] = {}
    for name in names:
        for holder, of_holder in holders[name].items():
            if holder != party:
                leases.update(of_holder)
    return list(leases.values())
