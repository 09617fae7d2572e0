"""What do a process and its node's agent say to each other?"""

from __future__ import annotations

from typing import Any

import msgspec

from rdata.core.messages.values import Message


class Control(Message, gc=False):
    """Base of what a process and its agent say to each other."""


class Attach(Control, tag=1, gc=False):
    """First frame of a connection that the agent hands on to the process `target`."""

    target: bytes


class AttachFailed(Control, tag=102, gc=False):
    """Agent → connecting process: there is no such process."""

    target: bytes
    reason: str


class Attached(Control, tag=3, gc=False):
    """Agent → process, with a descriptor: a proven connection of `peer` to you."""

    peer: bytes


class Register(Control, tag=4, gc=False):
    """Driver → agent: I am a job. For its workers: bytes, as the system has them."""

    job: bytes
    pid: int
    import_path: list[bytes]
    directory: bytes
    environment: dict[bytes, bytes]
    namespace: str
    wants_logs: bool


class Registered(Control, tag=5, gc=False):
    """Agent → driver: welcome to the node, which others reach at `address`."""

    node_id: bytes
    address: str


class Visit(Control, tag=42, gc=False):
    """First frame of a tool, which is no job: it may send Describe and StopNode."""


class StopNode(Control, tag=43, gc=False):
    """Tool → agent: end the node. Answered by Done."""

    request: int


class Link(Control, tag=44, gc=False):
    """First frame from agent to agent: `node_id` can be reached at `address`.

    `is_joining`: it asks the head to take it into the cluster.
    """

    node_id: bytes
    address: str
    is_joining: bool


class Pull(Control, tag=45, gc=False):
    """First frame from agent to agent on a connection of its own: send me that object's part.

    Large objects have several, which come at once; the 0th of others is all of them.
    """

    object_id: bytes
    part: int


class Want(Control, tag=6, gc=False):
    """Process → agent: I want `count` more leases of this shape (0: none any more)."""

    key: int
    resources: dict[str, float]
    count: int
    depth: int
    held: dict[str, float] | None = None
    dedicated: bool = False


class Granted(Control, tag=7, gc=False):
    """Agent → process: the worker at `address` is yours until you return the lease."""

    key: int
    lease: int
    worker: bytes
    address: str
    resources: dict[str, float]


class Unschedulable(Control, tag=8, gc=False):
    """Agent → process: that shape can never be granted."""

    key: int
    reason: str


class Reclaim(Control, tag=9, gc=False):
    """Agent → process: others wait; return the lease when its current batch is done.

    `only_if_idle`: it may be kept while there is work for it.
    """

    lease: int
    only_if_idle: bool


class ReturnLease(Control, tag=10, gc=False):
    """Process → agent."""

    lease: int


class Blocked(Control, tag=11, gc=False):
    """Worker → agent: my task waits for another; take my CPU."""


class Unblocked(Control, tag=12, gc=False):
    """Worker → agent: my task goes on."""


class ProcessDied(Control, tag=13, gc=False):
    """Agent → all its processes: that one has ended, in this way."""

    process: bytes
    reason: str


class Create(Control, tag=14, gc=False):
    """Process → agent: room for an object."""

    request: int
    object_id: bytes
    size: int


class Created(Control, tag=15, gc=False):
    """Agent → process, with a descriptor if `has_fd`: write it there."""

    request: int
    segment: int
    offset: int
    capacity: int
    is_resident: bool
    has_fd: bool


class Seal(Control, tag=16, gc=False):
    """Process → agent: the object is written."""

    object_id: bytes


class Abandon(Control, tag=38, gc=False):
    """Process → agent: the object could not be written."""

    object_id: bytes


class Open(Control, tag=17, gc=False):
    """Process → agent: where is it? Pins it for the asker. `node` made it; b"": this one."""

    request: int
    object_id: bytes
    node: bytes = b""


class Opened(Control, tag=18, gc=False):
    """Agent → process, with a descriptor if `has_fd`. `is_known=False`: there is none."""

    request: int
    is_known: bool
    segment: int = 0
    offset: int = 0
    size: int = 0
    has_fd: bool = False


class Unpin(Control, tag=19, gc=False):
    """Process → agent: no view of these is left; of `tainted`, a forked child may have one."""

    objects: list[bytes]
    tainted: list[bytes]


class Free(Control, tag=20, gc=False):
    """Owner → agent: nobody holds these any more. `node` made them; b"": this one."""

    objects: list[bytes]
    node: bytes = b""


