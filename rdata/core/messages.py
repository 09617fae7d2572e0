"""What do processes say to each other? Every message there is, in one table.

Two vocabularies. `Control` is spoken between a process (driver or worker) and its node's agent,
`Direct` between two processes. Both are decoded by type, and hold nothing that runs: functions,
arguments and results are bytes, which only the code that executes them unpickles.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages. Subclasses choose a tag that is unique in their vocabulary."""


# ---------------------------------------------------------------- values inside messages


class Value(msgspec.Struct, array_like=True, gc=False):
    """A task's result or an object's value, as it travels.

    kind INLINE: `data` is the serialized value. STORED: it is in the store of `node`, `size`
    bytes. ERROR: `data` is the serialized exception. `refs` are the references inside, each
    (object id, owner's address).
    """

    INLINE: ClassVar[int] = 0
    STORED: ClassVar[int] = 1
    ERROR: ClassVar[int] = 2

    kind: int
    data: bytes = b""
    size: int = 0
    node: bytes = b""
    refs: list[tuple[bytes, str]] = []


class Argument(msgspec.Struct, array_like=True, gc=False):
    """The value of a reference that stood as a whole argument, at `position` or as `name`."""

    position: int
    name: str
    object_id: bytes
    owner: str
    value: Value


class FunctionBlob(msgspec.Struct, array_like=True, gc=False):
    """A pickled function or class: here, or in the store as the object `stored`."""

    id: bytes
    data: bytes
    stored: bytes = b""
    owner: str = ""


class Task(msgspec.Struct, array_like=True, gc=False):
    """One attempt of a task, or one call of an actor's method (`method` is not empty)."""

    id: bytes
    attempt: int
    function: bytes
    name: str
    args: bytes  # serialized (args, kwargs); b"" for none
    num_returns: int  # STREAMING for a generator
    method: str = ""
    arguments: list[Argument] = []
    stored_args: bytes = b""  # the object that holds the serialized arguments, if they are large
    backpressure: int = 0  # items that may be made and not yet taken
    num_delivered: int = 0  # items of an earlier attempt, which are not wanted again
    num_taken: int = 0  # of these, how many the consumer has taken
    depth: int = 0  # how many tasks deep it was submitted
    retry_exceptions: bool = False
    runs_once: bool = False  # no retry is left: its start and its end must be known for sure
    actor: bytes = b""  # an actor's constructor: the actor's id
    actor_name: str = ""  # and the name that it was given, if any

    STREAMING: ClassVar[int] = -1


class Reply(msgspec.Struct, array_like=True, gc=False):
    """What became of an attempt: a value per return, or for a generator its number of items."""

    task: bytes
    attempt: int
    run_s: float
    values: list[Value]
    num_items: int = -1
    is_retryable: bool = False  # the exception is one that the task's options ask to retry


# ---------------------------------------------------------------- process ↔ process


class Direct(Message, gc=False):
    """Base of what two processes say to each other."""


class PushTasks(Direct, tag=1, gc=False):
    """Submitter → worker: run these, in this order."""

    tasks: list[Task]
    functions: list[FunctionBlob] = []


class Replies(Direct, tag=2, gc=False):
    """Worker → submitter."""

    replies: list[Reply]


class Item(Direct, tag=3, gc=False):
    """Worker → submitter: a generator task yielded this."""

    task: bytes
    attempt: int
    index: int
    value: Value


class ItemsTaken(Direct, tag=4, gc=False):
    """Submitter → worker: the consumer has taken `count` items in all."""

    task: bytes
    count: int


class StopStream(Direct, tag=5, gc=False):
    """Submitter → worker: nobody wants further items."""

    task: bytes


class TakeBack(Direct, tag=6, gc=False):
    """Submitter → worker: give back all tasks of mine that have not started."""


class TakenBack(Direct, tag=7, gc=False):
    """Worker → submitter: these will not run here (`is_blocked`: nor will others, for now)."""

    tasks: list[bytes]
    is_blocked: bool


class CancelTask(Direct, tag=8, gc=False):
    """Submitter → worker: drop the task, or interrupt it if it runs."""

    task: bytes


class Fetch(Direct, tag=9, gc=False):
    """Borrower → owner: tell me the value when there is one."""

    object_id: bytes


class Fetched(Direct, tag=10, gc=False):
    """Owner → borrower. `is_known=False`: the owner has let go of it, or never had it."""

    object_id: bytes
    is_known: bool
    value: Value


class Borrow(Direct, tag=11, gc=False):
    """Borrower → owner: I hold it (as of `version`)."""

    object_id: bytes
    version: int


class BorrowAck(Direct, tag=12, gc=False):
    """Owner → borrower: I know that you hold it."""

    object_id: bytes
    version: int


class Release(Direct, tag=13, gc=False):
    """Borrower → owner: I hold it no longer (as of `version`)."""

    object_id: bytes
    version: int


class Received(Direct, tag=14, gc=False):
    """Caller → executor: I hold the references inside that result; let go of yours."""

    task: bytes
    index: int


class EndActor(Direct, tag=15, gc=False):
    """Owner → actor: your last handle is gone; end after the calls that you have."""


class ForgetFunction(Direct, tag=16, gc=False):
    """Submitter → worker: no task of that function will come, unless it is sent anew."""

    function: bytes


DIRECT = (
    PushTasks
    | Replies
    | Item
    | ItemsTaken
    | StopStream
    | TakeBack
    | TakenBack
    | CancelTask
    | Fetch
    | Fetched
    | Borrow
    | BorrowAck
    | Release
    | Received
    | EndActor
    | ForgetFunction
)


# ---------------------------------------------------------------- process ↔ agent


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
    """Driver → agent: I am a job. `import_path`, `directory`: for its workers."""

    job: bytes
    pid: int
    import_path: list[str]
    directory: str
    environment: dict[str, str]
    namespace: str
    wants_logs: bool


class Registered(Control, tag=5, gc=False):
    """Agent → driver: welcome."""

    node_id: bytes
    node_index: int


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
    """Process → agent: where is it? Pins it for the asker."""

    request: int
    object_id: bytes


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
    """Owner → agent: nobody holds these any more."""

    objects: list[bytes]


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
    class_name: str


class ActorPlaced(Control, tag=41, gc=False):
    """Actor's process → agent: the actor will live here; its constructor is about to run."""

    actor: bytes


class ActorStarted(Control, tag=24, gc=False):
    """Actor's process → agent: the constructor has returned (or raised: `failure`)."""

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


class KillProcess(Control, tag=36, gc=False):
    """Submitter → agent: end that worker of mine (a forced cancel)."""

    process: bytes
    reason: str


class StartJob(Control, tag=37, gc=False):
    """Agent → worker: whom you serve and how you are called."""

    job: bytes
    node_id: bytes
    address: str
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
    | Done
    | Describe
    | Description
    | LogLines
    | Warn
    | Leave
    | KillProcess
    | StartJob
    | MayEnd
    | StillNeeded
)

direct_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(DIRECT | AttachFailed)
control_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(CONTROL)
