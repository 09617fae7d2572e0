"""Does each rule of leasing hold in the plainest case that shows it?"""

from __future__ import annotations

import pytest

from rdata.core.scheduling.leases import (
    Grant,
    Infeasible,
    KillReason,
    KillWorker,
    StartWorker,
    WarnWaiting,
    WorkerState,
)
from tests.core.scheduling.lease_node import (
    DRIVER,
    JOB,
    ONE_CPU,
    OTHER_DRIVER,
    OTHER_JOB,
    Node,
    grants,
    starts,
)

# ---------------------------------------------------------------- jobs and workers


@pytest.mark.parametrize(("num_cpus", "num_workers"), [(4, 4), (2.5, 2), (0.5, 1), (0, 1)])
def test_a_job_starts_a_worker_for_each_whole_cpu(num_cpus: float, num_workers: int):
    node = Node(num_cpus)
    assert node.workers(WorkerState.IDLE) == num_workers
    assert node.do("job_started", JOB) == []


def test_a_job_starts_no_more_workers_ahead_than_allowed():
    node = Node(4)
    assert len(node.scheduler.job_started(OTHER_JOB, node.now, max_ahead=3)) == 3
    assert node.scheduler.job_started(b"third", node.now, max_ahead=0) == []


def test_a_grant_names_worker_and_resources_and_takes_them():
    node = Node(2)
    (grant,) = node.want()
    assert isinstance(grant, Grant)
    assert (grant.requester, grant.key, grant.resources) == (DRIVER, 1, ONE_CPU)
    assert node.free == 1
    assert node.scheduler.holder_of(grant.worker) == DRIVER
    assert node.do("lease_returned", grant.lease) == []
    assert node.free == 2
    assert node.scheduler.holder_of(grant.worker) is None


def test_the_worker_used_last_is_used_next():
    node = Node(2)
    first, second = grants(node.want(2))
    node.do("lease_returned", second.lease)
    node.do("lease_returned", first.lease)
    assert grants(node.want())[0].worker == first.worker


def test_a_demand_replaces_the_earlier_one():
    node = Node(1)
    assert len(grants(node.want(5))) == 1
    assert node.scheduler.status().num_waiting == 4
    node.want(2)
    assert node.scheduler.status().num_waiting == 2
    node.want(0)
    assert node.scheduler.status().num_waiting == 0
    assert not node.scheduler.needs_ticks()


def test_no_more_workers_are_started_than_the_demand_needs():
    node = Node(4, starts=False)  # four are in start since the job began
    assert node.want(10) == []
    assert node.want(4, resources={"CPU": 0.5}, key=2) == []
    node = Node(2)
    held = grants(node.want(2, resources={"CPU": 0.5}))
    node.starts = False
    assert len(starts(node.want(5, resources={"CPU": 0.5}))) == 2  # as many as have room
    node.do("lease_returned", held[0].lease)
    assert node.workers(WorkerState.STARTING) == 2


def test_workers_that_nobody_has_used_are_replaced_by_preloaded_ones():
    node = Node(3)
    (used,) = grants(node.want(1))
    node.do("lease_returned", used.lease)
    (held,) = grants(node.want(1))
    assert held.worker == used.worker
    node.starts = False
    commands = node.scheduler.preloaded()
    assert len(starts(commands)) == 2
    killed = {command.worker for command in commands if isinstance(command, KillWorker)}
    assert len(killed) == 2
    assert used.worker not in killed
    assert not node.scheduler.preloaded()


def test_a_job_is_not_served_by_the_workers_of_another():
    node = Node(1)
    node.starts = False
    (start,) = node.do("job_started", OTHER_JOB)
    assert isinstance(start, StartWorker)
    assert node.want(requester=OTHER_DRIVER, job=OTHER_JOB) == []
    (grant,) = node.do("worker_ready", start.worker, OTHER_JOB)
    assert isinstance(grant, Grant)
    assert grant.worker == start.worker


