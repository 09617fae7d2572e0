"""How is a node started: a driver's own, or one that stays and that programs join?"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec.structs import asdict

from rdata.config import Settings
from rdata.core import interpreter
from rdata.core.node_files import TOKEN_VARIABLE
from rdata.core.session import default_temp_dir
from rdata.errors import NodeStartError


# These two are dataclasses, and no structs, for the sake of `repr=False`: a token is a secret.
@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What a node is started with; None: what the machine has, less what limits leave of it.

    An embedded node ends with this process. Another listens on `host` and `port` (0: a free one),
    and joins the cluster whose head is at `head` (HOST:PORT), or (empty) is a head itself, which
    goes on where the last one ended that had the same `journal` (a file; empty: none).
    """

    num_cpus: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    object_store_memory: int | None = None
    temp_dir: str = field(default_factory=default_temp_dir)
    token: bytes = field(default_factory=lambda: os.urandom(32), repr=False)
    is_embedded: bool = True
    host: str = ""
    port: int = 0
    head: str = ""
    journal: str = ""


@dataclass(frozen=True, slots=True)
class LaunchedNode:
    """A node that this process started, as a child."""

    process: subprocess.Popen[bytes]
    address: str
    node_id: str
    session_dir: str
    token: bytes = field(repr=False)

    def wait_for_end(self, timeout_s: float) -> None:
        """Reap the node, which is ending; kill it if it does not."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def launch_node(options: NodeOptions, settings: Settings) -> LaunchedNode:
    """Start a node, in a process session of its own, so that Ctrl-C passes it by.

    Returns when it serves. Raises NodeStartError.
    """
    spec = {
        **dataclasses.asdict(options),
        "token": options.token.hex(),  # by pipe: a command line or an environment may be read
        "temp_dir": os.path.abspath(options.temp_dir),
        "launcher_pid": os.getpid(),
        "settings": asdict(settings),
    }
    try:
        process = subprocess.Popen(
            interpreter.command("main"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE},
        )
    except OSError as error:  # a limit of processes or files, for instance
        raise NodeStartError(f"cannot start a process for the node: {error}") from error
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout:
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin:  # its answer says how
                process.stdin.write(json.dumps(spec).encode())
            answer = _read_line(process, settings.start_timeout_s)
        except BaseException:  # an interrupt, for instance: nobody would know of the node
            process.kill()
            process.wait()
            raise
    if "error" in answer:
        process.wait()
        raise NodeStartError(answer["error"])
    return LaunchedNode(
        process, answer["address"], answer["node_id"], answer["session_dir"], options.token
    )


def _read_line(process: subprocess.Popen[bytes], timeout_s: float) -> dict[str, str]:
    assert process.stdout is not None
    fd = process.stdout.fileno()
    poll = select.poll()  # `select` takes no descriptor above 1023, as a program may have
    poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    data = b""
    while not data.endswith(b"\n"):
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise NodeStartError(f"the node did not start within {timeout_s:g} s")
        received = os.read(fd, 65536)
        if not received:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            raise NodeStartError(
                f"the node ended at its start (exit code {process.returncode}); "
                "it printed why to stderr"
            )
        data += received
    answer: dict[str, str] = json.loads(data)
    return answer
