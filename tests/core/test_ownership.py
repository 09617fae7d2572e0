"""Does one process count right what it holds, and what others say that they hold?"""

from __future__ import annotations

import pytest

from rdata.core.ownership import (
    Command,
    FreeObject,
    Ownership,
    SendAck,
    SendBorrow,
    SendRelease,
    Settled,
)

MINE = b"myselfab" + bytes(12)
OTHER = b"theowner"
THEIRS, ALSO_THEIRS = OTHER + bytes(12), OTHER + bytes(11) + b"\x01"
BORROWER, ANOTHER = b"borrower", b"another1"


@pytest.fixture
def ownership() -> Ownership:
    return Ownership()


def take(ownership: Ownership) -> list[Command]:
    commands, ownership.commands[:] = ownership.commands[:], []
    return commands


# ---------------------------------------------------------------- as owner


def test_an_object_goes_with_its_last_holder_here(ownership: Ownership) -> None:
    ownership.create(MINE)
    ownership.hold(MINE)
    ownership.drop(MINE)
    assert take(ownership) == []
    assert ownership.owns(MINE)
    ownership.drop(MINE)
    assert take(ownership) == [FreeObject(MINE)]
    assert not ownership.owns(MINE)
    assert ownership.is_idle()


def test_an_object_lives_while_somebody_borrows_it(ownership: Ownership) -> None:
    ownership.create(MINE)
    ownership.borrowed_by(MINE, BORROWER, 1)
    ownership.borrowed_by(MINE, ANOTHER, 7)
    assert take(ownership) == [SendAck(BORROWER, MINE, 1), SendAck(ANOTHER, MINE, 7)]
    ownership.drop(MINE)
    ownership.released_by(MINE, BORROWER, 2)
    assert take(ownership) == []
    assert not ownership.is_idle()
    ownership.released_by(MINE, ANOTHER, 8)
    assert take(ownership) == [FreeObject(MINE)]


def test_what_others_hold_is_lent(ownership: Ownership) -> None:
    ownership.create(MINE)
    assert not ownership.is_lent()
    ownership.borrowed_by(MINE, BORROWER, 1)
    ownership.borrowed_by(MINE, ANOTHER, 1)
    ownership.released_by(MINE, BORROWER, 2)
    assert ownership.is_lent()
    ownership.process_gone(ANOTHER)
    assert not ownership.is_lent()


def test_a_borrow_that_comes_after_its_release_is_no_news(ownership: Ownership) -> None:
    ownership.create(MINE)
    ownership.borrowed_by(MINE, ANOTHER, 1)
    ownership.borrowed_by(MINE, BORROWER, 1)
    ownership.released_by(MINE, BORROWER, 4)
    ownership.borrowed_by(MINE, BORROWER, 3)  # late: the release that ended it was faster
    ownership.drop(MINE)
    ownership.released_by(MINE, ANOTHER, 2)
    assert take(ownership)[-1] == FreeObject(MINE)


def test_a_release_that_comes_after_the_next_borrow_ends_nothing(ownership: Ownership) -> None:
    ownership.create(MINE)
    ownership.borrowed_by(MINE, BORROWER, 1)
    ownership.borrowed_by(MINE, BORROWER, 3)
    ownership.released_by(MINE, BORROWER, 2)
    ownership.drop(MINE)
    assert ownership.owns(MINE)
    ownership.released_by(MINE, BORROWER, 4)
    assert not ownership.owns(MINE)


def test_a_message_that_comes_twice_does_no_harm(ownership: Ownership) -> None:
    ownership.create(MINE)
    for _ in range(2):
        ownership.borrowed_by(MINE, BORROWER, 1)
    ownership.drop(MINE)
    assert ownership.owns(MINE)
    for _ in range(2):
        ownership.released_by(MINE, BORROWER, 2)
    assert take(ownership).count(FreeObject(MINE)) == 1


def test_who_borrows_what_is_gone_is_answered_all_the_same(ownership: Ownership) -> None:
    """It waits for the answer, and finds out when it asks for the value."""
    ownership.borrowed_by(MINE, BORROWER, 1)
    assert take(ownership) == [SendAck(BORROWER, MINE, 1)]
    ownership.released_by(MINE, BORROWER, 2)
    assert take(ownership) == []