def test_what_awaits_a_starting_worker_is_not_given_to_who_comes_later():
    node = Node(1)
    node.starts = False
    (start,) = starts(node.do("job_started", OTHER_JOB))
    node.want(requester=OTHER_DRIVER, job=OTHER_JOB)
    assert node.want(requester=DRIVER) == []  # although its job has an idle worker
    assert grants(node.do("worker_ready", start.worker, OTHER_JOB))


def test_an_actor_that_awaits_a_starting_worker_finds_its_cpu_free():
    node = Node(1)
    node.starts = False
    (start,) = starts(node.do("job_started", OTHER_JOB))
    node.want(requester=OTHER_DRIVER, job=OTHER_JOB, held={}, dedicated=True)
    assert node.want(requester=DRIVER) == []
    served = grants(node.do("worker_ready", start.worker, OTHER_JOB))
    assert [grant.requester for grant in served] == [OTHER_DRIVER, DRIVER]


def test_the_end_of_a_job_kills_its_workers_and_drops_its_demands():
    node = Node(2)
    (grant, _) = grants(node.want(5))
    kills = node.do("job_ended", JOB)
    assert {type(kill) for kill in kills} == {KillWorker}
    assert {kill.reason for kill in kills} == {KillReason.JOB_ENDED}
    assert len(kills) == 2
    assert node.scheduler.status().num_waiting == 0
    assert node.free == 0  # until the processes are gone
    for kill in kills:
        node.do("worker_gone", kill.worker)
    assert node.free == 2
    assert node.do("job_ended", JOB) == []
    assert node.want() == []  # its last words
    assert node.do("lease_returned", grant.lease) == []


def test_a_worker_that_nobody_expects_is_killed():
    node = Node(1)
    (kill,) = node.do("worker_ready", b"stranger", JOB)
    assert kill == KillWorker(b"stranger", KillReason.UNEXPECTED)
    node.starts = False
    (start,) = node.do("job_started", OTHER_JOB)
    node.do("job_ended", OTHER_JOB)
    assert node.do("worker_ready", start.worker, OTHER_JOB) == [
        KillWorker(start.worker, KillReason.UNEXPECTED)
    ]


def test_a_job_whose_workers_die_while_starting_waits_longer_each_time():
    node = Node(1, starts=False)
    node.want()
    worker = b"worker 0"
    waits = []
    for _ in range(9):
        assert node.do("worker_gone", worker) == []
        died = node.now
        while not (commands := starts(node.do("tick"))):
            node.now += 0.01
        worker = commands[0].worker
        waits.append(node.now - died)
    assert waits[:3] == pytest.approx([0.1, 0.2, 0.4], abs=0.011)
    assert waits[-1] == pytest.approx(5, abs=0.011)
    assert grants(node.do("worker_ready", worker, JOB))
    assert starts(node.do("worker_gone", worker)) == []  # it died of its task
    (start,) = starts(node.want())
    node.do("worker_gone", start.worker)
    node.now += 0.11  # one has started since, so this is a first failure again
    assert starts(node.do("tick"))


def test_surplus_workers_end_after_a_while_the_longest_idle_first():
    node = Node(1)
    (parent,) = grants(node.want())
    node.do("blocked", parent.worker)
    (child,) = grants(node.want(requester=parent.worker, depth=1))
    node.do("lease_returned", child.lease)
    node.do("unblocked", parent.worker)
    node.now = 20
    node.do("lease_returned", parent.lease)
    node.now = 29
    assert node.do("tick") == []
    node.now = 31
    assert node.do("tick") == [KillWorker(child.worker, KillReason.IDLE)]
    node.now = 1000
    assert node.do("tick") == []  # one a CPU stays


def test_a_worker_that_declines_to_retire_is_idle_again():
    node = Node(2)
    node.do("job_started", OTHER_JOB)
    node.now = 31
    kills = node.do("tick")
    assert len(kills) == 2
    node.do("worker_ready", kills[0].worker, JOB)
    assert node.workers(WorkerState.IDLE) == 3
    (instead,) = node.do("tick")
    assert instead not in kills  # another one, and not the same at once
    assert node.do("tick") == []


