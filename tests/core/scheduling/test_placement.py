"""Does every lease find a node that has room for it, whatever comes, goes and is granted?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rdata.core.scheduling.commands import Infeasible, WarnWaiting
from rdata.core.scheduling.demands import Demand
from rdata.core.scheduling.placement import Command, Placement, Share
from rdata.core.scheduling.resources import fits, to_units

HOME, SECOND, THIRD = b"home", b"second", b"third"
JOB, ME, OTHER = b"job", b"me", b"other"
GRACE_S = 10.0


def shares(commands: list[Command]) -> dict[bytes, int]:
    return {each.node: each.demand.count for each in commands if isinstance(each, Share)}


def cluster(**nodes: dict[str, float]) -> Placement:
    """Placement on the node `home`, which knows the others."""
    placement = Placement(HOME, nodes["home"], GRACE_S, is_cluster=True)
    for name, total in nodes.items():
        placement.node_changed(name.encode(), total, total, 0.0)
    return placement


def want(count: int, key: int = 1, **resources: float) -> Demand:
    return Demand(key, resources or {"CPU": 1}, count)


def test_an_embedded_node_gets_everything_even_what_it_can_never_serve() -> None:
    placement = Placement(HOME, {"CPU": 1}, GRACE_S, is_cluster=False)
    demand = want(3, nothing=5)
    assert placement.demand(ME, JOB, demand, 0.0) == [Share(HOME, ME, JOB, demand)]
    assert not placement.needs_ticks()


def test_this_node_comes_first() -> None:
    placement = cluster(home={"CPU": 2}, second={"CPU": 8})
    assert shares(placement.demand(ME, JOB, want(2), 0.0)) == {HOME: 2}


def test_what_is_too_much_for_this_node_goes_where_there_is_room() -> None:
    placement = cluster(home={"CPU": 5}, second={"CPU": 2}, third={"CPU": 2})
    assert shares(placement.demand(ME, JOB, want(7), 0.0)) == {HOME: 5, SECOND: 2}


def test_what_has_room_nowhere_waits_everywhere_in_proportion() -> None:
    placement = cluster(home={"CPU": 5}, second={"CPU": 2}, third={"CPU": 2})
    assert shares(placement.demand(ME, JOB, want(54), 0.0)) == {HOME: 30, SECOND: 12, THIRD: 12}


def test_a_named_resource_leads_to_the_node_that_has_it() -> None:
    placement = cluster(home={"CPU": 5}, second={"CPU": 2, "alice": 2}, third={"CPU": 2})
    assert shares(placement.demand(ME, JOB, want(10, CPU=1, alice=1), 0.0)) == {SECOND: 10}


def test_room_that_one_wish_takes_is_not_there_for_the_next() -> None:
    placement = cluster(home={"CPU": 2}, second={"CPU": 2})
    assert shares(placement.demand(ME, JOB, want(2), 0.0)) == {HOME: 2}
    assert shares(placement.demand(OTHER, JOB, want(2), 0.0)) == {SECOND: 2}


def test_a_wish_that_waits_for_something_rare_does_not_keep_the_rest_from_others() -> None:
    placement = cluster(home={"CPU": 2}, second={"CPU": 2, "rare": 1})
    placement.node_changed(SECOND, {"CPU": 2, "rare": 1}, {"CPU": 2}, 0.0)
    placement.demand(OTHER, JOB, want(5, CPU=1, rare=1), 0.0)
    assert shares(placement.demand(ME, JOB, want(4), 0.0)) == {HOME: 2, SECOND: 2}


def test_what_waits_moves_to_a_node_that_gets_room() -> None:
    placement = cluster(home={"CPU": 1}, second={"CPU": 1})
    for node in (HOME, SECOND):
        placement.node_changed(node, {"CPU": 1}, {}, 0.0)
    assert shares(placement.demand(ME, JOB, want(2), 0.0)) == {HOME: 1, SECOND: 1}
    assert shares(placement.node_changed(SECOND, {"CPU": 2}, {"CPU": 2}, 1.0)) == {
        HOME: 0,
        SECOND: 2,
    }


def test_a_lease_too_many_is_taken_from_who_would_still_grant_one() -> None:
    placement = cluster(home={"CPU": 1}, second={"CPU": 1})
    placement.demand(ME, JOB, want(2), 0.0)
    assert placement.granted(ME, 1, HOME) == []
    assert shares(placement.granted(ME, 1, HOME)) == {SECOND: 0}  # granted before it was asked
    assert placement.granted(ME, 1, SECOND) == []


def test_what_was_granted_takes_room_before_the_node_says_so() -> None:
    placement = cluster(home={"CPU": 1}, second={"CPU": 1})
    placement.demand(ME, JOB, want(1), 0.0)
    placement.granted(ME, 1, HOME)
    assert shares(placement.demand(OTHER, JOB, want(1), 0.0)) == {SECOND: 1}


def test_the_share_of_a_node_that_ends_goes_elsewhere() -> None:
    placement = cluster(home={"CPU": 1}, second={"CPU": 1}, third={"CPU": 1})
    placement.demand(ME, JOB, want(2, x=0.0, CPU=1), 0.0)
    assert shares(placement.node_gone(SECOND, 1.0)) == {THIRD: 1}


def test_what_no_node_can_meet_is_warned_about_and_then_refused() -> None:
    placement = cluster(home={"CPU": 1}, second={"CPU": 4, "disk": 1})
    (warning,) = placement.demand(ME, JOB, want(1, CPU=9), 0.0)
    assert isinstance(warning, WarnWaiting)
    assert "9 CPU" in warning.message
    assert "4 CPU, 1 disk" in warning.message
    assert placement.needs_ticks()
    assert placement.tick(GRACE_S - 0.1) == []
    (refusal,) = placement.tick(GRACE_S)
    assert isinstance(refusal, Infeasible)
    assert (refusal.requester, refusal.key) == (ME, 1)
    assert not placement.needs_ticks()
    assert placement.tick(GRACE_S + 1) == []


def test_a_node_that_joins_in_time_serves_it() -> None:
    placement = cluster(home={"CPU": 1})
    placement.demand(ME, JOB, want(3, CPU=9), 0.0)
    assert shares(placement.node_changed(SECOND, {"CPU": 9}, {"CPU": 9}, 5.0)) == {SECOND: 3}
    assert placement.tick(GRACE_S) == []


def test_a_wish_that_makes_no_sense_is_refused() -> None:
    (refusal,) = cluster(home={"CPU": 1}).demand(ME, JOB, want(1, CPU=-1), 0.0)
    assert isinstance(refusal, Infeasible)
    assert "-1" in refusal.message


# ---------------------------------------------------------------- whatever happens

NAMES = (HOME, SECOND, THIRD)
SHAPES = ({"CPU": 1.0}, {"CPU": 2.0}, {"CPU": 1.0, "alice": 1.0}, {"CPU": 0.5}, {})


@dataclass
class _Node:
    """A node as simple as can be: who waits, and what runs."""

    total: dict[str, float]
    running: list[dict[str, float]] = field(default_factory=list)
    waiting: dict[tuple[bytes, int], Demand] = field(default_factory=dict)

    def available(self) -> dict[str, float]:
        used: Counter[str] = Counter()
        for resources in self.running:
            used.update(resources)
        return {name: amount - used[name] for name, amount in self.total.items()}

    def has_room(self, resources: dict[str, float]) -> bool:
        return fits(to_units(resources), to_units(self.available()))


class PlacementMachine(RuleBasedStateMachine):
    """Nodes come, go and say what they have; processes want leases, get them and return them."""

    @initialize(cpus=st.integers(1, 4))
    def begin(self, cpus: int) -> None:
        self.now = 0.0
        self.nodes = {HOME: _Node({"CPU": float(cpus)})}
        self.placement = Placement(HOME, self.nodes[HOME].total, GRACE_S, is_cluster=True)
        self.wanted: dict[tuple[bytes, int], tuple[dict[str, float], int]] = {}

    def carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Share):
                key = command.requester, command.demand.key
                assert command.node in self.nodes
                if command.demand.count:
                    self.nodes[command.node].waiting[key] = command.demand
                else:
                    self.nodes[command.node].waiting.pop(key, None)

    def announce(self, name: bytes) -> list[Command]:
        node = self.nodes[name]
        return self.placement.node_changed(name, node.total, node.available(), self.now)

    @rule(
        requester=st.sampled_from([ME, OTHER]),
        key=st.integers(0, len(SHAPES) - 1),
        count=st.integers(0, 9),
    )
    def demand(self, requester: bytes, key: int, count: int) -> None:
        self.wanted[requester, key] = SHAPES[key], count
        demand = Demand(key, SHAPES[key], count)
        self.carry_out(self.placement.demand(requester, JOB, demand, self.now))

    @rule(name=st.sampled_from(NAMES), cpus=st.integers(1, 4), alice=st.integers(0, 2))
    def join(self, name: bytes, cpus: int, alice: int) -> None:
        if name not in self.nodes:
            self.nodes[name] = _Node({"CPU": float(cpus), "alice": float(alice)})
            self.carry_out(self.announce(name))

    @rule(name=st.sampled_from([SECOND, THIRD]))
    def end(self, name: bytes) -> None:
        if self.nodes.pop(name, None) is not None:
            self.carry_out(self.placement.node_gone(name, self.now))

    @rule(name=st.sampled_from(NAMES), data=st.data())
    def grant(self, name: bytes, data: st.DataObject) -> None:
        node = self.nodes.get(name)
        ready = [
            key
            for key, demand in (node.waiting.items() if node else ())
            if node.has_room(dict(demand.resources))
        ]
        if ready:
            self.grant_one(name, data.draw(st.sampled_from(ready)))

    def grant_one(self, name: bytes, key: tuple[bytes, int]) -> None:
        node = self.nodes[name]
        demand = node.waiting.pop(key)
        node.running.append(dict(demand.resources))
        if demand.count > 1:
            node.waiting[key] = Demand(demand.key, demand.resources, demand.count - 1)
        shape, count = self.wanted[key]
        self.wanted[key] = shape, max(0, count - 1)
        self.carry_out(self.placement.granted(*key, name))

    @rule(name=st.sampled_from(NAMES))
    def finish(self, name: bytes) -> None:
        if name in self.nodes and self.nodes[name].running:
            self.nodes[name].running.pop()

    @rule(name=st.sampled_from(NAMES))
    def news(self, name: bytes) -> None:
        if name in self.nodes:
            self.carry_out(self.announce(name))

    @rule(requester=st.sampled_from([ME, OTHER]))
    def leave(self, requester: bytes) -> None:
        self.placement.requester_gone(requester)
        for key in [key for key in self.wanted if key[0] == requester]:
            del self.wanted[key]
            for node in self.nodes.values():
                node.waiting.pop(key, None)

    @precondition(lambda self: hasattr(self, "nodes"))
    @invariant()
    def what_is_wanted_is_asked_for(self) -> None:
        for key, (shape, count) in self.wanted.items():
            asked = [node.waiting[key].count for node in self.nodes.values() if key in node.waiting]
            is_feasible = any(fits(to_units(shape), to_units(n.total)) for n in self.nodes.values())
            assert sum(asked) == (count if is_feasible else 0), key
        for node in self.nodes.values():
            for key, demand in node.waiting.items():
                assert fits(to_units(demand.resources), to_units(node.total)), key

    @precondition(lambda self: hasattr(self, "nodes"))
    @invariant()
    def news_without_news_changes_nothing(self) -> None:
        for name in self.nodes:
            self.carry_out(self.announce(name))
        for name in self.nodes:
            assert shares(self.announce(name)) == {}
        assert shares(self.placement.tick(self.now)) == {}

    def teardown(self) -> None:
        """When nodes grant what they can and say so, nobody waits in vain."""
        for _ in range(200):
            ready = [
                (name, key)
                for name, node in self.nodes.items()
                for key, demand in node.waiting.items()
                if node.has_room(dict(demand.resources))
            ]
            if not ready:
                break
            self.grant_one(*ready[0])
            for name in list(self.nodes):
                self.carry_out(self.announce(name))
        for key, (shape, count) in self.wanted.items():
            has_room = any(node.has_room(shape) for node in self.nodes.values())
            assert count == 0 or not has_room, (key, shape, count)


TestPlacementMachine = PlacementMachine.TestCase
TestPlacementMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