class DropSegments(Control, tag=21, gc=False):
    """Agent → process: unmap and forget these."""

    segments: list[int]


class Failed(Control, tag=22, gc=False):
    """Agent → process: the request cannot be served; `kind` names the exception class."""

    request: int
    kind: str
    reason: str


class CreateActor(Control, tag=23, gc=False):
    """Process → agent: enter an actor in the directory. Answered by Done or Failed."""

    request: int
    actor: bytes
    owner: bytes
    owner_address: str
    name: str
    namespace: str
    is_detached: bool
    interface: bytes


class ActorPlaced(Control, tag=41, gc=False):
    """Actor's process → agent: the actor will live here; its constructor is about to run."""

    actor: bytes
    class_name: str
    is_detached: bool


class ActorStarted(Control, tag=24, gc=False):
    """Actor's process → agent: the constructor has returned. Or `failure` says why it has ended."""

    actor: bytes
    failure: str


class FindActor(Control, tag=25, gc=False):
    """Process → agent: which actor has that name? Answered by FoundActor or Failed."""

    request: int
    name: str
    namespace: str


class FoundActor(Control, tag=26, gc=False):
    """Agent → process."""

    request: int
    actor: bytes
    owner_address: str
    is_detached: bool
    interface: bytes


class LocateActor(Control, tag=27, gc=False):
    """Process → agent: tell me where it runs, once it does."""

    actor: bytes


class ActorAt(Control, tag=28, gc=False):
    """Agent → process: it runs there, or (`death` is not empty) it has ended."""

    actor: bytes
    worker: bytes
    address: str
    death: str


class KillActor(Control, tag=29, gc=False):
    """Process → agent: end it now."""

    actor: bytes
    reason: str


class FreeActorName(Control, tag=47, gc=False):
    """Process → agent: the actor is to end, and nobody may find it by its name any more."""

    actor: bytes


class Done(Control, tag=30, gc=False):
    """Agent → process: the request is carried out."""

    request: int


class Describe(Control, tag=31, gc=False):
    """Process → agent: nodes and resources, please."""

    request: int


class Description(Control, tag=32, gc=False):
    """Agent → process: one node a dict, with Ray's keys, as msgpack."""

    request: int
    nodes: list[dict[str, Any]]
    available: dict[str, float]


class LogLines(Control, tag=33, gc=False):
    """Agent → driver: what a worker printed."""

    name: str
    pid: int
    is_stderr: bool
    lines: list[str]


class Warn(Control, tag=34, gc=False):
    """Agent → process: tell your user."""

    text: str


class Leave(Control, tag=35, gc=False):
    """Driver → agent: my job is over. Answered by Done when all of it has ended."""

    request: int


class AwaitPreloaded(Control, tag=46, gc=False):
    """Process → agent: answer with Done once workers start with the libraries loaded."""

    request: int


class KillProcess(Control, tag=36, gc=False):
    """Submitter → agent: end that worker of mine (a forced cancel)."""

    process: bytes
    reason: str


class StartJob(Control, tag=37, gc=False):
    """Agent → worker: whom you serve, and where you are.

    Other nodes reach this one at `address`, its own processes at `local_address`.
    """

    job: bytes
    node_id: bytes
    address: str
    local_address: str
    token: bytes
    namespace: str


class MayEnd(Control, tag=39, gc=False):
    """Agent → worker: end, unless somebody still holds what you own (then say StillNeeded)."""


class StillNeeded(Control, tag=40, gc=False):
    """Worker → agent: objects of mine are in use."""


CONTROL = (
    Attach
    | AttachFailed
    | Attached
    | Register
    | Registered
    | Visit
    | StopNode
    | Link
    | Pull
    | Want
    | Granted
    | Unschedulable
    | Reclaim
    | ReturnLease
    | Blocked
    | Unblocked
    | ProcessDied
    | Create
    | Created
    | Seal
    | Abandon
    | Open
    | Opened
    | Unpin
    | Free
    | DropSegments
    | Failed
    | CreateActor
    | ActorPlaced
    | ActorStarted
    | FindActor
    | FoundActor
    | LocateActor
    | ActorAt
    | KillActor
    | FreeActorName
    | Done
    | Describe
    | Description
    | LogLines
    | Warn
    | Leave
    | AwaitPreloaded
    | KillProcess
    | StartJob
    | MayEnd
    | StillNeeded
)

control_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(CONTROL)
