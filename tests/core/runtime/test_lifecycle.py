"""Can a program start, end and start again, and does it hear what it did wrong?"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
import weakref
from collections.abc import Iterator
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

import rdata
from rdata.core.runtime import current
from rdata.exceptions import (
    GetTimeoutError,
    NodeNotFoundError,
    NotInitializedError,
    ObjectLostError,
    OptionError,
)


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
        assert context["address"] is None  # no other program can join
    assert not rdata.is_initialized()
    assert context["node_id"] in repr(context)


def test_a_context_that_was_not_asked_in_time_says_so(local_mode: bool) -> None:
    context = rdata.init(num_cpus=1, local_mode=local_mode)
    rdata.shutdown()
    assert "rdata.shutdown() has ended it" in repr(context)
    with pytest.raises(NotInitializedError, match=r"rdata\.shutdown\(\) has ended it"):
        context["node_id"]


def test_a_context_is_shown_whatever_has_become_of_its_node() -> None:
    context = rdata.init(num_cpus=1)
    try:
        os.kill(rdata.nodes()[0]["Processes"]["agent"], signal.SIGKILL)
        assert "NodeDiedError: the node has ended" in repr(context)
    finally:
        rdata.shutdown()


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


@pytest.mark.parametrize("of_old_mode", [True, False], ids=["was_inline", "was_cluster"])
def test_what_is_given_references_of_a_former_runtime(local_mode: bool, of_old_mode: bool) -> None:
    rdata.init(num_cpus=1, local_mode=of_old_mode)
    old, old_keeper = one.remote(), Keeper.remote()
    rdata.shutdown()
    rdata.init(num_cpus=1, local_mode=local_mode)
    identity = rdata.remote(lambda value=None: value)
    keeper = rdata.remote(type("Taker", (), {"take": lambda self, value: value})).remote()
    uses: list[Any] = [
        lambda: identity.remote(old),
        lambda: identity.remote(value=old),
        lambda: identity.remote([{"nested": old}]),
        lambda: identity.remote(old_keeper),
        rdata.remote(lambda: rdata.get(old)).remote,
        lambda: keeper.take.remote(old),
        lambda: keeper.take.remote([old]),
        lambda: rdata.remote(Taking).remote([old]),
        lambda: rdata.put([old]),
        lambda: rdata.get([rdata.put(1), old]),
        lambda: rdata.wait([rdata.put(1), old], num_returns=2),
    ]
    for use in uses:
        with pytest.raises(ObjectLostError, match=r"rdata\.shutdown\(\)"):
            use()
    assert rdata.get(identity.remote(rdata.put(1))) == 1


class Taking:
    def __init__(self, value: Any) -> None: ...


@pytest.mark.parametrize("has_new_runtime", [True, False], ids=["after_init", "after_shutdown"])
def test_futures_of_a_former_runtime(local_mode: bool, has_new_runtime: bool) -> None:
    rdata.init(num_cpus=1, local_mode=local_mode)
    ref = one.remote()
    rdata.shutdown()
    if has_new_runtime:
        rdata.init(num_cpus=1, local_mode=local_mode)
    with pytest.raises(ObjectLostError, match=r"rdata\.shutdown\(\)"):
        ref.future().result(timeout=20)
    with pytest.raises(ObjectLostError, match=r"rdata\.shutdown\(\)"):
        asyncio.run(awaited(ref))


async def awaited(ref: Any) -> Any:
    return await asyncio.wait_for(ref, timeout=20)


def test_futures_that_are_pending_when_the_runtime_ends() -> None:
    async def end_amid() -> None:
        waiting = asyncio.ensure_future(awaited(ref))
        await asyncio.sleep(0)
        rdata.shutdown()  # in the event loop's own thread
        with pytest.raises(ObjectLostError, match=r"rdata\.shutdown\(\)"):
            await waiting
        with pytest.raises(ObjectLostError, match=r"rdata\.shutdown\(\)"):
            await ref

    rdata.init(num_cpus=1)
    ref = rdata.remote(time.sleep).remote(100)
    future = ref.future()
    seen: SimpleQueue[Any] = SimpleQueue()
    future.add_done_callback(lambda future: seen.put(future.exception()))
    asyncio.run(end_amid())
    with pytest.raises(ObjectLostError, match=r"rdata\.shutdown\(\)"):
        future.result(timeout=20)
    assert isinstance(seen.get(timeout=20), ObjectLostError)


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
        ("num_cpus", True),
        ("num_cpus", 10**400),
        ("num_cpus", 1e305),
        ("num_cpus", 1e-9),
        ("resources", {"CPU": 1}),
        ("resources", {"object_store_memory": 5}),
        ("resources", {"widget": -1}),
        ("resources", {"widget": "1"}),
        ("resources", {"widget": 10**400}),
        ("resources", {1: 1}),
        ("resources", {"\ud800": 1}),
        ("resources", ["widget"]),
        ("object_store_memory", 0),
        ("object_store_memory", 1.5),
        ("object_store_memory", "5"),
        ("object_store_memory", 10**400),
        ("namespace", 5),
        ("namespace", b"mine"),
        ("namespace", ""),
        ("namespace", "\ud800"),
        ("log_to_driver", "no"),
        ("ignore_reinit_error", 1),
        ("local_mode", "x"),
        ("address", 5),
        ("address", ""),
    ],
    ids=lambda value: f"{value!r:.40}".replace("'", ""),
)
def test_arguments_that_cannot_be_meant(local_mode: bool, name: str, value: Any) -> None:
    arguments: dict[str, Any] = {"local_mode": local_mode, name: value}
    with pytest.raises(OptionError, match=rf"{name}.*: "):
        rdata.init(**arguments)
    assert not rdata.is_initialized()


@pytest.mark.parametrize(
    ("name", "argument"),
    [("CPU", "num_cpus"), ("object_store_memory", "by object_store_memory")],
)
def test_a_resource_that_has_an_argument_names_it(name: str, argument: str) -> None:
    with pytest.raises(OptionError, match=rf"resources=\{{'{name}': 1\}}: .*{argument}"):
        rdata.init(resources={name: 1})


def test_numbers_of_numpy_are_numbers(local_mode: bool) -> None:
    rdata.init(
        local_mode=local_mode,
        num_cpus=np.int64(2),
        resources={"widget": np.float32(0.5)},
        object_store_memory=np.int64(100 << 20),
    )
    resources = rdata.cluster_resources()
    assert (resources["CPU"], resources["widget"]) == (2.0, 0.5)


def test_none_and_what_asks_for_nothing_change_nothing(local_mode: bool) -> None:
    given: dict[str, Any] = {"num_gpus": 0, "runtime_env": None, "include_dashboard": False}
    rdata.init(
        local_mode=local_mode,
        num_cpus=1,
        namespace=None,
        resources=None,
        log_to_driver=None,
        **given,
    )
    assert rdata.get(one.remote()) == 1


@pytest.mark.parametrize(
    ("given", "instead"),
    [
        ({"num_gpus": 1}, r"resources=\{'gpu': 1\}"),
        ({"runtime_env": {"pip": ["phe"]}}, r"os\.environ before .* install packages on the nodes"),
        ({"include_dashboard": True}, "there is no dashboard: leave it out"),
        ({"dashboard_port": 8265}, "there is no dashboard: leave it out"),
        ({"_temp_dir": "/tmp/x"}, "RDATA_TEMP_DIR"),
        ({"_system_config": {"a": 1}}, "RDATA_"),
        ({"logging_level": 10}, r"logging\.getLogger\('rdata'\)"),
        ({"labels": {"zone": "a"}}, "resources="),
        ({"job_config": object()}, "leave it out"),
        ({"object_spilling_directory": "/tmp/x"}, "leave it out"),
    ],
    ids=repr,
)
def test_an_argument_of_rays_that_is_not_there_yet_says_what_to_do(
    given: dict[str, Any], instead: str
) -> None:
    (name,) = given
    for kind in (OptionError, TypeError):
        with pytest.raises(kind, match=rf"{name}=.* does not have this option of .*{instead}"):
            rdata.init(local_mode=True, **given)


def test_a_misspelled_argument_gets_a_suggestion() -> None:
    given: dict[str, Any] = {"num_cpu": 1}
    for kind in (OptionError, TypeError):
        with pytest.raises(
            kind, match=r"'num_cpu' is not .* rdata\.init\(\); did you mean 'num_cpus'"
        ):
            rdata.init(local_mode=True, **given)


def test_a_node_that_runs_has_its_resources_already(local_mode: bool) -> None:
    with pytest.raises(OptionError, match="num_cpus"):
        rdata.init("auto", num_cpus=2, local_mode=local_mode)


@pytest.mark.parametrize("address", ["a..b:80", "\ud800:80"], ids=ascii)
def test_an_address_that_is_no_name_is_of_no_node(address: str) -> None:
    with pytest.raises(NodeNotFoundError, match="no node"):
        rdata.init(address)


def test_local_mode_has_no_address() -> None:
    with pytest.raises(OptionError, match="local_mode"):
        rdata.init("auto", local_mode=True)
