"""What does a worker process do? It hears whom it serves, and runs tasks until it is ended."""

from __future__ import annotations

import os
import signal
import socket
import sys

from rdata.config import Settings
from rdata.core import messages as m
from rdata.core import runtime as runtimes
from rdata.core.runtime.cluster import ClusterRuntime
from rdata.core.runtime.peers import Home
from rdata.core.task_runner import TaskRunner
from rdata.core.zygote import read_exactly

_KEPT_BYTES = 4 << 20  # of memory that tasks used


def main(control: socket.socket, process_id: bytes) -> None:
    """Be a worker: the agent tells over `control` whom it serves."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a TextIOWrapper here
    signal.signal(signal.SIGINT, signal.default_int_handler)
    job = _read_job(control)
    # Past a threshold, freed memory returns to the kernel, and the next task faults it in again,
    # page by page. glibc raises the threshold to what the largest block had that was ever freed.
    bytes(_KEPT_BYTES)  # a bytearray would clear its pages
    runtime = ClusterRuntime(
        process_id,
        Home(job.node_id, job.address, job.local_address),
        job.job,
        job.token,
        job.namespace,
        Settings.from_environment(),
    )
    runner = TaskRunner(runtime)
    runtime.host = runner
    runtimes.install(runtime)
    runtime.interrupts.guard()
    runtime.interrupts.hear_of_lost()
    runtime.start(control)
    runner.run()


def _read_job(control: socket.socket) -> m.StartJob:
    """The first frame, read as far as it goes."""
    try:
        size = int.from_bytes(read_exactly(control, 4), "little")
        job = m.control_decoder.decode(read_exactly(control, size))
    except ConnectionError:
        os._exit(1)  # the agent is gone
    assert isinstance(job, m.StartJob)
    return job
