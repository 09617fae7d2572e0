"""How does a function become a task, and a class an actor? `@rdata.remote`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, overload

from rdata.core.actor import ActorClass
from rdata.core.lifecycle import ensure_runtime
from rdata.core.options import actor_options, task_options
from rdata.core.runtime import current
from rdata.core.signatures import Arity
from rdata.core.specs import ActorOptions, Function, TaskOptions


class RemoteFunction:
    """A function whose `.remote(...)` runs it as a task and returns a reference at once."""

    __wrapped__: Callable[..., Any]

    def __init__(self, target: Callable[..., Any], options: TaskOptions) -> None:
        functools.update_wrapper(self, target)
        self.__wrapped__ = target
        self._options = options

    # These two are made when first used. A function that calls itself is not whole yet when its
    # own RemoteFunction, one of its globals, is unpickled.

    @functools.cached_property
    def _function(self) -> Function:
        return Function(self.__wrapped__)

    @functools.cached_property
    def _arity(self) -> Arity:
        return Arity(self.__wrapped__, self._function.name)

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Submit a task: an ObjectRef, a list of them with `num_returns`, or a generator.

        References among the arguments are replaced by their values before the function runs.
        Raises TypeError if the arguments do not fit the function, SerializationError if they
        cannot travel, ObjectLostError if a reference in them is from before `rdata.shutdown()`.

        >>> import rdata
        >>> @rdata.remote
        ... def add(a, b):
        ...     return a + b
        >>> with rdata.init(local_mode=True):
        ...     rdata.get(add.remote(add.remote(1, 2), b=3))
        6
        """
        arity = self._arity
        if kwargs or not arity.min_count <= len(args) <= arity.max_count:
            arity.check(args, kwargs)
        runtime = current() or ensure_runtime()
        return runtime.submit(self._function, args, kwargs, self._options)

    def options(self, **options: Any) -> RemoteFunction:
        """The same function with other options.

        They are `num_cpus`, `resources`, `num_returns`, `max_retries`, `retry_exceptions`, `name`
        and `generator_backpressure_num_objects`; OptionError is raised on any other.
        None leaves an option as it is.
        """
        changed = RemoteFunction(self.__wrapped__, task_options(self._options, options))
        changed.__dict__.update(_function=self._function, _arity=self._arity)
        return changed

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        name = self._function.name
        raise TypeError(
            f"{name} is a remote function and cannot be called directly: {name}.remote(...) runs "
            f"it as a task, {name}.__wrapped__(...) calls it here"
        )

    def __getstate__(self) -> dict[str, Any]:
        here_only = {"_function", "_arity"}
        return {name: value for name, value in vars(self).items() if name not in here_only}

    def __repr__(self) -> str:
        return f"RemoteFunction({self._function.name})"


@overload
def remote(target: type[Any], /) -> ActorClass: ...
@overload
def remote(target: Callable[..., Any], /) -> RemoteFunction: ...
@overload
def remote(**options: Any) -> Callable[[Any], Any]: ...
def remote(*targets: Any, **options: Any) -> Any:
    """Turn a function into a RemoteFunction, or a class into an ActorClass.

    Without arguments, or with options that all its tasks or actors shall have:

    >>> import rdata
    >>> @rdata.remote(num_returns=2)
    ... def halves(text):
    ...     return text[: len(text) // 2], text[len(text) // 2 :]
    >>> with rdata.init(local_mode=True):
    ...     rdata.get(halves.remote("abcd"))
    ['ab', 'cd']

    Functions, lambdas, static methods, built-in functions and `functools.partial` objects will do.
    A generator function's tasks return an ObjectRefGenerator, as with `num_returns="streaming"`.

    Options of tasks, with their defaults, which are Ray's:

    - `num_cpus` (1), `resources` (none; a dict from name to amount): what it holds while it runs.
      Parts such as 0.5 will do.
    - `num_returns` (1): how many references `.remote()` returns; None instead of them for 0.
    - `max_retries` (3): how often it is run again when its worker or node dies; -1: without bound.
    - `retry_exceptions` (False): True, or a list of classes: run it again after those, too.
    - `name` (the function's): what messages call it.
    - `generator_backpressure_num_objects` (64): how many items of a generator may wait to be taken.

    Options of actors:

    - `num_cpus` (one to be placed, and none while it lives), `resources` (none): what is given is
      held as long as it lives.
    - `name` (none), by which `rdata.get_actor` finds it in `namespace` (the program's). With
      `get_if_exists=True`, `.remote()` gives the actor that has the name already.
    - `lifetime` (None): "detached" for one that a cluster keeps after its program has ended.

    Raises OptionError for a value that cannot be meant, UnknownOptionError, which is one and a
    TypeError, for an option that rdata does not have, and TypeError for what is neither a function
    nor a class, or is async.
    """
    if len(targets) == 1 and not options:
        return _made_remote(targets[0], {})
    if targets:
        raise TypeError("@rdata.remote takes options by name: @rdata.remote(num_cpus=2)")
    return lambda target: _made_remote(target, options)


def _made_remote(target: Any, options: dict[str, Any]) -> RemoteFunction | ActorClass:
    if isinstance(target, staticmethod):
        target = target.__func__
    if isinstance(target, type):
        return ActorClass(target, actor_options(ActorOptions(), options))
    if isinstance(target, RemoteFunction | ActorClass):
        raise TypeError(f"{target!r} is remote already; .options(...) changes its options")
    if not callable(target):
        raise TypeError(f"@rdata.remote takes a function or a class, not {target!r}")
    if inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target):
        name = getattr(target, "__qualname__", repr(target))
        raise TypeError(
            f"{name} is an async function, which rdata does not run as a task yet: "
            "make it a plain function that calls asyncio.run(...)"
        )
    is_generator = inspect.isgeneratorfunction(inspect.unwrap(target))
    base = TaskOptions(num_returns="streaming" if is_generator else 1)
    return RemoteFunction(target, task_options(base, options))
