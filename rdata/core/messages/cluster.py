"""What do two nodes' agents say to each other?"""

from __future__ import annotations

from typing import Any

import msgspec

from rdata.core.messages.control import CONTROL, Register
from rdata.core.messages.values import Message


class Cluster(Message, gc=False):
    """Base of what two agents say to each other."""


class Welcome(Cluster, tag=1, gc=False):
    """Answer to Link: who I am, and which nodes there are to be linked with as well."""

    node_id: bytes
    address: str
    nodes: list[tuple[bytes, str]]  # ids and addresses


class ProcessStarted(Cluster, tag=2, gc=False):
    """A process of mine; with a `registration`, its job is its own: a driver, or a detached actor.

    Sent again when an actor turns out to be detached.
    """

    process: bytes
    job: bytes
    address: str
    registration: Register | None


class ProcessEnded(Cluster, tag=3, gc=False):
    """One of mine has ended, in this way."""

    process: bytes
    reason: str


class FromProcess(Cluster, tag=4, gc=False):
    """A process of mine says this to you, as it would to its own agent."""

    process: bytes
    message: CONTROL


class ForProcess(Cluster, tag=5, gc=False):
    """Tell a process of yours."""

    process: bytes
    message: CONTROL


class EndProcess(Cluster, tag=6, gc=False):
    """Kill a process of yours: its actor is not wanted any more."""

    process: bytes
    reason: str


class NodeState(Cluster, tag=7, gc=False):
    """What my node has, and what of it is free; `description` is its entry in `rdata.nodes()`."""

    total: dict[str, float]
    available: dict[str, float]
    num_waiting: int
    description: dict[str, Any]


class CopiesFreed(Cluster, tag=8, gc=False):
    """You have copies of these, which nobody holds any more."""

    objects: list[bytes]


class Alive(Cluster, tag=9, gc=False):
    """Nothing new; sent so that silence means death."""


CLUSTER = (
    Welcome
    | ProcessStarted
    | ProcessEnded
    | FromProcess
    | ForProcess
    | EndProcess
    | NodeState
    | CopiesFreed
    | Alive
)

cluster_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(CLUSTER)
