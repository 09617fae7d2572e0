"""Is an object freed when, and only when, nobody holds it, whatever happens in whatever order?

Twice: as a state machine, whose failures Hypothesis makes short, and as long random walks, which
get further in the same time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.core.processes import Cluster, Process, Ref

NUM_PROCESSES = 3  # an owner, one that hands its object on, one that gets it
MAX_OWN_REFS = 2  # a program; more make the same bugs harder to find
WALK_STEPS = 150

T = TypeVar("T")
Pick = Callable[[Sequence[T]], T]


class World:
    """All that can happen, each with a condition of the same name and `can_` before it."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.num_to_kill = 0
        for _ in range(NUM_PROCESSES):
            self.cluster.start()

    def act(self, pick: Pick) -> None:
        """Let something happen that can."""
        name = pick([name for name in ACTIONS if getattr(self, "can_" + name)()])
        getattr(self, name)(pick)

    def living(self) -> list[Process]:
        return list(self.cluster.processes.values())

    # ------------------------------------------------------------ what programs do

    def can_put(self) -> list[Process]:
        return [
            process
            for process in self.living()
            if sum(owner == process.address for _, owner in process.refs) < MAX_OWN_REFS
        ]

    def put(self, pick: Pick) -> None:
        process = pick(self.can_put())
        process.put(_some(pick, process.refs, 2), is_stored=pick([False, True]))

    def can_get(self) -> list[Process]:
        return [process for process in self.living() if process.refs]

    def get(self, pick: Pick) -> None:
        process = pick(self.can_get())
        foreign = [ref for ref in process.refs if ref[1] != process.address]
        ref = pick(foreign or process.refs)
        if not process.get(ref) and pick([False, True]):  # the owner answers at once
            owner = self.cluster.known[ref[0]]
            self.settle_channel((process.id, owner))
            self.settle_channel((owner, process.id))
            process.get(ref)

    can_drop = can_drop_all = can_submit = can_get

    def drop_all(self, pick: Pick) -> None:
        process = pick(self.can_drop_all())
        for ref in set(process.refs):
            while ref in process.refs and ref != process.refs[0]:
                process.drop(ref)

    def drop(self, pick: Pick) -> None:
        process = pick(self.can_drop())
        process.drop(pick(process.refs))

    def submit(self, pick: Pick) -> None:
        process = pick(self.can_submit())
        workers = [p for p in self.living() if p.id not in {process.id, *process.gone}]
        if not workers:
            return
        worker = pick(workers)
        refs = _some(pick, process.refs, 3)
        is_by_value = pick([False, True])
        process.submit(worker.id, *(([], refs[:1]) if is_by_value else (refs, [])))
        if pick([False, True]):  # it begins at once
            self.settle_channel((process.id, worker.id))
            while worker.inbox:
                worker.begin(worker.inbox[0])

    def can_begin(self) -> list[Process]:
        return [process for process in self.living() if process.inbox]

    def begin(self, pick: Pick) -> None:
        process = pick(self.can_begin())
        process.begin(pick(process.inbox))

    def can_end(self) -> list[Process]:
        return [process for process in self.living() if process.running]

    def end(self, pick: Pick) -> None:
        process = pick(self.can_end())
        run = pick(process.running)
        result = _some(pick, process.refs, 3)
        dropped: list[Ref] = []
        if pick([False, True]):
            for ref in run.adopted:  # those that the program has not dropped before
                if dropped.count(ref) < process.refs.count(ref):
                    dropped.append(ref)
        process.end(run, result, dropped, is_stored=pick([False, True]))

    def can_kill(self) -> bool:
        is_shared = any(process.borrows() for process in self.living())
        return self.num_to_kill > 0 and is_shared and len(self.living()) > 1

    def kill(self, pick: Pick) -> None:
        self.num_to_kill -= 1
        victim = pick(sorted(self.cluster.processes))
        self.cluster.kill(victim, lambda count: pick(range(count + 1)))

    def can_start(self) -> bool:
        return len(self.living()) < NUM_PROCESSES

    def start(self, pick: Pick) -> None:
        self.cluster.start()

    # ------------------------------------------------------------ what the network does

    def can_deliver(self) -> bool:
        return bool(self.cluster.channels)

    can_deliver_channel = can_deliver_all = can_deliver

    def deliver(self, pick: Pick) -> None:
        self.cluster.deliver(pick(sorted(self.cluster.channels)))

    def deliver_channel(self, pick: Pick) -> None:
        self.settle_channel(pick(sorted(self.cluster.channels)))

    def settle_channel(self, channel: tuple[bytes, bytes]) -> None:
        while channel in self.cluster.channels:
            self.cluster.deliver(channel)

    def deliver_all(self, pick: Pick) -> None:
        while self.cluster.channels:
            self.cluster.deliver(next(iter(self.cluster.channels)))

    def can_tell_of_end(self) -> bool:
        return bool(self.cluster.notices)

    def tell_of_end(self, pick: Pick) -> None:
        self.cluster.deliver_notice(pick(sorted(self.cluster.notices)))

    # ------------------------------------------------------------ what must hold

    def check(self) -> None:
        for process in self.living():
            for object_id in process.holds():
                assert process.knows(object_id)
                owner = self.cluster.processes.get(self.cluster.known[object_id])
                if owner is not None and object_id not in self.cluster.at_risk:
                    assert owner.knows(object_id), "freed, although somebody holds it"
        assert not [id for id, count in self.cluster.freed.items() if count > 1]

    def settle(self) -> None:
        """Everything arrives, and all tasks end."""
        is_quiet = False
        while not is_quiet:
            is_quiet = not (self.cluster.channels or self.cluster.notices)
            self.deliver_all(_first)
            for notice in sorted(self.cluster.notices):
                self.cluster.deliver_notice(notice)
            for process in self.living():
                is_quiet = is_quiet and not (process.inbox or process.running)
                for run in list(process.inbox):
                    process.begin(run)
                for run in list(process.running):
                    process.end(run, [], [], is_stored=False)

    def finish(self) -> None:
        """What is held is held by name, and once nothing is, nothing is left."""
        self.settle()
        for process in self.living():
            assert not process.tasks, "a task waits for ever"
            assert not process.kept, "a reply waits for ever"
            assert not process.in_transit, "a result is held for ever"
            assert not process.loads, "an outer object is held for ever"
            for object_id, owner in self.cluster.known.items():
                is_held = object_id in process.holds()
                if owner == process.id:
                    is_held = bool(self.cluster.holders(object_id))
                if not (is_held and object_id in self.cluster.at_risk):
                    assert process.knows(object_id) == is_held
        for process in self.living():
            for ref in list(process.refs):
                process.drop(ref)
        self.settle()
        for process in self.living():
            assert process.table.is_idle()
            for object_id in self.cluster.known:
                assert not process.knows(object_id)
        assert not [id for id, count in self.cluster.freed.items() if count > 1]


