"""Do tasks get their arguments and give their results alike on every runtime?"""

from __future__ import annotations

import asyncio
import functools
import operator
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rdata
from rdata.exceptions import (
    NondeterministicTaskError,
    OptionError,
    SerializationError,
    TaskError,
    TaskUnschedulableError,
)
from tests.eventually import eventually

pytestmark = pytest.mark.usefixtures("runtime")


@rdata.remote
def echo(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


@rdata.remote
def add(a: int, b: int = 10) -> int:
    return a + b


@rdata.remote
def fibonacci(n: int) -> int:
    if n < 2:
        return n
    return sum(rdata.get([fibonacci.remote(n - 1), fibonacci.remote(n - 2)]))


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    @staticmethod
    @rdata.remote
    def inner(x: int) -> int:
        return x + 1

    @rdata.remote
    @staticmethod
    def outer(x: int) -> int:
        return x + 2

    def scaled(self, by: int) -> int:
        return self.x * by


# Arguments --------------------------------------------------------------------------------------


def test_positional_and_keyword_arguments() -> None:
    assert rdata.get(echo.remote(1, "two", three=3.0)) == ((1, "two"), {"three": 3.0})
    assert rdata.get(add.remote(1)) == 11
    assert rdata.get(add.remote(1, b=2)) == 3
    assert rdata.get(add.remote(b=2, a=1)) == 3


def test_keywords_may_have_any_name() -> None:
    def f(**kwargs: int) -> dict[str, int]:
        return kwargs

    def items(**kwargs: int) -> Iterator[dict[str, int]]:
        yield kwargs

    names = ["self", "function", "call", "target", "args", "kwargs", "method", "cls", "options"]
    kwargs = {name: index for index, name in enumerate(names)}
    assert rdata.get(rdata.remote(f).remote(**kwargs)) == kwargs
    assert [rdata.get(ref) for ref in rdata.remote(items).remote(**kwargs)] == [kwargs]


@pytest.mark.parametrize("args", [(), (1, 2, 3)])
def test_a_wrong_number_of_arguments_is_told_at_once(args: tuple[int, ...]) -> None:
    with pytest.raises(TypeError, match="add"):
        add.remote(*args)


def test_an_unknown_keyword_is_told_at_once() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'c'"):
        add.remote(1, c=2)


def test_a_required_keyword_is_asked_for_at_once() -> None:
    @rdata.remote
    def strict(*, key: int) -> int:
        return key

    with pytest.raises(TypeError, match="key"):
        strict.remote()
    assert rdata.get(strict.remote(key=1)) == 1


def test_references_are_replaced_by_their_values() -> None:
    one = rdata.put(1)
    assert rdata.get(add.remote(one, b=add.remote(one, one))) == 3


def test_nested_references_stay_references() -> None:
    @rdata.remote
    def total(refs: list[rdata.ObjectRef], by_name: dict[str, rdata.ObjectRef]) -> int:
        assert all(isinstance(ref, rdata.ObjectRef) for ref in refs)
        return sum(rdata.get(refs)) + rdata.get(by_name["x"])

    refs = [rdata.put(1), add.remote(1, 1)]
    assert rdata.get(total.remote(refs, {"x": rdata.put(3)})) == 6


def test_a_reference_in_a_result_can_be_used() -> None:
    @rdata.remote
    def make() -> dict[str, rdata.ObjectRef]:
        return {"ref": rdata.put([1, 2])}

    assert rdata.get(rdata.get(make.remote())["ref"]) == [1, 2]


def test_a_reference_to_a_reference() -> None:
    outer = rdata.put([rdata.put("inner")])
    (inner,) = rdata.get(outer)
    del outer
    assert rdata.get(inner) == "inner"


def test_a_task_does_not_change_its_callers_values() -> None:
    @rdata.remote
    def spoil(values: list[int]) -> list[int]:
        values.append(9)
        return values

    mine = [1]
    stored = rdata.put(mine)
    assert rdata.get(spoil.remote(mine)) == [1, 9]
    assert rdata.get([spoil.remote(stored), spoil.remote(stored)]) == [[1, 9], [1, 9]]
    assert mine == [1]
    assert rdata.get(stored) == [1]


def test_arguments_keep_their_identity_among_each_other() -> None:
    @rdata.remote
    def same(a: list[int], b: list[int]) -> bool:
        return a is b

    values = [1]
    assert rdata.get(same.remote(values, values)) is True


def test_an_argument_that_cannot_travel_is_told_at_once() -> None:
    with pytest.raises(SerializationError, match="lock") as raised:
        echo.remote(threading.Lock())
    assert isinstance(raised.value, TypeError)


def test_which_argument_cannot_travel_is_told() -> None:
    @rdata.remote
    class Reader:
        def read(self, *values: Any, **named: Any) -> None:
            """Is never called."""

    lock = threading.Lock()
    reader = Reader.remote()
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: echo.remote(lock), "argument 1 of echo"),
        (lambda: echo.options(name="again").remote(lock), "argument 1 of again"),
        (lambda: reader.read.remote(echo.remote(1), [lock], a=2), "argument 2 of .*read"),
        (lambda: reader.read.remote(1, a=2, b={"c": lock}), "argument 'b' of .*read"),
    ]
    for call, told in calls:
        with pytest.raises(SerializationError, match=f"^{told} .*cannot be sent"):
            call()


