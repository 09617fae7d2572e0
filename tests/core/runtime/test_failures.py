"""Do exceptions of user code reach `get` as what they were, alike on every runtime?"""

from __future__ import annotations

import dataclasses
import linecache
import pickle
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import rdata
from rdata.exceptions import RayTaskError, RdataError, SerializationError, TaskError

pytestmark = pytest.mark.usefixtures("runtime")


class Refused(Exception):
    """Carries an attribute, and a constructor that its `args` do not fit."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


def raising(make: Callable[[], BaseException]) -> Any:
    def fail() -> None:
        raise make()

    return rdata.remote(fail)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError("bad"),
        lambda: KeyError("missing"),
        lambda: FileNotFoundError(2, "No such file", "/nowhere"),
        lambda: ZeroDivisionError("by zero"),
        lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        lambda: StopIteration("early"),
        lambda: ImportError("no module", name="absent", path="/nowhere"),
        lambda: MemoryError("none left"),
        AssertionError,
        lambda: ExceptionGroup("two", [ValueError(1), TypeError(2)]),
    ],
    ids=lambda make: type(make()).__name__,
)
def test_an_exception_keeps_its_type_its_arguments_and_its_text(make: Any) -> None:
    expected = make()
    with pytest.raises(type(expected)) as raised:
        rdata.get(raising(make).remote())
    error = raised.value
    assert isinstance(error, TaskError)
    assert isinstance(error, RdataError)
    assert repr(error.args) == repr(expected.args)  # an exception equals only itself
    assert str(error) == str(expected)
    assert type(error.cause) is type(expected)


def test_the_name_that_ray_gives_it() -> None:
    with pytest.raises(RayTaskError):
        rdata.get(raising(lambda: ValueError("bad")).remote())


def test_an_oserror_keeps_its_errno_and_file() -> None:
    with pytest.raises(FileNotFoundError) as raised:
        rdata.get(rdata.remote(Path.read_text).remote(Path("/nowhere/at/all")))
    assert (raised.value.errno, raised.value.filename) == (2, "/nowhere/at/all")


def test_attributes_and_odd_constructors() -> None:
    with pytest.raises(Refused, match="7: closed") as raised:
        rdata.get(raising(lambda: Refused(7, reason="closed")).remote())
    assert (raised.value.code, raised.value.reason) == (7, "closed")


def test_a_lack_of_memory_can_be_retried() -> None:
    @rdata.remote(max_retries=1, retry_exceptions=[MemoryError])
    def greedy(log: Path) -> Any:
        log.write_text(log.read_text() + "x")
        return bytearray(1 << 60)

    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        log.touch()
        with pytest.raises(MemoryError):
            rdata.get(greedy.remote(log))
        assert log.read_text() == "xx"


class Delegating(Exception):
    """As clients' libraries have them: whatever is not here is looked up in a response."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.response, name)  # which was not set: a RecursionError


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Refusing(Exception):
    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)


class WithoutHeirs(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("no subclasses")


class Asking(Exception):
    def __init_subclass__(cls, *, code: int) -> None:
        super().__init_subclass__()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Delegating("the message"),
        lambda: Frozen(7),
        lambda: Refusing("the message"),
        lambda: WithoutHeirs("the message"),
        lambda: Asking("the message"),
    ],
    ids=lambda make: type(make()).__name__,
)
def test_a_class_whose_own_code_refuses(make: Any) -> None:
    expected = make()
    with pytest.raises(type(expected)) as raised:
        rdata.get(raising(make).remote())
    error = raised.value
    assert isinstance(error, TaskError)
    assert type(error.cause) is type(expected)
    assert (str(error), error.args) == (str(expected), expected.args)
    assert vars(expected).items() <= vars(error).items()
    shown = "".join(traceback.format_exception(error))
    assert str(expected) in shown
    assert "raised in task" in shown
    assert "in fail" in shown


def test_a_message_that_is_not_unicode() -> None:
    """Half of a surrogate pair, as in the names of files that are not UTF-8."""

    class Unreadable:
        def __init__(self) -> None:
            raise ValueError("\ud800")

        def read(self) -> None:
            """Is never called."""

    actor: Any = rdata.remote(Unreadable).remote()
    for ref in (raising(lambda: ValueError("\ud800")).remote(), actor.read.remote()):
        with pytest.raises(ValueError, match="\ud800"):
            rdata.get(ref)