def _some(pick: Pick, refs: Sequence[Ref], max_count: int) -> list[Ref]:
    count = pick(range(max_count + 1)) if refs else 0
    return [pick(refs) for _ in range(count)]


def _first(choices: Sequence[T]) -> T:
    return choices[0]


# One of these at a time.
ACTIONS = sorted(name[4:] for name in vars(World) if name.startswith("can_"))


class Ownership(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(count=st.integers(0, 2))
    def how_many_may_die(self, count: int) -> None:
        self.world.num_to_kill = count

    @rule(data=st.data())
    def act(self, data: st.DataObject) -> None:
        self.world.act(lambda choices: data.draw(st.sampled_from(choices)))

    @invariant()
    def what_is_held_is_there(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.finish()


TestOwnership = Ownership.TestCase
TestOwnership.settings = settings(max_examples=60, stateful_step_count=40)


@settings(max_examples=500)
@given(seed=st.integers(0, 2**32), num_steps=st.integers(1, WALK_STEPS))
def test_walks(seed: int, num_steps: int) -> None:
    chance = random.Random(seed)
    world = World()
    world.num_to_kill = chance.choice([0, 1, num_steps // 20])
    for _ in range(num_steps):
        world.act(chance.choice)
        world.check()
    world.finish()


def test_what_was_taken_out_outlives_the_outer_object() -> None:
    """Its owner hears of the new holder before the outer object, which holds it too, may go."""
    world = World()
    owner, sender, receiver = world.living()
    owner.put([], is_stored=True)
    (inner,) = owner.refs
    owner.submit(sender.id, [inner], [])
    world.deliver_all(_first)
    sender.begin(sender.inbox[0])
    sender.put([inner], is_stored=False)
    outer = sender.refs[-1]
    sender.submit(receiver.id, [outer], [])
    sender.end(sender.running[0], [], [inner], is_stored=False)
    world.deliver_all(_first)
    receiver.begin(receiver.inbox[0])
    for ref in list(owner.refs):
        owner.drop(ref)
    for ref in [ref for ref in sender.refs if ref != outer]:
        sender.drop(ref)
    sender.drop(outer)
    assert not receiver.get(outer)
    world.deliver_all(_first)
    assert receiver.get(outer)
    receiver.end(receiver.running[0], [], [outer], is_stored=False)
    # All but the first message of the receiver to the owner of the inner object may come first.
    for channel in [(receiver.id, sender.id), (sender.id, receiver.id), (sender.id, owner.id)]:
        world.settle_channel(channel)
        world.check()
    world.deliver_all(_first)
    world.check()
    assert receiver.refs == [inner]
    assert not sender.knows(outer[0])
    world.finish()


def test_who_waits_for_a_value_hears_when_only_a_dead_process_held_it() -> None:
    """Its owner cannot know yet that the one who waits holds it, too."""
    world = World()
    owner, lender, waiter = world.living()
    owner.submit(waiter.id, [], [])
    (result,) = owner.refs
    owner.submit(lender.id, [result], [])
    world.deliver_all(_first)
    lender.begin(lender.inbox[0])
    lender.end(lender.running[0], [], [], is_stored=False)
    world.deliver_all(_first)
    lender.submit(waiter.id, [result], [])
    world.deliver_all(_first)
    waiter.begin(waiter.inbox[-1])
    owner.drop(result)
    waiter.submit(owner.id, [], [result])
    world.settle_channel((waiter.id, owner.id))
    world.cluster.kill(lender.id, lambda count: count)
    world.cluster.deliver_notice((lender.id, owner.id))
    assert not owner.knows(result[0])
    world.finish()
