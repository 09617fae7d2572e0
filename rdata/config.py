"""Which numbers can be changed, how, and why are they what they are?

Every setting is read once, when a node or a runtime starts, from `RDATA_<NAME>` in the
environment (`RDATA_LEASE_IDLE_S=5`). A node hands its settings to its workers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import fields

from rdata.errors import OptionError

_Size = Annotated[int, Meta(ge=0, le=64 << 20)]  # of what goes into one message
_Bytes = Annotated[int, Meta(ge=0, le=1 << 50)]
_Count = Annotated[int, Meta(ge=1, le=1 << 31)]
_Seconds = Annotated[float, Meta(ge=0, le=1_000_000)]  # more is too long for a timer of the system
_Timeout = Annotated[float, Meta(ge=0.01, le=1_000_000)]
_Part = Annotated[float, Meta(ge=0.001, le=1)]
_Fraction = Annotated[float, Meta(ge=0, le=1)]


class Settings(Struct, frozen=True):
    """All settings of a node and of the processes that use it."""

    inline_object_bytes: _Size = (
        100 * 1024
    )  # larger values go to shared memory: one copy, not three
    owner_inline_bytes: _Bytes = 256 << 20  # of the others in one process; beyond, there too
    batch_bytes: _Size = 256 * 1024  # a frame's bound; larger: a cancel waits longer behind it
    batch_target_s: _Seconds = 0.08  # work sent ahead per worker; longer: more to take back
    lease_idle_s: _Seconds = 0.5  # shorter: more handshakes; longer: workers kept from others
    worker_idle_s: _Seconds = 30.0  # idle workers beyond one a CPU end after this
    store_fraction: _Part = 0.3  # of the memory within the cgroup's limit
    store_wait_s: _Seconds = 10.0  # how long a put waits for room before it raises
    lineage_bytes: _Bytes = 32 << 20  # of finished tasks, kept to make lost results again
    transfer_stall_s: _Timeout = 15.0  # an object from another node of which so long nothing comes
    idle_segment_fraction: _Fraction = 0.25  # of the quota, that freed segments may keep warm
    idle_segment_s: _Seconds = 3.0  # and for how long; shorter: puts farther apart find cold pages
    connect_timeout_s: _Timeout = 5.0
    start_timeout_s: _Timeout = 30.0
    infeasible_grace_s: _Seconds = 10.0  # a request that no node can meet waits so long for one
    node_silence_s: _Timeout = 4.0  # a node of which nothing is heard for so long is gone
    head_wait_s: _Seconds = 60.0  # a node ends when the head has been away for longer
    warn_waiting_s: _Seconds = 10.0  # a feasible request that waits longer is warned about, once
    generator_backpressure_num_objects: _Count = 64  # items a task may be ahead of its consumer

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings; raises OptionError on a value that is not a number in its range."""
        changed: dict[str, Any] = {}
        for setting in fields(cls):
            name = f"RDATA_{setting.name.upper()}"
            if name not in environ:
                continue
            kind, (bounds,) = setting.type.__origin__, setting.type.__metadata__
            try:
                value = kind(environ[name])
            except ValueError:
                value = math.nan
            if not bounds.ge <= value <= bounds.le:
                what = "a whole number" if kind is int else "a number"
                raise OptionError(
                    f"{name}={environ[name]!r}: give {what}, {bounds.ge} to {bounds.le}"
                )
            changed[setting.name] = value
        return cls(**changed)