class Explained(Exception):
    """Has attributes of the names that a TaskError gives to its own."""

    frames = 24

    def __init__(self, cause: str) -> None:
        super().__init__("explained")
        self.cause = cause

    @property
    def origin(self) -> str:
        return f"from {self.cause}"


def test_the_users_attributes_come_first() -> None:
    with pytest.raises(Explained) as raised:
        rdata.get(raising(lambda: Explained("above")).remote())
    for error in (raised.value, pickle.loads(pickle.dumps(raised.value))):
        assert (error.cause, error.origin, error.frames) == ("above", "from above", 24)
        assert "in fail" in error.__notes__[0]


def test_a_task_error_that_the_user_raises() -> None:
    with pytest.raises(TaskError, match="mine") as raised:
        rdata.get(raising(lambda: TaskError("mine")).remote())
    for error in (raised.value, pickle.loads(pickle.dumps(raised.value))):
        assert (str(error), str(error.cause)) == ("mine", "mine")
        assert "in fail" in error.frames


def test_a_class_that_only_the_driver_knows() -> None:
    class Local(Exception):
        pass

    def fail() -> None:
        error = Local("here")
        error.detail = [1, 2]  # type: ignore[attr-defined]
        raise error

    with pytest.raises(Local, match="here") as raised:
        rdata.get(rdata.remote(fail).remote())
    assert raised.value.detail == [1, 2]  # type: ignore[attr-defined]


def test_the_users_frames_show_once_and_no_others() -> None:
    def deep() -> None:
        raise ValueError("found me")

    def shallow() -> None:
        deep()

    with pytest.raises(ValueError, match="found me") as raised:
        rdata.get(rdata.remote(shallow).options(name="diver").remote())
    error: Any = raised.value
    assert "in deep" in error.frames
    assert "in shallow" in error.frames
    assert f'File "{__file__}"' in error.frames
    assert 'raise ValueError("found me")' in error.frames
    assert "rdata/core" not in error.frames
    assert "diver" in error.origin
    shown = "".join(traceback.format_exception(error))
    assert shown.count("in deep") == 1
    assert len(traceback.extract_tb(error.__traceback__)) == 2  # of this test, and of `get`


def test_the_frames_of_a_class_that_travels_by_value() -> None:
    class Machine:
        def __init__(self) -> None:
            self.start()

        def start(self) -> None:
            raise ValueError("no fuel")

    def run() -> None:
        Machine()

    with pytest.raises(ValueError, match="no fuel") as raised:
        rdata.get(rdata.remote(run).remote())
    frames = raised.value.frames  # type: ignore[attr-defined]
    assert frames.count(f'File "{__file__}"') == 3
    assert 'raise ValueError("no fuel")' in frames


def test_source_lines_that_only_the_driver_has() -> None:
    """As in a notebook, whose cells are in no file."""
    source = "def fail():\n    raise ValueError('in a cell')\n"
    name = "/nowhere/cell-1.py"
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    variables: dict[str, Any] = {}
    exec(compile(source, name, "exec"), variables)
    with pytest.raises(ValueError, match="in a cell") as raised:
        rdata.get(rdata.remote(variables["fail"]).remote())
    frames = raised.value.frames  # type: ignore[attr-defined]
    assert f"""File "{name}", line 2, in fail\n    raise ValueError('in a cell')""" in frames


def test_a_chained_exception_shows_what_came_before() -> None:
    def fail() -> None:
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("no value") from error

    with pytest.raises(ValueError, match="no value") as raised:
        rdata.get(rdata.remote(fail).remote())
    assert "KeyError: 'missing'" in raised.value.frames  # type: ignore[attr-defined]


def test_notes_are_kept() -> None:
    def fail() -> None:
        error = ValueError("bad")
        error.add_note("row 17")
        raise error

    with pytest.raises(ValueError, match="bad") as raised:
        rdata.get(rdata.remote(fail).remote())
    assert "row 17" in raised.value.__notes__