def test_a_value_that_cannot_travel_is_told_once() -> None:
    with pytest.raises(SerializationError, match="a value of type lock") as raised:
        rdata.put(threading.Lock())
    assert str(raised.value).count("type lock") == 1


def test_a_function_that_cannot_travel_is_told_at_once() -> None:
    lock = threading.Lock()

    @rdata.remote
    def locked() -> None:
        with lock:
            return

    with pytest.raises(SerializationError, match=r"locked \(of type .* cannot be sent .*lock"):
        locked.remote()


def test_a_result_that_cannot_travel_is_told_by_get() -> None:
    @rdata.remote
    def make_lock() -> Any:
        return threading.Lock()

    with pytest.raises(SerializationError, match="lock"):
        rdata.get(make_lock.remote())


# What can be remote -----------------------------------------------------------------------------


def test_lambdas_closures_partials_and_builtins() -> None:
    offset = 5
    assert rdata.get(rdata.remote(lambda x: x + offset).remote(1)) == 6
    assert rdata.get(rdata.remote(functools.partial(pow, 2)).remote(5)) == 32
    assert rdata.get(rdata.remote(len).remote([1, 2])) == 2
    assert rdata.get(rdata.remote(operator.itemgetter(1)).remote("abc")) == "b"


def test_static_and_bound_methods() -> None:
    assert rdata.get(Point.inner.remote(1)) == 2
    assert rdata.get(Point.outer.remote(1)) == 3
    assert rdata.get(rdata.remote(Point(4).scaled).remote(by=2)) == 8


def test_a_decorated_function() -> None:
    def twice(function: Any) -> Any:
        @functools.wraps(function)
        def run(*args: Any) -> Any:
            return function(*args) * 2

        return run

    @rdata.remote
    @twice
    def three() -> int:
        return 3

    assert rdata.get(three.remote()) == 6
    assert three.__name__ == "three"


def test_a_wrapper_takes_other_arguments_than_what_it_wraps() -> None:
    def with_session(function: Any) -> Any:
        @functools.wraps(function)
        def run(*args: Any) -> Any:
            return function("session", *args)

        return run

    def waiting(function: Any) -> Any:
        @functools.wraps(function)
        def run(*args: Any) -> Any:
            return asyncio.run(function(*args))

        return run

    @rdata.remote
    @with_session
    def ask(session: str, question: str) -> str:
        return f"{session}: {question}"

    @rdata.remote
    @waiting
    async def answer(x: int) -> int:
        return x + 1

    assert rdata.get([ask.remote("?"), answer.remote(41)]) == ["session: ?", 42]


def test_remote_functions_call_themselves_and_each_other() -> None:
    assert rdata.get(fibonacci.remote(6)) == 8

    @rdata.remote
    def countdown(n: int) -> int:
        return 0 if n == 0 else 1 + rdata.get(countdown.remote(n - 1))

    assert rdata.get(countdown.remote(4)) == 4


def test_a_remote_function_is_an_argument() -> None:
    @rdata.remote
    def apply(function: Any, value: int) -> Any:
        return rdata.get(function.options(name="inner").remote(value))

    assert rdata.get(apply.remote(add, 1)) == 11


def test_instances_of_local_classes_come_back_as_their_own_class() -> None:
    class Local:
        def __init__(self, x: int) -> None:
            self.x = x

    @rdata.remote
    def grown(value: Local) -> Local:
        return Local(value.x + 1)

    result = rdata.get(grown.remote(Local(1)))
    assert (type(result), result.x) == (Local, 2)
    assert isinstance(rdata.get(rdata.remote(lambda p: p).remote(Point(1))), Point)


# Several returns and options --------------------------------------------------------------------


@pytest.mark.parametrize("kind", [tuple, list])
def test_several_returns(kind: Any) -> None:
    refs = rdata.remote(num_returns=3)(lambda: kind([1, "b", None])).remote()
    assert rdata.get(refs) == [1, "b", None]


def test_no_return() -> None:
    assert rdata.remote(lambda: None).options(num_returns=0).remote() is None


def test_returns_of_which_one_is_large() -> None:
    small, large = rdata.remote(lambda: (1, b"x" * 1_000_000)).options(num_returns=2).remote()
    assert rdata.get(small) == 1
    assert len(rdata.get(large)) == 1_000_000


def test_a_generator_gives_several_returns_when_asked_to() -> None:
    @rdata.remote(num_returns=2)
    def pair() -> Any:
        yield 1
        yield 2

    assert rdata.get(pair.remote()) == [1, 2]


@pytest.mark.parametrize(("result", "given"), [((1,), 1), ((1, 2, 3), 3), ([], 0)])
def test_a_wrong_number_of_returns_names_both_numbers(result: Any, given: int) -> None:
    for ref in rdata.remote(lambda: result).options(num_returns=2).remote():
        with pytest.raises(ValueError, match=f"num_returns=2 and gave {given} values"):
            rdata.get(ref)


