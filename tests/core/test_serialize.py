"""Does every value come back as it went, without a copy too many, or say why it cannot go?"""

from __future__ import annotations

import copyreg
import dataclasses
import functools
import logging
import math
import multiprocessing
import operator
import re
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator, Sized
from decimal import Decimal
from fractions import Fraction
from typing import Any

import cloudpickle
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdata.core import messages as m
from rdata.core.object_ref import ObjectRef
from rdata.core.serialize import dumps, loads, size_of_atoms
from rdata.errors import SerializationError
from tests.core.travel import round_trip

HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.complex_numbers(),
)
BUILTINS = st.recursive(
    st.one_of(HASHABLE, st.binary().map(bytearray), st.sets(st.integers()), st.just(range(5))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=40),
        st.lists(inner).map(tuple),
        st.dictionaries(HASHABLE, inner, max_size=40),
    ),
)


def are_alike(left: Any, right: Any) -> bool:
    """Equal, in type too, and NaN equals NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(are_alike, left, right))
    if isinstance(left, dict):
        return are_alike(list(left), list(right)) and are_alike(
            list(left.values()), list(right.values())
        )
    return left == right or repr(left) == repr(right)


@given(BUILTINS)
@settings(max_examples=60)
def test_builtins_come_back(value: Any) -> None:
    assert are_alike(round_trip(value), value)


@pytest.mark.parametrize(
    "value",
    [True, 1, -0.0, math.inf, "\ud800", b"", (), [], {}, 1 << 10_000, ..., NotImplemented, int],
    ids=repr,
)
def test_odd_builtins_come_back(value: Any) -> None:
    assert are_alike(round_trip(value), value)


ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(),
    st.text(st.characters()),  # with halves of surrogate pairs
    st.binary(),
)


LIMIT = 1000


@given(st.lists(ATOMS, max_size=40).map(tuple))
def test_atoms_travel_as_they_are(values: tuple[Any, ...]) -> None:
    size = size_of_atoms(values, LIMIT)
    assert are_alike(round_trip(values), values)
    if size >= 0:
        data = msgspec.msgpack.encode(m.Value(m.Value.INLINE, size=size, atoms=values))
        back = msgspec.msgpack.decode(data, type=m.Value)
        assert back.message_bytes() == size
        assert are_alike(back.plain(), values)
        assert len(data) <= size + 40


def test_what_no_message_carries_as_it_is_is_serialized() -> None:
    class Number(int):
        """Which another process does not have."""

    assert size_of_atoms((), LIMIT) == 0
    assert size_of_atoms((1, 2.5, "ä", b"c", None, True), LIMIT) >= 0
    for value in (Number(1), (1,), [1], {}, 1 << 64, -(1 << 63) - 1, "\ud800", np.int64(3)):
        assert size_of_atoms((value,), LIMIT) == -1
    assert size_of_atoms((1,) * 33, LIMIT) == -1
    assert size_of_atoms(((1 << 64) - 1, -(1 << 63)), LIMIT) > 0
    assert size_of_atoms((b"a" * LIMIT,), LIMIT) == -1


def test_what_holds_itself_comes_back() -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    back = round_trip(cycle)
    assert back[0] == 1
    assert back[1] is back


def test_what_is_shared_costs_once() -> None:
    shared: list[Any] = []
    for _ in range(60):  # 2 to the power of 60 paths lead to the innermost
        shared = [shared, shared]
    started = time.process_time()
    back = round_trip(shared)
    assert time.process_time() - started < 5
    assert back[0] is back[1]
    assert dumps(shared).size < 1000


class Counted:
    """Which other processes can import."""

    def __init__(self, count: int) -> None:
        self.count = count


def test_what_copyreg_learns_later_counts() -> None:
    assert round_trip(Counted(1)).count == 1
    try:
        for more in (1, 2):  # the second in the place of the first
            copyreg.pickle(Counted, lambda value, more=more: (Counted, (value.count + more,)))
            assert round_trip([Counted(1)])[0].count == 1 + more
    finally:
        del copyreg.dispatch_table[Counted]
    assert round_trip(Counted(1)).count == 1


class RefusedError(Exception):
    """Whose `args` are not what its constructor takes."""

    def __init__(self, code: int, hint: str) -> None:
        super().__init__(f"code {code}")
        self.hint = hint


def test_an_exception_that_copyreg_knows_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some libraries register all exceptions, for the sake of tracebacks."""
    monkeypatch.setitem(copyreg.dispatch_table, RefusedError, RefusedError.__reduce__)
    error = round_trip(RefusedError(3, "another"))
    assert (type(error), str(error), error.hint) == (RefusedError, "code 3", "another")


