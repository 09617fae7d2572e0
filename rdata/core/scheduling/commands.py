"""What may the lease scheduler tell the agent to do?"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from rdata.core.scheduling.resources import Amounts


class KillReason(StrEnum):
    """Why a worker is to end; the text stands in the errors of whoever used it."""

    IDLE = "it was idle"
    JOB_ENDED = "its job has ended"
    REQUESTER_GONE = "the process that it worked for has ended"
    LEASE_ENDED = "it served one actor, which has ended"
    REPLACED = "it was started before the node's libraries were loaded, and had not been used"
    UNEXPECTED = "it belongs to no job that is under way"


class StartWorker(Struct, frozen=True):
    """Fork a worker for the job under this id; then `worker_ready` or `worker_gone`."""

    worker: bytes
    job: bytes


class KillWorker(Struct, frozen=True):
    """End the worker; then `worker_gone`.

    With KillReason.IDLE it may be kept instead (it owns objects that are in use): `worker_ready`
    says so, and it is idle again. With LEASE_ENDED it ends by itself sooner or later. Until
    `worker_gone`, what its lease held is not free.
    """

    worker: bytes
    reason: KillReason


class Grant(Struct, frozen=True):
    """The worker is the requester's until it returns the lease, which holds `resources`."""

    requester: bytes
    key: int
    lease: int
    worker: bytes
    resources: Amounts


class Reclaim(Struct, frozen=True):
    """Ask for the lease back: others wait for what it holds.

    It is returned when what runs on it has ended; at once if nothing does. With `only_if_idle`
    the holder may first run what it has queued for it: the lease just does not stay idle.
    """

    requester: bytes
    lease: int
    only_if_idle: bool = False


class Infeasible(Struct, frozen=True):
    """The demand can never be met by this node, and is dropped."""

    requester: bytes
    key: int
    message: str


class WarnWaiting(Struct, frozen=True):
    """The demand has waited for long."""

    requester: bytes
    key: int
    message: str


Command = StartWorker | KillWorker | Grant | Reclaim | Infeasible | WarnWaiting
