"""Can a program start, end and start again, and does it hear what it did wrong?"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import rdata
from rdata.core.runtime import current
from rdata.exceptions import GetTimeoutError, ObjectLostError, OptionError


@pytest.fixture(params=[True, False], ids=["inline", "cluster"])
def local_mode(request: pytest.FixtureRequest) -> Iterator[bool]:
    yield request.param
    rdata.shutdown()


@rdata.remote
def one() -> int:
    return 1


@rdata.remote
class Keeper:
    def one(self) -> int:
        return 1


def test_start_and_end_again_and_again(local_mode: bool) -> None:
    for _ in range(3):
        assert not rdata.is_initialized()
        rdata.init(num_cpus=1, local_mode=local_mode)
        assert rdata.is_initialized()
        assert rdata.get(one.remote()) == 1
        assert rdata.get(Keeper.remote().one.remote()) == 1
        rdata.shutdown()
        rdata.shutdown()


def test_what_was_not_finished_is_not_kept_in_memory_after_the_end() -> None:
    rdata.init(num_cpus=1)
    captured = rdata.put(1)
    sleep = rdata.remote(time.sleep)
    running, queued = sleep.remote(60), rdata.remote(partial(id, captured)).remote()
    waiting = sleep.remote(running)
    with pytest.raises(GetTimeoutError):
        rdata.get([running, waiting, queued], timeout=0.2)
    runtime = weakref.ref(current())
    rdata.shutdown()
    del captured, running, queued, waiting
    gc.collect()
    assert runtime() is None


def test_a_second_init_says_what_to_do(local_mode: bool) -> None:
    first = rdata.init(num_cpus=1, local_mode=local_mode)
    with pytest.raises(RuntimeError, match=r"rdata\.shutdown\(\).*ignore_reinit_error=True"):
        rdata.init(num_cpus=1, local_mode=local_mode)
    second = rdata.init(ignore_reinit_error=True)
    assert second["node_id"] == first["node_id"]


def test_what_init_returns(local_mode: bool) -> None:
    with rdata.init(num_cpus=1, local_mode=local_mode) as context:
        assert context["node_id"] == rdata.nodes()[0]["NodeID"]
        assert set(context) == {"address", "node_id", "session_dir"}
        assert context.address_info == dict(context)
        assert context["node_id"] in repr(context)
    assert not rdata.is_initialized()


def test_the_context_of_a_former_runtime_ends_nothing(local_mode: bool) -> None:
    former = rdata.init(num_cpus=1, local_mode=local_mode)
    rdata.shutdown()
    rdata.init(num_cpus=1, local_mode=local_mode)
    former.disconnect()
    assert rdata.is_initialized()


@pytest.mark.parametrize("has_new_runtime", [True, False], ids=["after_init", "after_shutdown"])
def test_what_belonged_to_a_former_runtime(local_mode: bool, has_new_runtime: bool) -> None:
    rdata.init(num_cpus=1, local_mode=local_mode)
    ref, keeper = one.remote(), Keeper.remote()
    generator = rdata.remote(lambda: iter(())).options(num_returns="streaming").remote()
    rdata.shutdown()
    if has_new_runtime:
        rdata.init(num_cpus=1, local_mode=local_mode)
    uses: list[Any] = [
        lambda: rdata.get(ref),
        lambda: rdata.get([ref]),
        lambda: rdata.wait([ref]),
        lambda: rdata.cancel(ref),
        keeper.one.remote,
        lambda: rdata.kill(keeper),
        lambda: rdata.cancel(generator),
    ]
    for use in uses:
        with pytest.raises(ObjectLostError, match=r"rdata\.shutdown\(\)"):
            use()
    assert rdata.is_initialized() == has_new_runtime


def test_a_task_cannot_end_the_runtime(local_mode: bool) -> None:
    rdata.init(num_cpus=1, local_mode=local_mode)
    with pytest.raises(RuntimeError, match="inside a task"):
        rdata.get(rdata.remote(rdata.shutdown).remote())
    assert rdata.get(one.remote()) == 1


def test_init_inside_a_task_says_what_to_do(local_mode: bool) -> None:
    rdata.init(num_cpus=1, local_mode=local_mode)
    with pytest.raises(RuntimeError, match="called before"):
        rdata.get(rdata.remote(lambda: rdata.init() and None).remote())
    assert rdata.get(rdata.remote(rdata.is_initialized).remote()) is True


def test_a_remote_function_serves_inline_and_cluster_in_turn() -> None:
    for local_mode in (True, False, True, False):
        with rdata.init(num_cpus=1, local_mode=local_mode):
            assert rdata.get(one.remote()) == 1
            assert rdata.get(Keeper.remote().one.remote()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_cpus", -1),
        ("num_cpus", "2"),
        ("num_cpus", float("nan")),
        ("resources", {"CPU": 1}),
        ("resources", {"widget": -1}),
        ("resources", ["widget"]),
        ("object_store_memory", 0),
        ("object_store_memory", 1.5),
    ],
    ids=lambda value: repr(value).replace("'", ""),
)
def test_arguments_that_cannot_be_meant(local_mode: bool, name: str, value: Any) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(OptionError, match=name):
        rdata.init(local_mode=local_mode, **arguments)
    assert not rdata.is_initialized()


def test_a_node_that_runs_has_its_resources_already(local_mode: bool) -> None:
    with pytest.raises(OptionError, match="num_cpus"):
        rdata.init("auto", num_cpus=2, local_mode=local_mode)


def test_local_mode_has_no_address() -> None:
    with pytest.raises(OptionError, match="local_mode"):
        rdata.init("auto", local_mode=True)
