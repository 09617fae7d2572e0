"""How is a node's port reached?

A node's address is `unix:<path>`, or `tcp:<host>:<port>` where nodes of other machines may join.
"""

from __future__ import annotations

import contextlib
import socket
import time

from rdata.core.addresses import split_address

_CONNECT_PAUSE_S = 0.005


def begin_connecting(address: str, timeout_s: float) -> socket.socket:
    """A socket that is connected to a node's port, or will be: it is non-blocking.

    For a Connection, which copes with both. Raises OSError.
    """
    scheme, _, path = address.partition(":")
    if scheme != "tcp":
        return connect_node(address, timeout_s)
    # Nodes tell their addresses as numbers, so there is no name server to wait for.
    found = socket.getaddrinfo(*split_address(path), type=socket.SOCK_STREAM)
    family, kind, protocol, _, place = found[0]
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(BlockingIOError):  # it is under way
        sock.connect(place)
    return sock


def connect_node(address: str, timeout_s: float) -> socket.socket:
    """A socket to a node's port. Raises OSError."""
    scheme, _, path = address.partition(":")
    if scheme == "tcp":
        try:
            sock = socket.create_connection(split_address(path), timeout_s)
        except UnicodeError as error:
            raise OSError(f"{path!r} cannot be a host's name and a port") from error
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a frame is a message
        return sock
    if scheme != "unix":
        raise OSError(f"not a node's address: {address!r}")
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    give_up_at = time.monotonic() + timeout_s
    try:
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:  # the node is behind with accepting; the kernel never waits
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(_CONNECT_PAUSE_S)
            else:
                return sock
    except OSError:
        sock.close()
        raise
