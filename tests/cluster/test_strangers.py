"""Does a node go on working, whoever knocks at its port without the cluster's token?"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Iterator

import psutil
import pytest

import rdata
from rdata.core import messages as m
from rdata.core.wire import auth
from rdata.core.wire.auth import ROLE_AGENT, ROLE_DRIVER, ClientHandshake
from rdata.core.wire.frames import encode_frame
from tests.cluster.nodes import TOKEN, Cluster, joined, running_cluster
from tests.eventually import eventually

GUEST = b"stranger"
CROWD = 10_000
WAITING = min(CROWD, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)  # of them at a time


@pytest.fixture(scope="module")
def pair() -> Iterator[Cluster]:
    """A head and a node, both with work to do."""
    with running_cluster(num_cpus=1, resources={"here": 1}) as cluster:
        cluster.add_node(1, {"there": 1})
        with joined(cluster):
            yield cluster


@pytest.fixture(autouse=True)
def _works_on(pair: Cluster) -> Iterator[None]:
    """Afterwards both nodes serve, and hold no more descriptors than before."""

    def serves() -> bool:
        task = rdata.remote(os.getpid)
        refs = [task.options(resources={name: 0.5}).remote() for name in ("here", "there")]
        return len(set(rdata.get(refs, timeout=60))) == 2

    def num_descriptors() -> list[int]:
        return [psutil.Process(node.agent.pid).num_fds() for node in pair.nodes]

    assert serves()
    before = num_descriptors()
    yield
    assert serves()
    assert eventually(
        lambda: all(now <= then + 2 for now, then in zip(num_descriptors(), before, strict=True))
    ), (before, num_descriptors())


@pytest.fixture(params=["head", "other"])
def place(pair: Cluster, request: pytest.FixtureRequest) -> tuple[str, int]:
    """Where a node listens."""
    node = pair.nodes[0 if request.param == "head" else 1]
    host, _, port = node.address.rpartition(":")
    return host, int(port)


def knock(place: tuple[str, int]) -> socket.socket:
    return socket.create_connection(place, 20)


def answer(sock: socket.socket) -> bytes:
    """What the node says until it closes the connection."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            said += data
    return said


def prove(sock: socket.socket, handshake: ClientHandshake) -> None:
    sock.sendall(handshake.hello)
    said = b""
    while len(said) < handshake.needs:
        said += sock.recv(handshake.needs - len(said))
    sock.sendall(handshake.feed(said))


@pytest.mark.parametrize(
    "said",
    [b"", b"\0", b"GET / HTTP/1.1\r\nHost: rdata\r\n\r\n", b"\x16\x03\x01" * 50, bytes(1 << 20)],
    ids=["nothing", "one byte", "http", "tls", "a million zeros"],
)
def test_who_says_something_else_is_turned_away(place: tuple[str, int], said: bytes) -> None:
    with knock(place) as sock:
        with contextlib.suppress(OSError):  # turned away already
            sock.sendall(said)
            sock.shutdown(socket.SHUT_WR)
        assert len(answer(sock)) < 200


def test_who_has_another_token_learns_nothing_and_gets_no_further(place: tuple[str, int]) -> None:
    with knock(place) as sock, pytest.raises(auth.RefusedError, match="token"):
        prove(sock, ClientHandshake(b"another token", ROLE_AGENT, GUEST))


def test_who_leaves_out_the_proof_is_not_heard(place: tuple[str, int]) -> None:
    handshake = ClientHandshake(b"another token", ROLE_AGENT, GUEST)
    with knock(place) as sock:
        sock.sendall(handshake.hello)
        sock.recv(1, socket.MSG_PEEK)
        sock.sendall(
            bytes(auth.PROOF_BYTES) + encode_frame(m.Visit()) + encode_frame(m.StopNode(1))
        )
        answer(sock)


def test_a_handshake_that_was_overheard_is_of_no_use(place: tuple[str, int]) -> None:
    handshake = ClientHandshake(TOKEN, ROLE_DRIVER, GUEST)
    with knock(place) as sock:
        prove(sock, handshake)
        sock.sendall(encode_frame(m.Visit()) + encode_frame(m.Describe(1)))
        assert sock.recv(65536)
    overheard = ClientHandshake(TOKEN, ROLE_DRIVER, GUEST)
    with knock(place) as sock:
        sock.sendall(handshake.hello)
        said = b""
        while len(said) < handshake.needs:
            said += sock.recv(65536)
        with pytest.raises(auth.RefusedError):
            overheard.feed(said)  # it is an answer to another challenge
        sock.sendall(bytes(auth.PROOF_BYTES) + encode_frame(m.StopNode(1)))
        answer(sock)


def test_half_a_handshake_holds_nothing(place: tuple[str, int]) -> None:
    hello = ClientHandshake(TOKEN, ROLE_AGENT, GUEST).hello
    for size in (1, len(hello) // 2, len(hello)):
        with knock(place) as sock:
            sock.sendall(hello[:size])


def test_a_first_frame_that_is_none_ends_the_connection(place: tuple[str, int]) -> None:
    for frame in (
        b"\xff\xff\xff\x7f",
        b"\0\0\0\0",
        b"\4\0\0\0junk",
        encode_frame(m.Done(1)),
        encode_frame(m.Register(GUEST, 1, [], b"/", {}, "", False)),  # a driver is of the machine
    ):
        with knock(place) as sock:
            prove(sock, ClientHandshake(TOKEN, ROLE_DRIVER, GUEST))
            sock.sendall(frame)
            assert answer(sock) == b""


def test_a_crowd_keeps_no_one_from_working(pair: Cluster, place: tuple[str, int]) -> None:
    crowd: list[socket.socket] = []
    task = rdata.remote(lambda number: number)
    try:
        for number in range(CROWD):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(place)
            crowd.append(sock)
            if len(crowd) > WAITING:
                crowd.pop(0).close()
            if number % 1000 == 0:
                refs = [task.options(resources={"there": 0.1}).remote(i) for i in range(50)]
                assert rdata.get(refs, timeout=60) == list(range(50))
    finally:
        for sock in crowd:
            sock.close()
    guest = pair.add_node(1, {"new": 1})
    pair.wait_for_nodes()
    assert rdata.get(task.options(resources={"new": 1}).remote(7), timeout=60) == 7
    guest.end()
    pair.nodes.remove(guest)
    pair.wait_for_nodes()


def test_workers_and_zygotes_listen_nowhere(pair: Cluster) -> None:
    for node in pair.nodes:
        for process in node.processes():
            ports = [each for each in process.net_connections("inet") if each.status == "LISTEN"]
            assert len(ports) == (process.pid == node.agent.pid)
