"""Is a call refused exactly when the function itself would refuse it?"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdata.core.signatures import Arity


def nothing() -> None: ...
def positional(a: Any, b: Any = 1, /) -> None: ...
def plain(a: Any, b: Any, c: Any = 1) -> None: ...
def variadic(a: Any, *rest: Any) -> None: ...
def keywords(a: Any, **rest: Any) -> None: ...
def keyword_only(a: Any = 1, *, b: Any) -> None: ...
def optional_keyword(a: Any, *, b: Any = 1) -> None: ...
def everything(a: Any, /, b: Any, *rest: Any, c: Any, d: Any = 1, **more: Any) -> None: ...


FUNCTIONS = [
    nothing,
    positional,
    plain,
    variadic,
    keywords,
    keyword_only,
    optional_keyword,
    everything,
]


@given(
    function=st.sampled_from(FUNCTIONS),
    args=st.lists(st.integers(), max_size=4).map(tuple),
    kwargs=st.dictionaries(st.sampled_from("abcde"), st.integers(), max_size=3),
)
def test_the_check_agrees_with_the_call(
    function: Callable[..., None], args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    try:
        function(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError, match="the_name"):
            Arity(function, "the_name").check(args, kwargs)
    else:
        Arity(function, "the_name").check(args, kwargs)


@given(function=st.sampled_from(FUNCTIONS), count=st.integers(0, 5))
def test_the_counts_agree_with_the_signature(function: Callable[..., None], count: int) -> None:
    arity = Arity(function, "f")
    if arity.min_count <= count <= arity.max_count:
        inspect.signature(function).bind(*range(count))


def test_a_method_has_no_self() -> None:
    class Some:
        def method(self, a: int) -> None: ...

    arity = Arity(Some.method, "Some.method", is_method=True)
    arity.check((1,), {})
    with pytest.raises(TypeError, match=r"Some\.method\(a: .*int.*\).*: too many positional"):
        arity.check((1, 2), {})


def test_a_constructor_is_checked_by_its_class() -> None:
    class Some:
        def __init__(self, a: int) -> None: ...

    Arity(Some, "Some").check((1,), {})
    with pytest.raises(TypeError, match="missing a required argument: 'a'"):
        Arity(Some, "Some").check((), {})


def test_what_has_no_signature_is_left_to_the_call() -> None:
    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(dict)
    Arity(dict, "dict").check((1, 2, 3), {"a": 1})
