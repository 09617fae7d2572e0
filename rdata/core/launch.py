"""How does a driver start a node of its own?"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import rdata
from rdata.config import Settings
from rdata.errors import NodeStartError

_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from rdata.core import node; node.main()"


@dataclass(frozen=True, slots=True)
class LaunchedNode:
    """A node that this process started, as a child."""

    process: subprocess.Popen[bytes]
    address: str
    node_id: str
    session_dir: str
    token: bytes

    def wait_for_end(self, timeout_s: float) -> None:
        """Reap the node, which is ending; kill it if it does not."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def launch_node(
    num_cpus: float | None,
    resources: Mapping[str, float],
    object_store_memory: int | None,
    settings: Settings,
) -> LaunchedNode:
    """Start an embedded node, in a process session of its own, so that Ctrl-C passes it by."""
    token = os.urandom(32)
    spec = {
        "token": token.hex(),  # by pipe: a command line or an environment can be read by others
        "temp_dir": os.environ.get("TMPDIR"),
        "num_cpus": num_cpus,
        "resources": dict(resources),
        "object_store_memory": object_store_memory,
        "is_embedded": True,
        "launcher_pid": os.getpid(),
        "host": "127.0.0.1",
        "port": 0,
        "head": "",
        "settings": dataclasses.asdict(settings),
    }
    root = str(Path(rdata.__file__).parent.parent)
    process = subprocess.Popen(
        [sys.executable, "-c", _CODE, root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout:
        try:
            with process.stdin:
                process.stdin.write(json.dumps(spec).encode())
        except BrokenPipeError:  # it has failed; its answer says how
            pass
        answer = _read_line(process, settings.start_timeout_s)
    if "error" in answer:
        process.wait()
        raise NodeStartError(answer["error"])
    return LaunchedNode(process, answer["address"], answer["node_id"], answer["session_dir"], token)


def _read_line(process: subprocess.Popen[bytes], timeout_s: float) -> dict[str, str]:
    assert process.stdout is not None
    fd = process.stdout.fileno()
    deadline = time.monotonic() + timeout_s
    data = b""
    while not data.endswith(b"\n"):
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            process.kill()
            process.wait()
            raise NodeStartError(f"the node did not start within {timeout_s:g} s")
        received = os.read(fd, 65536)
        if not received:
            status = process.wait()
            raise NodeStartError(
                f"the node ended at its start (exit code {status}); it printed why to stderr"
            )
        data += received
    answer: dict[str, str] = json.loads(data)
    return answer
