"""Which function or class did the user give, and how is it called and named in errors?"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from msgspec import Struct, field

from rdata.dataset.batch import BatchFormat
from rdata.errors import OptionError


class UserFunction(Struct, frozen=True):
    """A function, or a class whose instances are called, with its arguments beside the batch."""

    target: Callable[..., Any]
    method: str  # of the Dataset, such as "map_batches"
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    constructor_args: tuple[Any, ...] = ()
    constructor_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_class(self) -> bool:
        """Whether it keeps state, so that it needs an actor."""
        return inspect.isclass(self.target)

    @property
    def name(self) -> str:
        """The operator as plans and progress show it: `map_batches(clean)`."""
        return f"{self.method}({name_of(self.target)})"

    @property
    def origin(self) -> str:
        """The operator as errors name it: with the place of the function's code."""
        code = getattr(_code_owner(self.target), "__code__", None)
        if code is None:
            return self.name
        return f'{self.name} (File "{code.co_filename}", line {code.co_firstlineno})'

    def load(self) -> Callable[[Any], Any]:
        """Give what is called with each batch or row; makes the instance, where it is a class."""
        if not self.is_class:
            call = self.target
        else:
            try:
                call = self.target(*self.constructor_args, **self.constructor_kwargs)
            except Exception as error:
                error.add_note(f"in the constructor of {self.name}")
                raise
        if self.args or self.kwargs:
            return lambda value: call(value, *self.args, **self.kwargs)
        return call


def user_function(
    fn: Any,
    method: str,
    fn_args: Iterable[Any] | None = None,
    fn_kwargs: Mapping[str, Any] | None = None,
    fn_constructor_args: Iterable[Any] | None = None,
    fn_constructor_kwargs: Mapping[str, Any] | None = None,
) -> UserFunction:
    """Check what a Dataset method was given. Raises `OptionError`."""
    if not callable(fn):
        raise OptionError(f"{method}: fn must be a function or a class, not {fn!r}")
    if inspect.isclass(fn):
        if "__call__" not in dir(fn):
            raise OptionError(f"{method}: class {fn.__qualname__} has no __call__ method")
    elif fn_constructor_args is not None or fn_constructor_kwargs is not None:
        raise OptionError(
            f"{method}: fn_constructor_args and fn_constructor_kwargs need a class; "
            f"{name_of(fn)} is a function (fn_args and fn_kwargs are for calls)"
        )
    return UserFunction(
        fn,
        method,
        _positional(f"{method}: fn_args", fn_args),
        _by_name(f"{method}: fn_kwargs", fn_kwargs),
        _positional(f"{method}: fn_constructor_args", fn_constructor_args),
        _by_name(f"{method}: fn_constructor_kwargs", fn_constructor_kwargs),
    )


def _positional(argument: str, given: Any) -> tuple[Any, ...]:
    if given is None:
        return ()
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise OptionError(f"{argument} must be a list of arguments, not {given!r}")
    return tuple(given)


def _by_name(argument: str, given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise OptionError(f"{argument} must be a dict of arguments by name, not {given!r}")
    return dict(given)


def _code_owner(fn: Any) -> Any:
    """The function that runs when `fn`, a callable of any kind or a class, is used."""
    fn = inspect.unwrap(fn)
    while isinstance(fn, functools.partial):
        fn = inspect.unwrap(fn.func)
    is_instance = not inspect.isroutine(fn) and not inspect.isclass(fn)
    return type(fn).__call__ if is_instance else fn.__call__ if inspect.isclass(fn) else fn


def name_of(fn: Any) -> str:
    """A short name for a callable: the last part of its qualified name."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return str(name).rsplit(".", 1)[-1]


def annotated_format(fn: Any) -> BatchFormat | None:
    """The batch format that the annotation of the first parameter asks for, if it says."""
    parameters = _parameters(fn)
    if not parameters or parameters[0].annotation is inspect.Parameter.empty:
        return None
    for name in re.findall(r"[\w.]+", _text_of(_resolved(parameters[0].annotation, fn))):
        package, _, last = name.rpartition(".")
        if last not in _AROUND_BATCHES:
            return _format_named(last, package.split(".")[0])
    return None


_AROUND_BATCHES = ("Annotated", "None", "Optional", "Union")


def _format_named(name: str, package: str) -> BatchFormat | None:
    if name == "DataFrame" and package in ("", "pd", "pandas"):
        return "pandas"
    if name == "Table" and package in ("", "pa", "pyarrow"):
        return "pyarrow"
    return "numpy" if name in ("dict", "Dict", "Mapping", "ndarray") else None


def _parameters(fn: Any) -> list[inspect.Parameter]:
    is_bound = not inspect.isclass(fn)
    try:
        signature = inspect.signature(fn if is_bound else fn.__call__)
    except (TypeError, ValueError):  # builtins without a signature
        return []
    parameters = list(signature.parameters.values())
    return parameters if is_bound else parameters[1:]


def _resolved(annotation: Any, fn: Any) -> Any:
    """What an annotation means where the function was defined; itself if that is not known."""
    namespace = getattr(_code_owner(fn), "__globals__", {})
    holder = SimpleNamespace(__annotations__={"batch": annotation})
    try:
        return typing.get_type_hints(holder, namespace)["batch"]
    except Exception:  # of any type: the text is run, and names what only type checkers import
        return annotation


def _text_of(annotation: Any) -> str:
    if isinstance(annotation, type) and not hasattr(annotation, "__origin__"):
        return f"{annotation.__module__}.{annotation.__qualname__}"
    return str(annotation).removeprefix("typing.")
