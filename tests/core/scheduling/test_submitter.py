"""Does a submitter supply its workers as far ahead as their tasks are short, and no further?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest

from rdata.core.messages import Reply
from rdata.core.scheduling.submitter import (
    BATCH,
    Command,
    Push,
    ReturnLease,
    Submitter,
    TakeBackTasks,
    WantLeases,
)

TARGET_S = 0.005
BATCH_BYTES = 1000
IDLE_S = 0.5
FAST, SLOW = b"fast", b"slow"
POOL = "a pool"


@dataclass(eq=False)
class Task:
    id: bytes
    function_id: bytes
    size_bytes: int = 1
    is_suspect: bool = False


@dataclass
class Desk:
    """A submitter, its clock, and the names of the tasks that it has been given."""

    submitter: Submitter = field(default_factory=lambda: Submitter(TARGET_S, BATCH_BYTES, IDLE_S))
    now: float = 100.0
    count: int = 0

    def submit(self, *functions: bytes, size_bytes: int = 1) -> list[Task]:
        tasks = list(self._tasks(functions, size_bytes))
        for task in tasks:
            if self.submitter.submit(POOL, task):
                self.submitter.flush(self.now)
        self.submitter.flush(self.now)
        return tasks

    def _tasks(self, functions: Iterable[bytes], size_bytes: int) -> Iterator[Task]:
        for function_id in functions:
            self.count += 1
            yield Task(self.count.to_bytes(4, "big"), function_id, size_bytes)

    def take(self) -> list[Command]:
        commands, self.submitter.commands[:] = self.submitter.commands[:], []
        return commands

    def finish(self, lease: int, *tasks: Task, run_s: float) -> None:
        self.now += run_s * len(tasks)
        results = [Reply(task.id, 0, run_s, []) for task in tasks]
        self.submitter.finished(lease, results, self.now)

    def give_back(self, lease: int, tasks: list[Task], is_blocked: bool = False) -> None:
        ids = [task.id for task in tasks]
        self.submitter.taken_back(lease, ids, is_blocked, self.now)

    def teach(self, lease: int, function_id: bytes, run_s: float) -> None:
        """Let a granted lease run two tasks, so that their function is known."""
        for _ in range(2):
            (task,) = self.submit(function_id)
            self.finish(lease, task, run_s=run_s)
        self.take()


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def taught() -> Desk:
    """One lease, number 1, and a function that takes 20 µs."""
    desk = Desk()
    desk.submitter.granted(POOL, 1, desk.now)
    desk.teach(1, FAST, 20e-6)
    return desk


def pushed(commands: list[Command], lease: int) -> list[Task]:
    found = [
        command for command in commands if isinstance(command, Push) and command.lease == lease
    ]
    return [task for push in found for task in push.tasks]  # type: ignore[misc]


def test_leases_are_asked_for_in_few_messages(desk: Desk) -> None:
    for _ in range(1000):
        desk.submit(FAST)
    wanted = [command.count for command in desk.take() if isinstance(command, WantLeases)]
    assert wanted == [1, 2, 4, 8, 16, 32, 64, 128, 256]


def test_a_function_that_has_run_once_is_not_known_yet(desk: Desk) -> None:
    """It may have been warmed up with little to do: the rest waits for a worker of its own."""
    desk.submitter.granted(POOL, 1, desk.now)
    (first,) = desk.submit(SLOW)
    desk.finish(1, first, run_s=20e-6)
    desk.take()
    tasks = desk.submit(*[SLOW] * 4)
    assert desk.take() == [Push(1, [tasks[0]]), WantLeases(POOL, 3)]
    desk.submitter.granted(POOL, 2, desk.now)
    assert pushed(desk.take(), 2) == [tasks[1]]
    desk.finish(1, tasks[0], run_s=20e-6)
    commands = desk.take()
    assert [*pushed(commands, 1), *pushed(commands, 2)] == tasks[2:]


def test_of_an_unknown_function_each_worker_gets_one_task(desk: Desk) -> None:
    tasks = desk.submit(*[SLOW] * 5)
    desk.submitter.granted(POOL, 1, desk.now)
    desk.submitter.granted(POOL, 2, desk.now)
    assert [c for c in desk.take() if isinstance(c, Push)] == [
        Push(1, [tasks[0]]),
        Push(2, [tasks[1]]),
    ]


def test_the_first_run_on_a_worker_counts_only_until_there_is_another(desk: Desk) -> None:
    """It may have imported for seconds what the later ones use."""
    for lease in (1, 2):
        desk.submitter.granted(POOL, lease, desk.now)
    first, second = desk.submit(FAST, FAST)
    desk.finish(1, first, run_s=3.0)
    desk.take()
    (third,) = desk.submit(FAST)  # to the one that is free
    desk.finish(1, third, run_s=20e-6)
    desk.finish(2, second, run_s=3.0)
    desk.take()
    desk.submit(*[FAST] * 1000)
    commands = desk.take()
    for lease in (1, 2):
        assert TARGET_S / 2 <= len(pushed(commands, lease)) * 20e-6 <= TARGET_S


@pytest.mark.parametrize("run_s", [20e-6, 200e-6])
def test_what_is_learned_does_not_depend_on_how_many_replies_come_together(run_s: float) -> None:
    def supplied(size: int) -> int:
        desk = Desk()
        desk.submitter.granted(POOL, 1, desk.now)
        for _ in range(2):  # the first run on a worker counts for little
            desk.teach(1, FAST, 60e-6)
        tasks = desk.submit(*[FAST] * 6)
        assert pushed(desk.take(), 1) == tasks
        for start in range(0, len(tasks), size):
            desk.finish(1, *tasks[start : start + size], run_s=run_s)
        desk.submit(*[FAST] * 1000)
        return len(pushed(desk.take(), 1))

    one_by_one = supplied(1)
    assert one_by_one != TARGET_S // 60e-6
    assert {supplied(2), supplied(3), supplied(6)} == {one_by_one}


def test_that_the_last_of_many_runs_took_long_is_seen_at_once(taught: Desk) -> None:
    tasks = taught.submit(*[FAST] * 100)
    assert pushed(taught.take(), 1) == tasks
    replies = [Reply(task.id, 0, 20e-6, []) for task in tasks]
    for reply in replies[-2:]:
        reply.run_s = TARGET_S / 4
    taught.submitter.finished(1, replies, taught.now)
    taught.submit(*[FAST] * 100)
    assert 4 <= len(pushed(taught.take(), 1)) <= 6


def test_of_a_forgotten_function_nothing_is_known(taught: Desk) -> None:
    taught.submitter.forget_function(FAST)
    tasks = taught.submit(*[FAST] * 5)
    assert pushed(taught.take(), 1) == tasks[:1]


def test_short_tasks_flow_by_the_hundred(taught: Desk) -> None:
    tasks = taught.submit(*[FAST] * 1000)
    sent = pushed(taught.take(), 1)
    assert sent == tasks[: len(sent)]
    assert TARGET_S / 2 <= len(sent) * 20e-6 <= TARGET_S


def test_a_burst_is_held_back_until_it_is_over(taught: Desk) -> None:
    tasks = [Task(bytes([number]), FAST) for number in range(3)]
    for task in tasks:
        taught.submitter.submit(POOL, task)
    assert taught.take() == []
    assert taught.submitter.holds_back
    taught.submitter.flush(taught.now)
    assert taught.take() == [Push(1, tasks)]
    assert not taught.submitter.holds_back


def test_in_a_burst_a_worker_that_has_finished_gets_the_next_with_the_others(taught: Desk) -> None:
    (first,) = taught.submit(FAST)
    assert taught.take() == [Push(1, [first])]
    tasks = [Task(bytes([number]), FAST) for number in range(3)]
    taught.submitter.submit(POOL, tasks[0])
    taught.finish(1, first, run_s=20e-6)
    assert taught.take() == []
    for task in tasks[1:]:
        taught.submitter.submit(POOL, task)
    taught.submitter.flush(taught.now)
    assert taught.take() == [Push(1, tasks)]


def test_of_a_long_burst_as_many_go_at_once_as_are_worth_a_message(taught: Desk) -> None:
    tasks = [Task(bytes([number]), FAST) for number in range(BATCH)]
    assert [taught.submitter.submit(POOL, task) for task in tasks] == [False] * (BATCH - 1) + [True]
    assert taught.take() == []


def test_a_task_that_may_have_crashed_its_worker_runs_alone(taught: Desk) -> None:
    before, suspect, after = (Task(bytes([n]), FAST, is_suspect=n == 1) for n in range(3))
    taught.submitter.retry(POOL, [before, suspect, after], taught.now)
    assert taught.take() == [Push(1, [before]), WantLeases(POOL, 2)]
    taught.finish(1, before, run_s=0.0)
    assert taught.take() == [Push(1, [suspect])]
    more = taught.submit(FAST)
    assert pushed(taught.take(), 1) == []
    taught.finish(1, suspect, run_s=0.0)
    assert pushed(taught.take(), 1) == [after, *more]


def test_tasks_are_shared_among_idle_workers(taught: Desk) -> None:
    taught.submitter.granted(POOL, 2, taught.now)
    taught.submit(*[FAST] * 100)
    commands = taught.take()
    assert [len(pushed(commands, 1)), len(pushed(commands, 2))] == [50, 50]


def test_a_frame_is_bounded_in_bytes_and_so_is_what_is_ahead(taught: Desk) -> None:
    taught.submit(*[FAST] * 100, size_bytes=300)
    pushes = [command for command in taught.take() if isinstance(command, Push)]
    assert [len(push.tasks) for push in pushes] == [3, 3, 3, 3, 1]  # 4 × 1000 bytes in all


def test_nothing_goes_behind_an_unknown_task(taught: Desk) -> None:
    unknown, short = taught.submit(SLOW, FAST)
    assert taught.take() == [Push(1, [unknown]), WantLeases(POOL, 1)]
    taught.submitter.granted(POOL, 2, taught.now)
    assert taught.take() == [Push(2, [short])]


def test_what_turns_out_long_is_soon_sent_one_at_a_time(taught: Desk) -> None:
    """The function takes a hundred times what it took: not much more may be sent ahead of it."""
    tasks = taught.submit(*[FAST] * 1000)
    first = pushed(taught.take(), 1)
    taught.finish(1, *first[:20], run_s=0.002)
    assert pushed(taught.take(), 1) == []
    assert len(tasks) > len(first)


def test_a_worker_that_comes_takes_what_waits_behind_tasks_longer_than_thought(
    taught: Desk,
) -> None:
    tasks = taught.submit(*[FAST] * 120)
    assert pushed(taught.take(), 1) == tasks
    taught.finish(1, *tasks[:20], run_s=0.002)
    taught.take()
    taught.submitter.granted(POOL, 2, taught.now)  # asked for before
    assert taught.take() == [TakeBackTasks(1)]
    taught.give_back(1, tasks[21:])
    commands = taught.take()
    assert pushed(commands, 2)[0] is tasks[21]
    assert pushed(commands, 1) != []


def test_too_little_work_to_be_worth_a_message_stays(taught: Desk) -> None:
    taught.submit(FAST, FAST)
    taught.take()
    taught.submitter.granted(POOL, 2, taught.now)
    assert taught.take() == []


# ---------------------------------------------------------------- overdue


def test_what_waits_behind_an_overdue_task_is_taken_back_and_given_to_another(
    taught: Desk,
) -> None:
    tasks = taught.submit(FAST, FAST)
    taught.take()
    taught.now += 1.9 * TARGET_S
    taught.submitter.tick(taught.now)
    assert taught.take() == []
    taught.now += TARGET_S
    taught.submitter.tick(taught.now)
    taught.submitter.tick(taught.now)
    assert taught.take() == [TakeBackTasks(1)]
    taught.give_back(1, tasks[1:])
    assert taught.take() == [WantLeases(POOL, 1)]  # and not behind the long one again
    taught.submitter.granted(POOL, 2, taught.now)
    assert taught.take() == [Push(2, tasks[1:])]


def test_nothing_more_goes_behind_an_overdue_task(taught: Desk) -> None:
    (long,) = taught.submit(FAST)
    taught.take()
    taught.now += 5 * TARGET_S
    (waiting,) = taught.submit(FAST)
    assert taught.take() == [WantLeases(POOL, 1)]
    taught.finish(1, long, run_s=0.0)  # then it is as good as any
    assert taught.take() == [Push(1, [waiting]), WantLeases(POOL, 0)]


# ---------------------------------------------------------------- blocked workers


def test_a_blocked_worker_gets_nothing_until_its_task_ends(taught: Desk) -> None:
    tasks = taught.submit(FAST, FAST)
    taught.take()
    taught.give_back(1, tasks[1:], is_blocked=True)
    assert taught.take() == [WantLeases(POOL, 1)]
    taught.finish(1, tasks[0], run_s=1.0)
    assert taught.take() == [Push(1, tasks[1:]), WantLeases(POOL, 0)]


def test_tasks_given_back_go_before_those_that_came_later(taught: Desk) -> None:
    tasks = taught.submit(FAST, FAST, FAST)
    taught.give_back(1, tasks[1:], is_blocked=True)
    later = taught.submit(FAST)
    taught.take()
    taught.submitter.granted(POOL, 2, taught.now)
    assert pushed(taught.take(), 2) == tasks[1:] + later


def test_a_task_that_is_forgotten_before_it_comes_back_goes_nowhere(taught: Desk) -> None:
    tasks = taught.submit(FAST, FAST)
    taught.take()
    taught.submitter.forget(1, tasks[1].id)
    taught.give_back(1, tasks[1:], is_blocked=True)
    assert taught.take() == []
    assert taught.submitter.lease_of(tasks[1].id) is None


# ---------------------------------------------------------------- leases go back


def test_an_idle_lease_lingers_and_goes_back(taught: Desk) -> None:
    taught.submitter.tick(taught.now + IDLE_S / 2)
    assert taught.take() == []
    assert taught.submitter.needs_ticks()
    taught.submitter.tick(taught.now + IDLE_S)
    assert taught.take() == [ReturnLease(1)]
    assert not taught.submitter.needs_ticks()


def test_a_reclaimed_lease_goes_back_when_what_runs_ends(taught: Desk) -> None:
    tasks = taught.submit(FAST, FAST)
    taught.take()
    taught.submitter.reclaimed(1, only_if_idle=False)
    assert taught.take() == [TakeBackTasks(1)]
    taught.give_back(1, tasks[1:])
    assert taught.take() == [WantLeases(POOL, 1)]
    taught.finish(1, tasks[0], run_s=0.0)
    assert taught.take() == [ReturnLease(1)]


def test_a_lease_reclaimed_if_idle_serves_what_there_is_first(taught: Desk) -> None:
    (task,) = taught.submit(FAST)
    taught.submitter.reclaimed(1, only_if_idle=True)
    (another,) = taught.submit(FAST)
    assert pushed(taught.take(), 1) == [task, another]
    taught.finish(1, task, another, run_s=0.0)
    assert taught.take() == [ReturnLease(1)]


def test_an_idle_lease_that_is_reclaimed_goes_back_at_once(taught: Desk) -> None:
    taught.submitter.reclaimed(1, only_if_idle=True)
    assert taught.take() == [ReturnLease(1)]
    taught.submitter.reclaimed(1, only_if_idle=True)  # crossed the return
    assert taught.take() == []


# ---------------------------------------------------------------- wanting


def test_once_nothing_waits_no_lease_is_wanted(desk: Desk) -> None:
    tasks = desk.submit(FAST, FAST)
    assert desk.take() == [WantLeases(POOL, 2)]
    desk.submitter.granted(POOL, 1, desk.now)
    desk.finish(1, tasks[0], run_s=20e-6)
    assert desk.take() == [Push(1, tasks[:1]), Push(1, tasks[1:]), WantLeases(POOL, 0)]


def test_wants_that_cross_grants_leave_none_behind(desk: Desk) -> None:
    """The agent had granted one when it heard of two: it believes in one that nobody needs."""
    (first,) = desk.submit(SLOW)
    (second,) = desk.submit(SLOW)
    assert desk.take() == [WantLeases(POOL, 1), WantLeases(POOL, 2)]
    desk.submitter.granted(POOL, 1, desk.now)  # for the first message
    desk.submitter.granted(POOL, 2, desk.now)  # for the second, which leaves one
    assert desk.take() == [Push(1, [first]), Push(2, [second]), WantLeases(POOL, 0)]


def test_what_can_never_be_granted_is_told_as_often_as_it_was_asked(desk: Desk) -> None:
    tasks = desk.submit(FAST) + desk.submit(FAST)
    assert desk.submitter.unschedulable(POOL) == tasks
    assert desk.submitter.unschedulable(POOL) == []
    desk.take()
    desk.submit(FAST)
    assert desk.take() == [WantLeases(POOL, 1)]


# ---------------------------------------------------------------- ends


def test_a_lost_lease_gives_its_tasks_to_the_caller_in_order(taught: Desk) -> None:
    tasks = taught.submit(FAST, FAST, FAST)
    taught.take()
    assert taught.submitter.lease_lost(1, taught.now) == tasks
    assert taught.submitter.lease_lost(1, taught.now) == []
    later = taught.submit(FAST)
    taught.submitter.retry(POOL, tasks, taught.now)
    taught.submitter.granted(POOL, 2, taught.now)
    assert pushed(taught.take(), 2) == tasks + later


def test_only_a_task_that_no_worker_has_can_be_cancelled(desk: Desk) -> None:
    sent, waiting = desk.submit(SLOW, SLOW)
    desk.submitter.granted(POOL, 1, desk.now)
    assert desk.submitter.lease_of(sent.id) == 1
    assert desk.submitter.lease_of(waiting.id) is None
    desk.take()
    assert not desk.submitter.cancel(POOL, sent.id)
    assert desk.submitter.cancel(POOL, waiting.id)
    assert not desk.submitter.cancel(POOL, waiting.id)
    assert not desk.submitter.cancel("no pool", waiting.id)
    assert desk.take() == [WantLeases(POOL, 0)]
    desk.finish(1, sent, run_s=0.0)
    assert desk.take() == []
