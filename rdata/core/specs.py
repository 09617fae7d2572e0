"""What exactly was asked for, when a task, an actor or a runtime was?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

from msgspec import Struct, field

NumReturns = int | Literal["streaming"]


class Function:
    """A user's function or class, as tasks and actors refer to it.

    `registration` belongs to the runtime, which keeps there what it made of the function at its
    first use (so that it is pickled once, and not per call).
    """

    __slots__ = ("__weakref__", "is_generator", "name", "registration", "target")

    def __init__(self, target: Callable[..., Any]) -> None:
        self.target = target
        self.name = getattr(target, "__qualname__", None) or repr(target)
        self.is_generator = inspect.isgeneratorfunction(inspect.unwrap(target))
        self.registration: Any = None


class InitOptions(Struct, frozen=True):
    """How a program gets its runtime. See `rdata.init`."""

    address: str | None = None
    num_cpus: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    object_store_memory: int | None = None
    namespace: str | None = None
    log_to_driver: bool = True
    ignore_reinit_error: bool = False
    local_mode: bool = False


class TaskOptions(Struct, frozen=True):
    """How a task is to be run. Names and defaults are Ray's."""

    num_cpus: float = 1.0
    resources: Mapping[str, float] = field(default_factory=dict)
    num_returns: NumReturns = 1
    max_retries: int = 3
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    name: str = ""
    generator_backpressure_num_objects: int | None = None  # items made and not yet taken


class ActorOptions(Struct, frozen=True):
    """How an actor is to be placed, named and kept. Names and defaults are Ray's.

    `num_cpus=None`: one CPU to be placed, none while it lives.
    """

    num_cpus: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    name: str | None = None
    namespace: str | None = None
    lifetime: Literal["detached"] | None = None
    get_if_exists: bool = False


class MethodOptions(Struct, frozen=True):
    """How one call of an actor's method is to be run."""

    num_returns: NumReturns = 1
    name: str = ""  # of the task; a class gives its own and the method's
    generator_backpressure_num_objects: int | None = None


class ActorInterface(Struct, frozen=True):
    """What a handle must know of its actor's class: its name and its methods."""

    class_name: str
    methods: Mapping[str, MethodOptions]
