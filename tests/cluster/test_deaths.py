"""What if a node of a cluster, or a driver, ends in the middle of work?"""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest

import rdata
from rdata.core.session import default_temp_dir
from rdata.exceptions import ActorDiedError
from tests.cluster.nodes import Cluster, Node, joined, num_alive, running_cluster, where
from tests.eventually import eventually
from tests.faults.programs import Program

NUM_TASKS = 500


@rdata.remote
def square(number: int) -> int:
    time.sleep(0.002)
    return number * number


def kill_amid_tasks(cluster: Cluster, victim: Node) -> None:
    """Every result is right although the victim ends while it has some of the tasks."""
    refs = [square.remote(number) for number in range(NUM_TASKS)]
    rdata.get(refs[: NUM_TASKS // 5], timeout=60)
    victim.power_off()
    assert rdata.get(refs, timeout=60) == [number * number for number in range(NUM_TASKS)]
    cluster.nodes.remove(victim)
    assert eventually(lambda: num_alive() == len(cluster.nodes))


def test_tasks_of_a_node_that_is_killed_run_again_elsewhere() -> None:
    with running_cluster(num_cpus=1) as cluster:
        cluster.add_node(1)
        victim = cluster.add_node(2)
        with joined(cluster):
            kill_amid_tasks(cluster, victim)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_fifty_nodes_are_killed_one_after_the_other() -> None:
    with running_cluster(num_cpus=1) as cluster, joined(cluster):
        for _ in range(50):
            victim = cluster.add_node(2)
            cluster.wait_for_nodes()
            kill_amid_tasks(cluster, victim)


def test_a_silent_node_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDATA_NODE_SILENCE_S", "1")
    with running_cluster(num_cpus=1) as cluster:
        victim = cluster.add_node(2)
        with joined(cluster):
            refs = [square.remote(number) for number in range(NUM_TASKS)]
            rdata.get(refs[:50], timeout=60)
            victim.freeze()
            assert rdata.get(refs, timeout=60) == [number**2 for number in range(NUM_TASKS)]
            assert num_alive() == 1
            victim.thaw()
            # It was not dead, so it joins again, and works again.
            assert eventually(lambda: num_alive() == 2)
            there = rdata.remote(where).options(num_cpus=2)
            assert rdata.get(there.remote(), timeout=60) == victim.id


@rdata.remote(resources={"there": 1})
class Counting:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count


def test_an_actor_dies_with_its_node(two_nodes: Cluster) -> None:
    counter = Counting.options(name="counter").remote()
    assert rdata.get(counter.add.remote()) == 1
    two_nodes.nodes[1].power_off()
    with pytest.raises(ActorDiedError, match="node"):
        rdata.get(counter.add.remote(), timeout=30)
    with pytest.raises(ValueError, match="counter"):
        rdata.get_actor("counter")
    two_nodes.add_node(1, {"there": 1})
    again = Counting.options(name="counter").remote()
    assert rdata.get(again.add.remote(), timeout=30) == 1


def test_a_node_that_ends_in_good_order_is_missed_at_once(two_nodes: Cluster) -> None:
    two_nodes.nodes[1].end()
    assert eventually(lambda: num_alive() == 1)
    dead = next(node for node in rdata.nodes() if not node["Alive"])
    assert dead["NodeID"] == two_nodes.nodes[1].id
    assert dead["Resources"] == {}


DRIVER = """
    rdata.init(address="{address}", namespace="shared")

    @rdata.remote(resources={{"there": 1}})
    class Holding:
        def __init__(self):
            self.value = rdata.put(bytes(1 << 20))
        def pid(self):
            return os.getpid()

    @rdata.remote
    def forever(index):
        kept = rdata.put(bytes(1 << 20))
        time.sleep(1000)

    holding = Holding.options(name="holding", lifetime={lifetime}).remote()
    kept = [rdata.put(bytes(1 << 20)), forever.remote(1), forever.remote(2)]
    report(pid=rdata.get(holding.pid.remote()))
    time.sleep(1000)
"""


def driver(cluster: Cluster, lifetime: str = "None") -> Program:
    source = DRIVER.format(address=cluster.address, lifetime=lifetime)
    return Program(source, environment={"RDATA_TEMP_DIR": default_temp_dir()})


def is_idle() -> bool:
    """Whether no process, object or resource of any job is left on the cluster."""
    nodes = [node for node in rdata.nodes() if node["Alive"]]
    is_free = all(node["AvailableResources"] == node["Resources"] for node in nodes)
    return is_free and not any(node["ObjectStoreUsedBytes"] for node in nodes)


@pytest.fixture
def shared() -> Iterator[Cluster]:
    with running_cluster(num_cpus=1) as cluster:
        cluster.add_node(2, {"there": 1})
        rdata.init(address=cluster.address, namespace="shared")
        cluster.wait_for_nodes()
        yield cluster
        rdata.shutdown()


def test_the_work_of_a_driver_that_is_killed_goes_from_all_nodes(shared: Cluster) -> None:
    with driver(shared) as program:
        actor = program.report()["pid"]
        assert eventually(lambda: not is_idle())
        program.process.kill()
        program.process.wait()
        assert eventually(is_idle), rdata.nodes()
        assert not psutil.pid_exists(actor)
        with pytest.raises(ValueError, match="holding"):
            rdata.get_actor("holding")


def test_a_detached_actor_outlives_its_driver(shared: Cluster) -> None:
    with driver(shared, lifetime="'detached'") as program:
        actor = program.report()["pid"]
        program.process.kill()
        program.process.wait()
    holding = rdata.get_actor("holding")
    assert rdata.get(holding.pid.remote()) == actor
    there = rdata.remote(where).options(resources={"there": 0.5})
    with pytest.raises(rdata.exceptions.GetTimeoutError):
        rdata.get(there.remote(), timeout=0.2)  # the actor has all of it
    rdata.kill(holding)
    assert eventually(is_idle), rdata.nodes()
    assert eventually(lambda: not psutil.pid_exists(actor))
