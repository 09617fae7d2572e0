"""Are stored values immutable copies that can be got, waited for and awaited, on every runtime?"""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import rdata
from rdata.exceptions import OptionError
from tests.core.runtime.counter import Counter

pytestmark = pytest.mark.usefixtures("runtime")

VALUES = [
    None,
    True,
    -(2**70),
    1.5,
    "text",
    b"bytes",
    [1, [2, {"three": (4, {5})}]],
    {"key": None, 2: "two"},
    range(3),
    bytearray(b"mutable"),
    b"x" * 3_000_000,
]


@rdata.remote
def identity(value: Any) -> Any:
    return value


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{value!r:.20}")
def test_values_come_back_equal(value: Any) -> None:
    for ref in (rdata.put(value), identity.remote(value), identity.remote(rdata.put(value))):
        result = rdata.get(ref)
        assert result == value
        assert type(result) is type(value)


def test_values_are_copies() -> None:
    value = {"list": [1]}
    ref = rdata.put(value)
    value["list"].append(2)
    rdata.get(ref)["list"].append(3)
    assert rdata.get(ref) == {"list": [1]}


def test_get_of_several_keeps_the_order() -> None:
    refs = [identity.remote(index) for index in range(20)]
    assert rdata.get(refs[::-1]) == list(range(20))[::-1]
    assert rdata.get((refs[0], refs[0])) == [0, 0]
    assert rdata.get([]) == []


# Arrays and tables ------------------------------------------------------------------------------


def test_large_arrays_are_read_only_views() -> None:
    array = np.arange(500_000, dtype="float64").reshape(1000, 500)
    arrays = (array, array[:, ::2], array[::-1], np.broadcast_to(array[0], (300, 500)))
    for sent in arrays:
        for ref in (rdata.put(sent), identity.remote(sent)):
            result = rdata.get(ref)
            np.testing.assert_array_equal(result, sent)
            assert not result.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                result[0, 0] = 1
            assert np.shares_memory(rdata.get(ref), result)


def test_a_view_outlives_its_reference() -> None:
    ref = rdata.put(np.arange(500_000))
    tail = rdata.get(ref)[-3:]
    del ref
    for index in range(5):  # what would take the memory, were it free
        rdata.put(np.full(500_000, index))
    assert tail.tolist() == [499_997, 499_998, 499_999]


def test_arrays_of_every_layout() -> None:
    base = np.arange(600_000).reshape(600, 1000)
    records = np.zeros(3, dtype=[("a", "i4"), ("b", "U3")])
    arrays = [base[::2], base.T, base[:0], np.array("scalar"), np.array([object, None]), records]
    for array in arrays:
        result = rdata.get(identity.remote(array))
        np.testing.assert_array_equal(result, array)
        assert result.dtype == array.dtype


def test_a_task_cannot_write_to_a_large_argument() -> None:
    @rdata.remote
    def write(array: Any) -> None:
        array[0] = 1

    with pytest.raises(ValueError, match="read-only"):
        rdata.get(write.remote(rdata.put(np.zeros(500_000))))


def test_changing_an_array_after_put_changes_nothing() -> None:
    array = np.zeros(500_000)
    ref = rdata.put(array)
    array[:] = 1
    assert rdata.get(ref).sum() == 0


def test_changing_the_memory_under_a_table_changes_nothing() -> None:
    array = np.zeros(100_000)
    table = pa.table({"a": array})
    kept = []

    @rdata.remote
    def make() -> Any:
        kept.append(np.zeros(100_000))
        return pa.table({"a": kept[-1]})

    refs = [rdata.put(each) for each in (table, table.to_batches()[0])]
    refs += [identity.remote(table), make.remote()]
    rdata.wait(refs, num_returns=len(refs))
    for changed in (array, *kept):
        changed[:] = 1
    for ref in refs:
        column = rdata.get(ref)["a"].to_numpy()
        assert column.sum() == 0
        assert not column.flags.writeable
        assert np.shares_memory(rdata.get(ref)["a"].to_numpy(), column)


def test_arrow_data() -> None:
    table = pa.table({"i": list(range(100_000)), "s": ["x", None] * 50_000})
    batch = table.to_batches()[0]
    for value in (table, table.slice(10, 5), batch, table["s"], batch["i"], table.schema):
        for ref in (rdata.put(value), identity.remote(value), rdata.put({"in": value})):
            result = rdata.get(ref)
            assert (result["in"] if isinstance(result, dict) else result).equals(value)


def test_data_frames() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.to_datetime(["2020", "2021"])})
    pd.testing.assert_frame_equal(rdata.get(identity.remote(rdata.put(frame))), frame)


# References -------------------------------------------------------------------------------------


def test_references_compare_hash_and_show_themselves() -> None:
    ref = rdata.put([1])
    (same,) = rdata.get(identity.remote([ref]))
    assert same == ref
    assert not same != ref  # noqa: SIM202  # that is what is tested
    assert hash(same) == hash(ref)
    assert len({ref, same, rdata.put([1])}) == 2
    assert ref.hex() in repr(ref)
    assert bytes.fromhex(ref.hex()) == ref.binary()


