"""Does the store stay within its quota, and say so where it cannot?"""

from __future__ import annotations

import gc
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import rdata
from rdata.exceptions import ObjectStoreFullError
from tests.eventually import eventually

MB = 1_000_000
QUOTA = 50 * MB


@pytest.fixture
def small_store() -> Iterator[None]:
    """A node whose store holds 50 MB, and which waits long for room."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RDATA_STORE_WAIT_S", "20")
        rdata.init(num_cpus=2, object_store_memory=QUOTA)
        yield
        rdata.shutdown()


@pytest.fixture
def impatient_store() -> Iterator[None]:
    """One that waits a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RDATA_STORE_WAIT_S", "1")
        rdata.init(num_cpus=1, object_store_memory=QUOTA)
        yield
        rdata.shutdown()


def block(megabytes: int) -> np.ndarray[Any, Any]:
    return np.ones(megabytes * MB, dtype=np.uint8)


def used_bytes() -> int:
    used: int = rdata.nodes()[0]["ObjectStoreUsedBytes"]
    return used


class Background:
    """Something that runs on a thread until it is done."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.result: Any = None
        self.is_done = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self.result = call()
        except Exception as error:
            self.result = error
        self.is_done.set()

    def wait(self) -> Any:
        assert self.is_done.wait(30)
        self._thread.join()
        return self.result


@pytest.mark.usefixtures("impatient_store")
class TestOneThatWaitsBriefly:
    def test_an_object_larger_than_the_store(self) -> None:
        for call in (
            lambda: rdata.put(block(60)),
            lambda: rdata.get(rdata.remote(lambda: block(60)).remote()),
        ):
            with pytest.raises(ObjectStoreFullError) as raised:
                call()
            assert re.search(
                r"object \w+ of 57\.\d+ MiB .* store \(47\.\d+ MiB\)", str(raised.value)
            )
            assert "object_store_memory" in str(raised.value)
        assert rdata.get(rdata.put(block(10))).size == 10 * MB

    def test_a_full_store_says_what_fills_it(self) -> None:
        kept = [rdata.put(block(15)) for _ in range(3)]
        started = time.monotonic()
        with pytest.raises(ObjectStoreFullError) as raised:
            rdata.put(block(10))
        assert time.monotonic() - started >= 0.9
        text = str(raised.value)
        for word in ("10", "45", "15"):  # what was asked for, what is in use, the largest
            assert word in text or str(round(int(word) / 1.048576, 1)) in text
        del kept[0]
        assert rdata.get(rdata.put(block(10))).size == 10 * MB

    def test_a_full_store_fails_the_task_that_fills_it(self) -> None:
        kept = [rdata.put(block(15)) for _ in range(3)]
        with pytest.raises(ObjectStoreFullError):
            rdata.get(rdata.remote(lambda: block(10)).remote())
        with pytest.raises(ObjectStoreFullError):
            rdata.remote(len).remote(block(10))  # the argument has to go to the store
        assert rdata.get(rdata.remote(lambda array: array.size).remote(kept[0])) == 15 * MB


class TestOneThatWaitsLong:
    @pytest.fixture(autouse=True)
    def _memory_is_freed(self, small_store: None) -> Iterator[None]:
        yield
        gc.collect()
        assert eventually(lambda: used_bytes() == 0)

    def test_a_put_waits_until_another_thread_frees(self) -> None:
        kept = [rdata.put(block(15)) for _ in range(3)]
        waiting = Background(lambda: rdata.put(block(15)))
        assert not waiting.is_done.wait(0.3)
        kept.pop()
        gc.collect()
        rdata.get(rdata.put(1))  # an idle program notices what it dropped with its next call
        assert rdata.get(waiting.wait()).sum() == 15 * MB
        assert used_bytes() <= QUOTA

    def test_a_put_waits_until_a_reader_lets_go(self) -> None:
        kept = [rdata.put(block(15)) for _ in range(3)]
        view = rdata.get(kept[0])
        waiting = Background(lambda: rdata.put(block(15)))
        del kept[0]
        assert not waiting.is_done.wait(0.3)  # freed, and still looked at
        assert view.sum() == 15 * MB
        del view
        gc.collect()
        rdata.get(rdata.put(1))
        assert rdata.get(waiting.wait()).sum() == 15 * MB

    def test_an_idle_program_frees_too(self) -> None:
        kept = [rdata.put(block(15)) for _ in range(3)]
        made = rdata.remote(lambda: block(15)).remote()
        ready, _ = rdata.wait([made], timeout=0.3)
        assert not ready
        kept.clear()
        ready, _ = rdata.wait([made], timeout=20)
        assert ready == [made]

    def test_those_who_wait_are_served_in_turn(self) -> None:
        kept = [rdata.put(block(15)) for _ in range(3)]
        many = [Background(lambda: rdata.get(rdata.put(block(20))).size) for _ in range(4)]
        time.sleep(0.2)
        assert not any(each.is_done.is_set() for each in many)
        kept.clear()
        gc.collect()
        rdata.get(rdata.put(1))
        assert [each.wait() for each in many] == [20 * MB] * 4

    def test_more_passes_through_than_fits(self) -> None:
        add_up = rdata.remote(lambda array: int(array.sum()))
        for _ in range(30):
            assert rdata.get(add_up.remote(rdata.put(block(12)))) == 12 * MB
            assert used_bytes() <= QUOTA

    def test_more_tasks_return_than_fits(self) -> None:
        refs = [rdata.remote(lambda: block(12)).remote() for _ in range(12)]
        sizes = []
        while refs:  # whatever is ready: in the order of `refs`, what has overtaken may fill it
            (ready,), refs = rdata.wait(refs)
            sizes.append(rdata.get(ready).size)
            del ready
        assert sizes == [12 * MB] * 12

    def test_small_objects_are_counted(self) -> None:
        kept = [rdata.put(np.ones(200_000, dtype=np.uint8)) for _ in range(200)]
        assert used_bytes() >= 40 * MB
        waiting = Background(lambda: rdata.put(block(15)))
        assert not waiting.is_done.wait(0.3)
        kept.clear()
        gc.collect()
        rdata.get(rdata.put(1))
        assert rdata.get(waiting.wait()).sum() == 15 * MB

    def test_a_killed_writer_leaves_nothing(self) -> None:
        @rdata.remote
        class Hoarder:
            def __init__(self) -> None:
                self.kept: list[Any] = []

            def put(self) -> None:
                self.kept.append(rdata.put(block(15)))

        hoarder = Hoarder.remote()
        rdata.get([hoarder.put.remote() for _ in range(3)])
        waiting = Background(lambda: rdata.put(block(15)))
        assert not waiting.is_done.wait(0.3)
        rdata.kill(hoarder)
        assert rdata.get(waiting.wait()).sum() == 15 * MB


# ---------------------------------------------------------------- asked for ahead of a read


@rdata.remote
def ignore(refs: list[rdata.ObjectRef]) -> int:
    return len(refs)


@rdata.remote
def fail() -> None:
    raise ValueError("no value")


def test_what_a_task_is_given_and_does_not_read_is_freed(impatient_store: None) -> None:
    for _ in range(4):
        refs = [rdata.put(block(20)) for _ in range(2)]
        assert rdata.get(ignore.remote(refs)) == 2
        del refs
        assert eventually(lambda: used_bytes() == 0)


def test_what_get_did_not_come_to_is_freed(impatient_store: None) -> None:
    for _ in range(4):
        refs = [fail.remote(), *(rdata.put(block(20)) for _ in range(2))]
        with pytest.raises(ValueError, match="no value"):
            rdata.get(refs)
        del refs
        assert eventually(lambda: used_bytes() == 0)


@rdata.remote
def read_some(refs: list[rdata.ObjectRef]) -> int:
    total = sum(int(value[0]) for value in rdata.get(refs[:2]))
    return total + int(rdata.get(refs[2])[0])


def test_what_a_task_reads_one_after_the_other_is_freed(impatient_store: None) -> None:
    for _ in range(3):
        refs = [rdata.put(block(10)) for _ in range(4)]
        assert rdata.get(read_some.remote(refs)) == 3
        del refs
        assert eventually(lambda: used_bytes() == 0)


def test_what_is_read_of_many_at_once_is_freed(small_store: None) -> None:
    refs = [rdata.put(np.full(200_000, index)) for index in range(20)]
    values = rdata.get(refs)
    assert [int(value[-1]) for value in values] == list(range(20))
    del refs, values
    assert eventually(lambda: used_bytes() == 0)