def test_an_idle_worker_that_holds_leases_is_not_surplus():
    node = Node(2)
    parent, _ = grants(node.want(2))
    node.do("blocked", parent.worker)
    (child,) = grants(node.want(requester=parent.worker, depth=1))
    node.do("lease_returned", parent.lease)
    node.do("job_started", OTHER_JOB)
    node.now = 31
    asked = {kill.worker for kill in node.do("tick")}
    assert asked
    assert parent.worker not in asked
    assert child.worker not in asked


def test_an_idle_worker_that_waits_for_leases_is_not_surplus():
    node = Node(1, disk=1)
    (parent,) = grants(node.want())
    (actor,) = grants(node.want(resources={"disk": 1}, dedicated=True, key=2))
    node.want(requester=parent.worker, resources={"disk": 1}, depth=1)
    node.do("lease_returned", parent.lease)
    node.do("job_started", OTHER_JOB)
    node.now = 31
    asked = {command.worker for command in node.do("tick") if isinstance(command, KillWorker)}
    assert len(asked) == 1
    assert not asked & {parent.worker, actor.worker}


# ---------------------------------------------------------------- blocked


def test_a_blocked_worker_hands_back_its_cpu_and_only_that():
    node = Node(1, disk=1)
    (parent,) = grants(node.want(resources={"CPU": 1, "disk": 1}))
    node.do("blocked", parent.worker)
    assert node.scheduler.available() == {"CPU": 1, "disk": 0}
    assert grants(node.want(requester=parent.worker, depth=1))


def test_an_unblocked_worker_retakes_its_cpu_as_debt_which_is_repaid_first():
    node = Node(1)
    (parent,) = grants(node.want())
    node.do("blocked", parent.worker)
    (child,) = grants(node.want(requester=parent.worker, depth=1))
    node.do("unblocked", parent.worker)
    assert node.scheduler.available() == {"CPU": 0}
    node.want(requester=b"b")
    assert not grants(node.do("lease_returned", child.lease))
    assert grants(node.do("lease_returned", parent.lease))


def test_a_debt_does_not_hold_up_what_needs_no_cpu():
    node = Node(1, disk=1)
    (parent,) = grants(node.want())
    node.do("blocked", parent.worker)
    grants(node.want(requester=parent.worker, depth=1))
    node.do("unblocked", parent.worker)
    assert grants(node.want(requester=b"b", resources={"disk": 1}))


def test_being_blocked_twice_counts_once():
    node = Node(1)
    (parent,) = grants(node.want())
    for event in ("unblocked", "blocked", "blocked"):
        node.do(event, parent.worker)
    assert node.free == 1
    for _ in range(2):
        node.do("unblocked", parent.worker)
    assert node.free == 0


@pytest.mark.parametrize("end", ["lease_returned", "worker_gone", "requester_gone", "job_ended"])
def test_a_lease_that_ends_while_blocked_gives_nothing_back_twice(end: str):
    node = Node(1, disk=1)
    (grant,) = grants(node.want(resources={"CPU": 1, "disk": 1}))
    node.do("blocked", grant.worker)
    argument = {"lease_returned": grant.lease, "worker_gone": grant.worker}.get(
        end, JOB if end == "job_ended" else DRIVER
    )
    node.do(end, argument)
    for late in ("unblocked", "blocked"):
        node.do(late, grant.worker)
    if end != "lease_returned":
        node.do("worker_gone", grant.worker)
    assert node.scheduler.available() == {"CPU": 1, "disk": 1}


# ---------------------------------------------------------------- actors


def test_an_actor_needs_its_cpu_to_be_placed_and_holds_what_it_says():
    node = Node(1, disk=1)
    (grant,) = grants(node.want(held={"disk": 1}, dedicated=True))
    assert grant.resources == {"disk": 1}
    assert node.scheduler.available() == {"CPU": 1, "disk": 0}


def test_actors_that_hold_nothing_are_all_placed():
    node = Node(1)
    assert len(grants(node.want(20, held={}, dedicated=True))) == 20
    assert node.free == 1


