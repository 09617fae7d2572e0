"""Do the examples give the same on three nodes as on one of their own?"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rdata.core.session import default_temp_dir
from tests.cluster.nodes import Cluster, running_cluster

EXAMPLES = Path(__file__).parents[2] / "examples"
# What differs from run to run: where files are, how long it took, how far it was when asked.
PASSING = r"/tmp/\S*|in \d.*s\b|\d+(\.\d+)?,? ?(s|x|ms|/s)\b|.*drawn.*\n"


def output_of(name: str, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent), **variables},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return re.sub(PASSING, "", done.stdout)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    with running_cluster(num_cpus=1) as cluster:
        for _ in range(2):
            cluster.add_node(1)
        yield cluster


@pytest.mark.parametrize(
    "command",
    [
        ["etl_csv.py"],
        ["map_reduce.py"],
        ["pi_progress.py"],
        ["paillier_batch.py", "--numbers", "60", "--bits", "256"],
    ],
    ids=lambda command: command[0],
)
def test_three_nodes_give_what_one_gives(cluster: Cluster, command: list[str]) -> None:
    alone = output_of(*command)
    joined = {"RDATA_ADDRESS": cluster.address, "RDATA_TEMP_DIR": default_temp_dir()}
    assert output_of(*command, **joined) == alone
    assert alone.strip()


def test_two_nodes() -> None:
    said = output_of("two_nodes.py")
    assert "the sum is 499,999,500,000; 2 nodes took part" in said


def test_every_example_is_here() -> None:
    named = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in named] == []
