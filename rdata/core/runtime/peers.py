"""How does a process reach another one? Through that one's agent, which hands the connection on.

An address is `<process id>@<node address>`. Processes of a node reach one another through its Unix
socket, whatever address others know the node by.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from msgspec import Struct

from rdata.core.messages import Attach, AttachFailed, Direct, direct_decoder
from rdata.core.wire.auth import ROLE_DRIVER, ClientHandshake
from rdata.core.wire.connection import Connection
from rdata.core.wire.dial import begin_connecting
from rdata.core.wire.loop import Loop

_DEATH_NEWS_S = 5.0  # the agent tells of a process's end within milliseconds of it


@lru_cache(maxsize=4096)  # asked for every message
def process_of(address: str) -> bytes:
    """The process that an address names."""
    return bytes.fromhex(address.partition("@")[0])


class Home(Struct, frozen=True):
    """The node of a process: others reach it at `address`, its own at `local_address`."""

    node_id: bytes
    address: str
    local_address: str


class Peers:
    """This process's connections to other processes, one each, made when first needed."""

    def __init__(
        self,
        process_id: bytes,
        home: Home,
        token: bytes,
        loop: Loop,
        timeout_s: float,
        on_messages: Callable[[bytes, list[Any]], None],
        on_gone: Callable[[bytes, str], None],
    ) -> None:
        """`on_messages(process, messages)`, `on_gone(process, reason)`: on the loop's thread."""
        self._process_id = process_id
        self._token = token
        self._loop = loop
        self._timeout_s = timeout_s
        self.home = home
        self._on_messages = on_messages
        self._on_gone = on_gone
        self._ended: set[bytes] = set()
        self._connections: dict[bytes, Connection] = {}
        self._processes: dict[Connection, bytes] = {}

    def send(self, address: str, message: Direct) -> None:
        """Send to the process at `address`, connecting first if need be."""
        self.connection(address).send(message)

    def reply(self, process: bytes, message: Direct) -> None:
        """Send to a process that has connected to this one; nothing if it is gone."""
        connection = self._connections.get(process)
        if connection is not None:
            connection.send(message)

    def connection(self, address: str) -> Connection:
        """The connection to the process; if it cannot be made, `on_gone` follows."""
        process = process_of(address)
        connection = self._connections.get(process)
        if connection is not None:
            return connection
        try:
            node = address.partition("@")[2]
            if node == self.home.address:
                node = self.home.local_address
            sock = begin_connecting(node, self._timeout_s)  # the caller holds the runtime's lock
        except OSError as error:
            reason = f"its node cannot be reached: {error.strerror or error}"
            self._loop.call_soon(lambda: self._on_gone(process, reason))
            sock, unused = socket.socketpair()  # a closed one: what is sent goes nowhere
            unused.close()
            return self._add(process, sock, None)
        handshake = ClientHandshake(self._token, ROLE_DRIVER, self._process_id)
        connection = self._add(process, sock, handshake)
        connection.send(Attach(process))
        return connection

    def accept(self, process: bytes, fd: int) -> None:
        """The agent hands on a connection that `process` has made to this one."""
        sock = socket.socket(fileno=fd)
        if process in self._connections:
            # Both have connected at once. Each sends on its own; both are read.
            self._processes[self._connect(sock, None)] = process
        else:
            self._add(process, sock, None)

    def process_ended(self, process: bytes, reason: str) -> None:
        """The agent says that the process has ended: read what it had sent, then close."""
        self._ended.add(process)
        for connection, of in list(self._processes.items()):
            if of == process:
                connection.drain_and_close(reason)

    def is_connected(self, process: bytes) -> bool:
        """Whether there is a connection with it."""
        return process in self._connections

    def close(self) -> None:
        """Close all."""
        for connection in list(self._processes):
            connection.close()

    def close_in_child(self) -> None:
        """After a fork, in the child."""
        for connection in self._processes:
            connection.close_in_child()

    def _add(self, process: bytes, sock: socket.socket, handshake: Any) -> Connection:
        connection = self._connect(sock, handshake)
        self._connections[process] = connection
        self._processes[connection] = process
        return connection

    def _connect(self, sock: socket.socket, handshake: ClientHandshake | None) -> Connection:
        return Connection(sock, self._loop, direct_decoder, self._received, self._closed, handshake)

    def _received(self, connection: Connection, messages: list[Any]) -> None:
        process = self._processes[connection]
        if isinstance(messages[0], AttachFailed):
            self._on_gone(process, messages[0].reason)
            return
        self._on_messages(process, messages)

    def _closed(self, connection: Connection, reason: str) -> None:
        process = self._processes.pop(connection, None)
        if process is not None and self._connections.get(process) is connection:
            del self._connections[process]
            if process not in self._ended:  # it has ended, and the agent will say how; or else …
                self._loop.call_later(_DEATH_NEWS_S, lambda: self._give_up(process, reason))

    def _give_up(self, process: bytes, reason: str) -> None:
        """A connection closed, and nobody says that its process ended: what was sent is lost."""
        if process not in self._ended and process not in self._connections:
            self._on_gone(process, f"the connection with it was lost: {reason}")
