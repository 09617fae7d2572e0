"""Does nobody get in who does not know the token, and nobody pass for a node who does not?"""

from __future__ import annotations

import pytest

from rdata.core.wire import auth
from rdata.core.wire.auth import ClientHandshake, RefusedError, ServerHandshake

TOKEN = b"the cluster's token"
CLIENT_ID, NODE_ID = b"client__", b"the_node"


def client(token: bytes = TOKEN) -> ClientHandshake:
    return ClientHandshake(token, auth.ROLE_DRIVER, CLIENT_ID)


def server(token: bytes = TOKEN) -> ServerHandshake:
    return ServerHandshake(token, NODE_ID)


def changed(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def test_both_sides_prove_themselves() -> None:
    here, there = client(), server()
    assert there.needs == len(here.hello) == auth.HELLO_BYTES
    welcome = there.feed(here.hello)
    assert here.needs == len(welcome) == auth.WELCOME_BYTES
    proof = here.feed(welcome)
    assert there.needs == len(proof) == auth.PROOF_BYTES
    assert not there.is_proven
    assert there.feed(proof) == b""
    assert there.is_proven
    assert there.peer_id == CLIENT_ID
    assert there.peer_role == auth.ROLE_DRIVER


def test_a_node_without_the_token_is_not_believed() -> None:
    here = client()
    welcome = server(b"another").feed(here.hello)
    with pytest.raises(RefusedError, match="not that of its cluster"):
        here.feed(welcome)


def test_a_client_without_the_token_is_refused() -> None:
    class Gullible(ClientHandshake):
        def feed(self, welcome: bytes) -> bytes:
            said = welcome[: -auth.PROOF_BYTES]
            return auth._proof(self._token, b"client", self.hello, said)

    there = server()
    here = Gullible(b"another", auth.ROLE_DRIVER, CLIENT_ID)
    with pytest.raises(RefusedError, match="wrong token"):
        there.feed(here.feed(there.feed(here.hello)))
    assert not there.is_proven


def test_a_replayed_handshake_meets_another_nonce() -> None:
    here, there = client(), server()
    proof = here.feed(there.feed(here.hello))
    there.feed(proof)
    again = server()
    again.feed(here.hello)
    with pytest.raises(RefusedError, match="wrong token"):
        again.feed(proof)


def test_a_replayed_welcome_meets_another_nonce() -> None:
    first, second, there = client(), client(), server()
    welcome = there.feed(first.hello)
    with pytest.raises(RefusedError):
        second.feed(welcome)


def test_a_proof_cannot_be_sent_back_to_who_made_it() -> None:
    here, there = client(), server()
    welcome = there.feed(here.hello)
    with pytest.raises(RefusedError):
        there.feed(welcome[-auth.PROOF_BYTES :])


def test_every_byte_counts() -> None:
    for position in range(auth.HELLO_BYTES):
        here, there = client(), server()
        with pytest.raises(RefusedError):
            there.feed(here.feed(there.feed(changed(here.hello, position))))
    for position in range(auth.WELCOME_BYTES):
        here, there = client(), server()
        with pytest.raises(RefusedError):
            here.feed(changed(there.feed(here.hello), position))
    for position in range(auth.PROOF_BYTES):
        here, there = client(), server()
        proof = here.feed(there.feed(here.hello))
        with pytest.raises(RefusedError):
            there.feed(changed(proof, position))


def test_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    here = client()
    mine = auth.versions().rstrip(b"\0").decode()
    monkeypatch.setattr(auth, "VERSION", "9.9.9")
    with pytest.raises(RefusedError, match=rf"here 9\.9\.9/.*there {mine}"):
        server().feed(here.hello)


def test_other_programs_are_told_apart() -> None:
    with pytest.raises(RefusedError, match="not an rdata port"):
        server().feed(b"GET / HTTP/1.1\r\n".ljust(auth.HELLO_BYTES))
    with pytest.raises(RefusedError, match="not an rdata port"):
        client().feed(b"SSH-2.0-OpenSSH\r\n".ljust(auth.WELCOME_BYTES))
