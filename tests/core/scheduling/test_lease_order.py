"""Who is served first, and from whom are leases asked back?"""

from __future__ import annotations

from rdata.core.scheduling.leases import (
    Reclaim,
    WarnWaiting,
)
from rdata.core.scheduling.reclaim import PATIENCE_S, TENURE_S
from tests.core.scheduling.lease_node import (
    DRIVER,
    OTHER_DRIVER,
    Node,
    grants,
    reclaims,
)

# ---------------------------------------------------------------- order


def test_first_come_first_served_then_in_turns():
    node = Node(1)
    (grant,) = grants(node.want(3))
    node.want(2, requester=b"b")
    node.want(2, requester=b"c")
    served = []
    for _ in range(6):
        (grant,) = grants(node.do("lease_returned", grant.lease))
        served.append(grant.requester)
    assert served == [DRIVER, b"b", b"c", DRIVER, b"b", b"c"]


def test_a_requester_with_many_keys_gets_no_more_turns():
    node = Node(1)
    (grant,) = grants(node.want())
    for key in range(2, 6):
        node.want(2, key=key)
    node.want(3, requester=b"b")
    served = []
    for _ in range(6):
        (grant,) = grants(node.do("lease_returned", grant.lease))
        served.append(grant.requester)
    assert served.count(b"b") == 3


def test_the_keys_of_a_requester_take_turns():
    node = Node(4)
    (all_of_it,) = grants(node.want(resources={"CPU": 4}, requester=b"b"))
    node.want(9, key=1)
    node.want(9, key=2)
    served = grants(node.do("lease_returned", all_of_it.lease))
    assert [grant.key for grant in served] == [1, 2, 1, 2]


def test_a_demand_that_changes_its_shape_does_not_jump_the_queue():
    node = Node(1)
    (grant,) = grants(node.want(9, key=1))
    node.want(9, key=2)
    node.want(9, requester=b"b")
    (grant,) = grants(node.do("lease_returned", grant.lease))
    assert (grant.requester, grant.key) == (DRIVER, 1)
    node.want(9, key=2, resources={"CPU": 0.75})  # it came before b, but its requester was served
    (grant,) = grants(node.do("lease_returned", grant.lease))
    assert grant.requester == b"b"


def test_deeper_first_and_the_newest_of_the_deepest():
    node = Node(1)
    (grant,) = grants(node.want())
    for name, depth in [(b"root", 0), (b"old", 2), (b"shallow", 1), (b"new", 2)]:
        node.want(requester=name, depth=depth)
    served = []
    for _ in range(4):
        (grant,) = grants(node.do("lease_returned", grant.lease))
        served.append(grant.requester)
    assert served == [b"new", b"old", b"shallow", b"root"]


def test_a_small_demand_goes_past_a_large_one_that_does_not_fit():
    node = Node(2)
    grants(node.want())
    assert not grants(node.want(resources={"CPU": 2}, key=2))
    assert grants(node.want(requester=b"b"))


def test_a_demand_that_has_waited_long_is_no_longer_passed():
    node = Node(2)
    first, second = grants(node.want(2))
    node.want(1, resources={"CPU": 2}, key=2)
    node.now = 10
    assert [type(command) for command in node.do("tick")].count(WarnWaiting) == 1
    node.want(2, requester=b"b")
    assert not grants(node.do("lease_returned", first.lease))
    (grant,) = grants(node.do("lease_returned", second.lease))
    assert grant.key == 2
    assert {g.requester for g in grants(node.do("lease_returned", grant.lease))} == {b"b"}


def test_an_overdue_demand_is_first_and_asks_deeper_work_for_one_lease():
    node = Node(2)
    first, second = grants(node.want(9, depth=3))
    node.want(9, requester=b"root")
    node.now = 10
    assert Reclaim(DRIVER, first.lease) in node.do("tick")
    (grant,) = grants(node.do("lease_returned", first.lease))
    assert grant.requester == b"root"
    node.now = 11
    assert reclaims(node.do("tick")) == []  # it has one now
    (grant,) = grants(node.do("lease_returned", second.lease))
    assert grant.requester == DRIVER


def test_nothing_is_held_back_for_what_may_never_come():
    node = Node(2, disk=1)
    (actor,) = grants(node.want(resources={"disk": 1}, dedicated=True, key=3))
    (first,) = grants(node.want())
    node.want(1, resources={"CPU": 1, "disk": 1}, key=2)
    node.now = 10
    assert WarnWaiting in map(type, node.do("tick"))
    assert grants(node.want(requester=b"b"))
    assert node.scheduler.holder_of(actor.worker) == DRIVER
    assert node.do("lease_returned", first.lease) == []


# ---------------------------------------------------------------- asked back


