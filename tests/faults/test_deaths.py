"""What do callers see when an actor, or the owner of an object, ends in the middle of things?"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import rdata
from rdata.exceptions import ActorDiedError, ObjectLostError, OwnerDiedError
from tests.eventually import eventually
from tests.faults.conftest import processes
from tests.faults.failing import Fragile, Owner

pytestmark = pytest.mark.usefixtures("well_node")

HOWS = [
    ("SIGKILL", ("signal 9", "SIGKILL", "before SIGKILL")),
    ("SIGSEGV", ("signal 11", "SIGSEGV")),
    ("exit 3", ("exit code 3", "last words")),
    ("sys.exit(4)", ("exit code 4",)),
]


@pytest.mark.parametrize(("what", "says"), HOWS, ids=[how for how, _ in HOWS])
def test_a_method_ends_the_actors_process(what: str, says: tuple[str, ...]) -> None:
    actor = Fragile.remote()
    before = actor.add.remote()
    ends, behind = actor.do.remote(what), [actor.add.remote() for _ in range(5)]
    assert rdata.get(before) == 1
    for ref in (ends, *behind):
        with pytest.raises(ActorDiedError) as raised:
            rdata.get(ref)
        for word in ("Fragile", *says):
            assert word in str(raised.value)
    with pytest.raises(ActorDiedError, match=says[0]):
        rdata.get(actor.add.remote())


@pytest.mark.parametrize(("what", "says"), HOWS, ids=[how for how, _ in HOWS])
def test_the_constructor_ends_the_process(what: str, says: tuple[str, ...]) -> None:
    actor = Fragile.remote(what)
    refs = [actor.add.remote() for _ in range(3)]
    for ref in refs:
        with pytest.raises(ActorDiedError) as raised:
            rdata.get(ref)
        for word in ("Fragile", *says):
            assert word in str(raised.value)
    with pytest.raises(ActorDiedError, match=says[0]):
        rdata.get(actor.add.remote())


def test_an_actor_is_killed_from_outside() -> None:
    actor = Fragile.remote()
    os.kill(rdata.get(actor.pid.remote()), signal.SIGKILL)
    with pytest.raises(ActorDiedError, match="SIGKILL"):
        rdata.get([actor.add.remote() for _ in range(10)])


def test_an_actor_is_killed_in_a_call() -> None:
    actor = Fragile.remote()
    pid = rdata.get(actor.pid.remote())
    sleeps = actor.sleep.remote()
    threading.Timer(0.2, lambda: os.kill(pid, signal.SIGKILL)).start()
    with pytest.raises(ActorDiedError, match="SIGKILL"):
        rdata.get(sleeps, timeout=20)


def test_a_named_actor_that_died_frees_its_name() -> None:
    first = Fragile.options(name="phoenix").remote()
    with pytest.raises(ActorDiedError):
        rdata.get(first.do.remote("exit 3"))

    def is_free() -> bool:
        try:
            rdata.get_actor("phoenix")
        except ValueError:
            return True
        return False

    assert eventually(is_free)
    second = Fragile.options(name="phoenix").remote()
    assert rdata.get(second.add.remote()) == 1


def test_a_detached_actor_dies() -> None:
    actor = Fragile.options(name="lasting", lifetime="detached").remote()
    with pytest.raises(ActorDiedError, match="exit code 3"):
        rdata.get(actor.do.remote("exit 3"))


def test_a_generator_method_ends_the_process() -> None:
    *good, last = list(Fragile.remote().count.remote("exit 3"))
    assert rdata.get(good) == [1, 2]
    with pytest.raises(ActorDiedError, match="exit code 3"):
        rdata.get(last)


def test_other_callers_learn_of_an_actors_end(tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    @rdata.remote
    class Sleeper:
        def pid(self) -> int:
            return os.getpid()

        def sleep(self) -> None:
            begun.touch()
            time.sleep(1000)

    @rdata.remote
    def call(handle: Any) -> str:
        try:
            rdata.get(handle.sleep.remote())
        except ActorDiedError as error:
            return str(error)
        return "it lives"

    actor = Sleeper.remote()
    pid = rdata.get(actor.pid.remote())
    told = call.remote(actor)
    assert eventually(begun.exists)
    os.kill(pid, signal.SIGKILL)
    assert "SIGKILL" in rdata.get(told, timeout=20)


def test_the_owner_of_an_actor_dies() -> None:
    @rdata.remote(max_retries=0)
    def make() -> tuple[int, list[Any]]:
        actor = Fragile.remote()
        rdata.get(actor.add.remote())
        return os.getpid(), [actor]

    pid, (actor,) = rdata.get(make.remote())
    assert rdata.get(actor.add.remote()) == 2
    child = rdata.get(actor.pid.remote())
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: child not in processes()["workers"])
    with pytest.raises(ActorDiedError):
        rdata.get(actor.add.remote())


# ------------------------------------------------------------ owners


@pytest.mark.parametrize("is_fetched", [False, True], ids=["unseen", "seen"])
@pytest.mark.parametrize("method", ["put small", "put large", "submit"])
def test_the_owner_dies(method: str, is_fetched: bool) -> None:
    owner = Owner.remote()
    calls = {
        "put small": lambda: owner.put.remote(10),
        "put large": lambda: owner.put.remote(1_000_000),
        "submit": owner.submit.remote,
    }
    (ref,) = rdata.get(calls[method]())
    pid = rdata.get(owner.pid.remote())
    rdata.wait([ref]) if is_fetched else None
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: pid not in processes()["workers"])
    if is_fetched and method == "put small":
        assert rdata.get(ref) == bytes(10)  # it has travelled to the borrower
        return
    with pytest.raises(OwnerDiedError, match=f"{ref.id.hex()}.*SIGKILL") as raised:
        rdata.get(ref)
    assert isinstance(raised.value, ObjectLostError)
    with pytest.raises(OwnerDiedError):
        rdata.get(rdata.remote(len).remote(ref))


def test_the_owner_dies_while_somebody_waits() -> None:
    owner = Owner.remote()
    (ref,) = rdata.get(owner.submit_slow.remote())
    pid = rdata.get(owner.pid.remote())
    threading.Timer(0.2, lambda: os.kill(pid, signal.SIGKILL)).start()
    with pytest.raises(OwnerDiedError):
        rdata.get(ref, timeout=20)


def test_memory_of_a_dead_owner_is_freed() -> None:
    owner = Owner.remote()
    refs = rdata.get(owner.put.remote(20_000_000))
    assert rdata.nodes()[0]["ObjectStoreUsedBytes"] >= 20_000_000
    os.kill(rdata.get(owner.pid.remote()), signal.SIGKILL)
    assert eventually(lambda: rdata.nodes()[0]["ObjectStoreUsedBytes"] < 20_000_000)
    del refs
