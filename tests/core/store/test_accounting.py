"""Does the store's account recycle, protect and report what it should, case by case?"""

from __future__ import annotations

import pytest

from rdata.core.store.accounting import (
    LARGE_BYTES,
    SLAB_BYTES,
    DropSegment,
    Placement,
    PunchRange,
    StoreAccount,
)
from rdata.core.store.pages import PAGE_BYTES
from rdata.errors import ObjectStoreFullError

MIB = 1 << 20
DRIVER, WORKER, OTHER = b"driver__", b"worker__", b"other___"


def an_id(number: int, owner: bytes = DRIVER) -> bytes:
    return owner + number.to_bytes(12, "little")


def an_account(quota: int = 100 * MIB, idle: int = 100 * MIB) -> StoreAccount:
    return StoreAccount(quota, idle, idle_s=10.0)


def put(
    account: StoreAccount, number: int, size: int, process: bytes = WORKER, now: float = 0.0
) -> Placement:
    placement = account.create(an_id(number), size, process, now)
    assert placement is not None
    account.seal(an_id(number), process)
    return placement


class TestPlaces:
    def test_a_large_object_has_a_segment_of_its_own(self) -> None:
        account = an_account()
        first, second = put(account, 1, LARGE_BYTES + 1), put(account, 2, LARGE_BYTES)
        assert first.segment != second.segment
        assert first.is_new
        assert (first.offset, first.capacity) == (0, LARGE_BYTES + PAGE_BYTES)
        assert account.used_bytes == 2 * LARGE_BYTES + PAGE_BYTES

    def test_small_objects_share_a_slab_on_pages_of_their_own(self) -> None:
        account = an_account()
        places = [put(account, number, PAGE_BYTES + 1) for number in range(3)]
        assert [place.is_new for place in places] == [True, False, False]
        assert [place.offset for place in places] == [0, 2 * PAGE_BYTES, 4 * PAGE_BYTES]
        assert {place.capacity for place in places} == {SLAB_BYTES}
        assert account.used_bytes == 6 * PAGE_BYTES, "a slab's untouched pages hold no memory"

    def test_an_empty_object_has_a_place(self) -> None:
        account = an_account()
        assert put(account, 1, 0).offset != put(account, 2, 0).offset

    def test_slabs_smaller_than_the_quota_are_not_needed(self) -> None:
        assert put(an_account(quota=MIB), 1, MIB // 2).is_new

    def test_an_object_is_found_once_it_is_sealed(self) -> None:
        account = an_account()
        created = account.create(an_id(1), 5 * MIB, WORKER, 0.0)
        assert account.open(an_id(1), DRIVER) is None
        account.seal(an_id(1), OTHER)  # a late message of another attempt
        assert account.open(an_id(1), DRIVER) is None
        account.seal(an_id(1), WORKER)
        opened = account.open(an_id(1), DRIVER)
        assert created is not None
        assert opened is not None
        assert (opened.segment, opened.offset, opened.size) == (created.segment, 0, 5 * MIB)
        assert not opened.is_new
        assert account.open(an_id(2), DRIVER) is None


class TestRecycling:
    def test_a_freed_segment_is_reused_by_best_fit(self) -> None:
        account = an_account()
        sizes = {
            put(account, number, size * MIB).segment: size for number, size in enumerate((9, 6, 7))
        }
        for number in range(3):
            account.free(an_id(number))
        assert account.idle_bytes == 22 * MIB
        again = put(account, 9, 6 * MIB - 1)
        assert not again.is_new
        assert again.is_resident
        assert sizes[again.segment] == 6
        assert (account.used_bytes, account.idle_bytes) == (6 * MIB, 16 * MIB)

    def test_a_segment_that_is_much_too_large_is_not_reused(self) -> None:
        account = an_account()
        put(account, 1, 20 * MIB)
        account.free(an_id(1))
        assert put(account, 2, 13 * MIB).is_new

    def test_a_segment_that_the_writer_has_mapped_goes_first(self) -> None:
        account = an_account()
        mine = put(account, 1, 7 * MIB, WORKER)
        put(account, 2, 6 * MIB, OTHER)
        account.free(an_id(1))
        account.free(an_id(2))
        assert put(account, 3, 6 * MIB, WORKER).segment == mine.segment

    def test_the_tail_of_a_recycled_segment_is_idle_and_can_be_reclaimed(self) -> None:
        account = an_account(quota=20 * MIB)
        place = put(account, 1, 12 * MIB)
        account.free(an_id(1))
        assert put(account, 2, 9 * MIB).segment == place.segment
        assert (account.used_bytes, account.idle_bytes) == (9 * MIB, 3 * MIB)
        put(account, 3, 11 * MIB)
        assert account.take_commands() == [PunchRange(place.segment, 9 * MIB, 3 * MIB)]
        assert (account.used_bytes, account.idle_bytes) == (20 * MIB, 0)

    def test_a_segment_whose_tail_was_punched_serves_what_fits_into_the_rest(self) -> None:
        account = an_account(quota=20 * MIB)
        place = put(account, 1, 12 * MIB)
        account.free(an_id(1))
        put(account, 2, 9 * MIB)
        put(account, 3, 11 * MIB)  # takes the tail
        account.free(an_id(2))
        assert put(account, 4, 9 * MIB).segment == place.segment
        account.free(an_id(4))
        account.free(an_id(3))
        assert put(account, 5, 12 * MIB).is_new

    def test_idle_memory_makes_room_for_a_new_object(self) -> None:
        account = an_account(quota=20 * MIB)
        first, second = put(account, 1, 8 * MIB), put(account, 2, 8 * MIB)
        account.free(an_id(2))
        account.free(an_id(1))
        put(account, 3, 5 * MIB)
        assert account.take_commands() == [
            DropSegment(second.segment, 8 * MIB, False, frozenset({WORKER}))
        ], "the segment that was idle for longest goes, and no more than needed"
        assert account.idle_bytes == 8 * MIB
        assert first.segment != second.segment

    def test_the_idle_pool_is_bounded(self) -> None:
        account = an_account(idle=10 * MIB)
        for number, size in enumerate((6, 4, 5)):
            put(account, number, size * MIB)
        for number in range(3):
            account.free(an_id(number))
        assert account.idle_bytes == 9 * MIB
        put(account, 7, 11 * MIB)
        account.free(an_id(7))
        assert account.idle_bytes == 9 * MIB, "what exceeds the pool alone does not empty it"

    def test_the_idle_pool_shrinks_to_what_is_used_one_after_the_other(self) -> None:
        account = an_account()
        for number in range(3):
            put(account, number, 5 * MIB)
        for number in range(3):
            account.free(an_id(number))
        for second in range(12):
            put(account, 10 + second, 5 * MIB, now=float(second))
            account.free(an_id(10 + second))
            account.expire(float(second))
        assert account.idle_bytes == 5 * MIB
        assert account.num_segments == 1

    def test_the_idle_pool_shrinks_by_age(self) -> None:
        account = an_account()
        put(account, 1, 5 * MIB, now=0.0)
        put(account, 2, 6 * MIB, now=0.0)
        account.free(an_id(1))
        account.expire(6.0)
        account.free(an_id(2))
        account.expire(9.9)
        assert account.idle_bytes == 11 * MIB
        account.expire(10.0)
        assert account.idle_bytes == 6 * MIB
        account.expire(16.0)
        assert (account.idle_bytes, account.num_segments) == (0, 0)

    def test_free_slots_are_reused_while_warm_and_punched_when_old(self) -> None:
        account = an_account()
        places = [put(account, number, MIB) for number in range(3)]
        account.free(an_id(1))
        assert (account.used_bytes, account.idle_bytes) == (2 * MIB, MIB)
        again = put(account, 4, MIB)
        assert (again.offset, again.is_resident) == (places[1].offset, True)
        account.free(an_id(4))
        account.expire(10.0)
        assert account.take_commands() == [PunchRange(places[0].segment, MIB, MIB)]
        assert account.idle_bytes == 0
        assert not put(account, 5, MIB, now=10.0).is_resident

    def test_an_empty_slab_is_kept_warm_and_then_dropped(self) -> None:
        account = an_account()
        slab = put(account, 1, MIB).segment
        account.free(an_id(1))
        assert account.take_commands() == []
        assert put(account, 2, MIB).segment == slab
        account.free(an_id(2))
        account.expire(10.0)
        [command] = account.take_commands()
        assert isinstance(command, DropSegment)
        assert command.segment == slab


class TestProtection:
    def test_a_pinned_object_outlives_its_owners_interest(self) -> None:
        account = an_account()
        place = put(account, 1, 5 * MIB)
        account.open(an_id(1), WORKER)
        account.open(an_id(1), WORKER)
        account.free(an_id(1))
        account.unpin(an_id(1), WORKER)
        assert account.used_bytes == 5 * MIB
        assert account.open(an_id(1), OTHER) is None, "its owner has let go"
        assert put(account, 2, 5 * MIB).segment != place.segment
        account.unpin(an_id(1), WORKER)
        assert account.idle_bytes == 5 * MIB

    def test_an_object_freed_while_it_is_written_waits_for_its_writer(self) -> None:
        account = an_account()
        account.create(an_id(1), 5 * MIB, WORKER, 0.0)
        account.free(an_id(1))
        assert account.used_bytes == 5 * MIB
        account.seal(an_id(1), WORKER)
        assert (account.used_bytes, account.idle_bytes) == (0, 5 * MIB)

    def test_what_was_not_written_to_the_end_is_not_kept_as_warm(self) -> None:
        account = an_account()
        account.create(an_id(1), 5 * MIB, WORKER, 0.0)
        account.create(an_id(2), MIB, WORKER, 0.0)
        account.abandon(an_id(1), OTHER)  # not its writer
        assert account.used_bytes == 6 * MIB
        account.abandon(an_id(1), WORKER)
        account.process_gone(WORKER)
        assert (account.used_bytes, account.idle_bytes, account.num_segments) == (0, 0, 0)

    def test_a_retried_task_replaces_its_result(self) -> None:
        account = an_account()
        old = put(account, 1, 5 * MIB)
        account.open(an_id(1), DRIVER)
        new = account.create(an_id(1), 5 * MIB, OTHER, 0.0)
        assert new is not None
        assert new.segment != old.segment, "the driver still reads the old one"
        account.seal(an_id(1), OTHER)
        account.unpin(an_id(1), DRIVER)
        assert (account.used_bytes, account.idle_bytes) == (5 * MIB, 5 * MIB)
        assert account.num_objects == 1

    def test_two_attempts_at_one_object_do_not_seal_each_other(self) -> None:
        account = an_account()
        account.create(an_id(1), 5 * MIB, WORKER, 0.0)
        account.create(an_id(1), 5 * MIB, OTHER, 0.0)
        account.seal(an_id(1), WORKER)
        assert account.open(an_id(1), DRIVER) is None
        assert (account.used_bytes, account.idle_bytes) == (5 * MIB, 5 * MIB)

    def test_a_second_attempt_in_the_same_process_ends_the_first(self) -> None:
        account = an_account(quota=6 * MIB)
        account.create(an_id(1), 5 * MIB, WORKER, 0.0)
        assert account.create(an_id(1), 5 * MIB, WORKER, 0.0) is not None

    def test_pins_on_an_object_and_on_its_successor_fall_together(self) -> None:
        account = an_account()
        put(account, 1, 5 * MIB)
        account.open(an_id(1), DRIVER)
        put(account, 1, 6 * MIB)
        account.open(an_id(1), DRIVER)
        account.free(an_id(1))
        account.unpin(an_id(1), DRIVER)
        assert account.used_bytes == 11 * MIB, "which of the two was let go is not known"
        account.unpin(an_id(1), DRIVER)
        assert account.used_bytes == 0

    @pytest.mark.parametrize("is_dead", [False, True], ids=["forked", "died"])
    def test_memory_that_a_fork_may_read_is_dropped_not_reused(self, is_dead: bool) -> None:
        account = an_account()
        place = put(account, 1, 5 * MIB, WORKER)
        account.open(an_id(1), OTHER)
        if is_dead:
            account.process_gone(OTHER)
        else:
            account.unpin(an_id(1), OTHER, is_tainted=True)
        assert account.open(an_id(1), DRIVER) is not None, "reading on is fine"
        account.unpin(an_id(1), DRIVER)
        account.free(an_id(1))
        assert account.take_commands() == [
            DropSegment(place.segment, 5 * MIB, True, frozenset({WORKER}))
        ]
        assert (account.used_bytes, account.idle_bytes) == (0, 0)

    def test_a_fork_that_read_an_object_does_not_taint_its_successor(self) -> None:
        account = an_account()
        put(account, 1, 5 * MIB)
        account.open(an_id(1), OTHER)
        put(account, 1, 6 * MIB)
        account.unpin(an_id(1), OTHER, is_tainted=True)
        account.free(an_id(1))
        assert account.idle_bytes == 6 * MIB

    def test_a_slab_that_a_fork_may_read_takes_nothing_new_and_is_dropped_when_empty(self) -> None:
        account = an_account()
        slab = put(account, 1, MIB).segment
        put(account, 2, MIB)
        account.open(an_id(1), OTHER)
        account.unpin(an_id(1), OTHER, is_tainted=True)
        account.free(an_id(1))
        assert account.used_bytes == 2 * MIB, "that slot's memory cannot come back alone"
        assert put(account, 3, MIB).segment != slab
        account.free(an_id(2))
        assert account.take_commands() == [DropSegment(slab, SLAB_BYTES, True, frozenset({WORKER}))]
        assert account.used_bytes == MIB

    def test_an_owners_death_frees_its_objects_for_all_but_their_readers(self) -> None:
        account = an_account()
        put(account, 1, 5 * MIB)
        put(account, 2, 5 * MIB)
        account.open(an_id(2), WORKER)
        account.process_gone(DRIVER)
        assert (account.used_bytes, account.num_objects) == (5 * MIB, 0)
        account.unpin(an_id(2), WORKER)
        assert (account.used_bytes, account.idle_bytes) == (0, 10 * MIB)

    def test_messages_about_what_is_gone_are_ignored(self) -> None:
        account = an_account()
        put(account, 1, 5 * MIB)
        account.open(an_id(1), OTHER)
        account.process_gone(OTHER)
        account.unpin(an_id(1), OTHER)
        account.unpin(an_id(2), DRIVER)
        account.free(an_id(2))
        account.seal(an_id(2), WORKER)
        assert account.used_bytes == 5 * MIB

    def test_a_pin_that_was_taken_back_twice_leaves_later_ones_alone(self) -> None:
        account = an_account()
        put(account, 1, 5 * MIB)
        account.open(an_id(1), OTHER)
        account.unpin(an_id(1), OTHER)
        account.unpin(an_id(1), OTHER)
        account.open(an_id(1), OTHER)
        account.free(an_id(1))
        assert account.used_bytes == 5 * MIB
        account.unpin(an_id(1), OTHER)
        assert account.used_bytes == 0


class TestFull:
    def test_an_object_waits_for_room(self) -> None:
        account = an_account(quota=10 * MIB)
        put(account, 1, 6 * MIB)
        assert account.create(an_id(2), 5 * MIB, WORKER, 0.0) is None
        assert account.num_objects == 1
        account.free(an_id(1))
        assert account.create(an_id(2), 5 * MIB, WORKER, 0.0) is not None

    def test_an_object_larger_than_the_store_is_an_error_at_once(self) -> None:
        with pytest.raises(ObjectStoreFullError, match=r"of 11 MiB is larger .* \(10 MiB\)"):
            an_account(quota=10 * MIB).create(an_id(1), 11 * MIB, WORKER, 0.0)

    def test_the_error_names_sizes_and_the_largest_holders(self) -> None:
        account = an_account(quota=10 * MIB)
        for number in range(4):
            put(account, number, (number + 1) * MIB // 2)
        account.create(an_id(9), 5 * MIB, WORKER, 0.0)
        account.open(an_id(3), OTHER)
        account.free(an_id(3))
        error = account.full_error(an_id(8), 2 * MIB, {WORKER: "clean() (pid 7)", DRIVER: "driver"})
        message = str(error)
        assert "of 2 MiB found no room" in message
        assert "10 MiB of 10 MiB are in use by 5 objects" in message
        assert (
            f"5 MiB {an_id(9).hex()} (owned by driver, being written by clean() (pid 7));"
            in message
        )
        assert f"2 MiB {an_id(3).hex()} (let go by driver, mapped by {OTHER.hex()});" in message
        assert an_id(0).hex() not in message, "only the largest are named"
