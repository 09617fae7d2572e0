"""How is an actor created, called and passed on?"""

from __future__ import annotations

import difflib
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from rdata.core.lifecycle import ensure_runtime, runtime_of
from rdata.core.object_ref import ObjectRef
from rdata.core.options import actor_options, method_options
from rdata.core.runtime import current
from rdata.core.signatures import Arity
from rdata.core.specs import ActorInterface, ActorOptions, Function, MethodOptions

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = "__rdata_method_options__"
_NO_ARITIES: Mapping[str, Arity] = {}


def method(**options: Any) -> Callable[[F], F]:
    """Give a method of an actor's class options for all its calls, such as `num_returns`.

    >>> import rdata
    >>> @rdata.remote
    ... class Splitter:
    ...     @rdata.method(num_returns=2)
    ...     def split(self, text):
    ...         return text.split("=")
    >>> with rdata.init(local_mode=True):
    ...     rdata.get(Splitter.remote().split.remote("a=b"))
    ['a', 'b']
    """
    method_options(MethodOptions(), options)  # errors show at the line of the decorator

    def decorate(function: F) -> F:
        setattr(function, _OPTIONS, options)
        return function

    return decorate


def exit_actor() -> NoReturn:
    """End the actor that runs the calling method.

    The call and all later ones raise ActorDiedError. Raises RuntimeError outside of an actor.
    """
    runtime = current()
    if runtime is None or runtime.context().actor_id is None:
        raise RuntimeError("exit_actor() was called outside of an actor")
    raise SystemExit(0)


class ActorClass:
    """A class whose `.remote(...)` creates an actor: an instance in a process of its own."""

    __wrapped__: type[Any]

    def __init__(self, cls: type[Any], options: ActorOptions) -> None:
        functools.update_wrapper(self, cls, updated=())
        self.__wrapped__ = cls
        self._options = options
        _refuse_async(cls)

    # Made when first used: a class whose methods mention its ActorClass is not whole yet when
    # that is unpickled.

    @functools.cached_property
    def _function(self) -> Function:
        return Function(self.__wrapped__)

    @functools.cached_property
    def _interface(self) -> ActorInterface:
        class_name = self.__wrapped__.__name__
        methods = {
            name: _default_options(each, f"{class_name}.{name}")
            for name, each in _methods(self.__wrapped__)
        }
        return ActorInterface(class_name, methods)

    @functools.cached_property
    def _arity(self) -> Arity:
        return Arity(self.__wrapped__, self.__wrapped__.__name__)

    @functools.cached_property
    def _arities(self) -> Mapping[str, Arity]:
        cls = self.__wrapped__
        return {
            name: Arity(
                each,
                f"{cls.__name__}.{name}",
                is_method=_takes_self(inspect.getattr_static(cls, name)),
            )
            for name, each in _methods(cls)
        }

    def remote(self, /, *args: Any, **kwargs: Any) -> ActorHandle:
        """Create an actor; its constructor gets the arguments. Does not wait for it.

        Raises TypeError if the arguments do not fit the constructor, ValueError if the actor's
        name is taken. What the constructor raises is raised by `get` of the first call.

        >>> import rdata
        >>> @rdata.remote
        ... class Counter:
        ...     def __init__(self, start=0):
        ...         self.value = start
        ...     def add(self, amount):
        ...         self.value += amount
        ...         return self.value
        >>> with rdata.init(local_mode=True):
        ...     counter = Counter.remote(start=5)
        ...     rdata.get([counter.add.remote(1), counter.add.remote(2)])
        [6, 8]
        """
        self._arity.check(args, kwargs)
        runtime = current() or ensure_runtime()
        ref = runtime.create_actor(self._function, args, kwargs, self._options, self._interface)
        return ActorHandle(ref, self._interface, self._arities)

    def options(self, **options: Any) -> ActorClass:
        """The same class with other options for its actors.

        They are `num_cpus`, `resources`, `name`, `namespace`, `lifetime` and `get_if_exists`;
        OptionError is raised on any other.
        """
        changed = ActorClass(self.__wrapped__, actor_options(self._options, options))
        changed.__dict__.update(
            _function=self._function,
            _interface=self._interface,
            _arity=self._arity,
            _arities=self._arities,
        )
        return changed

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        name = self.__wrapped__.__name__
        raise TypeError(
            f"{name} is an actor class and cannot be instantiated directly: {name}.remote(...) "
            f"creates an actor, {name}.__wrapped__(...) an object here"
        )

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type[Any], ...]:
        raise TypeError(
            f"an actor class cannot be inherited from: let the plain class be the base of another, "
            f"and apply rdata.remote to that one ({self.__wrapped__.__name__}.__wrapped__ is plain)"
        )

    def __getstate__(self) -> dict[str, Any]:
        here_only = {"_function", "_interface", "_arity", "_arities"}
        return {name: value for name, value in vars(self).items() if name not in here_only}

    def __repr__(self) -> str:
        return f"ActorClass({self.__wrapped__.__name__})"


