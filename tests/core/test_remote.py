"""What does `@rdata.remote` make of functions and classes, and what does it refuse?"""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Any

import cloudpickle
import pytest

import rdata
from rdata.actor import ActorClass, ActorHandle
from rdata.core.remote import RemoteFunction
from rdata.errors import OptionError


@rdata.remote
def documented(a: int) -> int:
    """Add one."""
    return a + 1


@rdata.remote(num_cpus=0.5, name="nick")
class Pet:
    """Purrs."""

    def purr(self, times: int = 1) -> str:
        return "r" * times

    def _private(self) -> str:
        return "private"


@pytest.fixture
def _inline() -> Iterator[None]:
    with rdata.init(local_mode=True):
        yield


def test_a_remote_function_looks_like_its_function() -> None:
    assert isinstance(documented, RemoteFunction)
    assert (documented.__name__, documented.__doc__) == ("documented", "Add one.")
    assert documented.__wrapped__(1) == 2
    assert repr(documented) == "RemoteFunction(documented)"


def test_an_actor_class_looks_like_its_class() -> None:
    assert isinstance(Pet, ActorClass)
    assert (Pet.__name__, Pet.__doc__) == ("Pet", "Purrs.")
    assert Pet.__wrapped__().purr(2) == "rr"
    assert repr(Pet) == "ActorClass(Pet)"


@pytest.mark.parametrize("remote", [documented, Pet], ids=["function", "class"])
def test_a_direct_call_says_what_to_write(remote: Any) -> None:
    with pytest.raises(TypeError, match=rf"{remote.__name__}\.remote\(\.\.\.\)"):
        remote(1)


@pytest.mark.usefixtures("_inline")
def test_a_direct_call_of_a_method_says_what_to_write() -> None:
    pet = Pet.options(name=None).remote()
    assert isinstance(pet, ActorHandle)
    with pytest.raises(TypeError, match=r"\.purr\.remote\(\.\.\.\)"):
        pet.purr()
    assert "Pet" in repr(pet)
    assert repr(pet.purr) == "ActorMethod(Pet.purr)"
    assert rdata.get(pet._private.remote()) == "private"


def test_remote_twice_is_refused() -> None:
    for remote in (documented, Pet):
        with pytest.raises(TypeError, match="remote already"):
            rdata.remote(remote)


@pytest.mark.parametrize("wrong", [1, "f", None, [len]], ids=repr)
def test_what_is_neither_function_nor_class_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a function or a class"):
        rdata.remote(wrong)


def test_options_go_by_name() -> None:
    with pytest.raises(TypeError, match="by name"):
        rdata.remote(2, num_cpus=2)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="by name"):
        rdata.remote(len, max)  # type: ignore[call-overload]


def test_async_functions_and_methods_are_refused() -> None:
    async def coroutine() -> None: ...

    async def generator() -> AsyncIterator[int]:
        yield 1

    class Actor:
        async def method(self) -> None: ...

    for wrong in (coroutine, generator):
        with pytest.raises(TypeError, match=r"async function.*asyncio\.run"):
            rdata.remote(wrong)
    with pytest.raises(TypeError, match=r"Actor\.method is async.*asyncio\.run"):
        rdata.remote(Actor)


def test_an_actor_class_has_no_heirs() -> None:
    with pytest.raises(TypeError, match=r"inherited from.*Pet\.__wrapped__"):

        class Cat(Pet):  # type: ignore[misc,valid-type]
            pass


def test_method_options_are_checked_where_they_are_written() -> None:
    with pytest.raises(OptionError, match="num_returns"):
        rdata.method(num_return=2)


def test_remote_functions_and_classes_travel() -> None:
    function, actor_class = pickle.loads(cloudpickle.dumps((documented, Pet)))
    assert function.__wrapped__(1) == 2
    assert function.__doc__ == "Add one."
    assert actor_class._options == Pet._options
    assert actor_class.__wrapped__().purr() == "r"


def test_a_recursive_closure_travels_whole() -> None:
    @rdata.remote
    def countdown(n: int = 3, *, step: int = 1) -> Any:
        return (countdown, n, step)

    travelled = pickle.loads(cloudpickle.dumps(countdown))
    inner, n, step = travelled.__wrapped__()
    assert (n, step) == (3, 1)
    assert inner is travelled
    with pytest.raises(TypeError, match="too many"):
        inner.remote(1, 2)


@pytest.mark.usefixtures("_inline")
def test_a_handle_is_not_pickled_by_the_way() -> None:
    with pytest.raises(TypeError, match="cannot be pickled by itself"):
        pickle.dumps(Pet.remote())


def test_generators_stream_unless_told_otherwise() -> None:
    @rdata.remote
    def stream() -> Iterator[int]:
        yield 1

    @rdata.remote
    class Source:
        def items(self) -> Iterator[int]:
            yield 1

        @rdata.method(num_returns=2)
        def pair(self) -> Iterator[int]:
            yield 1
            yield 2

    assert stream._options.num_returns == "streaming"
    methods = Source._interface.methods
    assert methods["items"].num_returns == "streaming"
    assert methods["pair"].num_returns == 2
    with rdata.init(local_mode=True):
        source = Source.remote()
        assert [rdata.get(ref) for ref in source.items.remote()] == [1]
        assert rdata.get(source.pair.remote()) == [1, 2]
