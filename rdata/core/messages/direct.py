"""What do two processes say to each other: submitter and worker, borrower and owner?"""

from __future__ import annotations

from typing import Any

import msgspec

from rdata.core.messages.control import AttachFailed
from rdata.core.messages.values import FunctionBlob, Message, Reply, Task, Value


class Direct(Message, gc=False):
    """Base of what two processes say to each other."""


class PushTasks(Direct, tag=1, gc=False):
    """Submitter → worker: run these, in this order. Results beyond `inline_bytes` are stored."""

    tasks: list[Task]
    inline_bytes: int
    functions: tuple[FunctionBlob, ...] = ()


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
    recursive: bool  # and cancel what it has submitted


class Cancel(Direct, tag=18, gc=False):
    """Borrower → owner: cancel the task that you submitted."""

    task: bytes
    force: bool
    recursive: bool


class Fetch(Direct, tag=9, gc=False):
    """Borrower → owner: tell me the value when there is one."""

    object_id: bytes


class Fetched(Direct, tag=10, gc=False):
    """Owner → borrower. `is_known=False`: the owner has let go of it, or never had it."""

    object_id: bytes
    is_known: bool
    value: Value


class Lost(Direct, tag=17, gc=False):
    """Borrower → owner: the object cannot be had of `node`. Answered by Fetched."""

    object_id: bytes
    node: bytes


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
    """Caller → who ran the task: I hold the references inside that result; let go of yours."""

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
    | Cancel
    | Fetch
    | Fetched
    | Lost
    | Borrow
    | BorrowAck
    | Release
    | Received
    | EndActor
    | ForgetFunction
)

# The agent says AttachFailed on a connection that was to become one between processes.
direct_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(DIRECT | AttachFailed)
