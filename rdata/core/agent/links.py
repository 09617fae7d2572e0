"""Which other nodes are there, and how does this one's agent talk with theirs?

    joining node                       head              another node
         │ Link(is_joining) ────────────►│                    │
         │◄───────────── Welcome(nodes) ─│                    │
         │ Link ─────────────────────────────────────────────►│
         │◄────────────────────────────────────── Welcome(·) ─│

Every two nodes have one connection. A node is gone when that closes or is silent for long; who had
dialled dials again for a while: the head may be started anew, and a cable mended.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from msgspec import Struct

from rdata.config import Settings
from rdata.core.messages import Link
from rdata.core.messages.cluster import Alive, Cluster, NodeState, Welcome, cluster_decoder
from rdata.core.wire.auth import ROLE_AGENT, ClientHandshake
from rdata.core.wire.connection import Connection
from rdata.core.wire.dial import connect_node
from rdata.core.wire.loop import Loop, Timer

_DIAL_AGAIN_S = 0.5


class LinkEvents(Protocol):
    """Who is told of what happens to links."""

    def linked(self, node: bytes) -> None:
        """There is a connection with the node, on which nothing has been said yet."""
        ...

    def received(self, node: bytes, message: Cluster) -> None:
        """The node's agent says something."""
        ...

    def lost(self, node: bytes, reason: str) -> None:
        """The node has ended, or cannot be reached any more."""
        ...

    def abandoned(self, reason: str) -> None:
        """The head has been away for too long."""
        ...


class NodeIdentity(Struct, frozen=True):
    """Who a node is, and what proves that it is of this cluster."""

    id: bytes
    address: str
    token: bytes
    is_head: bool


class LinkedNode(Struct, eq=False):
    """Another node, while there is a connection with it."""

    id: bytes
    address: str
    connection: Connection
    heard_at: float
    state: NodeState | None = None


class _Call(Struct, eq=False):
    """An attempt to be linked with the node at `address`.

    `then` gets "" or the reason of a failure; without it, the attempt is repeated.
    """

    address: str
    is_joining: bool
    give_up_at: float
    then: Callable[[str], None] | None


