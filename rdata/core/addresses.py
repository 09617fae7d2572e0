"""How is it written where a node listens? As HOST:PORT, with brackets around an IPv6 number."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Any

from rdata.errors import OptionError

DEFAULT_HOST = "127.0.0.1"  # nobody else's machine reaches it; more has to be asked for
DEFAULT_HEAD_PORT = 6379  # Ray's


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT in two; raises OptionError if it is not that."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise OptionError(f"address={address!r}: give HOST:PORT, 127.0.0.1:6379 for instance")
    return host, int(port)


def joined_address(host: str, port: int) -> str:
    """HOST:PORT, as `split_address` takes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def node_address(node: Mapping[str, Any]) -> str:
    """HOST:PORT of a node, as `rdata.nodes()` tells of it."""
    return joined_address(node["NodeManagerAddress"], node["NodeManagerPort"])


def resolved(address: str) -> set[str]:
    """`address`, and the same with each of the numbers that its host's name stands for."""
    host, port = split_address(address)
    found = {joined_address(host, port)}
    with contextlib.suppress(OSError, UnicodeError):  # a name that nobody knows is no node's
        for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            found.add(joined_address(str(place[0]), port))
    return found


def is_loopback(address: str) -> bool:
    """Whether only programs of the same machine can mean a node by it."""
    hosts = {split_address(each)[0] for each in resolved(address)}
    return any(host == "::1" or host.startswith("127.") for host in hosts)
