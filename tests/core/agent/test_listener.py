"""Who gets through a node's port, and does a crowd of strangers keep a friend out?"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from rdata.core import messages as m
from rdata.core.agent import listener as listeners
from rdata.core.agent.listener import Listener
from rdata.core.wire import auth
from rdata.core.wire.auth import ClientHandshake, ServerHandshake
from rdata.core.wire.frames import encode_frame
from tests.core.wire.ends import on_loop, running_loop
from tests.eventually import eventually

TOKEN = b"the cluster's token"
GUEST = b"guest_id"
ATTACH = m.Attach(b"a worker")
REGISTER = m.Register(b"job", 1, [b"/a path"] * 100, b"/", {b"A": b"variable"}, "", True)


@dataclass
class Door:
    path: str
    listener: Listener | None = None
    arrived: list[tuple[socket.socket, ServerHandshake, object]] = field(default_factory=list)

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)  # waits for a place in the kernel's queue
        sock.settimeout(20)
        return sock

    def num_visitors(self) -> int:
        assert self.listener is not None
        return len(self.listener._visitors)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    door = Door(str(tmp_path / "sock"))
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(door.path)
    sock.listen(512)

    def on_proven(sock: socket.socket, handshake: ServerHandshake, first: object) -> None:
        door.arrived.append((sock, handshake, first))

    with running_loop() as loop:
        door.listener = on_loop(loop, lambda: Listener(sock, loop, TOKEN, b"the_node", on_proven))
        yield door
        on_loop(loop, door.listener.close)
    for arrived, _, _ in door.arrived:
        arrived.close()


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionResetError("closed by the node")
        data += piece
    return data


def prove(sock: socket.socket, token: bytes = TOKEN, then: bytes = b"") -> None:
    handshake = ClientHandshake(token, auth.ROLE_WORKER, GUEST)
    sock.sendall(handshake.hello)
    sock.sendall(handshake.feed(receive(sock, handshake.needs)) + then)


def is_turned_away(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("first", [ATTACH, REGISTER], ids=["attach", "register"])
def test_a_proven_peer_is_announced_with_its_first_frame(door: Door, first: m.Message) -> None:
    with door.connect() as sock:
        prove(sock, then=encode_frame(first) + b"what follows")
        assert eventually(lambda: bool(door.arrived))
        theirs, handshake, arrived = door.arrived[0]
        assert arrived == first
        assert (handshake.peer_id, handshake.peer_role) == (GUEST, auth.ROLE_WORKER)
        assert theirs.recv(100) == b"what follows"  # is left for whoever gets the descriptor
        assert door.num_visitors() == 0


def test_a_peer_may_be_slow(door: Door) -> None:
    handshake = ClientHandshake(TOKEN, auth.ROLE_DRIVER, GUEST)
    with door.connect() as sock:
        for byte in handshake.hello:
            sock.send(bytes([byte]))
        rest = handshake.feed(receive(sock, handshake.needs)) + encode_frame(ATTACH)
        for byte in rest:
            assert not door.arrived
            sock.send(bytes([byte]))
        assert eventually(lambda: bool(door.arrived))


def test_a_wrong_token_is_refused(door: Door) -> None:
    with door.connect() as sock:
        with pytest.raises(auth.RefusedError):  # the node's proof is wrong to us, too
            prove(sock, b"another token")
        sock.sendall(bytes(auth.PROOF_BYTES) + encode_frame(ATTACH))
        assert is_turned_away(sock)
    assert not door.arrived


def test_half_a_handshake_leaves_nothing_behind(door: Door) -> None:
    hello = ClientHandshake(TOKEN, auth.ROLE_DRIVER, GUEST).hello
    for size in (0, 1, len(hello) - 1, len(hello)):
        with door.connect() as sock:
            sock.sendall(hello[:size])
            assert eventually(lambda: door.num_visitors() == 1)
        assert eventually(lambda: door.num_visitors() == 0)
    assert not door.arrived


def test_another_version_learns_why_it_is_refused(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = ClientHandshake(TOKEN, auth.ROLE_AGENT, GUEST)
    hello = theirs.hello.replace(auth.versions(), b"0.0.1/3.9".ljust(len(auth.versions()), b"\0"))
    with door.connect() as sock:
        sock.sendall(hello)
        answer = receive(sock, theirs.needs)
        assert is_turned_away(sock)
    monkeypatch.setattr(auth, "versions", lambda: b"0.0.1/3.9".ljust(24, b"\0"))
    with pytest.raises(auth.RefusedError, match=rf"here 0.0.1/3.9, there {auth.VERSION}/3"):
        theirs.feed(answer)
    assert not door.arrived


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a browser with a long name\r\n\r\n",
        bytes(200),
        b"\xff" * 200,
    ],
)
def test_garbage_is_turned_away(door: Door, garbage: bytes) -> None:
    with door.connect() as sock:
        sock.sendall(garbage)
        assert is_turned_away(sock)
    assert not door.arrived


@pytest.mark.parametrize(
    "first",
    [
        (1 << 30).to_bytes(4, "little"),
        bytes(4),
        b"\x05\0\0\0hello",
        encode_frame(m.ReturnLease(1)),
        encode_frame(m.KillActor(b"an actor", "no reason")),
        (1).to_bytes(4, "little") + msgspec.msgpack.encode(1),
    ],
    ids=["oversize", "empty", "garbage", "another message", "a command", "a number"],
)
def test_a_proven_peer_must_say_what_it_wants(door: Door, first: bytes) -> None:
    with door.connect() as sock:
        prove(sock, then=first)
        assert is_turned_away(sock)
    assert not door.arrived


def test_who_says_nothing_is_turned_away_in_time(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "_PROOF_TIMEOUT_S", 0.05)
    with door.connect() as silent, door.connect() as half:
        half.sendall(b"rdata")
        assert is_turned_away(silent)
        assert is_turned_away(half)


def test_a_thousand_strangers_do_not_keep_a_friend_out(door: Door) -> None:
    """They say nothing and stay, or half of what they should: who comes late gets through."""
    most = 0
    with contextlib.ExitStack() as strangers:
        for number in range(1000):
            stranger = strangers.enter_context(door.connect())
            with contextlib.suppress(BrokenPipeError):  # turned away already
                stranger.sendall(b"rdata"[: number % 5])
            most = max(most, door.num_visitors())
        with door.connect() as friend:
            prove(friend, then=encode_frame(ATTACH))
            assert eventually(lambda: bool(door.arrived))
    assert most <= listeners._MAX_UNPROVEN
    assert eventually(lambda: door.num_visitors() == 0)


def test_a_crowd_of_friends_gets_in(door: Door) -> None:
    with contextlib.ExitStack() as friends:
        socks = [friends.enter_context(door.connect()) for _ in range(400)]
        handshakes = [ClientHandshake(TOKEN, auth.ROLE_WORKER, GUEST) for _ in socks]
        for sock, handshake in zip(socks, handshakes, strict=True):
            sock.sendall(handshake.hello)
        for sock, handshake in zip(socks, handshakes, strict=True):
            welcome = receive(sock, handshake.needs)
            sock.sendall(handshake.feed(welcome) + encode_frame(ATTACH))
        assert eventually(lambda: len(door.arrived) == len(socks))


def test_a_node_out_of_descriptors_tries_again(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """A socket whose `accept` fails a few times for lack of descriptors."""

        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock
            self.num_failures = 0
            self.fileno, self.close = sock.fileno, sock.close

        def accept(self) -> tuple[socket.socket, object]:
            if self.num_failures < 3:
                self.num_failures += 1
                raise OSError(24, "Too many open files")
            return self._sock.accept()

    monkeypatch.setattr(listeners, "_GRACE_S", 0.01)
    assert door.listener is not None
    full = Full(door.listener._sock)
    door.listener._sock = full  # type: ignore[assignment]
    with door.connect() as friend:
        prove(friend, then=encode_frame(ATTACH))
        assert eventually(lambda: bool(door.arrived))
    assert full.num_failures == 3
