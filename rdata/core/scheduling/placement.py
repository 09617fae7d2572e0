"""Which node is to serve each lease that a process of this node wants?

A pure state machine: each event, with its time, returns the commands that follow from it.

Rules. A wish is shared out over the nodes that could ever meet it. This node comes first, as far as
it has room; then the others, the one with the most room first. What fits nowhere waits at several
nodes, in proportion to their sizes, and moves as soon as one of them has room where another has
none. Room is what a node last said to have, less what was granted since and what other wishes of
this node's processes are about to take there. Two nodes may promise the same room; then leases
wait where they need not until the next news, and a lease too many is returned as idle.
"""

from __future__ import annotations

from msgspec import Struct, field
from msgspec.structs import replace

from rdata.core.scheduling.commands import Infeasible, WarnWaiting
from rdata.core.scheduling.demands import Demand, needs_and_holds
from rdata.core.scheduling.resources import CPU, Amounts, Units, describe, fits, to_units
from rdata.errors import OptionError

_NO_LIMIT = 1 << 30  # how often nothing fits


class Share(Struct, frozen=True):
    """Ask the node for `demand.count` leases, in place of what it was asked for under the key."""

    node: bytes
    requester: bytes
    job: bytes
    demand: Demand


Command = Share | Infeasible | WarnWaiting