def test_a_lease_is_asked_back_for_another_driver_once_it_has_served_a_while():
    node = Node(1)
    (grant,) = grants(node.want(9))
    node.now = TENURE_S / 2
    assert node.want(requester=OTHER_DRIVER) == [Reclaim(DRIVER, grant.lease, only_if_idle=True)]
    node.now = TENURE_S
    assert node.do("tick") == [Reclaim(DRIVER, grant.lease)]
    node.now = 5
    assert node.do("tick") == []
    assert grants(node.do("lease_returned", grant.lease))[0].requester == DRIVER  # it came first


def test_as_many_as_are_needed_the_oldest_first():
    node = Node(4)
    leases = [grant.lease for grant in grants(node.want(9))]
    node.now = 1
    commands = reclaims(node.want(requester=OTHER_DRIVER, resources={"CPU": 2}))
    assert [c.lease for c in commands if not c.only_if_idle] == leases[:2]
    assert [c.lease for c in commands if c.only_if_idle] == leases[2:]


def test_nothing_is_asked_back_for_the_holder_itself():
    node = Node(2)
    grants(node.want(9))
    node.now = 1
    assert node.want(12) == []
    assert node.do("tick") == []


def test_another_key_of_the_same_requester_is_served_in_the_end():
    node = Node(2)
    first, second = grants(node.want(9))
    node.now = 1
    commands = reclaims(node.want(key=2, resources={"CPU": 1}))
    assert Reclaim(DRIVER, first.lease) in commands
    assert Reclaim(DRIVER, second.lease) not in commands


def test_equals_that_have_as_many_leave_each_other_alone():
    node = Node(2)
    grants(node.want(1))
    grants(node.want(1, requester=OTHER_DRIVER))
    node.now = 1
    for requester in (DRIVER, OTHER_DRIVER):
        assert all(command.only_if_idle for command in reclaims(node.want(9, requester=requester)))


def test_equals_even_out():
    node = Node(6)
    grants(node.want(9))
    node.now = 1
    commands = reclaims(node.want(9, requester=OTHER_DRIVER))
    assert sum(not command.only_if_idle for command in commands) == 3


def test_shallower_work_gives_way_without_bound_and_deeper_work_only_what_is_idle():
    node = Node(3)
    grants(node.want(9))
    commands = reclaims(node.want(9, requester=b"elsewhere", depth=1))
    assert sum(not command.only_if_idle for command in commands) == 3
    node = Node(3)
    grants(node.want(9, depth=1))
    node.now = 1
    commands = reclaims(node.want(9, requester=b"elsewhere"))
    assert [command.only_if_idle for command in commands] == [True] * 3


def test_the_children_of_a_running_task_wait_a_little_for_it_to_block():
    node = Node(1)
    (parent,) = grants(node.want(9))
    assert node.want(requester=parent.worker, depth=1) == []
    node.now = PATIENCE_S
    assert Reclaim(DRIVER, parent.lease) in node.do("tick")


def test_an_actor_is_not_asked_back():
    node = Node(1)
    grants(node.want(dedicated=True))
    node.now = 1
    assert node.want(requester=OTHER_DRIVER, depth=3) == []


def test_a_blocked_task_is_not_asked_back_for_what_it_still_holds():
    node = Node(2, disk=1)
    (grant,) = grants(node.want(resources={"CPU": 1, "disk": 1}))
    node.do("blocked", grant.worker)
    node.now = 1
    assert node.want(requester=b"b", resources={"disk": 1}, depth=5) == []
    assert Reclaim(DRIVER, grant.lease) in node.do("unblocked", grant.worker)


def test_who_has_none_is_helped_behind_who_has_some():
    node = Node(2)
    grants(node.want(1))
    grants(node.want(1, requester=b"b"))
    node.want(9)
    node.now = 1
    assert Reclaim(DRIVER, 1) in node.want(9, requester=b"c")


def test_who_may_ask_for_more_is_not_held_up_by_who_may_ask_for_less():
    node = Node(5)
    grants(node.want(1, requester=b"a"))
    grants(node.want(1, requester=b"b"))
    node.now = 1
    grants(node.want(3, requester=b"c"))  # more than a's, but just granted
    assert all(command.only_if_idle for command in reclaims(node.want(2, requester=b"a")))
    commands = reclaims(node.want(1, requester=b"d"))
    assert [command.requester for command in commands if not command.only_if_idle] == [b"a"]


def test_what_comes_back_anyway_is_not_asked_for_twice():
    node = Node(2)
    grants(node.want(9))
    node.now = 1
    node.want(1, requester=b"b")
    commands = reclaims(node.want(1, requester=b"b", key=2))
    assert sum(not command.only_if_idle for command in commands) == 1  # the other one