@pytest.mark.parametrize("size", [10, 70_000, 700_000])
def test_what_is_of_main_is_seen_beside_large_text(
    size: int, program: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for large in ("x" * size, b"x" * size, [Fraction(1, i + 1) for i in range(size // 100)]):
        for value in ([large, program.Point], [program.Point, large], [large, program.make, large]):
            data = dumps(value).to_bytes()
            back = elsewhere(data, monkeypatch)
            assert back[value.index(large)] == large
            assert loads(data, None)[value.index(large) - 1] in value


@pytest.mark.parametrize(
    "value",
    [signal.SIGINT, re.RegexFlag, Sized, [Decimal("1.5"), Fraction(1, 3)], operator.add, Counted],
    ids=repr,
)
def test_what_others_can_import_comes_back(value: Any) -> None:
    assert are_alike(round_trip(value), value)


class CountsPickling:
    """How often has any been pickled?"""

    num_times = 0

    def __reduce__(self) -> Any:
        CountsPickling.num_times += 1
        return CountsPickling, ()


@pytest.mark.parametrize(
    "value",
    [np.float64(1.5), np.array(["a", None], object), functools.partial(operator.add, 1), [].append],
    ids=repr,
)
def test_one_pass_over_a_value_is_enough_where_others_can_import_all_of_it(value: Any) -> None:
    CountsPickling.num_times = 0
    round_trip([CountsPickling(), value])
    assert CountsPickling.num_times == 1


def test_one_pass_is_enough_though_large_text_speaks_of_main() -> None:
    text = "__main__" * 10_000
    for value in (text, text.encode()):
        CountsPickling.num_times = 0
        assert round_trip([CountsPickling(), value, Fraction(1, 3)])[1] == value
        assert CountsPickling.num_times == 1


# ---------------------------------------------------------------- classes of the program


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module like `__main__`: its classes exist in this process only."""
    module = types.ModuleType("__main__")
    code = (
        "import dataclasses, enum\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Point:\n"
        "    x: int\n"
        "    y: object = None\n"
        "    def norm(self): return abs(self.x) + SCALE\n"
        "SCALE = 10\n"
        "class Color(enum.Enum):\n"
        "    RED = 1\n"
        "class Refused(ValueError):\n"
        "    def __init__(self, code, *, hint):\n"
        "        super().__init__(f'code {code}')\n"
        "        self.hint = hint\n"
        "def make(x): return lambda y: Point(x, y)\n"
    )
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(code, module.__dict__)
    return module


def elsewhere(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load as another process would, whose `__main__` is another program."""
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
        return loads(data, None)


def test_classes_of_main_travel_by_value(
    program: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (program.Point(1), [program.Point(1)], {"a": (program.Point(1),)}):
        back = elsewhere(dumps(value).to_bytes(), monkeypatch)
        point = back if not isinstance(value, list | dict) else next(iter(_points(back)))
        assert dataclasses.asdict(point) == {"x": 1, "y": None}
        assert point.norm() == 11
    assert elsewhere(dumps(program.Color.RED).to_bytes(), monkeypatch).name == "RED"
    assert elsewhere(dumps(program.make(3)).to_bytes(), monkeypatch)(4).y == 4


def test_what_others_lack_may_lie_beside_what_they_have(
    program: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.arange(1000)
    for lacking in (program.Point(1), program.make, lambda: 1):
        serialized = dumps([Fraction(1, 3), array, lacking, "__main__"])
        assert serialized.size < 2 * array.nbytes
        third, back, _, text = elsewhere(serialized.to_bytes(), monkeypatch)
        assert (third, text) == (Fraction(1, 3), "__main__")
        assert (back == array).all()


def _points(value: Any) -> Iterator[Any]:
    for item in value.values() if isinstance(value, dict) else value:
        yield from item if isinstance(item, tuple) else [item]


def test_a_program_gets_its_own_class_back(program: types.ModuleType) -> None:
    assert type(round_trip(program.Point(1))) is program.Point
    assert round_trip(program.Color.RED) is program.Color.RED


def test_an_exception_of_the_program_comes_back(
    program: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dumps(program.Refused(3, hint="another")).to_bytes()
    for back in (loads(data, None), elsewhere(data, monkeypatch)):
        assert (type(back).__name__, str(back), back.hint) == ("Refused", "code 3", "another")
    assert type(loads(data, None)) is program.Refused


# ---------------------------------------------------------------- references


def no_runtime(ref_id: bytes) -> ObjectRef:
    return ObjectRef(ref_id, "an address", types.SimpleNamespace(released=[]))  # type: ignore[arg-type]


def test_what_only_cloudpickle_can_send_comes_back() -> None:
    number = 3
    values = {"a": 1}
    assert list(round_trip(values.keys())) == ["a"]
    assert list(round_trip([values.items()])[0]) == [("a", 1)]
    assert round_trip(lambda: number)() == number
    assert round_trip(types) is types
    assert round_trip(type(None)) is type(None)
    assert round_trip([memoryview(b"abc")]) == [b"abc"]
    assert round_trip(property(lambda _: number)).fget(None) == number
    assert round_trip(logging.getLogger("a.b")) is logging.getLogger("a.b")


def test_a_class_travels_by_value_where_its_name_leads_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("of_two_versions")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("class Point:\n    x = 1\n", module.__dict__)
    old = module.__dict__["Point"]
    assert round_trip(old) is old
    assert type(round_trip(old())) is old
    exec("class Point:\n    x = 2\n", module.__dict__)  # as a notebook's cell that ran again
    assert round_trip(old()).x == 1
    cloudpickle.register_pickle_by_value(module)
    try:
        data = dumps(module.__dict__["Point"]()).to_bytes()
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    monkeypatch.delitem(sys.modules, module.__name__)
    assert loads(data, None).x == 2


def test_references_inside_are_listed_and_restored() -> None:
    refs = [no_runtime(bytes([number]) * 20) for number in range(3)]
    serialized = dumps({"a": refs[0], "b": [refs[1], (refs[2], refs[0])]})
    assert [ref.id for ref in serialized.refs] == [ref.id for ref in refs]
    restored: list[tuple[bytes, str]] = []

    def restore(object_id: bytes, owner: str) -> ObjectRef:
        restored.append((object_id, owner))
        return no_runtime(object_id)

    back = loads(serialized.to_bytes(), restore)
    assert back == {"a": refs[0], "b": [refs[1], (refs[2], refs[0])]}
    assert restored == [(ref.id, "an address") for ref in refs]


def test_a_reference_cannot_be_smuggled() -> None:
    data = dumps([no_runtime(bytes(20))]).to_bytes()
    with pytest.raises(SerializationError, match="outside of rdata"):
        loads(data, None)


# ---------------------------------------------------------------- what cannot travel


class Stubborn:
    def __reduce__(self) -> Any:
        raise ValueError("not for you")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (threading.Lock(), "lock"),
        ({"deep": [threading.RLock()]}, "RLock"),
        ((number for number in range(3)), "generator"),
        (multiprocessing.Lock(), "inheritance"),
        (Stubborn(), "not for you"),
        (sys._getframe(), "frame"),
    ],
    ids=["lock", "inside", "generator", "shared lock", "own error", "frame"],
)
def test_what_cannot_travel_is_named_with_the_remedy(value: Any, reason: str) -> None:
    with pytest.raises(SerializationError) as caught:
        dumps(value)
    text = str(caught.value)
    assert f"a value of type {type(value).__qualname__} cannot be sent" in text
    assert reason in text
    assert "inside the task or the actor instead" in text
    assert caught.value.__cause__ is not None


def test_what_is_nested_too_deep_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    with pytest.raises(SerializationError, match="recursion limit") as caught:
        dumps(deep)
    assert "lock" not in str(caught.value)
    while deep:  # taken apart here: the interpreter's own way down may be too deep as well
        (deep,) = deep


def test_a_missing_module_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("only_here")
    exec("class Thing: pass\ndef help_(): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    things = [dumps(module.Thing()).to_bytes(), dumps(module.help_).to_bytes()]
    monkeypatch.delitem(sys.modules, "only_here")
    for data in things:
        with pytest.raises(SerializationError) as caught:
            loads(data, None)
        assert "module 'only_here', which this value needs, cannot be imported" in str(caught.value)
        assert "install it on this node" in str(caught.value)
        assert sys.path[-1] in str(caught.value)


def test_what_a_module_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("another_version")
    exec("class Thing: pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "another_version", module)
    data = dumps(module.Thing()).to_bytes()
    del module.Thing  # type: ignore[attr-defined]
    with pytest.raises(SerializationError, match=r"lacks: .*Thing"):
        loads(data, None)
