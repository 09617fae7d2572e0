"""Do many small values stay out of a process's own memory, once there are too many?"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

import rdata
from tests.eventually import eventually

KB = 1000


@pytest.fixture(autouse=True)
def _node() -> Iterator[None]:
    """One whose processes keep a megabyte of small values to themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RDATA_OWNER_INLINE_BYTES", "1000000")
        rdata.init(num_cpus=2)
        yield
        rdata.shutdown()


def used_bytes() -> int:
    used: int = rdata.nodes()[0]["ObjectStoreUsedBytes"]
    return used


@rdata.remote
def text(size: int, number: int) -> str:
    return f"{number:09}" + "x" * (size - 9)


@rdata.remote
class Maker:
    def text(self, number: int) -> list[str]:
        return ["x" * 50 * KB, f"{number}"]


def test_results_beyond_the_bound_are_stored() -> None:
    first = [text.remote(50 * KB, number) for number in range(10)]
    rdata.wait(first, num_returns=10)
    assert used_bytes() == 0
    more = [text.remote(50 * KB, number) for number in range(20)]  # the bound is amid them
    rdata.wait(more, num_returns=20)
    last = [text.remote(50 * KB, number) for number in range(20)]
    assert [int(value[:9]) for value in rdata.get(last)] == [*range(20)]
    assert used_bytes() >= 20 * 50 * KB
    assert [int(value[:9]) for value in rdata.get(first + more)] == [*range(10), *range(20)]
    del first, more, last
    gc.collect()
    assert eventually(lambda: used_bytes() == 0)
    again = [text.remote(50 * KB, number) for number in range(10)]
    rdata.wait(again, num_returns=10)
    assert used_bytes() == 0


def test_puts_and_what_actors_return_too() -> None:
    puts = [rdata.put("x" * 50 * KB) for _ in range(30)]
    stored = used_bytes()
    assert 9 * 50 * KB <= stored < 20 * 50 * KB
    maker = Maker.remote()
    made = [maker.text.remote(number) for number in range(10)]
    assert [value[1] for value in rdata.get(made)] == [f"{number}" for number in range(10)]
    assert used_bytes() >= stored + 10 * 50 * KB
    assert {len(value) for value in rdata.get(puts)} == {50 * KB}


def test_the_smallest_are_never_stored() -> None:
    puts = [rdata.put("x" * 50 * KB) for _ in range(20)]
    small = [text.remote(2 * KB, number) for number in range(1000)]
    rdata.wait(small, num_returns=1000)
    assert used_bytes() == 0
    assert len(puts) == 20
