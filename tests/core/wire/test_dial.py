"""Is a node's port reached, without waiting for it?"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from rdata.core import messages as m
from rdata.core.agent.listener import Listener
from rdata.core.wire.auth import ROLE_DRIVER, ClientHandshake, ServerHandshake
from rdata.core.wire.dial import begin_connecting, connect_node
from rdata.core.wire.loop import Loop
from tests.core.wire.ends import End, on_loop, running_loop
from tests.eventually import eventually

TOKEN = b"the cluster's token"


@pytest.fixture
def loop() -> Iterator[Loop]:
    with running_loop() as loop:
        yield loop


def dial(address: str, loop: Loop) -> End:
    return End(begin_connecting(address, 5), loop, ClientHandshake(TOKEN, ROLE_DRIVER, b"guest_id"))


def test_what_is_sent_before_it_is_connected_arrives(loop: Loop) -> None:
    arrived: list[m.Control] = []

    def on_proven(sock: socket.socket, handshake: ServerHandshake, first: m.Control) -> None:
        arrived.append(first)
        sock.close()

    server = socket.create_server(("127.0.0.1", 0))
    address = f"tcp:127.0.0.1:{server.getsockname()[1]}"
    end = dial(address, loop)  # nobody accepts yet
    end.connection.send(m.Attach(b"a worker"))
    listener = on_loop(loop, lambda: Listener(server, loop, TOKEN, b"the_node", on_proven))
    assert eventually(lambda: arrived == [m.Attach(b"a worker")])
    assert end.is_closed.wait(20)
    on_loop(loop, listener.close)


def test_a_port_where_nobody_listens_ends_the_connection(loop: Loop) -> None:
    with socket.socket() as bound:  # and not listening: nobody else can get the port meanwhile
        bound.bind(("127.0.0.1", 0))
        end = dial(f"tcp:127.0.0.1:{bound.getsockname()[1]}", loop)
        end.connection.send(m.Attach(b"a worker"))
        assert end.is_closed.wait(20)
    assert end.story == ["connection failed: Connection refused"]


def test_a_place_that_no_network_has_ends_the_connection_or_is_refused(loop: Loop) -> None:
    """Whether or not this machine has a network, nobody waits for it here."""
    try:
        end = dial("tcp:192.0.2.1:9", loop)
    except OSError:
        return
    end.connection.send(m.Attach(b"a worker"))
    end.connection.close()
    assert end.is_closed.wait(20)


@pytest.mark.parametrize("address", ["http://node", "tcp:nowhere", "unix:/no/such/socket"])
def test_what_is_no_address_is_said(address: str) -> None:
    for connect in (begin_connecting, connect_node):
        with pytest.raises((OSError, ValueError)):
            connect(address, 1)