def test_one_value_where_several_are_due() -> None:
    first, _ = rdata.remote(lambda: 5).options(num_returns=2).remote()
    with pytest.raises(TypeError, match=r"num_returns=2 and returned one int"):
        rdata.get(first)


def test_one_of_several_returns_that_cannot_travel_fails_them_all() -> None:
    for ref in rdata.remote(num_returns=2)(lambda: (1, threading.Lock())).remote():
        with pytest.raises(SerializationError, match="lock") as raised:
            rdata.get(ref)
        assert isinstance(raised.value, TaskError)


def test_options_do_not_change_the_function_itself() -> None:
    pair = add.options(num_returns=2)
    assert rdata.get(add.remote(1)) == 11
    with pytest.raises(TypeError):
        rdata.get(pair.remote(1))


@pytest.mark.parametrize("option", ["num_cpu", "name_", "max_retry"])
def test_an_unknown_option_is_refused_with_a_suggestion(option: str) -> None:
    with pytest.raises(OptionError, match="did you mean"):
        add.options(**{option: 1})
    with pytest.raises(OptionError, match="did you mean"):
        rdata.remote(**{option: 1})(len)


def test_a_request_that_no_node_can_meet() -> None:
    for options in ({"num_cpus": 64}, {"resources": {"widget": 3}}, {"resources": {"none": 1}}):
        with pytest.raises(TaskUnschedulableError, match="widget"):  # what the node has
            rdata.get(add.options(**options).remote(1), timeout=20)


def test_resources_that_the_node_has() -> None:
    refs = [add.options(num_cpus=0, resources={"widget": 1}).remote(i) for i in range(5)]
    assert rdata.get(refs) == [10, 11, 12, 13, 14]
    assert rdata.get(add.options(num_cpus=0.5).remote(1)) == 11


# Retries ----------------------------------------------------------------------------------------


@rdata.remote
class Attempts:
    def __init__(self) -> None:
        self.count = 0

    def next(self) -> int:
        self.count += 1
        return self.count


def raise_until(attempts: Any, last: int, error: type[Exception]) -> int:
    attempt: int = rdata.get(attempts.next.remote())
    if attempt < last:
        raise error(f"attempt {attempt}")
    return attempt


def test_exceptions_are_not_retried_unless_asked() -> None:
    attempts = Attempts.remote()
    with pytest.raises(OSError, match="attempt 1"):
        rdata.get(rdata.remote(raise_until).remote(attempts, 3, OSError))


@pytest.mark.parametrize("retried", [True, [OSError, KeyError]])
def test_exceptions_are_retried_when_asked(retried: Any) -> None:
    task = rdata.remote(max_retries=2, retry_exceptions=retried)(raise_until)
    assert rdata.get(task.remote(Attempts.remote(), 3, OSError)) == 3
    with pytest.raises(OSError, match="attempt 3"):
        rdata.get(task.remote(Attempts.remote(), 4, OSError))


def test_other_exceptions_are_not_retried() -> None:
    task = rdata.remote(max_retries=2, retry_exceptions=[KeyError])(raise_until)
    with pytest.raises(OSError, match="attempt 1"):
        rdata.get(task.remote(Attempts.remote(), 3, OSError))


def test_a_generator_that_is_retried_gives_each_item_once() -> None:
    @rdata.remote(max_retries=1, retry_exceptions=True)
    def items(attempts: Any) -> Any:
        attempt = rdata.get(attempts.next.remote())
        for index in range(4):
            if attempt == 1 and index == 2:
                raise OSError("half way")
            yield index

    assert [rdata.get(ref) for ref in items.remote(Attempts.remote())] == [0, 1, 2, 3]


def test_a_generator_that_gives_fewer_items_when_retried() -> None:
    @rdata.remote(max_retries=1, retry_exceptions=True)
    def items(attempts: Any) -> Any:
        if rdata.get(attempts.next.remote()) == 1:
            yield 1
            yield 2
            raise OSError("half way")
        yield 1

    refs = list(items.remote(Attempts.remote()))
    assert rdata.get(refs[:2]) == [1, 2]
    with pytest.raises(NondeterministicTaskError, match=r"1 items.* 2 before"):
        rdata.get(refs[2])


# Context ----------------------------------------------------------------------------------------


def test_the_context_of_the_driver_and_of_a_task() -> None:
    here = rdata.get_runtime_context()
    there = rdata.get(rdata.remote(rdata.get_runtime_context).options(name="where").remote())
    assert (here.task_id, here.actor_id) == (None, None)
    assert there.task_id is not None
    assert there.task_name == "where"
    assert (there.node_id, there.namespace) == (here.node_id, "contract")


def test_the_node_and_its_resources() -> None:
    (node,) = rdata.nodes()
    assert node["Alive"] is True
    assert node["NodeID"] == rdata.get_runtime_context().node_id
    assert node["NodeManagerAddress"]
    assert node["Resources"]["widget"] == 2
    assert rdata.cluster_resources()["CPU"] == 2
    # An idle lease of another test may linger a moment.
    assert eventually(lambda: rdata.available_resources()["widget"] == 2)
