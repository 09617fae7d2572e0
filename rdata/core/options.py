"""Which options do tasks, actors, methods and `rdata.init` take, and what may their values be?"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from rdata.arguments import nonnegative_number, whole_number
from rdata.core.specs import ActorOptions, InitOptions, MethodOptions, TaskOptions
from rdata.errors import OptionError, UnknownOptionError

Check = Callable[[str, Any], Any]

UNITS_PER_ONE = 10_000  # amounts of resources are counted in these; less than one is nothing
_MOST_AMOUNT = 1e30  # far more than anybody has, and far less than is no number any more


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


def init_options(given: Mapping[str, Any]) -> InitOptions:
    """What was given to `rdata.init(...)`."""
    return InitOptions(**_checked(given, _INIT, "rdata.init()"))


def resource_amounts(name: str, value: Any) -> dict[str, float]:
    """Check custom resources: a dict from names to amounts, without CPU."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise OptionError(f"{name}={value!r}: give a dict such as {{'disk': 1}}")
    for key in value:
        if not isinstance(key, str) or not key or not _is_text(key):
            raise OptionError(f"{name}={value!r}: a resource's name is text that is not empty")
        if key in _NOT_CUSTOM:
            raise OptionError(f"{name}={value!r}: {_NOT_CUSTOM[key]}")
    return {key: amount(f"{name}[{key!r}]", each) for key, each in value.items()}


def amount(name: str, value: Any) -> float:
    """Check an amount of a resource: a number that is not negative, and can be counted."""
    number = nonnegative_number(name, value, "a number, 0 or more")
    if number > _MOST_AMOUNT:
        raise OptionError(f"{name}={value!r}: give a number, {_MOST_AMOUNT:g} at most")
    if number and not round(number * UNITS_PER_ONE):
        raise OptionError(
            f"{name}={value!r}: the smallest amount is {1 / UNITS_PER_ONE}; give 0 for none"
        )
    return number


def store_bytes(name: str, value: Any) -> int | None:
    """Check the store's quota: bytes, or None for what is usual."""
    return (
        None if value is None else whole_number(name, value, 1, "more than 0 bytes, a whole number")
    )


class _Absent(Struct, frozen=True):
    """An option of Ray's that rdata does not have yet; the values that change nothing are fine."""

    harmless: tuple[Any, ...]
    instead: str = "leave it out"


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
            raise UnknownOptionError(f"{name!r} is not an option of {what}; {hint}")
        if isinstance(option, _Absent):
            if not any(value is each or value == each for each in option.harmless):
                raise UnknownOptionError(
                    f"{name}={value!r}: rdata does not have this option of {what} yet; "
                    f"{option.instead}"
                )
            continue
        field, check = option
        if value is not None or check not in _NEVER_NONE:  # else it stays as it is
            checked[field] = check(name, value)
    return checked


def _num_returns(name: str, value: Any) -> Any:
    if isinstance(value, str) and value == "streaming":
        return value
    return whole_number(name, value, 0, "a whole number, 0 or more, or 'streaming'")


def _optional_amount(name: str, value: Any) -> float | None:
    return None if value is None else amount(name, value)


def _max_retries(name: str, value: Any) -> int:
    return whole_number(name, value, -1, "a whole number, 0 or more, or -1 for no bound")


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
    if not _is_text(value):
        raise OptionError(f"{name}={value!r}: give text that UTF-8 can express")
    return value


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # surrogates, which no message carries
        return False
    return True


def _optional_text(name: str, value: Any) -> str | None:
    if value == "":
        raise OptionError(f"{name}='': give a string that is not empty")
    return None if value is None else _text(name, value)


