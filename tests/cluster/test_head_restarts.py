"""Does a cluster go on when its head is killed and started anew on its journal?"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import rdata
from rdata.exceptions import NodeStartError
from tests.cluster.nodes import Cluster, Node, num_alive, running_cluster, where
from tests.eventually import eventually

pytestmark = pytest.mark.usefixtures("_patience")


@pytest.fixture
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDATA_HEAD_WAIT_S", "20")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A head on a journal, and a node, which this process joins."""
    with running_cluster(num_cpus=1, resources={"here": 1}, journal=tmp_path / "journal") as made:
        node = made.add_node(2, {"there": 1})
        rdata.init(address=node.address, namespace="shared")
        made.wait_for_nodes()
        yield made
        rdata.shutdown()


def restart_head(cluster: Cluster) -> Node:
    """Kill it, and start another on its journal, at its address."""
    cluster.head.power_off()
    assert eventually(lambda: num_alive() == len(cluster.nodes) - 1)
    head = start_head_anew(cluster)
    assert eventually(lambda: num_alive() == len(cluster.nodes)), rdata.nodes()
    return head


def start_head_anew(cluster: Cluster) -> Node:
    old = cluster.head
    port = int(old.address.rpartition(":")[2])
    cluster.nodes.remove(old)
    cluster.head = cluster.add_head(port=port, journal=cluster.journal, resources={"here": 1})
    return cluster.head


@rdata.remote(resources={"there": 0.1})
class Counting:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def pid(self) -> int:
        return os.getpid()


def test_nodes_join_again_and_serve(cluster: Cluster) -> None:
    head = restart_head(cluster)
    task = rdata.remote(where)
    assert rdata.get(task.options(resources={"here": 1}).remote(), timeout=30) == head.id
    node = cluster.add_node(1, {"new": 1})
    assert rdata.get(task.options(resources={"new": 1}).remote(), timeout=30) == node.id


def test_actors_are_found_by_name_and_go_on(cluster: Cluster) -> None:
    named = Counting.options(name="named").remote()
    detached = Counting.options(name="detached", lifetime="detached").remote()
    unnamed = Counting.remote()
    assert rdata.get([actor.add.remote() for actor in (named, detached, unnamed)]) == [1, 1, 1]
    restart_head(cluster)
    for name in ("named", "detached"):
        assert rdata.get(rdata.get_actor(name).add.remote(), timeout=30) == 2
        with pytest.raises(ValueError, match=name):
            Counting.options(name=name).remote()

    @rdata.remote(resources={"here": 0.1})
    def add(handle: rdata.actor.ActorHandle) -> int:
        value: int = rdata.get(handle.add.remote())
        return value

    assert rdata.get(add.remote(unnamed), timeout=30) == 2
    rdata.kill(rdata.get_actor("detached"))
    assert eventually(lambda: not is_known("detached"))
    restart_head(cluster)
    assert is_known("named")
    assert not is_known("detached")


def is_known(name: str) -> bool:
    try:
        rdata.get_actor(name)
    except ValueError:
        return False
    return True


def test_running_tasks_finish_meanwhile(cluster: Cluster) -> None:
    @rdata.remote(resources={"there": 0.01})
    def square(number: int) -> int:
        time.sleep(0.01)
        return number * number

    refs = [square.remote(number) for number in range(400)]
    restart_head(cluster)
    assert rdata.get(refs, timeout=60) == [number**2 for number in range(400)]


def test_questions_wait_for_the_head(cluster: Cluster) -> None:
    counting = Counting.options(name="named").remote()
    assert rdata.get(counting.add.remote()) == 1
    cluster.head.power_off()
    assert eventually(lambda: num_alive() == 1)
    answers: list[int] = []

    def ask() -> None:
        answers.append(rdata.get(rdata.get_actor("named").add.remote()))
        fresh = Counting.options(name="another").remote()
        answers.append(rdata.get(fresh.add.remote()))

    asking = threading.Thread(target=ask)
    asking.start()
    start_head_anew(cluster)
    asking.join(30)
    assert answers == [2, 1]


@pytest.mark.parametrize("how", ["rdata.kill", "a signal"])
def test_actors_that_end_while_the_head_is_away_are_missed(cluster: Cluster, how: str) -> None:
    actor = Counting.options(name="named").remote()
    pid = rdata.get(actor.pid.remote())
    cluster.head.power_off()
    assert eventually(lambda: num_alive() == 1)
    if how == "a signal":
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not psutil.pid_exists(pid))
    else:
        rdata.kill(actor)
    start_head_anew(cluster)
    assert eventually(lambda: not is_known("named"))
    assert eventually(lambda: not psutil.pid_exists(pid))
    assert rdata.get(Counting.options(name="named").remote().add.remote(), timeout=30) == 1


def test_what_the_head_s_own_node_had_is_gone(cluster: Cluster) -> None:
    lost = Counting.options(name="lost", lifetime="detached", resources={"here": 0.1}).remote()
    assert rdata.get(lost.add.remote()) == 1
    restart_head(cluster)
    assert not is_known("lost")


def test_two_heads_do_not_share_a_journal(cluster: Cluster) -> None:
    with pytest.raises(NodeStartError, match="a head that runs has it"):
        cluster.add_head(journal=cluster.journal)


def test_a_node_ends_when_the_head_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RDATA_HEAD_WAIT_S", "0.5")
    with running_cluster(num_cpus=1) as cluster:
        node = cluster.add_node(1)
        cluster.head.power_off()
        assert eventually(lambda: node.agent.poll() is not None)
