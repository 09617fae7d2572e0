"""What may the arguments of Dataset methods be, and what to say of others?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rdata.dataset.logical import Concurrency, Resources
from rdata.errors import OptionError


def positive(value: Any, method: str, argument: str) -> int:
    """A whole number from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(f"{method}: {argument}={value!r} must be a whole number from 1 up")
    return value


def rows_argument(method: str, value: Any) -> int:
    """A number of rows, from 0 up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(f"{method}: limit={value!r} must be a whole number from 0 up")
    return value


def columns_argument(method: str, columns: Any) -> tuple[str, ...]:
    """Names of columns, none twice: one as text, or several."""
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    for name in names:
        if not isinstance(name, str):
            raise OptionError(f"{method}: {name!r} is no column name: these are text")
        if names.count(name) > 1:
            raise OptionError(f"{method}: column {name!r} is named twice")
    if not names:
        raise OptionError(f"{method}: name at least one column")
    return names


def renaming_argument(names: Any) -> Mapping[str, str] | tuple[str, ...]:
    """New names: a dict from old to new, or all of them."""
    if isinstance(names, Mapping):
        for old, new in names.items():
            if not isinstance(old, str) or not isinstance(new, str):
                raise OptionError(f"rename_columns: {old!r}: {new!r} must both be text")
        return dict(names)
    if isinstance(names, Sequence) and not isinstance(names, str):
        return columns_argument("rename_columns", names)
    raise OptionError("rename_columns: give a dict from old to new names, or a list of all names")


def resources_argument(method: str, num_cpus: float | None, concurrency: Concurrency) -> Resources:
    """What a function's tasks or actors need."""
    if num_cpus is not None and not num_cpus >= 0:
        raise OptionError(f"{method}: num_cpus={num_cpus!r} must not be negative")
    match concurrency:
        case None:
            pass
        case int():
            positive(concurrency, method, "concurrency")
        case (int(least), int(most)) if 1 <= least <= most:
            pass
        case _:
            raise OptionError(
                f"{method}: concurrency={concurrency!r} must be a number, or (least, most)"
            )
    return Resources(num_cpus, concurrency)
