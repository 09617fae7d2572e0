"""Is memory bounded, and does something always move?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdata.dataset.backpressure import Load, may_start, may_take
from rdata.dataset.physical.specs import Spec, TaskSpec
from rdata.dataset.physical.steps import SelectStep
from rdata.dataset.sizing import CALLS_AHEAD, pool_sizes
from rdata.errors import DataError

sizes = st.integers(0, 1000)


def load(share: int = 100, downstream: int = 0, is_starving: bool = False) -> Load:
    return Load(share, downstream, is_starving, keeps_cpu_from_next=False)


@given(sizes, sizes, sizes, sizes)
def test_one_task_may_always_start_for_a_next_that_starves(
    share: int, downstream: int, output: int, mean: int
) -> None:
    assert may_start(load(share, downstream, is_starving=True), output, 0, mean)


@given(sizes, sizes, sizes, st.integers(0, 5), sizes)
def test_otherwise_a_task_starts_only_if_what_it_makes_fits(
    share: int, downstream: int, output: int, running: int, mean: int
) -> None:
    if may_start(load(share, downstream), output, running, mean):
        assert output + downstream + (running + 1) * mean <= share


def test_a_full_share_holds_all_back_but_the_oldest_for_a_next_that_starves() -> None:
    assert may_take(load(), 99, is_oldest=False)
    assert not may_take(load(), 100, is_oldest=True)
    assert not may_take(load(downstream=60), 50, is_oldest=True)
    assert may_take(load(is_starving=True), 100, is_oldest=True)
    assert not may_take(load(is_starving=True), 100, is_oldest=False)


def test_tasks_that_would_keep_the_cpu_of_the_next_are_never_held() -> None:
    assert may_take(Load(100, 500, False, keeps_cpu_from_next=True), 500, is_oldest=False)


# -- sizing ----------------------------------------------------------------------------------------

STEPS = (SelectStep(("a",)),)


def tasks(**needs: object) -> TaskSpec:
    return TaskSpec(("tasks",), steps=STEPS, **needs)  # type: ignore[arg-type]


def actors(**needs: object) -> TaskSpec:
    return TaskSpec(("actors",), steps=STEPS, is_actor=True, **needs)  # type: ignore[arg-type]


def test_the_only_operator_has_all_cpus_and_a_task_behind_each() -> None:
    (size,) = pool_sizes([tasks()], 4)
    assert (size.places, size.keeps_cpu_from_next) == (8, False)


def test_an_earlier_operator_leaves_the_later_its_cpu() -> None:
    first, second = pool_sizes([tasks(), tasks(num_cpus=2)], 4)
    assert (first.places, first.keeps_cpu_from_next) == (2, False)
    assert second.places == 4
    first, _ = pool_sizes([tasks(), tasks()], 1)
    assert (first.places, first.keeps_cpu_from_next) == (1, True)


def test_concurrency_bounds_tasks_and_says_the_number_of_actors() -> None:
    assert pool_sizes([tasks(concurrency=3)], 8)[0].places == 3
    (size,) = pool_sizes([actors(concurrency=3)], 2)
    assert (size.min_runners, size.max_runners, size.places) == (3, 3, CALLS_AHEAD)
    (size,) = pool_sizes([actors(concurrency=(1, 5))], 2)
    assert (size.min_runners, size.max_runners) == (1, 5)
    (size,) = pool_sizes([actors()], 4)
    assert (size.min_runners, size.max_runners) == (1, 4)


def test_actors_leave_a_cpu_to_tasks() -> None:
    plan: list[Spec] = [tasks(), actors(num_cpus=1)]
    first, second = pool_sizes(plan, 4)
    assert second.max_runners == 3
    assert first.places >= 1
    with pytest.raises(DataError, match="2 actors that hold 1 CPUs each do not fit: 2 CPUs are"):
        pool_sizes([tasks(), actors(num_cpus=1, concurrency=2)], 2)
    with pytest.raises(DataError, match="do not fit"):
        pool_sizes([tasks(), actors(num_cpus=1)], 1)