def test_a_reference_cannot_be_pickled_by_the_way() -> None:
    with pytest.raises(TypeError, match="ObjectRef"):
        pickle.dumps(rdata.put(1))


def test_put_of_a_reference_is_refused() -> None:
    with pytest.raises(TypeError, match="ObjectRef"):
        rdata.put(rdata.put(1))


@pytest.mark.parametrize("wrong", [1, "ref", None, {}, [1], [[]]], ids=repr)
def test_get_of_something_else_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="ObjectRef"):
        rdata.get(wrong)


@pytest.mark.parametrize("timeout", [-1, "1", True])
def test_a_timeout_that_cannot_be_meant(timeout: Any) -> None:
    ref = rdata.put(1)
    with pytest.raises(OptionError, match="timeout"):
        rdata.get(ref, timeout=timeout)
    with pytest.raises(OptionError, match="timeout"):
        rdata.wait([ref], timeout=timeout)


def test_a_timeout_of_zero_gets_what_is_there() -> None:
    assert rdata.get(rdata.put(1), timeout=0) == 1


# wait -------------------------------------------------------------------------------------------


def test_wait_for_some() -> None:
    refs = [identity.remote(index) for index in range(4)]
    ready, rest = rdata.wait(refs, num_returns=2, timeout=20)
    assert len(ready) == 2
    assert sorted(map(refs.index, ready)) == list(map(refs.index, ready))
    assert rest == [ref for ref in refs if ref not in ready]


def test_wait_for_all() -> None:
    refs = [identity.remote(index) for index in range(4)]
    assert rdata.wait(refs, num_returns=4, timeout=20) == (refs, [])
    assert rdata.wait(refs, num_returns=4, timeout=0) == (refs, [])


def test_wait_returns_no_more_than_asked() -> None:
    refs = [rdata.put(index) for index in range(3)]
    assert rdata.wait(refs) == (refs[:1], refs[1:])


def test_wait_and_cancel_do_what_ray_does_when_told_to_do_less() -> None:
    ref = rdata.put(1)
    assert rdata.wait([ref], fetch_local=False) == ([ref], [])
    rdata.cancel(ref, recursive=False)
    with pytest.raises(OptionError, match="fetch_local"):
        rdata.wait([ref], fetch_local=True)


def test_an_error_is_ready() -> None:
    def fail() -> None:
        raise ValueError

    failed = rdata.remote(fail).remote()
    assert rdata.wait([failed], timeout=20) == ([failed], [])


def test_wait_refuses_what_cannot_be_meant() -> None:
    ref = rdata.put(1)
    with pytest.raises(ValueError, match="differ"):
        rdata.wait([ref, ref])
    for num_returns in (0, 2, -1, "1"):
        with pytest.raises(ValueError, match="num_returns"):
            rdata.wait([ref], num_returns=num_returns)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="list"):
        rdata.wait(ref)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int"):
        rdata.wait([1])  # type: ignore[list-item]
    assert rdata.wait([]) == ([], [])


# asyncio and threads ----------------------------------------------------------------------------


def test_references_are_awaited() -> None:
    async def main() -> list[int]:
        return list(await asyncio.gather(*(identity.remote(index) for index in range(5))))

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]


def test_an_awaited_error_is_raised() -> None:
    def fail() -> None:
        raise KeyError("awaited")

    async def main() -> None:
        await rdata.remote(fail).remote()

    with pytest.raises(KeyError, match="awaited"):
        asyncio.run(main())


def test_awaiting_a_task_that_raised_stop_iteration() -> None:
    def stop() -> None:
        raise StopIteration(5)

    async def wait(how: Callable[[rdata.ObjectRef], Awaitable[Any]]) -> None:
        await how(rdata.remote(stop).remote())

    for how in (lambda ref: ref, lambda ref: asyncio.wrap_future(ref.future())):
        with pytest.raises(RuntimeError, match="StopIteration") as raised:
            asyncio.run(wait(how))
        cause = raised.value.__cause__
        assert isinstance(cause, StopIteration)
        assert cause.value == 5


def test_references_as_futures() -> None:
    assert identity.remote(3).future().result(timeout=20) == 3


def test_many_threads() -> None:
    def work(thread: int) -> list[int]:
        refs = [identity.remote(rdata.put(thread * 100 + index)) for index in range(20)]
        rdata.wait(refs, num_returns=len(refs))
        return rdata.get(refs)

    with ThreadPoolExecutor(6) as pool:
        for thread, values in enumerate(pool.map(work, range(6))):
            assert values == [thread * 100 + index for index in range(20)]


def test_a_reference_is_used_in_another_thread() -> None:
    ref = identity.remote("shared")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(rdata.get, ref).result(timeout=20) == "shared"


def test_copies_of_references_and_handles_are_these_themselves() -> None:
    ref, counter = rdata.put(1), Counter.remote(5)
    assert copy.copy(ref) is ref
    assert copy.deepcopy({"nested": [ref]})["nested"][0] is ref
    assert copy.copy(counter) == counter
    assert rdata.get(copy.deepcopy(counter).read.remote()) == 5
