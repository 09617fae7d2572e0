"""Does what a task raised come back as what it was, or at least in words?"""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from typing import Any

import numpy as np
import pytest

from rdata.core import serialize
from rdata.core.object_ref import ObjectRef
from rdata.errors import ObjectLostError, TaskError


class Stubborn:
    def __reduce__(self) -> Any:
        raise ValueError("not for you")


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def outcome(error: BaseException) -> BaseException:
    data = serialize.dump_error(raised(error), "task f").pickled
    return serialize.load_error(data, no_runtime_adopts)


def no_runtime_adopts(object_id: bytes, owner: str) -> ObjectRef:
    raise AssertionError("no reference is inside")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("wrong", 3),
        KeyError("missing"),
        OSError("of no number"),
        FileNotFoundError(2, "No such file", "a file"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        ImportError("no", name="a", path="b"),
        StopIteration(5),
        KeyboardInterrupt(),
        ExceptionGroup("several", [ValueError(1), OSError(2, "x")]),
        AssertionError(),
    ],
    ids=repr,
)
def test_a_tasks_exception_keeps_its_class_and_its_parts(error: BaseException) -> None:
    error.extra = np.arange(3)  # type: ignore[attr-defined]
    error.add_note("a note")
    back = outcome(error)
    assert isinstance(back, type(error))
    assert isinstance(back, TaskError)
    assert str(back) == str(error)
    assert repr(back.args) == repr(error.args)
    for name in ("errno", "filename", "object", "name", "value"):
        assert getattr(back, name, None) == getattr(error, name, None)
    assert back.extra.tolist() == [0, 1, 2]  # type: ignore[attr-defined]
    assert back.__notes__[0] == "a note"
    assert "raised in task f" in back.__notes__[1]
    assert "in raised" in back.__notes__[1]


def test_an_exception_that_cannot_travel_is_told_in_words() -> None:
    for held in (threading.Lock(), multiprocessing.Lock(), Stubborn()):
        error = ValueError("what happened")
        error.held = held  # type: ignore[attr-defined]
        back = outcome(error)
        assert type(back) is TaskError
        assert str(back) == "ValueError: what happened"


def test_an_exception_too_large_for_a_message_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serialize, "_MAX_ERROR_BYTES", 10_000)
    monkeypatch.setattr(serialize, "_MAX_WORDS", 1_000)
    small = ValueError("what happened")
    small.rows = bytes(20_000)  # type: ignore[attr-defined]
    for error, start in (
        (small, "ValueError: what happened"),
        (KeyError("x" * 20_000), "KeyError: 'x"),
    ):
        data = serialize.dump_error(raised(error), "task f").pickled
        assert len(data) < 10_000
        back = serialize.load_error(data, no_runtime_adopts)
        assert type(back) is TaskError
        assert str(back).startswith(start)


def test_what_is_told_in_words_travels_on() -> None:
    error = ValueError("what happened")
    error.held = threading.Lock()  # type: ignore[attr-defined]
    back = outcome(error)
    again = pickle.loads(pickle.dumps(back))
    further = serialize.loads(serialize.dumps([back]).to_bytes(), None)[0]
    for copy in (again, further, outcome(back)):
        assert type(copy) is TaskError
        assert str(copy) == str(copy.cause) == "ValueError: what happened"
        assert copy.origin == "task f"


def test_an_exception_that_cannot_be_made_again_is_told_in_words() -> None:
    class Choosy(Exception):
        def __reduce__(self) -> Any:
            return _refuse, ()

    back = outcome(Choosy("what happened"))
    assert type(back) is TaskError
    assert "what happened" in str(back)


def _refuse() -> None:
    raise RuntimeError("not here")


def test_an_exception_that_passes_through_tasks_tells_of_the_first() -> None:
    first = outcome(ValueError("wrong"))
    data = serialize.dump_error(raised(first), "task outer").pickled
    back = serialize.load_error(data, no_runtime_adopts)
    assert isinstance(back, ValueError)
    (note,) = back.__notes__
    assert "task f" in note
    assert "outer" not in note


def test_a_task_error_that_the_user_made_is_an_exception_like_others() -> None:
    back = outcome(TaskError("of my own"))
    assert isinstance(back, TaskError)
    assert "of my own" in str(back)
    assert "raised in task f" in back.__notes__[0]


def test_an_error_of_the_system_comes_back_as_itself() -> None:
    data = serialize.dump_system_error(ObjectLostError("it is gone"))
    back = serialize.load_error(data, no_runtime_adopts)
    assert type(back) is ObjectLostError
    assert str(back) == "it is gone"
    assert not hasattr(back, "__notes__")
