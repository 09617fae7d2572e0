"""Who may talk? Both ends prove that they know the cluster's token before anything is decoded.

    client                                        server
      │ Hello    magic, versions, role, id, nonce    │
      ├─────────────────────────────────────────────►│
      │ Welcome  magic, versions, id, nonce, proof   │
      │◄─────────────────────────────────────────────┤
      │ Proof    proof                               │
      ├─────────────────────────────────────────────►│  frames may follow

Every part has a fixed size. A proof is an HMAC-SHA256 over both nonces and all that both sides
said, so it serves for this connection only: a replayed handshake meets another nonce.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sys

MAGIC = b"rdata\x00"
VERSION = "0.1.0"
NONCE_BYTES = 16
PROOF_BYTES = 32
ID_BYTES = 8
_VERSION_BYTES = 24
HELLO_BYTES = len(MAGIC) + _VERSION_BYTES + 1 + ID_BYTES + NONCE_BYTES
WELCOME_BYTES = len(MAGIC) + _VERSION_BYTES + ID_BYTES + NONCE_BYTES + PROOF_BYTES

ROLE_DRIVER, ROLE_WORKER, ROLE_AGENT = b"D", b"W", b"A"


class RefusedError(Exception):
    """The other side is not of this cluster, or not of this version.

    `answer` is what to send it before closing, so that it can say what is wrong as well.
    """

    def __init__(self, reason: str, answer: bytes = b"") -> None:
        super().__init__(reason)
        self.answer = answer


def versions() -> bytes:
    """What must be equal on both sides: rdata's version and Python's minor."""
    text = f"{VERSION}/{sys.version_info[0]}.{sys.version_info[1]}"
    return text.encode().ljust(_VERSION_BYTES, b"\0")


class ClientHandshake:
    """The connecting side. `hello` goes out first; `welcome` turns the answer into the proof."""

    needs = WELCOME_BYTES

    def __init__(self, token: bytes, role: bytes, process_id: bytes) -> None:
        self._token = token
        self.hello = MAGIC + versions() + role + process_id + os.urandom(NONCE_BYTES)

    def feed(self, welcome: bytes) -> bytes:
        """The proof to send; raises RefusedError."""
        _check_versions(welcome)
        said, proof = welcome[:-PROOF_BYTES], welcome[-PROOF_BYTES:]
        if not hmac.compare_digest(proof, _proof(self._token, b"server", self.hello, said)):
            raise RefusedError("the token is not that of its cluster")
        return _proof(self._token, b"client", self.hello, said)


class ServerHandshake:
    """The accepting side: feed it HELLO_BYTES, send the answer, feed it PROOF_BYTES."""

    def __init__(self, token: bytes, node_id: bytes) -> None:
        self._token = token
        self._node_id = node_id
        self._hello = b""
        self._said = b""
        self.needs = HELLO_BYTES
        self.is_proven = False

    @property
    def peer_id(self) -> bytes:
        """The process id that the client gave (proven once the handshake is)."""
        return self._hello[-NONCE_BYTES - ID_BYTES : -NONCE_BYTES]

    @property
    def peer_role(self) -> bytes:
        """One of the ROLE_ bytes."""
        start = len(MAGIC) + _VERSION_BYTES
        return self._hello[start : start + 1]

    def feed(self, data: bytes) -> bytes:
        """The bytes to answer with; raises RefusedError."""
        if not self._hello:
            self._said = MAGIC + versions() + self._node_id + os.urandom(NONCE_BYTES)
            try:
                _check_versions(data)
            except RefusedError as error:
                is_rdata = data[: len(MAGIC)] == MAGIC
                answer = self._said + bytes(PROOF_BYTES) if is_rdata else b""
                raise RefusedError(str(error), answer) from None
            self._hello = data
            self.needs = PROOF_BYTES
            return self._said + _proof(self._token, b"server", data, self._said)
        if not hmac.compare_digest(data, _proof(self._token, b"client", self._hello, self._said)):
            raise RefusedError("wrong token")
        self.is_proven = True
        self.needs = 0
        return b""


def _proof(token: bytes, side: bytes, hello: bytes, said: bytes) -> bytes:
    return hmac.digest(token, side + hello + said, hashlib.sha256)


def _check_versions(data: bytes) -> None:
    if data[: len(MAGIC)] != MAGIC:
        raise RefusedError("this is not an rdata port")
    theirs = data[len(MAGIC) : len(MAGIC) + _VERSION_BYTES]
    if theirs != versions():
        shown = theirs.rstrip(b"\0").decode("ascii", "replace")
        mine = versions().rstrip(b"\0").decode()
        raise RefusedError(f"versions differ (rdata/Python): here {mine}, there {shown}")
