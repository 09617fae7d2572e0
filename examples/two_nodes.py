"""Start two nodes, join them, and send work to the one that has what it needs.

    python examples/two_nodes.py

Both nodes run on this machine here. On two machines the commands are the same, but for addresses
and a copy of the token's file: docs/cluster.md has them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import numpy as np

import rdata


def command(*arguments: str) -> None:
    """Run `rdata` as in a terminal."""
    print(f"$ rdata {' '.join(arguments)}")
    subprocess.run(
        [sys.executable, "-m", "rdata.cli.main", *arguments],
        check=True,
        stdout=None if arguments[0] == "status" else subprocess.DEVNULL,
    )


@rdata.remote
def make(count: int) -> np.ndarray:
    """Make a large array, which stays in the store of the node where this runs."""
    return np.arange(count)


@rdata.remote
def total(array: np.ndarray) -> int:
    """Add it up; the array comes from wherever it is."""
    return int(array.sum())


@rdata.remote
def where() -> str:
    """The node on which this runs."""
    return rdata.get_runtime_context().get_node_id()


def work() -> tuple[int, int]:
    """Use both nodes; returns the sum of an array, and how many nodes took part."""
    array = make.options(resources={"disk": 1}).remote(1_000_000)
    added = total.options(resources={"fpga": 1}).remote(array)
    nodes = rdata.get([where.options(resources={name: 1}).remote() for name in ("disk", "fpga")])
    return rdata.get(added), len(set(nodes))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="two-") as folder:
        os.environ["RDATA_TEMP_DIR"] = folder  # so that these nodes are nobody else's
        try:
            command("start", "--head", "--port=0", "--num-cpus=1", '--resources={"disk": 1}')
            address = rdata.init("auto").address_info["address"]
            command("start", f"--address={address}", "--num-cpus=1", '--resources={"fpga": 1}')
            command("status")
            result, num_nodes = work()
            print(f"the sum is {result:,}; {num_nodes} nodes took part")
            rdata.shutdown()
        finally:
            command("stop")


if __name__ == "__main__":
    main()
