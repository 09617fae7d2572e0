"""The exception classes under Ray's names, for programs that were written for Ray."""

from __future__ import annotations

from rdata.errors import (
    ActorDiedError,
    ActorError,
    ActorUnschedulableError,
    DataError,
    GetTimeoutError,
    NodeDiedError,
    NodeNotFoundError,
    NodeStartError,
    NondeterministicTaskError,
    NotInitializedError,
    ObjectLostError,
    ObjectStoreFullError,
    OptionError,
    OwnerDiedError,
    RdataError,
    SerializationError,
    TaskCancelledError,
    TaskError,
    TaskUnschedulableError,
    UnknownOptionError,
    WorkerCrashedError,
)

RayError = RdataError
RayTaskError = TaskError
RayActorError = ActorError

__all__ = [
    "ActorDiedError",
    "ActorError",
    "ActorUnschedulableError",
    "DataError",
    "GetTimeoutError",
    "NodeDiedError",
    "NodeNotFoundError",
    "NodeStartError",
    "NondeterministicTaskError",
    "NotInitializedError",
    "ObjectLostError",
    "ObjectStoreFullError",
    "OptionError",
    "OwnerDiedError",
    "RayActorError",
    "RayError",
    "RayTaskError",
    "RdataError",
    "SerializationError",
    "TaskCancelledError",
    "TaskError",
    "TaskUnschedulableError",
    "UnknownOptionError",
    "WorkerCrashedError",
]