class _Node(Struct, eq=False):
    total: Units
    free: dict[str, int]  # as it last said, less what it has granted since

    def fitting(self, needs: Units, free: Units) -> int:
        """How often `needs` fits into `free`; 0 where the node has too little of something."""
        if not fits(needs, self.total):
            return 0
        return min((max(0, free.get(name, 0)) // n for name, n in needs.items()), default=_NO_LIMIT)


class _Wish(Struct, eq=False):
    requester: bytes
    job: bytes
    demand: Demand
    needs: Units
    since: float
    count: int
    shares: dict[bytes, int] = field(default_factory=dict)  # by node; as it was last asked
    has_warned: bool = False


class Placement:
    """The leases that one node's processes want, over all nodes of the cluster.

    `total` is what this node, `home`, has. A shape that no node can ever meet is refused by this
    node's scheduler at once, or, with `is_cluster`, here after `infeasible_grace_s`.
    """

    def __init__(
        self, home: bytes, total: Amounts, infeasible_grace_s: float, *, is_cluster: bool
    ) -> None:
        self._home = home
        units = to_units(total)
        self._nodes = {home: _Node(units, dict(units))}
        self._infeasible_grace_s = infeasible_grace_s
        self._is_cluster = is_cluster
        self._wishes: dict[tuple[bytes, int], _Wish] = {}

    # ------------------------------------------------------------ wishes

    def demand(self, requester: bytes, job: bytes, demand: Demand, now: float) -> list[Command]:
        """The process now wants `demand.count` leases beyond those granted; 0: none any more.

        Replaces what it wanted under this key.
        """
        if not self._is_cluster:
            return [Share(self._home, requester, job, demand)]
        try:
            needs, _ = needs_and_holds(demand)
        except OptionError as refusal:
            return [Infeasible(requester, demand.key, str(refusal))] if demand.count else []
        wish = self._wishes.get((requester, demand.key))
        if wish is None:
            if not demand.count:
                return []
            wish = _Wish(requester, job, demand, needs, now, demand.count)
            self._wishes[requester, demand.key] = wish
        wish.demand, wish.needs, wish.count = demand, needs, demand.count
        return self._rebalance(now)

    def granted(self, requester: bytes, key: int, node: bytes) -> list[Command]:
        """The node has granted the process a lease, and counts one less that it waits for."""
        wish = self._wishes.get((requester, key))
        if wish is None:
            return []
        granter = self._nodes.get(node)
        if granter is not None:
            for name, count in wish.needs.items():
                granter.free[name] = granter.free.get(name, 0) - count
        wish.count = max(0, wish.count - 1)
        if wish.shares.get(node, 0) > 0:
            wish.shares[node] -= 1
            if wish.count:
                return []
        return self._share_out(wish, {})

    def requester_gone(self, requester: bytes) -> list[Command]:
        """The process has ended: the nodes hear of it, and forget what they were asked for."""
        self._drop([key for key in self._wishes if key[0] == requester])
        return []

    def job_ended(self, job: bytes) -> list[Command]:
        """The job is over, and the nodes hear of it."""
        self._drop([key for key, wish in self._wishes.items() if wish.job == job])
        return []

    # ------------------------------------------------------------ nodes and time

    def node_changed(
        self, node: bytes, total: Amounts, available: Amounts, now: float
    ) -> list[Command]:
        """A node, this one too, says what it has and how much of that is free."""
        self._nodes[node] = _Node(to_units(total), to_units(available))
        return self._rebalance(now)

    def node_gone(self, node: bytes, now: float) -> list[Command]:
        """Another node has ended: what it was to serve goes elsewhere."""
        self._nodes.pop(node, None)
        for wish in self._wishes.values():
            wish.shares.pop(node, None)
        return self._rebalance(now)

    def tick(self, now: float) -> list[Command]:
        """Time has passed: refuse what no node has been able to meet for long."""
        late = [
            wish
            for wish in self._wishes.values()
            if wish.has_warned and now - wish.since >= self._infeasible_grace_s
        ]
        for wish in late:
            del self._wishes[wish.requester, wish.demand.key]
        return [
            Infeasible(wish.requester, wish.demand.key, self._why_infeasible(wish.needs, "never"))
            for wish in late
        ]

    def needs_ticks(self) -> bool:
        """Whether somebody waits for a node that can meet what it wants."""
        return any(wish.has_warned for wish in self._wishes.values())

    # ------------------------------------------------------------ inside

    def _drop(self, keys: list[tuple[bytes, int]]) -> None:
        for key in keys:
            del self._wishes[key]

    def _rebalance(self, now: float) -> list[Command]:
        """Share all wishes out, in the order in which they came."""
        commands: list[Command] = []
        free = {name: dict(node.free) for name, node in self._nodes.items()}
        for wish in list(self._wishes.values()):
            room = {
                name: node.fitting(wish.needs, free[name]) for name, node in self._nodes.items()
            }
            commands += self._share_out(wish, room)
            commands += self._check_feasible(wish, now)
            for name, share in wish.shares.items():
                taken = min(share, room[name])
                for resource, count in wish.needs.items():
                    free[name][resource] = free[name].get(resource, 0) - taken * count
        return commands

    def _share_out(self, wish: _Wish, room: dict[bytes, int]) -> list[Command]:
        """Bring the wish's shares to its count, and to where there is `room`."""
        shares = dict(wish.shares)
        surplus = sum(shares.values()) - wish.count
        if surplus > 0:
            for node in sorted(shares, key=lambda node: room.get(node, 0) - shares[node]):
                taken = min(surplus, shares[node])
                shares[node] -= taken
                surplus -= taken
        elif surplus < 0:
            self._add(wish.needs, shares, room, -surplus)
        self._move(shares, room)
        changed = [
            node for node in {**wish.shares, **shares} if shares.get(node) != wish.shares.get(node)
        ]
        commands = [
            Share(
                node,
                wish.requester,
                wish.job,
                replace(wish.demand, count=shares.get(node, 0)),
            )
            for node in changed
        ]
        wish.shares = {node: share for node, share in shares.items() if share}
        if not wish.count:
            del self._wishes[wish.requester, wish.demand.key]
        return list(commands)

    def _add(
        self, needs: Units, shares: dict[bytes, int], room: dict[bytes, int], count: int
    ) -> None:
        """Add `count` to the shares: where there is room, and then in proportion to sizes."""
        for node in sorted(room, key=lambda node: (node != self._home, -room[node], node)):
            taken = min(count, max(0, room[node] - shares.get(node, 0)))
            if taken:
                shares[node] = shares.get(node, 0) + taken
                count -= taken
        sizes = {
            name: node.fitting(needs, node.total)
            for name, node in self._nodes.items()
            if fits(needs, node.total)
        }
        while count and sizes:
            per_size = max(1, count // max(1, sum(sizes.values())))
            node = min(sizes, key=lambda node: (shares.get(node, 0) / sizes[node], node))
            taken = min(count, per_size)
            shares[node] = shares.get(node, 0) + taken
            count -= taken

    def _move(self, shares: dict[bytes, int], room: dict[bytes, int]) -> None:
        """Let what waits at one node go to others that have room for it."""
        for node, waiting in [(node, share - room.get(node, 0)) for node, share in shares.items()]:
            for other in sorted(room, key=lambda other: shares.get(other, 0) - room[other]):
                moved = min(waiting, room[other] - shares.get(other, 0))
                if moved > 0:
                    shares[node] -= moved
                    shares[other] = shares.get(other, 0) + moved
                    waiting -= moved

    def _check_feasible(self, wish: _Wish, now: float) -> list[Command]:
        is_feasible = any(fits(wish.needs, node.total) for node in self._nodes.values())
        if is_feasible or not wish.count:
            wish.has_warned = False
            return []
        if wish.has_warned:
            return []
        wish.has_warned, wish.since = True, now
        text = self._why_infeasible(wish.needs, "not")
        wait = f"; it is refused unless one joins within {self._infeasible_grace_s:g} s"
        return [WarnWaiting(wish.requester, wish.demand.key, text + wait)]

    def _why_infeasible(self, needs: Units, when: str) -> str:
        largest = max(self._nodes.values(), key=lambda node: node.total.get(CPU, 0))
        return (
            f"a request for {describe(needs)} can {when} be met by any of the {len(self._nodes)} "
            f"nodes, of which the largest has {describe(largest.total)} in all"
        )