class ActorHandle:
    """Stands for an actor; its methods are called by `handle.method.remote(...)`.

    It may be passed to tasks and other actors. When the last handle of an actor goes, the actor
    ends after its queued calls, unless it is detached. Its instance is finalised then, so that its
    files are closed; not where `rdata.kill`, or the end of the program, ends the process.
    """

    __slots__ = ("__weakref__", "_arities", "_interface", "_ref")

    def __init__(
        self,
        ref: ObjectRef,
        interface: ActorInterface,
        arities: Mapping[str, Arity] = _NO_ARITIES,
    ) -> None:
        self._ref = ref
        self._interface = interface
        self._arities = arities  # only where the class is at hand; elsewhere the actor checks

    def __getattr__(self, name: str) -> ActorMethod:
        if name in ActorHandle.__slots__:  # half made
            raise AttributeError(name)
        options = self._interface.methods.get(name)
        if options is None:
            raise AttributeError(_no_method(self._interface, name))
        return ActorMethod(self, name, options)

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), *self._interface.methods])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._ref == self._ref

    def __hash__(self) -> int:
        return hash(self._ref)

    def __reduce__(self) -> Any:
        return ActorHandle, (self._ref, self._interface)  # the reference is counted on its way

    def __repr__(self) -> str:
        return f"ActorHandle({self._interface.class_name}, {self._ref.hex()})"


class ActorMethod:
    """A method of an actor: `.remote(...)` calls it."""

    __slots__ = ("_handle", "_name", "_options")

    def __init__(self, handle: ActorHandle, name: str, options: MethodOptions) -> None:
        self._handle = handle
        self._name = name
        self._options = options

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the method: an ObjectRef, a list of them with `num_returns`, or a generator.

        Calls from one process run in the order in which they were made. `get` of the reference
        raises ActorDiedError if the actor has ended.
        """
        handle = self._handle
        arity = handle._arities.get(self._name)
        if arity is not None and (kwargs or not arity.min_count <= len(args) <= arity.max_count):
            arity.check(args, kwargs)
        ref = handle._ref
        runtime = runtime_of(ref)
        return runtime.call_actor(ref, self._name, args, kwargs, self._options)

    def options(self, **options: Any) -> ActorMethod:
        """The same method with other options: `num_returns`, `name`."""
        return ActorMethod(self._handle, self._name, method_options(self._options, options))

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"{self!r} cannot be called directly: .{self._name}.remote(...) calls it in the actor"
        )

    def __repr__(self) -> str:
        return f"ActorMethod({self._handle._interface.class_name}.{self._name})"


def _methods(cls: type[Any]) -> list[tuple[str, Any]]:
    """What can be called by name: all but the special methods, `__call__` excepted."""
    methods = []
    for name in dir(cls):
        if name.startswith("__") and name.endswith("__") and name != "__call__":
            continue
        value = getattr(cls, name, None)
        if name == "__call__" and not inspect.isfunction(value):
            continue  # the metaclass's
        if callable(value) and not isinstance(value, type):
            methods.append((name, value))
    return methods


def _takes_self(member: Any) -> bool:
    """Whether an instance hands itself to this attribute of its class when it is called."""
    if isinstance(member, staticmethod | classmethod | types.ClassMethodDescriptorType):
        return False
    return hasattr(type(member), "__get__")


def _default_options(member: Any, name: str) -> MethodOptions:
    plain = inspect.unwrap(member)
    is_generator = inspect.isgeneratorfunction(plain)
    base = MethodOptions(num_returns="streaming" if is_generator else 1, name=name)
    return method_options(base, getattr(member, _OPTIONS, {}))


def _refuse_async(cls: type[Any]) -> None:
    for name, member in _methods(cls):
        if inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member):
            raise TypeError(
                f"{cls.__name__}.{name} is async, and rdata has no async actors yet: make it a "
                "plain method that calls asyncio.run(...)"
            )


def _no_method(interface: ActorInterface, name: str) -> str:
    names = sorted(interface.methods)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return (
        f"actor class {interface.class_name} has no method {name!r}; {hint}its methods are: "
        f"{', '.join(names) or 'none'}. An attribute is read by a method that returns it"
    )
