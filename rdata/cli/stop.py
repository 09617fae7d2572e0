"""How does a user end the nodes of this machine, so that nothing of them remains?"""

from __future__ import annotations

import argparse
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from rdata.config import Settings
from rdata.core.node_files import LocalNode, live_nodes
from rdata.core.session import default_temp_dir, sessions_folder
from rdata.core.visit import visit
from rdata.errors import NodeNotFoundError, NodeStartError

_GRACE_S = 10.0  # that a node gets to end its workers, and its zygote to clear up after it
_POLL_S = 0.01


def run(arguments: Sequence[str]) -> None:
    """End them and wait until they are gone. Raises NodeStartError for those that are not."""
    parser = argparse.ArgumentParser(
        prog="rdata stop",
        description="End all nodes of this user on this machine that `rdata start` has started.",
        allow_abbrev=False,
    )
    parser.add_argument("--force", action="store_true", help="kill those that do not end")
    parser.add_argument(
        "--temp-dir",
        metavar="FOLDER",
        default=default_temp_dir(),
        help="where the nodes were started with it",
    )
    given = parser.parse_args(arguments)
    nodes = live_nodes(given.temp_dir)
    if not nodes:
        print(f"no rdata node runs on this machine (looked in {sessions_folder(given.temp_dir)})")
        return
    nodes.sort(key=lambda node: node.record.is_head)  # the others would miss theirs
    timeout_s = Settings.from_environment().connect_timeout_s
    ended: list[str] = []
    failures: list[str] = []
    with ExitStack() as stack:
        asked = [
            (node, stack.enter_context(_process(node)), _ask(node, timeout_s)) for node in nodes
        ]
        for node, pidfd, refusal in asked:
            is_gone = _wait(node, pidfd, 0.0 if refusal else _GRACE_S)
            if not is_gone and given.force and node.is_alive():
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                is_gone = _wait(node, pidfd, _GRACE_S)
            if is_gone:
                ended.append(node.record.address)
            else:
                why = refusal or f"it has not ended within {_GRACE_S:g} s"
                failures.append(f"{node.record.address} (process {node.record.pid}): {why}")
    for address in ended:  # only now: nobody may be reading, and all must end
        print(f"the node at {address} has ended")
    if failures:
        raise NodeStartError(
            f"still running: {'; '.join(failures)}. `rdata stop --force` kills what does not end"
        )


@contextmanager
def _process(node: LocalNode) -> Iterator[int]:
    """A pidfd of the node's process; -1 if it has ended."""
    try:
        pidfd = os.pidfd_open(node.record.pid)
    except ProcessLookupError:
        yield -1
        return
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def _ask(node: LocalNode, timeout_s: float) -> str:
    """Tell the node to end. The answer is empty, or says why it has not heard."""
    try:
        node.check_version()
        with visit(node.socket_address, node.token(), timeout_s) as visited:
            visited.stop()
    except NodeNotFoundError:  # it is ending already
        return ""
    except NodeStartError as error:
        return str(error)
    return ""


def _wait(node: LocalNode, pidfd: int, timeout_s: float) -> bool:
    """Whether its process and its folder go within that time."""
    give_up_at = time.monotonic() + timeout_s
    if pidfd >= 0 and not select.select([pidfd], [], [], timeout_s)[0]:
        return False
    while node.folder.exists():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(_POLL_S)
    return True
