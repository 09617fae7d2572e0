"""What if a large object of another node finds no room, or its node does not answer?"""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import rdata
from rdata.exceptions import ObjectLostError, ObjectStoreFullError
from tests.cluster.nodes import Cluster, joined, running_cluster


@rdata.remote(resources={"there": 1}, max_retries=0)
def numbers(count: int) -> npt.NDArray[Any]:
    return np.arange(count)


def test_copies_make_room_for_what_is_needed_more() -> None:
    with running_cluster(num_cpus=1, object_store_memory=64 << 20) as cluster:
        cluster.add_node(1, {"there": 1}, object_store_memory=512 << 20)
        with joined(cluster):
            refs = [numbers.remote(3_000_000) for _ in range(8)]  # 24 MB each
            for ref in refs:
                assert len(rdata.get(ref)) == 3_000_000
            kept = rdata.put(np.arange(4_000_000))  # and again there is room
            assert len(rdata.get(refs[0])) == 3_000_000
            del kept


def test_a_copy_that_has_no_room_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RDATA_STORE_WAIT_S", "0.5")
    with running_cluster(num_cpus=1, object_store_memory=16 << 20) as cluster:
        cluster.add_node(1, {"there": 1})
        with joined(cluster):
            larger = numbers.remote(3_000_000)
            with pytest.raises(ObjectStoreFullError, match="larger than the whole object store"):
                rdata.get(larger)
            held = rdata.get(rdata.put(np.arange(1_500_000)))
            with pytest.raises(ObjectStoreFullError, match="found no room"):
                rdata.get(numbers.remote(1_500_000))
            del held
            assert len(rdata.get(numbers.remote(1_500_000))) == 1_500_000


def test_an_object_is_lost_with_its_node(two_nodes: Cluster) -> None:
    ref = numbers.remote(1_000_000)
    rdata.wait([ref])
    two_nodes.nodes[1].power_off()
    with pytest.raises(ObjectLostError, match=ref.hex()):
        rdata.get(ref, timeout=30)


def test_a_source_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDATA_TRANSFER_STALL_S", "1")
    monkeypatch.setenv("RDATA_NODE_SILENCE_S", "600")  # not noticed otherwise
    with running_cluster(num_cpus=1) as cluster:
        there = cluster.add_node(1, {"there": 1})
        with joined(cluster):
            ref = numbers.remote(1_000_000)
            rdata.wait([ref])
            os.kill(there.agent.pid, signal.SIGSTOP)
            try:
                with pytest.raises(ObjectLostError, match="could not be fetched"):
                    rdata.get(ref, timeout=30)
            finally:
                os.kill(there.agent.pid, signal.SIGCONT)
            assert len(rdata.get(ref, timeout=30)) == 1_000_000  # it is there after all
