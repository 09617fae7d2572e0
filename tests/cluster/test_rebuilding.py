"""Are large results made again that were lost with the node that had them?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import rdata
from rdata.exceptions import ObjectLostError
from tests.cluster.nodes import Cluster, joined, num_alive, running_cluster
from tests.eventually import eventually

Array = npt.NDArray[Any]
LARGE = 100_000  # numbers, of eight bytes each


def note(folder: str, name: str) -> None:
    """Leave a trace of a run."""
    with Path(folder, name).open("a") as file:
        file.write("x")


def num_runs(folder: Path, name: str) -> int:
    return len((folder / name).read_text())


@rdata.remote(resources={"there": 0.01})
def make(folder: str, start: int) -> Array:
    note(folder, "make")
    return np.arange(start, start + LARGE)


@rdata.remote(resources={"there": 0.01})
def add(folder: str, one: Array, other: Array) -> Array:
    note(folder, "add")
    return one + other


@rdata.remote(resources={"there": 0.01})
def total(array: Array) -> int:
    return int(array.sum())


@rdata.remote(resources={"there": 0.01})
def inside(refs: list[rdata.ObjectRef]) -> int:
    return int(rdata.get(refs[0]).sum())


@pytest.fixture
def cluster(two_nodes: Cluster) -> Cluster:
    """The node that has `there` is to be lost, and another one takes its place."""
    return two_nodes


def lose_node(cluster: Cluster) -> None:
    victim = cluster.nodes[1]
    victim.power_off()
    cluster.nodes.remove(victim)
    assert eventually(lambda: num_alive() == len(cluster.nodes))
    cluster.add_node(2, {"there": 2})
    cluster.wait_for_nodes()


SUM = LARGE * (LARGE - 1) // 2


def test_get_makes_them_again(cluster: Cluster, tmp_path: Path) -> None:
    refs = [make.remote(str(tmp_path), start) for start in range(5)]
    rdata.wait(refs, num_returns=5)
    lose_node(cluster)
    sums = [int(array.sum()) for array in rdata.get(refs, timeout=60)]
    assert sums == [SUM + start * LARGE for start in range(5)]
    assert num_runs(tmp_path, "make") == 10


def test_tasks_that_need_them_wait_for_them(cluster: Cluster, tmp_path: Path) -> None:
    ref = make.remote(str(tmp_path), 0)
    rdata.wait([ref])
    lose_node(cluster)
    assert rdata.get([total.remote(ref) for _ in range(4)], timeout=60) == [SUM] * 4
    assert rdata.get(inside.remote([ref]), timeout=60) == SUM
    assert num_runs(tmp_path, "make") == 2


def test_what_they_were_made_of_is_made_again_too(cluster: Cluster, tmp_path: Path) -> None:
    folder = str(tmp_path)
    ref = make.remote(folder, 0)
    for _ in range(3):
        ref = add.remote(folder, ref, make.remote(folder, 1))  # the earlier ones are let go
    rdata.wait([ref])
    lose_node(cluster)
    assert int(rdata.get(ref, timeout=60).sum()) == 4 * SUM + 3 * LARGE
    assert num_runs(tmp_path, "add") == 6
    assert num_runs(tmp_path, "make") == 8


def test_small_arguments_are_still_there(cluster: Cluster, tmp_path: Path) -> None:
    small = rdata.remote(lambda: 3)
    ref = make.remote(str(tmp_path), small.remote())
    rdata.wait([ref])
    lose_node(cluster)
    assert int(rdata.get(ref, timeout=60).sum()) == SUM + 3 * LARGE


def test_one_of_several_results(cluster: Cluster, tmp_path: Path) -> None:
    @rdata.remote(num_returns=3, resources={"there": 0.01})
    def three() -> tuple[int, Array, Array]:
        note(str(tmp_path), "three")
        return 1, np.arange(LARGE), np.arange(LARGE) * 2

    one, array, double = three.remote()
    assert rdata.get(one) == 1
    lose_node(cluster)
    assert int(rdata.get(double, timeout=60).sum()) == 2 * SUM
    assert (rdata.get(one), int(rdata.get(array, timeout=60).sum())) == (1, SUM)
    assert num_runs(tmp_path, "three") in (2, 3)


def test_a_borrower_gets_what_the_owner_makes_again(cluster: Cluster, tmp_path: Path) -> None:
    @rdata.remote(num_cpus=0)
    class Holder:
        def keep(self, refs: list[rdata.ObjectRef]) -> None:
            self.ref = refs[0]

        def total(self) -> int:
            return int(rdata.get(self.ref).sum())

    cluster.add_node(1, {"here": 1})
    cluster.wait_for_nodes()
    holder = Holder.options(resources={"here": 1}).remote()
    ref = make.remote(str(tmp_path), 0)
    rdata.get(holder.keep.remote([ref]))
    rdata.wait([ref])
    lose_node(cluster)
    assert rdata.get(holder.total.remote(), timeout=60) == SUM


def test_what_cannot_be_made_again_says_why(cluster: Cluster, tmp_path: Path) -> None:
    @rdata.remote(resources={"there": 0.01})
    class Making:
        def make(self) -> Array:
            return np.arange(LARGE)

    making = Making.remote()
    of_actor = making.make.remote()
    once = make.options(max_retries=0).remote(str(tmp_path), 0)
    rdata.wait([of_actor, once], num_returns=2)
    lose_node(cluster)
    with pytest.raises(ObjectLostError, match="no task can make it again"):
        rdata.get(of_actor, timeout=60)
    with pytest.raises(ObjectLostError, match="no retries left"):
        rdata.get(once, timeout=60)
    with pytest.raises(ObjectLostError, match="no retries left"):
        rdata.get(total.remote(once), timeout=60)
    assert num_runs(tmp_path, "make") == 1


def test_nothing_is_left_when_they_are_let_go(cluster: Cluster, tmp_path: Path) -> None:
    refs = [make.remote(str(tmp_path), start) for start in range(5)]
    rdata.wait(refs, num_returns=5)
    lose_node(cluster)
    assert len(rdata.get(refs[0], timeout=60)) == LARGE
    del refs
    assert eventually(
        lambda: not any(node["ObjectStoreUsedBytes"] for node in rdata.nodes() if node["Alive"])
    )


def test_large_results_of_many_tasks_survive_a_node(tmp_path: Path) -> None:
    @rdata.remote
    def large(number: int) -> Array:
        return np.full(20_000, number)

    with running_cluster(num_cpus=1, object_store_memory=512 << 20) as cluster:
        victim = cluster.add_node(2, object_store_memory=512 << 20)
        with joined(cluster):
            refs = [large.remote(number) for number in range(300)]
            rdata.wait(refs, num_returns=200, timeout=60)
            victim.power_off()
            for number, array in enumerate(rdata.get(refs, timeout=60)):
                assert (array == number).all()
