"""What must a head know that is started anew, after it was killed?

One SQLite file: the cluster's token, and the actors that the directory had. It is written before
anybody is told, and survives the process, if not always the machine (no write waits for the disk).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import msgspec

from rdata.core.head import ActorEntry
from rdata.core.messages import CreateActor
from rdata.errors import NodeStartError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cluster (token BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS actors (
    actor BLOB PRIMARY KEY, request BLOB NOT NULL, worker BLOB NOT NULL, address TEXT NOT NULL,
    is_started INTEGER NOT NULL
);
"""


class Journal:
    """A head's journal, which this process alone has open. Raises NodeStartError, at first."""

    def __init__(self, path: str) -> None:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # it has a token
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            why = str(error)
            if "locked" in why:
                why = "a head that runs has it"
            raise NodeStartError(f"cannot open the journal {path}: {why}") from error

    def token(self) -> bytes | None:
        """The cluster's token; None in a new journal."""
        row = self._database.execute("SELECT token FROM cluster").fetchone()
        return None if row is None else bytes(row[0])

    def set_token(self, token: bytes) -> None:
        """This is the journal of the cluster with that token."""
        self._database.execute("DELETE FROM cluster")
        self._database.execute("INSERT INTO cluster VALUES (?)", (token,))

    def actors(self) -> list[ActorEntry]:
        """The actors that there were."""
        rows = self._database.execute("SELECT request, worker, address, is_started FROM actors")
        return [
            ActorEntry(
                msgspec.msgpack.decode(request, type=CreateActor), worker, address, bool(started)
            )
            for request, worker, address, started in rows
        ]

    def write(self, changes: Mapping[bytes, ActorEntry | None]) -> None:
        """Note what actors are like now; None: it has ended. Raises OSError."""
        ended = [(actor,) for actor, entry in changes.items() if entry is None]
        others = [
            (
                actor,
                msgspec.msgpack.encode(entry.request),
                entry.worker,
                entry.address,
                entry.is_started,
            )
            for actor, entry in changes.items()
            if entry is not None
        ]
        try:
            with self._database:  # one transaction
                self._database.execute("BEGIN")
                self._database.executemany("DELETE FROM actors WHERE actor = ?", ended)
                self._database.executemany(
                    "INSERT OR REPLACE INTO actors VALUES (?, ?, ?, ?, ?)", others
                )
        except sqlite3.Error as error:
            raise OSError(str(error)) from error

    def close(self) -> None:
        """Let another head have it."""
        self._database.close()


def journal_token(path: str) -> bytes | None:
    """The token of the cluster whose journal that is; None if there is none yet."""
    if not Path(path).exists():
        return None
    journal = Journal(path)
    try:
        return journal.token()
    finally:
        journal.close()
