"""Which nodes of this user serve on this machine, and where is each reached?

A node that others may join puts two files into its session folder while it serves:

    node.json   its address, the head's, its process, its version
    token       what proves that a process is of the cluster; mode 0600, never printed

A node lives as long as the lock of its folder is held.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

from rdata.core.addresses import resolved, split_address
from rdata.core.session import Session, default_temp_dir, is_session, sessions_folder
from rdata.core.wire.auth import versions
from rdata.errors import NodeNotFoundError, NodeStartError

TOKEN_VARIABLE = "RDATA_TOKEN"
_RECORD = "node.json"
_TOKEN = "token"
_MIN_TOKEN_BYTES = 16


class NodeRecord(Struct, frozen=True):
    """What a node says of itself in node.json. `address` and `head` are HOST:PORT."""

    pid: int
    node_id: str
    address: str
    head: str
    is_head: bool
    version: str


class LocalNode(Struct, frozen=True):
    """A node that serves on this machine."""

    record: NodeRecord
    folder: Path

    @property
    def socket_address(self) -> str:
        """Where processes of this machine reach it."""
        return f"unix:{Session.socket_in(self.folder)}"

    def token(self) -> bytes:
        """The cluster's token. Raises NodeStartError."""
        return read_token(self.folder / _TOKEN)

    def is_alive(self) -> bool:
        """Whether its process still holds the lock of its folder."""
        return _is_locked(self.folder)

    def check_version(self) -> None:
        """Raise NodeStartError if it cannot talk with this program."""
        if self.record.version != this_version():
            raise NodeStartError(
                f"the node at {self.record.address} runs {self.record.version}, and this is "
                f"{this_version()}: versions (rdata / Python) must be the same"
            )


def this_version() -> str:
    """The versions that must be the same everywhere in a cluster."""
    rdata, _, python = versions().rstrip(b"\0").decode().partition("/")
    return f"rdata {rdata} / Python {python}"


# ---------------------------------------------------------------- a node's side


def publish(session: Session, record: NodeRecord, token: bytes) -> None:
    """Say that the node serves: from now on it is found."""
    _write_private(session.folder / _TOKEN, token.hex() + "\n")
    _write_private(session.folder / _RECORD, json.dumps(asdict(record)) + "\n")


def unpublish(session: Session) -> None:
    """Say that the node is about to end."""
    (session.folder / _RECORD).unlink(missing_ok=True)


def _write_private(path: Path, text: str) -> None:
    unnamed = path.with_name(path.name + ".new")
    fd = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    unnamed.rename(path)  # whoever finds it finds all of it


# ---------------------------------------------------------------- looking for nodes


def live_nodes(temp_dir: str | None = None) -> list[LocalNode]:
    """The nodes that serve, the oldest first."""
    parent = sessions_folder(temp_dir or default_temp_dir())
    try:
        folders = sorted(folder for folder in parent.iterdir() if is_session(folder))
    except OSError:  # there never was one
        return []
    found = []
    for folder in folders:
        with contextlib.suppress(OSError, ValueError, TypeError):  # it ends just now
            record = NodeRecord(**json.loads((folder / _RECORD).read_text()))
            if _is_locked(folder):
                found.append(LocalNode(record, folder))
    return found


def choose_node(address: str, temp_dir: str | None = None) -> LocalNode:
    """The node that a program on this machine joins: `address` is "auto" or HOST:PORT.

    HOST:PORT is that of a cluster's head, or of the node itself. Raises NodeNotFoundError,
    NodeStartError (several clusters for "auto", a node of another version), OptionError.
    """
    nodes = live_nodes(temp_dir)
    where = sessions_folder(temp_dir or default_temp_dir())
    if address == "auto":
        if not nodes:
            raise NodeNotFoundError(
                f"no rdata node runs on this machine (looked in {where}). Start one: "
                "rdata start --head"
            )
        if len({node.record.head for node in nodes}) > 1:
            raise NodeStartError(
                f"nodes of several clusters run on this machine: {_listed(nodes)}. Say which: "
                f"address={nodes[0].record.head!r}"
            )
        fitting = nodes
    else:
        wanted = resolved(address)
        own = [node for node in nodes if node.record.address in wanted]
        fitting = own or [node for node in nodes if node.record.head in wanted]
        if not fitting:
            running = f"There are: {_listed(nodes)}" if nodes else "There is none"
            raise NodeNotFoundError(
                f"no node of the cluster at {address} runs on this machine (looked in {where}). "
                f"{running}. Start one: rdata start --address={address}, or a cluster: "
                f"rdata start --head --port={split_address(address)[1]}"
            )
    node = fitting[0]
    node.check_version()
    return node


def read_token(path: Path) -> bytes:
    """The token in the file. Raises NodeStartError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise NodeStartError(f"cannot read a token from {path}: {error}") from error
    return parse_token(text, str(path))


def parse_token(text: str, source: str) -> bytes:
    """A token as `publish` writes it, taken from `source`. The message does not show it."""
    try:
        token = bytes.fromhex(text.strip())
    except ValueError:
        token = b""
    if len(token) < _MIN_TOKEN_BYTES:
        raise NodeStartError(
            f"what {source} has is not a token: that is at least {2 * _MIN_TOKEN_BYTES} "
            "hexadecimal digits"
        )
    return token


def _listed(nodes: Sequence[LocalNode]) -> str:
    return ", ".join(
        f"{node.record.address} ({'a head' if node.record.is_head else f'of {node.record.head}'})"
        for node in nodes
    )


def _is_locked(folder: Path) -> bool:
    try:
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others may look at the same time
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(fd)
