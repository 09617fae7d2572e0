"""Which function or class did the user give, and how is it called and named in errors?"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
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
        target: Any = inspect.unwrap(self.target)
        while isinstance(target, functools.partial):
            target = target.func
        if inspect.isclass(target):
            target = target.__call__
        code = getattr(target, "__code__", None)
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
        tuple(fn_args or ()),
        dict(fn_kwargs or {}),
        tuple(fn_constructor_args or ()),
        dict(fn_constructor_kwargs or {}),
    )


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
    annotation = parameters[0].annotation
    text = annotation if isinstance(annotation, str) else _text_of(annotation)
    text = text.strip("'\" ").split("[")[0].split("|")[0].strip()
    module, _, last = text.rpartition(".")
    root = module.split(".")[0]
    if last == "DataFrame" and root in ("", "pd", "pandas"):
        return "pandas"
    if last == "Table" and root in ("", "pa", "pyarrow"):
        return "pyarrow"
    if last in ("dict", "Dict", "Mapping", "ndarray"):
        return "numpy"
    return None


def _parameters(fn: Any) -> list[inspect.Parameter]:
    is_bound = not inspect.isclass(fn)
    try:
        signature = inspect.signature(fn if is_bound else fn.__call__)
    except (TypeError, ValueError):  # builtins without a signature
        return []
    parameters = list(signature.parameters.values())
    return parameters if is_bound else parameters[1:]


def _text_of(annotation: Any) -> str:
    if isinstance(annotation, type) and not hasattr(annotation, "__origin__"):
        return f"{annotation.__module__}.{annotation.__qualname__}"
    return str(annotation).removeprefix("typing.")