class Links:
    """This node's connections with all others of its cluster. Lives on the agent's loop."""

    def __init__(
        self,
        loop: Loop,
        me: NodeIdentity,
        settings: Settings,
        events: LinkEvents,
    ) -> None:
        self.nodes: dict[bytes, LinkedNode] = {}
        self.head: bytes | None = me.id  # None while it is away
        self._loop = loop
        self._me = me
        self._settings = settings
        self._events = events
        self._dialled: dict[bytes, _Call] = {}
        self._is_closed = False
        self._checking: Timer | None = None

    def join(self, address: str, then: Callable[[str], None]) -> None:
        """Enter the cluster whose head is at `address`.

        `then` gets "" once this node is linked with all others, or why that cannot be.
        """
        self.head = None
        give_up_at = time.monotonic() + self._settings.connect_timeout_s
        self._dial(_Call(address, True, give_up_at, then))

    def accept(self, sock: socket.socket, node_id: bytes, link: Link) -> None:
        """Another node has dialled this one."""
        if node_id in self.nodes:  # it has noticed before us that the old connection is broken
            self._lose(node_id, "its connection was broken")
        connection = self._connection(sock, node_id)
        others = [(node.id, node.address) for node in self.nodes.values()]
        connection.send(Welcome(self._me.id, self._me.address, others if link.is_joining else []))
        self._enter(node_id, link.address, connection)

    def send(self, node_id: bytes, message: Cluster) -> None:
        """Tell that node's agent; nothing if it is gone: `on_gone` has told, or will."""
        node = self.nodes.get(node_id)
        if node is not None:
            node.connection.send(message)

    def tell_all(self, message: Cluster) -> None:
        """Tell every other node's agent."""
        for node in self.nodes.values():
            node.connection.send(message)

    def address_of(self, node_id: bytes) -> str | None:
        """Where the node can be reached; None if it is gone."""
        node = self.nodes.get(node_id)
        return None if node is None else node.address

    def head_address(self) -> str | None:
        """Where the head says that it is reached; None on the head, and while it is away."""
        return None if self.head is None else self.address_of(self.head)

    def close(self) -> None:
        """Leave the cluster."""
        self._is_closed = True
        for node in self.nodes.values():
            node.connection.close()

    # ------------------------------------------------------------ dialling

    def _dial(self, call: _Call) -> None:
        if not self._is_closed:
            # Resolving a name and reaching a machine that is off take seconds.
            threading.Thread(target=self._connect, args=(call,), daemon=True).start()

    def _connect(self, call: _Call) -> None:
        try:
            sock = connect_node(call.address, self._settings.connect_timeout_s)
        except OSError as error:
            reason = f"cannot reach {call.address}: {error.strerror or error}"
            self._loop.call_soon(lambda: self._failed(call, reason))
            return
        self._loop.call_soon(lambda: self._greet(call, sock))

    def _greet(self, call: _Call, sock: socket.socket) -> None:
        def answered(connection: Connection, messages: list[Any]) -> None:
            node_id = nodes.get(connection)
            if node_id is None:
                welcome = messages.pop(0)
                assert isinstance(welcome, Welcome)
                node_id = nodes[connection] = welcome.node_id
                self._welcomed(call, connection, welcome)
            self._received(node_id, messages)

        def closed(connection: Connection, reason: str) -> None:
            node_id = nodes.get(connection)
            if node_id is None:
                self._failed(call, f"{call.address} does not take this node in: {reason}")
            else:
                self._closed(node_id, connection, reason)

        nodes: dict[Connection, bytes] = {}  # its id, once it has said it
        handshake = ClientHandshake(self._me.token, ROLE_AGENT, self._me.id)
        connection = Connection(sock, self._loop, cluster_decoder, answered, closed, handshake)
        connection.send(Link(self._me.id, self._me.address, call.is_joining))

    def _welcomed(self, call: _Call, connection: Connection, welcome: Welcome) -> None:
        if call.is_joining:
            self.head = welcome.node_id
        if welcome.node_id in self.nodes:
            self._lose(welcome.node_id, "its connection was broken")
        self._dialled[welcome.node_id] = call
        self._enter(welcome.node_id, welcome.address, connection)
        missing = {address for id, address in welcome.nodes if id not in self.nodes}

        give_up_at = time.monotonic() + self._settings.connect_timeout_s
        for address in list(missing):
            # One that cannot be reached is about to end.
            done = partial(self._linked_with_another, call, missing, address)
            self._dial(_Call(address, False, give_up_at, done))
        if not missing and call.then is not None:
            call.then("")

    def _linked_with_another(
        self, call: _Call, missing: set[str], address: str, reason: str
    ) -> None:
        missing.discard(address)
        if not missing and call.then is not None:
            call.then("")

    def _failed(self, call: _Call, reason: str) -> None:
        if call.then is not None:
            call.then(reason)
        elif time.monotonic() < call.give_up_at:
            self._loop.call_later(_DIAL_AGAIN_S, lambda: self._dial(call))
        elif call.is_joining:
            self._events.abandoned(f"the head at {call.address} has not come back: {reason}")

    # ------------------------------------------------------------ connections

    def _connection(self, sock: socket.socket, node_id: bytes) -> Connection:
        return Connection(
            sock,
            self._loop,
            cluster_decoder,
            lambda connection, messages: self._received(node_id, messages),
            lambda connection, reason: self._closed(node_id, connection, reason),
        )

    def _enter(self, node_id: bytes, address: str, connection: Connection) -> None:
        self.nodes[node_id] = LinkedNode(node_id, address, connection, time.monotonic())
        self._events.linked(node_id)
        if self._checking is None:
            self._check_later()

    def _received(self, node_id: bytes, messages: list[Any]) -> None:
        node = self.nodes.get(node_id)
        if node is None:
            return
        node.heard_at = time.monotonic()
        for message in messages:
            if isinstance(message, NodeState):
                node.state = message
            self._events.received(node_id, message)

    def _closed(self, node_id: bytes, connection: Connection, reason: str) -> None:
        node = self.nodes.get(node_id)
        if node is not None and node.connection is connection and not self._is_closed:
            self._lose(node_id, reason)

    def _lose(self, node_id: bytes, reason: str) -> None:
        node = self.nodes.pop(node_id)
        node.connection.close()
        if node_id == self.head:
            self.head = None
        self._events.lost(node_id, reason)
        call = self._dialled.pop(node_id, None)
        if call is not None:
            give_up_at = time.monotonic() + self._settings.head_wait_s
            again = _Call(call.address, call.is_joining, give_up_at, None)
            self._loop.call_later(_DIAL_AGAIN_S, lambda: self._dial(again))

    def _check(self) -> None:
        """Say that this node lives, and notice which does not."""
        now = time.monotonic()
        for node in list(self.nodes.values()):
            silence_s = now - node.heard_at
            if silence_s > self._settings.node_silence_s:
                self._lose(node.id, f"nothing was heard of it for {silence_s:.1f} s")
        self.tell_all(Alive())
        self._check_later()

    def _check_later(self) -> None:
        self._checking = None
        if self.nodes:
            self._checking = self._loop.call_later(self._settings.node_silence_s / 8, self._check)
