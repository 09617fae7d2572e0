"""When do actors end, and what goes with them, alike on every runtime?"""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import pytest

import rdata
from rdata.actor import ActorHandle, exit_actor
from rdata.core.runtime import actors, inline_calls
from rdata.exceptions import ActorDiedError, OptionError, RayActorError
from tests.core.runtime.counter import Counter, Holder, is_gone
from tests.eventually import eventually

pytestmark = pytest.mark.usefixtures("runtime")


def test_a_killed_actor_says_so() -> None:
    counter = Counter.options(name="killed").remote()
    rdata.get(counter.read.remote())
    rdata.kill(counter)
    with pytest.raises(ActorDiedError, match=r"Counter.*kill") as raised:
        rdata.get(counter.read.remote(), timeout=20)
    assert isinstance(raised.value, RayActorError)


def test_who_did_not_create_an_actor_reads_its_class_all_the_same() -> None:
    def call(handles: list[ActorHandle], is_to_die: bool) -> str:
        if is_to_die:
            rdata.kill(handles[0])
        with pytest.raises(ActorDiedError) as raised:
            rdata.get(handles[0].read.remote(), timeout=20)
        return str(raised.value)

    counter = Counter.remote()
    rdata.get(counter.read.remote())
    for is_to_die in (True, False):
        text = rdata.get(rdata.remote(call).remote([counter], is_to_die))
        assert text.startswith("actor Counter (")


def test_a_killed_actors_name_is_free_at_once() -> None:
    for start in range(5):
        counter = Counter.options(name="killed").remote(start)
        assert rdata.get(rdata.get_actor("killed").read.remote()) == start
        rdata.kill(counter)
        assert is_gone("killed")


def test_kill_is_for_good() -> None:
    counter = Counter.remote()
    with pytest.raises(OptionError, match="no_restart=False"):
        rdata.kill(counter, no_restart=False)
    assert rdata.get(counter.read.remote()) == 0
    rdata.kill(counter, no_restart=True)
    with pytest.raises(ActorDiedError):
        rdata.get(counter.read.remote(), timeout=20)


def test_kill_takes_a_handle() -> None:
    with pytest.raises(ValueError, match="handle"):
        rdata.kill(rdata.put(1))  # type: ignore[arg-type]


