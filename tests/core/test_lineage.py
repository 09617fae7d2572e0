"""Is a task remembered exactly as long as it may have to run again?"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rdata.core import ids
from rdata.core.lineage import Lineage

OWNER = b"owner___"


def task(number: int) -> bytes:
    return OWNER + number.to_bytes(8, "little")


def made_by(number: int, index: int = 0) -> bytes:
    return ids.object_id(task(number), index)


def record(lineage: Lineage, number: int, *inputs: int, size: int = 1) -> None:
    needed = [made_by(each) for each in inputs]
    lineage.record(task(number), f"spec {number}", size, [made_by(number)], needed)


def test_a_task_is_remembered_while_its_result_is_held() -> None:
    lineage = Lineage(100)
    record(lineage, 1)
    assert lineage.spec_of(task(1)) == "spec 1"
    lineage.freed(made_by(1))
    assert lineage.spec_of(task(1)) is None
    assert (len(lineage), lineage.size_bytes) == (0, 0)


def test_and_while_what_was_made_of_it_is() -> None:
    lineage = Lineage(100)
    record(lineage, 1)
    record(lineage, 2, 1)
    record(lineage, 3, 2, 1)
    for number in (1, 2):
        lineage.freed(made_by(number))
    assert len(lineage) == 3
    lineage.freed(made_by(3))
    assert len(lineage) == 0


def test_a_long_chain_is_forgotten_at_once() -> None:
    lineage = Lineage(1 << 30)
    record(lineage, 0)
    for number in range(1, 20_000):
        record(lineage, number, number - 1)
        lineage.freed(made_by(number - 1))
    assert len(lineage) == 20_000
    lineage.freed(made_by(19_999))
    assert (len(lineage), lineage.size_bytes) == (0, 0)


def test_the_oldest_are_forgotten_when_there_are_too_many() -> None:
    lineage = Lineage(10)
    for number in range(20):
        record(lineage, number, size=3)
    assert [number for number in range(20) if lineage.spec_of(task(number))] == [17, 18, 19]
    record(lineage, 99, size=11)  # too large for any
    assert lineage.spec_of(task(99)) is None


def test_what_ran_again_is_recorded_once() -> None:
    lineage = Lineage(100)
    record(lineage, 1)
    record(lineage, 2, 1)
    record(lineage, 3, 2)
    record(lineage, 2, 1)
    assert (len(lineage), lineage.size_bytes) == (3, 3)
    lineage.freed(made_by(3))
    lineage.freed(made_by(2))
    lineage.freed(made_by(1))
    assert (len(lineage), lineage.size_bytes) == (0, 0)


class Programs(RuleBasedStateMachine):
    """Tasks that make objects of others, in an order as programs do."""

    def __init__(self) -> None:
        super().__init__()
        self.lineage = Lineage(1 << 30)
        self.inputs: dict[int, set[int]] = {}
        self.held: set[bytes] = set()

    @rule(data=st.data(), num_made=st.integers(1, 3))
    def run(self, data: st.DataObject, num_made: int) -> None:
        number = len(self.inputs)
        needed = []
        if self.held:
            needed = data.draw(st.lists(st.sampled_from(sorted(self.held)), max_size=3))
        made = [made_by(number, index) for index in range(num_made)]
        self.lineage.record(task(number), number, 1, made, needed)
        self.inputs[number] = {self.number_of(each) for each in needed}
        self.held.update(made)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        object_id = data.draw(st.sampled_from(sorted(self.held)))
        self.held.discard(object_id)
        self.lineage.freed(object_id)

    @precondition(lambda self: self.remembered())
    @rule(data=st.data())
    def run_again(self, data: st.DataObject) -> None:
        """What it made is held, and what it needs as well, for as long as it runs."""
        number = data.draw(st.sampled_from(sorted(self.remembered())))
        made = [each for each in self.held if self.number_of(each) == number]
        if made:
            needed = [made_by(each) for each in self.inputs[number]]
            self.lineage.record(task(number), number, 1, made, needed)

    @staticmethod
    def number_of(object_id: bytes) -> int:
        return int.from_bytes(ids.task_of(object_id)[8:], "little")

    def remembered(self) -> set[int]:
        """The tasks that made what is held, and those that made what they needed, and so on."""
        found: set[int] = set()
        stack = [self.number_of(each) for each in self.held]
        while stack:
            number = stack.pop()
            if number not in found:
                found.add(number)
                stack += self.inputs[number]
        return found

    @invariant()
    def it_is_what_may_have_to_run_again(self) -> None:
        remembered = self.remembered()
        assert len(self.lineage) == self.lineage.size_bytes == len(remembered)
        assert all(self.lineage.spec_of(task(number)) == number for number in remembered)


TestPrograms = Programs.TestCase
TestPrograms.settings = settings(max_examples=100, stateful_step_count=40)
