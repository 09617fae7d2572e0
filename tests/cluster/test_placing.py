"""Where do tasks and actors of a cluster run, and do they find one another?"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import rdata
from rdata.core.session import default_temp_dir
from rdata.exceptions import RdataError
from tests.cluster.nodes import Cluster, where
from tests.eventually import eventually

pytestmark = pytest.mark.usefixtures("three_nodes")


def test_plain_tasks_run_on_several_nodes(three_nodes: Cluster) -> None:
    @rdata.remote
    def inside(num_points: int, seed: int) -> tuple[int, str]:
        rng = random.Random(seed)
        count = sum(rng.random() ** 2 + rng.random() ** 2 <= 1 for _ in range(num_points))
        time.sleep(0.05)
        return count, where()

    results = rdata.get([inside.remote(1000, seed) for seed in range(60)], timeout=60)
    assert abs(4 * sum(count for count, _ in results) / 60_000 - 3.14159) < 0.1
    assert len({node for _, node in results}) >= 2


def test_tasks_bound_to_a_resource_run_where_that_is(three_nodes: Cluster) -> None:
    task = rdata.remote(where).options(resources={"alice": 1})
    found = Counter(rdata.get([task.remote() for _ in range(10)], timeout=60))
    assert found == {three_nodes.nodes[1].id: 10}


def test_a_fraction_of_a_resource_is_enough(three_nodes: Cluster) -> None:
    task = rdata.remote(where).options(resources={"ming1": 0.25}, num_cpus=0)
    assert set(rdata.get([task.remote() for _ in range(8)])) == {three_nodes.nodes[2].id}


def test_the_cluster_has_the_sum_of_what_its_nodes_have() -> None:
    total = rdata.cluster_resources()
    assert {name: total[name] for name in ("CPU", "bob", "alice", "ming1")} == {
        "CPU": 9,
        "bob": 5,
        "alice": 2,
        "ming1": 1,
    }
    assert eventually(lambda: rdata.available_resources()["CPU"] == 9)


@rdata.remote
class Counting:
    def __init__(self) -> None:
        self.count = 0

    def add(self, number: int) -> int:
        self.count += number
        return self.count

    def where(self) -> str:
        return where()


def test_actors_live_where_their_resource_is_and_are_called_from_everywhere(
    three_nodes: Cluster,
) -> None:
    counter = Counting.options(resources={"ming1": 1}).remote()
    assert rdata.get(counter.where.remote()) == three_nodes.nodes[2].id

    @rdata.remote(resources={"alice": 1})
    def call(handle: rdata.actor.ActorHandle) -> int:
        return sum(rdata.get([handle.add.remote(1) for _ in range(3)]))

    assert rdata.get([call.remote(counter) for _ in range(4)], timeout=30)
    assert rdata.get(counter.add.remote(0)) == 12


def test_calls_of_an_actor_elsewhere_stay_in_order() -> None:
    @rdata.remote(resources={"alice": 1})
    class Listing:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def note(self, number: int) -> None:
            self.seen.append(number)

        def all(self) -> list[int]:
            return self.seen

    listing = Listing.remote()
    for number in range(500):
        listing.note.remote(number)
    assert rdata.get(listing.all.remote(), timeout=30) == list(range(500))


def test_a_named_actor_is_found_from_another_node() -> None:
    kept = Counting.options(name="the counter", resources={"alice": 1}).remote()

    @rdata.remote(resources={"ming1": 1})
    def add() -> int:
        value: int = rdata.get(rdata.get_actor("the counter").add.remote(5))
        return value

    assert rdata.get(add.remote(), timeout=30) == 5
    with pytest.raises(ValueError, match="the counter"):
        Counting.options(name="the counter").remote()
    del kept
    assert eventually(lambda: _is_free("the counter"))


def _is_free(name: str) -> bool:
    try:
        rdata.get_actor(name)
    except ValueError:
        return True
    return False


def test_nested_tasks_cross_nodes_to_any_depth() -> None:
    @rdata.remote
    def leaf(number: int) -> int:
        return number

    @rdata.remote(num_cpus=1)
    def tree(depth: int) -> int:
        if depth == 0:
            return rdata.get(leaf.remote(1))  # type: ignore[no-any-return]
        resource = ("bob", "alice", "ming1")[depth % 3]
        child = tree.options(resources={resource: 0.01})
        return sum(rdata.get([child.remote(depth - 1) for _ in range(2)]))

    assert rdata.get(tree.remote(4), timeout=60) == 16


def test_a_task_elsewhere_has_the_environment_of_its_node(
    three_nodes: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "sibling.py").write_text("WORD = 'found'")
    source = f"""
import os, sys
sys.path.insert(0, {str(tmp_path)!r})
sys.path.append("/no/such/folder")
import rdata, sibling
rdata.init({three_nodes.address!r})

@rdata.remote
def look():
    import sibling
    return sibling.WORD, os.environ.get("ONLY_HERE"), os.environ.get("RDATA_TOKEN")

names = ("bob", "alice")
print(rdata.get([look.options(resources={{name: 0.1}}).remote() for name in names]))
"""
    environment = {
        **os.environ,
        "ONLY_HERE": "yes",
        "RDATA_TEMP_DIR": default_temp_dir(),
        "RDATA_TOKEN": "00" * 32,
        "PYTHONPATH": str(Path(rdata.__file__).parents[1]),
    }
    said = subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=False
    )
    assert said.stderr == ""
    assert said.stdout.strip() == "[('found', 'yes', None), ('found', None, None)]"


def test_items_of_a_generator_arrive_from_another_node() -> None:
    @rdata.remote(resources={"alice": 1}, num_returns="streaming")
    def count(number: int):  # type: ignore[no-untyped-def]
        for value in range(number):
            yield value, b"x" * 200_000

    items = [rdata.get(ref) for ref in count.remote(20)]
    assert [value for value, _ in items] == list(range(20))


def test_an_exception_comes_home_with_the_frames_of_its_code() -> None:
    @rdata.remote(resources={"alice": 1})
    def fails() -> None:
        raise LookupError("what was wanted")

    with pytest.raises(LookupError, match="what was wanted"):
        rdata.get(fails.remote())


def test_what_no_node_can_ever_run_is_refused_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    task = rdata.remote(where).options(resources={"carol": 1})
    ref = task.remote()
    with pytest.raises(RdataError, match="carol"):
        rdata.get(ref, timeout=60)


def test_what_no_single_node_has_is_refused() -> None:
    task = rdata.remote(where).options(num_cpus=7)  # nine in all, five at most on one
    with pytest.raises(RdataError, match="CPU"):
        rdata.get(task.remote(), timeout=60)