def test_an_actor_leaves() -> None:
    counter = Counter.remote()
    with pytest.raises(ActorDiedError):
        rdata.get(counter.leave.remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        rdata.get(counter.read.remote(), timeout=20)


def test_an_actor_that_leaves_gives_back_its_name_and_its_resources() -> None:
    counter = Counter.options(name="leaving", resources={"widget": 1}).remote()
    with pytest.raises(ActorDiedError):
        rdata.get(counter.leave.remote(), timeout=20)
    assert eventually(lambda: is_gone("leaving"))
    assert eventually(lambda: rdata.available_resources().get("widget") == 2)


def test_only_an_actor_can_leave() -> None:
    with pytest.raises(RuntimeError, match="outside of an actor"):
        exit_actor()


def test_an_actor_ends_with_its_last_handle() -> None:
    counter = Counter.options(name="dropped").remote()
    rdata.get(counter.read.remote())
    assert not is_gone("dropped")
    del counter
    assert eventually(lambda: is_gone("dropped"))


@pytest.mark.parametrize("end", [rdata.kill, lambda counter: None])
def test_what_tasks_have_put_outlives_actors_that_come_and_go(end: Any) -> None:
    put = rdata.remote(lambda value: [rdata.put(value), rdata.put(bytes(300_000))])
    pairs = rdata.get([put.remote(index) for index in range(6)])
    for _ in range(3):
        counter = Counter.options(name="passing").remote()
        rdata.get(counter.read.remote())
        end(counter)
        del counter
        assert eventually(lambda: is_gone("passing"))
    assert rdata.get([small for small, _ in pairs]) == [*range(6)]
    assert rdata.get([large for _, large in pairs]) == [bytes(300_000)] * 6


@rdata.remote
class Writer:
    """Has a file open, and is part of a cycle."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w")
        self.bound = self.write

    def write(self, text: str) -> None:
        self.file.write(text)

    def leave(self) -> None:
        try:
            raise OSError
        except OSError:
            exit_actor()

    def __del__(self) -> None:
        self.file.close()


@pytest.mark.parametrize("is_to_leave", [False, True])
def test_an_actors_instance_is_finalised(is_to_leave: bool, tmp_path: Path) -> None:
    path = tmp_path / "text"
    writer = Writer.remote(path)
    rdata.get(writer.write.remote("not lost"))
    if is_to_leave:
        writer.leave.remote()
    del writer
    rdata.put(None)  # the inline runtime lets go at the next call
    gc.collect()  # and its actors live in this process
    assert eventually(lambda: path.read_text() == "not lost")


def num_workers() -> int:
    """Worker processes; the inline runtime has none."""
    return len(rdata.nodes()[0].get("Processes", {}).get("workers", ()))


@rdata.remote
class Maker:
    """Returns references to what its process owns."""

    def make(self) -> list[rdata.ObjectRef]:
        later = rdata.remote(lambda: (time.sleep(0.2), 7)[1])
        return [rdata.put("small"), rdata.put(bytes(300_000)), later.remote()]


def test_what_an_actor_has_made_outlives_it() -> None:
    maker = Maker.options(name="maker", num_cpus=1).remote()
    refs = rdata.get(maker.make.remote())
    del maker
    assert eventually(lambda: is_gone("maker"))
    assert eventually(lambda: rdata.available_resources()["CPU"] == 2)
    assert rdata.get(refs) == ["small", bytes(300_000), 7]


def test_an_actors_process_ends_with_what_it_owns() -> None:
    maker = Maker.remote()
    refs = rdata.get(maker.make.remote())
    before = num_workers()
    del maker
    assert rdata.get(refs) == ["small", bytes(300_000), 7]
    del refs
    assert eventually(lambda: num_workers() < max(1, before))


def test_an_actor_whose_constructor_raises_leaves_nothing() -> None:
    @rdata.remote
    class Broken:
        def __init__(self) -> None:
            raise ValueError("broken")

        def call(self) -> None: ...

    before = num_workers()
    for _ in range(3):
        broken = Broken.options(num_cpus=1).remote()
        with pytest.raises(ValueError, match="broken"):
            rdata.get(broken.call.remote(), timeout=20)
    assert eventually(lambda: rdata.available_resources()["CPU"] == 2)
    assert eventually(lambda: num_workers() <= before)


def num_known() -> int:
    """Actors that this process keeps something of, in whichever runtime."""
    places = (actors.ActorTable.__module__, inline_calls.Actor.__module__)
    gc.collect()
    rdata.put(None)  # the inline runtime lets go at the next call
    kept = [each for each in gc.get_objects() if type(each).__module__ in places]
    return sum("Actor" in type(each).__name__ for each in kept)


def test_ended_actors_are_forgotten() -> None:
    @rdata.remote
    class Caller:
        def call(self, handles: list[ActorHandle]) -> int:
            return rdata.get(handles[0].read.remote())

        def num_known(self) -> int:
            return num_known()

    caller = Caller.remote()
    before, known = rdata.get(caller.num_known.remote()), num_known()
    for number in range(6):
        counter = Counter.remote(number)
        assert rdata.get(caller.call.remote([counter])) == number
        if number % 2:
            rdata.kill(counter)
        del counter
    assert eventually(lambda: num_known() <= known)
    assert eventually(lambda: rdata.get(caller.num_known.remote()) <= before)


def test_queued_calls_run_before_an_actor_ends() -> None:
    refs = [Counter.remote(index).add.remote() for index in range(3)]
    assert rdata.get(refs) == [1, 2, 3]


def test_a_generator_runs_to_its_end_before_an_actor_ends() -> None:
    generator = Counter.options(name="streaming").remote(1).upto.remote(3)
    assert [rdata.get(ref) for ref in generator] == [1, 2, 3]
    assert eventually(lambda: is_gone("streaming"))


def test_a_handle_in_a_value_keeps_the_actor() -> None:
    counter = Counter.options(name="kept").remote(1)
    holder = rdata.put([counter])
    rdata.get(counter.read.remote())
    del counter
    assert rdata.get(rdata.get_actor("kept").read.remote()) == 1
    del holder
    assert eventually(lambda: is_gone("kept"))


def test_a_handle_that_was_found_by_name_keeps_the_actor() -> None:
    counter = Counter.options(name="borrowed").remote(1)
    holder = Holder.remote()
    assert rdata.get(holder.find.remote("borrowed")) == 1
    del counter
    assert [rdata.get(holder.read.remote()) for _ in range(5)] == [1] * 5
    del holder
    assert eventually(lambda: is_gone("borrowed"))


def test_a_detached_actor_stays() -> None:
    Counter.options(name="detached", lifetime="detached").remote(6)
    assert rdata.get(rdata.get_actor("detached").read.remote()) == 6
    rdata.kill(rdata.get_actor("detached"))
    assert is_gone("detached")


def test_a_detached_actor_that_was_found_is_passed_on() -> None:
    Counter.options(name="passed on", lifetime="detached").remote(7)
    found, holder = rdata.get_actor("passed on"), Holder.remote()
    assert rdata.get(holder.take.remote(found), timeout=20) == 7
    assert rdata.get(holder.read.remote(), timeout=20) == 7
    find = rdata.remote(rdata.get_actor)
    assert rdata.get(find.remote("passed on"), timeout=20) == found
    rdata.kill(found)


def test_explicit_resources_are_held_for_life() -> None:
    counter = Counter.options(num_cpus=0, resources={"widget": 1}).remote()
    rdata.get(counter.read.remote())
    assert rdata.available_resources()["widget"] == 1
    del counter
    assert eventually(lambda: rdata.available_resources().get("widget") == 2)
