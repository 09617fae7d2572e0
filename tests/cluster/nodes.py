"""Which real nodes does a test join, kill and silence? All on this machine, each a process tree."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

import rdata
from rdata.config import Settings
from rdata.core.launch import LaunchedNode, NodeOptions, launch_node
from rdata.core.session import default_temp_dir, sessions_folder, sweep
from tests.eventually import eventually

TOKEN = b"the token of the tests' clusters"
HOST = "127.0.0.1"


class Node:
    """A node, started as `rdata start` starts it."""

    def __init__(self, launched: LaunchedNode) -> None:
        self.agent = launched.process
        self.id = launched.node_id
        self.session_dir = launched.session_dir
        self.address = launched.address.removeprefix("tcp:")  # HOST:PORT

    def processes(self) -> list[psutil.Process]:
        """Its agent, zygotes and workers."""
        try:
            agent = psutil.Process(self.agent.pid)
            return [agent, *agent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """Kill the agent; the rest ends by itself."""
        self.agent.kill()
        self.agent.wait()

    def power_off(self) -> None:
        """Kill all of it at once, as a machine does that loses power."""
        self._each(psutil.Process.kill)
        self.agent.wait()

    def freeze(self) -> None:
        """Stop all of it: it keeps its connections, and says nothing."""
        self._each(psutil.Process.suspend)

    def thaw(self) -> None:
        """Let it go on."""
        self._each(psutil.Process.resume)

    def _each(self, act: Callable[[psutil.Process], None]) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended by itself
                act(process)

    def end(self) -> None:
        """End it in good order."""
        if self.agent.poll() is None:
            self.thaw()
            self.agent.send_signal(signal.SIGTERM)
            self.agent.wait(20)


class Cluster:
    """A head, and nodes that have joined it."""

    def __init__(self, journal: Path | None = None, **head: Any) -> None:
        self.nodes: list[Node] = []
        self.journal = journal
        self.head = self.add_head(journal=journal, **head)
        self.address = self.head.address

    def add_head(self, port: int = 0, journal: Path | None = None, **options: Any) -> Node:
        """A node that joins none."""
        return self._start(port=port, journal=str(journal or ""), **options)

    def add_node(
        self, num_cpus: float = 1, resources: Mapping[str, float] | None = None, **options: Any
    ) -> Node:
        """One more node, which joins the head."""
        return self._start(num_cpus, resources, head=self.address, **options)

    def _start(
        self,
        num_cpus: float = 1,
        resources: Mapping[str, float] | None = None,
        object_store_memory: int = 256 << 20,
        **options: Any,
    ) -> Node:
        launched = launch_node(
            NodeOptions(
                num_cpus,
                dict(resources or {}),
                object_store_memory,
                token=TOKEN,
                is_embedded=False,
                host=HOST,
                **options,
            ),
            Settings.from_environment(),
        )
        node = Node(launched)
        self.nodes.append(node)
        return node

    def wait_for_nodes(self, count: int | None = None) -> None:
        """Until the driver's node knows that so many live (default: all that were added)."""
        wanted = len(self.nodes) if count is None else count
        assert eventually(lambda: num_alive() == wanted), rdata.nodes()

    def close(self) -> None:
        """End all nodes, the head last."""
        for node in reversed(self.nodes):
            node.end()
        folder = sessions_folder(default_temp_dir())
        with contextlib.suppress(OSError):
            sweep(folder)  # as the next node would, after those that lost their power
            folder.rmdir()


def num_alive() -> int:
    """How many nodes live, as the driver's node knows it."""
    return sum(node["Alive"] for node in rdata.nodes())


@contextlib.contextmanager
def joined(cluster: Cluster) -> Iterator[Cluster]:
    """With this process as a driver of the head's node."""
    rdata.init(address=cluster.address)
    try:
        cluster.wait_for_nodes()
        yield cluster
    finally:
        rdata.shutdown()


@contextlib.contextmanager
def running_cluster(**head: Any) -> Iterator[Cluster]:
    """A head alone."""
    cluster = Cluster(**head)
    try:
        yield cluster
    finally:
        cluster.close()


def where() -> str:
    """The node of the process that calls this."""
    node_id: str = rdata.get_runtime_context().node_id
    return node_id