def test_an_actor_that_holds_nothing_waits_for_a_cpu_all_the_same():
    node = Node(1)
    (task,) = grants(node.want())
    assert not grants(node.want(3, held={}, dedicated=True, key=2))
    assert len(grants(node.do("lease_returned", task.lease))) == 3


def test_an_actor_gets_a_worker_that_has_run_nothing():
    node = Node(2)
    (task,) = grants(node.want())
    node.do("lease_returned", task.lease)
    used = {task.worker}
    for _ in range(4):
        (actor,) = grants(node.want(held={}, dedicated=True, key=2))
        assert actor.worker not in used
        used.add(actor.worker)
    (again,) = grants(node.want())
    assert again.worker == task.worker


def test_a_task_need_not_wait_behind_an_actor_whose_worker_does_not_start():
    node = Node(2, starts=False)
    for worker in range(2):
        node.do("worker_ready", f"worker {worker}".encode(), JOB)
    tasks = grants(node.want(2))
    for task in tasks:
        node.do("lease_returned", task.lease)
    node.want(20, dedicated=True, resources={"CPU": 0.01}, key=2)
    assert len(grants(node.want(2, resources={"CPU": 0.01}, key=3))) == 2


def test_an_actors_worker_is_not_used_again():
    node = Node(1)
    (grant,) = grants(node.want(dedicated=True))
    assert node.do("lease_returned", grant.lease) == [
        KillWorker(grant.worker, KillReason.LEASE_ENDED)
    ]
    assert not grants(node.want())
    (again,) = grants(node.do("worker_gone", grant.worker))
    assert again.worker != grant.worker


def test_a_detached_actor_outlives_who_leased_it_and_its_job():
    node = Node(3)
    (grant,) = node.want(dedicated=True, held={"CPU": 1.0})
    actor = grant.worker
    node.scheduler.detached(actor)
    kills = [*node.do("requester_gone", DRIVER), *node.do("job_ended", JOB)]
    assert actor not in {kill.worker for kill in kills if isinstance(kill, KillWorker)}
    assert node.free == 2
    (child,) = grants(node.want(requester=actor, job=actor, depth=1))
    assert node.do("worker_gone", actor) == []
    ends = [*node.do("requester_gone", actor), *node.do("job_ended", actor)]
    assert child.worker in {end.worker for end in ends if isinstance(end, KillWorker)}
    node.do("worker_gone", child.worker)
    assert node.free == 3


def test_who_leased_a_detached_actor_cannot_return_it_twice():
    node = Node(1)
    (grant,) = node.want(dedicated=True)
    node.scheduler.detached(grant.worker)
    node.scheduler.detached(grant.worker)
    assert node.do("lease_returned", grant.lease) == [
        KillWorker(grant.worker, KillReason.LEASE_ENDED)
    ]
    node.scheduler.detached(grant.worker)  # too late
    assert node.do("requester_gone", grant.worker) == []


def test_only_a_dedicated_worker_can_be_detached():
    node = Node(1)
    (grant,) = node.want()
    node.scheduler.detached(grant.worker)
    node.scheduler.detached(b"nobody")
    assert KillWorker(grant.worker, KillReason.REQUESTER_GONE) in node.do("requester_gone", DRIVER)


# ---------------------------------------------------------------- ends


def test_a_dead_requesters_workers_are_killed_and_not_reused():
    node = Node(2)
    (mine,) = grants(node.want())
    (child,) = grants(node.want(9, requester=mine.worker, depth=1))
    assert node.do("requester_gone", mine.worker) == [
        KillWorker(child.worker, KillReason.REQUESTER_GONE)
    ]
    assert node.scheduler.status().num_waiting == 0
    assert not grants(node.want(2, requester=b"b", resources={"CPU": 1.5}))
    assert node.do("requester_gone", mine.worker) == []
    node.do("worker_gone", mine.worker)
    (grant,) = grants(node.do("worker_gone", child.worker))
    assert grant.worker not in (mine.worker, child.worker)


