"""Does a journal give back what was written, to one head at a time?"""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from rdata.core.agent.journal import Journal, journal_token
from rdata.core.head import ActorEntry
from rdata.core.messages import CreateActor
from rdata.exceptions import NodeStartError

TOKEN = b"the token of a cluster"


def entry(number: int, worker: bytes = b"") -> ActorEntry:
    actor = bytes([number]) * 16
    request = CreateActor(number, actor, b"owner___", "owner@x", "näme", "ns", True, b"\0\xff")
    return ActorEntry(request, worker, "worker@tcp:host:1" if worker else "", bool(worker))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    assert journal_token(path) is None
    journal = Journal(path)
    assert (journal.token(), journal.actors()) == (None, [])
    journal.set_token(TOKEN)
    first, second, third = entry(1), entry(2, b"worker"), entry(3)
    journal.write({each.request.actor: each for each in (first, second, third)})
    second.is_started = True
    journal.write({second.request.actor: second, third.request.actor: None})
    journal.close()
    assert journal_token(path) == TOKEN
    again = Journal(path)
    assert (again.token(), again.actors()) == (TOKEN, [first, second])
    again.close()


def test_only_its_user_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path))
    journal.set_token(TOKEN)
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}
    journal.close()


def test_one_head_at_a_time(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    journal = Journal(path)
    with pytest.raises(NodeStartError, match="a head that runs has it"):
        Journal(path)
    journal.close()
    Journal(path).close()


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_what_is_no_journal_is_said(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "journal"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(NodeStartError, match="cannot open the journal"):
        Journal(str(path))