def test_a_borrowers_death_drops_its_holds(ownership: Ownership) -> None:
    ownership.create(MINE)
    ownership.borrowed_by(MINE, BORROWER, 1)
    ownership.drop(MINE)
    take(ownership)
    assert ownership.process_gone(BORROWER) == []
    assert take(ownership) == [FreeObject(MINE)]


# ---------------------------------------------------------------- as borrower


def test_nothing_is_said_of_a_hold_that_another_one_covers(ownership: Ownership) -> None:
    ownership.hold(THEIRS, "owner's address")
    ownership.hold(THEIRS)
    ownership.drop(THEIRS)
    assert take(ownership) == []
    ownership.drop(THEIRS)
    assert take(ownership) == [SendRelease("owner's address", THEIRS, 1, was_reported=False)]


def test_keep_waits_for_all_owners(ownership: Ownership) -> None:
    ownership.create(MINE)
    ownership.hold(THEIRS, "address")
    ownership.hold(ALSO_THEIRS, "address")
    assert not ownership.keep([MINE, THEIRS, ALSO_THEIRS], "ticket")
    first, second = take(ownership)
    assert first == SendBorrow("address", THEIRS, 1)
    assert second == SendBorrow("address", ALSO_THEIRS, 2)
    ownership.borrow_acknowledged(ALSO_THEIRS, 2)
    assert take(ownership) == []
    ownership.borrow_acknowledged(THEIRS, 1)
    assert take(ownership) == [Settled("ticket")]
    assert ownership.keep([THEIRS, ALSO_THEIRS], "another")


def test_the_owner_is_told_once_however_many_wait(ownership: Ownership) -> None:
    ownership.hold(THEIRS, "address")
    ownership.keep([THEIRS, THEIRS], "twice the same")
    ownership.keep([THEIRS], "another")
    assert take(ownership) == [SendBorrow("address", THEIRS, 1)]
    ownership.borrow_acknowledged(THEIRS, 1)
    assert take(ownership) == [Settled("twice the same"), Settled("another")]


def test_what_nobody_owns_needs_no_waiting(ownership: Ownership) -> None:
    ownership.hold(THEIRS)  # a detached actor
    assert ownership.keep([THEIRS], "ticket")
    ownership.drop(THEIRS)
    assert ownership.commands == [SendRelease("", THEIRS, 1, was_reported=False)]


def test_what_is_not_held_needs_no_waiting(ownership: Ownership) -> None:
    ownership.create(MINE)
    assert ownership.keep([], "ticket")
    assert ownership.keep([MINE, THEIRS], "ticket")
    assert take(ownership) == []


def test_an_acknowledgement_of_an_ended_hold_says_nothing_of_the_next(
    ownership: Ownership,
) -> None:
    ownership.hold(THEIRS, "address")
    ownership.keep([THEIRS], "first")
    ownership.drop(THEIRS)
    assert take(ownership)[1:] == [
        Settled("first"),  # nothing is left to be kept
        SendRelease("address", THEIRS, 2, was_reported=True),
    ]
    ownership.hold(THEIRS, "address")
    ownership.keep([THEIRS], "second")
    assert take(ownership) == [SendBorrow("address", THEIRS, 3)]
    ownership.borrow_acknowledged(THEIRS, 1)
    assert take(ownership) == []
    ownership.borrow_acknowledged(THEIRS, 3)
    assert take(ownership) == [Settled("second")]


def test_an_owners_death_ends_the_waiting_and_the_talking(ownership: Ownership) -> None:
    ownership.hold(THEIRS, "address")
    ownership.hold(THEIRS)
    ownership.keep([THEIRS], "ticket")
    take(ownership)
    assert ownership.process_gone(OTHER) == [THEIRS]
    assert take(ownership) == [Settled("ticket")]
    assert ownership.keep([THEIRS], "another")
    ownership.drop(THEIRS)
    assert take(ownership) == []
    ownership.drop(THEIRS)  # the process around forgets it, and tells nobody
    assert take(ownership) == [SendRelease("address", THEIRS, 2, was_reported=False)]
