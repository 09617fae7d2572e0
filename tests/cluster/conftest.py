"""Which clusters do tests share?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.nodes import Cluster, joined, running_cluster


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[Cluster]:
    """A head with 5 CPUs and bob, a node with 2 and alice, one with 2 and ming1; joined.

    All that will join have joined, so nobody waits long for one more.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RDATA_INFEASIBLE_GRACE_S", "1")
        with running_cluster(num_cpus=5, resources={"bob": 5}) as cluster:
            cluster.add_node(2, {"alice": 2})
            cluster.add_node(2, {"ming1": 1})
            with joined(cluster):
                yield cluster


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    """A head with no CPU and a node with two, for a test that ends some of them; joined."""
    with running_cluster(num_cpus=0) as cluster:
        cluster.add_node(2, {"there": 2})
        with joined(cluster):
            yield cluster