def test_each_get_raises_anew() -> None:
    ref = raising(lambda: ValueError("bad")).remote()
    seen = []
    for _ in range(3):
        with pytest.raises(ValueError, match="bad") as raised:
            rdata.get(ref)
        seen.append(len(traceback.extract_tb(raised.value.__traceback__)))
    assert len(set(seen)) == 1


def test_what_is_done_to_an_error_is_not_seen_by_the_next_get() -> None:
    ref = raising(lambda: Refused(7, reason="closed")).remote()
    for _ in range(2):
        with pytest.raises(Refused) as raised:
            rdata.get(ref)
        assert raised.value.reason == raised.value.cause.reason == "closed"  # type: ignore[attr-defined]
        raised.value.reason = raised.value.cause.reason = "changed"  # type: ignore[attr-defined]


def test_an_error_that_cannot_travel_is_told_by_its_text() -> None:
    class Locked(Exception):
        def __init__(self) -> None:
            super().__init__("holds a lock")
            self.lock = threading.Lock()

    with pytest.raises(TaskError, match="Locked: holds a lock") as raised:
        rdata.get(raising(Locked).remote())
    assert not isinstance(raised.value, Locked)


def test_a_result_that_cannot_travel_is_an_error_of_its_task() -> None:
    with pytest.raises(SerializationError, match=r"^a value of type lock") as raised:
        rdata.get(rdata.remote(threading.Lock).options(name="locker").remote())
    assert isinstance(raised.value, TaskError)
    assert "locker" in raised.value.origin


def test_a_failed_argument_fails_the_task_with_the_same_error() -> None:
    failed = raising(lambda: KeyError("first")).remote()
    ran = rdata.remote(lambda value: "ran")
    with pytest.raises(KeyError, match="first"):
        rdata.get(ran.remote(failed))
    with pytest.raises(KeyError, match="first"):
        rdata.get(ran.remote(value=ran.remote(failed)))


def test_an_error_of_an_inner_task_is_the_outer_ones() -> None:
    inner = raising(lambda: Refused(1, reason="inner"))
    outer = rdata.remote(lambda: rdata.get(inner.remote()))
    with pytest.raises(Refused, match="1: inner") as raised:
        rdata.get(outer.remote())
    assert "in fail" in raised.value.frames  # type: ignore[attr-defined]


def test_an_error_of_an_inner_task_can_be_handled() -> None:
    inner = raising(lambda: KeyError("inner"))

    @rdata.remote
    def outer() -> str:
        try:
            rdata.get(inner.remote())
        except KeyError as error:
            return f"handled {error}"
        return "nothing to handle"

    assert rdata.get(outer.remote()) == "handled 'inner'"


def test_all_returns_of_a_failed_task_raise() -> None:
    for ref in raising(lambda: ValueError("both")).options(num_returns=2).remote():
        with pytest.raises(ValueError, match="both"):
            rdata.get(ref)


def test_get_of_many_raises_the_first_error() -> None:
    refs = [rdata.put(1), raising(lambda: ValueError("a")).remote()]
    with pytest.raises(ValueError, match="a"):
        rdata.get(refs)


def test_an_error_is_a_value_that_travels() -> None:
    @rdata.remote
    def caught() -> Any:
        try:
            rdata.get(raising(lambda: Refused(3, reason="kept")).remote())
        except Refused as error:
            return error

    error = rdata.get(caught.remote())
    assert isinstance(error, Refused)
    assert error.code == 3


def test_of_several_errors_get_raises_the_first_in_the_list() -> None:
    refs = [raising(lambda i=i: ValueError(i)).remote() for i in range(3)]
    rdata.wait(refs, num_returns=3)
    for first in (refs, refs[::-1]):
        with pytest.raises(ValueError, match=str(refs.index(first[0]))):
            rdata.get([rdata.put(1), *first])


def test_a_reference_inside_an_error_can_be_used() -> None:
    ref = rdata.remote(lambda error: error).remote(raising(lambda: KeyError(rdata.put(5))).remote())
    with pytest.raises(KeyError) as raised:
        rdata.get(ref)
    assert rdata.get(raised.value.args[0]) == 5
