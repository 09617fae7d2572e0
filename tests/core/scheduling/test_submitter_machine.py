"""Does every task end once, and does none wait for nothing, whatever agent and workers do?

Twice: as a state machine, whose failures Hypothesis makes short, and as long random walks, which
get further in the same time.
"""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.core.scheduling.submitter_model import World

WALK_STEPS = 120


class Submitting(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(capacity=st.integers(1, 4))
    def machine(self, capacity: int) -> None:
        self.world.capacity = capacity

    @rule(data=st.data())
    def act(self, data: st.DataObject) -> None:
        self.world.act(lambda choices: data.draw(st.sampled_from(choices)))

    @invariant()
    def nothing_waits_for_nothing(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.finish()


TestSubmitting = Submitting.TestCase
TestSubmitting.settings = settings(max_examples=50, stateful_step_count=40)


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32), num_steps=st.integers(1, WALK_STEPS))
def test_walks(seed: int, num_steps: int) -> None:
    chance = random.Random(seed)
    world = World()
    world.capacity = chance.randint(1, 4)
    for _ in range(num_steps):
        world.act(chance.choice)
        world.check()
    world.finish()