def _address(name: str, value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise OptionError(f"{name}={value!r}: give 'auto', 'local' or HOST:PORT")
    return value


def _lifetime(name: str, value: Any) -> Any:
    if value not in (None, "non_detached", "detached"):
        raise OptionError(f"{name}={value!r}: give 'detached' or None")
    return "detached" if value == "detached" else None


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise OptionError(f"{name}={value!r}: give True or False")
    return value


def _optional_count(name: str, value: Any) -> int | None:
    return (
        None
        if value is None
        else whole_number(name, value, 1, "a whole number, 1 or more, or None")
    )


_NEVER_NONE: tuple[Check, ...] = (amount, _flag, _num_returns, _max_retries, _text)
_NOT_CUSTOM = {
    "CPU": "CPUs are given by num_cpus",
    "GPU": "rdata has no GPUs yet; a resource of another name counts them, {'gpu': 1} for instance",
    "object_store_memory": "the store's quota is given to rdata.init by object_store_memory",
}

_NO_GPUS = _Absent((None, 0), "a custom resource counts them: resources={'gpu': 1}")
_NO_ENVIRONMENT = _Absent(
    (None, {}), "set variables in os.environ before rdata.init(), and install packages on the nodes"
)
_PLACEMENT: dict[str, tuple[str, Check] | _Absent] = {
    "resources": ("resources", resource_amounts),
    "_metadata": _Absent((None, {})),
    "accelerator_type": _Absent((None,)),
    "enable_task_events": _Absent((None, True)),
    "fallback_strategy": _Absent((None, [])),
    "label_selector": _Absent((None, {})),
    "memory": _Absent((None, 0)),
    "num_gpus": _NO_GPUS,
    "object_store_memory": _Absent((None, 0)),
    "placement_group": _Absent((None, "default")),
    "placement_group_bundle_index": _Absent((None, -1)),
    "placement_group_capture_child_tasks": _Absent((None, False)),
    "runtime_env": _NO_ENVIRONMENT,
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

_NO_DASHBOARD = "there is no dashboard: leave it out"
_LOGGERS = "rdata logs as Python does: logging.getLogger('rdata') is its logger"
_INIT: dict[str, tuple[str, Check] | _Absent] = {
    "address": ("address", _address),
    "num_cpus": ("num_cpus", _optional_amount),
    "resources": ("resources", resource_amounts),
    "object_store_memory": ("object_store_memory", store_bytes),
    "namespace": ("namespace", _optional_text),
    "log_to_driver": ("log_to_driver", _flag),
    "ignore_reinit_error": ("ignore_reinit_error", _flag),
    "local_mode": ("local_mode", _flag),
    "_driver_object_store_memory": _Absent((None,)),
    "_enable_object_reconstruction": _Absent((None, False)),
    "_memory": _Absent((None, 0)),
    "_metrics_export_port": _Absent((None,)),
    "_node_ip_address": _Absent((None,), "rdata start --node-ip-address=… has it"),
    "_node_name": _Absent((None,)),
    "_plasma_directory": _Absent((None,)),
    "_redis_password": _Absent((None,)),
    "_redis_username": _Absent((None,)),
    "_skip_env_hook": _Absent((None, False)),
    "_system_config": _Absent((None, {}), "settings are RDATA_… in the environment"),
    "_temp_dir": _Absent((None,), "set RDATA_TEMP_DIR in the environment"),
    "_tracing_startup_hook": _Absent((None,)),
    "cgroup_path": _Absent((None,)),
    "configure_logging": _Absent((None, True, False)),
    "dashboard_host": _Absent((None, "127.0.0.1"), _NO_DASHBOARD),
    "dashboard_port": _Absent((None,), _NO_DASHBOARD),
    "enable_resource_isolation": _Absent((None, False)),
    "include_dashboard": _Absent((None, False), _NO_DASHBOARD),
    "job_config": _Absent((None,)),
    "labels": _Absent((None, {}), "a custom resource marks a node: resources={'disk': 1}"),
    "logging_config": _Absent((None,), _LOGGERS),
    "logging_format": _Absent((None,), _LOGGERS),
    "logging_level": _Absent((None, "info"), _LOGGERS),
    "num_gpus": _NO_GPUS,
    "object_spilling_directory": _Absent((None,), "leave it out: a full store is an error"),
    "proxy_server_url": _Absent((None,)),
    "runtime_env": _NO_ENVIRONMENT,
    "system_reserved_cpu": _Absent((None,)),
    "system_reserved_memory": _Absent((None,)),
}
