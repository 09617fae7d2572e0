"""Does a large object arrive on a node that needs it, whole, once, and is it let go?"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest

import rdata
from tests.cluster.nodes import Cluster
from tests.eventually import eventually

Array = npt.NDArray[Any]
SIZES = [0, 1, 4096, 12_800, 12_801, 100_000, 600_000, 3_000_000]  # of eight bytes each


@rdata.remote
def numbers(count: int) -> Array:
    return np.arange(count)


@rdata.remote
def total(array: Array) -> int:
    return int(array.sum())


def used_bytes() -> list[int]:
    return [node["ObjectStoreUsedBytes"] for node in rdata.nodes() if node["Alive"]]


def alice(task: Any) -> Any:
    return task.options(resources={"alice": 1})


def ming(task: Any) -> Any:
    return task.options(resources={"ming1": 1})


@pytest.mark.parametrize("count", SIZES)
def test_results_are_read_on_the_drivers_node(three_nodes: Cluster, count: int) -> None:
    value = rdata.get(alice(numbers).remote(count))
    assert (value == np.arange(count)).all()
    assert not value.flags.writeable or count == 0


@pytest.mark.parametrize("count", SIZES)
def test_arguments_are_read_on_the_tasks_node(three_nodes: Cluster, count: int) -> None:
    expected = count * (count - 1) // 2
    assert rdata.get(alice(total).remote(np.arange(count))) == expected
    assert rdata.get(alice(total).remote(rdata.put(np.arange(count)))) == expected
    assert rdata.get(ming(total).remote(alice(numbers).remote(count))) == expected


def test_a_large_function_is_read_on_the_tasks_node(three_nodes: Cluster) -> None:
    captured = os.urandom(1 << 20)
    task = rdata.remote(lambda: hash(captured) is not None and len(captured))
    assert rdata.get([alice(task).remote() for _ in range(4)]) == [1 << 20] * 4


def test_a_reference_inside_a_value_leads_to_its_node(three_nodes: Cluster) -> None:
    @rdata.remote
    def inside(refs: list[rdata.ObjectRef]) -> int:
        return sum(int(rdata.get(ref).sum()) for ref in refs)

    refs = [alice(numbers).remote(100_000), rdata.put(np.arange(100_000))]
    assert rdata.get(ming(inside).remote(refs)) == 100_000 * 99_999


def test_all_copies_go_when_the_owner_lets_go(three_nodes: Cluster) -> None:
    ref = alice(numbers).remote(1_000_000)
    value = rdata.get(ref)
    assert rdata.get(ming(total).remote(ref)) == value.sum()
    size = value.nbytes
    assert eventually(lambda: min(used_bytes()) >= size), used_bytes()
    del ref, value
    assert eventually(lambda: used_bytes() == [0, 0, 0]), used_bytes()


def test_readers_that_want_it_at_once_share_one_copy(three_nodes: Cluster) -> None:
    ref = alice(numbers).remote(3_000_000)
    rdata.wait([ref])
    found: list[Array] = []

    def read() -> None:
        found.append(rdata.get(ref))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    sums = rdata.get([total.options(resources={"bob": 1}).remote(ref) for _ in range(4)])
    for thread in threads:
        thread.join()
    assert [int(array.sum()) for array in found] == sums == [3_000_000 * 2_999_999 // 2] * 4
    home = next(node for node in rdata.nodes() if node["NodeID"] == three_nodes.head.id)
    assert home["ObjectStoreUsedBytes"] < 2 * found[0].nbytes


def test_many_small_large_objects_arrive(three_nodes: Cluster) -> None:
    refs = [alice(numbers).remote(15_000 + index) for index in range(200)]
    assert [len(value) for value in rdata.get(refs)] == [15_000 + index for index in range(200)]


def test_a_reader_that_is_killed_meanwhile_leaves_nothing(three_nodes: Cluster) -> None:
    @rdata.remote(max_retries=0)
    def read_and_die(refs: list[rdata.ObjectRef]) -> None:
        threading.Timer(0.01, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        for ref in refs:
            rdata.get(ref)

    refs = [alice(numbers).remote(2_000_000) for _ in range(4)]
    rdata.wait(refs, num_returns=4)
    with pytest.raises(rdata.exceptions.WorkerCrashedError):
        rdata.get(ming(read_and_die).remote(refs), timeout=30)
    assert rdata.get(ming(total).remote(refs[0]), timeout=30) == 2_000_000 * 1_999_999 // 2
    del refs
    assert eventually(lambda: used_bytes() == [0, 0, 0]), used_bytes()


def test_transfers_leave_no_descriptor_or_thread_in_the_agents(three_nodes: Cluster) -> None:
    def held() -> list[tuple[int, int]]:
        agents = [psutil.Process(node.agent.pid) for node in three_nodes.nodes]
        return [(agent.num_fds(), agent.num_threads()) for agent in agents]

    def transfer() -> None:
        refs = [alice(numbers).remote(50_000) for _ in range(20)]
        rdata.get(refs)

    transfer()
    assert eventually(lambda: used_bytes() == [0, 0, 0])
    before = held()
    for _ in range(3):
        transfer()
    assert eventually(
        lambda: all(
            fds <= fds_before + 4 and threads <= threads_before
            for (fds, threads), (fds_before, threads_before) in zip(held(), before, strict=True)
        )
    ), (before, held())