def test_a_dead_worker_frees_what_it_held():
    node = Node(1)
    (grant,) = grants(node.want())
    node.want(requester=b"b")
    (again,) = grants(node.do("worker_gone", grant.worker))
    assert again.requester == b"b"
    assert node.do("worker_gone", grant.worker) == []
    assert node.do("lease_returned", grant.lease) == []


# ---------------------------------------------------------------- messages


def test_what_the_node_can_never_give_is_refused_at_once():
    node = Node(2, disk=0.5)
    (refusal,) = node.want(resources={"CPU": 4, "gpu": 1, "disk": 0.5})
    assert isinstance(refusal, Infeasible)
    assert refusal.message == (
        "a request for 4 CPU, 1 gpu, 0.5 disk can never be met: this node has 2 CPU, 0.5 disk in "
        "all. Ask for less, or give the node more: rdata.init(num_cpus=4, resources={'gpu': 1.0})"
    )
    assert node.scheduler.status().num_waiting == 0


def test_what_is_held_for_life_must_be_there_too():
    (refusal,) = Node(1).want(held={"disk": 1}, dedicated=True)
    assert isinstance(refusal, Infeasible)


def test_an_amount_that_cannot_be_meant_is_refused():
    (refusal,) = Node(1).want(resources={"CPU": -1})
    assert isinstance(refusal, Infeasible)
    assert "give a number, 0 or more" in refusal.message


def test_a_refused_demand_takes_the_earlier_one_with_it():
    node = Node(1)
    grants(node.want(5))
    node.want(5, resources={"CPU": 2})
    assert node.scheduler.status().num_waiting == 0


def test_a_long_wait_is_warned_about_once_and_names_who_holds_what():
    node = Node(4, disk=1)
    grants(node.want(3, resources={"CPU": 0.5}))
    (actor,) = grants(node.want(resources={"CPU": 2}, dedicated=True, key=2, requester=b"b"))
    node.want(2, resources={"CPU": 3, "disk": 1}, key=3, requester=OTHER_DRIVER)
    node.now = 9.9
    assert WarnWaiting not in map(type, node.do("tick"))
    node.now = 12
    (warning,) = (command for command in node.do("tick") if isinstance(command, WarnWaiting))
    assert (warning.requester, warning.key) == (OTHER_DRIVER, 3)
    assert warning.message == (
        "a request for 3 CPU, 1 disk (and 1 more like it) has waited for 12 s. Of 4 CPU, 0.5 CPU "
        f"is free; the rest is held by tasks of process {DRIVER.hex()[:8]} (1.5 CPU), the actor "
        f"in process {actor.worker.hex()[:8]} (2 CPU). It is served when they let go: kill actors "
        "that are not needed, or ask for less"
    )
    node.now = 100
    assert WarnWaiting not in map(type, node.do("tick"))


def test_a_demand_that_is_served_a_little_is_not_warned_about_again():
    node = Node(1)
    grants(node.want(dedicated=True))
    node.want(3, dedicated=True, key=2)
    node.now = 11
    assert WarnWaiting in map(type, node.do("tick"))
    node.do("worker_gone", b"worker 0")
    assert node.scheduler.status().num_waiting == 2
    node.now = 30
    assert WarnWaiting not in map(type, node.do("tick"))


def test_who_is_being_served_is_not_waiting():
    node = Node(1)
    grants(node.want(100))
    node.now = 1000
    assert node.do("tick") == []


def test_a_job_whose_workers_do_not_start_is_told_so():
    node = Node(1, starts=False)
    node.want()
    node.do("worker_gone", b"worker 0")
    node.now = 11
    (warning,) = (command for command in node.do("tick") if isinstance(command, WarnWaiting))
    assert "The last 1 workers that were started for it ended at once" in warning.message


def test_many_demands_of_one_requester_are_one_warning():
    node = Node(1)
    grants(node.want())
    for key in range(2, 50):
        node.want(key=key, dedicated=True)
    node.now = 11
    warnings = [command for command in node.do("tick") if isinstance(command, WarnWaiting)]
    assert len(warnings) == 1
    assert "(and 47 more like it)" in warnings[0].message
