"""Which options do tasks, actors and methods take, and what may their values be?"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from rdata.core.specs import ActorOptions, MethodOptions, TaskOptions
from rdata.errors import OptionError

Check = Callable[[str, Any], Any]


def task_options(base: TaskOptions, given: Mapping[str, Any]) -> TaskOptions:
    """`base` changed by what was given to `@rdata.remote(...)` or `.options(...)`."""
    return replace(base, **_checked(given, _TASK, "a task"))


def actor_options(base: ActorOptions, given: Mapping[str, Any]) -> ActorOptions:
    """`base` changed by what was given for an actor's class."""
    options = replace(base, **_checked(given, _ACTOR, "an actor"))
    if options.get_if_exists and options.name is None:
        raise OptionError("get_if_exists=True needs the name of the actor: name='…'")
    return options


def method_options(base: MethodOptions, given: Mapping[str, Any]) -> MethodOptions:
    """`base` changed by what was given to `@rdata.method(...)` or a method's `.options(...)`."""
    return replace(base, **_checked(given, _METHOD, "an actor's method"))


def resource_amounts(name: str, value: Any) -> dict[str, float]:
    """Check custom resources: a dict from names to amounts, without CPU."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise OptionError(f"{name}={value!r}: give a dict such as {{'disk': 1}}")
    if "CPU" in value or "GPU" in value:
        raise OptionError(f"{name}={value!r}: CPUs are given by num_cpus; rdata has no GPUs yet")
    if not all(isinstance(key, str) and key for key in value):
        raise OptionError(f"{name}={value!r}: a resource's name is a string that is not empty")
    return {key: amount(f"{name}[{key!r}]", each) for key, each in value.items()}


def amount(name: str, value: Any) -> float:
    """Check an amount of a resource: a number that is not negative, and finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise OptionError(f"{name}={value!r}: give a number, 0 or more")
    return float(value)


def check_store_bytes(name: str, value: Any) -> None:
    """Check the store's quota: bytes, or None for what is usual."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise OptionError(f"{name}={value!r}: give a number of bytes")
    if value <= 0:
        raise OptionError(f"{name}={value}: give more than 0 bytes")


class _Absent(Struct, frozen=True):
    """An option of Ray's that rdata does not have yet; the values that change nothing are fine."""

    harmless: tuple[Any, ...]


def _checked(
    given: Mapping[str, Any], known: Mapping[str, tuple[str, Check] | _Absent], what: str
) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, value in given.items():
        option = known.get(name)
        if option is None:
            names = [name for name, option in known.items() if not isinstance(option, _Absent)]
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}"
            raise OptionError(f"{name!r} is not an option of {what}; {hint}")
        if isinstance(option, _Absent):
            if not any(value is each or value == each for each in option.harmless):
                raise OptionError(
                    f"{name}={value!r}: rdata does not have this option of {what} yet; leave it out"
                )
            continue
        field, check = option
        if value is not None or check not in _NEVER_NONE:  # else it stays as it is
            checked[field] = check(name, value)
    return checked


def _num_returns(name: str, value: Any) -> Any:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not is_count and value != "streaming":
        raise OptionError(f"{name}={value!r}: give a whole number, 0 or more, or 'streaming'")
    return value


def _optional_amount(name: str, value: Any) -> float | None:
    return None if value is None else amount(name, value)


def _max_retries(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < -1:
        raise OptionError(f"{name}={value!r}: give a whole number, 0 or more, or -1 for no bound")
    return value


def _retry_exceptions(name: str, value: Any) -> bool | tuple[type[BaseException], ...]:
    if isinstance(value, bool):
        return value
    kinds = tuple(value) if isinstance(value, list | tuple) else ()
    if not kinds or not all(isinstance(k, type) and issubclass(k, BaseException) for k in kinds):
        raise OptionError(f"{name}={value!r}: give True, False or a list of exception classes")
    return kinds


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise OptionError(f"{name}={value!r}: give a string")
    return value


def _optional_text(name: str, value: Any) -> str | None:
    if value == "":
        raise OptionError(f"{name}='': give a string that is not empty")
    return None if value is None else _text(name, value)


def _lifetime(name: str, value: Any) -> Any:
    if value not in (None, "non_detached", "detached"):
        raise OptionError(f"{name}={value!r}: give 'detached' or None")
    return "detached" if value == "detached" else None


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise OptionError(f"{name}={value!r}: give True or False")
    return value


def _optional_count(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(f"{name}={value!r}: give a whole number, 1 or more, or None")
    return value


_NEVER_NONE: tuple[Check, ...] = (amount, _num_returns, _max_retries, _text)

_PLACEMENT: dict[str, tuple[str, Check] | _Absent] = {
    "resources": ("resources", resource_amounts),
    "_metadata": _Absent((None, {})),
    "accelerator_type": _Absent((None,)),
    "enable_task_events": _Absent((None, True)),
    "fallback_strategy": _Absent((None, [])),
    "label_selector": _Absent((None, {})),
    "memory": _Absent((None, 0)),
    "num_gpus": _Absent((None, 0)),
    "object_store_memory": _Absent((None, 0)),
    "placement_group": _Absent((None, "default")),
    "placement_group_bundle_index": _Absent((None, -1)),
    "placement_group_capture_child_tasks": _Absent((None, False)),
    "runtime_env": _Absent((None, {})),
    "scheduling_strategy": _Absent((None, "DEFAULT")),
}
_RETURNS: dict[str, tuple[str, Check] | _Absent] = {
    "num_returns": ("num_returns", _num_returns),
    "name": ("name", _text),
    "generator_backpressure_num_objects": ("generator_backpressure_num_objects", _optional_count),
    "_generator_backpressure_num_objects": ("generator_backpressure_num_objects", _optional_count),
}
_TASK: dict[str, tuple[str, Check] | _Absent] = {
    "num_cpus": ("num_cpus", amount),
    "max_retries": ("max_retries", _max_retries),
    "retry_exceptions": ("retry_exceptions", _retry_exceptions),
    "max_calls": _Absent((None, 0)),
    **_RETURNS,
    **_PLACEMENT,
}
_ACTOR: dict[str, tuple[str, Check] | _Absent] = {
    "num_cpus": ("num_cpus", _optional_amount),
    "name": ("name", _optional_text),
    "namespace": ("namespace", _optional_text),
    "lifetime": ("lifetime", _lifetime),
    "get_if_exists": ("get_if_exists", _flag),
    "allow_out_of_order_execution": _Absent((None, False)),
    "concurrency_groups": _Absent((None, {}, [])),
    "max_concurrency": _Absent((None, 1)),
    "max_pending_calls": _Absent((None, -1)),
    "max_restarts": _Absent((None, 0)),
    "max_task_retries": _Absent((None, 0)),
    **_PLACEMENT,
}
_METHOD: dict[str, tuple[str, Check] | _Absent] = {
    **_RETURNS,
    "concurrency_group": _Absent((None,)),
    "enable_task_events": _Absent((None, True)),
    "max_task_retries": _Absent((None, 0)),
    "retry_exceptions": _Absent((None, False)),
}
