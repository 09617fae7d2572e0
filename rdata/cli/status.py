"""Which nodes does the cluster have, and how much of each is in use?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from rdata.config import Settings
from rdata.core.addresses import node_address
from rdata.core.node_files import LocalNode, choose_node, live_nodes
from rdata.core.session import default_temp_dir
from rdata.core.visit import visit

_HEADINGS = ("node", "address", "alive", "CPU used", "other resources used", "store used")
_STORE = "object_store_memory"


def run(arguments: Sequence[str]) -> None:
    """Print a table for each cluster of which a node runs on this machine."""
    parser = argparse.ArgumentParser(
        prog="rdata status",
        description="Show the nodes of the cluster, as a node of it on this machine knows them.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="the cluster's head (default: all clusters)"
    )
    parser.add_argument(
        "--temp-dir",
        metavar="FOLDER",
        default=default_temp_dir(),
        help="where the nodes were started with it",
    )
    given = parser.parse_args(arguments)
    timeout_s = Settings.from_environment().connect_timeout_s
    for number, node in enumerate(_nodes_to_ask(given.address, given.temp_dir)):
        node.check_version()
        with visit(node.socket_address, node.token(), timeout_s) as visited:
            nodes = visited.describe().nodes
        if number:
            print()
        print(f"cluster at {node.record.head}")
        print(table([_HEADINGS, *map(_row, nodes)]))


def _nodes_to_ask(address: str | None, temp_dir: str) -> list[LocalNode]:
    """One node of each cluster."""
    if address is not None:
        return [choose_node(address, temp_dir)]
    by_cluster: dict[str, LocalNode] = {}
    for node in live_nodes(temp_dir):
        by_cluster.setdefault(node.record.head, node)
    return list(by_cluster.values()) or [choose_node("auto", temp_dir)]  # which says what to do


def _row(node: Mapping[str, Any]) -> tuple[str, ...]:
    names = (
        node["NodeID"][:8] + (" (head)" if node["IsHead"] else ""),
        node_address(node),
    )
    if not node["Alive"]:
        return (*names, "no", "-", "-", "-")
    total: dict[str, float] = node["Resources"]
    free: dict[str, float] = node["AvailableResources"]
    used = {name: amount - free.get(name, 0.0) for name, amount in total.items()}
    others = [name for name in total if name not in ("CPU", _STORE)]
    return (
        *names,
        "yes",
        f"{used['CPU']:g} of {total['CPU']:g}",
        ", ".join(f"{name} {used[name]:g} of {total[name]:g}" for name in others) or "-",
        f"{used[_STORE] / 2**20:.0f} of {total[_STORE] / 2**20:.0f} MiB",
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """The rows below each other, in columns as wide as what they hold."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
