"""Which program is a node? This one: it reads its spec from stdin and becomes the agent.

The bare zygote is forked first, while the process is small and single-threaded.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rdata.config import Settings
from rdata.core import worker
from rdata.core.agent.agent import Agent, NodeSpec
from rdata.core.machine import default_num_cpus, default_store_bytes
from rdata.core.node_files import NodeRecord, publish, this_version, unpublish
from rdata.core.session import Session, create_session, remove_session
from rdata.core.zygote import Zygote
from rdata.errors import RdataError


def main() -> None:
    """Run a node: spec in on stdin, one line out on stdout once it serves (or why it cannot)."""
    _reset_signals()
    _open_standard_descriptors()
    said = json.load(sys.stdin)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a descriptor a segment or worker
    answer = os.fdopen(os.dup(1), "w")
    failure = ""

    def on_ready(reason: str) -> None:
        nonlocal failure
        failure = reason
        if not reason:
            _announce(agent, spec, session, answer)

    try:
        session = create_session(said["temp_dir"])
        with _zygote_of(session, answer) as (zygote_socket, zygote_pid):
            _redirect_output(session)
            spec = _spec(said)
            agent = Agent(spec, session, zygote_socket, zygote_pid)
            agent.run(on_ready)
    except RdataError as error:
        failure = str(error)
    if failure:  # said when nothing of the node is left
        print(json.dumps({"error": failure}), file=answer, flush=True)
        sys.exit(1)


def zygote() -> None:
    """Run a bare zygote in place of one that has died: argv is socket, session folder."""
    agent = socket.socket(fileno=int(sys.argv[1]))
    Zygote(agent, worker.main).run()
    remove_session(Path(sys.argv[2]))


def _spec(said: dict[str, Any]) -> NodeSpec:
    settings = Settings(**said["settings"])
    num_cpus = said["num_cpus"]
    resources = {"CPU": float(default_num_cpus() if num_cpus is None else num_cpus)}
    resources.update(said["resources"])
    store_bytes = said["object_store_memory"] or default_store_bytes(settings.store_fraction)
    return NodeSpec(
        bytes.fromhex(said["token"]),
        resources,
        store_bytes,
        said["is_embedded"],
        said["host"],
        said["port"],
        said["head"],
        said["journal"],
        said["launcher_pid"],
        settings,
    )


def _announce(agent: Agent, spec: NodeSpec, session: Session, answer: IO[str]) -> None:
    """Tell who launched the node, and who may look for one, that it serves."""
    if not spec.is_embedded:
        os.chdir("/")  # it stays, and where it was started may have to go
        address = agent.address.removeprefix("tcp:")
        head = agent.head_address.removeprefix("tcp:")
        record = NodeRecord(
            os.getpid(), agent.node_id.hex(), address, head, not spec.head, this_version()
        )
        publish(session, record, spec.token)
    ready = {
        "address": agent.address,
        "local_address": agent.local_address,
        "node_id": agent.node_id.hex(),
        "session_dir": str(session.folder),
    }
    with answer:
        print(json.dumps(ready), file=answer)


@contextlib.contextmanager
def _zygote_of(session: Session, answer: IO[str]) -> Iterator[tuple[socket.socket, int]]:
    """A bare zygote, and at the end of the node the end of all that it has."""
    agents_end, pid = _fork_zygote(session, answer)
    try:
        yield agents_end, pid
    finally:
        unpublish(session)
        agents_end.close()  # which tells it
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        session.remove()


def _fork_zygote(session: Session, answer: IO[str]) -> tuple[socket.socket, int]:
    mine, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return mine, pid
    mine.close()
    session.release_lock_in_child()
    answer.close()
    _redirect_output(session)
    status = 1
    try:
        Zygote(theirs, worker.main).run()
        session.remove()
        status = 0
    finally:
        os._exit(status)


def _reset_signals() -> None:
    """Be free of what the program ignores or blocks: a node has signals of its own to see."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # Python's own
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _open_standard_descriptors() -> None:
    """Give those that the program had closed to nothing: other files would get their numbers."""
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= 2:
        fd = os.dup(fd)
    os.close(fd)


def _redirect_output(session: Session) -> None:
    """What the node's own processes print goes to their log."""
    sys.stdout.flush()
    path: Path = session.logs / "node.log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    os.close(null)
