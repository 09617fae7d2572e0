"""How do processes of this node and the agents of other nodes deal with each other?

    process ──► its agent ──FromProcess──► another node's agent     as if it were of that node
    process ◄── its agent ◄──ForProcess─── another node's agent

Each agent tells the others which processes its node has, so that each knows all: a process of
another node is a `Process` whose channel is the link with that node.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from rdata.config import Settings
from rdata.core import messages as m
from rdata.core.agent.links import Links, NodeIdentity
from rdata.core.agent.processes import Process, ProcessTable
from rdata.core.messages import cluster
from rdata.core.wire.loop import Loop

_Question = tuple[bytes, int | bytes]
"""Who asks the head, and the request's number or the actor that it is about."""


class GuestChannel(Struct, eq=False):
    """Leads to a process of another node."""

    links: Links
    node: bytes
    process: bytes

    def send(self, message: Any, fds: Sequence[int] = ()) -> None:
        """See Channel. A descriptor does not travel between machines."""
        for fd in fds:
            os.close(fd)
        self.links.send(self.node, cluster.ForProcess(self.process, message))

    def close(self, reason: str = "") -> None:
        """See Channel: the link stays, for others."""


class Neighbours(Protocol):
    """The agent, as far as other nodes concern it."""

    identity: NodeIdentity
    settings: Settings

    def process_arrived(self, process: Process) -> None:
        """Another node has a new process, or one of its processes has become a job of its own."""
        ...

    def process_gone(self, process: Process, reason: str) -> None:
        """Another node's process has ended, perhaps with its node."""
        ...

    def receive(self, process: Process, message: m.Control) -> None:
        """Another node's process asks for something."""
        ...

    def granted(self, node: bytes, process: Process, grant: m.Granted) -> None:
        """Another node grants a process of this one a lease."""
        ...

    def node_changed(self, node: bytes, state: cluster.NodeState) -> None:
        """Another node's resources have changed."""
        ...

    def node_gone(self, node: bytes) -> None:
        """Another node has ended, and all its processes before it."""
        ...

    def end_process(self, process: bytes, reason: str) -> None:
        """The head wants an actor's process killed."""
        ...

    def free_copies(self, objects: list[bytes]) -> None:
        """Another node has freed objects of which this one has copies."""
        ...

    def state(self) -> cluster.NodeState:
        """What this node has to say of itself."""
        ...

    def fail(self, reason: str) -> None:
        """This node is to end."""
        ...


class Relay:
    """What comes over the links, for the agent, and what the agent and its processes send there."""

    def __init__(self, agent: Neighbours, processes: ProcessTable, loop: Loop) -> None:
        self._agent = agent
        self._processes = processes
        self.links = Links(loop, agent.identity, agent.settings, self)
        self._for_head: list[cluster.FromProcess] = []  # while it is away
        # What the head has not answered yet: asked again if it is started anew meanwhile.
        self._unanswered: dict[_Question, cluster.FromProcess] = {}

    # ------------------------------------------------------------ what this node sends

    def announce(self, state: cluster.NodeState) -> None:
        """Tell what this node has now."""
        self.links.tell_all(state)

    def started(self, process: Process) -> None:
        """Tell of a new process of this node, or again of one that is a job of its own by now."""
        self.links.tell_all(self._introduction(process))

    def ended(self, process: Process, reason: str) -> None:
        """Tell of the end of a process of this node."""
        self.links.tell_all(cluster.ProcessEnded(process.id, reason))
        for question in [each for each in self._unanswered if each[0] == process.id]:
            del self._unanswered[question]

    def ask(self, node: bytes, process: Process, message: m.Control) -> None:
        """What the process, of this node, wants of another."""
        self.links.send(node, _said(process, message))

    def ask_all(self, process: Process, message: m.Control) -> None:
        """What the process, of this node, wants of all others."""
        self.links.tell_all(_said(process, message))

    def ask_head(self, process: Process, message: m.Control) -> None:
        """What the process, of this node, wants of the head, which is another; it may be away."""
        said = _said(process, message)
        match message:
            case m.CreateActor(request) | m.FindActor(request):
                self._unanswered[process.id, request] = said
            case m.LocateActor(actor):
                self._unanswered[process.id, actor] = said
            case _ if self.links.head is None:
                self._for_head.append(said)
        if self.links.head is not None:
            self.links.send(self.links.head, said)

    def end_process(self, process: Process, reason: str) -> None:
        """Have another node kill a process of its own."""
        self.links.send(process.node, cluster.EndProcess(process.id, reason))

    def copies_freed(self, node: bytes, objects: list[bytes]) -> None:
        """Objects of this node, of which the other has copies, are held by nobody."""
        self.links.send(node, cluster.CopiesFreed(objects))

    # ------------------------------------------------------------ what comes: LinkEvents

    def linked(self, node: bytes) -> None:
        """See LinkEvents."""
        for process in self._processes.of_node(b""):
            self.links.send(node, self._introduction(process))
        self.links.send(node, self._agent.state())
        if node == self.links.head:
            self._brief_head(node)

    def received(self, node: bytes, message: cluster.Cluster) -> None:
        """See LinkEvents."""
        match message:
            case cluster.FromProcess(process_id, said):
                process = self._processes.get(process_id)
                if process is not None and process.node == node:
                    self._agent.receive(process, said)
            case cluster.ForProcess(process_id, said):
                process = self._processes.get(process_id)
                if process is not None and process.is_local:
                    if isinstance(said, m.Granted):
                        self._agent.granted(node, process, said)
                    self._answered(process_id, said)
                    process.channel.send(said)
            case cluster.ProcessStarted(process_id, job, address, registration):
                channel = GuestChannel(self.links, node, process_id)
                self._agent.process_arrived(
                    Process(process_id, job, channel, address, registration, node)
                )
            case cluster.ProcessEnded(process_id, reason):
                process = self._processes.get(process_id)
                if process is not None and process.node == node:
                    self._agent.process_gone(process, reason)
            case cluster.NodeState():
                self._agent.node_changed(node, message)
            case cluster.EndProcess(process_id, reason):
                self._agent.end_process(process_id, reason)
            case cluster.CopiesFreed(objects):
                self._agent.free_copies(objects)

    def lost(self, node: bytes, reason: str) -> None:
        """See LinkEvents."""
        for process in self._processes.of_node(node):
            self._agent.process_gone(process, f"its node has ended ({reason})")
        self._agent.node_gone(node)

    def abandoned(self, reason: str) -> None:
        """See LinkEvents."""
        self._agent.fail(reason)

    def _brief_head(self, node: bytes) -> None:
        """Say what a head that has come back may not know, and ask what it has not answered."""
        actors = [
            _said(process, said)
            for process in self._processes.of_node(b"")
            for said in process.actor
        ]
        waiting, self._for_head = self._for_head, []
        for said in (*actors, *self._unanswered.values(), *waiting):
            self.links.send(node, said)

    def _answered(self, process: bytes, answer: m.Control) -> None:
        match answer:
            case m.Done(request) | m.Failed(request) | m.FoundActor(request):
                self._unanswered.pop((process, request), None)
            case m.ActorAt(actor):
                self._unanswered.pop((process, actor), None)

    def _introduction(self, process: Process) -> cluster.ProcessStarted:
        registration = self._processes.registration(process.id)
        return cluster.ProcessStarted(process.id, process.job, process.address, registration)


def _said(process: Process, message: m.Control) -> cluster.FromProcess:
    return cluster.FromProcess(process.id, message)  # type: ignore[arg-type]  # a subclass of it
